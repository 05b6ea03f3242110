//! Groups: both protocols, every assignor, members that come and go, offsets that stay.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleuve::client::config::{GroupProtocol, OffsetReset};
use fleuve::client::consumer::RebalanceListener;
use fleuve::client::{BoxFuture, Consumer, ConsumerConfig};
use fleuve_types::TopicPartition;

use crate::target::{PATIENCE, Target, for_each_target, take, unique, values};

for_each_target! {
    members_share_and_take_over_with_every_assignor
    members_share_and_take_over_with_the_consumer_protocol
    members_of_one_client_do_not_wait_for_each_other
    cooperative_members_keep_what_stays
    commits_survive_the_member
    patterns_find_topics_of_now_and_later
    static_members_come_back_to_their_partitions
}

fn config(group: &str) -> ConsumerConfig {
    ConsumerConfig {
        group_id: Some(group.to_owned()),
        offset_reset: OffsetReset::Earliest,
        heartbeat_interval: Duration::from_millis(100),
        ..ConsumerConfig::default()
    }
}

fn classic(group: &str, assignor: &str) -> ConsumerConfig {
    ConsumerConfig { assignment_strategy: vec![assignor.to_owned()], ..config(group) }
}

fn reconciling(group: &str) -> ConsumerConfig {
    ConsumerConfig { group_protocol: GroupProtocol::Consumer, ..config(group) }
}

/// Reports whether the broker serves the group protocol of these settings.
async fn served(target: &Target, config: &ConsumerConfig) -> bool {
    config.group_protocol == GroupProtocol::Classic || target.reconciles().await
}

/// Polls all members until together they have exactly the partitions of the topic, and each has so
/// many.
async fn converge(members: &[&Consumer], counts: &[usize]) {
    let begun = tokio::time::Instant::now();
    loop {
        for member in members {
            member.poll(Duration::from_millis(20)).await.expect("readable");
        }
        let shares: Vec<_> = members.iter().map(|member| member.assignment()).collect();
        let mut sizes: Vec<_> = shares.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        let distinct: BTreeSet<_> = shares.iter().flatten().collect();
        if sizes == counts && distinct.len() == counts.iter().sum::<usize>() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no such division in time: {shares:?}");
    }
}

/// The answer that makes the first member rejoin must not wait behind the join of the second, which waits for the first.
async fn members_of_one_client_do_not_wait_for_each_other(target: &Target) {
    let topic = target.topic("shared", 4).await;
    let client = target.client().await;
    let config = ConsumerConfig { session_timeout: 10 * PATIENCE, ..config(&unique("group")) };
    let first = Consumer::new(client.clone(), config.clone()).expect("valid");
    first.subscribe(&[&topic]).expect("a group");
    converge(&[&first], &[4]).await;
    let second = Consumer::new(client, config).expect("valid");
    second.subscribe(&[&topic]).expect("a group");
    converge(&[&first, &second], &[2, 2]).await;
}

async fn share_and_take_over(target: &Target, config_of: impl Fn(&str) -> ConsumerConfig) {
    let topic = target.topic("shared", 4).await;
    let group = unique("group");
    let first = target.consumer(config_of(&group)).await;
    first.subscribe(&[&topic]).expect("a group");
    converge(&[&first], &[4]).await;
    let second = target.consumer(config_of(&group)).await;
    second.subscribe(&[&topic]).expect("a group");
    converge(&[&first, &second], &[2, 2]).await;
    let third = target.consumer(config_of(&group)).await;
    third.subscribe(&[&topic]).expect("a group");
    converge(&[&first, &second, &third], &[1, 1, 2]).await;
    first.close().await.expect("closed");
    converge(&[&second, &third], &[2, 2]).await;
    second.close().await.expect("closed");
    converge(&[&third], &[4]).await;
    third.close().await.expect("closed");
}

async fn members_share_and_take_over_with_every_assignor(target: &Target) {
    for assignor in ["range", "roundrobin", "sticky", "cooperative-sticky"] {
        share_and_take_over(target, |group| classic(group, assignor)).await;
    }
}

async fn members_share_and_take_over_with_the_consumer_protocol(target: &Target) {
    if target.reconciles().await {
        share_and_take_over(target, reconciling).await;
    }
}

#[derive(Default)]
struct Book {
    entries: Mutex<Vec<(&'static str, Vec<TopicPartition>)>>,
}

impl Book {
    fn note(&self, what: &'static str, partitions: &[TopicPartition]) {
        self.entries.lock().expect("no panic").push((what, partitions.to_vec()));
    }

    fn count(&self, what: &str) -> usize {
        let entries = self.entries.lock().expect("no panic");
        entries.iter().filter(|(name, _)| *name == what).map(|(_, list)| list.len()).sum()
    }
}

impl RebalanceListener for Book {
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        self.note("assigned", partitions);
        Box::pin(std::future::ready(()))
    }

    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        self.note("revoked", partitions);
        Box::pin(std::future::ready(()))
    }

    fn lost<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        self.note("lost", partitions);
        Box::pin(std::future::ready(()))
    }
}

async fn cooperative_members_keep_what_stays(target: &Target) {
    for config in [|group: &str| classic(group, "cooperative-sticky"), reconciling] {
        if !served(target, &config("")).await {
            continue;
        }
        let topic = target.topic("kept", 6).await;
        let group = unique("group");
        let first = target.consumer(config(&group)).await;
        let book = Arc::new(Book::default());
        first.set_rebalance_listener(book.clone());
        first.subscribe(&[&topic]).expect("a group");
        converge(&[&first], &[6]).await;
        assert_eq!(book.count("assigned"), 6);
        let second = target.consumer(config(&group)).await;
        second.subscribe(&[&topic]).expect("a group");
        converge(&[&first, &second], &[3, 3]).await;
        assert_eq!(
            (book.count("assigned"), book.count("revoked"), book.count("lost")),
            (6, 3, 0),
            "three were never given up"
        );
        second.close().await.expect("closed");
        converge(&[&first], &[6]).await;
        assert_eq!(book.count("assigned"), 9);
        first.close().await.expect("closed");
    }
}

async fn commits_survive_the_member(target: &Target) {
    for config in [|group: &str| classic(group, "range"), reconciling] {
        if !served(target, &config("")).await {
            continue;
        }
        let topic = target.topic("commits", 1).await;
        target.write(&topic, 0, &["a", "b", "c", "d", "e", "f"]).await;
        let group = unique("group");
        let partition = TopicPartition::new(&*topic, 0);
        let by_hand = ConsumerConfig { auto_commit: false, ..config(&group) };

        let consumer = target.consumer(by_hand.clone()).await;
        consumer.subscribe(&[&topic]).expect("a group");
        assert_eq!(values(&take(&consumer, 2).await), ["a", "b"]);
        consumer.commit().await.expect("committed");
        take(&consumer, 1).await;
        consumer.close().await.expect("closed");

        let consumer = target.consumer(by_hand).await;
        consumer.subscribe(&[&topic]).expect("a group");
        assert_eq!(values(&take(&consumer, 1).await), ["c"], "what was not committed comes again");
        let (done, told) = tokio::sync::oneshot::channel();
        consumer.commit_async(|result| drop(done.send(result)));
        told.await.expect("called").expect("committed");
        let committed = consumer.committed(std::slice::from_ref(&partition)).await;
        assert_eq!(committed.expect("known")[&partition].offset, 3);
        consumer.commit_offsets(HashMap::from([(partition, 5)])).await.expect("committed");
        consumer.close().await.expect("closed");

        let consumer = target.consumer(config(&group)).await;
        consumer.subscribe(&[&topic]).expect("a group");
        assert_eq!(values(&take(&consumer, 1).await), ["f"]);
        // Closing commits what was given out.
        consumer.close().await.expect("closed");
        let admin = fleuve::client::Admin::new(target.client().await);
        let offsets = admin.group_offsets(&group).await.expect("known");
        assert_eq!(offsets.values().map(|at| at.offset).collect::<Vec<_>>(), [6]);
    }
}

async fn patterns_find_topics_of_now_and_later(target: &Target) {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        if protocol == GroupProtocol::Consumer && !target.reconciles().await {
            continue;
        }
        let label = unique("pattern");
        target.create(&format!("{label}-a"), 1).await;
        target.create(&format!("not-{label}-a"), 1).await;
        let mut client = target.config();
        client.metadata_max_age = Duration::from_millis(200);
        let client = fleuve::client::Client::connect(client).await.expect("reachable");
        let config = ConsumerConfig { group_protocol: protocol, ..config(&unique("group")) };
        let consumer = Consumer::new(client, config).expect("valid");
        consumer.subscribe_pattern(&format!("{label}-.")).expect("valid");
        converge(&[&consumer], &[1]).await;
        target.create(&format!("{label}-b"), 2).await;
        converge(&[&consumer], &[3]).await;
        let topics: BTreeSet<_> =
            consumer.assignment().iter().map(|partition| partition.topic.to_string()).collect();
        assert_eq!(Vec::from_iter(topics), [format!("{label}-a"), format!("{label}-b")]);
        consumer.close().await.expect("closed");
    }
}

async fn static_members_come_back_to_their_partitions(target: &Target) {
    for config in [|group: &str| classic(group, "range"), reconciling] {
        if !served(target, &config("")).await {
            continue;
        }
        let topic = target.topic("static", 4).await;
        let group = unique("group");
        let named = |name: &str| ConsumerConfig {
            group_instance_id: Some(name.to_owned()),
            ..config(&group)
        };
        let first = target.consumer(named("one")).await;
        first.subscribe(&[&topic]).expect("a group");
        let second = target.consumer(named("two")).await;
        second.subscribe(&[&topic]).expect("a group");
        converge(&[&first, &second], &[2, 2]).await;
        let (kept, theirs) = (first.assignment(), second.assignment());
        second.close().await.expect("closed");
        first.poll(Duration::from_millis(300)).await.expect("readable");
        assert_eq!(first.assignment(), kept, "nobody takes over from a static member at once");
        let second = target.consumer(named("two")).await;
        second.subscribe(&[&topic]).expect("a group");
        converge(&[&first, &second], &[2, 2]).await;
        assert_eq!((first.assignment(), second.assignment()), (kept, theirs));
        first.close().await.expect("closed");
        second.close().await.expect("closed");
    }
}

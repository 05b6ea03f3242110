//! Sources by pattern against a broker in this process: topics come and go while applications run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleuve::Embedded;
use fleuve_client::admin::NewTopic;
use fleuve_client::config::{IsolationLevel, OffsetReset};
use fleuve_client::consumer::Start;
use fleuve_client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Record,
};
use fleuve_streams::{
    Consumed, Guarantee, Restoration, RestoreListener, Settings, Streams, StreamsError,
    StreamsGroupProtocol, Topology, TopologyError,
};
use fleuve_types::TopicPartition;

/// Only a deadline.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that hears of new topics soon.
fn client(broker: &Embedded) -> Client {
    let metadata_max_age = Duration::from_millis(150);
    broker.client_with(ClientConfig { metadata_max_age, ..ClientConfig::default() })
}

async fn create(broker: &Embedded, topic: &str, partitions: i32) {
    let new = NewTopic::new(topic).partitions(partitions);
    for (topic, result) in
        Admin::new(broker.client()).create_topics(&[new], false).await.expect("an answer")
    {
        result.unwrap_or_else(|error| panic!("{topic}: {error}"));
    }
}

/// Sends a value to every partition of a topic, under the partition's number as key.
async fn send(broker: &Embedded, topic: &str, partitions: i32, value: &str) {
    let producer = Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
    for partition in 0..partitions {
        let key = partition.to_string();
        let record = Record::new(topic).partition(partition).key(&key).value(value);
        drop(producer.send(record).await.expect("a place in a batch"));
    }
    producer.close().await.expect("all delivered");
}

/// Reads an output topic of one partition.
struct Output(Consumer);

impl Output {
    fn of(broker: &Embedded, topic: &str) -> Self {
        let config = ConsumerConfig {
            isolation_level: IsolationLevel::ReadCommitted,
            ..ConsumerConfig::default()
        };
        let consumer = Consumer::new(broker.client(), config).expect("a consumer");
        consumer.assign(&[(TopicPartition::new(topic, 0), Start::Beginning)]).expect("a partition");
        Self(consumer)
    }

    /// The next records, as many as that, with their bytes as texts.
    async fn next(&self, count: usize) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let text = |bytes: Option<bytes::Bytes>| {
            String::from_utf8(bytes.expect("not null").to_vec()).expect("text")
        };
        while found.len() < count {
            let next = self.0.next(PATIENCE).await.expect("a readable topic");
            let record = next.unwrap_or_else(|| panic!("only {found:?}"));
            found.push((text(record.key), text(record.value)));
        }
        found
    }
}

/// Waits until an application reads exactly these topics.
async fn wait_for_inputs(apps: &[&Streams], expected: &[(&str, usize)]) {
    let expected: BTreeMap<String, usize> =
        expected.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
    let mut found = BTreeMap::new();
    let waiting = async {
        while found != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut seen: BTreeSet<(String, i32)> = BTreeSet::new();
            for app in apps {
                for input in app.metrics().tasks.iter().flat_map(|task| &task.inputs) {
                    // A task of a larger topic has nothing of a smaller one, and does not know how far behind it is.
                    if input.lag.is_some() {
                        seen.insert((input.topic.to_string(), input.partition));
                    }
                }
            }
            found = BTreeMap::new();
            for (topic, _) in seen {
                *found.entry(topic).or_insert(0) += 1;
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(ended.is_ok(), "{found:?} instead of {expected:?}");
}

/// Counts restored records.
#[derive(Debug, Default)]
struct Restored(AtomicU64);

impl RestoreListener for Restored {
    fn restore_ended(&self, restoration: &Restoration) {
        self.0.fetch_add(restoration.records, Ordering::SeqCst);
    }
}

fn settings(guarantee: Guarantee) -> Settings {
    Settings {
        guarantee,
        commit_interval: Some(Duration::from_millis(50)),
        session_timeout: Duration::from_secs(6),
        ..Settings::default()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    pairs.sort();
    pairs
}

async fn next_sorted(output: &Output, count: usize) -> Vec<(String, String)> {
    let mut next = output.next(count).await;
    next.sort();
    next
}

async fn topics_come_and_go(guarantee: Guarantee) {
    let broker = Embedded::start().await.expect("a broker");
    for (topic, partitions) in [("orders-de", 2), ("returns", 2), ("other", 2), ("out", 1)] {
        create(&broker, topic, partitions).await;
    }
    send(&broker, "orders-de", 2, "1").await;
    send(&broker, "other", 2, "1").await;
    let app = Topology::new("counting");
    let orders = app.stream_pattern::<String, String>("orders-[a-z]{2}");
    orders
        .merge(&app.stream("returns"))
        .group_by_key()
        .count("counts")
        .to_stream()
        .map_values(|count: Option<i64>| count.unwrap_or_default().to_string())
        .to("out");
    let restored = Arc::new(Restored::default());
    let settings = || Settings { restore_listener: Some(restored.clone()), ..settings(guarantee) };
    let first = Streams::start(&app, client(&broker), settings()).await.expect("an application");
    let output = Output::of(&broker, "out");
    assert_eq!(next_sorted(&output, 2).await, pairs(&[("0", "1"), ("1", "1")]));

    // A topic that is created while the application runs joins the tasks that are there, whose state stays.
    create(&broker, "orders-fr", 2).await;
    send(&broker, "orders-fr", 2, "1").await;
    assert_eq!(next_sorted(&output, 2).await, pairs(&[("0", "2"), ("1", "2")]));
    wait_for_inputs(&[&first], &[("orders-de", 2), ("orders-fr", 2), ("returns", 2)]).await;
    send(&broker, "returns", 2, "1").await;
    assert_eq!(next_sorted(&output, 2).await, pairs(&[("0", "3"), ("1", "3")]));

    // One that is deleted leaves them.
    let deleted = Admin::new(broker.client()).delete_topics(&["orders-de"]).await;
    assert!(deleted.expect("an answer").iter().all(|(_, result)| result.is_ok()));
    wait_for_inputs(&[&first], &[("orders-fr", 2), ("returns", 2)]).await;
    send(&broker, "orders-fr", 2, "1").await;
    assert_eq!(next_sorted(&output, 2).await, pairs(&[("0", "4"), ("1", "4")]));
    assert_eq!(restored.0.load(Ordering::SeqCst), 0, "tasks run on");

    // Another instance takes over a task with all that it reads now.
    let second = Streams::start(&app, client(&broker), settings()).await.expect("an instance");
    let both = [&first, &second];
    wait_for_inputs(&both, &[("orders-fr", 2), ("returns", 2)]).await;
    create(&broker, "orders-it", 1).await;
    wait_for_inputs(&both, &[("orders-fr", 2), ("orders-it", 1), ("returns", 2)]).await;
    send(&broker, "orders-it", 1, "1").await;
    assert_eq!(next_sorted(&output, 1).await, pairs(&[("0", "5")]));
    send(&broker, "orders-fr", 2, "1").await;
    assert_eq!(next_sorted(&output, 2).await, pairs(&[("0", "6"), ("1", "5")]));
    first.close().await.expect("a clean end");
    send(&broker, "orders-it", 1, "1").await;
    assert_eq!(next_sorted(&output, 1).await, pairs(&[("0", "7")]));
    second.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_come_and_go_while_tasks_run() {
    topics_come_and_go(Guarantee::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_come_and_go_exactly_once() {
    topics_come_and_go(Guarantee::ExactlyOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn larger_topics_bring_further_tasks_and_state_does_not_grow() {
    let broker = Embedded::start().await.expect("a broker");
    create(&broker, "out", 1).await;
    let app = Topology::new("copying");
    app.stream_pattern::<String, String>("in-.*").to("out");
    let protocol = StreamsGroupProtocol::Auto;
    let settings = || Settings { group_protocol: protocol, ..settings(Guarantee::AtLeastOnce) };
    let first = Streams::start(&app, client(&broker), settings()).await.expect("an application");
    let second = Streams::start(&app, client(&broker), settings()).await.expect("an instance");
    let output = Output::of(&broker, "out");
    create(&broker, "in-a", 1).await;
    send(&broker, "in-a", 1, "a").await;
    assert_eq!(output.next(1).await, pairs(&[("0", "a")]));
    create(&broker, "in-b", 3).await;
    send(&broker, "in-b", 3, "b").await;
    assert_eq!(next_sorted(&output, 3).await, pairs(&[("0", "b"), ("1", "b"), ("2", "b")]));
    wait_for_inputs(&[&first, &second], &[("in-a", 1), ("in-b", 3)]).await;
    assert!(!first.metrics().tasks.is_empty() && !second.metrics().tasks.is_empty());
    first.close().await.expect("a clean end");
    second.close().await.expect("a clean end");

    let app = Topology::new("counting");
    app.stream_pattern::<String, String>("few-.*").group_by_key().count("n").to_stream().to("out");
    create(&broker, "few-a", 1).await;
    let mut running =
        Streams::start(&app, client(&broker), settings()).await.expect("an application");
    wait_for_inputs(&[&running], &[("few-a", 1)]).await;
    create(&broker, "few-b", 2).await;
    let failed = tokio::time::timeout(PATIENCE, running.failed()).await.expect("an end");
    assert!(
        matches!(&failed, Some(StreamsError::InternalTopic { found: 1, needed: 2, .. })),
        "{failed:?}"
    );
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_to_a_topic_are_read() {
    let broker = Embedded::start().await.expect("a broker");
    for topic in ["in", "out"] {
        create(&broker, topic, 1).await;
    }
    let app = Topology::new("growing");
    app.stream::<String, String>("in").to("out");
    let running = Streams::start(&app, client(&broker), settings(Guarantee::ExactlyOnce))
        .await
        .expect("an application");
    wait_for_inputs(&[&running], &[("in", 1)]).await;
    let added = Admin::new(broker.client()).create_partitions(&[("in", 3)], false).await;
    assert!(added.expect("an answer").iter().all(|(_, result)| result.is_ok()));
    wait_for_inputs(&[&running], &[("in", 3)]).await;
    send(&broker, "in", 3, "a").await;
    let output = Output::of(&broker, "out");
    assert_eq!(next_sorted(&output, 3).await, pairs(&[("0", "a"), ("1", "a"), ("2", "a")]));
    running.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_two_patterns_ends_the_application() {
    let broker = Embedded::start().await.expect("a broker");
    create(&broker, "a-1", 1).await;
    let app = Topology::new("overlapping");
    app.stream_pattern::<String, String>("a-.*").to("out");
    app.stream_pattern::<String, String>(".*-b").to("out");
    let by_broker = Settings {
        group_protocol: StreamsGroupProtocol::Streams,
        ..settings(Guarantee::AtLeastOnce)
    };
    let refused = Streams::start(&app, client(&broker), by_broker).await;
    assert!(matches!(refused, Err(StreamsError::PatternOfBroker)));
    let mut running = Streams::start(&app, client(&broker), settings(Guarantee::AtLeastOnce))
        .await
        .expect("an application");
    wait_for_inputs(&[&running], &[("a-1", 1)]).await;
    create(&broker, "a-b", 1).await;
    let failed = tokio::time::timeout(PATIENCE, running.failed()).await.expect("an end");
    assert!(
        matches!(
            &failed,
            Some(StreamsError::Topology(TopologyError::MatchedTwice { topic, .. })) if topic == "a-b"
        ),
        "{failed:?}"
    );
    let again = Streams::start(&app, client(&broker), settings(Guarantee::AtLeastOnce)).await;
    assert!(matches!(again, Err(StreamsError::Topology(TopologyError::MatchedTwice { .. }))));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_source_begins_where_it_says() {
    let broker = Embedded::start().await.expect("a broker");
    for topic in ["late-1", "all", "out"] {
        create(&broker, topic, 1).await;
    }
    send(&broker, "late-1", 1, "old").await;
    send(&broker, "all", 1, "old").await;
    let app = Topology::new("resets");
    let from = |reset| Consumed::<String, String>::default().offset_reset(reset);
    app.stream_pattern_with("late-.*", from(OffsetReset::Latest))
        .map_values(|value| format!("late {value}"))
        .to("out");
    // Nothing is said here, so it is for the settings to say.
    app.stream::<String, String>("all").map_values(|value| format!("all {value}")).to("out");
    let running = Streams::start(&app, client(&broker), settings(Guarantee::AtLeastOnce))
        .await
        .expect("an application");
    let output = Output::of(&broker, "out");
    assert_eq!(output.next(1).await, pairs(&[("0", "all old")]));
    // Once one is read, all after it are, and none before it.
    let mut number = 0;
    let first = loop {
        send(&broker, "late-1", 1, &number.to_string()).await;
        number += 1;
        if let Some(first) = output.0.next(Duration::from_millis(200)).await.expect("readable") {
            break first.value.expect("a text");
        }
    };
    let value = String::from_utf8(first.to_vec()).expect("text");
    let read: i32 =
        value.strip_prefix("late ").expect("of this topic").parse().expect("no old one");
    assert!(read < number);
    running.close().await.expect("a clean end");

    let app = Topology::new("resets");
    app.stream_with(&["all"], from(OffsetReset::Latest)).to("out");
    app.stream::<String, String>("all").to("out");
    assert_eq!(app.build().err(), Some(TopologyError::OffsetResets));
    broker.shutdown().await;
}

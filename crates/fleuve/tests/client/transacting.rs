//! Transactions: all or nothing, offsets included, and one producer per id.

use std::time::Duration;

use fleuve::client::config::{IsolationLevel, OffsetReset};
use fleuve::client::{Advice, ConsumerConfig, Error, Producer, ProducerConfig, Record};
use fleuve_protocol::ApiKey;

use crate::target::{Target, for_each_target, take, unique, values};

for_each_target! {
    committed_records_are_seen_and_aborted_ones_are_not
    offsets_stand_or_fall_with_their_transaction
    a_second_producer_of_an_id_fences_the_first
    calls_out_of_order_are_refused
    every_input_is_counted_once_over_crashes
}

/// A broker without transactions does not offer them.
async fn has_transactions(target: &Target) -> bool {
    target.offers(ApiKey::AddPartitionsToTxn).await && target.offers(ApiKey::EndTxn).await
}

async fn producer(target: &Target, id: &str) -> Producer {
    let config =
        ProducerConfig { transactional_id: Some(id.to_owned()), ..ProducerConfig::default() };
    let producer = target.producer(config).await;
    producer.init_transactions().await.expect("an identity");
    producer
}

fn committed_only() -> ConsumerConfig {
    ConsumerConfig {
        isolation_level: IsolationLevel::ReadCommitted,
        offset_reset: OffsetReset::Earliest,
        auto_commit: false,
        ..ConsumerConfig::default()
    }
}

async fn send(producer: &Producer, topic: &str, partition: i32, value: &str) {
    let record = Record::new(topic).partition(partition).value(value);
    drop(producer.send(record).await.expect("taken"));
}

async fn committed_records_are_seen_and_aborted_ones_are_not(target: &Target) {
    if !has_transactions(target).await {
        return;
    }
    let topic = target.topic("transactions", 2).await;
    let producer = producer(target, &unique("id")).await;
    for round in 0..6 {
        producer.begin_transaction().expect("ready");
        for partition in 0..2 {
            for part in ["a", "b"] {
                send(&producer, &topic, partition, &format!("{round}{part}")).await;
            }
        }
        if round % 2 == 0 {
            producer.commit_transaction().await.expect("committed");
        } else {
            producer.flush().await.expect("written, to be aborted");
            producer.abort_transaction().await.expect("aborted");
        }
    }
    // Nothing was sent, so there is nothing to tell the broker of.
    producer.begin_transaction().expect("ready");
    producer.commit_transaction().await.expect("committed");
    producer.close().await.expect("closed");
    let expected = ["0a", "0b", "2a", "2b", "4a", "4b"];
    for partition in 0..2 {
        let records = target.read(&topic, partition, 6, committed_only()).await;
        assert_eq!(values(&records), expected);
        let all = target.read(&topic, partition, 12, ConsumerConfig::default()).await;
        assert_eq!(values(&all).len(), 12);
    }
}

async fn offsets_stand_or_fall_with_their_transaction(target: &Target) {
    if !has_transactions(target).await {
        return;
    }
    let topic = target.topic("inputs", 1).await;
    target.write(&topic, 0, &["a", "b", "c"]).await;
    let group = unique("group");
    let config = ConsumerConfig { group_id: Some(group.clone()), ..committed_only() };
    let consumer = target.consumer(config).await;
    consumer.subscribe(&[&topic]).expect("a group");
    let producer = producer(target, &unique("id")).await;
    let partition = fleuve_types::TopicPartition::new(&*topic, 0);
    for (commit, expected) in [(false, None), (true, Some(2))] {
        take(&consumer, 1).await;
        producer.begin_transaction().expect("ready");
        let offsets = consumer.positions_to_commit();
        let member = consumer.group_metadata().expect("a group");
        producer.send_offsets(&offsets, &member).await.expect("taken");
        if commit {
            producer.commit_transaction().await.expect("committed");
        } else {
            producer.abort_transaction().await.expect("aborted");
        }
        let offsets = consumer.committed(std::slice::from_ref(&partition)).await.expect("known");
        assert_eq!(offsets.get(&partition).map(|committed| committed.offset), expected);
    }
    producer.close().await.expect("closed");
    consumer.close().await.expect("closed");
}

async fn a_second_producer_of_an_id_fences_the_first(target: &Target) {
    if !has_transactions(target).await {
        return;
    }
    let topic = target.topic("fenced", 1).await;
    let id = unique("id");
    let first = producer(target, &id).await;
    first.begin_transaction().expect("ready");
    send(&first, &topic, 0, "left open").await;
    first.flush().await.expect("written");
    let second = producer(target, &id).await;
    let error = match first.commit_transaction().await {
        // A leader may notice first, by the records' epoch.
        Err(error @ Error::Abortable { .. }) => {
            assert_eq!(error.advice(), Advice::Abort);
            first.abort_transaction().await.expect_err("fenced")
        }
        other => other.expect_err("fenced"),
    };
    assert_eq!(error.advice(), Advice::Stop, "{error}");
    second.begin_transaction().expect("ready");
    send(&second, &topic, 0, "after").await;
    second.commit_transaction().await.expect("committed");
    second.close().await.expect("closed");
    let records = target.read(&topic, 0, 1, committed_only()).await;
    assert_eq!(values(&records), ["after"]);
}

async fn calls_out_of_order_are_refused(target: &Target) {
    if !has_transactions(target).await {
        return;
    }
    let topic = target.topic("order", 1).await;
    let plain = target.producer(ProducerConfig::default()).await;
    assert!(plain.begin_transaction().is_err());
    let config =
        ProducerConfig { transactional_id: Some(unique("id")), ..ProducerConfig::default() };
    let producer = target.producer(config).await;
    assert!(producer.begin_transaction().is_err(), "before init");
    producer.init_transactions().await.expect("an identity");
    let outside = producer.send(Record::new(&topic).value("x")).await.err().expect("outside");
    assert!(outside.to_string().contains("outside a transaction"), "{outside}");
    assert!(producer.commit_transaction().await.is_err());
    producer.begin_transaction().expect("ready");
    assert!(producer.begin_transaction().is_err(), "twice");
    producer.close().await.expect("an open transaction is aborted");
}

/// A loop that reads, writes and commits both together, given up at random places by dropping
/// everything; its successor goes on where the last commit was.
async fn every_input_is_counted_once_over_crashes(target: &Target) {
    if !has_transactions(target).await {
        return;
    }
    let (input, output) = (target.topic("input", 2).await, target.topic("output", 2).await);
    let expected: Vec<_> = (0..60).map(|index| format!("{index:03}")).collect();
    let writer = target.producer(ProducerConfig::default()).await;
    for (index, value) in expected.iter().enumerate() {
        send(&writer, &input, (index % 2) as i32, value).await;
    }
    writer.close().await.expect("written");
    let (group, id) = (unique("group"), unique("id"));
    let mut done = 0;
    let mut life = 0;
    while done < expected.len() {
        life += 1;
        let config = ConsumerConfig {
            group_id: Some(group.clone()),
            heartbeat_interval: Duration::from_millis(100),
            ..committed_only()
        };
        let consumer = target.consumer(config).await;
        consumer.subscribe(&[&input]).expect("a group");
        let producer = producer(target, &id).await;
        for step in 0.. {
            let records = take(&consumer, 3.min(expected.len() - done)).await;
            producer.begin_transaction().expect("ready");
            for record in &records {
                let value = values(std::slice::from_ref(record)).remove(0);
                send(&producer, &output, record.partition, &value).await;
            }
            let offsets = consumer.positions_to_commit();
            let member = consumer.group_metadata().expect("a group");
            producer.send_offsets(&offsets, &member).await.expect("taken");
            if step == life % 4 {
                // The crash: records and offsets are written, and nobody commits them.
                producer.flush().await.expect("written");
                break;
            }
            producer.commit_transaction().await.expect("committed");
            done += records.len();
            if done == expected.len() {
                break;
            }
        }
        drop(producer);
        consumer.close().await.expect("closed");
        assert!(life < 100, "no progress");
    }
    let mut seen = Vec::new();
    for partition in 0..2 {
        let records = target.read(&output, partition, 30, committed_only()).await;
        let values = values(&records);
        assert!(values.is_sorted(), "order within a partition: {values:?}");
        seen.extend(values);
    }
    seen.sort_unstable();
    assert_eq!(seen, expected);
    let more = target.consumer(committed_only()).await;
    let places: Vec<_> = (0..2)
        .map(|partition| {
            let partition = fleuve_types::TopicPartition::new(&*output, partition);
            (partition, fleuve::client::consumer::Start::Beginning)
        })
        .collect();
    more.assign(&places).expect("free");
    assert_eq!(take(&more, 60).await.len(), 60);
    let extra = more.poll(Duration::from_millis(500)).await.expect("readable");
    assert!(extra.is_none_or(|records| records.is_empty()), "nothing came twice");
    more.close().await.expect("closed");
}

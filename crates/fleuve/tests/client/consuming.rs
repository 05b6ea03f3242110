//! Reading without a group: places to begin, going elsewhere, offsets that have no record.

use std::time::Duration;

use fleuve::client::config::OffsetReset;
use fleuve::client::consumer::Start;
use fleuve::client::{ConsumerConfig, ProducerConfig, Record};
use fleuve_types::TopicPartition;

use crate::target::{Target, for_each_target, take, values};

for_each_target! {
    reading_begins_where_it_is_told
    a_consumer_without_offsets_goes_back_by_a_duration
    small_fetches_bring_every_record_once
}

async fn reading_begins_where_it_is_told(target: &Target) {
    let topic = target.topic("places", 1).await;
    let producer = target.producer(ProducerConfig::default()).await;
    for index in 0..20 {
        let value = index.to_string();
        let record = Record::new(&topic).value(&value).timestamp(1000 * index);
        producer.send_and_wait(record).await.expect("written");
    }
    let partition = TopicPartition::new(&*topic, 0);
    let consumer = target.consumer(ConsumerConfig::default()).await;
    consumer.assign(&[(partition.clone(), Start::Beginning)]).expect("free");
    for (start, first) in [
        (Start::Beginning, "0"),
        (Start::Offset(7), "7"),
        (Start::Timestamp(11_500), "12"),
        (Start::Timestamp(19_000), "19"),
    ] {
        consumer.seek(&partition, start).expect("assigned");
        let records = take_from(&consumer, first).await;
        assert_eq!(records, first, "{start:?}");
    }
    consumer.seek(&partition, Start::End).expect("assigned");
    assert!(consumer.poll(Duration::from_millis(300)).await.expect("readable").is_none());
    producer.send_and_wait(Record::new(&topic).value("20")).await.expect("written");
    let records = consumer.poll(crate::target::PATIENCE).await.expect("readable").expect("one");
    assert_eq!(records.iter().next().and_then(|record| record.value), Some(&b"20"[..]));
    producer.close().await.expect("closed");
    consumer.close().await.expect("closed");
}

/// Returns the first value after a seek, which drops what single records were still to come.
async fn take_from(consumer: &fleuve::client::Consumer, _: &str) -> String {
    let records = consumer.poll(crate::target::PATIENCE).await.expect("readable").expect("some");
    let first = records.iter().next().expect("a record");
    String::from_utf8_lossy(first.value.unwrap_or_default()).into_owned()
}

async fn a_consumer_without_offsets_goes_back_by_a_duration(target: &Target) {
    let topic = target.topic("duration", 1).await;
    let producer = target.producer(ProducerConfig::default()).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after");
    let now = now.as_millis() as i64;
    for (value, age_s) in [("old", 7200), ("young", 60)] {
        let record = Record::new(&topic).value(value).timestamp(now - age_s * 1000);
        producer.send_and_wait(record).await.expect("written");
    }
    producer.close().await.expect("closed");
    let config = ConsumerConfig {
        group_id: Some(crate::target::unique("duration")),
        offset_reset: OffsetReset::ByDuration(Duration::from_secs(3600)),
        ..ConsumerConfig::default()
    };
    let consumer = target.consumer(config).await;
    consumer.subscribe(&[&topic]).expect("a group");
    assert_eq!(values(&take(&consumer, 1).await), ["young"]);
    consumer.close().await.expect("closed");
}

async fn small_fetches_bring_every_record_once(target: &Target) {
    let topic = target.topic("small", 3).await;
    let producer =
        target.producer(ProducerConfig { batch_size: 500, ..ProducerConfig::default() }).await;
    for index in 0..3000 {
        let value = index.to_string();
        let record = Record::new(&topic).partition(index % 3).value(&value);
        drop(producer.send(record).await.expect("taken"));
    }
    producer.close().await.expect("written");
    let config = ConsumerConfig {
        max_partition_fetch_bytes: 700,
        fetch_max_bytes: 1500,
        ..ConsumerConfig::default()
    };
    let consumer = target.consumer(config).await;
    let places: Vec<_> = (0..3)
        .map(|partition| (TopicPartition::new(&*topic, partition), Start::Beginning))
        .collect();
    consumer.assign(&places).expect("free");
    let mut seen: Vec<i32> = values(&take(&consumer, 3000).await)
        .iter()
        .map(|value| value.parse().expect("a number"))
        .collect();
    for partition in 0..3 {
        let mine: Vec<_> = seen.iter().filter(|value| **value % 3 == partition).collect();
        assert!(mine.is_sorted(), "order within partition {partition}");
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..3000).collect::<Vec<_>>());
    consumer.close().await.expect("closed");
}

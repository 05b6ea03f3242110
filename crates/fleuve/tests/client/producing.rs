//! What goes in comes out: order, codecs, keys, headers, sizes.

use std::sync::Arc;

use fleuve::client::producer::{Header, Partitioner, partition_for_key};
use fleuve::client::{ConsumerConfig, Error, ProducerConfig, Record};
use fleuve_protocol::records::{Codec, Compression};

use crate::target::{Target, for_each_target, values};

for_each_target! {
    every_codec_carries_records_in_order
    keys_choose_partitions_as_kafkas_clients_do
    a_partitioner_of_the_program_comes_before_keys
    headers_timestamps_and_tombstones_survive
    a_record_beyond_the_limit_is_refused_alone
}

async fn every_codec_carries_records_in_order(target: &Target) {
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let topic = target.topic("codec", 1).await;
        let codec = Codec::new(compression);
        let config = ProducerConfig { codec, batch_size: 4096, ..ProducerConfig::default() };
        let producer = target.producer(config).await;
        let expected: Vec<_> = (0..2000).map(|index| format!("{compression:?} {index}")).collect();
        for value in &expected {
            drop(producer.send(Record::new(&topic).value(value)).await.expect("taken"));
        }
        producer.close().await.expect("written");
        let records = target.read(&topic, 0, expected.len(), ConsumerConfig::default()).await;
        assert_eq!(values(&records), expected);
    }
}

async fn keys_choose_partitions_as_kafkas_clients_do(target: &Target) {
    let topic = target.topic("keys", 7).await;
    let producer = target.producer(ProducerConfig::default()).await;
    for index in 0..50 {
        let key = format!("key {index}");
        let record = Record::new(&topic).key(&key).value("");
        let written = producer.send_and_wait(record).await.expect("written");
        assert_eq!(written.partition.partition as usize, partition_for_key(key.as_bytes(), 7));
    }
    producer.close().await.expect("closed");
}

/// Records whose value is a number go to that partition.
#[derive(Debug)]
struct ByValue;

impl Partitioner for ByValue {
    fn partition(&self, record: &Record<'_>, _: usize) -> Option<i32> {
        std::str::from_utf8(record.value?).ok()?.parse().ok()
    }
}

async fn a_partitioner_of_the_program_comes_before_keys(target: &Target) {
    let topic = target.topic("partitioner", 3).await;
    let config = ProducerConfig { partitioner: Some(Arc::new(ByValue)), ..Default::default() };
    let producer = target.producer(config).await;
    for (value, expected) in [("0", 0), ("2", 2), ("none", partition_for_key(b"k", 3))] {
        let record = Record::new(&topic).key("k").value(value);
        let written = producer.send_and_wait(record).await.expect("written");
        assert_eq!(written.partition.partition as usize, expected, "{value}");
    }
    let record = Record::new(&topic).partition(1).value("0");
    let written = producer.send_and_wait(record).await.expect("written");
    assert_eq!(written.partition.partition, 1, "whoever names a partition means it");
    let refused = producer.send(Record::new(&topic).value("3")).await.err().expect("refused");
    assert!(matches!(refused, Error::NoSuchPartition { partition: 3, .. }), "{refused}");
    producer.close().await.expect("closed");
}

async fn headers_timestamps_and_tombstones_survive(target: &Target) {
    let topic = target.topic("headers", 1).await;
    let producer = target.producer(ProducerConfig::default()).await;
    let header = |key: &'static str, value| Header { key: key.as_bytes(), value };
    let headers = [header("a", Some(&b"1"[..])), header("a", None), header("", Some(&b""[..]))];
    let record = Record::new(&topic).key("k").headers(&headers).timestamp(1_600_000_000_123);
    producer.send_and_wait(record).await.expect("written");
    producer.close().await.expect("closed");
    let records = target.read(&topic, 0, 1, ConsumerConfig::default()).await;
    let record = &records[0];
    assert_eq!((record.value.as_deref(), record.timestamp), (None, 1_600_000_000_123));
    let headers: Vec<_> =
        record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    assert_eq!(headers, [("a", Some(&b"1"[..])), ("a", None), ("", Some(&b""[..]))]);
}

async fn a_record_beyond_the_limit_is_refused_alone(target: &Target) {
    let topic = target.topic("large", 1).await;
    let producer = target.producer(ProducerConfig::default()).await;
    let large = vec![0; 2 << 20];
    let refused = producer.send(Record::new(&topic).value(&large)).await.err().expect("refused");
    assert!(matches!(refused, Error::RecordTooLarge { .. }), "{refused}");
    producer.send_and_wait(Record::new(&topic).value("small")).await.expect("written");
    producer.close().await.expect("closed");
}

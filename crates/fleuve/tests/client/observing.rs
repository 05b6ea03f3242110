//! Types for keys and values, interceptors, and what clients count and push.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fleuve::Embedded;
use fleuve::client::admin::{Alteration, Resource};
use fleuve::client::config::OffsetReset;
use fleuve::client::consumer::{Records, Start};
use fleuve::client::interceptor::{
    ConsumerInterceptor, Interceptors, OutgoingRecord, ProducerInterceptor,
};
use fleuve::client::producer::RecordMetadata;
use fleuve::client::serialization::{Json, Number, Text, Typed};
use fleuve::client::{Admin, ConsumerConfig, Error, Metric, Producer, ProducerConfig, Record};
use fleuve_types::TopicPartition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::target::{PATIENCE, Target, for_each_target, unique};

for_each_target! {
    keys_and_values_have_types
    interceptors_see_every_record_and_commit
    clients_count_under_kafkas_names
}

async fn keys_and_values_have_types(target: &Target) {
    let topic = target.topic("typed", 1).await;
    let producer = target.producer(ProducerConfig::default()).await;
    let formats = Typed::new(Number, Json);
    for number in 0..3i64 {
        let value = HashMap::from([("number", number)]);
        drop(
            producer
                .send_typed(&topic, Some(&number), Some(&value), &formats)
                .await
                .expect("taken"),
        );
    }
    let text: Typed<Number, Text> = Typed::default();
    drop(producer.send_typed(&topic, Some(&3i64), Some("no JSON"), &text).await.expect("taken"));
    drop(
        producer.send_typed::<i64, str, _, _>(&topic, Some(&4), None, &text).await.expect("taken"),
    );
    producer.close().await.expect("written");
    let consumer = target.consumer(ConsumerConfig::default()).await;
    consumer.assign(&[(TopicPartition::new(&*topic, 0), Start::Beginning)]).expect("free");
    let mut read = Vec::new();
    while read.len() < 5 {
        let records = consumer.poll(PATIENCE).await.expect("readable").expect("records");
        read.extend(
            records
                .typed::<i64, HashMap<String, i64>, _, _>(&formats)
                .map(|record| record.map(|record| (record.key, record.value))),
        );
    }
    for (number, record) in (0..3).zip(&read) {
        let value = HashMap::from([("number".to_owned(), number)]);
        assert_eq!(*record.as_ref().expect("typed"), (Some(number), Some(value)));
    }
    let error = read[3].as_ref().expect_err("no JSON").to_string();
    assert!(error.contains("the value at offset 3"), "{error}");
    assert_eq!(*read[4].as_ref().expect("a tombstone"), (Some(4), None));
    consumer.close().await.expect("closed");
}

/// Marks records, and counts what it is told.
#[derive(Default)]
struct Witness {
    acknowledged: AtomicUsize,
    consumed: AtomicUsize,
    committed: Mutex<HashMap<TopicPartition, i64>>,
}

impl ProducerInterceptor for Witness {
    fn on_send(&self, record: &mut OutgoingRecord) {
        record.headers.push(("seen".to_owned(), Some(b"yes".to_vec())));
    }

    fn on_acknowledgement(&self, _: &TopicPartition, result: Result<&RecordMetadata, &Error>) {
        let offset = result.expect("written").offset.expect("acks=all");
        assert!(offset >= 0);
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

impl ConsumerInterceptor for Witness {
    fn on_consume(&self, records: &Records) {
        self.consumed.fetch_add(records.count(), Ordering::SeqCst);
    }

    fn on_commit(&self, offsets: &HashMap<TopicPartition, i64>) {
        self.committed.lock().expect("no panic").extend(offsets.clone());
    }
}

async fn interceptors_see_every_record_and_commit(target: &Target) {
    let topic = target.topic("intercepted", 1).await;
    let witness = Arc::new(Witness::default());
    let mut interceptors = Interceptors::<dyn ProducerInterceptor>::default();
    interceptors.push(witness.clone());
    let producer =
        target.producer(ProducerConfig { interceptors, ..ProducerConfig::default() }).await;
    for _ in 0..10 {
        drop(producer.send(Record::new(&topic).value("x")).await.expect("taken"));
    }
    producer.close().await.expect("written");
    assert_eq!(witness.acknowledged.load(Ordering::SeqCst), 10);
    let mut interceptors = Interceptors::<dyn ConsumerInterceptor>::default();
    interceptors.push(witness.clone());
    let config = ConsumerConfig {
        group_id: Some(unique("intercepted")),
        offset_reset: OffsetReset::Earliest,
        auto_commit: false,
        interceptors,
        ..ConsumerConfig::default()
    };
    let consumer = target.consumer(config).await;
    consumer.subscribe(&[&topic]).expect("a group");
    let mut read = 0;
    while read < 10 {
        let records = consumer.poll(PATIENCE).await.expect("readable").expect("records");
        for record in &records {
            let header = record.headers.clone().next().expect("marked");
            assert_eq!((header.key, header.value), (&b"seen"[..], Some(&b"yes"[..])));
        }
        read += records.count();
    }
    consumer.commit().await.expect("committed");
    assert_eq!(witness.consumed.load(Ordering::SeqCst), 10);
    let committed = witness.committed.lock().expect("no panic").clone();
    assert_eq!(committed, HashMap::from([(TopicPartition::new(&*topic, 0), 10)]));
    consumer.close().await.expect("closed");
}

fn value(metrics: &[Metric], name: &str) -> f64 {
    let metric = metrics.iter().find(|metric| metric.name == name);
    metric.unwrap_or_else(|| panic!("no {name}")).value
}

fn of_topic(metrics: &[Metric], group: &str, name: &str, topic: &str) -> f64 {
    let tags = [("topic", topic.to_owned())];
    let same =
        |metric: &&Metric| metric.group == group && metric.name == name && metric.tags == tags;
    metrics.iter().find(same).unwrap_or_else(|| panic!("no {name} of {topic}")).value
}

async fn clients_count_under_kafkas_names(target: &Target) {
    let topic = target.topic("counted", 1).await;
    let producer = target.producer(ProducerConfig::default()).await;
    for _ in 0..100 {
        drop(producer.send(Record::new(&topic).value("0123456789")).await.expect("taken"));
    }
    producer.flush().await.expect("written");
    let metrics = producer.metrics();
    assert_eq!(value(&metrics, "record-send-total"), 100.0);
    assert_eq!(value(&metrics, "record-error-total"), 0.0);
    assert_eq!(value(&metrics, "requests-in-flight"), 0.0);
    assert!(value(&metrics, "batch-size-max") > 1000.0 / value(&metrics, "request-total"));
    let total = value(&metrics, "buffer-total-bytes");
    assert_eq!(value(&metrics, "buffer-available-bytes"), total, "everything is done");
    assert_eq!(of_topic(&metrics, "producer-topic-metrics", "record-send-total", &topic), 100.0);
    assert!(of_topic(&metrics, "producer-topic-metrics", "byte-total", &topic) > 1000.0);
    assert_eq!(of_topic(&metrics, "producer-topic-metrics", "record-retry-total", &topic), 0.0);
    producer.close().await.expect("closed");
    let consumer = target.consumer(ConsumerConfig::default()).await;
    consumer.assign(&[(TopicPartition::new(&*topic, 0), Start::Beginning)]).expect("free");
    let mut read = 0;
    while read < 100 {
        read += consumer.poll(PATIENCE).await.expect("readable").expect("records").count();
    }
    let metrics = consumer.metrics();
    assert_eq!(value(&metrics, "records-consumed-total"), 100.0);
    let group = "consumer-fetch-manager-metrics";
    assert_eq!(of_topic(&metrics, group, "records-consumed-total", &topic), 100.0);
    assert!(of_topic(&metrics, group, "bytes-consumed-total", &topic) > 1000.0);
    assert!(of_topic(&metrics, group, "fetch-size-max", &topic) > 0.0);
    assert_eq!(value(&metrics, "records-lag-max"), 0.0);
    assert_eq!(value(&metrics, "assigned-partitions"), 1.0);
    let lag = metrics.iter().find(|metric| metric.name == "records-lag").expect("of the partition");
    assert_eq!(lag.tags, [("topic", topic.clone()), ("partition", "0".to_owned())]);
    consumer.close().await.expect("closed");
}

/// Apache Kafka takes no telemetry without a plugin, so this one is about our broker alone.
#[tokio::test]
async fn what_brokers_subscribe_to_is_pushed() {
    let builder = Embedded::builder().set("fleuve.metrics.listen", "127.0.0.1:0");
    let embedded = builder.start().await.expect("it starts");
    let client = embedded.client();
    let settings = [
        Alteration::Set("metrics".to_owned(), "org.apache.kafka.producer.record".to_owned()),
        Alteration::Set("interval.ms".to_owned(), "100".to_owned()),
    ];
    let subscription = Resource::ClientMetrics("test".to_owned());
    let admin = Admin::new(client.clone());
    admin.alter_configs(&subscription, &settings, false).await.expect("subscribed");
    let producer = Producer::new(client, ProducerConfig::default()).expect("valid");
    producer.send_and_wait(Record::new("pushed").value("x")).await.expect("written");
    let address = embedded.http_address().expect("a metrics page");
    let begun = tokio::time::Instant::now();
    loop {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("listening");
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("asked");
        let mut page = String::new();
        stream.read_to_string(&mut page).await.expect("text");
        let shown = page.lines().filter(|line| !line.starts_with('#'));
        let mut shown = shown.filter(|line| line.starts_with("kafka_client_"));
        if shown.any(|line| line.contains("record_send_total") && line.ends_with(" 1")) {
            assert!(!page.contains("buffer_total"), "only what was asked for");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing was pushed: {page}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    producer.close().await.expect("closed");
    embedded.shutdown().await;
}

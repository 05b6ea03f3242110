//! Applications against a broker in this process: the same topologies as in the driver, over the real protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use fleuve::Embedded;
use fleuve_client::admin::NewTopic;
use fleuve_client::consumer::Start;
use fleuve_client::{Admin, Consumer, ConsumerConfig, Producer, ProducerConfig, Record};
use fleuve_streams::{Guarantee, Settings, Streams, Topology};
use fleuve_types::TopicPartition;

const PARTITIONS: i32 = 3;

fn word_count() -> Topology {
    let app = Topology::new("word-count");
    app.stream::<(), String>("lines")
        .flat_map_values(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .group_by(|_, word| word.clone())
        .count("word-counts")
        .to_stream()
        .to("counts");
    app
}

async fn create_topics(broker: &Embedded) {
    let topics = [
        NewTopic::new("lines").partitions(PARTITIONS),
        NewTopic::new("counts").partitions(PARTITIONS),
    ];
    for (topic, result) in
        Admin::new(broker.client()).create_topics(&topics, false).await.expect("an answer")
    {
        result.unwrap_or_else(|error| panic!("{topic}: {error}"));
    }
}

async fn send_lines(broker: &Embedded, lines: &[String]) {
    let producer = Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
    for (number, line) in lines.iter().enumerate() {
        let record = Record::new("lines").partition(number as i32 % PARTITIONS).value(line);
        drop(producer.send(record).await.expect("a place in a batch"));
    }
    producer.close().await.expect("all delivered");
}

/// Reads the counts until every word has its expected one, and returns how many records that took.
async fn wait_for_counts(broker: &Embedded, expected: &BTreeMap<String, i64>) -> usize {
    let config = ConsumerConfig {
        isolation_level: fleuve_client::config::IsolationLevel::ReadCommitted,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(broker.client(), config).expect("a consumer");
    let all: Vec<_> = (0..PARTITIONS)
        .map(|number| (TopicPartition::new("counts", number), Start::Beginning))
        .collect();
    consumer.assign(&all).expect("partitions");
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    let mut read = 0;
    while counts != *expected {
        let records =
            consumer.poll(Duration::from_secs(60)).await.expect("a readable topic").unwrap_or_else(
                || panic!("no more counts after {counts:?}, expected {expected:?}"),
            );
        for record in records.into_owned() {
            let word = String::from_utf8(record.key.expect("a word").to_vec()).expect("text");
            let count = record.value.expect("a count").as_ref().try_into().expect("8 bytes");
            let count = i64::from_be_bytes(count);
            let before = counts.insert(word.clone(), count).unwrap_or(0);
            assert!(count > before, "{word}: {count} after {before}");
            read += 1;
        }
    }
    read
}

fn settings(guarantee: Guarantee, threads: usize) -> Settings {
    Settings {
        threads,
        guarantee,
        commit_interval: Some(Duration::from_millis(50)),
        ..Settings::default()
    }
}

fn lines(count: usize) -> (Vec<String>, BTreeMap<String, i64>) {
    let words = ["to", "be", "or", "not", "question"];
    let mut expected = BTreeMap::new();
    let lines = (0..count)
        .map(|number| {
            let line: Vec<&str> =
                (0..4).map(|n| words[(number * 7 + n * n) % words.len()]).collect();
            for word in &line {
                *expected.entry((*word).to_owned()).or_insert(0) += 1;
            }
            line.join(" ")
        })
        .collect();
    (lines, expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn word_count_on_two_threads_goes_on_after_a_stop() {
    let broker = Embedded::start().await.expect("a broker");
    create_topics(&broker).await;
    let (input, expected) = lines(300);
    send_lines(&broker, &input).await;
    let app = Streams::start(&word_count(), broker.client(), settings(Guarantee::AtLeastOnce, 2))
        .await
        .expect("an application");
    wait_for_counts(&broker, &expected).await;
    app.close().await.expect("a clean end");

    // State and position come back: the counts go on where they were.
    send_lines(&broker, &input).await;
    let doubled = expected.iter().map(|(word, count)| (word.clone(), count * 2)).collect();
    let app = Streams::start(&word_count(), broker.client(), settings(Guarantee::AtLeastOnce, 1))
        .await
        .expect("an application");
    wait_for_counts(&broker, &doubled).await;
    app.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_named() {
    let broker = Embedded::start().await.expect("a broker");
    let error = Streams::start(&word_count(), broker.client(), Settings::default())
        .await
        .expect_err("there is no topic");
    assert_eq!(
        error.to_string(),
        "topic lines does not exist; create it before the application starts"
    );
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_counts_every_word_once_though_instances_die() {
    let broker = Embedded::start().await.expect("a broker");
    create_topics(&broker).await;
    let mut expected = BTreeMap::new();
    for _ in 0..3 {
        let (input, counted) = lines(200);
        send_lines(&broker, &input).await;
        for (word, count) in counted {
            *expected.entry(word).or_insert(0) += count;
        }
        let settings = Settings {
            session_timeout: Duration::from_secs(6),
            ..settings(Guarantee::ExactlyOnce, 1)
        };
        let app =
            Streams::start(&word_count(), broker.client(), settings).await.expect("an application");
        // Readers of committed records see each count of a word but once, ever rising.
        wait_for_counts(&broker, &expected).await;
        // Dropped where it stands: what was under way is not committed.
        drop(app);
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_goes_on_while_instances_come_and_go() {
    let broker = Embedded::start().await.expect("a broker");
    create_topics(&broker).await;
    // So short that commits meet rebalances: those that the group refuses are done once more.
    let settings = |threads| Settings {
        commit_interval: Some(Duration::from_millis(5)),
        ..settings(Guarantee::ExactlyOnce, threads)
    };
    let mut stays =
        Streams::start(&word_count(), broker.client(), settings(1)).await.expect("an application");
    let mut expected = BTreeMap::new();
    for _ in 0..3 {
        let comes = Streams::start(&word_count(), broker.client(), settings(2))
            .await
            .expect("another instance");
        let (input, counted) = lines(200);
        send_lines(&broker, &input).await;
        for (word, count) in counted {
            *expected.entry(word).or_insert(0) += count;
        }
        tokio::select! {
            _ = wait_for_counts(&broker, &expected) => {}
            error = stays.failed() => panic!("the instance that stays has ended: {error:?}"),
        }
        comes.close().await.expect("a clean end");
    }
    stays.close().await.expect("a clean end");
    broker.shutdown().await;
}

//! Records that fail, and clusters that are not as the program needs them: every policy, at every place.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use fleuve::Embedded;
use fleuve_client::admin::NewTopic;
use fleuve_client::consumer::Start;
use fleuve_client::{Admin, Consumer, ConsumerConfig, Producer, ProducerConfig, Record};
use fleuve_streams::{
    AsyncOrder, Consumed, ErrorPolicy, Headers, Materialized, Presence, Produced, Serde,
    SerdeError, SerdeOf, Settings, Streams, TestDriver, Topology,
};
use fleuve_types::TopicPartition;

/// Fails the given number of times, and then succeeds.
#[derive(Clone)]
struct Flaky(Arc<AtomicI64>);

impl Flaky {
    fn failing(times: i64) -> Self {
        Self(Arc::new(AtomicI64::new(times)))
    }

    fn call(&self) -> Result<(), String> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            left if left > 0 => Err(format!("{left} failures left")),
            _ => Ok(()),
        }
    }
}

fn send(driver: &mut TestDriver, at: i64, key: &str, value: &str) {
    driver.input("in").at(at).send(&key.to_owned(), &value.to_owned());
}

fn retry(attempts: u32) -> ErrorPolicy {
    ErrorPolicy::retry(attempts, Duration::from_millis(100))
}

#[test]
fn a_record_is_tried_again_in_virtual_time_and_order_is_kept() {
    let app = Topology::new("app");
    app.on_error(retry(3));
    let flaky = Flaky::failing(2);
    app.stream::<String, String>("in")
        .flat_map_values(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .try_map_values(move |word| flaky.call().map(|()| word + "!"))
        .to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 1, "k", "a b");
    send(&mut driver, 2, "k", "c");
    assert!(driver.output::<String, String>("out").pairs().is_empty());
    driver.advance_ms(99);
    assert!(driver.output::<String, String>("out").pairs().is_empty());
    // The second attempt fails, and the next pause is twice as long.
    driver.advance_ms(1).advance_ms(199);
    assert!(driver.output::<String, String>("out").pairs().is_empty());
    driver.advance_ms(1);
    let sent = driver.output::<String, String>("out").stamped();
    let expected = [("a!", 1), ("b!", 1), ("c!", 2)];
    assert_eq!(sent, expected.map(|(value, at)| ("k".to_owned(), value.to_owned(), at)));
    assert!(driver.failure().is_none());
}

#[test]
fn nothing_of_a_record_is_committed_while_it_is_tried_again() {
    let app = Topology::new("app");
    app.on_error(retry(5));
    let flaky = Flaky::failing(1);
    let input = app.stream::<String, String>("in");
    input.group_by_key().count("counts").to_stream().to("counted");
    input.try_map_values(move |value| flaky.call().map(|()| value)).to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 1, "k", "a");
    driver.crash();
    // Processed anew as a whole: counted once.
    assert_eq!(driver.output::<String, i64>("counted").pairs(), [("k".to_owned(), 1)]);
    assert_eq!(driver.output::<String, String>("out").pairs().len(), 1);
}

#[test]
fn when_no_attempt_is_left_the_policy_behind_applies() {
    for (policy, fails, dead) in [
        (retry(2), true, 0),
        (retry(2).or(ErrorPolicy::Skip), false, 0),
        (retry(2).or(ErrorPolicy::DeadLetter("dead".to_owned())), false, 1),
    ] {
        let app = Topology::new("app");
        app.on_error(policy);
        app.stream::<String, String>("in")
            .try_filter(|_, value| if value == "bad" { Err("bad value") } else { Ok(true) })
            .to("out");
        let mut driver = TestDriver::new(&app).expect("a valid topology");
        send(&mut driver, 1, "k", "bad");
        send(&mut driver, 2, "k", "good");
        driver.advance_ms(100).advance_ms(200);
        assert_eq!(driver.failure().is_some(), fails);
        let out = driver.output::<String, String>("out").pairs();
        assert_eq!(out.len(), usize::from(!fails));
        let letters = driver.output::<String, String>("dead").records();
        assert_eq!(letters.len(), dead);
        for letter in letters {
            let header = |key: &str| letter.record.headers.last(key).map(|value| value.to_vec());
            assert_eq!(header("__streams.errors.message"), Some(b"bad value".to_vec()));
            assert_eq!(header("__streams.errors.topic"), Some(b"in".to_vec()));
            assert_eq!(header("__streams.errors.offset"), Some(b"0".to_vec()));
        }
    }
}

/// Text that must not be "poison": the serde refuses it in both directions.
struct Careful;

impl Serde<String> for Careful {
    fn serialize(
        &self,
        _: &str,
        _: &mut Headers,
        value: &String,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        if value == "poison" {
            return Err(SerdeError::new("poison"));
        }
        out.extend_from_slice(value.as_bytes());
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        _: &str,
        _: &Headers,
        bytes: Option<bytes::Bytes>,
    ) -> Result<String, SerdeError> {
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        if text == "poison" { Err(SerdeError::new("poison")) } else { Ok(text) }
    }
}

fn careful() -> SerdeOf<String> {
    SerdeOf::new(Careful)
}

#[test]
fn reading_processing_and_writing_have_policies_of_their_own() {
    let app = Topology::new("app");
    app.on_unreadable(ErrorPolicy::DeadLetter("unreadable".to_owned()))
        .on_unprocessable(ErrorPolicy::DeadLetter("unprocessable".to_owned()))
        .on_unwritable(ErrorPolicy::DeadLetter("unwritable".to_owned()));
    app.stream_with::<String, String>(&["in"], Consumed::with(SerdeOf::usual(), careful()))
        .try_map_values(|value| match value.as_str() {
            "broken" => Err("broken"),
            "bitter" => Ok("poison".to_owned()),
            _ => Ok(value),
        })
        .to_with("out", Produced::with(SerdeOf::usual(), careful()));
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    for (at, value) in ["poison", "broken", "bitter", "good"].iter().enumerate() {
        send(&mut driver, at as i64, "k", value);
    }
    let mut values = |topic: &str| -> Vec<String> {
        let pairs = driver.output::<String, String>(topic).pairs();
        pairs.into_iter().map(|(_, value)| value).collect()
    };
    assert_eq!(values("unreadable"), ["poison"]);
    assert_eq!(values("unprocessable"), ["broken"]);
    assert_eq!(values("unwritable"), ["bitter"], "the input record, not what was made of it");
    assert_eq!(values("out"), ["good"]);
}

#[test]
fn global_tables_follow_the_policy_too() {
    for (policy, fails, dead) in [
        (ErrorPolicy::Fail, true, 0),
        (retry(3), true, 0),
        (ErrorPolicy::Skip, false, 0),
        (retry(1).or(ErrorPolicy::DeadLetter("dead".to_owned())), false, 1),
    ] {
        let app = Topology::new("app");
        app.on_error(policy);
        let table = app.global_table_with::<String, String>(
            "table",
            Consumed::with(SerdeOf::usual(), careful()),
            Materialized::named("rows"),
        );
        app.stream::<String, String>("in")
            .join_global(&table, |key, _| key.clone(), |value, row| format!("{value}{row}"))
            .to("out");
        let mut driver = TestDriver::new(&app).expect("a valid topology");
        for value in ["poison", "row"] {
            driver.input("table").at(0).send(&"k".to_owned(), &value.to_owned());
        }
        send(&mut driver, 1, "k", "v");
        assert_eq!(driver.failure().is_some(), fails);
        let joined = driver.output::<String, String>("out").pairs();
        assert_eq!(joined.len(), usize::from(!fails));
        // A restart reads the table again, and sends no letter twice.
        driver.crash();
        assert_eq!(driver.output::<String, String>("dead").pairs().len(), dead);
    }
}

#[test]
fn fallible_operators_give_their_errors_to_the_policy() {
    let app = Topology::new("app");
    app.on_error(ErrorPolicy::DeadLetter("dead".to_owned()));
    let number = |text: &String| text.parse::<i64>();
    let input = app.stream::<String, String>("in");
    input.try_select_key(move |_, value| number(value)).to("by-number");
    input
        .try_flat_map_values(move |value| Ok::<_, std::num::ParseIntError>(0..number(&value)?))
        .to("counting");
    input.try_group_by(move |_, value| number(value).map(|number| number % 2)).count("parity");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    for value in ["2", "two"] {
        send(&mut driver, 0, "k", value);
    }
    assert_eq!(driver.output::<i64, String>("by-number").pairs(), [(2, "2".to_owned())]);
    let counting = driver.output::<String, i64>("counting").pairs();
    assert_eq!(counting, [("k".to_owned(), 0), ("k".to_owned(), 1)]);
    assert_eq!(driver.store::<i64, i64>("parity"), [(0, 1)]);
    assert_eq!(driver.output::<String, String>("dead").pairs().len(), 3);
}

async fn create(broker: &Embedded, topics: &[(&str, i32)]) {
    let topics: Vec<NewTopic> =
        topics.iter().map(|(name, count)| NewTopic::new(*name).partitions(*count)).collect();
    let results = Admin::new(broker.client()).create_topics(&topics, false).await;
    for (topic, result) in results.expect("an answer") {
        result.unwrap_or_else(|error| panic!("{topic}: {error}"));
    }
}

async fn produce(broker: &Embedded, topic: &str, values: &[&[u8]]) {
    let producer = Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
    for value in values {
        let record = Record::new(topic).partition(0).key("k").value(value);
        drop(producer.send(record).await.expect("a place in a batch"));
    }
    producer.close().await.expect("all delivered");
}

/// Reads so many records of a topic's first partition.
async fn consume(broker: &Embedded, topic: &str, count: usize) -> Vec<Vec<u8>> {
    let consumer = Consumer::new(broker.client(), ConsumerConfig::default()).expect("a consumer");
    consumer.assign(&[(TopicPartition::new(topic, 0), Start::Beginning)]).expect("a partition");
    let mut values = Vec::new();
    while values.len() < count {
        let record = consumer.next(Duration::from_secs(60)).await.expect("a readable topic");
        let value = record.and_then(|record| record.value);
        values.push(value.unwrap_or_else(|| panic!("{topic} has only {values:?}")).to_vec());
    }
    values
}

fn settings() -> Settings {
    Settings { commit_interval: Some(Duration::from_millis(50)), ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_tries_again_and_goes_on() {
    let broker = Embedded::start().await.expect("a broker");
    create(&broker, &[("in", 1), ("out", 1)]).await;
    let app = Topology::new("app");
    app.on_error(ErrorPolicy::retry(10, Duration::from_millis(5)));
    let (flaky, calls) = (Flaky::failing(4), Arc::new(AtomicU32::new(0)));
    let counted = calls.clone();
    app.stream::<String, String>("in")
        .try_map_values(move |value| {
            counted.fetch_add(1, Ordering::Relaxed);
            flaky.call().map(|()| value)
        })
        .to("out");
    produce(&broker, "in", &[b"a", b"b"]).await;
    let running = Streams::start(&app, broker.client(), settings()).await.expect("an application");
    assert_eq!(consume(&broker, "out", 2).await, [b"a", b"b"]);
    assert_eq!(calls.load(Ordering::Relaxed), 6);
    running.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cluster_refuses_becomes_a_dead_letter() {
    let broker = Embedded::start().await.expect("a broker");
    create(&broker, &[("in", 1), ("dead", 1)]).await;
    let small = NewTopic::new("out").partitions(1).config("max.message.bytes", "1000");
    for (_, result) in
        Admin::new(broker.client()).create_topics(&[small], false).await.expect("an answer")
    {
        result.expect("created");
    }
    let app = Topology::new("app");
    app.on_unwritable(ErrorPolicy::DeadLetter("dead".to_owned()));
    // Blows a small record up.
    app.stream::<String, String>("in")
        .map_values(|value| value.repeat(if value == "large" { 1000 } else { 1 }))
        .to("out");
    produce(&broker, "in", &[b"large", b"small"]).await;
    let running = Streams::start(&app, broker.client(), settings()).await.expect("an application");
    assert_eq!(consume(&broker, "dead", 1).await, [b"large"]);
    running.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_does_not_fit_is_refused_with_the_topic_and_the_remedy() {
    let broker = Embedded::start().await.expect("a broker");
    create(&broker, &[("two", 2), ("three", 3), ("app-counts-changelog", 5)]).await;
    let refusal = async |app: &Topology| -> String {
        let started = Streams::start(app, broker.client(), settings()).await;
        started.expect_err("it does not fit").to_string()
    };

    let app = Topology::new("app");
    let table = app.table::<String, String>("three");
    app.stream::<String, String>("two").join(&table, |a, b| format!("{a}{b}")).to("out");
    assert_eq!(
        refusal(&app).await,
        "three, two need the same number of partitions, but have 3, 2; repartition one of the streams"
    );

    let app = Topology::new("app");
    app.stream::<String, String>("two").group_by_key().count("counts");
    assert_eq!(
        refusal(&app).await,
        "internal topic app-counts-changelog has 5 partitions where 2 are needed; reset the application"
    );

    let app = Topology::new("app");
    app.on_error(ErrorPolicy::DeadLetter("nowhere".to_owned()));
    app.stream::<String, String>("two").for_each(|_, _| {});
    assert_eq!(
        refusal(&app).await,
        "dead-letter topic nowhere does not exist; create it before the application starts"
    );
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_waits_for_its_asynchronous_calls_before_it_commits() {
    let broker = Embedded::start().await.expect("a broker");
    create(&broker, &[("in", 1), ("out", 1)]).await;
    let app = Topology::new("app");
    let (gate, opened) = tokio::sync::watch::channel(false);
    // Calls of the first run wait for a gate that never opens.
    app.stream::<String, String>("in")
        .map_async(10, AsyncOrder::Overall, move |_, value: String| {
            let mut opened = opened.clone();
            async move { opened.wait_for(|open| *open).await.map(|_| value + "!") }
        })
        .to("out");
    produce(&broker, "in", &[b"a", b"b"]).await;
    let running = Streams::start(&app, broker.client(), settings()).await.expect("an application");
    drop(running);
    let running = Streams::start(&app, broker.client(), settings()).await.expect("an application");
    gate.send_replace(true);
    assert_eq!(consume(&broker, "out", 2).await, [b"a!", b"b!"]);
    running.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_kept_goes_on_after_its_calls_have_held_up_a_rebalance() {
    let broker = Embedded::builder().set("group.initial.rebalance.delay.ms", "0").start().await;
    let broker = broker.expect("a broker");
    create(&broker, &[("in", 2), ("out", 1)]).await;
    let calls = Arc::new(AtomicU32::new(0));
    let app = || {
        let (app, calls) = (Topology::new("app"), calls.clone());
        // The first call for each partition never ends.
        app.stream::<String, String>("in")
            .map_async(10, AsyncOrder::Overall, move |_, value: String| {
                let is_stuck = calls.fetch_add(1, Ordering::Relaxed) < 2;
                async move {
                    if is_stuck {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, String>(value + "!")
                }
            })
            .to("out");
        app
    };
    // A commit would wait for the first call before the second is made.
    let commit_interval = Some(Duration::from_secs(300));
    let settings = Settings { commit_interval, ..Settings::default() };
    let first =
        Streams::start(&app(), broker.client(), settings.clone()).await.expect("an application");
    let producer = Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
    for (partition, value) in [b"a", b"b"].into_iter().enumerate() {
        let record = Record::new("in").partition(partition as i32).key("k").value(value);
        producer.send_and_wait(record).await.expect("written");
    }
    producer.close().await.expect("all delivered");
    while calls.load(Ordering::Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It is to have one of the two tasks.
    let second =
        Streams::start(&app(), broker.client(), settings.clone()).await.expect("an application");
    let mut values = consume(&broker, "out", 2).await;
    values.sort();
    assert_eq!(values, [b"a!", b"b!"]);
    first.close().await.expect("a clean end");
    second.close().await.expect("a clean end");
    broker.shutdown().await;
}

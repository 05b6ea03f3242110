//! Applications against a broker in this process: the same topologies as in the driver, over the real protocol.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleuve::Embedded;
use fleuve_client::admin::NewTopic;
use fleuve_client::consumer::{LATEST, Start};
use fleuve_client::{Admin, Consumer, ConsumerConfig, ErrorCode, Producer, ProducerConfig, Record};
use fleuve_streams::{
    Consumed, Guarantee, Materialized, Restoration, RestoreListener, Settings, Streams,
    StreamsGroupProtocol, TimeWindows, Topology, TopologyOptimization, export_state, import_state,
};
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

/// Counts restored records.
#[derive(Debug, Default)]
struct Restored {
    records: AtomicU64,
}

impl RestoreListener for Restored {
    fn restore_ended(&self, restoration: &Restoration) {
        assert_eq!(restoration.offset, restoration.end_offset);
        self.records.fetch_add(restoration.records, Ordering::SeqCst);
    }
}

fn on_disk(guarantee: Guarantee, state_dir: &Path, restored: &Arc<Restored>) -> Settings {
    Settings {
        state_dir: Some(state_dir.to_owned()),
        restore_listener: Some(restored.clone()),
        session_timeout: Duration::from_secs(6),
        ..settings(guarantee, 1)
    }
}

/// The records of the changelog, of all partitions.
async fn logged(broker: &Embedded) -> u64 {
    let asked = (0..PARTITIONS)
        .map(|number| (TopicPartition::new("word-count-word-counts-changelog", number), LATEST))
        .collect();
    let ends = Admin::new(broker.client())
        .list_offsets(&asked, fleuve_client::config::IsolationLevel::ReadUncommitted)
        .await
        .expect("an answer");
    ends.into_values().map(|end| end.expect("an offset").offset as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_on_disk_needs_only_what_its_changelogs_have_beyond_it() {
    let broker = Embedded::start().await.expect("a broker");
    create_topics(&broker).await;
    let directory = tempfile::tempdir().expect("a directory");
    let restored = Arc::new(Restored::default());
    let disk = || on_disk(Guarantee::AtLeastOnce, directory.path(), &restored);
    let (input, expected) = lines(300);
    let times = |times: i64| -> BTreeMap<String, i64> {
        expected.iter().map(|(word, count)| (word.clone(), count * times)).collect()
    };
    let memory = || settings(Guarantee::AtLeastOnce, 1);
    let mut missed = 0;
    // On disk, then by an instance without a disk, then on disk again: twice.
    for (round, settings) in [disk(), memory(), disk(), memory(), disk()].into_iter().enumerate() {
        let before = if round == 0 { 0 } else { logged(&broker).await };
        restored.records.store(0, Ordering::SeqCst);
        let is_on_disk = settings.state_dir.is_some();
        send_lines(&broker, &input).await;
        let app =
            Streams::start(&word_count(), broker.client(), settings).await.expect("an application");
        wait_for_counts(&broker, &times(round as i64 + 1)).await;
        if is_on_disk {
            assert_eq!(restored.records.load(Ordering::SeqCst), missed, "in round {round}");
        }
        app.close().await.expect("a clean end");
        missed = if is_on_disk { 0 } else { logged(&broker).await - before };
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_once_state_on_disk_survives_instances_that_die() {
    let broker = Embedded::start().await.expect("a broker");
    create_topics(&broker).await;
    let directory = tempfile::tempdir().expect("a directory");
    let restored = Arc::new(Restored::default());
    let mut expected = BTreeMap::new();
    let mut before = 0;
    for round in 0..4 {
        // The changelog's topic comes with the first round.
        let written = if round == 0 { 0 } else { logged(&broker).await };
        let (input, counted) = lines(200);
        send_lines(&broker, &input).await;
        for (word, count) in counted {
            *expected.entry(word).or_insert(0) += count;
        }
        restored.records.store(0, Ordering::SeqCst);
        let settings = on_disk(Guarantee::ExactlyOnce, directory.path(), &restored);
        let app =
            Streams::start(&word_count(), broker.client(), settings).await.expect("an application");
        // Readers of committed records see each count of a word but once, ever rising.
        wait_for_counts(&broker, &expected).await;
        let tail = restored.records.load(Ordering::SeqCst);
        // At most what the last instance wrote had not come to disk; what those before it did has.
        assert!(tail <= written - before, "{tail} records in round {round}");
        before = written;
        // Dropped where it stands: what was under way is not committed.
        drop(app);
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_ahead_of_a_commit_is_neither_lost_nor_kept_too_early() {
    // Whoever died is missed soon, and so is its transaction.
    let broker = Embedded::builder()
        .set("group.min.session.timeout.ms", "500")
        .set("transaction.abort.timed.out.transaction.cleanup.interval.ms", "50")
        .start()
        .await
        .expect("a broker");
    create_topics(&broker).await;
    let directory = tempfile::tempdir().expect("a directory");
    let restored = Arc::new(Restored::default());
    let mut expected = BTreeMap::new();
    for round in 0..4 {
        let (input, counted) = lines(1_500);
        send_lines(&broker, &input).await;
        for (word, count) in counted {
            *expected.entry(word).or_insert(0) += count;
        }
        let before = if round == 0 { 0 } else { logged(&broker).await };
        let settings = Settings {
            // One commit after the other, of which stores keep every few: tasks work ahead most of the time.
            commit_interval: Some(Duration::from_millis(1)),
            cache_bytes_max: 0,
            state_memory_bytes_max: 64 << 10,
            session_timeout: Duration::from_secs(1),
            transaction_timeout: Duration::from_secs(1),
            ..on_disk(Guarantee::ExactlyOnce, directory.path(), &restored)
        };
        let app =
            Streams::start(&word_count(), broker.client(), settings).await.expect("an application");
        // In the middle of it, and the last one at the end.
        while round < 3 && logged(&broker).await < before + 500 {
            tokio::task::yield_now().await;
        }
        if round == 3 {
            wait_for_counts(&broker, &expected).await;
        }
        drop(app);
    }
    broker.shutdown().await;
}

/// Waits until the broker has given these numbers of active tasks to the members of the group.
async fn wait_for_tasks(broker: &Embedded, wanted: &[usize]) {
    let admin = Admin::new(broker.client());
    let shared = async {
        loop {
            // Who has just started joins on its own time; until then there is no such group.
            let members = match admin.describe_streams_group("word-count").await {
                Ok(group) => group.members,
                Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Vec::new(),
                Err(error) => panic!("no streams group: {error}"),
            };
            let mut counts: Vec<usize> = members
                .iter()
                .map(|member| {
                    let active = &member.assignment.active;
                    active.iter().map(|(_, partitions)| partitions.len()).sum()
                })
                .collect();
            counts.sort_unstable();
            if counts == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, shared)
        .await
        .unwrap_or_else(|_| panic!("tasks are not shared out as {wanted:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_shares_out_tasks_among_threads_that_come_and_go() {
    let broker = Embedded::builder()
        .set("group.streams.initial.rebalance.delay.ms", "0")
        .set("group.streams.assignment.interval.ms", "0")
        .set("group.streams.min.heartbeat.interval.ms", "100")
        .set("group.streams.heartbeat.interval.ms", "100")
        .start()
        .await
        .expect("a broker");
    create_topics(&broker).await;
    let settings = Settings {
        group_protocol: StreamsGroupProtocol::Auto,
        ..settings(Guarantee::ExactlyOnce, 1)
    };
    let mut app =
        Streams::start(&word_count(), broker.client(), settings).await.expect("an application");
    // Two subtopologies of three tasks each.
    wait_for_tasks(&broker, &[6]).await;
    let mut expected = BTreeMap::new();
    for _ in 0..2 {
        let added = app.add_thread().await.expect("another thread");
        assert_eq!(app.threads(), 2);
        let (input, counted) = lines(200);
        send_lines(&broker, &input).await;
        for (word, count) in counted {
            *expected.entry(word).or_insert(0) += count;
        }
        wait_for_tasks(&broker, &[3, 3]).await;
        wait_for_counts(&broker, &expected).await;
        assert_eq!(app.remove_thread().await.expect("one less"), Some(added));
        assert_eq!(app.threads(), 1);
        wait_for_tasks(&broker, &[6]).await;
    }
    app.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_thread_that_is_removed_leaves_its_tasks_at_once() {
    let broker = Embedded::builder()
        .set("group.initial.rebalance.delay.ms", "0")
        .start()
        .await
        .expect("a broker");
    create_topics(&broker).await;
    let settings = Settings {
        group_instance_id: Some("counter".to_owned()),
        ..settings(Guarantee::AtLeastOnce, 2)
    };
    let mut app =
        Streams::start(&word_count(), broker.client(), settings).await.expect("an application");
    let (input, mut expected) = lines(200);
    send_lines(&broker, &input).await;
    wait_for_counts(&broker, &expected).await;
    let admin = Admin::new(broker.client());
    let instances = || async {
        let group = admin.describe_group("word-count").await.expect("a group");
        let mut ids: Vec<_> =
            group.members.into_iter().filter_map(|member| member.instance_id).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(instances().await, ["counter-1", "counter-2"]);

    assert_eq!(app.remove_thread().await.expect("one less"), Some(1));
    assert_eq!(instances().await, ["counter-1"]);
    send_lines(&broker, &input).await;
    expected.values_mut().for_each(|count| *count *= 2);
    wait_for_counts(&broker, &expected).await;
    app.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_that_is_exported_and_imported_goes_on_elsewhere() {
    let broker = Embedded::start().await.expect("a broker");
    create_topics(&broker).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let restored = Arc::new(Restored::default());
    let disk = |name: &str| on_disk(Guarantee::AtLeastOnce, &path(name), &restored);
    let (input, expected) = lines(300);
    let times = |times: i64| -> BTreeMap<String, i64> {
        expected.iter().map(|(word, count)| (word.clone(), count * times)).collect()
    };
    send_lines(&broker, &input).await;
    let app = Streams::start(&word_count(), broker.client(), disk("here")).await.expect("a start");
    wait_for_counts(&broker, &times(1)).await;
    // One while it runs, whenever that is, and one after it has ended.
    let early = app.export_state(&path("early")).await.expect("a snapshot");
    app.close().await.expect("a clean end");
    let late = export_state(&word_count(), &path("here"), &path("late")).await.expect("a snapshot");
    assert!(late.entries >= early.entries);
    // Five words, and the positions of the partitions they are in.
    assert!(late.entries > 5, "{late:?}");
    for (round, (file, elsewhere)) in [("late", "there"), ("early", "far away")].iter().enumerate()
    {
        let imported = import_state("word-count", &path(elsewhere), &path(file)).await;
        assert_eq!(imported.expect("an import"), if round == 0 { late } else { early });
        restored.records.store(0, Ordering::SeqCst);
        send_lines(&broker, &input).await;
        let app =
            Streams::start(&word_count(), broker.client(), disk(elsewhere)).await.expect("a start");
        wait_for_counts(&broker, &times(round as i64 + 2)).await;
        if round == 0 {
            assert_eq!(restored.records.load(Ordering::SeqCst), 0);
        }
        app.close().await.expect("a clean end");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounded_run_ends_when_everything_is_done() {
    for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
        let broker = Embedded::start().await.expect("a broker");
        create_topics(&broker).await;
        let (input, expected) = lines(300);
        for round in 1..=2 {
            send_lines(&broker, &input).await;
            let settings = Settings { threads: 2, guarantee, ..Settings::default() };
            Streams::run_until_end(&word_count(), broker.client(), settings)
                .await
                .expect("a clean end");
            // Nobody writes any more: what is not there now will not come.
            let expected = expected.iter().map(|(word, count)| (word.clone(), count * round));
            wait_for_counts(&broker, &expected.collect()).await;
        }
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_restored_from_its_source_has_what_was_processed_and_no_more() {
    let app = || {
        let app = Topology::new("totals").optimize(TopologyOptimization::ALL);
        app.table_with::<String, i64>("lines", Consumed::default(), Materialized::named("rows"))
            .group_by(|_, value| ("all".to_owned(), *value))
            .reduce(Materialized::named("totals"), |x, y| x + y, |x, y| x - y)
            .to_stream()
            .to("counts");
        app
    };
    let broker = Embedded::start().await.expect("a broker");
    create_topics(&broker).await;
    // The row was 1 when it is told to be 5: whoever restores the 5 subtracts that, and ends with 1.
    for value in [1_i64, 5] {
        let producer =
            Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
        let bytes = value.to_be_bytes();
        let record = Record::new("lines").partition(0).key("row").value(&bytes);
        drop(producer.send(record).await.expect("a place in a batch"));
        producer.close().await.expect("all delivered");
        Streams::run_until_end(&app(), broker.client(), Settings::default())
            .await
            .expect("a clean end");
        wait_for_counts(&broker, &BTreeMap::from([("all".to_owned(), value)])).await;
    }
    let topics = Admin::new(broker.client()).list_topics().await.expect("topics");
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_ref()).collect();
    assert!(names.contains(&"totals-totals-changelog"), "{names:?}");
    assert!(!names.contains(&"totals-rows-changelog"), "{names:?}");
    broker.shutdown().await;
}

/// Counts of words per window, sent once the window has closed, and added up behind another repartition.
fn windowed_word_count(app: &Topology, size_ms: i64) {
    app.stream::<(), String>("lines")
        .flat_map_values(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .group_by(|_, word| word.clone())
        .windowed_by(TimeWindows::of_ms(size_ms, 0))
        .emit_final()
        .count("windows")
        .to_stream_by(|window, _| window.key.clone())
        .map_values(Option::unwrap_or_default)
        .group_by_key()
        .windowed_by(TimeWindows::of_ms(FOREVER_MS, 0))
        .reduce("totals", |one: i64, other| one + other)
        .to_stream_by(|window, _| window.key.clone())
        .to("counts");
}

/// A window that everything is in.
const FOREVER_MS: i64 = 1 << 50;

async fn written(broker: &Embedded, topic: &str) -> i64 {
    let asked =
        (0..PARTITIONS).map(|number| (TopicPartition::new(topic, number), LATEST)).collect();
    let isolation = fleuve_client::config::IsolationLevel::ReadUncommitted;
    let ends = Admin::new(broker.client()).list_offsets(&asked, isolation).await.expect("offsets");
    ends.into_values().map(|end| end.expect("an offset").offset).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bounded_run_closes_its_windows_at_the_end_stage_by_stage() {
    for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
        let broker = Embedded::start().await.expect("a broker");
        create_topics(&broker).await;
        let (input, expected) = lines(300);
        let app = Topology::new("windowed");
        app.close_at_end();
        windowed_word_count(&app, FOREVER_MS);
        let run = async || {
            send_lines(&broker, &input).await;
            let settings = Settings { threads: 2, guarantee, ..Settings::default() };
            Streams::run_until_end(&app, broker.client(), settings).await.expect("a clean end");
        };
        run().await;
        wait_for_counts(&broker, &expected).await;
        // The window has closed, and what comes for it now is not sent.
        let before = written(&broker, "counts").await;
        run().await;
        assert_eq!(written(&broker, "counts").await, before);
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_idle_input_all_windows_close_and_with_watermarks_nothing_is_late() {
    let broker = Embedded::start().await.expect("a broker");
    create_topics(&broker).await;
    let (input, expected) = lines(300);
    send_lines(&broker, &input).await;
    let app = Topology::new("windowed");
    // Long enough that no thread on a busy machine is taken for idle.
    app.advance_when_idle(Duration::from_secs(2)).watermarks(Duration::from_secs(60));
    windowed_word_count(&app, 1);
    let running = Streams::start(&app, broker.client(), settings(Guarantee::ExactlyOnce, 2))
        .await
        .expect("an application");
    wait_for_counts(&broker, &expected).await;
    running.close().await.expect("a clean end");
    broker.shutdown().await;
}

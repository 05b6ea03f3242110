//! Standbys and warm-ups of applications against a broker in this process: who takes a task over goes on with the state
//! that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleuve::Embedded;
use fleuve_client::admin::NewTopic;
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{LATEST, Start};
use fleuve_client::{Admin, Consumer, ConsumerConfig, ErrorCode, Producer, ProducerConfig, Record};
use fleuve_streams::{
    QueryError, Restoration, RestoreListener, Settings, StandbyListener, StandbySuspension,
    StandbyUpdate, Streams, StreamsGroupProtocol, Topology, in_store,
};
use fleuve_types::TopicPartition;
use parking_lot::Mutex;

const PARTITIONS: i32 = 3;
const KEYS: i64 = 60;
const CHANGELOG: &str = "counting-counts-changelog";
const PATIENCE: Duration = Duration::from_secs(60);

/// Three tasks with state.
fn counting() -> Topology {
    let app = Topology::new("counting");
    app.stream::<i64, String>("in").group_by_key().count("counts").to_stream().to("out");
    app
}

/// What an instance has read of changelogs.
#[derive(Debug, Default)]
struct Reading {
    restored: AtomicU64,
    followed: AtomicU64,
    promoted: Mutex<BTreeSet<String>>,
}

impl RestoreListener for Reading {
    fn batch_restored(&self, restoration: &Restoration) {
        self.restored.fetch_add(restoration.records, Ordering::SeqCst);
    }
}

impl StandbyListener for Reading {
    fn batch_loaded(&self, update: &StandbyUpdate) {
        assert!(update.offset > 0);
        self.followed.fetch_add(update.records, Ordering::SeqCst);
    }

    fn update_suspended(&self, update: &StandbyUpdate, why: StandbySuspension) {
        if why == StandbySuspension::Promoted {
            self.promoted.lock().insert(update.task.clone());
        }
    }
}

struct Instance {
    reading: Arc<Reading>,
    app: Streams,
}

impl Instance {
    async fn start(broker: &Embedded, settings: &Settings) -> Self {
        let reading = Arc::new(Reading::default());
        let settings = Settings {
            commit_interval: Some(Duration::from_millis(50)),
            // Every change is logged.
            cache_bytes_max: 0,
            restore_listener: Some(reading.clone()),
            standby_listener: Some(reading.clone()),
            ..settings.clone()
        };
        let app = Streams::start(&counting(), broker.client(), settings).await;
        Self { reading, app: app.expect("an application") }
    }

    fn followed(&self) -> u64 {
        self.reading.followed.load(Ordering::SeqCst)
    }

    fn restored(&self) -> u64 {
        self.reading.restored.load(Ordering::SeqCst)
    }

    /// The tasks whose standbys or warm-ups have become active here.
    fn promoted(&self) -> usize {
        self.reading.promoted.lock().len()
    }
}

async fn broker() -> Embedded {
    let broker = Embedded::builder()
        .set("group.initial.rebalance.delay.ms", "0")
        .set("group.streams.initial.rebalance.delay.ms", "0")
        .set("group.streams.assignment.interval.ms", "0")
        .set("group.streams.min.heartbeat.interval.ms", "100")
        .set("group.streams.heartbeat.interval.ms", "100")
        .set("group.streams.num.standby.replicas", "1")
        .start()
        .await
        .expect("a broker");
    let topics = ["in", "out"].map(|name| NewTopic::new(name).partitions(PARTITIONS));
    let created = Admin::new(broker.client()).create_topics(&topics, false).await;
    for (topic, result) in created.expect("an answer") {
        result.unwrap_or_else(|error| panic!("{topic}: {error}"));
    }
    broker
}

/// Says every key once in every partition, so that every count rises by one.
async fn send_round(broker: &Embedded) {
    let producer = Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
    for key in 0..KEYS {
        let key = key.to_be_bytes();
        let partition = fleuve_client::producer::partition_for_key(&key, PARTITIONS as usize);
        let record = Record::new("in").partition(partition as i32).key(&key).value("x");
        drop(producer.send(record).await.expect("a place in a batch"));
    }
    producer.close().await.expect("all delivered");
}

/// Waits until every key has been counted so often, each time one more.
async fn wait_for_counts(broker: &Embedded, rounds: i64) {
    let consumer = Consumer::new(broker.client(), ConsumerConfig::default()).expect("a consumer");
    let all: Vec<_> = (0..PARTITIONS)
        .map(|number| (TopicPartition::new("out", number), Start::Beginning))
        .collect();
    consumer.assign(&all).expect("partitions");
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    while counts.len() < KEYS as usize || counts.values().any(|count| *count < rounds) {
        let records = consumer.poll(PATIENCE).await.expect("a readable topic");
        let records = records.unwrap_or_else(|| panic!("no more counts after {counts:?}"));
        for record in records.into_owned() {
            let number = |bytes: Option<bytes::Bytes>| {
                i64::from_be_bytes(bytes.expect("bytes").as_ref().try_into().expect("eight"))
            };
            let (key, count) = (number(record.key), number(record.value));
            let before = counts.insert(key, count).unwrap_or(0);
            assert_eq!(count, before + 1, "of {key}");
        }
    }
}

/// The records of the changelog, of all partitions.
async fn logged(broker: &Embedded) -> u64 {
    let asked =
        (0..PARTITIONS).map(|number| (TopicPartition::new(CHANGELOG, number), LATEST)).collect();
    let admin = Admin::new(broker.client());
    let ends = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await;
    let ends = ends.expect("an answer").into_values();
    ends.map(|end| end.expect("an offset").offset as u64).sum()
}

async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the members of the group have these numbers of active tasks.
async fn wait_for_tasks(broker: &Embedded, protocol: StreamsGroupProtocol, wanted: &[usize]) {
    let admin = Admin::new(broker.client());
    wait_until("tasks are shared out", async || {
        let mut counts: Vec<usize> = if protocol == StreamsGroupProtocol::Classic {
            let group = admin.describe_group("counting").await.expect("a group");
            group.members.iter().map(|member| member.assignment.len()).collect()
        } else {
            // Who has just started joins on its own time; until then there is no such group.
            let members = match admin.describe_streams_group("counting").await {
                Ok(group) => group.members,
                Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => Vec::new(),
                Err(error) => panic!("no streams group: {error}"),
            };
            let actives = members.iter().map(|member| &member.assignment.active);
            actives.map(|active| active.iter().map(|(_, all)| all.len()).sum()).collect()
        };
        counts.sort_unstable();
        counts == wanted
    })
    .await;
}

async fn whoever_takes_over_restores_nothing_that_its_standby_has(protocol: StreamsGroupProtocol) {
    let broker = broker().await;
    let settings =
        Settings { group_protocol: protocol, num_standby_replicas: 1, ..Settings::default() };
    let leaves = Instance::start(&broker, &settings).await;
    let stays = Instance::start(&broker, &settings).await;
    wait_for_tasks(&broker, protocol, &[1, 2]).await;
    send_round(&broker).await;
    wait_for_counts(&broker, 1).await;

    // Each instance follows what the other one counts, and nothing was restored: there was nothing when they began.
    // The changelog may be written after the output that was made with it.
    let all = KEYS as u64;
    wait_until("every count is logged once", async || logged(&broker).await == all).await;
    wait_until("standbys follow", async || leaves.followed() + stays.followed() == all).await;
    let followed = stays.followed();
    assert!(followed > 0, "there is state to take over");

    // So either can be asked for everything, if it need not be the latest.
    let count = |key: i64| in_store("counts").key::<i64, i64>(key);
    let mut elsewhere = 0;
    for key in 0..KEYS {
        let answer = stays.app.query(count(key).stale_allowed()).await.expect("an answer");
        assert_eq!(answer.value.map(|stamped| stamped.value), Some(1), "of {key}");
        match stays.app.query(count(key)).await {
            Ok(_) => {}
            Err(QueryError::NotHere { .. }) => elsewhere += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(elsewhere, followed, "keys that another instance counts");
    wait_until("standbys lack nothing", async || {
        let standbys = stays.app.metrics().standbys;
        let applied: u64 = standbys.iter().map(|standby| standby.records).sum();
        applied == followed && standbys.iter().all(|standby| standby.lag == Some(0))
    })
    .await;

    leaves.app.close().await.expect("a clean end");
    wait_for_tasks(&broker, protocol, &[3]).await;
    send_round(&broker).await;
    wait_for_counts(&broker, 2).await;
    assert_eq!((stays.restored(), stays.followed()), (0, followed));
    assert!(stays.promoted() > 0);
    stays.app.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_the_members_have_placed_takes_over() {
    whoever_takes_over_restores_nothing_that_its_standby_has(StreamsGroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_the_broker_has_placed_takes_over() {
    whoever_takes_over_restores_nothing_that_its_standby_has(StreamsGroupProtocol::Streams).await;
}

/// What an instance answers over HTTP: the status and the value or the error.
async fn count_over_http(app: &Streams, key: i64, stale: bool) -> (u16, serde_json::Value) {
    let server = app.application_server().expect("an address");
    let path = format!("/stores/counts/key/{key}?stale={stale}");
    let (status, body) = fleuve_http::get(server, &path, PATIENCE, 1 << 20).await.expect("a reply");
    let mut json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    (status, json[if status == 200 { "value" } else { "error" }].take())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standby_of_another_instance_answers_for_an_owner_that_is_gone() {
    let broker = broker().await;
    let settings = Settings {
        num_standby_replicas: 1,
        application_server: Some(":0".to_owned()),
        // So long standbys linger that were placed before the last instance came.
        session_timeout: Duration::from_secs(10),
        ..Settings::default()
    };
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Some(Instance::start(&broker, &settings).await));
    }
    wait_for_tasks(&broker, StreamsGroupProtocol::Classic, &[1, 1, 1]).await;
    send_round(&broker).await;
    wait_for_counts(&broker, 1).await;

    // A key of whose task one instance has nothing, another one runs it, and the third has its standby.
    let found = Mutex::new(None);
    wait_until("a task runs and has its standby elsewhere", async || {
        for key in 0..KEYS {
            let mut roles = [None; 3];
            for (place, instance) in instances.iter().flatten().enumerate() {
                let query = || in_store("counts").key::<i64, i64>(key);
                let runs = instance.app.query(query()).await;
                let has = instance.app.query(query().stale_allowed()).await;
                let has = has.is_ok_and(|answer| answer.value.is_some());
                roles[if runs.is_ok() { 1 } else { usize::from(has) * 2 }] = Some(place);
            }
            if let [Some(asked), Some(owner), Some(_)] = roles {
                *found.lock() = Some((key, asked, owner));
                return true;
            }
        }
        false
    })
    .await;
    let (key, asked, owner) = found.into_inner().expect("a key");
    let asked = instances[asked].take().expect("an instance");
    assert_eq!(count_over_http(&asked.app, key, false).await, (200, 1.into()));
    assert_eq!(count_over_http(&asked.app, key, true).await, (200, 1.into()));

    // It dies without a word: for the group it has its task until its session ends.
    drop(instances[owner].take());
    wait_until("the owner no longer answers", async || {
        count_over_http(&asked.app, key, false).await == (503, "rebalancing".into())
    })
    .await;
    assert_eq!(count_over_http(&asked.app, key, true).await, (200, 1.into()));
    for instance in instances.into_iter().flatten().chain([asked]) {
        instance.app.close().await.expect("a clean end");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_move_to_a_newcomer_when_it_has_their_state() {
    let broker = broker().await;
    let settings = Settings { acceptable_recovery_lag: 3, ..Settings::default() };
    let first = Instance::start(&broker, &settings).await;
    for round in 1..=3 {
        send_round(&broker).await;
        wait_for_counts(&broker, round).await;
    }
    wait_until("every count is logged", async || logged(&broker).await == 3 * KEYS as u64).await;
    let second = Instance::start(&broker, &settings).await;
    wait_for_tasks(&broker, StreamsGroupProtocol::Classic, &[1, 2]).await;
    wait_until("the task runs", async || second.promoted() == 1).await;
    // The whole state came while the first instance still ran the task.
    assert_eq!(second.restored(), 0);
    let moved = second.followed();
    assert!(moved > 0 && moved.is_multiple_of(3), "{moved} records: each key of the task thrice");
    send_round(&broker).await;
    wait_for_counts(&broker, 4).await;
    for instance in [first, second] {
        instance.app.close().await.expect("a clean end");
    }
    broker.shutdown().await;
}

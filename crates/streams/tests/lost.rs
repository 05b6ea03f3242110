//! A member that its group has given up, and that hears of it late: what it has not committed is processed by whoever has
//! its tasks now, and by nobody else.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleuve::{Embedded, InProcessTransport};
use fleuve_client::admin::{NewTopic, Removal};
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::Start;
use fleuve_client::transport::{FrameReceiver, FrameSender, LENGTH_BYTES, Link, Pieces, Transport};
use fleuve_client::{
    Admin, BoxFuture, Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig,
    Record,
};
use fleuve_streams::{Guarantee, KStream, Settings, Streams, Topology};
use fleuve_types::TopicPartition;
use tokio::sync::watch;

// Keys of requests.
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const HEARTBEAT: i16 = 12;
const END_TXN: i16 = 26;
/// Larger than any answer without a record.
const VALUE_BYTES: usize = 10_000;

/// Reaches a broker whose answers to some requests are held back.
struct Holding {
    inner: InProcessTransport,
    /// To which.
    held: watch::Receiver<&'static [i16]>,
    /// Answers with records so far.
    fetched: Arc<AtomicUsize>,
}

/// The keys of requests on their way, by correlation id.
type Asked = Arc<Mutex<HashMap<[u8; 4], i16>>>;

struct Sender {
    inner: Box<dyn FrameSender>,
    asked: Asked,
}

struct Receiver {
    inner: Box<dyn FrameReceiver>,
    asked: Asked,
    held: watch::Receiver<&'static [i16]>,
    /// Answers that are held back, with the keys of their requests.
    waiting: VecDeque<(i16, Pieces)>,
    fetched: Arc<AtomicUsize>,
}

impl Transport for Holding {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        frame_bytes_max: usize,
    ) -> BoxFuture<'a, io::Result<Link>> {
        Box::pin(async move {
            let Link { sender, receiver } = self.inner.connect(host, port, frame_bytes_max).await?;
            let asked = Asked::default();
            let receiver = Receiver {
                inner: receiver,
                asked: asked.clone(),
                held: self.held.clone(),
                waiting: VecDeque::new(),
                fetched: self.fetched.clone(),
            };
            let sender = Sender { inner: sender, asked };
            Ok(Link { sender: Box::new(sender), receiver: Box::new(receiver) })
        })
    }
}

impl FrameSender for Sender {
    fn send<'a>(
        &'a mut self,
        segments: &'a mut Vec<bytes::Bytes>,
    ) -> BoxFuture<'a, io::Result<()>> {
        let frames = segments.concat();
        let mut rest = &frames[..];
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let (frame, next) = behind.split_at(u32::from_be_bytes(*length) as usize);
            // Key, version, correlation id.
            let correlation_id = frame[4..8].try_into().expect("four bytes");
            let key = i16::from_be_bytes([frame[0], frame[1]]);
            self.asked.lock().expect("no panic").insert(correlation_id, key);
            rest = next;
        }
        self.inner.send(segments)
    }
}

impl FrameReceiver for Receiver {
    fn receive<'a>(&'a mut self) -> BoxFuture<'a, io::Result<Pieces>> {
        Box::pin(async move {
            loop {
                let held = *self.held.borrow_and_update();
                if let Some(at) = self.waiting.iter().position(|(key, _)| !held.contains(key)) {
                    let (_, answer) = self.waiting.remove(at).expect("a position");
                    return Ok(answer);
                }
                let answer = tokio::select! {
                    answer = self.inner.receive() => answer?,
                    Ok(()) = self.held.changed() => continue,
                };
                let correlation_id = answer.first_chunk::<4>().expect("an answer");
                let asked = self.asked.lock().expect("no panic").remove(&correlation_id);
                let key = asked.expect("an answer to a request");
                if key == FETCH && answer.len() > VALUE_BYTES {
                    self.fetched.fetch_add(1, Ordering::Relaxed);
                }
                self.waiting.push_back((key, answer));
            }
        })
    }
}

async fn start_broker() -> (Embedded, Admin) {
    let broker = Embedded::builder().set("group.initial.rebalance.delay.ms", "0").start().await;
    let broker = broker.expect("a broker");
    let admin = Admin::new(broker.client());
    let topics = ["in", "out"].map(|name| NewTopic::new(name).partitions(1));
    for (topic, result) in admin.create_topics(&topics, false).await.expect("an answer") {
        result.unwrap_or_else(|error| panic!("{topic}: {error}"));
    }
    (broker, admin)
}

/// An instance whose answers can be held back.
struct Instance {
    streams: Streams,
    hold: watch::Sender<&'static [i16]>,
    fetched: Arc<AtomicUsize>,
}

impl Instance {
    async fn start(broker: &Embedded, app: &Topology, held: &'static [i16]) -> Self {
        let (hold, held) = watch::channel(held);
        let fetched = Arc::new(AtomicUsize::new(0));
        let transport = Holding { inner: broker.transport(), held, fetched: fetched.clone() };
        let config = ClientConfig {
            bootstrap_servers: vec![broker.bootstrap_servers()],
            ..ClientConfig::default()
        };
        let client = Client::with_transport(config, Arc::new(transport));
        let settings = Settings {
            guarantee: Guarantee::ExactlyOnce,
            // Whenever there is something.
            commit_interval: Some(Duration::from_millis(1)),
            session_timeout: Duration::from_secs(30),
            ..Settings::default()
        };
        let streams = Streams::start(app, client, settings).await.expect("an application");
        Self { streams, hold, fetched }
    }
}

async fn produce(broker: &Embedded) {
    let producer = Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
    let value = vec![b'v'; VALUE_BYTES];
    let record = Record::new("in").partition(0).key("k").value(&value);
    producer.send_and_wait(record).await.expect("written");
    producer.close().await.expect("all delivered");
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "waiting for {what}");
}

/// Waits until the group has committed so many records.
async fn until_committed(admin: &Admin, records: i64) {
    let partition = TopicPartition::new("in", 0);
    until("a commit", async || {
        let offsets = admin.group_offsets("app").await.expect("an answer");
        offsets.get(&partition).is_some_and(|committed| committed.offset >= records)
    })
    .await;
}

/// Has the group give up all its members.
async fn remove_members(admin: &Admin) {
    let group = admin.describe_group("app").await.expect("a group");
    let members = group.members.iter().map(|member| Removal::Member(member.id.clone()));
    let removed = admin.remove_members("app", &members.collect::<Vec<_>>(), "a test").await;
    removed.expect("an answer").into_iter().for_each(|(_, removed)| removed.expect("removed"));
}

/// Reads what is committed.
async fn open_output(broker: &Embedded) -> Consumer {
    let config = ConsumerConfig {
        isolation_level: IsolationLevel::ReadCommitted,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(broker.client(), config).expect("a consumer");
    consumer.assign(&[(TopicPartition::new("out", 0), Start::Beginning)]).expect("a partition");
    consumer
}

/// An identity that notes how many records it was given.
fn noting(app: &Topology, number: &Arc<AtomicUsize>) -> KStream<String, String> {
    let number = number.clone();
    app.stream::<String, String>("in").peek(move |_, _| {
        number.fetch_add(1, Ordering::Relaxed);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_given_to_a_lost_task_during_a_commit_are_processed_by_the_next_one() {
    let (broker, admin) = start_broker().await;
    let processed = Arc::new(AtomicUsize::new(0));
    let are_processed = async |wanted| processed.load(Ordering::Relaxed) >= wanted;
    let app = Topology::new("app");
    noting(&app, &processed).group_by_key().count("counts").to_stream().to("out");
    let instance = Instance::start(&broker, &app, &[END_TXN]).await;

    // The first is committed, which the thread does not hear; it goes on with the second.
    produce(&broker).await;
    until_committed(&admin, 1).await;
    produce(&broker).await;
    until("the second", async || are_processed(2).await).await;

    // The group gives the member up, and it comes back for the same partition.
    let fetched = instance.fetched.load(Ordering::Relaxed);
    remove_members(&admin).await;
    until("more records", async || instance.fetched.load(Ordering::Relaxed) > fetched).await;
    // Time enough for the task of before to be given what is the next one's.
    let twice = until("the second again", async || are_processed(3).await);
    let _ = tokio::time::timeout(Duration::from_secs(1), twice).await;
    instance.hold.send_replace(&[]);
    produce(&broker).await;

    let output = open_output(&broker).await;
    let mut counts = Vec::new();
    while counts.last().is_none_or(|last| *last < 3) {
        let record = output.next(Duration::from_secs(20)).await.expect("readable");
        let value = record.and_then(|record| record.value);
        let value = value.unwrap_or_else(|| panic!("only {counts:?}"));
        counts.push(i64::from_be_bytes(value[..].try_into().expect("eight bytes")));
    }
    assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
    instance.streams.close().await.expect("a clean end");
    broker.shutdown().await;
}

/// What becomes of each record: more than a producer sends without an answer.
const COPIES: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_committed_in_a_generation_that_came_after_a_loss() {
    let (broker, admin) = start_broker().await;
    let processed = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let apps = processed.each_ref().map(|number| {
        let app = Topology::new("app");
        let copies = noting(&app, number).flat_map_values(|value| vec![value; COPIES]);
        copies.to("out");
        app
    });

    // The first cannot send all that it has made, and does not hear that its member is gone.
    let first = Instance::start(&broker, &apps[0], &[PRODUCE]).await;
    produce(&broker).await;
    until("the first", async || processed[0].load(Ordering::Relaxed) == 1).await;
    first.hold.send_replace(&[PRODUCE, HEARTBEAT]);
    remove_members(&admin).await;
    // The second does the same work, and commits.
    let second = Instance::start(&broker, &apps[1], &[]).await;
    until_committed(&admin, 1).await;
    // The first comes back into the group, and goes on with what it was about.
    first.hold.send_replace(&[PRODUCE]);
    until("both members", async || {
        let group = admin.describe_group("app").await.expect("a group");
        group.state == "Stable" && group.members.len() == 2
    })
    .await;
    first.hold.send_replace(&[]);

    produce(&broker).await;
    let output = open_output(&broker).await;
    // Transactions before the last record's end before it: those of both instances.
    for _ in 0..2 * COPIES {
        assert!(output.next(Duration::from_secs(20)).await.expect("readable").is_some());
    }
    first.streams.close().await.expect("a clean end");
    second.streams.close().await.expect("a clean end");
    let more = output.poll(Duration::from_secs(1)).await.expect("readable");
    assert!(more.is_none(), "each record was processed once");
    broker.shutdown().await;
}

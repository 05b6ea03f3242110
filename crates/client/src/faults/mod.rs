//! The whole client against a broker that fails in every way we could think of, in virtual time.
//!
//! [`model`] is a small honest broker: a topic with two partitions, an idempotent producer's
//! numbers, one group by either protocol. A [`Fault`] stands between it and the client. Whatever
//! happens, a run has to end, what was acknowledged has to be in the log once and in order, and
//! what is in the log has to be read, unless the application was told why not.
//!
//! `transacting`, `sharing`, `authenticating` and `administering` do the same for transactions, share groups, SASL and
//! every administrative call.

mod administering;
mod authenticating;
mod coordinator;
mod model;
mod replies;
mod sharing;
mod spans;
mod transacting;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fleuve_protocol::{ApiKey, ErrorCode};
use tokio::time::Instant;

use crate::client::Client;
use crate::config::{ClientConfig, ConsumerConfig, GroupProtocol, OffsetReset, ProducerConfig};
use crate::consumer::Consumer;
use crate::error::Error;
use crate::producer::{Producer, Record};
use crate::scripted::{Reply, ScriptedBroker};

use model::Model;

/// What happens to one exchange.
#[derive(Clone, Debug)]
enum Fault {
    /// Nothing.
    None,
    /// The answer carries this code, and the broker did nothing.
    Refused(ErrorCode),
    /// The answer carries this code, although the broker did what it was asked to.
    DoneAndRefused(ErrorCode),
    /// The connection ends before the broker has seen the request.
    LostBefore,
    /// The connection ends after the broker did what it was asked to.
    LostAfter,
    /// The answer comes late.
    Late(Duration),
    /// The answer never comes.
    Silence,
    /// The answer comes with other bytes from this place on.
    Garbled { at: usize, with: u64 },
}

/// Chooses what happens to an exchange of this kind.
type Chooser = Box<dyn FnMut(ApiKey) -> Fault + Send>;

/// Records that every run writes.
const RECORDS: i32 = 8;
/// Virtual time after which a run counts as hanging.
const HANGING: Duration = Duration::from_secs(1800);

/// What a run came to.
struct Run {
    /// What was acknowledged, by value: partition and offset.
    acknowledged: HashMap<String, (i32, i64)>,
    /// Values that certainly were not written.
    refused: Vec<String>,
    consumed: Vec<(i32, String)>,
    /// Whether the consumer reported an error or gave up.
    told: bool,
    model: Arc<Mutex<Model>>,
    /// What the client asked.
    asked: Arc<Mutex<HashSet<ApiKey>>>,
}

async fn run(protocol: GroupProtocol, chooser: Chooser) -> Run {
    let model = Arc::new(Mutex::new(Model::default()));
    let asked = Arc::new(Mutex::new(HashSet::new()));
    let broker = faulty(model.clone(), asked.clone(), chooser);
    run_against(broker, client_config(), protocol, model, asked).await
}

fn client_config() -> ClientConfig {
    ClientConfig {
        bootstrap_servers: vec!["broker:9092".to_owned()],
        request_timeout: Duration::from_secs(5),
        api_timeout: Duration::from_secs(20),
        metrics_push: false,
        ..ClientConfig::default()
    }
}

async fn run_against(
    broker: ScriptedBroker,
    config: ClientConfig,
    protocol: GroupProtocol,
    model: Arc<Mutex<Model>>,
    asked: Arc<Mutex<HashSet<ApiKey>>>,
) -> Run {
    let client = Client::with_transport(config, Arc::new(broker));
    let mut run = Run {
        acknowledged: HashMap::new(),
        refused: Vec::new(),
        consumed: Vec::new(),
        told: false,
        model,
        asked,
    };
    let whole = async {
        run.produce(client.clone()).await;
        run.consume(client, protocol).await;
    };
    assert!(tokio::time::timeout(HANGING, whole).await.is_ok(), "it hangs");
    run
}

impl Run {
    async fn produce(&mut self, client: Client) {
        let config = ProducerConfig {
            linger: Duration::ZERO,
            delivery_timeout: Duration::from_secs(60),
            max_block: Duration::from_secs(20),
            // A batch per record, so that several are in flight.
            batch_size: 1,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(client, config).expect("valid");
        let mut deliveries = Vec::new();
        for index in 0..RECORDS {
            let value = index.to_string();
            let record = Record::new("t").partition(index % 2).value(&value);
            match producer.send(record).await {
                Ok(delivery) => deliveries.push((value, delivery)),
                Err(_) => self.refused.push(value),
            }
        }
        for (value, delivery) in deliveries {
            match delivery.await {
                Ok(written) => {
                    let place = (written.partition.partition, written.offset.unwrap_or(-1));
                    self.acknowledged.insert(value, place);
                }
                Err(Error::DeliveryTimeout { maybe_written: false, .. }) => {
                    self.refused.push(value)
                }
                Err(_) => {}
            }
        }
        // What failed was told already.
        producer.close().await.ok();
    }

    async fn consume(&mut self, client: Client, protocol: GroupProtocol) {
        let config = ConsumerConfig {
            group_id: Some("g".to_owned()),
            group_protocol: protocol,
            offset_reset: OffsetReset::Earliest,
            auto_commit_interval: Duration::from_secs(1),
            // Bounds how long a join is waited for.
            max_poll_interval: Duration::from_secs(20),
            ..ConsumerConfig::default()
        };
        let consumer = Consumer::new(client, config).expect("valid");
        consumer.subscribe(&["t"]).expect("a group");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(300) && !self.is_complete() {
            match consumer.poll(Duration::from_secs(10)).await {
                Ok(Some(records)) => {
                    let partition = records.partition().partition;
                    for record in &records {
                        let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                        self.consumed.push((partition, value.into_owned()));
                    }
                }
                Ok(None) => {}
                Err(_) => self.told = true,
            }
        }
        // Nothing more comes, and in the meantime heartbeats go out.
        if consumer.poll(Duration::from_secs(10)).await.is_err() {
            self.told = true;
        }
        if consumer.commit().await.is_err() || consumer.close().await.is_err() {
            self.told = true;
        }
    }

    /// Reports whether everything in the log was read.
    fn is_complete(&self) -> bool {
        let model = self.model.lock().expect("no panic");
        let logged: BTreeSet<_> =
            model.values().into_iter().map(|(p, _, value)| (p, value)).collect();
        let consumed: BTreeSet<_> = self.consumed.iter().cloned().collect();
        consumed.is_superset(&logged)
    }

    /// Asserts that the client came by where the fault was waiting for it.
    fn met(self, key: ApiKey) -> Self {
        assert!(self.asked.lock().expect("no panic").contains(&key), "{key:?} was never asked");
        self
    }

    /// Checks what must hold however the broker failed, as long as it did not lie.
    fn check(&self, context: &str) {
        let logged = self.model.lock().expect("no panic").values();
        let mut places: HashMap<&str, Vec<(i32, i64)>> = HashMap::new();
        for (partition, offset, value) in &logged {
            places.entry(value).or_default().push((*partition, *offset));
        }
        for (value, found) in &places {
            assert_eq!(found.len(), 1, "{value} stands in the log twice: {context}");
        }
        for (value, (partition, offset)) in &self.acknowledged {
            let found = places.get(value.as_str());
            let found = found.unwrap_or_else(|| panic!("{value} was acknowledged: {context}"));
            assert_eq!(found[0].0, *partition, "{context}");
            // A broker that was asked again may not say where the first attempt went.
            assert!(*offset < 0 || found[0].1 == *offset, "{value} is elsewhere: {context}");
        }
        for value in &self.refused {
            assert!(
                !places.contains_key(value.as_str()),
                "{value} is there all the same: {context}"
            );
        }
        for partition in 0..2 {
            let of_partition = logged.iter().filter(|(p, _, _)| *p == partition);
            let numbers: Vec<i32> =
                of_partition.map(|(_, _, value)| value.parse().expect("a number")).collect();
            assert!(numbers.is_sorted(), "order was lost: {numbers:?}, {context}");
        }
        assert!(self.told || self.is_complete(), "records were not read in silence: {context}");
    }
}

/// Puts faults between the client and an honest broker.
fn faulty(
    model: Arc<Mutex<Model>>,
    asked: Arc<Mutex<HashSet<ApiKey>>>,
    mut chooser: Chooser,
) -> ScriptedBroker {
    ScriptedBroker::raw(move |request| {
        asked.lock().expect("no panic").insert(request.key);
        let mut model = model.lock().expect("no panic");
        chooser(request.key).strike(|error, act| match (act, error) {
            (false, Some(code)) => model.refuse(&request, code),
            (_, error) => model.answer(&request, error),
        })
    })
}

impl Fault {
    /// Lets this happen to an exchange. `answer` makes the broker's answer with an error, if there is to be one, and
    /// does what was asked if it is to be done.
    fn strike(self, answer: impl FnOnce(Option<ErrorCode>, bool) -> Reply) -> Reply {
        match self {
            Self::None => answer(None, true),
            Self::Refused(code) => answer(Some(code), false),
            Self::DoneAndRefused(code) => answer(Some(code), true),
            Self::LostBefore => Reply::HangUp,
            Self::LostAfter => {
                drop(answer(None, true));
                Reply::HangUp
            }
            Self::Late(pause) => match answer(None, true) {
                Reply::Send(segments) => Reply::After(pause, segments),
                Reply::After(before, segments) => Reply::After(before + pause, segments),
                other => other,
            },
            Self::Silence => Reply::Nothing,
            Self::Garbled { at, with } => match answer(None, true) {
                Reply::Send(segments) | Reply::After(_, segments) => {
                    Reply::Send(vec![garbled(&segments, at, with)])
                }
                other => other,
            },
        }
    }
}

/// Writes other bytes into a frame, behind its length and correlation id.
fn garbled(segments: &[Bytes], at: usize, with: u64) -> Bytes {
    const BEHIND_CORRELATION_ID: usize = 8;
    let mut frame = BytesMut::from(&segments.concat()[..]);
    let body = frame.len().saturating_sub(BEHIND_CORRELATION_ID);
    if body > 0 {
        let start = BEHIND_CORRELATION_ID + at % body;
        for (byte, other) in frame[start..].iter_mut().zip(with.to_be_bytes()) {
            *byte = other;
        }
    }
    frame.freeze()
}

/// The requests that a run sends.
const SENT: &[ApiKey] = &[
    ApiKey::ApiVersions,
    ApiKey::Metadata,
    ApiKey::InitProducerId,
    ApiKey::Produce,
    ApiKey::FindCoordinator,
    ApiKey::OffsetFetch,
    ApiKey::ListOffsets,
    ApiKey::Fetch,
    ApiKey::OffsetCommit,
];
const SENT_CLASSIC: &[ApiKey] =
    &[ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::Heartbeat, ApiKey::LeaveGroup];

/// Lets the first so many exchanges of one kind fail, and no others.
fn first(key: ApiKey, mut count: usize, fault: Fault) -> Chooser {
    Box::new(move |asked| {
        if asked != key || count == 0 {
            return Fault::None;
        }
        count -= 1;
        fault.clone()
    })
}

fn kinds() -> impl Iterator<Item = (GroupProtocol, ApiKey)> {
    let classic = SENT.iter().chain(SENT_CLASSIC).map(|key| (GroupProtocol::Classic, *key));
    let modern = [ApiKey::ConsumerGroupHeartbeat, ApiKey::OffsetCommit, ApiKey::OffsetFetch];
    classic.chain(modern.map(|key| (GroupProtocol::Consumer, key)))
}

#[tokio::test(start_paused = true)]
async fn an_honest_broker_loses_nothing() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let run = run(protocol, Box::new(|_| Fault::None)).await;
        run.check("no faults");
        assert_eq!(run.acknowledged.len() as i32, RECORDS);
        assert!(!run.told);
        assert_eq!(run.consumed.len() as i32, RECORDS, "nothing comes twice");
    }
}

/// The last poll before the absence gave nothing, so that nobody waits for records to be given back.
#[tokio::test(start_paused = true)]
async fn whoever_was_away_for_too_long_is_a_member_again_with_the_next_poll() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let model = Arc::new(Mutex::new(Model::default()));
        let broker = faulty(model, Arc::default(), Box::new(|_| Fault::None));
        let client = Client::with_transport(client_config(), Arc::new(broker));
        let config = ConsumerConfig {
            group_id: Some("g".to_owned()),
            group_protocol: protocol,
            offset_reset: OffsetReset::Earliest,
            max_poll_interval: Duration::from_secs(20),
            ..ConsumerConfig::default()
        };
        let consumer = Consumer::new(client.clone(), config).expect("valid");
        consumer.subscribe(&["t"]).expect("a group");
        let empty = consumer.poll(Duration::from_secs(10)).await.expect("nothing wrong");
        assert!(empty.is_none() && consumer.assignment().len() == 2, "{protocol:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(consumer.assignment().len(), 0, "it has left, {protocol:?}");

        let producer = Producer::new(client, ProducerConfig::default()).expect("valid");
        producer.send_and_wait(Record::new("t").partition(1).value("news")).await.expect("written");
        let news = consumer.poll(Duration::from_secs(10)).await.expect("nothing wrong");
        assert_eq!(news.expect("it is back").count(), 1, "{protocol:?}");
        consumer.close().await.expect("left");
    }
}

#[tokio::test(start_paused = true)]
async fn every_error_code_in_every_response_is_survived_or_told() {
    for (protocol, key) in kinds() {
        for &code in ErrorCode::ALL {
            // A leader that calls a batch a duplicate has it; this one would lie.
            let lie = (key, code) == (ApiKey::Produce, ErrorCode::DuplicateSequenceNumber);
            if code == ErrorCode::None || lie {
                continue;
            }
            let context = format!("{code:?} once in {key:?}, {protocol:?}");
            run(protocol, first(key, 1, Fault::Refused(code))).await.met(key).check(&context);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_after_the_deed_write_nothing_twice() {
    for &code in ErrorCode::ALL {
        // A leader that says so has not written the batch; this one lies, and then a retry under
        // new numbers is right.
        if code == ErrorCode::None || !code.is_retriable() {
            continue;
        }
        for count in [1, 3] {
            let chooser = first(ApiKey::Produce, count, Fault::DoneAndRefused(code));
            let run = run(GroupProtocol::Classic, chooser).await;
            run.check(&format!("{code:?} {count} times after writing"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lost_late_and_missing_answers_are_survived() {
    let faults = [
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::Late(Duration::from_secs(3)),
        Fault::Late(Duration::from_secs(9)),
        Fault::Silence,
    ];
    for (protocol, key) in kinds() {
        for fault in &faults {
            for count in [1, 4] {
                let context = format!("{fault:?} {count} times in {key:?}, {protocol:?}");
                run(protocol, first(key, count, fault.clone())).await.met(key).check(&context);
            }
        }
    }
}

/// A generator of numbers that is the same everywhere.
struct Dice(u64);

impl Dice {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[tokio::test(start_paused = true)]
async fn random_storms_of_faults_lose_and_double_nothing() {
    for seed in 0..150 {
        let protocol = if seed % 2 == 0 { GroupProtocol::Classic } else { GroupProtocol::Consumer };
        let mut dice = Dice(seed);
        let mut left = 40;
        let chooser: Chooser = Box::new(move |_| {
            if left == 0 || dice.draw(3) > 0 {
                return Fault::None;
            }
            left -= 1;
            match dice.draw(6) {
                0 => Fault::LostBefore,
                1 => Fault::LostAfter,
                2 => Fault::Late(Duration::from_millis(dice.draw(8000))),
                3 => Fault::Silence,
                4 => Fault::Refused(ErrorCode::NotLeaderOrFollower),
                _ => Fault::Refused(ErrorCode::NotCoordinator),
            }
        });
        run(protocol, chooser).await.check(&format!("seed {seed}"));
    }
}

/// Batches that are refused for good stand between others that may be in the log.
#[tokio::test(start_paused = true)]
async fn refused_batches_among_failing_ones_lose_and_double_nothing() {
    for seed in 0..700 {
        let mut dice = Dice(seed + 2000);
        let mut left = 20;
        let chooser: Chooser = Box::new(move |asked| {
            if asked != ApiKey::Produce || left == 0 || dice.draw(2) > 0 {
                return Fault::None;
            }
            left -= 1;
            match dice.draw(6) {
                0 => Fault::LostBefore,
                1 => Fault::LostAfter,
                2 => Fault::Refused(ErrorCode::NotEnoughReplicas),
                3 => Fault::DoneAndRefused(ErrorCode::NotLeaderOrFollower),
                _ => Fault::Refused(ErrorCode::MessageTooLarge),
            }
        });
        run(GroupProtocol::Classic, chooser).await.check(&format!("seed {seed}"));
    }
}

/// Against lies nothing can be promised but that the client lives, ends and stays within memory.
#[tokio::test(start_paused = true)]
async fn lying_brokers_are_outlived() {
    for seed in 0..400 {
        let protocol = if seed % 2 == 0 { GroupProtocol::Classic } else { GroupProtocol::Consumer };
        drop(run(protocol, garbling(Dice(seed + 1000))).await);
    }
}

/// Lets a quarter of all answers come with other bytes.
fn garbling(mut dice: Dice) -> Chooser {
    Box::new(move |_| {
        if dice.draw(4) > 0 {
            return Fault::None;
        }
        let extreme = [0, u64::MAX, 0x7fff_ffff_7fff_ffff, 0x8000_0000_8000_0000];
        let with = match dice.draw(2) {
            0 => extreme[dice.draw(4) as usize],
            _ => dice.draw(u64::MAX),
        };
        Fault::Garbled { at: dice.draw(400) as usize, with }
    })
}

/// More exchanges of one kind than a client has reason for in half an hour.
const STORM: usize = 20_000;

/// Codes of every kind that a client makes a difference between; others are like one of them.
const WITHOUT_END: [ErrorCode; 12] = [
    ErrorCode::UnknownServerError,
    ErrorCode::OffsetOutOfRange,
    ErrorCode::NotLeaderOrFollower,
    ErrorCode::NotCoordinator,
    ErrorCode::TopicAuthorizationFailed,
    ErrorCode::IllegalGeneration,
    ErrorCode::UnknownMemberId,
    ErrorCode::RebalanceInProgress,
    ErrorCode::FencedMemberEpoch,
    ErrorCode::UnknownTopicId,
    ErrorCode::ShareSessionNotFound,
    ErrorCode::InvalidShareSessionEpoch,
];

/// Reports whether a client may go on asking by itself, however long a broker answers so.
fn may_pass(code: ErrorCode) -> bool {
    let begins_anew = matches!(
        code,
        ErrorCode::UnknownMemberId
            | ErrorCode::IllegalGeneration
            | ErrorCode::RebalanceInProgress
            | ErrorCode::FencedMemberEpoch
            | ErrorCode::UnreleasedInstanceId
            | ErrorCode::MemberIdRequired
            | ErrorCode::OffsetOutOfRange
            | ErrorCode::UnknownTopicId
            | ErrorCode::ShareSessionNotFound
            | ErrorCode::InvalidShareSessionEpoch
            | ErrorCode::ShareSessionLimitReached
    );
    begins_anew || code.is_retriable()
}

/// Always lets this happen to exchanges of one kind. One that is asked for without end gets no answer any more, and is
/// counted in `storms`.
fn always(key: ApiKey, fault: Fault, storms: Arc<AtomicUsize>) -> Chooser {
    Box::new(move |asked| match asked == key {
        false => Fault::None,
        true if storms.fetch_add(1, Ordering::Relaxed) > STORM => Fault::Silence,
        true => fault.clone(),
    })
}

#[tokio::test(start_paused = true)]
async fn what_always_fails_makes_no_storm() {
    // What a member of a group says again and again.
    let keys = [
        (GroupProtocol::Classic, ApiKey::JoinGroup),
        (GroupProtocol::Classic, ApiKey::SyncGroup),
        (GroupProtocol::Classic, ApiKey::Heartbeat),
        (GroupProtocol::Classic, ApiKey::Fetch),
        (GroupProtocol::Consumer, ApiKey::ConsumerGroupHeartbeat),
        (GroupProtocol::Consumer, ApiKey::OffsetFetch),
    ];
    for (protocol, key) in keys {
        for code in WITHOUT_END {
            let context = format!("{code:?} always in {key:?}, {protocol:?}");
            let asked = Arc::new(AtomicUsize::new(0));
            let chooser = always(key, Fault::Refused(code), asked.clone());
            let mut run = run(protocol, chooser).await.met(key);
            // What may pass is waited for, for as long as the application likes.
            run.told |= may_pass(code);
            run.check(&context);
            let asked = asked.load(Ordering::Relaxed);
            assert!(asked < STORM, "asked {asked} times: {context}");
        }
    }
}

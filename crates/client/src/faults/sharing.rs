//! A share group against the same faults: what a broker counts as worked on was given to the application, what the
//! application was told to be acknowledged is, and whatever is not dealt with somebody heard of.

use std::collections::BTreeMap;

use fleuve_protocol::frame::RequestFrame;
use fleuve_protocol::messages::share_acknowledge_request::ShareAcknowledgeRequest;
use fleuve_protocol::messages::share_acknowledge_response as acknowledge_response;
use fleuve_protocol::messages::share_fetch_request::ShareFetchRequest;
use fleuve_protocol::messages::share_fetch_response::{
    AcquiredRecords, PartitionData, ShareFetchResponse, ShareFetchableTopicResponse,
};
use fleuve_protocol::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use fleuve_protocol::messages::share_group_heartbeat_response::{
    Assignment, ShareGroupHeartbeatResponse, TopicPartitions,
};
use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
use fleuve_types::Offset;

use super::*;
use crate::ShareConsumer;
use crate::config::{AcknowledgementMode, ShareConsumerConfig};
use crate::scripted::{TOPIC_ID, body, send};
use crate::share::Acknowledge;

/// Where a record stands at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Available,
    Acquired { until: Instant },
    Accepted,
}

/// An honest share group of one member, and a leader with records for it.
struct Group {
    /// Answers what is not about share groups.
    common: Model,
    records: BTreeMap<(i32, i64), Standing>,
    deliveries: HashMap<(i32, i64), i16>,
    is_member: bool,
    /// The epoch that the session's next request must have, and what it reads.
    session: Option<(i32, BTreeSet<i32>)>,
    /// Whether errors stand beside partitions, and not at the top.
    beside_partitions: bool,
}

const PER_PARTITION: i64 = 4;
const LOCK: Duration = Duration::from_secs(30);
const ACCEPT: i8 = 1;
const RENEW: i8 = 4;

impl Group {
    fn new(beside_partitions: bool) -> Self {
        let places = (0..2).flat_map(|p| (0..PER_PARTITION).map(move |offset| (p, offset)));
        Self {
            common: Model::default(),
            records: places.map(|place| (place, Standing::Available)).collect(),
            deliveries: HashMap::new(),
            is_member: false,
            session: None,
            beside_partitions,
        }
    }

    fn reply(&mut self, request: &RequestFrame, error: Option<ErrorCode>, act: bool) -> Reply {
        let now = Instant::now();
        for standing in self.records.values_mut() {
            if matches!(standing, Standing::Acquired { until } if *until <= now) {
                *standing = Standing::Available;
            }
        }
        match request.key {
            ApiKey::ShareGroupHeartbeat => self.heartbeat(request, error, act),
            ApiKey::ShareFetch => self.fetch(request, error, act),
            ApiKey::ShareAcknowledge => self.acknowledge(request, error, act),
            _ => match (act, error) {
                (false, Some(code)) => self.common.refuse(request, code),
                (_, error) => self.common.answer(request, error),
            },
        }
    }

    fn heartbeat(&mut self, request: &RequestFrame, error: Option<ErrorCode>, act: bool) -> Reply {
        let asked: ShareGroupHeartbeatRequest = body(request);
        let mut code = error.unwrap_or(ErrorCode::None);
        if act {
            match asked.member_epoch {
                0 => self.is_member = true,
                -1 => self.is_member = false,
                _ if !self.is_member => code = ErrorCode::UnknownMemberId,
                _ => {}
            }
        }
        let partitions = TopicPartitions { topic_id: TOPIC_ID, partitions: vec![0, 1] };
        let joining = code == ErrorCode::None && asked.member_epoch == 0;
        let response = ShareGroupHeartbeatResponse {
            error_code: code.code(),
            member_id: Some(asked.member_id),
            member_epoch: asked.member_epoch.min(1).max(if joining { 1 } else { -1 }),
            heartbeat_interval_ms: 1000,
            assignment: joining.then(|| Assignment { topic_partitions: vec![partitions] }),
            ..ShareGroupHeartbeatResponse::default()
        };
        send(request, &response)
    }

    /// Opens, continues or ends the session.
    fn enter(&mut self, epoch: i32) -> Result<(), ErrorCode> {
        match (epoch, &mut self.session) {
            (0, session) => {
                *session = Some((1, BTreeSet::new()));
                self.release_all();
            }
            (_, None) => return Err(ErrorCode::ShareSessionNotFound),
            (-1, session) => *session = None,
            (epoch, Some((expected, _))) if epoch == *expected => *expected += 1,
            _ => return Err(ErrorCode::InvalidShareSessionEpoch),
        }
        Ok(())
    }

    fn release_all(&mut self) {
        for standing in self.records.values_mut() {
            if matches!(standing, Standing::Acquired { .. }) {
                *standing = Standing::Available;
            }
        }
    }

    /// Books what a member says of records.
    fn book(
        &mut self,
        partition: i32,
        said: impl Iterator<Item = (i64, i64, Vec<i8>)>,
    ) -> ErrorCode {
        let mut code = ErrorCode::None;
        for (first, last, types) in said {
            for offset in first..=last {
                match self.records.get_mut(&(partition, offset)) {
                    Some(standing @ Standing::Acquired { .. }) => {
                        *standing = match types[0] {
                            ACCEPT => Standing::Accepted,
                            RENEW => Standing::Acquired { until: Instant::now() + LOCK },
                            _ => Standing::Available,
                        };
                    }
                    _ => code = ErrorCode::InvalidRecordState,
                }
            }
        }
        code
    }

    fn fetch(&mut self, request: &RequestFrame, error: Option<ErrorCode>, act: bool) -> Reply {
        let asked: ShareFetchRequest = body(request);
        let beside = error.filter(|_| self.beside_partitions).unwrap_or(ErrorCode::None);
        let mut top = error.filter(|_| !self.beside_partitions).unwrap_or(ErrorCode::None);
        let enters = act || beside != ErrorCode::None;
        if enters && let Err(code) = self.enter(asked.share_session_epoch) {
            top = code;
        }
        if top != ErrorCode::None || !enters {
            let error_code = top.code();
            return send(request, &ShareFetchResponse { error_code, ..Default::default() });
        }
        let (_, mut reads) = self.session.clone().unwrap_or_default();
        let mut booked: HashMap<i32, ErrorCode> = HashMap::new();
        for data in asked.topics.into_iter().flat_map(|topic| topic.partitions) {
            reads.insert(data.partition_index);
            let said = data.acknowledgement_batches.into_iter();
            let said = said.map(|b| (b.first_offset, b.last_offset, b.acknowledge_types));
            let code = if act { self.book(data.partition_index, said) } else { beside };
            booked.insert(data.partition_index, code);
        }
        for forgotten in asked.forgotten_topics_data.iter().flat_map(|topic| &topic.partitions) {
            reads.remove(forgotten);
        }
        if let Some((_, known)) = &mut self.session {
            known.clone_from(&reads);
        }
        let partitions: Vec<_> = reads
            .into_iter()
            .map(|partition_index| {
                let acquired = if act { self.acquire(partition_index) } else { Vec::new() };
                let told = booked.get(&partition_index).copied().unwrap_or(ErrorCode::None);
                PartitionData {
                    partition_index,
                    error_code: beside.code(),
                    acknowledge_error_code: told.code(),
                    records: Some(records_of(&acquired)),
                    acquired_records: acquired,
                    ..PartitionData::default()
                }
            })
            .collect();
        let found = partitions.iter().any(|data| !data.acquired_records.is_empty());
        let topic = ShareFetchableTopicResponse { topic_id: TOPIC_ID, partitions };
        let response = ShareFetchResponse {
            acquisition_lock_timeout_ms: LOCK.as_millis() as i32,
            responses: vec![topic],
            ..ShareFetchResponse::default()
        };
        match send(request, &response) {
            Reply::Send(segments) if !found && error.is_none() => {
                let wait = u64::try_from(asked.max_wait_ms).unwrap_or(0);
                Reply::After(Duration::from_millis(wait), segments)
            }
            reply => reply,
        }
    }

    /// Gives two records at a time, so that there are several rounds.
    fn acquire(&mut self, partition: i32) -> Vec<AcquiredRecords> {
        let until = Instant::now() + LOCK;
        let mut acquired = Vec::new();
        for (place, standing) in self.records.range_mut((partition, 0)..(partition + 1, 0)) {
            if *standing == Standing::Available && acquired.len() < 2 {
                *standing = Standing::Acquired { until };
                let count = self.deliveries.entry(*place).or_default();
                *count += 1;
                acquired.push(AcquiredRecords {
                    first_offset: place.1,
                    last_offset: place.1,
                    delivery_count: *count,
                });
            }
        }
        acquired
    }

    fn acknowledge(
        &mut self,
        request: &RequestFrame,
        error: Option<ErrorCode>,
        act: bool,
    ) -> Reply {
        use acknowledge_response::{
            PartitionData, ShareAcknowledgeResponse, ShareAcknowledgeTopicResponse,
        };
        let asked: ShareAcknowledgeRequest = body(request);
        let beside = error.filter(|_| self.beside_partitions).unwrap_or(ErrorCode::None);
        let mut top = error.filter(|_| !self.beside_partitions).unwrap_or(ErrorCode::None);
        let last = asked.share_session_epoch == -1;
        let enters = act || beside != ErrorCode::None;
        if enters && let Err(code) = self.enter(asked.share_session_epoch) {
            top = code;
        }
        if top != ErrorCode::None || !enters {
            let error_code = top.code();
            return send(request, &ShareAcknowledgeResponse { error_code, ..Default::default() });
        }
        let topics = asked.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|data| {
                let said = data.acknowledgement_batches.into_iter();
                let said = said.map(|b| (b.first_offset, b.last_offset, b.acknowledge_types));
                let code = if act { self.book(data.partition_index, said) } else { beside };
                PartitionData {
                    partition_index: data.partition_index,
                    error_code: code.code(),
                    ..PartitionData::default()
                }
            });
            ShareAcknowledgeTopicResponse {
                topic_id: topic.topic_id,
                partitions: partitions.collect(),
            }
        });
        let responses = topics.collect();
        if last {
            self.release_all();
        }
        send(request, &ShareAcknowledgeResponse { responses, ..Default::default() })
    }
}

/// Makes a batch of each record, whose value is its offset.
fn records_of(acquired: &[AcquiredRecords]) -> Bytes {
    let mut bytes = BytesMut::new();
    for range in acquired {
        let base_offset = Offset(range.first_offset);
        let mut builder = BatchBuilder::new(BatchOptions { base_offset, ..Default::default() });
        let value = range.first_offset.to_string();
        let record = NewRecord { value: Some(value.as_bytes()), ..NewRecord::default() };
        builder.append(&record).expect("room");
        bytes.extend_from_slice(&builder.finish());
    }
    bytes.freeze()
}

/// What the application came to know.
#[derive(Default)]
struct Known {
    seen: HashMap<(i32, i64), usize>,
    /// Records of which it was told that their acknowledgement is taken.
    taken: HashSet<(i32, i64)>,
    told: bool,
}

struct Run {
    group: Arc<Mutex<Group>>,
    known: Known,
    asked: Arc<Mutex<HashSet<ApiKey>>>,
}

/// How a run goes.
#[derive(Clone, Copy, Debug)]
struct Way {
    mode: AcknowledgementMode,
    /// Whether errors stand beside partitions.
    beside_partitions: bool,
}

const WAYS: [Way; 4] = [
    Way { mode: AcknowledgementMode::Explicit, beside_partitions: false },
    Way { mode: AcknowledgementMode::Explicit, beside_partitions: true },
    Way { mode: AcknowledgementMode::Implicit, beside_partitions: false },
    Way { mode: AcknowledgementMode::Implicit, beside_partitions: true },
];

async fn run(way: Way, mut chooser: Chooser) -> Run {
    let group = Arc::new(Mutex::new(Group::new(way.beside_partitions)));
    let asked: Arc<Mutex<HashSet<ApiKey>>> = Arc::default();
    let broker = ScriptedBroker::raw({
        let (group, asked) = (group.clone(), asked.clone());
        move |request| {
            asked.lock().expect("no panic").insert(request.key);
            let mut group = group.lock().expect("no panic");
            chooser(request.key).strike(|error, act| group.reply(&request, error, act))
        }
    });
    let client = Client::with_transport(client_config(), Arc::new(broker));
    let known = work(client, way.mode, &group);
    let known = tokio::time::timeout(HANGING, known).await.expect("it hangs");
    Run { group, known, asked }
}

async fn work(client: Client, mode: AcknowledgementMode, group: &Mutex<Group>) -> Known {
    let config = ShareConsumerConfig {
        acknowledgement_mode: mode,
        max_poll_records: 2,
        ..ShareConsumerConfig::new("g")
    };
    let consumer = ShareConsumer::new(client, config).expect("valid");
    let answers = Arc::new(Mutex::new(Vec::new()));
    consumer.set_acknowledgement_callback({
        let answers = answers.clone();
        Arc::new(move |partition, runs, result| {
            let answer = (partition.partition, runs.to_vec(), result.is_ok());
            answers.lock().expect("no panic").push(answer);
        })
    });
    consumer.subscribe(&["t"]).expect("open");
    let mut known = Known::default();
    let begun = Instant::now();
    let is_over = || {
        let group = group.lock().expect("no panic");
        group.records.values().all(|standing| *standing == Standing::Accepted)
    };
    while begun.elapsed() < Duration::from_secs(120) && !is_over() {
        let records = match consumer.poll(Duration::from_secs(5)).await {
            Ok(Some(records)) => records,
            Ok(None) => continue,
            Err(_) => {
                known.told = true;
                continue;
            }
        };
        let partition = records.partition().clone();
        for record in &records {
            let offset = record.offset.0;
            assert_eq!(record.value, Some(offset.to_string().as_bytes()), "another record");
            *known.seen.entry((partition.partition, offset)).or_default() += 1;
            if mode == AcknowledgementMode::Explicit {
                consumer.acknowledge(&partition, offset, Acknowledge::Accept).expect("in hand");
            }
        }
        if mode == AcknowledgementMode::Explicit {
            match consumer.commit().await {
                Ok(results) => known.told |= results.values().any(|result| result.is_err()),
                Err(_) => known.told = true,
            }
        }
    }
    known.told |= consumer.close().await.is_err();
    for (partition, runs, taken) in answers.lock().expect("no panic").drain(..) {
        known.told |= !taken;
        if taken {
            let offsets = runs.into_iter().flat_map(|(first, last)| first..=last);
            known.taken.extend(offsets.map(|offset| (partition, offset)));
        }
    }
    known
}

impl Run {
    fn met(self, key: ApiKey) -> Self {
        assert!(self.asked.lock().expect("no panic").contains(&key), "{key:?} was never asked");
        self
    }

    fn check(&self, context: &str) {
        let group = self.group.lock().expect("no panic");
        let Known { seen, taken, told } = &self.known;
        let accepted = |place| group.records[place] == Standing::Accepted;
        for place in group.records.keys().filter(|place| accepted(place)) {
            assert!(seen.contains_key(place), "nobody worked on {place:?}: {context}");
        }
        for place in taken {
            assert!(accepted(place), "{place:?} was not taken: {context}");
        }
        assert!(
            *told || group.records.keys().all(accepted),
            "records were left in silence: {context}"
        );
    }
}

fn kinds() -> impl Iterator<Item = (Way, ApiKey)> {
    let keys = [
        ApiKey::ApiVersions,
        ApiKey::Metadata,
        ApiKey::FindCoordinator,
        ApiKey::ShareGroupHeartbeat,
        ApiKey::ShareFetch,
    ];
    let everywhere = WAYS.into_iter().flat_map(move |way| keys.map(|key| (way, key)));
    // Implicitly, acknowledgements go along with fetches.
    WAYS[..2].iter().map(|way| (*way, ApiKey::ShareAcknowledge)).chain(everywhere)
}

#[tokio::test(start_paused = true)]
async fn an_honest_share_group_gives_everything_once() {
    for way in WAYS {
        let run = run(way, Box::new(|_| Fault::None)).await;
        run.check("no faults");
        assert!(!run.known.told);
        assert!(run.known.seen.values().all(|&count| count == 1), "{way:?}");
        assert_eq!(run.known.seen.len() as i64, 2 * PER_PARTITION);
    }
}

#[tokio::test(start_paused = true)]
async fn every_error_code_in_a_share_group_is_survived_or_told() {
    for (way, key) in kinds() {
        for &code in ErrorCode::ALL {
            if code == ErrorCode::None {
                continue;
            }
            let context = format!("{code:?} once in {key:?}, {way:?}");
            run(way, first(key, 1, Fault::Refused(code))).await.met(key).check(&context);
            // Acknowledgements are the application's, which is told each time.
            let asked_often =
                matches!(key, ApiKey::Metadata | ApiKey::ShareGroupHeartbeat | ApiKey::ShareFetch);
            if way.mode == AcknowledgementMode::Implicit
                || !asked_often
                || !WITHOUT_END.contains(&code)
            {
                continue;
            }
            let context = format!("{code:?} always in {key:?}, {way:?}");
            let asked = Arc::new(AtomicUsize::new(0));
            let chooser = always(key, Fault::Refused(code), asked.clone());
            let mut run = run(way, chooser).await;
            // What may pass is waited for, for as long as the application likes.
            run.known.told |= may_pass(code);
            run.check(&context);
            let asked = asked.load(Ordering::Relaxed);
            assert!(asked < STORM, "asked {asked} times: {context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lost_late_and_missing_answers_leave_no_share_of_records_behind() {
    let faults = [
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::Late(Duration::from_secs(3)),
        Fault::Late(Duration::from_secs(9)),
        Fault::Silence,
    ];
    for (way, key) in kinds() {
        for fault in &faults {
            for count in [1, 4] {
                let context = format!("{fault:?} {count} times in {key:?}, {way:?}");
                run(way, first(key, count, fault.clone())).await.met(key).check(&context);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn random_storms_leave_no_share_of_records_behind() {
    for seed in 0..200 {
        let mut dice = Dice(seed + 7000);
        let mut left = 40;
        let chooser: Chooser = Box::new(move |_| {
            if left == 0 || dice.draw(3) > 0 {
                return Fault::None;
            }
            left -= 1;
            match dice.draw(7) {
                0 => Fault::LostBefore,
                1 => Fault::LostAfter,
                2 => Fault::Late(Duration::from_millis(dice.draw(8000))),
                3 => Fault::Silence,
                4 => Fault::Refused(ErrorCode::NotLeaderOrFollower),
                5 => Fault::Refused(ErrorCode::ShareSessionNotFound),
                _ => Fault::Refused(ErrorCode::NotCoordinator),
            }
        });
        run(WAYS[seed as usize % 4], chooser).await.check(&format!("seed {seed}"));
    }
}

/// What a record says may be a lie; that the client lives and ends may not.
#[tokio::test(start_paused = true)]
async fn lies_to_a_share_group_are_outlived() {
    for seed in 0..200 {
        // Not in what is fetched: `work` looks whether records are the right ones.
        let mut garble = garbling(Dice(seed + 8000));
        let chooser: Chooser = Box::new(move |key| match key {
            ApiKey::ShareFetch => Fault::None,
            key => garble(key),
        });
        drop(run(WAYS[seed as usize % 4], chooser).await);
    }
}

//! What must hold in every history, whatever clients, clocks and the log do.
//!
//! Random clients of three transactional ids do random things, sensible or not, in the old and the
//! new protocol; appends fail or take their time, markers arrive late, twice or never, the log
//! becomes durable late, the shard is reloaded or crashes and loses what was not durable. After
//! every event:
//! - no request is answered twice, and in the end every one is answered;
//! - no marker contradicts an earlier one, and the log goes by the book (the driver checks both);
//! - a producer that was given to one is not given to another;
//! - a producer that was shut out gets nothing more done;
//! - what a client is told is in the log, where no crash can take it back;
//! - a shard that reads the log has the same persistent state, and takes up the same deliveries.
//!
//! In the end every decision comes to its completion.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_coordinator::transaction::{
    AddPartitionsRequest, Decision, Effect, EndRequest, InitRequest, ListFilter, MarkerOutcome,
    Producer, Response, State, TransactionSettings, TransactionVersion, VerifyPartitionsRequest,
};
use fleuve_coordinator::{AppendError, Token};
use fleuve_protocol::Str;
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition};
use proptest::prelude::*;

use crate::driver::Driver;

const IDS: [&str; 3] = ["x", "y", "z"];
const CLIENTS: usize = 6;
/// Long enough for every timeout, retry and check, and too short for ids to expire.
const ALL_TIMEOUTS_MS: i64 = 30 * 60 * 1_000;
/// How far back a late report may reach.
const LATE_REPORTS: usize = 6;
/// Events between two comparisons with a shard that reads the whole log.
const REPLAY_EVERY: usize = 8;

#[derive(Clone, Debug)]
enum Event {
    Init {
        client: usize,
        timeout_ms: i32,
        goes_on: bool,
    },
    Add {
        client: usize,
        partitions: u8,
    },
    Verify {
        client: usize,
        partitions: u8,
    },
    End {
        client: usize,
        decision: Decision,
    },
    /// The client takes itself for who it was some time ago, as if answers had been lost.
    Forget {
        client: usize,
    },
    /// Of the markers that are out, some are reported.
    Markers {
        outcome: MarkerOutcome,
        which: u8,
    },
    /// A marker that has been reported is reported once more.
    LateReport {
        which: u8,
    },
    Wait {
        ms: i64,
    },
    Skew {
        ms: i64,
    },
    Fail {
        error: AppendError,
    },
    ProducerIds {
        run_out: bool,
    },
    ClusterVersion {
        level: i16,
    },
    Stall,
    Resume,
    Hold,
    Flush,
    Reload,
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    let client = || 0..CLIENTS;
    let flag = |weight| prop::bool::weighted(weight);
    let decision = prop_oneof![2 => Just(Decision::Commit), 1 => Just(Decision::Abort)];
    let outcome = prop_oneof![
        8 => Just(MarkerOutcome::Written),
        3 => Just(MarkerOutcome::Unavailable),
        1 => Just(MarkerOutcome::PartitionGone),
        1 => Just(MarkerOutcome::ProducerFenced),
    ];
    let error = prop_oneof![
        Just(AppendError::Unavailable),
        Just(AppendError::NotLeader),
        Just(AppendError::TooLarge),
    ];
    prop_oneof![
        6 => (client(), prop_oneof![Just(20_000), Just(600_000), Just(0)], flag(0.4))
            .prop_map(|(client, timeout_ms, goes_on)| Event::Init { client, timeout_ms, goes_on }),
        12 => (client(), 0_u8..8)
            .prop_map(|(client, partitions)| Event::Add { client, partitions }),
        2 => (client(), 0_u8..8)
            .prop_map(|(client, partitions)| Event::Verify { client, partitions }),
        12 => (client(), decision).prop_map(|(client, decision)| Event::End { client, decision }),
        2 => client().prop_map(|client| Event::Forget { client }),
        12 => (outcome, any::<u8>()).prop_map(|(outcome, which)| Event::Markers { outcome, which }),
        4 => any::<u8>().prop_map(|which| Event::LateReport { which }),
        5 => prop_oneof![1_i64..200, 5_000_i64..40_000].prop_map(|ms| Event::Wait { ms }),
        1 => (-100_000_i64..100_000).prop_map(|ms| Event::Skew { ms }),
        2 => error.prop_map(|error| Event::Fail { error }),
        1 => flag(0.4).prop_map(|run_out| Event::ProducerIds { run_out }),
        1 => (0_i16..=2).prop_map(|level| Event::ClusterVersion { level }),
        1 => Just(Event::Stall),
        2 => Just(Event::Resume),
        2 => Just(Event::Hold),
        2 => Just(Event::Flush),
        1 => Just(Event::Reload),
        2 => Just(Event::Crash),
    ]
}

/// A request as its sender remembers it.
#[derive(Clone, Debug)]
enum Sent {
    Init { client: usize, goes_on: bool },
    Add { client: usize, by: Producer, floor: Option<Producer>, partitions: Vec<TopicPartition> },
    End { client: usize, by: Producer, floor: Option<Producer>, decision: Decision },
    Verify { client: usize, by: Producer },
}

struct World {
    driver: Driver,
    clients: Vec<Producer>,
    /// What each client was before its last change of identity.
    before: Vec<Producer>,
    sent: BTreeMap<Token, Sent>,
    heard: usize,
    /// Producers given out to those who did not claim to be anyone.
    given: BTreeSet<(usize, Producer)>,
    /// By id, the newest producer that has shut out all before it.
    floors: BTreeMap<&'static str, Producer>,
}

impl World {
    fn new() -> Self {
        let nobody = Producer { id: ProducerId(-1), epoch: ProducerEpoch(-1) };
        Self {
            driver: Driver::new(TransactionSettings::default()),
            clients: vec![nobody; CLIENTS],
            before: vec![nobody; CLIENTS],
            sent: BTreeMap::new(),
            heard: 0,
            given: BTreeSet::new(),
            floors: BTreeMap::new(),
        }
    }

    fn run(&mut self, event: &Event) {
        let driver = &mut self.driver;
        match *event {
            Event::Init { client, timeout_ms, goes_on } => {
                let by = self.clients[client];
                let goes_on = goes_on && by.id.0 >= 0;
                let request = InitRequest {
                    transactional_id: id_of(client),
                    timeout_ms,
                    expected: goes_on.then_some(by),
                    knows_producer_fenced: true,
                };
                let token = driver.request(|shard, now, token| {
                    shard.handle_init_producer_id(now, token, &request)
                });
                self.sent.insert(token, Sent::Init { client, goes_on });
            }
            Event::Add { client, partitions } => {
                let by = self.clients[client];
                let request = AddPartitionsRequest {
                    transactional_id: id_of(client),
                    producer: by,
                    partitions: places(partitions),
                    client_version: version_of(client),
                    knows_producer_fenced: true,
                };
                let token = driver
                    .request(|shard, now, token| shard.handle_add_partitions(now, token, &request));
                let floor = self.floors.get(IDS[client % IDS.len()]).copied();
                let partitions = request.partitions;
                self.sent.insert(token, Sent::Add { client, by, floor, partitions });
            }
            Event::Verify { client, partitions } => {
                let by = self.clients[client];
                let request = VerifyPartitionsRequest {
                    transactional_id: id_of(client),
                    producer: by,
                    partitions: places(partitions),
                };
                let token = driver
                    .request(|shard, _, token| shard.handle_verify_partitions(token, &request));
                self.sent.insert(token, Sent::Verify { client, by });
            }
            Event::End { client, decision } => {
                let by = self.clients[client];
                let request = EndRequest {
                    transactional_id: id_of(client),
                    producer: by,
                    decision,
                    client_version: version_of(client),
                    knows_producer_fenced: true,
                };
                let token = driver.request(|shard, now, token| {
                    shard.handle_end_transaction(now, token, &request)
                });
                let floor = self.floors.get(IDS[client % IDS.len()]).copied();
                self.sent.insert(token, Sent::End { client, by, floor, decision });
            }
            Event::Forget { client } => self.clients[client] = self.before[client],
            Event::Markers { outcome, which } => {
                driver.report(outcome, |place| which >> (place.partition % 8) & 1 == 1);
            }
            Event::LateReport { which } => {
                let count = driver.reported.len().min(LATE_REPORTS);
                if count > 0 {
                    let index = driver.reported.len() - 1 - usize::from(which) % count;
                    let (marker, outcome) = driver.reported[index].clone();
                    driver.tell(&marker, outcome);
                }
            }
            Event::Wait { ms } => driver.wait(ms),
            Event::Skew { ms } => driver.skew_ms += ms,
            Event::Fail { error } => driver.failures.push_back(Some(error)),
            Event::ProducerIds { run_out } => driver.producer_ids.set_empty(run_out),
            Event::ClusterVersion { level } => driver.set(|settings| {
                settings.cluster_version =
                    TransactionVersion::from_level(level).expect("a feature level");
            }),
            Event::Stall => driver.stall(),
            Event::Resume => driver.resume(),
            Event::Hold => driver.hold(),
            Event::Flush => driver.flush(),
            Event::Reload => driver.reload(),
            Event::Crash => driver.crash(),
        }
        self.listen();
    }

    /// Clients learn from the answers they got, and we look at what they are told.
    fn listen(&mut self) {
        for (_, token, response) in &self.driver.answers[self.heard..] {
            let Some(sent) = self.sent.remove(token) else { continue };
            match (sent, response) {
                (Sent::Init { client, goes_on }, Some(Response::InitProducerId(Ok(producer)))) => {
                    let id = client % IDS.len();
                    if !goes_on {
                        assert!(self.given.insert((id, *producer)), "{producer:?} is given twice");
                        let floor = self.floors.entry(IDS[id]).or_insert(*producer);
                        *floor = (*floor).max(*producer);
                    }
                    assert!(
                        self.driver.durable(IDS[id]).any(|known| known.producer == *producer),
                        "{producer:?} is not stored",
                    );
                    self.before[client] = self.clients[client];
                    self.clients[client] = *producer;
                }
                (
                    Sent::Add { client, by, floor, partitions },
                    Some(Response::AddPartitions(Ok(()))),
                ) => {
                    assert!(floor.is_none_or(|floor| by >= floor), "client {client} was shut out");
                    self.check_parts(client, by, &partitions);
                }
                (Sent::Verify { client, by }, Some(Response::VerifyPartitions(Ok(found)))) => {
                    let parts = found.iter().filter(|(_, is_part)| *is_part);
                    let parts: Vec<_> = parts.map(|(place, _)| place.clone()).collect();
                    self.check_parts(client, by, &parts);
                }
                (
                    Sent::End { client, by, floor, decision },
                    Some(Response::EndTransaction(Ok(producer))),
                ) => {
                    assert!(floor.is_none_or(|floor| by >= floor), "client {client} was shut out");
                    assert!(
                        self.was_decided(client, by, decision),
                        "client {client} was told of a {decision:?} that never was",
                    );
                    if let Some(producer) = producer {
                        self.before[client] = self.clients[client];
                        self.clients[client] = *producer;
                    }
                }
                (Sent::Init { .. }, None | Some(Response::InitProducerId(Err(_))))
                | (Sent::Add { .. }, None | Some(Response::AddPartitions(Err(_))))
                | (Sent::End { .. }, None | Some(Response::EndTransaction(Err(_))))
                | (Sent::Verify { .. }, None | Some(Response::VerifyPartitions(Err(_)))) => {}
                (sent, response) => panic!("{sent:?} was answered with {response:?}"),
            }
        }
        self.heard = self.driver.answers.len();
    }

    /// Whether there is such a decision about a transaction of the producer.
    fn was_decided(&self, client: usize, by: Producer, decision: Decision) -> bool {
        let epoch = ProducerEpoch(by.epoch.0 + i16::from(version_of(client).bumps_epoch()));
        self.driver.durable(IDS[client % IDS.len()]).any(|known| {
            known.state.decision() == Some(decision) && known.producer == Producer { epoch, ..by }
        })
    }

    /// The producer has had an open transaction with these partitions.
    fn check_parts(&self, client: usize, by: Producer, partitions: &[TopicPartition]) {
        let has_them = self.driver.durable(IDS[client % IDS.len()]).any(|known| {
            let is_part = |place| known.partitions.contains(place);
            known.producer == by && partitions.iter().all(is_part)
        });
        assert!(has_them, "{partitions:?} are not stored as parts of {by:?}");
    }

    fn check_replay(&self) {
        let live = &self.driver.shard;
        let mut replayed = self.driver.replayed();
        assert_eq!(replayed.ledger(), live.ledger());
        let step = replayed.handle_loaded(self.driver.now());
        let mut taken_up = BTreeMap::new();
        for effect in step.effects {
            let Effect::WriteMarkers { markers, .. } = effect else { panic!("{effect:?} at load") };
            let partitions: BTreeSet<_> = markers.partitions.into_iter().collect();
            taken_up.insert(markers.key.transactional_id, partitions);
        }
        for write in &step.writes {
            for record in write.records() {
                taken_up.insert(record.transactional_id.clone(), BTreeSet::new());
            }
        }
        let decided =
            live.ledger().transactions().filter(|(_, known)| known.state.decision().is_some());
        let decided: BTreeMap<Str, BTreeSet<TopicPartition>> =
            decided.map(|(id, known)| (id.clone(), known.partitions.clone())).collect();
        assert_eq!(taken_up, decided);
        for (id, known) in live.ledger().transactions() {
            let shown = live.describe(id).expect("what is known can be described");
            assert_eq!((shown.state, shown.producer), (known.state, known.producer));
            assert!(shown.partitions.is_subset(&known.partitions));
        }
    }

    /// All that hinders the machine ends, and time passes.
    fn settle(&mut self) {
        self.driver.failures.clear();
        self.driver.producer_ids.set_empty(false);
        self.driver.resume();
        self.driver.flush();
        for _ in 0..4 {
            self.driver.wait(ALL_TIMEOUTS_MS);
            self.driver.report(MarkerOutcome::Written, |_| true);
        }
        self.listen();
    }
}

/// Every id has two clients.
fn id_of(client: usize) -> Str {
    IDS[client % IDS.len()].into()
}

/// The clients of the last id speak the old protocol, and one of the second.
fn version_of(client: usize) -> TransactionVersion {
    match client {
        2 | 4 | 5 => TransactionVersion::V0,
        _ => TransactionVersion::V2,
    }
}

fn places(bits: u8) -> Vec<TopicPartition> {
    (0..3).filter(|bit| bits >> bit & 1 == 1).map(|bit| TopicPartition::new("t", bit)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn hold_in_random_histories(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for (index, event) in events.iter().enumerate() {
            world.run(event);
            if index % REPLAY_EVERY == 0 {
                world.check_replay();
            }
        }
        world.check_replay();

        // A shard that lost its log in between can only be helped by another one.
        world.driver.reload();
        world.settle();
        world.check_replay();
        prop_assert_eq!(world.driver.unanswered(), 0);
        let filter = ListFilter::default();
        let settled = world.driver.shard.list(world.driver.now(), &filter).expect("it serves");
        for listing in settled {
            let is_settled =
                matches!(listing.state, State::Empty | State::CompleteCommit | State::CompleteAbort);
            prop_assert!(is_settled, "{listing:?} hangs");
        }
    }
}

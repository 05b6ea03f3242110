//! Records in bytes. What is expected here was written by Kafka 4.3.1's own serializer.

use std::sync::Arc;

use bytes::Bytes;
use fleuve_coordinator::transaction::{
    AddPartitionsRequest, Decision, Effect, EndRequest, InitRequest, MarkerOutcome, Producer,
    Record, RecordError, State, Step, Transaction, TransactionCoordinator, TransactionError,
    TransactionSettings, TransactionVersion,
};
use fleuve_coordinator::{Now, Token};
use fleuve_types::{Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};
use proptest::prelude::*;

use crate::driver::{Counting, WALL_AT_START_MS as AT};

/// The key of transactional id `tx-1`.
const KEY: &str = "0000000474782d31";

const EMPTY: &str = "0001000000000000000700000000ea6000000000018bcfe56800ffffffffffffffff010008000000\
                     0000000007";
const EMPTY_V0: &str = "0000000000000000000700000000ea6000ffffffff0000018bcfe56800ffffffffffffffff";
const ONGOING: &str = "0001000000000000000700030000ea60010202740200000005000000018bcfe56800000001\
                       8bcfe567f6020008000000000000000702020002";
const ONGOING_V0: &str = "0000000000000000000700030000ea60010000000100017400000001000000050000018\
                          bcfe568000000018bcfe567f6";
const SEVERAL_TOPICS: &str = "0001000000000000000700030000ea60010402740200000000000275020000000100135f5f\
                              636f6e73756d65725f6f6666736574730200000009000000018bcfe568000000018bcfe567\
                              f6020008000000000000000702020002";
const PREPARED: &str = "000100000000000000077fff0000ea60020202740200000001000000018bcfe568000000018bcfe5\
                        67f603000800000000000000070108000000000000000802020002";
const COMPLETED: &str = "0001000000000000000800000000ea6004010000018bcfe568050000018bcfe567f602000800000000\
                         0000000702020002";

fn bytes(hex: &str) -> Bytes {
    let digits = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits are ASCII");
        u8::from_str_radix(pair, 16).expect("digits are hexadecimal")
    };
    hex.as_bytes().chunks(2).map(digits).collect()
}

fn partition(topic: &str, index: i32) -> TopicPartition {
    TopicPartition::new(topic, index)
}

fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) }
}

fn empty() -> Transaction {
    Transaction {
        producer: producer(7, 0),
        previous_producer_id: ProducerId(7),
        next_producer_id: ProducerId(-1),
        timeout_ms: 60_000,
        state: State::Empty,
        partitions: [].into(),
        start_timestamp: TimestampMs(-1),
        last_update_timestamp: TimestampMs(AT),
        client_version: TransactionVersion::V0,
    }
}

fn ongoing() -> Transaction {
    Transaction {
        producer: producer(7, 3),
        state: State::Ongoing,
        partitions: [partition("t", 5)].into(),
        start_timestamp: TimestampMs(AT - 10),
        client_version: TransactionVersion::V2,
        ..empty()
    }
}

fn prepared() -> Transaction {
    Transaction {
        producer: producer(7, i16::MAX),
        next_producer_id: ProducerId(8),
        state: State::PrepareCommit,
        partitions: [partition("t", 1)].into(),
        ..ongoing()
    }
}

fn decode(value: &str) -> Result<Record, RecordError> {
    Record::decode(bytes(KEY), Some(bytes(value)))
}

/// Checks that Kafka's bytes mean `expected`, and that we write the same bytes.
fn assert_layout(value: &str, expected: &Transaction) {
    let record = decode(value).expect("Kafka's records can be read");
    assert_eq!(&*record.transactional_id, "tx-1");
    assert_eq!(record.transaction(), Some(expected));
    let (key, encoded) = record.encode().expect("the record fits");
    assert_eq!((key, encoded), (bytes(KEY), Some(bytes(value))));
}

#[test]
fn flexible_records() {
    assert_layout(EMPTY, &empty());
    assert_layout(ONGOING, &ongoing());
    assert_layout(PREPARED, &prepared());
    let completed = Transaction {
        producer: producer(8, 0),
        previous_producer_id: ProducerId(7),
        next_producer_id: ProducerId(-1),
        state: State::CompleteCommit,
        partitions: [].into(),
        last_update_timestamp: TimestampMs(AT + 5),
        ..prepared()
    };
    assert_layout(COMPLETED, &completed);
}

#[test]
fn records_of_old_clusters() {
    let none = ProducerId(-1);
    assert_layout(EMPTY_V0, &Transaction { previous_producer_id: none, ..empty() });
    let expected = Transaction {
        previous_producer_id: none,
        client_version: TransactionVersion::V0,
        ..ongoing()
    };
    assert_layout(ONGOING_V0, &expected);
}

/// Kafka writes topics in the order of a hash table, we by name.
#[test]
fn several_topics() {
    let record = decode(SEVERAL_TOPICS).expect("Kafka's records can be read");
    let partitions = [partition("t", 0), partition("u", 1), partition("__consumer_offsets", 9)];
    let expected = Transaction { partitions: partitions.into(), ..ongoing() };
    assert_eq!(record.transaction(), Some(&expected));
    let (key, value) = record.encode().expect("the record fits");
    assert_eq!(value.as_ref().map(Bytes::len), Some(SEVERAL_TOPICS.len() / 2));
    assert_eq!(Record::decode(key, value), Ok(record));
}

#[test]
fn tombstones() {
    let record = Record::decode(bytes(KEY), None).expect("a tombstone can be read");
    assert_eq!(record.transaction(), None);
    assert_eq!(record.encode().expect("the record fits"), (bytes(KEY), None));
}

#[test]
fn unknown_records_are_passed_over_and_damaged_ones_reported() {
    let ids = Arc::new(Counting::default());
    let mut shard = TransactionCoordinator::new(TransactionSettings::default(), ids, 0);
    assert_eq!(shard.replay(bytes("0001000474782d31"), None, Offset(0)), Ok(false));
    assert_eq!(shard.replay(bytes(KEY), Some(bytes("0002")), Offset(1)), Ok(false));
    let state = |number: &str| EMPTY.replace("ea6000", &format!("ea60{number}"));
    assert_eq!(decode(&state("06")), Err(RecordError::UnknownState(6)));
    assert_eq!(decode(&state("ff")), Err(RecordError::UnknownState(-1)));
    let client = ONGOING.replace("02020002", "02020003");
    assert_eq!(decode(&client), Err(RecordError::UnknownClientVersion(3)));
    for length in (2..ONGOING.len()).step_by(2) {
        let cut = Some(bytes(&ONGOING[..length]));
        let outcome = shard.replay(bytes(KEY), cut, Offset(2));
        assert!(matches!(outcome, Err(RecordError::Damaged(_))), "{length} digits were taken");
    }
    for damaged in ["", "00", "0000", "00000005", "0000ffff"] {
        let outcome = shard.replay(bytes(damaged), None, Offset(2));
        assert!(matches!(outcome, Err(RecordError::Damaged(_))), "{damaged} was taken for a key");
    }
    assert_eq!(shard.next_offset(), None, "nothing was applied");
}

#[test]
fn a_loading_shard_asks_for_patience_and_then_finishes_what_kafka_began() {
    let ids = Arc::new(Counting::default());
    let mut shard = TransactionCoordinator::new(TransactionSettings::default(), ids, 5);
    assert_eq!(shard.replay(bytes(KEY), Some(bytes(PREPARED)), Offset(9)), Ok(true));
    assert_eq!(shard.describe("tx-1"), Err(TransactionError::LoadInProgress));
    let step = shard.handle_loaded(Now { wall: TimestampMs(AT), monotonic_ms: 0 });
    assert!(step.writes.is_empty());
    let [Effect::WriteMarkers { markers, after: Some(Offset(10)) }] = &step.effects[..] else {
        panic!("markers are due, once the log is durable: {:?}", step.effects);
    };
    assert_eq!(markers.key.producer, producer(7, i16::MAX));
    assert_eq!((markers.key.coordinator_epoch, markers.key.decision), (5, Decision::Commit));
    assert_eq!(markers.version, TransactionVersion::V2);
    assert_eq!(markers.partitions, [partition("t", 1)]);
    let step = shard.handle_unload(Now { wall: TimestampMs(AT), monotonic_ms: 0 });
    assert!(step.effects.is_empty() && step.writes.is_empty());
    assert_eq!(shard.describe("tx-1"), Err(TransactionError::NotCoordinator));
    assert_eq!(shard.next_deadline(), None);
}

/// Lets a shard go on with everything it wants written, as if all were well.
fn carry_out(shard: &mut TransactionCoordinator, now: Now, step: Step) {
    let mut steps = vec![step];
    while let Some(step) = steps.pop() {
        for write in step.writes {
            let base = shard.next_offset().expect("the log is not empty");
            steps.push(shard.handle_appended(now, write, base));
        }
        for effect in step.effects {
            if let Effect::WriteMarkers { markers, .. } = effect {
                let outcome = MarkerOutcome::Written;
                let told: Vec<_> = markers.partitions.into_iter().map(|p| (p, outcome)).collect();
                steps.push(shard.handle_markers(now, &markers.key, &told));
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_no_danger(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        is_key in any::<bool>(),
    ) {
        let bytes = Bytes::from(bytes);
        let outcome = match is_key {
            true => Record::decode(bytes, None),
            false => Record::decode(Bytes::from_static(b"\0\0\0\x01x"), Some(bytes)),
        };
        if let Ok(record) = outcome {
            let (key, value) = record.encode().expect("what was read can be written");
            prop_assert_eq!(Record::decode(key, value), Ok(record));
        }
    }

    /// Nonsense that is well formed may be treated anyhow, as long as the shard survives.
    #[test]
    fn logs_with_nonsense_are_survived(
        which in 0_usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        decision in prop_oneof![Just(Decision::Commit), Just(Decision::Abort)],
        wall_ms in prop_oneof![Just(AT), Just(i64::MAX), Just(i64::MIN)],
        is_new in any::<bool>(),
    ) {
        let value = [EMPTY, ONGOING, PREPARED, COMPLETED, ONGOING_V0][which];
        let mut value = bytes(value).to_vec();
        for (index, byte) in changes {
            let index = index.index(value.len() - 2) + 2;
            value[index] = byte;
        }
        let ids = Arc::new(Counting::default());
        let mut shard = TransactionCoordinator::new(TransactionSettings::default(), ids, 0);
        let is_taken = shard.replay(bytes(KEY), Some(value.into()), Offset(0));
        if is_taken != Ok(true) {
            return Ok(());
        }
        let now = Now { wall: TimestampMs(wall_ms), monotonic_ms: 0 };
        let step = shard.handle_loaded(now);
        carry_out(&mut shard, now, step);
        let later = Now { monotonic_ms: 4_000_000, ..now };
        let step = shard.tick(later);
        carry_out(&mut shard, later, step);
        let Ok(known) = shard.describe("tx-1") else { return Ok(()) };
        let client_version =
            if is_new { TransactionVersion::V2 } else { TransactionVersion::V0 };
        for (token, expected) in [(1, None), (2, Some(known.producer))] {
            let step = shard.handle_init_producer_id(later, Token(token), &InitRequest {
                transactional_id: "tx-1".into(),
                timeout_ms: 1,
                expected,
                knows_producer_fenced: true,
            });
            carry_out(&mut shard, later, step);
        }
        let producer = shard.describe("tx-1").expect("the id is used").producer;
        let step = shard.handle_add_partitions(later, Token(3), &AddPartitionsRequest {
            transactional_id: "tx-1".into(),
            producer,
            partitions: vec![partition("t", -1)],
            client_version,
            knows_producer_fenced: true,
        });
        carry_out(&mut shard, later, step);
        let step = shard.handle_end_transaction(later, Token(4), &EndRequest {
            transactional_id: "tx-1".into(),
            producer,
            decision,
            client_version,
            knows_producer_fenced: true,
        });
        carry_out(&mut shard, later, step);
        let state = shard.describe("tx-1").expect("the id is used").state;
        prop_assert!(state.decision().is_none(), "{:?} hangs", state);
    }
}

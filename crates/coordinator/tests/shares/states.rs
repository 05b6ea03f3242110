//! The states of share-partitions: formats, fencing, snapshots, and replay.

use fleuve_coordinator::share_partition::{RecordState, StoredBatch};
use fleuve_coordinator::share_state::{
    ShareCoordinator, ShareKey, ShareStateError, ShareStateRecord, ShareStateSettings, Written,
};
use fleuve_protocol::Str;
use fleuve_types::{Offset, TimestampMs, Uuid};
use proptest::prelude::*;

fn key(group: &str, partition: i32) -> ShareKey {
    ShareKey { group: Str::copy_from(group), topic_id: Uuid([7; 16]), partition }
}

fn written(start: i64, batches: &[(i64, i64, RecordState, i16)]) -> Written {
    let batches = batches.iter().map(|(first, last, state, delivery_count)| StoredBatch {
        first: *first,
        last: *last,
        state: *state,
        delivery_count: *delivery_count,
    });
    Written {
        state_epoch: 1,
        leader_epoch: 0,
        start_offset: start,
        delivery_complete_count: 0,
        batches: batches.collect(),
    }
}

/// A machine and its log.
struct Shard {
    machine: ShareCoordinator,
    log: Vec<ShareStateRecord>,
    settings: ShareStateSettings,
}

impl Shard {
    fn new(updates_per_snapshot: u32) -> Self {
        let settings = ShareStateSettings { updates_per_snapshot, cold_after_ms: 1_000 };
        Self { machine: ShareCoordinator::new(settings), log: Vec::new(), settings }
    }

    fn append(&mut self, record: ShareStateRecord) {
        let (key, value) = record.encode().expect("the record fits its format");
        let read = ShareStateRecord::decode(key, value).expect("the record can be read back");
        assert_eq!(read, record, "a record changed on its way through the log");
        self.machine.apply(&record, Offset(self.log.len() as i64));
        self.log.push(record);
    }

    /// A machine that has read the log from `start` on.
    fn replayed(&self, start: usize) -> ShareCoordinator {
        let mut machine = ShareCoordinator::new(self.settings);
        for (offset, record) in self.log.iter().enumerate().skip(start) {
            let (key, value) = record.encode().expect("it was written before");
            let known = machine.replay(key, value, Offset(offset as i64));
            assert!(known.expect("it can be read"));
        }
        machine
    }
}

#[test]
fn older_epochs_are_fenced() {
    let mut shard = Shard::new(500);
    let key = key("g", 0);
    let now = TimestampMs(5);
    assert_eq!(
        shard.machine.write(&key, &written(0, &[]), now),
        Err(ShareStateError::Uninitialized)
    );
    shard.append(shard.machine.initialize(&key, 3, -1, now).expect("it is new"));
    assert_eq!(
        shard.machine.write(&key, &written(0, &[]), now),
        Err(ShareStateError::FencedStateEpoch)
    );
    assert_eq!(shard.machine.initialize(&key, 2, 0, now), Err(ShareStateError::FencedStateEpoch));
    let (state, noted) = shard.machine.read(&key, 4, now).expect("it is known");
    assert_eq!(state.start_offset, -1);
    let noted = noted.expect("the leader is new");
    shard.append(noted);
    assert_eq!(shard.machine.read(&key, 3, now).err(), Some(ShareStateError::FencedLeaderEpoch));
    let again = shard.machine.read(&key, 4, now).expect("it is known").1;
    assert_eq!(again, None);
    let late = Written { state_epoch: 3, leader_epoch: 3, ..written(0, &[]) };
    assert_eq!(shard.machine.write(&key, &late, now), Err(ShareStateError::FencedLeaderEpoch));
}

#[test]
fn snapshots_make_what_is_before_them_redundant() {
    let mut shard = Shard::new(2);
    let now = TimestampMs(0);
    let (hot, cold) = (key("g", 0), key("g", 1));
    shard.append(shard.machine.initialize(&hot, 1, 0, now).expect("it is new"));
    shard.append(shard.machine.initialize(&cold, 1, 0, now).expect("it is new"));
    let states = [RecordState::Acknowledged, RecordState::Archived, RecordState::Available];
    for at in 0..8 {
        let state = states[at as usize % 3];
        let record =
            shard.machine.write(&hot, &written(0, &[(at * 10, at * 10 + 4, state, 1)]), now);
        shard.append(record.expect("the epochs are right"));
    }
    let kinds: Vec<bool> = shard.log[2..]
        .iter()
        .map(|record| matches!(record, ShareStateRecord::Snapshot { .. }))
        .collect();
    assert_eq!(kinds, [false, false, true, false, false, true, false, false]);
    assert_eq!(shard.machine.redundant_below(), Offset(1), "the cold one holds the log");
    assert_eq!(shard.machine.cold_snapshots(TimestampMs(999)), []);
    for record in shard.machine.cold_snapshots(TimestampMs(1_000)) {
        shard.append(record);
    }
    let redundant = shard.machine.redundant_below().0 as usize;
    assert!(redundant >= 10, "only {redundant} records are redundant");
    assert_eq!(shard.replayed(redundant), shard.machine);
}

#[test]
fn what_is_deleted_is_forgotten() {
    let mut shard = Shard::new(500);
    let now = TimestampMs(0);
    for partition in 0..3 {
        let begun = shard.machine.initialize(&key("g", partition), 1, 0, now);
        shard.append(begun.expect("it is new"));
    }
    assert_eq!(shard.machine.delete(&key("h", 0)), None);
    let gone = shard.machine.delete(&key("g", 1)).expect("it is known");
    shard.append(gone);
    assert_eq!(shard.machine.summary(&key("g", 1)), None);
    let rest = shard.machine.forget_topic(Uuid([7; 16]));
    assert_eq!(rest.len(), 2);
    rest.into_iter().for_each(|record| shard.append(record));
    assert_eq!(shard.machine.groups().count(), 0);
    assert_eq!(shard.machine.redundant_below(), Offset(shard.log.len() as i64));
    assert_eq!(shard.replayed(0), shard.machine);
}

fn state() -> impl Strategy<Value = RecordState> {
    prop_oneof![
        Just(RecordState::Available),
        Just(RecordState::Acknowledged),
        Just(RecordState::Archived)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A machine that reads the log, or only what is not redundant of it, knows what the one knows
    /// that wrote it.
    #[test]
    fn replay_equals_live(
        updates_per_snapshot in 0u32..5,
        events in proptest::collection::vec(
            (0u8..10, 0i32..3, -1i64..40, 0i64..40, 0i64..10, state(), 1i16..4),
            1..60,
        ),
    ) {
        let mut shard = Shard::new(updates_per_snapshot);
        for (at, (what, partition, start, first, length, state, count)) in events.into_iter().enumerate() {
            let now = TimestampMs(at as i64 * 100);
            let key = key("g", partition);
            let records = match what {
                0 => shard.machine.initialize(&key, 1, start, now).into_iter().collect(),
                1 => shard.machine.delete(&key).into_iter().collect(),
                2 => shard.machine.cold_snapshots(now),
                3 => shard.machine.read(&key, i32::from(count), now).ok()
                    .and_then(|(_, record)| record).into_iter().collect(),
                _ => {
                    let mut written = written(start, &[(first, first + length, state, count)]);
                    written.leader_epoch = -1;
                    shard.machine.write(&key, &written, now).into_iter().collect::<Vec<_>>()
                }
            };
            records.into_iter().for_each(|record| shard.append(record));
            prop_assert_eq!(&shard.replayed(0), &shard.machine);
            let redundant = shard.machine.redundant_below().0 as usize;
            let short = shard.replayed(redundant);
            for partition in 0..3 {
                prop_assert_eq!(
                    short.read(&self::key("g", partition), -1, now),
                    shard.machine.read(&self::key("g", partition), -1, now)
                );
            }
        }
    }
}

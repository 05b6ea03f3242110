//! A share-partition against a model that keeps every record by itself.
//!
//! The model says what each record is; the machine's runs must say the same after every step. What
//! was written down is kept like `__share_group_state` would, so that a restart can be had at any
//! moment: nothing acknowledged may come back then, and nothing else may be lost.

use std::collections::BTreeMap;

use fleuve_coordinator::share_partition::{
    Acknowledge, AcknowledgementBatch, Acquire, AcquireMode, Acquired, Change, Fetched,
    RecordState, SharePartition, StoredBatch, Terms,
};
use fleuve_coordinator::share_state::{ShareCoordinator, ShareKey, ShareStateSettings, Written};
use fleuve_protocol::Str;
use fleuve_types::{Offset, TimestampMs, Uuid};
use proptest::prelude::*;

const MEMBERS: [&str; 3] = ["a", "b", "c"];
const LOCK_MS: i64 = 100;
const COUNT_MAX: i16 = 5;
const LOCKS_MAX: i64 = 40;

#[derive(Clone, Debug)]
enum Event {
    /// Batches of these sizes are appended; a negative size is a batch that no consumer sees.
    Append(Vec<i64>),
    /// A hole, as compaction leaves it.
    Hole(i64),
    Acquire {
        member: usize,
        records: i64,
        strict: bool,
    },
    /// Answers for some of what the member has: how many records to pass over, how many to answer.
    Answer {
        member: usize,
        skip: usize,
        take: usize,
        kinds: Vec<Acknowledge>,
    },
    Release {
        member: usize,
    },
    Wait {
        ms: i64,
    },
    Trim {
        by: i64,
    },
    Restart,
}

#[derive(Clone, Debug, PartialEq)]
struct Model {
    state: RecordState,
    count: i16,
    holder: Option<(usize, i64)>,
}

struct World {
    log: Vec<Fetched>,
    end: i64,
    log_start: i64,
    now_ms: i64,
    machine: SharePartition,
    /// Records that exist and consumers see.
    records: BTreeMap<i64, Model>,
    stored: ShareCoordinator,
    offset: i64,
    key: ShareKey,
}

fn kind() -> impl Strategy<Value = Acknowledge> {
    prop_oneof![
        3 => Just(Acknowledge::Accept),
        2 => Just(Acknowledge::Release),
        1 => Just(Acknowledge::Reject),
        1 => Just(Acknowledge::Gap),
        1 => Just(Acknowledge::Renew),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let member = 0..MEMBERS.len();
    prop_oneof![
        2 => proptest::collection::vec(prop_oneof![4 => 1i64..12, 1 => -2i64..0], 1..3)
            .prop_map(Event::Append),
        1 => (1i64..5).prop_map(Event::Hole),
        5 => (member.clone(), 1i64..15, any::<bool>())
            .prop_map(|(member, records, strict)| Event::Acquire { member, records, strict }),
        6 => (member.clone(), 0usize..4, 1usize..12, proptest::collection::vec(kind(), 1..6))
            .prop_map(|(member, skip, take, kinds)| Event::Answer { member, skip, take, kinds }),
        1 => member.prop_map(|member| Event::Release { member }),
        2 => (1i64..80).prop_map(|ms| Event::Wait { ms }),
        1 => (1i64..20).prop_map(|by| Event::Trim { by }),
        1 => Just(Event::Restart),
    ]
}

impl World {
    fn new() -> Self {
        let settings = ShareStateSettings { updates_per_snapshot: 3, ..Default::default() };
        let mut stored = ShareCoordinator::new(settings);
        let key = ShareKey { group: "g".into(), topic_id: Uuid([1; 16]), partition: 0 };
        let begun = stored.initialize(&key, 1, 0, TimestampMs(0)).expect("nothing is known yet");
        stored.apply(&begun, Offset(0));
        Self {
            log: Vec::new(),
            end: 0,
            log_start: 0,
            now_ms: 0,
            machine: SharePartition::load(0, &[]),
            records: BTreeMap::new(),
            stored,
            offset: 1,
            key,
        }
    }

    fn append(&mut self, size: i64) {
        let (first, last) = (self.end, self.end + size.abs() - 1);
        self.log.push(Fetched { first, last, is_deliverable: size > 0 });
        self.end = last + 1;
        if size > 0 {
            let fresh = Model { state: RecordState::Available, count: 0, holder: None };
            self.records.extend((first..=last).map(|offset| (offset, fresh.clone())));
        }
    }

    fn acquire(&mut self, member: usize, records: i64, mode: AcquireMode) -> Vec<Acquired> {
        let fetch_offset = self.machine.fetch_offset();
        if !self.machine.can_acquire(LOCKS_MAX) {
            return Vec::new();
        }
        let from = self.log.partition_point(|batch| batch.last < fetch_offset);
        let fetched: Vec<Fetched> = self.log[from..].iter().take(4).copied().collect();
        let deadline_ms = self.now_ms + LOCK_MS;
        let name = Str::from(MEMBERS[member]);
        let before = self.machine.in_flight();
        let request = Acquire {
            member: &name,
            mode,
            records_max: records,
            batch_size: 5,
            locks_max: LOCKS_MAX,
            delivery_count_max: COUNT_MAX,
            deadline_ms,
            fetch_offset,
        };
        let acquired = self.machine.acquire(&request, &fetched);
        let mut count = 0;
        for piece in &acquired {
            for offset in piece.first..=piece.last {
                let known = self.records.get_mut(&offset).expect("only records are acquired");
                assert_eq!(known.state, RecordState::Available, "offset {offset}");
                *known = Model {
                    state: RecordState::Acquired,
                    count: known.count + 1,
                    holder: Some((member, deadline_ms)),
                };
                assert_eq!(known.count, piece.delivery_count, "offset {offset}");
                count += 1;
            }
        }
        if mode == AcquireMode::RecordLimit {
            assert!(count <= records, "{count} records where {records} are the limit");
            // Holes and control batches come on top.
            assert!(before < LOCKS_MAX || self.machine.in_flight() <= before);
        }
        acquired
    }

    /// Writes a change down as the broker does, and takes it in.
    fn carry_out(&mut self, change: &Change) {
        if !change.is_soft() {
            let written = Written {
                state_epoch: 1,
                leader_epoch: 0,
                start_offset: change.start,
                delivery_complete_count: change.delivery_complete_count,
                batches: change.to_write(),
            };
            let record = self.stored.write(&self.key, &written, TimestampMs(self.now_ms));
            self.stored.apply(&record.expect("the epochs are right"), Offset(self.offset));
            self.offset += 1;
        }
        self.machine.apply(change);
        if !change.is_soft() {
            assert_eq!(self.machine.start_offset(), change.start, "the start was foreseen");
            let complete = self.machine.delivery_complete_count();
            assert_eq!(complete, change.delivery_complete_count, "so was the count");
        }
    }

    fn give_back(&mut self, is_meant: impl Fn(usize, i64) -> bool) {
        for known in self.records.values_mut() {
            if known.holder.is_some_and(|(member, deadline)| is_meant(member, deadline)) {
                known.state = returned(known.count);
                known.holder = None;
            }
        }
    }

    fn answer(&mut self, member: usize, skip: usize, take: usize, kinds: &[Acknowledge]) {
        let held = self
            .records
            .iter()
            .filter(|(_, known)| known.holder.is_some_and(|(holder, _)| holder == member));
        let offsets: Vec<i64> = held.map(|(offset, _)| *offset).skip(skip).take(take).collect();
        let Some((first, rest)) = offsets.split_first() else { return };
        let run =
            rest.iter().enumerate().take_while(|(at, offset)| **offset == first + *at as i64 + 1);
        let last = run.last().map_or(*first, |(_, offset)| *offset);
        let length = (last - first + 1) as usize;
        let types: Vec<Acknowledge> = match kinds {
            [only] => vec![*only],
            many => many.iter().cycle().take(length).copied().collect(),
        };
        let batch = AcknowledgementBatch { first: *first, last, types: types.clone() };
        let renew_until_ms = Some(self.now_ms + LOCK_MS);
        let terms = Terms { delivery_count_max: COUNT_MAX, renew_until_ms };
        let stranger = Str::from(MEMBERS[(member + 1) % MEMBERS.len()]);
        let refused = self.machine.acknowledge(&stranger, std::slice::from_ref(&batch), terms);
        assert!(refused.is_err(), "a stranger may not answer");
        let name = Str::from(MEMBERS[member]);
        let change = self.machine.acknowledge(&name, &[batch], terms).expect("it has them");
        self.carry_out(&change);
        for (at, offset) in (*first..=last).enumerate() {
            let known = self.records.get_mut(&offset).expect("it is a record");
            let kind = if types.len() == 1 { types[0] } else { types[at] };
            let state = match kind {
                Acknowledge::Accept => RecordState::Acknowledged,
                Acknowledge::Gap | Acknowledge::Reject => RecordState::Archived,
                Acknowledge::Release => returned(known.count),
                Acknowledge::Renew => {
                    known.holder = Some((member, self.now_ms + LOCK_MS));
                    continue;
                }
            };
            *known = Model { state, count: known.count, holder: None };
        }
    }

    fn restart(&mut self) {
        let (state, _) = self.stored.read(&self.key, 0, TimestampMs(0)).expect("it is known");
        self.machine = SharePartition::load(state.start_offset, &state.batches);
        self.machine.handle_log_start(self.log_start);
        for known in self.records.values_mut() {
            if known.holder.take().is_some() {
                known.state = RecordState::Available;
            }
        }
        // Only what was answered for has been written down, so counts may have been higher.
        let counts = self.machine.stored();
        for (offset, known) in &mut self.records {
            let batch = counts.iter().find(|batch| (batch.first..=batch.last).contains(offset));
            if known.state == RecordState::Available {
                known.count = batch.map_or(0, |batch| batch.delivery_count);
            }
        }
    }

    fn check(&self) {
        let start = self.machine.start_offset();
        let next = self.machine.next_offset();
        assert!(self.log_start <= start || next == start, "the start is in the log");
        let mut expected = start;
        let mut states: BTreeMap<i64, StoredBatch> = BTreeMap::new();
        for batch in self.machine.stored() {
            assert_eq!(batch.first, expected, "runs tile the range");
            states.insert(batch.first, batch);
            expected = batch.last + 1;
        }
        assert_eq!(expected, next);
        for (offset, known) in &self.records {
            if *offset < start {
                let is_trimmed = *offset < self.log_start;
                assert!(known.state.is_terminal() || is_trimmed, "{offset} was passed: {known:?}");
                continue;
            }
            if *offset >= next {
                assert_eq!((known.state, known.count), (RecordState::Available, 0), "{offset}");
                continue;
            }
            let (_, batch) = states.range(..=offset).next_back().expect("runs tile the range");
            assert_eq!(batch.state, known.state, "{offset}");
            if !known.state.is_terminal() {
                assert_eq!(batch.delivery_count, known.count, "{offset}");
            }
            let holder = known.holder.map(|(member, _)| MEMBERS[member]);
            assert_eq!(self.machine.holder(*offset).map(Str::as_str), holder, "{offset}");
        }
    }
}

fn returned(count: i16) -> RecordState {
    if count >= COUNT_MAX { RecordState::Archived } else { RecordState::Available }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_record_is_lost_or_comes_back(events in proptest::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Append(sizes) => sizes.into_iter().filter(|size| *size != 0)
                    .for_each(|size| world.append(size)),
                Event::Hole(size) => world.end += size,
                Event::Acquire { member, records, strict } => {
                    let mode = if strict { AcquireMode::RecordLimit } else { AcquireMode::BatchOptimized };
                    world.acquire(member, records, mode);
                }
                Event::Answer { member, skip, take, kinds } => {
                    world.answer(member, skip, take, &kinds);
                }
                Event::Release { member } => {
                    let change = world.machine.release(MEMBERS[member], COUNT_MAX);
                    world.carry_out(&change);
                    world.give_back(|holder, _| holder == member);
                }
                Event::Wait { ms } => {
                    world.now_ms += ms;
                    let now_ms = world.now_ms;
                    let change = world.machine.expire(now_ms, COUNT_MAX);
                    world.carry_out(&change);
                    world.give_back(|_, deadline| deadline <= now_ms);
                    prop_assert!(world.machine.next_deadline().is_none_or(|at| at > now_ms));
                }
                Event::Trim { by } => {
                    world.log_start = (world.log_start + by).min(world.end);
                    let log_start = world.log_start;
                    world.log.retain(|batch| batch.last >= log_start);
                    world.machine.handle_log_start(log_start);
                    world.records.retain(|offset, _| *offset >= log_start);
                }
                Event::Restart => world.restart(),
            }
            world.check();
        }
        // Whoever goes on accepting gets to the end, each record at most once from here on.
        world.now_ms += LOCK_MS;
        let now_ms = world.now_ms;
        let change = world.machine.expire(now_ms, COUNT_MAX);
        world.carry_out(&change);
        world.give_back(|_, deadline| deadline <= now_ms);
        for _ in 0..2_000 {
            if world.records.values().all(|known| known.state.is_terminal()) {
                break;
            }
            world.acquire(0, 10, AcquireMode::BatchOptimized);
            world.answer(0, 0, usize::MAX, &[Acknowledge::Accept]);
            world.check();
        }
        prop_assert!(world.records.values().all(|known| known.state.is_terminal()));
    }
}

#[test]
fn records_that_come_back_often_are_delivered_in_ever_smaller_pieces() {
    let mut world = World::new();
    world.append(8);
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let acquired = world.acquire(0, 100, AcquireMode::BatchOptimized);
        sizes.push(acquired.iter().map(|piece| piece.last - piece.first + 1).sum::<i64>());
        let change = world.machine.release(MEMBERS[0], COUNT_MAX);
        world.carry_out(&change);
        world.give_back(|holder, _| holder == 0);
        world.check();
    }
    assert_eq!(sizes, [8, 8, 8, 4, 1]);
    assert_eq!(world.machine.start_offset(), 1, "the first was delivered five times");
}

#[test]
fn new_records_are_handed_out_in_pieces_along_batches() {
    let mut world = World::new();
    [4, 4, 4].into_iter().for_each(|size| world.append(size));
    let pieces = world.acquire(0, 12, AcquireMode::BatchOptimized);
    let bounds: Vec<_> = pieces.iter().map(|piece| (piece.first, piece.last)).collect();
    assert_eq!(bounds, [(0, 7), (8, 11)]);
}

#[test]
fn whole_batches_are_acquired_unless_the_limit_is_strict() {
    let mut world = World::new();
    world.append(9);
    let strict = world.acquire(0, 3, AcquireMode::RecordLimit);
    assert_eq!((strict[0].first, strict[0].last), (0, 2));
    let whole = world.acquire(1, 3, AcquireMode::BatchOptimized);
    assert_eq!((whole[0].first, whole[0].last), (3, 8));
}

//! A log against a list: whatever is done to both, they answer alike.

mod common;

use common::{Machine, NOW_MS, Spec, append, put, records_from};
use fleuve_protocol::records::Compression;
use fleuve_sim::Crash;
use fleuve_storage::{Log, LogConfig};
use fleuve_types::{Offset, TimestampMs};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Append { count: usize, size: usize, age_ms: i64, codec: Compression },
    Read { offset: u64 },
    FindTime { age_ms: i64 },
    Truncate { offset: u64 },
    StartAt { offset: i64 },
    DeleteRecords { offset: u64 },
    Retain,
    Roll,
    Flush,
    Checkpoint,
    CloseAndReopen,
    Crash { seed: Option<u64> },
}

fn step() -> impl Strategy<Value = Step> {
    let codec = prop::sample::select(Compression::ALL.to_vec());
    prop_oneof![
        12 => (1..5usize, 0..300usize, 0..1000i64, codec)
            .prop_map(|(count, size, age_ms, codec)| Step::Append { count, size, age_ms, codec }),
        6 => any::<u64>().prop_map(|offset| Step::Read { offset }),
        4 => (-100..1100i64).prop_map(|age_ms| Step::FindTime { age_ms }),
        1 => any::<u64>().prop_map(|offset| Step::Truncate { offset }),
        1 => (0..50i64).prop_map(|offset| Step::StartAt { offset }),
        2 => any::<u64>().prop_map(|offset| Step::DeleteRecords { offset }),
        2 => Just(Step::Retain),
        2 => Just(Step::Roll),
        2 => Just(Step::Flush),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::CloseAndReopen),
        1 => prop::option::of(any::<u64>()).prop_map(|seed| Step::Crash { seed }),
    ]
}

/// A record as the list remembers it.
#[derive(Clone, Debug, PartialEq)]
struct Remembered {
    offset: i64,
    value: Vec<u8>,
    timestamp: i64,
    /// Offset of the first record of its batch: truncation takes whole batches.
    batch: i64,
}

struct Model {
    records: Vec<Remembered>,
    log_start: i64,
    log_end: i64,
}

impl Model {
    /// Takes over from the log what a crash or deletion left open, after checking that it may be.
    fn adopt(&mut self, log: &Log, durable: i64) {
        let (start, end) = (log.log_start_offset().0, log.log_end_offset().0);
        assert!((durable.min(self.log_end)..=self.log_end.max(start)).contains(&end), "{end}");
        self.log_start = start;
        self.log_end = end;
        self.records.retain(|record| record.offset < end && record.offset >= start);
    }

    fn readable(&self) -> Vec<(i64, Vec<u8>)> {
        let readable = self.records.iter().filter(|record| record.offset >= self.log_start);
        readable.map(|record| (record.offset, record.value.clone())).collect()
    }

    fn offset(&self, choice: u64) -> i64 {
        self.log_start + (choice % (self.log_end - self.log_start + 1) as u64) as i64
    }
}

fn run(steps: Vec<Step>) {
    let config = LogConfig {
        segment_bytes: 3000,
        index_interval_bytes: 150,
        retention_bytes: Some(6000),
        ..LogConfig::default()
    };
    let mut machine = Machine::new(config).with_tail_cache(4000);
    let mut log = machine.open();
    let mut model = Model { records: Vec::new(), log_start: 0, log_end: 0 };
    // What the broker keeps in checkpoint files.
    let (mut recovery_point, mut stored_start) = (0, 0);
    for step in steps {
        match step {
            Step::Append { count, size, age_ms, codec } => {
                let values: Vec<Vec<u8>> =
                    (0..count).map(|index| vec![(size + index) as u8; size]).collect();
                let timestamp = NOW_MS - age_ms;
                let spec = Spec { codec, ..Spec::bytes(values.clone()).at(timestamp) };
                let first = put(&mut log, &spec);
                assert_eq!(first, model.log_end);
                for (index, value) in values.into_iter().enumerate() {
                    let (offset, timestamp) = (first + index as i64, timestamp + index as i64);
                    model.records.push(Remembered { offset, value, timestamp, batch: first });
                }
                model.log_end += count as i64;
            }
            Step::Read { offset } => {
                let offset = model.offset(offset);
                let mut expected = model.readable();
                expected.retain(|(found, _)| *found >= offset);
                assert_eq!(records_from(&mut log, offset), expected);
            }
            Step::FindTime { age_ms } => {
                let timestamp = NOW_MS - age_ms;
                let expected = model
                    .records
                    .iter()
                    .find(|record| {
                        record.offset >= model.log_start && record.timestamp >= timestamp
                    })
                    .map(|record| (record.offset, record.timestamp));
                let found = log.offset_for_timestamp(TimestampMs(timestamp)).unwrap();
                assert_eq!(found.map(|found| (found.offset.0, found.timestamp.0)), expected);
            }
            Step::Truncate { offset } => {
                // At a batch, as a follower does.
                let offset = model.offset(offset);
                let offset = model
                    .records
                    .iter()
                    .find(|record| record.offset == offset)
                    .map_or(offset, |record| record.batch);
                log.truncate_to(Offset(offset)).unwrap();
                model.records.retain(|record| record.offset < offset);
                model.log_end = offset;
                model.log_start = model.log_start.min(offset);
                recovery_point = offset.min(recovery_point);
                stored_start = offset.min(stored_start);
            }
            Step::StartAt { offset } => {
                let offset = model.log_end + offset;
                log.truncate_fully_and_start_at(Offset(offset)).unwrap();
                model = Model { records: Vec::new(), log_start: offset, log_end: offset };
            }
            Step::DeleteRecords { offset } => {
                let offset = model.offset(offset);
                log.delete_records_to(Offset(offset)).unwrap();
                model.log_start = offset;
                stored_start = offset;
            }
            Step::Retain => {
                let size = log.size().unwrap();
                let deleted = log.enforce_retention(Offset(model.log_end)).unwrap();
                assert!(log.size().unwrap() >= 6000.min(size) || model.log_start > 0);
                if deleted > 0 {
                    let end = model.log_end;
                    model.adopt(&log, end);
                }
            }
            Step::Roll => log.roll().unwrap(),
            Step::Flush => assert_eq!(log.flush().unwrap().0, model.log_end),
            Step::Checkpoint => recovery_point = log.checkpoint().unwrap().0,
            Step::CloseAndReopen => {
                log.close().unwrap();
                machine.restart();
                let options = fleuve_storage::OpenOptions {
                    had_clean_shutdown: true,
                    recovery_point: log.recovery_point(),
                    log_start: Offset(model.log_start),
                    ..machine.options()
                };
                recovery_point = log.recovery_point().0;
                log = Log::open(&machine.environment, options).unwrap().0;
                model.adopt(&log, model.log_end);
            }
            Step::Crash { seed } => {
                let durable = log.flushed_offset().0;
                let crash = seed.map_or(Crash::LoseUnsynced, |seed| Crash::KeepRandom { seed });
                machine.disk.crash(crash);
                machine.restart();
                let options = fleuve_storage::OpenOptions {
                    recovery_point: Offset(recovery_point.min(durable)),
                    log_start: Offset(stored_start.min(durable)),
                    ..machine.options()
                };
                let (reopened, recovery) = Log::open(&machine.environment, options).unwrap();
                assert!(!recovery.lost_synced_records);
                log = reopened;
                // Deletions are not synced: what they took may be back.
                let kept = model.records.first().map_or(model.log_end, |record| record.offset);
                if log.log_start_offset().0 < kept {
                    log.delete_records_to(Offset(kept.min(log.log_end_offset().0))).unwrap();
                }
                model.adopt(&log, durable);
            }
        }
        assert_eq!(log.log_start_offset().0, model.log_start);
        assert_eq!(log.log_end_offset().0, model.log_end);
    }
    assert_eq!(records_from(&mut log, model.log_start), model.readable());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_behaves_like_a_list(steps in prop::collection::vec(step(), 1..120)) {
        run(steps);
    }
}

/// Idempotent producers that retry at random, against a log that restarts at random: every batch
/// is in the log once, in order.
#[test]
fn retries_never_duplicate_and_never_reorder() {
    use fleuve_os::Random;
    for seed in 0..50 {
        let random = fleuve_sim::SimRandom::seeded(seed);
        let config = LogConfig { segment_bytes: 1500, ..LogConfig::default() };
        let mut machine = Machine::new(config);
        let mut log = machine.open();
        let mut next_sequence = [0i32; 3];
        for _ in 0..150 {
            let id = random.below(3) as usize;
            let sequence = next_sequence[id];
            let value = format!("{id}:{sequence}");
            let spec = Spec::values(&[&value]).from(id as i64, 0, sequence);
            let appended = append(&mut log, &spec).unwrap();
            assert!(!appended.is_duplicate);
            for _ in 0..random.below(3) {
                let again = append(&mut log, &spec).unwrap();
                assert!(again.is_duplicate);
                assert_eq!(again.first_offset, appended.first_offset);
            }
            next_sequence[id] += 1;
            if random.once_in(20) {
                let clean = random.once_in(2);
                if clean {
                    log.close().unwrap();
                }
                machine.restart();
                log = machine.try_open(clean, 0).unwrap().0;
            }
        }
        let mut seen = [0; 3];
        for (_, value) in records_from(&mut log, 0) {
            let value = String::from_utf8(value).unwrap();
            let (id, sequence) = value.split_once(':').unwrap();
            let id: usize = id.parse().unwrap();
            assert_eq!(sequence.parse(), Ok(seen[id]), "seed {seed}");
            seen[id] += 1;
        }
        assert_eq!(seen, next_sequence, "seed {seed}");
    }
}

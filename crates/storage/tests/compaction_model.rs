//! Compaction against a model that remembers everything.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Machine, NOW_MS, batches_from};
use fleuve_os::Clock;
use fleuve_protocol::records::{
    BatchBuilder, BatchOptions, BatchProducer, Compression, Decompressor, NewRecord, RecordIter,
};
use fleuve_storage::{Append, Cleaner, CleanerOptions, CleanupPolicy, Log, LogConfig};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use proptest::prelude::*;

const DELETE_RETENTION_MS: i64 = 10_000;
const MIN_LAG_MS: i64 = 2_000;

#[derive(Clone, Debug)]
enum Step {
    /// Records by key, each a value or a tombstone.
    Append {
        records: Vec<(u8, Option<u8>)>,
        codec: Compression,
        producer: Option<i64>,
    },
    Roll,
    /// With room for this many keys.
    Clean {
        keys_max: usize,
    },
    Wait {
        ms: u64,
    },
    DeleteRecords {
        share: u8,
    },
    Restart {
        cleanly: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let codec = prop_oneof![
        Just(Compression::None),
        Just(Compression::Lz4),
        Just(Compression::Zstd),
        Just(Compression::Snappy),
        Just(Compression::Gzip),
    ];
    let record = (0..10_u8, prop::option::weighted(0.7, any::<u8>()));
    let producer = prop::option::weighted(0.3, 0..3_i64);
    prop_oneof![
        8 => (prop::collection::vec(record, 1..6), codec, producer)
            .prop_map(|(records, codec, producer)| Step::Append { records, codec, producer }),
        3 => Just(Step::Roll),
        3 => prop_oneof![Just(1000), 2..20_usize].prop_map(|keys_max| Step::Clean { keys_max }),
        2 => (1..8_000_u64).prop_map(|ms| Step::Wait { ms }),
        1 => any::<u8>().prop_map(|share| Step::DeleteRecords { share }),
        1 => any::<bool>().prop_map(|cleanly| Step::Restart { cleanly }),
    ]
}

#[derive(Clone, Debug)]
struct Remembered {
    key: u8,
    value: Option<u8>,
    timestamp: i64,
    /// When a compaction first came by.
    first_cleaned_ms: Option<i64>,
}

struct Model {
    machine: Machine,
    log: Log,
    history: BTreeMap<i64, Remembered>,
    sequences: BTreeMap<i64, i32>,
    first_dirty: i64,
    /// Where the last compaction ended.
    compacted_to: i64,
    now_ms: i64,
}

fn config(lags: bool) -> LogConfig {
    LogConfig {
        cleanup: CleanupPolicy { delete: false, compact: true },
        segment_bytes: 700,
        index_interval_bytes: 100,
        delete_retention_ms: DELETE_RETENTION_MS,
        min_compaction_lag_ms: if lags { MIN_LAG_MS } else { 0 },
        ..LogConfig::default()
    }
}

impl Model {
    fn new(lags: bool) -> Self {
        let machine = Machine::new(config(lags));
        let log = machine.open();
        Self {
            machine,
            log,
            history: BTreeMap::new(),
            sequences: BTreeMap::new(),
            first_dirty: 0,
            compacted_to: 0,
            now_ms: NOW_MS,
        }
    }

    fn append(&mut self, records: &[(u8, Option<u8>)], codec: Compression, producer: Option<i64>) {
        let base_sequence = producer.map_or(0, |id| self.sequences.get(&id).copied().unwrap_or(0));
        let mut builder = BatchBuilder::new(BatchOptions {
            codec: codec.into(),
            producer: producer.map(|id| BatchProducer {
                id: ProducerId(id),
                epoch: ProducerEpoch(0),
                base_sequence,
            }),
            ..BatchOptions::default()
        });
        for (key, value) in records {
            let value = value.map(|value| [value]);
            let record = NewRecord {
                timestamp: TimestampMs(self.now_ms),
                key: Some(&[*key]),
                value: value.as_ref().map(<[u8; 1]>::as_slice),
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
        }
        if let Some(id) = producer {
            self.sequences.insert(id, base_sequence + records.len() as i32);
        }
        let append = Append::from_client(builder.finish(), LeaderEpoch(1));
        let appended = self.log.append(append).expect("sequences are known at all times");
        for (index, (key, value)) in records.iter().enumerate() {
            let remembered = Remembered {
                key: *key,
                value: *value,
                timestamp: self.now_ms,
                first_cleaned_ms: None,
            };
            self.history.insert(appended.first_offset.0 + index as i64, remembered);
        }
    }

    fn clean(&mut self, keys_max: usize) {
        self.log.flush().unwrap();
        let end = self.log.log_end_offset();
        let before = self.log.segment_offsets();
        let Some(job) = self.log.begin_clean(end).unwrap() else { return };
        let options =
            CleanerOptions { dedupe_buffer_bytes: 24 * keys_max, ..CleanerOptions::default() };
        let log = &mut self.log;
        let outcome = Cleaner::new(&self.machine.environment, options).run(
            &job,
            &mut |_| Ok(()),
            &mut |job, group| log.swap_in(job, group),
        );
        match self.log.finish_clean(job, outcome) {
            Ok(outcome) => {
                assert!(outcome.first_dirty.0 > self.first_dirty);
                self.first_dirty = outcome.first_dirty.0;
                self.compacted_to = self.first_dirty;
                // The segment in which the round ended was rewritten to its end.
                let index = before.partition_point(|base| base.0 < self.first_dirty);
                let rewritten_to = before.get(index).map_or(end.0, |base| base.0);
                for (_, remembered) in self.history.range_mut(..rewritten_to) {
                    remembered.first_cleaned_ms.get_or_insert(self.now_ms);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&mut self) {
        let start = self.log.log_start_offset().0;
        let mut decompressor = Decompressor::new(1 << 20);
        let mut found: BTreeMap<i64, u8> = BTreeMap::new();
        for batch in batches_from(&mut self.log, start) {
            let plain = batch.records(&mut decompressor).unwrap();
            for record in RecordIter::new(&batch.header, &plain) {
                let record = record.unwrap();
                let remembered = &self.history[&record.offset.0];
                assert_eq!(record.key, Some(&[remembered.key][..]));
                assert_eq!(record.value.map(|value| value[0]), remembered.value);
                assert_eq!(record.timestamp.0, remembered.timestamp);
                found.insert(record.offset.0, remembered.key);
            }
        }
        let mut last_of_key: BTreeMap<u8, i64> = BTreeMap::new();
        for (offset, remembered) in self.history.range(start..) {
            last_of_key.insert(remembered.key, *offset);
            // What no compaction has reached is all there.
            let is_dirty = *offset >= self.first_dirty;
            assert!(!is_dirty || found.contains_key(offset), "{offset} is missing");
        }
        for offset in last_of_key.values() {
            let remembered = &self.history[offset];
            let may_go = remembered.value.is_none()
                && remembered
                    .first_cleaned_ms
                    .is_some_and(|first_ms| self.now_ms >= first_ms + DELETE_RETENTION_MS);
            assert!(may_go || found.contains_key(offset), "{offset} is missing");
        }
        // In the compacted part no key stands twice.
        let mut seen = BTreeMap::new();
        for (offset, key) in found.range(start..self.compacted_to.max(start)) {
            assert_eq!(seen.insert(*key, *offset), None, "key {key} stands twice");
        }
    }

    fn restart(&mut self, cleanly: bool) {
        let point = match cleanly {
            true => {
                self.log.close().unwrap();
                self.log.recovery_point().0
            }
            false => self.log.checkpoint().unwrap().0,
        };
        let first_dirty = self.log.first_dirty_offset();
        let log_start = self.log.log_start_offset();
        self.machine.restart();
        let options = fleuve_storage::OpenOptions {
            had_clean_shutdown: cleanly,
            recovery_point: Offset(point),
            first_dirty,
            log_start,
            ..self.machine.options()
        };
        self.log = Log::open(&self.machine.environment, options).unwrap().0;
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append { records, codec, producer } => {
                self.append(records, *codec, *producer);
            }
            Step::Roll => self.log.roll().unwrap(),
            Step::Clean { keys_max } => self.clean(*keys_max),
            Step::Wait { ms } => {
                self.machine.clock.advance(Duration::from_millis(*ms));
                self.now_ms = self.machine.clock.wall_ms();
            }
            Step::DeleteRecords { share } => {
                let (start, end) = (self.log.log_start_offset().0, self.log.log_end_offset().0);
                let offset = start + (end - start) * i64::from(*share) / 2048;
                self.log.delete_records_to(Offset(offset)).unwrap();
                self.log.enforce_retention(Offset(end)).unwrap();
                self.first_dirty = self.first_dirty.max(offset);
            }
            Step::Restart { cleanly } => self.restart(*cleanly),
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_the_last_value_of_each_key(
        steps in prop::collection::vec(step(), 1..60),
        lags in any::<bool>(),
    ) {
        let mut model = Model::new(lags);
        for step in &steps {
            model.run(step);
        }
    }
}

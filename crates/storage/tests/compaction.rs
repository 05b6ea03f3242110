//! Compaction: what stays, what goes, and what may happen meanwhile.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Machine, NOW_MS, batches_from};
use fleuve_protocol::records::{
    Batch, BatchBuilder, BatchOptions, BatchProducer, Compression, Decompressor,
    EndTransactionMarker, NewRecord, RecordIter,
};
use fleuve_storage::{
    Append, CleanError, CleanOutcome, CleanedGroup, Cleaner, CleanerOptions, CleanupPolicy, Log,
    LogConfig, LogError,
};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

const HOUR: Duration = Duration::from_secs(3600);

/// A record as a reader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    offset: i64,
    timestamp: i64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// A batch to append.
#[derive(Clone)]
struct Draft<'a> {
    records: Vec<(&'a str, Option<&'a str>)>,
    codec: Compression,
    producer: Option<(i64, i16, i32)>,
    transactional: bool,
    timestamp: i64,
}

fn draft<'a>(records: &[(&'a str, Option<&'a str>)]) -> Draft<'a> {
    Draft {
        records: records.to_vec(),
        codec: Compression::None,
        producer: None,
        transactional: false,
        timestamp: NOW_MS,
    }
}

impl Draft<'_> {
    fn from(self, id: i64, epoch: i16, sequence: i32) -> Self {
        Self { producer: Some((id, epoch, sequence)), ..self }
    }

    fn in_transaction(self) -> Self {
        Self { transactional: true, ..self }
    }

    fn build(&self) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions {
            codec: self.codec.into(),
            producer: self.producer.map(|(id, epoch, base_sequence)| BatchProducer {
                id: ProducerId(id),
                epoch: ProducerEpoch(epoch),
                base_sequence,
            }),
            transactional: self.transactional,
            ..BatchOptions::default()
        });
        for (key, value) in &self.records {
            let record = NewRecord {
                timestamp: TimestampMs(self.timestamp),
                key: Some(key.as_bytes()),
                value: value.map(str::as_bytes),
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
        }
        builder.finish()
    }
}

fn put(log: &mut Log, draft: &Draft<'_>) -> i64 {
    let append = Append::from_client(draft.build(), LeaderEpoch(1));
    log.append(append).expect("the append succeeds").first_offset.0
}

fn put_marker(log: &mut Log, producer_id: i64, epoch: i16, committed: bool) -> i64 {
    let marker = EndTransactionMarker { committed, coordinator_epoch: 0 };
    let batch = marker.to_batch(ProducerId(producer_id), ProducerEpoch(epoch), TimestampMs(NOW_MS));
    let append = Append::from_coordinator(batch, LeaderEpoch(1));
    log.append(append).expect("the marker is appended").first_offset.0
}

fn compacted() -> LogConfig {
    LogConfig {
        cleanup: CleanupPolicy { delete: false, compact: true },
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    }
}

fn unhurried(_bytes: usize) -> Result<(), CleanError> {
    Ok(())
}

fn clean(machine: &Machine, log: &mut Log) -> Result<CleanOutcome, CleanError> {
    clean_with(machine, log, CleanerOptions::default())
}

fn clean_with(
    machine: &Machine,
    log: &mut Log,
    options: CleanerOptions,
) -> Result<CleanOutcome, CleanError> {
    let end = log.log_end_offset();
    let job = log.begin_clean(end)?.expect("there is something to compact");
    let cleaner = Cleaner::new(&machine.environment, options);
    let outcome = cleaner.run(&job, &mut unhurried, &mut |job, group| log.swap_in(job, group));
    log.finish_clean(job, outcome)
}

/// Seals what there is, makes it durable, and compacts it.
fn roll_and_clean(machine: &Machine, log: &mut Log) -> CleanOutcome {
    log.roll().unwrap();
    log.flush().unwrap();
    clean(machine, log).expect("the compaction succeeds")
}

fn records_of(batch: &Batch) -> Vec<Found> {
    let plain = batch.records(&mut Decompressor::new(1 << 24)).unwrap();
    RecordIter::new(&batch.header, &plain)
        .map(|record| {
            let record = record.unwrap();
            Found {
                offset: record.offset.0,
                timestamp: record.timestamp.0,
                key: record.key.unwrap_or_default().to_vec(),
                value: record.value.map(<[u8]>::to_vec),
            }
        })
        .collect()
}

fn all_records(log: &mut Log) -> Vec<Found> {
    let start = log.log_start_offset().0;
    batches_from(log, start)
        .iter()
        .filter(|batch| !batch.header.attributes.is_control())
        .flat_map(records_of)
        .collect()
}

fn summary(log: &mut Log) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    all_records(log)
        .into_iter()
        .map(|found| (found.offset, text(found.key), found.value.map(text)))
        .collect()
}

fn entry(offset: i64, key: &str, value: Option<&str>) -> (i64, String, Option<String>) {
    (offset, key.to_owned(), value.map(str::to_owned))
}

mod what_stays {
    use super::*;

    #[test]
    fn the_last_record_of_each_key_stays_at_its_offset() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))]));
        put(&mut log, &draft(&[("c", Some("1"))]));
        put(&mut log, &draft(&[("b", Some("2")), ("d", Some("1"))]));
        let outcome = roll_and_clean(&machine, &mut log);
        let expected = [
            entry(2, "a", Some("2")),
            entry(3, "c", Some("1")),
            entry(4, "b", Some("2")),
            entry(5, "d", Some("1")),
        ];
        assert_eq!(summary(&mut log), expected);
        assert_eq!(outcome.first_dirty, Offset(6));
        assert_eq!((outcome.stats.records_read, outcome.stats.records_kept), (6, 4));
        assert_eq!(outcome.stats.keys, 4);

        let batches = batches_from(&mut log, 0);
        let bounds: Vec<_> = batches
            .iter()
            .map(|batch| (batch.header.base_offset.0, batch.header.last_offset().0))
            .collect();
        assert_eq!(bounds, [(0, 2), (3, 3), (4, 5)], "batches keep their bounds");

        // Later records replace what an earlier compaction has kept.
        put(&mut log, &draft(&[("a", Some("3"))]));
        roll_and_clean(&machine, &mut log);
        assert_eq!(summary(&mut log)[0], entry(3, "c", Some("1")));
        assert_eq!(summary(&mut log)[3], entry(6, "a", Some("3")));
        assert_eq!(log.log_start_offset(), Offset(0));
    }

    #[test]
    fn the_active_segment_is_left_alone() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        log.flush().unwrap();
        assert!(log.begin_clean(log.log_end_offset()).unwrap().is_none());
        log.roll().unwrap();
        put(&mut log, &draft(&[("b", Some("1")), ("b", Some("2")), ("a", Some("2"))]));
        log.flush().unwrap();
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log).len(), 4);
    }

    #[test]
    fn records_that_are_not_durable_push_nothing_out() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        log.roll().unwrap();
        log.flush().unwrap();
        put(&mut log, &draft(&[("a", Some("2"))]));
        log.roll().unwrap();
        let end = log.log_end_offset();
        let dirtiness = log.dirtiness(end).unwrap().unwrap();
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log).len(), 2);
        assert_eq!(log.first_dirty_offset(), Some(Offset(1)));
        log.flush().unwrap();
        assert!(log.dirtiness(end).unwrap().unwrap().cleanable_bytes >= dirtiness.cleanable_bytes);
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log), [entry(1, "a", Some("2"))]);
    }

    #[test]
    fn records_beyond_the_high_watermark_push_nothing_out() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        log.roll().unwrap();
        put(&mut log, &draft(&[("a", Some("2"))]));
        log.roll().unwrap();
        log.flush().unwrap();
        let job = log.begin_clean(Offset(1)).unwrap().unwrap();
        let cleaner = Cleaner::new(&machine.environment, CleanerOptions::default());
        let outcome = cleaner.run(&job, &mut unhurried, &mut |job, group| log.swap_in(job, group));
        log.finish_clean(job, outcome).unwrap();
        assert_eq!(summary(&mut log).len(), 2);
    }

    #[test]
    fn tombstones_stay_until_their_horizon() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        put(&mut log, &draft(&[("a", None), ("b", Some("1"))]));
        roll_and_clean(&machine, &mut log);
        let batches = batches_from(&mut log, 0);
        let horizon = batches[0].header.delete_horizon().map(|horizon| horizon.0);
        assert_eq!(horizon, Some(NOW_MS + 24 * 3_600_000));
        assert_eq!(summary(&mut log), [entry(1, "a", None), entry(2, "b", Some("1"))]);
        assert_eq!(all_records(&mut log)[0].timestamp, NOW_MS, "timestamps stay");

        // Not over yet; and the horizon stays where it was.
        machine.clock.advance(23 * HOUR);
        put(&mut log, &draft(&[("c", Some("1"))]));
        roll_and_clean(&machine, &mut log);
        assert_eq!(summary(&mut log)[0], entry(1, "a", None));
        let batches = batches_from(&mut log, 0);
        assert_eq!(batches[0].header.delete_horizon().map(|horizon| horizon.0), horizon);

        machine.clock.advance(2 * HOUR);
        put(&mut log, &draft(&[("d", Some("1"))]));
        roll_and_clean(&machine, &mut log);
        assert_eq!(summary(&mut log)[0], entry(2, "b", Some("1")));
        assert_eq!(all_records(&mut log)[0].timestamp, NOW_MS);
    }

    #[test]
    fn batches_keep_their_codec() {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let machine = Machine::new(compacted());
            let mut log = machine.open();
            let records = [("a", Some("first")), ("b", Some("b")), ("a", Some("second"))];
            put(&mut log, &Draft { codec, ..draft(&records) });
            roll_and_clean(&machine, &mut log);
            let batches = batches_from(&mut log, 0);
            assert_eq!(batches[0].header.compression(), Ok(codec));
            assert_eq!(
                summary(&mut log),
                [entry(1, "b", Some("b")), entry(2, "a", Some("second"))]
            );
        }
    }

    /// They may have come when the limit was another, or nobody looked into them.
    #[test]
    fn batches_beyond_the_usual_size_are_compacted_where_the_setting_allows() {
        let huge = "x".repeat(65 << 20);
        let records = [("a", Some(huge.as_str())), ("a", Some("second"))];
        for (limit, allowed) in [(None, false), (Some(66 << 20), true)] {
            let stored = LogConfig {
                cleanup: CleanupPolicy { delete: true, compact: false },
                ..LogConfig::default()
            };
            let machine = Machine::new(stored);
            let mut log = machine.open();
            put(&mut log, &Draft { codec: Compression::Zstd, ..draft(&records) });
            log.roll().unwrap();
            log.flush().unwrap();
            log.set_config(Arc::new(LogConfig { decompressed_bytes_max: limit, ..compacted() }));
            match clean(&machine, &mut log) {
                Ok(_) => assert_eq!(summary(&mut log), [entry(1, "a", Some("second"))]),
                Err(error) => {
                    assert!(!allowed, "{error}");
                    assert!(error.to_string().contains("fleuve.decompressed.bytes.max"), "{error}");
                }
            }
        }
    }

    #[test]
    fn an_untouched_batch_is_copied_bit_by_bit() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        let records = [("a", Some("1")), ("b", Some("1"))];
        put(&mut log, &Draft { codec: Compression::Zstd, ..draft(&records) }.from(5, 0, 0));
        put(&mut log, &draft(&[("c", Some("1"))]));
        let before = batches_from(&mut log, 0);
        roll_and_clean(&machine, &mut log);
        assert_eq!(batches_from(&mut log, 0), before);
    }

    #[test]
    fn an_active_producer_keeps_its_last_sequence() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1")), ("a", Some("2"))]).from(7, 3, 0));
        put(&mut log, &draft(&[("a", Some("3"))]).from(7, 3, 2));
        put(&mut log, &draft(&[("a", Some("4"))]));
        put(&mut log, &draft(&[("b", Some("1"))]));
        roll_and_clean(&machine, &mut log);
        let batches = batches_from(&mut log, 0);
        let kept: Vec<_> =
            batches.iter().map(|batch| (batch.header.base_offset.0, batch.header.count)).collect();
        assert_eq!(kept, [(2, 0), (3, 1), (4, 1)]);
        assert_eq!(batches[0].header.last_sequence(), 2);

        // A restart that finds no snapshot learns of the producer from the empty batch.
        log.checkpoint().unwrap();
        drop(log);
        for snapshot in machine.files(".snapshot") {
            fleuve_os::Disk::remove_file(&machine.disk, &machine.path(&snapshot)).unwrap();
        }
        let mut log = machine.open();
        let producer = log.producers().next().expect("the producer is known");
        assert_eq!((producer.producer_id.0, producer.last_sequence), (7, 2));
        put(&mut log, &draft(&[("a", Some("5"))]).from(7, 3, 3));
    }

    #[test]
    fn the_end_of_the_compacted_part_stays_known() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("b", Some("1"))]));
        put(&mut log, &draft(&[("a", Some("1"))]));
        log.roll().unwrap();
        put(&mut log, &draft(&[("a", None)]));
        roll_and_clean(&machine, &mut log);
        machine.clock.advance(48 * HOUR);
        put(&mut log, &draft(&[("c", Some("1"))]));
        log.roll().unwrap();
        log.flush().unwrap();
        clean(&machine, &mut log).unwrap();
        machine.clock.advance(48 * HOUR);
        assert_eq!(summary(&mut log), [entry(0, "b", Some("1")), entry(3, "c", Some("1"))]);
    }
}

mod transactions {
    use super::*;

    /// A committed and an aborted transaction, and a record of the same keys before them.
    fn with_transactions(machine: &Machine) -> Log {
        let mut log = machine.open();
        put(&mut log, &draft(&[("kept", Some("old")), ("replaced", Some("old"))]));
        put(&mut log, &draft(&[("kept", Some("aborted"))]).from(1, 0, 0).in_transaction());
        put(&mut log, &draft(&[("replaced", Some("new"))]).from(2, 0, 0).in_transaction());
        put_marker(&mut log, 1, 0, false);
        put_marker(&mut log, 2, 0, true);
        put(&mut log, &draft(&[("last", Some("1"))]));
        log
    }

    fn control_offsets(log: &mut Log) -> Vec<i64> {
        batches_from(log, 0)
            .iter()
            .filter(|batch| batch.header.attributes.is_control() && batch.header.count > 0)
            .map(|batch| batch.header.base_offset.0)
            .collect()
    }

    #[test]
    fn aborted_records_go_and_replace_nothing() {
        let machine = Machine::new(compacted());
        let mut log = with_transactions(&machine);
        roll_and_clean(&machine, &mut log);
        let expected = [
            entry(0, "kept", Some("old")),
            entry(3, "replaced", Some("new")),
            entry(6, "last", Some("1")),
        ];
        assert_eq!(summary(&mut log), expected);
        assert_eq!(control_offsets(&mut log), [4, 5], "markers stay as long as their records");
    }

    #[test]
    fn markers_go_after_their_records_and_their_horizon() {
        let machine = Machine::new(compacted());
        let mut log = with_transactions(&machine);
        roll_and_clean(&machine, &mut log);
        // The producers are forgotten, so that nothing else keeps their batches.
        machine.clock.advance(25 * HOUR);
        log.expire_producers();
        let mut markers = Vec::new();
        for value in ["1", "2", "3", "4", "5"] {
            put(&mut log, &draft(&[("replaced", Some(value))]));
            roll_and_clean(&machine, &mut log);
            let horizons: Vec<bool> = batches_from(&mut log, 0)
                .iter()
                .filter(|batch| batch.header.attributes.is_control())
                .map(|batch| batch.header.delete_horizon().is_some())
                .collect();
            markers.push(horizons);
            machine.clock.advance(25 * HOUR);
        }
        // The first compaction emptied the aborted batch, and kept it for the producer's sake. The
        // second takes both batches, the third finds nothing of the transactions and sets the
        // horizon, the fourth is behind it.
        let expected: [&[bool]; 5] = [&[false, false], &[true, true], &[], &[], &[]];
        assert_eq!(markers, expected);
    }

    #[test]
    fn the_index_of_aborted_transactions_keeps_what_is_still_there() {
        let machine = Machine::new(compacted());
        let mut log = with_transactions(&machine);
        let entry = |producer_id: i64, first: i64, marker: i64, stable: i64| {
            let mut bytes = vec![0, 0];
            for field in [producer_id, first, marker, stable] {
                bytes.extend(field.to_be_bytes());
            }
            bytes
        };
        let path = machine.path("00000000000000000000.txnindex");
        log.roll().unwrap();
        let mut stored = fleuve_os::Disk::read_file(&machine.disk, &path).unwrap().to_vec();
        assert_eq!(stored, entry(1, 2, 4, 3));
        // One without a marker, and the beginning of another that a crash has cut.
        stored.extend(entry(9, 3, 999, 1000));
        stored.extend([0, 0, 0]);
        fleuve_os::Disk::replace_file(&machine.disk, &path, &stored).unwrap();
        roll_and_clean(&machine, &mut log);
        let kept = fleuve_os::Disk::read_file(&machine.disk, &path).unwrap();
        assert_eq!(kept, entry(1, 2, 4, 3));
        let aborted = log.aborted_transactions(Offset(0), Offset(5)).unwrap();
        assert_eq!(aborted.len(), 1);

        // Once nothing of the transactions is left, neither is the file.
        for value in ["1", "2", "3"] {
            machine.clock.advance(25 * HOUR);
            log.expire_producers();
            put(&mut log, &draft(&[("replaced", Some(value))]));
            roll_and_clean(&machine, &mut log);
        }
        assert_eq!(machine.files(".txnindex"), Vec::<String>::new());
    }

    #[test]
    fn an_open_transaction_bounds_the_compaction() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        log.roll().unwrap();
        put(&mut log, &draft(&[("a", Some("2"))]).from(1, 0, 0).in_transaction());
        log.roll().unwrap();
        put(&mut log, &draft(&[("a", Some("3"))]));
        roll_and_clean(&machine, &mut log);
        assert_eq!(log.first_dirty_offset(), Some(Offset(1)));
        assert_eq!(summary(&mut log).len(), 3);
    }

    #[test]
    fn a_marker_behind_the_compacted_part_counts() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        put(&mut log, &draft(&[("a", Some("2"))]).from(1, 0, 0).in_transaction());
        put(&mut log, &draft(&[("b", Some("1"))]));
        log.roll().unwrap();
        put_marker(&mut log, 1, 0, false);
        log.flush().unwrap();
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log), [entry(0, "a", Some("1")), entry(2, "b", Some("1"))]);
    }
}

mod when {
    use super::*;

    #[test]
    fn dirt_is_measured_in_bytes() {
        let mut config = compacted();
        config.min_cleanable_dirty_ratio = 0.5;
        let machine = Machine::new(config);
        let mut log = machine.open();
        let end = |log: &Log| log.log_end_offset();
        assert_eq!(log.dirtiness(end(&log)).unwrap(), None, "an empty log is not dirty");
        for number in 0..10 {
            put(&mut log, &draft(&[(&format!("{number}"), Some("1"))]));
        }
        roll_and_clean(&machine, &mut log);
        let dirtiness = log.dirtiness(end(&log)).unwrap().unwrap();
        assert_eq!((dirtiness.ratio, dirtiness.is_due), (0.0, false));
        for number in 0..5 {
            put(&mut log, &draft(&[(&format!("{number}"), Some("2"))]));
        }
        log.roll().unwrap();
        log.flush().unwrap();
        let dirtiness = log.dirtiness(end(&log)).unwrap().unwrap();
        assert!((0.32..0.34).contains(&dirtiness.ratio), "{dirtiness:?}");
        assert!(!dirtiness.is_due);
        for number in 0..7 {
            put(&mut log, &draft(&[(&format!("{number}"), Some("3"))]));
        }
        log.roll().unwrap();
        log.flush().unwrap();
        assert!(log.dirtiness(end(&log)).unwrap().unwrap().is_due);
        let job = log.begin_clean(end(&log)).unwrap().unwrap();
        assert_eq!(log.dirtiness(end(&log)).unwrap(), None, "it is being compacted");
        assert!(log.begin_clean(end(&log)).unwrap().is_none());
        let stopped = log.finish_clean(job, Err(CleanError::Stopped));
        assert!(matches!(stopped, Err(CleanError::Stopped)));
        assert!(log.dirtiness(end(&log)).unwrap().unwrap().is_due);
    }

    #[test]
    fn young_segments_are_left_alone() {
        let machine = Machine::new(LogConfig { min_compaction_lag_ms: 3_600_000, ..compacted() });
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        log.roll().unwrap();
        machine.clock.advance(HOUR / 2);
        put(&mut log, &Draft { timestamp: NOW_MS + 1_800_000, ..draft(&[("a", Some("2"))]) });
        log.roll().unwrap();
        log.flush().unwrap();
        assert!(log.begin_clean(log.log_end_offset()).unwrap().is_none());
        machine.clock.advance(HOUR / 2 + Duration::from_millis(1));
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log).len(), 2, "the second is still too young");
        machine.clock.advance(HOUR / 2);
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log), [entry(1, "a", Some("2"))]);
    }

    #[test]
    fn old_segments_are_due_whatever_their_share() {
        let machine = Machine::new(LogConfig {
            max_compaction_lag_ms: 3_600_000,
            min_cleanable_dirty_ratio: 1.0,
            ..compacted()
        });
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        put(&mut log, &draft(&[("a", Some("2"))]));
        // The next record rolls the segment: nothing may wait in the active one for longer.
        machine.clock.advance(HOUR + Duration::from_millis(1));
        put(&mut log, &Draft { timestamp: NOW_MS + 3_600_001, ..draft(&[("b", Some("1"))]) });
        assert_eq!(log.segment_offsets().len(), 2);
        log.flush().unwrap();
        let end = log.log_end_offset();
        let dirtiness = log.dirtiness(end).unwrap().unwrap();
        assert_eq!((dirtiness.overdue_ms, dirtiness.is_due), (1, true));
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log).len(), 2);
    }

    #[test]
    fn a_full_map_ends_the_round_and_the_next_goes_on() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        for round in 0..3 {
            for number in 0..20 {
                let (key, value) = (format!("{number}"), format!("{round}"));
                put(&mut log, &draft(&[(&key, Some(&value))]));
            }
            log.roll().unwrap();
        }
        log.flush().unwrap();
        let options = CleanerOptions { dedupe_buffer_bytes: 24 * 10, ..CleanerOptions::default() };
        let first = clean_with(&machine, &mut log, options).unwrap();
        assert_eq!(first.first_dirty, Offset(9));
        let mut rounds = 1;
        while log.first_dirty_offset() != Some(Offset(60)) {
            let before = log.first_dirty_offset();
            clean_with(&machine, &mut log, options).unwrap();
            assert!(log.first_dirty_offset() > before);
            rounds += 1;
        }
        assert_eq!(rounds, 7);
        let found = summary(&mut log);
        assert_eq!(found.len(), 20);
        assert!(found.iter().all(|(offset, _, _)| *offset >= 40), "{found:?}");
    }

    #[test]
    fn a_round_may_end_within_a_batch() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1")), ("b", Some("1"))]));
        put(&mut log, &draft(&[("a", Some("2")), ("b", Some("2")), ("c", Some("2"))]));
        log.roll().unwrap();
        log.flush().unwrap();
        let with_room_for = |keys: usize| {
            let dedupe_buffer_bytes = 24 * (keys + 1);
            CleanerOptions { dedupe_buffer_bytes, ..CleanerOptions::default() }
        };
        let first = clean_with(&machine, &mut log, with_room_for(2)).unwrap();
        assert_eq!(first.first_dirty, Offset(2));
        assert_eq!(summary(&mut log).len(), 5);
        let second = clean_with(&machine, &mut log, with_room_for(1)).unwrap();
        assert_eq!(second.first_dirty, Offset(3));
        assert_eq!(summary(&mut log)[0], entry(1, "b", Some("1")));
        clean_with(&machine, &mut log, with_room_for(2)).unwrap();
        assert_eq!(summary(&mut log).len(), 3);
        assert_eq!(log.first_dirty_offset(), Some(Offset(5)));
    }

    #[test]
    fn a_map_without_room_is_named() {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1"))]));
        log.roll().unwrap();
        log.flush().unwrap();
        let options = CleanerOptions { dedupe_buffer_bytes: 24, ..CleanerOptions::default() };
        let error = clean_with(&machine, &mut log, options).unwrap_err();
        assert!(matches!(error, CleanError::BufferTooSmall { bytes: 24 }), "{error}");
        assert!(!error.is_transient());
        assert!(error.to_string().contains("log.cleaner.dedupe.buffer.size"));
    }
}

mod meanwhile {
    use super::*;

    fn two_segments(machine: &Machine) -> Log {
        let mut log = machine.open();
        put(&mut log, &draft(&[("a", Some("1")), ("b", Some("1"))]));
        log.roll().unwrap();
        put(&mut log, &draft(&[("a", Some("2"))]));
        log.roll().unwrap();
        put(&mut log, &draft(&[("c", Some("1"))]));
        log.flush().unwrap();
        log
    }

    /// Runs a compaction during which `interfere` happens, before the first swap.
    fn clean_while(
        machine: &Machine,
        log: &mut Log,
        mut interfere: impl FnMut(&mut Log),
    ) -> Result<CleanOutcome, CleanError> {
        let end = log.log_end_offset();
        let job = log.begin_clean(end)?.expect("there is something to compact");
        let cleaner = Cleaner::new(&machine.environment, CleanerOptions::default());
        let outcome = cleaner.run(&job, &mut unhurried, &mut |job, group: CleanedGroup| {
            interfere(log);
            log.swap_in(job, group)
        });
        log.finish_clean(job, outcome)
    }

    #[test]
    fn appends_and_reads_go_on() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        let plan = log.plan_read(common::request(0, i64::MAX)).unwrap();
        clean_while(&machine, &mut log, |log| {
            put(log, &draft(&[("a", Some("3"))]));
            assert_eq!(summary(log).len(), 5);
        })
        .unwrap();
        // A reader that had planned its read before still reads what was there.
        let read = Batch::parse(plan.run().unwrap().into_bytes()).unwrap();
        assert_eq!((read.header.count, read.verify_crc()), (2, Ok(())));
        let expected = [
            entry(1, "b", Some("1")),
            entry(2, "a", Some("2")),
            entry(3, "c", Some("1")),
            entry(4, "a", Some("3")),
        ];
        assert_eq!(summary(&mut log), expected);
        assert_eq!(log.segment_offsets(), [Offset(0), Offset(3)]);
    }

    #[test]
    fn threads_append_read_and_compact_at_once() {
        use std::sync::atomic::{AtomicBool, Ordering};

        const RECORDS: i64 = 600;
        let machine = Machine::new(LogConfig { segment_bytes: 1000, ..compacted() });
        let log = parking_lot::Mutex::new(machine.open());
        let done = AtomicBool::new(false);
        let compactions = std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..RECORDS {
                    let (key, value) = (format!("{}", number % 7), format!("{number}"));
                    let mut log = log.lock();
                    assert_eq!(put(&mut log, &draft(&[(&key, Some(&value))])), number);
                    if number % 10 == 9 {
                        log.flush().unwrap();
                    }
                }
                done.store(true, Ordering::Release);
            });
            scope.spawn(|| {
                let mut from = 0;
                while !done.load(Ordering::Acquire) {
                    let plan = log.lock().plan_read(common::request(from, i64::MAX)).unwrap();
                    let bytes = plan.run().unwrap().into_bytes();
                    let mut next = from;
                    for batch in fleuve_protocol::records::Batches::new(bytes) {
                        let batch = batch.expect("reads return whole batches");
                        batch.verify_crc().expect("and intact ones");
                        assert!(batch.header.last_offset().0 >= next);
                        next = batch.header.next_offset().0;
                        for found in records_of(&batch) {
                            assert_eq!(found.value, Some(found.offset.to_string().into_bytes()));
                        }
                    }
                    from = if next == from { 0 } else { next };
                }
            });
            let mut compactions = 0;
            let cleaner = Cleaner::new(&machine.environment, CleanerOptions::default());
            loop {
                let is_last = done.load(Ordering::Acquire);
                let job = {
                    let mut log = log.lock();
                    let end = log.log_end_offset();
                    log.begin_clean(end).unwrap()
                };
                if let Some(job) = job {
                    let outcome = cleaner.run(&job, &mut unhurried, &mut |job, group| {
                        log.lock().swap_in(job, group)
                    });
                    log.lock().finish_clean(job, outcome).unwrap();
                    compactions += 1;
                }
                if is_last {
                    return compactions;
                }
                std::thread::yield_now();
            }
        });
        assert!(compactions > 0);
        let mut log = log.into_inner();
        let last: Vec<i64> = summary(&mut log).iter().map(|(offset, _, _)| *offset).collect();
        assert!(last.ends_with(&(RECORDS - 7..RECORDS).collect::<Vec<_>>()), "{last:?}");
        assert!(last.len() < 100, "{last:?}");
    }

    #[test]
    fn a_truncation_ends_it() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        let outcome = clean_while(&machine, &mut log, |log| {
            log.truncate_to(Offset(2)).unwrap();
        });
        let error = outcome.unwrap_err();
        assert!(matches!(error, CleanError::Overtaken) && error.is_transient());
        assert_eq!(summary(&mut log), [entry(0, "a", Some("1")), entry(1, "b", Some("1"))]);
        assert!(machine.files(".cleaned").is_empty());
        // Also one that leaves the segments as they are.
        let mut log = two_segments(&Machine::new(compacted()));
        let end = log.log_end_offset();
        let job = log.begin_clean(end).unwrap().unwrap();
        log.truncate_to(Offset(3)).unwrap();
        let outcome = log.finish_clean(job, Err(CleanError::Overtaken));
        assert!(matches!(outcome, Err(CleanError::Overtaken)));
    }

    #[test]
    fn a_topic_that_is_no_longer_compacted_ends_it() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        let before = summary(&mut log);
        let outcome = clean_while(&machine, &mut log, |log| {
            let cleanup = CleanupPolicy { delete: true, compact: false };
            log.set_config(Arc::new(LogConfig { cleanup, ..compacted() }));
        });
        assert!(matches!(outcome, Err(CleanError::Overtaken)));
        assert_eq!(summary(&mut log), before);
        assert!(machine.files(".cleaned").is_empty());
    }

    #[test]
    fn a_deletion_of_its_segments_ends_it() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        let outcome = clean_while(&machine, &mut log, |log| {
            log.delete_records_to(Offset(2)).unwrap();
            let end = log.log_end_offset();
            assert_eq!(log.enforce_retention(end).unwrap(), 1);
        });
        assert!(matches!(outcome, Err(CleanError::Overtaken)));
        assert_eq!(summary(&mut log), [entry(2, "a", Some("2")), entry(3, "c", Some("1"))]);
        assert!(machine.files(".cleaned").is_empty());
        // The next attempt begins from what is left.
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log).len(), 2);
    }

    #[test]
    fn a_deletion_before_the_first_read_ends_it() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        let end = log.log_end_offset();
        let job = log.begin_clean(end).unwrap().unwrap();
        log.delete_records_to(Offset(2)).unwrap();
        log.enforce_retention(end).unwrap();
        let cleaner = Cleaner::new(&machine.environment, CleanerOptions::default());
        let outcome = cleaner.run(&job, &mut unhurried, &mut |job, group| log.swap_in(job, group));
        assert!(matches!(outcome, Err(CleanError::Log(LogError::Disk(_)))));
        assert!(matches!(log.finish_clean(job, outcome), Err(CleanError::Overtaken)));
    }

    #[test]
    fn deleted_records_whose_segments_are_there_do_not_matter() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        clean_while(&machine, &mut log, |log| log.delete_records_to(Offset(1)).unwrap()).unwrap();
        assert_eq!(log.log_start_offset(), Offset(1));
        assert_eq!(summary(&mut log).len(), 3);
    }

    #[test]
    fn the_pace_maker_may_stop_it() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        for patience in 0..6 {
            let end = log.log_end_offset();
            let job = log.begin_clean(end).unwrap().unwrap();
            let cleaner = Cleaner::new(&machine.environment, CleanerOptions::default());
            let mut left = patience;
            let mut pace = |_| {
                left -= 1;
                if left < 0 { Err(CleanError::Stopped) } else { Ok(()) }
            };
            let outcome = cleaner.run(&job, &mut pace, &mut |job, group| log.swap_in(job, group));
            assert!(matches!(log.finish_clean(job, outcome), Err(CleanError::Stopped)));
            assert!(machine.files(".cleaned").is_empty(), "{patience}");
            assert_eq!(summary(&mut log).len(), 4);
        }
    }

    #[test]
    fn damage_stops_it_and_nothing_is_rewritten() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        log.checkpoint().unwrap();
        let path = machine.path("00000000000000000000.log");
        machine.disk.damage(&path, |bytes| bytes[70] ^= 1);
        let error = clean(&machine, &mut log).unwrap_err();
        assert!(matches!(error, CleanError::Log(LogError::Damaged { position: 0, .. })), "{error}");
        assert!(!error.is_transient());
        assert!(machine.files(".cleaned").is_empty());
        assert_eq!(log.segment_offsets().len(), 3);
    }

    #[test]
    fn old_files_stay_for_a_while() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        clean(&machine, &mut log).unwrap();
        assert_eq!(machine.files(".log.deleted").len(), 2);
        machine.environment.remove_deleted_files().unwrap();
        assert_eq!(machine.files(".log.deleted").len(), 2);
        machine.clock.advance(Duration::from_secs(61));
        machine.environment.remove_deleted_files().unwrap();
        assert_eq!(machine.files(".deleted"), Vec::<String>::new());
        assert_eq!(summary(&mut log).len(), 3);
    }

    #[test]
    fn a_full_disk_is_survived() {
        let machine = Machine::new(compacted());
        let mut log = two_segments(&machine);
        let used: u64 = 1;
        machine.disk.set_capacity(used);
        let error = clean(&machine, &mut log).unwrap_err();
        assert!(error.is_transient(), "{error}");
        machine.disk.set_capacity(1 << 30);
        clean(&machine, &mut log).unwrap();
        assert_eq!(summary(&mut log).len(), 3);
    }
}

mod leftovers {
    use fleuve_os::Disk;

    use super::*;

    fn names(machine: &Machine) -> Vec<String> {
        let entries = machine.disk.list(std::path::Path::new(common::DIRECTORY)).unwrap();
        let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
        names.retain(|name| name.starts_with('0'));
        names.sort();
        names
    }

    /// A log of three segments, and the files of its first in its directory under `suffix`.
    fn with_copies(suffix: &str, kinds: &[&str]) -> Machine {
        let machine = Machine::new(compacted());
        let mut log = machine.open();
        for value in ["1", "2", "3"] {
            put(&mut log, &draft(&[("a", Some(value))]));
            log.roll().unwrap();
        }
        log.checkpoint().unwrap();
        drop(log);
        for kind in kinds {
            let name = format!("00000000000000000000.{kind}");
            let content = machine.disk.read_file(&machine.path(&name)).unwrap();
            let copy = machine.path(&format!("{name}{suffix}"));
            machine.disk.replace_file(&copy, &content).unwrap();
        }
        machine
    }

    #[test]
    fn files_of_an_undecided_swap_are_removed() {
        // Indexes are renamed before the log: without it nothing was decided.
        let machine = with_copies(".swap", &["index", "timeindex"]);
        let before: Vec<String> =
            names(&machine).into_iter().filter(|name| !name.ends_with(".swap")).collect();
        let mut log = machine.open();
        assert_eq!(summary(&mut log).len(), 3);
        assert_eq!(names(&machine), before);
    }

    #[test]
    fn a_swap_beside_an_unfinished_file_is_void() {
        // Kafka renames the parts of a split segment one by one, the last first.
        let machine = with_copies(".swap", &["log", "index", "timeindex"]);
        let content = machine.disk.read_file(&machine.path("00000000000000000000.log")).unwrap();
        let cleaned = machine.path("00000000000000000000.log.cleaned");
        machine.disk.replace_file(&cleaned, &content).unwrap();
        machine.disk.damage(&machine.path("00000000000000000000.log.swap"), Vec::clear);
        let mut log = machine.open();
        assert_eq!(summary(&mut log).len(), 3);
    }

    #[test]
    fn a_decided_swap_is_finished() {
        let machine = with_copies(".swap", &["log", "index", "timeindex"]);
        // It stands for itself only: its last offset lies before the next segment.
        machine.disk.damage(&machine.path("00000000000000000000.log"), Vec::clear);
        let mut log = machine.open();
        assert_eq!(summary(&mut log).len(), 3);
        assert!(names(&machine).iter().all(|name| !name.contains("swap")));
    }
}

mod groups {
    use super::*;

    #[test]
    fn small_segments_are_put_together() {
        let machine = Machine::new(LogConfig { segment_bytes: 1000, ..compacted() });
        let mut log = machine.open();
        for number in 0..40 {
            put(&mut log, &draft(&[(&format!("{:02}", number % 10), Some("value"))]));
            log.roll().unwrap();
        }
        log.flush().unwrap();
        let segments_before = log.segment_offsets().len();
        clean(&machine, &mut log).unwrap();
        let after = log.segment_offsets();
        assert!(after.len() < segments_before / 5, "{after:?}");
        assert_eq!(summary(&mut log).len(), 10);
        // Every segment ends where the next one begins, so a crash finds no hole.
        let batches = batches_from(&mut log, 0);
        for base in &after[1..] {
            assert!(batches.iter().any(|batch| batch.header.next_offset() == *base), "{base}");
        }
        log.checkpoint().unwrap();
        drop(log);
        let mut reopened = machine.open();
        assert_eq!(summary(&mut reopened).len(), 10);
        assert_eq!(reopened.log_end_offset(), Offset(40));
        // Indexes are those of the new segments.
        for offset in 0..40 {
            let plan = reopened.plan_read(common::request(offset, i64::MAX)).unwrap();
            assert!(!plan.is_empty());
        }
    }
}

mod checkpoint {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use fleuve_os::Disk;
    use fleuve_storage::{LogManager, ManagerOptions, Opened};
    use fleuve_types::{TopicPartition, Uuid};

    use super::*;

    fn open(machine: &Machine) -> Opened {
        let config = Arc::new(machine.config.clone());
        let options = ManagerOptions {
            directories: vec![PathBuf::from("/data")],
            node_id: 1,
            cluster_id: None,
            recovery_threads: 1,
            config_for: &|_| config.clone(),
        };
        LogManager::open(&machine.environment, options).expect("the directory opens")
    }

    fn checkpoint(machine: &Machine) -> String {
        let path = Path::new("/data/cleaner-offset-checkpoint");
        String::from_utf8(machine.disk.read_file(path).unwrap().into()).unwrap()
    }

    #[test]
    fn compaction_goes_on_where_it_stopped() {
        let mut machine = Machine::new(compacted());
        let opened = open(&machine);
        let create = |manager: &LogManager, machine: &Machine| {
            let config = Arc::new(machine.config.clone());
            manager.create(TopicPartition::new("orders", 0), Uuid([9; 16]), config, None).unwrap()
        };
        let mut log = create(&opened.manager, &machine);
        put(&mut log, &draft(&[("a", Some("1")), ("a", Some("2"))]));
        roll_and_clean(&machine, &mut log);
        opened.manager.store_cleaner_offsets(&[log.points()]).unwrap();
        assert_eq!(checkpoint(&machine), "0\n1\norders 0 2\n");

        // Also after a crash.
        machine.disk.crash(fleuve_sim::Crash::LoseUnsynced);
        machine.restart();
        let mut opened = open(&machine);
        let mut log = opened.logs.remove(0);
        assert_eq!(log.first_dirty_offset(), Some(Offset(2)));
        assert!(log.begin_clean(log.log_end_offset()).unwrap().is_none());

        // A log of the same name that is made later has nothing to do with it.
        opened.manager.delete(log).unwrap();
        assert_eq!(checkpoint(&machine), "0\n0\n");
        let log = create(&opened.manager, &machine);
        assert_eq!(log.first_dirty_offset(), None);
    }

    #[test]
    fn a_checkpoint_that_cannot_be_right_is_not_believed() {
        for first_dirty in [-5, 7, i64::MAX] {
            let machine = Machine::new(compacted());
            let mut log = machine.open();
            put(&mut log, &draft(&[("a", Some("1")), ("a", Some("2"))]));
            log.roll().unwrap();
            log.checkpoint().unwrap();
            drop(log);
            let options = fleuve_storage::OpenOptions {
                first_dirty: Some(Offset(first_dirty)),
                recovery_point: Offset(2),
                ..machine.options()
            };
            let (mut log, _) = Log::open(&machine.environment, options).unwrap();
            clean(&machine, &mut log).unwrap_or_else(|error| panic!("{first_dirty}: {error}"));
            assert_eq!(summary(&mut log), [entry(1, "a", Some("2"))]);
        }
    }
}

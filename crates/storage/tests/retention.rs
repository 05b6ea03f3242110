//! Taking records away at both ends.

mod common;

use std::time::Duration;

use common::{Machine, NOW_MS, Spec, append, put, records_from};
use fleuve_os::{Disk, OpenMode};
use fleuve_protocol::records::EndTransactionMarker;
use fleuve_sim::{Effect, Fault, Operation};
use fleuve_storage::{Append, AppendError, CleanupPolicy, Log, LogConfig};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

const HOUR_MS: i64 = 3_600_000;

/// Five segments of two records each, an hour apart, the newest now.
fn five_segments(machine: &Machine) -> Log {
    let mut log = machine.open();
    for age in (0..5).rev() {
        let spec = Spec::sized(1, 300).at(NOW_MS - age * HOUR_MS);
        put(&mut log, &spec);
        put(&mut log, &spec);
        if age > 0 {
            log.roll().unwrap();
        }
    }
    assert_eq!(log.segment_offsets().len(), 5);
    log
}

fn start(log: &mut Log, high_watermark: i64) -> i64 {
    log.enforce_retention(Offset(high_watermark)).unwrap();
    let start = log.log_start_offset().0;
    assert_eq!(log.segment_offsets()[0].0, start);
    assert_eq!(records_from(log, start).len() as i64, log.log_end_offset().0 - start);
    start
}

#[test]
fn segments_go_by_age() {
    let config = LogConfig { retention_ms: Some(3 * HOUR_MS), ..LogConfig::default() };
    let machine = Machine::new(config);
    let mut log = five_segments(&machine);
    assert_eq!(start(&mut log, 10), 2, "four hours are more than three");
    machine.clock.advance(Duration::from_secs(3600));
    assert_eq!(start(&mut log, 3), 2, "not committed: not deleted");
    assert_eq!(start(&mut log, 10), 4);
    machine.clock.advance(Duration::from_secs(48 * 3600));
    assert_eq!(start(&mut log, 10), 10, "the active segment goes too, once rolled");
    assert_eq!(log.segment_offsets(), [Offset(10)]);
    assert_eq!(start(&mut log, 10), 10, "an empty segment stays");
    assert_eq!(put(&mut log, &Spec::values(&["x"])), 10);
    assert_eq!(machine.files(".deleted").len(), 5 * 3);
    machine.clock.advance(Duration::from_secs(61));
    machine.environment.remove_deleted_files().unwrap();
    assert!(machine.files(".deleted").is_empty());
}

#[test]
fn records_without_timestamps_have_the_age_of_their_file() {
    let config = LogConfig { retention_ms: Some(HOUR_MS), ..LogConfig::default() };
    let machine = Machine::new(config);
    let mut log = machine.open();
    machine.disk.set_time_ms(NOW_MS);
    put(&mut log, &Spec::values(&["a"]).at(-1));
    log.roll().unwrap();
    put(&mut log, &Spec::values(&["b"]).at(NOW_MS - 2 * HOUR_MS));
    log.roll().unwrap();
    assert_eq!(start(&mut log, 2), 0, "written now");
    machine.clock.advance(Duration::from_secs(3601));
    assert_eq!(start(&mut log, 2), 2, "and so old that it holds up nothing behind it");
}

/// Kafka's cleaner leaves them.
#[test]
fn an_empty_segment_holds_up_nothing_behind_it() {
    for by_age in [true, false] {
        let mut machine = Machine::new(LogConfig::default());
        let mut log = five_segments(&machine);
        log.close().unwrap();
        drop(log);
        machine.disk.set_time_ms(NOW_MS - 10 * HOUR_MS);
        let second = machine.path("00000000000000000002.log");
        machine.disk.open(&second, OpenMode::Write).unwrap().set_len(0).unwrap();
        machine.config = match by_age {
            true => LogConfig { retention_ms: Some(2 * HOUR_MS), ..LogConfig::default() },
            false => LogConfig { retention_bytes: Some(1_000), ..LogConfig::default() },
        };
        machine.restart();
        let mut log = machine.open_clean();
        log.enforce_retention(Offset(10)).unwrap();
        assert!(log.log_start_offset().0 >= 4, "by age: {by_age}, {:?}", log.segment_offsets());
    }
}

#[test]
fn segments_go_by_size_but_never_more_than_needed() {
    let machine = Machine::new(LogConfig::default());
    let mut log = five_segments(&machine);
    let segment = log.size().unwrap() / 5;
    for (limit, expected) in [(5 * segment, 0), (4 * segment + 1, 0), (4 * segment, 2), (1, 8)] {
        let config = LogConfig { retention_bytes: Some(limit), ..LogConfig::default() };
        log.set_config(config.into());
        assert_eq!(start(&mut log, 10), expected, "limit {limit}");
    }
}

#[test]
fn deleted_records_free_whole_segments_whatever_the_policy() {
    let cleanup = CleanupPolicy { delete: false, compact: false };
    let config = LogConfig { retention_ms: Some(1), cleanup, ..LogConfig::default() };
    let machine = Machine::new(config);
    let mut log = five_segments(&machine);
    assert_eq!(start(&mut log, 10), 0);
    log.delete_records_to(Offset(5)).unwrap();
    assert_eq!(log.enforce_retention(Offset(10)).unwrap(), 2);
    assert_eq!((log.log_start_offset(), log.segment_offsets()[0]), (Offset(5), Offset(4)));
    assert_eq!(records_from(&mut log, 5).len(), 5);
    log.delete_records_to(Offset(10)).unwrap();
    assert_eq!(log.enforce_retention(Offset(10)).unwrap(), 2, "the active segment stays");
    assert!(records_from(&mut log, 10).is_empty());
    assert_eq!(log.end_offset_for(LeaderEpoch(1), LeaderEpoch(1)).unwrap().end_offset, Offset(10));
}

#[test]
fn a_deletion_that_fails_is_tried_again() {
    let config = LogConfig { retention_bytes: Some(1), ..LogConfig::default() };
    let machine = Machine::new(config);
    let mut log = five_segments(&machine);
    assert_eq!(start(&mut log, 10), 8);
    machine.clock.advance(Duration::from_secs(61));
    machine.disk.inject(Fault::on(Operation::Remove, Effect::InputOutputError).times(3));
    assert!(machine.environment.remove_deleted_files().is_err());
    assert_eq!(machine.files(".deleted").len(), 3, "the others are gone");
    machine.clock.advance(Duration::from_secs(61));
    machine.environment.remove_deleted_files().unwrap();
    assert!(machine.files(".deleted").is_empty());
}

#[test]
fn truncation_takes_segments_epochs_and_sequences_along() {
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    for number in 0..12 {
        let records = Spec::sized(1, 100).from(7, 0, number).build();
        let epoch = LeaderEpoch(number / 4);
        log.append(Append::from_client(records, epoch)).unwrap();
        if number % 3 == 2 {
            log.roll().unwrap();
        }
    }
    log.flush().unwrap();
    log.truncate_to(Offset(20)).unwrap();
    assert_eq!(log.log_end_offset(), Offset(12), "nothing to cut");
    log.truncate_to(Offset(7)).unwrap();
    assert_eq!((log.log_end_offset(), log.flushed_offset()), (Offset(7), Offset(7)));
    assert_eq!(log.segment_offsets(), [Offset(0), Offset(3), Offset(6)]);
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(1)));
    assert_eq!(records_from(&mut log, 0).len(), 7);
    let gap = append(&mut log, &Spec::sized(1, 100).from(7, 0, 12)).unwrap_err();
    assert!(matches!(gap, AppendError::OutOfOrderSequence { last_sequence: 6, .. }), "{gap}");
    assert_eq!(put(&mut log, &Spec::sized(1, 100).from(7, 0, 7)), 7);
    log.close().unwrap();
    machine.restart();
    let mut log = machine.open_clean();
    assert_eq!(records_from(&mut log, 0).len(), 8);

    log.truncate_fully_and_start_at(Offset(100)).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(100), Offset(100)));
    assert_eq!(log.latest_epoch(), None);
    assert_eq!(put(&mut log, &Spec::sized(1, 100).from(7, 0, 55)), 100, "nobody remembers");
}

#[test]
fn a_flush_begun_before_a_truncation_proves_nothing_after_it() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &Spec::sized(5, 10));
    let job = log.begin_flush().expect("there are unflushed records");
    assert!(log.begin_flush().is_none(), "one at a time");
    let outcome = job.run();
    log.truncate_to(Offset(0)).unwrap();
    put(&mut log, &Spec::sized(9, 10));
    assert_eq!(log.finish_flush(job, outcome).unwrap(), Offset(0));
    assert!(log.needs_flush());
    assert_eq!(log.flush().unwrap(), Offset(9));
}

#[test]
fn the_first_unstable_offset_follows_transactions_and_restarts() {
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    let data = |id, sequence| Spec {
        transactional: true,
        ..Spec::values(&["a", "b"]).from(id, 0, sequence)
    };
    let end = |log: &mut Log, id, epoch, coordinator_epoch| {
        let marker = EndTransactionMarker { committed: true, coordinator_epoch };
        let batch = marker.to_batch(ProducerId(id), ProducerEpoch(epoch), TimestampMs(NOW_MS));
        log.append(Append::from_coordinator(batch, LeaderEpoch(1)))
    };
    put(&mut log, &Spec::values(&["plain"]));
    put(&mut log, &data(1, 0));
    put(&mut log, &data(2, 0));
    put(&mut log, &data(1, 2));
    assert_eq!(log.first_unstable_offset(), Some(Offset(1)));
    end(&mut log, 1, 0, 5).unwrap();
    assert!(!log.note_high_watermark(Offset(7)), "the marker is not below it");
    assert_eq!(log.first_unstable_offset(), Some(Offset(1)));
    assert!(log.note_high_watermark(Offset(8)));
    assert_eq!(log.first_unstable_offset(), Some(Offset(3)));
    let zombie = end(&mut log, 1, 0, 4).unwrap_err();
    assert!(matches!(zombie, AppendError::TransactionCoordinatorFenced { current: 5, .. }));
    let outside = append(&mut log, &Spec::values(&["x"]).from(2, 0, 2)).unwrap_err();
    assert!(matches!(outside, AppendError::InvalidTransactionState { .. }));

    for had_clean_shutdown in [false, true] {
        if had_clean_shutdown {
            log.close().unwrap();
        }
        machine.restart();
        log = machine.try_open(had_clean_shutdown, 0).unwrap().0;
        log.note_high_watermark(log.log_end_offset());
        assert_eq!(log.first_unstable_offset(), Some(Offset(3)));
    }
    let open: Vec<_> = log.producers().filter(|view| view.transaction_begin.is_some()).collect();
    assert_eq!((open.len(), open[0].producer_id), (1, ProducerId(2)));
    machine.clock.advance(Duration::from_secs(48 * 3600));
    log.expire_producers();
    assert_eq!(log.producers().count(), 1, "an open transaction keeps its producer");
    end(&mut log, 2, 1, 5).unwrap();
    log.note_high_watermark(log.log_end_offset());
    assert_eq!(log.first_unstable_offset(), None);
    let fenced = append(&mut log, &data(2, 2)).unwrap_err();
    assert!(matches!(fenced, AppendError::InvalidProducerEpoch { .. }), "the marker raised it");
}

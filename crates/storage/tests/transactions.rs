//! What a log tells of transactions, whatever happens to it: which were aborted, and where the
//! oldest that is undecided begins.

mod common;

use std::collections::HashMap;

use common::{Machine, NOW_MS, Spec, append, batches_from, put};
use fleuve_os::Disk;
use fleuve_protocol::records::{EndTransactionMarker, RecordIter, layout};
use fleuve_sim::Crash;
use fleuve_storage::{
    Append, AppendError, Appended, Log, LogConfig, OpenOptions, TransactionCheck,
};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use proptest::prelude::*;

const INDEX: &str = "00000000000000000000.txnindex";

fn data(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Spec {
    Spec { transactional: true, ..Spec::values(values).from(id, epoch, sequence) }
}

fn end(log: &mut Log, id: i64, epoch: i16, committed: bool) -> Result<Appended, AppendError> {
    let marker = EndTransactionMarker { committed, coordinator_epoch: 0 };
    let batch = marker.to_batch(ProducerId(id), ProducerEpoch(epoch), TimestampMs(NOW_MS));
    log.append(Append::from_coordinator(batch, LeaderEpoch(1)))
}

/// Entries as numbers: producer, first, last, last stable offset.
fn aborted(log: &mut Log, offset: i64, limit: i64) -> Vec<[i64; 4]> {
    let found = log.aborted_transactions(Offset(offset), Offset(limit)).unwrap();
    let numbers = found.iter().map(|entry| {
        [entry.producer_id.0, entry.first_offset.0, entry.last_offset.0, entry.last_stable_offset.0]
    });
    numbers.collect()
}

#[test]
fn aborted_transactions_are_found_by_range_and_survive_restarts() {
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &data(1, 0, 0, &["a", "b"]));
    put(&mut log, &data(2, 0, 0, &["c"]));
    put(&mut log, &data(3, 0, 0, &["d"]));
    end(&mut log, 2, 0, false).unwrap();
    end(&mut log, 3, 0, true).unwrap();
    log.roll().unwrap();
    end(&mut log, 1, 0, false).unwrap();
    end(&mut log, 1, 0, false).unwrap();
    put(&mut log, &data(1, 0, 2, &["e"]));
    let entries = [[2, 2, 4, 0], [1, 0, 6, 7]];
    for round in 0..4 {
        assert_eq!(aborted(&mut log, 0, 100), entries, "round {round}");
        assert_eq!(aborted(&mut log, 5, 100), entries[1..], "round {round}");
        assert_eq!(aborted(&mut log, 0, 2), entries[1..], "round {round}");
        assert_eq!(aborted(&mut log, 7, 100), [[0; 4]; 0], "round {round}");
        assert_eq!(log.first_unstable_offset(), Some(Offset(if round == 0 { 0 } else { 8 })));
        let recovery_point = log.recovery_point();
        let had_clean_shutdown = round != 0;
        match round {
            0 => {
                log.flush().unwrap();
                machine.disk.crash(Crash::LoseUnsynced);
            }
            1 => drop(log.close().unwrap()),
            _ => {
                log.close().unwrap();
                let path = machine.path("00000000000000000006.txnindex");
                machine.disk.damage(&path, |bytes| bytes[1] ^= 0x80);
            }
        }
        machine.restart();
        let options = OpenOptions { had_clean_shutdown, recovery_point, ..machine.options() };
        log = Log::open(&machine.environment, options).unwrap().0;
        log.note_high_watermark(log.log_end_offset());
    }
    let stored = machine.disk.read_file(&machine.path(INDEX)).unwrap();
    assert_eq!(stored.len(), 34);
    assert_eq!(&stored[..10], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    log.truncate_to(Offset(6)).unwrap();
    assert_eq!(aborted(&mut log, 0, 100), entries[..1]);
    assert_eq!(log.first_unstable_offset(), Some(Offset(0)));
}

#[test]
fn a_transaction_begins_only_with_the_guard_of_its_verification() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    let try_append = |log: &mut Log, spec: &Spec, guard| {
        let append = Append::from_client(spec.build(), LeaderEpoch(1));
        log.append(append.with_check(TransactionCheck::Required(guard)))
    };
    let begin = |log: &mut Log, epoch, sequence| {
        log.begin_verification(ProducerId(1), ProducerEpoch(epoch), sequence, true)
    };
    let first = data(1, 0, 0, &["a"]);
    let unverified = try_append(&mut log, &first, None).unwrap_err();
    assert!(matches!(unverified, AppendError::NotInTransaction { .. }), "{unverified}");
    let guard = begin(&mut log, 0, 0).expect("no transaction is open");
    assert_eq!(begin(&mut log, 0, 0), Some(guard), "whoever asks meanwhile shares it");
    // The transaction is aborted before the answer comes, and with it what the guard stood for.
    end(&mut log, 1, 0, false).unwrap();
    let late = try_append(&mut log, &first, Some(guard)).unwrap_err();
    assert!(matches!(late, AppendError::NotInTransaction { .. }), "{late}");
    // A marker of version 2 fences the batch, which its producer can recover from.
    let guard = log.begin_verification(ProducerId(2), ProducerEpoch(0), 0, false);
    end(&mut log, 2, 1, false).unwrap();
    let fenced = try_append(&mut log, &data(2, 0, 0, &["a"]), guard).unwrap_err();
    assert!(matches!(fenced, AppendError::InvalidProducerEpoch { .. }), "{fenced}");

    let guard = begin(&mut log, 0, 1);
    let gap = try_append(&mut log, &data(1, 0, 1, &["b"]), guard).unwrap_err();
    assert!(matches!(gap, AppendError::OutOfOrderSequence { sequence: 1, .. }), "{gap}");
    assert_eq!(begin(&mut log, 0, 0), guard);
    try_append(&mut log, &first, guard).unwrap();
    assert_eq!(begin(&mut log, 0, 1), None, "it is open now");
    try_append(&mut log, &data(1, 0, 1, &["b"]), None).unwrap();
    assert!(try_append(&mut log, &first, None).unwrap().is_duplicate);
    assert!(begin(&mut log, 1, 0).is_some(), "a later epoch has no transaction yet");
    let outside = try_append(&mut log, &data(1, 1, 0, &["c"]), None).unwrap_err();
    assert!(matches!(outside, AppendError::NotInTransaction { .. }), "{outside}");
}

#[derive(Clone, Debug)]
enum Step {
    Begin { producer: i64, count: usize },
    End { producer: i64, committed: bool },
    Plain { size: usize },
    Roll,
    Flush,
    Checkpoint,
    Truncate { offset: u64 },
    DeleteRecords { offset: u64 },
    Retain,
    CloseAndReopen,
    Crash { seed: Option<u64> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..4i64, 1..4usize).prop_map(|(producer, count)| Step::Begin { producer, count }),
        8 => (0..4i64, any::<bool>())
            .prop_map(|(producer, committed)| Step::End { producer, committed }),
        3 => (0..200usize).prop_map(|size| Step::Plain { size }),
        2 => Just(Step::Roll),
        2 => Just(Step::Flush),
        1 => Just(Step::Checkpoint),
        1 => any::<u64>().prop_map(|offset| Step::Truncate { offset }),
        1 => any::<u64>().prop_map(|offset| Step::DeleteRecords { offset }),
        1 => Just(Step::Retain),
        1 => Just(Step::CloseAndReopen),
        2 => prop::option::of(any::<u64>()).prop_map(|seed| Step::Crash { seed }),
    ]
}

/// What became of the transaction of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

/// Every transactional batch in the log with its fate, found by walking over it.
fn fates(log: &mut Log) -> Vec<(i64, i64, Fate)> {
    let mut found: Vec<(i64, i64, Fate)> = Vec::new();
    let mut open: HashMap<i64, Vec<usize>> = HashMap::new();
    let start = log.log_start_offset().0;
    for batch in batches_from(log, start) {
        let producer = batch.header.producer_id.0;
        if batch.header.attributes.is_control() {
            let mut records = RecordIter::new(&batch.header, &batch.bytes[layout::HEADER_SIZE..]);
            let record = records.next().unwrap().unwrap();
            let marker = EndTransactionMarker::of(&record).unwrap().unwrap();
            let fate = if marker.committed { Fate::Committed } else { Fate::Aborted };
            for index in open.remove(&producer).into_iter().flatten() {
                found[index].2 = fate;
            }
        } else if batch.header.attributes.is_transactional() {
            open.entry(producer).or_default().push(found.len());
            found.push((producer, batch.header.base_offset.0, Fate::Open));
        }
    }
    found
}

/// Checks what a consumer relies on that reads from `offset` to before `limit`.
fn check_range(log: &mut Log, fates: &[(i64, i64, Fate)], offset: i64, limit: i64) {
    let entries = aborted(log, offset, limit);
    for (producer, base, fate) in fates.iter().filter(|(_, base, _)| (offset..limit).contains(base))
    {
        let is_hidden = entries
            .iter()
            .any(|[id, first, last, _]| id == producer && (first..=last).contains(&base));
        let should_be = *fate == Fate::Aborted;
        assert_eq!(is_hidden, should_be, "{producer} at {base} is {fate:?}: {entries:?}");
    }
}

fn run(steps: Vec<Step>) {
    let config = LogConfig {
        segment_bytes: 1500,
        index_interval_bytes: 150,
        retention_bytes: Some(4000),
        ..LogConfig::default()
    };
    let mut machine = Machine::new(config);
    let mut log = machine.open();
    let (mut recovery_point, mut stored_start, mut durable) = (0, 0, 0);
    for step in steps {
        let log_end = log.log_end_offset().0;
        durable = log.flushed_offset().0.max(durable);
        let chosen = |log: &Log, choice: u64| {
            let start = log.log_start_offset().0;
            start + (choice % (log_end - start + 1) as u64) as i64
        };
        match step {
            Step::Begin { producer, count } => {
                let values = vec!["value"; count];
                let known = log.producers().find(|view| view.producer_id.0 == producer);
                let next = known.map_or(0, |view| view.last_sequence + 1);
                put(&mut log, &data(producer, 0, next, &values));
            }
            Step::End { producer, committed } => {
                end(&mut log, producer, 0, committed).unwrap();
            }
            Step::Plain { size } => {
                append(&mut log, &Spec::sized(1, size)).unwrap();
            }
            Step::Roll => log.roll().unwrap(),
            Step::Flush => drop(log.flush().unwrap()),
            Step::Checkpoint => recovery_point = log.checkpoint().unwrap().0,
            Step::Truncate { offset } => {
                let offset = chosen(&log, offset);
                let batches = batches_from(&mut log, offset);
                let offset = batches.first().map_or(offset, |batch| batch.header.base_offset.0);
                log.truncate_to(Offset(offset)).unwrap();
                recovery_point = offset.min(recovery_point);
                stored_start = offset.min(stored_start);
                durable = offset.min(durable);
            }
            Step::DeleteRecords { offset } => {
                let offset = chosen(&log, offset);
                let batches = batches_from(&mut log, offset);
                let offset = batches.first().map_or(offset, |batch| batch.header.base_offset.0);
                log.delete_records_to(Offset(offset)).unwrap();
                stored_start = offset;
            }
            Step::Retain => drop(log.enforce_retention(Offset(log_end)).unwrap()),
            Step::CloseAndReopen => {
                log.close().unwrap();
                machine.restart();
                recovery_point = log.recovery_point().0;
                stored_start = log.log_start_offset().0;
                let options = OpenOptions {
                    had_clean_shutdown: true,
                    recovery_point: log.recovery_point(),
                    log_start: log.log_start_offset(),
                    ..machine.options()
                };
                log = Log::open(&machine.environment, options).unwrap().0;
            }
            Step::Crash { seed } => {
                durable = log.flushed_offset().0.max(durable);
                let crash = seed.map_or(Crash::LoseUnsynced, |seed| Crash::KeepRandom { seed });
                machine.disk.crash(crash);
                machine.restart();
                let options = OpenOptions {
                    recovery_point: Offset(recovery_point.min(durable)),
                    log_start: Offset(stored_start.min(durable)),
                    ..machine.options()
                };
                let (reopened, recovery) = Log::open(&machine.environment, options).unwrap();
                assert!(!recovery.lost_synced_records);
                log = reopened;
                stored_start = log.log_start_offset().0;
            }
        }
        let (start, log_end) = (log.log_start_offset().0, log.log_end_offset().0);
        let fates = fates(&mut log);
        check_range(&mut log, &fates, start, log_end);
        let middle = start + (log_end - start) / 2;
        check_range(&mut log, &fates, start, middle);
        check_range(&mut log, &fates, middle, log_end);
        // What is undecided at some high watermark is never shown.
        let high_watermark = log.flushed_offset();
        log.note_high_watermark(high_watermark);
        let stable = log.first_unstable_offset().map_or(high_watermark.0, |offset| offset.0);
        for (_, base, fate) in &fates {
            assert!(*fate != Fate::Open || *base >= stable, "{base} is open and before {stable}");
        }
    }
    log.flush().unwrap();
    log.note_high_watermark(log.log_end_offset());
    let oldest = fates(&mut log).into_iter().find(|(_, _, fate)| *fate == Fate::Open);
    let stable = log.first_unstable_offset();
    match (oldest, stable) {
        (Some((_, base, _)), Some(stable)) => assert!(stable.0 <= base),
        (None, None) => {}
        // Its records were deleted, and it is still open.
        (None, Some(stable)) => assert!(stable >= log.log_start_offset()),
        (Some(open), None) => panic!("{open:?} is open, and everything is stable"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_consumers_are_told_what_was_aborted(
        steps in prop::collection::vec(step(), 1..100)
    ) {
        run(steps);
    }
}

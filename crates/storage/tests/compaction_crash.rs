//! Compaction while the power fails: at every single step, in every way.

mod common;

use std::collections::BTreeMap;

use common::{Machine, NOW_MS, batches_from};
use fleuve_protocol::records::{BatchBuilder, BatchOptions, Decompressor, NewRecord, RecordIter};
use fleuve_sim::{Crash, SimDisk};
use fleuve_storage::{Append, CleanError, Cleaner, CleanerOptions, CleanupPolicy, Log, LogConfig};
use fleuve_types::{LeaderEpoch, TimestampMs};

type Value = Option<Vec<u8>>;

fn config() -> LogConfig {
    LogConfig {
        cleanup: CleanupPolicy { delete: false, compact: true },
        segment_bytes: 1200,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

fn put(log: &mut Log, key: u8, value: Option<&[u8]>) -> i64 {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let record = NewRecord {
        timestamp: TimestampMs(NOW_MS),
        key: Some(&[key]),
        value,
        ..NewRecord::default()
    };
    builder.append(&record).unwrap();
    let append = Append::from_client(builder.finish(), LeaderEpoch(1));
    log.append(append).unwrap().first_offset.0
}

fn clean(machine: &Machine, log: &mut Log) -> Result<(), CleanError> {
    let end = log.log_end_offset();
    let Some(job) = log.begin_clean(end)? else { return Ok(()) };
    let cleaner = Cleaner::new(&machine.environment, CleanerOptions::default());
    let outcome = cleaner.run(&job, &mut |_| Ok(()), &mut |job, group| log.swap_in(job, group));
    log.finish_clean(job, outcome).map(|_| ())
}

fn records(log: &mut Log) -> Vec<(i64, u8, Value)> {
    let mut records = Vec::new();
    let mut decompressor = Decompressor::new(1 << 20);
    for batch in batches_from(log, 0) {
        let plain = batch.records(&mut decompressor).unwrap();
        for record in RecordIter::new(&batch.header, &plain) {
            let record = record.unwrap();
            let key = record.key.unwrap()[0];
            records.push((record.offset.0, key, record.value.map(<[u8]>::to_vec)));
        }
    }
    records
}

fn latest(records: &[(i64, u8, Value)]) -> BTreeMap<u8, Value> {
    // A tombstone that is gone and one that is there mean the same.
    let mut latest: BTreeMap<u8, Value> =
        records.iter().map(|(_, key, value)| (*key, value.clone())).collect();
    latest.retain(|_, value| value.is_some());
    latest
}

/// A log of several groups with tombstones whose time is over, compacted once before.
fn prepared() -> (Machine, i64) {
    let machine = Machine::new(config());
    let mut log = machine.open();
    for number in 0..60_u8 {
        let value = [number; 20];
        put(&mut log, number % 12, (number % 7 != 3).then_some(&value[..]));
    }
    log.checkpoint().unwrap();
    clean(&machine, &mut log).unwrap();
    machine.clock.advance(std::time::Duration::from_secs(48 * 3600));
    for number in 60..110_u8 {
        let value = [number; 20];
        put(&mut log, 5 + number % 13, (number % 5 != 3).then_some(&value[..]));
    }
    let recovery_point = log.checkpoint().unwrap().0;
    assert!(log.segment_offsets().len() > 5);
    (machine, recovery_point)
}

/// Checks a disk after a crash against what there was before, and that the log goes on from there.
fn assert_whole(
    machine: &Machine,
    recovery_point: i64,
    before: &[(i64, u8, Value)],
    context: &str,
) {
    let (mut log, recovery) =
        machine.try_open(false, recovery_point).unwrap_or_else(|e| panic!("{context}: {e}"));
    assert!(!recovery.lost_synced_records, "{context}");
    assert_eq!(recovery.cut_bytes, 0, "{context}");
    let found = records(&mut log);
    assert_eq!(latest(&found), latest(before), "{context}");
    assert!(found.iter().all(|record| before.contains(record)), "{context}");
    assert_eq!(log.log_end_offset().0, 110, "{context}");
    for leftover in [".cleaned", ".swap", ".deleted"] {
        assert!(machine.files(leftover).is_empty(), "{context}");
    }
    put(&mut log, 200, Some(b"next"));
    log.roll().unwrap();
    log.checkpoint().unwrap();
    clean(machine, &mut log).unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut expected = latest(before);
    expected.insert(200, Some(b"next".to_vec()));
    assert_eq!(latest(&records(&mut log)), expected, "{context}");
}

fn on(disk: SimDisk, like: &Machine) -> Machine {
    let machine = Machine::on(disk, like.config.clone());
    machine.clock.advance(std::time::Duration::from_secs(48 * 3600));
    machine
}

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new() {
    let (machine, recovery_point) = prepared();
    let mut log = machine.try_open(false, recovery_point).unwrap().0;
    log.checkpoint().unwrap();
    let before = records(&mut log);
    let changes_before = machine.disk.changes();
    let whole = machine.disk.fork();
    clean(&machine, &mut log).unwrap();
    let steps = machine.disk.changes() - changes_before;
    assert!(steps > 40, "{steps}");
    assert!(records(&mut log).len() < before.len() / 2);

    let mut crashes = vec![Crash::LoseUnsynced, Crash::KeepAll];
    crashes.extend((0..3).map(|seed| Crash::KeepRandom { seed }));
    for step in 0..=steps {
        for crash in &crashes {
            let mut machine = on(whole.fork(), &machine);
            let context = format!("step {step} of {steps}, {crash:?}");
            let (mut log, _) = machine.try_open(false, recovery_point).unwrap();
            machine.disk.fail_power_after(step);
            assert_eq!(clean(&machine, &mut log).is_ok(), step == steps, "{context}");
            drop(log);
            machine.disk.crash(*crash);
            machine.restart();
            assert_whole(&machine, recovery_point, &before, &context);
        }
    }
}

#[test]
fn without_checkpoints_a_crash_leaves_the_old_or_the_new() {
    let (machine, _) = prepared();
    let mut log = machine.open();
    log.checkpoint().unwrap();
    let before = records(&mut log);
    let whole = machine.disk.fork();
    let changes_before = machine.disk.changes();
    clean(&machine, &mut log).unwrap();
    let steps = machine.disk.changes() - changes_before;
    for step in 0..=steps {
        let mut machine = on(whole.fork(), &machine);
        let mut log = machine.open();
        log.checkpoint().unwrap();
        machine.disk.fail_power_after(step);
        assert_eq!(clean(&machine, &mut log).is_ok(), step == steps);
        machine.disk.crash(Crash::KeepRandom { seed: step });
        machine.restart();
        assert_whole(&machine, 0, &before, &format!("step {step}"));
        // Whatever policy holds by then: compaction leaves no holes that look like lost writes.
        machine.disk.crash(Crash::LoseUnsynced);
        machine.config.cleanup = CleanupPolicy { delete: true, compact: false };
        machine.config.retention_ms = None;
        machine.restart();
        let mut log = machine.open();
        assert_eq!(log.log_end_offset().0, 111, "step {step}");
        assert_eq!(latest(&records(&mut log)).remove(&200), Some(Some(b"next".to_vec())));
    }
}

#[test]
fn a_crash_while_an_interrupted_swap_is_finished_is_survived() {
    let (machine, recovery_point) = prepared();
    let mut log = machine.try_open(false, recovery_point).unwrap().0;
    log.checkpoint().unwrap();
    let before = records(&mut log);
    let whole = machine.disk.fork();
    let changes_before = machine.disk.changes();
    clean(&machine, &mut log).unwrap();
    let steps = machine.disk.changes() - changes_before;
    let mut swaps = 0;
    for step in 0..steps {
        let interrupted = on(whole.fork(), &machine);
        let (mut log, _) = interrupted.try_open(false, recovery_point).unwrap();
        interrupted.disk.fail_power_after(step);
        assert!(clean(&interrupted, &mut log).is_err());
        interrupted.disk.crash(Crash::KeepAll);
        if interrupted.files(".log.swap").is_empty() {
            continue;
        }
        swaps += 1;
        for again in 0.. {
            let mut machine = on(interrupted.disk.fork(), &machine);
            machine.disk.fail_power_after(again);
            let opened = machine.try_open(false, recovery_point).is_ok();
            machine.disk.crash(Crash::KeepRandom { seed: again });
            machine.restart();
            let context = format!("step {step}, again {again}");
            assert_whole(&machine, recovery_point, &before, &context);
            if opened {
                break;
            }
        }
    }
    assert!(swaps > 8, "{swaps}");
}

#[test]
fn a_failing_disk_leaves_the_log_as_it_was_or_closed() {
    use fleuve_sim::{Effect, Fault, Operation};
    let (machine, recovery_point) = prepared();
    let mut log = machine.try_open(false, recovery_point).unwrap().0;
    log.checkpoint().unwrap();
    let before = records(&mut log);
    let whole = machine.disk.fork();
    let mut failures = 0;
    for operation in [Operation::Rename, Operation::SyncDir, Operation::Write, Operation::Sync] {
        for skip in 0..40 {
            let mut machine = on(whole.fork(), &machine);
            let (mut log, _) = machine.try_open(false, recovery_point).unwrap();
            machine.disk.inject(Fault::on(operation, Effect::InputOutputError).skip(skip));
            let context = format!("{operation:?} {skip}");
            if clean(&machine, &mut log).is_ok() {
                break;
            }
            failures += 1;
            machine.disk.clear_faults();
            if log.failure().is_none() {
                assert_eq!(latest(&records(&mut log)), latest(&before), "{context}");
                clean(&machine, &mut log).unwrap_or_else(|error| panic!("{context}: {error}"));
            }
            drop(log);
            machine.disk.crash(Crash::KeepAll);
            machine.restart();
            assert_whole(&machine, recovery_point, &before, &context);
        }
    }
    assert!(failures > 20, "{failures}");
}

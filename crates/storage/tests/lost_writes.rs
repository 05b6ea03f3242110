//! Syncs that fail, and what the next sync is worth: the disk forgets what such a sync was about.

mod common;

use common::{Machine, NOW_MS, Spec, append, put, records_from};
use fleuve_os::{Disk, Random};
use fleuve_protocol::records::EndTransactionMarker;
use fleuve_sim::{Crash, Effect, Fault, Operation, SimRandom};
use fleuve_storage::{Append, AppendError, Log, LogConfig, LogError};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

const LOG: &str = "/data/orders-0/00000000000000000000.log";
const NOTE: &str = ".fleuve-sync-failed";

fn no_space(path: &str) -> Fault {
    Fault::on(Operation::Sync, Effect::OutOfSpace).path(path)
}

fn is_full(error: &LogError) -> bool {
    error.is_out_of_space()
}

fn is_refused_as_full(log: &mut Log) -> bool {
    let refused = append(log, &Spec::values(&["refused"])).unwrap_err();
    matches!(refused, AppendError::Log(LogError::NoSpace { .. }))
}

#[test]
fn a_sync_without_space_is_repeated_with_all_that_it_was_about() {
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &Spec::values(&["kept"]));
    log.flush().unwrap();
    put(&mut log, &Spec::values(&["a", "b"]));
    put(&mut log, &Spec::values(&["c"]));
    machine.disk.inject(no_space(".log"));
    assert!(is_full(&log.flush().unwrap_err()));
    assert_eq!((log.flushed_offset(), log.failure()), (Offset(1), None));
    assert!(log.has_lost_writes());
    assert!(is_refused_as_full(&mut log), "what comes after must not be durable before");
    assert_eq!(records_from(&mut log, 0).len(), 4, "everything can be read meanwhile");
    assert_eq!(machine.files(NOTE).len(), 1);

    // The disk would report success now although it lacks the records.
    assert_eq!(log.flush().unwrap(), Offset(4));
    assert!(!log.has_lost_writes());
    assert_eq!(machine.files(NOTE).len(), 0);
    assert_eq!(put(&mut log, &Spec::values(&["d"])), 4);
    log.flush().unwrap();
    machine.disk.crash(Crash::LoseUnsynced);
    machine.restart();
    let mut log = machine.open();
    let values: Vec<_> = records_from(&mut log, 0).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [b"kept".to_vec(), b"a".into(), b"b".into(), b"c".into(), b"d".into()]);
}

#[test]
fn as_long_as_there_is_no_space_nothing_is_durable_and_nothing_fails() {
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &Spec::values(&["a"]).from(5, 0, 0));
    machine.disk.inject(no_space(".log"));
    assert!(is_full(&log.flush().unwrap_err()), "the sync");
    machine.disk.inject(Fault::on(Operation::Write, Effect::OutOfSpaceAfter(7)).path(".log"));
    assert!(is_full(&log.flush().unwrap_err()), "writing again");
    assert!(is_refused_as_full(&mut log));
    machine.disk.inject(no_space(".log"));
    assert!(is_full(&log.checkpoint().unwrap_err()), "the sync after that");
    assert!(is_refused_as_full(&mut log));
    assert_eq!((log.flushed_offset(), log.failure()), (Offset(0), None));
    assert_eq!(log.flush().unwrap(), Offset(1));
    let again = append(&mut log, &Spec::values(&["a"]).from(5, 0, 0)).unwrap();
    assert!(again.is_duplicate, "the producer's next try finds its record");
    put(&mut log, &Spec::values(&["b"]).from(5, 0, 1));
    log.close().unwrap();
    drop(log);
    machine.disk.crash(Crash::LoseUnsynced);
    machine.restart();
    assert_eq!(records_from(&mut machine.open_clean(), 0).len(), 2);
}

#[test]
fn what_is_not_in_memory_any_more_ends_the_log_and_is_never_called_durable() {
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &Spec::values(&["kept"]));
    log.flush().unwrap();
    let durable = machine.disk.read_file(LOG.as_ref()).unwrap().len();
    put(&mut log, &Spec::values(&["lost"]));
    machine.disk.inject(no_space(".log"));
    assert!(log.flush().is_err());
    // The pages were dropped, and what is read is what the disk holds: nothing.
    machine.disk.damage(LOG.as_ref(), |bytes| bytes[durable..].fill(0));
    assert!(log.flush().is_err());
    assert!(log.failure().is_some_and(|reason| reason.contains("damaged")), "{:?}", log.failure());
    assert_eq!(log.flushed_offset(), Offset(1));
    assert!(matches!(
        append(&mut log, &Spec::values(&["refused"])).unwrap_err(),
        AppendError::Log(LogError::Failed { .. })
    ));
    drop(log);
    machine.restart();
    let mut log = machine.open();
    assert_eq!(records_from(&mut log, 0), [(0, b"kept".to_vec())]);
    assert_eq!(put(&mut log, &Spec::values(&["again"])), 1);
    log.flush().unwrap();
}

/// What a process finds in memory after a failed sync is not what the disk has, and no sync brings it
/// there.
#[test]
fn a_process_after_a_failed_sync_does_not_believe_what_it_finds_in_memory() {
    for effect in [Effect::InputOutputError, Effect::OutOfSpace] {
        for is_clean in [false, true] {
            let mut machine = Machine::new(LogConfig::default());
            let mut log = machine.open();
            put(&mut log, &Spec::values(&["kept"]));
            log.checkpoint().unwrap();
            put(&mut log, &Spec::values(&["doomed"]));
            machine.disk.inject(Fault::on(Operation::Sync, effect).path(".log"));
            assert!(log.flush().is_err());
            drop(log);
            // The machine lives on.
            machine.restart();
            let (mut log, _) = machine.try_open(is_clean, 1).unwrap();
            assert_eq!(log.flushed_offset(), Offset(1));
            assert_eq!(log.flush().unwrap(), Offset(2), "from now on it is there");
            assert_eq!(machine.files(NOTE).len(), 0);
            machine.disk.crash(Crash::LoseUnsynced);
            machine.restart();
            let (mut log, _) = machine.try_open(false, 1).unwrap();
            assert_eq!(records_from(&mut log, 1), [(1, b"doomed".to_vec())], "{effect:?}");
        }
    }
}

/// Ends a transaction.
fn end(log: &mut Log, id: i64, committed: bool) -> Result<(), AppendError> {
    let marker = EndTransactionMarker { committed, coordinator_epoch: 0 };
    let batch = marker.to_batch(ProducerId(id), ProducerEpoch(0), TimestampMs(NOW_MS));
    log.append(Append::from_coordinator(batch, LeaderEpoch(1))).map(|_| ())
}

/// Whatever a full disk does to syncs and writes, what a flush has promised survives, aborted
/// transactions are known as such, and with space everything goes on.
#[test]
fn a_disk_that_is_full_now_and_then_keeps_every_promise() {
    const SEEDS: u64 = 40;
    let mut lost = 0;
    for seed in 0..SEEDS {
        let random = SimRandom::seeded(seed);
        let config =
            LogConfig { segment_bytes: 3000, index_interval_bytes: 200, ..LogConfig::default() };
        let mut machine = Machine::new(config);
        let mut log = machine.open();
        let (mut sequence, mut aborted, mut recovery_point) = (0, Vec::new(), 0);
        for round in 0..120 {
            if random.once_in(4) {
                let (operation, path) = match random.below(4) {
                    0 => (Operation::Sync, "index"),
                    1 => (Operation::Write, ".log"),
                    2 => (Operation::SyncDir, "orders"),
                    _ => (Operation::Sync, ".log"),
                };
                machine.disk.inject(Fault::on(operation, Effect::OutOfSpace).path(path));
            }
            let size = 1 + random.below(400) as usize;
            let mut spec = Spec::sized(1, size).from(7, 0, sequence);
            spec.transactional = true;
            if append(&mut log, &spec).is_ok() {
                sequence += 1;
                let offset = log.log_end_offset().0 - 1;
                let is_aborted = random.once_in(2);
                // The marker has to come before the next record; without space it comes later.
                while let Err(error) = end(&mut log, 7, !is_aborted) {
                    assert!(matches!(&error, AppendError::Log(error) if is_full(error)), "{error}");
                    // Its outcome is of no interest.
                    let _ = log.flush();
                }
                if is_aborted {
                    aborted.push(offset);
                }
            }
            lost += usize::from(log.has_lost_writes());
            let flushed = match random.below(4) {
                0 => log.checkpoint().map(|point| {
                    recovery_point = point.0;
                    log.flushed_offset()
                }),
                _ => log.flush(),
            };
            assert_eq!(log.failure(), None, "seed {seed}, round {round}");
            let Ok(flushed) = flushed else { continue };
            if round % 10 != 9 {
                continue;
            }
            let end = log.log_end_offset();
            machine.disk.clear_faults();
            match round % 20 {
                9 => machine.disk.crash(Crash::LoseUnsynced),
                _ => machine.disk.crash(Crash::KeepRandom { seed }),
            }
            machine.restart();
            (log, _) = machine.try_open(false, recovery_point).unwrap();
            assert_eq!((flushed, log.log_end_offset()), (end, end), "seed {seed}, round {round}");
            let found = log.aborted_transactions(Offset(0), end).unwrap();
            let found: Vec<i64> = found.iter().map(|found| found.first_offset.0).collect();
            assert_eq!(found, aborted, "seed {seed}, round {round}");
        }
    }
    assert!(lost > 100, "{lost} times: the faults did not strike");
}

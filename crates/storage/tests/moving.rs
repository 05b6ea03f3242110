//! Several data directories: moving logs between them, and doing without one that fails.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Machine, Spec, put, records_from};
use fleuve_os::Disk;
use fleuve_sim::{Crash, Effect, Fault, Operation};
use fleuve_storage::{
    Append, CleanJob, Cleaner, CleanerOptions, CleanupPolicy, DirectoryError, Log, LogConfig,
    LogError, LogManager, ManagerOptions, Opened,
};
use fleuve_types::{LeaderEpoch, Offset, TopicPartition, Uuid};

const ID: Uuid = Uuid([9; 16]);
const FROM: &str = "/data/a";
const TO: &str = "/data/b";

fn try_open(machine: &Machine) -> Result<Opened, DirectoryError> {
    let config = Arc::new(machine.config.clone());
    let options = ManagerOptions {
        directories: [FROM, TO].map(PathBuf::from).to_vec(),
        node_id: 1,
        cluster_id: None,
        recovery_threads: 1,
        config_for: &|_| config.clone(),
    };
    LogManager::open(&machine.environment, options)
}

fn open(machine: &Machine) -> Opened {
    try_open(machine).expect("the directories open")
}

fn orders() -> TopicPartition {
    TopicPartition::new("orders", 0)
}

fn create(opened: &Opened, machine: &Machine, place: Option<&str>) -> Result<Log, LogError> {
    let config = Arc::new(machine.config.clone());
    opened.manager.create(orders(), ID, config, place.map(Path::new))
}

fn begin_move(opened: &Opened, log: &mut Log) -> Result<Log, LogError> {
    opened.manager.create_future(log, Path::new(TO))
}

/// Copies what `future` lacks.
fn catch_up(log: &mut Log, future: &mut Log) {
    while future.log_end_offset() < log.log_end_offset() {
        let from = future.log_end_offset().max(log.log_start_offset());
        let records = log.read(common::request(from.0, i64::MAX)).unwrap().into_bytes();
        future.append(Append::from_leader(records)).unwrap();
    }
}

/// Copies, replaces and appends once more; stops where the disk fails.
fn move_log(opened: &Opened, log: &mut Log) -> Result<(), LogError> {
    let mut future = begin_move(opened, log)?;
    while future.log_end_offset() < log.log_end_offset() {
        let request = common::request(future.log_end_offset().0, i64::MAX);
        let records = log.read(request)?.into_bytes();
        future.append(Append::from_leader(records)).map_err(|_| LogError::Failed {
            directory: TO.into(),
            reason: "the append failed".to_owned(),
        })?;
    }
    opened.manager.replace_by_future(log, future)
}

#[test]
fn a_moved_log_is_the_same_log_elsewhere() {
    let mut machine = Machine::new(LogConfig { segment_bytes: 500, ..LogConfig::default() });
    let opened = open(&machine);
    let mut log = create(&opened, &machine, Some(FROM)).unwrap();
    for number in 0..20 {
        put(&mut log, &Spec::sized(2, 50).from(5, 0, 2 * number));
    }
    log.delete_records_to(Offset(7)).unwrap();
    let mut future = begin_move(&opened, &mut log).unwrap();
    assert_eq!(future.log_start_offset(), Offset(6), "a whole batch");
    catch_up(&mut log, &mut future);
    log.delete_records_to(Offset(9)).unwrap();
    let before = records_from(&mut log, 9);
    opened.manager.replace_by_future(&mut log, future).unwrap();
    assert_eq!(log.directory(), Path::new("/data/b/orders-0"));
    assert_eq!(log.log_start_offset(), Offset(9));
    assert_eq!(log.flushed_offset(), log.log_end_offset());
    assert_eq!(records_from(&mut log, 9), before);
    assert_eq!(log.topic_id(), Some(ID));
    // The producer is known in the new place, too: this is its next batch, and a repetition.
    let next = Spec::sized(2, 50).from(5, 0, 40);
    let first = put(&mut log, &next);
    assert!(common::append(&mut log, &next).unwrap().is_duplicate);
    machine.clock.advance(Duration::from_secs(61));
    machine.environment.remove_deleted_files().unwrap();
    let left = machine.disk.list(Path::new(FROM)).unwrap();
    assert!(left.iter().all(|entry| !entry.name.contains("orders")), "{left:?}");
    log.flush().unwrap();
    drop(opened);
    machine.disk.crash(Crash::LoseUnsynced);
    machine.restart();
    let opened = open(&machine);
    assert_eq!((opened.logs.len(), opened.futures.len()), (1, 0));
    assert_eq!(opened.logs[0].log_end_offset().0, first + 2);
}

fn compacted() -> LogConfig {
    let cleanup = CleanupPolicy { delete: false, compact: true };
    LogConfig { cleanup, min_cleanable_dirty_ratio: 0.0, ..LogConfig::default() }
}

/// Appends another value of the one key, in a segment of its own.
fn put_value(log: &mut Log, value: &str) {
    put(log, &Spec::values(&[value]));
    log.roll().unwrap();
    log.flush().unwrap();
}

/// What is to be compacted now, if anything is.
fn begin_clean(log: &mut Log) -> Option<CleanJob> {
    log.begin_clean(log.log_end_offset()).unwrap()
}

fn finish_clean(machine: &Machine, log: &mut Log, job: CleanJob) {
    let cleaner = Cleaner::new(&machine.environment, CleanerOptions::default());
    let mut pace = |_: usize| Ok(());
    let outcome = cleaner.run(&job, &mut pace, &mut |job, group| log.swap_in(job, group));
    log.finish_clean(job, outcome).unwrap();
}

fn values(log: &mut Log) -> Vec<String> {
    let records = records_from(log, 0).into_iter();
    records.map(|(_, value)| String::from_utf8(value).unwrap()).collect()
}

/// What was copied before a compaction has to be compacted again: a tombstone that went there, its
/// time being over, is still needed here.
#[test]
fn a_moved_log_is_compacted_from_where_it_was_compacted_to_when_the_move_began() {
    for was_compacted in [false, true] {
        let machine = Machine::new(compacted());
        let opened = open(&machine);
        let mut log = create(&opened, &machine, Some(FROM)).unwrap();
        put_value(&mut log, "first");
        if was_compacted {
            let job = begin_clean(&mut log).unwrap();
            finish_clean(&machine, &mut log, job);
        }
        let before = log.first_dirty_offset();
        put_value(&mut log, "second");
        let job = begin_clean(&mut log).unwrap();
        let mut future = begin_move(&opened, &mut log).unwrap();
        catch_up(&mut log, &mut future);
        finish_clean(&machine, &mut log, job);
        assert_eq!(values(&mut log), ["second"]);
        opened.manager.replace_by_future(&mut log, future).unwrap();
        assert_eq!(values(&mut log), ["first", "second"]);
        assert_eq!(log.first_dirty_offset(), before);
        log.roll().unwrap();
        let job = begin_clean(&mut log).expect("there is something to compact");
        finish_clean(&machine, &mut log, job);
        assert_eq!(values(&mut log), ["second"]);
    }
}

fn put_in_epoch(log: &mut Log, epoch: i32, values: &[&str]) {
    let append = Append::from_client(Spec::values(values).build(), LeaderEpoch(epoch));
    log.append(append).unwrap();
}

/// A copy may reach the disk earlier than the log, and outlive a power failure that takes records
/// from the log; others take their offsets.
#[test]
fn a_copy_is_cut_to_what_the_log_has_before_it_goes_on() {
    let old: [&[&[&str]]; 4] = [&[], &[&["d"]], &[&["d", "e", "f", "g"]], &[&["d"], &["e", "f"]]];
    let new: [&[&[&str]]; 4] = [&[], &[&["D", "E"]], &[&["D"], &["E", "F", "G", "H"]], &[&["D"]]];
    let cases = old.iter().flat_map(|old| new.map(|new| (*old, new)));
    for ((lost, written), is_late) in cases.flat_map(|case| [(case, false), (case, true)]) {
        let mut machine = Machine::new(LogConfig::default());
        let opened = open(&machine);
        let mut log = create(&opened, &machine, Some(FROM)).unwrap();
        put_in_epoch(&mut log, 1, &["a"]);
        put_in_epoch(&mut log, 2, &["b", "c"]);
        log.flush().unwrap();
        for values in lost {
            // Epoch 3 is lost as a whole.
            put_in_epoch(&mut log, if is_late { 3 } else { 2 }, values);
        }
        let mut future = begin_move(&opened, &mut log).unwrap();
        catch_up(&mut log, &mut future);
        future.flush().unwrap();
        drop((log, future, opened));
        machine.disk.crash(Crash::LoseUnsynced);
        machine.restart();
        let mut opened = open(&machine);
        let mut log = opened.logs.pop().unwrap();
        assert_eq!(log.log_end_offset(), Offset(3));
        for values in written {
            put_in_epoch(&mut log, 4, values);
        }
        let future = opened.futures.pop().unwrap();
        let manager = &opened.manager;
        let mut future = manager.resume_future(&mut log, future, LeaderEpoch(4)).unwrap();
        assert_eq!(future.log_end_offset(), Offset(3), "{lost:?} {written:?}");
        catch_up(&mut log, &mut future);
        let before = values(&mut log);
        manager.replace_by_future(&mut log, future).unwrap();
        assert!(log.directory().starts_with(TO));
        assert_eq!(values(&mut log), before, "{lost:?} {written:?}");
    }
}

#[test]
fn the_copy_of_a_compacted_log_is_begun_anew_by_the_next_process() {
    let mut machine = Machine::new(compacted());
    let opened = open(&machine);
    let mut log = create(&opened, &machine, Some(FROM)).unwrap();
    put_value(&mut log, "first");
    let mut future = begin_move(&opened, &mut log).unwrap();
    catch_up(&mut log, &mut future);
    future.flush().unwrap();
    // Nobody goes on with it, and so the log is compacted.
    drop(future);
    put_value(&mut log, "second");
    let job = begin_clean(&mut log).unwrap();
    finish_clean(&machine, &mut log, job);
    drop((log, opened));
    machine.restart();
    let mut opened = open(&machine);
    let (mut log, future) = (opened.logs.pop().unwrap(), opened.futures.pop().unwrap());
    let mut future = opened.manager.resume_future(&mut log, future, LeaderEpoch(1)).unwrap();
    assert!(future.directory().starts_with(TO));
    catch_up(&mut log, &mut future);
    opened.manager.replace_by_future(&mut log, future).unwrap();
    assert_eq!(values(&mut log), ["second"]);
}

#[test]
fn a_move_that_fails_at_the_end_leaves_no_copy_to_go_on_with() {
    let faults = [
        ("writing", Fault::on(Operation::Write, Effect::OutOfSpace).path("-future/")),
        ("syncing", Fault::on(Operation::Sync, Effect::InputOutputError).path("-future/00")),
        ("renaming", Fault::on(Operation::Rename, Effect::InputOutputError).path("-future")),
        ("opening", Fault::on(Operation::Open, Effect::InputOutputError).path("b/orders-0/")),
    ];
    for (what, fault) in faults {
        let mut machine = Machine::new(LogConfig::default());
        let opened = open(&machine);
        let mut log = create(&opened, &machine, Some(FROM)).unwrap();
        put(&mut log, &Spec::values(&["x"]));
        log.flush().unwrap();
        let mut future = begin_move(&opened, &mut log).unwrap();
        catch_up(&mut log, &mut future);
        machine.disk.inject(fault);
        assert!(opened.manager.replace_by_future(&mut log, future).is_err(), "{what}");
        machine.disk.clear_faults();
        assert!(log.directory().starts_with(FROM), "{what}");
        put(&mut log, &Spec::values(&["y"]));
        drop((log, opened));
        machine.restart();
        let opened = open(&machine);
        assert_eq!((opened.logs.len(), opened.futures.len()), (1, 0), "{what}");
        assert!(opened.logs[0].directory().starts_with(FROM), "{what}");
        assert_eq!(opened.logs[0].log_end_offset(), Offset(2), "{what}");
        let left = machine.disk.list(Path::new(TO)).unwrap();
        machine.environment.remove_deleted_files().unwrap();
        assert!(left.iter().filter(|it| it.name.contains("orders")).count() <= 1, "{left:?}");
    }
}

#[test]
fn a_move_survives_a_power_failure_at_every_step() {
    let crashes = [
        Crash::LoseUnsynced,
        Crash::KeepAll,
        Crash::KeepRandom { seed: 1 },
        Crash::KeepRandom { seed: 2 },
    ];
    for crash in crashes {
        let mut moved = 0;
        for changes in 0.. {
            let mut machine =
                Machine::new(LogConfig { segment_bytes: 300, ..LogConfig::default() });
            let opened = open(&machine);
            let mut log = create(&opened, &machine, Some(FROM)).unwrap();
            for _ in 0..4 {
                put(&mut log, &Spec::sized(2, 50));
            }
            log.flush().unwrap();
            machine.disk.fail_power_after(changes);
            let outcome = move_log(&opened, &mut log).and_then(|()| {
                let spec = Spec::values(&["after the move"]);
                common::append(&mut log, &spec).map_err(|_| LogError::Failed {
                    directory: TO.into(),
                    reason: "the append failed".to_owned(),
                })?;
                log.flush()
            });
            let records = if outcome.is_ok() { 9 } else { 8 };
            let was_whole = outcome.is_ok();
            drop((log, opened));
            machine.disk.crash(crash);
            machine.restart();
            let mut opened = open(&machine);
            assert!(opened.failed.is_empty(), "after {changes} changes: {:?}", opened.failed);
            assert_eq!(opened.logs.len(), 1, "after {changes} changes");
            let mut log = opened.logs.pop().unwrap();
            assert!(log.log_end_offset().0 >= records, "after {changes} changes");
            records_from(&mut log, 0);
            moved += usize::from(log.directory().starts_with(TO));
            // What was left on the way can be taken up again, or is finished.
            if let Some(mut future) = opened.futures.pop() {
                assert!(log.directory().starts_with(FROM));
                catch_up(&mut log, &mut future);
                opened.manager.replace_by_future(&mut log, future).unwrap();
                assert!(log.directory().starts_with(TO));
                assert!(log.log_end_offset().0 >= records);
            }
            if was_whole {
                break;
            }
        }
        assert!(moved > 1, "{crash:?}: some failures came after the names had changed");
    }
}

#[test]
fn a_directory_that_fails_is_left_out_and_the_others_go_on() {
    let mut machine = Machine::new(LogConfig::default());
    let opened = open(&machine);
    let mut log = create(&opened, &machine, Some(TO)).unwrap();
    put(&mut log, &Spec::values(&["x"]));
    log.flush().unwrap();
    assert!(opened.manager.check_directory(Path::new(TO)));
    let broken = || Fault::on(Operation::Open, Effect::InputOutputError).path("/data/b/").always();
    machine.disk.inject(broken());
    assert!(!opened.manager.check_directory(Path::new(TO)));
    assert!(opened.manager.check_directory(Path::new(FROM)));
    assert_eq!(opened.manager.directory_id(Path::new(TO)), None);
    // New logs go elsewhere, whatever was asked for, and the checkpoints of the rest are written.
    let other = create(&opened, &machine, Some(TO)).unwrap();
    assert!(other.directory().starts_with(FROM));
    opened.manager.store_checkpoints(&[other.points()]).unwrap();
    drop((log, other, opened));
    machine.restart();
    let opened = open(&machine);
    assert!(opened.manager.directories().any(|directory| directory.failure.is_some()));
    machine.disk.clear_faults();
    assert!(!opened.manager.check_directory(Path::new(TO)), "until the next start");
    drop(opened);
    machine.restart();
    assert_eq!(open(&machine).manager.directories().filter(|d| d.failure.is_none()).count(), 2);
    // The first directory holds what nobody can do without.
    let broken = Fault::on(Operation::Open, Effect::InputOutputError).path("/data/a/").always();
    machine.disk.inject(broken);
    assert!(matches!(try_open(&machine), Err(DirectoryError::Log(_))));
}

#[test]
fn a_full_disk_is_no_failed_directory() {
    let machine = Machine::new(LogConfig::default());
    let opened = open(&machine);
    machine.disk.set_capacity(1);
    assert!(opened.manager.check_directory(Path::new(TO)));
}

#[test]
fn cordoned_directories_take_no_new_logs() {
    let machine = Machine::new(LogConfig::default());
    let opened = open(&machine);
    opened.manager.cordon(vec![FROM.into()]);
    assert!(create(&opened, &machine, None).unwrap().directory().starts_with(TO));
    // Somebody has decided that it is to be here before they were all cordoned.
    opened.manager.cordon(vec![FROM.into(), TO.into()]);
    assert!(create(&opened, &machine, None).unwrap().directory().starts_with(FROM));
}

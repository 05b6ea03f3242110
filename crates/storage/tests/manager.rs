//! Data directories: claiming, opening, checkpointing, deleting, shutting down.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Machine, Spec, put, records_from};
use fleuve_os::{Disk, OpenMode};
use fleuve_sim::{Crash, Effect, Fault, Operation};
use fleuve_storage::{
    DirectoryError, Log, LogConfig, LogError, LogManager, ManagerOptions, Opened,
};
use fleuve_types::{Offset, TopicPartition, Uuid};
use parking_lot::Mutex;

const ID: Uuid = Uuid([9; 16]);

fn open(machine: &Machine, directories: &[&str], threads: usize) -> Opened {
    try_open(machine, directories, threads, 1).expect("the directories open")
}

fn try_open(
    machine: &Machine,
    directories: &[&str],
    recovery_threads: usize,
    node_id: i32,
) -> Result<Opened, DirectoryError> {
    let config = Arc::new(machine.config.clone());
    let options = ManagerOptions {
        directories: directories.iter().map(PathBuf::from).collect(),
        node_id,
        cluster_id: None,
        recovery_threads,
        config_for: &|_| config.clone(),
    };
    LogManager::open(&machine.environment, options)
}

fn create(manager: &LogManager, machine: &Machine, topic: &str, partition: i32) -> Log {
    let config = Arc::new(machine.config.clone());
    manager.create(TopicPartition::new(topic, partition), ID, config, None).expect("there is space")
}

fn shut_down(opened: Opened) -> usize {
    let logs: Vec<Mutex<Log>> = opened.logs.into_iter().map(Mutex::new).collect();
    opened.manager.shut_down(3, logs.iter().collect(), |log| log.lock().close()).unwrap().len()
}

#[test]
fn logs_are_found_again_and_trusted_after_a_clean_shutdown() {
    let mut machine = Machine::new(LogConfig::default());
    let directories = ["/data/a", "/data/b"];
    let mut opened = open(&machine, &directories, 2);
    assert!(!opened.had_clean_shutdown);
    let cluster_id = opened.manager.cluster_id().to_owned();
    for partition in 0..10 {
        let mut log = create(&opened.manager, &machine, "orders", partition);
        for _ in 0..=partition {
            put(&mut log, &Spec::values(&["x"]));
        }
        opened.logs.push(log);
    }
    opened.logs[3].delete_records_to(Offset(2)).unwrap();
    for directory in directories {
        assert_eq!(machine.disk.list(Path::new(directory)).unwrap().len(), 2 + 5, "spread evenly");
    }
    assert_eq!(shut_down(opened), 0);
    let text = machine.disk.read_file(Path::new("/data/a/recovery-point-offset-checkpoint"));
    assert_eq!(
        String::from_utf8(text.unwrap().to_vec()).unwrap(),
        "0\n5\norders 0 1\norders 2 3\norders 4 5\norders 6 7\norders 8 9\n"
    );
    assert!(machine.disk.exists(Path::new("/data/b/.kafka_cleanshutdown")).unwrap());

    machine.restart();
    let mut opened = open(&machine, &directories, 4);
    assert!(opened.had_clean_shutdown && opened.failed.is_empty());
    assert_eq!(opened.recovery.verified_bytes, 0, "nothing is scanned");
    assert_eq!(opened.manager.cluster_id(), cluster_id);
    opened.logs.sort_by_key(|log| log.partition().partition);
    for (partition, log) in opened.logs.iter_mut().enumerate() {
        assert_eq!(log.topic_id(), Some(ID));
        assert_eq!(log.log_end_offset().0, partition as i64 + 1);
        assert_eq!(log.flushed_offset(), log.log_end_offset());
        let log_start = if partition == 3 { 2 } else { 0 };
        assert_eq!(log.log_start_offset(), Offset(log_start));
        assert_eq!(records_from(log, log_start).len() as i64, partition as i64 + 1 - log_start);
    }
    let marker = Path::new("/data/a/.kafka_cleanshutdown");
    assert!(!machine.disk.exists(marker).unwrap(), "this process has yet to end well");
}

/// The controller has it open, and two writers of one log destroy each other's records.
#[test]
fn the_metadata_log_is_not_made_as_a_partition() {
    let machine = Machine::new(LogConfig::default());
    let opened = open(&machine, &["/data/a"], 1);
    let config = Arc::new(machine.config.clone());
    let partition = TopicPartition::new("__cluster_metadata", 0);
    let refused = opened.manager.create(partition, ID, config, None);
    assert!(matches!(refused, Err(LogError::Reserved { .. })), "{refused:?}");
    assert_eq!(shut_down(opened), 0);
    let marker = Path::new("/data/a/.kafka_cleanshutdown");
    assert!(machine.disk.exists(marker).unwrap(), "it does not count as a log");
}

#[test]
fn a_crash_is_noticed_and_checkpoints_shorten_recovery() {
    let mut machine = Machine::new(LogConfig { index_interval_bytes: 100, ..LogConfig::default() });
    let opened = open(&machine, &["/data/a"], 1);
    let mut log = create(&opened.manager, &machine, "orders", 0);
    for _ in 0..50 {
        put(&mut log, &Spec::sized(1, 100));
    }
    log.checkpoint().unwrap();
    opened.manager.store_checkpoints(&[log.points()]).unwrap();
    for _ in 0..5 {
        put(&mut log, &Spec::sized(1, 100));
    }
    log.flush().unwrap();
    let size = log.size().unwrap();
    drop((log, opened));
    machine.disk.crash(Crash::LoseUnsynced);
    machine.restart();
    let mut opened = open(&machine, &["/data/a"], 1);
    assert!(!opened.had_clean_shutdown);
    assert_eq!(opened.logs[0].log_end_offset(), Offset(55));
    assert!((1..size / 5).contains(&opened.recovery.verified_bytes), "{:?}", opened.recovery);
    assert_eq!(records_from(&mut opened.logs[0], 0).len(), 55);
}

#[test]
fn directories_have_one_user_one_node_and_one_cluster() {
    let mut machine = Machine::new(LogConfig::default());
    let opened = open(&machine, &["/data/a"], 1);
    let taken = try_open(&machine, &["/data/a"], 1, 1).unwrap_err();
    assert!(matches!(taken, DirectoryError::InUse { .. }), "{taken}");
    drop(opened);
    let foreign = try_open(&machine, &["/data/a"], 1, 2).unwrap_err();
    assert_eq!(foreign.to_string(), "`/data/a` belongs to node.id 1, not to 2");
    drop(open(&machine, &["/data/b"], 1));
    let mixed = try_open(&machine, &["/data/a", "/data/b"], 1, 1).unwrap_err();
    assert!(matches!(mixed, DirectoryError::Foreign { key: "cluster.id", .. }), "{mixed}");
    machine.restart();
    let opened = open(&machine, &["/data/a", "/data/c"], 1);
    let ids: Vec<Uuid> =
        opened.manager.directories().filter_map(|directory| directory.id).collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| !id.is_zero()));
}

#[test]
fn deleted_logs_go_after_a_delay_and_can_be_made_again() {
    let mut machine = Machine::new(LogConfig::default());
    let opened = open(&machine, &["/data/a"], 1);
    let mut log = create(&opened.manager, &machine, "orders", 0);
    put(&mut log, &Spec::values(&["x"]));
    opened.manager.delete(log).unwrap();
    let again = create(&opened.manager, &machine, "orders", 0);
    assert_eq!(again.log_end_offset(), Offset(0));
    let directories = || {
        let entries = machine.disk.list(Path::new("/data/a")).unwrap();
        entries.into_iter().filter(|entry| entry.name.contains("orders")).count()
    };
    machine.environment.remove_deleted_files().unwrap();
    assert_eq!(directories(), 2);
    machine.clock.advance(Duration::from_secs(61));
    machine.environment.remove_deleted_files().unwrap();
    assert_eq!(directories(), 1);

    // What a process leaves half deleted goes at the next start.
    opened.manager.delete(again).unwrap();
    opened.manager.sync().unwrap();
    drop(opened);
    machine.disk.crash(Crash::LoseUnsynced);
    machine.restart();
    let opened = open(&machine, &["/data/a"], 1);
    assert!(opened.logs.is_empty());
    machine.environment.remove_deleted_files().unwrap();
    let entries = machine.disk.list(Path::new("/data/a")).unwrap();
    assert!(entries.iter().all(|entry| !entry.name.contains("orders")), "{entries:?}");
}

#[test]
fn logs_that_no_topic_claims_are_set_aside_for_good() {
    let mut machine = Machine::new(LogConfig::default());
    let opened = open(&machine, &["/data/a"], 1);
    let mut log = create(&opened.manager, &machine, &"o".repeat(249), 0);
    put(&mut log, &Spec::values(&["x"]));
    log.flush().unwrap();
    let aside = opened.manager.set_aside(log).unwrap();
    let name = aside.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("ooo") && name.ends_with("-stray"), "{name}");
    assert_eq!(name.len(), 255, "cut like Kafka's");
    drop(opened);
    machine.disk.crash(Crash::LoseUnsynced);
    for _ in 0..2 {
        machine.restart();
        let opened = open(&machine, &["/data/a"], 1);
        assert!(opened.logs.is_empty() && opened.futures.is_empty() && opened.failed.is_empty());
        machine.clock.advance(Duration::from_secs(1_000_000));
        machine.environment.remove_deleted_files().unwrap();
        let segment = aside.join("00000000000000000000.log");
        assert!(!machine.disk.read_file(&segment).unwrap().is_empty());
    }
}

#[test]
fn one_log_that_cannot_be_opened_or_closed_does_not_stop_the_others() {
    let mut machine = Machine::new(LogConfig::default());
    let mut opened = open(&machine, &["/data/a"], 1);
    for partition in 0..3 {
        let mut log = create(&opened.manager, &machine, "orders", partition);
        put(&mut log, &Spec::values(&["x"]));
        opened.logs.push(log);
    }
    machine.disk.inject(Fault::on(Operation::Sync, Effect::InputOutputError).path("orders-1/"));
    assert_eq!(shut_down(opened), 1);
    assert!(!machine.disk.exists(Path::new("/data/a/.kafka_cleanshutdown")).unwrap());

    machine.restart();
    machine.disk.open(Path::new("/data/a/stray"), OpenMode::Create).unwrap();
    machine.disk.create_dir_all(Path::new("/data/a/lost+found")).unwrap();
    let fault = Fault::on(Operation::Open, Effect::InputOutputError).path("orders-2/00").always();
    machine.disk.inject(fault);
    let opened = open(&machine, &["/data/a"], 1);
    assert_eq!(opened.logs.len(), 2);
    assert_eq!(opened.failed.len(), 1);
    assert_eq!(opened.failed[0].directory, Path::new("/data/a/orders-2"));
    machine.disk.clear_faults();
    assert_eq!(shut_down(opened), 0);
    let marker = Path::new("/data/a/.kafka_cleanshutdown");
    assert!(!machine.disk.exists(marker).unwrap(), "nobody vouches for the third log");
}

#[test]
fn idle_logs_hold_no_files_open() {
    // The cache of open files holds eight; a hundred logs are opened all the same.
    let mut machine = Machine::new(LogConfig::default());
    let mut opened = open(&machine, &["/data/a"], 1);
    for partition in 0..100 {
        let mut log = create(&opened.manager, &machine, "orders", partition);
        put(&mut log, &Spec::values(&["x"]));
        opened.logs.push(log);
    }
    assert_eq!(shut_down(opened), 0);
    machine.restart();
    let mut opened = open(&machine, &["/data/a"], 2);
    for log in &mut opened.logs {
        assert_eq!(records_from(log, 0).len(), 1);
        put(log, &Spec::values(&["y"]));
    }
    for log in &mut opened.logs {
        assert_eq!(log.flush().unwrap(), Offset(2));
        assert_eq!(records_from(log, 0).len(), 2);
    }
}

#[test]
fn damaged_checkpoints_cost_a_longer_recovery_and_no_records() {
    let names = [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "cleaner-offset-checkpoint",
    ];
    let damages: [&[u8]; 5] = [b"", b"\xff\xfe\x00", b"0\n7\n", b"0\n1\norders", b"1\n0\n"];
    for (name, damage) in names.iter().flat_map(|name| damages.map(|damage| (name, damage))) {
        for ended_well in [true, false] {
            let mut machine = Machine::new(LogConfig::default());
            let mut opened = open(&machine, &["/data/a"], 1);
            let mut log = create(&opened.manager, &machine, "orders", 0);
            put(&mut log, &Spec::values(&["x", "y"]));
            opened.logs.push(log);
            assert_eq!(shut_down(opened), 0);
            machine.disk.replace_file(&Path::new("/data/a").join(name), damage).unwrap();
            if !ended_well {
                machine.disk.remove_file(Path::new("/data/a/.kafka_cleanshutdown")).unwrap();
            }
            machine.restart();
            let mut opened = open(&machine, &["/data/a"], 1);
            assert!(opened.failed.is_empty(), "{name}: {damage:?}");
            let mut log = opened.logs.pop().expect("the log is found");
            assert_eq!(records_from(&mut log, 0).len(), 2, "{name}: {damage:?}");
            assert_eq!(put(&mut log, &Spec::values(&["z"])), 2);
        }
    }
}

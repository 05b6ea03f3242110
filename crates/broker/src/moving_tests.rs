//! What a move and a compaction of the same partition do to each other.

use std::sync::Weak;

use bytes::Bytes;
use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
use fleuve_sim::{SimClock, SimDisk, SimRandom};
use fleuve_storage::{
    CleanError, Cleaner, CleanerOptions, CleanupPolicy, Environment, Limits, LogConfig,
    ManagerOptions, Opened, SpaceReserve,
};
use fleuve_types::TimestampMs;

use super::*;
use crate::partition::Surroundings;

const TARGET: &str = "/data/b";

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let (timestamp, key) = (TimestampMs(1), Some(&b"key"[..]));
    let record = NewRecord { timestamp, key, value: key, ..NewRecord::default() };
    builder.append(&record).expect("a small record");
    builder.finish()
}

/// A partition in the first of two data directories, with something to compact.
fn dirty_partition() -> (Environment, LogManager, Partition) {
    let disk = Arc::new(SimDisk::new());
    let directories = ["/data/a", TARGET].map(PathBuf::from);
    let environment = Environment::new(
        disk.clone(),
        Arc::new(SimClock::at(1_700_000_000_000)),
        Arc::new(SimRandom::seeded(1)),
        Limits { tail_cache_bytes: 0, idle_open_files: 8 },
    );
    let config = Arc::new(LogConfig {
        cleanup: CleanupPolicy { delete: false, compact: true },
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    });
    let options = ManagerOptions {
        directories: directories.to_vec(),
        node_id: 1,
        cluster_id: None,
        recovery_threads: 1,
        config_for: &|_| Arc::clone(&config),
    };
    let Opened { manager, .. } = LogManager::open(&environment, options).expect("they open");
    let name = TopicPartition::new("words", 0);
    let place = Some(directories[0].as_path());
    let id = Uuid([1; 16]);
    let mut log = manager.create(name, id, Arc::clone(&config), place).expect("there is room");
    for _ in 0..3 {
        log.append(Append::from_client(batch(), LeaderEpoch(1))).expect("there is room");
        log.roll().expect("there is room");
    }
    log.flush().expect("the disk works");
    let surroundings = Surroundings {
        flusher: Weak::new(),
        flush_before_ack: false,
        disk_trouble: Arc::default(),
        reserve: Arc::new(SpaceReserve::new(disk, &directories, 0)),
        directories: directories.into(),
    };
    let partition = Partition::new(log, 1, &surroundings);
    (environment, manager, partition)
}

#[test]
fn a_compaction_ends_when_a_move_begins_and_none_begins_then() {
    let (environment, manager, partition) = dirty_partition();
    let cleaner = Cleaner::new(&environment, CleanerOptions::default());
    let mut steps = 0;
    let outcome = partition.compact(&cleaner, &mut |_: usize| {
        steps += 1;
        if steps == 1 {
            partition.begin_move(&manager, Path::new(TARGET)).expect("there is room");
        }
        Ok(())
    });
    assert!(matches!(outcome, Err(CleanError::Stopped)), "{outcome:?}");
    assert_eq!(steps, 1);
    // Whoever looked at the partition before the move began comes too late.
    let outcome = partition.compact(&cleaner, &mut |_: usize| Ok(()));
    assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    while !matches!(partition.step(&manager).expect("there is room"), Step::Done) {}
    assert_eq!(partition.data_directory().as_deref(), Some(Path::new(TARGET)));
}

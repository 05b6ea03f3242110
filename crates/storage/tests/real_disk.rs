//! The same log on the disk of this machine.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Spec, put, records_from};
use fleuve_os::{OsDisk, OsRandom, SystemClock};
use fleuve_storage::{Environment, Limits, Log, LogConfig, LogManager, ManagerOptions, Opened};
use fleuve_types::{Offset, TopicPartition, Uuid};
use parking_lot::Mutex;

fn open(directory: &Path) -> Opened {
    let environment = Environment::new(
        Arc::new(OsDisk::new()),
        Arc::new(SystemClock::new()),
        Arc::new(OsRandom),
        Limits { tail_cache_bytes: 1 << 16, idle_open_files: 4 },
    );
    let config = Arc::new(LogConfig { segment_bytes: 20_000, ..LogConfig::default() });
    let options = ManagerOptions {
        directories: vec![directory.to_owned()],
        node_id: 1,
        cluster_id: None,
        recovery_threads: 2,
        config_for: &|_| config.clone(),
    };
    LogManager::open(&environment, options).expect("the directory opens")
}

#[test]
fn logs_survive_good_and_bad_ends() {
    let directory = tempfile::tempdir().unwrap();
    let config = Arc::new(LogConfig { segment_bytes: 20_000, ..LogConfig::default() });
    for round in 0..6 {
        let mut opened = open(directory.path());
        assert!(opened.failed.is_empty());
        assert_eq!(opened.had_clean_shutdown, round > 0 && round % 2 == 1, "round {round}");
        assert_eq!(opened.recovery.cut_bytes, 0);
        if round == 0 {
            for partition in 0..5 {
                let partition = TopicPartition::new("orders", partition);
                let log = opened.manager.create(partition, Uuid([5; 16]), config.clone(), None);
                opened.logs.push(log.unwrap());
            }
        }
        assert_eq!(opened.logs.len(), 5);
        for log in &mut opened.logs {
            assert_eq!(log.log_end_offset(), Offset(round * 40));
            for _ in 0..20 {
                put(log, &Spec::sized(2, 600));
            }
            assert_eq!(records_from(log, 0).len() as i64, round * 40 + 40);
            assert_eq!(log.flush().unwrap(), log.log_end_offset());
        }
        if round % 2 == 0 {
            let logs: Vec<Mutex<Log>> = opened.logs.into_iter().map(Mutex::new).collect();
            let close = |log: &Mutex<Log>| log.lock().close();
            let errors = opened.manager.shut_down(2, logs.iter().collect(), close).unwrap();
            assert!(errors.is_empty());
        }
    }
}

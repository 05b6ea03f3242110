//! What compaction costs: megabytes of log per second, by codec and by how much of the log stays.
//!
//! ```text
//! cargo bench -p fleuve-storage --bench compaction [-- DIRECTORY]
//! ```
//!
//! Files go to a temporary directory below `DIRECTORY` (default: the system's). The whole log is
//! dirty, so it is read twice: for the map of keys, and to be written anew. Processor seconds are
//! those of the whole process, from `/proc/self/stat`. With `KEEP=1` the logs are only built and
//! stay, for another cleaner to be measured on.

#![allow(clippy::print_stdout, reason = "a benchmark reports to its reader")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use fleuve_os::{OsDisk, OsRandom, SystemClock};
use fleuve_protocol::records::{BatchBuilder, BatchOptions, Compression, NewRecord};
use fleuve_storage::{
    Append, Cleaner, CleanerOptions, CleanupPolicy, Environment, Limits, Log, LogConfig,
    OpenOptions,
};
use fleuve_types::{LeaderEpoch, TimestampMs, TopicPartition};

const LOG_BYTES: u64 = 256 << 20;
const BATCH_BYTES: usize = 16 << 10;
const VALUE_BYTES: usize = 200;

fn main() {
    let root = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let root = root.map_or_else(std::env::temp_dir, Into::into);
    let keep = std::env::var_os("KEEP").is_some();
    let directory = tempfile::tempdir_in(root).expect("the directory takes files");
    println!("| codec | keys | records | MB before | MB after | MB/s | records/s | CPU-s/GB |");
    println!("|---|---|---|---|---|---|---|---|");
    for (codec, keys) in [
        (Compression::None, 10_000),
        (Compression::None, 1_000_000),
        (Compression::Lz4, 10_000),
        (Compression::Zstd, 10_000),
    ] {
        let path = directory.path().join(format!("{codec:?}-{keys}-0"));
        measure(&path, codec, keys, keep);
        if !keep {
            std::fs::remove_dir_all(&path).expect("the run is over");
        }
    }
    if keep {
        println!("the logs are in {}", directory.keep().display());
    }
}

fn measure(path: &Path, codec: Compression, keys: u64, only_build: bool) {
    let environment = Environment::new(
        Arc::new(OsDisk::new()),
        Arc::new(SystemClock::new()),
        Arc::new(OsRandom),
        Limits { tail_cache_bytes: 0, idle_open_files: 64 },
    );
    let config = LogConfig {
        segment_bytes: 64 << 20,
        cleanup: CleanupPolicy { delete: false, compact: true },
        ..LogConfig::default()
    };
    let options =
        OpenOptions::new(TopicPartition::new("bench", 0), path.to_owned(), Arc::new(config));
    let (mut log, _) = Log::open(&environment, options).expect("the log opens");
    let records = fill(&mut log, codec, keys);
    log.roll().expect("there is space");
    log.checkpoint().expect("the disk syncs");
    if only_build {
        log.close().expect("the disk syncs");
        return;
    }
    let before = log.size().expect("files have sizes");
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let end = log.log_end_offset();
    let job = log.begin_clean(end).expect("the log is well").expect("the log is dirty");
    let cleaner = Cleaner::new(&environment, CleanerOptions::default());
    let outcome = cleaner.run(&job, &mut |_| Ok(()), &mut |job, group| log.swap_in(job, group));
    log.finish_clean(job, outcome).expect("the compaction succeeds");
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let megabytes = before as f64 / 1e6;
    println!(
        "| {codec:?} | {keys} | {records} | {megabytes:.0} | {:.1} | {:.0} | {:.0} | {:.2} |",
        log.size().expect("files have sizes") as f64 / 1e6,
        megabytes / seconds,
        records as f64 / seconds,
        cpu / megabytes * 1000.0,
    );
}

/// Appends records of random keys and returns how many.
fn fill(log: &mut Log, codec: Compression, keys: u64) -> u64 {
    let mut builder =
        BatchBuilder::new(BatchOptions { codec: codec.into(), ..BatchOptions::default() });
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut bytes, mut records) = (0, 0);
    let now_ms = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_millis() as i64);
    while bytes < LOG_BYTES {
        while builder.size() < BATCH_BYTES {
            let key = format!("key-{:012}", random() % keys);
            // Digits: halves under LZ4, as much text does.
            let mut value = String::with_capacity(VALUE_BYTES + 20);
            while value.len() < VALUE_BYTES {
                value.push_str(&random().to_string());
            }
            let record = NewRecord {
                timestamp: TimestampMs(now_ms),
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                headers: &[],
            };
            builder.append(&record).expect("there is room");
            records += 1;
        }
        let batch = builder.finish();
        bytes += batch.len() as u64;
        log.append(Append::from_client(batch, LeaderEpoch(0))).expect("there is space");
    }
    records
}

fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may contain spaces; user and system time follow 11 fields later.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS_PER_SECOND
}

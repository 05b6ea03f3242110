//! What a log costs: appends to the page cache, appends with group-committed flushes, reads, and
//! opening many logs.
//!
//! ```text
//! cargo bench -p fleuve-storage --bench append [-- DIRECTORY]
//! ```
//!
//! Files go to a temporary directory below `DIRECTORY` (default: the system's). Processor seconds
//! are those of the whole process, from `/proc/self/stat`.

#![allow(clippy::print_stdout, reason = "a benchmark reports to its reader")]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_os::{Disk, OpenMode, OsDisk, OsRandom, SystemClock};
use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
use fleuve_storage::{
    Append, Environment, FlushJob, FlushMark, FlushTarget, Flusher, Limits, Log, LogConfig,
    LogError, LogManager, ManagerOptions, OpenOptions, ReadRequest,
};
use fleuve_types::{LeaderEpoch, Offset, TimestampMs, TopicPartition, Uuid};
use parking_lot::{Condvar, Mutex};

const BYTES_PER_RUN: usize = 512 << 20;
const BATCH_SIZES: [usize; 3] = [1 << 10, 16 << 10, 1 << 20];
const RECORD_SIZE: usize = 1 << 10;

fn main() {
    let root = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let root = root.map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(root).expect("the directory takes files");
    println!("| run | batch | MB/s | CPU-s/GB | note |");
    println!("|---|---|---|---|---|");
    for size in BATCH_SIZES {
        let path = directory.path().join(format!("append-{size}"));
        append_and_read(&path, size, 16 << 20);
        std::fs::remove_dir_all(&path).expect("the run is over");
    }
    for (partitions, writers) in [(1, 1), (1, 8), (8, 8), (64, 64)] {
        let path = directory.path().join(format!("flush-{partitions}-{writers}"));
        append_with_flush(&path, partitions, writers);
        std::fs::remove_dir_all(&path).expect("the run is over");
    }
    open_many(&directory.path().join("many"), 10_000);
}

fn environment(tail_cache_bytes: usize) -> Environment {
    Environment::new(
        Arc::new(OsDisk::new()),
        Arc::new(SystemClock::new()),
        Arc::new(OsRandom),
        Limits { tail_cache_bytes, idle_open_files: 1024 },
    )
}

fn open(environment: &Environment, directory: &Path, partition: i32) -> Log {
    let config = LogConfig { max_message_bytes: 8 << 20, ..LogConfig::default() };
    let directory = directory.join(format!("bench-{partition}"));
    let partition = TopicPartition::new("bench", partition);
    let options = OpenOptions::new(partition, directory, Arc::new(config));
    Log::open(environment, options).expect("a new log opens").0
}

fn batch(size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let timestamp = TimestampMs(fleuve_os::Clock::wall_ms(&SystemClock::new()));
    let value = vec![b'v'; RECORD_SIZE.min(size) - 100];
    while builder.is_empty() || builder.size() + RECORD_SIZE <= size {
        builder
            .append(&NewRecord { timestamp, value: Some(&value), ..NewRecord::default() })
            .expect("the batch is within the format");
    }
    builder.finish()
}

fn append_and_read(directory: &Path, size: usize, tail_cache_bytes: usize) {
    let environment = environment(tail_cache_bytes);
    let mut log = open(&environment, directory, 0);
    let records = batch(size);
    let rounds = (BYTES_PER_RUN / records.len()).min(200_000);
    let total = rounds * records.len();
    bare_writes(&directory.join("bare"), size, &records, rounds);
    let append = |log: &mut Log| {
        let append = Append::from_client(records.clone(), LeaderEpoch(0));
        log.append(append).expect("the append succeeds");
    };
    let meter = Meter::start();
    for _ in 0..rounds {
        append(&mut log);
    }
    meter.report("append to page cache", size, total, &format!("{rounds} batches"));

    let end = log.log_end_offset();
    let request =
        |offset| ReadRequest { offset, limit_offset: end, max_bytes: 1 << 20, min_one_batch: true };
    let meter = Meter::start();
    let (mut offset, mut read, mut reads) = (Offset(0), 0, 0);
    let records_per_batch = end.0 / rounds as i64;
    while offset < end {
        let plan = log.plan_read(request(offset)).expect("the offset exists");
        let bytes = plan.run().expect("the file is readable").into_bytes();
        read += bytes.len();
        reads += 1;
        let batches = bytes.len() / records.len();
        offset = offset.plus(batches as i64 * records_per_batch);
        std::hint::black_box(bytes);
    }
    meter.report("read from page cache", size, read, &format!("{reads} reads of 1 MiB"));

    let tail = Offset(end.0 - records_per_batch * ((4 << 20) / records.len()) as i64);
    let meter = Meter::start();
    let (mut read, mut from_memory) = (0, 0);
    let reads = 2000;
    for _ in 0..reads {
        let plan = log.plan_read(request(tail)).expect("the offset exists");
        from_memory += usize::from(plan.is_in_memory());
        let parts = plan.run().expect("the file is readable");
        read += parts.len();
        std::hint::black_box(parts.into_parts());
    }
    meter.report("read from tail cache", size, read, &format!("{from_memory}/{reads} in memory"));
}

/// The floor: the same bytes in the same pieces, and nothing else.
fn bare_writes(path: &Path, size: usize, records: &Bytes, rounds: usize) {
    let file = OsDisk::new().open(path, OpenMode::CreateNew).expect("a new file");
    let slices = [IoSlice::new(&records[..61]), IoSlice::new(&records[61..])];
    let meter = Meter::start();
    for round in 0..rounds {
        let position = (round * records.len()) as u64;
        file.write_vectored_at(&slices, position).expect("there is space");
    }
    let total = rounds * records.len();
    meter.report("bare pwritev", size, total, "the floor of an append");
}

/// A partition as the broker has it, for the flusher.
struct Partition {
    log: Mutex<Log>,
    mark: FlushMark,
    flushed: Mutex<Offset>,
    changed: Condvar,
}

impl FlushTarget for Partition {
    fn flush_mark(&self) -> &FlushMark {
        &self.mark
    }

    fn begin_flush(&self) -> Option<FlushJob> {
        self.log.lock().begin_flush()
    }

    fn finish_flush(self: Arc<Self>, job: FlushJob, outcome: Result<(), LogError>) {
        let flushed = self.log.lock().finish_flush(job, outcome).expect("the disk works");
        *self.flushed.lock() = flushed;
        self.changed.notify_all();
    }
}

/// Each writer waits for its append to be flushed before it appends again: acks=all.
fn append_with_flush(directory: &Path, partitions: usize, writers: usize) {
    const SIZE: usize = 16 << 10;
    const DURATION: Duration = Duration::from_secs(2);
    let environment = environment(16 << 20);
    let partitions: Vec<Arc<Partition>> = (0..partitions)
        .map(|number| {
            Arc::new(Partition {
                log: Mutex::new(open(&environment, directory, number as i32)),
                mark: FlushMark::default(),
                flushed: Mutex::new(Offset(0)),
                changed: Condvar::new(),
            })
        })
        .collect();
    let records = batch(SIZE);
    let flusher = Flusher::start(4).expect("threads can be started");
    let meter = Meter::start();
    let appends: usize = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..writers)
            .map(|writer| {
                let partition = &partitions[writer % partitions.len()];
                let (flusher, records) = (&flusher, records.clone());
                scope.spawn(move || {
                    let begin = Instant::now();
                    let mut appends = 0;
                    while begin.elapsed() < DURATION {
                        let append = Append::from_client(records.clone(), LeaderEpoch(0));
                        let end = partition.log.lock().append(append).expect("it succeeds");
                        flusher.mark(partition);
                        let mut flushed = partition.flushed.lock();
                        while *flushed <= end.last_offset {
                            partition.changed.wait(&mut flushed);
                        }
                        appends += 1;
                    }
                    appends
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("no writer panics")).sum()
    });
    let seconds = meter.begin.elapsed().as_secs_f64();
    let flushes = flusher.flushes();
    let note = format!(
        "{} partitions, {writers} writers: {:.0} fsync/s, {:.1} batches ({:.0} records) per fsync, {:.2} ms per append",
        partitions.len(),
        flushes as f64 / seconds,
        appends as f64 / flushes as f64,
        (appends * (SIZE / RECORD_SIZE)) as f64 / flushes as f64,
        writers as f64 * seconds * 1000.0 / appends as f64,
    );
    meter.report("append and flush", SIZE, appends * records.len(), &note);
    flusher.stop();
}

/// Makes many logs with a few records each and times a clean and an unclean start.
fn open_many(directory: &Path, count: i32) {
    let config = Arc::new(LogConfig::default());
    let start = |environment: &Environment| {
        let begin = Instant::now();
        let opened = LogManager::open(
            environment,
            ManagerOptions {
                directories: vec![directory.to_owned()],
                node_id: 1,
                cluster_id: None,
                recovery_threads: 2,
                config_for: &|_| config.clone(),
            },
        );
        (opened.expect("the directory opens"), begin.elapsed())
    };
    let first = environment(0);
    let (mut opened, _) = start(&first);
    let records = batch(RECORD_SIZE);
    for number in 0..count {
        let partition = TopicPartition::new("many", number);
        let mut log = opened
            .manager
            .create(partition, Uuid([1; 16]), config.clone(), None)
            .expect("the log is made");
        for _ in 0..3 {
            let append = Append::from_client(records.clone(), LeaderEpoch(0));
            log.append(append).expect("the append succeeds");
        }
        log.flush().expect("the disk works");
        opened.logs.push(log);
    }
    drop(opened);
    for run in ["unclean", "clean"] {
        let environment = environment(0);
        let (opened, elapsed) = start(&environment);
        assert_eq!(opened.logs.len(), count as usize);
        println!(
            "| open {count} logs, {run} start | | | | {:.0} ms, {} bytes verified |",
            elapsed.as_secs_f64() * 1000.0,
            opened.recovery.verified_bytes,
        );
        let logs: Vec<Mutex<Log>> = opened.logs.into_iter().map(Mutex::new).collect();
        let begin = Instant::now();
        let close = |log: &Mutex<Log>| log.lock().close();
        opened.manager.shut_down(8, logs.iter().collect(), close).expect("the directory closes");
        println!(
            "| close {count} logs after {run} start | | | | {:.0} ms |",
            begin.elapsed().as_secs_f64() * 1000.0
        );
    }
}

/// Measures time and processor time.
struct Meter {
    begin: Instant,
    cpu_begin: f64,
}

impl Meter {
    fn start() -> Self {
        Self { begin: Instant::now(), cpu_begin: cpu_seconds() }
    }

    fn report(&self, run: &str, size: usize, bytes: usize, note: &str) {
        let seconds = self.begin.elapsed().as_secs_f64();
        let cpu = cpu_seconds() - self.cpu_begin;
        println!(
            "| {run} | {} KiB | {:.0} | {:.3} | {note} |",
            size >> 10,
            bytes as f64 / seconds / 1e6,
            cpu / (bytes as f64 / 1e9),
        );
    }
}

/// The processor time of this process so far, user and system together.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    const USER_FIELD_AFTER_NAME: usize = 11;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name is in parentheses and may contain anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = fields
        .split_whitespace()
        .skip(USER_FIELD_AFTER_NAME)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_SECOND
}

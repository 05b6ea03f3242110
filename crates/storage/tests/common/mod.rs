//! A log on a simulated disk, and batches to put into it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_os::Disk;
use fleuve_protocol::records::{
    Batch, BatchBuilder, BatchOptions, BatchProducer, Batches, Compression, NewRecord, RecordIter,
};
use fleuve_sim::{SimClock, SimDisk, SimRandom};
use fleuve_storage::{
    Append, AppendError, Appended, Environment, Limits, Log, LogConfig, LogError, OpenOptions,
    ReadRequest, Recovery,
};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

pub const NOW_MS: i64 = 1_700_000_000_000;
pub const DIRECTORY: &str = "/data/orders-0";

/// A simulated machine with one log directory.
pub struct Machine {
    pub disk: SimDisk,
    pub clock: SimClock,
    pub environment: Environment,
    pub config: LogConfig,
}

impl Machine {
    pub fn new(config: LogConfig) -> Self {
        Self::on(SimDisk::new(), config)
    }

    pub fn on(disk: SimDisk, config: LogConfig) -> Self {
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let clock = SimClock::at(NOW_MS);
        let limits = Limits { tail_cache_bytes: 0, idle_open_files: 8 };
        let environment = environment(&disk, &clock, limits);
        Self { disk, clock, environment, config }
    }

    /// Starts a new process on the machine: all caches are empty.
    pub fn restart(&mut self) {
        let limits = Limits { tail_cache_bytes: 0, idle_open_files: 8 };
        self.environment = environment(&self.disk, &self.clock, limits);
    }

    pub fn with_tail_cache(mut self, bytes: usize) -> Self {
        let limits = Limits { tail_cache_bytes: bytes, idle_open_files: 8 };
        self.environment = environment(&self.disk, &self.clock, limits);
        self
    }

    pub fn options(&self) -> OpenOptions {
        OpenOptions::new(
            TopicPartition::new("orders", 0),
            PathBuf::from(DIRECTORY),
            Arc::new(self.config.clone()),
        )
    }

    pub fn open(&self) -> Log {
        self.try_open(false, 0).expect("the log opens").0
    }

    pub fn open_clean(&self) -> Log {
        self.try_open(true, 0).expect("the log opens").0
    }

    pub fn try_open(
        &self,
        had_clean_shutdown: bool,
        recovery_point: i64,
    ) -> Result<(Log, Recovery), LogError> {
        let recovery_point = Offset(recovery_point);
        Log::open(
            &self.environment,
            OpenOptions { had_clean_shutdown, recovery_point, ..self.options() },
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(DIRECTORY).join(name)
    }

    /// Returns the names of the files with this suffix.
    pub fn files(&self, suffix: &str) -> Vec<String> {
        let entries = self.disk.list(Path::new(DIRECTORY)).unwrap();
        entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(suffix)).collect()
    }
}

fn environment(disk: &SimDisk, clock: &SimClock, limits: Limits) -> Environment {
    Environment::new(
        Arc::new(disk.clone()),
        Arc::new(clock.clone()),
        Arc::new(SimRandom::seeded(42)),
        limits,
    )
}

/// What a batch is made of.
#[derive(Clone)]
pub struct Spec {
    pub values: Vec<Vec<u8>>,
    pub keyed: bool,
    pub timestamp: i64,
    pub codec: Compression,
    pub producer: Option<(i64, i16, i32)>,
    pub transactional: bool,
    pub control: bool,
    pub base_offset: i64,
    pub leader_epoch: i32,
}

impl Spec {
    pub fn values(values: &[&str]) -> Self {
        Self::bytes(values.iter().map(|value| value.as_bytes().to_vec()).collect())
    }

    pub fn bytes(values: Vec<Vec<u8>>) -> Self {
        Self {
            values,
            keyed: true,
            timestamp: NOW_MS,
            codec: Compression::None,
            producer: None,
            transactional: false,
            control: false,
            base_offset: 0,
            leader_epoch: -1,
        }
    }

    pub fn sized(count: usize, size: usize) -> Self {
        Self::bytes((0..count).map(|index| vec![index as u8; size]).collect())
    }

    pub fn at(self, timestamp: i64) -> Self {
        Self { timestamp, ..self }
    }

    pub fn from(self, id: i64, epoch: i16, sequence: i32) -> Self {
        Self { producer: Some((id, epoch, sequence)), ..self }
    }

    pub fn build(&self) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(self.base_offset),
            leader_epoch: LeaderEpoch(self.leader_epoch),
            codec: self.codec.into(),
            producer: self.producer.map(|(id, epoch, base_sequence)| BatchProducer {
                id: ProducerId(id),
                epoch: ProducerEpoch(epoch),
                base_sequence,
            }),
            transactional: self.transactional,
            control: self.control,
            ..BatchOptions::default()
        });
        for (index, value) in self.values.iter().enumerate() {
            builder
                .append(&NewRecord {
                    timestamp: TimestampMs(self.timestamp + index as i64),
                    key: self.keyed.then_some(b"key"),
                    value: Some(value),
                    ..NewRecord::default()
                })
                .unwrap();
        }
        builder.finish()
    }
}

pub fn append(log: &mut Log, spec: &Spec) -> Result<Appended, AppendError> {
    log.append(Append::from_client(spec.build(), LeaderEpoch(1)))
}

/// Appends a batch and returns the offset of its first record.
pub fn put(log: &mut Log, spec: &Spec) -> i64 {
    append(log, spec).expect("the append succeeds").first_offset.0
}

pub fn request(offset: i64, limit_offset: i64) -> ReadRequest {
    ReadRequest {
        offset: Offset(offset),
        limit_offset: Offset(limit_offset),
        max_bytes: 1 << 20,
        min_one_batch: true,
    }
}

/// Reads the batches from `offset` to the end, however many reads it takes.
pub fn batches_from(log: &mut Log, offset: i64) -> Vec<Batch> {
    let mut all = Vec::new();
    let mut next_offset = offset;
    loop {
        let bytes = log.read(request(next_offset, i64::MAX)).unwrap().into_bytes();
        if bytes.is_empty() {
            assert_eq!(next_offset, log.log_end_offset().0, "a read stops only at the end");
            return all;
        }
        for batch in Batches::new(bytes) {
            let batch = batch.expect("reads return whole batches");
            batch.verify_crc().expect("and intact ones");
            next_offset = batch.header.next_offset().0;
            all.push(batch);
        }
    }
}

/// Reads all records from `offset` on: offset and value of each.
pub fn records_from(log: &mut Log, offset: i64) -> Vec<(i64, Vec<u8>)> {
    let mut records = Vec::new();
    for batch in batches_from(log, offset) {
        let mut decompressor = fleuve_protocol::records::Decompressor::new(1 << 24);
        let plain = batch.records(&mut decompressor).unwrap();
        for record in RecordIter::new(&batch.header, &plain) {
            let record = record.unwrap();
            if record.offset.0 >= offset {
                records.push((record.offset.0, record.value.unwrap_or_default().to_vec()));
            }
        }
    }
    records
}

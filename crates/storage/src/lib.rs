//! The partition log on Kafka's on-disk format.
//!
//! A [`Log`] is one partition: segments of record batches with sparse indexes, the state of its
//! idempotent producers, its leader epochs. It is a plain machine on the traits of `fleuve-os`,
//! without threads and without locks. All logs of a process share an [`Environment`]: the world,
//! and caches under common limits.
//!
//! ```text
//! <topic>-<partition>/
//!   00000000000000000000.log .index .timeindex    a segment: batches, and where they are
//!   00000000000000004711.log .index .timeindex    the next one, beginning at offset 4711
//!   00000000000000004711.txnindex                 what was aborted in it, if anything was
//!   00000000000000004711.snapshot                 the producers at that offset
//!   leader-epoch-checkpoint partition.metadata
//! ```
//!
//! Assumptions about disks are stated in [`fleuve_os::Disk`]; what recovery does after a crash
//! stands in `log/open.rs`, what a flush promises in `log/flush.rs`.

mod checkpoint;
mod cleaner;
mod config;
mod data_directory;
mod environment;
mod error;
mod flusher;
mod index;
mod leader_epochs;
mod log;
mod manager;
mod moving;
mod names;
mod producers;
mod reserve;
mod scan;
mod segment;
mod tail_cache;
#[cfg(test)]
mod testing;

pub use cleaner::{
    CleanError, CleanJob, CleanOutcome, CleanStats, CleanedGroup, Cleaner, CleanerOptions,
    Dirtiness, Pace,
};
pub use config::{CleanupPolicy, LogConfig};
pub use data_directory::DirectoryError;
pub use environment::{Environment, Limits};
pub use error::{AppendError, LogError, RecordFaults};
pub use flusher::{FlushMark, FlushTarget, Flusher};
pub use leader_epochs::EpochEnd;
pub use log::{
    Append, Appended, FlushJob, LocatedRecords, Log, OpenOptions, Origin, ReadPlan, ReadRequest,
    Records, Recovery, TimestampedOffset,
};
pub use manager::{DirectoryState, FailedLog, LogManager, LogPoints, ManagerOptions, Opened};
pub use producers::{ProducerView, TransactionCheck, VerificationGuard};
pub use reserve::SpaceReserve;
pub use segment::AbortedTransaction;

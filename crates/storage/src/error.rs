//! What can go wrong with a log, and what the caller can do about it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use fleuve_os::DiskError;
use fleuve_protocol::records::BatchError;
use fleuve_types::{Offset, ProducerEpoch, ProducerId, TopicPartition};

/// Reports why a log could not be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused; nothing of the operation counts as done. A full disk is the one case that
    /// is worth trying again ([`LogError::is_out_of_space`]).
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An earlier write or flush failed in a way that leaves the disk's content unknown: the log
    /// takes no more records until it is opened again.
    #[error("the log in `{}` takes no more records until reopened: {reason}", directory.display())]
    Failed {
        /// The directory of the log.
        directory: PathBuf,
        /// What failed.
        reason: String,
    },
    /// The offset lies before the log's first or after its last record.
    #[error("offset {offset} is outside {log_start} to {log_end}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The first offset available.
        log_start: Offset,
        /// The offset that the next record will get.
        log_end: Offset,
    },
    /// Stored bytes are not what was written.
    #[error("`{}` is damaged at byte {position}: {reason}", path.display())]
    Damaged {
        /// The file concerned.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// No data directory is in use that takes new logs.
    #[error("no data directory is left for partition {partition}: all have failed or are cordoned")]
    NoDirectory {
        /// The partition without a place.
        partition: TopicPartition,
    },
    /// The log's directory would be the one of the metadata log, which the controller has open.
    #[error("partition {partition} would lie in the directory of the controller's own log")]
    Reserved {
        /// The partition.
        partition: TopicPartition,
    },
    /// The disk is full, and what little is left of it is not for clients' records. It is worth
    /// trying again.
    #[error("no space is left for records in `{}`", directory.display())]
    NoSpace {
        /// The data directory.
        directory: PathBuf,
    },
    /// The directory's name would be longer than file systems take.
    #[error("the name of topic {topic} is too long for its partitions to be moved")]
    NameTooLong {
        /// The topic.
        topic: Arc<str>,
    },
    /// A file of text does not say what it should.
    #[error("`{}` cannot be understood: {reason}", path.display())]
    Malformed {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl LogError {
    /// Reports whether something has run out that may be there again at any moment: space, or
    /// descriptors.
    pub fn is_passing(&self) -> bool {
        self.is_out_of_space() || matches!(self, Self::Disk(error) if error.is_passing())
    }

    /// Reports whether the disk is full: the operation may succeed once there is space.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_out_of_space(),
            Self::NoSpace { .. } => true,
            _ => false,
        }
    }
}

/// Reports why records were not appended. Except for [`AppendError::Log`], the fault lies in what
/// was sent.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes are not a run of whole, intact batches.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// There is no batch at all.
    #[error("no batch to append")]
    Empty,
    /// A batch is larger than `max.message.bytes`.
    #[error("batch of {size} bytes exceeds max.message.bytes = {max}")]
    BatchTooLarge {
        /// The batch's size.
        size: usize,
        /// The limit.
        max: u32,
    },
    /// The batches together do not fit into a segment.
    #[error("append of {size} bytes exceeds segment.bytes = {max}")]
    AppendTooLarge {
        /// The size of all batches.
        size: usize,
        /// The limit.
        max: u32,
    },
    /// A batch breaks a rule that every batch from a client must keep.
    #[error("invalid batch: {reason}")]
    InvalidBatch {
        /// The rule.
        reason: &'static str,
    },
    /// Single records of a batch break a rule, and the whole batch is refused for them.
    #[error("{0}")]
    InvalidRecords(RecordFaults),
    /// A batch does not continue its producer's sequence.
    #[error(
        "producer {producer_id} epoch {producer_epoch} sent sequence {sequence} after {last_sequence}"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// The epoch it sent.
        producer_epoch: ProducerEpoch,
        /// The sequence it sent.
        sequence: i32,
        /// The last sequence known, −1 for none.
        last_sequence: i32,
    },
    /// A batch carries an older epoch than one seen before.
    #[error("producer {producer_id} sent epoch {producer_epoch}, the current one is {current}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: ProducerId,
        /// The epoch it sent.
        producer_epoch: ProducerEpoch,
        /// The epoch known.
        current: ProducerEpoch,
    },
    /// A transaction marker comes from a coordinator that has been replaced.
    #[error("coordinator epoch {coordinator_epoch} is older than {current}")]
    TransactionCoordinatorFenced {
        /// The epoch in the marker.
        coordinator_epoch: i32,
        /// The epoch known.
        current: i32,
    },
    /// A producer with an open transaction sent a batch outside it.
    #[error("producer {producer_id} has an open transaction and sent a batch outside it")]
    InvalidTransactionState {
        /// The producer.
        producer_id: ProducerId,
    },
    /// A transactional batch belongs to no transaction that the coordinator knows of.
    #[error("the batch of producer {producer_id} is not part of an ongoing transaction")]
    NotInTransaction {
        /// The producer.
        producer_id: ProducerId,
    },
    /// A follower received batches that do not continue its log.
    #[error("batch at offset {offset} does not continue the log, which ends at {log_end}")]
    OffsetsOutOfOrder {
        /// The batch's base offset.
        offset: Offset,
        /// The offset expected, or a later one.
        log_end: Offset,
    },
    /// The log itself has a problem.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The records of a batch that break a rule, each with what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordFaults {
    /// Position in the batch and what is wrong, for the first of them.
    pub faults: Vec<(i32, String)>,
    /// How many there are.
    pub total: usize,
    /// Whether the time of one of them is out of the topic's range.
    pub concerns_time: bool,
}

impl RecordFaults {
    /// More than these are only counted, so that the answer stays small beside the request.
    const TOLD_MAX: usize = 1000;

    pub(crate) fn add(&mut self, index: i32, reason: impl FnOnce() -> String) {
        if self.faults.len() < Self::TOLD_MAX {
            self.faults.push((index, reason()));
        }
        self.total += 1;
    }
}

impl fmt::Display for RecordFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A summary names this many records.
        const NAMED: usize = 3;
        write!(f, "{} records of the batch are invalid:", self.total)?;
        for (index, reason) in self.faults.iter().take(NAMED) {
            write!(f, " record {index}: {reason};")?;
        }
        Ok(())
    }
}

impl From<DiskError> for AppendError {
    fn from(error: DiskError) -> Self {
        Self::Log(error.into())
    }
}

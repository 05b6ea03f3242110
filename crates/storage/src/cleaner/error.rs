//! Why a compaction ended early.

use fleuve_os::DiskError;

use crate::error::LogError;

/// Reports why a log was not compacted. Whatever the reason, the log holds what it held before, or
/// a part of it is compacted already; nothing has to be undone.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The log was truncated, or segments were deleted, while they were being rewritten. Another
    /// attempt begins from what there is now.
    #[error("the log changed while it was being compacted")]
    Overtaken,
    /// The pace maker said stop.
    #[error("the compaction was stopped")]
    Stopped,
    /// The map of keys cannot hold a single key.
    #[error("the {bytes} bytes of log.cleaner.dedupe.buffer.size have no room for a single key")]
    BufferTooSmall {
        /// The size of the buffer.
        bytes: usize,
    },
    /// A segment cannot be written anew in Kafka's format.
    #[error("the segment at offset {base_offset} cannot be rewritten: {reason}")]
    Unwritable {
        /// The segment's base offset.
        base_offset: i64,
        /// What stands against it.
        reason: String,
    },
    /// The disk refused, or stored bytes are damaged.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<DiskError> for CleanError {
    fn from(error: DiskError) -> Self {
        Self::Log(error.into())
    }
}

impl CleanError {
    /// Reports whether another attempt could fare better without anybody's help. After any other
    /// error Kafka leaves the partition alone until the broker restarts.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Overtaken | Self::Stopped => true,
            Self::Log(error) => error.is_out_of_space(),
            Self::BufferTooSmall { .. } | Self::Unwritable { .. } => false,
        }
    }
}

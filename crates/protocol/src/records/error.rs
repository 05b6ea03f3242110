//! What can be wrong with a record batch.

use thiserror::Error;

use super::Compression;
use crate::ErrorCode;

/// A reason for which bytes are not a usable record batch.
///
/// [`BatchError::Incomplete`] is special: nothing is known to be wrong, there are just too few
/// bytes. A fetch that was cut at its size limit ends so, and so does a torn log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("batch needs {needed} bytes, {available} are there")]
    Incomplete {
        /// Bytes the batch needs, as far as they let us tell.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// The length field is smaller than any batch.
    #[error("batch length {length} is below the smallest possible")]
    LengthTooSmall {
        /// The field's value.
        length: i32,
    },
    /// The batch is a message of Kafka 0.10 or older.
    #[error("message format {magic} is no longer supported")]
    OldFormat {
        /// The magic byte: 0 or 1.
        magic: i8,
    },
    /// The magic byte belongs to no format.
    #[error("magic {magic} belongs to no known message format")]
    UnknownMagic {
        /// The magic byte.
        magic: i8,
    },
    /// The checksum does not match the bytes.
    #[error("stored checksum {stored:08x} differs from computed {computed:08x}")]
    ChecksumMismatch {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The length in the header differs from the size of the bytes given as one batch.
    #[error("batch of {expected} bytes was given as {actual} bytes")]
    SizeMismatch {
        /// Size according to the header.
        expected: usize,
        /// Size of the bytes.
        actual: usize,
    },
    /// The record count or the last offset delta is impossible.
    #[error("record count {count} does not fit last offset delta {last_offset_delta}")]
    ImpossibleCount {
        /// The header's record count.
        count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// The attributes name a codec that does not exist.
    #[error("compression codec {id} does not exist")]
    UnknownCompression {
        /// Bits 0–2 of the attributes.
        id: u8,
    },
    /// The codec cannot make sense of the compressed records.
    #[error("records are not valid {codec}")]
    Undecodable {
        /// The batch's codec.
        codec: Compression,
    },
    /// The records would take more memory than the caller allows.
    #[error("records decompress to more than {limit} bytes")]
    DecompressedTooLarge {
        /// The caller's limit.
        limit: usize,
    },
    /// A record contradicts itself or the end of the batch.
    #[error("record {index} of the batch is malformed: {fault}")]
    MalformedRecord {
        /// Position in the batch, from 0.
        index: i32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Bytes are left when as many records are read as the header counts.
    #[error("{size} bytes follow the last record")]
    TrailingBytes {
        /// How many.
        size: usize,
    },
}

/// What is wrong with a single record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// The batch ends within it.
    #[error("the batch ends within it")]
    Truncated,
    /// A variable-length integer does not end where it must.
    #[error("a variable-length integer is too long")]
    LongInteger,
    /// Its fields are longer or shorter than its own length says.
    #[error("its fields do not fill its length")]
    LengthMismatch,
    /// It has a negative length or number of headers, or a header without a key.
    #[error("it has a negative length or count")]
    NegativeLength,
}

impl BatchError {
    /// Whether more bytes at the end could cure it.
    pub fn is_incomplete(&self) -> bool {
        matches!(self, Self::Incomplete { .. })
    }

    /// The error code with which Kafka answers a producer that sent such a batch.
    ///
    /// Old formats give `INVALID_RECORD`: that is what a 4.x broker says, which reads no Produce
    /// version below 3. The older `UNSUPPORTED_FOR_MESSAGE_FORMAT` speaks of the topic's format.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Incomplete { .. }
            | Self::LengthTooSmall { .. }
            | Self::UnknownMagic { .. }
            | Self::ChecksumMismatch { .. }
            | Self::SizeMismatch { .. } => ErrorCode::CorruptMessage,
            // Kafka answers undecodable records with UNKNOWN_SERVER_ERROR, which blames the broker.
            Self::OldFormat { .. }
            | Self::ImpossibleCount { .. }
            | Self::Undecodable { .. }
            | Self::MalformedRecord { .. }
            | Self::TrailingBytes { .. } => ErrorCode::InvalidRecord,
            Self::DecompressedTooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::UnknownCompression { .. } => ErrorCode::UnsupportedCompressionType,
        }
    }
}

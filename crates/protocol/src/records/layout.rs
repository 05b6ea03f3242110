//! Byte positions of the version 2 record batch, in memory, on the wire and on disk alike.
//!
//! All integers are big-endian.
//!
//! ```text
//! byte  size  field
//! ----  ----  --------------------------------------------------------------------------
//!    0     8  base offset            offset of the first record
//!    8     4  length                 bytes that follow this field: batch size − 12
//!   12     4  leader epoch           −1 until a leader has appended the batch
//!   16     1  magic                  2
//!   17     4  checksum               CRC-32C of everything from byte 21 to the end
//!   21     2  attributes             see below
//!   23     4  last offset delta      last offset − base offset, also after compaction
//!   27     8  base timestamp         of the first record, or the delete horizon
//!   35     8  max timestamp          or the append time of the whole batch
//!   43     8  producer id            −1 without idempotence
//!   51     2  producer epoch         −1 without idempotence
//!   53     4  base sequence          −1 without idempotence
//!   57     4  record count
//!   61     …  records                compressed as one block when a codec is set
//!
//! attribute bits   0–2  codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd
//!                    3  timestamps are the log append time (else the creation time)
//!                    4  transactional
//!                    5  control batch
//!                    6  base timestamp holds the delete horizon
//!                 7–15  unused
//! ```
//!
//! Base offset and leader epoch come before the checksum's area on purpose: a broker assigns both
//! without touching the rest. Magic stays at byte 16 in every version of the format, so old
//! message sets can be recognised and refused.

/// Position of the base offset.
pub const BASE_OFFSET: usize = 0;
/// Position of the length field.
pub const LENGTH: usize = 8;
/// Position of the partition leader epoch.
pub const LEADER_EPOCH: usize = 12;
/// Position of the magic byte.
pub const MAGIC: usize = 16;
/// Position of the checksum.
pub const CRC: usize = 17;
/// Position of the attributes, where the checksum's area begins.
pub const ATTRIBUTES: usize = 21;
/// Position of the last offset delta.
pub const LAST_OFFSET_DELTA: usize = 23;
/// Position of the base timestamp.
pub const BASE_TIMESTAMP: usize = 27;
/// Position of the max timestamp.
pub const MAX_TIMESTAMP: usize = 35;
/// Position of the producer id.
pub const PRODUCER_ID: usize = 43;
/// Position of the producer epoch.
pub const PRODUCER_EPOCH: usize = 51;
/// Position of the base sequence.
pub const BASE_SEQUENCE: usize = 53;
/// Position of the record count.
pub const COUNT: usize = 57;

/// Size of the batch header, where the records begin.
pub const HEADER_SIZE: usize = 61;
/// Size of base offset and length, which the length field does not count.
pub const LENGTH_OVERHEAD: usize = 12;
/// Bytes needed to learn the length and the magic of any batch, old formats included.
pub const MAGIC_PREFIX_SIZE: usize = 17;
/// The magic of the only format we write and read.
pub const CURRENT_MAGIC: i8 = 2;

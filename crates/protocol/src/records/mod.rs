//! Record batches: the unit in which Kafka sends, stores and compresses records.
//!
//! Only format version 2 is read and written. [`layout`] draws the bytes.

pub mod layout;

mod alike;
mod batches;
mod error;
mod header;

mod outline;
mod record;
mod varint;

mod compress;
mod compression;
mod decompress;
mod lz4;
mod snappy;

mod builder;
mod control;
mod rewrite;

pub use batches::{Batch, Batches};
pub use builder::{AppendError, BatchBuilder, BatchOptions, BatchProducer, NewRecord};
pub use compress::Codec;
pub use compression::{Compression, UnknownCompressionName};
pub use control::{ControlRecordError, ControlRecordType, EndTransactionMarker, control_batch};
pub use decompress::Decompressor;
pub use error::{BatchError, RecordFault};
pub use header::{Attributes, BatchHeader, TimestampType, sequence_plus};
pub use record::{Header, Headers, Record, RecordIter, RecordsSummary, validate_records};
pub use rewrite::emptied_batch;

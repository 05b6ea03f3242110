//! Record batches: the unit in which Kafka sends, stores and compresses records.
//!
//! Only format version 2 is read and written. [`layout`] draws the bytes.

pub mod layout;

mod batches;
mod compression;
mod error;
mod header;

pub use batches::{Batch, Batches};
pub use compression::{Compression, UnknownCompressionName};
pub use error::BatchError;
pub use header::{Attributes, BatchHeader, TimestampType, sequence_plus};

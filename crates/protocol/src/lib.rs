//! Kafka wire messages, frames, record batches, compression and error codes.

pub mod error;
pub mod records;

pub use error::ErrorCode;

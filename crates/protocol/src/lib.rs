//! Kafka wire messages, frames, record batches, compression and error codes.

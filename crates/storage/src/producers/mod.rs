//! What a log knows of its idempotent and transactional producers.
//!
//! [`entry`] holds the rules of sequences and epochs for one producer, [`state`] all producers of a
//! log with their open transactions, [`snapshot`] the file that saves replaying the whole log.

mod entry;
mod snapshot;
mod state;

pub use entry::ProducerView;
pub(crate) use entry::{ProducerBatch, Strictness};
pub(crate) use snapshot::{decode, encode};
pub(crate) use state::{ProducerState, Staged};

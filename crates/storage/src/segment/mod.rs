//! One segment of a log: a file of batches with two sparse indexes.
//!
//! [`batch_file`] writes and cuts it, [`lookup`] finds batches in it, [`rewriting`] repeats writes that
//! a sync has lost, [`steps`] knows where its readers are, [`transaction_index`] what was aborted in it.

mod batch_file;
mod lookup;
mod rewriting;
mod steps;
mod transaction_index;

pub use transaction_index::AbortedTransaction;
pub(crate) use transaction_index::ENTRY_BYTES as TRANSACTION_ENTRY_BYTES;

pub(crate) use batch_file::{BatchFacts, NO_TIMESTAMP, Segment, facts};
pub(crate) use steps::Steps;

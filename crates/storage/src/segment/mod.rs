//! One segment of a log: a file of batches with two sparse indexes.
//!
//! [`batch_file`] writes and cuts it, [`lookup`] finds batches in it.

mod batch_file;
mod lookup;

pub(crate) use batch_file::{BatchFacts, NO_TIMESTAMP, Segment, facts};

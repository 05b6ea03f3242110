//! Committed offsets: committing, fetching, deleting, expiring.
//!
//! They live in the [`crate::Ledger`] alone; nothing about them is soft. Groups of all protocols
//! share them, which is why they stand beside the classic protocol and not in it.

mod api;
mod commit;
mod delete;
mod expiry;
mod fetch;

pub use api::{
    CommitPartition, CommitRequest, CommitTopic, DeleteRequest, DeletedTopic, FetchRequest,
    FetchTopic, FetchedOffsets, FetchedTopic, TopicOutcomes,
};

//! Committed offsets: committing, fetching, deleting, expiring.
//!
//! They live in the [`crate::Ledger`] alone; nothing about them is soft. Those of open transactions
//! wait apart until a marker decides about them ([`pending`]). Groups of all protocols
//! share them, which is why they stand beside the classic protocol and not in it.

mod api;
mod commit;
mod delete;
mod expiry;
mod fetch;
mod pending;
mod transactional;

pub use api::{
    CommitPartition, CommitRequest, CommitTopic, DeleteRequest, DeletedTopic, FetchRequest,
    FetchTopic, FetchedOffset, FetchedOffsets, FetchedTopic, TopicOutcomes,
};
pub use transactional::TransactionalCommitRequest;

pub(crate) use pending::PendingOffsets;

//! Share coordination: what share groups have done with records, for one partition of
//! `__share_group_state` (KIP-932).
//!
//! For every share-partition the log has a snapshot and updates since. A [`ShareCoordinator`] decides
//! which record a request comes to, the driver appends it, and only [`ShareCoordinator::apply`]
//! changes what is known; replay does the same. Nothing waits here, so that there are no tokens: a
//! decision is a record, or none, or a refusal.
//!
//! A snapshot makes the records before it redundant. When every share-partition has a snapshot
//! beyond some offset, the driver may delete the log up to there ([`ShareCoordinator::redundant_below`]);
//! share-partitions that nobody writes to are given new snapshots now and then, or they would hold
//! the whole log.

mod coordinator;
mod record;
mod state;

pub use coordinator::{ShareCoordinator, ShareStateError, ShareStateSettings, Summary, Written};
pub use record::{ShareStateRecord, Update};
pub use state::{ShareKey, ShareState, UNINITIALIZED_START};

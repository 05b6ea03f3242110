//! The classic group protocol: members join, a leader among them assigns, all synchronise.
//!
//! ```text
//!            first member joins             all joined, or time is up
//!   Empty ───────────────────▶ PreparingRebalance ────────────▶ CompletingRebalance
//!     ▲                          │      ▲     ▲                    │        │
//!     │  nobody is left          │      │     └── member joins, ───┘        │ the leader's
//!     └──────────────────────────┘      │         leaves, expires           │ assignment
//!                                       │         or fails to sync          │ is stored
//!                                       │                                   ▼
//!                                       └───────────────────────────────  Stable
//!
//!   any state ──▶ Dead: the shard is given up, or the group's last record is a tombstone
//! ```
//!
//! Nothing here is persistent. A group as the log knows it is the last `GroupMetadataValue`
//! written, kept in the [`crate::Ledger`]; `ClassicGroup` is what the members are doing at this
//! moment. The log hears of it three times: when the group comes into being, when the leader's
//! assignment makes it stable (or a static member changes its id in a stable group), and when the
//! last member has gone.

mod api;
mod describe;
mod embedded;
mod from_consumer;
mod group;
mod join;
mod leave;
mod member;
mod rebalance;
mod state;
mod stored;
mod sync;

pub use api::{
    HeartbeatRequest, JoinRefusal, JoinRequest, Joined, JoinedMember, LeaveRequest, Leaver,
    LeaverOutcome, Protocol, SyncRequest, Synced,
};
pub use state::State;

pub(crate) use embedded::{Subscription, read_assignment, read_subscription, write_assignment};
pub(crate) use group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup};

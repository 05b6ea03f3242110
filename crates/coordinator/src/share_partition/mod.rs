//! A share-partition: which records of one partition a share group has in flight (KIP-932).
//!
//! ```text
//!            acquire                    accept
//! AVAILABLE ─────────▶ ACQUIRED ─────────────────▶ ACKNOWLEDGED
//!     ▲                  │  │  │     reject, gap, or given back
//!     │    release, lock │  │  │     once too often
//!     └──────────────────┘  │  └─────────────────▶ ARCHIVED
//!                           └─ renew: a new lock time, nothing else
//! ```
//!
//! The offsets between the start (SPSO) and the next offset to acquire for the first time (SPEO + 1)
//! are kept as runs with one state each, which tile that range without holes: see `runs`. Kafka has
//! batches there that turn into maps of single offsets; a run is split where an acknowledgement asks
//! for it and joined with its neighbour when both are alike again, so that one representation does.
//!
//! # Decide, append, apply
//!
//! What members do with records they have is decided first, as a [`Change`]; the driver appends it
//! to `__share_group_state`, and only [`SharePartition::apply`] takes it in. Nothing has to be taken
//! back when the append fails. Acquisitions are not written down, here as in Kafka: after a restart
//! whatever was acquired is available again, with the delivery count that was last written.
//!
//! What this machine must never know: how records are read, where the state is stored, what time it
//! is.

mod acknowledge;
mod acquire;
mod partition;
mod runs;

pub use acknowledge::{Acknowledge, AcknowledgeError, AcknowledgementBatch, Change, Terms};
pub use acquire::{Acquire, AcquireMode, Acquired, Fetched};
pub use partition::{SharePartition, StoredBatch};
pub use runs::RecordState;

//! State on disk: one database per instance, under the caches of its stores.
//!
//! ```text
//! <state.dir>/<application id>/        the database; its lock keeps a second instance out
//!
//! keyspace `store/<store>`, all its partitions:
//!   | partition: u32 | 0: u8 |             ->  the position, see `position.rs`
//!   | partition: u32 | 1: u8 | key ... |   ->  value
//! ```
//!
//! What a task writes stays in memory, in front of the database, until its commit has reached the cluster. After one of
//! the next commits (its driver says which) data and position go to the database in one step, see `keeping.rs`. So the
//! database never has what an aborted transaction wrote, and a crash leaves each store as it was at one of its commits,
//! with the changelog's offset that belongs to it; only what the changelog has behind that offset is restored. What is
//! restored goes the same way, piece by piece: a restoration that is broken off goes on behind its last piece.
//!
//! The position lies in the keyspace of its data because a keyspace reaches the disk in the order of its writes, even
//! where power fails before the journal was synced: never can a position be there without the data before it.
//!
//! What lives for a time (windows, sessions, events of joins) lies here by time, see `timed.rs`, and leaves by whole spans of
//! it. What waits for its time (events without a partner, timers) lies here in the order of that, see `queue.rs`. Suppressed
//! changes live in typed maps, as with Kafka Streams, and have an image here: their changelog as compaction would leave it,
//! from which a new task fills its maps.

mod arrived;
mod backend;
mod dead;
mod directory;
mod image;
mod keeping;
mod memtables;
mod position;
mod snapshot;

pub(crate) use backend::DiskBackend;
pub(crate) use directory::{Claim, StateDirectory};
pub(crate) use image::Image;
pub(crate) use keeping::Keeping;
pub(crate) use position::Position;
pub use snapshot::StateSnapshot;

//! Compaction: of each key only the last record stays.
//!
//! ```text
//!   under the lock           outside                      under the lock
//!   Log::begin_clean   ──►   Cleaner::run        ──►      Log::finish_clean
//!                              │        ▲
//!                              ▼        │  per group of segments
//!                            Log::swap_in (under the lock)
//! ```
//!
//! A compaction reads the part of a log that was not compacted yet and remembers the last offset of
//! each key ([`offset_map`]). Then it writes all segments anew up to where that memory reaches,
//! without the records that a later one has replaced ([`filter`], [`transactions`]), and puts them
//! in place of the old ones ([`swap`]). [`plan`] decides what may be touched, [`job`] does the
//! work. Appends and reads go on meanwhile; a truncation or a deletion that gets in the way ends
//! the compaction, and nothing has happened.
//!
//! What Kafka does and we do not: the formats before record batches (magic 0 and 1) are refused as
//! damage, and segments whose offsets span more than 31 bits, which only ancient brokers wrote, are
//! not split.

mod error;
mod filter;
mod job;
mod offset_map;
mod plan;
mod source;
mod swap;
mod transactions;

pub use error::CleanError;
pub use job::{CleanJob, CleanOutcome, CleanStats, CleanedGroup, Cleaner, CleanerOptions, Pace};
pub use plan::Dirtiness;
pub(crate) use swap::finish_swaps;

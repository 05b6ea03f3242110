//! The log of one partition.
//!
//! [`append`](self) examines batches and writes them, [`read`](self) finds them again, [`flush`]
//! makes them durable, [`rewriting`] does so when a full disk shows too late, [`truncate`] and [`retention`] take them away, [`open`] finds out after a
//! restart what there is.

mod append;
mod examine;
mod flush;
mod open;
mod partition_log;
mod read;
mod retention;
mod rewriting;
mod truncate;

pub use append::{Append, Appended, Origin};
pub use flush::FlushJob;
pub use open::{OpenOptions, Recovery};
pub use partition_log::Log;
pub use read::{LocatedRecords, ReadPlan, ReadRequest, Records, TimestampedOffset};

//! A disk in memory that loses what was not synced and fails where told to.
//!
//! [`tree`] holds files and directories with what a crash would leave of them, [`fault`] the
//! injected errors, [`sim_disk`] joins both behind the [`fleuve_os::Disk`] trait.

mod fault;
mod sim_disk;
mod tree;

pub use fault::{Effect, Fault, Operation};
pub use sim_disk::{HeldSyncs, SimDisk};
pub use tree::Crash;

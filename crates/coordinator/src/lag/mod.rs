//! Whether consumers keep up, judged by what they commit: the rules of Burrow.
//!
//! A lag above a fixed number says little: a batch job may lag by millions and be well, while a
//! consumer that is stuck lags by ten. Burrow therefore looks at how a group's last commits for a
//! partition moved, and needs no threshold:
//!
//! | Rule, in this order | State |
//! |---|---|
//! | the current lag is no more than what is allowed | OK |
//! | more time passed since the last commit than between first and last, and the end of the log was not reached recently | STOP |
//! | an offset is below the one before it, and that one was not reached again | REWIND |
//! | a commit of the window had no more lag than is allowed | OK |
//! | all offsets are equal | STALL |
//! | the lag never decreased | WARN |
//! | otherwise | OK |
//!
//! A group is as its worst partition: ERR for STOP, STALL and REWIND.
//!
//! [`LagWatch`] is a machine like the coordinators: the driver tells it of commits and of the ends
//! of logs, with the time, and asks for its judgement. [`judge`] is the table above.

mod rules;
mod watch;
mod window;

pub use rules::{PartitionState, judge};
pub use watch::{Commit, GroupLag, GroupState, LagSettings, LagWatch, PartitionLag};
pub use window::Sample;

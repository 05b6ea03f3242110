//! What runs: a task is one subtopology for one partition number, as a plain machine.
//!
//! Records go in with `Task::add`, are processed depth-first one at a time in order of event time, and what leaves
//! (output and changelog records, offsets to commit) is taken out by whoever drives the task: the deterministic
//! [`crate::TestDriver`] or the threads of a running application. No clock, socket or task scheduler in here.

mod adopting;
mod advancing;
mod assembly;
mod context;
mod deferring;
mod globals;
mod node;
mod punctuation;
mod queues;
mod stored;
mod tallies;
mod task;
mod timed;
mod watermarks;

pub(crate) use assembly::{Assembly, StoreSlot};
pub use context::{Cx, Origin};
pub(crate) use context::{Outgoing, OutgoingTopic, Problem, SourceRecord};
pub(crate) use deferring::{Deferring, SharedDeferring};
pub(crate) use globals::{GlobalReader, GlobalStore, Globals};
pub(crate) use node::{Down, Edge, Fan, Flusher, Punctuated, SourceEntry};
pub(crate) use punctuation::Schedules;
pub use punctuation::{Clock, Schedule};
pub(crate) use queues::Lag;
pub use queues::RawRecord;
pub(crate) use stored::{Place, Restorable};
pub(crate) use tallies::Tallies;
pub use tallies::{Counter, Distribution, DistributionSummary};
pub(crate) use task::{Progress, Task, TaskId};
pub(crate) use timed::{END_OF_TIME, Station, Timed};

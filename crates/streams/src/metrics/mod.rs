//! What a running application counts, and how it is seen: live numbers of tasks, nodes and stores, and traces of single
//! records.
//!
//! Counting costs the thread of a task one addition per record and node, in plain numbers (`Tally`, `Spread`). Once a
//! second the thread puts a copy where others read it; rates are made from totals by whoever reads (`Rates`). The names
//! are Kafka Streams'; every family is in `docs/metrics.md`.

mod meter;
pub(crate) mod page;
mod rates;
mod snapshot;
mod spread;
mod tally;
mod task_meter;
mod trace;
mod traffic;

pub(crate) use meter::{Meter, Told};
pub(crate) use rates::Rates;
pub use snapshot::{
    ClientKind, ClientMetrics, ClientState, DiskMetrics, Emission, InputMetrics, NodeMetrics,
    OutputMetrics, RestorationMetrics, StandbyMetrics, StoreKind, StoreMetrics, StreamsMetrics,
    TaskMetrics, ThreadMetrics, ThreadState,
};
pub use spread::Summary;
pub(crate) use spread::{Part, Spread};
pub(crate) use tally::Tally;
pub(crate) use task_meter::{MILLION, TaskMeter};
pub(crate) use trace::{Sampler, Traces, Tracing};
pub use trace::{Step, Trace};
pub(crate) use traffic::{Counted, Written, record_bytes};

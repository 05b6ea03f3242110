//! Operators that wait for event time: how time reaches them when no record brings it.
//!
//! In Kafka Streams, and here unless a program asks for more, an operator learns of event time from its records alone,
//! and is an ordinary node of its parent's. Only where time may move by itself the task holds a second handle of it.

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Assembly, Cx, Down, Problem};
use crate::record::{Data, Record};

/// An operator that does something because time passes.
pub(crate) trait Timed: Send {
    /// Event time has come to `time_ms`, or to [`END_OF_TIME`], without a record that says so.
    fn advance(&mut self, time_ms: i64, cx: &mut Cx) -> Result<(), Problem>;

    /// How far behind event time the records may be that it still has to send.
    fn holds_back_ms(&self) -> i64 {
        0
    }
}

/// The task's part of such an operator.
pub(crate) type SharedTimed = Arc<Mutex<dyn Timed>>;

/// What time is told to, upstream before downstream.
pub(crate) enum Station {
    Operator(SharedTimed),
    /// The timers of the processor of this number.
    Processor(usize),
}

/// An operator in the tree of its parent; the task has another handle.
struct Handle<D>(Arc<Mutex<D>>);

impl<K: Data, V: Data, D: Down<K, V>> Down<K, V> for Handle<D> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        self.0.lock().push(record, cx)
    }
}

impl Assembly<'_> {
    /// A node that time is told to, where time may move by itself.
    pub(crate) fn timed<K: Data, V: Data>(
        &mut self,
        operator: impl Down<K, V> + Timed + 'static,
    ) -> Box<dyn Any + Send> {
        let node: Box<dyn Down<K, V>> = if self.plan.time.moves_alone() {
            let shared = Arc::new(Mutex::new(operator));
            self.add_station(Station::Operator(shared.clone()));
            Box::new(Handle(shared))
        } else {
            Box::new(operator)
        };
        Box::new(node)
    }
}

/// When everything that waits for time is due.
pub(crate) const END_OF_TIME: i64 = i64::MAX;

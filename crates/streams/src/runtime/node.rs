//! Running nodes: typed pushes from parent to child.
//!
//! Types are erased when a task is assembled, not per record: a node holds its children as `Box<dyn Down<K, V>>` of
//! the very type that it sends.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Cx, Problem, RawRecord, Schedule};
use crate::metrics::Tally;
use crate::record::{Data, Record};

/// A node that takes records of one type.
pub(crate) trait Down<K, V>: Send {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem>;
}

/// A source node: takes bytes.
pub(crate) trait SourceEntry: Send {
    /// Event time of a record, asked when it is queued, so that queues can be ordered.
    fn timestamp(&self, record: &RawRecord, partition_time: i64) -> i64;

    fn push(&mut self, record: RawRecord, cx: &mut Cx) -> Result<(), Problem>;
}

/// Sends what a cache collected.
pub(crate) trait Flusher: Send {
    /// Sends so many changes, or more where that is all or nothing. Returns whether there are others.
    fn flush(&mut self, limit: usize, cx: &mut Cx) -> Result<bool, Problem>;
}

/// A processor of the program's, as its task calls it by time.
pub(crate) trait Punctuated: Send {
    fn init(&mut self, cx: &mut Cx) -> Result<(), Problem>;

    fn punctuate(&mut self, schedule: Schedule, timestamp: i64, cx: &mut Cx)
    -> Result<(), Problem>;

    /// Calls the processor for every timer that is due at this event time.
    fn fire_timers(&mut self, until_ms: i64, cx: &mut Cx) -> Result<(), Problem>;

    fn close(&mut self);
}

/// The children of a node.
pub(crate) enum Fan<K, V> {
    None,
    One(Edge<K, V>),
    /// In the order in which they were attached. All but the last get a clone.
    Many(Vec<Edge<K, V>>),
}

/// The way to a child, which counts what goes along it.
pub(crate) struct Edge<K, V> {
    pub(crate) child: Box<dyn Down<K, V>>,
    pub(crate) tally: Arc<Tally>,
}

impl<K, V> Edge<K, V> {
    #[inline]
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        self.tally.count(cx.now_ms, record.timestamp);
        if cx.tracing.is_none() {
            return self.child.push(record, cx);
        }
        let entered = cx.tracing.as_mut().and_then(|tracing| tracing.enter(&self.tally.node));
        let pushed = self.child.push(record, cx);
        if let Some(tracing) = &mut cx.tracing {
            tracing.leave(entered);
        }
        pushed
    }
}

impl<K: Data, V: Data> Fan<K, V> {
    pub(crate) fn of(mut children: Vec<Edge<K, V>>) -> Self {
        match children.len() {
            0 => Self::None,
            1 => Self::One(children.remove(0)),
            _ => Self::Many(children),
        }
    }

    pub(crate) fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        match self {
            Self::None => Ok(()),
            Self::One(child) => child.push(record, cx),
            Self::Many(children) => {
                let Some((last, others)) = children.split_last_mut() else {
                    return Ok(());
                };
                for child in others {
                    child.push(record.clone(), cx)?;
                }
                last.push(record, cx)
            }
        }
    }

    /// Sends to one child by position; splits use it.
    pub(crate) fn push_to(
        &mut self,
        child: usize,
        record: Record<K, V>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        match self {
            Self::One(only) if child == 0 => only.push(record, cx),
            Self::Many(children) => match children.get_mut(child) {
                Some(child) => child.push(record, cx),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// A node with several parents. The graph has no cycles, so the lock is never contended: a task is one thread.
pub(crate) struct Shared<K, V>(pub(crate) Arc<Mutex<Box<dyn Down<K, V>>>>);

impl<K: Data, V: Data> Down<K, V> for Shared<K, V> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        self.0.lock().push(record, cx)
    }
}

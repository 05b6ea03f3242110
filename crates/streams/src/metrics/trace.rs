//! Traces: the way of one record in so many through the nodes of its task, with times.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::runtime::Origin;

/// The way of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The task that processed it.
    pub task: String,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its event time in milliseconds.
    pub timestamp: i64,
    /// When it was processed, in milliseconds since the epoch.
    pub processed_ms: i64,
    /// How long that took, in nanoseconds.
    pub took_ns: u64,
    /// The nodes that it, or what was made of it, came through, in order.
    pub steps: Vec<Step>,
}

/// One node on a record's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The node.
    pub node: Arc<str>,
    /// How many nodes were before it on this branch.
    pub depth: u32,
    /// When it began, in nanoseconds after the record did.
    pub began_ns: u64,
    /// How long it took, with all nodes behind it, in nanoseconds.
    pub took_ns: u64,
}

/// The last traces of an instance, and how often one is taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces(Arc<Ring>);

#[derive(Debug, Default)]
struct Ring {
    /// One record in so many is traced; 0 for none.
    every: AtomicU64,
    last: Mutex<VecDeque<Trace>>,
}

/// Chooses the records of one task that are traced.
#[derive(Debug)]
pub(crate) struct Sampler {
    traces: Traces,
    every: u64,
    left: u64,
}

/// A trace while its record is processed.
#[derive(Debug)]
pub(crate) struct Tracing {
    began: Instant,
    depth: u32,
    steps: Vec<Step>,
}

impl Traces {
    /// Traces one record in so many in tasks that begin from now on; 0 for none.
    pub(crate) fn set_every(&self, every: u64) {
        self.0.every.store(every, Ordering::Relaxed);
    }

    pub(crate) fn sampler(&self) -> Sampler {
        let every = self.0.every.load(Ordering::Relaxed);
        // The first record is traced: a trickle is seen too.
        Sampler { traces: self.clone(), every, left: every.min(1) }
    }

    /// The last traces, the newest first.
    pub(crate) fn last(&self) -> Vec<Trace> {
        self.0.last.lock().iter().rev().cloned().collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        let traces = self.last().into_iter().map(|trace| {
            let steps = trace.steps.iter().map(|step| {
                json!({
                    "node": &*step.node,
                    "depth": step.depth,
                    "beganNs": step.began_ns,
                    "tookNs": step.took_ns,
                })
            });
            json!({
                "task": trace.task,
                "topic": &*trace.topic,
                "partition": trace.partition,
                "offset": trace.offset,
                "timestamp": trace.timestamp,
                "processedMs": trace.processed_ms,
                "tookNs": trace.took_ns,
                "steps": steps.collect::<Vec<_>>(),
            })
        });
        Value::Array(traces.collect())
    }
}

impl Sampler {
    /// Whether the next record is to be traced.
    #[inline]
    pub(crate) fn begin(&mut self) -> Option<Box<Tracing>> {
        if self.every == 0 {
            return None;
        }
        self.left -= 1;
        if self.left > 0 {
            return None;
        }
        self.left = self.every;
        Some(Box::new(Tracing { began: Instant::now(), depth: 0, steps: Vec::new() }))
    }

    pub(crate) fn end(&self, tracing: Tracing, task: String, origin: &Origin, now_ms: i64) {
        let trace = Trace {
            task,
            topic: origin.topic.clone(),
            partition: origin.partition,
            offset: origin.offset,
            timestamp: origin.timestamp,
            processed_ms: now_ms,
            took_ns: tracing.began.elapsed().as_nanos() as u64,
            steps: tracing.steps,
        };
        let mut last = self.traces.0.last.lock();
        if last.len() == TRACES_MAX {
            last.pop_front();
        }
        last.push_back(trace);
    }
}

impl Tracing {
    /// Notes that a node begins; `None` if there are too many already.
    pub(crate) fn enter(&mut self, node: &Arc<str>) -> Option<usize> {
        let depth = self.depth;
        self.depth += 1;
        if self.steps.len() == STEPS_MAX {
            return None;
        }
        let began_ns = self.began.elapsed().as_nanos() as u64;
        self.steps.push(Step { node: node.clone(), depth, began_ns, took_ns: 0 });
        Some(self.steps.len() - 1)
    }

    /// Notes that the node is done, and all behind it.
    pub(crate) fn leave(&mut self, entered: Option<usize>) {
        self.depth -= 1;
        let now_ns = self.began.elapsed().as_nanos() as u64;
        if let Some(step) = entered.and_then(|entered| self.steps.get_mut(entered)) {
            step.took_ns = now_ns - step.began_ns;
        }
    }
}

/// Traces that are kept.
const TRACES_MAX: usize = 200;
/// Nodes of one trace: a record may become thousands.
const STEPS_MAX: usize = 200;

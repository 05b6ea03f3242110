//! The DSL: streams, tables and what can be done with them, under Kafka Streams' names.
//!
//! A handle ([`KStream`], [`KTable`], ...) is a place in the graph of its [`Topology`]; calling an operator adds a node
//! there and gives the next handle. A handle may be used several times: each use is one more child, and records are
//! cloned for all but the last.
//!
//! Nodes are numbered as Kafka Streams numbers them. `stream.named("name")` names the next node instead.

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::record::Data;
use crate::runtime::{Assembly, Down, Timed};
use crate::topology::{NodeBuilder, NodeId};

mod app;
mod balanced;
mod branches;
mod cogrouped;
mod composite;
mod errors;
mod event_time;
mod fallible;
mod folding;
mod foreign_join;
mod global;
mod grouped;
mod grouped_table;
mod kstream;
mod ktable;
mod ktable_join;
mod late;
mod materialized;
mod outside;
mod partitioning;
pub mod processor;
mod produced;
mod repartition;
mod session_windowed;
mod states;
mod stores;
mod stream_join;
mod stream_joined;
mod stream_table_join;
mod stream_task;
mod suppressed;
mod to_table;
mod transform_values;
mod windowed;
mod windows;

pub(crate) use app::Extractor;
pub use app::{Consumed, Topology};
pub use branches::Branches;
pub use cogrouped::{
    CogroupedKStream, SessionWindowedCogroupedKStream, TimeWindowedCogroupedKStream,
};
pub use composite::Transform;
pub use errors::ErrorPolicy;
pub(crate) use errors::{Policies, Retry, Stage};
pub(crate) use event_time::TimePolicy;
pub use global::GlobalKTable;
pub use grouped::KGroupedStream;
pub use grouped_table::KGroupedTable;
pub use kstream::KStream;
pub use ktable::KTable;
pub use materialized::Materialized;
pub use outside::{AsyncOrder, Batch};
pub use partitioning::Partitioning;
pub(crate) use partitioning::{Choice, Route, Router};
pub(crate) use processor::{Output, Processor, ProcessorError, State, TimerState};
pub use produced::Produced;
pub use repartition::Repartitioned;
pub use session_windowed::SessionWindowedKStream;
pub use stream_joined::StreamJoined;
pub use stream_table_join::Joined;
pub use stream_task::StreamTask;
pub use suppressed::{SuppressBuffer, Suppressed};
pub use windowed::{TimeWindowedKStream, Windowing};
pub use windows::{JoinWindows, SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows};

/// A closure of the program: each task gets a clone of it.
pub(crate) struct Closure<F>(Mutex<F>);

impl<F: Clone> Closure<F> {
    pub(crate) fn new(closure: F) -> Self {
        Self(Mutex::new(closure))
    }

    pub(crate) fn get(&self) -> F {
        self.0.lock().clone()
    }
}

/// A node that takes `Record<K, V>`.
pub(crate) fn node<K: Data, V: Data, D: Down<K, V> + 'static>(
    build: impl Fn(&mut Assembly<'_>, NodeId) -> D + Send + Sync + 'static,
) -> NodeBuilder {
    Arc::new(move |assembly, id| {
        let node: Box<dyn Down<K, V>> = Box::new(build(assembly, id));
        Box::new(node) as Box<dyn Any + Send>
    })
}

/// A node that takes `Record<K, V>` and waits for event time.
pub(crate) fn timed_node<K: Data, V: Data, D: Down<K, V> + Timed + 'static>(
    build: impl Fn(&mut Assembly<'_>, NodeId) -> D + Send + Sync + 'static,
) -> NodeBuilder {
    Arc::new(move |assembly, id| {
        let operator = build(assembly, id);
        assembly.timed::<K, V>(operator)
    })
}

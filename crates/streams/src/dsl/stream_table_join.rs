//! Joins of a stream with a table: each event looks up its key.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use super::ktable::KTable;
use super::{Closure, KStream, timed_node};
use crate::error::TopologyError;
use crate::operator::stream_table_join::StreamTableJoin;
use crate::record::Data;
use crate::serde::{SerdeOf, StreamType};
use crate::state::EventBuffer;
use crate::topology::{ChangelogKind, Graph, NodeId, StoreSpec};

/// How a stream is joined with a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joined {
    grace_ms: Option<i64>,
}

impl Joined {
    /// Lets events wait until event time is so far ahead of them, as [`KStream::join_with_grace`] does.
    pub fn grace_ms(mut self, grace_ms: i64) -> Self {
        self.grace_ms = Some(grace_ms);
        self
    }
}

impl<K: StreamType, V: StreamType> KStream<K, V> {
    /// Events whose key the table has, with its value. Updates of the table send nothing by themselves.
    pub fn join<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        mut joiner: impl FnMut(&V, &W) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup(table, false, None, move |_, value, row| match row {
            Some(row) => joiner(value, row),
            None => unreachable!("an inner join joins two values"),
        })
    }

    /// [`Self::join`] of events that first wait until event time is `grace_ms` ahead of them, so that the table has
    /// come to their time too. The table must keep versions for as long.
    pub fn join_with_grace<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        grace_ms: i64,
        mut joiner: impl FnMut(&V, &W) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup(table, false, Some(grace_ms), move |_, value, row| match row {
            Some(row) => joiner(value, row),
            None => unreachable!("an inner join joins two values"),
        })
    }

    /// All events, with the table's value where it has one.
    pub fn left_join<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        mut joiner: impl FnMut(&V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup(table, true, None, move |_, value, row| joiner(value, row))
    }

    /// [`Self::left_join`] with a grace period, as [`Self::join_with_grace`].
    pub fn left_join_with_grace<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        grace_ms: i64,
        mut joiner: impl FnMut(&V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup(table, true, Some(grace_ms), move |_, value, row| joiner(value, row))
    }

    /// [`Self::join`] with a look at the key, and with a grace period if there is one.
    pub fn join_with<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        joined: Joined,
        mut joiner: impl FnMut(&K, &V, &W) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup(table, false, joined.grace_ms, move |key, value, row| match row {
            Some(row) => joiner(key, value, row),
            None => unreachable!("an inner join joins two values"),
        })
    }

    /// [`Self::left_join`] with a look at the key, and with a grace period if there is one.
    pub fn left_join_with<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        joined: Joined,
        joiner: impl FnMut(&K, &V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup(table, true, joined.grace_ms, joiner)
    }

    fn lookup<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        left: bool,
        grace_ms: Option<i64>,
        joiner: impl FnMut(&K, &V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        let stream = if self.repartition {
            let prefix = self.next_name.as_deref().unwrap_or(&self.name);
            let mut stream = self.repartitioned_for_join(prefix);
            stream.next_name = self.next_name.clone();
            stream
        } else {
            self.clone()
        };
        let joiner = Closure::new(joiner);
        let view: Arc<dyn super::ktable::TableView<K, W>> = table.view.clone();
        let getter = view.clone();
        let prefix = if left { "KSTREAM-LEFTJOIN-" } else { "KSTREAM-JOIN-" };
        let table_node = table.node;
        let mut joined = stream.derive(
            prefix,
            timed_node::<K, V, _>(move |assembly, id| StreamTableJoin {
                node: assembly.name(id),
                left,
                joiner: joiner.get(),
                table: getter.getter(assembly),
                versioned: assembly.plan.is_versioned(table_node),
                grace_ms: grace_ms.unwrap_or(0),
                waiting: grace_ms.map(|_| assembly.store(&buffer_name(&assembly.name(id)))),
                children: assembly.children(id),
                result: PhantomData,
            }),
        );
        joined.key = stream.key.clone();
        joined.repartition = false;
        joined.sources = stream.sources.union(&table.sources).copied().collect();
        let mut graph = self.graph.lock();
        graph.copartition(joined.sources.clone());
        for store in view.stores(&mut graph) {
            graph.connect(joined.node, &store);
        }
        if let Some(grace_ms) = grace_ms {
            let key = stream.key.clone().unwrap_or_else(SerdeOf::usual);
            let value = stream.value.clone().unwrap_or_else(SerdeOf::usual);
            add_buffer(&mut graph, joined.node, table_node, (key, value), grace_ms);
        }
        drop(graph);
        joined
    }
}

/// Adds the store in which a join's events wait for its table.
fn add_buffer<K: StreamType, V: StreamType>(
    graph: &mut Graph,
    join: NodeId,
    table: NodeId,
    (key, value): (SerdeOf<K>, SerdeOf<V>),
    grace_ms: i64,
) {
    let node = graph.nodes[join].name.clone();
    if graph.history_of(table).is_none_or(|history_ms| history_ms < grace_ms) {
        graph.errors.push(TopologyError::Invalid(format!(
            "{node} has a grace period: its table must keep versions at least as long"
        )));
    }
    let store = buffer_name(&node);
    graph.add_store(StoreSpec {
        name: store.clone(),
        build: Arc::new(move |spec, _| {
            // Kafka Streams tells serdes the node's name here, not a topic.
            let (name, topic) = (spec.name.clone(), node.clone());
            Box::new(EventBuffer::new(name, topic, key.clone(), value.clone(), grace_ms))
        }),
        logged: true,
        cached: false,
        changelog: ChangelogKind::KeyValue,
        changelog_config: BTreeMap::new(),
        source_topic: None,
        store_type: None,
        global: false,
    });
    graph.connect(join, &store);
}

fn buffer_name(node: &str) -> String {
    format!("{node}-Buffer")
}

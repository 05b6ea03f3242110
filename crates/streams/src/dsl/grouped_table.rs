//! Grouped tables: aggregation of rows that come, change and go.

use std::marker::PhantomData;
use std::sync::Arc;

use super::app::{Consumed, source_builder};
use super::ktable::{KTable, OwnedTable};
use super::produced::{Produced, sink_builder};
use super::{Closure, Materialized, node};
use crate::operator::sink::Target;
use crate::operator::source::TableEmit;
use crate::operator::table_aggregate::{Regroup, TableAggregate};
use crate::record::{Change, Data};
use crate::serde::{ChangeSerde, SerdeOf, StreamType};
use crate::topology::{Kind, NodeId, SharedGraph, SinkTopic};

/// A table grouped by a new key. Aggregations add a row's new value to its group and subtract its old one, so both
/// directions are asked for.
pub struct KGroupedTable<K, V> {
    graph: SharedGraph,
    node: NodeId,
    key: SerdeOf<K>,
    value: SerdeOf<V>,
    repartition_name: Option<String>,
    next_name: Option<String>,
}

impl<K: StreamType, V: StreamType> KGroupedTable<K, V> {
    pub(crate) fn new<L: Data, W: Data>(
        table: &KTable<L, W>,
        (key, value): (SerdeOf<K>, SerdeOf<V>),
        selector: impl FnMut(&L, &W) -> (K, V) + Clone + Send + 'static,
    ) -> Self {
        let selector = Closure::new(selector);
        let for_node = key.clone();
        let id = table.add(
            "KTABLE-SELECT-",
            node::<L, Change<W>, _>(move |assembly, id| Regroup {
                node: assembly.name(id),
                selector: selector.get(),
                key: for_node.clone(),
                children: assembly.children(id),
                input: PhantomData,
            }),
        );
        let mut graph = table.graph.lock();
        table.view.enable_old(&mut graph, true);
        drop(graph);
        Self {
            graph: table.graph.clone(),
            node: id,
            key,
            value,
            repartition_name: None,
            next_name: None,
        }
    }

    /// Names the repartition topic.
    pub fn repartitioned_as(mut self, name: &str) -> Self {
        self.repartition_name = Some(name.to_owned());
        self
    }

    /// Names the node of the next aggregation.
    pub fn named(mut self, name: &str) -> Self {
        self.next_name = Some(name.to_owned());
        self
    }

    /// Counts the rows of each group.
    pub fn count(&self, store: &str) -> KTable<K, i64> {
        self.count_with(Materialized::named(store))
    }

    /// [`Self::count`] with a store of your own.
    pub fn count_with(&self, materialized: Materialized<K, i64>) -> KTable<K, i64> {
        self.aggregate(materialized, || 0, |_, _, count| count + 1, |_, _, count| count - 1)
    }

    /// Puts the rows of each group together in pairs.
    pub fn reduce(
        &self,
        materialized: Materialized<K, V>,
        mut add: impl FnMut(V, V) -> V + Clone + Send + 'static,
        mut subtract: impl FnMut(V, V) -> V + Clone + Send + 'static,
    ) -> KTable<K, V> {
        self.aggregated(
            "KTABLE-REDUCE-",
            materialized,
            move |_: &K, value: V, aggregate: Option<V>| match aggregate {
                Some(aggregate) => add(aggregate, value),
                None => value,
            },
            move |_: &K, value: V, aggregate: V| subtract(aggregate, value),
        )
    }

    /// Folds the rows of each group, beginning with `initial`.
    pub fn aggregate<A: StreamType>(
        &self,
        materialized: Materialized<K, A>,
        mut initial: impl FnMut() -> A + Clone + Send + 'static,
        mut add: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
        subtract: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> KTable<K, A> {
        self.aggregated(
            "KTABLE-AGGREGATE-",
            materialized,
            move |key: &K, value: V, aggregate: Option<A>| {
                let aggregate = aggregate.unwrap_or_else(&mut initial);
                add(key, value, aggregate)
            },
            subtract,
        )
    }

    fn aggregated<A: StreamType>(
        &self,
        prefix: &str,
        materialized: Materialized<K, A>,
        add: impl FnMut(&K, V, Option<A>) -> A + Clone + Send + 'static,
        subtract: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> KTable<K, A> {
        let mut graph = self.graph.lock();
        let store = match &materialized.name {
            Some(store) => store.clone(),
            None => graph.next_store_name("KTABLE-AGGREGATE-"),
        };
        let named = self.next_name.as_deref();
        let sink = graph.suffixed(named, "-sink", "KSTREAM-SINK-");
        let source = graph.suffixed(named, "-source", "KSTREAM-SOURCE-");
        let name = graph.name_or(named, prefix);
        let topic = format!("{}-repartition", self.repartition_name.as_deref().unwrap_or(&store));
        graph.repartitions.insert(topic.clone(), None);
        let full: Arc<str> = Arc::from(graph.decorated(&topic));
        let changes = SerdeOf::new(ChangeSerde::new(self.value.clone()));
        graph.add_node(
            sink,
            Kind::Sink(SinkTopic::Fixed(topic.clone())),
            &[self.node],
            sink_builder(Produced::with(self.key.clone(), changes.clone()), move || {
                Target::Fixed(full.clone())
            }),
        );
        let source = graph.add_node(
            source,
            Kind::Source { topics: vec![topic], global: false },
            &[],
            source_builder(Consumed::with(self.key.clone(), changes)),
        );
        let (add, subtract) = (Closure::new(add), Closure::new(subtract));
        let id = graph.add_node(
            name,
            Kind::Processor,
            &[source],
            node::<K, Change<V>, _>(move |assembly, id| TableAggregate {
                node: assembly.name(id),
                add: add.get(),
                subtract: subtract.get(),
                emit: TableEmit::new(assembly, id),
                input: PhantomData,
            }),
        );
        let key = materialized.key.clone().unwrap_or_else(|| self.key.clone());
        let value = materialized.value.clone().unwrap_or_else(SerdeOf::usual);
        materialized.add_to(&mut graph, id, store, key.clone(), value.clone());
        drop(graph);
        KTable {
            graph: self.graph.clone(),
            node: id,
            key: Some(key),
            value: Some(value),
            sources: [source].into(),
            view: Arc::new(OwnedTable::new(id)),
            next_name: None,
        }
    }
}

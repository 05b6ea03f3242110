//! Grouped streams: aggregation by key.

use std::marker::PhantomData;
use std::sync::Arc;

use super::ktable::{KTable, OwnedTable};
use super::windowed::Windowing;
use super::{Closure, KStream, Materialized, node};
use crate::operator::aggregate::Aggregate;
use crate::operator::source::TableEmit;
use crate::record::Data;
use crate::serde::{SerdeOf, StreamType};
use crate::topology::Kind;

/// A stream grouped by key.
pub struct KGroupedStream<K, V> {
    pub(crate) stream: KStream<K, V>,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    /// Names the repartition topic independently of the store.
    pub(crate) repartition_name: Option<String>,
}

impl<K, V> Clone for KGroupedStream<K, V> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            repartition_name: self.repartition_name.clone(),
        }
    }
}

impl<K: StreamType, V: StreamType> KGroupedStream<K, V> {
    /// Names the node of the next aggregation.
    pub fn named(&self, name: &str) -> Self {
        let mut named = self.clone();
        named.stream.next_name = Some(name.to_owned());
        named
    }

    /// Names the repartition topic, if the grouping needs one.
    pub fn repartitioned_as(&self, name: &str) -> Self {
        let mut named = self.clone();
        named.repartition_name = Some(name.to_owned());
        named
    }

    /// Counts the records of each key in the named store.
    pub fn count(&self, store: &str) -> KTable<K, i64> {
        self.count_with(Materialized::named(store))
    }

    /// Counts the records of each key.
    pub fn count_with(&self, materialized: Materialized<K, i64>) -> KTable<K, i64> {
        self.aggregated(
            "KSTREAM-AGGREGATE-",
            "KSTREAM-AGGREGATE-",
            materialized,
            SerdeOf::usual(),
            || Some(0),
            |_: &K, _: V, count: Option<i64>| Some(count.unwrap_or(0) + 1),
        )
    }

    /// Puts the records of each key together in pairs; the first value stands for itself.
    pub fn reduce(
        &self,
        store: &str,
        reducer: impl FnMut(V, V) -> V + Clone + Send + 'static,
    ) -> KTable<K, V> {
        self.reduce_with(Materialized::named(store), reducer)
    }

    /// [`Self::reduce`] with a store of your own.
    pub fn reduce_with(
        &self,
        materialized: Materialized<K, V>,
        mut reducer: impl FnMut(V, V) -> V + Clone + Send + 'static,
    ) -> KTable<K, V> {
        self.aggregated(
            "KSTREAM-REDUCE-",
            "KSTREAM-REDUCE-",
            materialized,
            self.value.clone(),
            || None,
            move |_: &K, value: V, aggregate: Option<V>| {
                Some(match aggregate {
                    Some(aggregate) => reducer(aggregate, value),
                    None => value,
                })
            },
        )
    }

    /// Folds the records of each key, beginning with `initial`.
    pub fn aggregate<A: StreamType>(
        &self,
        store: &str,
        initial: impl FnMut() -> A + Clone + Send + 'static,
        aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> KTable<K, A> {
        self.aggregate_with(Materialized::named(store), SerdeOf::usual(), initial, aggregator)
    }

    /// [`Self::aggregate`] with a store and serde of your own.
    pub fn aggregate_with<A: Data>(
        &self,
        materialized: Materialized<K, A>,
        serde: SerdeOf<A>,
        mut initial: impl FnMut() -> A + Clone + Send + 'static,
        mut aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> KTable<K, A> {
        let mut begin = initial.clone();
        self.aggregated(
            "KSTREAM-AGGREGATE-",
            "KSTREAM-AGGREGATE-",
            materialized,
            serde,
            move || Some(begin()),
            move |key: &K, value: V, aggregate: Option<A>| {
                let aggregate = aggregate.unwrap_or_else(&mut initial);
                Some(aggregator(key, value, aggregate))
            },
        )
    }

    /// Groups further by windows of event time: [`crate::TimeWindows`], [`crate::SlidingWindows`] or
    /// [`crate::SessionWindows`].
    pub fn windowed_by<W: Windowing>(&self, windows: W) -> W::Stream<K, V> {
        windows.divide(self.clone())
    }

    fn aggregated<A: Data>(
        &self,
        store_prefix: &str,
        node_prefix: &str,
        materialized: Materialized<K, A>,
        serde: SerdeOf<A>,
        initial: impl FnMut() -> Option<A> + Clone + Send + 'static,
        aggregator: impl FnMut(&K, V, Option<A>) -> Option<A> + Clone + Send + 'static,
    ) -> KTable<K, A> {
        let key = materialized.key.clone().unwrap_or_else(|| self.key.clone());
        let serde = materialized.value.clone().unwrap_or(serde);
        let (store, name) = {
            let mut graph = self.stream.graph.lock();
            let store = match &materialized.name {
                Some(store) => store.clone(),
                None => graph.next_store_name(store_prefix),
            };
            let name = graph.name_or(self.stream.next_name.as_deref(), node_prefix);
            (store, name)
        };
        let parent = self.partitioned(&store);
        let (initial, aggregator) = (Closure::new(initial), Closure::new(aggregator));
        let mut graph = self.stream.graph.lock();
        let id = graph.add_node(
            name,
            Kind::Processor,
            &[parent.node],
            node::<K, V, _>(move |assembly, id| Aggregate {
                node: assembly.name(id),
                aggregator: aggregator.get(),
                initial: Box::new(initial.get()),
                emit: TableEmit::new(assembly, id),
                input: PhantomData,
            }),
        );
        materialized.add_to(&mut graph, id, store, key.clone(), serde.clone());
        drop(graph);
        KTable {
            graph: self.stream.graph.clone(),
            node: id,
            key: Some(key),
            value: Some(serde),
            sources: parent.sources,
            view: Arc::new(OwnedTable::new(id)),
            next_name: None,
        }
    }

    /// The stream with its records where their keys belong.
    pub(crate) fn partitioned(&self, store: &str) -> KStream<K, V> {
        if !self.stream.repartition {
            return self.stream.clone();
        }
        let (key, value) = (self.key.clone(), self.value.clone());
        let Some(name) = &self.repartition_name else {
            return self.stream.repartitioned(store, None, key, value);
        };
        // A grouping with a name has one repartition, however many aggregations it gets.
        let shared = (self.stream.node, Some(name.clone()));
        if let Some(stream) = self.stream.shared_repartition(&shared, &key, &value) {
            return stream;
        }
        let stream = self.stream.repartitioned(name, None, key, value);
        self.stream.graph.lock().shared_repartitions.insert(shared, stream.node);
        stream
    }
}

//! Aggregation by key and window.

use std::marker::PhantomData;
use std::sync::Arc;

use super::ktable::{KTable, TableView};
use super::{Closure, KGroupedStream, Materialized, TimeWindows, node};
use crate::operator::table::Getter;
use crate::operator::window_aggregate::{WindowAggregate, WindowEmit, WindowGetter};
use crate::record::{Data, Windowed};
use crate::runtime::Assembly;
use crate::serde::{SerdeOf, StreamType, TimeWindowedSerde};
use crate::state::{AnyStore, WindowStore, WindowStoreSettings};
use crate::topology::{ChangelogKind, Graph, Kind, NodeId, StoreSpec};

/// A stream grouped by key and by tumbling or hopping windows.
pub struct TimeWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: TimeWindows,
    on_close: bool,
}

impl<K: StreamType, V: StreamType> TimeWindowedKStream<K, V> {
    pub(crate) fn new(grouped: KGroupedStream<K, V>, windows: TimeWindows) -> Self {
        Self { grouped, windows, on_close: false }
    }

    /// Sends each window's result once, when no more record can change it: after its end and grace have passed in
    /// event time, which takes a later record of the same task.
    pub fn emit_final(mut self) -> Self {
        self.on_close = true;
        self
    }

    /// Counts the records of each key and window.
    pub fn count(&self, store: &str) -> KTable<Windowed<K>, i64> {
        self.aggregated(
            "KSTREAM-AGGREGATE-",
            Materialized::named(store),
            SerdeOf::usual(),
            |_: &K, _: V, count: Option<i64>| count.unwrap_or(0) + 1,
        )
    }

    /// Puts the records of each key and window together in pairs.
    pub fn reduce(
        &self,
        store: &str,
        mut reducer: impl FnMut(V, V) -> V + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, V> {
        self.aggregated(
            "KSTREAM-REDUCE-",
            Materialized::named(store),
            self.grouped.value.clone(),
            move |_: &K, value: V, aggregate: Option<V>| match aggregate {
                Some(aggregate) => reducer(aggregate, value),
                None => value,
            },
        )
    }

    /// Folds the records of each key and window, beginning with `initial`.
    pub fn aggregate<A: StreamType>(
        &self,
        store: &str,
        initial: impl FnMut() -> A + Clone + Send + 'static,
        aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, A> {
        self.aggregate_with(Materialized::named(store), SerdeOf::usual(), initial, aggregator)
    }

    /// [`Self::aggregate`] with a store and serde of your own.
    pub fn aggregate_with<A: Data>(
        &self,
        materialized: Materialized<K, A>,
        serde: SerdeOf<A>,
        mut initial: impl FnMut() -> A + Clone + Send + 'static,
        mut aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, A> {
        self.aggregated(
            "KSTREAM-AGGREGATE-",
            materialized,
            serde,
            move |key: &K, value: V, aggregate: Option<A>| {
                let aggregate = aggregate.unwrap_or_else(&mut initial);
                aggregator(key, value, aggregate)
            },
        )
    }

    fn aggregated<A: Data>(
        &self,
        prefix: &str,
        materialized: Materialized<K, A>,
        serde: SerdeOf<A>,
        aggregator: impl FnMut(&K, V, Option<A>) -> A + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, A> {
        let windows = self.windows;
        let on_close = self.on_close;
        let stream = &self.grouped.stream;
        let key = materialized.key.clone().unwrap_or_else(|| self.grouped.key.clone());
        let serde = materialized.value.clone().unwrap_or(serde);
        let (store, name) = {
            let mut graph = stream.graph.lock();
            let store = match &materialized.name {
                Some(store) => store.clone(),
                None => graph.next_store_name(prefix),
            };
            (store, graph.name_or(stream.next_name.as_deref(), prefix))
        };
        let parent = self.grouped.partitioned(&store);
        let aggregator = Closure::new(aggregator);
        let for_node = store.clone();
        let mut graph = stream.graph.lock();
        let id = graph.add_node(
            name,
            Kind::Processor,
            &[parent.node],
            node::<K, V, _>(move |assembly, id| WindowAggregate {
                windows,
                on_close,
                aggregator: aggregator.get(),
                emit: WindowEmit::new(assembly, id, &for_node, on_close),
                observed_ms: i64::MIN,
                emitted_until: i64::MIN,
                input: PhantomData,
            }),
        );
        add_window_store(
            &mut graph,
            &[id],
            WindowSpec {
                store: store.clone(),
                key: key.clone(),
                value: serde.clone(),
                size_ms: windows.size_ms,
                retention_ms: materialized
                    .retention_ms
                    .unwrap_or(windows.size_ms + windows.grace_ms),
                duplicates: false,
                logged: materialized.logged,
                cached: materialized.cached,
                changelog_config: materialized.changelog_config.clone(),
            },
        );
        drop(graph);
        KTable {
            graph: stream.graph.clone(),
            node: id,
            key: Some(SerdeOf::new(TimeWindowedSerde::new(key, windows.size_ms))),
            value: Some(serde),
            sources: parent.sources,
            view: Arc::new(WindowTable { node: id, store, types: PhantomData }),
            next_name: None,
        }
    }
}

/// What a window store is made from.
pub(crate) struct WindowSpec<K, V> {
    pub(crate) store: String,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) size_ms: i64,
    pub(crate) retention_ms: i64,
    pub(crate) duplicates: bool,
    pub(crate) logged: bool,
    pub(crate) cached: bool,
    pub(crate) changelog_config: std::collections::BTreeMap<String, String>,
}

/// Adds a window store for some nodes.
pub(crate) fn add_window_store<K: Data, V: Data>(
    graph: &mut Graph,
    nodes: &[NodeId],
    window: WindowSpec<K, V>,
) {
    let WindowSpec {
        store,
        key,
        value,
        size_ms,
        retention_ms,
        duplicates,
        logged,
        cached,
        changelog_config,
    } = window;
    graph.add_store(StoreSpec {
        name: store.clone(),
        build: Arc::new(move |spec, topic| {
            let store: Box<dyn AnyStore> = Box::new(WindowStore::new(WindowStoreSettings {
                name: spec.name.clone(),
                topic: topic.to_owned(),
                key: key.clone(),
                value: value.clone(),
                size_ms,
                retention_ms,
                duplicates,
                logged: spec.logged,
                cached: spec.cached,
            }));
            store
        }),
        logged,
        cached,
        changelog: ChangelogKind::Window { retention_ms, duplicates },
        changelog_config,
        source_topic: None,
        global: false,
    });
    for node in nodes {
        graph.connect(*node, &store);
    }
}

/// A table of windows.
struct WindowTable<K, V> {
    node: NodeId,
    store: String,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Data, V: Data> TableView<Windowed<K>, V> for WindowTable<K, V> {
    fn enable_old(&self, graph: &mut Graph, _: bool) -> bool {
        graph.nodes[self.node].sends_old = true;
        true
    }

    fn stores(&self, _: &mut Graph) -> Vec<String> {
        vec![self.store.clone()]
    }

    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<Windowed<K>, V>> {
        Box::new(WindowGetter { slot: assembly.store::<WindowStore<K, V>>(&self.store) })
    }
}

//! Aggregation by key and session.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;

use super::folding::{Folding, Merging, merging};
use super::ktable::{KTable, TableView};
use super::late::late_of;
use super::windowed::Windowing;
use super::{
    CogroupedKStream, KGroupedStream, Materialized, SessionWindowedCogroupedKStream,
    SessionWindows, cogrouped,
};
use crate::operator::session_aggregate::{SessionAggregate, SessionEmit, SessionGetter};
use crate::operator::table::Getter;
use crate::query::face::Shape;
use crate::record::{Data, Windowed};
use crate::runtime::Assembly;
use crate::serde::{SerdeOf, SessionWindowedSerde, StreamType};
use crate::state::{AnyStore, SessionStore, SessionStoreSettings};
use crate::topology::{ChangelogKind, Graph, Kind, NodeBuilder, NodeId, StoreSpec};

/// A stream grouped by key and by sessions.
pub struct SessionWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: SessionWindows,
    on_close: bool,
}

impl Windowing for SessionWindows {
    type Stream<K, V> = SessionWindowedKStream<K, V>;
    type Cogrouped<K, A> = SessionWindowedCogroupedKStream<K, A>;

    fn divide<K: StreamType, V: StreamType>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> SessionWindowedKStream<K, V> {
        SessionWindowedKStream { grouped, windows: self, on_close: false }
    }

    fn divide_cogrouped<K: StreamType, A: StreamType>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> SessionWindowedCogroupedKStream<K, A> {
        cogrouped::session_windowed(cogrouped, self)
    }
}

impl<K: StreamType, V: StreamType> SessionWindowedKStream<K, V> {
    /// Sends each session's result once, when no more record can extend it, which takes a later record of the same
    /// task.
    pub fn emit_final(mut self) -> Self {
        self.on_close = true;
        self
    }

    /// Counts the records of each session.
    pub fn count(&self, store: &str) -> KTable<Windowed<K>, i64> {
        self.count_with(Materialized::named(store))
    }

    /// [`Self::count`] with a store of your own.
    pub fn count_with(&self, materialized: Materialized<K, i64>) -> KTable<Windowed<K>, i64> {
        self.aggregated(
            "KSTREAM-AGGREGATE-",
            materialized,
            SerdeOf::usual(),
            Folding::aggregate(|| 0, |_: &K, _: V, count: i64| count + 1),
            merging(|_, one: i64, two: i64| one + two),
        )
    }

    /// Puts the records of each session together in pairs.
    pub fn reduce(
        &self,
        store: &str,
        reducer: impl FnMut(V, V) -> V + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, V> {
        self.reduce_with(Materialized::named(store), reducer)
    }

    /// [`Self::reduce`] with a store of your own.
    pub fn reduce_with(
        &self,
        materialized: Materialized<K, V>,
        reducer: impl FnMut(V, V) -> V + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, V> {
        let mut merger = reducer.clone();
        self.aggregated(
            "KSTREAM-REDUCE-",
            materialized,
            self.grouped.value.clone(),
            Folding::reduce(reducer),
            merging(move |_, one, two| merger(one, two)),
        )
    }

    /// Folds the records of each session, beginning with `initial`; `merger` puts two sessions together that a record
    /// connects.
    pub fn aggregate<A: StreamType>(
        &self,
        store: &str,
        initial: impl FnMut() -> A + Clone + Send + 'static,
        aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
        merger: impl FnMut(&K, A, A) -> A + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, A> {
        let materialized = Materialized::named(store);
        self.aggregate_with(materialized, SerdeOf::usual(), initial, aggregator, merger)
    }

    /// [`Self::aggregate`] with a store and serde of your own.
    pub fn aggregate_with<A: Data>(
        &self,
        materialized: Materialized<K, A>,
        serde: SerdeOf<A>,
        initial: impl FnMut() -> A + Clone + Send + 'static,
        aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
        merger: impl FnMut(&K, A, A) -> A + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, A> {
        let folding = Folding::aggregate(initial, aggregator);
        self.aggregated("KSTREAM-AGGREGATE-", materialized, serde, folding, merging(merger))
    }

    fn aggregated<A: Data>(
        &self,
        prefix: &str,
        materialized: Materialized<K, A>,
        serde: SerdeOf<A>,
        folding: Folding<K, V, A>,
        merging: Merging<K, A>,
    ) -> KTable<Windowed<K>, A> {
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
        let mut graph = stream.graph.lock();
        let id = graph.add_node(
            name,
            Kind::Processor,
            &[parent.node],
            builder(self.windows, folding, merging, &store, self.on_close),
        );
        graph.nodes[id].late = Some(TypeId::of::<(K, V)>());
        add_store(
            &mut graph,
            &[id],
            self.windows,
            store.clone(),
            (key.clone(), serde.clone()),
            &materialized,
            self.on_close,
        );
        drop(graph);
        KTable {
            graph: stream.graph.clone(),
            node: id,
            key: Some(SerdeOf::new(SessionWindowedSerde::new(key))),
            value: Some(serde),
            sources: parent.sources,
            view: Arc::new(SessionTable { nodes: vec![id], store, types: PhantomData }),
            next_name: None,
        }
    }
}

/// The node that folds records into sessions.
pub(crate) fn builder<K: StreamType, V: StreamType, A: Data>(
    windows: SessionWindows,
    folding: Folding<K, V, A>,
    merging: Merging<K, A>,
    store: &str,
    on_close: bool,
) -> NodeBuilder {
    let store = store.to_owned();
    Arc::new(move |assembly, id| {
        let node = SessionAggregate {
            windows,
            aggregator: folding.add(),
            initial: folding.initial(),
            merger: merging(),
            emit: SessionEmit::new(assembly, id, &store, on_close),
            observed_ms: -1,
            late: late_of(assembly, id),
            input: PhantomData,
        };
        assembly.timed::<K, V>(node)
    })
}

/// Adds the store of an aggregation by sessions.
pub(crate) fn add_store<K: Data, A: Data>(
    graph: &mut Graph,
    nodes: &[NodeId],
    windows: SessionWindows,
    store: String,
    (key, value): (SerdeOf<K>, SerdeOf<A>),
    materialized: &Materialized<K, A>,
    on_close: bool,
) {
    let retention_ms = materialized.retention_ms.unwrap_or_else(|| windows.closes_after_ms());
    graph.show(&store, Shape::Session, (&key, &value));
    graph.add_store(StoreSpec {
        name: store.clone(),
        build: Arc::new(move |spec, topic| {
            let store: Box<dyn AnyStore> = Box::new(SessionStore::new(SessionStoreSettings {
                name: spec.name.clone(),
                topic: topic.to_owned(),
                key: key.clone(),
                value: value.clone(),
                retention_ms,
                logged: spec.logged,
                cached: spec.cached,
                on_close,
            }));
            store
        }),
        logged: materialized.logged,
        // What is sent on close has no use for a cache.
        cached: materialized.cached && !on_close,
        changelog: ChangelogKind::Window { retention_ms, duplicates: false },
        changelog_config: materialized.changelog_config.clone(),
        source_topic: None,
        store_type: materialized.store_type,
        global: false,
    });
    for node in nodes {
        graph.nodes[*node].grace_ms = Some(windows.closes_after_ms());
        graph.connect(*node, &store);
    }
}

/// A table of sessions.
pub(crate) struct SessionTable<K, V> {
    /// The nodes that write it.
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) store: String,
    pub(crate) types: PhantomData<fn() -> (K, V)>,
}

impl<K: Data, V: Data> TableView<Windowed<K>, V> for SessionTable<K, V> {
    fn enable_old(&self, graph: &mut Graph, _: bool) -> bool {
        for node in &self.nodes {
            graph.nodes[*node].sends_old = true;
        }
        true
    }

    fn stores(&self, _: &mut Graph) -> Vec<String> {
        vec![self.store.clone()]
    }

    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<Windowed<K>, V>> {
        Box::new(SessionGetter { slot: assembly.store::<SessionStore<K, V>>(&self.store) })
    }
}

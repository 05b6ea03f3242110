//! Aggregation by key and window.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use super::folding::Folding;
use super::ktable::{KTable, TableView};
use super::late::late_of;
use super::windows::UNLIMITED_MS;
use super::{CogroupedKStream, KGroupedStream, Materialized, SlidingWindows, TimeWindows};
use super::{TimeWindowedCogroupedKStream, UnlimitedWindows, cogrouped};
use crate::error::TopologyError;
use crate::operator::sliding_aggregate::SlidingAggregate;
use crate::operator::table::Getter;
use crate::operator::window_aggregate::{WindowAggregate, WindowEmit, WindowGetter};
use crate::query::face::Shape;
use crate::record::{Data, Windowed};
use crate::runtime::Assembly;
use crate::serde::{SerdeOf, StreamType, TimeWindowedSerde};
use crate::state::{AnyStore, StoreType, WindowStore, WindowStoreSettings};
use crate::topology::{ChangelogKind, Graph, Kind, NodeBuilder, NodeId, StoreSpec};

/// Kinds of windows, by which a grouped stream can be divided further.
pub trait Windowing {
    /// A stream grouped by key and window.
    type Stream<K, V>;
    /// Streams co-grouped by key and window.
    type Cogrouped<K, A>;

    /// Divides a stream.
    fn divide<K: StreamType, V: StreamType>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> Self::Stream<K, V>;

    /// Divides co-grouped streams.
    fn divide_cogrouped<K: StreamType, A: StreamType>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> Self::Cogrouped<K, A>;
}

impl Windowing for TimeWindows {
    type Stream<K, V> = TimeWindowedKStream<K, V>;
    type Cogrouped<K, A> = TimeWindowedCogroupedKStream<K, A>;

    fn divide<K: StreamType, V: StreamType>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> TimeWindowedKStream<K, V> {
        TimeWindowedKStream { grouped, windows: SizedWindows::Time(self), on_close: false }
    }

    fn divide_cogrouped<K: StreamType, A: StreamType>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> TimeWindowedCogroupedKStream<K, A> {
        cogrouped::windowed(cogrouped, SizedWindows::Time(self))
    }
}

impl Windowing for UnlimitedWindows {
    type Stream<K, V> = TimeWindowedKStream<K, V>;
    type Cogrouped<K, A> = TimeWindowedCogroupedKStream<K, A>;

    fn divide<K: StreamType, V: StreamType>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> TimeWindowedKStream<K, V> {
        TimeWindows::from(self).divide(grouped)
    }

    fn divide_cogrouped<K: StreamType, A: StreamType>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> TimeWindowedCogroupedKStream<K, A> {
        TimeWindows::from(self).divide_cogrouped(cogrouped)
    }
}

impl Windowing for SlidingWindows {
    type Stream<K, V> = TimeWindowedKStream<K, V>;
    type Cogrouped<K, A> = TimeWindowedCogroupedKStream<K, A>;

    fn divide<K: StreamType, V: StreamType>(
        self,
        grouped: KGroupedStream<K, V>,
    ) -> TimeWindowedKStream<K, V> {
        TimeWindowedKStream { grouped, windows: SizedWindows::Sliding(self), on_close: false }
    }

    fn divide_cogrouped<K: StreamType, A: StreamType>(
        self,
        cogrouped: CogroupedKStream<K, A>,
    ) -> TimeWindowedCogroupedKStream<K, A> {
        cogrouped::windowed(cogrouped, SizedWindows::Sliding(self))
    }
}

/// Windows of a fixed size.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SizedWindows {
    Time(TimeWindows),
    Sliding(SlidingWindows),
}

impl SizedWindows {
    pub(crate) fn size_ms(self) -> i64 {
        match self {
            Self::Time(windows) => windows.size_ms,
            Self::Sliding(windows) => windows.difference_ms,
        }
    }

    pub(crate) fn grace_ms(self) -> i64 {
        match self {
            Self::Time(windows) => windows.grace_ms,
            Self::Sliding(windows) => windows.grace_ms,
        }
    }

    /// Whether each record asks for a span of its key's windows: sliding ones begin where there were records.
    fn by_key(self) -> bool {
        matches!(self, Self::Sliding(_))
    }

    /// How long windows are needed. Sliding ones are looked at from as far as two sizes away.
    fn retention_ms(self) -> i64 {
        match self {
            Self::Time(windows) => windows.size_ms.saturating_add(windows.grace_ms),
            Self::Sliding(windows) => 2 * windows.difference_ms + windows.grace_ms,
        }
    }

    /// The node that folds records into these windows.
    pub(crate) fn builder<K: StreamType, V: StreamType, A: Data>(
        self,
        folding: Folding<K, V, A>,
        store: &str,
        on_close: bool,
    ) -> NodeBuilder {
        let store = store.to_owned();
        Arc::new(move |assembly, id| {
            let emit = WindowEmit::new(assembly, id, &store, on_close);
            let (aggregator, initial) = (folding.add(), folding.initial());
            let late = late_of::<K, V>(assembly, id);
            match self {
                Self::Time(windows) => assembly.timed::<K, V>(WindowAggregate {
                    windows,
                    aggregator,
                    initial,
                    emit,
                    observed_ms: i64::MIN,
                    late,
                    input: PhantomData,
                }),
                Self::Sliding(windows) => assembly.timed::<K, V>(SlidingAggregate {
                    windows,
                    aggregator,
                    initial,
                    emit,
                    observed_ms: -1,
                    late,
                    input: PhantomData,
                }),
            }
        })
    }

    /// Adds the store of an aggregation by these windows.
    pub(crate) fn add_store<K: Data, A: Data>(
        self,
        graph: &mut Graph,
        nodes: &[NodeId],
        store: String,
        (key, value): (SerdeOf<K>, SerdeOf<A>),
        materialized: &Materialized<K, A>,
        on_close: bool,
    ) {
        for node in nodes {
            graph.nodes[*node].grace_ms = Some(self.grace_ms());
        }
        let window = WindowSpec {
            store,
            key,
            value,
            size_ms: self.size_ms(),
            retention_ms: materialized.retention_ms.unwrap_or_else(|| self.retention_ms()),
            duplicates: false,
            by_key: self.by_key(),
            logged: materialized.logged,
            // What is sent on close has no use for a cache.
            cached: materialized.cached && !on_close,
            on_close,
            changelog_config: materialized.changelog_config.clone(),
            store_type: materialized.store_type,
        };
        add_window_store(graph, nodes, window);
    }
}

/// A stream grouped by key and by tumbling, hopping or sliding windows.
pub struct TimeWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: SizedWindows,
    on_close: bool,
}

impl<K: StreamType, V: StreamType> TimeWindowedKStream<K, V> {
    /// Sends each window's result once, when no more record can change it: after its end and grace have passed in
    /// event time, which takes a later record of the same task.
    pub fn emit_final(mut self) -> Self {
        if self.windows.size_ms() == UNLIMITED_MS {
            let never = "an unlimited window never closes, so that emit_final would send nothing";
            let mut graph = self.grouped.stream.graph.lock();
            graph.errors.push(TopologyError::Invalid(never.to_owned()));
        }
        self.on_close = true;
        self
    }

    /// Counts the records of each key and window.
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
        )
    }

    /// Puts the records of each key and window together in pairs.
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
        self.aggregated(
            "KSTREAM-REDUCE-",
            materialized,
            self.grouped.value.clone(),
            Folding::reduce(reducer),
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
        initial: impl FnMut() -> A + Clone + Send + 'static,
        aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, A> {
        let folding = Folding::aggregate(initial, aggregator);
        self.aggregated("KSTREAM-AGGREGATE-", materialized, serde, folding)
    }

    fn aggregated<A: Data>(
        &self,
        prefix: &str,
        materialized: Materialized<K, A>,
        serde: SerdeOf<A>,
        folding: Folding<K, V, A>,
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
            self.windows.builder(folding, &store, self.on_close),
        );
        graph.nodes[id].late = Some(TypeId::of::<(K, V)>());
        self.windows.add_store(
            &mut graph,
            &[id],
            store.clone(),
            (key.clone(), serde.clone()),
            &materialized,
            self.on_close,
        );
        drop(graph);
        KTable {
            graph: stream.graph.clone(),
            node: id,
            key: Some(SerdeOf::new(TimeWindowedSerde::new(key, self.windows.size_ms()))),
            value: Some(serde),
            sources: parent.sources,
            view: Arc::new(WindowTable { nodes: vec![id], store, types: PhantomData }),
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
    pub(crate) by_key: bool,
    pub(crate) logged: bool,
    pub(crate) cached: bool,
    pub(crate) on_close: bool,
    pub(crate) changelog_config: BTreeMap<String, String>,
    pub(crate) store_type: Option<StoreType>,
}

/// Adds a window store for some nodes.
pub(crate) fn add_window_store<K: Data, V: Data>(
    graph: &mut Graph,
    nodes: &[NodeId],
    window: WindowSpec<K, V>,
) {
    let (store, logged, cached) = (window.store.clone(), window.logged, window.cached);
    let (retention_ms, duplicates) = (window.retention_ms, window.duplicates);
    let store_type = window.store_type;
    let changelog_config = window.changelog_config.clone();
    graph.show(&store, Shape::Window, (&window.key, &window.value));
    graph.add_store(StoreSpec {
        name: store.clone(),
        build: Arc::new(move |spec, topic| {
            let store: Box<dyn AnyStore> = Box::new(WindowStore::new(WindowStoreSettings {
                name: spec.name.clone(),
                topic: topic.to_owned(),
                key: window.key.clone(),
                value: window.value.clone(),
                size_ms: window.size_ms,
                retention_ms: window.retention_ms,
                duplicates: window.duplicates,
                by_key: window.by_key,
                logged: spec.logged,
                cached: spec.cached,
                on_close: window.on_close,
            }));
            store
        }),
        logged,
        cached,
        changelog: ChangelogKind::Window { retention_ms, duplicates },
        changelog_config,
        source_topic: None,
        store_type,
        global: false,
    });
    for node in nodes {
        graph.connect(*node, &store);
    }
}

/// A table of windows.
pub(crate) struct WindowTable<K, V> {
    /// The nodes that write it.
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) store: String,
    pub(crate) types: PhantomData<fn() -> (K, V)>,
}

impl<K: Data, V: Data> TableView<Windowed<K>, V> for WindowTable<K, V> {
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
        Box::new(WindowGetter { slot: assembly.store::<WindowStore<K, V>>(&self.store) })
    }
}

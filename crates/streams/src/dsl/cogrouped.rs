//! Co-grouped streams: several grouped streams fold into one aggregate, each with its own aggregator.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;

use super::folding::{Folding, Merging, merging};
use super::ktable::{KTable, OwnedTable};
use super::session_windowed::{self, SessionTable};
use super::windowed::{SizedWindows, WindowTable, Windowing};
use super::{Closure, KGroupedStream, KStream, Materialized, SessionWindows, node};
use crate::operator::aggregate::Aggregate;
use crate::operator::source::TableEmit;
use crate::operator::stateless::PassThrough;
use crate::record::{Change, Data, Windowed};
use crate::serde::{SerdeOf, SessionWindowedSerde, StreamType, TimeWindowedSerde};
use crate::topology::{Kind, NodeBuilder, NodeId, SharedGraph};

/// Grouped streams with the aggregators that fold their records into one aggregate of type `A`.
pub struct CogroupedKStream<K, A> {
    graph: SharedGraph,
    key: SerdeOf<K>,
    parts: Vec<Arc<dyn Part<K, A>>>,
    next_name: Option<String>,
}

impl<K, A> Clone for CogroupedKStream<K, A> {
    fn clone(&self) -> Self {
        Self {
            graph: self.graph.clone(),
            key: self.key.clone(),
            parts: self.parts.clone(),
            next_name: self.next_name.clone(),
        }
    }
}

/// What one stream adds to the aggregate.
trait Part<K, A>: Send + Sync {
    /// The node to attach to, its records being where their keys belong, and its sources.
    fn partitioned(&self, store: &str) -> (NodeId, BTreeSet<NodeId>);

    /// The node that folds the stream's records.
    fn builder(&self, shape: &Shape<K, A>) -> NodeBuilder;
}

/// How records are folded.
enum Shape<K, A> {
    Plain { initial: Begin<A> },
    Window { windows: SizedWindows, initial: Begin<A>, store: String },
    Session { windows: SessionWindows, initial: Begin<A>, merging: Merging<K, A>, store: String },
}

type Begin<A> = Arc<dyn Fn() -> A + Send + Sync>;

struct PartOf<K, V, F> {
    grouped: KGroupedStream<K, V>,
    aggregator: Closure<F>,
    /// The stream after its repartition, which all aggregates of the same co-group share.
    partitioned: Mutex<Option<KStream<K, V>>>,
}

impl<K: StreamType, V: StreamType, A: StreamType, F> Part<K, A> for PartOf<K, V, F>
where
    F: FnMut(&K, V, A) -> A + Clone + Send + 'static,
{
    fn partitioned(&self, store: &str) -> (NodeId, BTreeSet<NodeId>) {
        let mut partitioned = self.partitioned.lock();
        if partitioned.is_some() && self.grouped.stream.repartition {
            // Another repartition would have been numbered.
            let mut graph = self.grouped.stream.graph.lock();
            for _ in 0..3 {
                graph.next_name("");
            }
        }
        let stream = partitioned.get_or_insert_with(|| self.grouped.partitioned(store)).clone();
        (stream.node, stream.sources)
    }

    fn builder(&self, shape: &Shape<K, A>) -> NodeBuilder {
        let folding = |initial: &Begin<A>| {
            let initial = initial.clone();
            Folding::<K, V, A>::aggregate(move || initial(), self.aggregator.get())
        };
        match shape {
            Shape::Plain { initial } => {
                let folding = folding(initial);
                node::<K, V, _>(move |assembly, id| {
                    let mut add = folding.add();
                    Aggregate {
                        node: assembly.name(id),
                        aggregator: move |key: &K, value, old| Some(add(key, value, old)),
                        initial: folding.initial(),
                        emit: TableEmit::new(assembly, id),
                        input: PhantomData,
                    }
                })
            }
            Shape::Window { windows, initial, store } => {
                windows.builder(folding(initial), store, false)
            }
            Shape::Session { windows, initial, merging, store } => {
                session_windowed::builder(*windows, folding(initial), merging.clone(), store, false)
            }
        }
    }
}

impl<K: StreamType, V: StreamType> KGroupedStream<K, V> {
    /// Begins a common aggregate of several grouped streams; this one's records are folded by `aggregator`.
    pub fn cogroup<A: StreamType>(
        &self,
        aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> CogroupedKStream<K, A> {
        let cogrouped = CogroupedKStream {
            graph: self.stream.graph.clone(),
            key: self.key.clone(),
            parts: Vec::new(),
            next_name: None,
        };
        cogrouped.cogroup(self, aggregator)
    }
}

impl<K: StreamType, A: StreamType> CogroupedKStream<K, A> {
    /// Adds another grouped stream, whose records are folded by `aggregator`.
    pub fn cogroup<V: StreamType>(
        mut self,
        grouped: &KGroupedStream<K, V>,
        aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> Self {
        let aggregator = Closure::new(aggregator);
        self.parts.push(Arc::new(PartOf {
            grouped: grouped.clone(),
            aggregator,
            partitioned: Mutex::new(None),
        }));
        self
    }

    /// Names the nodes of the aggregation.
    pub fn named(mut self, name: &str) -> Self {
        self.next_name = Some(name.to_owned());
        self
    }

    /// Divides the aggregate by windows or sessions.
    pub fn windowed_by<W: Windowing>(&self, windows: W) -> W::Cogrouped<K, A> {
        windows.divide_cogrouped(self.clone())
    }

    /// Folds the records of each key, beginning with `initial`.
    pub fn aggregate(
        &self,
        store: &str,
        initial: impl Fn() -> A + Send + Sync + 'static,
    ) -> KTable<K, A> {
        self.aggregate_with(Materialized::named(store), initial)
    }

    /// [`Self::aggregate`] with a store of your own.
    pub fn aggregate_with(
        &self,
        materialized: Materialized<K, A>,
        initial: impl Fn() -> A + Send + Sync + 'static,
    ) -> KTable<K, A> {
        let (key, value) = self.serdes(&materialized);
        let initial: Begin<A> = Arc::new(initial);
        let built = self.build::<K>(&materialized.name, |_| Shape::Plain { initial });
        let mut graph = self.graph.lock();
        materialized.add_to(
            &mut graph,
            built.folds[0],
            built.store.clone(),
            key.clone(),
            value.clone(),
        );
        for fold in &built.folds[1..] {
            graph.nodes[*fold].table_store = Some(built.store.clone());
            graph.connect(*fold, &built.store);
        }
        drop(graph);
        KTable {
            graph: self.graph.clone(),
            node: built.merge,
            key: Some(key),
            value: Some(value),
            sources: built.sources,
            view: Arc::new(OwnedTable::by(built.folds)),
            next_name: None,
        }
    }

    fn serdes(&self, materialized: &Materialized<K, A>) -> (SerdeOf<K>, SerdeOf<A>) {
        (
            materialized.key.clone().unwrap_or_else(|| self.key.clone()),
            materialized.value.clone().unwrap_or_else(SerdeOf::usual),
        )
    }

    /// Adds the nodes: repartitions, one fold per stream, and the merge of their changes.
    fn build<R: Data>(
        &self,
        store: &Option<String>,
        shape: impl FnOnce(&str) -> Shape<K, A>,
    ) -> Built {
        let store = match store {
            Some(store) => store.clone(),
            None => self.graph.lock().next_store_name("COGROUPKSTREAM-AGGREGATE-"),
        };
        let parents: Vec<(NodeId, BTreeSet<NodeId>)> =
            self.parts.iter().map(|part| part.partitioned(&store)).collect();
        let shape = shape(&store);
        let sources: BTreeSet<NodeId> =
            parents.iter().flat_map(|(_, sources)| sources.iter().copied()).collect();
        let mut graph = self.graph.lock();
        graph.copartition(sources.clone());
        let named = self.next_name.as_deref();
        let mut folds = Vec::new();
        for (number, (part, (parent, _))) in self.parts.iter().zip(&parents).enumerate() {
            let suffix = format!("-cogroup-agg-{number}");
            let name = graph.suffixed(named, &suffix, "COGROUPKSTREAM-AGGREGATE-");
            folds.push(graph.add_node(name, Kind::Processor, &[*parent], part.builder(&shape)));
        }
        let name = graph.suffixed(named, "-cogroup-merge", "COGROUPKSTREAM-MERGE-");
        let merge = graph.add_node(
            name,
            Kind::Processor,
            &folds,
            node::<R, Change<A>, _>(|assembly, id| PassThrough { children: assembly.children(id) }),
        );
        Built { store, folds, merge, sources }
    }
}

/// The nodes of a common aggregate.
struct Built {
    store: String,
    folds: Vec<NodeId>,
    merge: NodeId,
    sources: BTreeSet<NodeId>,
}

/// Co-grouped streams, divided by tumbling, hopping or sliding windows.
pub struct TimeWindowedCogroupedKStream<K, A> {
    cogrouped: CogroupedKStream<K, A>,
    windows: SizedWindows,
}

pub(crate) fn windowed<K, A>(
    cogrouped: CogroupedKStream<K, A>,
    windows: SizedWindows,
) -> TimeWindowedCogroupedKStream<K, A> {
    TimeWindowedCogroupedKStream { cogrouped, windows }
}

impl<K: StreamType, A: StreamType> TimeWindowedCogroupedKStream<K, A> {
    /// Folds the records of each key and window, beginning with `initial`.
    pub fn aggregate(
        &self,
        store: &str,
        initial: impl Fn() -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A> {
        self.aggregate_with(Materialized::named(store), initial)
    }

    /// [`Self::aggregate`] with a store of your own.
    pub fn aggregate_with(
        &self,
        materialized: Materialized<K, A>,
        initial: impl Fn() -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A> {
        let (key, value) = self.cogrouped.serdes(&materialized);
        let (windows, initial): (_, Begin<A>) = (self.windows, Arc::new(initial));
        let built = self.cogrouped.build::<Windowed<K>>(&materialized.name, |store| {
            Shape::Window { windows, initial, store: store.to_owned() }
        });
        let mut graph = self.cogrouped.graph.lock();
        windows.add_store(
            &mut graph,
            &built.folds,
            built.store.clone(),
            (key.clone(), value.clone()),
            &materialized,
            false,
        );
        drop(graph);
        KTable {
            graph: self.cogrouped.graph.clone(),
            node: built.merge,
            key: Some(SerdeOf::new(TimeWindowedSerde::new(key, windows.size_ms()))),
            value: Some(value),
            sources: built.sources,
            view: Arc::new(WindowTable {
                nodes: built.folds,
                store: built.store,
                types: PhantomData,
            }),
            next_name: None,
        }
    }
}

/// Co-grouped streams, divided by sessions.
pub struct SessionWindowedCogroupedKStream<K, A> {
    cogrouped: CogroupedKStream<K, A>,
    windows: SessionWindows,
}

pub(crate) fn session_windowed<K, A>(
    cogrouped: CogroupedKStream<K, A>,
    windows: SessionWindows,
) -> SessionWindowedCogroupedKStream<K, A> {
    SessionWindowedCogroupedKStream { cogrouped, windows }
}

impl<K: StreamType, A: StreamType> SessionWindowedCogroupedKStream<K, A> {
    /// Folds the records of each session, beginning with `initial`; `merger` puts two sessions together.
    pub fn aggregate(
        &self,
        store: &str,
        initial: impl Fn() -> A + Send + Sync + 'static,
        merger: impl FnMut(&K, A, A) -> A + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, A> {
        self.aggregate_with(Materialized::named(store), initial, merger)
    }

    /// [`Self::aggregate`] with a store of your own.
    pub fn aggregate_with(
        &self,
        materialized: Materialized<K, A>,
        initial: impl Fn() -> A + Send + Sync + 'static,
        merger: impl FnMut(&K, A, A) -> A + Clone + Send + 'static,
    ) -> KTable<Windowed<K>, A> {
        let (key, value) = self.cogrouped.serdes(&materialized);
        let (windows, initial): (_, Begin<A>) = (self.windows, Arc::new(initial));
        let built = self.cogrouped.build::<Windowed<K>>(&materialized.name, |store| {
            let merging = merging(merger);
            Shape::Session { windows, initial, merging, store: store.to_owned() }
        });
        let mut graph = self.cogrouped.graph.lock();
        session_windowed::add_store(
            &mut graph,
            &built.folds,
            windows,
            built.store.clone(),
            (key.clone(), value.clone()),
            &materialized,
            false,
        );
        drop(graph);
        KTable {
            graph: self.cogrouped.graph.clone(),
            node: built.merge,
            key: Some(SerdeOf::new(SessionWindowedSerde::new(key))),
            value: Some(value),
            sources: built.sources,
            view: Arc::new(SessionTable {
                nodes: built.folds,
                store: built.store,
                types: PhantomData,
            }),
            next_name: None,
        }
    }
}

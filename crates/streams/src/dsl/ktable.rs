//! Tables: the latest value of each key.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{Closure, KGroupedTable, KStream, Materialized, node};
use crate::operator::source::TableEmit;
use crate::operator::stateless::Map;
use crate::operator::table::{FilterGetter, Getter, MapGetter, StoreGetter, TableFilter, TableMap};
use crate::record::{Change, Data};
use crate::runtime::Assembly;
use crate::serde::{SerdeOf, StreamType};
use crate::topology::{Graph, Kind, NodeId, SharedGraph};

/// A table: a changelog of keys, of which the latest value counts.
pub struct KTable<K, V> {
    pub(crate) graph: SharedGraph,
    pub(crate) node: NodeId,
    pub(crate) key: Option<SerdeOf<K>>,
    pub(crate) value: Option<SerdeOf<V>>,
    pub(crate) sources: BTreeSet<NodeId>,
    pub(crate) view: Arc<dyn TableView<K, V>>,
    pub(crate) next_name: Option<String>,
}

impl<K, V> Clone for KTable<K, V> {
    fn clone(&self) -> Self {
        Self {
            graph: self.graph.clone(),
            node: self.node,
            key: self.key.clone(),
            value: self.value.clone(),
            sources: self.sources.clone(),
            view: self.view.clone(),
            next_name: self.next_name.clone(),
        }
    }
}

/// How the current value of a table's key is found, and its changes are made to carry old values.
pub(crate) trait TableView<K, V>: Send + Sync {
    /// Makes changes carry old values. Only a source table without a store may refuse, unless it is forced to get one.
    fn enable_old(&self, graph: &mut Graph, force: bool) -> bool;

    /// The stores that [`Self::getter`] reads. A source table gets its store here at the latest.
    fn stores(&self, graph: &mut Graph) -> Vec<String>;

    /// Looks up current values in a task.
    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<K, V>>;
}

/// A table read from a topic. It has a store only if somebody needs it.
pub(crate) struct SourceTable<K, V> {
    pub(crate) node: NodeId,
    pub(crate) store: String,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) materialized: Materialized<K, V>,
}

impl<K: Data, V: Data> TableView<K, V> for SourceTable<K, V> {
    fn enable_old(&self, graph: &mut Graph, force: bool) -> bool {
        if graph.nodes[self.node].table_store.is_none() {
            if !force {
                return false;
            }
            self.stores(graph);
        }
        graph.nodes[self.node].sends_old = true;
        true
    }

    fn stores(&self, graph: &mut Graph) -> Vec<String> {
        if graph.nodes[self.node].table_store.is_none() {
            self.materialized.add_to(
                graph,
                self.node,
                self.store.clone(),
                self.key.clone(),
                self.value.clone(),
            );
        }
        vec![self.store.clone()]
    }

    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<K, V>> {
        Box::new(StoreGetter { slot: assembly.store(&self.store) })
    }
}

/// A table whose node always has a store.
pub(crate) struct OwnedTable<K, V> {
    /// The nodes that write the store.
    nodes: Vec<NodeId>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> OwnedTable<K, V> {
    pub(crate) fn new(node: NodeId) -> Self {
        Self::by(vec![node])
    }

    /// A table whose store several nodes write.
    pub(crate) fn by(nodes: Vec<NodeId>) -> Self {
        Self { nodes, types: PhantomData }
    }
}

impl<K: Data, V: Data> TableView<K, V> for OwnedTable<K, V> {
    fn enable_old(&self, graph: &mut Graph, _: bool) -> bool {
        for node in &self.nodes {
            graph.nodes[*node].sends_old = true;
        }
        true
    }

    fn stores(&self, graph: &mut Graph) -> Vec<String> {
        graph.nodes[self.nodes[0]].table_store.iter().cloned().collect()
    }

    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<K, V>> {
        let store = assembly
            .node(self.nodes[0])
            .table_store
            .clone()
            .expect("an owned table's node has a store");
        Box::new(StoreGetter { slot: assembly.store(&store) })
    }
}

/// A table computed from another without a store of its own.
struct Derived<K, V, W, G> {
    node: NodeId,
    parent: Arc<dyn TableView<K, V>>,
    getter: G,
    result: PhantomData<fn() -> W>,
}

impl<K: Data, V: Data, W: Data, G> TableView<K, W> for Derived<K, V, W, G>
where
    G: Fn(Box<dyn Getter<K, V>>) -> Box<dyn Getter<K, W>> + Send + Sync,
{
    fn enable_old(&self, graph: &mut Graph, force: bool) -> bool {
        let enabled = self.parent.enable_old(graph, force);
        if enabled {
            graph.nodes[self.node].sends_old = true;
        }
        enabled
    }

    fn stores(&self, graph: &mut Graph) -> Vec<String> {
        self.parent.stores(graph)
    }

    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<K, W>> {
        (self.getter)(self.parent.getter(assembly))
    }
}

/// The store of a derived table.
struct Kept<K, W> {
    store: String,
    key: SerdeOf<K>,
    value: SerdeOf<W>,
    materialized: Materialized<K, W>,
}

impl<K: Data, V: Data> KTable<K, V> {
    /// Names the node of the next operator.
    pub fn named(&self, name: &str) -> Self {
        let mut named = self.clone();
        named.next_name = Some(name.to_owned());
        named
    }

    /// Keeps keys whose value the predicate accepts; another value deletes the key downstream.
    pub fn filter(&self, predicate: impl FnMut(&K, &V) -> bool + Clone + Send + 'static) -> Self {
        self.filtered(predicate, None)
    }

    /// [`Self::filter`] kept in a store, if that has a name.
    pub fn filter_with(
        &self,
        materialized: Materialized<K, V>,
        predicate: impl FnMut(&K, &V) -> bool + Clone + Send + 'static,
    ) -> Self
    where
        K: StreamType,
        V: StreamType,
    {
        let kept = self.own_store(materialized, self.value.clone(), "KTABLE-FILTER-");
        self.filtered(predicate, kept).without_versions()
    }

    fn filtered(
        &self,
        predicate: impl FnMut(&K, &V) -> bool + Clone + Send + 'static,
        kept: Option<Kept<K, V>>,
    ) -> Self {
        let predicate = Arc::new(Closure::new(predicate));
        let for_getter = predicate.clone();
        let id = self.add(
            "KTABLE-FILTER-",
            node::<K, Change<V>, _>(move |assembly, id| TableFilter {
                node: assembly.name(id),
                predicate: predicate.get(),
                of_versions: assembly
                    .node(id)
                    .parents
                    .iter()
                    .any(|parent| assembly.plan.is_versioned(*parent)),
                emit: TableEmit::new(assembly, id),
            }),
        );
        // A parent that has a store anyway tells the old value, and spares deletions of keys that never passed.
        {
            let mut graph = self.graph.lock();
            if self.view.enable_old(&mut graph, false) {
                graph.nodes[id].sends_old = true;
            }
        }
        if let Some(kept) = kept {
            return self.owned(id, kept);
        }
        let view = Derived {
            node: id,
            parent: self.view.clone(),
            getter: move |parent| -> Box<dyn Getter<K, V>> {
                Box::new(FilterGetter { parent, predicate: for_getter.get() })
            },
            result: PhantomData,
        };
        self.graph.lock().nodes[id].passes_versions = true;
        self.at(id, self.key.clone(), self.value.clone(), Arc::new(view))
    }

    /// [`Self::filter`] the other way round.
    pub fn filter_not(
        &self,
        mut predicate: impl FnMut(&K, &V) -> bool + Clone + Send + 'static,
    ) -> Self {
        self.filter(move |key, value| !predicate(key, value))
    }

    /// Turns each value into another. The mapper must be pure: it is asked again for old values.
    pub fn map_values<W: Data>(
        &self,
        mut mapper: impl FnMut(&V) -> W + Clone + Send + 'static,
    ) -> KTable<K, W> {
        self.map_values_with_key(move |_, value| mapper(value))
    }

    /// [`Self::map_values`] with a look at the key.
    pub fn map_values_with_key<W: Data>(
        &self,
        mapper: impl FnMut(&K, &V) -> W + Clone + Send + 'static,
    ) -> KTable<K, W> {
        self.mapped(mapper, None)
    }

    /// [`Self::map_values_with_key`] kept in a store, if that has a name.
    pub fn map_values_with<W: StreamType>(
        &self,
        materialized: Materialized<K, W>,
        mapper: impl FnMut(&K, &V) -> W + Clone + Send + 'static,
    ) -> KTable<K, W>
    where
        K: StreamType,
    {
        let kept = self.own_store(materialized, None, "KTABLE-MAPVALUES-");
        self.mapped(mapper, kept).without_versions()
    }

    fn mapped<W: Data>(
        &self,
        mapper: impl FnMut(&K, &V) -> W + Clone + Send + 'static,
        kept: Option<Kept<K, W>>,
    ) -> KTable<K, W> {
        let mapper = Arc::new(Closure::new(mapper));
        let for_getter = mapper.clone();
        let id = self.add(
            "KTABLE-MAPVALUES-",
            node::<K, Change<V>, _>(move |assembly, id| TableMap {
                node: assembly.name(id),
                mapper: mapper.get(),
                emit: TableEmit::new(assembly, id),
                input: PhantomData,
            }),
        );
        if let Some(kept) = kept {
            return self.owned(id, kept);
        }
        let view = Derived {
            node: id,
            parent: self.view.clone(),
            getter: move |parent| -> Box<dyn Getter<K, W>> {
                Box::new(MapGetter { parent, mapper: for_getter.get() })
            },
            result: PhantomData,
        };
        self.graph.lock().nodes[id].passes_versions = true;
        self.at(id, self.key.clone(), None, Arc::new(view))
    }

    /// The table's updates as a stream; `None` deletes a key.
    pub fn to_stream(&self) -> KStream<K, Option<V>> {
        let build = node::<K, Change<V>, _>(|assembly, id| Map {
            mapper: |key: K, change: Change<V>| (key, change.new),
            children: assembly.children(id),
            input: PhantomData,
        });
        let mut graph = self.graph.lock();
        let name = graph.name_or(self.next_name.as_deref(), "KTABLE-TOSTREAM-");
        let id = graph.add_node(name.clone(), Kind::Processor, &[self.node], build);
        drop(graph);
        KStream {
            graph: self.graph.clone(),
            node: id,
            name,
            key: self.key.clone(),
            value: self.value.as_ref().map(SerdeOf::nullable),
            sources: self.sources.clone(),
            repartition: false,
            next_name: None,
        }
    }

    /// [`Self::to_stream`] under new keys; a deleted row has no value.
    pub fn to_stream_by<L: Data>(
        &self,
        mut selector: impl FnMut(&K, Option<&V>) -> L + Clone + Send + 'static,
    ) -> KStream<L, Option<V>> {
        self.to_stream().select_key(move |key, value| selector(key, value.as_ref()))
    }

    /// Groups the table's rows by a new key, for aggregation. The selector must be pure: it is asked again to take a
    /// row out of its old group.
    pub fn group_by<L: StreamType, W: StreamType>(
        &self,
        selector: impl FnMut(&K, &V) -> (L, W) + Clone + Send + 'static,
    ) -> KGroupedTable<L, W> {
        self.group_by_with(SerdeOf::usual(), SerdeOf::usual(), selector)
    }

    /// [`Self::group_by`] whose keys and values are written with serdes of your own.
    pub fn group_by_with<L: StreamType, W: StreamType>(
        &self,
        key: SerdeOf<L>,
        value: SerdeOf<W>,
        selector: impl FnMut(&K, &V) -> (L, W) + Clone + Send + 'static,
    ) -> KGroupedTable<L, W> {
        KGroupedTable::new(self, (key, value), selector)
    }

    /// The table, whose updates are all the newest unless it has a store that keeps versions: also if only serdes were said,
    /// as in Kafka Streams.
    pub(super) fn without_versions(self) -> Self {
        self.graph.lock().nodes[self.node].passes_versions = false;
        self
    }

    /// The store of a derived table, which it has if that was named.
    fn own_store<W: StreamType>(
        &self,
        materialized: Materialized<K, W>,
        value: Option<SerdeOf<W>>,
        prefix: &str,
    ) -> Option<Kept<K, W>>
    where
        K: StreamType,
    {
        let Some(store) = materialized.name.clone() else {
            // The number is used up all the same.
            self.graph.lock().next_store_name(prefix);
            return None;
        };
        Some(self.kept_in(store, materialized, value))
    }

    fn kept_in<W: StreamType>(
        &self,
        store: String,
        materialized: Materialized<K, W>,
        value: Option<SerdeOf<W>>,
    ) -> Kept<K, W>
    where
        K: StreamType,
    {
        let key = materialized.key.clone().or_else(|| self.key.clone());
        let value = materialized.value.clone().or(value);
        Kept {
            store,
            key: key.unwrap_or_else(SerdeOf::usual),
            value: value.unwrap_or_else(SerdeOf::usual),
            materialized,
        }
    }

    /// The table of a node that keeps values of another type in this store.
    pub(super) fn kept_at<W: StreamType>(
        &self,
        id: NodeId,
        store: String,
        materialized: Materialized<K, W>,
    ) -> KTable<K, W>
    where
        K: StreamType,
    {
        self.owned(id, self.kept_in(store, materialized, None))
    }

    /// The table of a node that has a store of its own.
    fn owned<W: Data>(&self, id: NodeId, kept: Kept<K, W>) -> KTable<K, W> {
        let mut graph = self.graph.lock();
        let (key, value) = (kept.key, kept.value);
        kept.materialized.add_to(&mut graph, id, kept.store, key.clone(), value.clone());
        drop(graph);
        self.at(id, Some(key), Some(value), Arc::new(OwnedTable::new(id)))
    }

    pub(crate) fn add(&self, prefix: &str, build: crate::topology::NodeBuilder) -> NodeId {
        let mut graph = self.graph.lock();
        let name = graph.name_or(self.next_name.as_deref(), prefix);
        graph.add_node(name, Kind::Processor, &[self.node], build)
    }

    pub(crate) fn at<W>(
        &self,
        node: NodeId,
        key: Option<SerdeOf<K>>,
        value: Option<SerdeOf<W>>,
        view: Arc<dyn TableView<K, W>>,
    ) -> KTable<K, W> {
        KTable {
            graph: self.graph.clone(),
            node,
            key,
            value,
            sources: self.sources.clone(),
            view,
            next_name: None,
        }
    }
}

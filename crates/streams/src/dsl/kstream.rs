//! Streams of events.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::marker::PhantomData;

use super::{Closure, KGroupedStream, node};
use crate::operator::stateless::{Filter, FlatMap, FlatMapValues, Map, PassThrough, Peek, input};
use crate::record::{Data, Record};
use crate::serde::{SerdeOf, StreamType};
use crate::topology::{Effect, Kind, NodeBuilder, NodeId, SharedGraph};

/// A stream of records: each one is an event of its own.
pub struct KStream<K, V> {
    pub(crate) graph: SharedGraph,
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) key: Option<SerdeOf<K>>,
    pub(crate) value: Option<SerdeOf<V>>,
    /// Source nodes whose partitions this stream's records come from.
    pub(crate) sources: BTreeSet<NodeId>,
    /// Whether the key may have changed since the records were partitioned by it.
    pub(crate) repartition: bool,
    pub(crate) next_name: Option<String>,
}

impl<K, V> Clone for KStream<K, V> {
    fn clone(&self) -> Self {
        Self {
            graph: self.graph.clone(),
            node: self.node,
            name: self.name.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            sources: self.sources.clone(),
            repartition: self.repartition,
            next_name: self.next_name.clone(),
        }
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Names the node of the next operator, instead of a generated number.
    pub fn named(&self, name: &str) -> Self {
        let mut named = self.clone();
        named.next_name = Some(name.to_owned());
        named
    }

    /// Has operators behind write keys and values with these serdes wherever they have to: in repartition topics, in the
    /// stores of joins. Otherwise they take those that the records were read with, or the types' usual ones.
    pub fn with_serdes(&self, key: SerdeOf<K>, value: SerdeOf<V>) -> Self {
        let mut stream = self.clone();
        (stream.key, stream.value) = (Some(key), Some(value));
        stream
    }

    /// Keeps records that the predicate accepts.
    pub fn filter(&self, predicate: impl FnMut(&K, &V) -> bool + Clone + Send + 'static) -> Self {
        let predicate = Closure::new(predicate);
        self.same(
            "KSTREAM-FILTER-",
            node::<K, V, _>(move |assembly, id| Filter {
                predicate: predicate.get(),
                children: assembly.children(id),
            }),
        )
    }

    /// Keeps records that the predicate refuses.
    pub fn filter_not(
        &self,
        mut predicate: impl FnMut(&K, &V) -> bool + Clone + Send + 'static,
    ) -> Self {
        self.filter(move |key, value| !predicate(key, value))
    }

    /// Gives each record a new key. Whatever groups or joins by it afterwards goes through a repartition topic.
    pub fn select_key<L: Data>(
        &self,
        mut selector: impl FnMut(&K, &V) -> L + Clone + Send + 'static,
    ) -> KStream<L, V> {
        let mapper = Closure::new(move |key: K, value: V| (selector(&key, &value), value));
        let build = map_builder(mapper);
        let mut stream = self.rekeyed("KSTREAM-KEY-SELECT-", build);
        stream.value = self.value.clone();
        stream
    }

    /// Turns each record into one with a new key and value.
    pub fn map<L: Data, W: Data>(
        &self,
        mapper: impl FnMut(K, V) -> (L, W) + Clone + Send + 'static,
    ) -> KStream<L, W> {
        self.rekeyed("KSTREAM-MAP-", map_builder(Closure::new(mapper)))
    }

    /// Turns each value into another.
    pub fn map_values<W: Data>(
        &self,
        mut mapper: impl FnMut(V) -> W + Clone + Send + 'static,
    ) -> KStream<K, W> {
        self.map_values_with_key(move |_, value| mapper(value))
    }

    /// [`Self::map_values`] with a look at the key.
    pub fn map_values_with_key<W: Data>(
        &self,
        mut mapper: impl FnMut(&K, V) -> W + Clone + Send + 'static,
    ) -> KStream<K, W> {
        let mapper = Closure::new(move |key: K, value: V| {
            let value = mapper(&key, value);
            (key, value)
        });
        let mut stream = self.derive("KSTREAM-MAPVALUES-", map_builder(mapper));
        stream.key = self.key.clone();
        stream
    }

    /// Turns each record into any number of records.
    pub fn flat_map<L: Data, W: Data, I: IntoIterator<Item = (L, W)> + 'static>(
        &self,
        mapper: impl FnMut(K, V) -> I + Clone + Send + 'static,
    ) -> KStream<L, W> {
        let mapper = Closure::new(mapper);
        let build = node::<K, V, _>(move |assembly, id| FlatMap {
            mapper: mapper.get(),
            children: assembly.children(id),
            input: input(),
        });
        self.rekeyed("KSTREAM-FLATMAP-", build)
    }

    /// Turns each value into any number of values under the same key.
    pub fn flat_map_values<W: Data, I: IntoIterator<Item = W> + 'static>(
        &self,
        mut mapper: impl FnMut(V) -> I + Clone + Send + 'static,
    ) -> KStream<K, W> {
        self.flat_map_values_with_key(move |_, value| mapper(value))
    }

    /// [`Self::flat_map_values`] with a look at the key.
    pub fn flat_map_values_with_key<W: Data, I: IntoIterator<Item = W> + 'static>(
        &self,
        mapper: impl FnMut(&K, V) -> I + Clone + Send + 'static,
    ) -> KStream<K, W> {
        let mapper = Closure::new(mapper);
        let build = node::<K, V, _>(move |assembly, id| FlatMapValues {
            mapper: mapper.get(),
            children: assembly.children(id),
            input: input(),
        });
        let mut stream = self.derive("KSTREAM-FLATMAPVALUES-", build);
        stream.key = self.key.clone();
        stream
    }

    /// Looks at each record without changing it.
    pub fn peek(&self, mut action: impl FnMut(&K, &V) + Clone + Send + 'static) -> Self {
        let action = Closure::new(move |record: &Record<K, V>| action(&record.key, &record.value));
        self.same(
            "KSTREAM-PEEK-",
            node::<K, V, _>(move |assembly, id| Peek {
                action: action.get(),
                children: assembly.children(id),
            }),
        )
    }

    /// Ends the stream by doing something with each record.
    pub fn for_each(&self, mut action: impl FnMut(&K, &V) + Clone + Send + 'static) {
        let action = Closure::new(move |record: &Record<K, V>| action(&record.key, &record.value));
        self.derive::<K, V>(
            "KSTREAM-FOREACH-",
            node::<K, V, _>(move |assembly, id| Peek {
                action: action.get(),
                children: assembly.children(id),
            }),
        );
    }

    /// Puts two streams together. Order between the two is that of event time within a task, and no more.
    pub fn merge(&self, other: &Self) -> Self {
        let build = node::<K, V, _>(|assembly, id| PassThrough { children: assembly.children(id) });
        let mut graph = self.graph.lock();
        let name = graph.name_or(self.next_name.as_deref(), "KSTREAM-MERGE-");
        let id = graph.add_node(name.clone(), Kind::Processor, &[self.node, other.node], build);
        graph.nodes[id].effect = Effect::Merges(TypeId::of::<(K, V)>());
        drop(graph);
        Self {
            graph: self.graph.clone(),
            node: id,
            name,
            key: self.key.clone().or_else(|| other.key.clone()),
            value: self.value.clone().or_else(|| other.value.clone()),
            sources: self.sources.union(&other.sources).copied().collect(),
            repartition: self.repartition || other.repartition,
            next_name: None,
        }
    }

    /// Groups by the present key.
    pub fn group_by_key(&self) -> KGroupedStream<K, V>
    where
        K: StreamType,
        V: StreamType,
    {
        KGroupedStream {
            stream: self.clone(),
            key: self.key.clone().unwrap_or_else(SerdeOf::usual),
            value: self.value.clone().unwrap_or_else(SerdeOf::usual),
            repartition_name: None,
        }
    }

    /// Groups by a new key, through a repartition topic.
    pub fn group_by<L: StreamType>(
        &self,
        selector: impl FnMut(&K, &V) -> L + Clone + Send + 'static,
    ) -> KGroupedStream<L, V>
    where
        V: StreamType,
    {
        self.select_key(selector).group_by_key()
    }

    /// A child that sends on what it gets.
    pub(crate) fn same(&self, prefix: &str, build: NodeBuilder) -> Self {
        let mut stream: Self = self.derive(prefix, build);
        self.graph.lock().nodes[stream.node].effect = Effect::Keeps;
        stream.key = self.key.clone();
        stream.value = self.value.clone();
        stream
    }

    /// A child with other keys, which may not be where these belong.
    pub(crate) fn rekeyed<L: Data, W: Data>(
        &self,
        prefix: &str,
        build: NodeBuilder,
    ) -> KStream<L, W> {
        let mut stream = self.derive(prefix, build);
        stream.repartition = true;
        let effect = Effect::ChangesKey(TypeId::of::<(L, W)>());
        self.graph.lock().nodes[stream.node].effect = effect;
        stream
    }

    /// A child, its serdes unknown.
    pub(crate) fn derive<L, W>(&self, prefix: &str, build: NodeBuilder) -> KStream<L, W> {
        let mut graph = self.graph.lock();
        let name = graph.name_or(self.next_name.as_deref(), prefix);
        let id = graph.add_node(name.clone(), Kind::Processor, &[self.node], build);
        drop(graph);
        KStream {
            graph: self.graph.clone(),
            node: id,
            name,
            key: None,
            value: None,
            sources: self.sources.clone(),
            repartition: self.repartition,
            next_name: None,
        }
    }
}

impl<K: Data + Debug, V: Data + Debug> KStream<K, V> {
    /// Prints each record to standard output, `[label]: key, value`, and ends the stream.
    pub fn print(&self, label: &str) {
        let label = label.to_owned();
        let action = Closure::new(move |record: &Record<K, V>| {
            use std::io::Write;
            // Nobody to tell if standard output is closed.
            let _ = writeln!(std::io::stdout(), "[{label}]: {:?}, {:?}", record.key, record.value);
        });
        self.derive::<K, V>(
            "KSTREAM-PRINTER-",
            node::<K, V, _>(move |assembly, id| Peek {
                action: action.get(),
                children: assembly.children(id),
            }),
        );
    }
}

fn map_builder<K: Data, V: Data, L: Data, W: Data, F>(mapper: Closure<F>) -> NodeBuilder
where
    F: FnMut(K, V) -> (L, W) + Clone + Send + 'static,
{
    node::<K, V, _>(move |assembly, id| Map {
        mapper: mapper.get(),
        children: assembly.children(id),
        input: PhantomData,
    })
}

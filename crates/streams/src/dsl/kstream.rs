//! Streams of events.

use std::any::Any;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use super::app::{Consumed, source_builder};
use super::ktable::{KTable, SourceTable, TableView};
use super::{Closure, KGroupedStream, Materialized, node};
use crate::operator::sink::{Partitioner, Sink, Target};
use crate::operator::source::TableEmit;
use crate::operator::stateless::{
    Filter, FlatMap, FlatMapValues, Map, PassThrough, Peek, Predicate, Split, TryMap, UserError,
    input,
};
use crate::operator::table::ToTable;
use crate::record::{Data, Record};
use crate::serde::{SerdeOf, StreamType};
use crate::topology::{Kind, NodeBuilder, NodeId, SharedGraph, SinkTopic};

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

/// How a topic is written.
pub struct Produced<K, V> {
    key: SerdeOf<K>,
    value: SerdeOf<V>,
    partitioner: Option<Closure<Choose<K, V>>>,
}

/// A partitioner that each task shares, because it is pure by contract.
type Choose<K, V> = Arc<dyn Fn(&K, &V) -> Option<Vec<i32>> + Send + Sync>;

impl<K: 'static, V: 'static> Produced<K, V> {
    /// Writes with these serdes.
    pub fn with(key: SerdeOf<K>, value: SerdeOf<V>) -> Self {
        Self { key, value, partitioner: None }
    }

    /// Chooses partitions: `None` for the usual one by key, several to send copies (multicast), none to drop.
    pub fn partitioner(
        mut self,
        choose: impl Fn(&K, &V) -> Option<Vec<i32>> + Send + Sync + 'static,
    ) -> Self {
        self.partitioner = Some(Closure::new(Arc::new(choose)));
        self
    }
}

impl<K: StreamType, V: StreamType> Default for Produced<K, V> {
    fn default() -> Self {
        Self::with(SerdeOf::usual(), SerdeOf::usual())
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Names the node of the next operator, instead of a generated number.
    pub fn named(&self, name: &str) -> Self {
        let mut named = self.clone();
        named.next_name = Some(name.to_owned());
        named
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
        let mut stream = self.derive("KSTREAM-KEY-SELECT-", build);
        stream.value = self.value.clone();
        stream.repartition = true;
        stream
    }

    /// Turns each record into one with a new key and value.
    pub fn map<L: Data, W: Data>(
        &self,
        mapper: impl FnMut(K, V) -> (L, W) + Clone + Send + 'static,
    ) -> KStream<L, W> {
        let mut stream = self.derive("KSTREAM-MAP-", map_builder(Closure::new(mapper)));
        stream.repartition = true;
        stream
    }

    /// [`Self::map`] that may fail; the program's [`super::ErrorPolicy`] says what happens then.
    pub fn try_map<L: Data, W: Data, E>(
        &self,
        mut mapper: impl FnMut(K, V) -> Result<(L, W), E> + Clone + Send + 'static,
    ) -> KStream<L, W>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let build =
            try_map_builder(Closure::new(move |key, value| mapper(key, value).map_err(Into::into)));
        let mut stream = self.derive("KSTREAM-MAP-", build);
        stream.repartition = true;
        stream
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

    /// [`Self::map_values`] that may fail; the program's [`super::ErrorPolicy`] says what happens then.
    pub fn try_map_values<W: Data, E>(
        &self,
        mut mapper: impl FnMut(V) -> Result<W, E> + Clone + Send + 'static,
    ) -> KStream<K, W>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let build = try_map_builder(Closure::new(move |key: K, value: V| {
            mapper(value).map(|value| (key, value)).map_err(Into::into)
        }));
        let mut stream = self.derive("KSTREAM-MAPVALUES-", build);
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
        let mut stream = self.derive("KSTREAM-FLATMAP-", build);
        stream.repartition = true;
        stream
    }

    /// Turns each value into any number of values under the same key.
    pub fn flat_map_values<W: Data, I: IntoIterator<Item = W> + 'static>(
        &self,
        mut mapper: impl FnMut(V) -> I + Clone + Send + 'static,
    ) -> KStream<K, W> {
        let mapper = Closure::new(move |_: &K, value| mapper(value));
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

    /// Sends each record to the first branch that accepts it.
    pub fn split(&self) -> Branches<K, V> {
        Branches { stream: self.clone(), predicates: Vec::new(), names: Vec::new() }
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

    /// Writes to a topic with the stream's serdes.
    pub fn to(&self, topic: &str)
    where
        K: StreamType,
        V: StreamType,
    {
        self.to_with(
            topic,
            Produced::with(
                self.key.clone().unwrap_or_else(SerdeOf::usual),
                self.value.clone().unwrap_or_else(SerdeOf::usual),
            ),
        );
    }

    /// Writes to a topic.
    pub fn to_with(&self, topic: &str, produced: Produced<K, V>) {
        let fixed: Arc<str> = Arc::from(topic);
        self.sink(SinkTopic::Fixed(topic.to_owned()), produced, move || {
            Target::Fixed(fixed.clone())
        });
    }

    /// Writes each record to the topic that the closure names. The topics must exist.
    pub fn to_chosen(
        &self,
        choose: impl FnMut(&Record<K, V>) -> String + Clone + Send + 'static,
        produced: Produced<K, V>,
    ) {
        let choose = Closure::new(choose);
        self.sink(SinkTopic::Chosen, produced, move || Target::Chosen(Box::new(choose.get())));
    }

    fn sink(
        &self,
        topic: SinkTopic,
        produced: Produced<K, V>,
        target: impl Fn() -> Target<K, V> + Send + Sync + 'static,
    ) {
        let build = sink_builder(produced, target);
        let mut graph = self.graph.lock();
        let name = graph.name_or(self.next_name.as_deref(), "KSTREAM-SINK-");
        graph.add_node(name, Kind::Sink(topic), &[self.node], build);
    }

    /// Takes the stream as a table: each record sets its key's value.
    pub fn to_table(&self) -> KTable<K, V>
    where
        K: StreamType,
        V: StreamType,
    {
        self.to_table_with(Materialized::unnamed())
    }

    /// [`Self::to_table`] in the given store.
    pub fn to_table_with(&self, materialized: Materialized<K, V>) -> KTable<K, V>
    where
        K: StreamType,
        V: StreamType,
    {
        let key =
            materialized.key.clone().or_else(|| self.key.clone()).unwrap_or_else(SerdeOf::usual);
        let value = materialized
            .value
            .clone()
            .or_else(|| self.value.clone())
            .unwrap_or_else(SerdeOf::usual);
        let (name, store) = {
            let mut graph = self.graph.lock();
            let name = graph.name_or(self.next_name.as_deref(), "KSTREAM-TOTABLE-");
            let store = match &materialized.name {
                Some(store) => store.clone(),
                None => graph.next_store_name("KSTREAM-TOTABLE-"),
            };
            (name, store)
        };
        let parent = if self.repartition {
            self.repartitioned(&name, None, key.clone(), value.clone())
        } else {
            self.clone()
        };
        let mut graph = self.graph.lock();
        let id = graph.add_node(
            name,
            Kind::Processor,
            &[parent.node],
            node::<K, V, _>(|assembly, id| ToTable::<K, V> {
                node: assembly.name(id),
                emit: TableEmit::new(assembly, id),
            }),
        );
        let named = materialized.name.is_some();
        let view = Arc::new(SourceTable {
            node: id,
            store,
            key: key.clone(),
            value: value.clone(),
            materialized,
        });
        if named {
            view.stores(&mut graph);
        }
        drop(graph);
        KTable {
            graph: self.graph.clone(),
            node: id,
            key: Some(key),
            value: Some(value),
            sources: parent.sources,
            view,
            next_name: None,
        }
    }

    /// Sends the stream through a repartition topic of its own, so that records are where their key belongs.
    pub fn repartition(&self, partitions: Option<i32>) -> Self
    where
        K: StreamType,
        V: StreamType,
    {
        let name = {
            let mut graph = self.graph.lock();
            match &self.next_name {
                Some(name) => name.clone(),
                None => graph.next_name("KSTREAM-REPARTITION-"),
            }
        };
        self.repartitioned(
            &name,
            partitions,
            self.key.clone().unwrap_or_else(SerdeOf::usual),
            self.value.clone().unwrap_or_else(SerdeOf::usual),
        )
    }

    /// The stream as a join needs it. All joins of a stream share one repartition, unless they name their own.
    pub(crate) fn repartitioned_for_join(&self, prefix: &str) -> Self
    where
        K: StreamType,
        V: StreamType,
    {
        let key = self.key.clone().unwrap_or_else(SerdeOf::usual);
        let value = self.value.clone().unwrap_or_else(SerdeOf::usual);
        let shared = (self.node, None);
        if prefix == self.name
            && let Some(stream) = self.shared_repartition(&shared, &key, &value)
        {
            return stream;
        }
        let stream = self.repartitioned(prefix, None, key, value);
        self.graph.lock().shared_repartitions.insert(shared, stream.node);
        stream
    }

    /// A repartition that was made before, as another use of it.
    pub(crate) fn shared_repartition(
        &self,
        shared: &(NodeId, Option<String>),
        key: &SerdeOf<K>,
        value: &SerdeOf<V>,
    ) -> Option<Self> {
        let mut graph = self.graph.lock();
        let source = *graph.shared_repartitions.get(shared)?;
        // Another repartition would have been numbered.
        for _ in 0..3 {
            graph.next_name("");
        }
        let name = graph.nodes[source].name.clone();
        drop(graph);
        Some(Self {
            graph: self.graph.clone(),
            node: source,
            name,
            key: Some(key.clone()),
            value: Some(value.clone()),
            sources: BTreeSet::from([source]),
            repartition: false,
            next_name: None,
        })
    }

    /// Filter, sink, topic and source of a repartition, under the names that Kafka Streams gives them.
    pub(crate) fn repartitioned(
        &self,
        prefix: &str,
        partitions: Option<i32>,
        key: SerdeOf<K>,
        value: SerdeOf<V>,
    ) -> Self {
        let topic = if prefix.ends_with("-repartition") {
            prefix.to_owned()
        } else {
            format!("{prefix}-repartition")
        };
        let mut graph = self.graph.lock();
        // Numbers are used up even where they name nothing.
        let generated_sink = graph.next_name("KSTREAM-SINK-");
        let generated_filter = graph.next_name("KSTREAM-FILTER-");
        let generated_source = graph.next_name("KSTREAM-SOURCE-");
        let (sink, filter, source) = if is_generated(&topic) {
            (generated_sink, generated_filter, generated_source)
        } else {
            (format!("{topic}-sink"), format!("{topic}-filter"), format!("{topic}-source"))
        };
        graph.repartitions.insert(topic.clone(), partitions);
        let full = Arc::from(graph.decorated(&topic));
        let filter = graph.add_node(
            filter,
            Kind::Processor,
            &[self.node],
            node::<K, V, _>(|assembly, id| PassThrough { children: assembly.children(id) }),
        );
        graph.add_node(
            sink,
            Kind::Sink(SinkTopic::Fixed(topic.clone())),
            &[filter],
            sink_builder(Produced::with(key.clone(), value.clone()), move || {
                Target::Fixed(Arc::clone(&full))
            }),
        );
        let id = graph.add_node(
            source.clone(),
            Kind::Source { topics: vec![topic], global: false },
            &[],
            source_builder(Consumed::with(key.clone(), value.clone())),
        );
        drop(graph);
        Self {
            graph: self.graph.clone(),
            node: id,
            name: source,
            key: Some(key),
            value: Some(value),
            sources: BTreeSet::from([id]),
            repartition: false,
            next_name: None,
        }
    }

    /// A child of the same types.
    fn same(&self, prefix: &str, build: NodeBuilder) -> Self {
        let mut stream: Self = self.derive(prefix, build);
        stream.key = self.key.clone();
        stream.value = self.value.clone();
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

/// A split being written: conditions in order, then what is done with each branch.
pub struct Branches<K, V> {
    stream: KStream<K, V>,
    predicates: Vec<Closure<Accepts<K, V>>>,
    /// What the branches' names end with, where that is not their number.
    names: Vec<Option<String>>,
}

type Accepts<K, V> = Arc<dyn Fn(&K, &V) -> bool + Send + Sync>;

impl<K: Data, V: Data> Branches<K, V> {
    /// Adds a branch for records that the predicate accepts and no earlier branch took.
    pub fn branch(mut self, accepts: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.predicates.push(Closure::new(Arc::new(accepts)));
        self.names.push(None);
        self
    }

    /// [`Self::branch`], its node named after the split's followed by this.
    pub fn branch_named(
        mut self,
        name: &str,
        accepts: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
    ) -> Self {
        self = self.branch(accepts);
        if let Some(last) = self.names.last_mut() {
            *last = Some(name.to_owned());
        }
        self
    }

    /// Ends the split; the last stream gets what no branch took.
    pub fn default_branch(self) -> Vec<KStream<K, V>> {
        self.finish(true)
    }

    /// Ends the split; what no branch took is dropped.
    pub fn no_default_branch(self) -> Vec<KStream<K, V>> {
        self.finish(false)
    }

    fn finish(self, has_default: bool) -> Vec<KStream<K, V>> {
        let count = self.predicates.len();
        let (predicates, names) = (self.predicates, self.names);
        let build = node::<K, V, _>(move |assembly, id| Split {
            predicates: predicates
                .iter()
                .map(|predicate| {
                    let accepts = predicate.get();
                    let accepts: Predicate<K, V> = Box::new(move |key, value| accepts(key, value));
                    accepts
                })
                .collect(),
            has_default,
            children: assembly.children(id),
        });
        let split: KStream<K, V> = self.stream.same("KSTREAM-BRANCH-", build);
        // The default branch is number 0, the others count from 1, as there.
        let mut branches: Vec<KStream<K, V>> = Vec::with_capacity(count + 1);
        let numbers = (1..=count).chain(has_default.then_some(0));
        for number in numbers {
            let given = number.checked_sub(1).and_then(|place| names.get(place)?.as_deref());
            let name = match given {
                Some(given) => format!("{}{given}", split.name),
                None => format!("{}{number}", split.name),
            };
            let branch = split.named(&name).same(
                "",
                node::<K, V, _>(|assembly, id| PassThrough { children: assembly.children(id) }),
            );
            branches.push(branch);
        }
        branches
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

fn try_map_builder<K: Data, V: Data, L: Data, W: Data, F>(mapper: Closure<F>) -> NodeBuilder
where
    F: FnMut(K, V) -> Result<(L, W), UserError> + Clone + Send + 'static,
{
    node::<K, V, _>(move |assembly, id| TryMap {
        node: assembly.name(id),
        mapper: mapper.get(),
        children: assembly.children(id),
        input: PhantomData,
    })
}

/// A sink; its topic is decorated by the caller if it is an internal one.
pub(crate) fn sink_builder<K: Data, V: Data>(
    produced: Produced<K, V>,
    target: impl Fn() -> Target<K, V> + Send + Sync + 'static,
) -> NodeBuilder {
    Arc::new(move |assembly, id| {
        let partitioner = produced.partitioner.as_ref().map(|choose| {
            let choose = choose.get();
            let choose: Partitioner<K, V> = Box::new(move |key, value| choose(key, value));
            choose
        });
        let sink: Box<dyn crate::runtime::Down<K, V>> = Box::new(Sink {
            node: assembly.name(id),
            topic: target(),
            key: produced.key.clone(),
            value: produced.value.clone(),
            partitioner,
        });
        Box::new(sink) as Box<dyn Any + Send>
    })
}

/// Whether a repartition topic carries a generated name.
fn is_generated(topic: &str) -> bool {
    let Some(rest) = topic.strip_suffix("-repartition").filter(|rest| rest.starts_with("KSTREAM"))
    else {
        return false;
    };
    rest.rsplit_once('-')
        .is_some_and(|(_, number)| number.len() == 10 && number.bytes().all(|b| b.is_ascii_digit()))
}

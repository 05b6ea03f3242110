//! Repartition topics: records go to where their key belongs.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::app::{Consumed, source_builder};
use super::produced::{Produced, sink_builder};
use super::{KStream, Partitioning, node};
use crate::operator::sink::Target;
use crate::operator::stateless::PassThrough;
use crate::record::Data;
use crate::serde::{SerdeOf, StreamType};
use crate::topology::{Kind, NodeId, RepartitionNodes, SinkTopic};

/// How a stream goes through a repartition topic.
pub struct Repartitioned<K, V> {
    partitions: Option<i32>,
    partitioning: Option<Partitioning<K, V>>,
    key: Option<SerdeOf<K>>,
    value: Option<SerdeOf<V>>,
}

impl<K, V> Default for Repartitioned<K, V> {
    fn default() -> Self {
        Self { partitions: None, partitioning: None, key: None, value: None }
    }
}

impl<K, V> Repartitioned<K, V> {
    /// Spreads records over the partitions in this way.
    pub fn by(partitioning: Partitioning<K, V>) -> Self {
        Self { partitioning: Some(partitioning), ..Self::default() }
    }

    /// Gives the topic this number of partitions.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Writes and reads the topic with these serdes.
    pub fn serdes(mut self, key: SerdeOf<K>, value: SerdeOf<V>) -> Self {
        (self.key, self.value) = (Some(key), Some(value));
        self
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Sends the stream through a repartition topic of its own, so that records are where their key belongs.
    pub fn repartition(&self, partitions: Option<i32>) -> Self
    where
        K: StreamType,
        V: StreamType,
    {
        self.repartition_with(Repartitioned { partitions, ..Repartitioned::default() })
    }

    /// [`Self::repartition`] in another way, or by other serdes. Unless records go by their key, whatever groups or
    /// joins the stream afterwards repartitions it once more.
    pub fn repartition_with(&self, repartitioned: Repartitioned<K, V>) -> Self
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
        let Repartitioned { partitions, partitioning, key, value } = repartitioned;
        let by_key = partitioning.as_ref().is_none_or(|partitioning| partitioning.by_key);
        let key = key.or_else(|| self.key.clone()).unwrap_or_else(SerdeOf::usual);
        let value = value.or_else(|| self.value.clone()).unwrap_or_else(SerdeOf::usual);
        let mut stream = self.repartitioned_by(&name, partitions, key, value, partitioning);
        stream.repartition = !by_key;
        stream
    }

    /// Sends each record to every task of what follows (Storm's all grouping).
    pub fn broadcast(&self) -> Self
    where
        K: StreamType,
        V: StreamType,
    {
        self.repartition_with(Repartitioned::by(Partitioning::all()))
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
        let stream = self.repartitioned_by(prefix, partitions, key, value, None);
        // Only what an operator needs may be merged with others: the program asked for the rest.
        let mut graph = self.graph.lock();
        let source = stream.node;
        if let Kind::Source { topics, .. } = &graph.nodes[source].kind
            && let [topic] = &topics[..]
        {
            let nodes = RepartitionNodes {
                // The three were added one after the other.
                filter: source - 2,
                sink: source - 1,
                source,
                topic: topic.clone(),
                types: TypeId::of::<(K, V)>(),
            };
            graph.repartition_nodes.push(nodes);
        }
        drop(graph);
        stream
    }

    pub(crate) fn repartitioned_by(
        &self,
        prefix: &str,
        partitions: Option<i32>,
        key: SerdeOf<K>,
        value: SerdeOf<V>,
        partitioning: Option<Partitioning<K, V>>,
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
        let counts = partitioning.as_ref().is_some_and(|partitioning| partitioning.counts);
        let mut produced = Produced::with(key.clone(), value.clone());
        if let Some(partitioning) = partitioning {
            produced = produced.partitioning(partitioning);
        }
        let sink = graph.add_node(
            sink,
            Kind::Sink(SinkTopic::Fixed(topic.clone())),
            &[filter],
            sink_builder(produced, move || Target::Fixed(Arc::clone(&full))),
        );
        graph.nodes[sink].counts_partitions = counts;
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

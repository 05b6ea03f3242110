//! Sinks: how streams are written to topics.

use std::any::Any;
use std::sync::Arc;

use super::{Closure, KStream, Partitioning, Stage};
use crate::error::TopologyError;
use crate::operator::guarded::guarded;
use crate::operator::sink::{Sink, Spread, Target};
use crate::record::{Data, Record};
use crate::serde::{SerdeOf, StreamType};
use crate::topology::{Kind, NodeBuilder, SinkTopic};

/// How a topic is written.
pub struct Produced<K, V> {
    key: SerdeOf<K>,
    value: SerdeOf<V>,
    partitioning: Option<Partitioning<K, V>>,
}

impl<K: 'static, V: 'static> Produced<K, V> {
    /// Writes with these serdes.
    pub fn with(key: SerdeOf<K>, value: SerdeOf<V>) -> Self {
        Self { key, value, partitioning: None }
    }

    /// Chooses partitions: `None` for the usual one by key, several to send copies (multicast), none to drop.
    pub fn partitioner(
        self,
        choose: impl Fn(&K, &V) -> Option<Vec<i32>> + Send + Sync + 'static,
    ) -> Self {
        self.partitioning(Partitioning::chosen(choose))
    }

    /// Spreads records over the partitions in this way.
    pub fn partitioning(mut self, partitioning: Partitioning<K, V>) -> Self {
        self.partitioning = Some(partitioning);
        self
    }

    /// Whether the number of partitions has to be known.
    fn counts(&self) -> bool {
        self.partitioning.as_ref().is_some_and(|partitioning| partitioning.counts)
    }
}

impl<K: StreamType, V: StreamType> Default for Produced<K, V> {
    fn default() -> Self {
        Self::with(SerdeOf::usual(), SerdeOf::usual())
    }
}

impl<K: Data, V: Data> KStream<K, V> {
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
        let counts = produced.counts();
        let build = sink_builder(produced, target);
        let mut graph = self.graph.lock();
        let name = graph.name_or(self.next_name.as_deref(), "KSTREAM-SINK-");
        if counts && matches!(topic, SinkTopic::Chosen) {
            graph.errors.push(TopologyError::Invalid(format!(
                "{name}: the topic is chosen per record, so the number of its partitions is not known beforehand; \
                 choose the partition by `Produced::partitioner`"
            )));
        }
        let id = graph.add_node(name, Kind::Sink(topic), &[self.node], build);
        graph.nodes[id].counts_partitions = counts;
    }
}

/// A sink; its topic is decorated by the caller if it is an internal one.
pub(crate) fn sink_builder<K: Data, V: Data>(
    produced: Produced<K, V>,
    target: impl Fn() -> Target<K, V> + Send + Sync + 'static,
) -> NodeBuilder {
    Arc::new(move |assembly, id| {
        let spread = produced.partitioning.as_ref().map(|partitioning| Spread {
            router: partitioning.router(),
            counts: partitioning.counts,
            partitions: None,
        });
        let sink = Sink {
            counted: assembly.counted(id),
            topic: target(),
            key: produced.key.clone(),
            value: produced.value.clone(),
            spread,
        };
        Box::new(guarded(assembly, id, Stage::Writing, sink)) as Box<dyn Any + Send>
    })
}

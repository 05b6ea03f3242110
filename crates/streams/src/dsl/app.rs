//! The topology being written, and its sources.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use fleuve_client::config::OffsetReset;
use parking_lot::Mutex;

use super::ktable::{SourceTable, TableView};
use super::{KStream, KTable, Materialized, Stage, node};
use crate::error::TopologyError;
use crate::operator::guarded::guarded;
use crate::operator::source::{Decode, Source, TableSource};
use crate::record::Data;
use crate::runtime::{RawRecord, SourceEntry};
use crate::serde::{SerdeOf, StreamType};
use crate::state::Kept;
use crate::topology::{Graph, Kind, Plan, SharedGraph, TopicPattern, TopologyOptimization};

/// A stream-processing program: where it begins, and what [`crate::TestDriver`] and applications run.
///
/// ```
/// use fleuve_streams::{TestDriver, Topology};
///
/// let app = Topology::new("word-count");
/// app.stream::<(), String>("lines")
///     .flat_map_values(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
///     .group_by(|_, word| word.clone())
///     .count("word-counts")
///     .to_stream()
///     .to("counts");
///
/// let mut driver = TestDriver::new(&app).unwrap();
/// driver.input("lines").at(0).send(&(), &"a b a".to_owned());
/// assert_eq!(
///     driver.output::<String, i64>("counts").pairs(),
///     [("a".to_owned(), 1), ("b".to_owned(), 1), ("a".to_owned(), 2)]
/// );
/// ```
#[derive(Clone)]
pub struct Topology {
    pub(crate) graph: SharedGraph,
}

/// How a topic is read.
pub struct Consumed<K, V> {
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) extractor: Option<Extractor>,
    pub(crate) name: Option<String>,
    bootstraps: bool,
    pub(crate) offset_reset: Option<OffsetReset>,
}

/// Gives the event time of a record from the record and the partition's highest time so far.
pub(crate) type Extractor = Arc<dyn Fn(&RawRecord, i64) -> i64 + Send + Sync>;

impl<K: 'static, V: 'static> Consumed<K, V> {
    /// Reads with these serdes.
    pub fn with(key: SerdeOf<K>, value: SerdeOf<V>) -> Self {
        Self { key, value, extractor: None, name: None, bootstraps: false, offset_reset: None }
    }

    /// Takes event time from the record instead of its timestamp. The second argument is the highest event time of the
    /// partition so far, or -1. A negative result drops the record.
    pub fn timestamp_extractor(
        mut self,
        extractor: impl Fn(&RawRecord, i64) -> i64 + Send + Sync + 'static,
    ) -> Self {
        self.extractor = Some(Arc::new(extractor));
        self
    }

    /// Takes event time from key and value. Both are read once more for it, because records wait for their turn by their
    /// time. What cannot be read keeps its timestamp, until the policy for reading says what becomes of it.
    pub fn event_time(mut self, time_ms: impl Fn(&K, &V) -> i64 + Send + Sync + 'static) -> Self {
        let (keys, values) = (self.key.clone(), self.value.clone());
        self.extractor = Some(Arc::new(move |record, _| {
            let (topic, headers) = (&record.topic, &record.headers);
            let key = keys.read(topic, headers, record.key.clone());
            let value = values.read(topic, headers, record.value.clone());
            match (key, value) {
                (Ok(key), Ok(value)) => time_ms(&key, &value),
                _ => record.timestamp,
            }
        }));
        self
    }

    /// Reads the topic to its end, as it is when a task starts, before the task processes records of topics of which
    /// this is not said: settings, reference data, models. The idea is Samza's bootstrap streams.
    pub fn bootstrap(mut self) -> Self {
        self.bootstraps = true;
        self
    }

    /// Begins there where the group has committed nothing, whatever the settings say for other topics: Kafka Streams'
    /// `withOffsetResetPolicy`. Global tables begin at the beginning in any case.
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.offset_reset = Some(reset);
        self
    }

    /// Names the source node.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }
}

impl<K: StreamType, V: StreamType> Default for Consumed<K, V> {
    fn default() -> Self {
        Self::with(SerdeOf::usual(), SerdeOf::usual())
    }
}

impl Topology {
    /// An empty topology. The application id is the consumer group, and begins the names of internal topics.
    pub fn new(application_id: &str) -> Self {
        Self { graph: Arc::new(Mutex::new(Graph::new(application_id))) }
    }

    /// Reads a topic as a stream of events. A record whose key or value is null is dropped, unless the type can be
    /// null (`Option`, `()`).
    pub fn stream<K: StreamType, V: StreamType>(&self, topic: &str) -> KStream<K, V> {
        self.stream_with(&[topic], Consumed::default())
    }

    /// Reads topics as one stream of events.
    pub fn stream_with<K: Data, V: Data>(
        &self,
        topics: &[&str],
        consumed: Consumed<K, V>,
    ) -> KStream<K, V> {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.source(Selection::Named(topics), consumed)
    }

    /// Reads all topics as one stream of events whose whole name matches a regular expression (of the `regex` crate),
    /// also those that are created while the program runs: Kafka Streams' `stream(Pattern)`. Topics that Kafka or the
    /// program itself need are not among them, and no topic may be matched by two patterns, or be read by name as well.
    ///
    /// New topics are found within `metadata.max.age.ms`, and then the group divides its tasks anew. A topic with more
    /// partitions than any before it brings further tasks; those with state need an application that is reset first, as
    /// in Kafka Streams. Brokers do not know patterns in the streams group protocol: it takes the classic one.
    ///
    /// ```
    /// use fleuve_streams::{TestDriver, Topology};
    ///
    /// let app = Topology::new("totals");
    /// app.stream_pattern::<String, i64>("orders-[a-z]{2}").group_by_key().count("orders").to_stream().to("out");
    ///
    /// let mut driver = TestDriver::new(&app).unwrap();
    /// driver.input("orders-de").send("anna", &7_i64);
    /// driver.input("orders-fr").send("anna", &5_i64);
    /// driver.output::<String, i64>("out").expect([("anna", 1), ("anna", 2)]);
    /// ```
    pub fn stream_pattern<K: StreamType, V: StreamType>(&self, pattern: &str) -> KStream<K, V> {
        self.stream_pattern_with(pattern, Consumed::default())
    }

    /// [`Self::stream_pattern`] with serdes and settings of its own.
    pub fn stream_pattern_with<K: Data, V: Data>(
        &self,
        pattern: &str,
        consumed: Consumed<K, V>,
    ) -> KStream<K, V> {
        let selection = match TopicPattern::new(pattern) {
            Ok(pattern) => Selection::Matching(pattern),
            Err(error) => {
                self.graph.lock().errors.push(error);
                Selection::Named(Vec::new())
            }
        };
        self.source(selection, consumed)
    }

    fn source<K: Data, V: Data>(
        &self,
        selection: Selection,
        consumed: Consumed<K, V>,
    ) -> KStream<K, V> {
        let (key, value) = (consumed.key.clone(), consumed.value.clone());
        let (bootstraps, reset) = (consumed.bootstraps, consumed.offset_reset);
        let mut graph = self.graph.lock();
        let name = graph.name_or(consumed.name.as_deref(), "KSTREAM-SOURCE-");
        let (known, topics, pattern) = match selection {
            Selection::Named(topics) => (graph.source_of(&topics), topics, None),
            Selection::Matching(pattern) => {
                (Ok(graph.source_matching(&pattern)), Vec::new(), Some(pattern))
            }
        };
        let id = match known {
            Ok(None) => {
                let kind = Kind::Source { topics, global: false };
                let id = graph.add_node(name.clone(), kind, &[], source_builder(consumed));
                graph.set_offset_reset(id, reset);
                if let Some(pattern) = pattern {
                    graph.set_pattern(id, pattern);
                }
                id
            }
            Ok(Some(known)) => {
                graph.check_offset_reset(known, reset);
                known
            }
            Err(error) => {
                graph.errors.push(error);
                0
            }
        };
        if bootstraps && let Some(source) = graph.nodes.get_mut(id) {
            source.bootstraps = true;
        }
        let name = graph.nodes[id].name.clone();
        drop(graph);
        KStream {
            graph: self.graph.clone(),
            node: id,
            name,
            key: Some(key),
            value: Some(value),
            sources: BTreeSet::from([id]),
            repartition: false,
            next_name: None,
        }
    }

    /// Reads a topic as a table: the latest value of each key.
    pub fn table<K: StreamType, V: StreamType>(&self, topic: &str) -> KTable<K, V> {
        self.table_with(topic, Consumed::default(), Materialized::unnamed())
    }

    /// Reads a topic as a table that is kept in the named store.
    pub fn table_with<K: Data, V: Data>(
        &self,
        topic: &str,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        let (key, value) = (consumed.key.clone(), consumed.value.clone());
        let mut graph = self.graph.lock();
        // The store's name is generated first, even if the store is never needed.
        let store = match &materialized.name {
            Some(name) => name.clone(),
            None => graph.next_store_name(&format!("{topic}-")),
        };
        let given = consumed.name.as_deref();
        let source_name = graph.suffixed(given, "-source", "KSTREAM-SOURCE-");
        let table_name = graph.name_or(given, "KTABLE-SOURCE-");
        if let Ok(Some(_)) | Err(_) = graph.source_of(&[topic.to_owned()]) {
            graph.errors.push(TopologyError::ReadTwice(topic.to_owned()));
        }
        let (bootstraps, reset) = (consumed.bootstraps, consumed.offset_reset);
        let source = graph.add_node(
            source_name,
            Kind::Source { topics: vec![topic.to_owned()], global: false },
            &[],
            source_builder(consumed.nullable()),
        );
        graph.nodes[source].bootstraps = bootstraps;
        graph.set_offset_reset(source, reset);
        let table = graph.add_node(
            table_name,
            Kind::Processor,
            &[source],
            node::<K, Option<V>, _>(|assembly, id| TableSource::<K, V>::new(assembly, id)),
        );
        // Rows that die of age leave no trace in the topic.
        if !matches!(materialized.kept, Kept::ForTime(_)) {
            graph.nodes[table].table_topic = Some(topic.to_owned());
        }
        let named = materialized.name.is_some();
        let view = Arc::new(SourceTable {
            node: table,
            store,
            key: materialized.key.clone().unwrap_or_else(|| key.clone()),
            value: materialized.value.clone().unwrap_or_else(|| value.clone()),
            materialized,
        });
        if named {
            view.stores(&mut graph);
        }
        drop(graph);
        KTable {
            graph: self.graph.clone(),
            node: table,
            key: Some(key),
            value: Some(value),
            sources: BTreeSet::from([source]),
            view,
            next_name: None,
        }
    }

    /// Has the finished topology rewritten into a cheaper one: Kafka Streams' `topology.optimization`. Names of
    /// internal topics change with it, and so does what of them is needed: an application that has run without it is
    /// reset first.
    ///
    /// ```
    /// use fleuve_streams::{Topology, TopologyOptimization};
    ///
    /// let app = Topology::new("shop").optimize(TopologyOptimization::ALL);
    /// let by_user = app.stream::<String, String>("clicks").select_key(|_, user| user.clone());
    /// by_user.group_by_key().count("clicks");
    /// by_user.group_by_key().reduce("last", |_, page| page);
    /// let repartitions = |app: &Topology| app.describe().unwrap().matches("Sink:").count();
    /// assert_eq!(repartitions(&app), 1);
    /// ```
    pub fn optimize(self, rules: impl IntoIterator<Item = TopologyOptimization>) -> Self {
        self.graph.lock().optimizations.extend(rules);
        self
    }

    /// Refuses a topology whose internal topics or stores have generated names: these change when operators are added
    /// before them, and what was stored is not found any more. Kafka Streams' `ensure.explicit.internal.resource.naming`
    /// (KIP-1111).
    ///
    /// ```
    /// use fleuve_streams::Topology;
    ///
    /// let app = Topology::new("shop").explicit_names();
    /// let clicks = app.stream::<String, String>("clicks");
    /// let by_page = clicks.group_by(|_, page| page.clone());
    /// by_page.count("clicks");
    /// // The repartition topic has the name of the store that it is for.
    /// assert!(app.build().is_ok());
    /// by_page.reduce_with(fleuve_streams::Materialized::unnamed(), |_, page| page);
    /// let error = app.build().err().unwrap().to_string();
    /// assert!(error.contains("Following state store(s) has not been named: KSTREAM-REDUCE-STATE-STORE-"), "{error}");
    /// ```
    pub fn explicit_names(self) -> Self {
        self.graph.lock().explicit_names = true;
        self
    }

    /// Finishes the topology.
    pub fn build(&self) -> Result<Arc<Plan>, TopologyError> {
        Plan::of(&self.graph.lock())
    }

    /// The topology in the form of Kafka Streams' `describe()`.
    pub fn describe(&self) -> Result<String, TopologyError> {
        Ok(self.build()?.describe())
    }
}

/// What a source reads.
enum Selection {
    Named(Vec<String>),
    Matching(TopicPattern),
}

/// A source node for a topic.
pub(crate) fn source_builder<K: Data, V: Data>(
    consumed: Consumed<K, V>,
) -> crate::topology::NodeBuilder {
    Arc::new(move |assembly, id| {
        let decode = Decode::<K, V> {
            key: consumed.key.clone(),
            value: consumed.value.clone(),
            children: assembly.children(id),
        };
        let source: Box<dyn SourceEntry> = Box::new(Source {
            extractor: consumed.extractor.clone(),
            decode: guarded(assembly, id, Stage::Reading, decode),
        });
        Box::new(source) as Box<dyn Any + Send>
    })
}

impl<K: 'static, V: 'static> Consumed<K, V> {
    /// The same, with null values as deletions.
    pub(crate) fn nullable(self) -> Consumed<K, Option<V>> {
        Consumed {
            key: self.key,
            value: self.value.nullable(),
            extractor: self.extractor,
            name: self.name,
            bootstraps: self.bootstraps,
            offset_reset: self.offset_reset,
        }
    }
}

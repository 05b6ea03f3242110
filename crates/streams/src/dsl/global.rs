//! Global tables, which every instance holds in full, and joins with them.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use super::app::{Consumed, Extractor, Topology};
use super::{Closure, KStream, Materialized, node};
use crate::error::{Cause, ProcessingError, TopologyError};
use crate::operator::stream_table_join::GlobalJoin;
use crate::query::face::Shape;
use crate::record::{Data, Headers};
use crate::runtime::{GlobalStore, Origin, RawRecord};
use crate::serde::{SerdeOf, StreamType};
use crate::state::{Kept, KvStore, KvStoreSettings, MemoryBackend, Stamped, StoreType};
use crate::topology::{ChangelogKind, GlobalSpec, Kind, StoreSpec};

/// A table that every instance holds in full, so that any key can be looked up anywhere. It is read to its end before
/// the program starts; from then on it is not synchronized with the time of the streams that look into it.
pub struct GlobalKTable<K, V> {
    pub(crate) store: String,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for GlobalKTable<K, V> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), types: PhantomData }
    }
}

impl<K, V> GlobalKTable<K, V> {
    /// The global table that a store holds.
    pub(crate) fn of(store: &str) -> Self {
        Self { store: store.to_owned(), types: PhantomData }
    }
}

impl Topology {
    /// Reads a topic as a table that every instance holds in full.
    pub fn global_table<K: StreamType, V: StreamType>(&self, topic: &str) -> GlobalKTable<K, V> {
        self.global_table_with(topic, Consumed::default(), Materialized::unnamed())
    }

    /// [`Self::global_table`] in the named store.
    pub fn global_table_with<K: StreamType, V: StreamType>(
        &self,
        topic: &str,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> GlobalKTable<K, V> {
        let mut graph = self.graph.lock();
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
        // These nodes are only described: a global table is filled without a task.
        let described = || node::<K, V, _>(|_, _| Nowhere);
        let source = graph.add_node(
            source_name,
            Kind::Source { topics: vec![topic.to_owned()], global: true },
            &[],
            described(),
        );
        let table = graph.add_node(table_name.clone(), Kind::Processor, &[source], described());
        graph.add_store(StoreSpec {
            name: store.clone(),
            build: Arc::new(|_, _| unreachable!("no task builds a global store")),
            logged: false,
            cached: false,
            changelog: ChangelogKind::KeyValue,
            changelog_config: Default::default(),
            source_topic: None,
            store_type: Some(StoreType::Memory),
            global: true,
        });
        graph.connect(table, &store);
        let (name, topic_name): (Arc<str>, Arc<str>) = (Arc::from(table_name), Arc::from(topic));
        let key = consumed.key.clone();
        let kept = (
            materialized.key.clone().unwrap_or_else(|| consumed.key.clone()),
            materialized.value.clone().unwrap_or_else(|| consumed.value.clone()),
        );
        let (value, extractor) = (consumed.value.nullable(), consumed.extractor);
        let store_name = store.clone();
        graph.show(&store, Shape::KeyValue, (&kept.0, &kept.1));
        graph.globals.insert(
            store.clone(),
            GlobalSpec {
                topic: topic.to_owned(),
                build: Arc::new(move |_, _| {
                    let settings = KvStoreSettings {
                        name: store_name.clone(),
                        topic: topic_name.to_string(),
                        key: kept.0.clone(),
                        value: kept.1.clone(),
                        logged: false,
                        cached: false,
                        logs_headers: false,
                        kept: Kept::Newest,
                    };
                    Box::new(GlobalTable {
                        node: name.clone(),
                        key: key.clone(),
                        value: value.clone(),
                        extractor: extractor.clone(),
                        observed_ms: -1,
                        store: KvStore::new(settings, Box::new(MemoryBackend::default())),
                    })
                }),
            },
        );
        GlobalKTable { store, types: PhantomData }
    }
}

/// In place of nodes that never run.
struct Nowhere;

impl<K, V> crate::runtime::Down<K, V> for Nowhere {
    fn push(
        &mut self,
        _: crate::Record<K, V>,
        _: &mut crate::runtime::Cx,
    ) -> Result<(), crate::runtime::Problem> {
        Ok(())
    }
}

/// The content of a global table, and how it is read.
struct GlobalTable<K, V> {
    node: Arc<str>,
    key: SerdeOf<K>,
    value: SerdeOf<Option<V>>,
    extractor: Option<Extractor>,
    observed_ms: i64,
    store: KvStore<K, V>,
}

impl<K: StreamType, V: Data> GlobalStore for GlobalTable<K, V> {
    fn as_any(&mut self) -> &mut dyn Any {
        &mut self.store
    }

    fn apply(&mut self, record: RawRecord, _: i64) -> Result<(), ProcessingError> {
        let timestamp = match &self.extractor {
            Some(extractor) => extractor(&record, self.observed_ms),
            None => record.timestamp,
        };
        if timestamp < 0 || record.key.is_none() {
            return Ok(());
        }
        self.observed_ms = self.observed_ms.max(timestamp);
        let origin = Origin {
            topic: record.topic.clone(),
            partition: record.partition,
            offset: record.offset,
            timestamp,
            headers: Headers::default(),
        };
        let read = self.key.read(&record.topic, &record.headers, record.key).and_then(|key| {
            Ok((key, self.value.read(&record.topic, &record.headers, record.value)?))
        });
        let written = match read {
            Ok((key, value)) => {
                let value = value.map(|value| Stamped { value, timestamp });
                self.store
                    .put(&key, value, timestamp, &record.headers, &origin)
                    .map(|_| ())
                    .map_err(|error| Cause::Store(Arc::new(error)))
            }
            Err(error) => Err(Cause::Deserialize(Arc::new(error))),
        };
        written.map_err(|cause| ProcessingError {
            node: self.node.to_string(),
            topic: origin.topic,
            partition: origin.partition,
            offset: origin.offset,
            cause,
        })
    }
}

impl<K: StreamType, V: StreamType> KStream<K, V> {
    /// Events whose key in the global table, which `select` names if there is one, exists there.
    pub fn join_global<L: Data, W: Data, R: Data, S: Into<Option<L>> + 'static>(
        &self,
        table: &GlobalKTable<L, W>,
        select: impl FnMut(&K, &V) -> S + Clone + Send + 'static,
        mut joiner: impl FnMut(&V, &W) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.join_global_with_key(table, select, move |_, value, row| joiner(value, row))
    }

    /// [`Self::join_global`] with a look at the event's own key.
    pub fn join_global_with_key<L: Data, W: Data, R: Data, S: Into<Option<L>> + 'static>(
        &self,
        table: &GlobalKTable<L, W>,
        select: impl FnMut(&K, &V) -> S + Clone + Send + 'static,
        mut joiner: impl FnMut(&K, &V, &W) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup_global(table, false, select, move |key, value, row| match row {
            Some(row) => joiner(key, value, row),
            None => unreachable!("an inner join joins two values"),
        })
    }

    /// All events, with the global table's value where it has one.
    pub fn left_join_global<L: Data, W: Data, R: Data, S: Into<Option<L>> + 'static>(
        &self,
        table: &GlobalKTable<L, W>,
        select: impl FnMut(&K, &V) -> S + Clone + Send + 'static,
        mut joiner: impl FnMut(&V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.left_join_global_with_key(table, select, move |_, value, row| joiner(value, row))
    }

    /// [`Self::left_join_global`] with a look at the event's own key.
    pub fn left_join_global_with_key<L: Data, W: Data, R: Data, S: Into<Option<L>> + 'static>(
        &self,
        table: &GlobalKTable<L, W>,
        select: impl FnMut(&K, &V) -> S + Clone + Send + 'static,
        joiner: impl FnMut(&K, &V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup_global(table, true, select, joiner)
    }

    fn lookup_global<L: Data, W: Data, R: Data, S: Into<Option<L>> + 'static>(
        &self,
        table: &GlobalKTable<L, W>,
        left: bool,
        select: impl FnMut(&K, &V) -> S + Clone + Send + 'static,
        joiner: impl FnMut(&K, &V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        let (select, joiner) = (Closure::new(select), Closure::new(joiner));
        let store = table.store.clone();
        // One prefix for both kinds, as there.
        let mut joined = self.derive(
            "KSTREAM-LEFTJOIN-",
            node::<K, V, _>(move |assembly, id| GlobalJoin {
                node: assembly.name(id),
                left,
                select: {
                    let mut select = select.get();
                    move |key: &K, value: &V| select(key, value).into()
                },
                joiner: joiner.get(),
                table: assembly.globals.reader::<L, W>(&store),
                children: assembly.children(id),
                result: PhantomData,
            }),
        );
        joined.key = self.key.clone();
        joined
    }
}

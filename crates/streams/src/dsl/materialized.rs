//! How a table's state is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::query::face::Shape;
use crate::record::Data;
use crate::serde::SerdeOf;
use crate::state::{AnyStore, Kept, KvStore, KvStoreSettings, MemoryBackend, StoreType};
use crate::topology::{ChangelogKind, Graph, NodeId, StoreSpec};

/// The store of a table: its name, serdes, whether it is logged and cached.
pub struct Materialized<K, V> {
    pub(crate) name: Option<String>,
    pub(crate) key: Option<SerdeOf<K>>,
    pub(crate) value: Option<SerdeOf<V>>,
    pub(crate) logged: bool,
    pub(crate) cached: bool,
    pub(crate) changelog_config: BTreeMap<String, String>,
    pub(crate) retention_ms: Option<i64>,
    pub(crate) store_type: Option<StoreType>,
    pub(crate) kept: Kept,
}

impl<K: Data, V: Data> Materialized<K, V> {
    /// A store with this name, which also names its changelog.
    pub fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::unnamed() }
    }

    /// A store with a generated name. Generated names change when operators are added before it, and then its state
    /// is not found any more: name what must survive.
    pub fn unnamed() -> Self {
        Self {
            name: None,
            key: None,
            value: None,
            logged: true,
            cached: true,
            changelog_config: BTreeMap::new(),
            retention_ms: None,
            store_type: None,
            kept: Kept::Newest,
        }
    }

    /// Keeps keys with this serde.
    pub fn key_serde(mut self, serde: SerdeOf<K>) -> Self {
        self.key = Some(serde);
        self
    }

    /// Keeps values with this serde.
    pub fn value_serde(mut self, serde: SerdeOf<V>) -> Self {
        self.value = Some(serde);
        self
    }

    /// Writes no changelog: the state is lost with the task.
    pub fn without_logging(mut self) -> Self {
        self.logged = false;
        self
    }

    /// Sends every update on at once, instead of the last one of each key at every commit.
    pub fn without_caching(mut self) -> Self {
        self.cached = false;
        self
    }

    /// Sets a topic setting of the changelog.
    pub fn changelog_config(mut self, key: &str, value: &str) -> Self {
        self.changelog_config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// How long windows are kept, in milliseconds. At least size plus grace, which is also the default.
    pub fn retention_ms(mut self, retention_ms: i64) -> Self {
        self.retention_ms = Some(retention_ms);
        self
    }

    /// Keeps the state in memory or on disk, whatever the application's settings say.
    pub fn store_type(mut self, store_type: StoreType) -> Self {
        self.store_type = Some(store_type);
        self
    }

    /// Keeps what each key was during the last so many milliseconds of event time (KIP-889): joins of streams then find
    /// what a row was at an event's time, and updates out of order do not pass for the newest (KIP-914). Such a store
    /// has no cache. For tables by plain keys.
    pub fn versioned_ms(mut self, history_ms: i64) -> Self {
        self.kept = Kept::Versions(history_ms.max(0));
        self
    }

    /// Forgets each row so many milliseconds of event time after its last update: the table sends its deletion when
    /// stream time has passed that. Such a store has no cache. For tables by plain keys.
    pub fn time_to_live_ms(mut self, ttl_ms: i64) -> Self {
        self.kept = Kept::ForTime(ttl_ms.max(1));
        self
    }

    /// Keeps only so many keys, in memory: those used last, by a read or a write (`Stores.lruMap`). Others are forgotten
    /// without a word: neither the table behind nor, as in Kafka Streams, the changelog is told, so that a task that
    /// begins has the keys that were written last. A processor's own store, which [`crate::Topology::kv_store_with`]
    /// adds, does log what it forgets. For tables by plain keys.
    pub fn lru(mut self, keys_max: usize) -> Self {
        self.kept = Kept::OfKeys { most: keys_max, logs_evicted: false };
        self
    }

    /// Adds the store to the graph, as the table of a node.
    pub(crate) fn add_to(
        &self,
        graph: &mut Graph,
        node: NodeId,
        store: String,
        key: SerdeOf<K>,
        value: SerdeOf<V>,
    ) {
        graph.nodes[node].table_store = Some(store.clone());
        graph.show(&store, Shape::KeyValue, (&key, &value));
        graph.add_store(self.spec(&store, key, value, self.kept));
        graph.connect(node, &store);
    }

    /// A key-value store of these serdes, whatever it keeps of keys.
    pub(super) fn spec(
        &self,
        store: &str,
        key: SerdeOf<K>,
        value: SerdeOf<V>,
        kept: Kept,
    ) -> StoreSpec {
        StoreSpec {
            name: store.to_owned(),
            build: Arc::new(move |spec, topic| {
                let settings = KvStoreSettings {
                    name: spec.name.clone(),
                    topic: topic.to_owned(),
                    key: key.clone(),
                    value: value.clone(),
                    logged: spec.logged,
                    cached: spec.cached,
                    logs_headers: false,
                    kept,
                };
                let store: Box<dyn AnyStore> =
                    Box::new(KvStore::new(settings, Box::new(MemoryBackend::default())));
                store
            }),
            logged: self.logged,
            cached: self.cached && kept.may_be_cached(),
            changelog: match kept {
                Kept::Versions(history_ms) => ChangelogKind::Versions { history_ms },
                _ => ChangelogKind::KeyValue,
            },
            changelog_config: self.changelog_config.clone(),
            source_topic: None,
            store_type: match kept {
                Kept::OfKeys { .. } => Some(StoreType::Memory),
                _ => self.store_type,
            },
            global: false,
        }
    }
}

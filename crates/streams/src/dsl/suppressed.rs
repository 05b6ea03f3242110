//! Suppression of a table's intermediate changes.

use std::sync::Arc;

use super::ktable::{KTable, TableView};
use super::timed_node;
use crate::error::TopologyError;
use crate::metrics::Emission;
use crate::operator::suppress::{Limits, Suppress, SuppressGetter};
use crate::operator::table::Getter;
use crate::record::{Change, Data, Windowed};
use crate::runtime::Assembly;
use crate::serde::{SerdeOf, StreamType};
use crate::state::{AnyStore, ChangeBuffer, ChangeBufferSettings};
use crate::topology::{ChangelogKind, Graph, Kind, StoreSpec};

/// What to hold back, and for how long.
pub struct Suppressed<K> {
    wait_ms: Option<i64>,
    end_of: Option<fn(&K) -> i64>,
    buffer: SuppressBuffer,
    name: Option<String>,
}

impl<K> Suppressed<K> {
    /// Holds each key's change back for so long in event time, counted from the first one that waits.
    pub fn until_time_limit_ms(wait_ms: i64, buffer: SuppressBuffer) -> Self {
        Self { wait_ms: Some(wait_ms), end_of: None, buffer, name: None }
    }

    /// Names the node, and its store `<name>-store`.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }
}

impl<K> Suppressed<Windowed<K>> {
    /// Holds each window's change back until no record can change it any more. The buffer should not send early, or the
    /// results are not final.
    pub fn until_window_closes(buffer: SuppressBuffer) -> Self {
        Self { wait_ms: None, end_of: Some(|key| key.window.end), buffer, name: None }
    }
}

/// How much may be held back, and what happens when that is too much.
#[derive(Clone, Debug)]
pub struct SuppressBuffer {
    records_max: u64,
    bytes_max: u64,
    emits_early: bool,
    logged: bool,
    changelog_config: std::collections::BTreeMap<String, String>,
}

impl SuppressBuffer {
    /// As much as memory holds.
    pub fn unbounded() -> Self {
        Self {
            records_max: u64::MAX,
            bytes_max: u64::MAX,
            emits_early: false,
            logged: true,
            changelog_config: Default::default(),
        }
    }

    /// At most so many keys; beyond that the oldest changes are sent early.
    pub fn max_records(records: u64) -> Self {
        Self { records_max: records, emits_early: true, ..Self::unbounded() }
    }

    /// At most so many bytes; beyond that the oldest changes are sent early.
    pub fn max_bytes(bytes: u64) -> Self {
        Self { bytes_max: bytes, emits_early: true, ..Self::unbounded() }
    }

    /// And at most so many keys.
    pub fn with_max_records(mut self, records: u64) -> Self {
        self.records_max = records;
        self
    }

    /// And at most so many bytes.
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Sends the oldest changes early when the buffer is full.
    pub fn emit_early_when_full(mut self) -> Self {
        self.emits_early = true;
        self
    }

    /// Fails the task when the buffer is full.
    pub fn shut_down_when_full(mut self) -> Self {
        self.emits_early = false;
        self
    }

    /// Writes no changelog: what is held back is lost with the task.
    pub fn without_logging(mut self) -> Self {
        self.logged = false;
        self
    }

    /// Sets a topic setting of the changelog.
    pub fn changelog_config(mut self, key: &str, value: &str) -> Self {
        self.changelog_config.insert(key.to_owned(), value.to_owned());
        self
    }
}

impl<K: StreamType, V: StreamType> KTable<K, V> {
    /// Holds changes back, so that later ones of the same key replace them.
    pub fn suppress(&self, suppressed: Suppressed<K>) -> Self {
        let mut graph = self.graph.lock();
        let (name, store) = match &suppressed.name {
            Some(name) => (name.clone(), format!("{name}-store")),
            None => {
                (graph.next_name("KTABLE-SUPPRESS-"), graph.next_store_name("KTABLE-SUPPRESS-"))
            }
        };
        let wait_ms = suppressed.wait_ms.or_else(|| graph.window_grace(self.node));
        if wait_ms.is_none() {
            let message = format!("{name} waits for windows to close, but its table has none");
            graph.errors.push(TopologyError::Invalid(message));
        }
        let buffer = suppressed.buffer;
        let limits = Limits {
            wait_ms: wait_ms.unwrap_or_default(),
            records_max: buffer.records_max,
            bytes_max: buffer.bytes_max,
            emits_early: buffer.emits_early,
        };
        self.view.enable_old(&mut graph, true);
        let key = self.key.clone().unwrap_or_else(SerdeOf::usual);
        let value = self.value.clone().unwrap_or_else(SerdeOf::usual);
        let (end_of, for_node) = (suppressed.end_of, store.clone());
        let id = graph.add_node(
            name,
            Kind::Processor,
            &[self.node],
            timed_node::<K, Change<V>, _>(move |assembly, id| Suppress {
                node: assembly.name(id),
                tally: assembly.emitter(id, Emission::Suppressed),
                slot: assembly.store::<ChangeBuffer<K, V>>(&for_node),
                limits,
                end_of,
                observed_ms: -1,
                ahead_ms: 0,
                children: assembly.children(id),
            }),
        );
        graph.add_store(StoreSpec {
            name: store.clone(),
            build: {
                let (key, value) = (key.clone(), value.clone());
                Arc::new(move |spec, topic| {
                    let settings = ChangeBufferSettings {
                        name: spec.name.clone(),
                        topic: topic.to_owned(),
                        key: key.clone(),
                        value: value.clone(),
                        logged: spec.logged,
                    };
                    let store: Box<dyn AnyStore> = Box::new(ChangeBuffer::new(Arc::new(settings)));
                    store
                })
            },
            logged: buffer.logged,
            cached: false,
            changelog: ChangelogKind::KeyValue,
            changelog_config: buffer.changelog_config,
            source_topic: None,
            store_type: None,
            global: false,
        });
        graph.nodes[id].refuses_versions = true;
        graph.connect(id, &store);
        drop(graph);
        let view = SuppressedTable { store, parent: self.view.clone() };
        self.at(id, Some(key), Some(value), Arc::new(view))
    }
}

/// A table behind a suppression.
struct SuppressedTable<K, V> {
    store: String,
    parent: Arc<dyn TableView<K, V>>,
}

impl<K: Data, V: Data> TableView<K, V> for SuppressedTable<K, V> {
    fn enable_old(&self, graph: &mut Graph, force: bool) -> bool {
        self.parent.enable_old(graph, force)
    }

    fn stores(&self, graph: &mut Graph) -> Vec<String> {
        let mut stores = vec![self.store.clone()];
        stores.extend(self.parent.stores(graph));
        stores
    }

    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<K, V>> {
        Box::new(SuppressGetter {
            slot: assembly.store(&self.store),
            parent: self.parent.getter(assembly),
        })
    }
}

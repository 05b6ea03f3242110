//! Global tables: every instance holds all partitions of their topics, and every task reads them.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::RawRecord;
use crate::error::ProcessingError;
use crate::record::Data;
use crate::state::{KvStore, Stamped, StoreError};
use crate::topology::Plan;

/// The global tables of one instance, by store.
#[derive(Clone, Default)]
pub(crate) struct Globals {
    tables: BTreeMap<String, Shared>,
    /// The store that each topic fills.
    topics: BTreeMap<String, String>,
}

type Shared = Arc<Mutex<Box<dyn GlobalStore>>>;

/// One global table.
pub(crate) trait GlobalStore: Send {
    fn as_any(&mut self) -> &mut dyn Any;

    /// Applies a record of the table's topic.
    fn apply(&mut self, record: RawRecord) -> Result<(), ProcessingError>;
}

/// A global table as its readers see it.
pub(crate) struct GlobalReader<K, V> {
    table: Shared,
    types: std::marker::PhantomData<fn() -> (K, V)>,
}

impl<K: Data, V: Data> GlobalReader<K, V> {
    pub(crate) fn get(&self, key: &K) -> Result<Option<Stamped<V>>, StoreError> {
        let mut table = self.table.lock();
        let store: &mut KvStore<K, V> =
            table.as_any().downcast_mut().expect("a global table's handle knows its types");
        store.get(key)
    }
}

impl Globals {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut globals = Self::default();
        for (store, spec) in &plan.globals {
            globals.topics.insert(spec.topic.clone(), store.clone());
            globals.tables.insert(store.clone(), Arc::new(Mutex::new((spec.build)())));
        }
        globals
    }

    /// The topics that fill the tables.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// Whether a topic fills a global table.
    pub(crate) fn reads(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Applies a record to the table that its topic fills.
    pub(crate) fn apply(&self, record: RawRecord) -> Result<(), ProcessingError> {
        match self.topics.get(&*record.topic).and_then(|store| self.tables.get(store)) {
            Some(table) => table.lock().apply(record),
            None => Ok(()),
        }
    }

    /// A table's reader.
    pub(crate) fn reader<K: Data, V: Data>(&self, store: &str) -> GlobalReader<K, V> {
        let table = self.tables.get(store).expect("a handle's global table exists").clone();
        GlobalReader { table, types: std::marker::PhantomData }
    }

    /// Calls the function with a table's store, whatever its types are.
    pub(crate) fn with_any<R>(
        &self,
        store: &str,
        act: impl FnOnce(&mut dyn Any) -> R,
    ) -> Option<R> {
        let mut table = self.tables.get(store)?.lock();
        Some(act(table.as_any()))
    }

    /// Calls the function with a table's store, if there is one of that name and these types.
    pub(crate) fn with<K: Data, V: Data, R>(
        &self,
        store: &str,
        act: impl FnOnce(&mut KvStore<K, V>) -> R,
    ) -> Option<R> {
        let mut table = self.tables.get(store)?.lock();
        Some(act(table.as_any().downcast_mut()?))
    }
}

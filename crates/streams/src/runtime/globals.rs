//! What all tasks of one instance share: global tables, of which every instance holds all partitions; the numbers of
//! partitions of the topics they write; the program's counters.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{Outgoing, RawRecord, SourceRecord, Tallies};
use crate::dsl::{ErrorPolicy, Policies};
use crate::error::ProcessingError;
use crate::metrics::Traces;
use crate::record::Data;
use crate::runtime::Origin;
use crate::state::{KvStore, Stamped, StoreError};
use crate::topology::Plan;

/// What the tasks of one instance share.
#[derive(Clone, Default)]
pub(crate) struct Globals {
    tables: BTreeMap<String, Shared>,
    /// The store that each topic fills.
    topics: BTreeMap<String, String>,
    policies: Arc<Policies>,
    /// Records of global tables' topics on their way to a dead-letter topic.
    dead: Arc<Mutex<Vec<Outgoing>>>,
    partitions: Arc<RwLock<BTreeMap<String, i32>>>,
    tallies: Tallies,
    traces: Traces,
}

type Shared = Arc<Mutex<Box<dyn GlobalStore>>>;

/// One global table.
pub(crate) trait GlobalStore: Send {
    fn as_any(&mut self) -> &mut dyn Any;

    /// Applies a record of the table's topic, at this time of day.
    fn apply(&mut self, record: RawRecord, now_ms: i64) -> Result<(), ProcessingError>;
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
        let mut globals = Self { policies: Arc::new(plan.policies.clone()), ..Self::default() };
        for (store, spec) in &plan.globals {
            globals.topics.insert(spec.topic.clone(), store.clone());
            let table = (spec.build)(plan, &globals);
            globals.tables.insert(store.clone(), Arc::new(Mutex::new(table)));
        }
        globals
    }

    /// The same with empty tables.
    pub(crate) fn emptied(&self, plan: &Plan) -> Self {
        Self {
            partitions: self.partitions.clone(),
            tallies: self.tallies.clone(),
            traces: self.traces.clone(),
            ..Self::new(plan)
        }
    }

    /// The traces of the instance's tasks.
    pub(crate) fn traces(&self) -> &Traces {
        &self.traces
    }

    /// The topics that fill the tables.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// Whether a topic fills a global table.
    pub(crate) fn reads(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// The pause in milliseconds before a record that has failed so often is tried again, if it is.
    pub(crate) fn pause_ms(&self, error: &ProcessingError, failed: u32) -> Option<i64> {
        let retry = self.policies.for_cause(&error.cause).attempts()?;
        (failed <= retry.attempts).then(|| retry.pause_ms(failed))
    }

    /// Applies a record to the table that its topic fills.
    pub(crate) fn apply(&self, record: RawRecord, now_ms: i64) -> Result<(), ProcessingError> {
        match self.topics.get(&*record.topic).and_then(|store| self.tables.get(store)) {
            Some(table) => table.lock().apply(record, now_ms),
            None => Ok(()),
        }
    }

    /// Does about a record that could not be applied what the program's policy says, there being no attempt left.
    pub(crate) fn give_up(
        &self,
        record: RawRecord,
        error: ProcessingError,
    ) -> Result<(), ProcessingError> {
        match self.policies.for_cause(&error.cause).without_attempts() {
            ErrorPolicy::Fail | ErrorPolicy::Retry(_) => Err(error),
            ErrorPolicy::Skip => {
                tracing::warn!(%error, "record of a global table skipped");
                Ok(())
            }
            ErrorPolicy::DeadLetter(topic) => {
                let origin = Origin {
                    topic: record.topic,
                    partition: record.partition,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    headers: record.headers,
                };
                let source = SourceRecord { origin, key: record.key, value: record.value };
                self.dead.lock().push(source.dead_letter(topic, &error.cause));
                Ok(())
            }
        }
    }

    /// Takes the records that are on their way to a dead-letter topic.
    pub(crate) fn take_dead_letters(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.dead.lock())
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

    /// Tells how many partitions a topic has.
    pub(crate) fn set_partitions(&self, topic: &str, count: i32) {
        self.partitions.write().insert(topic.to_owned(), count);
    }

    /// How many partitions a topic has, as far as that is known.
    pub(crate) fn partitions(&self, topic: &str) -> Option<i32> {
        self.partitions.read().get(topic).copied()
    }

    /// The program's counters and distributions.
    pub(crate) fn tallies(&self) -> &Tallies {
        &self.tallies
    }
}

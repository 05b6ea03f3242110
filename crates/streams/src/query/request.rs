//! What is asked, with its types.

use std::any::Any;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::face::Face;
use super::{Position, QueryError};
use crate::record::{Data, Window, Windowed};
use crate::runtime::{Globals, Task, TaskId};
use crate::state::{KvStore, SessionStore, Stamped, Version, WindowStore};
use crate::topology::Plan;

/// Begins a query: `in_store("counts").key::<String, i64>("a".to_owned())`.
pub fn in_store(name: &str) -> InStore {
    InStore(name.to_owned())
}

/// The store that is asked.
#[derive(Clone, Debug)]
pub struct InStore(String);

/// A query for an answer of type `A`.
pub struct Query<A> {
    store: String,
    partition: Option<i32>,
    key: Option<Box<dyn Any + Send>>,
    bound: Position,
    /// Whether a standby may answer.
    pub(crate) is_stale_enough: bool,
    ask: Ask<A>,
    gather: fn(&mut A, A),
}

type Ask<A> = Box<dyn FnMut(&mut dyn Any) -> Result<A, QueryError> + Send>;

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<A> {
    /// What was asked for.
    pub value: A,
    /// How far the stores that answered had come.
    pub position: Position,
}

/// Who is to be asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The global table, of which every instance has everything.
    Global,
    /// These tasks.
    Tasks(Vec<TaskId>),
    /// Whichever of these tasks there are.
    Any(Vec<TaskId>),
}

impl InStore {
    /// The value of a key in a key-value store.
    pub fn key<K: Data, V: Data>(self, key: K) -> Query<Option<Stamped<V>>> {
        let asked = key.clone();
        let mut query = self.query("key-value store", first, move |store: &mut KvStore<K, V>| {
            Ok(store.get(&asked)?)
        });
        query.key = Some(Box::new(key));
        query
    }

    /// The keys of a key-value store that are within bounds, in the order of their bytes, partition by partition:
    /// `range::<String, i64>("a".to_owned().."c".to_owned())`.
    pub fn range<K: Data, V: Data>(self, keys: impl RangeBounds<K>) -> Query<Vec<(K, Stamped<V>)>> {
        let (from, to) = (keys.start_bound().cloned(), keys.end_bound().cloned());
        self.query("key-value store", all, move |store: &mut KvStore<K, V>| {
            Ok(store.between(from.as_ref(), to.as_ref())?)
        })
    }

    /// All keys of a key-value store.
    pub fn all<K: Data, V: Data>(self) -> Query<Vec<(K, Stamped<V>)>> {
        self.range::<K, V>(..)
    }

    /// What a key of a store with versions was at an event time (KIP-960): nothing, if it did not exist then, or if that
    /// is further back than the store's history. A store without versions refuses the query.
    pub fn key_as_of<K: Data, V: Data>(self, key: K, at_ms: i64) -> Query<Option<Version<V>>> {
        self.of_versions(key, first, move |store, key| Ok(store.get_as_of(key, at_ms)?))
    }

    /// What a key of a store with versions was within a span of event time (KIP-968), the oldest first. A store without
    /// versions refuses the query.
    pub fn versions_of<K: Data, V: Data>(
        self,
        key: K,
        span_ms: impl RangeBounds<i64>,
    ) -> Query<Vec<Version<V>>> {
        let (from, to) = inclusive(&span_ms);
        self.of_versions(key, all, move |store, key| Ok(store.versions(key, from, to)?))
    }

    fn of_versions<K: Data, V: Data, A>(
        self,
        key: K,
        gather: fn(&mut A, A),
        mut ask: impl FnMut(&mut KvStore<K, V>, &K) -> Result<A, QueryError> + Send + 'static,
    ) -> Query<A> {
        let (name, asked) = (self.0.clone(), key.clone());
        let mut query = self.query(VERSIONED, gather, move |store: &mut KvStore<K, V>| {
            if store.keeps_versions() {
                return ask(store, &asked);
            }
            Err(QueryError::OtherTypes { store: name.clone(), wanted: VERSIONED.to_owned() })
        });
        query.key = Some(Box::new(key));
        query
    }

    /// The windows of a key that begin within a span of time, by their starts.
    pub fn windows_of<K: Data, V: Data>(
        self,
        key: K,
        starts_ms: impl RangeBounds<i64>,
    ) -> Query<Vec<(Window, Stamped<V>)>> {
        let (from, to) = inclusive(&starts_ms);
        let asked = key.clone();
        let mut query = self.query("window store", all, move |store: &mut WindowStore<K, V>| {
            let found = store.fetch(&asked, from, to)?;
            Ok(found.into_iter().map(|(start, value)| (store.window(start), value)).collect())
        });
        query.key = Some(Box::new(key));
        query
    }

    /// The windows that begin within a span of time, of keys that are within bounds, by starts and key bytes, partition
    /// by partition.
    pub fn windows<K: Data, V: Data>(
        self,
        keys: impl RangeBounds<K>,
        starts_ms: impl RangeBounds<i64>,
    ) -> Query<Vec<(Windowed<K>, Stamped<V>)>> {
        let (from, to) = inclusive(&starts_ms);
        let (first, last) = (keys.start_bound().cloned(), keys.end_bound().cloned());
        self.query("window store", all, move |store: &mut WindowStore<K, V>| {
            Ok(store.fetch_between((first.as_ref(), last.as_ref()), from, to)?)
        })
    }

    /// The sessions of a key that have anything in common with a span of time, by their ends.
    pub fn sessions_of<K: Data, V: Data>(
        self,
        key: K,
        span_ms: impl RangeBounds<i64>,
    ) -> Query<Vec<(Window, V)>> {
        let (from, to) = inclusive(&span_ms);
        let asked = key.clone();
        let mut query = self.query("session store", all, move |store: &mut SessionStore<K, V>| {
            Ok(store.find(&asked, from, to)?)
        });
        query.key = Some(Box::new(key));
        query
    }

    fn query<S: 'static, A>(
        self,
        kind: &'static str,
        gather: fn(&mut A, A),
        mut ask: impl FnMut(&mut S) -> Result<A, QueryError> + Send + 'static,
    ) -> Query<A> {
        let store = self.0.clone();
        Query {
            store: self.0,
            partition: None,
            key: None,
            bound: Position::default(),
            is_stale_enough: false,
            gather,
            ask: Box::new(move |any| match any.downcast_mut::<S>() {
                Some(typed) => ask(typed),
                None => Err(QueryError::OtherTypes {
                    store: store.clone(),
                    wanted: format!("{kind} of the types it is asked for"),
                }),
            }),
        }
    }
}

impl<A> Query<A> {
    /// Asks for an answer that is no older than this.
    pub fn at_least(mut self, position: Position) -> Self {
        self.bound = position;
        self
    }

    /// Lets the standby of a task answer that runs elsewhere, with what it has. It knows no position in the task's input,
    /// so that [`Self::at_least`] excludes it.
    pub fn stale_allowed(mut self) -> Self {
        self.is_stale_enough = true;
        self
    }

    /// Asks one partition. A query for a key needs this only if its records were not partitioned by key as usual.
    pub fn in_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The store that is asked.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Finds out who is to be asked; `count_of` knows how many tasks a subtopology has.
    pub(crate) fn target(
        &self,
        plan: &Plan,
        count_of: impl Fn(u32) -> i32,
    ) -> Result<Target, QueryError> {
        if plan.globals.contains_key(&self.store) {
            return Ok(Target::Global);
        }
        let subtopology = plan.home_of(&self.store)?;
        let count = count_of(subtopology);
        let partition = match (self.partition, &self.key) {
            (Some(partition), _) => Some(partition),
            (None, Some(key)) => plan.partition_of(&self.store, &**key, count)?,
            (None, None) => None,
        };
        let task = |partition| TaskId { subtopology, partition };
        match partition {
            Some(partition) if !(0..count).contains(&partition) => {
                Err(QueryError::UnknownPartition { store: self.store.clone(), partition, count })
            }
            Some(partition) => Ok(Target::Tasks(vec![task(partition)])),
            None => Ok(Target::Any((0..count).map(task).collect())),
        }
    }

    /// Asks one task.
    pub(crate) fn ask_task(&mut self, task: &mut Task) -> Result<Answer<A>, QueryError> {
        let position = task.position();
        position.check(task.id(), &self.bound)?;
        let missing = || QueryError::UnknownStore { store: self.store.clone(), known: Vec::new() };
        let store = task.store(&self.store).ok_or_else(missing)?;
        Ok(Answer { value: (self.ask)(store.as_any())?, position })
    }

    /// Asks a global table.
    pub(crate) fn ask_global(&mut self, globals: &Globals) -> Result<Answer<A>, QueryError> {
        let missing = || QueryError::UnknownStore { store: self.store.clone(), known: Vec::new() };
        let found = globals.with_any(&self.store, |store| (self.ask)(store));
        Ok(Answer { value: found.ok_or_else(missing)??, position: Position::default() })
    }

    /// Adds the answer of a further task.
    pub(crate) fn gather(&self, gathered: &mut Option<Answer<A>>, more: Answer<A>) {
        match gathered {
            Some(gathered) => {
                (self.gather)(&mut gathered.value, more.value);
                gathered.position.merge(&more.position);
            }
            None => *gathered = Some(more),
        }
    }

    pub(crate) fn not_here(&self, task: TaskId, owner: Option<String>) -> QueryError {
        QueryError::NotHere { store: self.store.clone(), task: task.to_string(), owner }
    }
}

impl<T: 'static> Query<Vec<T>> {
    /// The other way round.
    pub fn reversed(mut self) -> Self {
        let mut ask = self.ask;
        self.ask = Box::new(move |store| {
            let mut found = ask(store)?;
            found.reverse();
            Ok(found)
        });
        self
    }
}

impl Plan {
    /// The subtopology that has a store.
    pub(crate) fn home_of(&self, store: &str) -> Result<u32, QueryError> {
        let home = self.subtopologies().iter().find(|part| part.stores.contains(store));
        home.map(|part| part.id).ok_or_else(|| QueryError::UnknownStore {
            store: store.to_owned(),
            known: self.stores.keys().chain(self.globals.keys()).cloned().collect(),
        })
    }

    /// The stores that can be asked.
    pub(crate) fn stores_to_json(&self) -> Vec<serde_json::Value> {
        let row = |(name, face): (&String, &Arc<dyn Face>)| {
            let home = self.home_of(name).ok().filter(|_| !self.globals.contains_key(name));
            // Declared, but of no use to any node: there is no such store.
            (home.is_some() || self.globals.contains_key(name)).then(
                || serde_json::json!({ "name": name, "kind": face.kind(), "subtopology": home }),
            )
        };
        self.faces.iter().filter_map(row).collect()
    }

    /// How a store is asked without its types.
    pub(crate) fn face_of(&self, store: &str) -> Result<&dyn Face, QueryError> {
        match self.faces.get(store) {
            Some(face) => Ok(&**face),
            None => Err(QueryError::OtherTypes {
                store: store.to_owned(),
                wanted: "store for queries, but one of an operator".to_owned(),
            }),
        }
    }

    /// The partition whose task has a key, as Kafka's default partitioner chooses it; `None` if the store's keys are not
    /// known, which makes every partition a candidate.
    fn partition_of(
        &self,
        store: &str,
        key: &dyn Any,
        count: i32,
    ) -> Result<Option<i32>, QueryError> {
        let Some(face) = self.faces.get(store) else {
            return Ok(None);
        };
        let bytes = face.key_bytes(store, key)?;
        Ok(Some(partition_for(bytes.as_deref(), count)))
    }
}

/// The partition that Kafka's default partitioner gives a key.
pub(crate) fn partition_for(key: Option<&[u8]>, count: i32) -> i32 {
    key.map_or(0, |key| {
        fleuve_client::producer::partition_for_key(key, count.max(1) as usize) as i32
    })
}

/// What a store is that knows earlier versions.
pub(super) const VERSIONED: &str = "versioned key-value store";

fn first<T>(found: &mut Option<T>, more: Option<T>) {
    if found.is_none() {
        *found = more;
    }
}

fn all<T>(found: &mut Vec<T>, more: Vec<T>) {
    found.extend(more);
}

/// The first and the last millisecond of a span.
fn inclusive(span: &impl RangeBounds<i64>) -> (i64, i64) {
    let from = match span.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => i64::MIN,
    };
    let to = match span.end_bound() {
        Bound::Included(to) => *to,
        Bound::Excluded(after) => after.saturating_sub(1),
        Bound::Unbounded => i64::MAX,
    };
    (from, to)
}

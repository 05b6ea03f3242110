//! States that processors open: handles that programs hold, and the views that tasks give for them.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use super::windowed::{WindowSpec, add_window_store};
use super::{Materialized, SessionWindows, Topology, session_windowed};
use crate::error::TopologyError;
use crate::query::face::Shape;
use crate::record::{Data, Window, Windowed};
use crate::runtime::{Cx, Origin, StoreSlot};
use crate::serde::{SerdeOf, StreamType};
use crate::state::{
    AnyStore, Kept, KvStore, Placed, SessionStore, Stamped, StoreError, TimerStore, Version,
    WindowStore,
};
use crate::topology::{ChangelogKind, StoreSpec};

/// The handle of a state that processors open with [`crate::processor::ProcessorContext::state`].
pub trait State {
    /// What opening it gives.
    type View<'a>;

    /// Its name.
    fn name(&self) -> &str;

    #[doc(hidden)]
    fn view<'a>(&self, cx: &'a mut Cx, index: usize) -> Self::View<'a>;
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($type:ident),*>) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<$($type),*> {
            name: String,
            types: PhantomData<fn() -> ($($type,)*)>,
        }

        impl<$($type),*> Clone for $name<$($type),*> {
            fn clone(&self) -> Self {
                Self { name: self.name.clone(), types: PhantomData }
            }
        }
    };
}

handle! {
    /// A key-value store.
    KvState<K, V>
}
handle! {
    /// A key-value store that keeps versions.
    VersionedState<K, V>
}
handle! {
    /// Timers by key.
    TimerState<K>
}
handle! {
    /// A window store.
    WindowState<K, V>
}
handle! {
    /// A session store.
    SessionState<K, V>
}

/// The name of a processor's store, which it has to have.
fn name_of<K, V>(app: &Topology, materialized: &Materialized<K, V>) -> String {
    materialized.name.clone().unwrap_or_else(|| {
        let nameless = TopologyError::Invalid("a processor's store needs a name".to_owned());
        app.graph.lock().errors.push(nameless);
        String::new()
    })
}

/// Adds a key-value store that no node uses yet.
fn add_kv_store<K: StreamType, V: StreamType>(
    app: &Topology,
    name: &str,
    materialized: Materialized<K, V>,
) {
    let key = materialized.key.clone().unwrap_or_else(SerdeOf::usual);
    let value = materialized.value.clone().unwrap_or_else(SerdeOf::usual);
    let kept = match materialized.kept {
        Kept::OfKeys { most, .. } => Kept::OfKeys { most, logs_evicted: true },
        kept => kept,
    };
    let mut graph = app.graph.lock();
    graph.show(name, Shape::KeyValue, (&key, &value));
    // No node could send on what a cache held back.
    graph.add_store(materialized.without_caching().spec(name, key, value, kept));
}

impl<K: Data, V: Data> KvState<K, V> {
    /// A store that exists already, of a table or added before; the types must be its own.
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), types: PhantomData }
    }
}

impl<K: StreamType, V: StreamType> KvState<K, V> {
    pub(crate) fn add(app: &Topology, materialized: Materialized<K, V>) -> Self {
        let name = name_of(app, &materialized);
        add_kv_store(app, &name, materialized);
        Self::of(&name)
    }
}

impl<K: Data, V: Data> State for KvState<K, V> {
    type View<'a> = KvView<'a, K, V>;

    fn name(&self) -> &str {
        &self.name
    }

    fn view<'a>(&self, cx: &'a mut Cx, index: usize) -> KvView<'a, K, V> {
        let (store, origin) = cx.store(StoreSlot::at(index));
        KvView { store, origin }
    }
}

/// An open key-value store.
pub struct KvView<'a, K, V> {
    store: &'a mut KvStore<K, V>,
    origin: &'a Origin,
}

impl<K: Data, V: Data> KvView<'_, K, V> {
    /// The value of a key.
    pub fn get(&mut self, key: &K) -> Result<Option<V>, StoreError> {
        Ok(self.store.get(key)?.map(|stamped| stamped.value))
    }

    /// The value of a key with the event time of its last update.
    pub fn get_stamped(&mut self, key: &K) -> Result<Option<Stamped<V>>, StoreError> {
        self.store.get(key)
    }

    /// Sets a key, at the event time of the record that is processed.
    pub fn put(&mut self, key: &K, value: V) -> Result<(), StoreError> {
        self.put_at(key, value, self.origin.timestamp)
    }

    /// Sets a key at an event time.
    pub fn put_at(&mut self, key: &K, value: V, timestamp: i64) -> Result<(), StoreError> {
        let value = Some(Stamped { value, timestamp });
        self.store.put(key, value, timestamp, &self.origin.headers, self.origin)?;
        // There is no table behind whose rows are to go, too.
        self.store.take_expired_rows();
        Ok(())
    }

    /// Removes a key and gives what it held.
    pub fn delete(&mut self, key: &K) -> Result<Option<V>, StoreError> {
        let held = self.get(key)?;
        let timestamp = self.origin.timestamp;
        self.store.put(key, None, timestamp, &self.origin.headers, self.origin)?;
        Ok(held)
    }

    /// Sets a key that has no value yet, and gives the value of one that has.
    pub fn put_if_absent(&mut self, key: &K, value: V) -> Result<Option<V>, StoreError> {
        let held = self.get(key)?;
        if held.is_none() {
            self.put(key, value)?;
        }
        Ok(held)
    }

    /// The keys within bounds with their values, in the order of the keys' bytes.
    pub fn range(&mut self, keys: impl RangeBounds<K>) -> Result<Vec<(K, V)>, StoreError> {
        let found = self.store.between(keys.start_bound(), keys.end_bound())?;
        Ok(found.into_iter().map(|(key, stamped)| (key, stamped.value)).collect())
    }

    /// All keys with their values, in the order of the keys' bytes.
    pub fn all(&mut self) -> Result<Vec<(K, V)>, StoreError> {
        self.range(..)
    }
}

impl<K: StreamType, V: StreamType> VersionedState<K, V> {
    pub(crate) fn add(app: &Topology, name: &str, history_ms: i64) -> Self {
        add_kv_store(app, name, Materialized::<K, V>::named(name).versioned_ms(history_ms));
        Self { name: name.to_owned(), types: PhantomData }
    }
}

impl<K: Data, V: Data> State for VersionedState<K, V> {
    type View<'a> = VersionedView<'a, K, V>;

    fn name(&self) -> &str {
        &self.name
    }

    fn view<'a>(&self, cx: &'a mut Cx, index: usize) -> VersionedView<'a, K, V> {
        let (store, origin) = cx.store(StoreSlot::at(index));
        VersionedView { store, origin }
    }
}

/// An open versioned store.
pub struct VersionedView<'a, K, V> {
    store: &'a mut KvStore<K, V>,
    origin: &'a Origin,
}

impl<K: Data, V: Data> VersionedView<'_, K, V> {
    /// The latest value of a key, with the event time that it holds from.
    pub fn get(&mut self, key: &K) -> Result<Option<Stamped<V>>, StoreError> {
        self.store.get(key)
    }

    /// What a key was at an event time.
    pub fn get_as_of(&mut self, key: &K, timestamp: i64) -> Result<Option<Version<V>>, StoreError> {
        self.store.get_as_of(key, timestamp)
    }

    /// What a key was within a span of event time, both ends included, oldest first.
    pub fn versions(
        &mut self,
        key: &K,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Version<V>>, StoreError> {
        self.store.versions(key, from_ms, to_ms)
    }

    /// Sets what a key is from an event time on, until the time of its next version.
    pub fn put(&mut self, key: &K, value: V, timestamp: i64) -> Result<Placed, StoreError> {
        let stamped = Some(Stamped { value, timestamp });
        self.store.put(key, stamped, timestamp, &self.origin.headers, self.origin)
    }

    /// Says that a key is gone from an event time on, and gives what it was then.
    pub fn delete(&mut self, key: &K, timestamp: i64) -> Result<Option<Version<V>>, StoreError> {
        let held = self.store.get_as_of(key, timestamp)?;
        self.store.put(key, None, timestamp, &self.origin.headers, self.origin)?;
        Ok(held)
    }
}

impl<K: StreamType> TimerState<K> {
    pub(crate) fn add(app: &Topology, name: &str, key: SerdeOf<K>) -> Self {
        app.graph.lock().add_store(StoreSpec {
            name: name.to_owned(),
            build: Arc::new(move |spec, topic| -> Box<dyn AnyStore> {
                Box::new(TimerStore::new(spec.name.clone(), topic.to_owned(), key.clone()))
            }),
            logged: true,
            cached: false,
            changelog: ChangelogKind::KeyValue,
            changelog_config: BTreeMap::new(),
            source_topic: None,
            store_type: None,
            global: false,
        });
        Self { name: name.to_owned(), types: PhantomData }
    }
}

impl<K: Data> State for TimerState<K> {
    type View<'a> = TimerView<'a, K>;

    fn name(&self) -> &str {
        &self.name
    }

    fn view<'a>(&self, cx: &'a mut Cx, index: usize) -> TimerView<'a, K> {
        let (store, origin) = cx.store(StoreSlot::at(index));
        TimerView { store, now_ms: origin.timestamp }
    }
}

/// Open timers.
pub struct TimerView<'a, K> {
    store: &'a mut TimerStore<K>,
    now_ms: i64,
}

impl<K: Data> TimerView<'_, K> {
    /// Sets a timer; setting it again changes nothing.
    pub fn set(&mut self, key: &K, at_ms: i64) -> Result<(), StoreError> {
        self.store.set(key, at_ms, self.now_ms)
    }

    /// Cancels a timer, if it is set.
    pub fn cancel(&mut self, key: &K, at_ms: i64) -> Result<(), StoreError> {
        self.store.cancel(key, at_ms, self.now_ms)
    }
}

impl<K: StreamType, V: StreamType> WindowState<K, V> {
    pub(crate) fn add(app: &Topology, size_ms: i64, materialized: Materialized<K, V>) -> Self {
        let name = name_of(app, &materialized);
        let window = WindowSpec {
            store: name.clone(),
            key: materialized.key.unwrap_or_else(SerdeOf::usual),
            value: materialized.value.unwrap_or_else(SerdeOf::usual),
            size_ms,
            retention_ms: materialized.retention_ms.unwrap_or(size_ms),
            duplicates: false,
            // Processors put windows where they like, and fetch them by key.
            by_key: true,
            logged: materialized.logged,
            cached: false,
            on_close: false,
            changelog_config: materialized.changelog_config,
            store_type: materialized.store_type,
        };
        add_window_store(&mut app.graph.lock(), &[], window);
        Self { name, types: PhantomData }
    }
}

impl<K: Data, V: Data> State for WindowState<K, V> {
    type View<'a> = WindowView<'a, K, V>;

    fn name(&self) -> &str {
        &self.name
    }

    fn view<'a>(&self, cx: &'a mut Cx, index: usize) -> WindowView<'a, K, V> {
        let (store, origin) = cx.store(StoreSlot::at(index));
        WindowView { store, origin }
    }
}

/// An open window store.
pub struct WindowView<'a, K, V> {
    store: &'a mut WindowStore<K, V>,
    origin: &'a Origin,
}

impl<K: Data, V: Data> WindowView<'_, K, V> {
    /// The value of a key in the window that begins at `start_ms`.
    pub fn get(&mut self, key: &K, start_ms: i64) -> Result<Option<V>, StoreError> {
        Ok(self.store.get(key, start_ms)?.map(|stamped| stamped.value))
    }

    /// Sets the value of a key in a window. Returns whether the window is young enough to be kept.
    pub fn put(&mut self, key: &K, start_ms: i64, value: V) -> Result<bool, StoreError> {
        let value = Stamped { value, timestamp: self.origin.timestamp };
        self.store.put(key, start_ms, value, &self.origin.headers, self.origin)
    }

    /// The values of a key in windows that begin within `from_ms..=to_ms`, by start.
    pub fn fetch(
        &mut self,
        key: &K,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<(i64, V)>, StoreError> {
        let found = self.store.fetch(key, from_ms, to_ms)?;
        Ok(found.into_iter().map(|(start, stamped)| (start, stamped.value)).collect())
    }

    /// The values of all keys in windows that begin within `from_ms..=to_ms`, by start and key bytes.
    pub fn fetch_all(
        &mut self,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<(Windowed<K>, V)>, StoreError> {
        let found = self.store.fetch_all(from_ms, to_ms)?;
        Ok(found.into_iter().map(|(key, stamped)| (key, stamped.value)).collect())
    }
}

impl<K: StreamType, V: StreamType> SessionState<K, V> {
    pub(crate) fn add(app: &Topology, retention_ms: i64, materialized: Materialized<K, V>) -> Self {
        let name = name_of(app, &materialized);
        let kept = materialized.without_caching().retention_ms(retention_ms);
        let key = kept.key.clone().unwrap_or_else(SerdeOf::usual);
        let serdes = (key, kept.value.clone().unwrap_or_else(SerdeOf::usual));
        // No operator uses it, so that how long its sessions are is the program's affair.
        let windows = SessionWindows::of_ms(retention_ms.max(1), 0);
        let mut graph = app.graph.lock();
        session_windowed::add_store(&mut graph, &[], windows, name.clone(), serdes, &kept, false);
        Self { name, types: PhantomData }
    }
}

impl<K: Data, V: Data> State for SessionState<K, V> {
    type View<'a> = SessionView<'a, K, V>;

    fn name(&self) -> &str {
        &self.name
    }

    fn view<'a>(&self, cx: &'a mut Cx, index: usize) -> SessionView<'a, K, V> {
        let (store, origin) = cx.store(StoreSlot::at(index));
        SessionView { store, origin }
    }
}

/// An open session store.
pub struct SessionView<'a, K, V> {
    store: &'a mut SessionStore<K, V>,
    origin: &'a Origin,
}

impl<K: Data, V: Data> SessionView<'_, K, V> {
    /// The value of a key's session.
    pub fn get(&mut self, key: &K, session: Window) -> Result<Option<V>, StoreError> {
        self.store.get(key, session)
    }

    /// The sessions of a key that end at `earliest_end_ms` or later and begin at `latest_start_ms` or earlier, by their
    /// ends.
    pub fn find(
        &mut self,
        key: &K,
        earliest_end_ms: i64,
        latest_start_ms: i64,
    ) -> Result<Vec<(Window, V)>, StoreError> {
        self.store.find(key, earliest_end_ms, latest_start_ms)
    }

    /// Sets the value of a session. One that has ended longer ago than the store keeps them is not kept.
    pub fn put(&mut self, key: &K, session: Window, value: V) -> Result<(), StoreError> {
        self.write(key, session, Some(value))
    }

    /// Removes a session.
    pub fn remove(&mut self, key: &K, session: Window) -> Result<(), StoreError> {
        self.write(key, session, None)
    }

    fn write(&mut self, key: &K, session: Window, value: Option<V>) -> Result<(), StoreError> {
        let Origin { timestamp, headers, .. } = self.origin;
        self.store.put(key, session, value, *timestamp, headers, self.origin)
    }
}

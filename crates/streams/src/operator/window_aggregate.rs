//! Aggregation by key and window.

use std::sync::Arc;

use super::aggregate::Initial;
use super::table::Getter;
use crate::dsl::TimeWindows;
use crate::metrics::{Emission, Tally};
use crate::record::{Change, Data, Headers, Record, Window, Windowed};
use crate::runtime::{Assembly, Cx, Down, END_OF_TIME, Fan, Flusher, Problem, StoreSlot, Timed};
use crate::serde::{Marker, StreamType};
use crate::state::{Stamped, StoreError, WindowStore};
use crate::topology::NodeId;

/// Folds each record into every window that contains its time and is not closed.
pub(crate) struct WindowAggregate<K, V, A, F> {
    pub(crate) windows: TimeWindows,
    pub(crate) aggregator: F,
    pub(crate) initial: Initial<A>,
    pub(crate) emit: WindowEmit<K, A>,
    /// The highest event time this operator saw: stream time is per operator.
    pub(crate) observed_ms: i64,
    /// Who wants records that are in no window any more.
    pub(crate) late: Fan<K, V>,
    pub(crate) input: Marker<V>,
}

impl<K: StreamType, V: Data, A: Data, F> Down<K, V> for WindowAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if record.key.is_null() {
            cx.drop_record("null key");
            return Ok(());
        }
        let timestamp = record.timestamp;
        self.observed_ms = self.observed_ms.max(cx.event_time_ms(timestamp));
        let closed_until = self.observed_ms.saturating_sub(self.windows.grace_ms);
        let (mut taken, mut refused) = (false, false);
        for start in self.windows.starts_of(timestamp) {
            let end = start.saturating_add(self.windows.size_ms);
            if end <= closed_until {
                cx.drop_record("window closed");
                refused = true;
                continue;
            }
            taken = true;
            self.update(&record, Window { start, end }, cx)?;
        }
        if self.emit.on_close {
            self.emit_closed(closed_until, &record.headers, cx)?;
        }
        // A record that is in no window at all is not late.
        if refused && !taken { self.late.push(record, cx) } else { Ok(()) }
    }
}

impl<K: StreamType, V: Data, A: Data, F> Timed for WindowAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    fn advance(&mut self, time_ms: i64, cx: &mut Cx) -> Result<(), Problem> {
        self.observed_ms = self.observed_ms.max(time_ms);
        if !self.emit.on_close {
            return Ok(());
        }
        match time_ms {
            END_OF_TIME => self.emit.send_rest(self.windows.size_ms, 0, cx),
            _ => {
                let closed_until = self.observed_ms.saturating_sub(self.windows.grace_ms);
                self.emit_closed(closed_until, &Headers::default(), cx)
            }
        }
    }

    fn holds_back_ms(&self) -> i64 {
        let closes_after = self.windows.size_ms.saturating_add(self.windows.grace_ms);
        if self.emit.on_close { closes_after } else { 0 }
    }
}

impl<K: StreamType, V: Data, A: Data, F> WindowAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    fn update(
        &mut self,
        record: &Record<K, V>,
        window: Window,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let old = self.emit.get(&record.key, window.start, cx)?;
        let timestamp =
            old.as_ref().map_or(record.timestamp, |old| old.timestamp.max(record.timestamp));
        let old = old.map(|old| old.value);
        let kept = self.emit.kept(old.as_ref(), &mut self.initial);
        let value = (self.aggregator)(&record.key, record.value.clone(), old);
        self.emit.update(record, window, kept, Stamped { value, timestamp }, cx)
    }

    /// Sends windows that closed since the last time, by start and key.
    fn emit_closed(
        &mut self,
        closed_until: i64,
        headers: &Headers,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let emitted_until = self.emit.emitted_until(cx).unwrap_or(i64::MIN);
        if closed_until <= emitted_until {
            return Ok(());
        }
        let size = self.windows.size_ms;
        // A window is closed when its end is at most `closed_until`.
        let from = emitted_until.saturating_sub(size).saturating_add(1);
        let to = closed_until.saturating_sub(size);
        self.emit.set_emitted_until(closed_until, cx);
        self.emit.send_all(from, to, headers, cx).map(|_| ())
    }
}

/// The end of a windowed aggregation: its store, and the children, which the flusher has if there is a cache.
pub(crate) struct WindowEmit<K, A> {
    node: Arc<str>,
    slot: StoreSlot<WindowStore<K, A>>,
    sends_old: bool,
    pub(crate) on_close: bool,
    /// Counts what is sent on close.
    tally: Option<Arc<Tally>>,
    children: Option<Fan<Windowed<K>, Change<A>>>,
}

impl<K: Data, A: Data> WindowEmit<K, A> {
    pub(crate) fn new(
        assembly: &mut Assembly<'_>,
        id: NodeId,
        store: &str,
        on_close: bool,
    ) -> Self {
        let node = assembly.name(id);
        let sends_old = assembly.node(id).sends_old;
        let slot = assembly.store(store);
        let children = assembly.children(id);
        let children = if assembly.plan.stores[store].cached {
            let flusher = WindowFlusher { node: node.clone(), slot, sends_old, children };
            assembly.add_flusher(store, Box::new(flusher));
            None
        } else {
            Some(children)
        };
        let tally = on_close.then(|| assembly.emitter(id, Emission::Closed));
        Self { node, slot, sends_old, on_close, tally, children }
    }

    /// The aggregate of a window.
    pub(crate) fn get(
        &self,
        key: &K,
        start: i64,
        cx: &mut Cx,
    ) -> Result<Option<Stamped<A>>, Problem> {
        let (store, _) = cx.store(self.slot);
        store.get(key, start).map_err(|error| Problem::store(&self.node, error))
    }

    /// The aggregates of a key's windows that begin within `from..=to`, by start.
    pub(crate) fn fetch(
        &self,
        key: &K,
        from: i64,
        to: i64,
        cx: &mut Cx,
    ) -> Result<Vec<(i64, Stamped<A>)>, Problem> {
        let (store, _) = cx.store(self.slot);
        store.fetch(key, from, to).map_err(|error| Problem::store(&self.node, error))
    }

    /// The old value to tell, if it is asked for: of a new window what it begins with.
    pub(crate) fn kept(&self, old: Option<&A>, initial: &mut Initial<A>) -> Option<A> {
        if !self.sends_old || self.children.is_none() {
            return None;
        }
        old.cloned().or_else(initial)
    }

    /// Writes a window's new aggregate, and sends the change unless that happens later.
    pub(crate) fn update<V>(
        &mut self,
        record: &Record<K, V>,
        window: Window,
        old: Option<A>,
        new: Stamped<A>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let (store, origin) = cx.store(self.slot);
        store
            .put(&record.key, window.start, new.clone(), &record.headers, origin)
            .map_err(|error| Problem::store(&self.node, error))?;
        match &mut self.children {
            Some(children) if !self.on_close => children.push(
                Record {
                    key: Windowed { key: record.key.clone(), window },
                    value: Change::new(Some(new.value), old),
                    timestamp: new.timestamp,
                    headers: record.headers.clone(),
                },
                cx,
            ),
            _ => Ok(()),
        }
    }

    /// Up to where windows were sent because they had closed, by this task or the one before it.
    pub(crate) fn emitted_until(&self, cx: &Cx) -> Option<i64> {
        cx.emitted_until[self.slot.index()]
    }

    pub(crate) fn set_emitted_until(&self, close: i64, cx: &mut Cx) {
        cx.emitted_until[self.slot.index()] = Some(close);
    }

    /// Sends all windows that were not sent yet, because no record will come. A window is closed when time has come to
    /// its end, or `beyond_ms` further.
    pub(crate) fn send_rest(
        &mut self,
        size_ms: i64,
        beyond_ms: i64,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let closes_after = size_ms.saturating_add(beyond_ms);
        let emitted_until = self.emitted_until(cx).unwrap_or(i64::MIN);
        let from = emitted_until.saturating_sub(closes_after).saturating_add(1);
        let last = self.send_all(from, i64::MAX, &Headers::default(), cx)?;
        if let Some(start) = last {
            self.set_emitted_until(start.saturating_add(closes_after), cx);
        }
        Ok(())
    }

    /// Sends the windows that begin within `from..=to`. Returns where the last one begins.
    pub(crate) fn send_all(
        &mut self,
        from: i64,
        to: i64,
        headers: &Headers,
        cx: &mut Cx,
    ) -> Result<Option<i64>, Problem> {
        let closed = cx
            .store(self.slot)
            .0
            .fetch_all(from, to)
            .map_err(|error| Problem::store(&self.node, error))?;
        let last = closed.last().map(|(key, _)| key.window.start);
        cx.closed_windows |= last.is_some();
        let Some(children) = &mut self.children else {
            return Ok(last);
        };
        for (key, stamped) in closed {
            let record = Record {
                key,
                value: Change::new(Some(stamped.value), None),
                timestamp: stamped.timestamp,
                headers: headers.clone(),
            };
            if let Some(tally) = &self.tally {
                tally.count_emitted();
            }
            children.push(record, cx)?;
        }
        Ok(last)
    }
}

struct WindowFlusher<K, A> {
    node: Arc<str>,
    slot: StoreSlot<WindowStore<K, A>>,
    sends_old: bool,
    children: Fan<Windowed<K>, Change<A>>,
}

impl<K: Data, A: Data> Flusher for WindowFlusher<K, A> {
    fn flush(&mut self, limit: usize, cx: &mut Cx) -> Result<bool, Problem> {
        let (store, _) = cx.store(self.slot);
        // Part by part, what is written meanwhile waits for the next flush.
        if limit == usize::MAX || !store.is_flushing() {
            store.begin_flush();
        }
        for _ in 0..limit {
            let (store, _) = cx.store(self.slot);
            let flushed = store.flush_next().map_err(|error| Problem::store(&self.node, error))?;
            let Some(change) = flushed else {
                return Ok(false);
            };
            let headers = change.origin.headers.clone();
            cx.origin = change.origin;
            let old = change.old.filter(|_| self.sends_old);
            let record = Record {
                key: change.key,
                value: Change::new(Some(change.new.value), old),
                timestamp: change.new.timestamp,
                headers,
            };
            self.children.push(record, cx)?;
        }
        Ok(cx.store(self.slot).0.is_flushing())
    }
}

/// Looks up a window.
pub(crate) struct WindowGetter<K, V> {
    pub(crate) slot: StoreSlot<WindowStore<K, V>>,
}

impl<K: Data, V: Data> Getter<Windowed<K>, V> for WindowGetter<K, V> {
    fn get(&mut self, key: &Windowed<K>, cx: &mut Cx) -> Result<Option<Stamped<V>>, StoreError> {
        cx.store(self.slot).0.get(&key.key, key.window.start)
    }
}

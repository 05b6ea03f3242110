//! Aggregation by key and session.
//!
//! A record opens a session of its own, which absorbs every session that begins or ends within the gap. What was
//! absorbed is removed, and sent as a deletion.

use std::sync::Arc;

use super::aggregate::Initial;
use super::table::Getter;
use crate::dsl::SessionWindows;
use crate::metrics::{Emission, Tally};
use crate::record::{Change, Data, Headers, Record, Window, Windowed};
use crate::runtime::{Assembly, Cx, Down, END_OF_TIME, Fan, Flusher, Problem, StoreSlot, Timed};
use crate::serde::{Marker, StreamType};
use crate::state::{SessionStore, Stamped, StoreError};
use crate::topology::NodeId;

/// Folds each record into its session.
pub(crate) struct SessionAggregate<K, V, A, F> {
    pub(crate) windows: SessionWindows,
    pub(crate) aggregator: F,
    pub(crate) initial: Initial<A>,
    pub(crate) merger: Merger<K, A>,
    pub(crate) emit: SessionEmit<K, A>,
    pub(crate) observed_ms: i64,
    /// Who wants records that are in no window any more.
    pub(crate) late: Fan<K, V>,
    pub(crate) input: Marker<V>,
}

/// Puts the aggregates of two sessions together, of which the first may be nothing yet.
pub(crate) type Merger<K, A> = Box<dyn FnMut(&K, Option<A>, A) -> A + Send>;

impl<K: StreamType, V: Data, A: Data, F> Down<K, V> for SessionAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if record.key.is_null() {
            cx.drop_record("null key");
            return Ok(());
        }
        let (timestamp, gap) = (record.timestamp, self.windows.gap_ms);
        self.observed_ms = self.observed_ms.max(cx.event_time_ms(timestamp));
        let close = self.close();
        let own = Window { start: timestamp, end: timestamp };
        let mut merged = own;
        let mut aggregate = (self.initial)();
        let absorbed = self.emit.find(&record.key, timestamp - gap, timestamp + gap, cx)?;
        for (window, value) in &absorbed {
            aggregate = Some((self.merger)(&record.key, aggregate, value.clone()));
            merged.start = merged.start.min(window.start);
            merged.end = merged.end.max(window.end);
        }
        let late = merged.end < close;
        if late {
            cx.drop_record("session closed");
        } else {
            if merged != own {
                for (window, value) in absorbed {
                    self.emit.update(&record, window, Some(value), None, cx)?;
                }
            }
            let value = (self.aggregator)(&record.key, record.value.clone(), aggregate);
            self.emit.update(&record, merged, None, Some(value), cx)?;
        }
        if self.emit.on_close {
            self.emit_closed(close, &record.headers, cx)?;
        }
        if late { self.late.push(record, cx) } else { Ok(()) }
    }
}

impl<K: StreamType, V: Data, A: Data, F> Timed for SessionAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    fn advance(&mut self, time_ms: i64, cx: &mut Cx) -> Result<(), Problem> {
        self.observed_ms = self.observed_ms.max(time_ms);
        if !self.emit.on_close {
            return Ok(());
        }
        match time_ms {
            END_OF_TIME => self.emit.send_rest(cx),
            _ => self.emit_closed(self.close(), &Headers::default(), cx),
        }
    }

    fn holds_back_ms(&self) -> i64 {
        let closes_after = self.windows.gap_ms.saturating_add(self.windows.grace_ms);
        if self.emit.on_close { closes_after } else { 0 }
    }
}

impl<K: StreamType, V: Data, A: Data, F> SessionAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    /// Sessions that end before this can no longer be extended.
    fn close(&self) -> i64 {
        self.observed_ms - self.windows.grace_ms - self.windows.gap_ms
    }

    /// Sends sessions that closed since the last time, by end and key.
    fn emit_closed(&mut self, close: i64, headers: &Headers, cx: &mut Cx) -> Result<(), Problem> {
        let emitted_until = self.emit.emitted_until(cx).unwrap_or(-1);
        if close <= emitted_until || close < 1 {
            return Ok(());
        }
        let from = emitted_until.max(0);
        self.emit.set_emitted_until(close, cx);
        self.emit.send_ended(from, close - 1, headers, cx).map(|_| ())
    }
}

/// The end of an aggregation by session: its store, and the children, which the flusher has if there is a cache.
pub(crate) struct SessionEmit<K, A> {
    node: Arc<str>,
    slot: StoreSlot<SessionStore<K, A>>,
    sends_old: bool,
    pub(crate) on_close: bool,
    /// Counts what is sent on close.
    tally: Option<Arc<Tally>>,
    children: Option<Fan<Windowed<K>, Change<A>>>,
}

impl<K: Data, A: Data> SessionEmit<K, A> {
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
            let flusher = SessionFlusher { node: node.clone(), slot, sends_old, children };
            assembly.add_flusher(store, Box::new(flusher));
            None
        } else {
            Some(children)
        };
        let tally = on_close.then(|| assembly.emitter(id, Emission::Closed));
        Self { node, slot, sends_old, on_close, tally, children }
    }

    fn find(
        &self,
        key: &K,
        earliest_end: i64,
        latest_start: i64,
        cx: &mut Cx,
    ) -> Result<Vec<(Window, A)>, Problem> {
        let (store, _) = cx.store(self.slot);
        store
            .find(key, earliest_end, latest_start)
            .map_err(|error| Problem::store(&self.node, error))
    }

    /// Writes or removes a session, and sends the change unless that happens later.
    fn update<V>(
        &mut self,
        record: &Record<K, V>,
        window: Window,
        old: Option<A>,
        new: Option<A>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let (store, origin) = cx.store(self.slot);
        store
            .put(&record.key, window, new.clone(), record.timestamp, &record.headers, origin)
            .map_err(|error| Problem::store(&self.node, error))?;
        match &mut self.children {
            Some(children) if !self.on_close => children.push(
                Record {
                    key: Windowed { key: record.key.clone(), window },
                    value: Change::new(new, old.filter(|_| self.sends_old)),
                    timestamp: window.end,
                    // As in Kafka Streams, which makes these records anew.
                    headers: Headers::default(),
                },
                cx,
            ),
            _ => Ok(()),
        }
    }

    /// Up to where sessions were sent because they had closed, by this task or the one before it.
    fn emitted_until(&self, cx: &Cx) -> Option<i64> {
        cx.emitted_until[self.slot.index()]
    }

    fn set_emitted_until(&self, close: i64, cx: &mut Cx) {
        cx.emitted_until[self.slot.index()] = Some(close);
    }

    /// Sends all sessions that were not sent yet, because no record will come.
    fn send_rest(&mut self, cx: &mut Cx) -> Result<(), Problem> {
        let from = self.emitted_until(cx).unwrap_or(0).max(0);
        let last = self.send_ended(from, i64::MAX, &Headers::default(), cx)?;
        if let Some(end) = last {
            self.set_emitted_until(end.saturating_add(1), cx);
        }
        Ok(())
    }

    /// Sends the sessions that end within `from..=to`. Returns where the last one ends.
    fn send_ended(
        &mut self,
        from: i64,
        to: i64,
        headers: &Headers,
        cx: &mut Cx,
    ) -> Result<Option<i64>, Problem> {
        let ended = cx
            .store(self.slot)
            .0
            .find_ended(from, to)
            .map_err(|error| Problem::store(&self.node, error))?;
        let last = ended.last().map(|(key, _)| key.window.end);
        cx.closed_windows |= last.is_some();
        let Some(children) = &mut self.children else {
            return Ok(last);
        };
        for (key, value) in ended {
            let timestamp = key.window.end;
            let record = Record {
                key,
                value: Change::new(Some(value), None),
                timestamp,
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

struct SessionFlusher<K, A> {
    node: Arc<str>,
    slot: StoreSlot<SessionStore<K, A>>,
    sends_old: bool,
    children: Fan<Windowed<K>, Change<A>>,
}

impl<K: Data, A: Data> Flusher for SessionFlusher<K, A> {
    fn flush(&mut self, _: usize, cx: &mut Cx) -> Result<bool, Problem> {
        let (store, _) = cx.store(self.slot);
        let flushed = store.flush().map_err(|error| Problem::store(&self.node, error))?;
        for change in flushed {
            let headers = change.origin.headers.clone();
            cx.origin = change.origin;
            let timestamp = change.key.window.end;
            let record = Record {
                key: change.key,
                value: Change::new(change.new, change.old.filter(|_| self.sends_old)),
                timestamp,
                headers,
            };
            self.children.push(record, cx)?;
        }
        Ok(false)
    }
}

/// Looks up a session.
pub(crate) struct SessionGetter<K, V> {
    pub(crate) slot: StoreSlot<SessionStore<K, V>>,
}

impl<K: Data, V: Data> Getter<Windowed<K>, V> for SessionGetter<K, V> {
    fn get(&mut self, key: &Windowed<K>, cx: &mut Cx) -> Result<Option<Stamped<V>>, StoreError> {
        let value = cx.store(self.slot).0.get(&key.key, key.window)?;
        Ok(value.map(|value| Stamped { value, timestamp: key.window.end }))
    }
}

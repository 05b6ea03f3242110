//! Joins of two streams: each event is written to its stream's window store, and looks into the other's.
//!
//! An event without a partner waits in a shared store until its window has closed in the event time of both streams;
//! then a later record, of either side, sends it. An event that arrives when its window is already closed is sent at
//! once.

use std::sync::Arc;

use crate::dsl::JoinWindows;
use crate::record::{Data, Headers, Record};
use crate::runtime::{Assembly, Cx, Down, END_OF_TIME, Fan, Problem, StoreSlot, Timed};
use crate::serde::StreamType;
use crate::state::{Either, OuterStore, Search, Stamped, Tracker, WindowStore};
use crate::topology::NodeId;

#[cfg(test)]
mod tests;

/// Writes events into their stream's window store.
pub(crate) struct WindowWrite<K, V> {
    node: Arc<str>,
    slot: StoreSlot<WindowStore<K, V>>,
    /// Whether events go on before they are written: to a join that is not to meet them yet.
    forwards_first: bool,
    children: Fan<K, V>,
}

impl<K: StreamType, V: Data> WindowWrite<K, V> {
    pub(crate) fn new(assembly: &mut Assembly<'_>, id: NodeId, store: &str) -> Self {
        Self {
            node: assembly.name(id),
            slot: assembly.store(store),
            forwards_first: false,
            children: assembly.children(id),
        }
    }

    /// Sends events on before they are written.
    pub(crate) fn forwarding_first(mut self) -> Self {
        self.forwards_first = true;
        self
    }
}

impl<K: StreamType, V: StreamType> Down<K, V> for WindowWrite<K, V> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if self.forwards_first {
            self.children.push(record.clone(), cx)?;
        }
        if !record.key.is_null() && !record.value.is_null() {
            let value = Stamped { value: record.value.clone(), timestamp: record.timestamp };
            let (store, origin) = cx.store(self.slot);
            store
                .put(&record.key, record.timestamp, value, &record.headers, origin)
                .map_err(|error| Problem::store(&self.node, error))?;
        }
        if self.forwards_first {
            return Ok(());
        }
        self.children.push(record, cx)
    }
}

/// How far a side looks around an event's time into the other stream, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) before_ms: i64,
    pub(crate) after_ms: i64,
}

/// One side of a join: events of `V` meet events of `W`; of the whole join, `L` are the left ones and `Q` the right.
pub(crate) struct StreamJoin<K, V, W, L, Q, R> {
    pub(crate) node: Arc<str>,
    pub(crate) reach: Reach,
    pub(crate) windows: JoinWindows,
    /// Whether this side's events have a result without a partner.
    pub(crate) outer: bool,
    pub(crate) is_left: bool,
    pub(crate) opposite: StoreSlot<WindowStore<K, W>>,
    pub(crate) unmatched: Option<StoreSlot<OuterStore<K, L, Q>>>,
    pub(crate) wrap: fn(V) -> Either<L, Q>,
    pub(crate) join: PairJoin<K, V, W, R>,
    pub(crate) alone: AloneJoin<K, L, Q, R>,
    pub(crate) children: Fan<K, R>,
}

/// Puts this side's event and the other's together.
pub(crate) type PairJoin<K, V, W, R> = Box<dyn FnMut(&K, &V, Option<&W>) -> R + Send>;

/// The result of an event without a partner.
pub(crate) type AloneJoin<K, L, Q, R> = Box<dyn FnMut(&K, &Either<L, Q>) -> R + Send>;

impl<K: StreamType, V: StreamType, W: Data, L: Data, Q: Data, R: Data> Down<K, V>
    for StreamJoin<K, V, W, L, Q, R>
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        let timestamp = record.timestamp;
        let mut stream_time = timestamp;
        if let Some(slot) = self.unmatched {
            let event_time = cx.event_time_ms(timestamp);
            let tracker = self.tracker(slot, cx)?;
            tracker.stream_time = tracker.stream_time.max(event_time);
            stream_time = tracker.stream_time;
        }
        if self.outer && record.key.is_null() && !record.value.is_null() {
            return self.send_alone(record, cx);
        }
        if record.key.is_null() || record.value.is_null() {
            cx.drop_record("null key or value");
            return Ok(());
        }
        if timestamp == stream_time {
            self.send_unmatched(&record.headers, cx)?;
        }
        let from = (timestamp - self.reach.before_ms).max(0);
        let to = (timestamp + self.reach.after_ms).max(0);
        let partners = cx
            .store(self.opposite)
            .0
            .fetch(&record.key, from, to)
            .map_err(|error| Problem::store(&self.node, error))?;
        if !partners.is_empty() {
            for (_, partner) in partners {
                self.send_pair(&record, partner, cx)?;
            }
            return Ok(());
        }
        if !self.outer {
            return Ok(());
        }
        match self.unmatched {
            Some(slot) if to >= stream_time => {
                let event = (self.wrap)(record.value);
                cx.store(slot)
                    .0
                    .add(&record.key, timestamp, self.is_left, event)
                    .map_err(|error| Problem::store(&self.node, error))
            }
            _ => self.send_alone(record, cx),
        }
    }
}

impl<K: StreamType, V: StreamType, W: Data, L: Data, Q: Data, R: Data>
    StreamJoin<K, V, W, L, Q, R>
{
    fn send_alone(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        let result = (self.join)(&record.key, &record.value, None);
        self.children.push(record.with_value(result), cx)
    }

    fn send_pair(
        &mut self,
        record: &Record<K, V>,
        partner: Stamped<W>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        if let Some(slot) = self.unmatched {
            // The partner is no longer without one.
            cx.store(slot)
                .0
                .remove(&record.key, partner.timestamp, !self.is_left, record.timestamp)
                .map_err(|error| Problem::store(&self.node, error))?;
        }
        let result = (self.join)(&record.key, &record.value, Some(&partner.value));
        self.children.push(
            Record {
                key: record.key.clone(),
                value: result,
                timestamp: record.timestamp.max(partner.timestamp),
                headers: record.headers.clone(),
            },
            cx,
        )
    }

    /// Sends events whose window has closed without a partner.
    fn send_unmatched(&mut self, headers: &Headers, cx: &mut Cx) -> Result<(), Problem> {
        let Some(slot) = self.unmatched else {
            return Ok(());
        };
        let (now_ms, interval_ms) = (cx.now_ms(), cx.emit_interval_ms());
        let tracker = self.tracker(slot, cx)?;
        let latest = tracker.stream_time;
        let soonest = tracker
            .min_time
            .saturating_add(self.reach.after_ms)
            .saturating_add(self.windows.grace_ms);
        if soonest >= latest || now_ms < tracker.next_emit_ms {
            return Ok(());
        }
        tracker.next_emit_ms = now_ms + interval_ms;
        self.send_found(slot, Search::for_closed(self.windows), headers, cx)
    }

    fn send_found(
        &mut self,
        slot: StoreSlot<OuterStore<K, L, Q>>,
        mut search: Search,
        headers: &Headers,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        loop {
            let found = cx.store(slot).0.take_next(&mut search);
            let found = found.map_err(|error| Problem::store(&self.node, error))?;
            if found.is_empty() {
                return Ok(());
            }
            for (key, timestamp, event) in found {
                let value = (self.alone)(&key, &event);
                let headers = headers.clone();
                self.children.push(Record { key, value, timestamp, headers }, cx)?;
            }
        }
    }

    fn tracker<'a>(
        &self,
        slot: StoreSlot<OuterStore<K, L, Q>>,
        cx: &'a mut Cx,
    ) -> Result<&'a mut Tracker, Problem> {
        cx.store(slot).0.tracker().map_err(|error| Problem::store(&self.node, error))
    }
}

impl<K: StreamType, V: StreamType, W: Data, L: Data, Q: Data, R: Data> Timed
    for StreamJoin<K, V, W, L, Q, R>
{
    fn advance(&mut self, time_ms: i64, cx: &mut Cx) -> Result<(), Problem> {
        let Some(slot) = self.unmatched else {
            return Ok(());
        };
        if time_ms < END_OF_TIME {
            let tracker = self.tracker(slot, cx)?;
            tracker.stream_time = tracker.stream_time.max(time_ms);
            return self.send_unmatched(&Headers::default(), cx);
        }
        self.send_found(slot, Search::for_all(), &Headers::default(), cx)
    }

    fn holds_back_ms(&self) -> i64 {
        let closes_after = self.reach.after_ms.saturating_add(self.windows.grace_ms);
        if self.unmatched.is_some() { closes_after.max(0) } else { 0 }
    }
}

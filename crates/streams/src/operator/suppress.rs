//! Suppression: changes wait in a buffer, so that later ones of the same key replace them.

use std::sync::Arc;

use super::table::Getter;
use crate::error::Cause;
use crate::metrics::Tally;
use crate::record::{Change, Data, Record};
use crate::runtime::{Cx, Down, END_OF_TIME, Fan, Origin, Problem, StoreSlot, Timed};
use crate::state::{ChangeBuffer, Evicted, Stamped, StoreError};

/// Holds changes back.
pub(crate) struct Suppress<K, V> {
    pub(crate) node: Arc<str>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) slot: StoreSlot<ChangeBuffer<K, V>>,
    pub(crate) limits: Limits,
    /// The end of the key's window, where changes wait for that; otherwise they wait from their own time on.
    pub(crate) end_of: Option<fn(&K) -> i64>,
    pub(crate) observed_ms: i64,
    /// How far before the end of its window a change has been.
    pub(crate) ahead_ms: i64,
    pub(crate) children: Fan<K, Change<V>>,
}

/// How long and how much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) wait_ms: i64,
    pub(crate) records_max: u64,
    pub(crate) bytes_max: u64,
    /// Whether a full buffer sends what is oldest; otherwise the task fails.
    pub(crate) emits_early: bool,
}

impl<K: Data, V: Data> Down<K, Change<V>> for Suppress<K, V> {
    fn push(&mut self, record: Record<K, Change<V>>, cx: &mut Cx) -> Result<(), Problem> {
        self.observed_ms = self.observed_ms.max(cx.event_time_ms(record.timestamp));
        let time = self.end_of.map_or(record.timestamp, |end_of| end_of(&record.key));
        self.ahead_ms = self.ahead_ms.max(time.saturating_sub(record.timestamp));
        let (buffer, origin) = cx.store(self.slot);
        let context =
            Origin { timestamp: record.timestamp, headers: record.headers, ..origin.clone() };
        buffer
            .put(time, &record.key, &record.value, context)
            .map_err(|error| Problem::store(&self.node, error))?;
        self.send_until(self.observed_ms.saturating_sub(self.limits.wait_ms), cx)?;
        while self.is_full(cx) {
            if !self.limits.emits_early {
                let cause = Cause::Rejected("the buffer of a suppression is full");
                return Err(Problem::new(&self.node, cause));
            }
            self.send_oldest(cx)?;
        }
        Ok(())
    }
}

impl<K: Data, V: Data> Suppress<K, V> {
    fn is_full(&self, cx: &mut Cx) -> bool {
        let (buffer, _) = cx.store(self.slot);
        buffer.len() as u64 > self.limits.records_max || buffer.bytes() > self.limits.bytes_max
    }

    /// Sends changes that have waited until this time.
    fn send_until(&mut self, expired: i64, cx: &mut Cx) -> Result<(), Problem> {
        while cx.store(self.slot).0.min_time().is_some_and(|time| time <= expired) {
            self.send_oldest(cx)?;
        }
        Ok(())
    }

    fn send_oldest(&mut self, cx: &mut Cx) -> Result<(), Problem> {
        let evicted =
            cx.store(self.slot).0.first().map_err(|error| Problem::store(&self.node, error))?;
        if let Some(evicted) = evicted {
            self.send(evicted, cx)?;
        }
        // Only now: while a change is sent, lookups still see what was before it, as there.
        cx.store(self.slot).0.remove_first();
        Ok(())
    }

    fn send(&mut self, evicted: Evicted<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        // A window that was deleted before it closed has no final result.
        if self.end_of.is_some() && evicted.change.new.is_none() {
            return Ok(());
        }
        let record = Record {
            key: evicted.key,
            value: evicted.change,
            timestamp: evicted.context.timestamp,
            headers: evicted.context.headers.clone(),
        };
        self.tally.count_emitted();
        let current = std::mem::replace(&mut cx.origin, evicted.context);
        let sent = self.children.push(record, cx);
        if sent.is_ok() {
            cx.origin = current;
        }
        sent
    }
}

impl<K: Data, V: Data> Timed for Suppress<K, V> {
    fn advance(&mut self, time_ms: i64, cx: &mut Cx) -> Result<(), Problem> {
        self.observed_ms = self.observed_ms.max(time_ms);
        let expired = match time_ms {
            END_OF_TIME => END_OF_TIME,
            _ => self.observed_ms.saturating_sub(self.limits.wait_ms),
        };
        self.send_until(expired, cx)
    }

    fn holds_back_ms(&self) -> i64 {
        self.limits.wait_ms.saturating_add(self.ahead_ms)
    }
}

/// Looks up what is visible behind a suppression: the value before the changes that wait, else the parent's.
pub(crate) struct SuppressGetter<K, V> {
    pub(crate) slot: StoreSlot<ChangeBuffer<K, V>>,
    pub(crate) parent: Box<dyn Getter<K, V>>,
}

impl<K: Data, V: Data> Getter<K, V> for SuppressGetter<K, V> {
    fn get(&mut self, key: &K, cx: &mut Cx) -> Result<Option<Stamped<V>>, StoreError> {
        match cx.store(self.slot).0.prior(key)? {
            Some(prior) => Ok(prior.map(|value| Stamped { value, timestamp: UNKNOWN })),
            None => self.parent.get(key, cx),
        }
    }
}

/// The time of a value of which only the value is known.
const UNKNOWN: i64 = -1;

//! Aggregation by key and sliding window.
//!
//! Windows are defined by records: one ends with each record (its left window), one begins right after each (its right
//! window), and none is empty. A window is `[start, start + difference]`, both ends included. A new record therefore
//! updates the windows it falls into, makes its own left window out of the one before it, makes its right window out of
//! a window that reaches further, and may make the right window of the record before it.

use std::collections::BTreeSet;

use super::aggregate::Initial;
use super::window_aggregate::WindowEmit;
use crate::dsl::SlidingWindows;
use crate::record::{Data, Headers, Record, Window};
use crate::runtime::{Cx, Down, END_OF_TIME, Fan, Problem, Timed};
use crate::serde::{Marker, StreamType};
use crate::state::Stamped;

/// Folds each record into its sliding windows.
pub(crate) struct SlidingAggregate<K, V, A, F> {
    pub(crate) windows: SlidingWindows,
    pub(crate) aggregator: F,
    pub(crate) initial: Initial<A>,
    pub(crate) emit: WindowEmit<K, A>,
    pub(crate) observed_ms: i64,
    /// Who wants records that are in no window any more.
    pub(crate) late: Fan<K, V>,
    pub(crate) input: Marker<V>,
}

/// What the windows around a record tell.
struct Around<A> {
    starts: BTreeSet<i64>,
    /// The aggregate of the window that ends before the record.
    left: Option<A>,
    left_exists: bool,
    /// The aggregate of a window that contains the record and reaches further.
    right: Option<Stamped<A>>,
    right_exists: bool,
    /// The time of the record before this one.
    previous: Option<i64>,
}

impl<A> Around<A> {
    fn nothing() -> Self {
        Self {
            starts: BTreeSet::new(),
            left: None,
            left_exists: false,
            right: None,
            right_exists: false,
            previous: None,
        }
    }
}

impl<K: StreamType, V: StreamType, A: Data, F> Down<K, V> for SlidingAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if record.key.is_null() || record.value.is_null() {
            cx.drop_record("null key or value");
            return Ok(());
        }
        self.observed_ms = self.observed_ms.max(cx.event_time_ms(record.timestamp));
        let close = self.observed_ms.saturating_sub(self.windows.grace_ms);
        if record.timestamp + self.windows.difference_ms < close {
            cx.drop_record("window closed");
            return self.late.push(record, cx);
        }
        if record.timestamp < self.windows.difference_ms {
            return self.fold_early(&record, close, cx);
        }
        self.fold(&record, close, cx)?;
        if self.emit.on_close {
            self.emit_closed(close, &record.headers, cx)?;
        }
        Ok(())
    }
}

impl<K: StreamType, V: StreamType, A: Data, F> Timed for SlidingAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    fn advance(&mut self, time_ms: i64, cx: &mut Cx) -> Result<(), Problem> {
        self.observed_ms = self.observed_ms.max(time_ms);
        if !self.emit.on_close {
            return Ok(());
        }
        match time_ms {
            // Their ends belong to these windows.
            END_OF_TIME => self.emit.send_rest(self.windows.difference_ms, 1, cx),
            _ => {
                let close = self.observed_ms.saturating_sub(self.windows.grace_ms);
                self.emit_closed(close, &Headers::default(), cx)
            }
        }
    }

    fn holds_back_ms(&self) -> i64 {
        let closes_after = self.windows.difference_ms.saturating_add(self.windows.grace_ms);
        if self.emit.on_close { closes_after } else { 0 }
    }
}

impl<K: StreamType, V: StreamType, A: Data, F> SlidingAggregate<K, V, A, F>
where
    F: FnMut(&K, V, Option<A>) -> A + Send,
{
    fn fold(&mut self, record: &Record<K, V>, close: i64, cx: &mut Cx) -> Result<(), Problem> {
        let (timestamp, difference) = (record.timestamp, self.windows.difference_ms);
        let mut around = Around::nothing();
        let from = (timestamp - 2 * difference).max(0);
        for (start, found) in
            self.emit.fetch(&record.key, from, timestamp + 1, cx)?.into_iter().rev()
        {
            around.starts.insert(start);
            let end = start + difference;
            if start == timestamp + 1 {
                around.right_exists = true;
            } else if end > timestamp {
                around.right.get_or_insert_with(|| found.clone());
                self.update(record, start, Some(found), close, cx)?;
            } else if end == timestamp {
                around.left_exists = true;
                let latest = found.timestamp;
                self.update(record, start, Some(found), close, cx)?;
                // A record of the same time was there: it has all windows already.
                if latest >= timestamp {
                    return Ok(());
                }
                around.previous = Some(latest);
            } else {
                around.previous = Some(found.timestamp);
                around.left = Some(found.value);
                break;
            }
        }
        if let Some(previous) = around.previous {
            let start = previous + 1;
            if !around.starts.contains(&start) && start + difference >= timestamp {
                self.update(record, start, None, close, cx)?;
            }
        }
        if !around.left_exists {
            let reaches =
                around.previous.is_some_and(|previous| timestamp - difference <= previous);
            let left = around.left.filter(|_| reaches);
            let left = left.map(|value| Stamped { value, timestamp });
            self.update(record, timestamp - difference, left, close, cx)?;
        }
        match around.right {
            Some(right) if !around.right_exists && right.timestamp > timestamp => {
                self.open_right(record, right, cx)
            }
            _ => Ok(()),
        }
    }

    /// A record whose left window would begin before time began: all such share the window that begins at 0.
    fn fold_early(
        &mut self,
        record: &Record<K, V>,
        close: i64,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let timestamp = record.timestamp;
        let mut around = Around::nothing();
        let mut combined: Option<Stamped<A>> = None;
        for (start, found) in self.emit.fetch(&record.key, 0, timestamp + 1, cx)? {
            around.starts.insert(start);
            if start == 0 {
                if found.timestamp < timestamp {
                    around.previous = Some(found.timestamp);
                }
                combined = Some(found);
            } else if start <= timestamp {
                around.right = Some(found.clone());
                self.update(record, start, Some(found), close, cx)?;
            } else {
                around.right_exists = true;
            }
        }
        if around.right.is_none() {
            around.right = combined.clone().filter(|window| window.timestamp > timestamp);
        }
        match around.right {
            Some(right) if !around.right_exists && right.timestamp > timestamp => {
                self.open_right(record, right, cx)?;
            }
            _ => {}
        }
        if let Some(previous) = around.previous
            && !around.starts.contains(&(previous + 1))
        {
            self.update(record, previous + 1, None, close, cx)?;
        }
        self.update(record, 0, combined, close, cx)
    }

    /// Begins the window right after a record, with what it has in common with a window that reaches further.
    fn open_right(
        &mut self,
        record: &Record<K, V>,
        content: Stamped<A>,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let start = record.timestamp + 1;
        let window = Window { start, end: start + self.windows.difference_ms };
        self.emit.update(record, window, None, content, cx)
    }

    /// Folds the record into a window, unless that is closed.
    fn update(
        &mut self,
        record: &Record<K, V>,
        start: i64,
        old: Option<Stamped<A>>,
        close: i64,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        let window = Window { start, end: start + self.windows.difference_ms };
        if window.end < close {
            cx.drop_record("window closed");
            return Ok(());
        }
        let timestamp =
            old.as_ref().map_or(record.timestamp, |old| old.timestamp.max(record.timestamp));
        let old = old.map(|old| old.value);
        let kept = self.emit.kept(old.as_ref(), &mut self.initial);
        let value = (self.aggregator)(&record.key, record.value.clone(), old);
        self.emit.update(record, window, kept, Stamped { value, timestamp }, cx)
    }

    /// Sends windows that closed since the last time, by start and key.
    fn emit_closed(&mut self, close: i64, headers: &Headers, cx: &mut Cx) -> Result<(), Problem> {
        let difference = self.windows.difference_ms;
        let to = close - difference - 1;
        let emitted_until = self.emit.emitted_until(cx);
        if emitted_until.is_some_and(|until| until >= close) || to < 0 {
            return Ok(());
        }
        let from = emitted_until.map_or(0, |until| (until - difference).max(0));
        self.emit.set_emitted_until(close, cx);
        self.emit.send_all(from, to, headers, cx).map(|_| ())
    }
}

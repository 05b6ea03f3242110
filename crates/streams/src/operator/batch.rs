//! Batches of records, given to the program when they are full and before every commit.

use std::sync::Arc;

use super::guarded::Input;
use super::stateless::UserError;
use crate::dsl::{Batch, Retry};
use crate::error::Cause;
use crate::record::{Data, Record};
use crate::runtime::{Cx, Deferring, Down, Problem};

/// Collects records and gives them to the program.
pub(crate) struct BatchSink<K, V, F> {
    pub(crate) node: Arc<str>,
    pub(crate) action: F,
    /// How many records a batch holds at most.
    pub(crate) size: usize,
    pub(crate) retry: Option<Retry>,
    pub(crate) records: Vec<Record<K, V>>,
    /// The input record of each.
    pub(crate) inputs: Vec<Input>,
    /// How often the first batch failed, and when it is tried again.
    pub(crate) failed: Option<(u32, i64)>,
}

impl<K: Data, V: Data, F> BatchSink<K, V, F>
where
    F: FnMut(Batch<'_, K, V>) -> Result<(), UserError> + Send,
{
    fn deliver(&mut self, cx: &mut Cx) -> Result<(), Problem> {
        let count = self.records.len().min(self.size);
        let (Some(first), Some(last)) = (self.inputs.first(), self.inputs.get(count.max(1) - 1))
        else {
            return Ok(());
        };
        let batch = Batch {
            records: &self.records[..count],
            first: first.origin(),
            last: last.origin(),
            partition: cx.partition,
        };
        if let Err(error) = (self.action)(batch) {
            let failed = self.failed.map_or(0, |(failed, _)| failed) + 1;
            if let Some(retry) = &self.retry
                && failed <= retry.attempts
            {
                tracing::warn!(node = %self.node, %error, failed, "batch failed, trying again");
                self.failed = Some((failed, cx.now_ms + retry.pause_ms(failed)));
                return Ok(());
            }
            let cause = Cause::User(Arc::from(error));
            let current = Input::of(cx);
            for input in &self.inputs[..count] {
                input.resume(cx);
                cx.absorb(Problem::new(&self.node, cause.clone()))?;
            }
            current.resume(cx);
        }
        self.failed = None;
        self.records.drain(..count);
        self.inputs.drain(..count);
        Ok(())
    }
}

impl<K: Data, V: Data, F> Down<K, V> for BatchSink<K, V, F>
where
    F: FnMut(Batch<'_, K, V>) -> Result<(), UserError> + Send,
{
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        self.records.push(record);
        self.inputs.push(Input::of(cx));
        if self.records.len() >= self.size && self.failed.is_none() {
            self.deliver(cx)?;
        }
        Ok(())
    }
}

impl<K: Data, V: Data, F> Deferring for BatchSink<K, V, F>
where
    F: FnMut(Batch<'_, K, V>) -> Result<(), UserError> + Send,
{
    fn is_settled(&self) -> bool {
        self.records.is_empty()
    }

    fn holds(&self) -> bool {
        self.failed.is_some()
    }

    fn due_ms(&self) -> Option<i64> {
        self.failed.map(|(_, due_ms)| due_ms)
    }

    fn resume(&mut self, finishing: bool, cx: &mut Cx) -> Result<(), Problem> {
        while !self.records.is_empty() {
            let due = match self.failed {
                Some((_, due_ms)) => due_ms <= cx.now_ms,
                None => finishing || self.records.len() >= self.size,
            };
            if !due {
                break;
            }
            self.deliver(cx)?;
        }
        Ok(())
    }
}

//! Giving records one by one, out of what polls bring.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::records::{OwnedRecord, Records};
use super::stream::RecordStream;
use super::{Consumer, state};
use crate::error::Result;

#[derive(Default)]
pub(super) struct Singly {
    pub(super) records: Option<Records>,
    pub(super) batch: VecDeque<OwnedRecord>,
    /// The place behind the record of `records` that was given last.
    pub(super) given: Option<state::Place>,
}

impl Consumer {
    /// Waits up to `timeout` for the next record; `None` if none came.
    ///
    /// [`Consumer::commit`] commits up to the record given last; automatic commits go by whole polls,
    /// and never by a record that was not given. What is left of a poll is dropped when its
    /// partition is sought or taken away. A convenience that costs an allocation per batch;
    /// [`Consumer::poll`] costs none per record.
    pub async fn next(&self, timeout: Duration) -> Result<Option<OwnedRecord>> {
        let mut singly = self.singly.lock().await;
        loop {
            if let Some(record) = self.take_single(&mut singly) {
                return Ok(Some(record));
            }
            singly.given = None;
            match self.poll(timeout).await? {
                Some(records) => singly.records = Some(records),
                None => return Ok(None),
            }
        }
    }

    /// Takes the next of the records that a poll has brought, if any is left of a partition that
    /// is still ours.
    pub(super) fn take_single(&self, singly: &mut Singly) -> Option<OwnedRecord> {
        let mut state = self.shared.lock();
        if !state.is_current(singly.records.as_ref()?) {
            // It was sought, or somebody else may have read on meanwhile.
            *singly = Singly::default();
            return None;
        }
        loop {
            if let Some(record) = singly.batch.pop_front() {
                let place = state::Place { offset: record.offset + 1, epoch: record.leader_epoch };
                singly.given = Some(place);
                // Asking for the next record shows that the application is alive.
                state.last_poll = Instant::now();
                return Some(record);
            }
            singly.batch = singly.records.as_mut().and_then(Records::take_batch)?;
        }
    }

    /// Returns records one by one, without end, as a [`futures_core::Stream`].
    ///
    /// ```no_run
    /// # async fn example(consumer: fleuve_client::Consumer) -> fleuve_client::Result<()> {
    /// use futures_util::StreamExt;
    ///
    /// let mut records = consumer.stream().take(100);
    /// while let Some(record) = records.next().await {
    ///     let record = record?;
    ///     println!("{}: {:?}", record.offset, record.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors are items, and the stream goes on after those that may pass. Heartbeats and commits
    /// do not depend on how it is polled, but a consumer that is not asked for anything during
    /// `max.poll.interval.ms` leaves its group until it is.
    pub fn stream(&self) -> RecordStream<'_> {
        RecordStream::new(self)
    }
}

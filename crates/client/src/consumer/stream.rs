//! Records one by one as a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use super::{Consumer, OwnedRecord};
use crate::BoxFuture;
use crate::error::Result;

/// Records without end; made by [`Consumer::stream`].
#[must_use = "a stream does nothing unless it is polled"]
pub struct RecordStream<'a> {
    consumer: &'a Consumer,
    /// Waits for the next fetched records; there is one such future per poll and none per record.
    waiting: Option<BoxFuture<'a, Result<Option<OwnedRecord>>>>,
}

/// How long one poll waits; when it is over, the next one begins.
const POLL: Duration = Duration::from_secs(3600);

impl<'a> RecordStream<'a> {
    pub(super) fn new(consumer: &'a Consumer) -> Self {
        Self { consumer, waiting: None }
    }
}

impl Stream for RecordStream<'_> {
    type Item = Result<OwnedRecord>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.waiting.is_none()
                && let Ok(mut singly) = this.consumer.singly.try_lock()
                && let Some(record) = this.consumer.take_single(&mut singly)
            {
                return Poll::Ready(Some(Ok(record)));
            }
            let consumer = this.consumer;
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(consumer.next(POLL)));
            let result = ready!(waiting.as_mut().poll(context));
            this.waiting = None;
            if let Some(item) = result.transpose() {
                return Poll::Ready(Some(item));
            }
        }
    }
}

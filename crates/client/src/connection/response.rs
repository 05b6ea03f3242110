//! The answer to come of one request.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fleuve_protocol::{Pieces, Request};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Span, field};

use super::Shared;
use crate::error::{Error, Result};

/// An answer that a broker owes; wait for it with [`Response::wait`].
#[must_use = "the answer is lost unless somebody waits for it"]
pub struct Response<R> {
    shared: Arc<Shared>,
    answer: oneshot::Receiver<Result<Pieces>>,
    version: i16,
    submitted: Instant,
    timeout: Duration,
    /// Ends with this answer, whether anybody reads it or not.
    span: Span,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Response<R> {
    pub(super) fn new(
        shared: Arc<Shared>,
        answer: oneshot::Receiver<Result<Pieces>>,
        version: i16,
    ) -> Self {
        let timeout = shared.settings.request_timeout;
        let span = tracing::debug_span!(
            "request",
            api = R::KEY.name(),
            version,
            broker = shared.broker,
            error = field::Empty
        );
        let submitted = Instant::now();
        Self { shared, answer, version, submitted, timeout, span, request: PhantomData }
    }

    /// Waits up to `timeout`, counted from the submission, instead of the connection's default.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the version the request was sent in.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Waits for the answer and decodes it.
    pub async fn wait(self) -> Result<R::Response> {
        let (version, shared, span) = (self.version, self.shared.clone(), self.span.clone());
        let frame = self.wait_frame().await;
        noted(&span, frame.and_then(|frame| shared.decode::<R>(frame, version)))
    }

    /// Waits as [`Response::wait`] does, and leaves fields of bytes in their pieces where they came
    /// in several: the field holds the first piece only, and all are in the list, in order.
    pub(crate) async fn wait_spans(self) -> Result<(R::Response, Vec<Vec<Bytes>>)> {
        let (version, shared, span) = (self.version, self.shared.clone(), self.span.clone());
        let frame = self.wait_frame().await;
        noted(&span, frame.and_then(|frame| shared.decode_spans::<R>(frame, version)))
    }

    /// Returns until when the answer has time.
    pub(crate) fn deadline(&self) -> Instant {
        self.submitted + self.timeout
    }

    /// Takes the answer if it has come, for those who wait for many and keep their own timer: one
    /// that is late at `now` is an error, as in [`Response::wait`].
    pub(crate) fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Result<R::Response>> {
        let frame = match Pin::new(&mut self.answer).poll(context) {
            Poll::Ready(Ok(answer)) => answer,
            Poll::Ready(Err(_)) => Err(self.torn_down()),
            Poll::Pending if now >= self.deadline() => Err(self.overdue()),
            Poll::Pending => return Poll::Pending,
        };
        let answer = frame.and_then(|frame| self.shared.decode::<R>(frame, self.version));
        Poll::Ready(noted(&self.span, answer))
    }

    /// Waits for the answer and returns it undecoded, with its header.
    pub(super) async fn wait_frame(mut self) -> Result<Pieces> {
        match tokio::time::timeout_at(self.deadline(), &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.torn_down()),
            Err(_) => Err(self.overdue()),
        }
    }

    /// The task always answers before it ends; it can only have been torn down with the runtime.
    fn torn_down(&self) -> Error {
        Error::Disconnected {
            broker: self.shared.broker.clone(),
            reason: "the connection was torn down".to_owned(),
            maybe_sent: true,
        }
    }

    fn overdue(&self) -> Error {
        self.shared.close();
        Error::Timeout {
            broker: self.shared.broker.clone(),
            operation: R::KEY.name(),
            after: self.timeout,
        }
    }
}

/// Writes into `span` why there is no answer.
fn noted<T>(span: &Span, answer: Result<T>) -> Result<T> {
    if let Err(error) = &answer {
        span.record("error", field::display(error));
    }
    answer
}

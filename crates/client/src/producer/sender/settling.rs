//! Booking answers: what was written, what goes out again, what is given up and why.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::records::BatchProducer;
use fleuve_types::ProducerEpoch;
use tokio::time::Instant;

use super::{Answered, Broker, IdentityState, InFlight, Sender, Sent};
use crate::error::{Error, Result};
use crate::producer::answers::{Answers, Failure, Fate, needs_refresh};
use crate::producer::batch::{Batch, Identity, Written};
use crate::producer::queue::Verdict;

impl Sender {
    pub(super) fn take_answer(&mut self, Answered { broker, since, sent, answer }: Answered) {
        let now = Instant::now();
        self.shared.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shared.counters.answered(now.duration_since(since));
        match answer {
            Ok(response) => {
                let answers = Answers::new(response);
                self.settle(sent, now, |sent| {
                    answers.of(sent.batch.outcome.partition(), sent.topic_id)
                });
            }
            Err(error) => {
                tracing::debug!(broker, %error, "produce failed");
                self.refresh.wanted = true;
                self.settle(sent, now, |_| Err(Failure::of_request(&error)));
            }
        }
    }

    /// Books the results of the batches of one request.
    pub(super) fn settle(
        &mut self,
        sent: Vec<Sent>,
        now: Instant,
        result_of: impl Fn(&Sent) -> Result<Written, Failure>,
    ) {
        let mut done: Vec<(Batch, Result<Written>)> = Vec::new();
        let mut recycled = Vec::new();
        let shared = self.shared.clone();
        let mut state = shared.accumulator.lock();
        for mut sent in sent {
            let id = sent.queue;
            let (verdict, result) = match result_of(&sent) {
                Ok(written) => (Verdict::Written, Ok(written)),
                Err(failure) => {
                    let behind = state.queue(id).is_behind_a_failure(&sent.batch);
                    self.judge(&mut sent.batch, failure, behind, now)
                }
            };
            if let (Some(transactions), Err(error)) = (&shared.transactions, &result)
                && !matches!(verdict, Verdict::Retry(_))
            {
                // Before the batch is gone, so that a commit finds one of the two.
                transactions.fail(error);
            }
            if let (Verdict::GivenUp, Some(producer)) = (&verdict, sent.batch.producer) {
                self.leave_epoch_of(producer, result.as_ref().err(), now);
            }
            if let Some(batch) = state.queue(id).settle(sent.batch, &verdict, now) {
                state.release(&batch);
                done.push((batch, result));
            }
            state.list(id);
        }
        // With nothing in flight no more memory becomes free by itself.
        let in_flight = self.brokers.values().any(|broker| !broker.in_flight.is_empty());
        let much_room = !in_flight || shared.accumulator.has_much_room(&state);
        drop(state);
        if shared.memory_waiters.load(Ordering::Relaxed) > 0 {
            match much_room {
                true => self.tell_memory(),
                false => drop(self.memory_told_at.get_or_insert(now + MEMORY_PAUSE)),
            }
        }
        for (batch, result) in done {
            shared.conclude(&batch, result);
            recycled.push(batch);
        }
        let mut state = shared.accumulator.lock();
        recycled.into_iter().for_each(|batch| state.recycle_batch(batch));
    }

    /// Wakes everybody who waits for memory.
    pub(super) fn tell_memory(&mut self) {
        self.memory_told_at = None;
        self.shared.memory.notify_waiters();
    }

    /// Decides what a failure means for a batch.
    fn judge(
        &mut self,
        batch: &mut Batch,
        failure: Failure,
        behind_a_failure: bool,
        now: Instant,
    ) -> (Verdict, Result<Written>) {
        let config = &self.shared.config;
        let Failure { error, fate } = failure;
        self.refresh.wanted |= error.code().is_some_and(needs_refresh);
        batch.maybe_written |= fate == Fate::Unknown;
        batch.last_error = Some(error.clone());
        let over = now.duration_since(batch.created) >= config.delivery_timeout;
        let may_retry = match error.code() {
            // Behind a failed batch, the leader refuses the next ones for their numbers.
            Some(ErrorCode::OutOfOrderSequenceNumber) => {
                // It would know the number of a batch that it has, whatever came of earlier attempts.
                batch.maybe_written = false;
                behind_a_failure
            }
            _ => error.is_retriable(),
        };
        if may_retry && !over && batch.attempts <= config.retries {
            return (Verdict::Retry(self.shared.client.config().retry_backoff), Err(error));
        }
        let error = if over && may_retry { self.delivery_timeout(batch) } else { error };
        (Verdict::GivenUp, Err(error))
    }

    /// Goes on under the next epoch, because a batch that was given up leaves a gap in the numbers of
    /// this one. Transactions get a new epoch when they are aborted.
    pub(super) fn leave_epoch_of(
        &mut self,
        producer: BatchProducer,
        error: Option<&Error>,
        now: Instant,
    ) {
        let IdentityState::Known(Identity { id, epoch }) = self.identity else { return };
        if (producer.id, producer.epoch) != (id, epoch) {
            // It was left before.
            return;
        }
        // A leader that knows a later epoch knows of somebody else with our id.
        let is_alone = error.and_then(Error::code) != Some(ErrorCode::InvalidProducerEpoch);
        self.identity = match epoch.0.checked_add(1).filter(|_| is_alone) {
            Some(next) => IdentityState::Known(Identity { id, epoch: ProducerEpoch(next) }),
            None => IdentityState::Needed { not_before: now },
        };
    }

    pub(super) fn delivery_timeout(&self, batch: &Batch) -> Error {
        Error::DeliveryTimeout {
            partition: batch.outcome.partition().clone(),
            after: self.shared.config.delivery_timeout,
            maybe_written: batch.maybe_written,
            last: match &batch.last_error {
                Some(error) => error.to_string(),
                None => "it was never sent, because its leader could not be reached".to_owned(),
            },
        }
    }

    pub(super) fn fail_everything(&mut self, error: &Error) {
        let mut failed = Vec::new();
        {
            let mut state = self.shared.accumulator.lock();
            for id in std::mem::take(&mut state.listed) {
                let queue = state.queue(id);
                queue.unlist();
                for batch in queue.clear() {
                    state.release(&batch);
                    failed.push(batch);
                }
            }
        }
        for batch in failed {
            self.shared.conclude(&batch, Err(error.clone()));
        }
        self.tell_memory();
    }
}

/// How long little free memory is kept from those who wait for it, because more may come.
const MEMORY_PAUSE: Duration = Duration::from_millis(5);

/// Waits until an answer has come or is overdue, and returns all that have.
pub(super) async fn answers(brokers: &mut HashMap<i32, Broker>) -> Vec<Answered> {
    let mut answered = Vec::new();
    std::future::poll_fn(|context| {
        let now = Instant::now();
        for (&id, broker) in &mut *brokers {
            while let Some(first) = broker.in_flight.front_mut()
                && let Poll::Ready(answer) = first.response.poll_answer(context, now)
                && let Some(InFlight { sent, since, .. }) = broker.in_flight.pop_front()
            {
                answered.push(Answered { broker: id, since, sent, answer });
            }
        }
        if answered.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    answered
}

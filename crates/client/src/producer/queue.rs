//! The batches of one partition: their order and their numbers.
//!
//! Rules that keep the log in the order of sending, with several batches in flight:
//!
//! - Batches are sent in order over one connection, and the leader takes them in order.
//! - After one of them fails and may succeed later, nothing is sent until everything in flight has
//!   come back; what failed is then sent again, oldest first, before anything new.
//! - A numbered batch that was certainly refused leaves no gap: what follows moves back.
//! - A numbered batch whose fate is unknown and that is given up leaves a gap that nothing can
//!   close. What follows is numbered anew under another identity.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fleuve_protocol::records::{BatchBuilder, sequence_plus};
use fleuve_types::TopicPartition;
use tokio::time::Instant;

use super::batch::{Batch, Identity, Outcome};

/// The batch that takes records.
pub(super) struct OpenBatch {
    pub(super) builder: Box<BatchBuilder>,
    pub(super) outcome: Arc<Outcome>,
    pub(super) created: Instant,
}

/// The batches of one partition.
pub(super) struct Queue {
    pub(super) partition: TopicPartition,
    pub(super) open: Option<OpenBatch>,
    /// Whether the sender has this queue on its list.
    pub(super) listed: bool,
    /// Whether the sender waits for something before it can send of this queue, and will look at
    /// it again by itself.
    pub(super) attended: bool,
    /// Whether somebody leads the partition, as far as is known.
    pub(super) has_leader: bool,
    /// Since when the leader takes no batches, although some are ready for it.
    pub(super) held_since: Option<Instant>,
    closed: VecDeque<Batch>,
    /// Failed batches that are to be sent again, by serial.
    retry: VecDeque<Batch>,
    in_flight: Vec<(u64, Arc<Outcome>)>,
    /// Something failed, and not everything sent with it has come back.
    recovering: bool,
    retry_not_before: Option<Instant>,
    next_serial: u64,
    identity: Option<Identity>,
    next_sequence: i32,
    /// The numbering has a gap; the next identity starts over.
    broken: bool,
    /// Serials of refused batches with their record counts, for those behind them in flight.
    refused: Vec<(u64, i32)>,
}

/// What became of a batch that was in flight.
pub(super) enum Verdict {
    /// It is in the log.
    Written,
    /// It may be sent again, after a pause.
    Retry(Duration),
    /// It is given up and certainly not in the log.
    Refused,
    /// It is given up, and may be in the log.
    Lost,
}

impl Queue {
    pub(super) fn new(partition: TopicPartition) -> Self {
        Self {
            partition,
            open: None,
            listed: false,
            attended: false,
            has_leader: true,
            held_since: None,
            closed: VecDeque::new(),
            retry: VecDeque::new(),
            in_flight: Vec::new(),
            recovering: false,
            retry_not_before: None,
            next_serial: 0,
            identity: None,
            next_sequence: 0,
            broken: false,
            refused: Vec::new(),
        }
    }

    /// Takes the queue off the sender's list, so that the next record makes it known again.
    pub(super) fn unlist(&mut self) {
        self.listed = false;
        self.attended = false;
        // With nothing left to be held, only new records tell whether the leader takes them again.
        self.held_since = None;
    }

    /// Closes the open batch.
    pub(super) fn close_open(&mut self) {
        if let Some(OpenBatch { builder, outcome, created }) = self.open.take() {
            self.closed.push_back(Batch::new(builder, outcome, self.next_serial, created));
            self.next_serial += 1;
        }
    }

    /// Reports whether nothing waits to be sent.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none() && self.closed.is_empty() && self.retry.is_empty()
    }

    /// Returns how many batches wait to be sent, besides the open one; nothing if there is no
    /// leader, or none that took a batch within `timeout`, where that is not zero.
    pub(super) fn load(&self, timeout: Duration) -> Option<usize> {
        let held = |since: Instant| !timeout.is_zero() && since.elapsed() > timeout;
        let available = self.has_leader && !self.held_since.is_some_and(held);
        available.then(|| self.closed.len() + self.retry.len())
    }

    /// Reports whether something failed, and not everything sent with it has come back.
    pub(super) fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// Reports whether the partition must be numbered under a new identity.
    #[cfg(test)]
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Returns the outcomes of everything that is not done.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Arc<Outcome>> {
        let waiting = self.retry.iter().chain(&self.closed).map(|batch| &batch.outcome);
        self.in_flight.iter().map(|(_, outcome)| outcome).chain(waiting)
    }

    /// Reports whether [`Queue::take`] would give a batch, or until when it would not; the open
    /// one waits for more records for `linger`.
    pub(super) fn readiness(&self, now: Instant, linger: Duration) -> Readiness {
        let mut not_before = self.retry_not_before;
        if self.retry.is_empty() && self.closed.is_empty() {
            let Some(open) = &self.open else { return Readiness::Nothing };
            not_before = not_before.max(Some(open.created + linger));
        }
        if self.recovering && !self.in_flight.is_empty() {
            return Readiness::Nothing;
        }
        match not_before {
            Some(at) if at > now => Readiness::At(at),
            _ => Readiness::Ready,
        }
    }

    /// Reports whether the open batch is all that waits.
    pub(super) fn has_only_open(&self) -> bool {
        self.retry.is_empty() && self.closed.is_empty()
    }

    /// Returns the size of the batch that [`Queue::take`] would give.
    pub(super) fn next_size(&self) -> usize {
        let closed = self.retry.front().or(self.closed.front());
        let open = self.open.as_ref().map_or(0, |open| open.builder.estimated_size());
        closed.map_or(open, Batch::size)
    }

    /// Takes the next batch to send, the open one if no other waits; `identity` is the producer's
    /// present one, if it is idempotent.
    ///
    /// The open batch is not closed before it can go out, so that it fills in the meantime.
    pub(super) fn take(
        &mut self,
        now: Instant,
        linger: Duration,
        identity: Option<Identity>,
    ) -> Option<Batch> {
        if !matches!(self.readiness(now, linger), Readiness::Ready) {
            return None;
        }
        if self.recovering {
            self.recovering = false;
            self.refused.clear();
        }
        if self.identity != identity {
            if !self.adopt(identity) {
                return None;
            }
        } else if self.broken {
            // The next identity is on its way.
            return None;
        }
        self.retry_not_before = None;
        let mut batch = match self.retry.pop_front() {
            Some(batch) => batch,
            None => {
                if self.closed.is_empty() {
                    self.close_open();
                }
                let mut batch = self.closed.pop_front()?;
                if let Some(identity) = self.identity {
                    batch.number(identity, self.next_sequence);
                    self.next_sequence = sequence_plus(self.next_sequence, batch.count);
                }
                batch
            }
        };
        batch.attempts += 1;
        self.held_since = None;
        self.in_flight.push((batch.serial, batch.outcome.clone()));
        Some(batch)
    }

    /// Books what became of `batch`; a batch that is to be sent again stays here, another one is
    /// given back.
    pub(super) fn settle(
        &mut self,
        mut batch: Batch,
        verdict: &Verdict,
        now: Instant,
    ) -> Option<Batch> {
        self.in_flight.retain(|(serial, _)| *serial != batch.serial);
        match verdict {
            Verdict::Written => Some(batch),
            Verdict::Retry(pause) => {
                for (serial, count) in &self.refused {
                    if batch.serial > *serial {
                        batch.number_back(*count);
                    }
                }
                let at = self.retry.partition_point(|other| other.serial < batch.serial);
                self.retry.insert(at, batch);
                self.recovering = true;
                self.retry_not_before = Some(now + *pause);
                None
            }
            Verdict::Refused => {
                self.give_up(&batch, false);
                Some(batch)
            }
            Verdict::Lost => {
                self.give_up(&batch, true);
                Some(batch)
            }
        }
    }

    /// Takes out batches that have waited until `now` for longer than `timeout`.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) -> Vec<Batch> {
        let is_over = |batch: &Batch| now.duration_since(batch.created) >= timeout;
        let mut expired = Vec::new();
        // What was numbered may be in the log even if its last attempt said otherwise: an earlier
        // one may have been written without an answer.
        while self.in_flight.is_empty() && self.retry.front().is_some_and(is_over) {
            let batch = self.retry.pop_front().expect("it has a front");
            self.give_up(&batch, batch.maybe_written);
            expired.push(batch);
        }
        if self.open.as_ref().is_some_and(|open| now.duration_since(open.created) >= timeout) {
            self.close_open();
        }
        while self.closed.front().is_some_and(is_over) {
            expired.extend(self.closed.pop_front());
        }
        expired
    }

    /// Takes out everything that is not in flight.
    pub(super) fn clear(&mut self) -> Vec<Batch> {
        self.close_open();
        self.broken |= !self.retry.is_empty();
        self.retry.drain(..).chain(self.closed.drain(..)).collect()
    }

    /// Returns when the oldest waiting batch expires.
    pub(super) fn expires_at(&self, timeout: Duration) -> Option<Instant> {
        // What is to be sent again cannot expire before everything in flight has come back.
        let retry = self.retry.front().filter(|_| self.in_flight.is_empty());
        let open = self.open.as_ref().map(|open| open.created);
        let oldest = retry.into_iter().chain(self.closed.front()).map(|batch| batch.created);
        oldest.chain(open).min().map(|created| created + timeout)
    }

    /// Begins numbering under `identity`, if nothing numbered otherwise could be mixed up with it.
    fn adopt(&mut self, identity: Option<Identity>) -> bool {
        if !self.in_flight.is_empty() {
            return false;
        }
        if !self.retry.is_empty() && !self.broken {
            // These may be in the log already. Only under their old numbers can the leader tell.
            return true;
        }
        self.identity = identity;
        self.broken = false;
        self.next_sequence = 0;
        if let Some(identity) = identity {
            for batch in &mut self.retry {
                batch.number(identity, self.next_sequence);
                self.next_sequence = sequence_plus(self.next_sequence, batch.count);
            }
        }
        true
    }

    fn give_up(&mut self, batch: &Batch, maybe_written: bool) {
        if batch.producer.is_none() {
            return;
        }
        if maybe_written {
            self.broken = true;
            return;
        }
        for later in &mut self.retry {
            if later.serial > batch.serial {
                later.number_back(batch.count);
            }
        }
        if !self.in_flight.is_empty() {
            // Those behind it will be refused for the gap, and come back to be numbered anew.
            self.refused.push((batch.serial, batch.count));
            self.recovering = true;
        }
        self.next_sequence = {
            let rest = (i32::MAX - batch.count).wrapping_add(1) & i32::MAX;
            sequence_plus(self.next_sequence, rest)
        };
    }
}

/// Whether a queue has a batch to send.
pub(super) enum Readiness {
    /// It has.
    Ready,
    /// It will have, no earlier than this.
    At(Instant),
    /// Not before something else happens.
    Nothing,
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::{BatchOptions, NewRecord};
    use fleuve_types::{ProducerEpoch, ProducerId};

    use super::*;

    const FIRST: Option<Identity> = Some(Identity { id: ProducerId(1), epoch: ProducerEpoch(0) });
    const SECOND: Option<Identity> = Some(Identity { id: ProducerId(2), epoch: ProducerEpoch(0) });

    fn queue(batches: usize) -> Queue {
        let partition = TopicPartition::new("t", 0);
        let mut queue = Queue::new(partition.clone());
        for _ in 0..batches {
            let mut builder = Box::new(BatchBuilder::new(BatchOptions::default()));
            for _ in 0..10 {
                builder.append(&NewRecord::default()).expect("room");
            }
            let outcome = Outcome::new(partition.clone());
            queue.open = Some(OpenBatch { builder, outcome, created: Instant::now() });
            queue.close_open();
        }
        queue
    }

    fn take_all(queue: &mut Queue, identity: Option<Identity>) -> Vec<Batch> {
        let now = Instant::now();
        std::iter::from_fn(|| queue.take(now, Duration::ZERO, identity)).collect()
    }

    fn numbers(batches: &[Batch]) -> Vec<(i64, u64, i32)> {
        let number = |batch: &Batch| {
            let producer = batch.producer.expect("numbered");
            (producer.id.0, batch.serial, producer.base_sequence)
        };
        batches.iter().map(number).collect()
    }

    #[test]
    fn failed_batches_go_out_again_in_order_once_all_have_come_back() {
        let mut queue = queue(4);
        let now = Instant::now();
        let mut sent = take_all(&mut queue, FIRST);
        assert_eq!(numbers(&sent), [(1, 0, 0), (1, 1, 10), (1, 2, 20), (1, 3, 30)]);
        let (fourth, third) = (sent.pop().expect("4"), sent.pop().expect("3"));
        let (second, first) = (sent.pop().expect("2"), sent.pop().expect("1"));
        queue.settle(first, &Verdict::Written, now);
        for batch in [third, second] {
            queue.settle(batch, &Verdict::Retry(Duration::ZERO), now);
            assert!(
                queue.take(now, Duration::ZERO, FIRST).is_none(),
                "the fourth is still in flight"
            );
        }
        queue.settle(fourth, &Verdict::Retry(Duration::ZERO), now);
        assert_eq!(numbers(&take_all(&mut queue, FIRST)), [(1, 1, 10), (1, 2, 20), (1, 3, 30)]);
    }

    #[test]
    fn a_refused_batch_leaves_no_gap() {
        let mut queue = queue(4);
        let now = Instant::now();
        let sent = take_all(&mut queue, FIRST);
        let verdicts = [Verdict::Written, Verdict::Refused]
            .into_iter()
            .chain(std::iter::repeat_with(|| Verdict::Retry(Duration::ZERO)));
        for (batch, verdict) in sent.into_iter().zip(verdicts) {
            queue.settle(batch, &verdict, now);
        }
        assert_eq!(numbers(&take_all(&mut queue, FIRST)), [(1, 2, 10), (1, 3, 20)]);
        assert_eq!(queue.next_sequence, 30);
    }

    #[test]
    fn a_lost_batch_makes_the_rest_start_over_under_a_new_identity() {
        let mut queue = queue(3);
        let now = Instant::now();
        let mut sent = take_all(&mut queue, FIRST).into_iter();
        queue.settle(sent.next().expect("1"), &Verdict::Lost, now);
        assert!(queue.is_broken());
        for batch in sent {
            queue.settle(batch, &Verdict::Retry(Duration::ZERO), now);
        }
        assert_eq!(numbers(&take_all(&mut queue, SECOND)), [(2, 1, 0), (2, 2, 10)]);
        assert!(!queue.is_broken());
    }

    #[test]
    fn a_new_identity_waits_for_batches_that_may_be_in_the_log_under_the_old_one() {
        let mut queue = queue(2);
        let now = Instant::now();
        let first = queue.take(now, Duration::ZERO, FIRST).expect("1");
        assert!(
            queue.take(now, Duration::ZERO, SECOND).is_none(),
            "one is in flight under the old identity"
        );
        queue.settle(first, &Verdict::Retry(Duration::ZERO), now);
        let again = queue.take(now, Duration::ZERO, SECOND).expect("1 again");
        assert_eq!(again.producer.expect("numbered").id.0, 1);
        queue.settle(again, &Verdict::Written, now);
        assert_eq!(numbers(&take_all(&mut queue, SECOND)), [(2, 1, 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_whose_batches_are_held_for_too_long_takes_no_part_until_they_are_gone() {
        let mut queue = queue(2);
        let (short, long) = (Duration::from_millis(10), Duration::from_millis(100));
        queue.held_since = Some(Instant::now());
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(queue.load(short), None);
        for timeout in [long, Duration::ZERO] {
            assert_eq!(queue.load(timeout), Some(2), "it waits that long, or for ever");
        }
        let sent = queue.take(Instant::now(), Duration::ZERO, FIRST).expect("the first");
        assert_eq!(queue.load(short), Some(1), "the leader takes batches again");
        queue.settle(sent, &Verdict::Written, Instant::now());
        queue.held_since = Some(Instant::now());
        tokio::time::advance(Duration::from_millis(50)).await;
        queue.clear();
        queue.unlist();
        assert_eq!(queue.load(short), Some(0), "and gets another chance when they are given up");
        queue.has_leader = false;
        assert_eq!(queue.load(long), None);
    }

    #[test]
    fn waiting_batches_expire_and_a_pause_is_kept() {
        let mut queue = queue(2);
        let now = Instant::now();
        let mut first = queue.take(now, Duration::ZERO, FIRST).expect("1");
        first.maybe_written = true;
        queue.settle(first, &Verdict::Retry(Duration::from_secs(1)), now);
        assert!(queue.take(now, Duration::ZERO, FIRST).is_none(), "the pause is not over");
        let later = now + Duration::from_secs(120);
        assert_eq!(queue.expire(later, Duration::from_secs(120)).len(), 2);
        assert!(queue.is_broken() && queue.is_idle());
    }
}

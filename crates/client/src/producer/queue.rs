//! The batches of one partition: their order and their numbers.
//!
//! Rules that keep the log in the order of sending, with several batches in flight:
//!
//! - Batches are sent in order over one connection, and the leader takes them in order.
//! - After one of them fails and may succeed later, nothing is sent until everything in flight has
//!   come back; what failed is then sent again, oldest first, before anything new.
//! - A number is never given to a second batch: a leader that has seen it would call that one a
//!   duplicate, and it would be acknowledged without being written. A numbered batch that is given
//!   up therefore leaves a gap, and what follows is numbered anew under another identity.
//! - What may be in the log goes out under its old number until the leader has told.

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
    /// The serial of the newest batch that was written, or given up and may be.
    last_written: Option<u64>,
}

/// What became of a batch that was in flight.
pub(super) enum Verdict {
    /// It is in the log.
    Written,
    /// It may be sent again, after a pause.
    Retry(Duration),
    /// It is given up.
    GivenUp,
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
            last_written: None,
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

    /// Reports whether `batch` can go out again although the leader refused its number: one before
    /// it failed, and none behind it was written.
    pub(super) fn is_behind_a_failure(&self, batch: &Batch) -> bool {
        (self.recovering || self.broken) && !self.is_overtaken(batch)
    }

    /// Reports whether a batch behind this one was written, or may be, which happens at a leader that
    /// knows nothing of the producer.
    fn is_overtaken(&self, batch: &Batch) -> bool {
        self.last_written.is_some_and(|serial| serial > batch.serial)
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
        self.recovering = false;
        if !self.keeps_numbers(identity) {
            if self.identity != identity {
                if !self.adopt(identity) {
                    return None;
                }
            } else if self.broken {
                // The next identity is on its way.
                return None;
            }
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
        batch: Batch,
        verdict: &Verdict,
        now: Instant,
    ) -> Option<Batch> {
        self.in_flight.retain(|(serial, _)| *serial != batch.serial);
        match verdict {
            Verdict::Written => {
                self.last_written = self.last_written.max(Some(batch.serial));
                Some(batch)
            }
            Verdict::Retry(pause) => {
                let at = self.retry.partition_point(|other| other.serial < batch.serial);
                self.retry.insert(at, batch);
                self.recovering = true;
                self.retry_not_before = Some(now + *pause);
                None
            }
            Verdict::GivenUp => {
                self.broken |= batch.producer.is_some();
                if batch.maybe_written {
                    self.last_written = self.last_written.max(Some(batch.serial));
                }
                Some(batch)
            }
        }
    }

    /// Takes out batches that have waited until `now` for longer than `timeout`.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) -> Vec<Batch> {
        let is_over = |batch: &Batch| now.duration_since(batch.created) >= timeout;
        let mut expired = Vec::new();
        while self.in_flight.is_empty() && self.retry.front().is_some_and(is_over) {
            let batch = self.retry.pop_front().expect("it has a front");
            self.broken |= batch.producer.is_some();
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

    /// Reports whether the next batch goes out again under the number it has.
    fn keeps_numbers(&self, identity: Option<Identity>) -> bool {
        if !self.broken {
            return self.identity == identity || !self.retry.is_empty();
        }
        // A batch that may be in the log would stand there twice under another number, and one that
        // was overtaken would stand behind its successor. With a gap before it the leader refuses
        // its old number if it does not have it.
        self.retry.iter().any(|batch| batch.maybe_written || self.is_overtaken(batch))
    }

    /// Begins numbering under `identity`, once everything numbered otherwise has come back.
    fn adopt(&mut self, identity: Option<Identity>) -> bool {
        if !self.in_flight.is_empty() {
            return false;
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
    fn a_batch_that_is_given_up_makes_the_rest_start_over_under_a_new_identity() {
        let mut queue = queue(4);
        let now = Instant::now();
        let mut sent = take_all(&mut queue, FIRST).into_iter();
        queue.settle(sent.next().expect("1"), &Verdict::Written, now);
        queue.settle(sent.next().expect("2"), &Verdict::GivenUp, now);
        queue.settle(sent.next().expect("3"), &Verdict::Retry(Duration::ZERO), now);
        assert!(take_all(&mut queue, SECOND).is_empty(), "the fourth is in flight");
        queue.settle(sent.next().expect("4"), &Verdict::Retry(Duration::ZERO), now);
        assert!(take_all(&mut queue, FIRST).is_empty(), "no number is left under the old one");
        assert_eq!(numbers(&take_all(&mut queue, SECOND)), [(2, 2, 0), (2, 3, 10)]);
        assert!(!queue.broken);
    }

    #[test]
    fn behind_a_gap_the_leader_is_asked_first_for_what_may_be_in_the_log() {
        let mut queue = queue(5);
        let now = Instant::now();
        let mut sent = take_all(&mut queue, FIRST).into_iter();
        queue.settle(sent.next().expect("1"), &Verdict::GivenUp, now);
        for mut batch in sent {
            batch.maybe_written = batch.serial == 2;
            queue.settle(batch, &Verdict::Retry(Duration::ZERO), now);
        }
        let asked = take_all(&mut queue, SECOND);
        assert_eq!(numbers(&asked), [(1, 1, 10), (1, 2, 20)], "in their order");
        for mut batch in asked {
            assert!(queue.is_behind_a_failure(&batch));
            batch.maybe_written = false;
            queue.settle(batch, &Verdict::Retry(Duration::ZERO), now);
        }
        let numbers = numbers(&take_all(&mut queue, SECOND));
        assert_eq!(numbers, [(2, 1, 0), (2, 2, 10), (2, 3, 20), (2, 4, 30)]);
    }

    #[test]
    fn what_was_overtaken_is_not_written_behind_its_successor() {
        let mut queue = queue(3);
        let now = Instant::now();
        let mut sent = take_all(&mut queue, FIRST).into_iter();
        let verdicts = [Verdict::Retry(Duration::ZERO), Verdict::GivenUp, Verdict::Written];
        for verdict in verdicts {
            queue.settle(sent.next().expect("one of three"), &verdict, now);
        }
        let again = take_all(&mut queue, SECOND).pop().expect("the first");
        assert_eq!(again.producer.expect("numbered").id.0, 1);
        assert!(!queue.is_behind_a_failure(&again), "the leader's refusal is final");
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
        assert!(queue.broken && queue.is_idle());
    }
}

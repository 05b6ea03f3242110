//! Markers: from the decision in the log to the end of the transaction in every partition.
//!
//! ```text
//! decision appended ─▶ WriteMarkers ─▶ each partition reports ─▶ completion appended
//!                          ▲                 │ could not be written
//!                          └── after a pause ┘
//! ```
//!
//! Only when every partition has its marker, durably, is the completion stored. Until then the
//! decision is what a restart finds, and all markers are written again, the same ones.

use std::collections::BTreeSet;

use fleuve_protocol::Str;
use fleuve_types::TopicPartition;

use super::coordinator::{Progress, TransactionCoordinator};
use super::metadata::{Transaction, Transition};
use super::state::Decision;
use super::step::{Effect, MarkerKey, MarkerOutcome, Markers, Step, Then};
use crate::error::AppendError;
use crate::step::Now;

/// How long to wait before markers and completions that could not be written are tried again.
const RETRY_BACKOFF_MS: i64 = 100;

/// Markers under way.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Partitions that have not reported success.
    pub(crate) awaited: BTreeSet<TopicPartition>,
    /// Those of them that are to be tried again.
    failed: BTreeSet<TopicPartition>,
    /// Whether another try is scheduled.
    is_retry_due: bool,
    /// Whether the completion is being stored.
    is_completing: bool,
    /// Whether a later coordinator has taken over.
    is_abandoned: bool,
}

impl TransactionCoordinator {
    /// The driver has tried to write markers, and this is what came of it.
    ///
    /// Reports may come in any order and number, and once for a partition is enough; those about
    /// another decision than the one under way are too late and count for nothing.
    pub fn handle_markers(
        &mut self,
        now: Now,
        key: &MarkerKey,
        outcomes: &[(TopicPartition, MarkerOutcome)],
    ) -> Step {
        let mut step = Step::default();
        let id = &key.transactional_id;
        let is_current = self
            .decided(id)
            .is_some_and(|(known, decision)| key == &self.marker_key(id, known, decision));
        let progress = self.progress.get_mut(id);
        let Some(delivery) = progress.and_then(|progress| progress.delivery.as_mut()) else {
            return step;
        };
        if !is_current || delivery.is_abandoned || delivery.awaited.is_empty() {
            return step;
        }
        for (partition, outcome) in outcomes {
            match outcome {
                // Kafka leaves a transaction undecided for good when its producer is fenced in a
                // partition. But there is nothing left to do there, and the others may go on.
                MarkerOutcome::Written
                | MarkerOutcome::PartitionGone
                | MarkerOutcome::ProducerFenced => {
                    delivery.awaited.remove(partition);
                    delivery.failed.remove(partition);
                }
                MarkerOutcome::Unavailable => {
                    if delivery.awaited.contains(partition) {
                        delivery.failed.insert(partition.clone());
                    }
                }
                MarkerOutcome::CoordinatorFenced => delivery.is_abandoned = true,
            }
        }
        if delivery.is_abandoned {
            return step;
        }
        if delivery.awaited.is_empty() {
            self.complete(now, id, &mut step);
        } else if !delivery.failed.is_empty() {
            self.schedule_retry(now, id);
        }
        step
    }

    /// A decision is in the log: its markers are due.
    pub(crate) fn begin_delivery(&mut self, now: Now, id: &Str, step: &mut Step) {
        let Some((known, decision)) = self.decided(id) else { return };
        let awaited = known.partitions.clone();
        let markers = self.markers(id, known, decision, &awaited);
        let is_empty = awaited.is_empty();
        let progress = self.progress.entry(id.clone()).or_default();
        progress.pending = Some(decision.completed());
        progress.delivery = Some(Delivery {
            awaited,
            failed: BTreeSet::new(),
            is_retry_due: false,
            is_completing: false,
            is_abandoned: false,
        });
        let after = progress.stored_end;
        if is_empty {
            self.complete(now, id, step);
        } else {
            step.effects.push(Effect::WriteMarkers { markers, after });
        }
    }

    /// Tries again what could not be written.
    pub(crate) fn retry_delivery(&mut self, now: Now, id: &Str, step: &mut Step) {
        let Some(Progress { delivery: Some(delivery), stored_end, .. }) = self.progress.get_mut(id)
        else {
            return;
        };
        delivery.is_retry_due = false;
        if delivery.is_completing {
            return;
        }
        if delivery.awaited.is_empty() {
            return self.complete(now, id, step);
        }
        let failed = std::mem::take(&mut delivery.failed);
        let after = *stored_end;
        if delivery.is_abandoned || failed.is_empty() {
            return;
        }
        if let Some((known, decision)) = self.decided(id) {
            let markers = self.markers(id, known, decision, &failed);
            step.effects.push(Effect::WriteMarkers { markers, after });
        }
    }

    /// The completion could not be stored. All markers are written, so nothing but that is left.
    pub(crate) fn completion_failed(&mut self, now: Now, id: &Str, error: AppendError) {
        if let Some(Progress { delivery: Some(delivery), .. }) = self.progress.get_mut(id) {
            delivery.is_completing = false;
        }
        match error {
            // The shard is about to be unloaded; who loads it next will take this up.
            AppendError::NotLeader
            | AppendError::ProducerFenced
            | AppendError::NotInTransaction => {}
            AppendError::Unavailable | AppendError::TooLarge => self.schedule_retry(now, id),
        }
    }

    /// Partitions of a prepared transaction that have no marker yet.
    pub(crate) fn awaited(&self, id: &str) -> Option<&BTreeSet<TopicPartition>> {
        Some(&self.progress.get(id)?.delivery.as_ref()?.awaited)
    }

    /// Every partition has its marker.
    fn complete(&mut self, now: Now, id: &Str, step: &mut Step) {
        let Some((known, decision)) = self.decided(id) else { return };
        let to = known.completed(decision, now.wall);
        let transition = Transition { to, last_epoch: self.last_epoch(id) };
        if let Some(Progress { delivery: Some(delivery), .. }) = self.progress.get_mut(id) {
            delivery.is_completing = true;
        }
        self.write(id, transition, Then::Complete, step);
    }

    fn schedule_retry(&mut self, now: Now, id: &Str) {
        let progress = self.progress.get_mut(id);
        if let Some(delivery) = progress.and_then(|progress| progress.delivery.as_mut())
            && !delivery.is_retry_due
        {
            delivery.is_retry_due = true;
            let at_ms = now.monotonic_ms.saturating_add(RETRY_BACKOFF_MS);
            self.retries.insert((at_ms, id.detach()));
        }
    }

    fn decided(&self, id: &str) -> Option<(&Transaction, Decision)> {
        let known = self.ledger.get(id)?;
        Some((known, known.state.decision()?))
    }

    fn markers(
        &self,
        id: &Str,
        known: &Transaction,
        decision: Decision,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Markers {
        Markers {
            key: self.marker_key(id, known, decision),
            version: known.client_version,
            partitions: partitions.iter().cloned().collect(),
        }
    }

    fn marker_key(&self, id: &Str, known: &Transaction, decision: Decision) -> MarkerKey {
        MarkerKey {
            transactional_id: id.clone(),
            producer: known.producer,
            coordinator_epoch: self.coordinator_epoch,
            decision,
            rests_on: self.stored_end(id),
        }
    }
}

//! Looking over the queues: which batches go out now, to whom, and when to look again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleuve_types::{TopicPartition, Uuid};
use tokio::time::Instant;

use super::{IdentityState, Sender, Sent, earliest};
use crate::connection::Connection;
use crate::error::Error;
use crate::producer::accumulator::QueueId;
use crate::producer::batch::{Batch, Identity};
use crate::producer::queue::Readiness;

/// What one look over the queues found.
#[derive(Default)]
pub(super) struct Harvest {
    /// Requests by broker.
    pub(super) requests: Vec<(i32, Vec<Sent>)>,
    /// When to look again at the latest.
    pub(super) look_again: Option<Instant>,
    /// Brokers that are needed and not connected.
    pub(super) connect: HashSet<i32>,
    /// Whether a partition has no leader.
    pub(super) leaderless: bool,
    /// Partitions that the transaction's coordinator has to know of first.
    pub(super) announce: Vec<TopicPartition>,
    /// Batches that have waited too long, and what is said of each.
    pub(super) expired: Vec<(Batch, Error)>,
}

impl Sender {
    /// Looks over the queues once and takes at most one batch of each.
    pub(super) fn harvest(&mut self, now: Instant) -> Harvest {
        let shared = self.shared.clone();
        let config = &shared.config;
        let transactions = shared.transactions.as_ref();
        let mut identity = self.identity();
        let hurry = shared.memory_waiters.load(Ordering::Relaxed) > 0;
        let cluster = shared.client.cluster();
        let mut harvest = Harvest::default();
        // The request being filled, by broker: its place in `requests` and its bytes.
        let mut filling: HashMap<i32, (usize, usize)> = HashMap::new();
        // Leaders to which something goes because its linger is over, and batches that still wait for theirs.
        let mut over: HashSet<i32> = HashSet::new();
        let mut lingering: Vec<(QueueId, Instant)> = Vec::new();
        let mut state = shared.accumulator.lock();
        let linger = if hurry || state.closed { Duration::ZERO } else { config.linger };
        for _ in 0..state.listed.len() {
            let Some(id) = state.listed.pop_front() else { break };
            let queue = state.queue(id);
            let expired = queue.expire(now, config.delivery_timeout);
            let expires_at = queue.expires_at(config.delivery_timeout);
            harvest.look_again = earliest(harvest.look_again, expires_at);
            for batch in expired {
                if let Some(producer) = batch.producer {
                    self.leave_epoch_of(producer, None, now);
                    identity = self.identity();
                    if identity.is_none() {
                        // Another one is asked for before the queues are looked at.
                        harvest.look_again = Some(now);
                    }
                }
                let error = self.delivery_timeout(&batch);
                if let Some(transactions) = transactions {
                    // Under the lock by which a commit learns what is not done yet: it finds the
                    // batch or the failure.
                    transactions.fail(&error);
                }
                state.release(&batch);
                harvest.expired.push((batch, error));
            }
            let queue = state.queue(id);
            if queue.is_idle() {
                queue.unlist();
                continue;
            }
            // Taking from the front and putting back gives every queue its turn.
            state.listed.push_back(id);
            let queue = state.queue(id);
            let readiness = queue.readiness(now, linger);
            // What fills the open batch before its time concerns nobody but the sender's timer.
            queue.attended = !(queue.has_only_open() && matches!(readiness, Readiness::At(_)));
            match readiness {
                Readiness::Ready => {}
                Readiness::At(at) if queue.has_only_open() => {
                    lingering.push((id, at));
                    continue;
                }
                Readiness::At(at) => {
                    harvest.look_again = earliest(harvest.look_again, Some(at));
                    continue;
                }
                Readiness::Nothing => continue,
            }
            let Some(identity) = identity else { continue };
            let partition = &queue.partition;
            if transactions.is_some_and(|transactions| !transactions.may_send(partition)) {
                harvest.announce.push(partition.clone());
                continue;
            }
            let Some((leader, _)) = cluster.leader(&partition.topic, partition.partition) else {
                harvest.leaderless = true;
                continue;
            };
            let broker = self.brokers.entry(leader).or_default();
            // Until it is taken, which is the rule.
            queue.held_since.get_or_insert(now);
            if broker.connection.as_ref().is_none_or(Connection::is_closed) {
                broker.connection = None;
                match broker.not_before {
                    Some(at) if at > now => {
                        harvest.look_again = earliest(harvest.look_again, Some(at));
                    }
                    _ => drop(harvest.connect.insert(leader)),
                }
                continue;
            }
            let size = queue.next_size();
            let open_request = filling
                .get(&leader)
                .filter(|(_, bytes)| bytes + size <= config.max_request_size)
                .map(|(slot, _)| *slot);
            let in_flight = broker.in_flight.len() + broker.planned;
            if open_request.is_none() && in_flight >= config.max_in_flight {
                continue;
            }
            let topic_id = cluster.topic(&queue.partition.topic).map_or(Uuid::ZERO, |t| t.id);
            let lingered = queue.has_only_open();
            let Some(batch) = queue.take(now, linger, identity) else { continue };
            if lingered {
                over.insert(leader);
            }
            queue.attended = false;
            let slot = open_request.unwrap_or_else(|| {
                broker.planned += 1;
                filling.insert(leader, (harvest.requests.len(), 0));
                harvest.requests.push((leader, Vec::new()));
                harvest.requests.len() - 1
            });
            if let Some((_, bytes)) = filling.get_mut(&leader) {
                *bytes += size;
            }
            harvest.requests[slot].1.push(Sent { queue: id, topic_id, batch });
        }
        for (id, at) in lingering {
            let queue = state.queue(id);
            let partition = queue.partition.clone();
            let leader = cluster.leader(&partition.topic, partition.partition);
            let leader = leader.map(|(leader, _)| leader).filter(|leader| over.contains(leader));
            let topic_id = cluster.topic(&partition.topic).map_or(Uuid::ZERO, |t| t.id);
            // As in Kafka's producer: a request that goes out anyway takes along what else there is
            // for the broker, or each partition would have requests of its own for ever.
            let company = leader.and_then(|leader| {
                let (slot, bytes) = filling.get_mut(&leader)?;
                let size = queue.next_size();
                let may = transactions.is_none_or(|transactions| transactions.may_send(&partition));
                if !may || *bytes + size > config.max_request_size {
                    return None;
                }
                let batch = queue.take(now, Duration::ZERO, identity?)?;
                *bytes += size;
                Some((*slot, batch))
            });
            match company {
                Some((slot, batch)) => {
                    harvest.requests[slot].1.push(Sent { queue: id, topic_id, batch });
                }
                None => harvest.look_again = earliest(harvest.look_again, Some(at)),
            }
        }
        state.sender_looks_at = harvest.look_again;
        state.sender_is_ready = identity.is_some();
        harvest
    }

    /// Returns what batches are numbered under, if at all, once that is known.
    fn identity(&self) -> Option<Option<Identity>> {
        if let Some(transactions) = &self.shared.transactions {
            return transactions.identity().map(Some);
        }
        match self.identity {
            IdentityState::NotNeeded => Some(None),
            IdentityState::Known(identity) => Some(Some(identity)),
            IdentityState::Needed { .. } | IdentityState::Asked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProducerConfig;
    use crate::producer::tests::in_transaction;
    use crate::producer::{Appended, Record};

    #[tokio::test(start_paused = true)]
    async fn an_expired_batch_spoils_its_transaction_before_it_is_out_of_the_queue() {
        let producer = in_transaction(ProducerConfig::default()).await;
        let shared = producer.handle.shared.clone();
        let appended = shared.accumulator.append(&Record::new("t"), 0).expect("a small one");
        assert!(matches!(appended, Appended::Done { .. }));
        let later = Instant::now() + 2 * shared.config.delivery_timeout;
        // A commit may come between this and whatever is done about it.
        let harvest = Sender::new(shared.clone()).harvest(later);
        assert_eq!(harvest.expired.len(), 1);
        let transactions = shared.transactions.as_ref().expect("with an id");
        let error = transactions.check_open().expect_err("a record is missing");
        assert_eq!(error.advice(), crate::Advice::Abort);
    }
}

//! What the log holds of one transactional id, and the next record that each event leads to.
//!
//! Everything here is a pure function from what is stored to what shall be stored. Whether the
//! event is allowed at all is decided by the modules named after the requests.

use std::collections::BTreeSet;

use fleuve_types::{ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

use super::state::{Decision, State, TransactionVersion};

/// The epoch of a producer that has none.
pub(crate) const NO_EPOCH: ProducerEpoch = ProducerEpoch(-1);

/// The time at which no transaction has begun.
pub(crate) const NEVER: TimestampMs = TimestampMs(-1);

/// The last epoch that a client is ever given. One more is kept for shutting it out.
pub(crate) const LAST_CLIENT_EPOCH: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

/// A timeout that never ends.
const NO_TIMEOUT_MS: i32 = i32::MAX;

/// A producer's identity: its id, and which incarnation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// The id.
    pub id: ProducerId,
    /// The incarnation.
    pub epoch: ProducerEpoch,
}

/// State of one transactional id, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The producer that may use the id.
    pub producer: Producer,
    /// Producer id before the last change.
    pub previous_producer_id: ProducerId,
    /// Producer id that takes over when the transaction is complete, or -1.
    pub next_producer_id: ProducerId,
    /// How long a transaction may stay open.
    pub timeout_ms: i32,
    /// What the id is doing.
    pub state: State,
    /// Partitions of the transaction; in a prepared one, those that get markers.
    pub partitions: BTreeSet<TopicPartition>,
    /// When the transaction began, or -1.
    pub start_timestamp: TimestampMs,
    /// When this was stored.
    pub last_update_timestamp: TimestampMs,
    /// The protocol of the client that made the last change.
    pub client_version: TransactionVersion,
}

/// A change to be stored, with the part of it that the log has no room for.
#[derive(Clone, Debug)]
pub(crate) struct Transition {
    pub(crate) to: Transaction,
    /// The epoch before the last raise, by which a repeated request is recognised.
    pub(crate) last_epoch: ProducerEpoch,
}

impl Producer {
    /// Whether the epochs of the id are used up.
    pub(crate) fn is_exhausted(self) -> bool {
        self.epoch >= LAST_CLIENT_EPOCH
    }

    /// The next incarnation; the highest epoch stays, so that a broken state can be left.
    pub(crate) fn raised(self) -> Self {
        Self { epoch: ProducerEpoch(self.epoch.0.saturating_add(1)), ..self }
    }
}

impl Transaction {
    /// A transactional id that nobody has used yet: the first incarnation of `producer_id`.
    pub(crate) fn first(producer_id: ProducerId, timeout_ms: i32, now: TimestampMs) -> Self {
        Self {
            producer: Producer { id: producer_id, epoch: ProducerEpoch(0) },
            previous_producer_id: producer_id,
            next_producer_id: ProducerId::NONE,
            timeout_ms,
            state: State::Empty,
            partitions: BTreeSet::new(),
            start_timestamp: NEVER,
            last_update_timestamp: now,
            client_version: TransactionVersion::V0,
        }
    }

    /// A producer took over the id, or goes on after an error.
    pub(crate) fn initialised(
        &self,
        producer: Producer,
        timeout_ms: i32,
        now: TimestampMs,
    ) -> Self {
        Self {
            producer,
            timeout_ms,
            state: State::Empty,
            partitions: BTreeSet::new(),
            start_timestamp: NEVER,
            ..self.follower(now)
        }
    }

    /// Partitions were added, which begins a transaction if none is open.
    pub(crate) fn extended(
        &self,
        partitions: &[TopicPartition],
        client_version: TransactionVersion,
        now: TimestampMs,
    ) -> Self {
        let is_open = self.state == State::Ongoing;
        Self {
            state: State::Ongoing,
            partitions: self.partitions.iter().chain(partitions).cloned().collect(),
            start_timestamp: if is_open { self.start_timestamp } else { now },
            client_version,
            ..self.follower(now)
        }
    }

    /// The transaction's end was decided by a client, or by us in the protocol of the cluster.
    ///
    /// `next_producer_id` takes over at the end if the epochs of this one are used up.
    pub(crate) fn decided(
        &self,
        decision: Decision,
        client_version: TransactionVersion,
        next_producer_id: ProducerId,
        now: TimestampMs,
    ) -> Self {
        Self {
            producer: match client_version.bumps_epoch() {
                true => self.producer.raised(),
                false => self.producer,
            },
            next_producer_id,
            state: decision.prepared(),
            // Kafka's version 2 lets a client abort what never began, if it is not sure.
            start_timestamp: match self.state {
                State::Ongoing => self.start_timestamp,
                _ => now,
            },
            client_version,
            ..self.follower(now)
        }
    }

    /// Every partition has its marker.
    pub(crate) fn completed(&self, decision: Decision, now: TimestampMs) -> Self {
        let takes_over =
            self.client_version.bumps_epoch() && self.next_producer_id != ProducerId::NONE;
        Self {
            producer: match takes_over {
                true => Producer { id: self.next_producer_id, epoch: ProducerEpoch(0) },
                false => self.producer,
            },
            next_producer_id: ProducerId::NONE,
            state: decision.completed(),
            partitions: BTreeSet::new(),
            ..self.follower(now)
        }
    }

    /// What is left of it in the records of a cluster of the given version.
    pub(crate) fn stored_in(self, cluster: TransactionVersion) -> Self {
        match cluster {
            TransactionVersion::V0 => Self {
                previous_producer_id: ProducerId::NONE,
                next_producer_id: ProducerId::NONE,
                client_version: TransactionVersion::V0,
                ..self
            },
            TransactionVersion::V1 | TransactionVersion::V2 => self,
        }
    }

    /// Whether an open transaction ends by itself some time.
    pub(crate) fn has_timeout(&self) -> bool {
        self.timeout_ms != NO_TIMEOUT_MS
    }

    /// What every change has in common.
    fn follower(&self, now: TimestampMs) -> Self {
        Self { previous_producer_id: self.producer.id, last_update_timestamp: now, ..self.clone() }
    }
}

//! What the machine wants done: replies to give, markers to write and records to append.

use fleuve_protocol::Str;
use fleuve_types::{Offset, ProducerEpoch, TopicPartition};

use super::error::TransactionError;
use super::metadata::Producer;
use super::record::Record;
use super::state::{Decision, TransactionVersion};
use crate::step::Token;

/// The outcome of one call on the machine.
#[derive(Debug, Default)]
#[must_use = "effects must be carried out and writes appended"]
pub struct Step {
    /// What to do, as soon as the log is durable as far as each asks for.
    pub effects: Vec<Effect>,
    /// What to append, in this order, each as one batch.
    pub writes: Vec<Write>,
}

/// Something that the driver does for the machine.
///
/// `after` is the offset that the high watermark of the log must reach first; none when the effect
/// rests on nothing that a crash could take back.
#[derive(Debug)]
pub enum Effect {
    /// Give a waiting request its answer.
    Reply {
        /// The request.
        token: Token,
        /// The answer.
        response: Response,
        /// What the answer rests on.
        after: Option<Offset>,
    },
    /// Write the markers that end a transaction, and report the fate of each with
    /// [`super::TransactionCoordinator::handle_markers`].
    WriteMarkers {
        /// The markers.
        markers: Markers,
        /// What the decision rests on. Markers written earlier might, after a crash, turn out to
        /// say the opposite of what is then decided.
        after: Option<Offset>,
    },
}

/// Answers to the requests that carry a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To InitProducerId: who the producer now is.
    InitProducerId(Result<Producer, TransactionError>),
    /// To AddPartitionsToTxn and AddOffsetsToTxn: one outcome for all partitions.
    AddPartitions(Result<(), TransactionError>),
    /// To a verification: whether each partition, in the order of the request, belongs to the
    /// transaction. For one that does not the protocol says `TRANSACTION_ABORTABLE`.
    VerifyPartitions(Result<Vec<(TopicPartition, bool)>, TransactionError>),
    /// To EndTxn: who the producer is from now on, if that may have changed.
    EndTransaction(Result<Option<Producer>, TransactionError>),
}

/// Names a decision: what a driver gives back together with the fate of its markers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MarkerKey {
    /// The transactional id.
    pub transactional_id: Str,
    /// The producer that the markers name.
    pub producer: Producer,
    /// The epoch of the coordinator that wants them written.
    pub coordinator_epoch: i32,
    /// What the markers say.
    pub decision: Decision,
    /// The end of the log that the decision rests on. It tells deliveries apart: in version 0
    /// several transactions are ended alike in one epoch.
    pub rests_on: Option<Offset>,
}

/// Markers to write, one to each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markers {
    /// The decision.
    pub key: MarkerKey,
    /// The protocol of the transaction: from version 2 on, the epoch in the marker is one above
    /// that of the records.
    pub version: TransactionVersion,
    /// Where to, never empty.
    pub partitions: Vec<TopicPartition>,
}

/// The fate of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkerOutcome {
    /// It is in the partition's log, and durable.
    Written,
    /// The partition does not exist any more.
    PartitionGone,
    /// The partition knows a newer epoch of the producer, so that the transaction is over there.
    ProducerFenced,
    /// The partition has seen markers of a later coordinator: this one has nothing more to say.
    CoordinatorFenced,
    /// It could not be written now, and is to be tried again.
    Unavailable,
}

/// Records to append as one batch, together with what the machine wants to do afterwards.
#[derive(Debug)]
#[must_use = "a write must be handed back with its fate"]
pub struct Write {
    pub(crate) records: Vec<Record>,
    /// What the log has no room for of the only record.
    pub(crate) last_epoch: ProducerEpoch,
    pub(crate) then: Then,
}

impl Write {
    /// The records, never empty.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

/// What follows when the fate of a write is known.
#[derive(Debug)]
pub(crate) enum Then {
    /// The request that caused the write gets its answer.
    Reply { token: Token, response: Response },
    /// Markers are written. Who asked, if not time itself, gets an answer already.
    Deliver { reply: Option<(Token, Response)> },
    /// The transaction is over; if that could not be stored, it is tried again.
    Complete,
    /// Unused ids are gone, or stay until they are looked for again.
    Expire,
}

impl Response {
    /// The answer to give instead when the records it stood for were not stored.
    pub(crate) fn not_stored(self, error: TransactionError) -> Self {
        match self {
            Self::InitProducerId(_) => Self::InitProducerId(Err(error)),
            Self::AddPartitions(_) => Self::AddPartitions(Err(error)),
            Self::VerifyPartitions(_) => Self::VerifyPartitions(Err(error)),
            Self::EndTransaction(_) => Self::EndTransaction(Err(error)),
        }
    }
}

impl Step {
    /// Answers as soon as the log is durable up to `after`.
    pub(crate) fn reply(&mut self, token: Token, response: Response, after: Option<Offset>) {
        self.effects.push(Effect::Reply { token, response, after });
    }
}

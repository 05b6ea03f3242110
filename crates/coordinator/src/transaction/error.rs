//! What can be wrong with a request to the transaction coordinator, in its own words.

use crate::error::AppendError;

/// Why the coordinator refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TransactionError {
    /// The partition of `__transaction_state` is still being read: `COORDINATOR_LOAD_IN_PROGRESS`.
    #[error("the coordinator is still loading the transactional id's partition")]
    LoadInProgress,
    /// No producer id can be had right now: `COORDINATOR_LOAD_IN_PROGRESS`, which old clients
    /// are known to retry.
    #[error("no producer id can be had right now")]
    NoProducerId,
    /// The log cannot take records right now: `COORDINATOR_NOT_AVAILABLE`.
    #[error("the coordinator cannot serve the transactional id right now")]
    NotAvailable,
    /// This shard no longer leads, or its log has failed: `NOT_COORDINATOR`.
    #[error("this is no longer the transactional id's coordinator")]
    NotCoordinator,
    /// The empty transactional id is not allowed: `INVALID_REQUEST`.
    #[error("the transactional id is empty")]
    EmptyTransactionalId,
    /// The timeout is not positive, or too long: `INVALID_TRANSACTION_TIMEOUT`.
    #[error("the transaction timeout is outside the configured bounds")]
    InvalidTimeout,
    /// An earlier change of the same id has not come to its end: `CONCURRENT_TRANSACTIONS`.
    #[error("the transactional id is being changed; a retry will find it settled")]
    ConcurrentTransactions,
    /// A newer producer uses the transactional id: `PRODUCER_FENCED`.
    #[error("a newer producer uses this transactional id")]
    ProducerFenced,
    /// The same, for clients that do not know the former: `INVALID_PRODUCER_EPOCH`.
    #[error("a newer producer uses this transactional id")]
    InvalidProducerEpoch,
    /// The producer id does not belong to the transactional id, or nothing is known of it:
    /// `INVALID_PRODUCER_ID_MAPPING`.
    #[error("the producer id does not belong to the transactional id")]
    InvalidProducerIdMapping,
    /// The transaction cannot be ended in this way now: `INVALID_TXN_STATE`.
    #[error("the transaction is in a state in which it cannot be ended like this")]
    InvalidState,
    /// There is no such transactional id: `TRANSACTIONAL_ID_NOT_FOUND`.
    #[error("the transactional id does not exist")]
    TransactionalIdNotFound,
    /// The log will never take this record, as it is too large: `UNKNOWN_SERVER_ERROR`.
    #[error("the record is too large for the transaction topic")]
    RecordTooLarge,
}

impl TransactionError {
    /// Kafka's name for the error that a handler should answer with.
    pub fn kafka_name(self) -> &'static str {
        match self {
            Self::LoadInProgress | Self::NoProducerId => "COORDINATOR_LOAD_IN_PROGRESS",
            Self::NotAvailable => "COORDINATOR_NOT_AVAILABLE",
            Self::NotCoordinator => "NOT_COORDINATOR",
            Self::EmptyTransactionalId => "INVALID_REQUEST",
            Self::InvalidTimeout => "INVALID_TRANSACTION_TIMEOUT",
            Self::ConcurrentTransactions => "CONCURRENT_TRANSACTIONS",
            Self::ProducerFenced => "PRODUCER_FENCED",
            Self::InvalidProducerEpoch => "INVALID_PRODUCER_EPOCH",
            Self::InvalidProducerIdMapping => "INVALID_PRODUCER_ID_MAPPING",
            Self::InvalidState => "INVALID_TXN_STATE",
            Self::TransactionalIdNotFound => "TRANSACTIONAL_ID_NOT_FOUND",
            Self::RecordTooLarge => "UNKNOWN_SERVER_ERROR",
        }
    }

    /// The same error in words that the client knows.
    pub(crate) fn for_client(self, knows_producer_fenced: bool) -> Self {
        match self {
            Self::ProducerFenced if !knows_producer_fenced => Self::InvalidProducerEpoch,
            other => other,
        }
    }
}

impl From<AppendError> for TransactionError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Unavailable => Self::NotAvailable,
            AppendError::NotLeader => Self::NotCoordinator,
            AppendError::TooLarge => Self::RecordTooLarge,
            // The records of this room belong to no transaction themselves.
            AppendError::ProducerFenced | AppendError::NotInTransaction => Self::NotCoordinator,
        }
    }
}

//! Transactions: records of several partitions and offsets of a group that become visible together
//! or not at all.
//!
//! ```text
//!              init            begin                   commit, abort
//!   Uninitialized ──▶ Ready ─────────▶ InTransaction ────────────────▶ Ending ──▶ Ready
//!                       ▲                   │ a record or an offset fails      │
//!                       │    abort          ▼                                 │ fenced, forbidden
//!                       └──────────────  Abortable                            ▼
//!                                           │ fenced, forbidden             Fatal
//!                                           └───────────────────────────────▶
//! ```
//!
//! Where the cluster has finalized transaction.version 2 (KIP-890), leaders take a partition into
//! the transaction with its first batch, and every transaction ends under a new epoch. Elsewhere
//! each partition and group is announced to the coordinator first, and the epoch changes only
//! after an abort.
//!
//! Errors come in the classes of KIP-1050: what may pass is retried here; what spoils the
//! transaction is [`Error::Abortable`]; anything else ends the producer and is
//! [`Error::TransactionFatal`].
//!
//! The lock of this state is taken under that of the accumulator, never the other way round. A
//! failed batch spoils the transaction before it leaves its queue, under the accumulator's lock; a
//! commit first changes the phase and then takes that lock to see which batches it has to wait for.
//! So it waits for the batch, or is told of the failure, or its phase is overwritten by it.

mod coordinator;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;

use super::Shared;
use super::batch::Identity;
use crate::consumer::{Committed, GroupMetadata};
use crate::error::{Error, Result};

/// The transactions of one producer.
pub(super) struct Transactions {
    pub(super) id: String,
    timeout: Duration,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    identity: Option<Identity>,
    /// Whether leaders and group coordinators take part in a transaction without being announced.
    version_2: bool,
    /// Partitions that the coordinator knows to be in the transaction.
    announced: HashSet<TopicPartition>,
    /// Whether there is something to end.
    begun_at_broker: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    Uninitialized,
    Ready,
    InTransaction,
    /// Ending, by a commit or not; an attempt that ran out of time may be made again.
    Ending {
        committing: bool,
    },
    Abortable(Error),
    Fatal(Error),
}

/// Versions of Produce above imply version 2 of the protocol.
const PRODUCE_VERSION_1_MAX: i16 = 11;

impl Transactions {
    pub(super) fn new(id: String, timeout: Duration) -> Self {
        let state = State {
            phase: Phase::Uninitialized,
            identity: None,
            version_2: false,
            announced: HashSet::new(),
            begun_at_broker: false,
        };
        Self { id, timeout, state: Mutex::new(state) }
    }

    /// Returns under what batches are numbered, once that is known.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.lock().identity
    }

    /// Returns the newest version of Produce that fits the protocol spoken.
    pub(super) fn produce_version_max(&self) -> i16 {
        if self.lock().version_2 { i16::MAX } else { PRODUCE_VERSION_1_MAX }
    }

    /// Reports whether batches of `partition` may be sent; otherwise it has to be announced first.
    pub(super) fn may_send(&self, partition: &TopicPartition) -> bool {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::InTransaction | Phase::Ending { committing: true }) {
            return false;
        }
        if state.version_2 {
            state.begun_at_broker = true;
            return true;
        }
        state.announced.contains(partition)
    }

    /// Reports whether what waits to be sent is to be dropped.
    pub(super) fn is_dropping(&self) -> Option<Error> {
        match &self.lock().phase {
            Phase::Ending { committing: false } => {
                Some(Error::state("the transaction was aborted before this record was sent"))
            }
            Phase::Abortable(error) | Phase::Fatal(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Reports whether a transaction waits to be ended.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.lock().phase, Phase::InTransaction | Phase::Abortable(_))
    }

    /// Refuses records outside a transaction, and in one that has failed.
    pub(super) fn check_open(&self) -> Result<()> {
        match &self.lock().phase {
            Phase::InTransaction => Ok(()),
            Phase::Abortable(error) | Phase::Fatal(error) => Err(error.clone()),
            Phase::Uninitialized => {
                Err(Error::state("init_transactions comes before the first transaction"))
            }
            Phase::Ready | Phase::Ending { .. } => {
                Err(Error::state("send of a transactional producer outside a transaction"))
            }
        }
    }

    /// Begins to end the transaction, or goes on with that. Looking at the phase and changing it is
    /// one step, so that no failure is overwritten.
    fn begin_to_end(&self, committing: bool) -> Result<()> {
        let mut state = self.lock();
        match &state.phase {
            Phase::InTransaction => {}
            Phase::Ending { committing: before } if *before == committing => {}
            Phase::Abortable(_) if !committing => {}
            Phase::Abortable(error) | Phase::Fatal(error) => return Err(error.clone()),
            // Whether it stands nobody knows, so that aborting might say something untrue.
            Phase::Ending { committing: true } => {
                return Err(Error::state("abort_transaction after commit_transaction"));
            }
            _ if committing => {
                return Err(Error::state("commit_transaction outside a transaction"));
            }
            _ => return Err(Error::state("abort_transaction outside a transaction")),
        }
        state.phase = Phase::Ending { committing };
        Ok(())
    }

    /// Makes ready for the next transaction, unless something went wrong that it has to hear of.
    fn make_ready(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Ending { .. }) {
            state.phase = Phase::Ready;
        }
    }

    /// Spoils the transaction, or ends the producer, as `error` demands.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.lock();
        match class_of(error) {
            Class::Fatal => state.phase = Phase::Fatal(fatal(error)),
            Class::Retriable | Class::Abortable => {
                if matches!(state.phase, Phase::InTransaction | Phase::Ending { committing: true })
                {
                    state.phase = Phase::Abortable(abortable(error));
                }
            }
        }
    }

    /// Spoils the transaction or ends the producer after a coordinator's answer, where an old epoch
    /// means that another producer took over. At a leader it may only mean that it is behind.
    pub(super) fn fail_at_coordinator(&self, error: &Error) {
        if error.code() == Some(ErrorCode::InvalidProducerEpoch) {
            self.lock().phase = Phase::Fatal(fatal(error));
        } else {
            self.fail(error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a panic leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn transactions(&self) -> Result<&Transactions> {
        let missing = || Error::config("transactions need transactional.id");
        self.transactions.as_ref().ok_or_else(missing)
    }

    pub(super) async fn init_transactions(&self) -> Result<()> {
        let transactions = self.transactions()?;
        if !matches!(transactions.lock().phase, Phase::Uninitialized) {
            return Err(Error::state("init_transactions was called before"));
        }
        match transactions.get_identity(&self.client).await {
            Ok(()) => {
                transactions.lock().phase = Phase::Ready;
                Ok(())
            }
            Err(error) => {
                transactions.fail_at_coordinator(&error);
                Err(error)
            }
        }
    }

    pub(super) fn begin_transaction(&self) -> Result<()> {
        let mut state = self.transactions()?.lock();
        match &state.phase {
            Phase::Ready => {
                state.phase = Phase::InTransaction;
                Ok(())
            }
            Phase::Uninitialized => Err(Error::state("begin_transaction before init_transactions")),
            Phase::InTransaction | Phase::Ending { .. } => {
                Err(Error::state("begin_transaction within a transaction"))
            }
            Phase::Abortable(error) | Phase::Fatal(error) => Err(error.clone()),
        }
    }

    pub(super) async fn send_offsets(
        &self,
        offsets: &HashMap<TopicPartition, Committed>,
        group: &GroupMetadata,
    ) -> Result<()> {
        let transactions = self.transactions()?;
        transactions.check_open()?;
        if offsets.is_empty() {
            return Ok(());
        }
        if transactions.lock().version_2 {
            // A commit comes next: what waits for company goes out now, so that brokers write both at the same time.
            // Coordinators of version 1 would have to be told of partitions, and take one word at a time.
            drop(self.accumulator.close_open_batches());
            self.work.notify_one();
        }
        let sent = transactions.send_offsets(&self.client, offsets, group).await;
        sent.map_err(|error| self.transaction_failed(transactions, &error))
    }

    pub(super) async fn commit_transaction(&self) -> Result<()> {
        let transactions = self.transactions()?;
        transactions.begin_to_end(true)?;
        let pending = self.accumulator.close_open_batches();
        self.work.notify_one();
        for batch in pending {
            // A failure has spoiled the transaction, which the phase tells.
            batch.done().await.ok();
        }
        if let Phase::Abortable(error) | Phase::Fatal(error) = &transactions.lock().phase {
            return Err(error.clone());
        }
        match transactions.end(&self.client, true).await {
            Ok(()) => {
                transactions.make_ready();
                Ok(())
            }
            // Nobody knows what became of it; the same call may be made again.
            Err(error) if class_of(&error) == Class::Retriable => Err(error),
            Err(error) => Err(self.transaction_failed(transactions, &error)),
        }
    }

    pub(super) async fn abort_transaction(&self) -> Result<()> {
        let transactions = self.transactions()?;
        transactions.begin_to_end(false)?;
        let pending = self.accumulator.close_open_batches();
        self.work.notify_one();
        for batch in pending {
            // Dropped batches fail, which is what an abort is for.
            batch.done().await.ok();
        }
        match transactions.end(&self.client, false).await {
            Ok(()) => {
                transactions.make_ready();
                Ok(())
            }
            Err(error) => {
                if class_of(&error) != Class::Retriable {
                    transactions.lock().phase = Phase::Fatal(fatal(&error));
                }
                Err(error)
            }
        }
    }

    /// Notes a failure and returns what the application is told.
    fn transaction_failed(&self, transactions: &Transactions, error: &Error) -> Error {
        transactions.fail_at_coordinator(error);
        self.work.notify_one();
        match &transactions.lock().phase {
            Phase::Abortable(error) | Phase::Fatal(error) => error.clone(),
            _ => error.clone(),
        }
    }
}

/// The classes of KIP-1050.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Retriable,
    Abortable,
    Fatal,
}

fn class_of(error: &Error) -> Class {
    match error {
        Error::TransactionFatal { .. } | Error::Unsupported { .. } => Class::Fatal,
        Error::Abortable { .. } => Class::Abortable,
        Error::Broker { code, .. } => match code {
            ErrorCode::ProducerFenced
            | ErrorCode::TransactionalIdAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::InvalidProducerIdMapping
            | ErrorCode::InvalidTransactionTimeout
            | ErrorCode::UnsupportedVersion
            | ErrorCode::InvalidTxnState => Class::Fatal,
            code if code.is_retriable() => Class::Retriable,
            _ => Class::Abortable,
        },
        error if error.is_retriable() => Class::Retriable,
        _ => Class::Abortable,
    }
}

fn abortable(error: &Error) -> Error {
    match error {
        Error::Abortable { .. } | Error::TransactionFatal { .. } => error.clone(),
        error => Error::Abortable { reason: error.to_string(), code: error.code() },
    }
}

fn fatal(error: &Error) -> Error {
    match error {
        Error::TransactionFatal { .. } => error.clone(),
        error => Error::TransactionFatal { reason: error.to_string(), code: error.code() },
    }
}

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

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use fleuve_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use fleuve_protocol::messages::end_txn_request::EndTxnRequest;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition};

use super::Shared;
use super::batch::Identity;
use crate::client::{Client, Coordinated, Lane};
use crate::connection::Connection;
use crate::consumer::{Committed, GroupMetadata};
use crate::error::{Error, Result, code_of};

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

/// Versions of these requests above imply version 2 of the protocol.
const PRODUCE_VERSION_1_MAX: i16 = 11;
const END_VERSION_1_MAX: i16 = 4;
const OFFSETS_VERSION_1_MAX: i16 = 4;
const OFFSETS_VERSION_2_MAX: i16 = 5;
/// From version 4 on, brokers announce partitions of many transactions to each other.
const ANNOUNCE_VERSION_MAX: i16 = 3;
const INIT_VERSION_MAX: i16 = 5;
/// The first version that raises the epoch of a producer that names itself (KIP-360).
const INIT_VERSION_WITH_EPOCH: i16 = 3;

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

    fn coordinated(&self) -> Coordinated<'_> {
        Coordinated::Transaction(&self.id)
    }

    /// Gets an identity, which fences every other producer of the same id, and learns which
    /// protocol the cluster speaks.
    async fn get_identity(&self, client: &Client) -> Result<()> {
        let before = self.lock().identity;
        let build = |version: i16| {
            let known = before.filter(|_| version >= INIT_VERSION_WITH_EPOCH);
            InitProducerIdRequest {
                transactional_id: Some(self.id.clone().into()),
                transaction_timeout_ms: self.timeout.as_millis() as i32,
                producer_id: known.map_or(-1, |identity| identity.id.0),
                producer_epoch: known.map_or(-1, |identity| identity.epoch.0),
                ..InitProducerIdRequest::default()
            }
        };
        let response = client
            .call_coordinator_of::<InitProducerIdRequest>(
                self.coordinated(),
                INIT_VERSION_MAX,
                build,
                |response| response.error_code,
            )
            .await?;
        let version_2 = self.learn_version(client).await?;
        let mut state = self.lock();
        state.identity = Some(Identity {
            id: ProducerId(response.producer_id),
            epoch: ProducerEpoch(response.producer_epoch),
        });
        state.version_2 = version_2;
        Ok(())
    }

    async fn connection(&self, client: &Client) -> Result<Connection> {
        let coordinator = client.coordinator_of(self.coordinated()).await?;
        client.connection(coordinator, Lane::Offsets).await
    }

    async fn learn_version(&self, client: &Client) -> Result<bool> {
        let mut retrying = client.retrying("FindCoordinator");
        loop {
            match self.connection(client).await {
                Ok(connection) => {
                    return Ok(connection.versions().finalized("transaction.version") >= 2);
                }
                Err(error) => retrying.after(error).await?,
            }
        }
    }

    /// Tells the coordinator of partitions before batches go to them (protocol version 1).
    pub(super) async fn announce(
        &self,
        client: &Client,
        partitions: Vec<TopicPartition>,
    ) -> Result<()> {
        let identity = self.identity().ok_or_else(|| Error::state("no identity"))?;
        let build = |_: i16| {
            let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
            for partition in &partitions {
                match topics.iter_mut().find(|topic| *topic.name == *partition.topic) {
                    Some(topic) => topic.partitions.push(partition.partition),
                    None => topics.push(AddPartitionsToTxnTopic {
                        name: partition.topic.to_string().into(),
                        partitions: vec![partition.partition],
                    }),
                }
            }
            AddPartitionsToTxnRequest {
                v3_and_below_transactional_id: self.id.clone().into(),
                v3_and_below_producer_id: identity.id.0,
                v3_and_below_producer_epoch: identity.epoch.0,
                v3_and_below_topics: topics,
                ..AddPartitionsToTxnRequest::default()
            }
        };
        client
            .call_coordinator_of::<AddPartitionsToTxnRequest>(
                self.coordinated(),
                ANNOUNCE_VERSION_MAX,
                build,
                |response| {
                    let topics = response.results_by_topic_v3_and_below.iter();
                    let results = topics.flat_map(|topic| &topic.results_by_partition);
                    // OperationNotAttempted only says that another partition has the real error.
                    first_error(results.map(|result| result.partition_error_code))
                },
            )
            .await?;
        let mut state = self.lock();
        state.announced.extend(partitions);
        state.begun_at_broker = true;
        Ok(())
    }

    async fn send_offsets(
        &self,
        client: &Client,
        offsets: &HashMap<TopicPartition, Committed>,
        group: &GroupMetadata,
    ) -> Result<()> {
        let (identity, version_2) = {
            let state = self.lock();
            (state.identity, state.version_2)
        };
        let Identity { id, epoch } = identity.ok_or_else(|| Error::state("no identity"))?;
        if !version_2 {
            let build = |_: i16| AddOffsetsToTxnRequest {
                transactional_id: self.id.clone().into(),
                producer_id: id.0,
                producer_epoch: epoch.0,
                group_id: group.group_id.clone().into(),
            };
            client
                .call_coordinator_of::<AddOffsetsToTxnRequest>(
                    self.coordinated(),
                    i16::MAX,
                    build,
                    |response| response.error_code,
                )
                .await?;
        }
        self.lock().begun_at_broker = true;
        let build = |version: i16| {
            let mut topics: Vec<TxnOffsetCommitRequestTopic> = Vec::new();
            for (partition, committed) in offsets {
                let committed = TxnOffsetCommitRequestPartition {
                    partition_index: partition.partition,
                    committed_offset: committed.offset,
                    committed_leader_epoch: if version >= 2 { committed.leader_epoch } else { -1 },
                    committed_metadata: Some(committed.metadata.clone().into()),
                };
                match topics.iter_mut().find(|topic| *topic.name == *partition.topic) {
                    Some(topic) => topic.partitions.push(committed),
                    None => topics.push(TxnOffsetCommitRequestTopic {
                        name: partition.topic.to_string().into(),
                        partitions: vec![committed],
                    }),
                }
            }
            let mut request = TxnOffsetCommitRequest {
                transactional_id: self.id.clone().into(),
                group_id: group.group_id.clone().into(),
                producer_id: id.0,
                producer_epoch: epoch.0,
                topics,
                ..TxnOffsetCommitRequest::default()
            };
            // Version 3 lets the group refuse offsets of a member it has given up (KIP-447).
            if version >= 3 {
                request.member_id = group.member_id.clone().into();
                request.generation_id = group.generation;
                request.group_instance_id = group.instance_id.clone().map(Into::into);
            }
            request
        };
        let version_max = if version_2 { OFFSETS_VERSION_2_MAX } else { OFFSETS_VERSION_1_MAX };
        client
            .call_coordinator_of::<TxnOffsetCommitRequest>(
                Coordinated::Group(&group.group_id),
                version_max,
                build,
                |response| {
                    let topics = response.topics.iter().flat_map(|topic| &topic.partitions);
                    first_error(topics.map(|partition| partition.error_code))
                },
            )
            .await?;
        Ok(())
    }

    /// Ends the transaction at its coordinator, if it knows of it.
    async fn end(&self, client: &Client, committing: bool) -> Result<()> {
        let (identity, version_2, begun) = {
            let state = self.lock();
            (state.identity, state.version_2, state.begun_at_broker)
        };
        let Identity { id, epoch } = identity.ok_or_else(|| Error::state("no identity"))?;
        if begun {
            let version_max = if version_2 { i16::MAX } else { END_VERSION_1_MAX };
            let build = |_: i16| EndTxnRequest {
                transactional_id: self.id.clone().into(),
                producer_id: id.0,
                producer_epoch: epoch.0,
                committed: committing,
            };
            let response = client
                .call_coordinator_of::<EndTxnRequest>(
                    self.coordinated(),
                    version_max,
                    build,
                    |response| response.error_code,
                )
                .await?;
            if version_2 && response.producer_id >= 0 {
                self.lock().identity = Some(Identity {
                    id: ProducerId(response.producer_id),
                    epoch: ProducerEpoch(response.producer_epoch),
                });
            }
        }
        if !committing && !version_2 {
            // Dropped batches left gaps in the numbers; a new epoch starts them over.
            self.get_identity(client).await?;
        }
        // A cluster may have been upgraded meanwhile.
        let version_2 = self.learn_version(client).await?;
        let mut state = self.lock();
        state.version_2 = version_2;
        state.announced.clear();
        state.begun_at_broker = false;
        Ok(())
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
        let sent = transactions.send_offsets(&self.client, offsets, group).await;
        sent.map_err(|error| self.transaction_failed(transactions, &error))
    }

    pub(super) async fn commit_transaction(&self) -> Result<()> {
        let transactions = self.transactions()?;
        match transactions.lock().phase.clone() {
            Phase::InTransaction | Phase::Ending { committing: true } => {}
            Phase::Abortable(error) | Phase::Fatal(error) => return Err(error),
            _ => return Err(Error::state("commit_transaction outside a transaction")),
        }
        let pending = self.accumulator.close_open_batches();
        transactions.lock().phase = Phase::Ending { committing: true };
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
                transactions.lock().phase = Phase::Ready;
                Ok(())
            }
            // Nobody knows what became of it; the same call may be made again.
            Err(error) if class_of(&error) == Class::Retriable => Err(error),
            Err(error) => Err(self.transaction_failed(transactions, &error)),
        }
    }

    pub(super) async fn abort_transaction(&self) -> Result<()> {
        let transactions = self.transactions()?;
        match transactions.lock().phase.clone() {
            Phase::InTransaction | Phase::Abortable(_) | Phase::Ending { committing: false } => {}
            // Whether it stands nobody knows, so that aborting might say something untrue.
            Phase::Ending { committing: true } => {
                return Err(Error::state("abort_transaction after commit_transaction"));
            }
            Phase::Fatal(error) => return Err(error),
            _ => return Err(Error::state("abort_transaction outside a transaction")),
        }
        transactions.lock().phase = Phase::Ending { committing: false };
        let pending = self.accumulator.close_open_batches();
        self.work.notify_one();
        for batch in pending {
            // Dropped batches fail, which is what an abort is for.
            batch.done().await.ok();
        }
        match transactions.end(&self.client, false).await {
            Ok(()) => {
                transactions.lock().phase = Phase::Ready;
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

/// Returns the first code that says what is wrong, rather than that something else is.
fn first_error(codes: impl Iterator<Item = i16>) -> i16 {
    let mut other = 0;
    for code in codes {
        match code_of(code) {
            ErrorCode::None => {}
            ErrorCode::OperationNotAttempted => other = code,
            _ => return code,
        }
    }
    other
}

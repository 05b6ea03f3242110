//! What Produce has to know before it may append batches of transactions.
//!
//! The first batch of a transaction in a partition waits for the transaction coordinator's word;
//! later ones find the transaction open and are appended at once.

use std::collections::HashMap;
use std::sync::Arc;

use fleuve_coordinator::transaction::{Producer, TransactionError};
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::produce_request::ProduceRequest;
use fleuve_protocol::records::BatchHeader;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_storage::{TransactionCheck, VerificationGuard};

use super::produce::find_topic;
use super::{errors, permission};
use crate::partition::Partition;
use crate::request::Context;
use crate::verification::{self, Client, Unverified};

/// What is known before the first batch is appended.
pub(super) enum Admission {
    /// Nothing stands in the way, or what stands in the way of single partitions is known.
    Ready(Checks),
    /// Nothing of the request may be appended.
    Refused(ErrorCode),
    /// The coordinator has to be asked first.
    Ask(Question),
}

/// What each batch must show, by the positions of its topic and partition in the request.
#[derive(Debug, Default)]
pub(super) struct Checks {
    is_required: bool,
    guards: HashMap<(usize, usize), VerificationGuard>,
    failures: HashMap<(usize, usize), (ErrorCode, String)>,
}

/// What the coordinator is to be asked.
#[derive(Debug)]
pub(super) struct Question {
    client: Client,
    transactional_id: Str,
    producer: Producer,
    partitions: Vec<Asked>,
}

/// A partition that the coordinator is asked about.
#[derive(Debug)]
struct Asked {
    /// Its position in the request.
    position: (usize, usize),
    partition: Arc<Partition>,
    first_sequence: i32,
    guard: VerificationGuard,
}

impl Checks {
    /// What the batch at a position must show, or why it may not be appended at all.
    pub(super) fn of(
        &self,
        position: (usize, usize),
    ) -> Result<TransactionCheck, (ErrorCode, String)> {
        if let Some(failure) = self.failures.get(&position) {
            return Err(failure.clone());
        }
        Ok(match self.is_required {
            true => TransactionCheck::Required(self.guards.get(&position).copied()),
            false => TransactionCheck::Waived,
        })
    }
}

/// Looks through a request for batches of transactions.
pub(super) fn admit(context: &Context, request: &ProduceRequest) -> Admission {
    let client = Client::of_produce(context.version);
    let is_required = verification::is_wanted(&context.node, client);
    let checks = Checks { is_required, ..Checks::default() };
    let mut is_authorized = false;
    let mut producer: Option<Producer> = None;
    let mut partitions = Vec::new();
    for (topic_index, topic_data) in request.topic_data.iter().enumerate() {
        for (partition_index, data) in topic_data.partition_data.iter().enumerate() {
            let records = data.records.as_deref().unwrap_or_default();
            // Whatever else is wrong with it is found when it is appended.
            let Ok(header) = BatchHeader::parse(records) else { continue };
            if !header.attributes.is_transactional() {
                continue;
            }
            if !is_authorized {
                if let Err(code) = authorize(context, request) {
                    return Admission::Refused(code);
                }
                is_authorized = true;
            }
            if !header.has_producer() {
                continue;
            }
            let found = Producer { id: header.producer_id, epoch: header.producer_epoch };
            if *producer.get_or_insert(found) != found {
                return Admission::Refused(ErrorCode::InvalidProducerIdMapping);
            }
            let topic = if is_required { find_topic(context, topic_data).ok() } else { None };
            // Nobody asks the coordinator about topics that the client may not write to.
            let topic = topic.filter(|topic| {
                context.may_quietly(AclOperation::Write, AclResourceType::Topic, &topic.name)
            });
            let partition = topic.as_ref().and_then(|topic| topic.partition(data.index));
            let guard = partition.and_then(|partition| {
                let (sequence, bumps_epoch) = (header.base_sequence, client == Client::Version2);
                partition.begin_verification(found.id, found.epoch, sequence, bumps_epoch)
            });
            if let (Some(partition), Some(guard)) = (partition, guard) {
                partitions.push(Asked {
                    position: (topic_index, partition_index),
                    partition: partition.clone(),
                    first_sequence: header.base_sequence,
                    guard,
                });
            }
        }
    }
    match (producer, &request.transactional_id) {
        (Some(producer), Some(id)) if !partitions.is_empty() => {
            Admission::Ask(Question { client, transactional_id: id.clone(), producer, partitions })
        }
        _ => Admission::Ready(checks),
    }
}

/// Checks that the client may write in the name of the request's transactional id, which every
/// batch of a transaction needs, be it of a producer or not. That comes before anything is begun on
/// behalf of the batch.
fn authorize(context: &Context, request: &ProduceRequest) -> Result<(), ErrorCode> {
    match &request.transactional_id {
        Some(id) => permission::transactional_id(context, AclOperation::Write, id),
        // Kafka's word for a transaction without a transactional id.
        None => Err(ErrorCode::TransactionalIdAuthorizationFailed),
    }
}

impl Question {
    /// Asks the coordinator.
    pub(super) async fn ask(self, context: &Context) -> Checks {
        let Self { client, transactional_id, producer, partitions } = self;
        let names = partitions.iter().map(|asked| asked.partition.name().clone()).collect();
        let node = &context.node;
        let answers = verification::verify(node, client, transactional_id, producer, names).await;
        let mut checks = Checks { is_required: true, ..Checks::default() };
        for (asked, answer) in partitions.into_iter().zip(answers) {
            match answer {
                Ok(()) => {
                    if let Some(guard) = asked.guard_now(client, producer) {
                        checks.guards.insert(asked.position, guard);
                    }
                }
                Err(error) => {
                    checks.failures.insert(asked.position, failure(client, error));
                }
            }
        }
        checks
    }
}

impl Asked {
    /// The guard to append with, `None` if the transaction is open in the partition by now.
    ///
    /// With version 2 the coordinator's word waited for the marker of the transaction before, which
    /// took the first guard away. The epoch tells the two transactions apart, so that a new guard is
    /// as good.
    fn guard_now(&self, client: Client, producer: Producer) -> Option<VerificationGuard> {
        if client != Client::Version2 {
            return Some(self.guard);
        }
        self.partition.begin_verification(producer.id, producer.epoch, self.first_sequence, true)
    }
}

/// What the client is told. Clients that do not expect an error of the coordinator's here are told
/// one that has them try again, and that does not make them ask for metadata.
fn failure(client: Client, error: Unverified) -> (ErrorCode, String) {
    let not_part = "the partition is not part of the transaction".to_owned();
    match error {
        Unverified::NotPart if client == Client::Classic => (ErrorCode::InvalidTxnState, not_part),
        Unverified::NotPart => (ErrorCode::TransactionAbortable, not_part),
        Unverified::Refused(TransactionError::ConcurrentTransactions)
            if client == Client::Version2 =>
        {
            let code = ErrorCode::ConcurrentTransactions;
            (code, TransactionError::ConcurrentTransactions.to_string())
        }
        Unverified::Refused(
            error @ (TransactionError::ConcurrentTransactions
            | TransactionError::LoadInProgress
            | TransactionError::NoProducerId
            | TransactionError::NotAvailable
            | TransactionError::NotCoordinator),
        ) => {
            let text = format!("the transaction coordinator cannot be asked now: {error}");
            (ErrorCode::NotEnoughReplicas, text)
        }
        Unverified::Refused(error) => (errors::transaction(error), error.to_string()),
    }
}

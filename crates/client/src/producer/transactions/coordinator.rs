//! What a transactional producer says to coordinators, and what it makes of their answers.

use std::collections::HashMap;

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

use super::super::batch::Identity;
use super::Transactions;
use crate::client::{Client, Coordinated};
use crate::consumer::{Committed, GroupMetadata};
use crate::error::{Error, Result, code_of};

/// Versions of these requests above imply version 2 of the protocol.
const END_VERSION_1_MAX: i16 = 4;
const OFFSETS_VERSION_1_MAX: i16 = 4;
const OFFSETS_VERSION_2_MAX: i16 = 5;
/// From version 4 on, brokers announce partitions of many transactions to each other.
const ANNOUNCE_VERSION_MAX: i16 = 3;
const INIT_VERSION_MAX: i16 = 5;
/// The first version that raises the epoch of a producer that names itself (KIP-360).
const INIT_VERSION_WITH_EPOCH: i16 = 3;

impl Transactions {
    fn coordinated(&self) -> Coordinated<'_> {
        Coordinated::Transaction(&self.id)
    }

    /// Gets an identity, which fences every other producer of the same id, and learns which
    /// protocol the cluster speaks.
    pub(super) async fn get_identity(&self, client: &Client) -> Result<()> {
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

    async fn learn_version(&self, client: &Client) -> Result<bool> {
        let connection = client.coordinator_connection(self.coordinated()).await?;
        Ok(connection.versions().finalized("transaction.version") >= 2)
    }

    /// Tells the coordinator of partitions before batches go to them (protocol version 1).
    pub(in crate::producer) async fn announce(
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
                    let codes = results.map(|result| result.partition_error_code);
                    first_error(codes, partitions.len())
                },
            )
            .await?;
        let mut state = self.lock();
        state.announced.extend(partitions);
        state.begun_at_broker = true;
        Ok(())
    }

    pub(super) async fn send_offsets(
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
                    first_error(topics.map(|partition| partition.error_code), offsets.len())
                },
            )
            .await?;
        Ok(())
    }

    /// Ends the transaction at its coordinator, if it knows of it.
    pub(super) async fn end(&self, client: &Client, committing: bool) -> Result<()> {
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
            // All at once and before anything else is waited for: whoever gives up waiting and asks
            // again must not ask for the end of this transaction under the epoch of the next.
            let mut state = self.lock();
            if version_2 && response.producer_id >= 0 {
                state.identity = Some(Identity {
                    id: ProducerId(response.producer_id),
                    epoch: ProducerEpoch(response.producer_epoch),
                });
            }
            state.announced.clear();
            state.begun_at_broker = false;
        }
        if !committing && !version_2 {
            // Dropped batches left gaps in the numbers; a new epoch starts them over.
            return self.get_identity(client).await;
        }
        // A cluster may have been upgraded meanwhile. The transaction has ended all the same.
        match self.learn_version(client).await {
            Ok(version_2) => self.lock().version_2 = version_2,
            Err(error) => tracing::debug!(%error, "transaction.version is not known anew"),
        }
        Ok(())
    }
}

/// Returns the first code that says what is wrong, rather than that something else is. An answer
/// that leaves out what was asked for says that something is.
fn first_error(codes: impl Iterator<Item = i16>, asked: usize) -> i16 {
    let mut other = 0;
    let mut answered = 0;
    for code in codes {
        answered += 1;
        match code_of(code) {
            ErrorCode::None => {}
            ErrorCode::OperationNotAttempted => other = code,
            _ => return code,
        }
    }
    if other == 0 && answered < asked {
        return ErrorCode::UnknownServerError.code();
    }
    other
}

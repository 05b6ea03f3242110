//! Transactions: who has which open, and ending those that nobody ends.

use std::collections::BTreeMap;

use fleuve_protocol::messages::describe_producers_request::{
    DescribeProducersRequest, TopicRequest,
};
use fleuve_protocol::messages::describe_transactions_request::DescribeTransactionsRequest;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::list_transactions_request::ListTransactionsRequest;
use fleuve_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use fleuve_types::TopicPartition;

use super::Admin;
use crate::client::{Coordinated, PartitionAnswer};
use crate::error::{Error, Result, check};

const NONE: i64 = -1;
const NO_EPOCH: i16 = -1;

/// Which transactions to list; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// Names of states, such as `Ongoing`; empty for any.
    pub states: Vec<String>,
    /// Producer ids; empty for any.
    pub producer_ids: Vec<i64>,
    /// Only transactions that have been open for longer than this.
    pub running_longer_than_ms: Option<i64>,
    /// A regular expression that the whole transactional id has to match.
    pub pattern: Option<String>,
}

/// A transactional id in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionListing {
    /// The transactional id.
    pub transactional_id: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// The producer that uses it.
    pub producer_id: i64,
    /// `Ongoing`, `CompleteCommit` and so on.
    pub state: String,
}

/// A transactional id in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    /// The transactional id.
    pub transactional_id: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// The producer that uses it.
    pub producer_id: i64,
    /// The producer's incarnation.
    pub producer_epoch: i16,
    /// `Ongoing`, `CompleteCommit` and so on.
    pub state: String,
    /// How long a transaction may stay open, in milliseconds.
    pub timeout_ms: i32,
    /// When the transaction began, in milliseconds since 1970; none if there is none.
    pub start_time_ms: Option<i64>,
    /// The partitions it has written to.
    pub partitions: Vec<TopicPartition>,
}

/// A producer as a partition knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: i64,
    /// Its incarnation.
    pub producer_epoch: i32,
    /// The epoch of the coordinator that ended its last transaction here; -1 for none.
    pub coordinator_epoch: i32,
    /// The sequence of its last record; -1 for none.
    pub last_sequence: i32,
    /// When it last wrote, in milliseconds since 1970.
    pub last_timestamp_ms: i64,
    /// The offset where its open transaction began; `None` if none is open.
    pub transaction_start: Option<i64>,
}

/// The transaction of a producer in one partition that is to be aborted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortedProducer {
    /// The partition.
    pub partition: TopicPartition,
    /// The producer.
    pub producer_id: i64,
    /// Its incarnation, as the partition knows it.
    pub producer_epoch: i16,
    /// The epoch of the coordinator, or what the partition knows of it.
    pub coordinator_epoch: i32,
}

impl Admin {
    /// Lists the transactional ids of all brokers that fit the filter, by name.
    ///
    /// A part of a list would look like all of it, so that one broker that does not answer is an
    /// error. Kafka 3.0 and later; filters by duration and by pattern came with later ones.
    pub async fn list_transactions(
        &self,
        filter: &TransactionFilter,
    ) -> Result<Vec<TransactionListing>> {
        self.client.refresh_brokers().await?;
        let mut listings = Vec::new();
        for broker in self.client.cluster().brokers() {
            let build = |_| ListTransactionsRequest {
                state_filters: filter.states.iter().map(|state| state.clone().into()).collect(),
                producer_id_filters: filter.producer_ids.clone(),
                duration_filter: filter.running_longer_than_ms.unwrap_or(NONE),
                transactional_id_pattern: filter.pattern.clone().map(Into::into),
            };
            let response = self
                .client
                .call_broker::<ListTransactionsRequest>(broker.id, build, |response| {
                    response.error_code
                })
                .await?;
            listings.extend(response.transaction_states.into_iter().map(|state| {
                TransactionListing {
                    transactional_id: state.transactional_id.to_string(),
                    coordinator: broker.id,
                    producer_id: state.producer_id,
                    state: state.transaction_state.to_string(),
                }
            }));
        }
        listings.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        Ok(listings)
    }

    /// Describes a transactional id; one that nobody uses is the error `TRANSACTIONAL_ID_NOT_FOUND`.
    pub async fn describe_transaction(
        &self,
        transactional_id: &str,
    ) -> Result<TransactionDescription> {
        let subject = Coordinated::Transaction(transactional_id);
        let build = |_| DescribeTransactionsRequest {
            transactional_ids: vec![transactional_id.to_owned().into()],
        };
        let response = self
            .client
            .call_coordinator_of::<DescribeTransactionsRequest>(
                subject,
                i16::MAX,
                build,
                |response| response.transaction_states.first().map_or(0, |state| state.error_code),
            )
            .await?;
        let coordinator = self.client.coordinator_of(subject).await?;
        let state = response.transaction_states.into_iter().next();
        let state = state.ok_or_else(|| missing(transactional_id))?;
        let partitions = state.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|index| TopicPartition::new(&*topic.topic, *index))
        });
        Ok(TransactionDescription {
            coordinator,
            producer_id: state.producer_id,
            producer_epoch: state.producer_epoch,
            state: state.transaction_state.to_string(),
            timeout_ms: state.transaction_timeout_ms,
            start_time_ms: Some(state.transaction_start_time_ms).filter(|ms| *ms >= 0),
            partitions: partitions.collect(),
            transactional_id: state.transactional_id.to_string(),
        })
    }

    /// Describes the idempotent and transactional producers that partitions remember (KIP-664), as
    /// the leader of each tells: open transactions that hold consumers of committed records up are
    /// found here by their [`ActiveProducer::transaction_start`].
    ///
    /// Every partition has its own result: its producers, none if nobody has written to it lately,
    /// or why its leader did not say, such as `UNKNOWN_TOPIC_OR_PARTITION`. The call itself fails
    /// when no broker can be asked. Kafka 2.8 and later.
    pub async fn describe_producers(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<Vec<ActiveProducer>>>> {
        let build = |theirs: &[TopicPartition], _| {
            let mut topics: Vec<TopicRequest> = Vec::new();
            for partition in theirs {
                match topics.iter_mut().find(|topic| *topic.name == *partition.topic) {
                    Some(topic) => topic.partition_indexes.push(partition.partition),
                    None => topics.push(TopicRequest {
                        name: partition.topic.to_string().into(),
                        partition_indexes: vec![partition.partition],
                    }),
                }
            }
            DescribeProducersRequest { topics }
        };
        let answers = self
            .client
            .call_leaders::<DescribeProducersRequest, _>(partitions, build, |response| {
                let mut answers = Vec::new();
                for topic in response.topics {
                    for answer in topic.partitions {
                        let producers = answer.active_producers.iter().map(|p| ActiveProducer {
                            producer_id: p.producer_id,
                            producer_epoch: p.producer_epoch,
                            coordinator_epoch: p.coordinator_epoch,
                            last_sequence: p.last_sequence,
                            last_timestamp_ms: p.last_timestamp,
                            transaction_start: Some(p.current_txn_start_offset)
                                .filter(|offset| *offset >= 0),
                        });
                        answers.push(PartitionAnswer {
                            partition: TopicPartition::new(&*topic.name, answer.partition_index),
                            error_code: answer.error_code,
                            value: producers.collect::<Vec<_>>(),
                        });
                    }
                }
                answers
            })
            .await?;
        Ok(answers.into_iter().collect())
    }

    /// Writes the marker that aborts a producer's transaction in one partition, whatever its
    /// coordinator knows of it: the way out of a transaction that hangs because its coordinator has
    /// forgotten it. The producer and both epochs are those of [`Admin::describe_producers`].
    ///
    /// A producer that is still writing loses records by this.
    pub async fn abort_transaction(&self, aborted: &AbortedProducer) -> Result<()> {
        let partitions = [aborted.partition.clone()];
        let build = |_: &[TopicPartition], _| WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: aborted.producer_id,
                producer_epoch: aborted.producer_epoch,
                transaction_result: false,
                topics: vec![WritableTxnMarkerTopic {
                    name: aborted.partition.topic.to_string().into(),
                    partition_indexes: vec![aborted.partition.partition],
                }],
                coordinator_epoch: aborted.coordinator_epoch,
                ..Default::default()
            }],
        };
        let answers = self
            .client
            .call_leaders::<WriteTxnMarkersRequest, _>(&partitions, build, |response| {
                let topics = response.markers.into_iter().flat_map(|marker| marker.topics);
                topics
                    .flat_map(|topic| {
                        topic.partitions.into_iter().map(move |answer| PartitionAnswer {
                            partition: TopicPartition::new(&*topic.name, answer.partition_index),
                            error_code: answer.error_code,
                            value: (),
                        })
                    })
                    .collect()
            })
            .await?;
        for (_, answer) in answers {
            answer?;
        }
        Ok(())
    }

    /// Ends the open transaction of a transactional id by shutting out its producer, whose next call
    /// fails with advice to stop.
    pub async fn fence_producer(&self, transactional_id: &str) -> Result<()> {
        let build = |_| InitProducerIdRequest {
            transactional_id: Some(transactional_id.to_owned().into()),
            // As Kafka's tools do: the broker has no use for it if nothing is open.
            transaction_timeout_ms: self.timeout_ms().max(1),
            producer_id: NONE,
            producer_epoch: NO_EPOCH,
            ..Default::default()
        };
        let response = self
            .client
            .call_coordinator_of::<InitProducerIdRequest>(
                Coordinated::Transaction(transactional_id),
                i16::MAX,
                build,
                |response| response.error_code,
            )
            .await?;
        check(response.error_code, || format!("transactional id {transactional_id}"))
    }
}

fn missing(transactional_id: &str) -> Error {
    let code = fleuve_protocol::ErrorCode::TransactionalIdNotFound;
    Error::broker(format!("transactional id {transactional_id}"), code)
}

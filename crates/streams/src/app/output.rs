//! What a stream thread writes: records, and with exactly once the transaction around them and the offsets.
//!
//! Whatever the cluster does to a commit ends in one of two ways: everything since the last one stands, or nothing does
//! and the tasks begin again from what was committed. A producer that was fenced, or does not know what became of its
//! transaction, is replaced by one of the same id, which settles the matter.

use std::collections::HashMap;
use std::time::Duration;

use fleuve_client::consumer::{Committed, GroupMetadata};
use fleuve_client::producer::{Deliveries, Header};
use fleuve_client::{Client, Consumer, Error, ErrorCode, Metric, Producer, ProducerConfig, Record};
use fleuve_types::TopicPartition;

use super::StreamsError;
use super::production::{Production, Unsent};
use crate::dsl::ErrorPolicy;
use crate::runtime::Outgoing;

/// The producer of a stream thread.
pub(super) struct Output {
    client: Client,
    config: ProducerConfig,
    producer: Producer,
    /// Deliveries of the batches sent since the last commit.
    deliveries: Deliveries,
    production: Production,
    /// The offsets behind what was delivered, by partition.
    written: HashMap<TopicPartition, i64>,
    in_transaction: bool,
}

/// How a commit went.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Everything stands.
    Done,
    /// The records stand and the offsets do not yet; the next commit says them again.
    Later,
    /// Nothing stands: the tasks have to begin again from what was committed before.
    Refused(Error),
}

impl Output {
    /// Makes the producer; with a transactional id every commit is a transaction.
    pub(super) async fn new(
        client: Client,
        transactional_id: Option<String>,
        transaction_timeout: Duration,
        policy: ErrorPolicy,
    ) -> Result<Self, Error> {
        let config = ProducerConfig {
            transactional_id,
            transaction_timeout,
            linger: LINGER,
            batch_size: BATCH_BYTES,
            buffer_memory: BUFFER_BYTES,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(client.clone(), config.clone())?;
        if config.transactional_id.is_some() {
            producer.init_transactions().await?;
        }
        Ok(Self {
            client,
            config,
            producer,
            deliveries: Deliveries::new(),
            production: Production::new(policy),
            written: HashMap::new(),
            in_transaction: false,
        })
    }

    /// What the producer has counted.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        self.producer.metrics()
    }

    fn is_transactional(&self) -> bool {
        self.config.transactional_id.is_some()
    }

    /// Whether records were sent that no commit has covered.
    pub(super) fn is_pending(&self) -> bool {
        self.in_transaction || !self.deliveries.is_empty() || !self.production.is_empty()
    }

    fn begin(&mut self) -> Result<(), Error> {
        if self.is_transactional() && !self.in_transaction {
            self.producer.begin_transaction()?;
            self.in_transaction = true;
        }
        Ok(())
    }

    pub(super) async fn send(&mut self, outgoing: Vec<Outgoing>) -> Result<(), Unsent> {
        if outgoing.is_empty() {
            return Ok(());
        }
        self.begin()?;
        if outgoing.iter().any(|out| self.production.keeps(out)) {
            for out in outgoing {
                if let Some(delivery) = self.production.send(&self.producer, out).await? {
                    self.deliveries.add(delivery);
                }
            }
            return Ok(());
        }
        for run in outgoing.chunk_by(|out, next| out.headers.is_empty() && next.headers.is_empty())
        {
            // Records with headers stand alone: these need memory of their own.
            let headers: Vec<Header<'_>> = run[0]
                .headers
                .iter()
                .map(|header| Header::new(&header.key, header.value.as_deref()))
                .collect();
            let records: Vec<Record<'_>> = run
                .iter()
                .map(|out| Record {
                    topic: &out.topic.name,
                    partition: out.topic.partition,
                    key: out.key.as_deref(),
                    value: out.value.as_deref(),
                    headers: &headers,
                    timestamp: (out.timestamp >= 0).then_some(out.timestamp),
                })
                .collect();
            self.producer.send_all(&records, &mut self.deliveries).await?;
        }
        Ok(())
    }

    /// Makes everything sent so far durable together with `offsets`, those of a transaction in the name of `group`. An
    /// error is one that no repetition mends.
    pub(super) async fn commit(
        &mut self,
        offsets: HashMap<TopicPartition, Committed>,
        consumer: &Consumer,
        group: GroupMetadata,
    ) -> Result<Outcome, StreamsError> {
        let outcome = if self.is_transactional() {
            self.commit_transaction(&offsets, &group)
                .await
                .map(|()| Outcome::Done)
                .map_err(Unsent::Client)
        } else {
            self.commit_offsets(offsets, consumer).await
        };
        match outcome {
            Ok(outcome) => Ok(outcome),
            Err(Unsent::Client(error)) if is_passing(&error) => Ok(Outcome::Refused(error)),
            Err(unsent) => Err(unsent.into()),
        }
    }

    async fn commit_transaction(
        &mut self,
        offsets: &HashMap<TopicPartition, Committed>,
        group: &GroupMetadata,
    ) -> Result<(), Error> {
        self.begin()?;
        self.producer.send_offsets(offsets, group).await?;
        self.producer.commit_transaction().await?;
        self.in_transaction = false;
        self.production.forget();
        self.take_deliveries().await
    }

    /// Waits for everything sent, and notes where it was written.
    async fn take_deliveries(&mut self) -> Result<(), Error> {
        for (partition, end) in self.deliveries.done().await? {
            let known = self.written.entry(partition).or_insert(0);
            *known = (*known).max(end);
        }
        Ok(())
    }

    /// The offsets behind what was written up to the last commit, by partition.
    pub(super) fn take_written(&mut self) -> HashMap<TopicPartition, i64> {
        std::mem::take(&mut self.written)
    }

    async fn commit_offsets(
        &mut self,
        offsets: HashMap<TopicPartition, Committed>,
        consumer: &Consumer,
    ) -> Result<Outcome, Unsent> {
        let flushed = self.producer.flush().await;
        if self.production.is_empty() {
            flushed?;
        }
        // Otherwise the deliveries say once more what failed.
        self.production.acknowledged(&self.producer).await?;
        self.take_deliveries().await?;
        match consumer.commit_with_metadata(offsets).await {
            Ok(()) => Ok(Outcome::Done),
            // Said again by the next commit, if the partitions are still ours then.
            Err(error) if is_of_another_generation(&error) || error.is_retriable() => {
                tracing::info!(%error, "offsets are committed later");
                Ok(Outcome::Later)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back what no commit has covered, with another producer where this one is at its end.
    pub(super) async fn take_back(&mut self) -> Result<(), Error> {
        self.deliveries.clear();
        self.production.forget();
        self.written.clear();
        if !self.in_transaction {
            return Ok(());
        }
        if let Err(error) = self.producer.abort_transaction().await {
            tracing::info!(%error, "another producer settles what this one left open");
            let producer = Producer::new(self.client.clone(), self.config.clone())?;
            producer.init_transactions().await?;
            self.producer = producer;
        }
        self.in_transaction = false;
        Ok(())
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        // What was not committed is processed again; a broker that cannot be told finds out when time runs out.
        if self.in_transaction {
            let _ = self.producer.abort_transaction().await;
        }
        self.producer.close().await
    }
}

/// Whether what failed may succeed when it is done anew: with another producer, in another generation, or later.
pub(super) fn is_passing(error: &Error) -> bool {
    if error.is_retriable() || is_of_another_generation(error) {
        return true;
    }
    match (error, error.code()) {
        (Error::Abortable { .. } | Error::TransactionFatal { .. }, Some(code)) => {
            code.is_retriable() || !is_refusal(code)
        }
        (Error::Abortable { .. } | Error::TransactionFatal { .. }, None) => true,
        _ => false,
    }
}

/// Codes that say that a record or its writer is not wanted, whoever sends it when.
fn is_refusal(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::InvalidRecord
            | ErrorCode::InvalidTimestamp
            | ErrorCode::PolicyViolation
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::TransactionalIdAuthorizationFailed
            | ErrorCode::InvalidTransactionTimeout
            | ErrorCode::UnsupportedVersion
            | ErrorCode::UnsupportedForMessageFormat
    )
}

/// Whether the group refused a commit because it has moved on since.
fn is_of_another_generation(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(
            ErrorCode::IllegalGeneration
                | ErrorCode::UnknownMemberId
                | ErrorCode::RebalanceInProgress
                | ErrorCode::StaleMemberEpoch
                | ErrorCode::FencedMemberEpoch
        )
    )
}

/// `linger.ms`, as Kafka Streams sets it.
const LINGER: Duration = Duration::from_millis(100);
/// `batch.size`: a commit sends all that caches held at once, and with this linger batches fill anyway.
const BATCH_BYTES: usize = 64 << 10;
/// A cluster that takes records more slowly than they are made fills this; more would only keep them longer.
const BUFFER_BYTES: usize = 8 << 20;

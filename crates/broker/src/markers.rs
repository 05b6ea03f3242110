//! Writes the markers that end transactions.
//!
//! A decision of a transaction coordinator must be durable before the first marker leaves, and the
//! coordinator hears of a marker once that is durable, too. Markers for `__consumer_offsets` go by
//! way of the group coordinator, which learns from them what became of pending offsets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleuve_coordinator::transaction::{Decision, MarkerOutcome, Producer};
use fleuve_protocol::records::EndTransactionMarker;
use fleuve_storage::AppendError;
use fleuve_types::{TimestampMs, TopicPartition};
use tokio::time::timeout;

use crate::groups::OFFSETS_TOPIC;
use crate::node::Node;
use crate::partition::Partition;
use crate::purgatory::AckWait;
use crate::transactions::MarkerJob;

/// How often a wait looks whether the broker is stopping.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A marker on its way into a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marker {
    /// Whose transaction ends; from version 2 on with an epoch above that of the transaction.
    pub(crate) producer: Producer,
    /// How it ends, and who says so.
    pub(crate) end: EndTransactionMarker,
    /// Whether the transaction is of version 2.
    pub(crate) raises_epoch: bool,
}

/// Why a marker is not in a partition's log.
#[derive(Debug)]
pub(crate) enum MarkerError {
    /// There is no such partition.
    Gone,
    /// The partition cannot take it now.
    Unavailable,
    /// The log refuses it.
    Refused(AppendError),
}

/// Writes the markers that coordinators want written, until the broker stops.
pub(crate) async fn deliver(node: Arc<Node>) {
    let Some(mut jobs) = node.transactions.take_marker_jobs() else { return };
    while let Some(job) = jobs.recv().await {
        tokio::spawn(deliver_one(Arc::clone(&node), job));
    }
}

async fn deliver_one(node: Arc<Node>, job: MarkerJob) {
    let MarkerJob { shard, markers, after } = job;
    if let Some(after) = after
        && !wait_for(&node, shard.partition(), after).await
    {
        if shard.partition().has_failed() && !node.is_stopping() {
            node.transactions.unload_failed(&shard);
        }
        return;
    }
    let marker = Marker {
        producer: markers.key.producer,
        end: EndTransactionMarker {
            committed: markers.key.decision == Decision::Commit,
            coordinator_epoch: markers.key.coordinator_epoch,
        },
        raises_epoch: markers.version.bumps_epoch(),
    };
    let mut outcomes = Vec::with_capacity(markers.partitions.len());
    let mut appended = Vec::new();
    for name in markers.partitions {
        match append(&node, &name, marker) {
            Ok((partition, next_offset)) => appended.push((name, partition, next_offset)),
            Err(error) => outcomes.push((name, error.outcome())),
        }
    }
    for (name, partition, next_offset) in appended {
        let outcome = match wait_for(&node, &partition, next_offset).await {
            true => MarkerOutcome::Written,
            false if partition.is_gone() => MarkerOutcome::PartitionGone,
            false => MarkerOutcome::Unavailable,
        };
        outcomes.push((name, outcome));
    }
    node.transactions.report_markers(&shard, &markers.key, &outcomes);
}

/// Appends a marker; returns where the high watermark has to be for it to be durable.
pub(crate) fn append(
    node: &Node,
    name: &TopicPartition,
    marker: Marker,
) -> Result<(Arc<Partition>, i64), MarkerError> {
    let topic = node.topics.by_name(&name.topic).ok_or(MarkerError::Gone)?;
    let partition = topic.partition(name.partition).ok_or(MarkerError::Gone)?;
    let next_offset = if *topic.name == *OFFSETS_TOPIC {
        node.groups.append_marker(name.partition, marker, now(node))?
    } else {
        let batch = batch(marker, now(node));
        let appended = partition.append_marker(batch, marker.raises_epoch);
        appended.map_err(|error| MarkerError::of(partition, error))?.next_offset
    };
    Ok((Arc::clone(partition), next_offset))
}

/// The control batch of a marker.
pub(crate) fn batch(marker: Marker, now: TimestampMs) -> Bytes {
    marker.end.to_batch(marker.producer.id, marker.producer.epoch, now)
}

impl MarkerError {
    /// Tells why `partition` did not take a marker.
    pub(crate) fn of(partition: &Partition, error: AppendError) -> Self {
        if partition.is_gone() { Self::Gone } else { Self::Refused(error) }
    }

    fn outcome(&self) -> MarkerOutcome {
        match self {
            Self::Gone => MarkerOutcome::PartitionGone,
            Self::Refused(AppendError::InvalidProducerEpoch { .. }) => {
                MarkerOutcome::ProducerFenced
            }
            Self::Refused(AppendError::TransactionCoordinatorFenced { .. }) => {
                MarkerOutcome::CoordinatorFenced
            }
            Self::Refused(_) | Self::Unavailable => MarkerOutcome::Unavailable,
        }
    }
}

/// Waits until the high watermark of `partition` has reached `offset`; reports whether it has.
pub(crate) async fn wait_for(node: &Node, partition: &Partition, offset: i64) -> bool {
    if partition.high_watermark() >= offset {
        return true;
    }
    let wait = AckWait::new(&node.purgatory, 1);
    partition.wait_for(offset, &wait);
    while timeout(LOOK_INTERVAL, wait.done()).await.is_err() {
        if node.is_stopping() {
            return false;
        }
    }
    partition.high_watermark() >= offset
}

fn now(node: &Node) -> TimestampMs {
    TimestampMs(node.clock.wall_ms())
}

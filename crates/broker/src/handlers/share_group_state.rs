//! InitializeShareGroupState, ReadShareGroupState, WriteShareGroupState, DeleteShareGroupState and
//! ReadShareGroupStateSummary: the states of share-partitions, for brokers that lead the partitions
//! and keep no state coordinator themselves (KIP-932).
//!
//! Versions 0, and 0–1 where the number of deliveries that are done with is told. Our own leaders
//! ask the same machine in this process. Unlike Kafka we refuse batches that no leader could mean.

use fleuve_coordinator::share_partition::{RecordState, StoredBatch};
use fleuve_coordinator::share_state::{
    ShareKey, ShareStateError, Summary, UNINITIALIZED_START, Written,
};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::delete_share_group_state_request::DeleteShareGroupStateRequest;
use fleuve_protocol::messages::delete_share_group_state_response as deleted;
use fleuve_protocol::messages::initialize_share_group_state_request::InitializeShareGroupStateRequest;
use fleuve_protocol::messages::initialize_share_group_state_response as initialized;
use fleuve_protocol::messages::read_share_group_state_request::ReadShareGroupStateRequest;
use fleuve_protocol::messages::read_share_group_state_response as read;
use fleuve_protocol::messages::read_share_group_state_summary_request::ReadShareGroupStateSummaryRequest;
use fleuve_protocol::messages::read_share_group_state_summary_response as summarized;
use fleuve_protocol::messages::write_share_group_state_request as write;
use fleuve_protocol::messages::write_share_group_state_response as written;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::permission;
use crate::request::{Context, Outcome};
use crate::share::{StateError, Stored};

/// Most batches of one share-partition in a request: as many as records may be locked at most.
const BATCHES_MAX: usize = 10_000;
/// Stands for a number that is not known or stays as it is.
const UNCHANGED: i64 = -1;

/// Why nothing comes of a partition.
type Refusal = (ErrorCode, Option<Str>);

/// What is answered for one partition, and what has to be durable first.
type Decided<R> = (R, Result<Option<Stored>, Refusal>);

/// InitializeShareGroupState.
pub(crate) fn initialize(
    context: &Context,
    request: InitializeShareGroupStateRequest,
) -> Outcome<initialized::InitializeShareGroupStateResponse> {
    let group = request.group_id;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let result =
                initialized::PartitionResult { partition: asked.partition, ..Default::default() };
            let outcome = key(context, &group, topic.topic_id, asked.partition).and_then(|key| {
                let states = &context.node.shares.states;
                let stored = states.initialize(&key, asked.state_epoch, asked.start_offset);
                stored.map(Some).map_err(refusal)
            });
            partitions.push((result, outcome));
        }
        topics.push((topic.topic_id, partitions));
    }
    settle(context, topics, |topics| initialized::InitializeShareGroupStateResponse {
        results: topics
            .map(|(topic_id, partitions)| initialized::InitializeStateResult {
                topic_id,
                partitions,
            })
            .collect(),
    })
}

/// ReadShareGroupState.
pub(crate) fn read(
    context: &Context,
    request: ReadShareGroupStateRequest,
) -> Outcome<read::ReadShareGroupStateResponse> {
    let group = request.group_id;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let mut result =
                read::PartitionResult { partition: asked.partition, ..Default::default() };
            let found = key(context, &group, topic.topic_id, asked.partition).and_then(|key| {
                context.node.shares.states.read(&key, asked.leader_epoch).map_err(refusal)
            });
            let outcome = found.map(|(state, stored)| {
                result.state_epoch = state.state_epoch;
                result.start_offset = state.start_offset;
                let batches = state.batches.iter().map(|batch| read::StateBatch {
                    first_offset: batch.first,
                    last_offset: batch.last,
                    delivery_state: batch.state.code(),
                    delivery_count: batch.delivery_count,
                });
                result.state_batches = batches.collect();
                stored
            });
            partitions.push((result, outcome));
        }
        topics.push((topic.topic_id, partitions));
    }
    settle(context, topics, |topics| read::ReadShareGroupStateResponse {
        results: topics
            .map(|(topic_id, partitions)| read::ReadStateResult { topic_id, partitions })
            .collect(),
    })
}

/// WriteShareGroupState.
pub(crate) fn write(
    context: &Context,
    request: write::WriteShareGroupStateRequest,
) -> Outcome<written::WriteShareGroupStateResponse> {
    let group = request.group_id;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let result =
                written::PartitionResult { partition: asked.partition, ..Default::default() };
            let outcome = key(context, &group, topic.topic_id, asked.partition)
                .and_then(|key| Ok((key, meant(&asked)?)))
                .and_then(|(key, meant)| {
                    context.node.shares.states.write(&key, &meant).map(Some).map_err(refusal)
                });
            partitions.push((result, outcome));
        }
        topics.push((topic.topic_id, partitions));
    }
    settle(context, topics, |topics| written::WriteShareGroupStateResponse {
        results: topics
            .map(|(topic_id, partitions)| written::WriteStateResult { topic_id, partitions })
            .collect(),
    })
}

/// DeleteShareGroupState.
pub(crate) fn delete(
    context: &Context,
    request: DeleteShareGroupStateRequest,
) -> Outcome<deleted::DeleteShareGroupStateResponse> {
    let group = request.group_id;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let result =
                deleted::PartitionResult { partition: asked.partition, ..Default::default() };
            let outcome = key(context, &group, topic.topic_id, asked.partition)
                .and_then(|key| context.node.shares.states.delete(&key).map_err(refusal));
            partitions.push((result, outcome));
        }
        topics.push((topic.topic_id, partitions));
    }
    settle(context, topics, |topics| deleted::DeleteShareGroupStateResponse {
        results: topics
            .map(|(topic_id, partitions)| deleted::DeleteStateResult { topic_id, partitions })
            .collect(),
    })
}

/// ReadShareGroupStateSummary.
pub(crate) fn summarize(
    context: &Context,
    request: ReadShareGroupStateSummaryRequest,
) -> Outcome<summarized::ReadShareGroupStateSummaryResponse> {
    /// What is told of a state that never began.
    const NOTHING: Summary = Summary {
        start_offset: UNINITIALIZED_START,
        state_epoch: 0,
        leader_epoch: 0,
        delivery_complete_count: -1,
    };
    let group = request.group_id;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let mut result =
                summarized::PartitionResult { partition: asked.partition, ..Default::default() };
            let found = key(context, &group, topic.topic_id, asked.partition)
                .and_then(|key| context.node.shares.states.summary(&key).map_err(refusal));
            let outcome = found.map(|summary| {
                let summary = summary.unwrap_or(NOTHING);
                result.state_epoch = summary.state_epoch;
                result.leader_epoch = summary.leader_epoch;
                result.start_offset = summary.start_offset;
                result.delivery_complete_count = summary.delivery_complete_count;
                None
            });
            partitions.push((result, outcome));
        }
        topics.push((topic.topic_id, partitions));
    }
    settle(context, topics, |topics| summarized::ReadShareGroupStateSummaryResponse {
        results: topics
            .map(|(topic_id, partitions)| summarized::ReadStateSummaryResult {
                topic_id,
                partitions,
            })
            .collect(),
    })
}

/// Names the state that a request is about, if there can be one and the sender may.
fn key(
    context: &Context,
    group: &Str,
    topic_id: Uuid,
    partition: i32,
) -> Result<ShareKey, Refusal> {
    permission::cluster(context, AclOperation::ClusterAction)
        .map_err(|code| (code, Some(Str::from(code.message()))))?;
    if group.is_empty() || topic_id.is_zero() || partition < 0 {
        let text = "a group, a topic's id and a partition are needed";
        return Err((ErrorCode::InvalidRequest, Some(Str::from(text))));
    }
    let topic = context.node.topics.by_id(&topic_id);
    if topic.as_ref().and_then(|topic| topic.partition(partition)).is_none() {
        let text = format!("there is no partition {topic_id}-{partition}");
        return Err((ErrorCode::UnknownTopicOrPartition, Some(Str::from(text))));
    }
    Ok(ShareKey { group: group.detach(), topic_id, partition })
}

/// Reads what a leader wants written.
fn meant(asked: &write::PartitionData) -> Result<Written, Refusal> {
    let invalid = |text: &'static str| (ErrorCode::InvalidRequest, Some(Str::from(text)));
    if asked.start_offset < UNCHANGED || i64::from(asked.delivery_complete_count) < UNCHANGED {
        return Err(invalid("a start or a count is negative"));
    }
    if asked.state_batches.len() > BATCHES_MAX {
        return Err(invalid("there are more batches than records can be locked"));
    }
    let batches = asked.state_batches.iter().map(|batch| {
        let state = RecordState::from_code(batch.delivery_state);
        let state = state.filter(|state| *state != RecordState::Acquired)?;
        let is_sound = batch.first_offset >= 0
            && batch.last_offset >= batch.first_offset
            && batch.delivery_count >= 0;
        is_sound.then_some(StoredBatch {
            first: batch.first_offset,
            last: batch.last_offset,
            state,
            delivery_count: batch.delivery_count,
        })
    });
    let batches: Option<Vec<StoredBatch>> = batches.collect();
    Ok(Written {
        state_epoch: asked.state_epoch,
        leader_epoch: asked.leader_epoch,
        start_offset: asked.start_offset,
        delivery_complete_count: asked.delivery_complete_count,
        batches: batches.ok_or_else(|| invalid("a batch has no such offsets, count or state"))?,
    })
}

fn refusal(error: StateError) -> Refusal {
    let code = match error {
        StateError::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        StateError::Refused(ShareStateError::Uninitialized) => ErrorCode::InvalidRequest,
        StateError::Refused(ShareStateError::FencedLeaderEpoch) => ErrorCode::FencedLeaderEpoch,
        StateError::Refused(ShareStateError::FencedStateEpoch) => ErrorCode::FencedStateEpoch,
    };
    (code, Some(Str::from(error.to_string())))
}

/// The answer for one partition, which may become an error.
trait PartitionAnswer: Send + 'static {
    /// Makes it the answer of a refusal, which tells nothing else.
    fn refuse(&mut self, refusal: Refusal);
}

macro_rules! partition_answers {
    ($($kind:ty),+) => {
        $(impl PartitionAnswer for $kind {
            fn refuse(&mut self, (code, error_message): Refusal) {
                let partition = self.partition;
                *self = Self::default();
                self.partition = partition;
                self.error_code = code.code();
                self.error_message = error_message;
            }
        })+
    };
}

partition_answers!(
    initialized::PartitionResult,
    read::PartitionResult,
    written::PartitionResult,
    deleted::PartitionResult,
    summarized::PartitionResult
);

/// Waits until everything that was decided is durable, and answers.
fn settle<R: PartitionAnswer, T>(
    context: &Context,
    topics: Vec<(Uuid, Vec<Decided<R>>)>,
    response: impl FnOnce(std::vec::IntoIter<(Uuid, Vec<R>)>) -> T + Send + 'static,
) -> Outcome<T> {
    let context = context.clone();
    Outcome::later(async move {
        let mut settled = Vec::with_capacity(topics.len());
        for (topic_id, partitions) in topics {
            let mut results = Vec::with_capacity(partitions.len());
            for (mut result, outcome) in partitions {
                let outcome = match outcome {
                    Ok(Some(stored)) => {
                        context.node.shares.states.durable(&stored).await.map_err(refusal)
                    }
                    Ok(None) => Ok(()),
                    Err(refusal) => Err(refusal),
                };
                if let Err(refusal) = outcome {
                    result.refuse(refusal);
                }
                results.push(result);
            }
            settled.push((topic_id, results));
        }
        response(settled.into_iter())
    })
}

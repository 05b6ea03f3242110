//! What leaders say about batches, and what that means for them.

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::produce_response::{PartitionProduceResponse, ProduceResponse};
use fleuve_types::{TopicPartition, Uuid};

use super::batch::Written;
use crate::error::{Error, code_of};

/// Why a batch was not acknowledged.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) fate: Fate,
}

/// What a failure says about the batch's presence in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is not there.
    Absent,
    /// Nobody can tell.
    Unknown,
}

impl Failure {
    /// A failure of the whole request.
    pub(super) fn of_request(error: &Error) -> Self {
        let fate = match error {
            Error::Disconnected { maybe_sent, .. } if !maybe_sent => Fate::Absent,
            Error::Unsupported { .. } | Error::Encode { .. } => Fate::Absent,
            _ => Fate::Unknown,
        };
        Self { error: error.clone(), fate }
    }
}

/// The answers of one response.
pub(super) struct Answers {
    response: ProduceResponse,
}

impl Answers {
    pub(super) fn new(response: ProduceResponse) -> Self {
        Self { response }
    }

    /// Returns what the leader says about a batch for `partition` of the topic with this id.
    pub(super) fn of(
        &self,
        partition: &TopicPartition,
        topic_id: Uuid,
    ) -> Result<Written, Failure> {
        let answer = self
            .response
            .responses
            .iter()
            .filter(|topic| {
                if topic.topic_id.is_zero() {
                    *topic.name == *partition.topic
                } else {
                    topic.topic_id == topic_id
                }
            })
            .flat_map(|topic| &topic.partition_responses)
            .find(|answer| answer.index == partition.partition);
        let Some(answer) = answer else {
            let error = Error::Protocol {
                broker: "of the partition".to_owned(),
                operation: "Produce",
                reason: format!("it does not answer for {partition}"),
            };
            return Err(Failure { error, fate: Fate::Unknown });
        };
        match code_of(answer.error_code) {
            // A duplicate is in the log; where, the leader does not say.
            ErrorCode::None | ErrorCode::DuplicateSequenceNumber => Ok(Written {
                base_offset: answer.base_offset,
                log_append_time: answer.log_append_time_ms,
            }),
            code => Err(Failure {
                error: explain(partition.to_string(), code, answer),
                fate: fate_of(code),
            }),
        }
    }
}

fn explain(subject: String, code: ErrorCode, answer: &PartitionProduceResponse) -> Error {
    let of_record =
        answer.record_errors.iter().find_map(|error| error.batch_index_error_message.as_deref());
    Error::broker_said(subject, code, answer.error_message.as_deref().or(of_record))
}

fn fate_of(code: ErrorCode) -> Fate {
    match code {
        // The next two come also when leadership or the topic goes away while followers are waited for.
        ErrorCode::NotLeaderOrFollower
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::RequestTimedOut
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::UnknownServerError
        | ErrorCode::KafkaStorageError => Fate::Unknown,
        _ => Fate::Absent,
    }
}

pub(super) fn needs_refresh(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::KafkaStorageError
            | ErrorCode::ReplicaNotAvailable
    )
}

//! Produce, versions 3–13: appending record batches.
//!
//! Clients are told of versions from 0 on, see the table in `dispatch`. Departs from Kafka in that
//! a transaction cannot begin with a request that wants no acknowledgement, that a batch cannot be of
//! a transaction without being of a producer, and in what becomes of batches whose records do not
//! count up from their base offset (see `examine.rs` in `storage`). Hints at another leader (KIP-951)
//! are never given, because every partition is led here.
//!
//! Appends happen here and now, in the order of the requests. What may come later is the answer
//! to `acks=all`: it waits in the purgatory until the high watermark has passed the batches.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use fleuve_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use fleuve_protocol::records::{BatchError, BatchHeader, Compression};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_storage::{AppendError, LogError, TransactionCheck};
use tokio::time::timeout;

use super::produce_transactions::{self, Admission, Checks};
use super::{errors, permission};
use crate::connection::CloseReason;
use crate::metrics::TopicCounters;
use crate::partition::{Appended, Partition};
use crate::purgatory::AckWait;
use crate::request::{Context, Outcome};
use crate::topics::Topic;

const TOPIC_IDS_FROM: i16 = 13;
const ZSTD_FROM: i16 = 7;
/// The client id under which Kafka's own tools may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

const ACKS_ALL: i16 = -1;
const ACKS_LEADER: i16 = 1;
const ACKS_NONE: i16 = 0;

const UNKNOWN: i64 = -1;

/// Why a partition's batch was not appended.
struct Refusal {
    code: ErrorCode,
    message: String,
    /// Single records that are to blame, by their position in the batch.
    records: Vec<(i32, String)>,
    /// Where the partition begins, which is told if its log found fault with the batch.
    log_start_offset: i64,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let (records, log_start_offset) = (Vec::new(), UNKNOWN);
        Self { code, message: message.into(), records, log_start_offset }
    }

    fn of(error: AppendError, partition: &Partition) -> Self {
        let code = errors::append(&error);
        let log_start_offset = match code {
            ErrorCode::CorruptMessage
            | ErrorCode::KafkaStorageError
            | ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge => UNKNOWN,
            _ => partition.log_start_offset(),
        };
        let refusal = Self { log_start_offset, ..Self::new(code, error.to_string()) };
        match error {
            AppendError::InvalidRecords(found) => Self { records: found.faults, ..refusal },
            _ => refusal,
        }
    }
}

/// An appended batch whose acknowledgement has to wait.
struct Unacknowledged {
    topic_index: usize,
    partition_index: usize,
    partition: Arc<Partition>,
    next_offset: i64,
}

pub(crate) fn handle(context: &Context, request: ProduceRequest) -> Outcome<ProduceResponse> {
    let refuse_all = |request, code| produce(context, request, Some(code), &Checks::default());
    if !matches!(request.acks, ACKS_ALL | ACKS_LEADER | ACKS_NONE) {
        return refuse_all(request, ErrorCode::InvalidRequiredAcks);
    }
    let question = match produce_transactions::admit(context, &request) {
        Admission::Ready(checks) => return produce(context, request, None, &checks),
        Admission::Refused(code) => return refuse_all(request, code),
        Admission::Ask(_) if request.acks == ACKS_NONE => {
            return refuse_all(request, ErrorCode::InvalidRequiredAcks);
        }
        Admission::Ask(question) => question,
    };
    let context = context.clone();
    // The producer's next batches must not overtake these.
    Outcome::barrier(async move {
        let checks = question.ask(&context).await;
        match produce(&context, request, None, &checks) {
            Outcome::Now(response) => response,
            Outcome::Later(response) | Outcome::Barrier(response) => response.await,
            Outcome::Silence | Outcome::Close(_) => {
                unreachable!("only requests without acknowledgement get no answer")
            }
        }
    })
}

/// Appends what the request brings, or refuses all of it.
fn produce(
    context: &Context,
    request: ProduceRequest,
    refusal: Option<ErrorCode>,
    checks: &Checks,
) -> Outcome<ProduceResponse> {
    let ProduceRequest { acks, timeout_ms, topic_data, .. } = request;
    let mut unacknowledged = Vec::new();
    let mut failures = 0;
    let mut response = ProduceResponse::default();
    for (topic_index, topic_data) in topic_data.into_iter().enumerate() {
        let topic = match refusal {
            Some(code) => Err(code),
            None => find_permitted(context, &topic_data),
        };
        let mut topic_response = TopicProduceResponse {
            // The client's own text would keep the whole request in memory until it is answered.
            name: match &topic {
                Ok(topic) if context.version < TOPIC_IDS_FROM => topic.name.clone(),
                _ => topic_data.name.detach(),
            },
            topic_id: topic_data.topic_id,
            partition_responses: Vec::with_capacity(topic_data.partition_data.len()),
        };
        for (partition_index, data) in topic_data.partition_data.into_iter().enumerate() {
            let index = data.index;
            let outcome = match &topic {
                Ok(topic) => checks
                    .of((topic_index, partition_index))
                    .map_err(|(code, message)| Refusal::new(code, message))
                    .and_then(|check| append(context, topic, data, check)),
                Err(code) => Err(Refusal::new(*code, code.message())),
            };
            let partition_response = match outcome {
                Ok((partition, appended)) => {
                    if acks == ACKS_ALL && partition.high_watermark() < appended.next_offset {
                        unacknowledged.push(Unacknowledged {
                            topic_index,
                            partition_index,
                            partition,
                            next_offset: appended.next_offset,
                        });
                    }
                    acknowledge(index, &appended)
                }
                Err(refusal) => {
                    failures += 1;
                    refuse(index, refusal)
                }
            };
            topic_response.partition_responses.push(partition_response);
        }
        response.responses.push(topic_response);
    }
    if acks == ACKS_NONE {
        return if failures == 0 {
            Outcome::Silence
        } else {
            // The client learns of it by losing the connection, and asks for fresh metadata.
            Outcome::Close(CloseReason::Unacknowledged(describe_failures(&response)))
        };
    }
    if unacknowledged.is_empty() {
        return Outcome::Now(response);
    }
    let wait = AckWait::new(&context.node.purgatory, unacknowledged.len());
    for waiting in &unacknowledged {
        waiting.partition.wait_for(waiting.next_offset, &wait);
    }
    let patience = Duration::from_millis(timeout_ms.max(0) as u64);
    let purgatory = Arc::clone(&context.node.purgatory);
    Outcome::later(async move {
        // Whether it was in time is read off the partitions themselves.
        if timeout(patience, wait.done()).await.is_err() {
            purgatory.note_expired_produce();
        }
        for waiting in unacknowledged {
            let code = if waiting.partition.is_gone() {
                ErrorCode::UnknownTopicOrPartition
            } else if waiting.partition.has_failed() {
                ErrorCode::KafkaStorageError
            } else if waiting.partition.high_watermark() < waiting.next_offset {
                ErrorCode::RequestTimedOut
            } else {
                continue;
            };
            let topic = &mut response.responses[waiting.topic_index];
            topic.partition_responses[waiting.partition_index].error_code = code.code();
        }
        response
    })
}

/// Finds the topic if the client may write to it; whether a topic of that name exists is told only
/// to those who may.
fn find_permitted(context: &Context, data: &TopicProduceData) -> Result<Arc<Topic>, ErrorCode> {
    if context.version < TOPIC_IDS_FROM {
        permission::topic(context, AclOperation::Write, &data.name)?;
        return find_topic(context, data);
    }
    let topic = find_topic(context, data)?;
    permission::topic(context, AclOperation::Write, &topic.name)?;
    Ok(topic)
}

pub(super) fn find_topic(
    context: &Context,
    data: &TopicProduceData,
) -> Result<Arc<Topic>, ErrorCode> {
    let topics = &context.node.topics;
    if context.version >= TOPIC_IDS_FROM {
        topics.by_id(&data.topic_id).ok_or(ErrorCode::UnknownTopicId)
    } else {
        topics.by_name(&data.name).ok_or(ErrorCode::UnknownTopicOrPartition)
    }
}

fn append(
    context: &Context,
    topic: &Arc<Topic>,
    data: PartitionProduceData,
    check: TransactionCheck,
) -> Result<(Arc<Partition>, Appended), Refusal> {
    let all = &context.node.counters;
    topic.counters.produce_requests.add(1);
    all.produce_requests.add(1);
    let bytes_sent = data.records.as_ref().map_or(0, Bytes::len);
    let appended = (|| {
        let Some(partition) = topic.partition(data.index) else {
            let code = ErrorCode::UnknownTopicOrPartition;
            return Err(Refusal::new(code, code.message()));
        };
        let records = data.records.unwrap_or_default();
        let header = check_batch(context.version, &records)?;
        if topic.internal && context.client_id != *ADMIN_CLIENT_ID {
            let code = ErrorCode::InvalidTopicException;
            return Err(Refusal::new(code, "internal topics are written by the broker alone"));
        }
        let (count, bytes) = (header.count.max(0) as u64, records.len() as u64);
        let appended =
            partition.append_from_client(records, context.frame_bytes, check).map_err(|error| {
                if partition.is_gone() {
                    let code = ErrorCode::UnknownTopicOrPartition;
                    return Refusal::new(code, code.message());
                }
                // A log that has failed said so when it did, and refuses everything since.
                if let AppendError::Log(LogError::Disk(error)) = &error {
                    tracing::warn!(partition = %partition.name(), %error, "append failed");
                }
                if let AppendError::Batch(BatchError::DecompressedTooLarge { .. }) = &error {
                    context.node.bombs.add(1);
                }
                Refusal::of(error, partition)
            })?;
        if appended.is_duplicate {
            return Ok((Arc::clone(partition), appended));
        }
        for counters in [all, &*topic.counters] {
            counters.messages_in.add(count);
            counters.bytes_in.add(bytes);
        }
        Ok((Arc::clone(partition), appended))
    })();
    if let Err(refusal) = &appended {
        for counters in [all, &*topic.counters] {
            count_refusal(counters, refusal.code, bytes_sent);
        }
    }
    appended
}

fn count_refusal(counters: &TopicCounters, code: ErrorCode, bytes: usize) {
    counters.failed_produce_requests.add(1);
    match code {
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => {
            counters.bytes_rejected.add(bytes as u64);
        }
        ErrorCode::CorruptMessage => counters.invalid_crc.add(1),
        ErrorCode::OutOfOrderSequenceNumber => counters.invalid_sequence.add(1),
        ErrorCode::InvalidRecord => counters.invalid_format.add(1),
        _ => {}
    }
}

/// Checks what depends on the version of the request and not on the log.
fn check_batch(version: i16, records: &Bytes) -> Result<BatchHeader, Refusal> {
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidRecord, message);
    if records.is_empty() {
        return Err(invalid("a partition without a record batch".to_owned()));
    }
    if records.len() > MAGIC_POSITION && records[MAGIC_POSITION] != MAGIC_V2 {
        let magic = records[MAGIC_POSITION];
        return Err(invalid(format!("record format {magic}; only format 2 is accepted")));
    }
    let header = BatchHeader::parse(records)
        .map_err(|error| Refusal::new(ErrorCode::CorruptMessage, error.to_string()))?;
    if records.len() > header.size() {
        return Err(invalid("more than one record batch for a partition".to_owned()));
    }
    if version < ZSTD_FROM && matches!(header.attributes.compression(), Ok(Compression::Zstd)) {
        let message = format!("zstd needs Produce version {ZSTD_FROM}");
        return Err(Refusal::new(ErrorCode::UnsupportedCompressionType, message));
    }
    Ok(header)
}

/// Position of the format's number in a batch, in every format.
const MAGIC_POSITION: usize = 16;
const MAGIC_V2: u8 = 2;

fn acknowledge(index: i32, appended: &Appended) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time_ms,
        log_start_offset: appended.log_start_offset,
        ..Default::default()
    }
}

fn refuse(index: i32, refusal: Refusal) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: refusal.code.code(),
        base_offset: UNKNOWN,
        log_start_offset: refusal.log_start_offset,
        record_errors: refusal.records.into_iter().map(describe_record).collect(),
        error_message: Some(Str::from(refusal.message)),
        ..Default::default()
    }
}

fn describe_record((batch_index, reason): (i32, String)) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage { batch_index, batch_index_error_message: Some(Str::from(reason)) }
}

fn describe_failures(response: &ProduceResponse) -> String {
    let mut text = String::new();
    for topic in &response.responses {
        for partition in topic.partition_responses.iter().filter(|p| p.error_code != 0) {
            let code = ErrorCode::from_code(partition.error_code).unwrap_or_default();
            if !text.is_empty() {
                text.push_str(", ");
            }
            let (name, index) = (&topic.name, partition.index);
            text.push_str(&format!("{name}-{index}: {}", code.name()));
        }
    }
    text
}

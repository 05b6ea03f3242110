//! A small honest broker: enough of one for a producer, with transactions or without, and for a group of one member.
//! What it knows of transactions is in [`super::coordinator`].

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fleuve_protocol::frame::RequestFrame;
use fleuve_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use fleuve_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use fleuve_protocol::messages::fetch_request::FetchRequest;
use fleuve_protocol::messages::fetch_response::{
    FetchResponse, FetchableTopicResponse, PartitionData,
};
use fleuve_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use fleuve_protocol::messages::heartbeat_response::HeartbeatResponse;
use fleuve_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use fleuve_protocol::messages::join_group_request::JoinGroupRequest;
use fleuve_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use fleuve_protocol::messages::leave_group_response::LeaveGroupResponse;
use fleuve_protocol::messages::list_offsets_request::ListOffsetsRequest;
use fleuve_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use fleuve_protocol::messages::offset_commit_request::OffsetCommitRequest;
use fleuve_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use fleuve_protocol::messages::offset_fetch_request::OffsetFetchRequest;
use fleuve_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
};
use fleuve_protocol::messages::produce_request::ProduceRequest;
use fleuve_protocol::messages::produce_response::{
    PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use fleuve_protocol::messages::sync_group_request::SyncGroupRequest;
use fleuve_protocol::messages::sync_group_response::SyncGroupResponse;
use fleuve_protocol::records::{BatchHeader, RecordIter, layout, sequence_plus};
use fleuve_protocol::{ApiKey, ErrorCode};

use super::coordinator::{TransactionCoordinator, is_transactional};
use crate::scripted::{Reply, TOPIC_ID, body, metadata, send};

/// Partitions of the topic.
const PARTITIONS: i32 = 2;

/// What the broker remembers.
#[derive(Default)]
pub(super) struct Model {
    pub(super) logs: [Log; PARTITIONS as usize],
    pub(super) coordinator: TransactionCoordinator,
    producers: i64,
    generation: i32,
    member_epoch: i32,
    committed: HashMap<i32, i64>,
}

#[derive(Default)]
pub(super) struct Log {
    batches: Vec<Stored>,
    end: i64,
    /// By producer and its epoch: the batches it wrote.
    numbers: HashMap<(i64, i16), Vec<Numbered>>,
    /// The newest epoch of each producer.
    pub(super) epochs: HashMap<i64, i16>,
}

/// First number, count and offset of a batch.
type Numbered = (i32, i32, i64);

struct Stored {
    base: i64,
    bytes: Bytes,
    /// The transaction it belongs to.
    transaction: Option<u64>,
}

impl Log {
    fn append(&mut self, bytes: &Bytes, transaction: Option<u64>) -> Result<i64, ErrorCode> {
        let header = BatchHeader::parse(bytes).map_err(|_| ErrorCode::CorruptMessage)?;
        header.verify_crc(bytes).map_err(|_| ErrorCode::CorruptMessage)?;
        let (producer, epoch) = (header.producer_id.0, header.producer_epoch.0);
        // Who is not known yet may begin anywhere, unless a transaction was verified for it.
        let begins_anywhere =
            !header.attributes.is_transactional() && !self.epochs.contains_key(&producer);
        let newest = self.epochs.entry(producer).or_insert(epoch);
        if *newest > epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        *newest = epoch;
        let numbers = self.numbers.entry((producer, epoch)).or_default();
        if let Some((_, _, offset)) = numbers
            .iter()
            .find(|(first, count, _)| (*first, *count) == (header.base_sequence, header.count))
        {
            return Ok(*offset);
        }
        let expected = numbers.last().map_or(0, |(first, count, _)| sequence_plus(*first, *count));
        if header.base_sequence != expected && !begins_anywhere {
            return Err(ErrorCode::OutOfOrderSequenceNumber);
        }
        let offset = self.end;
        numbers.push((header.base_sequence, header.count, offset));
        let mut stored = BytesMut::from(&bytes[..]);
        stored[..8].copy_from_slice(&offset.to_be_bytes());
        self.end += i64::from(header.count);
        self.batches.push(Stored { base: offset, bytes: stored.freeze(), transaction });
        Ok(offset)
    }
}

impl Model {
    /// Returns everything in the logs: partition, offset and value.
    pub(super) fn values(&self) -> Vec<(i32, i64, String)> {
        self.values_of(|_| true)
    }

    /// Returns what stands in the logs in transactions that `chosen` wants.
    pub(super) fn values_of(
        &self,
        chosen: impl Fn(Option<u64>) -> bool,
    ) -> Vec<(i32, i64, String)> {
        let mut values = Vec::new();
        for (partition, log) in self.logs.iter().enumerate() {
            for Stored { bytes, .. } in log.batches.iter().filter(|s| chosen(s.transaction)) {
                let header = BatchHeader::parse(bytes).expect("checked before");
                let records = bytes.slice(layout::HEADER_SIZE..);
                for record in RecordIter::new(&header, &records) {
                    let record = record.expect("our own records");
                    let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                    values.push((partition as i32, record.offset.0, value.into_owned()));
                }
            }
        }
        values
    }

    /// Answers with an error and does nothing.
    pub(super) fn refuse(&mut self, request: &RequestFrame, code: ErrorCode) -> Reply {
        self.reply(request, Some(code), false)
    }

    /// Does what is asked, and answers with an error if one is given.
    pub(super) fn answer(&mut self, request: &RequestFrame, code: Option<ErrorCode>) -> Reply {
        self.reply(request, code, true)
    }

    fn reply(&mut self, request: &RequestFrame, error: Option<ErrorCode>, act: bool) -> Reply {
        let error_code = error.unwrap_or(ErrorCode::None).code();
        match request.key {
            ApiKey::ApiVersions => send(request, &self.coordinator.versions()),
            ApiKey::Metadata => {
                let mut response = metadata(PARTITIONS);
                response.topics[0].error_code = error_code;
                send(request, &response)
            }
            ApiKey::InitProducerId if is_transactional(request) => {
                self.init_transactional(request, error, act)
            }
            ApiKey::AddPartitionsToTxn
            | ApiKey::AddOffsetsToTxn
            | ApiKey::TxnOffsetCommit
            | ApiKey::EndTxn => self.transact(request, error, act),
            ApiKey::InitProducerId => {
                self.producers += 1;
                let producer_id = if error.is_some() { -1 } else { self.producers };
                let response =
                    InitProducerIdResponse { error_code, producer_id, ..Default::default() };
                send(request, &response)
            }
            ApiKey::Produce => self.produce(request, error, act),
            ApiKey::FindCoordinator => {
                let coordinator = Coordinator {
                    node_id: if error.is_some() { -1 } else { 1 },
                    host: "broker".into(),
                    port: 9092,
                    error_code,
                    ..Coordinator::default()
                };
                let coordinators = vec![coordinator];
                send(request, &FindCoordinatorResponse { coordinators, ..Default::default() })
            }
            ApiKey::JoinGroup => self.join(request, error_code),
            ApiKey::SyncGroup => {
                let asked: SyncGroupRequest = body(request);
                let mine = asked.assignments.into_iter().next();
                let assignment = mine.map(|mine| mine.assignment).unwrap_or_default();
                send(request, &SyncGroupResponse { error_code, assignment, ..Default::default() })
            }
            ApiKey::Heartbeat => {
                send(request, &HeartbeatResponse { error_code, ..Default::default() })
            }
            ApiKey::LeaveGroup => {
                send(request, &LeaveGroupResponse { error_code, ..Default::default() })
            }
            ApiKey::ConsumerGroupHeartbeat => self.heartbeat(request, error),
            ApiKey::OffsetCommit => self.commit(request, error_code, act),
            ApiKey::OffsetFetch => self.fetch_offsets(request, error_code),
            ApiKey::ListOffsets => self.list_offsets(request, error_code),
            ApiKey::Fetch => self.fetch(request, error_code),
            other => panic!("{other:?} was not expected"),
        }
    }

    fn produce(&mut self, request: &RequestFrame, error: Option<ErrorCode>, act: bool) -> Reply {
        let asked: ProduceRequest = body(request);
        let topics = asked.topic_data.into_iter().map(|topic| {
            let partitions = topic.partition_data.into_iter().map(|data| {
                let log = &mut self.logs[data.index as usize];
                let records = data.records.expect("records");
                let mut write = || {
                    let transaction =
                        self.coordinator.enrol(&records, data.index, request.version)?;
                    log.append(&records, transaction)
                };
                let written = if act { write() } else { Ok(-1) };
                let (code, base_offset) = match (error, written) {
                    (Some(code), _) | (None, Err(code)) => (code, -1),
                    (None, Ok(offset)) => (ErrorCode::None, offset),
                };
                PartitionProduceResponse {
                    index: data.index,
                    error_code: code.code(),
                    base_offset,
                    ..PartitionProduceResponse::default()
                }
            });
            TopicProduceResponse {
                topic_id: topic.topic_id,
                name: topic.name,
                partition_responses: partitions.collect(),
            }
        });
        send(request, &ProduceResponse { responses: topics.collect(), ..Default::default() })
    }

    fn join(&mut self, request: &RequestFrame, error_code: i16) -> Reply {
        let asked: JoinGroupRequest = body(request);
        if error_code != 0 {
            let response = JoinGroupResponse {
                error_code,
                // Comes with the code that asks the member to use it.
                member_id: "given".into(),
                ..JoinGroupResponse::default()
            };
            return send(request, &response);
        }
        self.generation += 1;
        let protocol = &asked.protocols[0];
        let member = JoinGroupResponseMember {
            member_id: "member".into(),
            metadata: protocol.metadata.clone(),
            ..JoinGroupResponseMember::default()
        };
        let response = JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: Some("consumer".into()),
            protocol_name: Some(protocol.name.clone()),
            leader: "member".into(),
            member_id: "member".into(),
            members: vec![member],
            ..JoinGroupResponse::default()
        };
        send(request, &response)
    }

    fn heartbeat(&mut self, request: &RequestFrame, error: Option<ErrorCode>) -> Reply {
        let asked: ConsumerGroupHeartbeatRequest = body(request);
        if let Some(code) = error {
            let error_code = code.code();
            let response = ConsumerGroupHeartbeatResponse { error_code, ..Default::default() };
            return send(request, &response);
        }
        if asked.member_epoch <= 0 {
            self.member_epoch += 1;
        }
        let partitions = TopicPartitions { topic_id: TOPIC_ID, partitions: vec![0, 1] };
        let joining = asked.member_epoch == 0;
        let response = ConsumerGroupHeartbeatResponse {
            member_id: Some(asked.member_id),
            member_epoch: if asked.member_epoch < 0 {
                asked.member_epoch
            } else {
                self.member_epoch
            },
            heartbeat_interval_ms: 1000,
            assignment: joining.then(|| Assignment { topic_partitions: vec![partitions] }),
            ..ConsumerGroupHeartbeatResponse::default()
        };
        send(request, &response)
    }

    fn commit(&mut self, request: &RequestFrame, error_code: i16, act: bool) -> Reply {
        let asked: OffsetCommitRequest = body(request);
        let topics = asked.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                if act && error_code == 0 {
                    self.committed.insert(partition.partition_index, partition.committed_offset);
                }
                let partition_index = partition.partition_index;
                OffsetCommitResponsePartition { partition_index, error_code }
            });
            OffsetCommitResponseTopic {
                name: topic.name,
                partitions: partitions.collect(),
                ..OffsetCommitResponseTopic::default()
            }
        });
        send(request, &OffsetCommitResponse { topics: topics.collect(), ..Default::default() })
    }

    fn fetch_offsets(&self, request: &RequestFrame, error_code: i16) -> Reply {
        let asked: OffsetFetchRequest = body(request);
        let groups = asked.groups.into_iter().map(|group| {
            let topics = group.topics.into_iter().flatten().map(|topic| {
                let partitions = topic.partition_indexes.into_iter().map(|index| {
                    OffsetFetchResponsePartitions {
                        partition_index: index,
                        committed_offset: self.committed.get(&index).copied().unwrap_or(-1),
                        committed_leader_epoch: -1,
                        ..OffsetFetchResponsePartitions::default()
                    }
                });
                OffsetFetchResponseTopics {
                    name: topic.name,
                    partitions: partitions.collect(),
                    ..OffsetFetchResponseTopics::default()
                }
            });
            let topics = topics.collect();
            OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code }
        });
        send(request, &OffsetFetchResponse { groups: groups.collect(), ..Default::default() })
    }

    fn list_offsets(&self, request: &RequestFrame, error_code: i16) -> Reply {
        let asked: ListOffsetsRequest = body(request);
        let topics = asked.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                let end = self.logs[partition.partition_index as usize].end;
                ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    error_code,
                    offset: if partition.timestamp == -1 { end } else { 0 },
                    ..ListOffsetsPartitionResponse::default()
                }
            });
            ListOffsetsTopicResponse { name: topic.name, partitions: partitions.collect() }
        });
        send(request, &ListOffsetsResponse { topics: topics.collect(), ..Default::default() })
    }

    fn fetch(&self, request: &RequestFrame, error_code: i16) -> Reply {
        let asked: FetchRequest = body(request);
        let mut found = false;
        let topics: Vec<_> = asked
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|wanted| {
                    let log = &self.logs[wanted.partition as usize];
                    let batch =
                        log.batches.iter().rev().find(|batch| batch.base <= wanted.fetch_offset);
                    let inside = (0..log.end).contains(&wanted.fetch_offset);
                    let records = batch.filter(|_| inside && error_code == 0);
                    found |= records.is_some();
                    let outside = !(0..=log.end).contains(&wanted.fetch_offset);
                    let outside = outside.then(|| ErrorCode::OffsetOutOfRange.code());
                    PartitionData {
                        partition_index: wanted.partition,
                        error_code: outside.unwrap_or(error_code),
                        high_watermark: log.end,
                        records: records.map(|batch| batch.bytes.clone()),
                        ..PartitionData::default()
                    }
                });
                FetchableTopicResponse {
                    topic_id: topic.topic_id,
                    topic: topic.topic.clone(),
                    partitions: partitions.collect(),
                }
            })
            .collect();
        // No session: every request names everything.
        match send(request, &FetchResponse { responses: topics, ..Default::default() }) {
            Reply::Send(segments) if !found && error_code == 0 => {
                let wait = u64::try_from(asked.max_wait_ms).unwrap_or(0);
                Reply::After(Duration::from_millis(wait), segments)
            }
            reply => reply,
        }
    }
}

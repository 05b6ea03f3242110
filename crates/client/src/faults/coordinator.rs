//! The honest broker's transaction coordinator: one transactional id, by both versions of the protocol.
//!
//! Markers are written at once, so that no transaction is ever found ending.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use fleuve_protocol::frame::RequestFrame;
use fleuve_protocol::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use fleuve_protocol::messages::add_offsets_to_txn_response::AddOffsetsToTxnResponse;
use fleuve_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnRequest;
use fleuve_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResponse, AddPartitionsToTxnTopicResult,
};
use fleuve_protocol::messages::api_versions_response::{ApiVersionsResponse, FinalizedFeatureKey};
use fleuve_protocol::messages::end_txn_request::EndTxnRequest;
use fleuve_protocol::messages::end_txn_response::EndTxnResponse;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use fleuve_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequest;
use fleuve_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use fleuve_protocol::records::BatchHeader;
use fleuve_protocol::{ApiKey, ErrorCode};

use super::model::Model;
use crate::scripted::{Reply, all_versions, body, send};

/// What a coordinator remembers of its transactional id.
#[derive(Default)]
pub(super) struct TransactionCoordinator {
    /// Whether transactions are of version 2 (KIP-890).
    pub(super) version_2: bool,
    /// 0 before the first producer.
    producer_id: i64,
    epoch: i16,
    /// The epoch before, by which a question that comes again is known.
    epoch_before: Option<i16>,
    begun: u64,
    /// The transaction that is open.
    ongoing: Option<u64>,
    partitions: HashSet<i32>,
    group_announced: bool,
    pending_offsets: HashMap<i32, i64>,
    /// Whether the last transaction was committed.
    last: Option<bool>,
    committed: HashSet<u64>,
    /// What was committed for the group.
    pub(super) offsets: HashMap<i32, i64>,
}

/// The first versions that imply version 2 of the protocol.
const PRODUCE_VERSION_2: i16 = 12;
const END_VERSION_2: i16 = 5;
const OFFSETS_VERSION_2: i16 = 5;

pub(super) fn is_transactional(request: &RequestFrame) -> bool {
    body::<InitProducerIdRequest>(request).transactional_id.is_some()
}

impl TransactionCoordinator {
    pub(super) fn versions(&self) -> ApiVersionsResponse {
        let feature = FinalizedFeatureKey {
            name: "transaction.version".into(),
            max_version_level: 2,
            min_version_level: 2,
        };
        ApiVersionsResponse {
            finalized_features: self.version_2.then_some(feature).into_iter().collect(),
            finalized_features_epoch: 1,
            ..all_versions()
        }
    }

    pub(super) fn is_committed(&self, transaction: u64) -> bool {
        self.committed.contains(&transaction)
    }

    /// Takes a partition into the transaction that a batch belongs to, if it belongs to one.
    pub(super) fn enrol(
        &mut self,
        records: &Bytes,
        partition: i32,
        version: i16,
    ) -> Result<Option<u64>, ErrorCode> {
        let header = BatchHeader::parse(records).map_err(|_| ErrorCode::CorruptMessage)?;
        if !header.attributes.is_transactional() {
            return Ok(None);
        }
        self.check(header.producer_id.0, header.producer_epoch.0)?;
        if version >= PRODUCE_VERSION_2 {
            self.partitions.insert(partition);
        } else if !self.partitions.contains(&partition) {
            return Err(ErrorCode::InvalidTxnState);
        }
        Ok(Some(self.begin()))
    }

    fn begin(&mut self) -> u64 {
        *self.ongoing.get_or_insert_with(|| {
            self.begun += 1;
            self.begun
        })
    }

    fn check(&self, producer_id: i64, epoch: i16) -> Result<(), ErrorCode> {
        match () {
            () if producer_id != self.producer_id => Err(ErrorCode::InvalidProducerIdMapping),
            () if epoch != self.epoch => Err(ErrorCode::InvalidProducerEpoch),
            () => Ok(()),
        }
    }

    fn raise_epoch(&mut self) {
        self.epoch_before = Some(self.epoch);
        self.epoch += 1;
    }
}

impl Model {
    /// Ends what is open, and leaves leaders with the epoch that its marker carries.
    fn finish(&mut self, commit: bool) {
        let coordinator = &mut self.coordinator;
        let Some(transaction) = coordinator.ongoing.take() else { return };
        let pending = std::mem::take(&mut coordinator.pending_offsets);
        if commit {
            coordinator.committed.insert(transaction);
            coordinator.offsets.extend(pending);
        }
        for partition in coordinator.partitions.drain() {
            let epochs = &mut self.logs[partition as usize].epochs;
            epochs.insert(coordinator.producer_id, coordinator.epoch);
        }
        coordinator.group_announced = false;
        coordinator.last = Some(commit);
    }

    pub(super) fn init_transactional(
        &mut self,
        request: &RequestFrame,
        error: Option<ErrorCode>,
        act: bool,
    ) -> Reply {
        let asked: InitProducerIdRequest = body(request);
        let done = if act { self.init(&asked) } else { Ok(()) };
        let code = error.or(done.err()).unwrap_or(ErrorCode::None);
        let good = code == ErrorCode::None;
        let response = InitProducerIdResponse {
            error_code: code.code(),
            producer_id: if good { self.coordinator.producer_id } else { -1 },
            producer_epoch: if good { self.coordinator.epoch } else { -1 },
            ..InitProducerIdResponse::default()
        };
        send(request, &response)
    }

    fn init(&mut self, asked: &InitProducerIdRequest) -> Result<(), ErrorCode> {
        if asked.producer_id >= 0 {
            let epoch = Some(asked.producer_epoch);
            if epoch == self.coordinator.epoch_before {
                return Ok(());
            }
            if epoch != Some(self.coordinator.epoch) {
                return Err(ErrorCode::ProducerFenced);
            }
        }
        if self.coordinator.producer_id == 0 {
            self.coordinator.producer_id = 4711;
            return Ok(());
        }
        self.coordinator.raise_epoch();
        self.finish(false);
        Ok(())
    }

    pub(super) fn transact(
        &mut self,
        request: &RequestFrame,
        error: Option<ErrorCode>,
        act: bool,
    ) -> Reply {
        match request.key {
            ApiKey::AddPartitionsToTxn => self.announce(request, error, act),
            ApiKey::AddOffsetsToTxn => {
                let asked: AddOffsetsToTxnRequest = body(request);
                let done = self.coordinator.check(asked.producer_id, asked.producer_epoch);
                if act && done.is_ok() {
                    self.coordinator.group_announced = true;
                    self.coordinator.begin();
                }
                let code = error.or(done.err()).unwrap_or(ErrorCode::None);
                let error_code = code.code();
                send(request, &AddOffsetsToTxnResponse { error_code, ..Default::default() })
            }
            ApiKey::TxnOffsetCommit => self.commit_offsets(request, error, act),
            _ => {
                let asked: EndTxnRequest = body(request);
                let done = if act { self.end(&asked, request.version) } else { Ok(()) };
                let code = error.or(done.err()).unwrap_or(ErrorCode::None);
                let raised = code == ErrorCode::None && request.version >= END_VERSION_2;
                let response = EndTxnResponse {
                    error_code: code.code(),
                    producer_id: if raised { self.coordinator.producer_id } else { -1 },
                    producer_epoch: if raised { self.coordinator.epoch } else { -1 },
                    ..EndTxnResponse::default()
                };
                send(request, &response)
            }
        }
    }

    fn announce(&mut self, request: &RequestFrame, error: Option<ErrorCode>, act: bool) -> Reply {
        let asked: AddPartitionsToTxnRequest = body(request);
        let coordinator = &mut self.coordinator;
        let done =
            coordinator.check(asked.v3_and_below_producer_id, asked.v3_and_below_producer_epoch);
        let code = error.or(done.err()).unwrap_or(ErrorCode::None).code();
        let topics = asked.v3_and_below_topics.into_iter().map(|topic| {
            if act && done.is_ok() {
                coordinator.partitions.extend(&topic.partitions);
                coordinator.begin();
            }
            let results = topic.partitions.iter().map(|&partition_index| {
                AddPartitionsToTxnPartitionResult { partition_index, partition_error_code: code }
            });
            AddPartitionsToTxnTopicResult {
                name: topic.name,
                results_by_partition: results.collect(),
            }
        });
        let response = AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below: topics.collect(),
            ..AddPartitionsToTxnResponse::default()
        };
        send(request, &response)
    }

    fn commit_offsets(
        &mut self,
        request: &RequestFrame,
        error: Option<ErrorCode>,
        act: bool,
    ) -> Reply {
        let asked: TxnOffsetCommitRequest = body(request);
        let coordinator = &mut self.coordinator;
        let mut done = coordinator.check(asked.producer_id, asked.producer_epoch);
        if request.version < OFFSETS_VERSION_2 && !coordinator.group_announced {
            done = done.and(Err(ErrorCode::InvalidTxnState));
        }
        let code = error.or(done.err()).unwrap_or(ErrorCode::None).code();
        let takes = act && done.is_ok();
        if takes {
            coordinator.begin();
        }
        let topics = asked.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                let partition_index = partition.partition_index;
                if takes {
                    let offset = partition.committed_offset;
                    coordinator.pending_offsets.insert(partition_index, offset);
                }
                TxnOffsetCommitResponsePartition { partition_index, error_code: code }
            });
            TxnOffsetCommitResponseTopic { name: topic.name, partitions: partitions.collect() }
        });
        let topics = topics.collect();
        send(request, &TxnOffsetCommitResponse { topics, ..Default::default() })
    }

    fn end(&mut self, asked: &EndTxnRequest, version: i16) -> Result<(), ErrorCode> {
        let version_2 = version >= END_VERSION_2;
        let TransactionCoordinator { producer_id, epoch, epoch_before, ongoing, last, .. } =
            self.coordinator;
        if asked.producer_id != producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        let again = ongoing.is_none() && last == Some(asked.committed);
        if version_2 && Some(asked.producer_epoch) == epoch_before && again {
            return Ok(());
        }
        if asked.producer_epoch != epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        match ongoing {
            Some(_) => {}
            // What never reached a leader can be aborted all the same.
            None if version_2 && !asked.committed => {}
            None if !version_2 && again => return Ok(()),
            None => return Err(ErrorCode::InvalidTxnState),
        }
        if version_2 {
            self.coordinator.raise_epoch();
            self.coordinator.last = Some(asked.committed);
        }
        self.finish(asked.committed);
        Ok(())
    }
}

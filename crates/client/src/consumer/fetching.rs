//! The questions of the fetcher, asked of brokers: records after an offset, and positions.

use std::collections::HashMap;

use bytes::Bytes;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::fetch_request::FetchRequest;
use fleuve_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use fleuve_protocol::records::Decompressor;
use fleuve_types::TopicPartition;
use tokio::time::Instant;

use super::offsets::{EARLIEST, LATEST, fetch_committed, list_offsets};
use super::records::{Fetched, Records};
use super::session::{FetchSession, Wanted};
use super::state::Position;
use crate::client::{Client, Lane};
use crate::config::{ConsumerConfig, IsolationLevel};
use crate::error::{Error, Result, code_of};

/// What belongs to the fetches of one broker.
pub(super) struct BrokerState {
    pub(super) session: FetchSession,
    by_id: bool,
    decompressor: Decompressor,
    pub(super) not_before: Option<Instant>,
}

/// What an answer says about one partition.
pub(super) struct Answer {
    pub(super) partition: TopicPartition,
    pub(super) code: ErrorCode,
    pub(super) records: Option<Result<Records>>,
    pub(super) high_watermark: i64,
}

/// The result of looking for one position.
pub(super) struct Finding {
    pub(super) partition: TopicPartition,
    pub(super) version: u64,
    pub(super) result: Result<Found>,
}

pub(super) enum Found {
    Committed(i64),
    At(i64),
    NothingCommitted,
}

/// The first version in which topics go by id.
const FIRST_VERSION_WITH_IDS: i16 = 13;

/// No batch may grow larger than this when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

impl BrokerState {
    pub(super) fn new() -> Self {
        Self {
            session: FetchSession::default(),
            by_id: false,
            decompressor: Decompressor::new(DECOMPRESSED_BYTES_MAX),
            not_before: None,
        }
    }
}

/// Sends one fetch request and undoes its answer.
pub(super) async fn fetch_once(
    client: &Client,
    config: &ConsumerConfig,
    leader: i32,
    state: &mut BrokerState,
    wanted: HashMap<TopicPartition, Wanted>,
) -> Result<Vec<Answer>> {
    let connection = client.connection(leader, Lane::Fetch).await?;
    let has_ids = wanted.values().all(|wanted| !wanted.topic_id.is_zero());
    let cap = if has_ids { i16::MAX } else { FIRST_VERSION_WITH_IDS - 1 };
    let version = connection.version_of::<FetchRequest>(cap)?;
    let by_id = version >= FIRST_VERSION_WITH_IDS;
    if by_id != state.by_id {
        state.session.reset();
        state.by_id = by_id;
    }
    let mut offsets = HashMap::with_capacity(wanted.len());
    offsets
        .extend(wanted.iter().map(|(partition, wanted)| (partition.clone(), wanted.fetch_offset)));
    let max_wait = config.fetch_max_wait;
    let mut request = FetchRequest {
        max_wait_ms: max_wait.as_millis() as i32,
        min_bytes: config.fetch_min_bytes,
        max_bytes: config.fetch_max_bytes,
        isolation_level: config.isolation_level.code(),
        ..FetchRequest::default()
    };
    let names: HashMap<_, _> = wanted
        .iter()
        .map(|(partition, wanted)| (wanted.topic_id, partition.topic.clone()))
        .collect();
    state.session.prepare(wanted, &mut request);
    let timeout = client.config().request_timeout + max_wait;
    let response = connection.submit(&request, version)?.within(timeout).wait().await?;
    let FetchResponse { error_code, session_id, responses, .. } = response;
    match code_of(error_code) {
        ErrorCode::None => state.session.advance(session_id),
        // These concern the session alone; a full request mends it.
        ErrorCode::FetchSessionIdNotFound
        | ErrorCode::InvalidFetchSessionEpoch
        | ErrorCode::FetchSessionTopicIdError => {
            state.session.reset();
            return Ok(Vec::new());
        }
        code => return Err(Error::broker(format!("fetch from broker {leader}"), code)),
    }
    let mut answers = Vec::new();
    for topic in responses {
        let name =
            if by_id { names.get(&topic.topic_id).cloned() } else { Some((&*topic.topic).into()) };
        let Some(name) = name else { continue };
        for data in topic.partitions {
            let partition = TopicPartition::new(name.clone(), data.partition_index);
            let Some(&fetch_offset) = offsets.get(&partition) else { continue };
            answers.push(answer(partition, fetch_offset, data, config, &mut state.decompressor));
        }
    }
    Ok(answers)
}

fn answer(
    partition: TopicPartition,
    fetch_offset: i64,
    data: PartitionData,
    config: &ConsumerConfig,
    decompressor: &mut Decompressor,
) -> Answer {
    let code = code_of(data.error_code);
    let high_watermark = data.high_watermark;
    let bytes = data.records.filter(|bytes: &Bytes| !bytes.is_empty());
    let records = bytes.filter(|_| code == ErrorCode::None).map(|bytes| {
        let committed_only = config.isolation_level == IsolationLevel::ReadCommitted;
        let aborted = data.aborted_transactions.unwrap_or_default();
        let aborted = aborted.iter().map(|aborted| (aborted.producer_id, aborted.first_offset));
        let fetched = Fetched {
            partition: partition.clone(),
            fetch_offset,
            high_watermark,
            aborted: committed_only.then(|| aborted.collect()),
        };
        Records::decode(fetched, bytes, decompressor)
    });
    Answer { partition, code, records, high_watermark }
}

/// Looks for positions: committed ones first, then those of timestamps.
pub(super) async fn find(
    client: &Client,
    config: &ConsumerConfig,
    asked: Vec<(TopicPartition, u64, Position)>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (lookups, committed): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|(_, _, position)| *position != Position::Committed);
    if !committed.is_empty() {
        let partitions: Vec<_> = committed.iter().map(|(p, _, _)| p.clone()).collect();
        let stable = config.isolation_level == IsolationLevel::ReadCommitted;
        let offsets = match &config.group_id {
            Some(group) => fetch_committed(client, group, Some(&partitions), stable).await,
            None => Ok(HashMap::new()),
        };
        for (partition, version, _) in committed {
            let result = match &offsets {
                Ok(offsets) => Ok(match offsets.get(&partition) {
                    Some(committed) => Found::Committed(committed.offset),
                    None => Found::NothingCommitted,
                }),
                Err(error) => Err(error.clone()),
            };
            findings.push(Finding { partition, version, result });
        }
    }
    if lookups.is_empty() {
        return findings;
    }
    let timestamp_of = |position| match position {
        Position::Lookup(timestamp) => timestamp,
        Position::Committed | Position::Known => EARLIEST,
    };
    let timestamps =
        lookups.iter().map(|(partition, _, p)| (partition.clone(), timestamp_of(*p))).collect();
    let mut offsets = list_offsets(client, &timestamps, config.isolation_level).await;
    if let Ok(found) = &mut offsets {
        // Nothing is that young: begin with what comes next.
        let missing: HashMap<_, _> = found
            .iter()
            .filter(|(_, result)| matches!(result, Ok(found) if found.offset < 0))
            .map(|(partition, _)| (partition.clone(), LATEST))
            .collect();
        if !missing.is_empty() {
            match list_offsets(client, &missing, config.isolation_level).await {
                Ok(ends) => found.extend(ends),
                Err(error) => offsets = Err(error),
            }
        }
    }
    for (partition, version, _) in lookups {
        let result = match &mut offsets {
            Ok(found) => match found.remove(&partition) {
                Some(result) => result.map(|found| Found::At(found.offset.max(0))),
                None => Err(Error::broker(partition.to_string(), ErrorCode::LeaderNotAvailable)),
            },
            Err(error) => Err(error.clone()),
        };
        findings.push(Finding { partition, version, result });
    }
    findings
}

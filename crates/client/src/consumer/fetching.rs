//! The questions of the fetcher, asked of brokers: records after an offset, and positions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::fetch_request::FetchRequest;
use fleuve_protocol::messages::fetch_response::{
    FetchResponse, FetchableTopicResponse, PartitionData,
};
use fleuve_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use fleuve_protocol::records::Decompressor;
use fleuve_types::{TopicPartition, Uuid};
use tokio::time::Instant;

use super::appetite::{Appetite, Limits};
use super::offsets::{EARLIEST, LATEST, fetch_committed, list_offsets};
use super::records::{Fetched, Records};
use super::session::{FetchSession, Wanted};
use super::state::{Place, Position};
use crate::client::{Client, OwnLanes};
use crate::config::{ConsumerConfig, IsolationLevel};
use crate::error::{Error, Result, code_of};

/// What belongs to the fetches of one broker.
pub(super) struct BrokerState {
    pub(super) session: FetchSession,
    by_id: bool,
    decompressor: Decompressor,
    pub(super) appetite: Appetite,
    pub(super) not_before: Option<Instant>,
}

/// What an answer says about one partition.
pub(super) struct Answer {
    pub(super) partition: TopicPartition,
    pub(super) code: ErrorCode,
    pub(super) records: Option<Result<Records>>,
    /// The records' bytes as they came.
    pub(super) bytes: usize,
    pub(super) high_watermark: i64,
    /// A replica that the leader would rather have asked.
    pub(super) preferred: Option<i32>,
}

/// The result of looking for one position.
pub(super) struct Finding {
    pub(super) partition: TopicPartition,
    pub(super) version: u64,
    pub(super) result: Result<Found>,
}

pub(super) enum Found {
    Committed(Place),
    At(Place),
    NothingCommitted,
    /// Where the leader's records of our epoch end; it may have none.
    EndOfEpoch(Option<Place>),
}

/// A partition whose position is looked for.
#[derive(Clone)]
pub(super) struct Lookup {
    pub(super) partition: TopicPartition,
    pub(super) version: u64,
    pub(super) position: Position,
    /// What is to be checked, for [`Position::Unchecked`].
    pub(super) place: Place,
}

/// The first version in which topics go by id.
const FIRST_VERSION_WITH_IDS: i16 = 13;

/// The first version that names the client's rack (KIP-392).
const FIRST_VERSION_WITH_RACK: i16 = 11;

/// Checking and decompressing so much takes as long as handing it to another task.
const UNDONE_AT_ONCE_BYTES: usize = 64 << 10;

/// No batch may grow larger than this when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

impl BrokerState {
    pub(super) fn new() -> Self {
        Self {
            session: FetchSession::default(),
            by_id: false,
            decompressor: Decompressor::new(DECOMPRESSED_BYTES_MAX),
            appetite: Appetite::new(),
            not_before: None,
        }
    }
}

/// The limits of `config` on what a broker is asked for.
pub(super) fn limits_of(config: &ConsumerConfig) -> Limits {
    Limits {
        partition: usize::try_from(config.max_partition_fetch_bytes).unwrap_or(0),
        answer: usize::try_from(config.fetch_max_bytes).unwrap_or(0),
    }
}

/// Sends one fetch request, which waits for records as long as `max_wait`, and undoes its answer.
///
/// What is large is undone in a task of its own if there are `others` whose answers may come
/// meanwhile, so that they do not wait for each other; for little, and for one broker alone, that
/// would cost more than it is worth: a thread is woken, and the bytes leave the cache.
pub(super) async fn fetch_once(
    lanes: &OwnLanes,
    config: &ConsumerConfig,
    leader: i32,
    mut state: Box<BrokerState>,
    wanted: HashMap<TopicPartition, Wanted>,
    max_wait: Duration,
    others: bool,
) -> (Box<BrokerState>, Result<Vec<Answer>>) {
    let isolation = config.isolation_level;
    let reply = match ask(lanes, config, leader, &mut state, wanted, max_wait).await {
        Ok(Some(reply)) => reply,
        Ok(None) => return (state, Ok(Vec::new())),
        Err(error) => return (state, Err(error)),
    };
    if !others || reply.bytes() <= UNDONE_AT_ONCE_BYTES {
        let answers = reply.undo(isolation, &mut state.decompressor);
        return (state, Ok(answers));
    }
    let undoing = tokio::spawn(async move {
        let answers = reply.undo(isolation, &mut state.decompressor);
        (state, Ok(answers))
    });
    undoing.await.unwrap_or_else(|error| {
        // It does nothing that may panic, so that only the end of the runtime ends it.
        let error = Error::state(format!("records of broker {leader} could not be read: {error}"));
        (Box::new(BrokerState::new()), Err(error))
    })
}

/// A broker's answer to a fetch, with what belongs to the question.
struct Reply {
    responses: Vec<FetchableTopicResponse>,
    /// Records that came in several pieces, in their order.
    spans: Vec<Vec<Bytes>>,
    by_id: bool,
    names: HashMap<Uuid, Arc<str>>,
    offsets: HashMap<TopicPartition, i64>,
}

/// Sends one fetch request; nothing comes back if the session has to begin anew.
async fn ask(
    lanes: &OwnLanes,
    config: &ConsumerConfig,
    leader: i32,
    state: &mut BrokerState,
    wanted: HashMap<TopicPartition, Wanted>,
    max_wait: Duration,
) -> Result<Option<Reply>> {
    let connection = lanes.fetching(leader).await?;
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
    let mut request = FetchRequest {
        max_wait_ms: max_wait.as_millis() as i32,
        min_bytes: config.fetch_min_bytes,
        max_bytes: config.fetch_max_bytes,
        isolation_level: config.isolation_level.code(),
        ..FetchRequest::default()
    };
    if version >= FIRST_VERSION_WITH_RACK
        && let Some(rack) = &config.rack
    {
        request.rack_id = rack.clone().into();
    }
    let names: HashMap<_, _> = wanted
        .iter()
        .map(|(partition, wanted)| (wanted.topic_id, partition.topic.clone()))
        .collect();
    state.session.prepare(wanted, &mut request);
    let timeout = lanes.config().request_timeout + max_wait;
    let answered = connection.submit(&request, version)?.within(timeout);
    let (response, spans) = answered.wait_spans().await?;
    let FetchResponse { error_code, session_id, responses, .. } = response;
    match code_of(error_code) {
        ErrorCode::None => state.session.advance(session_id),
        // These concern the session alone; a full request mends it.
        ErrorCode::FetchSessionIdNotFound
        | ErrorCode::InvalidFetchSessionEpoch
        | ErrorCode::FetchSessionTopicIdError => {
            state.session.reset();
            return Ok(None);
        }
        code => return Err(Error::broker(format!("fetch from broker {leader}"), code)),
    }
    Ok(Some(Reply { responses, spans, by_id, names, offsets }))
}

impl Reply {
    /// Returns the size of all records, as far as they are in one piece each.
    fn bytes(&self) -> usize {
        let partitions = self.responses.iter().flat_map(|topic| &topic.partitions);
        partitions.filter_map(|data| data.records.as_ref()).map(Bytes::len).sum()
    }

    /// Checks and decompresses what is in the answer.
    fn undo(self, isolation: IsolationLevel, decompressor: &mut Decompressor) -> Vec<Answer> {
        let Self { responses, spans, by_id, names, offsets } = self;
        let mut spans = spans.into_iter().peekable();
        let mut answers = Vec::new();
        for topic in responses {
            let name = if by_id {
                names.get(&topic.topic_id).cloned()
            } else {
                Some((&*topic.topic).into())
            };
            let Some(name) = name else { continue };
            for data in topic.partitions {
                let partition = TopicPartition::new(name.clone(), data.partition_index);
                // Records that came in several pieces are the next in the list: all come in order.
                let is_first = |span: &Vec<Bytes>| {
                    let (first, records) = (span.first(), data.records.as_ref());
                    first.zip(records).is_some_and(|(f, r)| f.as_ptr() == r.as_ptr())
                };
                let pieces = match spans.next_if(is_first) {
                    Some(pieces) => pieces,
                    None => {
                        data.records.iter().filter(|records| !records.is_empty()).cloned().collect()
                    }
                };
                let Some(&fetch_offset) = offsets.get(&partition) else { continue };
                answers.push(answer(
                    partition,
                    fetch_offset,
                    data,
                    pieces,
                    isolation,
                    decompressor,
                ));
            }
        }
        answers
    }
}

fn answer(
    partition: TopicPartition,
    fetch_offset: i64,
    data: PartitionData,
    pieces: Vec<Bytes>,
    isolation: IsolationLevel,
    decompressor: &mut Decompressor,
) -> Answer {
    let code = code_of(data.error_code);
    let high_watermark = data.high_watermark;
    let preferred = (data.preferred_read_replica >= 0).then_some(data.preferred_read_replica);
    let size = pieces.iter().map(Bytes::len).sum();
    let readable = !pieces.is_empty() && code == ErrorCode::None;
    let records = readable.then(|| {
        let committed_only = isolation == IsolationLevel::ReadCommitted;
        let aborted = data.aborted_transactions.unwrap_or_default();
        let aborted = aborted.iter().map(|aborted| (aborted.producer_id, aborted.first_offset));
        let fetched = Fetched {
            partition: partition.clone(),
            fetch_offset,
            high_watermark,
            aborted: committed_only.then(|| aborted.collect()),
        };
        Records::decode(fetched, pieces, decompressor)
    });
    Answer { partition, code, records, bytes: size, high_watermark, preferred }
}

/// Looks for positions: committed ones, those of timestamps, and ends of epochs.
pub(super) async fn find(
    client: &Client,
    config: &ConsumerConfig,
    asked: Vec<Lookup>,
) -> Vec<Finding> {
    let (unchecked, asked): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|lookup| lookup.position == Position::Unchecked);
    let (committed, timestamps): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|lookup| lookup.position == Position::Committed);
    let mut findings = Vec::new();
    if !committed.is_empty() {
        findings.extend(find_committed(client, config, committed).await);
    }
    if !timestamps.is_empty() {
        findings.extend(find_timestamps(client, config, timestamps).await);
    }
    if !unchecked.is_empty() {
        findings.extend(find_ends_of_epochs(client, unchecked).await);
    }
    findings
}

async fn find_committed(
    client: &Client,
    config: &ConsumerConfig,
    asked: Vec<Lookup>,
) -> Vec<Finding> {
    let partitions: Vec<_> = asked.iter().map(|lookup| lookup.partition.clone()).collect();
    // Offsets of a transaction that is not over may still go back.
    let stable = true;
    let offsets = match &config.group_id {
        Some(group) => fetch_committed(client, group, Some(&partitions), stable).await,
        None => Ok(HashMap::new()),
    };
    let found = |lookup: &Lookup| match &offsets {
        Ok(offsets) => Ok(match offsets.get(&lookup.partition) {
            Some(found) => {
                Found::Committed(Place { offset: found.offset, epoch: found.leader_epoch })
            }
            None => Found::NothingCommitted,
        }),
        Err(error) => Err(error.clone()),
    };
    results(asked, found)
}

async fn find_timestamps(
    client: &Client,
    config: &ConsumerConfig,
    asked: Vec<Lookup>,
) -> Vec<Finding> {
    let timestamp_of = |position| match position {
        Position::Lookup(timestamp) => timestamp,
        Position::Committed | Position::Unchecked | Position::Known => EARLIEST,
    };
    let timestamps = asked
        .iter()
        .map(|lookup| (lookup.partition.clone(), timestamp_of(lookup.position)))
        .collect();
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
    let found = |lookup: &Lookup| match &offsets {
        Ok(found) => match found.get(&lookup.partition) {
            Some(Ok(found)) => {
                Ok(Found::At(Place { offset: found.offset.max(0), epoch: found.leader_epoch }))
            }
            Some(Err(error)) => Err(error.clone()),
            None => Err(leaderless(&lookup.partition)),
        },
        Err(error) => Err(error.clone()),
    };
    results(asked, found)
}

/// Asks leaders whether their logs still hold what was read from others before them (KIP-320).
async fn find_ends_of_epochs(client: &Client, asked: Vec<Lookup>) -> Vec<Finding> {
    let by_partition: HashMap<_, _> =
        asked.iter().map(|lookup| (lookup.partition.clone(), lookup)).collect();
    let partitions: Vec<_> = by_partition.keys().cloned().collect();
    let build = |theirs: &[TopicPartition], _: i16| {
        let mut topics: Vec<OffsetForLeaderTopic> = Vec::new();
        for partition in theirs {
            let leader = client.cluster().leader(&partition.topic, partition.partition);
            let asked = OffsetForLeaderPartition {
                partition: partition.partition,
                current_leader_epoch: leader.map_or(-1, |(_, epoch)| epoch),
                leader_epoch: by_partition[partition].place.epoch,
            };
            match topics.iter_mut().find(|topic| *topic.topic == *partition.topic) {
                Some(topic) => topic.partitions.push(asked),
                None => topics.push(OffsetForLeaderTopic {
                    topic: partition.topic.to_string().into(),
                    partitions: vec![asked],
                }),
            }
        }
        OffsetForLeaderEpochRequest { replica_id: -1, topics }
    };
    let ends = client
        .call_leaders::<OffsetForLeaderEpochRequest, _>(&partitions, build, |response| {
            let answers = response.topics.into_iter().flat_map(|topic| {
                let name: Arc<str> = (&*topic.topic).into();
                topic.partitions.into_iter().map(move |answer| crate::client::PartitionAnswer {
                    partition: TopicPartition::new(name.clone(), answer.partition),
                    error_code: answer.error_code,
                    value: (answer.end_offset >= 0)
                        .then_some(Place { offset: answer.end_offset, epoch: answer.leader_epoch }),
                })
            });
            answers.collect()
        })
        .await;
    let found = |lookup: &Lookup| match &ends {
        Ok(ends) => match ends.get(&lookup.partition) {
            Some(Ok(end)) => Ok(Found::EndOfEpoch(*end)),
            // A broker that cannot tell is not asked again; this is how it was before KIP-320.
            Some(Err(Error::Unsupported { .. })) => Ok(Found::EndOfEpoch(Some(lookup.place))),
            Some(Err(error)) => Err(error.clone()),
            None => Err(leaderless(&lookup.partition)),
        },
        Err(error) => Err(error.clone()),
    };
    results(asked.clone(), found)
}

fn results(asked: Vec<Lookup>, found: impl Fn(&Lookup) -> Result<Found>) -> Vec<Finding> {
    asked
        .into_iter()
        .map(|lookup| {
            let result = found(&lookup);
            Finding { partition: lookup.partition, version: lookup.version, result }
        })
        .collect()
}

fn leaderless(partition: &TopicPartition) -> Error {
    Error::broker(partition.to_string(), ErrorCode::LeaderNotAvailable)
}

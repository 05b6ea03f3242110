//! Fetch, versions 4–18: reading record batches.
//!
//! Departs from Kafka in that fetches of followers (a replica id from 0 on) are answered with
//! `NOT_LEADER_OR_FOLLOWER`, because no partition has followers: reading beyond the high
//! watermark must not be had by naming oneself a replica.
//!
//! A fetch that finds too few bytes hangs in the lists of its partitions until an append feeds
//! it; nothing polls.

use std::sync::Arc;
use std::time::Duration;

use fleuve_metadata::image::AclOperation;
use fleuve_os::Piece;
use fleuve_protocol::messages::fetch_request::FetchRequest;
use fleuve_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use fleuve_protocol::records::{BatchHeader, layout};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_storage::{LocatedRecords, LogError};
use fleuve_types::Uuid;
use tokio::time::{Instant, timeout_at};

use super::fetch_reply::FetchReply;
use super::{errors, permission};
use crate::fetch_session::{self, Fetch, Seen, SessionError, TopicRef, Wanted};
use crate::node::Node;
use crate::partition::Partition;
use crate::purgatory::{FetchWait, Place};
use crate::quotas::Client;
use crate::request::{Context, Outcome};
use crate::topics::Topic;

/// From here on clients know `KAFKA_STORAGE_ERROR`.
const STORAGE_ERRORS_FROM: i16 = 6;
const TOPIC_IDS_FROM: i16 = 13;
const LEADER_HINTS_FROM: i16 = 16;
const READ_COMMITTED: i8 = 1;
const UNKNOWN: i64 = -1;

pub(crate) fn handle(context: &Context, mut request: FetchRequest) -> Outcome<FetchReply> {
    let replica_id = request.replica_id.max(request.replica_state.replica_id);
    let now_ms = context.node.clock.wall_ms();
    let session = session_request(context.version, replica_id, &mut request);
    let fetch = match context.node.sessions.begin(session, now_ms) {
        Ok(fetch) => fetch,
        Err(error) => return Outcome::Now(session_failure(error, fetch_session::NO_SESSION)),
    };
    let is_follower = replica_id >= 0;
    // Whoever names itself a replica has to be one.
    let refusal =
        match is_follower && permission::cluster(context, AclOperation::ClusterAction).is_err() {
            true => Some(ErrorCode::TopicAuthorizationFailed),
            false => None,
        };
    let targets = fetch.wanted().iter().map(|wanted| match refusal {
        Some(code) => Target::Missing(code),
        None => find_target(context, wanted, is_follower),
    });
    let allowed = context.node.settings().fetch.response_bytes_max;
    let client = context.limited_client();
    // More than a quota's window would only make the client wait.
    let within_quota = client.as_ref().and_then(|it| context.node.quotas.fetch_bytes_max(it));
    let allowed = within_quota.map_or(allowed, |within| within.min(allowed));
    let bytes_max = request.max_bytes.clamp(0, i32::try_from(allowed).unwrap_or(i32::MAX));
    let work = Work {
        node: Arc::clone(&context.node),
        version: context.version,
        listener: context.peer.listener,
        client,
        read_committed: request.isolation_level == READ_COMMITTED,
        targets: targets.collect(),
        fetch,
        bytes_max,
        bytes_min: request.min_bytes.min(bytes_max),
    };
    let first = work.read();
    if request.max_wait_ms <= 0 || work.is_enough(&first) {
        return Outcome::Now(work.respond(first));
    }
    let deadline = Instant::now() + Duration::from_millis(request.max_wait_ms as u64);
    Outcome::later(work.wait(first, deadline))
}

/// A fetch in progress.
struct Work {
    node: Arc<Node>,
    version: i16,
    listener: usize,
    /// Whose quota it is charged to, if anybody has any.
    client: Option<Client>,
    read_committed: bool,
    fetch: Fetch,
    /// One for each partition that the fetch wants.
    targets: Vec<Target>,
    bytes_max: i32,
    bytes_min: i32,
}

/// A wanted partition, looked up.
enum Target {
    Found { topic: Arc<Topic>, partition: Arc<Partition> },
    Missing(ErrorCode),
}

/// What reading the targets gave.
struct Reading {
    /// One for each target.
    partitions: Vec<Part>,
    bytes: i64,
    /// Something must be said without waiting for bytes.
    urgent: bool,
}

/// What one partition has to say.
struct Part {
    /// All but the records.
    data: PartitionData,
    records: Vec<Piece>,
    bytes: usize,
}

impl Work {
    fn is_enough(&self, reading: &Reading) -> bool {
        let nothing_to_wait_for = self.targets.iter().all(|t| matches!(t, Target::Missing(_)));
        reading.urgent || nothing_to_wait_for || reading.bytes >= i64::from(self.bytes_min)
    }

    /// Waits until there is enough or the deadline has passed.
    async fn wait(self, first: Reading, deadline: Instant) -> FetchReply {
        let wait = FetchWait::new(&self.node.purgatory, i64::from(self.bytes_min) - first.bytes);
        let found = self.targets.iter().filter_map(|target| match target {
            Target::Found { partition, .. } => Some(partition),
            Target::Missing(_) => None,
        });
        let _places: Vec<Place> =
            found.map(|partition| partition.waiters.add_fetch(Arc::clone(&wait))).collect();
        let mut reading = first;
        // Whoever advanced a partition between the first read and now has not seen the wait.
        let mut stale = self.has_moved(&reading);
        loop {
            if stale {
                wait.rearm(i64::from(self.bytes_min));
                reading = self.read();
                if self.is_enough(&reading) {
                    break;
                }
                wait.gain(reading.bytes);
            }
            if self.node.is_stopping() {
                break;
            }
            if timeout_at(deadline, wait.woken()).await.is_err() {
                self.node.purgatory.note_expired_fetch();
                if self.has_moved(&reading) {
                    reading = self.read();
                }
                break;
            }
            stale = true;
        }
        self.respond(reading)
    }

    /// Reports whether a high watermark is another than the reading saw.
    fn has_moved(&self, reading: &Reading) -> bool {
        self.targets.iter().zip(&reading.partitions).any(|(target, part)| match target {
            Target::Found { partition, .. } => {
                partition.high_watermark() != part.data.high_watermark
                    || partition.last_stable_offset() != part.data.last_stable_offset
            }
            Target::Missing(_) => false,
        })
    }

    fn read(&self) -> Reading {
        let mut reading =
            Reading { partitions: Vec::with_capacity(self.targets.len()), bytes: 0, urgent: false };
        let mut room = self.bytes_max;
        for (target, wanted) in self.targets.iter().zip(self.fetch.wanted()) {
            let part = match target {
                Target::Missing(code) => failure(wanted.partition, *code),
                Target::Found { partition, .. } => {
                    // The first batch of a fetch comes whole even if it exceeds the limits,
                    // because the client could never get past it otherwise.
                    let whole_first = reading.bytes == 0;
                    self.read_partition(partition, wanted, room, whole_first)
                }
            };
            room = room.saturating_sub(i32::try_from(part.bytes).unwrap_or(i32::MAX)).max(0);
            reading.bytes += part.bytes as i64;
            // A missing partition does not cut the wait for the others short: it is named in
            // every answer, so a client that keeps asking for it would be spun around.
            let failed = part.data.error_code != 0 && matches!(target, Target::Found { .. });
            reading.urgent |= failed || part.data.diverging_epoch.end_offset >= 0;
            reading.partitions.push(part);
        }
        reading
    }

    fn read_partition(
        &self,
        partition: &Partition,
        wanted: &Wanted,
        room: i32,
        whole_first: bool,
    ) -> Part {
        if partition.is_gone() {
            return failure(wanted.partition, ErrorCode::UnknownTopicOrPartition);
        }
        if partition.is_offline() {
            return failure(wanted.partition, ErrorCode::KafkaStorageError);
        }
        if let Some(code) = errors::epoch(wanted.leader_epoch, partition.leader_epoch()) {
            return failure(wanted.partition, code);
        }
        let last_stable_offset = partition.last_stable_offset();
        let high_watermark = partition.high_watermark();
        let mut data = PartitionData {
            partition_index: wanted.partition,
            high_watermark,
            last_stable_offset,
            log_start_offset: partition.log_start_offset(),
            aborted_transactions: self.read_committed.then(Vec::new),
            ..Default::default()
        };
        if wanted.last_fetched_epoch >= 0 {
            match partition.end_of_epoch(wanted.last_fetched_epoch) {
                None => return failure(wanted.partition, ErrorCode::OffsetOutOfRange),
                // Below the start of the log nobody finds the way back to where epochs part.
                Some(_) if wanted.fetch_offset < data.log_start_offset => {
                    return failure(wanted.partition, ErrorCode::OffsetOutOfRange);
                }
                Some((epoch, end))
                    if epoch < wanted.last_fetched_epoch || end < wanted.fetch_offset =>
                {
                    data.diverging_epoch = EpochEndOffset { epoch, end_offset: end };
                    return Part { data, records: Vec::new(), bytes: 0 };
                }
                Some(_) => {}
            }
        }
        let bytes_max = wanted.bytes_max.min(room).max(0) as usize;
        let limit = if self.read_committed { last_stable_offset } else { high_watermark };
        let read = partition.locate(wanted.fetch_offset, bytes_max, limit, whole_first);
        let read = read.and_then(|records| {
            if self.read_committed && !records.pieces.is_empty() {
                let aborted = aborted_in(partition, wanted.fetch_offset, &records, limit)?;
                data.aborted_transactions = Some(aborted);
            }
            Ok(records.pieces)
        });
        match read {
            Ok(records) => {
                let bytes = records.iter().map(Piece::len).sum();
                Part { data, records, bytes }
            }
            Err(_) if partition.is_gone() => {
                failure(wanted.partition, ErrorCode::UnknownTopicOrPartition)
            }
            Err(error) => {
                let code = errors::read(&error);
                if code == ErrorCode::KafkaStorageError {
                    tracing::error!(partition = %partition.name(), %error, "read failed");
                }
                failure(wanted.partition, code)
            }
        }
    }

    fn respond(&self, reading: Reading) -> FetchReply {
        if let Some(client) = &self.client {
            let bytes = usize::try_from(reading.bytes).unwrap_or(0);
            let throttle_time_ms = self.node.quotas.fetched(client, bytes);
            if throttle_time_ms > 0 {
                // The records are read again when the client has waited.
                self.node.quotas.not_fetched(client, bytes);
                let throttle_time_ms = i32::try_from(throttle_time_ms).unwrap_or(i32::MAX);
                let session_id = self.fetch.session_id();
                return FetchReply::new(FetchResponse {
                    throttle_time_ms,
                    session_id,
                    ..Default::default()
                });
            }
        }
        let seen: Vec<Seen> = reading.partitions.iter().map(summary).collect();
        let now_ms = self.node.clock.wall_ms();
        let random = || self.node.random.next_u64();
        let selection = match self.node.sessions.finish(&self.fetch, &seen, now_ms, random) {
            Ok(selection) => selection,
            Err((error, session_id)) => return session_failure(error, session_id),
        };
        let session_id = selection.session_id;
        let mut reply = FetchReply::new(FetchResponse { session_id, ..Default::default() });
        let wanted = self.fetch.wanted().iter().zip(&self.targets);
        let answers = reading.partitions.into_iter().zip(selection.include);
        let mut previous: Option<&TopicRef> = None;
        for ((wanted, target), (part, include)) in wanted.zip(answers) {
            self.count(target, &part);
            if !include {
                continue;
            }
            let Part { mut data, records, .. } = part;
            match reply.place(records) {
                Ok(placed) => data.records = Some(placed),
                Err(error) => {
                    tracing::error!(%error, "read failed");
                    data = failure(wanted.partition, ErrorCode::KafkaStorageError).data;
                }
            }
            if self.version < STORAGE_ERRORS_FROM
                && data.error_code == ErrorCode::KafkaStorageError.code()
            {
                // Clients that do not know the code would give up; with this one they try again.
                data.error_code = ErrorCode::NotLeaderOrFollower.code();
            }
            let response = reply.response();
            if self.version >= LEADER_HINTS_FROM {
                self.add_leader_hint(target, &mut data, &mut response.node_endpoints);
            }
            if previous != Some(&wanted.topic) {
                let (topic, topic_id) = match &wanted.topic {
                    TopicRef::Name(name) => (name.clone(), Uuid::ZERO),
                    TopicRef::Id(id) => (Str::EMPTY, *id),
                };
                response.responses.push(FetchableTopicResponse {
                    topic,
                    topic_id,
                    partitions: Vec::new(),
                });
                previous = Some(&wanted.topic);
            }
            if let Some(topic) = response.responses.last_mut() {
                topic.partitions.push(data);
            }
        }
        reply
    }

    fn count(&self, target: &Target, part: &Part) {
        let topic = match target {
            Target::Found { topic, .. } => Some(&*topic.counters),
            Target::Missing(_) => None,
        };
        for counters in [Some(&self.node.counters), topic].into_iter().flatten() {
            counters.fetch_requests.add(1);
            counters.bytes_out.add(part.bytes as u64);
            if part.data.error_code != 0 {
                counters.failed_fetch_requests.add(1);
            }
        }
    }

    /// Tells a client with outdated metadata where the leader is (KIP-951).
    fn add_leader_hint(
        &self,
        target: &Target,
        data: &mut PartitionData,
        endpoints: &mut Vec<NodeEndpoint>,
    ) {
        let outdated = data.error_code == ErrorCode::NotLeaderOrFollower.code()
            || data.error_code == ErrorCode::FencedLeaderEpoch.code();
        let Target::Found { partition, .. } = target else { return };
        if !outdated {
            return;
        }
        data.current_leader =
            LeaderIdAndEpoch { leader_id: self.node.id, leader_epoch: partition.leader_epoch() };
        if endpoints.is_empty() {
            let endpoint = self.node.endpoint(self.listener);
            endpoints.push(NodeEndpoint {
                node_id: self.node.id,
                host: endpoint.host,
                port: endpoint.port,
                rack: None,
            });
        }
    }
}

fn session_request(
    version: i16,
    replica_id: i32,
    request: &mut FetchRequest,
) -> fetch_session::Request {
    let by_topic_id = version >= TOPIC_IDS_FROM;
    let name_topic = |name: &Str, id: Uuid| {
        if by_topic_id { TopicRef::Id(id) } else { TopicRef::Name(name.clone()) }
    };
    let mut wanted = Vec::new();
    for topic in std::mem::take(&mut request.topics) {
        for partition in topic.partitions {
            wanted.push(Wanted {
                topic: name_topic(&topic.topic, topic.topic_id),
                partition: partition.partition,
                fetch_offset: partition.fetch_offset,
                bytes_max: partition.partition_max_bytes,
                leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            });
        }
    }
    let mut forgotten = Vec::new();
    for topic in std::mem::take(&mut request.forgotten_topics_data) {
        for partition in topic.partitions {
            forgotten.push((name_topic(&topic.topic, topic.topic_id), partition));
        }
    }
    fetch_session::Request {
        session_id: request.session_id,
        epoch: request.session_epoch,
        by_topic_id,
        from_follower: replica_id >= 0,
        wanted,
        forgotten,
    }
}

fn find_target(context: &Context, wanted: &Wanted, is_follower: bool) -> Target {
    let topics = &context.node.topics;
    let (topic, missing) = match &wanted.topic {
        TopicRef::Name(name) => (topics.by_name(name), ErrorCode::UnknownTopicOrPartition),
        TopicRef::Id(id) => (topics.by_id(id), ErrorCode::UnknownTopicId),
    };
    let name = match (&wanted.topic, &topic) {
        (TopicRef::Name(name), _) => Some(name),
        (TopicRef::Id(_), found) => found.as_ref().map(|topic| &topic.name),
    };
    if !is_follower
        && let Some(name) = name
        && let Err(code) = permission::topic(context, AclOperation::Read, name)
    {
        return Target::Missing(code);
    }
    let Some(topic) = topic else { return Target::Missing(missing) };
    let Some(partition) = topic.partition(wanted.partition).cloned() else {
        return Target::Missing(ErrorCode::UnknownTopicOrPartition);
    };
    if is_follower {
        return Target::Missing(ErrorCode::NotLeaderOrFollower);
    }
    Target::Found { topic, partition }
}

/// The aborted transactions that a consumer has to skip in `records`, which were read from `offset`
/// on.
fn aborted_in(
    partition: &Partition,
    offset: i64,
    records: &LocatedRecords,
    limit: i64,
) -> Result<Vec<AbortedTransaction>, LogError> {
    if !partition.may_have_aborted_transactions(offset) {
        return Ok(Vec::new());
    }
    let end =
        records.next_offset.map(|offset| offset.0).or_else(|| end_of_batches(&records.pieces));
    let end = end.map_or(limit, |end| end.min(limit));
    let aborted = partition.aborted_transactions(offset, end)?;
    Ok(aborted
        .into_iter()
        .map(|aborted| AbortedTransaction {
            producer_id: aborted.producer_id.0,
            first_offset: aborted.first_offset.0,
        })
        .collect())
}

/// The offset behind the last of whole batches that lie in several pieces of memory.
fn end_of_batches(pieces: &[Piece]) -> Option<i64> {
    let mut end = None;
    let mut skip = 0;
    let mut header = Vec::with_capacity(layout::HEADER_SIZE);
    for piece in pieces {
        let Piece::Memory(bytes) = piece else { return None };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let passed = skip.min(rest.len());
            skip -= passed;
            rest = &rest[passed..];
            let wanted = (layout::HEADER_SIZE - header.len()).min(rest.len());
            header.extend_from_slice(&rest[..wanted]);
            rest = &rest[wanted..];
            if header.len() == layout::HEADER_SIZE {
                let found = BatchHeader::parse(&header).ok()?;
                end = Some(found.next_offset().0);
                skip = found.size() - layout::HEADER_SIZE;
                header.clear();
            }
        }
    }
    end
}

fn failure(partition_index: i32, code: ErrorCode) -> Part {
    let data = PartitionData {
        partition_index,
        error_code: code.code(),
        high_watermark: UNKNOWN,
        last_stable_offset: UNKNOWN,
        log_start_offset: UNKNOWN,
        ..Default::default()
    };
    Part { data, records: Vec::new(), bytes: 0 }
}

fn summary(part: &Part) -> Seen {
    let data = &part.data;
    Seen {
        has_records: part.bytes > 0,
        failed: data.error_code != 0,
        diverging: data.diverging_epoch.end_offset >= 0,
        high_watermark: data.high_watermark,
        log_start_offset: data.log_start_offset,
    }
}

fn session_failure(error: SessionError, session_id: i32) -> FetchReply {
    let code = match error {
        SessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
        SessionError::WrongEpoch => ErrorCode::InvalidFetchSessionEpoch,
        SessionError::TopicIdMismatch => ErrorCode::FetchSessionTopicIdError,
    };
    let error_code = code.code();
    FetchReply::new(FetchResponse { error_code, session_id, ..Default::default() })
}

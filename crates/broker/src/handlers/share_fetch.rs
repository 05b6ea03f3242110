//! ShareFetch, versions 1–2: members of share groups get records nobody else has (KIP-932).
//!
//! Acknowledgements that come along are taken in first. Then each partition of the session is read
//! where records are available; if that comes to fewer bytes than asked for, the request hangs in
//! the lists of the partitions, where appends find it, and of the share-partitions, where records
//! that come back do. Nothing is acquired before the answer is certain to leave.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleuve_coordinator::share_partition::{AcquireMode, Acquired};
use fleuve_coordinator::share_state::ShareKey;
use fleuve_metadata::image::AclOperation;
use fleuve_os::Piece;
use fleuve_protocol::messages::share_fetch_request::ShareFetchRequest;
use fleuve_protocol::messages::share_fetch_response::{
    AcquiredRecords, PartitionData, ShareFetchResponse, ShareFetchableTopicResponse,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_storage::LogError;
use fleuve_types::Uuid;
use tokio::time::{Instant, sleep, timeout_at};

use super::fetch_reply::FetchReply;
use super::permission;
use super::share_acknowledgements::{
    Acknowledged, RENEW_FROM, Refusal, Sender, Sent, check_sender, live_error, session_error,
};
use crate::node::Node;
use crate::purgatory::{FetchWait, Place};
use crate::quotas::Client;
use crate::request::{Context, Outcome};
use crate::share::{Acquisition, Cut, Live, Session, SessionError, ShareTerms};
use crate::topics::Topic;

type Reply = FetchReply<ShareFetchResponse>;

/// Most bytes that are read of one partition at a time. Members mostly limit records, not bytes,
/// so that of a large read most would be for nothing.
const READ_BYTES_MAX: usize = 1 << 20;

pub(crate) fn handle(context: &Context, mut request: ShareFetchRequest) -> Outcome<Reply> {
    let sender = check_sender(context, request.group_id.take(), request.member_id.take());
    let (group, member) = match sender {
        Ok(sender) => sender,
        Err(code) => return Outcome::Now(refusal(code)),
    };
    let may_renew = context.version >= RENEW_FROM && request.is_renew_ack;
    let asks_for_records = request.max_bytes > 0
        || request.min_bytes > 0
        || request.max_records > 0
        || request.max_wait_ms > 0;
    let mode = AcquireMode::from_code(request.share_acquire_mode);
    let (Some(mode), false) = (mode, may_renew && asks_for_records) else {
        return Outcome::Now(refusal(ErrorCode::InvalidRequest));
    };

    let node = Arc::clone(&context.node);
    let (sent, wanted, forgotten) = take_topics(&mut request);
    let session = node.shares.sessions.fetch(
        (&group, &member),
        request.share_session_epoch,
        (&wanted, &forgotten),
        !sent.is_empty(),
        &context.peer,
    );
    let wait_max = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let session = match session {
        Ok(session) => session,
        // Members try again at once; so this one is told as late as if it had waited for records.
        Err(error @ SessionError::LimitReached) => {
            return Outcome::later(async move {
                sleep(wait_max).await;
                refusal(session_error(error))
            });
        }
        Err(error) => return Outcome::Now(refusal(session_error(error))),
    };
    let terms = ShareTerms::of(&node, &group);
    let sender =
        Sender { context, node: &node, group: &group, member: &member, terms: &terms, may_renew };
    let acknowledged = sender.acknowledge(sent);
    if session.is_final {
        node.shares.member_gone(&node, &group, &member);
    }
    let bytes_allowed = node.settings().fetch.response_bytes_max;
    let client = context.limited_client();
    let within_quota = client.as_ref().and_then(|client| node.quotas.fetch_bytes_max(client));
    let bytes_allowed = within_quota.map_or(bytes_allowed, |within| within.min(bytes_allowed));
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(bytes_allowed);
    let work = Work {
        targets: if may_renew {
            Vec::new()
        } else {
            find_targets(context, &group, &session, &terms)
        },
        listed: if session.is_new { session.wanted } else { Vec::new() },
        node,
        client,
        member: member.detach(),
        terms,
        mode,
        records_max: i64::from(request.max_records.max(0)),
        batch_size: i64::from(request.batch_size.max(1)),
        bytes_max,
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max),
    };
    Outcome::later(work.run(acknowledged, Instant::now() + wait_max))
}

/// Partitions by their topics' ids.
type Partitions = Vec<(Uuid, i32)>;

/// Takes the topics of a request apart: acknowledgements, what is asked for, and what no longer.
fn take_topics(request: &mut ShareFetchRequest) -> (Vec<Sent>, Partitions, Partitions) {
    let (mut sent, mut wanted, mut forgotten) = (Vec::new(), Vec::new(), Vec::new());
    for topic in std::mem::take(&mut request.topics) {
        for partition in topic.partitions {
            wanted.push((topic.topic_id, partition.partition_index));
            if partition.acknowledgement_batches.is_empty() {
                continue;
            }
            let batches = partition.acknowledgement_batches.into_iter();
            sent.push(Sent {
                topic_id: topic.topic_id,
                partition: partition.partition_index,
                batches: batches
                    .map(|batch| (batch.first_offset, batch.last_offset, batch.acknowledge_types))
                    .collect(),
            });
        }
    }
    for topic in std::mem::take(&mut request.forgotten_topics_data) {
        forgotten.extend(topic.partitions.into_iter().map(|partition| (topic.topic_id, partition)));
    }
    (sent, wanted, forgotten)
}

/// A partition of the session.
struct Target {
    topic_id: Uuid,
    index: i32,
    found: Result<(Arc<Topic>, Arc<Live>), Refusal>,
}

/// Looks the partitions up, a different one first each time, lest the others starve.
fn find_targets(
    context: &Context,
    group: &Str,
    session: &Session,
    terms: &ShareTerms,
) -> Vec<Target> {
    let mut wanted = session.wanted.clone();
    if !wanted.is_empty() {
        let count = wanted.len();
        wanted.rotate_left(usize::try_from(session.epoch).unwrap_or(0) % count);
    }
    let targets = wanted.into_iter().map(|(topic_id, index)| Target {
        topic_id,
        index,
        found: find_target(context, group, (topic_id, index), terms),
    });
    targets.collect()
}

fn find_target(
    context: &Context,
    group: &Str,
    (topic_id, index): (Uuid, i32),
    terms: &ShareTerms,
) -> Result<(Arc<Topic>, Arc<Live>), Refusal> {
    let node = &context.node;
    let topic = node.topics.by_id(&topic_id).ok_or((ErrorCode::UnknownTopicId, None))?;
    permission::topic(context, AclOperation::Read, &topic.name)
        .map_err(|code| (code, Some(Str::from(code.message()))))?;
    let unknown = (ErrorCode::UnknownTopicOrPartition, None);
    let partition = topic.partition(index).ok_or(unknown)?;
    let key = ShareKey { group: group.clone(), topic_id, partition: index };
    let live = node.shares.find_or_load(node, &key, partition, terms);
    let live = live.map_err(|error| live_error(&error))?;
    Ok((topic, live))
}

/// A share fetch in progress.
struct Work {
    node: Arc<Node>,
    /// Whose quota it is charged to, if anybody has any.
    client: Option<Client>,
    member: Str,
    terms: ShareTerms,
    mode: AcquireMode,
    records_max: i64,
    batch_size: i64,
    bytes_max: usize,
    bytes_min: usize,
    targets: Vec<Target>,
    /// Partitions that are named even if there is nothing to say about them.
    listed: Vec<(Uuid, i32)>,
}

/// What was read of a partition, and from where.
struct Read {
    offset: i64,
    cut: Cut,
}

/// What one partition has to say.
#[derive(Default)]
struct Part {
    records: Vec<Bytes>,
    acquired: Vec<Acquired>,
    error: Option<Refusal>,
}

impl Work {
    async fn run(self, acknowledged: Vec<Acknowledged>, deadline: Instant) -> Reply {
        let parts = self.fetch(deadline).await;
        let mut outcomes = Vec::with_capacity(acknowledged.len());
        for partition in acknowledged {
            let place = (partition.topic_id, partition.partition);
            outcomes.push((place, partition.settled(&self.node).await));
        }
        self.respond(parts, outcomes)
    }

    /// Waits for records, at most up to the deadline, and acquires them.
    async fn fetch(&self, deadline: Instant) -> Vec<Part> {
        let mut parts: Vec<Part> = self.targets.iter().map(|_| Part::default()).collect();
        if self.records_max == 0 || self.bytes_max == 0 || self.targets.is_empty() {
            return self.with_errors(parts);
        }
        if self.try_acquire(&mut parts, false) {
            return parts;
        }
        let wait = FetchWait::new(&self.node.purgatory, 1);
        let found = self.targets.iter().filter_map(|target| target.found.as_ref().ok());
        let _places: Vec<Place> = found
            .flat_map(|(_, live)| [&live.partition.waiters, &live.waiters])
            .map(|waiters| waiters.add_fetch(Arc::clone(&wait)))
            .collect();
        loop {
            let is_late = Instant::now() >= deadline || self.node.is_stopping();
            if self.try_acquire(&mut parts, is_late) || is_late {
                return parts;
            }
            wait.rearm(1);
            // At the deadline there is one more look.
            let _ = timeout_at(deadline, wait.woken()).await;
        }
    }

    fn with_errors(&self, mut parts: Vec<Part>) -> Vec<Part> {
        for (part, target) in parts.iter_mut().zip(&self.targets) {
            part.error = target.found.as_ref().err().cloned();
        }
        parts
    }

    /// Reads, and acquires if there is enough; says whether there is anything to answer.
    fn try_acquire(&self, parts: &mut [Part], is_late: bool) -> bool {
        let mut reads: Vec<Option<Read>> = Vec::with_capacity(parts.len());
        let mut bytes = 0;
        // A partition that is not to be had is named when there is something to answer anyway, unless
        // no other is asked for: a member that goes on asking for it would be answered at once each time.
        let mut has_failed = self.targets.iter().all(|target| target.found.is_err());
        for (target, part) in self.targets.iter().zip(parts.iter_mut()) {
            part.error = target.found.as_ref().err().cloned();
            let Ok((_, live)) = &target.found else {
                reads.push(None);
                continue;
            };
            match self.read(live, bytes) {
                Ok(read) => {
                    bytes += read.as_ref().map_or(0, |read| read.cut.len());
                    reads.push(read);
                }
                Err(refusal) => {
                    part.error = Some(refusal);
                    has_failed = true;
                    reads.push(None);
                }
            }
        }
        if bytes < self.bytes_min.max(1) && !is_late && !has_failed {
            return false;
        }
        let mut left = self.records_max;
        let mut has_any = has_failed;
        for ((target, part), read) in self.targets.iter().zip(parts.iter_mut()).zip(reads) {
            let (Ok((topic, live)), Some(read)) = (&target.found, read) else { continue };
            if left <= 0 {
                break;
            }
            match self.acquire(live, &read, left) {
                Ok(acquired) => {
                    left -= acquired.iter().map(|piece| piece.last - piece.first + 1).sum::<i64>();
                    part.records = read.cut.around(&acquired);
                    has_any |= !acquired.is_empty();
                    part.acquired = acquired;
                    let size: usize = part.records.iter().map(Bytes::len).sum();
                    for counters in [&self.node.counters, &*topic.counters] {
                        counters.bytes_out.add(size as u64);
                    }
                }
                Err(refusal) => {
                    part.error = Some(refusal);
                    has_any = true;
                }
            }
        }
        has_any
    }

    /// Reads where records may be acquired; `before` bytes were read of other partitions.
    fn read(&self, live: &Arc<Live>, before: usize) -> Result<Option<Read>, Refusal> {
        let room = self.bytes_max.saturating_sub(before).min(READ_BYTES_MAX);
        if room == 0 {
            return Ok(None);
        }
        let plan = live.plan(&self.terms);
        self.node.shares.put_aside_if_fenced(live, &plan);
        let Some(plan) = plan.map_err(|error| live_error(&error))? else { return Ok(None) };
        match live.partition.read(plan.offset, room, plan.limit, before == 0) {
            Ok(pieces) => Ok(Some(Read { offset: plan.offset, cut: Cut::new(pieces) })),
            // The start of the log has moved on since; the next look will see it.
            Err(LogError::OffsetOutOfRange { .. })
                if plan.offset < live.partition.log_start_offset() =>
            {
                Ok(None)
            }
            Err(_) if live.partition.is_gone() => Err((ErrorCode::UnknownTopicOrPartition, None)),
            Err(error) => Err(live_error(&error.into())),
        }
    }

    fn acquire(&self, live: &Live, read: &Read, left: i64) -> Result<Vec<Acquired>, Refusal> {
        let mut aborted = Vec::new();
        if self.terms.read_committed
            && let Some(last) = read.cut.headers().last()
        {
            let found = live.partition.aborted_transactions(read.offset, last.next_offset().0);
            aborted = found.map_err(|error| live_error(&error.into()))?;
        }
        let fetched = read.cut.fetched(|header| {
            header.attributes.is_transactional()
                && aborted.iter().any(|transaction| {
                    let offsets = transaction.first_offset..=transaction.last_offset;
                    transaction.producer_id == header.producer_id
                        && offsets.contains(&header.base_offset)
                })
        });
        let acquisition = Acquisition {
            member: &self.member,
            mode: self.mode,
            records_max: left,
            batch_size: self.batch_size,
            terms: &self.terms,
            now_ms: self.node.shares.now_ms(),
            fetch_offset: read.offset,
        };
        let acquired = live.acquire(&acquisition, &fetched);
        self.node.shares.put_aside_if_fenced(live, &acquired);
        self.node.shares.plan(live);
        acquired.map_err(|error| live_error(&error))
    }

    fn respond(
        &self,
        parts: Vec<Part>,
        acknowledged: Vec<((Uuid, i32), Result<(), Refusal>)>,
    ) -> Reply {
        let mut reply = Reply::new(ShareFetchResponse {
            acquisition_lock_timeout_ms: self.terms.lock_ms,
            ..Default::default()
        });
        if let Some(client) = &self.client {
            // The member has the records already, so it gets them, and waits before it asks again.
            let bytes = parts.iter().flat_map(|part| &part.records).map(Bytes::len).sum();
            let wait_ms = self.node.quotas.fetched(client, bytes);
            reply.response().throttle_time_ms = i32::try_from(wait_ms).unwrap_or(i32::MAX);
        }
        let mut acknowledged: std::collections::BTreeMap<_, _> = acknowledged.into_iter().collect();
        for (target, part) in self.targets.iter().zip(parts) {
            let place = (target.topic_id, target.index);
            let outcome = acknowledged.remove(&place);
            let has_something = !part.acquired.is_empty() || part.error.is_some();
            if has_something || outcome.is_some() || self.listed.contains(&place) {
                push(&mut reply, place, part, outcome);
            }
        }
        for (place, outcome) in acknowledged {
            push(&mut reply, place, Part::default(), Some(outcome));
        }
        reply
    }
}

/// Adds a partition to the answer.
fn push(
    reply: &mut Reply,
    (topic_id, index): (Uuid, i32),
    part: Part,
    acknowledged: Option<Result<(), Refusal>>,
) {
    let mut data = PartitionData { partition_index: index, ..Default::default() };
    match reply.place(part.records.into_iter().map(Piece::Memory).collect()) {
        Ok(placed) => data.records = Some(placed),
        Err(error) => {
            data.error_code = ErrorCode::KafkaStorageError.code();
            data.error_message = Some(error.to_string().into());
        }
    }
    data.acquired_records = part
        .acquired
        .iter()
        .map(|piece| AcquiredRecords {
            first_offset: piece.first,
            last_offset: piece.last,
            delivery_count: piece.delivery_count,
        })
        .collect();
    if let Some((code, message)) = part.error {
        data.error_code = code.code();
        data.error_message = message;
    }
    if let Some(Err((code, message))) = acknowledged {
        data.acknowledge_error_code = code.code();
        data.acknowledge_error_message = message;
    }
    let responses = &mut reply.response().responses;
    match responses.iter_mut().find(|topic| topic.topic_id == topic_id) {
        Some(topic) => topic.partitions.push(data),
        None => {
            responses.push(ShareFetchableTopicResponse { topic_id, partitions: vec![data] });
        }
    }
}

fn refusal(code: ErrorCode) -> Reply {
    Reply::new(ShareFetchResponse { error_code: code.code(), ..Default::default() })
}

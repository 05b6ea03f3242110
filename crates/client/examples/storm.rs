//! Lets many members join one group at once, then half of them leave and come back in each of some
//! rounds, and measures until all have their share:
//! `storm HOST:PORT classic|consumer [MEMBERS] [ROUNDS]`. Each member has a connection of its own.
//!
//! The topic `storm` must exist, with a partition for each member. Members of the classic protocol let
//! their leader assign, a partition each; those of the consumer protocol send heartbeats at the
//! interval they are told. Whoever has a partition commits for it one more than is committed, as
//! whoever had it before may do still: that something committed is taken back fails the run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_client::connection::{Connection, Settings};
use fleuve_client::transport::{TcpTransport, Transport};
use fleuve_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use fleuve_protocol::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use fleuve_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::heartbeat_request::HeartbeatRequest;
use fleuve_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use fleuve_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use fleuve_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use fleuve_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use fleuve_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use fleuve_protocol::{ErrorCode, Request, Str};
use tokio::sync::{Barrier, watch};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TOPIC: Str = Str::from_static("storm");
/// How often it is looked whether everybody has settled.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(3);
/// How often members of the classic protocol send heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// By then everybody has to have settled.
const SETTLED_BY: Duration = Duration::from_secs(300);

/// No answer about a group is larger.
const ANSWER_BYTES_MAX: usize = 16 << 20;

static COMMITS: AtomicU64 = AtomicU64::new(0);

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: storm HOST:PORT classic|consumer [MEMBERS] [ROUNDS]";
    let address: Arc<str> = arguments.next().ok_or(usage)?.into();
    let protocol = arguments.next().ok_or(usage)?;
    let members: usize = arguments.next().map_or(Ok(500), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let group = Str::from(format!("storm-{protocol}"));
    let is_consumer = protocol == "consumer";

    let mut watcher = Watcher {
        client: Client::connect(&address).await?,
        group: group.clone(),
        members,
        is_consumer,
        committed: BTreeMap::new(),
    };
    let find =
        FindCoordinatorRequest { coordinator_keys: vec![group.clone()], ..Default::default() };
    while watcher.client.call(&find, 4).await?.coordinators[0].error_code != 0 {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let (round, rounds_seen) = watch::channel(0);
    let barrier = Arc::new(Barrier::new(members + 1));
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..members {
        let (address, group, barrier) = (address.clone(), group.clone(), barrier.clone());
        let whim = Whim { index, seen: 0, round: rounds_seen.clone() };
        tasks.spawn(async move {
            let client = Client::connect(&address).await?;
            barrier.wait().await;
            match is_consumer {
                true => consume(client, &group, whim).await,
                false => join(client, &group, whim).await,
            }
        });
    }
    barrier.wait().await;
    let work = async {
        let took = watcher.settle().await?;
        say(format!("{members} members settled after {took:.2?}"))?;
        for number in 1..=rounds {
            round.send_replace(number);
            tokio::time::sleep(ROUND).await;
            watcher.look().await?;
        }
        if rounds > 0 {
            let took = watcher.settle().await?;
            let (half, commits) = (members / 2, COMMITS.load(Ordering::Relaxed));
            say(format!(
                "{half} left and came back {rounds} times, {ROUND:?} apart; then {members} settled \
                 after {took:.2?}; {commits} commits, none taken back"
            ))?;
        }
        Ok(())
    };
    tokio::select! {
        outcome = work => outcome,
        // Members live until the process ends, unless something is wrong.
        Some(ended) = tasks.join_next() => ended?,
    }
}

fn say(line: String) -> Outcome<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Looks at the group from outside.
struct Watcher {
    client: Client,
    group: Str,
    members: usize,
    is_consumer: bool,
    committed: BTreeMap<i32, i64>,
}

impl Watcher {
    /// Waits until everybody is there and has what it should have.
    async fn settle(&mut self) -> Outcome<Duration> {
        let begun = Instant::now();
        loop {
            self.look().await?;
            let (count, state) = self.describe().await?;
            if count == self.members && state.as_str() == "Stable" {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > SETTLED_BY {
                return Err(format!("not settled: {count} members, {state}").into());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn describe(&mut self) -> Outcome<(usize, Str)> {
        if self.is_consumer {
            let group_ids = vec![self.group.clone()];
            let describe = ConsumerGroupDescribeRequest { group_ids, ..Default::default() };
            let group = self.client.call(&describe, 1).await?.groups.remove(0);
            return Ok((group.members.len(), group.group_state));
        }
        let groups = vec![self.group.clone()];
        let describe = DescribeGroupsRequest { groups, ..Default::default() };
        let group = self.client.call(&describe, 5).await?.groups.remove(0);
        Ok((group.members.len(), group.group_state))
    }

    /// Checks that nothing committed was taken back.
    async fn look(&mut self) -> Outcome<()> {
        for (partition, offset) in self.client.committed(&self.group, None).await? {
            let before = self.committed.insert(partition, offset).unwrap_or(-1);
            if offset < before {
                return Err(format!("partition {partition}: {offset} after {before}").into());
            }
        }
        Ok(())
    }
}

/// When a member leaves, and comes back as another.
struct Whim {
    index: usize,
    seen: usize,
    round: watch::Receiver<usize>,
}

impl Whim {
    /// Reports whether a round has begun in which it leaves.
    fn wants_to_leave(&mut self) -> bool {
        let now = *self.round.borrow();
        std::mem::replace(&mut self.seen, now) != now && (self.index + now).is_multiple_of(2)
    }

    /// Waits for so long, or until a round begins.
    async fn rest(&mut self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            Ok(()) = self.round.changed() => {}
        }
    }
}

/// Lives as a member of a consumer group, one life after the other.
async fn consume(client: Client, group: &Str, mut whim: Whim) -> Outcome<()> {
    let again = [ErrorCode::UnknownMemberId, ErrorCode::FencedMemberEpoch].map(|code| code.code());
    for life in 0.. {
        let id = Str::from(format!("member-{:04}-{life}", whim.index));
        let mut epoch = 0;
        let mut has: Vec<TopicPartitions> = Vec::new();
        loop {
            let joins = epoch == 0;
            let leaves = !joins && whim.wants_to_leave();
            let heartbeat = ConsumerGroupHeartbeatRequest {
                group_id: group.clone(),
                member_id: id.clone(),
                member_epoch: if leaves { -1 } else { epoch },
                rebalance_timeout_ms: if joins { 300_000 } else { -1 },
                subscribed_topic_names: joins.then(|| vec![TOPIC]),
                topic_partitions: (!leaves).then(|| has.clone()),
                ..Default::default()
            };
            let answer = client.call(&heartbeat, 1).await?;
            if answer.error_code == ErrorCode::CoordinatorLoadInProgress.code() {
                continue;
            }
            if leaves || again.contains(&answer.error_code) {
                break;
            }
            if answer.error_code != 0 {
                return Err(format!("{id}: error {}", answer.error_code).into());
            }
            epoch = answer.member_epoch;
            let is_told = answer.assignment.is_some();
            if let Some(assignment) = answer.assignment {
                let topics = assignment.topic_partitions.into_iter();
                has = topics
                    .map(|topic| TopicPartitions {
                        topic_id: topic.topic_id,
                        partitions: topic.partitions,
                    })
                    .collect();
            }
            // Clients acknowledge a new assignment at once.
            if !is_told {
                if let Some(partition) = has.first().and_then(|topic| topic.partitions.first()) {
                    client.commit_next(group, &id, epoch, *partition).await?;
                }
                let interval = u64::try_from(answer.heartbeat_interval_ms)?;
                whim.rest(Duration::from_millis(interval)).await;
            }
        }
    }
    Ok(())
}

/// Lives as a member of a classic group, one life after the other.
async fn join(client: Client, group: &Str, mut whim: Whim) -> Outcome<()> {
    let unknown = ErrorCode::UnknownMemberId.code();
    let mut member_id = Str::EMPTY;
    loop {
        let request = JoinGroupRequest {
            group_id: group.clone(),
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 300_000,
            member_id: member_id.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: Bytes::from_static(b"topics"),
            }],
            ..Default::default()
        };
        let joined = client.call(&request, 9).await?;
        member_id = if joined.error_code == unknown { Str::EMPTY } else { joined.member_id };
        if joined.error_code != 0 {
            continue;
        }
        let assignments = joined.members.iter().zip(0_i32..).map(|(member, partition)| {
            SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: Bytes::copy_from_slice(&partition.to_be_bytes()),
            }
        });
        let generation = joined.generation_id;
        let sync = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: generation,
            member_id: member_id.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments: assignments.collect(),
            ..Default::default()
        };
        let synced = client.call(&sync, 5).await?;
        if synced.error_code == unknown {
            member_id = Str::EMPTY;
        }
        let Ok(partition) = <[u8; 4]>::try_from(&synced.assignment[..]) else { continue };
        if synced.error_code != 0 {
            continue;
        }
        loop {
            if whim.wants_to_leave() {
                let member =
                    MemberIdentity { member_id: member_id.clone(), ..MemberIdentity::default() };
                let members = vec![member];
                let leave =
                    LeaveGroupRequest { group_id: group.clone(), members, ..Default::default() };
                client.call(&leave, 5).await?;
                member_id = Str::EMPTY;
                break;
            }
            let heartbeat = HeartbeatRequest {
                group_id: group.clone(),
                generation_id: generation,
                member_id: member_id.clone(),
                ..Default::default()
            };
            let code = client.call(&heartbeat, 4).await?.error_code;
            if code != 0 {
                if code == unknown {
                    member_id = Str::EMPTY;
                }
                break;
            }
            let partition = i32::from_be_bytes(partition);
            client.commit_next(group, &member_id, generation, partition).await?;
            whim.rest(HEARTBEAT).await;
        }
    }
}

/// A member's connection. No consumer is in the way: what is measured is the coordinator.
struct Client {
    connection: Connection,
}

impl Client {
    async fn connect(address: &str) -> Outcome<Self> {
        let (host, port) = address.rsplit_once(':').ok_or("an address is HOST:PORT")?;
        let link = TcpTransport.connect(host, port.parse()?, ANSWER_BYTES_MAX).await?;
        let settings = Settings {
            client_id: Str::from_static("storm"),
            request_timeout: SETTLED_BY,
            authenticator: None,
        };
        Ok(Self { connection: Connection::open(address.to_owned(), link, settings).await? })
    }

    /// The offsets that are committed, of one partition or of all.
    async fn committed(&self, group: &Str, only: Option<i32>) -> Outcome<Vec<(i32, i64)>> {
        let topics = only.map(|partition| {
            let partition_indexes = vec![partition];
            vec![OffsetFetchRequestTopics { name: TOPIC, partition_indexes, ..Default::default() }]
        });
        let asked =
            OffsetFetchRequestGroup { group_id: group.clone(), topics, ..Default::default() };
        let request = OffsetFetchRequest { groups: vec![asked], ..Default::default() };
        let found = self.call(&request, 8).await?.groups.remove(0);
        let partitions = found.topics.into_iter().flat_map(|topic| topic.partitions);
        Ok(partitions.map(|it| (it.partition_index, it.committed_offset)).collect())
    }

    /// Commits one more than is committed; the broker may refuse.
    async fn commit_next(
        &self,
        group: &Str,
        member_id: &Str,
        epoch: i32,
        partition: i32,
    ) -> Outcome<()> {
        let found = self.committed(group, Some(partition)).await?;
        let before = found.first().map_or(-1, |(_, offset)| *offset);
        let partition = OffsetCommitRequestPartition {
            partition_index: partition,
            committed_offset: before.max(0) + 1,
            ..Default::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: TOPIC,
            partitions: vec![partition],
            ..Default::default()
        };
        let request = OffsetCommitRequest {
            group_id: group.clone(),
            generation_id_or_member_epoch: epoch,
            member_id: member_id.clone(),
            topics: vec![topic],
            ..Default::default()
        };
        let answer = self.call(&request, 9).await?;
        let is_taken = answer.topics[0].partitions[0].error_code == 0;
        COMMITS.fetch_add(u64::from(is_taken), Ordering::Relaxed);
        Ok(())
    }

    async fn call<R: Request>(&self, request: &R, version: i16) -> Outcome<R::Response> {
        Ok(self.connection.submit(request, version)?.wait().await?)
    }
}

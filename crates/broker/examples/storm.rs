//! Lets many members join one group at once and measures until all have their share:
//! `storm HOST:PORT classic|consumer [MEMBERS]`. Each member has a connection of its own.
//!
//! The topic `storm` must exist. Members of the classic protocol say who they are with range and let
//! their leader assign; those of the consumer protocol send heartbeats at the interval they are told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use fleuve_protocol::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use fleuve_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use fleuve_protocol::{ErrorCode, Request, Str, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TOPIC: Str = Str::from_static("storm");
/// How often a member looks whether everybody has settled.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: storm HOST:PORT classic|consumer [MEMBERS]";
    let address: Arc<str> = arguments.next().ok_or(usage)?.into();
    let protocol = arguments.next().ok_or(usage)?;
    let members: usize = arguments.next().map_or(Ok(500), |text| text.parse())?;
    let group = Str::from(format!("storm-{protocol}"));

    let mut admin = Client::connect(&address).await?;
    let find =
        FindCoordinatorRequest { coordinator_keys: vec![group.clone()], ..Default::default() };
    while admin.call(&find, 4).await?.coordinators[0].error_code != 0 {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let barrier = Arc::new(Barrier::new(members + 1));
    let mut tasks = Vec::new();
    for index in 0..members {
        let (address, group, barrier) = (address.clone(), group.clone(), barrier.clone());
        let is_consumer = protocol == "consumer";
        tasks.push(tokio::spawn(async move {
            let client = Client::connect(&address).await?;
            barrier.wait().await;
            match is_consumer {
                true => consume(client, &group, index).await.map(|()| 0),
                false => join(client, &group, members).await,
            }
        }));
    }
    barrier.wait().await;
    let begin = Instant::now();
    if protocol == "consumer" {
        let describe =
            ConsumerGroupDescribeRequest { group_ids: vec![group], ..Default::default() };
        loop {
            let described = admin.call(&describe, 1).await?.groups.remove(0);
            let epochs: BTreeSet<i32> = described.members.iter().map(|m| m.member_epoch).collect();
            if described.members.len() == members && described.group_state.as_str() == "Stable" {
                say(format!(
                    "{members} members settled in epoch {epochs:?} after {:.2?}",
                    begin.elapsed()
                ))?;
                return Ok(());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    let mut generations = BTreeSet::new();
    for task in tasks {
        generations.insert(task.await??);
    }
    say(format!(
        "{members} members settled in generation {generations:?} after {:.2?}",
        begin.elapsed()
    ))
}

fn say(line: String) -> Outcome<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Lives as a member of a consumer group until the process ends.
async fn consume(mut client: Client, group: &Str, index: usize) -> Outcome<()> {
    let id = Str::from(format!("member-{index:04}"));
    let mut epoch = 0;
    let mut has: Vec<TopicPartitions> = Vec::new();
    loop {
        let joins = epoch == 0;
        let heartbeat = ConsumerGroupHeartbeatRequest {
            group_id: group.clone(),
            member_id: id.clone(),
            member_epoch: epoch,
            rebalance_timeout_ms: if joins { 300_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![TOPIC]),
            topic_partitions: Some(has.clone()),
            ..Default::default()
        };
        let answer = client.call(&heartbeat, 1).await?;
        if answer.error_code == ErrorCode::CoordinatorLoadInProgress.code() {
            continue;
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
            let interval = u64::try_from(answer.heartbeat_interval_ms)?;
            tokio::time::sleep(Duration::from_millis(interval)).await;
        }
    }
}

/// Joins a classic group until all are in one generation, and returns that.
async fn join(mut client: Client, group: &Str, members: usize) -> Outcome<i32> {
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
        member_id = joined.member_id.clone();
        if joined.error_code != 0 {
            continue;
        }
        let assignments = joined.members.iter().map(|member| SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: Bytes::from_static(b"partitions"),
        });
        let sync = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: joined.generation_id,
            member_id: member_id.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments: assignments.collect(),
            ..Default::default()
        };
        let synced = client.call(&sync, 5).await?;
        let is_leader = joined.leader == member_id;
        let is_complete = !is_leader || joined.members.len() == members;
        if synced.error_code == 0 && !synced.assignment.is_empty() && is_complete {
            return Ok(joined.generation_id);
        }
    }
}

/// A connection that sends one request at a time.
struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    async fn connect(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, correlation_id: 0 })
    }

    async fn call<R: Request>(&mut self, request: &R, version: i16) -> Outcome<R::Response> {
        use fleuve_protocol::Message;
        self.correlation_id += 1;
        let client_id = Str::from_static("storm");
        let segments =
            frame::encode_request(self.correlation_id, Some(&client_id), request, version)?;
        self.stream.write_all(&segments.concat()).await?;
        let length = self.stream.read_i32().await?;
        let mut answer = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut answer).await?;
        let (_, mut body) = frame::decode_response_header(Bytes::from(answer), R::KEY, version)?;
        Ok(R::Response::decode(&mut body, version)?)
    }
}

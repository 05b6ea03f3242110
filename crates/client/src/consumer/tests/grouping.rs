//! A member of a scripted group, whose partitions have records without end.

use fleuve_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use fleuve_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use fleuve_protocol::messages::heartbeat_response::HeartbeatResponse;
use fleuve_protocol::messages::join_group_response::JoinGroupResponse;
use fleuve_protocol::messages::leave_group_response::LeaveGroupResponse;
use fleuve_protocol::messages::offset_fetch_request::OffsetFetchRequest;
use fleuve_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
};
use fleuve_protocol::messages::sync_group_response::SyncGroupResponse;

use super::*;
use crate::consumer::protocol::encode_assignment;

/// What the group wants of its member, and what it has heard of it.
#[derive(Default)]
struct Group {
    target: Vec<i32>,
    generation: i32,
    /// What the next heartbeats meet.
    errors: VecDeque<ErrorCode>,
    joins: usize,
    /// What the member of a KIP-848 group said last that it has.
    owned: Vec<i32>,
    committed: HashMap<i32, i64>,
    /// The offsets in the order in which they were committed, with the generation they were for.
    commits: Vec<(i32, i64)>,
    /// How long the coordinator takes for a commit.
    commit_takes: Duration,
}

type Shown = Arc<Mutex<Group>>;

fn group(target: &[i32]) -> (ScriptedBroker, Shown) {
    let group = Group { target: target.to_vec(), generation: 1, ..Group::default() };
    let group = Arc::new(Mutex::new(group));
    let shown = group.clone();
    let broker =
        ScriptedBroker::new(2, move |request| shown.lock().expect("no panic").answer(&request));
    (broker, group)
}

impl Group {
    /// Has the members of a classic group join anew.
    fn divide(&mut self, target: &[i32]) {
        self.target = target.to_vec();
        self.errors.push_back(ErrorCode::RebalanceInProgress);
    }

    fn answer(&mut self, request: &RequestFrame) -> Reply {
        match request.key {
            ApiKey::FindCoordinator => send(request, &coordinator()),
            ApiKey::ListOffsets => list_offsets(request),
            ApiKey::Fetch => send(request, &endless(&body(request))),
            ApiKey::OffsetFetch => send(request, &self.offsets(&body(request))),
            ApiKey::OffsetCommit => self.commit(request),
            ApiKey::JoinGroup => {
                self.joins += 1;
                self.generation += 1;
                let joined = JoinGroupResponse {
                    generation_id: self.generation,
                    protocol_type: Some("consumer".into()),
                    protocol_name: Some("range".into()),
                    leader: "other".into(),
                    member_id: "m".into(),
                    ..JoinGroupResponse::default()
                };
                send(request, &joined)
            }
            ApiKey::SyncGroup => {
                let partitions = self.target.iter().map(|&index| TopicPartition::new("t", index));
                let assigned = Assigned { partitions: partitions.collect(), ..Assigned::default() };
                let assignment = encode_assignment(&assigned);
                send(request, &SyncGroupResponse { assignment, ..Default::default() })
            }
            ApiKey::Heartbeat => {
                let error_code = self.errors.pop_front().unwrap_or(ErrorCode::None).code();
                send(request, &HeartbeatResponse { error_code, ..Default::default() })
            }
            ApiKey::ConsumerGroupHeartbeat => self.beat(request),
            ApiKey::LeaveGroup => send(request, &LeaveGroupResponse::default()),
            other => panic!("{other:?} was not expected"),
        }
    }

    fn beat(&mut self, request: &RequestFrame) -> Reply {
        let beat: ConsumerGroupHeartbeatRequest = body(request);
        if beat.member_epoch == 0 {
            self.joins += 1;
        }
        if let Some(owned) = beat.topic_partitions {
            self.owned = owned.into_iter().flat_map(|topic| topic.partitions).collect();
        }
        let target = TopicPartitions { topic_id: TOPIC_ID, partitions: self.target.clone() };
        let answer = ConsumerGroupHeartbeatResponse {
            error_code: self.errors.pop_front().unwrap_or(ErrorCode::None).code(),
            member_id: Some(beat.member_id),
            member_epoch: self.generation,
            heartbeat_interval_ms: 1000,
            assignment: Some(Assignment { topic_partitions: vec![target] }),
            ..ConsumerGroupHeartbeatResponse::default()
        };
        send(request, &answer)
    }

    fn offsets(&self, asked: &OffsetFetchRequest) -> OffsetFetchResponse {
        let asked = asked.groups[0].topics.iter().flatten();
        let topics = asked.map(|topic| {
            let partitions =
                topic.partition_indexes.iter().map(|index| OffsetFetchResponsePartitions {
                    partition_index: *index,
                    committed_offset: self.committed.get(index).copied().unwrap_or(-1),
                    ..OffsetFetchResponsePartitions::default()
                });
            OffsetFetchResponseTopics {
                name: topic.name.clone(),
                partitions: partitions.collect(),
                ..OffsetFetchResponseTopics::default()
            }
        });
        let groups = vec![OffsetFetchResponseGroup {
            group_id: "g".into(),
            topics: topics.collect(),
            ..OffsetFetchResponseGroup::default()
        }];
        OffsetFetchResponse { groups, ..OffsetFetchResponse::default() }
    }

    fn commit(&mut self, request: &RequestFrame) -> Reply {
        let commit: OffsetCommitRequest = body(request);
        for partition in &commit.topics[0].partitions {
            self.committed.insert(partition.partition_index, partition.committed_offset);
            let generation = commit.generation_id_or_member_epoch;
            self.commits.push((generation, partition.committed_offset));
        }
        match send(request, &all_committed(commit)) {
            Reply::Send(answer) => Reply::After(self.commit_takes, answer),
            other => other,
        }
    }
}

/// A batch of every partition that is asked for.
fn endless(asked: &FetchRequest) -> FetchResponse {
    let partitions = asked.topics.iter().flat_map(|topic| &topic.partitions);
    let partitions = partitions.map(|partition| {
        let offset = partition.fetch_offset;
        PartitionData {
            partition_index: partition.partition,
            high_watermark: i64::MAX,
            records: Some(batch(offset - offset % PER_BATCH)),
            ..PartitionData::default()
        }
    });
    let topic = FetchableTopicResponse {
        topic_id: TOPIC_ID,
        partitions: partitions.collect(),
        ..FetchableTopicResponse::default()
    };
    // Without a session, so that every request names all it wants.
    FetchResponse { responses: vec![topic], ..FetchResponse::default() }
}

fn member(broker: &ScriptedBroker, group_protocol: GroupProtocol) -> Consumer {
    let config = ConsumerConfig {
        group_id: Some("g".to_owned()),
        offset_reset: OffsetReset::Earliest,
        group_protocol,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(broker.client(), config).expect("valid");
    consumer.subscribe(&["t"]).expect("a group");
    consumer
}

/// Takes a while to let partitions go, and keeps what is read of them.
#[derive(Default)]
struct Slow {
    revoking: Mutex<Vec<i32>>,
}

/// How long [`Slow`] takes.
const REVOKING: Duration = Duration::from_secs(4);
/// How long an application works on the records of one poll.
const WORK: Duration = Duration::from_millis(100);

impl RebalanceListener for Slow {
    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let indexes = partitions.iter().map(|partition| partition.partition);
            *self.revoking.lock().expect("no panic") = indexes.collect();
            tokio::time::sleep(REVOKING).await;
            self.revoking.lock().expect("no panic").clear();
        })
    }
}

/// Polls and works for so long, and returns the records' partitions and offsets.
async fn work(consumer: &Consumer, how_long: Duration) -> Vec<(i32, i64)> {
    let until = Instant::now() + how_long;
    let mut offsets = Vec::new();
    while Instant::now() < until {
        let records = consumer.poll(until - Instant::now()).await.expect("readable");
        for record in records.iter().flatten() {
            let partition = records.as_ref().map_or(-1, |records| records.partition().partition);
            offsets.push((partition, record.offset.0));
        }
        tokio::time::sleep(WORK).await;
    }
    offsets
}

fn of_partition(read: &[(i32, i64)], partition: i32) -> Vec<i64> {
    let of = read.iter().filter(|(read_of, _)| *read_of == partition);
    of.map(|(_, offset)| *offset).collect()
}

#[tokio::test(start_paused = true)]
async fn a_backlog_does_not_put_off_a_rebalance() {
    let (broker, group) = group(&[0]);
    let consumer = member(&broker, GroupProtocol::Classic);
    work(&consumer, Duration::from_secs(5)).await;
    group.lock().expect("no panic").divide(&[0]);
    work(&consumer, Duration::from_secs(5)).await;
    assert_eq!(group.lock().expect("no panic").joins, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_revoked_is_not_handed_out() {
    let (broker, group) = group(&[0]);
    let consumer = member(&broker, GroupProtocol::Classic);
    consumer.set_rebalance_listener(Arc::new(Slow::default()));
    let mut read = work(&consumer, Duration::from_secs(5)).await;
    group.lock().expect("no panic").divide(&[0]);
    read.extend(work(&consumer, Duration::from_secs(20)).await);
    let group = group.lock().expect("no panic");
    assert_eq!(group.joins, 2);
    // The partition came back, from where the group had heard of: nothing is read twice.
    let read = of_partition(&read, 0);
    assert_eq!(read, (FIRST..FIRST + read.len() as i64).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn partitions_that_stay_are_read_while_others_are_revoked() {
    let (broker, group) = group(&[0, 1]);
    let consumer = member(&broker, GroupProtocol::Consumer);
    let slow = Arc::new(Slow::default());
    consumer.set_rebalance_listener(slow.clone());
    let before = work(&consumer, Duration::from_secs(5)).await;
    assert_eq!(group.lock().expect("no panic").owned, [0, 1]);
    group.lock().expect("no panic").target = vec![0];
    let asked = Instant::now();
    while slow.revoking.lock().expect("no panic").is_empty() {
        assert!(asked.elapsed() < Duration::from_secs(5), "nothing is revoked");
        work(&consumer, WORK).await;
    }
    let committed = group.lock().expect("no panic").committed[&1];
    assert!(committed >= before.iter().rfind(|(partition, _)| *partition == 1).expect("read").1);
    let during = work(&consumer, REVOKING / 2).await;
    assert_eq!(of_partition(&during, 1), [0i64; 0]);
    assert!(of_partition(&during, 0).len() as i64 > 10 * PER_BATCH, "{during:?}");
    work(&consumer, REVOKING).await;
    assert_eq!(group.lock().expect("no panic").owned, [0]);
}

/// Asks for more while partitions are revoked, as one may to be done with them.
struct Polling(tokio::sync::mpsc::UnboundedSender<(usize, Result<()>)>, Arc<Consumer>);

impl RebalanceListener for Polling {
    fn revoked<'a>(&'a self, _: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut polled = 0;
            while polled < 100 && self.1.poll(WORK).await.expect("readable").is_some() {
                polled += 1;
            }
            let _ = self.0.send((polled, self.1.commit().await));
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_poll_and_commit() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let (broker, group) = group(&[0]);
        let consumer = Arc::new(member(&broker, protocol));
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        consumer.set_rebalance_listener(Arc::new(Polling(told, consumer.clone())));
        work(&consumer, Duration::from_secs(5)).await;
        group.lock().expect("no panic").divide(&[]);
        if protocol == GroupProtocol::Consumer {
            group.lock().expect("no panic").errors.clear();
        }
        work(&consumer, Duration::from_secs(5)).await;
        let (polled, committed) = heard.recv().await.expect("revoked");
        assert_eq!(polled, 0);
        committed.expect("still a member");
        assert_eq!(consumer.assignment(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn commits_take_effect_in_the_order_they_were_asked_for() {
    let (broker, group) = group(&[0]);
    let consumer = member(&broker, GroupProtocol::Classic);
    work(&consumer, Duration::from_secs(1)).await;
    // The first of them is still under way when the others are asked for.
    group.lock().expect("no panic").commit_takes = WORK;
    let mut asked = Vec::new();
    for _ in 0..3 {
        consumer.poll(WORK).await.expect("readable").expect("records");
        asked.push(consumer.positions_to_commit()[&partition()].offset);
        consumer.commit_async(|result| result.expect("committed"));
    }
    consumer.poll(WORK).await.expect("readable").expect("records");
    asked.push(consumer.positions_to_commit()[&partition()].offset);
    consumer.commit().await.expect("committed");
    let group = group.lock().expect("no panic");
    let committed: Vec<_> = group.commits.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(committed, asked);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_poll_ends_with_the_assignment() {
    let (broker, group) = group(&[0]);
    let consumer = member(&broker, GroupProtocol::Consumer);
    let next = async || {
        let record = consumer.next(Duration::from_secs(5)).await.expect("readable");
        record.expect("a record").offset
    };
    assert_eq!(next().await, FIRST);
    // The application is away for so long that the partition goes to somebody else, who reads on.
    group.lock().expect("no panic").target = vec![];
    tokio::time::sleep(consumer.shared.config.max_poll_interval).await;
    while !consumer.assignment().is_empty() {
        tokio::time::sleep(WORK).await;
    }
    {
        let mut group = group.lock().expect("no panic");
        group.committed.insert(0, 500);
        group.target = vec![0];
    }
    assert_eq!(next().await, 500);
    assert_eq!(consumer.positions_to_commit()[&partition()].offset, 501);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_outside_the_group() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let (broker, group) = group(&[0]);
        let consumer = member(&broker, protocol);
        let by_hand = || consumer.commit_offsets(HashMap::from([(partition(), 900)]));
        let code = |result: Result<()>| result.expect_err("nothing is committed").code();
        assert_eq!(code(by_hand().await), Some(ErrorCode::UnknownMemberId), "not a member yet");
        consumer.commit().await.expect("there is nothing to commit");
        work(&consumer, Duration::from_secs(1)).await;
        consumer.poll(WORK).await.expect("readable").expect("records");
        // The application works for so long that it leaves the group.
        tokio::time::sleep(consumer.shared.config.max_poll_interval + WORK).await;
        assert_eq!(consumer.assignment(), []);
        assert_eq!(code(consumer.commit().await), Some(ErrorCode::UnknownMemberId));
        assert_eq!(code(by_hand().await), Some(ErrorCode::UnknownMemberId));
        let (done, told) = tokio::sync::oneshot::channel();
        consumer.commit_async(|result| drop(done.send(result)));
        assert_eq!(code(told.await.expect("called")), Some(ErrorCode::UnknownMemberId));

        work(&consumer, Duration::from_secs(1)).await;
        consumer.commit().await.expect("a member again");
        by_hand().await.expect("a member again");
        let group = group.lock().expect("no panic");
        let mut generations = group.commits.iter().map(|(generation, _)| *generation);
        assert!(generations.all(|generation| generation > 0), "{:?}", group.commits);
    }
}

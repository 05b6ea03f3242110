//! Classic groups against a real broker.

use fleuve_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::heartbeat_request::HeartbeatRequest;
use fleuve_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use fleuve_protocol::messages::join_group_response::JoinGroupResponse;
use fleuve_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use fleuve_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use fleuve_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup,
};
use fleuve_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use fleuve_protocol::{ErrorCode, Str};

use crate::support::{TestBroker, TestClient};

const GROUP: Str = Str::from_static("readers");
/// Few partitions, because making fifty takes a while in a debug build.
const FEW: &[(&str, &str)] = &[("offsets.topic.num.partitions", "4")];

fn join(member_id: &Str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member_id.clone(),
        protocol_type: Str::from("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from("range"),
            metadata: bytes::Bytes::from_static(b"subscription"),
        }],
        ..Default::default()
    }
}

fn sync(joined: &JoinGroupResponse, assignments: &[(&Str, &'static str)]) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: GROUP,
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some(Str::from("consumer")),
        protocol_name: Some(Str::from("range")),
        assignments: assignments
            .iter()
            .map(|(member_id, assignment)| SyncGroupRequestAssignment {
                member_id: (*member_id).clone(),
                assignment: bytes::Bytes::from_static(assignment.as_bytes()),
            })
            .collect(),
        ..Default::default()
    }
}

async fn heartbeat(client: &mut TestClient, joined: &JoinGroupResponse) -> i16 {
    let beat = HeartbeatRequest {
        group_id: GROUP,
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    client.call(&beat, 4).await.error_code
}

async fn find_coordinator(client: &mut TestClient) {
    find_coordinator_of(client, &GROUP).await;
}

/// Finds a group's coordinator, which makes the offsets topic.
pub(super) async fn find_coordinator_of(client: &mut TestClient, group: &str) {
    let coordinator_keys = vec![Str::copy_from(group)];
    let find = FindCoordinatorRequest { coordinator_keys, ..Default::default() };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
}

/// Joins an empty group: the broker gives out an id first.
async fn join_first(client: &mut TestClient) -> JoinGroupResponse {
    let refused = client.call(&join(&Str::EMPTY), 9).await;
    assert_eq!(refused.error_code, ErrorCode::MemberIdRequired.code());
    let joined = client.call(&join(&refused.member_id), 9).await;
    assert_eq!(joined.error_code, 0, "{joined:?}");
    joined
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_rebalance_and_get_their_shares() {
    let broker = TestBroker::start(FEW).await;
    let (mut first, mut second) = (broker.connect().await, broker.connect().await);
    find_coordinator(&mut first).await;
    let alone = join_first(&mut first).await;
    assert_eq!((&alone.leader, alone.members.len()), (&alone.member_id, 1));
    let synced = first.call(&sync(&alone, &[(&alone.member_id, "all")]), 5).await;
    assert_eq!(&synced.assignment[..], b"all");
    assert_eq!(heartbeat(&mut first, &alone).await, 0);

    // The second waits until the first has heard of it and joined again.
    let refused = second.call(&join(&Str::EMPTY), 9).await;
    let second_id = refused.member_id;
    second.send(&join(&second_id), 9).await;
    loop {
        let code = heartbeat(&mut first, &alone).await;
        if code == ErrorCode::RebalanceInProgress.code() {
            break;
        }
        // Its request may still be on its way.
        assert_eq!(code, 0);
        tokio::task::yield_now().await;
    }
    let leader = first.call(&join(&alone.member_id), 9).await;
    let follower = second.receive::<JoinGroupRequest>(9).await.expect("an answer");
    assert_eq!(leader.generation_id, follower.generation_id);
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));

    // The follower's sync waits for the leader's.
    second.send(&sync(&follower, &[]), 5).await;
    let shares = [(&leader.member_id, "one"), (&second_id, "two")];
    let synced = first.call(&sync(&leader, &shares), 5).await;
    assert_eq!(&synced.assignment[..], b"one");
    let synced = second.receive::<SyncGroupRequest>(5).await.expect("an answer");
    assert_eq!(&synced.assignment[..], b"two");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_and_generations_survive_a_restart() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 2).await;
    find_coordinator(&mut client).await;
    let joined = join_first(&mut client).await;
    client.call(&sync(&joined, &[(&joined.member_id, "all")]), 5).await;
    let commit = OffsetCommitRequest {
        group_id: GROUP,
        generation_id_or_member_epoch: joined.generation_id,
        member_id: joined.member_id.clone(),
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("words"),
            partitions: vec![
                OffsetCommitRequestPartition {
                    partition_index: 1,
                    committed_offset: 42,
                    committed_metadata: Some(Str::from("note")),
                    ..Default::default()
                },
                OffsetCommitRequestPartition { partition_index: 9, ..Default::default() },
            ],
            ..Default::default()
        }],
        ..Default::default()
    };
    let committed = client.call(&commit, 9).await;
    let codes: Vec<i16> =
        committed.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);

    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, FEW).await;
    let mut client = broker.connect().await;
    let all = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP,
            topics: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let group = loop {
        let group = client.call(&all, 9).await.groups.remove(0);
        if group.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
            break group;
        }
    };
    assert_eq!(group.error_code, 0);
    assert_eq!(group.topics.len(), 1);
    let partition = &group.topics[0].partitions[0];
    assert_eq!((partition.partition_index, partition.committed_offset), (1, 42));
    assert_eq!(partition.metadata.as_deref(), Some("note"));
    // The member goes on as if nothing had happened.
    assert_eq!(heartbeat(&mut client, &joined).await, 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_deleted_topic_are_gone() {
    use fleuve_protocol::messages::delete_topics_request::DeleteTopicsRequest;
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    find_coordinator(&mut client).await;
    let commit = OffsetCommitRequest {
        group_id: GROUP,
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("words"),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: 42,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let committed = client.call(&commit, 9).await;
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    let delete =
        DeleteTopicsRequest { topic_names: vec![Str::from("words")], ..Default::default() };
    assert_eq!(client.call(&delete, 5).await.responses[0].error_code, 0);
    let all = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP,
            topics: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert!(client.call(&all, 9).await.groups[0].topics.is_empty());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_broker_sends_waiting_members_away() {
    let broker = TestBroker::start(&[
        ("offsets.topic.num.partitions", "4"),
        ("group.initial.rebalance.delay.ms", "60000"),
    ])
    .await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client).await;
    let refused = client.call(&join(&Str::EMPTY), 9).await;
    client.send(&join(&refused.member_id), 9).await;
    // The answer to another request on the same connection stays behind the join's, but another
    // connection can tell that the join has arrived.
    let mut other = broker.connect().await;
    let stranger = HeartbeatRequest {
        group_id: GROUP,
        member_id: refused.member_id.clone(),
        generation_id: 0,
        ..Default::default()
    };
    while other.call(&stranger, 4).await.error_code == ErrorCode::UnknownMemberId.code() {
        tokio::task::yield_now().await;
    }
    let begun = std::time::Instant::now();
    broker.stop().await;
    let answer = client.receive::<JoinGroupRequest>(9).await.expect("an answer");
    assert_eq!(answer.error_code, ErrorCode::NotCoordinator.code());
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_partitions_in_a_request_are_refused() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    let twice = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: Str::from("words"),
            partitions: vec![ListOffsetsPartition::default(), ListOffsetsPartition::default()],
        }],
        ..Default::default()
    };
    let response = client.call(&twice, 7).await;
    for partition in &response.topics[0].partitions {
        assert_eq!(partition.error_code, ErrorCode::InvalidRequest.code());
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_named_twice_is_deleted_once() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client).await;
    let delete = DeleteGroupsRequest { groups_names: vec![GROUP, GROUP] };
    let results = client.call(&delete, 2).await.results;
    let told: Vec<_> = results.iter().map(|result| result.error_code).collect();
    assert_eq!(told, [ErrorCode::GroupIdNotFound.code()]);
    broker.stop().await;
}

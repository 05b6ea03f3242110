//! Consumer groups (KIP-848) against a real broker.

use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use fleuve_protocol::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use fleuve_protocol::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use fleuve_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use fleuve_protocol::messages::list_groups_request::ListGroupsRequest;
use fleuve_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use fleuve_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use fleuve_protocol::messages::streams_group_describe_request::StreamsGroupDescribeRequest;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use crate::support::{TestBroker, TestClient};

const GROUP: Str = Str::from_static("readers");
const FEW: &[(&str, &str)] =
    &[("offsets.topic.num.partitions", "4"), ("group.consumer.assignment.interval.ms", "0")];
const HEARTBEAT: i16 = 1;

/// A member's process: what it was told, and what it has therefore.
struct Member {
    id: Str,
    epoch: i32,
    has: Vec<i32>,
    topic: Uuid,
}

impl Member {
    async fn join(client: &mut TestClient, id: &'static str, topic: Uuid) -> Self {
        let request = ConsumerGroupHeartbeatRequest {
            rebalance_timeout_ms: 10_000,
            subscribed_topic_names: Some(vec![Str::from("words")]),
            topic_partitions: Some(Vec::new()),
            ..heartbeat(id.into(), 0)
        };
        let mut member = Self { id: id.into(), epoch: 0, has: Vec::new(), topic };
        member.learn(call(client, &request).await);
        member
    }

    /// Sends a heartbeat that says what the member has.
    async fn beat(&mut self, client: &mut TestClient) {
        let owned = TopicPartitions { topic_id: self.topic, partitions: self.has.clone() };
        let request = ConsumerGroupHeartbeatRequest {
            topic_partitions: Some(vec![owned]),
            ..heartbeat(self.id.clone(), self.epoch)
        };
        let response = call(client, &request).await;
        self.learn(response);
    }

    fn learn(&mut self, response: ConsumerGroupHeartbeatResponse) {
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        self.epoch = response.member_epoch;
        if let Some(assignment) = response.assignment {
            let topics = assignment.topic_partitions.into_iter();
            self.has = topics.flat_map(|topic| topic.partitions).collect();
        }
    }

    fn commit(&self, epoch: i32, partition_index: i32) -> OffsetCommitRequest {
        OffsetCommitRequest {
            group_id: GROUP,
            generation_id_or_member_epoch: epoch,
            member_id: self.id.clone(),
            topics: vec![OffsetCommitRequestTopic {
                name: Str::from("words"),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset: 7,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }
}

fn heartbeat(member_id: Str, member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest { group_id: GROUP, member_id, member_epoch, ..Default::default() }
}

/// Calls until the group's coordinator is there.
async fn call(
    client: &mut TestClient,
    request: &ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    loop {
        let response = client.call(request, HEARTBEAT).await;
        if response.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
            return response;
        }
    }
}

async fn commit_code(client: &mut TestClient, commit: &OffsetCommitRequest) -> i16 {
    client.call(commit, 9).await.topics[0].partitions[0].error_code
}

async fn find_coordinator(client: &mut TestClient) {
    let find = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_a_topic_and_see_it_grow() {
    let broker = TestBroker::start(FEW).await;
    let client = &mut broker.connect().await;
    let topic = client.create_topic("words", 4).await;
    find_coordinator(client).await;
    let mut first = Member::join(client, "first", topic).await;
    assert_eq!((first.epoch, &first.has[..]), (2, &[0, 1, 2, 3][..]));
    let mut second = Member::join(client, "second", topic).await;
    assert_eq!((second.epoch, &second.has[..]), (3, &[][..]));
    first.beat(client).await;
    assert_eq!((first.epoch, &first.has[..]), (2, &[0, 1][..]));
    first.beat(client).await;
    second.beat(client).await;
    assert_eq!((first.epoch, second.epoch, &second.has[..]), (3, 3, &[2, 3][..]));

    let more = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: Str::from("words"),
            count: 6,
            assignments: None,
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    assert_eq!(client.call(&more, 3).await.results[0].error_code, 0);
    first.beat(client).await;
    second.beat(client).await;
    assert_eq!((first.has.len(), second.has.len(), first.epoch), (3, 3, 4));

    for version in 0..=1 {
        let describe =
            ConsumerGroupDescribeRequest { group_ids: vec![GROUP], ..Default::default() };
        let group = client.call(&describe, version).await.groups.remove(0);
        assert_eq!((group.error_code, &*group.group_state), (0, "Stable"));
        assert_eq!((group.group_epoch, group.assignment_epoch), (4, 4));
        assert_eq!(group.members.len(), 2);
        for member in group.members {
            assert_eq!(member.assignment, member.target_assignment);
            assert_eq!(&*member.assignment.topic_partitions[0].topic_name, "words");
        }
    }
    let listed = client.call(&ListGroupsRequest::default(), 5).await.groups.remove(0);
    assert_eq!((&*listed.group_type, &*listed.group_state), ("consumer", "Stable"));

    let leave = heartbeat(second.id, -1);
    assert_eq!(call(client, &leave).await.member_epoch, -1);
    first.beat(client).await;
    assert_eq!(first.has.len(), 6);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_on_after_a_restart() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    let topic = client.create_topic("words", 2).await;
    find_coordinator(&mut client).await;
    let mut member = Member::join(&mut client, "only", topic).await;
    assert_eq!(commit_code(&mut client, &member.commit(2, 0)).await, 0);

    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, FEW).await;
    let mut client = broker.connect().await;
    member.beat(&mut client).await;
    assert_eq!((member.epoch, &member.has[..]), (2, &[0, 1][..]));

    let stale = ErrorCode::StaleMemberEpoch.code();
    assert_eq!(commit_code(&mut client, &member.commit(3, 0)).await, stale);
    assert_eq!(commit_code(&mut client, &member.commit(1, 0)).await, stale);
    let mut fetch = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP,
            member_id: Some(member.id.clone()),
            member_epoch: 2,
            topics: None,
        }],
        ..Default::default()
    };
    let fetched = client.call(&fetch, 9).await.groups.remove(0);
    assert_eq!(fetched.topics[0].partitions[0].committed_offset, 7);
    fetch.groups[0].member_epoch = 3;
    fetch.groups[0].topics = Some(vec![OffsetFetchRequestTopics {
        name: Str::from("words"),
        partition_indexes: vec![0],
        ..Default::default()
    }]);
    let refused = client.call(&fetch, 9).await.groups.remove(0);
    assert_eq!(
        (refused.error_code, refused.topics.len()),
        (stale, 0),
        "no partition looks fetched"
    );

    let fenced = call(&mut client, &heartbeat(member.id.clone(), 9)).await;
    assert_eq!(fenced.error_code, ErrorCode::FencedMemberEpoch.code());
    assert!(fenced.error_message.is_some());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feature_is_advertised() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    let versions = ApiVersionsRequest {
        client_software_name: Str::from("test"),
        client_software_version: Str::from("1"),
    };
    let advertised = client.call(&versions, 4).await;
    let level = advertised.finalized_features.iter().find(|row| *row.name == *"group.version");
    assert_eq!(level.map(|row| row.max_version_level), Some(1));
    // In version 0 a member may come without an id and is given one.
    client.create_topic("words", 1).await;
    find_coordinator(client).await;
    let join = ConsumerGroupHeartbeatRequest {
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(vec![Str::from("words")]),
        topic_partitions: Some(Vec::new()),
        ..heartbeat(Str::EMPTY, 0)
    };
    let refused = call(client, &join).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
    let joined = client.call(&join, 0).await;
    assert_eq!((joined.error_code, joined.member_epoch), (0, 2));
    assert!(joined.member_id.is_some_and(|id| !id.is_empty()));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configs_of_a_group_hold_at_once_and_after_a_restart() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    find_coordinator(&mut client).await;
    let topic = client.create_topic("words", 1).await;
    let mut member = Member::join(&mut client, "one", topic).await;
    assert_eq!(interval_of(&mut client, &member).await, 5_000);

    let refused = set_group_config(&mut client, "consumer.heartbeat.interval.ms", "1000").await;
    assert_eq!(refused, ErrorCode::InvalidConfig.code(), "below the broker's bound");
    let unknown = set_group_config(&mut client, "consumer.heartbeat", "7000").await;
    assert_eq!(unknown, ErrorCode::InvalidConfig.code());
    assert_eq!(set_group_config(&mut client, "consumer.heartbeat.interval.ms", "7000").await, 0);
    assert_eq!(interval_of(&mut client, &member).await, 7_000);

    drop(client);
    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, FEW).await;
    let mut client = broker.connect().await;
    member.beat(&mut client).await;
    assert_eq!(interval_of(&mut client, &member).await, 7_000);
    broker.stop().await;
}

async fn interval_of(client: &mut TestClient, member: &Member) -> i32 {
    let response = call(client, &heartbeat(member.id.clone(), member.epoch)).await;
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    response.heartbeat_interval_ms
}

async fn set_group_config(client: &mut TestClient, name: &'static str, value: &'static str) -> i16 {
    const GROUP_RESOURCE: i8 = 32;
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP_RESOURCE,
            resource_name: GROUP,
            configs: vec![AlterableConfig {
                name: name.into(),
                config_operation: 0,
                value: Some(value.into()),
            }],
        }],
        validate_only: false,
    };
    client.call(&request, 1).await.responses[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_group_rebalanced_is_told_over_http() {
    let keys = [FEW, &[("fleuve.metrics.listen", "127.0.0.1:0")]].concat();
    let broker = TestBroker::start(&keys).await;
    let client = &mut broker.connect().await;
    let topic = client.create_topic("words", 2).await;
    find_coordinator(client).await;
    Member::join(client, "first", topic).await;
    let second = Member::join(client, "second", topic).await;
    assert_eq!(call(client, &heartbeat(second.id.clone(), -1)).await.error_code, 0);

    let answer = broker.get("/groups/readers/rebalances").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(" 200 "), "{head}");
    let told: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let rows = told["rebalances"].as_array().expect("a list");
    let row = |index: usize| {
        let row = &rows[index];
        (row["ended_epoch"].as_i64(), row["cause"].as_str(), row["member"].as_str())
    };
    assert_eq!(rows.len(), 3);
    assert_eq!(row(0), (Some(1), Some("a new member joined"), Some("first")));
    assert_eq!(row(1), (Some(2), Some("a new member joined"), Some("second")));
    assert_eq!(row(2), (Some(3), Some("members left"), Some("second")));
    let unknown = broker.get("/groups/nobody/rebalances").await;
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_that_is_switched_off_is_answered_as_by_a_broker_without_it() {
    let off = [FEW, &[("group.coordinator.rebalance.protocols", "classic,streams")]].concat();
    let broker = TestBroker::start(&off).await;
    let client = &mut broker.connect().await;
    find_coordinator(client).await;
    let unsupported = ErrorCode::UnsupportedVersion.code();
    let refused = client.call(&heartbeat("first".into(), 0), HEARTBEAT).await;
    assert_eq!(refused.error_code, unsupported);
    let describe = ConsumerGroupDescribeRequest { group_ids: vec![GROUP], ..Default::default() };
    assert_eq!(client.call(&describe, 1).await.groups[0].error_code, unsupported);
    // Others stay as they are.
    let describe = StreamsGroupDescribeRequest { group_ids: vec![GROUP], ..Default::default() };
    let missing = ErrorCode::GroupIdNotFound.code();
    assert_eq!(client.call(&describe, 0).await.groups[0].error_code, missing);
}

//! Streams groups (KIP-1071) against a real broker.

use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::list_groups_request::ListGroupsRequest;
use fleuve_protocol::messages::streams_group_describe_request::StreamsGroupDescribeRequest;
use fleuve_protocol::messages::streams_group_heartbeat_request::{
    KeyValue, StreamsGroupHeartbeatRequest, Subtopology, TaskIds, TopicInfo, Topology,
};
use fleuve_protocol::messages::streams_group_heartbeat_response::StreamsGroupHeartbeatResponse;
use fleuve_protocol::{ErrorCode, Str};

use crate::support::{TestBroker, TestClient};

const GROUP: Str = Str::from_static("word-count");
const FEW: &[(&str, &str)] = &[
    ("offsets.topic.num.partitions", "4"),
    ("group.streams.initial.rebalance.delay.ms", "0"),
    ("group.streams.assignment.interval.ms", "0"),
];
/// Codes of statuses in heartbeat responses.
const MISSING_SOURCE_TOPICS: i8 = 1;
const MISSING_INTERNAL_TOPICS: i8 = 3;

fn topology(source: &'static str) -> Topology {
    let topic = |name: &'static str, replication_factor| TopicInfo {
        name: name.into(),
        partitions: 0,
        replication_factor,
        topic_configs: vec![KeyValue { key: "cleanup.policy".into(), value: "compact".into() }],
    };
    Topology {
        epoch: 0,
        subtopologies: vec![
            Subtopology {
                subtopology_id: "0".into(),
                source_topics: vec![source.into()],
                repartition_sink_topics: vec!["words-repartition".into()],
                ..Default::default()
            },
            Subtopology {
                subtopology_id: "1".into(),
                repartition_source_topics: vec![topic("words-repartition", 0)],
                state_changelog_topics: vec![topic("counts-changelog", 1)],
                ..Default::default()
            },
        ],
    }
}

fn joining(source: &'static str) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: "thread-1".into(),
        rebalance_timeout_ms: 10_000,
        topology: Some(topology(source)),
        active_tasks: Some(Vec::new()),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        process_id: Some("process-1".into()),
        endpoint_information_epoch: -1,
        ..Default::default()
    }
}

fn living(member_epoch: i32) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: "thread-1".into(),
        member_epoch,
        rebalance_timeout_ms: -1,
        endpoint_information_epoch: -1,
        ..Default::default()
    }
}

/// Calls until the group's coordinator is there.
async fn call(
    client: &mut TestClient,
    request: &StreamsGroupHeartbeatRequest,
) -> StreamsGroupHeartbeatResponse {
    loop {
        let response = client.call(request, 0).await;
        if response.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
            return response;
        }
    }
}

fn statuses(response: &StreamsGroupHeartbeatResponse) -> Vec<i8> {
    response.status.iter().flatten().map(|status| status.status_code).collect()
}

async fn find_coordinator(client: &mut TestClient) {
    let find = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn internal_topics_come_into_being_and_tasks_are_handed_out() {
    let broker = TestBroker::start(FEW).await;
    let client = &mut broker.connect().await;
    let versions = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
    };
    let features = client.call(&versions, 4).await.finalized_features;
    let streams = features.iter().find(|feature| feature.name.as_str() == "streams.version");
    assert_eq!(streams.map(|feature| feature.max_version_level), Some(1));
    find_coordinator(client).await;

    let response = call(client, &joining("lines")).await;
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    assert_eq!(statuses(&response), [MISSING_SOURCE_TOPICS]);
    client.create_topic("lines", 3).await;
    let mut epoch = response.member_epoch;
    let tasks = loop {
        let response = call(client, &living(epoch)).await;
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        epoch = response.member_epoch;
        match response.active_tasks {
            Some(tasks) => break tasks,
            None => assert_eq!(statuses(&response), [MISSING_INTERNAL_TOPICS]),
        }
    };
    let task = |id: &'static str| (Str::from_static(id), vec![0, 1, 2]);
    let got: Vec<_> = tasks.into_iter().map(|t| (t.subtopology_id, t.partitions)).collect();
    assert_eq!(got, [task("0"), task("1")]);

    // The topics are as the application wants them.
    let describe =
        StreamsGroupDescribeRequest { group_ids: vec![GROUP], include_authorized_operations: true };
    let group = client.call(&describe, 0).await.groups.remove(0);
    assert_eq!((group.error_code, group.group_state.as_str()), (0, "Stable"));
    assert_ne!(group.authorized_operations, i32::MIN);
    let subtopologies = group.topology.and_then(|topology| topology.subtopologies);
    let changelog = &subtopologies.expect("a topology")[1].state_changelog_topics[0];
    assert_eq!((changelog.name.as_str(), changelog.partitions), ("counts-changelog", 3));
    assert_eq!(group.members[0].assignment.active_tasks.len(), 2);
    assert_eq!(group.members[0].process_id.as_str(), "process-1");

    let list = ListGroupsRequest { types_filter: vec!["Streams".into()], ..Default::default() };
    let listed = client.call(&list, 5).await.groups;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].group_type.as_str(), listed[0].group_state.as_str()),
        ("streams", "Stable")
    );

    // A restarted broker goes on where it was.
    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, FEW).await;
    let client = &mut broker.connect().await;
    let response = call(client, &living(epoch)).await;
    assert_eq!((response.error_code, response.member_epoch), (0, epoch));
    assert!(response.active_tasks.is_none(), "nothing has changed");
    let foreign = StreamsGroupHeartbeatRequest {
        active_tasks: Some(vec![TaskIds { subtopology_id: "2".into(), partitions: vec![0] }]),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        ..living(epoch)
    };
    assert_eq!(call(client, &foreign).await.error_code, ErrorCode::InvalidRequest.code());
    assert_eq!(call(client, &living(-1)).await.member_epoch, -1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_topics_and_impossible_ones_are_told() {
    let broker = TestBroker::start(FEW).await;
    let client = &mut broker.connect().await;
    find_coordinator(client).await;
    for source in ["__consumer_offsets", "no topic"] {
        let response = call(client, &joining(source)).await;
        assert_eq!(response.error_code, ErrorCode::StreamsInvalidTopology.code());
        assert!(response.error_message.is_some_and(|message| message.contains(source)));
    }

    // More copies than there are brokers cannot be made.
    client.create_topic("lines", 1).await;
    let mut request = joining("lines");
    if let Some(topology) = &mut request.topology {
        topology.subtopologies[1].state_changelog_topics[0].replication_factor = 3;
    }
    let mut epoch = call(client, &request).await.member_epoch;
    let detail = loop {
        let response = call(client, &living(epoch)).await;
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        epoch = response.member_epoch;
        let status = response.status.into_iter().flatten().next().expect("a topic is missing");
        if status.status_detail.contains("Creation failed") {
            break status.status_detail;
        }
    };
    assert!(detail.contains("counts-changelog ("), "{detail}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_by_hand_is_used() {
    let broker = TestBroker::start(FEW).await;
    let client = &mut broker.connect().await;
    find_coordinator(client).await;
    let topic = |name: &'static str| CreatableTopic {
        name: name.into(),
        num_partitions: 2,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = ["lines", "words-repartition", "counts-changelog"].map(topic).to_vec();
    let request = CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only: false };
    let response = client.call(&request, 7).await;
    assert!(response.topics.iter().all(|topic| topic.error_code == 0));
    let response = call(client, &joining("lines")).await;
    assert!(statuses(&response).is_empty());
    assert_eq!(response.active_tasks.map(|tasks| tasks.len()), Some(2));
    broker.stop().await;
}

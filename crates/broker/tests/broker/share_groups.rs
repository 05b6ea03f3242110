//! Share groups (KIP-932) against a real broker.

use std::time::{Duration, Instant};

use fleuve_protocol::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequest;
use fleuve_protocol::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest;
use fleuve_protocol::messages::describe_share_group_offsets_request::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic,
};
use fleuve_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup;
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::share_acknowledge_request::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch, ShareAcknowledgeRequest,
};
use fleuve_protocol::messages::share_fetch_request::{
    FetchPartition, FetchTopic, ShareFetchRequest,
};
use fleuve_protocol::messages::share_group_describe_request::ShareGroupDescribeRequest;
use fleuve_protocol::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use fleuve_protocol::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use crate::support::{TestBroker, TestClient};

const GROUP: Str = Str::from_static("sharers");
const FIRST: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const SECOND: &str = "AAAAAAAAAAAAAAAAAAAAAg";
const VERSION: i16 = 1;
const LEAVE: i32 = -1;
const FINAL: i32 = -1;
const ACCEPT: i8 = 1;
const UPGRADE: i8 = 1;
const UNSAFE_DOWNGRADE: i8 = 3;
const FEW: &[(&str, &str)] =
    &[("offsets.topic.num.partitions", "4"), ("share.coordinator.state.topic.num.partitions", "4")];

/// Joins, and comes back until the member has its partition.
async fn join(client: &mut TestClient, member: &'static str) {
    let mut epoch = 0;
    loop {
        let request = ShareGroupHeartbeatRequest {
            subscribed_topic_names: (epoch == 0).then(|| vec![Str::from_static("words")]),
            ..heartbeat(member, epoch)
        };
        let response = client.call(&request, VERSION).await;
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        epoch = response.member_epoch;
        let topics =
            response.assignment.map_or(Vec::new(), |assignment| assignment.topic_partitions);
        if topics.iter().any(|topic| !topic.partitions.is_empty()) {
            return;
        }
    }
}

fn heartbeat(member: &'static str, epoch: i32) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: Str::from_static(member),
        member_epoch: epoch,
        ..Default::default()
    }
}

/// Fetches, and returns the records it acquires, with how often each was delivered.
async fn fetch(
    client: &mut TestClient,
    (member, epoch): (&'static str, i32),
    topic_id: Uuid,
    bytes_max: i32,
) -> Vec<(i64, i64, i16)> {
    let partition = FetchPartition { partition_index: 0, ..Default::default() };
    let request = ShareFetchRequest {
        group_id: Some(GROUP),
        member_id: Some(Str::from_static(member)),
        share_session_epoch: epoch,
        max_bytes: bytes_max,
        max_records: 100,
        batch_size: 100,
        topics: vec![FetchTopic { topic_id, partitions: vec![partition] }],
        ..Default::default()
    };
    let response = client.call(&request, VERSION).await;
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    let partitions = response.responses.into_iter().flat_map(|topic| topic.partitions);
    let acquired = partitions.flat_map(|partition| {
        assert_eq!(partition.error_code, 0, "{:?}", partition.error_message);
        partition.acquired_records
    });
    acquired.map(|range| (range.first_offset, range.last_offset, range.delivery_count)).collect()
}

#[tokio::test]
async fn who_left_the_group_may_still_acknowledge() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    let topic_id = client.create_topic("words", 1).await;
    let find = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
    join(&mut client, FIRST).await;
    // The group begins at the end of the partition.
    assert_eq!(fetch(&mut client, (FIRST, 0), topic_id, 1 << 20).await, []);
    client.produce("words", 0, &["a", "b"]).await;
    assert_eq!(fetch(&mut client, (FIRST, 1), topic_id, 1 << 20).await, [(0, 1, 1)]);

    let left = client.call(&heartbeat(FIRST, LEAVE), VERSION).await;
    assert_eq!(left.error_code, 0);
    let batch =
        AcknowledgementBatch { first_offset: 0, last_offset: 0, acknowledge_types: vec![ACCEPT] };
    let partition =
        AcknowledgePartition { partition_index: 0, acknowledgement_batches: vec![batch] };
    let request = ShareAcknowledgeRequest {
        group_id: Some(GROUP),
        member_id: Some(Str::from_static(FIRST)),
        share_session_epoch: FINAL,
        topics: vec![AcknowledgeTopic { topic_id, partitions: vec![partition] }],
        ..Default::default()
    };
    let response = client.call(&request, VERSION).await;
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    assert_eq!(response.responses[0].partitions[0].error_code, 0);

    // What it did not acknowledge is the next one's, who may also ask for no bytes.
    join(&mut client, SECOND).await;
    assert_eq!(fetch(&mut client, (SECOND, 0), topic_id, 0).await, []);
    assert_eq!(fetch(&mut client, (SECOND, 1), topic_id, 1 << 20).await, [(1, 1, 2)]);
    broker.stop().await;
}

/// Switches a feature off or on.
async fn set_feature(client: &mut TestClient, feature: &'static str, level: i16) {
    let update = FeatureUpdateKey {
        feature: Str::from_static(feature),
        max_version_level: level,
        upgrade_type: if level == 0 { UNSAFE_DOWNGRADE } else { UPGRADE },
        ..Default::default()
    };
    let request = UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() };
    assert_eq!(client.call(&request, 2).await.error_code, 0);
}

#[tokio::test]
async fn without_the_feature_there_are_no_share_groups() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    let refused = ErrorCode::UnsupportedVersion.code();
    set_feature(&mut client, "share.version", 0).await;
    assert_eq!(client.call(&heartbeat(FIRST, 0), VERSION).await.error_code, refused);
    let describe = ShareGroupDescribeRequest { group_ids: vec![GROUP], ..Default::default() };
    assert_eq!(client.call(&describe, VERSION).await.groups[0].error_code, refused);
    let fetch = fetch_request((FIRST, 0), &[], 500);
    assert_eq!(client.call(&fetch, VERSION).await.error_code, refused);
    let acknowledge = ShareAcknowledgeRequest {
        group_id: Some(GROUP),
        member_id: Some(Str::from_static(FIRST)),
        ..Default::default()
    };
    assert_eq!(client.call(&acknowledge, VERSION).await.error_code, refused);
    let offsets = describe_offsets(&mut client, GROUP, None).await;
    assert_eq!(offsets.error_code, refused);
    let alter = AlterShareGroupOffsetsRequest { group_id: GROUP, ..Default::default() };
    assert_eq!(client.call(&alter, 0).await.error_code, refused);
    let delete = DeleteShareGroupOffsetsRequest { group_id: GROUP, ..Default::default() };
    assert_eq!(client.call(&delete, 0).await.error_code, refused);
    set_feature(&mut client, "share.version", 1).await;
    assert_ne!(client.call(&heartbeat(FIRST, 0), VERSION).await.error_code, refused);
    broker.stop().await;
}

/// A fetch of some partitions that waits for so long.
fn fetch_request(
    (member, epoch): (&'static str, i32),
    partitions: &[(Uuid, i32)],
    max_wait_ms: i32,
) -> ShareFetchRequest {
    let topics = partitions.iter().map(|(topic_id, index)| FetchTopic {
        topic_id: *topic_id,
        partitions: vec![FetchPartition { partition_index: *index, ..Default::default() }],
    });
    ShareFetchRequest {
        group_id: Some(GROUP),
        member_id: Some(Str::from_static(member)),
        share_session_epoch: epoch,
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_records: 100,
        batch_size: 100,
        topics: topics.collect(),
        ..Default::default()
    }
}

async fn describe_offsets(
    client: &mut TestClient,
    group: Str,
    topics: Option<&[(&'static str, i32)]>,
) -> DescribeShareGroupOffsetsResponseGroup {
    let topics = topics.map(|topics| {
        let topics = topics.iter().map(|(name, index)| DescribeShareGroupOffsetsRequestTopic {
            topic_name: Str::from_static(name),
            partitions: vec![*index],
        });
        topics.collect()
    });
    let group = DescribeShareGroupOffsetsRequestGroup { group_id: group, topics };
    let request = DescribeShareGroupOffsetsRequest { groups: vec![group] };
    client.call(&request, 1).await.groups.remove(0)
}

#[tokio::test]
async fn what_is_not_there_has_no_offsets_rather_than_an_error() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    let find = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
    for topics in [None, Some(&[][..])] {
        let described = describe_offsets(&mut client, Str::from_static("nobody"), topics).await;
        assert_eq!((described.error_code, described.topics.len()), (0, 0));
    }
    let asked = [("words", 0), ("words", 99), ("nope", 0)];
    for group in [GROUP, Str::from_static("nobody")] {
        let described = describe_offsets(&mut client, group, Some(&asked)).await;
        assert_eq!(described.error_code, 0, "{:?}", described.error_message);
        assert_eq!(described.topics.len(), asked.len());
        for partition in described.topics.iter().flat_map(|topic| &topic.partitions) {
            let told = (partition.error_code, partition.start_offset, partition.leader_epoch);
            assert_eq!((told, partition.lag), ((0, -1, 0), -1));
        }
    }
    let empty = ShareGroupDescribeRequest { group_ids: vec![Str::default()], ..Default::default() };
    let described = client.call(&empty, VERSION).await;
    assert_eq!(described.groups[0].error_code, ErrorCode::InvalidGroupId.code());
    broker.stop().await;
}

/// So long that an answer that came after it would not come within a test.
const LONG_MS: i32 = 600_000;
/// So long that an answer at once would come before it.
const SHORT_MS: i32 = 300;

#[tokio::test]
async fn a_partition_that_is_gone_ends_the_wait_only_if_it_is_alone() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    let topic_id = client.create_topic("words", 1).await;
    let gone = (Uuid::from_random_bytes([7; 16]), 0);
    let find = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
    join(&mut client, FIRST).await;
    let alone = client.call(&fetch_request((FIRST, 0), &[gone], LONG_MS), VERSION).await;
    assert_eq!(alone.responses[0].partitions[0].error_code, ErrorCode::UnknownTopicId.code());

    let began = Instant::now();
    let request = fetch_request((FIRST, 1), &[(topic_id, 0)], SHORT_MS);
    let both = client.call(&request, VERSION).await;
    assert!(began.elapsed() >= Duration::from_millis(SHORT_MS as u64), "it was to wait");
    let told = both.responses.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.topic_id, partition.error_code))
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told, [(gone.0, ErrorCode::UnknownTopicId.code())]);

    // Who asks for no bytes waits for none.
    let nothing =
        ShareFetchRequest { max_bytes: 0, ..fetch_request((FIRST, 2), &[(topic_id, 0)], LONG_MS) };
    assert_eq!(client.call(&nothing, VERSION).await.error_code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn who_finds_no_room_for_a_session_is_told_late() {
    let mut settings = FEW.to_vec();
    settings.push(("group.share.max.share.sessions", "1"));
    let broker = TestBroker::start(&settings).await;
    let (mut client, mut other) = (broker.connect().await, broker.connect().await);
    let topic_id = client.create_topic("words", 1).await;
    let first = client.call(&fetch_request((FIRST, 0), &[(topic_id, 0)], 0), VERSION).await;
    assert_eq!(first.error_code, 0);
    let began = Instant::now();
    let second = other.call(&fetch_request((SECOND, 0), &[(topic_id, 0)], SHORT_MS), VERSION).await;
    assert_eq!(second.error_code, ErrorCode::ShareSessionLimitReached.code());
    assert!(began.elapsed() >= Duration::from_millis(SHORT_MS as u64), "it was to wait");
    broker.stop().await;
}

#[tokio::test]
async fn senders_are_named_well() {
    let broker = TestBroker::start(FEW).await;
    let mut client = broker.connect().await;
    let long = "m".repeat(37);
    let invalid = ErrorCode::InvalidRequest.code();
    for (group, member) in [(None, FIRST), (Some(GROUP), ""), (Some(GROUP), &*long)] {
        let request = ShareFetchRequest {
            group_id: group.clone(),
            member_id: Some(Str::copy_from(member)),
            ..Default::default()
        };
        assert_eq!(client.call(&request, VERSION).await.error_code, invalid);
        let request = ShareAcknowledgeRequest {
            group_id: group,
            member_id: Some(Str::copy_from(member)),
            ..Default::default()
        };
        assert_eq!(client.call(&request, VERSION).await.error_code, invalid);
    }
    broker.stop().await;
}

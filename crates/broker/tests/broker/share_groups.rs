//! Share groups (KIP-932) against a real broker.

use fleuve_protocol::Str;
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::share_acknowledge_request::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch, ShareAcknowledgeRequest,
};
use fleuve_protocol::messages::share_fetch_request::{
    FetchPartition, FetchTopic, ShareFetchRequest,
};
use fleuve_protocol::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use fleuve_types::Uuid;

use crate::support::{TestBroker, TestClient};

const GROUP: Str = Str::from_static("sharers");
const FIRST: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const SECOND: &str = "AAAAAAAAAAAAAAAAAAAAAg";
const VERSION: i16 = 1;
const LEAVE: i32 = -1;
const FINAL: i32 = -1;
const ACCEPT: i8 = 1;
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

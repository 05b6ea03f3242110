//! What clients are told of leader epochs, each of which a crash of the broker begins (KIP-320).

use std::path::Path;
use std::sync::Arc;

use fleuve_broker::{Broker, Components};
use fleuve_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use fleuve_protocol::messages::fetch_response::PartitionData;
use fleuve_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use fleuve_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_sim::{Crash, SimDisk};

use crate::support::{TestClient, fetch_request, settings};

const EARLIEST: i64 = -2;

async fn start(disk: &SimDisk) -> (Broker, TestClient) {
    let components = Components { disk: Arc::new(disk.clone()), ..Components::default() };
    let broker = Broker::start(settings(Path::new("/data"), &[]), components).await;
    let broker = broker.expect("the broker starts");
    let client = TestClient::connect(broker.listeners()[0].address).await;
    (broker, client)
}

async fn crash(disk: &SimDisk, broker: Broker) -> (Broker, TestClient) {
    disk.crash(Crash::LoseUnsynced);
    drop(broker);
    start(disk).await
}

/// Where `epoch` ended, as a client hears that knows of the leader's epoch `current`.
async fn end_of(
    client: &mut TestClient,
    topic: &'static str,
    epoch: i32,
    current: i32,
) -> (i32, i64) {
    let partition = OffsetForLeaderPartition {
        partition: 0,
        leader_epoch: epoch,
        current_leader_epoch: current,
    };
    let topics =
        vec![OffsetForLeaderTopic { topic: Str::from(topic), partitions: vec![partition] }];
    let request = OffsetForLeaderEpochRequest { topics, ..Default::default() };
    let end = client.call(&request, 4).await.topics[0].partitions[0].clone();
    assert_eq!(end.error_code, 0, "{end:?}");
    (end.leader_epoch, end.end_offset)
}

async fn fetch(
    client: &mut TestClient,
    topic: &'static str,
    offset: i64,
    last_fetched_epoch: i32,
) -> PartitionData {
    let mut request = fetch_request(topic, 0, offset);
    request.topics[0].partitions[0].last_fetched_epoch = last_fetched_epoch;
    client.call(&request, 12).await.responses[0].partitions[0].clone()
}

async fn earliest(client: &mut TestClient, topic: &'static str) -> (i64, i32) {
    let partition = ListOffsetsPartition { timestamp: EARLIEST, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: Str::from(topic), partitions: vec![partition] }];
    let request = ListOffsetsRequest { topics, ..Default::default() };
    let found = client.call(&request, 7).await.topics[0].partitions[0].clone();
    (found.offset, found.leader_epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_special_time_that_the_version_lacks_is_refused_before_the_topic_is_looked_for() {
    const MAX_TIMESTAMP: i64 = -3;
    let (broker, mut client) = start(&SimDisk::new()).await;
    client.create_topic("words", 1).await;
    for (timestamp, version) in [(MAX_TIMESTAMP, 6), (-100, 11)] {
        for (topic, current_leader_epoch) in [("words", 100), ("none", -1)] {
            let wanted =
                ListOffsetsPartition { timestamp, current_leader_epoch, ..Default::default() };
            let topic = ListOffsetsTopic { name: Str::from(topic), partitions: vec![wanted] };
            let request = ListOffsetsRequest { topics: vec![topic], ..Default::default() };
            let code = client.call(&request, version).await.topics[0].partitions[0].error_code;
            assert_eq!(code, ErrorCode::UnsupportedVersion.code());
        }
    }
    broker.shutdown().await;
}

async fn delete_records(client: &mut TestClient, topic: &'static str, offset: i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: Str::from(topic), partitions }];
    let request = DeleteRecordsRequest { topics, timeout_ms: 10_000 };
    let deleted = client.call(&request, 2).await;
    assert_eq!(deleted.topics[0].partitions[0].error_code, 0, "{deleted:?}");
}

/// A consumer that read the end of a partition under a leader that wrote nothing commits its
/// epoch. Later it must not be told that the log was cut.
#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_in_which_nothing_was_written_ends_where_the_log_does() {
    let disk = SimDisk::new();
    let (mut broker, mut client) = start(&disk).await;
    for topic in ["words", "cut", "empty"] {
        client.create_topic(topic, 1).await;
    }
    for topic in ["words", "cut"] {
        assert_eq!(client.produce(topic, 0, &["a", "b"]).await.error_code, 0);
    }
    delete_records(&mut client, "cut", 2).await;
    // Only a clean stop makes a deletion durable at once.
    broker.shutdown().await;
    (broker, client) = start(&disk).await;
    for _ in 0..2 {
        (broker, client) = crash(&disk, broker).await;
    }
    for (epoch, ended) in [(0, (0, 2)), (1, (0, 2)), (2, (2, 2)), (3, (-1, -1))] {
        assert_eq!(end_of(&mut client, "words", epoch, 2).await, ended, "epoch {epoch}");
    }
    for (epoch, ended) in [(0, (0, 2)), (1, (1, 2)), (2, (2, 2)), (3, (-1, -1))] {
        assert_eq!(end_of(&mut client, "cut", epoch, 2).await, ended, "epoch {epoch}");
    }
    for (epoch, ended) in [(0, (0, 0)), (1, (1, 0)), (2, (2, 0)), (3, (-1, -1))] {
        assert_eq!(end_of(&mut client, "empty", epoch, 2).await, ended, "epoch {epoch}");
    }
    let fetched = fetch(&mut client, "empty", 0, 1).await;
    assert_eq!((fetched.error_code, fetched.diverging_epoch.end_offset), (0, -1));
    assert_eq!(earliest(&mut client, "words").await, (0, 0));
    assert_eq!(earliest(&mut client, "cut").await, (2, 2));
    assert_eq!(earliest(&mut client, "empty").await, (0, 2));

    // What is written then tells the epochs apart as ever.
    for topic in ["words", "cut"] {
        assert_eq!(client.produce(topic, 0, &["c"]).await.error_code, 0);
        assert_eq!(end_of(&mut client, topic, 2, 2).await, (2, 3));
    }
    assert_eq!(end_of(&mut client, "words", 1, 2).await, (0, 2));
    assert_eq!(end_of(&mut client, "cut", 1, 2).await, (1, 2));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_below_the_log_start_is_out_of_range_whatever_its_epoch() {
    let disk = SimDisk::new();
    let (mut broker, mut client) = start(&disk).await;
    client.create_topic("words", 1).await;
    assert_eq!(client.produce("words", 0, &["a", "b", "c"]).await.error_code, 0);
    for _ in 0..2 {
        (broker, client) = crash(&disk, broker).await;
    }
    assert_eq!(client.produce("words", 0, &["d"]).await.error_code, 0);
    delete_records(&mut client, "words", 2).await;
    let diverging = fetch(&mut client, "words", 2, 1).await;
    assert_eq!((diverging.error_code, diverging.diverging_epoch.end_offset), (0, 3));
    let below = fetch(&mut client, "words", 1, 1).await;
    assert_eq!(below.error_code, ErrorCode::OffsetOutOfRange.code(), "{below:?}");
    assert_eq!(below.diverging_epoch.end_offset, -1);
    broker.shutdown().await;
}

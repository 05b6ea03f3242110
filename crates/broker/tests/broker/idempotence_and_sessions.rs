//! Idempotent producers, incremental fetch sessions, leader epochs.

use fleuve_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use fleuve_protocol::messages::fetch_response::FetchResponse;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::records::{BatchOptions, BatchProducer};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::{ProducerEpoch, ProducerId};

use crate::support::{TestBroker, TestClient, batch_with, fetch_request, produce_request, values};

async fn send(
    client: &mut TestClient,
    producer_id: i64,
    epoch: i16,
    base_sequence: i32,
    values: &[&str],
) -> (i16, i64) {
    let producer =
        BatchProducer { id: ProducerId(producer_id), epoch: ProducerEpoch(epoch), base_sequence };
    let options = BatchOptions { producer: Some(producer), ..Default::default() };
    let request = produce_request("words", 0, -1, batch_with(options, values));
    let response = client.call(&request, 9).await;
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_is_stored_once_and_a_gap_is_refused() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    let init = InitProducerIdRequest {
        transactional_id: None,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let first = client.call(&init, 4).await;
    let id = first.producer_id;
    assert_eq!((first.error_code, first.producer_epoch), (0, 0));
    assert_eq!(send(&mut client, id, 0, 0, &["a", "b"]).await, (0, 0));
    assert_eq!(send(&mut client, id, 0, 2, &["c"]).await, (0, 2));
    assert_eq!(send(&mut client, id, 0, 0, &["a", "b"]).await, (0, 0), "repeated");
    let (code, _) = send(&mut client, id, 0, 5, &["f"]).await;
    assert_eq!(code, ErrorCode::OutOfOrderSequenceNumber.code());
    assert_eq!(client.fetch("words", 0, 0).await, ["a", "b", "c"]);

    // The sequences are known after a restart, and ids are not given out twice.
    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, &[]).await;
    let mut client = broker.connect().await;
    assert_eq!(send(&mut client, id, 0, 2, &["c"]).await, (0, 2), "repeated");
    assert_eq!(send(&mut client, id, 0, 3, &["d"]).await, (0, 3));
    assert!(client.call(&init, 4).await.producer_id > id);
    assert_eq!(send(&mut client, id, 1, 0, &["e"]).await, (0, 4), "a new epoch begins at 0");
    let (code, _) = send(&mut client, id, 0, 4, &["x"]).await;
    assert_eq!(code, ErrorCode::InvalidProducerEpoch.code());
    broker.stop().await;
}

fn session(id: i32, epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topics = if partitions.is_empty() {
        Vec::new()
    } else {
        vec![FetchTopic {
            topic: Str::from("words"),
            partitions: partitions.iter().map(partition).collect(),
            ..Default::default()
        }]
    };
    FetchRequest { session_id: id, session_epoch: epoch, topics, ..fetch_request("words", 0, 0) }
}

fn partitions(response: &FetchResponse) -> Vec<i32> {
    let topics = response.responses.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(|p| p.partition_index)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_answers_what_changed() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 3).await;
    let full = client.call(&session(0, 0, &[(0, 0), (1, 0), (2, 0)]), 12).await;
    let id = full.session_id;
    assert_ne!(id, 0);
    assert_eq!(partitions(&full), [0, 1, 2]);
    let quiet = client.call(&session(id, 1, &[]), 12).await;
    assert_eq!((quiet.session_id, partitions(&quiet).len()), (id, 0));
    client.produce("words", 1, &["x"]).await;
    let changed = client.call(&session(id, 2, &[]), 12).await;
    assert_eq!((partitions(&changed), values(&changed)), (vec![1], vec!["x".to_owned()]));
    let moved = client.call(&session(id, 3, &[(1, 1)]), 12).await;
    assert!(partitions(&moved).is_empty());
    let wrong = client.call(&session(id, 9, &[]), 12).await;
    assert_eq!(wrong.error_code, ErrorCode::InvalidFetchSessionEpoch.code());
    let unknown = client.call(&session(id ^ 1, 4, &[]), 12).await;
    assert_eq!(unknown.error_code, ErrorCode::FetchSessionIdNotFound.code());
    client.call(&session(id, -1, &[]), 12).await;
    let ended = client.call(&session(id, 4, &[]), 12).await;
    assert_eq!(ended.error_code, ErrorCode::FetchSessionIdNotFound.code());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_cut_between_batches_but_never_below_the_first() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 2).await;
    let large = "x".repeat(10_000);
    for partition in 0..2 {
        for _ in 0..3 {
            client.produce("words", partition, &[large.as_str()]).await;
        }
    }
    let fetch = |bytes_max, partition_bytes_max| {
        let mut request = session(0, -1, &[(0, 0), (1, 0)]);
        request.max_bytes = bytes_max;
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_bytes_max;
        }
        request
    };
    let mut counts = Vec::new();
    for (bytes_max, partition_bytes_max) in
        [(1, 1), (1 << 20, 1), (25_000, 1 << 20), (1 << 20, 25_000), (1 << 20, 1 << 20)]
    {
        let response = client.call(&fetch(bytes_max, partition_bytes_max), 12).await;
        let count = |index: usize| {
            let data = &response.responses[0].partitions[index];
            data.records.as_ref().map_or(0, |records| records.len() / 10_000)
        };
        counts.push((count(0), count(1)));
    }
    assert_eq!(counts, [(1, 0), (1, 0), (2, 0), (2, 2), (3, 3)]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_fence_clients_with_other_ideas() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    client.produce("words", 0, &["a"]).await;
    let with_epoch = |current, last_fetched| {
        let mut request = fetch_request("words", 0, 1);
        request.topics[0].partitions[0].current_leader_epoch = current;
        request.topics[0].partitions[0].last_fetched_epoch = last_fetched;
        request
    };
    let response = client.call(&with_epoch(0, 0), 12).await;
    assert_eq!(response.responses[0].partitions[0].error_code, 0);
    let response = client.call(&with_epoch(5, -1), 12).await;
    let code = response.responses[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::UnknownLeaderEpoch.code());
    let mut follower = fetch_request("words", 0, 0);
    follower.replica_id = 1;
    let response = client.call(&follower, 12).await;
    let code = response.responses[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::NotLeaderOrFollower.code(), "nobody is a replica");
    broker.stop().await;
}

//! Produce and fetch against a real broker.

use std::time::Duration;

use crate::support::{TestBroker, batch, fetch_request, produce_request, values};
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::fetch_request::FetchRequest;
use fleuve_protocol::messages::produce_request::ProduceRequest;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_is_fetched_also_after_a_restart() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 2).await;
    let first = client.produce("words", 0, &["a", "b"]).await;
    assert_eq!((first.error_code, first.base_offset), (0, 0));
    let second = client.produce("words", 0, &["c"]).await;
    assert_eq!((second.error_code, second.base_offset), (0, 2));
    client.produce("words", 1, &["z"]).await;
    assert_eq!(client.fetch("words", 0, 0).await, ["a", "b", "c"]);
    assert_eq!(client.fetch("words", 0, 2).await, ["c"]);
    assert_eq!(client.fetch("words", 1, 0).await, ["z"]);

    let cluster_id = broker.broker.cluster_id();
    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, &[]).await;
    assert_eq!(broker.broker.cluster_id(), cluster_id);
    let mut client = broker.connect().await;
    assert_eq!(client.fetch("words", 0, 0).await, ["a", "b", "c"]);
    assert_eq!(client.produce("words", 0, &["d"]).await.base_offset, 3);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_answered_by_the_append_it_waits_for() {
    let broker = TestBroker::start(&[]).await;
    let (mut producer, mut consumer) = (broker.connect().await, broker.connect().await);
    producer.create_topic("words", 1).await;
    let wait = FetchRequest { max_wait_ms: 30_000, ..fetch_request("words", 0, 0) };
    consumer.send(&wait, 12).await;
    // Asked on the same connection, this overtakes nothing and is answered behind the fetch.
    producer.produce("words", 0, &["now"]).await;
    let response = consumer.receive::<FetchRequest>(12).await.expect("an answer");
    assert_eq!(values(&response), ["now"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_without_records_ends_after_its_wait() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    let wait = FetchRequest { max_wait_ms: 50, ..fetch_request("words", 0, 0) };
    let begun = std::time::Instant::now();
    let response = client.call(&wait, 12).await;
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert!(values(&response).is_empty());
    assert_eq!(response.responses[0].partitions[0].high_watermark, 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_of_all_kinds_and_every_version() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    let id = client.create_topic("words", 1).await;
    for version in 3..=13 {
        let mut request = produce_request("words", 0, -1, batch(&["x"]));
        if version == 13 {
            request.topic_data[0].topic_id = id;
        }
        let response = client.call(&request, version).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0, "version {version}: {partition:?}");
        assert_eq!(partition.base_offset, i64::from(version - 3));
    }
    let leader_only = produce_request("words", 0, 1, batch(&["y"]));
    let response = client.call(&leader_only, 9).await;
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 11);
    client.send(&produce_request("words", 0, 0, batch(&["z"])), 9).await;
    let response = client.call(&produce_request("words", 0, -1, batch(&["after"])), 9).await;
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 13);
    let wrong = client.call(&produce_request("words", 0, 2, batch(&["w"])), 9).await;
    let code = wrong.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::InvalidRequiredAcks.code());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unacknowledged_failure_closes_the_connection() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.send(&produce_request("missing", 0, 0, batch(&["x"])), 9).await;
    assert!(client.receive::<ProduceRequest>(9).await.is_none());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_missing_things_get_their_codes() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    let mut damaged = batch(&["x"]).to_vec();
    *damaged.last_mut().expect("not empty") ^= 1;
    let two = [batch(&["x"]), batch(&["y"])].concat();
    let mut old = batch(&["x"]).to_vec();
    old[16] = 1;
    let cases = [
        (damaged, ErrorCode::CorruptMessage),
        (two, ErrorCode::InvalidRecord),
        (old, ErrorCode::InvalidRecord),
        (Vec::new(), ErrorCode::InvalidRecord),
    ];
    for (records, code) in cases {
        let response = client.call(&produce_request("words", 0, -1, records.into()), 9).await;
        let refused = &response.responses[0].partition_responses[0];
        assert_eq!((refused.error_code, refused.log_start_offset), (code.code(), -1));
    }
    for (topic, partition) in [("missing", 0), ("words", 7), ("words", -1)] {
        let code = ErrorCode::UnknownTopicOrPartition.code();
        let request = produce_request(topic, partition, -1, batch(&["x"]));
        let response = client.call(&request, 9).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, code);
        let response = client.call(&fetch_request(topic, partition, 0), 12).await;
        assert_eq!(response.responses[0].partitions[0].error_code, code);
    }
    let response = client.call(&fetch_request("words", 0, 5), 12).await;
    let code = ErrorCode::OffsetOutOfRange.code();
    assert_eq!(response.responses[0].partitions[0].error_code, code);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_break_a_rule_are_named() {
    let broker = TestBroker::start(&[("log.cleanup.policy", "compact")]).await;
    let mut client = broker.connect().await;
    client.create_topic("latest", 1).await;
    let refused = client.produce("latest", 0, &["without", "keys"]).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidRecord.code(), "{refused:?}");
    let named: Vec<i32> = refused.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(named, [0, 1]);
    let explained = refused.record_errors[0].batch_index_error_message.as_deref();
    assert!(explained.is_some_and(|text| text.contains("key")), "{explained:?}");
    assert!(refused.error_message.is_some());
    assert_eq!(refused.log_start_offset, 0, "the log itself was asked");
    broker.stop().await;
}

//! Quotas: what clients over them are told, and what becomes of their connections.
//!
//! The broker's clock stands still unless a test moves it, so that waits are exact.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleuve_broker::Components;
use fleuve_os::{Clock, SystemClock};
use fleuve_protocol::messages::alter_client_quotas_request::{
    AlterClientQuotasRequest, EntityData, EntryData, OpData,
};
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use fleuve_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use fleuve_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use fleuve_protocol::messages::metadata_request::MetadataRequest;
use fleuve_protocol::{Str, frame};
use fleuve_sim::SimClock;

use super::support::{TestBroker, batch, fetch_request, produce_request, values};

const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
/// The window of rates without its last sample.
const SPAN_SECONDS: f64 = 10.0;

async fn start(keys: &[(&str, &str)]) -> (TestBroker, Arc<SimClock>) {
    // As late as the timestamps of batches.
    let clock = Arc::new(SimClock::at(SystemClock::new().wall_ms()));
    let components = Components { clock: Arc::clone(&clock) as _, ..Components::default() };
    (TestBroker::start_with(keys, components).await, clock)
}

async fn set(
    broker: &TestBroker,
    entity: &[(&'static str, Option<&'static str>)],
    key: &'static str,
    value: f64,
) {
    let entity = entity.iter().map(|(kind, name)| EntityData {
        entity_type: Str::from(*kind),
        entity_name: name.map(Str::from),
    });
    let request = AlterClientQuotasRequest {
        entries: vec![EntryData {
            entity: entity.collect(),
            ops: vec![OpData { key: Str::from(key), value, remove: false }],
        }],
        validate_only: false,
    };
    let response = broker.connect().await.call(&request, 1).await;
    assert_eq!(response.entries[0].error_code, 0, "{response:?}");
}

fn topics(partitions: i32, names: &[&'static str]) -> CreateTopicsRequest {
    let topic = |name: &&'static str| CreatableTopic {
        name: Str::from(*name),
        num_partitions: partitions,
        replication_factor: -1,
        ..Default::default()
    };
    CreateTopicsRequest {
        topics: names.iter().map(topic).collect(),
        timeout_ms: 10_000,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_producer_over_its_quota_is_told_for_how_long_and_not_read_from() {
    let (broker, _clock) = start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    let text = "x".repeat(20_000);
    let request = produce_request("t", 0, -1, batch(&[&text]));
    let frame = frame::encode_request(1, Some(&Str::from("test")), &request, 12).expect("valid");
    let bytes = frame.concat().len() - frame::LENGTH_BYTES;
    // One second more than the ten that these bytes may take.
    let limit = (bytes as f64 / (SPAN_SECONDS + 1.0)).round();
    set(&broker, &[("client-id", Some("test"))], "producer_byte_rate", limit).await;

    let begun = Instant::now();
    let response = client.call(&request, 12).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    let rate = bytes as f64 / SPAN_SECONDS;
    let wait_ms = ((rate - limit) / limit * SPAN_SECONDS * 1000.0).round();
    assert_eq!(f64::from(response.throttle_time_ms), wait_ms, "Apache's formula");

    // Its connection is not read from meanwhile; another one is.
    client.send(&ApiVersionsRequest::default(), 0).await;
    let other = broker.connect().await.call(&ApiVersionsRequest::default(), 0).await;
    assert_eq!(other.error_code, 0);
    client.receive::<ApiVersionsRequest>(0).await.expect("after a while");
    assert!(begun.elapsed() >= Duration::from_millis(wait_ms as u64));
}

#[tokio::test]
async fn a_producer_without_acknowledgements_is_not_read_from_either() {
    let (broker, _clock) = start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    set(&broker, &[("client-id", None)], "producer_byte_rate", 2000.0).await;
    let begun = Instant::now();
    let text = "x".repeat(22_000);
    client.send(&produce_request("t", 0, 0, batch(&[&text])), 12).await;
    client.call(&ApiVersionsRequest::default(), 0).await;
    assert!(begun.elapsed() >= Duration::from_millis(1000));
}

#[tokio::test]
async fn a_fetch_over_the_quota_comes_back_empty_and_is_served_after_the_wait() {
    let (broker, clock) = start(&[]).await;
    let mut producer = broker.connect().await;
    producer.create_topic("t", 1).await;
    let text = "x".repeat(5_000);
    producer.produce("t", 0, &[&text]).await;
    producer.produce("t", 0, &["end"]).await;
    set(&broker, &[("user", Some("ANONYMOUS"))], "consumer_byte_rate", 400.0).await;

    // A window's worth is 4,000 bytes, and the first batch comes whole although it is larger.
    let fetch = fetch_request("t", 0, 0);
    let response = broker.connect().await.call(&fetch, 12).await;
    assert!(response.throttle_time_ms > 0);
    assert!(response.responses.is_empty(), "{response:?}");
    set(&broker, &[("user", Some("ANONYMOUS"))], "consumer_byte_rate", 600.0).await;
    let response = broker.connect().await.call(&fetch, 12).await;
    assert_eq!(response.throttle_time_ms, 0);
    assert_eq!(values(&response), [text.as_str(), "end"]);

    let response = broker.connect().await.call(&fetch, 12).await;
    assert!(response.responses.is_empty() && response.throttle_time_ms > 0);
    clock.advance(Duration::from_millis(response.throttle_time_ms.unsigned_abs().into()));
    let response = broker.connect().await.call(&fetch_request("t", 0, 1), 12).await;
    assert_eq!(values(&response), ["end"]);
}

#[tokio::test]
async fn time_of_handlers_is_charged_and_the_wait_bounded_by_a_sample() {
    let (broker, _clock) = start(&[]).await;
    set(&broker, &[("user", None), ("client-id", None)], "request_percentage", 1e-9).await;
    let mut client = broker.connect().await;
    let response = client.call(&MetadataRequest::default(), 12).await;
    assert_eq!(response.throttle_time_ms, 1000);
}

#[tokio::test]
async fn changes_of_topics_are_refused_while_the_account_is_in_debt() {
    let (broker, clock) = start(&[]).await;
    // Eleven samples of a second: at most 5.5 partitions at once.
    set(&broker, &[("user", None)], "controller_mutation_rate", 0.5).await;
    let mut request = topics(3, &["a", "b", "c"]);
    request.topics[1].name = Str::from("not a name");
    let response = broker.connect().await.call(&request, 7).await;
    let code = |name: &str| {
        response.topics.iter().find(|topic| *topic.name == *name).expect("named").error_code
    };
    assert_eq!((code("a"), code("c")), (0, 0), "overdrawn once");
    assert_ne!(code("not a name"), 0, "and not charged");
    assert_eq!(response.throttle_time_ms, 0);

    let response = broker.connect().await.call(&topics(1, &["d"]), 7).await;
    assert_eq!(response.topics[0].error_code, THROTTLING_QUOTA_EXCEEDED);
    assert_eq!(response.throttle_time_ms, 1000, "half a partition at half of one per second");
    let more = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: Str::from("a"), count: 4, assignments: None }],
        timeout_ms: 10_000,
        validate_only: false,
    };
    let response = broker.connect().await.call(&more, 3).await;
    assert_eq!(response.results[0].error_code, THROTTLING_QUOTA_EXCEEDED);
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: Some(Str::from("a")), ..Default::default() }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let response = broker.connect().await.call(&delete, 6).await;
    assert_eq!(response.responses[0].error_code, THROTTLING_QUOTA_EXCEEDED);

    // Clients that do not know the refusal only have to wait.
    let response = broker.connect().await.call(&topics(1, &["d"]), 5).await;
    assert_eq!(response.topics[0].error_code, 0);
    assert_eq!(response.throttle_time_ms, 3000);
    clock.advance(Duration::from_secs(3));
    let response = broker.connect().await.call(&more, 3).await;
    assert_eq!(response.results[0].error_code, 0);
}

#[tokio::test]
async fn what_clients_use_of_their_quotas_is_on_the_page_of_metrics() {
    let (broker, _clock) = start(&[("fleuve.metrics.listen", "127.0.0.1:0")]).await;
    let page = broker.get("/metrics").await;
    assert!(!page.lines().any(|line| line.starts_with("kafka_server_quota_")), "{page}");
    set(&broker, &[("client-id", Some("test"))], "producer_byte_rate", 1e9).await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    client.produce("t", 0, &["x"]).await;
    let page = broker.get("/metrics").await;
    let labels = "{resource=\"Produce\",user=\"\",clientId=\"test\"}";
    for name in ["byte_rate", "throttle_time"] {
        assert!(page.contains(&format!("kafka_server_quota_{name}{labels}")), "{page}");
    }
}

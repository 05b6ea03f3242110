//! Limits of connections and requests, and listeners that come and go while the broker runs.

use std::time::{Duration, Instant};

use fleuve_protocol::Str;
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use fleuve_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use fleuve_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::support::{TestBroker, TestClient, batch, produce_request};

const BROKER: i8 = 4;
const DELETE: i8 = 1;

/// Sets configs of broker 1, or takes those without a value away.
async fn alter(
    client: &mut TestClient,
    configs: &[(&'static str, Option<String>)],
) -> AlterConfigsResourceResponse {
    let config = |(name, value): &(&'static str, Option<String>)| AlterableConfig {
        name: Str::from(*name),
        config_operation: if value.is_none() { DELETE } else { 0 },
        value: value.clone().map(Str::from),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: BROKER,
            resource_name: Str::from("1"),
            configs: configs.iter().map(config).collect(),
        }],
        validate_only: false,
    };
    client.call(&request, 1).await.responses.remove(0)
}

async fn set(client: &mut TestClient, name: &'static str, value: &str) {
    let row = alter(client, &[(name, Some(value.to_owned()))]).await;
    assert_eq!(row.error_code, 0, "{row:?}");
}

/// Waits until the broker closes a connection.
async fn closed(mut stream: TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut byte)).await;
    // A reset is an end, too.
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
}

fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    probe.local_addr().expect("bound").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go_while_the_broker_runs() {
    let broker = TestBroker::start(&[
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,EXTRA:PLAINTEXT,SEALED:SSL"),
    ])
    .await;
    let mut client = broker.connect().await;
    let port = free_port();
    let both = format!("PLAINTEXT://127.0.0.1:0,EXTRA://127.0.0.1:{port}");
    set(&mut client, "listeners", &both).await;
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    let mut extra = TestClient::connect(address).await;
    let cluster = extra.call(&DescribeClusterRequest::default(), 0).await;
    assert_eq!(cluster.brokers[0].port, i32::from(port), "it tells its own address");

    // What cannot work is refused, and nothing changes.
    for (listeners, hint) in [
        (format!("PLAINTEXT://127.0.0.1:0,EXTRA://127.0.0.1:{}", free_port()), "address"),
        ("PLAINTEXT://127.0.0.1:0,SEALED://127.0.0.1:0".to_owned(), "certificate"),
        ("PLAINTEXT://127.0.0.1:0,NOBODY://127.0.0.1:0".to_owned(), "security protocol"),
        ("PLAINTEXT://127.0.0.1:0,EXTRA://0.0.0.0:0".to_owned(), "authentication"),
    ] {
        let row = alter(&mut client, &[("listeners", Some(listeners))]).await;
        assert_ne!(row.error_code, 0);
        let message = row.error_message.expect("a reason");
        assert!(message.contains(hint), "{message}");
    }
    extra.call(&ApiVersionsRequest::default(), 0).await;

    let row = alter(&mut client, &[("listeners", None)]).await;
    assert_eq!(row.error_code, 0, "{row:?}");
    assert!(extra.receive_frame().await.is_none(), "its connections end");
    assert!(TcpStream::connect(address).await.is_err());
    client.call(&ApiVersionsRequest::default(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_added_at_run_time_is_there_after_a_restart() {
    let port = free_port();
    let map = ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,EXTRA:PLAINTEXT");
    let broker = TestBroker::start(&[map]).await;
    let both = format!("PLAINTEXT://127.0.0.1:0,EXTRA://127.0.0.1:{port}");
    set(&mut broker.connect().await, "listeners", &both).await;
    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, &[map]).await;
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    TestClient::connect(address).await.call(&ApiVersionsRequest::default(), 0).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_connections_change_while_the_broker_runs() {
    let broker = TestBroker::start(&[]).await;
    let address = broker.broker.listeners()[0].address;
    let mut client = broker.connect().await;
    let silent = TcpStream::connect(address).await.expect("room");
    // Both are counted as soon as the broker has answered a third.
    let mut third = broker.connect().await;
    third.call(&ApiVersionsRequest::default(), 0).await;
    drop(third);
    set(&mut client, "max.connections.per.ip", "2").await;
    let mut refused = 0;
    for _ in 0..3 {
        let stream = TcpStream::connect(address).await.expect("accepted");
        closed(stream).await;
        refused += 1;
    }
    assert_eq!(refused, 3);
    // The one that has been silent longest has to go.
    set(&mut client, "max.connections", "1").await;
    closed(silent).await;
    client.call(&ApiVersionsRequest::default(), 0).await;
    let row =
        alter(&mut client, &[("max.connections", None), ("max.connections.per.ip", None)]).await;
    assert_eq!(row.error_code, 0, "{row:?}");
    broker.connect().await.call(&ApiVersionsRequest::default(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_comes_to_its_end_does_not_keep_the_connection() {
    let broker = TestBroker::start(&[("fleuve.receive.timeout.ms", "300")]).await;
    let address = broker.broker.listeners()[0].address;
    for begin in [&b"\0\0\x10\0abc"[..], b"\0"] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).await.expect("room");
        tokio::io::AsyncWriteExt::write_all(&mut stream, begin).await.expect("open");
        closed(stream).await;
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
    // Who is silent between requests may be.
    let mut client = broker.connect().await;
    client.call(&ApiVersionsRequest::default(), 0).await;
    tokio::time::timeout(Duration::from_millis(600), client.receive_frame())
        .await
        .expect_err("nothing happens");
    client.call(&ApiVersionsRequest::default(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_wait_for_room_and_small_ones_do_not() {
    let broker = TestBroker::start(&[
        ("queued.max.request.bytes", "300000"),
        ("fleuve.metrics.listen", "127.0.0.1:0"),
    ])
    .await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    let text = "x".repeat(400_000);
    let request = produce_request("t", 0, -1, batch(&[&text]));
    let whole = fleuve_protocol::frame::encode_request(1, None, &request, 12);
    let whole = whole.expect("valid").concat();
    let mut slow = broker.connect().await;
    slow.send_raw(&whole[..100_000]).await;
    while !broker.get("/metrics").await.contains("fleuve_request_bytes 40") {
        tokio::task::yield_now().await;
    }
    let mut second = broker.connect().await;
    second.send(&request, 12).await;
    while !broker.get("/metrics").await.contains("fleuve_request_bytes_waits_total 1") {
        tokio::task::yield_now().await;
    }
    client.produce("t", 0, &["small"]).await;
    slow.send_raw(&whole[100_000..]).await;
    assert!(slow.receive_frame().await.is_some());
    assert!(second.receive_frame().await.is_some());
    while !broker.get("/metrics").await.contains("fleuve_request_bytes 0") {
        tokio::task::yield_now().await;
    }
}

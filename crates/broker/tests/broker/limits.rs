//! Limits of connections and requests, and listeners that come and go while the broker runs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use fleuve_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use fleuve_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use fleuve_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use fleuve_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use fleuve_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use fleuve_protocol::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use fleuve_protocol::messages::sasl_handshake_request::SaslHandshakeRequest;
use fleuve_protocol::{ErrorCode, Str};
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

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_say_who_it_is_has_to_go_in_time() {
    let users = "x required user_ada=\"ada\";";
    let broker = TestBroker::start(&[
        ("listeners", "SASL_PLAINTEXT://127.0.0.1:0"),
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("listener.name.sasl_plaintext.plain.sasl.jaas.config", users),
        ("inter.broker.listener.name", "SASL_PLAINTEXT"),
        ("fleuve.authentication.timeout.ms", "300"),
    ])
    .await;
    let address = broker.broker.listeners()[0].address;
    let begun = Instant::now();
    closed(TcpStream::connect(address).await.expect("room")).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // Asking what is served, or beginning an exchange, is not saying who one is.
    let mut busy = broker.connect().await;
    let handshake = SaslHandshakeRequest { mechanism: Str::from("PLAIN") };
    assert_eq!(busy.call(&handshake, 1).await.error_code, 0);
    assert!(busy.receive_frame().await.is_none());
    // Who has said it stays, however long it is silent.
    let mut known = broker.connect().await;
    known.call(&handshake, 1).await;
    let auth_bytes = Bytes::from_static(b"\0ada\0ada");
    assert_eq!(known.call(&SaslAuthenticateRequest { auth_bytes }, 2).await.error_code, 0);
    tokio::time::timeout(Duration::from_millis(600), known.receive_frame())
        .await
        .expect_err("nothing happens");
    known.call(&ApiVersionsRequest::default(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_see_how_many_came_in_and_how_many_were_turned_away() {
    let broker = TestBroker::start(&[
        ("listeners", "SASL_PLAINTEXT://127.0.0.1:0"),
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("listener.name.sasl_plaintext.plain.sasl.jaas.config", "x required user_ada=\"ada\";"),
        ("inter.broker.listener.name", "SASL_PLAINTEXT"),
        ("connections.max.reauth.ms", "3600000"),
        ("fleuve.metrics.listen", "127.0.0.1:0"),
    ])
    .await;
    let mut known = broker.connect().await;
    for password in ["ada", "eve", "eva"] {
        let mut client = broker.connect().await;
        let handshake = SaslHandshakeRequest { mechanism: Str::from("PLAIN") };
        client.call(&handshake, 1).await;
        let auth_bytes = Bytes::from(format!("\0ada\0{password}"));
        let answer = client.call(&SaslAuthenticateRequest { auth_bytes }, 2).await;
        assert_eq!(answer.error_code == 0, password == "ada");
        if answer.error_code == 0 {
            known = client;
        }
    }
    // Within the session, once more.
    known.call(&SaslHandshakeRequest { mechanism: Str::from("PLAIN") }, 1).await;
    let auth_bytes = Bytes::from_static(b"\0ada\0ada");
    assert_eq!(known.call(&SaslAuthenticateRequest { auth_bytes }, 2).await.error_code, 0);
    let page = broker.get("/metrics").await;
    for (name, count) in [
        ("successful_authentication_total", 1),
        ("failed_authentication_total", 2),
        ("successful_reauthentication_total", 1),
        ("failed_reauthentication_total", 0),
    ] {
        let labels = "{listener=\"SASL_PLAINTEXT\",networkProcessor=\"0\"}";
        let sample = format!("kafka_server_socket_server_metrics_{name}{labels} {count}\n");
        assert!(page.contains(&sample), "{sample} is not in {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_one_listener_change_while_the_broker_runs() {
    let broker = TestBroker::start(&[
        ("listeners", "PLAINTEXT://127.0.0.1:0,EXTRA://127.0.0.1:0"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,EXTRA:PLAINTEXT"),
        ("fleuve.metrics.listen", "127.0.0.1:0"),
    ])
    .await;
    let mut client = broker.connect().await;
    let mut first = broker.connect_to(1).await;
    first.call(&ApiVersionsRequest::default(), 0).await;
    set(&mut client, "listener.name.extra.max.connections", "1").await;
    // The next one at this listener waits for its turn, and those at the other do not.
    let mut second = broker.connect_to(1).await;
    second.send(&ApiVersionsRequest::default(), 0).await;
    broker.connect().await.call(&ApiVersionsRequest::default(), 0).await;
    tokio::time::timeout(Duration::from_millis(300), second.receive_frame())
        .await
        .expect_err("it is not its turn");
    drop(first);
    assert!(second.receive_frame().await.is_some());
    // The limit is gone.
    alter(&mut client, &[("listener.name.extra.max.connections", None)]).await;
    broker.connect_to(1).await.call(&ApiVersionsRequest::default(), 0).await;
    // The same for a rate: whoever comes too early makes the listener wait.
    set(&mut client, "listener.name.extra.max.connection.creation.rate", "1").await;
    let waits = |page: String| {
        let line = "kafka_server_socket_server_metrics_connection_accept_throttle_time";
        let line = format!("{line}{{listener=\"EXTRA\"}} ");
        let value = page.lines().find_map(|it| it.strip_prefix(&line)).map(str::to_owned);
        value.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0)
    };
    while waits(broker.get("/metrics").await) == 0.0 {
        broker.connect_to(1).await.call(&ApiVersionsRequest::default(), 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_creates_only_so_many_partitions() {
    let broker = TestBroker::start(&[
        ("fleuve.request.partitions.max", "10"),
        ("fleuve.metrics.listen", "127.0.0.1:0"),
        ("num.partitions", "2"),
    ])
    .await;
    let mut client = broker.connect().await;
    let refused = ErrorCode::PolicyViolation.code();
    let topic = |name: &'static str, count| CreatableTopic {
        name: Str::from(name),
        num_partitions: count,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = vec![topic("a", 6), topic("b", 5)];
    let request = CreateTopicsRequest { topics, timeout_ms: 1_000, ..Default::default() };
    let response = client.call(&request, 7).await;
    let codes: Vec<i16> = response.topics.iter().map(|row| row.error_code).collect();
    assert_eq!(codes, [refused; 2], "together they are too many");
    client.create_topic("a", 6).await;
    let more = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: Str::from("a"), count: 17, assignments: None }],
        timeout_ms: 1_000,
        ..Default::default()
    };
    assert_eq!(client.call(&more, 3).await.results[0].error_code, refused);
    // Those that are created because somebody asks for them count like others.
    let ask = |count: usize| MetadataRequest {
        topics: Some(
            (0..count)
                .map(|number| MetadataRequestTopic {
                    name: Some(Str::from(format!("asked-{count}-{number}"))),
                    ..Default::default()
                })
                .collect(),
        ),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    let response = client.call(&ask(6), 12).await;
    assert!(response.topics.iter().all(|topic| topic.error_code == refused), "{response:?}");
    let response = client.call(&ask(5), 12).await;
    assert!(response.topics.iter().all(|topic| topic.error_code == 0), "{response:?}");
    let page = broker.get("/metrics").await;
    assert!(page.contains("fleuve_requests_of_too_many_partitions_total 3"), "{page}");
}

/// Each name costs a little, not as much as all the others together.
#[tokio::test(flavor = "multi_thread")]
async fn many_names_that_are_refused_cost_no_more_than_each() {
    let broker = TestBroker::start(&[("fleuve.request.partitions.max", "10")]).await;
    let mut client = broker.connect().await;
    let topics = (0..200_000).map(|number| MetadataRequestTopic {
        name: Some(Str::from(format!("t{number}"))),
        ..Default::default()
    });
    let request = MetadataRequest {
        topics: Some(topics.collect()),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    let asking = tokio::time::timeout(Duration::from_secs(60), client.call(&request, 12));
    let response = asking.await.expect("an answer in time");
    assert_eq!(response.topics.len(), 200_000);
}

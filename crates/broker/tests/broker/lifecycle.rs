//! Starting, listening, measuring, stopping.

use fleuve_broker::{Broker, Components, StartError};
use fleuve_protocol::Str;
use fleuve_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use fleuve_protocol::messages::metadata_request::MetadataRequest;

use crate::support::{TestBroker, settings};

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_tells_its_own_address() {
    let broker = TestBroker::start(&[
        ("listeners", "PLAINTEXT://127.0.0.1:0,OUTSIDE://127.0.0.1:0"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT"),
        ("advertised.listeners", "PLAINTEXT://127.0.0.1:0,OUTSIDE://example.org:9999"),
    ])
    .await;
    let ports: Vec<u16> =
        broker.broker.listeners().iter().map(|listener| listener.address.port()).collect();
    assert_ne!(ports[0], ports[1]);
    let mut told = Vec::new();
    for index in 0..2 {
        let mut client = broker.connect_to(index).await;
        let response = client.call(&MetadataRequest::default(), 12).await;
        told.push((response.brokers[0].host.clone(), response.brokers[0].port));
    }
    let own = (Str::from("127.0.0.1"), i32::from(ports[0]));
    assert_eq!(told, [own, (Str::from("example.org"), 9999)]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_serves_one_broker_at_a_time() {
    let broker = TestBroker::start(&[]).await;
    let second = Broker::start(settings(broker.directory.path(), &[]), Components::default()).await;
    let error = second.expect_err("the directory is taken");
    assert!(error.to_string().contains("in use"), "{error}");
    let taken = broker.broker.listeners()[0].address.to_string();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let listeners = format!("PLAINTEXT://{taken}");
    let third = Broker::start(
        settings(directory.path(), &[("listeners", &listeners)]),
        Components::default(),
    )
    .await;
    assert!(matches!(third.err(), Some(StartError::Bind { .. })));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_dropped_gives_its_directory_back() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    client.produce("words", 0, &["a"]).await;
    let TestBroker { broker, directory } = broker;
    drop(broker);
    // Its tasks let go one after the other; nothing says when the last one has.
    let broker = loop {
        match Broker::start(settings(directory.path(), &[]), Components::default()).await {
            Ok(broker) => break broker,
            Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let broker = TestBroker { broker, directory };
    let mut client = broker.connect().await;
    assert_eq!(client.fetch("words", 0, 0).await, ["a"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_without_metadata_are_not_taken_for_strays() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    client.produce("words", 0, &["a"]).await;
    let directory = broker.stop().await;
    std::fs::remove_dir_all(directory.path().join("__cluster_metadata-0")).expect("it is there");
    let refused = Broker::start(settings(directory.path(), &[]), Components::default()).await;
    let error = refused.expect_err("without metadata nothing can be right");
    assert!(error.to_string().contains("1 partitions"), "{error}");
    assert!(directory.path().join("words-0").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_readiness_are_served() {
    let broker = TestBroker::start(&[("fleuve.metrics.listen", "127.0.0.1:0")]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 2).await;
    client.produce("words", 0, &["a", "b"]).await;
    client.fetch("words", 0, 0).await;
    assert!(broker.get("/readyz").await.starts_with("HTTP/1.1 200"));
    let expected = [
        "kafka_server_brokertopicmetrics_messagesin_total{topic=\"words\"} 2",
        "kafka_server_replicamanager_partitioncount 2",
        "kafka_network_requestmetrics_totaltimems_count{request=\"FetchConsumer\"} 1",
        "kafka_network_requestmetrics_errors_total{request=\"Produce\",error=\"NONE\"} 1",
        "kafka_topic_partition_current_offset{topic=\"words\",partition=\"0\"} 2",
        "kafka_log_log_numlogsegments{topic=\"words\",partition=\"1\"} 1",
        "kafka_log_log_logendoffset{topic=\"words\",partition=\"0\"} 2",
        "kafka_server_socket_server_metrics_connection_count{listener=\"PLAINTEXT\",networkProcessor=\"0\"} 1",
    ];
    // A request is counted after its answer has left, so the page may be a step behind the client.
    let complete = async {
        while let page = broker.get("/metrics").await
            && let Some(line) =
                expected.iter().find(|line| !page.lines().any(|known| known == **line))
        {
            tracing::debug!(line, "not yet on the page");
        }
    };
    let patience = std::time::Duration::from_secs(30);
    if tokio::time::timeout(patience, complete).await.is_err() {
        let page = broker.get("/metrics").await;
        let missing: Vec<_> =
            expected.iter().filter(|line| !page.lines().any(|known| known == **line)).collect();
        panic!("{missing:?} are missing in\n{page}");
    }
    let deletion =
        DeleteTopicsRequest { topic_names: vec![Str::from("words")], ..Default::default() };
    assert_eq!(client.call(&deletion, 5).await.responses[0].error_code, 0);
    let page = broker.get("/metrics").await;
    assert!(!page.contains("\"words\""), "a deleted topic is gone from\n{page}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_flushes_the_end_of_the_log_is_readable_at_once() {
    let broker = TestBroker::start(&[("fleuve.flush.before.ack", "false")]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    assert_eq!(client.produce("words", 0, &["a"]).await.error_code, 0);
    assert_eq!(client.fetch("words", 0, 0).await, ["a"]);
    broker.stop().await;
}

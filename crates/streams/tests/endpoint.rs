//! Queries of running applications, in the program and over HTTP: two instances that ask each other.

use std::collections::BTreeSet;
use std::time::Duration;

use fleuve::Embedded;
use fleuve_client::admin::NewTopic;
use fleuve_client::{Admin, Producer, ProducerConfig, Record};
use fleuve_streams::metrics::ClientState;
use fleuve_streams::{Position, QueryError, Settings, Streams, Topology, in_store};
use serde_json::Value;

const PARTITIONS: i32 = 4;
const KEYS: i64 = 40;

fn counts() -> Topology {
    let app = Topology::new("counting");
    app.stream::<String, String>("in").group_by_key().count("counts").to_stream().to("out");
    app
}

async fn broker() -> Embedded {
    let broker = Embedded::start().await.expect("a broker");
    let topics =
        [NewTopic::new("in").partitions(PARTITIONS), NewTopic::new("out").partitions(PARTITIONS)];
    let created = Admin::new(broker.client()).create_topics(&topics, false).await;
    for (topic, result) in created.expect("an answer") {
        result.unwrap_or_else(|error| panic!("{topic}: {error}"));
    }
    broker
}

/// Sends every key once more.
async fn send(broker: &Embedded) {
    let producer = Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
    for key in 0..KEYS {
        let key = format!("k{key}");
        drop(producer.send(Record::new("in").key(&key).value("x")).await.expect("a place"));
    }
    producer.close().await.expect("all delivered");
}

async fn start(broker: &Embedded) -> Streams {
    let settings = Settings {
        commit_interval: Some(Duration::from_millis(50)),
        application_server: Some(":0".to_owned()),
        ..Settings::default()
    };
    Streams::start(&counts(), broker.client(), settings).await.expect("an application")
}

async fn get(app: &Streams, path: &str) -> (u16, Value) {
    let server = app.application_server().expect("an address");
    let patience = Duration::from_secs(30);
    let (status, body) =
        fleuve_http::get(server, path, patience, 1 << 20).await.expect("an answer");
    let json = serde_json::from_slice(&body).unwrap_or_else(|_| {
        panic!("{path} is no JSON: {}", String::from_utf8_lossy(&body));
    });
    (status, json)
}

/// Asks until the answer is as it should become.
async fn until<T, F: Future<Output = Result<T, String>>>(ask: impl Fn() -> F) -> T {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(so_far) => {
                assert!(tokio::time::Instant::now() < patience, "it stays so: {so_far}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Waits until an instance knows the count of every key, wherever it is.
async fn counted(app: &Streams, count: i64) {
    for key in 0..KEYS {
        until(|| async move {
            let (status, json) = get(app, &format!("/stores/counts/key/k{key}")).await;
            if json["value"] == count { Ok(()) } else { Err(format!("{status} {json}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_answers_for_all() {
    let broker = broker().await;
    send(&broker).await;
    let one = start(&broker).await;
    let two = start(&broker).await;
    until(|| async {
        let instances = one.instances().await;
        let even = instances.len() == 2 && instances.iter().all(|it| it.tasks.len() == 2);
        if even { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
    counted(&one, 1).await;
    counted(&two, 1).await;

    // A range gathers what all instances have.
    let (_, json) = get(&two, "/stores/counts/range").await;
    assert_eq!(json["rows"].as_array().map(Vec::len), Some(KEYS as usize), "{json}");
    let (_, json) = get(&one, "/stores/counts/range?limit=7").await;
    assert_eq!((json["rows"].as_array().map(Vec::len), &json["more"]), (Some(7), &true.into()));

    // What was passed on is not passed on again.
    let key = "k0".to_owned();
    let owner = one.key_metadata("counts", &key).await.expect("metadata").application_server;
    let (has, other) =
        if owner.as_deref() == one.application_server() { (&one, &two) } else { (&two, &one) };
    let (status, json) = get(other, "/stores/counts/key/k0?routed=true").await;
    assert_eq!((status, &json["error"]), (421, &"not_here".into()), "{json}");
    let (status, _) = get(has, "/stores/counts/key/k0?routed=true").await;
    assert_eq!(status, 200);

    // In the program only the stores of the own instance are asked, and the owner is named.
    let query = || in_store("counts").key::<String, i64>(key.clone());
    let found = has.query(query()).await.expect("an answer");
    assert_eq!(found.value.map(|stamped| stamped.value), Some(1));
    match other.query(query()).await {
        Err(QueryError::NotHere { owner: named, .. }) => assert_eq!(named, owner),
        answer => panic!("the other instance answers {answer:?}"),
    }
    let (topic, partition, offset) = found.position.iter().next().expect("a position");
    let behind = query().at_least(Position::new().with(topic, partition, offset + 1_000));
    assert!(matches!(has.query(behind).await, Err(QueryError::Behind { .. })));

    let (status, json) = get(&one, "/stores/cuonts/key/k0").await;
    assert_eq!((status, &json["stores"]), (404, &serde_json::json!(["counts"])));
    let (status, _) = get(&one, "/nothing").await;
    assert_eq!(status, 404);

    // One goes, the other takes over, with the state.
    two.close().await.expect("a clean end");
    send(&broker).await;
    counted(&one, 2).await;
    one.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_cannot_be_listened_on_is_told() {
    let broker = broker().await;
    for server in ["nonsense", "127.0.0.1:seven"] {
        let settings =
            Settings { application_server: Some(server.to_owned()), ..Settings::default() };
        let error = Streams::start(&counts(), broker.client(), settings).await.err();
        let said = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(said.starts_with(&format!("application.server {server}: ")), "{said}");
    }
    broker.shutdown().await;
}

/// The families on a page of metrics, with their types.
fn families(page: &str) -> BTreeSet<(String, String)> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| name.contains("streams"))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

/// A row of the tables of `docs/metrics.md`: a family as we name it, and its type or that it is left out.
type Row = (String, String);

/// What the documentation says about the metrics of applications.
fn documented() -> Vec<Row> {
    let page = include_str!("../../../docs/metrics.md");
    let (_, section) = page.split_once("## Stream processing").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("another one behind it");
    let mut prefix = String::new();
    let mut rows = Vec::new();
    for line in section.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            prefix = match heading.strip_prefix('`') {
                Some(group) => format!("kafka_streams_{}_", group.trim_end_matches('`')),
                None => String::new(),
            };
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [names, _, kind] = cells[..] else {
            continue;
        };
        for name in names.split('`').filter(|name| name.contains(char::is_alphanumeric)) {
            if names.starts_with('`') {
                rows.push((format!("{prefix}{name}").replace('-', "_"), kind.to_owned()));
            }
        }
    }
    rows
}

/// The metrics that Kafka Streams itself has, as `tests/streams/metrics.py` was told by it, named as we would.
fn of_kafka_streams() -> BTreeSet<String> {
    let list = include_str!("metrics.txt");
    let named = list.lines().filter_map(|line| {
        let mut parts = line.split(' ');
        Some(format!("kafka_streams_{}_{}", parts.next()?, parts.next()?).replace('-', "_"))
    });
    named.collect()
}

#[test]
fn the_documentation_says_of_every_metric_of_kafka_streams_what_it_is_here() {
    let rows = documented();
    let named: BTreeSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(named.len(), rows.len(), "no name stands twice");
    let known = of_kafka_streams();
    let silent: Vec<_> = known.difference(&named).collect();
    assert!(silent.is_empty(), "not a word about {silent:#?}");
    let ours =
        |name: &str| name.starts_with("fleuve_streams_") || name == "kafka_streams_stream_metrics";
    let made_up: Vec<_> = named.difference(&known).filter(|name| !ours(name)).collect();
    assert!(made_up.is_empty(), "Kafka Streams does not have {made_up:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_traces_are_served_and_the_documentation_names_all_of_them() {
    let broker = broker().await;
    send(&broker).await;
    let app = start(&broker).await;
    counted(&app, 1).await;
    let page = until(|| async {
        let server = app.application_server().expect("an address");
        let patience = Duration::from_secs(30);
        let got = fleuve_http::get(server, "/metrics", patience, 1 << 20).await;
        let page = String::from_utf8_lossy(&got.expect("a page").1).into_owned();
        let processed: f64 = page
            .lines()
            .filter(|line| line.starts_with("kafka_streams_stream_task_metrics_process_total{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        if processed == KEYS as f64 { Ok(page) } else { Err(page) }
    })
    .await;
    let described: BTreeSet<Row> =
        documented().into_iter().filter(|(_, kind)| kind != "not here").collect();
    assert_eq!(families(&page), described);
    let source = "kafka_streams_stream_processor_node_metrics_process_total{\
                  thread_id=\"counting-StreamThread-1\",task_id=\"0_0\",\
                  processor_node_id=\"KSTREAM-SOURCE-0000000000\"}";
    assert!(page.contains(source), "{page}");
    for client in ["consumer_consumer_fetch_manager_metrics", "producer_producer_metrics"] {
        let id = client.split('_').next().unwrap_or_default();
        let label = format!("{{client_id=\"counting-StreamThread-1-{id}\"");
        let of_client =
            |line: &str| line.starts_with(&format!("kafka_{client}_")) && line.contains(&label);
        assert!(page.lines().any(of_client), "{client}: {page}");
    }
    let text = "kafka_streams_stream_metrics{client_id=\"counting\",state=\"RUNNING\"} 1";
    assert!(page.contains(text), "{page}");
    let consumed: f64 = page
        .lines()
        .filter(|line| {
            line.starts_with("kafka_streams_stream_topic_metrics_records_consumed_total{")
                && line.contains("processor_node_id=\"KSTREAM-SOURCE-0000000000\",topic=\"in\"}")
        })
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(consumed, KEYS as f64, "{page}");
    assert!(
        page.contains("fleuve_streams_input_lag{task_id=\"0_0\",topic=\"in\",partition=\"0\"} 0")
    );

    let (_, topology) = get(&app, "/topology").await;
    let part = &topology["subtopologies"][0];
    assert_eq!((&part["nodes"][0]["processed"], &part["lag"]), (&KEYS.into(), &0.into()));
    assert_eq!(part["tasks"].as_array().map(Vec::len), Some(PARTITIONS as usize));
    let (_, traces) = get(&app, "/traces").await;
    // The first record of every task is traced.
    assert_eq!(traces.as_array().map(Vec::len), Some(PARTITIONS as usize), "{traces}");
    assert_eq!(traces[0]["steps"][0]["node"], "KSTREAM-AGGREGATE-0000000001");
    let threads = app.metrics().threads;
    assert_eq!(threads.iter().map(|thread| thread.processed).sum::<u64>(), KEYS as u64);
    app.close().await.expect("a clean end");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_failed_is_seen() {
    let broker = broker().await;
    send(&broker).await;
    let topology = Topology::new("failing");
    topology.stream::<String, String>("in").try_map_values(|_| Err::<String, _>("no")).to("out");
    let settings = Settings { application_server: Some(":0".to_owned()), ..Settings::default() };
    let mut app =
        Streams::start(&topology, broker.client(), settings).await.expect("an application");
    let error = app.failed().await.expect("the policy is to fail");
    assert!(error.to_string().contains("KSTREAM-MAPVALUES"), "{error}");
    let metrics = app.metrics();
    assert_eq!((metrics.failed_threads, metrics.threads.len()), (1, 0));
    assert_eq!(metrics.state(), ClientState::Error);
    let server = app.application_server().expect("an address");
    let got = fleuve_http::get(server, "/metrics", Duration::from_secs(30), 1 << 20).await;
    let page = String::from_utf8_lossy(&got.expect("a page").1).into_owned();
    for line in [
        "kafka_streams_stream_metrics_failed_stream_threads{client_id=\"failing\"} 1",
        "kafka_streams_stream_metrics_alive_stream_threads{client_id=\"failing\"} 0",
        "kafka_streams_stream_metrics_state{client_id=\"failing\",state=\"ERROR\"} 1",
    ] {
        assert!(page.lines().any(|known| known == line), "{line} in {page}");
    }
    // The error was told already.
    app.close().await.expect("nothing is left to fail");
    broker.shutdown().await;
}

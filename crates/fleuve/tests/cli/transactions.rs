//! `fleuve transaction`: every verb, on transactions that are open and on one that hangs.

use fleuve::client::{Client, ClientConfig, Producer, ProducerConfig, Record};
use fleuve_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use fleuve_protocol::records::{BatchBuilder, BatchOptions, BatchProducer, NewRecord};
use fleuve_types::{ProducerEpoch, ProducerId, TimestampMs};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::broker::Broker;

/// A producer id that no coordinator has given out.
const GHOST: i64 = 4711;
/// The last version of Produce whose transactions come from clients that add partitions themselves.
const PRODUCE_VERSION: i16 = 11;

/// A broker that takes transactional batches without asking a coordinator, as brokers before
/// KIP-890 did: the only ones in which a transaction can hang.
fn broker() -> Broker {
    let settings = ["transaction.partition.verification.enable=false"];
    Broker::start_with("127.0.0.1:0", tempfile::tempdir().expect("room"), &settings)
}

/// Begins a transaction and leaves it open.
fn open(runtime: &Runtime, broker: &Broker, id: &str, topic: &str) -> Producer {
    runtime.block_on(async {
        let config = ClientConfig::new(&broker.address).expect("an address");
        let client = Client::connect(config).await.expect("a broker");
        let config =
            ProducerConfig { transactional_id: Some(id.to_owned()), ..ProducerConfig::default() };
        let producer = Producer::new(client, config).expect("valid");
        producer.init_transactions().await.expect("an identity");
        producer.begin_transaction().expect("ready");
        let record = Record::new(topic).partition(0).value("open");
        drop(producer.send(record).await.expect("taken"));
        producer.flush().await.expect("written");
        producer
    })
}

/// Writes a transactional batch of which no coordinator knows.
fn haunt(runtime: &Runtime, broker: &Broker, topic: &str, partition: i32) {
    let mut builder = BatchBuilder::new(BatchOptions {
        transactional: true,
        producer: Some(BatchProducer {
            id: ProducerId(GHOST),
            epoch: ProducerEpoch(3),
            base_sequence: 0,
        }),
        ..BatchOptions::default()
    });
    let value = Some(&b"hangs"[..]);
    let record =
        NewRecord { timestamp: TimestampMs(1_700_000_000_000), key: None, value, headers: &[] };
    builder.append(&record).expect("it fits");
    let partition_data = PartitionProduceData { index: partition, records: Some(builder.finish()) };
    let request = ProduceRequest {
        transactional_id: Some("ghost".into()),
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned().into(),
            partition_data: vec![partition_data],
            ..TopicProduceData::default()
        }],
    };
    let response = runtime.block_on(async {
        let config = ClientConfig::new(&broker.address).expect("an address");
        let client = Client::connect(config).await.expect("a broker");
        let connection = client.any_connection().await.expect("a connection");
        let response = connection.submit(&request, PRODUCE_VERSION).expect("it fits");
        response.wait().await.expect("an answer")
    });
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

fn states(listed: &Value) -> Vec<(&str, &str)> {
    let rows = listed.as_array().expect("a list").iter();
    let mut rows: Vec<(&str, &str)> = rows
        .map(|row| {
            let id = row["transactional_id"].as_str().expect("text");
            (id, row["state"].as_str().expect("text"))
        })
        .collect();
    rows.sort_unstable();
    rows
}

#[test]
fn transactions_are_listed_described_and_shut_out() {
    let runtime = Runtime::new().expect("threads");
    let broker = broker();
    broker.run(&["topic", "create", "orders", "-p", "2"]);
    let first = open(&runtime, &broker, "shop-1", "orders");
    let second = open(&runtime, &broker, "shop-2", "orders");
    runtime.block_on(second.commit_transaction()).expect("committed");

    // A commit is acknowledged once it is sure, before its markers are in all partitions.
    let listed = loop {
        let listed = broker.json(&["transaction", "list"]);
        if !states(&listed).contains(&("shop-2", "PrepareCommit")) {
            break listed;
        }
    };
    assert_eq!(states(&listed), [("shop-1", "Ongoing"), ("shop-2", "CompleteCommit")]);
    let ongoing = broker.json(&["transaction", "list", "--state", "Ongoing"]);
    assert_eq!(states(&ongoing), [("shop-1", "Ongoing")]);
    let id = ongoing[0]["producer_id"].to_string();
    let of_producer = broker.json(&["transaction", "list", "--producer-id", &id]);
    assert_eq!(of_producer, ongoing);
    let matching = broker.json(&["transaction", "list", "--pattern", ".*-2"]);
    assert_eq!(states(&matching), [("shop-2", "CompleteCommit")]);
    let long =
        broker.json(&["transaction", "list", "--state", "Ongoing", "--longer-than-ms", "3600000"]);
    assert!(states(&long).is_empty());
    assert!(broker.fail(&["transaction", "list", "--pattern", "("]).contains("regular expression"));

    let described = broker.json(&["transaction", "describe", "shop-1", "shop-2"]);
    assert_eq!(described[0]["state"], "Ongoing");
    assert_eq!(described[0]["partitions"][0], "orders-0");
    assert!(described[0]["start_time_ms"].as_i64().is_some_and(|ms| ms > 1_700_000_000_000));
    assert_eq!(described[1]["partitions"], Value::Array(Vec::new()));
    let table = broker.run(&["transaction", "describe", "shop-1"]);
    assert!(table.contains("shop-1") && table.contains("orders-0"), "{table}");
    assert!(broker.fail(&["transaction", "describe", "nobody"]).contains("nobody"));

    // The first began at 0 and is open; the second has ended.
    let producers = broker.json(&["transaction", "describe-producers", "orders"]);
    let starts: Vec<_> = producers
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (row["partition"].as_i64(), row["transaction_start_offset"].as_i64()))
        .collect();
    assert!(
        starts.contains(&(Some(0), Some(0))) && starts.contains(&(Some(0), None)),
        "{starts:?}"
    );
    // What the coordinator knows of does not hang, however old it is.
    let args = ["transaction", "find-hanging", "orders", "--max-transaction-timeout", "0"];
    assert_eq!(broker.json(&args), Value::Array(Vec::new()));

    let said = broker.output(&["transaction", "force-terminate", "shop-1", "--dry-run"], b"");
    assert!(String::from_utf8_lossy(&said.stdout).contains("would shut out"));
    assert_eq!(states(&broker.json(&["transaction", "list", "--state", "Ongoing"])).len(), 1);
    broker.run(&["transaction", "force-terminate", "shop-1"]);
    let listed = broker.json(&["transaction", "list", "--pattern", "shop-1"]);
    assert_ne!(listed[0]["state"], "Ongoing");
    assert!(runtime.block_on(first.commit_transaction()).is_err(), "its producer is shut out");
    assert!(broker.fail(&["transaction", "force-terminate", "nobody"]).contains("nobody"));
}

#[test]
fn a_transaction_that_hangs_is_found_and_aborted() {
    let runtime = Runtime::new().expect("threads");
    let broker = broker();
    broker.run(&["topic", "create", "orders", "-p", "3"]);
    for partition in 0..3 {
        haunt(&runtime, &broker, "orders", partition);
    }
    broker.run(&["topic", "create", "quiet"]);
    let found = broker.json(&["transaction", "find-hanging"]);
    let found = found.as_array().expect("a list");
    assert_eq!(found.len(), 3);
    let row = &found[0];
    assert_eq!((row["topic"].as_str(), row["partition"].as_i64()), (Some("orders"), Some(0)));
    assert_eq!(
        (row["producer_id"].as_i64(), row["producer_epoch"].as_i64()),
        (Some(GHOST), Some(3))
    );
    assert_eq!(row["transaction_start_offset"], 0);
    let in_one = broker.json(&["transaction", "find-hanging", "orders:1"]);
    assert_eq!(in_one.as_array().map(Vec::len), Some(1));
    let young = ["transaction", "find-hanging", "--max-transaction-timeout", "99999999"];
    assert_eq!(broker.json(&young), Value::Array(Vec::new()));
    let missing = broker.fail(&["transaction", "abort", "orders", "0"]);
    assert!(missing.contains("--start-offset"), "{missing}");
    let wrong = broker.fail(&["transaction", "abort", "orders", "0", "--start-offset", "9"]);
    assert!(wrong.contains("orders-0") && wrong.contains('9'), "{wrong}");
    let abort = ["transaction", "abort", "orders", "0", "--start-offset", "0"];
    broker.run(&[&abort[..], &["--dry-run"]].concat());
    assert_eq!(broker.json(&["transaction", "find-hanging"]).as_array().map(Vec::len), Some(3));
    broker.run(&abort);
    let by_producer = [
        "transaction",
        "abort",
        "orders",
        "1",
        "--producer-id",
        "4711",
        "--producer-epoch",
        "3",
        "--coordinator-epoch",
        "0",
    ];
    broker.run(&by_producer);
    let left = broker.json(&["transaction", "find-hanging"]);
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    assert_eq!(left[0]["partition"], 2);
    // The records behind it can be read again.
    broker.run_with(&["produce", "orders", "-p", "0"], b"after\n");
    let committed = ["consume", "orders", "-p", "0", "-q", "-X", "isolation.level=read_committed"];
    assert_eq!(broker.run(&committed), "after\n");
}

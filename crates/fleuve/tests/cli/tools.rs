//! The scripts of `bin/`, with the options of Apache Kafka's.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::broker::{Broker, FLEUVE};

/// Runs a script and returns its stdout; it must succeed.
pub(crate) fn script(broker: &Broker, name: &str, arguments: &[&str], stdin: &[u8]) -> String {
    let path = format!("{}/../../bin/{name}.sh", env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new(path)
        .args(arguments)
        .args(["--bootstrap-server", &broker.address])
        .env("FLEUVE", FLEUVE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the script runs");
    // A tool that does not read its stdin closes it.
    child.stdin.take().expect("piped").write_all(stdin).ok();
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?} failed: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn topics_and_configurations() {
    let broker = Broker::start();
    let create = ["--create", "--topic", "t", "--partitions", "2", "--replication-factor", "1"];
    let text = script(
        &broker,
        "kafka-topics",
        &[&create[..], &["--config", "retention.ms=1000"]].concat(),
        b"",
    );
    assert_eq!(text, "Created topic t.\n");
    assert_eq!(script(&broker, "kafka-topics", &["--list"], b""), "t\n");
    let text = script(&broker, "kafka-topics", &["--describe", "--topic", "t"], b"");
    assert!(text.starts_with("Topic: t\tTopicId: "), "{text}");
    assert!(
        text.contains("PartitionCount: 2\tReplicationFactor: 1\tConfigs: retention.ms=1000\n"),
        "{text}"
    );
    assert!(text.contains("\tTopic: t\tPartition: 1\tLeader: 1\tReplicas: 1\tIsr: 1"), "{text}");
    let entity = ["--entity-type", "topics", "--entity-name", "t"];
    let alter =
        [&entity[..], &["--alter", "--add-config", "cleanup.policy=[compact,delete]"]].concat();
    let text = script(&broker, "kafka-configs", &alter, b"");
    assert_eq!(text, "Completed updating config for topic t.\n");
    let text = script(&broker, "kafka-configs", &[&entity[..], &["--describe"]].concat(), b"");
    assert!(text.contains("  cleanup.policy=compact,delete sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete"), "{text}");
    script(&broker, "kafka-topics", &["--delete", "--topic", "t"], b"");
    assert_eq!(script(&broker, "kafka-topics", &["--list"], b""), "");
}

#[test]
fn consoles_groups_and_offsets() {
    let broker = Broker::start();
    script(&broker, "kafka-topics", &["--create", "--topic", "t", "--partitions", "1"], b"");
    let keyed = ["--property", "parse.key=true", "--property", "key.separator=:"];
    script(
        &broker,
        "kafka-console-producer",
        &[&["--topic", "t"], &keyed[..]].concat(),
        b"a:1\nb:2\n",
    );
    let text = script(
        &broker,
        "kafka-console-consumer",
        &[
            "--topic",
            "t",
            "--from-beginning",
            "--group",
            "g",
            "--max-messages",
            "2",
            "--property",
            "print.key=true",
            "--property",
            "print.offset=true",
        ],
        b"",
    );
    assert_eq!(text, "Offset:0\ta\t1\nOffset:1\tb\t2\n");
    assert_eq!(script(&broker, "kafka-consumer-groups", &["--list"], b""), "g\n");
    let text = script(&broker, "kafka-consumer-groups", &["--describe", "--group", "g"], b"");
    let row: Vec<_> = text.lines().last().expect("a row").split_whitespace().collect();
    assert_eq!(row[..6], ["g", "t", "0", "2", "2", "0"]);
    let reset = ["--group", "g", "--topic", "t", "--reset-offsets", "--to-earliest", "--execute"];
    let text = script(&broker, "kafka-consumer-groups", &reset, b"");
    let row: Vec<_> = text.lines().last().expect("a row").split_whitespace().collect();
    assert_eq!(row, ["g", "t", "0", "0"]);
    assert_eq!(script(&broker, "kafka-get-offsets", &["--topic", "t"], b""), "t:0:2\n");
    let earliest = ["--topic", "t", "--time", "-2"];
    assert_eq!(script(&broker, "kafka-get-offsets", &earliest, b""), "t:0:0\n");
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write!(file, r#"{{"partitions":[{{"topic":"t","partition":0,"offset":1}}],"version":1}}"#)
        .expect("room");
    let path = file.path().display().to_string();
    let text = script(&broker, "kafka-delete-records", &["--offset-json-file", &path], b"");
    assert!(text.contains("partition: t-0\tlow_watermark: 1"), "{text}");
}

#[test]
fn versions_cluster_and_performance() {
    let broker = Broker::start();
    let text = script(&broker, "kafka-broker-api-versions", &[], b"");
    assert!(text.contains("\tProduce(0): 0 to "), "{text}");
    let text = script(&broker, "kafka-cluster", &["cluster-id"], b"");
    assert_eq!(text.trim(), format!("Cluster ID: {}", broker.run(&["cluster", "id"]).trim()));
    let produce =
        ["--topic", "p", "--num-records", "1000", "--record-size", "100", "--throughput", "-1"];
    let text = script(&broker, "kafka-producer-perf-test", &produce, b"");
    assert!(text.starts_with("1000 records sent, ") && text.contains(" 99.9th."), "{text}");
    let consume = ["--topic", "p", "--messages", "1000"];
    let text = script(&broker, "kafka-consumer-perf-test", &consume, b"");
    assert!(text.lines().last().expect("a row").contains(", 1000, "), "{text}");
}

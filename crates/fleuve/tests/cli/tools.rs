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
        text.contains("PartitionCount: 2\tReplicationFactor: 1\tConfigs: min.insync.replicas=1,retention.ms=1000\n"),
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
    let mut formatter = tempfile::NamedTempFile::new().expect("a temporary file");
    formatter.write_all(b"print.key=true\nkey.separator=;\n").expect("room");
    let path = formatter.path().display().to_string();
    let print = ["--topic", "t", "--from-beginning", "--max-messages", "2"];
    let print = [&print[..], &["--formatter-config", &path]].concat();
    assert_eq!(script(&broker, "kafka-console-consumer", &print, b""), "a;1\nb;2\n");
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

#[test]
fn performance_is_measured_within_transactions_and_after_a_warmup() {
    let broker = Broker::start();
    let produce = ["--topic", "p", "--num-records", "300", "--payload-monotonic"];
    let transact = ["--transaction-duration-ms", "1", "--throughput", "2000"];
    let more = ["--warmup-records", "100", "--print-metrics"];
    let arguments = [&produce[..], &transact, &more].concat();
    let text = script(&broker, "kafka-producer-perf-test", &arguments, b"");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("Warmup first 100 records."), "{text}");
    assert!(lines.contains(&"In steady state."), "{text}");
    assert!(lines.iter().any(|line| line.starts_with("300 records sent, ")), "{text}");
    assert!(lines.iter().any(|line| line.starts_with("200 steady state records sent, ")), "{text}");
    assert!(lines.iter().any(|line| line.starts_with("producer-metrics:record-send-total:")));
    let listed = broker.json(&["transaction", "list"]).to_string();
    assert!(listed.contains("performance-producer-"), "{listed}");

    let consume = ["--include", "p.*", "--num-records", "300", "--date-format", "yyyy/MM/dd"];
    let text = script(&broker, "kafka-consumer-perf-test", &consume, b"");
    let row = text.lines().nth(1).expect("a row");
    let columns: Vec<_> = row.split(", ").collect();
    assert_eq!((columns.len(), columns[4]), (10, "300"), "{text}");
    assert_eq!(columns[0].replace(|c: char| c.is_ascii_digit(), "d"), "dddd/dd/dd", "{text}");
    let missing = ["--topic", "p", "--num-records", "301", "--timeout", "300", "--hide-header"];
    let text = script(&broker, "kafka-consumer-perf-test", &missing, b"");
    assert!(text.starts_with("WARNING: Exiting before consuming the expected number"), "{text}");
}

#[test]
fn topics_grow_on_the_brokers_that_are_named() {
    let broker = Broker::start();
    script(&broker, "kafka-topics", &["--create", "--topic", "t", "--partitions", "1"], b"");
    let alter = ["--alter", "--topic", "t", "--partitions", "3", "--replica-assignment", "7,1,1"];
    assert_eq!(script(&broker, "kafka-topics", &alter, b""), "");
    let text = script(&broker, "kafka-topics", &["--describe", "--topic", "t"], b"");
    assert!(text.contains("PartitionCount: 3\t"), "{text}");
    let refuse = |assignment: &str| {
        let alter = ["--alter", "--topic", "t", "--partitions", "4", "--replica-assignment"];
        let mut command = Command::new(FLEUVE);
        command.args(["tool", "kafka-topics"]).args(alter).arg(assignment);
        let refused = command.args(["--bootstrap-server", &broker.address]).output();
        let refused = refused.expect("the binary runs");
        assert!(!refused.status.success(), "{refused:?}");
        String::from_utf8(refused.stdout).expect("text")
    };
    assert!(refuse("1,1,1,1:1").contains("may not contain duplicate entries: 1"));
    assert!(refuse("1,1,1,7").starts_with("Error while executing topic command : "));
}

#[test]
fn controllers_are_asked_where_their_broker_is() {
    let broker = Broker::start();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(FLEUVE);
        command.arg("tool").args(arguments).output().expect("the binary runs")
    };
    let text = |arguments: &[&str]| {
        let done = run(arguments);
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        String::from_utf8(done.stdout).expect("text")
    };
    let id = text(&["kafka-cluster", "cluster-id", "-b", &broker.address]);
    assert_eq!(text(&["kafka-cluster", "cluster-id", "-C", &broker.address]), id);
    let listed = text(&["kafka-cluster", "list-endpoints", "-C", &broker.address]);
    let rows: Vec<Vec<_>> = listed.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "HOST", "PORT", "RACK", "ENDPOINT_TYPE"]);
    assert_eq!(rows[1].last(), Some(&"controller"));
    let described =
        text(&["kafka-features", "--bootstrap-controller", &broker.address, "describe"]);
    assert!(described.contains("Feature: group.version"), "{described}");
    let nobody = run(&["kafka-features", "--bootstrap-controller", "localhost:1", "describe"]);
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert!(!nobody.status.success() && said.contains("pass --bootstrap-server"), "{said}");
    let mapped = text(&["kafka-storage", "version-mapping", "-r", "4.0-IV0"]);
    assert!(mapped.starts_with("metadata.version=22 (4.0-IV0)\nkraft.version=1\n"), "{mapped}");
    let upgrade = ["kafka-features", "--bootstrap-server", &broker.address, "upgrade"];
    let upgraded = text(&[&upgrade[..], &["--release-version", "4.3", "--dry-run"]].concat());
    assert!(upgraded.contains("share.version can be upgraded to 1.\n"), "{upgraded}");
}

#[test]
fn share_consumers_measure_and_print() {
    let broker = Broker::start();
    script(&broker, "kafka-topics", &["--create", "--topic", "jobs", "--partitions", "2"], b"");
    script(&broker, "kafka-console-producer", &["--topic", "jobs"], b"a\nb\nc\n");
    let groups =
        ["--alter", "--entity-type", "groups", "--add-config", "share.auto.offset.reset=earliest"];
    for group in ["workers", "measured"] {
        script(&broker, "kafka-configs", &[&groups[..], &["--entity-name", group]].concat(), b"");
    }
    let print = ["--topic", "jobs", "--group", "workers", "--max-messages", "3"];
    let shown =
        ["--formatter-property", "print.delivery=true", "--formatter-property", "key.separator= "];
    let text = script(
        &broker,
        "kafka-console-share-consumer",
        &[&print[..], &shown, &["--release", "--enable-systest-events"]].concat(),
        b"",
    );
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.pop(), Some("shutdown_complete"));
    lines.sort_unstable();
    assert_eq!(lines, ["Delivery:1 a", "Delivery:1 b", "Delivery:1 c"]);
    let text = script(&broker, "kafka-console-share-consumer", &[&print[..], &shown].concat(), b"");
    assert_eq!(text.matches("Delivery:2").count(), 3, "{text}");

    let describe = ["--describe", "--group", "workers", "--verbose"];
    let text = script(&broker, "kafka-share-groups", &describe, b"");
    let row: Vec<_> = text.lines().nth(2).expect("a row").split_whitespace().collect();
    assert_eq!(row[..2], ["workers", "jobs"], "{text}");
    assert!(text.contains("LEADER-EPOCH") && text.contains("START-OFFSET"), "{text}");
    let text = script(&broker, "kafka-share-groups", &["--list", "--state"], b"");
    let header: Vec<_> = text.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["GROUP", "STATE"]);
    let state = broker.json(&["group", "describe", "workers", "--state"]);
    assert_eq!((&state["group"], &state["protocol_type"]), (&"workers".into(), &"share".into()));
    assert!(broker.run(&["group", "delete", "workers", "--dry-run"]).contains("would delete"));

    let measured =
        ["--topic", "jobs", "--group", "measured", "--num-records", "3", "--threads", "2"];
    let text = script(
        &broker,
        "kafka-share-consumer-perf-test",
        &[&measured[..], &["--show-consumer-stats"]].concat(),
        b"",
    );
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("start.time, end.time, data.consumed.in.MB"), "{text}");
    assert!(lines[1].starts_with("Share consumer 1 having client id"), "{text}");
    assert_eq!(lines[3].split(", ").nth(5), Some("3"), "{text}");
}

#[test]
fn a_cluster_begins_with_the_users_and_features_it_was_formatted_with() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let beside = tempfile::tempdir().expect("a temporary directory");
    let file = beside.path().join("server.properties");
    let properties = format!("node.id=1\nlog.dirs={}\n", directory.path().display());
    std::fs::write(&file, properties).expect("room");
    let format = |more: &[&str]| {
        let mut command = Command::new(FLEUVE);
        command.args(["tool", "kafka-storage", "format", "--config"]).arg(&file);
        command.args(["--standalone", "-t", "MkU3OEVBNTcwNTJENDM2Qg"]).args(more);
        command.output().expect("the binary runs")
    };
    let ann = "SCRAM-SHA-512=[name=ann,iterations=8192,password=ann's]";
    let bob = "SCRAM-SHA-256=[name=bob,password=bob's]";
    let formatted = format(&["-S", ann, "-S", bob, "--feature", "transaction.version=1"]);
    assert!(formatted.status.success(), "{formatted:?}");
    let again = format(&[]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is already formatted"), "{again:?}");
    let mut info = Command::new(FLEUVE);
    let told = info.args(["tool", "kafka-storage", "info", "-c"]).arg(&file).output();
    let told = told.expect("the binary runs");
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.status.success() && text.contains("cluster.id=MkU3OEVBNTcwNTJENDM2Qg"),
        "{told:?}"
    );
    let broker = Broker::start_in(directory);
    let users = broker.json(&["user", "list"]);
    let rows: Vec<_> = users.as_array().expect("array").iter().map(ToString::to_string).collect();
    let shown = rows.join(" ");
    for word in ["ann", "SCRAM-SHA-512", "8192", "bob", "SCRAM-SHA-256", "4096"] {
        assert!(shown.contains(word), "{word} is not in {shown}");
    }
    let features = broker.json(&["cluster", "features", "describe"]);
    let level = |name: &str| {
        let features = features.as_array().expect("array").iter();
        features.clone().find(|feature| feature["name"] == name).expect("it is told")["level"]
            .clone()
    };
    assert_eq!(level("transaction.version"), 1);
    assert_eq!(level("group.version"), 1);
}

#[test]
fn latency_is_measured_from_end_to_end() {
    let broker = Broker::start();
    let options =
        ["--topic", "new", "--num-records", "3", "--producer-acks", "all", "--record-size", "20"];
    let more = [
        "--record-key-size",
        "4",
        "--num-headers",
        "2",
        "--record-header-key-size",
        "3",
        "--record-header-size",
        "-1",
    ];
    let text = script(&broker, "kafka-e2e-latency", &[&options[..], &more].concat(), b"");
    assert!(text.starts_with("Topic \"new\" does not exist."), "{text}");
    assert!(text.contains("\nAvg latency: ") && text.contains("\nPercentiles: 50th = "), "{text}");
    let old = broker.run(&["tool", "kafka-e2e-latency", &broker.address, "new", "2", "1", "10"]);
    assert!(old.starts_with("0\t"), "{old}");
}

#[test]
fn an_application_begins_anew() {
    let broker = Broker::start();
    for (topic, partitions) in
        [("in", "2"), ("between", "1"), ("app-counts-changelog", "1"), ("apple-x-changelog", "1")]
    {
        broker.run(&["topic", "create", topic, "-p", partitions]);
    }
    for topic in ["in", "between"] {
        broker.run_with(&["produce", topic], b"1\n2\n3\n");
    }
    broker.run(&["consume", "in", "--group", "app", "-q"]);
    let reset =
        ["--application-id", "app", "--input-topics", "in", "--intermediate-topics", "between"];
    let plan = script(
        &broker,
        "kafka-streams-application-reset",
        &[&reset[..], &["--dry-run"]].concat(),
        b"",
    );
    assert!(plan.contains("Deleting inferred internal topics [app-counts-changelog]"), "{plan}");
    let lag = || -> i64 {
        let group = broker.json(&["group", "describe", "app"]);
        let partitions = group["partitions"].as_array().expect("array").clone();
        let of_input = partitions.iter().filter(|partition| partition["topic"] == "in");
        of_input.map(|partition| partition["lag"].as_i64().expect("a number")).sum()
    };
    assert_eq!(lag(), 0, "a dry run moves nothing");
    script(&broker, "kafka-streams-application-reset", &reset, b"");
    assert_eq!(lag(), 3);
    let topics = broker.json(&["topic", "list"]);
    let names: Vec<_> = topics.as_array().expect("array").iter().map(|t| &t["name"]).collect();
    assert_eq!(names, ["apple-x-changelog", "between", "in"]);
    broker.run(&["consume", "in", "--group", "app", "-q"]);
    let shift = ["--application-id", "app", "--input-topics", "in", "--shift-by", "-1"];
    script(&broker, "kafka-streams-application-reset", &shift, b"");
    assert!(lag() > 0, "each partition that has records went back by one");
}

//! Topics, groups, configurations, the cluster and the rest.

use crate::broker::Broker;

#[test]
fn topics_are_created_described_grown_and_deleted() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "a", "b", "-p", "2", "-c", "retention.ms=60000"]);
    let topics = broker.json(&["topic", "list"]);
    let names: Vec<_> = topics.as_array().expect("array").iter().map(|t| &t["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    let described = broker.json(&["topic", "describe", "a"]);
    assert_eq!(described[0]["configs"]["retention.ms"], "60000");
    assert_eq!(described[0]["partitions"].as_array().expect("array").len(), 2);
    broker.run(&["topic", "alter", "a", "-p", "5", "--delete-config", "retention.ms"]);
    let described = broker.json(&["topic", "describe", "a"]);
    assert_eq!(described[0]["partitions"].as_array().expect("array").len(), 5);
    assert_eq!(described[0]["configs"], serde_json::json!({}));
    let error = broker.fail(&["topic", "create", "a"]);
    assert!(error.contains("TOPIC_ALREADY_EXISTS") && error.contains("--if-not-exists"), "{error}");
    broker.run(&["topic", "create", "a", "--if-not-exists"]);
    broker.run(&["topic", "delete", "a", "b"]);
    assert_eq!(broker.json(&["topic", "list"]), serde_json::json!([]));
    let error = broker.fail(&["topic", "delete", "a"]);
    assert!(error.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{error}");
    broker.run(&["topic", "delete", "a", "--if-exists"]);
}

#[test]
fn the_oldest_records_of_a_partition_can_be_deleted() {
    let broker = Broker::start();
    broker.run_with(&["produce", "t"], b"0\n1\n2\n");
    broker.run(&["topic", "delete-records", "t", "--before", "2"]);
    assert_eq!(broker.run(&["consume", "t", "-q"]), "2\n");
    let offsets = broker.json(&["topic", "offsets", "t"]);
    assert_eq!((&offsets[0]["first_offset"], &offsets[0]["next_offset"]), (&2.into(), &3.into()));
}

#[test]
fn offsets_of_a_group_move_only_when_told_to_execute() {
    let broker = Broker::start();
    broker.run_with(&["produce", "t"], b"0\n1\n2\n");
    broker.run(&["consume", "t", "--group", "g", "-q"]);
    let reset = ["group", "reset-offsets", "g", "--topic", "t", "--shift-by", "-2"];
    let plan = broker.json(&reset);
    assert_eq!(plan[0]["new_offset"], 1);
    assert_eq!(broker.json(&["group", "describe", "g"])["partitions"][0]["lag"], 0);
    broker.run(&[&reset[..], &["--execute"]].concat());
    assert_eq!(broker.json(&["group", "describe", "g"])["partitions"][0]["lag"], 2);
    assert_eq!(broker.run(&["consume", "t", "--group", "g", "-q"]), "1\n2\n");
    let groups = broker.json(&["group", "list"]);
    assert_eq!(groups[0]["group"], "g");
    broker.run(&["group", "delete", "g"]);
    let error = broker.fail(&["group", "describe", "g"]);
    assert!(error.contains("group g does not exist"), "{error}");
}

#[test]
fn configurations_are_described_and_changed() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t"]);
    broker.run(&["config", "alter", "--topic", "t", "--set", "retention.ms=1000"]);
    let entries = broker.json(&["config", "describe", "--topic", "t"]);
    let mut entries = entries.as_array().expect("array").iter();
    let entry = entries.find(|entry| entry["name"] == "retention.ms").expect("it was set");
    assert_eq!(entry["value"], "1000");
    let all = broker.json(&["config", "describe", "--topic", "t", "--all"]);
    assert!(all.as_array().expect("array").len() > 20);
    let error = broker.fail(&["config", "alter", "--topic", "t", "--set", "retention.ms=soon"]);
    assert!(error.contains("INVALID_CONFIG"), "{error}");
    broker.run(&["config", "alter", "--topic", "t", "--delete", "retention.ms"]);
}

#[test]
fn the_cluster_is_described_and_found_healthy() {
    let broker = Broker::start();
    let cluster = broker.json(&["cluster", "describe"]);
    assert_eq!(broker.run(&["cluster", "id"]).trim(), cluster["cluster_id"]);
    let address = format!(
        "{}:{}",
        cluster["brokers"][0]["host"].as_str().expect("text"),
        cluster["brokers"][0]["port"]
    );
    assert_eq!(address, broker.address);
    let versions = broker.run(&["cluster", "versions"]);
    assert!(versions.contains("Produce") && versions.contains("Fetch"), "{versions}");
    let directory = broker.directory.path().display().to_string();
    let findings = broker.json(&["doctor", "--data-dir", &directory]);
    for finding in findings.as_array().expect("array") {
        assert_ne!(finding["verdict"], "problem", "{finding}");
    }
}

#[test]
fn log_files_are_shown_batch_by_batch() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t", "-p", "1"]);
    broker.run_with(&["produce", "t", "-k", ":", "-q"], b"k:v\n");
    let (_, directory) = broker.stop("-TERM");
    let partition = directory.path().join("t-0").display().to_string();
    let output = std::process::Command::new(crate::broker::FLEUVE)
        .args(["log", "dump", "--data", &partition])
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let batch = "baseOffset: 0 lastOffset: 0 count: 1 baseSequence: 0 lastSequence: 0";
    assert!(text.contains(batch) && text.contains("isvalid: true"), "{text}");
    assert!(text.contains("key: k payload: v"), "{text}");
}

#[test]
fn benchmarks_count_what_they_send() {
    let broker = Broker::start();
    let produced = broker.json(&["bench", "produce", "--records", "2000"]);
    assert_eq!(produced["records"], 2000);
    assert!(produced["latency_ms"]["p99"].as_f64().expect("number") > 0.0);
    let consumed = broker.json(&["bench", "consume", "--records", "2000"]);
    assert_eq!((&consumed["records"], &consumed["bytes"]), (&2000.into(), &200_000.into()));
    let latency = broker.json(&["bench", "latency", "--rate", "200", "--seconds", "1"]);
    assert_eq!(latency["read"], 200);
}

#[test]
fn completions_and_help_come_without_a_broker() {
    let broker = Broker::start();
    assert!(broker.run(&["completions", "bash"]).contains("_fleuve"));
    for command in ["serve", "topic", "produce", "consume", "group", "config", "doctor", "bench"] {
        let help = broker.run(&[command, "--help"]);
        assert!(help.contains("Usage: fleuve"), "{command}");
    }
}

#[test]
fn patterns_pick_topics_and_dry_runs_leave_them() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "test-a", "test-b", "other"]);
    assert_eq!(broker.json(&["topic", "list", "test-.*"]).as_array().map(Vec::len), Some(2));
    let described = broker.json(&["topic", "describe", "test-.*", "--at-min-isr"]);
    assert_eq!(described[1]["name"], "test-b");
    assert_eq!(broker.json(&["topic", "describe", "--under-replicated"]), serde_json::json!([]));
    let said = broker.run(&["topic", "delete", "--regex", "test-.*", "--dry-run"]);
    assert_eq!(
        said,
        "would delete topic test-a (1 partitions)\nwould delete topic test-b (1 partitions)\n"
    );
    broker.run(&["topic", "delete", "--regex", "test-.*"]);
    assert_eq!(broker.json(&["topic", "list"]).as_array().map(Vec::len), Some(1));
    let failure = broker.fail(&["topic", "delete", "--regex", "test-.*"]);
    assert!(failure.contains("there is no topic like test-.*"), "{failure}");
    let failure = broker.fail(&["topic", "describe", "a("]);
    assert!(failure.contains("no regular expression"), "{failure}");
}

#[test]
fn logs_are_decoded_and_indexes_verified() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "words"]);
    broker.run_with(&["produce", "words"], b"a\n");
    broker.run(&["consume", "words", "--group", "readers", "-q"]);
    let yaml = broker.run(&["consume", "words", "-q", "-o", "yaml"]);
    assert!(yaml.starts_with("- topic: words\n  partition: 0\n  offset: 0\n"), "{yaml}");
    let (_, directory) = broker.stop("-TERM");
    let run = |arguments: &[&str]| {
        let done = std::process::Command::new(crate::broker::FLEUVE).args(arguments).output();
        let done = done.expect("the binary runs");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    };
    let path = |name: &str| directory.path().join(name).display().to_string();
    let metadata = run(&["log", "dump", "--data", &path("__cluster_metadata-0")]);
    assert!(
        metadata.contains("{\"type\":\"TOPIC_RECORD\",\"version\":0,\"data\":{\"name\":\"words\"")
    );
    let groups = (0..50).map(|index| path(&format!("__consumer_offsets-{index}")));
    let groups: Vec<_> = groups.collect();
    let mut arguments = vec!["log", "dump", "--data"];
    arguments.extend(groups.iter().map(String::as_str));
    let decoded = run(&arguments);
    assert!(
        decoded.contains("\"group\":\"readers\",\"topic\":\"words\",\"partition\":0"),
        "{decoded}"
    );
    let verified = run(&["log", "verify-index", &path("words-0")]);
    assert!(verified.contains("passed the check"), "{verified}");
}

#[test]
fn partitions_move_between_directories_and_have_leaders_elected() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().display();
    let two = format!("log.dirs={path}/first,{path}/second");
    let broker = Broker::start_with("127.0.0.1:0", directory, &[&two]);
    broker.run(&["topic", "create", "t", "-p", "2"]);
    let held = || {
        let found = broker.json(&["cluster", "directories", "--topic", "t"]);
        let all: Vec<(String, usize)> = found
            .as_array()
            .expect("array")
            .iter()
            .map(|directory| {
                let path = directory["directory"].as_str().expect("path").to_owned();
                (path, directory["partitions"].as_array().expect("array").len())
            })
            .collect();
        all
    };
    let target = held().into_iter().map(|(path, _)| path).max().expect("two directories");
    let plan = broker.run(&["topic", "move", "t", "--to", &target, "--dry-run"]);
    assert!(plan.contains("would move from"), "{plan}");
    broker.run(&["topic", "move", "t", "--to", &target]);
    while broker.run(&["topic", "move", "t", "--to", &target]).contains("is moving") {}
    assert!(held().contains(&(target, 2)));
    let error = broker.fail(&["topic", "move", "t", "--to", "/nowhere"]);
    assert!(error.contains("has the directories"), "{error}");
    let text = broker.run(&["topic", "elect-leaders", "t:1"]);
    assert_eq!(text, "t-1 has the leader it is to have\n");
    let text = broker.run(&["topic", "elect-leaders", "--all", "--dry-run"]);
    assert_eq!(text, "a leader would be elected for every partition\n");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_done() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "kept", "-p", "2"]);
    let missing = "there is no broker 7: see `fleuve cluster describe`";
    for command in [
        &["config", "describe", "--broker", "7"][..],
        &["config", "alter", "--broker", "7", "--set", "log.cleaner.threads=2"],
        &["config", "describe", "--broker-loggers", "7"],
        &["cluster", "directories", "--broker", "7"],
    ] {
        assert!(broker.fail(command).contains(missing), "{command:?}");
    }
    assert!(broker.fail(&["acl", "remove"]).contains("or --all for every entry"));
    let grow = ["topic", "alter", "kept", "-p", "3", "-c", "retention.ms=1", "--dry-run"];
    let plan = broker.run(&grow);
    assert!(plan.contains("could change 1") && plan.contains("could have 3"), "{plan}");
    let kept = broker.json(&["topic", "describe", "kept"]);
    assert_eq!(kept[0]["partitions"].as_array().map(Vec::len), Some(2), "{kept}");
    broker.fail(&["topic", "alter", "kept", "-p", "1", "--dry-run"]);
    broker.fail(&["topic", "alter", "kept", "-c", "retention.ms=soon", "--dry-run"]);
}

#[test]
fn another_password_brings_no_other_mechanism() {
    let broker = Broker::start();
    let ann = |verb: &str, more: &[&str]| {
        let command = [&["user", verb, "ann", "--iterations", "4096"][..], more].concat();
        broker.run_with(&command, b"secret\n");
        let users = broker.json(&["user", "list"]);
        let credentials = users[0]["credentials"].as_array().expect("array").clone();
        credentials.iter().map(|it| it["mechanism"].as_str().expect("text").to_owned()).collect()
    };
    let only: Vec<String> = ann("create", &["--mechanism", "SCRAM-SHA-512"]);
    assert_eq!(only, ["SCRAM-SHA-512"]);
    let still: Vec<String> = ann("alter", &[]);
    assert_eq!(still, ["SCRAM-SHA-512"]);
    let both: Vec<String> = ann("alter", &["--mechanism", "SCRAM-SHA-256"]);
    assert_eq!(both.len(), 2);
    let both: Vec<String> = ann("alter", &[]);
    assert_eq!(both.len(), 2);
}

#[test]
fn levels_of_loggers_change_while_the_broker_runs() {
    let broker = Broker::start();
    let level = |logger: &str| {
        let entries = broker.json(&["config", "describe", "--broker-loggers", "1"]);
        let entries = entries.as_array().expect("an array").clone();
        let found = entries.into_iter().find(|entry| entry["name"] == logger);
        found.expect("it is listed")["value"].as_str().expect("a level").to_owned()
    };
    assert_eq!(level("kafka.request.logger"), level("root"));
    let alter = ["config", "alter", "--broker-loggers", "1"];
    let set = ["--set", "kafka.request.logger=DEBUG"];
    broker.run(&[&alter[..], &set, &["--dry-run"]].concat());
    assert_eq!(level("kafka.request.logger"), level("root"), "only checked");
    broker.run(&[&alter[..], &set].concat());
    assert_eq!(level("kafka.request.logger"), "DEBUG");
    let delete = ["--delete", "kafka.request.logger"];
    broker.run(&[&alter[..], &delete].concat());
    assert_eq!(level("kafka.request.logger"), level("root"));
    for (change, why) in [
        ("kafka.request.logger=LOUD", "not a supported log level"),
        ("kafka.server.ReplicaManager=DEBUG", "does not exist"),
    ] {
        let said = broker.fail(&[&alter[..], &["--set", change]].concat());
        assert!(said.contains(why), "{said}");
    }
    assert!(broker.fail(&[&alter[..], &["--delete", "root"]].concat()).contains("not allowed"));
}

//! What commands that change something tell programs, and verbs without a file of their own.

use serde_json::{Value, json};

use crate::broker::Broker;

const DIRECTORY: &str = "QPnX5vWKSruQpQzSg-Yhog";

/// The only entry of what a command tells.
fn only(mut told: Value) -> Value {
    let entries = told.as_array_mut().expect("a list");
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

#[test]
fn whatever_changes_something_tells_programs_what() {
    let broker = Broker::start();
    let told = |arguments: &[&str]| only(broker.json(arguments));
    let made = json!({ "action": "create", "topic": "t" });
    assert_eq!(told(&["topic", "create", "t", "-p", "2"]), made);
    broker.run_with(&["produce", "t"], b"0\n1\n2\n");
    broker.run(&["consume", "t", "--group", "g", "-q"]);
    for (arguments, expected) in [
        (
            &["topic", "create", "u", "--dry-run"][..],
            json!({ "action": "create", "topic": "u", "dry_run": true }),
        ),
        (
            &["topic", "alter", "t", "-p", "3"],
            json!({ "action": "alter", "topic": "t", "partitions": 3 }),
        ),
        (
            &["topic", "delete", "t", "--dry-run"],
            json!({ "action": "delete", "topic": "t", "partitions": 3, "dry_run": true }),
        ),
        (
            &["topic", "delete-records", "t", "--partition", "0", "--before", "-1", "--dry-run"],
            Value::Null,
        ),
        (
            &["topic", "elect-leaders", "t:0"],
            json!({
                "action": "elect leader", "topic": "t", "partition": 0, "elected": false,
            }),
        ),
        (
            &["config", "alter", "--topic", "t", "--set", "retention.ms=1000", "--dry-run"],
            json!({
                "action": "set", "kind": "topic", "name": "t", "key": "retention.ms",
                "value": "1000", "dry_run": true,
            }),
        ),
        (
            &["quota", "alter", "--user", "ann", "--set", "producer_byte_rate=1024"],
            json!({
                "action": "alter", "entity": { "user": "ann" },
                "quotas": { "producer_byte_rate": 1024.0 },
            }),
        ),
        (
            &["user", "create", "ann", "--mechanism", "SCRAM-SHA-256", "--password", "x"],
            json!({ "action": "create", "user": "ann", "mechanism": "SCRAM-SHA-256" }),
        ),
        (
            &["user", "delete", "ann", "--dry-run"],
            json!({
                "action": "delete", "user": "ann", "mechanism": "SCRAM-SHA-256",
                "dry_run": true,
            }),
        ),
        (
            &["cluster", "features", "upgrade", "group.version=1", "--dry-run"],
            json!({
                "action": "alter", "feature": "group.version", "level": 1, "dry_run": true,
            }),
        ),
        (
            &["cluster", "unregister", "7", "--dry-run"],
            json!({ "action": "unregister", "broker": 7, "dry_run": true }),
        ),
        (
            &[
                "cluster",
                "add-controller",
                "2",
                "--directory-id",
                DIRECTORY,
                "--endpoint",
                "CONTROLLER://[::1]:9093",
                "--dry-run",
            ],
            json!({
                "action": "add", "controller": 2, "directory": DIRECTORY,
                "endpoints": ["CONTROLLER://[::1]:9093"], "dry_run": true,
            }),
        ),
        (
            &["cluster", "remove-controller", "2", "--directory-id", DIRECTORY, "--dry-run"],
            json!({ "action": "remove", "controller": 2, "directory": DIRECTORY, "dry_run": true }),
        ),
        (&["group", "delete", "g"], json!({ "action": "delete", "group": "g" })),
    ] {
        let entry = told(arguments);
        match expected {
            Value::Null => assert_eq!(entry["action"], "delete records"),
            expected => assert_eq!(entry, expected, "{arguments:?}"),
        }
    }
    let yaml = broker.run(&["topic", "delete", "t", "-o", "yaml"]);
    assert_eq!(yaml, "- action: delete\n  topic: t\n");

    // What fails is told, too, and the exit code says so.
    let output = broker.output(&["topic", "delete", "t", "-o", "json"], b"");
    assert!(!output.status.success());
    let entry = only(serde_json::from_slice(&output.stdout).expect("JSON"));
    assert!(entry["error"].as_str().is_some_and(|why| why.contains("UNKNOWN_TOPIC")), "{entry}");
}

#[test]
fn a_quorum_that_cannot_change_says_so() {
    let broker = Broker::start();
    let voter = ["--directory-id", DIRECTORY];
    let add = ["cluster", "add-controller", "2", voter[0], voter[1], "--endpoint"];
    let error = broker.fail(&[&add[..], &["host:9093"]].concat());
    assert!(error.contains("host:9093: expected LISTENER://HOST:PORT"), "{error}");
    let error = broker.fail(&[&add[..], &["CONTROLLER://host:9093"]].concat());
    assert!(error.contains("stays the only voter"), "{error}");
    let remove = ["cluster", "remove-controller", "2", voter[0], voter[1]];
    let error = broker.fail(&remove);
    assert!(error.contains("Cannot remove voter"), "{error}");
}

#[test]
fn a_quota_that_does_not_exist_is_answered_with_those_that_do() {
    let broker = Broker::start();
    let error = broker.fail(&["quota", "alter", "--user", "ann", "--set", "producer_rate=1"]);
    assert!(error.contains("producer_rate") && error.contains("producer_byte_rate"), "{error}");
    let error = broker.fail(&["quota", "alter", "--ip", "10.0.0.1", "--delete", "speed"]);
    assert!(error.contains("connection_creation_rate"), "{error}");
}

#[test]
fn offsets_are_found_by_time() {
    let broker = Broker::start();
    broker.run_with(&["produce", "t"], b"0\n1\n");
    let newest = only(broker.json(&["topic", "offsets", "t", "--at", "max-timestamp"]));
    let time = newest["timestamp_ms"].as_i64().expect("a time");
    let first = broker.json(&["topic", "offsets", "t", "--at", "2001-01-01T00:00:00Z"]);
    assert_eq!(only(first)["offset"], 0);
    let later = broker.json(&["topic", "offsets", "t", "--at", &format!("@{}", time + 1)]);
    assert_eq!(only(later)["offset"], Value::Null);
    let error = broker.fail(&["topic", "offsets", "t", "--at", "soon"]);
    assert!(error.contains("max-timestamp"), "{error}");
}

#[test]
fn all_groups_are_described_at_once() {
    let broker = Broker::start();
    assert_eq!(broker.json(&["group", "describe", "--all"]), json!([]));
    broker.run_with(&["produce", "t"], b"0\n1\n");
    for group in ["second", "first"] {
        broker.run(&["consume", "t", "--group", group, "-q"]);
    }
    let all = broker.json(&["group", "describe", "--all"]);
    assert_eq!((&all[0]["group"], &all[1]["group"]), (&"first".into(), &"second".into()));
    assert_eq!(all[1], broker.json(&["group", "describe", "second"]));
    let text = broker.run(&["group", "describe", "--all"]);
    assert!(text.contains("first  Empty  lag 0\n") && text.contains("\n\nsecond  "), "{text}");
}

#[test]
fn what_has_configurations_is_listed() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t"]);
    broker.run(&["config", "alter", "--client-metrics", "all", "--set", "interval.ms=10000"]);
    let found = broker.json(&["config", "list", "--kind", "topic", "--kind", "client-metrics"]);
    let expected = json!([
        { "kind": "client-metrics", "name": "all" }, { "kind": "topic", "name": "t" },
    ]);
    assert_eq!(found, expected);
    let all = broker.json(&["config", "list"]);
    let brokers = all.as_array().expect("a list").iter().filter(|one| one["kind"] == "broker");
    assert_eq!(brokers.count(), 1);
}

#[test]
fn delegation_tokens_come_live_longer_and_go() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let properties = directory.path().join("admin.properties");
    let text = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n\
                sasl.jaas.config=x required username=\"admin\" password=\"admin\";\n";
    std::fs::write(&properties, text).expect("writable");
    let settings = [
        "listener.security.protocol.map=PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
        "listener.name.plaintext.plain.sasl.jaas.config=x required user_admin=\"admin\";",
        "delegation.token.secret.key=key",
    ];
    let broker = Broker::start_with("127.0.0.1:0", directory, &settings);
    let config = ["--command-config", properties.to_str().expect("text")];
    let token = |arguments: &[&str]| {
        broker.json(&[&["user", "token"][..], arguments, &config[..]].concat())
    };
    let made = only(token(&["create", "--renewer", "User:ann", "--lifetime", "2d"]));
    assert_eq!((&made["owner"], &made["renewers"][0]), (&"User:admin".into(), &"User:ann".into()));
    let secret = made["hmac"].as_str().expect("text");
    assert_eq!(only(token(&["list"]))["id"], made["id"]);
    assert_eq!(token(&["list", "--owner", "User:bob"]), json!([]));
    let renewed = only(token(&["renew", secret, "--period", "1d"]));
    assert!(renewed["expires_ms"].as_i64() > made["issued_ms"].as_i64());
    let ended = only(token(&["expire", secret, "--dry-run"]));
    assert_eq!((&ended["token"], &ended["dry_run"]), (&made["id"], &true.into()));
    assert_eq!(only(token(&["list"]))["id"], made["id"]);
    token(&["expire", secret]);
    assert_eq!(token(&["list"]), json!([]));
    let wrong = [&["user", "token", "renew", "no base64"][..], &config[..]].concat();
    assert!(broker.fail(&wrong).contains("not base64"));
}

//! Starting and stopping, and what is said when that does not work.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::broker::{Broker, FLEUVE};

#[test]
fn readiness_is_one_line_per_listener_and_then_the_time() {
    let broker = Broker::start();
    let (last, listeners) = broker.announced.split_last().expect("lines");
    assert!(last.starts_with("ready in ") && last.ends_with(" ms"), "{last}");
    let kafka: Vec<_> = listeners.iter().filter(|l| l.starts_with("listening kafka ")).collect();
    assert_eq!(kafka.len(), 1);
    assert!(listeners.iter().all(|line| line.starts_with("listening ")), "{listeners:?}");
}

/// The lines of the `server.properties` that Kafka 4.3 ships that are about addresses, with free ports.
const QUICKSTART: &str = "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:0,CONTROLLER://:0
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:0,CONTROLLER://localhost:0
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
";

#[test]
fn the_file_of_kafkas_quickstart_opens_a_broker_and_a_controller_for_this_machine() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("server.properties");
    std::fs::write(&path, QUICKSTART).expect("writable");
    let broker = Broker::start_by_file(&path);
    assert!(broker.address.starts_with("127.0.0.1:"), "{}", broker.address);
    let mut lines = broker.announced.iter();
    let controller = lines.find_map(|line| line.strip_prefix("listening controller "));
    let controller = controller.expect("it is announced");
    assert!(controller.starts_with("127.0.0.1:"), "{controller}");
    let told = controller.replace("127.0.0.1", "localhost");

    let tool = |name: &str, arguments: &[&str]| {
        let connect = ["--bootstrap-controller", controller];
        // Where it stands is different from tool to tool.
        let arguments = match name {
            "kafka-metadata-quorum" | "kafka-features" => [&connect[..], arguments].concat(),
            _ => [arguments, &connect].concat(),
        };
        broker.run(&[&["tool", name], &arguments[..]].concat())
    };
    let status = tool("kafka-metadata-quorum", &["describe", "--status"]);
    assert!(status.contains(&format!("\"endpoints\": [\"CONTROLLER://{told}\"]}}]")), "{status}");
    let endpoints = tool("kafka-cluster", &["list-endpoints"]);
    let port = told.rsplit_once(':').expect("a port").1;
    let row: Vec<&str> = endpoints.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["1", "localhost", port, "null", "controller"]);
    let features = tool("kafka-features", &["describe"]);
    assert!(features.contains("Feature: metadata.version"), "{features}");
    let entity = ["--entity-type", "brokers", "--entity-default"];
    let alter = [&["--alter", "--add-config", "log.retention.ms=4711"], &entity[..]].concat();
    tool("kafka-configs", &alter);
    let shown = tool("kafka-configs", &[&["--describe"], &entity[..]].concat());
    assert!(shown.contains("log.retention.ms=4711"), "{shown}");
    assert_eq!(
        tool("kafka-reassign-partitions", &["--list"]),
        "No partition reassignments found.\n"
    );
    // What only brokers know is asked of brokers, and says so.
    let wrong = broker.fail(&["topic", "list", "--bootstrap-server", controller]);
    assert!(wrong.contains("Metadata"), "{wrong}");
    // A broker's address does as well, for there need be no controller's.
    let status = broker.run(&[
        "tool",
        "kafka-cluster",
        "cluster-id",
        "--bootstrap-controller",
        &broker.address,
    ]);
    assert!(status.starts_with("Cluster ID: "), "{status}");
}

#[test]
fn signals_end_a_broker_cleanly_and_what_was_written_stays() {
    let mut broker = Broker::start();
    for signal in ["-TERM", "-INT"] {
        broker.run_with(&["produce", "kept"], b"one\n");
        let (code, directory) = broker.stop(signal);
        assert_eq!(code, Some(0), "{signal}");
        broker = Broker::start_in(directory);
    }
    assert_eq!(broker.run(&["consume", "kept", "-q"]), "one\none\n");
}

#[test]
fn an_acknowledged_record_survives_a_kill() {
    let broker = Broker::start();
    broker.run_with(&["produce", "kept"], b"before the kill\n");
    let (code, directory) = broker.stop("-KILL");
    assert_eq!(code, None);
    let broker = Broker::start_in(directory);
    assert_eq!(broker.run(&["consume", "kept", "-q"]), "before the kill\n");
}

#[test]
fn a_producer_outlives_killed_brokers_without_loss_or_duplicates() {
    const ROUNDS: usize = 4;
    const LINES: usize = 2000;
    let mut broker = Broker::start();
    broker.run(&["topic", "create", "t", "-p", "1"]);
    let address = broker.address.clone();
    let mut producer = Command::new(FLEUVE)
        .args(["produce", "t", "-q", "-X", "batch.size=1000"])
        .env("FLEUVE_BOOTSTRAP_SERVER", &address)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut input = producer.stdin.take().expect("piped");
    let mut expected = String::new();
    for round in 0..ROUNDS {
        let lines: String = (0..LINES).map(|line| format!("{round}-{line}\n")).collect();
        input.write_all(lines.as_bytes()).expect("it reads");
        expected.push_str(&lines);
        if round + 1 < ROUNDS {
            // Once this round has begun to arrive; what is in flight then, the producer has to
            // find out about.
            let began = (round * LINES) as i64;
            while broker.json(&["topic", "offsets", "t"])[0]["next_offset"].as_i64() <= Some(began)
            {
                assert!(producer.try_wait().expect("it runs").is_none(), "it gave up");
            }
            let (_, directory) = broker.stop("-KILL");
            broker = Broker::start_at(&address, directory);
        }
    }
    drop(input);
    assert!(producer.wait().expect("it ends").success());
    assert_eq!(broker.run(&["consume", "t", "-q"]), expected);
}

#[test]
fn a_start_that_cannot_work_says_why_in_one_line() {
    let broker = Broker::start();
    let data = broker.directory.path().display().to_string();
    let other = tempfile::tempdir().expect("a temporary directory");
    let elsewhere = other.path().display().to_string();
    let cases: [(&[&str], &str); 4] = [
        (
            &["--listen", &broker.address, "--data-dir", &elsewhere],
            "something listens there already: stop it, or pass --listen",
        ),
        (
            &["--listen", "127.0.0.1:0", "--data-dir", &data],
            "a broker runs on this data: stop it, or pass another --data-dir",
        ),
        (&["--data-dir", &elsewhere, "--set", "num.partition=3"], "did you mean `num.partitions`?"),
        (&["--listen", "9092"], "expected HOST:PORT"),
    ];
    for (arguments, expected) in cases {
        let output = Command::new(FLEUVE)
            .arg("serve")
            .args(arguments)
            .env("RUST_LOG", "off")
            .output()
            .expect("the binary runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn without_a_broker_commands_say_how_to_get_one() {
    // Nothing listens on port 1: it needs privileges, and no service has used it for decades.
    let output = Command::new(FLEUVE)
        .args(["topic", "list", "--bootstrap-server", "localhost:1"])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: no broker at localhost:1: start one with `fleuve serve`, or pass \
         --bootstrap-server\n"
    );
}

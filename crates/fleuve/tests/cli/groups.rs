//! Members of a group that come and go.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::{Broker, FLEUVE};
use crate::tools::script;

/// A member of group `g` that reads topic `t` until it is stopped.
struct Member(Child);

impl Member {
    fn start(broker: &Broker, strategy: &str) -> Self {
        let strategy = format!("partition.assignment.strategy={strategy}");
        Self::with(broker, &["-X", &strategy, "-X", "heartbeat.interval.ms=100"])
    }

    fn with(broker: &Broker, arguments: &[&str]) -> Self {
        let child = Command::new(FLEUVE)
            .args(["consume", "t", "--group", "g", "--follow", "-q"])
            .args(arguments)
            .env("FLEUVE_BOOTSTRAP_SERVER", &broker.address)
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary runs");
        Self(child)
    }

    fn stop(mut self) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(sent.success() && self.0.wait().expect("it ends").success());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Describes the members until their assignments have these sizes, in any order.
fn wait_for_sizes(broker: &Broker, mut wanted: Vec<usize>) -> Vec<Value> {
    wanted.sort_unstable();
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        let members = broker.json(&["group", "describe", "g", "--members"]);
        let members = members.as_array().expect("array").clone();
        let size = |member: &Value| member["assignment"].as_array().expect("array").len();
        let mut sizes: Vec<_> = members.iter().map(size).collect();
        sizes.sort_unstable();
        if sizes == wanted {
            return members;
        }
        assert!(Instant::now() < give_up_at, "{sizes:?} instead of {wanted:?}");
    }
}

#[test]
fn partitions_are_divided_again_when_members_come_and_go() {
    for strategy in ["range", "roundrobin"] {
        let broker = Broker::start();
        broker.run(&["topic", "create", "t", "-p", "5"]);
        let first = Member::start(&broker, strategy);
        wait_for_sizes(&broker, vec![5]);
        let second = Member::start(&broker, strategy);
        let members = wait_for_sizes(&broker, vec![2, 3]);
        let mut all: Vec<_> = members
            .iter()
            .flat_map(|member| member["assignment"].as_array().expect("array"))
            .map(|partition| partition.as_str().expect("text"))
            .collect();
        all.sort_unstable();
        assert_eq!(all, ["t-0", "t-1", "t-2", "t-3", "t-4"]);
        first.stop();
        wait_for_sizes(&broker, vec![5]);
        second.stop();
        wait_for_sizes(&broker, vec![]);
    }
}

#[test]
fn members_of_both_protocols_are_told_apart() {
    let settings = [
        "group.consumer.min.heartbeat.interval.ms=100",
        "group.consumer.heartbeat.interval.ms=100",
    ];
    let room = tempfile::tempdir().expect("room");
    let broker = Broker::start_with("127.0.0.1:0", room, &settings);
    broker.run(&["topic", "create", "t", "-p", "4"]);
    let classic = Member::start(&broker, "range");
    wait_for_sizes(&broker, vec![4]);
    let upgraded = Member::with(&broker, &["-X", "group.protocol=consumer"]);
    let members = wait_for_sizes(&broker, vec![2, 2]);
    let mut told: Vec<_> = members.iter().map(|member| member["upgraded"].as_bool()).collect();
    told.sort_unstable();
    assert_eq!(told, [Some(false), Some(true)]);
    let look = ["--describe", "--group", "g", "--members", "--verbose"];
    let table = script(&broker, "kafka-consumer-groups", &look, b"");
    let mut last: Vec<_> =
        table.lines().filter_map(|line| line.split_whitespace().last()).collect();
    last.sort_unstable();
    assert_eq!(last, ["UPGRADED", "false", "true"], "{table}");
    // Whoever is left is a member of a classic group again.
    upgraded.stop();
    wait_for_sizes(&broker, vec![4]);
    assert_eq!(broker.json(&["group", "list"])[0]["type"], "classic");
    classic.stop();
}

#[test]
fn a_member_that_leaves_has_committed_what_it_printed() {
    let broker = Broker::start();
    broker.run_with(&["produce", "t"], b"0\n1\n2\n");
    let member = Member::start(&broker, "range");
    let give_up_at = Instant::now() + Duration::from_secs(30);
    // It prints to nowhere; that it has read everything shows when it leaves.
    wait_for_sizes(&broker, vec![1]);
    member.stop();
    loop {
        let group = broker.json(&["group", "describe", "g"]);
        let lag = group["partitions"][0]["lag"].as_i64().unwrap_or(3);
        // What it had not read yet stays for the next member: nothing is lost, nothing read twice.
        let rest = broker.run(&["consume", "t", "--group", "g", "-q"]);
        assert_eq!(rest.lines().count() as i64, lag);
        if lag == 0 || Instant::now() > give_up_at {
            break;
        }
    }
    assert_eq!(broker.json(&["group", "describe", "g"])["partitions"][0]["lag"], 0);
}

#[test]
fn the_history_of_a_group_is_told_without_a_second_address() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let door = format!("fleuve.metrics.listen={free}");
    let broker = Broker::start_with("127.0.0.1:0", tempfile::tempdir().expect("room"), &[&door]);
    broker.run_with(&["produce", "t"], b"0\n");
    broker.run(&["consume", "t", "--group", "g", "-n", "1", "-q"]);
    let history = broker.json(&["group", "describe", "g", "--history"]);
    assert_eq!(history[0]["cause"], "a new member joined");
    assert_eq!(history[0]["ended_epoch"], 0);
    assert!(history[0]["at_ms"].as_i64().is_some_and(|at_ms| at_ms > 1_700_000_000_000));
    let table = broker.run(&["group", "describe", "g", "--history"]);
    assert!(table.contains("a new member joined"), "{table}");
    let error = broker.fail(&["group", "describe", "nobody", "--history"]);
    assert!(error.contains("nobody") && error.contains("does not exist"), "{error}");

    // A door whose port the system chose is told, too.
    let any = ["fleuve.metrics.listen=127.0.0.1:0"];
    let other = Broker::start_with("127.0.0.1:0", tempfile::tempdir().expect("room"), &any);
    let http = other.announced.iter().find_map(|line| line.strip_prefix("listening http "));
    let http = http.expect("the door was announced");
    other.run_with(&["produce", "t"], b"0\n");
    other.run(&["consume", "t", "--group", "g", "-n", "1", "-q"]);
    let history = other.json(&["group", "describe", "g", "--history", "--http", http]);
    assert_eq!(history[0]["cause"], "a new member joined");
    assert_eq!(other.json(&["group", "describe", "g", "--history"]), history);
    let door = other.json(&["config", "describe", "--broker", "1"]);
    let mut rows = door.as_array().expect("a list").iter();
    let door = rows.find(|row| row["name"] == "fleuve.metrics.listen").expect("it was set");
    assert_eq!(door["value"], http);
    // The door of somebody else's cluster.
    let error = broker.fail(&["group", "describe", "g", "--history", "--http", http]);
    assert!(error.contains("another cluster"), "{error}");
    let nowhere = other.address.clone();
    let error = other.fail(&["group", "describe", "g", "--history", "--http", &nowhere]);
    assert!(error.contains(&nowhere), "{error}");
}

#[test]
fn plans_for_resets_go_to_files_and_back() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "words"]);
    broker.run_with(&["produce", "words"], b"a\nb\nc\nd\n");
    // What was fetched and not printed does not count as read.
    let read = broker.run(&["consume", "words", "--group", "readers", "-n", "3", "-q"]);
    assert_eq!(read, "a\nb\nc\n");
    let committed = |offset: i64| {
        let described = broker.json(&["group", "describe", "readers"]);
        assert_eq!(described["partitions"][0]["committed_offset"], offset);
    };
    committed(3);
    fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["group", "reset-offsets", "readers"][..], more].concat()
    }
    let exported = broker.run(&with(&["--all-topics", "--to", "current", "--export"]));
    assert_eq!(exported, "words,0,3\n");
    let file = broker.directory.path().join("plan.csv");
    std::fs::write(&file, "words,0,1\n").expect("room");
    let file = file.display().to_string();
    broker.run(&with(&["--from-file", &file]));
    committed(3);
    broker.run(&with(&["--from-file", &file, "--execute"]));
    committed(1);
    broker.run(&with(&["--topic", "words", "--by-duration", "1h", "--execute"]));
    committed(0);
    let failure = broker.fail(&with(&["--topic", "words", "--by-duration", "soon"]));
    assert!(failure.contains("expected 2h"), "{failure}");
    let failure = broker.fail(&with(&["--to", "end"]));
    assert!(failure.contains("--topic NAME or --all-topics"), "{failure}");
    assert_eq!(broker.json(&["group", "list", "--state", "empty"])[0]["group"], "readers");
    assert_eq!(broker.json(&["group", "list", "--type", "share"]), serde_json::json!([]));
    let said = broker.run(&["group", "delete", "readers", "--dry-run"]);
    assert_eq!(said, "would delete group readers\n");
    committed(0);
}

//! Writing and reading records.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::broker::{Broker, FLEUVE};

#[test]
fn lines_come_back_as_they_went_whatever_the_codec() {
    let broker = Broker::start();
    let text: String = (0..2000).map(|number| format!("line {number}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        broker.run_with(&["produce", codec, "--compression", codec, "-q"], text.as_bytes());
        assert_eq!(broker.run(&["consume", codec, "-q"]), text, "{codec}");
    }
}

#[test]
fn keys_headers_and_tombstones_are_told_in_json() {
    let broker = Broker::start();
    broker.run_with(
        &["produce", "t", "-k", ":", "-H", "lang=fr", "--null-value", "NULL"],
        b"a:un\nb:NULL\n",
    );
    let text = broker.run(&["consume", "t", "-o", "json", "-q"]);
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["key"], "a");
    assert_eq!(records[0]["value"], "un");
    assert_eq!(records[0]["headers"][0]["key"], "lang");
    assert_eq!(records[0]["headers"][0]["value"], "fr");
    assert_eq!(records[1]["value"], Value::Null);
    assert_eq!(records[1]["offset"], 1);
    assert_eq!(broker.run(&["consume", "t", "-k", "=", "-q"]), "a=un\nb=null\n");
}

#[test]
fn reading_begins_where_it_is_told_and_stops_when_it_is_told() {
    let broker = Broker::start();
    broker.run_with(&["produce", "t"], b"0\n1\n2\n3\n");
    assert_eq!(broker.run(&["consume", "t", "-q", "--from", "2"]), "2\n3\n");
    assert_eq!(broker.run(&["consume", "t", "-q", "-n", "2"]), "0\n1\n");
    assert_eq!(broker.run(&["consume", "t", "-q", "--from", "end"]), "");
    assert_eq!(broker.run(&["consume", "t", "-q", "--from", "2000-01-01"]), "0\n1\n2\n3\n");
    assert_eq!(broker.run(&["consume", "t", "-q", "--from", "2999-01-01T00:00:00Z"]), "");
    let error = broker.fail(&["consume", "t", "--from", "someday"]);
    assert!(error.contains("--from someday: expected beginning, end"), "{error}");
    let error = broker.fail(&["consume", "nothing"]);
    assert!(error.contains("topic nothing") && error.contains("fleuve topic list"), "{error}");
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let broker = Broker::start();
    broker.run_with(&["produce", "t"], b"0\n1\n");
    assert_eq!(broker.run(&["consume", "t", "-q", "--group", "g"]), "0\n1\n");
    broker.run_with(&["produce", "t"], b"2\n");
    assert_eq!(broker.run(&["consume", "t", "-q", "--group", "g"]), "2\n");
    let described = broker.json(&["group", "describe", "g"]);
    assert_eq!(described["partitions"][0]["lag"], 0);
    assert_eq!(described["state"], "Empty");
}

#[test]
fn following_shows_records_as_they_come() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t", "-p", "1"]);
    let mut reader = Command::new(FLEUVE)
        .args(["consume", "t", "--follow", "--max-messages", "2", "-q"])
        .env("FLEUVE_BOOTSTRAP_SERVER", &broker.address)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(reader.stdout.take().expect("piped")).lines();
    for text in ["one", "two"] {
        broker.run_with(&["produce", "t", "-q"], text.as_bytes());
        assert_eq!(lines.next().expect("a line").expect("text"), text);
    }
    assert!(reader.wait().expect("it ends").success());
}

#[test]
fn a_reader_that_goes_away_ends_consume_quietly() {
    let broker = Broker::start();
    let text = "x".repeat(100) + "\n";
    broker.run_with(&["produce", "t", "-q"], text.repeat(20_000).as_bytes());
    let mut consume = Command::new(FLEUVE)
        .args(["consume", "t"])
        .env("FLEUVE_BOOTSTRAP_SERVER", &broker.address)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdout = consume.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 101]).expect("a line");
    drop(stdout);
    let output = consume.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_record_that_cannot_be_written_is_reported_with_its_reason() {
    let broker = Broker::start();
    broker.run(&["topic", "create", "t", "-c", "max.message.bytes=200"]);
    let output = broker.output(&["produce", "t"], &[&[b'x'; 1000][..], b"\n"].concat());
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("MESSAGE_TOO_LARGE"), "{stderr}");
    let error = broker.fail(&["produce", "t", "--compression", "zip"]);
    assert!(error.contains("none, gzip, snappy, lz4 or zstd"), "{error}");
}

#[test]
fn files_of_lines_flow_through_the_demo() {
    let broker = Broker::start();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    for number in 0..500 {
        writeln!(file, "line {number}").expect("room");
    }
    let path = file.path().display().to_string();
    for _ in 0..2 {
        let text = broker.run(&["demo", "lines", &path]);
        let last = text.lines().last().expect("a summary");
        assert!(last.starts_with("demo lines: produced 500 lines"), "{last}");
        assert!(last.contains("consumed 500 in"), "{last}");
    }
}

#[test]
fn the_demo_brings_its_own_broker_unless_one_is_named() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "one line").expect("room");
    let output = Command::new(FLEUVE)
        .args(["demo", "lines"])
        .arg(file.path())
        .env_remove("FLEUVE_BOOTSTRAP_SERVER")
        .output()
        .expect("the binary runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("started a broker for this demo at 127.0.0.1:"), "{stderr}");
    assert!(stdout.contains("produced 1 lines") && stdout.contains("consumed 1 in"), "{stdout}");

    let output = Command::new(FLEUVE)
        .args(["demo", "lines", "--bootstrap-server", "localhost:1"])
        .arg(file.path())
        .output()
        .expect("the binary runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("no broker at localhost:1"), "{stderr}");
}

#[test]
fn demos_are_listed_and_describe_themselves() {
    let run = |arguments: &[&str]| {
        let output = Command::new(FLEUVE).args(arguments).output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let listed = run(&["demo"]);
    for name in ["word-count", "lines"] {
        assert!(listed.contains(name), "{listed}");
    }
    let described = run(&["demo", "word-count", "--describe"]);
    assert!(described.contains("Sub-topology: 1"), "{described}");
    assert!(described.contains("word-counts-repartition"), "{described}");
    let drawn = run(&["demo", "page-views", "--describe=dot"]);
    assert!(drawn.starts_with("digraph topology {") && drawn.contains("demo-users"), "{drawn}");
    let told: Value =
        serde_json::from_str(&run(&["demo", "music", "--describe=json"])).expect("JSON");
    assert_eq!(told["application"], "music-with-kafka");
}

//! Starting and stopping, and what is said when that does not work.

use std::process::Command;

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

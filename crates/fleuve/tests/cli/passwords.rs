//! Passwords typed at a terminal: asked for twice, never shown, and the one that was typed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::broker::{Broker, FLEUVE};

/// No prompt takes this long, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command whose stdin is a terminal.
struct AtTerminal {
    child: Child,
    stderr: ChildStderr,
    /// What it has said so far.
    said: String,
    terminal: File,
}

impl AtTerminal {
    fn run(broker: &Broker, arguments: &[&str]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).expect("ours");
        unlockpt(&terminal).expect("ours");
        let name = ptsname(&terminal, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let inner: OwnedFd = open(name.as_c_str(), flags, Mode::empty()).expect("there");
        let mut child = Command::new(FLEUVE)
            .args(arguments)
            .env("FLEUVE_BOOTSTRAP_SERVER", &broker.address)
            .stdin(Stdio::from(inner))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stderr = child.stderr.take().expect("piped");
        Self { child, stderr, said: String::new(), terminal: File::from(terminal) }
    }

    /// Types a line once it is asked for and the terminal does not show it.
    fn answer(&mut self, question: &str, text: &str) {
        while !self.said.ends_with(question) {
            let mut bytes = [0; 256];
            let count = self.stderr.read(&mut bytes).expect("open");
            assert!(count > 0, "it ended without asking `{question}`: {}", self.said);
            self.said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        let begun = Instant::now();
        while tcgetattr(&self.terminal).expect("open").local_modes.contains(LocalModes::ECHO) {
            assert!(begun.elapsed() < PATIENCE, "what is typed would be shown");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.terminal.write_all(format!("{text}\n").as_bytes()).expect("open");
    }

    /// Waits for its end; tells whether it succeeded, and all that could be read.
    fn end(mut self) -> (bool, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("text");
        self.said.push_str(&rest);
        let success = self.child.wait().expect("it ends").success();
        // Nobody holds the other end any more, so that this ends where the terminal's output does.
        let mut shown = Vec::new();
        // That end is an error on Linux.
        let _ = self.terminal.read_to_end(&mut shown);
        (success, format!("{}{}", self.said, String::from_utf8_lossy(&shown)))
    }
}

/// A broker that asks for passwords, with an administrator.
fn start() -> (Broker, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let admin = properties(directory.path(), "admin", "PLAIN", "admin");
    let settings = [
        "listener.security.protocol.map=PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.plaintext.plain.sasl.jaas.config=x required user_admin=\"admin\";",
        "connection.failed.authentication.delay.ms=1",
    ];
    (Broker::start_with("127.0.0.1:0", directory, &settings), admin)
}

fn properties(directory: &Path, user: &str, mechanism: &str, password: &str) -> PathBuf {
    let path = directory.join(format!("{user}-{password}.properties"));
    let text = format!(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism={mechanism}\n\
         sasl.jaas.config=x required username=\"{user}\" password=\"{password}\";\n"
    );
    std::fs::write(&path, text).expect("writable");
    path
}

fn may_log_in(broker: &Broker, password: &str) -> bool {
    let path = properties(broker.directory.path(), "ann", "SCRAM-SHA-256", password);
    let path = path.to_str().expect("text");
    broker.output(&["topic", "list", "--command-config", path], b"").status.success()
}

#[test]
fn a_password_is_asked_for_twice_and_never_shown() {
    let (broker, admin) = start();
    let admin = admin.to_str().expect("text");
    let arguments = |verb| ["user", verb, "ann", "--iterations", "4096", "--command-config", admin];

    let mut creating = AtTerminal::run(&broker, &arguments("create"));
    creating.answer("New password of ann: ", "open sesame");
    creating.answer("Once more: ", "open sesame");
    let (success, seen) = creating.end();
    assert!(success && !seen.contains("sesame"), "{seen}");
    assert!(may_log_in(&broker, "open sesame") && !may_log_in(&broker, "closed sesame"));

    // Typed differently, nothing is changed.
    let mut altering = AtTerminal::run(&broker, &arguments("alter"));
    altering.answer("New password of ann: ", "closed sesame");
    altering.answer("Once more: ", "closed sesam");
    let (success, seen) = altering.end();
    assert!(!success && seen.contains("the two passwords differ: nothing is changed"), "{seen}");
    assert!(!seen.contains("sesam"), "{seen}");
    assert!(may_log_in(&broker, "open sesame") && !may_log_in(&broker, "closed sesame"));
}

#[test]
fn an_empty_line_is_no_password() {
    let (broker, admin) = start();
    let arguments = ["user", "create", "ann", "--command-config", admin.to_str().expect("text")];
    let mut creating = AtTerminal::run(&broker, &arguments);
    creating.answer("New password of ann: ", "");
    creating.answer("Once more: ", "");
    let (success, seen) = creating.end();
    assert!(!success && seen.contains("the password is empty"), "{seen}");
}

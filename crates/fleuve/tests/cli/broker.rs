//! A broker for a test, and commands run against it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The binary under test.
pub(crate) const FLEUVE: &str = env!("CARGO_BIN_EXE_fleuve");

/// A broker on a free port with data of its own.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: String,
    /// Every line it printed until it was ready.
    pub(crate) announced: Vec<String>,
    pub(crate) directory: tempfile::TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn start_in(directory: tempfile::TempDir) -> Self {
        Self::start_at("127.0.0.1:0", directory)
    }

    /// Starts a broker where another one was.
    pub(crate) fn start_at(address: &str, directory: tempfile::TempDir) -> Self {
        Self::start_with(address, directory, &[])
    }

    /// Starts a broker with further settings, as `key=value`.
    pub(crate) fn start_with(
        address: &str,
        directory: tempfile::TempDir,
        settings: &[&str],
    ) -> Self {
        let mut command = Command::new(FLEUVE);
        command.args(["serve", "--listen", address]);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        Self::serve(command, directory)
    }

    /// Starts a broker with what stands in a `server.properties`.
    pub(crate) fn start_by_file(path: &Path) -> Self {
        let mut command = Command::new(FLEUVE);
        command.args(["serve", "--config"]).arg(path);
        Self::serve(command, tempfile::tempdir().expect("a temporary directory"))
    }

    fn serve(mut command: Command, directory: tempfile::TempDir) -> Self {
        let mut child = command
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--set", "group.initial.rebalance.delay.ms=0"])
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stdout = child.stdout.take().expect("piped");
        let mut announced = Vec::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("text");
            let ready = line.starts_with("ready in ");
            announced.push(line);
            if ready {
                break;
            }
        }
        let address = announced
            .iter()
            .find_map(|line| line.strip_prefix("listening kafka "))
            .expect("a listener was announced")
            .to_owned();
        Self { child, address, announced, directory }
    }

    /// Runs a command that must succeed, and returns its stdout.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.run_with(arguments, b"")
    }

    /// Runs a command with this on stdin; it must succeed. Returns its stdout.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> String {
        let output = self.output(arguments, stdin);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed: {stderr}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must fail, and returns its stderr.
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments, b"");
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).expect("text")
    }

    /// Runs a command with `-o json` and reads what it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["-o", "json"]].concat();
        serde_json::from_str(&self.run(&arguments)).expect("JSON")
    }

    pub(crate) fn output(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        let mut child = Command::new(FLEUVE)
            .args(arguments)
            .env("FLEUVE_BOOTSTRAP_SERVER", &self.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut input = child.stdin.take().expect("piped");
        let stdin = stdin.to_vec();
        // A command that does not read its stdin closes it.
        let writing = std::thread::spawn(move || input.write_all(&stdin).ok());
        let output = child.wait_with_output().expect("it ends");
        writing.join().expect("no panic");
        output
    }

    /// Ends the broker by `signal` and returns its exit code, `None` if the signal killed it.
    pub(crate) fn stop(mut self, signal: &str) -> (Option<i32>, tempfile::TempDir) {
        self.signal(signal);
        let code = self.child.wait().expect("it ends").code();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().expect("room"));
        (code, directory)
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().expect("kill runs");
        assert!(sent.success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

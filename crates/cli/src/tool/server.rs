//! `kafka-server-start.sh` and `kafka-server-stop.sh`.

use std::path::{Path, PathBuf};

use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};

use crate::commands::serve::{Serve, run};
use crate::failure::Failure;
use crate::output::note;

/// Start a broker with a file of properties.
#[derive(Debug, Parser)]
pub(super) struct ServerStart {
    /// The file of properties.
    config: PathBuf,
    /// A property over the file.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub(super) async fn start(options: ServerStart) -> Result<(), Failure> {
    let serve = Serve { config: Some(options.config), set: options.overrides, ..Serve::default() };
    run(serve).await
}

/// Ask brokers of this program on this machine to stop: all, or those meant.
#[derive(Debug, Parser)]
pub(super) struct ServerStop {
    /// The broker with this node.id only; --process-role does not count then.
    #[arg(long)]
    node_id: Option<i32>,
    /// Brokers with these process.roles only.
    #[arg(long)]
    process_role: Option<String>,
}

pub(super) fn stop(options: &ServerStop) -> Result<(), Failure> {
    let ours = std::env::current_exe()?;
    let mut stopped = 0;
    for entry in std::fs::read_dir("/proc")? {
        let directory = entry?.path();
        let pid = directory.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        // A process that ends meanwhile, or that belongs to somebody else, cannot be looked into.
        let Ok(program) = std::fs::read_link(directory.join("exe")) else { continue };
        let Ok(command) = std::fs::read(directory.join("cmdline")) else { continue };
        let arguments: Vec<_> =
            command.split(|&byte| byte == 0).map(String::from_utf8_lossy).skip(1).collect();
        let serves = arguments
            .iter()
            .any(|argument| argument == "serve" || argument == "kafka-server-start");
        if program != ours || !serves {
            continue;
        }
        let Ok(here) = std::fs::read_link(directory.join("cwd")) else { continue };
        if options.means(&arguments, &here)? {
            kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
            stopped += 1;
        }
    }
    if stopped == 0 {
        return Err(Failure::new("no broker to stop"));
    }
    note(format!("asked {stopped} brokers to stop"));
    Ok(())
}

impl ServerStop {
    /// Whether a broker is meant that was started with these arguments, in this directory.
    fn means<A: AsRef<str>>(&self, arguments: &[A], here: &Path) -> Result<bool, Failure> {
        let is = |key, wanted: &str, by_default| {
            let set = setting(arguments, here, key)?;
            Ok(set.as_deref().unwrap_or(by_default) == wanted)
        };
        match (self.node_id, &self.process_role) {
            (Some(id), _) => is("node.id", &id.to_string(), "1"),
            (None, Some(role)) => is("process.roles", role, "broker,controller"),
            (None, None) => Ok(true),
        }
    }
}

/// What a broker's command line says of a key, or the file of properties that it names.
fn setting<A: AsRef<str>>(
    arguments: &[A],
    here: &Path,
    key: &str,
) -> Result<Option<String>, Failure> {
    // Of `kafka-server-start` the file has no option before it, and may be called anything.
    let begun = arguments.iter().position(|argument| argument.as_ref() == "kafka-server-start");
    let mut file = None;
    let mut set = None;
    let mut rest = arguments[begun.map_or(0, |at| at + 1)..].iter().map(AsRef::as_ref);
    while let Some(argument) = rest.next() {
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (argument, None),
        };
        match name {
            "--set" | "--override" => {
                let pair = attached.or_else(|| rest.next()).and_then(|it| it.split_once('='));
                set = pair.filter(|(name, _)| *name == key).map(|(_, value)| value).or(set);
            }
            "--config" => file = attached.or_else(|| rest.next()),
            _ if begun.is_some() && !argument.is_empty() && !argument.starts_with('-') => {
                file = Some(argument);
            }
            _ => {}
        }
    }
    match (set, file) {
        (Some(value), _) => Ok(Some(value.to_owned())),
        (None, Some(file)) => Ok(super::files::properties(&here.join(file))?.remove(key)),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_means_whom_it_names() {
        let here = std::env::temp_dir();
        let name = format!("fleuve-stop-{}", std::process::id());
        let file = here.join(&name);
        std::fs::write(&file, "node.id=7\nprocess.roles=broker\n").expect("a file");
        let means = |options: &[&str], broker: &[&str]| {
            let options = ServerStop::parse_from(std::iter::once(&"stop").chain(options));
            options.means(broker, &here).expect("readable settings")
        };
        let apache = ["tool", "kafka-server-start", &name];
        let own = ["serve", &*format!("--config={name}"), "--set", "node.id=8"];
        let bare = ["serve", "--listen", "127.0.0.1:0"];
        for broker in [&apache[..], &own, &bare] {
            assert!(means(&[], broker));
        }
        let by_id = |id| [&apache[..], &own, &bare].map(|broker| means(&["--node-id", id], broker));
        assert_eq!(by_id("7"), [true, false, false]);
        assert_eq!(by_id("8"), [false, true, false]);
        assert_eq!(by_id("1"), [false, false, true]);
        let by_role = |role| {
            let option = format!("--process-role={role}");
            [&apache[..], &own, &bare].map(|broker| means(&[&option], broker))
        };
        assert_eq!(by_role("broker"), [true, true, false]);
        assert_eq!(by_role("controller"), [false; 3]);
        assert!(means(&["--node-id=7", "--process-role=controller"], &apache));
        std::fs::remove_file(file).expect("a file");
    }
}

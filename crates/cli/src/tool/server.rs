//! `kafka-server-start.sh` and `kafka-server-stop.sh`.

use std::path::PathBuf;

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

/// Asks every broker of this program on this machine to stop.
pub(super) fn stop() -> Result<(), Failure> {
    let ours = std::env::current_exe()?;
    let mut stopped = 0;
    for entry in std::fs::read_dir("/proc")? {
        let directory = entry?.path();
        let pid = directory.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        // A process that ends meanwhile, or that belongs to somebody else, cannot be looked into.
        let Ok(program) = std::fs::read_link(directory.join("exe")) else { continue };
        let Ok(command) = std::fs::read(directory.join("cmdline")) else { continue };
        let serves = command
            .split(|&byte| byte == 0)
            .skip(1)
            .any(|argument| argument == b"serve" || argument == b"kafka-server-start");
        if program == ours && serves {
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

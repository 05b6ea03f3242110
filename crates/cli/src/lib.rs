//! The command line: `fleuve serve`, `fleuve topic`, `fleuve produce` and the rest.
//!
//! - [`args`] says what can be typed; each command's options stand beside the command.
//! - [`commands`] holds one file per command.
//! - [`tool`] understands the options of Apache Kafka's `kafka-*.sh` scripts.
//! - [`context`] makes clients from the common options, [`output`] prints tables, JSON and YAML,
//!   [`failure`] turns errors into one line that says what to do.
//!
//! Results go to stdout, everything else to stderr. A reader that goes away (`| head`) ends a
//! command quietly.

mod args;
mod commands;
mod context;
mod decode;
mod failure;
mod histogram;
mod levels;
mod outcome;
mod output;
mod password;
mod patterns;
mod printing;
mod quantities;
mod reset;
mod tool;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;

/// Runs the command that the process arguments name.
pub fn main() -> ExitCode {
    // Before our own options are looked for: everything behind `tool` belongs to the tool.
    let done = match tool::Tool::of_arguments(std::env::args().skip(1)) {
        Some(tool) => block_on(tool::run(tool)),
        None => run(Cli::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    if let Command::Completions(completions) = &cli.command {
        return commands::completions::run(completions);
    }
    let common = cli.common;
    block_on(async move {
        match cli.command {
            Command::Serve(serve) => commands::serve::run(serve).await,
            Command::Topic { command } => commands::topic::run(command, &common).await,
            Command::Produce(produce) => commands::produce::run(produce, &common).await,
            Command::Consume(consume) => commands::consume::run(consume, &common).await,
            Command::Group { command } => commands::group::run(command, &common).await,
            Command::Config { command } => commands::config::run(command, &common).await,
            Command::Cluster { command } => commands::cluster::run(command, &common).await,
            Command::Quota { command } => commands::quota::run(command, &common).await,
            Command::User { command } => commands::user::run(command, &common).await,
            Command::Acl { command } => commands::acl::run(command, &common).await,
            Command::Transaction { command } => commands::transaction::run(command, &common).await,
            Command::Log { command } => commands::log::run(command, &common).await,
            Command::Doctor(doctor) => commands::doctor::run(doctor, &common).await,
            Command::Bench { command } => commands::bench::run(command, &common).await,
            Command::Demo { command } => commands::demo::run(command, &common).await,
            Command::Completions(completions) => commands::completions::run(&completions),
        }
    })
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let done = runtime.block_on(command);
    // A thread that still reads from stdin would keep the process from ending.
    runtime.shutdown_background();
    done
}

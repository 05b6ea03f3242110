//! The project's own chores, run as `cargo xtask NAME`.

#![expect(clippy::print_stderr, reason = "a command line tool reports on standard error")]

mod codegen;
mod reference;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Writes the message types of `crates/protocol` from their schemas
    Codegen {
        /// Writes nothing, and fails when the files there are stale
        #[arg(long)]
        check: bool,
    },
    /// Writes `docs/configuration.md` from the table of configuration keys
    Reference {
        /// Writes nothing, and fails when the page there is stale
        #[arg(long)]
        check: bool,
    },
    /// Holds the crates against `layers.toml`, and checks docs, links and generated files
    Tidy,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project");
    match chore {
        Chore::Codegen { check } => codegen::run(check),
        Chore::Reference { check } => reference::run(root, check),
        Chore::Tidy => {
            tidy::run(root)?;
            codegen::run(true)?;
            reference::run(root, true)
        }
    }
}

//! The project's own chores, run as `cargo xtask NAME`.

mod codegen;

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
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Codegen { check } => codegen::run(check),
    }
}

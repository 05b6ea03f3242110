//! The `fleuve` binary: wiring only, everything else lives in `fleuve-cli`.

use std::process::ExitCode;

/// Both broker and clients allocate in one thread and free in another, which the system's
/// allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fleuve_cli::main()
}

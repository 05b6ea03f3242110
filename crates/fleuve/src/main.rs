//! The `fleuve` binary: wiring only, everything else lives in `fleuve-cli`.

use std::process::ExitCode;

/// Both broker and clients allocate in one thread and free in another, which the system's
/// allocator does slowly; jemalloc keeps little of what was freed.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    fleuve_cli::main()
}

//! Prints the reference page of configuration keys; `cargo xtask reference` keeps it in `docs`.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(fleuve_metadata::config::reference_markdown().as_bytes())
}

//! The `fleuve` binary: wiring only, everything else lives in `fleuve-cli`.

fn main() {}

//! `cargo xtask reference`: the page of configuration keys, as the code knows them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

const PAGE: &str = "docs/configuration.md";

/// Prints the reference page by the crate that owns the table, and writes or compares it.
///
/// The crate's own example prints it, so that this chore does not depend on the crate and stays
/// quick to build.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "fleuve-metadata", "--example", "reference"])
        .current_dir(root)
        .output()
        .context("running the reference example of fleuve-metadata")?;
    if !output.status.success() {
        bail!("the reference page was not printed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let path = root.join(PAGE);
    if !check {
        return fs::write(&path, &output.stdout).with_context(|| format!("writing {PAGE}"));
    }
    if fs::read(&path).unwrap_or_default() != output.stdout {
        bail!("{PAGE} is stale: run `cargo xtask reference`");
    }
    Ok(())
}

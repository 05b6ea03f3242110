//! `cargo xtask tidy`: holds the house against its map.
//!
//! Checks, each of which names the file and the remedy when it fails:
//! - the crates' real dependencies are exactly those of `layers.toml`, and point downwards;
//! - test-only crates are dev-dependencies only;
//! - every source file opens with module documentation;
//! - no test is ignored;
//! - relative links in Markdown files lead somewhere;
//! - the lock file knows only the public registry and none of the crates we keep out.
//!
//! Generated files have their own commands (`codegen --check`, `reference --check`), which `tidy`
//! calls last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Crates that must stay out of the tree: a second TLS provider or a C library that needs cmake.
const BANNED_CRATES: [&str; 4] = ["aws-lc-sys", "openssl-sys", "native-tls", "rdkafka-sys"];

const PUBLIC_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Layers {
    floors: Vec<String>,
    crates: BTreeMap<String, Room>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Room {
    floor: String,
    uses: BTreeSet<String>,
    #[serde(default)]
    sideways: BTreeMap<String, String>,
    #[serde(default)]
    test_only: bool,
}

/// Runs every check below `root` and fails with the list of everything that is wrong.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    check_layers(root, &mut faults)?;
    let files = tracked_files(root)?;
    check_sources(root, &files, &mut faults)?;
    check_links(root, &files, &mut faults)?;
    check_lock(root, &mut faults)?;
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} fault(s):\n  {}", faults.len(), faults.join("\n  "));
}

fn check_layers(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join("layers.toml")).context("reading layers.toml")?;
    let layers: Layers = toml::from_str(&text).context("parsing layers.toml")?;
    let height = |room: &Room| layers.floors.iter().position(|floor| *floor == room.floor);
    let real = real_edges(root)?;
    for name in real.keys().filter(|name| !layers.crates.contains_key(*name)) {
        faults.push(format!("layers.toml: crate `{name}` is not on the map; give it a floor"));
    }
    for (name, room) in &layers.crates {
        let Some(own) = height(room) else {
            faults.push(format!(
                "layers.toml: crate `{name}` stands on unknown floor `{}`",
                room.floor
            ));
            continue;
        };
        let Some(edges) = real.get(name) else {
            faults.push(format!("layers.toml: crate `{name}` does not exist; remove it"));
            continue;
        };
        let allowed: BTreeSet<String> =
            room.uses.iter().chain(room.sideways.keys()).cloned().collect();
        for extra in edges.difference(&allowed) {
            faults.push(format!(
                "layers.toml: `{name}` depends on `{extra}`, which the map does not allow; \
                 drop the dependency or decide the edge there"
            ));
        }
        for gone in allowed.difference(edges) {
            faults.push(format!(
                "layers.toml: `{name}` no longer depends on `{gone}`; remove the edge"
            ));
        }
        for used in &allowed {
            let Some(target) = layers.crates.get(used) else { continue };
            if target.test_only {
                faults.push(format!("layers.toml: `{name}` uses the test-only crate `{used}`"));
            }
            let sideways = room.sideways.contains_key(used);
            match height(target) {
                Some(floor) if floor < own || (sideways && floor == own) => {}
                _ => faults.push(format!("layers.toml: `{name}` → `{used}` does not point down")),
            }
        }
    }
    Ok(())
}

/// Returns, for each crate in `crates/`, and for `examples`, the workspace crates it depends on outside of tests.
fn real_edges(root: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut edges = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let Some(room) = room_of(root, Path::new(manifest)) else { continue };
        let mut used = BTreeSet::new();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["kind"] == "dev" {
                continue;
            }
            if let Some(path) = dependency["path"].as_str()
                && let Some(target) = room_of(root, &Path::new(path).join("Cargo.toml"))
            {
                used.insert(target);
            }
        }
        edges.insert(room, used);
    }
    Ok(edges)
}

fn room_of(root: &Path, manifest: &Path) -> Option<String> {
    let folder = manifest.parent()?.strip_prefix(root).ok()?;
    let room = match folder.strip_prefix("crates") {
        Ok(room) => room,
        Err(_) if folder == Path::new("examples") => folder,
        Err(_) => return None,
    };
    Some(room.to_str()?.to_owned())
}

fn tracked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("running git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let listing = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    Ok(listing.lines().map(PathBuf::from).filter(|file| root.join(file).is_file()).collect())
}

fn check_sources(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    let sources = files.iter().filter(|file| file.extension().is_some_and(|end| end == "rs"));
    for file in sources {
        let text = fs::read_to_string(root.join(file))?;
        let opening = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        if !opening.is_some_and(|line| line.starts_with("//!")) {
            faults.push(format!("{}: opens without `//!` documentation", file.display()));
        }
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with(concat!("#[", "ignore")) {
                faults.push(format!("{}:{}: an ignored test", file.display(), index + 1));
            }
        }
    }
    Ok(())
}

fn check_links(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(root.join(file))?;
        let folder = root.join(file.parent().unwrap_or(Path::new("")));
        for (position, _) in text.match_indices("](") {
            let target = &text[position + 2..];
            let Some(end) = target.find([')', ' ', '\n']) else { continue };
            let target = target[..end].split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !outside && !folder.join(target).exists() {
                faults.push(format!("{}: the link `{target}` leads nowhere", file.display()));
            }
        }
    }
    Ok(())
}

fn check_lock(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        source: Option<String>,
    }
    let lock: Lock = toml::from_str(&fs::read_to_string(root.join("Cargo.lock"))?)?;
    for package in lock.package {
        if BANNED_CRATES.contains(&package.name.as_str()) {
            faults.push(format!("Cargo.lock: `{}` came in; find who brought it", package.name));
        }
        if package.source.is_some_and(|source| source != PUBLIC_REGISTRY) {
            faults.push(format!("Cargo.lock: `{}` does not come from crates.io", package.name));
        }
    }
    Ok(())
}

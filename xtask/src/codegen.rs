//! `cargo xtask codegen`: schema files in, Rust modules out.
//!
//! The generated files are committed, so that the crate builds without this step and a reader or a
//! debugger finds real code. `--check` is part of `cargo xtask tidy`.

mod catalog;
mod emit;
mod names;
mod schema;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use schema::Schema;

/// Generates everything, and writes or compares it.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/protocol");
    let schemas = load(&root.join("schemas"))?;
    let mut files = BTreeMap::new();
    for schema in &schemas {
        let text = emit::message(schema).with_context(|| format!("message `{}`", schema.name))?;
        files.insert(format!("{}.rs", names::module_name(&schema.name)), text);
    }
    files.insert("mod.rs".to_owned(), catalog::modules(&schemas));
    files.insert("api_key.rs".to_owned(), catalog::api_keys(&schemas)?);
    files.insert("any.rs".to_owned(), catalog::any_messages(&schemas)?);
    files.insert("specimens.rs".to_owned(), catalog::specimens(&schemas)?);
    let files = format(&files)?;

    let target = root.join("src/generated");
    if check { compare(&target, &files) } else { write(&target, &files) }
}

fn load(folder: &Path) -> Result<Vec<Schema>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "schema") {
            paths.push(path);
        }
    }
    paths.sort();
    ensure!(!paths.is_empty(), "no schemas in {}", folder.display());
    let parse = |path: &PathBuf| {
        let schema = Schema::parse(&fs::read_to_string(path)?)
            .with_context(|| format!("parsing {}", path.display()))?;
        let named = path.file_stem().is_some_and(|stem| *stem == *schema.name);
        ensure!(named, "{} holds `{}`", path.display(), schema.name);
        Ok(schema)
    };
    paths.iter().map(parse).collect()
}

/// Runs rustfmt over all files at once, in a folder of their own.
fn format(files: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join(format!("target/codegen-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let formatted = (|| {
        for (name, text) in files {
            fs::write(folder.join(name), text)?;
        }
        // `mod.rs` leads rustfmt to all others.
        let status = Command::new("rustfmt")
            .args(["--edition", "2024", "--config-path"])
            .args([root.join("rustfmt.toml"), folder.join("mod.rs")])
            .status()
            .context("running rustfmt")?;
        ensure!(status.success(), "rustfmt rejects the generated code");
        let read = |name: &String| Ok((name.clone(), fs::read_to_string(folder.join(name))?));
        files.keys().map(read).collect()
    })();
    fs::remove_dir_all(&folder)?;
    formatted
}

fn write(target: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    fs::create_dir_all(target)?;
    for name in present(target)? {
        if !files.contains_key(&name) {
            fs::remove_file(target.join(name))?;
        }
    }
    for (name, text) in files {
        // Untouched files keep their time stamps, and Cargo its peace.
        let path = target.join(name);
        if fs::read_to_string(&path).ok().as_ref() != Some(text) {
            fs::write(path, text)?;
        }
    }
    Ok(())
}

fn compare(target: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    let mut stale: Vec<String> = Vec::new();
    for (name, text) in files {
        if fs::read_to_string(target.join(name)).ok().as_ref() != Some(text) {
            stale.push(name.clone());
        }
    }
    stale.extend(present(target)?.into_iter().filter(|name| !files.contains_key(name)));
    if !stale.is_empty() {
        bail!("run `cargo xtask codegen`: stale in {}: {}", target.display(), stale.join(", "));
    }
    Ok(())
}

fn present(target: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(target).with_context(|| format!("reading {}", target.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

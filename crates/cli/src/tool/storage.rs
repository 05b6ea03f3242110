//! `kafka-storage.sh`: naming data directories, and asking for their names.
//!
//! Fleuve formats a directory by itself when it starts on an empty one; `format` decides the ids
//! beforehand, and users and levels of features that the cluster is to begin with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use fleuve_metadata::checkpoint::{BOOTSTRAP_FILE, encode_bootstrap};
use fleuve_metadata::record::Record;
use fleuve_os::{OsRandom, Random};
use fleuve_types::{TimestampMs, Uuid};

use super::bootstrap;
use super::files::properties;
use crate::failure::Failure;
use crate::output::line;
use crate::quantities::now_ms;

/// Prepare data directories, or tell about them.
#[derive(Debug, Parser)]
pub(super) struct Storage {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a random id.
    RandomUuid,
    /// Tell whose the data directories are.
    Info {
        /// The file of broker properties.
        #[arg(long, short)]
        config: PathBuf,
    },
    /// Give the data directories their ids.
    Format {
        /// The file of broker properties.
        #[arg(long, short)]
        config: PathBuf,
        /// The id of the cluster.
        #[arg(long, short = 't')]
        cluster_id: String,
        /// Leave directories alone that have ids.
        #[arg(long, short = 'g')]
        ignore_formatted: bool,
        /// Accepted: this node is its own quorum.
        #[arg(long, short)]
        standalone: bool,
        /// Accepted: this node is its own quorum.
        #[arg(long, short = 'N')]
        no_initial_controllers: bool,
        #[command(flatten)]
        beginning: Beginning,
    },
}

/// What the cluster is to begin with.
#[derive(Debug, Args)]
pub(super) struct Beginning {
    /// A user: SCRAM-SHA-256=[name=ann,password=secret], also with iterations, salt or
    /// saltedpassword; may be repeated.
    #[arg(long, short = 'S', value_name = "MECHANISM=[NAME=VALUE,...]")]
    pub(super) add_scram: Vec<String>,
    /// A feature with its level, as transaction.version=1; may be repeated.
    #[arg(long, short, value_name = "FEATURE=LEVEL")]
    pub(super) feature: Vec<String>,
    /// The release whose metadata.version the cluster has.
    #[arg(long, short)]
    pub(super) release_version: Option<String>,
}

const FILE: &str = "meta.properties";

pub(super) fn run(storage: Storage) -> Result<(), Failure> {
    match storage.action {
        Action::RandomUuid => line(new_id().to_string()),
        Action::Info { config } => info(&directories(&config)?.1),
        Action::Format { config, cluster_id, ignore_formatted, beginning, .. } => {
            let cluster_id: Uuid = cluster_id.parse().map_err(|_| {
                Failure::new(format!(
                    "--cluster-id {cluster_id}: expected 22 characters as kafka-storage.sh \
                     random-uuid prints them"
                ))
            })?;
            let (node_id, directories) = directories(&config)?;
            let first = bootstrap::records(&beginning)?;
            format(&node_id, &directories, cluster_id, ignore_formatted, first)
        }
    }
}

/// The node's id and its data directories.
fn directories(config: &Path) -> Result<(String, Vec<PathBuf>), Failure> {
    let properties = properties(config)?;
    let node_id = properties.get("node.id").or_else(|| properties.get("broker.id"));
    let listed = properties
        .get("log.dirs")
        .or_else(|| properties.get("log.dir"))
        .ok_or_else(|| Failure::new(format!("{}: set log.dirs", config.display())))?;
    let directories = listed.split(',').map(|path| PathBuf::from(path.trim())).collect();
    Ok((node_id.cloned().unwrap_or_else(|| "1".to_owned()), directories))
}

fn info(directories: &[PathBuf]) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for directory in directories {
        if !directory.is_dir() {
            problems.push(format!("{} does not exist", directory.display()));
        } else if directory.join(FILE).exists() {
            found.extend(properties(&directory.join(FILE))?);
        } else {
            problems.push(format!("{} is not formatted.", directory.display()));
        }
    }
    let existing: Vec<_> = directories.iter().filter(|directory| directory.is_dir()).collect();
    if !existing.is_empty() {
        line(if existing.len() == 1 { "Found log directory:" } else { "Found log directories:" })?;
        existing.iter().try_for_each(|directory| line(format!("  {}", directory.display())))?;
        line("")?;
    }
    if !found.is_empty() {
        let fields: Vec<_> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
        line(format!("Found metadata: {{{}}}\n", fields.join(", ")))?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    line(if problems.len() == 1 { "Found problem:" } else { "Found problems:" })?;
    problems.iter().try_for_each(|problem| line(format!("  {problem}")))?;
    line("")?;
    Err(Failure::Said)
}

fn format(
    node_id: &str,
    directories: &[PathBuf],
    cluster_id: Uuid,
    ignore_formatted: bool,
    first: Vec<Record>,
) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for directory in directories {
        if !directory.join(FILE).exists() {
            missing.push(directory);
        } else if !ignore_formatted {
            return Err(Failure::new(format!(
                "Log directory {} is already formatted. Use --ignore-formatted to ignore this \
                 directory and format the others.",
                directory.display()
            )));
        }
    }
    if missing.is_empty() {
        return line("All of the log directories are already formatted.");
    }
    for directory in missing {
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot format {}: {error}", directory.display()))
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        if !first.is_empty() && directories.first() == Some(directory) {
            let batches = encode_bootstrap(first.iter().cloned(), TimestampMs(now_ms()))
                .map_err(|error| Failure::new(format!("cannot format: {error}")))?;
            let path = directory.join(BOOTSTRAP_FILE);
            write_whole(&path, &batches.concat()).map_err(failed)?;
        }
        let text = format!(
            "version=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={}\n",
            new_id()
        );
        write_whole(&directory.join(FILE), text.as_bytes()).map_err(failed)?;
        line(format!(
            "Formatting data directory {} with metadata.version 4.3-IV0.",
            directory.display()
        ))?;
    }
    Ok(())
}

/// Writes a file aside first, so that a crash leaves no half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension("tmp");
    std::fs::write(&aside, bytes)?;
    std::fs::File::open(&aside).and_then(|file| file.sync_all())?;
    std::fs::rename(&aside, path)
}

fn new_id() -> Uuid {
    let mut bytes = [0; 16];
    OsRandom.fill(&mut bytes);
    Uuid::from_random_bytes(bytes)
}

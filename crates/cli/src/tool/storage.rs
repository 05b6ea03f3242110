//! `kafka-storage.sh`: naming data directories, and asking for their names.
//!
//! Fleuve formats a directory by itself when it starts on an empty one; `format` decides the ids
//! beforehand, and users and levels of features that the cluster is to begin with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use fleuve_metadata::checkpoint::{BOOTSTRAP_FILE, encode_bootstrap};
use fleuve_os::{OsRandom, Random};
use fleuve_types::{TimestampMs, Uuid};

use super::bootstrap;
use super::features::{FeatureDependencies, VersionMapping, dependencies, version_mapping};
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
        #[command(flatten)]
        quorum: Quorum,
        #[command(flatten)]
        beginning: Beginning,
    },
    /// Show which levels features have in a release.
    VersionMapping(VersionMapping),
    /// Show which features a level of a feature needs.
    FeatureDependencies(FeatureDependencies),
}

/// Who votes about metadata: this node alone, however that is said.
#[derive(Debug, Args)]
struct Quorum {
    /// This node, without naming it.
    #[arg(long, short, group = "voters")]
    standalone: bool,
    /// Nobody is named here.
    #[arg(long, short = 'N', group = "voters")]
    no_initial_controllers: bool,
    /// This node by name, which decides the id of its metadata directory.
    #[arg(long, short = 'I', group = "voters", value_name = "ID@HOST:PORT:DIRECTORY")]
    initial_controllers: Option<String>,
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
        Action::Info { config } => info(directories(&config)?.directories),
        Action::VersionMapping(which) => version_mapping(&which),
        Action::FeatureDependencies(which) => dependencies(&which),
        Action::Format { config, cluster_id, ignore_formatted, quorum, beginning } => {
            if cluster_id.is_empty() || cluster_id.contains(char::is_control) {
                return Err(Failure::new(
                    "--cluster-id: expected a name, as kafka-storage.sh random-uuid makes them up",
                ));
            }
            let node = directories(&config)?;
            let metadata_directory = quorum.check(&node)?;
            let first = bootstrap::records(&beginning)?;
            let ids = Ids { cluster_id, metadata_directory };
            format(&node, &ids, ignore_formatted, &first)
        }
    }
}

/// What a file of broker properties says of the node.
struct Node {
    id: String,
    directories: Vec<PathBuf>,
    /// Whether the file names the voters.
    has_voters: bool,
}

/// The ids that directories are to get.
struct Ids {
    cluster_id: String,
    /// Of the first directory, where the metadata is; any unless given.
    metadata_directory: Option<Uuid>,
}

impl Quorum {
    /// Looks whether the node is alone; returns the id of its metadata directory if that is given.
    fn check(&self, node: &Node) -> Result<Option<Uuid>, Failure> {
        let is_dynamic = self.standalone || self.initial_controllers.is_some();
        if node.has_voters && is_dynamic {
            return Err(Failure::new(
                "You cannot specify controller.quorum.voters and format the node with \
                 --initial-controllers or --standalone. If you want to use dynamic quorum, please \
                 remove controller.quorum.voters and specify controller.quorum.bootstrap.servers \
                 instead.",
            ));
        }
        let Some(text) = &self.initial_controllers else { return Ok(None) };
        let voters = text.split(',').map(voter).collect::<Option<Vec<_>>>().ok_or_else(|| {
            Failure::new(format!(
                "--initial-controllers {text}: expected ID@HOST:PORT:DIRECTORY, where DIRECTORY \
                 is an id as kafka-storage.sh random-uuid prints them"
            ))
        })?;
        match voters.as_slice() {
            [(id, directory)] if *id == node.id => Ok(Some(*directory)),
            _ => Err(Failure::new(format!(
                "--initial-controllers {text}: node {} is its own quorum, name it alone",
                node.id
            ))),
        }
    }
}

/// Reads `ID@HOST:PORT:DIRECTORY`.
fn voter(text: &str) -> Option<(&str, Uuid)> {
    let (id, rest) = text.trim().split_once('@')?;
    let (address, directory) = rest.rsplit_once(':')?;
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    id.parse::<u32>().ok()?;
    (!host.is_empty()).then_some((id, directory.parse().ok()?))
}

/// Reads the node's id and its data directories.
fn directories(config: &Path) -> Result<Node, Failure> {
    let properties = properties(config)?;
    let id = properties.get("node.id").or_else(|| properties.get("broker.id"));
    let listed = properties
        .get("log.dirs")
        .or_else(|| properties.get("log.dir"))
        .ok_or_else(|| Failure::new(format!("{}: set log.dirs", config.display())))?;
    let voters = properties.get("controller.quorum.voters");
    Ok(Node {
        id: id.map_or("1", |id| id.trim()).to_owned(),
        directories: listed.split(',').map(|path| PathBuf::from(path.trim())).collect(),
        has_voters: voters.is_some_and(|voters| !voters.trim().is_empty()),
    })
}

fn info(mut directories: Vec<PathBuf>) -> Result<(), Failure> {
    directories.sort_unstable();
    let mut problems = Vec::new();
    let mut found: Option<BTreeMap<String, String>> = None;
    for directory in &directories {
        let shown = directory.display();
        if !directory.exists() {
            problems.push(format!("{shown} does not exist"));
        } else if !directory.is_dir() {
            problems.push(format!("{shown} is not a directory"));
        } else if !directory.join(FILE).exists() {
            problems.push(format!("{shown} is not formatted."));
        } else {
            let known = properties(&directory.join(FILE))?;
            let first = found.get_or_insert_with(|| known.clone());
            if first.get("cluster.id") != known.get("cluster.id") {
                problems.push("Mismatched cluster IDs between storage directories.".to_owned());
            } else if first.get("node.id") != known.get("node.id") {
                problems.push("Mismatched node IDs between storage directories.".to_owned());
            }
        }
    }
    let existing: Vec<_> = directories.iter().filter(|directory| directory.is_dir()).collect();
    if !existing.is_empty() {
        line(if existing.len() == 1 { "Found log directory:" } else { "Found log directories:" })?;
        existing.iter().try_for_each(|directory| line(format!("  {}", directory.display())))?;
        line("")?;
    }
    if let Some(found) = found {
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
    node: &Node,
    ids: &Ids,
    ignore_formatted: bool,
    first: &bootstrap::First,
) -> Result<(), Failure> {
    // A directory of another cluster or node is a mistake in the configuration, which is not to be
    // made worse by giving the others their ids.
    for directory in &node.directories {
        let file = directory.join(FILE);
        if file.exists() {
            check_owner(&file, &properties(&file)?, &ids.cluster_id, &node.id)?;
        }
    }
    let mut missing = Vec::new();
    for (index, directory) in node.directories.iter().enumerate() {
        if !directory.join(FILE).exists() {
            missing.push((index == 0, directory));
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
    for (has_metadata, directory) in missing {
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot format {}: {error}", directory.display()))
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        if has_metadata && !first.records.is_empty() {
            let batches = encode_bootstrap(first.records.iter().cloned(), TimestampMs(now_ms()))
                .map_err(|error| Failure::new(format!("cannot format: {error}")))?;
            let path = directory.join(BOOTSTRAP_FILE);
            write_whole(&path, &batches.concat()).map_err(failed)?;
        }
        let id = ids.metadata_directory.filter(|_| has_metadata).unwrap_or_else(new_id);
        let (node_id, cluster_id) = (&node.id, &ids.cluster_id);
        let text =
            format!("version=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={id}\n");
        write_whole(&directory.join(FILE), text.as_bytes()).map_err(failed)?;
        line(format!(
            "Formatting {} directory {} with metadata.version {}.",
            if has_metadata { "metadata" } else { "data" },
            directory.display(),
            first.release,
        ))?;
    }
    Ok(())
}

/// Looks whether a directory that has an id belongs to this cluster and node.
fn check_owner(
    file: &Path,
    found: &BTreeMap<String, String>,
    cluster_id: &str,
    node_id: &str,
) -> Result<(), Failure> {
    let file = file.display();
    if let Some(other) = found.get("cluster.id").filter(|found| found.trim() != cluster_id) {
        return Err(Failure::new(format!(
            "Invalid cluster.id in: {file}. Expected {cluster_id}, but read {other}"
        )));
    }
    if let Some(other) = found.get("node.id").filter(|found| found.trim() != node_id) {
        return Err(Failure::new(format!(
            "Stored node id {other} doesn't match previous node id {node_id} in {file}"
        )));
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

pub(super) fn new_id() -> Uuid {
    let mut bytes = [0; 16];
    OsRandom.fill(&mut bytes);
    Uuid::from_random_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_others_are_not_ignored() {
        let check = |cluster_id: &str, node_id: &str| {
            let found = [("version", "1"), ("cluster.id", "mine"), ("node.id", "1")];
            let found = found.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            check_owner(Path::new("d/meta.properties"), &found, cluster_id, node_id)
        };
        check("mine", "1").expect("the same");
        let other = check("theirs", "1").expect_err("another cluster").to_string();
        let why = "Invalid cluster.id in: d/meta.properties. Expected theirs, but read mine";
        assert_eq!(other, why);
        assert!(check("mine", "2").is_err());
    }

    #[test]
    fn a_node_that_is_its_own_quorum_is_named_alone() {
        const DIRECTORY: &str = "JEXY6aqzQY-32P5TStzaFg";
        let check = |text: String, has_voters| {
            let quorum = Quorum {
                standalone: false,
                no_initial_controllers: false,
                initial_controllers: Some(text),
            };
            let node = Node { id: "1".to_owned(), directories: Vec::new(), has_voters };
            quorum.check(&node)
        };
        let own = format!("1@localhost:9093:{DIRECTORY}");
        let id = check(own.clone(), false).expect("this node").expect("its directory");
        assert_eq!(id.to_string(), DIRECTORY);
        assert!(check(own.clone(), true).is_err());
        for text in [
            format!("2@localhost:9093:{DIRECTORY}"),
            format!("{own},2@localhost:9094:{DIRECTORY}"),
            format!("1@localhost:{DIRECTORY}"),
            format!("1@:9093:{DIRECTORY}"),
            format!("localhost:9093:{DIRECTORY}"),
            "1@localhost:9093:x".to_owned(),
            String::new(),
        ] {
            assert!(check(text.clone(), false).is_err(), "{text}");
        }
    }
}

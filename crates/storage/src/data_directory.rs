//! One of the directories in `log.dirs`: whose it is, and what the last process left in it.
//!
//! ```text
//! .lock                               held while a process uses the directory
//! meta.properties                     version=1, cluster.id, node.id, directory.id
//! .kafka_cleanshutdown                the last process ended in good order
//! recovery-point-offset-checkpoint    per log: where recovery begins
//! log-start-offset-checkpoint         per log: the first offset, where no segment begins
//! cleaner-offset-checkpoint           per log: where compaction goes on
//! <topic>-<partition>/                logs
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fleuve_os::{Disk, DiskLock, DiskResult, OpenMode, Random};
use fleuve_types::{TopicPartition, Uuid};
use parking_lot::Mutex;

use crate::checkpoint;
use crate::error::LogError;

const LOCK: &str = ".lock";
/// Written, read and removed to see whether a directory can be used.
const PROBE: &str = ".fleuve-probe";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// What Kafka writes into the marker; the epoch is for controllers that hand out broker epochs.
const CLEAN_SHUTDOWN_CONTENT: &str = "{\"version\":0,\"brokerEpoch\":-1}";
const META_VERSION: &str = "1";

/// Reports why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The disk refused, or a file in the directory is not readable as what it should be.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another process uses the directory.
    #[error("`{}` is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another node or another cluster.
    #[error("`{}` belongs to {key} {found}, not to {expected}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// `node.id` or `cluster.id`.
        key: &'static str,
        /// The value in its `meta.properties`.
        found: String,
        /// The value it should have.
        expected: String,
    },
}

impl From<fleuve_os::DiskError> for DirectoryError {
    fn from(error: fleuve_os::DiskError) -> Self {
        Self::Log(error.into())
    }
}

/// A data directory in use by this process.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    pub(crate) path: PathBuf,
    pub(crate) id: Uuid,
    lock: Mutex<Option<Box<dyn DiskLock>>>,
}

/// What the last process left.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) had_clean_shutdown: bool,
    pub(crate) recovery_points: HashMap<TopicPartition, i64>,
    pub(crate) log_starts: HashMap<TopicPartition, i64>,
    pub(crate) first_dirty: HashMap<TopicPartition, i64>,
}

/// Who a directory belongs to, as far as its `meta.properties` says.
#[derive(Debug)]
struct Identity {
    cluster_id: Option<String>,
    node_id: Option<String>,
    directory_id: Option<Uuid>,
}

/// A directory that could be claimed, or one that the disk does not let us use, with the reason.
pub(crate) type Claimed = Result<DataDirectory, (PathBuf, LogError)>;

/// Locks the directories `paths`, making them when missing, and sees to it that all belong to node
/// `node_id` of one cluster. Returns them with the id of the cluster: the one they name, else
/// `cluster_id`, else a new one.
///
/// A directory that another process uses, or that belongs to somebody else, is a mistake of the
/// operator and an error. One that the disk refuses is not: the others can do without it.
pub(crate) fn claim(
    disk: &dyn Disk,
    random: &dyn Random,
    paths: &[PathBuf],
    node_id: i32,
    cluster_id: Option<&str>,
) -> Result<(Vec<Claimed>, String), DirectoryError> {
    let mut locked = Vec::new();
    let mut cluster_id = cluster_id.map(str::to_owned);
    for path in paths {
        let (lock, identity) = match lock(disk, path) {
            Ok(locked) => locked,
            Err(DirectoryError::Log(error)) => {
                locked.push((path, Err(error)));
                continue;
            }
            Err(error) => return Err(error),
        };
        let node_id = node_id.to_string();
        check(path, "node.id", identity.node_id.as_deref(), Some(&node_id))?;
        check(path, "cluster.id", identity.cluster_id.as_deref(), cluster_id.as_deref())?;
        cluster_id = cluster_id.or(identity.cluster_id.clone());
        locked.push((path, Ok((lock, identity))));
    }
    let cluster_id = cluster_id.unwrap_or_else(|| random_id(random).to_string());
    let claimed = locked.into_iter().map(|(path, locked)| {
        let directory = locked.and_then(|(lock, identity)| {
            let id = identity.directory_id.unwrap_or_else(|| random_id(random));
            identity.complete(disk, path, &cluster_id, node_id, id)?;
            Ok(DataDirectory { path: path.clone(), id, lock: Mutex::new(Some(lock)) })
        });
        directory.map_err(|error| (path.clone(), error))
    });
    Ok((claimed.collect(), cluster_id))
}

/// Takes the lock on a directory and reads who it belongs to.
fn lock(disk: &dyn Disk, path: &Path) -> Result<(Box<dyn DiskLock>, Identity), DirectoryError> {
    create_durably(disk, path)?;
    let lock = disk
        .try_lock(&path.join(LOCK))?
        .ok_or_else(|| DirectoryError::InUse { path: path.to_owned() })?;
    let identity = read_identity(disk, path)?;
    Ok((lock, identity))
}

impl Identity {
    /// Writes down what a new directory does not say yet.
    fn complete(
        &self,
        disk: &dyn Disk,
        path: &Path,
        cluster_id: &str,
        node_id: i32,
        id: Uuid,
    ) -> Result<(), LogError> {
        if self.directory_id.is_some() && self.cluster_id.is_some() && self.node_id.is_some() {
            return Ok(());
        }
        let content = format!(
            "#\nversion={META_VERSION}\ncluster.id={cluster_id}\nnode.id={node_id}\n\
             directory.id={id}\n"
        );
        disk.replace_file(&path.join(checkpoint::META_PROPERTIES), content.as_bytes())?;
        Ok(())
    }
}

impl DataDirectory {
    /// Reads what the last process left, and removes its word that all is well: from now on that is
    /// for us to say.
    pub(crate) fn inherit(&self, disk: &dyn Disk) -> Result<Inheritance, LogError> {
        let marker = self.path.join(CLEAN_SHUTDOWN);
        let had_clean_shutdown = disk.exists(&marker)?;
        let inheritance = Inheritance {
            had_clean_shutdown,
            recovery_points: self.read_offsets(disk, checkpoint::RECOVERY_POINTS)?,
            log_starts: self.read_offsets(disk, checkpoint::LOG_STARTS)?,
            first_dirty: self.read_offsets(disk, checkpoint::CLEANER_OFFSETS)?,
        };
        if had_clean_shutdown {
            disk.remove_file(&marker)?;
            disk.sync_dir(&self.path)?;
        }
        Ok(inheritance)
    }

    /// Stores both checkpoints.
    pub(crate) fn store_offsets(
        &self,
        disk: &dyn Disk,
        recovery_points: &HashMap<TopicPartition, i64>,
        log_starts: &HashMap<TopicPartition, i64>,
    ) -> Result<(), LogError> {
        for (name, offsets) in
            [(checkpoint::RECOVERY_POINTS, recovery_points), (checkpoint::LOG_STARTS, log_starts)]
        {
            let content = checkpoint::format_offsets(offsets);
            disk.replace_file_unsynced_dir(&self.path.join(name), content.as_bytes())?;
        }
        disk.sync_dir(&self.path)?;
        Ok(())
    }

    /// Stores up to where each log has been compacted.
    pub(crate) fn store_first_dirty(
        &self,
        disk: &dyn Disk,
        first_dirty: &HashMap<TopicPartition, i64>,
    ) -> Result<(), LogError> {
        let path = self.path.join(checkpoint::CLEANER_OFFSETS);
        if first_dirty.is_empty() && !disk.exists(&path)? {
            return Ok(());
        }
        disk.replace_file(&path, checkpoint::format_offsets(first_dirty).as_bytes())?;
        Ok(())
    }

    /// Forgets up to where a log was compacted: a later one of the same name begins anew.
    pub(crate) fn forget_first_dirty(
        &self,
        disk: &dyn Disk,
        partition: &TopicPartition,
    ) -> Result<(), LogError> {
        let mut first_dirty = self.read_offsets(disk, checkpoint::CLEANER_OFFSETS)?;
        match first_dirty.remove(partition) {
            Some(_) => self.store_first_dirty(disk, &first_dirty),
            None => Ok(()),
        }
    }

    /// Finds out whether the disk still takes and gives back what is written into the directory. A
    /// full disk passes, and so does a process with too many open files: that is another matter.
    pub(crate) fn probe(&self, disk: &dyn Disk) -> DiskResult<()> {
        let path = self.path.join(PROBE);
        let listed = disk.list(&self.path);
        let written = listed.and_then(|_| disk.open(&path, OpenMode::Create)).and_then(|file| {
            file.write_at(PROBE.as_bytes(), 0)?;
            file.sync_all()?;
            file.read_exact_at(0, PROBE.len())?;
            disk.remove_file(&path)
        });
        match written {
            Err(error) if error.is_passing() => Ok(()),
            written => written,
        }
    }

    /// Leaves word that all is well; the last thing a process does here.
    pub(crate) fn leave_marker(&self, disk: &dyn Disk) -> Result<(), LogError> {
        disk.replace_file(&self.path.join(CLEAN_SHUTDOWN), CLEAN_SHUTDOWN_CONTENT.as_bytes())?;
        Ok(())
    }

    /// Lets the next process have the directory, although somebody may still hold on to us.
    pub(crate) fn unlock(&self) {
        *self.lock.lock() = None;
    }

    /// A checkpoint that cannot be understood costs a longer recovery, nothing else: it is no reason
    /// to refuse to start.
    fn read_offsets(
        &self,
        disk: &dyn Disk,
        name: &str,
    ) -> Result<HashMap<TopicPartition, i64>, LogError> {
        match checkpoint::read_offsets(disk, &self.path.join(name)) {
            Err(error @ LogError::Malformed { .. }) => {
                tracing::warn!(%error, "doing without the checkpoint");
                Ok(HashMap::new())
            }
            offsets => offsets,
        }
    }
}

/// Makes a directory so that it survives a power failure together with what is synced within it.
fn create_durably(disk: &dyn Disk, directory: &Path) -> DiskResult<()> {
    let mut missing = Vec::new();
    for ancestor in directory.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        if disk.exists(ancestor)? {
            break;
        }
        missing.push(ancestor);
    }
    disk.create_dir_all(directory)?;
    for made in missing.into_iter().rev() {
        disk.sync_dir(made.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

fn read_identity(disk: &dyn Disk, directory: &Path) -> Result<Identity, LogError> {
    let path = directory.join(checkpoint::META_PROPERTIES);
    let mut properties = checkpoint::read_properties(disk, &path)?.unwrap_or_default();
    let malformed = |reason: String| LogError::Malformed { path: path.clone(), reason };
    match properties.get("version").map(String::as_str) {
        None | Some(META_VERSION) => {}
        Some(version) => return Err(malformed(format!("version {version} is not supported"))),
    }
    let directory_id = match properties.get("directory.id") {
        None => None,
        Some(id) => Some(id.parse().map_err(|error| malformed(format!("directory.id: {error}")))?),
    };
    Ok(Identity {
        cluster_id: properties.remove("cluster.id"),
        node_id: properties.remove("node.id"),
        directory_id,
    })
}

fn check(
    path: &Path,
    key: &'static str,
    found: Option<&str>,
    expected: Option<&str>,
) -> Result<(), DirectoryError> {
    match (found, expected) {
        (Some(found), Some(expected)) if found != expected => Err(DirectoryError::Foreign {
            path: path.to_owned(),
            key,
            found: found.to_owned(),
            expected: expected.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn random_id(random: &dyn Random) -> Uuid {
    loop {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let id = Uuid::from_random_bytes(bytes);
        if !id.looks_like_option() {
            return id;
        }
    }
}

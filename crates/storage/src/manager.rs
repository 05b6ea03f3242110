//! All logs in the data directories of a broker: opening them, making and deleting them, and
//! leaving the directories in good order.
//!
//! The manager does not hold the logs. Their owner keeps each behind a lock of its own and hands
//! the manager what it needs: the points of all logs for a checkpoint, a log to delete.
//!
//! Opening is made for thousands of logs. A log that was closed in good order costs a directory
//! listing and a few small reads; sealed segments and indexes are not opened until somebody reads
//! from them. Logs are opened by several threads, because a cold disk answers several reads at once
//! faster than one after the other.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use fleuve_os::EntryKind;
use fleuve_types::{Offset, TopicPartition, Uuid};
use parking_lot::Mutex;

use crate::config::LogConfig;
use crate::data_directory::{self, DataDirectory, DirectoryError, Inheritance};
use crate::environment::{Doomed, Environment};
use crate::error::LogError;
use crate::log::{Log, OpenOptions, Recovery};
use crate::names;

/// The directory of KRaft's metadata log, which belongs to the controller.
const METADATA_LOG: &str = "__cluster_metadata-0";

/// What the manager must know.
pub struct ManagerOptions<'a> {
    /// The data directories (`log.dirs`), at least one. The first must be usable, since it holds
    /// what the broker cannot do without; the others are left out while their disk refuses.
    pub directories: Vec<PathBuf>,
    /// The id of this node, which all directories must agree with.
    pub node_id: i32,
    /// The id of the cluster, if it is known from elsewhere; otherwise the directories tell, or a
    /// new one is drawn.
    pub cluster_id: Option<String>,
    /// How many threads open logs (`num.recovery.threads.per.data.dir`).
    pub recovery_threads: usize,
    /// The settings of each log.
    pub config_for: &'a (dyn Fn(&TopicPartition) -> Arc<LogConfig> + Sync),
}

impl fmt::Debug for ManagerOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerOptions")
            .field("directories", &self.directories)
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

/// The data directories of a broker.
#[derive(Debug)]
pub struct LogManager {
    pub(crate) environment: Environment,
    pub(crate) directories: Vec<ManagedDirectory>,
    cluster_id: String,
    /// Directories that take no new logs.
    cordoned: Mutex<Vec<PathBuf>>,
}

#[derive(Debug)]
pub(crate) struct ManagedDirectory {
    pub(crate) path: PathBuf,
    /// None when it could not be claimed at the start.
    claimed: Option<DataDirectory>,
    /// Logs in it, those that could not be opened included, and copies under way not.
    pub(crate) logs: AtomicUsize,
    /// Why it is not used, if so; it stays so until the next start.
    failure: OnceLock<String>,
}

impl ManagedDirectory {
    /// The directory, unless it is out of use.
    pub(crate) fn usable(&self) -> Option<&DataDirectory> {
        self.claimed.as_ref().filter(|_| self.failure.get().is_none())
    }

    fn fail(&self, error: &dyn fmt::Display) {
        let reason = error.to_string();
        if self.failure.set(reason.clone()).is_ok() {
            tracing::error!(
                directory = %self.path.display(), reason,
                "this data directory is out of use until the broker restarts; so are its partitions"
            );
        }
    }
}

/// A data directory as others see it.
#[derive(Clone, Debug)]
pub struct DirectoryState {
    /// Where it is.
    pub path: PathBuf,
    /// Its id; `None` when it could not even be claimed.
    pub id: Option<Uuid>,
    /// Why it is not used, if so.
    pub failure: Option<String>,
}

/// A log that could not be opened.
#[derive(Debug)]
pub struct FailedLog {
    /// Which partition it is the log of.
    pub partition: TopicPartition,
    /// Where it is.
    pub directory: PathBuf,
    /// Why it could not be opened.
    pub error: LogError,
}

/// What was found in the data directories.
#[derive(Debug)]
pub struct Opened {
    /// The manager of the directories.
    pub manager: LogManager,
    /// The logs.
    pub logs: Vec<Log>,
    /// Logs that were on their way to another directory, to take the place of those in `logs`.
    pub futures: Vec<Log>,
    /// The logs that could not be opened, and why.
    pub failed: Vec<FailedLog>,
    /// What recovery did in all logs together.
    pub recovery: Recovery,
    /// Whether all directories were left in good order by the last process.
    pub had_clean_shutdown: bool,
}

/// Where a log stands, for the checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPoints {
    partition: TopicPartition,
    directory: PathBuf,
    recovery_point: Offset,
    /// `None` when it is the beginning of the first segment, which goes without saying.
    log_start: Option<Offset>,
    /// Where compaction goes on, once it has begun.
    first_dirty: Option<Offset>,
}

impl Log {
    /// Returns where the log stands, for [`LogManager::store_checkpoints`].
    pub fn points(&self) -> LogPoints {
        let begins_with_segment = self.segment_offsets().first() == Some(&self.log_start_offset());
        LogPoints {
            partition: self.partition().clone(),
            directory: self.directory().parent().unwrap_or(Path::new("")).to_owned(),
            recovery_point: self.recovery_point(),
            log_start: (!begins_with_segment).then(|| self.log_start_offset()),
            first_dirty: self.first_dirty_offset(),
        }
    }
}

impl LogManager {
    /// Claims the data directories and opens all logs in them.
    pub fn open(
        environment: &Environment,
        options: ManagerOptions<'_>,
    ) -> Result<Opened, DirectoryError> {
        let disk = &*environment.disk;
        let (directories, cluster_id) = data_directory::claim(
            disk,
            &*environment.random,
            &options.directories,
            options.node_id,
            options.cluster_id.as_deref(),
        )?;
        let mut work = Vec::new();
        let mut had_clean_shutdown = true;
        let mut managed: Vec<ManagedDirectory> = Vec::new();
        for claimed in directories {
            let found = claimed.and_then(|directory| {
                let found = directory.inherit(disk).and_then(|inheritance| {
                    had_clean_shutdown &= inheritance.had_clean_shutdown;
                    find_logs(environment, &directory, &inheritance, options.config_for)
                });
                match found {
                    Ok(found) => Ok((directory, found)),
                    Err(error) => Err((directory.path, error)),
                }
            });
            let (path, claimed, found) = match found {
                Ok((directory, found)) => (directory.path.clone(), Ok(directory), found),
                Err((_, error)) if managed.is_empty() => return Err(error.into()),
                Err((path, error)) => (path, Err(error), Vec::new()),
            };
            let failure = claimed.as_ref().err().map(LogError::to_string);
            let directory = ManagedDirectory {
                path,
                claimed: claimed.ok(),
                logs: AtomicUsize::new(
                    found.iter().filter(|log| !names::is_future_directory(&log.directory)).count(),
                ),
                failure: OnceLock::new(),
            };
            if let Some(reason) = failure {
                directory.fail(&reason);
            }
            managed.push(directory);
            work.extend(found);
        }
        let mut opened = Opened {
            manager: Self {
                environment: environment.clone(),
                directories: managed,
                cluster_id,
                cordoned: Mutex::default(),
            },
            logs: Vec::with_capacity(work.len()),
            futures: Vec::new(),
            failed: Vec::new(),
            recovery: Recovery::default(),
            had_clean_shutdown,
        };
        let outcomes = in_parallel(options.recovery_threads, work, |options| {
            let (partition, directory) = (options.partition.clone(), options.directory.clone());
            let opened = Log::open(environment, options);
            opened.map_err(|error| FailedLog { partition, directory, error })
        });
        for outcome in outcomes {
            match outcome {
                Ok((log, recovery)) => {
                    opened.recovery.verified_bytes += recovery.verified_bytes;
                    opened.recovery.cut_bytes += recovery.cut_bytes;
                    opened.recovery.lost_synced_records |= recovery.lost_synced_records;
                    let is_future = names::is_future_directory(log.directory());
                    if is_future { &mut opened.futures } else { &mut opened.logs }.push(log);
                }
                Err(failed) if names::is_future_directory(&failed.directory) => {
                    let FailedLog { directory, error, .. } = failed;
                    tracing::warn!(
                        directory = %directory.display(), %error,
                        "leaving alone the copy of a log that cannot be opened"
                    );
                }
                Err(failed) => opened.failed.push(failed),
            }
        }
        opened.manager.settle_duplicates(&mut opened.logs);
        Ok(opened)
    }

    /// Returns the id of the cluster that the directories belong to.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Returns the data directories.
    pub fn directories(&self) -> impl Iterator<Item = DirectoryState> {
        self.directories.iter().map(|managed| DirectoryState {
            path: managed.path.clone(),
            id: managed.claimed.as_ref().map(|directory| directory.id),
            failure: managed.failure.get().cloned(),
        })
    }

    /// Returns the id of the data directory `path`, if it is one and in use.
    pub fn directory_id(&self, path: &Path) -> Option<Uuid> {
        let managed = self.directories.iter().find(|managed| managed.path == path)?;
        managed.usable().map(|directory| directory.id)
    }

    /// Looks whether the disk still serves the data directory `path`, and puts it out of use if
    /// not; the caller then lets go of the logs in it. Returns whether it is in use.
    pub fn check_directory(&self, path: &Path) -> bool {
        let Some(managed) = self.directories.iter().find(|managed| managed.path == path) else {
            return false;
        };
        let Some(directory) = managed.usable() else { return false };
        match directory.probe(&*self.environment.disk) {
            Ok(()) => true,
            Err(error) => {
                managed.fail(&error);
                false
            }
        }
    }

    /// Keeps new logs out of these data directories from now on (`cordoned.log.dirs`).
    pub fn cordon(&self, paths: Vec<PathBuf>) {
        *self.cordoned.lock() = paths;
    }

    /// Reports whether new logs are kept out of the data directory `path`.
    pub fn is_cordoned(&self, path: &Path) -> bool {
        self.cordoned.lock().iter().any(|cordoned| cordoned == path)
    }

    /// Makes a log, in the data directory `preferred` if it is in use, or else in the one that has
    /// the fewest; in a cordoned one only if all are.
    pub fn create(
        &self,
        partition: TopicPartition,
        topic_id: Uuid,
        config: Arc<LogConfig>,
        preferred: Option<&Path>,
    ) -> Result<Log, LogError> {
        let name = names::log_directory_name(&partition);
        // The controller refuses such topics; opened twice, a log loses records.
        if name == METADATA_LOG {
            return Err(LogError::Reserved { partition });
        }
        let managed = self
            .choose_directory(preferred)
            .ok_or_else(|| LogError::NoDirectory { partition: partition.clone() })?;
        let directory = managed.path.join(name);
        let options = OpenOptions {
            topic_id: Some(topic_id),
            ..OpenOptions::new(partition, directory, config)
        };
        let opened = Log::open(&self.environment, options).map(|(log, _)| log);
        opened.inspect_err(|_| {
            managed.logs.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// Chooses where to make a log, and counts it there at once: several are made at a time.
    fn choose_directory(&self, preferred: Option<&Path>) -> Option<&ManagedDirectory> {
        let cordoned = self.cordoned.lock();
        let usable = || self.directories.iter().filter(|managed| managed.usable().is_some());
        let wanted = usable().find(|managed| Some(managed.path.as_path()) == preferred);
        let chosen = wanted.or_else(|| {
            let open = usable().filter(|managed| !cordoned.contains(&managed.path));
            let emptiest = open.min_by_key(|managed| managed.logs.load(Ordering::Relaxed));
            // All were cordoned after somebody had decided that the log is to be here.
            emptiest.or_else(|| usable().next())
        })?;
        chosen.logs.fetch_add(1, Ordering::Relaxed);
        Some(chosen)
    }

    /// Deletes a log: renamed at once, so that the partition may be made again, and removed after
    /// `file.delete.delay.ms` by [`Environment::remove_deleted_files`].
    ///
    /// After a power failure the directory may be back under its old name, unless
    /// [`LogManager::sync`] was called since.
    pub fn delete(&self, log: Log) -> Result<(), LogError> {
        let name = names::deleted_directory_name(log.partition(), self.random_id());
        let due_ms = self.environment.clock.wall_ms() + log.config().file_delete_delay_ms;
        let doomed = self.rename(log, &name)?;
        self.environment.deletions.add(due_ms, Doomed::Directory(doomed));
        Ok(())
    }

    /// Puts a log aside that no topic claims, for good, and returns where it lies now.
    ///
    /// The metadata may be wrong about it, having been restored from a backup: what is here may be
    /// all that is left of the records, so only the operator deletes it.
    pub fn set_aside(&self, log: Log) -> Result<PathBuf, LogError> {
        let name = names::stray_directory_name(log.partition(), self.random_id());
        let aside = self.rename(log, &name)?;
        let root = aside.parent().unwrap_or(Path::new(""));
        self.environment.disk.sync_dir(root)?;
        Ok(aside)
    }

    /// Makes it durable that logs were renamed or made.
    pub fn sync(&self) -> Result<(), LogError> {
        let disk = &*self.environment.disk;
        self.in_each(|directory| Ok(disk.sync_dir(&directory.path)?))
    }

    /// Takes a log out of use and gives its directory another name.
    fn rename(&self, mut log: Log, name: &str) -> Result<PathBuf, LogError> {
        let from = log.directory().to_owned();
        let Some(managed) = self.directory_of(&from) else {
            return Err(LogError::Malformed {
                path: from,
                reason: "it is in none of the data directories".to_owned(),
            });
        };
        let to = managed.path.join(name);
        if let (Some(_), Some(directory)) = (log.first_dirty_offset(), managed.usable()) {
            directory.forget_first_dirty(&*self.environment.disk, log.partition())?;
        }
        self.environment.disk.rename(&from, &to)?;
        if !names::is_future_directory(&from) {
            managed.logs.fetch_sub(1, Ordering::Relaxed);
        }
        log.release();
        Ok(to)
    }

    /// Stores where all logs stand, so that recovery after a crash begins there. Called every
    /// `log.flush.offset.checkpoint.interval.ms` with the points of all logs, after
    /// [`Log::begin_checkpoint`] has moved those that changed.
    pub fn store_checkpoints(&self, points: &[LogPoints]) -> Result<(), LogError> {
        self.in_each(|directory| {
            let mut recovery_points = HashMap::new();
            let mut log_starts = HashMap::new();
            for point in points.iter().filter(|point| point.directory == directory.path) {
                recovery_points.insert(point.partition.clone(), point.recovery_point.0);
                if let Some(log_start) = point.log_start {
                    log_starts.insert(point.partition.clone(), log_start.0);
                }
            }
            directory.store_offsets(&*self.environment.disk, &recovery_points, &log_starts)
        })
    }

    /// Stores up to where all logs have been compacted. Called after a compaction; should a crash
    /// come first, some of it is done again.
    pub fn store_cleaner_offsets(&self, points: &[LogPoints]) -> Result<(), LogError> {
        self.in_each(|directory| {
            let first_dirty = points
                .iter()
                .filter(|point| point.directory == directory.path)
                .filter_map(|point| Some((point.partition.clone(), point.first_dirty?.0)))
                .collect();
            directory.store_first_dirty(&*self.environment.disk, &first_dirty)
        })
    }

    /// Does `work` in each directory in use, also when one of them refuses; the first error is
    /// returned.
    fn in_each(
        &self,
        work: impl Fn(&DataDirectory) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let usable = self.directories.iter().filter_map(ManagedDirectory::usable);
        let outcomes: Vec<_> = usable.map(work).collect();
        outcomes.into_iter().collect()
    }

    /// Closes all logs with `close`, which locks a log and calls [`Log::close`], and leaves the
    /// directories in good order, for another process to take over. A directory of which a log could not be closed is left for
    /// recovery; the errors are returned.
    pub fn shut_down<L: Send>(
        &self,
        threads: usize,
        logs: Vec<L>,
        close: impl Fn(L) -> Result<LogPoints, LogError> + Sync,
    ) -> Result<Vec<LogError>, LogError> {
        let mut points = Vec::new();
        let mut errors = Vec::new();
        for outcome in in_parallel(threads, logs, close) {
            match outcome {
                Ok(point) => points.push(point),
                Err(error) => errors.push(error),
            }
        }
        self.store_checkpoints(&points)?;
        self.store_cleaner_offsets(&points)?;
        for managed in &self.directories {
            let Some(directory) = managed.usable() else { continue };
            let closed = points.iter().filter(|point| point.directory == directory.path).count();
            if closed == managed.logs.load(Ordering::Relaxed) {
                directory.leave_marker(&*self.environment.disk)?;
            } else {
                tracing::warn!(
                    directory = %directory.path.display(),
                    "not all logs were closed: the next start will recover them"
                );
            }
        }
        let claimed = self.directories.iter().filter_map(|managed| managed.claimed.as_ref());
        claimed.for_each(DataDirectory::unlock);
        Ok(errors)
    }

    pub(crate) fn directory_of(&self, log: &Path) -> Option<&ManagedDirectory> {
        let parent = log.parent()?;
        self.directories.iter().find(|managed| managed.path == parent)
    }
}

/// Lists the logs of a data directory.
fn find_logs(
    environment: &Environment,
    directory: &DataDirectory,
    inheritance: &Inheritance,
    config_for: &(dyn Fn(&TopicPartition) -> Arc<LogConfig> + Sync),
) -> Result<Vec<OpenOptions>, LogError> {
    let mut found = Vec::new();
    for entry in environment.disk.list(&directory.path)? {
        if entry.kind != EntryKind::Directory || entry.name == METADATA_LOG {
            continue;
        }
        let path = directory.path.join(&entry.name);
        if entry.name.ends_with(names::DELETE_DIRECTORY_SUFFIX) {
            environment.deletions.add(0, Doomed::Directory(path));
            continue;
        }
        if entry.name.ends_with(names::STRAY_DIRECTORY_SUFFIX) {
            tracing::warn!(path = %path.display(), "a log that no topic claims is still set aside");
            continue;
        }
        let is_future = names::is_future_directory(&path);
        let partition = match is_future {
            true => names::parse_future_directory_name(&entry.name),
            false => names::parse_log_directory_name(&entry.name),
        };
        let Some(partition) = partition else {
            tracing::warn!(path = %path.display(), "leaving alone what is not the directory of a log");
            continue;
        };
        // What stands in the checkpoints is about the log that bears the plain name.
        let offset = |offsets: &HashMap<TopicPartition, i64>| {
            Offset(offsets.get(&partition).copied().filter(|_| !is_future).unwrap_or(0))
        };
        found.push(OpenOptions {
            directory: path,
            topic_id: None,
            config: config_for(&partition),
            recovery_point: offset(&inheritance.recovery_points),
            log_start: offset(&inheritance.log_starts),
            first_dirty: inheritance
                .first_dirty
                .get(&partition)
                .copied()
                .filter(|_| !is_future)
                .map(Offset),
            // Nobody closes a copy.
            had_clean_shutdown: inheritance.had_clean_shutdown && !is_future,
            partition,
        });
    }
    Ok(found)
}

/// Does `work` on `threads` threads and returns the outcomes, in no order.
fn in_parallel<I: Send, O: Send>(
    threads: usize,
    work: Vec<I>,
    act: impl Fn(I) -> O + Sync,
) -> Vec<O> {
    let threads = threads.clamp(1, work.len().max(1));
    if threads == 1 {
        return work.into_iter().map(act).collect();
    }
    let outcomes = Mutex::new(Vec::with_capacity(work.len()));
    let work = Mutex::new(work.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let item = work.lock().next();
                    let Some(item) = item else { break };
                    let outcome = act(item);
                    outcomes.lock().push(outcome);
                }
            });
        }
    });
    outcomes.into_inner()
}

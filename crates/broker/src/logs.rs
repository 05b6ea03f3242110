//! The data directories of a broker, and the logs in them.
//!
//! At the start the directories are claimed and every log in them is opened. The metadata log is
//! read in the middle of that: after the directories are locked, because nobody else may touch
//! it, and before the other logs are opened, because it says what settings they have.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fleuve_metadata::config::{BrokerSettings, ConfigMap, Value};
use fleuve_metadata::controller::{DirectoryAssignment, METADATA_TOPIC};
use fleuve_metadata::image::{Image, directory};
use fleuve_os::Disk;
use fleuve_protocol::Str;
use fleuve_storage::{
    DirectoryError, Environment, FailedLog, Flusher, Limits, Log, LogConfig, LogError, LogManager,
    LogPoints, ManagerOptions, Opened, SpaceReserve,
};
use fleuve_types::{TopicPartition, Uuid};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::Components;
use crate::log_config::log_config_of;
use crate::metadata_log::MetadataReplayError;
use crate::metadata_store::{self, FoundMetadata, MetadataStoreError};
use crate::partition::{Partition, Surroundings};

/// Threads that close logs. Closing waits for the disk several times, and the file system serves
/// several waiting threads with one commit.
const CLOSING_THREADS: usize = 8;

/// What all logs together may hold, so that connections are not left without descriptors.
pub(crate) fn log_limits(disk: &dyn Disk) -> Limits {
    Limits::within(disk.open_files_max())
}

/// Why the data directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// A directory cannot be claimed or read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The metadata log cannot be opened or understood.
    #[error(transparent)]
    Metadata(#[from] MetadataStoreError),
    /// There are logs, but nothing says to which topics they belong.
    #[error(
        "`{}` holds {count} partitions, but its metadata log is missing or empty; \
         restore `{METADATA_TOPIC}-0` or move the partitions away",
        directory.display()
    )]
    NoMetadata {
        /// The directory where the metadata log should be.
        directory: PathBuf,
        /// How many logs there are.
        count: usize,
    },
}

/// The data directories in use.
#[derive(Debug)]
pub(crate) struct Logs {
    environment: Environment,
    disk: Arc<dyn Disk>,
    manager: LogManager,
    /// What is kept back for ourselves when a disk is full.
    pub(crate) reserve: Arc<SpaceReserve>,
    /// Logs found at the start that no topic has claimed yet.
    found: Mutex<HashMap<TopicPartition, Log>>,
    metadata_directory: PathBuf,
    /// Copies found at the start that were on their way to another directory.
    futures: Mutex<HashMap<TopicPartition, Log>>,
    /// Partitions whose log was found at the start and could not be opened.
    damaged: HashSet<TopicPartition>,
    /// Where partitions are to be made that do not exist yet.
    preferred: Mutex<HashMap<TopicPartition, PathBuf>>,
    /// Where partitions were made that had the choice, until it is written down.
    pub(crate) chosen: Mutex<Vec<DirectoryAssignment>>,
    /// Told when a move was asked for.
    pub(crate) moves_asked: Notify,
    /// Told when a disk refused something.
    pub(crate) disk_trouble: Arc<Notify>,
    was_clean: bool,
    /// Held while logs are checkpointed or closed, which must not happen at once.
    upkeep: Mutex<()>,
}

/// Bytes of a volume, as far as it tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) free: Option<i64>,
    pub(crate) total: Option<i64>,
}

/// A log that a topic's partition needs.
#[derive(Debug)]
pub(crate) struct WantedLog<'a> {
    pub(crate) name: &'a TopicPartition,
    pub(crate) topic_id: Uuid,
    /// The data directory it lies in, as far as that is written down.
    pub(crate) assigned: Uuid,
    pub(crate) config: Arc<LogConfig>,
}

/// Sets the logs aside that bear the name of a topic that is alive and has a log of its own, as a
/// directory brings back that was away when the topic was deleted and made again.
fn set_namesakes_aside(manager: &LogManager, image: &Image, logs: Vec<Log>) -> Vec<Log> {
    let is_alive = |log: &Log| {
        let topic = image.topics().by_name(&log.partition().topic);
        topic.is_some_and(|topic| log.topic_id() == Some(topic.id))
    };
    let alive: HashSet<TopicPartition> =
        logs.iter().filter(|log| is_alive(log)).map(|log| log.partition().clone()).collect();
    let mut kept: Vec<Log> = Vec::with_capacity(logs.len());
    for log in logs {
        let is_second = kept.last().is_some_and(|last| last.partition() == log.partition());
        if is_alive(&log) || (!alive.contains(log.partition()) && !is_second) {
            kept.push(log);
            continue;
        }
        set_aside(manager, log);
    }
    kept
}

fn set_aside(manager: &LogManager, log: Log) {
    let name = log.partition().clone();
    match manager.set_aside(log) {
        Ok(directory) => tracing::warn!(
            partition = %name, directory = %directory.display(),
            "setting aside a log that no topic claims; delete it by hand"
        ),
        Err(error) => {
            tracing::error!(partition = %name, %error, "a stray log cannot be set aside");
        }
    }
}

impl Logs {
    /// Claims the directories and opens what is in them; blocks.
    pub(crate) fn open(
        settings: &BrokerSettings,
        world: &Components,
    ) -> Result<(Self, FoundMetadata), LogsError> {
        let environment = Environment::new(
            Arc::clone(&world.disk),
            Arc::clone(&world.clock),
            Arc::clone(&world.random),
            log_limits(&*world.disk),
        );
        // Clients name directories by the paths that they were told, so these must be whole.
        let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let directories: Vec<PathBuf> = settings.log.dirs.iter().map(whole).collect();
        let reserve =
            SpaceReserve::new(Arc::clone(&world.disk), &directories, settings.log.reserve_bytes);
        let directory = directories.first().cloned().unwrap_or_default();
        let directory = directory.join(format!("{METADATA_TOPIC}-0"));
        // Asked for by the first log that is found, and by then the directories are locked.
        let metadata = OnceLock::new();
        let read = || -> Result<(FoundMetadata, Image), MetadataStoreError> {
            let found = metadata_store::open(
                &environment,
                &*world.disk,
                directory.clone(),
                &settings.metadata_log,
            )?;
            let mut image = Image::new(Str::EMPTY);
            for (offset, record) in &found.records {
                image
                    .apply(record)
                    .map_err(|error| MetadataReplayError::Apply { offset: *offset, error })?;
            }
            Ok((found, image))
        };
        let config_for = |partition: &TopicPartition| match metadata.get_or_init(read) {
            Ok((_, image)) => log_config_of(settings, image, &partition.topic),
            Err(_) => Arc::new(LogConfig::default()),
        };
        let opened = LogManager::open(
            &environment,
            ManagerOptions {
                directories,
                node_id: settings.node.id.0,
                cluster_id: None,
                recovery_threads: settings.log.recovery_threads_per_dir,
                config_for: &config_for,
            },
        )?;
        let Opened { manager, logs, futures, failed, recovery, had_clean_shutdown } = opened;
        reserve.look();
        let (metadata, image) = metadata.into_inner().unwrap_or_else(read)?;
        if metadata.records.is_empty() && !(logs.is_empty() && failed.is_empty()) {
            let count = logs.len() + failed.len();
            return Err(LogsError::NoMetadata { directory, count });
        }
        for FailedLog { directory, error, .. } in &failed {
            tracing::error!(path = %directory.display(), %error, "a log cannot be opened");
        }
        if recovery.cut_bytes > 0 {
            tracing::warn!(
                bytes = recovery.cut_bytes,
                "the last process ended abruptly; unfinished writes were cut off"
            );
        }
        let by_name = |logs: Vec<Log>| {
            logs.into_iter().map(|log| (log.partition().clone(), log)).collect::<HashMap<_, _>>()
        };
        let logs = set_namesakes_aside(&manager, &image, logs);
        let (found, futures) = (by_name(logs), by_name(futures));
        let opened = Self {
            environment,
            disk: Arc::clone(&world.disk),
            manager,
            reserve: Arc::new(reserve),
            found: Mutex::new(found),
            metadata_directory: directory,
            futures: Mutex::new(futures),
            damaged: failed.into_iter().map(|failed| failed.partition).collect(),
            preferred: Mutex::default(),
            chosen: Mutex::default(),
            moves_asked: Notify::new(),
            disk_trouble: Arc::default(),
            was_clean: had_clean_shutdown,
            upkeep: Mutex::default(),
        };
        Ok((opened, metadata))
    }

    /// The id of the cluster that the directories belong to.
    pub(crate) fn cluster_id(&self) -> Str {
        Str::copy_from(self.manager.cluster_id())
    }

    /// What all logs share.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The data directories.
    pub(crate) fn manager(&self) -> &LogManager {
        &self.manager
    }

    /// The directory of the metadata log, and the disk it is on.
    pub(crate) fn metadata_place(&self) -> (&dyn Disk, &Path) {
        (&*self.disk, &self.metadata_directory)
    }

    /// The bytes of the volume that a data directory lies on.
    pub(crate) fn space(&self, path: &Path) -> Space {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Space {
            free: self.disk.free_space(path).ok().map(signed),
            total: self.disk.total_space(path).ok().map(signed),
        }
    }

    /// The ids of the directories in use.
    pub(crate) fn directory_ids(&self) -> Vec<Uuid> {
        let in_use = self.manager.directories().filter(|directory| directory.failure.is_none());
        in_use.filter_map(|directory| directory.id).collect()
    }

    /// The ids of the directories that take no new partitions.
    pub(crate) fn cordoned_ids(&self) -> Vec<Uuid> {
        let cordoned =
            self.manager.directories().filter(|known| self.manager.is_cordoned(&known.path));
        cordoned.filter_map(|directory| directory.id).collect()
    }

    /// Puts `cordoned.log.dirs` in force.
    pub(crate) fn cordon(&self, settings: &BrokerSettings, node: &ConfigMap, cluster: &ConfigMap) {
        let listed = match settings.layers(node, cluster).value("cordoned.log.dirs") {
            Some(Value::List(listed)) => listed,
            _ => Vec::new(),
        };
        let is_cordoned = |path: &Path| {
            let whole = |listed: &String| std::path::absolute(listed).is_ok_and(|it| it == path);
            listed.iter().any(|listed| listed == "*" || whole(listed))
        };
        let paths = self.manager.directories().map(|directory| directory.path);
        self.manager.cordon(paths.filter(|path| is_cordoned(path)).collect());
    }

    /// Remembers where a partition is to be made once its topic is created.
    pub(crate) fn prefer_directory(&self, name: TopicPartition, directory: &Path) {
        /// More wishes than this are somebody's mistake.
        const WISHES_MAX: usize = 10_000;
        let mut preferred = self.preferred.lock();
        if preferred.len() < WISHES_MAX {
            preferred.insert(name, directory.to_owned());
        }
    }

    /// What partitions need of the broker.
    pub(crate) fn surroundings(
        &self,
        flusher: &Arc<Flusher>,
        flush_before_ack: bool,
    ) -> Surroundings {
        Surroundings {
            flusher: Arc::downgrade(flusher),
            flush_before_ack,
            disk_trouble: Arc::clone(&self.disk_trouble),
            reserve: Arc::clone(&self.reserve),
            directories: self.manager.directories().map(|directory| directory.path).collect(),
        }
    }

    /// Takes the copy of a partition's log that was found at the start; blocks.
    pub(crate) fn take_future(&self, name: &TopicPartition, topic_id: Uuid) -> Option<Log> {
        let copy = self.futures.lock().remove(name)?;
        if copy.topic_id().is_some_and(|other| other != topic_id) {
            set_aside(&self.manager, copy);
            return None;
        }
        Some(copy)
    }

    /// Reports whether the last process left everything in good order.
    pub(crate) fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Takes the log of a partition that was found at the start, or makes it; blocks.
    pub(crate) fn open_log(&self, wanted: WantedLog<'_>) -> Result<Log, LogError> {
        let WantedLog { name, topic_id, assigned, config } = wanted;
        let found = self.found.lock().remove(name);
        if let Some(mut log) = found {
            match log.topic_id() {
                Some(other) if other != topic_id => {
                    // An earlier topic of this name, or a later one that the metadata has lost.
                    let directory = self.manager.set_aside(log)?;
                    tracing::warn!(
                        partition = %name, topic = %other, directory = %directory.display(),
                        "setting aside the log of another topic of this name; delete it by hand"
                    );
                }
                known => {
                    if known.is_none() {
                        log.set_topic_id(topic_id)?;
                    }
                    log.set_config(config);
                    self.note_place(&log, topic_id, assigned);
                    return Ok(log);
                }
            }
        }
        self.check_absence(name, assigned)?;
        let preferred = self.preferred.lock().remove(name);
        let log = self.manager.create(name.clone(), topic_id, config, preferred.as_deref())?;
        self.note_place(&log, topic_id, assigned);
        Ok(log)
    }

    /// Sees to it that it is written down where a log lies: should that directory fail, it is not
    /// made anew elsewhere.
    fn note_place(&self, log: &Log, topic_id: Uuid, assigned: Uuid) {
        let directory = log.directory().parent().and_then(|root| self.manager.directory_id(root));
        if let Some(directory) = directory.filter(|id| *id != assigned) {
            let partition = log.partition().partition;
            self.chosen.lock().push(DirectoryAssignment { topic_id, partition, directory });
        }
    }

    /// Refuses to make a log anew that exists where we cannot get at it now.
    fn check_absence(&self, name: &TopicPartition, assigned: Uuid) -> Result<(), LogError> {
        let mut directories = self.manager.directories();
        let is_elsewhere = assigned != directory::UNASSIGNED
            && !self.directory_ids().contains(&assigned)
            && directories.any(|directory| directory.failure.is_some());
        if !is_elsewhere && !self.damaged.contains(name) {
            return Ok(());
        }
        Err(LogError::Failed {
            directory: name.to_string().into(),
            reason: "its data directory is out of use, or its log cannot be opened".to_owned(),
        })
    }

    /// Sets the logs aside that were found at the start and belong to no topic; blocks.
    ///
    /// Like Kafka it deletes none of them: metadata restored from a backup knows none of the topics
    /// created since. What a crash keeps of a topic deleted just before is set aside as well.
    pub(crate) fn set_strays_aside(&self, image: &Image) {
        let logs = std::mem::take(&mut *self.found.lock());
        let mut copies = std::mem::take(&mut *self.futures.lock());
        copies.retain(|name, copy| {
            let topic = image.topics().by_name(&name.topic);
            let is_known = topic.is_some_and(|topic| {
                copy.topic_id() == Some(topic.id) && topic.partition(name.partition).is_some()
            });
            if is_known {
                // The next start may find both.
                tracing::warn!(partition = %name, "leaving alone a copy whose original is offline");
            }
            !is_known
        });
        for log in logs.into_values().chain(copies.into_values()) {
            set_aside(&self.manager, log);
        }
    }

    /// Takes a partition's log away and has it removed after the delay; blocks.
    pub(crate) fn remove_log(&self, partition: &Partition) -> Result<(), LogError> {
        partition.cancel_move(&self.manager)?;
        match partition.take_log() {
            Some(log) => self.manager.delete(log),
            None => Ok(()),
        }
    }

    /// Removes files whose deletion delay is over; blocks.
    pub(crate) fn remove_deleted_files(&self) -> Result<(), LogError> {
        Ok(self.environment.remove_deleted_files()?)
    }

    /// Has recovery begin at the present end of every log; blocks.
    pub(crate) fn checkpoint(
        &self,
        metadata: &Arc<Partition>,
        partitions: &[Arc<Partition>],
    ) -> Result<(), LogError> {
        let _upkeep = self.upkeep.lock();
        metadata.checkpoint()?;
        let mut points: Vec<LogPoints> = Vec::with_capacity(partitions.len());
        for partition in partitions {
            match partition.checkpoint() {
                Ok(point) => points.extend(point),
                // A log that has failed said so when it did.
                Err(_) if partition.has_failed() => {}
                Err(error) => return Err(error),
            }
        }
        self.manager.store_checkpoints(&points)
    }

    /// Writes down up to where logs have been compacted; blocks.
    pub(crate) fn store_cleaner_offsets(
        &self,
        partitions: &[Arc<Partition>],
    ) -> Result<(), LogError> {
        let _upkeep = self.upkeep.lock();
        let online = || partitions.iter().filter(|partition| !partition.is_offline());
        let points: Vec<LogPoints> = online().filter_map(|partition| partition.points()).collect();
        if points.len() < online().count() {
            // Some are closed or deleted at this moment: what they had must not be forgotten, and
            // closing writes the same.
            return Ok(());
        }
        self.manager.store_cleaner_offsets(&points)
    }

    /// Closes every log and leaves word that all is well; blocks.
    pub(crate) fn close(
        &self,
        metadata: &Partition,
        partitions: Vec<Arc<Partition>>,
    ) -> Result<(), LogError> {
        let _upkeep = self.upkeep.lock();
        metadata.close()?;
        let mut partitions = partitions;
        partitions.retain(|partition| !partition.is_offline());
        let close = |partition: Arc<Partition>| partition.close();
        let errors = self.manager.shut_down(CLOSING_THREADS, partitions, close)?;
        errors.into_iter().next().map_or(Ok(()), Err)
    }
}

//! The data directories of a broker, and the logs in them.
//!
//! At the start the directories are claimed and every log in them is opened. The metadata log is
//! read in the middle of that: after the directories are locked, because nobody else may touch
//! it, and before the other logs are opened, because it says what settings they have.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fleuve_metadata::config::BrokerSettings;
use fleuve_metadata::image::Image;
use fleuve_metadata::record::Record;
use fleuve_os::Disk;
use fleuve_protocol::Str;
use fleuve_storage::{
    CleanupPolicy, DirectoryError, Environment, Limits, Log, LogConfig, LogError, LogManager,
    LogPoints, ManagerOptions, OpenOptions, Opened, ReadRequest,
};
use fleuve_types::{Offset, TopicPartition, Uuid};
use parking_lot::Mutex;

use crate::broker::Components;
use crate::log_config::log_config_of;
use crate::metadata_log::{METADATA_TOPIC, MetadataReplayError, decode};
use crate::partition::Partition;
use crate::replay;

/// Threads that close logs. Closing waits for the disk several times, and the file system serves
/// several waiting threads with one commit.
const CLOSING_THREADS: usize = 8;

/// Why the data directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// A directory cannot be claimed or read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The metadata log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The metadata log cannot be understood.
    #[error(transparent)]
    Metadata(#[from] MetadataReplayError),
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
    /// Logs found at the start that no topic has claimed yet.
    found: Mutex<HashMap<TopicPartition, Log>>,
    was_clean: bool,
    /// Held while logs are checkpointed or closed, which must not happen at once.
    upkeep: Mutex<()>,
}

/// The metadata log as it was found.
#[derive(Debug)]
pub(crate) struct FoundMetadata {
    pub(crate) log: Log,
    pub(crate) records: Vec<(Offset, Record)>,
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
            Limits::default(),
        );
        let directory = settings.log.dirs.first().cloned().unwrap_or_default();
        let directory = directory.join(format!("{METADATA_TOPIC}-0"));
        // Asked for by the first log that is found, and by then the directories are locked.
        let metadata = OnceLock::new();
        let read = || read_metadata(&environment, directory.clone());
        let config_for = |partition: &TopicPartition| match metadata.get_or_init(read) {
            Ok((_, image)) => log_config_of(settings, image, &partition.topic),
            Err(_) => Arc::new(LogConfig::default()),
        };
        let Opened { manager, logs, failed, recovery, had_clean_shutdown } = LogManager::open(
            &environment,
            ManagerOptions {
                directories: settings.log.dirs.clone(),
                node_id: settings.node.id.0,
                cluster_id: None,
                recovery_threads: settings.log.recovery_threads_per_dir,
                config_for: &config_for,
            },
        )?;
        let (metadata, _) = metadata.into_inner().unwrap_or_else(read)?;
        if metadata.records.is_empty() && !(logs.is_empty() && failed.is_empty()) {
            let count = logs.len() + failed.len();
            return Err(LogsError::NoMetadata { directory, count });
        }
        for (path, error) in &failed {
            tracing::error!(path = %path.display(), %error, "a log cannot be opened");
        }
        if recovery.cut_bytes > 0 {
            tracing::warn!(
                bytes = recovery.cut_bytes,
                "the last process ended abruptly; unfinished writes were cut off"
            );
        }
        let found = logs.into_iter().map(|log| (log.partition().clone(), log)).collect();
        let opened = Self {
            environment,
            disk: Arc::clone(&world.disk),
            manager,
            found: Mutex::new(found),
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

    /// The directories, each with the bytes that are free on its volume, as far as it tells.
    pub(crate) fn free_space(&self) -> Vec<(PathBuf, Option<i64>)> {
        let free = |path: &Path| {
            self.disk.free_space(path).ok().map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
        };
        self.manager.directories().map(|(path, _)| (path.to_owned(), free(path))).collect()
    }

    /// The ids of the directories.
    pub(crate) fn directory_ids(&self) -> Vec<Uuid> {
        self.manager.directories().map(|(_, id)| id).collect()
    }

    /// Reports whether the last process left everything in good order.
    pub(crate) fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Takes the log of a partition that was found at the start, or makes it; blocks.
    pub(crate) fn open_log(
        &self,
        name: &TopicPartition,
        topic_id: Uuid,
        config: Arc<LogConfig>,
    ) -> Result<Log, LogError> {
        let found = self.found.lock().remove(name);
        if let Some(mut log) = found {
            match log.topic_id() {
                Some(other) if other != topic_id => {
                    // The deletion of an earlier topic of this name did not reach the disk.
                    tracing::warn!(partition = %name, topic = %other, "removing a deleted topic's log");
                    self.manager.delete(log)?;
                }
                known => {
                    if known.is_none() {
                        log.set_topic_id(topic_id)?;
                    }
                    log.set_config(config);
                    return Ok(log);
                }
            }
        }
        self.manager.create(name.clone(), topic_id, config)
    }

    /// Removes the logs found at the start that belong to no topic any more; blocks.
    pub(crate) fn remove_strays(&self) {
        for (name, log) in std::mem::take(&mut *self.found.lock()) {
            tracing::warn!(partition = %name, "removing a log whose topic is deleted");
            if let Err(error) = self.manager.delete(log) {
                tracing::error!(partition = %name, %error, "a log cannot be removed");
            }
        }
    }

    /// Takes a partition's log away and has it removed after the delay; blocks.
    pub(crate) fn remove_log(&self, partition: &Partition) -> Result<(), LogError> {
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
        let points: Vec<LogPoints> =
            partitions.iter().filter_map(|partition| partition.points()).collect();
        if points.len() < partitions.len() {
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
        let close = |partition: Arc<Partition>| partition.close();
        let errors = self.manager.shut_down(CLOSING_THREADS, partitions, close)?;
        errors.into_iter().next().map_or(Ok(()), Err)
    }
}

fn read_metadata(
    environment: &Environment,
    directory: PathBuf,
) -> Result<(FoundMetadata, Image), LogsError> {
    let name = TopicPartition::new(METADATA_TOPIC, 0);
    // Nothing of it may ever go: it is the only place where topics are written down.
    let keep_all = LogConfig {
        cleanup: CleanupPolicy { delete: false, compact: false },
        retention_ms: None,
        ..LogConfig::default()
    };
    let options = OpenOptions::new(name, directory, Arc::new(keep_all));
    let (mut log, _) = Log::open(environment, options)?;
    let mut records = Vec::new();
    let mut failure = None;
    let range = log.log_start_offset().0..log.log_end_offset().0;
    let read = |offset, limit, bytes_max| {
        let request = ReadRequest {
            offset: Offset(offset),
            limit_offset: Offset(limit),
            max_bytes: bytes_max,
            min_one_batch: true,
        };
        Ok(log.read(request)?.into_parts())
    };
    replay::for_each_record_in(METADATA_TOPIC, range, read, |offset, _key, value| {
        match decode(offset, value) {
            Ok(record) => records.push((offset, record)),
            Err(error) => failure = failure.take().or(Some(error)),
        }
    })
    .map_err(MetadataReplayError::from)?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    let mut image = Image::new(Str::EMPTY);
    for (offset, record) in &records {
        image
            .apply(record)
            .map_err(|error| MetadataReplayError::Apply { offset: *offset, error })?;
    }
    Ok((FoundMetadata { log, records }, image))
}

//! The metadata log on disk: its records, and the checkpoints that replace its beginning.
//!
//! A checkpoint is written beside the log's segments under a name that ends in `.part`, synced,
//! renamed, and made durable by syncing the directory. Only records that are durable go into one,
//! so that the log is never behind it. What the newest checkpoint but one does not need goes when
//! `metadata.max.retention.*` says so, oldest first: checkpoints, then segments. At every moment
//! of that there is a whole checkpoint, or the log from its first record, with all records behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_metadata::checkpoint::{self, BOOTSTRAP_FILE, CheckpointError, CheckpointId};
use fleuve_metadata::config::MetadataLogSettings;
use fleuve_metadata::controller::METADATA_TOPIC;
use fleuve_metadata::record::Record;
use fleuve_os::{Disk, DiskError, OpenMode};
use fleuve_protocol::records::BatchHeader;
use fleuve_protocol::records::layout::HEADER_SIZE;
use fleuve_storage::{
    CleanupPolicy, Environment, Log, LogConfig, LogError, OpenOptions, ReadRequest,
};
use fleuve_types::{Offset, TopicPartition};

use crate::metadata_log::{MetadataReplayError, decode};
use crate::replay;

/// What the name of an unfinished checkpoint ends with.
const PART: &str = ".part";

/// Why the metadata could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MetadataStoreError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A checkpoint that is needed cannot be read.
    #[error("the metadata checkpoint `{}` cannot be read: {error}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: CheckpointError,
    },
    /// The beginning of the log is gone and nothing replaces it.
    #[error(
        "the metadata log begins at offset {log_start}, and no checkpoint in `{}` reaches so far",
        directory.display()
    )]
    Gap {
        /// Where the log begins.
        log_start: Offset,
        /// Where checkpoints are.
        directory: PathBuf,
    },
    /// The records of the log cannot be understood.
    #[error(transparent)]
    Replay(#[from] MetadataReplayError),
}

/// The metadata log as it was found.
#[derive(Debug)]
pub(crate) struct FoundMetadata {
    /// The log.
    pub(crate) log: Log,
    /// The newest checkpoint, if there is one.
    pub(crate) checkpoint: Option<CheckpointId>,
    /// What the checkpoint holds, then what the log holds behind it.
    pub(crate) records: Vec<(Offset, Record)>,
    /// The size of the latter in bytes.
    pub(crate) bytes_behind: u64,
    /// What a new cluster is to begin with; nothing if this is none.
    pub(crate) bootstrap: Vec<Record>,
}

/// Opens the metadata log and reads it, beginning with the newest checkpoint.
pub(crate) fn open(
    environment: &Environment,
    disk: &dyn Disk,
    directory: PathBuf,
    settings: &MetadataLogSettings,
) -> Result<FoundMetadata, MetadataStoreError> {
    let name = TopicPartition::new(METADATA_TOPIC, 0);
    let options = OpenOptions::new(name, directory.clone(), Arc::new(log_config(settings)));
    let (mut log, _) = Log::open(environment, options)?;
    let newest = newest_checkpoint(disk, &directory, log.log_start_offset())?;
    let mut records = Vec::new();
    let mut begin = log.log_start_offset();
    let mut checkpoint = None;
    if let Some((id, held)) = newest {
        records.extend(held.into_iter().map(|record| (id.end_offset, record)));
        begin = begin.max(id.end_offset);
        checkpoint = Some(id);
    }
    if log.log_end_offset() < begin {
        // Kafka's followers leave this when they are stopped after fetching a checkpoint.
        log.truncate_fully_and_start_at(begin)?;
    }
    let mut failure = None;
    let mut bytes_behind = 0;
    let range = begin.0..log.log_end_offset().0;
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
        // A batch is read whole also if the checkpoint ends within it.
        if offset < begin {
            return;
        }
        bytes_behind += value.as_ref().map_or(0, Bytes::len) as u64;
        match decode(offset, value) {
            Ok(record) => records.push((offset, record)),
            Err(error) => failure = failure.take().or(Some(error)),
        }
    })
    .map_err(MetadataReplayError::from)?;
    match failure {
        Some(error) => Err(error.into()),
        None => {
            let is_new = records.is_empty() && log.log_end_offset() == Offset(0);
            let bootstrap = if is_new { read_bootstrap(disk, &directory)? } else { Vec::new() };
            Ok(FoundMetadata { log, checkpoint, records, bytes_behind, bootstrap })
        }
    }
}

/// Reads what `kafka-storage.sh format` left for a new cluster to begin with, beside the directory
/// of the log.
fn read_bootstrap(disk: &dyn Disk, directory: &Path) -> Result<Vec<Record>, MetadataStoreError> {
    let Some(parent) = directory.parent() else { return Ok(Vec::new()) };
    if !disk.list(parent)?.iter().any(|entry| entry.name == BOOTSTRAP_FILE) {
        return Ok(Vec::new());
    }
    let path = parent.join(BOOTSTRAP_FILE);
    let read = checkpoint::decode(disk.read_file(&path)?);
    read.map_err(|error| MetadataStoreError::Checkpoint { path, error })
}

/// Segments are as large as the operator says; nothing goes but what checkpoints replace.
fn log_config(settings: &MetadataLogSettings) -> LogConfig {
    LogConfig {
        cleanup: CleanupPolicy { delete: false, compact: false },
        retention_ms: None,
        segment_bytes: settings.segment_bytes,
        segment_ms: settings.segment_ms,
        // After a crash one batch has a record for every partition: it must never be too large.
        max_message_bytes: i32::MAX as u32,
        ..LogConfig::default()
    }
}

/// Reads the newest checkpoint. One that is damaged only matters if the log does not go back to
/// the one before it.
fn newest_checkpoint(
    disk: &dyn Disk,
    directory: &Path,
    log_start: Offset,
) -> Result<Option<(CheckpointId, Vec<Record>)>, MetadataStoreError> {
    let mut damaged = None;
    for id in list(disk, directory)?.into_iter().rev() {
        if id.end_offset < log_start {
            break;
        }
        let path = directory.join(id.to_string());
        match checkpoint::decode(disk.read_file(&path)?) {
            Ok(records) => return Ok(Some((id, records))),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a metadata checkpoint is damaged");
                damaged = damaged.or(Some(MetadataStoreError::Checkpoint { path, error }));
            }
        }
    }
    match damaged {
        _ if log_start == Offset(0) => Ok(None),
        Some(error) => Err(error),
        None => Err(MetadataStoreError::Gap { log_start, directory: directory.to_owned() }),
    }
}

/// Lists the checkpoints, oldest first.
pub(crate) fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<CheckpointId>, DiskError> {
    let entries = disk.list(directory)?;
    let mut ids: Vec<_> =
        entries.iter().filter_map(|entry| CheckpointId::from_file_name(&entry.name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Writes a checkpoint, durably; blocks.
pub(crate) fn write(
    disk: &dyn Disk,
    directory: &Path,
    id: CheckpointId,
    batches: &[Bytes],
) -> Result<(), DiskError> {
    let path = directory.join(id.to_string());
    let unfinished = directory.join(format!("{id}{PART}"));
    let file = disk.open(&unfinished, OpenMode::Create)?;
    file.set_len(0)?;
    let mut position = 0;
    for batch in batches {
        file.write_at(batch, position)?;
        position += batch.len() as u64;
    }
    file.sync_all()?;
    disk.rename(&unfinished, &path)?;
    disk.sync_dir(directory)
}

/// Finds how far the log need not go back: all but the newest checkpoints are given up as long as
/// they and the log take more than `retention_bytes`, or were written before `oldest_ms`.
///
/// Returns what to give up, and where the log may then begin.
pub(crate) fn find_expired(
    disk: &dyn Disk,
    directory: &Path,
    log_bytes: u64,
    settings: &MetadataLogSettings,
    now_ms: i64,
) -> Result<(Vec<CheckpointId>, Option<Offset>), DiskError> {
    let ids = list(disk, directory)?;
    let mut sizes = Vec::with_capacity(ids.len());
    for id in &ids {
        sizes.push(disk.open(&directory.join(id.to_string()), OpenMode::Read)?.len()?);
    }
    let mut total = log_bytes + sizes.iter().sum::<u64>();
    let mut expired = Vec::new();
    let mut begin = None;
    for (pair, size) in ids.windows(2).zip(&sizes) {
        let too_large = settings.retention_bytes.is_some_and(|most| total > most);
        let too_old = match settings.retention_ms {
            Some(most) if !too_large => written_ms(disk, &directory.join(pair[0].to_string()))?
                .is_some_and(|written| now_ms.saturating_sub(written) > most),
            _ => false,
        };
        if !too_large && !too_old {
            break;
        }
        total -= size;
        expired.push(pair[0]);
        begin = Some(pair[1].end_offset);
    }
    Ok((expired, begin))
}

/// When a checkpoint was written: the time in the header of its first batch.
fn written_ms(disk: &dyn Disk, path: &Path) -> Result<Option<i64>, DiskError> {
    let file = disk.open(path, OpenMode::Read)?;
    let head = file.read_bytes_at(0, HEADER_SIZE)?;
    Ok(BatchHeader::parse(&head).ok().map(|header| header.max_timestamp.0))
}

/// Removes checkpoints that are given up, and what a crash left unfinished; blocks.
pub(crate) fn remove(
    disk: &dyn Disk,
    directory: &Path,
    expired: &[CheckpointId],
) -> Result<(), DiskError> {
    let names = expired.iter().map(ToString::to_string);
    let unfinished = disk.list(directory)?.into_iter().map(|entry| entry.name);
    let unfinished = unfinished.filter(|name| {
        name.strip_suffix(PART).is_some_and(|name| CheckpointId::from_file_name(name).is_some())
    });
    let names: Vec<String> = names.chain(unfinished).collect();
    for name in &names {
        disk.remove_file(&directory.join(name))?;
    }
    if names.is_empty() { Ok(()) } else { disk.sync_dir(directory) }
}

#[cfg(test)]
#[path = "metadata_store_tests.rs"]
mod tests;

//! Making records durable, outside the lock that guards appends.
//!
//! ```text
//!   under the lock            outside               under the lock
//!   begin_flush      ──►      FlushJob::run   ──►   finish_flush
//! ```
//!
//! A job holds the files with unsynced writes and the offset up to which they reach. Appends go on
//! meanwhile and wait for the next job. A plain flush syncs records; a checkpoint also writes and
//! syncs the indexes of the active segment and the epochs, and only that moves the recovery point:
//! recovery trusts indexes before the recovery point and looks at every byte behind it.
//!
//! When a sync fails, the operating system forgets which bytes were concerned, and the next sync
//! would succeed without them. So a failed flush is final: the log takes no more records until it
//! is opened again and has looked at what is really there. Only when all that was wrong was a full
//! disk, the log writes again what may be lost ([`super::rewriting`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fleuve_os::{Disk, DiskResult, File, OpenMode};
use fleuve_types::Offset;

use super::partition_log::Log;
use crate::checkpoint;
use crate::environment::{Holding, OpenFiles};
use crate::error::LogError;
use crate::manager::LogPoints;

/// The slow part of a flush.
#[derive(Debug)]
pub struct FlushJob {
    /// The directory of the log.
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    open_files: Arc<OpenFiles>,
    files: Vec<Arc<dyn File>>,
    _holding: Option<Holding>,
    closed_files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    epochs: Option<(PathBuf, String)>,
    /// Whether there was no space for the epochs.
    lacks_epochs: AtomicBool,
    up_to: i64,
    recovery_point: i64,
    truncations: u64,
}

impl FlushJob {
    /// Reports whether it is about epochs, too.
    pub(super) fn has_epochs(&self) -> bool {
        self.epochs.is_some()
    }

    /// Returns the files and the directories that it was to sync.
    pub(super) fn into_paths(self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mut files: Vec<PathBuf> =
            self.files.iter().map(|file| file.path().to_owned()).collect();
        files.extend(self.closed_files);
        (files, self.directories)
    }

    /// Syncs what the job holds; takes as long as the disk needs.
    pub fn run(&self) -> Result<(), LogError> {
        for file in &self.files {
            file.sync_data()?;
        }
        // What is gone has been deleted in the meantime, or the whole log has: nothing of it has to
        // be durable any more.
        for path in &self.closed_files {
            if let Some(file) =
                unless_gone(self.open_files.open(&*self.disk, path, OpenMode::Read))?
            {
                file.sync_data()?;
            }
        }
        if let Some((path, content)) = &self.epochs {
            match unless_gone(self.disk.replace_file(path, content.as_bytes())) {
                // The file is as it was, and whatever else the job is about does not depend on it.
                Err(error) if error.is_out_of_space() => {
                    self.lacks_epochs.store(true, Ordering::Relaxed);
                }
                replaced => _ = replaced?,
            }
        }
        for directory in &self.directories {
            unless_gone(self.disk.sync_dir(directory))?;
        }
        Ok(())
    }
}

fn unless_gone<T>(outcome: DiskResult<T>) -> DiskResult<Option<T>> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(None),
        outcome => outcome.map(Some),
    }
}

impl Log {
    /// Reports whether there are records that would not survive a power failure.
    pub fn needs_flush(&self) -> bool {
        self.durability.flushed_offset < self.next_offset
    }

    /// Takes over what must be synced so that all records up to now are durable; `None` when there
    /// is nothing, or a flush is under way, or the log has failed or lacks space.
    pub fn begin_flush(&mut self) -> Option<FlushJob> {
        if !self.settle_lost_writes() {
            return None;
        }
        let durability = &self.durability;
        let has_work = self.needs_flush() || durability.is_dirty();
        if !has_work || durability.is_flushing || durability.failure.is_some() {
            return None;
        }
        // The indexes of rolled segments are among the files. Those of the active segment are not,
        // and neither are new epochs.
        let sealed_end = self.segments.last().map_or(0, |active| active.base_offset());
        let recovery_point = match durability.epochs_changed {
            true => durability.recovery_point,
            false => durability.recovery_point.max(sealed_end.min(self.next_offset)),
        };
        Some(self.begin(recovery_point, None))
    }

    /// Takes over what must be synced so that recovery could begin at the present end of the log;
    /// `None` as for [`Log::begin_flush`].
    pub fn begin_checkpoint(&mut self) -> Result<Option<FlushJob>, LogError> {
        if !self.settle_lost_writes() {
            return Ok(None);
        }
        let durability = &self.durability;
        let has_work = durability.recovery_point < self.next_offset
            || durability.is_dirty()
            || durability.epochs_changed;
        if !has_work || durability.is_flushing || durability.failure.is_some() {
            return Ok(None);
        }
        if durability.recovery_point < self.next_offset {
            let environment = self.environment.clone();
            let indexes = self
                .active()
                .finish_indexes(&environment)
                .map_err(LogError::from)
                .inspect_err(|error| self.fail_unless_full(error))?;
            for index in indexes {
                self.durability.add_closed_file(index.path());
            }
            self.finish_transaction_index().inspect_err(|error| self.fail_unless_full(error))?;
        }
        let epochs = self.durability.epochs_changed.then(|| {
            let path = self.directory.join(checkpoint::LEADER_EPOCHS);
            (path, checkpoint::format_epochs(self.epochs.entries()))
        });
        self.durability.epochs_changed = false;
        Ok(Some(self.begin(self.next_offset, epochs)))
    }

    fn begin(&mut self, recovery_point: i64, epochs: Option<(PathBuf, String)>) -> FlushJob {
        let durability = &mut self.durability;
        durability.is_flushing = true;
        FlushJob {
            directory: self.directory.clone(),
            disk: self.environment.disk.clone(),
            open_files: self.environment.open_files.clone(),
            files: std::mem::take(&mut durability.files),
            _holding: durability.holding.take(),
            closed_files: std::mem::take(&mut durability.closed_files),
            directories: std::mem::take(&mut durability.directories),
            epochs,
            lacks_epochs: AtomicBool::new(false),
            up_to: self.next_offset,
            recovery_point,
            truncations: durability.truncations,
        }
    }

    /// Takes note of how a flush ended and returns the offset before which records are durable.
    ///
    /// A flush that was asked for meanwhile got no job. The [`crate::Flusher`] sees to its own;
    /// after a checkpoint the caller has to ask [`Log::needs_flush`] and mark the log again.
    pub fn finish_flush(
        &mut self,
        job: FlushJob,
        outcome: Result<(), LogError>,
    ) -> Result<Offset, LogError> {
        if job.directory != self.directory {
            // The log has moved to another data directory meanwhile, where all is durable.
            return Ok(self.flushed_offset());
        }
        self.durability.is_flushing = false;
        if let Err(error) = outcome {
            self.take_back(job, &error);
            return Err(error);
        }
        let durability = &mut self.durability;
        if durability.truncations == job.truncations {
            durability.flushed_offset = durability.flushed_offset.max(job.up_to);
            if job.lacks_epochs.load(Ordering::Relaxed) {
                durability.epochs_changed = true;
            } else {
                durability.recovery_point = durability.recovery_point.max(job.recovery_point);
            }
        } else {
            // The records behind the cut may have been written after the sync began.
            durability.epochs_changed |= job.epochs.is_some();
        }
        let flushed_offset = Offset(durability.flushed_offset);
        self.note_sync();
        Ok(flushed_offset)
    }

    /// Makes all records durable, in one go under the caller's lock.
    pub fn flush(&mut self) -> Result<Offset, LogError> {
        self.check_usable()?;
        match self.begin_flush() {
            None if self.has_lost_writes() => Err(self.no_space()),
            None => Ok(self.flushed_offset()),
            Some(job) => {
                let outcome = job.run();
                self.finish_flush(job, outcome)
            }
        }
    }

    /// Makes everything durable, in one go under the caller's lock, so that recovery could begin at
    /// the present end of the log.
    pub fn checkpoint(&mut self) -> Result<Offset, LogError> {
        self.check_usable()?;
        match self.begin_checkpoint()? {
            None if self.has_lost_writes() => Err(self.no_space()),
            None => Ok(self.recovery_point()),
            Some(job) => {
                let outcome = job.run();
                self.finish_flush(job, outcome)
            }
        }
    }

    /// Makes everything durable and leaves what a trusted start needs; the caller must have ended
    /// any flush under way. Returns where the log stands, for the last checkpoint. The log can
    /// still be read afterwards.
    pub fn close(&mut self) -> Result<LogPoints, LogError> {
        self.check_usable()?;
        self.write_snapshot().inspect_err(|error| self.fail_unless_full(error))?;
        let environment = self.environment.clone();
        if self.active().has_space_ahead() {
            self.active().give_back_space(&environment)?;
        }
        self.checkpoint()?;
        if self.durability.recovery_point < self.next_offset {
            return Err(LogError::Failed {
                directory: self.directory.clone(),
                reason: "it was closed during a flush".to_owned(),
            });
        }
        Ok(self.points())
    }

    /// Lets go of all files.
    pub(crate) fn release(&mut self) {
        let environment = self.environment.clone();
        for segment in &mut self.segments {
            segment.close(&environment);
        }
        self.durability.files.clear();
        self.durability.holding = None;
        self.durability.closed_files.clear();
        self.tail.clear();
    }
}

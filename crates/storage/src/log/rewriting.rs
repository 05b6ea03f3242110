//! What becomes of a log whose sync found the disk full.
//!
//! Some file systems look for space only when they write pages back: over the network, on volumes
//! that grow as they are used, or where every write is a copy. There a full disk refuses a sync and
//! not the write before it. The pages concerned then count as clean, so that the next sync would
//! succeed without them. But as long as they are in memory, nothing is lost:
//!
//! ```text
//!           sync: no space                check all that was not durable, write it again
//!   usable ───────────────► lost writes ─────────────────────────────────────────────────► usable
//!                            │    ▲  │ still no space: wait for more                        the next
//!                            │    └──┘                                                      flush syncs
//!                            └─ not what was appended, or another error ──► failed
//! ```
//!
//! Meanwhile what is durable can be read, and appends are refused as on any full disk. Nothing was
//! acknowledged as durable, and nothing is taken back: what was appended keeps its offsets. Every
//! attempt to flush is an attempt to write again.
//!
//! Any failed sync, of a log that has failed for good as well, leaves a file in the log's directory:
//! a process that starts on this machine would find in memory what the disk may not have. So who opens such a log
//! treats it as one with lost writes.

use std::path::Path;

use fleuve_os::{Disk, DiskResult, OpenMode};

use super::flush::FlushJob;
use super::partition_log::Log;
use crate::error::LogError;
use crate::names::{self, FileKind};

/// The file that says that a sync of this log has failed and that none has succeeded since.
pub(super) const SYNC_FAILED: &str = ".fleuve-sync-failed";

impl Log {
    /// Reports whether a sync has found no space, so that what it was about has to be written again
    /// before anything else can be.
    pub fn has_lost_writes(&self) -> bool {
        self.durability.lost.is_some()
    }

    /// Checks that records can be written now.
    pub(crate) fn check_writable(&self) -> Result<(), LogError> {
        self.check_usable()?;
        match self.has_lost_writes() {
            false => Ok(()),
            true => Err(self.no_space()),
        }
    }

    pub(super) fn no_space(&self) -> LogError {
        let directory = self.directory.parent().unwrap_or(&self.directory).to_owned();
        LogError::NoSpace { directory }
    }

    /// Takes back what a flush was about that has failed because of `error`.
    pub(super) fn take_back(&mut self, job: FlushJob, error: &LogError) {
        let is_first = self.note_failed_sync();
        if self.durability.failure.is_some() {
            return;
        }
        if !error.is_out_of_space() {
            tracing::error!(
                log = %self.directory.display(), %error,
                "flush failed; the log takes no more records until reopened"
            );
            self.durability.failure = Some(error.to_string());
            return;
        }
        if is_first {
            tracing::warn!(
                log = %self.directory.display(), %error,
                "flush found no space; what it was about will be written again"
            );
        }
        let durability = &mut self.durability;
        durability.epochs_changed |= job.has_epochs();
        let (files, directories) = job.into_paths();
        for directory in directories {
            durability.add_directory(&directory);
        }
        let lost = durability.lost.get_or_insert_default();
        lost.extend(files);
    }

    /// Writes again what a sync may have lost; reports whether nothing of it is left to do.
    pub(super) fn settle_lost_writes(&mut self) -> bool {
        if !self.has_lost_writes() {
            return true;
        }
        if self.durability.is_flushing || self.durability.failure.is_some() {
            return false;
        }
        match self.write_again() {
            Ok(()) => {
                tracing::debug!(log = %self.directory.display(), "wrote again what a sync had lost");
                self.durability.lost = None;
                true
            }
            Err(error) => {
                self.fail_unless_full(&error);
                false
            }
        }
    }

    fn write_again(&mut self) -> Result<(), LogError> {
        let environment = self.environment.clone();
        let from = self.durability.flushed_offset;
        let mut next_offset = from;
        for index in self.segment_index(from)..self.segments.len() {
            let segment = &mut self.segments[index];
            next_offset = next_offset.max(segment.base_offset());
            if let Some(end) = segment.write_again(&environment, from)? {
                next_offset = end;
            }
            self.durability.add_closed_file(self.segments[index].log_path());
        }
        if next_offset != self.next_offset {
            return Err(self.damaged(format!(
                "its records end at offset {next_offset} instead of {}",
                self.next_offset
            )));
        }
        for path in self.durability.lost.clone().unwrap_or_default() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match names::parse_file_name(name) {
                Some((_, FileKind::Log)) => {}
                Some((base_offset, FileKind::TransactionIndex)) => {
                    let known = |segment: &&mut crate::segment::Segment| {
                        segment.base_offset() == base_offset && segment.has_transaction_index()
                    };
                    if let Some(segment) = self.segments.iter_mut().find(known)
                        && !segment.transaction_index().write_again(&environment)?
                    {
                        // Without an entry a consumer would take aborted records for committed.
                        return Err(self.damaged(format!("`{name}` is not what was written")));
                    }
                }
                // Indexes are hints, and snapshots have checksums.
                _ => copy_onto_itself(&*environment.disk, &path)?,
            }
            self.durability.add_closed_file(&path);
        }
        Ok(())
    }

    fn damaged(&self, reason: String) -> LogError {
        LogError::Damaged { path: self.directory.clone(), position: 0, reason }
    }

    /// Leaves word of a failed sync for whoever opens the log next, as well as that is possible;
    /// reports whether it is the first since one succeeded.
    fn note_failed_sync(&mut self) -> bool {
        if std::mem::replace(&mut self.durability.is_marked, true) {
            return false;
        }
        let disk = &self.environment.disk;
        let path = self.directory.join(SYNC_FAILED);
        let noted = disk.open(&path, OpenMode::Create).and_then(|_| disk.sync_dir(&self.directory));
        if let Err(error) = noted {
            tracing::warn!(log = %self.directory.display(), %error, "a failed sync is not noted");
        }
        true
    }

    /// Takes that back once a sync has succeeded.
    pub(super) fn note_sync(&mut self) {
        if !self.durability.is_marked || self.has_lost_writes() {
            return;
        }
        match self.environment.disk.remove_file(&self.directory.join(SYNC_FAILED)) {
            Err(error) if !error.is_not_found() => {
                // It costs the next start some time.
                tracing::warn!(log = %self.directory.display(), %error, "a failed sync stays noted");
            }
            _ => {
                tracing::info!(log = %self.directory.display(), "what a sync had lost is durable");
            }
        }
        self.durability.is_marked = false;
    }

    /// Writes again what was recovered, if the last word of the process before us was a failed sync.
    pub(super) fn settle_failed_sync(&mut self) {
        self.durability.is_marked = true;
        self.durability.lost = Some(self.durability.closed_files.clone());
        // Should there be no space, the first flushes try again.
        self.settle_lost_writes();
    }
}

/// Reads a file and writes it again as it is, unless it is gone.
fn copy_onto_itself(disk: &dyn Disk, path: &Path) -> DiskResult<()> {
    let file = match disk.open(path, OpenMode::Write) {
        Err(error) if error.is_not_found() => return Ok(()),
        opened => opened?,
    };
    let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let bytes = file.read_exact_at(0, length)?;
    file.write_at(&bytes, 0)
}

//! Putting rewritten segments in place of the old ones, so that a crash at any moment leaves either
//! these or those.
//!
//! ```text
//!   files written and synced as .cleaned        a crash: removed when the log is opened
//!   renamed to .swap, the .log last, synced     ◄── from here on the new segment counts
//!   old segments renamed to .deleted, synced    a crash: finished when the log is opened
//!   .swap renamed to the final names, the       a crash: finished when the log is opened
//!   .log last
//! ```
//!
//! All of it happens under the partition's lock, because from the second line on a truncation or
//! deletion of the old segments would be undone by a crash. The old files stay under `.deleted`
//! for `file.delete.delay.ms`, and readers that have them open read on.
//!
//! When a log is opened, a `.log.swap` stands for the segments from its own base offset to its last
//! batch; every group that we write keeps that last batch ([`super::filter`]). Kafka's rule that a
//! `.swap` is void if a `.cleaned` of the same or a lower offset stands beside it is kept as well.

use std::path::{Path, PathBuf};

use fleuve_os::{Disk, DiskError, DiskResult, Entry, OpenMode};

use super::error::CleanError;
use super::job::{self, CleanJob, CleanOutcome, CleanedGroup, cleaned_path};
use crate::environment::Environment;
use crate::error::LogError;
use crate::log::Log;
use crate::names::{self, CLEANED_SUFFIX, FileKind, SWAP_SUFFIX};
use crate::scan::{Scan, ScanError, WALK_WINDOW};
use crate::segment::Segment;

/// What is renamed before the log, which so says that all is there.
const INDEXES: [FileKind; 3] =
    [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TransactionIndex];

impl Log {
    /// Puts a group in place of the segments it was made of. If these are not as they were when the
    /// job was planned, or the topic is not compacted any more, the group is dropped and nothing
    /// changes.
    pub fn swap_in(&mut self, job: &CleanJob, group: CleanedGroup) -> Result<(), CleanError> {
        let environment = self.environment.clone();
        let located = self
            .check_writable()
            .map_err(CleanError::from)
            .and_then(|()| self.locate(job, &group).ok_or(CleanError::Overtaken));
        let first = match located {
            Ok(first) => first,
            Err(error) => {
                job::remove_files(&environment, &self.directory, group.base_offset);
                return Err(error);
            }
        };
        if let Err(error) = commit(&*environment.disk, &self.directory, group.base_offset) {
            if let Err(error) = undo(&*environment.disk, &self.directory, group.base_offset) {
                self.fail_for_good(&error);
            }
            job::remove_files(&environment, &self.directory, group.base_offset);
            return Err(error.into());
        }
        // Now there is no way back: should one of the next steps fail, only opening the log again
        // can finish it.
        self.replace(first, &group).map_err(|error| {
            self.fail_for_good(&error);
            CleanError::from(error)
        })
    }

    /// Takes note of how a compaction ended.
    pub fn finish_clean(
        &mut self,
        job: CleanJob,
        outcome: Result<CleanOutcome, CleanError>,
    ) -> Result<CleanOutcome, CleanError> {
        self.is_cleaning = false;
        match outcome {
            Ok(_) if self.durability.truncations != job.truncations => Err(CleanError::Overtaken),
            Ok(outcome) => {
                self.first_dirty = Some(outcome.first_dirty.0);
                Ok(outcome)
            }
            // What looks like damage may be the trace of a segment that went away meanwhile.
            Err(CleanError::Log(_)) if self.has_overtaken(&job) => Err(CleanError::Overtaken),
            Err(error) => Err(error),
        }
    }

    /// Returns the index of the group's first segment, if all are as they were, and records may
    /// still be dropped.
    fn locate(&self, job: &CleanJob, group: &CleanedGroup) -> Option<usize> {
        if self.durability.truncations != job.truncations || !self.config.cleanup.compact {
            return None;
        }
        let first =
            self.segments.binary_search_by_key(&group.base_offset, Segment::base_offset).ok()?;
        let mut present = self.segments[first..].iter().map(Segment::base_offset);
        let same = group.sources.iter().all(|source| present.next() == Some(source.base_offset));
        // Behind them there is the active segment at least.
        (same && present.next().is_some()).then_some(first)
    }

    fn has_overtaken(&self, job: &CleanJob) -> bool {
        self.durability.truncations != job.truncations
            || job.sources.first().is_some_and(|first| {
                // Old segments go from the beginning, those replaced from within.
                self.segments[0].base_offset() != first.base_offset
            })
    }

    fn replace(&mut self, first: usize, group: &CleanedGroup) -> DiskResult<()> {
        let environment = self.environment.clone();
        let count = group.sources.len();
        for segment in &mut self.segments[first..first + count] {
            segment.delete(&environment, self.config.file_delete_delay_ms)?;
        }
        environment.disk.sync_dir(&self.directory)?;
        put_in_place(&*environment.disk, &self.directory, group.base_offset)?;
        let mut segment = Segment::at(&environment, &self.directory, group.base_offset);
        if group.has_aborted {
            segment.transaction_index();
        }
        self.segments.splice(first..first + count, [segment]);
        // What is cached of the log may be records that are gone now.
        self.tail.clear();
        let directory = self.directory.clone();
        self.durability.add_directory(&directory);
        for source in &group.sources[1..] {
            if self.snapshot_offset == Some(source.base_offset) {
                continue;
            }
            let path = names::file_path(&directory, source.base_offset, FileKind::ProducerSnapshot);
            remove_if_there(&*environment.disk, &path)?;
        }
        Ok(())
    }

    /// Takes no more records, even if the disk is just full: half of a swap is done.
    fn fail_for_good(&mut self, error: &DiskError) {
        tracing::error!(
            log = %self.directory.display(), %error,
            "compacted segments are half in place; the log takes no more records until reopened"
        );
        self.durability.failure.get_or_insert_with(|| error.to_string());
    }
}

/// Declares the group valid.
fn commit(disk: &dyn Disk, directory: &Path, base_offset: i64) -> DiskResult<()> {
    for kind in INDEXES {
        let from = cleaned_path(directory, base_offset, kind);
        rename_if_there(disk, &from, &swap_path(directory, base_offset, kind))?;
    }
    let from = cleaned_path(directory, base_offset, FileKind::Log);
    disk.rename(&from, &swap_path(directory, base_offset, FileKind::Log))?;
    disk.sync_dir(directory)
}

/// Takes back the declaration.
fn undo(disk: &dyn Disk, directory: &Path, base_offset: i64) -> DiskResult<()> {
    for kind in FileKind::OF_SEGMENT {
        remove_if_there(disk, &swap_path(directory, base_offset, kind))?;
    }
    disk.sync_dir(directory)
}

/// Gives the files of a valid group their final names.
fn put_in_place(disk: &dyn Disk, directory: &Path, base_offset: i64) -> DiskResult<()> {
    for kind in INDEXES {
        let path = names::file_path(directory, base_offset, kind);
        rename_if_there(disk, &swap_path(directory, base_offset, kind), &path)?;
    }
    let from = swap_path(directory, base_offset, FileKind::Log);
    disk.rename(&from, &names::file_path(directory, base_offset, FileKind::Log))
}

/// Finishes the swaps that a crash has interrupted in a directory with these `entries`, and clears
/// away those that were not decided. Returns whether there was anything to do.
pub(crate) fn finish_swaps(
    environment: &Environment,
    directory: &Path,
    entries: &[Entry],
) -> Result<bool, LogError> {
    let disk = &*environment.disk;
    let with_suffix = |suffix: &'static str| {
        entries.iter().filter_map(move |entry| {
            names::parse_file_name(entry.name.strip_suffix(suffix)?).map(|file| (file, &entry.name))
        })
    };
    let first_cleaned = with_suffix(CLEANED_SUFFIX).map(|((offset, _), _)| offset).min();
    let mut segments: Vec<i64> = entries
        .iter()
        .filter_map(|entry| names::parse_file_name(&entry.name))
        .filter_map(|(offset, kind)| (kind == FileKind::Log).then_some(offset))
        .collect();
    segments.sort_unstable();
    let mut decided = Vec::new();
    for ((offset, kind), _) in with_suffix(SWAP_SUFFIX) {
        let is_void = first_cleaned.is_some_and(|cleaned| cleaned <= offset);
        if kind == FileKind::Log && !is_void {
            decided.push(offset);
        }
    }
    let mut found_any = false;
    for ((offset, _), name) in with_suffix(SWAP_SUFFIX) {
        found_any = true;
        if !decided.contains(&offset) {
            disk.remove_file(&directory.join(name))?;
        }
    }
    for base_offset in decided {
        let end = end_of(disk, &swap_path(directory, base_offset, FileKind::Log))?;
        tracing::info!(
            log = %directory.display(), base_offset, end,
            "finishing a compaction that was interrupted"
        );
        let replaced = segments
            .iter()
            .filter(|offset| **offset == base_offset || (base_offset..end).contains(*offset));
        // From the end: should this be interrupted as well, a beginning is left that the
        // remaining `.swap` still stands for.
        for offset in replaced.rev() {
            for kind in FileKind::OF_SEGMENT {
                remove_if_there(disk, &names::file_path(directory, *offset, kind))?;
            }
        }
        disk.sync_dir(directory)?;
        put_in_place(disk, directory, base_offset)?;
    }
    if found_any {
        disk.sync_dir(directory)?;
    }
    Ok(found_any)
}

/// Returns the offset behind the last batch of a file.
fn end_of(disk: &dyn Disk, path: &Path) -> Result<i64, LogError> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut scan = Scan::new(&file, 0, file.len()?, WALK_WINDOW);
    let mut end = 0;
    loop {
        match scan.next() {
            Ok(Some(found)) => end = found.header.next_offset().0,
            Ok(None) => return Ok(end),
            // It was synced before it got its name; recovery says more about the damage.
            Err(ScanError::NoBatch { .. }) => return Ok(end),
            Err(error) => return Err(error.in_file(&file)),
        }
    }
}

fn swap_path(directory: &Path, base_offset: i64, kind: FileKind) -> PathBuf {
    names::with_suffix(&names::file_path(directory, base_offset, kind), SWAP_SUFFIX)
}

fn rename_if_there(disk: &dyn Disk, from: &Path, to: &Path) -> DiskResult<()> {
    match disk.rename(from, to) {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome,
    }
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> DiskResult<()> {
    match disk.remove_file(path) {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome,
    }
}

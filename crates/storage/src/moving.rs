//! Moving a log to another data directory while it is in use.
//!
//! A second log grows in the other directory under a name that ends in `-future`. Once it holds
//! the same records, it takes the first one's name, and the first one is deleted:
//!
//! ```text
//!   future flushed, all of it           a crash: the future goes on growing after the start
//!   future renamed to the plain name,   a crash: both have the plain name and the same records;
//!     directory synced                    the start keeps one of them
//!   the old one renamed to -delete,     a crash: it is removed at the start
//!     directory synced
//! ```
//!
//! All of it happens under the partition's lock: nothing is appended between the last record that
//! is copied and the last of these steps, so after them only one log with the plain name is left.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fleuve_types::{LeaderEpoch, Offset, TopicPartition};

use crate::environment::Doomed;
use crate::error::LogError;
use crate::log::{Log, OpenOptions};
use crate::manager::LogManager;
use crate::names;

impl LogManager {
    /// Reports whether the topic's name leaves room for the name of a copy.
    pub fn can_move(&self, partition: &TopicPartition) -> bool {
        names::future_directory_name(partition, 0).is_some()
    }

    /// Makes an empty log in the data directory `target` that will take the place of `current` and
    /// begins where it does, or with the batch that holds its first record.
    pub fn create_future(&self, current: &mut Log, target: &Path) -> Result<Log, LogError> {
        let partition = current.partition().clone();
        if self.directory_id(target).is_none() {
            return Err(LogError::NoDirectory { partition });
        }
        let name = names::future_directory_name(&partition, self.random_id())
            .ok_or_else(|| LogError::NameTooLong { topic: Arc::clone(&partition.topic) })?;
        // Compaction may have taken the first records: the copy begins before them all the same.
        let log_start = current.log_start_offset();
        let log_start = current.batch_offset(log_start)?.min(log_start);
        let options = OpenOptions {
            topic_id: current.topic_id(),
            log_start,
            first_dirty: current.first_dirty_offset(),
            ..OpenOptions::new(partition, target.join(name), Arc::clone(current.config()))
        };
        let (log, _) = Log::open(&self.environment, options)?;
        Ok(log)
    }

    /// Prepares to go on with a copy that an earlier process began. `epoch` is the leader's now.
    ///
    /// The copy may have records that `current` has lost in a power failure, having been flushed
    /// earlier, and others may stand in their place since: it is cut to where both agree, by the rules
    /// of a follower. The copy of a log that is or was compacted is begun anew: the tombstones of what
    /// it holds may be gone from the log.
    pub fn resume_future(
        &self,
        current: &mut Log,
        mut future: Log,
        epoch: LeaderEpoch,
    ) -> Result<Log, LogError> {
        let is_compacted = current.config().cleanup.compact || current.first_dirty.is_some();
        let is_same = future.topic_id() == current.topic_id();
        if is_same && !is_compacted && cut_to_common(current, &mut future, epoch)? {
            return Ok(future);
        }
        let directory = future.directory().to_owned();
        tracing::info!(directory = %directory.display(), "beginning this copy anew");
        self.delete(future)?;
        self.create_future(current, directory.parent().unwrap_or(Path::new("")))
    }

    /// Puts `future`, which must hold the same records, in the place of `current`. If that fails,
    /// `current` goes on where it is and `future` is deleted, unless only the removal of the original
    /// failed; the start of the broker then knows what to do.
    pub fn replace_by_future(&self, current: &mut Log, future: Log) -> Result<(), LogError> {
        debug_assert_eq!(current.log_end_offset(), future.log_end_offset());
        let partition = current.partition().clone();
        let (from, old) = (future.directory().to_owned(), current.directory().to_owned());
        let root = from.parent().unwrap_or(Path::new(""));
        let to = root.join(names::log_directory_name(&partition));
        let moved = self.rename_future(current, future, &to).inspect_err(|_| {
            self.discard(&partition, &from, &to);
        })?;
        if let Some(managed) = self.directory_of(&to) {
            managed.logs.fetch_add(1, Ordering::Relaxed);
        }
        let mut old_log = std::mem::replace(current, moved);
        old_log.release();
        let disk = &*self.environment.disk;
        let old_root = old.parent().unwrap_or(Path::new(""));
        let doomed = old_root.join(names::deleted_directory_name(&partition, self.random_id()));
        disk.rename(&old, &doomed)?;
        disk.sync_dir(old_root)?;
        if let Some(managed) = self.directory_of(&old) {
            managed.logs.fetch_sub(1, Ordering::Relaxed);
            if let (Some(_), Some(directory)) = (old_log.first_dirty, managed.usable()) {
                directory.forget_first_dirty(disk, &partition)?;
            }
        }
        let due_ms = self.environment.clock.wall_ms() + current.config().file_delete_delay_ms;
        self.environment.deletions.add(due_ms, Doomed::Directory(doomed));
        tracing::info!(%partition, from = %old.display(), to = %to.display(), "moved a partition");
        Ok(())
    }

    /// Gives `future` the plain name `to` and opens it.
    fn rename_future(&self, current: &Log, mut future: Log, to: &Path) -> Result<Log, LogError> {
        let log_start = current.log_start_offset();
        future.delete_records_to(log_start)?;
        future.close()?;
        // A compaction that was under way when the move began has gone on since, and what it has
        // removed was copied before: it has to be compacted again.
        let first_dirty = future.first_dirty.min(current.first_dirty).map(Offset);
        let options = OpenOptions {
            topic_id: current.topic_id(),
            recovery_point: future.log_end_offset(),
            log_start,
            first_dirty,
            had_clean_shutdown: true,
            ..OpenOptions::new(
                current.partition().clone(),
                to.to_owned(),
                Arc::clone(current.config()),
            )
        };
        let disk = &*self.environment.disk;
        future.release();
        disk.rename(future.directory(), to)?;
        disk.sync_dir(to.parent().unwrap_or(Path::new("")))?;
        let (moved, _) = Log::open(&self.environment, options)?;
        Ok(moved)
    }

    /// Deletes a copy that cannot take the place of its original; it lies at `from` still, or at `to`
    /// already. The next start would go on with it, though nobody may want it by then and the original
    /// has been compacted.
    fn discard(&self, partition: &TopicPartition, from: &Path, to: &Path) {
        let disk = &*self.environment.disk;
        let place = if disk.exists(from).unwrap_or(true) { from } else { to };
        let root = place.parent().unwrap_or(Path::new(""));
        let doomed = root.join(names::deleted_directory_name(partition, self.random_id()));
        match disk.rename(place, &doomed) {
            Ok(()) => {
                let now_ms = self.environment.clock.wall_ms();
                self.environment.deletions.add(now_ms, Doomed::Directory(doomed));
            }
            Err(error) => {
                tracing::warn!(directory = %place.display(), %error, "a copy stays behind");
            }
        }
    }

    /// Keeps one of several logs of the same partition, which a crash in the last steps of a move
    /// leaves behind: the one that reaches further, and any if they are equal. What of another has
    /// records that the kept one lacks is set aside. Logs of different topics of the same name all
    /// stay: only the metadata tells which of them lives.
    pub(crate) fn settle_duplicates(&self, logs: &mut Vec<Log>) {
        logs.sort_by(|left, right| {
            let by_name = left.partition().cmp(right.partition());
            let by_id = left.topic_id().map(|id| id.0).cmp(&right.topic_id().map(|id| id.0));
            let by_end = right.log_end_offset().cmp(&left.log_end_offset());
            by_name.then(by_id).then(by_end)
        });
        let mut index = 1;
        while index < logs.len() {
            let kept = &logs[index - 1];
            if (logs[index].partition(), logs[index].topic_id())
                != (kept.partition(), kept.topic_id())
            {
                index += 1;
                continue;
            }
            let is_whole = holds_all_of(kept, &logs[index]);
            let surplus = logs.remove(index);
            let directory = surplus.directory().to_owned();
            tracing::warn!(
                directory = %directory.display(), kept = %logs[index - 1].directory().display(),
                is_whole, "removing what a move between data directories left behind, or setting it \
                 aside if what is kept lacks something of it"
            );
            let removed = match is_whole {
                true => self.delete(surplus),
                false => self.set_aside(surplus).map(drop),
            };
            if let Err(error) = removed {
                tracing::error!(directory = %directory.display(), %error, "it cannot be removed");
            }
        }
    }

    pub(crate) fn random_id(&self) -> u128 {
        let random = &self.environment.random;
        u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
    }
}

/// Reports whether a log has all records of another, as far as epochs tell.
fn holds_all_of(log: &Log, other: &Log) -> bool {
    let Some(latest) = other.latest_epoch() else {
        return other.log_end_offset() == other.log_start_offset();
    };
    let end = log.latest_epoch().and_then(|current| log.end_offset_for(latest, current));
    end.is_some_and(|end| end.epoch == latest && end.end_offset >= other.log_end_offset())
}

/// Cuts off the copy what the log does not have; false if they have nothing in common.
fn cut_to_common(
    current: &mut Log,
    future: &mut Log,
    epoch: LeaderEpoch,
) -> Result<bool, LogError> {
    cut(current, future, current.log_end_offset())?;
    while let Some(latest) = future.latest_epoch() {
        let Some(end) = current.end_offset_for(latest, epoch) else { return Ok(false) };
        if end.epoch == latest {
            cut(current, future, end.end_offset)?;
            break;
        }
        // The log has nothing of that epoch: what the copy has from there on is not in it either.
        let Some(known) = future.end_offset_for(end.epoch, latest) else { return Ok(false) };
        cut(current, future, end.end_offset.min(known.end_offset))?;
    }
    Ok(true)
}

/// Cuts the copy at `offset`, or before it where neither log has a batch across the cut.
fn cut(current: &mut Log, future: &mut Log, offset: Offset) -> Result<(), LogError> {
    let mut offset = offset;
    while offset < future.log_end_offset() {
        let begins = future.batch_offset(offset)?.min(current.batch_offset(offset)?);
        if begins >= offset {
            return future.truncate_to(offset);
        }
        offset = begins;
    }
    Ok(())
}

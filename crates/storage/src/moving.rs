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

use fleuve_types::{Offset, TopicPartition, Uuid};

use crate::config::LogConfig;
use crate::environment::Doomed;
use crate::error::LogError;
use crate::log::{Log, OpenOptions};
use crate::manager::LogManager;
use crate::names;

impl LogManager {
    /// Makes an empty log in the data directory `target` that begins at `first_offset` and will take
    /// the place of the partition's log. A batch of that log must begin there.
    pub fn create_future(
        &self,
        partition: &TopicPartition,
        topic_id: Option<Uuid>,
        config: Arc<LogConfig>,
        target: &Path,
        first_offset: Offset,
    ) -> Result<Log, LogError> {
        if self.directory_id(target).is_none() {
            return Err(LogError::NoDirectory { partition: partition.clone() });
        }
        let name = names::future_directory_name(partition, self.random_id())
            .ok_or_else(|| LogError::NameTooLong { topic: Arc::clone(&partition.topic) })?;
        let options = OpenOptions {
            topic_id,
            log_start: first_offset,
            ..OpenOptions::new(partition.clone(), target.join(name), config)
        };
        let (log, _) = Log::open(&self.environment, options)?;
        Ok(log)
    }

    /// Puts `future`, which must hold the same records, in the place of `current`. On an error both
    /// are as they were, except that the partition must be opened anew if the disk failed half way;
    /// the start of the broker then knows what to do.
    pub fn replace_by_future(&self, current: &mut Log, future: Log) -> Result<(), LogError> {
        let mut future = future;
        debug_assert_eq!(current.log_end_offset(), future.log_end_offset());
        let log_start = current.log_start_offset();
        future.delete_records_to(log_start)?;
        future.close()?;
        let disk = &*self.environment.disk;
        let partition = current.partition().clone();
        let (from, old) = (future.directory().to_owned(), current.directory().to_owned());
        let root = from.parent().unwrap_or(Path::new(""));
        let to = root.join(names::log_directory_name(&partition));
        let options = OpenOptions {
            topic_id: current.topic_id(),
            recovery_point: future.log_end_offset(),
            log_start,
            first_dirty: current.first_dirty_offset(),
            had_clean_shutdown: true,
            ..OpenOptions::new(partition.clone(), to.clone(), Arc::clone(current.config()))
        };
        future.release();
        disk.rename(&from, &to)?;
        disk.sync_dir(root)?;
        let (moved, _) = Log::open(&self.environment, options)?;
        if let Some(managed) = self.directory_of(&to) {
            managed.logs.fetch_add(1, Ordering::Relaxed);
        }
        let mut old_log = std::mem::replace(current, moved);
        old_log.release();
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

    /// Keeps one of several logs of the same partition, which a crash in the last steps of a move
    /// leaves behind: the one that reaches further, and any if they are equal.
    pub(crate) fn settle_duplicates(&self, logs: &mut Vec<Log>) {
        logs.sort_by(|left, right| {
            let by_name = left.partition().cmp(right.partition());
            by_name.then_with(|| right.log_end_offset().cmp(&left.log_end_offset()))
        });
        let mut index = 1;
        while index < logs.len() {
            if logs[index].partition() != logs[index - 1].partition() {
                index += 1;
                continue;
            }
            let surplus = logs.remove(index);
            let directory = surplus.directory().to_owned();
            tracing::warn!(
                directory = %directory.display(), kept = %logs[index - 1].directory().display(),
                "removing what a move between data directories left behind"
            );
            if let Err(error) = self.delete(surplus) {
                tracing::error!(directory = %directory.display(), %error, "it cannot be removed");
            }
        }
    }

    pub(crate) fn random_id(&self) -> u128 {
        let random = &self.environment.random;
        u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
    }
}

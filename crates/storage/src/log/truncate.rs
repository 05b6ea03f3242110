//! Cutting the end off a log, which followers do when their leader's log parts from theirs.

use fleuve_os::EntryKind;
use fleuve_types::Offset;

use super::partition_log::Log;
use crate::error::LogError;
use crate::names::{self, FileKind};
use crate::producers::{self, ProducerBatch, ProducerState};

impl Log {
    /// Drops all records from `offset` on, durably. An offset within a batch takes the batch with
    /// it, as in Kafka.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<(), LogError> {
        self.check_writable()?;
        let offset = offset.0;
        if offset >= self.next_offset {
            return Ok(());
        }
        if offset < self.segments[0].base_offset() {
            return self.truncate_fully_and_start_at(Offset(offset));
        }
        tracing::info!(log = %self.directory.display(), offset, from = self.next_offset, "truncating");
        self.truncate_segments(offset).inspect_err(|error| self.fail_unless_full(error))
    }

    /// Drops all records and begins anew at `offset`.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), LogError> {
        self.check_writable()?;
        tracing::info!(log = %self.directory.display(), %offset, "dropping all records");
        self.replace_segments(offset.0).inspect_err(|error| self.fail_unless_full(error))
    }

    fn truncate_segments(&mut self, offset: i64) -> Result<(), LogError> {
        self.before_truncation();
        let environment = self.environment.clone();
        let delay_ms = self.config.file_delete_delay_ms;
        // From the end: a crash on the way leaves no hole.
        while self.segments.len() > 1 && self.active().base_offset() > offset {
            self.active().delete(&environment, delay_ms)?;
            self.segments.pop();
        }
        self.active().truncate(&environment, offset)?;
        environment.disk.sync_dir(&self.directory)?;
        self.after_truncation(offset.min(self.log_start), offset)
    }

    pub(super) fn replace_segments(&mut self, offset: i64) -> Result<(), LogError> {
        self.before_truncation();
        let environment = self.environment.clone();
        while let Some(segment) = self.segments.last_mut() {
            segment.delete(&environment, self.config.file_delete_delay_ms)?;
            if self.segments.len() == 1 {
                // The log keeps a segment at every moment, also when making the new one fails.
                self.segments[0] = self.begin_segment(offset)?;
                break;
            }
            self.segments.pop();
        }
        environment.disk.sync_dir(&self.directory)?;
        self.log_start = offset;
        self.epochs.clear();
        self.durability.epochs_changed = true;
        self.after_truncation(offset, offset)
    }

    fn before_truncation(&mut self) {
        self.durability.truncations += 1;
        self.tail.clear();
    }

    fn after_truncation(&mut self, log_start: i64, offset: i64) -> Result<(), LogError> {
        self.next_offset = offset;
        self.log_start = log_start;
        self.durability.flushed_offset = self.durability.flushed_offset.min(offset);
        self.durability.recovery_point = self.durability.recovery_point.min(offset);
        self.first_dirty = self.first_dirty.map(|first_dirty| first_dirty.min(offset));
        self.durability.epochs_changed |= self.epochs.truncate_end(offset);
        self.load_producers()
    }

    /// Builds the state of the producers at the end of the log: from the newest usable snapshot,
    /// and the batches behind it. Snapshots that do not belong to the log any more are removed.
    pub(super) fn load_producers(&mut self) -> Result<(), LogError> {
        let environment = self.environment.clone();
        let mut snapshots: Vec<i64> = environment
            .disk
            .list(&self.directory)?
            .iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .filter_map(|entry| names::parse_file_name(&entry.name))
            .filter(|(_, kind)| *kind == FileKind::ProducerSnapshot)
            .map(|(offset, _)| offset)
            .collect();
        snapshots.sort_unstable();
        self.load_producers_from(snapshots, None)
    }

    /// Does the same, and finds all transactions that were aborted by markers from `rebuild_from`
    /// on.
    pub(super) fn load_producers_from(
        &mut self,
        mut snapshots: Vec<i64>,
        rebuild_from: Option<i64>,
    ) -> Result<(), LogError> {
        let newest = self.next_offset.min(rebuild_from.unwrap_or(i64::MAX));
        let environment = self.environment.clone();
        self.producers = ProducerState::default();
        self.snapshot_offset = None;
        let mut replay_from = self.log_start.max(self.segments[0].base_offset());
        while let Some(offset) = snapshots.pop() {
            let path = names::file_path(&self.directory, offset, FileKind::ProducerSnapshot);
            let is_wanted =
                self.snapshot_offset.is_none() && (self.log_start..=newest).contains(&offset);
            if is_wanted {
                match producers::decode(&environment.disk.read_file(&path)?) {
                    Ok(producers) => {
                        self.producers = ProducerState::from_snapshot(
                            producers,
                            environment.clock.wall_ms(),
                            self.config.producer_id_expiration_ms,
                        );
                        self.snapshot_offset = Some(offset);
                        replay_from = offset;
                        continue;
                    }
                    Err(reason) => {
                        let snapshot = path.display();
                        tracing::warn!(%snapshot, reason, "dropping producer snapshot");
                    }
                }
            }
            // Each segment keeps the one it began with, for truncation. Those that shutdowns have
            // left in between are of no use any more.
            let is_kept =
                !is_wanted && self.segments.iter().any(|segment| segment.base_offset() == offset);
            if !is_kept {
                environment.disk.remove_file(&path)?;
            }
        }
        self.replay_producers(replay_from)
    }

    fn replay_producers(&mut self, from_offset: i64) -> Result<(), LogError> {
        if from_offset >= self.next_offset {
            return Ok(());
        }
        let environment = &self.environment;
        let first_index = self.segment_index(from_offset);
        let producers = &mut self.producers;
        for segment in &mut self.segments[first_index..] {
            let mut aborted = Vec::new();
            segment.for_each_batch(environment, from_offset, |scan, found| {
                let header = &found.header;
                if !header.has_producer() {
                    return Ok(());
                }
                let marker = match header.attributes.is_control() {
                    false => None,
                    true => {
                        let bytes = scan.read(&found)?;
                        let batch = fleuve_protocol::records::Batch { header: *header, bytes };
                        match super::append::marker_of(&batch) {
                            Some(marker) => Some(marker),
                            None => return Ok(()),
                        }
                    }
                };
                aborted.extend(producers.replay(&ProducerBatch::of(header), marker));
                Ok(())
            })?;
            if aborted.is_empty() {
                continue;
            }
            for entry in aborted {
                segment.transaction_index().push(environment, entry)?;
            }
            // The other indexes are written by now, so that a checkpoint may find nothing to do.
            if let Some(path) = segment.finish_transaction_index(environment)? {
                self.durability.add_closed_file(path);
                self.durability.add_directory(&self.directory);
            }
        }
        Ok(())
    }
}

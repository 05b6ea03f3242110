//! What a broker does with its logs at its start, from time to time, and at its end.

use std::sync::Arc;

use super::Node;
use crate::partition::Partition;
use crate::purgatory::AckWait;

impl Node {
    /// Waits until the records that a killed process left in the page cache are durable.
    ///
    /// They may have been acknowledged, so the high watermark must not be below them when the
    /// first consumer asks.
    pub(crate) async fn make_recovered_records_durable(&self) {
        let recovered: Vec<_> = self
            .all_partitions()
            .into_iter()
            .filter(|partition| partition.high_watermark() < partition.log_end_offset())
            .collect();
        let wait = AckWait::new(&self.purgatory, recovered.len());
        for partition in &recovered {
            partition.wait_for(partition.log_end_offset(), &wait);
        }
        wait.done().await;
    }

    /// Deletes what no retention keeps; blocks.
    pub(crate) fn enforce_retention(&self) {
        for topic in self.topics.all() {
            for partition in &topic.partitions {
                if let Err(error) = partition.enforce_retention() {
                    tracing::error!(partition = %partition.name(), %error, "retention failed");
                }
            }
        }
    }

    /// Forgets idle producers.
    pub(crate) fn expire_producers(&self) {
        for topic in self.topics.all() {
            topic.partitions.iter().for_each(|partition| partition.expire_producers());
        }
    }

    /// Looks how much room the disks have left, and has flushes tried again that found none; blocks.
    pub(crate) fn look_for_space(&self) {
        self.logs.reserve.look();
        self.metadata.partition().flush_if_unflushed();
        for topic in self.topics.all() {
            topic.partitions.iter().for_each(Partition::flush_if_unflushed);
        }
    }

    /// Flushes what has waited for longer than `flush.ms`.
    pub(crate) fn flush_by_time(&self) {
        let now_ms = self.clock.wall_ms();
        for topic in self.topics.all() {
            topic.partitions.iter().for_each(|partition| partition.flush_if_due(now_ms));
        }
    }

    /// Writes a checkpoint of the metadata when it is time; blocks.
    pub(crate) fn keep_metadata_checkpoints(&self) {
        let settings = &self.static_settings.metadata_log;
        let place = self.logs.metadata_place();
        if let Err(error) = self.metadata.keep_checkpoints(place, settings, &self.voter) {
            tracing::error!(%error, "the metadata has no new checkpoint; its log goes on");
        }
    }

    /// Writes down from where recovery has to look; blocks.
    pub(crate) fn checkpoint_logs(&self) {
        if let Err(error) = self.logs.checkpoint(self.metadata.partition(), &self.all_partitions())
        {
            tracing::error!(%error, "checkpoints are not written");
        }
    }

    /// Writes down up to where logs have been compacted; blocks.
    pub(crate) fn store_cleaner_offsets(&self) {
        if let Err(error) = self.logs.store_cleaner_offsets(&self.all_partitions()) {
            tracing::error!(%error, "offsets of compaction are not written; some is done again");
        }
    }

    /// Removes files whose deletion delay is over; blocks.
    pub(crate) fn remove_deleted_files(&self) {
        if let Err(error) = self.logs.remove_deleted_files() {
            tracing::error!(%error, "deleted files are not removed");
        }
    }

    /// Makes everything durable and closes all logs; blocks.
    pub(crate) fn close_logs(&self) {
        if let Err(error) = self.logs.close(self.metadata.partition(), self.all_partitions()) {
            tracing::error!(%error, "logs are not closed; the next start will check them");
        }
    }

    fn all_partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.all().iter().flat_map(|topic| topic.partitions.iter().cloned()).collect()
    }
}

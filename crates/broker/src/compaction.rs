//! Compaction in the background: one log at a time, the dirtiest first.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleuve_metadata::config::{BrokerSettings, Layers, Value};
use fleuve_storage::{CleanError, Cleaner, CleanerOptions};
use fleuve_types::TopicPartition;
use tokio::task::JoinHandle;

use crate::node::Node;
use crate::partition::Partition;

/// The settings of the cleaner, from `log.cleaner.*`.
#[derive(Clone, Copy, Debug)]
struct CompactionSettings {
    enabled: bool,
    /// Rest when no log was dirty enough.
    backoff: Duration,
    bytes_per_second_max: f64,
    options: CleanerOptions,
}

impl CompactionSettings {
    fn of(settings: &BrokerSettings) -> Self {
        let layers = Layers::of_statics(&settings.statics);
        let whole = |key: &str| layers.value(key).and_then(|value| value.as_integer());
        let fraction = |key: &str| match layers.value(key) {
            Some(Value::Double(fraction)) => Some(fraction),
            _ => None,
        };
        let bytes = |key: &str, default: usize| {
            whole(key).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
        };
        let defaults = CleanerOptions::default();
        Self {
            enabled: layers.value("log.cleaner.enable") != Some(Value::Boolean(false)),
            backoff: Duration::from_millis(bytes("log.cleaner.backoff.ms", 15_000) as u64),
            bytes_per_second_max: fraction("log.cleaner.io.max.bytes.per.second")
                .unwrap_or(f64::INFINITY),
            options: CleanerOptions {
                dedupe_buffer_bytes: bytes(
                    "log.cleaner.dedupe.buffer.size",
                    defaults.dedupe_buffer_bytes,
                ),
                load_factor: fraction("log.cleaner.io.buffer.load.factor")
                    .unwrap_or(defaults.load_factor),
                io_buffer_bytes: bytes("log.cleaner.io.buffer.size", defaults.io_buffer_bytes),
            },
        }
    }
}

/// Starts compacting, unless the operator switched it off.
pub(crate) fn start(node: &Arc<Node>) -> Option<JoinHandle<()>> {
    let settings = CompactionSettings::of(&node.settings());
    if !settings.enabled {
        return None;
    }
    let node = Arc::clone(node);
    Some(tokio::spawn(async move {
        let mut given_up = HashSet::new();
        loop {
            tokio::time::sleep(settings.backoff.max(Duration::from_millis(1))).await;
            let node = Arc::clone(&node);
            let round = tokio::task::spawn_blocking(move || {
                while compact_dirtiest(&node, settings, &mut given_up) {}
                given_up
            });
            match round.await {
                Ok(back) => given_up = back,
                Err(_) => return,
            }
        }
    }))
}

/// Compacts the log that needs it most; false if none does.
fn compact_dirtiest(
    node: &Node,
    settings: CompactionSettings,
    given_up: &mut HashSet<TopicPartition>,
) -> bool {
    if node.is_stopping() {
        return false;
    }
    let Some(partition) = find_dirtiest(node, given_up) else { return false };
    let cleaner = Cleaner::new(node.logs.environment(), settings.options);
    let begun = Instant::now();
    let mut spent_bytes = 0.0;
    let mut pace = |bytes: usize| {
        if node.is_stopping() || partition.is_gone() {
            return Err(CleanError::Stopped);
        }
        spent_bytes += bytes as f64;
        let due = Duration::try_from_secs_f64(spent_bytes / settings.bytes_per_second_max);
        let ahead = due.unwrap_or_default().saturating_sub(begun.elapsed());
        // Shorter rests are not worth the wake-up.
        if ahead > Duration::from_millis(10) {
            std::thread::sleep(ahead);
        }
        Ok(())
    };
    match partition.compact(&cleaner, &mut pace) {
        Ok(Some(outcome)) => {
            let (stats, took) = (outcome.stats, begun.elapsed());
            tracing::info!(
                partition = %partition.name(), ?took,
                read = stats.bytes_read, written = stats.bytes_written, keys = stats.keys,
                "compacted"
            );
            true
        }
        Ok(None) => false,
        Err(error) if error.is_transient() => false,
        Err(error) => {
            tracing::error!(
                partition = %partition.name(), %error,
                "compaction failed; this partition is left alone until the broker restarts"
            );
            given_up.insert(partition.name().clone());
            true
        }
    }
}

fn find_dirtiest(node: &Node, given_up: &HashSet<TopicPartition>) -> Option<Arc<Partition>> {
    let mut dirtiest: Option<(f64, Arc<Partition>)> = None;
    for topic in node.topics.all() {
        for partition in topic.partitions.iter().filter(|p| !given_up.contains(p.name())) {
            let Some(ratio) = partition.compaction_need() else { continue };
            if dirtiest.as_ref().is_none_or(|(most, _)| ratio > *most) {
                dirtiest = Some((ratio, Arc::clone(partition)));
            }
        }
    }
    dirtiest.map(|(_, partition)| partition)
}

//! Compaction in the background: one log at a time, the dirtiest first.
//!
//! `log.cleaner.*` says how much memory and disk bandwidth it may take; what is written there is
//! looked up before each log, so changes hold from the next one on. A log in which compaction met
//! damage is left alone until the broker restarts, as in Kafka: the metrics page counts such
//! partitions, and the broker's log names them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fleuve_http::{Exposition, Kind};
use fleuve_metadata::config::{Layers, Value};
use fleuve_os::Clock;
use fleuve_storage::{CleanError, CleanOutcome, Cleaner, CleanerOptions};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::metrics::Counter;
use crate::node::Node;
use crate::partition::Partition;

/// Rests of less than this to keep a rate are not worth the wake-up.
const REST_MIN: Duration = Duration::from_millis(10);

/// What compaction has done and found so far.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Partitions in which it met what it cannot get past.
    given_up: Mutex<Vec<Weak<Partition>>>,
    /// When logs were last looked over.
    last_look_ms: AtomicI64,
    bytes_read: Counter,
    bytes_written: Counter,
    findings: Mutex<Findings>,
}

/// Figures of the last look over all logs, and of the last log compacted.
#[derive(Clone, Copy, Debug, Default)]
struct Findings {
    dirtiest_ratio: f64,
    longest_overdue_ms: i64,
    recopy_ratio: f64,
    buffer_utilization: f64,
    took: Duration,
}

/// The settings of the cleaner, from `log.cleaner.*`.
#[derive(Clone, Copy, Debug)]
struct Settings {
    enabled: bool,
    /// Rest when no log was dirty enough.
    backoff: Duration,
    bytes_per_second_max: f64,
    options: CleanerOptions,
}

impl Settings {
    fn now(node: &Node) -> Self {
        let (settings, image) = (node.settings(), node.image());
        let node_configs = image.broker_configs(settings.node.id);
        let cluster_configs = image.cluster_configs();
        Self::of(&settings.layers(&node_configs, &cluster_configs))
    }

    fn of(layers: &Layers<'_>) -> Self {
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
    if !Settings::now(node).enabled {
        return None;
    }
    node.compaction.last_look_ms.store(node.clock.wall_ms(), Ordering::Relaxed);
    let node = Arc::clone(node);
    Some(tokio::spawn(async move {
        loop {
            let backoff = Settings::now(&node).backoff.max(Duration::from_millis(1));
            tokio::time::sleep(backoff).await;
            let node = Arc::clone(&node);
            let round = tokio::task::spawn_blocking(move || while compact_dirtiest(&node) {});
            if round.await.is_err() {
                return;
            }
        }
    }))
}

/// Compacts the log that needs it most; false if there is nothing more to do for now.
fn compact_dirtiest(node: &Node) -> bool {
    if node.is_stopping() {
        return false;
    }
    let Some(partition) = find_dirtiest(node) else { return false };
    let begun = Instant::now();
    match compact(node, &partition, begun) {
        Ok(Some(outcome)) => {
            node.compaction.count(&outcome, begun.elapsed());
            let (stats, took) = (outcome.stats, begun.elapsed());
            tracing::info!(
                partition = %partition.name(), ?took,
                read = stats.bytes_read, written = stats.bytes_written, keys = stats.keys,
                "compacted"
            );
            if stats.keyless_records > 0 {
                tracing::warn!(
                    partition = %partition.name(), records = stats.keyless_records,
                    "records without a key were dropped: they cannot be compacted"
                );
            }
            node.store_cleaner_offsets();
            true
        }
        Ok(None) => false,
        Err(error) if error.is_transient() => {
            tracing::debug!(partition = %partition.name(), %error, "compaction will be tried again");
            false
        }
        Err(error) => {
            tracing::error!(
                partition = %partition.name(), %error,
                "compaction failed; this partition is left alone until the broker restarts"
            );
            node.compaction.given_up.lock().push(Arc::downgrade(&partition));
            true
        }
    }
}

fn compact(
    node: &Node,
    partition: &Partition,
    begun: Instant,
) -> Result<Option<CleanOutcome>, CleanError> {
    let settings = Settings::now(node);
    let cleaner = Cleaner::new(node.logs.environment(), settings.options);
    let mut spent_bytes = 0.0;
    let mut pace = |bytes: usize| {
        if node.is_stopping() || partition.is_gone() {
            return Err(CleanError::Stopped);
        }
        spent_bytes += bytes as f64;
        let due = Duration::try_from_secs_f64(spent_bytes / settings.bytes_per_second_max);
        let ahead = due.unwrap_or_default().saturating_sub(begun.elapsed());
        if ahead > REST_MIN {
            std::thread::sleep(ahead);
        }
        Ok(())
    };
    partition.compact(&cleaner, &mut pace)
}

fn find_dirtiest(node: &Node) -> Option<Arc<Partition>> {
    let compaction = &node.compaction;
    compaction.last_look_ms.store(node.clock.wall_ms(), Ordering::Relaxed);
    let mut findings = Findings { ..*compaction.findings.lock() };
    (findings.dirtiest_ratio, findings.longest_overdue_ms) = (0.0, 0);
    let mut dirtiest: Option<(f64, Arc<Partition>)> = None;
    for topic in node.topics.all() {
        for partition in &topic.partitions {
            if compaction.has_given_up(partition) {
                continue;
            }
            if let Err(error) = partition.flush_for_compaction() {
                tracing::warn!(partition = %partition.name(), %error, "not flushed for compaction");
            }
            let Some(dirtiness) = partition.dirtiness() else { continue };
            findings.dirtiest_ratio = findings.dirtiest_ratio.max(dirtiness.ratio);
            findings.longest_overdue_ms = findings.longest_overdue_ms.max(dirtiness.overdue_ms);
            if dirtiness.is_due && dirtiest.as_ref().is_none_or(|(most, _)| dirtiness.ratio > *most)
            {
                dirtiest = Some((dirtiness.ratio, Arc::clone(partition)));
            }
        }
    }
    *compaction.findings.lock() = findings;
    dirtiest.map(|(_, partition)| partition)
}

impl Compaction {
    fn has_given_up(&self, partition: &Arc<Partition>) -> bool {
        self.given_up.lock().iter().any(|known| Weak::as_ptr(known) == Arc::as_ptr(partition))
    }

    fn count(&self, outcome: &CleanOutcome, took: Duration) {
        let stats = &outcome.stats;
        self.bytes_read.add(stats.bytes_read + stats.bytes_mapped);
        self.bytes_written.add(stats.bytes_written);
        let mut findings = self.findings.lock();
        findings.recopy_ratio = stats.bytes_written as f64 / stats.bytes_read.max(1) as f64;
        findings.buffer_utilization = stats.buffer_utilization;
        findings.took = took;
    }

    /// Adds the families of Kafka's cleaner, and two of our own: the bytes it has moved.
    pub(crate) fn write(&self, page: &mut Exposition, clock: &dyn Clock) {
        let mut given_up = self.given_up.lock();
        given_up.retain(|partition| partition.upgrade().is_some_and(|known| !known.is_gone()));
        let uncleanable = given_up.len();
        drop(given_up);
        let findings = *self.findings.lock();
        let since_ms = match self.last_look_ms.load(Ordering::Relaxed) {
            0 => 0,
            last_ms => clock.wall_ms().saturating_sub(last_ms).max(0),
        };
        let gauges = [
            (
                "logcleanermanager_max_dirty_percent",
                "Share of bytes not yet compacted in the dirtiest log.",
                100.0 * findings.dirtiest_ratio,
            ),
            (
                "logcleanermanager_time_since_last_run_ms",
                "Milliseconds since logs were last looked over.",
                since_ms as f64,
            ),
            (
                "logcleanermanager_uncleanable_partitions_count",
                "Partitions whose compaction has failed.",
                uncleanable as f64,
            ),
            (
                "logcleaner_max_compaction_delay_secs",
                "Longest wait of records beyond max.compaction.lag.ms.",
                findings.longest_overdue_ms as f64 / 1000.0,
            ),
            (
                "logcleaner_cleaner_recopy_percent",
                "Share of bytes that the last compaction kept.",
                100.0 * findings.recopy_ratio,
            ),
            (
                "logcleaner_max_buffer_utilization_percent",
                "Share of the dedupe buffer that the last compaction used.",
                100.0 * findings.buffer_utilization,
            ),
            (
                "logcleaner_max_clean_time_secs",
                "Duration of the last compaction.",
                findings.took.as_secs_f64(),
            ),
        ];
        for (name, help, value) in gauges {
            page.family(&format!("kafka_log_{name}"), Kind::Gauge, help).sample(&[], value);
        }
        let counters = [
            ("read", "Bytes that compaction has read.", &self.bytes_read),
            ("written", "Bytes that compaction has written.", &self.bytes_written),
        ];
        for (name, help, counter) in counters {
            page.family(&format!("fleuve_compaction_{name}_bytes_total"), Kind::Counter, help)
                .sample(&[], counter.get() as f64);
        }
    }
}

//! What a producer counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Shared;
use super::batch::Batch;
use crate::metrics::{ByTopic, Measured, Metric, Spread, Total};

/// Counters, raised per batch and per request.
#[derive(Debug, Default)]
pub(super) struct Counters {
    records_sent: Total,
    records_failed: Total,
    records_retried: Total,
    batch_bytes: Spread,
    queue_time: Spread,
    request_time: Spread,
    request_records: Spread,
    pub(super) in_flight: AtomicUsize,
    topics: ByTopic<OfTopic>,
}

/// Those of one topic.
#[derive(Debug, Default)]
struct OfTopic {
    sent: Total,
    bytes: Total,
    failed: Total,
    retried: Total,
}

impl Counters {
    /// Counts a batch that is about to be sent in a buffer of `bytes`.
    pub(super) fn sending(&self, batch: &Batch, bytes: usize) {
        let count = u64::try_from(batch.count).unwrap_or(0);
        self.topics.with(&batch.outcome.partition().topic, |topic| {
            if batch.attempts > 1 {
                topic.retried.add(count);
            } else {
                topic.sent.add(count);
                topic.bytes.add(bytes as u64);
            }
        });
        if batch.attempts > 1 {
            self.records_retried.add(count);
            return;
        }
        self.records_sent.add(count);
        self.batch_bytes.add(bytes as u64);
        self.queue_time.add_time(batch.created.elapsed());
    }

    /// Counts a request with so many records.
    pub(super) fn requested(&self, records: u64) {
        self.request_records.add(records);
    }

    /// Counts an answer.
    pub(super) fn answered(&self, after: Duration) {
        self.request_time.add_time(after);
    }

    /// Counts a batch that is given up.
    pub(super) fn failed(&self, batch: &Batch) {
        let count = u64::try_from(batch.count).unwrap_or(0);
        self.records_failed.add(count);
        self.topics.with(&batch.outcome.partition().topic, |topic| topic.failed.add(count));
    }
}

impl Measured for Shared {
    fn metrics(&self) -> Vec<Metric> {
        const GROUP: &str = "producer-metrics";
        let counters = &self.counters;
        let total = self.config.buffer_memory;
        let used = self.accumulator.memory_used();
        let (queued, queued_max) = counters.queue_time.times_ms();
        let (answered, answered_max) = counters.request_time.times_ms();
        let waiting = self.memory_waiters.load(Ordering::Relaxed);
        let mut metrics: Vec<Metric> = [
            ("record-send-total", counters.records_sent.get()),
            ("record-error-total", counters.records_failed.get()),
            ("record-retry-total", counters.records_retried.get()),
            ("batch-size-avg", counters.batch_bytes.average()),
            ("batch-size-max", counters.batch_bytes.max()),
            ("record-queue-time-avg", queued),
            ("record-queue-time-max", queued_max),
            ("request-total", counters.request_records.count()),
            ("records-per-request-avg", counters.request_records.average()),
            ("request-latency-avg", answered),
            ("request-latency-max", answered_max),
            ("requests-in-flight", counters.in_flight.load(Ordering::Relaxed) as f64),
            ("buffer-total-bytes", total as f64),
            ("buffer-available-bytes", total.saturating_sub(used) as f64),
            ("waiting-threads", waiting as f64),
        ]
        .map(|(name, value)| Metric::new(GROUP, name, value))
        .into();
        counters.topics.each(|name, topic| {
            let values = [
                ("record-send-total", topic.sent.get()),
                ("byte-total", topic.bytes.get()),
                ("record-error-total", topic.failed.get()),
                ("record-retry-total", topic.retried.get()),
            ];
            metrics.extend(values.map(|(metric, value)| Metric {
                tags: vec![("topic", name.to_owned())],
                ..Metric::new("producer-topic-metrics", metric, value)
            }));
        });
        metrics
    }
}

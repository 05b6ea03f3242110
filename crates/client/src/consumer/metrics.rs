//! What a consumer counts.

use super::Shared;
use super::fetching::Answer;
use super::records::Records;
use crate::metrics::{ByTopic, Measured, Metric, Spread, Total};

/// Counters, raised per poll and per request.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) records: Total,
    pub(super) bytes: Total,
    pub(super) fetch_time: Spread,
    pub(super) fetch_bytes: Spread,
    pub(super) fetch_records: Spread,
    pub(super) commit_time: Spread,
    pub(super) rebalances: Total,
    topics: ByTopic<OfTopic>,
}

/// Those of one topic.
#[derive(Debug, Default)]
struct OfTopic {
    records: Total,
    bytes: Total,
    fetch_bytes: Spread,
    fetch_records: Spread,
}

impl Counters {
    /// Counts records that the application was given.
    pub(super) fn polled(&self, records: &Records) {
        let (count, bytes) = (records.count() as u64, records.bytes() as u64);
        self.records.add(count);
        self.bytes.add(bytes);
        self.topics.with(&records.partition().topic, |topic| {
            topic.records.add(count);
            topic.bytes.add(bytes);
        });
    }

    /// Counts the answers of one fetch.
    pub(super) fn fetched(&self, answers: &[Answer]) {
        let readable = || answers.iter().filter_map(|a| a.records.as_ref()?.as_ref().ok());
        self.fetch_bytes.add(readable().map(|records| records.bytes() as u64).sum());
        self.fetch_records.add(readable().map(|records| records.count() as u64).sum());
        for records in readable() {
            self.topics.with(&records.partition().topic, |topic| {
                topic.fetch_bytes.add(records.bytes() as u64);
                topic.fetch_records.add(records.count() as u64);
            });
        }
    }
}

impl Measured for Shared {
    fn metrics(&self) -> Vec<Metric> {
        const FETCH: &str = "consumer-fetch-manager-metrics";
        const COORDINATOR: &str = "consumer-coordinator-metrics";
        let counters = &self.counters;
        let (fetched, fetched_max) = counters.fetch_time.times_ms();
        let (committed, committed_max) = counters.commit_time.times_ms();
        let state = self.lock();
        let mut lags = Vec::new();
        for (partition, assigned) in &state.partitions {
            if let Some(end) = assigned.high_watermark {
                lags.push((partition, (end - assigned.consumed.offset).max(0) as f64));
            }
        }
        let lag_max = lags.iter().map(|(_, lag)| *lag).fold(f64::NAN, f64::max);
        let silence = state.last_poll.elapsed().as_secs_f64();
        let mut metrics: Vec<Metric> = [
            (FETCH, "records-consumed-total", counters.records.get()),
            (FETCH, "bytes-consumed-total", counters.bytes.get()),
            (FETCH, "fetch-total", counters.fetch_time.count()),
            (FETCH, "fetch-latency-avg", fetched),
            (FETCH, "fetch-latency-max", fetched_max),
            (FETCH, "fetch-size-avg", counters.fetch_bytes.average()),
            (FETCH, "fetch-size-max", counters.fetch_bytes.max()),
            (FETCH, "records-per-request-avg", counters.fetch_records.average()),
            (FETCH, "records-lag-max", lag_max),
            (COORDINATOR, "assigned-partitions", state.partitions.len() as f64),
            (COORDINATOR, "commit-total", counters.commit_time.count()),
            (COORDINATOR, "commit-latency-avg", committed),
            (COORDINATOR, "commit-latency-max", committed_max),
            (COORDINATOR, "rebalance-total", counters.rebalances.get()),
            ("consumer-metrics", "last-poll-seconds-ago", silence),
        ]
        .map(|(group, name, value)| Metric::new(group, name, value))
        .into();
        metrics.extend(lags.into_iter().map(|(partition, lag)| Metric {
            tags: vec![
                ("topic", partition.topic.to_string()),
                ("partition", partition.partition.to_string()),
            ],
            ..Metric::new(FETCH, "records-lag", lag)
        }));
        self.counters.topics.each(|name, topic| {
            let values = [
                ("records-consumed-total", topic.records.get()),
                ("bytes-consumed-total", topic.bytes.get()),
                ("fetch-size-avg", topic.fetch_bytes.average()),
                ("fetch-size-max", topic.fetch_bytes.max()),
                ("records-per-request-avg", topic.fetch_records.average()),
            ];
            metrics.extend(values.map(|(metric, value)| Metric {
                tags: vec![("topic", name.to_owned())],
                ..Metric::new(FETCH, metric, value)
            }));
        });
        metrics
    }
}

//! Counters of the broker, under the names people already chart.
//!
//! The hot path adds to plain atomics; names, labels and quantiles are made when somebody asks
//! for the page. The dialect is the one that Strimzi's exporter rules give Kafka's MBeans.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleuve_http::{Exposition, Kind};

/// Topics that get a label of their own; the rest is counted in the totals only.
///
/// A label per topic is what makes a metrics page large, and topics are made by clients.
const LABELLED_TOPICS_MAX: usize = 1000;

/// A counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Returns the sum so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happened to the records of one topic, or of all.
#[derive(Debug, Default)]
pub(crate) struct TopicCounters {
    pub(crate) messages_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) produce_requests: Counter,
    pub(crate) fetch_requests: Counter,
    pub(crate) failed_produce_requests: Counter,
    pub(crate) failed_fetch_requests: Counter,
}

/// How often one API was called and how long it took.
#[derive(Debug, Default)]
pub(crate) struct RequestCounters {
    /// Requests answered.
    pub(crate) count: Counter,
    /// From the request's arrival to its answer, as a distribution.
    pub(crate) total: Distribution,
    /// Time in the handler itself, in nanoseconds.
    pub(crate) local_ns: Counter,
    /// Size of the requests in bytes.
    pub(crate) request_bytes: Counter,
    /// Size of the responses in bytes.
    pub(crate) response_bytes: Counter,
}

/// Durations in buckets whose width is an eighth of their size.
///
/// That bounds the error of a quantile to 12 %, in a quarter of a kilobyte per factor of 16.
#[derive(Debug)]
pub(crate) struct Distribution {
    buckets: Box<[AtomicU64; BUCKETS]>,
    sum_us: AtomicU64,
}

/// Buckets per doubling.
const STEPS: usize = 8;
/// Microseconds up to 2^36, which are 19 hours.
const BUCKETS: usize = 37 * STEPS;

impl Default for Distribution {
    fn default() -> Self {
        Self {
            buckets: Box::new([const { AtomicU64::new(0) }; BUCKETS]),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Distribution {
    /// Counts one duration.
    pub(crate) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn write(&self, page: &mut Exposition, label: (&str, &str)) {
        const QUANTILES: [(f64, &str); 6] = [
            (0.50, "0.50"),
            (0.75, "0.75"),
            (0.95, "0.95"),
            (0.98, "0.98"),
            (0.99, "0.99"),
            (0.999, "0.999"),
        ];
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        for (quantile, text) in QUANTILES {
            let rank = (quantile * total as f64).ceil() as u64;
            let mut seen = 0;
            let index = counts.iter().position(|count| {
                seen += count;
                seen >= rank && seen > 0
            });
            let ms = index.map_or(0.0, |index| lower_bound(index + 1) as f64 / 1000.0);
            page.sample(&[label, ("quantile", text)], ms);
        }
        page.suffixed("_sum", &[label], self.sum_us.load(Ordering::Relaxed) as f64 / 1000.0);
        page.suffixed("_count", &[label], total as f64);
    }
}

/// Finds the bucket: the power of two, and the eighth within it.
fn bucket(us: u64) -> usize {
    if us < STEPS as u64 {
        return us as usize;
    }
    let power = us.ilog2() as usize;
    let eighth = (us >> (power - 3)) as usize & (STEPS - 1);
    ((power - 2) * STEPS + eighth).min(BUCKETS - 1)
}

/// The smallest duration of a bucket in microseconds.
fn lower_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    ((STEPS + bucket % STEPS) as u64) << (bucket / STEPS - 1)
}

/// Adds the per-topic families for `topics` and their sum.
pub(crate) fn write_topics(
    page: &mut Exposition,
    all: &TopicCounters,
    topics: &[(Arc<str>, Arc<TopicCounters>)],
) {
    type Read = fn(&TopicCounters) -> &Counter;
    let families: [(&str, &str, Read); 7] = [
        ("messagesin", "Records received.", |c| &c.messages_in),
        ("bytesin", "Record bytes received.", |c| &c.bytes_in),
        ("bytesout", "Record bytes sent.", |c| &c.bytes_out),
        ("totalproducerequests", "Partitions in produce requests.", |c| &c.produce_requests),
        ("totalfetchrequests", "Partitions in fetch requests.", |c| &c.fetch_requests),
        ("failedproducerequests", "Partitions whose produce failed.", |c| {
            &c.failed_produce_requests
        }),
        ("failedfetchrequests", "Partitions whose fetch failed.", |c| &c.failed_fetch_requests),
    ];
    for (name, help, read) in families {
        let name = format!("kafka_server_brokertopicmetrics_{name}_total");
        page.family(&name, Kind::Counter, help);
        page.sample(&[], read(all).get() as f64);
        for (topic, counters) in topics.iter().take(LABELLED_TOPICS_MAX) {
            page.sample(&[("topic", topic)], read(counters).get() as f64);
        }
    }
}

/// Adds the families of requests, for the APIs that were called at least once.
pub(crate) fn write_requests<'a>(
    page: &mut Exposition,
    requests: impl Iterator<Item = (&'static str, &'a RequestCounters)> + Clone,
) {
    let called = requests.filter(|(_, counters)| counters.count.get() > 0);
    page.family("kafka_network_requestmetrics_requests_total", Kind::Counter, "Requests.");
    for (api, counters) in called.clone() {
        page.sample(&[("request", api)], counters.count.get() as f64);
    }
    page.family(
        "kafka_network_requestmetrics_totaltimems",
        Kind::Summary,
        "Milliseconds from a request's arrival to its answer.",
    );
    for (api, counters) in called.clone() {
        counters.total.write(page, ("request", api));
    }
    type Read = fn(&RequestCounters) -> f64;
    let families: [(&str, &str, Read); 3] = [
        ("localtimems_sum", "Milliseconds spent in handlers.", |c| c.local_ns.get() as f64 / 1e6),
        ("requestbytes_sum", "Bytes of requests.", |c| c.request_bytes.get() as f64),
        ("responsebytes_sum", "Bytes of responses.", |c| c.response_bytes.get() as f64),
    ];
    for (name, help, read) in families {
        let name = format!("kafka_network_requestmetrics_{name}");
        page.family(&name, Kind::Counter, help);
        for (api, counters) in called.clone() {
            page.sample(&[("request", api)], read(counters));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_ordered_and_narrow() {
        for us in (0..100_000).chain([1 << 30, u64::MAX]) {
            let index = bucket(us);
            assert!(lower_bound(index) <= us, "{us}");
            if index + 1 < BUCKETS {
                assert!(us < lower_bound(index + 1), "{us}");
                assert!(lower_bound(index + 1) - lower_bound(index) <= (us / 8).max(1), "{us}");
            }
        }
    }

    #[test]
    fn quantiles_come_from_what_was_recorded() {
        let distribution = Distribution::default();
        for ms in 1..=1000 {
            distribution.record(Duration::from_millis(ms));
        }
        let mut page = Exposition::new();
        page.family("t", Kind::Summary, "");
        distribution.write(&mut page, ("request", "Fetch"));
        let text = page.into_text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).expect("present");
            line.rsplit(' ').next().expect("a value").parse().expect("a number")
        };
        let median = value("t{request=\"Fetch\",quantile=\"0.50\"}");
        assert!((500.0..=570.0).contains(&median), "{median}");
        let tail = value("t{request=\"Fetch\",quantile=\"0.999\"}");
        assert!((999.0..=1130.0).contains(&tail), "{tail}");
        assert_eq!(value("t_count"), 1000.0);
        assert_eq!(value("t_sum"), 500_500.0);
    }

    #[test]
    fn topics_beyond_the_limit_are_in_the_total_only() {
        let all = TopicCounters::default();
        all.bytes_in.add(7);
        let topics: Vec<_> = (0..LABELLED_TOPICS_MAX + 5)
            .map(|index| (Arc::from(format!("t{index}")), Arc::default()))
            .collect();
        let mut page = Exposition::new();
        write_topics(&mut page, &all, &topics);
        let text = page.into_text();
        assert!(text.contains("\nkafka_server_brokertopicmetrics_bytesin_total 7\n"));
        assert!(text.contains("topic=\"t999\"") && !text.contains("topic=\"t1000\""));
    }
}

//! What happened to the records of topics.

use std::sync::Arc;

use fleuve_http::{Exposition, Kind};

use super::Counter;

/// Topics that get a label of their own; the rest is counted in the totals only.
///
/// A label per topic is what makes a metrics page large, and topics are made by clients.
const LABELLED_TOPICS_MAX: usize = 1000;

/// What happened to the records of one topic, or of all.
#[derive(Debug, Default)]
pub(crate) struct TopicCounters {
    pub(crate) messages_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) bytes_rejected: Counter,
    pub(crate) produce_requests: Counter,
    pub(crate) fetch_requests: Counter,
    pub(crate) failed_produce_requests: Counter,
    pub(crate) failed_fetch_requests: Counter,
    pub(crate) invalid_format: Counter,
    pub(crate) invalid_crc: Counter,
    pub(crate) invalid_sequence: Counter,
}

/// Adds the per-topic families for `topics` and their sum.
pub(crate) fn write_topics(
    page: &mut Exposition,
    all: &TopicCounters,
    topics: &[(Arc<str>, Arc<TopicCounters>)],
) {
    type Read = fn(&TopicCounters) -> &Counter;
    let families: [(&str, &str, Read); 11] = [
        ("messagesin", "Records received.", |c| &c.messages_in),
        ("bytesin", "Record bytes received.", |c| &c.bytes_in),
        ("bytesout", "Record bytes sent.", |c| &c.bytes_out),
        ("bytesrejected", "Record bytes refused as too large.", |c| &c.bytes_rejected),
        ("totalproducerequests", "Partitions in produce requests.", |c| &c.produce_requests),
        ("totalfetchrequests", "Partitions in fetch requests.", |c| &c.fetch_requests),
        ("failedproducerequests", "Partitions whose produce failed.", |c| {
            &c.failed_produce_requests
        }),
        ("failedfetchrequests", "Partitions whose fetch failed.", |c| &c.failed_fetch_requests),
        ("invalidmagicnumberrecords", "Batches that break a rule of their format.", |c| {
            &c.invalid_format
        }),
        ("invalidmessagecrcrecords", "Batches whose checksum is wrong.", |c| &c.invalid_crc),
        ("invalidoffsetorsequencerecords", "Batches out of their producer's sequence.", |c| {
            &c.invalid_sequence
        }),
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

#[cfg(test)]
mod tests {
    use super::*;

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

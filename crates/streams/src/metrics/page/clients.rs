//! The consumers and producers of threads, under the names of Kafka's clients: `kafka_consumer_` or `kafka_producer_`,
//! the group, and the metric.

use std::collections::BTreeMap;

use fleuve_client::Metric;
use fleuve_http::Kind;

use super::{SERIES_MAX, Writer, thread_id};
use crate::metrics::ThreadMetrics;

impl Writer<'_> {
    pub(super) fn clients(&mut self, threads: &[ThreadMetrics]) {
        let mut families: BTreeMap<String, Vec<(String, &Metric)>> = BTreeMap::new();
        for thread in threads {
            for client in &thread.clients {
                let kind = client.kind.name();
                let id = format!("{}-{}-{kind}", self.about.application, thread_id(thread.thread));
                for metric in &client.metrics {
                    let name = format!("kafka_{kind}_{}_{}", metric.group, metric.name);
                    families.entry(name.replace('-', "_")).or_default().push((id.clone(), metric));
                }
            }
        }
        for (name, samples) in families {
            let is_total = samples.first().is_some_and(|(_, metric)| metric.is_total());
            let kind = if is_total { Kind::Counter } else { Kind::Gauge };
            self.page.family(&name, kind, "As Kafka's clients have it.");
            for (id, metric) in samples.into_iter().take(SERIES_MAX) {
                let tags: Vec<(String, &String)> =
                    metric.tags.iter().map(|(tag, value)| (tag.replace('-', "_"), value)).collect();
                let mut labels = vec![("client_id", id.as_str())];
                labels.extend(tags.iter().map(|(tag, value)| (tag.as_str(), value.as_str())));
                self.page.sample(&labels, metric.value);
            }
        }
    }
}

//! The latest values that clients pushed, within bounds.
//!
//! Names and labels come from strangers, and each combination is a time series of its own. So a
//! client gets so many series and all together so many; names and labels have a length. What is
//! beyond that is counted and left out. A client's series end with it.

use std::collections::{BTreeMap, HashMap};

use fleuve_http::{Exposition, Kind};
use fleuve_types::Uuid;

use super::Point;

/// Series of one client.
const CLIENT_SERIES_MAX: usize = 500;
/// Series of all clients.
const SERIES_MAX: usize = 20_000;
/// Bytes of a metric's name.
const NAME_MAX: usize = 200;
/// Bytes of a label's value.
const LABEL_MAX: usize = 200;

/// Names and labels of a series, in the order of the labels' names.
type Labels = Vec<(String, String)>;

/// A family of series: a metric by its name on the page.
#[derive(Debug)]
struct Family {
    is_sum: bool,
    series: BTreeMap<(Uuid, Labels), f64>,
}

/// All series.
#[derive(Debug, Default)]
pub(crate) struct Store {
    families: BTreeMap<String, Family>,
    counts: HashMap<Uuid, usize>,
    total: usize,
    left_out: u64,
}

impl Store {
    /// Takes a point that a client pushed.
    pub(crate) fn put(&mut self, client: Uuid, client_id: &str, point: Point<'_>) {
        if point.name.is_empty() || point.name.len() > NAME_MAX || !point.value.is_finite() {
            self.left_out += 1;
            return;
        }
        let mut labels: Labels = point
            .attributes
            .iter()
            .map(|(name, value)| (sanitized(name), cut(value)))
            .filter(|(name, _)| !matches!(name.as_str(), "" | CLIENT_ID | INSTANCE))
            .collect();
        labels.push((CLIENT_ID.to_owned(), cut(client_id)));
        labels.sort_unstable();
        labels.dedup_by(|left, right| left.0 == right.0);
        let count = self.counts.get(&client).copied().unwrap_or(0);
        let has_room = count < CLIENT_SERIES_MAX && self.total < SERIES_MAX;
        let name = sanitized(point.name);
        let key = (client, labels);
        let known = self.families.get(&name).is_some_and(|f| f.series.contains_key(&key));
        if !known && !has_room {
            self.left_out += 1;
            return;
        }
        let is_sum = point.is_sum;
        let family =
            self.families.entry(name).or_insert_with(|| Family { is_sum, series: BTreeMap::new() });
        let value = family.series.entry(key).or_insert_with(|| {
            self.total += 1;
            *self.counts.entry(client).or_default() += 1;
            0.0
        });
        *value = if point.is_delta { *value + point.value } else { point.value };
    }

    /// Forgets a client's series.
    pub(crate) fn forget(&mut self, client: Uuid) {
        if self.counts.remove(&client).is_none() {
            return;
        }
        for family in self.families.values_mut() {
            let before = family.series.len();
            family.series.retain(|(owner, _), _| *owner != client);
            self.total -= before - family.series.len();
        }
        self.families.retain(|_, family| !family.series.is_empty());
    }

    /// Writes all series.
    pub(crate) fn write(&self, page: &mut Exposition) {
        for (name, family) in &self.families {
            let kind = if family.is_sum { Kind::Counter } else { Kind::Gauge };
            page.family(&format!("{PREFIX}{name}"), kind, "Pushed by clients.");
            for ((client, labels), value) in &family.series {
                let instance = client.to_string();
                let mut pairs: Vec<(&str, &str)> =
                    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                pairs.push((INSTANCE, &instance));
                page.sample(&pairs, *value);
            }
        }
        page.family("kafka_server_client_metrics_series", Kind::Gauge, "Series that clients push.")
            .sample(&[], self.total as f64);
        page.family(
            "kafka_server_client_metrics_left_out_total",
            Kind::Counter,
            "Points of clients beyond what is kept.",
        )
        .sample(&[], self.left_out as f64);
    }
}

/// What names on the page begin with, so that clients cannot pass for the broker.
const PREFIX: &str = "kafka_client_";
const CLIENT_ID: &str = "client_id";
const INSTANCE: &str = "client_instance_id";

/// Writes a name with what Prometheus allows in one.
fn sanitized(name: &str) -> String {
    let name = name.strip_prefix("org.apache.kafka.").unwrap_or(name);
    let fitting = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().take(NAME_MAX).map(fitting).collect()
}

fn cut(text: &str) -> String {
    text.chars().take(LABEL_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::otlp::tests::push;
    use super::super::read;
    use super::*;

    fn page(store: &Store) -> String {
        let mut page = Exposition::new();
        store.write(&mut page);
        page.into_text()
    }

    fn point(name: &str, value: f64) -> Point<'_> {
        Point { name, attributes: Vec::new(), value, is_delta: false, is_sum: false }
    }

    #[test]
    fn gauges_are_replaced_and_deltas_added() {
        let mut store = Store::default();
        let client = Uuid([1; 16]);
        for _ in 0..2 {
            read(&push(), |point| store.put(client, "app", point)).expect("a push");
        }
        let text = page(&store);
        let expected = [
            "kafka_client_lag_max{client_id=\"app\",topic=\"orders\",client_instance_id=\"AQEBAQEBAQEBAQEBAQEBAQ\"} 2.5",
            "kafka_client_records_total{client_id=\"app\",client_instance_id=\"AQEBAQEBAQEBAQEBAQEBAQ\"} 14",
            "kafka_server_client_metrics_series 2",
        ];
        for line in expected {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        store.forget(client);
        assert!(page(&store).contains("kafka_server_client_metrics_series 0"));
        assert!(store.families.is_empty());
    }

    #[test]
    fn strangers_cannot_fill_the_page() {
        let mut store = Store::default();
        for client in 0..60_u8 {
            for metric in 0..600 {
                store.put(Uuid([client; 16]), "x", point(&format!("m{metric}"), 1.0));
            }
        }
        assert_eq!(store.total, SERIES_MAX);
        assert_eq!(store.left_out, 60 * 600 - SERIES_MAX as u64);
        store.put(Uuid([0; 16]), "x", point("m0", 5.0));
        assert_eq!(store.left_out, 60 * 600 - SERIES_MAX as u64, "known series go on");
        let long = "n".repeat(NAME_MAX + 1);
        store.put(Uuid([0; 16]), "x", point(&long, 1.0));
        store.put(Uuid([0; 16]), "x", point("nan", f64::NAN));
        assert_eq!(store.left_out, 60 * 600 - SERIES_MAX as u64 + 2);
    }

    #[test]
    fn names_and_labels_are_made_harmless() {
        let mut store = Store::default();
        let mut odd = point("a\"b\n c.d{}", 1.0);
        odd.attributes = vec![("client.id", "fake".into()), ("x y", "\"\n".into())];
        store.put(Uuid([1; 16]), "real", odd);
        let text = page(&store);
        assert!(
            text.contains("kafka_client_a_b__c_d__{client_id=\"real\",x_y=\"\\\"\\n\","),
            "{text}"
        );
    }
}

//! Metrics as OpenTelemetry's `MetricsData`, which is what brokers take (KIP-714).
//!
//! ```text
//! MetricsData      1 ResourceMetrics
//! ResourceMetrics  2 ScopeMetrics
//! ScopeMetrics     2 Metric*
//! Metric           1 name   5 Gauge | 7 Sum
//! Gauge            1 NumberDataPoint
//! Sum              1 NumberDataPoint   2 temporality, 1 delta or 2 cumulative   3 monotonic
//! NumberDataPoint  2 start ns, fixed64   3 time ns, fixed64   4 double   7 KeyValue*
//! KeyValue         1 key   2 AnyValue       AnyValue  1 string
//! ```

use super::Metric;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

/// When values were taken, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Since when totals count.
    pub(super) since_ns: u64,
    pub(super) now_ns: u64,
    /// Whether totals are those since the last push.
    pub(super) delta: bool,
}

/// Returns the name under which brokers ask for a metric.
pub(super) fn name(metric: &Metric) -> String {
    let group = metric.group.strip_suffix("-metrics").unwrap_or(metric.group);
    format!("org.apache.kafka.{group}.{}", metric.name).replace('-', ".")
}

/// Writes metrics.
pub(super) fn encode(metrics: &[(Metric, Times)]) -> Vec<u8> {
    let mut scope = Vec::new();
    for (metric, times) in metrics {
        bytes(&mut scope, 2, &encode_one(metric, *times));
    }
    let mut resource = Vec::new();
    bytes(&mut resource, 2, &scope);
    let mut data = Vec::new();
    bytes(&mut data, 1, &resource);
    data
}

fn encode_one(metric: &Metric, times: Times) -> Vec<u8> {
    let mut point = Vec::new();
    fixed(&mut point, 2, times.since_ns);
    fixed(&mut point, 3, times.now_ns);
    fixed(&mut point, 4, metric.value.to_bits());
    for (key, value) in &metric.tags {
        let (mut any, mut pair) = (Vec::new(), Vec::new());
        bytes(&mut any, 1, value.as_bytes());
        bytes(&mut pair, 1, key.as_bytes());
        bytes(&mut pair, 2, &any);
        bytes(&mut point, 7, &pair);
    }
    let mut values = Vec::new();
    bytes(&mut values, 1, &point);
    let mut one = Vec::new();
    bytes(&mut one, 1, name(metric).as_bytes());
    if metric.is_total() {
        number(&mut values, 2, if times.delta { 1 } else { 2 });
        number(&mut values, 3, 1);
        bytes(&mut one, 7, &values);
    } else {
        bytes(&mut one, 5, &values);
    }
    one
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn number(into: &mut Vec<u8>, field: u8, value: u64) {
    into.push(field << 3 | VARINT);
    varint(into, value);
}

fn fixed(into: &mut Vec<u8>, field: u8, value: u64) {
    into.push(field << 3 | FIXED64);
    into.extend_from_slice(&value.to_le_bytes());
}

fn bytes(into: &mut Vec<u8>, field: u8, value: &[u8]) {
    into.push(field << 3 | BYTES);
    varint(into, value.len() as u64);
    into.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_ones_brokers_ask_for() {
        let metric = Metric::new("consumer-fetch-manager-metrics", "records-lag-max", 0.0);
        assert_eq!(name(&metric), "org.apache.kafka.consumer.fetch.manager.records.lag.max");
    }

    #[test]
    fn bytes_are_those_of_protocol_buffers() {
        let mut metric = Metric::new("producer-metrics", "x-total", 2.0);
        metric.tags.push(("topic", "t".to_owned()));
        let times = Times { since_ns: 1, now_ns: 2, delta: true };
        let name = b"org.apache.kafka.producer.x.total";
        let parts: [&[u8]; 4] = [
            &[0x0a, 0x58, 0x12, 0x56, 0x12, 0x54], // data, resource, scope
            &[0x0a, 0x21],
            name,
            &[
                0x3a, 0x2f, 0x0a, 0x29, // sum, point
                0x11, 1, 0, 0, 0, 0, 0, 0, 0, // since
                0x19, 2, 0, 0, 0, 0, 0, 0, 0, // now
                0x21, 0, 0, 0, 0, 0, 0, 0, 0x40, // value
                0x3a, 0x0c, 0x0a, 5, b't', b'o', b'p', b'i', b'c', 0x12, 3, 0x0a, 1,
                b't', // tag
                0x10, 1, 0x18, 1, // delta, monotonic
            ],
        ];
        assert_eq!(encode(&[(metric, times)]), parts.concat());
    }
}

//! Topic configs: what may be set on a topic, and the typed values that then hold for it.
//!
//! A value comes from the topic's own overrides, else from the broker keys that are its synonyms
//! (each through its layers, the first that is not null), else from the table.

use super::key::{Key, Status};
use super::keys::{REMOVED_TOPIC_KEYS, TOPIC_KEYS, find, remedy_for_removed};
use super::layers::{ConfigMap, Layers, NO_CONFIGS, default_value};
use super::suggest::nearest;
use super::value::Value;

/// What holds for the partitions of one topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicSettings {
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms`.
    pub segment_ms: u64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: u64,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `preallocate`.
    pub preallocate: bool,
    /// `retention.ms`; `None` for no limit.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: u64,
    /// `flush.messages`; `None` leaves it to time and acknowledgements.
    pub flush_messages: Option<u64>,
    /// `flush.ms`; `None` leaves it to counts and acknowledgements.
    pub flush_ms: Option<u64>,
    /// `max.message.bytes`.
    pub max_message_bytes: u32,
    /// `min.insync.replicas`.
    pub min_insync_replicas: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: u64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: u64,
    /// `compression.type`.
    pub compression: CompressionType,
    /// `compression.gzip.level`; `None` for the codec's own default.
    pub compression_gzip_level: Option<u32>,
    /// `compression.lz4.level`.
    pub compression_lz4_level: u32,
    /// `compression.zstd.level`.
    pub compression_zstd_level: i32,
    /// `delete.retention.ms`.
    pub delete_retention_ms: u64,
    /// `min.compaction.lag.ms`.
    pub compaction_lag_min_ms: u64,
    /// `max.compaction.lag.ms`.
    pub compaction_lag_max_ms: u64,
    /// `min.cleanable.dirty.ratio`.
    pub cleanable_dirty_ratio_min: f64,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
}

/// What happens to old records; neither keeps them forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted by age and size.
    pub delete: bool,
    /// Only the newest record of each key is kept.
    pub compact: bool,
}

/// Which time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The one that its producer gave.
    CreateTime,
    /// The one at which it was appended.
    LogAppendTime,
}

/// How batches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// As they came.
    Producer,
    /// Not compressed.
    Uncompressed,
    /// By gzip.
    Gzip,
    /// By Snappy.
    Snappy,
    /// By LZ4.
    Lz4,
    /// By Zstandard.
    Zstd,
}

/// Reports that topic configs cannot hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TopicConfigError {
    message: String,
}

impl TopicSettings {
    /// Computes what holds for a topic with these overrides.
    pub fn resolve(overrides: &ConfigMap, layers: &Layers<'_>) -> Self {
        let values = Values { overrides, layers };
        let policies = match values.get("cleanup.policy") {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        };
        let has_policy = |name: &str| policies.iter().any(|policy| policy == name);
        let segment_bytes = values
            .get("internal.segment.bytes")
            .and_then(|value| value.as_integer())
            .unwrap_or_else(|| values.integer("segment.bytes"));
        Self {
            segment_bytes: segment_bytes.max(1) as u32,
            segment_ms: values.unsigned("segment.ms").max(1),
            segment_jitter_ms: values.unsigned("segment.jitter.ms"),
            segment_index_bytes: values.unsigned("segment.index.bytes") as u32,
            index_interval_bytes: values.unsigned("index.interval.bytes") as u32,
            preallocate: values.boolean("preallocate"),
            retention_ms: values.limit("retention.ms"),
            retention_bytes: values.limit("retention.bytes"),
            cleanup: CleanupPolicy { delete: has_policy("delete"), compact: has_policy("compact") },
            file_delete_delay_ms: values.unsigned("file.delete.delay.ms"),
            flush_messages: values.limit("flush.messages").filter(is_finite),
            flush_ms: values.limit("flush.ms").filter(is_finite),
            max_message_bytes: values.unsigned("max.message.bytes") as u32,
            min_insync_replicas: values.unsigned("min.insync.replicas") as u32,
            timestamp_type: match values.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: values.unsigned("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: values.unsigned("message.timestamp.after.max.ms"),
            compression: match values.text("compression.type").as_str() {
                "uncompressed" => CompressionType::Uncompressed,
                "gzip" => CompressionType::Gzip,
                "snappy" => CompressionType::Snappy,
                "lz4" => CompressionType::Lz4,
                "zstd" => CompressionType::Zstd,
                _ => CompressionType::Producer,
            },
            compression_gzip_level: u32::try_from(values.integer("compression.gzip.level")).ok(),
            compression_lz4_level: values.unsigned("compression.lz4.level") as u32,
            compression_zstd_level: values.integer("compression.zstd.level") as i32,
            delete_retention_ms: values.unsigned("delete.retention.ms"),
            compaction_lag_min_ms: values.unsigned("min.compaction.lag.ms"),
            compaction_lag_max_ms: values.unsigned("max.compaction.lag.ms"),
            cleanable_dirty_ratio_min: match values.get("min.cleanable.dirty.ratio") {
                Some(Value::Double(ratio)) => ratio,
                _ => unreachable!("the table gives this key a fraction as its default"),
            },
            unclean_leader_election: values.boolean("unclean.leader.election.enable"),
        }
    }

    /// Computes what holds for a topic that sets nothing.
    pub fn from_broker(layers: &Layers<'_>) -> Self {
        Self::resolve(&NO_CONFIGS, layers)
    }

    /// Checks what single ranges cannot express.
    pub(super) fn check(&self) -> Result<(), TopicConfigError> {
        if self.compaction_lag_min_ms > self.compaction_lag_max_ms {
            return Err(TopicConfigError {
                message: format!(
                    "`min.compaction.lag.ms` ({}) is above `max.compaction.lag.ms` ({})",
                    self.compaction_lag_min_ms, self.compaction_lag_max_ms
                ),
            });
        }
        Ok(())
    }
}

/// Checks that a topic may have exactly these overrides; the error names every mistake.
pub fn check_topic_overrides(
    overrides: &ConfigMap,
    layers: &Layers<'_>,
) -> Result<(), TopicConfigError> {
    let mut mistakes = Vec::new();
    for (name, text) in overrides {
        match find(TOPIC_KEYS, name) {
            None => mistakes.push(unknown(name)),
            Some(key) => match Value::parse(key, text) {
                Err(error) => mistakes.push(error.to_string()),
                Ok(value) => {
                    if key.status == Status::NotYetAndDangerous && Some(value) != default_value(key)
                    {
                        mistakes
                            .push(format!("`{name}` is known, but not served yet; leave it out"));
                    }
                }
            },
        }
    }
    if mistakes.is_empty() {
        return TopicSettings::resolve(overrides, layers).check();
    }
    Err(TopicConfigError { message: mistakes.join("; ") })
}

fn unknown(name: &str) -> String {
    let remedy = match remedy_for_removed(REMOVED_TOPIC_KEYS, name) {
        Some(remedy) => remedy.to_owned(),
        None => match nearest(name, TOPIC_KEYS.iter().map(|key| key.name)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "docs/configuration.md lists all of them".to_owned(),
        },
    };
    format!("Unknown topic config name: {name} ({remedy})")
}

/// Returns what the broker gives topics for `key`, and the broker key it comes from.
pub(super) fn broker_default(key: &Key, layers: &Layers<'_>) -> Option<(&'static str, Value)> {
    key.broker_synonyms.iter().find_map(|(name, factor)| {
        let value = match layers.value(name)? {
            // Any negative retention means none, whatever its unit.
            Value::Integer(number) if *factor > 1 && number < 0 => Value::Integer(-1),
            Value::Integer(number) => Value::Integer(number.saturating_mul(*factor)),
            value => value,
        };
        Some((*name, value))
    })
}

/// Returns the value of a topic key that is in force.
pub(super) fn effective(key: &Key, overrides: &ConfigMap, layers: &Layers<'_>) -> Option<Value> {
    overrides
        .get(key.name)
        .and_then(|text| Value::parse(key, text).ok())
        .or_else(|| broker_default(key, layers).map(|(_, value)| value))
        .or_else(|| default_value(key))
}

struct Values<'a> {
    overrides: &'a ConfigMap,
    layers: &'a Layers<'a>,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        let key = find(TOPIC_KEYS, name).expect("the names here are in the table, as tests show");
        effective(key, self.overrides, self.layers)
    }

    fn integer(&self, name: &str) -> i64 {
        let value = self.get(name).and_then(|value| value.as_integer());
        value.expect("the table gives this key a number as its default")
    }

    fn unsigned(&self, name: &str) -> u64 {
        self.integer(name).max(0) as u64
    }

    fn limit(&self, name: &str) -> Option<u64> {
        u64::try_from(self.integer(name)).ok()
    }

    fn boolean(&self, name: &str) -> bool {
        self.get(name) == Some(Value::Boolean(true))
    }

    fn text(&self, name: &str) -> String {
        match self.get(name) {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        }
    }
}

/// Kafka writes "never" as the largest long.
fn is_finite(value: &u64) -> bool {
    *value < i64::MAX as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BrokerSettings, Override, Sources, load};

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn broker(pairs: &[(&str, &str)]) -> BrokerSettings {
        let overrides: Vec<Override> = pairs
            .iter()
            .map(|(key, value)| Override {
                key: (*key).into(),
                value: (*value).into(),
                flag: "--set".into(),
            })
            .collect();
        let sources = Sources { overrides: &overrides, ..Sources::default() };
        load(sources).expect("a valid configuration").0
    }

    fn resolve(topic: &[(&str, &str)], broker: &BrokerSettings) -> TopicSettings {
        TopicSettings::resolve(&map(topic), &Layers::of_statics(&broker.statics))
    }

    #[test]
    fn defaults_are_kafkas() {
        let settings = resolve(&[], &broker(&[]));
        assert_eq!(settings.segment_bytes, 1 << 30);
        assert_eq!(settings.segment_ms, 7 * 24 * 3_600_000);
        assert_eq!(settings.retention_ms, Some(7 * 24 * 3_600_000));
        assert_eq!(settings.retention_bytes, None);
        assert_eq!(settings.cleanup, CleanupPolicy { delete: true, compact: false });
        assert_eq!(settings.flush_messages, None);
        assert_eq!(settings.flush_ms, None);
        assert_eq!(settings.max_message_bytes, 1_048_588);
        assert_eq!(settings.timestamp_before_max_ms, i64::MAX as u64);
        assert_eq!(settings.timestamp_after_max_ms, 3_600_000);
        assert_eq!(settings.compression_gzip_level, None);
    }

    #[test]
    fn the_finest_unit_of_retention_wins_on_the_broker_and_the_topic_wins_over_it() {
        let hours = broker(&[("log.retention.hours", "1")]);
        assert_eq!(resolve(&[], &hours).retention_ms, Some(3_600_000));
        let minutes = broker(&[("log.retention.hours", "1"), ("log.retention.minutes", "2")]);
        assert_eq!(resolve(&[], &minutes).retention_ms, Some(120_000));
        let millis = broker(&[("log.retention.ms", "5"), ("log.retention.minutes", "2")]);
        assert_eq!(resolve(&[], &millis).retention_ms, Some(5));
        assert_eq!(resolve(&[("retention.ms", "-1")], &millis).retention_ms, None);
        let forever = broker(&[("log.retention.hours", "-1")]);
        assert_eq!(resolve(&[], &forever).retention_ms, None);
    }

    #[test]
    fn flush_by_time_falls_back_to_the_schedulers_interval() {
        let scheduled = broker(&[("log.flush.scheduler.interval.ms", "700")]);
        assert_eq!(resolve(&[], &scheduled).flush_ms, Some(700));
        let both =
            broker(&[("log.flush.scheduler.interval.ms", "700"), ("log.flush.interval.ms", "9")]);
        assert_eq!(resolve(&[], &both).flush_ms, Some(9));
    }

    #[test]
    fn dynamic_broker_values_stand_between_topic_and_file() {
        let settings = broker(&[("log.segment.bytes", "2000000")]);
        let (node, cluster) =
            (map(&[("log.segment.bytes", "4000000")]), map(&[("log.segment.bytes", "3000000")]));
        let of = |node: &ConfigMap, cluster: &ConfigMap| {
            TopicSettings::from_broker(&settings.layers(node, cluster)).segment_bytes
        };
        assert_eq!(of(&NO_CONFIGS, &NO_CONFIGS), 2_000_000);
        assert_eq!(of(&NO_CONFIGS, &cluster), 3_000_000);
        assert_eq!(of(&node, &cluster), 4_000_000);
        // A value that a later release wrote and we cannot read counts as absent.
        assert_eq!(of(&map(&[("log.segment.bytes", "1 GiB")]), &cluster), 3_000_000);
    }

    #[test]
    fn all_mistakes_of_a_topic_are_named() {
        let settings = broker(&[]);
        let layers = Layers::of_statics(&settings.statics);
        let check =
            |pairs| check_topic_overrides(&map(pairs), &layers).map_err(|error| error.to_string());
        assert_eq!(check(&[("cleanup.policy", "compact,delete"), ("segment.ms", "1")]), Ok(()));
        assert_eq!(
            check(&[("retention.msec", "1"), ("segment.ms", "0"), ("flavour", "sweet")]),
            Err("Unknown topic config name: flavour (docs/configuration.md lists all of them); \
                 Unknown topic config name: retention.msec (did you mean `retention.ms`?); \
                 invalid value `0` for `segment.ms`: must be a 64-bit integer, at least 1"
                .to_owned())
        );
        assert_eq!(
            check(&[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")]),
            Err("`min.compaction.lag.ms` (5) is above `max.compaction.lag.ms` (4)".to_owned())
        );
        assert_eq!(
            check(&[("remote.storage.enable", "true")]),
            Err("`remote.storage.enable` is known, but not served yet; leave it out".to_owned())
        );
        assert_eq!(check(&[("remote.storage.enable", "false")]), Ok(()));
    }
}

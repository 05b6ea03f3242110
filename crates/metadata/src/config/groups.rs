//! What holds for groups: limits of the classic protocol, and for each modern protocol the broker's
//! keys together with what may be set on single groups.
//!
//! The protocols of KIP-848 and after share their shape: session, heartbeat and assignment interval
//! each have a value, a lower and an upper bound among the broker's keys, and a key of their own that
//! can be set on a group.

use super::keys::{GROUP_KEYS, find};
use super::layers::{ConfigMap, Layers};
use super::load::count;
use super::problem::Problems;
use super::settings::{
    ConsumerGroupSettings, GroupSettings, ProtocolSettings, ShareGroupSettings,
    StreamsGroupSettings,
};
use super::value::Value;

/// What is set on one group, as far as it fits: values of a later release count as absent, and
/// those that the broker's bounds have moved away from are taken to the nearest bound.
#[derive(Clone, Copy, Debug)]
pub struct GroupOverrides<'a> {
    /// The group's dynamic configs.
    pub configs: &'a ConfigMap,
    /// Where the bounds come from.
    pub layers: &'a Layers<'a>,
}

impl GroupOverrides<'_> {
    /// The number that is set for a key of [`GROUP_KEYS`].
    pub fn integer(&self, name: &str) -> Option<i32> {
        let value = self.value(name)?.as_integer()?;
        let (_, low) = group_limit(name, "min", self.layers).unzip();
        let (_, high) = group_limit(name, "max", self.layers).unzip();
        let bounded = value.min(high.unwrap_or(i64::MAX)).max(low.unwrap_or(i64::MIN));
        i32::try_from(bounded).ok()
    }

    /// What is set for a key of [`GROUP_KEYS`].
    pub fn value(&self, name: &str) -> Option<Value> {
        let key = find(GROUP_KEYS, name)?;
        Value::parse(key, self.configs.get(name)?).ok()
    }
}

/// Where a share group begins to read a partition: `share.auto.offset.reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record there is.
    Earliest,
    /// After the last record there is.
    Latest,
    /// At the first record that is at most so old.
    ByDuration {
        /// The age in milliseconds.
        ms: i64,
    },
}

impl OffsetReset {
    /// Reads a value that the key's rule allows.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            other => {
                let (_, duration) = other.split_once(':')?;
                Some(Self::ByDuration { ms: duration_ms(duration)? })
            }
        }
    }
}

/// Reads a duration such as `P1DT2H3M4.5S`, in any case.
fn duration_ms(text: &str) -> Option<i64> {
    let text = text.to_ascii_lowercase();
    let mut seconds = 0.0;
    let mut number = String::new();
    for character in text.strip_prefix('p')?.chars() {
        let unit_seconds = match character {
            't' => continue,
            'd' => 86_400.0,
            'h' => 3_600.0,
            'm' => 60.0,
            's' => 1.0,
            digit => {
                number.push(digit);
                continue;
            }
        };
        seconds += std::mem::take(&mut number).parse::<f64>().ok()? * unit_seconds;
    }
    // A number too large for the type becomes the largest one, and that is old enough.
    number.is_empty().then_some((seconds * 1_000.0) as i64)
}

/// The broker's bound for a group's key, with the name of the key that says so:
/// `consumer.session.timeout.ms` is bounded by `group.consumer.min.session.timeout.ms`.
pub(super) fn group_limit(name: &str, side: &str, layers: &Layers<'_>) -> Option<(String, i64)> {
    let (protocol, rest) = name.split_once('.')?;
    let rest = rest.strip_prefix("num.").unwrap_or(rest);
    let limit_name = format!("group.{protocol}.{side}.{rest}");
    let limit = layers.value(&limit_name)?.as_integer()?;
    Some((limit_name, limit))
}

pub(super) fn resolve_groups(layers: &Layers<'_>, problems: &mut Problems) -> GroupSettings {
    const PROTOCOLS: &str = "group.coordinator.rebalance.protocols";
    let protocols = layers.list(PROTOCOLS);
    let has = |protocol: &str| protocols.iter().any(|known| known.eq_ignore_ascii_case(protocol));
    if !has("classic") {
        let message = format!("`{PROTOCOLS}` lacks classic, which cannot be switched off; add it");
        problems.error(layers.origin(PROTOCOLS), message);
    }
    let settings = GroupSettings {
        session_timeout_min_ms: layers.integer("group.min.session.timeout.ms") as i32,
        session_timeout_max_ms: layers.integer("group.max.session.timeout.ms") as i32,
        initial_rebalance_delay_ms: layers.integer("group.initial.rebalance.delay.ms").max(0)
            as i32,
        members_max: count(layers, "group.max.size"),
        has_consumer_protocol: has("consumer"),
        has_streams_protocol: has("streams"),
    };
    if settings.session_timeout_min_ms > settings.session_timeout_max_ms {
        let origin = layers
            .origin("group.min.session.timeout.ms")
            .or_else(|| layers.origin("group.max.session.timeout.ms"));
        problems.error(
            origin,
            format!(
                "`group.min.session.timeout.ms` ({}) is above `group.max.session.timeout.ms` \
                 ({}); no member could join, so lower the one or raise the other",
                settings.session_timeout_min_ms, settings.session_timeout_max_ms
            ),
        );
    }
    settings
}

/// What the server-side assignors are called, first by members and then by Kafka's class names.
const CONSUMER_ASSIGNORS: [(&str, &str); 2] = [
    ("uniform", "org.apache.kafka.coordinator.group.assignor.UniformAssignor"),
    ("range", "org.apache.kafka.coordinator.group.assignor.RangeAssignor"),
];

pub(super) fn resolve_consumer_groups(
    layers: &Layers<'_>,
    problems: &mut Problems,
) -> ConsumerGroupSettings {
    const ASSIGNORS: &str = "group.consumer.assignors";
    let mut assignors = Vec::new();
    for asked in layers.list(ASSIGNORS) {
        match CONSUMER_ASSIGNORS.iter().find(|(name, class)| asked == *name || asked == *class) {
            Some((name, _)) => assignors.push((*name).to_owned()),
            None => problems.error(
                layers.origin(ASSIGNORS),
                format!("`{ASSIGNORS}` names `{asked}`; there are `uniform` and `range`"),
            ),
        }
    }
    ConsumerGroupSettings {
        protocol: resolve_protocol("consumer", layers, problems),
        assignors,
        migration_policy: layers
            .text("group.consumer.migration.policy")
            .unwrap_or_default()
            .to_ascii_lowercase(),
        regex_refresh_interval_ms: layers.integer("group.consumer.regex.refresh.interval.ms")
            as i32,
    }
}

/// What the one assignor of share groups is called, by its own name and by Kafka's class.
const SHARE_ASSIGNOR: [&str; 2] =
    ["simple", "org.apache.kafka.coordinator.group.assignor.SimpleAssignor"];

pub(super) fn resolve_share_groups(
    layers: &Layers<'_>,
    problems: &mut Problems,
) -> ShareGroupSettings {
    const ASSIGNORS: &str = "group.share.assignors";
    let asked = layers.list(ASSIGNORS);
    if !matches!(asked.as_slice(), [one] if SHARE_ASSIGNOR.contains(&one.as_str())) {
        problems.error(
            layers.origin(ASSIGNORS),
            format!("`{ASSIGNORS}` is `{}`; there is `simple`", asked.join(",")),
        );
    }
    for rest in ["delivery.count.limit", "record.lock.duration.ms", "partition.max.record.locks"] {
        let names = ["group.share.", "group.share.min.", "group.share.max."];
        let [name, min_name, max_name] = names.map(|prefix| format!("{prefix}{rest}"));
        let value = layers.integer(&name);
        let (min, max) = (layers.integer(&min_name), layers.integer(&max_name));
        if !(min..=max).contains(&value) {
            let origin =
                [&name, &min_name, &max_name].into_iter().find_map(|key| layers.origin(key));
            problems.error(
                origin,
                format!(
                    "`{name}` ({value}) must lie between `{min_name}` ({min}) and `{max_name}` \
                     ({max})"
                ),
            );
        }
    }
    let integer = |name: &str| layers.integer(&format!("group.share.{name}"));
    let coordinator = |name: &str| layers.integer(&format!("share.coordinator.{name}"));
    ShareGroupSettings {
        protocol: resolve_protocol("share", layers, problems),
        delivery_count_max: integer("delivery.count.limit") as i16,
        record_lock_ms: integer("record.lock.duration.ms") as i32,
        record_locks_max: integer("partition.max.record.locks") as i32,
        sessions_max: count(layers, "group.share.max.share.sessions"),
        initialize_retry_interval_ms: integer("initialize.retry.interval.ms") as i32,
        updates_per_snapshot: coordinator("snapshot.update.records.per.snapshot") as u32,
        cold_snapshot_interval_ms: coordinator("cold.partition.snapshot.interval.ms"),
        write_timeout_ms: coordinator("write.timeout.ms") as u64,
        topic_partitions: coordinator("state.topic.num.partitions") as i32,
        topic_prune_interval_ms: coordinator("state.topic.prune.interval.ms") as u64,
        topic_replication_factor: coordinator("state.topic.replication.factor") as i16,
        topic_segment_bytes: coordinator("state.topic.segment.bytes") as i32,
    }
}

pub(super) fn resolve_streams_groups(
    layers: &Layers<'_>,
    problems: &mut Problems,
) -> StreamsGroupSettings {
    const STANDBY: &str = "group.streams.num.standby.replicas";
    const STANDBY_MAX: &str = "group.streams.max.standby.replicas";
    let (standby, standby_max) = (layers.integer(STANDBY), layers.integer(STANDBY_MAX));
    if standby > standby_max {
        problems.error(
            layers.origin(STANDBY).or_else(|| layers.origin(STANDBY_MAX)),
            format!("`{STANDBY}` ({standby}) must not be above `{STANDBY_MAX}` ({standby_max})"),
        );
    }
    StreamsGroupSettings {
        protocol: resolve_protocol("streams", layers, problems),
        standby_replicas: standby as i32,
        initial_rebalance_delay_ms: layers.integer("group.streams.initial.rebalance.delay.ms")
            as i32,
    }
}

/// Resolves what all modern protocols have, under the keys `group.PROTOCOL.*`.
pub(super) fn resolve_protocol(
    protocol: &str,
    layers: &Layers<'_>,
    problems: &mut Problems,
) -> ProtocolSettings {
    let key = |rest: &str| format!("group.{protocol}.{rest}");
    for rest in ["session.timeout.ms", "heartbeat.interval.ms", "assignment.interval.ms"] {
        let (name, min_name, max_name) =
            (key(rest), key(&format!("min.{rest}")), key(&format!("max.{rest}")));
        let value = layers.integer(&name);
        let (min, max) = (layers.integer(&min_name), layers.integer(&max_name));
        if !(min..=max).contains(&value) {
            let origin =
                [&name, &min_name, &max_name].into_iter().find_map(|key| layers.origin(key));
            problems.error(
                origin,
                format!(
                    "`{name}` ({value}) must lie between `{min_name}` ({min}) and `{max_name}` \
                     ({max})"
                ),
            );
        }
    }
    let (session_key, heartbeat_key) = (key("session.timeout.ms"), key("heartbeat.interval.ms"));
    let (session, heartbeat) = (layers.integer(&session_key), layers.integer(&heartbeat_key));
    if heartbeat >= session {
        problems.error(
            layers.origin(&heartbeat_key).or_else(|| layers.origin(&session_key)),
            format!("`{heartbeat_key}` ({heartbeat}) must be below `{session_key}` ({session})"),
        );
    }
    ProtocolSettings {
        session_timeout_ms: session as i32,
        heartbeat_interval_ms: heartbeat as i32,
        assignment_interval_ms: layers.integer(&key("assignment.interval.ms")) as i32,
        members_max: count(layers, &key("max.size")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BrokerSettings, Override, Sources, load};

    fn broker(pairs: &[(&str, &str)]) -> BrokerSettings {
        let overrides: Vec<Override> = pairs
            .iter()
            .map(|(key, value)| Override {
                key: (*key).into(),
                value: (*value).into(),
                flag: "--set".into(),
            })
            .collect();
        load(Sources { overrides: &overrides, ..Sources::default() }).expect("valid").0
    }

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn overrides_stay_within_the_bounds_that_hold_now() {
        let broker = broker(&[("group.consumer.max.session.timeout.ms", "50000")]);
        let (node, cluster) = (ConfigMap::new(), ConfigMap::new());
        let layers = broker.layers(&node, &cluster);
        let configs = map(&[
            ("consumer.session.timeout.ms", "59000"),
            ("consumer.heartbeat.interval.ms", "1"),
            ("streams.num.standby.replicas", "9"),
            ("streams.session.timeout.ms", "soon"),
        ]);
        let overrides = GroupOverrides { configs: &configs, layers: &layers };
        assert_eq!(overrides.integer("consumer.session.timeout.ms"), Some(50_000));
        assert_eq!(overrides.integer("consumer.heartbeat.interval.ms"), Some(5_000));
        assert_eq!(overrides.integer("streams.num.standby.replicas"), Some(2));
        assert_eq!(overrides.integer("streams.session.timeout.ms"), None);
        assert_eq!(overrides.integer("consumer.assignment.interval.ms"), None);
    }

    #[test]
    fn resets_are_words_or_durations() {
        let parse = OffsetReset::parse;
        assert_eq!(parse("earliest"), Some(OffsetReset::Earliest));
        assert_eq!(parse("by_duration:P1DT1H"), Some(OffsetReset::ByDuration { ms: 90_000_000 }));
        assert_eq!(parse("by_duration:PT1M1.5S"), Some(OffsetReset::ByDuration { ms: 61_500 }));
        assert_eq!(parse("by_duration:PT1"), None);
        assert_eq!(parse("soon"), None);
    }

    #[test]
    fn a_protocol_whose_bounds_contradict_it_is_refused() {
        let set = |key: &str, value: &str| Override {
            key: key.into(),
            value: value.into(),
            flag: "--set".into(),
        };
        for (key, value) in [
            ("group.streams.session.timeout.ms", "1"),
            ("group.streams.assignment.interval.ms", "20000"),
            ("group.streams.num.standby.replicas", "3"),
            ("group.consumer.heartbeat.interval.ms", "60000"),
            ("group.share.assignors", "range"),
            ("group.share.assignors", "simple,range"),
        ] {
            let overrides = [set(key, value)];
            let refused = load(Sources { overrides: &overrides, ..Sources::default() });
            assert!(refused.is_err(), "{key}={value}");
        }
        for name in SHARE_ASSIGNOR {
            let overrides = [set("group.share.assignors", name)];
            assert!(load(Sources { overrides: &overrides, ..Sources::default() }).is_ok());
        }
    }
}

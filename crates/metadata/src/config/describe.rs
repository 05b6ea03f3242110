//! What `DescribeConfigs` says: every key of a resource, its value, and where that comes from.

use std::sync::Arc;

use super::judge::served_listener_key;
use super::key::Key;
use super::keys::{BROKER_KEYS, CLIENT_METRICS_KEYS, GROUP_KEYS, TOPIC_KEYS, find};
use super::layers::{ConfigMap, Layers, default_value};
use super::topic::effective;
use super::value::Value;
use super::{UpdateMode, ValueType};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    DynamicTopic,
    /// Set on this broker while it ran.
    DynamicBroker,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker,
    /// Written in the broker's file or given by a flag.
    StaticBroker,
    /// Set by nobody.
    Default,
    /// Set on a client metrics subscription.
    ClientMetrics,
    /// Set on the group.
    Group,
}

impl Source {
    /// Returns the number by which `DescribeConfigs` responses name this source.
    pub const fn wire_id(self) -> i8 {
        match self {
            Self::DynamicTopic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::ClientMetrics => 7,
            Self::Group => 8,
        }
    }
}

/// A value that holds, or would hold if those before it were taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The key it is set by.
    pub name: String,
    /// The value; `None` when it must not be shown.
    pub value: Option<String>,
    /// Where it is set.
    pub source: Source,
}

/// One key of a resource as `DescribeConfigs` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The key.
    pub name: String,
    /// The value in force; `None` when it is null or must not be shown.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// The type; `None` for keys we do not know.
    pub value_type: Option<ValueType>,
    /// Whether values are never shown.
    pub is_sensitive: bool,
    /// Whether it can only be changed by a restart.
    pub is_read_only: bool,
    /// What it is made of, from the one in force to the default.
    pub synonyms: Vec<Synonym>,
    /// What it is for.
    pub documentation: Option<&'static str>,
}

impl Description {
    /// Takes all values out.
    fn hide(&mut self) {
        (self.value, self.is_sensitive) = (None, true);
        self.synonyms.iter_mut().for_each(|synonym| synonym.value = None);
    }
}

/// Describes all keys of a topic.
pub fn describe_topic(overrides: &ConfigMap, layers: &Layers<'_>) -> Vec<Description> {
    visible(TOPIC_KEYS, overrides)
        .map(|key| {
            let value = effective(key, overrides, layers).map(|value| value.to_string());
            let mut synonyms = own(key, overrides, Source::DynamicTopic);
            if let [(first, _), ..] = key.broker_synonyms {
                synonyms.extend(synonyms_from(first, key.broker_synonyms, layers));
            }
            describe(key, value, synonyms, false)
        })
        .collect()
}

/// Describes all keys of a topic as the answer to its creation does.
///
/// It says that a value comes from where it is set in a coarser unit, of which
/// [`describe_topic`] does not speak.
pub fn describe_new_topic(overrides: &ConfigMap, layers: &Layers<'_>) -> Vec<Description> {
    let mut rows = describe_topic(overrides, layers);
    for row in rows.iter_mut().filter(|row| row.source == Source::Default) {
        let names = find(TOPIC_KEYS, &row.name).map_or(&[][..], |key| key.broker_synonyms);
        let first = broker_synonyms(names, layers).into_iter().next();
        row.source = first.map_or(Source::Default, |first| first.source);
    }
    rows
}

/// Keys of brokers with those that hold in their absence, mostly in coarser units.
const FINER_KEYS: [&[(&str, i64)]; 4] = [
    &[("log.retention.ms", 1), ("log.retention.minutes", 1), ("log.retention.hours", 1)],
    &[("log.roll.ms", 1), ("log.roll.hours", 1)],
    &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 1)],
    &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
];

/// Describes all keys of this broker.
pub fn describe_broker(layers: &Layers<'_>) -> Vec<Description> {
    let of_listeners: ConfigMap = layers
        .node
        .iter()
        .filter(|(name, _)| served_listener_key(name).is_some())
        .map(|(name, value)| (Arc::clone(name), Arc::clone(value)))
        .collect();
    let of_listeners = describe_set(BROKER_KEYS, &of_listeners, Source::DynamicBroker);
    BROKER_KEYS
        .iter()
        .filter(|key| !key.internal || layers.is_set(key.name))
        .map(|key| {
            let value = layers.value(key.name).map(|value| value.to_string());
            let mut families = FINER_KEYS.iter();
            let family = families.find(|keys| keys.iter().any(|(name, _)| *name == key.name));
            let synonyms = match family {
                Some(keys) => synonyms_from(key.name, keys, layers),
                None => broker_synonyms(&[(key.name, 1)], layers),
            };
            let mut described = describe(key, value, synonyms, key.update == UpdateMode::ReadOnly);
            if layers.statics.get(key.name).is_some_and(|setting| setting.is_secret) {
                described.hide();
            }
            described
        })
        .chain(of_listeners)
        .collect()
}

/// Describes what is set for all brokers of the cluster, and only that.
pub fn describe_cluster_defaults(cluster: &ConfigMap) -> Vec<Description> {
    describe_set(BROKER_KEYS, cluster, Source::DynamicDefaultBroker)
}

/// Describes all keys of a group.
pub fn describe_group(overrides: &ConfigMap, layers: &Layers<'_>) -> Vec<Description> {
    visible(GROUP_KEYS, overrides)
        .map(|key| {
            let value = effective(key, overrides, layers).map(|value| value.to_string());
            let mut synonyms = own(key, overrides, Source::Group);
            match (key.broker_synonyms, key.default) {
                ([], Some(default)) => {
                    synonyms.push(synonym(key, default.to_owned(), Source::Default));
                }
                (names, _) => synonyms.extend(broker_synonyms(names, layers)),
            }
            describe(key, value, synonyms, false)
        })
        .collect()
}

/// Describes all keys of a client metrics subscription.
pub fn describe_client_metrics(overrides: &ConfigMap) -> Vec<Description> {
    CLIENT_METRICS_KEYS
        .iter()
        .map(|key| {
            let set = overrides.get(key.name).and_then(|text| Value::parse(key, text).ok());
            // Kafka shows nothing behind what is set, although the default is there.
            let synonyms =
                set.iter().map(|value| synonym(key, value.to_string(), Source::ClientMetrics));
            let synonyms = synonyms.collect();
            let value = set.or_else(|| default_value(key)).map(|value| value.to_string());
            describe(key, value, synonyms, false)
        })
        .collect()
}

fn visible<'a>(
    keys: &'static [Key],
    overrides: &'a ConfigMap,
) -> impl Iterator<Item = &'static Key> + use<'a> {
    keys.iter().filter(|key| !key.internal || overrides.contains_key(key.name))
}

fn describe(
    key: &Key,
    value: Option<String>,
    synonyms: Vec<Synonym>,
    is_read_only: bool,
) -> Description {
    Description {
        name: key.name.to_owned(),
        value: value.filter(|_| !key.is_sensitive()),
        source: synonyms.first().map_or(Source::Default, |first| first.source),
        value_type: Some(key.value_type),
        is_sensitive: key.is_sensitive(),
        is_read_only,
        synonyms,
        documentation: Some(key.doc).filter(|doc| !doc.is_empty()),
    }
}

/// Lists what is in a map as it stands there, known or not.
fn describe_set(keys: &'static [Key], map: &ConfigMap, source: Source) -> Vec<Description> {
    map.iter()
        .map(|(name, value)| {
            let key = find(keys, name);
            let key = key.or_else(|| served_listener_key(name).and_then(|(_, key)| key));
            // What we do not know may be a secret.
            let is_sensitive = key.is_none_or(Key::is_sensitive);
            let value = Some(value.to_string()).filter(|_| !is_sensitive);
            Description {
                name: name.to_string(),
                value: value.clone(),
                source,
                value_type: key.map(|key| key.value_type),
                is_sensitive,
                is_read_only: key.is_some_and(|key| key.update == UpdateMode::ReadOnly)
                    && source == Source::DynamicDefaultBroker,
                synonyms: vec![Synonym { name: name.to_string(), value, source }],
                documentation: key.map(|key| key.doc).filter(|doc| !doc.is_empty()),
            }
        })
        .collect()
}

fn own(key: &Key, overrides: &ConfigMap, source: Source) -> Vec<Synonym> {
    let value = overrides.get(key.name);
    value.map(|value| synonym(key, value.to_string(), source)).into_iter().collect()
}

/// Lists what broker keys contribute, from where `name` itself does: as in Kafka, a key that is set
/// nowhere has no source, whatever holds in its place.
fn synonyms_from(name: &str, names: &[(&'static str, i64)], layers: &Layers<'_>) -> Vec<Synonym> {
    let all = broker_synonyms(names, layers).into_iter();
    all.skip_while(|synonym| synonym.name != name).collect()
}

/// Lists what broker keys contribute, layer by layer; within a layer the finer unit comes first.
fn broker_synonyms(names: &[(&'static str, i64)], layers: &Layers<'_>) -> Vec<Synonym> {
    let keys = || names.iter().filter_map(|(name, _)| find(BROKER_KEYS, name));
    let dynamic = |map: &ConfigMap, source: Source| -> Vec<Synonym> {
        keys()
            .filter_map(|key| Some(synonym(key, map.get(key.name)?.to_string(), source)))
            .collect()
    };
    let mut synonyms = dynamic(layers.node, Source::DynamicBroker);
    synonyms.extend(dynamic(layers.cluster, Source::DynamicDefaultBroker));
    synonyms.extend(keys().filter_map(|key| {
        let setting = layers.statics.get(key.name)?;
        Some(synonym(key, setting.value.to_string(), Source::StaticBroker))
    }));
    synonyms.extend(
        keys().filter_map(|key| Some(synonym(key, key.default?.to_owned(), Source::Default))),
    );
    synonyms
}

fn synonym(key: &Key, value: String, source: Source) -> Synonym {
    Synonym {
        name: key.name.to_owned(),
        value: Some(value).filter(|_| !key.is_sensitive()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Override, Sources, load};

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn statics(key: &str, value: &str) -> crate::config::StaticConfig {
        let set = Override { key: key.into(), value: value.into(), flag: "--set".into() };
        load(Sources { overrides: &[set], ..Sources::default() }).expect("valid").0.statics
    }

    fn pick(descriptions: Vec<Description>, name: &str) -> Description {
        descriptions.into_iter().find(|d| d.name == name).expect("described")
    }

    fn chain(description: &Description) -> String {
        let show = |s: &Synonym| {
            format!("{:?}:{}={}", s.source, s.name, s.value.as_deref().unwrap_or("?"))
        };
        description.synonyms.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_topic_value_shows_all_it_hides() {
        let statics = statics("log.segment.bytes", "2000000");
        let (node, cluster) =
            (map(&[("log.segment.bytes", "4000000")]), map(&[("log.segment.bytes", "3000000")]));
        let layers = Layers { statics: &statics, node: &node, cluster: &cluster };
        let topic = map(&[("segment.bytes", "5000000")]);
        let described = pick(describe_topic(&topic, &layers), "segment.bytes");
        assert_eq!(described.value.as_deref(), Some("5000000"));
        assert_eq!(described.source, Source::DynamicTopic);
        assert!(!described.is_read_only);
        assert_eq!(
            chain(&described),
            "DynamicTopic:segment.bytes=5000000 DynamicBroker:log.segment.bytes=4000000 \
             DynamicDefaultBroker:log.segment.bytes=3000000 \
             StaticBroker:log.segment.bytes=2000000 Default:log.segment.bytes=1073741824"
        );
    }

    /// `retention.ms` is `log.retention.ms` for brokers, and only from there on come other units:
    /// what is set in hours alone is in force and named nowhere.
    #[test]
    fn coarser_units_are_named_only_behind_the_finest() {
        let hours = statics("log.retention.hours", "2");
        let layers = Layers::of_statics(&hours);
        for described in [
            pick(describe_topic(&map(&[]), &layers), "retention.ms"),
            pick(describe_broker(&layers), "log.retention.ms"),
        ] {
            assert_eq!((described.source, chain(&described)), (Source::Default, String::new()));
        }
        let described = pick(describe_topic(&map(&[]), &layers), "retention.ms");
        assert_eq!(described.value.as_deref(), Some("7200000"));
        let described = pick(describe_broker(&layers), "log.retention.hours");
        assert_eq!(
            chain(&described),
            "StaticBroker:log.retention.hours=2 Default:log.retention.hours=168"
        );

        let cluster = map(&[("log.retention.ms", "5")]);
        let layers = Layers { statics: &hours, node: &NONE, cluster: &cluster };
        let described =
            pick(describe_topic(&map(&[("retention.ms", "3")]), &layers), "retention.ms");
        assert_eq!(
            chain(&described),
            "DynamicTopic:retention.ms=3 DynamicDefaultBroker:log.retention.ms=5 \
             StaticBroker:log.retention.hours=2 Default:log.retention.hours=168"
        );

        let minutes = statics("log.retention.minutes", "3");
        let described =
            pick(describe_broker(&Layers::of_statics(&minutes)), "log.retention.minutes");
        assert_eq!(
            chain(&described),
            "StaticBroker:log.retention.minutes=3 Default:log.retention.hours=168"
        );
        let flush = statics("log.flush.interval.ms", "7");
        let described = pick(describe_broker(&Layers::of_statics(&flush)), "log.flush.interval.ms");
        assert_eq!(
            chain(&described),
            "StaticBroker:log.flush.interval.ms=7 \
             Default:log.flush.scheduler.interval.ms=9223372036854775807"
        );
    }

    /// The answer to CreateTopics tells where a value comes from by other rules.
    #[test]
    fn a_new_topic_is_told_what_is_set_in_hours() {
        let hours = statics("log.retention.hours", "2");
        let layers = Layers::of_statics(&hours);
        let sources = |name| pick(describe_new_topic(&map(&[]), &layers), name).source;
        assert_eq!(sources("retention.ms"), Source::StaticBroker);
        assert_eq!(sources("segment.ms"), Source::Default);
    }

    #[test]
    fn keys_that_only_groups_have_show_their_defaults() {
        let empty = crate::config::StaticConfig::default();
        let layers = Layers::of_statics(&empty);
        let set = map(&[("share.auto.offset.reset", "earliest")]);
        let described = pick(describe_group(&set, &layers), "share.auto.offset.reset");
        assert_eq!(
            chain(&described),
            "Group:share.auto.offset.reset=earliest Default:share.auto.offset.reset=latest"
        );
    }

    #[test]
    fn a_subscription_shows_its_defaults_and_nothing_behind_what_is_set() {
        let described = describe_client_metrics(&map(&[("interval.ms", " 1000 ")]));
        let told: Vec<(&str, Option<&str>, Source, String)> = described
            .iter()
            .map(|row| (row.name.as_str(), row.value.as_deref(), row.source, chain(row)))
            .collect();
        let set = "ClientMetrics:interval.ms=1000".to_owned();
        let expected = [
            ("interval.ms", Some("1000"), Source::ClientMetrics, set),
            ("match", Some(""), Source::Default, String::new()),
            ("metrics", Some(""), Source::Default, String::new()),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn secrets_stay_hidden_and_read_only_keys_say_so() {
        let empty = crate::config::StaticConfig::default();
        let node = map(&[("ssl.key.password", "hunter2")]);
        let layers = Layers { statics: &empty, node: &node, cluster: &NONE };
        let all = describe_broker(&layers);
        assert!(all.iter().any(|d| d.name == "fleuve.flush.before.ack"));
        assert!(all.iter().all(|d| d.name != "server.max.startup.time.ms"), "internal");
        let password = pick(all.clone(), "ssl.key.password");
        assert!(password.is_sensitive && password.value.is_none() && !password.is_read_only);
        assert_eq!(chain(&password), "DynamicBroker:ssl.key.password=?");
        assert!(pick(all, "num.partitions").is_read_only);
    }

    #[test]
    fn cluster_defaults_list_only_what_is_set() {
        let described =
            describe_cluster_defaults(&map(&[("max.connections", "10"), ("later.key", "x")]));
        assert_eq!(described.len(), 2);
        assert_eq!(
            (described[0].name.as_str(), described[0].value.as_deref()),
            ("later.key", None)
        );
        assert_eq!(described[1].source, Source::DynamicDefaultBroker);
        assert_eq!(described[1].value.as_deref(), Some("10"));
    }

    static NONE: ConfigMap = ConfigMap::new();
}

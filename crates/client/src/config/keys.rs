//! Which client configuration names Kafka has, and which of them have an effect here.

/// What this client does about a Kafka configuration name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It has the effect Kafka documents.
    Yes,
    /// It names a Java class or a Java detail that has no meaning here; any value is accepted.
    Ignored,
    /// The feature behind it is missing, and leaving it out silently would be wrong.
    NotYet,
}

/// A configuration name of Kafka's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name as Kafka spells it.
    pub name: &'static str,
    /// What this client does about it.
    pub served: Served,
    /// Why it has no effect; empty if it has.
    pub reason: &'static str,
}

/// Returns every configuration name of Kafka's producer, consumer and admin clients.
pub fn keys() -> impl Iterator<Item = Key> {
    let without_effect = |table: &'static [(&'static str, &'static [&'static str])], served| {
        table.iter().flat_map(move |&(reason, names)| {
            names.iter().map(move |&name| Key { name, served, reason })
        })
    };
    let served = SERVED.iter().map(|&name| Key { name, served: Served::Yes, reason: "" });
    served
        .chain(without_effect(IGNORED, Served::Ignored))
        .chain(without_effect(NOT_YET, Served::NotYet))
}

/// Finds a configuration name.
pub fn find_key(name: &str) -> Option<Key> {
    keys().find(|key| key.name == name)
}

/// Finds the known name that differs least from `name`, if one is near enough to be meant.
pub(super) fn nearest_key(name: &str) -> Option<&'static str> {
    let limit = (name.chars().count() / 3).max(2);
    keys()
        .map(|key| (edit_distance(name, key.name), key.name))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, nearest)| nearest)
}

/// Counts the insertions, deletions and replacements between two texts.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, character) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for column in 0..right.len() {
            let replaced = diagonal + usize::from(character != right[column]);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

const SERVED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.controllers",
    "bootstrap.servers",
    "buffer.memory",
    "client.id",
    "client.rack",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "default.api.timeout.ms",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.idempotence",
    "enable.metrics.push",
    "exclude.internal.topics",
    "fetch.max.bytes",
    "fetch.max.wait.ms",
    "fetch.min.bytes",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "linger.ms",
    "max.block.ms",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "max.poll.records",
    "max.request.size",
    "metadata.max.age.ms",
    "partition.assignment.strategy",
    "partitioner.adaptive.partitioning.enable",
    "partitioner.availability.timeout.ms",
    "partitioner.class",
    "partitioner.ignore.keys",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.jaas.config",
    "sasl.mechanism",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "security.protocol",
    "session.timeout.ms",
    "share.acknowledgement.mode",
    "share.acquire.mode",
    "socket.connection.setup.timeout.max.ms",
    "socket.connection.setup.timeout.ms",
    "ssl.enabled.protocols",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Names without a meaning here, by the reason.
const IGNORED: &[(&str, &[&str])] = &[
    (
        "metrics are counted since the start and read as a snapshot",
        &[
            "auto.include.jmx.reporter",
            "metric.reporters",
            "metrics.num.samples",
            "metrics.recording.level",
            "metrics.sample.window.ms",
        ],
    ),
    ("checksums are always checked", &["check.crcs"]),
    ("every address of a name is tried in any case", &["client.dns.lookup"]),
    (
        "brokers close what is idle, and connections are opened anew when needed",
        &["connections.max.idle.ms"],
    ),
    (
        "types are named in the program, see fleuve_client::serialization",
        &["key.deserializer", "key.serializer", "value.deserializer", "value.serializer"],
    ),
    ("topics are asked for only while they are used", &["metadata.max.idle.ms"]),
    (
        "the bootstrap list is tried whenever no known broker answers",
        &["metadata.recovery.rebootstrap.trigger.ms", "metadata.recovery.strategy"],
    ),
    ("the system sizes the buffers of sockets", &["receive.buffer.bytes", "send.buffer.bytes"]),
    (
        "tokens are renewed when they have gone through most of their life",
        &[
            "sasl.login.callback.handler.class",
            "sasl.login.refresh.buffer.seconds",
            "sasl.login.refresh.min.period.seconds",
            "sasl.login.refresh.window.factor",
            "sasl.login.refresh.window.jitter",
        ],
    ),
    (
        "brokers judge tokens, clients only show them",
        &[
            "sasl.oauthbearer.clock.skew.seconds",
            "sasl.oauthbearer.expected.audience",
            "sasl.oauthbearer.expected.issuer",
            "sasl.oauthbearer.jwks.endpoint.refresh.ms",
            "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
            "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
            "sasl.oauthbearer.jwks.endpoint.url",
            "sasl.oauthbearer.jwt.validator.class",
            "sasl.oauthbearer.scope.claim.name",
            "sasl.oauthbearer.sub.claim.name",
        ],
    ),
    (
        "it chooses among Java's implementations",
        &[
            "ssl.keymanager.algorithm",
            "ssl.protocol",
            "ssl.provider",
            "ssl.secure.random.implementation",
            "ssl.trustmanager.algorithm",
        ],
    ),
    ("a switch inside the Java client", &["internal.throw.on.fetch.stable.offset.unsupported"]),
];

/// Names of what is missing, by what is.
const NOT_YET: &[(&str, &[&str])] = &[
    ("values are taken as they stand", &["config.providers"]),
    (
        "it names Java classes; set ProducerConfig::interceptors or ConsumerConfig::interceptors",
        &["interceptor.classes"],
    ),
    (
        "it names a Java class; implement TokenProvider",
        &[
            "sasl.client.callback.handler.class",
            "sasl.login.class",
            "sasl.oauthbearer.jwt.retriever.class",
        ],
    ),
    (
        "GSSAPI is missing",
        &[
            "sasl.kerberos.kinit.cmd",
            "sasl.kerberos.min.time.before.relogin",
            "sasl.kerberos.service.name",
            "sasl.kerberos.ticket.renew.jitter",
            "sasl.kerberos.ticket.renew.window.factor",
        ],
    ),
    (
        "how often a token endpoint is asked again cannot be set",
        &[
            "sasl.login.connect.timeout.ms",
            "sasl.login.read.timeout.ms",
            "sasl.login.retry.backoff.max.ms",
            "sasl.login.retry.backoff.ms",
        ],
    ),
    ("credentials are sent as RFC 6749 says", &["sasl.oauthbearer.header.urlencode"]),
    ("it names Java classes", &["security.providers", "ssl.engine.factory.class"]),
    ("cipher suites cannot be chosen", &["ssl.cipher.suites"]),
    (
        "tokens by client assertion (RFC 7523) are missing",
        &[
            "sasl.oauthbearer.assertion.algorithm",
            "sasl.oauthbearer.assertion.claim.aud",
            "sasl.oauthbearer.assertion.claim.exp.seconds",
            "sasl.oauthbearer.assertion.claim.iss",
            "sasl.oauthbearer.assertion.claim.jti.include",
            "sasl.oauthbearer.assertion.claim.nbf.seconds",
            "sasl.oauthbearer.assertion.claim.sub",
            "sasl.oauthbearer.assertion.file",
            "sasl.oauthbearer.assertion.private.key.file",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.template.file",
        ],
    ),
    ("two-phase commit (KIP-939) is missing", &["transaction.two.phase.commit.enable"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientConfig, ConsumerConfig, ProducerConfig, Properties};

    #[test]
    fn no_name_stands_in_the_table_twice() {
        let mut names: Vec<_> = keys().map(|key| key.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    /// Names and defaults of Apache Kafka 4.3.1, as `ProducerConfig.configDef()` and its siblings
    /// say: `kind name=default`.
    const KAFKA: &str = include_str!("../../testdata/kafka-4.3.1-clients.txt");

    #[test]
    fn every_name_of_kafka_is_served_or_has_a_reason() {
        let theirs: std::collections::HashSet<&str> = kafkas().map(|(_, name, _)| name).collect();
        for name in &theirs {
            let key = find_key(name).unwrap_or_else(|| panic!("{name} is not in the table"));
            assert_eq!(key.served == Served::Yes, key.reason.is_empty(), "{name}");
        }
        let gone = ["auto.include.jmx.reporter", "share.acknowledgement.mode"];
        let unknown = keys().filter(|key| !theirs.contains(key.name) && !gone.contains(&key.name));
        assert_eq!(unknown.map(|key| key.name).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn defaults_are_kafkas() {
        let plain = every_config(&Properties::new());
        for (kind, name, default) in kafkas() {
            let ours = find_key(name).is_some_and(|key| key.served == Served::Yes);
            if !ours || default.is_empty() || name == "bootstrap.servers" {
                continue;
            }
            // Java's GSSAPI is a mechanism that nobody means who leaves it out, and our administrators
            // push no metrics, whatever the setting says.
            if name == "sasl.mechanism" || (kind, name) == ("admin", "enable.metrics.push") {
                continue;
            }
            let default = default.replace("class ", "");
            let mut properties = Properties::new();
            properties.set(name, &default).expect("served");
            let set = every_config(&properties);
            assert_eq!(set, plain, "{kind} {name}={default}");
        }
    }

    fn kafkas() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        KAFKA.lines().map(|line| {
            let (kind, rest) = line.split_once(' ').expect("a kind");
            let (name, default) = rest.split_once('=').expect("a default");
            (kind, name, default)
        })
    }

    fn every_config(properties: &Properties) -> String {
        let client = ClientConfig::from_properties(properties).expect("valid");
        let producer = ProducerConfig::from_properties(properties).expect("valid");
        let consumer = ConsumerConfig::from_properties(properties).expect("valid");
        format!("{client:?} {producer:?} {consumer:?}")
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        assert_eq!(nearest_key("lingerms"), Some("linger.ms"));
        assert_eq!(nearest_key("compresion.type"), Some("compression.type"));
        assert_eq!(nearest_key("zzzzzzzz"), None);
    }
}

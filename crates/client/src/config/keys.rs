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
}

/// Returns every configuration name of Kafka's producer, consumer and admin clients.
pub fn keys() -> impl Iterator<Item = Key> {
    let group = |names: &'static [&'static str], served| {
        names.iter().map(move |&name| Key { name, served })
    };
    group(SERVED, Served::Yes)
        .chain(group(IGNORED, Served::Ignored))
        .chain(group(NOT_YET, Served::NotYet))
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
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.type",
    "transaction.timeout.ms",
    "transactional.id",
];

const IGNORED: &[&str] = &[
    "auto.include.jmx.reporter",
    "bootstrap.controllers",
    "check.crcs",
    "client.dns.lookup",
    "connections.max.idle.ms",
    "enable.metrics.push",
    "key.deserializer",
    "key.serializer",
    "metadata.max.idle.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "metric.reporters",
    "metrics.num.samples",
    "metrics.recording.level",
    "metrics.sample.window.ms",
    "partitioner.adaptive.partitioning.enable",
    "partitioner.availability.timeout.ms",
    "receive.buffer.bytes",
    "sasl.login.callback.handler.class",
    "sasl.login.refresh.buffer.seconds",
    "sasl.login.refresh.min.period.seconds",
    "sasl.login.refresh.window.factor",
    "sasl.login.refresh.window.jitter",
    "sasl.oauthbearer.clock.skew.seconds",
    "sasl.oauthbearer.expected.audience",
    "sasl.oauthbearer.expected.issuer",
    "sasl.oauthbearer.jwks.endpoint.url",
    "sasl.oauthbearer.scope.claim.name",
    "sasl.oauthbearer.sub.claim.name",
    "send.buffer.bytes",
    "ssl.keymanager.algorithm",
    "ssl.keystore.password",
    "ssl.protocol",
    "ssl.provider",
    "ssl.secure.random.implementation",
    "ssl.trustmanager.algorithm",
    "ssl.truststore.password",
    "value.deserializer",
    "value.serializer",
];

const NOT_YET: &[&str] = &[
    "config.providers",
    "interceptor.classes",
    "partitioner.class",
    "sasl.client.callback.handler.class",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.service.name",
    "sasl.kerberos.ticket.renew.jitter",
    "sasl.kerberos.ticket.renew.window.factor",
    "sasl.login.class",
    "sasl.login.connect.timeout.ms",
    "sasl.login.read.timeout.ms",
    "sasl.login.retry.backoff.max.ms",
    "sasl.login.retry.backoff.ms",
    "sasl.oauthbearer.header.urlencode",
    "security.providers",
    "ssl.cipher.suites",
    "ssl.engine.factory.class",
    "ssl.key.password",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_in_the_table_twice() {
        let mut names: Vec<_> = keys().map(|key| key.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        assert_eq!(nearest_key("lingerms"), Some("linger.ms"));
        assert_eq!(nearest_key("compresion.type"), Some("compression.type"));
        assert_eq!(nearest_key("zzzzzzzz"), None);
    }
}

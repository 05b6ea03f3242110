//! Keys that earlier Kafka releases had and 4.x no longer has, with what to do instead.

/// A key of the past.
#[derive(Clone, Copy, Debug)]
pub struct RemovedKey {
    /// The name, or a beginning of names when it ends with a dot.
    pub name: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

const ZOOKEEPER: &str = "metadata is kept by the controller in this process; remove the key";
const FORMAT: &str = "record batches have one format since Kafka 4.0; remove the key";
const BROKER_IDS: &str = "ids are no longer generated; set node.id instead";
const COORDINATOR: &str = "there is only one group coordinator since Kafka 4.0; remove the key";
const ENCODER: &str =
    "passwords in dynamic configs need no encoder without ZooKeeper; remove the key";

/// Removed keys of brokers, names before beginnings of names.
#[rustfmt::skip] // One line a key is easier to scan, compare and sort.
pub static REMOVED_BROKER_KEYS: &[RemovedKey] = &[
    RemovedKey { name: "advertised.host.name", remedy: "use advertised.listeners instead" },
    RemovedKey { name: "advertised.port", remedy: "use advertised.listeners instead" },
    RemovedKey { name: "broker.id.generation.enable", remedy: BROKER_IDS },
    RemovedKey { name: "control.plane.listener.name", remedy: "use controller.listener.names instead" },
    RemovedKey { name: "controlled.shutdown.max.retries", remedy: "shutdown is one step with the controller; remove the key" },
    RemovedKey { name: "controlled.shutdown.retry.backoff.ms", remedy: "shutdown is one step with the controller; remove the key" },
    RemovedKey { name: "delegation.token.master.key", remedy: "it is called delegation.token.secret.key now" },
    RemovedKey { name: "eligible.leader.replicas.enable", remedy: "it is the feature eligible.leader.replicas.version now" },
    RemovedKey { name: "group.coordinator.new.enable", remedy: COORDINATOR },
    RemovedKey { name: "group.share.enable", remedy: "it is the feature share.version now" },
    RemovedKey { name: "host.name", remedy: "use listeners instead" },
    RemovedKey { name: "inter.broker.protocol.version", remedy: "it is the feature metadata.version now" },
    RemovedKey { name: "log.cleaner.min.cleanable.dirty.ratio", remedy: "it is called log.cleaner.min.cleanable.ratio" },
    RemovedKey { name: "log.message.downconversion.enable", remedy: FORMAT },
    RemovedKey { name: "log.message.format.version", remedy: FORMAT },
    RemovedKey { name: "log.message.timestamp.difference.max.ms", remedy: "use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms instead" },
    RemovedKey { name: "offsets.commit.required.acks", remedy: "commits are always stored with acks=all since Kafka 4.0; remove the key" },
    RemovedKey { name: "port", remedy: "use listeners instead" },
    RemovedKey { name: "quota.consumer.default", remedy: "use client quotas instead" },
    RemovedKey { name: "quota.producer.default", remedy: "use client quotas instead" },
    RemovedKey { name: "replica.lag.max.messages", remedy: "use replica.lag.time.max.ms instead" },
    RemovedKey { name: "reserved.broker.max.id", remedy: BROKER_IDS },
    RemovedKey { name: "password.encoder.", remedy: ENCODER },
    RemovedKey { name: "zookeeper.", remedy: ZOOKEEPER },
];

/// Removed keys of topics.
#[rustfmt::skip] // One line a key is easier to scan, compare and sort.
pub static REMOVED_TOPIC_KEYS: &[RemovedKey] = &[
    RemovedKey { name: "message.downconversion.enable", remedy: FORMAT },
    RemovedKey { name: "message.format.version", remedy: FORMAT },
    RemovedKey { name: "message.timestamp.difference.max.ms", remedy: "use message.timestamp.before.max.ms and message.timestamp.after.max.ms instead" },
];

/// Finds what to do about a key of the past.
pub(in crate::config) fn remedy_for_removed(
    keys: &'static [RemovedKey],
    name: &str,
) -> Option<&'static str> {
    keys.iter()
        .find(|removed| match removed.name.strip_suffix('.') {
            Some(_) => name.starts_with(removed.name),
            None => name == removed.name,
        })
        .map(|removed| removed.remedy)
}

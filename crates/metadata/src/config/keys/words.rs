//! Words that several keys share.

/// Values of `compression.type`.
pub(super) const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
/// Values of `cleanup.policy`.
pub(super) const POLICIES: &[&str] = &["compact", "delete"];
/// Values of `message.timestamp.type`.
pub(super) const TIMESTAMPS: &[&str] = &["CreateTime", "LogAppendTime"];
/// Why keys of replication have no effect.
pub(super) const REPLICATION: &str = "a single node has no other replicas to talk to";
/// Why keys about counts of replicas have none, which Kafka holds to the replicas there are.
pub(super) const ONE_REPLICA: &str = "a partition has one replica here, and as in Kafka no more of them can be asked for than there are";

//! Everything a broker needs to know from its configuration: checked, typed, grouped, immutable.
//!
//! Whoever reads a field here can trust it. Numbers keep Kafka's units; "no limit" is `None`.
//! `load` makes the first value; [`BrokerSettings::with_dynamic`] makes the next one when dynamic
//! configs change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fleuve_types::NodeId;

use super::access::AccessSettings;
use super::layers::{ConfigMap, Layers, StaticConfig};
use super::listeners::Listeners;
use super::load;
use super::problem::{ConfigError, Problems};
use super::protection::TlsSettings;
use super::topic::TopicSettings;

/// The settings of one broker.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerSettings {
    /// Who this node is.
    pub node: NodeSettings,
    /// Listeners, connections and requests.
    pub network: NetworkSettings,
    /// Where and how partitions are stored.
    pub log: LogSettings,
    /// The log of metadata.
    pub metadata_log: MetadataLogSettings,
    /// What topics are made of, and whether.
    pub topics: TopicRules,
    /// Limits of fetches.
    pub fetch: FetchSettings,
    /// Limits of groups.
    pub groups: GroupSettings,
    /// Limits of consumer groups.
    pub consumer_groups: ConsumerGroupSettings,
    /// Limits of share groups.
    pub share_groups: ShareGroupSettings,
    /// Limits of streams groups.
    pub streams_groups: StreamsGroupSettings,
    /// Committed offsets.
    pub offsets: OffsetSettings,
    /// Transactions.
    pub transactions: TransactionSettings,
    /// How quotas are measured.
    pub quotas: QuotaSettings,
    /// Who may do what.
    pub access: AccessSettings,
    /// The endpoint for metrics.
    pub metrics: MetricsSettings,
    /// What the operator wrote, key by key, for `DescribeConfigs`.
    pub statics: StaticConfig,
    pub(super) host_name: String,
}

/// The log of metadata, and the checkpoints that replace its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataLogSettings {
    /// `metadata.log.segment.bytes`.
    pub segment_bytes: u32,
    /// `metadata.log.segment.ms`.
    pub segment_ms: i64,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub checkpoint_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; `None` for no limit.
    pub checkpoint_interval_ms: Option<u64>,
    /// `metadata.max.retention.bytes`; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// `metadata.max.retention.ms`; `None` for no limit.
    pub retention_ms: Option<i64>,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// `node.id`.
    pub id: NodeId,
    /// `broker.rack`.
    pub rack: Option<String>,
}

/// Listeners, connections and requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// `telemetry.max.bytes`.
    pub telemetry_bytes_max: usize,
    /// All listeners.
    pub listeners: Listeners,
    /// `max.connections`.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: usize,
    /// `max.connections.per.ip.overrides`, by host name or address as written.
    pub connections_per_ip_overrides: BTreeMap<String, usize>,
    /// `max.connection.creation.rate`; `None` for no limit.
    pub creation_rate_max: Option<u32>,
    /// `fleuve.authentication.timeout.ms`; `None` for no limit.
    pub authentication_timeout_ms: Option<u64>,
    /// `fleuve.send.timeout.ms`; `None` for no limit.
    pub send_timeout_ms: Option<u64>,
    /// `fleuve.receive.timeout.ms`; `None` for no limit.
    pub receive_timeout_ms: Option<u64>,
    /// `connections.max.idle.ms`; `None` never closes idle connections.
    pub idle_max_ms: Option<u64>,
    /// `queued.max.request.bytes`; `None` for no limit.
    pub queued_request_bytes_max: Option<u64>,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `sasl.server.max.receive.size`: the largest frame before authentication.
    pub unauthenticated_bytes_max: usize,
    /// `fleuve.allow.unauthenticated.network`.
    pub allow_unauthenticated: bool,
    /// `connection.failed.authentication.delay.ms`.
    pub failed_authentication_delay_ms: u64,
    /// `ssl.allow.dn.changes` and `ssl.allow.san.changes`.
    pub certificate_changes: CertificateChanges,
    /// `ssl.principal.mapping.rules`.
    pub principal_mapping: String,
    /// `socket.send.buffer.bytes`; `None` leaves it to the operating system.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the operating system.
    pub receive_buffer_bytes: Option<usize>,
    /// `socket.listen.backlog.size`.
    pub listen_backlog: u32,
}

/// Where and how partitions are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// `log.dirs`, or `log.dir`; at least one.
    pub dirs: Vec<PathBuf>,
    /// `fleuve.flush.before.ack`.
    pub flush_before_ack: bool,
    /// `fleuve.disk.reserve.bytes`.
    pub reserve_bytes: u64,
    /// `num.recovery.threads.per.data.dir`.
    pub recovery_threads_per_dir: usize,
    /// `log.initial.task.delay.ms`.
    pub initial_task_delay_ms: u64,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// `log.flush.scheduler.interval.ms`; `None` never looks.
    pub flush_scheduler_interval_ms: Option<u64>,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub recovery_point_checkpoint_interval_ms: u64,
    /// `log.flush.start.offset.checkpoint.interval.ms`.
    pub start_offset_checkpoint_interval_ms: u64,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: u64,
    /// `fleuve.decompressed.bytes.max`, unless it is left to `max.message.bytes`.
    pub decompressed_bytes_max: Option<usize>,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_id_expiration_check_interval_ms: u64,
    /// What topics get where they do not say otherwise.
    pub topic_defaults: TopicSettings,
}

/// What topics are made of, and whether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRules {
    /// `auto.create.topics.enable`.
    pub auto_create: bool,
    /// `fleuve.request.partitions.max`.
    pub created_per_request_max: usize,
    /// `delete.topic.enable`.
    pub delete_allowed: bool,
    /// `num.partitions`.
    pub default_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
}

/// Limits of fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// `fetch.max.bytes`.
    pub response_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub sessions_max: usize,
    /// `max.request.partition.size.limit`.
    pub described_partitions_max: usize,
}

/// In what a certificate may differ from the one that it replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateChanges {
    /// It may be another subject's.
    pub of_subject: bool,
    /// It may lack alternative names.
    pub of_alternative_names: bool,
}

/// Limits of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`.
    pub members_max: usize,
    /// Whether `group.coordinator.rebalance.protocols` has `consumer`.
    pub has_consumer_protocol: bool,
    /// Whether `group.coordinator.rebalance.protocols` has `streams`.
    pub has_streams_protocol: bool,
}

/// What all modern group protocols have, the keys `group.PROTOCOL.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolSettings {
    /// `session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `assignment.interval.ms`.
    pub assignment_interval_ms: i32,
    /// `max.size`.
    pub members_max: usize,
}

/// Limits of consumer groups (KIP-848).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupSettings {
    /// `group.consumer.*` as other protocols have it too.
    pub protocol: ProtocolSettings,
    /// `group.consumer.assignors`, by the names that members ask for.
    pub assignors: Vec<String>,
    /// `group.consumer.migration.policy`, in small letters.
    pub migration_policy: String,
    /// `group.consumer.regex.refresh.interval.ms`.
    pub regex_refresh_interval_ms: i32,
}

/// Limits of share groups (KIP-932), and the topic that keeps what they did with records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareGroupSettings {
    /// `group.share.*` as other protocols have it too.
    pub protocol: ProtocolSettings,
    /// `group.share.delivery.count.limit`.
    pub delivery_count_max: i16,
    /// `group.share.record.lock.duration.ms`.
    pub record_lock_ms: i32,
    /// `group.share.partition.max.record.locks`.
    pub record_locks_max: i32,
    /// `group.share.max.share.sessions`.
    pub sessions_max: usize,
    /// `group.share.initialize.retry.interval.ms`.
    pub initialize_retry_interval_ms: i32,
    /// `share.coordinator.snapshot.update.records.per.snapshot`.
    pub updates_per_snapshot: u32,
    /// `share.coordinator.cold.partition.snapshot.interval.ms`.
    pub cold_snapshot_interval_ms: i64,
    /// `share.coordinator.write.timeout.ms`.
    pub write_timeout_ms: u64,
    /// `share.coordinator.state.topic.num.partitions`.
    pub topic_partitions: i32,
    /// `share.coordinator.state.topic.prune.interval.ms`.
    pub topic_prune_interval_ms: u64,
    /// `share.coordinator.state.topic.replication.factor`.
    pub topic_replication_factor: i16,
    /// `share.coordinator.state.topic.segment.bytes`.
    pub topic_segment_bytes: i32,
}

/// Limits of streams groups (KIP-1071).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsGroupSettings {
    /// `group.streams.*` as other protocols have it too.
    pub protocol: ProtocolSettings,
    /// `group.streams.num.standby.replicas`.
    pub standby_replicas: i32,
    /// `group.streams.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
}

/// Committed offsets and the topic that keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetSettings {
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: usize,
    /// `offsets.commit.timeout.ms`.
    pub commit_timeout_ms: u64,
    /// `offsets.load.buffer.size`.
    pub load_buffer_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub retention_ms: u64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// `offsets.topic.num.partitions`.
    pub topic_partitions: i32,
    /// `offsets.topic.replication.factor`.
    pub topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub topic_segment_bytes: i32,
}

/// Limits of transactions, and the topic that keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionSettings {
    /// `transaction.max.timeout.ms`.
    pub timeout_max_ms: i32,
    /// `transactional.id.expiration.ms`.
    pub id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_timed_out_interval_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub remove_expired_interval_ms: i64,
    /// `add.partitions.to.txn.retry.backoff.max.ms`.
    pub add_partitions_wait_ms: i64,
    /// `transaction.partition.verification.enable`.
    pub partitions_are_verified: bool,
    /// `transaction.state.log.num.partitions`.
    pub topic_partitions: i32,
    /// `transaction.state.log.replication.factor`.
    pub topic_replication_factor: i16,
    /// `transaction.state.log.min.isr`.
    pub topic_min_isr: i32,
    /// `transaction.state.log.segment.bytes`.
    pub topic_segment_bytes: i32,
}

/// The windows over which the use of quotas is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaSettings {
    /// `quota.window.num`.
    pub samples: usize,
    /// `quota.window.size.seconds`, in milliseconds.
    pub sample_ms: i64,
    /// `controller.quota.window.num`.
    pub controller_samples: usize,
    /// `controller.quota.window.size.seconds`, in milliseconds.
    pub controller_sample_ms: i64,
}

/// Who may see what at the HTTP door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAuthentication {
    /// Everybody sees everything.
    None,
    /// Everybody sees metrics, and other pages are for users.
    Pages,
    /// Everything is for users, but whether the broker is well.
    All,
}

/// Metrics, and what the broker writes about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// `fleuve.metrics.listen`; `None` switches the endpoint off.
    pub listen: Option<HostPort>,
    /// Whether the operator asked for this address: then a taken port is an error, otherwise only
    /// worth a warning.
    pub listen_is_explicit: bool,
    /// `fleuve.http.authentication`.
    pub authentication: HttpAuthentication,
    /// TLS, with `fleuve.http.security.protocol=SSL`.
    pub tls: Option<TlsSettings>,
    /// `fleuve.http.max.connections`.
    pub connections_max: usize,
    /// `fleuve.http.connections.max.idle.ms`.
    pub idle_max_ms: u64,
    /// `fleuve.slow.request.ms`; 0 means that nothing is slow.
    pub slow_request_ms: u64,
}

/// An address to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or address, without brackets; empty for every address.
    pub host: String,
    /// The port; 0 for any free one.
    pub port: u16,
}

impl BrokerSettings {
    /// Returns a view through the layers of these settings and the given dynamic configs.
    pub fn layers<'a>(&'a self, node: &'a ConfigMap, cluster: &'a ConfigMap) -> Layers<'a> {
        Layers { statics: &self.statics, node, cluster }
    }

    /// Computes the settings that hold with these dynamic configs, of this broker and of the
    /// cluster.
    ///
    /// What only a restart can change stays as it is, and so do listeners whose configs do not go
    /// together.
    pub fn with_dynamic(&self, node: &ConfigMap, cluster: &ConfigMap) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let layers = self.layers(node, cluster);
        let mut next = load::resolve(&layers, &self.host_name, &mut problems);
        next.network.listeners =
            self.listeners_with(node, cluster).unwrap_or_else(|_| self.network.listeners.clone());
        if problems.errors.is_empty() { Ok(next) } else { Err(ConfigError { problems }) }
    }
}

impl BrokerSettings {
    /// Computes the listeners that these dynamic configs ask for.
    pub fn listeners_with(
        &self,
        node: &ConfigMap,
        cluster: &ConfigMap,
    ) -> Result<Listeners, ConfigError> {
        let mut problems = Problems::default();
        let layers = self.layers(node, cluster);
        let mut listeners = super::listeners::resolve(&layers, &self.host_name, &mut problems);
        // As in Kafka, a change of `listeners` is about those of the broker.
        for known in &self.network.listeners.controller {
            if listeners.all().all(|(_, listener)| listener.name != known.name) {
                listeners.controller.push(known.clone());
                let told = self.network.listeners.advertised.iter();
                listeners.advertised.extend(told.filter(|told| told.name == known.name).cloned());
            }
        }
        if problems.errors.is_empty() { Ok(listeners) } else { Err(ConfigError { problems }) }
    }
}

impl Default for BrokerSettings {
    /// Returns the settings of a broker whose operator wrote nothing.
    fn default() -> Self {
        let statics = StaticConfig::default();
        load::resolve(&Layers::of_statics(&statics), "localhost", &mut Problems::default())
    }
}

//! From raw text to [`BrokerSettings`]: reading, naming every mistake at once, resolving synonyms.

use std::collections::BTreeMap;

use fleuve_types::NodeId;

use super::access::resolve_access;
use super::groups::{
    resolve_consumer_groups, resolve_groups, resolve_share_groups, resolve_streams_groups,
};
use super::judge::{judge_status, judge_unknown, served_listener_key};
use super::keys::{BROKER_KEYS, TOPIC_KEYS, find};
use super::layers::{Layers, Setting, StaticConfig};
use super::listeners;
use super::problem::{ConfigError, Origin, Problem, Problems};
use super::properties;
use super::protection::{self, ClientCertificates, HTTP_PROTOCOL_KEY, Secret, TlsSettings};
use super::references::{self, Outside, Providers};
use super::settings::{
    BrokerSettings, CertificateChanges, FetchSettings, HostPort, HttpAuthentication, LogSettings,
    MetadataLogSettings, MetricsSettings, NetworkSettings, NodeSettings, OffsetSettings,
    QuotaSettings, TopicRules, TransactionSettings,
};
use super::topic::TopicSettings;
use super::value::{InvalidValue, Value};

/// A configuration file, already read.
#[derive(Clone, Copy, Debug)]
pub struct ConfigFile<'a> {
    /// The name to show in messages.
    pub name: &'a str,
    /// The whole content.
    pub content: &'a [u8],
}

/// A value that a flag of the command line sets; it wins over the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The flag to show in messages, such as `--listen`.
    pub flag: String,
}

/// What the operator asked for, before anything is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// The configuration file, if there is one.
    pub file: Option<ConfigFile<'a>>,
    /// What flags set; of two that set the same key the later wins.
    pub overrides: &'a [Override],
    /// The name of this machine, told to clients when a listener is open on every address;
    /// `localhost` when empty.
    pub host_name: &'a str,
    /// Where references to values elsewhere are looked up; without it there can be none.
    pub outside: Option<&'a dyn Outside>,
}

/// Checks everything and returns the settings, with what the operator should know.
pub fn load(sources: Sources<'_>) -> Result<(BrokerSettings, Vec<Problem>), ConfigError> {
    let mut problems = Problems::default();
    let statics = read(sources, &mut problems);
    let host_name = match sources.host_name {
        "" => "localhost",
        name => name,
    };
    let settings = resolve(&Layers::of_statics(&statics), host_name, &mut problems);
    problems.sort();
    if problems.errors.is_empty() {
        Ok((settings, problems.warnings))
    } else {
        Err(ConfigError { problems })
    }
}

fn read(sources: Sources<'_>, problems: &mut Problems) -> StaticConfig {
    let mut statics = StaticConfig::default();
    let providers = read_providers(&sources, problems);
    let providers = providers.as_ref();
    if let Some(file) = sources.file {
        let (entries, errors) = properties::parse(&properties::decode_text(file.content));
        let origin = |line| Origin::File { name: file.name.to_owned(), line };
        for error in errors {
            problems.error(Some(&origin(error.line)), error.problem);
        }
        let mut lines = BTreeMap::new();
        for entry in entries {
            let origin = origin(entry.line);
            if let Some(earlier) = lines.insert(entry.key.clone(), entry.line) {
                problems.warning(
                    Some(&origin),
                    format!(
                        "`{}` is set on line {earlier} already; this line wins, remove one of the \
                         two",
                        entry.key
                    ),
                );
            }
            accept(&mut statics, (&entry.key, &entry.value), origin, providers, problems);
        }
    }
    for set in sources.overrides {
        let origin = Origin::Flag(set.flag.clone());
        accept(&mut statics, (&set.key, &set.value), origin, providers, problems);
    }
    forget_replaced_listeners(&mut statics, problems);
    judge_status(&statics, problems);
    // As in Kafka, either of the two names of the id stands for both.
    for (name, twin) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
        if let Some(setting) = statics.settings.get(name).cloned() {
            statics.settings.entry(twin).or_insert(setting);
        }
    }
    statics
}

/// When a flag replaces the file's listeners, what the file says about those goes with them.
fn forget_replaced_listeners(statics: &mut StaticConfig, problems: &mut Problems) {
    let Some(Origin::Flag(flag)) = statics.get("listeners").map(|set| set.origin.clone()) else {
        return;
    };
    for name in ["advertised.listeners", "inter.broker.listener.name"] {
        let origin = statics.get(name).map(|set| set.origin.clone());
        if let Some(origin @ Origin::File { .. }) = origin {
            statics.settings.remove(name);
            problems.warning(
                Some(&origin),
                format!("`{name}` has no effect: it belongs to listeners that {flag} replaces"),
            );
        }
    }
}

/// Finds out where references are looked up, if there may be any.
fn read_providers<'a>(sources: &Sources<'a>, problems: &mut Problems) -> Option<Providers<'a>> {
    let mut written = BTreeMap::new();
    if let Some(file) = sources.file {
        let (entries, _) = properties::parse(&properties::decode_text(file.content));
        written.extend(entries.into_iter().map(|entry| (entry.key, entry.value)));
    }
    let flags = sources.overrides.iter().map(|set| (set.key.clone(), set.value.clone()));
    written.extend(flags);
    match Providers::read(&written, sources.outside?) {
        Ok(providers) => Some(providers),
        Err(reason) => {
            problems.error(None, format!("`config.providers`: {reason}"));
            None
        }
    }
}

/// Checks one entry and keeps it if it is right.
fn accept(
    statics: &mut StaticConfig,
    (name, written): (&str, &str),
    origin: Origin,
    providers: Option<&Providers<'_>>,
    problems: &mut Problems,
) {
    if name.starts_with(references::PREFIX) {
        return;
    }
    let expanded = match providers.map_or(Ok(None), |providers| providers.expand(written)) {
        Ok(expanded) => expanded,
        Err(reason) => return problems.error(Some(&origin), format!("`{name}`: {reason}")),
    };
    let is_secret = expanded.is_some();
    let text = expanded.as_deref().unwrap_or(written);
    // What is wrong with a secret must not be shown along with it.
    let describe = |error: InvalidValue| match is_secret {
        true => format!("`{name}`: what `{written}` stands for is no value of this key"),
        false => error.to_string(),
    };
    let Some(key) = find(BROKER_KEYS, name) else {
        if let Some((own_name, key)) = served_listener_key(name) {
            let checked = key.map_or(Ok(()), |key| Value::parse(key, text).map(|_| ()));
            match checked {
                Ok(()) => {
                    statics.of_listeners.insert(own_name, (Secret::new(text), origin));
                }
                Err(error) => problems.error(Some(&origin), describe(error)),
            }
            return;
        }
        return judge_unknown(name, &origin, problems);
    };
    match Value::parse(key, text) {
        Ok(value) => {
            statics.settings.insert(key.name, Setting { value, origin, is_secret });
        }
        Err(error) => problems.error(Some(&origin), describe(error)),
    }
}

/// Computes all settings; what cannot be right is reported and replaced by something harmless.
pub(super) fn resolve(
    layers: &Layers<'_>,
    host_name: &str,
    problems: &mut Problems,
) -> BrokerSettings {
    let node = resolve_node(layers, problems);
    check_quorum(layers, node.id, problems);
    check_replication(layers, problems);
    let topic_defaults = TopicSettings::from_broker(layers);
    check_topic_defaults(layers, &topic_defaults, problems);
    BrokerSettings {
        node,
        network: resolve_network(layers, host_name, problems),
        log: LogSettings {
            dirs: resolve_dirs(layers, problems),
            flush_before_ack: layers.boolean("fleuve.flush.before.ack"),
            reserve_bytes: unsigned(layers, "fleuve.disk.reserve.bytes"),
            recovery_threads_per_dir: count(layers, "num.recovery.threads.per.data.dir"),
            initial_task_delay_ms: unsigned(layers, "log.initial.task.delay.ms"),
            retention_check_interval_ms: unsigned(layers, "log.retention.check.interval.ms"),
            flush_scheduler_interval_ms: limit(layers, "log.flush.scheduler.interval.ms")
                .filter(|interval| *interval < i64::MAX as u64),
            recovery_point_checkpoint_interval_ms: unsigned(
                layers,
                "log.flush.offset.checkpoint.interval.ms",
            ),
            start_offset_checkpoint_interval_ms: unsigned(
                layers,
                "log.flush.start.offset.checkpoint.interval.ms",
            ),
            producer_id_expiration_ms: unsigned(layers, "producer.id.expiration.ms"),
            decompressed_bytes_max: limit(layers, "fleuve.decompressed.bytes.max")
                .filter(|max| *max > 0)
                .map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
            producer_id_expiration_check_interval_ms: unsigned(
                layers,
                "producer.id.expiration.check.interval.ms",
            ),
            topic_defaults,
        },
        metadata_log: resolve_metadata_log(layers),
        topics: TopicRules {
            auto_create: layers.boolean("auto.create.topics.enable"),
            created_per_request_max: count(layers, "fleuve.request.partitions.max"),
            delete_allowed: layers.boolean("delete.topic.enable"),
            default_partitions: layers.integer("num.partitions") as i32,
            default_replication_factor: resolve_replication_factor(layers, problems),
        },
        fetch: FetchSettings {
            response_bytes_max: count(layers, "fetch.max.bytes"),
            sessions_max: count(layers, "max.incremental.fetch.session.cache.slots"),
            described_partitions_max: count(layers, "max.request.partition.size.limit"),
        },
        groups: resolve_groups(layers, problems),
        consumer_groups: resolve_consumer_groups(layers, problems),
        share_groups: resolve_share_groups(layers, problems),
        streams_groups: resolve_streams_groups(layers, problems),
        offsets: OffsetSettings {
            metadata_bytes_max: count(layers, "offset.metadata.max.bytes"),
            commit_timeout_ms: unsigned(layers, "offsets.commit.timeout.ms"),
            load_buffer_bytes: count(layers, "offsets.load.buffer.size"),
            retention_ms: unsigned(layers, "offsets.retention.minutes") * 60_000,
            retention_check_interval_ms: unsigned(layers, "offsets.retention.check.interval.ms"),
            topic_partitions: layers.integer("offsets.topic.num.partitions") as i32,
            topic_replication_factor: layers
                .integer("offsets.topic.replication.factor")
                .min(REPLICAS_OF_ONE_NODE) as i16,
            topic_segment_bytes: layers.integer("offsets.topic.segment.bytes") as i32,
        },
        transactions: resolve_transactions(layers),
        quotas: QuotaSettings {
            samples: count(layers, "quota.window.num"),
            sample_ms: layers.integer("quota.window.size.seconds") * 1000,
            controller_samples: count(layers, "controller.quota.window.num"),
            controller_sample_ms: layers.integer("controller.quota.window.size.seconds") * 1000,
        },
        access: resolve_access(layers, problems),
        metrics: resolve_metrics(layers, problems),
        statics: layers.statics.clone(),
        host_name: host_name.to_owned(),
    }
}

fn resolve_metadata_log(layers: &Layers<'_>) -> MetadataLogSettings {
    let segment_bytes = layers
        .optional_integer("internal.metadata.log.segment.bytes")
        .unwrap_or_else(|| layers.integer("metadata.log.segment.bytes"));
    MetadataLogSettings {
        segment_bytes: u32::try_from(segment_bytes).unwrap_or(u32::MAX),
        segment_ms: layers.integer("metadata.log.segment.ms"),
        checkpoint_bytes: unsigned(layers, "metadata.log.max.record.bytes.between.snapshots"),
        checkpoint_interval_ms: limit(layers, "metadata.log.max.snapshot.interval.ms")
            .filter(|interval| *interval > 0),
        retention_bytes: limit(layers, "metadata.max.retention.bytes"),
        retention_ms: Some(layers.integer("metadata.max.retention.ms")).filter(|ms| *ms >= 0),
    }
}

fn resolve_transactions(layers: &Layers<'_>) -> TransactionSettings {
    TransactionSettings {
        timeout_max_ms: layers.integer("transaction.max.timeout.ms") as i32,
        id_expiration_ms: layers.integer("transactional.id.expiration.ms"),
        abort_timed_out_interval_ms: layers
            .integer("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
        remove_expired_interval_ms: layers
            .integer("transaction.remove.expired.transaction.cleanup.interval.ms"),
        add_partitions_wait_ms: layers.integer("add.partitions.to.txn.retry.backoff.max.ms"),
        partitions_are_verified: layers.boolean("transaction.partition.verification.enable"),
        topic_partitions: layers.integer("transaction.state.log.num.partitions") as i32,
        topic_replication_factor: layers
            .integer("transaction.state.log.replication.factor")
            .min(REPLICAS_OF_ONE_NODE) as i16,
        topic_min_isr: layers.integer("transaction.state.log.min.isr") as i32,
        topic_segment_bytes: layers.integer("transaction.state.log.segment.bytes") as i32,
    }
}

fn resolve_node(layers: &Layers<'_>, problems: &mut Problems) -> NodeSettings {
    let id = layers.integer("node.id");
    if layers.integer("broker.id") != id {
        problems.error(
            layers.origin("broker.id"),
            "`broker.id` and `node.id` differ; remove broker.id, the older of the two names",
        );
    }
    if id < 0 {
        problems.error(
            layers.origin("node.id"),
            format!("invalid value `{id}` for `broker.id`: must be at least 0; or set node.id"),
        );
    }
    let roles = layers.list("process.roles");
    if roles.len() != 2 {
        problems.error(
            layers.origin("process.roles"),
            "`process.roles` must be broker,controller: processes with one role alone are not \
             served yet",
        );
    }
    let rack = layers.text("broker.rack").filter(|rack| !rack.is_empty());
    NodeSettings { id: NodeId(id as i32), rack }
}

/// A quorum of several controllers is refused, since this node would found a cluster of its own.
fn check_quorum(layers: &Layers<'_>, id: NodeId, problems: &mut Problems) {
    const ALONE: &str = "clusters of several nodes are not served yet; leave this node alone in it";
    for key in ["controller.quorum.voters", "controller.quorum.bootstrap.servers"] {
        let items = layers.list(key);
        if items.len() > 1 {
            let count = items.len();
            problems.error(layers.origin(key), format!("`{key}` names {count} nodes: {ALONE}"));
        }
    }
    let voters = layers.list("controller.quorum.voters");
    if let [voter] = voters.as_slice() {
        let named = voter.split_once('@').and_then(|(id, _)| id.parse::<i32>().ok());
        if named != Some(id.0) {
            problems.error(
                layers.origin("controller.quorum.voters"),
                format!(
                    "`controller.quorum.voters` is `{voter}`, which is not this node; write \
                     {id}@HOST:PORT or remove the key"
                ),
            );
        }
    }
}

/// The most replicas that one node alone can keep.
const REPLICAS_OF_ONE_NODE: i64 = 1;

/// Internal topics get one replica on one node, whatever a file written for three says.
fn check_replication(layers: &Layers<'_>, problems: &mut Problems) {
    const KEYS: [&str; 2] =
        ["offsets.topic.replication.factor", "transaction.state.log.replication.factor"];
    for key in KEYS {
        let wanted = layers.integer(key);
        if wanted > REPLICAS_OF_ONE_NODE {
            problems.warning(
                layers.origin(key),
                format!("`{key}` is {wanted}, but one node can keep only 1 replica"),
            );
        }
    }
}

/// Broker defaults must be values that a topic may have.
fn check_topic_defaults(layers: &Layers<'_>, defaults: &TopicSettings, problems: &mut Problems) {
    for key in TOPIC_KEYS {
        let Some((source, value)) = super::topic::broker_default(key, layers) else { continue };
        let below_range = Value::parse(key, &value.to_string()).is_err();
        let keeps_nothing = key.name == "retention.ms" && value == Value::Integer(0);
        if below_range || keeps_nothing {
            let range =
                if keeps_nothing { "at least 1, or -1".to_owned() } else { key.rule.to_string() };
            problems.error(
                layers.origin(source),
                format!(
                    "invalid value for `{source}`: `{}` would be {value}, must be {range}",
                    key.name
                ),
            );
        }
    }
    if let Err(conflict) = defaults.check() {
        let origin = layers
            .origin("log.cleaner.min.compaction.lag.ms")
            .or_else(|| layers.origin("log.cleaner.max.compaction.lag.ms"));
        problems.error(origin, format!("{conflict}; change one of the two broker defaults"));
    }
}

fn resolve_replication_factor(layers: &Layers<'_>, problems: &mut Problems) -> i16 {
    const KEY: &str = "default.replication.factor";
    let wanted = layers.integer(KEY);
    match i16::try_from(wanted) {
        Ok(factor) if factor >= 1 => factor,
        _ => {
            problems.error(
                layers.origin(KEY),
                format!("invalid value `{wanted}` for `{KEY}`: must be between 1 and 32767"),
            );
            1
        }
    }
}

fn resolve_network(
    layers: &Layers<'_>,
    host_name: &str,
    problems: &mut Problems,
) -> NetworkSettings {
    NetworkSettings {
        telemetry_bytes_max: count(layers, "telemetry.max.bytes"),
        // Open listeners stay as they are, whatever is set while the broker runs.
        listeners: listeners::resolve(&Layers::of_statics(layers.statics), host_name, problems),
        connections_max: count(layers, "max.connections"),
        connections_per_ip_max: count(layers, "max.connections.per.ip"),
        connections_per_ip_overrides: resolve_ip_overrides(layers, problems),
        creation_rate_max: u32::try_from(layers.integer("max.connection.creation.rate"))
            .ok()
            .filter(|rate| *rate < i32::MAX as u32),
        authentication_timeout_ms: limit(layers, "fleuve.authentication.timeout.ms")
            .filter(|timeout| *timeout > 0),
        send_timeout_ms: limit(layers, "fleuve.send.timeout.ms").filter(|timeout| *timeout > 0),
        receive_timeout_ms: limit(layers, "fleuve.receive.timeout.ms")
            .filter(|timeout| *timeout > 0),
        idle_max_ms: limit(layers, "connections.max.idle.ms"),
        certificate_changes: CertificateChanges {
            of_subject: layers.boolean("ssl.allow.dn.changes"),
            of_alternative_names: layers.boolean("ssl.allow.san.changes"),
        },
        queued_request_bytes_max: limit(layers, "queued.max.request.bytes").filter(|max| *max > 0),
        request_bytes_max: count(layers, "socket.request.max.bytes"),
        unauthenticated_bytes_max: count(layers, "sasl.server.max.receive.size"),
        allow_unauthenticated: layers.boolean("fleuve.allow.unauthenticated.network"),
        failed_authentication_delay_ms: unsigned(
            layers,
            "connection.failed.authentication.delay.ms",
        ),
        principal_mapping: layers.text("ssl.principal.mapping.rules").unwrap_or_default(),
        send_buffer_bytes: limit(layers, "socket.send.buffer.bytes").map(|size| size as usize),
        receive_buffer_bytes: limit(layers, "socket.receive.buffer.bytes")
            .map(|size| size as usize),
        listen_backlog: layers.integer("socket.listen.backlog.size") as u32,
    }
}

fn resolve_ip_overrides(layers: &Layers<'_>, problems: &mut Problems) -> BTreeMap<String, usize> {
    const KEY: &str = "max.connections.per.ip.overrides";
    let text = layers.text(KEY).unwrap_or_default();
    let mut overrides = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let pair = item.rsplit_once(':').and_then(|(host, most)| {
            let most = most.trim().parse::<u32>().ok()?;
            (!host.is_empty()).then(|| (host.trim().to_owned(), most as usize))
        });
        match pair {
            Some((host, most)) => {
                overrides.insert(host, most);
            }
            None => problems.error(
                layers.origin(KEY),
                format!("invalid item `{item}` in `{KEY}`: write HOST:COUNT"),
            ),
        }
    }
    overrides
}

fn resolve_dirs(layers: &Layers<'_>, problems: &mut Problems) -> Vec<std::path::PathBuf> {
    let (key, dirs) = match layers.list("log.dirs") {
        dirs if dirs.is_empty() => ("log.dir", layers.list("log.dir")),
        dirs => ("log.dirs", dirs),
    };
    const KEY: &str = "metadata.log.dir";
    if let Some(dir) = layers.text(KEY).filter(|dir| !dir.is_empty() && dirs.first() != Some(dir)) {
        problems.error(
            layers.origin(KEY),
            format!(
                "`{KEY}` is `{dir}`, but metadata is kept in the first of `{key}`; make the two \
                 the same or remove {KEY}"
            ),
        );
    }
    dirs.into_iter().map(Into::into).collect()
}

/// What other machines reach has to ask who they are, and not in the clear, as listeners do.
fn check_door(
    layers: &Layers<'_>,
    listen: &HostPort,
    authentication: HttpAuthentication,
    tls: Option<&TlsSettings>,
    problems: &mut Problems,
) {
    const KEY: &str = "fleuve.metrics.listen";
    const OPEN: &str = listeners::ALLOW_KEY;
    const CLEAR: &str = "fleuve.allow.plain.without.tls";
    let HostPort { host, port } = listen;
    let by_certificate =
        tls.is_some_and(|tls| tls.client_certificates == ClientCertificates::Required);
    if authentication != HttpAuthentication::All && !by_certificate {
        if !layers.boolean(OPEN) {
            let message = format!(
                "`{KEY}` at {host}:{port} would tell other machines the names of topics and groups \
                 without authentication; bind it to localhost, set fleuve.http.authentication=all, \
                 or allow it with {OPEN}=true"
            );
            problems.error(layers.origin(KEY), message);
        }
    } else if tls.is_none() && !layers.boolean(CLEAR) {
        let message = format!(
            "`{KEY}` at {host}:{port} would carry passwords and tokens over the network for \
             everybody to read; set {HTTP_PROTOCOL_KEY}=SSL, bind it to localhost, or set \
             {CLEAR}=true"
        );
        problems.error(layers.origin(KEY), message);
    }
}

fn resolve_metrics(layers: &Layers<'_>, problems: &mut Problems) -> MetricsSettings {
    const KEY: &str = "fleuve.metrics.listen";
    let text = layers.text(KEY).unwrap_or_default();
    let listen = if text.is_empty() {
        None
    } else {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            Some(HostPort { host: host.to_owned(), port: port.parse().ok()? })
        });
        if parsed.is_none() {
            problems.error(
                layers.origin(KEY),
                format!("invalid value `{text}` for `{KEY}`: write HOST:PORT, or nothing for off"),
            );
        }
        parsed
    };
    let authentication = match layers.text("fleuve.http.authentication").as_deref() {
        Some("none") => HttpAuthentication::None,
        Some("pages") => HttpAuthentication::Pages,
        Some("all") => HttpAuthentication::All,
        _ if layers.text("authorizer.class.name").unwrap_or_default().is_empty() => {
            HttpAuthentication::None
        }
        _ => HttpAuthentication::Pages,
    };
    let has_tls = layers.text(HTTP_PROTOCOL_KEY).as_deref() == Some("SSL");
    let tls = match has_tls && listen.is_some() {
        true => protection::resolve_http(layers, problems),
        false => None,
    };
    if let Some(listen) = listen.as_ref().filter(|listen| !listeners::is_loopback(&listen.host)) {
        check_door(layers, listen, authentication, tls.as_ref(), problems);
    }
    MetricsSettings {
        listen,
        authentication,
        tls,
        connections_max: count(layers, "fleuve.http.max.connections"),
        idle_max_ms: unsigned(layers, "fleuve.http.connections.max.idle.ms"),
        listen_is_explicit: layers.is_set(KEY),
        slow_request_ms: unsigned(layers, "fleuve.slow.request.ms"),
    }
}

/// A number that is never negative, by its rule or by sense.
fn unsigned(layers: &Layers<'_>, name: &str) -> u64 {
    layers.integer(name).max(0) as u64
}

pub(super) fn count(layers: &Layers<'_>, name: &str) -> usize {
    usize::try_from(unsigned(layers, name)).unwrap_or(usize::MAX)
}

/// A number whose negative values mean "no limit".
fn limit(layers: &Layers<'_>, name: &str) -> Option<u64> {
    u64::try_from(layers.integer(name)).ok()
}

//! The typed settings of each kind of client, with Kafka's defaults.

use std::str::FromStr;
use std::time::Duration;

use fleuve_protocol::records::{Codec, Compression};

use super::Properties;
use crate::error::{Error, Result};

/// Settings that every kind of client has.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `bootstrap.servers`: where to ask first, as `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// `client.id`: the name this client gives itself in requests.
    pub client_id: String,
    /// `request.timeout.ms`: how long one request waits for its answer.
    pub request_timeout: Duration,
    /// `default.api.timeout.ms`: how long a call tries, retries included.
    pub api_timeout: Duration,
    /// `socket.connection.setup.timeout.ms`: how long one connection attempt may take.
    pub connect_timeout: Duration,
    /// `reconnect.backoff.ms`: the pause after a first failed connection.
    pub reconnect_backoff: Duration,
    /// `reconnect.backoff.max.ms`: the longest pause between connection attempts.
    pub reconnect_backoff_max: Duration,
    /// `retry.backoff.ms`: the pause after a first failed request.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`: the longest pause between retries.
    pub retry_backoff_max: Duration,
    /// `metadata.max.age.ms`: how old metadata may grow.
    pub metadata_max_age: Duration,
    /// The largest response that is accepted, in bytes; Kafka's clients have no name for it.
    pub response_bytes_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: vec!["localhost:9092".to_owned()],
            client_id: "fleuve".to_owned(),
            request_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
            response_bytes_max: RESPONSE_BYTES_MAX,
        }
    }
}

/// Larger than any sensible `fetch.max.bytes`, smaller than what would hurt.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

impl ClientConfig {
    /// Makes settings for the brokers in `servers`, a comma-separated list of `host:port`.
    pub fn new(servers: &str) -> Result<Self> {
        Ok(Self { bootstrap_servers: parse_servers(servers)?, ..Self::default() })
    }

    /// Reads the settings that `properties` names, and takes the defaults for the rest.
    pub fn from_properties(properties: &Properties) -> Result<Self> {
        let mut config = Self::default();
        if let Some(servers) = properties.get("bootstrap.servers") {
            config.bootstrap_servers = parse_servers(servers)?;
        }
        if let Some(id) = properties.get("client.id") {
            config.client_id = id.to_owned();
        }
        read_ms(properties, "request.timeout.ms", &mut config.request_timeout)?;
        read_ms(properties, "default.api.timeout.ms", &mut config.api_timeout)?;
        read_ms(properties, "socket.connection.setup.timeout.ms", &mut config.connect_timeout)?;
        read_ms(properties, "reconnect.backoff.ms", &mut config.reconnect_backoff)?;
        read_ms(properties, "reconnect.backoff.max.ms", &mut config.reconnect_backoff_max)?;
        read_ms(properties, "retry.backoff.ms", &mut config.retry_backoff)?;
        read_ms(properties, "retry.backoff.max.ms", &mut config.retry_backoff_max)?;
        read_ms(properties, "metadata.max.age.ms", &mut config.metadata_max_age)?;
        Ok(config)
    }
}

/// How many replicas must have a record before it counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// `0`: nobody is asked.
    None,
    /// `1`: the leader has appended it.
    Leader,
    /// `all`: every in-sync replica has it.
    All,
}

impl Acks {
    /// Returns the number on the wire.
    pub fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

impl FromStr for Acks {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "0" => Ok(Self::None),
            "1" => Ok(Self::Leader),
            "all" | "-1" => Ok(Self::All),
            _ => Err(Error::config(format!("acks={text}: expected 0, 1 or all"))),
        }
    }
}

/// Settings of a producer.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// `acks`.
    pub acks: Acks,
    /// `batch.size`: bytes after which a batch is closed.
    pub batch_size: usize,
    /// `linger.ms`: how long a batch waits for more records.
    pub linger: Duration,
    /// `buffer.memory`: bytes of records that may wait or be in flight.
    pub buffer_memory: usize,
    /// `compression.type` with the level of that codec.
    pub codec: Codec,
    /// `delivery.timeout.ms`: how long a record may take from `send` to its answer.
    pub delivery_timeout: Duration,
    /// `enable.idempotence`.
    pub idempotence: bool,
    /// `max.block.ms`: how long `send` waits for metadata or memory.
    pub max_block: Duration,
    /// `max.in.flight.requests.per.connection`.
    pub max_in_flight: usize,
    /// `max.request.size`.
    pub max_request_size: usize,
    /// `partitioner.ignore.keys`.
    pub ignore_keys: bool,
    /// `retries`.
    pub retries: u32,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            batch_size: 16 << 10,
            linger: Duration::from_millis(5),
            buffer_memory: 32 << 20,
            codec: Codec::default(),
            delivery_timeout: Duration::from_secs(120),
            idempotence: true,
            max_block: Duration::from_secs(60),
            max_in_flight: IDEMPOTENT_IN_FLIGHT_MAX,
            max_request_size: 1 << 20,
            ignore_keys: false,
            retries: i32::MAX as u32,
        }
    }
}

/// A broker remembers this many batches of a producer, so more in flight could not be told apart.
const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

impl ProducerConfig {
    /// Reads the settings that `properties` names, and takes the defaults for the rest.
    pub fn from_properties(properties: &Properties) -> Result<Self> {
        let mut config = Self::default();
        if let Some(acks) = properties.get("acks") {
            config.acks = acks.parse()?;
        }
        read(properties, "batch.size", &mut config.batch_size)?;
        read_ms(properties, "linger.ms", &mut config.linger)?;
        read(properties, "buffer.memory", &mut config.buffer_memory)?;
        if let Some(name) = properties.get("compression.type") {
            config.codec = parse_codec(name)?;
        }
        let level_key = match config.codec.compression() {
            Compression::Gzip => Some("compression.gzip.level"),
            Compression::Lz4 => Some("compression.lz4.level"),
            Compression::Zstd => Some("compression.zstd.level"),
            Compression::None | Compression::Snappy => None,
        };
        if let Some(key) = level_key
            && properties.get(key).is_some()
        {
            let mut level = 0;
            read(properties, key, &mut level)?;
            config.codec = config.codec.with_level(level);
        }
        read_ms(properties, "delivery.timeout.ms", &mut config.delivery_timeout)?;
        read_ms(properties, "max.block.ms", &mut config.max_block)?;
        read(properties, "max.in.flight.requests.per.connection", &mut config.max_in_flight)?;
        read(properties, "max.request.size", &mut config.max_request_size)?;
        read(properties, "partitioner.ignore.keys", &mut config.ignore_keys)?;
        read(properties, "retries", &mut config.retries)?;
        let asked_for = properties.get("enable.idempotence").is_some();
        read(properties, "enable.idempotence", &mut config.idempotence)?;
        config.validate(asked_for)
    }

    /// Checks that the settings fit together, as Kafka's producer does.
    ///
    /// Settings that rule idempotence out switch it off, unless it was asked for by name.
    pub fn validate(mut self, idempotence_asked_for: bool) -> Result<Self> {
        if self.idempotence {
            let conflict = if self.acks != Acks::All {
                Some("acks=all")
            } else if self.max_in_flight > IDEMPOTENT_IN_FLIGHT_MAX {
                Some("max.in.flight.requests.per.connection of at most 5")
            } else if self.retries == 0 {
                Some("retries above 0")
            } else {
                None
            };
            match conflict {
                Some(needed) if idempotence_asked_for => {
                    return Err(Error::config(format!("enable.idempotence=true needs {needed}")));
                }
                Some(_) => self.idempotence = false,
                None => {}
            }
        }
        if self.max_in_flight == 0 {
            return Err(Error::config(
                "max.in.flight.requests.per.connection=0: expected at least 1",
            ));
        }
        Ok(self)
    }
}

/// Where a consumer begins when it has no valid position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// `earliest`: with the oldest record.
    Earliest,
    /// `latest`: with the next record to be written.
    Latest,
    /// `none`: not at all; the consumer reports an error.
    None,
}

/// Which records of transactions a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    /// All of them.
    ReadUncommitted,
    /// Only those of committed transactions.
    ReadCommitted,
}

impl IsolationLevel {
    /// Returns the number on the wire.
    pub fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// Settings of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `group.id`: the consumer group; without one only `assign` works and nothing is committed.
    pub group_id: Option<String>,
    /// `group.instance.id`: makes the member static.
    pub group_instance_id: Option<String>,
    /// `session.timeout.ms`: silence after which the coordinator drops a member.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`: how long the application may work between two polls.
    pub max_poll_interval: Duration,
    /// `enable.auto.commit`.
    pub auto_commit: bool,
    /// `auto.commit.interval.ms`.
    pub auto_commit_interval: Duration,
    /// `auto.offset.reset`.
    pub offset_reset: OffsetReset,
    /// `isolation.level`.
    pub isolation_level: IsolationLevel,
    /// `fetch.min.bytes`.
    pub fetch_min_bytes: i32,
    /// `fetch.max.bytes`; also bounds what all partitions together have fetched ahead.
    pub fetch_max_bytes: i32,
    /// `fetch.max.wait.ms`.
    pub fetch_max_wait: Duration,
    /// `max.partition.fetch.bytes`; also bounds what is fetched ahead of the application.
    pub max_partition_fetch_bytes: i32,
    /// `allow.auto.create.topics`.
    pub allow_auto_create_topics: bool,
    /// `partition.assignment.strategy`, as protocol names in order of preference.
    pub assignment_strategy: Vec<String>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group_id: None,
            group_instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            offset_reset: OffsetReset::Latest,
            isolation_level: IsolationLevel::ReadUncommitted,
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 << 20,
            fetch_max_wait: Duration::from_millis(500),
            max_partition_fetch_bytes: 1 << 20,
            allow_auto_create_topics: true,
            assignment_strategy: vec!["range".to_owned()],
        }
    }
}

impl ConsumerConfig {
    /// Reads the settings that `properties` names, and takes the defaults for the rest.
    pub fn from_properties(properties: &Properties) -> Result<Self> {
        let mut config = Self {
            group_id: properties.get("group.id").map(str::to_owned),
            group_instance_id: properties.get("group.instance.id").map(str::to_owned),
            ..Self::default()
        };
        read_ms(properties, "session.timeout.ms", &mut config.session_timeout)?;
        read_ms(properties, "heartbeat.interval.ms", &mut config.heartbeat_interval)?;
        read_ms(properties, "max.poll.interval.ms", &mut config.max_poll_interval)?;
        read(properties, "enable.auto.commit", &mut config.auto_commit)?;
        read_ms(properties, "auto.commit.interval.ms", &mut config.auto_commit_interval)?;
        if let Some(reset) = properties.get("auto.offset.reset") {
            config.offset_reset = match reset {
                "earliest" => OffsetReset::Earliest,
                "latest" => OffsetReset::Latest,
                "none" => OffsetReset::None,
                _ => {
                    return Err(Error::config(format!(
                        "auto.offset.reset={reset}: expected earliest, latest or none"
                    )));
                }
            };
        }
        if let Some(level) = properties.get("isolation.level") {
            config.isolation_level = match level {
                "read_uncommitted" => IsolationLevel::ReadUncommitted,
                "read_committed" => IsolationLevel::ReadCommitted,
                _ => {
                    return Err(Error::config(format!(
                        "isolation.level={level}: expected read_uncommitted or read_committed"
                    )));
                }
            };
        }
        read(properties, "fetch.min.bytes", &mut config.fetch_min_bytes)?;
        read(properties, "fetch.max.bytes", &mut config.fetch_max_bytes)?;
        read_ms(properties, "fetch.max.wait.ms", &mut config.fetch_max_wait)?;
        read(properties, "max.partition.fetch.bytes", &mut config.max_partition_fetch_bytes)?;
        read(properties, "allow.auto.create.topics", &mut config.allow_auto_create_topics)?;
        if let Some(strategies) = properties.get("partition.assignment.strategy") {
            config.assignment_strategy =
                strategies.split(',').map(|name| assignor_name(name.trim())).collect();
        }
        Ok(config)
    }
}

/// Accepts Java's assignor classes beside the protocol names.
fn assignor_name(name: &str) -> String {
    let class = name.rsplit('.').next().unwrap_or(name);
    match class {
        "RangeAssignor" => "range",
        "RoundRobinAssignor" => "roundrobin",
        "StickyAssignor" => "sticky",
        "CooperativeStickyAssignor" => "cooperative-sticky",
        _ => name,
    }
    .to_owned()
}

fn parse_codec(name: &str) -> Result<Codec> {
    let compression: Compression =
        name.trim().parse().map_err(|error| Error::config(format!("compression.type: {error}")))?;
    Ok(Codec::new(compression))
}

fn parse_servers(text: &str) -> Result<Vec<String>> {
    let servers: Vec<String> =
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(strip_scheme).collect();
    if servers.is_empty() {
        return Err(Error::config("bootstrap.servers is empty: expected HOST:PORT[,HOST:PORT]..."));
    }
    for server in &servers {
        split_address(server)?;
    }
    Ok(servers)
}

/// Kafka accepts `PLAINTEXT://host:port` in a bootstrap list.
fn strip_scheme(server: &str) -> String {
    server.split_once("://").map_or(server, |(_, address)| address).to_owned()
}

/// Splits `host:port`, with brackets around an IPv6 address.
pub(crate) fn split_address(server: &str) -> Result<(&str, u16)> {
    let bad = || {
        Error::config(format!("bootstrap server {server}: expected HOST:PORT, as localhost:9092"))
    };
    let (host, port) = server.rsplit_once(':').ok_or_else(bad)?;
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(bad());
    }
    Ok((host, port.parse().map_err(|_| bad())?))
}

fn read<T: FromStr>(properties: &Properties, key: &str, into: &mut T) -> Result<()> {
    if let Some(text) = properties.get(key) {
        *into = text.trim().to_lowercase().parse().map_err(|_| {
            let kind = std::any::type_name::<T>();
            let expected = if kind == "bool" { "true or false" } else { "a number" };
            Error::config(format!("{key}={text}: expected {expected}"))
        })?;
    }
    Ok(())
}

fn read_ms(properties: &Properties, key: &str, into: &mut Duration) -> Result<()> {
    let mut ms = into.as_millis() as u64;
    read(properties, key, &mut ms)?;
    *into = Duration::from_millis(ms);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(text: &str) -> Properties {
        Properties::parse(text).expect("known keys")
    }

    #[test]
    fn settings_read_kafkas_names_and_keep_kafkas_defaults() {
        let text = "linger.ms=20\nacks=all\ncompression.type=zstd\ncompression.zstd.level=7";
        let config = ProducerConfig::from_properties(&properties(text)).expect("valid");
        assert_eq!(config.linger, Duration::from_millis(20));
        assert_eq!(config.codec, Codec::new(Compression::Zstd).with_level(7));
        assert_eq!(config.batch_size, 16384);
        assert!(config.idempotence);
        let text = "partition.assignment.strategy=org.apache.kafka.clients.consumer.RoundRobinAssignor,range\nauto.offset.reset=earliest";
        let config = ConsumerConfig::from_properties(&properties(text)).expect("valid");
        assert_eq!(config.assignment_strategy, ["roundrobin", "range"]);
        assert_eq!(config.offset_reset, OffsetReset::Earliest);
    }

    #[test]
    fn idempotence_yields_to_other_settings_unless_asked_for() {
        let quiet = ProducerConfig::from_properties(&properties("acks=1")).expect("valid");
        assert!(!quiet.idempotence);
        let error = ProducerConfig::from_properties(&properties("acks=1\nenable.idempotence=true"))
            .expect_err("contradiction");
        assert!(error.to_string().contains("needs acks=all"), "{error}");
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_by_name() {
        for (text, expected) in [
            ("linger.ms=soon", "linger.ms=soon: expected a number"),
            ("bootstrap.servers=nohost", "bootstrap server nohost: expected HOST:PORT"),
            ("enable.auto.commit=perhaps", "enable.auto.commit=perhaps: expected true or false"),
            ("acks=2", "acks=2: expected 0, 1 or all"),
        ] {
            let properties = properties(text);
            let error = [
                ClientConfig::from_properties(&properties).err(),
                ProducerConfig::from_properties(&properties).err(),
                ConsumerConfig::from_properties(&properties).err(),
            ]
            .into_iter()
            .flatten()
            .next()
            .expect("refused");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn addresses_may_be_ipv6_or_carry_a_scheme() {
        let config = ClientConfig::new("[::1]:9092, PLAINTEXT://kafka:9093").expect("valid");
        assert_eq!(config.bootstrap_servers, ["[::1]:9092", "kafka:9093"]);
        assert_eq!(split_address("[::1]:9092").expect("valid"), ("::1", 9092));
    }
}

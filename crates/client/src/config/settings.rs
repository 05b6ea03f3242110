//! The typed settings that every kind of client has, with Kafka's defaults.

use std::str::FromStr;
use std::time::Duration;

use super::{Properties, Security};
use crate::error::{Error, Result};

/// Settings that every kind of client has, with Kafka's defaults.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `bootstrap.servers`: where to ask first, as `host:port`; `localhost:9092` by default.
    pub bootstrap_servers: Vec<String>,
    /// `bootstrap.controllers`: controllers to ask, as `host:port`, instead of brokers; none by default. It is for
    /// administration: whatever needs topics needs brokers.
    pub bootstrap_controllers: Vec<String>,
    /// `client.id`: the name this client gives itself in requests; `fleuve` by default.
    pub client_id: String,
    /// `request.timeout.ms`: how long one request waits for its answer; 30 seconds by default.
    pub request_timeout: Duration,
    /// `default.api.timeout.ms`: how long a call tries, retries included; a minute by default.
    pub api_timeout: Duration,
    /// `socket.connection.setup.timeout.ms`: how long one connection attempt may take; 10
    /// seconds by default.
    pub connect_timeout: Duration,
    /// `reconnect.backoff.ms`: the pause after a first failed connection; 50 ms by default.
    pub reconnect_backoff: Duration,
    /// `reconnect.backoff.max.ms`: the longest pause between connection attempts; a second by
    /// default.
    pub reconnect_backoff_max: Duration,
    /// `retry.backoff.ms`: the pause after a first failed request; 100 ms by default.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`: the longest pause between retries; a second by default.
    pub retry_backoff_max: Duration,
    /// `metadata.max.age.ms`: how old metadata may grow; five minutes by default.
    pub metadata_max_age: Duration,
    /// `security.protocol`, `ssl.*` and `sasl.*`; none by default.
    pub security: Security,
    /// `enable.metrics.push`: whether brokers that subscribe to metrics get them (KIP-714); true by
    /// default.
    pub metrics_push: bool,
    /// The largest response that is accepted, in bytes; 256 MiB by default. Kafka's clients have no
    /// name for it.
    pub response_bytes_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: vec!["localhost:9092".to_owned()],
            bootstrap_controllers: Vec::new(),
            client_id: "fleuve".to_owned(),
            request_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
            security: Security::default(),
            metrics_push: true,
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
        if let Some(controllers) = properties.get("bootstrap.controllers") {
            config.bootstrap_controllers = parse_servers(controllers)?;
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
        read(properties, "enable.metrics.push", &mut config.metrics_push)?;
        config.security = Security::from_properties(properties)?;
        Ok(config)
    }

    /// Reports whether controllers are asked, and not brokers.
    pub(crate) fn asks_controllers(&self) -> bool {
        !self.bootstrap_controllers.is_empty()
    }

    /// Where to ask first.
    pub(crate) fn first_addresses(&self) -> &[String] {
        match self.asks_controllers() {
            true => &self.bootstrap_controllers,
            false => &self.bootstrap_servers,
        }
    }
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

pub(super) fn read<T: FromStr>(properties: &Properties, key: &str, into: &mut T) -> Result<()> {
    if let Some(text) = properties.get(key) {
        *into = text.trim().to_lowercase().parse().map_err(|_| {
            let kind = std::any::type_name::<T>();
            let expected = if kind == "bool" { "true or false" } else { "a number" };
            Error::config(format!("{key}={text}: expected {expected}"))
        })?;
    }
    Ok(())
}

pub(super) fn read_ms(properties: &Properties, key: &str, into: &mut Duration) -> Result<()> {
    let mut ms = into.as_millis() as u64;
    read(properties, key, &mut ms)?;
    *into = Duration::from_millis(ms);
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::{Codec, Compression};

    use super::super::{ConsumerConfig, OffsetReset, ProducerConfig};
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
            ("partitioner.class=com.example.Mine", "expected RoundRobinPartitioner"),
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

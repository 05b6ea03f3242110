//! The typed settings of producers.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fleuve_protocol::records::{Codec, Compression};

use super::Properties;
use super::settings::{read, read_ms};
use crate::error::{Error, Result};
use crate::interceptor::{Interceptors, ProducerInterceptor};
use crate::producer::{Partitioner, RoundRobinPartitioner};

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

/// Settings of a producer, with Kafka's defaults.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// `acks`: who must have a record before it counts as written; all in-sync replicas by default.
    pub acks: Acks,
    /// `batch.size`: bytes after which a batch is closed; 16 KiB by default.
    pub batch_size: usize,
    /// `linger.ms`: how long a batch waits for more records; 5 ms by default.
    pub linger: Duration,
    /// `buffer.memory`: bytes of records that may wait or be in flight; 32 MiB by default.
    pub buffer_memory: usize,
    /// `compression.type` with the level of that codec; none by default.
    pub codec: Codec,
    /// `delivery.timeout.ms`: how long a record may take from `send` to its answer; two minutes by
    /// default.
    pub delivery_timeout: Duration,
    /// `enable.idempotence`: whether brokers sort out records that are sent twice, and keep their
    /// order; true by default, unless other settings rule it out.
    pub idempotence: bool,
    /// `max.block.ms`: how long `send` waits for metadata or memory; a minute by default.
    pub max_block: Duration,
    /// `max.in.flight.requests.per.connection`; 5 by default, and no more with idempotence.
    pub max_in_flight: usize,
    /// `max.request.size`: bytes of records in a request, and of the largest record; 1 MiB by default.
    pub max_request_size: usize,
    /// `partitioner.class`: chooses partitions before keys do; by name there is
    /// [`RoundRobinPartitioner`]. None by default.
    pub partitioner: Option<Arc<dyn Partitioner>>,
    /// `partitioner.ignore.keys`: whether records with a key are spread as those without one are;
    /// false by default.
    pub ignore_keys: bool,
    /// `partitioner.adaptive.partitioning.enable`: whether records without a key go less often where
    /// batches wait (KIP-794); true by default.
    pub adaptive_partitioning: bool,
    /// `partitioner.availability.timeout.ms`: how long a broker may take no batches before records
    /// without a key go to other ones; zero, the default, is for ever.
    pub partition_availability_timeout: Duration,
    /// `retries`: how often a batch is sent again; without end by default, within
    /// `delivery.timeout.ms`.
    pub retries: u32,
    /// `transactional.id`: makes the producer transactional, and fences others of the same id; none by
    /// default.
    pub transactional_id: Option<String>,
    /// `transaction.timeout.ms`: how long a transaction may stay open before the broker aborts it;
    /// a minute by default.
    pub transaction_timeout: Duration,
    /// Who looks at records on their way; by name, `interceptor.classes`, there are only Java's.
    pub interceptors: Interceptors<dyn ProducerInterceptor>,
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
            partitioner: None,
            ignore_keys: false,
            adaptive_partitioning: true,
            partition_availability_timeout: Duration::ZERO,
            retries: i32::MAX as u32,
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
            interceptors: Interceptors::default(),
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
        if let Some(name) = properties.get("partitioner.class") {
            config.partitioner = Some(parse_partitioner(name)?);
        }
        read(properties, "partitioner.ignore.keys", &mut config.ignore_keys)?;
        let adaptive = &mut config.adaptive_partitioning;
        read(properties, "partitioner.adaptive.partitioning.enable", adaptive)?;
        let timeout = &mut config.partition_availability_timeout;
        read_ms(properties, "partitioner.availability.timeout.ms", timeout)?;
        read(properties, "retries", &mut config.retries)?;
        config.transactional_id = properties.get("transactional.id").map(str::to_owned);
        read_ms(properties, "transaction.timeout.ms", &mut config.transaction_timeout)?;
        let asked_for = properties.get("enable.idempotence").is_some();
        read(properties, "enable.idempotence", &mut config.idempotence)?;
        config.validate(asked_for)
    }

    /// Checks that the settings fit together, as Kafka's producer does.
    ///
    /// Settings that rule idempotence out switch it off, unless it was asked for by name.
    pub fn validate(mut self, idempotence_asked_for: bool) -> Result<Self> {
        let transactional = self.transactional_id.is_some();
        if transactional && !self.idempotence {
            return Err(Error::config("transactional.id needs enable.idempotence=true"));
        }
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
                Some(needed) if transactional => {
                    return Err(Error::config(format!("transactional.id needs {needed}")));
                }
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

fn parse_partitioner(name: &str) -> Result<Arc<dyn Partitioner>> {
    let simple = name.trim().rsplit('.').next().unwrap_or(name);
    match simple {
        "RoundRobinPartitioner" => Ok(Arc::new(RoundRobinPartitioner::default())),
        _ => Err(Error::config(format!(
            "partitioner.class={name}: expected RoundRobinPartitioner, or ProducerConfig::partitioner \
             in the program"
        ))),
    }
}

fn parse_codec(name: &str) -> Result<Codec> {
    let compression: Compression =
        name.trim().parse().map_err(|error| Error::config(format!("compression.type: {error}")))?;
    Ok(Codec::new(compression))
}

//! The typed settings of share consumers.

use std::str::FromStr;
use std::time::Duration;

use super::Properties;
use super::settings::{read, read_ms};
use crate::error::{Error, Result};

/// Who says what became of records (`share.acknowledgement.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcknowledgementMode {
    /// `implicit`: the next poll or commit accepts what the last poll gave.
    #[default]
    Implicit,
    /// `explicit`: the application, for every record.
    Explicit,
}

impl FromStr for AcknowledgementMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "implicit" => Ok(Self::Implicit),
            "explicit" => Ok(Self::Explicit),
            _ => Err(Error::config(format!(
                "share.acknowledgement.mode={text}: expected implicit or explicit"
            ))),
        }
    }
}

/// How many records a fetch acquires (`share.acquire.mode`, KIP-1206).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcquireMode {
    /// `batch_optimized`: whole batches, even if that makes more than `max.poll.records`.
    #[default]
    BatchOptimized,
    /// `record_limit`: never more than `max.poll.records`.
    RecordLimit,
}

impl AcquireMode {
    /// Returns the number on the wire.
    pub fn code(self) -> i8 {
        match self {
            Self::BatchOptimized => 0,
            Self::RecordLimit => 1,
        }
    }
}

impl FromStr for AcquireMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "batch_optimized" => Ok(Self::BatchOptimized),
            "record_limit" => Ok(Self::RecordLimit),
            _ => Err(Error::config(format!(
                "share.acquire.mode={text}: expected batch_optimized or record_limit"
            ))),
        }
    }
}

/// Settings of a share consumer, with Kafka's defaults. Whether a new group begins at the start or
/// the end is a setting of the group, `share.auto.offset.reset`.
#[derive(Clone, Debug)]
pub struct ShareConsumerConfig {
    /// `group.id`: the share group.
    pub group_id: String,
    /// `share.acknowledgement.mode`: implicit by default.
    pub acknowledgement_mode: AcknowledgementMode,
    /// `share.acquire.mode`: whole batches by default.
    pub acquire_mode: AcquireMode,
    /// `max.poll.records`: how many records one fetch acquires of a broker; 500 by default.
    pub max_poll_records: i32,
    /// `max.poll.interval.ms`: how long the application may work between two polls; five minutes
    /// by default.
    pub max_poll_interval: Duration,
    /// `fetch.min.bytes`: how much brokers wait for before they answer; 1 by default.
    pub fetch_min_bytes: i32,
    /// `fetch.max.bytes`: the most that an answer brings; 50 MiB by default.
    pub fetch_max_bytes: i32,
    /// `fetch.max.wait.ms`: how long brokers wait for `fetch.min.bytes`; half a second by default.
    pub fetch_max_wait: Duration,
    /// `client.rack`; none by default.
    pub rack: Option<String>,
}

impl ShareConsumerConfig {
    /// Makes the default settings of a member of `group_id`.
    pub fn new(group_id: &str) -> Self {
        Self {
            group_id: group_id.to_owned(),
            acknowledgement_mode: AcknowledgementMode::Implicit,
            acquire_mode: AcquireMode::BatchOptimized,
            max_poll_records: 500,
            max_poll_interval: Duration::from_secs(300),
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 << 20,
            fetch_max_wait: Duration::from_millis(500),
            rack: None,
        }
    }

    /// Reads the settings that `properties` names, and takes the defaults for the rest.
    pub fn from_properties(properties: &Properties) -> Result<Self> {
        let group = properties.get("group.id").filter(|group| !group.is_empty());
        let group = group.ok_or_else(|| Error::config("a share consumer needs group.id"))?;
        let mut config = Self::new(group);
        if let Some(mode) = properties.get("share.acknowledgement.mode") {
            config.acknowledgement_mode = mode.parse()?;
        }
        if let Some(mode) = properties.get("share.acquire.mode") {
            config.acquire_mode = mode.parse()?;
        }
        read(properties, "max.poll.records", &mut config.max_poll_records)?;
        if config.max_poll_records < 1 {
            return Err(Error::config("max.poll.records must be at least 1"));
        }
        read_ms(properties, "max.poll.interval.ms", &mut config.max_poll_interval)?;
        read(properties, "fetch.min.bytes", &mut config.fetch_min_bytes)?;
        read(properties, "fetch.max.bytes", &mut config.fetch_max_bytes)?;
        read_ms(properties, "fetch.max.wait.ms", &mut config.fetch_max_wait)?;
        config.rack =
            properties.get("client.rack").filter(|rack| !rack.is_empty()).map(str::to_owned);
        Ok(config)
    }
}

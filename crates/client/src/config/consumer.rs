//! The typed settings of consumers.

use std::str::FromStr;
use std::time::Duration;

use super::Properties;
use super::settings::{read, read_ms};
use crate::error::{Error, Result};
use crate::interceptor::{ConsumerInterceptor, Interceptors};

/// Where a consumer begins when it has no valid position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// `earliest`: with the oldest record.
    Earliest,
    /// `latest`: with the next record to be written.
    Latest,
    /// `by_duration:PT1H` and the like: with records that are so old at most.
    ByDuration(Duration),
    /// `none`: not at all; the consumer reports an error.
    None,
}

impl FromStr for OffsetReset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::config(format!(
                "auto.offset.reset={text}: expected earliest, latest, none or by_duration:P1DT2H"
            ))
        };
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            "none" => Ok(Self::None),
            _ => {
                let duration = text.strip_prefix("by_duration:").ok_or_else(bad)?;
                parse_iso_duration(duration).map(Self::ByDuration).ok_or_else(bad)
            }
        }
    }
}

/// Reads a duration as ISO 8601 and Java write it, for example `P2DT3H4M5.5S`.
fn parse_iso_duration(text: &str) -> Option<Duration> {
    let upper = text.to_ascii_uppercase();
    let (days, time) = match upper.strip_prefix('P')?.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None => (upper.strip_prefix('P')?, ""),
    };
    let mut total = Duration::ZERO;
    let mut found = false;
    for (mut part, mut units) in [(days, &[('D', 86_400.0)][..]), (time, TIME_UNITS)] {
        while !part.is_empty() {
            let end = part.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let number: f64 = part[..end].parse().ok()?;
            let unit = part[end..].chars().next()?;
            // Units come in this order, and each at most once.
            let at = units.iter().position(|(name, _)| *name == unit)?;
            total = total.checked_add(Duration::try_from_secs_f64(number * units[at].1).ok()?)?;
            units = &units[at + 1..];
            part = &part[end + 1..];
            found = true;
        }
    }
    found.then_some(total)
}

const TIME_UNITS: &[(char, f64)] = &[('H', 3600.0), ('M', 60.0), ('S', 1.0)];

/// How a consumer takes part in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// `classic`: members divide partitions among themselves.
    #[default]
    Classic,
    /// `consumer`: the broker divides, and members change over one by one (KIP-848).
    Consumer,
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

/// Settings of a consumer, with Kafka's defaults.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `group.id`: the consumer group; without one only `assign` works and nothing is committed.
    /// None by default.
    pub group_id: Option<String>,
    /// `group.protocol`: classic by default.
    pub group_protocol: GroupProtocol,
    /// `group.remote.assignor`: how the broker is to divide with `group.protocol=consumer`; its
    /// own choice by default.
    pub remote_assignor: Option<String>,
    /// `client.rack`: brokers may offer a replica in the same rack to read from; none by default.
    pub rack: Option<String>,
    /// `group.instance.id`: makes the member static: it may be away for as long as its session holds
    /// without the group dividing anew. None by default.
    pub group_instance_id: Option<String>,
    /// `session.timeout.ms`: silence after which the coordinator drops a member; 45 seconds by
    /// default. With `group.protocol=consumer` the broker decides.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`: 3 seconds by default, and less than the session's time out. With
    /// `group.protocol=consumer` the broker decides.
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`: how long the application may work between two polls before it
    /// loses its membership; five minutes by default.
    pub max_poll_interval: Duration,
    /// `enable.auto.commit`: whether positions are committed from time to time, and at the end; true
    /// by default.
    pub auto_commit: bool,
    /// `auto.commit.interval.ms`: 5 seconds by default.
    pub auto_commit_interval: Duration,
    /// `auto.offset.reset`: where to begin without a valid position; with new records by default.
    pub offset_reset: OffsetReset,
    /// `isolation.level`: whether records of open and aborted transactions are seen; they are by
    /// default.
    pub isolation_level: IsolationLevel,
    /// `fetch.min.bytes`: how much brokers wait for before they answer; 1, whatever there is, by
    /// default.
    pub fetch_min_bytes: i32,
    /// `fetch.max.bytes`: the most that an answer brings; also bounds what all partitions together
    /// have fetched ahead. 50 MiB by default.
    pub fetch_max_bytes: i32,
    /// `fetch.max.wait.ms`: how long brokers wait for `fetch.min.bytes`; half a second by default.
    pub fetch_max_wait: Duration,
    /// `max.partition.fetch.bytes`: the most that an answer brings of a partition; also bounds what is
    /// fetched of it ahead of the application. 1 MiB by default; less is asked for where that is as
    /// fast.
    pub max_partition_fetch_bytes: i32,
    /// `allow.auto.create.topics`: whether asking for a topic may create it, if brokers agree; true by
    /// default.
    pub allow_auto_create_topics: bool,
    /// `exclude.internal.topics`: whether a pattern leaves out the system's own topics; true
    /// by default.
    pub exclude_internal_topics: bool,
    /// `partition.assignment.strategy`, as protocol names in order of preference: `range`,
    /// `roundrobin`, `sticky` and `cooperative-sticky`; the first and the last by default.
    pub assignment_strategy: Vec<String>,
    /// Who looks at records on their way; by name, `interceptor.classes`, there are only Java's.
    pub interceptors: Interceptors<dyn ConsumerInterceptor>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group_id: None,
            group_protocol: GroupProtocol::Classic,
            remote_assignor: None,
            rack: None,
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
            exclude_internal_topics: true,
            assignment_strategy: vec!["range".to_owned(), "cooperative-sticky".to_owned()],
            interceptors: Interceptors::default(),
        }
    }
}

impl ConsumerConfig {
    /// Reads the settings that `properties` names, and takes the defaults for the rest.
    pub fn from_properties(properties: &Properties) -> Result<Self> {
        let mut config = Self {
            group_id: properties.get("group.id").map(str::to_owned),
            group_instance_id: properties.get("group.instance.id").map(str::to_owned),
            remote_assignor: properties.get("group.remote.assignor").map(str::to_owned),
            rack: properties.get("client.rack").filter(|rack| !rack.is_empty()).map(str::to_owned),
            ..Self::default()
        };
        read_ms(properties, "session.timeout.ms", &mut config.session_timeout)?;
        read_ms(properties, "heartbeat.interval.ms", &mut config.heartbeat_interval)?;
        read_ms(properties, "max.poll.interval.ms", &mut config.max_poll_interval)?;
        read(properties, "enable.auto.commit", &mut config.auto_commit)?;
        read_ms(properties, "auto.commit.interval.ms", &mut config.auto_commit_interval)?;
        if let Some(reset) = properties.get("auto.offset.reset") {
            config.offset_reset = reset.trim().parse()?;
        }
        if let Some(protocol) = properties.get("group.protocol") {
            config.group_protocol = match protocol.trim().to_ascii_lowercase().as_str() {
                "classic" => GroupProtocol::Classic,
                "consumer" => GroupProtocol::Consumer,
                _ => {
                    return Err(Error::config(format!(
                        "group.protocol={protocol}: expected classic or consumer"
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
        read(properties, "exclude.internal.topics", &mut config.exclude_internal_topics)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_java_reads_them() {
        for (text, seconds) in [
            ("PT1H", Some(3600.0)),
            ("P1DT2H3M4.5S", Some(93_784.5)),
            ("P7D", Some(604_800.0)),
            ("pt90s", Some(90.0)),
            ("PT", None),
            ("P", None),
            ("1H", None),
            ("PT1M1H", None),
            ("PT-1H", None),
            ("P1H", None),
        ] {
            let read = parse_iso_duration(text).map(|duration| duration.as_secs_f64());
            assert_eq!(read, seconds, "{text}");
        }
    }
}

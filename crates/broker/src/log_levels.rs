//! From which level on each logger writes lines, as Kafka's resources of type BROKER_LOGGER show it.
//!
//! A broker does not know where its log lines go: that is the business of whoever starts it, who may
//! hand it [`LogLevels`]. What is changed by them holds until the broker stops, as in Kafka.

use std::fmt;

/// A level, from silence to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing is written.
    Off,
    /// What somebody has to look at.
    Error,
    /// What may need attention.
    Warn,
    /// What an operator may want to know.
    Info,
    /// Every request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Finds a level that Kafka's brokers take; FATAL is no less than an error here.
    pub fn from_kafka_name(name: &str) -> Option<Self> {
        Some(match name {
            "FATAL" | "ERROR" => Self::Error,
            "WARN" => Self::Warn,
            "INFO" => Self::Info,
            "DEBUG" => Self::Debug,
            "TRACE" => Self::Trace,
            _ => return None,
        })
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "OFF",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        })
    }
}

/// The logger that all others follow unless they are set.
pub const ROOT_LOGGER: &str = "root";

/// A level for a logger; `None` takes back what was set.
pub type LevelChange = (String, Option<LogLevel>);

/// Levels of a process's loggers.
pub trait LogLevels: fmt::Debug + Send + Sync {
    /// The loggers, [`ROOT_LOGGER`] among them, with the levels in force.
    fn all(&self) -> Vec<(String, LogLevel)>;

    /// Reports whether there is such a logger.
    fn knows(&self, logger: &str) -> bool;

    /// Changes levels, all of them or none, and says why not.
    fn change(&self, changes: &[LevelChange]) -> Result<(), String>;
}

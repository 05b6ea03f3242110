//! What is set on single groups, in place of what the broker says for all of them.
//!
//! The driver hands a new map in whenever configs of groups have changed, see
//! [`crate::GroupCoordinator::handle_configs_changed`]. Values are within the broker's bounds
//! already; what is not set follows the broker.

use std::collections::BTreeMap;

use fleuve_protocol::Str;

use crate::settings::{ConsumerSettings, ShareSettings, StreamsSettings};

/// The configs of all groups that have any, by group.
pub type GroupConfigs = BTreeMap<Str, GroupConfig>;

/// The configs of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupConfig {
    /// The keys `consumer.*`.
    pub consumer: Timing<Option<i32>>,
    /// The keys `share.*`.
    pub share: Timing<Option<i32>>,
    /// The keys `streams.*`.
    pub streams: StreamsConfig,
}

/// Periods that every modern protocol has, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing<T> {
    /// `session.timeout.ms`: how long a member may be silent.
    pub session_timeout_ms: T,
    /// `heartbeat.interval.ms`: how often members are told to send heartbeats.
    pub heartbeat_interval_ms: T,
    /// `assignment.interval.ms`: least time between two target assignments.
    pub assignment_interval_ms: T,
}

/// The keys `streams.*` of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamsConfig {
    /// Periods.
    pub timing: Timing<Option<i32>>,
    /// `streams.num.standby.replicas`.
    pub standby_replicas: Option<i32>,
    /// `streams.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: Option<i32>,
}

impl Timing<i32> {
    /// These periods, except for those that are set.
    pub(crate) fn with(self, set: Timing<Option<i32>>) -> Self {
        Self {
            session_timeout_ms: set.session_timeout_ms.unwrap_or(self.session_timeout_ms),
            heartbeat_interval_ms: set.heartbeat_interval_ms.unwrap_or(self.heartbeat_interval_ms),
            assignment_interval_ms: set
                .assignment_interval_ms
                .unwrap_or(self.assignment_interval_ms),
        }
    }

    /// Whether a target assignment may follow one that was made at `last_ms`; both by the wall
    /// clock, zero if the last one is not known.
    pub(crate) fn allows_assignment(&self, last_ms: i64, now_ms: i64) -> bool {
        let interval_ms = i64::from(self.assignment_interval_ms);
        // An interval of zero helps when the wall clock was set far back.
        last_ms == 0 || interval_ms == 0 || now_ms >= last_ms.saturating_add(interval_ms)
    }
}

impl ShareSettings {
    /// What holds for a group.
    pub(crate) fn timing_of(&self, group: &str, configs: &GroupConfigs) -> Timing<i32> {
        configs.get(group).map_or(self.timing, |config| self.timing.with(config.share))
    }
}

impl ConsumerSettings {
    /// What holds for a group.
    pub(crate) fn timing_of(&self, group: &str, configs: &GroupConfigs) -> Timing<i32> {
        configs.get(group).map_or(self.timing, |config| self.timing.with(config.consumer))
    }
}

impl StreamsSettings {
    /// What holds for a group.
    pub(crate) fn of(&self, group: &str, configs: &GroupConfigs) -> Self {
        let Some(StreamsConfig { timing, standby_replicas, initial_rebalance_delay_ms }) =
            configs.get(group).map(|config| config.streams)
        else {
            return *self;
        };
        Self {
            timing: self.timing.with(timing),
            standby_replicas: standby_replicas.unwrap_or(self.standby_replicas),
            initial_rebalance_delay_ms: initial_rebalance_delay_ms
                .unwrap_or(self.initial_rebalance_delay_ms),
            max_size: self.max_size,
        }
    }
}

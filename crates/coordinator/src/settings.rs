//! What an operator may set about groups, under Kafka's names and with Kafka's defaults.
//!
//! The machine never reads configuration itself: whoever starts it fills this struct and may
//! replace it later ([`crate::GroupCoordinator::update_settings`]), because Kafka lets several of
//! these change while running.

use crate::configs::Timing;
use crate::consumer::Assignor;

/// Limits and periods of groups and committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`: shorter session timeouts are refused.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`: longer session timeouts are refused.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for further members.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members that one group may have.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`: length of the text that may accompany a committed offset.
    ///
    /// Kafka counts UTF-16 code units in spite of the name, and so do we.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds: how long an unused offset is kept.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`: how often expired offsets are looked for.
    pub offsets_retention_check_interval_ms: i64,
    /// What holds for consumer groups.
    pub consumer: ConsumerSettings,
    /// What holds for streams groups.
    pub streams: StreamsSettings,
    /// What holds for share groups.
    pub share: ShareSettings,
}

/// Limits and periods of consumer groups, the keys `group.consumer.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// Periods, unless a group has its own.
    pub timing: Timing<i32>,
    /// `group.consumer.max.size`: members that one group may have.
    pub max_size: usize,
    /// `group.consumer.assignors`: what members may ask for; the first is the default.
    pub assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`: which way groups with members may change their protocol.
    pub migration: MigrationPolicy,
    /// `group.consumer.regex.refresh.interval.ms`: how often regular expressions are looked at
    /// again though no topic has changed.
    pub regex_refresh_interval_ms: i32,
}

/// Which way a group with members may change between the classic and the consumer protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Both ways.
    #[default]
    Bidirectional,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    /// Neither way; and members of the classic protocol stay out of consumer groups.
    Disabled,
}

impl MigrationPolicy {
    /// The policy of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let named = [
            ("bidirectional", Self::Bidirectional),
            ("upgrade", Self::Upgrade),
            ("downgrade", Self::Downgrade),
            ("disabled", Self::Disabled),
        ];
        named.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, it)| it)
    }

    /// Whether a classic group may become a consumer group.
    pub(crate) fn allows_upgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    /// Whether a consumer group may become a classic group.
    pub(crate) fn allows_downgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

/// Limits and periods of streams groups, the keys `group.streams.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsSettings {
    /// Periods, unless a group has its own.
    pub timing: Timing<i32>,
    /// `group.streams.max.size`: members that one group may have.
    pub max_size: usize,
    /// `group.streams.num.standby.replicas`: copies that are kept of each task's state.
    pub standby_replicas: i32,
    /// `group.streams.initial.rebalance.delay.ms`: how long an empty group waits for further
    /// members before it hands out tasks.
    pub initial_rebalance_delay_ms: i32,
}

/// Kafka's periods of the modern protocols.
const DEFAULT_TIMING: Timing<i32> = Timing {
    session_timeout_ms: 45_000,
    heartbeat_interval_ms: 5_000,
    assignment_interval_ms: 1_000,
};

/// Limits and periods of share groups, the keys `group.share.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareSettings {
    /// Periods, unless a group has its own.
    pub timing: Timing<i32>,
    /// `group.share.max.size`: members that one group may have.
    pub max_size: usize,
    /// `group.share.initialize.retry.interval.ms`: how long to wait for the state of a
    /// share-partition before it is asked for again.
    pub initialize_retry_interval_ms: i32,
}

impl Default for ShareSettings {
    fn default() -> Self {
        Self { timing: DEFAULT_TIMING, max_size: 200, initialize_retry_interval_ms: 30_000 }
    }
}

impl ConsumerSettings {
    /// The assignor of groups whose members do not care.
    pub fn default_assignor(&self) -> Assignor {
        self.assignors.first().copied().unwrap_or(Assignor::Uniform)
    }
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            timing: DEFAULT_TIMING,
            max_size: i32::MAX as usize,
            assignors: vec![Assignor::Uniform, Assignor::Range],
            migration: MigrationPolicy::default(),
            regex_refresh_interval_ms: 600_000,
        }
    }
}

impl Default for StreamsSettings {
    fn default() -> Self {
        Self {
            timing: DEFAULT_TIMING,
            max_size: i32::MAX as usize,
            standby_replicas: 0,
            initial_rebalance_delay_ms: 3_000,
        }
    }
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX as usize,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            consumer: ConsumerSettings::default(),
            streams: StreamsSettings::default(),
            share: ShareSettings::default(),
        }
    }
}

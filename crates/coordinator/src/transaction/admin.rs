//! DescribeTransactions and ListTransactions.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_types::{ProducerId, TimestampMs, TopicPartition};
use regex::{Regex, RegexBuilder};

use super::coordinator::TransactionCoordinator;
use super::error::TransactionError;
use super::metadata::{Producer, Transaction};
use super::state::State;
use crate::step::Now;

/// Most bytes that a compiled pattern may take up.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What an administrator may know of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What the id is doing.
    pub state: State,
    /// The producer that may use it.
    pub producer: Producer,
    /// How long its transactions may stay open.
    pub timeout_ms: i32,
    /// When the transaction began, or -1.
    pub start_timestamp: TimestampMs,
    /// Partitions of the transaction; once it is decided, those that have no marker yet.
    pub partitions: BTreeSet<TopicPartition>,
}

/// An entry of ListTransactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The transactional id.
    pub transactional_id: Str,
    /// The producer id.
    pub producer_id: ProducerId,
    /// What the id is doing.
    pub state: State,
}

/// All transactional ids of a shard as metrics see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Number of ids in each state.
    pub states: BTreeMap<State, usize>,
    /// When the oldest open transaction began.
    pub oldest_open: Option<TimestampMs>,
    /// Partitions whose markers are on their way.
    pub markers_awaited: usize,
    /// Transactions with all their markers whose end is yet to be stored.
    pub ends_awaited: usize,
}

/// Which transactional ids to list. The same filter serves all shards of a request.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    producer_ids: BTreeSet<ProducerId>,
    /// Known states that were asked for; none when any will do.
    states: Option<BTreeSet<State>>,
    unknown_states: Vec<Str>,
    /// Whether only transactions older than this are wanted.
    duration_ms: Option<i64>,
    pattern: Option<Regex>,
}

/// Why a pattern for transactional ids cannot be used: `INVALID_REGULAR_EXPRESSION`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transaction ID pattern `{pattern}` is not a valid regular expression: {reason}")]
pub struct InvalidPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ListFilter {
    /// Reads the filter of a request: empty lists, a negative duration and an absent or empty
    /// pattern exclude nothing.
    pub fn new(
        states: &[Str],
        producer_ids: &[i64],
        duration_ms: i64,
        pattern: Option<&str>,
    ) -> Result<Self, InvalidPattern> {
        let known = states.iter().filter_map(|name| State::from_name(name)).collect();
        let is_unknown = |name: &&Str| State::from_name(name).is_none();
        Ok(Self {
            producer_ids: producer_ids.iter().copied().map(ProducerId).collect(),
            states: (!states.is_empty()).then_some(known),
            unknown_states: states.iter().filter(is_unknown).cloned().collect(),
            duration_ms: (duration_ms >= 0).then_some(duration_ms),
            pattern: pattern.filter(|text| !text.is_empty()).map(whole_match).transpose()?,
        })
    }

    /// State names that mean nothing to us, to be returned with the list.
    pub fn unknown_states(&self) -> &[Str] {
        &self.unknown_states
    }

    fn admits(&self, id: &str, known: &Transaction, now: Now) -> bool {
        // An id without a transaction began at -1 and is older than any duration, as in Kafka.
        let age_ms = now.wall.0.saturating_sub(known.start_timestamp.0);
        (self.producer_ids.is_empty() || self.producer_ids.contains(&known.producer.id))
            && self.states.as_ref().is_none_or(|states| states.contains(&known.state))
            && self.duration_ms.is_none_or(|duration_ms| age_ms > duration_ms)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
    }
}

impl TransactionCoordinator {
    /// Handles DescribeTransactions for one transactional id.
    pub fn describe(&self, transactional_id: &str) -> Result<Description, TransactionError> {
        self.check_id(transactional_id)?;
        let known =
            self.ledger.get(transactional_id).ok_or(TransactionError::TransactionalIdNotFound)?;
        Ok(Description {
            state: known.state,
            producer: known.producer,
            timeout_ms: known.timeout_ms,
            start_timestamp: known.start_timestamp,
            partitions: self.awaited(transactional_id).unwrap_or(&known.partitions).clone(),
        })
    }

    /// Shows all ids at once.
    pub fn overview(&self) -> Overview {
        let mut overview = Overview::default();
        for (id, known) in self.ledger.transactions() {
            *overview.states.entry(known.state).or_default() += 1;
            match known.state {
                State::Ongoing => {
                    let began = known.start_timestamp;
                    let oldest = overview.oldest_open.get_or_insert(began);
                    *oldest = (*oldest).min(began);
                }
                State::PrepareCommit | State::PrepareAbort => {
                    let awaited = self.awaited(id).unwrap_or(&known.partitions).len();
                    overview.markers_awaited += awaited;
                    overview.ends_awaited += usize::from(awaited == 0);
                }
                _ => {}
            }
        }
        overview
    }

    /// Handles ListTransactions, as far as this shard is concerned.
    pub fn list(&self, now: Now, filter: &ListFilter) -> Result<Vec<Listing>, TransactionError> {
        self.check_serving()?;
        let admitted =
            self.ledger.transactions().filter(|(id, known)| filter.admits(id, known, now));
        Ok(admitted
            .map(|(id, known)| Listing {
                transactional_id: id.clone(),
                producer_id: known.producer.id,
                state: known.state,
            })
            .collect())
    }
}

/// Compiles a pattern that has to match the whole id.
fn whole_match(pattern: &str) -> Result<Regex, InvalidPattern> {
    let invalid = |error: regex::Error| InvalidPattern {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    };
    let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
    // By itself first, as `a)(b` would become valid between parentheses.
    build(pattern).map_err(invalid)?;
    build(&format!(r"\A(?:{pattern})\z")).map_err(invalid)
}

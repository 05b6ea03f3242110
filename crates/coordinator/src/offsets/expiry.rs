//! Which offsets are no longer needed, and which groups.
//!
//! | group | an offset ends |
//! |---|---|
//! | without members | `offsets.retention.minutes` after the last member went |
//! | stable, of consumers | so long after its commit, unless its topic is subscribed to |
//! | stable, of others, or rebalancing | never: who knows what they still need |
//! | never had members | so long after its commit |
//! | of the consumer or streams protocol | so long after its commit, unless its topic is subscribed to |
//!
//! An offset with an expiry time of its own, from OffsetCommit v2 to v4, ends at that time instead.
//! A group without members goes with its last offset. Neither goes while a transaction is open that
//! has committed offsets of the partition, or of the group.

use fleuve_protocol::Str;
use fleuve_types::TimestampMs;

use crate::classic::{ClassicGroup, State};
use crate::consumer::{self, ConsumerGroup};
use crate::coordinator::{Group, GroupCoordinator};
use crate::ledger::CommittedOffset;
use crate::record::Record;
use crate::step::{Now, Step};
use crate::streams::{self, StreamsGroup};

impl GroupCoordinator {
    /// Asks for the tombstones of all offsets and groups whose time is up.
    pub(crate) fn expire_offsets(&mut self, now: Now, step: &mut Step) {
        let mut records = Vec::new();
        let mut offsets_expired = 0;
        for (id, group) in &self.groups {
            let group = match group {
                Group::Classic(group) => Expiring::Classic(group),
                // Without offsets there is nothing to expire; the group stays until it is deleted.
                Group::Share(_) => continue,
                Group::Consumer(_) => match self.ledger().consumer_group(id) {
                    Some(group) => Expiring::Consumer(group),
                    None => continue,
                },
                Group::Streams(_) => match self.ledger().streams_group(id) {
                    Some(group) => Expiring::Streams(group),
                    None => continue,
                },
            };
            let before = records.len();
            let all_expired = self.expire_offsets_of(now, id, group, &mut records);
            offsets_expired += records.len() - before;
            match group {
                Expiring::Classic(group) if all_expired && group.state() == State::Empty => {
                    records.push(Record::group_tombstone(id));
                }
                Expiring::Consumer(group) if all_expired && group.members().is_empty() => {
                    records.extend(consumer::group_tombstones(id, group));
                }
                Expiring::Streams(group) if all_expired && group.members().is_empty() => {
                    records.extend(streams::group_tombstones(id));
                }
                Expiring::Classic(_) | Expiring::Consumer(_) | Expiring::Streams(_) => {}
            }
        }
        self.counters.offsets_expired += offsets_expired as u64;
        step.write_in_chunks(records);
    }

    /// Collects the tombstones of a group's expired offsets; says whether none are left then.
    fn expire_offsets_of(
        &self,
        now: Now,
        id: &Str,
        group: Expiring<'_>,
        records: &mut Vec<Record>,
    ) -> bool {
        let pending = self.ledger().pending();
        let has_open_transaction = pending.has_group(id);
        let Some(topics) = self.ledger().offsets_of(id) else { return !has_open_transaction };
        let Some(rule) = Rule::of(group) else { return false };
        let retention_ms = self.settings.offsets_retention_ms;
        let mut all_expired = !has_open_transaction;
        for (topic, partitions) in topics {
            let is_subscribed = group.is_subscribed_to(topic);
            for (partition, offset) in partitions {
                let is_pending = has_open_transaction && pending.contains(id, topic, *partition);
                let is_expired = rule.is_expired(offset, now.wall, retention_ms);
                if is_expired && !is_subscribed && !is_pending {
                    records.push(Record::offset_tombstone(id, topic, *partition));
                } else {
                    all_expired = false;
                }
            }
        }
        all_expired
    }
}

/// A group whose offsets may expire.
#[derive(Clone, Copy)]
enum Expiring<'a> {
    Classic(&'a ClassicGroup),
    Consumer(&'a ConsumerGroup),
    Streams(&'a StreamsGroup),
}

impl Expiring<'_> {
    fn is_subscribed_to(self, topic: &str) -> bool {
        match self {
            Self::Classic(group) => group.is_subscribed_to(topic),
            Self::Consumer(group) => group.is_subscribed_to(topic),
            Self::Streams(group) => group.is_subscribed_to(topic),
        }
    }
}

/// What the retention time of an offset is counted from.
enum Rule {
    SinceCommit,
    SinceEmpty(TimestampMs),
}

impl Rule {
    /// The rule for the group's offsets; none while they may not expire.
    fn of(group: Expiring<'_>) -> Option<Self> {
        let Expiring::Classic(group) = group else { return Some(Self::SinceCommit) };
        if group.protocol_type().is_none() {
            return Some(Self::SinceCommit);
        }
        match group.state() {
            // Records from before version 2 do not say since when the group is empty.
            State::Empty => Some(group.state_since().map_or(Self::SinceCommit, Self::SinceEmpty)),
            State::Stable if group.is_of_consumers() && group.knows_subscriptions() => {
                Some(Self::SinceCommit)
            }
            _ => None,
        }
    }

    fn is_expired(&self, offset: &CommittedOffset, now: TimestampMs, retention_ms: i64) -> bool {
        if let Some(end) = offset.expire_timestamp {
            return now >= end;
        }
        let begin = match self {
            Self::SinceCommit => offset.commit_timestamp,
            Self::SinceEmpty(at) => *at,
        };
        now.0.saturating_sub(begin.0) >= retention_ms
    }
}

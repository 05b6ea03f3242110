//! The deadlines of all groups of a shard, in order.
//!
//! Each purpose has at most one deadline: scheduling it again moves it. Finding the next deadline,
//! moving one and firing those that are due all cost a logarithm of the number of timers, so that
//! thousands of heartbeating members stay cheap.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;

/// What a deadline is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Members had until now to rejoin, or an empty group to gather its first members.
    Join { group: Str },
    /// Members had until now to ask for their assignment.
    Sync { group: Str },
    /// The member had until now to show that it lives.
    Heartbeat { group: Str, member: Str },
    /// The classic member of a consumer group had until now to join again.
    MemberJoin { group: Str, member: Str },
    /// The classic member of a consumer group had until now to ask for its assignment.
    MemberSync { group: Str, member: Str },
    /// The time for the first members of a streams group to join is over.
    InitialAssignment { group: Str },
    /// The member of a modern group had until now to give up what others are to have.
    Revocation { group: Str, member: Str },
    /// Expired offsets are to be looked for.
    Expiration,
}

/// Deadlines by purpose, on the monotonic clock in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_purpose: BTreeMap<Purpose, i64>,
    in_order: BTreeSet<(i64, Purpose)>,
}

impl Timers {
    /// Sets or moves the deadline of `purpose`.
    pub(crate) fn schedule(&mut self, purpose: Purpose, deadline_ms: i64) {
        if let Some(old) = self.by_purpose.insert(purpose.clone(), deadline_ms) {
            if old == deadline_ms {
                return;
            }
            let mut key = (old, purpose);
            self.in_order.remove(&key);
            key.0 = deadline_ms;
            self.in_order.insert(key);
        } else {
            self.in_order.insert((deadline_ms, purpose));
        }
    }

    /// Whether `purpose` has a deadline.
    pub(crate) fn is_scheduled(&self, purpose: &Purpose) -> bool {
        self.by_purpose.contains_key(purpose)
    }

    /// Forgets the deadline of `purpose`, if it has one.
    pub(crate) fn cancel(&mut self, purpose: Purpose) {
        if let Some(deadline) = self.by_purpose.remove(&purpose) {
            self.in_order.remove(&(deadline, purpose));
        }
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.in_order.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out the earliest purpose whose deadline has been reached.
    pub(crate) fn pop_due(&mut self, now_ms: i64) -> Option<Purpose> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let (_, purpose) = self.in_order.pop_first()?;
        self.by_purpose.remove(&purpose);
        Some(purpose)
    }

    /// Forgets every deadline.
    pub(crate) fn clear(&mut self) {
        self.by_purpose.clear();
        self.in_order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(member: &'static str) -> Purpose {
        Purpose::Heartbeat { group: "g".into(), member: member.into() }
    }

    #[test]
    fn fires_in_order_and_only_when_due() {
        let mut timers = Timers::default();
        timers.schedule(heartbeat("b"), 20);
        timers.schedule(heartbeat("a"), 10);
        timers.schedule(Purpose::Expiration, 30);
        assert_eq!(timers.next_deadline_ms(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(20), Some(heartbeat("a")));
        assert_eq!(timers.pop_due(20), Some(heartbeat("b")));
        assert_eq!(timers.pop_due(20), None);
    }

    #[test]
    fn rescheduling_moves_and_cancelling_forgets() {
        let mut timers = Timers::default();
        timers.schedule(heartbeat("a"), 10);
        timers.schedule(heartbeat("a"), 50);
        assert_eq!(timers.pop_due(10), None);
        assert_eq!(timers.next_deadline_ms(), Some(50));
        timers.cancel(heartbeat("a"));
        assert_eq!(timers.next_deadline_ms(), None);
        assert_eq!(timers.pop_due(100), None);
    }
}

//! What is remembered of a group of a modern protocol beside its records.
//!
//! All of it is soft: a restart loses it, and nothing but the moment at which a heartbeat looks at
//! the topics again depends on it.

use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_types::Offset;

use crate::history::{History, Rebalance, RebalanceCause};
use crate::migration::Migration;
use crate::step::{Now, Response, Token};
use crate::streams::Configured;

/// Delay before a member is removed whose removal the log did not take.
pub(crate) const FENCE_RETRY_MS: i64 = 500;

/// The soft side of a group.
#[derive(Debug, Default)]
pub(crate) struct Companion {
    pub(crate) history: History,
    /// The view that the group's hash was last compared with.
    pub(crate) checked: Option<i64>,
    /// The view that its regular expressions were last resolved with, and when that was.
    pub(crate) resolved: Option<(i64, i64)>,
    /// One past the group's last record in the log; replies that tell its content wait for it.
    pub(crate) stored_until: Option<Offset>,
    /// Of a share group: since when states of share-partitions are waited for.
    pub(crate) initializing_since_ms: Option<i64>,
}

/// What follows when the records of a decision are in the log, or turn out not to be.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    pub(crate) group: Str,
    pub(crate) reply: Option<(Token, Response)>,
    /// The rebalance that the records begin.
    pub(crate) rebalance: Option<Rebalance>,
    /// Members whose removal is tried again if the records are lost.
    pub(crate) gone: Vec<Str>,
    /// The member whose place another took, and whose timers end with that.
    pub(crate) replaced: Option<Str>,
    /// What the decision looked at.
    pub(crate) looked_at: LookedAt,
    /// The change of a group's protocol that the records bring about.
    pub(crate) migration: Option<Migration>,
    /// The topology of a streams group, as the decision held it against the topics.
    pub(crate) configured: Option<Arc<Configured>>,
}

/// The views of the topics that a decision rests on, where it looked at them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookedAt {
    pub(crate) checked: Option<i64>,
    pub(crate) resolved: Option<(i64, i64)>,
}

impl Companion {
    /// The companion of a group whose first records have just been stored.
    pub(crate) fn stored(until: Offset) -> Self {
        Self { stored_until: Some(until), ..Self::default() }
    }

    /// Notes what a decision, now in the log, was about.
    pub(crate) fn note(&mut self, aftermath: &mut Aftermath) {
        if let Some(rebalance) = aftermath.rebalance.take() {
            self.history.push(rebalance);
        }
        self.look(aftermath.looked_at);
    }

    pub(crate) fn look(&mut self, looked_at: LookedAt) {
        self.checked = looked_at.checked.or(self.checked);
        self.resolved = looked_at.resolved.or(self.resolved);
    }
}

/// Describes a rebalance that ends `epoch`.
pub(crate) fn rebalance(
    now: Now,
    epoch: i32,
    cause: RebalanceCause,
    member: Option<&Str>,
) -> Rebalance {
    Rebalance {
        at: now.wall,
        generation: epoch,
        cause,
        member: member.map(Str::detach),
        client_reason: None,
    }
}

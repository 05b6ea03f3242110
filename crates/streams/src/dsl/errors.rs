//! What a program does about records that fail: one policy for what cannot be read, processed or written.

use std::time::Duration;

use super::Topology;
use crate::error::Cause;

/// What to do with a record that cannot be read, processed or written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// Stop the task; the record is tried again when the program starts again.
    #[default]
    Fail,
    /// Leave the record out and count it.
    Skip,
    /// Send the input record to this topic, with the cause in its headers, and go on. The topic must exist.
    DeadLetter(String),
    /// Try again a few times, and then do something else. Made by [`ErrorPolicy::retry`].
    Retry(Retry),
}

/// Attempts at a record that failed. The task stands still between them, its thread does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often a record is tried again.
    pub(crate) attempts: u32,
    /// The pause before the first attempt; each further one is twice as long.
    pub(crate) backoff_ms: i64,
    /// What to do once no attempt is left. Never another retry.
    pub(crate) finally: Box<ErrorPolicy>,
}

impl ErrorPolicy {
    /// Tries a record again up to `attempts` times, after a pause that begins with `backoff` and doubles each time, up
    /// to a minute; then fails, or does what [`Self::or`] says.
    ///
    /// Only the operator that failed runs again, on the same record; what it did before its error it does once more.
    /// The task takes no further record meanwhile, so that order is kept, and commits nothing of this one.
    pub fn retry(attempts: u32, backoff: Duration) -> Self {
        let backoff_ms = i64::try_from(backoff.as_millis()).unwrap_or(i64::MAX).min(BACKOFF_MS_MAX);
        Self::Retry(Retry { attempts, backoff_ms, finally: Box::new(Self::Fail) })
    }

    /// What to do when every attempt has failed. Any other policy than a retry stays as it is.
    pub fn or(self, policy: Self) -> Self {
        match self {
            Self::Retry(retry) => {
                let finally = Box::new(policy.without_attempts().clone());
                Self::Retry(Retry { finally, ..retry })
            }
            other => other,
        }
    }

    /// The policy where there is nothing to try again, or no attempt left.
    pub(crate) fn without_attempts(&self) -> &Self {
        match self {
            Self::Retry(retry) => retry.finally.without_attempts(),
            other => other,
        }
    }

    /// The attempts it allows.
    pub(crate) fn attempts(&self) -> Option<&Retry> {
        match self {
            Self::Retry(retry) if retry.attempts > 0 => Some(retry),
            _ => None,
        }
    }

    /// The dead-letter topic, if it ends in one.
    pub(crate) fn dead_letters(&self) -> Option<&str> {
        match self.without_attempts() {
            Self::DeadLetter(topic) => Some(topic),
            _ => None,
        }
    }
}

impl Retry {
    /// The pause after this many failed attempts.
    pub(crate) fn pause_ms(&self, failed: u32) -> i64 {
        let doubled = failed.saturating_sub(1).min(32);
        self.backoff_ms.saturating_mul(1 << doubled).min(BACKOFF_MS_MAX)
    }
}

/// The policies of a program, by what a record fails at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) reading: ErrorPolicy,
    pub(crate) processing: ErrorPolicy,
    pub(crate) writing: ErrorPolicy,
}

impl Policies {
    pub(crate) fn of(&self, stage: Stage) -> &ErrorPolicy {
        match stage {
            Stage::Reading => &self.reading,
            Stage::Processing => &self.processing,
            Stage::Writing => &self.writing,
        }
    }

    /// The policy for a failure. A store that fails is no record's fault: nothing but stopping helps.
    pub(crate) fn for_cause(&self, cause: &Cause) -> &ErrorPolicy {
        match cause {
            Cause::Deserialize(_) => &self.reading,
            Cause::User(_) | Cause::Rejected(_) => &self.processing,
            Cause::Serialize(_) | Cause::Produce(_) => &self.writing,
            Cause::Store(_) => &ErrorPolicy::Fail,
        }
    }

    /// All topics that dead letters go to.
    pub(crate) fn dead_letter_topics(&self) -> impl Iterator<Item = &str> {
        [&self.reading, &self.processing, &self.writing]
            .into_iter()
            .filter_map(|policy| policy.dead_letters())
    }
}

/// What a record may fail at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Reading,
    Processing,
    Writing,
}

impl Topology {
    /// Says what to do with records that fail, for the whole program. The default is [`ErrorPolicy::Fail`].
    pub fn on_error(&self, policy: ErrorPolicy) -> &Self {
        self.on_unreadable(policy.clone()).on_unprocessable(policy.clone()).on_unwritable(policy)
    }

    /// Says what to do with records whose bytes cannot be read (Kafka Streams' deserialization exception handler), also
    /// those of global tables.
    pub fn on_unreadable(&self, policy: ErrorPolicy) -> &Self {
        self.graph.lock().policies.reading = policy;
        self
    }

    /// Says what to do with records for which an operator returned an error (its processing exception handler).
    pub fn on_unprocessable(&self, policy: ErrorPolicy) -> &Self {
        self.graph.lock().policies.processing = policy;
        self
    }

    /// Says what to do with records that cannot be serialized or that the cluster refuses (its production exception
    /// handler). Changelogs are not a matter of policy: what cannot be written there stops the task.
    pub fn on_unwritable(&self, policy: ErrorPolicy) -> &Self {
        self.graph.lock().policies.writing = policy;
        self
    }
}

/// The longest pause before another attempt.
const BACKOFF_MS_MAX: i64 = 60_000;

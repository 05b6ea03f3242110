//! Operators that may fail, under the program's error policy.
//!
//! Where the policy allows attempts, a record that failed waits in its operator with everything that comes after it,
//! and the task takes no further input until it has been dealt with. Everywhere else an operator costs nothing more.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::dsl::{Retry, Stage};
use crate::error::Cause;
use crate::record::{Data, Record};
use crate::runtime::{Assembly, Cx, Deferring, Down, Origin, Problem};
use crate::topology::NodeId;

/// An operator that may fail at a record.
pub(crate) trait Attempt<K, V>: Send {
    /// Processes the record, or says why it could not.
    fn attempt(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Failure>;
}

/// Where a record failed.
pub(crate) enum Failure {
    /// In the operator itself: a matter of the policy.
    Here(Cause),
    /// Further down, where the policy has been applied already.
    Below(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Below(problem)
    }
}

/// The operator under the policy for its stage.
pub(crate) fn guarded<K: Data, V: Data>(
    assembly: &mut Assembly<'_>,
    id: NodeId,
    stage: Stage,
    operator: impl Attempt<K, V> + 'static,
) -> Box<dyn Down<K, V>> {
    let node = assembly.name(id);
    let Some(retry) = assembly.plan.policies.of(stage).attempts().cloned() else {
        return Box::new(Unguarded { node, operator });
    };
    let guard = Arc::new(Mutex::new(Guard { node, operator, retry, waiting: VecDeque::new() }));
    assembly.add_deferring(guard.clone());
    Box::new(Handle(guard))
}

/// An operator whose records are not tried again.
struct Unguarded<A> {
    node: Arc<str>,
    operator: A,
}

impl<K: Data, V: Data, A: Attempt<K, V>> Down<K, V> for Unguarded<A> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        match self.operator.attempt(record, cx) {
            Ok(()) => Ok(()),
            Err(Failure::Here(cause)) => cx.absorb(Problem::new(&self.node, cause)),
            Err(Failure::Below(problem)) => Err(problem),
        }
    }
}

/// An operator whose records are tried again.
struct Guard<K, V, A> {
    node: Arc<str>,
    operator: A,
    retry: Retry,
    /// The record that failed, and those behind it.
    waiting: VecDeque<Held<K, V>>,
}

/// A record that waits, as part of the input record that it came from.
struct Held<K, V> {
    record: Record<K, V>,
    input: Input,
    /// How often it failed.
    failed: u32,
    due_ms: i64,
}

/// The input record that something came from.
pub(crate) struct Input {
    origin: Origin,
    raw: (Option<Bytes>, Option<Bytes>),
}

impl Input {
    /// The one that is being processed.
    pub(crate) fn of(cx: &Cx) -> Self {
        Self { origin: cx.origin.clone(), raw: cx.raw.clone() }
    }

    /// Where it stands.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes it the one that is being processed.
    pub(crate) fn resume(&self, cx: &mut Cx) {
        cx.origin = self.origin.clone();
        cx.raw = self.raw.clone();
    }
}

impl<K: Data, V: Data, A: Attempt<K, V>> Guard<K, V, A> {
    fn take(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        let (failed, due_ms) = if self.waiting.is_empty() {
            match self.operator.attempt(record.clone(), cx) {
                Ok(()) => return Ok(()),
                Err(Failure::Below(problem)) => return Err(problem),
                Err(Failure::Here(cause)) => {
                    self.tell(&cause, 1);
                    (1, cx.now_ms + self.retry.pause_ms(1))
                }
            }
        } else {
            (0, cx.now_ms)
        };
        self.waiting.push_back(Held { record, input: Input::of(cx), failed, due_ms });
        Ok(())
    }

    fn tell(&self, cause: &Cause, failed: u32) {
        tracing::warn!(node = %self.node, %cause, failed, "record failed, trying again");
    }
}

impl<K: Data, V: Data, A: Attempt<K, V>> Deferring for Guard<K, V, A> {
    fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    fn holds(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn due_ms(&self) -> Option<i64> {
        self.waiting.front().map(|held| held.due_ms)
    }

    fn resume(&mut self, _: bool, cx: &mut Cx) -> Result<(), Problem> {
        while let Some(held) = self.waiting.front_mut().filter(|held| held.due_ms <= cx.now_ms) {
            held.input.resume(cx);
            match self.operator.attempt(held.record.clone(), cx) {
                Ok(()) => {}
                Err(Failure::Below(problem)) => return Err(problem),
                Err(Failure::Here(cause)) => {
                    held.failed += 1;
                    let failed = held.failed;
                    if failed <= self.retry.attempts {
                        held.due_ms = cx.now_ms + self.retry.pause_ms(failed);
                        self.tell(&cause, failed);
                        return Ok(());
                    }
                    cx.give_up(&self.retry.finally, Problem::new(&self.node, cause))?;
                }
            }
            self.waiting.pop_front();
        }
        Ok(())
    }
}

/// A guarded operator in the tree of its parent; the task has another.
struct Handle<K, V, A>(Arc<Mutex<Guard<K, V, A>>>);

impl<K: Data, V: Data, A: Attempt<K, V>> Down<K, V> for Handle<K, V, A> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        self.0.lock().take(record, cx)
    }
}

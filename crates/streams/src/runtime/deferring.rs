//! Operators that keep a record for a while before they send it on: to try it again, to wait for an answer, to fill a
//! batch.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Cx, Problem};

/// An operator that may hold records when a call of it ends.
pub(crate) trait Deferring: Send {
    /// Whether everything it took has been dealt with, so that the task's position may be committed.
    fn is_settled(&self) -> bool;

    /// Whether the task must not process further records for now.
    fn holds(&self) -> bool;

    /// When [`Self::resume`] has something to do at the latest, by the time of day. What finishes by itself rings the
    /// task's waker instead.
    fn due_ms(&self) -> Option<i64>;

    /// Goes on with what it holds. Before a commit it is told to finish, and gives out what it would keep otherwise.
    fn resume(&mut self, finishing: bool, cx: &mut Cx) -> Result<(), Problem>;
}

/// The task's part of a deferring operator.
pub(crate) type SharedDeferring = Arc<Mutex<dyn Deferring>>;

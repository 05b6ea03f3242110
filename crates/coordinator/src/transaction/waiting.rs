//! Additions of partitions that wait until an earlier change of their transactional id is over.

use fleuve_protocol::Str;

use super::coordinator::TransactionCoordinator;
use super::partitions::AddPartitionsRequest;
use super::step::Step;
use crate::step::{Now, Token};

/// Most requests that wait for one transactional id; those beyond are answered at once.
const WAITING_MAX: usize = 64;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    token: Token,
    deadline_ms: i64,
    request: AddPartitionsRequest,
}

impl TransactionCoordinator {
    /// Lets a request wait, if it may; says whether it does.
    pub(crate) fn wait(&mut self, now: Now, token: Token, request: &AddPartitionsRequest) -> bool {
        let wait_ms = self.settings.add_partitions_wait_ms;
        // Whoever asks about an id that is only just being made knows it from elsewhere.
        if wait_ms <= 0 || self.known(&request.transactional_id).is_err() {
            return false;
        }
        let id = request.transactional_id.detach();
        let Some(progress) = self.progress.get_mut(&id) else { return false };
        if progress.waiting.len() >= WAITING_MAX {
            return false;
        }
        let deadline_ms = now.monotonic_ms.saturating_add(wait_ms);
        let request = AddPartitionsRequest { transactional_id: id.clone(), ..request.clone() };
        progress.waiting.push_back(Waiting { token, deadline_ms, request });
        self.waits.insert((deadline_ms, id, token));
        true
    }

    /// A change of the id is over, one way or the other: who waits for that goes on, until one of
    /// them begins another change.
    pub(crate) fn wake(&mut self, now: Now, id: &Str, step: &mut Step) {
        while !self.is_pending(id)
            && let Some(progress) = self.progress.get_mut(id)
            && let Some(Waiting { token, deadline_ms, request }) = progress.waiting.pop_front()
        {
            self.waits.remove(&(deadline_ms, id.clone(), token));
            self.try_add_partitions(now, token, &request, step);
        }
    }

    /// A request has waited long enough.
    pub(crate) fn wait_is_over(&mut self, now: Now, id: &Str, token: Token, step: &mut Step) {
        let Some(progress) = self.progress.get_mut(id) else { return };
        let index = progress.waiting.iter().position(|waiting| waiting.token == token);
        if let Some(waiting) = index.and_then(|index| progress.waiting.remove(index)) {
            self.try_add_partitions(now, token, &waiting.request, step);
        }
    }

    /// Nobody needs to wait any longer, as the shard serves no more or the id is gone.
    pub(crate) fn dismiss(
        &mut self,
        now: Now,
        waiting: impl IntoIterator<Item = Waiting>,
        step: &mut Step,
    ) {
        for Waiting { token, deadline_ms, request } in waiting {
            self.waits.remove(&(deadline_ms, request.transactional_id.clone(), token));
            self.try_add_partitions(now, token, &request, step);
        }
    }
}

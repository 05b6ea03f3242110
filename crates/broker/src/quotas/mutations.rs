//! Requests that create, grow or delete topics: they pay by the partition (KIP-599).
//!
//! Newer versions of them are strict: a topic is refused while the account is in debt. Older ones
//! know no such refusal, so that their clients only have to wait afterwards.

use std::sync::Arc;

use super::{Client, Kind};
use crate::node::Node;
use crate::request::Context;

/// What one request may change.
pub(crate) struct Mutations {
    node: Arc<Node>,
    client: Option<Client>,
    is_strict: bool,
    wait_ms: i64,
}

impl Mutations {
    /// Begins a request, which is strict from this version on.
    pub(crate) fn begin(context: &Context, strict_from: i16) -> Self {
        Self {
            node: Arc::clone(&context.node),
            client: context.limited_client(),
            is_strict: context.version >= strict_from,
            wait_ms: 0,
        }
    }

    /// Begins a request that is never refused.
    pub(crate) fn begin_permissive(context: &Context) -> Self {
        Self::begin(context, i16::MAX)
    }

    /// Reports whether anybody counts.
    pub(crate) fn are_limited(&self) -> bool {
        self.client.is_some()
    }

    /// Pays for a change of so many partitions, or refuses it.
    pub(crate) fn admit(&mut self, partitions: usize) -> bool {
        let Some(client) = &self.client else { return true };
        let (user, client_id) = (&client.user, &client.client_id);
        let quotas = &self.node.quotas;
        let now_ms = quotas.now_ms();
        let mut ledger = quotas.ledger(Kind::ControllerMutation).lock();
        let drawn = if self.is_strict {
            ledger.draw(user, client_id, partitions as f64, now_ms)
        } else {
            self.wait_ms = ledger.overdraw(user, client_id, partitions as f64, now_ms);
            Ok(())
        };
        if let Err(wait_ms) = drawn {
            self.wait_ms = wait_ms;
        }
        if self.wait_ms > 0 {
            ledger.note_wait(user, client_id, self.wait_ms, now_ms);
        }
        drawn.is_ok()
    }

    /// Lets those of `items` through that can be paid for, and returns the others.
    ///
    /// `partitions` says what each would change, or `None` if it is going to fail anyway.
    pub(crate) fn divide<T>(
        &mut self,
        items: Vec<T>,
        partitions: impl IntoIterator<Item = Option<usize>>,
    ) -> (Vec<T>, Vec<T>) {
        let costs = partitions.into_iter().chain(std::iter::repeat(None));
        let (mut admitted, mut refused) = (Vec::new(), Vec::new());
        for (item, cost) in items.into_iter().zip(costs) {
            let passes = cost.is_none_or(|partitions| self.admit(partitions));
            if passes { &mut admitted } else { &mut refused }.push(item);
        }
        (admitted, refused)
    }

    /// For how long the client must wait, in milliseconds.
    pub(crate) fn wait_ms(&self) -> i32 {
        i32::try_from(self.wait_ms).unwrap_or(i32::MAX)
    }
}

//! The memory that requests of all connections may take up together.
//!
//! A connection charges a large request when its length is known, and keeps it charged until it is
//! answered. While the budget is used up, no connection reads on into another large request; those
//! that have begun go on, and small requests pass always, so that heartbeats and commits are never
//! held up by producers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;

use crate::metrics::Counter;

/// Requests up to this size are not charged.
pub(crate) const SMALL_BYTES_MAX: usize = 64 * 1024;

/// What all connections share.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// `usize::MAX` for no limit.
    limit: AtomicUsize,
    used: AtomicUsize,
    freed: Notify,
    /// How often a connection had to wait.
    pub(crate) waits: Counter,
}

impl Budget {
    /// Makes a budget of so many bytes; `None` for no limit.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Self { limit: AtomicUsize::new(limit), ..Self::default() }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn is_used_up(&self) -> bool {
        self.used() >= self.limit.load(Ordering::Relaxed)
    }
}

/// The part of one connection; given back when dropped.
pub(crate) struct Share {
    budget: Arc<Budget>,
    held: usize,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Share {
    /// Begins with nothing.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), held: 0, wait: None }
    }

    /// Holds so many bytes from now on.
    #[inline]
    pub(crate) fn hold(&mut self, bytes: usize) {
        if bytes > self.held {
            self.budget.used.fetch_add(bytes - self.held, Ordering::Relaxed);
        } else if bytes < self.held {
            self.budget.used.fetch_sub(self.held - bytes, Ordering::Relaxed);
            self.budget.freed.notify_waiters();
        }
        self.held = bytes;
    }

    /// Waits while the budget is used up.
    pub(crate) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.budget.is_used_up() {
            let wait = self.wait.get_or_insert_with(|| {
                self.budget.waits.add(1);
                let budget = Arc::clone(&self.budget);
                Box::pin(async move { budget.freed.notified().await })
            });
            match wait.as_mut().poll(context) {
                Poll::Ready(()) => self.wait = None,
                // It may have been freed before the wait was in line.
                Poll::Pending if self.budget.is_used_up() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        self.wait = None;
        Poll::Ready(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn who_finds_it_used_up_waits_until_something_is_given_back() {
        let budget = Arc::new(Budget::new(Some(100)));
        let (mut first, mut second) = (Share::new(&budget), Share::new(&budget));
        poll_fn(|context| first.poll_room(context)).await;
        first.hold(150);
        let waiting = tokio::spawn(async move {
            poll_fn(|context| second.poll_room(context)).await;
            second.hold(10);
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && budget.waits.get() == 1);
        drop(first);
        waiting.await.expect("woken");
        assert_eq!(budget.used(), 0);
    }
}

//! Requests that wait for a partition to move.
//!
//! A produce request with `acks=all` waits until the high watermark has passed its batches; a
//! fetch waits until enough bytes can be read. Both hang in a list of every partition concerned
//! and are completed by whoever moves the high watermark, never by looking again. What wakes a
//! waiter is a hint: it looks at the partitions itself and may wait again.
//!
//! Waiters whose request timed out or whose connection ended leave fetch lists at once. In the
//! list of acknowledgements they stay until the high watermark passes them, which costs one
//! counter each and saves a search.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many requests wait, for the metrics page.
#[derive(Debug, Default)]
pub(crate) struct Purgatory {
    produce: AtomicUsize,
    fetch: AtomicUsize,
    expired_produce: AtomicUsize,
    expired_fetch: AtomicUsize,
}

/// A produce request that waits for some partitions.
#[derive(Debug)]
pub(crate) struct AckWait {
    outstanding: AtomicUsize,
    done: Notify,
    purgatory: Arc<Purgatory>,
}

/// A fetch that waits for bytes.
#[derive(Debug)]
pub(crate) struct FetchWait {
    missing_bytes: AtomicI64,
    woken: Notify,
    purgatory: Arc<Purgatory>,
}

/// Those who wait for one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    /// In the order of the offsets waited for, because appends happen in that order.
    acks: VecDeque<(i64, Arc<AckWait>)>,
    fetches: HashMap<u64, Arc<FetchWait>>,
    next_ticket: u64,
}

/// A place in a partition's list of waiting fetches; given up when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    waiters: Arc<Waiters>,
    ticket: u64,
}

impl Purgatory {
    /// Produce requests and fetches that wait now.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.produce.load(Ordering::Relaxed), self.fetch.load(Ordering::Relaxed))
    }

    /// Produce requests and fetches that have waited for their full timeout.
    pub(crate) fn expired(&self) -> (usize, usize) {
        let expired = [&self.expired_produce, &self.expired_fetch];
        let [produce, fetch] = expired.map(|count| count.load(Ordering::Relaxed));
        (produce, fetch)
    }

    /// Counts a produce request that has waited for its full timeout.
    pub(crate) fn note_expired_produce(&self) {
        self.expired_produce.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a fetch that has waited for its full timeout.
    pub(crate) fn note_expired_fetch(&self) {
        self.expired_fetch.fetch_add(1, Ordering::Relaxed);
    }
}

impl AckWait {
    /// Makes a wait for `partitions` partitions.
    pub(crate) fn new(purgatory: &Arc<Purgatory>, partitions: usize) -> Arc<Self> {
        purgatory.produce.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            outstanding: AtomicUsize::new(partitions),
            done: Notify::new(),
            purgatory: Arc::clone(purgatory),
        })
    }

    /// Notes that one partition no longer has to be waited for.
    pub(crate) fn complete_one(&self) {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    /// Waits until no partition is outstanding.
    pub(crate) async fn done(&self) {
        while self.outstanding.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
    }
}

impl Drop for AckWait {
    fn drop(&mut self) {
        self.purgatory.produce.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FetchWait {
    /// Makes a wait for `missing_bytes` more bytes than can be read now.
    pub(crate) fn new(purgatory: &Arc<Purgatory>, missing_bytes: i64) -> Arc<Self> {
        purgatory.fetch.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            missing_bytes: AtomicI64::new(missing_bytes),
            woken: Notify::new(),
            purgatory: Arc::clone(purgatory),
        })
    }

    /// Waits until enough bytes have come, or something else calls for another look.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Begins another wait, for `missing_bytes` bytes in all.
    pub(crate) fn rearm(&self, missing_bytes: i64) {
        self.missing_bytes.store(missing_bytes, Ordering::Release);
    }

    /// Takes `bytes` off what is missing, and wakes the fetch when nothing is.
    pub(crate) fn gain(&self, bytes: i64) {
        if self.missing_bytes.fetch_sub(bytes, Ordering::AcqRel) <= bytes {
            self.woken.notify_one();
        }
    }
}

impl Drop for FetchWait {
    fn drop(&mut self) {
        self.purgatory.fetch.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiters {
    /// Lets `wait` know once the high watermark reaches `offset`.
    ///
    /// The caller looks at the high watermark after this call: an advance that ran before it has
    /// not seen the waiter.
    pub(crate) fn add_ack(&self, offset: i64, wait: Arc<AckWait>) {
        let mut lists = self.lists.lock();
        // Two connections may register in another order than they appended; a step back by a few
        // places keeps the list ordered.
        let behind = lists.acks.iter().rev().take_while(|(other, _)| *other > offset).count();
        let position = lists.acks.len() - behind;
        lists.acks.insert(position, (offset, wait));
    }

    /// Lets `wait` know of every byte that becomes readable, until the place is dropped.
    pub(crate) fn add_fetch(self: &Arc<Self>, wait: Arc<FetchWait>) -> Place {
        let mut lists = self.lists.lock();
        let ticket = lists.next_ticket;
        lists.next_ticket += 1;
        lists.fetches.insert(ticket, wait);
        Place { waiters: Arc::clone(self), ticket }
    }

    /// Notes that the high watermark now stands at `offset`, which made `bytes` readable.
    pub(crate) fn advanced(&self, offset: i64, bytes: i64) {
        let mut lists = self.lists.lock();
        while lists.acks.front().is_some_and(|(needed, _)| *needed <= offset) {
            if let Some((_, wait)) = lists.acks.pop_front() {
                wait.complete_one();
            }
        }
        for wait in lists.fetches.values() {
            wait.gain(bytes);
        }
    }

    /// Lets everybody look again, because the partition failed, moved or is going away.
    pub(crate) fn wake_all(&self) {
        let mut lists = self.lists.lock();
        for (_, wait) in lists.acks.drain(..) {
            wait.complete_one();
        }
        for wait in lists.fetches.values() {
            wait.gain(i64::MAX / 2);
        }
    }

    /// Lets every waiting fetch look again.
    pub(crate) fn wake_fetches(&self) {
        for wait in self.lists.lock().fetches.values() {
            wait.gain(i64::MAX / 2);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiters.lists.lock().fetches.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_comes_when_every_partition_has_passed() {
        let purgatory = Arc::default();
        let (first, second) = (Waiters::default(), Waiters::default());
        let wait = AckWait::new(&purgatory, 2);
        first.add_ack(10, Arc::clone(&wait));
        second.add_ack(5, Arc::clone(&wait));
        assert_eq!(purgatory.sizes(), (1, 0));
        first.advanced(10, 100);
        second.advanced(4, 100);
        let begun = Instant::now();
        assert!(timeout(Duration::from_secs(30), wait.done()).await.is_err());
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
        second.advanced(5, 1);
        wait.done().await;
        drop(wait);
        assert_eq!(purgatory.sizes(), (0, 0));
    }

    #[tokio::test]
    async fn acknowledgements_registered_out_of_order_complete_in_order() {
        let purgatory = Arc::default();
        let waiters = Waiters::default();
        let (late, early) = (AckWait::new(&purgatory, 1), AckWait::new(&purgatory, 1));
        waiters.add_ack(20, Arc::clone(&late));
        waiters.add_ack(10, Arc::clone(&early));
        waiters.advanced(15, 1);
        early.done().await;
        assert_eq!(late.outstanding.load(Ordering::Relaxed), 1);
        waiters.wake_all();
        late.done().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_is_woken_by_enough_bytes_from_any_partition() {
        let purgatory = Arc::default();
        let (first, second) = (Arc::new(Waiters::default()), Arc::new(Waiters::default()));
        let wait = FetchWait::new(&purgatory, 100);
        let places = [first.add_fetch(Arc::clone(&wait)), second.add_fetch(Arc::clone(&wait))];
        first.advanced(1, 60);
        assert!(timeout(Duration::from_millis(500), wait.woken()).await.is_err());
        second.advanced(1, 40);
        wait.woken().await;
        drop(places);
        assert!(first.lists.lock().fetches.is_empty() && second.lists.lock().fetches.is_empty());
    }

    #[tokio::test]
    async fn a_fetch_that_nobody_fed_can_still_be_woken() {
        let purgatory = Arc::default();
        let waiters = Arc::new(Waiters::default());
        let wait = FetchWait::new(&purgatory, i64::from(i32::MAX));
        let _place = waiters.add_fetch(Arc::clone(&wait));
        waiters.wake_fetches();
        wait.woken().await;
    }
}

//! The log of requests: each of them at debug level, slow ones as warnings.
//!
//! The target is `kafka.request.logger`, the name of Kafka's request log, so that
//! `RUST_LOG=kafka.request.logger=debug` switches it on by itself. Only what a request is about
//! and how long it took is said, never what it holds.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleuve_protocol::messages::ApiKey;

use crate::metrics::Receipt;
use crate::request::Peer;

/// The name of Kafka's request log.
const TARGET: &str = "kafka.request.logger";
/// Warnings about slow requests come no more often than this: a slow disk makes all of them slow.
const WARNINGS_APART_MS: i64 = 1000;

/// Writes about requests once their answers are sent.
#[derive(Debug)]
pub(crate) struct RequestLog {
    /// Requests that took longer are slow; none if zero.
    slow: Duration,
    began: Instant,
    next_warning_ms: AtomicI64,
    unmentioned: AtomicU64,
}

impl RequestLog {
    /// Begins a log that warns of requests that took longer than `slow`; never if that is zero.
    pub(crate) fn new(slow: Duration) -> Self {
        Self {
            slow,
            began: Instant::now(),
            next_warning_ms: AtomicI64::new(0),
            unmentioned: AtomicU64::new(0),
        }
    }

    /// Requests that were slow and about which nothing was written since the last warning.
    #[cfg(test)]
    fn unmentioned(&self) -> u64 {
        self.unmentioned.load(Ordering::Relaxed)
    }

    /// Writes about a request whose answer began to be sent at `turn` and was at `sent`.
    #[inline]
    pub(crate) fn answered(
        &self,
        api: ApiKey,
        receipt: &Receipt,
        turn: Instant,
        sent: Instant,
        peer: &Peer,
        client_id: &str,
    ) {
        if self.is_slow(api, receipt) {
            self.warn(api, receipt, peer, client_id);
        }
        if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
            let Receipt { arrived, begun, handled, ready, .. } = *receipt;
            tracing::debug!(
                target: TARGET,
                %api,
                version = receipt.version,
                correlation = receipt.correlation_id,
                client = client_id,
                peer = %peer.address,
                listener = peer.listener,
                request_bytes = receipt.request_bytes,
                response_bytes = receipt.response_bytes,
                total = ?since(arrived, sent),
                queue = ?receipt.queued(),
                throttle = ?receipt.throttled,
                local = ?since(begun, handled),
                remote = ?since(handled, ready),
                response_queue = ?since(ready, turn),
                response_send = ?since(turn, sent),
                "request"
            );
        }
    }

    /// Reports whether we were slow: waiting that was asked for does not count, nor a pause for a
    /// quota, nor a peer that takes its time to read.
    fn is_slow(&self, api: ApiKey, receipt: &Receipt) -> bool {
        let waits_on_purpose = matches!(
            api,
            ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup | ApiKey::ShareFetch
        );
        let end = if waits_on_purpose { receipt.handled } else { receipt.ready };
        let took = end.saturating_duration_since(receipt.arrived);
        !self.slow.is_zero() && took.saturating_sub(receipt.throttled) > self.slow
    }

    #[cold]
    fn warn(&self, api: ApiKey, receipt: &Receipt, peer: &Peer, client_id: &str) {
        let now_ms = self.began.elapsed().as_millis() as i64;
        let next_ms = self.next_warning_ms.load(Ordering::Relaxed);
        let taken = now_ms >= next_ms
            && self
                .next_warning_ms
                .compare_exchange(
                    next_ms,
                    now_ms + WARNINGS_APART_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if !taken {
            self.unmentioned.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let others = self.unmentioned.swap(0, Ordering::Relaxed);
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        tracing::warn!(
            target: TARGET,
            %api,
            client = client_id,
            peer = %peer.address,
            principal = peer.identity.principal().map(tracing::field::display),
            queue = ?receipt.queued(),
            throttle = ?receipt.throttled,
            local = ?since(receipt.begun, receipt.handled),
            remote = ?since(receipt.handled, receipt.ready),
            others,
            "slow request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(local_ms: u64, remote_ms: u64) -> Receipt {
        let arrived = Instant::now();
        let handled = arrived + Duration::from_millis(local_ms);
        Receipt {
            api: 0,
            version: 0,
            correlation_id: 0,
            arrived,
            begun: arrived,
            throttled: Duration::ZERO,
            handled,
            ready: handled + Duration::from_millis(remote_ms),
            request_bytes: 0,
            response_bytes: 0,
        }
    }

    #[test]
    fn waiting_that_was_asked_for_is_not_slow() {
        let log = RequestLog::new(Duration::from_millis(100));
        assert!(log.is_slow(ApiKey::Produce, &receipt(1, 100)));
        assert!(!log.is_slow(ApiKey::Produce, &receipt(1, 99)));
        assert!(!log.is_slow(ApiKey::Fetch, &receipt(1, 500)));
        assert!(log.is_slow(ApiKey::Fetch, &receipt(101, 0)));
        let throttled = Duration::from_millis(50);
        assert!(!log.is_slow(ApiKey::Produce, &Receipt { throttled, ..receipt(1, 149) }));
        assert!(log.is_slow(ApiKey::Produce, &Receipt { throttled, ..receipt(1, 150) }));
        let off = RequestLog::new(Duration::ZERO);
        assert!(!off.is_slow(ApiKey::Produce, &receipt(1000, 0)));
    }

    #[test]
    fn a_flood_of_slow_requests_is_one_warning() {
        let log = RequestLog::new(Duration::from_millis(100));
        let peer = Peer::new(([127, 0, 0, 1], 1).into(), 0);
        for _ in 0..5 {
            log.warn(ApiKey::Produce, &receipt(200, 0), &peer, "c");
        }
        assert_eq!(log.unmentioned(), 4);
    }
}

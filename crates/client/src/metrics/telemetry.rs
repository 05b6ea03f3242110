//! Pushes metrics to brokers that subscribe to them (KIP-714).
//!
//! ```text
//!             subscription            interval over
//!   asking ──────────────────▶ waiting ─────────────▶ pushing
//!     ▲  ▲   nothing wanted       │                      │
//!     │  └────── after a pause ◀──┘      taken: waiting ◀┤
//!     └──────────────── refused, or another subscription ┘
//! ```

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest;
use fleuve_protocol::messages::get_telemetry_subscriptions_response::GetTelemetrySubscriptionsResponse;
use fleuve_protocol::messages::push_telemetry_request::PushTelemetryRequest;
use fleuve_types::Uuid;
use tokio::sync::watch;
use tokio::time::Instant;

use super::otlp::{Times, encode, name};
use super::{Measured, Metric};
use crate::client::Client;
use crate::error::{Error, Result, check};
use crate::timing::random_fraction;

/// How long to wait after a failure, unless the broker said otherwise.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a client that ends waits for its last push.
const FAREWELL: Duration = Duration::from_secs(1);
/// A broker that asks for no pause at all would be sent metrics without end.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Pushes the metrics of `source` until it is gone or `ended` says so.
pub(crate) async fn run(
    client: Client,
    source: Weak<dyn Measured>,
    mut ended: watch::Receiver<bool>,
) {
    let mut reporter =
        Reporter { client, id: Uuid::ZERO, sums: HashMap::new(), since_ns: now_ns() };
    loop {
        let subscription = match reporter.ask().await {
            Ok(subscription) => subscription,
            Err(Error::Unsupported { .. }) => return,
            Err(error) => {
                tracing::debug!(%error, "no telemetry subscription");
                if wait(&mut ended, PAUSE).await || source.strong_count() == 0 {
                    return;
                }
                continue;
            }
        };
        let interval = u64::try_from(subscription.push_interval_ms).unwrap_or(0);
        let interval = Duration::from_millis(interval).max(INTERVAL_MIN);
        // Clients that began together should not all push together.
        let mut pause = interval.mul_f64(0.5 + random_fraction());
        loop {
            let terminating = wait(&mut ended, pause).await;
            let Some(source) = source.upgrade() else { return };
            if subscription.requested_metrics.is_empty() {
                if terminating {
                    return;
                }
                break;
            }
            let metrics = source.metrics();
            drop(source);
            let pushed = reporter.push(&subscription, metrics, terminating);
            if terminating {
                tokio::time::timeout(FAREWELL, pushed).await.ok();
                return;
            }
            match pushed.await {
                Ok(()) => pause = interval,
                Err(error) => {
                    tracing::debug!(%error, "telemetry was not taken");
                    if error.code() != Some(ErrorCode::UnknownSubscriptionId)
                        && wait(&mut ended, interval).await
                    {
                        return;
                    }
                    break;
                }
            }
        }
    }
}

/// Waits for `pause`; true if the client has ended.
async fn wait(ended: &mut watch::Receiver<bool>, pause: Duration) -> bool {
    let until = Instant::now() + pause;
    tokio::time::timeout_at(until, ended.wait_for(|ended| *ended)).await.is_ok()
}

struct Reporter {
    client: Client,
    /// Given by the broker.
    id: Uuid,
    /// What totals were at the last push, where differences are asked for.
    sums: HashMap<(String, String), f64>,
    since_ns: u64,
}

impl Reporter {
    async fn ask(&mut self) -> Result<GetTelemetrySubscriptionsResponse> {
        let connection = self.client.any_connection().await?;
        let request = GetTelemetrySubscriptionsRequest { client_instance_id: self.id };
        let response = connection.call(&request).await?;
        check(response.error_code, || "telemetry subscription".to_owned())?;
        self.id = response.client_instance_id;
        Ok(response)
    }

    async fn push(
        &mut self,
        subscription: &GetTelemetrySubscriptionsResponse,
        metrics: Vec<Metric>,
        terminating: bool,
    ) -> Result<()> {
        let delta = subscription.delta_temporality;
        let times = Times { since_ns: self.since_ns, now_ns: now_ns(), delta };
        let wanted = |metric: &Metric| {
            let name = name(metric);
            subscription
                .requested_metrics
                .iter()
                .any(|prefix| **prefix == *"*" || name.starts_with(&**prefix))
        };
        let mut sums = Vec::new();
        let mut chosen = Vec::new();
        for mut metric in
            metrics.into_iter().filter(|metric| !metric.value.is_nan() && wanted(metric))
        {
            if delta && metric.is_total() {
                let key = (name(&metric), format!("{:?}", metric.tags));
                let before = self.sums.get(&key).copied().unwrap_or(0.0);
                sums.push((key, metric.value));
                metric.value -= before;
            }
            chosen.push((metric, times));
        }
        let bytes = encode(&chosen);
        let limit = usize::try_from(subscription.telemetry_max_bytes).unwrap_or(0);
        if bytes.len() > limit {
            tracing::debug!(size = bytes.len(), limit, "more telemetry than the broker takes");
            return Ok(());
        }
        let request = PushTelemetryRequest {
            client_instance_id: self.id,
            subscription_id: subscription.subscription_id,
            terminating,
            compression_type: 0,
            metrics: bytes.into(),
        };
        let response = self.client.any_connection().await?.call(&request).await?;
        check(response.error_code, || "telemetry".to_owned())?;
        self.sums.extend(sums);
        if delta {
            self.since_ns = times.now_ns;
        }
        Ok(())
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

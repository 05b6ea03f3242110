//! What became of requests, and where their time went.
//!
//! A request passes five stages, as in Kafka's `RequestMetrics`:
//!
//! ```text
//!   arrived ──► begun ──► handled ──► ready ──► its turn ──► sent
//!      request queue  local      remote   response queue  response send
//! ```
//!
//! What of the first is a pause, because the client had used up a quota, is *throttle*, and no queue.
//!
//! It *arrives* with the read that completed its frame, and waits while requests before it on the
//! same connection are handled. *Local* is the handler itself; *remote* is what it waits for
//! (a flush, more bytes, other members). The answer then waits for the answers before it, and for
//! the peer to take it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fleuve_http::{Exposition, Kind};
use fleuve_protocol::ErrorCode;

use super::{Counter, Distribution};
use crate::dispatch::Api;

/// How often one API was called, how it ended, and how long its stages took.
///
/// Nothing is set aside for APIs that nobody calls.
#[derive(Debug, Default)]
pub(crate) struct RequestCounters(OnceLock<Box<Called>>);

/// The counters of an API that was called.
#[derive(Debug)]
pub(crate) struct Called {
    /// Requests by version.
    versions: Box<[Counter]>,
    /// Answers by error code; the first is -1.
    errors: [Counter; ERRORS],
    queue: Distribution,
    throttle: Distribution,
    local: Distribution,
    remote: Distribution,
    response_queue: Distribution,
    response_send: Distribution,
    total: Distribution,
    request_bytes: Counter,
    response_bytes: Counter,
}

/// Room for all error codes of Kafka 4.3 and some to come; a code beyond counts as unknown.
const ERRORS: usize = 160;

/// When a request reached its stages; travels with its answer to whoever sends that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    /// Index of the API in the table.
    pub(crate) api: usize,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) arrived: Instant,
    pub(crate) begun: Instant,
    /// How long it was not read because its client had used up a quota.
    pub(crate) throttled: Duration,
    pub(crate) handled: Instant,
    pub(crate) ready: Instant,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
}

impl Receipt {
    /// How long it waited between its arrival and its handler for other reasons than a quota.
    pub(crate) fn queued(&self) -> Duration {
        self.begun.saturating_duration_since(self.arrived).saturating_sub(self.throttled)
    }
}

impl RequestCounters {
    /// The counters, made at the first call.
    #[inline]
    pub(crate) fn called(&self, api: &Api) -> &Called {
        self.0.get_or_init(|| {
            let versions = usize::try_from(api.version_max).unwrap_or(0) + 1;
            Box::new(Called {
                versions: (0..versions).map(|_| Counter::default()).collect(),
                errors: [const { Counter::new() }; ERRORS],
                queue: Distribution::default(),
                throttle: Distribution::default(),
                local: Distribution::default(),
                remote: Distribution::default(),
                response_queue: Distribution::default(),
                response_send: Distribution::default(),
                total: Distribution::default(),
                request_bytes: Counter::default(),
                response_bytes: Counter::default(),
            })
        })
    }
}

impl Called {
    /// Counts a request that is about to be handled.
    #[inline]
    pub(crate) fn request(&self, version: i16, bytes: usize) {
        if let Some(counter) = usize::try_from(version).ok().and_then(|v| self.versions.get(v)) {
            counter.add(1);
        }
        self.request_bytes.add(bytes as u64);
    }

    /// Counts an error code of an answer, 0 for none.
    #[inline]
    pub(crate) fn error(&self, code: i16) {
        let index = usize::try_from(i32::from(code) + 1).unwrap_or(0);
        self.errors[if index < ERRORS { index } else { 0 }].add(1);
    }

    /// Counts the stages of a request whose answer began to be sent at `turn` and was at `sent`.
    #[inline]
    pub(crate) fn answered(&self, receipt: &Receipt, turn: Instant, sent: Instant) {
        let Receipt { arrived, begun, handled, ready, .. } = *receipt;
        self.queue.record(receipt.queued());
        self.throttle.record(receipt.throttled);
        self.local.record(handled.saturating_duration_since(begun));
        self.remote.record(ready.saturating_duration_since(handled));
        self.response_queue.record(turn.saturating_duration_since(ready));
        self.response_send.record(sent.saturating_duration_since(turn));
        self.total.record(sent.saturating_duration_since(arrived));
        self.response_bytes.add(receipt.response_bytes as u64);
    }
}

/// Adds the families of requests, for the APIs that were called at least once.
///
/// Kafka tells fetches of consumers from those of followers, and counts both as `Fetch` too;
/// dashboards ask for either, and here all of them are of consumers.
pub(crate) fn write_requests(page: &mut Exposition, apis: &[Api], counters: &[RequestCounters]) {
    let mut called: Vec<(&str, &Called)> = Vec::new();
    for (api, counters) in apis.iter().zip(counters) {
        if let Some(counters) = counters.0.get() {
            called.push((api.key.name(), counters));
            if api.key.name() == "Fetch" {
                called.push(("FetchConsumer", counters));
            }
        }
    }
    let family = |name: &str| format!("kafka_network_requestmetrics_{name}");
    page.family(&family("requests_total"), Kind::Counter, "Requests by API and version.");
    for (api, counters) in &called {
        for (version, counter) in counters.versions.iter().enumerate() {
            if counter.get() > 0 {
                let version = version.to_string();
                page.sample(&[("request", api), ("version", &version)], counter.get() as f64);
            }
        }
    }
    page.family(
        &family("errors_total"),
        Kind::Counter,
        "Results in answers by API and error code, NONE for success.",
    );
    for (api, counters) in &called {
        for (index, counter) in counters.errors.iter().enumerate() {
            if counter.get() > 0 {
                let code = ErrorCode::from_code(index as i16 - 1);
                let error = code.unwrap_or(ErrorCode::UnknownServerError).name();
                page.sample(&[("request", api), ("error", error)], counter.get() as f64);
            }
        }
    }
    type Stage = fn(&Called) -> &Distribution;
    let stages: [(&str, &str, Stage); 7] = [
        ("requestqueuetimems", "Milliseconds from arrival to handling.", |c| &c.queue),
        ("throttletimems", "Milliseconds that requests were not read because of a quota.", |c| {
            &c.throttle
        }),
        ("localtimems", "Milliseconds in the handler.", |c| &c.local),
        ("remotetimems", "Milliseconds of waiting for what the request needs.", |c| &c.remote),
        ("responsequeuetimems", "Milliseconds behind answers before it.", |c| &c.response_queue),
        ("responsesendtimems", "Milliseconds until the socket took the answer.", |c| {
            &c.response_send
        }),
        ("totaltimems", "Milliseconds from arrival to the answer's last byte.", |c| &c.total),
    ];
    for (name, help, stage) in stages {
        page.family(&family(name), Kind::Summary, help);
        for (api, counters) in &called {
            stage(counters).write(page, &[("request", api)]);
        }
    }
    type Read = fn(&Called) -> &Counter;
    let sizes: [(&str, &str, Read); 2] = [
        ("requestbytes", "Bytes of requests.", |c| &c.request_bytes),
        ("responsebytes", "Bytes of answers.", |c| &c.response_bytes),
    ];
    for (name, help, read) in sizes {
        page.family(&family(name), Kind::Summary, help);
        for (api, counters) in &called {
            let labels = [("request", *api)];
            page.suffixed("_sum", &labels, read(counters).get() as f64);
            page.suffixed("_count", &labels, counters.total.totals().0 as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::messages::ApiKey;

    use super::*;
    use crate::dispatch;

    #[test]
    fn stages_add_up_and_every_result_has_its_name() {
        let (index, api) = dispatch::find(ApiKey::Fetch).expect("served");
        let counters: Vec<RequestCounters> =
            Vec::from_iter((0..=index).map(|_| Default::default()));
        let called = counters[index].called(api);
        let arrived = Instant::now();
        let after = |ms| arrived + Duration::from_millis(ms);
        let receipt = Receipt {
            api: index,
            version: 12,
            correlation_id: 1,
            arrived,
            begun: after(1),
            throttled: Duration::from_micros(500),
            handled: after(3),
            ready: after(7),
            request_bytes: 100,
            response_bytes: 1000,
        };
        called.request(12, 100);
        called.error(0);
        called.error(-1);
        called.error(30_000);
        called.error(3);
        called.answered(&receipt, after(15), after(31));
        let mut page = Exposition::new();
        write_requests(&mut page, dispatch::APIS, &counters);
        let text = page.into_text();
        let value = |name: &str| -> f64 {
            let start = format!("kafka_network_requestmetrics_{name} ");
            let line = text.lines().find(|line| line.starts_with(&start));
            line.expect(name).rsplit(' ').next().expect("a value").parse().expect("a number")
        };
        for (stage, ms) in [
            ("requestqueuetimems", 0.5),
            ("throttletimems", 0.5),
            ("localtimems", 2.0),
            ("remotetimems", 4.0),
            ("responsequeuetimems", 8.0),
            ("responsesendtimems", 16.0),
            ("totaltimems", 31.0),
        ] {
            assert_eq!(value(&format!("{stage}_sum{{request=\"FetchConsumer\"}}")), ms, "{stage}");
        }
        assert_eq!(value("requests_total{request=\"Fetch\",version=\"12\"}"), 1.0);
        let errors =
            |name: &str| value(&format!("errors_total{{request=\"Fetch\",error=\"{name}\"}}"));
        assert_eq!(errors("NONE"), 1.0);
        assert_eq!(errors("UNKNOWN_SERVER_ERROR"), 2.0);
        assert_eq!(errors("UNKNOWN_TOPIC_OR_PARTITION"), 1.0);
        assert!(!text.contains("request=\"Produce\""));
    }
}

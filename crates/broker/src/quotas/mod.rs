//! Quotas: how much users and clients may use, and how long they wait once they have used more.
//!
//! `rate.rs` measures as Kafka does, `limits.rs` knows whose limit holds, `ledger.rs` keeps the
//! accounts of one kind of quota; all three are told the time. Here the four kinds come together:
//! handlers and the dispatcher charge them, and a client that has used too much is told so in its
//! answer, and nothing is read from its connection for as long (KIP-219). `mutations.rs` is
//! for requests that change topics, which are refused instead (KIP-599). While no quota is set, all
//! of this costs a look at one flag.
//!
//! Departs from Kafka in that only those have accounts who have a limit; that a fetch is charged for
//! its records without the fields around them; that share fetches beyond a quota keep their
//! records, which are acquired already; and that the time of network threads is not charged.

mod ledger;
mod limits;
mod mutations;
mod rate;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleuve_http::{Exposition, Kind as Family};
use fleuve_metadata::config::QuotaSettings;
use fleuve_metadata::image::Quotas as QuotaImage;
use fleuve_os::Clock;
use fleuve_protocol::Str;
use parking_lot::Mutex;

use ledger::{Ledger, Usage};
use limits::Limits;

pub(crate) use mutations::Mutations;
pub(crate) use rate::{Rate, Window};

/// Accounts of one kind that metrics name.
const SHOWN_MAX: usize = 1000;
/// Requests use at most this many percent of a thread per second of its time.
const PERCENT: f64 = 100.0;

/// Somebody who uses something.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Whom it has authenticated as.
    pub(crate) user: Str,
    /// What it calls itself.
    pub(crate) client_id: Str,
}

/// What quotas are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Produce,
    Fetch,
    Request,
    ControllerMutation,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Produce, Self::Fetch, Self::Request, Self::ControllerMutation];

    /// The key of its quotas.
    fn key(self) -> &'static str {
        match self {
            Self::Produce => "producer_byte_rate",
            Self::Fetch => "consumer_byte_rate",
            Self::Request => "request_percentage",
            Self::ControllerMutation => "controller_mutation_rate",
        }
    }

    /// The type of its MBean in Kafka.
    fn name(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::Fetch => "Fetch",
            Self::Request => "Request",
            Self::ControllerMutation => "ControllerMutation",
        }
    }
}

/// All quotas of a broker, and what has been used of them.
#[derive(Debug)]
pub(crate) struct Quotas {
    clock: Arc<dyn Clock>,
    are_set: AtomicBool,
    /// In the order of the kinds.
    ledgers: [Mutex<Ledger>; 4],
}

impl Quotas {
    /// Makes them without limits.
    pub(crate) fn new(clock: Arc<dyn Clock>, settings: &QuotaSettings) -> Self {
        let window = Window { samples: settings.samples, sample_ms: settings.sample_ms };
        let mutations = Window {
            samples: settings.controller_samples,
            sample_ms: settings.controller_sample_ms,
        };
        let ledger = |kind| {
            Mutex::new(match kind {
                Kind::Produce | Kind::Fetch => Ledger::new(window, None),
                Kind::Request => Ledger::new(window, Some(window.sample_ms)),
                Kind::ControllerMutation => Ledger::new(mutations, None),
            })
        };
        Self { clock, are_set: AtomicBool::new(false), ledgers: Kind::ALL.map(ledger) }
    }

    /// Puts the quotas of the image in force.
    pub(crate) fn take(&self, image: &QuotaImage) {
        let mut are_set = false;
        for kind in Kind::ALL {
            let limits = Limits::of(image, kind.key());
            are_set |= !limits.is_empty();
            self.ledger(kind).lock().set_limits(limits);
        }
        self.are_set.store(are_set, Ordering::Relaxed);
    }

    /// Reports whether anybody has a quota.
    #[inline]
    pub(crate) fn are_set(&self) -> bool {
        self.are_set.load(Ordering::Relaxed)
    }

    /// Charges the bytes of a produce request and returns for how long the client must wait.
    pub(crate) fn produced(&self, client: &Client, bytes: usize) -> i64 {
        self.charge(Kind::Produce, client, bytes as f64)
    }

    /// Charges the bytes of a fetch and returns for how long the client must wait.
    pub(crate) fn fetched(&self, client: &Client, bytes: usize) -> i64 {
        self.charge(Kind::Fetch, client, bytes as f64)
    }

    /// Takes back what a fetch was charged that is not answered with its bytes.
    pub(crate) fn not_fetched(&self, client: &Client, bytes: usize) {
        let now_ms = self.now_ms();
        let mut ledger = self.ledger(Kind::Fetch).lock();
        ledger.refund(&client.user, &client.client_id, bytes as f64, now_ms);
    }

    /// The most bytes that a client can fetch at once without having to wait.
    pub(crate) fn fetch_bytes_max(&self, client: &Client) -> Option<usize> {
        let ceiling = self.ledger(Kind::Fetch).lock().ceiling(&client.user, &client.client_id)?;
        Some(ceiling as usize)
    }

    /// Charges the time of a handler and returns for how long the client must wait.
    pub(crate) fn worked(&self, client: &Client, time: Duration) -> i64 {
        self.charge(Kind::Request, client, time.as_secs_f64() * PERCENT)
    }

    fn charge(&self, kind: Kind, client: &Client, amount: f64) -> i64 {
        let now_ms = self.now_ms();
        let mut ledger = self.ledger(kind).lock();
        let wait_ms = ledger.charge(&client.user, &client.client_id, amount, now_ms);
        if wait_ms > 0 {
            ledger.note_wait(&client.user, &client.client_id, wait_ms, now_ms);
        }
        wait_ms
    }

    fn ledger(&self, kind: Kind) -> &Mutex<Ledger> {
        &self.ledgers[kind as usize]
    }

    /// The time of a clock that nobody sets.
    fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.monotonic().as_millis()).unwrap_or(i64::MAX)
    }

    /// Adds what those use who have a quota.
    pub(crate) fn write(&self, page: &mut Exposition) {
        let usage: Vec<(Kind, Vec<Usage>)> = Kind::ALL
            .map(|kind| (kind, self.ledger(kind).lock().usage(SHOWN_MAX, self.now_ms())))
            .into();
        type Read = fn(&Usage) -> f64;
        let families: [(&str, &str, &[Kind], Read); 5] = [
            ("byte_rate", "Bytes per second.", &[Kind::Produce, Kind::Fetch], |it| it.rate),
            ("request_time", "Percent of a thread in use.", &[Kind::Request], |it| it.rate),
            (
                "mutation_rate",
                "Partitions changed per second.",
                &[Kind::ControllerMutation],
                |it| it.rate,
            ),
            ("tokens", "Partitions that may be changed now.", &[Kind::ControllerMutation], |it| {
                it.tokens
            }),
            (
                "throttle_time",
                "Milliseconds that clients over their quota were told to wait, on average.",
                &Kind::ALL,
                |it| it.throttle_ms,
            ),
        ];
        for (name, help, kinds, read) in families {
            page.family(&format!("kafka_server_quota_{name}"), Family::Gauge, help);
            for (kind, usage) in usage.iter().filter(|(kind, _)| kinds.contains(kind)) {
                for usage in usage {
                    let labels = [
                        ("resource", kind.name()),
                        ("user", usage.payer.user.as_str()),
                        ("clientId", usage.payer.client_id.as_str()),
                    ];
                    page.sample(&labels, read(usage));
                }
            }
        }
    }
}

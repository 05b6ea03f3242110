//! Which client is to push what, and whether a push may be taken.
//!
//! Subscriptions are configs of client metrics resources. A client that asks gets all metrics of
//! the subscriptions that fit it, the shortest of their intervals, and a number; a push has to name
//! the number, so that a client learns from its refusal that something changed.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use fleuve_http::Exposition;
use fleuve_metadata::config::{ClientMatch, ClientTrait};
use fleuve_metadata::image::{Image, ResourceKind};
use fleuve_protocol::records::{Compression, Decompressor};
use fleuve_types::Uuid;
use parking_lot::Mutex;

use super::{OtlpError, Store, read};

/// How often clients push unless a subscription says otherwise.
const INTERVAL_DEFAULT_MS: i32 = 300_000;
/// Clients that are remembered; beyond that the one that was silent longest is forgotten.
const CLIENTS_MAX: usize = 10_000;
/// How long a silent client is remembered at least.
const SILENCE_MIN_MS: i64 = 60_000;
/// Intervals of silence after which a client is forgotten.
const SILENT_INTERVALS_MAX: i64 = 3;
/// What a push may decompress to, as a multiple of its largest size.
const DECOMPRESSED_RATIO: usize = 8;
/// The metric that stands for all.
const ALL: &str = "*";

/// Who asks or pushes.
#[derive(Clone, Debug)]
pub(crate) struct Client<'a> {
    /// The id of its telemetry.
    pub(crate) instance: Uuid,
    /// What it calls itself.
    pub(crate) id: &'a str,
    /// The name and version of its library.
    pub(crate) software: (&'a str, &'a str),
    /// The address it comes from.
    pub(crate) address: String,
    /// The port it comes from.
    pub(crate) port: String,
}

/// What a client is to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The number it goes by.
    pub(crate) id: i32,
    /// How often.
    pub(crate) interval_ms: i32,
    /// Beginnings of metrics' names; empty for all, none for nothing.
    pub(crate) metrics: Vec<String>,
}

/// What a client pushes.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    /// The number of the subscription it knows.
    pub(crate) subscription_id: i32,
    /// Whether it is the last.
    pub(crate) is_last: bool,
    /// The number of the codec.
    pub(crate) codec: i8,
    /// The metrics.
    pub(crate) metrics: Bytes,
}

/// Why a request is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It came too early.
    TooEarly,
    /// The client had said that it was gone.
    Terminated,
    /// The client has another subscription by now.
    UnknownSubscription,
    /// The codec is unknown.
    UnknownCodec,
    /// It is too large.
    TooLarge,
    /// It cannot be read.
    Unreadable,
}

/// A client as it is remembered.
#[derive(Debug)]
struct Known {
    subscription: Subscription,
    last_get_ms: Option<i64>,
    last_push_ms: Option<i64>,
    /// Whether it has asked since its last push.
    has_asked: bool,
    /// Whether the last push was refused in a way that makes the client ask at once.
    must_ask: bool,
    is_gone: bool,
    seen_ms: i64,
}

/// All clients with what they pushed.
#[derive(Debug)]
pub(crate) struct Telemetry {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<Uuid, Known>,
    store: Store,
}

impl Telemetry {
    /// Begins without clients; `bytes_max` limits a push.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// The largest push.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Tells a client what to push.
    pub(crate) fn subscribe(
        &self,
        image: &Image,
        client: &Client<'_>,
        now_ms: i64,
    ) -> Result<Subscription, Refusal> {
        let mut state = self.state.lock();
        let known = state.client(image, client, now_ms);
        let last = known.last_get_ms.max(known.last_push_ms);
        let interval = i64::from(known.subscription.interval_ms);
        let is_early = last.is_some_and(|last| now_ms.saturating_sub(last) < interval);
        if is_early && !known.must_ask {
            return Err(Refusal::TooEarly);
        }
        known.last_get_ms = Some(now_ms);
        known.has_asked = true;
        known.must_ask = false;
        Ok(known.subscription.clone())
    }

    /// Takes what a client pushes.
    pub(crate) fn push(
        &self,
        image: &Image,
        client: &Client<'_>,
        push: &Push,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        let known = state.client(image, client, now_ms);
        if known.is_gone {
            return Err(Refusal::Terminated);
        }
        known.is_gone = push.is_last;
        let interval = i64::from(known.subscription.interval_ms);
        // Whoever has just asked may push at once.
        let has_asked = std::mem::take(&mut known.has_asked);
        let is_early =
            known.last_push_ms.is_some_and(|last| now_ms.saturating_sub(last) < interval);
        if is_early && !has_asked && !push.is_last {
            return Err(Refusal::TooEarly);
        }
        known.last_push_ms = Some(now_ms);
        known.must_ask = true;
        if push.subscription_id != known.subscription.id {
            return Err(Refusal::UnknownSubscription);
        }
        let codec = codec(push.codec).ok_or(Refusal::UnknownCodec)?;
        known.must_ask = false;
        if push.metrics.len() > self.bytes_max {
            return Err(Refusal::TooLarge);
        }
        let limit = self.bytes_max.saturating_mul(DECOMPRESSED_RATIO);
        let mut decompressor = Decompressor::new(limit);
        let plain =
            decompressor.decompress(codec, &push.metrics).map_err(|_| Refusal::Unreadable)?;
        let put = |point| state.store.put(client.instance, client.id, point);
        read(&plain, put).map_err(|_: OtlpError| Refusal::Unreadable)?;
        // Also after the last push the series stay for a while, so that somebody gets to see them.
        Ok(())
    }

    /// Writes what clients pushed, and forgets those that are silent.
    pub(crate) fn write(&self, page: &mut Exposition, now_ms: i64) {
        let mut state = self.state.lock();
        state.forget_silent(now_ms);
        state.store.write(page);
        page.family(
            "kafka_server_client_metrics_instance_count",
            fleuve_http::Kind::Gauge,
            "Clients that push metrics.",
        )
        .sample(&[], state.clients.len() as f64);
    }
}

impl State {
    /// Finds a client, or makes it known; with another subscription it begins anew.
    fn client(&mut self, image: &Image, client: &Client<'_>, now_ms: i64) -> &mut Known {
        let subscription = subscription_of(image, client);
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&client.instance) {
            self.forget_silent(now_ms);
            self.make_room();
        }
        let fresh = |subscription| Known {
            subscription,
            last_get_ms: None,
            last_push_ms: None,
            has_asked: false,
            must_ask: false,
            is_gone: false,
            seen_ms: now_ms,
        };
        let known =
            self.clients.entry(client.instance).or_insert_with(|| fresh(subscription.clone()));
        if known.subscription != subscription {
            *known = fresh(subscription);
        }
        known.seen_ms = now_ms;
        known
    }

    fn forget_silent(&mut self, now_ms: i64) {
        let is_silent = |known: &Known| {
            let interval = i64::from(known.subscription.interval_ms);
            let patience = (interval * SILENT_INTERVALS_MAX).max(SILENCE_MIN_MS);
            now_ms.saturating_sub(known.seen_ms) > patience
        };
        let store = &mut self.store;
        self.clients.retain(|instance, known| {
            let stays = !is_silent(known);
            if !stays {
                store.forget(*instance);
            }
            stays
        });
    }

    fn make_room(&mut self) {
        if self.clients.len() < CLIENTS_MAX {
            return;
        }
        let oldest = self.clients.iter().min_by_key(|(_, known)| known.seen_ms);
        if let Some(instance) = oldest.map(|(instance, _)| *instance) {
            self.clients.remove(&instance);
            self.store.forget(instance);
        }
    }
}

fn subscription_of(image: &Image, client: &Client<'_>) -> Subscription {
    let mut interval_ms = INTERVAL_DEFAULT_MS;
    let mut metrics = BTreeSet::new();
    let instance = client.instance.to_string();
    let tell = |wanted| match wanted {
        ClientTrait::InstanceId => instance.as_str(),
        ClientTrait::Id => client.id,
        ClientTrait::SoftwareName => client.software.0,
        ClientTrait::SoftwareVersion => client.software.1,
        ClientTrait::SourceAddress => client.address.as_str(),
        ClientTrait::SourcePort => client.port.as_str(),
    };
    let items = |text: &str| -> Vec<String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(str::to_owned).collect()
    };
    let resources = image.configs().iter();
    for (_, configs) in resources.filter(|(r, _)| r.kind == ResourceKind::ClientMetrics) {
        let of = |key: &str| configs.get(key).map_or("", |value| &**value);
        // What cannot be read was written by a later release, and means nobody here.
        let fits = ClientMatch::parse(&items(of("match"))).is_ok_and(|m| m.fits(tell));
        if fits {
            metrics.extend(items(of("metrics")));
            let interval = of("interval.ms").parse().unwrap_or(INTERVAL_DEFAULT_MS);
            interval_ms = interval_ms.min(interval);
        }
    }
    let metrics: Vec<String> = match metrics.contains(ALL) {
        true => vec![ALL.to_owned()],
        false => metrics.into_iter().collect(),
    };
    let mut hasher = DefaultHasher::new();
    (&metrics, interval_ms, client.instance.0).hash(&mut hasher);
    Subscription { id: hasher.finish() as i32, interval_ms, metrics }
}

fn codec(number: i8) -> Option<Compression> {
    Some(match number {
        0 => Compression::None,
        1 => Compression::Gzip,
        2 => Compression::Snappy,
        3 => Compression::Lz4,
        4 => Compression::Zstd,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use fleuve_metadata::record::Record;
    use fleuve_protocol::Str;
    use fleuve_protocol::messages::config_record::ConfigRecord;

    use super::super::otlp::tests::push as otlp;
    use super::*;

    const INTERVAL_MS: i64 = 1000;

    fn image(configs: &[(&str, &str, &str)]) -> Image {
        let mut image = Image::new(Str::EMPTY);
        for (name, key, value) in configs {
            let record: Record = ConfigRecord {
                resource_type: ResourceKind::ClientMetrics.wire_id(),
                resource_name: Str::copy_from(name),
                name: Str::copy_from(key),
                value: Some(Str::copy_from(value)),
            }
            .into();
            image.apply(&record).expect("it fits");
        }
        image
    }

    fn subscribed() -> Image {
        image(&[
            ("a", "interval.ms", "1000"),
            ("a", "match", "client_id=app-.*"),
            ("a", "metrics", "lag,records"),
            ("b", "metrics", "*"),
            ("b", "match", "client_software_name=other"),
        ])
    }

    fn client(id: &str) -> Client<'_> {
        Client {
            instance: Uuid([4; 16]),
            id,
            software: ("library", "1"),
            address: "127.0.0.1".to_owned(),
            port: "999".to_owned(),
        }
    }

    fn push(subscription_id: i32) -> Push {
        Push { subscription_id, is_last: false, codec: 0, metrics: Bytes::from(otlp()) }
    }

    #[test]
    fn clients_get_what_fits_them() {
        let telemetry = Telemetry::new(1000);
        let fitting = telemetry.subscribe(&subscribed(), &client("app-1"), 0).expect("granted");
        assert_eq!(fitting.metrics, ["lag", "records"]);
        assert_eq!(fitting.interval_ms, 1000);
        let other = Client { software: ("other", "1"), ..client("x") };
        let all = Telemetry::new(1000).subscribe(&subscribed(), &other, 0).expect("granted");
        assert_eq!((all.metrics, all.interval_ms), (vec!["*".to_owned()], INTERVAL_DEFAULT_MS));
        let none = Telemetry::new(1000).subscribe(&subscribed(), &client("x"), 0).expect("granted");
        assert_eq!(none.metrics, Vec::<String>::new());
        assert_ne!(none.id, fitting.id);
    }

    #[test]
    fn pushes_keep_their_interval_and_end() {
        let telemetry = Telemetry::new(1000);
        let (image, client) = (subscribed(), client("app-1"));
        let subscription = telemetry.subscribe(&image, &client, 0).expect("granted");
        let again = telemetry.subscribe(&image, &client, 1);
        assert_eq!(again, Err(Refusal::TooEarly));
        let push = push(subscription.id);
        assert_eq!(
            telemetry.push(&image, &client, &push, 10),
            Ok(()),
            "the first may come at once"
        );
        assert_eq!(telemetry.push(&image, &client, &push, 20), Err(Refusal::TooEarly));
        assert_eq!(telemetry.push(&image, &client, &push, 10 + INTERVAL_MS), Ok(()));
        let last = Push { is_last: true, ..push.clone() };
        assert_eq!(telemetry.push(&image, &client, &last, 11 + INTERVAL_MS), Ok(()));
        let after = telemetry.push(&image, &client, &push, 5 * INTERVAL_MS);
        assert_eq!(after, Err(Refusal::Terminated));
    }

    #[test]
    fn a_change_of_subscriptions_is_learned_from_a_refused_push() {
        let telemetry = Telemetry::new(1000);
        let client = client("app-1");
        let before = telemetry.subscribe(&subscribed(), &client, 0).expect("granted");
        let changed = image(&[("a", "metrics", "else")]);
        let refused = telemetry.push(&changed, &client, &push(before.id), 10);
        assert_eq!(refused, Err(Refusal::UnknownSubscription));
        let after = telemetry.subscribe(&changed, &client, 11).expect("at once");
        assert_eq!(after.metrics, ["else"]);
        assert_eq!(telemetry.push(&changed, &client, &push(after.id), 12), Ok(()));
    }

    #[test]
    fn what_cannot_be_taken_is_refused_for_a_reason() {
        let (image, client) = (subscribed(), client("app-1"));
        let outcome = |bytes_max: usize, change: fn(&mut Push)| {
            let telemetry = Telemetry::new(bytes_max);
            let subscription = telemetry.subscribe(&image, &client, 0).expect("granted");
            let mut push = push(subscription.id);
            change(&mut push);
            telemetry.push(&image, &client, &push, 1)
        };
        assert_eq!(outcome(1000, |_| {}), Ok(()));
        assert_eq!(outcome(10, |_| {}), Err(Refusal::TooLarge));
        assert_eq!(outcome(1000, |push| push.codec = 9), Err(Refusal::UnknownCodec));
        assert_eq!(outcome(1000, |push| push.codec = 4), Err(Refusal::Unreadable));
        let cut = |push: &mut Push| push.metrics.truncate(20);
        assert_eq!(outcome(1000, cut), Err(Refusal::Unreadable));
    }

    #[test]
    fn silent_clients_and_their_series_are_forgotten() {
        let telemetry = Telemetry::new(1000);
        let (image, client) = (subscribed(), client("app-1"));
        let subscription = telemetry.subscribe(&image, &client, 0).expect("granted");
        telemetry.push(&image, &client, &push(subscription.id), 1).expect("taken");
        let text = |now_ms| {
            let mut page = Exposition::new();
            telemetry.write(&mut page, now_ms);
            page.into_text()
        };
        assert!(text(1 + SILENCE_MIN_MS).contains("kafka_client_lag_max{"));
        assert!(!text(2 + SILENCE_MIN_MS).contains("kafka_client_lag_max{"));
    }
}

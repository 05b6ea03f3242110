//! Who may connect: how many, from where, how fast; and who has to go when there are too many.
//!
//! Limits of the broker and of a listener make the listener wait; those of an address close the
//! connection, after the wait if it is a rate (KIP-402, KIP-612). All of them may change while the
//! broker runs. Rates are measured as quotas are, and no wait lasts longer than a sample.
//!
//! The listener that brokers use among themselves is not bound by the broker's own limits if
//! there are others. When there are too many connections, because of it or because a limit fell,
//! the one goes that was silent longest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleuve_http::{Exposition, Kind};
use fleuve_metadata::config::{Listeners, NetworkSettings};
use fleuve_metadata::image::{QuotaEntityType, Quotas as QuotaImage};
use fleuve_os::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::quotas::{Rate, Window};

/// The key of quotas of addresses.
const RATE_KEY: &str = "connection_creation_rate";
/// Addresses whose rates are kept; beyond, those that have become silent are forgotten.
const ADDRESSES_MAX: usize = 10_000;
/// Connections that are kept for a while although they are refused; beyond, they are closed at once.
pub(crate) const DELAYED_MAX: usize = 1_000;

/// When a connection last did something.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    epoch: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { epoch: Instant::now(), last_ms: Arc::default() }
    }
}

impl Activity {
    /// Begins, for a connection that is there now, on the clock of `self`.
    fn begin(&self) -> Self {
        let activity = Self { epoch: self.epoch, last_ms: Arc::default() };
        activity.note(Instant::now());
        activity
    }

    /// Notes that it did something.
    #[inline]
    pub(crate) fn note(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.epoch).as_millis();
        self.last_ms.store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What of a listener's own limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ListenerLimits {
    connections_max: Option<u32>,
    rate_max: Option<u32>,
    is_protected: bool,
}

/// The limits in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct GateLimits {
    /// `max.connections`.
    pub(crate) total_max: usize,
    /// `max.connections.per.ip`.
    pub(crate) per_address_max: usize,
    /// `max.connections.per.ip.overrides`.
    pub(crate) overrides: HashMap<IpAddr, usize>,
    /// `max.connection.creation.rate`: new connections a second.
    pub(crate) rate_max: Option<u32>,
    pub(super) listeners: HashMap<String, ListenerLimits>,
}

impl GateLimits {
    /// Reads the limits out of settings; looks up names of hosts, and so may block.
    pub(crate) fn of(network: &NetworkSettings, listeners: &Listeners) -> Self {
        let mut overrides = HashMap::new();
        for (host, limit) in &network.connections_per_ip_overrides {
            match addresses(host) {
                Ok(found) => overrides.extend(found.into_iter().map(|address| (address, *limit))),
                Err(error) => {
                    tracing::warn!(%host, %error, "no limit of its own for a host without address");
                }
            }
        }
        let several = listeners.all().count() > 1;
        let limits = listeners.all().map(|(_, listener)| {
            let limits = ListenerLimits {
                connections_max: listener.connections_max,
                rate_max: listener.creation_rate_max,
                is_protected: several && listener.name == listeners.inter_broker,
            };
            (listener.name.clone(), limits)
        });
        Self {
            total_max: network.connections_max,
            per_address_max: network.connections_per_ip_max,
            overrides,
            rate_max: network.creation_rate_max,
            listeners: limits.collect(),
        }
    }

    fn of_listener(&self, name: &str) -> ListenerLimits {
        self.listeners.get(name).copied().unwrap_or_default()
    }
}

fn addresses(host: &str) -> std::io::Result<Vec<IpAddr>> {
    match host.parse() {
        Ok(address) => Ok(vec![address]),
        Err(_) => Ok((host, 0).to_socket_addrs()?.map(|found| found.ip()).collect()),
    }
}

/// Counts connections and says who may come in.
#[derive(Debug)]
pub(crate) struct ConnectionGate {
    clock: Arc<dyn Clock>,
    window: Window,
    activity: Activity,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    limits: GateLimits,
    ceiling: Option<usize>,
    /// Quotas of single addresses, and of all others.
    address_rates: HashMap<IpAddr, f64>,
    other_addresses_rate: Option<f64>,
    total: usize,
    per_address: HashMap<IpAddr, usize>,
    per_listener: HashMap<String, PerListener>,
    rate: Rate,
    rates: HashMap<IpAddr, Rate>,
    guests: HashMap<u64, Guest>,
    next_id: u64,
    delayed: usize,
    evicted: u64,
}

/// What happens at one listener.
#[derive(Debug, Default)]
struct PerListener {
    open: usize,
    rate: Rate,
    waits: Rate,
    address_waits: Rate,
    refused: u64,
}

#[derive(Debug)]
struct Guest {
    listener: String,
    activity: Activity,
    task: Option<AbortHandle>,
}

/// What becomes of somebody who has connected.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// May stay; the listener accepts nobody else for this long.
    Admitted(Admission, Duration),
    /// Has to go: there are too many from its address.
    TooMany,
    /// Has to go after this long: they come too fast from its address.
    TooFast(Duration),
}

/// The right to be connected; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    gate: Arc<ConnectionGate>,
    id: u64,
    listener: String,
    address: IpAddr,
    /// When the connection last did something.
    pub(crate) activity: Activity,
}

impl Admission {
    /// Names the task that serves the connection, which ends if it has to go.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl ConnectionGate {
    /// Makes a gate that lets through what `limits` allow.
    pub(crate) fn new(limits: GateLimits, window: Window, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State { limits, ..State::default() });
        Self { clock, window, activity: Activity::default(), state, changed: Notify::new() }
    }

    /// Never lets more than so many in, whatever else is allowed.
    pub(crate) fn with_ceiling(self, ceiling: usize) -> Self {
        self.state.lock().ceiling = Some(ceiling);
        self
    }

    /// Puts other limits in force; who is too many goes.
    pub(crate) fn set_limits(&self, limits: GateLimits) {
        let mut state = self.state.lock();
        state.limits = limits;
        state.evict();
        self.changed.notify_waiters();
    }

    /// Puts the quotas of addresses in force; looks up names of hosts, and so may block.
    pub(crate) fn take_quotas(&self, image: &QuotaImage) {
        let mut rates = HashMap::new();
        let mut others = None;
        for (entity, values) in image.iter() {
            let Some(rate) = values.get(RATE_KEY) else { continue };
            match entity.0.get(&QuotaEntityType::Ip) {
                Some(Some(host)) => match addresses(host) {
                    Ok(found) => rates.extend(found.into_iter().map(|address| (address, *rate))),
                    Err(error) => tracing::warn!(%host, %error, "a quota is not in force"),
                },
                Some(None) => others = Some(*rate),
                None => {}
            }
        }
        let mut state = self.state.lock();
        (state.address_rates, state.other_addresses_rate) = (rates, others);
    }

    /// Connections that are open now.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.state.lock().total
    }

    /// Waits until there is room for one more at this listener.
    pub(crate) async fn wait_for_room(&self, listener: &str) {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().has_room(listener) {
                return;
            }
            changed.await;
        }
    }

    /// Decides about somebody who has connected.
    pub(crate) fn admit(self: &Arc<Self>, listener: &str, address: IpAddr) -> Verdict {
        let now_ms = self.now_ms();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let limit = state.address_rates.get(&address).copied().or(state.other_addresses_rate);
        if let Some(limit) = limit {
            state.forget_addresses(&self.window, now_ms);
            let rate = state.rates.entry(address).or_default();
            let wait_ms = charge(rate, &self.window, limit, now_ms);
            if wait_ms > 0 {
                // It is not let in, and so does not count.
                rate.record(&self.window, -1.0, now_ms);
                let place = state.per_listener.entry(listener.to_owned()).or_default();
                place.address_waits.record(&self.window, wait_ms as f64, now_ms);
                place.refused += 1;
                return Verdict::TooFast(Duration::from_millis(wait_ms));
            }
        }
        let limits = state.limits.of_listener(listener);
        let own = state.limits.overrides.get(&address).copied();
        let most = own.unwrap_or(state.limits.per_address_max);
        let place = state.per_listener.entry(listener.to_owned()).or_default();
        let mut wait_ms = 0;
        if let Some(rate_max) = state.limits.rate_max.filter(|_| !limits.is_protected) {
            wait_ms = charge(&mut state.rate, &self.window, rate_max.into(), now_ms);
        }
        match limits.rate_max {
            Some(rate_max) => {
                let own_ms = charge(&mut place.rate, &self.window, rate_max.into(), now_ms);
                wait_ms = wait_ms.max(own_ms);
            }
            None => place.rate.record(&self.window, 1.0, now_ms),
        }
        if wait_ms > 0 {
            place.waits.record(&self.window, wait_ms as f64, now_ms);
        }
        let count = state.per_address.entry(address).or_default();
        if *count >= most {
            if *count == 0 {
                state.per_address.remove(&address);
            }
            place.refused += 1;
            return Verdict::TooMany;
        }
        *count += 1;
        place.open += 1;
        state.total += 1;
        let id = state.next_id;
        state.next_id += 1;
        let activity = self.activity.begin();
        let guest = Guest { listener: listener.to_owned(), activity: activity.clone(), task: None };
        state.guests.insert(id, guest);
        state.evict();
        let (gate, listener) = (Arc::clone(self), listener.to_owned());
        let admission = Admission { gate, id, listener, address, activity };
        Verdict::Admitted(admission, Duration::from_millis(wait_ms))
    }

    /// Tells which task serves a connection, so that it can be ended.
    pub(crate) fn attach(&self, id: u64, task: AbortHandle) {
        match self.state.lock().guests.get_mut(&id) {
            Some(guest) => guest.task = Some(task),
            // It is over, or has had to go already.
            None => task.abort(),
        }
    }

    /// Ends all connections of a listener.
    pub(crate) fn close_listener(&self, listener: &str) {
        let mut state = self.state.lock();
        state.guests.retain(|_, guest| {
            let stays = guest.listener != listener;
            if let (false, Some(task)) = (stays, &guest.task) {
                task.abort();
            }
            stays
        });
    }

    /// Keeps somebody waiting who is refused; false if there are too many of them.
    pub(crate) fn begin_delay(&self) -> bool {
        let mut state = self.state.lock();
        let has_room = state.delayed < DELAYED_MAX;
        state.delayed += usize::from(has_room);
        has_room
    }

    /// Ends what [`Self::begin_delay`] began.
    pub(crate) fn end_delay(&self) {
        self.state.lock().delayed -= 1;
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.monotonic().as_millis()).unwrap_or(i64::MAX)
    }

    /// Adds how many connect and how fast, by listener.
    pub(crate) fn write(&self, page: &mut Exposition) {
        let now_ms = self.now_ms();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        type Read = fn(&mut PerListener, &Window, i64) -> f64;
        let families: [(&str, Kind, &str, Read); 4] = [
            (
                "connection_accept_rate",
                Kind::Gauge,
                "Connections accepted per second.",
                |it, w, now| it.rate.per_second(w, now),
            ),
            (
                "connection_accept_throttle_time",
                Kind::Gauge,
                "Milliseconds that the listener waited for its rate, on average.",
                |it, w, now| it.waits.mean(w, now),
            ),
            (
                "ip_connection_accept_throttle_time",
                Kind::Gauge,
                "Milliseconds that connections of addresses over their rate waited for their end.",
                |it, w, now| it.address_waits.mean(w, now),
            ),
            (
                "connection_refused_total",
                Kind::Counter,
                "Connections refused for a limit of their address.",
                |it, _, _| it.refused as f64,
            ),
        ];
        for (name, kind, help, read) in families {
            page.family(&format!("kafka_server_socket_server_metrics_{name}"), kind, help);
            for (listener, place) in &mut state.per_listener {
                page.sample(&[("listener", listener)], read(place, &self.window, now_ms));
            }
        }
        page.family(
            "fleuve_connections_evicted_total",
            Kind::Counter,
            "Connections ended because there were too many.",
        )
        .sample(&[], state.evicted as f64);
    }
}

/// Counts one and returns for how many milliseconds to wait.
fn charge(rate: &mut Rate, window: &Window, limit: f64, now_ms: i64) -> u64 {
    rate.record(window, 1.0, now_ms);
    let measured = rate.per_second(window, now_ms);
    if measured <= limit {
        return 0;
    }
    let span_ms = rate.span_ms(window, now_ms) as f64;
    let wait_ms = ((measured - limit) / limit * span_ms).round();
    wait_ms.min(window.sample_ms as f64) as u64
}

impl State {
    fn has_room(&self, listener: &str) -> bool {
        let limits = self.limits.of_listener(listener);
        let open = self.per_listener.get(listener).map_or(0, |place| place.open);
        let has_own_room = limits.connections_max.is_none_or(|most| open < most as usize);
        let has_common_room = limits.is_protected || self.total < self.limits.total_max;
        let fits = self.ceiling.is_none_or(|ceiling| self.total < ceiling);
        has_own_room && has_common_room && fits
    }

    /// Ends connections until there are no longer too many, those first that were silent longest.
    fn evict(&mut self) {
        // Those who were told to go are no longer among the guests.
        let mut excess = self.guests.len().saturating_sub(self.limits.total_max);
        while excess > 0 {
            let oldest = self
                .guests
                .iter()
                .filter(|(_, guest)| !self.limits.of_listener(&guest.listener).is_protected)
                .min_by_key(|(id, guest)| (guest.activity.last_ms.load(Ordering::Relaxed), **id))
                .map(|(id, _)| *id);
            let Some(guest) = oldest.and_then(|id| self.guests.remove(&id)) else { return };
            if let Some(task) = guest.task {
                task.abort();
            }
            self.evicted += 1;
            excess -= 1;
        }
    }

    fn forget_addresses(&mut self, window: &Window, now_ms: i64) {
        if self.rates.len() >= ADDRESSES_MAX {
            self.rates.retain(|_, rate| !rate.is_silent(window, now_ms));
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        {
            let mut state = self.gate.state.lock();
            if let Entry::Occupied(mut count) = state.per_address.entry(self.address) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            if let Some(place) = state.per_listener.get_mut(&self.listener) {
                place.open -= 1;
            }
            state.guests.remove(&self.id);
            state.total -= 1;
        }
        self.gate.changed.notify_waiters();
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;

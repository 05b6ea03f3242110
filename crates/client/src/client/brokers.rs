//! One connection per broker and lane, opened when needed and reopened with backoff.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::Instrument;

use super::{Client, lock};
use crate::config::{ClientConfig, split_address};
use crate::connection::{Connection, Settings};
use crate::error::{Error, Result};
use crate::timing::{Backoff, random_u64};

/// What a connection is used for.
///
/// Brokers answer a connection's requests in order, so that a long poll would hold up whatever is
/// sent behind it. Each lane has its own connection to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Metadata and administration.
    General,
    /// Produce requests.
    Produce,
    /// Fetch requests of one consumer, which wait at the broker for records.
    Fetch(u64),
    /// Group membership of one consumer. A JoinGroup waits for the other members, which may be on the same client: with
    /// a connection in common, the answer that makes one of them rejoin would wait behind it until a session ends.
    Group(u64),
    /// Offset commits and lookups, which must not wait behind a JoinGroup.
    Offsets,
}

/// The connections that one consumer has for itself, closed when it is dropped.
pub(crate) struct OwnLanes {
    client: Client,
    number: u64,
}

impl OwnLanes {
    /// Lanes of `client` that nobody else uses.
    pub(crate) fn new(client: Client) -> Self {
        let number = client.inner.readers.fetch_add(1, Ordering::Relaxed);
        Self { client, number }
    }

    /// The settings.
    pub(crate) fn config(&self) -> &ClientConfig {
        self.client.config()
    }

    /// The connection for fetching from broker `id`.
    pub(crate) async fn fetching(&self, id: i32) -> Result<Connection> {
        self.client.connection(id, Lane::Fetch(self.number)).await
    }

    /// The connection to the group's coordinator, broker `id`.
    pub(crate) async fn grouping(&self, id: i32) -> Result<Connection> {
        self.client.connection(id, Lane::Group(self.number)).await
    }
}

impl Drop for OwnLanes {
    fn drop(&mut self) {
        let own = [Lane::Fetch(self.number), Lane::Group(self.number)];
        lock(&self.client.inner.slots)
            .retain(|key, _| !matches!(key, SlotKey::Broker(_, lane) if own.contains(lane)));
    }
}

/// Names a connection.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum SlotKey {
    /// The entry of the bootstrap list with this index.
    Bootstrap(usize),
    /// The broker with this id.
    Broker(i32, Lane),
}

/// The place of one connection.
pub(super) struct Slot {
    state: tokio::sync::Mutex<State>,
}

struct State {
    connection: Option<Connection>,
    address: (String, u16),
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Client {
    /// Returns a live connection to broker `id`, opening it if need be.
    pub async fn connection(&self, id: i32, lane: Lane) -> Result<Connection> {
        let address = lock(&self.inner.addresses).get(&id).cloned();
        let Some(address) = address else {
            return Err(Error::Disconnected {
                broker: id.to_string(),
                reason: "the cluster's metadata does not name this broker".to_owned(),
                maybe_sent: false,
            });
        };
        self.slot_connection(SlotKey::Broker(id, lane), address).await
    }

    /// Returns a live connection to any broker: a known one, or else one of the bootstrap list.
    pub async fn any_connection(&self) -> Result<Connection> {
        let mut ids: Vec<i32> = self.cluster().brokers().iter().map(|broker| broker.id).collect();
        if !ids.is_empty() {
            let start = random_u64() as usize % ids.len();
            ids.rotate_left(start);
        }
        let mut last = None;
        for id in ids {
            match self.connection(id, Lane::General).await {
                Ok(connection) => return Ok(connection),
                // Wrong credentials are wrong everywhere.
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        // The list counts in its own order: the first address is what the user thinks of.
        let mut refused = true;
        for (index, server) in self.inner.config.first_addresses().iter().enumerate() {
            let (host, port) = split_address(server)?;
            let key = SlotKey::Bootstrap(index);
            match self.slot_connection(key, (host.to_owned(), port)).await {
                Ok(connection) => return Ok(connection),
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => {
                    refused &= is_refused(&error);
                    last = Some(error);
                }
            }
        }
        Err(Error::NoBroker {
            servers: self.inner.config.first_addresses().join(","),
            reason: last.map_or_else(String::new, |error| match error {
                Error::Disconnected { reason, .. } => reason,
                other => other.to_string(),
            }),
            refused,
        })
    }

    /// Closes every connection; calls after this open new ones.
    pub fn disconnect(&self) {
        lock(&self.inner.slots).clear();
    }

    pub(super) fn learn_address(&self, id: i32, host: &str, port: u16) {
        lock(&self.inner.addresses).insert(id, (host.to_owned(), port));
    }

    async fn slot_connection(&self, key: SlotKey, address: (String, u16)) -> Result<Connection> {
        let slot = {
            let mut slots = lock(&self.inner.slots);
            slots.entry(key).or_insert_with(|| Arc::new(self.new_slot(&address))).clone()
        };
        // Holding the lock while connecting makes everybody else wait for the same attempt.
        let mut state = slot.state.lock().await;
        if state.address != address {
            *state = self.new_slot(&address).state.into_inner();
        }
        if let Some(connection) = &state.connection
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        state.connection = None;
        if let Some(not_before) = state.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        let (host, port) = &address;
        let span = tracing::debug_span!("connect", host, port, error = tracing::field::Empty);
        // Opening is rare and long; boxed, it does not swell the future of every call.
        match Box::pin(self.open(&address).instrument(span.clone())).await {
            Ok(connection) => {
                state.backoff.reset();
                // A broker that accepts and then hangs up at once must not be hammered either.
                state.not_before = Some(Instant::now() + self.inner.config.reconnect_backoff);
                state.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                span.record("error", tracing::field::display(&error));
                state.not_before = Some(Instant::now() + state.backoff.next_pause());
                Err(error)
            }
        }
    }

    async fn open(&self, (host, port): &(String, u16)) -> Result<Connection> {
        let config = &self.inner.config;
        let name = format!("{host}:{port}");
        let connecting = self.inner.transport.connect(host, *port, config.response_bytes_max);
        let link = match tokio::time::timeout(config.connect_timeout, connecting).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) if is_tls_failure(&error) => {
                return Err(Error::Authentication {
                    broker: name,
                    reason: format!("the encrypted connection failed: {error}"),
                    is_retriable: false,
                });
            }
            Ok(Err(error)) => {
                return Err(Error::disconnected(&name, &connect_reason(error), false));
            }
            Err(_) => {
                let operation = "the connection attempt";
                return Err(Error::Timeout {
                    broker: name,
                    operation,
                    after: config.connect_timeout,
                });
            }
        };
        let settings = Settings {
            client_id: config.client_id.clone().into(),
            request_timeout: config.request_timeout,
            authenticator: self.inner.authenticator.clone(),
        };
        Connection::open(name, link, settings).await
    }

    fn new_slot(&self, address: &(String, u16)) -> Slot {
        let config = &self.inner.config;
        let state = State {
            connection: None,
            address: address.clone(),
            backoff: Backoff::new(config.reconnect_backoff, config.reconnect_backoff_max),
            not_before: None,
        };
        Slot { state: tokio::sync::Mutex::new(state) }
    }
}

/// Reports whether the two sides could not agree on encryption, rather than lost each other.
fn is_tls_failure(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// The text of a refused connection, by which [`Error::NoBroker`] recognises it.
const REFUSED: &str = "connection refused";

fn connect_reason(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => io::Error::other(REFUSED),
        _ => error,
    }
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Disconnected { reason, .. } if reason == REFUSED)
}

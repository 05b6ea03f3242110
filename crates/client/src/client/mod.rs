//! The shared heart of producers, consumers and admin clients: knows the cluster and finds the
//! right broker for a request.
//!
//! - [`Client`] holds the settings, the metadata snapshot and the connections.
//! - `brokers` opens one connection per broker and [`Lane`], and reopens it with backoff.
//! - `metadata` refreshes the snapshot, once for many who ask at the same time.
//! - `routing` retries calls to any broker, to partition leaders and to group coordinators.

mod brokers;
mod metadata;
mod routing;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cluster::Cluster;
use crate::config::ClientConfig;
use crate::connection::Authenticator;
use crate::error::Result;
use crate::timing::Backoff;
use crate::transport::{TcpTransport, TlsTransport, Transport};

pub use brokers::Lane;
pub(crate) use brokers::OwnLanes;
pub(crate) use metadata::{CONTROLLERS, Scope};
pub(crate) use routing::{Coordinated, PartitionAnswer};

/// A client of one cluster; clones share everything.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    transport: Arc<dyn Transport>,
    authenticator: Option<Arc<Authenticator>>,
    cluster: Mutex<Arc<Cluster>>,
    /// Held while metadata is being fetched.
    refreshing: tokio::sync::Mutex<()>,
    slots: Mutex<HashMap<brokers::SlotKey, Arc<brokers::Slot>>>,
    /// How many consumers there have been.
    readers: AtomicU64,
    /// Addresses of brokers, from metadata and from coordinator answers.
    addresses: Mutex<HashMap<i32, (String, u16)>>,
    /// Brokers by the key type and key of what they coordinate.
    coordinators: Mutex<HashMap<(i8, String), i32>>,
}

impl Client {
    /// Makes a client over TCP or TLS and asks the bootstrap brokers once who is there.
    ///
    /// It fails at once when none of them can be reached, rather than after a long retry: at this
    /// point a wrong address is likelier than a restarting cluster.
    pub async fn connect(config: ClientConfig) -> Result<Self> {
        let transport: Arc<dyn Transport> = match &config.security.tls {
            Some(tls) => Arc::new(TlsTransport::new(tls)?),
            None => Arc::new(TcpTransport),
        };
        let client = Self::with_transport(config, transport);
        client.refresh_once(Scope::Brokers).await?;
        Ok(client)
    }

    /// Makes a client over `transport` without asking anybody yet.
    pub fn with_transport(config: ClientConfig, transport: Arc<dyn Transport>) -> Self {
        let security = config.security.clone();
        let authenticator =
            security.sasl.map(|sasl| Arc::new(Authenticator::new(sasl, security.tls)));
        let inner = Inner {
            config,
            transport,
            authenticator,
            cluster: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            slots: Mutex::default(),
            readers: AtomicU64::new(0),
            addresses: Mutex::default(),
            coordinators: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the settings.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// Returns what is known about the cluster now, without asking.
    pub fn cluster(&self) -> Arc<Cluster> {
        lock(&self.inner.cluster).clone()
    }

    pub(crate) fn retry_backoff(&self) -> Backoff {
        let config = &self.inner.config;
        Backoff::new(config.retry_backoff, config.retry_backoff_max)
    }
}

/// Locks a mutex whose data stays whole even if a holder panicked: holders only insert and remove.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

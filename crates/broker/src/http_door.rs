//! The HTTP door of a broker: where it listens, what visitors have to keep to, and its certificates,
//! which are read again when their files or the settings change.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fleuve_http::{Rules, Server};
use fleuve_metadata::config::{BrokerSettings, HostPort, TlsSettings};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::rustls::ServerConfig;

use crate::authentication::tls_config;
use crate::broker::StartError;
use crate::listening::{FILES_LOOK, FileTimes, file_times};
use crate::node::Node;
use crate::probe::NodeProbe;

/// The door of a running broker.
#[derive(Debug)]
pub(crate) struct HttpDoor {
    server: Server,
    renewal: Option<JoinHandle<()>>,
}

impl HttpDoor {
    /// Opens the door, if there is to be one. A broker without metrics is better than none, so that
    /// a taken port only earns a warning, unless somebody asked for that very port.
    pub(crate) async fn open(
        settings: &BrokerSettings,
        node: &Arc<Node>,
    ) -> Result<Option<Self>, StartError> {
        let metrics = &settings.metrics;
        let Some(HostPort { host, port }) = metrics.listen.clone() else { return Ok(None) };
        let host = if host.is_empty() { "0.0.0.0".to_owned() } else { host };
        let certificates = match &metrics.tls {
            Some(tls) => {
                let read = Certificates::read(tls).await;
                let failed =
                    |reason| StartError::Protection { listener: "HTTP".to_owned(), reason };
                Some(read.map_err(failed)?)
            }
            None => None,
        };
        let rules = Rules {
            connections_max: metrics.connections_max,
            silence_max: Duration::from_millis(metrics.idle_max_ms),
            tls: certificates.as_ref().map(|certificates| certificates.current.subscribe()),
        };
        let started = async {
            let probe = NodeProbe::new(Arc::clone(node)).await.map_err(io::Error::other)?;
            let address = lookup_host((host.as_str(), port)).await?.next();
            let address = address.ok_or_else(|| io::Error::other("the host has no address"))?;
            Server::start_by(rules, address, Arc::new(probe)).await
        };
        match started.await {
            Ok(server) => {
                let renewal = certificates.map(|certificates| {
                    let node = Arc::downgrade(node);
                    tokio::spawn(certificates.keep(node))
                });
                Ok(Some(Self { server, renewal }))
            }
            Err(error) if metrics.listen_is_explicit => {
                Err(StartError::Metrics { host, port, error })
            }
            Err(error) => {
                tracing::warn!(%host, port, %error, "metrics are not served");
                Ok(None)
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Closes it once requests under way are answered.
    pub(crate) async fn shutdown(self) {
        if let Some(renewal) = self.renewal {
            renewal.abort();
        }
        self.server.shutdown().await;
    }
}

/// The certificates in use, and what they were read from.
struct Certificates {
    settings: TlsSettings,
    files: FileTimes,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Certificates {
    async fn read(settings: &TlsSettings) -> Result<Self, String> {
        let files = file_times([settings]).await;
        let current = watch::Sender::new(tls_config(settings).await?);
        Ok(Self { settings: settings.clone(), files, current })
    }

    /// Follows files and settings until the broker is gone.
    async fn keep(mut self, node: Weak<Node>) {
        loop {
            sleep(FILES_LOOK).await;
            let Some(node) = node.upgrade() else { return };
            let settings = node.settings();
            if let Some(wanted) = &settings.metrics.tls {
                self.follow(wanted).await;
            }
        }
    }

    /// Reads certificates again if they come from elsewhere now, or if a file has changed. What
    /// cannot be used leaves the old ones in force, and is said once.
    async fn follow(&mut self, wanted: &TlsSettings) {
        let files = file_times([wanted]).await;
        if *wanted == self.settings && files == self.files {
            return;
        }
        match tls_config(wanted).await {
            Ok(config) => {
                self.current.send_replace(config);
                tracing::info!("certificates of the HTTP door read again");
            }
            Err(reason) => {
                tracing::error!(%reason, "changed certificates of the HTTP door are not used");
            }
        }
        (self.settings, self.files) = (wanted.clone(), files);
    }
}

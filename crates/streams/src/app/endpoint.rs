//! The HTTP door of an application: its stores in JSON, its metrics.
//!
//! There is no authentication: whoever can reach the address can read the state. So it is meant for the loopback or for a
//! network of the application's own, and it answers only under an address or its own name, because a foreign name that
//! points here would make this site a part of the foreign one in a browser's eyes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fleuve_http::{Ask, Asked, Exposition, Page, Probe, Server};
use serde_json::json;

use super::StreamsError;
use super::inside::Inside;

/// What is listening before it is known who answers.
pub(super) struct Endpoint {
    inside: Arc<Inside>,
    /// The name under which others know this instance.
    host: String,
}

/// Finds the address to listen on: `HOST:PORT`, or `:PORT` on the loopback. Returns the host beside it.
pub(super) async fn address(server: &str) -> Result<(String, SocketAddr), StreamsError> {
    let wrong = |cause: String| StreamsError::ApplicationServer { given: server.to_owned(), cause };
    let (host, port) =
        server.rsplit_once(':').ok_or_else(|| wrong("it is HOST:PORT, or :PORT".to_owned()))?;
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let found = tokio::net::lookup_host(format!("{host}:{port}")).await;
    let address = found.map_err(|error| wrong(error.to_string()))?.next();
    let address = address.ok_or_else(|| wrong("the host has no address".to_owned()))?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the state can be read by whoever reaches this address");
    }
    Ok((host.to_owned(), address))
}

impl Endpoint {
    pub(super) fn new(inside: Arc<Inside>, host: String) -> Self {
        Self { inside, host }
    }

    /// Begins to answer.
    pub(super) async fn start(self, address: SocketAddr) -> Result<Server, StreamsError> {
        let given = address.to_string();
        Server::start(address, Arc::new(self))
            .await
            .map_err(|error| StreamsError::ApplicationServer { given, cause: error.to_string() })
    }

    fn is_own(&self, asked: &str) -> bool {
        let name = match asked.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => asked,
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        name == "localhost" || name == self.host || bare.parse::<IpAddr>().is_ok()
    }
}

impl Probe for Endpoint {
    fn write_metrics(&self, page: &mut Exposition) {
        self.inside.write_metrics(page);
    }

    fn readiness(&self) -> Result<(), String> {
        let tasks = self.inside.shelf.tasks();
        let restoring = tasks.values().filter(|ready| !**ready).count();
        match restoring {
            0 => Ok(()),
            count => Err(format!("{count} of {} tasks are being restored", tasks.len())),
        }
    }

    fn answers_to(&self, host: &str) -> bool {
        self.is_own(host)
    }

    fn page<'a>(&'a self, ask: &'a Ask) -> Asked<'a> {
        Box::pin(async move {
            if !self.is_own(&ask.host) {
                let message = "ask for this instance by its address";
                let json = json!({ "error": "misdirected", "message": message }).to_string();
                return Some(Page { status: 421, json });
            }
            let page = match self.inside.get(&ask.path).await {
                Some(reply) => Page { status: reply.status, json: reply.json.to_string() },
                None => {
                    let message = "see /stores, /instances, /topology, /traces, /metrics, /healthz and /readyz";
                    let json = json!({ "error": "unknown_path", "message": message }).to_string();
                    Page { status: 404, json }
                }
            };
            Some(page)
        })
    }
}

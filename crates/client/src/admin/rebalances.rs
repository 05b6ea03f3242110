//! Why a group rebalanced: an extra of Fleuve's, which it tells at its HTTP door.
//!
//! Kafka's protocol has no words for it. Where the door is stands in the configuration of the
//! group's coordinator, which the protocol does tell, so that nobody has to know a second address.
//!
//! A door that wants to know who asks gets the name and password of PLAIN or SCRAM, as they are, only
//! if the caller named the door and it is on this machine: what stands in a broker's configuration
//! could be the address of somebody who collects passwords.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use serde::Deserialize;
use tokio::net::TcpStream;

use super::{Admin, Resource};
use crate::config::SaslConfig;
use crate::error::{Error, Result};
use crate::http::exchange;

/// The setting that says where a broker's HTTP door is.
const DOOR: &str = "fleuve.metrics.listen";

/// How long the door may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One rebalance of a group.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Rebalance {
    /// When it began, in milliseconds since 1970.
    pub at_ms: i64,
    /// The epoch or generation that ended.
    pub ended_epoch: i32,
    /// What set it off.
    pub cause: String,
    /// The member that set it off, if it was one.
    pub member: Option<String>,
    /// The reason that the client gave, if it gave one.
    pub client_reason: Option<String>,
}

/// The page of a group.
#[derive(Deserialize)]
struct Page {
    cluster: String,
    rebalances: Vec<Rebalance>,
}

/// What the door says instead.
#[derive(Deserialize)]
struct Refusal {
    cluster: String,
    error: String,
}

impl Admin {
    /// Tells the last rebalances of a group, oldest first, whatever its protocol.
    ///
    /// `door` is the address of the coordinator's HTTP door, `HOST:PORT`; without one the
    /// coordinator is asked where it is. Only Fleuve keeps such a history.
    pub async fn rebalances(&self, group: &str, door: Option<&str>) -> Result<Vec<Rebalance>> {
        let shown = door.and_then(|_| self.basic_credentials());
        let door = match door {
            Some(door) => door.to_owned(),
            None => self.door_of_coordinator(group).await?,
        };
        let failed = |reason: String| {
            Error::config(format!(
                "no history of group {group} from the broker's HTTP door at {door}: {reason}; \
                 if it is elsewhere, pass its address"
            ))
        };
        let asking = tokio::time::timeout(TIMEOUT, get(&door, group, shown));
        let (status, body) = match asking.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => return Err(failed(reason)),
            Err(_) => return Err(failed(format!("no answer within {} ms", TIMEOUT.as_millis()))),
        };
        if status == StatusCode::UNAUTHORIZED {
            return Err(failed(
                "it wants to know who asks, and gets the name and password of PLAIN or SCRAM if it \
                 is on this machine and its address is passed"
                    .to_owned(),
            ));
        }
        let (cluster, outcome) = if status == StatusCode::OK {
            let page: Page = serde_json::from_slice(&body)
                .map_err(|_| failed("it is not a door of Fleuve".to_owned()))?;
            (page.cluster, Ok(page.rebalances))
        } else {
            let refusal: Refusal = serde_json::from_slice(&body)
                .map_err(|_| failed(format!("it answered {status}")))?;
            let error = Error::config(format!("group {group}: {}", refusal.error));
            (refusal.cluster, Err(error))
        };
        // On one machine the usual port may be somebody else's.
        if cluster != self.describe_cluster().await?.id {
            return Err(failed("it is of another cluster".to_owned()));
        }
        outcome
    }

    /// What a door takes as proof of who asks.
    fn basic_credentials(&self) -> Option<String> {
        let (user, password) = match self.client.config().security.sasl.as_ref()? {
            SaslConfig::Plain { user, password } => (user, password),
            SaslConfig::ScramSha256(known) | SaslConfig::ScramSha512(known) => {
                (&known.user, &known.password)
            }
            SaslConfig::OAuthBearer(_) => return None,
        };
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose()))))
    }

    async fn door_of_coordinator(&self, group: &str) -> Result<String> {
        let coordinator = self.client.coordinator(group).await?;
        let resource = Resource::Broker(coordinator.to_string());
        let configs = self.describe_configs(&resource, false).await?;
        let Some(entry) = configs.into_iter().find(|entry| entry.name == DOOR) else {
            return Err(Error::config(format!(
                "broker {coordinator} keeps no history of rebalances, as only Fleuve does; Apache \
                 Kafka writes the reasons into the broker's log file"
            )));
        };
        let listen = entry.value.unwrap_or_default();
        if listen.is_empty() {
            return Err(Error::config(format!(
                "the HTTP door of broker {coordinator} is closed: set {DOOR}"
            )));
        }
        let (host, port) = listen.rsplit_once(':').unwrap_or((listen.as_str(), ""));
        if port == "0" {
            return Err(Error::config(format!(
                "broker {coordinator} chose the port of its HTTP door by itself ({DOOR}={listen}): \
                 pass the door's address"
            )));
        }
        let is_anywhere = matches!(host, "" | "0.0.0.0" | "[::]" | "::");
        if !is_anywhere {
            return Ok(listen);
        }
        // Then the door is wherever clients reach the broker.
        let cluster = self.describe_cluster().await?;
        let broker = cluster.brokers.into_iter().find(|broker| broker.id == coordinator);
        let host = broker.map_or_else(|| host.to_owned(), |broker| broker.host);
        Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }
}

async fn get(
    door: &str,
    group: &str,
    shown: Option<String>,
) -> Result<(StatusCode, Bytes), String> {
    let stream = TcpStream::connect(door).await.map_err(|error| error.to_string())?;
    let mut request = Request::get(format!("/groups/{}/rebalances", percent_encoded(group)))
        .header(header::HOST, door)
        .header(header::ACCEPT, "application/json");
    let is_here = stream.peer_addr().is_ok_and(|address| address.ip().is_loopback());
    if let Some(shown) = shown.filter(|_| is_here) {
        request = request.header(header::AUTHORIZATION, shown);
    }
    let request = request.body(Full::default()).map_err(|error| error.to_string())?;
    exchange(stream, request).await
}

/// Encodes a name for a place between two slashes.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

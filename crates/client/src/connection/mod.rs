//! One connection to one broker: many requests in flight over one link.
//!
//! [`Connection::open`] asks the broker for its API versions; after that [`Connection::submit`]
//! puts a request into the queue at once and returns a [`Response`] to wait for, so that callers
//! who need an order get it by submitting in that order. One task per connection writes the queue
//! and hands answers to their waiters by correlation id; answers are decoded by whoever waits.
//!
//! A connection never reconnects. When it breaks, every waiter learns whether its request may
//! have reached the broker, and the layer above ([`crate::client`]) opens a new one. A request
//! that times out closes its connection, because a broker answers in order and everything behind
//! the late answer would be late too.

mod pump;
mod response;
mod sasl;
mod versions;

#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::{
    ApiKey, DecodeError, ErrorCode, Message, Pieces, Reader, Request, Str, frame,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::error::{Error, Result, check};
use crate::transport::Link;

pub use response::Response;
pub use sasl::Authenticator;
pub use versions::Versions;

use pump::Outgoing;

/// Settings of a connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name in request headers.
    pub client_id: Str,
    /// How long a request waits for its answer.
    pub request_timeout: Duration,
    /// Proves who we are, where that is asked for.
    pub authenticator: Option<Arc<Authenticator>>,
}

/// A connection to a broker; clones share it.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

/// What the handles and the task of a connection have in common.
struct Shared {
    broker: String,
    settings: Settings,
    versions: OnceLock<Versions>,
    next_correlation_id: AtomicI32,
    queue: mpsc::UnboundedSender<Outgoing>,
    /// Requests of an authentication; the others wait while `hold` is true.
    auth_queue: mpsc::UnboundedSender<Outgoing>,
    hold: watch::Sender<bool>,
    closed: AtomicBool,
    close_asked: Arc<Notify>,
}

impl Connection {
    /// Takes over `link` to the broker named `broker` (its address, for errors) and negotiates
    /// versions.
    pub async fn open(broker: String, link: Link, settings: Settings) -> Result<Self> {
        let (queue, outgoing) = mpsc::unbounded_channel();
        let (auth_queue, auth_outgoing) = mpsc::unbounded_channel();
        let (hold, held) = watch::channel(false);
        let close_asked = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            broker: broker.clone(),
            settings,
            versions: OnceLock::new(),
            next_correlation_id: AtomicI32::new(0),
            queue,
            auth_queue,
            hold,
            closed: AtomicBool::new(false),
            close_asked: close_asked.clone(),
        });
        let queues = pump::Queues { requests: outgoing, auth: auth_outgoing, held };
        tokio::spawn(pump::run(link, queues, Arc::downgrade(&shared), broker, close_asked));
        let connection = Self { shared };
        let versions = connection.negotiate().await?;
        connection.shared.versions.set(versions).expect("negotiated once");
        if let Some(authenticator) = connection.shared.settings.authenticator.clone()
            && let Some(lifetime) = authenticator.authenticate(&connection).await?
        {
            let shared = Arc::downgrade(&connection.shared);
            tokio::spawn(renew(shared, authenticator, lifetime));
        }
        Ok(connection)
    }

    /// Returns the broker's address.
    pub fn broker(&self) -> &str {
        &self.shared.broker
    }

    /// Returns what the broker offers.
    pub fn versions(&self) -> &Versions {
        self.shared.versions.get().expect("handles exist only after negotiation")
    }

    /// Reports whether the connection has broken or been closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Closes the connection; requests in flight fail.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Returns the version in which `R` is sent: the newest that both sides speak, `cap` at most.
    pub fn version_of<R: Request>(&self, cap: i16) -> Result<i16> {
        let ours = R::VALID_VERSIONS;
        self.versions().choose(R::KEY, ours.min, ours.max.min(cap)).ok_or_else(|| {
            Error::Unsupported { broker: self.shared.broker.clone(), operation: R::KEY.name() }
        })
    }

    /// Sends `request` in the newest version and waits for the answer.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response> {
        self.submit(request, self.version_of::<R>(i16::MAX)?)?.wait().await
    }

    /// Sends `request` in the newest version and waits for the answer up to `timeout`.
    pub async fn call_within<R: Request>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response> {
        self.submit(request, self.version_of::<R>(i16::MAX)?)?.within(timeout).wait().await
    }

    /// Queues `request` at once and returns the answer to come.
    pub fn submit<R: Request>(&self, request: &R, version: i16) -> Result<Response<R>> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(request, version, Some(reply))?;
        Ok(Response::new(self.shared.clone(), answer, version))
    }

    /// Queues a request that the broker does not answer (Produce with acks=0).
    pub fn submit_unanswered<R: Request>(&self, request: &R, version: i16) -> Result<()> {
        self.enqueue(request, version, None)
    }

    /// Sends a request of an authentication, past those that are held back.
    async fn call_held<R: Request>(&self, request: &R, version: i16) -> Result<R::Response> {
        let (reply, answer) = oneshot::channel();
        self.enqueue_on(&self.shared.auth_queue, request, version, Some(reply))?;
        Response::<R>::new(self.shared.clone(), answer, version).wait().await
    }

    fn enqueue<R: Request>(
        &self,
        request: &R,
        version: i16,
        reply: Option<oneshot::Sender<Result<Pieces>>>,
    ) -> Result<()> {
        self.enqueue_on(&self.shared.queue, request, version, reply)
    }

    fn enqueue_on<R: Request>(
        &self,
        queue: &mpsc::UnboundedSender<Outgoing>,
        request: &R,
        version: i16,
        reply: Option<oneshot::Sender<Result<Pieces>>>,
    ) -> Result<()> {
        let correlation_id = self.shared.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let client_id = Some(&self.shared.settings.client_id);
        let segments = frame::encode_request(correlation_id, client_id, request, version).map_err(
            |error| Error::Encode { operation: R::KEY.name(), reason: error.to_string() },
        )?;
        let outgoing = Outgoing { correlation_id, segments, reply };
        queue.send(outgoing).map_err(|_| Error::Disconnected {
            broker: self.shared.broker.clone(),
            reason: "the connection is closed".to_owned(),
            maybe_sent: false,
        })
    }

    /// Asks for the broker's versions, beginning with our newest way of asking (KIP-511).
    async fn negotiate(&self) -> Result<Versions> {
        let ours = ApiVersionsRequest::VALID_VERSIONS;
        let request = ApiVersionsRequest {
            client_software_name: "fleuve".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let frame = self.submit(&request, ours.max)?.wait_frame().await?;
        // A broker that does not know the version answers in the oldest format with error 35 and
        // what it does know. The error code stands behind the correlation id in every version.
        let head = frame.first_chunk::<6>();
        let refused = head.map(|[.., high, low]| i16::from_be_bytes([high, low]))
            == Some(ErrorCode::UnsupportedVersion.code());
        let answered_in = if refused { 0 } else { ours.max };
        let mut response = self.shared.decode::<ApiVersionsRequest>(frame, answered_in)?;
        if refused {
            let offered = Versions::new(&response);
            let version =
                offered.choose(ApiKey::ApiVersions, ours.min, ours.max).unwrap_or(ours.min);
            let oldest = ApiVersionsRequest::default();
            // Before version 3 the request has no fields at all.
            let request = if version >= 3 { &request } else { &oldest };
            response = self.submit(request, version)?.wait().await?;
        }
        check(response.error_code, || format!("ApiVersions at {}", self.shared.broker))?;
        Ok(Versions::new(&response))
    }
}

/// Authenticates a connection again and again, as long as somebody holds it.
async fn renew(shared: Weak<Shared>, authenticator: Arc<Authenticator>, mut lifetime: Duration) {
    loop {
        tokio::time::sleep(sasl::renew_after(lifetime)).await;
        let Some(shared) = shared.upgrade().filter(|shared| !shared.is_closed()) else { return };
        let connection = Connection { shared };
        connection.shared.hold.send_replace(true);
        let renewed = match authenticator.authenticate(&connection).await {
            Ok(renewed) => renewed,
            Err(error) => {
                // The broker would close it at the end of the session, with requests in flight. What
                // is held back stays so: the broker would take it for a part of the authentication.
                tracing::warn!(broker = connection.broker(), %error, "authenticating again failed");
                return connection.close();
            }
        };
        connection.shared.hold.send_replace(false);
        match renewed {
            Some(again) => lifetime = again,
            None => return,
        }
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.close_asked.notify_one();
    }

    /// Reads the answer to an `R` of `version` out of its frame.
    fn decode<R: Request>(&self, frame: Pieces, version: i16) -> Result<R::Response> {
        self.read::<R, _>(frame, version, |body| R::Response::decode(body, version))
    }

    /// Reads the answer to an `R` of `version` out of its frame, and gives fields of bytes that
    /// stand in several pieces as they are, see [`Reader::keep_spans`].
    fn decode_spans<R: Request>(
        &self,
        frame: Pieces,
        version: i16,
    ) -> Result<(R::Response, Vec<Vec<Bytes>>)> {
        self.read::<R, _>(frame, version, |body| {
            body.keep_spans();
            Ok((R::Response::decode(body, version)?, body.take_spans()))
        })
    }

    fn read<R: Request, T>(
        &self,
        frame: Pieces,
        version: i16,
        decode: impl FnOnce(&mut Reader) -> std::result::Result<T, DecodeError>,
    ) -> Result<T> {
        frame::decode_response_header(frame, R::KEY, version)
            .and_then(|(_, mut body)| decode(&mut body))
            .map_err(|error| Error::Protocol {
                broker: self.broker.clone(),
                operation: R::KEY.name(),
                reason: error.to_string(),
            })
    }
}

//! A request on its way through a handler.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fleuve_metadata::config::Role;
use fleuve_os::Piece;
use fleuve_protocol::messages::ApiKey;
use fleuve_protocol::{EncodeError, Message, Str, frame};

use crate::access::Remembered;
use crate::authentication::{Identity, Misstep, Stepped};
use crate::connection::{Activity, CloseReason};
use crate::node::Node;
use crate::quotas::Client;

/// An answer that is not here yet.
pub(crate) type Pending<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// What a handler needs to know besides the request.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The broker's state.
    pub(crate) node: Arc<Node>,
    /// The connection that the request came over.
    pub(crate) peer: Arc<Peer>,
    /// What the client calls itself.
    pub(crate) client_id: Str,
    /// The API that was called.
    pub(crate) api: ApiKey,
    /// Version of the request.
    pub(crate) version: i16,
    /// Size of the frame that the request is a part of.
    pub(crate) frame_bytes: usize,
}

impl Context {
    /// Whose quotas the request is charged to; `None` while nobody has any.
    pub(crate) fn limited_client(&self) -> Option<Client> {
        if !self.node.quotas.are_set() {
            return None;
        }
        let user = self.peer.identity.principal()?.name();
        Some(Client { user: Str::copy_from(user), client_id: self.client_id.clone() })
    }
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Which of our listeners it came to, as an index; replies name the addresses of that one.
    pub(crate) listener: usize,
    /// Whom it talks to there.
    pub(crate) asks: Role,
    /// The name and version of its library, once it has told.
    pub(crate) software: OnceLock<(Str, Str)>,
    /// Who it is, or how far it has come in proving that.
    pub(crate) identity: Identity,
    /// Notes when it does something, where somebody wants to know.
    pub(crate) activity: Option<Activity>,
    /// Until when nothing is read from it.
    pub(crate) mute: Mute,
    /// What it was allowed to do.
    pub(crate) remembered: Remembered,
}

/// The time until which a connection is not read from, because its client is over a quota.
#[derive(Debug)]
pub(crate) struct Mute {
    epoch: Instant,
    /// Microseconds after the epoch; 0 while it is read from.
    until_us: AtomicU64,
    /// When the last pause began and when it ended, in microseconds after the epoch.
    last_us: [AtomicU64; 2],
}

impl Default for Mute {
    fn default() -> Self {
        Self { epoch: Instant::now(), until_us: AtomicU64::new(0), last_us: Default::default() }
    }
}

impl Mute {
    /// Begins a pause of at least this length.
    pub(crate) fn begin(&self, pause: Duration) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let begun = self.epoch.elapsed();
        let until_us = micros(begun + pause);
        if self.until_us.fetch_max(until_us, Ordering::Relaxed) == 0 {
            self.last_us[0].store(micros(begun), Ordering::Relaxed);
        }
        self.last_us[1].fetch_max(until_us, Ordering::Relaxed);
    }

    /// How much of the time between the two was a pause.
    #[inline]
    pub(crate) fn pause_within(&self, from: Instant, to: Instant) -> Duration {
        let [begun, ended] = &self.last_us;
        let ended_us = ended.load(Ordering::Relaxed);
        if ended_us == 0 {
            return Duration::ZERO;
        }
        let begun = self.epoch + Duration::from_micros(begun.load(Ordering::Relaxed));
        let ended = self.epoch + Duration::from_micros(ended_us);
        ended.min(to).saturating_duration_since(begun.max(from))
    }

    /// The end of the pause, while there is one.
    #[inline]
    pub(crate) fn until(&self) -> Option<Instant> {
        let until_us = self.until_us.load(Ordering::Relaxed);
        if until_us == 0 {
            return None;
        }
        let until = self.epoch + Duration::from_micros(until_us);
        if until > Instant::now() {
            return Some(until);
        }
        let order = Ordering::Relaxed;
        // A pause that has begun meanwhile stays.
        let _ = self.until_us.compare_exchange(until_us, 0, order, order);
        None
    }
}

impl Peer {
    /// Somebody who need not say who it is, and has not said anything yet.
    pub(crate) fn new(address: SocketAddr, listener: usize) -> Self {
        Self::identified(address, listener, Identity::default())
    }

    /// Somebody who has not said anything yet but what `identity` holds.
    pub(crate) fn identified(address: SocketAddr, listener: usize, identity: Identity) -> Self {
        let (software, remembered, mute) = Default::default();
        let (asks, activity) = (Role::Broker, None);
        Self { address, listener, asks, software, identity, activity, mute, remembered }
    }

    /// Takes a message of the exchange in which it says who it is.
    pub(crate) fn authenticate(&self, node: &Node, message: &[u8]) -> Result<Stepped, Misstep> {
        let is_again = self.identity.principal().is_some();
        let image = node.image();
        let stepped = self.identity.step(message, node.present(&image));
        let has_succeeded = match &stepped {
            Ok(stepped) => stepped.is_done.then_some(true),
            Err(Misstep::Refused(_) | Misstep::OtherPrincipal) => Some(false),
            Err(Misstep::AlreadyKnown | Misstep::OutOfTurn | Misstep::Mechanism) => None,
        };
        if let Some(has_succeeded) = has_succeeded {
            self.count_authentication(node, is_again, has_succeeded);
        }
        stepped
    }

    /// Counts how saying who it is has ended.
    pub(crate) fn count_authentication(&self, node: &Node, is_again: bool, has_succeeded: bool) {
        // Connections from within the process belong to no listener, and need not say who they are.
        if let Some(listener) = node.listeners.read().get(self.listener) {
            listener.authentications.count(is_again, has_succeeded);
        }
    }
}

/// What a handler makes of a request.
pub(crate) enum Outcome<R> {
    /// The response.
    Now(R),
    /// The response comes later; what must happen in order has happened.
    Later(Pending<R>),
    /// The response comes later, and the connection's next request must not begin before.
    Barrier(Pending<R>),
    /// The client expects no response.
    Silence,
    /// The connection must be closed instead.
    Close(CloseReason),
}

impl<R> From<R> for Outcome<R> {
    fn from(response: R) -> Self {
        Self::Now(response)
    }
}

impl<R> Outcome<R> {
    /// An answer for which the connection's later requests have to wait.
    pub(crate) fn barrier(future: impl Future<Output = R> + Send + 'static) -> Self {
        Self::Barrier(Box::pin(future))
    }

    /// An answer that later requests of the connection may overtake in their work.
    pub(crate) fn later(future: impl Future<Output = R> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

/// A response that can be put on the wire.
pub(crate) trait IntoFrame: Send + 'static {
    /// Tells `each` every error code in the response, 0 for none.
    fn error_codes(&self, each: &mut dyn FnMut(i16));

    /// Where the response says how long the client has to wait, if it can.
    fn throttle_time_ms(&mut self) -> Option<&mut i32>;

    /// Writes the whole frame, its length included, in pieces that follow one another.
    fn into_frame(
        self,
        key: ApiKey,
        correlation_id: i32,
        version: i16,
    ) -> Result<Vec<Piece>, EncodeError>;
}

impl<M: Message + Send + 'static> IntoFrame for M {
    fn error_codes(&self, each: &mut dyn FnMut(i16)) {
        Message::error_codes(self, each);
    }

    fn throttle_time_ms(&mut self) -> Option<&mut i32> {
        Message::throttle_time_ms(self)
    }

    fn into_frame(
        self,
        key: ApiKey,
        correlation_id: i32,
        version: i16,
    ) -> Result<Vec<Piece>, EncodeError> {
        let segments = frame::encode_response(key, correlation_id, &self, version)?;
        Ok(segments.into_iter().map(Piece::Memory).collect())
    }
}

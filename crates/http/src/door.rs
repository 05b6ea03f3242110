//! The socket of the HTTP door: so many connections at once, none of which may be silent for long, in
//! TLS or not.
//!
//! Whoever holds connections without using them would otherwise keep everybody else out. So a
//! connection needs a place before it is accepted, and loses it when it neither brings nor takes a
//! byte for a while, or takes that long to bring a whole request, however many bytes it drips.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::{Exposition, Kind};

/// How long a TLS handshake may take, if silence may last that long.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long requests may go on once the door closes.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What connections have to keep to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Connections at once; more wait in the system's queue.
    pub connections_max: usize,
    /// A connection ends that neither brings nor takes a byte for this long, or takes this long to
    /// bring a whole request.
    pub silence_max: Duration,
    /// TLS, if connections are encrypted. What is in force when a connection arrives holds for it.
    pub tls: Option<watch::Receiver<Arc<ServerConfig>>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { connections_max: 100, silence_max: Duration::from_secs(60), tls: None }
    }
}

/// What has become of connections.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    accepted: AtomicU64,
    ended: AtomicU64,
    waits: AtomicU64,
    silent: AtomicU64,
    unshaken: AtomicU64,
}

impl Counts {
    /// Adds the families about connections.
    pub(crate) fn write(&self, page: &mut Exposition) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        // In this order the difference is never negative.
        let ended = read(&self.ended);
        let accepted = read(&self.accepted);
        page.family("fleuve_http_connections", Kind::Gauge, "Connections to the HTTP door.")
            .sample(&[], accepted - ended);
        let counters = [
            ("connections_total", "Connections accepted at the HTTP door.", &self.accepted),
            (
                "connection_waits_total",
                "Times that the HTTP door was full and the next connection had to wait.",
                &self.waits,
            ),
            (
                "connections_silent_total",
                "Connections to the HTTP door ended because they were silent or slow.",
                &self.silent,
            ),
            (
                "tls_handshakes_failed_total",
                "Connections to the HTTP door that did not come to TLS.",
                &self.unshaken,
            ),
        ];
        for (name, help, count) in counters {
            page.family(&format!("fleuve_http_{name}"), Kind::Counter, help)
                .sample(&[], read(count));
        }
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
    /// The certificate that it has shown, which an authority that is trusted has signed.
    pub(crate) certificate: Option<Arc<[u8]>>,
}

/// Accepts connections as long as there is room.
pub(crate) struct Door {
    listener: TcpListener,
    room: Arc<Semaphore>,
    reception: Reception,
}

/// What every connection is received with.
#[derive(Clone)]
struct Reception {
    rules: Rules,
    counts: Arc<Counts>,
    routes: Router,
    stop: watch::Receiver<bool>,
}

impl Door {
    /// Accepts what arrives at a socket, for `routes`.
    pub(crate) fn new(
        listener: TcpListener,
        rules: Rules,
        counts: Arc<Counts>,
        routes: Router,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let room = Arc::new(Semaphore::new(rules.connections_max.min(Semaphore::MAX_PERMITS)));
        Self { listener, room, reception: Reception { rules, counts, routes, stop } }
    }

    /// Serves connections until told to stop, and then what is under way for a moment.
    pub(crate) async fn serve(self) {
        let Self { mut listener, room, reception } = self;
        let mut guests = JoinSet::new();
        let mut stop = reception.stop.clone();
        loop {
            if room.available_permits() == 0 {
                add(&reception.counts.waits);
            }
            let arrival = async {
                let place = Arc::clone(&room).acquire_owned().await;
                // axum's way to accept, which waits when descriptors have run out.
                (place, Listener::accept(&mut listener).await)
            };
            let (place, (stream, address)) = tokio::select! {
                arrival = arrival => arrival,
                () = stopped(&mut stop) => break,
            };
            add(&reception.counts.accepted);
            let reception = reception.clone();
            guests.spawn(async move {
                let counts = Arc::clone(&reception.counts);
                reception.receive(stream, address).await;
                add(&counts.ended);
                drop(place);
            });
            while guests.try_join_next().is_some() {}
        }
        drop(listener);
        let drained = async { while guests.join_next().await.is_some() {} };
        if timeout(DRAIN_MAX, drained).await.is_err() {
            tracing::warn!("some requests to the HTTP door did not end in time");
        }
    }
}

impl Reception {
    /// Serves one connection, from the handshake on if there is one.
    async fn receive(mut self, stream: TcpStream, address: SocketAddr) {
        let Some(tls) = &self.rules.tls else {
            return self.converse(stream, Caller { address, certificate: None }).await;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
        let patience = HANDSHAKE_MAX.min(self.rules.silence_max);
        let shaken = tokio::select! {
            shaken = timeout(patience, acceptor.accept(stream)) => shaken,
            () = stopped(&mut self.stop) => return,
        };
        match shaken {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let certificate = shown.map(|certificate| Arc::from(certificate.as_ref()));
                self.converse(stream, Caller { address, certificate }).await;
            }
            Ok(Err(error)) => {
                add(&self.counts.unshaken);
                tracing::debug!(%address, %error, "no TLS at the HTTP door");
            }
            Err(_) => {
                add(&self.counts.unshaken);
                tracing::debug!(%address, "a TLS handshake at the HTTP door took too long");
            }
        }
    }

    /// Answers requests until the connection ends.
    async fn converse(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        caller: Caller,
    ) {
        let silence_max = self.rules.silence_max;
        let silence = Box::pin(sleep(silence_max));
        let counts = Arc::clone(&self.counts);
        let guest = TokioIo::new(Guest { stream, silence, silence_max, counts });
        let service = TowerToHyperService::new(self.routes.layer(Extension(caller)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(silence_max)
            .serve_connection(guest, service);
        let mut connection = pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = stopped(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        // Whatever else ends a connection concerns its peer alone.
        if outcome.is_err_and(|error| error.is_timeout()) {
            add(&self.counts.silent);
        }
    }
}

/// Waits until the door closes.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender going away means the same as being told.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A connection that may not be silent.
struct Guest<S> {
    stream: S,
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
    counts: Arc<Counts>,
}

impl<S> Guest<S> {
    /// Notes what came of a transfer: bytes begin the silence anew, and nothing for too long ends it.
    fn heard<T>(
        &mut self,
        context: &mut Context<'_>,
        transfer: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if transfer.is_ready() {
            let until = Instant::now() + self.silence_max;
            self.silence.as_mut().reset(until);
            return transfer;
        }
        match self.silence.as_mut().poll(context) {
            Poll::Ready(()) => {
                add(&self.counts.silent);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guest<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.heard(context, read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guest<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.heard(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TLS stream keeps bytes back that its peer does not take.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.heard(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    /// A door with room for one; ends with the sender.
    async fn open() -> (SocketAddr, Arc<Counts>, watch::Sender<bool>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let rules = Rules { connections_max: 1, silence_max: PATIENCE, tls: None };
        let (counts, (stop, stopped)) = (Arc::<Counts>::default(), watch::channel(false));
        let routes = Router::new().fallback(|| async { "here\n" });
        let door = Door::new(listener, rules, Arc::clone(&counts), routes, stopped);
        (address, counts, stop, tokio::spawn(door.serve()))
    }

    fn page(counts: &Counts) -> String {
        let mut page = Exposition::new();
        counts.write(&mut page);
        page.into_text()
    }

    #[tokio::test]
    async fn who_is_silent_goes_and_who_is_too_many_waits() {
        let (address, counts, stop, task) = open().await;
        let mut silent = TcpStream::connect(address).await.expect("listening");
        let mut waiting = TcpStream::connect(address).await.expect("it waits in the queue");
        waiting.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.expect("queued");
        // The silent one has to go for the other to be answered.
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here\n"), "{answer}");
        let mut rest = Vec::new();
        silent.read_to_end(&mut rest).await.expect("ended in good order");
        stop.send_replace(true);
        task.await.expect("it ends");
        let page = page(&counts);
        assert!(page.contains("\nfleuve_http_connections 0\n"), "{page}");
        assert!(page.contains("\nfleuve_http_connections_total 2\n"), "{page}");
        assert!(page.contains("\nfleuve_http_connections_silent_total 1\n"), "{page}");
        let waits = "\nfleuve_http_connection_waits_total ";
        assert!(page.contains(waits) && !page.contains(&format!("{waits}0\n")), "{page}");
    }

    /// A byte now and then is not silence, but no request either.
    #[tokio::test]
    async fn who_drips_a_request_goes_too() {
        let (address, counts, stop, task) = open().await;
        let mut dripping = TcpStream::connect(address).await.expect("listening");
        let (mut reader, mut writer) = dripping.split();
        let ended = async {
            let mut rest = Vec::new();
            // A reset is an end as well: what was dripped meanwhile is not read any more.
            let _ = reader.read_to_end(&mut rest).await;
        };
        let drip = async {
            writer.write_all(b"GET / HTTP/1.1\r\nX: ").await.expect("sent");
            let mut ticks = tokio::time::interval(PATIENCE / 8);
            loop {
                ticks.tick().await;
                if writer.write_all(b"x").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = ended => {}
            () = drip => {}
        }
        stop.send_replace(true);
        task.await.expect("it ends");
        assert!(page(&counts).contains("\nfleuve_http_connections_silent_total 1\n"));
    }
}

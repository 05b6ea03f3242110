//! Listeners: bound sockets and who may connect to them.
//!
//! Deviation from Kafka: at `max.connections` Kafka closes the least recently used connection of
//! another listener; here the listeners stop accepting until a connection ends, which is what
//! Kafka does for a listener's own limit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// Pause after a failed accept; out of descriptors is the usual reason and needs time to pass.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A bound socket that accepts connections.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    options: SocketOptions,
}

/// How sockets are set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    /// Size of the send buffer; `None` leaves the system's own sizing on.
    pub(crate) send_bytes: Option<usize>,
    /// Size of the receive buffer; `None` leaves the system's own sizing on.
    pub(crate) receive_bytes: Option<usize>,
    /// Connections that the system keeps for us until we accept them.
    pub(crate) backlog: u32,
}

/// Who may connect.
#[derive(Clone, Debug)]
pub(crate) struct GateLimits {
    /// `max.connections`.
    pub(crate) total_max: usize,
    /// `max.connections.per.ip`.
    pub(crate) per_address_max: usize,
    /// `max.connections.per.ip.overrides`.
    pub(crate) overrides: HashMap<IpAddr, usize>,
    /// `max.connection.creation.rate`: new connections a second.
    pub(crate) rate_max: Option<u32>,
}

impl Listener {
    /// Binds `address`; port 0 lets the system choose.
    pub(crate) fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A broker that restarts must get its port back although old connections linger.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        if let Some(bytes) = options.receive_bytes {
            // Inherited by accepted sockets, and only before listening able to grow the window.
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, options })
    }

    /// The bound address, with its real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts the next connection that the gate lets through.
    pub(crate) async fn accept(&self, gate: &Arc<ConnectionGate>) -> (TcpStream, Admission) {
        loop {
            gate.wait_for_room().await;
            let (stream, peer) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(listener = %self.address, %error, "cannot accept a connection");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Some(admission) = gate.admit(peer.ip()) else {
                tracing::info!(%peer, "connection refused: its address has reached its limit");
                continue;
            };
            if let Err(error) = self.configure(&stream) {
                tracing::debug!(%peer, %error, "connection lost before it began");
                continue;
            }
            return (stream, admission);
        }
    }

    fn configure(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_keepalive(true)?;
        if let Some(bytes) = self.options.send_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(())
    }
}

/// Counts connections and says who may come in.
#[derive(Debug)]
pub(crate) struct ConnectionGate {
    limits: GateLimits,
    open: AtomicUsize,
    per_address: Mutex<HashMap<IpAddr, usize>>,
    room: Notify,
    rate: Option<Mutex<CreationRate>>,
}

/// A token bucket that holds one second's worth of connections.
#[derive(Debug)]
struct CreationRate {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

/// The right to be connected; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    gate: Arc<ConnectionGate>,
    address: IpAddr,
}

impl ConnectionGate {
    /// Makes a gate that lets through what `limits` allow.
    pub(crate) fn new(limits: GateLimits) -> Self {
        let rate = limits.rate_max.map(|rate| {
            let per_second = f64::from(rate.max(1));
            Mutex::new(CreationRate { per_second, tokens: per_second, filled: Instant::now() })
        });
        Self {
            limits,
            open: AtomicUsize::new(0),
            per_address: Mutex::default(),
            room: Notify::new(),
            rate,
        }
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            if self.open() < self.limits.total_max {
                break;
            }
            room.await;
        }
        if let Some(rate) = &self.rate {
            let wait = rate.lock().take();
            if let Some(until) = wait {
                sleep_until(until).await;
            }
        }
    }

    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        {
            let own_limit = self.limits.overrides.get(&address);
            let limit = own_limit.copied().unwrap_or(self.limits.per_address_max);
            let mut per_address = self.per_address.lock();
            let count = per_address.entry(address).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Admission { gate: Arc::clone(self), address })
    }
}

impl CreationRate {
    /// Takes a token, and says until when the taker has to wait for it.
    fn take(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.per_second) - 1.0;
        self.filled = now;
        (self.tokens < 0.0).then(|| now + Duration::from_secs_f64(-self.tokens / self.per_second))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.gate.per_address.lock().entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        self.gate.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn limits(total_max: usize, per_address_max: usize) -> GateLimits {
        GateLimits { total_max, per_address_max, overrides: HashMap::new(), rate_max: None }
    }

    #[tokio::test]
    async fn an_address_may_hold_its_share_and_gets_it_back() {
        let gate = Arc::new(ConnectionGate::new(limits(10, 2)));
        let first = gate.admit(HERE).expect("the first");
        let _second = gate.admit(HERE).expect("the second");
        assert!(gate.admit(HERE).is_none());
        drop(first);
        assert!(gate.admit(HERE).is_some());
        assert_eq!(gate.open(), 1);
    }

    #[tokio::test]
    async fn an_address_may_have_a_limit_of_its_own() {
        let overrides = HashMap::from([(HERE, 1)]);
        let gate = Arc::new(ConnectionGate::new(GateLimits { overrides, ..limits(10, 5) }));
        let _only = gate.admit(HERE).expect("the first");
        assert!(gate.admit(HERE).is_none());
        assert!(gate.admit(IpAddr::from([127, 0, 0, 2])).is_some());
    }

    #[tokio::test]
    async fn a_full_broker_accepts_again_when_a_connection_ends() {
        let gate = Arc::new(ConnectionGate::new(limits(1, 10)));
        let only = gate.admit(HERE).expect("the first");
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.wait_for_room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(only);
        waiting.await.expect("woken");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_come_no_faster_than_the_rate() {
        let gate = ConnectionGate::new(GateLimits { rate_max: Some(10), ..limits(100, 100) });
        let begun = Instant::now();
        for _ in 0..30 {
            gate.wait_for_room().await;
        }
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(1950) && took < Duration::from_millis(2100),
            "{took:?}"
        );
    }

    #[tokio::test]
    async fn a_listener_tells_the_port_it_got() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = SocketOptions { send_bytes: None, receive_bytes: None, backlog: 50 };
        let listener = Listener::bind(any_port, options).expect("a free port");
        let gate = Arc::new(ConnectionGate::new(limits(10, 10)));
        let (accepted, connected) =
            tokio::join!(listener.accept(&gate), TcpStream::connect(listener.address()));
        assert!(accepted.0.nodelay().expect("open"));
        assert!(connected.is_ok());
        assert_eq!(gate.open(), 1);
    }
}

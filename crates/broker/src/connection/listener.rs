//! Listeners: bound sockets, and how connections come in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::gate::{Admission, ConnectionGate, Verdict};

/// Pause after a failed accept; out of descriptors is the usual reason and needs time to pass.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Linux's congestion control that every machine has, every process may choose, and that sends at
/// once. Between two processes of a machine there is no way to congest, and one that paces, like BBR,
/// costs more than all the rest of consuming: 0.30 s of CPU for a GB at 2.7 GB/s, with this 0.10 at 6.
#[cfg(target_os = "linux")]
const LOCAL_CONGESTION_CONTROL: &[u8] = b"reno";

/// A bound socket that accepts connections.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    options: SocketOptions,
    congestion: CongestionControl,
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
        let congestion = CongestionControl::make_local(&socket);
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, options, congestion })
    }

    /// The bound address, with its real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts the next connection that the gate lets through.
    pub(crate) async fn accept(
        &self,
        name: &str,
        gate: &Arc<ConnectionGate>,
    ) -> (TcpStream, Admission) {
        loop {
            gate.wait_for_room(name).await;
            let (stream, peer) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(listener = %self.address, %error, "cannot accept a connection");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            // The limit may have fallen while nobody came.
            gate.wait_for_room(name).await;
            let admission = match gate.admit(name, peer.ip()) {
                Verdict::Admitted(admission, pause) => {
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                    admission
                }
                Verdict::TooMany => {
                    tracing::info!(%peer, "connection refused: its address has reached its limit");
                    continue;
                }
                Verdict::TooFast(pause) => {
                    tracing::debug!(%peer, ?pause, "connection refused: its address is too fast");
                    keep_waiting(stream, pause, gate);
                    continue;
                }
            };
            if let Err(error) = self.configure(&stream, peer.ip()) {
                tracing::debug!(%peer, %error, "connection lost before it began");
                continue;
            }
            return (stream, admission);
        }
    }

    fn configure(&self, stream: &TcpStream, peer: IpAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_keepalive(true)?;
        if let Some(bytes) = self.options.send_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        if !is_local(stream, peer)? {
            self.congestion.restore(&socket)?;
        }
        Ok(())
    }
}

/// Whether the peer is a process of this machine.
fn is_local(stream: &TcpStream, peer: IpAddr) -> io::Result<bool> {
    let peer = peer.to_canonical();
    Ok(peer.is_loopback() || peer == stream.local_addr()?.ip().to_canonical())
}

/// The machine's own congestion control, for peers that are not on it.
///
/// A connection that has begun with one that paces goes on pacing after a change (Linux, `tcp_cong.c`).
/// So connections inherit [`LOCAL_CONGESTION_CONTROL`], and those from elsewhere get back what the
/// machine is set to.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct CongestionControl(Option<Vec<u8>>);

#[cfg(target_os = "linux")]
impl CongestionControl {
    /// Sets up a socket that is to listen; one that cannot be keeps what it has.
    fn make_local(socket: &Socket) -> Self {
        let usual = socket.tcp_congestion().ok();
        let is_local = socket.set_tcp_congestion(LOCAL_CONGESTION_CONTROL).is_ok();
        Self(usual.filter(|_| is_local))
    }

    fn restore(&self, accepted: &Socket) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |usual| accepted.set_tcp_congestion(usual))
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct CongestionControl;

#[cfg(not(target_os = "linux"))]
impl CongestionControl {
    fn make_local(_socket: &Socket) -> Self {
        Self
    }

    fn restore(&self, _accepted: &Socket) -> io::Result<()> {
        Ok(())
    }
}

/// Closes a connection after a pause, lest the client connect again at once.
fn keep_waiting(stream: TcpStream, pause: Duration, gate: &Arc<ConnectionGate>) {
    if !gate.begin_delay() {
        return;
    }
    let gate = Arc::clone(gate);
    tokio::spawn(async move {
        sleep(pause).await;
        drop(stream);
        gate.end_delay();
    });
}

#[cfg(test)]
mod tests {
    use fleuve_os::SystemClock;

    use super::*;
    use crate::connection::GateLimits;
    use crate::quotas::Window;

    const OPTIONS: SocketOptions =
        SocketOptions { send_bytes: Some(64 << 10), receive_bytes: None, backlog: 50 };

    #[tokio::test]
    async fn a_listener_tells_the_port_it_got() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any_port, OPTIONS).expect("a free port");
        let limits = GateLimits { total_max: 10, per_address_max: 10, ..GateLimits::default() };
        let window = Window { samples: 11, sample_ms: 1000 };
        let gate = Arc::new(ConnectionGate::new(limits, window, Arc::new(SystemClock::new())));
        let (accepted, connected) =
            tokio::join!(listener.accept("A", &gate), TcpStream::connect(listener.address()));
        assert!(accepted.0.nodelay().expect("open"));
        // Linux doubles it for its own needs.
        let send_bytes = SockRef::from(&accepted.0).send_buffer_size().expect("open");
        assert!((64 << 10..=128 << 10).contains(&send_bytes), "{send_bytes}");
        assert!(connected.is_ok());
        assert_eq!(gate.open(), 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_peers_on_this_machine_are_sent_to_without_its_congestion_control() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let unset = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        let usual = unset.tcp_congestion().expect("known");
        let listener = Listener::bind(any_port, OPTIONS).expect("a free port");
        let (accepted, _connected) =
            tokio::join!(listener.socket.accept(), TcpStream::connect(listener.address()));
        let (stream, peer) = accepted.expect("a connection");
        let socket = SockRef::from(&stream);

        listener.configure(&stream, peer.ip()).expect("open");
        assert!(socket.tcp_congestion().expect("known").starts_with(LOCAL_CONGESTION_CONTROL));

        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        listener.configure(&stream, elsewhere).expect("open");
        assert_eq!(socket.tcp_congestion().expect("known"), usual);
    }
}

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
    /// Size of the send buffer towards peers on this machine, where there is no way to fill: what is
    /// queued there beyond a processor's cache is fetched from memory again when the peer reads it,
    /// which halves the rate of consuming.
    pub(crate) loopback_send_bytes: Option<usize>,
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
        let near = self.options.loopback_send_bytes.filter(|_| peer.to_canonical().is_loopback());
        if let Some(bytes) = self.options.send_bytes.or(near) {
            socket.set_send_buffer_size(bytes)?;
        }
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

    #[tokio::test]
    async fn a_listener_tells_the_port_it_got() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = SocketOptions {
            send_bytes: None,
            loopback_send_bytes: Some(64 << 10),
            receive_bytes: None,
            backlog: 50,
        };
        let listener = Listener::bind(any_port, options).expect("a free port");
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
}

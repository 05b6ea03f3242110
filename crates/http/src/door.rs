//! The socket of the HTTP door: so many connections at once, none of which may be silent for long.
//!
//! Whoever holds connections without using them would otherwise keep everybody else out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at once; more wait in the system's queue.
pub(crate) const CONNECTIONS_MAX: usize = 100;
/// A connection that neither brings nor takes a byte for this long ends.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Accepts connections as long as there is room.
pub(crate) struct Door {
    listener: TcpListener,
    room: Arc<Semaphore>,
    silence_max: Duration,
}

impl Door {
    /// Accepts what arrives at a socket.
    pub(crate) fn new(listener: TcpListener) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { listener, room, silence_max: SILENCE_MAX }
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        let permit = Arc::clone(&self.room).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        // Of the listener of axum, which waits when descriptors have run out.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let silence = Box::pin(sleep(self.silence_max));
        (Guest { stream, silence, silence_max: self.silence_max, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) SocketAddr);

impl Connected<IncomingStream<'_, Door>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection with its place.
pub(crate) struct Guest {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Guest {
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
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.heard(context, read)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.heard(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn who_is_silent_goes_and_who_is_too_many_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let room = Arc::new(Semaphore::new(1));
        let mut door = Door { listener, room, silence_max: Duration::from_millis(200) };
        let _first = TcpStream::connect(address).await.expect("listening");
        let (mut guest, _) = door.accept().await;
        let _second = TcpStream::connect(address).await.expect("it waits in the queue");
        let waiting = tokio::time::timeout(Duration::from_millis(50), door.accept()).await;
        assert!(waiting.is_err(), "there is no room");
        let read = guest.read(&mut [0]).await;
        assert_eq!(read.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        drop(guest);
        door.accept().await;
    }
}

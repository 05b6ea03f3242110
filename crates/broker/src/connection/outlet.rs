//! Streams that answers are written to, some of which take bytes straight from a file.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use fleuve_os::{FileRange, PeerState, ReadableAt, send_before_file};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Taken by the system at once, so that one connection does not keep its thread for too long.
pub(super) const SENT_AT_ONCE_MAX: usize = 1 << 20;

/// The stream of a connection.
pub(crate) trait Outlet: AsyncRead + AsyncWrite + Unpin + Send {
    /// What the peer has done, as far as can be told without reading.
    fn peer_state(&self) -> PeerState {
        PeerState::Open
    }

    /// Lets the stream be readable only once most of `missing` bytes have come, if it can.
    fn expect(&self, _readable_at: &mut ReadableAt, _missing: usize) -> io::Result<()> {
        Ok(())
    }

    /// Writes what bytes of a file come behind at once.
    fn poll_write_before_file(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, slices)
    }

    /// Waits until the stream may take bytes from a file. `None` if it never does: the bytes then
    /// have to be read and written.
    fn poll_file_ready(&self, _context: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        None
    }

    /// Has the system send from a file. `None` if this stream, or this file, is not one for that.
    fn poll_send_file(
        &self,
        _context: &mut Context<'_>,
        _range: &FileRange,
    ) -> Option<Poll<io::Result<usize>>> {
        None
    }
}

impl Outlet for TcpStream {
    fn peer_state(&self) -> PeerState {
        PeerState::of(self.as_fd())
    }

    fn expect(&self, readable_at: &mut ReadableAt, missing: usize) -> io::Result<()> {
        readable_at.expect(self.as_fd(), missing)
    }

    fn poll_write_before_file(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.poll_write_ready(context))?;
            let send = || send_before_file(self.as_fd(), slices);
            match self.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_file_ready(&self, context: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        Some(self.poll_write_ready(context))
    }

    fn poll_send_file(
        &self,
        context: &mut Context<'_>,
        range: &FileRange,
    ) -> Option<Poll<io::Result<usize>>> {
        loop {
            match self.poll_write_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
            let mut possible = true;
            let sent = self.try_io(Interest::WRITABLE, || {
                range.send(self.as_fd(), SENT_AT_ONCE_MAX).unwrap_or_else(|| {
                    possible = false;
                    Ok(0)
                })
            });
            match sent {
                _ if !possible => return None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Some(Poll::Ready(sent)),
            }
        }
    }
}

impl Outlet for TlsStream<TcpStream> {
    fn peer_state(&self) -> PeerState {
        PeerState::of(self.get_ref().0.as_fd())
    }
}

/// Input/output error.
const EIO: i32 = 5;
/// A checksum of the file system does not match.
const EBADMSG: i32 = 74;
/// The file system is damaged.
const EUCLEAN: i32 = 117;

/// Reports whether it was the file, and not the socket, that failed while one was sent to the
/// other. A file that has become shorter ends too early.
pub(super) fn is_of_file(error: &io::Error) -> bool {
    let is_of_disk = matches!(error.raw_os_error(), Some(EIO | EBADMSG | EUCLEAN));
    is_of_disk || error.kind() == io::ErrorKind::UnexpectedEof
}

//! Moves whole frames between a client and one broker.
//!
//! A [`Transport`] opens a [`Link`]; a link is a pair of halves, one that sends frames and one
//! that receives them. Halves speak in frames and not in bytes, so that an embedded broker can be
//! handed frames without a socket and without copying record bytes. Byte streams (TCP, TLS, an
//! in-memory pipe in tests) become links through [`stream_link`].
//!
//! ```text
//! frame on a byte stream:  size i32, big endian | size bytes
//! ```

mod stream;
mod tcp;
mod tls;

use std::io;

use bytes::Bytes;

use crate::BoxFuture;

pub use fleuve_protocol::Pieces;
pub use fleuve_protocol::frame::LENGTH_BYTES;

pub use stream::stream_link;
pub use tcp::TcpTransport;
pub use tls::TlsTransport;

/// Opens links to brokers.
pub trait Transport: Send + Sync + 'static {
    /// Opens a link to the broker at `host:port`.
    ///
    /// `frame_bytes_max` bounds the frames that the link accepts from the broker.
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        frame_bytes_max: usize,
    ) -> BoxFuture<'a, io::Result<Link>>;
}

/// An open link: its two halves work independently of each other.
pub struct Link {
    /// The half that sends.
    pub sender: Box<dyn FrameSender>,
    /// The half that receives.
    pub receiver: Box<dyn FrameReceiver>,
}

/// Sends frames to a broker.
pub trait FrameSender: Send + 'static {
    /// Sends `segments`, which are one or more whole frames, each with its 4-byte size in front.
    ///
    /// The vector comes back empty, so that its memory serves the next frames.
    fn send<'a>(&'a mut self, segments: &'a mut Vec<Bytes>) -> BoxFuture<'a, io::Result<()>>;
}

/// Receives frames from a broker.
pub trait FrameReceiver: Send + 'static {
    /// Waits for the next frame and returns it without its size, in the pieces it came in.
    ///
    /// Dropping the future loses nothing. The end of the link is an `UnexpectedEof` error.
    fn receive<'a>(&'a mut self) -> BoxFuture<'a, io::Result<Pieces>>;
}

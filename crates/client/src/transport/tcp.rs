//! Links over plain TCP.

use std::io;

use tokio::net::TcpStream;

use super::{Link, Transport, stream_link};
use crate::BoxFuture;

/// Opens plain TCP connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpTransport;

impl Transport for TcpTransport {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        frame_bytes_max: usize,
    ) -> BoxFuture<'a, io::Result<Link>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            // Requests are written whole; waiting for more bytes would only add latency.
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            Ok(stream_link(reader, writer, frame_bytes_max))
        })
    }
}

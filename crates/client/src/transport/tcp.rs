//! Links over plain TCP.

use std::io;
use std::os::fd::AsFd;

use fleuve_os::ReadableAt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::stream::stream_link_expecting;
use super::{Link, Transport};
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
            let mut readable_at = ReadableAt::default();
            let expect = move |reader: &OwnedReadHalf, missing| {
                readable_at.expect(reader.as_ref().as_fd(), missing)
            };
            Ok(stream_link_expecting(reader, writer, expect, frame_bytes_max))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn frames_of_all_sizes_come_however_they_are_cut() {
        const SIZES: [usize; 8] = [3, 40 << 10, 0, 600 << 10, 1, 3 << 20, 100 << 10, 5];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let mut link = TcpTransport.connect("127.0.0.1", port, 4 << 20).await.expect("listening");
        let (mut far, _) = listener.accept().await.expect("called");
        let sending = tokio::spawn(async move {
            for (number, size) in SIZES.into_iter().enumerate() {
                let mut frame = (size as u32).to_be_bytes().to_vec();
                frame.resize(4 + size, number as u8);
                // Small parts first, each of which may be all that has come.
                for part in [1, 3, 75, 33_000, 200_000, usize::MAX] {
                    let rest = frame.split_off(part.min(frame.len()));
                    far.write_all(&frame).await.expect("read");
                    tokio::task::yield_now().await;
                    frame = rest;
                }
            }
            far
        });
        for (number, size) in SIZES.into_iter().enumerate() {
            let frame = link.receiver.receive().await.expect("a frame").into_bytes();
            assert_eq!(frame.len(), size);
            assert!(frame.iter().all(|byte| usize::from(*byte) == number));
        }
        // In the middle of a large one, the end is noticed.
        let mut far = sending.await.expect("no panic");
        far.write_all(&(1u32 << 20).to_be_bytes()).await.expect("open");
        far.write_all(&[0; 50_000]).await.expect("open");
        drop(far);
        let error = link.receiver.receive().await.expect_err("it ended");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

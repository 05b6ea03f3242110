//! Frames over a byte stream.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use fleuve_protocol::Pieces;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{FrameReceiver, FrameSender, Link};
use crate::BoxFuture;

/// Bytes in front of every frame.
const SIZE_BYTES: usize = 4;
/// How much room a read has when nothing is known about the next frame.
const READ_BYTES: usize = 32 << 10;
/// A frame's declared size is believed this far before its bytes arrive, or as far as an earlier
/// frame really went; beyond it, the buffer doubles with what has come, so that a lying size costs
/// the liar as much as it costs us.
const TRUSTED_BYTES: usize = 1 << 20;
/// The most slices that one vectored write takes (Linux accepts 1024).
const SLICES_MAX: usize = 64;

/// Makes a link of the two directions of a byte stream.
///
/// Frames larger than `frame_bytes_max` are refused before their bytes are read.
pub fn stream_link(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    frame_bytes_max: usize,
) -> Link {
    let receiver = StreamReceiver::new(reader, frame_bytes_max);
    Link { sender: Box::new(StreamSender { writer }), receiver: Box::new(receiver) }
}

struct StreamSender<W> {
    writer: W,
}

impl<W: AsyncWrite + Send + Unpin + 'static> FrameSender for StreamSender<W> {
    fn send<'a>(&'a mut self, segments: &'a mut Vec<Bytes>) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut first = 0;
            while first < segments.len() {
                if segments[first].is_empty() {
                    first += 1;
                    continue;
                }
                let mut slices = [io::IoSlice::new(&[]); SLICES_MAX];
                let count = (segments.len() - first).min(SLICES_MAX);
                for (slice, segment) in slices.iter_mut().zip(&segments[first..]) {
                    *slice = io::IoSlice::new(segment);
                }
                let mut written = self.writer.write_vectored(&slices[..count]).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                while written > 0 {
                    let segment = &mut segments[first];
                    let taken = written.min(segment.len());
                    segment.advance(taken);
                    written -= taken;
                    if segment.is_empty() {
                        first += 1;
                    }
                }
            }
            segments.clear();
            self.writer.flush().await
        })
    }
}

struct StreamReceiver<R> {
    reader: R,
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// How far the next size is believed.
    trusted_bytes: usize,
}

impl<R> StreamReceiver<R> {
    fn new(reader: R, frame_bytes_max: usize) -> Self {
        Self { reader, buffer: BytesMut::new(), frame_bytes_max, trusted_bytes: TRUSTED_BYTES }
    }

    /// Cuts a whole frame off the buffer, or makes room for more of it.
    fn cut(&mut self) -> io::Result<Option<Bytes>> {
        let Some(size) = self.buffer.first_chunk::<SIZE_BYTES>() else {
            self.buffer.reserve(READ_BYTES);
            return Ok(None);
        };
        let size = i32::from_be_bytes(*size);
        let size = usize::try_from(size)
            .ok()
            .filter(|&size| size <= self.frame_bytes_max)
            .ok_or_else(|| {
                let limit = self.frame_bytes_max;
                let text = format!("a frame of {size} bytes, the limit is {limit}");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
        let missing = (SIZE_BYTES + size).saturating_sub(self.buffer.len());
        if missing == 0 {
            self.trusted_bytes = self.trusted_bytes.max(size);
            self.buffer.advance(SIZE_BYTES);
            return Ok(Some(self.buffer.split_to(size).freeze()));
        }
        let trusted = self.trusted_bytes.max(self.buffer.len());
        self.buffer.reserve(missing.min(trusted).max(READ_BYTES.min(missing)));
        Ok(None)
    }
}

impl<R: AsyncRead + Send + Unpin + 'static> FrameReceiver for StreamReceiver<R> {
    fn receive<'a>(&'a mut self) -> BoxFuture<'a, io::Result<Pieces>> {
        Box::pin(async move {
            loop {
                if let Some(frame) = self.cut()? {
                    return Ok(frame.into());
                }
                if self.reader.read_buf(&mut self.buffer).await? == 0 {
                    let text = if self.buffer.is_empty() {
                        "the broker closed the connection"
                    } else {
                        "the broker closed the connection in the middle of a response"
                    };
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_whole_however_the_bytes_are_cut() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (reader, writer) = tokio::io::split(ours);
        let mut link = stream_link(reader, writer, 1 << 20);
        let bytes = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x02de";
        for cut in 0..bytes.len() {
            theirs.write_all(&bytes[..cut]).await.expect("room");
            let early = tokio::spawn(async move {
                let mut frames = Vec::new();
                for _ in 0..3 {
                    frames.push(link.receiver.receive().await.expect("frame").into_bytes());
                }
                (link, frames)
            });
            tokio::task::yield_now().await;
            theirs.write_all(&bytes[cut..]).await.expect("room");
            let (back, frames) = early.await.expect("no panic");
            assert_eq!(frames, [&b"abc"[..], b"", b"de"], "cut at {cut}");
            link = back;
        }
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_or_of_negative_size_is_refused_unread() {
        for size in [17i32, -1, i32::MAX] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let (reader, writer) = tokio::io::split(ours);
            let mut link = stream_link(reader, writer, 16);
            theirs.write_all(&size.to_be_bytes()).await.expect("room");
            let error = link.receiver.receive().await.expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("the limit is 16"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_declared_size_is_not_believed_before_its_bytes_come() {
        let (reader, writer) = tokio::io::split(tokio::io::duplex(64).0);
        let _unused = writer;
        let mut receiver = StreamReceiver::new(reader, 1 << 30);
        receiver.buffer.extend_from_slice(&(1i32 << 29).to_be_bytes());
        assert!(receiver.cut().expect("within the limit").is_none());
        assert!(receiver.buffer.capacity() <= 2 * TRUSTED_BYTES, "{}", receiver.buffer.capacity());
    }

    #[tokio::test]
    async fn many_segments_are_written_in_order_through_a_narrow_pipe() {
        let (ours, mut theirs) = tokio::io::duplex(7);
        let (reader, writer) = tokio::io::split(ours);
        let mut link = stream_link(reader, writer, 16);
        let mut segments: Vec<Bytes> =
            (0..200u8).map(|index| Bytes::from(vec![index; usize::from(index) % 5])).collect();
        let expected: Vec<u8> = segments.iter().flatten().copied().collect();
        let sent = tokio::spawn(async move {
            link.sender.send(&mut segments).await.expect("sent");
            assert!(segments.is_empty());
        });
        let mut received = vec![0; expected.len()];
        theirs.read_exact(&mut received).await.expect("all bytes");
        sent.await.expect("no panic");
        assert_eq!(received, expected);
    }
}

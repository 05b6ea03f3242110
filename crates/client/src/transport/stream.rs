//! Frames over a byte stream.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
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
/// How many buffers of large frames are kept: one that is in use, one that waits for that, and one
/// for the next.
const SPARES_MAX: usize = 3;
/// Up to this size.
const SPARE_BYTES_MAX: usize = 2 << 20;
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
    stream_link_expecting(reader, writer, |_, _| Ok(()), frame_bytes_max)
}

/// Makes a link as [`stream_link`] does. Before it waits for a frame, `expect` learns how many bytes
/// of it are missing, as far as that is known; 0 where it is not.
pub(super) fn stream_link_expecting<R: AsyncRead + Send + Unpin + 'static>(
    reader: R,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    expect: impl FnMut(&R, usize) -> io::Result<()> + Send + 'static,
    frame_bytes_max: usize,
) -> Link {
    let receiver = StreamReceiver::new(reader, expect, frame_bytes_max);
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

/// Frames are slices of the buffers they are read into.
///
/// A large one gets a buffer to itself. While somebody works on it, the next is read into another,
/// and then they change places: memory that is warm need not be asked of the system, page by page.
struct StreamReceiver<R, E> {
    reader: R,
    /// Is told how much is missing before it is waited for.
    expect: E,
    /// Small frames, and the beginnings of large ones.
    buffer: BytesMut,
    /// The large frame that is coming in.
    large: Option<Large>,
    /// What is left of the buffers of large frames, which may still be in use.
    spares: Vec<BytesMut>,
    frame_bytes_max: usize,
    /// How far the next size is believed.
    trusted_bytes: usize,
}

/// A frame that does not fit into the common buffer.
struct Large {
    size: usize,
    buffer: BytesMut,
}

impl<R, E> StreamReceiver<R, E> {
    fn new(reader: R, expect: E, frame_bytes_max: usize) -> Self
    where
        E: FnMut(&R, usize) -> io::Result<()>,
    {
        Self {
            reader,
            expect,
            buffer: BytesMut::new(),
            large: None,
            spares: Vec::new(),
            frame_bytes_max,
            trusted_bytes: TRUSTED_BYTES,
        }
    }

    /// Cuts a whole frame off the buffer, or makes room for more of it.
    fn cut(&mut self) -> io::Result<Option<Bytes>> {
        if self.large.is_some() {
            return Ok(self.cut_large());
        }
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
            self.buffer.advance(SIZE_BYTES);
            return Ok(Some(self.buffer.split_to(size).freeze()));
        }
        if size <= READ_BYTES {
            self.buffer.reserve(missing);
            return Ok(None);
        }
        self.buffer.advance(SIZE_BYTES);
        let mut buffer = self.spare(size).unwrap_or_else(|| {
            // Rounded up, so that a frame that is a little larger than the last one fits in, too.
            BytesMut::with_capacity(size.min(self.trusted_bytes).next_multiple_of(READ_BYTES))
        });
        buffer.extend_from_slice(&self.buffer);
        self.buffer.clear();
        self.large = Some(Large { size, buffer });
        Ok(self.cut_large())
    }

    /// Gives the large frame out if it is whole, or makes room for more of it.
    fn cut_large(&mut self) -> Option<Bytes> {
        let Large { size, buffer } = self.large.as_mut()?;
        let missing = size.saturating_sub(buffer.len());
        if missing > 0 {
            if buffer.len() == buffer.capacity() {
                buffer.reserve(missing.min(self.trusted_bytes.max(buffer.len())));
            }
            return None;
        }
        let Large { size, mut buffer } = self.large.take()?;
        self.trusted_bytes = self.trusted_bytes.max(size);
        let frame = buffer.split_to(size).freeze();
        // One that is larger is an exception, and its memory not kept for the next.
        if size <= SPARE_BYTES_MAX {
            if self.spares.len() == SPARES_MAX {
                self.spares.remove(0);
            }
            self.spares.push(buffer);
        }
        Some(frame)
    }

    /// Takes a buffer of which no frame is in use any more, and that has room for `size` bytes.
    fn spare(&mut self, size: usize) -> Option<BytesMut> {
        let found = self.spares.iter_mut().position(|spare| {
            spare.clear();
            spare.try_reclaim(size)
        })?;
        Some(self.spares.swap_remove(found))
    }
}

impl<R, E> StreamReceiver<R, E>
where
    R: AsyncRead + Unpin,
    E: FnMut(&R, usize) -> io::Result<()>,
{
    /// Reads what has come into where it belongs.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (read, missing) = match &mut self.large {
            Some(Large { size, buffer }) => {
                // What comes behind it belongs into the common buffer.
                let missing = size.saturating_sub(buffer.len());
                let mut rest = buffer.limit(missing);
                (pin!(self.reader.read_buf(&mut rest)).poll(context), missing)
            }
            None => (pin!(self.reader.read_buf(&mut self.buffer)).poll(context), 0),
        };
        if read.is_pending() {
            (self.expect)(&self.reader, missing)?;
        }
        read
    }
}

impl<R, E> FrameReceiver for StreamReceiver<R, E>
where
    R: AsyncRead + Send + Unpin + 'static,
    E: FnMut(&R, usize) -> io::Result<()> + Send + 'static,
{
    fn receive<'a>(&'a mut self) -> BoxFuture<'a, io::Result<Pieces>> {
        Box::pin(async move {
            loop {
                if let Some(frame) = self.cut()? {
                    return Ok(frame.into());
                }
                let read = poll_fn(|context| self.poll_read(context)).await?;
                if read == 0 {
                    let text = if self.buffer.is_empty() && self.large.is_none() {
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
        let mut receiver = StreamReceiver::new(reader, |_, _| Ok(()), 1 << 30);
        receiver.buffer.extend_from_slice(&(1i32 << 29).to_be_bytes());
        assert!(receiver.cut().expect("within the limit").is_none());
        let large = receiver.large.expect("begun");
        assert!(large.buffer.capacity() <= 2 * TRUSTED_BYTES, "{}", large.buffer.capacity());
    }

    #[tokio::test]
    async fn large_frames_take_turns_in_two_buffers() {
        const SIZE: usize = 100 << 10;
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let (reader, writer) = tokio::io::split(ours);
        let mut link = stream_link(reader, writer, 1 << 20);
        let sending = tokio::spawn(async move {
            for number in 0..20u8 {
                theirs.write_all(&(SIZE as u32).to_be_bytes()).await.expect("read");
                theirs.write_all(&vec![number; SIZE]).await.expect("read");
                theirs.write_all(b"\0\0\0\x01x").await.expect("read");
            }
            theirs
        });
        let mut places = std::collections::HashSet::new();
        let mut held = Bytes::new();
        for number in 0..20u8 {
            let frame = link.receiver.receive().await.expect("frame").into_bytes();
            assert!(frame.len() == SIZE && frame.iter().all(|byte| *byte == number), "{number}");
            assert!(held.iter().all(|byte| *byte + 1 == number), "the last one is untouched");
            places.insert(frame.as_ptr());
            // One is held until the next is there.
            held = frame;
            assert_eq!(link.receiver.receive().await.expect("frame").into_bytes(), b"x"[..]);
        }
        assert_eq!(places.len(), 2);
        sending.await.expect("no panic");
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

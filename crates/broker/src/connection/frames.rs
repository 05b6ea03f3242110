//! Cutting a byte stream into frames.
//!
//! ```text
//! | length i32 | length bytes: header and body |
//! ```
//!
//! A sender may declare any length, so memory follows the bytes that really arrived: the buffer
//! at most doubles, or grows at once to the size that this connection's previous frame had.
//!
//! Of what follows a large frame only the beginning is read along with it: the rest would have to
//! be moved once more to make room for what follows that.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};

const LENGTH_BYTES: usize = 4;
/// What a connection that has shown nothing yet may reserve for a read.
const FIRST_READ_BYTES: usize = 4 * 1024;
/// The largest size that an earlier frame entitles a connection to reserve at once.
const EARNED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// From here on what is missing of a frame is read without much behind it.
const LARGE_BYTES: usize = 64 * 1024;

/// A frame that cannot be accepted; the connection has lost its framing and must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame declares {declared} bytes, more than the {limit} allowed here")]
    TooLarge { declared: usize, limit: usize },
    #[error("a frame declares the negative length {0}")]
    Negative(i32),
}

/// The bytes of one connection that have arrived and not yet become frames.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: BytesMut,
    limit: usize,
    earned: usize,
}

impl FrameBuffer {
    /// Begins a stream whose frames may hold up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: BytesMut::new(), limit, earned: FIRST_READ_BYTES }
    }

    /// Changes how much the frames from now on may hold.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Cuts off the next frame, without its length, once it is complete.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.declared()? else { return Ok(None) };
        if self.bytes.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.bytes.advance(LENGTH_BYTES);
        self.earned = (LENGTH_BYTES + length).clamp(FIRST_READ_BYTES, EARNED_BYTES_MAX);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }

    /// The buffer to read into, with room for as much as the sender has earned.
    pub(crate) fn space(&mut self) -> Limit<&mut BytesMut> {
        let have = self.bytes.len();
        let missing = self.missing();
        let wanted = missing + if missing < LARGE_BYTES { 0 } else { FIRST_READ_BYTES };
        let room = wanted.min(have.max(self.earned)).max(FIRST_READ_BYTES);
        if !self.bytes.try_reclaim(room) {
            // To grow in place would also keep what earlier frames have left in front.
            let mut larger = BytesMut::with_capacity(have + room);
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        let most = if missing < LARGE_BYTES { usize::MAX } else { room };
        (&mut self.bytes).limit(most)
    }

    /// The size of the frame that is arriving, if it is known.
    pub(crate) fn arriving(&self) -> Option<usize> {
        self.declared().ok().flatten()
    }

    /// How much of it has not come yet; 0 if no frame is known to arrive.
    pub(crate) fn missing(&self) -> usize {
        self.arriving().map_or(0, |size| (LENGTH_BYTES + size).saturating_sub(self.bytes.len()))
    }

    /// Bytes that wait here.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Reports whether no byte waits here.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn declared(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let declared = usize::try_from(length).map_err(|_| FrameError::Negative(length))?;
        if declared > self.limit {
            return Err(FrameError::TooLarge { declared, limit: self.limit });
        }
        Ok(Some(declared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(frames: &mut FrameBuffer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut space = frames.space();
            let count = bytes.len().min(space.remaining_mut());
            space.put_slice(&bytes[..count]);
            bytes = &bytes[count..];
        }
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01d";
        for step in 1..=stream.len() {
            let mut frames = FrameBuffer::new(16);
            let mut cut = Vec::new();
            for part in stream.chunks(step) {
                feed(&mut frames, part);
                while let Some(frame) = frames.next_frame().expect("within the limit") {
                    cut.push(frame);
                }
            }
            assert_eq!(cut, [&b"abc"[..], b"", b"d"], "in steps of {step}");
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn a_frame_above_the_limit_or_below_zero_is_refused_by_its_length_alone() {
        let mut frames = FrameBuffer::new(16);
        feed(&mut frames, &17i32.to_be_bytes());
        assert_eq!(frames.next_frame(), Err(FrameError::TooLarge { declared: 17, limit: 16 }));
        let mut frames = FrameBuffer::new(16);
        feed(&mut frames, &(-1i32).to_be_bytes());
        assert_eq!(frames.next_frame(), Err(FrameError::Negative(-1)));
    }

    #[test]
    fn memory_follows_what_arrived_and_not_what_was_declared() {
        let mut frames = FrameBuffer::new(100 << 20);
        feed(&mut frames, &(100i32 << 20).to_be_bytes());
        frames.space();
        assert!(frames.bytes.capacity() <= 2 * FIRST_READ_BYTES);
        let mut arrived = LENGTH_BYTES;
        while arrived < 1 << 20 {
            feed(&mut frames, &[7; 1000]);
            arrived += 1000;
            assert!(frames.bytes.capacity() <= 4 * arrived.max(FIRST_READ_BYTES));
        }
    }

    #[test]
    fn a_connection_that_sends_large_frames_reads_them_at_once() {
        let mut frames = FrameBuffer::new(1 << 20);
        let length = 300_000;
        feed(&mut frames, &(length as i32).to_be_bytes());
        feed(&mut frames, &vec![1; length]);
        assert_eq!(frames.next_frame().expect("fits").expect("whole").len(), length);
        feed(&mut frames, &(length as i32).to_be_bytes());
        let space = frames.space().into_inner();
        assert!(space.capacity() - space.len() >= length);
    }

    #[test]
    fn behind_a_large_frame_only_the_beginning_of_the_next_is_read() {
        let length = 300_000;
        let mut stream = (length as i32).to_be_bytes().to_vec();
        stream.resize(LENGTH_BYTES + length, 1);
        let stream = stream.repeat(4);
        let mut frames = FrameBuffer::new(1 << 20);
        let mut unread = &stream[..];
        let mut reads = Vec::new();
        for _ in 0..4 {
            let mut count = 0;
            while frames.missing() > 0 || frames.is_empty() {
                // As a socket fills it that has all of them.
                let mut space = frames.space();
                let taken = space.chunk_mut().len().min(unread.len());
                space.put_slice(&unread[..taken]);
                unread = &unread[taken..];
                count += 1;
            }
            reads.push(count);
            frames.next_frame().expect("fits").expect("whole");
            assert!(frames.len() <= FIRST_READ_BYTES, "{} bytes would be moved", frames.len());
        }
        assert!(frames.is_empty());
        assert_eq!(reads[1..], [1; 3]);
    }
}

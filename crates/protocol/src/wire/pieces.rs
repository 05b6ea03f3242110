//! Bytes that stand in several places, in order.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// A run of bytes in one piece or several, such as a frame that was handed over within a process
/// in the pieces its writer made: joining them would copy the records in it.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    pub(super) first: Bytes,
    /// No memory is taken while there is one piece only.
    pub(super) rest: VecDeque<Bytes>,
}

impl Pieces {
    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// Reports whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the first `N` bytes, if there are as many.
    pub fn first_chunk<const N: usize>(&self) -> Option<[u8; N]> {
        if let Some(chunk) = self.first.first_chunk() {
            return Some(*chunk);
        }
        let mut chunk = [0; N];
        let all = std::iter::once(&self.first).chain(&self.rest).flatten();
        let copied = chunk.iter_mut().zip(all).map(|(to, from)| *to = *from).count();
        (copied == N).then_some(chunk)
    }

    /// Forgets the first `count` bytes, or all if there are fewer.
    pub fn skip(&mut self, mut count: usize) {
        loop {
            let step = count.min(self.first.len());
            self.first.advance(step);
            count -= step;
            if !self.first.is_empty() {
                return;
            }
            let Some(next) = self.rest.pop_front() else { return };
            self.first = next;
        }
    }

    /// Makes one run of them, which copies them unless there is one piece only.
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut joined = BytesMut::with_capacity(self.len());
        for piece in std::iter::once(&self.first).chain(&self.rest) {
            joined.extend_from_slice(piece);
        }
        joined.freeze()
    }
}

impl From<Bytes> for Pieces {
    fn from(first: Bytes) -> Self {
        Self { first, rest: VecDeque::new() }
    }
}

impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        let mut rest = VecDeque::from(pieces);
        Self { first: rest.pop_front().unwrap_or_default(), rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(parts: &[&'static str]) -> Pieces {
        parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect::<Vec<_>>().into()
    }

    #[test]
    fn pieces_are_read_as_if_they_were_one() {
        for parts in [&["abcdef"][..], &["a", "", "bcd", "ef"], &["", "abc", "def", ""]] {
            let mut whole = pieces(parts);
            assert_eq!(whole.len(), 6);
            assert_eq!(whole.first_chunk(), Some(*b"abcd"));
            assert_eq!(whole.first_chunk::<7>(), None);
            whole.skip(2);
            assert_eq!(whole.clone().into_bytes(), "cdef");
            whole.skip(9);
            assert!(whole.is_empty());
        }
    }

    #[test]
    fn one_piece_is_not_copied() {
        let bytes = Bytes::from_static(b"abc");
        assert_eq!(Pieces::from(vec![bytes.clone()]).into_bytes().as_ptr(), bytes.as_ptr());
    }
}

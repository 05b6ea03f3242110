//! How far a store follows its changelog.
//!
//! ```text
//! | version: u8 = 3 | topic id: 16 bytes | offset: i64 | written: i64, milliseconds since 1970 |
//! ```

use bytes::{Buf, BufMut};

/// The place in a changelog up to which a store has its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The changelog's topic id: a topic of the same name is another one if it was deleted meanwhile.
    pub(crate) topic_id: [u8; 16],
    /// The offset of the first record that the store does not have.
    pub(crate) offset: i64,
    /// When this was written.
    pub(crate) written_ms: i64,
}

impl Position {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIZE);
        out.put_u8(VERSION);
        out.put_slice(&self.topic_id);
        out.put_i64(self.offset);
        out.put_i64(self.written_ms);
        out
    }

    /// The position, unless the bytes are of another version.
    pub(super) fn of_bytes(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SIZE || bytes.get_u8() != VERSION {
            return None;
        }
        let mut topic_id = [0; 16];
        bytes.copy_to_slice(&mut topic_id);
        Some(Self { topic_id, offset: bytes.get_i64(), written_ms: bytes.get_i64() })
    }
}

/// Of version 1, windows and sessions lay on disk by their keys alone; of version 2, what waits for its time was an image
/// of its changelog: such state is restored from changelogs.
const VERSION: u8 = 3;
const SIZE: usize = 1 + 16 + 2 * size_of::<i64>();

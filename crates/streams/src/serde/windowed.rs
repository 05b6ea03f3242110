//! Keys of windowed tables as they stand in output topics.
//!
//! ```text
//! time window:  | key ... | start: i64 |            the end is not written: the reader knows the size
//! session:      | key ... | end: i64 | start: i64 |
//! ```

use bytes::Bytes;

use super::{Presence, Serde, SerdeError, SerdeOf, StreamType};
use crate::record::{Headers, Window, Windowed};

/// Keys of tumbling, hopping and sliding windows of a known size.
#[derive(Debug)]
pub struct TimeWindowedSerde<K> {
    key: SerdeOf<K>,
    size_ms: i64,
}

impl<K: 'static> TimeWindowedSerde<K> {
    /// A serde for windows of `size_ms` milliseconds.
    pub fn new(key: SerdeOf<K>, size_ms: i64) -> Self {
        Self { key, size_ms }
    }
}

impl<K: 'static> Serde<Windowed<K>> for TimeWindowedSerde<K> {
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &Windowed<K>,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        if self.key.write(topic, headers, &value.key, out)? == Presence::Null {
            return Ok(Presence::Null);
        }
        out.extend_from_slice(&value.window.start.to_be_bytes());
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<Windowed<K>, SerdeError> {
        let (key, [start]) = split::<1>(bytes)?;
        Ok(Windowed {
            key: self.key.read(topic, headers, Some(key))?,
            window: Window { start, end: start.saturating_add(self.size_ms) },
        })
    }
}

/// Keys of session windows. Also the usual serde of [`Windowed`], because it alone keeps the whole window.
#[derive(Debug)]
pub struct SessionWindowedSerde<K> {
    key: SerdeOf<K>,
}

impl<K: 'static> SessionWindowedSerde<K> {
    /// A serde on top of the key's.
    pub fn new(key: SerdeOf<K>) -> Self {
        Self { key }
    }
}

impl<K: StreamType> Default for SessionWindowedSerde<K> {
    fn default() -> Self {
        Self::new(SerdeOf::usual())
    }
}

impl<K: StreamType> StreamType for Windowed<K> {
    type Serde = SessionWindowedSerde<K>;
}

impl<K: 'static> Serde<Windowed<K>> for SessionWindowedSerde<K> {
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &Windowed<K>,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        if self.key.write(topic, headers, &value.key, out)? == Presence::Null {
            return Ok(Presence::Null);
        }
        out.extend_from_slice(&value.window.end.to_be_bytes());
        out.extend_from_slice(&value.window.start.to_be_bytes());
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<Windowed<K>, SerdeError> {
        let (key, [end, start]) = split::<2>(bytes)?;
        Ok(Windowed {
            key: self.key.read(topic, headers, Some(key))?,
            window: Window { start, end },
        })
    }
}

/// Cuts `N` big-endian numbers off the end.
fn split<const N: usize>(bytes: Option<Bytes>) -> Result<(Bytes, [i64; N]), SerdeError> {
    let mut key = bytes.ok_or_else(|| SerdeError::new("null where a windowed key is needed"))?;
    let Some(length) = key.len().checked_sub(N * 8) else {
        return Err(SerdeError::new(format_args!(
            "a windowed key has at least {} bytes, there are {}",
            N * 8,
            key.len()
        )));
    };
    let tail = key.split_off(length);
    let mut numbers = [0; N];
    for (number, chunk) in numbers.iter_mut().zip(tail.chunks_exact(8)) {
        let mut fixed = [0; 8];
        fixed.copy_from_slice(chunk);
        *number = i64::from_be_bytes(fixed);
    }
    Ok((key, numbers))
}

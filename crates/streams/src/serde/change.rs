//! Changes of a table in its repartition topic.
//!
//! ```text
//! only new:  | new ... | 1 |
//! only old:  | old ... | 0 |
//! both:      | new's length: zigzag varint | new ... | old ... | 2 |
//! ```
//!
//! Read, but not written, are 3 to 5 in place of 0 to 2: before them stands a byte that is 0 where the change is not the
//! newest of its key.

use bytes::{Buf, Bytes};

use super::{Presence, Serde, SerdeError, SerdeOf};
use crate::record::{Change, Headers};

/// The serde of [`Change`].
#[derive(Debug)]
pub struct ChangeSerde<V> {
    value: SerdeOf<V>,
}

impl<V: 'static> ChangeSerde<V> {
    /// A serde on top of the values'.
    pub fn new(value: SerdeOf<V>) -> Self {
        Self { value }
    }
}

impl<V: 'static> Serde<Change<V>> for ChangeSerde<V> {
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        change: &Change<V>,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        let flag = match (&change.new, &change.old) {
            (Some(new), None) => {
                self.value.write(topic, headers, new, out)?;
                1
            }
            (None, Some(old)) => {
                self.value.write(topic, headers, old, out)?;
                0
            }
            (Some(new), Some(old)) => {
                let mut bytes = Vec::new();
                self.value.write(topic, headers, new, &mut bytes)?;
                write_varint(out, bytes.len());
                out.extend_from_slice(&bytes);
                self.value.write(topic, headers, old, out)?;
                2
            }
            (None, None) => {
                return Err(SerdeError::new("a change with neither an old nor a new value"));
            }
        };
        out.push(flag);
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<Change<V>, SerdeError> {
        let mut bytes = bytes.ok_or_else(|| SerdeError::new("null where a change is needed"))?;
        let Some(length) = bytes.len().checked_sub(1) else {
            return Err(SerdeError::new("an empty change"));
        };
        let flag = bytes.split_off(length)[0];
        let read = |bytes| self.value.read(topic, headers, Some(bytes)).map(Some);
        let is_latest = match flag {
            3..=5 => {
                let length = bytes
                    .len()
                    .checked_sub(1)
                    .ok_or_else(|| SerdeError::new("a change without its mark"))?;
                bytes.split_off(length)[0] != 0
            }
            _ => true,
        };
        let (old, new) = match flag % 3 {
            _ if flag > 5 => {
                return Err(SerdeError::new(format_args!("unknown kind {flag} of change")));
            }
            0 => (read(bytes)?, None),
            1 => (None, read(bytes)?),
            _ => {
                let length = read_varint(&mut bytes)?;
                if length > bytes.len() {
                    return Err(SerdeError::new(format_args!(
                        "a new value of {length} bytes where {} are left",
                        bytes.len()
                    )));
                }
                let new = bytes.split_to(length);
                (read(bytes)?, read(new)?)
            }
        };
        Ok(Change { old, new, is_latest })
    }
}

fn write_varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = (value as u64) << 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn read_varint(bytes: &mut Bytes) -> Result<usize, SerdeError> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        if !bytes.has_remaining() {
            break;
        }
        let byte = bytes.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            // Zigzag: an odd number would be a negative length.
            return match value % 2 {
                0 => Ok((value / 2) as usize),
                _ => Err(SerdeError::new("a negative length")),
            };
        }
    }
    Err(SerdeError::new("a length that does not end"))
}

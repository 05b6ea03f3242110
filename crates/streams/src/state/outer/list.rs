//! The events of one time, side and key, as Kafka Streams writes lists of them.
//!
//! ```text
//! | 1: u8 | count: i32 | each: length: i32, side: u8, 1 = left, value ... |
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::{Either, LEFT, OuterStoreSettings};
use crate::record::Headers;
use crate::state::StoreError;

/// The number of events that a list says it has.
pub(super) fn count(list: &[u8]) -> u32 {
    let count = list.get(1..HEAD).and_then(<[u8]>::first_chunk);
    count.map_or(0, |count| u32::from_be_bytes(*count))
}

impl<K: 'static, L: 'static, Q: 'static> OuterStoreSettings<K, L, Q> {
    pub(super) fn key_bytes(&self, key: &K) -> Result<Bytes, StoreError> {
        let mut out = Vec::new();
        self.key.write(&self.topic, &mut Headers::default(), key, &mut out)?;
        Ok(Bytes::from(out))
    }

    pub(super) fn read_key(&self, key: Bytes) -> Result<K, StoreError> {
        Ok(self.key.read(&self.topic, &Headers::default(), Some(key))?)
    }

    pub(super) fn list(&self, events: &[Either<L, Q>]) -> Result<Bytes, StoreError> {
        let mut out = vec![VARIABLE_SIZE];
        out.put_i32(events.len() as i32);
        for event in events {
            self.write(event, &mut out)?;
        }
        Ok(Bytes::from(out))
    }

    /// A list with one event more.
    pub(super) fn longer_list(
        &self,
        before: &[u8],
        event: &Either<L, Q>,
    ) -> Result<Bytes, StoreError> {
        let Some(events) = before.get(HEAD..).filter(|_| before[0] == VARIABLE_SIZE) else {
            return Err(self.damaged("the head of a list"));
        };
        let mut out = vec![VARIABLE_SIZE];
        out.put_u32(count(before).saturating_add(1));
        out.extend_from_slice(events);
        self.write(event, &mut out)?;
        Ok(Bytes::from(out))
    }

    fn write(&self, event: &Either<L, Q>, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let (topic, headers) = (&self.topic, &mut Headers::default());
        let begin = out.len();
        out.put_i32(0);
        match event {
            Either::Left(left) => {
                out.push(LEFT);
                self.left.write(topic, headers, left, out)?;
            }
            Either::Right(right) => {
                out.push(0);
                self.right.write(topic, headers, right, out)?;
            }
        }
        let length = (out.len() - begin - LENGTH) as i32;
        out[begin..begin + LENGTH].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    pub(super) fn unlist(&self, mut bytes: Bytes) -> Result<Vec<Either<L, Q>>, StoreError> {
        let (topic, headers) = (&self.topic, &Headers::default());
        if bytes.len() < HEAD || bytes[0] != VARIABLE_SIZE {
            return Err(self.damaged("the head of a list"));
        }
        // The count says nothing that the lengths do not say.
        bytes.advance(HEAD);
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let length = bytes.try_get_i32().map_err(|_| self.damaged("an event's length"))?;
            let length = usize::try_from(length).map_err(|_| self.damaged("a negative length"))?;
            if length == 0 || length > bytes.len() {
                return Err(self.damaged("an event longer than its list"));
            }
            let mut event = bytes.split_to(length);
            let value = event.split_off(1);
            events.push(if event[0] == LEFT {
                Either::Left(self.left.read(topic, headers, Some(value))?)
            } else {
                Either::Right(self.right.read(topic, headers, Some(value))?)
            });
        }
        Ok(events)
    }

    fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { store: self.name.clone(), what }
    }
}

/// Marks a list whose entries carry their lengths.
const VARIABLE_SIZE: u8 = 1;
/// Bytes of an event's length.
const LENGTH: usize = size_of::<i32>();
/// Bytes in front of the events.
const HEAD: usize = 1 + LENGTH;

//! Parts of an aggregate, each with the number of the task that it comes from.
//!
//! ```text
//! each part:  | origin: i32 | length: i32, -1 for null | value ... |
//! ```

use bytes::{Buf, Bytes};

use super::{Presence, Serde, SerdeError, SerdeOf, StreamType};
use crate::record::Headers;

/// Parts of an aggregate by their origins, each of which is there once. There is at least one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parts<A>(pub(crate) Vec<(i32, A)>);

/// The serde of parts on top of that of aggregates.
pub(crate) struct PartsSerde<A>(SerdeOf<A>);

impl<A: StreamType> StreamType for Parts<A> {
    type Serde = PartsSerde<A>;
}

impl<A: StreamType> Default for PartsSerde<A> {
    fn default() -> Self {
        Self(SerdeOf::usual())
    }
}

impl<A> Parts<A> {
    /// Takes parts in, each in place of the one before it from the same origin.
    pub(crate) fn replaced(mut self, newer: Self) -> Self {
        for (origin, value) in newer.0 {
            match self.0.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, known)) => *known = value,
                None => self.0.push((origin, value)),
            }
        }
        self
    }
}

impl<A: 'static> Serde<Parts<A>> for PartsSerde<A> {
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        parts: &Parts<A>,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        let mut bytes = Vec::new();
        for (origin, value) in &parts.0 {
            bytes.clear();
            let length = match self.0.write(topic, headers, value, &mut bytes)? {
                Presence::Present => i32::try_from(bytes.len())
                    .map_err(|_| SerdeError::new("a part of an aggregate over 2 GiB"))?,
                Presence::Null => NULL,
            };
            out.extend(origin.to_be_bytes());
            out.extend(length.to_be_bytes());
            out.extend_from_slice(&bytes);
        }
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<Parts<A>, SerdeError> {
        let mut bytes = bytes.ok_or_else(|| SerdeError::new("null where parts are needed"))?;
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let cut = || SerdeError::new("parts of an aggregate that end early");
            let origin = bytes.try_get_i32().map_err(|_| cut())?;
            let length = bytes.try_get_i32().map_err(|_| cut())?;
            let value = match usize::try_from(length) {
                Ok(length) if length <= bytes.len() => Some(bytes.split_to(length)),
                Err(_) if length == NULL => None,
                _ => return Err(cut()),
            };
            parts.push((origin, self.0.read(topic, headers, value)?));
        }
        if parts.is_empty() {
            return Err(SerdeError::new("an aggregate without parts"));
        }
        Ok(Parts(parts))
    }
}

/// The length of a null.
const NULL: i32 = -1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_that_was_cut() {
        let serde = PartsSerde::<Option<String>>::default();
        let parts = Parts(vec![(0, Some("one".to_owned())), (7, None), (3, Some(String::new()))]);
        let mut bytes = Vec::new();
        let headers = &mut Headers::default();
        serde.serialize("t", headers, &parts, &mut bytes).expect("written");
        let read = |bytes: &[u8]| {
            serde.deserialize("t", &Headers::default(), Some(Bytes::copy_from_slice(bytes)))
        };
        assert_eq!(read(&bytes).expect("read"), parts);
        for length in (0..bytes.len()).filter(|length| ![11, 19].contains(length)) {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
        assert!(read(&[0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 1]).is_err());
        assert!(read(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe]).is_err());
    }
}

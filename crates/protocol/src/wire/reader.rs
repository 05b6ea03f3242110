//! Reads values out of a frame without copying or trusting it.
//!
//! Nothing is ever reserved by a declared count alone: a count must fit into the bytes that are
//! left, a vector grows with the elements that were really there, and all vectors together stay
//! within a budget that follows from the size of the input. The budget is there because an empty
//! string is one byte on the wire and 32 in memory; no honest message comes near it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::pieces::Pieces;
use super::value::{Struct, Wire};
use super::{DecodeError, DecodeErrorKind, Field, Str, Version};

/// A position in shared bytes, from which values are taken one after the other.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The piece being read, which begins at `base`.
    bytes: Bytes,
    base: usize,
    /// The pieces after it; mostly none.
    rest: VecDeque<Bytes>,
    /// Bytes that stand in several pieces, of those who asked not to have them joined.
    spans: Option<Vec<Vec<Bytes>>>,
    position: usize,
    /// End of what may be read: the end of the bytes, or of the tagged field being read.
    limit: usize,
    /// Bytes that arrays may still take in memory.
    budget: usize,
}

impl Reader {
    /// Bytes of memory that arrays may take for every byte of input.
    pub const MEMORY_PER_BYTE: usize = 16;

    /// Bytes of memory that arrays may take however small the input is.
    pub const MEMORY_ALWAYS: usize = 64 * 1024;

    /// Starts at the beginning of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self::of(bytes.into())
    }

    /// Starts at the beginning of `pieces`.
    ///
    /// Values that stand in one of them are shared; others are copied, see [`Reader::keep_spans`].
    pub fn of(pieces: Pieces) -> Self {
        let limit = pieces.len();
        let budget = limit.saturating_mul(Self::MEMORY_PER_BYTE) + Self::MEMORY_ALWAYS;
        let Pieces { first, rest } = pieces;
        Self { bytes: first, base: 0, rest, spans: None, position: 0, limit, budget }
    }

    /// Lets fields of bytes that stand in several pieces hold what is in the first of them only;
    /// [`Reader::take_spans`] gives all their pieces.
    pub fn keep_spans(&mut self) {
        self.spans = Some(Vec::new());
    }

    /// Returns the fields of bytes that stood in several pieces, in the order of reading.
    pub fn take_spans(&mut self) -> Vec<Vec<Bytes>> {
        self.spans.take().unwrap_or_default()
    }

    /// Returns how many bytes are left.
    pub fn remaining(&self) -> usize {
        self.limit - self.position
    }

    /// Returns how many bytes were read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Returns the bytes not read yet, shared.
    pub fn into_rest(mut self) -> Bytes {
        self.enter();
        joined(self.parts(self.remaining()))
    }

    /// Takes a value as `version` lays it out; `field` names it in errors.
    pub(crate) fn get<T: Wire>(
        &mut self,
        version: Version,
        field: Field,
    ) -> Result<T, DecodeError> {
        T::read(self, version, field)
    }

    /// Takes a value that is nullable only where `nullable` says so.
    pub(crate) fn get_nullable<T>(
        &mut self,
        nullable: bool,
        version: Version,
        field: Field,
    ) -> Result<Option<T>, DecodeError>
    where
        T: Wire,
        Option<T>: Wire,
    {
        if nullable { self.get(version, field) } else { self.get(version, field).map(Some) }
    }

    /// Takes an `i8`.
    pub fn read_i8(&mut self, field: Field) -> Result<i8, DecodeError> {
        self.fixed(field).map(i8::from_be_bytes)
    }

    /// Takes an `i16`.
    pub fn read_i16(&mut self, field: Field) -> Result<i16, DecodeError> {
        self.fixed(field).map(i16::from_be_bytes)
    }

    /// Takes an `i32`.
    pub fn read_i32(&mut self, field: Field) -> Result<i32, DecodeError> {
        self.fixed(field).map(i32::from_be_bytes)
    }

    /// Takes an `i64`.
    pub fn read_i64(&mut self, field: Field) -> Result<i64, DecodeError> {
        self.fixed(field).map(i64::from_be_bytes)
    }

    /// Takes an unsigned integer of variable length.
    pub fn read_uvarint(&mut self, field: Field) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for index in 0..VARINT_BYTES_MAX {
            let [byte] = self.fixed(field)?;
            // The fifth byte has room for the top four bits only.
            if index == VARINT_BYTES_MAX - 1 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(field, DecodeErrorKind::BadVarint))
    }

    /// Takes the next `length` bytes, shared.
    pub fn read_slice(&mut self, length: usize, field: Field) -> Result<Bytes, DecodeError> {
        self.require(length, field)?;
        // An empty slice must not keep the frame alive.
        if length == 0 {
            return Ok(Bytes::new());
        }
        self.enter();
        Ok(joined(self.parts(length)))
    }

    /// Takes the next `length` bytes of a field of bytes, shared.
    pub(super) fn read_bytes(&mut self, length: usize, field: Field) -> Result<Bytes, DecodeError> {
        if self.spans.is_none() {
            return self.read_slice(length, field);
        }
        self.require(length, field)?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        self.enter();
        let parts = self.parts(length);
        let Parts::Several(parts) = parts else { return Ok(joined(parts)) };
        let first = parts.first().cloned().unwrap_or_default();
        self.spans.get_or_insert_default().push(parts);
        Ok(first)
    }

    /// Takes exactly `N` bytes.
    #[inline]
    pub(super) fn fixed<const N: usize>(&mut self, field: Field) -> Result<[u8; N], DecodeError> {
        let end = self.bytes.len().min(self.limit - self.base);
        let window = self.bytes.get(self.position - self.base..end);
        match window.and_then(|window| window.first_chunk::<N>()) {
            Some(chunk) => {
                self.position += N;
                Ok(*chunk)
            }
            None => self.fixed_across(field),
        }
    }

    /// Takes exactly `N` bytes that stand in several pieces.
    #[cold]
    fn fixed_across<const N: usize>(&mut self, field: Field) -> Result<[u8; N], DecodeError> {
        self.require(N, field)?;
        let mut chunk = [0; N];
        for byte in &mut chunk {
            self.enter();
            *byte = self.bytes[self.position - self.base];
            self.position += 1;
        }
        Ok(chunk)
    }

    /// Goes on to the piece that holds the position.
    fn enter(&mut self) {
        while self.position - self.base >= self.bytes.len()
            && let Some(next) = self.rest.pop_front()
        {
            self.base += self.bytes.len();
            self.bytes = next;
        }
    }

    /// Takes the next `length` bytes, which are there, from the piece entered on.
    fn parts(&mut self, mut length: usize) -> Parts {
        let start = self.position - self.base;
        if length <= self.bytes.len().saturating_sub(start) {
            self.position += length;
            return Parts::One(self.bytes.slice(start..start + length));
        }
        let mut parts = Vec::new();
        while length > 0 {
            self.enter();
            let start = self.position - self.base;
            let step = length.min(self.bytes.len() - start);
            parts.push(self.bytes.slice(start..start + step));
            self.position += step;
            length -= step;
        }
        Parts::Several(parts)
    }

    /// Takes the length in front of bytes or of an array: `None` for null.
    ///
    /// Like Kafka, every negative length is null.
    pub(super) fn length(
        &mut self,
        version: Version,
        field: Field,
    ) -> Result<Option<usize>, DecodeError> {
        if version.flexible {
            // Compact lengths are one more than the length; 0 is null.
            Ok((self.read_uvarint(field)? as usize).checked_sub(1))
        } else {
            Ok(usize::try_from(self.read_i32(field)?).ok())
        }
    }

    /// Takes a text: `None` for null.
    pub(super) fn text(
        &mut self,
        version: Version,
        field: Field,
    ) -> Result<Option<Str>, DecodeError> {
        let length = if version.flexible {
            self.length(version, field)?
        } else {
            usize::try_from(self.read_i16(field)?).ok()
        };
        let Some(length) = length else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(self.error(field, DecodeErrorKind::StringTooLong { length }));
        }
        let start = self.position;
        let slice = self.read_slice(length, field)?;
        Str::from_utf8(slice).map(Some).map_err(|_| DecodeError {
            field,
            position: start,
            kind: DecodeErrorKind::NotUtf8,
        })
    }

    /// Takes the length and the elements of an array: `None` for null.
    pub(super) fn elements<T: Wire>(
        &mut self,
        version: Version,
        field: Field,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(version, field)? else { return Ok(None) };
        let remaining = self.remaining();
        if count > remaining / T::MIN_SIZE {
            let kind = DecodeErrorKind::TooManyElements { count, remaining };
            return Err(self.error(field, kind));
        }
        // Memory follows the elements that were really read, and never outgrows the count.
        let first = (RESERVED_BYTES_FIRST / size_of::<T>().max(1)).max(1);
        let mut elements = Vec::new();
        while elements.len() < count {
            if elements.len() == elements.capacity() {
                let more = elements.len().max(first).min(count - elements.len());
                self.spend(more * size_of::<T>(), field)?;
                elements.reserve_exact(more);
            }
            elements.push(T::read(self, version, field)?);
        }
        Ok(Some(elements))
    }

    /// Takes the tagged fields that end a struct in flexible versions.
    ///
    /// `known` reads a field that it knows and says so; others are skipped.
    pub(crate) fn tags(
        &mut self,
        version: Version,
        field: Field,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        if !version.flexible {
            return Ok(());
        }
        for _ in 0..self.read_uvarint(field)? {
            let tag = self.read_uvarint(field)?;
            let size = self.read_uvarint(field)? as usize;
            self.require(size, field)?;
            let end = self.position + size;
            let outer_limit = std::mem::replace(&mut self.limit, end);
            if known(self, tag)? && self.position != end {
                let unread = end - self.position;
                return Err(self.error(field, DecodeErrorKind::TaggedFieldTooShort { unread }));
            }
            self.position = end;
            self.limit = outer_limit;
        }
        Ok(())
    }

    /// Takes a nullable struct that is a tagged field: there its presence is a varint, 0 for null.
    pub(crate) fn tagged_struct<T: Struct>(
        &mut self,
        version: Version,
        field: Field,
    ) -> Result<Option<T>, DecodeError> {
        if self.read_uvarint(field)? == 0 { Ok(None) } else { self.get(version, field).map(Some) }
    }

    /// Skips the tagged fields of a struct that knows none.
    pub(crate) fn skip_tags(&mut self, version: Version, field: Field) -> Result<(), DecodeError> {
        self.tags(version, field, |_, _| Ok(false))
    }

    /// Makes the error that stands for "null is not allowed here".
    pub(super) fn null(&self, version: Version, field: Field) -> DecodeError {
        self.error(field, DecodeErrorKind::Null { version: version.number })
    }

    pub(crate) fn error(&self, field: Field, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { field, position: self.position, kind }
    }

    fn spend(&mut self, bytes: usize, field: Field) -> Result<(), DecodeError> {
        match self.budget.checked_sub(bytes) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(self.error(field, DecodeErrorKind::TooMuchMemory)),
        }
    }

    fn require(&self, needed: usize, field: Field) -> Result<(), DecodeError> {
        if needed > self.remaining() { Err(self.unexpected_end(needed, field)) } else { Ok(()) }
    }

    #[cold]
    fn unexpected_end(&self, needed: usize, field: Field) -> DecodeError {
        let remaining = self.remaining();
        self.error(field, DecodeErrorKind::UnexpectedEnd { needed, remaining })
    }
}

/// Bytes where they stand.
enum Parts {
    One(Bytes),
    Several(Vec<Bytes>),
}

fn joined(parts: Parts) -> Bytes {
    match parts {
        Parts::One(bytes) => bytes,
        Parts::Several(parts) => {
            let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| joined.extend_from_slice(part));
            joined.freeze()
        }
    }
}

/// Longest text that Kafka allows, also where the length prefix could say more.
pub(super) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// A 32-bit integer in groups of seven bits.
const VARINT_BYTES_MAX: usize = 5;

/// What an array may reserve before its first element was read.
const RESERVED_BYTES_FIRST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;
    use crate::messages::{FindCoordinatorRequest, ListGroupsRequest, SaslHandshakeResponse};

    fn reader(bytes: &'static [u8]) -> Reader {
        Reader::new(Bytes::from_static(bytes))
    }

    #[test]
    fn varints_end_after_32_bits() {
        assert_eq!(reader(b"\x00").read_uvarint("x"), Ok(0));
        assert_eq!(reader(b"\xac\x02").read_uvarint("x"), Ok(300));
        assert_eq!(reader(b"\xff\xff\xff\xff\x0f").read_uvarint("x"), Ok(u32::MAX));
        // Longer than necessary is allowed, as in Kafka.
        assert_eq!(reader(b"\x81\x00").read_uvarint("x"), Ok(1));
        for bad in [&b"\xff\xff\xff\xff\x1f"[..], b"\x80\x80\x80\x80\x80\x00"] {
            let error = reader(bad).read_uvarint("x").expect_err("more than 32 bits");
            assert_eq!(error.kind, DecodeErrorKind::BadVarint);
        }
    }

    #[test]
    fn errors_name_the_field_and_the_byte() {
        let error =
            SaslHandshakeResponse::decode(&mut reader(b"\x00\x00\x00\x00\x00\x01\x00\x05ab"), 1)
                .expect_err("two bytes of five");
        assert_eq!(
            error.to_string(),
            "SaslHandshakeResponse.mechanisms at byte 8: needs 5 bytes, but 2 are left"
        );
        let error = FindCoordinatorRequest::decode(&mut reader(b"\x00\x02\xc3\x28"), 0)
            .expect_err("not UTF-8");
        assert_eq!(error.to_string(), "FindCoordinatorRequest.key at byte 2: is not valid UTF-8");
        let error = FindCoordinatorRequest::decode(&mut reader(b"\xff\xff"), 0)
            .expect_err("null is not allowed");
        assert_eq!(error.kind, DecodeErrorKind::Null { version: 0 });
    }

    /// However a message is cut, it reads the same, and so do its errors.
    #[test]
    fn pieces_change_nothing_about_what_is_read() {
        use crate::messages::fetch_response::{
            FetchResponse, FetchableTopicResponse, PartitionData,
        };
        let partition = PartitionData {
            records: Some(Bytes::from_static(b"records of some length")),
            ..PartitionData::default()
        };
        let topic = FetchableTopicResponse {
            partitions: vec![partition.clone(), partition],
            ..FetchableTopicResponse::default()
        };
        let response = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
        let mut writer = crate::Writer::new();
        response.encode(&mut writer, 13).expect("in version 13");
        let whole = writer.into_bytes();
        for first in 0..whole.len() {
            for second in [first, (first + 5).min(whole.len()), whole.len()] {
                let cut = |end: usize| -> Pieces {
                    let (first, second) = (first.min(end), second.min(end));
                    let parts = [
                        whole.slice(..first),
                        whole.slice(first..second),
                        whole.slice(second..end),
                    ];
                    parts.to_vec().into()
                };
                let mut reader = Reader::of(cut(whole.len()));
                assert_eq!(FetchResponse::decode(&mut reader, 13).as_ref(), Ok(&response));
                assert_eq!((reader.remaining(), reader.into_rest().len()), (0, 0));
                let end = whole.len() - 1 - first / 2;
                assert_eq!(
                    FetchResponse::decode(&mut Reader::of(cut(end)), 13),
                    FetchResponse::decode(&mut Reader::new(whole.slice(..end)), 13)
                );
            }
        }
    }

    #[test]
    fn bytes_in_several_pieces_are_joined_unless_somebody_keeps_the_pieces() {
        let parts = [&b"\0\0\0\x06ab"[..], b"cd", b"ef\0\0\0\x01g"].map(Bytes::from_static);
        let version = Version { number: 0, flexible: false };
        let mut joining = Reader::of(parts.to_vec().into());
        let mut keeping = joining.clone();
        keeping.keep_spans();
        assert_eq!(joining.get::<Bytes>(version, "x").expect("six bytes"), "abcdef");
        assert_eq!(keeping.get::<Bytes>(version, "x").expect("six bytes"), "ab");
        for reader in [&mut joining, &mut keeping] {
            assert_eq!(reader.get::<Bytes>(version, "x").expect("one byte"), "g");
        }
        let spans = keeping.take_spans();
        assert_eq!(spans, [["ab", "cd", "ef"]]);
        assert_eq!(spans[0][1].as_ptr(), parts[1].as_ptr(), "not copied");
        assert!(joining.take_spans().is_empty());
    }

    #[test]
    fn unknown_tagged_fields_are_skipped() {
        // Two empty arrays, then tags 5 and 9 with three and no bytes.
        let mut input = reader(b"\x01\x01\x02\x05\x03abc\x09\x00rest");
        assert_eq!(ListGroupsRequest::decode(&mut input, 5), Ok(ListGroupsRequest::default()));
        assert_eq!(input.into_rest(), "rest");
    }

    #[test]
    fn a_tagged_field_must_fill_its_size() {
        use crate::messages::ApiVersionsResponse;
        // Error code, no APIs, throttle time, one tag: 1 is the finalized features' epoch, an i64.
        let good = b"\x00\x00\x01\x00\x00\x00\x00\x01\x01\x08\x00\x00\x00\x00\x00\x00\x00\x2a";
        let response = ApiVersionsResponse::decode(&mut reader(good), 3).expect("well-formed");
        assert_eq!(response.finalized_features_epoch, 42);
        let long = b"\x00\x00\x01\x00\x00\x00\x00\x01\x01\x09\x00\x00\x00\x00\x00\x00\x00\x2a\x00";
        let error = ApiVersionsResponse::decode(&mut reader(long), 3).expect_err("a byte too many");
        assert_eq!(error.kind, DecodeErrorKind::TaggedFieldTooShort { unread: 1 });
        let short = b"\x00\x00\x01\x00\x00\x00\x00\x01\x01\x07\x00\x00\x00\x00\x00\x00\x00\x2a";
        let error = ApiVersionsResponse::decode(&mut reader(short), 3).expect_err("a byte too few");
        assert_eq!(error.kind, DecodeErrorKind::UnexpectedEnd { needed: 8, remaining: 7 });
    }

    #[test]
    fn an_array_of_nothing_is_refused_when_it_would_fill_memory() {
        // 200,000 empty strings: one byte each here, 32 in memory.
        let mut input = vec![1; 200_005];
        input[..4].copy_from_slice(&[0xc1, 0x9a, 0x0c, 0x01]);
        let error = ListGroupsRequest::decode(&mut Reader::new(input.into()), 5)
            .expect_err("beyond the budget");
        assert_eq!(error.kind, DecodeErrorKind::TooMuchMemory);
    }
}

//! Writes values into a list of segments, keeping large bytes where they are.

use bytes::{BufMut, Bytes, BytesMut};

use super::reader::STRING_BYTES_MAX;
use super::value::{Struct, Wire};
use super::{EncodeError, EncodeErrorKind, Field, Str, Version};

/// Collects a message for a vectored write.
///
/// Small things are copied into one buffer; bytes above [`Writer::SHARED_BYTES_MIN`], such as
/// records, become segments of their own without being copied. The first thing that cannot be
/// written is remembered instead of being returned at every call, which keeps the generated code
/// small; [`Message::encode`](crate::Message::encode) hands it out.
#[derive(Debug, Default)]
pub struct Writer {
    /// What lies before `buffer`.
    segments: Vec<Segment>,
    /// Bytes in `segments`.
    segments_len: usize,
    buffer: BytesMut,
    error: Option<EncodeError>,
}

/// A stretch of output: our own, which may still be patched, or shared.
#[derive(Debug)]
enum Segment {
    Own(BytesMut),
    Shared(Bytes),
}

impl Writer {
    /// Bytes of at least this length are shared instead of copied.
    ///
    /// Below it, copying costs less than another entry in a vectored write.
    pub const SHARED_BYTES_MIN: usize = 1024;

    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts empty with room for `capacity` bytes of small things.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(capacity), ..Self::default() }
    }

    /// Returns how many bytes were written.
    pub fn len(&self) -> usize {
        self.segments_len + self.buffer.len()
    }

    /// Reports whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what was written, in pieces whose order matters.
    pub fn into_segments(mut self) -> Vec<Bytes> {
        self.close_buffer();
        let freeze = |segment| match segment {
            Segment::Own(bytes) => bytes.freeze(),
            Segment::Shared(bytes) => bytes,
        };
        self.segments.into_iter().map(freeze).collect()
    }

    /// Returns what was written in one piece; copies when there are several.
    pub fn into_bytes(mut self) -> Bytes {
        if self.segments.is_empty() {
            return self.buffer.freeze();
        }
        let mut whole = BytesMut::with_capacity(self.len());
        self.close_buffer();
        for segment in &self.segments {
            whole.extend_from_slice(match segment {
                Segment::Own(bytes) => bytes,
                Segment::Shared(bytes) => bytes,
            });
        }
        whole.freeze()
    }

    /// Writes an `i8`.
    pub fn write_i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    /// Writes an `i16`.
    pub fn write_i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    /// Writes an `i32`.
    pub fn write_i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    /// Writes an `i64`.
    pub fn write_i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// Writes an unsigned integer in as few bytes as it needs.
    pub fn write_uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// Writes bytes by copying them.
    pub fn write_slice(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Writes bytes, sharing them when they are large.
    pub fn write_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < Self::SHARED_BYTES_MIN {
            return self.write_slice(bytes);
        }
        self.close_buffer();
        self.segments_len += bytes.len();
        self.segments.push(Segment::Shared(bytes.clone()));
    }

    /// Sets the first four bytes, already written as a placeholder, to the length of what follows.
    pub(crate) fn finish_frame(mut self) -> Result<Vec<Bytes>, EncodeError> {
        let length = self.len() - size_of::<i32>();
        let Ok(prefix) = i32::try_from(length) else {
            let kind = EncodeErrorKind::TooLong { length };
            return Err(EncodeError { field: "frame", version: 0, kind });
        };
        let first = match self.segments.first_mut() {
            Some(Segment::Own(bytes)) => bytes,
            _ => &mut self.buffer,
        };
        first[..size_of::<i32>()].copy_from_slice(&prefix.to_be_bytes());
        Ok(self.into_segments())
    }

    /// Hands out the first thing that could not be written.
    pub(crate) fn take_error(&mut self) -> Result<(), EncodeError> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Writes a value as `version` lays it out; `field` names it in errors.
    pub(crate) fn put<T: Wire>(&mut self, value: &T, version: Version, field: Field) {
        value.write(self, version, field);
    }

    /// Writes a value that is nullable only where `nullable` says so.
    pub(crate) fn put_nullable<T>(
        &mut self,
        nullable: bool,
        value: &Option<T>,
        version: Version,
        field: Field,
    ) where
        T: Wire,
        Option<T>: Wire,
    {
        match value {
            _ if nullable => self.put(value, version, field),
            Some(value) => self.put(value, version, field),
            None => self.fail(version, field, EncodeErrorKind::Null),
        }
    }

    /// Checks a field that `version` lacks: it must not hold anything worth telling.
    pub(crate) fn absent(&mut self, is_default: bool, version: Version, field: Field) {
        if !is_default {
            self.fail(version, field, EncodeErrorKind::NotInVersion);
        }
    }

    /// Writes the tagged fields that end a struct in flexible versions.
    pub(crate) fn tags(&mut self, tags: Tags, version: Version) {
        if version.flexible {
            self.write_uvarint(tags.count);
        }
        // In other versions the body is empty, but may know of a field that is set all the same.
        self.append(tags.body);
    }

    /// Ends a struct that has no tagged fields.
    pub(crate) fn no_tags(&mut self, version: Version) {
        if version.flexible {
            self.write_uvarint(0);
        }
    }

    /// Writes the length in front of bytes or of an array: `None` for null.
    pub(super) fn length(&mut self, length: Option<usize>, version: Version, field: Field) {
        let limit = i32::MAX as usize - 1;
        if let Some(length) = length.filter(|&length| length > limit) {
            self.fail(version, field, EncodeErrorKind::TooLong { length });
        } else if version.flexible {
            self.write_uvarint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.write_i32(length.map_or(-1, |length| length as i32));
        }
    }

    /// Writes a text: `None` for null.
    pub(super) fn text(&mut self, text: Option<&Str>, version: Version, field: Field) {
        let length = text.map(|text| text.len());
        if let Some(length) = length.filter(|&length| length > STRING_BYTES_MAX) {
            return self.fail(version, field, EncodeErrorKind::TooLong { length });
        }
        if version.flexible {
            self.length(length, version, field);
        } else {
            self.write_i16(length.map_or(-1, |length| length as i16));
        }
        if let Some(text) = text {
            self.write_shared(text.as_shared());
        }
    }

    /// Remembers the first thing that could not be written.
    #[cold]
    pub(crate) fn fail(&mut self, version: Version, field: Field, kind: EncodeErrorKind) {
        self.error.get_or_insert(EncodeError { field, version: version.number, kind });
    }

    fn append(&mut self, other: Self) {
        if let Some(error) = other.error {
            self.error.get_or_insert(error);
        }
        for segment in other.segments {
            match segment {
                Segment::Own(bytes) => self.write_slice(&bytes),
                Segment::Shared(bytes) => self.write_shared(&bytes),
            }
        }
        self.write_slice(&other.buffer);
    }

    fn close_buffer(&mut self) {
        if !self.buffer.is_empty() {
            let own = self.buffer.split();
            self.segments_len += own.len();
            self.segments.push(Segment::Own(own));
        }
    }
}

/// The tagged fields of a struct, collected because their number comes first.
#[derive(Default)]
pub(crate) struct Tags {
    count: u32,
    body: Writer,
}

impl Tags {
    /// Adds a field; tags must come in ascending order.
    pub(crate) fn put<T: Wire>(&mut self, tag: u32, value: &T, version: Version, field: Field) {
        let mut content = Writer::new();
        content.put(value, version, field);
        self.append(tag, content);
    }

    /// Adds a nullable struct, whose presence is a varint when it is a tagged field.
    pub(crate) fn put_struct<T: Struct>(
        &mut self,
        tag: u32,
        value: &Option<T>,
        version: Version,
        field: Field,
    ) {
        let mut content = Writer::new();
        content.write_uvarint(u32::from(value.is_some()));
        if let Some(value) = value {
            content.put(value, version, field);
        }
        self.append(tag, content);
    }

    /// Checks a field that `version` lacks: it must not hold anything worth telling.
    pub(crate) fn absent(&mut self, is_default: bool, version: Version, field: Field) {
        self.body.absent(is_default, version, field);
    }

    fn append(&mut self, tag: u32, content: Writer) {
        self.count += 1;
        self.body.write_uvarint(tag);
        self.body.write_uvarint(content.len() as u32);
        self.body.append(content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;
    use crate::messages::{
        FetchRequest, InitProducerIdRequest, MetadataRequest, RequestHeader, fetch_request,
    };

    #[test]
    fn a_field_the_version_lacks_is_refused_by_name() {
        let request = InitProducerIdRequest { producer_id: 7, ..Default::default() };
        let error = request.encode(&mut Writer::new(), 2).expect_err("version 3 has it");
        assert_eq!(error.message(), "InitProducerIdRequest");
        assert_eq!(
            error.to_string(),
            "InitProducerIdRequest.producer_id in version 2: is set, but this version has no such field"
        );
        request.encode(&mut Writer::new(), 3).expect("version 3 has it");
    }

    #[test]
    fn a_tagged_field_is_refused_in_versions_without_tags() {
        let replica_state = fetch_request::ReplicaState { replica_id: 1, replica_epoch: 2 };
        let request = FetchRequest { replica_state, ..Default::default() };
        let error = request.encode(&mut Writer::new(), 11).expect_err("version 15 has it");
        assert_eq!(error.field, "FetchRequest.replica_state");
        request.encode(&mut Writer::new(), 15).expect("version 15 has it");
    }

    #[test]
    fn null_is_refused_where_the_version_allows_none() {
        let request = MetadataRequest { topics: None, ..Default::default() };
        let error = request.encode(&mut Writer::new(), 0).expect_err("version 1 has null");
        assert_eq!(error.kind, EncodeErrorKind::Null);
        request.encode(&mut Writer::new(), 1).expect("version 1 has null");
    }

    #[test]
    fn strings_beyond_kafkas_limit_are_refused() {
        let client_id = Some(Str::from("x".repeat(STRING_BYTES_MAX + 1)));
        let header = RequestHeader { client_id, ..Default::default() };
        let error = header.encode(&mut Writer::new(), 2).expect_err("too long");
        assert_eq!(error.kind, EncodeErrorKind::TooLong { length: STRING_BYTES_MAX + 1 });
    }

    #[test]
    fn large_bytes_are_segments_of_their_own() {
        let large = Bytes::from(vec![7; Writer::SHARED_BYTES_MIN]);
        let mut writer = Writer::new();
        writer.write_i32(1);
        writer.write_shared(&large);
        writer.write_shared(&Bytes::from_static(b"small"));
        assert_eq!(writer.len(), 4 + large.len() + 5);
        let segments = writer.into_segments();
        assert_eq!(segments.len(), 3);
        assert_eq!(segments[1].as_ptr(), large.as_ptr(), "the bytes were copied");
        assert_eq!(segments[2], "small");
    }
}

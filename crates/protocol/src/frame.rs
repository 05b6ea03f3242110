//! Frames: a 4-byte length, a header, a message.
//!
//! ```text
//! length i32 | request header v1 or v2 | request
//! length i32 | response header v0 or v1 | response
//! ```

use bytes::{Buf, Bytes, BytesMut};

use crate::messages::{ApiKey, RequestHeader, ResponseHeader};
use crate::wire::{DecodeError, DecodeErrorKind, EncodeError, Pieces, Reader, Str, Writer};
use crate::{Message, Request};

/// Bytes of the length in front of every frame.
pub const LENGTH_BYTES: usize = 4;

/// Reports a frame that is too large, or whose length is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame declares {length} bytes, which is not within 0 and {limit}")]
pub struct FrameError {
    /// The declared length.
    pub length: i32,
    /// The most that is accepted.
    pub limit: usize,
}

/// Cuts the first whole frame off `buffer`, without its length; `None` until it is all there.
///
/// The length is checked as soon as its four bytes are there, so that a caller never waits for, or
/// makes room for, a frame that it would refuse.
pub fn split_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = frame_length(buffer, limit)? else { return Ok(None) };
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Reads the length of the frame at the start of `buffer`; `None` until its four bytes are there.
pub fn frame_length(buffer: &[u8], limit: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = i32::from_be_bytes(*prefix);
    match usize::try_from(length) {
        Ok(size) if size <= limit => Ok(Some(size)),
        _ => Err(FrameError { length, limit }),
    }
}

/// A request's header together with the API it names.
#[derive(Clone, Debug)]
pub struct RequestFrame {
    /// The API called.
    pub key: ApiKey,
    /// The version of the request, which may lie outside what anybody knows.
    pub version: i16,
    /// The number that the response must carry.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
    /// Stands at the first byte of the request.
    pub body: Reader,
}

/// Reads the header of a request out of a frame without its length.
///
/// A version that nobody knows is no error here, because ApiVersions must answer it; its header is
/// read as the newest one, whose leading fields never change.
pub fn decode_request_header(frame: impl Into<Pieces>) -> Result<RequestFrame, DecodeError> {
    let mut body = Reader::of(frame.into());
    let mut peek = body.clone();
    let code = peek.read_i16("RequestHeader.request_api_key")?;
    let version = peek.read_i16("RequestHeader.request_api_version")?;
    let Ok(key) = ApiKey::try_from(code) else {
        let kind = DecodeErrorKind::UnknownApiKey { key: code };
        return Err(peek.error("RequestHeader.request_api_key", kind));
    };
    let header = RequestHeader::decode(&mut body, key.request_header_version(version))?;
    let RequestHeader { correlation_id, client_id, .. } = header;
    Ok(RequestFrame { key, version, correlation_id, client_id, body })
}

/// Reads the header of a response out of a frame without its length: the correlation id, and a
/// reader that stands at the first byte of the response to a request of `key` and `version`.
pub fn decode_response_header(
    frame: impl Into<Pieces>,
    key: ApiKey,
    version: i16,
) -> Result<(i32, Reader), DecodeError> {
    let mut reader = Reader::of(frame.into());
    let header = ResponseHeader::decode(&mut reader, key.response_header_version(version))?;
    Ok((header.correlation_id, reader))
}

/// Writes a whole request frame, its length included, ready for a vectored write.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    client_id: Option<&Str>,
    request: &R,
    version: i16,
) -> Result<Vec<Bytes>, EncodeError> {
    encode_request_with(R::KEY, correlation_id, client_id, version, |writer| {
        request.encode(writer, version)
    })
}

/// Writes a whole request frame whose body `encode` writes.
pub fn encode_request_with(
    key: ApiKey,
    correlation_id: i32,
    client_id: Option<&Str>,
    version: i16,
    encode: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Vec<Bytes>, EncodeError> {
    let header = RequestHeader {
        request_api_key: key.code(),
        request_api_version: version,
        correlation_id,
        client_id: client_id.cloned(),
    };
    framed(|writer| {
        header.encode(writer, key.request_header_version(version))?;
        encode(writer)
    })
}

/// Writes a whole response frame, its length included, ready for a vectored write.
///
/// `version` is that of the request; `key` cannot be told from the type, since a response does not
/// know its API.
pub fn encode_response<M: Message>(
    key: ApiKey,
    correlation_id: i32,
    response: &M,
    version: i16,
) -> Result<Vec<Bytes>, EncodeError> {
    encode_response_with(key, correlation_id, version, |writer| response.encode(writer, version))
}

/// Writes a whole response frame whose body `encode` writes.
pub fn encode_response_with(
    key: ApiKey,
    correlation_id: i32,
    version: i16,
    encode: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Vec<Bytes>, EncodeError> {
    let header = ResponseHeader { correlation_id };
    framed(|writer| {
        header.encode(writer, key.response_header_version(version))?;
        encode(writer)
    })
}

fn framed(
    encode: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut writer = Writer::with_capacity(BUFFER_BYTES);
    // The length comes first and is known last.
    writer.write_i32(0);
    encode(&mut writer)?;
    writer.finish_frame()
}

/// Room for the small parts of an ordinary message, so that its buffer does not grow in steps.
const BUFFER_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{
        ApiVersionsRequest, ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse,
    };

    #[test]
    fn frames_are_cut_one_by_one_as_bytes_arrive() {
        let mut buffer = BytesMut::new();
        let stream = b"\x00\x00\x00\x03abc\x00\x00\x00\x00\x00\x00\x00\x01d";
        let mut frames = Vec::new();
        for byte in stream {
            buffer.extend_from_slice(&[*byte]);
            while let Some(frame) = split_frame(&mut buffer, 3).expect("all within the limit") {
                frames.push(frame);
            }
        }
        assert_eq!(frames, ["abc", "", "d"]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_before_it_arrives() {
        for (prefix, length) in [(*b"\x00\x00\x00\x04", 4), (*b"\xff\xff\xff\xff", -1)] {
            let mut buffer = BytesMut::from(&prefix[..]);
            let refused = split_frame(&mut buffer, 3);
            assert_eq!(refused, Err(FrameError { length, limit: 3 }));
        }
    }

    #[test]
    fn a_request_carries_its_header() {
        let request = HeartbeatRequest { group_id: "g".into(), ..Default::default() };
        for version in 0..=4 {
            let client_id = Str::from("me");
            let segments = encode_request(7, Some(&client_id), &request, version);
            let mut stream = BytesMut::from(&segments.expect("within its version").concat()[..]);
            let frame = split_frame(&mut stream, 100).expect("small").expect("whole");
            let mut read = decode_request_header(frame).expect("we wrote it");
            assert_eq!((read.key, read.version), (ApiKey::Heartbeat, version));
            assert_eq!((read.correlation_id, read.client_id), (7, Some(client_id)));
            assert_eq!(HeartbeatRequest::decode(&mut read.body, version), Ok(request.clone()));
            assert_eq!(read.body.remaining(), 0);
        }
    }

    #[test]
    fn a_response_carries_its_header() {
        let response = HeartbeatResponse { error_code: 25, ..Default::default() };
        for version in 0..=4 {
            let segments = encode_response(ApiKey::Heartbeat, 8, &response, version);
            let frame = Bytes::from(segments.expect("within its version").concat()).slice(4..);
            let (correlation_id, mut body) =
                decode_response_header(frame, ApiKey::Heartbeat, version).expect("we wrote it");
            assert_eq!(correlation_id, 8);
            assert_eq!(HeartbeatResponse::decode(&mut body, version), Ok(response.clone()));
            assert_eq!(body.remaining(), 0);
        }
    }

    #[test]
    fn api_versions_answers_with_the_oldest_header() {
        let response = ApiVersionsResponse { error_code: 0, ..Default::default() };
        let segments = encode_response(ApiKey::ApiVersions, 1, &response, 3).expect("in version 3");
        // Correlation id, then the error code at once: no tagged fields in between.
        assert_eq!(segments.concat()[4..10], [0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn an_unheard_of_version_still_shows_who_asks() {
        let mut whole = encode_request(3, Some(&"new".into()), &ApiVersionsRequest::default(), 4)
            .expect("in version 4")
            .concat();
        whole[6..8].copy_from_slice(&77i16.to_be_bytes());
        let read = decode_request_header(Bytes::from(whole).slice(4..)).expect("the header holds");
        assert_eq!((read.key, read.version, read.correlation_id), (ApiKey::ApiVersions, 77, 3));
        assert_eq!(read.client_id, Some("new".into()));
    }

    #[test]
    fn an_unheard_of_api_is_named() {
        let error = decode_request_header(Bytes::from_static(&[0x7f, 0, 0, 0, 0, 0, 0, 0]))
            .expect_err("there is no such API");
        assert_eq!(error.kind, DecodeErrorKind::UnknownApiKey { key: 0x7f00 });
    }
}

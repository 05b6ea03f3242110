//! A response to a fetch, or a share fetch, whose records stay where they are.
//!
//! What a partition gives a consumer usually lies in several pieces of memory: the batches of
//! several produce requests, each with its header apart. A response message has one run of bytes
//! for them, and joining the pieces would copy every byte that is consumed. So the message is
//! written with a placeholder of the right length, which the writer keeps as a segment of its
//! own, and the pieces then take the segment's place. Pieces that are still in a file are not read
//! for this.

use std::sync::LazyLock;

use bytes::Bytes;
use fleuve_os::{DiskResult, Piece};
use fleuve_protocol::messages::ApiKey;
use fleuve_protocol::messages::fetch_response::FetchResponse;
use fleuve_protocol::{EncodeError, Message, Writer, frame};

use crate::request::IntoFrame;

/// Bytes nobody reads or writes: they lend placeholders their length, and where one begins in them
/// tells which it is. The system hands out zeroed pages untouched, so they take up addresses and no
/// memory; a static array would take up the same room in the binary.
static NOTHING: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; PLACEHOLDER_BYTES_MAX]));
/// Records beyond this are joined; more than any partition gives under the default limits.
const PLACEHOLDER_BYTES_MAX: usize = 64 << 20;

/// A response and the records that belong into it.
#[derive(Debug, Default)]
pub(crate) struct FetchReply<M = FetchResponse> {
    response: M,
    /// What each placeholder stands for, by its number.
    pieces: Vec<Vec<Piece>>,
}

impl<M> FetchReply<M> {
    /// Makes a reply without partitions.
    pub(crate) fn new(response: M) -> Self {
        Self { response, pieces: Vec::new() }
    }

    /// The message, apart from its records.
    pub(crate) fn response(&mut self) -> &mut M {
        &mut self.response
    }

    /// Takes in the records of a partition and returns what stands for them in the message, wherever
    /// in it the partition is put.
    ///
    /// # Errors
    ///
    /// Records that are too few or too many for a placeholder are read if they are in a file, and
    /// that may fail.
    pub(crate) fn place(&mut self, mut records: Vec<Piece>) -> DiskResult<Bytes> {
        let length: usize = records.iter().map(Piece::len).sum();
        let number = self.pieces.len();
        match records.as_mut_slice() {
            [] => Ok(Bytes::new()),
            [Piece::Memory(bytes)] => Ok(std::mem::take(bytes)),
            _ if length >= Writer::SHARED_BYTES_MIN && number + length <= PLACEHOLDER_BYTES_MAX => {
                self.pieces.push(records);
                Ok(NOTHING.slice(number..number + length))
            }
            _ => {
                let mut joined = Vec::with_capacity(length);
                for piece in records {
                    joined.extend_from_slice(&piece.into_bytes()?);
                }
                Ok(Bytes::from(joined))
            }
        }
    }

    /// Which placeholder a segment of the message is, if it is one.
    fn number_of(&self, segment: &Bytes) -> Option<usize> {
        let number = segment.as_ptr().addr().checked_sub(NOTHING.as_ptr().addr())?;
        (number < self.pieces.len()).then_some(number)
    }
}

impl<M: Message + Send + 'static> IntoFrame for FetchReply<M> {
    fn error_codes(&self, each: &mut dyn FnMut(i16)) {
        Message::error_codes(&self.response, each);
    }

    fn throttle_time_ms(&mut self) -> Option<&mut i32> {
        self.response.throttle_time_ms()
    }

    fn into_frame(
        mut self,
        key: ApiKey,
        correlation_id: i32,
        version: i16,
    ) -> Result<Vec<Piece>, EncodeError> {
        let segments = frame::encode_response(key, correlation_id, &self.response, version)?;
        let mut spliced = Vec::with_capacity(segments.len() + 2 * self.pieces.len());
        for segment in segments {
            match self.number_of(&segment) {
                Some(number) => spliced.append(&mut self.pieces[number]),
                None => spliced.push(Piece::Memory(segment)),
            }
        }
        debug_assert!(self.pieces.iter().all(Vec::is_empty), "a placeholder was copied");
        Ok(spliced)
    }
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};

    use super::*;

    #[test]
    fn pieces_stand_where_the_joined_records_would() {
        let pieces = |sizes: &[usize]| -> Vec<Piece> {
            let piece = |size: &usize| Bytes::from(vec![*size as u8; *size]).into();
            sizes.iter().map(piece).collect()
        };
        let partitions =
            [pieces(&[61, 5000]), pieces(&[]), pieces(&[10, 20]), pieces(&[61, 1, 7000, 3])];
        for version in 4..=18 {
            let mut reply: FetchReply = FetchReply::default();
            let mut joined = FetchResponse::default();
            for records in &partitions {
                let whole = Bytes::from(bytes_of(records.clone()));
                let placed = reply.place(records.clone()).expect("in memory");
                for (response, records) in [(&mut joined, whole), (reply.response(), placed)] {
                    response.responses.push(FetchableTopicResponse {
                        partitions: vec![PartitionData {
                            records: Some(records),
                            ..Default::default()
                        }],
                        ..Default::default()
                    });
                }
            }
            let expected = frame::encode_response(ApiKey::Fetch, 7, &joined, version);
            let actual = reply.into_frame(ApiKey::Fetch, 7, version);
            let (expected, actual) = (expected.expect("valid"), actual.expect("valid"));
            assert_eq!(bytes_of(actual), expected.concat(), "version {version}");
        }
    }

    #[test]
    fn pieces_find_their_place_in_whatever_order_they_are_placed() {
        // Partitions of two topics by turns, as a share session asks for them.
        let records = |fill: u8| {
            [Bytes::from(vec![fill; 3000]), Bytes::from(vec![fill; 2000 + usize::from(fill)])]
        };
        let mut reply: FetchReply = FetchReply::default();
        let placed = [1, 2, 3].map(|fill| {
            let records = records(fill).into_iter().map(Piece::Memory).collect();
            reply.place(records).expect("in memory")
        });
        let mut joined = FetchResponse::default();
        for topic in [&[1, 3][..], &[2]] {
            for (response, is_joined) in [(&mut joined, true), (reply.response(), false)] {
                let partition = |fill: &u8| PartitionData {
                    records: Some(if is_joined {
                        Bytes::from(records(*fill).concat())
                    } else {
                        placed[usize::from(*fill) - 1].clone()
                    }),
                    ..Default::default()
                };
                response.responses.push(FetchableTopicResponse {
                    partitions: topic.iter().map(partition).collect(),
                    ..Default::default()
                });
            }
        }
        let expected = frame::encode_response(ApiKey::Fetch, 7, &joined, 12).expect("valid");
        let actual = reply.into_frame(ApiKey::Fetch, 7, 12).expect("valid");
        assert_eq!(bytes_of(actual), expected.concat());
    }

    fn bytes_of(pieces: Vec<Piece>) -> Vec<u8> {
        let bytes = |piece: Piece| piece.into_bytes().expect("in memory");
        pieces.into_iter().flat_map(bytes).collect()
    }
}

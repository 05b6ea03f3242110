//! The consumer protocol embedded in the classic one: what consumers write into their subscriptions,
//! and their leaders into assignments.
//!
//! ```text
//! version i16 | ConsumerProtocolSubscription or ConsumerProtocolAssignment in that version
//! ```
//!
//! The coordinator has no need of it but where a group changes to the consumer protocol or back.
//! Versions that we do not know begin with the newest that we do.

use bytes::Bytes;
use fleuve_protocol::messages::consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition,
};
use fleuve_protocol::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use fleuve_protocol::{Message, Reader, Str, Writer};

/// The newest version of both that we know.
const VERSION_MAX: i16 = 3;

/// A consumer's wishes.
pub(crate) struct Subscription {
    pub(crate) topics: Vec<Str>,
    /// `client.rack`, if it is set.
    pub(crate) rack_id: Option<Str>,
    /// What the consumer has; nothing if it gave up everything before it joined.
    pub(crate) owned: Vec<(Str, Vec<i32>)>,
}

/// What a leader gave to a consumer.
pub(crate) struct Assignment {
    pub(crate) partitions: Vec<(Str, Vec<i32>)>,
    /// Whether there is more in it, which only the assignor understands.
    pub(crate) has_user_data: bool,
}

/// Reads a subscription; none if it is not one.
pub(crate) fn read_subscription(metadata: &Bytes) -> Option<Subscription> {
    let (version, mut reader) = versioned(metadata)?;
    let read = ConsumerProtocolSubscription::decode(&mut reader, version).ok()?;
    let owned = read.owned_partitions.into_iter().map(|owned| (owned.topic, owned.partitions));
    Some(Subscription {
        topics: read.topics,
        rack_id: read.rack_id.filter(|rack| !rack.is_empty()),
        owned: owned.collect(),
    })
}

/// Reads an assignment; none if it is not one.
pub(crate) fn read_assignment(assignment: &Bytes) -> Option<Assignment> {
    let (version, mut reader) = versioned(assignment)?;
    let read = ConsumerProtocolAssignment::decode(&mut reader, version).ok()?;
    let partitions = read.assigned_partitions.into_iter().map(|each| (each.topic, each.partitions));
    Some(Assignment {
        partitions: partitions.collect(),
        has_user_data: read.user_data.is_some_and(|data| !data.is_empty()),
    })
}

/// Writes an assignment for a consumer with this subscription, in the version that it speaks.
pub(crate) fn write_assignment(
    subscription: Option<&Bytes>,
    partitions: impl Iterator<Item = (Str, Vec<i32>)>,
) -> Bytes {
    let version = subscription.and_then(versioned).map_or(0, |(version, _)| version);
    let each = partitions.map(|(topic, partitions)| TopicPartition { topic, partitions });
    let assignment =
        ConsumerProtocolAssignment { assigned_partitions: each.collect(), user_data: None };
    let mut writer = Writer::new();
    writer.write_i16(version);
    match assignment.encode(&mut writer, version) {
        Ok(()) => writer.into_bytes(),
        // Names of topics and numbers of partitions fit; if not, the consumer gets nothing.
        Err(_) => Bytes::new(),
    }
}

fn versioned(bytes: &Bytes) -> Option<(i16, Reader)> {
    let mut reader = Reader::new(bytes.clone());
    let version = reader.read_i16("consumer protocol version").ok()?;
    (version >= 0).then(|| (version.min(VERSION_MAX), reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_as_they_were_written() {
        for version in 0..=5_i16 {
            let subscription = Bytes::copy_from_slice(&version.to_be_bytes());
            let partitions = vec![(Str::from_static("t"), vec![0, 2])];
            let written = write_assignment(Some(&subscription), partitions.clone().into_iter());
            assert_eq!(written[..2], version.min(VERSION_MAX).to_be_bytes());
            let read = read_assignment(&written).expect("it was just written");
            assert_eq!(read.partitions, partitions);
            assert!(!read.has_user_data);
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bytes in [&b""[..], b"\0", b"\xff\xff\0\0\0\0", b"\0\0\x7f\xff\xff\xff", b"\0\x01\0\0"]
        {
            let bytes = Bytes::copy_from_slice(bytes);
            assert!(read_subscription(&bytes).is_none());
            assert!(read_assignment(&bytes).is_none());
        }
    }
}

//! What members of a consumer group tell each other through the coordinator.
//!
//! ```text
//! subscription, assignment:  version i16 | ConsumerProtocolSubscription or ...Assignment
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use fleuve_protocol::messages::consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition as AssignedTopic,
};
use fleuve_protocol::messages::consumer_protocol_subscription::{
    ConsumerProtocolSubscription, TopicPartition as OwnedTopic,
};
use fleuve_protocol::{Message, Reader, Writer};
use fleuve_types::TopicPartition;

use super::assignor::{Assigned, Subscription};

/// Owned partitions came with version 1, their generation with 2, the rack with 3.
const SUBSCRIPTION_VERSION: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 1;

/// Writes what this member tells when it joins.
pub(super) fn encode_subscription(told: &Subscription) -> Bytes {
    let owned_partitions = by_topic(&told.owned)
        .into_iter()
        .map(|(topic, partitions)| OwnedTopic { topic: topic.to_owned().into(), partitions })
        .collect();
    let subscription = ConsumerProtocolSubscription {
        topics: told.topics.iter().map(|topic| topic.clone().into()).collect(),
        user_data: told.user_data.clone(),
        owned_partitions,
        generation_id: told.generation,
        rack_id: told.rack.clone().map(Into::into),
    };
    versioned(&subscription, SUBSCRIPTION_VERSION)
}

/// Reads what a member told when it joined.
pub(crate) fn decode_subscription(member_id: &str, bytes: Bytes) -> Option<Subscription> {
    let told: ConsumerProtocolSubscription = read_versioned(bytes)?;
    let owned = told.owned_partitions.iter().flat_map(|topic| {
        let name: std::sync::Arc<str> = (&*topic.topic).into();
        topic.partitions.iter().map(move |&index| TopicPartition::new(name.clone(), index))
    });
    Some(Subscription {
        member_id: member_id.to_owned(),
        instance_id: None,
        topics: told.topics.iter().map(ToString::to_string).collect(),
        owned: owned.collect(),
        generation: told.generation_id,
        rack: told.rack_id.as_ref().map(ToString::to_string),
        user_data: told.user_data.clone(),
    })
}

/// Writes what the leader assigns to a member.
pub(super) fn encode_assignment(assigned: &Assigned) -> Bytes {
    let assigned_partitions = by_topic(&assigned.partitions)
        .into_iter()
        .map(|(topic, partitions)| AssignedTopic { topic: topic.to_owned().into(), partitions })
        .collect();
    let user_data = assigned.user_data.clone();
    let assignment = ConsumerProtocolAssignment { assigned_partitions, user_data };
    versioned(&assignment, ASSIGNMENT_VERSION)
}

/// Reads what the leader assigned; no bytes mean no partitions.
pub(crate) fn decode_assignment(bytes: Bytes) -> Option<Assigned> {
    if bytes.is_empty() {
        return Some(Assigned::default());
    }
    let told: ConsumerProtocolAssignment = read_versioned(bytes)?;
    let partitions = told.assigned_partitions.iter().flat_map(|topic| {
        let name: std::sync::Arc<str> = (&*topic.topic).into();
        topic.partitions.iter().map(move |&index| TopicPartition::new(name.clone(), index))
    });
    Some(Assigned { partitions: partitions.collect(), user_data: told.user_data.clone() })
}

fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<&str, Vec<i32>> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        by_topic.entry(&partition.topic).or_default().push(partition.partition);
    }
    by_topic
}

fn versioned<M: Message>(message: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    writer.write_i16(version);
    message.encode(&mut writer, version).expect("the version has every field we set");
    writer.into_bytes()
}

/// Newer members may speak newer versions, which only ever append fields.
fn read_versioned<M: Message>(bytes: Bytes) -> Option<M> {
    let mut reader = Reader::new(bytes);
    let version = reader.read_i16("version").ok()?;
    M::decode(&mut reader, version.clamp(0, M::VALID_VERSIONS.max)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_and_assignments_come_back_as_they_were() {
        let owned = [TopicPartition::new("a", 0), TopicPartition::new("b", 2)];
        let subscription = Subscription {
            member_id: "m".to_owned(),
            instance_id: None,
            topics: vec!["a".to_owned(), "b".to_owned()],
            owned: owned.to_vec(),
            generation: 7,
            rack: Some("r".to_owned()),
            user_data: Some(Bytes::from_static(b"u")),
        };
        let told = decode_subscription("m", encode_subscription(&subscription));
        assert_eq!(told, Some(subscription));
        for user_data in [None, Some(Bytes::from_static(b"d"))] {
            let assigned = Assigned { partitions: owned.to_vec(), user_data };
            assert_eq!(decode_assignment(encode_assignment(&assigned)), Some(assigned));
        }
        assert_eq!(decode_assignment(Bytes::new()), Some(Assigned::default()));
    }

    #[test]
    fn foreign_bytes_are_no_subscription() {
        for bytes in [&b""[..], b"\0", b"\0\x01\xff\xff\xff\xff\xff", b"\0\0\x7f\xff\xff\xff"] {
            assert_eq!(decode_subscription("m", Bytes::from_static(bytes)), None);
        }
    }
}

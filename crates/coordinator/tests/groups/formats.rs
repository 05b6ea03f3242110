//! Records in bytes. What is expected here was written by Kafka 4.3.1's own serializer.

use bytes::Bytes;
use fleuve_coordinator::{
    GroupCoordinator, GroupError, GroupSettings, ListFilter, Now, Record, RecordError, State,
};
use fleuve_protocol::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use fleuve_protocol::messages::offset_commit_key::OffsetCommitKey;
use fleuve_protocol::messages::offset_commit_value::OffsetCommitValue;
use fleuve_types::{Offset, TimestampMs, Uuid};
use std::sync::Arc;

use crate::driver::Counting;

const AT: i64 = 1_700_000_000_000;

pub(crate) fn bytes(hex: &str) -> Bytes {
    let digits = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits are ASCII");
        u8::from_str_radix(pair, 16).expect("digits are hexadecimal")
    };
    hex.as_bytes().chunks(2).map(digits).collect()
}

/// Checks both directions.
fn assert_layout(record: &Record, key: &str, value: Option<&str>) {
    let (key, value) = (bytes(key), value.map(bytes));
    assert_eq!(record.encode().expect("the record fits"), (key.clone(), value.clone()));
    assert_eq!(Record::decode(key, value).as_ref(), Ok(record));
}

fn offset_key() -> OffsetCommitKey {
    OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 5 }
}

fn offset_value() -> OffsetCommitValue {
    OffsetCommitValue {
        offset: 42,
        leader_epoch: 3,
        metadata: "note".into(),
        commit_timestamp: AT,
        expire_timestamp: -1,
        topic_id: Uuid::ZERO,
    }
}

fn group_value() -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 7,
        protocol: Some("range".into()),
        leader: Some("m-1".into()),
        current_state_timestamp: AT,
        members: vec![MemberMetadata {
            member_id: "m-1".into(),
            group_instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout: 30_000,
            session_timeout: 10_000,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        }],
    }
}

#[test]
fn group_with_members() {
    assert_layout(
        &Record::Group { group: "g".into(), value: Some(group_value()) },
        "0002000167",
        Some(
            "00030008636f6e73756d657200000007000572616e676500036d2d310000018bcfe568000000000100036d\
             2d3100016900016300022f6800007530000027100000000201020000000103",
        ),
    );
}

#[test]
fn group_without_members_and_its_tombstone() {
    let value = GroupMetadataValue {
        protocol_type: "".into(),
        generation: 0,
        protocol: None,
        leader: None,
        current_state_timestamp: AT,
        members: Vec::new(),
    };
    let record = Record::Group { group: "g".into(), value: Some(value) };
    let layout = "0003000000000000ffffffff0000018bcfe5680000000000";
    assert_layout(&record, "0002000167", Some(layout));
    assert_layout(&Record::Group { group: "g".into(), value: None }, "0002000167", None);
}

#[test]
fn offset_and_its_tombstone() {
    let mut topic_id = [0; 16];
    (topic_id[7], topic_id[15]) = (1, 2);
    let value = OffsetCommitValue { topic_id: Uuid(topic_id), ..offset_value() };
    let key = "000100016700017400000005";
    assert_layout(
        &Record::Offset { key: offset_key(), value: Some(value) },
        key,
        Some(
            "0004000000000000002a00000003056e6f74650000018bcfe5680001001000000000000000010000000000\
             000002",
        ),
    );
    assert_layout(&Record::Offset { key: offset_key(), value: None }, key, None);
}

#[test]
fn offset_with_an_expiry_of_its_own_loses_what_its_version_lacks() {
    let value = OffsetCommitValue { expire_timestamp: AT + 60_000, ..offset_value() };
    let record = Record::Offset { key: offset_key(), value: Some(value.clone()) };
    let (key, encoded) = record.encode().expect("the record fits");
    let layout = "0001000000000000002a00046e6f74650000018bcfe568000000018bcfe65260";
    assert_eq!(encoded, Some(bytes(layout)));
    let without_epoch = OffsetCommitValue { leader_epoch: -1, ..value };
    let expected = Record::Offset { key: offset_key(), value: Some(without_epoch) };
    assert_eq!(Record::decode(key, encoded), Ok(expected));
}

#[test]
fn offsets_of_old_brokers_are_read() {
    let value = OffsetCommitValue { leader_epoch: -1, ..offset_value() };
    let key = bytes("000000016700017400000005");
    let layout = bytes("0000000000000000002a00046e6f74650000018bcfe56800");
    let expected = Record::Offset { key: offset_key(), value: Some(value) };
    assert_eq!(Record::decode(key.clone(), Some(layout)), Ok(expected));
    let tombstone = Record::Offset { key: offset_key(), value: None };
    assert_eq!(Record::decode(key, None), Ok(tombstone));
}

#[test]
fn records_of_other_rooms_are_passed_over_and_damaged_ones_reported() {
    let mut shard = GroupCoordinator::new(GroupSettings::default(), Arc::new(Counting::default()));
    let later = bytes("0018000167");
    assert_eq!(Record::decode(later.clone(), None), Err(RecordError::UnknownType(24)));
    assert_eq!(shard.replay(later, None, Offset(0)), Ok(false));
    for damaged in ["", "00", "0002", "00020005", "0001000167", "0005000167"] {
        let outcome = shard.replay(bytes(damaged), None, Offset(1));
        assert!(matches!(outcome, Err(RecordError::Damaged(_))), "{damaged} was taken for a key");
    }
    let cut = bytes("0003000000000000ffffffff0000018bcfe568000000");
    let outcome = shard.replay(bytes("0002000167"), Some(cut), Offset(2));
    assert!(matches!(outcome, Err(RecordError::Damaged(_))));
    assert_eq!(shard.next_offset(), None, "nothing was applied");
}

#[test]
fn loading_shards_ask_for_patience() {
    let mut shard = GroupCoordinator::new(GroupSettings::default(), Arc::new(Counting::default()));
    let record = Record::Group { group: "g".into(), value: Some(group_value()) };
    shard.apply(&record, Offset(9));
    let filter = ListFilter::default();
    assert_eq!(shard.list_groups(&filter), Err(GroupError::LoadInProgress));
    let step = shard.handle_loaded(Now { wall: TimestampMs(AT), monotonic_ms: 0 });
    assert!(step.effects.is_empty() && step.writes.is_empty());
    let group = shard.describe_group("g").expect("the group was loaded");
    assert_eq!((group.state, group.generation), (State::Stable, 7));
    assert_eq!(group.members[0].assignment, Bytes::from_static(&[3]));
    assert_eq!(shard.next_offset(), Some(Offset(10)));
    assert_eq!(shard.next_deadline(), Some(10_000), "the member's session has begun");
}

#[test]
fn groups_of_the_first_version_have_no_timestamps_and_timeouts() {
    let mut shard = GroupCoordinator::new(GroupSettings::default(), Arc::new(Counting::default()));
    // Version 0: protocol type, generation, protocol, leader, members of id, client, host, session
    // timeout, subscription, assignment.
    let value = "00000008636f6e73756d657200000007000572616e676500036d2d310000000100036d2d310001630002\
                 2f68000027100000000201020000000103";
    assert_eq!(shard.replay(bytes("0002000167"), Some(bytes(value)), Offset(0)), Ok(true));
    let step = shard.handle_loaded(Now { wall: TimestampMs(AT), monotonic_ms: 0 });
    assert!(step.effects.is_empty() && step.writes.is_empty());
    let group = shard.describe_group("g").expect("the group was loaded");
    assert_eq!((group.state, group.state_since), (State::Stable, None));
    assert_eq!(group.members.len(), 1);
}

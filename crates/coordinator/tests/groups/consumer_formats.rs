//! Records of consumer groups in bytes, as a broker of Kafka 4.3.1 wrote them.

use bytes::Bytes;
use fleuve_coordinator::Record;
use fleuve_coordinator::consumer::ConsumerRecord;

use crate::formats::bytes;

/// A member's id in Kafka's bytes.
const MEMBER: &str = "FYfDcPSFRpSBFEPe43DRjA";
const MEMBER_HEX: &str = "001646596644635053465270534246455065343344526a41";
const TOPIC_HEX: &str = "2440989cca7f4b259f1257e14371a49e";

/// Reads a record of group `kg` and checks that it is written with the same bytes.
fn read(key: &str, value: Option<&str>) -> ConsumerRecord {
    let (key, value): (Bytes, Option<Bytes>) = (bytes(key), value.map(bytes));
    let record = Record::decode(key.clone(), value.clone()).expect("Kafka's record is read");
    assert_eq!(record.encode().expect("the record fits"), (key, value));
    let Record::Consumer { group, record } = record else { panic!("of a consumer group") };
    assert_eq!(group, *"kg");
    record
}

#[test]
fn group_epoch_and_its_tombstone() {
    let record = read("000300026b67", Some("0000000000020100080f7fa1a08b576509"));
    let ConsumerRecord::Epoch(Some(value)) = record else { panic!("an epoch") };
    assert_eq!((value.epoch, value.metadata_hash), (2, 1_116_788_943_515_772_169));
    assert_eq!(read("000300026b67", None), ConsumerRecord::Epoch(None));
    assert_eq!(read("000400026b67", None), ConsumerRecord::Topics(None));
}

#[test]
fn subscription_of_a_member() {
    let key = format!("000500026b67{MEMBER_HEX}");
    let value = "0000000002420b2f3132372e302e302e31010274000493e00001000100";
    let record = read(&key, Some(value));
    let ConsumerRecord::Member { member, value: Some(value) } = record else { panic!("a member") };
    assert_eq!((&*member, &*value.client_id, &*value.client_host), (MEMBER, "B", "/127.0.0.1"));
    assert_eq!(value.subscribed_topic_regex.as_deref(), Some("t"));
    assert_eq!((value.rebalance_timeout_ms, value.subscribed_topic_names.len()), (300_000, 0));
}

#[test]
fn target_assignment() {
    let record = read("000600026b67", Some("000000000002010008000001a1ff8ee200"));
    let ConsumerRecord::TargetEpoch(Some(value)) = record else { panic!("a target's epoch") };
    assert_eq!((value.assignment_epoch, value.assignment_timestamp), (2, 1_795_288_916_480));
    let key = format!("000700026b67{MEMBER_HEX}");
    let value = format!(
        "000002{TOPIC_HEX}06000000000000000100000002000000030000000400\
                         00"
    );
    let record = read(&key, Some(&value));
    let ConsumerRecord::Target { value: Some(value), .. } = record else { panic!("a target") };
    assert_eq!(value.topic_partitions[0].partitions, [0, 1, 2, 3, 4]);
}

#[test]
fn current_assignment_with_partitions_to_give_up() {
    let key = format!("000800026b67{MEMBER_HEX}");
    let value = format!(
        "000000000002000000020102{TOPIC_HEX}0400000000000000010000000201000d040000000200000002\
         0000000202{TOPIC_HEX}03000000030000000401000903000000020000000200"
    );
    let record = read(&key, Some(&value));
    let ConsumerRecord::Current { value: Some(value), .. } = record else { panic!("a current") };
    assert_eq!((value.member_epoch, value.previous_member_epoch, value.state), (2, 2, 1));
    assert_eq!(value.assigned_partitions[0].partitions, [0, 1, 2]);
    assert_eq!(value.assigned_partitions[0].assignment_epochs, Some(vec![2, 2, 2]));
    assert_eq!(value.partitions_pending_revocation[0].partitions, [3, 4]);
}

#[test]
fn resolved_regular_expression() {
    let value = "00000202740000000000000039000001a1ff8ede8200";
    let record = read("001000026b67000174", Some(value));
    let ConsumerRecord::Regex { regex, value: Some(value) } = record else { panic!("a regex") };
    assert_eq!((&*regex, &*value.topics[0]), ("t", "t"));
    assert_eq!((value.version, value.timestamp), (57, 1_795_288_915_586));
}

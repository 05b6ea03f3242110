//! A metadata log that Kafka 4.3.1 wrote, and records that nobody sane would write.
//!
//! `testdata/kafka-4.3.1-cluster-metadata.log` comes from one node that was formatted, started twice,
//! and asked to create, grow, configure and delete topics, and to give out producer ids.
//! `testdata/kafka-4.3.1-security-metadata.log` comes from one with an authorizer, where access
//! control entries and a user came and went; records without content are left out of it.

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_protocol::messages::access_control_entry_record::AccessControlEntryRecord;
use fleuve_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use fleuve_protocol::messages::clear_elr_record::ClearElrRecord;
use fleuve_protocol::messages::client_quota_record::{ClientQuotaRecord, EntityData};
use fleuve_protocol::messages::config_record::ConfigRecord;
use fleuve_protocol::messages::delegation_token_record::DelegationTokenRecord;
use fleuve_protocol::messages::feature_level_record::FeatureLevelRecord;
use fleuve_protocol::messages::partition_change_record::PartitionChangeRecord;
use fleuve_protocol::messages::partition_record::PartitionRecord;
use fleuve_protocol::messages::producer_ids_record::ProducerIdsRecord;
use fleuve_protocol::messages::register_broker_record::RegisterBrokerRecord;
use fleuve_protocol::messages::remove_access_control_entry_record::RemoveAccessControlEntryRecord;
use fleuve_protocol::messages::remove_delegation_token_record::RemoveDelegationTokenRecord;
use fleuve_protocol::messages::remove_topic_record::RemoveTopicRecord;
use fleuve_protocol::messages::remove_user_scram_credential_record::RemoveUserScramCredentialRecord;
use fleuve_protocol::messages::topic_record::TopicRecord;
use fleuve_protocol::messages::user_scram_credential_record::UserScramCredentialRecord;
use fleuve_protocol::records::{Batches, RecordIter};
use fleuve_types::{LeaderEpoch, NodeId, ProducerId, Uuid};
use proptest::prelude::*;

use super::*;
use crate::config::BrokerSettings;
use crate::controller::{Controller, MorePartitions, NewTopic};
use crate::record::Record;

const TOPICS: &[u8] = include_bytes!("../../testdata/kafka-4.3.1-cluster-metadata.log");
const SECURITY: &[u8] = include_bytes!("../../testdata/kafka-4.3.1-security-metadata.log");

fn kafkas_log(log: &'static [u8]) -> Vec<Record> {
    let log = Bytes::from_static(log);
    let mut records = Vec::new();
    for batch in Batches::new(log) {
        let batch = batch.expect("whole");
        batch.verify_crc().expect("undamaged");
        if batch.header.attributes.is_control() {
            continue;
        }
        let payload = batch.payload();
        for record in RecordIter::new(&batch.header, &payload) {
            let record = record.expect("well-formed");
            assert_eq!(record.key, None);
            let value = Bytes::copy_from_slice(record.value.expect("never null"));
            let decoded = Record::decode(value).expect("Kafka wrote it");
            // Kafka picks an older layout where that is enough; we always write the newest.
            let again = decoded.encode().expect("it fits");
            assert_eq!(Record::decode(again).as_ref(), Ok(&decoded));
            records.push(decoded);
        }
    }
    records
}

#[test]
fn a_log_that_kafka_wrote_is_replayed_to_what_kafka_knew() {
    let settings = std::sync::Arc::new(BrokerSettings::default());
    let mut controller = Controller::new("kafka".into(), settings);
    for record in kafkas_log(TOPICS) {
        controller.apply(&record).expect("it fits");
    }
    assert_eq!(controller.finish_replay().records, [], "nothing is missing and nothing open");
    let image = controller.image();
    assert_eq!(image.features().get("metadata.version"), Some(&30));
    assert_eq!(image.features().get("transaction.version"), Some(&2));

    let names: Vec<&str> = image.topics().iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["by.hand", "orders"]);
    let orders = image.topics().by_name("orders").expect("there");
    assert_eq!(orders.partitions().len(), 4);
    let broker = &image.brokers()[&NodeId(1)];
    for partition in orders.partitions() {
        assert_eq!(partition.replicas, [NodeId(1)]);
        assert_eq!(partition.directories, broker.directories);
    }
    // Kafka fenced the broker when it stopped, and nobody leads what it led.
    assert!(!broker.is_active());
    assert_eq!(orders.partitions()[0].leader, None);
    assert_eq!(orders.partitions()[0].leader_epoch, LeaderEpoch(1));
    assert_eq!(broker.endpoints[0].port, 39092);

    let configs: Vec<String> = image
        .configs()
        .iter()
        .flat_map(|(resource, map)| {
            map.iter().map(move |(name, value)| format!("{resource}: {name}={value}"))
        })
        .collect();
    assert_eq!(
        configs,
        [
            "topic orders: cleanup.policy=compact,delete",
            "topic orders: segment.ms=5000",
            "all brokers: max.connections=99",
            "all brokers: min.insync.replicas=1",
            "group g: consumer.session.timeout.ms=50000",
        ]
    );
    assert_eq!(image.next_producer_id(), ProducerId(1000));

    let mut rebuilt = Image::new("kafka".into());
    for record in image.snapshot() {
        rebuilt.apply(&record).expect("it fits");
    }
    assert_eq!(&rebuilt, image);
}

#[test]
fn a_log_with_acls_and_users_that_kafka_wrote_is_replayed() {
    let settings = std::sync::Arc::new(BrokerSettings::default());
    let mut controller = Controller::new("kafka".into(), settings);
    let mut passwords = 0;
    for record in kafkas_log(SECURITY) {
        passwords += usize::from(matches!(record, Record::UserScramCredential(_)));
        controller.apply(&record).expect("it fits");
    }
    let image = controller.image();
    let acls: Vec<String> = image
        .acls()
        .iter()
        .map(|(_, acl)| {
            let Acl { resource_type, resource_name, pattern_type, .. } = acl;
            let Acl { principal, operation, permission, .. } = acl;
            format!(
                "{resource_type} {resource_name} {pattern_type}: {permission} {principal} \
                 {operation}"
            )
        })
        .collect();
    assert_eq!(
        acls,
        [
            "GROUP g- PREFIXED: DENY User:b ALL",
            "GROUP gg LITERAL: ALLOW User:c READ",
            "CLUSTER kafka-cluster LITERAL: ALLOW User:x DESCRIBE",
        ]
    );
    assert_eq!((passwords, image.scram().iter().count()), (1, 0), "came and went");
    let mut rebuilt = Image::new("kafka".into());
    for record in image.snapshot() {
        rebuilt.apply(&record).expect("it fits");
    }
    assert_eq!(&rebuilt, image);
}

fn small() -> impl Strategy<Value = i32> {
    prop_oneof![4 => -2..5i32, 1 => Just(i32::MAX), 1 => Just(i32::MIN)]
}

fn ids() -> impl Strategy<Value = Uuid> {
    (0..4u8).prop_map(|byte| Uuid([byte; 16]))
}

fn names() -> impl Strategy<Value = Str> {
    prop_oneof![Just("a"), Just("a.b"), Just("a_b"), Just(""), Just("\u{fffd}/")]
        .prop_map(Str::from)
}

fn nodes() -> impl Strategy<Value = Vec<i32>> {
    proptest::collection::vec(small(), 0..3)
}

fn foreign_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        3 => (names(), ids()).prop_map(|(name, topic_id)| TopicRecord { name, topic_id }.into()),
        1 => ids().prop_map(|topic_id| RemoveTopicRecord { topic_id }.into()),
        3 => (small(), ids(), nodes(), nodes(), small(), any::<i8>(), any::<i32>()).prop_map(
            |(partition_id, topic_id, replicas, isr, leader, recovery, epoch)| {
                PartitionRecord {
                    partition_id,
                    topic_id,
                    replicas,
                    eligible_leader_replicas: Some(isr.clone()),
                    isr,
                    leader,
                    leader_recovery_state: recovery,
                    leader_epoch: epoch,
                    partition_epoch: epoch,
                    ..PartitionRecord::default()
                }
                .into()
            }
        ),
        3 => (small(), ids(), proptest::option::of(nodes()), small(), any::<i8>()).prop_map(
            |(partition_id, topic_id, replicas, leader, leader_recovery_state)| {
                PartitionChangeRecord {
                    partition_id,
                    topic_id,
                    replicas,
                    leader,
                    leader_recovery_state,
                    directories: Some(vec![Uuid::ZERO]),
                    ..PartitionChangeRecord::default()
                }
                .into()
            }
        ),
        2 => (any::<i8>(), names(), names(), proptest::option::of(names())).prop_map(
            |(resource_type, resource_name, name, value)| {
                let resource_type = if resource_type > 0 { 2 } else { resource_type };
                ConfigRecord { resource_type, resource_name, name, value }.into()
            }
        ),
        1 => (small(), any::<i64>(), any::<bool>()).prop_map(|(broker_id, broker_epoch, fenced)| {
            RegisterBrokerRecord { broker_id, broker_epoch, fenced, ..RegisterBrokerRecord::default() }
                .into()
        }),
        1 => (small(), any::<i8>()).prop_map(|(broker_id, fenced)| {
            BrokerRegistrationChangeRecord { broker_id, fenced, ..Default::default() }.into()
        }),
        1 => (names(), any::<i16>())
            .prop_map(|(name, feature_level)| FeatureLevelRecord { name, feature_level }.into()),
        1 => any::<i64>().prop_map(|next_producer_id| {
            ProducerIdsRecord { broker_id: 0, broker_epoch: 0, next_producer_id }.into()
        }),
        2 => (names(), names(), any::<bool>(), any::<bool>()).prop_map(|(kind, key, remove, known)| {
            let entity_type = if known { "user".into() } else { kind };
            let entity = vec![EntityData { entity_type, entity_name: Some(key.clone()) }];
            ClientQuotaRecord { entity, key, value: 1.5, remove }.into()
        }),
        2 => (ids(), 0..8i8, names()).prop_map(|(id, number, resource_name)| {
            AccessControlEntryRecord {
                id,
                resource_type: number,
                pattern_type: 3 + (number & 1),
                operation: number,
                permission_type: 3,
                resource_name,
                ..Default::default()
            }
            .into()
        }),
        1 => ids().prop_map(|id| RemoveAccessControlEntryRecord { id }.into()),
        2 => (names(), 0..4i8).prop_map(|(name, mechanism)| {
            UserScramCredentialRecord { name, mechanism, ..Default::default() }.into()
        }),
        1 => (names(), 0..4i8).prop_map(|(name, mechanism)| {
            RemoveUserScramCredentialRecord { name, mechanism }.into()
        }),
        1 => (names(), names()).prop_map(|(token_id, owner)| {
            DelegationTokenRecord { token_id, owner, ..Default::default() }.into()
        }),
        1 => names().prop_map(|token_id| RemoveDelegationTokenRecord { token_id }.into()),
        1 => names().prop_map(|topic_name| ClearElrRecord { topic_name }.into()),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_records_makes_us_panic(
        records in proptest::collection::vec(foreign_record(), 0..60),
        count in small(),
    ) {
        let settings = std::sync::Arc::new(BrokerSettings::default());
        let mut controller = Controller::new("foreign".into(), settings);
        for record in &records {
            let before = controller.image().clone();
            if controller.apply(record).is_err() {
                prop_assert_eq!(controller.image(), &before);
            }
        }
        let mut rebuilt = Image::new("foreign".into());
        for record in controller.image().snapshot() {
            rebuilt.apply(&record).expect("a snapshot fits together");
        }
        prop_assert_eq!(&rebuilt, controller.image());
        let random = fleuve_sim::SimRandom::seeded(1);
        for name in ["a", "a.b", "new"] {
            let topic = NewTopic {
                name: name.into(),
                partitions: count,
                replication_factor: count as i16,
                assignments: Vec::new(),
                configs: Vec::new(),
            };
            let _ = controller.create_topics(&[topic], false, &random);
            let more = MorePartitions { topic: name.into(), count, assignments: None };
            let _ = controller.create_partitions(&[more], false);
        }
    }
}

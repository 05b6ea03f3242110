//! Records against the bytes that Kafka 4.3.1's `MetadataRecordSerde` writes.

use fleuve_protocol::Str;
use fleuve_protocol::messages::client_quota_record::EntityData;
use fleuve_protocol::messages::register_broker_record::{BrokerEndpoint, BrokerFeature};
use fleuve_protocol::messages::register_controller_record::ControllerEndpoint;
use fleuve_types::Uuid;
use proptest::prelude::*;

use super::*;

fn id(last: u8) -> Uuid {
    Uuid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, last])
}

fn entity(kind: &str, name: Option<&str>) -> EntityData {
    EntityData { entity_type: Str::copy_from(kind), entity_name: name.map(Str::copy_from) }
}

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<u8>>().into()
}

/// Each kind of record with the bytes that Kafka wrote for it.
fn kafkas_records() -> Vec<(Record, &'static str)> {
    vec![
        (
            TopicRecord { name: "orders".into(), topic_id: id(1) }.into(),
            "010200076f7264657273000102030405060708090a0b0c0d0e0100",
        ),
        (
            PartitionRecord {
                partition_id: 3,
                topic_id: id(1),
                replicas: vec![1, 2],
                isr: vec![1],
                leader: 1,
                leader_epoch: 4,
                partition_epoch: 5,
                directories: vec![id(7), id(8)],
                ..PartitionRecord::default()
            }
            .into(),
            "01030200000003000102030405060708090a0b0c0d0e0103000000010000000202000000\
             01010100000001000000040000000503000102030405060708090a0b0c0d0e0700010203\
             0405060708090a0b0c0d0e0800",
        ),
        (
            PartitionRecord {
                partition_id: 0,
                topic_id: id(1),
                replicas: vec![1],
                removing_replicas: vec![2],
                adding_replicas: vec![3],
                leader_recovery_state: 1,
                leader_epoch: 0,
                partition_epoch: 0,
                directories: vec![id(7)],
                eligible_leader_replicas: Some(vec![1]),
                last_known_elr: Some(vec![2]),
                ..PartitionRecord::default()
            }
            .into(),
            "01030200000000000102030405060708090a0b0c0d0e0102000000010102000000020200\
             000003ffffffff000000000000000002000102030405060708090a0b0c0d0e0703000101\
             0105020000000102050200000002",
        ),
        (
            PartitionChangeRecord {
                partition_id: 3,
                topic_id: id(1),
                leader: 1,
                ..PartitionChangeRecord::default()
            }
            .into(),
            "01050200000003000102030405060708090a0b0c0d0e0101010400000001",
        ),
        (
            PartitionChangeRecord {
                partition_id: 3,
                topic_id: id(1),
                isr: Some(vec![1]),
                directories: Some(vec![id(9)]),
                ..PartitionChangeRecord::default()
            }
            .into(),
            "01050200000003000102030405060708090a0b0c0d0e0102000502000000010811020001\
             02030405060708090a0b0c0d0e09",
        ),
        (
            ConfigRecord {
                resource_type: 2,
                resource_name: "orders".into(),
                name: "retention.ms".into(),
                value: Some("1000".into()),
            }
            .into(),
            "01040002076f72646572730d726574656e74696f6e2e6d73053130303000",
        ),
        (
            ConfigRecord {
                resource_type: 4,
                resource_name: Str::EMPTY,
                name: "x".into(),
                value: None,
            }
            .into(),
            "010400040102780000",
        ),
        (
            FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 }.into(),
            "010c00116d657461646174612e76657273696f6e001e00",
        ),
        (
            RegisterBrokerRecord {
                broker_id: 1,
                incarnation_id: id(2),
                broker_epoch: 12,
                end_points: vec![BrokerEndpoint {
                    name: "PLAINTEXT".into(),
                    host: "localhost".into(),
                    port: 9092,
                    security_protocol: 0,
                }],
                features: vec![BrokerFeature {
                    name: "metadata.version".into(),
                    min_supported_version: 7,
                    max_supported_version: 30,
                }],
                rack: Some("r1".into()),
                log_dirs: vec![id(7)],
                ..RegisterBrokerRecord::default()
            }
            .into(),
            "0100040000000100000102030405060708090a0b0c0d0e02000000000000000c020a504c\
             41494e544558540a6c6f63616c686f7374238400000002116d657461646174612e766572\
             73696f6e0007001e00037231010001001102000102030405060708090a0b0c0d0e07",
        ),
        (
            BrokerRegistrationChangeRecord {
                broker_id: 1,
                broker_epoch: 12,
                fenced: -1,
                ..BrokerRegistrationChangeRecord::default()
            }
            .into(),
            "01110300000001000000000000000c010001ff",
        ),
        (
            UnregisterBrokerRecord { broker_id: 1, broker_epoch: 12 }.into(),
            "01010000000001000000000000000c00",
        ),
        (FenceBrokerRecord { id: 1, epoch: 12 }.into(), "01070000000001000000000000000c00"),
        (UnfenceBrokerRecord { id: 1, epoch: 12 }.into(), "01080000000001000000000000000c00"),
        (RemoveTopicRecord { topic_id: id(1) }.into(), "010900000102030405060708090a0b0c0d0e0100"),
        (
            ProducerIdsRecord { broker_id: 1, broker_epoch: 12, next_producer_id: 1000 }.into(),
            "010f0000000001000000000000000c00000000000003e800",
        ),
        (NoOpRecord {}.into(), "01140000"),
        (
            BeginTransactionRecord { name: Some("bootstrap".into()) }.into(),
            "01170001000a0a626f6f747374726170",
        ),
        (EndTransactionRecord {}.into(), "01180000"),
        (AbortTransactionRecord { reason: Some("why".into()) }.into(), "01190001000404776879"),
        (ClearElrRecord { topic_name: "orders".into() }.into(), "011c00076f726465727300"),
        (
            RegisterControllerRecord {
                controller_id: 1,
                incarnation_id: id(2),
                zk_migration_ready: false,
                end_points: vec![ControllerEndpoint {
                    name: "CONTROLLER".into(),
                    host: "localhost".into(),
                    port: 9093,
                    security_protocol: 0,
                }],
                features: Vec::new(),
            }
            .into(),
            "011b0000000001000102030405060708090a0b0c0d0e0200020b434f4e54524f4c4c4552\
             0a6c6f63616c686f737423850000000100",
        ),
        (
            ClientQuotaRecord {
                entity: vec![entity("client-id", None), entity("user", Some("ann"))],
                key: "producer_byte_rate".into(),
                value: 1024.5,
                remove: false,
            }
            .into(),
            "010e00030a636c69656e742d69640000057573657204616e6e001370726f64756365725f\
             627974655f7261746540900200000000000000",
        ),
        (
            ClientQuotaRecord {
                entity: vec![entity("ip", Some("10.0.0.1"))],
                key: "connection_creation_rate".into(),
                value: 0.0,
                remove: true,
            }
            .into(),
            "010e00020369700931302e302e302e310019636f6e6e656374696f6e5f6372656174696f\
             6e5f7261746500000000000000000100",
        ),
        (
            UserScramCredentialRecord {
                name: "ann".into(),
                mechanism: 1,
                salt: Bytes::from_static(&[1, 2]),
                stored_key: Bytes::from_static(&[3]),
                server_key: Bytes::from_static(&[4]),
                iterations: 4096,
            }
            .into(),
            "010b0004616e6e01030102020302040000100000",
        ),
        (
            RemoveUserScramCredentialRecord { name: "ann".into(), mechanism: 1 }.into(),
            "01160004616e6e0100",
        ),
        (
            AccessControlEntryRecord {
                id: id(1),
                resource_type: 2,
                resource_name: "t".into(),
                pattern_type: 4,
                principal: "User:a".into(),
                host: "*".into(),
                operation: 3,
                permission_type: 3,
            }
            .into(),
            "011200000102030405060708090a0b0c0d0e010202740407557365723a61022a030300",
        ),
        (
            RemoveAccessControlEntryRecord { id: id(1) }.into(),
            "011300000102030405060708090a0b0c0d0e0100",
        ),
        (
            DelegationTokenRecord {
                owner: "User:ann".into(),
                requester: "User:bob".into(),
                renewers: vec!["User:c".into()],
                issue_timestamp: 1,
                max_timestamp: 3,
                expiration_timestamp: 2,
                token_id: "abc".into(),
            }
            .into(),
            "010a0009557365723a616e6e09557365723a626f620207557365723a6300000000000000\
             01000000000000000300000000000000020461626300",
        ),
        (RemoveDelegationTokenRecord { token_id: "abc".into() }.into(), "011a000461626300"),
        (ZkMigrationStateRecord { zk_migration_state: 0 }.into(), "0115000000"),
    ]
}

#[test]
fn records_are_the_bytes_that_kafka_writes() {
    for (record, hex) in kafkas_records() {
        assert_eq!(record.encode().expect("it fits"), bytes(hex), "{record:?}");
        assert_eq!(Record::decode(bytes(hex)), Ok(record));
    }
}

#[test]
fn records_in_older_layouts_are_read() {
    let old = bytes(
        "01030000000000000102030405060708090a0b0c0d0e0102000000010200000001010100\
         000001000000000000000000",
    );
    let Ok(Record::Partition(record)) = Record::decode(old) else { panic!("a partition") };
    assert_eq!((record.replicas, record.leader_epoch), (vec![1], 0));
    assert_eq!(record.directories, []);
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let cases = [
        (
            bytes("0163 00"),
            "metadata record of type 99, which this release does not know; use a \
                            newer one",
        ),
        (
            bytes("0102 01 00"),
            "TopicRecord of version 1, but this release reads 0 to 0; use a \
                               newer one",
        ),
        (bytes("0002 00"), "metadata record in a frame of version 0; this release reads version 1"),
        (bytes("0114 00 00 ff"), "NoOpRecord is followed by 1 bytes that do not belong to it"),
    ];
    for (value, message) in cases {
        let error = Record::decode(value).expect_err("not readable");
        assert_eq!(error.to_string(), message);
    }
    for value in ["", "01", "0102", "010200", "01ffffffff0f00", "010200ffffffff0f"] {
        assert!(Record::decode(bytes(value)).is_err(), "{value}");
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(record) = Record::decode(value.into()) {
            let again = record.encode().expect("what was read can be written");
            prop_assert_eq!(Record::decode(again), Ok(record));
        }
    }

    #[test]
    fn damaged_records_never_panic(
        which in 0..kafkas_records().len(),
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut value = bytes(kafkas_records()[which].1).to_vec();
        let position = position.index(value.len());
        value[position] = byte;
        if let Ok(record) = Record::decode(value.into()) {
            prop_assert!(record.encode().is_ok());
        }
    }
}

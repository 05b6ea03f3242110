//! The image under random histories: replay, snapshots and clones all agree.

use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_protocol::messages::partition_change_record::PartitionChangeRecord;
use fleuve_protocol::messages::partition_record::PartitionRecord;
use fleuve_protocol::messages::topic_record::TopicRecord;
use fleuve_sim::SimRandom;
use fleuve_types::{NodeId, Offset, Uuid};
use proptest::prelude::*;

use super::*;
use crate::config::{AlterOperation, BrokerSettings};
use crate::controller::*;
use crate::record::Record;

const NAMES: [&str; 8] = ["a", "b", "x.y", "x_y", "__consumer_offsets", "", "no good", "long-er"];

#[derive(Clone, Debug)]
enum Step {
    Create { name: usize, partitions: i32, config: Option<usize>, validate_only: bool },
    Delete { name: usize, by_id: bool },
    Grow { name: usize, count: i32 },
    Alter { kind: u8, name: usize, key: usize, operation: i8, value: usize },
    Register { was_clean: bool },
    AllocateProducerIds,
    AssignDirectory { name: usize, partition: i32, directory: u8 },
}

const KEYS: [&str; 6] = [
    "cleanup.policy",
    "retention.ms",
    "log.retention.ms",
    "consumer.session.timeout.ms",
    "interval.ms",
    "unknown.key",
];
const VALUES: [&str; 5] = ["compact", "delete", "1000", "50000", ""];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (name.clone(), -2..5i32, proptest::option::of(0..KEYS.len()), proptest::bool::weighted(0.1))
            .prop_map(|(name, partitions, config, validate_only)| Step::Create { name, partitions, config, validate_only }),
        2 => (name.clone(), any::<bool>()).prop_map(|(name, by_id)| Step::Delete { name, by_id }),
        2 => (name.clone(), -1..9i32).prop_map(|(name, count)| Step::Grow { name, count }),
        4 => (0..4u8, name.clone(), 0..KEYS.len(), 0..4i8, 0..VALUES.len())
            .prop_map(|(kind, name, key, operation, value)| Step::Alter { kind, name, key, operation, value }),
        1 => any::<bool>().prop_map(|was_clean| Step::Register { was_clean }),
        1 => Just(Step::AllocateProducerIds),
        1 => (name, -1..9i32, 0..3u8).prop_map(|(name, partition, directory)| Step::AssignDirectory { name, partition, directory }),
    ]
}

fn decide(controller: &Controller, step: &Step, log_end: i64, random: &SimRandom) -> Vec<Record> {
    let name = |index: &usize| Str::from(NAMES[*index]);
    let id = |index: &usize| controller.image().topics().by_name(NAMES[*index]).map(|t| t.id);
    match step {
        Step::Create { name: index, partitions, config, validate_only } => {
            let topic = NewTopic {
                name: name(index),
                partitions: *partitions,
                replication_factor: -1,
                assignments: Vec::new(),
                configs: config
                    .iter()
                    .map(|key| (KEYS[*key].into(), Some("1000".into())))
                    .collect(),
            };
            let decision = controller.create_topics(&[topic], *validate_only, random);
            assert!(decision.records.is_empty() || decision.reply[0].is_ok() && !validate_only);
            decision.records
        }
        Step::Delete { name: index, by_id } => {
            let selector = match id(index).filter(|_| *by_id) {
                Some(id) => TopicSelector::Id(id),
                None => TopicSelector::Name(name(index)),
            };
            controller.delete_topics(&[selector]).records
        }
        Step::Grow { name: index, count } => {
            let more = MorePartitions { topic: name(index), count: *count, assignments: None };
            controller.create_partitions(&[more], false).records
        }
        Step::Alter { kind, name: index, key, operation, value } => {
            let resource = match kind {
                0 => Resource::topic(NAMES[*index]),
                1 => Resource::new(ResourceKind::Broker, if *index % 2 == 0 { "" } else { "1" }),
                2 => Resource::new(ResourceKind::Group, NAMES[*index]),
                _ => Resource::new(ResourceKind::ClientMetrics, NAMES[*index]),
            };
            let operation = ConfigOperation {
                name: KEYS[*key].into(),
                operation: AlterOperation::from_wire_id(*operation).expect("0 to 3"),
                value: Some(VALUES[*value].into()),
            };
            let update = ConfigUpdate { resource, operations: vec![operation] };
            controller.incremental_alter_configs(&[update], false).records
        }
        Step::Register { was_clean } => {
            let registration = Registration {
                incarnation: Uuid([log_end as u8; 16]),
                endpoints: Vec::new(),
                rack: Some("r".into()),
                directories: vec![Uuid([1; 16]), Uuid([2; 16])],
                was_clean: *was_clean,
            };
            let decision = controller.register_broker(&registration, Offset(log_end));
            decision.reply.expect("supported");
            decision.records
        }
        Step::AllocateProducerIds => {
            let epoch = controller.image().brokers().get(&NodeId(1)).map_or(0, |b| b.epoch);
            controller.allocate_producer_ids(NodeId(1), epoch).records
        }
        Step::AssignDirectory { name: index, partition, directory } => {
            let assignment = DirectoryAssignment {
                topic_id: id(index).unwrap_or_default(),
                partition: *partition,
                directory: Uuid([*directory; 16]),
            };
            controller.assign_directories(&[assignment]).records
        }
    }
}

fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Image {
    let mut image = Image::new("cluster".into());
    for record in records {
        let stored = record.encode().expect("storable");
        let read = Record::decode(stored).expect("readable");
        image.apply(&read).expect("fits");
    }
    image
}

fn check_invariants(image: &Image) {
    for topic in image.topics().iter() {
        assert_eq!(image.topics().by_id(topic.id), Some(topic));
        let indexes: Vec<i32> = topic.partitions().iter().map(|p| p.index).collect();
        assert_eq!(indexes, (0..indexes.len() as i32).collect::<Vec<_>>());
        for partition in topic.partitions() {
            assert_eq!(topic.partition(partition.index), Some(partition));
            assert!(partition.leader.is_none_or(|leader| partition.isr.contains(&leader)));
            assert!(partition.isr.iter().all(|member| partition.replicas.contains(member)));
            assert_eq!(partition.directories.len(), partition.replicas.len());
        }
        if let Some(other) = image.topics().look_alike(&topic.name) {
            panic!("{} and {other} look alike", topic.name);
        }
    }
    for (resource, map) in image.configs().iter() {
        assert!(!map.is_empty());
        let is_topic = resource.kind == ResourceKind::Topic;
        assert!(!is_topic || image.topics().by_name(&resource.name).is_some(), "{resource}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn live_replay_and_snapshot_agree(steps in proptest::collection::vec(step(), 1..60)) {
        let settings = Arc::new(BrokerSettings::default());
        let mut controller = Controller::new("cluster".into(), settings);
        let random = SimRandom::seeded(1);
        let mut log: Vec<Record> = Vec::new();
        let mut clones: Vec<(usize, Image)> = Vec::new();
        let first = [Step::Register { was_clean: true }];
        for step in first.iter().chain(&steps) {
            clones.push((log.len(), controller.image().clone()));
            let records = decide(&controller, step, log.len() as i64, &random);
            for record in records {
                controller.apply(&record).expect("decisions fit");
                log.push(record);
            }
            check_invariants(controller.image());
        }
        prop_assert_eq!(&replay(&log), controller.image());
        let snapshot: Vec<Record> = controller.image().snapshot().collect();
        prop_assert_eq!(&replay(&snapshot), controller.image());
        for (length, clone) in clones {
            prop_assert_eq!(&replay(&log[..length]), &clone);
        }
    }
}

fn topic_record(name: &str, byte: u8) -> Record {
    TopicRecord { name: Str::copy_from(name), topic_id: Uuid([byte; 16]) }.into()
}

#[test]
fn records_that_do_not_fit_are_refused_and_change_nothing() {
    let mut image = replay(&[topic_record("a", 1)]);
    let before = image.clone();
    let partition = |byte, partition_id| PartitionRecord {
        partition_id,
        topic_id: Uuid([byte; 16]),
        ..PartitionRecord::default()
    };
    let change = |byte, partition_id| PartitionChangeRecord {
        partition_id,
        topic_id: Uuid([byte; 16]),
        ..PartitionChangeRecord::default()
    };
    let cases: [(Record, &str); 6] = [
        (
            topic_record("a", 2),
            "TopicRecord for a with id AgICAgICAgICAgICAgICAg, but that name or id is taken",
        ),
        (
            topic_record("b", 1),
            "TopicRecord for b with id AQEBAQEBAQEBAQEBAQEBAQ, but that name or id is taken",
        ),
        (
            partition(2, 0).into(),
            "PartitionRecord for topic id AgICAgICAgICAgICAgICAg, which does not exist",
        ),
        (
            partition(1, -1).into(),
            "PartitionRecord for partition -1 of topic a: an index counts from 0",
        ),
        (
            change(1, 0).into(),
            "PartitionChangeRecord for partition 0 of topic a, which has none such",
        ),
        (
            change(2, 0).into(),
            "PartitionChangeRecord for topic id AgICAgICAgICAgICAgICAg, which does not exist",
        ),
    ];
    for (record, message) in cases {
        assert_eq!(image.apply(&record).expect_err(message).to_string(), message);
        assert_eq!(image, before);
    }
}

#[test]
fn partitions_in_any_order_end_up_sorted() {
    let record = |partition_id| {
        Record::from(PartitionRecord {
            partition_id,
            topic_id: Uuid([1; 16]),
            ..PartitionRecord::default()
        })
    };
    let image = replay(&[topic_record("a", 1), record(2), record(0), record(1), record(0)]);
    let topic = image.topics().by_name("a").expect("there");
    assert_eq!(topic.partitions().iter().map(|p| p.index).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn topics_can_be_listed_from_a_name_on() {
    let image = replay(&[topic_record("b", 1), topic_record("a", 2), topic_record("c", 3)]);
    let names = |from: &str| -> Vec<String> {
        image.topics().starting_at(from).map(|topic| topic.name.to_string()).collect()
    };
    assert_eq!(names(""), ["a", "b", "c"]);
    assert_eq!(names("b"), ["b", "c"]);
    assert_eq!(names("bb"), ["c"]);
}

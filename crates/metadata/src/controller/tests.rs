//! The controller against scripts of requests: decisions, errors, and what replay makes of them.

use std::slice;
use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_protocol::messages::begin_transaction_record::BeginTransactionRecord;
use fleuve_protocol::messages::end_transaction_record::EndTransactionRecord;
use fleuve_protocol::messages::topic_record::TopicRecord;
use fleuve_sim::SimRandom;
use fleuve_types::{LeaderEpoch, NodeId, Offset, ProducerId, Uuid};

use super::*;
use crate::config::{AlterOperation, BrokerSettings, Override, Sources, load};
use crate::image::{Endpoint, Resource, ResourceKind};
use crate::record::Record;

/// A controller whose decisions are appended to a log at once.
struct Cluster {
    controller: Controller,
    log: Vec<Record>,
    random: SimRandom,
}

impl Cluster {
    fn empty(settings: &[(&str, &str)]) -> Self {
        let overrides: Vec<Override> = settings
            .iter()
            .map(|(key, value)| Override {
                key: (*key).into(),
                value: (*value).into(),
                flag: "--set".into(),
            })
            .collect();
        let sources = Sources { overrides: &overrides, ..Sources::default() };
        let settings = load(sources).expect("valid settings").0;
        Self {
            controller: Controller::new("cluster".into(), Arc::new(settings)),
            log: Vec::new(),
            random: SimRandom::seeded(7),
        }
    }

    /// A cluster of this node alone, its broker registered.
    fn started(settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::empty(settings);
        let bootstrap = cluster.controller.finish_replay();
        cluster.append(bootstrap);
        cluster.register(true);
        cluster
    }

    fn append<T>(&mut self, decision: Decision<T>) -> T {
        for record in decision.records {
            let stored = record.encode().expect("decisions can be stored");
            let read = Record::decode(stored).expect("what we store we read");
            assert_eq!(read, record);
            self.controller.apply(&read).expect("decisions fit the image they rest on");
            self.log.push(read);
        }
        decision.reply
    }

    fn register(&mut self, was_clean: bool) -> Offset {
        let registration = Registration {
            incarnation: Uuid([self.log.len() as u8; 16]),
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                security_protocol: 0,
            }],
            rack: None,
            directories: vec![Uuid([9; 16])],
            was_clean,
        };
        let next = Offset(self.log.len() as i64);
        let decision = self.controller.register_broker(&registration, next);
        self.append(decision).expect("supported")
    }

    fn create(&mut self, topics: &[NewTopic]) -> Vec<Result<CreatedTopic, CreateTopicError>> {
        let decision = self.controller.create_topics(topics, false, &self.random);
        self.append(decision)
    }

    fn create_named(&mut self, name: &str, partitions: i32) -> Uuid {
        self.create(&[topic(name, partitions)]).remove(0).expect("a valid topic").id
    }

    fn create_error(&mut self, topic: NewTopic) -> String {
        let records = self.log.len();
        let error = self.create(&[topic]).remove(0).expect_err("an invalid topic");
        assert_eq!(self.log.len(), records, "a refusal leaves no records");
        error.to_string()
    }

    fn alter(
        &mut self,
        resource: Resource,
        operations: &[(&str, AlterOperation, Option<&str>)],
    ) -> Result<(), String> {
        let operations = operations
            .iter()
            .map(|(name, operation, value)| ConfigOperation {
                name: Str::copy_from(name),
                operation: *operation,
                value: value.map(Str::copy_from),
            })
            .collect();
        let update = ConfigUpdate { resource, operations };
        let decision = self.controller.incremental_alter_configs(&[update], false);
        self.append(decision).remove(0).map_err(|error| error.to_string())
    }

    fn set(&mut self, resource: Resource, name: &str, value: &str) -> Result<(), String> {
        self.alter(resource, &[(name, AlterOperation::Set, Some(value))])
    }

    fn topic_config(&self, topic: &str, name: &str) -> Option<String> {
        self.controller.image().topic_configs(topic).get(name).map(|value| value.to_string())
    }
}

fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        name: Str::copy_from(name),
        partitions,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: Vec::new(),
    }
}

fn by_hand(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assign = |(partition, brokers): &(i32, &[i32])| ReplicaAssignment {
        partition: *partition,
        brokers: brokers.to_vec(),
    };
    NewTopic { assignments: assignments.iter().map(assign).collect(), ..topic(name, -1) }
}

#[test]
fn a_new_log_gets_its_feature_levels_and_a_used_one_does_not() {
    let mut cluster = Cluster::empty(&[]);
    let bootstrap = cluster.controller.finish_replay();
    cluster.append(bootstrap);
    assert_eq!(cluster.controller.image().features().get("metadata.version"), Some(&30));
    assert_eq!(cluster.controller.finish_replay().records, []);
}

#[test]
fn a_topic_has_what_was_asked_for_or_the_brokers_defaults() {
    let mut cluster = Cluster::started(&[("num.partitions", "3")]);
    let created = cluster.create(&[topic("orders", -1)]).remove(0).expect("created");
    assert_eq!((created.partitions, created.replication_factor), (3, 1));
    let image = cluster.controller.image();
    let orders = image.topics().by_name("orders").expect("there");
    assert_eq!(image.topics().by_id(created.id), Some(orders));
    for (partition, index) in orders.partitions().iter().zip(0..) {
        assert_eq!(partition.index, index);
        assert_eq!(partition.leader, Some(NodeId(1)));
        assert_eq!(partition.leader_epoch, LeaderEpoch(0));
        assert_eq!(partition.isr, [NodeId(1)]);
        assert_eq!(partition.directories, [Uuid([9; 16])], "the only directory is known at once");
    }
    assert!(orders.partition(3).is_none() && orders.partition(-1).is_none());
}

#[test]
fn invalid_topics_are_refused_with_the_reason() {
    let mut cluster = Cluster::started(&[]);
    cluster.create_named("a.b", 1);
    let with = |change: &dyn Fn(&mut NewTopic)| {
        let mut new = topic("new", 1);
        change(&mut new);
        new
    };
    let cases: Vec<(NewTopic, &str)> = vec![
        (topic("a.b", 1), "Topic 'a.b' already exists."),
        (topic("a_b", 1), "Topic 'a_b' collides with existing topic: a.b"),
        (
            topic("no/slash", 1),
            "Topic name is invalid: 'no/slash' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (
            topic("__cluster_metadata", i32::MAX),
            "Creation of internal topic __cluster_metadata is prohibited.",
        ),
        (topic("new", 0), "Number of partitions was set to an invalid non-positive value."),
        (topic("new", -2), "Number of partitions was set to an invalid non-positive value."),
        (
            topic("new", i32::MAX),
            "Excessively large number of partitions per request: at most 10000",
        ),
        (
            with(&|new| new.replication_factor = 0),
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            with(&|new| new.replication_factor = 3),
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered.",
        ),
        (
            with(&|new| new.configs = vec![("retention.ms".into(), Some("x".into()))]),
            "invalid value `x` for `retention.ms`: must be a 64-bit integer, at least -1",
        ),
        (
            with(&|new| new.configs = vec![("retention.ms".into(), None)]),
            "Null value not supported for topic configs: retention.ms",
        ),
        (
            by_hand("new", &[(0, &[1]), (0, &[1])]),
            "Found multiple manual partition assignments for partition 0",
        ),
        (
            by_hand("new", &[(0, &[1]), (2, &[1])]),
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            by_hand("new", &[(0, &[])]),
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            by_hand("new", &[(0, &[1, 1])]),
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            by_hand("new", &[(0, &[2])]),
            "The manual partition assignment includes broker 2, but no such broker is registered.",
        ),
        (
            NewTopic { partitions: 1, ..by_hand("new", &[(0, &[1])]) },
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            NewTopic { replication_factor: 1, ..by_hand("new", &[(0, &[1])]) },
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        ),
    ];
    for (new, message) in cases {
        assert_eq!(cluster.create_error(new), message);
    }
}

#[test]
fn topics_of_one_request_are_judged_one_by_one_and_against_each_other() {
    let mut cluster = Cluster::started(&[]);
    let results = cluster.create(&[
        topic("twice", 1),
        topic("good", 1),
        topic("twice", 1),
        topic("x.y", 1),
        topic("x_y", 1),
        topic("bad name", 1),
    ]);
    let outcome: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(outcome, [false, true, false, true, false, false]);
    assert_eq!(results[0], Err(CreateTopicError::Duplicate));
    let names: Vec<&str> =
        cluster.controller.image().topics().iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["good", "x.y"]);
}

#[test]
fn without_a_broker_no_topic_can_be_placed() {
    let mut cluster = Cluster::empty(&[]);
    let message = cluster.create_error(topic("new", 1));
    assert!(message.contains("only 0 broker(s) are registered"), "{message}");
}

#[test]
fn validation_alone_says_the_same_and_leaves_no_records() {
    let cluster = Cluster::started(&[]);
    let topics = [topic("good", 2), topic("", 1)];
    let decision = cluster.controller.create_topics(&topics, true, &cluster.random);
    assert_eq!(decision.records, []);
    assert_eq!(decision.reply[0].as_ref().map(|created| created.partitions), Ok(2));
    assert!(decision.reply[1].is_err());
}

#[test]
fn a_deleted_topic_takes_its_configs_along_and_frees_its_name() {
    let mut cluster = Cluster::started(&[]);
    let first = cluster.create_named("a.b", 2);
    cluster.set(Resource::topic("a.b"), "retention.ms", "5").expect("valid");
    let decision = cluster.controller.delete_topics(&[TopicSelector::Name("a.b".into())]);
    assert_eq!(cluster.append(decision), [Ok(DeletedTopic { name: "a.b".into(), id: first })]);
    let image = cluster.controller.image();
    assert!(image.topics().is_empty() && image.topics().by_id(first).is_none());
    assert!(image.configs().of(&Resource::topic("a.b")).is_empty());
    let second = cluster.create_named("a_b", 1);
    assert_ne!(first, second);
    assert_eq!(cluster.topic_config("a_b", "retention.ms"), None);
}

#[test]
fn deletions_that_cannot_be_say_why() {
    let mut cluster = Cluster::started(&[]);
    let id = cluster.create_named("a", 1);
    cluster.create_named("b", 1);
    let decision = cluster.controller.delete_topics(&[
        TopicSelector::Name("a".into()),
        TopicSelector::Id(id),
        TopicSelector::Name("none".into()),
        TopicSelector::Id(Uuid([1; 16])),
        TopicSelector::Name("b".into()),
    ]);
    let reply = cluster.append(decision);
    assert_eq!(reply[0], Err(DeleteTopicError::Duplicate));
    assert_eq!(reply[1], Err(DeleteTopicError::Duplicate));
    assert_eq!(reply[2], Err(DeleteTopicError::UnknownName));
    assert_eq!(reply[3], Err(DeleteTopicError::UnknownId));
    assert!(reply[4].is_ok());
    assert_eq!(cluster.controller.image().topics().len(), 1);

    let careful = Cluster::started(&[("delete.topic.enable", "false")]);
    let decision = careful.controller.delete_topics(&[TopicSelector::Name("a".into())]);
    assert_eq!(decision.reply, [Err(DeleteTopicError::Disabled)]);
}

#[test]
fn partitions_are_added_behind_the_existing_ones() {
    let mut cluster = Cluster::started(&[]);
    cluster.create_named("a", 1);
    let more = |count, assignments: Option<Vec<Vec<i32>>>| MorePartitions {
        topic: "a".into(),
        count,
        assignments,
    };
    let mut ask = |wanted: MorePartitions| {
        let decision = cluster.controller.create_partitions(&[wanted], false);
        cluster.append(decision).remove(0).map_err(|error| error.to_string())
    };
    let refused = |message: &str| Err(message.to_owned());
    assert_eq!(ask(more(1, None)), refused("Topic already has 1 partition(s)."));
    assert_eq!(
        ask(more(0, None)),
        refused("The topic a currently has 1 partition(s); 0 would not be an increase.")
    );
    assert_eq!(
        ask(more(2, Some(vec![]))),
        refused(
            "Attempted to add 1 additional partition(s), but only 0 assignment(s) were specified."
        )
    );
    assert_eq!(
        ask(more(2, Some(vec![vec![1, 2]]))),
        refused(
            "The manual partition assignment includes broker 2, but no such broker is registered."
        )
    );
    assert_eq!(
        ask(more(i32::MAX, None)),
        refused("Excessively large number of partitions per request: at most 10000")
    );
    assert_eq!(
        ask(MorePartitions { topic: "b".into(), ..more(2, None) }),
        refused("This server does not host this topic-partition.")
    );
    assert_eq!(ask(more(2, Some(vec![vec![1]]))), Ok(()));
    assert_eq!(ask(more(4, None)), Ok(()));
    let topic = cluster.controller.image().topics().by_name("a").expect("there");
    let indexes: Vec<i32> = topic.partitions().iter().map(|partition| partition.index).collect();
    assert_eq!(indexes, [0, 1, 2, 3]);
    let twice = [more(5, None), more(6, None)];
    let decision = cluster.controller.create_partitions(&twice, true);
    assert_eq!(decision.reply, vec![Err(CreatePartitionsError::Duplicate); 2]);
}

#[test]
fn config_operations_set_delete_append_and_subtract() {
    use AlterOperation::{Append, Delete, Set, Subtract};
    let mut cluster = Cluster::started(&[]);
    cluster.create_named("a", 1);
    let topic = || Resource::topic("a");
    let policy = "cleanup.policy";
    assert_eq!(cluster.alter(topic(), &[(policy, Append, Some("compact"))]), Ok(()));
    assert_eq!(cluster.topic_config("a", policy).as_deref(), Some("delete,compact"));
    assert_eq!(cluster.alter(topic(), &[(policy, Append, Some("compact"))]), Ok(()));
    assert_eq!(cluster.topic_config("a", policy).as_deref(), Some("delete,compact"));
    assert_eq!(cluster.alter(topic(), &[(policy, Subtract, Some("delete,other"))]), Ok(()));
    assert_eq!(cluster.topic_config("a", policy).as_deref(), Some("compact"));
    assert_eq!(
        cluster.alter(topic(), &[(policy, Delete, None), ("segment.ms", Set, Some("9"))]),
        Ok(())
    );
    assert_eq!(cluster.topic_config("a", policy), None);
    assert_eq!(cluster.topic_config("a", "segment.ms").as_deref(), Some("9"));

    let refused = |message: &str| Err(message.to_owned());
    assert_eq!(
        cluster.alter(topic(), &[(policy, Append, Some("squash"))]),
        refused(
            "invalid value `delete,squash` for `cleanup.policy`: must be a list of any of compact, delete, none repeated"
        )
    );
    assert_eq!(
        cluster.alter(topic(), &[("segment.ms", Append, Some("1"))]),
        refused(
            "`segment.ms` is not a list, so nothing can be added to it or taken off; set it instead"
        )
    );
    assert_eq!(
        cluster.alter(topic(), &[("segment.ms", Set, None)]),
        refused("Null value not supported for: segment.ms")
    );
    assert_eq!(
        cluster.alter(topic(), &[("x", Set, None), ("x", Delete, None)]),
        refused("Error due to duplicate config keys: x")
    );
    assert_eq!(
        cluster.set(topic(), "segment.msec", "1"),
        refused("Unknown topic config name: segment.msec (did you mean `segment.ms`?)")
    );
    assert_eq!(
        cluster.set(Resource::topic("b"), "segment.ms", "1"),
        refused("This server does not host this topic-partition.")
    );
    assert_eq!(
        cluster.set(Resource::topic(""), "segment.ms", "1"),
        refused("Default topic resources are not allowed.")
    );
    assert!(matches!(
        cluster.set(Resource::topic("bad name!"), "segment.ms", "1"),
        Err(message) if message.starts_with("Topic name is invalid: 'bad name!' contains")
    ));
}

#[test]
fn values_that_no_record_could_hold_are_refused_by_themselves() {
    let mut cluster = Cluster::started(&[]);
    cluster.create_named("a", 1);
    cluster.create_named("b", 1);
    let key = "leader.replication.throttled.replicas";
    // Each fits into a request, and the two together into no record.
    let half = |from: i32| {
        let pairs: Vec<String> = (from..from + 2500).map(|n| format!("{n}:{n}")).collect();
        pairs.join(",")
    };
    let (first, second) = (half(10_000), half(20_000));
    assert_eq!(
        cluster.alter(Resource::topic("a"), &[(key, AlterOperation::Append, Some(&first))]),
        Ok(())
    );
    let update = |topic: &str, operation, value: &str| ConfigUpdate {
        resource: Resource::topic(topic),
        operations: vec![ConfigOperation {
            name: Str::copy_from(key),
            operation,
            value: Some(Str::copy_from(value)),
        }],
    };
    let updates =
        [update("a", AlterOperation::Append, &second), update("b", AlterOperation::Set, "0:1")];
    let message = "The configuration value cannot be added because it exceeds the maximum value \
                   size of 32767 bytes.";
    for validate_only in [true, false] {
        let decision = cluster.controller.incremental_alter_configs(&updates, validate_only);
        let told: Vec<Result<(), String>> =
            decision.reply.into_iter().map(|it| it.map_err(|error| error.to_string())).collect();
        assert_eq!(told, [Err(message.to_owned()), Ok(())]);
        assert_eq!(decision.records.len(), usize::from(!validate_only));
    }
    let replacement = ConfigReplacement {
        resource: Resource::topic("a"),
        configs: vec![(Str::copy_from(key), Some(Str::from(format!("{first},{second}"))))],
    };
    let decision = cluster.controller.alter_configs(&[replacement], false);
    assert_eq!(decision.reply[0].clone().map_err(|error| error.to_string()), Err(message.into()));
}

#[test]
fn broker_configs_obey_how_they_may_change() {
    let mut cluster = Cluster::started(&[]);
    let broker = |name: &str| Resource::new(ResourceKind::Broker, name);
    assert_eq!(cluster.set(broker(""), "log.retention.ms", "7"), Ok(()));
    assert_eq!(cluster.set(broker("1"), "max.connections", "5"), Ok(()));
    let image = cluster.controller.image();
    assert_eq!(image.cluster_configs().get("log.retention.ms").map(|v| &**v), Some("7"));
    assert_eq!(image.broker_configs(NodeId(1)).get("max.connections").map(|v| &**v), Some("5"));

    let refused = |message: &str| Err(message.to_owned());
    assert_eq!(
        cluster.set(broker("1"), "num.partitions", "5"),
        refused("Cannot update these configs dynamically: [num.partitions]")
    );
    assert_eq!(
        cluster.set(broker(""), "ssl.protocol", "TLSv1.3"),
        refused(
            "Cannot update these configs at default cluster level, broker id must be specified: \
             [ssl.protocol]"
        )
    );
    for (resource, key) in [("1", "ssl.keystore.location"), ("", "ssl.key.password")] {
        let why = "These security configs can be dynamically updated only per-listener using the \
                   listener prefix";
        assert_eq!(cluster.set(broker(resource), key, "x"), refused(&format!("{why}: [{key}]")));
        // One that an earlier release has taken can be deleted.
        let deleted = cluster.alter(broker(resource), &[(key, AlterOperation::Delete, None)]);
        assert_eq!(deleted, Ok(()));
    }
    let own = "listener.name.external.ssl.keystore.location";
    assert_eq!(cluster.set(broker("1"), own, "/k"), Ok(()));
    let refusal = format!("`{own}` is for one broker, and its listener's name in lower case");
    assert_eq!(cluster.set(broker(""), own, "/k"), refused(&refusal));
    assert_eq!(
        cluster.set(broker("1"), "max.connection", "5"),
        refused("Unknown config name: max.connection (did you mean `max.connections`?)")
    );
    assert_eq!(
        cluster.set(broker("1"), "max.connections", "-5"),
        refused("invalid value `-5` for `max.connections`: must be a 32-bit integer, at least 0")
    );
    assert_eq!(
        cluster.set(broker("2"), "max.connections", "5"),
        refused("No broker with id 2 found.")
    );
    assert_eq!(
        cluster.set(broker("+1"), "max.connections", "5"),
        refused("Broker id must be a plain integer, but it is: +1")
    );
    assert_eq!(
        cluster.set(broker("one"), "max.connections", "5"),
        refused("Broker id must be an integer, but it is: one")
    );
}

/// What a broker's keys name may have changed: a certificate has to be read again (KAFKA-14136).
#[test]
fn what_is_set_on_brokers_is_written_down_even_if_it_is_the_same() {
    let mut cluster = Cluster::started(&[]);
    cluster.create_named("a", 1);
    let (key, value) = ("listener.name.external.ssl.keystore.location", "/k");
    let brokers = Resource::new(ResourceKind::Broker, "1");
    let cases = [(brokers, key, value, 1), (Resource::topic("a"), "segment.ms", "9", 0)];
    for (resource, key, value, records) in cases {
        assert_eq!(cluster.set(resource.clone(), key, value), Ok(()));
        let before = cluster.log.len();
        assert_eq!(cluster.set(resource.clone(), key, value), Ok(()));
        assert_eq!(cluster.log.len() - before, records, "{resource:?}");
        let configs = vec![(Str::copy_from(key), Some(Str::copy_from(value)))];
        let replacement = ConfigReplacement { resource: resource.clone(), configs };
        let decision = cluster.controller.alter_configs(&[replacement], false);
        assert_eq!(decision.records.len(), records, "{resource:?}");
        assert_eq!(cluster.alter(resource.clone(), &[(key, AlterOperation::Delete, None)]), Ok(()));
        let before = cluster.log.len();
        assert_eq!(cluster.alter(resource.clone(), &[(key, AlterOperation::Delete, None)]), Ok(()));
        assert_eq!(cluster.log.len() - before, records, "{resource:?}");
    }
    let image = cluster.controller.image();
    assert!(image.broker_configs(NodeId(1)).is_empty());
}

#[test]
fn group_configs_stay_within_the_brokers_bounds() {
    let mut cluster = Cluster::started(&[]);
    let group = || Resource::new(ResourceKind::Group, "g");
    assert_eq!(cluster.set(group(), "consumer.session.timeout.ms", "50000"), Ok(()));
    assert_eq!(cluster.set(group(), "share.auto.offset.reset", "earliest"), Ok(()));
    let refused = |message: &str| Err(message.to_owned());
    assert_eq!(
        cluster.set(group(), "consumer.session.timeout.ms", "1"),
        refused(
            "invalid value `1` for `consumer.session.timeout.ms`: must be at least 45000, which the broker's `group.consumer.min.session.timeout.ms` says"
        )
    );
    assert_eq!(
        cluster.set(group(), "consumer.session.timeout.ms", "99999"),
        refused(
            "invalid value `99999` for `consumer.session.timeout.ms`: must be at most 60000, which the broker's `group.consumer.max.session.timeout.ms` says"
        )
    );
    assert_eq!(
        cluster.set(group(), "shared", "1"),
        refused("Unknown config name: shared (docs/configuration.md lists all of them)")
    );
    let nameless = Resource::new(ResourceKind::Group, "");
    assert_eq!(
        cluster.set(nameless, "consumer.session.timeout.ms", "50000"),
        refused("Default group resources are not allowed.")
    );
    let metrics = || Resource::new(ResourceKind::ClientMetrics, "m");
    assert_eq!(cluster.set(metrics(), "interval.ms", "1000"), Ok(()));
    assert_eq!(
        cluster.set(metrics(), "interval.ms", "1"),
        refused(
            "invalid value `1` for `interval.ms`: must be a 32-bit integer, between 100 and 3600000"
        )
    );
}

#[test]
fn the_older_alter_configs_replaces_everything() {
    let mut cluster = Cluster::started(&[]);
    cluster.create_named("a", 1);
    cluster.set(Resource::topic("a"), "segment.ms", "9").expect("valid");
    let replacement = ConfigReplacement {
        resource: Resource::topic("a"),
        configs: vec![("retention.ms".into(), Some("5".into()))],
    };
    let validated = cluster.controller.alter_configs(slice::from_ref(&replacement), true);
    assert_eq!((validated.records.len(), validated.reply), (0, vec![Ok(())]));
    let decision = cluster.controller.alter_configs(slice::from_ref(&replacement), false);
    assert_eq!(cluster.append(decision), [Ok(())]);
    assert_eq!(cluster.topic_config("a", "segment.ms"), None);
    assert_eq!(cluster.topic_config("a", "retention.ms").as_deref(), Some("5"));
    let twice = [replacement.clone(), replacement];
    let decision = cluster.controller.alter_configs(&twice, false);
    assert_eq!(decision.records, []);
    assert_eq!(decision.reply, vec![Err(AlterConfigsError::DuplicateResource); 2]);
}

#[test]
fn producer_ids_are_given_out_once_and_only_to_the_registered_broker() {
    let mut cluster = Cluster::started(&[]);
    let epoch = cluster.controller.image().brokers()[&NodeId(1)].epoch;
    for first in [0, 1000, 2000] {
        let decision = cluster.controller.allocate_producer_ids(NodeId(1), epoch);
        let block = ProducerIdBlock { first: ProducerId(first), count: 1000 };
        assert_eq!(cluster.append(decision), Some(block));
    }
    for (id, epoch) in [(NodeId(1), epoch + 1), (NodeId(2), epoch)] {
        assert_eq!(cluster.controller.allocate_producer_ids(id, epoch).reply, None);
    }
}

#[test]
fn a_crash_begins_new_leader_epochs_and_a_clean_stop_does_not() {
    let mut cluster = Cluster::started(&[]);
    cluster.create_named("a", 2);
    let epochs = |cluster: &Cluster| -> Vec<i32> {
        let topic = cluster.controller.image().topics().by_name("a").expect("there");
        topic.partitions().iter().map(|partition| partition.leader_epoch.0).collect()
    };
    let first = cluster.controller.image().brokers()[&NodeId(1)].clone();
    cluster.register(true);
    assert_eq!(epochs(&cluster), [0, 0]);
    cluster.register(false);
    assert_eq!(epochs(&cluster), [1, 1]);
    let last = &cluster.controller.image().brokers()[&NodeId(1)];
    assert!(last.epoch > first.epoch && last.incarnation != first.incarnation);
    assert!(last.is_active());
}

#[test]
fn directories_are_recorded_once_chosen() {
    let mut cluster = Cluster::started(&[]);
    let id = cluster.create_named("a", 2);
    let assign = |partition, byte| DirectoryAssignment {
        topic_id: id,
        partition,
        directory: Uuid([byte; 16]),
    };
    let wanted = [assign(0, 9), assign(1, 4), assign(2, 4)];
    let decision = cluster.controller.assign_directories(&wanted);
    assert_eq!(decision.records.len(), 1, "one is known already, one does not exist");
    cluster.append(decision);
    let topic = cluster.controller.image().topics().by_id(id).expect("there");
    assert_eq!(topic.partitions()[1].directories, [Uuid([4; 16])]);
    assert_eq!(topic.partitions()[1].leader_epoch, LeaderEpoch(0));
    assert_eq!(cluster.controller.assign_directories(&wanted[..2]).records, []);
}

#[test]
fn a_transaction_left_open_does_not_count() {
    let mut cluster = Cluster::started(&[]);
    let topic =
        |name: &str, byte| TopicRecord { name: Str::copy_from(name), topic_id: Uuid([byte; 16]) };
    let begin = || Record::from(BeginTransactionRecord::default());
    let names = |cluster: &Cluster| -> Vec<String> {
        cluster.controller.image().topics().iter().map(|topic| topic.name.to_string()).collect()
    };
    for record in [begin(), topic("kept", 1).into()] {
        cluster.controller.apply(&record).expect("fits");
    }
    assert_eq!(names(&cluster), [""; 0], "not before the end");
    cluster.controller.apply(&EndTransactionRecord {}.into()).expect("fits");
    for record in [begin(), topic("lost", 2).into()] {
        cluster.controller.apply(&record).expect("fits");
    }
    let abort = cluster.controller.finish_replay();
    assert_eq!(abort.records.len(), 1);
    cluster.append(abort);
    assert_eq!(names(&cluster), ["kept"]);
    assert_eq!(cluster.controller.finish_replay().records, []);
}

#[test]
fn a_log_of_a_newer_release_is_refused() {
    let mut cluster = Cluster::empty(&[]);
    let record = fleuve_protocol::messages::feature_level_record::FeatureLevelRecord {
        name: "metadata.version".into(),
        feature_level: 31,
    };
    let error = cluster.controller.apply(&record.into()).expect_err("newer");
    assert_eq!(
        error.to_string(),
        "feature metadata.version has level 31, but this release knows levels up to 30; use a \
         newer one"
    );
}

#[test]
fn settings_of_the_default_broker_are_enough() {
    let controller = Controller::new("c".into(), Arc::new(BrokerSettings::default()));
    assert_eq!(controller.image().cluster_id().as_str(), "c");
    assert_eq!(controller.settings().topics.default_partitions, 1);
}

//! Topics coming, growing, changing and going.

use fleuve_protocol::messages::alter_configs_request as alter;
use fleuve_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use fleuve_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use fleuve_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use fleuve_protocol::messages::describe_topic_partitions_request::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use fleuve_protocol::messages::incremental_alter_configs_request as incremental;
use fleuve_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use fleuve_protocol::messages::metadata_response::MetadataResponse;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use crate::support::{TestBroker, TestClient, batch, produce_request};

async fn metadata(client: &mut TestClient, name: &'static str, create: bool) -> MetadataResponse {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Str::from(name)),
            ..Default::default()
        }]),
        allow_auto_topic_creation: create,
        ..Default::default()
    };
    client.call(&request, 12).await
}

async fn delete(client: &mut TestClient, name: &'static str) -> i16 {
    let request = DeleteTopicsRequest { topic_names: vec![Str::from(name)], ..Default::default() };
    client.call(&request, 5).await.responses[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_topic_creates_it_where_that_is_allowed() {
    let broker = TestBroker::start(&[("num.partitions", "3")]).await;
    let mut client = broker.connect().await;
    let unknown = metadata(&mut client, "words", false).await;
    let code = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(unknown.topics[0].error_code, code);
    let created = metadata(&mut client, "words", true).await;
    assert_eq!((created.topics[0].error_code, created.topics[0].partitions.len()), (0, 3));
    assert_eq!(client.produce("words", 2, &["x"]).await.error_code, 0);
    let invalid = metadata(&mut client, "no/name", true).await;
    assert_eq!(invalid.topics[0].error_code, ErrorCode::InvalidTopicException.code());
    broker.stop().await;

    let broker = TestBroker::start(&[("auto.create.topics.enable", "false")]).await;
    let mut client = broker.connect().await;
    assert_eq!(metadata(&mut client, "words", true).await.topics[0].error_code, code);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_gone_and_its_name_free_again() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    let first = client.create_topic("words", 1).await;
    client.produce("words", 0, &["old"]).await;
    assert_eq!(delete(&mut client, "words").await, 0);
    let gone = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(delete(&mut client, "words").await, gone);
    assert_eq!(client.produce("words", 0, &["x"]).await.error_code, gone);
    let second = client.create_topic("words", 1).await;
    assert_ne!(first, second);
    assert!(client.fetch("words", 0, 0).await.is_empty());
    client.produce("words", 0, &["new"]).await;
    // The old id stays unknown.
    let mut by_old_id = produce_request("", 0, -1, batch(&["x"]));
    by_old_id.topic_data[0].topic_id = first;
    let response = client.call(&by_old_id, 13).await;
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::UnknownTopicId.code());

    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, &[]).await;
    let mut client = broker.connect().await;
    assert_eq!(client.fetch("words", 0, 0).await, ["new"]);
    assert_eq!(metadata(&mut client, "words", false).await.topics[0].topic_id, second);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_take_records_and_old_ones_keep_theirs() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    client.produce("words", 0, &["a"]).await;
    let more = |count| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: Str::from("words"), count, assignments: None }],
        ..Default::default()
    };
    assert_eq!(client.call(&more(3), 3).await.results[0].error_code, 0);
    let fewer = client.call(&more(2), 3).await;
    assert_eq!(fewer.results[0].error_code, ErrorCode::InvalidPartitions.code());
    assert_eq!(client.produce("words", 2, &["b"]).await.error_code, 0);
    assert_eq!(client.fetch("words", 0, 0).await, ["a"]);
    assert_eq!(client.fetch("words", 2, 0).await, ["b"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_created_is_refused_with_a_reason() {
    // A topic of this name would be a second way into the controller's own log.
    const RESERVED: &str = "__cluster_metadata";
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    let topic =
        |name: &'static str, partitions, replicas, config: Option<&'static str>| CreatableTopic {
            name: Str::from(name),
            num_partitions: partitions,
            replication_factor: replicas,
            configs: config
                .map(|name| CreatableTopicConfig {
                    name: Str::from(name),
                    value: Some(Str::from("x")),
                })
                .into_iter()
                .collect(),
            ..Default::default()
        };
    let cases = [
        (topic("words", 1, 1, None), ErrorCode::TopicAlreadyExists),
        (topic("a/b", 1, 1, None), ErrorCode::InvalidTopicException),
        (topic(RESERVED, 1, 1, None), ErrorCode::InvalidRequest),
        (topic("none", 0, 1, None), ErrorCode::InvalidPartitions),
        (topic("many", 1, 3, None), ErrorCode::InvalidReplicationFactor),
        (topic("odd", 1, 1, Some("retention.msec")), ErrorCode::InvalidConfig),
        (topic("bad", 1, 1, Some("retention.ms")), ErrorCode::InvalidConfig),
    ];
    for (topic, expected) in cases {
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let response = client.call(&request, 7).await;
        let result = &response.topics[0];
        assert_eq!(result.error_code, expected.code(), "{result:?}");
        assert!(result.error_message.is_some());
    }
    let asked = metadata(&mut client, RESERVED, true).await;
    assert_eq!(asked.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    let produced = client.produce(RESERVED, 0, &["x"]).await;
    assert_eq!(produced.error_code, ErrorCode::UnknownTopicOrPartition.code());
    let only_asking = CreateTopicsRequest {
        topics: vec![topic("maybe", 2, 1, None)],
        validate_only: true,
        ..Default::default()
    };
    let response = client.call(&only_asking, 7).await;
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 2));
    let asked = metadata(&mut client, "maybe", false).await;
    assert_eq!(asked.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    broker.stop().await;
}

/// Kafka's brokers answer some of these with other codes than its controllers.
#[tokio::test(flavor = "multi_thread")]
async fn configs_that_cannot_be_set_are_refused_by_kafkas_codes() {
    const TOPIC: i8 = 2;
    const CLIENT_METRICS: i8 = 16;
    const OF_CONTROLLER: usize = 1;
    let broker = TestBroker::start(&[
        ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0"),
        ("controller.listener.names", "CONTROLLER"),
    ])
    .await;
    broker.connect().await.create_topic("words", 1).await;
    let (invalid, wrong) = (ErrorCode::InvalidRequest, ErrorCode::InvalidConfig);
    let cases = [
        ((TOPIC, "words", "segment.ms", None), [invalid, wrong]),
        ((TOPIC, "words", "segment.ms", Some("x")), [wrong, wrong]),
        ((TOPIC, "", "segment.ms", Some("9")), [invalid, invalid]),
        ((TOPIC, "bad name!", "segment.ms", Some("9")), [ErrorCode::InvalidTopicException; 2]),
        ((TOPIC, "none", "segment.ms", Some("9")), [ErrorCode::UnknownTopicOrPartition; 2]),
        ((CLIENT_METRICS, "m", "interval.ms", Some("abc")), [wrong, wrong]),
        ((CLIENT_METRICS, "m", "interval.ms", Some("3000000000")), [wrong, wrong]),
        ((CLIENT_METRICS, "m", "interval.ms", Some("1")), [invalid, invalid]),
        ((CLIENT_METRICS, "m", "metrics", Some("a,a")), [wrong, wrong]),
        ((CLIENT_METRICS, "m", "match", Some("a")), [wrong, wrong]),
        ((CLIENT_METRICS, "m", "unknown", Some("a")), [invalid, invalid]),
    ];
    for listener in [0, OF_CONTROLLER] {
        let mut client = broker.connect_to(listener).await;
        for ((resource_type, name, key, value), expected) in cases {
            let resource_name = Str::from(name);
            let value = value.map(Str::from);
            let configs = vec![incremental::AlterableConfig {
                name: Str::from(key),
                config_operation: 0,
                value: value.clone(),
            }];
            let resource =
                incremental::AlterConfigsResource { resource_type, resource_name, configs };
            let request = incremental::IncrementalAlterConfigsRequest {
                resources: vec![resource],
                ..Default::default()
            };
            let answer = client.call(&request, 1).await.responses.remove(0);
            assert_eq!(answer.error_code, expected[listener].code(), "{listener}: {answer:?}");
            let configs = vec![alter::AlterableConfig { name: Str::from(key), value }];
            let resource_name = Str::from(name);
            let resource = alter::AlterConfigsResource { resource_type, resource_name, configs };
            let request =
                alter::AlterConfigsRequest { resources: vec![resource], ..Default::default() };
            let answer = client.call(&request, 2).await.responses.remove(0);
            assert_eq!(answer.error_code, expected[listener].code(), "{listener}: {answer:?}");
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_can_be_described_page_by_page() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    for name in ["a", "b", "c"] {
        client.create_topic(name, 3).await;
    }
    let mut request =
        DescribeTopicPartitionsRequest { response_partition_limit: 4, ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let response = client.call(&request, 0).await;
        let page: Vec<String> = response
            .topics
            .iter()
            .flat_map(|topic| {
                let name = topic.name.clone().unwrap_or_default();
                topic.partitions.iter().map(move |p| format!("{name}{}", p.partition_index))
            })
            .collect();
        pages.push(page.join(" "));
        match response.next_cursor {
            Some(cursor) => {
                request.cursor = Some(Cursor {
                    topic_name: cursor.topic_name,
                    partition_index: cursor.partition_index,
                });
            }
            None => break,
        }
    }
    assert_eq!(pages, ["a0 a1 a2 b0", "b1 b2 c0 c1", "c2"]);
    let named = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: Str::from("zzz") }],
        ..Default::default()
    };
    let response = client.call(&named, 0).await;
    let code = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(response.topics[0].error_code, code);
    // A full page ends before whatever comes next, there or not.
    let full = DescribeTopicPartitionsRequest {
        topics: ["a", "zzz"].map(|name| TopicRequest { name: Str::from(name) }).into(),
        response_partition_limit: 3,
        cursor: None,
    };
    let response = client.call(&full, 0).await;
    assert_eq!(response.topics.len(), 1);
    let next = response.next_cursor.expect("there is more");
    assert_eq!((next.topic_name.as_str(), next.partition_index), ("zzz", 0));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_point_nowhere_are_refused_topic_by_topic() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("b", 1).await;
    for (topics, (topic_name, partition_index), expected) in [
        (&["b", "a"][..], ("b", -1), &["b", "a"][..]),
        (&["b"], ("a", 0), &["b"]),
        (&["a"], ("b", 0), &["a"]),
        (&[], ("b", -1), &[]),
        (&[], ("a", 0), &["b"]),
    ] {
        let request = DescribeTopicPartitionsRequest {
            topics: topics.iter().map(|name| TopicRequest { name: Str::from(*name) }).collect(),
            response_partition_limit: 10,
            cursor: Some(Cursor { topic_name: Str::from(topic_name), partition_index }),
        };
        let response = client.call(&request, 0).await;
        let names: Vec<&str> =
            response.topics.iter().filter_map(|topic| topic.name.as_deref()).collect();
        assert_eq!(names, expected);
        let code = if topics.is_empty() { 0 } else { ErrorCode::InvalidRequest.code() };
        assert!(response.topics.iter().all(|topic| topic.error_code == code), "{response:?}");
    }
    broker.stop().await;
}

/// They may be made at any moment, by whoever has the right to.
#[tokio::test(flavor = "multi_thread")]
async fn of_topics_that_are_not_there_it_is_told_who_may_do_what() {
    const NOT_TOLD: i32 = i32::MIN;
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    for (name, is_internal) in [("none", false), ("__consumer_offsets", true)] {
        let request = DescribeTopicPartitionsRequest {
            topics: vec![TopicRequest { name: Str::from(name) }],
            response_partition_limit: 10,
            cursor: None,
        };
        let described = client.call(&request, 0).await.topics.remove(0);
        assert_eq!(described.error_code, ErrorCode::UnknownTopicOrPartition.code());
        assert_eq!(described.is_internal, is_internal);
        assert_ne!(described.topic_authorized_operations, NOT_TOLD);
        for include_topic_authorized_operations in [true, false] {
            let request = MetadataRequest {
                topics: Some(vec![MetadataRequestTopic {
                    name: Some(Str::from(name)),
                    ..Default::default()
                }]),
                allow_auto_topic_creation: false,
                include_topic_authorized_operations,
                ..Default::default()
            };
            let described = client.call(&request, 12).await.topics.remove(0);
            assert_eq!(described.error_code, ErrorCode::UnknownTopicOrPartition.code());
            assert_eq!(described.is_internal, is_internal);
            let is_told = described.topic_authorized_operations != NOT_TOLD;
            assert_eq!(is_told, include_topic_authorized_operations);
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_finds_topics_by_id_and_lists_all_or_none() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    let id = client.create_topic("words", 1).await;
    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { topic_id, name: None }]),
        ..Default::default()
    };
    let known = client.call(&by_id(id), 12).await;
    assert_eq!(known.topics[0].name.as_deref(), Some("words"));
    let unknown = client.call(&by_id(Uuid([7; 16])), 12).await;
    assert_eq!(unknown.topics[0].error_code, ErrorCode::UnknownTopicId.code());
    assert_eq!(unknown.topics[0].name, None);
    let all = MetadataRequest { topics: None, ..Default::default() };
    let none = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    assert_eq!(client.call(&all, 12).await.topics.len(), 1);
    assert_eq!(client.call(&none, 12).await.topics.len(), 0);
    assert_eq!(client.call(&none, 0).await.topics.len(), 1, "version 0 knows no null");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_each_key_in_a_compacted_topic_the_last_record_stays() {
    let broker = TestBroker::start(&[("log.cleaner.backoff.ms", "1")]).await;
    let mut client = broker.connect().await;
    let config = |name: &'static str, value: &'static str| CreatableTopicConfig {
        name: Str::from(name),
        value: Some(Str::from(value)),
    };
    let create = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Str::from("words"),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![
                config("cleanup.policy", "compact"),
                config("min.cleanable.dirty.ratio", "0.01"),
                // Every batch begins a segment, and the last one is never compacted.
                config("segment.ms", "1"),
            ],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(client.call(&create, 7).await.topics[0].error_code, 0);
    let rounds = 5;
    for round in 0..rounds {
        let value = round.to_string();
        let records: Vec<(&str, &str)> = vec![("a", &value), ("b", &value)];
        let request = produce_request("words", 0, -1, crate::support::keyed_batch(round, &records));
        let response = client.call(&request, 9).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0, "{partition:?}");
    }
    let without_key = client.produce("words", 0, &["x"]).await;
    assert_eq!(without_key.error_code, ErrorCode::InvalidRecord.code());
    // Compaction happens when it happens; each look is a round trip, so this does not spin hot.
    // A fetch ends with its segment: this is what the first four became.
    while client.fetch("words", 0, 0).await != ["3", "3"] {}
    // The last round stands in the active segment, which is left alone.
    assert_eq!(client.fetch("words", 0, 8).await, ["4", "4"]);
    let directory = broker.stop().await;
    let offsets = directory.path().join("cleaner-offset-checkpoint");
    let offsets = std::fs::read_to_string(offsets).expect("compaction is written down");
    assert_eq!(offsets, "0\n1\nwords 0 8\n");
}

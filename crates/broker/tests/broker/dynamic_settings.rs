//! Every setting of a log that may change while the broker runs takes effect without a restart: set
//! on the topic, and set for all brokers, which topics inherit.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use fleuve_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use fleuve_protocol::messages::describe_producers_request::{
    DescribeProducersRequest, TopicRequest,
};
use fleuve_protocol::messages::incremental_alter_configs_request as incremental;
use fleuve_protocol::messages::list_offsets_request as offsets;
use fleuve_protocol::records::{BatchOptions, BatchProducer, Batches, Compression};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::{ProducerEpoch, ProducerId};

use crate::support::{
    TestBroker, TestClient, batch, batch_with, fetch_request, keyed_batch, produce_request,
};

/// What a setting does to records.
#[derive(Clone, Copy, Debug)]
enum Effect {
    /// Old records go.
    Deletes,
    /// Of a key that occurs twice one record goes.
    Compacts,
    /// A record that was taken is refused.
    Refuses(ErrorCode),
    /// A record that was refused is taken.
    Takes(ErrorCode),
    /// The next record begins a segment.
    Rolls,
    /// The next record is flushed.
    Flushes,
    /// Records get the time of the append.
    StampsTime,
    /// Records are compressed.
    Compresses(Compression),
    /// The next segments have more entries in their indexes.
    Indexes,
    /// The next segment has its space reserved.
    Reserves,
    /// Files of deleted segments go soon.
    Removes,
}

struct Case {
    on_topic: &'static str,
    /// The name of the same setting for all brokers.
    on_brokers: &'static str,
    value: &'static str,
    /// What the topic needs besides, from its creation on.
    with: &'static [(&'static str, &'static str)],
    effect: Effect,
}

/// No effect takes this long, unless there is none.
const PATIENCE: Duration = Duration::from_secs(30);
const COMPACTED: &[(&str, &str)] = &[("cleanup.policy", "compact"), ("segment.ms", "1")];
const DAY: &str = "86400000";
const CASES: &[Case] = &[
    Case {
        on_topic: "retention.ms",
        on_brokers: "log.retention.ms",
        value: DAY,
        with: &[],
        effect: Effect::Deletes,
    },
    Case {
        on_topic: "retention.bytes",
        on_brokers: "log.retention.bytes",
        value: "1",
        with: &[("segment.ms", "1")],
        effect: Effect::Deletes,
    },
    Case {
        on_topic: "cleanup.policy",
        on_brokers: "log.cleanup.policy",
        value: "compact",
        with: &[("min.cleanable.dirty.ratio", "0.01"), ("segment.ms", "1")],
        effect: Effect::Compacts,
    },
    Case {
        on_topic: "min.cleanable.dirty.ratio",
        on_brokers: "log.cleaner.min.cleanable.ratio",
        value: "0.01",
        with: COMPACTED,
        effect: Effect::Compacts,
    },
    Case {
        on_topic: "max.compaction.lag.ms",
        on_brokers: "log.cleaner.max.compaction.lag.ms",
        value: DAY,
        with: COMPACTED,
        effect: Effect::Compacts,
    },
    Case {
        on_topic: "segment.bytes",
        on_brokers: "log.segment.bytes",
        value: "1048576",
        with: &[],
        effect: Effect::Rolls,
    },
    Case {
        on_topic: "segment.ms",
        on_brokers: "log.roll.ms",
        value: "1",
        with: &[],
        effect: Effect::Rolls,
    },
    Case {
        on_topic: "flush.messages",
        on_brokers: "log.flush.interval.messages",
        value: "1",
        with: &[],
        effect: Effect::Flushes,
    },
    Case {
        on_topic: "flush.ms",
        on_brokers: "log.flush.interval.ms",
        value: "1",
        with: &[],
        effect: Effect::Flushes,
    },
    Case {
        on_topic: "max.message.bytes",
        on_brokers: "message.max.bytes",
        value: "50",
        with: &[],
        effect: Effect::Refuses(ErrorCode::MessageTooLarge),
    },
    Case {
        on_topic: "max.message.bytes",
        on_brokers: "message.max.bytes",
        value: "4000000",
        with: &[],
        effect: Effect::Takes(ErrorCode::MessageTooLarge),
    },
    Case {
        on_topic: "message.timestamp.type",
        on_brokers: "log.message.timestamp.type",
        value: "LogAppendTime",
        with: &[],
        effect: Effect::StampsTime,
    },
    Case {
        on_topic: "message.timestamp.before.max.ms",
        on_brokers: "log.message.timestamp.before.max.ms",
        value: DAY,
        with: &[],
        effect: Effect::Refuses(ErrorCode::InvalidTimestamp),
    },
    Case {
        on_topic: "compression.type",
        on_brokers: "compression.type",
        value: "gzip",
        with: &[],
        effect: Effect::Compresses(Compression::Gzip),
    },
    Case {
        on_topic: "compression.type",
        on_brokers: "compression.type",
        value: "snappy",
        with: &[],
        effect: Effect::Compresses(Compression::Snappy),
    },
    Case {
        on_topic: "compression.type",
        on_brokers: "compression.type",
        value: "lz4",
        with: &[],
        effect: Effect::Compresses(Compression::Lz4),
    },
    Case {
        on_topic: "compression.type",
        on_brokers: "compression.type",
        value: "zstd",
        with: &[],
        effect: Effect::Compresses(Compression::Zstd),
    },
    Case {
        on_topic: "index.interval.bytes",
        on_brokers: "log.index.interval.bytes",
        value: "1",
        with: &[],
        effect: Effect::Indexes,
    },
    Case {
        on_topic: "preallocate",
        on_brokers: "log.preallocate",
        value: "true",
        with: &[("segment.bytes", "1048576")],
        effect: Effect::Reserves,
    },
    Case {
        on_topic: "file.delete.delay.ms",
        on_brokers: "log.segment.delete.delay.ms",
        value: "1",
        with: &[("segment.ms", "1")],
        effect: Effect::Removes,
    },
];

/// The broker under test with one topic.
struct Scene {
    broker: TestBroker,
    client: TestClient,
    topic: &'static str,
}

impl Scene {
    async fn create(&mut self, with: &[(&'static str, &'static str)]) {
        let configs = with.iter().map(|(name, value)| CreatableTopicConfig {
            name: Str::from(*name),
            value: Some(Str::from(*value)),
        });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: Str::from(self.topic),
                num_partitions: 1,
                replication_factor: 1,
                configs: configs.collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(self.client.call(&request, 7).await.topics[0].error_code, 0);
    }

    /// Sets a setting, or takes it back.
    async fn alter(&mut self, resource_type: i8, name: &str, key: &str, value: Option<&str>) {
        let request = incremental::IncrementalAlterConfigsRequest {
            resources: vec![incremental::AlterConfigsResource {
                resource_type,
                resource_name: Str::copy_from(name),
                configs: vec![incremental::AlterableConfig {
                    name: Str::copy_from(key),
                    config_operation: i8::from(value.is_none()),
                    value: value.map(Str::copy_from),
                }],
            }],
            validate_only: false,
        };
        let response = self.client.call(&request, 1).await;
        assert_eq!(response.responses[0].error_code, 0, "{key}: {response:?}");
    }

    async fn send(&mut self, records: Bytes) -> (i16, i64) {
        let response = self.client.call(&produce_request(self.topic, 0, -1, records), 9).await;
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.log_append_time_ms)
    }

    /// Appends a record with a key that all share, from some days ago.
    async fn put(&mut self, days: i64) -> (i16, i64) {
        self.send(keyed_batch(days, &[("key", "value")])).await
    }

    async fn fill(&mut self) {
        for days in 0..4 {
            assert_eq!(self.put(days).await.0, 0);
        }
    }

    async fn start_offset(&mut self) -> i64 {
        let request = offsets::ListOffsetsRequest {
            topics: vec![offsets::ListOffsetsTopic {
                name: Str::from(self.topic),
                partitions: vec![offsets::ListOffsetsPartition {
                    timestamp: -2,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        self.client.call(&request, 5).await.topics[0].partitions[0].offset
    }

    /// The files of the partition with this ending.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let directory = self.broker.directory.path().join(format!("{}-0", self.topic));
        let entries = std::fs::read_dir(directory).expect("the partition has a directory");
        let paths = entries.map(|entry| entry.expect("readable").path());
        let mut found: Vec<_> =
            paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        found.sort();
        found
    }

    async fn flushes(&self) -> u64 {
        let page = self.broker.get("/metrics").await;
        let count = "kafka_log_logflushstats_logflushrateandtimems_count ";
        let line = page.lines().find_map(|line| line.strip_prefix(count));
        line.and_then(|count| count.parse().ok()).expect("flushes are counted")
    }

    /// The offset of the first record that is left in the log.
    async fn first_record(&mut self) -> i64 {
        let response = self.client.call(&fetch_request(self.topic, 0, 0), 12).await;
        let records = response.responses[0].partitions[0].records.clone().unwrap_or_default();
        let batch = Batches::new(records).next();
        batch.map_or(-1, |batch| batch.expect("a whole batch").header.base_offset.0)
    }

    async fn stored_codec(&mut self, offset: i64) -> Compression {
        let response = self.client.call(&fetch_request(self.topic, 0, offset), 12).await;
        let records = response.responses[0].partitions[0].records.clone().unwrap_or_default();
        let batch = Batches::new(records).next().expect("a batch").expect("a whole batch");
        batch.header.attributes.compression().expect("a known codec")
    }

    /// How many producers the partition remembers.
    async fn producers(&mut self) -> usize {
        let name = Str::from(self.topic);
        let topics = vec![TopicRequest { name, partition_indexes: vec![0] }];
        let response = self.client.call(&DescribeProducersRequest { topics }, 0).await;
        response.topics[0].partitions[0].active_producers.len()
    }

    /// Says whether the effect is there, after making it visible.
    async fn shows(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Deletes => self.start_offset().await > 0,
            Effect::Compacts => self.first_record().await > 0,
            Effect::Refuses(code) => self.put(0).await.0 == code.code(),
            Effect::Takes(code) => {
                let answer = self.send(batch(&["x".repeat(2_000_000).as_str()])).await.0;
                assert!([0, code.code()].contains(&answer), "{answer}");
                answer == 0
            }
            Effect::Rolls => {
                let before = self.files(".log").len();
                let large = "x".repeat(600_000);
                for _ in 0..2 {
                    assert_eq!(self.send(keyed_batch(4, &[("key", &large)])).await.0, 0);
                }
                self.files(".log").len() > before
            }
            Effect::Flushes => {
                let before = self.flushes().await;
                assert_eq!(self.put(0).await.0, 0);
                self.flushes().await > before
            }
            Effect::StampsTime => self.put(0).await.1 > 0,
            Effect::Compresses(codec) => {
                let end = self.client.produce(self.topic, 0, &["text"]).await.base_offset;
                self.stored_codec(end).await == codec
            }
            Effect::Indexes => {
                // Few records, so that by default nothing is entered; a new segment shows it.
                self.fill().await;
                let topic = self.topic;
                self.alter(2, topic, "segment.ms", Some("1")).await;
                assert_eq!(self.put(5).await.0, 0);
                self.alter(2, topic, "segment.ms", None).await;
                let sealed = self.files(".index");
                let entries = sealed.iter().map(|path| path.metadata().expect("there").len());
                entries.sum::<u64>() > 0
            }
            Effect::Reserves => {
                use std::os::unix::fs::MetadataExt as _;
                let topic = self.topic;
                self.alter(2, topic, "segment.ms", Some("1")).await;
                assert_eq!(self.put(5).await.0, 0);
                assert_eq!(self.put(6).await.0, 0);
                self.alter(2, topic, "segment.ms", None).await;
                let newest = self.files(".log").pop().expect("a segment");
                newest.metadata().expect("there").blocks() * 512 >= 1 << 20
            }
            Effect::Removes => {
                // Segments that go by retention are only renamed at first.
                let topic = self.topic;
                self.alter(2, topic, "retention.bytes", Some("1")).await;
                let has_deleted = self.start_offset().await > 0;
                has_deleted && self.files(".deleted").is_empty() && self.files(".log").len() == 1
            }
        }
    }
}

async fn start() -> TestBroker {
    TestBroker::start(&[
        ("fleuve.flush.before.ack", "false"),
        ("fleuve.metrics.listen", "127.0.0.1:0"),
        ("log.retention.ms", "-1"),
        ("log.retention.check.interval.ms", "10"),
        ("log.initial.task.delay.ms", "0"),
        ("log.cleaner.backoff.ms", "1"),
        // Only what is changed makes a log dirty enough.
        ("log.cleaner.min.cleanable.ratio", "1.0"),
    ])
    .await
}

/// Runs all cases; `set` puts a setting in force, and `unset` takes it back.
async fn run(on_topic: bool) {
    let broker = start().await;
    let client = broker.connect().await;
    let mut scene = Scene { broker, client, topic: "" };
    for (number, case) in CASES.iter().enumerate() {
        let (resource_type, key) = match on_topic {
            true => (2, case.on_topic),
            false => (4, case.on_brokers),
        };
        let name = format!("topic-{number}-{}", case.effect_name());
        scene.topic = Box::leak(name.into_boxed_str());
        scene.create(case.with).await;
        scene.fill().await;
        if !matches!(case.effect, Effect::Removes) {
            assert!(!scene.shows(case.effect).await, "{key}: {:?} before it is set", case.effect);
        }
        let resource = if on_topic { scene.topic } else { "" };
        scene.alter(resource_type, resource, key, Some(case.value)).await;
        // What happens in the background happens when it happens; each look is a round trip.
        let shown = async { while !scene.shows(case.effect).await {} };
        let shown = tokio::time::timeout(PATIENCE, shown).await;
        assert!(shown.is_ok(), "{key}={} has no effect: {:?}", case.value, case.effect);
        scene.alter(resource_type, resource, key, None).await;
    }
    scene.broker.stop().await;
}

impl Case {
    fn effect_name(&self) -> String {
        let name = format!("{:?}", self.effect).to_lowercase();
        name.chars().take_while(char::is_ascii_alphabetic).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_topic_take_effect_at_once() {
    run(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_all_brokers_reach_topics_at_once() {
    run(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_left_to_lie_for_the_least_lag_of_compaction() {
    let broker = start().await;
    let client = broker.connect().await;
    let mut scene = Scene { broker, client, topic: "lagging" };
    scene
        .create(&[
            ("cleanup.policy", "compact"),
            ("segment.ms", "1"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("min.compaction.lag.ms", "9000000000000"),
        ])
        .await;
    scene.fill().await;
    assert!(!scene.shows(Effect::Compacts).await);
    scene.alter(2, "lagging", "min.compaction.lag.ms", Some("0")).await;
    while !scene.shows(Effect::Compacts).await {}
    scene.broker.stop().await;
}

/// The same location may be another file by now, and it may be one that cannot be used.
#[tokio::test(flavor = "multi_thread")]
async fn a_keystore_that_is_set_again_is_looked_at_again() {
    const STORE: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../client/testdata/stores/client.p12");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.p12");
    std::fs::copy(STORE, &path).expect("the store is there");
    let path = path.to_str().expect("a path of letters");
    let broker = TestBroker::start(&[
        ("listeners", "PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0"),
        ("ssl.keystore.type", "PKCS12"),
        ("ssl.keystore.location", path),
        ("ssl.keystore.password", "changeit"),
    ])
    .await;
    let mut client = broker.connect().await;
    let request = incremental::IncrementalAlterConfigsRequest {
        resources: vec![incremental::AlterConfigsResource {
            resource_type: 4,
            resource_name: Str::from("1"),
            configs: vec![incremental::AlterableConfig {
                name: Str::from("listener.name.ssl.ssl.keystore.location"),
                config_operation: 0,
                value: Some(Str::copy_from(path)),
            }],
        }],
        validate_only: false,
    };
    for _ in 0..2 {
        let taken = client.call(&request, 1).await;
        assert_eq!(taken.responses[0].error_code, 0, "{taken:?}");
    }
    std::fs::write(path, "no store").expect("it can be written");
    for validate_only in [true, false] {
        let request =
            incremental::IncrementalAlterConfigsRequest { validate_only, ..request.clone() };
        let refused = client.call(&request, 1).await;
        let code = ErrorCode::InvalidConfig.code();
        assert_eq!(refused.responses[0].error_code, code, "{refused:?}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_are_remembered_for_as_long_as_is_set_now() {
    let keys = [("producer.id.expiration.check.interval.ms", "10")];
    let broker = TestBroker::start(&keys).await;
    let client = broker.connect().await;
    let mut scene = Scene { broker, client, topic: "remembering" };
    scene.create(&[]).await;
    let producer = BatchProducer { id: ProducerId(7), epoch: ProducerEpoch(0), base_sequence: 0 };
    let options = BatchOptions { producer: Some(producer), ..Default::default() };
    assert_eq!(scene.send(batch_with(options, &["once"])).await.0, 0);
    assert_eq!(scene.producers().await, 1);
    scene.alter(4, "", "producer.id.expiration.ms", Some("1")).await;
    let forgotten = async { while scene.producers().await > 0 {} };
    assert!(tokio::time::timeout(PATIENCE, forgotten).await.is_ok(), "remembered for ever");
    scene.broker.stop().await;
}

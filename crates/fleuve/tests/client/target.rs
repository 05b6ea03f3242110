//! The broker under test, and small things that every test does with it.

use std::time::Duration;

use fleuve::Embedded;
use fleuve::client::admin::NewTopic;
use fleuve::client::consumer::{OwnedRecord, Start};
use fleuve::client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Properties,
    Record,
};
use fleuve_types::TopicPartition;

/// Names a broker that runs already, to test that one instead.
const EXTERNAL: &str = "FLEUVE_TEST_BROKER";

/// A file with properties for clients of that broker, such as how to prove who they are.
const PROPERTIES: &str = "FLEUVE_TEST_PROPERTIES";

/// Reports whether the clients of these tests prove who they are.
pub(crate) fn is_authenticated() -> bool {
    std::env::var_os(PROPERTIES).is_some()
}

/// Far more than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker and the way to it.
pub(crate) struct Target {
    embedded: Option<Embedded>,
    in_process: bool,
}

impl Target {
    /// A broker of this process without a socket, unless an external one is named.
    pub(crate) async fn in_process() -> Option<Self> {
        Some(Self { embedded: embedded().await, in_process: true })
    }

    /// A broker of this process over TCP; an external one was tested already.
    pub(crate) async fn over_tcp() -> Option<Self> {
        let embedded = embedded().await?;
        Some(Self { embedded: Some(embedded), in_process: false })
    }

    pub(crate) fn bootstrap(&self) -> String {
        match &self.embedded {
            Some(embedded) => embedded.bootstrap_servers(),
            None => std::env::var(EXTERNAL).expect("named"),
        }
    }

    /// What a client over TCP needs, proof of who it is included.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut properties = match std::env::var_os(PROPERTIES) {
            Some(path) => Properties::load(path.as_ref()).expect("properties"),
            None => Properties::new(),
        };
        properties.set("bootstrap.servers", &self.bootstrap()).expect("known");
        ClientConfig::from_properties(&properties).expect("valid")
    }

    pub(crate) async fn client(&self) -> Client {
        match &self.embedded {
            Some(embedded) if self.in_process => embedded.client(),
            _ => Client::connect(self.config()).await.expect("reachable"),
        }
    }

    /// Makes a topic with a name that nobody has.
    pub(crate) async fn topic(&self, label: &str, partitions: i32) -> String {
        let name = unique(label);
        self.create(&name, partitions).await;
        name
    }

    pub(crate) async fn create(&self, name: &str, partitions: i32) {
        let client = self.client().await;
        // Some tests write records of years ago, which retention would take.
        let topic = NewTopic::new(name).partitions(partitions).config("retention.ms", "-1");
        let admin = Admin::new(client.clone());
        let results = admin.create_topics(&[topic], false).await.expect("answered");
        for (_, result) in results {
            result.expect("created");
        }
        // A broker of a real cluster learns of it a little later than the controller.
        let begun = tokio::time::Instant::now();
        while let Err(error) = client.topic(name, false).await {
            assert!(begun.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn producer(&self, config: ProducerConfig) -> Producer {
        Producer::new(self.client().await, config).expect("valid")
    }

    /// Writes `values` to one partition and waits for all of them.
    pub(crate) async fn write(&self, topic: &str, partition: i32, values: &[&str]) {
        let producer = self.producer(ProducerConfig::default()).await;
        for value in values {
            let record = Record::new(topic).partition(partition).value(value);
            drop(producer.send(record).await.expect("taken"));
        }
        producer.close().await.expect("written");
    }

    /// Reports whether the broker offers an API.
    pub(crate) async fn offers(&self, key: fleuve_protocol::ApiKey) -> bool {
        let client = self.client().await;
        let connection = client.any_connection().await.expect("reachable");
        connection.versions().choose(key, 0, i16::MAX).is_some()
    }

    /// Reports whether the broker serves the group protocol of KIP-848: Kafka 3.9 names version 0 of
    /// its heartbeat and refuses it.
    pub(crate) async fn reconciles(&self) -> bool {
        let client = self.client().await;
        let connection = client.any_connection().await.expect("reachable");
        let key = fleuve_protocol::ApiKey::ConsumerGroupHeartbeat;
        connection.versions().choose(key, 1, i16::MAX).is_some()
    }

    pub(crate) async fn consumer(&self, config: ConsumerConfig) -> Consumer {
        Consumer::new(self.client().await, config).expect("valid")
    }

    /// Reads a partition from its beginning until it has so many records.
    pub(crate) async fn read(
        &self,
        topic: &str,
        partition: i32,
        count: usize,
        config: ConsumerConfig,
    ) -> Vec<OwnedRecord> {
        let consumer = self.consumer(config).await;
        let place = (TopicPartition::new(topic, partition), Start::Beginning);
        consumer.assign(&[place]).expect("not subscribed");
        let records = take(&consumer, count).await;
        consumer.close().await.expect("closed");
        records
    }

    /// Ends an embedded broker.
    pub(crate) async fn end(self) {
        if let Some(embedded) = self.embedded {
            embedded.shutdown().await;
        }
    }
}

async fn embedded() -> Option<Embedded> {
    if std::env::var_os(EXTERNAL).is_some() {
        return None;
    }
    let builder = Embedded::builder()
        .set("group.consumer.min.heartbeat.interval.ms", "50")
        .set("group.consumer.heartbeat.interval.ms", "100")
        .set("group.share.min.heartbeat.interval.ms", "50")
        .set("group.share.heartbeat.interval.ms", "100");
    Some(builder.start().await.expect("it starts"))
}

/// Takes so many records from a consumer.
pub(crate) async fn take(consumer: &Consumer, count: usize) -> Vec<OwnedRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        let record = consumer.next(PATIENCE).await.expect("readable");
        records.push(record.unwrap_or_else(|| panic!("{} of {count} records", records.len())));
    }
    records
}

/// The values as text.
pub(crate) fn values(records: &[OwnedRecord]) -> Vec<String> {
    let text = |record: &OwnedRecord| {
        let value = record.value.as_deref().unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    records.iter().map(text).collect()
}

/// A name that nobody has.
pub(crate) fn unique(label: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{label}-{:08x}", RandomState::new().hash_one(label) as u32)
}

/// Makes a test per kind of target out of functions that take one.
macro_rules! for_each_target {
    ($($name:ident)*) => {
        mod in_process {
            $(#[tokio::test]
            async fn $name() {
                if let Some(target) = crate::target::Target::in_process().await {
                    super::$name(&target).await;
                    target.end().await;
                }
            })*
        }
        mod over_tcp {
            $(#[tokio::test]
            async fn $name() {
                if let Some(target) = crate::target::Target::over_tcp().await {
                    super::$name(&target).await;
                    target.end().await;
                }
            })*
        }
    };
}
pub(crate) use for_each_target;

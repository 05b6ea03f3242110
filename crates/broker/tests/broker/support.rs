//! A broker on a free port with a directory of its own, and a client that speaks raw frames.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleuve_broker::{Broker, BrokerSettings, Components};
use fleuve_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use fleuve_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use fleuve_protocol::messages::fetch_response::FetchResponse;
use fleuve_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use fleuve_protocol::messages::produce_response::PartitionProduceResponse;
use fleuve_protocol::records::{BatchBuilder, BatchOptions, Batches, NewRecord, RecordIter};
use fleuve_protocol::{Message, Request, Str, frame};
use fleuve_types::{TimestampMs, Uuid};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer of a broker on the same machine takes this long, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker under test.
pub(super) struct TestBroker {
    pub(super) broker: Broker,
    pub(super) directory: Arc<TempDir>,
}

impl TestBroker {
    /// Starts a broker with the given keys set, as in `server.properties`.
    pub(super) async fn start(keys: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        Self::start_in(directory, keys).await
    }

    /// Starts a broker on a directory that an earlier one may have left.
    pub(super) async fn start_in(directory: Arc<TempDir>, keys: &[(&str, &str)]) -> Self {
        Self::start_within(directory, keys, Components::default()).await
    }

    /// Starts a broker in a world of the test's making.
    pub(super) async fn start_with(keys: &[(&str, &str)], components: Components) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        Self::start_within(directory, keys, components).await
    }

    async fn start_within(
        directory: Arc<TempDir>,
        keys: &[(&str, &str)],
        components: Components,
    ) -> Self {
        let settings = settings(directory.path(), keys);
        let broker = Broker::start(settings, components).await.expect("the broker starts");
        Self { broker, directory }
    }

    /// Connects a client.
    pub(super) async fn connect(&self) -> TestClient {
        self.connect_to(0).await
    }

    /// Connects a client to one of several listeners.
    pub(super) async fn connect_to(&self, listener: usize) -> TestClient {
        TestClient::connect(self.broker.listeners()[listener].address).await
    }

    /// Gets a page over HTTP, status and headers included.
    pub(super) async fn get(&self, path: &str) -> String {
        self.get_with(path, "").await
    }

    /// The same with headers of its own, each with its line's end.
    pub(super) async fn get_with(&self, path: &str, headers: &str) -> String {
        let address = self.broker.http_address().expect("the endpoint is on");
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// Stops the broker cleanly and returns its directory.
    pub(super) async fn stop(self) -> Arc<TempDir> {
        self.broker.shutdown().await;
        self.directory
    }
}

/// Settings for a directory with the given keys set.
pub(super) fn settings(directory: &Path, keys: &[(&str, &str)]) -> BrokerSettings {
    use fleuve_metadata::config::{Override, Sources, load};
    let directory = directory.to_str().expect("a UTF-8 path").to_owned();
    let fixed = [
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", directory.as_str()),
        ("fleuve.metrics.listen", ""),
        ("group.initial.rebalance.delay.ms", "0"),
    ];
    let fixed = fixed.iter().filter(|(key, _)| keys.iter().all(|(given, _)| given != key));
    let overrides: Vec<Override> = fixed
        .chain(keys)
        .map(|(key, value)| Override {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            flag: "--set".to_owned(),
        })
        .collect();
    load(Sources { overrides: &overrides, ..Sources::default() }).expect("valid settings").0
}

/// A connection that sends requests and awaits their answers.
pub(super) struct TestClient {
    stream: TcpStream,
    correlation_id: i32,
}

impl TestClient {
    /// Connects to an address.
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the broker listens");
        Self { stream, correlation_id: 0 }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(request, version).await;
        self.receive::<R>(version).await.expect("the broker answers")
    }

    /// Sends a request without waiting.
    pub(super) async fn send<R: Request>(&mut self, request: &R, version: i16) {
        self.correlation_id += 1;
        let client_id = Str::from("test");
        let segments =
            frame::encode_request(self.correlation_id, Some(&client_id), request, version)
                .expect("the version carries the request");
        self.send_raw(&segments.concat()).await;
    }

    /// Sends bytes as they are.
    pub(super) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection is open");
    }

    /// Waits for the next answer; `None` when the broker closed the connection instead.
    pub(super) async fn receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let frame = self.receive_frame().await?;
        let (_, mut body) =
            frame::decode_response_header(frame, R::KEY, version).expect("a response header");
        let response = R::Response::decode(&mut body, version).expect("a response");
        assert_eq!(body.remaining(), 0, "bytes after the response");
        Some(response)
    }

    /// Waits for the next frame; `None` when the broker closed the connection instead.
    pub(super) async fn receive_frame(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_i32().await.ok()?;
            let mut frame = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(Bytes::from(frame))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time")
    }

    /// Creates a topic.
    pub(super) async fn create_topic(&mut self, name: &'static str, partitions: i32) -> Uuid {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: Str::from(name),
                num_partitions: partitions,
                replication_factor: -1,
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let response = self.call(&request, 7).await;
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
        response.topics[0].topic_id
    }

    /// Appends one batch with these values, and returns what the broker says of it.
    pub(super) async fn produce(
        &mut self,
        topic: &'static str,
        partition: i32,
        values: &[&str],
    ) -> PartitionProduceResponse {
        let request = produce_request(topic, partition, -1, batch(values));
        let mut response = self.call(&request, 12).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Fetches from one partition.
    pub(super) async fn fetch(
        &mut self,
        topic: &'static str,
        partition: i32,
        offset: i64,
    ) -> Vec<String> {
        let response = self.call(&fetch_request(topic, partition, offset), 12).await;
        values(&response)
    }
}

/// Makes a produce request with one batch.
pub(super) fn produce_request(
    topic: &'static str,
    partition: i32,
    acks: i16,
    records: Bytes,
) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: Str::from(topic),
            partition_data: vec![PartitionProduceData { index: partition, records: Some(records) }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Makes a fetch without session that does not wait.
pub(super) fn fetch_request(topic: &'static str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: Str::from(topic),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Reads the values of all records in a fetch response.
pub(super) fn values(response: &FetchResponse) -> Vec<String> {
    let mut values = Vec::new();
    for topic in &response.responses {
        for partition in &topic.partitions {
            assert_eq!(partition.error_code, 0, "{partition:?}");
            let records = partition.records.clone().unwrap_or_default();
            for batch in Batches::new(records) {
                let batch = batch.expect("a whole batch");
                if batch.header.attributes.is_control() {
                    continue;
                }
                for record in RecordIter::new(&batch.header, &batch.payload()) {
                    let record = record.expect("a whole record");
                    let value = record.value.expect("a value");
                    values.push(String::from_utf8(value.to_vec()).expect("text"));
                }
            }
        }
    }
    values
}

/// Makes a batch of records with these values.
pub(super) fn batch(values: &[&str]) -> Bytes {
    batch_with(BatchOptions::default(), values)
}

/// Makes a batch of records of one moment, with these values and options.
pub(super) fn batch_with(options: BatchOptions, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    let timestamp = TimestampMs(now_ms());
    for value in values {
        let record = NewRecord { timestamp, value: Some(value.as_bytes()), ..NewRecord::default() };
        builder.append(&record).expect("a small record");
    }
    builder.finish()
}

/// Makes a batch of records with these keys and values, ten days ago and `days` days on.
pub(super) fn keyed_batch(days: i64, records: &[(&str, &str)]) -> Bytes {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for (key, value) in records {
        let record = NewRecord {
            timestamp: TimestampMs(now_ms() + (days - 10) * DAY_MS),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        };
        builder.append(&record).expect("a small record");
    }
    builder.finish()
}

fn now_ms() -> i64 {
    use fleuve_os::{Clock, SystemClock};
    SystemClock::new().wall_ms()
}

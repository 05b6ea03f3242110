//! Time for what a broker does with every request before and after the real work.
//!
//! `cargo bench -p fleuve-protocol --bench messages` prints the fastest of many short samples, which
//! says what the code can do even while the machine does other things.

#![expect(clippy::print_stdout, reason = "the times are the result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_protocol::messages::{
    FetchRequest, FetchResponse, MetadataResponse, ProduceRequest, fetch_request, fetch_response,
    metadata_response, produce_request,
};
use fleuve_protocol::{ApiKey, Message, Request, frame};
use fleuve_types::Uuid;

const MEASURED: Duration = Duration::from_millis(500);
/// Long enough for the clock, short enough to fall between two interruptions.
const SAMPLE_RUNS: u32 = 200;

fn main() {
    let records = Bytes::from(vec![1; 1 << 20]);
    request("Produce v9, 1 partition, 1 MiB", 9, &produce(1, &records));
    request("Produce v9, 100 partitions, 1 MiB each", 9, &produce(100, &records));
    request("Fetch v17, 1 partition", 17, &fetch(1));
    request("Fetch v17, 100 partitions", 17, &fetch(100));
    response("Fetch v17, 1 partition, 1 MiB", ApiKey::Fetch, 17, &fetched(1, &records));
    response("Fetch v17, 100 partitions, 1 MiB each", ApiKey::Fetch, 17, &fetched(100, &records));
    response("Metadata v12, 1000 partitions", ApiKey::Metadata, 12, &metadata(1000));
}

fn produce(partitions: i32, records: &Bytes) -> ProduceRequest {
    let partition =
        |index| produce_request::PartitionProduceData { index, records: Some(records.clone()) };
    let topic = produce_request::TopicProduceData {
        name: "clicks".into(),
        partition_data: (0..partitions).map(partition).collect(),
        ..Default::default()
    };
    let transactional_id = None;
    ProduceRequest { transactional_id, acks: -1, topic_data: vec![topic], ..Default::default() }
}

fn fetch(partitions: i32) -> FetchRequest {
    let partition = |partition| fetch_request::FetchPartition {
        partition,
        fetch_offset: 1000,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = fetch_request::FetchTopic {
        topic_id: Uuid([7; 16]),
        partitions: (0..partitions).map(partition).collect(),
        ..Default::default()
    };
    FetchRequest { topics: vec![topic], ..Default::default() }
}

fn fetched(partitions: i32, records: &Bytes) -> FetchResponse {
    let partition = |partition_index| fetch_response::PartitionData {
        partition_index,
        records: Some(records.clone()),
        ..Default::default()
    };
    let topic = fetch_response::FetchableTopicResponse {
        topic_id: Uuid([7; 16]),
        partitions: (0..partitions).map(partition).collect(),
        ..Default::default()
    };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

fn metadata(partitions: i32) -> MetadataResponse {
    let partition = |partition_index| metadata_response::MetadataResponsePartition {
        partition_index,
        replica_nodes: vec![1, 2, 3],
        isr_nodes: vec![1, 2, 3],
        ..Default::default()
    };
    let topic = metadata_response::MetadataResponseTopic {
        name: Some("clicks".into()),
        partitions: (0..partitions).map(partition).collect(),
        ..Default::default()
    };
    MetadataResponse { topics: vec![topic], ..Default::default() }
}

fn request<R: Request>(name: &str, version: i16, request: &R) {
    let client_id = "bench".into();
    let encode = || frame::encode_request(1, Some(&client_id), request, version).expect("valid");
    let whole = Bytes::from(encode().concat()).slice(frame::LENGTH_BYTES..);
    time(&format!("read request  {name}"), || {
        let mut read = frame::decode_request_header(black_box(whole.clone())).expect("ours");
        black_box(R::decode(&mut read.body, version).expect("ours"));
    });
    time(&format!("write request {name}"), || drop(black_box(encode())));
}

fn response<M: Message>(name: &str, key: ApiKey, version: i16, response: &M) {
    let encode = || frame::encode_response(key, 1, response, version).expect("valid");
    let whole = Bytes::from(encode().concat()).slice(frame::LENGTH_BYTES..);
    time(&format!("read response  {name}"), || {
        let frame = black_box(whole.clone());
        let (_, mut body) = frame::decode_response_header(frame, key, version).expect("ours");
        black_box(M::decode(&mut body, version).expect("ours"));
    });
    time(&format!("write response {name}"), || drop(black_box(encode())));
}

/// Runs `work` and prints the time of one run in the fastest sample.
fn time(name: &str, mut work: impl FnMut()) {
    let mut best = Duration::MAX;
    let start = Instant::now();
    while start.elapsed() < MEASURED {
        let sample = Instant::now();
        for _ in 0..SAMPLE_RUNS {
            work();
        }
        best = best.min(sample.elapsed() / SAMPLE_RUNS);
    }
    println!("{name:60} {:>10} ns", best.as_nanos());
}

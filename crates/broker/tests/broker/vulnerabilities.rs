//! Classes of vulnerabilities that Kafka and its neighbours have had, one test each.
//!
//! Classes that another crate shows to be absent are in the table of `docs/security.md`.

use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use fleuve_protocol::messages::fetch_request::ReplicaState;
use fleuve_protocol::messages::get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest;
use fleuve_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use fleuve_protocol::messages::push_telemetry_request::PushTelemetryRequest;
use fleuve_protocol::records::{BatchOptions, Codec, Compression};
use fleuve_protocol::{Str, frame};
use fleuve_types::Uuid;

use super::support::{TestBroker, batch, batch_with, fetch_request, produce_request, values};

/// What all requests of a test together may make the process reserve; every one of them asks for
/// more than that.
const RESERVED_BYTES_MAX: u64 = 4 << 30;
const BROKER: i8 = 4;
const TOPIC: i8 = 2;
const ZSTD: i8 = 4;

/// The most memory that this process ever reserved, touched or not.
fn reserved_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("a peak");
    let kilobytes = line.trim().trim_end_matches("kB").trim();
    kilobytes.parse::<u64>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_34917_a_declared_length_reserves_nothing() {
    let broker = TestBroker::start(&[]).await;
    let before = reserved_bytes();
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = broker.connect().await;
        client.send_raw(&100_000_000i32.to_be_bytes()).await;
        client.send_raw(b"not as much").await;
        clients.push(client);
    }
    broker.connect().await.call(&ApiVersionsRequest::default(), 0).await;
    assert!(reserved_bytes() - before < RESERVED_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_111108_and_2026_111115_declared_counts_reserve_nothing() {
    let broker = TestBroker::start(&[]).await;
    let before = reserved_bytes();
    // Counts of arrays, of tagged fields as they follow a flexible header, and of both in turn.
    let bodies: [&[u8]; 4] = [
        &[0x7F, 0xFF, 0xFF, 0xF0],
        &[0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x07],
        &[0x00, 0x7F, 0xFF, 0xFF, 0xFF],
    ];
    for key in 0..94i16 {
        for version in [0, 1, 3, 6, 9, 12, 13] {
            for body in bodies {
                let mut request = Vec::new();
                request.extend(key.to_be_bytes());
                request.extend(i16::to_be_bytes(version));
                request.extend([0, 0, 0, 1, 0xFF, 0xFF]);
                (0..8).for_each(|_| request.extend(body));
                let mut client = broker.connect().await;
                client.send_raw(&(request.len() as u32).to_be_bytes()).await;
                client.send_raw(&request).await;
            }
        }
    }
    broker.connect().await.call(&ApiVersionsRequest::default(), 0).await;
    assert!(reserved_bytes() - before < RESERVED_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_83525_requests_without_content_end_nothing() {
    let broker = TestBroker::start(&[]).await;
    for key in 0..94i16 {
        for version in 0..20i16 {
            let mut request = Vec::new();
            request.extend(key.to_be_bytes());
            request.extend(version.to_be_bytes());
            request.extend([0, 0, 0, 1, 0xFF, 0xFF]);
            // Empty arrays, texts, ids, and no tagged fields, as long as the longest needs.
            request.extend([0; 64]);
            let mut client = broker.connect().await;
            client.send_raw(&(request.len() as u32).to_be_bytes()).await;
            client.send_raw(&request).await;
        }
    }
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    assert_eq!(client.produce("t", 0, &["still here"]).await.error_code, 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2023_34455_a_batch_that_decompresses_without_end_is_refused() {
    // Only what the broker itself has to decompress could hurt it.
    let keys = [("compression.type", "uncompressed"), ("fleuve.metrics.listen", "127.0.0.1:0")];
    let broker = TestBroker::start(&keys).await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    let zeros = "\0".repeat(80 << 20);
    for compression in [Compression::Gzip, Compression::Lz4, Compression::Zstd, Compression::Snappy]
    {
        let codec = Codec::new(compression);
        let bomb = batch_with(BatchOptions { codec, ..BatchOptions::default() }, &[&zeros]);
        assert!(bomb.len() < 8 << 20, "{codec:?} compresses zeros");
        let response = client.call(&produce_request("t", 0, -1, bomb), 12).await;
        assert_ne!(response.responses[0].partition_responses[0].error_code, 0, "{codec:?}");
    }
    assert_eq!(client.produce("t", 0, &["small"]).await.error_code, 0);
    assert_eq!(client.fetch("t", 0, 0).await, ["small"]);
    let page = broker.get("/metrics").await;
    // Snappy does not make them small enough for `max.message.bytes`.
    assert!(page.contains("\nfleuve_decompressions_refused_total 3\n"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_batches_may_decompress_to_is_a_setting() {
    let limit = ("fleuve.decompressed.bytes.max", "10000");
    let keys =
        [("compression.type", "uncompressed"), limit, ("fleuve.metrics.listen", "127.0.0.1:0")];
    let broker = TestBroker::start(&keys).await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    for (size, is_taken) in [(9_000, true), (20_000, false)] {
        let codec = Codec::new(Compression::Zstd);
        let batch =
            batch_with(BatchOptions { codec, ..BatchOptions::default() }, &[&"\0".repeat(size)]);
        let response = client.call(&produce_request("t", 0, -1, batch), 12).await;
        let code = response.responses[0].partition_responses[0].error_code;
        assert_eq!(code == 0, is_taken, "{size} bytes: {code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_111073_telemetry_that_decompresses_without_end_is_refused() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 16,
            resource_name: Str::from("all"),
            configs: vec![AlterableConfig {
                name: Str::from("metrics"),
                config_operation: 0,
                value: Some(Str::from("*")),
            }],
        }],
        validate_only: false,
    };
    let row = client.call(&request, 1).await.responses.remove(0);
    assert_eq!(row.error_code, 0, "{row:?}");
    let granted = client.call(&GetTelemetrySubscriptionsRequest::default(), 0).await;
    assert_eq!(granted.error_code, 0);
    // A batch's records are a stream of the codec, with nothing around them.
    const BATCH_HEADER: usize = 61;
    let options = BatchOptions { codec: Codec::new(Compression::Zstd), ..BatchOptions::default() };
    let bomb = batch_with(options, &[&"\0".repeat(256 << 20)]).slice(BATCH_HEADER..);
    assert!(bomb.len() < 1 << 20);
    let push = PushTelemetryRequest {
        client_instance_id: granted.client_instance_id,
        subscription_id: granted.subscription_id,
        terminating: false,
        compression_type: ZSTD,
        metrics: bomb,
    };
    assert_ne!(granted.client_instance_id, Uuid::ZERO);
    assert_ne!(client.call(&push, 0).await.error_code, 0);
    client.call(&ApiVersionsRequest::default(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2018_1288_nobody_reads_as_a_replica() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    client.produce("t", 0, &["a"]).await;
    let mut fetch = fetch_request("t", 0, 0);
    fetch.replica_id = 2;
    let response = client.call(&fetch, 12).await;
    let partition = &response.responses[0].partitions[0];
    assert_ne!(partition.error_code, 0);
    assert!(partition.records.as_ref().is_none_or(|records| records.is_empty()));
    let mut fetch = fetch_request("t", 0, 0);
    fetch.topics[0].topic_id = Uuid::ZERO;
    fetch.replica_state = ReplicaState { replica_id: 2, replica_epoch: 1 };
    let response = client.call(&fetch, 15).await;
    assert!(values_are_missing(&response));
}

fn values_are_missing(response: &fleuve_protocol::messages::fetch_response::FetchResponse) -> bool {
    response.responses.iter().flat_map(|topic| &topic.partitions).all(|partition| {
        partition.error_code != 0
            && partition.records.as_ref().is_none_or(|records| records.is_empty())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_31141_a_reference_in_a_dynamic_config_reads_no_file() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    let reference = "${file:/etc/hostname:x}:5";
    let alter = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: BROKER,
            resource_name: Str::from("1"),
            configs: vec![
                AlterableConfig {
                    name: Str::from("config.providers"),
                    config_operation: 0,
                    value: Some(Str::from("file")),
                },
                AlterableConfig {
                    name: Str::from("max.connections.per.ip.overrides"),
                    config_operation: 0,
                    value: Some(Str::from(reference)),
                },
            ],
        }],
        validate_only: false,
    };
    client.call(&alter, 1).await;
    for (resource_type, name) in [(BROKER, "1"), (TOPIC, "t")] {
        let describe = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type,
                resource_name: Str::from(name),
                configuration_keys: None,
            }],
            ..Default::default()
        };
        let described = client.call(&describe, 4).await;
        for config in &described.results[0].configs {
            if config.name == "max.connections.per.ip.overrides" {
                let value = config.value.as_deref().unwrap_or_default();
                assert!(value.is_empty() || value == reference, "{value}");
            }
        }
    }
}

/// Classes and addresses that come over the network are neither loaded nor asked.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2023_25194_and_2025_27817_what_a_client_configures_is_not_run_or_asked() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("t", 1).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("bound").port();
    let jndi = format!(
        "com.sun.security.auth.module.JndiLoginModule required \
         user.provider.url=\"ldap://127.0.0.1:{port}/x\";"
    );
    let url = format!("http://127.0.0.1:{port}/keys");
    for (name, value) in [
        ("sasl.jaas.config", jndi.as_str()),
        ("listener.name.plaintext.plain.sasl.jaas.config", jndi.as_str()),
        ("listener.name.plaintext.oauthbearer.sasl.jaas.config", jndi.as_str()),
        ("sasl.oauthbearer.jwks.endpoint.url", url.as_str()),
        ("sasl.oauthbearer.token.endpoint.url", url.as_str()),
        ("sasl.login.callback.handler.class", "com.evil.Handler"),
        ("metric.reporters", "com.evil.Reporter"),
    ] {
        let config = AlterableConfig {
            name: Str::copy_from(name),
            config_operation: 0,
            value: Some(Str::copy_from(value)),
        };
        let resource = AlterConfigsResource {
            resource_type: BROKER,
            resource_name: Str::from("1"),
            configs: vec![config],
        };
        let alter =
            IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        // Some of them may be kept, as in Kafka; none of them does anything.
        client.call(&alter, 1).await;
    }
    assert_eq!(client.produce("t", 0, &["still here"]).await.error_code, 0);
    let asked = listener.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock), "nobody was asked");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_35554_records_in_one_buffer_keep_to_their_topics() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    client.create_topic("left", 1).await;
    client.create_topic("right", 1).await;
    // Many requests in one piece of bytes, so that their records share the broker's buffers.
    let mut whole = Vec::new();
    for number in 0..200 {
        for topic in ["left", "right"] {
            let text = format!("{topic} {number}");
            let request = produce_request(topic, 0, -1, batch(&[&text]));
            let segments = frame::encode_request(number, None, &request, 12).expect("valid");
            whole.extend(segments.concat());
        }
    }
    client.send_raw(&whole).await;
    for _ in 0..400 {
        client.receive_frame().await.expect("an answer for each");
    }
    for topic in ["left", "right"] {
        let response = client.call(&fetch_request(topic, 0, 0), 12).await;
        let expected: Vec<String> = (0..200).map(|number| format!("{topic} {number}")).collect();
        assert_eq!(values(&response), expected);
    }
}

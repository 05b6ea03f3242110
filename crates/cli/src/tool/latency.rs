//! `kafka-e2e-latency.sh`: how long a record takes from the producer to a consumer.

use std::time::{Duration, Instant};

use clap::Parser;
use fleuve_client::admin::NewTopic;
use fleuve_client::consumer::{Records, Start};
use fleuve_client::{Consumer, Producer, Record};
use fleuve_protocol::records::Header;
use fleuve_types::TopicPartition;

use super::Connect;
use crate::failure::Failure;
use crate::output::line;

/// How long a record may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often progress is told, in records.
const PROGRESS: usize = 1000;

/// Send a record, read it back, and so on; say how long that took.
#[derive(Debug, Parser)]
pub(super) struct EndToEndLatency {
    #[command(flatten)]
    connect: Connect,
    /// The topic; made with one partition if there is none.
    #[arg(long)]
    topic: String,
    /// How many records.
    #[arg(long)]
    num_records: usize,
    /// Whether the leader's disk or all replicas must have a record.
    #[arg(long, value_parser = ["1", "all"])]
    producer_acks: String,
    /// The size of values in bytes.
    #[arg(long)]
    record_size: usize,
    /// The size of keys in bytes; 0 for none.
    #[arg(long, default_value_t = 0)]
    record_key_size: usize,
    /// How many headers a record has.
    #[arg(long, default_value_t = 0)]
    num_headers: usize,
    /// The size of the headers' names in bytes.
    #[arg(long, default_value_t = 0)]
    record_header_key_size: usize,
    /// The size of the headers' values in bytes; -1 for null.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    record_header_size: i64,
}

/// The old form `SERVERS TOPIC RECORDS ACKS SIZE [FILE]` in the options of today.
pub(super) fn named(arguments: Vec<String>) -> Vec<String> {
    if !matches!(arguments.len(), 5 | 6) || arguments.iter().any(|text| text.starts_with("--")) {
        return arguments;
    }
    let names = [
        "--bootstrap-server",
        "--topic",
        "--num-records",
        "--producer-acks",
        "--record-size",
        "--command-config",
    ];
    let pair = |(name, value): (&str, String)| [name.to_owned(), value];
    names.into_iter().zip(arguments).flat_map(pair).collect()
}

pub(super) async fn run(options: EndToEndLatency) -> Result<(), Failure> {
    let topic = &options.topic;
    let mut context = options.connect.context()?;
    let admin = context.admin().await?;
    if !admin.list_topics().await?.iter().any(|listed| *listed.name == **topic) {
        line(format!(
            "Topic \"{topic}\" does not exist. Will create topic with 1 partition(s) and \
             replication factor = 1"
        ))?;
        let wanted = NewTopic::new(topic.as_str()).partitions(1).replication_factor(1);
        for (_, created) in admin.create_topics(&[wanted], false).await? {
            created?;
        }
    }
    // Nothing may wait for more to come.
    for (key, value) in
        [("acks", options.producer_acks.as_str()), ("linger.ms", "0"), ("fetch.max.wait.ms", "0")]
    {
        context.set(key, value)?;
    }
    let client = context.client().await?;
    let partitions = client.topic(topic, true).await?.partitions.len() as i32;
    let mut config = context.consumer_config()?;
    config.group_id = None;
    let consumer = Consumer::new(client.clone(), config)?;
    let all: Vec<_> =
        (0..partitions).map(|partition| TopicPartition::new(topic.as_str(), partition)).collect();
    let ends = crate::commands::topic::log_ends(&admin, &all).await?;
    let assignment: Vec<_> =
        ends.into_iter().map(|(partition, (_, end))| (partition, Start::Offset(end))).collect();
    consumer.assign(&assignment)?;
    let producer = Producer::new(client, context.producer_config()?)?;
    let mut latencies = Vec::with_capacity(options.num_records);
    let name = "A".repeat(options.record_header_key_size);
    let header_value =
        usize::try_from(options.record_header_size).ok().map(|size| vec![b'A'; size]);
    let headers =
        vec![Header { key: name.as_bytes(), value: header_value.as_deref() }; options.num_headers];
    for index in 0..options.num_records {
        // Another letter each time, so that an old answer is not taken for the new one.
        let letter = b'A' + (index % 26) as u8;
        let value = vec![letter; options.record_size];
        let key = vec![letter; options.record_key_size];
        let record = Record {
            key: (!key.is_empty()).then_some(key.as_slice()),
            ..Record::new(topic).value(&value).headers(&headers)
        };
        let began = Instant::now();
        producer.send_and_wait(record).await?;
        let records = consumer.poll(PATIENCE).await?;
        let took = began.elapsed();
        check(records.as_ref(), &key, &value, options.num_headers)?;
        if index % PROGRESS == 0 {
            line(format!("{index}\t{}", took.as_secs_f64() * 1e3))?;
        }
        latencies.push(took);
    }
    producer.close().await?;
    consumer.close().await?;
    if latencies.is_empty() {
        return Err(Failure::new("--num-records 0: there is nothing to measure"));
    }
    let average = latencies.iter().sum::<Duration>().as_secs_f64() * 1e3 / latencies.len() as f64;
    latencies.sort_unstable();
    let quantile = |of: f64| latencies[(latencies.len() as f64 * of) as usize].as_millis();
    line(format!("Avg latency: {average:.4} ms"))?;
    line(format!(
        "Percentiles: 50th = {}, 99th = {}, 99.9th = {}",
        quantile(0.5),
        quantile(0.99),
        quantile(0.999)
    ))
}

/// Fails unless exactly the record came that was sent.
fn check(
    records: Option<&Records>,
    key: &[u8],
    value: &[u8],
    headers: usize,
) -> Result<(), Failure> {
    let Some(records) = records else {
        let seconds = PATIENCE.as_secs();
        return Err(Failure::new(format!("the record did not come within {seconds} s")));
    };
    let mut all = records.iter();
    match (all.next(), all.next()) {
        (Some(record), None)
            if record.value == Some(value)
                && record.key.unwrap_or_default() == key
                && record.headers.len() == headers =>
        {
            Ok(())
        }
        _ => Err(Failure::new(
            "what was read is not what was sent: does somebody else write to the topic?",
        )),
    }
}

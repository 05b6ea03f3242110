//! `fleuve bench`: rates and latencies with our own client.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use fleuve_client::admin::NewTopic;
use fleuve_client::consumer::Start;
use fleuve_client::{Admin, Client, Consumer, Producer, Record};
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::output::{line, print_value};
use crate::quantities::{bytes, grouped};

/// Measure rates and latencies.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Send records as fast as they are taken.
    #[command(after_help = "Example:\n  fleuve bench produce --records 5000000 --size 1024")]
    Produce {
        #[command(flatten)]
        load: Load,
    },
    /// Read records as fast as they come.
    #[command(after_help = "Example:\n  fleuve bench consume --records 5000000")]
    Consume {
        #[command(flatten)]
        load: Load,
    },
    /// Send at a steady rate and measure the time until records are read.
    #[command(after_help = "Example:\n  fleuve bench latency --rate 10000 --seconds 30")]
    Latency {
        #[command(flatten)]
        load: Load,
        /// Records a second.
        #[arg(long, default_value_t = 1000)]
        rate: u64,
        /// How long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

/// What is sent and read.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The topic; created if it does not exist.
    #[arg(long, default_value = "fleuve-bench")]
    pub(crate) topic: String,
    /// Partitions of the topic, if it is created.
    #[arg(long, default_value_t = 1)]
    pub(crate) partitions: i32,
    /// How many records.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) records: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    pub(crate) size: usize,
    /// Any Kafka client property, as compression.type=lz4; may be repeated.
    #[arg(long = "property", short = 'X', value_name = "KEY=VALUE")]
    pub(crate) properties: Vec<String>,
}

pub(crate) async fn run(command: Bench, common: &Common) -> Result<(), Failure> {
    let mut context = Context::new(common)?;
    let (Bench::Produce { load } | Bench::Consume { load } | Bench::Latency { load, .. }) =
        &command;
    for (key, value) in super::topic::parse_assignments(&load.properties)? {
        context.set(&key, &value)?;
    }
    let client = context.client().await?;
    create_topic(&client, load).await?;
    let result = match &command {
        Bench::Produce { load } => produce(&context, client, load).await?,
        Bench::Consume { load } => consume(&context, client, load).await?,
        Bench::Latency { load, rate, seconds } => {
            latency(&mut context, client, load, *rate, *seconds).await?
        }
    };
    show(&result, common.output)
}

/// Creates the topic unless it is there, and waits until it can be used.
pub(crate) async fn create_topic(client: &Client, load: &Load) -> Result<(), Failure> {
    let topic = NewTopic::new(&load.topic).partitions(load.partitions);
    for (_, result) in Admin::new(client.clone()).create_topics(&[topic], false).await? {
        match result {
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            result => drop(result?),
        }
    }
    client.topic(&load.topic, true).await?;
    Ok(())
}

/// One in so many records is timed.
const SAMPLE: u64 = 100;

async fn produce(context: &Context, client: Client, load: &Load) -> Result<Value, Failure> {
    let producer = Producer::new(client, context.producer_config()?)?;
    let value = payload(load.size);
    let (sampled, mut samples) =
        mpsc::unbounded_channel::<(Instant, fleuve_client::producer::Delivery)>();
    let timing = tokio::spawn(async move {
        let mut latencies = Histogram::new();
        let mut failure = None;
        while let Some((sent, delivery)) = samples.recv().await {
            match delivery.await {
                Ok(_) => latencies.record(sent.elapsed()),
                Err(error) => failure = Some(error),
            }
        }
        (latencies, failure)
    });
    let began = Instant::now();
    for index in 0..load.records {
        let delivery = producer.send(Record::new(&load.topic).value(&value)).await?;
        if index % SAMPLE == 0 {
            // The receiver lives until we drop this end.
            let _ = sampled.send((Instant::now(), delivery));
        }
    }
    producer.close().await?;
    let took = began.elapsed();
    drop(sampled);
    let (latencies, failure) = timing.await.map_err(Failure::new)?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    Ok(with_latencies(
        rates("produce", load.records, load.records * load.size as u64, took),
        &latencies,
    ))
}

async fn consume(context: &Context, client: Client, load: &Load) -> Result<Value, Failure> {
    let mut config = context.consumer_config()?;
    config.group_id = None;
    let topic = client.topic(&load.topic, false).await?;
    let partitions: Vec<_> = (0..topic.partitions.len() as i32)
        .map(|index| (TopicPartition::new(&*load.topic, index), Start::Beginning))
        .collect();
    let consumer = Consumer::new(client, config)?;
    consumer.assign(&partitions)?;
    let began = Instant::now();
    let (mut records, mut size) = (0, 0);
    while records < load.records {
        let Some(batch) = consumer.poll(IDLE_MAX).await? else { break };
        for record in &batch {
            records += 1;
            size +=
                (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        }
    }
    let took = began.elapsed();
    consumer.close().await?;
    if records == 0 {
        let topic = &load.topic;
        return Err(Failure::new(format!(
            "topic {topic} is empty: run `fleuve bench produce` first"
        )));
    }
    Ok(rates("consume", records, size, took))
}

/// Nothing for so long means that there is no more.
const IDLE_MAX: Duration = Duration::from_secs(3);

async fn latency(
    context: &mut Context,
    client: Client,
    load: &Load,
    rate: u64,
    seconds: u64,
) -> Result<Value, Failure> {
    if rate == 0 || seconds == 0 {
        return Err(Failure::new("--rate and --seconds must be at least 1"));
    }
    context.set_default("linger.ms", "0")?;
    let mut config = context.consumer_config()?;
    config.group_id = None;
    let topic = client.topic(&load.topic, false).await?;
    let partitions: Vec<_> = (0..topic.partitions.len() as i32)
        .map(|index| TopicPartition::new(&*load.topic, index))
        .collect();
    let ends = super::topic::log_ends(&Admin::new(client.clone()), &partitions).await?;
    let starts: Vec<_> = partitions.iter().map(|p| (p.clone(), Start::Offset(ends[p].1))).collect();
    let consumer = Consumer::new(client.clone(), config)?;
    consumer.assign(&starts)?;
    let producer = Producer::new(client, context.producer_config()?)?;
    let total = rate * seconds;
    let origin = Instant::now();
    let reading = tokio::spawn(async move {
        let mut latencies = Histogram::new();
        while latencies.count() < total {
            let Some(batch) = consumer.poll(READ_MAX).await? else { break };
            for record in &batch {
                let sent = record.value.and_then(|value| value.first_chunk::<8>());
                if let Some(sent) = sent {
                    let sent = Duration::from_nanos(u64::from_be_bytes(*sent));
                    latencies.record(origin.elapsed().saturating_sub(sent));
                }
            }
        }
        consumer.close().await?;
        Ok::<_, fleuve_client::Error>(latencies)
    });
    let mut value = payload(load.size.max(8));
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    while sent < total {
        ticks.tick().await;
        let due = ((origin.elapsed().as_secs_f64() * rate as f64) as u64).min(total);
        while sent < due {
            // When it was to be sent, not when we got round to it: a stall must show in full.
            let intended = (sent as f64 / rate as f64 * 1e9) as u64;
            value[..8].copy_from_slice(&intended.to_be_bytes());
            let delivery = producer.send(Record::new(&load.topic).value(&value)).await?;
            drop(delivery);
            sent += 1;
        }
    }
    producer.close().await?;
    let took = origin.elapsed();
    let latencies = reading.await.map_err(Failure::new)??;
    let mut result = rates("latency", sent, sent * value.len() as u64, took);
    result["read"] = latencies.count().into();
    Ok(with_latencies(result, &latencies))
}

/// How long the reader waits for a record that was sent.
const READ_MAX: Duration = Duration::from_secs(10);

/// Text that compresses about as well as logs do.
pub(crate) fn payload(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b"abcdefghijklmnop"[(state % 16) as usize]
        })
        .collect()
}

fn rates(what: &str, records: u64, size: u64, took: Duration) -> Value {
    let seconds = took.as_secs_f64().max(1e-9);
    json!({
        "bench": what, "records": records, "bytes": size, "seconds": round(seconds),
        "records_per_second": round(records as f64 / seconds),
        "bytes_per_second": round(size as f64 / seconds),
    })
}

fn with_latencies(mut result: Value, latencies: &Histogram) -> Value {
    let ms = |duration: Duration| round(duration.as_secs_f64() * 1e3);
    result["latency_ms"] = json!({
        "mean": ms(latencies.mean()), "p50": ms(latencies.quantile(0.5)),
        "p95": ms(latencies.quantile(0.95)), "p99": ms(latencies.quantile(0.99)),
        "p999": ms(latencies.quantile(0.999)), "max": ms(latencies.max()),
    });
    result
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn show(result: &Value, format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return print_value(format, result);
    }
    let number = |name: &str| result[name].as_f64().unwrap_or_default();
    line(format!(
        "{}: {} records in {:.2} s: {} records/s, {}/s",
        result["bench"].as_str().unwrap_or_default(),
        grouped(number("records") as u64),
        number("seconds"),
        grouped(number("records_per_second") as u64),
        bytes(number("bytes_per_second")),
    ))?;
    if let Some(latency) = result["latency_ms"].as_object() {
        let parts: Vec<_> = latency.iter().map(|(name, ms)| format!("{name} {ms} ms")).collect();
        line(format!("latency: {}", parts.join(", ")))?;
    }
    Ok(())
}

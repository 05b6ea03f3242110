//! `kafka-producer-perf-test.sh` and `kafka-consumer-perf-test.sh`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use fleuve_client::config::OffsetReset;
use fleuve_client::producer::Delivery;
use fleuve_client::{Consumer, Producer, Properties, Record};
use tokio::sync::mpsc;

use super::Connect;
use crate::commands::bench::payload;
use crate::commands::produce::unescape;
use crate::commands::topic::parse_assignments;
use crate::context::Context;
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::output::line;
use crate::quantities::{format_time, now_ms};

/// Measure a producer.
#[derive(Debug, Parser)]
pub(super) struct ProducerPerformance {
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How many records.
    #[arg(long)]
    num_records: u64,
    /// Bytes of each record.
    #[arg(long, conflicts_with = "payload_file")]
    record_size: Option<usize>,
    /// Records to send, one per line, in turn.
    #[arg(long)]
    payload_file: Option<PathBuf>,
    /// What stands between records in --payload-file (\n for a line end).
    #[arg(long, default_value = "\\n")]
    payload_delimiter: String,
    /// Send rising numbers.
    #[arg(long, conflicts_with_all = ["record_size", "payload_file"])]
    payload_monotonic: bool,
    /// Records a second; -1 for as many as possible.
    #[arg(long, default_value_t = -1.0, allow_hyphen_values = true)]
    throughput: f64,
    /// Producer properties.
    #[arg(long = "producer-props", visible_alias = "command-property", num_args = 1..)]
    producer_props: Vec<String>,
    /// A file of producer properties.
    #[arg(long = "command-config", visible_alias = "producer.config")]
    command_config: Option<PathBuf>,
    /// Brokers to ask first.
    #[arg(long)]
    bootstrap_server: Option<String>,
    /// How often to report.
    #[arg(long, default_value_t = 5000)]
    reporting_interval: u64,
    /// Accepted: metrics are not printed.
    #[arg(long)]
    print_metrics: bool,
}

const MEBIBYTE: f64 = 1024.0 * 1024.0;

pub(super) async fn produce(options: ProducerPerformance) -> Result<(), Failure> {
    let mut properties = match &options.command_config {
        Some(path) => Properties::load(path)?,
        None => Properties::new(),
    };
    for (key, value) in parse_assignments(&options.producer_props)? {
        properties.set(&key, &value)?;
    }
    if let Some(servers) = &options.bootstrap_server {
        properties.set("bootstrap.servers", servers)?;
    }
    let context = Context::of(properties);
    let producer = Producer::new(context.client().await?, context.producer_config()?)?;
    let values: Vec<Vec<u8>> = match &options.payload_file {
        Some(path) => {
            let text = std::fs::read(path).map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", path.display()))
            })?;
            let text = String::from_utf8_lossy(&text);
            let delimiter = unescape(&options.payload_delimiter);
            text.split(delimiter.as_str())
                .filter(|payload| !payload.is_empty())
                .map(|payload| payload.as_bytes().to_vec())
                .collect()
        }
        None => vec![payload(options.record_size.unwrap_or(100))],
    };
    if values.is_empty() {
        return Err(Failure::new("--payload-file holds no lines"));
    }
    let (sent, answers) = mpsc::unbounded_channel();
    let timing = tokio::spawn(watch(answers, Duration::from_millis(options.reporting_interval)));
    let began = Instant::now();
    let mut size = 0;
    for index in 0..options.num_records {
        if options.throughput > 0.0 {
            let due = began + Duration::from_secs_f64(index as f64 / options.throughput);
            if let Some(wait) = due.checked_duration_since(Instant::now())
                && wait > Duration::from_millis(1)
            {
                tokio::time::sleep(wait).await;
            }
        }
        let number = index.to_string();
        let value = if options.payload_monotonic {
            number.as_bytes()
        } else {
            &values[index as usize % values.len()]
        };
        size += value.len() as u64;
        let at = Instant::now();
        let delivery = producer.send(Record::new(&options.topic).value(value)).await?;
        // The receiver ends only after this end is dropped.
        let _ = sent.send((at, value.len(), delivery));
    }
    producer.close().await?;
    let took = began.elapsed();
    drop(sent);
    let latencies = timing.await.map_err(Failure::new)??;
    let seconds = took.as_secs_f64().max(1e-9);
    line(format!(
        "{} records sent, {:.6} records/sec ({:.2} MB/sec), {:.2} ms avg latency, {:.2} ms max \
         latency, {} ms 50th, {} ms 95th, {} ms 99th, {} ms 99.9th.",
        options.num_records,
        options.num_records as f64 / seconds,
        size as f64 / MEBIBYTE / seconds,
        ms(latencies.mean()),
        ms(latencies.max()),
        latencies.quantile(0.5).as_millis(),
        latencies.quantile(0.95).as_millis(),
        latencies.quantile(0.99).as_millis(),
        latencies.quantile(0.999).as_millis(),
    ))
}

/// Awaits deliveries and reports every `interval`.
async fn watch(
    mut answers: mpsc::UnboundedReceiver<(Instant, usize, Delivery)>,
    interval: Duration,
) -> Result<Histogram, Failure> {
    let mut all = Histogram::new();
    let mut window = Histogram::new();
    let mut window_size = 0;
    let mut window_began = Instant::now();
    while let Some((at, size, delivery)) = answers.recv().await {
        delivery.await?;
        all.record(at.elapsed());
        window.record(at.elapsed());
        window_size += size;
        if window_began.elapsed() >= interval {
            let seconds = window_began.elapsed().as_secs_f64();
            line(format!(
                "{} records sent, {:.1} records/sec ({:.2} MB/sec), {:.1} ms avg latency, {:.1} ms \
                 max latency.",
                window.count(),
                window.count() as f64 / seconds,
                window_size as f64 / MEBIBYTE / seconds,
                ms(window.mean()),
                ms(window.max()),
            ))?;
            window = Histogram::new();
            window_size = 0;
            window_began = Instant::now();
        }
    }
    Ok(all)
}

/// Measure a consumer.
#[derive(Debug, Parser)]
pub(super) struct ConsumerPerformance {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How many records.
    #[arg(long = "num-records", visible_alias = "messages")]
    num_records: u64,
    /// The consumer group.
    #[arg(long)]
    group: Option<String>,
    /// Give up when nothing came for so long, in ms.
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
    /// Consumer properties.
    #[arg(long = "command-property", visible_alias = "consumer-property")]
    consumer_property: Vec<String>,
    /// Begin with what comes, if nothing is committed.
    #[arg(long)]
    from_latest: bool,
    /// Accepted: the client fetches what its properties say.
    #[arg(long)]
    fetch_size: Option<i32>,
    /// Leave the heading out.
    #[arg(long)]
    hide_header: bool,
    /// Accepted: the system sizes socket buffers.
    #[arg(long)]
    socket_buffer_size: Option<i32>,
    /// Accepted: times are printed as 2026-11-21T10:00:00.000Z.
    #[arg(long)]
    date_format: Option<String>,
    /// Accepted: only totals are printed.
    #[arg(long)]
    show_detailed_stats: bool,
    /// Accepted: only totals are printed.
    #[arg(long)]
    reporting_interval: Option<u64>,
    /// Accepted: metrics are not printed.
    #[arg(long)]
    print_metrics: bool,
}

pub(super) async fn consume(options: ConsumerPerformance) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    for (key, value) in parse_assignments(&options.consumer_property)? {
        context.set(&key, &value)?;
    }
    let mut config = context.consumer_config()?;
    let group = options.group.unwrap_or_else(|| format!("perf-consumer-{}", std::process::id()));
    config.group_id = Some(group);
    config.offset_reset =
        if options.from_latest { OffsetReset::Latest } else { OffsetReset::Earliest };
    let consumer = Consumer::new(context.client().await?, config)?;
    consumer.subscribe(&[&options.topic])?;
    let began = Instant::now();
    let began_at = now_ms();
    let mut joined = None;
    let (mut records, mut size) = (0_u64, 0_u64);
    while records < options.num_records {
        let Some(batch) = consumer.poll(Duration::from_millis(options.timeout)).await? else {
            break;
        };
        joined.get_or_insert_with(|| began.elapsed());
        for record in &batch {
            records += 1;
            size +=
                (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        }
    }
    let took = began.elapsed();
    consumer.close().await?;
    let joined = joined.unwrap_or(took);
    let fetching = took.saturating_sub(joined).as_secs_f64().max(1e-9);
    let seconds = took.as_secs_f64().max(1e-9);
    let megabytes = size as f64 / MEBIBYTE;
    if !options.hide_header {
        line(
            "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, \
             rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec",
        )?;
    }
    line(format!(
        "{}, {}, {megabytes:.4}, {:.4}, {records}, {:.4}, {}, {:.0}, {:.4}, {:.4}",
        format_time(began_at),
        format_time(now_ms()),
        megabytes / seconds,
        records as f64 / seconds,
        joined.as_millis(),
        fetching * 1e3,
        megabytes / fetching,
        records as f64 / fetching,
    ))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

//! `kafka-producer-perf-test.sh`.
//!
//! Departs from Apache's tool in that a record that is not acknowledged ends it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Parser};
use fleuve_client::metrics::Metric;
use fleuve_client::producer::Delivery;
use fleuve_client::{Producer, Properties, Record};
use fleuve_os::{OsRandom, Random};
use fleuve_types::Uuid;
use tokio::sync::mpsc;

use crate::commands::bench::payload;
use crate::commands::produce::unescape;
use crate::commands::topic::parse_assignments;
use crate::context::Context;
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::output::line;

/// Measure a producer.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("payload").required(true)
    .args(["record_size", "payload_file", "payload_monotonic"]))]
pub(super) struct ProducerPerformance {
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How many records.
    #[arg(long)]
    num_records: u64,
    /// Bytes of each record.
    #[arg(long)]
    record_size: Option<usize>,
    /// Records to send, one per line, in turn.
    #[arg(long)]
    payload_file: Option<PathBuf>,
    /// What stands between records in --payload-file (\n for a line end).
    #[arg(long, default_value = "\\n")]
    payload_delimiter: String,
    /// Send rising numbers.
    #[arg(long)]
    payload_monotonic: bool,
    /// Records a second; -1 for as many as possible.
    #[arg(long, allow_hyphen_values = true)]
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
    /// How often to report, in ms.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    reporting_interval: u64,
    /// The first records are not counted in a second summary, of the steady state.
    #[arg(long, default_value_t = 0)]
    warmup_records: u64,
    /// Write in transactions of this id.
    #[arg(long)]
    transactional_id: Option<String>,
    /// Write in transactions that last so long, in ms [default: 3000 with a transactional id].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    transaction_duration_ms: Option<u64>,
    /// Print the metrics of the producer at the end.
    #[arg(long)]
    print_metrics: bool,
}

/// How long transactions last unless something else is said.
const TRANSACTION_MS: u64 = 3000;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

pub(super) async fn produce(options: ProducerPerformance) -> Result<(), Failure> {
    if options.num_records == 0 {
        return Err(Failure::new("--num-records should be greater than zero."));
    }
    if options.warmup_records >= options.num_records {
        return Err(Failure::new(
            "The value for --warmup-records must be strictly fewer than the number of records in \
             the test, --num-records.",
        ));
    }
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
    let transaction = transaction(&options, &mut properties)?;
    let context = Context::of(properties);
    let values = values(&options)?;
    let producer = Producer::new(context.client().await?, context.producer_config()?)?;
    if transaction.is_some() {
        producer.init_transactions().await?;
    }
    if options.warmup_records > 0 {
        line(format!(
            "Warmup first {} records. Steady state results will print after the complete test \
             summary.",
            options.warmup_records
        ))?;
    }
    let (sent, answers) = mpsc::unbounded_channel();
    let interval = Duration::from_millis(options.reporting_interval);
    let timing = tokio::spawn(watch(answers, interval, options.warmup_records));
    let began = Instant::now();
    let mut transaction_began = None;
    for index in 0..options.num_records {
        if options.throughput > 0.0 {
            let due = began + Duration::from_secs_f64(index as f64 / options.throughput);
            if let Some(wait) = due.checked_duration_since(Instant::now())
                && wait > Duration::from_millis(1)
            {
                tokio::time::sleep(wait).await;
            }
        }
        let at = Instant::now();
        if transaction.is_some() && transaction_began.is_none() {
            producer.begin_transaction()?;
            transaction_began = Some(at);
        }
        let number = index.to_string();
        let value = if options.payload_monotonic {
            number.as_bytes()
        } else {
            &values[index as usize % values.len()]
        };
        let delivery = producer.send(Record::new(&options.topic).value(value)).await?;
        // The receiver ends only after this end is dropped.
        let _ = sent.send(Sent { at, size: value.len(), delivery });
        let lasted = transaction_began.map(|began| at.duration_since(began));
        if lasted.is_some_and(|lasted| transaction.is_some_and(|most| lasted >= most)) {
            producer.commit_transaction().await?;
            transaction_began = None;
        }
    }
    if transaction_began.is_some() {
        producer.commit_transaction().await?;
    }
    producer.flush().await?;
    let metrics = producer.metrics();
    producer.close().await?;
    drop(sent);
    let (all, steady) = timing.await.map_err(Failure::new)??;
    all.print("")?;
    if let Some(steady) = steady {
        steady.print(" steady state")?;
    }
    if options.print_metrics { print_metrics(metrics) } else { Ok(()) }
}

/// Finds out whether, and for how long, transactions are wanted; names them in the properties.
fn transaction(
    options: &ProducerPerformance,
    properties: &mut Properties,
) -> Result<Option<Duration>, Failure> {
    const ID: &str = "transactional.id";
    if let Some(id) = &options.transactional_id {
        properties.set(ID, id)?;
    }
    if properties.get(ID).is_none() {
        if options.transaction_duration_ms.is_none() {
            return Ok(None);
        }
        let mut bytes = [0; 16];
        OsRandom.fill(&mut bytes);
        let id = Uuid::from_random_bytes(bytes);
        properties.set(ID, &format!("performance-producer-{id}"))?;
    }
    let lasts_ms = options.transaction_duration_ms.unwrap_or(TRANSACTION_MS);
    Ok(Some(Duration::from_millis(lasts_ms)))
}

/// What is sent in turn.
fn values(options: &ProducerPerformance) -> Result<Vec<Vec<u8>>, Failure> {
    let Some(path) = &options.payload_file else {
        return Ok(vec![payload(options.record_size.unwrap_or(0))]);
    };
    let failed =
        |reason: &str| Failure::new(format!("--payload-file {}: {reason}", path.display()));
    let text = std::fs::read(path).map_err(|error| failed(&error.to_string()))?;
    let text = String::from_utf8_lossy(&text);
    let delimiter = unescape(&options.payload_delimiter);
    let values: Vec<_> = text
        .split(delimiter.as_str())
        .filter(|payload| !payload.is_empty())
        .map(|payload| payload.as_bytes().to_vec())
        .collect();
    if values.is_empty() {
        return Err(failed("it holds no lines"));
    }
    Ok(values)
}

/// A record on its way.
struct Sent {
    at: Instant,
    size: usize,
    delivery: Delivery,
}

/// What became of records since a moment.
struct Stats {
    began: Instant,
    latencies: Histogram,
    size: u64,
}

impl Stats {
    fn new() -> Self {
        Self { began: Instant::now(), latencies: Histogram::new(), size: 0 }
    }

    fn record(&mut self, latency: Duration, size: usize) {
        self.latencies.record(latency);
        self.size += size as u64;
    }

    /// Records and megabytes per second.
    fn rates(&self) -> (f64, f64) {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-9);
        (self.latencies.count() as f64 / seconds, self.size as f64 / MEBIBYTE / seconds)
    }

    fn print_window(&self) -> Result<(), Failure> {
        let (records, megabytes) = self.rates();
        line(format!(
            "{} records sent, {records:.1} records/sec ({megabytes:.2} MB/sec), {:.1} ms avg \
             latency, {:.1} ms max latency.",
            self.latencies.count(),
            ms(self.latencies.mean()),
            ms(self.latencies.max()),
        ))
    }

    fn print(&self, state: &str) -> Result<(), Failure> {
        let (records, megabytes) = self.rates();
        let percentile = |fraction| self.latencies.quantile(fraction).as_millis();
        line(format!(
            "{}{state} records sent, {records:.6} records/sec ({megabytes:.2} MB/sec), {:.2} ms \
             avg latency, {:.2} ms max latency, {} ms 50th, {} ms 95th, {} ms 99th, {} ms 99.9th.",
            self.latencies.count(),
            ms(self.latencies.mean()),
            ms(self.latencies.max()),
            percentile(0.5),
            percentile(0.95),
            percentile(0.99),
            percentile(0.999),
        ))
    }
}

/// Awaits deliveries and reports every `interval`; returns the whole, and what came after the
/// warm-up if there was one.
async fn watch(
    mut answers: mpsc::UnboundedReceiver<Sent>,
    interval: Duration,
    warmup_records: u64,
) -> Result<(Stats, Option<Stats>), Failure> {
    let mut all = Stats::new();
    let mut steady: Option<Stats> = None;
    let mut window = Stats::new();
    while let Some(Sent { at, size, delivery }) = answers.recv().await {
        let is_warm = warmup_records > 0 && all.latencies.count() >= warmup_records;
        if is_warm && steady.is_none() {
            line("In steady state.")?;
            window = Stats::new();
            steady = Some(Stats::new());
        }
        delivery.await?;
        let latency = at.elapsed();
        for stats in [Some(&mut all), Some(&mut window), steady.as_mut()].into_iter().flatten() {
            stats.record(latency, size);
        }
        if window.began.elapsed() >= interval {
            window.print_window()?;
            window = Stats::new();
        }
    }
    Ok((all, steady))
}

/// Prints the metrics of a client as Kafka's tools that measure do.
pub(super) fn print_metrics(metrics: Vec<Metric>) -> Result<(), Failure> {
    let mut rows: Vec<_> = metrics
        .into_iter()
        .map(|metric| {
            let tags: Vec<_> =
                metric.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let name = format!("{}:{}:{{{}}}", metric.group, metric.name, tags.join(", "));
            (name, metric.value)
        })
        .collect();
    rows.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    line(format!("\n{:<width$}   Value", "Metric Name"))?;
    rows.into_iter().try_for_each(|(name, value)| line(format!("{name:<width$} : {value:.3}")))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_said() {
        let parses = |more: &str| {
            let arguments = "t --topic p --num-records 5".split(' ');
            ProducerPerformance::try_parse_from(arguments.chain(more.split(' '))).is_ok()
        };
        for payload in ["--record-size 100", "--payload-file f", "--payload-monotonic"] {
            assert!(parses(&format!("{payload} --throughput -1")), "{payload}");
            assert!(!parses(payload), "{payload}");
        }
        assert!(!parses("--throughput -1"));
        assert!(!parses("--throughput -1 --record-size 100 --payload-monotonic"));
    }
}

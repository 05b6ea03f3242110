//! Load for measuring this client beside others, see `bench/client`:
//! `load produce SERVERS TOPIC COUNT SIZE`, `load consume SERVERS TOPIC COUNT`,
//! `load latency SERVERS TOPIC PARTITIONS SIZE RATE SECONDS WARMUP_SECONDS`.
//!
//! Each prints one line of JSON. Every delivery is awaited and every value is looked at, because a
//! client that skips either would look better than it is.

#![expect(clippy::print_stdout, reason = "its results go to a program that reads them")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fleuve_client::consumer::Start;
use fleuve_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Record,
};
use fleuve_types::TopicPartition;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// As many deliveries are outstanding as librdkafka allows (`queue.buffering.max.messages`).
const OUTSTANDING_MAX: usize = 100_000;
/// How long records may fail to come before the run counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The first bytes of a value in the latency run: when it should have been sent.
const STAMP_BYTES: usize = 8;

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["produce", servers, topic, count, size] => {
            produce(servers, topic, count.parse()?, size.parse()?).await
        }
        ["consume", servers, topic, count] => consume(servers, topic, count.parse()?).await,
        ["latency", servers, topic, partitions, size, rate, seconds, warmup] => {
            let load = Load {
                topic: topic.to_owned(),
                partitions: partitions.parse()?,
                size: size.parse::<usize>()?.max(STAMP_BYTES),
                rate: rate.parse()?,
                seconds: seconds.parse()?,
                warmup_seconds: warmup.parse()?,
            };
            latency(servers, load).await
        }
        _ => Err("produce, consume or latency, with their arguments".into()),
    }
}

async fn produce(servers: &str, topic: &str, count: u64, size: usize) -> Outcome {
    let client = Client::connect(ClientConfig::new(servers)?).await?;
    let config = ProducerConfig { batch_size: batch_bytes()?, ..ProducerConfig::default() };
    let producer = Producer::new(client, config)?;
    let value = vec![b'x'; size];
    let mut outstanding = VecDeque::with_capacity(OUTSTANDING_MAX);
    let began = Instant::now();
    for _ in 0..count {
        if outstanding.len() == OUTSTANDING_MAX
            && let Some(delivery) = outstanding.pop_front()
        {
            delivery.await?;
        }
        outstanding.push_back(producer.send(Record::new(topic).value(&value)).await?);
    }
    for delivery in outstanding {
        delivery.await?;
    }
    report(count, began);
    Ok(producer.close().await?)
}

/// Where the environment says so, all clients batch alike; otherwise each does as it comes.
fn batch_bytes() -> Result<usize, std::num::ParseIntError> {
    std::env::var("BATCH_BYTES")
        .map_or_else(|_| Ok(ProducerConfig::default().batch_size), |text| text.parse())
}

async fn consume(servers: &str, topic: &str, count: u64) -> Outcome {
    let client = Client::connect(ClientConfig::new(servers)?).await?;
    let partitions = client.topic(topic, false).await?.partitions.len();
    let consumer = Consumer::new(client, ConsumerConfig::default())?;
    let began = Instant::now();
    let starts = (0..partitions as i32)
        .map(|partition| (TopicPartition::new(topic, partition), Start::Beginning));
    consumer.assign(&starts.collect::<Vec<_>>())?;
    let (mut read, mut bytes) = (0, 0u64);
    while read < count {
        let records = consumer.poll(SILENCE_MAX).await?.ok_or("no records come")?;
        for record in &records {
            read += 1;
            bytes += record.value.map_or(0, |value| value.len() as u64 + u64::from(value[0] & 1));
        }
    }
    std::hint::black_box(bytes);
    report(count, began);
    Ok(consumer.close().await?)
}

fn report(count: u64, began: Instant) {
    let (seconds, memory) = (began.elapsed().as_secs_f64(), peak_memory_kib());
    println!("{{\"records\": {count}, \"seconds\": {seconds}, \"rss_kib\": {memory}}}");
}

/// The largest resident memory of this process, which the system counts from its start; what its
/// parent sees would include the parent's own before.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What the latency run sends.
#[derive(Clone)]
struct Load {
    topic: String,
    partitions: i32,
    size: usize,
    rate: u32,
    seconds: u64,
    warmup_seconds: u64,
}

/// Sends at fixed intended times and counts each record's way from then on until it is read, so
/// that a stall is charged to every record that waited (no coordinated omission).
async fn latency(servers: &str, load: Load) -> Outcome {
    let client = Client::connect(ClientConfig::new(servers)?).await?;
    let consumer = Consumer::new(client.clone(), ConsumerConfig::default())?;
    let partitions: Vec<_> = (0..load.partitions)
        .map(|partition| TopicPartition::new(load.topic.as_str(), partition))
        .collect();
    let starts: Vec<_> =
        partitions.iter().map(|partition| (partition.clone(), Start::End)).collect();
    consumer.assign(&starts)?;
    // What is sent before an end is found would not be read.
    while partitions.iter().any(|partition| consumer.position(partition).is_none()) {
        consumer.poll(Duration::from_millis(10)).await?;
    }
    let config = ProducerConfig { linger: Duration::from_millis(1), ..ProducerConfig::default() };
    let producer = Producer::new(client, config)?;

    let began = Instant::now();
    let total = u64::from(load.rate) * (load.seconds + load.warmup_seconds);
    // On a thread of its own, whose sleeps are finer than the runtime's timer.
    let runtime = tokio::runtime::Handle::current();
    let sending = std::thread::spawn({
        let load = load.clone();
        move || runtime.block_on(send_at_rate(producer, load, began, total))
    });
    let first_measured = Duration::from_secs(load.warmup_seconds).as_micros() as u64;
    let mut latencies = Vec::with_capacity(total as usize);
    let mut read = 0;
    while read < total {
        let records = consumer.poll(SILENCE_MAX).await?.ok_or("no records come")?;
        let now = began.elapsed().as_micros() as u64;
        for record in &records {
            read += 1;
            let stamp = record.value.and_then(|value| value.first_chunk::<STAMP_BYTES>());
            let intended = u64::from_le_bytes(*stamp.ok_or("a record without a time")?);
            if intended >= first_measured {
                latencies.push(now.saturating_sub(intended));
            }
        }
    }
    sending.join().map_err(|_| "the sender panicked")??;
    consumer.close().await?;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{{\"measured\": {}, \"p50_us\": {}, \"p99_us\": {}, \"p999_us\": {}, \"rss_kib\": {}}}",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        peak_memory_kib()
    );
    Ok(())
}

async fn send_at_rate(producer: Producer, load: Load, began: Instant, total: u64) -> Outcome {
    let mut value = vec![b'x'; load.size];
    let mut outstanding = VecDeque::new();
    for number in 0..total {
        let intended = Duration::from_secs_f64(number as f64 / f64::from(load.rate));
        std::thread::sleep(intended.saturating_sub(began.elapsed()));
        value[..STAMP_BYTES].copy_from_slice(&(intended.as_micros() as u64).to_le_bytes());
        let partition = (number % load.partitions as u64) as i32;
        let record = Record::new(&load.topic).partition(partition).value(&value);
        outstanding.push_back(producer.send(record).await?);
        while outstanding.len() > OUTSTANDING_MAX
            && let Some(delivery) = outstanding.pop_front()
        {
            delivery.await?;
        }
    }
    for delivery in outstanding {
        delivery.await?;
    }
    Ok(producer.close().await?)
}

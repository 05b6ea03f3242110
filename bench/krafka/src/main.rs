//! The load of crates/client/examples/load.rs on krafka.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use krafka::{Kafka, Record};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const OUTSTANDING_MAX: usize = 100_000;
const SILENCE_MAX: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["produce", servers, topic, count, size] => {
            produce(servers, topic, count.parse()?, size.parse()?).await
        }
        ["consume", servers, topic, count] => consume(servers, topic, count.parse()?).await,
        _ => Err("produce or consume, with their arguments".into()),
    }
}

async fn produce(servers: &str, topic: &str, count: u64, size: usize) -> Outcome {
    let kafka = Kafka::builder(servers).connect().await?;
    let mut builder = kafka.producer().linger(Duration::from_millis(5));
    if let Ok(bytes) = std::env::var("BATCH_BYTES") {
        builder = builder.batch_size(bytes.parse()?);
    }
    let producer = builder.build().await?;
    // The API takes owned values; a static one spares it the copy.
    let value: &'static [u8] = Box::leak(vec![b'x'; size].into_boxed_slice());
    let mut outstanding = VecDeque::with_capacity(OUTSTANDING_MAX);
    let began = Instant::now();
    for _ in 0..count {
        if outstanding.len() == OUTSTANDING_MAX
            && let Some(delivery) = outstanding.pop_front()
        {
            wait(delivery).await?;
        }
        outstanding.push_back(producer.enqueue(Record::new(topic, value)).await?);
    }
    for delivery in outstanding {
        wait(delivery).await?;
    }
    report(count, began);
    Ok(producer.close().await?)
}

async fn wait<T, E: std::error::Error + 'static>(
    delivery: impl Future<Output = Result<T, E>>,
) -> Outcome {
    delivery.await.map(drop).map_err(Into::into)
}

async fn consume(servers: &str, topic: &str, count: u64) -> Outcome {
    let kafka = Kafka::builder(servers).connect().await?;
    let consumer = kafka.consumer_without_group().build().await?;
    let began = Instant::now();
    let partitions: Vec<i32> = (0..PARTITIONS).collect();
    consumer.assign(topic, partitions.clone()).await?;
    for partition in partitions {
        consumer.seek_to_beginning(topic, partition).await?;
    }
    let (mut read, mut bytes) = (0, 0u64);
    while read < count {
        let records = consumer.poll(SILENCE_MAX).await?;
        if records.is_empty() {
            return Err("no records come".into());
        }
        for record in &records {
            read += 1;
            bytes += record.value.as_ref().map_or(0, |value| value.len() as u64);
        }
    }
    std::hint::black_box(bytes);
    report(count, began);
    Ok(consumer.close().await?)
}

/// As bench/clients.py creates topics.
const PARTITIONS: i32 = 4;

fn report(count: u64, began: Instant) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let memory = line.and_then(|line| line.split_whitespace().next()).unwrap_or("0");
    let seconds = began.elapsed().as_secs_f64();
    println!("{{\"records\": {count}, \"seconds\": {seconds}, \"rss_kib\": {memory}}}");
}

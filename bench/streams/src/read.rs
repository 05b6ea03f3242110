//! Reads what a row wrote.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{LATEST, Start};
use fleuve_client::{Admin, Client, Consumer, ConsumerConfig};
use fleuve_types::TopicPartition;

use crate::Outcome;

/// Says when it reads, when the first record has come, and when `count` have.
pub(crate) async fn arrive(client: Client, topic: &str, count: u64) -> Outcome {
    let consumer = Consumer::new(client.clone(), ConsumerConfig::default())?;
    let partitions = client.topic(topic, false).await?.partitions.len() as i32;
    let all: Vec<_> = (0..partitions)
        .map(|partition| (TopicPartition::new(topic, partition), Start::Beginning))
        .collect();
    consumer.assign(&all)?;
    println!("reading");
    let mut come = 0;
    while come < count {
        let records = consumer.poll(SILENCE_MAX).await?.ok_or("no records come")?;
        if come == 0 {
            println!("first");
        }
        come += records.count() as u64;
    }
    println!("all");
    Ok(consumer.close().await?)
}

/// Prints how many committed records there are, and a number made of all of them, or of the last of each key.
pub(crate) async fn digest(client: Client, topic: &str, last: bool) -> Outcome {
    let config = ConsumerConfig {
        isolation_level: IsolationLevel::ReadCommitted,
        ..ConsumerConfig::default()
    };
    let partitions = client.topic(topic, false).await?.partitions.len() as i32;
    let all = || (0..partitions).map(|partition| TopicPartition::new(topic, partition));
    let asked = all().map(|partition| (partition, LATEST)).collect();
    let mut ends = HashMap::new();
    let found =
        Admin::new(client.clone()).list_offsets(&asked, IsolationLevel::ReadCommitted).await?;
    for (partition, end) in found {
        ends.insert(partition, end?.offset);
    }
    let consumer = Consumer::new(client, config)?;
    consumer.assign(&all().map(|partition| (partition, Start::Beginning)).collect::<Vec<_>>())?;
    let mut newest: HashMap<u64, u64> = HashMap::new();
    let (mut count, mut sum) = (0_u64, 0_u64);
    loop {
        ends.retain(|partition, end| {
            consumer.position(partition).is_none_or(|position| position < *end)
        });
        if ends.is_empty() {
            break;
        }
        let Some(records) = consumer.poll(Duration::from_millis(100)).await? else {
            continue;
        };
        for record in &records {
            count += 1;
            let whole = hash(&(record.key, record.value));
            if last {
                newest.insert(hash(&record.key), whole);
            } else {
                sum = sum.wrapping_add(whole);
            }
        }
    }
    let keys = newest.len();
    for whole in newest.into_values() {
        sum = sum.wrapping_add(whole);
    }
    println!("{{\"records\": {count}, \"keys\": {keys}, \"digest\": \"{sum:016x}\"}}");
    Ok(consumer.close().await?)
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

const SILENCE_MAX: Duration = Duration::from_secs(300);

//! Reads as a member of a group, with positions of its own choice: `consuming SERVERS TOPIC`.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::sync::Arc;
use std::time::Duration;

use fleuve_client::config::OffsetReset;
use fleuve_client::consumer::{RebalanceListener, Start};
use fleuve_client::{BoxFuture, Client, ClientConfig, Consumer, ConsumerConfig, Result};
use fleuve_types::TopicPartition;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let values = run(Client::connect(ClientConfig::new(&servers)?).await?, &topic, 3).await?;
    println!("{values:?}");
    Ok(())
}

/// Is told what this member reads.
struct Announcer;

impl RebalanceListener for Announcer {
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        Box::pin(async move { println!("reading {} partitions", partitions.len()) })
    }
}

/// Reads `count` records of `topic` as a group, begins again, and returns the values read then.
pub(crate) async fn run(client: Client, topic: &str, count: usize) -> Result<Vec<String>> {
    let config = ConsumerConfig {
        group_id: Some(format!("{topic}-example")),
        offset_reset: OffsetReset::Earliest,
        auto_commit: false,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(client, config)?;
    consumer.set_rebalance_listener(Arc::new(Announcer));
    consumer.subscribe(&[topic])?;

    // By batches: nothing is allocated for a record.
    let mut read = 0;
    while read < count {
        let Some(records) = consumer.poll(Duration::from_secs(30)).await? else { break };
        for record in &records {
            println!("{} {:?}", record.offset, record.value.map(<[u8]>::len));
        }
        read += records.count();
        consumer.commit().await?;
    }

    // Back to the beginning, and one by one this time; `Consumer::stream` gives the same as a stream.
    for partition in consumer.assignment() {
        consumer.pause(&partition)?;
        consumer.seek(&partition, Start::Timestamp(0))?;
        consumer.resume(&partition)?;
    }
    let mut values = Vec::new();
    while values.len() < count {
        let Some(record) = consumer.next(Duration::from_secs(30)).await? else { break };
        values.push(String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned());
    }
    consumer.close().await?;
    Ok(values)
}

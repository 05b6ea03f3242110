//! Reads numbers and writes their squares, each exactly once: `transactions SERVERS`.
//!
//! Offsets are committed with the squares in one transaction, so that after a crash both stand or
//! neither does.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::time::Duration;

use fleuve_client::config::OffsetReset;
use fleuve_client::serialization::{Number, Typed};
use fleuve_client::{
    Advice, Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Result,
};

#[tokio::main]
async fn main() -> Result<()> {
    let servers = std::env::args().nth(1).unwrap_or_else(|| "localhost:9092".to_owned());
    let sum = run(Client::connect(ClientConfig::new(&servers)?).await?).await?;
    println!("the squares come to {sum}");
    Ok(())
}

/// Squares the numbers from 1 to 10, and returns the sum.
pub(crate) async fn run(client: Client) -> Result<i64> {
    let numbers = Typed::new(Number, Number);
    let producer = Producer::new(client.clone(), ProducerConfig::default())?;
    for number in 1..=10i64 {
        let delivery =
            producer.send_typed::<i64, i64, _, _>("numbers", None, Some(&number), &numbers);
        drop(delivery.await?);
    }
    producer.close().await?;

    let config = ConsumerConfig {
        group_id: Some("squarers".to_owned()),
        offset_reset: OffsetReset::Earliest,
        // The transaction commits.
        auto_commit: false,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(client.clone(), config)?;
    consumer.subscribe(&["numbers"])?;
    let config = ProducerConfig {
        transactional_id: Some("squarer-1".to_owned()),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client, config)?;
    producer.init_transactions().await?;
    let (mut read, mut sum) = (0, 0);
    while read < 10 {
        let Some(records) = consumer.poll(Duration::from_secs(10)).await? else { continue };
        producer.begin_transaction()?;
        for record in records.typed::<i64, i64, _, _>(&numbers) {
            let number = record?.value.unwrap_or(0);
            let square = number * number;
            let delivery =
                producer.send_typed::<i64, i64, _, _>("squares", None, Some(&square), &numbers);
            drop(delivery.await?);
            read += 1;
            sum += square;
        }
        producer.send_offsets(&consumer.positions_to_commit(), &consumer.group_metadata()?).await?;
        match producer.commit_transaction().await {
            Ok(()) => {}
            // An application would abort, seek back and work on them again.
            Err(error) if error.advice() == Advice::Abort => {
                producer.abort_transaction().await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
    }
    producer.close().await?;
    consumer.close().await?;
    Ok(sum)
}

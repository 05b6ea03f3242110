//! A broker inside a program, and a client that reaches it without a socket.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;
use std::time::{Duration, Instant};

use fleuve::Embedded;
use fleuve::client::config::OffsetReset;
use fleuve::client::{Consumer, ConsumerConfig, Producer, ProducerConfig, Record};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let broker = Embedded::start().await?;
    println!(
        "a broker within {} ms, also at {}",
        began.elapsed().as_millis(),
        broker.bootstrap_servers()
    );

    let producer = Producer::new(broker.client(), ProducerConfig::default())?;
    producer.send_and_wait(Record::new("greetings").value("bonjour")).await?;
    producer.close().await?;

    let config = ConsumerConfig {
        group_id: Some("readers".to_owned()),
        offset_reset: OffsetReset::Earliest,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(broker.client(), config)?;
    consumer.subscribe(&["greetings"])?;
    let record = consumer.next(Duration::from_secs(30)).await?.ok_or("no record came")?;
    println!("{}: {:?}", record.offset, record.value);
    consumer.close().await?;
    broker.shutdown().await;
    Ok(())
}

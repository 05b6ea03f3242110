//! Takes jobs as a member of a share group and says of each what became of it: `share SERVERS TOPIC`.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::time::Duration;

use fleuve_client::admin::{Alteration, Resource};
use fleuve_client::config::{AcknowledgementMode, ShareConsumerConfig};
use fleuve_client::share::Acknowledge;
use fleuve_client::{
    Admin, Client, ClientConfig, Producer, ProducerConfig, Record, Result, ShareConsumer,
};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "jobs".to_owned());
    let done = run(Client::connect(ClientConfig::new(&servers)?).await?, &topic).await?;
    println!("{done} jobs were done");
    Ok(())
}

/// Puts three jobs into `topic` and works on them until all are done.
pub(crate) async fn run(client: Client, topic: &str) -> Result<usize> {
    // A share group begins at the end unless its settings say otherwise.
    let group = Resource::Group("workers".to_owned());
    let earliest = Alteration::Set("share.auto.offset.reset".to_owned(), "earliest".to_owned());
    Admin::new(client.clone()).alter_configs(&group, &[earliest], false).await?;

    let producer = Producer::new(client.clone(), ProducerConfig::default())?;
    for job in ["sweep", "dust", "polish"] {
        producer.send_and_wait(Record::new(topic).value(job)).await?;
    }
    producer.close().await?;

    let config = ShareConsumerConfig {
        acknowledgement_mode: AcknowledgementMode::Explicit,
        ..ShareConsumerConfig::new("workers")
    };
    let consumer = ShareConsumer::new(client, config)?;
    consumer.subscribe(&[topic])?;
    let mut done = 0;
    while done < 3 {
        let Some(records) = consumer.poll(Duration::from_secs(10)).await? else { continue };
        for record in &records {
            // The first attempt at dusting fails, and somebody else may try: here, ourselves.
            let failed = record.value == Some(b"dust") && record.delivery_count == 1;
            let verdict = if failed { Acknowledge::Release } else { Acknowledge::Accept };
            done += usize::from(!failed);
            consumer.acknowledge(records.partition(), record.offset.0, verdict)?;
        }
        for (partition, result) in consumer.commit().await? {
            result.inspect_err(|error| println!("{partition}: {error}"))?;
        }
    }
    consumer.close().await?;
    Ok(done)
}

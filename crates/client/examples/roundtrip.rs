//! Produces numbered records to a topic and reads them back in a group: `roundtrip SERVERS TOPIC
//! COUNT`.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::time::{Duration, Instant};

use fleuve_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Record,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "roundtrip".to_owned());
    let count: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;

    let client = Client::connect(ClientConfig::new(&servers)?).await?;
    let producer = Producer::new(client.clone(), ProducerConfig::default())?;
    let began = Instant::now();
    let mut last = None;
    let mut value = [b'.'; 100];
    for number in 0..count {
        value[..8].copy_from_slice(&number.to_be_bytes());
        last = Some(producer.send(Record::new(&topic).value(&value)).await?);
    }
    producer.close().await?;
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("produced {count} records, {rate:.0} a second");
    if let Some(delivery) = last {
        println!("the last is {:?}", delivery.await?);
    }

    let config = ConsumerConfig {
        group_id: Some(format!("{topic}-readers")),
        offset_reset: fleuve_client::config::OffsetReset::Earliest,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(client, config)?;
    consumer.subscribe(&[&topic])?;
    let mut began = Instant::now();
    let mut read = 0;
    while read < count {
        let Some(records) = consumer.poll(Duration::from_secs(10)).await? else { break };
        if read == 0 {
            println!("the first came after {} ms", began.elapsed().as_millis());
            began = Instant::now();
        }
        read += records.iter().count() as u64;
    }
    let rate = read as f64 / began.elapsed().as_secs_f64();
    println!("consumed {read} records, {rate:.0} a second");
    consumer.close().await?;
    Ok(())
}

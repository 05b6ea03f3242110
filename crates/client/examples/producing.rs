//! Sends records in all the ways there are: `producing SERVERS TOPIC`.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::time::Duration;

use fleuve_client::producer::Header;
use fleuve_client::serialization::{Json, Text, Typed};
use fleuve_client::{
    Advice, Client, ClientConfig, Producer, ProducerConfig, Properties, Record, Result,
};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let last = run(Client::connect(ClientConfig::new(&servers)?).await?, &topic).await?;
    println!("the last record is at offset {last}");
    Ok(())
}

/// Writes four records to partition 0 of `topic` and returns the offset of the last.
pub(crate) async fn run(client: Client, topic: &str) -> Result<i64> {
    // Settings by Kafka's names, and typed ones beside them.
    let properties = Properties::parse("compression.type=zstd\nlinger.ms=20")?;
    let config = ProducerConfig {
        delivery_timeout: Duration::from_secs(30),
        ..ProducerConfig::from_properties(&properties)?
    };
    let producer = Producer::new(client, config)?;

    // Sending puts a record into a batch; the delivery says where it went.
    let headers = [Header::new("origin", Some(b"example"))];
    let record = Record::new(topic).partition(0).key("fr").value("bonjour").headers(&headers);
    let delivery = producer.send(record).await?;
    match delivery.await {
        Ok(written) => println!("{} at offset {:?}", written.partition, written.offset),
        // Every error says what to do about it.
        Err(error) if error.advice() == Advice::Retry => println!("perhaps later: {error}"),
        Err(error) => return Err(error),
    }

    // Waiting for one record at a time is slow, and sometimes what is wanted.
    producer.send_and_wait(Record::new(topic).partition(0).value("hola")).await?;

    // Keys and values of types; a delivery may be dropped, the record goes out all the same.
    let formats = Typed::new(Text, Json);
    drop(producer.send_typed(topic, Some("numbers"), Some(&[1, 2, 3]), &formats).await?);
    producer.flush().await?;

    let last = producer.send_and_wait(Record::new(topic).partition(0).value("ciao")).await?;
    producer.close().await?;
    Ok(last.offset.unwrap_or(-1))
}

//! Looks at records on their way, and at what a client counts: `observing SERVERS TOPIC`.
//!
//! Spans are those of the `tracing` crate: install any subscriber and let `fleuve_client=debug` pass.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::sync::Arc;

use fleuve_client::interceptor::{Interceptors, OutgoingRecord, ProducerInterceptor};
use fleuve_client::{Client, ClientConfig, Producer, ProducerConfig, Record, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let sent = run(Client::connect(ClientConfig::new(&servers)?).await?, &topic).await?;
    println!("{sent} records were sent to {topic}");
    Ok(())
}

/// Writes into every record who sent it.
struct Signature;

impl ProducerInterceptor for Signature {
    fn on_send(&self, record: &mut OutgoingRecord) {
        record.headers.push(("from".to_owned(), Some(b"observing".to_vec())));
    }
}

/// Sends a record and returns how many the producer counted for `topic`.
pub(crate) async fn run(client: Client, topic: &str) -> Result<f64> {
    let signature: Arc<dyn ProducerInterceptor> = Arc::new(Signature);
    let interceptors = Interceptors::from(vec![signature]);
    let producer = Producer::new(client, ProducerConfig { interceptors, ..Default::default() })?;
    producer.send_and_wait(Record::new(topic).value("x")).await?;
    let metrics = producer.metrics();
    for metric in &metrics {
        println!("{} {} {:?}: {}", metric.group, metric.name, metric.tags, metric.value);
    }
    let of_topic = metrics.iter().find(|metric| {
        metric.name == "record-send-total" && metric.group == "producer-topic-metrics"
    });
    let sent = of_topic.map_or(0.0, |metric| metric.value);
    producer.close().await?;
    Ok(sent)
}

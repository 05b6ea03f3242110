//! Between a client and a broker in the same process record bytes are handed over, not copied.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use fleuve::client::BoxFuture;
use fleuve::client::consumer::{OwnedRecord, Start};
use fleuve::client::transport::{FrameSender, Link, Transport};
use fleuve::client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Record,
};
use fleuve::{Embedded, InProcessTransport};
use fleuve_types::TopicPartition;

use crate::target::take;

/// Where the bytes of requests stood when they were handed over.
type Places = Arc<Mutex<Vec<Range<usize>>>>;

/// Notes where requests' bytes stand, and keeps them there.
struct Watched {
    inner: InProcessTransport,
    places: Places,
}

struct WatchedSender {
    inner: Box<dyn FrameSender>,
    places: Places,
}

impl Transport for Watched {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        frame_bytes_max: usize,
    ) -> BoxFuture<'a, io::Result<Link>> {
        Box::pin(async move {
            let Link { sender, receiver } = self.inner.connect(host, port, frame_bytes_max).await?;
            let sender = WatchedSender { inner: sender, places: self.places.clone() };
            Ok(Link { sender: Box::new(sender), receiver })
        })
    }
}

impl FrameSender for WatchedSender {
    fn send<'a>(
        &'a mut self,
        segments: &'a mut Vec<bytes::Bytes>,
    ) -> BoxFuture<'a, io::Result<()>> {
        for segment in segments.iter() {
            let place = segment.as_ptr() as usize;
            let mut places = self.places.lock().expect("no panic");
            places.push(place..place + segment.len());
        }
        self.inner.send(segments)
    }
}

/// A batch that the broker keeps in memory, because its consumer is close behind.
const VALUE_BYTES: usize = 100_000;

#[tokio::test]
async fn a_consumer_reads_the_very_bytes_that_the_producer_wrote() {
    if std::env::var_os("FLEUVE_TEST_BROKER").is_some() {
        return;
    }
    let embedded = Embedded::start().await.expect("it starts");
    let places = Places::default();
    let watched = Watched { inner: embedded.transport(), places: places.clone() };
    let config = ClientConfig {
        bootstrap_servers: vec![embedded.bootstrap_servers()],
        ..ClientConfig::default()
    };
    let client = Client::with_transport(config, Arc::new(watched));
    let producer = Producer::new(client.clone(), ProducerConfig::default()).expect("valid");
    let consumer = Consumer::new(client, ConsumerConfig::default()).expect("valid");
    // Two batches, so that an answer has several pieces of records.
    let mut values = Vec::new();
    for byte in [b'a', b'b'] {
        let value = vec![byte; VALUE_BYTES];
        producer.send_and_wait(Record::new("t").partition(0).value(&value)).await.expect("written");
        values.push(value);
    }
    consumer.assign(&[(TopicPartition::new("t", 0), Start::Beginning)]).expect("free");
    let records: Vec<OwnedRecord> = take(&consumer, 2).await;
    let places = places.lock().expect("no panic").clone();
    for (record, expected) in records.iter().zip(&values) {
        let value = record.value.as_ref().expect("a value");
        assert_eq!(value, expected);
        let place = value.as_ptr() as usize;
        let same = places.iter().any(|of| of.contains(&place) && place + VALUE_BYTES <= of.end);
        assert!(same, "the value at offset {} was copied", record.offset);
    }
    producer.close().await.expect("closed");
    consumer.close().await.expect("closed");
    embedded.shutdown().await;
}

//! Fills the global tables of an instance: to their ends before it starts, and on while it runs.

use std::collections::HashMap;
use std::time::Duration;

use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{LATEST, Start};
use fleuve_client::{Admin, Client, Consumer, ConsumerConfig, Producer, ProducerConfig};
use fleuve_types::TopicPartition;
use tokio::sync::watch;

use super::production::delivered;
use super::thread::now_ms;
use super::{Guarantee, Settings, StreamsError};
use crate::error::ProcessingError;
use crate::runtime::{Globals, RawRecord};

/// The reader of the global tables' topics.
pub(super) struct Filling {
    tables: Globals,
    consumer: Consumer,
    /// Writes dead letters.
    producer: Producer,
}

/// Reads global tables to the ends their topics have now. Nothing to do where there are none.
pub(super) async fn filled(
    tables: &Globals,
    client: &Client,
    settings: &Settings,
) -> Result<Option<Filling>, StreamsError> {
    let mut partitions = Vec::new();
    for topic in tables.topics() {
        let count = client.topic(topic, false).await?.partitions.len();
        partitions.extend((0..count as i32).map(|number| TopicPartition::new(topic, number)));
    }
    if partitions.is_empty() {
        return Ok(None);
    }
    let isolation_level = match settings.guarantee {
        Guarantee::AtLeastOnce => IsolationLevel::ReadUncommitted,
        Guarantee::ExactlyOnce => IsolationLevel::ReadCommitted,
    };
    let asked: HashMap<_, _> =
        partitions.iter().map(|partition| (partition.clone(), LATEST)).collect();
    let mut ends = HashMap::new();
    for (partition, end) in Admin::new(client.clone()).list_offsets(&asked, isolation_level).await?
    {
        ends.insert(partition, end?.offset);
    }
    ends.retain(|_, end| *end > 0);
    let config =
        ConsumerConfig { isolation_level, auto_commit: false, ..ConsumerConfig::default() };
    let consumer = Consumer::new(client.clone(), config)?;
    let from: Vec<_> =
        partitions.into_iter().map(|partition| (partition, Start::Beginning)).collect();
    consumer.assign(&from)?;
    let producer = Producer::new(client.clone(), ProducerConfig::default())?;
    let filling = Filling { tables: tables.clone(), consumer, producer };
    while !ends.is_empty() {
        filling.poll().await?;
        ends.retain(|partition, end| {
            filling.consumer.position(partition).is_none_or(|position| position < *end)
        });
    }
    // Dead letters from before are there already, from an instance that ran when they came.
    tables.take_dead_letters();
    Ok(Some(filling))
}

impl Filling {
    /// Keeps the tables up to date until it is told to stop.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), StreamsError> {
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                polled = self.poll() => polled?,
            }
            for dead in self.tables.take_dead_letters() {
                delivered(&self.producer, &dead).await?;
            }
        }
        self.producer.close().await?;
        self.consumer.close().await?;
        Ok(())
    }

    async fn poll(&self) -> Result<(), StreamsError> {
        let Some(records) = self.consumer.poll(POLL).await? else {
            return Ok(());
        };
        for record in records.into_owned() {
            self.apply(record.into()).await?;
        }
        Ok(())
    }

    /// Applies a record, as often as the program's policy allows.
    async fn apply(&self, record: RawRecord) -> Result<(), ProcessingError> {
        let mut failed = 0;
        loop {
            let Err(error) = self.tables.apply(record.clone(), now_ms()) else {
                return Ok(());
            };
            failed += 1;
            let Some(pause_ms) = self.tables.pause_ms(&error, failed) else {
                return self.tables.give_up(record, error);
            };
            tokio::time::sleep(Duration::from_millis(pause_ms.max(0) as u64)).await;
        }
    }
}

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

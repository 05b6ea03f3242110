//! Fills the global tables of an instance: to their ends before it starts, and on while it runs.

use std::collections::HashMap;
use std::time::Duration;

use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{LATEST, Start};
use fleuve_client::{Admin, Client, Consumer, ConsumerConfig};
use fleuve_types::TopicPartition;
use tokio::sync::watch;

use super::{Guarantee, Settings, StreamsError};
use crate::record::Header;
use crate::runtime::{Globals, RawRecord};

/// The reader of the global tables' topics.
pub(super) struct Filling {
    tables: Globals,
    consumer: Consumer,
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
    let filling = Filling { tables: tables.clone(), consumer };
    while !ends.is_empty() {
        filling.poll().await?;
        ends.retain(|partition, end| {
            filling.consumer.position(partition).is_none_or(|position| position < *end)
        });
    }
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
        }
        self.consumer.close().await?;
        Ok(())
    }

    async fn poll(&self) -> Result<(), StreamsError> {
        let Some(records) = self.consumer.poll(POLL).await? else {
            return Ok(());
        };
        for record in records.into_owned() {
            self.tables.apply(RawRecord {
                topic: record.topic,
                partition: record.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key,
                value: record.value,
                headers: record
                    .headers
                    .into_iter()
                    .map(|(key, value)| Header { key, value })
                    .collect(),
            })?;
        }
        Ok(())
    }
}

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

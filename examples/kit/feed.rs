//! Feeds an application with records, at a rate.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleuve_client::producer::Delivery;
use fleuve_client::{Producer, Record};
use fleuve_types::TopicPartition;
use tokio::time::Instant;

use super::DemoError;

/// The offset after the last record that was fed to each partition.
pub type Ends = HashMap<TopicPartition, i64>;

/// Sends records, so many a second, and remembers how far.
pub struct Feed {
    producer: Producer,
    rate: Option<u64>,
    began: Instant,
    sent: u64,
    last: HashMap<TopicPartition, Delivery>,
}

impl Feed {
    /// A feed of `rate` records a second, or as fast as can be.
    pub fn new(producer: Producer, rate: Option<u64>) -> Self {
        Self { producer, rate, began: Instant::now(), sent: 0, last: HashMap::new() }
    }

    /// Sends a record when it is its turn.
    pub async fn send(&mut self, record: Record<'_>) -> Result<(), DemoError> {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.sent as f64 / rate.max(1) as f64);
            tokio::time::sleep_until(self.began + due).await;
        } else if self.sent.is_multiple_of(YIELD_EVERY) {
            tokio::task::yield_now().await;
        }
        self.add(record).await?;
        self.sent += 1;
        Ok(())
    }

    /// Sends a record at once, outside the rate.
    pub async fn add(&mut self, record: Record<'_>) -> Result<(), DemoError> {
        let delivery = self.producer.send(record).await?;
        self.last.insert(delivery.partition().clone(), delivery);
        Ok(())
    }

    /// Waits until everything is written.
    pub async fn settle(&mut self) -> Result<Ends, DemoError> {
        self.producer.flush().await?;
        let mut ends = Ends::new();
        for (partition, delivery) in self.last.drain() {
            // Only acks=0 leaves the offset open, which no demo asks for.
            if let Some(offset) = delivery.await?.offset {
                ends.insert(partition, offset + 1);
            }
        }
        Ok(ends)
    }
}

/// The wall clock, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Lets the screen be drawn although sending never has to wait.
const YIELD_EVERY: u64 = 500;

//! The deliveries of many records, one for each of their batches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use fleuve_types::TopicPartition;

use super::batch::Delivery;
use super::record::RecordMetadata;
use crate::error::Result;

/// What becomes of records that [`super::Producer::send_all`] takes: they share the fates of their
/// batches, so one delivery is kept for each of those, and none once it is known to be written.
pub struct Deliveries {
    batches: Vec<Delivery>,
    /// The offsets behind what is known to be written.
    ends: HashMap<TopicPartition, i64>,
    /// Batches that are kept carry this number.
    number: u64,
    /// How many there may be before those that are written are forgotten.
    sweep_at: usize,
}

impl Deliveries {
    /// Makes an empty collection.
    pub fn new() -> Self {
        let number = next_number();
        Self { batches: Vec::new(), ends: HashMap::new(), number, sweep_at: SWEEP_MIN }
    }

    /// Adds the delivery of one record.
    pub fn add(&mut self, delivery: Delivery) {
        if !delivery.follow(self.number) {
            return;
        }
        if self.batches.len() >= self.sweep_at {
            self.sweep();
        }
        self.batches.push(delivery);
    }

    /// Reports whether nothing was added since the deliveries were last forgotten.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.ends.is_empty()
    }

    /// Forgets all of them; the records are sent all the same.
    pub fn clear(&mut self) {
        self.batches.clear();
        self.ends.clear();
        // What is added next may go to a batch that has just been forgotten.
        self.number = next_number();
    }

    /// Waits until all records are done, well or not, and forgets them. Returns the offsets behind the last ones by
    /// partition, or the first failure.
    pub async fn done(&mut self) -> Result<HashMap<TopicPartition, i64>> {
        self.number = next_number();
        let mut ends = std::mem::take(&mut self.ends);
        let mut first_error = None;
        for delivery in self.batches.drain(..) {
            match delivery.of_last().await {
                Ok(place) => note(&mut ends, place),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(ends), Err)
    }

    /// Forgets the batches that are written but for their offsets.
    fn sweep(&mut self) {
        for delivery in std::mem::take(&mut self.batches) {
            let delivery = delivery.of_last();
            match delivery.written() {
                Some(place) => note(&mut self.ends, place),
                None => self.batches.push(delivery),
            }
        }
        self.sweep_at = (2 * self.batches.len()).max(SWEEP_MIN);
    }
}

fn note(ends: &mut HashMap<TopicPartition, i64>, place: RecordMetadata) {
    if let Some(offset) = place.offset {
        let end = ends.entry(place.partition).or_insert(0);
        *end = (*end).max(offset + 1);
    }
}

impl Default for Deliveries {
    fn default() -> Self {
        Self::new()
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A collection of so few batches is not worth looking through.
const SWEEP_MIN: usize = 256;

//! Records and bytes by topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::record::Headers;

/// What a sink has written to one topic: counted by the task's thread, read by any.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) topic: Arc<str>,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a sink has written, by topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written(Arc<Mutex<Vec<Arc<Traffic>>>>);

/// The sink's end of it, which remembers where it counted last.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    written: Written,
    last: Option<Arc<Traffic>>,
}

impl Written {
    /// All topics that the sink has written to.
    pub(crate) fn topics(&self) -> Vec<Arc<Traffic>> {
        self.0.lock().clone()
    }

    /// The end that counts.
    pub(crate) fn counted(&self) -> Counted {
        Counted { written: self.clone(), last: None }
    }

    /// The place of a topic; `None` if there are too many already.
    fn of(&self, topic: &Arc<str>) -> Option<Arc<Traffic>> {
        let mut topics = self.0.lock();
        if let Some(known) = topics.iter().find(|known| known.topic == *topic) {
            return Some(known.clone());
        }
        let new =
            Traffic { topic: topic.clone(), records: AtomicU64::new(0), bytes: AtomicU64::new(0) };
        (topics.len() < TOPICS_MAX).then(|| {
            topics.push(Arc::new(new));
            topics[topics.len() - 1].clone()
        })
    }
}

impl Counted {
    /// Counts records that are written to a topic, each of so many bytes.
    pub(crate) fn count(&mut self, topic: &Arc<str>, records: u64, each: u64) {
        let is_same = |last: &Arc<Traffic>| Arc::ptr_eq(&last.topic, topic) || last.topic == *topic;
        if !self.last.as_ref().is_some_and(is_same) {
            self.last = self.written.of(topic);
        }
        if let Some(traffic) = &self.last {
            // Nobody else counts: no atomic additions are needed.
            let add = |counter: &AtomicU64, more| {
                counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
            };
            add(&traffic.records, records);
            add(&traffic.bytes, records * each);
        }
    }
}

/// The bytes of a record, counted as Kafka Streams counts them for its topic metrics.
pub(crate) fn record_bytes(
    topic: &str,
    key: Option<&Bytes>,
    value: Option<&Bytes>,
    headers: &Headers,
) -> u64 {
    let mut bytes = topic.len() + key.map_or(0, Bytes::len) + value.map_or(0, Bytes::len);
    for header in headers.iter() {
        bytes += header.key.len() + header.value.as_ref().map_or(0, Bytes::len);
    }
    bytes as u64 + TIMESTAMP + OFFSET + PARTITION
}

const TIMESTAMP: u64 = 8;
const OFFSET: u64 = 8;
const PARTITION: u64 = 4;
/// Topics that a sink counts apart: a program that chooses them per record may make up any number.
const TOPICS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_counted_apart_up_to_a_limit() {
        let written = Written::default();
        let mut counted = written.counted();
        for name in ["a", "b", "a"] {
            counted.count(&Arc::from(name), 2, 10);
        }
        let shown: Vec<_> = written
            .topics()
            .iter()
            .map(|topic| (topic.topic.to_string(), topic.records(), topic.bytes()))
            .collect();
        assert_eq!(shown, [("a".to_owned(), 4, 40), ("b".to_owned(), 2, 20)]);
        for number in 0..2_000 {
            counted.count(&Arc::from(format!("t-{number}")), 1, 1);
        }
        assert_eq!(written.topics().len(), TOPICS_MAX);
    }

    #[test]
    fn a_record_has_its_parts_and_twenty_bytes() {
        let mut headers = Headers::default();
        headers.add("h", "xy");
        let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        assert_eq!(record_bytes("in", Some(&key), Some(&value), &headers), 2 + 3 + 5 + 3 + 20);
        assert_eq!(record_bytes("in", None, None, &Headers::default()), 22);
    }
}

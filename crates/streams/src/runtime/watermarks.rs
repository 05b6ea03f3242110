//! Event time told through repartition topics: Flink's watermarks.
//!
//! A task that writes a repartition topic tells all its partitions how far event time has come for it: nothing older
//! will follow. A task that reads the topic is as far as the least of those that write it, instead of as far as its
//! newest record.
//!
//! ```text
//! record: no key, no value, the time as timestamp, and the header "fleuve.watermark":
//!         | 1: u8 | the writer's subtopology: u32 | its partition: i32 | event time: i64 |
//! ```
//!
//! Such a record is in order behind what the task has written to the partition before, and part of the same
//! transaction. Who is told twice, by a task that was done again, knows already.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::queues::UNKNOWN_TIME;
use super::timed::Station;
use super::{Globals, Outgoing, OutgoingTopic, RawRecord, Task, TaskId};
use crate::error::ProcessingError;
use crate::record::Headers;
use crate::topology::{Kind, Plan, SinkTopic};

/// The header that makes a record a watermark.
const HEADER: &str = "fleuve.watermark";
const VERSION: u8 = 1;
/// Between two watermarks of a task that does not commit, by the time of day.
const INTERVAL_MS: i64 = 200;

/// What a task knows of event time elsewhere, and what it has told.
pub(super) struct Watermarks {
    /// After so long without news from a writer, or from a topic of others, its time no longer counts.
    idle_ms: i64,
    /// The repartition topics that the task writes.
    written: Vec<Arc<str>>,
    told_ms: i64,
    told_at_ms: i64,
    /// The writers of the repartition topics that it reads, except those that it feeds itself.
    writers: BTreeMap<Arc<str>, BTreeMap<TaskId, Known>>,
    /// Its other topics.
    others: BTreeMap<Arc<str>, Known>,
}

/// What is known of one who moves time.
#[derive(Clone, Copy, Debug)]
struct Known {
    time_ms: i64,
    /// When that was news, by the time of day.
    news_ms: i64,
    is_idle: bool,
}

impl Known {
    const NOTHING: Self = Self { time_ms: UNKNOWN_TIME, news_ms: 0, is_idle: false };

    fn hear(&mut self, time_ms: i64, now_ms: i64) {
        *self = Self { time_ms: self.time_ms.max(time_ms), news_ms: now_ms, is_idle: false };
    }

    /// Looks whether there has been no news for long, all that there is having been read.
    fn look(&mut self, idle_ms: i64, now_ms: i64, is_drained: bool) {
        if !is_drained {
            self.news_ms = self.news_ms.max(now_ms);
        }
        self.is_idle |= now_ms.saturating_sub(self.news_ms) >= idle_ms;
    }
}

impl Watermarks {
    /// What the tasks of a subtopology have to do with watermarks, if the program wants them.
    pub(super) fn of(plan: &Plan, subtopology: u32, globals: &Globals) -> Option<Self> {
        let idle_ms = plan.time.watermark_idle_ms?;
        let part = &plan.subtopologies()[subtopology as usize];
        let written = part.nodes.iter().filter_map(|id| match &plan.nodes[*id].kind {
            Kind::Sink(SinkTopic::Fixed(topic)) if plan.repartitions.contains_key(topic) => {
                Some(Arc::from(plan.decorated(topic)))
            }
            _ => None,
        });
        let mut written: Vec<Arc<str>> = written.collect();
        written.sort();
        written.dedup();
        let tasks_of = |id: u32| {
            let topics = &plan.subtopologies()[id as usize].source_topics;
            let count = topics.iter().filter_map(|topic| globals.partitions(topic)).max();
            (0..count.unwrap_or(0)).map(move |partition| TaskId { subtopology: id, partition })
        };
        let (mut writers, mut others) = (BTreeMap::new(), BTreeMap::new());
        for topic in &part.source_topics {
            let name: Arc<str> = Arc::from(topic.as_str());
            if !part.repartition_topics.iter().any(|own| own.name == *topic) {
                others.insert(name, Known::NOTHING);
                continue;
            }
            let known: BTreeMap<TaskId, Known> = plan
                .feeders(part, topic)
                .into_iter()
                .flat_map(tasks_of)
                .map(|id| (id, Known::NOTHING))
                .collect();
            if !known.is_empty() {
                writers.insert(name, known);
            }
        }
        let (told_ms, told_at_ms) = (UNKNOWN_TIME, i64::MIN);
        Some(Self { idle_ms, written, told_ms, told_at_ms, writers, others })
    }

    /// Goes on with those that others have in `fresh`, which knows nothing yet.
    pub(super) fn adopt(&mut self, fresh: Self, now_ms: i64) {
        let mut before = std::mem::replace(self, fresh);
        self.begin(now_ms);
        (self.told_ms, self.told_at_ms) = (before.told_ms, before.told_at_ms);
        for (topic, known) in &mut self.others {
            if let Some(heard) = before.others.remove(topic) {
                *known = heard;
            }
        }
        for (topic, writers) in &mut self.writers {
            for (id, known) in writers {
                if let Some(heard) =
                    before.writers.get_mut(topic).and_then(|writers| writers.remove(id))
                {
                    *known = heard;
                }
            }
        }
    }

    /// Begins to wait for news.
    pub(super) fn begin(&mut self, now_ms: i64) {
        let writers = self.writers.values_mut().flat_map(BTreeMap::values_mut);
        writers.chain(self.others.values_mut()).for_each(|known| known.news_ms = now_ms);
    }

    /// Goes on at the time to which the tasks before this one had read a topic that tells no time.
    pub(super) fn begin_at(&mut self, topic: &str, time_ms: i64) {
        if let Some(known) = self.others.get_mut(topic) {
            known.time_ms = known.time_ms.max(time_ms);
        }
    }

    /// Whether the task's time is that of others.
    pub(super) fn decides(&self) -> bool {
        !self.writers.is_empty()
    }

    /// Notes a record of a topic that tells no time.
    pub(super) fn note(&mut self, topic: &Arc<str>, timestamp: i64, now_ms: i64) {
        if let Some(known) = self.others.get_mut(topic) {
            known.hear(timestamp, now_ms);
        }
    }

    fn hear(&mut self, record: &RawRecord, now_ms: i64) {
        let told = record.headers.last(HEADER).and_then(|bytes| read(bytes));
        if let Some((writer, time_ms)) = told
            && let Some(writers) = self.writers.get_mut(&record.topic)
            && let Some(known) = writers.get_mut(&writer)
        {
            known.hear(time_ms, now_ms);
        }
    }

    /// Looks who has been silent for long.
    fn look(&mut self, now_ms: i64, is_drained: impl Fn(&Arc<str>) -> bool) {
        let idle_ms = self.idle_ms;
        for (topic, known) in &mut self.others {
            known.look(idle_ms, now_ms, is_drained(topic));
        }
        for (topic, writers) in &mut self.writers {
            let is_drained = is_drained(topic);
            writers.values_mut().for_each(|known| known.look(idle_ms, now_ms, is_drained));
        }
    }

    /// How far all have come that are not silent; if all are, nobody is waited for any more.
    fn time_ms(&self) -> i64 {
        let all = || {
            let writers = self.writers.values().flat_map(BTreeMap::values);
            writers.chain(self.others.values())
        };
        let active = all().filter(|known| !known.is_idle).map(|known| known.time_ms).min();
        let known = || all().map(|known| known.time_ms).max();
        active.or_else(known).unwrap_or(UNKNOWN_TIME)
    }
}

impl RawRecord {
    /// Whether it tells a time instead of being data.
    pub(super) fn is_watermark(&self) -> bool {
        self.key.is_none()
            && self.value.is_none()
            && !self.headers.is_empty()
            && self.headers.last(HEADER).is_some()
    }
}

impl Task {
    /// Takes in a record that tells a time.
    pub(super) fn hear(&mut self, record: &RawRecord, now_ms: i64) -> Result<(), ProcessingError> {
        if let Some(watermarks) = &mut self.watermarks {
            watermarks.hear(record, now_ms);
        }
        self.follow_watermarks(now_ms).map(|_| ())
    }

    /// Looks who has been silent, and goes on without them. Returns whether time has passed.
    pub(super) fn look_for_silence(
        &mut self,
        now_ms: i64,
        heard_ms: i64,
        is_drained: impl Fn(&Arc<str>) -> bool,
    ) -> Result<bool, ProcessingError> {
        let Some(watermarks) = &mut self.watermarks else {
            return Ok(false);
        };
        let queues = &self.queues;
        watermarks.look(heard_ms, |topic| {
            queues.iter().all(|queue| queue.topic != *topic || queue.len() == 0)
                && is_drained(topic)
        });
        self.follow_watermarks(now_ms)
    }

    /// Lets event time come to where the least of all is, if it is time of others that the task follows.
    pub(super) fn follow_watermarks(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        if !self.cx.follows_watermarks {
            return Ok(false);
        }
        let time_ms = self.watermarks.as_ref().map_or(UNKNOWN_TIME, Watermarks::time_ms);
        if time_ms <= self.cx.stream_time_ms {
            return Ok(false);
        }
        self.advance(time_ms, now_ms)?;
        Ok(true)
    }

    /// Tells the readers of repartition topics how far the task has come, if that is due and nothing older is in its
    /// caches. A commit tells it in any case.
    pub(crate) fn tell_time(&mut self, now_ms: i64) {
        let is_due = self
            .watermarks
            .as_ref()
            .is_some_and(|told| now_ms.saturating_sub(told.told_at_ms) >= INTERVAL_MS);
        if is_due && self.caches_nothing() && self.is_settled() {
            self.tell_watermark(now_ms);
        }
    }

    /// Tells the readers of repartition topics how far the task has come. Everything in caches has been sent.
    pub(super) fn tell_watermark(&mut self, now_ms: i64) {
        let holds_back = self.stations.iter().map(|station| match station {
            Station::Operator(operator) => operator.lock().holds_back_ms(),
            Station::Processor(_) => 0,
        });
        let holds_back = holds_back.fold(0_i64, i64::saturating_add);
        let Some(watermarks) = &mut self.watermarks else {
            return;
        };
        let reached = if watermarks.decides() {
            self.cx.stream_time_ms
        } else {
            watermarks.time_ms().max(self.advancing.reached_ms())
        };
        let time_ms = reached.saturating_sub(holds_back);
        if time_ms <= watermarks.told_ms || time_ms < 0 {
            return;
        }
        (watermarks.told_ms, watermarks.told_at_ms) = (time_ms, now_ms);
        let mut headers = Headers::default();
        headers.add(HEADER, written(self.id, time_ms));
        for topic in &watermarks.written {
            for partition in 0..self.cx.globals.partitions(topic).unwrap_or(0) {
                self.cx.outgoing.push(Outgoing {
                    topic: OutgoingTopic { name: topic.clone(), partition: Some(partition) },
                    key: None,
                    value: None,
                    timestamp: time_ms,
                    headers: headers.clone(),
                    source: None,
                });
            }
        }
    }
}

fn written(writer: TaskId, time_ms: i64) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(writer.subtopology.to_be_bytes());
    bytes.extend(writer.partition.to_be_bytes());
    bytes.extend(time_ms.to_be_bytes());
    bytes
}

fn read(bytes: &[u8]) -> Option<(TaskId, i64)> {
    let (version, rest) = bytes.split_first()?;
    let (subtopology, rest) = rest.split_first_chunk()?;
    let (partition, time_ms) = rest.split_first_chunk()?;
    let writer = TaskId {
        subtopology: u32::from_be_bytes(*subtopology),
        partition: i32::from_be_bytes(*partition),
    };
    (*version == VERSION).then_some((writer, i64::from_be_bytes(time_ms.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let writer = TaskId { subtopology: 3, partition: 7 };
        let bytes = written(writer, 1_700_000_000_000);
        assert_eq!(read(&bytes), Some((writer, 1_700_000_000_000)));
        assert_eq!(bytes.len(), 17);
        for other in [&[][..], &bytes[..16], &[&bytes[..], &[0]].concat(), &[2; 17]] {
            assert_eq!(read(other), None);
        }
    }

    #[test]
    fn silence_begins_when_all_has_been_read() {
        let mut known = Known { news_ms: 100, ..Known::NOTHING };
        known.look(10, 100, true);
        known.look(10, 109, true);
        assert!(!known.is_idle);
        known.look(10, 110, false);
        known.look(10, 119, true);
        assert!(!known.is_idle);
        known.look(10, 120, true);
        assert!(known.is_idle);
        known.hear(5, 121);
        assert!(!known.is_idle && known.time_ms == 5);
    }
}

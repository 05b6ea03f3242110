//! Sinks: records become bytes.

use std::sync::Arc;

use super::guarded::{Attempt, Failure};
use crate::dsl::{Choice, ErrorPolicy, Route, Router};
use crate::error::Cause;
use crate::metrics::{Counted, record_bytes};
use crate::record::{Data, Record};
use crate::runtime::{Cx, Outgoing, OutgoingTopic};
use crate::serde::SerdeOf;

/// Writes records to a topic.
pub(crate) struct Sink<K, V> {
    pub(crate) counted: Counted,
    pub(crate) topic: Target<K, V>,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) spread: Option<Spread<K, V>>,
}

/// Names a record's topic.
pub(crate) type Choose<K, V> = Box<dyn FnMut(&Record<K, V>) -> String + Send>;

/// Which topic.
pub(crate) enum Target<K, V> {
    Fixed(Arc<str>),
    Chosen(Choose<K, V>),
}

/// Chooses partitions.
pub(crate) struct Spread<K, V> {
    pub(crate) router: Router<K, V>,
    /// Whether it has to know how many partitions there are.
    pub(crate) counts: bool,
    /// The number of partitions, once it was asked for.
    pub(crate) partitions: Option<i32>,
}

impl<K: Data, V: Data> Spread<K, V> {
    fn choose(
        &mut self,
        (key, value): (&K, &V),
        outgoing: &Outgoing,
        cx: &Cx,
    ) -> Result<Choice, Failure> {
        let partitions = match self.partitions {
            Some(partitions) => partitions,
            None if self.counts => {
                let unknown = "nobody knows how many partitions the topic has; does it exist?";
                let found = cx.globals.partitions(&outgoing.topic.name);
                *self.partitions.insert(
                    found
                        .filter(|count| *count > 0)
                        .ok_or(Failure::Here(Cause::Rejected(unknown)))?,
                )
            }
            None => 1,
        };
        let key_bytes = outgoing.key.as_deref();
        Ok((self.router)(&Route { key, value, key_bytes, partitions, task: cx.partition }))
    }
}

impl<K: Data, V: Data> Attempt<K, V> for Sink<K, V> {
    fn attempt(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Failure> {
        if record.timestamp < 0 {
            let cause = "a record with a negative timestamp cannot be written";
            return Err(Failure::Here(Cause::Rejected(cause)));
        }
        let topic = match &mut self.topic {
            Target::Fixed(topic) => topic.clone(),
            Target::Chosen(choose) => Arc::from(choose(&record)),
        };
        let Record { key, value, timestamp, mut headers } = record;
        let unwritable = |error| Failure::Here(Cause::Serialize(Arc::new(error)));
        let outgoing = Outgoing {
            key: self.key.to_bytes(&topic, &mut headers, &key).map_err(unwritable)?,
            value: self.value.to_bytes(&topic, &mut headers, &value).map_err(unwritable)?,
            topic: OutgoingTopic { name: topic, partition: None },
            timestamp,
            headers,
            source: (cx.policies.writing != ErrorPolicy::Fail).then(|| Box::new(cx.source())),
        };
        let (topic, key_bytes, value_bytes) =
            (&outgoing.topic.name, outgoing.key.as_ref(), outgoing.value.as_ref());
        let each = record_bytes(topic, key_bytes, value_bytes, &outgoing.headers);
        let Some(spread) = &mut self.spread else {
            self.counted.count(topic, 1, each);
            cx.outgoing.push(outgoing);
            return Ok(());
        };
        let choice = spread.choose((&key, &value), &outgoing, cx)?;
        let copies = match &choice {
            Choice::Usual | Choice::One(_) => 1,
            Choice::All => spread.partitions.map_or(0, |partitions| partitions.max(0) as u64),
            Choice::Several(places) => places.len() as u64,
        };
        self.counted.count(topic, copies, each);
        match choice {
            Choice::Usual => cx.outgoing.push(outgoing),
            Choice::One(partition) => cx.outgoing.push(outgoing.at(partition)),
            Choice::All => {
                let partitions = spread.partitions.unwrap_or(0);
                cx.outgoing.extend((0..partitions).map(|place| outgoing.clone().at(place)));
            }
            Choice::Several(places) => {
                if places.is_empty() {
                    cx.drop_record("no partition chosen");
                }
                cx.outgoing.extend(places.into_iter().map(|place| outgoing.clone().at(place)));
            }
        }
        Ok(())
    }
}

impl Outgoing {
    fn at(mut self, partition: i32) -> Self {
        self.topic.partition = Some(partition);
        self
    }
}

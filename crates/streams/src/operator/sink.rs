//! Sinks: records become bytes.

use std::sync::Arc;

use crate::error::Cause;
use crate::record::{Data, Record};
use crate::runtime::{Cx, Down, Outgoing, OutgoingTopic, Problem};
use crate::serde::{SerdeError, SerdeOf};

/// Writes records to a topic.
pub(crate) struct Sink<K, V> {
    pub(crate) node: Arc<str>,
    pub(crate) topic: Target<K, V>,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
    pub(crate) partitioner: Option<Partitioner<K, V>>,
}

/// Names a record's topic.
pub(crate) type Choose<K, V> = Box<dyn FnMut(&Record<K, V>) -> String + Send>;

/// Which topic.
pub(crate) enum Target<K, V> {
    Fixed(Arc<str>),
    Chosen(Choose<K, V>),
}

/// Chooses partitions from key and value: `None` for the usual choice, several for a multicast, none to drop.
pub(crate) type Partitioner<K, V> = Box<dyn FnMut(&K, &V) -> Option<Vec<i32>> + Send>;

impl<K: Data, V: Data> Sink<K, V> {
    fn outgoing(&mut self, record: Record<K, V>) -> Result<Outgoing, SerdeError> {
        let topic = match &mut self.topic {
            Target::Fixed(topic) => topic.clone(),
            Target::Chosen(choose) => Arc::from(choose(&record)),
        };
        let mut headers = record.headers;
        Ok(Outgoing {
            key: self.key.to_bytes(&topic, &mut headers, &record.key)?,
            value: self.value.to_bytes(&topic, &mut headers, &record.value)?,
            topic: OutgoingTopic { name: topic, partition: None },
            timestamp: record.timestamp,
            headers,
        })
    }
}

impl<K: Data, V: Data> Down<K, V> for Sink<K, V> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        if record.timestamp < 0 {
            let cause = Cause::Rejected("a record with a negative timestamp cannot be written");
            return cx.absorb(Problem::new(&self.node, cause));
        }
        let partitions =
            self.partitioner.as_mut().and_then(|choose| choose(&record.key, &record.value));
        let outgoing = match self.outgoing(record) {
            Ok(outgoing) => outgoing,
            Err(error) => {
                return cx.absorb(Problem::new(&self.node, Cause::Serialize(Arc::new(error))));
            }
        };
        let Some(partitions) = partitions else {
            cx.outgoing.push(outgoing);
            return Ok(());
        };
        if partitions.is_empty() {
            cx.drop_record("no partition chosen");
        }
        for partition in partitions {
            let mut copy = outgoing.clone();
            copy.topic.partition = Some(partition);
            cx.outgoing.push(copy);
        }
        Ok(())
    }
}

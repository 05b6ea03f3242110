//! The topics whose partitions this broker holds, by name and by id.

use std::collections::HashMap;
use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_types::Uuid;
use parking_lot::RwLock;

use crate::metrics::TopicCounters;
use crate::partition::Partition;

/// One topic; replaced as a whole when it gets more partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Str,
    pub(crate) id: Uuid,
    /// Written by the broker alone.
    pub(crate) internal: bool,
    /// By their index.
    pub(crate) partitions: Vec<Arc<Partition>>,
    pub(crate) counters: Arc<TopicCounters>,
}

impl Topic {
    /// The partition of that index.
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    maps: RwLock<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    by_name: HashMap<Str, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl Topics {
    /// The topic of that name.
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        self.maps.read().by_name.get(name).cloned()
    }

    /// The topic of that id.
    pub(crate) fn by_id(&self, id: &Uuid) -> Option<Arc<Topic>> {
        self.maps.read().by_id.get(id).cloned()
    }

    /// Adds a topic, or replaces the one of the same id.
    pub(crate) fn insert(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        let mut maps = self.maps.write();
        maps.by_name.insert(topic.name.clone(), Arc::clone(&topic));
        maps.by_id.insert(topic.id, Arc::clone(&topic));
        topic
    }

    /// Takes a topic out.
    pub(crate) fn remove(&self, id: &Uuid) -> Option<Arc<Topic>> {
        let mut maps = self.maps.write();
        let topic = maps.by_id.remove(id)?;
        // A topic of the same name may have come after it.
        if maps.by_name.get(&topic.name).is_some_and(|named| named.id == *id) {
            maps.by_name.remove(&topic.name);
        }
        Some(topic)
    }

    /// All topics, sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.maps.read().by_id.values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics
    }
}

/// Reports whether only brokers write to the topic of that name.
pub(crate) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

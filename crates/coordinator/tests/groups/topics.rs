//! Topics for tests. The id of a topic is its name, after the number of its incarnation.

use std::collections::BTreeMap;

use fleuve_coordinator::{TopicInfo, TopicView};
use fleuve_protocol::Str;
use fleuve_types::Uuid;

#[derive(Clone, Debug, Default)]
pub(crate) struct Topics {
    version: i64,
    topics: BTreeMap<Str, (Uuid, i32)>,
    incarnations: u8,
}

impl Topics {
    /// Makes a topic, or gives it more partitions.
    pub(crate) fn put(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        if let Some((_, count)) = self.topics.get_mut(name) {
            *count = partitions.max(*count);
            return;
        }
        self.incarnations += 1;
        let mut id = [0; 16];
        id[0] = self.incarnations;
        id[1..=name.len()].copy_from_slice(name.as_bytes());
        self.topics.insert(Str::copy_from(name), (Uuid(id), partitions));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }

    pub(crate) fn id(&self, name: &str) -> Uuid {
        self.topics.get(name).map_or(Uuid::ZERO, |(id, _)| *id)
    }

    /// Every partition of a topic.
    pub(crate) fn partitions(&self, name: &str) -> Vec<(Uuid, i32)> {
        let Some((id, count)) = self.topics.get(name) else { return Vec::new() };
        (0..*count).map(|partition| (*id, partition)).collect()
    }
}

/// The name of a topic, read off its id.
pub(crate) fn name_of(id: Uuid) -> String {
    let name = id.0[1..].iter().take_while(|byte| **byte != 0);
    name.map(|byte| char::from(*byte)).collect()
}

impl TopicView for Topics {
    fn version(&self) -> i64 {
        self.version
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        let (name, (id, partitions)) = self.topics.get_key_value(name)?;
        Some(TopicInfo { name: name.clone(), id: *id, partitions: *partitions })
    }

    fn by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.by_name(&name_of(id)).filter(|topic| topic.id == id)
    }

    fn for_each_name(&self, visit: &mut dyn FnMut(&Str)) {
        self.topics.keys().for_each(visit);
    }

    fn racks(&self, _: Uuid, _: i32) -> Vec<Str> {
        Vec::new()
    }
}

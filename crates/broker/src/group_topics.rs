//! The image's topics as group coordinators look at them.

use std::sync::Arc;

use fleuve_coordinator::{TopicInfo, TopicView};
use fleuve_metadata::image::{Image, Topic};
use fleuve_protocol::Str;
use fleuve_types::Uuid;

/// The topics of one image.
#[derive(Debug)]
pub(crate) struct ImageTopics {
    image: Arc<Image>,
    version: i64,
}

impl ImageTopics {
    /// Shows the topics of `image`, under a version that no other image has.
    pub(crate) fn new(image: Arc<Image>, version: i64) -> Self {
        Self { image, version }
    }
}

impl TopicView for ImageTopics {
    fn version(&self) -> i64 {
        self.version
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        self.image.topics().by_name(name).map(|topic| info(topic))
    }

    fn by_id(&self, id: Uuid) -> Option<TopicInfo> {
        self.image.topics().by_id(id).map(|topic| info(topic))
    }

    fn for_each_name(&self, visit: &mut dyn FnMut(&Str)) {
        for topic in self.image.topics().iter() {
            visit(&topic.name);
        }
    }

    fn racks(&self, id: Uuid, partition: i32) -> Vec<Str> {
        let topic = self.image.topics().by_id(id);
        let replicas = topic.and_then(|topic| topic.partition(partition));
        let brokers = self.image.brokers();
        replicas
            .into_iter()
            .flat_map(|partition| &partition.replicas)
            .filter_map(|replica| brokers.get(replica)?.rack.clone())
            .collect()
    }
}

fn info(topic: &Topic) -> TopicInfo {
    let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
    TopicInfo { name: topic.name.clone(), id: topic.id, partitions }
}

//! The hash that tells whether anything has changed about the topics that a group uses: their ids,
//! their numbers of partitions, and the racks these are in.
//!
//! It is Kafka's, XXH3 over Kafka's bytes, so that groups of a data directory that Kafka wrote do
//! not rebalance when we take them over.

use fleuve_protocol::Str;
use twox_hash::XxHash3_64;

use crate::topics::{TopicInfo, TopicView};

/// Version of the hash, Kafka's first.
const HASH_VERSION: u8 = 0;

/// The hash of those of the topics that exist, zero if none does; the names come in their order.
///
/// Java orders text by UTF-16 code units, which for names of topics is the order of bytes.
pub(crate) fn topics_hash<'a>(names: impl Iterator<Item = &'a Str>, topics: &dyn TopicView) -> i64 {
    let mut bytes = Vec::new();
    for topic in names.filter_map(|name| topics.by_name(name)) {
        bytes.extend_from_slice(&topic_hash(&topic, topics).to_le_bytes());
    }
    if bytes.is_empty() { 0 } else { XxHash3_64::oneshot(&bytes) as i64 }
}

/// ```text
/// version u8 | id, two halves, each u64 | name | partitions i32
/// and for each partition: index i32, and for each rack: length i32 | rack
/// text: UTF-16 code units, u16 each | their number i32        (all little-endian)
/// ```
fn topic_hash(topic: &TopicInfo, topics: &dyn TopicView) -> u64 {
    let mut bytes = vec![HASH_VERSION];
    // The id is big-endian, its halves are hashed as little-endian numbers.
    for half in topic.id.0.chunks_exact(8) {
        bytes.extend(half.iter().rev());
    }
    push_text(&mut bytes, &topic.name);
    bytes.extend_from_slice(&topic.partitions.to_le_bytes());
    for partition in 0..topic.partitions {
        bytes.extend_from_slice(&partition.to_le_bytes());
        let mut racks = topics.racks(topic.id, partition);
        racks.sort_unstable();
        for rack in racks {
            let units = rack.encode_utf16().count() as i32;
            bytes.extend_from_slice(&units.to_le_bytes());
            push_text(&mut bytes, &rack);
        }
    }
    XxHash3_64::oneshot(&bytes)
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let mut units = 0i32;
    for unit in text.encode_utf16() {
        bytes.extend_from_slice(&unit.to_le_bytes());
        units += 1;
    }
    bytes.extend_from_slice(&units.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use fleuve_types::Uuid;

    use super::*;

    #[derive(Debug)]
    struct OneTopic;

    impl TopicView for OneTopic {
        fn version(&self) -> i64 {
            0
        }

        fn by_name(&self, name: &str) -> Option<TopicInfo> {
            (name == "foo").then(|| {
                let id = Uuid([1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21, 22, 23, 24]);
                TopicInfo { name: "foo".into(), id, partitions: 2 }
            })
        }

        fn by_id(&self, _: Uuid) -> Option<TopicInfo> {
            None
        }

        fn for_each_name(&self, visit: &mut dyn FnMut(&Str)) {
            visit(&"foo".into());
        }

        fn racks(&self, _: Uuid, partition: i32) -> Vec<Str> {
            if partition == 0 { vec!["rack1".into()] } else { Vec::new() }
        }
    }

    #[test]
    fn hashes_are_kafkas() {
        // Computed by hash4j's xxh3_64, in the order in which Kafka feeds it.
        let topic = OneTopic.by_name("foo").expect("the topic exists");
        assert_eq!(topic_hash(&topic, &OneTopic) as i64, -7_173_001_757_571_331_298);
        let mut text = Vec::new();
        push_text(&mut text, "foo");
        assert_eq!(XxHash3_64::oneshot(&text) as i64, 7_324_479_985_248_136_222);
        assert_eq!(topics_hash([].into_iter(), &OneTopic), 0);
        let gone = Str::from_static("bar");
        assert_eq!(topics_hash([&gone].into_iter(), &OneTopic), 0);
    }
}

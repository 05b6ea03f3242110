//! Publishing an image after every change must not cost more the more topics there are.
//!
//! What counts is what a publication copies, so memory is counted instead of time.

#[path = "../../protocol/tests/counting/mod.rs"]
mod counting;

use std::sync::Arc;

use counting::{Counting, usage_of};
use fleuve_metadata::image::Image;
use fleuve_protocol::Str;
use fleuve_protocol::messages::partition_record::PartitionRecord;
use fleuve_protocol::messages::topic_record::TopicRecord;
use fleuve_types::Uuid;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn create_topic(image: &mut Image, number: u32) {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let topic_id = Uuid(id);
    let topic = TopicRecord { name: Str::from(format!("topic.{number}")), topic_id };
    image.apply(&topic.into()).expect("fits");
    let partition = PartitionRecord { partition_id: 0, topic_id, ..PartitionRecord::default() };
    image.apply(&partition.into()).expect("fits");
}

/// Creates `count` topics, each with a publication, and returns what the last one allocated.
fn last_publication(count: u32) -> counting::Usage {
    let mut image = Image::new("cluster".into());
    let mut published = Arc::new(image.clone());
    for number in 1..count {
        create_topic(&mut image, number);
        published = Arc::new(image.clone());
    }
    let (after, usage) = usage_of(|| {
        create_topic(&mut image, count);
        Arc::new(image.clone())
    });
    assert_eq!(published.topics().len() + 1, after.topics().len(), "both images live");
    usage
}

#[test]
fn a_publication_among_thousands_of_topics_copies_no_more_than_among_few() {
    let (few, many) = (last_publication(500), last_publication(4_000));
    // Eight times the topics deepen the trees by a level or two; copying all would cost eightfold.
    assert!(many.peak < 3 * few.peak, "{few:?} for 500, {many:?} for 4,000");
    assert!(many.allocations < 3 * few.allocations, "{few:?} for 500, {many:?} for 4,000");
}

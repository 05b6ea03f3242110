//! The cluster's topics, as far as groups look at them.
//!
//! The members of a consumer group say which topics they want; which partitions those have is the
//! cluster's business. The driver hands a new view in whenever topics have changed, see
//! [`crate::GroupCoordinator::handle_topics_changed`].

use std::fmt;

use fleuve_protocol::Str;
use fleuve_types::Uuid;

/// What a group needs to know of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: Str,
    /// Its id.
    pub id: Uuid,
    /// Its partitions are numbered from zero up to this.
    pub partitions: i32,
}

/// The topics at one moment; it never changes.
pub trait TopicView: fmt::Debug + Send + Sync {
    /// Grows with every change of the metadata.
    fn version(&self) -> i64;

    /// The topic of that name.
    fn by_name(&self, name: &str) -> Option<TopicInfo>;

    /// The topic of that id.
    fn by_id(&self, id: Uuid) -> Option<TopicInfo>;

    /// Shows the name of every topic, in a stable order.
    fn for_each_name(&self, visit: &mut dyn FnMut(&Str));

    /// The racks of the brokers that keep copies of the partition; unsorted, and only those that
    /// are known.
    fn racks(&self, id: Uuid, partition: i32) -> Vec<Str>;
}

/// A view without any topics, for a shard that was not shown one yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTopics;

impl TopicView for NoTopics {
    fn version(&self) -> i64 {
        -1
    }

    fn by_name(&self, _: &str) -> Option<TopicInfo> {
        None
    }

    fn by_id(&self, _: Uuid) -> Option<TopicInfo> {
        None
    }

    fn for_each_name(&self, _: &mut dyn FnMut(&Str)) {}

    fn racks(&self, _: Uuid, _: i32) -> Vec<Str> {
        Vec::new()
    }
}

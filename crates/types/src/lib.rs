//! Vocabulary shared by every room: ids, offsets, epochs.
//!
//! These types carry no behaviour beyond what their meaning demands. They exist so that an offset
//! cannot be passed where a byte position is meant, and so that a topic id prints the way Kafka
//! prints it.

mod ids;
mod numbers;
mod uuid;

pub use ids::TopicPartition;
pub use numbers::{LeaderEpoch, NodeId, Offset, ProducerEpoch, ProducerId, TimestampMs};
pub use uuid::{ParseUuidError, Uuid};

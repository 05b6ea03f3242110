//! The streams group protocol of KIP-1071: applications of Kafka Streams say what they are made of,
//! and the coordinator creates their internal topics and hands out their tasks.
//!
//! It works like the consumer protocol, see [`crate::consumer`]: a group has an epoch that rises
//! with every change; a target assignment was made for some epoch; members are on their way to it.
//! What differs:
//!
//! | consumer groups | streams groups |
//! |---|---|
//! | members subscribe to topics | all members run one topology, stored with the group |
//! | partitions | tasks: a subtopology and a partition, active or as a copy |
//! | a partition has one owner | so has an active task; and a process has a task only once |
//! | topics are what they are | repartition and changelog topics are made to fit |
//!
//! As in Kafka 4.3, static members, tasks that warm up, positions in changelogs, subscriptions by
//! regular expression and changes of the topology are refused, although the formats know them.

mod api;
mod assignor;
mod commit;
mod companion;
mod configure;
mod describe;
mod endpoints;
mod group;
mod heartbeat;
mod leave;
mod member;
mod reconcile;
mod record;
mod sender;
mod tasks;
mod topology;
mod write;

#[cfg(test)]
mod tests;

pub use api::{
    EndpointPartitions, StreamsDescription, StreamsHeartbeatReply, StreamsHeartbeatRequest,
    StreamsMemberDescription, SubtopologyDescription, TopologyDescription,
};
pub use configure::{InternalTopic, StreamsStatus, StreamsStatusKind};
pub use group::StreamsState;
pub use record::StreamsRecord;
pub use tasks::{Roles, TaskList};

pub(crate) use commit::StreamsCommitRule;
pub(crate) use companion::StreamsCompanion;
pub(crate) use configure::Configured;
pub(crate) use group::{PROTOCOL_TYPE, StreamsGroup};
pub(crate) use write::group_tombstones;

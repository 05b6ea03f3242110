//! The consumer group protocol of KIP-848: members say what they want and what they have, and the
//! coordinator assigns.
//!
//! A group has an epoch that rises with every change of members, subscriptions or topics; a target
//! assignment that was made for some epoch; and members, each with an epoch of its own, on their
//! way to the target. Nobody waits for anybody: each heartbeat takes its sender one step further.
//!
//! | what | raised by | reaches |
//! |---|---|---|
//! | group epoch | join, leave, expiry, new subscription, change of topics | |
//! | target's epoch | the next heartbeat after that | the group's epoch |
//! | member's epoch | heartbeats, once nothing is left to give up | the target's epoch |
//!
//! All of that is in the log, and a restarted broker goes on where it stopped. What is not here:
//! the migration of groups between this protocol and the classic one while they have members. As
//! in Kafka with `group.consumer.migration.policy=disabled`, a group changes its protocol only
//! when it is empty.

mod api;
mod assignor;
mod commit;
mod describe;
mod group;
mod heartbeat;
mod leave;
mod member;
mod reconcile;
mod record;
mod sender;
mod subscription;
mod write;

pub use api::{
    ConsumerDescription, ConsumerHeartbeatReply, ConsumerHeartbeatRequest,
    ConsumerMemberDescription, TopicPartitions,
};
pub use assignor::Assignor;
pub use group::ConsumerState;
pub use record::ConsumerRecord;

pub(crate) use commit::CommitRule;
pub(crate) use group::{ConsumerGroup, PROTOCOL_TYPE};
pub(crate) use write::group_tombstones;

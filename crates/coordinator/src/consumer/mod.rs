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
//! All of that is in the log, and a restarted broker goes on where it stopped.
//!
//! Members of the classic protocol may be in the group, too, see [`classic`] and the crate's
//! `migration.rs`: what they join is the group's epoch, what they sync is what they have, and
//! their heartbeats tell them to join again whenever there is a step to take.

mod api;
mod assignor;
mod classic;
mod commit;
mod decide;
mod describe;
mod from_classic;
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
    ConsumerMemberDescription, TopicPartitions, VisibleTopics,
};
pub use assignor::Assignor;
pub use group::ConsumerState;
pub use record::ConsumerRecord;
pub use subscription::check_pattern;

pub(crate) use classic::Joining;
pub(crate) use commit::CommitRule;
pub(crate) use from_classic::Upgraded;
pub(crate) use group::{ConsumerGroup, PROTOCOL_TYPE};
pub(crate) use member::Member;
pub(crate) use write::{all_tombstones, group_tombstones};

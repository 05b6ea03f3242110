//! The share group protocol of KIP-932: members share partitions, and the coordinator says who reads
//! which.
//!
//! A group has an epoch that rises with every change of members, subscriptions or topics; a target
//! assignment; and members, which get what the target says with their next heartbeat, since nobody
//! has to give anything up before. Beside that the log has which share-partitions have a state in
//! `__share_group_state`: only those are assigned.
//!
//! | a share-partition | by |
//! |---|---|
//! | (none) → initializing | a heartbeat of a member subscribed to its topic |
//! | initializing → initialized | the driver, which has begun its state ([`crate::Effect::InitializeShares`]) |
//! | initialized → deleting | DeleteShareGroupOffsets |
//! | deleting → (none) | the driver, which has deleted its state |
//! | any → (none) | the topic's or the group's deletion |
//!
//! What members do with records is not here: see [`crate::share_partition`] and
//! [`crate::share_state`].

mod api;
mod assignor;
mod describe;
mod group;
mod heartbeat;
mod leave;
mod offsets;
mod record;
mod write;

pub use api::{
    ShareAlteration, ShareAlterationTopic, ShareDescription, ShareGroupPartition,
    ShareHeartbeatReply, ShareHeartbeatRequest, ShareMemberDescription, ShareOffsetsDeletion,
};
pub use group::ShareGroupState;
pub use heartbeat::is_member_id;
pub use record::ShareRecord;

pub(crate) use group::{PROTOCOL_TYPE, ShareGroup};
pub(crate) use write::group_tombstones;

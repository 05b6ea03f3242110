//! What the group protocols since KIP-848 share: epochs instead of generations, members on their way
//! to a target assignment, a soft companion beside what the log says, and the shape of their records.

mod companion;
mod progress;
mod record;
mod topics_hash;

pub(crate) use companion::{Aftermath, Companion, FENCE_RETRY_MS, LookedAt, rebalance};
pub(crate) use progress::{
    FIRST_EPOCH, JOINING, LEAVING, LEFT_FOR_A_WHILE, MemberState, NO_TARGET,
};
pub(crate) use record::{encode_value, group_records};
pub(crate) use topics_hash::topics_hash;

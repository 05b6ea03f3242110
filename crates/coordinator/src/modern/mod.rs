//! What the group protocols since KIP-848 share: epochs instead of generations, members on their way
//! to a target assignment, and a soft companion beside what the log says.

mod companion;
mod progress;
mod topics_hash;

pub(crate) use companion::{Aftermath, Companion, FENCE_RETRY_MS, LookedAt, rebalance};
pub(crate) use progress::{JOINING, LEAVING, LEFT_FOR_A_WHILE, MemberState, NO_TARGET};
pub(crate) use topics_hash::topics_hash;

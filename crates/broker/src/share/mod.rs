//! Drives share groups beside their membership: what members have in flight, and where that is kept.
//!
//! A share-partition is alive (`live`) from the first fetch of its group on. Its machine decides, a
//! record goes to `__share_group_state` (`states`), and the machine takes it in. Sessions
//! (`sessions`) say which share-partitions a member asks for; when one ends, by itself or with its
//! connection, what the member had is given back. The membership of groups is in `groups`, whose
//! machines send errands (`errands`) here.

mod cut;
mod errands;
mod live;
mod sessions;
mod states;
mod terms;

pub(crate) use cut::Cut;
pub(crate) use errands::{keep_time, run_errands};
pub(crate) use live::{Acquisition, Live, LiveError, Shares};
pub(crate) use sessions::{Session, SessionError};
pub(crate) use states::{STATE_TOPIC, ShareStates, StateError, StateShard, Stored};
pub(crate) use terms::ShareTerms;

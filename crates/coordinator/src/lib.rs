//! Group coordination as a pure machine: no sockets, no storage, no clock, no threads.
//!
//! A [`GroupCoordinator`] is the shard for one partition of `__consumer_offsets`: the classic, the
//! consumer and the streams group protocol and committed offsets, as Apache Kafka 4.3 behaves. What it must never know: how
//! requests arrive, how records are stored, what time it is.
//!
//! Transactions have a machine of their own, one for each partition of `__transaction_state`: see
//! [`transaction`]. It works alike.
//!
//! # Decide, append, apply
//!
//! ```text
//!  request, tick                                     log
//!      │                                              ▲ │
//!      ▼             Step                             │ │ base offset, or error
//!   handle_* ─────▶ effects: replies ──▶ clients      │ ▼
//!      ▲            writes: records ────────────▶ handle_appended ──▶ apply ──▶ Ledger
//!      │                                          handle_append_failed
//!      └── next_deadline                               │
//!                                                      ▼
//!                                                     Step: replies that had to wait, ...
//! ```
//!
//! 1. A handler looks at the state and returns a [`Step`]: replies that can be given, and writes.
//! 2. The driver appends each [`Write`] to the log, in order, and hands it back at once with its
//!    base offset or with what went wrong. Nothing else may be handled in between; the machine
//!    would survive that, but its decisions would rest on what is about to change.
//! 3. The machine applies the records and goes on with what waited for them, in another step.
//!
//! A reply may say that it rests on records up to some offset. It must not leave before the high
//! watermark of the log has reached that offset. So appending may be quick and need not wait for
//! the disk; only replies do. If records that were appended turn out to be lost, the driver calls
//! [`GroupCoordinator::handle_unload`], answers the replies it still holds with `NOT_COORDINATOR`,
//! and loads a new shard from the log.
//!
//! A request that has to wait, such as a join during a rebalance, is known by its [`Token`]. Every
//! token is answered exactly once: when the group gets there, when its member is removed or
//! replaced, when it asks again, or when the shard is unloaded.
//!
//! ```
//! # use std::sync::Arc;
//! # use fleuve_coordinator::{GroupCoordinator, GroupSettings, ListFilter, Now};
//! # use fleuve_os::{OsRandom, SystemClock};
//! let clock = SystemClock::new();
//! let mut shard = GroupCoordinator::new(GroupSettings::default(), Arc::new(OsRandom));
//! // ... replay() every record of the partition ...
//! let step = shard.handle_loaded(Now::read(&clock));
//! assert!(step.effects.is_empty() && step.writes.is_empty());
//! assert!(shard.list_groups(&ListFilter::default())?.is_empty());
//! # Ok::<(), fleuve_coordinator::GroupError>(())
//! ```
//!
//! # What is persistent, and what is soft
//!
//! The [`Ledger`] is a function of the log: the last record of every classic group, the whole of
//! every consumer and streams group, and all offsets. Only [`GroupCoordinator::apply`] changes it,
//! the same way live and at the start.
//!
//! All else is soft, as in Kafka's classic groups, and comes back different after a restart:
//!
//! | soft | after a restart |
//! |---|---|
//! | rebalance under way, members in it, waiting requests | the generation before it, stable |
//! | members that joined since the last assignment | unknown; they join again |
//! | assignors that a member supports beside the chosen one | unknown until it rejoins |
//! | sessions | begin anew |
//! | history of rebalances, counters | empty |
//!
//! # Transitions of a classic group
//!
//! | from | event | to | record |
//! |---|---|---|---|
//! | (none) | first join, or first member id given out | Empty | group without members |
//! | (none) | offset committed without a group | Empty | offset |
//! | Empty | member joins | PreparingRebalance, for the initial delay | |
//! | PreparingRebalance | all joined or time is up | CompletingRebalance | |
//! | PreparingRebalance | time is up, only absent static members | PreparingRebalance | |
//! | PreparingRebalance | nobody is left | Empty | group without members |
//! | CompletingRebalance | leader's assignment is appended | Stable | group with members |
//! | CompletingRebalance | assignment cannot be appended | PreparingRebalance | |
//! | CompletingRebalance, Stable | member joins, changes, leaves, expires, fails to sync | PreparingRebalance | |
//! | Stable | static member returns, same assignor | Stable | group with members |
//! | Empty | last offset expires, or DeleteGroups | (none) | tombstones |
//! | any | shard is unloaded | Dead | |
//!
//! A group of consumers changes its protocol while it has members: see `migration.rs`.
//!
//! # Room for what comes next
//!
//! Another protocol would become a module beside [`classic`], [`consumer`], [`share`] and [`streams`], a
//! variant of the coordinator's group enum and of [`Record`], and a further section of the ledger; they share
//! [`offsets`], timers, steps and the driver. Offsets of transactions are a second section of
//! the ledger that a commit marker moves into the first.

pub mod classic;
pub mod consumer;
pub mod lag;
pub mod offsets;
pub mod share;
pub mod share_partition;
pub mod share_state;
pub mod streams;
pub mod transaction;

mod admin;
mod configs;
mod context;
mod coordinator;
mod error;
mod history;
mod ledger;
mod migration;
mod modern;
mod overview;
mod record;
mod settings;
mod step;
mod timers;
mod topics;

pub use admin::{
    CLASSIC_GROUP_TYPE, CONSUMER_GROUP_TYPE, Description, GroupState, ListFilter, Listing,
    MemberDescription, SHARE_GROUP_TYPE, STREAMS_GROUP_TYPE,
};
pub use classic::State;
pub use configs::{GroupConfig, GroupConfigs, StreamsConfig, Timing};
pub use coordinator::{Counters, GroupCoordinator};
pub use error::{AppendError, GroupError};
pub use history::{HISTORY_LENGTH, Rebalance, RebalanceCause};
pub use ledger::{CommittedOffset, Ledger};
pub use overview::Overview;
pub use record::{Record, RecordError};
pub use settings::{
    ConsumerSettings, GroupSettings, MigrationPolicy, ShareSettings, StreamsSettings,
};
pub use step::{Effect, Now, Response, Step, Token, Write};
pub use topics::{NoTopics, TopicInfo, TopicView};

//! Transactions (KIP-98, KIP-890) as a pure machine for one partition of `__transaction_state`.
//!
//! A [`TransactionCoordinator`] knows who may use each transactional id, which partitions belong
//! to the open transaction, and how far its end has got, as Apache Kafka 4.3 behaves. What it must
//! never know: how requests arrive, how records and markers are stored, what time it is.
//!
//! It works like the group machine of this crate: decide → append → apply. A handler returns a
//! [`Step`] of effects and writes; the driver appends each [`Write`] and hands it back with its
//! fate; only then is the state changed.
//!
//! ```
//! # use std::sync::Arc;
//! # use fleuve_coordinator::Now;
//! # use fleuve_coordinator::transaction::*;
//! # use fleuve_os::SystemClock;
//! # use fleuve_types::ProducerId;
//! # #[derive(Debug)] struct Ids;
//! # impl ProducerIds for Ids { fn next(&self) -> Option<ProducerId> { Some(ProducerId(1)) } }
//! let settings = TransactionSettings::default();
//! let mut shard = TransactionCoordinator::new(settings, Arc::new(Ids), 0);
//! // ... replay() every record of the partition ...
//! let step = shard.handle_loaded(Now::read(&SystemClock::new()));
//! assert!(step.effects.is_empty() && step.writes.is_empty());
//! ```
//!
//! # Transitions of a transactional id
//!
//! | from | event | to |
//! |---|---|---|
//! | (none) | InitProducerId | Empty, new producer id, epoch 0 |
//! | Empty, CompleteCommit, CompleteAbort | InitProducerId | Empty, next epoch, or a new producer id when the epochs are used up |
//! | Empty, CompleteCommit, CompleteAbort | partitions added | Ongoing |
//! | Ongoing | partitions added | Ongoing |
//! | Ongoing | EndTxn | PrepareCommit or PrepareAbort; in version 2 with the next epoch |
//! | Ongoing | InitProducerId, timeout | PrepareAbort with the next epoch, which shuts the producer out |
//! | Empty, CompleteCommit, CompleteAbort | EndTxn to abort, version 2 | PrepareAbort with the next epoch |
//! | PrepareCommit | every partition has its marker | CompleteCommit |
//! | PrepareAbort | every partition has its marker | CompleteAbort |
//! | Prepare*, epochs used up, version 2 | every partition has its marker | Complete*, next producer id, epoch 0 |
//! | Empty, CompleteCommit, CompleteAbort | unused for `transactional.id.expiration.ms` | (none), by way of Dead |
//!
//! While a transition is being stored, and from a decision until it is complete, the id is
//! *pending* and other changes are refused with `CONCURRENT_TRANSACTIONS`; only additions of
//! partitions wait for a while, so that the next transaction begins as soon as it can rather than
//! when the client comes back. Every [`crate::Token`] is answered exactly once. `PrepareEpochFence` is
//! where Kafka lets an id stand between shutting out a producer and deciding to abort; here the
//! two are one, and the state has nothing but a name, for those who filter by it.
//!
//! # What is persistent, and what is soft
//!
//! The [`Ledger`] is a function of the log. Soft, and lost in a restart: that a transition is
//! pending; which markers have been written (all are written again, the same ones); the epoch
//! before the last one, by which a repeated InitProducerId is recognised (Kafka forgets it, too);
//! and how long a transaction has been open by the monotonic clock (then its start is taken from
//! the log, so that a clock set back or forth never gives it more than its timeout).
//!
//! # What a driver must do
//!
//! - **Place.** A transactional id belongs to the partition of `__transaction_state` that its
//!   hash names, as a group's does of `__consumer_offsets`. One machine per partition, made with
//!   the leader epoch under which the partition is led.
//! - **Load.** [`TransactionCoordinator::replay`] for each record, then
//!   [`TransactionCoordinator::handle_loaded`]; its step carries the markers of all transactions
//!   that were decided but not completed. Until then requests get
//!   `COORDINATOR_LOAD_IN_PROGRESS`.
//! - **Effects.** An effect with an `after` is held until the high watermark of the partition has
//!   reached that offset. *This holds for markers as well:* a decision that a crash takes back
//!   must not have left the house.
//! - **Writes.** Append in order, uncompressed, each as one batch, and hand each back with
//!   [`TransactionCoordinator::handle_appended`] or
//!   [`TransactionCoordinator::handle_append_failed`], in order. Doing so right after the append,
//!   before it is durable, is what makes transactions quick; other calls in between are legal and
//!   find the id pending.
//! - **Markers.** Append one control batch per partition (producer id and epoch of the key,
//!   `EndTxnMarker` with the coordinator's epoch), wait until it is durable, and report each
//!   partition of each effect exactly once with [`TransactionCoordinator::handle_markers`].
//!   Whoever appends to a partition of `__consumer_offsets` tells the group machine, too. The
//!   machine itself tries again what is reported as unavailable.
//! - **Time.** Call [`TransactionCoordinator::tick`] at
//!   [`TransactionCoordinator::next_deadline`].
//! - **Producer ids.** [`ProducerIds`] gives them from a block at hand. If it has run out, the
//!   request fails with `COORDINATOR_LOAD_IN_PROGRESS`, a timed-out transaction waits for the next
//!   check, and the driver sees to a new block.
//! - **Loss.** If appended records are lost before they are durable, or the partition is led
//!   elsewhere or its log has failed ([`crate::AppendError::NotLeader`]): [`TransactionCoordinator::handle_unload`], `NOT_COORDINATOR` for all replies held
//!   back, held markers dropped, and a new machine, if any, loaded from the log.
//!
//! What remains with the handlers:
//!
//! | API | |
//! |---|---|
//! | InitProducerId | no transactional id: an id for idempotence, not from here. Only one of producer id and epoch given: `INVALID_REQUEST` |
//! | AddPartitionsToTxn | before asking: partitions that do not exist, or must not be written, get their error and all others `OPERATION_NOT_ATTEMPTED`. Versions 4 and 5 come from brokers and name several transactions: split them by shard |
//! | AddOffsetsToTxn | [`TransactionCoordinator::handle_add_partitions`] with the partition of `__consumer_offsets` that the group belongs to |
//! | EndTxn | version 5 answers with the new producer, older ones with none |
//! | Produce, TxnOffsetCommit | before a transaction's first append to a partition, its leader asks the coordinator: for clients of version 2 (Produce 12, TxnOffsetCommit 5) to add the partition, for others to verify it. The answer `PRODUCER_FENCED` becomes `INVALID_PRODUCER_EPOCH` |
//! | ListTransactions | one [`ListFilter`] for all shards; any shard that is loading fails the request |
//!
//! Two-phase commit (KIP-939, InitProducerId version 6) is left out, as its API is not stable.

mod admin;
mod coordinator;
mod end;
mod error;
mod expiry;
mod init;
mod ledger;
mod markers;
mod metadata;
mod partitions;
mod record;
mod settings;
mod state;
mod step;
mod waiting;

pub use admin::{Description, InvalidPattern, ListFilter, Listing, Overview};
pub use coordinator::{Counters, ProducerIds, TransactionCoordinator};
pub use end::EndRequest;
pub use error::TransactionError;
pub use init::InitRequest;
pub use ledger::Ledger;
pub use metadata::{Producer, Transaction};
pub use partitions::{AddPartitionsRequest, VerifyPartitionsRequest};
pub use record::{Record, RecordError, Value};
pub use settings::TransactionSettings;
pub use state::{Decision, State, TransactionVersion};
pub use step::{Effect, MarkerKey, MarkerOutcome, Markers, Response, Step, Write};

//! What a log knows of its idempotent and transactional producers.
//!
//! [`entry`] holds the rules of sequences and epochs for one producer, [`state`] all producers of a
//! log with their open transactions, [`snapshot`] the file that saves replaying the whole log,
//! [`verification`] the transactions that are about to begin.

mod entry;
mod snapshot;
mod state;
mod verification;

pub use entry::ProducerView;
pub use verification::{TransactionCheck, VerificationGuard};

pub(crate) use entry::{EpochRule, ProducerBatch, Strictness};
pub(crate) use snapshot::{decode, encode};
pub(crate) use state::{ProducerState, Staged};
pub(crate) use verification::Verifications;

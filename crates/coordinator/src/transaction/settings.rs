//! What an operator may set about transactions, under Kafka's names and with Kafka's defaults.

use super::state::TransactionVersion;

/// Limits and periods of transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionSettings {
    /// `transaction.max.timeout.ms`: producers that ask for longer timeouts are refused.
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`: how long an unused transactional id is kept.
    pub id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`: how often transactions
    /// that are open for too long are looked for.
    pub abort_timed_out_interval_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`: how often unused ids are
    /// looked for.
    pub remove_expired_interval_ms: i64,
    /// `add.partitions.to.txn.retry.backoff.max.ms`: how long the addition of partitions waits for
    /// an earlier change of the transactional id to be over.
    ///
    /// Kafka's partition leaders ask again and again for so long, and only for clients of version
    /// 2. Here the request itself waits, whoever asks; at 0 nobody does.
    pub add_partitions_wait_ms: i64,
    /// Finalized level of the feature `transaction.version`: the layout of records, and the
    /// protocol by which the coordinator itself aborts.
    pub cluster_version: TransactionVersion,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self {
            max_timeout_ms: 15 * 60 * 1_000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1_000,
            abort_timed_out_interval_ms: 10_000,
            remove_expired_interval_ms: 60 * 60 * 1_000,
            add_partitions_wait_ms: 100,
            cluster_version: TransactionVersion::V2,
        }
    }
}

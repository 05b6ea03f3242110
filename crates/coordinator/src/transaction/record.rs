//! The records of `__transaction_state`.
//!
//! ```text
//! key:    type i16 = 0 | TransactionLogKey, version 0
//! value:  version i16  | TransactionLogValue in that version     (null: the id is gone)
//!
//! version 0  while the feature transaction.version is at 0
//! version 1  flexible; adds, as tags, previous and next producer id and the client's version
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_protocol::messages::transaction_log_key::TransactionLogKey;
use fleuve_protocol::messages::transaction_log_value::{PartitionsSchema, TransactionLogValue};
use fleuve_protocol::{DecodeError, EncodeError, Message, Reader, Str, Writer};
use fleuve_types::{ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

use super::metadata::{Producer, Transaction};
use super::state::{State, TransactionVersion};

const TRANSACTION_LOG: i16 = 0;
const KEY_VERSION: i16 = 0;
const LOWEST_VALUE_VERSION: i16 = 0;
const FLEXIBLE_VALUE_VERSION: i16 = 1;

/// One record of `__transaction_state`; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The transactional id.
    pub transactional_id: Str,
    /// What is known of it, or `None` when it is gone.
    pub value: Option<Value>,
}

/// The value of a record, with the version it is laid out in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    version: i16,
    transaction: Transaction,
}

/// Why bytes are not a record that we can apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is of an unknown type; loaders skip it.
    #[error("transaction record type {0} is not known")]
    UnknownType(i16),
    /// The value has a version that newer brokers write; loaders skip it, as Kafka does.
    #[error("transaction record version {0} is not known")]
    UnknownVersion(i16),
    /// The transaction is in a state that is never stored.
    #[error("a transaction cannot be stored in state {0}")]
    UnknownState(i8),
    /// The client spoke a protocol that does not exist yet.
    #[error("transaction version {0} is not known")]
    UnknownClientVersion(i16),
    /// Key or value is damaged.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
}

impl Record {
    /// Makes the record that stores `transaction` in a cluster of the given version.
    ///
    /// What the version has no room for is taken out at once, so that applying the record does
    /// the same before and after it went through the log.
    pub(crate) fn new(
        transactional_id: Str,
        transaction: Transaction,
        cluster: TransactionVersion,
    ) -> Self {
        let version = match cluster {
            TransactionVersion::V0 => LOWEST_VALUE_VERSION,
            TransactionVersion::V1 | TransactionVersion::V2 => FLEXIBLE_VALUE_VERSION,
        };
        let value = Value { version, transaction: transaction.stored_in(cluster) };
        Self { transactional_id, value: Some(value) }
    }

    /// Makes the record that removes a transactional id.
    pub(crate) fn tombstone(transactional_id: Str) -> Self {
        Self { transactional_id, value: None }
    }

    /// What the record says of its transactional id.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.value.as_ref().map(|value| &value.transaction)
    }

    /// Writes key and value as Kafka lays them out.
    pub fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        let mut key = Writer::new();
        key.write_i16(TRANSACTION_LOG);
        TransactionLogKey { transactional_id: self.transactional_id.clone() }
            .encode(&mut key, KEY_VERSION)?;
        let value = match &self.value {
            Some(Value { version, transaction }) => {
                let mut writer = Writer::new();
                writer.write_i16(*version);
                to_message(transaction).encode(&mut writer, *version)?;
                Some(writer.into_bytes())
            }
            None => None,
        };
        Ok((key.into_bytes(), value))
    }

    /// Reads key and value.
    pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Self, RecordError> {
        let mut key = Reader::new(key);
        let kind = key.read_i16("transaction record type")?;
        if kind != TRANSACTION_LOG {
            return Err(RecordError::UnknownType(kind));
        }
        let key = TransactionLogKey::decode(&mut key, KEY_VERSION)?;
        let value = match value {
            None => None,
            Some(bytes) => {
                let mut reader = Reader::new(bytes);
                let version = reader.read_i16("transaction record value version")?;
                if !(LOWEST_VALUE_VERSION..=FLEXIBLE_VALUE_VERSION).contains(&version) {
                    return Err(RecordError::UnknownVersion(version));
                }
                let message = TransactionLogValue::decode(&mut reader, version)?;
                Some(Value { version, transaction: from_message(&message)? })
            }
        };
        // Segments are read in large pieces, which a slice would keep in memory.
        Ok(Self { transactional_id: key.transactional_id.detach(), value })
    }
}

fn to_message(transaction: &Transaction) -> TransactionLogValue {
    // Kafka stores no list at all for an id without a transaction.
    let partitions = (transaction.state != State::Empty).then(|| {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for TopicPartition { topic, partition } in &transaction.partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics = topics.into_iter().map(|(topic, partition_ids)| PartitionsSchema {
            topic: Str::copy_from(topic),
            partition_ids,
        });
        topics.collect()
    });
    TransactionLogValue {
        producer_id: transaction.producer.id.0,
        previous_producer_id: transaction.previous_producer_id.0,
        next_producer_id: transaction.next_producer_id.0,
        producer_epoch: transaction.producer.epoch.0,
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state.id(),
        transaction_partitions: partitions,
        transaction_last_update_timestamp_ms: transaction.last_update_timestamp.0,
        transaction_start_timestamp_ms: transaction.start_timestamp.0,
        client_transaction_version: transaction.client_version.level(),
        ..TransactionLogValue::default()
    }
}

fn from_message(message: &TransactionLogValue) -> Result<Transaction, RecordError> {
    let state = State::from_stored_id(message.transaction_status)
        .ok_or(RecordError::UnknownState(message.transaction_status))?;
    let client_version = TransactionVersion::from_level(message.client_transaction_version)
        .ok_or(RecordError::UnknownClientVersion(message.client_transaction_version))?;
    let mut partitions = BTreeSet::new();
    if state != State::Empty {
        for topic in message.transaction_partitions.iter().flatten() {
            let name: Arc<str> = topic.topic.as_str().into();
            let ids = topic.partition_ids.iter();
            partitions.extend(ids.map(|id| TopicPartition::new(name.clone(), *id)));
        }
    }
    Ok(Transaction {
        producer: Producer {
            id: ProducerId(message.producer_id),
            epoch: ProducerEpoch(message.producer_epoch),
        },
        previous_producer_id: ProducerId(message.previous_producer_id),
        next_producer_id: ProducerId(message.next_producer_id),
        timeout_ms: message.transaction_timeout_ms,
        state,
        partitions,
        start_timestamp: TimestampMs(message.transaction_start_timestamp_ms),
        last_update_timestamp: TimestampMs(message.transaction_last_update_timestamp_ms),
        client_version,
    })
}

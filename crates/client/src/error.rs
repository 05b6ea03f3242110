//! What can go wrong, and what the caller should do about it.
//!
//! Every error names the broker, topic, partition or group concerned and answers one question
//! through [`Error::advice`]: try again, fix the request, or stop.

use std::io;
use std::time::Duration;

use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;

/// The result of a client operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The condition may pass: the same call may succeed later.
    Retry,
    /// The request or the configuration is wrong: change it first.
    Fix,
    /// The transaction cannot be committed: abort it, and begin again.
    Abort,
    /// This client, producer or group membership cannot go on: make a new one.
    Stop,
}

/// A failed client operation.
///
/// It is cheap to clone, because one failed batch answers every record in it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration key or value is not acceptable.
    #[error("{message}")]
    Config {
        /// The key, its value and what is accepted instead.
        message: String,
    },
    /// No broker of the bootstrap list could be reached.
    #[error("no broker at {servers}: {reason}")]
    NoBroker {
        /// The addresses that were tried.
        servers: String,
        /// The failure of the last attempt.
        reason: String,
        /// Whether every attempt was refused, which means that nothing listens there.
        refused: bool,
    },
    /// The connection to a broker failed, or was lost with requests in flight.
    #[error("connection to broker {broker} failed: {reason}")]
    Disconnected {
        /// The broker's address.
        broker: String,
        /// What happened.
        reason: String,
        /// Whether the request may have reached the broker.
        maybe_sent: bool,
    },
    /// A broker did not answer in time.
    #[error("broker {broker} did not answer {operation} within {} ms", after.as_millis())]
    Timeout {
        /// The broker's address.
        broker: String,
        /// The request that was not answered.
        operation: &'static str,
        /// How long the client waited.
        after: Duration,
    },
    /// An operation used up its time, retries included.
    #[error("{operation} did not succeed within {} ms: {last}", after.as_millis())]
    Expired {
        /// What was attempted.
        operation: String,
        /// How long the client tried.
        after: Duration,
        /// The last failure.
        last: String,
    },
    /// A connection could not be authenticated or encrypted.
    #[error("{broker}: {reason}")]
    Authentication {
        /// The broker's address, or the token endpoint's.
        broker: String,
        /// What was wrong.
        reason: String,
        /// Whether another attempt may go better.
        is_retriable: bool,
    },
    /// A broker does not offer the request in any version that we speak.
    #[error("broker {broker} does not support {operation} in a version this client needs")]
    Unsupported {
        /// The broker's address.
        broker: String,
        /// The request.
        operation: &'static str,
    },
    /// A broker sent bytes that are not what the protocol says.
    #[error("broker {broker} sent an invalid {operation} response: {reason}")]
    Protocol {
        /// The broker's address.
        broker: String,
        /// The request it answered.
        operation: &'static str,
        /// What is wrong with the bytes.
        reason: String,
    },
    /// A request could not be encoded for the version that the broker speaks.
    #[error("cannot send {operation}: {reason}")]
    Encode {
        /// The request.
        operation: &'static str,
        /// What the version lacks.
        reason: String,
    },
    /// A broker answered with an error code.
    #[error("{subject}: {} ({})", message.as_deref().unwrap_or_else(|| code.message()), code.name())]
    Broker {
        /// What was asked and of whom: a topic, partition, group or broker.
        subject: String,
        /// The code.
        code: ErrorCode,
        /// The broker's own words, when it sent some.
        message: Option<String>,
    },
    /// A record was not acknowledged in time.
    #[error(
        "a record for {partition} was not acknowledged within {} ms ({}): {last}", after.as_millis(),
        if *maybe_written { "it may have been written" } else { "it was not written" }
    )]
    DeliveryTimeout {
        /// Where the record was to go.
        partition: TopicPartition,
        /// `delivery.timeout.ms`.
        after: Duration,
        /// Whether the record may stand in the log all the same.
        maybe_written: bool,
        /// The last failure.
        last: String,
    },
    /// A record is larger than `max.request.size` or the producer's memory.
    #[error("a record of {size} bytes for {topic} exceeds {limit_name}={limit}")]
    RecordTooLarge {
        /// The record's topic.
        topic: String,
        /// The record's size in a batch of its own.
        size: usize,
        /// The limit.
        limit: usize,
        /// The configuration key of the limit.
        limit_name: &'static str,
    },
    /// A partition that the topic does not have.
    #[error("topic {topic} has {count} partitions, there is no partition {partition}")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// How many partitions there are.
        count: usize,
    },
    /// A position lies outside the log and `auto.offset.reset` is `none`, or there is no position.
    #[error("{partition} has no valid position ({reason}) and auto.offset.reset is none")]
    NoOffset {
        /// The partition without a position.
        partition: TopicPartition,
        /// What is missing.
        reason: String,
    },
    /// Stored records could not be read.
    #[error("{partition} at offset {offset} holds records that cannot be read: {reason}")]
    CorruptRecords {
        /// The partition.
        partition: TopicPartition,
        /// The offset of the batch.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// A key or value could not be turned into bytes or read from them.
    #[error("{subject} cannot be converted: {reason}")]
    Serialization {
        /// The key or value, and of which record.
        subject: String,
        /// What the serializer or deserializer says.
        reason: String,
    },
    /// A transaction can only be aborted now.
    #[error("the transaction must be aborted: {reason}")]
    Abortable {
        /// What spoiled it.
        reason: String,
        /// The broker's code, if a broker said so.
        code: Option<ErrorCode>,
    },
    /// A transactional producer is at its end, mostly because another one with its id took over.
    #[error("the transactional producer cannot go on: {reason}")]
    TransactionFatal {
        /// What ended it.
        reason: String,
        /// The broker's code, if a broker said so.
        code: Option<ErrorCode>,
    },
    /// A call that does not fit the state of the client, for example after close.
    #[error("{message}")]
    State {
        /// What was called and why it cannot be done now.
        message: String,
    },
}

impl Error {
    /// Says whether to retry, to fix the request, or to stop.
    pub fn advice(&self) -> Advice {
        match self {
            Self::NoBroker { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. }
            | Self::Expired { .. }
            | Self::DeliveryTimeout { .. } => Advice::Retry,
            Self::Authentication { is_retriable: true, .. } => Advice::Retry,
            Self::Authentication { .. } => Advice::Fix,
            Self::Broker { code, .. } if code.is_retriable() => Advice::Retry,
            Self::Broker { code, .. } if is_fatal(*code) => Advice::Stop,
            Self::Config { .. }
            | Self::Broker { .. }
            | Self::Unsupported { .. }
            | Self::Encode { .. }
            | Self::RecordTooLarge { .. }
            | Self::NoSuchPartition { .. }
            | Self::NoOffset { .. }
            | Self::Serialization { .. } => Advice::Fix,
            Self::Abortable { .. } => Advice::Abort,
            Self::Protocol { .. }
            | Self::CorruptRecords { .. }
            | Self::TransactionFatal { .. }
            | Self::State { .. } => Advice::Stop,
        }
    }

    /// Returns the broker's error code, if the broker answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            Self::Abortable { code, .. } | Self::TransactionFatal { code, .. } => *code,
            _ => None,
        }
    }

    /// Reports whether a retry may help.
    pub fn is_retriable(&self) -> bool {
        self.advice() == Advice::Retry
    }

    /// Makes an error of a broker's answer about `subject`.
    pub(crate) fn broker(subject: impl Into<String>, code: ErrorCode) -> Self {
        Self::Broker { subject: subject.into(), code, message: None }
    }

    /// Makes an error of a broker's answer about `subject` with the broker's own words.
    pub(crate) fn broker_said(
        subject: impl Into<String>,
        code: ErrorCode,
        message: Option<&str>,
    ) -> Self {
        let message = message.filter(|text| !text.is_empty()).map(str::to_owned);
        Self::Broker { subject: subject.into(), code, message }
    }

    /// Makes an error of an answer that says nothing about `subject`, although it was asked for.
    pub(crate) fn unanswered(subject: impl Into<String>) -> Self {
        let words = "the broker's answer does not speak of it";
        Self::broker_said(subject, ErrorCode::UnknownServerError, Some(words))
    }

    /// Makes a configuration error.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::Config { message: message.into() }
    }

    /// Makes an error for a call in the wrong state.
    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::State { message: message.into() }
    }

    /// Makes an error of a failed connection attempt or of a lost connection.
    pub(crate) fn disconnected(broker: &str, reason: &io::Error, maybe_sent: bool) -> Self {
        Self::Disconnected { broker: broker.to_owned(), reason: reason.to_string(), maybe_sent }
    }
}

/// Turns an error code into a result about `subject`.
pub(crate) fn check(code: i16, subject: impl FnOnce() -> String) -> Result<()> {
    check_said(code, None, subject)
}

/// Turns an error code and the broker's own words into a result about `subject`.
pub(crate) fn check_said(
    code: i16,
    message: Option<&str>,
    subject: impl FnOnce() -> String,
) -> Result<()> {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => Err(Error::broker_said(subject(), code, message)),
        // A newer broker may send a code that this release has no name for.
        None => {
            let words = format!("error code {code} {}", message.unwrap_or_default());
            Err(Error::broker_said(subject(), ErrorCode::UnknownServerError, Some(words.trim())))
        }
    }
}

/// Names an error code; one that this release does not know counts as an unknown server error.
pub(crate) fn code_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

fn is_fatal(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::FencedInstanceId
            | ErrorCode::ProducerFenced
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::UnknownServerError
    )
}

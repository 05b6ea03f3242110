//! Records on their way to the cluster, under the program's policy for those that the cluster refuses.
//!
//! Without such a policy nothing is kept: a record that cannot be sent stops its thread. With one, each output record
//! is kept until it is acknowledged. In a transaction only what is refused before it joins a batch is a matter of
//! policy; what a broker refuses spoils the transaction, and all of it is done again.

use std::sync::Arc;
use std::time::Duration;

use fleuve_client::producer::{Delivery, Header};
use fleuve_client::{Error, Producer, Record};

use crate::dsl::ErrorPolicy;
use crate::error::{Cause, ProcessingError};
use crate::runtime::Outgoing;

/// Records that were sent and not acknowledged yet, as far as a policy asks for that.
pub(super) struct Production {
    policy: ErrorPolicy,
    kept: Vec<(Delivery, Outgoing)>,
}

/// Why a record was not sent.
pub(super) enum Unsent {
    /// The cluster, or the client.
    Client(Error),
    /// The policy is to fail.
    Failed(ProcessingError),
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<Unsent> for super::StreamsError {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Client(error) => Self::Client(error),
            Unsent::Failed(error) => Self::Processing(error),
        }
    }
}

impl Production {
    pub(super) fn new(policy: ErrorPolicy) -> Self {
        Self { policy, kept: Vec::new() }
    }

    /// Whether a record is kept until it is acknowledged.
    pub(super) fn keeps(&self, out: &Outgoing) -> bool {
        // Changelogs and dead letters have no source: what cannot be written there is no matter of policy.
        self.policy != ErrorPolicy::Fail && out.source.is_some()
    }

    /// Sends a record. Returns the delivery if it is the caller's to watch.
    pub(super) async fn send(
        &mut self,
        producer: &Producer,
        out: Outgoing,
    ) -> Result<Option<Delivery>, Unsent> {
        if !self.keeps(&out) {
            return Ok(Some(produce(producer, &out).await?));
        }
        match produce(producer, &out).await {
            Ok(delivery) => self.kept.push((delivery, out)),
            Err(error) => self.refused(producer, out, error).await?,
        }
        Ok(None)
    }

    /// Forgets what is kept: a transaction has ended, or the caller begins again.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    /// Whether something is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Waits until everything that is kept is acknowledged, or dealt with otherwise.
    pub(super) async fn acknowledged(&mut self, producer: &Producer) -> Result<(), Unsent> {
        for (delivery, out) in std::mem::take(&mut self.kept) {
            if let Err(error) = delivery.await {
                self.refused(producer, out, error).await?;
            }
        }
        Ok(())
    }

    /// Tries again as often as the policy allows, waiting for each answer, and then does what it says.
    async fn refused(
        &mut self,
        producer: &Producer,
        out: Outgoing,
        mut error: Error,
    ) -> Result<(), Unsent> {
        if !is_about_record(&error) {
            return Err(error.into());
        }
        if let Some(retry) = self.policy.attempts() {
            for failed in 1..=retry.attempts {
                tracing::warn!(topic = %out.topic.name, %error, failed, "record refused, trying again");
                tokio::time::sleep(Duration::from_millis(retry.pause_ms(failed).max(0) as u64))
                    .await;
                match delivered(producer, &out).await {
                    Ok(()) => return Ok(()),
                    Err(again) if is_about_record(&again) => error = again,
                    Err(fatal) => return Err(fatal.into()),
                }
            }
        }
        let Some(source) = out.source else {
            return Err(error.into());
        };
        let cause = Cause::Produce(Arc::new(error));
        match self.policy.without_attempts() {
            ErrorPolicy::Fail | ErrorPolicy::Retry(_) => Err(Unsent::Failed(ProcessingError {
                node: format!("topic {}", out.topic.name),
                topic: source.origin.topic,
                partition: source.origin.partition,
                offset: source.origin.offset,
                cause,
            })),
            ErrorPolicy::Skip => {
                tracing::warn!(
                    topic = %out.topic.name,
                    source = %source.origin.topic,
                    partition = source.origin.partition,
                    offset = source.origin.offset,
                    %cause,
                    "record skipped"
                );
                Ok(())
            }
            ErrorPolicy::DeadLetter(topic) => {
                Ok(delivered(producer, &source.dead_letter(topic, &cause)).await?)
            }
        }
    }
}

/// Sends a record and waits for its acknowledgement.
pub(super) async fn delivered(producer: &Producer, out: &Outgoing) -> Result<(), Error> {
    produce(producer, out).await?.await.map(|_| ())
}

async fn produce(producer: &Producer, out: &Outgoing) -> Result<Delivery, Error> {
    let headers: Vec<Header<'_>> = out
        .headers
        .iter()
        .map(|header| Header::new(&header.key, header.value.as_deref()))
        .collect();
    let mut record = Record::new(&out.topic.name).headers(&headers);
    if out.timestamp >= 0 {
        record = record.timestamp(out.timestamp);
    }
    if let Some(key) = &out.key {
        record = record.key(key);
    }
    if let Some(value) = &out.value {
        record = record.value(value);
    }
    if let Some(partition) = out.topic.partition {
        record = record.partition(partition);
    }
    producer.send(record).await
}

/// Whether it is this record that cannot be sent, rather than anything at all.
fn is_about_record(error: &Error) -> bool {
    match error {
        Error::RecordTooLarge { .. }
        | Error::NoSuchPartition { .. }
        | Error::DeliveryTimeout { .. }
        | Error::Expired { .. } => true,
        Error::Broker { .. } => error.advice() != fleuve_client::Advice::Stop,
        _ => false,
    }
}

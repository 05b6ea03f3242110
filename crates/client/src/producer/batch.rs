//! A batch on its way, and the futures of the records in it.

use std::pin::Pin;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use fleuve_protocol::records::{BatchBuilder, BatchHeader, BatchProducer, layout};
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition};
use tokio::time::Instant;

use super::record::RecordMetadata;
use crate::error::{Error, Result};

/// The producer id and epoch under which batches are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
}

/// What a leader said about a written batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Offset of the first record, -1 when the broker did not say.
    pub(super) base_offset: i64,
    /// The append time, -1 when the records keep their own.
    pub(super) log_append_time: i64,
}

/// The common result of the records in a batch.
pub(super) struct Outcome {
    partition: TopicPartition,
    /// The number of the [`super::Deliveries`] that keep it; 0 is none.
    follower: AtomicU64,
    /// The last record that they know of.
    last_index: AtomicI32,
    state: Mutex<OutcomeState>,
}

#[derive(Default)]
struct OutcomeState {
    result: Option<Result<Written>>,
    wakers: Vec<Waker>,
}

impl Outcome {
    pub(super) fn new(partition: TopicPartition) -> Arc<Self> {
        Arc::new(Self {
            partition,
            follower: AtomicU64::new(0),
            last_index: AtomicI32::new(0),
            state: Mutex::default(),
        })
    }

    /// Returns the partition of the batch.
    pub(super) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Tells everybody who waits.
    pub(super) fn complete(&self, result: Result<Written>) {
        let wakers = {
            let mut state = self.lock();
            state.result = Some(result);
            std::mem::take(&mut state.wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }

    /// Returns what a result means for the record of this index.
    pub(super) fn metadata_of(
        &self,
        result: &Result<Written>,
        index: i32,
    ) -> Result<RecordMetadata> {
        let written = result.as_ref().map_err(Clone::clone)?;
        Ok(RecordMetadata {
            partition: self.partition.clone(),
            offset: (written.base_offset >= 0).then(|| written.base_offset + i64::from(index)),
            log_append_time: (written.log_append_time >= 0).then_some(written.log_append_time),
        })
    }

    /// Waits for the result.
    pub(super) async fn done(self: &Arc<Self>) -> Result<()> {
        Delivery::new(self.clone(), 0).await.map(drop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OutcomeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The future of a record's place in the log.
///
/// Dropping it does not take the record back.
#[must_use = "a failed delivery goes unnoticed unless somebody awaits it"]
pub struct Delivery {
    outcome: Arc<Outcome>,
    index: i32,
    /// Where our waker stands among those of the batch, [`NOT_WAITING`] before the first poll: there
    /// are as many deliveries as records on their way, so that every word counts.
    waker_index: u32,
}

/// No batch has so many records.
const NOT_WAITING: u32 = u32::MAX;

impl Delivery {
    pub(super) fn new(outcome: Arc<Outcome>, index: i32) -> Self {
        Self { outcome, index, waker_index: NOT_WAITING }
    }

    /// Returns the partition the record goes to.
    pub fn partition(&self) -> &TopicPartition {
        &self.outcome.partition
    }

    /// Puts a number on the batch, and reports whether it had another one. The batch remembers the last record for
    /// which this was done.
    pub(super) fn follow(&self, number: u64) -> bool {
        let Outcome { follower, last_index, .. } = &*self.outcome;
        if last_index.load(Ordering::Relaxed) < self.index {
            last_index.store(self.index, Ordering::Relaxed);
        }
        // Two that take turns with one batch both keep it, several times, which does no harm.
        let is_new = follower.load(Ordering::Relaxed) != number;
        if is_new {
            follower.store(number, Ordering::Relaxed);
        }
        is_new
    }

    /// Returns the delivery of the last record of the batch that was followed.
    pub(super) fn of_last(self) -> Self {
        let index = self.outcome.last_index.load(Ordering::Relaxed);
        Self::new(self.outcome, index)
    }

    /// Returns the place of the record, if its batch is written.
    pub(super) fn written(&self) -> Option<RecordMetadata> {
        let state = self.outcome.lock();
        let result = state.result.as_ref().filter(|result| result.is_ok())?;
        self.outcome.metadata_of(result, self.index).ok()
    }

    /// Reports whether both records share a batch, and so their fate.
    pub fn shares_batch_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.outcome, &other.outcome)
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.outcome.lock();
        match &state.result {
            Some(result) => Poll::Ready(this.outcome.metadata_of(result, this.index)),
            None => {
                match state.wakers.get_mut(this.waker_index as usize) {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => {
                        this.waker_index = state.wakers.len() as u32;
                        state.wakers.push(context.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}

/// A batch that takes no more records.
pub(super) struct Batch {
    pub(super) outcome: Arc<Outcome>,
    /// Position among the partition's batches; a retried batch keeps it.
    pub(super) serial: u64,
    pub(super) created: Instant,
    /// Bytes that count against `buffer.memory`.
    pub(super) memory: usize,
    pub(super) count: i32,
    pub(super) producer: Option<BatchProducer>,
    pub(super) attempts: u32,
    /// Whether an attempt ended without the leader saying what became of it.
    pub(super) maybe_written: bool,
    pub(super) last_error: Option<Error>,
    /// From the closing of the batch until it is done, retries included.
    pub(super) span: tracing::Span,
    contents: Contents,
}

enum Contents {
    /// Not yet compressed and sealed, which the sender does outside of any lock.
    Building(Box<BatchBuilder>),
    Sealed {
        bytes: Bytes,
        /// The numbering in the bytes.
        producer: Option<BatchProducer>,
    },
}

impl Batch {
    pub(super) fn new(
        builder: Box<BatchBuilder>,
        outcome: Arc<Outcome>,
        serial: u64,
        created: Instant,
    ) -> Self {
        let partition = outcome.partition();
        let span = tracing::debug_span!(
            "produce_batch",
            topic = &*partition.topic,
            partition = partition.partition,
            records = builder.count(),
            attempts = tracing::field::Empty,
            error = tracing::field::Empty
        );
        Self {
            outcome,
            serial,
            created,
            span,
            memory: builder.size(),
            count: builder.count(),
            producer: None,
            attempts: 0,
            maybe_written: false,
            last_error: None,
            contents: Contents::Building(builder),
        }
    }

    /// Returns a size that the sealed batch hardly exceeds.
    pub(super) fn size(&self) -> usize {
        match &self.contents {
            Contents::Building(builder) => builder.estimated_size(),
            Contents::Sealed { bytes, .. } => bytes.len(),
        }
    }

    /// Numbers the batch as the producer's next one.
    pub(super) fn number(&mut self, identity: Identity, base_sequence: i32) {
        let Identity { id, epoch } = identity;
        self.producer = Some(BatchProducer { id, epoch, base_sequence });
    }

    /// Returns the memory of a batch that is done, if nobody else looks at it any more.
    pub(super) fn into_buffer(self) -> Option<BytesMut> {
        match self.contents {
            Contents::Sealed { bytes, .. } => bytes.try_into_mut().ok(),
            Contents::Building(_) => None,
        }
    }

    /// Returns the bytes to send under the batch's numbering, and the builder if it is free now.
    pub(super) fn seal(&mut self) -> (Bytes, Option<Box<BatchBuilder>>) {
        let placeholder = Contents::Sealed { bytes: Bytes::new(), producer: self.producer };
        let (bytes, builder) = match std::mem::replace(&mut self.contents, placeholder) {
            Contents::Building(mut builder) => {
                builder.options_mut().producer = self.producer;
                if builder.is_compressing() {
                    // It keeps the memory of its codec.
                    (builder.finish(), Some(builder))
                } else {
                    (builder.into_batch(), None)
                }
            }
            Contents::Sealed { bytes, producer } if producer == self.producer => (bytes, None),
            Contents::Sealed { bytes, .. } => (renumbered(bytes, self.producer), None),
        };
        self.contents = Contents::Sealed { bytes: bytes.clone(), producer: self.producer };
        (bytes, builder)
    }
}

/// Writes another numbering into the header of a sealed batch.
fn renumbered(bytes: Bytes, producer: Option<BatchProducer>) -> Bytes {
    let mut header = BatchHeader::parse(&bytes).expect("we sealed this batch");
    if let Some(BatchProducer { id, epoch, base_sequence }) = producer {
        header.producer_id = id;
        header.producer_epoch = epoch;
        header.base_sequence = base_sequence;
    }
    let mut copy = BytesMut::from(&bytes[..]);
    copy[..layout::HEADER_SIZE].copy_from_slice(&header.to_bytes());
    let crc = crc_fast::crc32_iscsi(&copy[layout::ATTRIBUTES..]);
    copy[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    copy.freeze()
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::{BatchOptions, NewRecord};

    use super::*;

    fn batch() -> Batch {
        let mut builder = Box::new(BatchBuilder::new(BatchOptions::default()));
        for _ in 0..3 {
            builder.append(&NewRecord::default()).expect("room");
        }
        Batch::new(builder, Outcome::new(TopicPartition::new("t", 0)), 0, Instant::now())
    }

    #[test]
    fn a_renumbered_batch_is_sealed_again_with_a_right_checksum() {
        let mut batch = batch();
        batch.number(Identity { id: ProducerId(7), epoch: ProducerEpoch(0) }, 10);
        let (first, builder) = batch.seal();
        assert!(builder.is_none(), "its memory went into the batch");
        let (again, _) = batch.seal();
        assert_eq!(first, again);
        batch.number(Identity { id: ProducerId(8), epoch: ProducerEpoch(1) }, 0);
        let (other, _) = batch.seal();
        let header = BatchHeader::parse(&other).expect("whole");
        header.verify_crc(&other).expect("right checksum");
        assert_eq!(
            (header.producer_id.0, header.producer_epoch.0, header.base_sequence),
            (8, 1, 0)
        );
        assert_eq!(other[layout::HEADER_SIZE..], first[layout::HEADER_SIZE..]);
    }

    #[test]
    fn memory_comes_back_only_when_nobody_else_looks_at_it() {
        let (mut sent, mut done) = (batch(), batch());
        let (bytes, _) = sent.seal();
        assert!(sent.into_buffer().is_none(), "the connection still writes it");
        drop(bytes);
        drop(done.seal());
        let buffer = done.into_buffer().expect("nobody has it");
        let mut again = BatchBuilder::with_buffer(BatchOptions::default(), buffer);
        again.append(&NewRecord { value: Some(b"x"), ..NewRecord::default() }).expect("room");
        let whole = fleuve_protocol::records::Batch::parse(again.into_batch()).expect("whole");
        whole.verify_crc().expect("right checksum");
        assert_eq!(whole.header.count, 1);
    }

    #[tokio::test]
    async fn deliveries_learn_their_own_offsets_from_one_outcome() {
        let outcome = Outcome::new(TopicPartition::new("t", 3));
        let deliveries: Vec<_> =
            (0..3).map(|index| tokio::spawn(Delivery::new(outcome.clone(), index))).collect();
        tokio::task::yield_now().await;
        outcome.complete(Ok(Written { base_offset: 40, log_append_time: -1 }));
        for (index, delivery) in deliveries.into_iter().enumerate() {
            let metadata = delivery.await.expect("no panic").expect("written");
            assert_eq!(metadata.offset, Some(40 + index as i64));
            assert_eq!(metadata.partition, TopicPartition::new("t", 3));
        }
    }
}

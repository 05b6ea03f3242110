//! The producer: batches records per partition and sends them in order.
//!
//! [`Producer::send`] copies a record into the open batch of its partition and returns a
//! [`Delivery`], a future for its place in the log; there is no task and no allocation per record.
//! One task per producer (`sender`) sends closed batches to the partitions' leaders, several
//! requests in flight to each, and answers the deliveries batch by batch.
//!
//! A batch goes through these states; the numbers in the idempotent protocol belong to batches, so
//! order and numbering live in one place, `queue`:
//!
//! ```text
//!            full, linger over, flush              sent
//!   open ───────────────────────────▶ closed ─────────────▶ in flight ──▶ done
//!                                                 ▲             │ may succeed later
//!                                                 └── retry ◀───┘
//! ```

mod accumulator;
mod answers;
mod batch;
mod deliveries;
mod metrics;
mod partitioner;
mod queue;
mod record;
mod sender;
mod transactions;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleuve_types::TopicPartition;
use tokio::sync::Notify;

use crate::client::Client;
use crate::config::ProducerConfig;
use crate::consumer::{Committed, GroupMetadata};
use crate::error::{Error, Result};
use crate::interceptor::OutgoingRecord;
use crate::metrics::{Measured, Metric, telemetry};
use crate::timing::{Alarm, Deadline, now_ms};

use accumulator::{Accumulator, Appended, Wake};
use transactions::Transactions;

pub use batch::Delivery;
pub use deliveries::Deliveries;
pub use partitioner::{Partitioner, RoundRobinPartitioner, murmur2, partition_for_key};
pub use record::{Header, Record, RecordMetadata};

/// A producer; clones share its batches and its memory.
///
/// Dropping the last clone sends what is buffered in the background; [`Producer::close`] waits for
/// it.
///
/// ```no_run
/// # async fn example() -> fleuve_client::Result<()> {
/// use fleuve_client::{Client, ClientConfig, Producer, ProducerConfig, Record};
///
/// let client = Client::connect(ClientConfig::new("localhost:9092")?).await?;
/// let producer = Producer::new(client, ProducerConfig::default())?;
/// let delivery = producer.send(Record::new("greetings").key(b"fr").value(b"bonjour")).await?;
/// let written = delivery.await?;
/// println!("{} at offset {:?}", written.partition, written.offset);
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// Tells the sender when the last producer handle is gone.
struct Handle {
    shared: Arc<Shared>,
}

/// What the handles and the sender have in common.
struct Shared {
    client: Client,
    config: ProducerConfig,
    accumulator: Accumulator,
    /// With `transactional.id`.
    transactions: Option<Transactions>,
    /// Wakes the sender.
    work: Notify,
    /// Wakes it when a linger is over.
    alarm: Alarm,
    /// Wakes callers of `send` that wait for memory.
    memory: Notify,
    memory_waiters: AtomicUsize,
    counters: metrics::Counters,
    /// Wakes callers of `close`.
    ended: tokio::sync::watch::Sender<bool>,
}

impl Producer {
    /// Makes a producer on `client` and starts its task.
    pub fn new(client: Client, config: ProducerConfig) -> Result<Self> {
        let config = config.validate(false)?;
        let id = config.transactional_id.clone();
        let shared = Arc::new(Shared {
            accumulator: Accumulator::new(&config),
            transactions: id.map(|id| Transactions::new(id, config.transaction_timeout)),
            client,
            config,
            work: Notify::new(),
            alarm: Alarm::new(),
            memory: Notify::new(),
            memory_waiters: AtomicUsize::new(0),
            counters: metrics::Counters::default(),
            ended: tokio::sync::watch::Sender::new(false),
        });
        tokio::spawn(sender::Sender::new(shared.clone()).run());
        if shared.client.config().metrics_push {
            let measured: Arc<dyn Measured> = shared.clone();
            let source = Arc::downgrade(&measured);
            tokio::spawn(telemetry::run(shared.client.clone(), source, shared.ended.subscribe()));
        }
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Puts `record` into a batch and returns the future of its delivery.
    ///
    /// It waits up to `max.block.ms` while the topic is not known or the memory is full, and
    /// otherwise not at all. The returned [`Delivery`] may be dropped; the record is sent all the
    /// same. Records of one partition are written in the order of their sending, retries included.
    ///
    /// An error here means that the record was not taken: it is too large, its partition does not
    /// exist, or the time is over. What happens to it later is told by the delivery.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery> {
        if !self.handle.shared.config.interceptors.is_empty() {
            return Box::pin(self.send_intercepted(record)).await;
        }
        self.send_as_it_is(record).await
    }

    /// Puts records into batches in their order, as [`Producer::send`] does with each, and keeps one
    /// delivery for each batch: less work where nobody asks for the place of a single record.
    ///
    /// After an error the records before the one concerned are on their way.
    pub async fn send_all(
        &self,
        mut records: &[Record<'_>],
        deliveries: &mut Deliveries,
    ) -> Result<()> {
        let shared = &*self.handle.shared;
        if !shared.config.interceptors.is_empty() {
            for record in records {
                deliveries.add(self.send(*record).await?);
            }
            return Ok(());
        }
        if let Some(transactions) = &shared.transactions {
            transactions.check_open()?;
        }
        while !records.is_empty() {
            let (taken, obstacle, wake) = shared.accumulator.append_all(records, deliveries)?;
            records = &records[taken..];
            shared.wake(wake);
            if let (Some(obstacle), Some((record, rest))) = (obstacle, records.split_first()) {
                let timestamp = record.timestamp.unwrap_or_else(now_ms);
                deliveries.add(self.send_when_possible(*record, timestamp, obstacle).await?);
                records = rest;
            }
        }
        Ok(())
    }

    /// Returns what was counted, under the names of Kafka's producer.
    pub fn metrics(&self) -> Vec<Metric> {
        self.handle.shared.metrics()
    }

    async fn send_intercepted(&self, record: Record<'_>) -> Result<Delivery> {
        let headers = record
            .headers
            .iter()
            .map(|header| (header.key_text().into_owned(), header.value.map(<[u8]>::to_vec)));
        let mut changed = OutgoingRecord {
            topic: record.topic.to_owned(),
            partition: record.partition,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
            timestamp: record.timestamp,
        };
        for interceptor in self.handle.shared.config.interceptors.iter() {
            interceptor.on_send(&mut changed);
        }
        let headers: Vec<_> =
            changed.headers.iter().map(|(key, value)| Header::new(key, value.as_deref())).collect();
        let record = Record {
            topic: &changed.topic,
            partition: changed.partition,
            key: changed.key.as_deref(),
            value: changed.value.as_deref(),
            headers: &headers,
            timestamp: changed.timestamp,
        };
        self.send_as_it_is(record).await
    }

    async fn send_as_it_is(&self, record: Record<'_>) -> Result<Delivery> {
        let shared = &*self.handle.shared;
        if let Some(transactions) = &shared.transactions {
            transactions.check_open()?;
        }
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        // The way most records take, without anything to wait for.
        match shared.accumulator.append(&record, timestamp)? {
            Appended::Done { delivery, wake } => {
                shared.wake(wake);
                Ok(delivery)
            }
            obstacle => self.send_when_possible(record, timestamp, obstacle).await,
        }
    }

    /// Sends `record` and waits until it is written.
    pub async fn send_and_wait(&self, record: Record<'_>) -> Result<RecordMetadata> {
        self.send(record).await?.await
    }

    /// Sends everything that is buffered and waits until all of it is done, well or not.
    ///
    /// Failures are reported to the deliveries concerned, and the first also here.
    pub async fn flush(&self) -> Result<()> {
        let pending = self.handle.shared.accumulator.close_open_batches();
        self.handle.shared.work.notify_one();
        let mut first_error = None;
        for batch in pending {
            if let Err(error) = batch.done().await {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Takes over `transactional.id`: fences earlier producers of it, and waits until what they
    /// left open is finished. Comes once, before the first transaction.
    pub async fn init_transactions(&self) -> Result<()> {
        self.handle.shared.init_transactions().await
    }

    /// Begins a transaction; records can only be sent within one.
    ///
    /// ```no_run
    /// # async fn example(client: fleuve_client::Client) -> fleuve_client::Result<()> {
    /// use fleuve_client::{Advice, Producer, ProducerConfig, Record};
    ///
    /// let config = ProducerConfig {
    ///     transactional_id: Some("payments-1".to_owned()),
    ///     ..ProducerConfig::default()
    /// };
    /// let producer = Producer::new(client, config)?;
    /// producer.init_transactions().await?;
    /// producer.begin_transaction()?;
    /// for account in ["ada", "bob"] {
    ///     // Failures come back from the commit, so that nobody need wait for each record.
    ///     drop(producer.send(Record::new("payments").key(account).value("10")).await?);
    /// }
    /// match producer.commit_transaction().await {
    ///     Err(error) if error.advice() == Advice::Abort => producer.abort_transaction().await?,
    ///     other => other?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin_transaction(&self) -> Result<()> {
        self.handle.shared.begin_transaction()
    }

    /// Makes offsets of a consumer part of the transaction: they are committed with it.
    ///
    /// For a consume-transform-produce loop these are [`crate::Consumer::positions_to_commit`] and
    /// [`crate::Consumer::group_metadata`]; its `enable.auto.commit` has to be false.
    pub async fn send_offsets(
        &self,
        offsets: &HashMap<TopicPartition, Committed>,
        group: &GroupMetadata,
    ) -> Result<()> {
        self.handle.shared.send_offsets(offsets, group).await
    }

    /// Sends what is buffered and commits the transaction.
    ///
    /// After an error that advises a retry nobody knows whether it stands: call it again. After
    /// [`Error::Abortable`] abort it, and begin again.
    pub async fn commit_transaction(&self) -> Result<()> {
        self.handle.shared.commit_transaction().await
    }

    /// Drops what is buffered and aborts the transaction.
    pub async fn abort_transaction(&self) -> Result<()> {
        self.handle.shared.abort_transaction().await
    }

    /// Refuses further records, and waits until the buffered ones are done. An open transaction is
    /// aborted.
    pub async fn close(&self) -> Result<()> {
        if let Some(transactions) = &self.handle.shared.transactions
            && transactions.is_open()
        {
            self.abort_transaction().await?;
        }
        self.handle.shared.accumulator.close();
        let flushed = self.flush().await;
        let mut ended = self.handle.shared.ended.subscribe();
        // The sender lives until it has seen the closing; an error means it has ended already.
        ended.wait_for(|ended| *ended).await.ok();
        flushed
    }

    async fn send_when_possible(
        &self,
        record: Record<'_>,
        timestamp: i64,
        mut obstacle: Appended,
    ) -> Result<Delivery> {
        let shared = &*self.handle.shared;
        let deadline = Deadline::after(shared.config.max_block);
        loop {
            match obstacle {
                Appended::Done { delivery, wake } => {
                    shared.wake(wake);
                    return Ok(delivery);
                }
                Appended::TopicUnknown => {
                    let info = shared.client.topic_within(record.topic, true, deadline).await?;
                    shared.accumulator.learn_topic(&info);
                }
                Appended::MemoryFull => {
                    let freed = shared.memory.notified();
                    tokio::pin!(freed);
                    // Registered before looking again, so that memory freed in between wakes us.
                    freed.as_mut().enable();
                    shared.memory_waiters.fetch_add(1, Ordering::Relaxed);
                    shared.work.notify_one();
                    if shared.accumulator.is_full_for(&record) {
                        tokio::time::timeout(deadline.remaining(), freed).await.ok();
                    }
                    shared.memory_waiters.fetch_sub(1, Ordering::Relaxed);
                    if deadline.is_over() {
                        return Err(Error::Expired {
                            operation: format!(
                                "waiting for buffer.memory to send to {}",
                                record.topic
                            ),
                            after: deadline.elapsed(),
                            last: "brokers take records more slowly than they are sent".to_owned(),
                        });
                    }
                }
            }
            obstacle = shared.accumulator.append(&record, timestamp)?;
        }
    }
}

impl Shared {
    /// Lets the sender know of a record in time.
    fn wake(&self, wake: Wake) {
        match wake {
            Wake::By(at) if self.alarm.ring_by(at) => {}
            Wake::Now | Wake::By(_) => self.work.notify_one(),
            Wake::Never => {}
        }
    }

    /// Tells everybody who waits for a batch how it ended.
    fn conclude(&self, batch: &batch::Batch, result: Result<batch::Written>) {
        batch.span.record("attempts", batch.attempts);
        if let Err(error) = &result {
            batch.span.record("error", tracing::field::display(error));
            self.counters.failed(batch);
        }
        if !self.config.interceptors.is_empty() {
            for index in 0..batch.count {
                let told = batch.outcome.metadata_of(&result, index);
                for interceptor in self.config.interceptors.iter() {
                    interceptor.on_acknowledgement(batch.outcome.partition(), told.as_ref());
                }
            }
        }
        batch.outcome.complete(result);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.accumulator.close();
        self.shared.accumulator.close_open_batches();
        self.shared.work.notify_one();
    }
}

//! Drives the machines of `__share_group_state`: one for each of its partitions.
//!
//! A request takes the shard's lock, lets the machine decide, appends, and lets it apply. What must
//! survive a crash before it is told is awaited outside the lock ([`ShareStates::durable`]).

use std::sync::Arc;
use std::time::Duration;

use fleuve_coordinator::share_state::{
    ShareCoordinator, ShareKey, ShareState, ShareStateError, ShareStateRecord, ShareStateSettings,
    Summary, Written,
};
use fleuve_os::Clock;
use fleuve_types::{TimestampMs, Uuid};
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;

use crate::groups::{append_records, shard_index};
use crate::partition::Partition;
use crate::purgatory::{AckWait, Purgatory};
use crate::replay::{self, Entry, ReplayError};

/// The topic whose partitions hold the states.
pub(crate) const STATE_TOPIC: &str = "__share_group_state";

/// All shards of a broker.
#[derive(Debug)]
pub(crate) struct ShareStates {
    clock: Arc<dyn Clock>,
    purgatory: Arc<Purgatory>,
    settings: ShareStateSettings,
    /// How long an answer may wait for its records to become durable.
    write_timeout: Duration,
    shards: RwLock<Vec<Arc<StateShard>>>,
}

/// One partition of the topic with its states.
#[derive(Debug)]
pub(crate) struct StateShard {
    partition: Arc<Partition>,
    /// None until the log is read, and again once it has failed.
    machine: Mutex<Option<ShareCoordinator>>,
}

/// Something in the log that has yet to become durable.
#[derive(Debug)]
pub(crate) struct Stored {
    shard: Arc<StateShard>,
    after: i64,
}

/// Why a state cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    #[error("the states of share groups are not available now")]
    NotAvailable,
    #[error(transparent)]
    Refused(#[from] ShareStateError),
}

impl ShareStates {
    /// Makes a driver without shards.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        purgatory: Arc<Purgatory>,
        settings: ShareStateSettings,
        write_timeout: Duration,
    ) -> Self {
        Self { clock, purgatory, settings, write_timeout, shards: RwLock::default() }
    }

    /// Takes up the partitions of the topic beyond those already there; they are to be loaded.
    pub(crate) fn adopt(&self, partitions: &[Arc<Partition>]) -> Vec<Arc<StateShard>> {
        let mut shards = self.shards.write();
        let known = shards.len();
        for partition in partitions.iter().skip(known) {
            let partition = Arc::clone(partition);
            shards.push(Arc::new(StateShard { partition, machine: Mutex::new(None) }));
        }
        shards[known..].to_vec()
    }

    /// Reads a shard's partition; blocks until all of it is read.
    pub(crate) fn load(&self, shard: &StateShard) -> Result<(), ReplayError> {
        let mut machine = ShareCoordinator::new(self.settings);
        replay::for_each_entry(&shard.partition, |offset, entry| {
            let Entry::Record { key: Some(key), value, .. } = entry else { return };
            if let Err(error) = machine.replay(key, value, offset) {
                tracing::error!(partition = %shard.partition.name(), %offset, %error,
                    "a record about a share-partition cannot be read");
            }
        })?;
        *shard.machine.lock() = Some(machine);
        Ok(())
    }

    /// Drops all shards, because the topic was deleted or the broker stops.
    pub(crate) fn abandon(&self) {
        self.shards.write().clear();
    }

    /// Number of shards; none before the topic exists.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.read().len()
    }

    /// Begins a state, or begins it anew at another start.
    pub(crate) fn initialize(
        &self,
        key: &ShareKey,
        state_epoch: i32,
        start_offset: i64,
    ) -> Result<Stored, StateError> {
        let (shard, (), stored) = self.decide(key, |machine, now| {
            let record = machine.initialize(key, state_epoch, start_offset, now)?;
            Ok(((), Some(record)))
        })?;
        Ok(stored.unwrap_or_else(|| shard.all_stored()))
    }

    /// Writes what a leader has decided.
    pub(crate) fn write(&self, key: &ShareKey, written: &Written) -> Result<Stored, StateError> {
        let (shard, (), stored) = self.decide(key, |machine, now| {
            machine.write(key, written, now).map(|record| ((), Some(record)))
        })?;
        Ok(stored.unwrap_or_else(|| shard.all_stored()))
    }

    /// Reads a state for a leader, whose epoch is noted.
    pub(crate) fn read(
        &self,
        key: &ShareKey,
        leader_epoch: i32,
    ) -> Result<(ShareState, Option<Stored>), StateError> {
        let (_, state, stored) = self.decide(key, |machine, now| {
            machine.read(key, leader_epoch, now).map(|(state, record)| (state.clone(), record))
        })?;
        Ok((state, stored))
    }

    /// The outline of a state; none if it never began.
    pub(crate) fn summary(&self, key: &ShareKey) -> Result<Option<Summary>, StateError> {
        if self.shard_count() == 0 {
            return Ok(None);
        }
        let shard = self.shard_of(key)?;
        let machine = shard.machine.lock();
        Ok(machine.as_ref().ok_or(StateError::NotAvailable)?.summary(key))
    }

    /// Forgets a state, if there is one.
    pub(crate) fn delete(&self, key: &ShareKey) -> Result<Option<Stored>, StateError> {
        let (_, (), stored) = self.decide(key, |machine, _| Ok(((), machine.delete(key))))?;
        Ok(stored)
    }

    /// Forgets the states of a topic that is gone.
    pub(crate) fn forget_topic(&self, topic_id: Uuid) {
        let shards = self.shards.read().clone();
        for shard in shards {
            self.append_all(&shard, |machine, _| machine.forget_topic(topic_id));
        }
    }

    /// Deletes what snapshots made redundant, after writing new ones where old ones keep the log.
    pub(crate) fn prune(&self) {
        let shards = self.shards.read().clone();
        for shard in shards {
            self.append_all(&shard, ShareCoordinator::cold_snapshots);
            let redundant = shard.machine.lock().as_ref().map(ShareCoordinator::redundant_below);
            let partition = &shard.partition;
            // What takes the place of the old records must be durable before they go.
            let Some(below) = redundant.map(|below| below.0.min(partition.high_watermark())) else {
                continue;
            };
            if below > partition.log_start_offset()
                && let Err(error) = partition.delete_records_to(below)
            {
                tracing::error!(partition = %partition.name(), %error, "states are not pruned");
            }
        }
    }

    /// Waits until it survives a crash.
    pub(crate) async fn durable(&self, stored: &Stored) -> Result<(), StateError> {
        let partition = &stored.shard.partition;
        if partition.high_watermark() < stored.after {
            let wait = AckWait::new(&self.purgatory, 1);
            partition.wait_for(stored.after, &wait);
            // Whether it was in time is read off the partition itself.
            let _ = timeout(self.write_timeout, wait.done()).await;
        }
        if partition.has_failed() {
            // What the machine applied may be gone after a restart, so it knows too much.
            *stored.shard.machine.lock() = None;
        }
        if partition.has_failed() || partition.high_watermark() < stored.after {
            return Err(StateError::NotAvailable);
        }
        Ok(())
    }

    fn shard_of(&self, key: &ShareKey) -> Result<Arc<StateShard>, StateError> {
        let shards = self.shards.read();
        if shards.is_empty() {
            return Err(StateError::NotAvailable);
        }
        Ok(Arc::clone(&shards[shard_index(&key.coordinator_key(), shards.len())]))
    }

    fn decide<T>(
        &self,
        key: &ShareKey,
        decide: impl FnOnce(
            &ShareCoordinator,
            TimestampMs,
        ) -> Result<(T, Option<ShareStateRecord>), ShareStateError>,
    ) -> Result<(Arc<StateShard>, T, Option<Stored>), StateError> {
        let shard = self.shard_of(key)?;
        let mut guard = shard.machine.lock();
        let machine = guard.as_mut().ok_or(StateError::NotAvailable)?;
        let now = TimestampMs(self.clock.wall_ms());
        let (result, record) = decide(machine, now)?;
        let stored = match record {
            Some(record) => Some(shard.append(machine, &record, now)?),
            None => None,
        };
        drop(guard);
        Ok((shard, result, stored))
    }

    fn append_all(
        &self,
        shard: &Arc<StateShard>,
        decide: impl FnOnce(&ShareCoordinator, TimestampMs) -> Vec<ShareStateRecord>,
    ) {
        let mut guard = shard.machine.lock();
        let Some(machine) = guard.as_mut() else { return };
        let now = TimestampMs(self.clock.wall_ms());
        for record in decide(machine, now) {
            // What is left is found again the next time.
            if shard.append(machine, &record, now).is_err() {
                return;
            }
        }
    }
}

impl StateShard {
    fn append(
        self: &Arc<Self>,
        machine: &mut ShareCoordinator,
        record: &ShareStateRecord,
        now: TimestampMs,
    ) -> Result<Stored, StateError> {
        let appended = append_records(&self.partition, now, [record.encode()]);
        let offset = appended.map_err(|_| StateError::NotAvailable)?;
        machine.apply(record, offset.into());
        Ok(Stored { shard: Arc::clone(self), after: offset + 1 })
    }

    /// All that the log has now.
    fn all_stored(self: &Arc<Self>) -> Stored {
        Stored { shard: Arc::clone(self), after: self.partition.log_end_offset() }
    }
}

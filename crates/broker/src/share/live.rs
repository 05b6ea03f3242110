//! Share-partitions that are in use, each a machine behind a lock.
//!
//! A change is decided under the lock, appended to `__share_group_state`, and applied before the
//! lock is let go, so that nobody sees a change that is not in the log. Whoever answers a member
//! waits outside the lock until it is durable.
//!
//! Locks are taken in the order `Shares.live`, [`Live`]'s state, the shard of the states, its
//! partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use fleuve_coordinator::Now;
use fleuve_coordinator::share_partition::{
    AcknowledgeError, AcknowledgementBatch, Acquire, AcquireMode, Acquired, Change, Fetched,
    SharePartition,
};
use fleuve_coordinator::share_state::{ShareKey, ShareStateError, UNINITIALIZED_START, Written};
use fleuve_metadata::config::OffsetReset;
use fleuve_os::Clock;
use fleuve_protocol::Str;
use fleuve_storage::LogError;
use fleuve_types::Uuid;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::sessions::Sessions;
use super::states::{ShareStates, StateError, Stored};
use super::terms::ShareTerms;
use crate::node::Node;
use crate::partition::Partition;
use crate::purgatory::Waiters;

/// Stands for "no deadline" where a number is needed.
pub(super) const NEVER: i64 = i64::MAX;

/// The share-partitions and sessions of a broker.
#[derive(Debug)]
pub(crate) struct Shares {
    pub(crate) states: ShareStates,
    pub(crate) sessions: Sessions,
    pub(super) clock: Arc<dyn Clock>,
    live: Mutex<HashMap<ShareKey, Arc<Live>>>,
    /// When the ticking task means to wake up, in monotonic milliseconds.
    pub(super) planned_ms: AtomicI64,
    pub(super) replan: Notify,
}

/// A share-partition in use.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) key: ShareKey,
    pub(crate) partition: Arc<Partition>,
    /// Fetches that wait for records to become available, beside those that wait for new ones.
    pub(crate) waiters: Arc<Waiters>,
    state: Mutex<State>,
    deadline_ms: AtomicI64,
}

#[derive(Debug)]
struct State {
    machine: SharePartition,
    state_epoch: i32,
    leader_epoch: i32,
    /// The state was set anew, or is gone: another machine takes this one's place.
    is_fenced: bool,
}

/// Where to read for records that may be acquired.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) offset: i64,
    /// Up to where.
    pub(crate) limit: i64,
}

/// Why nothing can be done with a share-partition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveError {
    #[error("the group has no state for this partition")]
    Uninitialized,
    #[error("the share-partition was set anew meanwhile")]
    Fenced,
    #[error(transparent)]
    State(StateError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Refused(#[from] AcknowledgeError),
}

impl From<StateError> for LiveError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Refused(ShareStateError::Uninitialized) => Self::Uninitialized,
            StateError::Refused(_) => Self::Fenced,
            StateError::NotAvailable => Self::State(error),
        }
    }
}

impl Shares {
    /// Makes a driver without share-partitions.
    pub(crate) fn new(states: ShareStates, sessions_max: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            states,
            sessions: Sessions::new(sessions_max),
            clock,
            live: Mutex::default(),
            planned_ms: AtomicI64::new(NEVER),
            replan: Notify::new(),
        }
    }

    /// The time by which locks are measured.
    pub(crate) fn now_ms(&self) -> i64 {
        Now::read(&*self.clock).monotonic_ms
    }

    /// The share-partition, if it is in use.
    pub(crate) fn find(&self, key: &ShareKey) -> Option<Arc<Live>> {
        self.live.lock().get(key).cloned()
    }

    /// The share-partition, from its state in the log if it is not in use yet.
    pub(crate) fn find_or_load(
        &self,
        node: &Node,
        key: &ShareKey,
        partition: &Arc<Partition>,
        terms: &ShareTerms,
    ) -> Result<Arc<Live>, LiveError> {
        if let Some(live) = self.find(key) {
            return Ok(live);
        }
        // Asked before any lock is taken, as groups have theirs above ours.
        let known_epoch = node.groups.shard_of(&key.group).ok().and_then(|shard| {
            shard.read(|machine| machine.share_state_epoch(&key.group, key.topic_id, key.partition))
        });
        let mut all = self.live.lock();
        if let Some(live) = all.get(key) {
            return Ok(Arc::clone(live));
        }
        let live = Arc::new(self.load(key, partition, terms, known_epoch)?);
        all.insert(live.key.clone(), Arc::clone(&live));
        Ok(live)
    }

    /// Every share-partition in use.
    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        self.live.lock().values().cloned().collect()
    }

    /// The share-partitions of a group that are in use.
    pub(crate) fn of_group(&self, group: &str) -> Vec<Arc<Live>> {
        let live = self.live.lock();
        live.values().filter(|live| *live.key.group == *group).cloned().collect()
    }

    /// Puts the share-partitions of a group out of use; their states stay.
    pub(crate) fn retire_group(&self, group: &str) {
        self.retire(|key| *key.group == *group);
    }

    /// Puts the share-partitions of a topic out of use, because it is gone.
    pub(crate) fn retire_topic(&self, topic_id: Uuid) {
        self.retire(|key| key.topic_id == topic_id);
    }

    /// Puts all share-partitions out of use.
    pub(crate) fn retire_all(&self) {
        self.retire(|_| true);
    }

    /// Gives back what a member has, and ends its session; with the last one of a group without
    /// members its share-partitions go out of use.
    pub(crate) fn member_gone(&self, node: &Node, group: &Str, member: &Str) -> Vec<Stored> {
        self.sessions.end(group, member);
        let terms = ShareTerms::of(node, group);
        let released = self.of_group(group).into_iter().filter_map(|live| {
            let released = live.release(&self.states, member, &terms);
            self.put_aside_if_fenced(&live, &released);
            released.ok().flatten()
        });
        let released = released.collect();
        if !self.sessions.has_any(group)
            && let Ok(shard) = node.groups.shard_of(group)
            && shard.read(|machine| machine.is_empty_share_group(group))
        {
            self.retire_group(group);
        }
        released
    }

    /// Forgets a share-partition whose state is no longer the one that it works on.
    pub(crate) fn put_aside_if_fenced<T>(&self, live: &Live, outcome: &Result<T, LiveError>) {
        if matches!(outcome, Err(LiveError::Fenced | LiveError::Uninitialized)) {
            self.retire(|key| *key == live.key);
        }
    }

    /// Wakes the ticking task if a lock ends earlier than planned.
    pub(crate) fn plan(&self, live: &Live) {
        if live.deadline_ms() < self.planned_ms.load(Ordering::Acquire) {
            self.replan.notify_one();
        }
    }

    fn retire(&self, is_meant: impl Fn(&ShareKey) -> bool) {
        let retired: Vec<Arc<Live>> =
            self.live.lock().extract_if(|key, _| is_meant(key)).map(|(_, live)| live).collect();
        for live in retired {
            live.state.lock().is_fenced = true;
            live.deadline_ms.store(NEVER, Ordering::Release);
            live.waiters.wake_fetches();
        }
    }

    fn load(
        &self,
        key: &ShareKey,
        partition: &Arc<Partition>,
        terms: &ShareTerms,
        known_epoch: Option<i32>,
    ) -> Result<Live, LiveError> {
        let leader_epoch = partition.leader_epoch();
        let read = match (self.states.read(key, leader_epoch), known_epoch) {
            // The group's log says that the state has begun, but a crash has taken it.
            (Err(StateError::Refused(ShareStateError::Uninitialized)), Some(epoch)) => {
                self.states.initialize(key, epoch, UNINITIALIZED_START)?;
                self.states.read(key, leader_epoch)
            }
            (read, _) => read,
        };
        let (state, _) = read?;
        let log_start = partition.log_start_offset();
        let start = match (state.start_offset, terms.reset) {
            (known @ 0.., _) => known,
            (_, OffsetReset::Earliest) => log_start,
            (_, OffsetReset::Latest) => partition.high_watermark(),
            (_, OffsetReset::ByDuration { ms }) => {
                let since = self.clock.wall_ms().saturating_sub(ms);
                let found = partition.offset_for_timestamp(since)?;
                found.map_or(partition.high_watermark(), |found| found.offset)
            }
        };
        if state.start_offset < 0 {
            // Kafka forgets where a group began until its first acknowledgement; after a restart
            // it begins anew then, beyond what has come meanwhile.
            let written = Written {
                state_epoch: state.state_epoch,
                leader_epoch,
                start_offset: start,
                delivery_complete_count: 0,
                batches: Vec::new(),
            };
            self.states.write(key, &written)?;
        }
        let mut machine = SharePartition::load(start, &state.batches);
        machine.handle_log_start(log_start);
        let state_epoch = state.state_epoch;
        Ok(Live {
            key: key.detach(),
            partition: Arc::clone(partition),
            waiters: Arc::default(),
            state: Mutex::new(State { machine, state_epoch, leader_epoch, is_fenced: false }),
            deadline_ms: AtomicI64::new(NEVER),
        })
    }
}

impl Live {
    /// Where to read; nothing if nothing may be acquired there now.
    pub(crate) fn plan(&self, terms: &ShareTerms) -> Result<Option<Plan>, LiveError> {
        let mut state = self.usable()?;
        state.machine.handle_log_start(self.partition.log_start_offset());
        let offset = state.machine.fetch_offset();
        let limit = match terms.read_committed {
            true => self.partition.last_stable_offset(),
            false => self.partition.high_watermark(),
        };
        let is_worth_it = state.machine.can_acquire(terms.locks_max) && offset < limit;
        Ok(is_worth_it.then_some(Plan { offset, limit }))
    }

    /// Gives a member what may be acquired of what was read.
    pub(crate) fn acquire(
        &self,
        request: &Acquisition<'_>,
        fetched: &[Fetched],
    ) -> Result<Vec<Acquired>, LiveError> {
        let mut state = self.usable()?;
        let acquire = Acquire {
            member: request.member,
            mode: request.mode,
            records_max: request.records_max,
            batch_size: request.batch_size,
            locks_max: request.terms.locks_max,
            delivery_count_max: request.terms.delivery_count_max,
            deadline_ms: request.now_ms + i64::from(request.terms.lock_ms),
            fetch_offset: request.fetch_offset,
        };
        let acquired = state.machine.acquire(&acquire, fetched);
        self.note_deadline(&state);
        Ok(acquired)
    }

    /// Takes in what a member says about its records; nothing of it if anything is wrong.
    pub(crate) fn acknowledge(
        &self,
        states: &ShareStates,
        member: &Str,
        batches: &[AcknowledgementBatch],
        (terms, now_ms): (&ShareTerms, i64),
    ) -> Result<Option<Stored>, LiveError> {
        let state = self.usable()?;
        let terms = terms.for_acknowledging(now_ms);
        let change = state.machine.acknowledge(member, batches, terms)?;
        let stored = self.store(states, &state, &change)?;
        self.take_in(state, &change);
        Ok(stored)
    }

    /// Gives back what a member has.
    pub(crate) fn release(
        &self,
        states: &ShareStates,
        member: &str,
        terms: &ShareTerms,
    ) -> Result<Option<Stored>, LiveError> {
        let state = self.usable()?;
        if !state.machine.is_held_by(member) {
            return Ok(None);
        }
        let change = state.machine.release(member, terms.delivery_count_max);
        let stored = self.store(states, &state, &change);
        // The member will not come back for them, whatever the log says.
        self.take_in(state, &change);
        stored
    }

    /// Gives back whatever has been kept for too long.
    pub(crate) fn expire(
        &self,
        states: &ShareStates,
        now_ms: i64,
        terms: &ShareTerms,
    ) -> Result<(), LiveError> {
        let mut state = self.usable()?;
        let change = state.machine.expire(now_ms, terms.delivery_count_max);
        // Whether the count of deliveries is written down or not, the time is over.
        let stored = self.store(states, &state, &change);
        self.take_in(state, &change);
        stored.map(|_| ())
    }

    /// When the next lock ends, in monotonic milliseconds.
    pub(crate) fn deadline_ms(&self) -> i64 {
        self.deadline_ms.load(Ordering::Acquire)
    }

    fn usable(&self) -> Result<parking_lot::MutexGuard<'_, State>, LiveError> {
        let state = self.state.lock();
        if state.is_fenced { Err(LiveError::Fenced) } else { Ok(state) }
    }

    fn store(
        &self,
        states: &ShareStates,
        state: &State,
        change: &Change,
    ) -> Result<Option<Stored>, LiveError> {
        if change.is_soft() {
            return Ok(None);
        }
        let written = Written {
            state_epoch: state.state_epoch,
            leader_epoch: state.leader_epoch,
            start_offset: change.start,
            delivery_complete_count: change.delivery_complete_count,
            batches: change.to_write(),
        };
        Ok(Some(states.write(&self.key, &written)?))
    }

    fn take_in(&self, mut state: parking_lot::MutexGuard<'_, State>, change: &Change) {
        let start = state.machine.start_offset();
        state.machine.apply(change);
        let makes_room = state.machine.start_offset() != start || change.releases();
        self.note_deadline(&state);
        drop(state);
        if makes_room {
            self.waiters.wake_fetches();
        }
    }

    fn note_deadline(&self, state: &State) {
        let deadline_ms = state.machine.next_deadline().unwrap_or(NEVER);
        self.deadline_ms.store(deadline_ms, Ordering::Release);
    }
}

/// A member asks for records of one share-partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acquisition<'a> {
    pub(crate) member: &'a Str,
    pub(crate) mode: AcquireMode,
    pub(crate) records_max: i64,
    pub(crate) batch_size: i64,
    pub(crate) terms: &'a ShareTerms,
    pub(crate) now_ms: i64,
    pub(crate) fetch_offset: i64,
}

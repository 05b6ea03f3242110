//! Incremental fetch sessions (KIP-227).
//!
//! A consumer of many partitions would repeat all of them in every fetch. With a session both
//! sides remember the list: requests carry what changed, responses what is new. This room holds
//! the sessions and decides; the fetch handler reads logs and speaks the protocol.
//!
//! ```text
//! request id, epoch   meaning
//! any,  -1            no session wanted; end the named one
//! any,   0            full request; end the named session and begin a new one
//! id,    n            the n-th incremental request of session id, n counted from 1
//! ```
//!
//! The cache is bounded. A session makes room for another when it was not used for the eviction
//! time, or when it is older than that and less valuable: followers count for more than
//! consumers, more partitions for more than fewer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_types::Uuid;
use parking_lot::Mutex;

/// A session younger than this is not evicted for a more valuable one, nor an unused one earlier.
const EVICTION_MS: i64 = 120_000;
/// The epoch of a request that wants no session, or ends one.
pub(crate) const FINAL_EPOCH: i32 = -1;
/// The epoch of a request that begins a session.
pub(crate) const INITIAL_EPOCH: i32 = 0;
/// The id that stands for "no session".
pub(crate) const NO_SESSION: i32 = 0;

/// How a fetch names a topic: by id from version 13 on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicRef {
    Name(Str),
    Id(Uuid),
}

/// One partition that a fetch asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicRef,
    pub(crate) partition: i32,
    pub(crate) fetch_offset: i64,
    pub(crate) bytes_max: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
}

/// What a response would say of one partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) has_records: bool,
    pub(crate) failed: bool,
    pub(crate) diverging: bool,
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
}

/// The session part of a fetch request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) session_id: i32,
    pub(crate) epoch: i32,
    pub(crate) by_topic_id: bool,
    pub(crate) from_follower: bool,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) forgotten: Vec<(TopicRef, i32)>,
}

/// Why a request does not fit its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionError {
    NotFound,
    WrongEpoch,
    TopicIdMismatch,
}

/// A fetch between request and response.
#[derive(Debug)]
pub(crate) struct Fetch {
    wanted: Vec<Wanted>,
    course: Course,
}

#[derive(Debug)]
enum Course {
    Sessionless,
    Full { by_topic_id: bool, from_follower: bool },
    Incremental { id: i32, session: Arc<Mutex<Session>>, epoch_after: i32 },
}

/// What a response must contain.
#[derive(Debug, PartialEq)]
pub(crate) struct Selection {
    pub(crate) session_id: i32,
    /// For each wanted partition whether it belongs into the response.
    pub(crate) include: Vec<bool>,
}

/// All sessions of a broker.
#[derive(Debug)]
pub(crate) struct SessionCache {
    slots_max: usize,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    slots: HashMap<i32, Slot>,
    by_last_use: BTreeSet<(i64, i32)>,
    evictable_by_all: BTreeSet<Value>,
    evictable_by_followers: BTreeSet<Value>,
    partitions: usize,
    evictions: u64,
}

/// Orders sessions by what they are worth keeping; the id makes it unique.
type Value = (bool, usize, i32);

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    from_follower: bool,
    by_topic_id: bool,
    created_ms: i64,
    used_ms: i64,
    size: usize,
}

/// The partitions of one session, in the order in which the next fetch reads them.
#[derive(Debug)]
struct Session {
    epoch: i32,
    partitions: BTreeMap<u64, Remembered>,
    positions: HashMap<(TopicRef, i32), u64>,
    next_position: u64,
}

#[derive(Debug)]
struct Remembered {
    wanted: Wanted,
    high_watermark: i64,
    log_start_offset: i64,
}

impl TopicRef {
    /// Copies a name out of the frame it came in, which it would keep alive.
    fn detach(&self) -> Self {
        match self {
            Self::Name(name) => Self::Name(name.detach()),
            Self::Id(id) => Self::Id(*id),
        }
    }
}

impl Fetch {
    /// The partitions to read, in this order.
    pub(crate) fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    /// The session that it belongs to, if that was there before.
    pub(crate) fn session_id(&self) -> i32 {
        match self.course {
            Course::Incremental { id, .. } => id,
            Course::Sessionless | Course::Full { .. } => NO_SESSION,
        }
    }
}

impl SessionCache {
    /// Makes a cache for up to `slots_max` sessions.
    pub(crate) fn new(slots_max: usize) -> Self {
        Self { slots_max, state: Mutex::default() }
    }

    /// Sessions, partitions in them and evictions so far.
    pub(crate) fn usage(&self) -> (usize, usize, u64) {
        let state = self.state.lock();
        (state.slots.len(), state.partitions, state.evictions)
    }

    /// Finds out what a request asks for, with what its session remembers.
    pub(crate) fn begin(&self, request: Request, now_ms: i64) -> Result<Fetch, SessionError> {
        if request.epoch == FINAL_EPOCH || request.epoch == INITIAL_EPOCH {
            if request.session_id != NO_SESSION {
                self.state.lock().remove(request.session_id);
            }
            let course = if request.epoch == FINAL_EPOCH {
                Course::Sessionless
            } else {
                Course::Full {
                    by_topic_id: request.by_topic_id,
                    from_follower: request.from_follower,
                }
            };
            return Ok(Fetch { wanted: request.wanted, course });
        }
        let id = request.session_id;
        let mut state = self.state.lock();
        let slot = state.slots.get(&id).ok_or(SessionError::NotFound)?;
        let shared = Arc::clone(&slot.session);
        let mut session = shared.lock();
        if session.epoch != request.epoch {
            return Err(SessionError::WrongEpoch);
        }
        if slot.by_topic_id != request.by_topic_id {
            return Err(SessionError::TopicIdMismatch);
        }
        session.update(request.wanted, &request.forgotten);
        let wanted: Vec<Wanted> =
            session.partitions.values().map(|known| known.wanted.clone()).collect();
        if wanted.is_empty() {
            state.remove(id);
            return Ok(Fetch { wanted, course: Course::Sessionless });
        }
        session.epoch = following_epoch(session.epoch);
        let epoch_after = session.epoch;
        drop(session);
        state.touch(id, wanted.len(), now_ms);
        let course = Course::Incremental { id, session: shared, epoch_after };
        Ok(Fetch { wanted, course })
    }

    /// Decides what the response contains; `seen` describes each wanted partition in order.
    ///
    /// `random` makes the id of a new session, which should not be guessable from earlier ones.
    pub(crate) fn finish(
        &self,
        fetch: &Fetch,
        seen: &[Seen],
        now_ms: i64,
        mut random: impl FnMut() -> u64,
    ) -> Result<Selection, (SessionError, i32)> {
        match &fetch.course {
            Course::Sessionless => {
                Ok(Selection { session_id: NO_SESSION, include: vec![true; seen.len()] })
            }
            Course::Full { by_topic_id, from_follower } => {
                let session = Session::new(&fetch.wanted, seen);
                let slot = Slot {
                    size: session.partitions.len(),
                    session: Arc::new(Mutex::new(session)),
                    from_follower: *from_follower,
                    by_topic_id: *by_topic_id,
                    created_ms: now_ms,
                    used_ms: now_ms,
                };
                let session_id =
                    self.state.lock().insert(slot, self.slots_max, now_ms, &mut random);
                Ok(Selection { session_id, include: vec![true; seen.len()] })
            }
            Course::Incremental { id, session, epoch_after } => {
                let mut session = session.lock();
                if session.epoch != *epoch_after {
                    // Another request of the session overtook this one.
                    return Err((SessionError::WrongEpoch, *id));
                }
                let include = fetch
                    .wanted
                    .iter()
                    .zip(seen)
                    .map(|(wanted, seen)| session.remember(wanted, *seen))
                    .collect();
                Ok(Selection { session_id: *id, include })
            }
        }
    }
}

impl CacheState {
    /// Stores a session if there is room or room can be made, and returns its id or none.
    fn insert(
        &mut self,
        slot: Slot,
        slots_max: usize,
        now_ms: i64,
        random: &mut impl FnMut() -> u64,
    ) -> i32 {
        if slot.size == 0 {
            return NO_SESSION;
        }
        if self.slots.len() >= slots_max && !self.make_room(&slot, now_ms) {
            return NO_SESSION;
        }
        let id = loop {
            let id = (random() as i32) & i32::MAX;
            if id != NO_SESSION && !self.slots.contains_key(&id) {
                break id;
            }
        };
        let size = slot.size;
        self.by_last_use.insert((now_ms, id));
        self.partitions += size;
        self.slots.insert(id, slot);
        self.touch(id, size, now_ms);
        id
    }

    fn make_room(&mut self, newcomer: &Slot, now_ms: i64) -> bool {
        let Some(&(used_ms, oldest)) = self.by_last_use.first() else { return false };
        let evicted = if now_ms - used_ms > EVICTION_MS {
            oldest
        } else {
            let evictable = if newcomer.from_follower {
                &self.evictable_by_followers
            } else {
                &self.evictable_by_all
            };
            match evictable.first() {
                Some(&cheapest) if (newcomer.from_follower, newcomer.size, 0) >= cheapest => {
                    cheapest.2
                }
                _ => return false,
            }
        };
        self.remove(evicted);
        self.evictions += 1;
        true
    }

    fn touch(&mut self, id: i32, size: usize, now_ms: i64) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let old_value = (slot.from_follower, slot.size, id);
        self.evictable_by_all.remove(&old_value);
        self.evictable_by_followers.remove(&old_value);
        self.by_last_use.remove(&(slot.used_ms, id));
        self.partitions = self.partitions + size - slot.size;
        slot.used_ms = now_ms;
        slot.size = size;
        self.by_last_use.insert((now_ms, id));
        let value = (slot.from_follower, size, id);
        let grown_up = now_ms - slot.created_ms > EVICTION_MS;
        if grown_up {
            self.evictable_by_all.insert(value);
        }
        if grown_up || !slot.from_follower {
            self.evictable_by_followers.insert(value);
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            let value = (slot.from_follower, slot.size, id);
            self.evictable_by_all.remove(&value);
            self.evictable_by_followers.remove(&value);
            self.by_last_use.remove(&(slot.used_ms, id));
            self.partitions -= slot.size;
        }
    }
}

impl Session {
    fn new(wanted: &[Wanted], seen: &[Seen]) -> Self {
        let mut session = Self {
            epoch: following_epoch(INITIAL_EPOCH),
            partitions: BTreeMap::new(),
            positions: HashMap::new(),
            next_position: 0,
        };
        for (wanted, seen) in wanted.iter().zip(seen) {
            session.add(wanted.clone(), seen.high_watermark, seen.log_start_offset);
        }
        session
    }

    fn add(&mut self, mut wanted: Wanted, high_watermark: i64, log_start_offset: i64) {
        wanted.topic = wanted.topic.detach();
        let key = (wanted.topic.clone(), wanted.partition);
        let position = self.next_position;
        self.next_position += 1;
        if let Some(earlier) = self.positions.insert(key, position) {
            self.partitions.remove(&earlier);
        }
        self.partitions.insert(position, Remembered { wanted, high_watermark, log_start_offset });
    }

    fn update(&mut self, wanted: Vec<Wanted>, forgotten: &[(TopicRef, i32)]) {
        for wanted in wanted {
            let key = (wanted.topic.clone(), wanted.partition);
            match self.positions.get(&key).and_then(|at| self.partitions.get_mut(at)) {
                Some(known) => {
                    let topic = known.wanted.topic.clone();
                    known.wanted = Wanted { topic, ..wanted };
                }
                None => self.add(wanted, -1, -1),
            }
        }
        for key in forgotten {
            if let Some(position) = self.positions.remove(key) {
                self.partitions.remove(&position);
            }
        }
    }

    /// Notes what the response says and returns whether it has to say it.
    fn remember(&mut self, wanted: &Wanted, seen: Seen) -> bool {
        let key = (wanted.topic.clone(), wanted.partition);
        let Some(position) = self.positions.get(&key).copied() else { return true };
        let known = self.partitions.get_mut(&position).expect("positions and partitions agree");
        let changed = seen.has_records
            || seen.failed
            || seen.diverging
            || known.high_watermark != seen.high_watermark
            || known.log_start_offset != seen.log_start_offset;
        // An impossible high watermark makes the partition appear again once the error is over.
        known.high_watermark = if seen.failed { -1 } else { seen.high_watermark };
        known.log_start_offset = seen.log_start_offset;
        if seen.has_records {
            // To the end of the order, so that a busy partition does not starve those behind it.
            if let Some(known) = self.partitions.remove(&position) {
                self.partitions.insert(self.next_position, known);
                self.positions.insert(key, self.next_position);
                self.next_position += 1;
            }
        }
        changed
    }
}

fn following_epoch(epoch: i32) -> i32 {
    match epoch {
        FINAL_EPOCH => FINAL_EPOCH,
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

#[cfg(test)]
#[path = "fetch_session_tests.rs"]
mod tests;

//! What a share consumer has in its hands, and what is to be said about it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleuve_types::{TopicPartition, Uuid};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::records::ShareRecords;
use crate::error::{Error, Result};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// It was worked on; nobody gets it again.
    Accept,
    /// It was not, and somebody may get it again.
    Release,
    /// It cannot be worked on; nobody gets it again.
    Reject,
    /// It still is being worked on: its lock begins anew, and it stays in hand (KIP-1222).
    Renew,
}

impl Acknowledge {
    pub(super) fn code(self) -> i8 {
        match self {
            Self::Accept => 1,
            Self::Release => 2,
            Self::Reject => 3,
            Self::Renew => RENEW,
        }
    }
}

/// The type of an offset where there is no record for the application.
pub(super) const GAP: i8 = 0;
/// The type of records whose lock is to begin anew.
pub(super) const RENEW: i8 = 4;

/// Where a record in hand stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// Nothing was said about it.
    Open,
    /// This will be told.
    Said(Acknowledge),
    /// Its lock was renewed; it may be acknowledged at any time.
    Renewed,
}

/// The records of one partition that polls gave and that are not told about yet.
struct InHand {
    topic_id: Uuid,
    /// The broker that gave them, which is the one to tell.
    broker: i32,
    marks: BTreeMap<i64, Mark>,
}

/// Acknowledgements of one partition.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) topic_id: Uuid,
    /// First offset, last offset and type.
    pub(super) runs: Vec<(i64, i64, i8)>,
    /// Who waits to hear what became of them.
    pub(super) tellers: Vec<UnboundedSender<(TopicPartition, Result<()>)>>,
}

impl Outgoing {
    /// Adds a run to what is to be told.
    pub(super) fn add(&mut self, first: i64, last: i64, code: i8) {
        match self.runs.last_mut() {
            Some((_, end, same)) if *same == code && end.checked_add(1) == Some(first) => {
                *end = last;
            }
            _ => self.runs.push((first, last, code)),
        }
    }

    /// Brings runs into the order that brokers insist on.
    pub(super) fn sort(&mut self) {
        self.runs.sort_unstable();
    }

    pub(super) fn has_renewals(&self) -> bool {
        self.runs.iter().any(|(_, _, code)| *code == RENEW)
    }
}

/// Records acquired and not given out yet.
pub(super) struct Acquired {
    pub(super) topic_id: Uuid,
    pub(super) broker: i32,
    pub(super) records: ShareRecords,
}

/// What the lock of a share consumer guards.
pub(super) struct State {
    pub(super) subscription: Arc<[Arc<str>]>,
    /// Raised by every change of the subscription.
    pub(super) subscription_version: u64,
    pub(super) closing: bool,
    /// To be reported by the next poll.
    pub(super) errors: VecDeque<Error>,
    /// What the group assigned, by topic id.
    pub(super) assigned: BTreeSet<(Uuid, i32)>,
    pub(super) member_id: String,
    pub(super) member_epoch: i32,
    /// Whether the application waits inside a poll.
    pub(super) polling: bool,
    pub(super) last_poll: Instant,
    pub(super) lock_timeout: Option<Duration>,
    ready: VecDeque<Acquired>,
    in_hand: HashMap<TopicPartition, InHand>,
    /// To be told, by broker.
    pub(super) outgoing: HashMap<i32, HashMap<TopicPartition, Outgoing>>,
    /// Being told: who else wants to hear of it.
    pub(super) in_flight: HashMap<i32, Vec<(TopicPartition, Outgoing)>>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            subscription: Arc::new([]),
            subscription_version: 0,
            closing: false,
            errors: VecDeque::new(),
            assigned: BTreeSet::new(),
            member_id: String::new(),
            member_epoch: 0,
            polling: false,
            last_poll: Instant::now(),
            lock_timeout: None,
            ready: VecDeque::new(),
            in_hand: HashMap::new(),
            outgoing: HashMap::new(),
            in_flight: HashMap::new(),
        }
    }

    pub(super) fn check_open(&self, call: &str) -> Result<()> {
        if self.closing {
            return Err(Error::state(format!("{call} on a closed share consumer")));
        }
        Ok(())
    }

    /// Reports whether the application waits for records that nobody has fetched.
    pub(super) fn wants_records(&self) -> bool {
        self.polling && self.ready.is_empty()
    }

    /// Keeps records until a poll asks for them, and queues what is to be said about offsets
    /// without any.
    pub(super) fn store(&mut self, acquired: Acquired, gaps: &[(i64, i64)]) {
        let Acquired { topic_id, broker, records } = &acquired;
        if !gaps.is_empty() {
            let theirs = self.outgoing.entry(*broker).or_default();
            let outgoing = theirs.entry(records.partition().clone()).or_default();
            outgoing.topic_id = *topic_id;
            for &(first, last) in gaps {
                outgoing.add(first, last, GAP);
            }
        }
        if !acquired.records.is_empty() {
            self.ready.push_back(acquired);
        }
    }

    /// Gives the records that have waited longest into the application's hands.
    pub(super) fn hand_out(&mut self) -> Option<ShareRecords> {
        let Acquired { topic_id, broker, records } = self.ready.pop_front()?;
        let marks = records.iter().map(|record| (record.offset.0, Mark::Open)).collect();
        let before = self.in_hand.get_mut(records.partition());
        match before {
            Some(in_hand) if in_hand.broker == broker && in_hand.topic_id == topic_id => {
                in_hand.marks.extend::<BTreeMap<_, _>>(marks);
            }
            // What another leader gave is not ours any more.
            _ => {
                let in_hand = InHand { topic_id, broker, marks };
                self.in_hand.insert(records.partition().clone(), in_hand);
            }
        }
        Some(records)
    }

    /// Says what became of one record.
    pub(super) fn say(
        &mut self,
        partition: &TopicPartition,
        offset: i64,
        verdict: Acknowledge,
    ) -> Result<()> {
        let in_hand = self.in_hand.get_mut(partition);
        let mark = in_hand.and_then(|in_hand| in_hand.marks.get_mut(&offset));
        let Some(mark) = mark else {
            return Err(Error::state(format!(
                "acknowledge of offset {offset} of {partition}, which no poll gave or which is \
                 acknowledged already"
            )));
        };
        *mark = Mark::Said(verdict);
        Ok(())
    }

    /// Accepts everything in hand that nothing was said about.
    pub(super) fn accept_all(&mut self) {
        for mark in self.in_hand.values_mut().flat_map(|in_hand| in_hand.marks.values_mut()) {
            if *mark == Mark::Open {
                *mark = Mark::Said(Acknowledge::Accept);
            }
        }
    }

    /// Returns a record in hand that nothing was said about.
    pub(super) fn first_open(&self) -> Option<(&TopicPartition, i64)> {
        self.in_hand.iter().find_map(|(partition, in_hand)| {
            let open = in_hand.marks.iter().find(|(_, mark)| **mark == Mark::Open);
            open.map(|(offset, _)| (partition, *offset))
        })
    }

    /// Queues what was said for the brokers; records stay in hand only to be renewed.
    pub(super) fn queue_said(&mut self) {
        for (partition, in_hand) in &mut self.in_hand {
            let mut said = Vec::new();
            in_hand.marks.retain(|&offset, mark| {
                let Mark::Said(verdict) = *mark else { return true };
                said.push((offset, verdict.code()));
                *mark = Mark::Renewed;
                verdict == Acknowledge::Renew
            });
            if said.is_empty() {
                continue;
            }
            let theirs = self.outgoing.entry(in_hand.broker).or_default();
            let outgoing = theirs.entry(partition.clone()).or_default();
            outgoing.topic_id = in_hand.topic_id;
            for (offset, code) in said {
                outgoing.add(offset, offset, code);
            }
        }
        self.in_hand.retain(|_, in_hand| !in_hand.marks.is_empty());
    }

    /// Lets `teller` hear of every acknowledgement that is queued or on its way.
    pub(super) fn tell_all(&mut self, teller: &UnboundedSender<(TopicPartition, Result<()>)>) {
        let queued = self.outgoing.values_mut().flat_map(HashMap::values_mut);
        let in_flight = self.in_flight.values_mut().flatten().map(|(_, outgoing)| outgoing);
        for outgoing in queued.chain(in_flight) {
            outgoing.tellers.push(teller.clone());
        }
    }

    /// Forgets the membership: the group has given this member up.
    pub(super) fn lose_assignment(&mut self) {
        self.assigned.clear();
        self.member_epoch = 0;
    }
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::{BatchBuilder, BatchOptions, Decompressor, NewRecord};

    use super::super::records::undo;
    use super::*;

    fn acquire(state: &mut State, count: usize) -> TopicPartition {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..count {
            builder.append(&NewRecord::default()).expect("room");
        }
        let partition = TopicPartition::new("t", 0);
        let acquired = vec![(0, count as i64 - 1, 1)];
        let bytes = builder.finish();
        let (records, gaps) =
            undo(partition.clone(), bytes, acquired, &mut Decompressor::new(1 << 20)).expect("ok");
        let acquired = Acquired { topic_id: Uuid([1; 16]), broker: 7, records };
        state.store(acquired, &gaps);
        state.hand_out().expect("records");
        partition
    }

    fn queued(state: &State) -> Vec<(i64, i64, i8)> {
        let theirs = state.outgoing.get(&7).into_iter().flat_map(HashMap::values);
        theirs.flat_map(|outgoing| outgoing.runs.clone()).collect()
    }

    #[test]
    fn what_was_said_is_queued_in_runs_and_leaves_the_hands() {
        let mut state = State::new();
        let partition = acquire(&mut state, 5);
        for (offset, verdict) in [
            (0, Acknowledge::Accept),
            (1, Acknowledge::Accept),
            (2, Acknowledge::Reject),
            (4, Acknowledge::Release),
        ] {
            state.say(&partition, offset, verdict).expect("in hand");
        }
        assert_eq!(state.first_open(), Some((&partition, 3)));
        state.queue_said();
        assert_eq!(queued(&state), [(0, 1, 1), (2, 2, 3), (4, 4, 2)]);
        assert!(state.say(&partition, 0, Acknowledge::Accept).is_err(), "told already");
        state.accept_all();
        state.queue_said();
        assert_eq!(queued(&state).last(), Some(&(3, 3, 1)));
        assert!(state.first_open().is_none());
    }

    #[test]
    fn a_renewed_record_stays_in_hand_and_holds_up_nothing() {
        let mut state = State::new();
        let partition = acquire(&mut state, 1);
        state.say(&partition, 0, Acknowledge::Renew).expect("in hand");
        state.queue_said();
        assert!(state.first_open().is_none());
        state.accept_all();
        state.queue_said();
        assert_eq!(queued(&state), [(0, 0, RENEW)], "implicitly nothing more is said about it");
        state.say(&partition, 0, Acknowledge::Accept).expect("still in hand");
    }

    #[test]
    fn everybody_who_waits_hears_of_what_is_queued() {
        let mut state = State::new();
        acquire(&mut state, 1);
        state.accept_all();
        state.queue_said();
        let (teller, _told) = tokio::sync::mpsc::unbounded_channel();
        state.tell_all(&teller);
        state.tell_all(&teller);
        let outgoing = state.outgoing.values().flat_map(HashMap::values).next().expect("queued");
        assert_eq!(outgoing.tellers.len(), 2);
    }
}

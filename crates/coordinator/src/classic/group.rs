//! A classic group: its members, and the bookkeeping that must stay true of them.
//!
//! Invariants, whoever calls:
//! - `awaiting_join` counts the members with a waiting join;
//! - `supported` counts, per assignor, the members that support it;
//! - `static_members` maps every instance id of a member to that member's id, and nothing else;
//! - the leader is a member, unless the group has none;
//! - a waiting request is answered before its member is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_types::{Offset, TimestampMs};

use super::api::{JoinRefusal, Joined, JoinedMember, Protocol};
use super::member::Member;
use super::state::State;
use super::stored;
use crate::context::Context;
use crate::error::GroupError;
use crate::history::History;
use crate::step::{Response, Token};
use crate::timers::Purpose;

/// The protocol type of consumers, whose subscriptions the coordinator can read.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// What the members of a group are doing now.
#[derive(Debug)]
pub(crate) struct ClassicGroup {
    pub(super) id: Str,
    pub(super) state: State,
    pub(super) previous_state: State,
    /// When the group entered its state; unknown for groups loaded from old records.
    pub(super) state_since: Option<TimestampMs>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<Str>,
    pub(super) protocol_name: Option<Str>,
    pub(super) leader: Option<Str>,
    /// By member id, so that whatever walks over them is the same in every run.
    pub(super) members: BTreeMap<Str, Member>,
    pub(super) static_members: BTreeMap<Str, Str>,
    /// Ids given to dynamic members that have yet to come back with them.
    pub(super) pending_join: BTreeSet<Str>,
    /// Members that have yet to ask for their assignment.
    pub(super) pending_sync: BTreeSet<Str>,
    pub(super) awaiting_join: usize,
    pub(super) supported: BTreeMap<Str, usize>,
    /// Topics of all members, where the coordinator can tell.
    pub(super) subscribed: Option<BTreeSet<Str>>,
    /// Whether a member joined since the delay of an initial rebalance last began.
    pub(super) new_member_added: bool,
    /// While an empty group gathers members: how to go on when the delay is over.
    pub(super) initial_delay: Option<InitialDelay>,
    pub(super) history: History,
    /// One past the group's last record in the log; replies that tell its content wait for it.
    pub(super) stored_until: Option<Offset>,
}

/// The delay during which an empty group gathers its first members.
#[derive(Clone, Copy, Debug)]
pub(super) struct InitialDelay {
    pub(super) delay_ms: i32,
    pub(super) remaining_ms: i32,
}

impl ClassicGroup {
    /// Makes a group without members, as it is before the first one joins.
    pub(crate) fn empty(id: Str, now: TimestampMs) -> Self {
        Self {
            id,
            state: State::Empty,
            previous_state: State::Dead,
            state_since: Some(now),
            generation: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            awaiting_join: 0,
            supported: BTreeMap::new(),
            subscribed: None,
            new_member_added: false,
            initial_delay: None,
            history: History::default(),
            stored_until: None,
        }
    }

    /// The group's state.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When the group entered its state.
    pub(crate) fn state_since(&self) -> Option<TimestampMs> {
        self.state_since
    }

    /// The current generation.
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// What the members are.
    pub(crate) fn protocol_type(&self) -> Option<&Str> {
        self.protocol_type.as_ref()
    }

    /// The members by id.
    pub(crate) fn members(&self) -> &BTreeMap<Str, Member> {
        &self.members
    }

    /// What a member wants, in the words of the group's assignor or, before there is one, of the
    /// one that the member likes best.
    pub(crate) fn metadata_of<'a>(&self, member: &'a Member) -> Option<&'a Bytes> {
        let chosen = self.protocol_name.as_deref().and_then(|name| member.metadata(name));
        chosen.or_else(|| member.protocols.first().map(|protocol| &protocol.metadata))
    }

    /// Number of members.
    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is in the group, and nobody is on the way into it.
    pub(crate) fn is_deserted(&self) -> bool {
        self.members.is_empty() && self.pending_join.is_empty()
    }

    /// Whether the members are consumers.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether the topics that the members are subscribed to are known.
    pub(crate) fn knows_subscriptions(&self) -> bool {
        self.subscribed.is_some()
    }

    /// Whether a member is subscribed to `topic`, or might be.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    /// Notes that a record of the group was appended just before `offset`.
    pub(crate) fn note_stored(&mut self, offset: Offset) {
        self.stored_until = Some(offset);
    }

    /// Checks that the request comes from a member, and from the right one.
    pub(crate) fn check_member(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = group_instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(existing) if *existing != *member_id => {
                    return Err(GroupError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// Whether the member is the one that assigns.
    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Whether everybody who is expected has joined.
    pub(super) fn have_all_joined(&self) -> bool {
        self.members.len() == self.awaiting_join && self.pending_join.is_empty()
    }

    /// The time that the slowest member may take to rejoin.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// Whether a member of this kind could be in the group together with the others.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| {
                self.supported.get(&protocol.name).copied().unwrap_or(0) == self.members.len()
            })
    }

    /// Moves to another state.
    pub(super) fn transition_to(&mut self, next: State, now: TimestampMs) {
        debug_assert!(self.state.may_become(next), "{} became {next}", self.state);
        self.previous_state = self.state;
        self.state = next;
        self.state_since = Some(now);
    }

    /// Adds a member, whose join waits if `token` is given.
    pub(super) fn add(&mut self, id: Str, mut member: Member, token: Option<Token>) {
        if let Some(instance_id) = &member.group_instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.count_protocols(&member.protocols);
        member.awaiting_join = token;
        self.awaiting_join += usize::from(token.is_some());
        self.pending_join.remove(&id);
        self.members.insert(id, member);
    }

    /// Removes a member or a pending one, and answers whatever it still waits for.
    pub(super) fn remove(&mut self, cx: &mut Context<'_>, id: &str) {
        // Whoever is no longer a member starts over, without an id.
        self.answer_join(cx, id, Err(JoinRefusal::without_id(GroupError::UnknownMemberId)));
        self.answer_sync(cx, id, GroupError::UnknownMemberId);
        if let Some(member) = self.members.remove(id) {
            self.uncount_protocols(&member.protocols);
            if let Some(instance_id) = &member.group_instance_id {
                self.static_members.remove(instance_id);
            }
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_join.remove(id);
        self.pending_sync.remove(id);
        cx.timers.cancel(self.heartbeat(id));
    }

    /// Takes over what a rejoining member says of itself; `token` becomes its waiting join.
    pub(super) fn update(
        &mut self,
        cx: &mut Context<'_>,
        id: &str,
        protocols: Vec<Protocol>,
        timeouts: Timeouts,
        token: Option<Token>,
    ) {
        // A client that lost its connection joins again while its first request still waits here.
        // Kafka forgets that one; we answer it, in case someone listens after all.
        self.refuse_join(cx, id, GroupError::RebalanceInProgress);
        let Some(member) = self.members.get_mut(id) else { return };
        let old = std::mem::replace(&mut member.protocols, protocols.clone());
        member.rebalance_timeout_ms = timeouts.rebalance_ms;
        member.session_timeout_ms = timeouts.session_ms;
        member.awaiting_join = token;
        self.awaiting_join += usize::from(token.is_some());
        self.uncount_protocols(&old);
        self.count_protocols(&protocols);
    }

    /// Gives a static member a new id; whoever used the old one is fenced.
    pub(super) fn replace_static_member(
        &mut self,
        cx: &mut Context<'_>,
        instance_id: &Str,
        old_id: &Str,
        new_id: &Str,
    ) {
        self.refuse_join(cx, old_id, GroupError::FencedInstanceId);
        self.answer_sync(cx, old_id, GroupError::FencedInstanceId);
        let Some(mut member) = self.members.remove(old_id) else { return };
        member.is_new = false;
        self.members.insert(new_id.clone(), member);
        self.static_members.insert(instance_id.clone(), new_id.clone());
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        // Kafka leaves the old id here, and the group rebalances for nothing when its time is up.
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.clone());
        }
        cx.timers.cancel(self.heartbeat(old_id));
        self.expect_heartbeat(cx, new_id);
    }

    /// Answers a waiting join.
    pub(super) fn answer_join(
        &mut self,
        cx: &mut Context<'_>,
        id: &str,
        outcome: Result<Joined, JoinRefusal>,
    ) {
        if let Some(token) = self.members.get_mut(id).and_then(|member| member.awaiting_join.take())
        {
            self.awaiting_join -= 1;
            cx.step.reply_after(token, Response::Join(outcome), self.stored_until);
        }
    }

    /// Refuses a waiting join; the member keeps its id.
    pub(super) fn refuse_join(&mut self, cx: &mut Context<'_>, id: &str, error: GroupError) {
        self.answer_join(cx, id, Err(JoinRefusal { error, member_id: Str::copy_from(id) }));
    }

    /// Answers a waiting sync with an error.
    pub(super) fn answer_sync(&mut self, cx: &mut Context<'_>, id: &str, error: GroupError) {
        if let Some(token) = self.members.get_mut(id).and_then(|member| member.awaiting_sync.take())
        {
            cx.step.reply(token, Response::Sync(Err(error)));
        }
    }

    /// What a member is told of the current generation.
    pub(super) fn joined(&self, member_id: &Str) -> Joined {
        let members = if self.is_leader(member_id) { self.joined_members() } else { Vec::new() };
        Joined {
            member_id: member_id.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone().unwrap_or(Str::EMPTY),
            skip_assignment: false,
            members,
        }
    }

    /// Every member with its subscription for the chosen assignor.
    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        self.members
            .iter()
            .map(|(id, member)| JoinedMember {
                member_id: id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                metadata: member.metadata(protocol).cloned().unwrap_or_default(),
            })
            .collect()
    }

    /// Begins the session of a member anew.
    pub(crate) fn expect_heartbeat(&self, cx: &mut Context<'_>, id: &str) {
        if let Some(member) = self.members.get(id) {
            cx.schedule(self.heartbeat(id), i64::from(member.session_timeout_ms));
        }
    }

    /// Chooses the assignor: each member votes for the first of its own that all support.
    ///
    /// Kafka leaves a draw to the order of a hash map; here the smaller name wins.
    pub(super) fn select_protocol(&self) -> Option<Str> {
        let is_candidate =
            |name: &Str| self.supported.get(name).copied() == Some(self.members.len());
        let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .map(|protocol| &protocol.name)
                .find(|name| is_candidate(name));
            if let Some(name) = vote {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    /// Finds out which topics the members are subscribed to.
    pub(super) fn update_subscriptions(&mut self) {
        self.subscribed = if !self.is_of_consumers() {
            None
        } else if self.members.is_empty() {
            Some(BTreeSet::new())
        } else {
            self.protocol_name.as_deref().and_then(|protocol| {
                let mut topics = BTreeSet::new();
                for member in self.members.values() {
                    topics.extend(stored::subscribed_topics(member.metadata(protocol)?)?);
                }
                Some(topics)
            })
        };
    }

    /// The timer of a member.
    pub(super) fn heartbeat(&self, id: &str) -> Purpose {
        let member =
            self.members.get_key_value(id).map_or_else(|| Str::copy_from(id), |(id, _)| id.clone());
        Purpose::Heartbeat { group: self.id.clone(), member }
    }

    /// The timer of the join phase.
    pub(super) fn join_timer(&self) -> Purpose {
        Purpose::Join { group: self.id.clone() }
    }

    /// The timer of the sync phase.
    pub(super) fn sync_timer(&self) -> Purpose {
        Purpose::Sync { group: self.id.clone() }
    }

    fn count_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn uncount_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.supported.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(&protocol.name);
                }
            }
        }
    }
}

/// The timeouts that a member asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) rebalance_ms: i32,
    pub(super) session_ms: i32,
}

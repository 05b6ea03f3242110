//! Between a group and its record in the log.

use bytes::Bytes;
use fleuve_protocol::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use fleuve_protocol::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use fleuve_protocol::{Message, Reader, Str};
use fleuve_types::TimestampMs;

use super::api::Protocol;
use super::group::ClassicGroup;
use super::member::Member;
use super::rebalance::Trigger;
use super::state::State;
use crate::context::Context;
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::record::Record;

/// The first version of subscriptions; all later ones begin with it.
const SUBSCRIPTION_VERSION: i16 = 0;

/// How records say that a time or timeout is not known.
const UNKNOWN: i64 = -1;

impl ClassicGroup {
    /// Takes up a group where the log left it.
    ///
    /// The log knows only the chosen assignor of each member, and none that are pending.
    pub(crate) fn load(id: Str, value: &GroupMetadataValue, now: TimestampMs) -> Self {
        let mut group = Self::empty(id, now);
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type.clone()).filter(|kind| !kind.is_empty());
        group.protocol_name = value.protocol.clone();
        group.state_since =
            Some(TimestampMs(value.current_state_timestamp)).filter(|at| at.0 != UNKNOWN);
        for stored in &value.members {
            let member = Member {
                group_instance_id: stored.group_instance_id.clone(),
                client_id: stored.client_id.clone(),
                client_host: stored.client_host.clone(),
                rebalance_timeout_ms: if i64::from(stored.rebalance_timeout) == UNKNOWN {
                    stored.session_timeout
                } else {
                    stored.rebalance_timeout
                },
                session_timeout_ms: stored.session_timeout,
                protocols: vec![Protocol {
                    name: value.protocol.clone().unwrap_or(Str::EMPTY),
                    metadata: stored.subscription.clone(),
                }],
                assignment: stored.assignment.clone(),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            };
            if !group.members.contains_key(&stored.member_id) {
                group.add(stored.member_id.clone(), member, None);
            }
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        if let Some(leader) = &value.leader
            && group.members.contains_key(leader)
        {
            group.leader = Some(leader.clone());
        }
        group.update_subscriptions();
        group
    }

    /// Begins the sessions of a loaded group's members.
    pub(crate) fn resume(&mut self, cx: &mut Context<'_>) {
        for id in self.members.keys() {
            self.expect_heartbeat(cx, id);
        }
        if self.members.len() > cx.settings.max_size {
            // The limit was lowered. A rebalance lets the members commit before some must go.
            self.prepare_rebalance(cx, Trigger::from(RebalanceCause::OverCapacity));
        }
    }

    /// Gives the group up and answers everyone who waits.
    pub(crate) fn abandon(&mut self, cx: &mut Context<'_>, error: GroupError) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in &ids {
            self.refuse_join(cx, id, error);
            self.answer_sync(cx, id, error);
            cx.timers.cancel(self.heartbeat(id));
        }
        for id in &self.pending_join {
            cx.timers.cancel(self.heartbeat(id));
        }
        cx.timers.cancel(self.join_timer());
        cx.timers.cancel(self.sync_timer());
        self.transition_to(State::Dead, cx.now.wall);
    }

    /// The group as it is to be written, with what `assignment` says of each member.
    pub(crate) fn to_record(&self, mut assignment: impl FnMut(&Str, &Member) -> Bytes) -> Record {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let members = self
            .members
            .iter()
            .map(|(id, member)| MemberMetadata {
                member_id: id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout: member.rebalance_timeout_ms,
                session_timeout: member.session_timeout_ms,
                subscription: member.metadata(protocol).cloned().unwrap_or_default(),
                assignment: assignment(id, member),
            })
            .collect();
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or(Str::EMPTY),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since.map_or(UNKNOWN, |at| at.0),
            members,
        };
        Record::Group { group: self.id.clone(), value: Some(value) }
    }

    /// The record of a group that has just come into being.
    pub(crate) fn to_first_record(&self) -> Record {
        let value = GroupMetadataValue {
            protocol_type: Str::EMPTY,
            generation: 0,
            protocol: None,
            leader: None,
            current_state_timestamp: self.state_since.map_or(UNKNOWN, |at| at.0),
            members: Vec::new(),
        };
        Record::Group { group: self.id.clone(), value: Some(value) }
    }
}

/// The topics of a consumer's subscription; none if it cannot be read.
pub(super) fn subscribed_topics(metadata: &Bytes) -> Option<Vec<Str>> {
    let mut reader = Reader::new(metadata.clone());
    let version = reader.read_i16("ConsumerProtocolSubscription version").ok()?;
    if version < SUBSCRIPTION_VERSION {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::decode(&mut reader, SUBSCRIPTION_VERSION);
    // The topics share memory with the metadata, which the member keeps anyway.
    subscription.ok().map(|subscription| subscription.topics)
}

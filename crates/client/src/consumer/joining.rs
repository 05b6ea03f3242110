//! The classic group protocol: rounds of JoinGroup and SyncGroup, dividing partitions as the
//! group's leader, heartbeats in between.
//!
//! In an eager rebalance members give up everything before they join; in a cooperative one
//! (KIP-429) they join with what they have, give up what the division takes away, and join once
//! more so that it can be given out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::heartbeat_request::HeartbeatRequest;
use fleuve_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use fleuve_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use fleuve_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use fleuve_types::TopicPartition;
use tokio::time::Instant;
use tracing::Instrument;

use super::assignor::{Assigned, Assignor, RebalanceProtocol, Subscription};
use super::membership::{End, Membership};
use super::protocol::{
    decode_assignment, decode_subscription, encode_assignment, encode_subscription,
};
use super::state::Member;
use crate::connection::Connection;
use crate::error::{Error, Result, check};

/// The protocol type of consumer groups.
const PROTOCOL_TYPE: &str = "consumer";

impl Membership {
    /// Joins the group, stays until something ends that, and clears up; breaks when the consumer
    /// closes.
    pub(super) async fn live_classic(&mut self) -> ControlFlow<()> {
        let cooperative = self.is_cooperative();
        if cooperative {
            self.give_up_unwanted().await;
        }
        // Until the new partitions are ours, and the old ones somebody else's.
        let span = self.rebalance_span();
        match self.join().instrument(span.clone()).await {
            Ok(assignment) => {
                span.record("assigned", assignment.len());
                self.backoff.reset();
                self.rejoins_at_once = true;
                self.shared.lock().match_assigned(&assignment);
                let assigned: HashSet<_> = assignment.iter().cloned().collect();
                let owned: HashSet<_> = self.shared.lock().partitions.keys().cloned().collect();
                let moving: HashSet<_> = owned.difference(&assigned).cloned().collect();
                let rejoin = !moving.is_empty();
                if rejoin {
                    self.revoke(moving).await;
                }
                let new = assignment.iter().filter(|partition| !owned.contains(partition));
                let new = new.cloned().collect();
                self.take(new).instrument(span).await;
                self.previous = (assignment, self.shared.lock().member.generation);
                if rejoin {
                    // What we gave up waits for a second division.
                    return ControlFlow::Continue(());
                }
            }
            Err(error) => {
                span.record("error", tracing::field::display(&error));
                drop(span);
                return self.take_join_error(error).await;
            }
        }
        let subscription = self.shared.lock().subscription_version;
        match self.keep_alive(subscription).await {
            End::Rebalance if cooperative => {}
            End::Rebalance => self.revoke_all().await,
            End::Lost => self.give_up_all(true).await,
            End::Idle => self.step_out().await,
            End::Closing => return ControlFlow::Break(()),
        }
        self.divided = None;
        ControlFlow::Continue(())
    }

    /// Reports whether all our assignors are cooperative; with an eager one among them the group
    /// is on its way from one kind to the other and rebalances eagerly.
    fn is_cooperative(&self) -> bool {
        let mut assignors = self.shared.assignors.iter();
        assignors.all(|assignor| assignor.protocol() == RebalanceProtocol::Cooperative)
    }

    /// Gives up partitions of topics that are no longer subscribed to, before a cooperative join.
    async fn give_up_unwanted(&mut self) {
        let unwanted: HashSet<_> = {
            let state = self.shared.lock();
            let topics = &state.subscription;
            let owned = state.partitions.keys();
            owned.filter(|partition| !topics.contains(&partition.topic)).cloned().collect()
        };
        if !unwanted.is_empty() {
            self.revoke(unwanted).await;
        }
    }

    pub(super) async fn beat_classic(&self) -> Result<()> {
        let connection = self.connection().await?;
        let version = connection.version_of::<HeartbeatRequest>(i16::MAX)?;
        let Member { id, generation } = self.shared.lock().member.clone();
        let request = HeartbeatRequest {
            group_id: self.group.clone().into(),
            generation_id: generation,
            member_id: id.into(),
            group_instance_id: self.instance_id(version >= 3),
        };
        let timeout = self.shared.config.session_timeout;
        let response = connection.submit(&request, version)?.within(timeout).wait().await?;
        check(response.error_code, || format!("group {}", self.group))
    }

    /// Reports whether topics that this member divided as leader have other partitions now.
    pub(super) fn partitions_changed(&self) -> bool {
        let Some(divided) = &self.divided else { return false };
        let cluster = self.shared.client.cluster();
        divided.iter().any(|(name, count)| {
            cluster.topic(name).map_or(0, |topic| topic.partitions.len()) != *count
        })
    }

    /// Decides what to do after a failed join; breaks when the consumer closes.
    async fn take_join_error(&mut self, error: Error) -> ControlFlow<()> {
        tracing::debug!(group = self.group, %error, "joining failed");
        match error.code() {
            Some(code @ (ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration)) => {
                self.forget_member(Some(code));
                self.give_up_all(true).await;
                self.rejoin().await;
            }
            Some(ErrorCode::RebalanceInProgress) => self.rejoin().await,
            _ if error.is_retriable() => self.pause().await,
            _ => {
                self.forget_member(None);
                self.give_up_all(true).await;
                self.stand_still(error).await;
            }
        }
        if self.shared.lock().closing { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Lets the next attempt to join follow at once, but not again and again.
    async fn rejoin(&mut self) {
        if !std::mem::replace(&mut self.rejoins_at_once, false) {
            self.pause().await;
        }
    }

    /// Joins and synchronises once, and returns what this member is to read.
    async fn join(&mut self) -> Result<Vec<TopicPartition>> {
        let attempt = self.try_join().await;
        attempt.inspect_err(|error| {
            self.shared.client.forget_coordinator_after(&self.group, error);
        })
    }

    async fn try_join(&mut self) -> Result<Vec<TopicPartition>> {
        let group = self.group.clone();
        let subject = || format!("group {group}");
        let connection = self.connection().await?;
        self.shared.lock().joining = true;
        let joined = self.join_group(&connection).await;
        let joined = joined.and_then(|joined| check(joined.error_code, subject).map(|()| joined));
        let joined = joined.inspect_err(|_| self.shared.lock().joining = false)?;
        let member = Member { id: joined.member_id.to_string(), generation: joined.generation_id };
        {
            let mut state = self.shared.lock();
            state.member = member.clone();
            state.joining = false;
        }
        let is_leader = joined.leader == joined.member_id && !joined.skip_assignment;
        let assignments = if is_leader { self.divide(&joined).await? } else { HashMap::new() };

        let version = connection.version_of::<SyncGroupRequest>(i16::MAX)?;
        let request = SyncGroupRequest {
            group_id: self.group.clone().into(),
            generation_id: member.generation,
            member_id: member.id.into(),
            group_instance_id: self.instance_id(version >= 3),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: joined.protocol_name.clone(),
            assignments: assignments
                .into_iter()
                .map(|(member_id, assigned)| SyncGroupRequestAssignment {
                    member_id: member_id.into(),
                    assignment: encode_assignment(&assigned),
                })
                .collect(),
        };
        let timeout = self.join_timeout();
        let synced = connection.submit(&request, version)?.within(timeout).wait().await?;
        check(synced.error_code, subject)?;
        self.next_heartbeat = Instant::now() + self.shared.config.heartbeat_interval;
        let assigned = decode_assignment(synced.assignment).ok_or_else(|| Error::Protocol {
            broker: connection.broker().to_owned(),
            operation: "SyncGroup",
            reason: "the leader's assignment is unreadable".to_owned(),
        })?;
        if let Ok(assignor) = self.assignor(&joined) {
            assignor.assigned(&assigned);
        }
        Ok(assigned.partitions)
    }

    async fn join_group(&self, connection: &Connection) -> Result<JoinGroupResponse> {
        let config = &self.shared.config;
        let version = connection.version_of::<JoinGroupRequest>(i16::MAX)?;
        let (told, mut member_id) = {
            let state = self.shared.lock();
            let told = Subscription {
                topics: state.subscription.iter().map(ToString::to_string).collect(),
                owned: state.partitions.keys().cloned().collect(),
                generation: state.member.generation,
                rack: config.rack.clone(),
                ..Subscription::default()
            };
            (told, state.member.id.clone())
        };
        let (previous, generation) = &self.previous;
        loop {
            let protocols = self.shared.assignors.iter().map(|assignor| {
                let user_data = assignor.user_data(previous, *generation);
                JoinGroupRequestProtocol {
                    name: assignor.name().to_owned().into(),
                    metadata: encode_subscription(&Subscription { user_data, ..told.clone() }),
                }
            });
            let request = JoinGroupRequest {
                group_id: self.group.clone().into(),
                session_timeout_ms: config.session_timeout.as_millis() as i32,
                rebalance_timeout_ms: config.max_poll_interval.as_millis() as i32,
                member_id: member_id.clone().into(),
                group_instance_id: self.instance_id(version >= 5),
                protocol_type: PROTOCOL_TYPE.into(),
                protocols: protocols.collect(),
                ..JoinGroupRequest::default()
            };
            let timeout = self.join_timeout();
            let response = connection.submit(&request, version)?.within(timeout).wait().await?;
            // A new member is given its id first (KIP-394), and asks again under it.
            let given = response.error_code == ErrorCode::MemberIdRequired.code();
            if given && member_id.is_empty() {
                member_id = response.member_id.to_string();
                self.shared.lock().member.id.clone_from(&member_id);
                continue;
            }
            return Ok(response);
        }
    }

    /// The assignor that the group has chosen.
    fn assignor(&self, joined: &JoinGroupResponse) -> Result<Arc<dyn Assignor>> {
        let protocol = joined.protocol_name.as_deref().unwrap_or_default();
        let assignor = self.shared.assignors.iter().find(|assignor| assignor.name() == protocol);
        assignor.cloned().ok_or_else(|| {
            let subject = format!("group {} chose the assignor {protocol}", self.group);
            Error::broker(subject, ErrorCode::InconsistentGroupProtocol)
        })
    }

    /// Divides the partitions of the subscribed topics among all members.
    async fn divide(&mut self, joined: &JoinGroupResponse) -> Result<HashMap<String, Assigned>> {
        let assignor = self.assignor(joined)?;
        let unreadable = |member: &JoinGroupResponseMember| Error::Protocol {
            broker: "of the group".to_owned(),
            operation: "JoinGroup",
            reason: format!("the subscription of member {} is unreadable", member.member_id),
        };
        let mut members = Vec::new();
        for member in &joined.members {
            let mut told = decode_subscription(&member.member_id, member.metadata.clone())
                .ok_or_else(|| unreadable(member))?;
            told.instance_id = member.group_instance_id.as_ref().map(ToString::to_string);
            members.push(told);
        }
        let mut names: Vec<Arc<str>> = members
            .iter()
            .flat_map(|member| &member.topics)
            .map(|name| name.as_str().into())
            .collect();
        names.sort_unstable();
        names.dedup();
        let create = self.shared.config.allow_auto_create_topics;
        let cluster = self.shared.client.refresh(&names, create).await?;
        // Topics that do not exist yet are divided when they do.
        let counts: BTreeMap<String, usize> = names
            .iter()
            .map(|name| {
                let count = cluster.topic(name).map_or(0, |topic| topic.partitions.len());
                (name.to_string(), count)
            })
            .collect();
        self.while_alive(assignor.prepare(&members)).await;
        let known = counts.iter().filter(|(_, count)| **count > 0);
        let known = known.map(|(name, count)| (name.clone(), *count)).collect();
        let assignment = assignor.assign_with_data(&known, &members);
        self.divided = Some(counts);
        Ok(assignment)
    }
}

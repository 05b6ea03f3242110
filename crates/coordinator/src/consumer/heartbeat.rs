//! ConsumerGroupHeartbeat, from a request to records and a reply.
//!
//! What a heartbeat comes to is decided in `decide.rs`, as it is for the classic members of the
//! group. One that comes to a classic group with members turns it into a consumer group first, if
//! that is allowed.

use std::borrow::Cow;

use fleuve_protocol::Str;

use super::api::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest};
use super::decide::{Change, Revocation};
use super::from_classic::Upgraded;
use super::group::ConsumerGroup;
use super::member::Member;
use super::sender::{check_request, find_sender, update};
use super::write::Records;
use crate::classic::State;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::RebalanceCause;
use crate::migration::Migration;
use crate::modern::{Aftermath, JOINING, LEAVING, LEFT_FOR_A_WHILE, rebalance};
use crate::record::Record;
use crate::step::{Now, Response, Step, Then, Token};
use crate::timers::Purpose;

impl GroupCoordinator {
    /// Handles ConsumerGroupHeartbeat.
    pub fn handle_consumer_heartbeat(
        &mut self,
        now: Now,
        token: Token,
        request: &ConsumerHeartbeatRequest,
    ) -> Step {
        let mut step = Step::default();
        let outcome = check_request(request, &self.settings.consumer.assignors)
            .and_then(|()| self.check_serving())
            .and_then(|()| match request.member_epoch {
                LEAVING | LEFT_FOR_A_WHILE => self.consumer_leaves(now, token, request, &mut step),
                _ => self.consumer_lives(now, token, request, &mut step),
            });
        if let Err(error) = outcome {
            step.reply(token, Response::ConsumerHeartbeat(Err(error)));
        }
        step
    }

    fn consumer_lives(
        &mut self,
        now: Now,
        token: Token,
        request: &ConsumerHeartbeatRequest,
        step: &mut Step,
    ) -> Result<(), GroupError> {
        let is_joining = request.member_epoch == JOINING;
        let mut member_id = request.member_id.detach();
        if member_id.is_empty() {
            member_id = self.new_uuid();
        }
        let mut records = Records::new(&request.group_id);
        let mut migration = None;
        let fresh = || Cow::Owned(ConsumerGroup::default());
        let group = match (self.groups.get(&request.group_id), is_joining) {
            (Some(Group::Consumer(_)), _) => {
                self.ledger().consumer_group(&request.group_id).map_or_else(fresh, Cow::Borrowed)
            }
            (None, true) => fresh(),
            // A classic group that nobody is in gives way; its offsets stay.
            (Some(Group::Classic(classic)), true) if classic.state() == State::Empty => {
                if self.ledger().has_classic_record(&request.group_id) {
                    records.list.push(Record::group_tombstone(&request.group_id));
                }
                fresh()
            }
            (Some(Group::Classic(classic)), true) => {
                let upgraded = self.upgrade(&request.group_id, classic)?;
                let Upgraded { group, records: first } = upgraded;
                records.list = first;
                migration = Some(Migration::Upgrade);
                Cow::Owned(group)
            }
            _ => return Err(GroupError::GroupIdNotFound),
        };
        let is_member = group.members().contains_key(&member_id);
        if group.members().len() >= self.settings.consumer.max_size && !is_member {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let sender = find_sender(&group, &member_id, request, &mut records)?;
        let mut member = sender.member.clone();
        update(&mut member, request);
        let change = Change {
            group: &group,
            group_id: &request.group_id,
            member_id: &member_id,
            sender,
            member,
            owned: request.owned.as_deref(),
            visible: Some(&request.visible_topics),
        };
        let decision = self.decide(now, change, records)?;
        let reply = self.heartbeat_reply(request, &member_id, &decision.member, &decision.old);

        let cause = match migration {
            Some(_) => Some(RebalanceCause::Upgraded),
            None => decision.cause,
        };
        let rebalance =
            cause.map(|cause| rebalance(now, decision.old_epoch, cause, Some(&member_id)));
        let session_timeout_ms =
            i64::from(self.consumer_timing(&request.group_id).session_timeout_ms);
        let (groups, mut cx) = self.split(now, step);
        let id = request.group_id.detach();
        let session = Purpose::Heartbeat { group: id.clone(), member: member_id.clone() };
        cx.schedule(session, session_timeout_ms);
        if is_joining {
            // It may have been a member by the classic protocol before.
            cx.forget_classic_member(&id, &member_id);
        }
        let revocation = Purpose::Revocation { group: id.clone(), member: member_id };
        match decision.revocation {
            Revocation::AsBefore => {}
            Revocation::Within { timeout_ms } => cx.schedule(revocation, timeout_ms.into()),
            Revocation::Done => cx.timers.cancel(revocation),
        }
        let response = Response::ConsumerHeartbeat(Ok(reply));
        if decision.records.is_empty() {
            let mut after = None;
            if let Some(Group::Consumer(companion)) = groups.get_mut(&id) {
                companion.look(decision.looked_at);
                after = companion.stored_until;
            }
            cx.step.reply_after(token, response, after);
        } else {
            let aftermath = Aftermath {
                group: id,
                reply: Some((token, response)),
                rebalance,
                replaced: decision.replaced.filter(|replaced| *replaced != request.member_id),
                looked_at: decision.looked_at,
                migration,
                ..Aftermath::default()
            };
            cx.step.write(decision.records, Then::Modern(Box::new(aftermath)));
        }
        Ok(())
    }

    /// What to answer; the assignment is told to those who ask for it or got another.
    fn heartbeat_reply(
        &self,
        request: &ConsumerHeartbeatRequest,
        member_id: &Str,
        member: &Member,
        old: &Member,
    ) -> ConsumerHeartbeatReply {
        let is_full_request = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some()
                || request.subscribed_topic_regex.is_some())
            && request.owned.is_some();
        let tells_assignment =
            request.member_epoch == JOINING || is_full_request || member.assigned != old.assigned;
        ConsumerHeartbeatReply {
            member_id: member_id.clone(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: self.consumer_timing(&request.group_id).heartbeat_interval_ms,
            assignment: tells_assignment.then(|| {
                let topics = member.assigned.iter();
                topics.map(|(id, all)| (*id, all.keys().copied().collect())).collect()
            }),
        }
    }
}

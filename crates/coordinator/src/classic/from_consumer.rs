//! A classic group that takes the place of a consumer group whose members all use the classic
//! protocol.

use std::collections::BTreeSet;

use fleuve_protocol::Str;
use fleuve_types::Offset;

use super::api::Protocol;
use super::embedded::write_assignment;
use super::group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup};
use super::member::Member;
use super::rebalance::Trigger;
use super::state::State;
use crate::consumer::{ConsumerGroup, Joining};
use crate::context::Context;
use crate::history::{History, RebalanceCause};
use crate::step::Now;
use crate::topics::TopicView;

impl ClassicGroup {
    /// Makes the group of those members that do not leave, and of the one that takes the place of
    /// a static member if there is one.
    ///
    /// The generation goes on from the epoch, and everyone's assignment is its target.
    pub(crate) fn from_consumer_group(
        id: &Str,
        group: &ConsumerGroup,
        leaving: &BTreeSet<Str>,
        joining: Option<&Joining>,
        now: Now,
        topics: &dyn TopicView,
    ) -> Self {
        let mut classic = Self::empty(id.detach(), now.wall);
        classic.generation = group.epoch;
        classic.protocol_type = Some(CONSUMER_PROTOCOL_TYPE.into());
        let stay = group.members().iter().filter(|(id, _)| !leaving.contains(*id));
        let stay = stay.map(|(id, member)| (id, id, member));
        let joins = joining.map(|joining| (&joining.id, &joining.replaced, &joining.member));
        for (id, known_as, member) in stay.chain(joins) {
            let Some(metadata) = &member.classic else { continue };
            let protocols = metadata.supported_protocols.iter().map(|protocol| Protocol {
                name: protocol.name.clone(),
                metadata: protocol.metadata.clone(),
            });
            let protocols: Vec<Protocol> = protocols.collect();
            let target = group.targets.get(known_as).into_iter().flatten();
            let named = target.filter_map(|(topic, partitions)| {
                Some((topics.by_id(*topic)?.name, partitions.iter().copied().collect()))
            });
            // All assignors of a consumer are of one version.
            let spoken = protocols.first().map(|protocol| &protocol.metadata);
            let member = Member {
                group_instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: metadata.session_timeout_ms,
                assignment: write_assignment(spoken, named),
                protocols,
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            };
            classic.add(id.clone(), member, None);
        }
        classic.protocol_name = classic.select_protocol();
        classic.update_subscriptions();
        classic.state = State::Stable;
        classic
    }

    /// Takes the consumer group's place, now that this is in the log just before `end`.
    pub(crate) fn take_over(
        &mut self,
        cx: &mut Context<'_>,
        history: History,
        end: Offset,
        rebalances: bool,
    ) {
        self.history = history;
        self.note_stored(end);
        for id in self.members.keys() {
            self.expect_heartbeat(cx, id);
        }
        if rebalances {
            self.prepare_rebalance(cx, Trigger::from(RebalanceCause::Downgraded));
        }
    }

    /// The assignor that all members support.
    pub(crate) fn protocol_name(&self) -> Option<&Str> {
        self.protocol_name.as_ref()
    }

    /// Gives up the group for one of another protocol: everyone who waits has to join again, and
    /// what is remembered of rebalances goes to the next.
    pub(crate) fn give_way(&mut self, cx: &mut Context<'_>) -> History {
        self.abandon(cx, crate::error::GroupError::RebalanceInProgress);
        std::mem::take(&mut self.history)
    }
}

//! A classic group as administrators see it.

use fleuve_protocol::Str;

use super::group::ClassicGroup;
use super::state::State;
use crate::admin::{Description, MemberDescription};

impl ClassicGroup {
    /// Describes the group. As in Kafka, subscriptions are shown only while it is stable.
    pub(crate) fn describe(&self) -> Description {
        let protocol_name = self.protocol_name.clone().filter(|_| self.state == State::Stable);
        let members = self.members.iter().map(|(id, member)| MemberDescription {
            member_id: id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol_name
                .as_ref()
                .and_then(|protocol| member.metadata(protocol))
                .cloned()
                .unwrap_or_default(),
            assignment: member.assignment.clone(),
        });
        Description {
            group_id: self.id.clone(),
            state: self.state,
            state_since: self.state_since,
            protocol_type: self.protocol_type.clone().unwrap_or(Str::EMPTY),
            members: members.collect(),
            protocol_name,
            generation: self.generation,
            leader: self.leader.clone(),
            supported_protocols: self.supported.clone(),
            rebalances: self.history.to_vec(),
        }
    }
}

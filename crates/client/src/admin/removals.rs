//! Putting members out of a classic group.

use fleuve_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};

use super::Admin;
use crate::client::Coordinated;
use crate::error::{Error, Result, check};

/// A member to be put out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A static member, by `group.instance.id`.
    Static(String),
    /// Any member, by the id that the group gave it.
    Member(String),
}

/// The first version that names members.
const FIRST_VERSION_WITH_MEMBERS: i16 = 3;
/// The first version that says why.
const FIRST_VERSION_WITH_REASON: i16 = 5;

impl Admin {
    /// Puts members out of a classic group, which then divides its partitions anew; dynamic members
    /// that live come back.
    pub async fn remove_members(
        &self,
        group: &str,
        members: &[Removal],
        reason: &str,
    ) -> Result<Vec<(Removal, Result<()>)>> {
        let connection = self.client.coordinator_connection(Coordinated::Group(group)).await?;
        if connection.version_of::<LeaveGroupRequest>(i16::MAX)? < FIRST_VERSION_WITH_MEMBERS {
            return Err(Error::Unsupported {
                broker: connection.broker().to_owned(),
                operation: "removing members of a group",
            });
        }
        let identity = |removal: &Removal, version: i16| {
            let (member_id, instance) = match removal {
                Removal::Static(instance) => (String::new(), Some(instance.clone())),
                Removal::Member(id) => (id.clone(), None),
            };
            MemberIdentity {
                member_id: member_id.into(),
                group_instance_id: instance.map(Into::into),
                reason: (version >= FIRST_VERSION_WITH_REASON).then(|| reason.to_owned().into()),
            }
        };
        let build = |version| LeaveGroupRequest {
            group_id: group.to_owned().into(),
            members: members.iter().map(|removal| identity(removal, version)).collect(),
            ..LeaveGroupRequest::default()
        };
        let response = self
            .client
            .call_coordinator::<LeaveGroupRequest>(group, i16::MAX, build, |response| {
                response.error_code
            })
            .await?;
        let results = members.iter().zip(response.members).map(|(removal, answer)| {
            let result = check(answer.error_code, || format!("group {group}, {removal:?}"));
            (removal.clone(), result)
        });
        Ok(results.collect())
    }
}

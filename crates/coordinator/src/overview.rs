//! Groups as metrics and monitors see them.

use fleuve_protocol::Str;

use crate::admin::{GroupState, ListFilter};
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::history::Rebalance;
use crate::ledger::CommittedOffset;

/// What there is to chart about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The group's id.
    pub group_id: Str,
    /// Its state.
    pub state: GroupState,
    /// Its type, such as [`crate::CLASSIC_GROUP_TYPE`].
    pub group_type: &'static str,
    /// Number of its members.
    pub members: usize,
    /// What it has committed: topic, partition and offset.
    pub offsets: Vec<(Str, i32, i64)>,
}

impl GroupCoordinator {
    /// Shows all groups, by id.
    pub fn overviews(&self) -> Result<Vec<Overview>, GroupError> {
        let listings = self.list_groups(&ListFilter::default())?;
        let overview = |listing: crate::admin::Listing| Overview {
            members: self.member_count(&listing.group_id),
            offsets: self
                .offsets_of(&listing.group_id)
                .map(|(topic, partition, committed)| (topic.clone(), partition, committed.offset))
                .collect(),
            group_id: listing.group_id,
            state: listing.state,
            group_type: listing.group_type,
        };
        Ok(listings.into_iter().map(overview).collect())
    }

    /// The last rebalances of a group, oldest first, whatever its protocol.
    pub fn rebalances(&self, group_id: &str) -> Result<Vec<Rebalance>, GroupError> {
        self.check_serving()?;
        match self.groups.get(group_id) {
            Some(Group::Classic(group)) => Ok(group.describe().rebalances),
            Some(Group::Consumer(companion) | Group::Share(companion)) => {
                Ok(companion.history.to_vec())
            }
            Some(Group::Streams(companion)) => Ok(companion.common.history.to_vec()),
            None => Err(GroupError::GroupIdNotFound),
        }
    }

    /// What a group has committed, by topic and partition.
    pub fn offsets_of<'a>(
        &'a self,
        group_id: &str,
    ) -> impl Iterator<Item = (&'a Str, i32, &'a CommittedOffset)> + use<'a> {
        let topics = self.ledger().offsets_of(group_id).into_iter().flatten();
        topics.flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, committed)| (topic, *partition, committed))
        })
    }

    fn member_count(&self, group_id: &str) -> usize {
        match self.groups.get(group_id) {
            Some(Group::Classic(group)) => group.member_count(),
            Some(Group::Consumer(_)) => {
                self.ledger().consumer_group(group_id).map_or(0, |group| group.members().len())
            }
            Some(Group::Streams(_)) => {
                self.ledger().streams_group(group_id).map_or(0, |group| group.members().len())
            }
            Some(Group::Share(_)) => {
                self.ledger().share_group(group_id).map_or(0, |group| group.member_ids().count())
            }
            None => 0,
        }
    }
}

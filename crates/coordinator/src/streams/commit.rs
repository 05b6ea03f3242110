//! Which offsets a member of a streams group may commit, and which it may see.

use super::group::StreamsGroup;
use super::member::Member;
use crate::error::GroupError;

/// What a commit is held against, partition by partition.
pub(crate) enum StreamsCommitRule<'a> {
    /// All of it is allowed.
    Any,
    /// The member's epoch is not the current one: it must have had the task then already.
    SinceEpoch {
        /// The group, for which subtopology reads which topic.
        group: &'a StreamsGroup,
        /// Who commits.
        member: &'a Member,
        /// The epoch it believes to be in.
        epoch: i32,
    },
}

impl StreamsCommitRule<'_> {
    /// Whether an offset of this partition may be committed.
    pub(crate) fn check(&self, topic: &str, partition: i32) -> Result<(), GroupError> {
        let Self::SinceEpoch { group, member, epoch } = self else { return Ok(()) };
        let reader = group.topology.as_ref().and_then(|topology| topology.reader_of(topic));
        let since =
            reader.and_then(|reader| member.assignment_epoch(&reader.subtopology_id, partition));
        match since {
            Some(since) if since <= *epoch => Ok(()),
            _ => Err(GroupError::StaleMemberEpoch),
        }
    }
}

impl StreamsGroup {
    /// Finds the rule for commits of a member.
    pub(crate) fn commit_rule(
        &self,
        member_id: &str,
        epoch: i32,
        is_new_api: bool,
    ) -> Result<StreamsCommitRule<'_>, GroupError> {
        // Administrators, and consumers that assign their partitions by themselves.
        if epoch < 0 && self.members().is_empty() {
            return Ok(StreamsCommitRule::Any);
        }
        let member = self.members().get(member_id).ok_or(GroupError::UnknownMemberId)?;
        if !is_new_api {
            return Err(GroupError::UnsupportedVersion);
        }
        if epoch == member.epoch {
            Ok(StreamsCommitRule::Any)
        } else if epoch > member.epoch {
            Err(GroupError::StaleMemberEpoch)
        } else {
            Ok(StreamsCommitRule::SinceEpoch { group: self, member, epoch })
        }
    }

    /// Whether someone may see the group's offsets; whoever does not say who it is, may.
    pub(crate) fn check_fetch(
        &self,
        member_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), GroupError> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member =
            self.members().get(member_id.unwrap_or_default()).ok_or(GroupError::UnknownMemberId)?;
        if member.epoch == epoch { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
    }
}

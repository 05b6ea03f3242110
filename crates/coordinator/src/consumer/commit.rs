//! Which offsets a member of a consumer group may commit, and which it may see.

use fleuve_types::Uuid;

use super::group::ConsumerGroup;
use super::member::Member;
use crate::error::GroupError;

/// What a commit is held against, partition by partition.
pub(crate) enum CommitRule<'a> {
    /// All of it is allowed.
    Any,
    /// The member's epoch is not the current one: it must have had the partition then already.
    SinceEpoch {
        /// Who commits.
        member: &'a Member,
        /// The epoch it believes to be in.
        epoch: i32,
    },
}

impl CommitRule<'_> {
    /// Whether an offset of this partition may be committed.
    pub(crate) fn check(&self, topic: Uuid, partition: i32) -> Result<(), GroupError> {
        match self {
            Self::Any => Ok(()),
            Self::SinceEpoch { member, epoch } => match member.assignment_epoch(topic, partition) {
                Some(since) if since <= *epoch => Ok(()),
                _ => Err(stale(member)),
            },
        }
    }
}

impl ConsumerGroup {
    /// Finds the rule for commits of a member.
    pub(crate) fn commit_rule(
        &self,
        member_id: &str,
        epoch: i32,
        is_new_api: bool,
    ) -> Result<CommitRule<'_>, GroupError> {
        // Administrators, and consumers that assign their partitions by themselves.
        if epoch < 0 && self.members().is_empty() {
            return Ok(CommitRule::Any);
        }
        let member = self.members().get(member_id).ok_or(GroupError::UnknownMemberId)?;
        if member.classic.is_none() && !is_new_api {
            return Err(GroupError::UnsupportedVersion);
        }
        if epoch == member.epoch {
            Ok(CommitRule::Any)
        } else if epoch > member.epoch {
            Err(stale(member))
        } else {
            Ok(CommitRule::SinceEpoch { member, epoch })
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
        if member.epoch == epoch { Ok(()) } else { Err(stale(member)) }
    }
}

/// Each protocol has its own word for it.
fn stale(member: &Member) -> GroupError {
    match member.classic {
        Some(_) => GroupError::IllegalGeneration,
        None => GroupError::StaleMemberEpoch,
    }
}

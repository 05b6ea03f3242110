//! TxnOffsetCommit: offsets that hold once the transaction is committed.

use super::api::CommitRequest;
use super::commit::Rule;
use crate::classic::State;
use crate::consumer::CommitRule;
use crate::coordinator::{Group, GroupCoordinator};
use crate::error::GroupError;
use crate::step::{Now, Response, Step, Token};
use crate::transaction::Producer;

/// What producers send that do not say which member they commit for.
const NO_GENERATION: i32 = -1;

/// TxnOffsetCommit.
#[derive(Clone, Debug)]
pub struct TransactionalCommitRequest {
    /// Who commits in its transaction.
    pub producer: Producer,
    /// What is committed, and by which member of which group, if it says so.
    pub commit: CommitRequest,
}

impl GroupCoordinator {
    /// Handles TxnOffsetCommit. The driver has seen to it that the partition belongs to the
    /// transaction.
    pub fn handle_transactional_offset_commit(
        &mut self,
        now: Now,
        token: Token,
        request: &TransactionalCommitRequest,
    ) -> Step {
        let mut step = Step::default();
        let TransactionalCommitRequest { producer, commit } = request;
        let committed = self
            .transactional_rule(commit)
            .and_then(|rule| self.commit_topics(now, &rule, commit))
            .map_err(as_generation);
        match committed {
            Err(error) => step.reply(token, Response::OffsetCommit(Err(error))),
            Ok((topics, records)) => {
                self.counters.offset_commits += records.len() as u64;
                let response = Response::OffsetCommit(Ok(topics));
                step.write_in_transaction(*producer, records, token, response);
            }
        }
        step
    }

    /// Whether the sender may commit for the group, and what its commit is held against. Other than
    /// outside of transactions it may also while the group rebalances, and old producers do not say
    /// which member they commit for.
    fn transactional_rule(&self, request: &CommitRequest) -> Result<Rule<'_>, GroupError> {
        self.check_serving_group(&request.group_id)?;
        let is_member_of_none = request.generation < 0;
        match self.groups.get(&request.group_id) {
            None if is_member_of_none => Ok(Rule::Consumer(CommitRule::Any)),
            None => Err(GroupError::IllegalGeneration),
            Some(Group::Classic(group)) => {
                let claims_membership = !is_member_of_none
                    || !request.member_id.is_empty()
                    || request.group_instance_id.is_some();
                let is_of_nobody = is_member_of_none && group.state() == State::Empty;
                if claims_membership && !is_of_nobody {
                    let instance_id = request.group_instance_id.as_deref();
                    group.check_member(&request.member_id, instance_id)?;
                    if request.generation != group.generation() {
                        return Err(GroupError::IllegalGeneration);
                    }
                }
                Ok(Rule::Consumer(CommitRule::Any))
            }
            Some(Group::Consumer(_) | Group::Streams(_)) => {
                let names_no_member = request.generation == NO_GENERATION
                    && request.member_id.is_empty()
                    && request.group_instance_id.is_none();
                if names_no_member {
                    return Ok(Rule::Consumer(CommitRule::Any));
                }
                self.commit_rule(request)
            }
            // Share groups have no committed offsets.
            Some(Group::Share(_)) => Err(GroupError::GroupIdNotFound),
        }
    }
}

/// Producers know one word only for a member that is behind.
fn as_generation(error: GroupError) -> GroupError {
    match error {
        GroupError::StaleMemberEpoch => GroupError::IllegalGeneration,
        error => error,
    }
}

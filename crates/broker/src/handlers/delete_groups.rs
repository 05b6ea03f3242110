//! DeleteGroups, versions 0–2: groups without members go, with their offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleuve_coordinator::{GroupError, Response};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use fleuve_protocol::messages::delete_groups_response::{
    DeletableGroupResult, DeleteGroupsResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::delete_share_group_offsets::forget_states;
use super::{errors, permission};
use crate::groups::{Shard, shard_index};
use crate::node::Node;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: DeleteGroupsRequest,
) -> Outcome<DeleteGroupsResponse> {
    let groups = &context.node.groups;
    let shards = groups.shards();
    let mut response = DeleteGroupsResponse::default();
    let mut permitted = Vec::new();
    let mut named = BTreeSet::new();
    for group_id in request.groups_names {
        if !named.insert(group_id.clone()) {
            continue;
        }
        match permission::group(context, AclOperation::Delete, &group_id) {
            Ok(()) => permitted.push(group_id),
            Err(code) => response.results.push(refuse(group_id, code)),
        }
    }
    if shards.is_empty() {
        let not_coordinator = |group| result(group, Err(GroupError::NotCoordinator));
        response.results.extend(permitted.into_iter().map(not_coordinator));
        return Outcome::Now(response);
    }
    let mut by_shard: BTreeMap<usize, Vec<Str>> = BTreeMap::new();
    for group in permitted {
        by_shard.entry(shard_index(&group, shards.len())).or_default().push(group);
    }
    let node = Arc::clone(&context.node);
    let groups = Arc::clone(groups);
    let deletion = async move {
        for (index, names) in by_shard {
            let shard = shards[index].clone();
            for name in &names {
                forget_shares(&node, &shard, name).await;
            }
            let answer = groups.request_shard(shard, |machine, _now, token| {
                machine.handle_delete_groups(token, &names)
            });
            let outcomes = match answer.await {
                Ok(Response::DeleteGroups(outcomes)) => outcomes,
                Ok(other) => unreachable!("a deletion is not answered with {other:?}"),
                Err(error) => names.into_iter().map(|name| (name, Err(error))).collect(),
            };
            let results = outcomes.into_iter().map(|(group, outcome)| result(group, outcome));
            response.results.extend(results);
        }
        response
    };
    Outcome::barrier(deletion)
}

/// Deletes what a share group without members did with records; the group itself comes after that,
/// so that nothing is left behind that nobody knows of.
async fn forget_shares(node: &Arc<Node>, shard: &Shard, group: &Str) {
    let is_meant = shard.read(|machine| machine.is_empty_share_group(group));
    let Ok(partitions) = shard.read(|machine| machine.share_partitions(group)) else { return };
    if !is_meant {
        return;
    }
    for partition in partitions {
        let (topic_id, index) = (partition.topic_id, partition.partition);
        if let Err(error) = forget_states(node, group, topic_id, &[index]).await {
            tracing::warn!(%group, %error, "what a share group did is not deleted");
        }
    }
    node.shares.retire_group(group);
}

fn refuse(group_id: Str, code: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult { group_id, error_code: code.code() }
}

fn result(group_id: Str, outcome: Result<(), GroupError>) -> DeletableGroupResult {
    DeletableGroupResult { group_id, error_code: errors::group_outcome(&outcome) }
}

//! DeleteGroups, versions 0–2: groups without members go, with their offsets.

use std::collections::BTreeMap;

use fleuve_coordinator::{GroupError, Response};
use fleuve_protocol::Str;
use fleuve_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use fleuve_protocol::messages::delete_groups_response::{
    DeletableGroupResult, DeleteGroupsResponse,
};

use super::errors;
use crate::groups::shard_index;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: DeleteGroupsRequest,
) -> Outcome<DeleteGroupsResponse> {
    let groups = &context.node.groups;
    let shards = groups.shards();
    let mut response = DeleteGroupsResponse::default();
    if shards.is_empty() {
        let not_coordinator = |group| result(group, Err(GroupError::NotCoordinator));
        response.results = request.groups_names.into_iter().map(not_coordinator).collect();
        return Outcome::Now(response);
    }
    let mut by_shard: BTreeMap<usize, Vec<Str>> = BTreeMap::new();
    for group in request.groups_names {
        by_shard.entry(shard_index(&group, shards.len())).or_default().push(group);
    }
    let answers: Vec<_> = by_shard
        .into_iter()
        .map(|(index, names)| {
            let shard = shards[index].clone();
            let answer = groups.request_shard(shard, |machine, _now, token| {
                machine.handle_delete_groups(token, &names)
            });
            (names, answer)
        })
        .collect();
    Outcome::later(async move {
        for (names, answer) in answers {
            let outcomes = match answer.await {
                Ok(Response::DeleteGroups(outcomes)) => outcomes,
                Ok(other) => unreachable!("a deletion is not answered with {other:?}"),
                Err(error) => names.into_iter().map(|name| (name, Err(error))).collect(),
            };
            let results = outcomes.into_iter().map(|(group, outcome)| result(group, outcome));
            response.results.extend(results);
        }
        response
    })
}

fn result(group_id: Str, outcome: Result<(), GroupError>) -> DeletableGroupResult {
    DeletableGroupResult { group_id, error_code: errors::group_outcome(&outcome) }
}

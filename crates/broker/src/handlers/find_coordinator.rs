//! FindCoordinator, versions 0–6: which broker coordinates a group or a transactional id.
//!
//! The topics that keep groups, transactional ids and what share groups do are made when the first
//! coordinator is asked for. Other kinds are answered with `INVALID_REQUEST`, which clients take as
//! final, where "not available" would have them ask for ever.

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use super::permission;
use crate::request::{Context, Outcome};

/// From here on several keys can be asked for at once.
const MANY_FROM: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
const NOBODY: i32 = -1;

pub(crate) fn handle(
    context: &Context,
    request: FindCoordinatorRequest,
) -> Outcome<FindCoordinatorResponse> {
    let many = context.version >= MANY_FROM;
    let keys = if many { request.coordinator_keys } else { vec![request.key] };
    let kind = request.key_type;
    let denials: Vec<Option<ErrorCode>> = match kind {
        // Only brokers look for share coordinators.
        SHARE => {
            let denial = permission::cluster(context, AclOperation::ClusterAction).err();
            vec![denial; keys.len()]
        }
        _ => keys.iter().map(|key| denial(context, kind, key)).collect(),
    };
    let refusal = match request.key_type {
        _ if !keys.is_empty() && denials.iter().all(Option::is_some) => None,
        GROUP | TRANSACTION => None,
        SHARE if keys.iter().any(|key| !names_share_partition(key)) => {
            Some((ErrorCode::InvalidRequest, "the key must be GROUP:TOPIC_ID:PARTITION"))
        }
        SHARE => None,
        _ => Some((ErrorCode::InvalidRequest, "unknown kind of coordinator")),
    };
    let node = &context.node;
    let shards = match kind {
        TRANSACTION => node.transactions.shard_count(),
        SHARE => node.shares.states.shard_count(),
        _ => node.groups.shard_count(),
    };
    let is_nobodys = !keys.is_empty() && denials.iter().all(Option::is_some);
    let keys: Vec<_> = keys.into_iter().zip(denials).collect();
    if refusal.is_some() || shards > 0 || is_nobodys {
        return Outcome::Now(respond(context, many, keys, refusal));
    }
    let context = context.clone();
    Outcome::barrier(async move {
        let created = match kind {
            TRANSACTION => context.node.create_transaction_topic().await,
            SHARE => context.node.create_share_state_topic().await,
            _ => context.node.create_offsets_topic().await,
        };
        let refusal = created.err().map(|error| {
            tracing::warn!(%error, "the topic that coordinators need cannot be created");
            (ErrorCode::CoordinatorNotAvailable, "the topic that it needs is missing")
        });
        respond(&context, many, keys, refusal)
    })
}

/// Says why the client may not ask for the coordinator of this.
fn denial(context: &Context, kind: i8, key: &str) -> Option<ErrorCode> {
    match kind {
        GROUP => permission::group(context, AclOperation::Describe, key).err(),
        TRANSACTION => permission::transactional_id(context, AclOperation::Describe, key).err(),
        _ => None,
    }
}

/// Reports whether a key of a share coordinator is well formed.
fn names_share_partition(key: &str) -> bool {
    let mut parts = key.rsplitn(3, ':');
    let partition = parts.next().and_then(|text| text.parse::<i32>().ok());
    let topic = parts.next().and_then(|text| text.parse::<Uuid>().ok());
    let group = parts.next().filter(|group| !group.is_empty());
    partition.is_some_and(|partition| partition >= 0) && topic.is_some() && group.is_some()
}

fn respond(
    context: &Context,
    many: bool,
    keys: Vec<(Str, Option<ErrorCode>)>,
    refusal: Option<(ErrorCode, &'static str)>,
) -> FindCoordinatorResponse {
    let coordinator = |(key, denial): (Str, Option<ErrorCode>)| match denial
        .map(|code| (code, code.message()))
        .or(refusal)
    {
        Some((code, message)) => Coordinator {
            key,
            node_id: NOBODY,
            port: NOBODY,
            error_code: code.code(),
            error_message: Some(Str::from(message)),
            ..Default::default()
        },
        None => {
            let endpoint = context.node.endpoint(context.peer.listener);
            Coordinator {
                key,
                node_id: context.node.id,
                host: endpoint.host,
                port: endpoint.port,
                ..Default::default()
            }
        }
    };
    if many {
        let coordinators = keys.into_iter().map(coordinator).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let only = coordinator(keys.into_iter().next().unwrap_or_default());
    FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: only.error_message,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    }
}

//! Why groups rebalanced: `/groups/NAME/rebalances`, whatever the group's protocol.
//!
//! An extra of ours, outside of Kafka's protocol, so that no client can stumble over it.

use fleuve_coordinator::Rebalance;
use fleuve_http::Page;
use fleuve_metadata::image::{AclOperation, AclResourceType};
use serde_json::{Value, json};

use super::burrow::percent_decoded;
use super::visitor::Visitor;
use crate::node::Node;

/// Answers `/groups/NAME/rebalances`; `None` for other paths.
pub(super) fn page(node: &Node, visitor: &Visitor<'_>, path: &str) -> Option<Page> {
    let path = path.split('?').next().unwrap_or_default();
    let name = path.strip_prefix("/groups/")?.strip_suffix("/rebalances")?;
    let name = percent_decoded(name);
    if !visitor.may(AclOperation::Describe, AclResourceType::Group, &name) {
        let cluster = node.image().cluster_id().to_string();
        let error = "describing it is not allowed";
        let json = json!({ "cluster": cluster, "group": name, "error": error }).to_string();
        return Some(Page { status: 403, json });
    }
    let shard = node.groups.shard_of(&name);
    let rebalances = shard.and_then(|shard| shard.read(|machine| machine.rebalances(&name)));
    // Whoever asks by an address can tell whether it is the right broker's.
    let cluster = node.image().cluster_id().to_string();
    let (status, value) = match rebalances {
        Ok(rebalances) => {
            let rebalances: Vec<Value> = rebalances.iter().map(row).collect();
            (200, json!({ "cluster": cluster, "group": name, "rebalances": rebalances }))
        }
        Err(error) => {
            (404, json!({ "cluster": cluster, "group": name, "error": error.to_string() }))
        }
    };
    Some(Page { status, json: value.to_string() })
}

fn row(rebalance: &Rebalance) -> Value {
    json!({
        "at_ms": rebalance.at.0,
        "ended_epoch": rebalance.generation,
        "cause": rebalance.cause.to_string(),
        "member": rebalance.member.as_deref(),
        "client_reason": rebalance.client_reason.as_deref(),
    })
}

//! ListGroups, versions 0–5: the groups this broker coordinates.

use fleuve_coordinator::ListFilter;
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::Str;
use fleuve_protocol::messages::list_groups_request::ListGroupsRequest;
use fleuve_protocol::messages::list_groups_response::{ListGroupsResponse, ListedGroup};

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(context: &Context, request: ListGroupsRequest) -> Outcome<ListGroupsResponse> {
    let filter = ListFilter { states: request.states_filter, types: request.types_filter };
    let mut response = ListGroupsResponse::default();
    let sees_all = permission::cluster_quietly(context, AclOperation::Describe);
    let is_visible = |group: &str| {
        sees_all || context.may_quietly(AclOperation::Describe, AclResourceType::Group, group)
    };
    for shard in context.node.groups.shards() {
        match shard.read(|machine| machine.list_groups(&filter)) {
            Ok(listings) => {
                let visible = listings.into_iter().filter(|listing| is_visible(&listing.group_id));
                response.groups.extend(visible.map(|listing| ListedGroup {
                    group_id: listing.group_id,
                    protocol_type: listing.protocol_type,
                    group_state: Str::from(listing.state.name()),
                    group_type: Str::from(listing.group_type),
                }));
            }
            Err(error) => {
                let error_code = errors::group(error).code();
                return Outcome::Now(ListGroupsResponse { error_code, ..Default::default() });
            }
        }
    }
    Outcome::Now(response)
}

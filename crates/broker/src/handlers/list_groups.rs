//! ListGroups, versions 0–5: the groups this broker coordinates.

use fleuve_coordinator::ListFilter;
use fleuve_protocol::Str;
use fleuve_protocol::messages::list_groups_request::ListGroupsRequest;
use fleuve_protocol::messages::list_groups_response::{ListGroupsResponse, ListedGroup};

use super::errors;
use crate::request::{Context, Outcome};

pub(crate) fn handle(context: &Context, request: ListGroupsRequest) -> Outcome<ListGroupsResponse> {
    let filter = ListFilter { states: request.states_filter, types: request.types_filter };
    let mut response = ListGroupsResponse::default();
    for shard in context.node.groups.shards() {
        match shard.read(|machine| machine.list_groups(&filter)) {
            Ok(listings) => {
                response.groups.extend(listings.into_iter().map(|listing| ListedGroup {
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

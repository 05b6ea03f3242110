//! ListConfigResources, versions 0–1: what has configs, or could have.
//!
//! Version 0 knows client metrics subscriptions only.

use std::collections::BTreeSet;

use fleuve_metadata::image::{AclOperation, Image, ResourceKind};
use fleuve_protocol::messages::list_config_resources_request::ListConfigResourcesRequest;
use fleuve_protocol::messages::list_config_resources_response::{
    ConfigResource, ListConfigResourcesResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::broker_loggers::BROKER_LOGGER;
use super::permission;
use crate::request::{Context, Outcome};

/// From here on the kinds can be chosen.
const KINDS_FROM: i16 = 1;

pub(crate) fn handle(
    context: &Context,
    request: ListConfigResourcesRequest,
) -> Outcome<ListConfigResourcesResponse> {
    if let Err(code) = permission::cluster(context, AclOperation::DescribeConfigs) {
        let error_code = code.code();
        return Outcome::Now(ListConfigResourcesResponse { error_code, ..Default::default() });
    }
    let every_kind = [
        ResourceKind::Topic.wire_id(),
        ResourceKind::Broker.wire_id(),
        BROKER_LOGGER,
        ResourceKind::ClientMetrics.wire_id(),
        ResourceKind::Group.wire_id(),
    ];
    let wanted: BTreeSet<i8> = if context.version < KINDS_FROM {
        BTreeSet::from([ResourceKind::ClientMetrics.wire_id()])
    } else if request.resource_types.is_empty() {
        BTreeSet::from(every_kind)
    } else {
        request.resource_types.into_iter().collect()
    };
    let mut response = ListConfigResourcesResponse::default();
    if wanted.iter().any(|kind| !every_kind.contains(kind)) {
        response.error_code = ErrorCode::UnsupportedVersion.code();
        return Outcome::Now(response);
    }
    let image = context.node.image();
    for resource_type in wanted {
        let names = names_of(&image, resource_type).into_iter();
        response
            .config_resources
            .extend(names.map(|resource_name| ConfigResource { resource_name, resource_type }));
    }
    Outcome::Now(response)
}

fn names_of(image: &Image, resource_type: i8) -> Vec<Str> {
    match ResourceKind::from_wire_id(resource_type) {
        Some(ResourceKind::Topic) => {
            image.topics().iter().map(|topic| topic.name.clone()).collect()
        }
        Some(kind @ (ResourceKind::Group | ResourceKind::ClientMetrics)) => {
            let of_kind = image.configs().iter().filter(|(resource, _)| resource.kind == kind);
            of_kind.map(|(resource, _)| Str::copy_from(&resource.name)).collect()
        }
        // Brokers, and their loggers, go by the brokers' numbers.
        Some(ResourceKind::Broker) | None => {
            image.brokers().keys().map(|id| Str::from(id.to_string())).collect()
        }
    }
}

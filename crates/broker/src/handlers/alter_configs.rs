//! AlterConfigs, versions 0–2: the whole set of a resource's configs at once.

use fleuve_metadata::controller::ConfigReplacement;
use fleuve_metadata::image::{AclOperation, Resource, ResourceKind};
use fleuve_protocol::messages::alter_configs_request::AlterConfigsRequest;
use fleuve_protocol::messages::alter_configs_response::{
    AlterConfigsResourceResponse, AlterConfigsResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: AlterConfigsRequest,
) -> Outcome<AlterConfigsResponse> {
    let context = context.clone();
    Outcome::barrier(async move {
        let mut response = AlterConfigsResponse::default();
        let mut replacements = Vec::new();
        let mut positions = Vec::new();
        for (position, resource) in request.resources.into_iter().enumerate() {
            let mut row = AlterConfigsResourceResponse {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..Default::default()
            };
            let kind = ResourceKind::from_wire_id(resource.resource_type);
            let name = &resource.resource_name;
            let permitted = permission::configs(&context, AclOperation::AlterConfigs, kind, name);
            match kind {
                Some(_) if let Err(code) = permitted => {
                    row.error_code = code.code();
                    row.error_message = Some(Str::from(code.message()));
                }
                Some(kind) => {
                    let configs = resource.configs.into_iter();
                    replacements.push(ConfigReplacement {
                        resource: Resource::new(kind, resource.resource_name.as_str()),
                        configs: configs.map(|config| (config.name, config.value)).collect(),
                    });
                    positions.push(position);
                }
                None => {
                    let message =
                        format!("resource type {} cannot be changed", resource.resource_type);
                    row.error_code = ErrorCode::InvalidRequest.code();
                    row.error_message = Some(Str::from(message));
                }
            }
            response.responses.push(row);
        }
        let outcome = context.node.alter_configs(replacements, request.validate_only).await;
        for (position, failure) in errors::alter_configs(&context, outcome, positions) {
            let row = &mut response.responses[position];
            row.error_code = failure.0.code();
            row.error_message = Some(Str::from(failure.1));
        }
        response
    })
}

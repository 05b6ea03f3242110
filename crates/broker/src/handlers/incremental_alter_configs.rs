//! IncrementalAlterConfigs, versions 0–1: operations on single keys, and on the levels of loggers.

use fleuve_metadata::config::AlterOperation;
use fleuve_metadata::controller::{ConfigOperation, ConfigUpdate};
use fleuve_metadata::image::{AclOperation, Resource, ResourceKind};
use fleuve_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, IncrementalAlterConfigsRequest,
};
use fleuve_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::broker_loggers::{self, BROKER_LOGGER};
use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: IncrementalAlterConfigsRequest,
) -> Outcome<IncrementalAlterConfigsResponse> {
    let context = context.clone();
    Outcome::barrier(async move {
        let mut response = IncrementalAlterConfigsResponse::default();
        let mut updates = Vec::new();
        let mut positions = Vec::new();
        for (position, resource) in request.resources.into_iter().enumerate() {
            let is_logger = resource.resource_type == BROKER_LOGGER;
            let parsed = permit(&context, &resource).and_then(|()| match is_logger {
                true => {
                    broker_loggers::alter(&context, &resource, request.validate_only).map(|()| None)
                }
                false => parse(&resource).map(Some),
            });
            let mut row = AlterConfigsResourceResponse {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                ..Default::default()
            };
            match parsed {
                Ok(None) => {}
                Ok(Some(update)) => {
                    updates.push(update);
                    positions.push(position);
                }
                Err((code, message)) => {
                    row.error_code = code.code();
                    row.error_message = Some(Str::from(message));
                }
            }
            response.responses.push(row);
        }
        let outcome = context.node.incremental_alter_configs(updates, request.validate_only).await;
        for (position, failure) in errors::alter_configs(&context, outcome, positions) {
            let row = &mut response.responses[position];
            row.error_code = failure.0.code();
            row.error_message = Some(Str::from(failure.1));
        }
        response
    })
}

fn permit(context: &Context, resource: &AlterConfigsResource) -> Result<(), (ErrorCode, String)> {
    let kind = ResourceKind::from_wire_id(resource.resource_type);
    permission::configs(context, AclOperation::AlterConfigs, kind, &resource.resource_name)
        .map_err(|code| (code, code.message().to_owned()))
}

fn parse(resource: &AlterConfigsResource) -> Result<ConfigUpdate, (ErrorCode, String)> {
    let invalid = |message: String| (ErrorCode::InvalidRequest, message);
    let kind = ResourceKind::from_wire_id(resource.resource_type).ok_or_else(|| {
        invalid(format!("resource type {} cannot be changed", resource.resource_type))
    })?;
    let operations = resource.configs.iter().map(|config| {
        let operation = AlterOperation::from_wire_id(config.config_operation)
            .ok_or_else(|| invalid(format!("unknown operation {}", config.config_operation)))?;
        Ok(ConfigOperation { name: config.name.clone(), operation, value: config.value.clone() })
    });
    let operations = operations.collect::<Result<_, (ErrorCode, String)>>()?;
    let resource = Resource::new(kind, resource.resource_name.as_str());
    Ok(ConfigUpdate { resource, operations })
}

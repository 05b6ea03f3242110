//! CreateAcls, versions 1–3: new access control entries.
//!
//! Without `authorizer.class.name` Kafka refuses them, since nobody would enforce them.

use fleuve_metadata::controller::NewAcl;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use fleuve_protocol::messages::create_acls_response::{AclCreationResult, CreateAclsResponse};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// The number of the cluster among the kinds of resources.
const CLUSTER: i8 = 4;
/// The only name that the cluster has.
const CLUSTER_NAME: &str = "kafka-cluster";

pub(crate) fn handle(context: &Context, request: CreateAclsRequest) -> Outcome<CreateAclsResponse> {
    let count = request.creations.len();
    if let Err(code) = permission::cluster(context, AclOperation::Alter) {
        let failure = (code, code.message().to_owned());
        return Outcome::Now(response(vec![Some(failure); count]));
    }
    if !context.node.has_authorizer() {
        let failure = (ErrorCode::SecurityDisabled, "No Authorizer is configured.".to_owned());
        return Outcome::Now(response(vec![Some(failure); count]));
    }
    let mut failures = vec![None; count];
    let mut positions = Vec::new();
    let mut entries = Vec::new();
    for (position, creation) in request.creations.into_iter().enumerate() {
        if creation.resource_type == CLUSTER && creation.resource_name.as_str() != CLUSTER_NAME {
            let message = format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}");
            failures[position] = Some((ErrorCode::InvalidRequest, message));
            continue;
        }
        positions.push(position);
        entries.push(entry(creation));
    }
    let context = context.clone();
    Outcome::barrier(async move {
        let random = context.node.random.clone();
        let outcome = context.node.change(move |c| c.create_acls(&entries, &*random)).await;
        match outcome {
            Ok(results) => {
                for (position, result) in positions.into_iter().zip(results) {
                    let failure = result.err();
                    failures[position] =
                        failure.map(|error| (ErrorCode::InvalidRequest, error.to_string()));
                }
            }
            Err(error) => {
                let failure = (errors::metadata(&error), error.to_string());
                for position in positions {
                    failures[position] = Some(failure.clone());
                }
            }
        }
        response(failures)
    })
}

fn entry(creation: AclCreation) -> NewAcl {
    NewAcl {
        resource_type: creation.resource_type,
        resource_name: creation.resource_name,
        pattern_type: creation.resource_pattern_type,
        principal: creation.principal,
        host: creation.host,
        operation: creation.operation,
        permission_type: creation.permission_type,
    }
}

fn response(failures: Vec<Option<(ErrorCode, String)>>) -> CreateAclsResponse {
    let results = failures.into_iter().map(|failure| AclCreationResult {
        error_code: failure.as_ref().map_or(0, |(code, _)| code.code()),
        error_message: failure.map(|(_, message)| Str::from(message)),
    });
    CreateAclsResponse { results: results.collect(), ..Default::default() }
}

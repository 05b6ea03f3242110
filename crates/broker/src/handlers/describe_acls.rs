//! DescribeAcls, versions 1–3: access control entries.
//!
//! Without `authorizer.class.name` there is no security to speak of, and Kafka says so.

use fleuve_metadata::controller::AclFilter;
use fleuve_metadata::image::{Acl, AclOperation};
use fleuve_protocol::messages::describe_acls_request::DescribeAclsRequest;
use fleuve_protocol::messages::describe_acls_response::{
    AclDescription, DescribeAclsResource, DescribeAclsResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::permission;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: DescribeAclsRequest,
) -> Outcome<DescribeAclsResponse> {
    let refuse = |code: ErrorCode, message: String| {
        Outcome::Now(DescribeAclsResponse {
            error_code: code.code(),
            error_message: Some(Str::from(message)),
            ..Default::default()
        })
    };
    if let Err(code) = permission::cluster(context, AclOperation::Describe) {
        return refuse(code, code.message().to_owned());
    }
    if !context.node.has_authorizer() {
        let message = "No Authorizer is configured on the broker".to_owned();
        return refuse(ErrorCode::SecurityDisabled, message);
    }
    let filter = AclFilter {
        resource_type: request.resource_type_filter,
        resource_name: request.resource_name_filter,
        pattern_type: request.pattern_type_filter,
        principal: request.principal_filter,
        host: request.host_filter,
        operation: request.operation,
        permission_type: request.permission_type,
    };
    if let Err(error) = filter.check() {
        return refuse(ErrorCode::InvalidRequest, error.to_string());
    }
    let image = context.node.image();
    let mut resources: Vec<DescribeAclsResource> = Vec::new();
    for (_, acl) in filter.select(image.acls()) {
        let kind = acl.resource_type.wire_id();
        let pattern = acl.pattern_type.wire_id();
        // Entries come sorted by resource.
        let same = resources.last().is_some_and(|last| {
            (last.resource_type, last.pattern_type) == (kind, pattern)
                && last.resource_name == acl.resource_name
        });
        if !same {
            resources.push(DescribeAclsResource {
                resource_type: kind,
                resource_name: acl.resource_name.clone(),
                pattern_type: pattern,
                acls: Vec::new(),
            });
        }
        if let Some(last) = resources.last_mut() {
            last.acls.push(row(acl));
        }
    }
    Outcome::Now(DescribeAclsResponse { resources, ..Default::default() })
}

fn row(acl: &Acl) -> AclDescription {
    AclDescription {
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: acl.operation.wire_id(),
        permission_type: acl.permission.wire_id(),
    }
}

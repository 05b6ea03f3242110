//! DeleteAcls, versions 1–3: access control entries that are to go.

use fleuve_metadata::controller::AclFilter;
use fleuve_metadata::image::{Acl, AclOperation};
use fleuve_protocol::messages::delete_acls_request::{DeleteAclsFilter, DeleteAclsRequest};
use fleuve_protocol::messages::delete_acls_response::{
    DeleteAclsFilterResult, DeleteAclsMatchingAcl, DeleteAclsResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(context: &Context, request: DeleteAclsRequest) -> Outcome<DeleteAclsResponse> {
    let count = request.filters.len();
    if let Err(code) = permission::cluster(context, AclOperation::Alter) {
        let filter_results = vec![failure(code, code.message().to_owned()); count];
        return Outcome::Now(DeleteAclsResponse { filter_results, ..Default::default() });
    }
    if !context.node.has_authorizer() {
        let refused = failure(ErrorCode::SecurityDisabled, "No Authorizer is configured.".into());
        let filter_results = vec![refused; count];
        return Outcome::Now(DeleteAclsResponse { filter_results, ..Default::default() });
    }
    let filters: Vec<AclFilter> = request.filters.into_iter().map(filter).collect();
    let context = context.clone();
    Outcome::barrier(async move {
        let filter_results = match context.node.change(move |c| c.delete_acls(&filters)).await {
            Ok(results) => results
                .into_iter()
                .map(|result| match result {
                    Ok(removed) => DeleteAclsFilterResult {
                        matching_acls: removed.iter().map(row).collect(),
                        ..Default::default()
                    },
                    Err(error) => failure(ErrorCode::InvalidRequest, error.to_string()),
                })
                .collect(),
            Err(error) => vec![failure(errors::metadata(&error), error.to_string()); count],
        };
        DeleteAclsResponse { filter_results, ..Default::default() }
    })
}

fn filter(filter: DeleteAclsFilter) -> AclFilter {
    AclFilter {
        resource_type: filter.resource_type_filter,
        resource_name: filter.resource_name_filter,
        pattern_type: filter.pattern_type_filter,
        principal: filter.principal_filter,
        host: filter.host_filter,
        operation: filter.operation,
        permission_type: filter.permission_type,
    }
}

fn row(acl: &Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl {
        resource_type: acl.resource_type.wire_id(),
        resource_name: acl.resource_name.clone(),
        pattern_type: acl.pattern_type.wire_id(),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: acl.operation.wire_id(),
        permission_type: acl.permission.wire_id(),
        ..Default::default()
    }
}

fn failure(code: ErrorCode, message: String) -> DeleteAclsFilterResult {
    DeleteAclsFilterResult {
        error_code: code.code(),
        error_message: Some(Str::from(message)),
        ..Default::default()
    }
}

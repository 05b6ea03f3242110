//! Permission for single steps of a request, with the code that tells of a denial.

use fleuve_metadata::image::{AclOperation, AclResourceType, ResourceKind};
use fleuve_protocol::{ErrorCode, Str};

use crate::access::CLUSTER_NAME;
use crate::request::Context;

/// Asks for permission to do something to a topic.
pub(super) fn topic(
    context: &Context,
    operation: AclOperation,
    name: &str,
) -> Result<(), ErrorCode> {
    let allowed = context.may(operation, AclResourceType::Topic, name);
    allowed.then_some(()).ok_or(ErrorCode::TopicAuthorizationFailed)
}

/// Asks for permission to do something to each of several topics.
pub(super) fn all_topics<'a>(
    context: &Context,
    operation: AclOperation,
    names: impl IntoIterator<Item = &'a Str>,
) -> Result<(), ErrorCode> {
    names.into_iter().map(|name| topic(context, operation, name)).fold(Ok(()), Result::and)
}

/// Asks for permission to do something to a group.
pub(super) fn group(
    context: &Context,
    operation: AclOperation,
    name: &str,
) -> Result<(), ErrorCode> {
    let allowed = context.may(operation, AclResourceType::Group, name);
    allowed.then_some(()).ok_or(ErrorCode::GroupAuthorizationFailed)
}

/// Asks for permission to do something to the cluster.
pub(super) fn cluster(context: &Context, operation: AclOperation) -> Result<(), ErrorCode> {
    let allowed = context.may(operation, AclResourceType::Cluster, CLUSTER_NAME);
    allowed.then_some(()).ok_or(ErrorCode::ClusterAuthorizationFailed)
}

/// Asks for permission to do something to the cluster where there is another way if it is denied.
pub(super) fn cluster_quietly(context: &Context, operation: AclOperation) -> bool {
    context.may_quietly(operation, AclResourceType::Cluster, CLUSTER_NAME)
}

/// Asks for permission to do something to the configs of a resource, by the number that stands for
/// its kind in requests about configs. What is neither topic nor group belongs to the cluster.
pub(super) fn configs(
    context: &Context,
    operation: AclOperation,
    kind: Option<ResourceKind>,
    name: &str,
) -> Result<(), ErrorCode> {
    match kind {
        Some(ResourceKind::Topic) => topic(context, operation, name),
        Some(ResourceKind::Group) => group(context, operation, name),
        Some(ResourceKind::Broker | ResourceKind::ClientMetrics) | None => {
            cluster(context, operation)
        }
    }
}

/// Asks for permission to do something to a transactional id.
pub(super) fn transactional_id(
    context: &Context,
    operation: AclOperation,
    id: &str,
) -> Result<(), ErrorCode> {
    let allowed = context.may(operation, AclResourceType::TransactionalId, id);
    allowed.then_some(()).ok_or(ErrorCode::TransactionalIdAuthorizationFailed)
}

//! What a client may do, as responses report it: one bit for each operation of Kafka's ACLs.

use fleuve_metadata::image::{AclOperation, AclResourceType};

use super::permission;
use crate::access::CLUSTER_NAME;
use crate::request::Context;

use AclOperation::{
    Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs, IdempotentWrite,
    Read, Write,
};

const TOPIC: &[AclOperation] =
    &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs];

const GROUP: &[AclOperation] = &[Read, Delete, Describe, DescribeConfigs, AlterConfigs];

const CLUSTER: &[AclOperation] =
    &[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite];

/// What may be done to a topic.
pub(super) fn on_topic(context: &Context, name: &str) -> i32 {
    bits(context, TOPIC, AclResourceType::Topic, name)
}

/// What may be done to a group.
pub(super) fn on_group(context: &Context, name: &str) -> i32 {
    bits(context, GROUP, AclResourceType::Group, name)
}

/// What may be done to the cluster; nothing for those who may not describe it.
pub(super) fn on_cluster(context: &Context) -> i32 {
    match permission::cluster(context, Describe) {
        Ok(()) => bits(context, CLUSTER, AclResourceType::Cluster, CLUSTER_NAME),
        Err(_) => 0,
    }
}

fn bits(
    context: &Context,
    operations: &[AclOperation],
    resource_type: AclResourceType,
    name: &str,
) -> i32 {
    let allowed = operations
        .iter()
        .filter(|operation| context.would_be_allowed(**operation, resource_type, name));
    allowed.fold(0, |bits, operation| bits | 1 << operation.wire_id())
}

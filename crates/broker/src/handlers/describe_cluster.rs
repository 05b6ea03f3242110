//! DescribeCluster, versions 0–2: who is in the cluster.
//!
//! A listener of the broker tells of brokers (endpoint type 1), one of the controller of controllers
//! (2, KIP-919), and neither of the other's. What controllers tell needs the right to alter the
//! cluster, as in Kafka.

use fleuve_metadata::config::Role;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use fleuve_protocol::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{operations, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: DescribeClusterRequest,
) -> Outcome<DescribeClusterResponse> {
    let asked = context.peer.asks;
    if asked == Role::Controller
        && let Err(code) = permission::cluster(context, AclOperation::Alter)
    {
        let message = code.message().to_owned();
        return refuse(request.endpoint_type, code, message);
    }
    let Some(wanted) = role_of(request.endpoint_type) else {
        let message = format!("Unsupported endpoint type {}", request.endpoint_type);
        return refuse(request.endpoint_type, ErrorCode::UnsupportedEndpointType, message);
    };
    if wanted != asked {
        let message = format!(
            "The request was sent to an endpoint of type {}, but we wanted an endpoint of type {}",
            name_of(asked),
            name_of(wanted)
        );
        return refuse(request.endpoint_type, ErrorCode::MismatchedEndpointType, message);
    }
    let endpoint = context.node.endpoint(context.peer.listener);
    let mut response = DescribeClusterResponse {
        endpoint_type: request.endpoint_type,
        cluster_id: context.node.image().cluster_id().clone(),
        controller_id: context.node.id,
        brokers: vec![DescribeClusterBroker {
            broker_id: context.node.id,
            host: endpoint.host,
            port: endpoint.port,
            // Controllers do not say where they stand.
            rack: context.node.rack.clone().filter(|_| asked == Role::Broker),
            is_fenced: false,
        }],
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::on_cluster(context);
    }
    Outcome::Now(response)
}

fn refuse(endpoint_type: i8, code: ErrorCode, message: String) -> Outcome<DescribeClusterResponse> {
    Outcome::Now(DescribeClusterResponse {
        error_code: code.code(),
        error_message: Some(Str::from(message)),
        endpoint_type,
        ..Default::default()
    })
}

const fn role_of(endpoint_type: i8) -> Option<Role> {
    match endpoint_type {
        1 => Some(Role::Broker),
        2 => Some(Role::Controller),
        _ => None,
    }
}

const fn name_of(role: Role) -> &'static str {
    match role {
        Role::Broker => "BROKER",
        Role::Controller => "CONTROLLER",
    }
}

//! DescribeCluster, versions 0–2: who is in the cluster.
//!
//! Only brokers can be asked about (endpoint type 1), because controllers have no listener.

use fleuve_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use fleuve_protocol::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::operations;
use crate::request::{Context, Outcome};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) fn handle(
    context: &Context,
    request: DescribeClusterRequest,
) -> Outcome<DescribeClusterResponse> {
    if request.endpoint_type != BROKERS {
        let (code, message) = if request.endpoint_type == CONTROLLERS {
            (ErrorCode::MismatchedEndpointType, "this listener belongs to a broker".to_owned())
        } else {
            let message = format!("endpoint type {} is unknown", request.endpoint_type);
            (ErrorCode::UnsupportedEndpointType, message)
        };
        return Outcome::Now(DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(Str::from(message)),
            endpoint_type: request.endpoint_type,
            ..Default::default()
        });
    }
    let endpoint = context.node.endpoint(context.peer.listener);
    let mut response = DescribeClusterResponse {
        cluster_id: context.node.image().cluster_id().clone(),
        controller_id: context.node.id,
        brokers: vec![DescribeClusterBroker {
            broker_id: context.node.id,
            host: endpoint.host,
            port: endpoint.port,
            rack: context.node.rack.clone(),
            is_fenced: false,
        }],
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::on_cluster(context);
    }
    Outcome::Now(response)
}

//! UnregisterBroker, version 0: a broker that will not come back.
//!
//! Deviation from Kafka: the broker that runs here is not unregistered, which would leave all its
//! partitions without a leader until it restarts.

use fleuve_metadata::controller::UnregisterError;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::unregister_broker_request::UnregisterBrokerRequest;
use fleuve_protocol::messages::unregister_broker_response::UnregisterBrokerResponse;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::NodeId;

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: UnregisterBrokerRequest,
) -> Outcome<UnregisterBrokerResponse> {
    if let Err(code) = permission::cluster(context, AclOperation::Alter) {
        return Outcome::Now(UnregisterBrokerResponse {
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
            ..Default::default()
        });
    }
    let context = context.clone();
    Outcome::barrier(async move {
        let id = NodeId(request.broker_id);
        let failure = match context.node.change(move |c| c.unregister_broker(id)).await {
            Ok(Ok(())) => return UnregisterBrokerResponse::default(),
            Ok(Err(error)) => match error {
                UnregisterError::NotRegistered(_) => {
                    (ErrorCode::BrokerIdNotRegistered, error.to_string())
                }
                UnregisterError::Running(_) => (ErrorCode::InvalidRequest, error.to_string()),
            },
            Err(error) => (errors::metadata(&error), error.to_string()),
        };
        UnregisterBrokerResponse {
            error_code: failure.0.code(),
            error_message: Some(Str::from(failure.1)),
            ..Default::default()
        }
    })
}

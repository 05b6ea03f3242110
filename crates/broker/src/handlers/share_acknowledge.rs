//! ShareAcknowledge, versions 1–2: members say what became of records they have (KIP-932).

use std::sync::Arc;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::share_acknowledge_request::ShareAcknowledgeRequest;
use fleuve_protocol::messages::share_acknowledge_response::{
    PartitionData, ShareAcknowledgeResponse, ShareAcknowledgeTopicResponse,
};

use super::share_acknowledgements::{RENEW_FROM, Sender, Sent, check_sender, session_error};
use crate::request::{Context, Outcome};
use crate::share::ShareTerms;

pub(crate) fn handle(
    context: &Context,
    request: ShareAcknowledgeRequest,
) -> Outcome<ShareAcknowledgeResponse> {
    let (group, member) = match check_sender(context, request.group_id, request.member_id) {
        Ok(sender) => sender,
        Err(code) => return Outcome::Now(refusal(code)),
    };
    let node = Arc::clone(&context.node);
    let session = node.shares.sessions.acknowledge((&group, &member), request.share_session_epoch);
    let is_final = match session {
        Ok(is_final) => is_final,
        Err(error) => return Outcome::Now(refusal(session_error(error))),
    };
    let sent = request.topics.into_iter().flat_map(|topic| {
        let topic_id = topic.topic_id;
        topic.partitions.into_iter().map(move |partition| Sent {
            topic_id,
            partition: partition.partition_index,
            batches: partition
                .acknowledgement_batches
                .into_iter()
                .map(|batch| (batch.first_offset, batch.last_offset, batch.acknowledge_types))
                .collect(),
        })
    });
    let terms = ShareTerms::of(&node, &group);
    let may_renew = context.version >= RENEW_FROM && request.is_renew_ack;
    let sender =
        Sender { context, node: &node, group: &group, member: &member, terms: &terms, may_renew };
    let acknowledged = sender.acknowledge(sent.collect());
    let mut released = Vec::new();
    if is_final {
        released = node.shares.member_gone(&node, &group, &member);
    }
    Outcome::later(async move {
        let mut response = ShareAcknowledgeResponse {
            acquisition_lock_timeout_ms: terms.lock_ms,
            ..Default::default()
        };
        for partition in acknowledged {
            let (topic_id, index) = (partition.topic_id, partition.partition);
            let mut data = PartitionData { partition_index: index, ..Default::default() };
            if let Err((code, message)) = partition.settled(&node).await {
                data.error_code = code.code();
                data.error_message = message;
            }
            match response.responses.last_mut() {
                Some(topic) if topic.topic_id == topic_id => topic.partitions.push(data),
                _ => response
                    .responses
                    .push(ShareAcknowledgeTopicResponse { topic_id, partitions: vec![data] }),
            }
        }
        // Whether these are in time or not, the member is gone.
        for stored in &released {
            if let Err(error) = node.shares.states.durable(stored).await {
                tracing::warn!(%group, %error, "released records are not written down");
            }
        }
        response
    })
}

fn refusal(code: ErrorCode) -> ShareAcknowledgeResponse {
    ShareAcknowledgeResponse { error_code: code.code(), ..Default::default() }
}

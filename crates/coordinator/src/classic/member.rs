//! A member of a classic group.

use bytes::Bytes;
use fleuve_protocol::Str;

use super::api::{JoinRequest, Protocol};
use crate::step::Token;

/// A member and what it is waiting for.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) group_instance_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// Supported assignors, best first, each name once.
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// The join that is answered when the rebalance completes.
    pub(crate) awaiting_join: Option<Token>,
    /// The sync that is answered when the assignment is stored.
    pub(crate) awaiting_sync: Option<Token>,
    /// Whether the member has yet to hear that it joined. Until then it cannot send heartbeats, so
    /// its timer bounds the waiting join instead.
    pub(crate) is_new: bool,
}

impl Member {
    /// Makes a member of a join request, in memory of its own.
    pub(super) fn joining(request: &JoinRequest) -> Self {
        Self {
            group_instance_id: request.group_instance_id.as_ref().map(Str::detach),
            client_id: request.client_id.detach(),
            client_host: request.client_host.detach(),
            rebalance_timeout_ms: request.effective_rebalance_timeout_ms(),
            session_timeout_ms: request.session_timeout_ms,
            protocols: own_protocols(&request.protocols),
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        }
    }

    /// The subscription for the assignor of this name.
    pub(super) fn metadata(&self, protocol_name: &str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|protocol| protocol.name == *protocol_name)
            .map(|protocol| &protocol.metadata)
    }

    /// Whether the member need not send heartbeats, because it waits for us.
    pub(super) fn is_excused_from_heartbeats(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}

impl JoinRequest {
    /// The rebalance timeout, where version 0 has only a session timeout.
    pub(crate) fn effective_rebalance_timeout_ms(&self) -> i32 {
        if self.rebalance_timeout_ms < 0 {
            self.session_timeout_ms
        } else {
            self.rebalance_timeout_ms
        }
    }
}

/// Copies protocols out of the frame they came in. A name that comes twice counts once, so that
/// the votes of a group cannot exceed its members.
pub(super) fn own_protocols(protocols: &[Protocol]) -> Vec<Protocol> {
    let mut own: Vec<Protocol> = Vec::with_capacity(protocols.len().min(8));
    for protocol in protocols {
        if own.iter().all(|known| known.name != protocol.name) {
            own.push(Protocol {
                name: protocol.name.detach(),
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            });
        }
    }
    own
}

//! Which APIs this broker serves, in which versions, and who handles them.
//!
//! What ApiVersions tells clients is this table, so that nothing can be advertised that no handler
//! stands behind. Clients switch features on by the versions they find here; an API that is left
//! out is the agreed way of saying "not this".

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_metadata::config::Role;
use fleuve_os::{DiskError, Piece};
use fleuve_protocol::frame::{self, RequestFrame};
use fleuve_protocol::messages::ApiKey;
use fleuve_protocol::{Pieces, Reader, Request, Str};

use crate::authentication::Stepped;
use crate::connection::{Answer, Budget, CloseReason, Dispatch, Reply, Standing};
use crate::handlers;
use crate::metrics::{Called, Receipt};
use crate::node::Node;
use crate::request::{Context, IntoFrame, Outcome, Peer};

/// One API that the broker serves.
pub(crate) struct Api {
    /// The API.
    pub(crate) key: ApiKey,
    /// The lowest version that is served.
    pub(crate) version_min: i16,
    /// The highest version that is served.
    pub(crate) version_max: i16,
    /// The lowest version that clients are told of.
    pub(crate) advertised_min: i16,
    run: fn(Call, Reader) -> Reply,
}

impl Api {
    /// Reports whether one who talks to a broker, or to a controller, is served.
    pub(crate) fn is_served_by(&self, role: Role) -> bool {
        match role {
            Role::Broker => true,
            // Controllers fetch metadata from each other, and there is only one here.
            Role::Controller => self.key.listeners().controller && self.key != ApiKey::Fetch,
        }
    }
}

/// Declares the table; `key: min-max => handler`, and `(min)` where clients are told another.
macro_rules! apis {
    ($($key:ident($request:ty): $min:literal..=$max:literal $(, told $told:literal)? => $handler:path;)*) => {
        /// Every API that is served, in the order of their keys.
        pub(crate) static APIS: &[Api] = &[$(
            Api {
                key: ApiKey::$key,
                version_min: $min,
                version_max: $max,
                advertised_min: apis!(@told $min $($told)?),
                run: |call, body| run::<$request, _>(call, body, $handler),
            },
        )*];
    };
    (@told $min:literal) => { $min };
    (@told $min:literal $told:literal) => { $told };
}

mod requests {
    //! The request types, gathered so that the table reads as one.
    pub(super) use fleuve_protocol::messages::{
        add_offsets_to_txn_request::AddOffsetsToTxnRequest,
        add_partitions_to_txn_request::AddPartitionsToTxnRequest,
        add_raft_voter_request::AddRaftVoterRequest,
        alter_client_quotas_request::AlterClientQuotasRequest,
        alter_configs_request::AlterConfigsRequest,
        alter_partition_reassignments_request::AlterPartitionReassignmentsRequest,
        alter_replica_log_dirs_request::AlterReplicaLogDirsRequest,
        alter_share_group_offsets_request::AlterShareGroupOffsetsRequest,
        alter_user_scram_credentials_request::AlterUserScramCredentialsRequest,
        api_versions_request::ApiVersionsRequest,
        consumer_group_describe_request::ConsumerGroupDescribeRequest,
        consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest,
        create_acls_request::CreateAclsRequest,
        create_delegation_token_request::CreateDelegationTokenRequest,
        create_partitions_request::CreatePartitionsRequest,
        create_topics_request::CreateTopicsRequest, delete_acls_request::DeleteAclsRequest,
        delete_groups_request::DeleteGroupsRequest, delete_records_request::DeleteRecordsRequest,
        delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest,
        delete_share_group_state_request::DeleteShareGroupStateRequest,
        delete_topics_request::DeleteTopicsRequest, describe_acls_request::DescribeAclsRequest,
        describe_client_quotas_request::DescribeClientQuotasRequest,
        describe_cluster_request::DescribeClusterRequest,
        describe_configs_request::DescribeConfigsRequest,
        describe_delegation_token_request::DescribeDelegationTokenRequest,
        describe_groups_request::DescribeGroupsRequest,
        describe_log_dirs_request::DescribeLogDirsRequest,
        describe_producers_request::DescribeProducersRequest,
        describe_quorum_request::DescribeQuorumRequest,
        describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest,
        describe_topic_partitions_request::DescribeTopicPartitionsRequest,
        describe_transactions_request::DescribeTransactionsRequest,
        describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest,
        elect_leaders_request::ElectLeadersRequest, end_txn_request::EndTxnRequest,
        expire_delegation_token_request::ExpireDelegationTokenRequest, fetch_request::FetchRequest,
        find_coordinator_request::FindCoordinatorRequest,
        get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest,
        heartbeat_request::HeartbeatRequest,
        incremental_alter_configs_request::IncrementalAlterConfigsRequest,
        init_producer_id_request::InitProducerIdRequest,
        initialize_share_group_state_request::InitializeShareGroupStateRequest,
        join_group_request::JoinGroupRequest, leave_group_request::LeaveGroupRequest,
        list_config_resources_request::ListConfigResourcesRequest,
        list_groups_request::ListGroupsRequest, list_offsets_request::ListOffsetsRequest,
        list_partition_reassignments_request::ListPartitionReassignmentsRequest,
        list_transactions_request::ListTransactionsRequest, metadata_request::MetadataRequest,
        offset_commit_request::OffsetCommitRequest, offset_delete_request::OffsetDeleteRequest,
        offset_fetch_request::OffsetFetchRequest,
        offset_for_leader_epoch_request::OffsetForLeaderEpochRequest,
        produce_request::ProduceRequest, push_telemetry_request::PushTelemetryRequest,
        read_share_group_state_request::ReadShareGroupStateRequest,
        read_share_group_state_summary_request::ReadShareGroupStateSummaryRequest,
        remove_raft_voter_request::RemoveRaftVoterRequest,
        renew_delegation_token_request::RenewDelegationTokenRequest,
        sasl_authenticate_request::SaslAuthenticateRequest,
        sasl_handshake_request::SaslHandshakeRequest,
        share_acknowledge_request::ShareAcknowledgeRequest, share_fetch_request::ShareFetchRequest,
        share_group_describe_request::ShareGroupDescribeRequest,
        share_group_heartbeat_request::ShareGroupHeartbeatRequest,
        streams_group_describe_request::StreamsGroupDescribeRequest,
        streams_group_heartbeat_request::StreamsGroupHeartbeatRequest,
        sync_group_request::SyncGroupRequest, txn_offset_commit_request::TxnOffsetCommitRequest,
        unregister_broker_request::UnregisterBrokerRequest,
        update_features_request::UpdateFeaturesRequest,
        write_share_group_state_request::WriteShareGroupStateRequest,
        write_txn_markers_request::WriteTxnMarkersRequest,
    };
}
use requests::*;

apis! {
    // Versions below 3 are refused, but librdkafka takes a broker that does not name them for one
    // without the features that came with version 0 (KAFKA-18659).
    Produce(ProduceRequest): 3..=13, told 0 => handlers::produce::handle;
    Fetch(FetchRequest): 4..=18 => handlers::fetch::handle;
    ListOffsets(ListOffsetsRequest): 1..=11 => handlers::list_offsets::handle;
    Metadata(MetadataRequest): 0..=13 => handlers::metadata::handle;
    OffsetCommit(OffsetCommitRequest): 2..=10 => handlers::offset_commit::handle;
    OffsetFetch(OffsetFetchRequest): 1..=10 => handlers::offset_fetch::handle;
    FindCoordinator(FindCoordinatorRequest): 0..=6 => handlers::find_coordinator::handle;
    JoinGroup(JoinGroupRequest): 0..=9 => handlers::join_group::handle;
    Heartbeat(HeartbeatRequest): 0..=4 => handlers::heartbeat::handle;
    LeaveGroup(LeaveGroupRequest): 0..=5 => handlers::leave_group::handle;
    SyncGroup(SyncGroupRequest): 0..=5 => handlers::sync_group::handle;
    DescribeGroups(DescribeGroupsRequest): 0..=6 => handlers::describe_groups::handle;
    ListGroups(ListGroupsRequest): 0..=5 => handlers::list_groups::handle;
    SaslHandshake(SaslHandshakeRequest): 0..=1 => handlers::sasl_handshake::handle;
    ApiVersions(ApiVersionsRequest): 0..=4 => handlers::api_versions::handle;
    CreateTopics(CreateTopicsRequest): 2..=7 => handlers::create_topics::handle;
    DeleteTopics(DeleteTopicsRequest): 1..=6 => handlers::delete_topics::handle;
    DeleteRecords(DeleteRecordsRequest): 0..=2 => handlers::delete_records::handle;
    InitProducerId(InitProducerIdRequest): 0..=5 => handlers::init_producer_id::handle;
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest): 2..=4 => handlers::offset_for_leader_epoch::handle;
    AddPartitionsToTxn(AddPartitionsToTxnRequest): 0..=5 => handlers::add_partitions_to_txn::handle;
    AddOffsetsToTxn(AddOffsetsToTxnRequest): 0..=4 => handlers::add_offsets_to_txn::handle;
    EndTxn(EndTxnRequest): 0..=5 => handlers::end_txn::handle;
    WriteTxnMarkers(WriteTxnMarkersRequest): 1..=2 => handlers::write_txn_markers::handle;
    TxnOffsetCommit(TxnOffsetCommitRequest): 0..=5 => handlers::txn_offset_commit::handle;
    DescribeAcls(DescribeAclsRequest): 1..=3 => handlers::describe_acls::handle;
    CreateAcls(CreateAclsRequest): 1..=3 => handlers::create_acls::handle;
    DeleteAcls(DeleteAclsRequest): 1..=3 => handlers::delete_acls::handle;
    DescribeConfigs(DescribeConfigsRequest): 1..=4 => handlers::describe_configs::handle;
    AlterConfigs(AlterConfigsRequest): 0..=2 => handlers::alter_configs::handle;
    AlterReplicaLogDirs(AlterReplicaLogDirsRequest): 1..=2 => handlers::alter_replica_log_dirs::handle;
    DescribeLogDirs(DescribeLogDirsRequest): 1..=5 => handlers::describe_log_dirs::handle;
    SaslAuthenticate(SaslAuthenticateRequest): 0..=2 => handlers::sasl_authenticate::handle;
    CreatePartitions(CreatePartitionsRequest): 0..=3 => handlers::create_partitions::handle;
    CreateDelegationToken(CreateDelegationTokenRequest): 1..=3 => handlers::delegation_tokens::create;
    RenewDelegationToken(RenewDelegationTokenRequest): 1..=2 => handlers::delegation_tokens::renew;
    ExpireDelegationToken(ExpireDelegationTokenRequest): 1..=2 => handlers::delegation_tokens::expire;
    DescribeDelegationToken(DescribeDelegationTokenRequest): 1..=3 => handlers::delegation_tokens::describe;
    DeleteGroups(DeleteGroupsRequest): 0..=2 => handlers::delete_groups::handle;
    ElectLeaders(ElectLeadersRequest): 0..=2 => handlers::elect_leaders::handle;
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest): 0..=1 => handlers::incremental_alter_configs::handle;
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest): 0..=1
        => handlers::alter_partition_reassignments::handle;
    ListPartitionReassignments(ListPartitionReassignmentsRequest): 0..=0
        => handlers::list_partition_reassignments::handle;
    OffsetDelete(OffsetDeleteRequest): 0..=0 => handlers::offset_delete::handle;
    DescribeClientQuotas(DescribeClientQuotasRequest): 0..=1 => handlers::describe_client_quotas::handle;
    AlterClientQuotas(AlterClientQuotasRequest): 0..=1 => handlers::alter_client_quotas::handle;
    DescribeUserScramCredentials(DescribeUserScramCredentialsRequest): 0..=0
        => handlers::describe_user_scram_credentials::handle;
    AlterUserScramCredentials(AlterUserScramCredentialsRequest): 0..=0
        => handlers::alter_user_scram_credentials::handle;
    DescribeQuorum(DescribeQuorumRequest): 0..=2 => handlers::quorum::describe;
    UpdateFeatures(UpdateFeaturesRequest): 0..=2 => handlers::update_features::handle;
    DescribeCluster(DescribeClusterRequest): 0..=2 => handlers::describe_cluster::handle;
    DescribeProducers(DescribeProducersRequest): 0..=0 => handlers::describe_producers::handle;
    UnregisterBroker(UnregisterBrokerRequest): 0..=0 => handlers::unregister_broker::handle;
    DescribeTransactions(DescribeTransactionsRequest): 0..=0 => handlers::describe_transactions::handle;
    ListTransactions(ListTransactionsRequest): 0..=2 => handlers::list_transactions::handle;
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequest): 0..=1 => handlers::consumer_group_heartbeat::handle;
    ConsumerGroupDescribe(ConsumerGroupDescribeRequest): 0..=1 => handlers::consumer_group_describe::handle;
    GetTelemetrySubscriptions(GetTelemetrySubscriptionsRequest): 0..=0
        => handlers::get_telemetry_subscriptions::handle;
    PushTelemetry(PushTelemetryRequest): 0..=0 => handlers::push_telemetry::handle;
    ListConfigResources(ListConfigResourcesRequest): 0..=1
        => handlers::list_config_resources::handle;
    DescribeTopicPartitions(DescribeTopicPartitionsRequest): 0..=0 => handlers::describe_topic_partitions::handle;
    ShareGroupHeartbeat(ShareGroupHeartbeatRequest): 1..=1 => handlers::share_group_heartbeat::handle;
    ShareGroupDescribe(ShareGroupDescribeRequest): 1..=1 => handlers::share_group_describe::handle;
    ShareFetch(ShareFetchRequest): 1..=2 => handlers::share_fetch::handle;
    ShareAcknowledge(ShareAcknowledgeRequest): 1..=2 => handlers::share_acknowledge::handle;
    AddRaftVoter(AddRaftVoterRequest): 0..=1 => handlers::quorum::add_voter;
    RemoveRaftVoter(RemoveRaftVoterRequest): 0..=0 => handlers::quorum::remove_voter;
    InitializeShareGroupState(InitializeShareGroupStateRequest): 0..=0
        => handlers::share_group_state::initialize;
    ReadShareGroupState(ReadShareGroupStateRequest): 0..=0 => handlers::share_group_state::read;
    WriteShareGroupState(WriteShareGroupStateRequest): 0..=1 => handlers::share_group_state::write;
    DeleteShareGroupState(DeleteShareGroupStateRequest): 0..=0 => handlers::share_group_state::delete;
    ReadShareGroupStateSummary(ReadShareGroupStateSummaryRequest): 0..=1
        => handlers::share_group_state::summarize;
    StreamsGroupHeartbeat(StreamsGroupHeartbeatRequest): 0..=0 => handlers::streams_group_heartbeat::handle;
    StreamsGroupDescribe(StreamsGroupDescribeRequest): 0..=0 => handlers::streams_group_describe::handle;
    DescribeShareGroupOffsets(DescribeShareGroupOffsetsRequest): 0..=1
        => handlers::describe_share_group_offsets::handle;
    AlterShareGroupOffsets(AlterShareGroupOffsetsRequest): 0..=0
        => handlers::alter_share_group_offsets::handle;
    DeleteShareGroupOffsets(DeleteShareGroupOffsetsRequest): 0..=0
        => handlers::delete_share_group_offsets::handle;
}

/// Finds the row of an API and its index in the table.
pub(crate) fn find(key: ApiKey) -> Option<(usize, &'static Api)> {
    let index = APIS.binary_search_by_key(&key.code(), |api| api.key.code()).ok()?;
    Some((index, &APIS[index]))
}

/// Takes the frames of one connection to their handlers.
pub(crate) struct Dispatcher {
    node: Arc<Node>,
    peer: Arc<Peer>,
    /// The client's name in the last request; it hardly ever changes, so it is copied once.
    client_id: Str,
}

impl Dispatcher {
    /// Makes a dispatcher for the connection of `peer`.
    pub(crate) fn new(node: Arc<Node>, peer: Peer) -> Self {
        Self { node, peer: Arc::new(peer), client_id: Str::EMPTY }
    }

    fn client_id(&mut self, sent: Option<&Str>) -> Str {
        let sent = sent.map_or("", Str::as_str);
        if self.client_id != *sent {
            // A copy, because what handlers keep must not keep the whole frame.
            self.client_id = Str::copy_from(sent);
        }
        self.client_id.clone()
    }
}

impl Dispatcher {
    /// A message of a SASL mechanism without a header, as it follows SaslHandshake version 0.
    fn bare_message(&self, message: &[u8]) -> Reply {
        match self.peer.authenticate(&self.node, message) {
            Ok(Stepped { message: answer, .. }) => {
                let length = Bytes::copy_from_slice(&(answer.len() as u32).to_be_bytes());
                Reply::Now(Answer::Frame(vec![length.into(), answer.into()], None))
            }
            Err(_) => {
                tracing::info!(peer = %self.peer.address, "a client was not let in");
                let delay = self.node.failed_authentication_delay();
                Reply::Barrier(Box::pin(async move {
                    tokio::time::sleep(delay).await;
                    Answer::Close(CloseReason::Refused)
                }))
            }
        }
    }
}

/// Reports whether an API is served before it is known who asks.
fn serves_strangers(key: ApiKey) -> bool {
    matches!(key, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate)
}

impl Drop for Dispatcher {
    /// The connection has ended: members of share groups give back what they had over it.
    fn drop(&mut self) {
        for (group, member) in self.node.shares.sessions.end_of_connection(&self.peer) {
            self.node.shares.member_gone(&self.node, &group, &member);
        }
    }
}

impl Dispatch for Dispatcher {
    fn dispatch(&mut self, frame: Pieces, arrived: Instant) -> Reply {
        if self.peer.identity.expects_bare_message() {
            return self.bare_message(&frame.into_bytes());
        }
        let begun = Instant::now();
        let request_bytes = frame.len();
        let RequestFrame { key, version, correlation_id, client_id, body } =
            match frame::decode_request_header(frame) {
                Ok(frame) => frame,
                Err(error) => return close(CloseReason::Malformed(error.to_string())),
            };
        if self.standing() == Standing::Unknown && !serves_strangers(key) {
            return close(CloseReason::Unauthenticated);
        }
        if self.peer.identity.has_expired(begun) && !serves_strangers(key) {
            return close(CloseReason::SessionOver);
        }
        let Some((index, api)) = find(key).filter(|(_, api)| api.is_served_by(self.peer.asks))
        else {
            return close(CloseReason::Unsupported(format!("{key} is not served")));
        };
        if !(api.version_min..=api.version_max).contains(&version) {
            if key == ApiKey::ApiVersions {
                return Reply::Now(handlers::api_versions::refuse(correlation_id));
            }
            let text = format!("{key} is not served in version {version}");
            return close(CloseReason::Unsupported(text));
        }
        let context = Context {
            node: Arc::clone(&self.node),
            peer: Arc::clone(&self.peer),
            client_id: self.client_id(client_id.as_ref()),
            api: key,
            version,
            frame_bytes: request_bytes,
        };
        self.node.request_counters[index].called(api).request(version, request_bytes);
        let receipt = Receipt {
            api: index,
            version,
            correlation_id,
            arrived,
            begun,
            throttled: self.peer.mute.pause_within(arrived, begun),
            handled: begun,
            ready: begun,
            request_bytes,
            response_bytes: 0,
        };
        (api.run)(Call { context, receipt, wait_ms: 0 }, body)
    }

    fn answered(&mut self, receipt: &Receipt, turn: Instant, sent: Instant) {
        let api = &APIS[receipt.api];
        self.node.request_counters[receipt.api].called(api).answered(receipt, turn, sent);
        self.node.request_log.answered(api.key, receipt, turn, sent, &self.peer, &self.client_id);
    }

    fn standing(&self) -> Standing {
        self.peer.identity.standing()
    }

    fn budget(&self) -> Option<&Arc<Budget>> {
        Some(&self.node.request_budget)
    }

    fn disk_failed(&mut self, error: &DiskError) {
        tracing::error!(%error, "records cannot be read for an answer that has begun");
        self.node.read_failures.add(1);
        // As after any other read that fails, it is looked whether the directory can be used.
        if !error.is_passing() {
            self.node.logs.disk_trouble.notify_one();
        }
    }

    #[inline]
    fn active(&mut self, now: Instant) {
        if let Some(activity) = &self.peer.activity {
            activity.note(now);
        }
    }

    fn muted_until(&self) -> Option<Instant> {
        self.peer.mute.until()
    }
}

/// A request between its header and its answer.
struct Call {
    context: Context,
    receipt: Receipt,
    /// For how long its client has to wait, as far as is known.
    wait_ms: i64,
}

fn run<R: Request, A: IntoFrame>(
    mut call: Call,
    mut body: Reader,
    handler: fn(&Context, R) -> Outcome<A>,
) -> Reply {
    let request = match R::decode(&mut body, call.context.version) {
        Ok(request) => request,
        Err(error) => return close(CloseReason::Malformed(error.to_string())),
    };
    if R::KEY == ApiKey::Produce {
        call.charge_bytes();
    }
    let outcome = handler(&call.context, request);
    match outcome {
        Outcome::Now(response) => Reply::Now(call.finish(R::KEY, response)),
        Outcome::Later(response) => {
            call.receipt.handled = Instant::now();
            Reply::Later(Box::pin(async move { call.finish_later(R::KEY, response.await) }))
        }
        Outcome::Barrier(response) => {
            call.receipt.handled = Instant::now();
            Reply::Barrier(Box::pin(async move { call.finish_later(R::KEY, response.await) }))
        }
        Outcome::Silence => {
            call.throttle(R::KEY, None);
            let receipt = &mut call.receipt;
            receipt.handled = Instant::now();
            receipt.ready = receipt.handled;
            call.counters().answered(&call.receipt, call.receipt.ready, call.receipt.ready);
            Reply::Now(Answer::Silence)
        }
        Outcome::Close(reason) => close(reason),
    }
}

impl Call {
    fn counters(&self) -> &Called {
        let index = self.receipt.api;
        self.context.node.request_counters[index].called(&APIS[index])
    }

    /// Charges the request to the quotas of its client. One who is over them is `told` so in the
    /// response, and then its connection is not read from for as long.
    #[inline]
    fn throttle(&mut self, key: ApiKey, told: Option<&mut i32>) {
        if self.context.node.quotas.are_set() {
            self.charge(key, told);
        }
    }

    /// Charges the bytes of a produce request before it is handled: answers that await a flush
    /// would come too late to keep a client from sending on.
    #[inline]
    fn charge_bytes(&mut self) {
        if let Some(client) = self.context.limited_client() {
            self.wait_ms = self.context.node.quotas.produced(&client, self.context.frame_bytes);
            self.mute();
        }
    }

    /// Reads nothing more from the connection for as long as the client has to wait.
    fn mute(&self) {
        if let Ok(wait_ms @ 1..) = u64::try_from(self.wait_ms) {
            self.context.peer.mute.begin(Duration::from_millis(wait_ms));
        }
    }

    fn charge(&mut self, key: ApiKey, told: Option<&mut i32>) {
        let Some(client) = self.context.limited_client() else { return };
        let quotas = &self.context.node.quotas;
        // Handlers may have charged something themselves.
        let mut wait_ms = told.as_deref().map_or(0, |told| i64::from(*told)).max(self.wait_ms);
        let is_acknowledged = told.is_some() || key != ApiKey::Produce;
        // As in Kafka, neither markers nor what nobody waits for pay for their time.
        if is_acknowledged && key != ApiKey::WriteTxnMarkers {
            let Receipt { begun, handled, .. } = self.receipt;
            let worked = if handled > begun { handled - begun } else { begun.elapsed() };
            wait_ms = wait_ms.max(quotas.worked(&client, worked));
        }
        if wait_ms > 0 {
            if let Some(told) = told {
                *told = i32::try_from(wait_ms).unwrap_or(i32::MAX);
            }
            // The bytes have begun to be paid for already.
            if wait_ms > self.wait_ms {
                self.wait_ms = wait_ms;
                self.mute();
            }
        }
    }

    /// Writes an answer that was there at once: all its time so far is the handler's.
    fn finish(self, key: ApiKey, response: impl IntoFrame) -> Answer {
        self.write(key, response, |receipt| {
            receipt.ready = Instant::now();
            receipt.handled = receipt.ready;
        })
    }

    fn finish_later(self, key: ApiKey, response: impl IntoFrame) -> Answer {
        self.write(key, response, |receipt| receipt.ready = Instant::now())
    }

    fn write(
        mut self,
        key: ApiKey,
        mut response: impl IntoFrame,
        stamp: impl FnOnce(&mut Receipt),
    ) -> Answer {
        let version = self.context.version;
        self.throttle(key, response.throttle_time_ms());
        response.error_codes(&mut |code| self.counters().error(code));
        match response.into_frame(key, self.receipt.correlation_id, version) {
            Ok(segments) => {
                self.receipt.response_bytes = segments.iter().map(Piece::len).sum();
                stamp(&mut self.receipt);
                Answer::Frame(segments, Some(self.receipt))
            }
            Err(error) => {
                // Our own handler made a response that its version cannot carry.
                tracing::error!(api = %key, version, %error, "cannot write a response");
                Answer::Close(CloseReason::Unsupported(error.to_string()))
            }
        }
    }
}

fn close(reason: CloseReason) -> Reply {
    Reply::Now(Answer::Close(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_within_what_kafka_knows() {
        for pair in APIS.windows(2) {
            assert!(pair[0].key.code() < pair[1].key.code());
        }
        for api in APIS {
            let known = api.key.versions();
            assert!(
                known.contains(api.version_min) && known.contains(api.version_max),
                "{}",
                api.key
            );
            assert!(api.advertised_min <= api.version_min, "{}", api.key);
            assert!(api.key.is_client_facing(), "{}", api.key);
        }
    }

    #[test]
    fn controllers_answer_administrators_and_serve_no_records() {
        let served = |key| find(key).is_some_and(|(_, api)| api.is_served_by(Role::Controller));
        for key in [
            ApiKey::ApiVersions,
            ApiKey::DescribeCluster,
            ApiKey::DescribeQuorum,
            ApiKey::UpdateFeatures,
            ApiKey::CreateTopics,
            ApiKey::IncrementalAlterConfigs,
            ApiKey::SaslHandshake,
        ] {
            assert!(served(key), "{key}");
        }
        for key in [
            ApiKey::Produce,
            ApiKey::Fetch,
            ApiKey::Metadata,
            ApiKey::FindCoordinator,
            ApiKey::DescribeLogDirs,
            ApiKey::ListGroups,
            ApiKey::Vote,
        ] {
            assert!(!served(key), "{key}");
        }
        assert!(APIS.iter().all(|api| api.is_served_by(Role::Broker)));
    }
}

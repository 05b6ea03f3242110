//! Every message against `kafka-protocol`, a codec written by others from Kafka's own schemas.
//!
//! For each message and version that both know: what we write, it reads; what it then writes is the
//! same bytes, and we read those back to the same message.

use bytes::{Bytes, BytesMut};
use fleuve_protocol::testing::{Sampler, Specimen, messages};
use fleuve_protocol::{ApiKey, VersionRange};
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// One message as the other codec knows it.
struct Oracle {
    name: &'static str,
    versions: VersionRange,
    /// Reads a message and writes it again; also returns how many bytes were left unread.
    recode: fn(Bytes, i16) -> Result<(Bytes, usize), String>,
}

fn recode<M: Message + Encodable + Decodable>(
    mut bytes: Bytes,
    version: i16,
) -> Result<(Bytes, usize), String> {
    let message = M::decode(&mut bytes, version).map_err(|error| format!("reading: {error:#}"))?;
    let mut written = BytesMut::new();
    message.encode(&mut written, version).map_err(|error| format!("writing: {error:#}"))?;
    Ok((written.freeze(), bytes.len()))
}

macro_rules! oracles {
    ($($name:ident)*) => {
        [$(Oracle {
            name: stringify!($name),
            versions: {
                let range = kafka_protocol::messages::$name::VERSIONS;
                VersionRange::new(range.min, range.max)
            },
            recode: recode::<kafka_protocol::messages::$name>,
        }),*]
    };
}

const CASES: u32 = 24;

#[test]
fn both_codecs_write_the_same_bytes() {
    let mut compared = 0;
    let mut failures = Vec::new();
    for oracle in ORACLES {
        let specimen = find(oracle.name);
        for version in specimen.versions.iter().filter(|&v| oracle.versions.contains(v)) {
            let config =
                ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() };
            let run = TestRunner::new(config).run(&any::<u64>(), |seed| {
                let ours = (specimen.round_trip)(&mut Sampler::new(seed), version);
                let (theirs, unread) =
                    (oracle.recode)(ours.clone(), version).map_err(TestCaseError::fail)?;
                prop_assert_eq!(unread, 0, "bytes that the other codec did not expect");
                prop_assert_eq!(&theirs, &ours, "the other codec writes other bytes");
                let again = (specimen.recode)(theirs, version);
                prop_assert_eq!(again, Ok((ours, 0)));
                Ok(())
            });
            if let Err(failure) = run {
                failures.push(format!("{} version {version}: {failure}", oracle.name));
            }
            compared += 1;
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    assert!(compared >= PAIRS_MIN, "only {compared} pairs of message and version were compared");
}

#[test]
fn only_apis_newer_than_the_oracle_go_uncompared() {
    let known = |name: String| ORACLES.iter().any(|oracle| oracle.name == name);
    for key in ApiKey::ALL {
        let compared =
            known(format!("{}Request", key.name())) && known(format!("{}Response", key.name()));
        assert_eq!(!compared, UNKNOWN_TO_THE_ORACLE.contains(&key), "{key}");
    }
}

fn find(name: &str) -> &'static Specimen {
    let found = messages().iter().find(|specimen| specimen.name == name);
    found.unwrap_or_else(|| panic!("we have no {name}"))
}

/// The streams groups of KIP-1071, which the other codec leaves out.
const UNKNOWN_TO_THE_ORACLE: [ApiKey; 2] =
    [ApiKey::StreamsGroupHeartbeat, ApiKey::StreamsGroupDescribe];

/// Pairs of message and version that are compared at least, so that a lost range is noticed.
const PAIRS_MIN: usize = 594;

// Not among them: LeaderChangeMessage and VotersRecord, in which the other codec takes the field
// `version` for the version of the message.
const ORACLES: &[Oracle] = &oracles! {
    AddOffsetsToTxnRequest
    AddOffsetsToTxnResponse
    AddPartitionsToTxnRequest
    AddPartitionsToTxnResponse
    AddRaftVoterRequest
    AddRaftVoterResponse
    AllocateProducerIdsRequest
    AllocateProducerIdsResponse
    AlterClientQuotasRequest
    AlterClientQuotasResponse
    AlterConfigsRequest
    AlterConfigsResponse
    AlterPartitionReassignmentsRequest
    AlterPartitionReassignmentsResponse
    AlterPartitionRequest
    AlterPartitionResponse
    AlterReplicaLogDirsRequest
    AlterReplicaLogDirsResponse
    AlterShareGroupOffsetsRequest
    AlterShareGroupOffsetsResponse
    AlterUserScramCredentialsRequest
    AlterUserScramCredentialsResponse
    ApiVersionsRequest
    ApiVersionsResponse
    AssignReplicasToDirsRequest
    AssignReplicasToDirsResponse
    BeginQuorumEpochRequest
    BeginQuorumEpochResponse
    BrokerHeartbeatRequest
    BrokerHeartbeatResponse
    BrokerRegistrationRequest
    BrokerRegistrationResponse
    ConsumerGroupDescribeRequest
    ConsumerGroupDescribeResponse
    ConsumerGroupHeartbeatRequest
    ConsumerGroupHeartbeatResponse
    ConsumerProtocolAssignment
    ConsumerProtocolSubscription
    ControllerRegistrationRequest
    ControllerRegistrationResponse
    CreateAclsRequest
    CreateAclsResponse
    CreateDelegationTokenRequest
    CreateDelegationTokenResponse
    CreatePartitionsRequest
    CreatePartitionsResponse
    CreateTopicsRequest
    CreateTopicsResponse
    DefaultPrincipalData
    DeleteAclsRequest
    DeleteAclsResponse
    DeleteGroupsRequest
    DeleteGroupsResponse
    DeleteRecordsRequest
    DeleteRecordsResponse
    DeleteShareGroupOffsetsRequest
    DeleteShareGroupOffsetsResponse
    DeleteShareGroupStateRequest
    DeleteShareGroupStateResponse
    DeleteTopicsRequest
    DeleteTopicsResponse
    DescribeAclsRequest
    DescribeAclsResponse
    DescribeClientQuotasRequest
    DescribeClientQuotasResponse
    DescribeClusterRequest
    DescribeClusterResponse
    DescribeConfigsRequest
    DescribeConfigsResponse
    DescribeDelegationTokenRequest
    DescribeDelegationTokenResponse
    DescribeGroupsRequest
    DescribeGroupsResponse
    DescribeLogDirsRequest
    DescribeLogDirsResponse
    DescribeProducersRequest
    DescribeProducersResponse
    DescribeQuorumRequest
    DescribeQuorumResponse
    DescribeShareGroupOffsetsRequest
    DescribeShareGroupOffsetsResponse
    DescribeTopicPartitionsRequest
    DescribeTopicPartitionsResponse
    DescribeTransactionsRequest
    DescribeTransactionsResponse
    DescribeUserScramCredentialsRequest
    DescribeUserScramCredentialsResponse
    ElectLeadersRequest
    ElectLeadersResponse
    EndQuorumEpochRequest
    EndQuorumEpochResponse
    EndTxnMarker
    EndTxnRequest
    EndTxnResponse
    EnvelopeRequest
    EnvelopeResponse
    ExpireDelegationTokenRequest
    ExpireDelegationTokenResponse
    FetchRequest
    FetchResponse
    FetchSnapshotRequest
    FetchSnapshotResponse
    FindCoordinatorRequest
    FindCoordinatorResponse
    GetTelemetrySubscriptionsRequest
    GetTelemetrySubscriptionsResponse
    HeartbeatRequest
    HeartbeatResponse
    IncrementalAlterConfigsRequest
    IncrementalAlterConfigsResponse
    InitProducerIdRequest
    InitProducerIdResponse
    InitializeShareGroupStateRequest
    InitializeShareGroupStateResponse
    JoinGroupRequest
    JoinGroupResponse
    KRaftVersionRecord
    LeaveGroupRequest
    LeaveGroupResponse
    ListConfigResourcesRequest
    ListConfigResourcesResponse
    ListGroupsRequest
    ListGroupsResponse
    ListOffsetsRequest
    ListOffsetsResponse
    ListPartitionReassignmentsRequest
    ListPartitionReassignmentsResponse
    ListTransactionsRequest
    ListTransactionsResponse
    MetadataRequest
    MetadataResponse
    OffsetCommitRequest
    OffsetCommitResponse
    OffsetDeleteRequest
    OffsetDeleteResponse
    OffsetFetchRequest
    OffsetFetchResponse
    OffsetForLeaderEpochRequest
    OffsetForLeaderEpochResponse
    ProduceRequest
    ProduceResponse
    PushTelemetryRequest
    PushTelemetryResponse
    ReadShareGroupStateRequest
    ReadShareGroupStateResponse
    ReadShareGroupStateSummaryRequest
    ReadShareGroupStateSummaryResponse
    RemoveRaftVoterRequest
    RemoveRaftVoterResponse
    RenewDelegationTokenRequest
    RenewDelegationTokenResponse
    RequestHeader
    ResponseHeader
    SaslAuthenticateRequest
    SaslAuthenticateResponse
    SaslHandshakeRequest
    SaslHandshakeResponse
    ShareAcknowledgeRequest
    ShareAcknowledgeResponse
    ShareFetchRequest
    ShareFetchResponse
    ShareGroupDescribeRequest
    ShareGroupDescribeResponse
    ShareGroupHeartbeatRequest
    ShareGroupHeartbeatResponse
    SnapshotFooterRecord
    SnapshotHeaderRecord
    SyncGroupRequest
    SyncGroupResponse
    TxnOffsetCommitRequest
    TxnOffsetCommitResponse
    UnregisterBrokerRequest
    UnregisterBrokerResponse
    UpdateFeaturesRequest
    UpdateFeaturesResponse
    UpdateRaftVoterRequest
    UpdateRaftVoterResponse
    VoteRequest
    VoteResponse
    WriteShareGroupStateRequest
    WriteShareGroupStateResponse
    WriteTxnMarkersRequest
    WriteTxnMarkersResponse
};

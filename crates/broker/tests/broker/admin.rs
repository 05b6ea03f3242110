//! Quotas, credentials, features, leaders and the quorum, over sockets and across a restart.

use bytes::Bytes;
use fleuve_protocol::messages::{
    add_raft_voter_request as add_voter, alter_client_quotas_request as alter_quotas,
    alter_partition_reassignments_request as reassign,
    alter_user_scram_credentials_request as scram, api_versions_request::ApiVersionsRequest,
    create_acls_request as create_acls, create_delegation_token_request as token,
    delete_acls_request as delete_acls, describe_acls_request::DescribeAclsRequest,
    describe_client_quotas_request as quotas, describe_delegation_token_request as tokens,
    describe_quorum_request as quorum,
    describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest,
    elect_leaders_request as elect, expire_delegation_token_request as expire,
    get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest,
    incremental_alter_configs_request as incremental, push_telemetry_request::PushTelemetryRequest,
    remove_raft_voter_request as remove_voter, renew_delegation_token_request as renew,
    unregister_broker_request as unregister, update_features_request as features,
};
use fleuve_protocol::{ErrorCode, Str};

use crate::every_version::in_every_version;
use crate::support::{TestBroker, TestClient};

fn everything() -> quotas::DescribeClientQuotasRequest {
    quotas::DescribeClientQuotasRequest { components: Vec::new(), strict: false }
}

fn set_quota(kind: &'static str, key: &'static str, value: f64) -> alter_quotas::EntryData {
    alter_quotas::EntryData {
        entity: vec![alter_quotas::EntityData {
            entity_type: Str::from(kind),
            entity_name: Some(Str::from("127.0.0.1")),
        }],
        ops: vec![alter_quotas::OpData { key: Str::from(key), value, remove: false }],
    }
}

async fn set_password(client: &mut TestClient) {
    let request = scram::AlterUserScramCredentialsRequest {
        upsertions: vec![scram::ScramCredentialUpsertion {
            name: Str::from("ann"),
            mechanism: 1,
            iterations: 4096,
            salt: Bytes::from_static(b"salt"),
            salted_password: Bytes::from_static(b"hash"),
        }],
        ..Default::default()
    };
    assert_eq!(client.call(&request, 0).await.results[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_credentials_survive_a_restart() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    in_every_version(
        client,
        |version| alter_quotas::AlterClientQuotasRequest {
            entries: vec![
                set_quota("user", "producer_byte_rate", 1024.0 + f64::from(version)),
                set_quota("ip", "connection_creation_rate", 0.5),
            ],
            validate_only: false,
        },
        |_, response| {
            let codes: Vec<i16> = response.entries.iter().map(|entry| entry.error_code).collect();
            assert_eq!(codes, [0, ErrorCode::InvalidRequest.code()]);
        },
    )
    .await;
    set_password(client).await;

    let broker = TestBroker::start_in(broker.stop().await, &[]).await;
    let client = &mut broker.connect().await;
    in_every_version(
        client,
        |_| everything(),
        |_, response| {
            let entries = response.entries.as_ref().expect("no error");
            assert_eq!(entries.len(), 1);
            assert_eq!(entries[0].values[0].value, 1025.0);
        },
    )
    .await;
    let filter = quotas::DescribeClientQuotasRequest {
        components: vec![quotas::ComponentData {
            entity_type: Str::from("client-id"),
            match_type: 2,
            r#match: None,
        }],
        strict: true,
    };
    assert_eq!(client.call(&filter, 1).await.entries, Some(Vec::new()));
    let users = client.call(&DescribeUserScramCredentialsRequest { users: None }, 0).await.results;
    assert_eq!(users.len(), 1);
    assert_eq!((users[0].user.as_str(), users[0].credential_infos[0].iterations), ("ann", 4096));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn features_change_what_clients_are_told() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    let versions = ApiVersionsRequest {
        client_software_name: Str::from("test"),
        client_software_version: Str::from("1"),
    };
    let level =
        |response: &fleuve_protocol::messages::api_versions_response::ApiVersionsResponse| {
            let mut finalized = response.finalized_features.iter();
            finalized.find(|f| f.name.as_str() == "group.version").map(|f| f.max_version_level)
        };
    assert_eq!(level(&client.call(&versions, 4).await), Some(1));
    for (level_wanted, upgrade_type, validate_only, code) in
        [(0, 1, false, ErrorCode::InvalidUpdateVersion.code()), (0, 2, true, 0), (0, 2, false, 0)]
    {
        let request = features::UpdateFeaturesRequest {
            feature_updates: vec![features::FeatureUpdateKey {
                feature: Str::from("group.version"),
                max_version_level: level_wanted,
                upgrade_type,
                ..Default::default()
            }],
            validate_only,
            ..Default::default()
        };
        assert_eq!(client.call(&request, 2).await.error_code, code);
    }
    assert_eq!(level(&client.call(&versions, 4).await), None);
    in_every_version(
        client,
        |_| features::UpdateFeaturesRequest {
            feature_updates: vec![features::FeatureUpdateKey {
                feature: Str::from("group.version"),
                max_version_level: 1,
                ..Default::default()
            }],
            ..Default::default()
        },
        |version, response| {
            assert_eq!(response.error_code, 0);
            assert_eq!(response.results.len(), usize::from(version < 2));
        },
    )
    .await;
    assert_eq!(level(&client.call(&versions, 4).await), Some(1));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_answers_what_concerns_several() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    client.create_topic("t", 2).await;
    in_every_version(
        client,
        |_| elect::ElectLeadersRequest {
            topic_partitions: Some(vec![elect::TopicPartitions {
                topic: Str::from("t"),
                partitions: vec![0, 7],
            }]),
            ..Default::default()
        },
        |_, response| {
            let rows = &response.replica_election_results[0].partition_result;
            let codes: Vec<i16> = rows.iter().map(|row| row.error_code).collect();
            let unknown = ErrorCode::UnknownTopicOrPartition;
            assert_eq!(codes, [ErrorCode::ElectionNotNeeded.code(), unknown.code()]);
        },
    )
    .await;
    let all = elect::ElectLeadersRequest { topic_partitions: None, ..Default::default() };
    let elected = client.call(&all, 2).await.replica_election_results;
    assert!(elected.iter().all(|topic| topic.partition_result.is_empty()), "{elected:?}");

    in_every_version(
        client,
        |_| reassign::AlterPartitionReassignmentsRequest {
            topics: vec![reassign::ReassignableTopic {
                name: Str::from("t"),
                partitions: [Some(vec![1]), Some(vec![1, 2]), None]
                    .into_iter()
                    .zip([0, 1, 0])
                    .map(|(replicas, partition_index)| reassign::ReassignablePartition {
                        partition_index,
                        replicas,
                    })
                    .collect(),
            }],
            ..Default::default()
        },
        |_, response| {
            let rows = &response.responses[0].partitions;
            let codes: Vec<i16> = rows.iter().map(|row| row.error_code).collect();
            let invalid = ErrorCode::InvalidReplicaAssignment.code();
            assert_eq!(codes, [0, invalid, ErrorCode::NoReassignmentInProgress.code()]);
        },
    )
    .await;
    in_every_version(
        client,
        |_| quorum::DescribeQuorumRequest {
            topics: vec![quorum::TopicData {
                topic_name: Str::from("__cluster_metadata"),
                partitions: vec![quorum::PartitionData { partition_index: 0 }],
            }],
        },
        |version, response| {
            let partition = &response.topics[0].partitions[0];
            assert_eq!((partition.error_code, partition.leader_id), (0, 1));
            assert_eq!(partition.high_watermark, partition.current_voters[0].log_end_offset);
            assert_eq!(response.nodes.len(), usize::from(version >= 2));
        },
    )
    .await;
    for (id, code) in [(1, ErrorCode::InvalidRequest), (9, ErrorCode::BrokerIdNotRegistered)] {
        let request = unregister::UnregisterBrokerRequest { broker_id: id };
        assert_eq!(client.call(&request, 0).await.error_code, code.code());
    }
    in_every_version(
        client,
        |_| add_voter::AddRaftVoterRequest { cluster_id: None, voter_id: 1, ..Default::default() },
        |_, response| assert_eq!(response.error_code, ErrorCode::DuplicateVoter.code()),
    )
    .await;
    let foreign = add_voter::AddRaftVoterRequest {
        cluster_id: Some(Str::from("another")),
        ..Default::default()
    };
    let refused = client.call(&foreign, 1).await.error_code;
    assert_eq!(refused, ErrorCode::InconsistentClusterId.code());
    let gone = remove_voter::RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: 7,
        ..Default::default()
    };
    assert_eq!(client.call(&gone, 0).await.error_code, ErrorCode::VoterNotFound.code());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_security_kafka_says_so() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    let disabled = ErrorCode::SecurityDisabled.code();
    in_every_version(
        client,
        |_| DescribeAclsRequest {
            resource_type_filter: 1,
            pattern_type_filter: 3,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        },
        |_, response| assert_eq!(response.error_code, disabled),
    )
    .await;
    in_every_version(
        client,
        |_| create_acls::CreateAclsRequest {
            creations: vec![create_acls::AclCreation {
                resource_pattern_type: 3,
                ..Default::default()
            }],
        },
        |_, response| assert_eq!(response.results[0].error_code, disabled),
    )
    .await;
    in_every_version(
        client,
        |_| delete_acls::DeleteAclsRequest {
            filters: vec![delete_acls::DeleteAclsFilter {
                pattern_type_filter: 3,
                ..Default::default()
            }],
        },
        |_, response| assert_eq!(response.filter_results[0].error_code, disabled),
    )
    .await;
    let not_allowed = ErrorCode::DelegationTokenRequestNotAllowed.code();
    in_every_version(
        client,
        |_| token::CreateDelegationTokenRequest::default(),
        |_, response| assert_eq!(response.error_code, not_allowed),
    )
    .await;
    in_every_version(
        client,
        |_| renew::RenewDelegationTokenRequest::default(),
        |_, response| assert_eq!(response.error_code, not_allowed),
    )
    .await;
    in_every_version(
        client,
        |_| expire::ExpireDelegationTokenRequest::default(),
        |_, response| assert_eq!(response.error_code, not_allowed),
    )
    .await;
    in_every_version(
        client,
        |_| tokens::DescribeDelegationTokenRequest::default(),
        |_, response| assert_eq!(response.error_code, not_allowed),
    )
    .await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_asked_for_metrics_and_their_pushes_taken() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    let ask = GetTelemetrySubscriptionsRequest::default();
    let nothing = client.call(&ask, 0).await;
    assert_eq!((nothing.error_code, nothing.requested_metrics.len()), (0, 0));
    assert!(!nothing.client_instance_id.is_zero());

    let subscribe = incremental::IncrementalAlterConfigsRequest {
        resources: vec![incremental::AlterConfigsResource {
            resource_type: 16,
            resource_name: Str::from("all"),
            configs: vec![incremental::AlterableConfig {
                name: Str::from("metrics"),
                config_operation: 0,
                value: Some(Str::from("*")),
            }],
        }],
        validate_only: false,
    };
    assert_eq!(client.call(&subscribe, 1).await.responses[0].error_code, 0);
    let mut push = PushTelemetryRequest {
        client_instance_id: nothing.client_instance_id,
        subscription_id: nothing.subscription_id,
        ..Default::default()
    };
    let outdated = client.call(&push, 0).await.error_code;
    assert_eq!(outdated, ErrorCode::UnknownSubscriptionId.code());
    let again = GetTelemetrySubscriptionsRequest { client_instance_id: push.client_instance_id };
    let granted = client.call(&again, 0).await;
    assert_eq!((granted.error_code, granted.requested_metrics), (0, vec![Str::from("*")]));
    push.subscription_id = granted.subscription_id;
    assert_eq!(client.call(&push, 0).await.error_code, 0);
    assert_eq!(client.call(&push, 0).await.error_code, ErrorCode::ThrottlingQuotaExceeded.code());
    push.terminating = true;
    push.metrics = Bytes::from_static(b"\xff");
    assert_eq!(client.call(&push, 0).await.error_code, ErrorCode::InvalidRecord.code());
    broker.stop().await;
}

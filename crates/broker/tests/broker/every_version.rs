//! Every API that is advertised answers in every version, on one connection after the other.
//!
//! A response that its version cannot carry would close the connection; this finds the fields
//! that a handler fills in without looking at the version.

use crate::support::{TestBroker, TestClient};
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::{
    alter_configs_request as alter, create_partitions_request as more,
    create_topics_request as create, delete_groups_request as delete_groups,
    delete_records_request as delete_records, delete_topics_request as delete,
    describe_cluster_request as cluster, describe_configs_request as configs,
    describe_groups_request as describe, describe_log_dirs_request as log_dirs,
    describe_topic_partitions_request as partitions, find_coordinator_request as find,
    heartbeat_request as heartbeat, incremental_alter_configs_request as incremental,
    init_producer_id_request as init, join_group_request as join, leave_group_request as leave,
    list_config_resources_request as list_configs, list_groups_request as list_groups,
    list_offsets_request as list_offsets, list_partition_reassignments_request as reassignments,
    metadata_request as metadata, offset_commit_request as commit,
    offset_delete_request as offset_delete, offset_fetch_request as offset_fetch,
    offset_for_leader_epoch_request as epochs, sync_group_request as sync,
};
use fleuve_protocol::{ErrorCode, Request, Str};
use fleuve_types::Uuid;

pub(super) async fn in_every_version<R: Request>(
    client: &mut TestClient,
    make: impl Fn(i16) -> R,
    check: impl Fn(i16, &R::Response),
) {
    let versions = ApiVersionsRequest {
        client_software_name: Str::from("test"),
        client_software_version: Str::from("1"),
    };
    let advertised = client.call(&versions, 4).await;
    let row = advertised.api_keys.iter().find(|row| row.api_key == R::KEY.code());
    let row = row.unwrap_or_else(|| panic!("{} is not advertised", R::KEY));
    for version in row.min_version..=row.max_version {
        let response = client.call(&make(version), version).await;
        check(version, &response);
    }
}

const NAME: Str = Str::from_static("words");
const GROUP: Str = Str::from_static("readers");

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_offsets() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    let id = client.create_topic("words", 1).await;
    client.produce("words", 0, &["a", "b"]).await;

    in_every_version(
        client,
        |version| metadata::MetadataRequest {
            topics: Some(vec![metadata::MetadataRequestTopic {
                name: Some(NAME),
                ..Default::default()
            }]),
            include_cluster_authorized_operations: (8..=10).contains(&version),
            include_topic_authorized_operations: version >= 8,
            ..Default::default()
        },
        |_, response| {
            assert_eq!(response.topics[0].error_code, 0);
            assert_eq!(response.topics[0].partitions.len(), 1);
            assert_eq!(response.brokers.len(), 1);
        },
    )
    .await;
    for (timestamp, first, offset) in
        [(-1, 1, 2), (-2, 1, 0), (-3, 7, 0), (-4, 8, 0), (-5, 9, -1), (-6, 11, -1), (0, 1, 0)]
    {
        in_every_version(
            client,
            |_| list_offsets::ListOffsetsRequest {
                replica_id: -1,
                topics: vec![list_offsets::ListOffsetsTopic {
                    name: NAME,
                    partitions: vec![list_offsets::ListOffsetsPartition {
                        timestamp,
                        ..Default::default()
                    }],
                }],
                ..Default::default()
            },
            |version, response| {
                let partition = &response.topics[0].partitions[0];
                if version < first {
                    assert_eq!(partition.error_code, ErrorCode::UnsupportedVersion.code());
                } else {
                    assert_eq!(
                        (partition.error_code, partition.offset),
                        (0, offset),
                        "{timestamp}"
                    );
                }
            },
        )
        .await;
    }
    in_every_version(
        client,
        |_| epochs::OffsetForLeaderEpochRequest {
            topics: vec![epochs::OffsetForLeaderTopic {
                topic: NAME,
                partitions: vec![epochs::OffsetForLeaderPartition {
                    leader_epoch: 0,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].end_offset, 2),
    )
    .await;
    in_every_version(
        client,
        |_| delete_records::DeleteRecordsRequest {
            topics: vec![delete_records::DeleteRecordsTopic {
                name: NAME,
                partitions: vec![delete_records::DeleteRecordsPartition {
                    offset: 1,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].low_watermark, 1),
    )
    .await;
    assert_eq!(client.fetch("words", 0, 1).await, ["a", "b"], "a batch comes whole");
    in_every_version(
        client,
        |_| log_dirs::DescribeLogDirsRequest { topics: None },
        |version, response| {
            let directory = &response.results[0];
            assert_eq!((response.results.len(), directory.topics.len()), (1, 1));
            assert!(directory.topics[0].partitions[0].partition_size > 0);
            assert_eq!(directory.usable_bytes > 0, version >= 4);
        },
    )
    .await;
    in_every_version(
        client,
        |_| partitions::DescribeTopicPartitionsRequest::default(),
        |_, response| assert_eq!(response.topics[0].topic_id, id),
    )
    .await;
    in_every_version(
        client,
        |_| cluster::DescribeClusterRequest {
            include_cluster_authorized_operations: true,
            ..Default::default()
        },
        |_, response| assert_eq!(response.brokers.len(), 1),
    )
    .await;
    in_every_version(
        client,
        |_| init::InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..no_transaction() },
        |version, response| {
            assert_eq!((response.error_code, response.producer_id), (0, i64::from(version)));
        },
    )
    .await;
    broker.stop().await;
}

fn no_transaction() -> init::InitProducerIdRequest {
    init::InitProducerIdRequest { transactional_id: None, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn administration() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    let name = |version: i16| Str::from(format!("topic-{version}"));
    in_every_version(
        client,
        |version| create::CreateTopicsRequest {
            topics: vec![create::CreatableTopic {
                name: name(version),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            }],
            ..Default::default()
        },
        |_, response| assert_eq!(response.topics[0].error_code, 0),
    )
    .await;
    in_every_version(
        client,
        |version| more::CreatePartitionsRequest {
            topics: vec![more::CreatePartitionsTopic {
                name: name(7),
                count: i32::from(version) + 2,
                assignments: None,
            }],
            ..Default::default()
        },
        |_, response| assert_eq!(response.results[0].error_code, 0, "{response:?}"),
    )
    .await;
    in_every_version(
        client,
        |_| incremental::IncrementalAlterConfigsRequest {
            resources: vec![incremental::AlterConfigsResource {
                resource_type: 2,
                resource_name: name(7),
                configs: vec![incremental::AlterableConfig {
                    name: Str::from("retention.ms"),
                    config_operation: 0,
                    value: Some(Str::from("4711")),
                }],
            }],
            ..Default::default()
        },
        |_, response| assert_eq!(response.responses[0].error_code, 0, "{response:?}"),
    )
    .await;
    let described = |expected: &'static str| {
        move |_: i16, response: &fleuve_protocol::messages::describe_configs_response::DescribeConfigsResponse| {
            let configs = &response.results[0].configs;
            assert_eq!(configs.len(), 1);
            assert_eq!(configs[0].value.as_deref(), Some(expected));
        }
    };
    let describe_retention = |version: i16| configs::DescribeConfigsRequest {
        resources: vec![configs::DescribeConfigsResource {
            resource_type: 2,
            resource_name: Str::from("topic-7"),
            configuration_keys: Some(vec![Str::from("retention.ms")]),
        }],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    in_every_version(client, describe_retention, described("4711")).await;
    in_every_version(
        client,
        |_| alter::AlterConfigsRequest {
            resources: vec![alter::AlterConfigsResource {
                resource_type: 2,
                resource_name: Str::from("topic-7"),
                configs: Vec::new(),
            }],
            ..Default::default()
        },
        |_, response| assert_eq!(response.responses[0].error_code, 0, "{response:?}"),
    )
    .await;
    in_every_version(client, describe_retention, described("604800000")).await;
    in_every_version(
        client,
        |_| list_configs::ListConfigResourcesRequest::default(),
        |version, response| {
            let resources = response.config_resources.iter();
            let topics = resources.filter(|resource| resource.resource_type == 2).count();
            assert_eq!((response.error_code, topics), (0, if version == 0 { 0 } else { 6 }));
        },
    )
    .await;
    in_every_version(
        client,
        |_| reassignments::ListPartitionReassignmentsRequest::default(),
        |_, response| assert_eq!((response.error_code, response.topics.len()), (0, 0)),
    )
    .await;
    in_every_version(
        client,
        |version| {
            // Versions without names of their own for it take the ones made above.
            let topic = name(if version == 1 { 7 } else { version });
            let mut request = delete::DeleteTopicsRequest::default();
            if version >= 6 {
                request.topics =
                    vec![delete::DeleteTopicState { name: Some(topic), topic_id: Uuid::ZERO }];
            } else {
                request.topic_names = vec![topic];
            }
            request
        },
        |version, response| assert_eq!(response.responses[0].error_code, 0, "version {version}"),
    )
    .await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups() {
    let broker = TestBroker::start(&[("offsets.topic.num.partitions", "3")]).await;
    let client = &mut broker.connect().await;
    let id = client.create_topic("words", 1).await;
    in_every_version(
        client,
        |version| {
            let mut request = find::FindCoordinatorRequest::default();
            if version >= 4 {
                request.coordinator_keys = vec![GROUP];
            } else {
                request.key = GROUP;
            }
            request
        },
        |version, response| {
            let node =
                if version >= 4 { response.coordinators[0].node_id } else { response.node_id };
            assert_eq!(node, 1, "{response:?}");
        },
    )
    .await;
    in_every_version(
        client,
        |version| commit::OffsetCommitRequest {
            group_id: GROUP,
            generation_id_or_member_epoch: -1,
            topics: vec![commit::OffsetCommitRequestTopic {
                name: NAME,
                topic_id: if version >= 10 { id } else { Uuid::ZERO },
                partitions: vec![commit::OffsetCommitRequestPartition {
                    committed_offset: i64::from(version),
                    committed_metadata: Some(Str::from("note")),
                    ..Default::default()
                }],
            }],
            ..Default::default()
        },
        |version, response| {
            let partition = &response.topics[0].partitions[0];
            assert_eq!(partition.error_code, 0, "version {version}");
        },
    )
    .await;
    in_every_version(
        client,
        |version| {
            let mut request = offset_fetch::OffsetFetchRequest::default();
            if version >= 8 {
                request.groups = vec![offset_fetch::OffsetFetchRequestGroup {
                    group_id: GROUP,
                    topics: Some(vec![offset_fetch::OffsetFetchRequestTopics {
                        name: NAME,
                        topic_id: if version >= 10 { id } else { Uuid::ZERO },
                        partition_indexes: vec![0],
                    }]),
                    ..Default::default()
                }];
            } else {
                request.group_id = GROUP;
                request.topics = Some(vec![offset_fetch::OffsetFetchRequestTopic {
                    name: NAME,
                    partition_indexes: vec![0],
                }]);
            }
            request
        },
        |version, response| {
            let offset = if version >= 8 {
                response.groups[0].topics[0].partitions[0].committed_offset
            } else {
                response.topics[0].partitions[0].committed_offset
            };
            assert_eq!(offset, 10, "version {version}");
        },
    )
    .await;
    in_every_version(
        client,
        |version| join::JoinGroupRequest {
            group_id: GROUP,
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: Str::from("consumer"),
            member_id: Str::from(if version == 0 { "" } else { "stranger" }),
            protocols: vec![join::JoinGroupRequestProtocol {
                name: Str::from("range"),
                ..Default::default()
            }],
            ..Default::default()
        },
        |version, response| {
            let expected = if version == 0 { ErrorCode::None } else { ErrorCode::UnknownMemberId };
            assert_eq!(response.error_code, expected.code(), "version {version}");
        },
    )
    .await;
    let unknown = ErrorCode::UnknownMemberId.code();
    in_every_version(
        client,
        |_| sync::SyncGroupRequest {
            group_id: GROUP,
            member_id: Str::from("stranger"),
            generation_id: 1,
            protocol_type: Some(Str::from("consumer")),
            protocol_name: Some(Str::from("range")),
            ..Default::default()
        },
        |_, response| assert_eq!(response.error_code, unknown),
    )
    .await;
    in_every_version(
        client,
        |_| heartbeat::HeartbeatRequest {
            group_id: GROUP,
            member_id: Str::from("stranger"),
            ..Default::default()
        },
        |_, response| assert_eq!(response.error_code, unknown),
    )
    .await;
    in_every_version(
        client,
        |version| {
            let mut request = leave::LeaveGroupRequest { group_id: GROUP, ..Default::default() };
            if version >= 3 {
                request.members = vec![leave::MemberIdentity {
                    member_id: Str::from("stranger"),
                    ..Default::default()
                }];
            } else {
                request.member_id = Str::from("stranger");
            }
            request
        },
        |version, response| {
            let code =
                if version >= 3 { response.members[0].error_code } else { response.error_code };
            assert_eq!(code, unknown);
        },
    )
    .await;
    in_every_version(
        client,
        |version| describe::DescribeGroupsRequest {
            groups: vec![GROUP, Str::from("nobody")],
            include_authorized_operations: version >= 3,
        },
        |version, response| {
            assert_eq!(response.groups[0].members.len(), 1);
            let expected = if version >= 6 { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
            assert_eq!(response.groups[1].error_code, expected.code());
            assert_eq!(&*response.groups[1].group_state, "Dead");
        },
    )
    .await;
    in_every_version(
        client,
        |_| list_groups::ListGroupsRequest::default(),
        |_, response| assert_eq!(response.groups.len(), 1),
    )
    .await;
    in_every_version(
        client,
        |_| offset_delete::OffsetDeleteRequest {
            group_id: GROUP,
            topics: vec![offset_delete::OffsetDeleteRequestTopic {
                name: NAME,
                partitions: vec![Default::default()],
            }],
        },
        |_, response| assert_eq!(response.error_code, 0, "{response:?}"),
    )
    .await;
    in_every_version(
        client,
        |_| delete_groups::DeleteGroupsRequest { groups_names: vec![GROUP] },
        |_, response| {
            assert_eq!(response.results[0].error_code, ErrorCode::NonEmptyGroup.code());
        },
    )
    .await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let broker = TestBroker::start(&[]).await;
    let mut client = broker.connect().await;
    // Version 99 with a flexible header and a body that nobody knows.
    let body = b"\0\x12\0\x63\0\0\0\x07\0\x01x\0\x02\x03\x04";
    let length = (body.len() as i32).to_be_bytes();
    client.send_raw(&[&length[..], body].concat()).await;
    let answer = client.receive_frame().await.expect("an answer");
    // Correlation id, error 35, one row: ApiVersions from 0 to 4.
    assert_eq!(&answer[..], b"\0\0\0\x07\0\x23\0\0\0\x01\0\x12\0\0\0\x04");
    // The connection goes on.
    client.create_topic("words", 1).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_or_not_readable_closes_the_connection() {
    let broker = TestBroker::start(&[]).await;
    let frames: [&[u8]; 4] = [
        // AddPartitionsToTxn, which is not served.
        b"\0\x18\0\0\0\0\0\x01\xff\xff",
        // Produce in a version that only ApiVersions speaks of.
        b"\0\0\0\x02\0\0\0\x01\xff\xff",
        // An API that nobody knows.
        b"\x03\xe7\0\0\0\0\0\x01\xff\xff",
        // Metadata whose body ends early.
        b"\0\x03\0\x04\0\0\0\x01\xff\xff\0\0\0\x09",
    ];
    for body in frames {
        let mut client = broker.connect().await;
        let length = (body.len() as i32).to_be_bytes();
        client.send_raw(&[&length[..], body].concat()).await;
        assert!(client.receive_frame().await.is_none(), "{body:?}");
    }
    let client = &mut broker.connect().await;
    client.create_topic("words", 1).await;
    broker.stop().await;
}

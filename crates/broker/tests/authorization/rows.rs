//! The table: for each API a request, the rights that it needs, and what is seen without each.

#![expect(unused_qualifications, reason = "many APIs have parts of the same names")]

use bytes::Bytes;
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::ApiKey;
use fleuve_protocol::messages::*;
use fleuve_protocol::records::{BatchBuilder, BatchOptions, BatchProducer, NewRecord};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::{ProducerEpoch, ProducerId, TimestampMs, Uuid};

use crate::wire::{Ask, ask};

use AclOperation::{
    Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs, IdempotentWrite,
    Read, Write,
};
use AclResourceType::{Cluster, Group, Topic, TransactionalId};
use ErrorCode::{
    ClusterAuthorizationFailed as NotCluster, GroupAuthorizationFailed as NotGroup,
    TopicAuthorizationFailed as NotTopic, TransactionalIdAuthorizationFailed as NotTransactionalId,
};

/// To do something to the thing of that kind.
pub(crate) type Right = (AclOperation, AclResourceType);

/// What is seen without a right.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// This error, and the same whether the thing exists or not.
    Code(ErrorCode),
    /// No error, and no name.
    Nothing,
    /// What others do; the row is there for the comparison.
    Open,
}
use Seen::{Code, Nothing, Open};

/// A request and what it needs.
pub(crate) struct Row {
    pub(crate) key: ApiKey,
    /// Tells the rows of an API apart.
    pub(crate) what: &'static str,
    pub(crate) rights: Vec<(Right, Seen)>,
    pub(crate) ask: fn(&Names) -> Ask,
}

/// What requests are about.
pub(crate) struct Names {
    pub(crate) topic: Str,
    pub(crate) topic_id: Uuid,
    pub(crate) group: Str,
    pub(crate) transactional_id: Str,
    pub(crate) user: Str,
}

impl Names {
    /// The topic.
    pub(crate) const TOPIC: &str = "secret-topic";
    /// A part of the names of all that exists.
    pub(crate) const MARK: &str = "secret-";

    /// Names of what exists.
    pub(crate) fn of_topic(topic_id: Uuid) -> Self {
        Self {
            topic: Str::from(Self::TOPIC),
            topic_id,
            group: Str::from("secret-group"),
            transactional_id: Str::from("secret-id"),
            user: Str::from("User:secret-user"),
        }
    }

    /// Names of what does not exist.
    pub(crate) fn of_nothing() -> Self {
        Self {
            topic: Str::from("ghost-topic"),
            topic_id: Uuid::from_random_bytes([7; 16]),
            group: Str::from("ghost-group"),
            transactional_id: Str::from("ghost-id"),
            user: Str::from("User:ghost-user"),
        }
    }
}

/// APIs that need no right.
pub(crate) const FREE: &[ApiKey] = &[
    ApiKey::ApiVersions,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
    ApiKey::GetTelemetrySubscriptions,
    ApiKey::PushTelemetry,
    // Whoever has a token's password may change its end; creating and describing tokens of one's
    // own needs no right either, see the tests of tokens.
    ApiKey::CreateDelegationToken,
    ApiKey::RenewDelegationToken,
    ApiKey::ExpireDelegationToken,
    ApiKey::DescribeDelegationToken,
];

fn row(key: ApiKey, rights: &[(Right, Seen)], ask: fn(&Names) -> Ask) -> Row {
    variant(key, "", rights, ask)
}

fn variant(
    key: ApiKey,
    what: &'static str,
    rights: &[(Right, Seen)],
    ask: fn(&Names) -> Ask,
) -> Row {
    Row { key, what, rights: rights.to_vec(), ask }
}

fn batch(transactional: bool) -> Option<Bytes> {
    let producer =
        BatchProducer { id: ProducerId(4711), epoch: ProducerEpoch(0), base_sequence: 0 };
    let options = BatchOptions {
        producer: transactional.then_some(producer),
        transactional,
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    let record = NewRecord { timestamp: TimestampMs(1), value: Some(b"x"), ..NewRecord::default() };
    builder.append(&record).expect("a small record");
    Some(builder.finish())
}

fn produce(names: &Names, version: i16, transactional: bool) -> Ask {
    let by_id = version >= 13;
    let request = produce_request::ProduceRequest {
        transactional_id: transactional.then(|| names.transactional_id.clone()),
        acks: 1,
        timeout_ms: 1_000,
        topic_data: vec![produce_request::TopicProduceData {
            name: if by_id { Str::EMPTY } else { names.topic.clone() },
            topic_id: if by_id { names.topic_id } else { Uuid::ZERO },
            partition_data: vec![produce_request::PartitionProduceData {
                index: 0,
                records: batch(transactional),
            }],
        }],
    };
    ask(request, version)
}

fn fetch(names: &Names, version: i16, replica: bool) -> Ask {
    let by_id = version >= 13;
    let mut request = fetch_request::FetchRequest {
        max_bytes: 1_000,
        topics: vec![fetch_request::FetchTopic {
            topic: if by_id { Str::EMPTY } else { names.topic.clone() },
            topic_id: if by_id { names.topic_id } else { Uuid::ZERO },
            partitions: vec![fetch_request::FetchPartition {
                partition_max_bytes: 1_000,
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    if replica {
        request.replica_id = 1;
    }
    ask(request, version)
}

fn metadata_of(names: &Names, what: &str) -> Ask {
    let topic = match what {
        "id" => metadata_request::MetadataRequestTopic { name: None, topic_id: names.topic_id },
        _ => metadata_request::MetadataRequestTopic {
            name: Some(names.topic.clone()),
            topic_id: Uuid::ZERO,
        },
    };
    let request = metadata_request::MetadataRequest {
        topics: (what != "all").then(|| vec![topic]),
        allow_auto_topic_creation: what == "creation",
        include_topic_authorized_operations: what != "creation",
        ..Default::default()
    };
    ask(request, 12)
}

fn configs(names: &Names, resource_type: i8) -> (i8, Str) {
    let name = match resource_type {
        2 => names.topic.clone(),
        32 => names.group.clone(),
        16 => Str::from("subscription"),
        _ => Str::from("1"),
    };
    (resource_type, name)
}

fn describe_configs(names: &Names, resource_type: i8) -> Ask {
    let (resource_type, resource_name) = configs(names, resource_type);
    let resource = describe_configs_request::DescribeConfigsResource {
        resource_type,
        resource_name,
        configuration_keys: Some(vec![Str::from("retention.ms")]),
    };
    let request = describe_configs_request::DescribeConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    ask(request, 4)
}

fn incremental(names: &Names, resource_type: i8) -> Ask {
    let (resource_type, resource_name) = configs(names, resource_type);
    let resource = incremental_alter_configs_request::AlterConfigsResource {
        resource_type,
        resource_name,
        configs: Vec::new(),
    };
    let request = incremental_alter_configs_request::IncrementalAlterConfigsRequest {
        resources: vec![resource],
        validate_only: true,
    };
    ask(request, 1)
}

fn alter_configs(names: &Names, resource_type: i8) -> Ask {
    let (resource_type, resource_name) = configs(names, resource_type);
    let resource = alter_configs_request::AlterConfigsResource {
        resource_type,
        resource_name,
        configs: Vec::new(),
    };
    let request = alter_configs_request::AlterConfigsRequest {
        resources: vec![resource],
        validate_only: true,
    };
    ask(request, 2)
}

fn create_topic(name: Str) -> Ask {
    let topic = create_topics_request::CreatableTopic {
        name,
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let request = create_topics_request::CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
        validate_only: true,
    };
    ask(request, 7)
}

fn delete_topic(names: &Names, by_id: bool) -> Ask {
    let state = match by_id {
        true => delete_topics_request::DeleteTopicState { name: None, topic_id: names.topic_id },
        false => delete_topics_request::DeleteTopicState {
            name: Some(names.topic.clone()),
            topic_id: Uuid::ZERO,
        },
    };
    let request = delete_topics_request::DeleteTopicsRequest {
        topics: vec![state],
        timeout_ms: 10_000,
        ..Default::default()
    };
    ask(request, 6)
}

fn find(names: &Names, key_type: i8, version: i16) -> Ask {
    let key = match key_type {
        0 => names.group.clone(),
        1 => names.transactional_id.clone(),
        _ => Str::from(format!("{}:{}:0", names.group, names.topic_id)),
    };
    let mut request =
        find_coordinator_request::FindCoordinatorRequest { key_type, ..Default::default() };
    match version {
        4.. => request.coordinator_keys = vec![key],
        _ => request.key = key,
    }
    ask(request, version)
}

fn offset_commit(names: &Names, version: i16) -> Ask {
    let by_id = version >= 10;
    let request = offset_commit_request::OffsetCommitRequest {
        group_id: names.group.clone(),
        generation_id_or_member_epoch: -1,
        topics: vec![offset_commit_request::OffsetCommitRequestTopic {
            name: if by_id { Str::EMPTY } else { names.topic.clone() },
            topic_id: if by_id { names.topic_id } else { Uuid::ZERO },
            partitions: vec![Default::default()],
        }],
        ..Default::default()
    };
    ask(request, version)
}

fn offset_fetch(names: &Names, version: i16) -> Ask {
    let mut request = offset_fetch_request::OffsetFetchRequest::default();
    if version >= 8 {
        let by_id = version >= 10;
        request.groups = vec![offset_fetch_request::OffsetFetchRequestGroup {
            group_id: names.group.clone(),
            topics: Some(vec![offset_fetch_request::OffsetFetchRequestTopics {
                name: if by_id { Str::EMPTY } else { names.topic.clone() },
                topic_id: if by_id { names.topic_id } else { Uuid::ZERO },
                partition_indexes: vec![0],
            }]),
            ..Default::default()
        }];
    } else {
        request.group_id = names.group.clone();
        request.topics = Some(vec![offset_fetch_request::OffsetFetchRequestTopic {
            name: names.topic.clone(),
            partition_indexes: vec![0],
        }]);
    }
    ask(request, version)
}

fn all_offsets(names: &Names) -> Ask {
    let group = offset_fetch_request::OffsetFetchRequestGroup {
        group_id: names.group.clone(),
        topics: None,
        ..Default::default()
    };
    let request =
        offset_fetch_request::OffsetFetchRequest { groups: vec![group], ..Default::default() };
    ask(request, 9)
}

fn add_partitions(names: &Names, version: i16) -> Ask {
    let topics = vec![add_partitions_to_txn_request::AddPartitionsToTxnTopic {
        name: names.topic.clone(),
        partitions: vec![0],
    }];
    let request = match version {
        4.. => add_partitions_to_txn_request::AddPartitionsToTxnRequest {
            transactions: vec![add_partitions_to_txn_request::AddPartitionsToTxnTransaction {
                transactional_id: names.transactional_id.clone(),
                topics,
                ..Default::default()
            }],
            ..Default::default()
        },
        _ => add_partitions_to_txn_request::AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: names.transactional_id.clone(),
            v3_and_below_topics: topics,
            ..Default::default()
        },
    };
    ask(request, version)
}

fn init_producer_id(transactional_id: Option<Str>) -> Ask {
    let request = init_producer_id_request::InitProducerIdRequest {
        transactional_id,
        transaction_timeout_ms: 1_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    ask(request, 4)
}

fn share_fetch(names: &Names) -> Ask {
    let request = share_fetch_request::ShareFetchRequest {
        group_id: Some(names.group.clone()),
        member_id: Some(Str::from("AAAAAAAAAAAAAAAAAAAAAQ")),
        max_bytes: 1_000,
        max_records: 10,
        batch_size: 10,
        topics: vec![share_fetch_request::FetchTopic {
            topic_id: names.topic_id,
            partitions: vec![Default::default()],
        }],
        ..Default::default()
    };
    ask(request, 1)
}

fn write_markers(names: &Names) -> Ask {
    let marker = write_txn_markers_request::WritableTxnMarker {
        producer_id: 1,
        topics: vec![write_txn_markers_request::WritableTxnMarkerTopic {
            name: names.topic.clone(),
            partition_indexes: vec![0],
        }],
        ..Default::default()
    };
    ask(write_txn_markers_request::WriteTxnMarkersRequest { markers: vec![marker] }, 1)
}

fn offset_for_epoch(names: &Names) -> Ask {
    let request = offset_for_leader_epoch_request::OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
            topic: names.topic.clone(),
            partitions: vec![Default::default()],
        }],
    };
    ask(request, 4)
}

/// All rows.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = records();
    rows.extend(groups());
    rows.extend(modern_groups());
    rows.extend(share_states());
    rows.extend(transactions());
    rows.extend(topics());
    rows.extend(cluster());
    rows
}

fn records() -> Vec<Row> {
    use ApiKey as Api;
    vec![
        row(Api::Produce, &[((Write, Topic), Code(NotTopic))], |n| produce(n, 12, false)),
        variant(Api::Produce, "by id", &[((Write, Topic), Open)], |n| produce(n, 13, false)),
        variant(
            Api::Produce,
            "in a transaction",
            &[
                ((Write, TransactionalId), Code(NotTransactionalId)),
                ((Write, Topic), Code(NotTopic)),
            ],
            |n| produce(n, 11, true),
        ),
        row(Api::Fetch, &[((Read, Topic), Code(NotTopic))], |n| fetch(n, 12, false)),
        variant(Api::Fetch, "by id", &[((Read, Topic), Open)], |n| fetch(n, 16, false)),
        variant(Api::Fetch, "as a replica", &[((ClusterAction, Cluster), Code(NotTopic))], |n| {
            fetch(n, 12, true)
        }),
        row(Api::ListOffsets, &[((Describe, Topic), Code(NotTopic))], |n| {
            let request = list_offsets_request::ListOffsetsRequest {
                replica_id: -1,
                topics: vec![list_offsets_request::ListOffsetsTopic {
                    name: n.topic.clone(),
                    partitions: vec![list_offsets_request::ListOffsetsPartition {
                        timestamp: -1,
                        ..Default::default()
                    }],
                }],
                ..Default::default()
            };
            ask(request, 7)
        }),
        row(Api::OffsetForLeaderEpoch, &[((Describe, Topic), Code(NotTopic))], offset_for_epoch),
        variant(
            Api::OffsetForLeaderEpoch,
            "as a broker",
            &[((ClusterAction, Cluster), Code(NotTopic))],
            offset_for_epoch,
        ),
        row(Api::DeleteRecords, &[((Delete, Topic), Code(NotTopic))], |n| {
            let request = delete_records_request::DeleteRecordsRequest {
                topics: vec![delete_records_request::DeleteRecordsTopic {
                    name: n.topic.clone(),
                    partitions: vec![Default::default()],
                }],
                timeout_ms: 1_000,
            };
            ask(request, 2)
        }),
        row(Api::DescribeProducers, &[((Read, Topic), Code(NotTopic))], |n| {
            let request = describe_producers_request::DescribeProducersRequest {
                topics: vec![describe_producers_request::TopicRequest {
                    name: n.topic.clone(),
                    partition_indexes: vec![0],
                }],
            };
            ask(request, 0)
        }),
    ]
}

fn groups() -> Vec<Row> {
    use ApiKey as Api;
    vec![
        row(Api::FindCoordinator, &[((Describe, Group), Code(NotGroup))], |n| find(n, 0, 4)),
        variant(
            Api::FindCoordinator,
            "of one group",
            &[((Describe, Group), Code(NotGroup))],
            |n| find(n, 0, 3),
        ),
        variant(
            Api::FindCoordinator,
            "of transactions",
            &[((Describe, TransactionalId), Code(NotTransactionalId))],
            |n| find(n, 1, 4),
        ),
        variant(
            Api::FindCoordinator,
            "of share groups",
            &[((ClusterAction, Cluster), Open)],
            |n| find(n, 2, 6),
        ),
        row(
            Api::OffsetCommit,
            &[((Read, Group), Code(NotGroup)), ((Read, Topic), Code(NotTopic))],
            |n| offset_commit(n, 9),
        ),
        variant(Api::OffsetCommit, "by id", &[((Read, Group), Open), ((Read, Topic), Open)], |n| {
            offset_commit(n, 10)
        }),
        row(
            Api::OffsetFetch,
            &[((Describe, Group), Code(NotGroup)), ((Describe, Topic), Code(NotTopic))],
            |n| offset_fetch(n, 9),
        ),
        variant(
            Api::OffsetFetch,
            "of one group",
            &[((Describe, Group), Code(NotGroup)), ((Describe, Topic), Code(NotTopic))],
            |n| offset_fetch(n, 6),
        ),
        variant(
            Api::OffsetFetch,
            "in version 1",
            &[((Describe, Group), Code(NotGroup)), ((Describe, Topic), Code(NotTopic))],
            |n| offset_fetch(n, 1),
        ),
        variant(
            Api::OffsetFetch,
            "by id",
            &[((Describe, Group), Open), ((Describe, Topic), Open)],
            |n| offset_fetch(n, 10),
        ),
        variant(
            Api::OffsetFetch,
            "of all topics",
            &[((Describe, Group), Code(NotGroup)), ((Describe, Topic), Open)],
            all_offsets,
        ),
        row(Api::JoinGroup, &[((Read, Group), Code(NotGroup))], |n| {
            let request = join_group_request::JoinGroupRequest {
                group_id: n.group.clone(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 10_000,
                protocol_type: Str::from("consumer"),
                protocols: vec![Default::default()],
                ..Default::default()
            };
            ask(request, 9)
        }),
        row(Api::SyncGroup, &[((Read, Group), Code(NotGroup))], |n| {
            let request = sync_group_request::SyncGroupRequest {
                group_id: n.group.clone(),
                member_id: Str::from("somebody"),
                protocol_type: Some(Str::from("consumer")),
                protocol_name: Some(Str::from("range")),
                ..Default::default()
            };
            ask(request, 5)
        }),
        row(Api::Heartbeat, &[((Read, Group), Code(NotGroup))], |n| {
            let request = heartbeat_request::HeartbeatRequest {
                group_id: n.group.clone(),
                member_id: Str::from("somebody"),
                ..Default::default()
            };
            ask(request, 4)
        }),
        row(Api::LeaveGroup, &[((Read, Group), Code(NotGroup))], |n| {
            let request = leave_group_request::LeaveGroupRequest {
                group_id: n.group.clone(),
                members: vec![Default::default()],
                ..Default::default()
            };
            ask(request, 5)
        }),
        row(Api::DescribeGroups, &[((Describe, Group), Code(NotGroup))], |n| {
            let request = describe_groups_request::DescribeGroupsRequest {
                groups: vec![n.group.clone()],
                include_authorized_operations: true,
            };
            ask(request, 5)
        }),
        row(Api::ListGroups, &[((Describe, Group), Nothing)], |_| {
            ask(list_groups_request::ListGroupsRequest::default(), 4)
        }),
        variant(Api::ListGroups, "of the cluster", &[((Describe, Cluster), Nothing)], |_| {
            ask(list_groups_request::ListGroupsRequest::default(), 4)
        }),
        row(Api::DeleteGroups, &[((Delete, Group), Code(NotGroup))], |n| {
            let groups_names = vec![n.group.clone()];
            ask(delete_groups_request::DeleteGroupsRequest { groups_names }, 2)
        }),
        row(Api::OffsetDelete, &[((Delete, Group), Code(NotGroup)), ((Read, Topic), Open)], |n| {
            let request = offset_delete_request::OffsetDeleteRequest {
                group_id: n.group.clone(),
                topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
                    name: n.topic.clone(),
                    partitions: vec![Default::default()],
                }],
            };
            ask(request, 0)
        }),
    ]
}

fn modern_groups() -> Vec<Row> {
    use ApiKey as Api;
    vec![
        row(
            Api::ConsumerGroupHeartbeat,
            &[((Read, Group), Code(NotGroup)), ((Describe, Topic), Code(NotTopic))],
            |n| {
                let request = consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest {
                    group_id: n.group.clone(),
                    member_id: Str::from("somebody"),
                    member_epoch: -1,
                    subscribed_topic_names: Some(vec![n.topic.clone()]),
                    ..Default::default()
                };
                ask(request, 1)
            },
        ),
        row(Api::ConsumerGroupDescribe, &[((Describe, Group), Code(NotGroup))], |n| {
            let request = consumer_group_describe_request::ConsumerGroupDescribeRequest {
                group_ids: vec![n.group.clone()],
                include_authorized_operations: true,
            };
            ask(request, 1)
        }),
        row(
            Api::ShareGroupHeartbeat,
            &[((Read, Group), Code(NotGroup)), ((Describe, Topic), Code(NotTopic))],
            |n| {
                let request = share_group_heartbeat_request::ShareGroupHeartbeatRequest {
                    group_id: n.group.clone(),
                    member_id: Str::from("somebody"),
                    member_epoch: -1,
                    subscribed_topic_names: Some(vec![n.topic.clone()]),
                    ..Default::default()
                };
                ask(request, 1)
            },
        ),
        row(Api::ShareGroupDescribe, &[((Describe, Group), Code(NotGroup))], |n| {
            let request = share_group_describe_request::ShareGroupDescribeRequest {
                group_ids: vec![n.group.clone()],
                include_authorized_operations: true,
            };
            ask(request, 1)
        }),
        row(
            Api::ShareFetch,
            &[((Read, Group), Code(NotGroup)), ((Read, Topic), Open)],
            share_fetch,
        ),
        row(
            Api::ShareAcknowledge,
            &[((Read, Group), Code(NotGroup)), ((Read, Topic), Open)],
            |n| {
                let request = share_acknowledge_request::ShareAcknowledgeRequest {
                    group_id: Some(n.group.clone()),
                    member_id: Some(Str::from("AAAAAAAAAAAAAAAAAAAAAQ")),
                    share_session_epoch: 1,
                    topics: vec![share_acknowledge_request::AcknowledgeTopic {
                        topic_id: n.topic_id,
                        partitions: vec![Default::default()],
                    }],
                    ..Default::default()
                };
                ask(request, 1)
            },
        ),
        row(
            Api::StreamsGroupHeartbeat,
            &[((Read, Group), Code(NotGroup)), ((Describe, Topic), Code(NotTopic))],
            |n| {
                let request = streams_group_heartbeat_request::StreamsGroupHeartbeatRequest {
                    group_id: n.group.clone(),
                    member_id: Str::from("somebody"),
                    member_epoch: -1,
                    topology: Some(streams_group_heartbeat_request::Topology {
                        epoch: 0,
                        subtopologies: vec![streams_group_heartbeat_request::Subtopology {
                            subtopology_id: Str::from("0"),
                            source_topics: vec![n.topic.clone()],
                            ..Default::default()
                        }],
                    }),
                    ..Default::default()
                };
                ask(request, 0)
            },
        ),
        row(Api::StreamsGroupDescribe, &[((Describe, Group), Code(NotGroup))], |n| {
            let request = streams_group_describe_request::StreamsGroupDescribeRequest {
                group_ids: vec![n.group.clone()],
                include_authorized_operations: true,
            };
            ask(request, 0)
        }),
        row(
            Api::DescribeShareGroupOffsets,
            &[((Describe, Group), Code(NotGroup)), ((Describe, Topic), Code(NotTopic))],
            |n| {
                let request = describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest {
                    groups: vec![
                        describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup {
                            group_id: n.group.clone(),
                            topics: Some(vec![
                                describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestTopic {
                                    topic_name: n.topic.clone(),
                                    partitions: vec![0],
                                },
                            ]),
                        },
                    ],
                };
                ask(request, 0)
            },
        ),
        row(
            Api::AlterShareGroupOffsets,
            &[((Read, Group), Code(NotGroup)), ((Read, Topic), Code(NotTopic))],
            |n| {
                let request = alter_share_group_offsets_request::AlterShareGroupOffsetsRequest {
                    group_id: n.group.clone(),
                    topics: vec![
                        alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic {
                            topic_name: n.topic.clone(),
                            partitions: vec![Default::default()],
                        },
                    ],
                };
                ask(request, 0)
            },
        ),
        row(
            Api::DeleteShareGroupOffsets,
            &[((Delete, Group), Code(NotGroup)), ((Read, Topic), Open)],
            |n| {
                let request = delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest {
                    group_id: n.group.clone(),
                    topics: vec![
                        delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic {
                            topic_name: n.topic.clone(),
                        },
                    ],
                };
                ask(request, 0)
            },
        ),
    ]
}

/// The states of share-partitions, which other brokers ask for.
fn share_states() -> Vec<Row> {
    use ApiKey as Api;
    const TOPIC: Uuid = Uuid([7; 16]);
    let row = |key, ask| row(key, &[((ClusterAction, Cluster), Code(NotCluster))], ask);
    vec![
        row(Api::InitializeShareGroupState, |n| {
            use initialize_share_group_state_request::*;
            let partitions = vec![PartitionData::default()];
            let topics = vec![InitializeStateData { topic_id: TOPIC, partitions }];
            ask(InitializeShareGroupStateRequest { group_id: n.group.clone(), topics }, 0)
        }),
        row(Api::ReadShareGroupState, |n| {
            use read_share_group_state_request::*;
            let partitions = vec![PartitionData::default()];
            let topics = vec![ReadStateData { topic_id: TOPIC, partitions }];
            ask(ReadShareGroupStateRequest { group_id: n.group.clone(), topics }, 0)
        }),
        row(Api::WriteShareGroupState, |n| {
            use write_share_group_state_request::*;
            let partitions = vec![PartitionData::default()];
            let topics = vec![WriteStateData { topic_id: TOPIC, partitions }];
            ask(WriteShareGroupStateRequest { group_id: n.group.clone(), topics }, 1)
        }),
        row(Api::DeleteShareGroupState, |n| {
            use delete_share_group_state_request::*;
            let partitions = vec![PartitionData::default()];
            let topics = vec![DeleteStateData { topic_id: TOPIC, partitions }];
            ask(DeleteShareGroupStateRequest { group_id: n.group.clone(), topics }, 0)
        }),
        row(Api::ReadShareGroupStateSummary, |n| {
            use read_share_group_state_summary_request::*;
            let partitions = vec![PartitionData::default()];
            let topics = vec![ReadStateSummaryData { topic_id: TOPIC, partitions }];
            ask(ReadShareGroupStateSummaryRequest { group_id: n.group.clone(), topics }, 1)
        }),
    ]
}

fn transactions() -> Vec<Row> {
    use ApiKey as Api;
    vec![
        row(Api::InitProducerId, &[((IdempotentWrite, Cluster), Code(NotCluster))], |_| {
            init_producer_id(None)
        }),
        variant(
            Api::InitProducerId,
            "for any topic",
            &[((Write, Topic), Code(NotCluster))],
            |_| init_producer_id(None),
        ),
        variant(
            Api::InitProducerId,
            "of a transactional id",
            &[((Write, TransactionalId), Code(NotTransactionalId))],
            |n| init_producer_id(Some(n.transactional_id.clone())),
        ),
        row(
            Api::AddPartitionsToTxn,
            &[
                ((Write, TransactionalId), Code(NotTransactionalId)),
                ((Write, Topic), Code(NotTopic)),
            ],
            |n| add_partitions(n, 3),
        ),
        variant(
            Api::AddPartitionsToTxn,
            "as a broker",
            &[((ClusterAction, Cluster), Code(NotCluster))],
            |n| add_partitions(n, 4),
        ),
        row(
            Api::AddOffsetsToTxn,
            &[
                ((Write, TransactionalId), Code(NotTransactionalId)),
                ((Read, Group), Code(NotGroup)),
            ],
            |n| {
                let request = add_offsets_to_txn_request::AddOffsetsToTxnRequest {
                    transactional_id: n.transactional_id.clone(),
                    group_id: n.group.clone(),
                    ..Default::default()
                };
                ask(request, 3)
            },
        ),
        row(
            Api::TxnOffsetCommit,
            &[
                ((Write, TransactionalId), Code(NotTransactionalId)),
                ((Read, Group), Code(NotGroup)),
                ((Read, Topic), Code(NotTopic)),
            ],
            |n| {
                let request = txn_offset_commit_request::TxnOffsetCommitRequest {
                    transactional_id: n.transactional_id.clone(),
                    group_id: n.group.clone(),
                    generation_id: -1,
                    topics: vec![txn_offset_commit_request::TxnOffsetCommitRequestTopic {
                        name: n.topic.clone(),
                        partitions: vec![Default::default()],
                    }],
                    ..Default::default()
                };
                ask(request, 3)
            },
        ),
        row(Api::EndTxn, &[((Write, TransactionalId), Code(NotTransactionalId))], |n| {
            let request = end_txn_request::EndTxnRequest {
                transactional_id: n.transactional_id.clone(),
                ..Default::default()
            };
            ask(request, 3)
        }),
        row(Api::WriteTxnMarkers, &[((Alter, Cluster), Code(NotCluster))], write_markers),
        variant(
            Api::WriteTxnMarkers,
            "as a broker",
            &[((ClusterAction, Cluster), Code(NotCluster))],
            write_markers,
        ),
        row(
            Api::DescribeTransactions,
            &[((Describe, TransactionalId), Code(NotTransactionalId))],
            |n| {
                let request = describe_transactions_request::DescribeTransactionsRequest {
                    transactional_ids: vec![n.transactional_id.clone()],
                };
                ask(request, 0)
            },
        ),
        row(Api::ListTransactions, &[((Describe, TransactionalId), Nothing)], |_| {
            ask(list_transactions_request::ListTransactionsRequest::default(), 1)
        }),
    ]
}

fn topics() -> Vec<Row> {
    use ApiKey as Api;
    vec![
        row(Api::Metadata, &[((Describe, Topic), Code(NotTopic))], |n| metadata_of(n, "name")),
        variant(Api::Metadata, "by id", &[((Describe, Topic), Open)], |n| metadata_of(n, "id")),
        variant(Api::Metadata, "of all", &[((Describe, Topic), Nothing)], |n| {
            metadata_of(n, "all")
        }),
        variant(
            Api::Metadata,
            "that creates",
            &[((Describe, Topic), Code(NotTopic)), ((Create, Topic), Open)],
            |n| metadata_of(n, "creation"),
        ),
        row(Api::DescribeTopicPartitions, &[((Describe, Topic), Code(NotTopic))], |n| {
            let request = describe_topic_partitions_request::DescribeTopicPartitionsRequest {
                topics: vec![describe_topic_partitions_request::TopicRequest {
                    name: n.topic.clone(),
                }],
                ..Default::default()
            };
            ask(request, 0)
        }),
        variant(Api::DescribeTopicPartitions, "of all", &[((Describe, Topic), Nothing)], |_| {
            let request =
                describe_topic_partitions_request::DescribeTopicPartitionsRequest::default();
            ask(request, 0)
        }),
        row(Api::CreateTopics, &[((Create, Topic), Code(NotTopic))], |n| {
            create_topic(n.topic.clone())
        }),
        variant(
            Api::CreateTopics,
            "by right of the cluster",
            &[((Create, Cluster), Code(NotTopic))],
            |n| create_topic(n.topic.clone()),
        ),
        variant(
            Api::CreateTopics,
            "of a new one",
            &[((Create, Topic), Open), ((DescribeConfigs, Topic), Open)],
            |n| match &*n.topic {
                Names::TOPIC => create_topic(Str::from("ghost-topic")),
                _ => create_topic(n.topic.clone()),
            },
        ),
        row(Api::DeleteTopics, &[((Describe, Topic), Open), ((Delete, Topic), Open)], |n| {
            delete_topic(n, false)
        }),
        variant(
            Api::DeleteTopics,
            "by id",
            &[((Describe, Topic), Open), ((Delete, Topic), Open)],
            |n| delete_topic(n, true),
        ),
        row(Api::CreatePartitions, &[((Alter, Topic), Code(NotTopic))], |n| {
            let request = create_partitions_request::CreatePartitionsRequest {
                topics: vec![create_partitions_request::CreatePartitionsTopic {
                    name: n.topic.clone(),
                    count: 2,
                    assignments: None,
                }],
                timeout_ms: 10_000,
                validate_only: true,
            };
            ask(request, 3)
        }),
        row(Api::DescribeConfigs, &[((DescribeConfigs, Topic), Code(NotTopic))], |n| {
            describe_configs(n, 2)
        }),
        variant(
            Api::DescribeConfigs,
            "of a group",
            &[((DescribeConfigs, Group), Code(NotGroup))],
            |n| describe_configs(n, 32),
        ),
        variant(
            Api::DescribeConfigs,
            "of a broker",
            &[((DescribeConfigs, Cluster), Code(NotCluster))],
            |n| describe_configs(n, 4),
        ),
        variant(
            Api::DescribeConfigs,
            "of client metrics",
            &[((DescribeConfigs, Cluster), Code(NotCluster))],
            |n| describe_configs(n, 16),
        ),
        row(Api::IncrementalAlterConfigs, &[((AlterConfigs, Topic), Code(NotTopic))], |n| {
            incremental(n, 2)
        }),
        variant(
            Api::IncrementalAlterConfigs,
            "of a group",
            &[((AlterConfigs, Group), Code(NotGroup))],
            |n| incremental(n, 32),
        ),
        variant(
            Api::IncrementalAlterConfigs,
            "of a broker",
            &[((AlterConfigs, Cluster), Code(NotCluster))],
            |n| incremental(n, 4),
        ),
        variant(
            Api::IncrementalAlterConfigs,
            "of client metrics",
            &[((AlterConfigs, Cluster), Code(NotCluster))],
            |n| incremental(n, 16),
        ),
        row(Api::AlterConfigs, &[((AlterConfigs, Topic), Code(NotTopic))], |n| alter_configs(n, 2)),
        variant(
            Api::AlterConfigs,
            "of a broker",
            &[((AlterConfigs, Cluster), Code(NotCluster))],
            |n| alter_configs(n, 4),
        ),
        row(Api::ListConfigResources, &[((DescribeConfigs, Cluster), Code(NotCluster))], |_| {
            ask(list_config_resources_request::ListConfigResourcesRequest::default(), 1)
        }),
    ]
}

fn cluster() -> Vec<Row> {
    use ApiKey as Api;
    const ANY: i8 = 1;
    let needs = |operation: AclOperation| vec![((operation, Cluster), Code(NotCluster))];
    let row = |key: ApiKey, operation: AclOperation, ask: fn(&Names) -> Ask| Row {
        key,
        what: "",
        rights: needs(operation),
        ask,
    };
    vec![
        variant(Api::DescribeCluster, "operations", &[((Describe, Cluster), Nothing)], |_| {
            let request = describe_cluster_request::DescribeClusterRequest {
                include_cluster_authorized_operations: true,
                ..Default::default()
            };
            ask(request, 1)
        }),
        row(Api::DescribeAcls, Describe, |_| {
            let request = describe_acls_request::DescribeAclsRequest {
                resource_type_filter: ANY,
                resource_name_filter: None,
                pattern_type_filter: ANY,
                principal_filter: None,
                host_filter: None,
                operation: ANY,
                permission_type: ANY,
            };
            ask(request, 3)
        }),
        row(Api::CreateAcls, Alter, |n| {
            let creation = create_acls_request::AclCreation {
                resource_type: 2,
                resource_name: n.topic.clone(),
                resource_pattern_type: 3,
                principal: Str::from("User:bob"),
                host: Str::from("*"),
                operation: 3,
                permission_type: 3,
            };
            ask(create_acls_request::CreateAclsRequest { creations: vec![creation] }, 3)
        }),
        row(Api::DeleteAcls, Alter, |n| {
            let filter = delete_acls_request::DeleteAclsFilter {
                resource_type_filter: 2,
                resource_name_filter: Some(n.topic.clone()),
                pattern_type_filter: 3,
                principal_filter: Some(Str::from("User:bob")),
                host_filter: None,
                operation: ANY,
                permission_type: ANY,
            };
            ask(delete_acls_request::DeleteAclsRequest { filters: vec![filter] }, 3)
        }),
        row(Api::AlterReplicaLogDirs, Alter, |n| {
            let directory = alter_replica_log_dirs_request::AlterReplicaLogDir {
                path: Str::from("/nowhere"),
                topics: vec![alter_replica_log_dirs_request::AlterReplicaLogDirTopic {
                    name: n.topic.clone(),
                    partitions: vec![0],
                }],
            };
            let request = alter_replica_log_dirs_request::AlterReplicaLogDirsRequest {
                dirs: vec![directory],
            };
            ask(request, 2)
        }),
        row(Api::DescribeLogDirs, Describe, |_| {
            ask(describe_log_dirs_request::DescribeLogDirsRequest { topics: None }, 4)
        }),
        row(Api::ElectLeaders, Alter, |n| {
            let request = elect_leaders_request::ElectLeadersRequest {
                topic_partitions: Some(vec![elect_leaders_request::TopicPartitions {
                    topic: n.topic.clone(),
                    partitions: vec![0],
                }]),
                timeout_ms: 1_000,
                ..Default::default()
            };
            ask(request, 2)
        }),
        row(Api::AlterPartitionReassignments, Alter, |n| {
            let request =
                alter_partition_reassignments_request::AlterPartitionReassignmentsRequest {
                    timeout_ms: 1_000,
                    topics: vec![alter_partition_reassignments_request::ReassignableTopic {
                        name: n.topic.clone(),
                        partitions: vec![Default::default()],
                    }],
                    ..Default::default()
                };
            ask(request, 0)
        }),
        row(Api::ListPartitionReassignments, Describe, |_| {
            let request =
                list_partition_reassignments_request::ListPartitionReassignmentsRequest::default();
            ask(request, 0)
        }),
        row(Api::DescribeClientQuotas, DescribeConfigs, |_| {
            ask(describe_client_quotas_request::DescribeClientQuotasRequest::default(), 1)
        }),
        row(Api::AlterClientQuotas, AlterConfigs, |_| {
            let entry = alter_client_quotas_request::EntryData {
                entity: vec![alter_client_quotas_request::EntityData {
                    entity_type: Str::from("user"),
                    entity_name: Some(Str::from("bob")),
                }],
                ops: vec![alter_client_quotas_request::OpData {
                    key: Str::from("producer_byte_rate"),
                    value: 1e9,
                    remove: false,
                }],
            };
            let request = alter_client_quotas_request::AlterClientQuotasRequest {
                entries: vec![entry],
                validate_only: true,
            };
            ask(request, 1)
        }),
        row(Api::DescribeUserScramCredentials, Describe, |_| {
            // Kafka never answers who asks about all users and may not: it fails over its refusal.
            let user =
                describe_user_scram_credentials_request::UserName { name: Str::from("nobody") };
            let request =
                describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest {
                    users: Some(vec![user]),
                };
            ask(request, 0)
        }),
        row(Api::AlterUserScramCredentials, Alter, |_| {
            let deletion = alter_user_scram_credentials_request::ScramCredentialDeletion {
                name: Str::from("nobody"),
                mechanism: 1,
            };
            let request = alter_user_scram_credentials_request::AlterUserScramCredentialsRequest {
                deletions: vec![deletion],
                ..Default::default()
            };
            ask(request, 0)
        }),
        row(Api::DescribeQuorum, Describe, |_| {
            let topic = describe_quorum_request::TopicData {
                topic_name: Str::from("__cluster_metadata"),
                partitions: vec![Default::default()],
            };
            ask(describe_quorum_request::DescribeQuorumRequest { topics: vec![topic] }, 2)
        }),
        row(Api::UpdateFeatures, Alter, |_| {
            let update = update_features_request::FeatureUpdateKey {
                feature: Str::from("no.such.feature"),
                max_version_level: 1,
                upgrade_type: 1,
                ..Default::default()
            };
            let request = update_features_request::UpdateFeaturesRequest {
                timeout_ms: 1_000,
                feature_updates: vec![update],
                validate_only: true,
            };
            ask(request, 2)
        }),
        row(Api::UnregisterBroker, Alter, |_| {
            ask(unregister_broker_request::UnregisterBrokerRequest { broker_id: 99 }, 0)
        }),
        row(Api::AddRaftVoter, Alter, |_| {
            let request = add_raft_voter_request::AddRaftVoterRequest {
                timeout_ms: 100,
                voter_id: 1,
                cluster_id: None,
                ..Default::default()
            };
            ask(request, 0)
        }),
        row(Api::RemoveRaftVoter, Alter, |_| {
            let request = remove_raft_voter_request::RemoveRaftVoterRequest {
                voter_id: 99,
                cluster_id: None,
                ..Default::default()
            };
            ask(request, 0)
        }),
    ]
}

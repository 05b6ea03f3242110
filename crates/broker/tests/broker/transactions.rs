//! Transactions over the wire: both protocols, what consumers see of them, and what a restart
//! leaves of them.

use fleuve_protocol::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use fleuve_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::describe_producers_request::{
    DescribeProducersRequest, TopicRequest,
};
use fleuve_protocol::messages::describe_producers_response::ProducerState;
use fleuve_protocol::messages::describe_transactions_request::DescribeTransactionsRequest;
use fleuve_protocol::messages::end_txn_request::EndTxnRequest;
use fleuve_protocol::messages::end_txn_response::EndTxnResponse;
use fleuve_protocol::messages::fetch_response::PartitionData;
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use fleuve_protocol::messages::list_transactions_request::ListTransactionsRequest;
use fleuve_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use fleuve_protocol::messages::produce_request::PartitionProduceData;
use fleuve_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use fleuve_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use fleuve_protocol::records::{BatchOptions, BatchProducer};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::{ProducerEpoch, ProducerId};

use crate::every_version::in_every_version;
use crate::support::{TestBroker, TestClient, batch_with, fetch_request, produce_request, values};

const ID: Str = Str::from_static("shop");
const NAME: Str = Str::from_static("words");
const GROUP: Str = Str::from_static("readers");

/// A transactional producer, as far as the broker can tell.
#[derive(Clone, Copy, Debug)]
struct Producer {
    id: i64,
    epoch: i16,
    next_sequence: i32,
}

async fn start(client: &mut TestClient) {
    client.create_topic("words", 1).await;
    for (key_type, key) in [(0, GROUP), (1, ID)] {
        let request =
            FindCoordinatorRequest { key_type, coordinator_keys: vec![key], ..Default::default() };
        let found = client.call(&request, 4).await;
        assert_eq!(found.coordinators[0].error_code, 0);
    }
}

fn init(timeout_ms: i32) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: Some(ID),
        transaction_timeout_ms: timeout_ms,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    }
}

/// Becomes the producer of the transactional id; asks again while an earlier one is shut out.
async fn initialise(client: &mut TestClient, timeout_ms: i32) -> Producer {
    loop {
        let response = client.call(&init(timeout_ms), 4).await;
        if response.error_code == ErrorCode::ConcurrentTransactions.code() {
            continue;
        }
        assert_eq!(response.error_code, 0);
        let (id, epoch) = (response.producer_id, response.producer_epoch);
        return Producer { id, epoch, next_sequence: 0 };
    }
}

/// Writes in a transaction; asks again as a client does while the one before is being completed.
async fn produce(
    client: &mut TestClient,
    producer: &mut Producer,
    version: i16,
    values: &[&str],
) -> i16 {
    let options = BatchOptions {
        producer: Some(BatchProducer {
            id: ProducerId(producer.id),
            epoch: ProducerEpoch(producer.epoch),
            base_sequence: producer.next_sequence,
        }),
        transactional: true,
        ..Default::default()
    };
    let mut request = produce_request("words", 0, -1, batch_with(options, values));
    request.transactional_id = Some(ID);
    loop {
        let response = client.call(&request, version).await;
        let code = response.responses[0].partition_responses[0].error_code;
        if code == ErrorCode::ConcurrentTransactions.code() {
            continue;
        }
        if code == 0 {
            producer.next_sequence += values.len() as i32;
        }
        return code;
    }
}

async fn end(
    client: &mut TestClient,
    producer: Producer,
    version: i16,
    committed: bool,
) -> EndTxnResponse {
    let request = EndTxnRequest {
        transactional_id: ID,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed,
    };
    loop {
        let response = client.call(&request, version).await;
        if response.error_code != ErrorCode::ConcurrentTransactions.code() {
            return response;
        }
    }
}

fn add_partition(producer: Producer) -> AddPartitionsToTxnRequest {
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: ID,
        v3_and_below_producer_id: producer.id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic { name: NAME, partitions: vec![0] }],
        ..Default::default()
    }
}

/// Adds the partition to the transaction, and returns the code.
async fn add(client: &mut TestClient, producer: Producer) -> i16 {
    loop {
        let response = client.call(&add_partition(producer), 3).await;
        let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
        if results[0].partition_error_code != ErrorCode::ConcurrentTransactions.code() {
            return results[0].partition_error_code;
        }
    }
}

/// Fetches what is committed, once there is something at `offset`.
async fn fetch_committed(client: &mut TestClient, offset: i64) -> (PartitionData, Vec<String>) {
    let mut request = fetch_request("words", 0, offset);
    request.isolation_level = 1;
    request.min_bytes = 1;
    request.max_wait_ms = 10_000;
    let response = client.call(&request, 11).await;
    let values = values(&response);
    (response.responses[0].partitions[0].clone(), values)
}

async fn last_stable(client: &mut TestClient) -> (i64, i64) {
    let mut request = fetch_request("words", 0, 0);
    request.isolation_level = 1;
    request.max_wait_ms = 0;
    let response = client.call(&request, 11).await;
    let partition = &response.responses[0].partitions[0];
    (partition.last_stable_offset, partition.high_watermark)
}

async fn end_offset(client: &mut TestClient, isolation_level: i8) -> i64 {
    let partition = ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: NAME, partitions: vec![partition] }];
    let request = ListOffsetsRequest { isolation_level, topics, ..Default::default() };
    client.call(&request, 5).await.topics[0].partitions[0].offset
}

async fn state(client: &mut TestClient) -> Str {
    let request = DescribeTransactionsRequest { transactional_ids: vec![ID] };
    client.call(&request, 0).await.transaction_states[0].transaction_state.clone()
}

async fn producer_state(client: &mut TestClient) -> ProducerState {
    let topics = vec![TopicRequest { name: NAME, partition_indexes: vec![0] }];
    let response = client.call(&DescribeProducersRequest { topics }, 0).await;
    response.topics[0].partitions[0].active_producers[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn version_2_adds_partitions_by_itself_and_changes_the_epoch_every_time() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    let versions = ApiVersionsRequest {
        client_software_name: Str::from("test"),
        client_software_version: Str::from("1"),
    };
    let advertised = client.call(&versions, 4).await;
    let level = advertised.finalized_features.iter().find(|f| &*f.name == "transaction.version");
    assert_eq!(level.expect("it is finalized").max_version_level, 2);

    start(client).await;
    client.produce("words", 0, &["before"]).await;
    let mut producer = initialise(client, 60_000).await;
    assert_eq!(produce(client, &mut producer, 12, &["a", "b"]).await, 0);
    assert_eq!(&*state(client).await, "Ongoing");
    assert_eq!(last_stable(client).await, (1, 3));
    assert_eq!((end_offset(client, 0).await, end_offset(client, 1).await), (3, 1));
    assert_eq!(fetch_committed(client, 0).await.1, ["before"]);
    assert_eq!(producer_state(client).await.current_txn_start_offset, 1);

    let ended = end(client, producer, 5, false).await;
    assert_eq!((ended.error_code, ended.producer_id), (0, producer.id));
    assert_eq!(ended.producer_epoch, producer.epoch + 1);
    // The abort is seen as soon as its marker is durable.
    let (partition, seen) = fetch_committed(client, 1).await;
    assert_eq!(seen, ["a", "b"], "the consumer sorts out what was aborted");
    let aborted = partition.aborted_transactions.expect("it is told");
    assert_eq!((aborted[0].producer_id, aborted[0].first_offset), (producer.id, 1));

    // The old epoch is shut out; the new one begins with sequence 0.
    let zombie = produce(client, &mut producer.clone(), 12, &["zombie"]).await;
    assert_eq!(zombie, ErrorCode::InvalidProducerEpoch.code());
    let mut next = Producer { epoch: ended.producer_epoch, next_sequence: 0, ..producer };
    assert_eq!(produce(client, &mut next, 12, &["c"]).await, 0);
    assert_eq!(end(client, next, 5, true).await.error_code, 0);
    assert_eq!(end(client, next, 5, true).await.error_code, 0, "repeated");
    assert_eq!(fetch_committed(client, 4).await.1, ["c"]);
    let later = end(client, producer, 5, true).await.error_code;
    assert_eq!(later, ErrorCode::ProducerFenced.code());

    // What was aborted stays so over a restart.
    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, &[]).await;
    let client = &mut broker.connect().await;
    let (partition, _) = fetch_committed(client, 0).await;
    assert_eq!(partition.aborted_transactions.expect("it is told").len(), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_clients_add_partitions_first() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    start(client).await;
    let mut producer = initialise(client, 60_000).await;
    let unknown = produce(client, &mut producer, 9, &["a"]).await;
    assert_eq!(unknown, ErrorCode::InvalidTxnState.code());
    let unknown = produce(client, &mut producer, 11, &["a"]).await;
    assert_eq!(unknown, ErrorCode::TransactionAbortable.code());
    assert_eq!(add(client, producer).await, 0);
    for (version, value) in [(9, "a"), (11, "b")] {
        assert_eq!(produce(client, &mut producer, version, &[value]).await, 0);
    }
    assert_eq!(end(client, producer, 4, true).await.error_code, 0);
    assert_eq!(fetch_committed(client, 0).await.1, ["a", "b"]);
    // In the next transaction the partition has to be added again.
    let not_yet = loop {
        match produce(client, &mut producer, 9, &["c"]).await {
            code if code == ErrorCode::NotEnoughReplicas.code() => {}
            code => break code,
        }
    };
    assert_eq!(not_yet, ErrorCode::InvalidTxnState.code());
    // A second incarnation shuts the first one out, also in the middle of a transaction.
    assert_eq!(add(client, producer).await, 0);
    assert_eq!(produce(client, &mut producer, 9, &["c"]).await, 0);
    let successor = initialise(client, 60_000).await;
    assert!(successor.epoch > producer.epoch);
    let fenced = produce(client, &mut producer, 9, &["d"]).await;
    assert_eq!(fenced, ErrorCode::InvalidProducerEpoch.code());
    for (version, code) in [(1, ErrorCode::InvalidProducerEpoch), (4, ErrorCode::ProducerFenced)] {
        assert_eq!(end(client, producer, version, true).await.error_code, code.code());
    }
    let (partition, _) = fetch_committed(client, 3).await;
    assert_eq!(partition.aborted_transactions.expect("it is told").len(), 1);

    let mut outside = produce_request(
        "words",
        0,
        -1,
        batch_with(
            BatchOptions {
                producer: Some(BatchProducer {
                    id: ProducerId(9),
                    epoch: ProducerEpoch(0),
                    base_sequence: 0,
                }),
                transactional: true,
                ..Default::default()
            },
            &["x"],
        ),
    );
    outside.transactional_id = None;
    let refused = client.call(&outside, 9).await;
    let code = refused.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::TransactionalIdAuthorizationFailed.code());
    broker.stop().await;
}

fn commit_offset(producer: Producer, offset: i64) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: ID,
        group_id: GROUP,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        generation_id: -1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: NAME,
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

async fn committed(client: &mut TestClient) -> (i16, i64) {
    let topics = vec![OffsetFetchRequestTopics {
        name: NAME,
        partition_indexes: vec![0],
        ..Default::default()
    }];
    let group = OffsetFetchRequestGroup {
        group_id: GROUP,
        member_epoch: -1,
        topics: Some(topics),
        ..Default::default()
    };
    let request =
        OffsetFetchRequest { groups: vec![group], require_stable: true, ..Default::default() };
    let response = client.call(&request, 8).await;
    let group = &response.groups[0];
    if group.error_code != 0 {
        return (group.error_code, -1);
    }
    let partition = &group.topics[0].partitions[0];
    (partition.error_code, partition.committed_offset)
}

/// Asks until the offset is stable.
async fn stable_offset(client: &mut TestClient) -> i64 {
    loop {
        match committed(client).await {
            (0, offset) => return offset,
            (code, _) => assert_eq!(code, ErrorCode::UnstableOffsetCommit.code()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_hold_once_their_transaction_is_committed() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    start(client).await;
    let mut producer = initialise(client, 60_000).await;
    // Version 2: the commit adds the group's partition by itself.
    let response = client.call(&commit_offset(producer, 5), 5).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    assert_eq!(committed(client).await, (ErrorCode::UnstableOffsetCommit.code(), -1));
    let ended = end(client, producer, 5, true).await;
    producer.epoch = ended.producer_epoch;
    assert_eq!(stable_offset(client).await, 5);

    // Older clients add it first; what is pending survives a restart.
    let code = loop {
        let unknown = client.call(&commit_offset(producer, 6), 3).await;
        let code = unknown.topics[0].partitions[0].error_code;
        // The offset is stable a moment before its coordinator has noted the end.
        if code != ErrorCode::ConcurrentTransactions.code() {
            break code;
        }
    };
    assert_eq!(code, ErrorCode::InvalidTxnState.code());
    let add = AddOffsetsToTxnRequest {
        transactional_id: ID,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        group_id: GROUP,
    };
    assert_eq!(client.call(&add, 3).await.error_code, 0);
    let response = client.call(&commit_offset(producer, 6), 3).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    let directory = broker.stop().await;
    let broker = TestBroker::start_in(directory, &[]).await;
    let client = &mut broker.connect().await;
    let unstable = loop {
        match committed(client).await {
            (code, _) if code == ErrorCode::CoordinatorLoadInProgress.code() => {}
            answer => break answer,
        }
    };
    assert_eq!(unstable, (ErrorCode::UnstableOffsetCommit.code(), -1));
    let aborted = loop {
        match end(client, producer, 3, false).await.error_code {
            code if code == ErrorCode::CoordinatorLoadInProgress.code() => {}
            code => break code,
        }
    };
    assert_eq!(aborted, 0);
    assert_eq!(stable_offset(client).await, 5);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_left_open_is_aborted_in_time_and_markers_end_what_hangs() {
    let keys = [("transaction.abort.timed.out.transaction.cleanup.interval.ms", "10")];
    let broker = TestBroker::start(&keys).await;
    let client = &mut broker.connect().await;
    start(client).await;
    let mut producer = initialise(client, 100).await;
    assert_eq!(produce(client, &mut producer, 12, &["a"]).await, 0);
    // The fetch waits for the marker of the abort.
    let (partition, _) = fetch_committed(client, 0).await;
    assert_eq!(partition.aborted_transactions.expect("it is told").len(), 1);
    let late = end(client, producer, 5, true).await.error_code;
    assert!(
        [ErrorCode::ProducerFenced.code(), ErrorCode::InvalidTxnState.code()].contains(&late),
        "{late}"
    );
    let all = client.call(&ListTransactionsRequest::default(), 0).await;
    assert_eq!(all.transaction_states.len(), 1);

    // An administrator ends a transaction by its markers alone.
    let mut producer = initialise(client, 60_000).await;
    assert_eq!(produce(client, &mut producer, 12, &["b"]).await, 0);
    let (stable, high_watermark) = last_stable(client).await;
    assert!(stable < high_watermark);
    let marker = |coordinator_epoch| WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic { name: NAME, partition_indexes: vec![0, 7] }],
            coordinator_epoch,
            ..Default::default()
        }],
    };
    let fenced = client.call(&marker(-1), 1).await;
    let code = fenced.markers[0].topics[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::TransactionCoordinatorFenced.code());
    let written = client.call(&marker(0), 1).await;
    let codes = written.markers[0].topics[0].partitions.iter().map(|p| p.error_code);
    let codes: Vec<i16> = codes.collect();
    assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
    let (stable, high_watermark) = last_stable(client).await;
    assert_eq!(stable, high_watermark);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_of_one_producer_are_answered_together() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    start(client).await;
    let marker = |producer_id, partition_indexes| WritableTxnMarker {
        producer_id,
        topics: vec![WritableTxnMarkerTopic { name: NAME, partition_indexes }],
        ..Default::default()
    };
    let markers = vec![marker(9, vec![0]), marker(8, vec![0]), marker(9, vec![7])];
    let written = client.call(&WriteTxnMarkersRequest { markers }, 1).await.markers;
    let codes_of = |producer_id| {
        let found: Vec<_> = written.iter().filter(|it| it.producer_id == producer_id).collect();
        assert_eq!((found.len(), found[0].topics.len()), (1, 1), "{written:?}");
        let partitions = found[0].topics[0].partitions.iter();
        partitions.map(|it| (it.partition_index, it.error_code)).collect::<Vec<_>>()
    };
    assert_eq!(codes_of(8), [(0, 0)]);
    assert_eq!(codes_of(9), [(0, 0), (7, ErrorCode::UnknownTopicOrPartition.code())]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_of_a_topic_that_cannot_be_are_not_described() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    for (name, code) in [
        ("a b", ErrorCode::InvalidTopicException),
        ("", ErrorCode::InvalidTopicException),
        ("missing", ErrorCode::UnknownTopicOrPartition),
    ] {
        let topics = vec![TopicRequest { name: Str::from(name), partition_indexes: vec![0] }];
        let described = client.call(&DescribeProducersRequest { topics }, 0).await;
        assert_eq!(described.topics[0].partitions[0].error_code, code.code(), "{name:?}");
    }
    broker.stop().await;
}

/// Whatever else is wrong with a batch of a transaction, only those may send one who may use the
/// transactional id.
#[tokio::test(flavor = "multi_thread")]
async fn no_batch_of_a_transaction_goes_without_a_transactional_id() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    start(client).await;
    let records = |producer_id: Option<i64>| {
        let producer = producer_id.map(|id| BatchProducer {
            id: ProducerId(id),
            epoch: ProducerEpoch(0),
            base_sequence: 0,
        });
        batch_with(BatchOptions { producer, transactional: true, ..Default::default() }, &["a"])
    };
    let without_producer = produce_request("words", 0, -1, records(None));
    let mut of_two = produce_request("words", 0, -1, records(Some(1)));
    let second = PartitionProduceData { index: 0, records: Some(records(Some(2))) };
    of_two.topic_data[0].partition_data.push(second);
    let denied = ErrorCode::TransactionalIdAuthorizationFailed;
    for (mut request, code) in [
        (without_producer, ErrorCode::InvalidRecord),
        (of_two, ErrorCode::InvalidProducerIdMapping),
    ] {
        for (id, code) in [(None, denied), (Some(ID), code)] {
            request.transactional_id = id;
            let response = client.call(&request, 12).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, code.code());
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_versions_are_answered() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    start(client).await;
    in_every_version(
        client,
        |_| init(1000),
        |version, response| assert_eq!(response.error_code, 0, "version {version}"),
    )
    .await;
    let producer = initialise(client, 60_000).await;
    in_every_version(
        client,
        |version| match version {
            ..4 => add_partition(producer),
            _ => AddPartitionsToTxnRequest {
                transactions: vec![AddPartitionsToTxnTransaction {
                    transactional_id: ID,
                    producer_id: producer.id,
                    producer_epoch: producer.epoch,
                    verify_only: false,
                    topics: vec![AddPartitionsToTxnTopic { name: NAME, partitions: vec![0] }],
                }],
                ..Default::default()
            },
        },
        |version, response| {
            let topics = match version {
                ..4 => &response.results_by_topic_v3_and_below,
                _ => &response.results_by_transaction[0].topic_results,
            };
            assert_eq!(topics[0].results_by_partition[0].partition_error_code, 0);
        },
    )
    .await;
    in_every_version(
        client,
        |_| AddOffsetsToTxnRequest {
            transactional_id: ID,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            group_id: GROUP,
        },
        |_, response| assert_eq!(response.error_code, 0),
    )
    .await;
    in_every_version(
        client,
        |_| commit_offset(producer, 1),
        |_, response| assert_eq!(response.topics[0].partitions[0].error_code, 0),
    )
    .await;
    in_every_version(
        client,
        |_| DescribeTransactionsRequest { transactional_ids: vec![ID, Str::from("nobody")] },
        |_, response| {
            assert_eq!(response.transaction_states[0].topics.len(), 2);
            let missing = ErrorCode::TransactionalIdNotFound.code();
            assert_eq!(response.transaction_states[1].error_code, missing);
        },
    )
    .await;
    in_every_version(
        client,
        |_| ListTransactionsRequest {
            state_filters: vec![Str::from("Ongoing"), Str::from("Sleeping")],
            ..Default::default()
        },
        |_, response| {
            assert_eq!(response.transaction_states.len(), 1);
            assert_eq!(response.unknown_state_filters, [Str::from("Sleeping")]);
        },
    )
    .await;
    in_every_version(
        client,
        |_| DescribeProducersRequest {
            topics: vec![TopicRequest { name: NAME, partition_indexes: vec![0, 1] }],
        },
        |_, response| {
            assert_eq!(response.topics[0].partitions[0].error_code, 0);
            let missing = ErrorCode::UnknownTopicOrPartition.code();
            assert_eq!(response.topics[0].partitions[1].error_code, missing);
        },
    )
    .await;
    in_every_version(
        client,
        |_| WriteTxnMarkersRequest::default(),
        |_, response| assert!(response.markers.is_empty()),
    )
    .await;
    in_every_version(
        client,
        |_| EndTxnRequest {
            transactional_id: Str::from("nobody"),
            producer_id: 1,
            producer_epoch: 1,
            committed: true,
        },
        |_, response| {
            assert_eq!(response.error_code, ErrorCode::InvalidProducerIdMapping.code());
        },
    )
    .await;
    broker.stop().await;
}

/// The next transaction of a version 2 client may reach a partition before the marker of the one
/// before; whoever is asked about it in the meantime must not be told that it does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_follow_at_once_do_not_trip_over_the_markers_before() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    start(client).await;
    let mut producer = initialise(client, 60_000).await;
    for round in 0..200 {
        let offset = i64::from(round);
        // By turns, because the first of the two waits for the other's marker as well.
        if round % 2 == 0 {
            assert_eq!(produce(client, &mut producer, 12, &["a"]).await, 0, "round {round}");
        }
        let committed = loop {
            let response = client.call(&commit_offset(producer, offset), 5).await;
            let code = response.topics[0].partitions[0].error_code;
            if code != ErrorCode::ConcurrentTransactions.code() {
                break code;
            }
        };
        assert_eq!(committed, 0, "round {round}");
        let ended = end(client, producer, 5, round % 3 != 0).await;
        assert_eq!(ended.error_code, 0, "round {round}");
        producer = Producer { epoch: ended.producer_epoch, next_sequence: 0, ..producer };
    }
    broker.stop().await;
}

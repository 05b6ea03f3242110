//! A consumer against a scripted log.

mod grouping;

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;
use fleuve_protocol::frame::RequestFrame;
use fleuve_protocol::messages::fetch_request::FetchRequest;
use fleuve_protocol::messages::fetch_response::{
    FetchResponse, FetchableTopicResponse, PartitionData,
};
use fleuve_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use fleuve_protocol::messages::list_offsets_request::ListOffsetsRequest;
use fleuve_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use fleuve_protocol::messages::offset_commit_request::OffsetCommitRequest;
use fleuve_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
use fleuve_protocol::{ApiKey, ErrorCode};
use fleuve_types::Offset;

use super::*;
use crate::config::OffsetReset;
use crate::scripted::{Reply, ScriptedBroker, TOPIC_ID, body, send};

/// Where the only partition of the scripted log begins and ends, in batches of ten records.
const FIRST: i64 = 100;
const END: i64 = 150;
const PER_BATCH: i64 = 10;

/// What the broker was asked.
#[derive(Default)]
struct Asked {
    fetches: Vec<i64>,
    commits: Vec<i64>,
}

fn batch(base_offset: i64) -> Bytes {
    let base_offset = Offset(base_offset);
    let mut builder = BatchBuilder::new(BatchOptions { base_offset, ..BatchOptions::default() });
    for index in 0..PER_BATCH {
        let value = (base_offset.0 + index).to_string();
        let record = NewRecord { value: Some(value.as_bytes()), ..NewRecord::default() };
        builder.append(&record).expect("room");
    }
    builder.finish()
}

/// A broker with one log, one batch per fetch; the first fetches meet these errors.
fn broker(errors: &[ErrorCode]) -> (ScriptedBroker, Arc<Mutex<Asked>>) {
    let asked = Arc::new(Mutex::new(Asked::default()));
    let book = asked.clone();
    let mut errors: VecDeque<_> = errors.to_vec().into();
    // The broker's side of the session: what it remembers being asked for.
    let mut wanted = 0;
    let broker = ScriptedBroker::new(1, move |request| {
        let mut book = book.lock().expect("no panic");
        match request.key {
            ApiKey::Fetch => {
                let fetch: FetchRequest = body(&request);
                if let Some(topic) = fetch.topics.first() {
                    wanted = topic.partitions[0].fetch_offset;
                }
                book.fetches.push(wanted);
                if let Some(code) = errors.pop_front() {
                    return send(&request, &fetched(code, None));
                }
                match wanted {
                    ..FIRST => send(&request, &fetched(ErrorCode::OffsetOutOfRange, None)),
                    // Waits for records that never come.
                    END.. => Reply::Nothing,
                    _ => {
                        let base = wanted - wanted % PER_BATCH;
                        send(&request, &fetched(ErrorCode::None, Some(batch(base))))
                    }
                }
            }
            ApiKey::ListOffsets => list_offsets(&request),
            ApiKey::FindCoordinator => send(&request, &coordinator()),
            ApiKey::OffsetCommit => {
                let commit: OffsetCommitRequest = body(&request);
                book.commits.push(commit.topics[0].partitions[0].committed_offset);
                send(&request, &all_committed(commit))
            }
            other => panic!("{other:?} was not expected"),
        }
    });
    (broker, asked)
}

fn coordinator() -> FindCoordinatorResponse {
    let coordinator =
        Coordinator { node_id: 1, host: "broker".into(), port: 9092, ..Coordinator::default() };
    FindCoordinatorResponse { coordinators: vec![coordinator], ..Default::default() }
}

fn all_committed(commit: OffsetCommitRequest) -> OffsetCommitResponse {
    let topics = commit.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let partition_index = partition.partition_index;
            OffsetCommitResponsePartition { partition_index, error_code: 0 }
        });
        OffsetCommitResponseTopic {
            name: topic.name,
            partitions: partitions.collect(),
            ..Default::default()
        }
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}

fn fetched(code: ErrorCode, records: Option<Bytes>) -> FetchResponse {
    let partition = PartitionData {
        error_code: code.code(),
        high_watermark: END,
        records,
        ..PartitionData::default()
    };
    let topic = FetchableTopicResponse {
        topic_id: TOPIC_ID,
        partitions: vec![partition],
        ..FetchableTopicResponse::default()
    };
    FetchResponse { session_id: 9, responses: vec![topic], ..FetchResponse::default() }
}

fn list_offsets(request: &RequestFrame) -> Reply {
    let asked: ListOffsetsRequest = body(request);
    let partitions = asked.topics[0].partitions.iter().map(|partition| {
        let offset = match partition.timestamp {
            EARLIEST => FIRST,
            LATEST => END,
            _ => -1,
        };
        let partition_index = partition.partition_index;
        ListOffsetsPartitionResponse { partition_index, offset, ..Default::default() }
    });
    let partitions = partitions.collect();
    let topic = ListOffsetsTopicResponse { name: "t".into(), partitions };
    send(request, &ListOffsetsResponse { topics: vec![topic], ..Default::default() })
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn consumer(broker: &ScriptedBroker, config: ConsumerConfig, start: Start) -> Consumer {
    let client = broker.client();
    client.topic("t", false).await.expect("scripted");
    let consumer = Consumer::new(client, config).expect("valid");
    consumer.assign(&[(partition(), start)]).expect("nothing subscribed");
    consumer
}

/// Reads until nothing comes and returns the offsets; values must be as they were written.
async fn read(consumer: &Consumer) -> Vec<i64> {
    let mut offsets = Vec::new();
    // Longer than a request that waits for records at the end of the log, which never come.
    while let Some(records) = consumer.poll(Duration::from_secs(60)).await.expect("readable") {
        for record in &records {
            assert_eq!(record.value, Some(record.offset.0.to_string().as_bytes()));
            offsets.push(record.offset.0);
        }
    }
    offsets
}

#[tokio::test(start_paused = true)]
async fn records_come_in_order_from_each_kind_of_start() {
    for (start, first) in [
        (Start::Beginning, FIRST),
        (Start::Offset(123), 123),
        (Start::End, END),
        (Start::Timestamp(5), END),
    ] {
        let (broker, _) = broker(&[]);
        let consumer = consumer(&broker, ConsumerConfig::default(), start).await;
        assert_eq!(read(&consumer).await, (first..END).collect::<Vec<_>>(), "{start:?}");
        assert_eq!(consumer.position(&partition()), Some(END));
        consumer.close().await.expect("closed");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_from_a_broker_that_does_not_answer() {
    let (broker, _) = broker(&[]);
    let reading = consumer(&broker, ConsumerConfig::default(), Start::Offset(145)).await;
    assert_eq!(reading.answered_ago(&partition()), None);
    reading.poll(Duration::from_secs(5)).await.expect("readable").expect("records");
    let begun = Instant::now();
    assert!(reading.answered_ago(&partition()).is_some_and(|ago| ago.is_zero()));
    // From the log's end on this broker does not even say that there is nothing.
    assert!(reading.poll(Duration::from_secs(60)).await.expect("readable").is_none());
    assert_eq!(reading.answered_ago(&partition()), Some(begun.elapsed()));
    reading.seek(&partition(), Start::Offset(END - 1)).expect("assigned");
    assert_eq!(read(&reading).await, [END - 1]);
    assert!(reading.answered_ago(&partition()).is_some_and(|ago| ago < begun.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_position_out_of_range_is_reset_as_configured() {
    let (broker, _) = broker(&[]);
    let earliest =
        ConsumerConfig { offset_reset: OffsetReset::Earliest, ..ConsumerConfig::default() };
    let reading = consumer(&broker, earliest, Start::Offset(3)).await;
    assert_eq!(read(&reading).await.first(), Some(&FIRST));

    let none = ConsumerConfig { offset_reset: OffsetReset::None, ..ConsumerConfig::default() };
    let reading = consumer(&broker, none, Start::Offset(3)).await;
    let error = reading.poll(Duration::from_secs(5)).await.expect_err("no reset");
    assert!(matches!(error, Error::NoOffset { .. }), "{error}");
    let next = reading.poll(Duration::from_secs(5)).await;
    assert!(next.expect("told once").is_none(), "the application has to seek");
    reading.seek(&partition(), Start::Offset(END - 1)).expect("assigned");
    assert_eq!(read(&reading).await, [END - 1]);
}

#[tokio::test(start_paused = true)]
async fn errors_that_pass_are_not_shown() {
    let passing = [
        ErrorCode::NotLeaderOrFollower,
        ErrorCode::UnknownTopicId,
        ErrorCode::FencedLeaderEpoch,
        ErrorCode::OffsetNotAvailable,
    ];
    let (broker, _) = broker(&passing);
    let consumer = consumer(&broker, ConsumerConfig::default(), Start::Beginning).await;
    assert_eq!(read(&consumer).await.len() as i64, END - FIRST);
}

#[tokio::test(start_paused = true)]
async fn a_seek_drops_what_was_fetched_ahead() {
    let (broker, asked) = broker(&[]);
    let consumer = consumer(&broker, ConsumerConfig::default(), Start::Beginning).await;
    consumer.poll(Duration::from_secs(5)).await.expect("readable").expect("records");
    consumer.seek(&partition(), Start::Offset(145)).expect("assigned");
    assert_eq!(read(&consumer).await, [145, 146, 147, 148, 149]);
    let fetches = &asked.lock().expect("no panic").fetches;
    assert!(fetches.contains(&145), "{fetches:?}");
}

#[tokio::test(start_paused = true)]
async fn a_seek_drops_what_is_left_of_a_poll() {
    let (broker, asked) = broker(&[]);
    let config = ConsumerConfig {
        group_id: Some("g".to_owned()),
        auto_commit: false,
        ..ConsumerConfig::default()
    };
    let consumer = consumer(&broker, config, Start::Beginning).await;
    let next = async || {
        // Longer than the request that waits at the end of the log.
        let record = consumer.next(Duration::from_secs(60)).await.expect("readable");
        record.expect("a record").offset
    };
    assert_eq!([next().await, next().await], [FIRST, FIRST + 1]);
    consumer.seek(&partition(), Start::Offset(145)).expect("assigned");
    consumer.commit().await.expect("committed");
    assert_eq!([next().await, next().await], [145, 146]);
    consumer.commit().await.expect("committed");
    assert_eq!(asked.lock().expect("no panic").commits, [145, 147]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_gives_nothing_until_it_is_resumed() {
    let (broker, _) = broker(&[]);
    let consumer = consumer(&broker, ConsumerConfig::default(), Start::Beginning).await;
    consumer.poll(Duration::from_secs(5)).await.expect("readable").expect("records");
    consumer.pause(&partition()).expect("assigned");
    assert_eq!(read(&consumer).await, [0i64; 0]);
    consumer.resume(&partition()).expect("assigned");
    assert_eq!(read(&consumer).await.len() as i64, END - FIRST - PER_BATCH);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_less_while_a_partition_is_left_out() {
    let waits = Arc::new(Mutex::new(Vec::new()));
    let book = waits.clone();
    let broker = ScriptedBroker::new(2, move |request| match request.key {
        ApiKey::Fetch => {
            let wait = body::<FetchRequest>(&request).max_wait_ms;
            book.lock().expect("no panic").push(wait);
            match send(&request, &FetchResponse { session_id: 9, ..FetchResponse::default() }) {
                Reply::Send(empty) => Reply::After(Duration::from_millis(wait as u64), empty),
                other => other,
            }
        }
        ApiKey::ListOffsets => list_offsets(&request),
        other => panic!("{other:?} was not expected"),
    });
    let client = broker.client();
    client.topic("t", false).await.expect("scripted");
    let consumer = Consumer::new(client, ConsumerConfig::default()).expect("valid");
    let partitions = [0, 1].map(|number| TopicPartition::new("t", number));
    let starts = partitions.clone().map(|partition| (partition, Start::Offset(END)));
    consumer.assign(&starts).expect("nothing subscribed");
    let last_wait = async || {
        assert!(consumer.poll(Duration::from_secs(5)).await.expect("readable").is_none());
        waits.lock().expect("no panic").last().copied()
    };
    assert_eq!(last_wait().await, Some(500));
    // The other one is not to wait long for this request once it is resumed.
    consumer.pause(&partitions[1]).expect("assigned");
    assert_eq!(last_wait().await, Some(100));
    consumer.resume(&partitions[1]).expect("assigned");
    assert_eq!(last_wait().await, Some(500));
}

#[tokio::test(start_paused = true)]
async fn commits_say_what_was_given_out_and_no_more() {
    let (broker, asked) = broker(&[]);
    let config = ConsumerConfig {
        group_id: Some("g".to_owned()),
        auto_commit: false,
        ..ConsumerConfig::default()
    };
    let consumer = consumer(&broker, config, Start::Beginning).await;
    for offset in FIRST..FIRST + 3 {
        let record = consumer.next(Duration::from_secs(5)).await.expect("readable");
        assert_eq!(record.expect("a record").offset, offset);
    }
    consumer.commit().await.expect("committed");
    consumer.commit().await.expect("nothing new");
    assert_eq!(asked.lock().expect("no panic").commits, [FIRST + 3]);
}

#[tokio::test(start_paused = true)]
async fn automatic_commits_wait_for_the_next_poll() {
    let (broker, asked) = broker(&[]);
    let config = ConsumerConfig { group_id: Some("g".to_owned()), ..ConsumerConfig::default() };
    let consumer = consumer(&broker, config, Start::Beginning).await;
    let first = consumer.poll(Duration::from_secs(5)).await.expect("readable").expect("records");
    // The application works for a minute; the first records are not done all that time.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked.lock().expect("no panic").commits, [0i64; 0]);
    consumer.poll(Duration::from_secs(5)).await.expect("readable").expect("records");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked.lock().expect("no panic").commits, [first.next_offset()]);
}

#[tokio::test]
async fn misuse_is_refused_with_a_reason() {
    let (broker, _) = broker(&[]);
    let reading = consumer(&broker, ConsumerConfig::default(), Start::Beginning).await;
    let error = reading.subscribe(&["t"]).expect_err("no group");
    assert!(error.to_string().contains("group.id"), "{error}");
    let error = reading.pause(&TopicPartition::new("t", 9)).expect_err("not assigned");
    assert!(error.to_string().contains("t-9 is not assigned"), "{error}");
    let strategy = ConsumerConfig {
        assignment_strategy: vec!["stickiest".into()],
        ..ConsumerConfig::default()
    };
    let error = Consumer::new(broker.client(), strategy).err().expect("not served");
    assert!(error.to_string().contains("expected range, roundrobin, sticky"), "{error}");
}

//! A producer against leaders that fail, refuse and vanish.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleuve_protocol::frame::RequestFrame;
use fleuve_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use fleuve_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use fleuve_protocol::messages::produce_request::ProduceRequest;
use fleuve_protocol::messages::produce_response::{
    PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use fleuve_protocol::records::{Batch, BatchHeader};
use fleuve_protocol::{ApiKey, ErrorCode};
use tokio::time::Instant;

use super::*;
use crate::scripted::{Reply, ScriptedBroker, TOPIC_ID, body, send};

/// The batches a broker has seen: producer id and epoch, base sequence and count.
type Seen = Arc<Mutex<Vec<(i64, i16, i32, i32)>>>;

/// A broker whose script decides about each batch in turn; it gives out producer ids from 1.
fn broker(
    mut script: impl FnMut(usize, &BatchHeader) -> Option<ErrorCode> + Send + 'static,
) -> (ScriptedBroker, Seen) {
    let seen = Seen::default();
    let book = seen.clone();
    let mut ids = 0;
    let broker = ScriptedBroker::new(1, move |request| match request.key {
        ApiKey::InitProducerId => {
            ids += 1;
            send(&request, &InitProducerIdResponse { producer_id: ids, ..Default::default() })
        }
        _ => {
            let header = header(&request);
            let mut book = book.lock().expect("no panic");
            let verdict = script(book.len(), &header);
            let (id, epoch) = (header.producer_id.0, header.producer_epoch.0);
            book.push((id, epoch, header.base_sequence, header.count));
            match verdict {
                Some(code) => send(&request, &response(code, i64::from(header.base_sequence))),
                None => Reply::HangUp,
            }
        }
    });
    (broker, seen)
}

fn header(request: &RequestFrame) -> BatchHeader {
    let mut request: ProduceRequest = body(request);
    let records = request.topic_data[0].partition_data[0].records.take().expect("records");
    let batch = Batch::parse(records).expect("one whole batch");
    batch.verify_crc().expect("right checksum");
    batch.header
}

fn response(code: ErrorCode, base_offset: i64) -> ProduceResponse {
    let partition = PartitionProduceResponse {
        error_code: code.code(),
        base_offset,
        ..PartitionProduceResponse::default()
    };
    let topic = TopicProduceResponse {
        topic_id: TOPIC_ID,
        partition_responses: vec![partition],
        ..Default::default()
    };
    ProduceResponse { responses: vec![topic], ..Default::default() }
}

fn producer(broker: &ScriptedBroker, config: ProducerConfig) -> Producer {
    Producer::new(broker.client(), config).expect("valid")
}

#[tokio::test(start_paused = true)]
async fn many_records_share_the_deliveries_of_their_batches() {
    // The second batch is refused for good.
    let refused = ErrorCode::InvalidRecord;
    let (broker, seen) =
        broker(move |number, _| Some(if number == 1 { refused } else { ErrorCode::None }));
    let producer = producer(&broker, ProducerConfig::default());
    let mut deliveries = Deliveries::new();
    let three = [Record::new("t").value(b"v"); 3];
    for round in 0..3 {
        producer.send_all(&three, &mut deliveries).await.expect("sent");
        producer.send_all(&three, &mut deliveries).await.expect("sent");
        assert!(!deliveries.is_empty());
        match deliveries.done().await {
            // The broker answers with the batch's first sequence number for its offset, and after a
            // refused batch numbers start over.
            Ok(ends) if round != 1 => assert_eq!(ends.into_values().collect::<Vec<_>>(), [6]),
            done => assert_eq!(done.err().and_then(|error| error.code()), Some(refused)),
        }
        assert!(deliveries.is_empty());
    }
    let counts: Vec<i32> = seen.lock().expect("no panic").iter().map(|batch| batch.3).collect();
    assert_eq!(counts, [6, 6, 6]);
}

#[tokio::test(start_paused = true)]
async fn records_that_linger_share_a_batch_and_know_their_offsets() {
    let (broker, seen) = broker(|_, _| Some(ErrorCode::None));
    let producer = producer(&broker, ProducerConfig::default());
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        deliveries.push(producer.send(Record::new("t").value(b"v")).await.expect("sent"));
    }
    for (offset, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.expect("written").offset, Some(offset as i64));
    }
    producer.close().await.expect("closed");
    assert_eq!(*seen.lock().expect("no panic"), [(1, 0, 0, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_leader_moved_goes_out_again_under_its_number() {
    let (broker, seen) = broker(|index, _| {
        Some(if index == 0 { ErrorCode::NotLeaderOrFollower } else { ErrorCode::None })
    });
    let producer = producer(&broker, ProducerConfig::default());
    producer.send_and_wait(Record::new("t").value(b"v")).await.expect("written");
    assert_eq!(*seen.lock().expect("no panic"), [(1, 0, 0, 1), (1, 0, 0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_in_flight_when_the_connection_broke_is_no_duplicate() {
    let (broker, seen) =
        broker(|index, _| (index > 0).then_some(ErrorCode::DuplicateSequenceNumber));
    let producer = producer(&broker, ProducerConfig::default());
    producer.send_and_wait(Record::new("t").value(b"v")).await.expect("a duplicate is written");
    assert_eq!(*seen.lock().expect("no panic"), [(1, 0, 0, 1), (1, 0, 0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn order_and_numbers_survive_failures_with_many_batches_in_flight() {
    // A leader that fails every third batch, and then refuses what follows out of order.
    let mut expected = 0;
    let (broker, seen) = broker(move |index, header| {
        if header.base_sequence != expected {
            return Some(ErrorCode::OutOfOrderSequenceNumber);
        }
        if index % 3 == 2 {
            return Some(ErrorCode::NotEnoughReplicas);
        }
        expected += header.count;
        Some(ErrorCode::None)
    });
    let config =
        ProducerConfig { batch_size: 200, linger: Duration::ZERO, ..ProducerConfig::default() };
    let producer = producer(&broker, config);
    let mut deliveries = Vec::new();
    for _ in 0..100 {
        deliveries.push(producer.send(Record::new("t").value(&[0; 90])).await.expect("sent"));
    }
    let mut offsets = Vec::new();
    for delivery in deliveries {
        offsets.push(delivery.await.expect("written").offset.expect("told"));
    }
    // The script answers with sequences as offsets, so these are the numbers records went out by.
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
    let seen = seen.lock().expect("no panic");
    assert!(
        seen.iter().all(|(id, epoch, _, _)| (*id, *epoch) == (1, 0)),
        "the identity stays: {seen:?}"
    );
    assert!(seen.len() > 20, "batches went out again: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_fails_alone() {
    let (broker, seen) = broker(|index, _| {
        Some(if index == 0 { ErrorCode::MessageTooLarge } else { ErrorCode::None })
    });
    let producer = producer(&broker, ProducerConfig::default());
    let error = producer.send_and_wait(Record::new("t").value(b"v")).await.expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
    producer.send_and_wait(Record::new("t").value(b"v")).await.expect("written");
    assert_eq!(*seen.lock().expect("no panic"), [(1, 0, 0, 1), (1, 1, 0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn numbers_of_a_refused_batch_are_not_given_to_another() {
    // A leader that does not know the producer takes any first number, and what it has seen once it
    // calls written.
    let mut first_refused = false;
    let mut logged: Vec<(i16, i32)> = Vec::new();
    let (broker, seen) = broker(move |_, header| {
        let mine = (header.producer_epoch.0, header.base_sequence);
        if !std::mem::replace(&mut first_refused, true) {
            return Some(ErrorCode::MessageTooLarge);
        }
        let expected = match logged.last() {
            None => mine.1,
            Some((epoch, last)) if *epoch == mine.0 => last + 1,
            Some(_) => 0,
        };
        if !logged.contains(&mine) && mine.1 != expected {
            return Some(ErrorCode::OutOfOrderSequenceNumber);
        }
        logged.push(mine);
        Some(ErrorCode::None)
    });
    let config =
        ProducerConfig { batch_size: 1, linger: Duration::ZERO, ..ProducerConfig::default() };
    let producer = producer(&broker, config);
    let mut deliveries = Vec::new();
    for _ in 0..8 {
        deliveries.push(producer.send(Record::new("t").value(b"v")).await.expect("sent"));
    }
    let mut refused = 0;
    for delivery in deliveries {
        refused += u32::from(delivery.await.is_err());
    }
    assert_eq!(refused, 1);
    let seen = seen.lock().expect("no panic");
    let mut numbers: Vec<_> = seen.iter().map(|batch| (batch.0, batch.1, batch.2)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), seen.len(), "a number went out twice: {seen:?}");
    assert!(seen.iter().all(|batch| batch.0 == 1), "the epoch is enough: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_given_up_says_whether_it_may_be_written() {
    let (broker, seen) = broker(|index, _| (index >= 3).then_some(ErrorCode::None));
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(200),
        ..ProducerConfig::default()
    };
    let producer = producer(&broker, config);
    let error = producer.send_and_wait(Record::new("t").value(b"v")).await.expect_err("hung up");
    assert!(matches!(error, Error::DeliveryTimeout { maybe_written: true, .. }), "{error}");
    // Its number is gone for good, so the next record begins under a new epoch.
    producer.send_and_wait(Record::new("t").value(b"w")).await.expect("written");
    assert_eq!(seen.lock().expect("no panic").last(), Some(&(1, 1, 0, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_a_deposed_leader_took_may_be_written() {
    // With acks=all these come also when leadership moves after the batch was appended.
    for code in [ErrorCode::NotLeaderOrFollower, ErrorCode::UnknownTopicOrPartition] {
        let (broker, _) = broker(move |_, _| Some(code));
        let config = ProducerConfig {
            delivery_timeout: Duration::from_millis(500),
            ..ProducerConfig::default()
        };
        let producer = producer(&broker, config);
        let error = producer.send_and_wait(Record::new("t")).await.expect_err("nobody leads");
        let unknown = matches!(error, Error::DeliveryTimeout { maybe_written: true, .. });
        assert!(unknown, "{code:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_makes_send_wait_and_then_fail() {
    let (broker, _) = broker(|_, _| None);
    let config = ProducerConfig {
        buffer_memory: 4096,
        max_block: Duration::from_millis(100),
        ..ProducerConfig::default()
    };
    let producer = producer(&broker, config);
    let mut failure = None;
    for _ in 0..100 {
        match producer.send(Record::new("t").value(&[0; 1000])).await {
            Ok(delivery) => drop(delivery),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let failure = failure.expect("4096 bytes do not hold 100 kB");
    assert!(failure.to_string().contains("buffer.memory"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn memory_that_becomes_free_little_by_little_reaches_who_waits_for_it() {
    let mut produced = 0;
    let broker = ScriptedBroker::new(1, move |request| match request.key {
        ApiKey::InitProducerId => send(&request, &InitProducerIdResponse::default()),
        _ => {
            produced += 1;
            match send(&request, &response(ErrorCode::None, 0)) {
                Reply::Send(answer) if produced == 1 => {
                    Reply::After(Duration::from_millis(10), answer)
                }
                _ => Reply::Nothing,
            }
        }
    });
    let config = ProducerConfig {
        buffer_memory: 100_000,
        batch_size: 1500,
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    };
    let producer = producer(&broker, config);
    let one = Record::new("t").value(&[0; 1000]);
    let first = producer.send(one).await.expect("there is room");
    let mut waited = 0;
    let error = loop {
        let began = Instant::now();
        match producer.send(one).await {
            Ok(_) => waited += u32::from(began.elapsed() > Duration::ZERO),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("buffer.memory"), "{error}");
    first.await.expect("written");
    assert_eq!(waited, 1, "for the memory of the only batch that is written");
}

#[tokio::test]
async fn impossible_records_are_refused_before_they_are_buffered() {
    let (broker, _) = broker(|_, _| Some(ErrorCode::None));
    let producer = producer(&broker, ProducerConfig::default());
    let error = producer.send(Record::new("t").partition(7)).await.err().expect("no partition 7");
    assert!(matches!(error, Error::NoSuchPartition { partition: 7, .. }), "{error}");
    let large = vec![0; 2 << 20];
    let error = producer.send(Record::new("t").value(&large)).await.err().expect("too large");
    assert!(
        matches!(error, Error::RecordTooLarge { limit_name: "max.request.size", .. }),
        "{error}"
    );
    producer.close().await.expect("closed");
    let error = producer.send(Record::new("t")).await.err().expect("closed");
    assert_eq!(error.advice(), crate::Advice::Stop);
}

/// Begins a transaction at a broker that never answers Produce.
pub(super) async fn in_transaction(config: ProducerConfig) -> Producer {
    let broker = ScriptedBroker::new(1, |request| match request.key {
        ApiKey::FindCoordinator => {
            let coordinator = Coordinator {
                key: "x".into(),
                node_id: 1,
                host: "broker".into(),
                port: 9092,
                ..Coordinator::default()
            };
            let coordinators = vec![coordinator];
            send(&request, &FindCoordinatorResponse { coordinators, ..Default::default() })
        }
        ApiKey::InitProducerId => send(&request, &InitProducerIdResponse::default()),
        _ => Reply::Nothing,
    });
    let config = ProducerConfig { transactional_id: Some("x".to_owned()), ..config };
    let producer = producer(&broker, config);
    producer.init_transactions().await.expect("an honest coordinator");
    let shared = &producer.handle.shared;
    shared.accumulator.learn_topic(&shared.client.topic("t", true).await.expect("it exists"));
    producer.begin_transaction().expect("ready");
    producer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fails_when_a_commit_begins_is_not_committed_without() {
    let producer = in_transaction(ProducerConfig::default()).await;
    let shared = producer.handle.shared.clone();
    let transactions = shared.transactions.as_ref().expect("with an id");
    let commit = {
        // The sender books a failed batch under this lock, which the commit waits for.
        let _state = shared.accumulator.lock();
        let commit = tokio::spawn(async move { producer.commit_transaction().await });
        // It has to say that it ends the transaction before it asks for the lock.
        let asked = std::time::Instant::now();
        while transactions.check_open().is_ok() {
            assert!(asked.elapsed() < Duration::from_secs(20), "it waits for the lock first");
            std::thread::yield_now();
        }
        transactions.fail(&Error::broker_said("t-0", ErrorCode::MessageTooLarge, None));
        commit
    };
    let error = commit.await.expect("no panic").expect_err("a record is missing");
    assert_eq!(error.advice(), crate::Advice::Abort, "{error}");
}

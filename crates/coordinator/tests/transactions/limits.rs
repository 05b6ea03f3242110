//! What the machine does when there is much of something.

use fleuve_coordinator::Now;
use fleuve_coordinator::transaction::{
    AddPartitionsRequest, Decision, EndRequest, InitRequest, ListFilter, MarkerOutcome, Producer,
    Response, TransactionError, TransactionSettings, TransactionVersion,
};
use fleuve_protocol::Str;
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition};

use crate::driver::Driver;

/// Requests that may wait for one transactional id.
const WAITING_MAX: usize = 64;

fn init(driver: &mut Driver, id: Str) -> Producer {
    let request = InitRequest {
        transactional_id: id,
        timeout_ms: 60_000,
        expected: None,
        knows_producer_fenced: true,
    };
    driver.request(|shard, now, token| shard.handle_init_producer_id(now, token, &request));
    match driver.answers.last() {
        Some((_, _, Some(Response::InitProducerId(Ok(producer))))) => *producer,
        other => panic!("{other:?} is no producer"),
    }
}

fn add(driver: &mut Driver, id: &Str, producer: Producer, partition: i32) {
    let request = AddPartitionsRequest {
        transactional_id: id.clone(),
        producer,
        partitions: vec![TopicPartition::new("t", partition)],
        client_version: TransactionVersion::V2,
        knows_producer_fenced: true,
    };
    driver.request(|shard, now, token| shard.handle_add_partitions(now, token, &request));
}

#[test]
fn only_so_many_requests_wait_for_one_id() {
    let mut driver = Driver::new(TransactionSettings::default());
    let id = Str::from("tx");
    let producer = init(&mut driver, id.clone());
    assert_eq!(producer, Producer { id: ProducerId(1), epoch: ProducerEpoch(0) });
    add(&mut driver, &id, producer, 0);
    let request = EndRequest {
        transactional_id: id.clone(),
        producer,
        decision: Decision::Commit,
        client_version: TransactionVersion::V2,
        knows_producer_fenced: true,
    };
    driver.request(|shard, now, token| shard.handle_end_transaction(now, token, &request));
    let answered = driver.answers.len();
    for partition in 0..=WAITING_MAX as i32 {
        add(&mut driver, &id, Producer { epoch: ProducerEpoch(1), ..producer }, partition);
    }
    let refused = Response::AddPartitions(Err(TransactionError::ConcurrentTransactions));
    assert_eq!(driver.answers.len(), answered + 1);
    assert_eq!(driver.answers[answered].2, Some(refused));
    assert_eq!(driver.unanswered(), WAITING_MAX);
    driver.report(MarkerOutcome::Written, |_| true);
    assert_eq!(driver.unanswered(), 0);
    let partitions = driver.shard.describe("tx").expect("the id is there").partitions;
    assert_eq!(partitions.len(), WAITING_MAX);
}

#[test]
fn tombstones_come_in_batches_that_fit() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    let mut driver = Driver::new(TransactionSettings::default());
    // Names in order: short ones first, then such as fill a batch by three, and one that is larger
    // than a batch of tombstones ought to be.
    for number in 0..1_500 {
        init(&mut driver, format!("a{number}").into());
    }
    for number in 0..4 {
        init(&mut driver, format!("b{number}{}", "b".repeat(5_000)).into());
    }
    init(&mut driver, "c".repeat(20_000).into());
    init(&mut driver, "d".into());
    driver.batches.clear();
    driver.wait(7 * DAY_MS - 1);
    assert!(driver.batches.is_empty(), "nothing is old enough");
    driver.wait(DAY_MS);
    assert_eq!(driver.batches, [1_000, 502, 2, 1, 1]);
    let now: Now = driver.now();
    let left = driver.shard.list(now, &ListFilter::default()).expect("the shard serves");
    assert!(left.is_empty(), "{left:?} is still there");
    assert_eq!(driver.shard.counters().ids_expired, 1_506);
}

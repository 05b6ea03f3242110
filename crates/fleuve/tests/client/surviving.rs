//! What holds while the nodes of a cluster are killed in turn (`tests/client/run.py --kill`): nothing acknowledged is
//! lost or written twice, order per key stands, transactions are whole, and groups come to rest.
//!
//! Without killing, as in `cargo test`, the same goes on for a second.

#![expect(clippy::print_stdout, reason = "who kills nodes wants to know how much went on")]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fleuve::client::config::{GroupProtocol, IsolationLevel, OffsetReset};
use fleuve::client::consumer::Start;
use fleuve::client::{Advice, Client, Consumer, ConsumerConfig, Producer, ProducerConfig, Record};
use fleuve_protocol::ApiKey;
use fleuve_types::TopicPartition;
use tokio::time::Instant;

use crate::target::{Target, for_each_target, unique};

for_each_target! {
    acknowledged_records_stand_once_and_in_order
    transactions_are_whole
    a_consumer_reads_from_the_replica_in_its_rack
}

const PARTITIONS: i32 = 6;
const KEYS: usize = 20;
/// Elections and restarts of a loaded machine fit in.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long to go on producing.
fn going_on() -> Duration {
    let seconds = std::env::var("FLEUVE_TEST_KILLING_SECONDS").ok();
    Duration::from_secs(seconds.map_or(1, |text| text.parse().expect("a number")))
}

/// A client that is as patient as the test.
async fn client(target: &Target) -> Client {
    let mut config = target.config();
    config.api_timeout = PATIENCE;
    Client::connect(config).await.expect("reachable")
}

/// Everything in the topic, by partition and in order: key and number.
async fn read_all(target: &Target, topic: &str, level: IsolationLevel) -> Vec<(String, u64)> {
    let config = ConsumerConfig { isolation_level: level, ..ConsumerConfig::default() };
    let consumer = Consumer::new(client(target).await, config).expect("valid");
    let partitions: Vec<_> =
        (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect();
    let places: Vec<_> =
        partitions.iter().map(|partition| (partition.clone(), Start::Beginning)).collect();
    consumer.assign(&places).expect("free");
    let mut all = Vec::new();
    let begun = Instant::now();
    // Every partition has been read once its position is at the high watermark of a later answer.
    let mut quiet = 0;
    while quiet < 2 {
        assert!(begun.elapsed() < PATIENCE, "the end was not reached");
        match consumer.poll(Duration::from_secs(2)).await {
            Ok(Some(records)) => {
                quiet = 0;
                for record in &records {
                    let key = String::from_utf8_lossy(record.key.expect("a key")).into_owned();
                    let number = String::from_utf8_lossy(record.value.expect("a value"));
                    all.push((key, number.parse().expect("a number")));
                }
            }
            Ok(None) => {
                let done = partitions.iter().all(|partition| {
                    let end = consumer.high_watermark(partition);
                    end.is_some() && consumer.position(partition) >= end
                });
                quiet += i32::from(done);
            }
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    }
    consumer.close().await.ok();
    all
}

async fn acknowledged_records_stand_once_and_in_order(target: &Target) {
    let topic = target.topic("surviving", PARTITIONS).await;
    let group = unique("surviving");
    let readers = [
        tokio::spawn(read_in_group(
            client(target).await,
            topic.clone(),
            group.clone(),
            protocol(target).await,
        )),
        tokio::spawn(read_in_group(
            client(target).await,
            topic.clone(),
            group,
            protocol(target).await,
        )),
    ];
    let producer = Producer::new(client(target).await, ProducerConfig::default()).expect("valid");
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
    let end = Instant::now() + going_on();
    let (mut acknowledged, mut uncertain, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut number = 0;
    while Instant::now() < end {
        let mut deliveries = Vec::new();
        for key in &keys {
            number += 1;
            let value = number.to_string();
            let sent = producer.send(Record::new(&topic).key(key).value(&value)).await;
            deliveries.push((key.clone(), number, sent.expect("taken within max.block.ms")));
        }
        for (key, number, delivery) in deliveries {
            match delivery.await {
                Ok(_) => acknowledged.push((key, number)),
                Err(fleuve::client::Error::DeliveryTimeout { maybe_written: false, .. }) => {
                    refused.push((key, number));
                }
                Err(_) => uncertain.push((key, number)),
            }
        }
    }
    producer.close().await.expect("closed");
    let all = read_all(target, &topic, IsolationLevel::ReadUncommitted).await;
    let mut times: HashMap<&(String, u64), u32> = HashMap::new();
    all.iter().for_each(|record| *times.entry(record).or_default() += 1);
    for record in &acknowledged {
        assert_eq!(times.get(record), Some(&1), "acknowledged {record:?}");
    }
    for record in &uncertain {
        assert!(times.get(record).is_none_or(|times| *times == 1), "twice: {record:?}");
    }
    for record in &refused {
        assert_eq!(times.get(record), None, "said not to be written: {record:?}");
    }
    let mut last: HashMap<&str, u64> = HashMap::new();
    for (key, number) in &all {
        let before = last.insert(key, *number);
        assert!(before < Some(*number), "{key}: {number} after {before:?}");
    }
    println!(
        "{} acknowledged, {} uncertain, {} refused",
        acknowledged.len(),
        uncertain.len(),
        refused.len()
    );
    // The group has come to rest when together its members have read everything.
    let read = read_by(readers, all.len()).await;
    for record in &all {
        assert!(read.contains_key(record), "nobody in the group read {record:?}");
    }
}

async fn protocol(target: &Target) -> GroupProtocol {
    match target.reconciles().await {
        true => GroupProtocol::Consumer,
        false => GroupProtocol::Classic,
    }
}

type Seen = std::sync::Arc<std::sync::Mutex<BTreeMap<(String, u64), u32>>>;

/// One member of the group, which reads until it is told to stop.
struct Reader {
    seen: Seen,
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn read_in_group(
    client: Client,
    topic: String,
    group: String,
    group_protocol: GroupProtocol,
) -> Reader {
    let config = ConsumerConfig {
        group_id: Some(group),
        group_protocol,
        offset_reset: OffsetReset::Earliest,
        auto_commit_interval: Duration::from_millis(500),
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(client, config).expect("valid");
    consumer.subscribe(&[&topic]).expect("a group");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let seen = Seen::default();
    let into = seen.clone();
    let task = tokio::spawn(async move {
        while !*stopped.borrow() {
            let records = match consumer.poll(Duration::from_millis(500)).await {
                Ok(records) => records,
                Err(error) => {
                    assert!(error.advice() != Advice::Fix, "{error}");
                    continue;
                }
            };
            let mut seen = into.lock().expect("no panic");
            for record in records.iter().flatten() {
                let key = String::from_utf8_lossy(record.key.expect("a key")).into_owned();
                let number = String::from_utf8_lossy(record.value.expect("a value"));
                *seen.entry((key, number.parse().expect("a number"))).or_default() += 1;
            }
        }
        consumer.close().await.ok();
    });
    Reader { seen, stop, task }
}

/// Waits until the readers have `count` records between them, and ends them.
async fn read_by(
    readers: [tokio::task::JoinHandle<Reader>; 2],
    count: usize,
) -> BTreeMap<(String, u64), u32> {
    let [first, second] = readers;
    let readers = [first.await.expect("no panic"), second.await.expect("no panic")];
    let begun = Instant::now();
    let read = loop {
        let mut read = BTreeMap::new();
        for reader in &readers {
            read.extend(reader.seen.lock().expect("no panic").clone());
        }
        if read.len() >= count {
            break read;
        }
        assert!(begun.elapsed() < PATIENCE, "the group read {} of {count}", read.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for reader in readers {
        reader.stop.send_replace(true);
        reader.task.await.expect("no panic");
    }
    read
}

/// What became of a transaction, as far as the client knows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Committed,
    Aborted,
    Unknown,
}

async fn transactions_are_whole(target: &Target) {
    if !target.offers(ApiKey::AddPartitionsToTxn).await {
        return;
    }
    let topic = target.topic("whole", PARTITIONS).await;
    let id = unique("whole");
    let config =
        || ProducerConfig { transactional_id: Some(id.clone()), ..ProducerConfig::default() };
    let mut producer = Producer::new(client(target).await, config()).expect("valid");
    initialise(&producer).await;
    let end = Instant::now() + going_on();
    let mut fates = Vec::new();
    while Instant::now() < end {
        let number = fates.len() as u64;
        let mut fate = attempt(&producer, &topic, number).await;
        if fate != Fate::Committed && !abort(&producer).await {
            // It cannot go on; another one with its id finishes what it left.
            producer = Producer::new(client(target).await, config()).expect("valid");
            initialise(&producer).await;
            fate = if fate == Fate::Aborted { Fate::Aborted } else { Fate::Unknown };
        }
        fates.push(fate);
    }
    producer.close().await.ok();
    let all = read_all(target, &topic, IsolationLevel::ReadCommitted).await;
    let mut parts = vec![0; fates.len()];
    all.iter().for_each(|(_, number)| parts[*number as usize] += 1);
    for (number, (fate, parts)) in fates.iter().zip(&parts).enumerate() {
        let whole = match fate {
            Fate::Committed => *parts == PARTITIONS,
            Fate::Aborted => *parts == 0,
            Fate::Unknown => *parts == PARTITIONS || *parts == 0,
        };
        assert!(
            whole,
            "transaction {number}: {fate:?}, and {parts} of {PARTITIONS} parts are there"
        );
    }
    let committed = fates.iter().filter(|fate| **fate == Fate::Committed).count();
    assert!(committed > 0, "no transaction at all: {fates:?}");
    println!("{committed} of {} transactions were committed", fates.len());
}

async fn initialise(producer: &Producer) {
    let begun = Instant::now();
    while let Err(error) = producer.init_transactions().await {
        assert!(error.is_retriable() && begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends one record to each partition and commits.
async fn attempt(producer: &Producer, topic: &str, number: u64) -> Fate {
    if producer.begin_transaction().is_err() {
        return Fate::Aborted;
    }
    let value = number.to_string();
    for partition in 0..PARTITIONS {
        let record = Record::new(topic).partition(partition).key("part").value(&value);
        match producer.send(record).await {
            Ok(delivery) => drop(delivery),
            Err(_) => return Fate::Aborted,
        }
    }
    let begun = Instant::now();
    loop {
        match producer.commit_transaction().await {
            Ok(()) => return Fate::Committed,
            Err(error) if error.is_retriable() && begun.elapsed() < PATIENCE => {}
            Err(error) if error.advice() == Advice::Abort => return Fate::Aborted,
            Err(_) => return Fate::Unknown,
        }
    }
}

/// Aborts what is open; false if the producer is at its end.
async fn abort(producer: &Producer) -> bool {
    let begun = Instant::now();
    loop {
        match producer.abort_transaction().await {
            Ok(()) => return true,
            Err(error) if error.is_retriable() && begun.elapsed() < PATIENCE => {}
            Err(_) => return false,
        }
    }
}

async fn a_consumer_reads_from_the_replica_in_its_rack(target: &Target) {
    let client = client(target).await;
    let cluster = client.refresh_all().await.expect("answered");
    let racks: Vec<_> =
        cluster.brokers().iter().map(|broker| (broker.id, broker.rack.clone())).collect();
    // Only a cluster has replicas elsewhere, and only one at rest keeps its leaders.
    if racks.len() < 2 || going_on() > Duration::from_secs(1) {
        return;
    }
    let topic = target.topic("racks", 1).await;
    target.write(&topic, 0, &["a", "b", "c"]).await;
    let leader = client.topic(&topic, false).await.expect("known").partitions[0].leader;
    let (replica, rack) =
        racks.into_iter().find(|(id, _)| Some(*id) != leader).expect("more than one");
    let config = ConsumerConfig { rack, ..ConsumerConfig::default() };
    let consumer = Consumer::new(client, config).expect("valid");
    let partition = TopicPartition::new(&*topic, 0);
    consumer.assign(&[(partition.clone(), Start::Beginning)]).expect("free");
    let mut read = 0;
    while read < 3 {
        let records = consumer.poll(PATIENCE).await.expect("readable").expect("records");
        read += records.iter().count();
    }
    assert_eq!(consumer.preferred_read_replica(&partition), Some(replica));
    consumer.close().await.expect("closed");
}

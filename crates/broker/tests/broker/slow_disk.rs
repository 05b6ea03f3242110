//! A disk that takes its time: a sync that does not end keeps nobody waiting but those who want it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleuve_broker::{Broker, Components};
use fleuve_protocol::messages::metadata_request::MetadataRequest;
use fleuve_protocol::messages::produce_request::ProduceRequest;
use fleuve_protocol::{Str, frame};
use fleuve_sim::SimDisk;

use crate::support::{TestClient, batch, produce_request, settings};

async fn start(disk: &SimDisk) -> (Broker, TestClient, TestClient) {
    let components = Components { disk: Arc::new(disk.clone()), ..Components::default() };
    let keys = [("log.dirs", "/data/first,/data/second")];
    let broker = Broker::start(settings(Path::new("/data"), &keys), components).await;
    let broker = broker.expect("the broker starts");
    let address = broker.listeners()[0].address;
    let (waiting, other) = (TestClient::connect(address).await, TestClient::connect(address).await);
    (broker, waiting, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_does_not_end_holds_up_its_own_records_alone() {
    let disk = SimDisk::new();
    let (broker, mut waiting, mut other) = start(&disk).await;
    other.create_topic("words", 2).await;
    assert_eq!(other.produce("words", 0, &["early"]).await.error_code, 0);
    let held = disk.hold_syncs("words-0/");
    waiting.send(&produce_request("words", 0, -1, batch(&["held"])), 9).await;
    held.wait_for(1);
    // The same partition is read, and takes more records; another one acknowledges them.
    assert_eq!(other.fetch("words", 0, 0).await, ["early"], "what is not durable is not shown");
    other.send(&produce_request("words", 0, 1, batch(&["unflushed"])), 9).await;
    let unflushed = other.receive::<ProduceRequest>(9).await.expect("an answer");
    assert_eq!(unflushed.responses[0].partition_responses[0].base_offset, 2);
    assert_eq!(other.produce("words", 1, &["quick"]).await.error_code, 0);
    let metadata = MetadataRequest { topics: None, ..Default::default() };
    let topics = other.call(&metadata, 12).await.topics;
    assert!(topics.iter().all(|topic| topic.partitions.iter().all(|it| it.leader_id >= 0)));
    drop(held);
    let answer = waiting.receive::<ProduceRequest>(9).await.expect("an answer");
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!((partition.error_code, partition.base_offset), (0, 1));
    while other.fetch("words", 0, 0).await != ["early", "held", "unflushed"] {}
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_waits_for_a_sync_does_not_keep_the_request_in_memory() {
    let disk = SimDisk::new();
    let (broker, _, mut other) = start(&disk).await;
    other.create_topic("words", 1).await;
    let held = disk.hold_syncs("words-0/");
    let mut connection = broker.connect_in_process();
    // Smaller batches are kept for consumers at the tail.
    let request = produce_request("words", 0, -1, batch(&[&"x".repeat(300_000)]));
    let segments =
        frame::encode_request(1, Some(&Str::from("large")), &request, 9).expect("encodes");
    let sent = Bytes::from(segments.concat());
    connection.requests.send(vec![sent.clone()]).await.expect("the broker listens");
    held.wait_for(1);
    let freed = async {
        while !sent.is_unique() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), freed).await.expect("the request is let go of");
    assert!(connection.responses.try_recv().is_err(), "nothing is durable yet");
    drop(held);
    connection.responses.recv().await.expect("an answer");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_does_not_stop_the_other_one() {
    /// More than there are threads for one disk's flushes.
    const PARTITIONS: i32 = 24;
    let disk = SimDisk::new();
    let (broker, mut waiting, mut other) = start(&disk).await;
    other.create_topic("words", PARTITIONS).await;
    let held = disk.hold_syncs("/data/second/words");
    let mut sent = Vec::new();
    for partition in 0..PARTITIONS {
        waiting.send(&produce_request("words", partition, -1, batch(&["x"])), 9).await;
        sent.push(partition);
    }
    held.wait_for(1);
    // Every partition of the first directory gets on, however many of the second hang.
    let first: Vec<i32> = (0..PARTITIONS)
        .filter(|partition| disk_has(&disk, &format!("/data/first/words-{partition}")))
        .collect();
    assert!((4..PARTITIONS as usize - 4).contains(&first.len()), "{first:?}");
    for partition in first {
        assert_eq!(other.produce("words", partition, &["quick"]).await.error_code, 0);
    }
    drop(held);
    for _ in sent {
        let answer = waiting.receive::<ProduceRequest>(9).await.expect("an answer");
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    broker.shutdown().await;
}

fn disk_has(disk: &SimDisk, path: &str) -> bool {
    use fleuve_os::Disk as _;
    disk.exists(Path::new(path)).expect("the disk answers")
}

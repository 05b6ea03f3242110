//! A broker with several data directories: partitions move between them, and one may fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleuve_broker::{Broker, Components};
use fleuve_protocol::messages::alter_replica_log_dirs_request as alter;
use fleuve_protocol::messages::delete_records_request as deletion;
use fleuve_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use fleuve_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use fleuve_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult,
};
use fleuve_protocol::messages::describe_producers_request as producers;
use fleuve_protocol::messages::list_offsets_request as offsets;
use fleuve_protocol::messages::metadata_request::MetadataRequest;
use fleuve_protocol::messages::offset_for_leader_epoch_request as epochs;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_sim::{Effect, Fault, Operation, SimDisk};
use tempfile::TempDir;

use crate::support::{TestBroker, TestClient, fetch_request, settings};

async fn describe(client: &mut TestClient) -> Vec<DescribeLogDirsResult> {
    client.call(&DescribeLogDirsRequest { topics: None }, 5).await.results
}

/// Where partition 0 of "words" lies, copies included.
async fn places(client: &mut TestClient) -> Vec<(String, DescribeLogDirsPartition)> {
    let mut places = Vec::new();
    for directory in describe(client).await {
        for topic in directory.topics {
            let found = topic.partitions.into_iter().filter(|p| p.partition_index == 0);
            places.extend(found.map(|partition| (directory.log_dir.to_string(), partition)));
        }
    }
    places
}

async fn move_to(client: &mut TestClient, directory: &str) -> i16 {
    move_topic_to(client, "words", directory).await
}

async fn move_topic_to(client: &mut TestClient, topic: &str, directory: &str) -> i16 {
    let request = alter::AlterReplicaLogDirsRequest {
        dirs: vec![alter::AlterReplicaLogDir {
            path: Str::copy_from(directory),
            topics: vec![alter::AlterReplicaLogDirTopic {
                name: Str::copy_from(topic),
                partitions: vec![0],
            }],
        }],
    };
    client.call(&request, 2).await.results[0].partitions[0].error_code
}

async fn await_move(client: &mut TestClient, directory: &str) {
    loop {
        let found = places(client).await;
        let is_there = found.len() == 1 && found[0].0 == directory;
        if is_there {
            assert!(!found[0].1.is_future_key && found[0].1.partition_size > 0);
            return;
        }
    }
}

async fn count(client: &mut TestClient) -> usize {
    let mut count = 0;
    loop {
        let found = client.fetch("words", 0, count as i64).await.len();
        if found == 0 {
            return count;
        }
        count += found;
    }
}

fn two_directories(root: &Path) -> [String; 2] {
    ["first", "second"].map(|name| root.join(name).to_str().expect("UTF-8").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moves_while_it_is_written_and_read() {
    let root = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let directories = two_directories(root.path());
    let listed = directories.join(",");
    let keys = [("log.dirs", listed.as_str()), ("log.segment.bytes", "1048576")];
    let broker = TestBroker::start_in(Arc::clone(&root), &keys).await;
    let mut client = broker.connect().await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(move_to(&mut client, &directories[1]).await, unknown);
    let refused = move_topic_to(&mut client, &"w".repeat(249), "/nowhere").await;
    assert_eq!(refused, ErrorCode::InvalidTopicException.code(), "before all else");
    client.create_topic("words", 2).await;
    let found = places(&mut client).await;
    assert_eq!(found[0].0, directories[1], "what was asked for before it was created");
    let large = "x".repeat(200_000);
    let mut sent = 0;
    for _ in 0..20 {
        assert_eq!(client.produce("words", 0, &[large.as_str()]).await.error_code, 0);
        sent += 1;
    }
    let refused = move_to(&mut client, "/nowhere").await;
    assert_eq!(refused, ErrorCode::LogDirNotFound.code());
    for directory in [&directories[0], &directories[1], &directories[0]] {
        assert_eq!(move_to(&mut client, directory).await, 0);
        assert_eq!(client.produce("words", 0, &["meanwhile"]).await.base_offset, sent);
        sent += 1;
        await_move(&mut client, directory).await;
    }
    assert_eq!(count(&mut client).await as i64, sent);
    drop(client);
    broker.stop().await;
    let broker = TestBroker::start_in(Arc::clone(&root), &keys).await;
    let mut client = broker.connect().await;
    assert_eq!(places(&mut client).await[0].0, directories[0]);
    assert_eq!(count(&mut client).await as i64, sent);
    let room = describe(&mut client).await;
    assert!(room.iter().all(|it| it.usable_bytes > 0 && it.total_bytes >= it.usable_bytes));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_goes_on_after_a_restart() {
    const RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";
    let root = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let directories = two_directories(root.path());
    let listed = directories.join(",");
    let keys = [("log.dirs", listed.as_str()), (RATE, "100000")];
    let broker = TestBroker::start_in(Arc::clone(&root), &keys).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    let from = places(&mut client).await[0].0.clone();
    let to = directories.iter().find(|directory| **directory != from).expect("the other one");
    let large = "x".repeat(500_000);
    for _ in 0..8 {
        assert_eq!(client.produce("words", 0, &[large.as_str()]).await.error_code, 0);
    }
    assert_eq!(move_to(&mut client, to).await, 0);
    let copying = loop {
        let mut copies = places(&mut client).await.into_iter().filter(|(_, p)| p.is_future_key);
        if let Some((place, copy)) = copies.next().filter(|(_, copy)| copy.partition_size > 0) {
            break (place, copy);
        }
    };
    assert_eq!(&copying.0, to);
    assert!(copying.1.offset_lag > 0);
    drop(client);
    broker.stop().await;
    let broker = TestBroker::start_in(Arc::clone(&root), &keys[..1]).await;
    let mut client = broker.connect().await;
    await_move(&mut client, to).await;
    assert_eq!(count(&mut client).await, 8);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cordoned_directories_take_no_new_partitions() {
    let root = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let directories = two_directories(root.path());
    let listed = directories.join(",");
    let keys = [("log.dirs", listed.as_str()), ("cordoned.log.dirs", directories[0].as_str())];
    let broker = TestBroker::start_in(root, &keys).await;
    let mut client = broker.connect().await;
    let cordoned = ErrorCode::InvalidReplicaAssignment.code();
    assert_eq!(move_to(&mut client, &directories[0]).await, cordoned);
    client.create_topic("words", 3).await;
    assert_eq!(move_to(&mut client, &directories[0]).await, cordoned);
    for directory in describe(&mut client).await {
        let is_first = *directory.log_dir == *directories[0];
        assert_eq!(directory.is_cordoned, is_first);
        assert_eq!(directory.topics.is_empty(), is_first);
    }
    broker.stop().await;
}

/// The directories in `root` whose names begin so.
fn directories_of(root: &Path, beginning: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).expect("it is a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(beginning)))
        .collect()
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("it can be made");
    for entry in std::fs::read_dir(from).expect("it is a directory") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("it is a file");
    }
}

/// Starts and stops a broker twice, and returns what is left of partition 0 of "words".
async fn strays_after_two_starts(root: &Arc<TempDir>) -> Vec<PathBuf> {
    for _ in 0..2 {
        TestBroker::start_in(Arc::clone(root), &[]).await.stop().await;
    }
    let mut left = directories_of(root.path(), "words-0.");
    left.retain(|path| {
        path.join("00000000000000000000.log").metadata().is_ok_and(|it| it.len() > 0)
    });
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_restored_metadata_does_not_know_is_set_aside() {
    let root = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let metadata = root.path().join("__cluster_metadata-0");
    let backup = tempfile::tempdir().expect("a temporary directory");
    TestBroker::start_in(Arc::clone(&root), &[]).await.stop().await;
    copy_directory(&metadata, backup.path());
    let broker = TestBroker::start_in(Arc::clone(&root), &[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    assert_eq!(client.produce("words", 0, &["precious"]).await.error_code, 0);
    drop(client);
    broker.stop().await;
    std::fs::remove_dir_all(&metadata).expect("it is there");
    copy_directory(backup.path(), &metadata);
    let strays = strays_after_two_starts(&root).await;
    assert!(strays.len() == 1 && strays[0].to_string_lossy().ends_with("-stray"), "{strays:?}");
    assert!(!root.path().join("words-0").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_another_topic_of_the_same_name_is_set_aside() {
    let root = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let metadata = root.path().join("__cluster_metadata-0");
    let backup = tempfile::tempdir().expect("a temporary directory");
    let broker = TestBroker::start_in(Arc::clone(&root), &[]).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    drop(client);
    broker.stop().await;
    copy_directory(&metadata, backup.path());
    let broker = TestBroker::start_in(Arc::clone(&root), &[]).await;
    let mut client = broker.connect().await;
    let name = Str::from("words");
    let request = DeleteTopicsRequest { topic_names: vec![name], ..Default::default() };
    assert_eq!(client.call(&request, 5).await.responses[0].error_code, 0);
    client.create_topic("words", 1).await;
    assert_eq!(client.produce("words", 0, &["precious"]).await.error_code, 0);
    drop(client);
    broker.stop().await;
    std::fs::remove_dir_all(&metadata).expect("it is there");
    copy_directory(backup.path(), &metadata);
    let strays = strays_after_two_starts(&root).await;
    assert!(strays.len() == 1 && strays[0].to_string_lossy().ends_with("-stray"), "{strays:?}");
    assert!(root.path().join("words-0").is_dir(), "the topic begins anew");
}

/// A directory may have been away when its topic was deleted and made again.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_topic_stays_beside_a_longer_one_of_an_earlier_topic() {
    let root = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let away = tempfile::tempdir().expect("a temporary directory");
    let [first, second] = two_directories(root.path());
    let dirs = format!("{first},{second}");
    let settings = [("log.dirs", dirs.as_str())];
    let broker = TestBroker::start_in(Arc::clone(&root), &settings).await;
    let mut client = broker.connect().await;
    client.create_topic("words", 1).await;
    for value in ["a", "b", "c"] {
        assert_eq!(client.produce("words", 0, &[value]).await.error_code, 0);
    }
    drop(client);
    broker.stop().await;
    let old = [&first, &second].map(|root| Path::new(root).join("words-0"));
    let old = old.iter().find(|path| path.exists()).expect("in one of them");
    copy_directory(old, away.path());
    let broker = TestBroker::start_in(Arc::clone(&root), &settings).await;
    let mut client = broker.connect().await;
    let request =
        DeleteTopicsRequest { topic_names: vec![Str::from("words")], ..Default::default() };
    assert_eq!(client.call(&request, 5).await.responses[0].error_code, 0);
    client.create_topic("words", 1).await;
    assert_eq!(client.produce("words", 0, &["precious"]).await.error_code, 0);
    drop(client);
    broker.stop().await;
    let [in_first, in_second] = [&first, &second].map(|root| Path::new(root).join("words-0"));
    let free = if in_first.exists() { &in_second } else { &in_first };
    copy_directory(away.path(), free);
    let broker = TestBroker::start_in(Arc::clone(&root), &settings).await;
    let mut client = broker.connect().await;
    assert_eq!(count(&mut client).await, 1, "the living topic has its record");
    drop(client);
    broker.stop().await;
    let strays = [&first, &second].map(|root| directories_of(Path::new(root), "words-0."));
    let is_stray = |path: &PathBuf| path.to_string_lossy().ends_with("-stray");
    assert_eq!(strays.iter().flatten().filter(|path| is_stray(path)).count(), 1, "{strays:?}");
}

async fn start_on(disk: &SimDisk) -> (Broker, TestClient) {
    let components = Components { disk: Arc::new(disk.clone()), ..Components::default() };
    let keys = [("log.dirs", "/data/first,/data/second")];
    let broker = Broker::start(settings(Path::new("/data"), &keys), components).await;
    let broker = broker.expect("the broker starts");
    let client = TestClient::connect(broker.listeners()[0].address).await;
    (broker, client)
}

/// What is answered about a partition by those who look into its log for other things than records.
async fn answers_about(client: &mut TestClient, partition: i32) -> [i16; 4] {
    let name = Str::from("words");
    let wanted = epochs::OffsetForLeaderPartition {
        partition,
        current_leader_epoch: -1,
        ..Default::default()
    };
    let topic = epochs::OffsetForLeaderTopic { topic: name.clone(), partitions: vec![wanted] };
    let request = epochs::OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() };
    let ended = client.call(&request, 4).await.topics[0].partitions[0].error_code;

    let mut request = fetch_request("words", partition, 1);
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let fetched = client.call(&request, 12).await.responses[0].partitions[0].error_code;

    let wanted = deletion::DeleteRecordsPartition { partition_index: partition, offset: 1 };
    let topic = deletion::DeleteRecordsTopic { name: name.clone(), partitions: vec![wanted] };
    let request = deletion::DeleteRecordsRequest { topics: vec![topic], ..Default::default() };
    let deleted = client.call(&request, 2).await.topics[0].partitions[0].error_code;

    let topic = producers::TopicRequest { name, partition_indexes: vec![partition] };
    let request = producers::DescribeProducersRequest { topics: vec![topic] };
    let described = client.call(&request, 0).await.topics[0].partitions[0].error_code;
    [ended, fetched, deleted, described]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_directory_takes_its_partitions_offline_and_no_others() {
    let disk = SimDisk::new();
    let (broker, mut client) = start_on(&disk).await;
    client.create_topic("words", 2).await;
    let lost = describe(&mut client).await.into_iter().find(|it| *it.log_dir == *"/data/second");
    let lost = lost.expect("both are described").topics[0].partitions[0].partition_index;
    let kept = 1 - lost;
    for partition in [lost, kept] {
        assert_eq!(client.produce("words", partition, &["safe"]).await.error_code, 0);
    }
    for operation in [Operation::Open, Operation::Write, Operation::Sync] {
        let fault = Fault::on(operation, Effect::InputOutputError).path("/data/second/");
        disk.inject(fault.always());
    }
    let failed = ErrorCode::KafkaStorageError.code();
    assert_eq!(client.produce("words", lost, &["x"]).await.error_code, failed);
    let metadata = MetadataRequest { topics: None, ..Default::default() };
    let (mut broker, mut client) = (broker, client);
    for new_topic in ["new", "later"] {
        // The broker looks at the directory soon after the first refusal.
        let partitions = loop {
            let mut topics = client.call(&metadata, 12).await.topics.into_iter();
            let words = topics.find(|topic| topic.name.as_deref() == Some("words"));
            let partitions = words.expect("it is there").partitions;
            if partitions.iter().any(|partition| partition.leader_id == -1) {
                break partitions;
            }
        };
        for partition in &partitions {
            let is_lost = partition.partition_index == lost;
            assert_eq!(partition.leader_id == -1, is_lost, "{partition:?}");
            assert_eq!(partition.offline_replicas.len(), usize::from(is_lost));
        }
        let fetched = client.call(&fetch_request("words", lost, 1), 12).await;
        assert_eq!(fetched.responses[0].partitions[0].error_code, failed);
        assert_eq!(answers_about(&mut client, lost).await, [failed; 4]);
        // So old a consumer does not know the code; with this one it asks again.
        let fetched = client.call(&fetch_request("words", lost, 1), 5).await;
        let code = fetched.responses[0].partitions[0].error_code;
        assert_eq!(code, ErrorCode::NotLeaderOrFollower.code());
        let request = offsets::ListOffsetsRequest {
            topics: vec![offsets::ListOffsetsTopic {
                name: Str::from("words"),
                partitions: vec![offsets::ListOffsetsPartition {
                    partition_index: lost,
                    timestamp: -1,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        let listed = client.call(&request, 7).await;
        assert_eq!(listed.topics[0].partitions[0].error_code, failed);
        assert_eq!(client.produce("words", lost, &["x"]).await.error_code, failed);
        assert_eq!(client.produce("words", kept, &["more"]).await.error_code, 0);
        let described = describe(&mut client).await;
        let codes: Vec<i16> = described.iter().map(|it| it.error_code).collect();
        assert_eq!(codes, [0, failed]);
        client.create_topic(new_topic, 2).await;
        // The next round finds the directory broken at the start.
        broker.shutdown().await;
        (broker, client) = start_on(&disk).await;
    }
    broker.shutdown().await;
    disk.clear_faults();
    let (broker, mut client) = start_on(&disk).await;
    assert_eq!(client.fetch("words", lost, 0).await, ["safe"]);
    assert_eq!(client.fetch("words", kept, 0).await, ["safe", "more", "more"]);
    broker.shutdown().await;
}

//! A broker on a disk that loses power, fails to sync, or is full.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleuve_broker::{Broker, Components};
use fleuve_os::{Disk, OpenMode};
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use fleuve_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup,
};
use fleuve_protocol::messages::produce_request::ProduceRequest;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_sim::{Crash, Effect, Fault, Operation, SimDisk};

use crate::support::{TestClient, batch, produce_request, settings};

async fn start(disk: &SimDisk) -> (Broker, TestClient) {
    let components = Components { disk: Arc::new(disk.clone()), ..Components::default() };
    let broker = Broker::start(settings(Path::new("/data"), &[]), components).await;
    let broker = broker.expect("the broker starts");
    let client = TestClient::connect(broker.listeners()[0].address).await;
    (broker, client)
}

async fn read_all(client: &mut TestClient) -> Vec<String> {
    let mut values = Vec::new();
    loop {
        let more = client.fetch("words", 0, values.len() as i64).await;
        if more.is_empty() {
            return values;
        }
        values.extend(more);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_every_power_failure() {
    const ROUNDS: u64 = 60;
    const SENT: usize = 30;
    let disk = SimDisk::new();
    let (mut broker, mut client) = start(&disk).await;
    client.create_topic("words", 1).await;
    let mut stored: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let sent: Vec<String> = (0..SENT).map(|index| format!("{round}/{index}")).collect();
        for value in &sent {
            client.send(&produce_request("words", 0, -1, batch(&[value.as_str()])), 9).await;
        }
        // The power fails when some are acknowledged and others on their way.
        let acknowledged = (round as usize * 7) % SENT;
        for index in 0..acknowledged {
            let response = client.receive::<ProduceRequest>(9).await.expect("an answer");
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(partition.error_code, 0);
            assert_eq!(partition.base_offset, (stored.len() + index) as i64);
        }
        disk.crash(match round % 3 {
            0 => Crash::LoseUnsynced,
            1 => Crash::KeepRandom { seed: round },
            _ => Crash::KeepAll,
        });
        drop(broker);
        (broker, client) = start(&disk).await;
        let found = read_all(&mut client).await;
        let survived = found.len() - stored.len();
        assert!(survived >= acknowledged, "round {round}: {survived} of {acknowledged} are left");
        stored.extend_from_slice(&sent[..survived]);
        assert_eq!(found, stored, "round {round}");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_not_acknowledged_and_ends_the_partition_alone() {
    let disk = SimDisk::new();
    let (broker, mut client) = start(&disk).await;
    client.create_topic("words", 2).await;
    assert_eq!(client.produce("words", 0, &["safe"]).await.error_code, 0);
    let fault = Fault::on(Operation::Sync, Effect::InputOutputError).path("words-0").always();
    disk.inject(fault);
    let failed = ErrorCode::KafkaStorageError.code();
    assert_eq!(client.produce("words", 0, &["lost"]).await.error_code, failed);
    disk.clear_faults();
    // A sync that would succeed now proves nothing about what was written before.
    assert_eq!(client.produce("words", 0, &["refused"]).await.error_code, failed);
    assert_eq!(client.fetch("words", 0, 0).await, ["safe"]);
    assert_eq!(client.produce("words", 1, &["other"]).await.error_code, 0);
    disk.crash(Crash::LoseUnsynced);
    drop(broker);
    let (broker, mut client) = start(&disk).await;
    assert_eq!(client.fetch("words", 0, 0).await, ["safe"]);
    assert_eq!(client.fetch("words", 1, 0).await, ["other"]);
    assert_eq!(client.produce("words", 0, &["again"]).await.base_offset, 1);
    broker.shutdown().await;
}

const RESERVE: u64 = 256 << 10;

async fn start_with_reserve(disk: &SimDisk) -> (Broker, TestClient) {
    let components = Components { disk: Arc::new(disk.clone()), ..Components::default() };
    let reserve = RESERVE.to_string();
    let keys = [
        ("fleuve.disk.reserve.bytes", reserve.as_str()),
        ("offsets.topic.num.partitions", "2"),
        ("transaction.state.log.num.partitions", "2"),
    ];
    let broker = Broker::start(settings(Path::new("/data"), &keys), components).await;
    let broker = broker.expect("the broker starts");
    let client = TestClient::connect(broker.listeners()[0].address).await;
    (broker, client)
}

/// Sends records of this size until one is refused; returns how many were taken, and the code.
async fn fill(client: &mut TestClient, size: usize) -> (usize, i16) {
    let value = "x".repeat(size);
    let mut accepted = 0;
    loop {
        match client.produce("words", 0, &[value.as_str()]).await.error_code {
            0 => accepted += 1,
            code => return (accepted, code),
        }
    }
}

async fn commit(client: &mut TestClient, offset: i64) -> i16 {
    let commit = OffsetCommitRequest {
        group_id: Str::from("readers"),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("words"),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    loop {
        let code = client.call(&commit, 9).await.topics[0].partitions[0].error_code;
        if code != ErrorCode::CoordinatorLoadInProgress.code() {
            return code;
        }
    }
}

async fn committed(client: &mut TestClient) -> i64 {
    let all = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: Str::from("readers"),
            topics: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    loop {
        let group = client.call(&all, 9).await.groups.remove(0);
        if group.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
            assert_eq!(group.error_code, 0);
            return group.topics[0].partitions[0].committed_offset;
        }
    }
}

/// Asks for the coordinator, whose topic comes into being by that.
async fn find_coordinator(client: &mut TestClient, key_type: i8, key: &'static str) {
    let find = FindCoordinatorRequest {
        key_type,
        coordinator_keys: vec![Str::from(key)],
        ..Default::default()
    };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
}

async fn initialise(client: &mut TestClient, id: &'static str) -> i16 {
    find_coordinator(client, 1, id).await;
    let init = InitProducerIdRequest {
        transactional_id: Some(Str::from(id)),
        transaction_timeout_ms: 10_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    loop {
        let code = client.call(&init, 4).await.error_code;
        if code != ErrorCode::CoordinatorLoadInProgress.code() {
            return code;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_clients_records_and_nothing_else() {
    let disk = SimDisk::new();
    disk.set_capacity(6 << 20);
    let (broker, mut client) = start_with_reserve(&disk).await;
    client.create_topic("words", 1).await;
    let full = ErrorCode::KafkaStorageError.code();
    let (mut accepted, code) = fill(&mut client, 100_000).await;
    assert_eq!(code, full);
    assert!((10..70).contains(&accepted), "{accepted} fitted");
    // What would fit into the reserve is refused as well: it is not for clients.
    assert_eq!(fill(&mut client, 10).await, (0, full));
    assert_eq!(client.fetch("words", 0, 0).await.len(), accepted.min(10));
    // The broker's own topics come into being, and take what belongs into them.
    find_coordinator(&mut client, 0, "readers").await;
    for offset in 1..200 {
        assert_eq!(commit(&mut client, offset).await, 0, "offset {offset}");
    }
    assert_eq!(initialise(&mut client, "writer").await, 0);
    client.create_topic("others", 1).await;
    assert_eq!(client.produce("others", 0, &["x"]).await.error_code, full);

    // A start on a full disk is a start like any other, after a clean end and without one.
    broker.shutdown().await;
    let (broker, mut client) = start_with_reserve(&disk).await;
    assert_eq!(fill(&mut client, 10).await, (0, full));
    assert_eq!(committed(&mut client).await, 199);
    assert_eq!(commit(&mut client, 200).await, 0);
    disk.crash(Crash::KeepAll);
    drop(broker);
    let (broker, mut client) = start_with_reserve(&disk).await;
    assert_eq!(fill(&mut client, 10).await, (0, full));
    assert_eq!(committed(&mut client).await, 200);
    assert_eq!(initialise(&mut client, "writer").await, 0);

    // Somebody makes room, and nobody restarts anything.
    disk.set_capacity(12 << 20);
    let answer = loop {
        let answer = client.produce("words", 0, &["small"]).await;
        if answer.error_code == 0 {
            break answer;
        }
        assert_eq!(answer.error_code, full);
    };
    assert_eq!(answer.base_offset, accepted as i64);
    accepted += 1;
    let (more, code) = fill(&mut client, 100_000).await;
    assert!(more > 30 && code == full, "{more} more, then {code}");
    accepted += more;
    let mut read = 0;
    while read < accepted {
        read += client.fetch("words", 0, read as i64).await.len();
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_leaves_the_reserve_to_the_broker() {
    let disk = SimDisk::new();
    disk.set_capacity(8 << 20);
    let (broker, mut client) = start_with_reserve(&disk).await;
    client.create_topic("words", 1).await;
    assert_eq!(client.produce("words", 0, &["early"]).await.error_code, 0);
    find_coordinator(&mut client, 0, "readers").await;
    // Not a byte is left, from one moment to the next.
    let (free, total) = (disk.free_space(Path::new("/")), disk.total_space(Path::new("/")));
    disk.set_capacity(total.expect("known") - free.expect("known"));
    assert_eq!(commit(&mut client, 1).await, 0);
    assert_eq!(committed(&mut client).await, 1);
    let full = ErrorCode::KafkaStorageError.code();
    assert_eq!(client.produce("words", 0, &["late"]).await.error_code, full);
    assert_eq!(client.fetch("words", 0, 0).await, ["early"]);
    broker.shutdown().await;
}

/// Where space is looked for only when pages are written back, a full disk refuses a sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_a_sync_is_waited_for_and_nothing_is_lost() {
    let disk = SimDisk::new();
    let (broker, mut client) = start(&disk).await;
    client.create_topic("words", 2).await;
    assert_eq!(client.produce("words", 0, &["early"]).await.error_code, 0);
    disk.inject(Fault::on(Operation::Sync, Effect::OutOfSpace).path("words-0").always());
    client.send(&produce_request("words", 0, -1, batch(&["waiting"])), 9).await;
    let failed = Path::new("/data/words-0/.fleuve-sync-failed");
    while disk.open(failed, OpenMode::Read).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    // Who comes later is refused at once, and who reads goes on.
    let mut other = TestClient::connect(broker.listeners()[0].address).await;
    let mut unsafely = Vec::new();
    let code = loop {
        let request = produce_request("words", 0, 1, batch(&["unsafe"]));
        let answer = other.call(&request, 9).await;
        match answer.responses[0].partition_responses[0].error_code {
            0 => unsafely.push("unsafe".to_owned()),
            code => break code,
        }
    };
    assert_eq!(code, ErrorCode::KafkaStorageError.code());
    assert_eq!(other.fetch("words", 0, 0).await, ["early"]);

    // There is space again, and nobody restarts anything.
    disk.clear_faults();
    let answer = client.receive::<ProduceRequest>(9).await.expect("an answer");
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!((partition.error_code, partition.base_offset), (0, 1));
    let last = loop {
        let answer = client.produce("words", 0, &["late"]).await;
        match answer.error_code {
            0 => break answer.base_offset,
            other => assert_eq!(other, code),
        }
    };
    assert_eq!(last, 2 + unsafely.len() as i64);
    disk.crash(Crash::LoseUnsynced);
    drop(broker);
    let (broker, mut client) = start(&disk).await;
    let mut expected = vec!["early".to_owned(), "waiting".to_owned()];
    expected.extend(unsafely);
    expected.push("late".to_owned());
    assert_eq!(read_all(&mut client).await, expected);
    broker.shutdown().await;
}

/// Those who wait for metadata and offsets to be durable wait on, and learn nothing that is undone.
#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_own_records_survive_a_disk_that_is_full_at_a_sync() {
    let disk = SimDisk::new();
    let (broker, mut client) = start_with_reserve(&disk).await;
    client.create_topic("words", 1).await;
    find_coordinator(&mut client, 0, "readers").await;
    assert_eq!(commit(&mut client, 1).await, 0);
    for path in ["__cluster_metadata", "__consumer_offsets"] {
        disk.inject(Fault::on(Operation::Sync, Effect::OutOfSpace).path(path).times(2));
    }
    client.create_topic("more", 1).await;
    assert_eq!(commit(&mut client, 2).await, 0);
    disk.crash(Crash::LoseUnsynced);
    drop(broker);
    let (broker, mut client) = start_with_reserve(&disk).await;
    assert_eq!(client.produce("more", 0, &["there"]).await.error_code, 0);
    assert_eq!(committed(&mut client).await, 2);
    broker.shutdown().await;
}

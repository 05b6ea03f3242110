//! A broker on a disk that loses power, fails to sync, or is full.

use std::path::Path;
use std::sync::Arc;

use fleuve_broker::{Broker, Components};
use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::produce_request::ProduceRequest;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_records_until_there_is_room() {
    let disk = SimDisk::new();
    let (broker, mut client) = start(&disk).await;
    client.create_topic("words", 1).await;
    let large = "x".repeat(100_000);
    disk.set_capacity(1_000_000);
    let mut accepted = 0;
    let refusal = loop {
        let answer = client.produce("words", 0, &[large.as_str()]).await;
        if answer.error_code != 0 {
            break answer;
        }
        accepted += 1;
    };
    assert_eq!(refusal.error_code, ErrorCode::KafkaStorageError.code());
    assert!((1..10).contains(&accepted), "{accepted} fitted");
    assert_eq!(client.fetch("words", 0, 0).await.len(), accepted);
    disk.set_capacity(1 << 30);
    let answer = client.produce("words", 0, &["small"]).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, accepted as i64));
    broker.shutdown().await;
}

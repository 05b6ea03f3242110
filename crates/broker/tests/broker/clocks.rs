//! A broker whose clock is set, forwards and backwards, while it works.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleuve_broker::{Broker, Components};
use fleuve_os::{Clock, SystemClock};
use fleuve_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_sim::{SimClock, SimDisk};

use crate::support::{TestClient, settings};

const HOUR_MS: i64 = 60 * 60 * 1000;

async fn start(disk: &SimDisk, clock: &SimClock) -> (Broker, TestClient) {
    let components = Components {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(clock.clone()),
        ..Components::default()
    };
    let keys = [
        ("offsets.topic.num.partitions", "1"),
        ("log.retention.ms", "7200000"),
        ("log.retention.check.interval.ms", "10"),
        ("log.initial.task.delay.ms", "0"),
        ("log.message.timestamp.type", "LogAppendTime"),
    ];
    let broker = Broker::start(settings(Path::new("/data"), &keys), components).await;
    let broker = broker.expect("the broker starts");
    let client = TestClient::connect(broker.listeners()[0].address).await;
    (broker, client)
}

async fn heartbeat(client: &mut TestClient, member: &Str, epoch: i32) -> (i16, i32) {
    let joining = epoch == 0;
    let request = ConsumerGroupHeartbeatRequest {
        group_id: Str::from("readers"),
        member_id: member.clone(),
        member_epoch: epoch,
        rebalance_timeout_ms: if joining { 10_000 } else { -1 },
        subscribed_topic_names: joining.then(|| vec![Str::from("words")]),
        topic_partitions: joining.then(Vec::new),
        ..Default::default()
    };
    loop {
        let answer = client.call(&request, 1).await;
        if answer.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
            return (answer.error_code, answer.member_epoch);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_harms_neither_records_nor_groups() {
    let disk = SimDisk::new();
    let clock = SimClock::at(SystemClock::new().wall_ms());
    let (broker, mut client) = start(&disk, &clock).await;
    client.create_topic("words", 1).await;
    let find = FindCoordinatorRequest {
        coordinator_keys: vec![Str::from("readers")],
        ..Default::default()
    };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
    let member = Str::from("BBBBBBBBQUKAAAAAAAAAAQ");
    let (code, epoch) = heartbeat(&mut client, &member, 0).await;
    assert_eq!(code, 0);
    let mut last = -1;
    // An hour ahead, two back, one ahead: nobody's session ends, offsets go on.
    for (number, jump) in [0, HOUR_MS, -2 * HOUR_MS, HOUR_MS].into_iter().enumerate() {
        clock.jump_wall_ms(jump);
        let answer = client.produce("words", 0, &["tick"]).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, number as i64));
        assert_ne!(answer.log_append_time_ms, last, "records have the time of their append");
        last = answer.log_append_time_ms;
        let (code, now) = heartbeat(&mut client, &member, epoch).await;
        assert_eq!((code, now), (0, epoch), "jump {jump}");
    }
    assert_eq!(client.fetch("words", 0, 0).await.len(), 4, "none is older than two hours");

    // A restart with the clock a day behind: what lies in the future stays, and is served.
    broker.shutdown().await;
    clock.jump_wall_ms(-24 * HOUR_MS);
    let (broker, mut client) = start(&disk, &clock).await;
    assert_eq!(client.fetch("words", 0, 0).await.len(), 4);
    assert_eq!(client.produce("words", 0, &["early"]).await.base_offset, 4);

    // Ahead again, and further than records are kept: now they are old, and go. Time that really
    // passes ends sessions; the restart has begun them anew.
    clock.jump_wall_ms(30 * HOUR_MS);
    clock.advance(Duration::from_millis(1));
    while client.call(&crate::support::fetch_request("words", 0, 0), 12).await.responses[0]
        .partitions[0]
        .error_code
        == 0
    {}
    assert_eq!(client.produce("words", 0, &["late"]).await.base_offset, 5);
    assert_eq!(client.fetch("words", 0, 5).await, ["late"]);
    broker.shutdown().await;
}

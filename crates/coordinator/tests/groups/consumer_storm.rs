//! A consumer group of a size that makes wasted work show.

use std::collections::BTreeMap;

use fleuve_coordinator::Response;
use fleuve_coordinator::consumer::{ConsumerHeartbeatRequest, ConsumerState};
use fleuve_protocol::Str;
use fleuve_types::Uuid;

use crate::driver::Driver;

const MEMBERS: usize = 500;
const PARTITIONS: i32 = 1_000;
const HEARTBEAT_INTERVAL_MS: i64 = 5_000;
/// Rounds in which every member sends one heartbeat.
const ROUNDS_MAX: usize = 5;

#[derive(Clone, Default)]
struct Member {
    epoch: i32,
    has: Vec<(Uuid, Vec<i32>)>,
}

fn beat(driver: &mut Driver, index: usize, member: &mut Member) {
    let is_joining = member.epoch == 0;
    let request = ConsumerHeartbeatRequest {
        group_id: "g".into(),
        member_id: format!("m{index:03}").into(),
        member_epoch: member.epoch,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: if is_joining { 300_000 } else { -1 },
        subscribed_topic_names: is_joining.then(|| vec![Str::from("t")]),
        subscribed_topic_regex: None,
        server_assignor: None,
        owned: Some(member.has.clone()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        may_lack_member_id: false,
        visible_topics: Default::default(),
    };
    driver.request(|shard, now, token| shard.handle_consumer_heartbeat(now, token, &request));
    let Some((_, _, Response::ConsumerHeartbeat(Ok(reply)))) = driver.answers.last() else {
        panic!("the heartbeat was refused: {:?}", driver.answers.last());
    };
    member.epoch = reply.member_epoch;
    if let Some(assignment) = &reply.assignment {
        member.has = assignment.clone();
    }
}

#[test]
fn five_hundred_members_settle_within_a_few_heartbeats() {
    let mut driver = Driver::new(Default::default());
    driver.change_topics(|topics| topics.put("t", PARTITIONS));
    let mut members = vec![Member::default(); MEMBERS];
    for (index, member) in members.iter_mut().enumerate() {
        beat(&mut driver, index, member);
    }
    let state = |driver: &Driver| {
        driver.shard.describe_consumer_group("g").expect("the group exists").state
    };
    let mut rounds = 0;
    while state(&driver) != ConsumerState::Stable {
        rounds += 1;
        assert!(rounds <= ROUNDS_MAX, "the group does not settle");
        driver.wait(HEARTBEAT_INTERVAL_MS);
        for (index, member) in members.iter_mut().enumerate() {
            beat(&mut driver, index, member);
        }
    }
    let mut owners = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let count: usize = member.has.iter().map(|(_, partitions)| partitions.len()).sum();
        assert_eq!(count, PARTITIONS as usize / MEMBERS);
        for partition in member.has.iter().flat_map(|(_, partitions)| partitions) {
            assert!(owners.insert(*partition, index).is_none(), "two owners");
        }
    }
    // A settled group's heartbeats write nothing.
    let written = driver.log.len();
    for (index, member) in members.iter_mut().enumerate() {
        beat(&mut driver, index, member);
    }
    assert_eq!(driver.log.len(), written);
}

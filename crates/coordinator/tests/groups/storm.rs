//! Groups of a size that makes wasted work show.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleuve_coordinator::classic::{
    HeartbeatRequest, JoinRequest, LeaveRequest, Leaver, Protocol, SyncRequest,
};
use fleuve_coordinator::{GroupSettings, Response, State, Token};
use fleuve_protocol::Str;

use crate::driver::Driver;
use crate::script::subscription;

const MEMBERS: usize = 500;

struct Storm {
    driver: Driver,
    members: Vec<(Str, i32)>,
    senders: BTreeMap<Token, usize>,
    heard: usize,
    synced: usize,
}

impl Storm {
    fn new(settings: GroupSettings) -> Self {
        Self {
            driver: Driver::new(settings),
            members: vec![(Str::EMPTY, -1); MEMBERS],
            senders: BTreeMap::new(),
            heard: 0,
            synced: 0,
        }
    }

    fn join(&mut self, index: usize) {
        let request = JoinRequest {
            group_id: "g".into(),
            member_id: self.members[index].0.clone(),
            group_instance_id: None,
            client_id: format!("c{index}").into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 300_000,
            protocol_type: "consumer".into(),
            protocols: vec![
                Protocol { name: "cooperative-sticky".into(), metadata: subscription("t") },
                Protocol { name: "range".into(), metadata: subscription("t") },
            ],
            reason: None,
            requires_member_id: true,
            can_skip_assignment: true,
        };
        let token =
            self.driver.request(|shard, now, token| shard.handle_join(now, token, &request));
        self.senders.insert(token, index);
        self.listen();
    }

    /// Everyone who was given a generation asks for its assignment, the leader last.
    fn sync_all(&mut self) {
        let leader = self.driver.shard.describe_group("g").expect("the group is there").leader;
        let leader = leader.expect("the group has a leader");
        let is_leader = |(id, _): &(Str, i32)| *id == leader;
        let position = self.members.iter().position(is_leader).expect("the leader is one of us");
        let order = (0..self.members.len()).filter(|index| *index != position).chain([position]);
        let assignments: Vec<(Str, Bytes)> =
            self.members.iter().map(|(id, _)| (id.clone(), Bytes::from_static(b"share"))).collect();
        for index in order {
            let (member_id, generation) = self.members[index].clone();
            let request = SyncRequest {
                group_id: "g".into(),
                generation,
                member_id,
                group_instance_id: None,
                protocol_type: Some("consumer".into()),
                protocol_name: None,
                assignments: if index == position { assignments.clone() } else { Vec::new() },
            };
            self.driver.request(|shard, now, token| shard.handle_sync(now, token, &request));
        }
        self.listen();
    }

    fn heartbeat_all(&mut self) {
        for (member_id, generation) in self.members.clone() {
            let request = HeartbeatRequest {
                group_id: "g".into(),
                generation,
                member_id,
                group_instance_id: None,
            };
            self.driver.request(|shard, now, token| shard.handle_heartbeat(now, token, &request));
        }
    }

    fn listen(&mut self) {
        for (_, token, response) in &self.driver.answers[self.heard..] {
            match response {
                Response::Join(Ok(joined)) => {
                    self.members[self.senders[token]] =
                        (joined.member_id.clone(), joined.generation);
                }
                Response::Join(Err(refusal)) => {
                    self.members[self.senders[token]].0 = refusal.member_id.clone();
                }
                Response::Sync(Ok(synced)) => {
                    assert_eq!(synced.assignment, Bytes::from_static(b"share"));
                    self.synced += 1;
                }
                _ => {}
            }
        }
        self.heard = self.driver.answers.len();
    }

    fn assert_settled(&self, generation: i32) {
        let group = self.driver.shard.describe_group("g").expect("the group is there");
        assert_eq!((group.state, group.generation), (State::Stable, generation));
        assert_eq!(group.members.len(), self.members.len());
        assert!(self.members.iter().all(|(_, theirs)| *theirs == generation));
        assert_eq!(self.driver.unanswered(), 0);
    }
}

#[test]
fn five_hundred_members_settle_in_one_generation() {
    let mut storm = Storm::new(GroupSettings::default());
    for _ in 0..2 {
        for index in 0..MEMBERS {
            storm.join(index);
            storm.driver.wait(1);
        }
    }
    storm.driver.wait(10_000);
    storm.listen();
    storm.sync_all();
    storm.assert_settled(1);
    assert_eq!(storm.synced, MEMBERS);

    // One leaves; all others hear of it and rejoin, in another order, over half a minute.
    let (gone, _) = storm.members.pop().expect("there are members");
    let leaver = Leaver { member_id: gone, group_instance_id: None, reason: None };
    let request = LeaveRequest { group_id: "g".into(), members: vec![leaver] };
    storm.driver.request(|shard, now, token| shard.handle_leave(now, token, &request));
    storm.heartbeat_all();
    for index in (0..storm.members.len()).rev() {
        storm.join(index);
        storm.driver.wait(60);
    }
    storm.sync_all();
    storm.assert_settled(2);
    storm.driver.wait(30_000);
    storm.heartbeat_all();
    storm.driver.wait(30_000);
    storm.assert_settled(2);

    // Both assignments, the first record of the group, and nothing else was written.
    assert_eq!(storm.driver.log.len(), 3);
    assert_eq!(storm.driver.replayed().ledger(), storm.driver.shard.ledger());
    assert_eq!(storm.driver.shard.counters().rebalances_completed, 2);

    // Then all fall silent.
    storm.driver.wait(60_000);
    let group = storm.driver.shard.describe_group("g");
    assert_eq!(group.map(|group| (group.state, group.members.len())), Ok((State::Empty, 0)));
    storm.driver.wait(600_000);
    assert!(storm.driver.shard.describe_group("g").is_err(), "an empty group without offsets");
}

#[test]
fn thousands_of_groups_expire_together() {
    const GROUPS: usize = 3_000;
    let settings = GroupSettings { initial_rebalance_delay_ms: 0, ..GroupSettings::default() };
    let mut driver = Driver::new(settings);
    let mut request = JoinRequest {
        group_id: Str::EMPTY,
        member_id: Str::EMPTY,
        group_instance_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "connect".into(),
        protocols: vec![Protocol { name: "default".into(), metadata: Bytes::new() }],
        reason: None,
        requires_member_id: false,
        can_skip_assignment: false,
    };
    for index in 0..GROUPS {
        request.group_id = format!("g{index}").into();
        driver.request(|shard, now, token| shard.handle_join(now, token, &request));
    }
    driver.wait(5);
    assert_eq!(driver.answers.len(), GROUPS);
    let count = |driver: &Driver, state| {
        let counts: BTreeMap<&str, usize> =
            driver.shard.groups_by_state().into_iter().map(|(s, n)| (s.name(), n)).collect();
        counts[State::name(state)]
    };
    assert_eq!(count(&driver, State::CompletingRebalance), GROUPS);
    driver.wait(30_000);
    assert_eq!(count(&driver, State::Empty), GROUPS);
    driver.wait(600_000);
    assert_eq!(count(&driver, State::Empty), 0);
    assert_eq!(driver.unanswered(), 0);
}

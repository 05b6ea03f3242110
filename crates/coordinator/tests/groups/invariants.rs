//! What must hold in every history, whatever clients, clocks and the log do.
//!
//! Random clients of two groups do random things, sensible or not; appends fail now and then, the
//! log becomes durable late, the shard is reloaded. After every event:
//! - no request is answered twice, and in the end every one is answered (the driver counts);
//! - generations do not go back as long as the group is there;
//! - nobody is in a group twice;
//! - a shard that reads the log has the same persistent state, and the same stable groups.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleuve_coordinator::classic::{
    HeartbeatRequest, JoinRequest, LeaveRequest, Leaver, Protocol, SyncRequest,
};
use fleuve_coordinator::offsets::{
    CommitPartition, CommitRequest, CommitTopic, DeleteRequest, DeletedTopic,
    TransactionalCommitRequest,
};
use fleuve_coordinator::transaction::Producer;
use fleuve_coordinator::{
    AppendError, Description, GroupCoordinator, GroupSettings, ListFilter, Response, State, Token,
};
use fleuve_protocol::Str;
use fleuve_types::{Offset, ProducerEpoch, ProducerId, Uuid};
use proptest::prelude::*;

use crate::driver::Driver;
use crate::script::subscription;

const GROUPS: [&str; 2] = ["g", "h"];
const CLIENTS: usize = 6;
/// Clients that are static members from the start.
const STATIC_CLIENTS: usize = 2;
const PROTOCOLS: [&str; 3] = ["range", "sticky", "cooperative"];

/// Longer than every timeout that the clients of this test ask for, taken together.
const ALL_TIMEOUTS_MS: i64 = 30 * 60 * 1_000;

/// Events between two comparisons with a shard that reads the whole log.
const REPLAY_EVERY: usize = 8;

#[derive(Clone, Debug)]
enum Event {
    /// All clients of a group behave: they join, wait, and synchronise.
    Settle {
        group: usize,
        is_old: bool,
    },
    Join {
        client: usize,
        is_old: bool,
        anew: bool,
        is_static: bool,
        protocols: u8,
        topics: bool,
    },
    /// A static member forgets its member id and joins again.
    Restart {
        client: usize,
        is_old: bool,
    },
    Sync {
        client: usize,
        old_generation: bool,
    },
    Heartbeat {
        client: usize,
    },
    Leave {
        client: usize,
        by_instance: bool,
    },
    Commit {
        client: usize,
        partition: i32,
        is_standalone: bool,
        retention_ms: Option<i64>,
    },
    TransactionalCommit {
        client: usize,
        partition: i32,
        is_standalone: bool,
        producer: i64,
    },
    EndTransaction {
        producer: i64,
        committed: bool,
    },
    DeleteOffsets {
        group: usize,
        partition: i32,
    },
    DeleteGroups,
    DeleteTopic,
    Wait {
        ms: i64,
    },
    MaxSize {
        size: usize,
    },
    Fail {
        error: AppendError,
    },
    Hold,
    Flush,
    Reload,
}

fn event() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS;
    let flag = || prop::bool::ANY;
    prop_oneof![
        6 => (0..GROUPS.len(), flag()).prop_map(|(group, is_old)| Event::Settle { group, is_old }),
        12 => (client.clone(), flag(), prop::bool::weighted(0.2), prop::bool::weighted(0.4), prop_oneof![3 => Just(7_u8), 1 => 1_u8..8], flag())
            .prop_map(|(client, is_old, anew, is_static, protocols, topics)| {
                Event::Join { client, is_old, anew, is_static, protocols, topics }
            }),
        10 => (client.clone(), prop::bool::weighted(0.1))
            .prop_map(|(client, old_generation)| Event::Sync { client, old_generation }),
        4 => (0..STATIC_CLIENTS, flag())
            .prop_map(|(client, is_old)| Event::Restart { client, is_old }),
        3 => client.clone().prop_map(|client| Event::Heartbeat { client }),
        2 => (client.clone(), flag())
            .prop_map(|(client, by_instance)| Event::Leave { client, by_instance }),
        4 => (client.clone(), 0..3, prop::bool::weighted(0.5), 0..3_i64)
            .prop_map(|(client, partition, is_standalone, producer)| {
                Event::TransactionalCommit { client, partition, is_standalone, producer }
            }),
        3 => (0..3_i64, flag())
            .prop_map(|(producer, committed)| Event::EndTransaction { producer, committed }),
        4 => (client, 0..3, prop::bool::weighted(0.3), prop::option::weighted(0.2, 0_i64..100_000))
            .prop_map(|(client, partition, is_standalone, retention_ms)| {
                Event::Commit { client, partition, is_standalone, retention_ms }
            }),
        1 => (0..GROUPS.len(), 0..3)
            .prop_map(|(group, partition)| Event::DeleteOffsets { group, partition }),
        1 => Just(Event::DeleteGroups),
        1 => Just(Event::DeleteTopic),
        8 => prop_oneof![1_i64..50, 50_i64..20_000, 600_000_i64..4_000_000]
            .prop_map(|ms| Event::Wait { ms }),
        1 => (1_usize..5).prop_map(|size| Event::MaxSize { size }),
        1 => prop_oneof![
            Just(AppendError::Unavailable),
            Just(AppendError::NotLeader),
            Just(AppendError::TooLarge),
        ]
        .prop_map(|error| Event::Fail { error }),
        1 => Just(Event::Hold),
        2 => Just(Event::Flush),
        1 => Just(Event::Reload),
    ]
}

#[derive(Clone, Debug, Default)]
struct Client {
    member_id: Str,
    instance_id: Option<Str>,
    generation: i32,
}

struct World {
    driver: Driver,
    clients: Vec<Client>,
    senders: BTreeMap<Token, usize>,
    heard: usize,
    generations: BTreeMap<Str, i32>,
}

impl World {
    fn new() -> Self {
        let settings = GroupSettings {
            initial_rebalance_delay_ms: 300,
            offsets_retention_ms: 3_600_000,
            ..GroupSettings::default()
        };
        Self {
            driver: Driver::new(settings),
            clients: (0..CLIENTS)
                .map(|client| Client {
                    instance_id: (client < STATIC_CLIENTS).then(|| instance_of(client)),
                    ..Client::default()
                })
                .collect(),
            senders: BTreeMap::new(),
            heard: 0,
            generations: BTreeMap::new(),
        }
    }

    fn run(&mut self, event: &Event) {
        match *event {
            Event::Settle { group, is_old } => self.settle(group, is_old),
            Event::Join { client, is_old, anew, is_static, protocols, topics } => {
                self.join(client, is_old, anew, is_static, protocols, topics);
            }
            Event::Restart { client, is_old } => {
                self.clients[client].member_id = Str::EMPTY;
                self.clients[client].instance_id = Some(instance_of(client));
                self.join(client, is_old, false, false, 7, true);
            }
            Event::Sync { client, old_generation } => self.sync(client, old_generation),
            Event::Heartbeat { client } => {
                let Client { member_id, instance_id, generation } = self.clients[client].clone();
                let request = HeartbeatRequest {
                    group_id: group_of(client),
                    generation,
                    member_id,
                    group_instance_id: instance_id,
                };
                self.driver
                    .request(|shard, now, token| shard.handle_heartbeat(now, token, &request));
            }
            Event::Leave { client, by_instance } => self.leave(client, by_instance),
            Event::Commit { client, partition, is_standalone, retention_ms } => {
                self.commit(client, partition, is_standalone, retention_ms);
            }
            Event::TransactionalCommit { client, partition, is_standalone, producer } => {
                let commit = self.commit_request(client, partition, is_standalone, None);
                let producer = Producer { id: ProducerId(producer), epoch: ProducerEpoch(0) };
                let request = TransactionalCommitRequest { producer, commit };
                self.driver.request(|shard, now, token| {
                    shard.handle_transactional_offset_commit(now, token, &request)
                });
            }
            Event::EndTransaction { producer, committed } => {
                self.driver.end_transaction(ProducerId(producer), committed);
            }
            Event::DeleteOffsets { group, partition } => {
                let topics = vec![("t".into(), vec![partition]), ("u".into(), vec![partition])];
                let request = DeleteRequest { group_id: GROUPS[group].into(), topics };
                self.driver.request(|shard, _, token| shard.handle_offset_delete(token, &request));
            }
            Event::DeleteGroups => {
                let groups = GROUPS.map(Str::from);
                self.driver.request(|shard, _, token| shard.handle_delete_groups(token, &groups));
            }
            Event::DeleteTopic => {
                let deleted = [DeletedTopic { name: "u".into(), topic_id: Uuid([1; 16]) }];
                let step = self.driver.shard.handle_topics_deleted(&deleted);
                self.driver.carry_out(step);
            }
            Event::Wait { ms } => self.driver.wait(ms),
            Event::MaxSize { size } => self.driver.set(|settings| settings.max_size = size),
            Event::Fail { error } => self.driver.failures.push_back(error),
            Event::Hold => {
                let end = Offset(self.driver.log.len() as i64);
                self.driver.high_watermark.get_or_insert(end);
            }
            Event::Flush => self.driver.flush(),
            Event::Reload => {
                self.driver.reload();
                self.generations.clear();
            }
        }
        self.listen();
    }

    fn settle(&mut self, group: usize, is_old: bool) {
        let all = (0..CLIENTS).filter(|client| group_of(*client) == GROUPS[group]);
        let all: Vec<usize> = all.collect();
        // One round gets them their member ids, another one into the group.
        for client in all.iter().chain(&all) {
            self.join(*client, is_old, false, false, 7, true);
            self.listen();
        }
        self.driver.wait(1_000);
        self.listen();
        for client in all {
            self.sync(client, false);
        }
    }

    fn join(
        &mut self,
        client: usize,
        is_old: bool,
        anew: bool,
        is_static: bool,
        protocols: u8,
        topics: bool,
    ) {
        let state = &mut self.clients[client];
        if anew {
            state.member_id = Str::EMPTY;
            state.instance_id = is_static.then(|| instance_of(client));
        }
        let metadata = subscription(if topics { "t" } else { "t+u" });
        let protocols = PROTOCOLS.iter().enumerate().filter(|(bit, _)| protocols & (1 << bit) != 0);
        let request = JoinRequest {
            group_id: group_of(client),
            member_id: state.member_id.clone(),
            group_instance_id: state.instance_id.clone(),
            client_id: format!("c{client}").into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 6_000 + 3_000 * client as i32,
            rebalance_timeout_ms: 20_000 * (client as i32 - 1),
            protocol_type: "consumer".into(),
            protocols: protocols
                .map(|(_, name)| Protocol { name: (*name).into(), metadata: metadata.clone() })
                .collect(),
            reason: None,
            requires_member_id: !is_old,
            can_skip_assignment: !is_old,
        };
        let token =
            self.driver.request(|shard, now, token| shard.handle_join(now, token, &request));
        self.senders.insert(token, client);
    }

    fn sync(&mut self, client: usize, old_generation: bool) {
        let Client { member_id, instance_id, generation } = self.clients[client].clone();
        let share = |(index, other): (usize, &Client)| {
            (other.member_id.clone(), Bytes::from(format!("{generation}/{index}")))
        };
        let request = SyncRequest {
            group_id: group_of(client),
            generation: generation - i32::from(old_generation),
            member_id,
            group_instance_id: instance_id,
            protocol_type: None,
            protocol_name: None,
            assignments: self.clients.iter().enumerate().map(share).collect(),
        };
        self.driver.request(|shard, now, token| shard.handle_sync(now, token, &request));
    }

    fn leave(&mut self, client: usize, by_instance: bool) {
        let Client { member_id, instance_id, .. } = self.clients[client].clone();
        let request = LeaveRequest {
            group_id: group_of(client),
            members: vec![Leaver {
                member_id: if by_instance { Str::EMPTY } else { member_id },
                group_instance_id: instance_id,
                reason: None,
            }],
        };
        self.driver.request(|shard, now, token| shard.handle_leave(now, token, &request));
    }

    fn commit(
        &mut self,
        client: usize,
        partition: i32,
        is_standalone: bool,
        retention_ms: Option<i64>,
    ) {
        let request = self.commit_request(client, partition, is_standalone, retention_ms);
        self.driver.request(|shard, now, token| shard.handle_offset_commit(now, token, &request));
    }

    fn commit_request(
        &self,
        client: usize,
        partition: i32,
        is_standalone: bool,
        retention_ms: Option<i64>,
    ) -> CommitRequest {
        let Client { member_id, instance_id, generation } = self.clients[client].clone();
        let topic = |name: &'static str, topic_id| CommitTopic {
            name: name.into(),
            topic_id,
            partitions: vec![CommitPartition {
                partition,
                offset: self.driver.now_ms,
                leader_epoch: -1,
                metadata: None,
            }],
        };
        CommitRequest {
            group_id: group_of(client),
            generation: if is_standalone { -1 } else { generation },
            member_id: if is_standalone { Str::EMPTY } else { member_id },
            group_instance_id: instance_id.filter(|_| !is_standalone),
            retention_ms,
            knows_group_id_not_found: true,
            // Only records without an expiry time of their own have room for topic ids.
            topics: vec![
                topic("t", Uuid::ZERO),
                topic(
                    "u",
                    match retention_ms {
                        Some(_) => Uuid::ZERO,
                        None => Uuid([1; 16]),
                    },
                ),
            ],
        }
    }

    /// Clients learn from the answers they got.
    fn listen(&mut self) {
        for (_, token, response) in &self.driver.answers[self.heard..] {
            let Some(client) = self.senders.get(token).map(|client| &mut self.clients[*client])
            else {
                continue;
            };
            match response {
                Response::Join(Ok(joined)) => {
                    client.member_id = joined.member_id.clone();
                    client.generation = joined.generation;
                }
                Response::Join(Err(refusal)) => client.member_id = refusal.member_id.clone(),
                _ => {}
            }
        }
        self.heard = self.driver.answers.len();
    }

    fn check(&mut self) {
        let groups = self.driver.shard.list_groups(&ListFilter::default());
        let ids: BTreeSet<Str> =
            groups.expect("the shard serves").into_iter().map(|group| group.group_id).collect();
        self.generations.retain(|id, _| ids.contains(id));
        for id in ids {
            let group = describe(&self.driver.shard, &id);
            let before = self.generations.insert(id, group.generation);
            assert!(before.is_none_or(|before| before <= group.generation), "generation went back");
            let instances: Vec<&Str> = group
                .members
                .iter()
                .filter_map(|member| member.group_instance_id.as_ref())
                .collect();
            let distinct: BTreeSet<&Str> = instances.iter().copied().collect();
            assert_eq!(instances.len(), distinct.len(), "an instance is in the group twice");
            assert!(
                group.leader.as_ref().is_none_or(|leader| {
                    group.members.iter().any(|member| member.member_id == *leader)
                }),
                "the leader is not a member",
            );
            assert_eq!(group.leader.is_none(), group.members.is_empty());
        }
    }

    fn check_replay(&self) {
        let mut replayed = self.driver.replayed();
        assert_eq!(replayed.ledger(), self.driver.shard.ledger());
        let _ = replayed.handle_loaded(self.driver.now());
        let live = &self.driver.shard;
        for id in GROUPS {
            let Ok(group) = live.describe_group(id) else {
                assert!(replayed.describe_group(id).is_err(), "{id} came back from the dead");
                continue;
            };
            // A group over a lowered limit begins to rebalance when it is loaded.
            let loaded = describe(&replayed, id);
            if group.state == State::Stable && loaded.state == State::Stable {
                assert_eq!(without_soft_state(group), without_soft_state(loaded));
            }
        }
    }
}

/// Clients 0 and 3 have the same one, by mistake.
fn instance_of(client: usize) -> Str {
    format!("i{}", client % 3).into()
}

fn group_of(client: usize) -> Str {
    GROUPS[usize::from(client >= CLIENTS - 2)].into()
}

fn describe(shard: &GroupCoordinator, id: &str) -> Description {
    shard.describe_group(id).expect("the group is there")
}

/// What the log does not tell of a stable group.
fn without_soft_state(group: Description) -> Description {
    Description {
        state_since: None,
        supported_protocols: BTreeMap::new(),
        rebalances: Vec::new(),
        ..group
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn hold_in_random_histories(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for (index, event) in events.iter().enumerate() {
            world.run(event);
            world.check();
            if index % REPLAY_EVERY == 0 {
                world.check_replay();
            }
        }
        world.check_replay();

        // Whoever still waits is answered when all time is up, at the latest.
        world.driver.failures.clear();
        world.driver.flush();
        world.driver.wait(ALL_TIMEOUTS_MS);
        world.check_replay();
        prop_assert_eq!(world.driver.unanswered(), 0);
    }
}

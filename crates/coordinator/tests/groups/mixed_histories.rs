//! Random histories of groups whose members use the classic and the consumer protocol side by
//! side, so that the group changes its protocol again and again: no partition has two owners, a
//! replayed log gives the same state, and a group that is left alone settles.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleuve_coordinator::classic::{
    HeartbeatRequest, JoinRequest, Joined, LeaveRequest, Leaver, Protocol, State, SyncRequest,
};
use fleuve_coordinator::consumer::{ConsumerHeartbeatRequest, ConsumerState};
use fleuve_coordinator::{AppendError, GroupError, MigrationPolicy, Response, Token};
use fleuve_protocol::messages::consumer_protocol_assignment::ConsumerProtocolAssignment;
use fleuve_protocol::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use fleuve_protocol::{Message, Reader, Str};
use fleuve_types::Uuid;
use proptest::prelude::*;

use crate::driver::Driver;
use crate::script::{assignment, subscription};

const CLIENTS: usize = 5;
/// The last clients are static members.
const STATIC_FROM: usize = 3;
const TOPICS: [&str; 2] = ["t", "u"];
const GROUP: &str = "g";
const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 20_000;

#[derive(Clone, Copy, Debug)]
enum Event {
    Start {
        client: usize,
        is_classic: bool,
        topics: &'static str,
    },
    Beat {
        client: usize,
    },
    Leave {
        client: usize,
    },
    /// The process dies; the member stays until its session ends.
    Die {
        client: usize,
    },
    Wait {
        ms: i64,
    },
    Grow {
        topic: usize,
        partitions: i32,
    },
    Policy(MigrationPolicy),
    Reload,
    Fail,
}

/// A member as its own process sees it.
#[derive(Debug, Default)]
struct Client {
    incarnation: u32,
    is_running: bool,
    is_classic: bool,
    topics: &'static str,
    member_id: Str,
    /// Epoch or generation.
    epoch: i32,
    has: BTreeSet<(Uuid, i32)>,
    /// Whether it has to join before anything else.
    must_join: bool,
    /// A classic request that has no answer yet.
    awaits: Option<Token>,
    last_answer_ms: i64,
}

struct Histories {
    driver: Driver,
    clients: Vec<Client>,
    /// Who sent what in which incarnation.
    senders: BTreeMap<Token, (usize, u32)>,
    heard: usize,
    last_epoch: i32,
}

fn event() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS;
    let topics = prop_oneof![Just("t"), Just("u"), Just("t+u")];
    let policy = prop_oneof![
        3 => Just(MigrationPolicy::Bidirectional),
        1 => Just(MigrationPolicy::Upgrade),
        1 => Just(MigrationPolicy::Downgrade),
        1 => Just(MigrationPolicy::Disabled),
    ];
    prop_oneof![
        4 => (client.clone(), any::<bool>(), topics).prop_map(|(client, is_classic, topics)|
            Event::Start { client, is_classic, topics }),
        12 => client.clone().prop_map(|client| Event::Beat { client }),
        2 => client.clone().prop_map(|client| Event::Leave { client }),
        1 => client.prop_map(|client| Event::Die { client }),
        2 => (1..30_000i64).prop_map(|ms| Event::Wait { ms }),
        1 => (0..TOPICS.len(), 1..8i32)
            .prop_map(|(topic, partitions)| Event::Grow { topic, partitions }),
        1 => policy.prop_map(Event::Policy),
        1 => Just(Event::Reload),
        1 => Just(Event::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn groups_that_change_their_protocol_keep_their_promises(
        events in proptest::collection::vec(event(), 1..150),
    ) {
        let mut histories = Histories::new();
        for event in events {
            histories.run(event);
            histories.check();
        }
        histories.settle();
    }
}

impl Histories {
    fn new() -> Self {
        let mut driver = Driver::new(Default::default());
        driver.set(|settings| settings.initial_rebalance_delay_ms = 0);
        driver.change_topics(|topics| {
            topics.put("t", 4);
            topics.put("u", 3);
        });
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        Self { driver, clients, senders: BTreeMap::new(), heard: 0, last_epoch: 0 }
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Start { client, is_classic, topics } if !self.clients[client].is_running => {
                let incarnation = self.clients[client].incarnation + 1;
                let member_id = match is_classic {
                    true => Str::EMPTY,
                    false => format!("m{client}-{incarnation}").into(),
                };
                self.clients[client] = Client {
                    incarnation,
                    is_running: true,
                    is_classic,
                    topics,
                    member_id,
                    must_join: true,
                    last_answer_ms: self.driver.now_ms,
                    ..Client::default()
                };
                self.beat(client);
            }
            Event::Beat { client } => self.beat(client),
            Event::Leave { client } => self.leave(client),
            Event::Die { client } => self.clients[client].stop(),
            Event::Wait { ms } => self.driver.wait(ms),
            Event::Grow { topic, partitions } => {
                self.driver.change_topics(|topics| topics.put(TOPICS[topic], partitions));
            }
            Event::Policy(policy) => {
                self.driver.set(|settings| settings.consumer.migration = policy);
            }
            Event::Reload => {
                self.driver.reload();
                // A generation is in the log only once it has its assignment.
                self.last_epoch = 0;
            }
            Event::Fail => self.driver.failures.push_back(AppendError::Unavailable),
            Event::Start { .. } => {}
        }
        self.listen();
        // A process that hears nothing for a session gives up, before others get what it has.
        let now_ms = self.driver.now_ms;
        for client in &mut self.clients {
            if now_ms - client.last_answer_ms >= i64::from(SESSION_TIMEOUT_MS) {
                client.stop();
            }
        }
    }

    fn instance_id(client: usize) -> Option<Str> {
        (client >= STATIC_FROM).then(|| format!("i{client}").into())
    }

    /// Sends what a client sends next.
    fn beat(&mut self, client: usize) {
        let state = &self.clients[client];
        if !state.is_running || state.awaits.is_some() {
            return;
        }
        match (state.is_classic, state.must_join) {
            (true, true) => self.join(client),
            (true, false) => {
                let request = HeartbeatRequest {
                    group_id: GROUP.into(),
                    generation: state.epoch,
                    member_id: state.member_id.clone(),
                    group_instance_id: Self::instance_id(client),
                };
                self.send(client, |driver| {
                    driver.request(|shard, now, token| shard.handle_heartbeat(now, token, &request))
                });
            }
            (false, must_join) => {
                self.consumer_beat(client, if must_join { 0 } else { state.epoch })
            }
        }
    }

    fn consumer_beat(&mut self, client: usize, epoch: i32) {
        let state = &mut self.clients[client];
        if epoch == 0 {
            state.has.clear();
        }
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &state.has {
            owned.entry(*topic).or_default().push(*partition);
        }
        let joins = epoch == 0;
        let request = ConsumerHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: state.member_id.clone(),
            member_epoch: epoch,
            instance_id: Self::instance_id(client),
            rack_id: None,
            rebalance_timeout_ms: if joins { REBALANCE_TIMEOUT_MS } else { -1 },
            subscribed_topic_names: joins
                .then(|| state.topics.split('+').map(Str::copy_from).collect()),
            subscribed_topic_regex: None,
            server_assignor: None,
            owned: Some(owned.into_iter().collect()),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            may_lack_member_id: false,
            visible_topics: Default::default(),
        };
        self.send(client, |driver| {
            driver
                .request(|shard, now, token| shard.handle_consumer_heartbeat(now, token, &request))
        });
    }

    /// A classic client gives up everything and joins.
    fn join(&mut self, client: usize) {
        let state = &mut self.clients[client];
        state.has.clear();
        let metadata = subscription(state.topics);
        let request = JoinRequest {
            group_id: GROUP.into(),
            member_id: state.member_id.clone(),
            group_instance_id: Self::instance_id(client),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata }],
            reason: None,
            requires_member_id: false,
            can_skip_assignment: false,
        };
        self.send(client, |driver| {
            driver.request(|shard, now, token| shard.handle_join(now, token, &request))
        });
    }

    fn sync(&mut self, client: usize, joined: &Joined) {
        let request = SyncRequest {
            group_id: GROUP.into(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            group_instance_id: Self::instance_id(client),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: self.assign(joined),
        };
        self.send(client, |driver| {
            driver.request(|shard, now, token| shard.handle_sync(now, token, &request))
        });
    }

    /// What a leader gives to the members it was told of: partitions in turn.
    fn assign(&self, joined: &Joined) -> Vec<(Str, Bytes)> {
        let wants = |metadata: &Bytes| {
            let mut reader = Reader::new(metadata.clone());
            reader.read_i16("version").expect("a subscription has a version");
            ConsumerProtocolSubscription::decode(&mut reader, 1).expect("a subscription").topics
        };
        let mut given = vec![BTreeMap::<&str, Vec<String>>::new(); joined.members.len()];
        for topic in TOPICS {
            let takers: Vec<usize> = (0..joined.members.len())
                .filter(|index| {
                    wants(&joined.members[*index].metadata).iter().any(|t| *t == *topic)
                })
                .collect();
            for (index, (_, partition)) in
                self.driver.topics.partitions(topic).into_iter().enumerate()
            {
                if let Some(taker) = takers.get(index % takers.len().max(1)) {
                    given[*taker].entry(topic).or_default().push(partition.to_string());
                }
            }
        }
        let written = given.into_iter().map(|topics| {
            let each = topics.iter().map(|(topic, all)| format!("{topic}:{}", all.join("+")));
            assignment(&format!("@{}", each.collect::<Vec<_>>().join(",")))
        });
        joined.members.iter().map(|member| member.member_id.clone()).zip(written).collect()
    }

    fn leave(&mut self, client: usize) {
        let state = &mut self.clients[client];
        if !state.is_running {
            return;
        }
        state.has.clear();
        // What it asked for before is of no interest any more.
        state.incarnation += 1;
        if state.is_classic {
            let request = LeaveRequest {
                group_id: GROUP.into(),
                members: vec![Leaver {
                    member_id: state.member_id.clone(),
                    group_instance_id: Self::instance_id(client),
                    reason: None,
                }],
            };
            self.send(client, |driver| {
                driver.request(|shard, now, token| shard.handle_leave(now, token, &request))
            });
        } else {
            // Static members go for a while.
            self.consumer_beat(client, if client >= STATIC_FROM { -2 } else { -1 });
        }
        self.listen();
        self.clients[client].stop();
    }

    fn send(&mut self, client: usize, send: impl FnOnce(&mut Driver) -> Token) {
        let token = send(&mut self.driver);
        let state = &mut self.clients[client];
        self.senders.insert(token, (client, state.incarnation));
        state.awaits = Some(token);
    }

    /// Clients learn from the answers they got.
    fn listen(&mut self) {
        while let Some((at_ms, token, response)) = self.driver.answers.get(self.heard).cloned() {
            self.heard += 1;
            let (client, incarnation) = self.senders[&token];
            let state = &mut self.clients[client];
            if state.incarnation != incarnation || !state.is_running {
                continue;
            }
            assert_eq!(state.awaits.take(), Some(token), "a client asks one thing at a time");
            state.last_answer_ms = at_ms;
            let outcome = match response {
                Response::ConsumerHeartbeat(Ok(reply)) => {
                    state.must_join = false;
                    state.epoch = reply.member_epoch;
                    if let Some(assignment) = &reply.assignment {
                        let all = assignment.iter();
                        state.has = all
                            .flat_map(|(topic, all)| all.iter().map(|index| (*topic, *index)))
                            .collect();
                    }
                    continue;
                }
                Response::Join(Ok(joined)) => {
                    state.member_id = joined.member_id.clone();
                    state.epoch = joined.generation;
                    self.sync(client, &joined);
                    continue;
                }
                Response::Sync(Ok(synced)) => {
                    state.must_join = false;
                    state.has = read(&self.driver, &synced.assignment);
                    continue;
                }
                Response::Heartbeat(Ok(())) | Response::Leave(_) => continue,
                Response::Join(Err(refusal)) => Err(refusal.error),
                Response::Sync(outcome) => outcome.map(drop),
                Response::Heartbeat(outcome) => outcome,
                Response::ConsumerHeartbeat(outcome) => outcome.map(drop),
                other => panic!("nobody asked for {other:?}"),
            };
            match outcome.expect_err("the others are dealt with") {
                GroupError::UnknownMemberId
                | GroupError::FencedInstanceId
                | GroupError::FencedMemberEpoch
                | GroupError::GroupIdNotFound
                | GroupError::UnreleasedInstanceId
                | GroupError::InconsistentGroupProtocol => state.stop(),
                GroupError::RebalanceInProgress | GroupError::IllegalGeneration => {
                    state.must_join = true;
                }
                // The consumer tries the same again.
                _ => state.must_join |= state.is_classic,
            }
        }
    }

    /// The members by id, each with the epoch or generation it is in, and that of the group.
    fn members(&self) -> (BTreeMap<Str, i32>, i32) {
        if let Ok(group) = self.driver.shard.describe_consumer_group(GROUP) {
            let members = group.members.into_iter();
            let with_epoch = members.map(|member| (member.member_id, member.member_epoch));
            return (with_epoch.collect(), group.epoch);
        }
        match self.driver.shard.describe_group(GROUP) {
            Ok(group) => {
                let members = group.members.into_iter();
                let with_generation = members.map(|member| (member.member_id, group.generation));
                (with_generation.collect(), group.generation)
            }
            Err(_) => (BTreeMap::new(), 0),
        }
    }

    fn check(&mut self) {
        let (members, epoch) = self.members();
        let mut owners = BTreeMap::new();
        // Whoever was removed might not know yet, and must not be waited for. Nor does a classic
        // group wait for a static member that did not rejoin in time, though it stays a member.
        let knows = |client: &&Client| {
            let epoch = members.get(&client.member_id);
            epoch.is_some_and(|epoch| !client.is_classic || *epoch == client.epoch)
        };
        for client in self.clients.iter().filter(knows) {
            for partition in &client.has {
                let other = owners.insert(*partition, &client.member_id);
                assert!(other.is_none(), "{partition:?} is had by {other:?} and {client:?}");
            }
        }
        let replayed = self.driver.replayed();
        assert_eq!(replayed.ledger(), self.driver.shard.ledger());
        // An empty group may be replaced by one that begins anew.
        self.last_epoch = if members.is_empty() { 0 } else { self.last_epoch };
        assert!(epoch >= self.last_epoch || members.is_empty(), "the epoch went back");
        self.last_epoch = if members.is_empty() { 0 } else { epoch };
        let Ok(group) = self.driver.shard.describe_consumer_group(GROUP) else { return };
        let mut owners = BTreeSet::new();
        for member in &group.members {
            for topic in &member.assignment {
                for partition in &topic.partitions {
                    let is_new = owners.insert((topic.topic_id, *partition));
                    assert!(is_new, "{}-{partition} has two owners", topic.topic);
                }
            }
        }
    }

    /// Once nothing happens but heartbeats, everybody gets what they are to have.
    fn settle(&mut self) {
        self.driver.failures.clear();
        // Leaders look at the topics by themselves, and join when there are more partitions.
        for client in &mut self.clients {
            client.must_join |= client.is_classic;
        }
        for _ in 0..60 {
            for client in 0..CLIENTS {
                self.beat(client);
                self.listen();
            }
            self.driver.wait(3_000);
            self.listen();
            self.check();
        }
        let live = self.clients.iter().filter(|client| client.is_running);
        let ids: BTreeSet<Str> = live.clone().map(|client| client.member_id.clone()).collect();
        let (members, _) = self.members();
        assert_eq!(members.into_keys().collect::<BTreeSet<Str>>(), ids);
        if let Ok(group) = self.driver.shard.describe_consumer_group(GROUP) {
            let is_done = matches!(group.state, ConsumerState::Empty | ConsumerState::Stable);
            assert!(is_done, "the group is {:?}", group.state);
        } else if let Ok(group) = self.driver.shard.describe_group(GROUP) {
            let is_done = matches!(group.state, State::Empty | State::Stable);
            assert!(is_done, "the group is {:?}", group.state);
        }
        let wanted: BTreeSet<(Uuid, i32)> = live
            .clone()
            .flat_map(|client| client.topics.split('+'))
            .flat_map(|topic| self.driver.topics.partitions(topic))
            .collect();
        let had: BTreeSet<(Uuid, i32)> = live.flat_map(|client| client.has.clone()).collect();
        assert_eq!(had, wanted, "every partition that somebody wants is had by somebody");
    }
}

impl Client {
    fn stop(&mut self) {
        self.is_running = false;
        self.has.clear();
        self.awaits = None;
    }
}

fn read(driver: &Driver, bytes: &Bytes) -> BTreeSet<(Uuid, i32)> {
    if bytes.is_empty() {
        return BTreeSet::new();
    }
    let mut reader = Reader::new(bytes.clone());
    let version = reader.read_i16("version").expect("an assignment has a version");
    let read = ConsumerProtocolAssignment::decode(&mut reader, version).expect("an assignment");
    let topics = read.assigned_partitions.iter();
    topics
        .flat_map(|topic| {
            let id = driver.topics.id(&topic.topic);
            topic.partitions.iter().map(move |partition| (id, *partition))
        })
        .collect()
}

//! Random histories of streams groups: whatever happens, no active task has two owners, no process
//! has a task twice, a replayed log gives the same state, and a group that is left alone settles.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_coordinator::streams::{
    Roles, StreamsDescription, StreamsHeartbeatRequest, StreamsState, TaskList,
};
use fleuve_coordinator::{AppendError, GroupConfig, GroupError, Response, Token};
use fleuve_protocol::Str;
use proptest::prelude::*;

use crate::driver::Driver;
use crate::streams::topology_of;

const CLIENTS: usize = 5;
/// Clients by the process that they are threads of.
const PROCESSES: [&str; CLIENTS] = ["p", "p", "q", "q", "r"];
const GROUP: &str = "g";
const TOPOLOGY: &str = "0:t->rep,1:rep~s,2:u";
const SESSION_TIMEOUT_MS: i64 = 45_000;

#[derive(Clone, Debug)]
enum Event {
    Join {
        client: usize,
    },
    Beat {
        client: usize,
        owns: bool,
    },
    /// The answer of the next heartbeat gets lost.
    LoseAnswer {
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
    Remove {
        topic: usize,
    },
    Copies {
        count: i32,
    },
    Reload,
    Fail,
}

const TOPICS: [&str; 4] = ["t", "u", "rep", "s"];

/// A thread as its own process sees it.
#[derive(Debug, Default)]
struct Client {
    member_id: Str,
    incarnation: u32,
    epoch: i32,
    is_in: bool,
    has: Roles<TaskList>,
    last_answer_ms: i64,
    /// An answer was missed, so the next heartbeat tells what the thread has.
    is_unsure: bool,
}

struct Histories {
    driver: Driver,
    clients: Vec<Client>,
    senders: BTreeMap<Token, usize>,
    lost: BTreeSet<Token>,
    heard: usize,
    last_epoch: i32,
}

fn event() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS;
    prop_oneof![
        5 => client.clone().prop_map(|client| Event::Join { client }),
        12 => (client.clone(), any::<bool>()).prop_map(|(client, owns)| Event::Beat { client, owns }),
        1 => client.clone().prop_map(|client| Event::LoseAnswer { client }),
        1 => client.clone().prop_map(|client| Event::Leave { client }),
        1 => client.prop_map(|client| Event::Die { client }),
        2 => (1..60_000i64).prop_map(|ms| Event::Wait { ms }),
        1 => (0..TOPICS.len(), 1..6i32)
            .prop_map(|(topic, partitions)| Event::Grow { topic, partitions }),
        1 => (0..TOPICS.len()).prop_map(|topic| Event::Remove { topic }),
        1 => (0..3i32).prop_map(|count| Event::Copies { count }),
        1 => Just(Event::Reload),
        1 => Just(Event::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_histories_keep_their_promises(
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let mut histories = Histories::new();
        for event in events {
            histories.run(&event);
            histories.check();
        }
        histories.settle();
    }
}

impl Histories {
    fn new() -> Self {
        let mut driver = Driver::new(Default::default());
        driver.change_topics(|topics| {
            topics.put("t", 4);
            topics.put("u", 3);
        });
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        let (senders, lost) = Default::default();
        Self { driver, clients, senders, lost, heard: 0, last_epoch: 0 }
    }

    fn run(&mut self, event: &Event) {
        match event {
            Event::Join { client } => {
                let state = &mut self.clients[*client];
                if !state.is_in {
                    state.incarnation += 1;
                    state.member_id = format!("m{client}-{}", state.incarnation).into();
                    let request = self.request(*client, 0, true);
                    self.send(*client, &request);
                }
            }
            Event::Beat { client, owns } if self.clients[*client].is_in => {
                self.beat(*client, *owns);
            }
            Event::LoseAnswer { client } if self.clients[*client].is_in => {
                let epoch = self.clients[*client].epoch;
                let request = self.request(*client, epoch, false);
                let token = self.send(*client, &request);
                self.lost.insert(token);
            }
            Event::Leave { client } if self.clients[*client].is_in => {
                let request = self.request(*client, -1, false);
                self.clients[*client].forget();
                self.send(*client, &request);
            }
            Event::Die { client } => self.clients[*client].forget(),
            Event::Wait { ms } => self.driver.wait(*ms),
            Event::Grow { topic, partitions } => {
                self.driver.change_topics(|topics| topics.put(TOPICS[*topic], *partitions));
            }
            Event::Remove { topic } => {
                self.driver.change_topics(|topics| topics.remove(TOPICS[*topic]));
            }
            Event::Copies { count } => {
                let mut config = GroupConfig::default();
                config.streams.standby_replicas = Some(*count);
                self.driver.configure(GROUP.into(), config);
            }
            Event::Reload => self.driver.reload(),
            Event::Fail => self.driver.failures.push_back(AppendError::Unavailable),
            Event::Beat { .. } | Event::LoseAnswer { .. } | Event::Leave { .. } => {}
        }
        self.listen();
        // A process that hears nothing for a session gives up, before others get what it has.
        for client in &mut self.clients {
            if self.driver.now_ms - client.last_answer_ms >= SESSION_TIMEOUT_MS {
                client.forget();
            }
        }
    }

    fn request(&self, client: usize, epoch: i32, owns: bool) -> StreamsHeartbeatRequest {
        let state = &self.clients[client];
        let joins = epoch == 0;
        let has = if joins { Roles::default() } else { state.has.clone() };
        let role = |tasks: TaskList| owns.then_some(tasks);
        StreamsHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: state.member_id.clone(),
            member_epoch: epoch,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: if joins { 20_000 } else { -1 },
            topology: joins.then(|| topology_of(TOPOLOGY, 0)),
            owned: Roles {
                active: role(has.active),
                standby: role(has.standby),
                warmup: role(has.warmup),
            },
            process_id: joins.then(|| PROCESSES[client].into()),
            user_endpoint: (joins && client == 0).then(|| ("host".into(), 7_070)),
            client_tags: None,
            tells_task_offsets: false,
            shutdown_application: false,
            endpoint_information_epoch: -1,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    fn beat(&mut self, client: usize, owns: bool) {
        let Client { epoch, is_unsure, .. } = self.clients[client];
        let request = self.request(client, epoch, owns || is_unsure);
        self.send(client, &request);
    }

    fn send(&mut self, client: usize, request: &StreamsHeartbeatRequest) -> Token {
        let token = self
            .driver
            .request(|shard, now, token| shard.handle_streams_heartbeat(now, token, request));
        self.senders.insert(token, client);
        token
    }

    /// Clients learn from the answers they got; internal topics that are asked for come into being.
    fn listen(&mut self) {
        let mut wanted = Vec::new();
        for (at_ms, token, response) in &self.driver.answers[self.heard..] {
            let Response::StreamsHeartbeat(outcome) = response else { continue };
            let client = &mut self.clients[self.senders[token]];
            client.is_unsure = outcome.is_err() || self.lost.contains(token);
            if self.lost.contains(token) {
                continue;
            }
            match outcome {
                Ok(reply) if reply.member_id == client.member_id && reply.member_epoch >= 0 => {
                    client.is_in = true;
                    client.epoch = reply.member_epoch;
                    client.last_answer_ms = *at_ms;
                    if let Some(tasks) = &reply.tasks {
                        client.has = tasks.clone();
                    }
                    wanted.extend(reply.missing_topics.iter().cloned());
                }
                Err(
                    GroupError::FencedMemberEpoch
                    | GroupError::UnknownMemberId
                    | GroupError::GroupIdNotFound
                    // Tasks that a smaller topic no longer has.
                    | GroupError::InvalidRequest(_),
                ) => client.forget(),
                Ok(_) | Err(_) => {}
            }
        }
        self.heard = self.driver.answers.len();
        for topic in wanted {
            self.driver.change_topics(|topics| topics.put(&topic.name, topic.partitions));
        }
    }

    fn group(&self) -> Option<StreamsDescription> {
        self.driver.shard.describe_streams_group(GROUP).ok()
    }

    fn check(&mut self) {
        assert_eq!(self.driver.unanswered(), 0, "heartbeats do not wait");
        let replayed = self.driver.replayed();
        assert_eq!(replayed.ledger(), self.driver.shard.ledger());
        let Some(group) = self.group() else { return };
        // Whoever was removed might not know yet, and must not be waited for.
        let is_member = |client: &&Client| {
            group.members.iter().any(|member| member.member_id == client.member_id)
        };
        let mut owners = BTreeMap::new();
        for client in self.clients.iter().filter(is_member) {
            for task in each(&client.has.active) {
                let other = owners.insert(task.clone(), &client.member_id);
                assert!(other.is_none(), "{task:?} is run by {other:?} and {client:?}");
            }
        }
        assert!(group.epoch >= self.last_epoch, "the group's epoch went back");
        assert!(group.assignment_epoch <= group.epoch);
        self.last_epoch = group.epoch;
        let mut owners = BTreeSet::new();
        let mut in_process = BTreeSet::new();
        for member in &group.members {
            for task in each(&member.assignment.active) {
                assert!(owners.insert(task.clone()), "{task:?} has two owners");
            }
            for task in each(&member.assignment.active).chain(each(&member.assignment.standby)) {
                let is_new = in_process.insert((&member.process_id, task.clone()));
                assert!(is_new, "{task:?} is twice in {}", member.process_id);
            }
        }
    }

    /// Once nothing happens but heartbeats, everybody gets what they are to have.
    fn settle(&mut self) {
        self.driver.failures.clear();
        // The topics fit again, except for what the broker makes.
        self.driver.change_topics(|topics| {
            for topic in TOPICS {
                topics.remove(topic);
            }
            topics.put("t", 4);
            topics.put("u", 3);
        });
        // Whoever went without a word is missed in the end.
        for _ in 0..40 {
            for client in 0..CLIENTS {
                if self.clients[client].is_in {
                    self.beat(client, true);
                    self.listen();
                }
            }
            self.driver.wait(5_000);
            self.check();
        }
        let live: BTreeSet<&Str> = self
            .clients
            .iter()
            .filter(|client| client.is_in)
            .map(|client| &client.member_id)
            .collect();
        let Some(group) = self.group() else {
            assert!(live.is_empty(), "a group with members exists");
            return;
        };
        let members: BTreeSet<&Str> =
            group.members.iter().map(|member| &member.member_id).collect();
        assert_eq!(members, live);
        if live.is_empty() {
            assert_eq!(group.state, StreamsState::Empty);
            return;
        }
        assert_eq!(group.state, StreamsState::Stable);
        assert!(group.members.iter().all(|member| member.assignment == member.target));
        let run: BTreeSet<(Str, i32)> =
            self.clients.iter().flat_map(|client| each(&client.has.active)).collect();
        let all = [("0", 4), ("1", 4), ("2", 3)];
        let all = all.iter().flat_map(|(id, count)| (0..*count).map(|p| (Str::from_static(id), p)));
        assert_eq!(run, all.collect(), "every task is run by somebody");
    }
}

impl Client {
    fn forget(&mut self) {
        self.is_in = false;
        self.has = Roles::default();
    }
}

fn each(tasks: &TaskList) -> impl Iterator<Item = (Str, i32)> + '_ {
    tasks.iter().flat_map(|(id, partitions)| partitions.iter().map(move |p| (id.clone(), *p)))
}

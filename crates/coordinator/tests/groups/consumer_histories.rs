//! Random histories of consumer groups: whatever happens, no partition has two owners, epochs do
//! not go back, a replayed log gives the same state, and a group that is left alone settles.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_coordinator::consumer::{ConsumerHeartbeatRequest, ConsumerState};
use fleuve_coordinator::{AppendError, GroupError, Response, Token};
use fleuve_protocol::Str;
use fleuve_types::Uuid;
use proptest::prelude::*;

use crate::driver::Driver;
use crate::topics::Topics;

const CLIENTS: usize = 5;
/// The last clients are static members.
const STATIC_FROM: usize = 3;
const TOPICS: [&str; 3] = ["t", "u", "ux"];
const GROUP: &str = "g";
const SESSION_TIMEOUT_MS: i64 = 45_000;

#[derive(Clone, Debug)]
enum Event {
    Join {
        client: usize,
        subscription: Subscription,
        assignor: Option<&'static str>,
    },
    Subscribe {
        client: usize,
        subscription: Subscription,
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
    GoAway {
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
    Reload,
    Fail,
}

#[derive(Clone, Debug)]
enum Subscription {
    Names(Vec<usize>),
    Regex(&'static str),
}

/// A member as its own process sees it.
#[derive(Debug, Default)]
struct Client {
    member_id: Str,
    incarnation: u32,
    epoch: i32,
    is_in: bool,
    has: BTreeSet<(Uuid, i32)>,
    last_answer_ms: i64,
    subscription: Option<Subscription>,
    /// An answer was missed, so the next heartbeat says everything.
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

fn subscription() -> impl Strategy<Value = Subscription> {
    prop_oneof![
        proptest::collection::vec(0..TOPICS.len(), 1..3).prop_map(Subscription::Names),
        prop_oneof![Just("u.*"), Just("t|ux"), Just("nothing")].prop_map(Subscription::Regex),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS;
    let assignor = prop_oneof![Just(None), Just(Some("range")), Just(Some("uniform"))];
    prop_oneof![
        4 => (client.clone(), subscription(), assignor).prop_map(|(client, subscription, assignor)|
            Event::Join { client, subscription, assignor }),
        1 => (client.clone(), subscription())
            .prop_map(|(client, subscription)| Event::Subscribe { client, subscription }),
        10 => (client.clone(), any::<bool>()).prop_map(|(client, owns)| Event::Beat { client, owns }),
        1 => client.clone().prop_map(|client| Event::LoseAnswer { client }),
        1 => client.clone().prop_map(|client| Event::Leave { client }),
        1 => client.clone().prop_map(|client| Event::GoAway { client }),
        1 => client.prop_map(|client| Event::Die { client }),
        2 => (1..60_000i64).prop_map(|ms| Event::Wait { ms }),
        1 => (0..TOPICS.len(), 1..8i32)
            .prop_map(|(topic, partitions)| Event::Grow { topic, partitions }),
        1 => (0..TOPICS.len()).prop_map(|topic| Event::Remove { topic }),
        1 => Just(Event::Reload),
        1 => Just(Event::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

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
            Event::Join { client, subscription, assignor } => {
                if self.clients[*client].is_in {
                    return;
                }
                let state = &mut self.clients[*client];
                state.incarnation += 1;
                state.member_id = format!("m{client}-{}", state.incarnation).into();
                state.subscription = Some(subscription.clone());
                let request = ConsumerHeartbeatRequest {
                    server_assignor: assignor.map(Into::into),
                    ..with(self.request(*client, 0, true), subscription)
                };
                self.send(*client, &request);
            }
            Event::Subscribe { client, subscription } if self.clients[*client].is_in => {
                let state = &mut self.clients[*client];
                state.subscription = Some(subscription.clone());
                let epoch = state.epoch;
                let request = with(self.request(*client, epoch, true), subscription);
                self.send(*client, &request);
            }
            Event::Beat { client, owns } if self.clients[*client].is_in => {
                self.beat(*client, *owns)
            }
            Event::LoseAnswer { client } if self.clients[*client].is_in => {
                let epoch = self.clients[*client].epoch;
                let request = self.request(*client, epoch, false);
                let token = self.send(*client, &request);
                self.lost.insert(token);
            }
            Event::Leave { client } if self.clients[*client].is_in => self.leave(*client, -1),
            Event::GoAway { client } if self.clients[*client].is_in => {
                self.leave(*client, if *client >= STATIC_FROM { -2 } else { -1 });
            }
            Event::Die { client } => self.clients[*client].forget(),
            Event::Wait { ms } => self.driver.wait(*ms),
            Event::Grow { topic, partitions } => {
                self.driver.change_topics(|topics| topics.put(TOPICS[*topic], *partitions));
            }
            Event::Remove { topic } => {
                self.driver.change_topics(|topics| topics.remove(TOPICS[*topic]));
            }
            Event::Reload => self.driver.reload(),
            Event::Fail => self.driver.failures.push_back(AppendError::Unavailable),
            _ => {}
        }
        self.listen();
        // A process that hears nothing for a session gives up, before others get what it has.
        for client in &mut self.clients {
            if self.driver.now_ms - client.last_answer_ms >= SESSION_TIMEOUT_MS {
                client.forget();
            }
        }
    }

    fn request(&self, client: usize, epoch: i32, owns: bool) -> ConsumerHeartbeatRequest {
        let state = &self.clients[client];
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &state.has {
            owned.entry(*topic).or_default().push(*partition);
        }
        ConsumerHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: state.member_id.clone(),
            member_epoch: epoch,
            instance_id: (client >= STATIC_FROM).then(|| format!("i{client}").into()),
            rack_id: None,
            rebalance_timeout_ms: if epoch == 0 { 20_000 } else { -1 },
            subscribed_topic_names: None,
            subscribed_topic_regex: None,
            server_assignor: None,
            owned: owns.then(|| if epoch == 0 { Vec::new() } else { owned.into_iter().collect() }),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            may_lack_member_id: false,
            visible_topics: Default::default(),
        }
    }

    fn beat(&mut self, client: usize, owns: bool) {
        let Client { epoch, is_unsure, .. } = self.clients[client];
        let mut request = self.request(client, epoch, owns || is_unsure);
        if is_unsure && let Some(subscription) = &self.clients[client].subscription {
            request = with(request, subscription);
            request.rebalance_timeout_ms = 20_000;
        }
        self.send(client, &request);
    }

    fn leave(&mut self, client: usize, epoch: i32) {
        self.clients[client].has.clear();
        let request = self.request(client, epoch, false);
        self.send(client, &request);
        self.listen();
        self.clients[client].forget();
    }

    fn send(&mut self, client: usize, request: &ConsumerHeartbeatRequest) -> Token {
        let token = self
            .driver
            .request(|shard, now, token| shard.handle_consumer_heartbeat(now, token, request));
        self.senders.insert(token, client);
        token
    }

    /// Clients learn from the answers they got.
    fn listen(&mut self) {
        for (at_ms, token, response) in &self.driver.answers[self.heard..] {
            let Response::ConsumerHeartbeat(outcome) = response else { continue };
            let client = &mut self.clients[self.senders[token]];
            client.is_unsure = outcome.is_err() || self.lost.contains(token);
            if self.lost.contains(token) {
                continue;
            }
            match outcome {
                Ok(reply) if reply.member_id == client.member_id => {
                    client.is_in = reply.member_epoch >= 0;
                    client.epoch = reply.member_epoch;
                    client.last_answer_ms = *at_ms;
                    if let Some(assignment) = &reply.assignment {
                        let all = assignment.iter();
                        client.has = all
                            .flat_map(|(topic, all)| all.iter().map(|index| (*topic, *index)))
                            .collect();
                    }
                }
                Err(
                    GroupError::FencedMemberEpoch
                    | GroupError::UnknownMemberId
                    | GroupError::FencedInstanceId
                    | GroupError::GroupIdNotFound,
                ) => client.forget(),
                Ok(_) | Err(_) => {}
            }
        }
        self.heard = self.driver.answers.len();
    }

    fn check(&mut self) {
        assert_eq!(self.driver.unanswered(), 0, "heartbeats do not wait");
        let group = self.driver.shard.describe_consumer_group(GROUP);
        // Whoever was removed might not know yet, and must not be waited for.
        let is_member = |client: &&Client| {
            group.as_ref().is_ok_and(|group| {
                group.members.iter().any(|member| member.member_id == client.member_id)
            })
        };
        let mut owners = BTreeMap::new();
        for client in self.clients.iter().filter(is_member) {
            for partition in &client.has {
                let other = owners.insert(*partition, &client.member_id);
                assert!(other.is_none(), "{partition:?} is had by {other:?} and {client:?}");
            }
        }
        let replayed = self.driver.replayed();
        assert_eq!(replayed.ledger(), self.driver.shard.ledger());
        let Ok(group) = group else { return };
        assert!(group.epoch >= self.last_epoch, "the group's epoch went back");
        assert!(group.assignment_epoch <= group.epoch);
        self.last_epoch = group.epoch;
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
        // Whoever went without a word is missed in the end.
        for _ in 0..30 {
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
        let Ok(group) = self.driver.shard.describe_consumer_group(GROUP) else {
            assert!(live.is_empty(), "a group with members exists");
            return;
        };
        let members: BTreeSet<&Str> =
            group.members.iter().map(|member| &member.member_id).collect();
        assert_eq!(members, live);
        let expected = if live.is_empty() { ConsumerState::Empty } else { ConsumerState::Stable };
        assert_eq!(group.state, expected);
        let mut wanted = BTreeSet::new();
        for member in &group.members {
            assert_eq!(member.assignment, member.target);
            for topic in TOPICS {
                let regex = member.regex.as_deref().unwrap_or_default();
                let matches = match regex {
                    "u.*" => topic.starts_with('u'),
                    "t|ux" => topic == "t" || topic == "ux",
                    _ => false,
                };
                if matches || member.topics.iter().any(|name| *name == *topic) {
                    wanted.extend(partitions(&self.driver.topics, topic));
                }
            }
        }
        let had: BTreeSet<(Uuid, i32)> =
            self.clients.iter().flat_map(|client| client.has.iter().copied()).collect();
        assert_eq!(had, wanted, "every partition that somebody wants is had by somebody");
    }
}

impl Client {
    fn forget(&mut self) {
        self.is_in = false;
        self.has.clear();
    }
}

fn with(
    request: ConsumerHeartbeatRequest,
    subscription: &Subscription,
) -> ConsumerHeartbeatRequest {
    let (names, regex): (Vec<Str>, &str) = match subscription {
        Subscription::Names(names) => (names.iter().map(|name| TOPICS[*name].into()).collect(), ""),
        Subscription::Regex(regex) => (Vec::new(), regex),
    };
    ConsumerHeartbeatRequest {
        subscribed_topic_names: Some(names),
        subscribed_topic_regex: Some(Str::copy_from(regex)),
        ..request
    }
}

fn partitions(topics: &Topics, name: &str) -> BTreeSet<(Uuid, i32)> {
    topics.partitions(name).into_iter().collect()
}

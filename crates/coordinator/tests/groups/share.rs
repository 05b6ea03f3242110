//! Share groups: the ways of a heartbeat, and random histories.

use std::collections::BTreeSet;

use fleuve_coordinator::share::{ShareGroupState, ShareHeartbeatReply, ShareHeartbeatRequest};
use fleuve_coordinator::{
    AppendError, Effect, GroupError, GroupSettings, ListFilter, Response, ShareSettings,
};
use fleuve_protocol::Str;
use fleuve_types::Uuid;
use proptest::prelude::*;

use crate::driver::Driver;
use crate::topics::name_of;

const GROUP: &str = "g";

type Answer = Result<ShareHeartbeatReply, GroupError>;

fn request(member: &str, epoch: i32, topics: Option<&[&str]>) -> ShareHeartbeatRequest {
    ShareHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: Str::copy_from(member),
        member_epoch: epoch,
        rack_id: None,
        subscribed_topic_names: topics
            .map(|topics| topics.iter().map(|name| Str::copy_from(name)).collect()),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
    }
}

fn beat(driver: &mut Driver, request: &ShareHeartbeatRequest) -> Answer {
    let token =
        driver.request(|shard, now, token| shard.handle_share_heartbeat(now, token, request));
    let (_, answered, response) = driver.answers.last().expect("heartbeats are answered");
    assert_eq!(*answered, token);
    match response.clone() {
        Response::ShareHeartbeat(answer) => answer,
        other => panic!("a heartbeat is answered with {other:?}"),
    }
}

/// Does what a driver does about states of share-partitions; returns which members went.
fn serve_shares(driver: &mut Driver) -> Vec<Str> {
    let mut gone = Vec::new();
    for effect in std::mem::take(&mut driver.share_effects) {
        match effect {
            Effect::InitializeShares { group, partitions, .. } => {
                let step = driver.shard.handle_shares_initialized(&group, &partitions);
                driver.carry_out(step);
            }
            Effect::DeleteShares { group, topics } => {
                let step = driver.shard.handle_shares_deleted(&group, &topics);
                driver.carry_out(step);
            }
            Effect::ShareMemberGone { member, .. } => gone.push(member),
            Effect::Reply { .. } => unreachable!("replies are answers"),
        }
    }
    gone
}

fn partitions(answer: &Answer) -> BTreeSet<(String, i32)> {
    let assignment = answer.as_ref().expect("an answer").assignment.as_ref().expect("it is told");
    let each = |(topic, all): &(Uuid, Vec<i32>)| {
        let name = name_of(*topic);
        all.iter().map(move |partition| (name.clone(), *partition)).collect::<Vec<_>>()
    };
    assignment.iter().flat_map(each).collect()
}

fn check_replay(driver: &Driver) {
    assert_eq!(driver.replayed().ledger(), driver.shard.ledger(), "replay differs from live");
}

#[test]
fn a_member_reads_what_has_a_state() {
    let mut driver = Driver::new(GroupSettings::default());
    driver.change_topics(|topics| topics.put("t", 2));
    let joined = beat(&mut driver, &request("m", 0, Some(&["t"])));
    let reply = joined.clone().expect("the member may join");
    assert_eq!((reply.member_epoch, partitions(&joined).len()), (2, 0));
    assert!(reply.heartbeat_interval_ms < 1_000, "it is to come back soon");
    serve_shares(&mut driver);
    let second = beat(&mut driver, &request("m", 2, None));
    assert_eq!(partitions(&second).len(), 2);
    let reply = second.expect("the member lives");
    assert_eq!((reply.member_epoch, reply.heartbeat_interval_ms), (3, 5_000));
    let settled = beat(&mut driver, &request("m", 3, None)).expect("the member lives");
    assert_eq!((settled.member_epoch, settled.assignment), (3, None));
    let described = driver.shard.describe_share_group(GROUP).expect("the group exists");
    assert_eq!(described.state, ShareGroupState::Stable);
    assert_eq!((described.epoch, described.assignment_epoch), (3, 3));
    let listed = driver.shard.list_groups(&ListFilter::default()).expect("the shard serves");
    assert_eq!((listed[0].group_type, &*listed[0].protocol_type), ("share", "share"));
    check_replay(&driver);
}

#[test]
fn members_share_partitions_and_new_ones_are_found() {
    let mut driver = Driver::new(GroupSettings::default());
    driver.change_topics(|topics| topics.put("t", 1));
    for member in ["a", "b", "c"] {
        beat(&mut driver, &request(member, 0, Some(&["t"]))).expect("the member may join");
        serve_shares(&mut driver);
        // Assignments keep their distance.
        driver.wait(1_000);
    }
    let epoch = |driver: &mut Driver, member: &str| {
        beat(driver, &request(member, 0, Some(&["t"]))).expect("the member lives").member_epoch
    };
    let now = epoch(&mut driver, "a");
    for member in ["a", "b", "c"] {
        let answer = beat(&mut driver, &request(member, 0, Some(&["t"])));
        assert_eq!(partitions(&answer), BTreeSet::from([("t".to_owned(), 0)]));
    }
    driver.change_topics(|topics| topics.put("t", 4));
    beat(&mut driver, &request("a", now, None)).expect("the member lives");
    serve_shares(&mut driver);
    driver.wait(1_000);
    let mut read = BTreeSet::new();
    for member in ["a", "b", "c"] {
        read.extend(partitions(&beat(&mut driver, &request(member, 0, Some(&["t"])))));
    }
    assert_eq!(read.len(), 4);
    check_replay(&driver);
}

#[test]
fn a_topic_that_is_left_goes_at_once() {
    let mut driver = Driver::new(GroupSettings::default());
    driver.change_topics(|topics| {
        topics.put("t", 1);
        topics.put("u", 1);
    });
    beat(&mut driver, &request("m", 0, Some(&["t", "u"]))).expect("the member may join");
    serve_shares(&mut driver);
    let second = beat(&mut driver, &request("m", 2, None));
    assert_eq!(partitions(&second).len(), 2);
    // The next assignment is not due yet.
    let left = beat(&mut driver, &request("m", 3, Some(&["u"])));
    assert_eq!(partitions(&left), BTreeSet::from([("u".to_owned(), 0)]));
    driver.change_topics(|topics| topics.remove("u"));
    let deleted = beat(&mut driver, &request("m", 3, None));
    assert_eq!(partitions(&deleted), BTreeSet::new());
    check_replay(&driver);
}

#[test]
fn who_is_silent_or_leaves_is_gone_and_the_driver_is_told() {
    let mut driver = Driver::new(GroupSettings::default());
    driver.change_topics(|topics| topics.put("t", 1));
    beat(&mut driver, &request("a", 0, Some(&["t"]))).expect("the member may join");
    beat(&mut driver, &request("b", 0, Some(&["t"]))).expect("the member may join");
    serve_shares(&mut driver);
    beat(&mut driver, &request("a", -1, None)).expect("the member may leave");
    assert_eq!(serve_shares(&mut driver), ["a"]);
    driver.wait(44_000);
    assert_eq!(serve_shares(&mut driver), Vec::<Str>::new());
    driver.wait(1_000);
    assert_eq!(serve_shares(&mut driver), ["b"]);
    let unknown = beat(&mut driver, &request("b", 1, None));
    assert_eq!(unknown, Err(GroupError::UnknownMemberId));
    let described = driver.shard.describe_share_group(GROUP).expect("the group stays");
    assert_eq!(described.state, ShareGroupState::Empty);
    check_replay(&driver);
}

#[test]
fn refusals_name_what_is_wrong() {
    let settings = GroupSettings {
        share: ShareSettings { max_size: 1, ..ShareSettings::default() },
        ..GroupSettings::default()
    };
    let mut driver = Driver::new(settings);
    driver.change_topics(|topics| topics.put("t", 1));
    let unknown = beat(&mut driver, &request("a", 3, None));
    assert_eq!(unknown, Err(GroupError::GroupIdNotFound));
    let long = "m".repeat(37);
    let long = beat(&mut driver, &request(&long, 0, Some(&["t"])));
    assert!(matches!(long, Err(GroupError::InvalidRequest(_))));
    let without_topics = beat(&mut driver, &request("a", 0, None));
    assert!(matches!(without_topics, Err(GroupError::InvalidRequest(_))));
    beat(&mut driver, &request("a", 0, Some(&["t"]))).expect("the member may join");
    let fenced = beat(&mut driver, &request("a", 7, None));
    assert_eq!(fenced, Err(GroupError::FencedMemberEpoch));
    let full = beat(&mut driver, &request("b", 0, Some(&["t"])));
    assert_eq!(full, Err(GroupError::GroupMaxSizeReached));
    driver.failures.push_back(AppendError::Unavailable);
    let lost = beat(&mut driver, &request("a", -1, None));
    assert_eq!(lost, Err(GroupError::NotAvailable));
}

#[test]
fn offsets_are_set_and_deleted_only_of_groups_without_members() {
    let mut driver = Driver::new(GroupSettings::default());
    driver.change_topics(|topics| {
        topics.put("t", 2);
        topics.put("idle", 1);
        topics.put("late", 1);
    });
    beat(&mut driver, &request("a", 0, Some(&["t"]))).expect("the member may join");
    serve_shares(&mut driver);
    let alter = |driver: &mut Driver| {
        let topics = [(Str::from("t"), vec![(0, 5), (7, 5)]), (Str::from("x"), vec![(0, 1)])];
        driver.request(|shard, _, token| shard.handle_share_alter(token, &GROUP.into(), &topics));
        match driver.answers.last().expect("it is answered").2.clone() {
            Response::ShareAlter(outcome) => outcome,
            other => panic!("answered with {other:?}"),
        }
    };
    let delete = |driver: &mut Driver| {
        let topics = ["t", "x", "idle", "late"].map(Str::from);
        driver.request(|shard, _, token| {
            shard.handle_share_offsets_delete(token, &GROUP.into(), &topics)
        });
        match driver.answers.last().expect("it is answered").2.clone() {
            Response::ShareOffsetsDelete(outcome) => outcome,
            other => panic!("answered with {other:?}"),
        }
    };
    assert_eq!(alter(&mut driver), Err(GroupError::NonEmptyGroup));
    assert_eq!(delete(&mut driver), Err(GroupError::NonEmptyGroup));
    // Nobody carries out that the states of this topic begin.
    beat(&mut driver, &request("a", 0, Some(&["t", "late"]))).expect("the member lives");
    beat(&mut driver, &request("a", -1, None)).expect("the member may leave");
    let epoch = driver.shard.describe_share_group(GROUP).expect("the group exists").epoch;
    let altered = alter(&mut driver).expect("the group is empty");
    assert_eq!(altered.state_epoch, epoch + 1);
    let unknown = Err(GroupError::UnknownTopicOrPartition);
    assert_eq!(altered.topics[0].partitions, [(0, Ok(5)), (7, unknown)]);
    assert_eq!(altered.topics[1].partitions, [(0, unknown)]);
    let deleted = delete(&mut driver).expect("the group is empty");
    assert_eq!(deleted.topics[0].2, Ok(vec![0, 1]));
    assert_eq!(deleted.topics[1].2, Err(GroupError::UnknownTopicOrPartition));
    assert_eq!(deleted.topics[2].2, Err(GroupError::NoOffsetsToDelete));
    assert_eq!(deleted.topics[3].2, Err(GroupError::NoOffsetsToDelete));
    // What is yet to begin is the group's, but nobody has begun to read there.
    let left = driver.shard.share_partitions(GROUP).expect("the group exists");
    assert!(matches!(&left[..], [partition] if partition.topic == "late"));
    assert_eq!(driver.shard.begun_share_partitions(GROUP), Ok(Vec::new()));
    assert_eq!(driver.shard.begun_share_partitions("nobody's"), Ok(Vec::new()));
    // Nobody has finished it, so a restarted broker is asked to.
    assert_eq!(serve_shares(&mut driver), ["a"]);
    driver.reload();
    assert!(matches!(&driver.share_effects[..], [Effect::DeleteShares { topics, .. }]
        if topics.len() == 1));
    serve_shares(&mut driver);
    let begun = driver.shard.begun_share_partitions(GROUP).expect("the group exists");
    assert!(matches!(&begun[..], [partition] if partition.topic == "late"));
    check_replay(&driver);
    driver.request(|shard, _, token| shard.handle_delete_groups(token, &[GROUP.into()]));
    assert!(!driver.shard.is_share_group(GROUP));
    check_replay(&driver);
}

#[test]
fn a_group_without_members_may_be_given_offsets_first() {
    let mut driver = Driver::new(GroupSettings::default());
    driver.change_topics(|topics| topics.put("t", 1));
    let topics = [(Str::from("t"), vec![(0, 5)])];
    driver.request(|shard, _, token| shard.handle_share_alter(token, &GROUP.into(), &topics));
    let id = driver.topics.id("t");
    let step = driver.shard.handle_shares_initialized(&GROUP.into(), &[(id, vec![0])]);
    driver.carry_out(step);
    assert_eq!(driver.shard.share_state_epoch(GROUP, id, 0), Some(2));
    let joined = beat(&mut driver, &request("a", 0, Some(&["t"])));
    assert_eq!(partitions(&joined).len(), 1, "there is nothing to wait for");
    check_replay(&driver);
}

#[derive(Clone, Debug)]
enum Event {
    Beat { client: usize, topics: Option<usize> },
    Leave { client: usize },
    Wait { ms: i64 },
    Grow { topic: usize },
    Remove { topic: usize },
    Serve,
    Fail { appends: usize },
    Reload,
}

const TOPICS: [&str; 3] = ["t", "u", "v"];
const SUBSCRIPTIONS: [&[&str]; 4] = [&["t"], &["t", "u"], &["u", "v"], &["t", "u", "v"]];
const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];

fn event() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS.len();
    let topic = 0..TOPICS.len();
    prop_oneof![
        6 => (client.clone(), proptest::option::of(0..SUBSCRIPTIONS.len()))
            .prop_map(|(client, topics)| Event::Beat { client, topics }),
        1 => client.prop_map(|client| Event::Leave { client }),
        2 => (1i64..20_000).prop_map(|ms| Event::Wait { ms }),
        1 => topic.clone().prop_map(|topic| Event::Grow { topic }),
        1 => topic.prop_map(|topic| Event::Remove { topic }),
        3 => Just(Event::Serve),
        1 => (1usize..3).prop_map(|appends| Event::Fail { appends }),
        1 => Just(Event::Reload),
    ]
}

/// Beats as a client would: whoever is not known joins again.
fn live(driver: &mut Driver, epochs: &mut [i32], client: usize, topics: Option<usize>) -> Answer {
    let name = CLIENTS[client];
    let joins = epochs[client] <= 0;
    let topics = topics.or(joins.then_some(3)).map(|index| SUBSCRIPTIONS[index]);
    let answer = beat(driver, &request(name, epochs[client].max(0), topics));
    epochs[client] = match &answer {
        Ok(reply) => reply.member_epoch,
        Err(GroupError::NotAvailable) => epochs[client],
        Err(_) => 0,
    };
    answer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    /// Whatever happens, a replayed log gives the same state, only what exists and has a state is
    /// assigned, and a group that is left alone reads everything that it wants.
    #[test]
    fn histories_of_share_groups(events in proptest::collection::vec(event(), 1..80)) {
        let mut driver = Driver::new(GroupSettings::default());
        for topic in TOPICS {
            driver.change_topics(|topics| topics.put(topic, 1));
        }
        let mut epochs = [0; CLIENTS.len()];
        let mut sizes = [1; TOPICS.len()];
        for event in events {
            match event {
                Event::Beat { client, topics } => {
                    let _ = live(&mut driver, &mut epochs, client, topics);
                }
                Event::Leave { client } => {
                    let _ = beat(&mut driver, &request(CLIENTS[client], -1, None));
                    epochs[client] = 0;
                }
                Event::Wait { ms } => driver.wait(ms),
                Event::Grow { topic } => {
                    sizes[topic] += 1;
                    driver.change_topics(|topics| topics.put(TOPICS[topic], sizes[topic]));
                }
                Event::Remove { topic } => {
                    let id = driver.topics.id(TOPICS[topic]);
                    driver.change_topics(|topics| topics.remove(TOPICS[topic]));
                    sizes[topic] = 0;
                    let name = Str::from(TOPICS[topic]);
                    let gone = fleuve_coordinator::offsets::DeletedTopic { name, topic_id: id };
                    let step = driver.shard.handle_topics_deleted(&[gone]);
                    driver.carry_out(step);
                }
                Event::Serve => {
                    serve_shares(&mut driver);
                }
                Event::Fail { appends } => {
                    driver.failures.extend(vec![AppendError::Unavailable; appends]);
                }
                Event::Reload => {
                    driver.share_effects.clear();
                    driver.reload();
                    driver.change_topics(|_| {});
                }
            }
            check_replay(&driver);
        }
        driver.failures.clear();
        // The retry of states that somebody should have begun may be due only after half a minute.
        for _ in 0..12 {
            for client in 0..CLIENTS.len() {
                let _ = live(&mut driver, &mut epochs, client, Some(3));
            }
            serve_shares(&mut driver);
            driver.wait(5_000);
        }
        let mut read = BTreeSet::new();
        for client in 0..CLIENTS.len() {
            let answer = live(&mut driver, &mut epochs, client, Some(3));
            let had = partitions(&answer);
            let any = sizes.iter().any(|size| *size > 0);
            prop_assert_eq!(had.is_empty(), !any, "nobody goes without");
            read.extend(had);
        }
        let wanted: BTreeSet<(String, i32)> = TOPICS
            .iter()
            .flat_map(|name| driver.topics.partitions(name))
            .map(|(id, partition)| (name_of(id), partition))
            .collect();
        prop_assert_eq!(read, wanted);
        check_replay(&driver);
    }
}

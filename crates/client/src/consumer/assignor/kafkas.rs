//! What Java's cooperative-sticky assignor makes of random groups, beside what ours does.
//!
//! The recorded divisions are of `tests/client/Assignments.java` with Apache Kafka 4.3.1;
//! `tests/client/assignors.py` makes others and has this test look at them.

use std::collections::HashSet;

use super::*;

const RECORDED: &str = include_str!("../../../testdata/kafka-4.3.1-cooperative-sticky.txt");
/// Names a file with other divisions.
const OTHERS: &str = "FLEUVE_TEST_ASSIGNMENTS";

/// One division by Java.
struct Division {
    counts: BTreeMap<String, usize>,
    members: Vec<Subscription>,
    /// By Java, in the order of members.
    shares: Vec<BTreeSet<TopicPartition>>,
}

fn partitions(text: &str) -> BTreeSet<TopicPartition> {
    let one = |text: &str| {
        let (topic, partition) = text.rsplit_once('-').expect("TOPIC-PARTITION");
        TopicPartition::new(topic, partition.parse().expect("a number"))
    };
    text.split(',').filter(|text| !text.is_empty()).map(one).collect()
}

fn read(line: &str) -> Division {
    let parts: Vec<_> = line.split(';').collect();
    let [counts, members, shares] = parts[..] else { panic!("three parts: {line}") };
    let count = |text: &str| {
        let (topic, count) = text.split_once('=').expect("TOPIC=COUNT");
        (topic.to_owned(), count.parse().expect("a number"))
    };
    let member = |text: &str| {
        let (id, rest) = text.split_once('@').expect("MEMBER@GENERATION");
        let (generation, rest) = rest.split_once('[').expect("topics");
        let (topics, owned) = rest.split_once(']').expect("topics");
        Subscription {
            member_id: id.to_owned(),
            topics: topics.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect(),
            owned: partitions(owned).into_iter().collect(),
            generation: generation.parse().expect("a number"),
            ..Subscription::default()
        }
    };
    let share = |text: &str| partitions(text.split_once('=').expect("MEMBER=PARTITIONS").1);
    Division {
        counts: counts.split(',').map(count).collect(),
        members: members.split('|').map(member).collect(),
        shares: shares.split('|').map(share).collect(),
    }
}

/// Sizes of shares, and how many partitions stay with who reads them.
fn measures(division: &Division, shares: &[BTreeSet<TopicPartition>]) -> (Vec<usize>, usize) {
    let mut sizes: Vec<_> = shares.iter().map(BTreeSet::len).collect();
    sizes.sort_unstable();
    let stays = |(member, share): (&Subscription, &BTreeSet<TopicPartition>)| {
        member.owned.iter().filter(|partition| share.contains(partition)).count()
    };
    (sizes, division.members.iter().zip(shares).map(stays).sum())
}

#[test]
fn groups_are_divided_as_evenly_and_as_stably_as_java_does() {
    let others = std::env::var(OTHERS).ok();
    let text = match &others {
        Some(path) => std::fs::read_to_string(path).expect("readable"),
        None => RECORDED.to_owned(),
    };
    let (mut alike, mut same) = (0, 0);
    for line in text.lines() {
        let division = read(line);
        let mut ours = CooperativeSticky.assign(&division.counts, &division.members);
        let shares: Vec<BTreeSet<_>> = division
            .members
            .iter()
            .map(|member| ours.remove(&member.member_id).expect("named").into_iter().collect())
            .collect();
        same += usize::from(shares == division.shares);
        let (our_sizes, our_stays) = measures(&division, &shares);
        let (java_sizes, java_stays) = measures(&division, &division.shares);
        let topics = &division.members[0].topics;
        if division.members.iter().all(|member| member.topics == *topics) {
            alike += 1;
            assert_eq!((our_sizes, our_stays), (java_sizes, java_stays), "{line}\n{shares:?}");
        } else {
            // Where wishes differ there are many even divisions, and ours need not be Java's.
            let mut given = HashSet::new();
            for (member, share) in division.members.iter().zip(&shares) {
                for partition in share {
                    assert!(member.topics.iter().any(|t| **t == *partition.topic), "{line}");
                    assert!(given.insert(partition), "{partition} twice: {line}");
                }
            }
            for (member, partition) in
                division.members.iter().flat_map(|m| m.owned.iter().map(move |p| (m, p)))
            {
                let taken = division.members.iter().zip(&shares).any(|(other, share)| {
                    other.member_id != member.member_id && share.contains(partition)
                });
                assert!(!taken, "{partition} is still read: {line}");
            }
        }
    }
    let all = text.lines().count();
    assert!(alike > all / 3 && same > all / 4, "{all}: {alike} with equal wishes, {same} as Java");
}

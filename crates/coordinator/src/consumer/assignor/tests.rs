//! What every assignor promises, over random groups.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fleuve_types::Uuid;
use proptest::prelude::*;

use super::{Assignor, Spec, SpecMember};
use crate::consumer::member::Target;

fn topic(number: u8) -> Uuid {
    Uuid([number; 16])
}

/// A group of members subscribed to some of the topics, by number.
fn spec(partitions: &[i32], subscriptions: &[Vec<u8>], assigned: &[Target]) -> Spec {
    let members = subscriptions.iter().enumerate().map(|(index, topics)| SpecMember {
        id: format!("m{index:02}").into(),
        instance_id: None,
        subscribed: Rc::new(topics.iter().map(|number| topic(*number)).collect()),
        assigned: assigned.get(index).cloned().unwrap_or_default(),
    });
    let topics = (0..).zip(partitions).map(|(number, count)| (topic(number), *count));
    Spec { members: members.collect(), topics: topics.collect() }
}

fn all(target: &Target) -> BTreeSet<(Uuid, i32)> {
    target.iter().flat_map(|(topic, all)| all.iter().map(|index| (*topic, *index))).collect()
}

/// Checks that every partition goes to exactly one subscriber, if it has any.
fn check_complete(spec: &Spec, targets: &[Target]) {
    let mut owners = BTreeMap::new();
    for (index, target) in targets.iter().enumerate() {
        for (topic, partition) in all(target) {
            assert!(spec.members[index].subscribed.contains(&topic), "a stranger got a partition");
            assert!((0..spec.partitions(topic)).contains(&partition));
            assert!(owners.insert((topic, partition), index).is_none(), "two owners");
        }
    }
    let wanted: BTreeSet<Uuid> =
        spec.members.iter().flat_map(|member| member.subscribed.iter().copied()).collect();
    let count: i32 = wanted.iter().map(|topic| spec.partitions(*topic)).sum();
    assert_eq!(owners.len(), count as usize, "partitions were left out");
}

fn sizes(targets: &[Target]) -> Vec<usize> {
    targets.iter().map(|target| all(target).len()).collect()
}

proptest! {
    #[test]
    fn equal_subscriptions_get_equal_shares_and_move_little(
        partitions in proptest::collection::vec(1..12i32, 1..4),
        members in 1..7usize,
        later in 1..7usize,
    ) {
        let topics: Vec<u8> = (0..partitions.len() as u8).collect();
        let first = spec(&partitions, &vec![topics.clone(); members], &[]);
        let targets = Assignor::Uniform.assign(&first);
        check_complete(&first, &targets);
        let spread = |targets: &[Target]| {
            let sizes = sizes(targets);
            sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0)
        };
        prop_assert!(spread(&targets) <= 1);

        // Members come or go; whoever stays loses no more than it must.
        let second = spec(&partitions, &vec![topics; later], &targets);
        let new_targets = Assignor::Uniform.assign(&second);
        check_complete(&second, &new_targets);
        prop_assert!(spread(&new_targets) <= 1);
        let total: i32 = partitions.iter().sum();
        let share = (total as usize).div_ceil(later);
        for (old, new) in targets.iter().zip(&new_targets) {
            let kept = all(old).intersection(&all(new)).count();
            prop_assert!(kept + 1 >= all(old).len().min(share), "{old:?} became {new:?}");
        }
        // Nothing changed, so nothing moves.
        let third = Spec {
            members: second.members.iter().cloned().zip(&new_targets).map(|(member, target)| {
                SpecMember { assigned: target.clone(), ..member }
            }).collect(),
            topics: second.topics,
        };
        prop_assert_eq!(Assignor::Uniform.assign(&third), new_targets);
    }

    #[test]
    fn different_subscriptions_are_all_served(
        partitions in proptest::collection::vec(1..9i32, 3),
        subscriptions in proptest::collection::vec(
            proptest::collection::vec(0..3u8, 0..4), 1..7),
        changed in proptest::collection::vec(
            proptest::collection::vec(0..3u8, 0..4), 1..7),
    ) {
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let first = spec(&partitions, &subscriptions, &[]);
            let targets = assignor.assign(&first);
            check_complete(&first, &targets);
            let second = spec(&partitions, &changed, &targets);
            check_complete(&second, &assignor.assign(&second));
        }
    }
}

#[test]
fn range_gives_the_same_ranges_of_topics_alike() {
    let spec = spec(&[5, 5], &[vec![0, 1], vec![0, 1]], &[]);
    let targets = Assignor::Range.assign(&spec);
    let ranges = |from, to| {
        BTreeMap::from([(topic(0), (from..to).collect()), (topic(1), (from..to).collect())])
    };
    assert_eq!(targets, [ranges(0, 3), ranges(3, 5)]);
}

#[test]
fn range_puts_static_members_first() {
    let mut spec = spec(&[2], &[vec![0], vec![0]], &[]);
    spec.members[1].instance_id = Some("i".into());
    let targets = Assignor::Range.assign(&spec);
    assert_eq!(all(&targets[1]), BTreeSet::from([(topic(0), 0)]));
    assert_eq!(all(&targets[0]), BTreeSet::from([(topic(0), 1)]));
}

#[test]
fn overlapping_subscriptions_are_balanced() {
    // Everybody may have the large topic, only the last member the small one.
    let spec = spec(&[6, 2], &[vec![0], vec![0], vec![0, 1]], &[]);
    let targets = Assignor::Uniform.assign(&spec);
    assert_eq!(sizes(&targets), [3, 3, 2]);
}

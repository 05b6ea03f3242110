//! The simple assignor: every partition is read by somebody, and every member reads something.
//!
//! With fewer members than partitions each partition has one reader; with more, partitions are
//! shared, evenly. What members have they keep where the shares allow it. Members and topics are
//! walked in the order of their ids, so that equal groups get equal assignments.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::group::Target;

/// The name by which Kafka knows the assignor.
pub(super) const NAME: &str = "simple";

/// What the assignor is told of a member.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub(super) id: &'a Str,
    /// Topics that it is subscribed to and that have assignable partitions.
    pub(super) subscribed: BTreeSet<Uuid>,
    /// What it was to have before.
    pub(super) had: Option<&'a Target>,
}

/// Decides what each member is to have, in the order of `members`; `topics` are the partitions that
/// may be assigned.
pub(super) fn assign(members: &[Asking<'_>], topics: &BTreeMap<Uuid, Vec<i32>>) -> Vec<Target> {
    let shares = Shares::of(members, topics);
    let mut targets: Vec<Target> = members.iter().map(|_| Target::new()).collect();
    let mut counts = vec![0; members.len()];
    let mut readers: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
    let mut give = |member: usize, topic: Uuid, partition: i32, counts: &mut Vec<usize>| {
        if targets[member].entry(topic).or_default().insert(partition) {
            counts[member] += 1;
        }
    };
    // What members have they keep.
    for (index, member) in members.iter().enumerate() {
        for (topic, partitions) in member.had.into_iter().flatten() {
            if !member.subscribed.contains(topic) {
                continue;
            }
            let assignable = topics.get(topic).map_or(&[][..], Vec::as_slice);
            for partition in partitions.iter().filter(|p| assignable.contains(p)) {
                let count = readers.entry((*topic, *partition)).or_default();
                if *count < shares.readers(*topic) && counts[index] < shares.partitions[index] {
                    *count += 1;
                    give(index, *topic, *partition, &mut counts);
                }
            }
        }
    }
    let mut has: BTreeSet<(usize, Uuid, i32)> = BTreeSet::new();
    for (index, target) in targets.iter().enumerate() {
        for (topic, partitions) in target {
            has.extend(partitions.iter().map(|partition| (index, *topic, *partition)));
        }
    }
    // Partitions with too few readers go to those who have least.
    for (topic, partitions) in topics {
        let subscribers = members.iter().enumerate().filter(|(_, m)| m.subscribed.contains(topic));
        let subscribers: Vec<usize> = subscribers.map(|(index, _)| index).collect();
        for partition in partitions {
            let count = readers.entry((*topic, *partition)).or_default();
            let mut missing = shares.readers(*topic).saturating_sub(*count);
            while missing > 0 {
                let free = subscribers.iter().filter(|m| !has.contains(&(**m, *topic, *partition)));
                let Some(member) = free.copied().min_by_key(|member| counts[*member]) else {
                    break;
                };
                // Beyond the first reader nobody gets more than their share.
                if *count > 0 && counts[member] >= shares.partitions[member] {
                    break;
                }
                targets[member].entry(*topic).or_default().insert(*partition);
                counts[member] += 1;
                has.insert((member, *topic, *partition));
                *count += 1;
                missing -= 1;
            }
        }
    }
    // Nobody goes without, if there is anything to read.
    for (index, member) in members.iter().enumerate() {
        if counts[index] > 0 {
            continue;
        }
        let candidates = member.subscribed.iter().filter_map(|topic| topics.get_key_value(topic));
        let candidates = candidates
            .flat_map(|(topic, all)| all.iter().map(move |partition| (*topic, *partition)));
        let least = candidates.min_by_key(|key| readers.get(key).copied().unwrap_or(0));
        if let Some((topic, partition)) = least {
            targets[index].entry(topic).or_default().insert(partition);
            counts[index] += 1;
            *readers.entry((topic, partition)).or_default() += 1;
        }
    }
    targets
}

/// How many readers a partition is to have, and how many partitions a member.
struct Shares {
    readers: BTreeMap<Uuid, usize>,
    partitions: Vec<usize>,
}

impl Shares {
    fn of(members: &[Asking<'_>], topics: &BTreeMap<Uuid, Vec<i32>>) -> Self {
        // A member that may read n partitions brings 1/n of a reader to each of them.
        let mut brought: BTreeMap<Uuid, f64> = BTreeMap::new();
        let mut subscribers: BTreeMap<Uuid, usize> = BTreeMap::new();
        let size = |topic: &Uuid| topics.get(topic).map_or(0, Vec::len);
        for member in members {
            let total: usize = member.subscribed.iter().map(size).sum();
            for topic in member.subscribed.iter().filter(|topic| size(topic) > 0) {
                *brought.entry(*topic).or_default() += 1.0 / total as f64;
                *subscribers.entry(*topic).or_default() += 1;
            }
        }
        let readers: BTreeMap<Uuid, usize> =
            brought.iter().map(|(topic, sum)| (*topic, round_up(*sum).max(1))).collect();
        let partitions = members.iter().map(|member| {
            let share = member.subscribed.iter().map(|topic| {
                let slots = size(topic) * readers.get(topic).copied().unwrap_or(0);
                slots as f64 / subscribers.get(topic).copied().unwrap_or(1).max(1) as f64
            });
            round_up(share.sum()).max(1)
        });
        Self { partitions: partitions.collect(), readers }
    }

    fn readers(&self, topic: Uuid) -> usize {
        self.readers.get(&topic).copied().unwrap_or(0)
    }
}

/// Rounds up, but not what only the arithmetic has put above a whole number.
fn round_up(number: f64) -> usize {
    (number - 1e-9).ceil().max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid([1; 16]);
    const OTHER: Uuid = Uuid([2; 16]);

    fn topics(counts: &[(Uuid, i32)]) -> BTreeMap<Uuid, Vec<i32>> {
        counts.iter().map(|(topic, count)| (*topic, (0..*count).collect())).collect()
    }

    fn ids(count: usize) -> Vec<Str> {
        (0..count).map(|index| Str::from(format!("m{index:03}"))).collect()
    }

    fn ask<'a>(ids: &'a [Str], had: &'a [Target], topics: &[Uuid]) -> Vec<Asking<'a>> {
        let asking = ids.iter().enumerate().map(|(index, id)| Asking {
            id,
            subscribed: topics.iter().copied().collect(),
            had: had.get(index),
        });
        asking.collect()
    }

    fn sizes(targets: &[Target]) -> Vec<usize> {
        targets.iter().map(|target| target.values().map(BTreeSet::len).sum()).collect()
    }

    fn readers(targets: &[Target], topic: Uuid, partition: i32) -> usize {
        let has = |target: &&Target| target.get(&topic).is_some_and(|p| p.contains(&partition));
        targets.iter().filter(has).count()
    }

    #[test]
    fn fewer_members_than_partitions_read_apart() {
        let ids = ids(2);
        let targets = assign(&ask(&ids, &[], &[TOPIC]), &topics(&[(TOPIC, 5)]));
        assert_eq!(sizes(&targets).iter().sum::<usize>(), 5);
        assert!(sizes(&targets).iter().all(|size| (2..=3).contains(size)));
        assert!((0..5).all(|partition| readers(&targets, TOPIC, partition) == 1));
    }

    #[test]
    fn more_members_than_partitions_share() {
        let ids = ids(7);
        let targets = assign(&ask(&ids, &[], &[TOPIC]), &topics(&[(TOPIC, 3)]));
        assert!(sizes(&targets).iter().all(|size| *size >= 1));
        for partition in 0..3 {
            assert!((2..=3).contains(&readers(&targets, TOPIC, partition)));
        }
    }

    #[test]
    fn members_keep_what_they_have() {
        let ids = ids(3);
        let all = topics(&[(TOPIC, 6), (OTHER, 3)]);
        let first = assign(&ask(&ids[..2], &[], &[TOPIC, OTHER]), &all);
        let second = assign(&ask(&ids, &first, &[TOPIC, OTHER]), &all);
        for (before, after) in first.iter().zip(&second) {
            let kept = after.iter().all(|(topic, partitions)| partitions.is_subset(&before[topic]));
            assert!(kept, "{before:?} became {after:?}");
        }
        assert_eq!(sizes(&second), [3, 3, 3]);
    }

    #[test]
    fn different_subscriptions_leave_nothing_unread() {
        let ids = ids(3);
        let subscriptions: [&[Uuid]; 3] = [&[TOPIC], &[OTHER], &[TOPIC, OTHER]];
        let asking: Vec<Asking<'_>> = ids
            .iter()
            .zip(subscriptions)
            .map(|(id, topics)| Asking {
                id,
                subscribed: topics.iter().copied().collect(),
                had: None,
            })
            .collect();
        let targets = assign(&asking, &topics(&[(TOPIC, 2), (OTHER, 1)]));
        assert!(sizes(&targets).iter().all(|size| *size >= 1));
        for (topic, partition) in [(TOPIC, 0), (TOPIC, 1), (OTHER, 0)] {
            assert!(readers(&targets, topic, partition) >= 1);
        }
        assert!(targets[0].keys().all(|topic| *topic == TOPIC));
        assert!(targets[1].keys().all(|topic| *topic == OTHER));
    }
}

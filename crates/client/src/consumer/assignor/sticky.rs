//! Even division that moves as little as possible: `sticky` and `cooperative-sticky`.
//!
//! Both divide alike and differ in how members say what they had. Whoever runs Java's or
//! librdkafka's assignors in the same group reads and writes the same bytes:
//!
//! ```text
//! sticky              topic count i32 | topic string, partition count i32, partition i32 ...
//!                     | generation i32            (a first version ended before the generation)
//! cooperative-sticky  generation i32              (partitions stand in the subscription)
//! ```
//!
//! A partition that two members claim belongs to the one of the later generation; claims of the
//! same generation cancel each other out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_protocol::{Reader, Writer};
use fleuve_types::TopicPartition;

use super::{Assignor, RebalanceProtocol, Subscription, order_of};

/// `sticky`: even shares, and everybody keeps what they had as far as that allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sticky;

/// `cooperative-sticky`: as [`Sticky`], but partitions that stay are read on during a rebalance.
#[derive(Clone, Copy, Debug, Default)]
pub struct CooperativeSticky;

/// What a member says it had.
struct Claim {
    partitions: Vec<TopicPartition>,
    generation: i32,
}

impl Assignor for Sticky {
    fn name(&self) -> &str {
        "sticky"
    }

    fn user_data(&self, previous: &[TopicPartition], generation: i32) -> Option<Bytes> {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in previous {
            by_topic.entry(&partition.topic).or_default().push(partition.partition);
        }
        let mut writer = Writer::new();
        writer.write_i32(by_topic.len() as i32);
        for (topic, partitions) in by_topic {
            writer.write_i16(topic.len() as i16);
            writer.write_slice(topic.as_bytes());
            writer.write_i32(partitions.len() as i32);
            partitions.into_iter().for_each(|partition| writer.write_i32(partition));
        }
        writer.write_i32(generation);
        Some(writer.into_bytes())
    }

    fn assign(
        &self,
        partition_counts: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Vec<TopicPartition>> {
        let claim = |member: &Subscription| {
            let told = member.user_data.clone().and_then(read_previous);
            told.unwrap_or(Claim { partitions: Vec::new(), generation: -1 })
        };
        divide(partition_counts, members, claim)
    }
}

impl Assignor for CooperativeSticky {
    fn name(&self) -> &str {
        "cooperative-sticky"
    }

    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Cooperative
    }

    fn user_data(&self, _: &[TopicPartition], generation: i32) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(&generation.to_be_bytes()))
    }

    fn assign(
        &self,
        partition_counts: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Vec<TopicPartition>> {
        let claim = |member: &Subscription| {
            // Members before version 2 of the subscription say their generation in user data.
            let told = member.user_data.as_deref().and_then(|bytes| bytes.first_chunk::<4>());
            let generation = match (member.generation, told) {
                (-1, Some(told)) => i32::from_be_bytes(*told),
                (generation, _) => generation,
            };
            Claim { partitions: member.owned.clone(), generation }
        };
        let mut assignment = divide(partition_counts, members, claim);
        hold_back_moving(&mut assignment, members);
        assignment
    }
}

/// Takes out what a member would get while another still reads it: that one gives it up when it
/// sees its new share, joins again, and the next division gives it out.
fn hold_back_moving(
    assignment: &mut HashMap<String, Vec<TopicPartition>>,
    members: &[Subscription],
) {
    let read: HashSet<&TopicPartition> = members.iter().flat_map(|member| &member.owned).collect();
    for member in members {
        if let Some(share) = assignment.get_mut(&member.member_id) {
            share.retain(|partition| !read.contains(partition) || member.owned.contains(partition));
        }
    }
}

fn read_previous(bytes: Bytes) -> Option<Claim> {
    let mut reader = Reader::new(bytes);
    let topics = reader.read_i32("topic count").ok()?;
    let mut partitions = Vec::new();
    for _ in 0..topics {
        let length = reader.read_i16("topic").ok()?;
        let name = reader.read_slice(usize::try_from(length).ok()?, "topic").ok()?;
        let name: Arc<str> = std::str::from_utf8(&name).ok()?.into();
        for _ in 0..reader.read_i32("partition count").ok()? {
            let partition = reader.read_i32("partition").ok()?;
            partitions.push(TopicPartition::new(name.clone(), partition));
        }
    }
    Some(Claim { partitions, generation: reader.read_i32("generation").unwrap_or(-1) })
}

/// A division in the making; members and topics go by their index.
struct Division {
    /// For every member, the topics it wants.
    wants: Vec<HashSet<usize>>,
    /// For every topic, who has which partition.
    owners: Vec<Vec<Option<usize>>>,
    /// For every member, its partitions by topic.
    shares: Vec<BTreeMap<usize, BTreeSet<usize>>>,
    loads: Vec<usize>,
    by_load: BTreeSet<(usize, usize)>,
}

fn divide(
    counts: &BTreeMap<String, usize>,
    members: &[Subscription],
    claim_of: impl Fn(&Subscription) -> Claim,
) -> HashMap<String, Vec<TopicPartition>> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by_key(|member| order_of(member));
    let topics: HashMap<&str, usize> =
        counts.keys().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
    let wants: Vec<HashSet<usize>> = members
        .iter()
        .map(|member| {
            member.topics.iter().filter_map(|name| topics.get(name.as_str()).copied()).collect()
        })
        .collect();
    let mut division = Division {
        owners: counts.values().map(|&count| vec![None; count]).collect(),
        shares: vec![BTreeMap::new(); members.len()],
        loads: vec![0; members.len()],
        by_load: (0..members.len()).map(|member| (0, member)).collect(),
        wants,
    };
    let mut claims: HashMap<(usize, usize), (i32, Option<usize>)> = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        let Claim { partitions, generation } = claim_of(member);
        for partition in partitions {
            let Some(&topic) = topics.get(&*partition.topic) else { continue };
            let Ok(number) = usize::try_from(partition.partition) else { continue };
            if number >= division.owners[topic].len() || !division.wants[index].contains(&topic) {
                continue;
            }
            claims
                .entry((topic, number))
                .and_modify(|(latest, claimant)| {
                    if generation > *latest {
                        (*latest, *claimant) = (generation, Some(index));
                    } else if generation == *latest && *claimant != Some(index) {
                        *claimant = None;
                    }
                })
                .or_insert((generation, Some(index)));
        }
    }
    for ((topic, partition), (_, claimant)) in claims {
        if let Some(member) = claimant {
            division.give(topic, partition, member);
        }
    }
    division.give_out_the_rest();
    division.balance();

    let names: Vec<Arc<str>> = counts.keys().map(|name| name.as_str().into()).collect();
    let share_of = |index: usize| {
        let by_topic = division.shares[index].iter();
        let partitions = by_topic.flat_map(|(&topic, partitions)| {
            let name = names[topic].clone();
            partitions.iter().map(move |&number| TopicPartition::new(name.clone(), number as i32))
        });
        partitions.collect()
    };
    members
        .iter()
        .enumerate()
        .map(|(index, member)| (member.member_id.clone(), share_of(index)))
        .collect()
}

impl Division {
    fn give(&mut self, topic: usize, partition: usize, member: usize) {
        if let Some(before) = self.owners[topic][partition].replace(member) {
            if let Some(theirs) = self.shares[before].get_mut(&topic) {
                theirs.remove(&partition);
                if theirs.is_empty() {
                    self.shares[before].remove(&topic);
                }
            }
            self.change_load(before, |load| load - 1);
        }
        self.shares[member].entry(topic).or_default().insert(partition);
        self.change_load(member, |load| load + 1);
    }

    fn change_load(&mut self, member: usize, change: impl Fn(usize) -> usize) {
        let load = self.loads[member];
        self.by_load.remove(&(load, member));
        self.loads[member] = change(load);
        self.by_load.insert((self.loads[member], member));
    }

    /// Gives partitions without an owner to the least loaded who want them; topics that few want
    /// come first, because there is least choice.
    fn give_out_the_rest(&mut self) {
        let takers =
            |topic: usize| self.wants.iter().filter(|wants| wants.contains(&topic)).count();
        let mut order: Vec<_> =
            (0..self.owners.len()).map(|topic| (takers(topic), topic)).collect();
        order.sort_unstable();
        for (takers, topic) in order {
            if takers == 0 {
                continue;
            }
            for partition in 0..self.owners[topic].len() {
                if self.owners[topic][partition].is_none()
                    && let Some(member) = self.lightest(topic, usize::MAX)
                {
                    self.give(topic, partition, member);
                }
            }
        }
    }

    /// Returns the least loaded member that wants `topic`, if its load is below `limit`.
    fn lightest(&self, topic: usize, limit: usize) -> Option<usize> {
        self.by_load
            .iter()
            .take_while(|(load, _)| *load < limit)
            .map(|&(_, member)| member)
            .find(|&member| self.wants[member].contains(&topic))
    }

    /// Moves partitions while somebody who wants them has at least two less.
    ///
    /// It ends, because every move makes the sum of the squared loads smaller.
    fn balance(&mut self) {
        // The heaviest gives one at a time: to empty one member down to the lightest would take from it
        // what others with as much to spare should give.
        loop {
            let mut heaviest_first = self.by_load.iter().rev();
            let better = heaviest_first.find_map(|&(_, heavy)| self.better_place(heavy));
            let Some((topic, partition, light)) = better else { return };
            self.give(topic, partition, light);
        }
    }

    fn better_place(&self, heavy: usize) -> Option<(usize, usize, usize)> {
        let limit = self.loads[heavy].saturating_sub(1);
        let mut best: Option<(usize, usize, usize)> = None;
        for (&topic, partitions) in self.shares[heavy].iter().rev() {
            let limit = best.map_or(limit, |(_, _, light)| self.loads[light]);
            if let Some(light) = self.lightest(topic, limit)
                && let Some(&partition) = partitions.last()
            {
                best = Some((topic, partition, light));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str], owned: &[(&str, i32)], generation: i32) -> Subscription {
        Subscription {
            member_id: id.to_owned(),
            topics: topics.iter().map(ToString::to_string).collect(),
            owned: owned.iter().map(|&(topic, index)| TopicPartition::new(topic, index)).collect(),
            generation,
            ..Subscription::default()
        }
    }

    fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
        counts.iter().map(|(topic, count)| (topic.to_string(), *count)).collect()
    }

    fn text(assignment: &HashMap<String, Vec<TopicPartition>>) -> String {
        let mut lines: Vec<_> = assignment
            .iter()
            .map(|(member, share)| {
                let share: Vec<_> = share.iter().map(ToString::to_string).collect();
                format!("{member}: {}", share.join(" ")).trim_end().to_owned()
            })
            .collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    #[test]
    fn user_data_is_what_java_writes() {
        let previous = [TopicPartition::new("t", 0), TopicPartition::new("t", 2)];
        let bytes = Sticky.user_data(&previous, 7).expect("always");
        assert_eq!(
            &bytes[..],
            b"\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\x07",
            "array of topics with arrays of partitions, then the generation"
        );
        let claim = read_previous(bytes.clone()).expect("readable");
        assert_eq!((claim.partitions, claim.generation), (previous.to_vec(), 7));
        let old = read_previous(bytes.slice(..bytes.len() - 4)).expect("the first version");
        assert_eq!(old.generation, -1);
        for cut in 0..bytes.len() - 4 {
            assert!(read_previous(bytes.slice(..cut)).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn a_newcomer_gets_its_share_and_the_others_keep_theirs() {
        let owned: Vec<_> = (0..6).map(|index| ("t", index)).collect();
        let members = [member("a", &["t"], &owned, 1), member("b", &["t"], &[], -1)];
        let first = CooperativeSticky.assign(&counts(&[("t", 6)]), &members);
        assert_eq!(text(&first), "a: t-0 t-1 t-2\nb:", "what moves waits for its reader");
        let owned: Vec<_> = (0..3).map(|index| ("t", index)).collect();
        let members = [member("a", &["t"], &owned, 2), member("b", &["t"], &[], 2)];
        let second = CooperativeSticky.assign(&counts(&[("t", 6)]), &members);
        assert_eq!(text(&second), "a: t-0 t-1 t-2\nb: t-3 t-4 t-5");
    }

    #[test]
    fn the_share_of_one_who_left_goes_to_the_least_loaded() {
        let members = [
            member("a", &["t"], &[("t", 0), ("t", 1)], 3),
            member("b", &["t"], &[("t", 4), ("t", 5)], 3),
        ];
        let assignment = CooperativeSticky.assign(&counts(&[("t", 6)]), &members);
        assert_eq!(text(&assignment), "a: t-0 t-1 t-2\nb: t-3 t-4 t-5");
    }

    #[test]
    fn the_later_generation_wins_and_equal_claims_cancel_out() {
        let members = [
            member("a", &["t"], &[("t", 0), ("t", 1)], 3),
            member("b", &["t"], &[("t", 0), ("t", 2)], 4),
        ];
        let mut told = members.to_vec();
        for member in &mut told {
            member.user_data = Sticky.user_data(&member.owned, member.generation);
        }
        let assignment = Sticky.assign(&counts(&[("t", 4)]), &told);
        assert_eq!(text(&assignment), "a: t-1 t-3\nb: t-0 t-2");
    }

    #[test]
    fn nobody_gets_what_they_do_not_want_and_loads_differ_by_one_where_they_can() {
        let members = [
            member("a", &["x"], &[], -1),
            member("b", &["x", "y"], &[("x", 0), ("x", 1), ("y", 0), ("y", 1), ("y", 2)], 1),
            member("c", &["gone"], &[("gone", 0)], 1),
        ];
        let told: Vec<_> = members
            .iter()
            .map(|member| Subscription {
                user_data: Sticky.user_data(&member.owned, member.generation),
                ..member.clone()
            })
            .collect();
        let assignment = Sticky.assign(&counts(&[("x", 3), ("y", 3)]), &told);
        assert_eq!(text(&assignment), "a: x-0 x-1 x-2\nb: y-0 y-1 y-2\nc:");
    }

    /// Plays the cooperative protocol: members give up what their share lacks and join again, until
    /// nobody has to.
    fn settle(
        counts: &BTreeMap<String, usize>,
        members: &mut [Subscription],
        generation: &mut i32,
    ) {
        for round in 0.. {
            assert!(round < 3, "one division gives up, the next gives out");
            *generation += 1;
            let assignment = CooperativeSticky.assign(counts, members);
            let mut anybody = false;
            let before: HashMap<_, _> = members
                .iter()
                .flat_map(|member| {
                    member.owned.iter().map(|p| (p.clone(), member.member_id.clone()))
                })
                .collect();
            for member in members.iter_mut() {
                let share = assignment[&member.member_id].clone();
                for partition in &share {
                    let reader = before.get(partition);
                    assert!(
                        reader.is_none_or(|id| *id == member.member_id),
                        "two read {partition}"
                    );
                }
                anybody |= member.owned.iter().any(|partition| !share.contains(partition));
                member.owned = share;
                member.generation = *generation;
            }
            if !anybody {
                return;
            }
        }
    }

    #[test]
    fn cooperative_members_that_come_and_go_end_with_even_shares() {
        let mut seed = 11u64;
        let mut draw = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        let counts = counts(&[("t", 100), ("u", 20)]);
        let mut members: Vec<Subscription> = Vec::new();
        let mut generation = 0;
        for step in 0..200 {
            if members.is_empty() || (draw(2) == 0 && members.len() < 7) {
                members.push(member(&format!("m{step}"), &["t", "u"], &[], -1));
            } else {
                members.remove(draw(members.len()));
            }
            if members.is_empty() {
                continue;
            }
            settle(&counts, &mut members, &mut generation);
            let mut sizes: Vec<_> = members.iter().map(|member| member.owned.len()).collect();
            sizes.sort_unstable();
            assert_eq!(sizes.iter().sum::<usize>(), 120, "step {step}");
            assert!(sizes[sizes.len() - 1] - sizes[0] <= 1, "step {step}: {sizes:?}");
        }
    }

    #[test]
    fn random_groups_are_divided_evenly_completely_and_stably() {
        let mut seed = 7u64;
        let mut draw = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for _ in 0..200 {
            let topics: Vec<_> = (0..=draw(4)).map(|index| format!("t{index}")).collect();
            let counts: BTreeMap<_, _> =
                topics.iter().map(|topic| (topic.clone(), draw(9))).collect();
            let names: Vec<_> = topics.iter().map(String::as_str).collect();
            let mut members: Vec<_> =
                (0..=draw(6)).map(|id| member(&format!("m{id}"), &names, &[], -1)).collect();
            let all: usize = counts.values().sum();
            let first = Sticky.assign(&counts, &members);
            let mut sizes: Vec<_> = first.values().map(Vec::len).collect();
            sizes.sort_unstable();
            assert_eq!(sizes.iter().sum::<usize>(), all);
            assert!(sizes[sizes.len() - 1] - sizes[0] <= 1, "{sizes:?}");
            for member in &mut members {
                member.user_data = Sticky.user_data(&first[&member.member_id], 1);
            }
            assert_eq!(Sticky.assign(&counts, &members), first, "nothing moves for no reason");
        }
    }
}

//! Who in a group reads which partition, decided by the member that leads a classic group.

#[cfg(test)]
mod kafkas;
mod sticky;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_types::TopicPartition;

use crate::BoxFuture;
use crate::error::{Error, Result};

pub use sticky::{CooperativeSticky, Sticky};

/// What a member of a group told about itself when it joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The member's id.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The topics it wants.
    pub topics: Vec<String>,
    /// What it has and keeps while the group divides; nothing in an eager rebalance.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it came by them; -1 if it did not say.
    pub generation: i32,
    /// `client.rack`.
    pub rack: Option<String>,
    /// What [`Assignor::user_data`] of its assignor wrote.
    pub user_data: Option<Bytes>,
}

/// What a member of a group is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// What it is to read.
    pub partitions: Vec<TopicPartition>,
    /// What its assignor is told beside that.
    pub user_data: Option<Bytes>,
}

/// When members give partitions up that go to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// All of them before every division.
    Eager,
    /// Only those that move, after the division that takes them; a second one gives them out
    /// (KIP-429).
    Cooperative,
}

/// Divides partitions among the members of a group.
///
/// Members need not run this client, so an assignor with a name that Kafka gives must divide as
/// Kafka's does; a group whose leader changes would otherwise move everything about.
pub trait Assignor: Send + Sync + 'static {
    /// Returns the name on the wire; members agree on a common one.
    fn name(&self) -> &str;

    /// Returns when members give up partitions; a group is cooperative if every assignor of every
    /// member is.
    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Eager
    }

    /// Writes what the leader's assignor is to know about this member beside its subscription:
    /// `previous` is what it read last, in the group's `generation`.
    fn user_data(&self, previous: &[TopicPartition], generation: i32) -> Option<Bytes> {
        let _ = (previous, generation);
        None
    }

    /// Finds out what a division rests on beside the subscriptions. The leader waits for it before it divides.
    fn prepare<'a>(&'a self, members: &'a [Subscription]) -> BoxFuture<'a, ()> {
        let _ = members;
        Box::pin(std::future::ready(()))
    }

    /// Divides the partitions of every topic, given by their counts, among `members`.
    fn assign(
        &self,
        partition_counts: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Vec<TopicPartition>>;

    /// Divides, and tells the members' assignors what they are to know beside their partitions.
    fn assign_with_data(
        &self,
        partition_counts: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Assigned> {
        let divided = self.assign(partition_counts, members).into_iter();
        divided
            .map(|(member, partitions)| (member, Assigned { partitions, user_data: None }))
            .collect()
    }

    /// Hears what this member was given, before the application does.
    fn assigned(&self, assigned: &Assigned) {
        let _ = assigned;
    }
}

/// Finds the assignor with this name.
pub(super) fn by_name(name: &str) -> Result<Arc<dyn Assignor>> {
    match name {
        "range" => Ok(Arc::new(Range)),
        "roundrobin" => Ok(Arc::new(RoundRobin)),
        "sticky" => Ok(Arc::new(Sticky)),
        "cooperative-sticky" => Ok(Arc::new(CooperativeSticky)),
        _ => Err(Error::config(format!(
            "partition.assignment.strategy={name}: expected range, roundrobin, sticky or \
             cooperative-sticky; an assignor of your own goes to Consumer::with_assignors"
        ))),
    }
}

/// `range`: of each topic, every member gets a run of neighbouring partitions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range;

impl Assignor for Range {
    fn name(&self) -> &str {
        "range"
    }

    fn assign(
        &self,
        partition_counts: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Vec<TopicPartition>> {
        let mut assignment = nothing_for(members);
        for (topic, &count) in partition_counts {
            let mut takers: Vec<_> =
                members.iter().filter(|member| member.topics.contains(topic)).collect();
            takers.sort_unstable_by_key(|member| order_of(member));
            let Some(each) = count.checked_div(takers.len()) else { continue };
            let with_one_more = count % takers.len();
            let name: Arc<str> = topic.as_str().into();
            let mut next = 0;
            for (index, taker) in takers.iter().enumerate() {
                let length = each + usize::from(index < with_one_more);
                let run = (next..next + length)
                    .map(|partition| TopicPartition::new(name.clone(), partition as i32));
                assignment.entry(taker.member_id.clone()).or_default().extend(run);
                next += length;
            }
        }
        assignment
    }
}

/// `roundrobin`: all partitions of all topics go around among the members.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

impl Assignor for RoundRobin {
    fn name(&self) -> &str {
        "roundrobin"
    }

    fn assign(
        &self,
        partition_counts: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Vec<TopicPartition>> {
        let mut assignment = nothing_for(members);
        let mut circle: Vec<_> = members.iter().collect();
        circle.sort_unstable_by_key(|member| order_of(member));
        let wanted: BTreeSet<&String> = members.iter().flat_map(|member| &member.topics).collect();
        let mut turn = 0;
        for (topic, &count) in partition_counts.iter().filter(|(topic, _)| wanted.contains(topic)) {
            let name: Arc<str> = topic.as_str().into();
            for partition in 0..count {
                // Somebody wants the topic, so the circle ends at a taker.
                while !circle[turn % circle.len()].topics.contains(topic) {
                    turn += 1;
                }
                let taker = circle[turn % circle.len()];
                turn += 1;
                let partition = TopicPartition::new(name.clone(), partition as i32);
                assignment.entry(taker.member_id.clone()).or_default().push(partition);
            }
        }
        assignment
    }
}

fn nothing_for(members: &[Subscription]) -> HashMap<String, Vec<TopicPartition>> {
    members.iter().map(|member| (member.member_id.clone(), Vec::new())).collect()
}

/// Static members keep their place over restarts, in which they get new member ids.
fn order_of(member: &Subscription) -> (bool, &str) {
    match &member.instance_id {
        Some(instance) => (false, instance),
        None => (true, &member.member_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> Subscription {
        Subscription {
            member_id: id.to_owned(),
            topics: topics.iter().map(ToString::to_string).collect(),
            ..Subscription::default()
        }
    }

    fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
        counts.iter().map(|(topic, count)| (topic.to_string(), *count)).collect()
    }

    fn text(assignment: &HashMap<String, Vec<TopicPartition>>, member: &str) -> String {
        let names: Vec<_> = assignment[member].iter().map(ToString::to_string).collect();
        names.join(" ")
    }

    #[test]
    fn range_gives_the_first_members_one_more_of_each_topic() {
        let members = [member("b", &["t0", "t1"]), member("a", &["t0", "t1"])];
        let assignment = Range.assign(&counts(&[("t0", 3), ("t1", 3)]), &members);
        assert_eq!(text(&assignment, "a"), "t0-0 t0-1 t1-0 t1-1");
        assert_eq!(text(&assignment, "b"), "t0-2 t1-2");
    }

    #[test]
    fn round_robin_goes_around_over_topics_and_skips_who_does_not_want_one() {
        let members = [member("a", &["t0", "t1"]), member("b", &["t0"])];
        let assignment = RoundRobin.assign(&counts(&[("t0", 3), ("t1", 2), ("t2", 9)]), &members);
        assert_eq!(text(&assignment, "a"), "t0-0 t0-2 t1-0 t1-1");
        assert_eq!(text(&assignment, "b"), "t0-1");
    }

    #[test]
    fn members_without_partitions_are_named_all_the_same() {
        let members = [member("a", &["t0"]), member("b", &["t0"])];
        for assignor in [by_name("range").expect("known"), by_name("roundrobin").expect("known")] {
            let assignment = assignor.assign(&counts(&[("t0", 1)]), &members);
            assert_eq!(
                (text(&assignment, "a"), text(&assignment, "b")),
                ("t0-0".into(), "".into())
            );
        }
    }

    #[test]
    fn static_members_come_first_in_the_order_of_their_instance_ids() {
        let mut fixed = member("z", &["t0"]);
        fixed.instance_id = Some("i".to_owned());
        let assignment = Range.assign(&counts(&[("t0", 1)]), &[member("a", &["t0"]), fixed]);
        assert_eq!(text(&assignment, "z"), "t0-0");
    }
}

//! Who runs which task.
//!
//! The unit is the task: all partitions of one number that a subtopology reads go to one member. Tasks stay where they
//! are as long as nobody has too many, so that state is not read again; what has to move is given up in one rebalance
//! and taken in the next (KIP-429), so that all other tasks run on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_client::consumer::{Assignor, RebalanceProtocol, Subscription};
use fleuve_types::TopicPartition;

use super::owners;
use super::topics::{Counts, tasks_of};
use crate::runtime::TaskId;
use crate::topology::Plan;

/// Divides tasks.
pub(super) struct TaskAssignor {
    tasks: BTreeMap<TaskId, Vec<TopicPartition>>,
    /// Where this instance answers queries.
    server: Option<String>,
}

impl TaskAssignor {
    pub(super) fn new(plan: &Plan, counts: &Counts) -> Self {
        Self { tasks: partitions_by_task(plan, counts), server: None }
    }

    /// Tells the group where this instance answers queries.
    pub(super) fn serving(mut self, application_server: Option<&str>) -> Self {
        self.server = application_server.map(str::to_owned);
        self
    }
}

/// The partitions that each task reads.
pub(super) fn partitions_by_task(
    plan: &Plan,
    counts: &Counts,
) -> BTreeMap<TaskId, Vec<TopicPartition>> {
    let mut tasks: BTreeMap<TaskId, Vec<TopicPartition>> = BTreeMap::new();
    for part in plan.subtopologies().iter().filter(|part| !part.global) {
        for partition in 0..tasks_of(part, counts) {
            let id = TaskId { subtopology: part.id, partition: partition as i32 };
            let reads = part
                .source_topics
                .iter()
                .filter(|topic| counts.get(*topic).is_some_and(|count| partition < *count))
                .map(|topic| TopicPartition::new(Arc::<str>::from(topic.as_str()), id.partition));
            tasks.insert(id, reads.collect());
        }
    }
    tasks
}

impl Assignor for TaskAssignor {
    fn name(&self) -> &str {
        "fleuve-streams"
    }

    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Cooperative
    }

    fn user_data(&self, _: &[TopicPartition], _: i32) -> Option<Bytes> {
        self.server.as_deref().map(owners::user_data)
    }

    fn assign(
        &self,
        _: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Vec<TopicPartition>> {
        let wanted = self.divide(members);
        let mut assignment: HashMap<String, Vec<TopicPartition>> = HashMap::new();
        for member in members {
            assignment.insert(member.member_id.clone(), Vec::new());
        }
        for (id, winner) in wanted {
            let partitions = &self.tasks[&id];
            let winner = &members[winner];
            // Somebody else still runs the task: it is given up now, and given out in the next rebalance.
            let held = members
                .iter()
                .any(|member| member.member_id != winner.member_id && owns(member, partitions));
            if !held && let Some(given) = assignment.get_mut(&winner.member_id) {
                given.extend(partitions.iter().cloned());
            }
        }
        assignment
    }
}

impl TaskAssignor {
    /// The member of each task, by its index: as evenly as possible, and otherwise where the task is.
    fn divide(&self, members: &[Subscription]) -> BTreeMap<TaskId, usize> {
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by(|a, b| members[*a].member_id.cmp(&members[*b].member_id));
        let least = self.tasks.len() / members.len().max(1);
        // So many members may have one task more.
        let mut extra = self.tasks.len() % members.len().max(1);
        let mut kept: BTreeMap<TaskId, usize> = BTreeMap::new();
        let mut loads = vec![0_usize; members.len()];
        for member in &order {
            for (id, partitions) in &self.tasks {
                if kept.contains_key(id) || !owns(&members[*member], partitions) {
                    continue;
                }
                let room = if loads[*member] < least {
                    true
                } else if loads[*member] == least && extra > 0 {
                    extra -= 1;
                    true
                } else {
                    false
                };
                if room {
                    loads[*member] += 1;
                    kept.insert(*id, *member);
                }
            }
        }
        let free: BTreeSet<TaskId> =
            self.tasks.keys().filter(|id| !kept.contains_key(id)).copied().collect();
        for id in free {
            // Tasks of one subtopology spread, because ids are given out in order to the least loaded.
            if let Some(member) = order.iter().min_by_key(|member| loads[**member]) {
                loads[*member] += 1;
                kept.insert(id, *member);
            }
        }
        kept
    }
}

fn owns(member: &Subscription, partitions: &[TopicPartition]) -> bool {
    partitions.iter().any(|partition| member.owned.contains(partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignor(partitions: usize) -> TaskAssignor {
        let app = crate::Topology::new("app");
        app.stream::<String, String>("a").to("b");
        let plan = app.build().expect("a valid topology");
        TaskAssignor::new(&plan, &Counts::from([("a".to_owned(), partitions)]))
    }

    fn member(id: &str, owned: &[i32]) -> Subscription {
        Subscription {
            member_id: id.to_owned(),
            owned: owned.iter().map(|number| TopicPartition::new("a", *number)).collect(),
            ..Subscription::default()
        }
    }

    fn numbers(assignment: &HashMap<String, Vec<TopicPartition>>, id: &str) -> Vec<i32> {
        assignment[id].iter().map(|partition| partition.partition).collect()
    }

    #[test]
    fn one_member_gets_everything() {
        let assignment = assignor(3).assign(&BTreeMap::new(), &[member("x", &[])]);
        assert_eq!(numbers(&assignment, "x"), [0, 1, 2]);
    }

    #[test]
    fn a_second_member_first_waits_for_what_moves() {
        let assignor = assignor(4);
        let first =
            assignor.assign(&BTreeMap::new(), &[member("x", &[0, 1, 2, 3]), member("y", &[])]);
        assert_eq!(numbers(&first, "x"), [0, 1]);
        assert!(numbers(&first, "y").is_empty());
        let second = assignor.assign(&BTreeMap::new(), &[member("x", &[0, 1]), member("y", &[])]);
        assert_eq!(numbers(&second, "x"), [0, 1]);
        assert_eq!(numbers(&second, "y"), [2, 3]);
    }

    #[test]
    fn tasks_of_a_member_that_left_go_to_the_others_and_theirs_stay() {
        let assignment =
            assignor(5).assign(&BTreeMap::new(), &[member("x", &[4, 1]), member("y", &[0])]);
        assert_eq!(numbers(&assignment, "x"), [1, 3, 4]);
        assert_eq!(numbers(&assignment, "y"), [0, 2]);
    }
}

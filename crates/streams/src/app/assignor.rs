//! Divides tasks among the members of a group of the classic protocol.
//!
//! The unit is the task: all partitions of one number that a subtopology reads go to one member. Where tasks and their
//! standbys are best, `placement` decides; what has to move is given up in one rebalance and taken in the next
//! (KIP-429), so that all other tasks run on. Members tell each other what that takes in the forms of `told`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fleuve_client::BoxFuture;
use fleuve_client::consumer::{Assigned, Assignor, RebalanceProtocol, Subscription};
use fleuve_types::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Settings;
use super::layout::{Layout, Layouts};
use super::placement::{self, Member, Placement, Spec};
use super::rebalancing::{Event, Warming};
use super::standby::Standbys;
use super::told::{Given, Told};
use super::topics::{Counts, tasks_of};
use crate::runtime::TaskId;
use crate::topology::Plan;

/// Divides tasks.
pub(super) struct TaskAssignor {
    layouts: Layouts,
    rules: Rules,
    /// How often this member has asked for another division.
    asked: Arc<AtomicU64>,
    /// What every member of this instance tells.
    told: Told,
    /// The state in this process; `None` in tests of the division alone.
    here: Option<Here>,
    /// The number of records in the changelogs of each task with state, as they were when this member divided last.
    sizes: Mutex<BTreeMap<TaskId, u64>>,
}

/// How many copies there are, and where.
#[derive(Clone, Debug, Default)]
struct Rules {
    standby_replicas: usize,
    warmup_replicas_max: usize,
    acceptable_lag: u64,
    rack_tags: Vec<String>,
    probing_interval: Duration,
}

/// What a member knows and moves in its own process.
pub(super) struct Here {
    /// The thread's number.
    pub(super) thread: usize,
    pub(super) standbys: Standbys,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl TaskAssignor {
    pub(super) fn new(layouts: Layouts, settings: &Settings) -> Self {
        Self {
            layouts,
            rules: Rules {
                standby_replicas: settings.num_standby_replicas,
                warmup_replicas_max: settings.max_warmup_replicas,
                acceptable_lag: settings.acceptable_recovery_lag,
                rack_tags: settings.rack_aware_assignment_tags.clone(),
                probing_interval: settings.probing_rebalance_interval,
            },
            asked: Arc::default(),
            told: Told {
                application_server: settings.application_server.clone(),
                tags: settings.client_tags.clone(),
                ..Told::default()
            },
            here: None,
            sizes: Mutex::default(),
        }
    }

    /// Makes the assignor of a thread of a process.
    pub(super) fn within(mut self, process: &str, here: Here) -> Self {
        process.clone_into(&mut self.told.process);
        self.here = Some(here);
        self
    }

    /// What to raise before the group is asked to divide anew.
    pub(super) fn asked(&self) -> Arc<AtomicU64> {
        self.asked.clone()
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
        let asked = self.asked.load(Ordering::Relaxed);
        let told = Told { asked, ..self.told.clone() };
        let told = match &self.here {
            Some(Here { standbys, .. }) => {
                told.with_tasks(standbys.running(), standbys.positions().into_iter())
            }
            None => told,
        };
        Some(told.to_bytes())
    }

    fn prepare<'a>(&'a self, members: &'a [Subscription]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(Here { standbys, events, .. }) = &self.here else {
                return;
            };
            if let Err(error) = self.layouts.look().await {
                // Tasks are divided once more as they were, and then the thread ends.
                let _ = events.send(Event::Failed(error));
            }
            let process = |member: &Subscription| Told::of_bytes(member.user_data.as_ref()).process;
            let processes: BTreeSet<String> = members.iter().map(process).collect();
            let layout = self.layouts.now();
            // A process alone has nobody to leave a task with.
            let sizes = match processes.len() {
                0 | 1 => Ok(BTreeMap::new()),
                _ => standbys.changelog_sizes(layout.tasks.keys().copied()).await,
            };
            *self.sizes.lock() = sizes.unwrap_or_else(|error| {
                // Then nobody is near enough but who runs a task.
                tracing::warn!(%error, "the ends of changelogs are not known");
                let stateful = layout.tasks.keys().filter(|id| standbys.is_followed(**id));
                stateful.map(|id| (*id, u64::MAX)).collect()
            });
        })
    }

    fn assign(
        &self,
        counts: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Vec<TopicPartition>> {
        let assigned = self.assign_with_data(counts, members).into_iter();
        assigned.map(|(member, assigned)| (member, assigned.partitions)).collect()
    }

    fn assign_with_data(
        &self,
        _: &BTreeMap<String, usize>,
        members: &[Subscription],
    ) -> HashMap<String, Assigned> {
        let layout = self.layouts.now();
        let spec = self.spec(&layout, members);
        let mut placement = placement::place(&spec);
        let mut partitions: Vec<Vec<TopicPartition>> = vec![Vec::new(); members.len()];
        let Placement { active, standby, .. } = &mut placement;
        for (id, winner) in active {
            // Somebody else still runs the task: it is given up now, and given out in the next rebalance.
            let holder = (0..members.len())
                .find(|member| member != winner && spec.members[*member].owned.contains(id));
            match holder {
                None => partitions[*winner].extend(layout.tasks[id].iter().cloned()),
                // Until then its state is kept where it is about to go.
                Some(holder) if spec.members[holder].process != spec.members[*winner].process => {
                    standby[*winner].insert(*id);
                }
                Some(_) => {}
            }
        }
        if placement.is_moving {
            tracing::info!(?placement, "tasks move when others have their state");
        }
        let first = (0..members.len()).min_by_key(|member| &members[*member].member_id);
        let each = members.iter().zip(partitions).enumerate();
        let assigned = each.map(|(index, (member, partitions))| {
            let probing = placement.is_moving && first == Some(index);
            let mut given =
                Given::new(&placement.standby[index], &placement.warmup[index], probing);
            given.partitions = self.layouts.follows().then(|| layout.counts.clone());
            let user_data = Some(given.to_bytes());
            (member.member_id.clone(), Assigned { partitions, user_data })
        });
        assigned.collect()
    }

    fn assigned(&self, assigned: &Assigned) {
        let Some(Here { thread, standbys, events }) = &self.here else {
            return;
        };
        let mut given = Given::of_bytes(assigned.user_data.as_ref());
        // Before the thread hears of its partitions, which may be of topics that are new here.
        if let Some(counts) = given.partitions.take()
            && let Err(error) = self.layouts.adopt(counts)
        {
            let _ = events.send(Event::Failed(error));
        }
        let warmup = given.warmup();
        standbys.keep(*thread, given.standby().union(&warmup).copied().collect());
        let probe_after = given.probing.then_some(self.rules.probing_interval);
        // A closed channel is a thread that has ended.
        let _ = events.send(Event::Warming(Warming { tasks: warmup, probe_after }));
    }
}

impl TaskAssignor {
    /// What all members tell, in numbers.
    fn spec(&self, layout: &Layout, members: &[Subscription]) -> Spec {
        let sizes = self.sizes.lock();
        let member = |subscription: &Subscription| {
            let told = Told::of_bytes(subscription.user_data.as_ref());
            let owned = layout.tasks.iter().filter(|(_, reads)| owns(subscription, reads));
            let owned: BTreeSet<TaskId> = owned.map(|(id, _)| *id).collect();
            let behind = told.positions().filter_map(|(id, offset)| {
                let size = sizes.get(&id)?;
                Some((id, size.saturating_sub(u64::try_from(offset).unwrap_or(0))))
            });
            let mut lags: BTreeMap<TaskId, u64> = behind.collect();
            lags.extend(told.running().map(|id| (id, 0)));
            if told.process.is_empty() {
                // It does not say, and can only be taken to run what it owns.
                lags.extend(owned.iter().map(|id| (*id, 0)));
            }
            let id = subscription.member_id.clone();
            let process = if told.process.is_empty() { id.clone() } else { told.process };
            Member { id, process, tags: told.tags, owned, lags }
        };
        Spec {
            tasks: layout.tasks.keys().map(|id| (*id, sizes.get(id).copied())).collect(),
            members: members.iter().map(member).collect(),
            standby_replicas: self.rules.standby_replicas,
            warmup_replicas_max: self.rules.warmup_replicas_max,
            acceptable_lag: self.rules.acceptable_lag,
            rack_tags: self.rules.rack_tags.clone(),
        }
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
        let counts = Counts::from([("a".to_owned(), partitions)]);
        TaskAssignor::new(Layouts::fixed(plan, counts), &Settings::default())
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

    #[test]
    fn state_is_brought_along_before_a_task_moves() {
        let assignor = assignor(2);
        assignor.sizes.lock().extend([0, 1].map(|partition| (id(partition), 1_000_000)));
        let told = |process: &str, running: &[i32], positions: &[(i32, i64)]| {
            let told = Told { process: process.to_owned(), ..Told::default() };
            let positions = positions.iter().map(|(partition, offset)| (id(*partition), *offset));
            Some(told.with_tasks(running.iter().copied().map(id), positions).to_bytes())
        };
        let runs = Subscription { user_data: told("x", &[0, 1], &[]), ..member("x", &[0, 1]) };
        let assign = |positions: &[(i32, i64)]| {
            let comes = Subscription { user_data: told("y", &[], positions), ..member("y", &[]) };
            let assigned = assignor.assign_with_data(&BTreeMap::new(), &[runs.clone(), comes]);
            let given = |id: &str| {
                let Assigned { partitions, user_data } = &assigned[id];
                (partitions.len(), Given::of_bytes(user_data.as_ref()))
            };
            (given("x"), given("y"))
        };
        let ((kept, told), (taken, given)) = assign(&[]);
        assert_eq!((kept, taken), (2, 0));
        assert_eq!(given.warmup(), BTreeSet::from([id(1)]));
        assert!(told.probing, "one member looks after the warm-ups");
        // Near enough: it is given up, and its state stays here until it is given out.
        let ((kept, told), (taken, given)) = assign(&[(1, 999_999)]);
        assert_eq!((kept, taken), (1, 0));
        assert_eq!(given.standby(), BTreeSet::from([id(1)]));
        assert!(given.warmup().is_empty() && !told.probing);
    }

    fn id(partition: i32) -> TaskId {
        TaskId { subtopology: 0, partition }
    }
}

//! The sticky assignor: who is to have which tasks.
//!
//! Active tasks stay with the member that had them, as long as that has not more than its share;
//! else they go to a member that kept a copy of their state, else to the process with the least to
//! do. Copies are placed the same way, never two of a task in one process. A process counts by its
//! threads, which are the members.
//!
//! Kafka's assignor leaves ties to the order of its hash maps. Here they go to the first by id, so
//! that equal groups get equal assignments.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;

use super::tasks::{Roles, Target, Tasks};

/// What the assignor is told.
#[derive(Debug, Default)]
pub(super) struct Spec<'a> {
    /// The members by id.
    pub(super) members: Vec<SpecMember<'a>>,
    /// The subtopologies by id.
    pub(super) subtopologies: Vec<SpecSubtopology<'a>>,
    /// Copies to keep of the state of each task that has any.
    pub(super) standby_replicas: usize,
}

/// A member as the assignor sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpecMember<'a> {
    pub(super) process_id: &'a Str,
    /// What it was to have before.
    pub(super) previous: &'a Target,
}

/// A subtopology as the assignor sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpecSubtopology<'a> {
    pub(super) id: &'a Str,
    pub(super) tasks: i32,
    /// Whether its tasks have state of which copies can be kept.
    pub(super) is_stateful: bool,
}

/// A task, by the place of its subtopology.
type Task = (usize, i32);

/// Decides what each member is to have, in the order of `spec.members`.
pub(super) fn assign(spec: &Spec<'_>) -> Vec<Target> {
    if spec.members.is_empty() {
        return Vec::new();
    }
    let mut assigning = Assigning::new(spec);
    assigning.assign_active();
    if spec.standby_replicas > 0 {
        assigning.assign_standby();
    }
    assigning.into_targets()
}

/// The tasks that are left to share out evenly, and among how many members.
///
/// A member that has got its share leaves the circle together with its tasks, so that the shares of
/// the others are computed from what remains.
#[derive(Clone, Copy, Debug)]
struct Quota {
    tasks: usize,
    members: usize,
    share: usize,
}

impl Quota {
    fn new(tasks: usize, members: usize) -> Self {
        Self { tasks, members, share: tasks.div_ceil(members.max(1)) }
    }

    fn note(&mut self, count: usize) {
        if count == self.share && self.members > 0 {
            let tasks = self.tasks.saturating_sub(count);
            let members = self.members - 1;
            let share = if members == 0 { 0 } else { tasks.div_ceil(members) };
            *self = Self { tasks, members, share };
        }
    }
}

/// Tasks in relation to threads; a process with less of it is served first.
#[derive(Clone, Copy, Debug)]
struct Load {
    tasks: usize,
    threads: usize,
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.tasks * other.threads).cmp(&(other.tasks * self.threads))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Load {}

/// A process with its members, which come in the order of what they have to do.
#[derive(Debug, Default)]
struct Process {
    members: BTreeSet<(usize, usize)>,
    tasks: BTreeSet<Task>,
    count: usize,
}

impl Process {
    fn load(&self) -> Load {
        Load { tasks: self.count, threads: self.members.len() }
    }
}

struct Assigning<'a> {
    spec: &'a Spec<'a>,
    processes: Vec<Process>,
    /// Processes in the order of their load.
    by_load: BTreeSet<(Load, usize)>,
    process_of: Vec<usize>,
    /// Number of tasks of each member.
    counts: Vec<usize>,
    active: Vec<Vec<Task>>,
    standby: Vec<Vec<Task>>,
    previous_active: BTreeMap<Task, usize>,
    previous_standby: BTreeMap<Task, Vec<usize>>,
    quota_active: Quota,
    quota_all: Quota,
}

impl<'a> Assigning<'a> {
    fn new(spec: &'a Spec<'a>) -> Self {
        let members = spec.members.len();
        let mut processes: Vec<Process> = Vec::new();
        let mut known: BTreeMap<&Str, usize> = BTreeMap::new();
        let mut process_of = Vec::with_capacity(members);
        for (index, member) in spec.members.iter().enumerate() {
            let process = *known.entry(member.process_id).or_insert_with(|| {
                processes.push(Process::default());
                processes.len() - 1
            });
            processes[process].members.insert((0, index));
            process_of.push(process);
        }
        let by_load =
            processes.iter().enumerate().map(|(index, process)| (process.load(), index)).collect();
        let tasks_of = |subtopology: &SpecSubtopology<'_>| subtopology.tasks.max(0) as usize;
        let active: usize = spec.subtopologies.iter().map(tasks_of).sum();
        let stateful = spec.subtopologies.iter().filter(|subtopology| subtopology.is_stateful);
        let copies = stateful.map(tasks_of).sum::<usize>() * spec.standby_replicas;
        let mut assigning = Self {
            spec,
            processes,
            by_load,
            process_of,
            counts: vec![0; members],
            active: vec![Vec::new(); members],
            standby: vec![Vec::new(); members],
            previous_active: BTreeMap::new(),
            previous_standby: BTreeMap::new(),
            quota_active: Quota::new(active, members),
            quota_all: Quota::new(active + copies, members),
        };
        for (index, member) in spec.members.iter().enumerate() {
            for task in assigning.known_tasks(&member.previous.active) {
                assigning.previous_active.insert(task, index);
            }
            for task in assigning.known_tasks(&member.previous.standby) {
                assigning.previous_standby.entry(task).or_default().push(index);
            }
        }
        assigning
    }

    /// The tasks of a former assignment that there still are.
    fn known_tasks(&self, tasks: &Tasks) -> Vec<Task> {
        let mut known = Vec::new();
        for (id, partitions) in tasks {
            let place = self.spec.subtopologies.binary_search_by(|known| known.id.cmp(id));
            let Ok(place) = place else { continue };
            let count = self.spec.subtopologies[place].tasks;
            known.extend(partitions.iter().filter(|p| **p < count).map(|p| (place, *p)));
        }
        known
    }

    fn tasks(&self, only_stateful: bool) -> Vec<Task> {
        let all = self.spec.subtopologies.iter().enumerate();
        let wanted = all.filter(|(_, subtopology)| subtopology.is_stateful || !only_stateful);
        wanted
            .flat_map(|(place, subtopology)| (0..subtopology.tasks).map(move |p| (place, p)))
            .collect()
    }

    fn assign_active(&mut self) {
        // Who had one partition of several subtopologies keeps them together.
        let mut tasks = self.tasks(false);
        tasks.sort_by_key(|(place, partition)| (*partition, *place));
        tasks.retain(|task| {
            let Some(member) = self.previous_active.get(task).copied() else { return true };
            !self.take_back(member, *task)
        });
        tasks.retain(|task| {
            let Some(member) = self.least_loaded_holder(*task, false) else { return true };
            !self.take_back(member, *task)
        });
        // What is left is given out in ranges.
        tasks.sort_unstable();
        for task in tasks {
            let Some((_, process)) = self.by_load.first().copied() else { return };
            self.give_to_process(process, task, true);
        }
    }

    /// Gives an active task to a member that knows it, unless that has its share already.
    fn take_back(&mut self, member: usize, task: Task) -> bool {
        let has_room = self.counts[member] < self.quota_active.share;
        if has_room {
            self.give(member, task, true);
        }
        has_room
    }

    fn assign_standby(&mut self) {
        let replicas = self.spec.standby_replicas;
        let mut left: Vec<(Task, usize)> = Vec::new();
        let mut tasks = self.tasks(true);
        tasks.sort_by_key(|(place, partition)| (*partition, *place));
        for task in tasks.into_iter().rev() {
            for placed in 0..replicas {
                // Who had the task until now still has its state.
                let before = self.previous_active.get(&task).copied();
                let before = before.filter(|member| !self.is_in_process_of(*member, task));
                if before.is_some_and(|member| self.give_copy(member, task)) {
                    continue;
                }
                let holder = self.least_loaded_holder(task, true);
                if holder.is_some_and(|member| self.give_copy(member, task)) {
                    continue;
                }
                left.push((task, replicas - placed));
                break;
            }
        }
        left.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (task, copies) in left {
            for _ in 0..copies {
                let free = self.by_load.iter().map(|(_, process)| *process);
                let mut free =
                    free.filter(|process| !self.processes[*process].tasks.contains(&task));
                // With too few processes there are fewer copies than asked for.
                let Some(process) = free.next() else { break };
                self.give_to_process(process, task, false);
            }
        }
    }

    /// Gives a copy to a member that knows the task, unless that has its share already.
    fn give_copy(&mut self, member: usize, task: Task) -> bool {
        let has_room = self.counts[member] < self.quota_all.share;
        if has_room {
            self.give(member, task, false);
        }
        has_room
    }

    /// Of those that kept a copy, the one with the least to do, in a process with the least to do.
    fn least_loaded_holder(&self, task: Task, must_be_free: bool) -> Option<usize> {
        let is_free = |member: &usize| !must_be_free || !self.is_in_process_of(*member, task);
        let load = |member: usize| self.processes[self.process_of[member]].load();
        let mut holders = self.previous_standby.get(&task)?.iter().copied().filter(is_free);
        let first = holders.next()?;
        Some(holders.fold(first, |best, other| {
            let is_better = load(other) < load(best) && self.counts[other] < self.counts[best];
            if is_better { other } else { best }
        }))
    }

    fn is_in_process_of(&self, member: usize, task: Task) -> bool {
        self.processes[self.process_of[member]].tasks.contains(&task)
    }

    fn give_to_process(&mut self, process: usize, task: Task, is_active: bool) {
        if let Some((_, member)) = self.processes[process].members.first().copied() {
            self.give(member, task, is_active);
        }
    }

    fn give(&mut self, member: usize, task: Task, is_active: bool) {
        let index = self.process_of[member];
        let process = &mut self.processes[index];
        self.by_load.remove(&(process.load(), index));
        process.members.remove(&(self.counts[member], member));
        self.counts[member] += 1;
        process.members.insert((self.counts[member], member));
        process.tasks.insert(task);
        process.count += 1;
        self.by_load.insert((process.load(), index));
        if is_active {
            self.active[member].push(task);
            self.quota_active.note(self.counts[member]);
        } else {
            self.standby[member].push(task);
        }
        self.quota_all.note(self.counts[member]);
    }

    fn into_targets(self) -> Vec<Target> {
        let named = |tasks: &[Task]| {
            let mut by_id = Tasks::new();
            for (place, partition) in tasks {
                let id = self.spec.subtopologies[*place].id;
                by_id.entry(id.clone()).or_default().insert(*partition);
            }
            by_id
        };
        let members = self.active.iter().zip(&self.standby);
        members
            .map(|(active, standby)| Roles {
                active: named(active),
                standby: named(standby),
                warmup: Tasks::new(),
            })
            .collect()
    }
}

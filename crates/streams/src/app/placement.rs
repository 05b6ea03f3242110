//! Who is to have which task, and whose state: decided from what all members tell, and from nothing else.
//!
//! 1. Every task gets the thread where it would best be: threads have equally many, tasks stay where they are, and
//!    otherwise go where a copy of their state is.
//! 2. A task with state whose best place has too little of it stays for now where there is more, and its best place
//!    gets a warm-up, which brings the state there. So many warm-ups at a time; once one has come near enough, the
//!    group divides anew, and the task moves (KIP-441).
//! 3. Standbys go to other processes than their task's, first to those of other tags, then where the state is already,
//!    then to those with the least to do. They, too, stay where the state is until there is a warm-up in their place.
//!
//! A process keeps state for all its threads, so it counts once for copies, and by its threads for the work it can do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::runtime::TaskId;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Spec {
    /// The tasks, those with state with the number of records in their changelogs.
    pub(super) tasks: BTreeMap<TaskId, Option<u64>>,
    pub(super) members: Vec<Member>,
    pub(super) standby_replicas: usize,
    pub(super) warmup_replicas_max: usize,
    /// Who lacks no more records than these is as good as one who has all.
    pub(super) acceptable_lag: u64,
    /// Tags in which the copies of a task are to differ.
    pub(super) rack_tags: Vec<String>,
}

/// A thread.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) process: String,
    pub(super) tags: BTreeMap<String, String>,
    /// The tasks it has.
    pub(super) owned: BTreeSet<TaskId>,
    /// The records that its process lacks of tasks whose state it has.
    pub(super) lags: BTreeMap<TaskId, u64>,
}

/// Who has what, by the place of members in the [`Spec`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) active: BTreeMap<TaskId, usize>,
    pub(super) standby: Vec<BTreeSet<TaskId>>,
    pub(super) warmup: Vec<BTreeSet<TaskId>>,
    /// Whether tasks are not where they would best be.
    pub(super) is_moving: bool,
}

/// Decides.
pub(super) fn place(spec: &Spec) -> Placement {
    let mut placing = Placing::new(spec);
    let best = placing.best_places();
    let mut placement = Placement {
        active: best.clone(),
        standby: vec![BTreeSet::new(); spec.members.len()],
        warmup: vec![BTreeSet::new(); spec.members.len()],
        is_moving: false,
    };
    if !spec.members.is_empty() {
        placing.stay_where_state_is(&mut placement);
        placing.add_standbys(&best, &mut placement);
    }
    placement
}

struct Process {
    members: Vec<usize>,
    tags: BTreeMap<String, String>,
    lags: BTreeMap<TaskId, u64>,
    /// Tasks of any kind.
    count: usize,
}

struct Placing<'a> {
    spec: &'a Spec,
    processes: Vec<Process>,
    process_of: Vec<usize>,
    /// The members in the order of their ids.
    order: Vec<usize>,
    loads: Vec<usize>,
    /// Warm-ups that may still be given.
    warmups: usize,
}

impl<'a> Placing<'a> {
    fn new(spec: &'a Spec) -> Self {
        let mut order: Vec<usize> = (0..spec.members.len()).collect();
        order.sort_by_key(|member| &spec.members[*member].id);
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        let mut processes: Vec<Process> = Vec::new();
        let mut process_of = vec![0; spec.members.len()];
        for index in &order {
            let member = &spec.members[*index];
            let process = *known.entry(&member.process).or_insert_with(|| {
                let (members, tags) = (Vec::new(), member.tags.clone());
                processes.push(Process { members, tags, lags: BTreeMap::new(), count: 0 });
                processes.len() - 1
            });
            processes[process].members.push(*index);
            process_of[*index] = process;
            for (id, lag) in &member.lags {
                let known = processes[process].lags.entry(*id).or_insert(*lag);
                *known = (*known).min(*lag);
            }
        }
        let loads = vec![0; spec.members.len()];
        let warmups = spec.warmup_replicas_max;
        Self { spec, processes, process_of, order, loads, warmups }
    }

    /// The records that a process lacks of a task.
    fn lag(&self, process: usize, id: TaskId) -> u64 {
        let all = || self.spec.tasks.get(&id).copied().flatten().unwrap_or(0);
        self.processes[process].lags.get(&id).copied().unwrap_or_else(all)
    }

    fn has_caught_up(&self, process: usize, id: TaskId) -> bool {
        self.lag(process, id) <= self.spec.acceptable_lag
    }

    /// Whether a process has a copy of a task's state that is near its end.
    fn has_copy(&self, process: usize, id: TaskId) -> bool {
        self.processes[process].lags.contains_key(&id) && self.has_caught_up(process, id)
    }

    fn stateful(&self) -> impl Iterator<Item = TaskId> + use<'a> {
        self.spec.tasks.iter().filter(|(_, size)| size.is_some()).map(|(id, _)| *id)
    }

    /// The thread of each task, as if state were everywhere.
    fn best_places(&mut self) -> BTreeMap<TaskId, usize> {
        let (tasks, members) = (self.spec.tasks.len(), self.spec.members.len().max(1));
        let least = tasks / members;
        // So many threads may have one task more.
        let mut extra = tasks % members;
        let mut places: BTreeMap<TaskId, usize> = BTreeMap::new();
        for member in self.order.clone() {
            let mut owned: Vec<TaskId> = self.spec.members[member]
                .owned
                .iter()
                .filter(|id| self.spec.tasks.contains_key(id) && !places.contains_key(id))
                .copied()
                .collect();
            // What another process is ready for goes first, if something has to go.
            let here = self.process_of[member];
            owned.sort_by_key(|id| {
                let others = (0..self.processes.len()).filter(|process| *process != here);
                (others.filter(|process| self.has_copy(*process, *id)).count() > 0, *id)
            });
            for id in owned {
                if self.has_room(member, least, &mut extra) {
                    self.loads[member] += 1;
                    places.insert(id, member);
                }
            }
        }
        let missing = |places: &BTreeMap<TaskId, usize>| -> Vec<TaskId> {
            self.spec.tasks.keys().filter(|id| !places.contains_key(id)).copied().collect()
        };
        for id in missing(&places) {
            let holders = self.order.iter().copied();
            let holder = holders
                .filter(|member| self.has_copy(self.process_of[*member], id))
                .min_by_key(|member| self.loads[*member]);
            if let Some(holder) = holder
                && self.has_room(holder, least, &mut extra)
            {
                self.loads[holder] += 1;
                places.insert(id, holder);
            }
        }
        for id in missing(&places) {
            // Tasks of one subtopology spread, because ids are given out in order to the least loaded.
            let least_loaded = self.order.iter().copied().min_by_key(|member| self.loads[*member]);
            if let Some(member) = least_loaded {
                self.loads[member] += 1;
                places.insert(id, member);
            }
        }
        places
    }

    fn has_room(&self, member: usize, least: usize, extra: &mut usize) -> bool {
        if self.loads[member] == least && *extra > 0 {
            *extra -= 1;
            return true;
        }
        self.loads[member] < least
    }

    /// Leaves tasks where their state is, and warms up the places where they are to go.
    fn stay_where_state_is(&mut self, placement: &mut Placement) {
        let others = |best: usize| (0..self.processes.len()).filter(move |other| *other != best);
        let mut moves: Vec<(Reverse<bool>, usize, TaskId)> = Vec::new();
        for id in self.stateful() {
            let best = self.process_of[placement.active[&id]];
            let lag = self.lag(best, id);
            if !self.has_caught_up(best, id) && others(best).any(|other| self.lag(other, id) < lag)
            {
                let caught_up = others(best).filter(|other| self.has_caught_up(*other, id));
                // Warm-ups go on before others begin, and tasks that fewest can run come first.
                let is_warming = self.processes[best].lags.contains_key(&id);
                moves.push((Reverse(is_warming), caught_up.count(), id));
            }
        }
        moves.sort_unstable();
        placement.is_moving = !moves.is_empty();
        for (_, _, id) in moves {
            let member = placement.active[&id];
            let best = self.process_of[member];
            let owners = |process: usize| {
                let members = self.processes[process].members.iter().copied();
                members.filter(|member| self.spec.members[*member].owned.contains(&id))
            };
            let from = (0..self.processes.len()).filter(|process| *process != best).min_by_key(
                |process| {
                    let lag = self.lag(*process, id);
                    let lacking = if lag <= self.spec.acceptable_lag { 0 } else { lag };
                    (lacking, owners(*process).next().is_none(), lag, *process)
                },
            );
            let Some(from) = from else {
                continue;
            };
            let least_loaded = || {
                let members = self.processes[from].members.iter().copied();
                members.min_by_key(|member| self.loads[*member])
            };
            let Some(stays) = owners(from).next().or_else(least_loaded) else {
                continue;
            };
            self.loads[member] -= 1;
            self.loads[stays] += 1;
            placement.active.insert(id, stays);
            self.warm_up(best, id, placement);
        }
    }

    fn warm_up(&mut self, process: usize, id: TaskId, placement: &mut Placement) {
        if let Some(left) = self.warmups.checked_sub(1) {
            self.warmups = left;
            // The process keeps it, whichever of its threads is told.
            placement.warmup[self.processes[process].members[0]].insert(id);
        }
    }

    fn add_standbys(&mut self, best: &BTreeMap<TaskId, usize>, placement: &mut Placement) {
        for member in placement.active.values() {
            self.processes[self.process_of[*member]].count += 1;
        }
        let stateful = self.stateful().count();
        let all = self.spec.tasks.len() + stateful * self.spec.standby_replicas;
        let mut chosen: BTreeMap<TaskId, Vec<usize>> = BTreeMap::new();
        // First those that have the state and no more to do than their share, then the rest.
        for only_holders in [true, false] {
            for id in self.stateful() {
                let taken =
                    [placement.active[&id], best[&id]].map(|member| self.process_of[member]);
                let copies = chosen.entry(id).or_default();
                while copies.len() < self.spec.standby_replicas {
                    let next = self.next_standby(id, taken, copies, only_holders.then_some(all));
                    let Some(process) = next else {
                        break;
                    };
                    copies.push(process);
                    self.processes[process].count += 1;
                }
            }
        }
        for (id, copies) in chosen {
            let taken = [placement.active[&id], best[&id]].map(|member| self.process_of[member]);
            let mut instead = (0..self.processes.len())
                .filter(|process| !taken.contains(process) && !copies.contains(process))
                .filter(|process| self.has_copy(*process, id))
                .collect::<Vec<_>>()
                .into_iter();
            for process in copies {
                let mut keeps = process;
                if !self.has_caught_up(process, id)
                    && let Some(holder) = instead.next()
                {
                    keeps = holder;
                    placement.is_moving = true;
                    self.warm_up(process, id, placement);
                }
                placement.standby[self.processes[keeps].members[0]].insert(id);
            }
        }
    }

    /// The process for the next standby of a task. With `all`, the number of tasks of any kind, only one that has the
    /// state, less than its share, and tags as good as any other's.
    fn next_standby(
        &self,
        id: TaskId,
        taken: [usize; 2],
        copies: &[usize],
        all: Option<usize>,
    ) -> Option<usize> {
        let free = || {
            let processes = 0..self.processes.len();
            processes.filter(|process| !taken.contains(process) && !copies.contains(process))
        };
        // The task's final place counts, and what was chosen for it so far.
        let used: Vec<usize> = copies.iter().copied().chain([taken[1]]).collect();
        let conflicts = |process: usize| {
            let tag = |process: usize, key: &String| self.processes[process].tags.get(key);
            let same =
                |key: &&String| used.iter().any(|other| tag(*other, key) == tag(process, key));
            self.spec.rack_tags.iter().filter(same).count()
        };
        let threads = self.spec.members.len();
        match all {
            Some(all) => {
                let fewest = free().map(conflicts).min()?;
                let has_room = |process: &usize| {
                    let Process { members, count, .. } = &self.processes[*process];
                    count * threads < (all * members.len()).next_multiple_of(threads)
                };
                free()
                    .filter(|process| self.has_copy(*process, id) && conflicts(*process) == fewest)
                    .filter(has_room)
                    .min_by_key(|process| (self.lag(*process, id), *process))
            }
            None => free().min_by(|a, b| {
                let load = |process: usize, other: usize| {
                    self.processes[process].count * self.processes[other].members.len()
                };
                let by_tags = conflicts(*a).cmp(&conflicts(*b));
                by_tags.then(load(*a, *b).cmp(&load(*b, *a))).then(a.cmp(b))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 1_000_000;

    fn task(partition: i32) -> TaskId {
        TaskId { subtopology: 0, partition }
    }

    fn tasks(partitions: &[i32]) -> BTreeSet<TaskId> {
        partitions.iter().copied().map(task).collect()
    }

    /// A thread that runs these tasks, in a process of its own.
    fn running(id: &str, partitions: &[i32]) -> Member {
        Member {
            id: id.to_owned(),
            process: id.to_owned(),
            owned: tasks(partitions),
            lags: partitions.iter().map(|partition| (task(*partition), 0)).collect(),
            ..Member::default()
        }
    }

    impl Member {
        fn with_copy(mut self, partition: i32, lag: u64) -> Self {
            self.lags.insert(task(partition), lag);
            self
        }

        fn tagged(mut self, key: &str, value: &str) -> Self {
            self.tags.insert(key.to_owned(), value.to_owned());
            self
        }
    }

    fn spec(count: i32, members: Vec<Member>) -> Spec {
        Spec {
            tasks: (0..count).map(|partition| (task(partition), Some(LARGE))).collect(),
            members,
            standby_replicas: 0,
            warmup_replicas_max: 2,
            acceptable_lag: 10_000,
            rack_tags: Vec::new(),
        }
    }

    fn active(placement: &Placement, member: usize) -> Vec<i32> {
        let of_member = placement.active.iter().filter(|(_, at)| **at == member);
        of_member.map(|(id, _)| id.partition).collect()
    }

    #[test]
    fn a_newcomer_warms_up_what_it_is_to_have_and_gets_it_once_it_is_near_enough() {
        let joined = spec(6, vec![running("a", &[0, 1, 2, 3, 4, 5]), running("b", &[])]);
        let placement = place(&joined);
        assert_eq!(active(&placement, 0), [0, 1, 2, 3, 4, 5]);
        assert!(placement.is_moving);
        // No more than two at a time.
        assert_eq!(placement.warmup[1], tasks(&[3, 4]));

        let newcomer = running("b", &[]).with_copy(3, 10_000).with_copy(4, 10_001);
        let placement = place(&spec(6, vec![running("a", &[0, 1, 2, 3, 4, 5]), newcomer]));
        assert_eq!(active(&placement, 1), [3]);
        assert_eq!(placement.warmup[1], tasks(&[4, 5]));

        let ready =
            (3..6).fold(running("b", &[]), |member, partition| member.with_copy(partition, 5));
        let placement = place(&spec(6, vec![running("a", &[0, 1, 2, 3, 4, 5]), ready]));
        assert_eq!(active(&placement, 1), [3, 4, 5]);
        assert!(!placement.is_moving && placement.warmup[1].is_empty());
    }

    #[test]
    fn tasks_without_state_or_with_little_move_at_once() {
        for size in [None, Some(10_000)] {
            let mut joined = spec(4, vec![running("a", &[0, 1, 2, 3]), running("b", &[])]);
            joined.tasks.values_mut().for_each(|known| *known = size);
            let placement = place(&joined);
            assert_eq!((active(&placement, 0), active(&placement, 1)), (vec![0, 1], vec![2, 3]));
            assert!(!placement.is_moving);
        }
    }

    #[test]
    fn the_tasks_of_a_member_that_died_go_where_their_standbys_are() {
        let a = running("a", &[0, 3]).with_copy(1, 7);
        let c = running("c", &[2]).with_copy(4, 0);
        let placement = place(&spec(5, vec![a, c]));
        assert_eq!((active(&placement, 0), active(&placement, 1)), (vec![0, 1, 3], vec![2, 4]));
        // Where the only copy is, even if that makes more than others have; the share moves once it is warm.
        let a = running("a", &[0]).with_copy(1, 7).with_copy(2, 7);
        let placement = place(&spec(4, vec![a, running("b", &[3])]));
        assert_eq!((active(&placement, 0), active(&placement, 1)), (vec![0, 1, 2], vec![3]));
        assert_eq!(placement.warmup[1], tasks(&[2]));
    }

    #[test]
    fn a_task_that_nobody_has_is_restored_where_most_of_it_is() {
        let a = running("a", &[0]);
        let b = running("b", &[]).with_copy(1, LARGE / 2);
        let placement = place(&spec(2, vec![a, b]));
        assert_eq!((active(&placement, 0), active(&placement, 1)), (vec![0], vec![1]));
        assert!(!placement.is_moving);
    }

    #[test]
    fn standbys_are_in_other_processes_and_stay_where_they_are() {
        let two_threads = |tasks: [&[i32]; 2]| {
            let mut threads = [running("a-1", tasks[0]), running("a-2", tasks[1])];
            threads.iter_mut().for_each(|thread| "a".clone_into(&mut thread.process));
            Vec::from(threads)
        };
        let mut members = two_threads([&[0, 1], &[2, 3]]);
        members.push(running("b", &[4, 5]));
        let mut all = spec(6, members);
        all.standby_replicas = 1;
        let placement = place(&all);
        assert_eq!(placement.standby[0], tasks(&[4, 5]));
        assert!(placement.standby[1].is_empty(), "a process is told once");
        assert_eq!(placement.standby[2], tasks(&[0, 1, 2, 3]));

        // With another process, those that have the state keep it until that has it, too.
        let mut members = two_threads([&[0, 1], &[2, 3]]);
        let b =
            (0..4).fold(running("b", &[4, 5]), |member, partition| member.with_copy(partition, 3));
        members.extend([b, running("c", &[])]);
        members[0].lags.extend([(task(4), 3), (task(5), 3)]);
        let mut all = spec(6, members);
        all.standby_replicas = 1;
        let placement = place(&all);
        assert_eq!(placement.standby[2], tasks(&[0, 1, 2, 3]));
        assert_eq!(placement.warmup[3], tasks(&[1, 5]));
        assert!(placement.is_moving);
        all.members[3].lags.extend((1..4).map(|partition| (task(partition), 0)));
        let placement = place(&all);
        assert_eq!(placement.standby[0], tasks(&[4, 5]));
        assert_eq!(placement.standby[2], tasks(&[0]));
        assert_eq!(placement.standby[3], tasks(&[1, 2, 3]));
    }

    #[test]
    fn copies_of_a_task_are_spread_over_racks() {
        let member =
            |id: &str, partitions: &[i32], zone: &str| running(id, partitions).tagged("zone", zone);
        let mut racks = spec(
            4,
            vec![
                member("a", &[0], "x"),
                // The state is here already, but a copy in the same rack is lost together with the task.
                member("b", &[1], "x").with_copy(0, 0),
                member("c", &[2], "y"),
                member("d", &[3], "z"),
            ],
        );
        racks.tasks.values_mut().for_each(|size| *size = Some(5_000));
        racks.standby_replicas = 2;
        racks.rack_tags = vec!["zone".to_owned()];
        let placement = place(&racks);
        let holders = |partition: i32| -> Vec<usize> {
            let standby = placement.standby.iter().enumerate();
            standby.filter(|(_, ids)| ids.contains(&task(partition))).map(|(at, _)| at).collect()
        };
        assert_eq!(holders(0), [2, 3]);
        assert_eq!(holders(1), [2, 3]);
        for partition in [2, 3] {
            let zones: BTreeSet<&str> = holders(partition)
                .into_iter()
                .chain([partition as usize])
                .map(|at| &*racks.members[at].tags["zone"])
                .collect();
            assert_eq!(zones.len(), 3, "of task {partition}");
        }
        // With too few racks there are copies all the same.
        racks.standby_replicas = 3;
        let placement = place(&racks);
        assert_eq!(placement.standby.iter().map(BTreeSet::len).sum::<usize>(), 12);
    }

    #[test]
    fn with_too_few_processes_there_are_fewer_copies_and_without_members_nothing() {
        let mut alone = spec(2, vec![running("a", &[0, 1])]);
        alone.standby_replicas = 1;
        assert!(place(&alone).standby[0].is_empty());
        assert!(place(&spec(2, Vec::new())).active.is_empty());
    }
}

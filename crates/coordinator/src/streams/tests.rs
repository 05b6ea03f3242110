//! The assignor by itself: whatever members and tasks there are, what it decides is complete, even,
//! and moves no more than it must.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;
use proptest::prelude::*;

use super::assignor::{Spec, SpecMember, SpecSubtopology, assign};
use super::tasks::{Target, Tasks};

#[derive(Clone, Debug)]
struct Application {
    /// Members by process.
    members: Vec<Str>,
    /// Subtopologies with their tasks, and whether these have state.
    subtopologies: Vec<(Str, i32, bool)>,
    copies: usize,
}

impl Application {
    fn new(members: &[&'static str], subtopologies: &[(&'static str, i32, bool)]) -> Self {
        Self {
            members: members.iter().map(|process| Str::from_static(process)).collect(),
            subtopologies: subtopologies
                .iter()
                .map(|(id, tasks, is_stateful)| (Str::from_static(id), *tasks, *is_stateful))
                .collect(),
            copies: 0,
        }
    }

    fn assign(&self, previous: &[Target]) -> Vec<Target> {
        let nothing = Target::default();
        let members = self.members.iter().enumerate().map(|(index, process_id)| SpecMember {
            process_id,
            previous: previous.get(index).unwrap_or(&nothing),
        });
        let subtopologies = self.subtopologies.iter().map(|(id, tasks, is_stateful)| {
            SpecSubtopology { id, tasks: *tasks, is_stateful: *is_stateful }
        });
        let spec = Spec {
            members: members.collect(),
            subtopologies: subtopologies.collect(),
            standby_replicas: self.copies,
        };
        let targets = assign(&spec);
        self.check(&targets);
        targets
    }

    /// What holds for every assignment.
    fn check(&self, targets: &[Target]) {
        assert_eq!(targets.len(), self.members.len());
        let mut active = BTreeSet::new();
        let mut in_process: BTreeSet<(&Str, (&Str, i32))> = BTreeSet::new();
        let mut copies: BTreeMap<(&Str, i32), usize> = BTreeMap::new();
        for (process, target) in self.members.iter().zip(targets) {
            assert!(target.warmup.is_empty());
            for task in each(&target.active) {
                assert!(active.insert(task), "{task:?} is active twice");
                assert!(in_process.insert((process, task)), "{task:?} twice in {process}");
            }
            for task in each(&target.standby) {
                *copies.entry(task).or_default() += 1;
                assert!(in_process.insert((process, task)), "{task:?} twice in {process}");
            }
        }
        let processes: BTreeSet<&Str> = self.members.iter().collect();
        for (id, tasks, is_stateful) in &self.subtopologies {
            for partition in 0..*tasks {
                assert_eq!(active.contains(&(id, partition)), !targets.is_empty());
                let possible = if *is_stateful { self.copies } else { 0 };
                let possible = possible.min(processes.len().saturating_sub(1));
                assert_eq!(copies.get(&(id, partition)).copied().unwrap_or(0), possible);
            }
        }
    }

    /// Tasks of each process in relation to its threads, the least and the most.
    fn loads(&self, targets: &[Target]) -> Vec<f64> {
        let mut by_process: BTreeMap<&Str, (usize, usize)> = BTreeMap::new();
        for (process, target) in self.members.iter().zip(targets) {
            let (tasks, threads) = by_process.entry(process).or_default();
            *tasks += each(&target.active).count() + each(&target.standby).count();
            *threads += 1;
        }
        by_process.into_values().map(|(tasks, threads)| tasks as f64 / threads as f64).collect()
    }
}

fn each(tasks: &Tasks) -> impl Iterator<Item = (&Str, i32)> {
    tasks.iter().flat_map(|(id, partitions)| partitions.iter().map(move |p| (id, *p)))
}

fn count(target: &Target) -> usize {
    each(&target.active).count()
}

#[test]
fn tasks_stay_when_a_member_comes_or_goes() {
    let two = Application::new(&["a", "b"], &[("0", 6, true), ("1", 6, false)]);
    let first = two.assign(&[]);
    assert_eq!(first.iter().map(count).collect::<Vec<_>>(), [6, 6]);
    assert_eq!(two.assign(&first), first, "nothing has changed");

    let three = Application::new(&["a", "b", "c"], &[("0", 6, true), ("1", 6, false)]);
    let second = three.assign(&first);
    assert_eq!(second.iter().map(count).collect::<Vec<_>>(), [4, 4, 4]);
    for (before, after) in first.iter().zip(&second) {
        let before: BTreeSet<_> = each(&before.active).collect();
        assert!(each(&after.active).all(|task| before.contains(&task)), "only c gets tasks");
    }

    let left = two.assign(&second[..2]);
    for (before, after) in second.iter().zip(&left) {
        let after: BTreeSet<_> = each(&after.active).collect();
        assert!(each(&before.active).all(|task| after.contains(&task)), "nobody loses tasks");
    }
}

#[test]
fn who_has_a_copy_takes_over_as_far_as_its_share_goes() {
    let mut three = Application::new(&["a", "b", "c"], &[("0", 6, true)]);
    three.copies = 1;
    let first = three.assign(&[]);
    let mut two = Application::new(&["b", "c"], &[("0", 6, true)]);
    two.copies = 1;
    let second = two.assign(&first[1..]);
    let orphans: BTreeSet<_> = each(&first[0].active).collect();
    assert_eq!(orphans.len(), 2);
    for task in orphans {
        let heir =
            |targets: &[Target]| targets.iter().position(|t| each(&t.active).any(|t| t == task));
        let heir = heir(&second).expect("the task is somebody's");
        let has_copy = |index: &usize| each(&first[1 + index].standby).any(|copy| copy == task);
        let holder = (0..2).find(has_copy).expect("there was a copy");
        let is_full = count(&second[holder]) == 3;
        assert!(heir == holder || is_full, "{task:?} passes by whoever has its state");
    }
}

#[test]
fn processes_count_by_their_threads() {
    let application = Application::new(&["a", "a", "a", "b"], &[("0", 8, false)]);
    let targets = application.assign(&[]);
    assert_eq!(targets.iter().map(count).collect::<Vec<_>>(), [2, 2, 2, 2]);
}

#[test]
fn a_smaller_topology_forgets_tasks_that_are_gone() {
    let wide = Application::new(&["a", "b"], &[("0", 6, false)]);
    let before = wide.assign(&[]);
    let narrow = Application::new(&["a", "b"], &[("0", 2, false), ("7", 2, false)]);
    let after = narrow.assign(&before);
    assert_eq!(after.iter().map(count).collect::<Vec<_>>(), [2, 2]);
}

proptest! {
    #[test]
    fn assignments_are_complete_even_and_sticky(
        processes in proptest::collection::vec(0..4usize, 1..9),
        later in proptest::collection::vec(0..4usize, 1..9),
        tasks in proptest::collection::vec((0..9i32, any::<bool>()), 1..4),
        copies in 0..3usize,
    ) {
        const PROCESSES: [&str; 4] = ["p", "q", "r", "s"];
        const IDS: [&str; 3] = ["0", "1", "2"];
        let subtopologies: Vec<_> = tasks
            .iter()
            .zip(IDS)
            .map(|((tasks, is_stateful), id)| (id, *tasks, *is_stateful))
            .collect();
        let application = |members: &[usize]| {
            let members: Vec<&'static str> = members.iter().map(|index| PROCESSES[*index]).collect();
            Application { copies, ..Application::new(&members, &subtopologies) }
        };
        let now = application(&processes);
        let first = now.assign(&[]);
        if copies == 0 {
            let loads = now.loads(&first);
            let least = loads.iter().copied().fold(f64::INFINITY, f64::min);
            let most = loads.iter().copied().fold(0.0, f64::max);
            prop_assert!(most - least <= 1.0, "{loads:?}");
        }
        let again = now.assign(&first);
        if copies == 0 {
            prop_assert_eq!(&again, &first);
        }
        // The same holds when others take over with whatever memories.
        application(&later).assign(&first);
    }
}

//! Tasks: a subtopology and a partition of it, in one of three roles.

use std::collections::{BTreeMap, BTreeSet};

use fleuve_protocol::Str;

/// Tasks by subtopology.
pub(crate) type Tasks = BTreeMap<Str, BTreeSet<i32>>;

/// Tasks by subtopology, each with the epoch in which the member got it.
pub(crate) type TasksWithEpochs = BTreeMap<Str, BTreeMap<i32, i32>>;

/// Lists of tasks as requests and replies carry them, by subtopology.
pub type TaskList = Vec<(Str, Vec<i32>)>;

/// Tasks in their roles, `A` being how the active ones are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles<A, T = A> {
    /// Those that process records.
    pub active: A,
    /// Those that keep a copy of the state, to take over.
    pub standby: T,
    /// Those that build up state before they become active.
    pub warmup: T,
}

/// What a member is to have in the end.
pub(crate) type Target = Roles<Tasks>;

/// What a member has. Only what is active has epochs: offsets are committed for nothing else.
pub(crate) type Assigned = Roles<TasksWithEpochs, Tasks>;

impl Assigned {
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// How many they are.
    fn count(&self) -> usize {
        self.active.values().map(BTreeMap::len).sum::<usize>()
            + self.standby.values().chain(self.warmup.values()).map(BTreeSet::len).sum::<usize>()
    }

    /// As lists to be told.
    pub(crate) fn to_lists(&self) -> Roles<TaskList> {
        Roles {
            active: epochs_to_list(&self.active),
            standby: to_list(&self.standby),
            warmup: to_list(&self.warmup),
        }
    }
}

impl Target {
    /// As lists to be told.
    pub(crate) fn to_lists(&self) -> Roles<TaskList> {
        Roles {
            active: to_list(&self.active),
            standby: to_list(&self.standby),
            warmup: to_list(&self.warmup),
        }
    }
}

impl Roles<TaskList> {
    /// Whether one of these tasks is, in its role, among `others`.
    pub(crate) fn has_any_of(&self, others: &Assigned) -> bool {
        let in_active = |task: &(Str, Vec<i32>)| {
            others.active.get(&task.0).is_some_and(|all| task.1.iter().any(|p| all.contains_key(p)))
        };
        let in_set = |list: &TaskList, set: &Tasks| {
            list.iter().any(|(subtopology, partitions)| {
                set.get(subtopology).is_some_and(|all| partitions.iter().any(|p| all.contains(p)))
            })
        };
        self.active.iter().any(in_active)
            || in_set(&self.standby, &others.standby)
            || in_set(&self.warmup, &others.warmup)
    }

    /// Whether all of these tasks are, in their roles, among `others`.
    pub(crate) fn are_all_in(&self, others: &Assigned) -> bool {
        let in_active = |task: &(Str, Vec<i32>)| {
            others.active.get(&task.0).is_some_and(|all| task.1.iter().all(|p| all.contains_key(p)))
        };
        let in_set = |list: &TaskList, set: &Tasks| {
            list.iter().all(|(subtopology, partitions)| {
                set.get(subtopology).is_some_and(|all| partitions.iter().all(|p| all.contains(p)))
            })
        };
        self.active.iter().all(in_active)
            && in_set(&self.standby, &others.standby)
            && in_set(&self.warmup, &others.warmup)
    }

    /// Whether these tasks are, in their roles, `others` and no fewer.
    pub(crate) fn are_exactly(&self, others: &Assigned) -> bool {
        let count: usize = self.iter().map(|(_, partitions)| partitions.len()).sum();
        self.are_all_in(others) && count == others.count()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// Every task, whatever its role.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Str, Vec<i32>)> {
        self.active.iter().chain(&self.standby).chain(&self.warmup)
    }
}

pub(crate) fn to_list(tasks: &Tasks) -> TaskList {
    let each = tasks.iter();
    each.map(|(subtopology, all)| (subtopology.clone(), all.iter().copied().collect())).collect()
}

pub(crate) fn epochs_to_list(tasks: &TasksWithEpochs) -> TaskList {
    let each = tasks.iter();
    each.map(|(subtopology, all)| (subtopology.clone(), all.keys().copied().collect())).collect()
}

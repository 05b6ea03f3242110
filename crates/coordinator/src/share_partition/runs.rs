//! Runs of offsets that share a state.
//!
//! Invariant: the runs tile `start..next` without holes or overlaps. Neighbours that are alike are
//! joined, so that the number of runs follows the number of differences and not of records.

use std::collections::BTreeMap;

use fleuve_protocol::Str;

/// What became of a record, as `__share_group_state` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordState {
    /// It may be acquired.
    Available,
    /// A member has it, until it answers or its lock ends.
    Acquired,
    /// A member has dealt with it.
    Acknowledged,
    /// Nobody will get it (again).
    Archived,
}

impl RecordState {
    /// Kafka's number of the state.
    pub fn code(self) -> i8 {
        match self {
            Self::Available => 0,
            Self::Acquired => 1,
            Self::Acknowledged => 2,
            Self::Archived => 4,
        }
    }

    /// Finds a state by Kafka's number.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Available),
            1 => Some(Self::Acquired),
            2 => Some(Self::Acknowledged),
            4 => Some(Self::Archived),
            _ => None,
        }
    }

    /// Whether the record is done with.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Archived)
    }
}

/// Who has acquired records, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) member: Str,
    pub(super) deadline_ms: i64,
}

/// Offsets up to `last` in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) last: i64,
    pub(super) state: RecordState,
    pub(super) delivery_count: i16,
    /// Present while acquired.
    pub(super) lock: Option<Lock>,
}

impl Run {
    /// Whether the runs differ in nothing but their offsets.
    fn is_like(&self, other: &Self) -> bool {
        self.state == other.state
            && (self.state.is_terminal() || self.delivery_count == other.delivery_count)
            && self.lock == other.lock
    }
}

/// Runs by their first offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    by_first: BTreeMap<i64, Run>,
    /// Offsets in terminal states.
    terminal: i64,
}

impl Runs {
    /// Number of offsets in terminal states.
    pub(super) fn terminal(&self) -> i64 {
        self.terminal
    }

    /// All runs in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &Run)> {
        self.by_first.iter().map(|(first, run)| (*first, run))
    }

    /// The parts of runs that lie in `first..=last`.
    pub(super) fn within(&self, first: i64, last: i64) -> impl Iterator<Item = (i64, i64, &Run)> {
        let from = self.by_first.range(..=first).next_back().map_or(first, |(begin, _)| *begin);
        let runs = if from <= last { Some(self.by_first.range(from..=last)) } else { None };
        runs.into_iter()
            .flatten()
            .map(move |(begin, run)| ((*begin).max(first), run.last.min(last), run))
            .filter(|(begin, end, _)| begin <= end)
    }

    /// The first offset that may be acquired.
    pub(super) fn first_available(&self) -> Option<i64> {
        let mut runs = self.by_first.iter();
        runs.find(|(_, run)| run.state == RecordState::Available).map(|(first, _)| *first)
    }

    /// Puts `run` in the place of whatever is known of `first..=run.last`.
    pub(super) fn set(&mut self, first: i64, run: Run) {
        debug_assert!(first <= run.last, "a run has at least one offset");
        self.split_at(first);
        self.split_at(run.last.saturating_add(1));
        let old: Vec<i64> =
            self.by_first.range(first..=run.last).map(|(begin, _)| *begin).collect();
        for begin in old {
            self.remove(begin);
        }
        let last = run.last;
        self.insert(first, run);
        self.join_at(last.saturating_add(1));
        self.join_at(first);
    }

    /// Forgets everything below `start`.
    pub(super) fn forget_below(&mut self, start: i64) {
        self.split_at(start);
        while let Some((first, _)) = self.by_first.first_key_value().filter(|(f, _)| **f < start) {
            let first = *first;
            self.remove(first);
        }
    }

    fn insert(&mut self, first: i64, run: Run) {
        if run.state.is_terminal() {
            self.terminal += run.last - first + 1;
        }
        self.by_first.insert(first, run);
    }

    fn remove(&mut self, first: i64) -> Option<Run> {
        let run = self.by_first.remove(&first)?;
        if run.state.is_terminal() {
            self.terminal -= run.last - first + 1;
        }
        Some(run)
    }

    /// Makes `offset` the first of a run, if it lies within one.
    fn split_at(&mut self, offset: i64) {
        let Some((_, run)) = self.by_first.range_mut(..offset).next_back() else { return };
        if run.last >= offset {
            let rest = run.clone();
            run.last = offset - 1;
            self.by_first.insert(offset, rest);
        }
    }

    /// Joins the run that begins at `offset` with the one before it if they are alike.
    fn join_at(&mut self, offset: i64) {
        let Some(run) = self.by_first.get(&offset) else { return };
        let Some((before, previous)) = self.by_first.range(..offset).next_back() else { return };
        if previous.last + 1 == offset && previous.is_like(run) {
            let (before, last) = (*before, run.last);
            self.by_first.remove(&offset);
            if let Some(previous) = self.by_first.get_mut(&before) {
                previous.last = last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(last: i64, state: RecordState) -> Run {
        Run { last, state, delivery_count: 0, lock: None }
    }

    #[test]
    fn runs_are_split_where_needed_and_joined_again() {
        let mut runs = Runs::default();
        runs.set(0, run(9, RecordState::Available));
        runs.set(3, run(5, RecordState::Archived));
        let found: Vec<_> = runs.iter().map(|(first, run)| (first, run.last)).collect();
        assert_eq!(found, [(0, 2), (3, 5), (6, 9)]);
        assert_eq!(runs.terminal(), 3);
        let part: Vec<_> = runs.within(2, 3).map(|(first, last, _)| (first, last)).collect();
        assert_eq!(part, [(2, 2), (3, 3)]);
        runs.set(3, run(5, RecordState::Available));
        assert_eq!(runs.iter().count(), 1);
        assert_eq!(runs.terminal(), 0);
    }

    #[test]
    fn what_lies_below_the_start_is_forgotten() {
        let mut runs = Runs::default();
        runs.set(0, run(9, RecordState::Acknowledged));
        runs.forget_below(4);
        assert_eq!(runs.iter().map(|(first, _)| first).collect::<Vec<_>>(), [4]);
        assert_eq!(runs.terminal(), 6);
    }
}

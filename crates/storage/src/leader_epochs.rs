//! Which leader wrote which offsets: the epochs of a log, each with its first offset.
//!
//! Followers and consumers ask where an epoch ended to find the point at which their log parts from
//! the leader's (KIP-101, KIP-279, KIP-320). Invariant: epochs and offsets both ascend strictly,
//! except that the first entry may begin at the log start.

use fleuve_types::{LeaderEpoch, Offset};

/// The epochs of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaderEpochs {
    entries: Vec<(i32, i64)>,
}

/// Where an epoch ends: the first offset of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch in the log that is not above the one asked for.
    pub epoch: LeaderEpoch,
    /// The first offset that was not written in it.
    pub end_offset: Offset,
}

impl LeaderEpochs {
    /// Takes entries as they come from a checkpoint, keeping those that ascend.
    pub(crate) fn from_entries(entries: impl IntoIterator<Item = (i32, i64)>) -> Self {
        let mut epochs = Self::default();
        for (epoch, offset) in entries {
            epochs.assign(epoch, offset);
        }
        epochs
    }

    pub(crate) fn entries(&self) -> &[(i32, i64)] {
        &self.entries
    }

    pub(crate) fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Enters that `epoch` begins at `offset`; returns whether that was news.
    pub(crate) fn assign(&mut self, epoch: i32, offset: i64) -> bool {
        if epoch < 0 || self.latest().is_some_and(|latest| epoch <= latest) {
            return false;
        }
        // An epoch in which nothing was written gives way to the next that begins at its offset.
        while self.entries.last().is_some_and(|(_, begin)| *begin >= offset) {
            self.entries.pop();
        }
        self.entries.push((epoch, offset));
        true
    }

    /// Returns the epoch in which `offset` was written.
    pub(crate) fn epoch_at(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|(_, begin)| *begin <= offset);
        after.checked_sub(1).map(|index| self.entries[index].0)
    }

    /// Returns where `epoch` ended in a log that ends at `log_end` and whose leader is in the epoch
    /// `current`; `None` when the epoch is unknown, being newer than all.
    ///
    /// The current epoch need not have an entry: it gets one with its first batch. Until then it
    /// begins where the log ends, and Kafka, which enters it at the election, answers the same.
    pub(crate) fn end_of(&self, epoch: i32, current: i32, log_end: i64) -> Option<EpochEnd> {
        let end =
            |epoch, offset| EpochEnd { epoch: LeaderEpoch(epoch), end_offset: Offset(offset) };
        if epoch < 0 {
            return None;
        }
        if epoch == current || Some(epoch) == self.latest() {
            return Some(end(epoch, log_end));
        }
        let after = self.entries.partition_point(|(begun, _)| *begun <= epoch);
        let (not_above, next_begin) = match self.entries.get(after) {
            Some((_, begin)) => (after, *begin),
            // An epoch that has lost all its records to deletion begins where the log ends, too,
            // and would have given way to the current one's entry.
            None if epoch < current => {
                (self.entries.partition_point(|(_, begin)| *begin < log_end), log_end)
            }
            None => return None,
        };
        Some(match not_above.checked_sub(1) {
            Some(index) => end(self.entries[index].0, next_begin),
            // Older than all we know: Kafka answers with the epoch asked for, and the first offset.
            None => end(epoch, next_begin),
        })
    }

    /// Forgets what begins at `offset` or later; returns whether anything did.
    pub(crate) fn truncate_end(&mut self, offset: i64) -> bool {
        let kept = self.entries.partition_point(|(_, begin)| *begin < offset);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// Forgets what ended before `offset`; the epoch of `offset` now begins there.
    pub(crate) fn truncate_start(&mut self, offset: i64) -> bool {
        let after = self.entries.partition_point(|(_, begin)| *begin <= offset);
        let Some(current) = after.checked_sub(1) else { return false };
        let changed = current > 0 || self.entries[0].1 < offset;
        self.entries.drain(..current);
        self.entries[0].1 = offset;
        changed
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> LeaderEpochs {
        LeaderEpochs::from_entries([(1, 0), (3, 10), (4, 20)])
    }

    fn found(end: Option<EpochEnd>) -> Option<(i32, i64)> {
        end.map(|end| (end.epoch.0, end.end_offset.0))
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let end = |epoch| found(epochs().end_of(epoch, 4, 30));
        assert_eq!(end(-1), None);
        assert_eq!(end(0), Some((0, 0)), "older than the log");
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(2), Some((1, 10)), "an epoch that wrote nothing here");
        assert_eq!(end(3), Some((3, 20)));
        assert_eq!(end(4), Some((4, 30)));
        assert_eq!(end(5), None, "newer than the log");
        assert_eq!(LeaderEpochs::default().end_of(1, 0, 0), None);
    }

    #[test]
    fn an_epoch_that_has_written_nothing_yet_begins_where_the_log_ends() {
        let end = |epoch| found(epochs().end_of(epoch, 7, 30));
        assert_eq!(end(-1), None);
        assert_eq!(end(3), Some((3, 20)));
        assert_eq!(end(4), Some((4, 30)));
        assert_eq!(end(5), Some((4, 30)), "an epoch before it that wrote nothing");
        assert_eq!(end(7), Some((7, 30)));
        assert_eq!(end(8), None);

        let empty = LeaderEpochs::default();
        assert_eq!(found(empty.end_of(1, 2, 0)), Some((1, 0)));
        assert_eq!(found(empty.end_of(2, 2, 0)), Some((2, 0)));
        assert_eq!(found(empty.end_of(3, 2, 0)), None);

        let mut deleted = epochs();
        deleted.truncate_start(30);
        assert_eq!(deleted.entries(), [(4, 30)]);
        for epoch in [3, 4, 5, 7] {
            let ended = found(deleted.end_of(epoch, 7, 30));
            assert_eq!(ended, Some((epoch, 30)), "nothing is left of an earlier one");
        }
    }

    #[test]
    fn empty_and_repeated_epochs_leave_no_trace() {
        let mut epochs = epochs();
        assert!(!epochs.assign(4, 25));
        assert!(!epochs.assign(2, 30));
        assert!(epochs.assign(6, 20), "epoch 4 wrote nothing");
        assert_eq!(epochs.entries(), [(1, 0), (3, 10), (6, 20)]);
        assert_eq!(epochs.epoch_at(9), Some(1));
        assert_eq!(epochs.epoch_at(10), Some(3));
        assert_eq!(epochs.epoch_at(-1), None);
    }

    #[test]
    fn truncation_cuts_both_ends() {
        let mut cut = epochs();
        assert!(cut.truncate_end(20));
        assert_eq!(cut.entries(), [(1, 0), (3, 10)]);
        assert!(!cut.truncate_end(20));
        assert!(cut.truncate_start(15));
        assert_eq!(cut.entries(), [(3, 15)]);
        assert!(!cut.truncate_start(15));
    }
}

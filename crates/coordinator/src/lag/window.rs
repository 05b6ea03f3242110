//! The last commits of a group for one partition.

use std::collections::VecDeque;

/// A commit as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The offset committed.
    pub offset: i64,
    /// When it was committed.
    pub timestamp_ms: i64,
    /// When we saw it.
    pub observed_ms: i64,
    /// Records between it and the end of the log at that time; none if that is not known.
    pub lag: Option<u64>,
}

/// A bounded history of commits, and of the ends of the log beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    samples: VecDeque<Sample>,
    ends: VecDeque<i64>,
    /// Whether every sample comes from the log, from before the watch began.
    pub(super) is_old: bool,
}

impl Window {
    /// Takes in a commit. One that comes less than `min_distance_ms` after the one before replaces
    /// it and keeps its time, so that a consumer that commits all the time has a window that spans
    /// some time.
    pub(super) fn push(&mut self, mut sample: Sample, samples_max: usize, min_distance_ms: i64) {
        if let Some(last) = self.samples.back_mut()
            && sample.timestamp_ms.saturating_sub(last.timestamp_ms) < min_distance_ms
        {
            sample.timestamp_ms = last.timestamp_ms;
            *last = sample;
            return;
        }
        if self.samples.len() == samples_max {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Takes in where the log ends now.
    pub(super) fn push_end(&mut self, end: i64, ends_max: usize) {
        if self.ends.len() == ends_max {
            self.ends.pop_front();
        }
        self.ends.push_back(end);
    }

    pub(super) fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }

    pub(super) fn ends(&self) -> Vec<i64> {
        self.ends.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(offset: i64, timestamp_ms: i64) -> Sample {
        Sample { offset, timestamp_ms, observed_ms: timestamp_ms, lag: None }
    }

    #[test]
    fn the_oldest_commit_makes_room() {
        let mut window = Window::default();
        for index in 0..5 {
            window.push(sample(index, index * 1000), 3, 1000);
        }
        let offsets: Vec<_> = window.samples().iter().map(|sample| sample.offset).collect();
        assert_eq!(offsets, [2, 3, 4]);
    }

    #[test]
    fn frequent_commits_share_a_place_and_the_time_of_the_first() {
        let mut window = Window::default();
        for (offset, at_ms) in [(1, 0), (2, 400), (3, 999), (4, 1000), (5, 1500)] {
            window.push(sample(offset, at_ms), 10, 1000);
        }
        let seen: Vec<_> = window.samples().iter().map(|s| (s.offset, s.timestamp_ms)).collect();
        assert_eq!(seen, [(3, 0), (5, 1000)]);
    }
}

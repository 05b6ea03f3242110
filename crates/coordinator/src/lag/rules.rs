//! The table of rules.

use super::window::Sample;

/// How a group fares with one partition; the order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartitionState {
    /// It keeps up, or catches up.
    Ok,
    /// It moves on and falls behind.
    Warning,
    /// It no longer commits.
    Stop,
    /// It commits, and does not move.
    Stall,
    /// It went back.
    Rewind,
}

impl PartitionState {
    /// Burrow's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARN",
            Self::Stop => "STOP",
            Self::Stall => "STALL",
            Self::Rewind => "REWIND",
        }
    }

    /// Burrow's number of the state.
    pub fn code(self) -> i32 {
        match self {
            Self::Ok => 1,
            Self::Warning => 2,
            Self::Stop => 4,
            Self::Stall => 5,
            Self::Rewind => 6,
        }
    }
}

/// Judges a window of commits, oldest first, at `now_ms`.
///
/// `ends` are ends of the log that were seen lately; `current_lag` is measured now.
pub fn judge(
    samples: &[Sample],
    ends: &[i64],
    current_lag: u64,
    now_ms: i64,
    allowed_lag: u64,
) -> PartitionState {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return PartitionState::Ok;
    };
    if current_lag <= allowed_lag {
        return PartitionState::Ok;
    }
    let silence_ms = now_ms.saturating_sub(last.timestamp_ms);
    let span_ms = last.timestamp_ms.saturating_sub(first.timestamp_ms);
    let was_at_end = ends.iter().any(|end| *end <= last.offset);
    if silence_ms > span_ms && !was_at_end {
        return PartitionState::Stop;
    }
    let pairs = || samples.windows(2);
    // As Burrow, only the first step back counts: the later ones stand behind it.
    if let Some(back) = pairs().position(|pair| pair[1].offset < pair[0].offset) {
        let reached = samples[back].offset;
        if samples[back + 1..].iter().all(|sample| sample.offset < reached) {
            return PartitionState::Rewind;
        }
    }
    let had_no_lag = |sample: &Sample| sample.lag.is_some_and(|lag| lag <= allowed_lag);
    if samples.iter().any(had_no_lag) {
        return PartitionState::Ok;
    }
    if pairs().all(|pair| pair[0].offset == pair[1].offset) {
        return PartitionState::Stall;
    }
    let lags: Vec<u64> = samples.iter().filter_map(|sample| sample.lag).collect();
    if lags.windows(2).all(|pair| pair[1] >= pair[0]) {
        return PartitionState::Warning;
    }
    PartitionState::Ok
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 100_000;

    /// A commit every ten seconds until now, each with its lag.
    fn window(commits: &[(i64, u64)]) -> Vec<Sample> {
        let count = commits.len() as i64;
        let sample = |(index, (offset, lag)): (usize, &(i64, u64))| {
            let timestamp_ms = NOW_MS - (count - 1 - index as i64) * 10_000;
            Sample { offset: *offset, timestamp_ms, observed_ms: timestamp_ms, lag: Some(*lag) }
        };
        commits.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn without_lag_nothing_is_wrong() {
        let stalled = window(&[(10, 5), (10, 5), (10, 5)]);
        assert_eq!(judge(&stalled, &[], 0, NOW_MS, 0), PartitionState::Ok);
        assert_eq!(judge(&stalled, &[], 5, NOW_MS, 5), PartitionState::Ok, "5 are allowed");
        assert_eq!(judge(&stalled, &[], 6, NOW_MS, 5), PartitionState::Ok, "so it caught up");
        assert_eq!(judge(&[], &[], 9, NOW_MS, 0), PartitionState::Ok, "nothing is known");
    }

    #[test]
    fn longer_silence_than_the_window_is_a_stop() {
        let samples = window(&[(10, 0), (20, 0), (30, 0)]);
        assert_eq!(judge(&samples, &[], 5, NOW_MS + 20_000, 0), PartitionState::Ok);
        assert_eq!(judge(&samples, &[], 5, NOW_MS + 20_001, 0), PartitionState::Stop);
    }

    #[test]
    fn who_was_at_the_end_lately_has_not_stopped_yet() {
        let samples = window(&[(10, 0), (20, 0), (30, 0)]);
        let later = NOW_MS + 60_000;
        assert_eq!(judge(&samples, &[30, 35, 40], 10, later, 0), PartitionState::Ok);
        assert_eq!(judge(&samples, &[31, 35, 40], 10, later, 0), PartitionState::Stop);
    }

    #[test]
    fn a_step_back_is_a_rewind_until_it_is_made_good() {
        let back = window(&[(10, 1), (20, 1), (15, 6), (18, 5)]);
        assert_eq!(judge(&back, &[], 5, NOW_MS, 0), PartitionState::Rewind);
        let after_no_lag = window(&[(10, 0), (20, 0), (0, 20)]);
        assert_eq!(judge(&after_no_lag, &[], 20, NOW_MS, 0), PartitionState::Rewind);
        let made_good = window(&[(10, 1), (20, 3), (15, 6), (20, 2)]);
        assert_eq!(judge(&made_good, &[], 2, NOW_MS, 0), PartitionState::Ok);
    }

    #[test]
    fn no_lag_anywhere_in_the_window_excuses_the_rest() {
        let samples = window(&[(10, 0), (10, 5), (10, 9)]);
        assert_eq!(judge(&samples, &[], 9, NOW_MS, 0), PartitionState::Ok);
    }

    #[test]
    fn commits_that_do_not_move_are_a_stall() {
        let samples = window(&[(10, 5), (10, 4), (10, 6)]);
        assert_eq!(judge(&samples, &[], 6, NOW_MS, 0), PartitionState::Stall);
        assert_eq!(judge(&samples[2..], &[], 6, NOW_MS, 0), PartitionState::Stall);
    }

    #[test]
    fn lag_that_never_shrinks_is_a_warning() {
        let samples = window(&[(10, 5), (20, 5), (30, 8)]);
        assert_eq!(judge(&samples, &[], 8, NOW_MS, 0), PartitionState::Warning);
        let shrinking_once = window(&[(10, 5), (20, 4), (30, 8)]);
        assert_eq!(judge(&shrinking_once, &[], 8, NOW_MS, 0), PartitionState::Ok);
    }

    #[test]
    fn commits_of_unknown_lag_are_passed_over() {
        let mut samples = window(&[(10, 5), (20, 4), (30, 8)]);
        samples[1].lag = None;
        assert_eq!(judge(&samples, &[], 8, NOW_MS, 0), PartitionState::Warning);
    }
}

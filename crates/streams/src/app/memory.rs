//! Who may have how much memory.

use super::Settings;

/// Memory in bytes, by what it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// The record caches of all threads.
    pub(super) caches: usize,
    /// What all threads have written for stores on disk since their last commits.
    pub(super) uncommitted: usize,
    /// Blocks and memtables of stores on disk.
    pub(super) database: usize,
    /// What all threads have fetched ahead.
    pub(super) fetched: usize,
    /// What one restoration has fetched ahead.
    pub(super) fetched_of_restoration: usize,
}

impl Settings {
    /// Divides the budget, or takes the settings of each.
    pub(super) fn memory(&self) -> Shares {
        let (caches, state, fetched) = match self.memory_bytes_max {
            Some(all) => (all / 4, all / 2, all / 4),
            None => (self.cache_bytes_max, self.state_memory_bytes_max, usize::MAX),
        };
        let uncommitted = state / 4;
        // Restorations fetch at the same time as threads do.
        let fetched = fetched / 2;
        Shares {
            caches,
            uncommitted,
            database: state - uncommitted,
            fetched,
            // Standbys fetch as one restoration does.
            fetched_of_restoration: fetched / (self.restorations_max.max(1) + 1),
        }
    }
}

/// A consumer's `fetch.max.bytes`, which also bounds what it has fetched ahead.
pub(super) fn fetch_bytes_max(share: usize) -> i32 {
    let share = i32::try_from(share).unwrap_or(FETCH_BYTES_MAX);
    share.clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX)
}

/// The default of `fetch.max.bytes`.
const FETCH_BYTES_MAX: i32 = 50 << 20;
/// Less would not pay for the request.
const FETCH_BYTES_MIN: i32 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_are_within_the_budget() {
        let budget = 256 << 20;
        for restorations_max in [1, 3, 8] {
            let settings = Settings {
                restorations_max,
                memory_bytes_max: Some(budget),
                ..Settings::default()
            };
            let shares = settings.memory();
            let all = shares.caches
                + shares.uncommitted
                + shares.database
                + shares.fetched
                + shares.fetched_of_restoration * (restorations_max + 1);
            assert!(all <= budget, "{all} bytes");
            assert!(all > budget / 10 * 9, "{all} bytes");
        }
    }

    #[test]
    fn without_a_budget_each_setting_counts() {
        let shares = Settings::default().memory();
        assert_eq!(shares.caches, 10 << 20);
        assert_eq!(shares.uncommitted + shares.database, 64 << 20);
        assert_eq!(fetch_bytes_max(shares.fetched), FETCH_BYTES_MAX);
        assert_eq!(fetch_bytes_max(0), FETCH_BYTES_MIN);
    }
}

//! Windows of event time.

/// Tumbling and hopping windows.
///
/// Windows are aligned to the epoch and contain their start but not their end. `grace` is how long after its end a
/// window still takes late records; it is always stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWindows {
    pub(crate) size_ms: i64,
    pub(crate) advance_ms: i64,
    pub(crate) grace_ms: i64,
    /// Where the first window begins.
    pub(crate) first_ms: i64,
}

impl TimeWindows {
    /// Tumbling windows, which take late records for `grace_ms`.
    ///
    /// # Panics
    /// If the size is not positive or the grace negative: both are constants of a program.
    pub fn of_ms(size_ms: i64, grace_ms: i64) -> Self {
        assert!(size_ms > 0, "a window's size is positive");
        assert!(grace_ms >= 0, "a window's grace is not negative");
        Self { size_ms, advance_ms: size_ms, grace_ms, first_ms: 0 }
    }

    /// Makes the windows hop: a new one begins every `advance_ms`.
    ///
    /// # Panics
    /// If the advance is not between 1 and the size.
    pub fn advance_by_ms(mut self, advance_ms: i64) -> Self {
        assert!(
            (1..=self.size_ms).contains(&advance_ms),
            "windows advance by at least 1 ms and at most their size"
        );
        self.advance_ms = advance_ms;
        self
    }

    /// The starts of the windows that contain a time, ascending.
    pub(crate) fn starts_of(self, timestamp: i64) -> impl Iterator<Item = i64> {
        let since = timestamp.saturating_sub(self.first_ms);
        let behind = since.saturating_sub(self.size_ms) + self.advance_ms;
        let passed = behind.max(0) / self.advance_ms;
        let first = self.first_ms + passed * self.advance_ms;
        (first..=timestamp).step_by(self.advance_ms as usize)
    }
}

/// One window that never ends: everything since a time.
///
/// What was before that is left out. The window never closes, so that nothing is late, and results are sent on update
/// only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnlimitedWindows {
    start_ms: i64,
}

impl UnlimitedWindows {
    /// The window that begins with the epoch.
    pub fn of() -> Self {
        Self { start_ms: 0 }
    }

    /// Lets the window begin at this event time.
    ///
    /// # Panics
    /// If the time is negative.
    pub fn start_on_ms(mut self, start_ms: i64) -> Self {
        assert!(start_ms >= 0, "a window does not begin before the epoch");
        self.start_ms = start_ms;
        self
    }
}

impl From<UnlimitedWindows> for TimeWindows {
    fn from(windows: UnlimitedWindows) -> Self {
        Self {
            size_ms: UNLIMITED_MS,
            advance_ms: UNLIMITED_MS,
            grace_ms: 0,
            first_ms: windows.start_ms,
        }
    }
}

/// The size of a window that never ends.
pub(crate) const UNLIMITED_MS: i64 = i64::MAX;

/// How far apart in event time two records may be to be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinWindows {
    pub(crate) before_ms: i64,
    pub(crate) after_ms: i64,
    pub(crate) grace_ms: i64,
}

impl JoinWindows {
    /// At most `difference_ms` apart either way; late records are taken for `grace_ms`.
    ///
    /// # Panics
    /// If one of the two is negative.
    pub fn of_ms(difference_ms: i64, grace_ms: i64) -> Self {
        assert!(difference_ms >= 0 && grace_ms >= 0, "a join window's times are not negative");
        Self { before_ms: difference_ms, after_ms: difference_ms, grace_ms }
    }

    /// The other stream's record may be this much earlier.
    pub fn before_ms(mut self, before_ms: i64) -> Self {
        self.before_ms = before_ms;
        self
    }

    /// The other stream's record may be this much later.
    pub fn after_ms(mut self, after_ms: i64) -> Self {
        self.after_ms = after_ms;
        self
    }

    pub(crate) fn size_ms(self) -> i64 {
        self.before_ms + self.after_ms
    }
}

/// Windows that slide along with the records: all records of a key at most a difference apart share one.
///
/// Both ends belong to a window. `grace` is how long after its end a window still takes late records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindows {
    pub(crate) difference_ms: i64,
    pub(crate) grace_ms: i64,
}

impl SlidingWindows {
    /// Windows of records at most `difference_ms` apart, which take late records for `grace_ms`.
    ///
    /// # Panics
    /// If one of the two is negative.
    pub fn of_ms(difference_ms: i64, grace_ms: i64) -> Self {
        assert!(difference_ms >= 0 && grace_ms >= 0, "a sliding window's times are not negative");
        Self { difference_ms, grace_ms }
    }
}

/// Windows of activity: a session goes on as long as no two of its records are further apart than the gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWindows {
    pub(crate) gap_ms: i64,
    pub(crate) grace_ms: i64,
}

impl SessionWindows {
    /// Sessions that end after `gap_ms` without a record, and take late records for `grace_ms` more.
    ///
    /// # Panics
    /// If the gap is not positive or the grace negative.
    pub fn of_ms(gap_ms: i64, grace_ms: i64) -> Self {
        assert!(
            gap_ms > 0 && grace_ms >= 0,
            "a session's gap is positive and its grace not negative"
        );
        Self { gap_ms, grace_ms }
    }

    /// How long after its end a session may still change.
    pub(crate) fn closes_after_ms(self) -> i64 {
        self.gap_ms + self.grace_ms
    }
}

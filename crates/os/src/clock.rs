//! Time as an argument: the wall for what is written down, the monotonic clock for waiting.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time.
///
/// ```
/// use fleuve_os::{Clock, SystemClock};
///
/// let clock = SystemClock::new();
/// let begin = clock.monotonic();
/// assert!(clock.wall_ms() > 0);
/// assert!(clock.monotonic() >= begin);
/// ```
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the milliseconds since the Unix epoch; may jump, forwards and backwards.
    fn wall_ms(&self) -> i64;

    /// Returns the time since an arbitrary moment; never goes backwards.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    begin: Instant,
}

impl SystemClock {
    /// Makes a clock whose monotonic time counts from now.
    pub fn new() -> Self {
        Self { begin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let signed_ms =
            |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since_epoch) => signed_ms(since_epoch),
            // A machine whose clock stands before 1970 still deserves an ordered time.
            Err(before_epoch) => -signed_ms(before_epoch.duration()),
        }
    }

    fn monotonic(&self) -> Duration {
        self.begin.elapsed()
    }
}

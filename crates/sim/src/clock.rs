//! A clock that stands still until told otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fleuve_os::Clock;

/// A clock moved by hand; clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use fleuve_os::Clock;
/// use fleuve_sim::SimClock;
///
/// let clock = SimClock::at(1_000);
/// clock.advance(Duration::from_millis(5));
/// clock.jump_wall_ms(-3_600_000);
/// assert_eq!(clock.wall_ms(), 1_005 - 3_600_000);
/// assert_eq!(clock.monotonic(), Duration::from_millis(5));
/// ```
#[derive(Clone, Debug)]
pub struct SimClock {
    hands: Arc<Hands>,
}

#[derive(Debug)]
struct Hands {
    wall_ms: AtomicI64,
    monotonic_ns: AtomicU64,
}

impl SimClock {
    /// Makes a clock whose wall shows `wall_ms`.
    pub fn at(wall_ms: i64) -> Self {
        Self {
            hands: Arc::new(Hands {
                wall_ms: AtomicI64::new(wall_ms),
                monotonic_ns: AtomicU64::new(0),
            }),
        }
    }

    /// Lets time pass on both clocks; the wall moves by whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        self.hands.wall_ms.fetch_add(duration.as_millis() as i64, Ordering::SeqCst);
        self.hands.monotonic_ns.fetch_add(duration.as_nanos() as u64, Ordering::SeqCst);
    }

    /// Moves the wall only, as an operator or a time server does.
    pub fn jump_wall_ms(&self, by_ms: i64) {
        self.hands.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> i64 {
        self.hands.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.hands.monotonic_ns.load(Ordering::SeqCst))
    }
}

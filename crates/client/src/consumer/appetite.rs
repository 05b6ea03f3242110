//! How much a broker is asked for at a time, within what the settings allow.
//!
//! `max.partition.fetch.bytes` and `fetch.max.bytes` bound an answer, and a consumer that always
//! asked for as much would hold megabytes for nothing: beyond the point where the cost of a request
//! is spread thin, larger answers only take memory. So a consumer begins small, and asks for more
//! while it is the way to the broker that holds it up.
//!
//! ```text
//! a full answer                                          asked for next
//! found records still waiting                            half as much: the application is slower
//! came within no time                                    half as much: more would win nothing
//! took long, or came from few of many partitions,
//! several times in a row                                 twice as much: the way is slower
//! ```

use std::time::Duration;

/// What one broker is asked for.
#[derive(Debug)]
pub(super) struct Appetite {
    bytes: usize,
    /// How many answers in a row would have had more to give.
    hungry: u32,
}

/// What an answer was like.
pub(super) struct Meal {
    /// How many partitions were asked for.
    pub(super) partitions: usize,
    /// The bytes of all records in it.
    pub(super) bytes: usize,
    /// Those of the partition with the most.
    pub(super) largest: usize,
    /// From asking until it was there.
    pub(super) took: Duration,
    /// Whether records of an answer before it had still not been taken by the application.
    pub(super) leftovers: bool,
}

/// The limits that the settings give.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// `max.partition.fetch.bytes`.
    pub(super) partition: usize,
    /// `fetch.max.bytes`.
    pub(super) answer: usize,
}

/// A request costs some 30 µs on both sides, and so many bytes some 300.
const FIRST_BYTES: usize = 512 << 10;
/// No partition is asked for less, however many there are.
const SHARE_BYTES_MIN: usize = 64 << 10;
/// A full first answer that takes longer is less than 25 MB/s.
const LONG: Duration = Duration::from_millis(20);
/// One within this time is more than 100 MB/s.
const SHORT: Duration = Duration::from_millis(5);
/// One answer may be late because a machine is busy; a far broker's are all late.
const HUNGRY_MAX: u32 = 8;

impl Appetite {
    pub(super) fn new() -> Self {
        Self { bytes: FIRST_BYTES, hungry: 0 }
    }

    /// Returns how much of each of so many partitions is asked for.
    ///
    /// A limit on the whole answer would do as well, if all brokers took partitions in turns.
    pub(super) fn share(&self, partitions: usize, limits: Limits) -> usize {
        (self.bytes / partitions.max(1)).max(SHARE_BYTES_MIN).min(limits.partition)
    }

    /// Reports whether so many bytes that wait for the application leave room for the next answer:
    /// one answer may wait while the next one comes.
    pub(super) fn has_room(&self, waiting: usize, limits: Limits) -> bool {
        waiting <= self.bytes && waiting < limits.answer
    }

    /// Learns from an answer.
    pub(super) fn learn(&mut self, meal: &Meal, limits: Limits) {
        let share = self.share(meal.partitions, limits);
        // Brokers give whole batches, so that a full answer is a little short of what was asked.
        if meal.largest < share / 4 * 3 {
            return;
        }
        let few = meal.bytes < self.bytes / 2;
        if meal.leftovers || (meal.took < SHORT && !few) {
            self.hungry = 0;
            self.bytes = (self.bytes / 2).max(FIRST_BYTES);
        } else if meal.took > LONG || few {
            self.hungry += 1;
            if self.hungry >= HUNGRY_MAX {
                self.hungry = 0;
                let most = meal.partitions.saturating_mul(limits.partition).min(limits.answer);
                self.bytes = (self.bytes * 2).min(most).max(FIRST_BYTES);
            }
        } else {
            self.hungry = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { partition: 1 << 20, answer: 50 << 20 };

    fn full(appetite: &Appetite, partitions: usize, active: usize) -> Meal {
        let largest = appetite.share(partitions, LIMITS);
        let took = Duration::from_millis(1);
        Meal { partitions, bytes: largest * active, largest, took, leftovers: false }
    }

    #[test]
    fn a_fast_broker_is_asked_for_little() {
        let mut appetite = Appetite::new();
        for _ in 0..100 {
            appetite.learn(&full(&appetite, 4, 4), LIMITS);
        }
        assert_eq!(appetite.share(4, LIMITS), 128 << 10);
        for _ in 0..100 {
            let stalled = Meal { took: Duration::from_millis(50), ..full(&appetite, 4, 4) };
            appetite.learn(&stalled, LIMITS);
            appetite.learn(&full(&appetite, 4, 4), LIMITS);
        }
        assert_eq!(appetite.bytes, FIRST_BYTES, "a stall now and then is no far broker");
    }

    #[test]
    fn a_far_broker_is_asked_for_all_that_settings_allow_until_the_application_is_slower() {
        let mut appetite = Appetite::new();
        for _ in 0..50 {
            let far = Meal { took: Duration::from_millis(80), ..full(&appetite, 4, 4) };
            appetite.learn(&far, LIMITS);
        }
        assert_eq!(appetite.share(4, LIMITS), LIMITS.partition);
        assert_eq!(appetite.bytes, 4 * LIMITS.partition);
        for _ in 0..10 {
            let busy = Meal { leftovers: true, ..full(&appetite, 4, 4) };
            appetite.learn(&busy, LIMITS);
        }
        assert_eq!(appetite.bytes, FIRST_BYTES);
    }

    #[test]
    fn one_busy_partition_of_many_gets_a_larger_share() {
        let mut appetite = Appetite::new();
        assert_eq!(appetite.share(100, LIMITS), SHARE_BYTES_MIN);
        for _ in 0..100 {
            appetite.learn(&full(&appetite, 100, 1), LIMITS);
        }
        assert_eq!(appetite.share(100, LIMITS), LIMITS.answer / 100);
    }

    #[test]
    fn settings_below_the_first_helping_hold() {
        let tight = Limits { partition: 1000, answer: 500 };
        let mut appetite = Appetite::new();
        assert_eq!(appetite.share(4, tight), 1000);
        assert!(appetite.has_room(499, tight) && !appetite.has_room(500, tight));
        let slow = Meal {
            partitions: 4,
            bytes: 4000,
            largest: 1000,
            took: Duration::from_secs(1),
            leftovers: false,
        };
        appetite.learn(&slow, tight);
        assert_eq!(
            appetite.bytes, FIRST_BYTES,
            "what is asked for is bounded by the settings anyway"
        );
    }
}

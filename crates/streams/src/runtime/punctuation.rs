//! When processors asked to be called again.

use std::collections::BTreeMap;

/// A clock that punctuation follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The highest event time the task has seen. It first ticks with the first record, and stands still without input.
    StreamTime,
    /// The time of day. It first ticks after one interval.
    WallClock,
}

/// A punctuation that was scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Schedule(u64);

/// The punctuations of a task, by clock and due time.
#[derive(Default)]
pub(crate) struct Schedules {
    stream_time: BTreeMap<(i64, u64), Entry>,
    wall_clock: BTreeMap<(i64, u64), Entry>,
    count: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The processor's place in its task.
    processor: usize,
    schedule: Schedule,
    interval_ms: i64,
}

impl Schedules {
    /// Adds a punctuation every `interval_ms`, the first one at `first_ms`.
    pub(crate) fn add(
        &mut self,
        processor: usize,
        clock: Clock,
        first_ms: i64,
        interval_ms: i64,
    ) -> Schedule {
        self.count += 1;
        let schedule = Schedule(self.count);
        let entry = Entry { processor, schedule, interval_ms: interval_ms.max(1) };
        let place = (first_ms, self.count);
        self.of(clock).insert(place, entry);
        schedule
    }

    pub(crate) fn cancel(&mut self, schedule: Schedule) {
        for queue in [&mut self.stream_time, &mut self.wall_clock] {
            queue.retain(|_, entry| entry.schedule != schedule);
        }
    }

    /// Takes the next due punctuation, and schedules the one after it.
    pub(crate) fn take_due(&mut self, clock: Clock, now_ms: i64) -> Option<(usize, Schedule)> {
        let queue = self.of(clock);
        let (&(due_ms, order), _) =
            queue.first_key_value().filter(|((due, _), _)| *due <= now_ms)?;
        let entry = queue.remove(&(due_ms, order))?;
        // What was missed is not made up for; the rhythm stays.
        let missed = (now_ms - due_ms) / entry.interval_ms;
        let next_ms = due_ms + (missed + 1) * entry.interval_ms;
        queue.insert((next_ms, order), entry);
        Some((entry.processor, entry.schedule))
    }

    /// When the next punctuation by the time of day is due.
    pub(crate) fn next_wall_clock_ms(&self) -> Option<i64> {
        self.wall_clock.first_key_value().map(|((due, _), _)| *due)
    }

    fn of(&mut self, clock: Clock) -> &mut BTreeMap<(i64, u64), Entry> {
        match clock {
            Clock::StreamTime => &mut self.stream_time,
            Clock::WallClock => &mut self.wall_clock,
        }
    }
}

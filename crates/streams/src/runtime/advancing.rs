//! Event time that moves without records, where the program wants that: after a while without input, and at the end of
//! the input.

use std::sync::Arc;

use super::queues::UNKNOWN_TIME;
use super::timed::{END_OF_TIME, Station};
use super::{Clock, Task};
use crate::error::ProcessingError;

/// How a task's time moves by itself.
#[derive(Debug)]
pub(super) struct Advancing {
    /// After so long without a record time goes on with the clock.
    idle_ms: Option<i64>,
    /// When the task last had something to do, by the time of day.
    active_ms: Option<i64>,
    /// Event time then.
    from_ms: Option<i64>,
    /// Where time is on its way to, and how many stations know of it. Others wait until what is under way inside
    /// operators above them has come down.
    under_way: Option<(i64, usize)>,
    /// How far it has come by itself.
    reached_ms: i64,
    /// Whether the input has ended, and all of it is dealt with.
    pub(super) finished: bool,
}

impl Advancing {
    pub(super) fn new(idle_ms: Option<i64>) -> Self {
        Self {
            idle_ms,
            active_ms: None,
            from_ms: None,
            under_way: None,
            reached_ms: UNKNOWN_TIME,
            finished: false,
        }
    }

    /// How far time has come by itself.
    pub(super) fn reached_ms(&self) -> i64 {
        self.reached_ms
    }

    /// Notes that the task has something to do.
    pub(super) fn note_activity(&mut self, now_ms: i64) {
        self.active_ms = self.active_ms.max(Some(now_ms));
        self.from_ms = None;
    }
}

impl Task {
    /// Lets event time go on that is not moved by records: without those who have been silent for long, and with the clock
    /// if the task has had no input for long. `is_drained` says whether all there is of a topic has been fetched, as of
    /// `heard_ms`, when all brokers had answered. Returns whether time has passed.
    pub(crate) fn pass_time(
        &mut self,
        now_ms: i64,
        heard_ms: i64,
        is_drained: impl Fn(&Arc<str>) -> bool,
    ) -> Result<bool, ProcessingError> {
        let followed = self.look_for_silence(now_ms, heard_ms, &is_drained)?;
        Ok(self.advance_idle(now_ms, heard_ms, is_drained)? | followed)
    }

    fn advance_idle(
        &mut self,
        now_ms: i64,
        heard_ms: i64,
        is_drained: impl Fn(&Arc<str>) -> bool,
    ) -> Result<bool, ProcessingError> {
        let Some(idle_ms) = self.advancing.idle_ms else {
            return Ok(false);
        };
        let is_idle = self.is_settled()
            && self.queues.iter().all(|queue| queue.len() == 0 && is_drained(&queue.topic));
        if !is_idle {
            self.advancing.note_activity(heard_ms);
            return Ok(false);
        }
        let active_ms = *self.advancing.active_ms.get_or_insert(heard_ms);
        if heard_ms - active_ms < idle_ms {
            return Ok(false);
        }
        let known = self.queues.iter().map(|queue| queue.partition_time).max();
        let latest = self.cx.stream_time_ms.max(known.unwrap_or(UNKNOWN_TIME));
        let from_ms = *self.advancing.from_ms.get_or_insert(latest);
        let to_ms = from_ms.saturating_add(heard_ms - active_ms);
        if from_ms == UNKNOWN_TIME || to_ms <= self.cx.stream_time_ms {
            return Ok(false);
        }
        self.advancing.reached_ms = to_ms;
        self.advance(to_ms, now_ms)?;
        Ok(true)
    }

    /// Has everything sent that waits for event time, because the input has ended. Returns whether all of it is;
    /// otherwise something is under way inside the task, and this is to be called again.
    pub(crate) fn finish(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        if !self.advancing.finished && self.advance_pending(now_ms)? {
            self.advancing.finished = self.advance(END_OF_TIME, now_ms)?;
            // So that the commit tells of it.
            self.touch();
        }
        Ok(self.advancing.finished)
    }

    /// Lets event time come to `to_ms`. Returns whether every operator knows of it.
    pub(super) fn advance(&mut self, to_ms: i64, now_ms: i64) -> Result<bool, ProcessingError> {
        if !self.advance_pending(now_ms)? {
            return Ok(false);
        }
        self.cx.closed_windows = false;
        self.advancing.under_way = Some((to_ms, 0));
        self.advance_pending(now_ms)
    }

    /// Whether the input has ended, and everything was sent that waited for event time.
    pub(crate) fn is_finished(&self) -> bool {
        self.advancing.finished
    }

    /// Whether time is on its way through the operators.
    pub(super) fn is_advancing(&self) -> bool {
        self.advancing.under_way.is_some()
    }

    /// Goes on with time that is under way. Returns whether there is none left.
    pub(super) fn advance_pending(&mut self, now_ms: i64) -> Result<bool, ProcessingError> {
        let Some((to_ms, first)) = self.advancing.under_way else {
            return Ok(true);
        };
        self.init(now_ms)?;
        if to_ms < END_OF_TIME {
            self.cx.stream_time_ms = self.cx.stream_time_ms.max(to_ms);
        }
        if self.cx.follows_watermarks {
            for store in &mut self.cx.stores {
                store.limit_time(to_ms);
            }
        }
        for place in first..self.stations.len() {
            // What was processed, and what is sent because of the time, reaches an operator before the time does.
            if !self.settle(now_ms)? {
                self.advancing.under_way = Some((to_ms, place));
                return Ok(false);
            }
            self.cx.punctuating(self.cx.stream_time_ms);
            let told = match &self.stations[place] {
                Station::Operator(operator) => operator.lock().advance(to_ms, &mut self.cx),
                Station::Processor(number) => {
                    self.processors[*number].fire_timers(to_ms, &mut self.cx)
                }
            };
            told.map_err(|problem| problem.at(&self.cx.origin))?;
        }
        self.advancing.under_way = None;
        // A rhythm has no end that could be reached.
        if to_ms < END_OF_TIME {
            self.fire(Clock::StreamTime, to_ms)?;
        }
        if std::mem::take(&mut self.cx.closed_windows) {
            self.touch();
        }
        Ok(true)
    }

    /// Has the next commit tell the task's positions though none has moved: what is committed beside them has.
    fn touch(&mut self) {
        for queue in self.queues.iter_mut() {
            queue.position = queue.position.or(queue.seen.map(|seen| seen + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::record::Headers;
    use crate::runtime::{Globals, RawRecord, TaskId};
    use crate::{TimeWindows, Topology};

    #[test]
    fn time_goes_on_as_far_as_brokers_have_answered() {
        let app = Topology::new("app");
        app.advance_when_idle(Duration::from_millis(10));
        app.stream::<String, String>("in")
            .group_by_key()
            .windowed_by(TimeWindows::of_ms(100, 0))
            .emit_final()
            .count("n")
            .to_stream_by(|window, _| window.key.clone())
            .to("out");
        let plan = app.build().expect("a valid topology");
        let id = TaskId { subtopology: 0, partition: 0 };
        let mut task = Task::new(&plan, id, &Globals::new(&plan));
        let text = |text: &str| Some(bytes::Bytes::copy_from_slice(text.as_bytes()));
        task.add(RawRecord {
            topic: Arc::from("in"),
            partition: 0,
            offset: 0,
            timestamp: 50,
            key: text("a"),
            value: text("b"),
            headers: Headers::default(),
        });
        task.process(1_000).expect("processed");
        let sent = |task: &mut Task| {
            task.settle(5_000).expect("settled");
            task.take_outgoing().iter().filter(|record| &*record.topic.name == "out").count()
        };
        // No answer since the record.
        for now_ms in [1_020, 5_000] {
            assert!(!task.pass_time(now_ms, 1_000, |_| true).expect("passed"));
        }
        assert!(task.pass_time(5_000, 1_049, |_| true).expect("passed"));
        assert_eq!(sent(&mut task), 0);
        assert!(task.pass_time(5_000, 1_050, |_| true).expect("passed"));
        assert_eq!(sent(&mut task), 1, "the window's end has come");
    }
}

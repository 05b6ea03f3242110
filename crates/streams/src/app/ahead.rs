//! Work that goes on while a commit is on its way.
//!
//! With exactly once a commit ends a transaction every 100 ms, and waits for disks of brokers three times: for records, for
//! offsets, for the decision. Tasks need not stand still for that. What they make meanwhile belongs to the next transaction,
//! and waits here until that can begin; should the commit fail, it is forgotten with all that was done since the last one.
//!
//! Not while stores on disk are to keep what this very commit covers, because they would keep more than that.

use std::time::Duration;

use fleuve_client::consumer::Records;
use fleuve_client::{Consumer, Error};

use super::tasks::Tasks;
use crate::error::ProcessingError;
use crate::metrics::Meter;
use crate::query::Desk;
use crate::runtime::Outgoing;

/// What was done while a commit was on its way.
#[derive(Default)]
pub(super) struct Ahead {
    /// What tasks have made, in its order.
    pub(super) outgoing: Vec<Outgoing>,
    /// Why a task could not go on. To be told once the commit is over.
    pub(super) failed: Option<ProcessingError>,
    /// Why nothing more was read.
    pub(super) unread: Option<Error>,
    processed: usize,
    /// Whether the tasks have nothing to do until more is read.
    is_idle: bool,
}

/// What the work needs of its thread.
pub(super) struct Workplace<'a> {
    pub(super) tasks: &'a mut Tasks,
    pub(super) consumer: &'a Consumer,
    pub(super) desk: &'a mut Desk,
    pub(super) meter: &'a mut Meter,
    pub(super) idle_max_ms: Option<i64>,
    pub(super) now_ms: fn() -> i64,
}

impl Ahead {
    /// Waits for a commit, answers queries, and goes on with records meanwhile.
    pub(super) async fn during<T>(
        &mut self,
        commit: impl Future<Output = T>,
        mut place: Workplace<'_>,
    ) -> T {
        tokio::pin!(commit);
        loop {
            let may_work = self.failed.is_none() && self.processed < PROCESSED_MAX;
            tokio::select! {
                biased;
                done = &mut commit => return done,
                () = place.desk.answer(place.tasks) => {}
                () = tokio::task::yield_now(), if may_work && !self.is_idle => self.turn(&mut place),
                read = place.consumer.poll(POLL), if may_work && self.is_idle && self.unread.is_none() => {
                    self.take(read, &mut place);
                }
            }
        }
    }

    fn take(&mut self, read: Result<Option<Records>, Error>, place: &mut Workplace<'_>) {
        match read {
            Ok(Some(records)) => {
                let partition = records.partition().clone();
                place.tasks.queue(&partition, records.into_owned(), place.consumer);
                self.is_idle = false;
            }
            Ok(None) => {}
            Err(error) => self.unread = Some(error),
        }
    }

    /// Has each task process some of what is queued.
    fn turn(&mut self, place: &mut Workplace<'_>) {
        let now_ms = (place.now_ms)();
        let before = self.processed;
        for id in place.tasks.ready_ids() {
            let began = std::time::Instant::now();
            let mut processed = 0;
            while processed < RECORDS_PER_TURN
                && place.tasks.is_ready(id, place.idle_max_ms, now_ms, place.consumer)
            {
                let Some(task) = place.tasks.get_ready(id) else {
                    break;
                };
                match task.process(now_ms) {
                    Ok(true) => processed += 1,
                    Ok(false) => break,
                    Err(error) => {
                        self.failed = Some(error);
                        return;
                    }
                }
            }
            if processed > 0 {
                let took = began.elapsed();
                place.meter.processed(now_ms, took, processed);
                self.processed += processed;
                if let Some(task) = place.tasks.get_ready(id) {
                    task.note_processed(now_ms, took, processed);
                    self.outgoing.append(&mut task.take_outgoing());
                }
            }
        }
        self.is_idle = self.processed == before;
    }
}

/// Records that are processed during one commit at most: what they make is in memory until it is over.
const PROCESSED_MAX: usize = 20_000;
/// Records that one task processes before queries and the commit are looked at.
const RECORDS_PER_TURN: usize = 200;
/// How long one look for records waits.
const POLL: Duration = Duration::from_millis(100);

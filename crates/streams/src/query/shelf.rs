//! Which tasks an instance runs, and how their threads are asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Ask, Query, QueryError, Rows};
use crate::metrics::{
    RestorationMetrics, StandbyMetrics, StreamsMetrics, TaskMetrics, ThreadMetrics,
};
use crate::runtime::{Task, TaskId};
use crate::topology::Plan;

/// The tasks of all threads of an instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    tasks: BTreeMap<TaskId, ShownTask>,
    /// Tasks that run elsewhere, and whose state is here too.
    standbys: BTreeMap<TaskId, mpsc::UnboundedSender<Question>>,
    /// What the threads told last about themselves and their tasks.
    threads: BTreeMap<usize, (ThreadMetrics, Vec<TaskMetrics>)>,
    /// How the state of tasks was brought back that run here, or are about to.
    restored: BTreeMap<TaskId, Applied>,
    /// How standbys follow.
    followed: BTreeMap<TaskId, Applied>,
    /// Changelog records that were applied since the start, by whomever.
    applied: u64,
    /// Threads that have failed.
    failed: u64,
}

/// What was applied of a task's changelogs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    /// Records that were applied.
    pub(crate) records: u64,
    /// Records that are lacking, as far as that is known.
    pub(crate) lag: Option<i64>,
}

impl Applied {
    /// What was applied since this was told before; it begins anew with every restoration.
    fn since(self, before: Option<Self>) -> u64 {
        let known = before.map_or(0, |before| before.records);
        if self.records < known { self.records } else { self.records - known }
    }
}

#[derive(Debug)]
struct ShownTask {
    thread: usize,
    ready: bool,
    desk: mpsc::UnboundedSender<Question>,
}

/// What a thread is to do with one of its tasks, which it may have given up meanwhile.
struct Question {
    task: TaskId,
    act: Act,
}

type Act = Box<dyn FnOnce(Option<&mut Task>) + Send>;

/// Where a thread is asked, or whoever keeps standbys.
pub(crate) struct Desk {
    shelf: Shelf,
    /// The thread's number; `None` of standbys.
    thread: Option<usize>,
    sender: mpsc::UnboundedSender<Question>,
    questions: mpsc::UnboundedReceiver<Question>,
    published: Option<Instant>,
}

impl Desk {
    pub(crate) fn new(shelf: Shelf, thread: usize) -> Self {
        let (sender, questions) = mpsc::unbounded_channel();
        shelf.0.lock().threads.insert(thread, Default::default());
        Self { shelf, thread: Some(thread), sender, questions, published: None }
    }

    /// The desk of all standbys of an instance.
    pub(crate) fn of_standbys(shelf: Shelf) -> Self {
        let (sender, questions) = mpsc::unbounded_channel();
        Self { shelf, thread: None, sender, questions, published: None }
    }

    /// Shows which standbys there are now.
    pub(crate) fn show_standbys(&self, tasks: impl Iterator<Item = TaskId>) {
        let mut guard = self.shelf.0.lock();
        let shelf = &mut *guard;
        shelf.standbys = tasks.map(|id| (id, self.sender.clone())).collect();
        shelf.followed.retain(|id, _| shelf.standbys.contains_key(id));
    }

    /// Tells how a standby follows.
    pub(crate) fn note_followed(&self, id: TaskId, applied: Applied) {
        let mut shelf = self.shelf.0.lock();
        if shelf.standbys.contains_key(&id) {
            let before = shelf.followed.insert(id, applied);
            shelf.applied += applied.since(before);
        }
    }

    /// Whether it is time to tell numbers again.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.published.is_none_or(|last| last.elapsed() >= PUBLISHED_EVERY);
        if due {
            self.published = Some(Instant::now());
        }
        due
    }

    /// Tells the numbers of the thread and its tasks.
    pub(crate) fn publish(&self, mut tasks: Vec<TaskMetrics>, thread: ThreadMetrics) {
        let Some(number) = self.thread else {
            return;
        };
        for task in &mut tasks {
            task.thread = number;
        }
        let thread = ThreadMetrics { thread: number, ..thread };
        self.shelf.0.lock().threads.insert(number, (thread, tasks));
    }

    /// Shows which tasks the thread has now, and whether each runs or is still restored.
    pub(crate) fn show(&self, tasks: impl Iterator<Item = (TaskId, bool)>) {
        let Some(thread) = self.thread else {
            return;
        };
        let mut guard = self.shelf.0.lock();
        let shelf = &mut *guard;
        shelf.tasks.retain(|_, shown| shown.thread != thread);
        for (id, ready) in tasks {
            let shown = ShownTask { thread, ready, desk: self.sender.clone() };
            shelf.tasks.insert(id, shown);
        }
        shelf.restored.retain(|id, _| shelf.tasks.contains_key(id));
    }

    /// Waits for a question and answers it.
    pub(crate) async fn answer(&mut self, tasks: &mut impl Shelved) {
        // The desk has a sender itself: the channel does not end.
        if let Some(question) = self.questions.recv().await {
            (question.act)(tasks.find(question.task));
        }
    }

    /// Answers the questions that wait: called between two records.
    pub(crate) fn answer_waiting(&mut self, tasks: &mut impl Shelved) {
        while let Ok(question) = self.questions.try_recv() {
            (question.act)(tasks.find(question.task));
        }
    }

    /// Does something else, and answers questions as long as that waits.
    pub(crate) async fn meanwhile<T>(
        &mut self,
        tasks: &mut impl Shelved,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.answer(tasks) => {}
            }
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        match self.thread {
            Some(thread) => {
                self.show(std::iter::empty());
                self.shelf.0.lock().threads.remove(&thread);
            }
            None => self.show_standbys(std::iter::empty()),
        }
    }
}

/// The tasks of a thread, as its desk finds them.
pub(crate) trait Shelved {
    /// The task, if the thread has it and it runs.
    fn find(&mut self, id: TaskId) -> Option<&mut Task>;
}

impl Shelf {
    /// The tasks that this instance runs, and whether each is ready.
    pub(crate) fn tasks(&self) -> BTreeMap<TaskId, bool> {
        self.0.lock().tasks.iter().map(|(id, shown)| (*id, shown.ready)).collect()
    }

    /// Notes how the state of a task is brought back.
    pub(crate) fn note_restored(&self, id: TaskId, applied: Applied) {
        let mut shown = self.0.lock();
        let before = shown.restored.insert(id, applied);
        shown.applied += applied.since(before);
    }

    /// Notes that a thread has failed.
    pub(crate) fn note_failed(&self) {
        self.0.lock().failed += 1;
    }

    /// Whether a standby of a task is here.
    pub(crate) fn has_standby(&self, id: TaskId) -> bool {
        self.0.lock().standbys.contains_key(&id)
    }

    /// What the threads told last.
    pub(crate) fn metrics(&self) -> StreamsMetrics {
        let shown = self.0.lock();
        let here = |task: &&TaskMetrics| {
            shown.tasks.iter().any(|(id, known)| known.ready && id.to_string() == task.task)
        };
        StreamsMetrics {
            threads: shown.threads.values().map(|(thread, _)| thread.clone()).collect(),
            tasks: shown
                .threads
                .values()
                .flat_map(|(_, tasks)| tasks)
                .filter(here)
                .cloned()
                .collect(),
            restoring: shown.tasks.values().filter(|task| !task.ready).count(),
            restorations: shown
                .tasks
                .iter()
                .filter_map(|(id, task)| {
                    let Applied { records, lag } = *shown.restored.get(id)?;
                    let (thread, task) = (task.thread, id.to_string());
                    Some(RestorationMetrics { task, thread, records, remaining: lag.unwrap_or(0) })
                })
                .collect(),
            standbys: shown
                .standbys
                .keys()
                .map(|id| {
                    let Applied { records, lag } =
                        shown.followed.get(id).copied().unwrap_or_default();
                    StandbyMetrics { task: id.to_string(), records, lag }
                })
                .collect(),
            disk: Vec::new(),
            restored: shown.applied,
            failed_threads: shown.failed,
        }
    }

    /// Does something with a task, on its thread, or with its standby; `None` if neither is here.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        id: TaskId,
        act: impl FnOnce(Option<&mut Task>) -> T + Send + 'static,
    ) -> Option<T> {
        let (done, answer) = oneshot::channel();
        let desk = {
            let shown = self.0.lock();
            let running = shown.tasks.get(&id).map(|task| &task.desk);
            running.or_else(|| shown.standbys.get(&id)).cloned()?
        };
        let act: Act = Box::new(move |task| {
            // Whoever asked may have gone.
            let _ = done.send(act(task));
        });
        desk.send(Question { task: id, act }).ok()?;
        answer.await.ok()
    }

    /// Asks tasks one after the other.
    pub(crate) async fn query<A: Send + 'static>(
        &self,
        mut query: Query<A>,
        ids: &[TaskId],
    ) -> Result<Option<Answer<A>>, QueryError> {
        let mut gathered = None;
        for id in ids {
            let (store, id) = (query.store().to_owned(), *id);
            let asked = self.with(id, move |task| {
                let answer = task.map(|task| query.ask_task(task));
                (query, answer)
            });
            // A thread that ends drops the question, and the query with it.
            let (asked, answer) = asked.await.ok_or(QueryError::Ended)?;
            query = asked;
            let restoring =
                || QueryError::Rebalancing { store: store.clone(), task: id.to_string() };
            let answer = answer.ok_or_else(restoring)??;
            query.gather(&mut gathered, answer);
        }
        Ok(gathered)
    }

    /// Asks one task as over HTTP.
    pub(crate) async fn rows(
        &self,
        plan: &Arc<Plan>,
        ask: &Ask,
        id: TaskId,
    ) -> Result<Rows, QueryError> {
        let (plan, asked) = (plan.clone(), ask.clone());
        let found = self.with(id, move |task| task.map(|task| asked.ask_task(&plan, task))).await;
        let restoring =
            || QueryError::Rebalancing { store: ask.store.clone(), task: id.to_string() };
        found.ok_or(QueryError::Ended)?.ok_or_else(restoring)?
    }
}

/// How often threads tell their numbers.
const PUBLISHED_EVERY: Duration = Duration::from_secs(1);

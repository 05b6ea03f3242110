//! What the group tells a stream thread, as events between two of its steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleuve_client::BoxFuture;
use fleuve_client::consumer::{RebalanceListener, StreamsStatus, StreamsTasks};
use fleuve_types::TopicPartition;
use tokio::sync::{mpsc, oneshot};

use super::StreamsError;
use super::standby::Standbys;
use crate::runtime::TaskId;

/// What the group tells.
pub(super) enum Event {
    Assigned(Vec<TopicPartition>),
    /// The group goes on when the thread has committed and answers.
    Revoked(Vec<TopicPartition>, oneshot::Sender<()>),
    Lost(Vec<TopicPartition>),
    /// What the thread is to have the group divide anew for; replaces what was said before.
    Warming(Warming),
    /// What the broker has to say beside tasks.
    Told(Vec<StreamsStatus>),
    /// Why the tasks cannot be divided.
    Failed(StreamsError),
}

/// Reasons to have a group divide anew.
#[derive(Debug, Default)]
pub(super) struct Warming {
    /// These tasks are to run here once their state is near enough.
    pub(super) tasks: BTreeSet<TaskId>,
    /// After this time, whatever has come of warm-ups.
    pub(super) probe_after: Option<Duration>,
}

/// How often the group has given the member up: known before the member comes back under another id or generation, in
/// which the group would take offsets of tasks that meanwhile are somebody else's.
#[derive(Clone, Default)]
pub(super) struct Losses(Arc<AtomicU64>);

impl Losses {
    pub(super) fn so_far(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Passes on what a consumer hears of its group.
pub(super) struct Listener {
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) losses: Losses,
    /// The thread's number, and who keeps state for it.
    pub(super) thread: usize,
    pub(super) standbys: Standbys,
}

impl RebalanceListener for Listener {
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        // A closed channel is a thread that has ended.
        let _ = self.events.send(Event::Assigned(partitions.to_vec()));
        Box::pin(std::future::ready(()))
    }

    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let (done, committed) = oneshot::channel();
            if self.events.send(Event::Revoked(partitions.to_vec(), done)).is_ok() {
                let _ = committed.await;
            }
        })
    }

    fn lost<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        self.losses.0.fetch_add(1, Ordering::Release);
        let _ = self.events.send(Event::Lost(partitions.to_vec()));
        Box::pin(std::future::ready(()))
    }

    fn standbys<'a>(&'a self, tasks: &'a StreamsTasks) -> BoxFuture<'a, ()> {
        // A warm-up is a standby that is to take over soon.
        let kept = tasks.standby.union(&tasks.warmup).filter_map(|task| {
            let subtopology = task.subtopology.parse().ok()?;
            Some(TaskId { subtopology, partition: task.partition })
        });
        self.standbys.keep(self.thread, kept.collect());
        Box::pin(std::future::ready(()))
    }

    fn told(&self, statuses: &[StreamsStatus]) {
        let _ = self.events.send(Event::Told(statuses.to_vec()));
    }
}

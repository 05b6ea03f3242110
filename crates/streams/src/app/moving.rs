//! Tasks of a stream thread that come and go: what the group gives and takes, what there is to read, and the state that
//! tasks begin with.

use std::collections::HashMap;
use std::sync::Arc;

use fleuve_client::config::OffsetReset;
use fleuve_client::consumer::{Start, StreamsStatus, StreamsStatusKind};
use fleuve_client::{Consumer, Error};
use fleuve_types::TopicPartition;
use tokio::time::Instant;

use super::output::is_passing;
use super::rebalancing::Event;
use super::thread::{RETRY_PAUSE, Restored, Setup, TASK_TIMEOUT, Thread, now_ms};
use super::{StreamsError, metadata};
use crate::metrics::Told;
use crate::runtime::{Progress, Task, TaskId};

impl Thread {
    /// Does what the group says.
    pub(super) async fn handle(&mut self, event: Event) -> Result<(), StreamsError> {
        self.follow_layout().await?;
        let began = Instant::now();
        let what = match &event {
            Event::Assigned(_) => Some(Told::Assigned),
            Event::Revoked(..) => Some(Told::Revoked),
            Event::Lost(_) => Some(Told::Lost),
            Event::Failed(_) | Event::Told(_) | Event::Warming(_) => None,
        };
        match event {
            Event::Assigned(partitions) => {
                self.strangers_since = None;
                for id in self.tasks.of(&partitions) {
                    if !self.tasks.contains(id) {
                        self.open(id);
                    }
                }
                self.tasks.resume(&partitions, &self.consumer);
            }
            Event::Failed(error) => return Err(error),
            Event::Revoked(partitions, done) => {
                self.forget_gone(&partitions);
                self.drain().await?;
                let result = self.commit_to_disk().await;
                self.close(&partitions);
                let _ = done.send(());
                result?;
            }
            Event::Told(statuses) => self.take_statuses(&statuses)?,
            Event::Warming(warming) => {
                self.probe_at = warming.probe_after.map(|after| Instant::now() + after);
                self.warming = warming;
            }
            Event::Lost(partitions) => {
                self.losses_handled += 1;
                self.close(&partitions);
                if self.output.is_pending() {
                    self.begin_again("the group gave this member up").await?;
                }
            }
        }
        if let Some(what) = what {
            self.meter.told(now_ms(), what, began.elapsed());
        }
        Ok(())
    }

    /// Goes over to what is read now, if that has changed.
    async fn follow_layout(&mut self) -> Result<(), StreamsError> {
        let layout = self.setup.layouts.now();
        if Arc::ptr_eq(&layout, &self.layout) {
            return Ok(());
        }
        self.layout = layout;
        self.tasks.adopt(&self.layout, now_ms());
        let left_out = self.tasks.left_out(&self.layout);
        if !left_out.is_empty() {
            self.drain().await?;
            self.commit_to_disk().await?;
            self.close_tasks(left_out);
        }
        Ok(())
    }

    /// Forgets partitions of topics that are gone: nothing can be committed for them.
    fn forget_gone(&mut self, partitions: &[TopicPartition]) {
        if !self.setup.layouts.follows() {
            return;
        }
        let cluster = self.setup.client.cluster();
        for partition in partitions.iter().filter(|gone| cluster.topic(&gone.topic).is_none()) {
            self.tasks.forget(partition);
        }
    }

    fn close(&mut self, partitions: &[TopicPartition]) {
        self.close_tasks(self.tasks.of(partitions));
    }

    fn close_tasks(&mut self, ids: Vec<TaskId>) {
        for id in ids {
            self.tasks.close(id);
            self.setup.standbys.forget(id);
            self.meter.task_closed();
        }
    }

    fn take_statuses(&mut self, statuses: &[StreamsStatus]) -> Result<(), StreamsError> {
        for StreamsStatus { kind, detail } in statuses {
            match kind {
                StreamsStatusKind::ShutdownApplication => {
                    return Err(StreamsError::Shutdown(detail.clone()));
                }
                StreamsStatusKind::AssignmentDelayed => {
                    tracing::debug!(thread = self.setup.number, detail, "told by the group");
                }
                _ => tracing::warn!(thread = self.setup.number, detail, "told by the group"),
            }
        }
        Ok(())
    }

    /// Begins a task: its state is restored while its partitions wait.
    pub(super) fn open(&mut self, id: TaskId) {
        let number = self.tasks.open(id, &self.consumer);
        self.meter.task_created();
        let setup = self.setup.clone();
        let asking = self.asking.clone();
        let partitions = self.tasks.partitions(id).to_vec();
        let done = self.restoring.clone();
        let restoring = tokio::spawn(async move {
            let began = Instant::now();
            let mut found = None;
            let task = loop {
                match setup.task(id, &asking, &partitions, &mut found).await {
                    Err(StreamsError::Client(error))
                        if is_passing(&error) && began.elapsed() < TASK_TIMEOUT =>
                    {
                        tracing::info!(task = %id, %error, "the state is read on");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    task => break task,
                }
            };
            // The thread may have ended meanwhile.
            let _ = done.send((id, number, task));
        });
        self.tasks.restored_by(id, restoring.abort_handle());
    }

    pub(super) fn take_restored(
        &mut self,
        (id, number, task): Restored,
    ) -> Result<(), StreamsError> {
        if !self.tasks.awaits(id, number) {
            return Ok(());
        }
        let mut task = task?;
        task.adopt(&self.layout.plan, now_ms());
        task.set_waker(self.woken.clone().into());
        task.init(now_ms())?;
        self.tasks.start(number, task, &self.consumer);
        Ok(())
    }

    /// Where a topic begins if nothing is committed; `None` if it does not.
    pub(super) fn start_of(&self, topic: &str) -> Option<Start> {
        // The thread may not have heard yet of a topic that is new.
        let reset = self.setup.layouts.now().plan.offset_reset_of(topic);
        match reset.unwrap_or(self.setup.settings.offset_reset) {
            OffsetReset::Earliest => Some(Start::Beginning),
            OffsetReset::Latest => Some(Start::End),
            OffsetReset::ByDuration(age) => {
                let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                Some(Start::Timestamp(now_ms().saturating_sub(age_ms)))
            }
            OffsetReset::None => None,
        }
    }
}

impl Setup {
    /// Subscribes to what the tasks read.
    pub(super) fn subscribe(&self, consumer: &Consumer) -> Result<(), Error> {
        if self.layouts.follows() && self.plan.has_patterns() {
            return consumer.subscribe_pattern(&self.plan.subscription_pattern());
        }
        let layout = self.layouts.now();
        let parts = layout.plan.subtopologies().iter().filter(|part| !part.global);
        let topics = parts.flat_map(|part| part.source_topics.iter().map(String::as_str));
        consumer.subscribe(&topics.collect::<Vec<_>>())
    }

    /// Makes a task with its state, and with what was committed beside its offsets. The state is that of a standby, or
    /// what the disk has, and the rest comes from changelogs. An attempt that fails leaves in `found` what there is.
    async fn task(
        &self,
        id: TaskId,
        asking: &Consumer,
        partitions: &[TopicPartition],
        found: &mut Option<Task>,
    ) -> Result<Task, StreamsError> {
        let mut progress = Progress::default();
        let mut processed = HashMap::new();
        for (partition, committed) in asking.committed(partitions).await? {
            metadata::decode(&committed.metadata, &partition.topic, &mut progress);
            processed.insert(partition, committed.offset);
        }
        let mut task = match found.take() {
            Some(task) => task,
            None => match self.standbys.take(id).await {
                Some(task) => task,
                None => self.restorer.open(id).await?,
            },
        };
        if let Err(error) = self.restorer.catch_up(&mut task, &processed).await {
            *found = Some(task);
            return Err(error);
        }
        task.adopt(&self.layouts.now().plan, now_ms());
        task.go_on_from(&progress);
        Ok(task)
    }
}

//! What the tasks of an application read, and how many of them there are.
//!
//! Topics come and go, and grow: sources by pattern find others, and partitions are added. Whoever divides the tasks of a
//! group of the classic protocol looks what there is, prepares what that needs, and tells the members the numbers of
//! partitions together with their tasks, so that all go by the same layout. Threads go over to it between two steps.
//! With the streams protocol the broker knows the topics, and in a run that ends they are those of its beginning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleuve_client::{Admin, Client, Cluster};
use fleuve_types::TopicPartition;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::assignor::partitions_by_task;
use super::output::is_passing;
use super::topics::{self, Counts};
use super::{Settings, StreamsError};
use crate::runtime::{Globals, TaskId};
use crate::topology::Plan;

/// What tasks read at some time.
pub(super) struct Layout {
    /// The topology, with the topics that its patterns match.
    pub(super) plan: Arc<Plan>,
    pub(super) counts: Counts,
    /// The partitions that each task reads.
    pub(super) tasks: BTreeMap<TaskId, Vec<TopicPartition>>,
}

impl Layout {
    pub(super) fn new(plan: Arc<Plan>, counts: Counts) -> Self {
        let tasks = partitions_by_task(&plan, &counts);
        Self { plan, counts, tasks }
    }

    /// The number of tasks of a subtopology.
    pub(super) fn tasks_of(&self, subtopology: u32) -> i32 {
        let part = self.plan.subtopologies().get(subtopology as usize);
        part.map_or(0, |part| topics::tasks_of(part, &self.counts) as i32)
    }
}

/// The layout of a process.
#[derive(Clone)]
pub(super) struct Layouts(Arc<Shared>);

struct Shared {
    /// The topology, as it was written.
    plan: Arc<Plan>,
    globals: Globals,
    /// Who looks for topics; nobody if the layout stays as it is.
    finder: Option<Finder>,
    now: Mutex<Arc<Layout>>,
}

struct Finder {
    client: Client,
    settings: Settings,
}

impl Layouts {
    /// One that changes when others tell so, or after a look of this process's.
    pub(super) async fn found(
        plan: Arc<Plan>,
        client: &Client,
        settings: &Settings,
        globals: Globals,
        follows: bool,
    ) -> Result<Self, StreamsError> {
        let (mut read, mut cluster) = (plan.clone(), None);
        if plan.has_patterns() {
            let all = client.refresh_all().await?;
            read = plan.reading(names(&all))?;
            cluster = Some(all);
        }
        let admin = Admin::new(client.clone());
        let counts = topics::prepare(&read, &admin, settings, cluster.as_deref()).await?;
        let finder = Finder { client: client.clone(), settings: settings.clone() };
        let layout = Layout::new(read, counts);
        Ok(Self::of(plan, layout, globals, follows.then_some(finder)))
    }

    /// One that stays as it is.
    #[cfg(test)]
    pub(super) fn fixed(plan: Arc<Plan>, counts: Counts) -> Self {
        let globals = Globals::new(&plan);
        Self::of(plan.clone(), Layout::new(plan, counts), globals, None)
    }

    fn of(plan: Arc<Plan>, layout: Layout, globals: Globals, finder: Option<Finder>) -> Self {
        let now = Mutex::new(Arc::new(layout));
        let layouts = Self(Arc::new(Shared { plan, globals, finder, now }));
        layouts.tell_counts(&layouts.now().counts);
        layouts
    }

    /// What tasks read now.
    pub(super) fn now(&self) -> Arc<Layout> {
        self.0.now.lock().clone()
    }

    /// Whether topics may come and go.
    pub(super) fn follows(&self) -> bool {
        self.0.finder.is_some()
    }

    /// Looks which topics there are and how many partitions they have, and prepares for what has changed.
    pub(super) async fn look(&self) -> Result<(), StreamsError> {
        let began = Instant::now();
        loop {
            match self.look_once().await {
                Err(StreamsError::Client(error))
                    if is_passing(&error) && began.elapsed() < LOOK_PATIENCE =>
                {
                    tracing::info!(%error, "topics are looked for once more");
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn look_once(&self) -> Result<(), StreamsError> {
        let Some(Finder { client, settings }) = &self.0.finder else {
            return Ok(());
        };
        let plan = &self.0.plan;
        let (cluster, read) = match plan.has_patterns() {
            true => {
                let cluster = client.refresh_all().await?;
                let read = plan.reading(names(&cluster))?;
                (cluster, read)
            }
            // Those of the group's topics were asked for a moment ago.
            false => (client.cluster(), plan.clone()),
        };
        let now = self.now();
        let is_same = |topic: &String| {
            let count = cluster.topic(topic).map(|topic| topic.partitions.len());
            // One that was read and is not there any more is waited for, unless a pattern found it.
            count.is_none() || count == now.counts.get(topic).copied()
        };
        let parts = || read.subtopologies().iter().zip(now.plan.subtopologies());
        if parts().all(|(new, old)| {
            new.source_topics == old.source_topics && new.source_topics.iter().all(is_same)
        }) {
            return Ok(());
        }
        let admin = Admin::new(client.clone());
        let counts = topics::prepare(&read, &admin, settings, Some(&cluster)).await?;
        self.set(Layout::new(read, counts));
        Ok(())
    }

    /// Goes over to what the member has found that divides the tasks.
    pub(super) fn adopt(&self, mut counts: Counts) -> Result<(), StreamsError> {
        let sum = counts.values().try_fold(0_usize, |sum, count| sum.checked_add(*count));
        if !self.follows() || sum.is_none_or(|sum| sum > PARTITIONS_MAX) {
            return Ok(());
        }
        let now = self.now();
        for (topic, count) in now.counts.iter().filter(|(topic, _)| !now.plan.is_matched(topic)) {
            // Another release of the program may not read it.
            counts.entry(topic.clone()).or_insert(*count);
        }
        if now.counts == counts {
            return Ok(());
        }
        let plan = match self.0.plan.has_patterns() {
            true => self.0.plan.reading(counts.keys().map(String::as_str))?,
            false => self.0.plan.clone(),
        };
        self.set(Layout::new(plan, counts));
        Ok(())
    }

    fn set(&self, layout: Layout) {
        tracing::info!(partitions = ?layout.counts, "other partitions are read than before");
        self.tell_counts(&layout.counts);
        *self.0.now.lock() = Arc::new(layout);
    }

    fn tell_counts(&self, counts: &Counts) {
        for (topic, count) in counts {
            self.0.globals.set_partitions(topic, *count as i32);
        }
    }
}

/// The topics that patterns may find.
fn names(cluster: &Cluster) -> impl Iterator<Item = &str> {
    let topics = cluster.topics().into_iter();
    topics
        .filter(|topic| !topic.is_internal && !topic.partitions.is_empty())
        .map(|topic| &*topic.name)
}

/// How long the cluster may keep the division waiting, and the pause between two looks.
const LOOK_PATIENCE: Duration = Duration::from_secs(30);
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// The most partitions that a member believes another to have found.
const PARTITIONS_MAX: usize = 1_000_000;

//! Bounded runs: an application that ends once it has processed what was there when it began.
//!
//! The idea is Beam's: a batch is a stream that ends. The sources end at the offsets that their topics had at the start;
//! records that come later wait for the next run. Progress is read off the group's committed offsets, so that it does
//! not matter which thread or instance has made it. The run is at its end when every source has been committed up to
//! there, and after that every repartition topic up to its own end, without anything new in any of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{Committed, LATEST};
use fleuve_client::{Admin, Client, Consumer, ConsumerConfig};
use fleuve_types::TopicPartition;
use parking_lot::Mutex;

use super::layout::Layout;
use super::output::is_passing;
use super::topics::Counts;
use super::{Guarantee, Settings, Streams, StreamsError, metadata};
use crate::dsl::Topology;
use crate::topology::Plan;

/// Where sources end: what is at these offsets or behind them is not read.
pub(super) type Ends = Arc<HashMap<TopicPartition, i64>>;

/// Subtopologies whose input has ended, in a program that has everything sent then. Tasks are told by way of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Closing(Arc<Mutex<BTreeSet<u32>>>);

impl Closing {
    pub(super) fn contains(&self, subtopology: u32) -> bool {
        self.0.lock().contains(&subtopology)
    }

    fn insert(&self, subtopologies: &BTreeSet<u32>) {
        self.0.lock().extend(subtopologies);
    }
}

impl Streams {
    /// Runs the topology over what its sources hold now, and returns when all of it, and all that it led to, is
    /// processed, flushed and committed. Another run goes on where this one ended.
    ///
    /// Event time stands still at the end: what waits for it to pass (windows sent on close, suppressed changes, outer
    /// joins) is sent by a later run, unless the program says otherwise ([`Topology::close_at_end`]). A topic that the program both writes and reads ends where it ended at the start,
    /// unless it is a repartition topic. Commits are 100 ms apart, unless the settings say otherwise.
    pub async fn run_until_end(
        topology: &Topology,
        client: Client,
        mut settings: Settings,
    ) -> Result<(), StreamsError> {
        settings.commit_interval.get_or_insert(COMMIT_INTERVAL);
        let mut running = Self::launch(topology, client.clone(), settings, true).await?;
        let progress = Progress::new(&running, client)?;
        let ended = loop {
            let finished = tokio::select! {
                biased;
                failed = running.failed() => break failed.map_or(Ok(()), Err),
                finished = progress.is_finished() => finished,
            };
            match finished {
                Ok(true) => break Ok(()),
                Ok(false) => {}
                Err(StreamsError::Client(error)) if is_passing(&error) => {
                    tracing::info!(%error, "the progress of the run is asked for again");
                }
                Err(error) => break Err(error),
            }
            tokio::time::sleep(LOOK).await;
        };
        let closed = running.close().await;
        ended.and(closed)
    }
}

/// The ends that the program's own topics do not have: those of its external sources.
pub(super) async fn ends(
    layout: &Layout,
    client: &Client,
    settings: &Settings,
) -> Result<Ends, StreamsError> {
    let isolation = match settings.guarantee {
        Guarantee::AtLeastOnce => IsolationLevel::ReadUncommitted,
        Guarantee::ExactlyOnce => IsolationLevel::ReadCommitted,
    };
    let (sources, _) = partitions(&layout.plan, &layout.counts);
    Ok(Arc::new(offsets(client, &sources, isolation).await?))
}

/// How far the group has come.
struct Progress {
    client: Client,
    /// Never subscribes: asks what the group has committed.
    asking: Consumer,
    ends: Ends,
    repartitions: Vec<TopicPartition>,
    /// What is told to tasks at the end of their input, and with which partitions that end is judged: in the order in which
    /// input flows. Nothing if they are told nothing.
    stages: Vec<(BTreeSet<u32>, Vec<TopicPartition>)>,
    closing: Closing,
}

impl Progress {
    fn new(running: &Streams, client: Client) -> Result<Self, StreamsError> {
        let layout = running.inside.layouts.now();
        let (plan, counts) = (&layout.plan, &layout.counts);
        let config = ConsumerConfig {
            group_id: Some(plan.application_id().to_owned()),
            auto_commit: false,
            ..ConsumerConfig::default()
        };
        let (_, repartitions) = partitions(plan, counts);
        let stages = if plan.time.closes_at_end { plan.stages() } else { Vec::new() };
        let reads = |stage: &BTreeSet<u32>| {
            let parts = stage.iter().map(|id| &plan.subtopologies()[*id as usize]);
            let topics: BTreeSet<&String> = parts.flat_map(|part| &part.source_topics).collect();
            all_partitions(topics, counts).collect()
        };
        let stages = stages.into_iter().map(|stage| {
            let reads = reads(&stage);
            (stage, reads)
        });
        Ok(Self {
            stages: stages.collect(),
            closing: running.setup.closing.clone(),
            asking: Consumer::new(client.clone(), config)?,
            client,
            ends: running.setup.ends.clone().unwrap_or_default(),
            repartitions,
        })
    }

    async fn is_finished(&self) -> Result<bool, StreamsError> {
        let written = self.written().await?;
        let partitions: Vec<TopicPartition> =
            self.ends.keys().chain(written.keys()).cloned().collect();
        let committed = self.asking.committed(&partitions).await?;
        let reached = |(partition, end): (&TopicPartition, &i64)| {
            let offset = committed.get(partition).map_or(0, |committed| committed.offset);
            offset >= *end
        };
        // What was committed has been written before: if there is nothing new now, nothing is under way.
        if self.written().await? != written {
            return Ok(false);
        }
        Ok(self.stages_have_ended(&written, &committed)
            && self.ends.iter().all(reached)
            && written.iter().all(reached))
    }

    /// Tells tasks of the end of their input once all of it is processed, and all above them has been told, and has dealt
    /// with that. Returns whether the last ones have.
    fn stages_have_ended(
        &self,
        written: &HashMap<TopicPartition, i64>,
        committed: &HashMap<TopicPartition, Committed>,
    ) -> bool {
        for (stage, reads) in &self.stages {
            let mut ended = true;
            for partition in reads {
                let end = self.ends.get(partition).or_else(|| written.get(partition)).copied();
                let Some(end) = end.filter(|end| *end > 0) else {
                    continue;
                };
                let found = committed.get(partition).filter(|found| found.offset >= end);
                let Some(found) = found else {
                    return false;
                };
                ended &= metadata::is_end(&found.metadata, found.offset);
            }
            self.closing.insert(stage);
            if !ended {
                return false;
            }
        }
        true
    }

    /// The ends of the repartition topics now, those of open transactions included.
    async fn written(&self) -> Result<HashMap<TopicPartition, i64>, StreamsError> {
        offsets(&self.client, &self.repartitions, IsolationLevel::ReadUncommitted).await
    }
}

/// The partitions that tasks read: of external topics, and of repartition topics.
fn partitions(plan: &Plan, counts: &Counts) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
    let parts = || plan.subtopologies().iter().filter(|part| !part.global);
    let own: BTreeSet<&str> = parts()
        .flat_map(|part| &part.repartition_topics)
        .map(|topic| topic.name.as_str())
        .collect();
    let all: BTreeSet<&String> = parts().flat_map(|part| &part.source_topics).collect();
    all_partitions(all, counts).partition(|partition| !own.contains(&*partition.topic))
}

fn all_partitions<'a>(
    topics: BTreeSet<&'a String>,
    counts: &'a Counts,
) -> impl Iterator<Item = TopicPartition> + 'a {
    topics.into_iter().flat_map(|topic| {
        let count = counts.get(topic).copied().unwrap_or_default();
        (0..count as i32).map(|number| TopicPartition::new(topic.as_str(), number))
    })
}

async fn offsets(
    client: &Client,
    partitions: &[TopicPartition],
    isolation: IsolationLevel,
) -> Result<HashMap<TopicPartition, i64>, StreamsError> {
    let asked: HashMap<_, _> =
        partitions.iter().map(|partition| (partition.clone(), LATEST)).collect();
    let mut offsets = HashMap::new();
    if asked.is_empty() {
        return Ok(offsets);
    }
    for (partition, found) in Admin::new(client.clone()).list_offsets(&asked, isolation).await? {
        offsets.insert(partition, found?.offset);
    }
    Ok(offsets)
}

/// `commit.interval.ms` of a run that is to end soon.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks at the progress.
const LOOK: Duration = Duration::from_millis(50);

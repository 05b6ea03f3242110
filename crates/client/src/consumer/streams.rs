//! The streams group protocol (KIP-1071): the broker knows an application's topology and gives its members tasks.
//!
//! A task stands for the partitions of one number that a subtopology reads; which these are, the application says. So
//! the consumer reads what its active tasks read, and only passes on which standby and warm-up tasks it is to keep.
//! The rest is as in `reconciling`, which drives this: what the target lacks is given up first and told, tasks that stay
//! are not touched.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use fleuve_protocol::messages::streams_group_heartbeat_request::{
    CopartitionGroup, Endpoint, KeyValue, StreamsGroupHeartbeatRequest, Subtopology, TaskIds,
    TopicInfo, Topology,
};
use fleuve_protocol::messages::streams_group_heartbeat_response as response;
use fleuve_protocol::messages::streams_group_heartbeat_response::StreamsGroupHeartbeatResponse;
use fleuve_types::TopicPartition;
use tokio::time::Instant;

use super::membership::Membership;
use super::reconciling::{
    INTERVAL_MS_MIN, JOINING_EPOCH, LEAVING_EPOCH, LEAVING_FOR_A_WHILE_EPOCH,
};
use crate::error::{Result, check_said};

/// A task of a stream application: a subtopology for one partition number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamsTask {
    /// The subtopology's id.
    pub subtopology: String,
    /// The partition number.
    pub partition: i32,
}

/// The tasks that a member has or is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamsTasks {
    /// Those it processes.
    pub active: BTreeSet<StreamsTask>,
    /// Those whose state it keeps up to date, to take over.
    pub standby: BTreeSet<StreamsTask>,
    /// Those whose state it brings up to date, to take them over soon.
    pub warmup: BTreeSet<StreamsTask>,
}

/// What the group has to say to a member of a stream application, beside its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsStatus {
    /// What it is about.
    pub kind: StreamsStatusKind,
    /// The broker's words.
    pub detail: String,
}

/// What a [`StreamsStatus`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamsStatusKind {
    /// The member's topology is older than the group's.
    StaleTopology,
    /// Source topics are missing.
    MissingSourceTopics,
    /// Topics that are read together have different numbers of partitions.
    IncorrectlyPartitionedTopics,
    /// Internal topics are missing; the broker makes them.
    MissingInternalTopics,
    /// A member has asked for the end of the whole application.
    ShutdownApplication,
    /// Tasks are handed out in a moment.
    AssignmentDelayed,
    /// Something that this release has no name for.
    Other(i8),
}

/// A member of a stream application, as it joins its group.
#[derive(Clone, Debug, Default)]
pub struct StreamsMember {
    /// Names the process; the tasks of its members are shared out among processes first.
    pub process_id: String,
    /// What the application is made of. All members bring the same.
    pub subtopologies: Vec<StreamsSubtopology>,
    /// Where others reach this process with queries.
    pub endpoint: Option<(String, u16)>,
    /// Tags of this process, by which standby tasks may be spread.
    pub client_tags: Vec<(String, String)>,
    /// The partitions that each task reads.
    pub tasks: BTreeMap<StreamsTask, Vec<TopicPartition>>,
}

/// A part of a stream application whose nodes run together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamsSubtopology {
    /// Its id.
    pub id: String,
    /// Topics it reads, without repartition topics.
    pub source_topics: BTreeSet<String>,
    /// Repartition topics it reads.
    pub repartition_topics: Vec<StreamsTopic>,
    /// Repartition topics it writes.
    pub repartition_sinks: BTreeSet<String>,
    /// Changelog topics of its stores.
    pub changelog_topics: Vec<StreamsTopic>,
    /// Topics among those it reads that must have the same number of partitions.
    pub copartitions: Vec<BTreeSet<String>>,
}

/// An internal topic of a stream application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamsTopic {
    /// Its name.
    pub name: String,
    /// Its number of partitions; 0 leaves it to the broker.
    pub partitions: i32,
    /// Its replication factor; -1 takes the cluster's default.
    pub replication_factor: i16,
    /// Its settings.
    pub configs: Vec<(String, String)>,
}

/// What a member is to have, what it has, and what it said it has.
#[derive(Debug, Default)]
pub(super) struct Progress {
    target: StreamsTasks,
    owned: StreamsTasks,
    told: Option<StreamsTasks>,
    /// What the broker said last beside tasks.
    statuses: Vec<StreamsStatus>,
    endpoint_epoch: i32,
}

impl Progress {
    /// A member that is about to join, and has nothing.
    pub(super) fn joining() -> Self {
        Self { endpoint_epoch: -1, ..Self::default() }
    }
}

impl Membership {
    fn partitions_of(&self, tasks: &BTreeSet<StreamsTask>) -> HashSet<TopicPartition> {
        let Some(member) = &self.shared.streams else { return HashSet::new() };
        let partitions = tasks.iter().filter_map(|task| member.tasks.get(task));
        partitions.flatten().cloned().collect()
    }

    /// Comes one step nearer to the target; false if there is nothing to do.
    pub(super) async fn reconcile_tasks(&mut self) -> bool {
        let target = self.streams.target.clone();
        if target == self.streams.owned {
            return false;
        }
        let wanted = self.partitions_of(&target.active);
        let owned: HashSet<_> = self.shared.lock().partitions.keys().cloned().collect();
        let gone: HashSet<_> = owned.difference(&wanted).cloned().collect();
        let kept = |had: &BTreeSet<StreamsTask>, wanted: &BTreeSet<StreamsTask>| {
            had.intersection(wanted).cloned().collect::<BTreeSet<_>>()
        };
        let had = &self.streams.owned;
        let left = StreamsTasks {
            active: kept(&had.active, &target.active),
            standby: kept(&had.standby, &target.standby),
            warmup: kept(&had.warmup, &target.warmup),
        };
        if left != self.streams.owned {
            if !gone.is_empty() {
                self.wait_for_application(&gone).await;
                if self.has_ended() {
                    return true;
                }
                self.give_up(gone, false).await;
            }
            self.tell_standbys(&left).await;
            self.streams.owned = left;
            return true;
        }
        let mut new: Vec<_> = wanted.difference(&owned).cloned().collect();
        new.sort_unstable();
        // What was a standby here becomes active with the state it has: the listener hears of the partitions first.
        self.take(new).await;
        self.tell_standbys(&target).await;
        self.streams.owned = target;
        true
    }

    async fn tell_standbys(&mut self, tasks: &StreamsTasks) {
        let had = &self.streams.owned;
        if had.standby == tasks.standby && had.warmup == tasks.warmup {
            return;
        }
        if let Some(listener) = self.shared.listener() {
            let tasks = tasks.clone();
            self.while_alive(async move { listener.standbys(&tasks).await }).await;
        }
    }

    /// Sends a heartbeat and takes note of the answer.
    pub(super) async fn beat_tasks(&mut self, full: bool) -> Result<()> {
        let connection = self.connection().await?;
        let version = connection.version_of::<StreamsGroupHeartbeatRequest>(i16::MAX)?;
        let member = self.shared.lock().member.clone();
        let is_joining = member.generation == JOINING_EPOCH;
        let owned = self.streams.owned.clone();
        let mut request = StreamsGroupHeartbeatRequest {
            group_id: self.group.clone().into(),
            member_id: member.id.into(),
            member_epoch: member.generation,
            endpoint_information_epoch: self.streams.endpoint_epoch,
            instance_id: self.instance_id(true),
            rebalance_timeout_ms: -1,
            ..StreamsGroupHeartbeatRequest::default()
        };
        if let Some(told) = self.shared.streams.as_ref().filter(|_| full || is_joining) {
            let config = &self.shared.config;
            request.rebalance_timeout_ms = config.max_poll_interval.as_millis() as i32;
            request.rack_id = config.rack.clone().map(Into::into);
            request.process_id = Some(told.process_id.clone().into());
            request.user_endpoint =
                told.endpoint.clone().map(|(host, port)| Endpoint { host: host.into(), port });
            request.client_tags = Some(key_values(&told.client_tags));
            if is_joining {
                request.topology = Some(Topology {
                    epoch: TOPOLOGY_EPOCH,
                    subtopologies: told.subtopologies.iter().map(subtopology).collect(),
                });
            }
        }
        if full || is_joining || self.streams.told.as_ref() != Some(&owned) {
            request.active_tasks = Some(by_subtopology(&owned.active));
            request.standby_tasks = Some(by_subtopology(&owned.standby));
            request.warmup_tasks = Some(by_subtopology(&owned.warmup));
        }
        let answer = connection.submit(&request, version)?.wait().await?;
        check_said(answer.error_code, answer.error_message.as_deref(), || {
            format!("group {}", self.group)
        })?;
        self.streams.told = Some(owned);
        self.take_answer(answer).await;
        Ok(())
    }

    async fn take_answer(&mut self, answer: StreamsGroupHeartbeatResponse) {
        let ms = u64::try_from(answer.heartbeat_interval_ms).unwrap_or(0).max(INTERVAL_MS_MIN);
        self.beats_every(Duration::from_millis(ms));
        self.next_heartbeat = Instant::now() + Duration::from_millis(ms);
        {
            let mut state = self.shared.lock();
            state.member.generation = answer.member_epoch;
            if !answer.member_id.is_empty() {
                state.member.id = answer.member_id.to_string();
            }
        }
        if answer.partitions_by_user_endpoint.is_some() {
            self.streams.endpoint_epoch = answer.endpoint_information_epoch;
        }
        if let Some(active) = answer.active_tasks {
            self.streams.target = StreamsTasks {
                active: tasks(&active),
                standby: tasks(answer.standby_tasks.as_deref().unwrap_or_default()),
                warmup: tasks(answer.warmup_tasks.as_deref().unwrap_or_default()),
            };
        }
        let statuses: Vec<StreamsStatus> =
            answer.status.iter().flatten().map(StreamsStatus::from).collect();
        if statuses != self.streams.statuses {
            if let Some(listener) = self.shared.listener() {
                listener.told(&statuses);
            }
            self.streams.statuses = statuses;
        }
    }

    /// Says good-bye; a static member keeps its place for as long as its session lasts.
    pub(super) async fn leave_tasks(&mut self) -> Result<()> {
        let member = self.shared.lock().member.clone();
        let is_static = self.shared.config.group_instance_id.is_some();
        let connection = self.connection().await?;
        let version = connection.version_of::<StreamsGroupHeartbeatRequest>(i16::MAX)?;
        let request = StreamsGroupHeartbeatRequest {
            group_id: self.group.clone().into(),
            member_id: member.id.into(),
            member_epoch: if is_static { LEAVING_FOR_A_WHILE_EPOCH } else { LEAVING_EPOCH },
            endpoint_information_epoch: self.streams.endpoint_epoch,
            instance_id: self.instance_id(true),
            rebalance_timeout_ms: -1,
            ..StreamsGroupHeartbeatRequest::default()
        };
        let answer = connection.submit(&request, version)?.wait().await?;
        check_said(answer.error_code, answer.error_message.as_deref(), || {
            format!("group {}", self.group)
        })
    }
}

impl From<&response::Status> for StreamsStatus {
    fn from(status: &response::Status) -> Self {
        let kind = match status.status_code {
            0 => StreamsStatusKind::StaleTopology,
            1 => StreamsStatusKind::MissingSourceTopics,
            2 => StreamsStatusKind::IncorrectlyPartitionedTopics,
            3 => StreamsStatusKind::MissingInternalTopics,
            4 => StreamsStatusKind::ShutdownApplication,
            5 => StreamsStatusKind::AssignmentDelayed,
            other => StreamsStatusKind::Other(other),
        };
        Self { kind, detail: status.status_detail.to_string() }
    }
}

fn tasks(listed: &[response::TaskIds]) -> BTreeSet<StreamsTask> {
    let each = listed.iter().flat_map(|part| {
        part.partitions.iter().map(|&partition| StreamsTask {
            subtopology: part.subtopology_id.to_string(),
            partition,
        })
    });
    each.collect()
}

fn by_subtopology(tasks: &BTreeSet<StreamsTask>) -> Vec<TaskIds> {
    let mut listed: Vec<TaskIds> = Vec::new();
    for task in tasks {
        match listed.last_mut().filter(|last| *last.subtopology_id == *task.subtopology) {
            Some(last) => last.partitions.push(task.partition),
            None => listed.push(TaskIds {
                subtopology_id: task.subtopology.clone().into(),
                partitions: vec![task.partition],
            }),
        }
    }
    listed
}

/// Everything in order of names, so that all members bring the very same.
fn subtopology(part: &StreamsSubtopology) -> Subtopology {
    let mut repartition_topics: Vec<_> = part.repartition_topics.iter().map(topic_info).collect();
    repartition_topics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut changelog_topics: Vec<_> = part.changelog_topics.iter().map(topic_info).collect();
    changelog_topics.sort_by(|a, b| a.name.cmp(&b.name));
    let place = |names: &mut dyn Iterator<Item = &str>, group: &BTreeSet<String>| {
        let places = names.enumerate().filter(|(_, name)| group.contains(*name));
        places.filter_map(|(at, _)| i16::try_from(at).ok()).collect::<Vec<i16>>()
    };
    let copartition_groups = part.copartitions.iter().map(|group| CopartitionGroup {
        source_topics: place(&mut part.source_topics.iter().map(String::as_str), group),
        source_topic_regex: Vec::new(),
        repartition_source_topics: place(
            &mut repartition_topics.iter().map(|topic| &*topic.name),
            group,
        ),
    });
    Subtopology {
        subtopology_id: part.id.clone().into(),
        source_topics: part.source_topics.iter().map(|name| name.clone().into()).collect(),
        source_topic_regex: Vec::new(),
        state_changelog_topics: changelog_topics,
        repartition_sink_topics: part
            .repartition_sinks
            .iter()
            .map(|name| name.clone().into())
            .collect(),
        copartition_groups: copartition_groups.collect(),
        repartition_source_topics: repartition_topics,
    }
}

fn topic_info(topic: &StreamsTopic) -> TopicInfo {
    let mut configs = topic.configs.clone();
    configs.sort();
    TopicInfo {
        name: topic.name.clone().into(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        topic_configs: key_values(&configs),
    }
}

fn key_values(pairs: &[(String, String)]) -> Vec<KeyValue> {
    let each = pairs.iter();
    each.map(|(key, value)| KeyValue { key: key.clone().into(), value: value.clone().into() })
        .collect()
}

/// Topologies of running applications cannot be changed yet, so that there is one epoch.
const TOPOLOGY_EPOCH: i32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn task(subtopology: &str, partition: i32) -> StreamsTask {
        StreamsTask { subtopology: subtopology.to_owned(), partition }
    }

    #[test]
    fn tasks_are_told_by_subtopology() {
        let tasks = BTreeSet::from([task("1", 0), task("0", 2), task("0", 1)]);
        let listed = by_subtopology(&tasks);
        let listed: Vec<_> =
            listed.iter().map(|part| (&*part.subtopology_id, &part.partitions[..])).collect();
        assert_eq!(listed, [("0", &[1, 2][..]), ("1", &[0][..])]);
    }

    #[test]
    fn copartitions_point_to_topics_in_the_order_they_are_told() {
        let topic = |name: &str| StreamsTopic { name: name.to_owned(), ..StreamsTopic::default() };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let part = StreamsSubtopology {
            id: "0".to_owned(),
            source_topics: names(&["left", "other"]),
            repartition_topics: vec![topic("z-repartition"), topic("a-repartition")],
            copartitions: vec![names(&["other", "z-repartition"])],
            ..StreamsSubtopology::default()
        };
        let told = subtopology(&part);
        assert_eq!(told.source_topics[1], "other");
        assert_eq!(told.repartition_source_topics[1].name, "z-repartition");
        assert_eq!(told.copartition_groups[0].source_topics, [1]);
        assert_eq!(told.copartition_groups[0].repartition_source_topics, [1]);
    }
}

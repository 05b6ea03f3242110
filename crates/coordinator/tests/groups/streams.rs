//! The part of the scripts' language that is about streams groups.
//!
//! A topology is written `0:lines->rep,1:rep/4~store`: subtopology 0 reads `lines` and writes to
//! the repartition topic `rep`; 1 reads that, asks for four partitions of it, and has a changelog
//! `store`. A topic that some subtopology writes to is a repartition topic. `&` after an id says
//! that the sources of the subtopology must have equally many partitions.

use std::collections::BTreeSet;

use fleuve_coordinator::streams::{
    Roles, StreamsHeartbeatReply, StreamsHeartbeatRequest, StreamsRecord, StreamsStatusKind,
    TaskList,
};
use fleuve_protocol::Str;
use fleuve_protocol::messages::streams_group_topology_value::{
    CopartitionGroup, StreamsGroupTopologyValue, Subtopology, TopicInfo,
};

use crate::script::{DEFAULT_GROUP, Options, Script, group};

/// What a thread of a streams application remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Thread {
    pub(crate) member_id: Str,
    pub(crate) epoch: i32,
    pub(crate) tasks: Roles<TaskList>,
    pub(crate) process: Option<Str>,
    endpoint_epoch: i32,
}

impl Script {
    /// `A thread ...`, see the language.
    pub(crate) fn thread(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let known = self.threads.entry(name.to_owned()).or_insert_with(|| Thread {
            member_id: name.to_lowercase().into(),
            process: Some(name.to_lowercase().into()),
            endpoint_epoch: -1,
            ..Thread::default()
        });
        if let Some(process) = options.text("process") {
            known.process = Some(process);
        }
        let joins = options.has("join");
        let epoch = match () {
            () if joins => 0,
            () if options.has("leave") => -1,
            () => options.number("epoch").unwrap_or(known.epoch),
        };
        let owned = match () {
            () if joins => Some(Roles::default()),
            () if options.get("owns").is_some() => Some(Roles {
                active: tasks(options.get("owns").unwrap_or_default()),
                standby: tasks(options.get("copies").unwrap_or_default()),
                warmup: Vec::new(),
            }),
            () => options.has("owns").then(|| known.tasks.clone()),
        };
        let role = |of: fn(&Roles<TaskList>) -> TaskList| owned.as_ref().map(of);
        let topology = options.get("topology").or(joins.then_some("0:t~s"));
        let request = StreamsHeartbeatRequest {
            group_id: group(options),
            member_id: known.member_id.clone(),
            member_epoch: epoch,
            instance_id: options.text("instance"),
            rack_id: None,
            rebalance_timeout_ms: if joins { 30_000 } else { -1 },
            topology: topology
                .map(|text| topology_of(text, options.number("topology-epoch").unwrap_or(0))),
            owned: Roles {
                active: role(|roles| roles.active.clone()),
                standby: role(|roles| roles.standby.clone()),
                warmup: role(|roles| roles.warmup.clone()),
            },
            process_id: joins.then(|| known.process.clone()).flatten(),
            user_endpoint: options
                .get("endpoint")
                .and_then(|text| text.split_once(':'))
                .map(|(host, port)| (Str::copy_from(host), port.parse().expect("a port"))),
            client_tags: None,
            tells_task_offsets: options.has("positions"),
            shutdown_application: options.has("stop"),
            endpoint_information_epoch: known.endpoint_epoch,
            client_id: name.to_lowercase().into(),
            client_host: "/127.0.0.1".into(),
        };
        self.send(name, "thread", |driver| {
            driver.request(|shard, now, token| shard.handle_streams_heartbeat(now, token, &request))
        })
    }

    /// `describe-streams [g]`
    pub(crate) fn describe_streams(&self, options: &Options<'_>) -> Vec<String> {
        let id = options.words.first().copied().unwrap_or(DEFAULT_GROUP);
        let group = match self.driver.shard.describe_streams_group(id) {
            Err(error) => return vec![format!("describe-streams -> {}", error.kafka_name())],
            Ok(group) => group,
        };
        let mut lines = vec![format!(
            "describe-streams -> {} epoch {} target {}",
            group.state.name(),
            group.epoch,
            group.assignment_epoch,
        )];
        for subtopology in group.topology.iter().flat_map(|topology| &topology.subtopologies) {
            let internal = subtopology
                .repartition_source_topics
                .iter()
                .chain(&subtopology.changelog_topics)
                .map(|topic| format!(" {}={}", topic.name, topic.partitions));
            lines.push(format!(
                "  subtopology {} reads {}{}",
                subtopology.id,
                subtopology.source_topics.join("+"),
                internal.collect::<String>(),
            ));
        }
        lines.extend(group.members.iter().map(|member| {
            format!(
                "  {} of {} epoch {} has {} is to have {}",
                member.member_id,
                member.process_id,
                member.member_epoch,
                listed(&member.assignment),
                listed(&member.target),
            )
        }));
        lines
    }

    /// `streams-history [g]`
    pub(crate) fn streams_history(&self, options: &Options<'_>) -> Vec<String> {
        let id = options.words.first().copied().unwrap_or(DEFAULT_GROUP);
        let group = match self.driver.shard.describe_streams_group(id) {
            Err(error) => return vec![format!("streams-history -> {}", error.kafka_name())],
            Ok(group) => group,
        };
        let mut lines = vec!["streams-history ->".to_owned()];
        lines.extend(self.print_history(&group.rebalances));
        lines
    }

    /// A thread learns from the answer to its heartbeat.
    pub(crate) fn teach_thread(&mut self, name: &str, reply: &StreamsHeartbeatReply) {
        let Some(known) = self.threads.get_mut(name) else { return };
        known.epoch = reply.member_epoch;
        known.endpoint_epoch = reply.endpoint_information_epoch;
        if let Some(tasks) = &reply.tasks {
            known.tasks = tasks.clone();
        }
        if reply.member_epoch < 0 {
            known.tasks = Roles::default();
        }
    }
}

/// How an answer to a heartbeat is printed.
pub(crate) fn print_streams_reply(reply: &StreamsHeartbeatReply) -> String {
    let mut text = format!("{} in epoch {}", reply.member_id, reply.member_epoch);
    if let Some(tasks) = &reply.tasks {
        text.push_str(&format!(", has {}", listed(tasks)));
    }
    for endpoint in reply.endpoints.iter().flatten() {
        let partitions = |all: &[(Str, Vec<i32>)]| {
            let each =
                all.iter().map(|(topic, partitions)| format!("{topic}:{}", numbers(partitions)));
            each.collect::<Vec<_>>().join(" ")
        };
        text.push_str(&format!(
            ", {}:{} answers for [{}] and copies of [{}]",
            endpoint.host,
            endpoint.port,
            partitions(&endpoint.active),
            partitions(&endpoint.standby)
        ));
    }
    for status in &reply.statuses {
        let kind = match status.kind {
            StreamsStatusKind::StaleTopology => "stale topology",
            StreamsStatusKind::MissingSourceTopics => "missing source topics",
            StreamsStatusKind::IncorrectlyPartitionedTopics => "incorrectly partitioned topics",
            StreamsStatusKind::MissingInternalTopics => "missing internal topics",
            StreamsStatusKind::ShutdownApplication => "shutdown",
            StreamsStatusKind::AssignmentDelayed => "delayed",
        };
        text.push_str(&format!(", {kind}: {}", status.detail));
    }
    for topic in &reply.missing_topics {
        text.push_str(&format!(", create {}={}", topic.name, topic.partitions));
    }
    text
}

/// How a record is printed.
pub(crate) fn print_streams_record(group: &Str, record: &StreamsRecord) -> String {
    let text = match record {
        StreamsRecord::Epoch(None) => "is gone".to_owned(),
        StreamsRecord::Epoch(Some(value)) => {
            let hash = if value.metadata_hash == 0 { ", no topics" } else { "" };
            let configs = value.last_assignment_configs.iter().flatten();
            let configs = configs.map(|config| format!(" {}={}", config.key, config.value));
            format!(
                "epoch {}{hash} validated {}{}",
                value.epoch,
                value.validated_topology_epoch,
                configs.collect::<String>()
            )
        }
        StreamsRecord::Topology(None) => "topology is gone".to_owned(),
        StreamsRecord::Topology(Some(value)) => {
            let ids = value.subtopologies.iter().map(|each| each.subtopology_id.as_str());
            format!("topology {} of {}", value.epoch, ids.collect::<Vec<_>>().join("+"))
        }
        StreamsRecord::Member { member, value: None } => format!("member {member} is gone"),
        StreamsRecord::Member { member, value: Some(value) } => {
            format!("member {member} of {} topology {}", value.process_id, value.topology_epoch)
        }
        StreamsRecord::TargetEpoch(None) => "target is gone".to_owned(),
        StreamsRecord::TargetEpoch(Some(value)) => format!("target {}", value.assignment_epoch),
        StreamsRecord::Target { member, value: None } => format!("target of {member} is gone"),
        StreamsRecord::Target { member, value: Some(value) } => {
            let list = |tasks: &[fleuve_protocol::messages::streams_group_target_assignment_member_value::TaskIds]| {
                let tasks = tasks.iter();
                tasks.map(|task| (task.subtopology_id.clone(), task.partitions.clone())).collect()
            };
            let target = Roles {
                active: list(&value.active_tasks),
                standby: list(&value.standby_tasks),
                warmup: list(&value.warmup_tasks),
            };
            format!("target of {member} {}", listed(&target))
        }
        StreamsRecord::Current { member, value: None } => format!("current of {member} is gone"),
        StreamsRecord::Current { member, value: Some(value) } => {
            let list = |tasks: &[fleuve_protocol::messages::streams_group_current_member_assignment_value::TaskIds]| {
                let tasks = tasks.iter();
                tasks.map(|task| (task.subtopology_id.clone(), task.partitions.clone())).collect()
            };
            let has = Roles {
                active: list(&value.active_tasks),
                standby: list(&value.standby_tasks),
                warmup: list(&value.warmup_tasks),
            };
            let gives_up = Roles {
                active: list(&value.active_tasks_pending_revocation),
                standby: list(&value.standby_tasks_pending_revocation),
                warmup: list(&value.warmup_tasks_pending_revocation),
            };
            let state = match value.state {
                1 => "stable",
                2 => "unrevoked",
                3 => "unreleased",
                _ => "unknown",
            };
            format!(
                "current of {member} epoch {} after {} {state} {} gives up {}",
                value.member_epoch,
                value.previous_member_epoch,
                listed(&has),
                listed(&gives_up),
            )
        }
    };
    format!("  streams group {group} {text}")
}

/// Parses a topology, see the module's documentation.
pub(crate) fn topology_of(text: &str, epoch: i32) -> StreamsGroupTopologyValue {
    let parts: Vec<Part> = text.split(',').map(Part::parse).collect();
    let sinks: BTreeSet<&str> = parts.iter().flat_map(|part| part.sinks.iter().copied()).collect();
    let topic = |name: &str, partitions: i32| TopicInfo {
        name: Str::copy_from(name),
        partitions,
        ..TopicInfo::default()
    };
    let subtopologies = parts.iter().map(|part| {
        type Sources<'a> = Vec<(&'a str, i32)>;
        let (internal, external): (Sources<'_>, Sources<'_>) =
            part.sources.iter().partition(|(name, _)| sinks.contains(name));
        let all = |count: usize| (0..count as i16).collect();
        let copartition = CopartitionGroup {
            source_topics: all(external.len()),
            repartition_source_topics: all(internal.len()),
            ..CopartitionGroup::default()
        };
        Subtopology {
            subtopology_id: Str::copy_from(part.id),
            source_topics: external.iter().map(|(name, _)| Str::copy_from(name)).collect(),
            repartition_source_topics: internal
                .iter()
                .map(|(name, partitions)| topic(name, *partitions))
                .collect(),
            repartition_sink_topics: part.sinks.iter().copied().map(Str::copy_from).collect(),
            state_changelog_topics: part.changelogs.iter().map(|name| topic(name, 0)).collect(),
            copartition_groups: if part.is_copartitioned { vec![copartition] } else { Vec::new() },
            ..Subtopology::default()
        }
    });
    StreamsGroupTopologyValue { epoch, subtopologies: subtopologies.collect() }
}

struct Part<'a> {
    id: &'a str,
    is_copartitioned: bool,
    sources: Vec<(&'a str, i32)>,
    sinks: Vec<&'a str>,
    changelogs: Vec<&'a str>,
}

impl<'a> Part<'a> {
    fn parse(text: &'a str) -> Self {
        let (id, rest) = text.split_once(':').expect("a subtopology comes as id:sources");
        let (rest, changelogs) = rest.split_once('~').unwrap_or((rest, ""));
        let (sources, sinks) = rest.split_once("->").unwrap_or((rest, ""));
        let names = |list: &'a str| list.split('+').filter(|name| !name.is_empty()).collect();
        let sources: Vec<&str> = names(sources);
        let source = |text: &'a str| match text.split_once('/') {
            Some((name, count)) => (name, count.parse().expect("a number of partitions")),
            None => (text, 0),
        };
        Self {
            id: id.trim_end_matches('&'),
            is_copartitioned: id.ends_with('&'),
            sources: sources.into_iter().map(source).collect(),
            sinks: names(sinks),
            changelogs: names(changelogs),
        }
    }
}

/// Parses `0:0+1,1:2`.
fn tasks(list: &str) -> TaskList {
    let words = list.split(',').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (id, numbers) = word.split_once(':').expect("tasks come as subtopology:0+1");
            let numbers = numbers.split('+').map(|number| number.parse().expect("a partition"));
            (Str::copy_from(id), numbers.collect())
        })
        .collect()
}

fn listed(tasks: &Roles<TaskList>) -> String {
    let list = |tasks: &TaskList| {
        let each = tasks.iter().map(|(id, partitions)| format!("{id}:{}", numbers(partitions)));
        each.collect::<Vec<_>>().join(" ")
    };
    let mut text = format!("[{}]", list(&tasks.active));
    for (role, tasks) in [("copies of", &tasks.standby), ("warms up", &tasks.warmup)] {
        if !tasks.is_empty() {
            text.push_str(&format!(" {role} [{}]", list(tasks)));
        }
    }
    text
}

fn numbers(partitions: &[i32]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
}

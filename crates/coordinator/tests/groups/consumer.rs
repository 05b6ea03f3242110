//! The part of the scripts' language that is about consumer groups.
//!
//! A client that was told partitions has them at once; `owns` tells the coordinator so.

use std::collections::BTreeMap;

use fleuve_coordinator::consumer::{
    ConsumerHeartbeatReply, ConsumerHeartbeatRequest, ConsumerRecord, TopicPartitions,
};
use fleuve_protocol::Str;
use fleuve_types::Uuid;

use crate::script::{DEFAULT_GROUP, Options, Script, group};
use crate::topics::{Topics, name_of};

/// What a client of the consumer protocol remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Consumer {
    pub(crate) member_id: Str,
    pub(crate) instance_id: Option<Str>,
    pub(crate) epoch: i32,
    pub(crate) assignment: Vec<(Uuid, Vec<i32>)>,
}

impl Script {
    /// `A beat ...`, see the language.
    pub(crate) fn beat(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let known = self.consumers.entry(name.to_owned()).or_insert_with(|| Consumer {
            member_id: name.to_lowercase().into(),
            ..Consumer::default()
        });
        if let Some(instance_id) = options.text("instance") {
            known.instance_id = Some(instance_id);
        }
        if let Some(member_id) = options.text("as") {
            known.member_id = member_id;
        }
        let joins = options.has("join");
        let epoch = match () {
            () if joins => 0,
            () if options.has("leave") => -1,
            () if options.has("away") => -2,
            () => options.number("epoch").unwrap_or(known.epoch),
        };
        let names = |key| {
            let list = options.get(key)?;
            let names = list.split('+').filter(|name| !name.is_empty()).map(Str::copy_from);
            Some(names.collect())
        };
        let owned = match options.get("owns") {
            _ if joins => Some(Vec::new()),
            Some(list) => Some(partitions(&self.driver.topics, list)),
            None => options.has("owns").then(|| known.assignment.clone()),
        };
        let request = ConsumerHeartbeatRequest {
            group_id: group(options),
            member_id: options.text("member").unwrap_or_else(|| known.member_id.clone()),
            member_epoch: epoch,
            instance_id: known.instance_id.clone(),
            rack_id: options.text("rack"),
            rebalance_timeout_ms: options.number("rebalance").unwrap_or(if joins {
                30_000
            } else {
                -1
            }),
            subscribed_topic_names: names("topics"),
            subscribed_topic_regex: options.text("regex"),
            server_assignor: options.text("assignor"),
            owned,
            client_id: name.to_lowercase().into(),
            client_host: "/127.0.0.1".into(),
            may_lack_member_id: options.number("v").unwrap_or(1) == 0,
            visible_topics: Default::default(),
        };
        self.send(name, "beat", |driver| {
            driver
                .request(|shard, now, token| shard.handle_consumer_heartbeat(now, token, &request))
        })
    }

    /// `topic t=3`: makes the topic, or gives it more partitions. `topic -t` removes it.
    pub(crate) fn topic(&mut self, options: &Options<'_>) -> Vec<String> {
        self.driver.change_topics(|topics| {
            for word in &options.words {
                match (word.split_once('='), word.strip_prefix('-')) {
                    (Some((name, count)), _) => {
                        topics.put(name, count.parse().expect("a number of partitions"));
                    }
                    (None, Some(name)) => topics.remove(name),
                    (None, None) => panic!("a topic comes as name=partitions or -name"),
                }
            }
        });
        Vec::new()
    }

    /// `describe-consumer [g]`
    pub(crate) fn describe_consumer(&self, options: &Options<'_>) -> Vec<String> {
        let id = options.words.first().copied().unwrap_or(DEFAULT_GROUP);
        let group = match self.driver.shard.describe_consumer_group(id) {
            Err(error) => return vec![format!("describe-consumer -> {}", error.kafka_name())],
            Ok(group) => group,
        };
        let mut lines = vec![format!(
            "describe-consumer -> {} epoch {} target {} by {}",
            group.state.name(),
            group.epoch,
            group.assignment_epoch,
            group.assignor,
        )];
        lines.extend(group.members.iter().map(|member| {
            let instance = member.instance_id.as_ref().map(|id| format!(" instance {id}"));
            let regex = member.regex.as_ref().map(|regex| format!(" regex {regex}"));
            format!(
                "  {}{} epoch {} topics {}{} has [{}] is to have [{}]",
                member.member_id,
                instance.unwrap_or_default(),
                member.member_epoch,
                member.topics.join("+"),
                regex.unwrap_or_default(),
                described(&member.assignment),
                described(&member.target),
            )
        }));
        lines
    }

    /// `consumer-history [g]`
    pub(crate) fn consumer_history(&self, options: &Options<'_>) -> Vec<String> {
        let id = options.words.first().copied().unwrap_or(DEFAULT_GROUP);
        let group = match self.driver.shard.describe_consumer_group(id) {
            Err(error) => return vec![format!("consumer-history -> {}", error.kafka_name())],
            Ok(group) => group,
        };
        let mut lines = vec!["consumer-history ->".to_owned()];
        lines.extend(self.print_history(&group.rebalances));
        lines
    }

    /// A client learns from the answer to its heartbeat.
    pub(crate) fn teach_consumer(&mut self, name: &str, reply: &ConsumerHeartbeatReply) {
        let Some(known) = self.consumers.get_mut(name) else { return };
        known.epoch = reply.member_epoch;
        known.member_id = reply.member_id.clone();
        if let Some(assignment) = &reply.assignment {
            known.assignment = assignment.clone();
        }
        if reply.member_epoch < 0 {
            known.assignment.clear();
        }
    }
}

/// How an answer to a heartbeat is printed.
pub(crate) fn print_reply(reply: &ConsumerHeartbeatReply) -> String {
    let assignment = match &reply.assignment {
        None => String::new(),
        Some(topics) => format!(", has [{}]", listed(topics.iter().map(|(id, p)| (*id, &p[..])))),
    };
    format!("{} in epoch {}{assignment}", reply.member_id, reply.member_epoch)
}

/// How a record is printed.
pub(crate) fn print_record(group: &Str, record: &ConsumerRecord) -> String {
    let text = match record {
        ConsumerRecord::Epoch(None) => "is gone".to_owned(),
        ConsumerRecord::Epoch(Some(value)) => {
            let hash = if value.metadata_hash == 0 { ", no topics" } else { "" };
            format!("epoch {}{hash}", value.epoch)
        }
        ConsumerRecord::Topics(value) => {
            format!("topics {}", if value.is_some() { "as of old" } else { "are gone" })
        }
        ConsumerRecord::Member { member, value: None } => format!("member {member} is gone"),
        ConsumerRecord::Member { member, value: Some(value) } => {
            let option = |name, value: &Option<Str>| {
                value.as_ref().map_or(String::new(), |value| format!(" {name} {value}"))
            };
            format!(
                "member {member} topics {}{}{}{}",
                value.subscribed_topic_names.join("+"),
                option("regex", &value.subscribed_topic_regex),
                option("instance", &value.instance_id),
                option("assignor", &value.server_assignor),
            )
        }
        ConsumerRecord::TargetEpoch(None) => "target is gone".to_owned(),
        ConsumerRecord::TargetEpoch(Some(value)) => format!("target {}", value.assignment_epoch),
        ConsumerRecord::Target { member, value: None } => format!("target of {member} is gone"),
        ConsumerRecord::Target { member, value: Some(value) } => {
            let topics = value.topic_partitions.iter();
            let list = listed(topics.map(|topic| (topic.topic_id, &topic.partitions[..])));
            format!("target of {member} [{list}]")
        }
        ConsumerRecord::Current { member, value: None } => format!("current of {member} is gone"),
        ConsumerRecord::Current { member, value: Some(value) } => {
            let list = |topics: &[_]| {
                let topics: &[fleuve_protocol::messages::consumer_group_current_member_assignment_value::TopicPartitions] = topics;
                listed(topics.iter().map(|topic| (topic.topic_id, &topic.partitions[..])))
            };
            let state = match value.state {
                0 => "stable",
                1 => "unrevoked",
                2 => "unreleased",
                _ => "unknown",
            };
            format!(
                "current of {member} epoch {} after {} {state} [{}] gives up [{}]",
                value.member_epoch,
                value.previous_member_epoch,
                list(&value.assigned_partitions),
                list(&value.partitions_pending_revocation),
            )
        }
        ConsumerRecord::Regex { regex, value: None } => format!("regex {regex} is gone"),
        ConsumerRecord::Regex { regex, value: Some(value) } => {
            format!("regex {regex} matches {}", value.topics.join("+"))
        }
    };
    format!("  consumer group {group} {text}")
}

/// Parses `t:0+1,u:2`.
fn partitions(topics: &Topics, list: &str) -> Vec<(Uuid, Vec<i32>)> {
    let mut parsed: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for word in list.split(',').filter(|word| !word.is_empty()) {
        let (topic, numbers) = word.split_once(':').expect("partitions come as topic:0+1");
        let numbers = numbers.split('+').map(|number| number.parse::<i32>().expect("a partition"));
        parsed.entry(topics.id(topic)).or_default().extend(numbers);
    }
    parsed.into_iter().collect()
}

fn listed<'a>(topics: impl Iterator<Item = (Uuid, &'a [i32])>) -> String {
    let each = topics.map(|(id, partitions)| {
        let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        format!("{}:{}", name_of(id), numbers.join("+"))
    });
    each.collect::<Vec<_>>().join(" ")
}

fn described(topics: &[TopicPartitions]) -> String {
    listed(topics.iter().map(|topic| (topic.topic_id, &topic.partitions[..])))
}

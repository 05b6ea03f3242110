//! The pages of Burrow: `/v3/kafka` and below.
//!
//! The one cluster is named by its id. What Burrow serves about itself (its modules, its log
//! level) has no counterpart here; neither has deleting a group's history, which Burrow needs
//! because it does not hear of deleted groups.

use std::collections::HashMap;

use fleuve_coordinator::lag::{GroupLag, PartitionLag, Sample};
use fleuve_http::Page;
use fleuve_metadata::config::Role;
use fleuve_protocol::messages::consumer_protocol_assignment::ConsumerProtocolAssignment;
use fleuve_protocol::{Message, Reader, Str};
use serde_json::{Map, Value, json};

use super::visitor::Visitor;
use crate::node::Node;

/// Commits that a window shows; missing ones are shown as null, as by Burrow.
const INTERVALS: usize = 10;

/// Answers a path below `/v3/kafka`; `None` for paths that are not Burrow's.
pub(super) fn page(node: &Node, visitor: &Visitor<'_>, host: &str, path: &str) -> Option<Page> {
    let path = path.split('?').next().unwrap_or_default();
    let mut steps = path.trim_end_matches('/').strip_prefix("/v3/kafka")?.split('/');
    if steps.next() != Some("") {
        return None;
    }
    let steps: Vec<String> = steps.map(percent_decoded).collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let cluster = node.image().cluster_id().clone();
    let answer = match steps.as_slice() {
        [] => found("cluster list returned", "clusters", json!([*cluster])),
        [named, ..] if **named != *cluster => missing("cluster not found"),
        [_] => found("cluster detail returned", "module", cluster_detail(node)),
        [_, "topic"] => {
            let mut names: Vec<_> =
                node.topics.all().iter().map(|topic| topic.name.clone()).collect();
            names.retain(|name| visitor.sees_topic(name));
            found("topic list returned", "topics", texts(&names))
        }
        [_, "topic", name] => {
            match node.topics.by_name(name).filter(|_| visitor.sees_topic(name)) {
                Some(topic) => {
                    let ends = topic.partitions.iter().map(|partition| partition.high_watermark());
                    found("topic offsets returned", "offsets", ends.collect())
                }
                None => missing("cluster or topic not found"),
            }
        }
        [_, "topic", name, "consumers"] => {
            let mut groups = node.lags.groups_of(name);
            groups.retain(|group| visitor.sees_topic(name) && visitor.sees_group(group));
            found("consumers of topic returned", "consumers", texts(&groups))
        }
        [_, "consumer"] => {
            let mut groups = node.lags.groups();
            groups.retain(|group| visitor.sees_group(group));
            found("consumer list returned", "consumers", texts(&groups))
        }
        [_, "consumer", group] => match lag_of(node, visitor, group) {
            Some(lag) => {
                let topics = detail(&lag, &owners(node, group));
                found("consumer detail returned", "topics", topics)
            }
            None => missing("cluster or consumer not found"),
        },
        [_, "consumer", group, view @ ("status" | "lag")] => {
            let lag = lag_of(node, visitor, group);
            let owners = owners(node, group);
            let status = status(&cluster, group, lag.as_ref(), &owners, *view == "lag");
            let answer = found("consumer status returned", "status", status);
            if lag.is_some() { answer } else { (404, answer.1) }
        }
        _ => return None,
    };
    let (status, mut fields) = answer;
    fields.insert("request".to_owned(), json!({ "url": path, "host": host }));
    Some(Page { status, json: Value::Object(fields).to_string() })
}

/// How far a group lags, as far as the visitor may know: what it may not describe looks as if it
/// were not there.
fn lag_of(node: &Node, visitor: &Visitor<'_>, group: &str) -> Option<GroupLag> {
    let mut lag = node.lags.evaluate(group).filter(|_| visitor.sees_group(group))?;
    lag.partitions.retain(|partition| visitor.sees_topic(&partition.topic));
    Some(lag)
}

type Answer = (u16, Map<String, Value>);

fn found(message: &str, name: &str, value: Value) -> Answer {
    let mut fields = Map::new();
    fields.insert("error".to_owned(), false.into());
    fields.insert("message".to_owned(), message.into());
    fields.insert(name.to_owned(), value);
    (200, fields)
}

fn missing(message: &str) -> Answer {
    let mut fields = Map::new();
    fields.insert("error".to_owned(), true.into());
    fields.insert("message".to_owned(), message.into());
    (404, fields)
}

fn texts(names: &[Str]) -> Value {
    names.iter().map(|name| Value::from(name.as_str())).collect()
}

fn cluster_detail(node: &Node) -> Value {
    let servers: Vec<_> = node
        .open_listeners(Role::Broker)
        .iter()
        .map(|(_, it)| format!("{}:{}", it.host, it.port))
        .collect();
    json!({
        "class-name": "kafka", "servers": servers, "topic-refresh": 0,
        "offset-refresh": super::LAG_LOOK_SECONDS,
    })
}

/// Host and client id of who reads each partition.
type Owners = HashMap<(Str, i32), (Str, Str)>;

/// Finds out who reads what; empty for groups of other kinds than consumers'.
fn owners(node: &Node, group: &str) -> Owners {
    let Ok(shard) = node.groups.shard_of(group) else { return Owners::new() };
    shard.read(|machine| {
        let mut owners = Owners::new();
        if let Ok(group) = machine.describe_group(group) {
            for member in group.members {
                let mut reader = Reader::new(member.assignment);
                let Ok(version) = reader.read_i16("version") else { continue };
                let version = version.clamp(0, ConsumerProtocolAssignment::VALID_VERSIONS.max);
                // What another kind of member was assigned is no business of ours.
                let told = ConsumerProtocolAssignment::decode(&mut reader, version);
                for topic in told.unwrap_or_default().assigned_partitions {
                    for partition in topic.partitions {
                        let owner = (member.client_host.clone(), member.client_id.clone());
                        owners.insert((topic.topic.clone(), partition), owner);
                    }
                }
            }
        } else if let Ok(group) = machine.describe_consumer_group(group) {
            for member in group.members {
                for topic in member.assignment {
                    for partition in topic.partitions {
                        let owner = (member.client_host.clone(), member.client_id.clone());
                        owners.insert((topic.topic.clone(), partition), owner);
                    }
                }
            }
        }
        owners
    })
}

fn owner_of(owners: &Owners, partition: &PartitionLag) -> (Str, Str) {
    owners.get(&(partition.topic.clone(), partition.partition)).cloned().unwrap_or_default()
}

fn sample(sample: &Sample) -> Value {
    json!({
        "offset": sample.offset, "timestamp": sample.timestamp_ms,
        "observedAt": sample.observed_ms, "lag": sample.lag,
    })
}

/// Shows the windows of a group, topic by topic; partitions it has not committed are empty.
fn detail(lag: &GroupLag, owners: &Owners) -> Value {
    let mut topics: Map<String, Value> = Map::new();
    for partition in &lag.partitions {
        let windows = topics.entry(partition.topic.as_str()).or_insert_with(|| json!([]));
        let Value::Array(windows) = windows else { continue };
        let index = usize::try_from(partition.partition).unwrap_or(0);
        while windows.len() < index {
            windows.push(json!({ "offsets": [], "owner": "", "client_id": "", "current-lag": 0 }));
        }
        let missing = INTERVALS.saturating_sub(partition.samples.len());
        let offsets = std::iter::repeat_n(Value::Null, missing);
        let offsets: Vec<_> = offsets.chain(partition.samples.iter().map(sample)).collect();
        let (owner, client_id) = owner_of(owners, partition);
        windows.push(json!({
            "offsets": offsets, "owner": *owner, "client_id": *client_id,
            "current-lag": partition.current_lag,
        }));
    }
    Value::Object(topics)
}

fn status(
    cluster: &str,
    group: &str,
    lag: Option<&GroupLag>,
    owners: &Owners,
    with_all: bool,
) -> Value {
    let Some(lag) = lag else {
        return json!({
            "cluster": cluster, "group": group, "status": "NOTFOUND", "complete": 1.0,
            "partitions": [], "partition_count": 0, "maxlag": null, "totallag": 0,
        });
    };
    let is_shown = |partition: &&PartitionLag| with_all || partition.state.code() > 1;
    let partitions: Vec<_> = lag
        .partitions
        .iter()
        .filter(is_shown)
        .map(|partition| partition_status(partition, owners))
        .collect();
    json!({
        "cluster": cluster, "group": group, "status": lag.state.name(),
        "complete": lag.complete, "partitions": partitions,
        "partition_count": lag.partitions.len(),
        "maxlag": lag.max_lag().map(|partition| partition_status(partition, owners)),
        "totallag": lag.total_lag(),
    })
}

fn partition_status(partition: &PartitionLag, owners: &Owners) -> Value {
    let (owner, client_id) = owner_of(owners, partition);
    json!({
        "topic": *partition.topic, "partition": partition.partition,
        "owner": *owner, "client_id": *client_id,
        "status": partition.state.name(),
        "start": partition.samples.first().map(sample),
        "end": partition.samples.last().map(sample),
        "current_lag": partition.current_lag, "complete": partition.complete,
    })
}

/// Replaces `%2F` and the like; what is no valid escape stays as it is.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escaped = text.get(index + 1..index + 3).filter(|_| bytes[index] == b'%');
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                index += 3;
            }
            None => {
                decoded.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_nonsense_is_kept() {
        assert_eq!(percent_decoded("a%2Fb%20c"), "a/b c");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz%é"), "%zz%é");
    }
}

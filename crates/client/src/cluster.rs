//! What is known about the cluster: an immutable snapshot made of metadata responses.

use std::collections::HashMap;
use std::sync::Arc;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::metadata_response::{MetadataResponse, MetadataResponseTopic};
use fleuve_types::Uuid;
use tokio::time::Instant;

use crate::error::code_of;

/// A snapshot of the brokers and of the topics somebody asked for.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The cluster's id.
    pub id: Option<String>,
    /// The broker that requests for the controller go to.
    pub controller: Option<i32>,
    brokers: HashMap<i32, BrokerInfo>,
    topics: HashMap<Arc<str>, Arc<TopicInfo>>,
    names: HashMap<Uuid, Arc<str>>,
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// `node.id`.
    pub id: i32,
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: u16,
    /// `broker.rack`.
    pub rack: Option<String>,
}

/// One topic as its metadata described it.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// The topic's name.
    pub name: Arc<str>,
    /// The topic's id; zero when the broker is too old to tell.
    pub id: Uuid,
    /// Whether the topic belongs to the system.
    pub is_internal: bool,
    /// The partitions, by index without gaps.
    pub partitions: Vec<PartitionInfo>,
    /// When this was learned.
    pub learned: Instant,
}

/// One partition as its metadata described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The leader, if there is one.
    pub leader: Option<i32>,
    /// The leader's epoch; -1 when unknown.
    pub leader_epoch: i32,
    /// The replicas in order of preference.
    pub replicas: Vec<i32>,
    /// The replicas that are in sync.
    pub isr: Vec<i32>,
    /// The replicas that are offline.
    pub offline: Vec<i32>,
}

impl Cluster {
    /// Returns the broker with this id.
    pub fn broker(&self, id: i32) -> Option<&BrokerInfo> {
        self.brokers.get(&id)
    }

    /// Returns every broker, by ascending id.
    pub fn brokers(&self) -> Vec<&BrokerInfo> {
        let mut brokers: Vec<_> = self.brokers.values().collect();
        brokers.sort_unstable_by_key(|broker| broker.id);
        brokers
    }

    /// Returns a topic, if somebody asked for it and it exists.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicInfo>> {
        self.topics.get(name)
    }

    /// Returns every known topic, by name.
    pub fn topics(&self) -> Vec<&Arc<TopicInfo>> {
        let mut topics: Vec<_> = self.topics.values().collect();
        topics.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        topics
    }

    /// Returns the name of the topic with this id.
    pub fn topic_name(&self, id: &Uuid) -> Option<&Arc<str>> {
        self.names.get(id)
    }

    /// Returns the leader of a partition and its epoch.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        let info = self.topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)?;
        Some((info.leader?, info.leader_epoch))
    }

    /// Returns this snapshot with what `response` says put in; `whole` means that topics it does
    /// not mention do not exist. Topics with an error are reported beside it.
    pub(crate) fn updated(
        &self,
        response: &MetadataResponse,
        whole: bool,
    ) -> (Self, HashMap<String, ErrorCode>) {
        let mut next = Self {
            id: response.cluster_id.as_ref().map(ToString::to_string).or_else(|| self.id.clone()),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers: HashMap::new(),
            topics: if whole { HashMap::new() } else { self.topics.clone() },
            names: HashMap::new(),
        };
        for broker in &response.brokers {
            // A port outside 0..=65535 cannot be reached, so the broker counts as absent.
            let Ok(port) = u16::try_from(broker.port) else { continue };
            let info = BrokerInfo {
                id: broker.node_id,
                host: broker.host.to_string(),
                port,
                rack: broker.rack.as_ref().map(ToString::to_string),
            };
            next.brokers.insert(broker.node_id, info);
        }
        let mut errors = HashMap::new();
        for topic in &response.topics {
            let Some(name) = topic.name.as_ref() else {
                // Asked for by an id whose name we may not know.
                errors.insert(topic.topic_id.to_string(), code_of(topic.error_code));
                continue;
            };
            match code_of(topic.error_code) {
                ErrorCode::None => {
                    let info = self.topic_info(name, topic);
                    next.topics.insert(info.name.clone(), Arc::new(info));
                }
                code => {
                    // Only an answer about the topic itself removes it; "no leader yet" does not.
                    if code == ErrorCode::UnknownTopicOrPartition {
                        next.topics.remove(&**name);
                    }
                    errors.insert(name.to_string(), code);
                }
            }
        }
        next.names = next
            .topics
            .values()
            .filter(|topic| !topic.id.is_zero())
            .map(|topic| (topic.id, topic.name.clone()))
            .collect();
        (next, errors)
    }

    fn topic_info(&self, name: &str, topic: &MetadataResponseTopic) -> TopicInfo {
        let known = self.topics.get(name);
        let mut partitions: Vec<_> = topic.partitions.iter().collect();
        partitions.sort_unstable_by_key(|partition| partition.partition_index);
        let partitions = partitions
            .into_iter()
            .enumerate()
            // Indexes count from 0 without gaps; anything else is not metadata we can use.
            .take_while(|(index, partition)| partition.partition_index as usize == *index)
            .map(|(index, partition)| {
                let fresh = PartitionInfo {
                    leader: (partition.leader_id >= 0).then_some(partition.leader_id),
                    leader_epoch: partition.leader_epoch,
                    replicas: partition.replica_nodes.clone(),
                    isr: partition.isr_nodes.clone(),
                    offline: partition.offline_replicas.clone(),
                };
                // A broker that lags behind may tell of an older reign (KIP-320).
                known
                    .filter(|known| known.id == topic.topic_id)
                    .and_then(|known| known.partitions.get(index))
                    .filter(|old| fresh.leader_epoch >= 0 && old.leader_epoch > fresh.leader_epoch)
                    .cloned()
                    .unwrap_or(fresh)
            })
            .collect();
        TopicInfo {
            name: known.map_or_else(|| Arc::from(name), |known| known.name.clone()),
            id: topic.topic_id,
            is_internal: topic.is_internal,
            partitions,
            learned: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition,
    };

    use super::*;

    fn response(name: &'static str, epochs: &[i32], error: ErrorCode) -> MetadataResponse {
        let partitions =
            epochs.iter().enumerate().map(|(index, &leader_epoch)| MetadataResponsePartition {
                partition_index: index as i32,
                leader_id: leader_epoch,
                leader_epoch,
                ..Default::default()
            });
        let topic = MetadataResponseTopic {
            name: Some(name.into()),
            error_code: error as i16,
            topic_id: Uuid([7; 16]),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let broker = MetadataResponseBroker {
            node_id: 1,
            host: "h".into(),
            port: 70_000,
            ..Default::default()
        };
        MetadataResponse { topics: vec![topic], brokers: vec![broker], ..Default::default() }
    }

    #[test]
    fn an_older_leader_epoch_does_not_replace_a_newer_one() {
        let (cluster, _) = Cluster::default().updated(&response("t", &[5], ErrorCode::None), false);
        let (cluster, _) = cluster.updated(&response("t", &[4], ErrorCode::None), false);
        assert_eq!(cluster.leader("t", 0), Some((5, 5)));
        let (cluster, _) = cluster.updated(&response("t", &[6], ErrorCode::None), false);
        assert_eq!(cluster.leader("t", 0), Some((6, 6)));
        assert_eq!(cluster.leader("t", 1), None);
        assert_eq!(cluster.leader("t", -1), None);
    }

    #[test]
    fn topics_with_errors_are_reported_and_only_unknown_ones_removed() {
        let (cluster, _) = Cluster::default().updated(&response("t", &[1], ErrorCode::None), false);
        let unavailable = response("t", &[], ErrorCode::LeaderNotAvailable);
        let (cluster, errors) = cluster.updated(&unavailable, false);
        assert_eq!(errors["t"], ErrorCode::LeaderNotAvailable);
        assert!(cluster.topic("t").is_some());
        let unknown = response("t", &[], ErrorCode::UnknownTopicOrPartition);
        let (cluster, _) = cluster.updated(&unknown, false);
        assert!(cluster.topic("t").is_none());
        assert!(cluster.broker(1).is_none(), "its port is impossible");
    }
}

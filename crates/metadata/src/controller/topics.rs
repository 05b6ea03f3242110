//! Creating and deleting topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleuve_os::Random;
use fleuve_protocol::Str;
use fleuve_protocol::messages::config_record::ConfigRecord;
use fleuve_protocol::messages::remove_topic_record::RemoveTopicRecord;
use fleuve_protocol::messages::topic_record::TopicRecord;
use fleuve_types::Uuid;

use super::machine::{Controller, Decision};
use super::name::{self, InvalidName};
use super::placement::{self, PlacementError};
use crate::config::{ConfigMap, check_topic_overrides};
use crate::image::{Partition, ResourceKind, Topic, merged_name};
use crate::record::Record;

/// The topic of the metadata log. If it could be created, whoever may create topics would share the
/// controller's directory with it: read credentials, and append records of metadata.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// A topic that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: Str,
    /// How many partitions; -1 for the broker's default.
    pub partitions: i32,
    /// How many replicas; -1 for the broker's default.
    pub replication_factor: i16,
    /// Which brokers, chosen by hand; then the two counts above are -1.
    pub assignments: Vec<ReplicaAssignment>,
    /// Its configs.
    pub configs: Vec<(Str, Option<Str>)>,
}

/// The brokers of one partition, chosen by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAssignment {
    /// The partition.
    pub partition: i32,
    /// Its brokers, the preferred leader first.
    pub brokers: Vec<i32>,
}

/// A topic that will exist once the records are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: Str,
    /// Its id.
    pub id: Uuid,
    /// How many partitions it gets.
    pub partitions: i32,
    /// How many replicas each of them gets.
    pub replication_factor: i16,
    /// What it sets itself.
    pub configs: Arc<ConfigMap>,
}

/// Reports that a topic cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// The request names the topic more than once.
    #[error("Duplicate topic name.")]
    Duplicate,
    /// The name is that of the controller's own log.
    #[error("Creation of internal topic {METADATA_TOPIC} is prohibited.")]
    Reserved,
    /// No topic may have this name.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// There is one of this name.
    #[error("Topic '{0}' already exists.")]
    Exists(Str),
    /// The number of partitions makes no sense.
    #[error("Number of partitions was set to an invalid non-positive value.")]
    InvalidPartitions,
    /// The number of replicas makes no sense.
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    InvalidReplicationFactor,
    /// Counts and an assignment by hand contradict each other.
    #[error("A manual partition assignment was specified, but {0} was not set to -1.")]
    CountBesideAssignment(&'static str),
    /// Replicas cannot be placed as asked.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// A config may not be set so.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request asks for more partitions than one request may.
    #[error("Excessively large number of partitions per request: at most {0}")]
    TooManyPartitions(usize),
}

/// Which topic to delete.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicSelector {
    /// The one of this name.
    Name(Str),
    /// The one with this id.
    Id(Uuid),
}

/// A topic that will be gone once the records are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: Str,
    /// Its id.
    pub id: Uuid,
}

/// Reports that a topic cannot be deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    /// The request names the topic more than once.
    #[error("Duplicate topic name or id.")]
    Duplicate,
    /// There is none of this name.
    #[error("This server does not host this topic-partition.")]
    UnknownName,
    /// There is none with this id.
    #[error("This server does not host this topic ID.")]
    UnknownId,
    /// The operator does not want topics to be deleted.
    #[error("Topic deletion is disabled by delete.topic.enable.")]
    Disabled,
}

impl Controller {
    /// Decides about new topics; with `validate_only` nothing will be created, and the results say
    /// what would be.
    pub fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
        random: &dyn Random,
    ) -> Decision<Vec<Result<CreatedTopic, CreateTopicError>>> {
        let mut requested: BTreeMap<&str, usize> = BTreeMap::new();
        for topic in topics {
            *requested.entry(&topic.name).or_default() += 1;
        }
        let most = self.settings.topics.created_per_request_max;
        let is_too_large = self.count_partitions(topics) > most;
        let mut records = Vec::new();
        let mut accepted: BTreeMap<String, &str> = BTreeMap::new();
        let mut decide = |topic: &NewTopic| {
            if requested[topic.name.as_str()] > 1 {
                return Err(CreateTopicError::Duplicate);
            }
            if topic.name.as_str() == METADATA_TOPIC {
                return Err(CreateTopicError::Reserved);
            }
            if is_too_large {
                return Err(CreateTopicError::TooManyPartitions(most));
            }
            self.check_name(&topic.name)?;
            let partitions = self.place_topic(topic)?;
            let configs = self.check_configs(topic)?;
            let id = self.new_topic_id(random);
            let name = topic.name.detach();
            records.push(TopicRecord { name: name.clone(), topic_id: id }.into());
            // Configs come before partitions, so that whoever opens one finds them.
            records.extend(configs.iter().map(|(key, value)| config_record(&name, key, value)));
            records.extend(partitions.iter().map(|partition| partition.to_record(id).into()));
            let factor = partitions.first().map_or(0, |partition| partition.replicas.len());
            Ok(CreatedTopic {
                name,
                id,
                partitions: partitions.len() as i32,
                replication_factor: factor as i16,
                configs: Arc::new(configs),
            })
        };
        let mut reply = Vec::with_capacity(topics.len());
        for topic in topics {
            // Two new topics may look alike just as a new and an old one.
            let merged = merged_name(&topic.name);
            let twin = accepted.get(&merged).filter(|twin| **twin != topic.name.as_str());
            let result = match twin {
                Some(twin) => Err(collision(&topic.name, twin)),
                None => decide(topic),
            };
            if result.is_ok() {
                accepted.insert(merged, &topic.name);
            }
            reply.push(result);
        }
        if validate_only {
            records.clear();
        }
        Decision { records, reply }
    }

    /// Decides about deleting topics.
    pub fn delete_topics(
        &self,
        selectors: &[TopicSelector],
    ) -> Decision<Vec<Result<DeletedTopic, DeleteTopicError>>> {
        let mut seen: BTreeSet<Uuid> = BTreeSet::new();
        let mut twice: BTreeSet<Uuid> = BTreeSet::new();
        let find = |selector: &TopicSelector| -> Option<&Arc<Topic>> {
            match selector {
                TopicSelector::Name(name) => self.image.topics().by_name(name),
                TopicSelector::Id(id) => self.image.topics().by_id(*id),
            }
        };
        for topic in selectors.iter().filter_map(find) {
            if !seen.insert(topic.id) {
                twice.insert(topic.id);
            }
        }
        let mut records: Vec<Record> = Vec::new();
        let decide = |selector: &TopicSelector| {
            if !self.settings.topics.delete_allowed {
                return Err(DeleteTopicError::Disabled);
            }
            let topic = find(selector).ok_or(match selector {
                TopicSelector::Name(_) => DeleteTopicError::UnknownName,
                TopicSelector::Id(_) => DeleteTopicError::UnknownId,
            })?;
            if twice.contains(&topic.id) {
                return Err(DeleteTopicError::Duplicate);
            }
            records.push(RemoveTopicRecord { topic_id: topic.id }.into());
            Ok(DeletedTopic { name: topic.name.clone(), id: topic.id })
        };
        let reply = selectors.iter().map(decide).collect();
        Decision { records, reply }
    }

    /// Counts without believing any single number, since foreign ones may be huge.
    fn count_partitions(&self, topics: &[NewTopic]) -> usize {
        topics.iter().fold(0usize, |total, topic| {
            let count = match topic.assignments.len() {
                0 if topic.partitions == -1 => self.settings.topics.default_partitions,
                0 => topic.partitions,
                assigned => i32::try_from(assigned).unwrap_or(i32::MAX),
            };
            total.saturating_add(usize::try_from(count).unwrap_or(0))
        })
    }

    fn check_name(&self, name: &Str) -> Result<(), CreateTopicError> {
        name::check(name)?;
        if self.image.topics().by_name(name).is_some() {
            return Err(CreateTopicError::Exists(name.detach()));
        }
        match self.image.topics().look_alike(name) {
            Some(existing) => Err(collision(name, existing)),
            None => Ok(()),
        }
    }

    fn place_topic(&self, topic: &NewTopic) -> Result<Vec<Partition>, CreateTopicError> {
        if !topic.assignments.is_empty() {
            return self.place_topic_by_hand(topic);
        }
        let defaults = &self.settings.topics;
        let factor = match topic.replication_factor {
            -1 => defaults.default_replication_factor,
            factor => factor,
        };
        let count = match topic.partitions {
            -1 => defaults.default_partitions,
            count => count,
        };
        if factor < 1 {
            return Err(CreateTopicError::InvalidReplicationFactor);
        }
        if count < 1 {
            return Err(CreateTopicError::InvalidPartitions);
        }
        Ok(placement::place(&self.image, 0, count, factor as usize)?)
    }

    fn place_topic_by_hand(&self, topic: &NewTopic) -> Result<Vec<Partition>, CreateTopicError> {
        let wrong = |message: String| PlacementError::Assignment(message).into();
        if topic.replication_factor != -1 {
            return Err(CreateTopicError::CountBesideAssignment("replication factor"));
        }
        if topic.partitions != -1 {
            return Err(CreateTopicError::CountBesideAssignment("numPartitions"));
        }
        let mut factor = None;
        let mut placed = BTreeMap::new();
        for assignment in &topic.assignments {
            let index = assignment.partition;
            let partition =
                placement::place_by_hand(&self.image, index, &assignment.brokers, factor)?;
            factor = Some(assignment.brokers.len());
            if placed.insert(index, partition).is_some() {
                return Err(wrong(format!(
                    "Found multiple manual partition assignments for partition {index}"
                )));
            }
        }
        if placed.keys().zip(0..).any(|(index, expected)| *index != expected) {
            return Err(wrong(
                "partitions should be a consecutive 0-based integer sequence".to_owned(),
            ));
        }
        Ok(placed.into_values().collect())
    }

    fn check_configs(&self, topic: &NewTopic) -> Result<ConfigMap, CreateTopicError> {
        let nulls: Vec<&str> = topic
            .configs
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.as_str())
            .collect();
        if !nulls.is_empty() {
            return Err(CreateTopicError::InvalidConfig(format!(
                "Null value not supported for topic configs: {}",
                nulls.join(",")
            )));
        }
        let pairs = topic.configs.iter().filter_map(|(name, value)| {
            Some((Arc::from(name.as_str()), Arc::from(value.as_ref()?.as_str())))
        });
        let configs: ConfigMap = pairs.collect();
        self.with_layers(|layers| check_topic_overrides(&configs, layers))
            .map_err(|error| CreateTopicError::InvalidConfig(error.to_string()))?;
        Ok(configs)
    }

    fn new_topic_id(&self, random: &dyn Random) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            random.fill(&mut bytes);
            let id = Uuid::from_random_bytes(bytes);
            if !id.looks_like_option() && self.image.topics().by_id(id).is_none() {
                return id;
            }
        }
    }
}

fn collision(name: &str, existing: &str) -> CreateTopicError {
    let (name, existing) = (name.to_owned(), existing.to_owned());
    InvalidName::Collision { name, existing }.into()
}

fn config_record(topic: &Str, key: &str, value: &str) -> Record {
    ConfigRecord {
        resource_type: ResourceKind::Topic.wire_id(),
        resource_name: topic.clone(),
        name: Str::copy_from(key),
        value: Some(Str::copy_from(value)),
    }
    .into()
}

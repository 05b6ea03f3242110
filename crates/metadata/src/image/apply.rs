//! The image, and the one way to change it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_protocol::messages::config_record::ConfigRecord;
use fleuve_protocol::messages::partition_change_record::PartitionChangeRecord;
use fleuve_protocol::messages::register_controller_record::RegisterControllerRecord;
use fleuve_protocol::messages::remove_user_scram_credential_record::RemoveUserScramCredentialRecord;
use fleuve_protocol::messages::user_scram_credential_record::UserScramCredentialRecord;
use fleuve_types::{NodeId, ProducerId, Uuid};

use super::acls::{Acl, Acls};
use super::cluster::Broker;
use super::configs::{Configs, Resource, ResourceKind};
use super::quotas::{QuotaEntity, Quotas};
use super::scram::ScramCredentials;
use super::tokens::DelegationTokens;
use super::topics::{Partition, Topic, Topics};
use crate::config::ConfigMap;
use crate::record::Record;

/// Everything the cluster knows about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    cluster_id: Str,
    topics: Topics,
    configs: Configs,
    brokers: Arc<BTreeMap<NodeId, Broker>>,
    controllers: Arc<BTreeMap<NodeId, RegisterControllerRecord>>,
    features: Arc<BTreeMap<Str, i16>>,
    next_producer_id: ProducerId,
    quotas: Quotas,
    acls: Acls,
    scram: ScramCredentials,
    tokens: DelegationTokens,
}

/// What a record changed, for whoever must act on it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing that anybody acts on.
    Nothing,
    /// A topic is there, still without partitions.
    TopicCreated(Uuid),
    /// A partition is there.
    PartitionCreated(Uuid, i32),
    /// Something about a partition is different.
    PartitionChanged(Uuid, i32),
    /// A topic is gone; this is how it was last.
    TopicRemoved(Arc<Topic>),
    /// A config of a resource is different.
    ConfigChanged(Resource),
    /// A broker registered, left, or is different.
    BrokerChanged(NodeId),
    /// A feature has another level.
    FeatureChanged(Str),
    /// A quota of an entity is different.
    QuotaChanged(QuotaEntity),
    /// A user has another credential, or one less.
    CredentialChanged(Str),
    /// An access control entry is there.
    AclAdded(Uuid),
    /// An access control entry is gone; this is what it said.
    AclRemoved(Acl),
    /// A delegation token is there, is different, or is gone.
    TokenChanged(Str),
}

/// Reports a record that does not fit what came before it: the log is damaged or not ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A record speaks of a topic that does not exist.
    #[error("{record} for topic id {id}, which does not exist")]
    UnknownTopic {
        /// Kafka's name of the record.
        record: &'static str,
        /// The id it gives.
        id: Uuid,
    },
    /// A change speaks of a partition that does not exist.
    #[error(
        "PartitionChangeRecord for partition {partition} of topic {topic}, which has none such"
    )]
    UnknownPartition {
        /// The topic.
        topic: Str,
        /// The index it gives.
        partition: i32,
    },
    /// A partition has an index that none can have.
    #[error("PartitionRecord for partition {partition} of topic {topic}: an index counts from 0")]
    InvalidPartition {
        /// The topic.
        topic: Str,
        /// The index it gives.
        partition: i32,
    },
    /// A topic is created under a name or id that is taken.
    #[error("TopicRecord for {name} with id {id}, but that name or id is taken")]
    TopicExists {
        /// The name it gives.
        name: Str,
        /// The id it gives.
        id: Uuid,
    },
    /// A record speaks of a broker, or of a registration of it, that does not exist.
    #[error("{record} for broker {id} with epoch {epoch}, which is not registered")]
    UnknownBroker {
        /// Kafka's name of the record.
        record: &'static str,
        /// The broker's number.
        id: NodeId,
        /// The registration's number.
        epoch: i64,
    },
    /// A config belongs to a kind of resource that this release does not know.
    #[error("ConfigRecord for a resource of type {0}, which this release does not know")]
    UnknownResource(i8),
    /// A quota is for a kind of entity that this release does not know.
    #[error("ClientQuotaRecord for a kind of entity that this release does not know")]
    UnknownQuotaEntity,
    /// An access control entry uses a kind or an operation that this release does not know.
    #[error("AccessControlEntryRecord {0} says what this release does not know; use a newer one")]
    UnknownAcl(Uuid),
    /// An access control entry has an id that is taken.
    #[error("AccessControlEntryRecord {0}, but that id is taken")]
    AclExists(Uuid),
    /// An access control entry is removed that does not exist.
    #[error("RemoveAccessControlEntryRecord for {0}, which does not exist")]
    NoSuchAcl(Uuid),
    /// A credential is made with a mechanism that this release does not know.
    #[error("{record} of user {user} for mechanism {mechanism}, which is not there")]
    UnknownCredential {
        /// Kafka's name of the record.
        record: &'static str,
        /// The user.
        user: Str,
        /// The mechanism's number.
        mechanism: i8,
    },
    /// The log was written by a newer release.
    #[error(
        "feature {name} has level {level}, but this release knows levels up to {most}; use a newer one"
    )]
    UnknownFeatureLevel {
        /// The feature.
        name: Str,
        /// The level it has.
        level: i16,
        /// The highest level known here.
        most: i16,
    },
}

/// The feature that says which records may stand in the log.
/// The feature that says which protocol of transactions is in use.
pub const TRANSACTION_VERSION: &str = "transaction.version";
pub(crate) const METADATA_VERSION: &str = "metadata.version";
/// The feature that keeps partitions' eligible leaders apart (KIP-966). One replica that is in sync
/// as long as it is there leaves nobody to keep; what remains are its rules about
/// `min.insync.replicas`.
pub(crate) const ELIGIBLE_LEADERS: &str = "eligible.leader.replicas.version";

/// Kafka 4.3-IV0.
pub(crate) const METADATA_VERSION_LEVEL: i16 = 30;

impl Image {
    /// Makes the image of a cluster whose log is empty.
    pub fn new(cluster_id: Str) -> Self {
        Self {
            cluster_id,
            topics: Topics::default(),
            configs: Configs::default(),
            brokers: Arc::default(),
            controllers: Arc::default(),
            features: Arc::default(),
            next_producer_id: ProducerId(0),
            quotas: Quotas::default(),
            acls: Acls::default(),
            scram: ScramCredentials::default(),
            tokens: DelegationTokens::default(),
        }
    }

    /// Returns the cluster's id.
    pub fn cluster_id(&self) -> &Str {
        &self.cluster_id
    }

    /// Returns the topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Returns all dynamic configs.
    pub fn configs(&self) -> &Configs {
        &self.configs
    }

    /// Returns the dynamic configs of a topic.
    pub fn topic_configs(&self, name: &str) -> Arc<ConfigMap> {
        self.configs.of(&Resource::topic(name))
    }

    /// Returns the dynamic configs of a broker.
    pub fn broker_configs(&self, id: NodeId) -> Arc<ConfigMap> {
        self.configs.of(&Resource::new(ResourceKind::Broker, id.to_string()))
    }

    /// Returns the dynamic configs that hold for all brokers.
    pub fn cluster_configs(&self) -> Arc<ConfigMap> {
        self.configs.of(&Resource::all_brokers())
    }

    /// Returns the registered brokers.
    pub fn brokers(&self) -> &BTreeMap<NodeId, Broker> {
        &self.brokers
    }

    /// Returns the registered controllers, as Kafka's own processes recorded them.
    pub fn controllers(&self) -> &BTreeMap<NodeId, RegisterControllerRecord> {
        &self.controllers
    }

    /// Returns the finalized levels of features.
    pub fn features(&self) -> &BTreeMap<Str, i16> {
        &self.features
    }

    /// Returns the first producer id that no block holds yet.
    pub fn next_producer_id(&self) -> ProducerId {
        self.next_producer_id
    }

    /// Returns the quotas.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Returns the access control entries.
    pub fn acls(&self) -> &Acls {
        &self.acls
    }

    /// Returns the SCRAM credentials.
    pub fn scram(&self) -> &ScramCredentials {
        &self.scram
    }

    /// Returns the delegation tokens.
    pub fn tokens(&self) -> &DelegationTokens {
        &self.tokens
    }

    /// Applies one record.
    ///
    /// After an error the image is as it was.
    pub fn apply(&mut self, record: &Record) -> Result<Change, ApplyError> {
        let name = record.name();
        match record {
            Record::Topic(record) => self.create_topic(record.name.detach(), record.topic_id),
            Record::Partition(record) => {
                let id = record.topic_id;
                let topic = self.topic_mut(id, name)?;
                let index = record.partition_id;
                if index < 0 {
                    let topic = topic.name.clone();
                    return Err(ApplyError::InvalidPartition { topic, partition: index });
                }
                topic.put(Partition::from_record(record));
                Ok(Change::PartitionCreated(id, index))
            }
            Record::PartitionChange(change) => self.change_partition(change),
            Record::RemoveTopic(record) => {
                let id = record.topic_id;
                let unknown = ApplyError::UnknownTopic { record: name, id };
                let topic = self.topics.remove(id).ok_or(unknown)?;
                self.configs.forget(&Resource::topic(&topic.name));
                Ok(Change::TopicRemoved(topic))
            }
            Record::ClearElr(record) => self.clear_eligible_replicas(&record.topic_name),
            Record::Config(record) => self.set_config(record),
            Record::FeatureLevel(record) => {
                let (feature, level) = (record.name.detach(), record.feature_level);
                let most = METADATA_VERSION_LEVEL;
                if feature.as_str() == METADATA_VERSION && level > most {
                    return Err(ApplyError::UnknownFeatureLevel { name: feature, level, most });
                }
                let features = Arc::make_mut(&mut self.features);
                // Level 0 means that the feature is not in use, as if it had never been.
                match level {
                    0 => features.remove(&feature),
                    level => features.insert(feature.clone(), level),
                };
                Ok(Change::FeatureChanged(feature))
            }
            Record::RegisterBroker(record) => {
                let broker = Broker::from_record(record);
                let id = broker.id;
                Arc::make_mut(&mut self.brokers).insert(id, broker);
                Ok(Change::BrokerChanged(id))
            }
            Record::UnregisterBroker(record) => {
                let id = NodeId(record.broker_id);
                self.broker_mut(id, record.broker_epoch, name)?;
                Arc::make_mut(&mut self.brokers).remove(&id);
                Ok(Change::BrokerChanged(id))
            }
            Record::BrokerRegistrationChange(record) => {
                let id = NodeId(record.broker_id);
                self.broker_mut(id, record.broker_epoch, name)?.merge(record);
                Ok(Change::BrokerChanged(id))
            }
            Record::FenceBroker(record) => {
                let id = NodeId(record.id);
                self.broker_mut(id, record.epoch, name)?.is_fenced = true;
                Ok(Change::BrokerChanged(id))
            }
            Record::UnfenceBroker(record) => {
                let id = NodeId(record.id);
                self.broker_mut(id, record.epoch, name)?.is_fenced = false;
                Ok(Change::BrokerChanged(id))
            }
            Record::RegisterController(record) => {
                let id = NodeId(record.controller_id);
                Arc::make_mut(&mut self.controllers).insert(id, record.clone());
                Ok(Change::Nothing)
            }
            Record::ProducerIds(record) => {
                self.next_producer_id = ProducerId(record.next_producer_id.max(0));
                Ok(Change::Nothing)
            }
            Record::ClientQuota(record) => {
                let entity =
                    QuotaEntity::from_record(record).ok_or(ApplyError::UnknownQuotaEntity)?;
                let value = (!record.remove).then_some(record.value);
                self.quotas.set(entity.clone(), record.key.detach(), value);
                Ok(Change::QuotaChanged(entity))
            }
            Record::AccessControlEntry(record) => {
                let acl = Acl::from_record(record).ok_or(ApplyError::UnknownAcl(record.id))?;
                if !self.acls.add(record.id, acl) {
                    return Err(ApplyError::AclExists(record.id));
                }
                Ok(Change::AclAdded(record.id))
            }
            Record::RemoveAccessControlEntry(record) => {
                let removed = self.acls.remove(record.id);
                removed.map(Change::AclRemoved).ok_or(ApplyError::NoSuchAcl(record.id))
            }
            Record::UserScramCredential(UserScramCredentialRecord {
                name: user,
                mechanism,
                ..
            })
            | Record::RemoveUserScramCredential(RemoveUserScramCredentialRecord {
                name: user,
                mechanism,
            }) => {
                let fits = match record {
                    Record::UserScramCredential(record) => self.scram.put(record),
                    _ => self.scram.remove(user, *mechanism),
                };
                let (user, mechanism) = (user.detach(), *mechanism);
                if !fits {
                    return Err(ApplyError::UnknownCredential { record: name, user, mechanism });
                }
                Ok(Change::CredentialChanged(user))
            }
            Record::DelegationToken(record) => {
                self.tokens.put(record);
                Ok(Change::TokenChanged(record.token_id.detach()))
            }
            Record::RemoveDelegationToken(record) => {
                self.tokens.remove(&record.token_id);
                Ok(Change::TokenChanged(record.token_id.detach()))
            }
            // Kafka 3 wrote it, also where ZooKeeper had never been.
            Record::ZkMigrationState(_)
            | Record::NoOp(_)
            | Record::BeginTransaction(_)
            | Record::EndTransaction(_)
            | Record::AbortTransaction(_) => Ok(Change::Nothing),
        }
    }

    fn create_topic(&mut self, name: Str, id: Uuid) -> Result<Change, ApplyError> {
        if self.topics.by_name(&name).is_some() || self.topics.by_id(id).is_some() {
            return Err(ApplyError::TopicExists { name, id });
        }
        self.topics.put(Topic::new(name, id));
        Ok(Change::TopicCreated(id))
    }

    fn change_partition(&mut self, change: &PartitionChangeRecord) -> Result<Change, ApplyError> {
        let (id, index) = (change.topic_id, change.partition_id);
        let topic = self.topic_mut(id, "PartitionChangeRecord")?;
        let name = topic.name.clone();
        match topic.partition_mut(index) {
            Some(partition) => partition.merge(change),
            None => return Err(ApplyError::UnknownPartition { topic: name, partition: index }),
        }
        Ok(Change::PartitionChanged(id, index))
    }

    fn clear_eligible_replicas(&mut self, name: &str) -> Result<Change, ApplyError> {
        // The empty name stands for every topic.
        let ids: Vec<Uuid> = match name {
            "" => self.topics.iter().map(|topic| topic.id).collect(),
            name => self.topics.by_name(name).map(|topic| topic.id).into_iter().collect(),
        };
        for id in ids {
            for partition in self.topic_mut(id, "ClearElrRecord")?.partitions_mut() {
                partition.eligible_leader_replicas.clear();
                partition.last_known_eligible.clear();
            }
        }
        Ok(Change::Nothing)
    }

    fn set_config(&mut self, record: &ConfigRecord) -> Result<Change, ApplyError> {
        let kind = ResourceKind::from_wire_id(record.resource_type)
            .ok_or(ApplyError::UnknownResource(record.resource_type))?;
        let resource = Resource::new(kind, record.resource_name.as_str());
        let value = record.value.as_deref().map(Arc::from);
        self.configs.set(resource.clone(), Arc::from(record.name.as_str()), value);
        Ok(Change::ConfigChanged(resource))
    }

    fn topic_mut(&mut self, id: Uuid, record: &'static str) -> Result<&mut Topic, ApplyError> {
        self.topics.get_mut(id).ok_or(ApplyError::UnknownTopic { record, id })
    }

    fn broker_mut(
        &mut self,
        id: NodeId,
        epoch: i64,
        record: &'static str,
    ) -> Result<&mut Broker, ApplyError> {
        match self.brokers.get(&id) {
            Some(broker) if broker.epoch == epoch => {}
            _ => return Err(ApplyError::UnknownBroker { record, id, epoch }),
        }
        let broker = Arc::make_mut(&mut self.brokers).get_mut(&id);
        Ok(broker.expect("it was there a line ago"))
    }
}

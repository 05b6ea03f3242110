//! Brokers joining the cluster, and the producer ids they hand out.

use std::collections::BTreeMap;

use fleuve_protocol::Str;
use fleuve_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use fleuve_protocol::messages::partition_change_record::PartitionChangeRecord;
use fleuve_protocol::messages::producer_ids_record::ProducerIdsRecord;
use fleuve_protocol::messages::unregister_broker_record::UnregisterBrokerRecord;
use fleuve_types::{NodeId, Offset, ProducerId, Uuid};

use super::machine::{Controller, Decision, SUPPORTED_FEATURES};
use crate::image::{Broker, Endpoint, FeatureRange, METADATA_VERSION, Partition};
use crate::record::Record;

/// A broker that has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The id of its process, drawn at start.
    pub incarnation: Uuid,
    /// Where it is reached, listener by listener.
    pub endpoints: Vec<Endpoint>,
    /// Its rack or zone.
    pub rack: Option<Str>,
    /// The ids of its data directories.
    pub directories: Vec<Uuid>,
    /// Whether its previous process closed all logs before it ended.
    ///
    /// If not, what the page cache held may be lost: each partition it leads then begins a new
    /// leader epoch, by which consumers notice that the log they read has another end.
    pub was_clean: bool,
}

/// Reports that a broker cannot join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The cluster uses a feature at a level that this release does not know.
    #[error("feature {feature} is at level {level}, which broker {id} does not support")]
    UnsupportedFeature {
        /// The feature.
        feature: Str,
        /// Its level.
        level: i16,
        /// The broker.
        id: NodeId,
    },
}

/// Reports that a broker cannot be removed from the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnregisterError {
    /// There is no such broker.
    #[error("Broker ID {0} is not currently registered")]
    NotRegistered(NodeId),
    /// It is the one that is asked.
    #[error("Broker ID {0} is this one, which is running; stop it and ask another")]
    Running(NodeId),
}

/// Producer ids that a broker may hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: ProducerId,
    /// How many ids there are.
    pub count: i64,
}

/// How many producer ids a broker gets at a time, as in Kafka.
const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

impl Controller {
    /// Decides about the start of this node's broker.
    ///
    /// `next_offset` is where the first of the records will stand in the metadata log; as in
    /// Kafka it becomes the number of the registration, since it grows and is never used twice.
    pub fn register_broker(
        &self,
        registration: &Registration,
        next_offset: Offset,
    ) -> Decision<Result<Offset, RegistrationError>> {
        let id = self.settings.node.id;
        let supported: BTreeMap<Str, FeatureRange> =
            SUPPORTED_FEATURES.iter().map(|(name, range)| (Str::from(*name), *range)).collect();
        for (feature, level) in self.image.features() {
            let is_supported =
                supported.get(feature).is_some_and(|range| (range.min..=range.max).contains(level));
            // Other features than the metadata version gate APIs, and those we do not offer.
            if feature.as_str() == METADATA_VERSION && !is_supported {
                let (feature, level) = (feature.clone(), *level);
                let error = RegistrationError::UnsupportedFeature { feature, level, id };
                return Decision { records: Vec::new(), reply: Err(error) };
            }
        }
        let broker = Broker {
            id,
            epoch: next_offset.0,
            incarnation: registration.incarnation,
            endpoints: registration.endpoints.clone(),
            features: supported,
            rack: registration.rack.clone(),
            is_fenced: true,
            is_shutting_down: false,
            directories: registration.directories.clone(),
            cordoned_directories: Vec::new(),
        };
        let unfence = BrokerRegistrationChangeRecord {
            broker_id: id.0,
            broker_epoch: next_offset.0,
            fenced: -1,
            ..BrokerRegistrationChangeRecord::default()
        };
        let mut records = vec![broker.to_record().into(), Record::from(unfence)];
        records.extend(self.leadership_records(id, registration.was_clean));
        Decision { records, reply: Ok(next_offset) }
    }

    /// Decides about the end of a broker's membership.
    ///
    /// Kafka would remove also the broker that runs here, and leave all partitions without a
    /// leader until its restart.
    pub fn unregister_broker(&self, id: NodeId) -> Decision<Result<(), UnregisterError>> {
        let refuse = |error| Decision { records: Vec::new(), reply: Err(error) };
        let Some(broker) = self.image.brokers().get(&id) else {
            return refuse(UnregisterError::NotRegistered(id));
        };
        if id == self.settings.node.id {
            return refuse(UnregisterError::Running(id));
        }
        let mut records: Vec<Record> = Vec::new();
        for topic in self.image.topics().iter() {
            let led = topic.partitions().iter().filter(|partition| partition.leader == Some(id));
            records.extend(led.map(|partition| {
                let is_there = |other: &&NodeId| {
                    **other != id && self.image.brokers().get(other).is_some_and(Broker::is_active)
                };
                let heir = partition.isr.iter().find(is_there);
                PartitionChangeRecord {
                    partition_id: partition.index,
                    topic_id: topic.id,
                    leader: heir.map_or(-1, |heir| heir.0),
                    ..PartitionChangeRecord::default()
                }
                .into()
            }));
        }
        let (broker_id, broker_epoch) = (id.0, broker.epoch);
        records.push(UnregisterBrokerRecord { broker_id, broker_epoch }.into());
        Decision { records, reply: Ok(()) }
    }

    /// Gives a broker producer ids that nobody ever had.
    pub fn allocate_producer_ids(
        &self,
        id: NodeId,
        epoch: i64,
    ) -> Decision<Option<ProducerIdBlock>> {
        let first = self.image.next_producer_id();
        let is_registered = self.image.brokers().get(&id).is_some_and(|b| b.epoch == epoch);
        let next = first.0.checked_add(PRODUCER_IDS_PER_BLOCK).filter(|_| is_registered);
        let Some(next_producer_id) = next else {
            return Decision { records: Vec::new(), reply: None };
        };
        let record = ProducerIdsRecord { broker_id: id.0, broker_epoch: epoch, next_producer_id };
        let block = ProducerIdBlock { first, count: PRODUCER_IDS_PER_BLOCK };
        Decision { records: vec![record.into()], reply: Some(block) }
    }

    /// Makes a returning broker lead again: what nobody leads, and after a crash also what it led.
    fn leadership_records(&self, id: NodeId, was_clean: bool) -> impl Iterator<Item = Record> {
        let needs_epoch = move |partition: &Partition| match partition.leader {
            // Kafka takes a broker that stops out of the ISR, and keeps in mind that it has
            // everything (KIP-966).
            None => {
                let nobody_has_all =
                    partition.isr.is_empty() && partition.eligible_leader_replicas.is_empty();
                partition.isr.contains(&id)
                    || partition.eligible_leader_replicas.contains(&id)
                    || (nobody_has_all && partition.last_known_eligible.contains(&id))
            }
            Some(leader) => leader == id && !was_clean,
        };
        self.image.topics().iter().flat_map(move |topic| {
            let topic_id = topic.id;
            topic.partitions().iter().filter(move |partition| needs_epoch(partition)).map(
                move |partition| {
                    let returns = !partition.isr.contains(&id);
                    let change = PartitionChangeRecord {
                        partition_id: partition.index,
                        topic_id,
                        leader: id.0,
                        isr: returns.then(|| vec![id.0]),
                        eligible_leader_replicas: returns.then(Vec::new),
                        last_known_elr: returns.then(Vec::new),
                        ..PartitionChangeRecord::default()
                    };
                    change.into()
                },
            )
        })
    }
}

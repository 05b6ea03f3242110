//! Electing leaders, and moving partitions between brokers.

use fleuve_protocol::Str;
use fleuve_protocol::messages::partition_change_record::PartitionChangeRecord;
use fleuve_types::{NodeId, Uuid};

use super::machine::{Controller, Decision};
use super::placement::{self, PlacementError};
use crate::image::{Partition, directory};
use crate::record::Record;

/// The leader of a partition that none can lead, in records.
const NO_LEADER: i32 = -1;
/// What a record says when the leader may lack what was acknowledged.
const RECOVERING: i8 = 1;

/// Whom to elect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionType {
    /// The first of the replicas, if it is in sync.
    Preferred,
    /// Anybody who is there, even if records are lost by it.
    Unclean,
}

/// Reports that no leader was elected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// There is no such topic or partition.
    #[error("{0}")]
    UnknownPartition(String),
    /// The partition has the leader it should have.
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    /// The preferred leader cannot lead.
    #[error("The preferred leader was not available.")]
    PreferredNotAvailable,
    /// Nobody can lead.
    #[error("Eligible topic partition leaders are not available.")]
    NobodyAvailable,
}

/// A partition that is to have other replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic.
    pub topic: Str,
    /// The partition.
    pub partition: i32,
    /// The brokers that are to keep it; `None` takes back a move that is under way.
    pub replicas: Option<Vec<i32>>,
}

/// Reports that a partition cannot be moved so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReassignmentError {
    /// There is no such topic or partition.
    #[error("{0}")]
    UnknownPartition(String),
    /// There is nothing to take back.
    #[error("No partition reassignment is in progress.")]
    NotInProgress,
    /// The count of replicas would change, which the request rules out.
    #[error("The replication factor is changed from {from} to {to}")]
    FactorChanged {
        /// How many there are.
        from: usize,
        /// How many there would be.
        to: usize,
    },
    /// The brokers cannot keep it.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

impl Controller {
    /// Decides about leaders of single partitions.
    pub fn elect_leaders(
        &self,
        election: ElectionType,
        partitions: &[(Str, i32)],
    ) -> Decision<Vec<Result<(), ElectionError>>> {
        let mut records = Vec::new();
        let elect = |(name, index): &(Str, i32)| {
            let unknown = |what: String| ElectionError::UnknownPartition(what);
            let topic = self.image.topics().by_name(name);
            let topic = topic.ok_or_else(|| unknown(format!("No such topic as {name}")))?;
            let partition = topic.partition(*index);
            let partition =
                partition.ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
            records.push(self.elect(election, topic.id, partition)?);
            Ok(())
        };
        let reply = partitions.iter().map(elect).collect();
        Decision { records, reply }
    }

    fn elect(
        &self,
        election: ElectionType,
        topic_id: Uuid,
        partition: &Partition,
    ) -> Result<Record, ElectionError> {
        let preferred = partition.replicas.first().copied();
        let is_there = |id: &NodeId| self.image.brokers().get(id).is_some_and(|b| b.is_active());
        let in_sync = |id: &NodeId| partition.isr.contains(id);
        let mut change = PartitionChangeRecord {
            partition_id: partition.index,
            topic_id,
            ..PartitionChangeRecord::default()
        };
        match election {
            ElectionType::Preferred => {
                if partition.leader.is_some() && partition.leader == preferred {
                    return Err(ElectionError::NotNeeded);
                }
                let leader = preferred.filter(|id| is_there(id) && in_sync(id));
                change.leader = leader.ok_or(ElectionError::PreferredNotAvailable)?.0;
            }
            ElectionType::Unclean => {
                if partition.leader.is_some() {
                    return Err(ElectionError::NotNeeded);
                }
                let mut candidates = partition.replicas.iter().filter(|id| is_there(id));
                if let Some(clean) = candidates.clone().find(|id| in_sync(id)) {
                    change.leader = clean.0;
                } else {
                    let leader = candidates.next().ok_or(ElectionError::NobodyAvailable)?;
                    change.leader = leader.0;
                    change.isr = Some(vec![leader.0]);
                    change.leader_recovery_state = RECOVERING;
                }
            }
        }
        Ok(change.into())
    }

    /// Decides about replicas of partitions.
    ///
    /// Brokers that only leave are gone at once. Those that are to come would have to copy the
    /// partition first; until they have, the move is under way, as in Kafka.
    pub fn alter_reassignments(
        &self,
        reassignments: &[Reassignment],
        allow_factor_change: bool,
    ) -> Decision<Vec<Result<(), ReassignmentError>>> {
        let mut records = Vec::new();
        let decide = |wanted: &Reassignment| {
            let unknown = ReassignmentError::UnknownPartition;
            let topic = self.image.topics().by_name(&wanted.topic).ok_or_else(|| {
                unknown(format!("Unable to find a topic named {}.", wanted.topic))
            })?;
            let partition = topic.partition(wanted.partition).ok_or_else(|| {
                unknown(format!("Unable to find partition {}:{}.", wanted.topic, wanted.partition))
            })?;
            let change = match &wanted.replicas {
                None => self.take_back(topic.id, partition)?,
                Some(target) => self.reassign(topic.id, partition, target, allow_factor_change)?,
            };
            records.extend(change);
            Ok(())
        };
        let reply = reassignments.iter().map(decide).collect();
        Decision { records, reply }
    }

    fn take_back(
        &self,
        topic_id: Uuid,
        partition: &Partition,
    ) -> Result<Option<Record>, ReassignmentError> {
        if partition.adding_replicas.is_empty() && partition.removing_replicas.is_empty() {
            return Err(ReassignmentError::NotInProgress);
        }
        let adding = &partition.adding_replicas;
        let before = partition.replicas.iter().filter(|id| !adding.contains(id)).copied();
        Ok(self.settle(topic_id, partition, before.collect()))
    }

    fn reassign(
        &self,
        topic_id: Uuid,
        partition: &Partition,
        target: &[i32],
        allow_factor_change: bool,
    ) -> Result<Option<Record>, ReassignmentError> {
        placement::check_brokers(&self.image, target)?;
        let target: Vec<NodeId> = target.iter().copied().map(NodeId).collect();
        let coming = &partition.adding_replicas;
        let current: Vec<NodeId> =
            partition.replicas.iter().filter(|id| !coming.contains(id)).copied().collect();
        if !allow_factor_change && target.len() != current.len() {
            let (from, to) = (current.len(), target.len());
            return Err(ReassignmentError::FactorChanged { from, to });
        }
        let adding: Vec<NodeId> =
            target.iter().filter(|id| !current.contains(id)).copied().collect();
        let stays_in_sync = target.iter().any(|id| partition.isr.contains(id));
        if adding.is_empty() && stays_in_sync {
            return Ok(self.settle(topic_id, partition, target));
        }
        let removing: Vec<NodeId> =
            current.iter().filter(|id| !target.contains(id)).copied().collect();
        let replicas: Vec<NodeId> = target.iter().chain(&removing).copied().collect();
        let numbers = |ids: &[NodeId]| Some(ids.iter().map(|id| id.0).collect());
        let change = PartitionChangeRecord {
            partition_id: partition.index,
            topic_id,
            directories: Some(self.directories(partition, &replicas)),
            replicas: numbers(&replicas),
            adding_replicas: numbers(&adding),
            removing_replicas: numbers(&removing),
            ..PartitionChangeRecord::default()
        };
        Ok(Some(change.into()))
    }

    /// Gives a partition these replicas, all of which it has, for good.
    fn settle(
        &self,
        topic_id: Uuid,
        partition: &Partition,
        replicas: Vec<NodeId>,
    ) -> Option<Record> {
        let is_moving =
            !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty();
        if replicas == partition.replicas && !is_moving {
            return None;
        }
        let numbers =
            |ids: &[NodeId]| -> Option<Vec<i32>> { Some(ids.iter().map(|id| id.0).collect()) };
        let isr: Vec<NodeId> =
            partition.isr.iter().filter(|id| replicas.contains(id)).copied().collect();
        let mut change = PartitionChangeRecord {
            partition_id: partition.index,
            topic_id,
            directories: Some(self.directories(partition, &replicas)),
            replicas: numbers(&replicas),
            ..PartitionChangeRecord::default()
        };
        if isr != partition.isr {
            change.isr = numbers(&isr);
        }
        if is_moving {
            (change.adding_replicas, change.removing_replicas) =
                (Some(Vec::new()), Some(Vec::new()));
        }
        if partition.leader.is_some_and(|leader| !isr.contains(&leader)) {
            let mut heirs = replicas.iter().filter(|id| isr.contains(id));
            let is_there =
                |id: &&NodeId| self.image.brokers().get(id).is_some_and(|b| b.is_active());
            change.leader = heirs.find(is_there).map_or(NO_LEADER, |id| id.0);
        }
        Some(change.into())
    }

    fn directories(&self, partition: &Partition, replicas: &[NodeId]) -> Vec<Uuid> {
        let known = partition.replicas.iter().zip(&partition.directories);
        let find = |id: &NodeId| known.clone().find(|(known, _)| *known == id).map(|(_, dir)| *dir);
        replicas.iter().map(|id| find(id).unwrap_or(directory::UNASSIGNED)).collect()
    }
}

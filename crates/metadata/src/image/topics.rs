//! Topics and their partitions.
//!
//! Invariants: a topic is in `by_name` under its name exactly when it is in `by_id`; partitions are
//! sorted by index; `look_alikes` holds the names with `.` or `_`, under the name that results when
//! every `.` is written as `_`.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_protocol::messages::partition_change_record::PartitionChangeRecord;
use fleuve_protocol::messages::partition_record::PartitionRecord;
use fleuve_types::{LeaderEpoch, NodeId, Uuid};
use rpds::RedBlackTreeMapSync;

/// Ids of directories that stand for no directory.
pub mod directory {
    use fleuve_types::Uuid;

    /// A replica whose directory was chosen before directories had ids.
    pub const MIGRATING: Uuid = Uuid::ZERO;
    /// A replica that has no directory yet.
    pub const UNASSIGNED: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    /// A replica whose directory is out of reach.
    pub const LOST: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its index in the topic.
    pub index: i32,
    /// The broker that leads it, if one can.
    pub leader: Option<NodeId>,
    /// The number of that leadership.
    pub leader_epoch: LeaderEpoch,
    /// Counts the changes of this partition.
    pub partition_epoch: i32,
    /// The brokers that keep a copy, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Those of them that are in sync.
    pub isr: Vec<NodeId>,
    /// The directory of each replica, in the order of `replicas`.
    pub directories: Vec<Uuid>,
    /// Replicas on their way out.
    pub removing_replicas: Vec<NodeId>,
    /// Replicas on their way in.
    pub adding_replicas: Vec<NodeId>,
    /// Whether the leader is not sure to have everything that was acknowledged.
    pub is_recovering: bool,
    /// Replicas that left the ISR and still have everything that was acknowledged (KIP-966).
    pub eligible_leader_replicas: Vec<NodeId>,
    /// Replicas that were eligible until they crashed (KIP-966).
    pub last_known_eligible: Vec<NodeId>,
}

/// A topic with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Str,
    /// Its id, which a later topic of the same name does not share.
    pub id: Uuid,
    partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// Returns the partitions in the order of their indexes.
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    /// Finds a partition by its index.
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.position(index).ok().map(|position| &self.partitions[position])
    }

    /// Reports whether brokers keep the topic for themselves.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    pub(super) fn new(name: Str, id: Uuid) -> Self {
        Self { name, id, partitions: Vec::new() }
    }

    /// Adds a partition, or replaces the one of its index.
    pub(super) fn put(&mut self, partition: Partition) {
        match self.position(partition.index) {
            Ok(position) => self.partitions[position] = Arc::new(partition),
            Err(position) => self.partitions.insert(position, Arc::new(partition)),
        }
    }

    pub(super) fn partition_mut(&mut self, index: i32) -> Option<&mut Partition> {
        let position = self.position(index).ok()?;
        Some(Arc::make_mut(&mut self.partitions[position]))
    }

    pub(super) fn partitions_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.partitions.iter_mut().map(Arc::make_mut)
    }

    fn position(&self, index: i32) -> Result<usize, usize> {
        // Nearly always the indexes have no gap.
        let guess = usize::try_from(index).unwrap_or(usize::MAX);
        match self.partitions.get(guess) {
            Some(partition) if partition.index == index => Ok(guess),
            _ => self.partitions.binary_search_by_key(&index, |partition| partition.index),
        }
    }
}

/// Reports whether brokers keep topics of this name for themselves.
pub(crate) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// All topics, sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topics {
    by_name: RedBlackTreeMapSync<Str, Arc<Topic>>,
    names: RedBlackTreeMapSync<Uuid, Str>,
    look_alikes: RedBlackTreeMapSync<String, Arc<BTreeSet<Str>>>,
}

impl Topics {
    /// Finds a topic by its name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// Finds a topic by its id.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_name.get(self.names.get(&id)?)
    }

    /// Lists all topics in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Lists the topics from this name on, in the order of their names.
    pub fn starting_at(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        let name = Str::copy_from(name);
        self.by_name.range(name..).map(|(_, topic)| topic)
    }

    /// Returns how many topics there are.
    pub fn len(&self) -> usize {
        self.by_name.size()
    }

    /// Reports whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Finds a topic that differs from `name` only in `.` against `_`, which metric names merge.
    pub fn look_alike(&self, name: &str) -> Option<&Str> {
        if !has_merged_characters(name) {
            return None;
        }
        self.look_alikes.get(&merged_name(name))?.iter().find(|known| known.as_str() != name)
    }

    pub(super) fn put(&mut self, topic: Topic) {
        let name = topic.name.clone();
        if let Some(earlier) = self.by_name.get(&name) {
            let earlier = earlier.id;
            self.names.remove_mut(&earlier);
        }
        if has_merged_characters(&name) {
            let key = merged_name(&name);
            match self.look_alikes.get_mut(&key) {
                Some(names) => {
                    Arc::make_mut(names).insert(name.clone());
                }
                None => {
                    self.look_alikes.insert_mut(key, Arc::new(BTreeSet::from([name.clone()])));
                }
            }
        }
        self.names.insert_mut(topic.id, name.clone());
        self.by_name.insert_mut(name, Arc::new(topic));
    }

    pub(super) fn get_mut(&mut self, id: Uuid) -> Option<&mut Topic> {
        let name = self.names.get(&id)?;
        self.by_name.get_mut(name).map(Arc::make_mut)
    }

    pub(super) fn remove(&mut self, id: Uuid) -> Option<Arc<Topic>> {
        let name = self.names.get(&id)?.clone();
        let topic = self.by_name.get(&name)?.clone();
        self.names.remove_mut(&id);
        self.by_name.remove_mut(&name);
        if has_merged_characters(&name) {
            let key = merged_name(&name);
            let is_last = self.look_alikes.get_mut(&key).is_some_and(|names| {
                Arc::make_mut(names).remove(&name);
                names.is_empty()
            });
            if is_last {
                self.look_alikes.remove_mut(&key);
            }
        }
        Some(topic)
    }
}

fn has_merged_characters(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// The name as metric names have it, which merge `.` and `_`.
pub(crate) fn merged_name(name: &str) -> String {
    name.replace('.', "_")
}

/// The leader's id on the wire when there is none.
const NO_LEADER: i32 = -1;

/// The leader's id in a change that leaves the leader alone.
const SAME_LEADER: i32 = -2;

/// The recovery state in a change that leaves it alone.
const SAME_RECOVERY: i8 = -1;

const RECOVERED: i8 = 0;
const RECOVERING: i8 = 1;

impl Partition {
    pub(super) fn from_record(record: &PartitionRecord) -> Self {
        Self {
            index: record.partition_id,
            leader: leader_from_wire(record.leader),
            leader_epoch: LeaderEpoch(record.leader_epoch),
            partition_epoch: record.partition_epoch,
            directories: directories_for(&record.directories, record.replicas.len()),
            replicas: nodes(&record.replicas),
            isr: nodes(&record.isr),
            removing_replicas: nodes(&record.removing_replicas),
            adding_replicas: nodes(&record.adding_replicas),
            is_recovering: record.leader_recovery_state != RECOVERED,
            eligible_leader_replicas: optional_nodes(&record.eligible_leader_replicas),
            last_known_eligible: optional_nodes(&record.last_known_elr),
        }
    }

    /// Makes the record that adds this partition to the topic of this id.
    pub fn to_record(&self, topic_id: Uuid) -> PartitionRecord {
        PartitionRecord {
            partition_id: self.index,
            topic_id,
            replicas: numbers(&self.replicas),
            isr: numbers(&self.isr),
            removing_replicas: numbers(&self.removing_replicas),
            adding_replicas: numbers(&self.adding_replicas),
            leader: self.leader.map_or(NO_LEADER, NodeId::get),
            leader_recovery_state: if self.is_recovering { RECOVERING } else { RECOVERED },
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: optional_numbers(&self.eligible_leader_replicas),
            last_known_elr: optional_numbers(&self.last_known_eligible),
        }
    }

    /// Merges a change; naming a leader, even the same one, begins a new leadership.
    pub(super) fn merge(&mut self, change: &PartitionChangeRecord) {
        let set = |field: &mut Vec<NodeId>, new: &Option<Vec<i32>>| {
            if let Some(new) = new {
                *field = nodes(new);
            }
        };
        set(&mut self.replicas, &change.replicas);
        set(&mut self.isr, &change.isr);
        set(&mut self.removing_replicas, &change.removing_replicas);
        set(&mut self.adding_replicas, &change.adding_replicas);
        set(&mut self.eligible_leader_replicas, &change.eligible_leader_replicas);
        set(&mut self.last_known_eligible, &change.last_known_elr);
        let directories = change.directories.as_ref().unwrap_or(&self.directories);
        self.directories = directories_for(directories, self.replicas.len());
        if change.leader != SAME_LEADER {
            self.leader = leader_from_wire(change.leader);
            self.leader_epoch = LeaderEpoch(self.leader_epoch.0.wrapping_add(1));
        }
        if change.leader_recovery_state != SAME_RECOVERY {
            self.is_recovering = change.leader_recovery_state != RECOVERED;
        }
        self.partition_epoch = self.partition_epoch.wrapping_add(1);
    }
}

fn leader_from_wire(leader: i32) -> Option<NodeId> {
    (leader != NO_LEADER).then_some(NodeId(leader))
}

/// Older records say nothing about directories, and a change of replicas may say too little.
fn directories_for(directories: &[Uuid], replicas: usize) -> Vec<Uuid> {
    if directories.len() == replicas {
        directories.to_vec()
    } else {
        vec![directory::MIGRATING; replicas]
    }
}

fn nodes(numbers: &[i32]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

fn numbers(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|node| node.0).collect()
}

fn optional_nodes(numbers: &Option<Vec<i32>>) -> Vec<NodeId> {
    numbers.as_deref().map(nodes).unwrap_or_default()
}

fn optional_numbers(nodes: &[NodeId]) -> Option<Vec<i32>> {
    (!nodes.is_empty()).then(|| numbers(nodes))
}

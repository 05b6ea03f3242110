//! Choosing brokers for the replicas of new partitions, and checking choices made elsewhere.

use fleuve_types::{LeaderEpoch, NodeId, Uuid};

use crate::image::{Broker, Image, Partition, directory};

/// Reports that replicas cannot be placed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// There are not enough brokers.
    #[error("Unable to replicate the partition {wanted} time(s): {reason}")]
    TooFewBrokers {
        /// How many replicas were asked for.
        wanted: usize,
        /// Why that many cannot be had.
        reason: String,
    },
    /// An assignment made by hand is wrong.
    #[error("{0}")]
    Assignment(String),
}

/// Places the replicas of partitions `from..from + count`, spreading leaders over the brokers.
pub(super) fn place(
    image: &Image,
    from: i32,
    count: i32,
    replication_factor: usize,
) -> Result<Vec<Partition>, PlacementError> {
    let takes_more = |broker: &&Broker| broker.is_active() && broker.has_room();
    let active: Vec<&Broker> = image.brokers().values().filter(takes_more).collect();
    let registered = image.brokers().len();
    if active.is_empty() || active.len() < replication_factor {
        let reason = if registered < replication_factor || registered == 0 {
            format!(
                "The target replication factor of {replication_factor} cannot be reached because \
                 only {registered} broker(s) are registered."
            )
        } else {
            format!(
                "The target replication factor of {replication_factor} cannot be reached because \
                 only {} broker(s) are not fenced and have a data directory that takes new \
                 partitions.",
                active.len()
            )
        };
        return Err(PlacementError::TooFewBrokers { wanted: replication_factor, reason });
    }
    // Topics begin at different brokers, so that many small ones do not all lead from the first.
    let start = image.topics().len();
    let place_one = |index: i32| {
        let first = start.wrapping_add(index as usize);
        let replicas: Vec<&Broker> =
            (0..replication_factor).map(|step| active[(first + step) % active.len()]).collect();
        partition(index, &replicas)
    };
    Ok((from..from + count).map(place_one).collect())
}

/// Checks replicas that the user chose and makes a partition of them.
pub(super) fn place_by_hand(
    image: &Image,
    index: i32,
    brokers: &[i32],
    replication_factor: Option<usize>,
) -> Result<Partition, PlacementError> {
    let replicas = check_brokers(image, brokers)?;
    let wrong = |message: String| Err(PlacementError::Assignment(message));
    if let Some(expected) = replication_factor.filter(|factor| *factor != brokers.len()) {
        return wrong(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is \
             not consistent with previous partitions, which have {expected} replica(s).",
            brokers.len()
        ));
    }
    if !replicas.iter().any(|broker| broker.is_active()) {
        return wrong(format!(
            "All brokers specified in the manual partition assignment for partition {index} are \
             fenced or in controlled shutdown."
        ));
    }
    Ok(partition(index, &replicas))
}

/// Finds the brokers that the user chose.
pub(super) fn check_brokers<'a>(
    image: &'a Image,
    brokers: &[i32],
) -> Result<Vec<&'a Broker>, PlacementError> {
    let wrong = |message: String| Err(PlacementError::Assignment(message));
    if brokers.is_empty() {
        return wrong("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut replicas: Vec<&Broker> = Vec::new();
    for id in brokers {
        match image.brokers().get(&NodeId(*id)) {
            None => {
                return wrong(format!(
                    "The manual partition assignment includes broker {id}, but no such broker is \
                     registered."
                ));
            }
            Some(broker) if replicas.iter().any(|known| known.id == broker.id) => {
                return wrong(format!(
                    "The manual partition assignment includes the broker {id} more than once."
                ));
            }
            Some(broker) => replicas.push(broker),
        }
    }
    Ok(replicas)
}

/// Makes a new partition; at least one of the replicas' brokers is active.
fn partition(index: i32, replicas: &[&Broker]) -> Partition {
    let isr: Vec<NodeId> =
        replicas.iter().filter(|broker| broker.is_active()).map(|broker| broker.id).collect();
    Partition {
        index,
        leader: isr.first().copied(),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        replicas: replicas.iter().map(|broker| broker.id).collect(),
        isr,
        directories: replicas.iter().map(|broker| directory_of(broker)).collect(),
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        is_recovering: false,
        eligible_leader_replicas: Vec::new(),
        last_known_eligible: Vec::new(),
    }
}

/// With one directory there is nothing to choose; with several the broker chooses and tells us.
fn directory_of(broker: &Broker) -> Uuid {
    match broker.directories.as_slice() {
        [] => directory::MIGRATING,
        [only] => *only,
        _ => directory::UNASSIGNED,
    }
}

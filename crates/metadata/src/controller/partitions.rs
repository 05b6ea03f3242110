//! Adding partitions to topics.

use std::collections::BTreeMap;

use fleuve_protocol::Str;

use super::machine::{Controller, Decision};
use super::placement::{self, PlacementError};
use crate::image::Partition;
use crate::record::Record;

/// A topic that is to have more partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MorePartitions {
    /// The topic.
    pub topic: Str,
    /// How many partitions it is to have in all.
    pub count: i32,
    /// The brokers of each new partition, chosen by hand.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Reports that a topic cannot get these partitions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreatePartitionsError {
    /// The request names the topic more than once.
    #[error("Duplicate topic name.")]
    Duplicate,
    /// There is no such topic.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// The count would not add any.
    #[error("{0}")]
    InvalidCount(String),
    /// Replicas cannot be placed as asked.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The request asks for more partitions than one request may.
    #[error("Excessively large number of partitions per request: at most {0}")]
    TooManyPartitions(usize),
}

impl Controller {
    /// Decides about more partitions; with `validate_only` none will be created.
    pub fn create_partitions(
        &self,
        topics: &[MorePartitions],
        validate_only: bool,
    ) -> Decision<Vec<Result<(), CreatePartitionsError>>> {
        let mut requested: BTreeMap<&str, usize> = BTreeMap::new();
        for topic in topics {
            *requested.entry(&topic.topic).or_default() += 1;
        }
        let mut records: Vec<Record> = Vec::new();
        let mut left = self.settings.topics.created_per_request_max;
        let decide = |wanted: &MorePartitions| {
            if requested[wanted.topic.as_str()] > 1 {
                return Err(CreatePartitionsError::Duplicate);
            }
            let known = self.image.topics().by_name(&wanted.topic);
            let topic = known.ok_or(CreatePartitionsError::UnknownTopic)?;
            let partitions = self.place_more(wanted, topic.partitions(), &mut left)?;
            records.extend(partitions.iter().map(|partition| partition.to_record(topic.id).into()));
            Ok(())
        };
        let reply = topics.iter().map(decide).collect();
        if validate_only {
            records.clear();
        }
        Decision { records, reply }
    }

    fn place_more(
        &self,
        wanted: &MorePartitions,
        existing: &[std::sync::Arc<Partition>],
        left: &mut usize,
    ) -> Result<Vec<Partition>, CreatePartitionsError> {
        let count = existing.len() as i32;
        if wanted.count == count {
            return Err(CreatePartitionsError::InvalidCount(format!(
                "Topic already has {count} partition(s)."
            )));
        }
        if wanted.count < count {
            return Err(CreatePartitionsError::InvalidCount(format!(
                "The topic {} currently has {count} partition(s); {} would not be an increase.",
                wanted.topic, wanted.count
            )));
        }
        let additional = (wanted.count - count) as usize;
        if let Some(assignments) = wanted.assignments.as_ref().filter(|a| a.len() != additional) {
            return Err(PlacementError::Assignment(format!(
                "Attempted to add {additional} additional partition(s), but only {} \
                 assignment(s) were specified.",
                assignments.len()
            ))
            .into());
        }
        let most = self.settings.topics.created_per_request_max;
        *left =
            left.checked_sub(additional).ok_or(CreatePartitionsError::TooManyPartitions(most))?;
        let factor = existing.first().map_or(1, |partition| partition.replicas.len());
        match &wanted.assignments {
            None => Ok(placement::place(&self.image, count, additional as i32, factor)?),
            Some(assignments) => assignments
                .iter()
                .zip(count..)
                .map(|(brokers, index)| {
                    placement::place_by_hand(&self.image, index, brokers, Some(factor))
                        .map_err(CreatePartitionsError::from)
                })
                .collect(),
        }
    }
}

//! The controller itself: the image it decides on, and how records reach it.

use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_protocol::messages::abort_transaction_record::AbortTransactionRecord;
use fleuve_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use fleuve_protocol::messages::feature_level_record::FeatureLevelRecord;
use fleuve_protocol::messages::partition_change_record::PartitionChangeRecord;
use fleuve_types::Uuid;

use crate::config::{BrokerSettings, ConfigMap, Layers};
use crate::image::{ApplyError, Change, ELIGIBLE_LEADERS, FeatureRange, Image};
use crate::record::Record;

/// What the controller decided: the records to append, and the reply that may leave afterwards.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "nothing happens until the records are appended and applied"]
pub struct Decision<T> {
    /// The records, to be appended as one batch; none when there is nothing to do.
    pub records: Vec<Record>,
    /// What to answer once they are durable.
    pub reply: T,
}

/// The features whose levels this release can finalize, sorted by name.
pub const SUPPORTED_FEATURES: &[(&str, FeatureRange)] = &[
    (ELIGIBLE_LEADERS, FeatureRange { min: 0, max: 1 }),
    // Level 1 is the consumer group protocol of KIP-848.
    ("group.version", FeatureRange { min: 0, max: 1 }),
    (
        crate::image::METADATA_VERSION,
        FeatureRange { min: 7, max: crate::image::METADATA_VERSION_LEVEL },
    ),
    // Level 1 is the share group protocol of KIP-932.
    ("share.version", FeatureRange { min: 0, max: 1 }),
    // Level 1 is the streams group protocol of KIP-1071.
    ("streams.version", FeatureRange { min: 0, max: 1 }),
    // Level 2 is KIP-890: each transaction has an epoch of its own.
    (crate::image::TRANSACTION_VERSION, FeatureRange { min: 0, max: 2 }),
];

/// Decides about metadata, and keeps the image that the decisions rest on.
#[derive(Debug)]
pub struct Controller {
    pub(super) image: Image,
    pub(super) settings: Arc<BrokerSettings>,
    /// The image as it was when a transaction of records began, while one is open.
    before_transaction: Option<Image>,
}

/// Says which directory a replica's broker chose for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryAssignment {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The directory.
    pub directory: Uuid,
}

impl Controller {
    /// Begins with an empty log.
    pub fn new(cluster_id: Str, settings: Arc<BrokerSettings>) -> Self {
        Self { image: Image::new(cluster_id), settings, before_transaction: None }
    }

    /// Returns the image; a clone of it is cheap and stays as it is.
    ///
    /// While a transaction of records is open, this is the image from before it.
    pub fn image(&self) -> &Image {
        self.before_transaction.as_ref().unwrap_or(&self.image)
    }

    /// Returns the settings of the broker this controller lives in.
    pub fn settings(&self) -> &Arc<BrokerSettings> {
        &self.settings
    }

    /// Applies one record of the log, live or on replay.
    pub fn apply(&mut self, record: &Record) -> Result<Change, ApplyError> {
        match record {
            Record::BeginTransaction(_) => {
                self.before_transaction = Some(self.image.clone());
            }
            Record::EndTransaction(_) => self.before_transaction = None,
            Record::AbortTransaction(_) => {
                if let Some(before) = self.before_transaction.take() {
                    self.image = before;
                }
            }
            _ => {}
        }
        self.image.apply(record)
    }

    /// Lists what a log that has just been replayed still needs before anything is decided.
    ///
    /// A new log gets the levels of its features, and the configs what those ask of them. A
    /// transaction that its writer left open, as Kafka's controller may when it crashes, is aborted.
    pub fn finish_replay(&self) -> Decision<()> {
        let mut records = Vec::new();
        if self.before_transaction.is_some() {
            let reason = Some(Str::from("left open by an earlier controller"));
            records.push(AbortTransactionRecord { reason }.into());
        }
        if self.image().features().is_empty() {
            records.extend(SUPPORTED_FEATURES.iter().map(|(name, range)| {
                FeatureLevelRecord { name: Str::from(*name), feature_level: range.max }.into()
            }));
            // Every topic shows this config, as in Kafka, though among single replicas eligible
            // leaders have nothing to decide.
            records.extend(self.min_isr_of_cluster());
        } else if self.has_eligible_leaders() {
            records.extend(self.min_isr_of_cluster());
        }
        Decision { records, reply: () }
    }

    /// Records the directories that the broker of this node chose for its replicas.
    ///
    /// Assignments that are recorded already, or of partitions that are gone, need no record.
    pub fn assign_directories(&self, assignments: &[DirectoryAssignment]) -> Decision<()> {
        let node = self.settings.node.id;
        let records = assignments.iter().filter_map(|assignment| {
            let topic = self.image.topics().by_id(assignment.topic_id)?;
            let partition = topic.partition(assignment.partition)?;
            let position = partition.replicas.iter().position(|replica| *replica == node)?;
            let mut directories = partition.directories.clone();
            let known = directories.get_mut(position)?;
            if *known == assignment.directory {
                return None;
            }
            *known = assignment.directory;
            let change = PartitionChangeRecord {
                partition_id: assignment.partition,
                topic_id: assignment.topic_id,
                directories: Some(directories),
                ..PartitionChangeRecord::default()
            };
            Some(change.into())
        });
        Decision { records: records.collect(), reply: () }
    }

    /// Records which of this node's data directories take no new partitions.
    pub fn cordon_directories(&self, cordoned: &[Uuid]) -> Decision<()> {
        let known = self.image.brokers().get(&self.settings.node.id);
        let changed = known.filter(|broker| broker.cordoned_directories != cordoned);
        let record = changed.map(|broker| BrokerRegistrationChangeRecord {
            broker_id: broker.id.0,
            broker_epoch: broker.epoch,
            cordoned_log_dirs: Some(cordoned.to_vec()),
            ..BrokerRegistrationChangeRecord::default()
        });
        Decision { records: record.into_iter().map(Record::from).collect(), reply: () }
    }

    /// Calls `judge` with the layers of broker configs that are in force on this node.
    pub(super) fn with_layers<T>(&self, judge: impl FnOnce(&Layers<'_>) -> T) -> T {
        let node: Arc<ConfigMap> = self.image.broker_configs(self.settings.node.id);
        let cluster: Arc<ConfigMap> = self.image.cluster_configs();
        judge(&self.settings.layers(&node, &cluster))
    }
}

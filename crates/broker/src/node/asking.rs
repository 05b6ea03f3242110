//! What a broker asks of the controller, and what it waits for before it says that it is done.

use std::sync::Arc;

use fleuve_coordinator::transaction::ProducerIds;
use fleuve_metadata::config::{ConfigMap, why_without_effect};
use fleuve_metadata::controller::{
    AlterConfigsError, ConfigReplacement, ConfigUpdate, Controller, Decision, DirectoryAssignment,
    MorePartitions, NewTopic, TopicSelector,
};
use fleuve_metadata::image::{Image, ResourceKind};
use fleuve_metadata::record::Record;
use fleuve_protocol::Str;
use fleuve_types::{NodeId, Uuid};

use super::Node;
use crate::groups::OFFSETS_TOPIC;
use crate::listening;
use crate::metadata_log::{
    AlterConfigsResults, AutoCreateError, Changing, CreatePartitionsResults, CreateTopicResults,
    DeleteTopicResults, MetadataError,
};
use crate::partition::Partition;
use crate::share::STATE_TOPIC;
use crate::transactions::TRANSACTION_TOPIC;

impl Node {
    /// Creates topics, or says what would come of it.
    pub(crate) async fn create_topics(
        self: &Arc<Self>,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> CreateTopicResults {
        let random = Arc::clone(&self.random);
        self.change(move |controller| controller.create_topics(&topics, validate_only, &*random))
            .await
    }

    /// Creates a topic that somebody asked about, unless it has come into being meanwhile.
    pub(crate) async fn auto_create_topic(
        self: &Arc<Self>,
        name: &Str,
    ) -> Result<(), AutoCreateError> {
        if **name == *OFFSETS_TOPIC {
            return self.create_offsets_topic().await;
        }
        if **name == *TRANSACTION_TOPIC {
            return self.create_transaction_topic().await;
        }
        if **name == *STATE_TOPIC {
            return self.create_share_state_topic().await;
        }
        self.create_missing_topic(NewTopic {
            name: name.detach(),
            partitions: -1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        })
        .await
    }

    /// Creates the topic that keeps groups and offsets, unless it exists.
    pub(crate) async fn create_offsets_topic(self: &Arc<Self>) -> Result<(), AutoCreateError> {
        let settings = self.settings();
        let value = |text: String| Some(Str::from(text));
        self.create_missing_topic(NewTopic {
            name: Str::from(OFFSETS_TOPIC),
            partitions: settings.offsets.topic_partitions,
            // More replicas than brokers cannot be had, and a single broker must do.
            replication_factor: settings
                .offsets
                .topic_replication_factor
                .min(self.image().brokers().len() as i16),
            assignments: Vec::new(),
            configs: vec![
                (Str::from("cleanup.policy"), value("compact".to_owned())),
                (Str::from("compression.type"), value("producer".to_owned())),
                (
                    Str::from("segment.bytes"),
                    value(settings.offsets.topic_segment_bytes.to_string()),
                ),
            ],
        })
        .await
    }

    /// Creates the topic that keeps transactional ids, unless it exists.
    pub(crate) async fn create_transaction_topic(self: &Arc<Self>) -> Result<(), AutoCreateError> {
        let settings = self.settings().transactions;
        let config = |key: &'static str, value: String| (Str::from(key), Some(Str::from(value)));
        self.create_missing_topic(NewTopic {
            name: Str::from(TRANSACTION_TOPIC),
            partitions: settings.topic_partitions,
            replication_factor: settings
                .topic_replication_factor
                .min(self.image().brokers().len() as i16),
            assignments: Vec::new(),
            configs: vec![
                config("unclean.leader.election.enable", "false".to_owned()),
                config("compression.type", "uncompressed".to_owned()),
                config("cleanup.policy", "compact".to_owned()),
                config("min.insync.replicas", settings.topic_min_isr.to_string()),
                config("segment.bytes", settings.topic_segment_bytes.to_string()),
            ],
        })
        .await
    }

    /// Creates the topic that keeps what share groups did with records, unless it exists.
    pub(crate) async fn create_share_state_topic(self: &Arc<Self>) -> Result<(), AutoCreateError> {
        let settings = self.settings();
        let share = &settings.share_groups;
        let value = |text: &str| Some(Str::copy_from(text));
        self.create_missing_topic(NewTopic {
            name: Str::from(STATE_TOPIC),
            partitions: share.topic_partitions,
            // More replicas than brokers cannot be had, and a single broker must do.
            replication_factor: share
                .topic_replication_factor
                .min(self.image().brokers().len() as i16),
            assignments: Vec::new(),
            configs: vec![
                // Records are deleted when snapshots have made them redundant, and not before.
                (Str::from("cleanup.policy"), value("delete")),
                (Str::from("compression.type"), value("producer")),
                (Str::from("retention.ms"), value("-1")),
                (Str::from("segment.bytes"), value(&share.topic_segment_bytes.to_string())),
            ],
        })
        .await
    }

    async fn create_missing_topic(
        self: &Arc<Self>,
        topic: NewTopic,
    ) -> Result<(), AutoCreateError> {
        use fleuve_metadata::controller::CreateTopicError;
        let results = self.create_topics(vec![topic], false).await?;
        for result in results {
            match result {
                Ok(_) | Err(CreateTopicError::Exists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Deletes topics.
    pub(crate) async fn delete_topics(
        self: &Arc<Self>,
        selectors: Vec<TopicSelector>,
    ) -> DeleteTopicResults {
        self.change(move |controller| controller.delete_topics(&selectors)).await
    }

    /// Adds partitions to topics.
    pub(crate) async fn create_partitions(
        self: &Arc<Self>,
        topics: Vec<MorePartitions>,
        validate_only: bool,
    ) -> CreatePartitionsResults {
        self.change(move |controller| controller.create_partitions(&topics, validate_only)).await
    }

    /// Changes single configs.
    pub(crate) async fn incremental_alter_configs(
        self: &Arc<Self>,
        updates: Vec<ConfigUpdate>,
        validate_only: bool,
    ) -> AlterConfigsResults {
        self.change_configs(validate_only, move |controller, validate_only| {
            controller.incremental_alter_configs(&updates, validate_only)
        })
        .await
    }

    /// Replaces whole sets of configs.
    pub(crate) async fn alter_configs(
        self: &Arc<Self>,
        replacements: Vec<ConfigReplacement>,
        validate_only: bool,
    ) -> AlterConfigsResults {
        self.change_configs(validate_only, move |controller, validate_only| {
            controller.alter_configs(&replacements, validate_only)
        })
        .await
    }

    /// Changes configs, unless this broker could not live with them, and sees to it that its
    /// listeners follow.
    async fn change_configs(
        self: &Arc<Self>,
        validate_only: bool,
        decide: impl Fn(&Controller, bool) -> Decision<Vec<Result<(), AlterConfigsError>>>
        + Send
        + Sync
        + 'static,
    ) -> AlterConfigsResults {
        let image = self.image();
        let mut node_configs = ConfigMap::clone(&image.broker_configs(NodeId(self.id)));
        let mut concerns_this_broker = false;
        let proposed = decide(self.metadata.begin().await.controller(), false);
        let own_name = self.id.to_string();
        for record in &proposed.records {
            if let Record::Config(config) = record
                && config.resource_type == ResourceKind::Broker.wire_id()
                && *config.resource_name == *own_name
            {
                concerns_this_broker = true;
                let key: Arc<str> = Arc::from(config.name.as_str());
                match &config.value {
                    Some(value) => node_configs.insert(key, Arc::from(value.as_str())),
                    None => node_configs.remove(&key),
                };
            }
        }
        let concerns_brokers = proposed.records.iter().any(|record| {
            matches!(record, Record::Config(config)
                if config.resource_type == ResourceKind::Broker.wire_id())
        });
        // Also when it says what is so already: the files that it names may have changed.
        if concerns_this_broker {
            let refused = self.check_configs(&image, &node_configs).await;
            if let Err(message) = refused {
                // What it was asked along with is not done either: it is one request.
                return Ok(proposed
                    .reply
                    .into_iter()
                    .map(|result| {
                        result.and(Err(AlterConfigsError::InvalidConfig(message.clone())))
                    })
                    .collect());
            }
        }
        let mut results = self.change(move |controller| decide(controller, validate_only)).await?;
        if !validate_only {
            proposed.records.iter().for_each(warn_of_no_effect);
        }
        if concerns_brokers
            && !validate_only
            && let Err(message) = self.settle_listeners().await
        {
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(AlterConfigsError::InvalidConfig(message.clone()));
            }
        }
        Ok(results)
    }

    /// Checks that this broker's listeners would work with these configs.
    async fn check_configs(&self, image: &Image, node_configs: &ConfigMap) -> Result<(), String> {
        let cluster_configs = image.cluster_configs();
        let statics = &self.static_settings;
        let wanted = statics.listeners_with(node_configs, &cluster_configs);
        let wanted = wanted.map_err(|error| error.to_string())?;
        listening::check(self, statics, &wanted).await
    }

    /// Sees to it that the block of producer ids is not empty.
    pub(crate) async fn refill_producer_ids(self: &Arc<Self>) -> Result<(), MetadataError> {
        if self.producer_ids.is_empty() {
            let (node, epoch) = (NodeId(self.id), self.broker_epoch);
            let block = self
                .change(move |controller| controller.allocate_producer_ids(node, epoch))
                .await?;
            let block = block.ok_or(MetadataError::Stopped)?;
            self.producer_ids.refill(block.first.0..block.first.0 + block.count);
        }
        Ok(())
    }

    /// A producer id that nobody has, from a new block if need be.
    pub(crate) async fn allocate_producer_id(self: &Arc<Self>) -> Result<i64, MetadataError> {
        loop {
            if let Some(id) = self.producer_ids.next() {
                return Ok(id.0);
            }
            self.refill_producer_ids().await?;
        }
    }

    /// Fetches blocks of producer ids whenever one is used up, until the future is dropped.
    pub(crate) async fn keep_producer_ids(self: &Arc<Self>) {
        loop {
            self.producer_ids.wanted().await;
            if let Err(error) = self.refill_producer_ids().await {
                tracing::warn!(%error, "no producer ids can be had");
            }
        }
    }

    /// Asks the controller for a decision, makes it come true, and does what follows from it.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnOnce(&Controller) -> Decision<T> + Send + 'static,
    ) -> Result<T, MetadataError> {
        let node = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut changing = node.metadata.begin().await;
            let decision = decide(changing.controller());
            let (reply, changes) = changing.carry_out(decision).await?;
            if !changes.is_empty() {
                let node = Arc::clone(&node);
                // Directories and files are made here, which may take a while.
                let follower = Arc::clone(&node);
                let followed = tokio::task::spawn_blocking(move || follower.follow(changes));
                followed.await.map_err(|_| MetadataError::Stopped)?;
                node.report_directories_in(&mut changing).await?;
            }
            Ok(reply)
        });
        task.await.map_err(|_| MetadataError::Stopped)?
    }

    /// Writes down where partitions lie that had the choice, and which directories are cordoned.
    pub(crate) async fn report_directories(&self) -> Result<(), MetadataError> {
        self.report_directories_in(&mut self.metadata.begin().await).await
    }

    async fn report_directories_in(
        &self,
        changing: &mut Changing<'_>,
    ) -> Result<(), MetadataError> {
        let chosen = std::mem::take(&mut *self.logs.chosen.lock());
        let mut decision = changing.controller().assign_directories(&chosen);
        let cordoned = self.logs.cordoned_ids();
        decision.records.extend(changing.controller().cordon_directories(&cordoned).records);
        changing.carry_out(decision).await.map(|_| ())
    }

    /// Writes down that a partition lies in another directory now.
    pub(crate) async fn note_directory(&self, partition: &Partition, directory: Uuid) {
        let name = partition.name();
        let Some(topic) = self.topics.by_name(&name.topic) else { return };
        self.logs.chosen.lock().push(DirectoryAssignment {
            topic_id: topic.id,
            partition: name.partition,
            directory,
        });
        if let Err(error) = self.report_directories().await {
            tracing::error!(partition = %name, %error, "its new directory is not written down");
        }
    }
}

/// Writes to the log that a config of brokers was set which does nothing here: the client that set
/// it has no place to hear of it.
fn warn_of_no_effect(record: &Record) {
    let Record::Config(config) = record else { return };
    if config.resource_type == ResourceKind::Broker.wire_id()
        && let Some(value) = &config.value
        && let Some(reason) = why_without_effect(&config.name, value)
    {
        tracing::warn!(key = %config.name, reason, "a configuration was set that has no effect");
    }
}

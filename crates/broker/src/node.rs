//! What all requests of a broker share.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fleuve_coordinator::offsets::DeletedTopic as ForgottenTopic;
use fleuve_coordinator::transaction::ProducerIds;
use fleuve_metadata::checkpoint::Voter;
use fleuve_metadata::config::{BrokerSettings, ConfigMap, Role, why_without_effect};
use fleuve_metadata::controller::{
    AlterConfigsError, ConfigReplacement, ConfigUpdate, Controller, Decision, DirectoryAssignment,
    MorePartitions, NewTopic, TokenSettings, TopicSelector,
};
use fleuve_metadata::image::{
    Change, Image, Resource, ResourceKind, Topic as TopicImage, directory,
};
use fleuve_metadata::record::Record;
use fleuve_os::{Clock, Random};
use fleuve_protocol::Str;
use fleuve_security::CertificateNames;
use fleuve_storage::LogConfig;
use fleuve_types::{NodeId, TopicPartition, Uuid};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::access::Access;
use crate::authentication::Present;
use crate::compaction::Compaction;
use crate::connection::{Budget, ConnectionGate};
use crate::fetch_session::SessionCache;
use crate::group_settings::{group_configs, group_settings};
use crate::group_topics::ImageTopics;
use crate::groups::{Groups, OFFSETS_TOPIC, Shard};
use crate::lags::Lags;
use crate::listening::{self, Wish};
use crate::log_config::log_config_of;
use crate::log_levels::LogLevels;
use crate::logs::{Logs, WantedLog};
use crate::metadata_log::{
    AlterConfigsResults, AutoCreateError, Changing, CreatePartitionsResults, CreateTopicResults,
    DeleteTopicResults, MetadataError, MetadataLog,
};
use crate::metrics::{
    Authentications, Counter, Distribution, Endings, RequestCounters, TopicCounters,
};
use crate::partition::{Partition, Surroundings};
use crate::producer_ids::ProducerIdBlock;
use crate::purgatory::{AckWait, Purgatory};
use crate::quotas::Quotas;
use crate::request_log::RequestLog;
use crate::share::{STATE_TOPIC, Shares, StateShard};
use crate::streams_topics::StreamsTopics;
use crate::telemetry::Telemetry;
use crate::topics::{Topic, Topics, is_internal};
use crate::transaction_settings::transaction_settings;
use crate::transactions::{TRANSACTION_TOPIC, Transactions};

/// Where clients of one listener are told to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: Str,
    pub(crate) port: i32,
}

/// A listener, as requests and metrics see it.
#[derive(Debug)]
pub(crate) struct ListenerState {
    pub(crate) name: String,
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) authentications: Authentications,
    /// Whose certificate it shows, which decides what may take its place.
    pub(crate) certificate: Mutex<Option<CertificateNames>>,
    role: Role,
    endpoint: Endpoint,
    is_closed: AtomicBool,
}

impl ListenerState {
    /// Begins without connections.
    pub(crate) fn new(name: &str, role: Role, endpoint: Endpoint) -> Self {
        Self {
            name: name.to_owned(),
            opened: Counter::default(),
            closed: Counter::default(),
            authentications: Authentications::default(),
            certificate: Mutex::default(),
            role,
            endpoint,
            is_closed: AtomicBool::new(false),
        }
    }

    /// Reports whether connections are accepted under this name.
    pub(crate) fn is_open_as(&self, name: &str) -> bool {
        !self.is_closed.load(Ordering::Relaxed) && self.name == name
    }

    /// Notes that nobody can connect to it any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

/// A log that somebody's state has to be read from.
#[derive(Debug)]
pub(crate) enum Unread {
    /// Groups and offsets.
    Groups(Arc<Shard>),
    /// What share groups did with records.
    ShareStates(Arc<StateShard>),
}

/// The state of a broker.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) rack: Option<Str>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) sessions: SessionCache,
    pub(crate) purgatory: Arc<Purgatory>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) shares: Shares,
    pub(crate) metadata: MetadataLog,
    /// What clients push about themselves.
    pub(crate) telemetry: Telemetry,
    /// This node as a voter of the metadata quorum.
    pub(crate) voter: Voter,
    pub(crate) logs: Logs,
    pub(crate) surroundings: Surroundings,
    /// Sums over all topics.
    pub(crate) counters: TopicCounters,
    /// In the order of the table of APIs.
    pub(crate) request_counters: Vec<RequestCounters>,
    pub(crate) request_log: RequestLog,
    /// What is written to the process's log, if anybody may know.
    pub(crate) log_levels: Option<Arc<dyn LogLevels>>,
    /// How long flushes took.
    pub(crate) flush_times: Arc<Distribution>,
    pub(crate) lags: Arc<Lags>,
    /// By the index of the listener; those that are closed stay, so that indexes do.
    pub(crate) listeners: RwLock<Vec<Arc<ListenerState>>>,
    /// Where the HTTP door is, if it is open, once that is known.
    pub(crate) http_door: OnceLock<Option<SocketAddr>>,
    /// Who may connect.
    pub(crate) gate: Arc<ConnectionGate>,
    /// The memory of requests.
    pub(crate) request_budget: Arc<Budget>,
    /// Requests that were refused because they would create too many partitions.
    pub(crate) oversized_requests: Counter,
    /// Why connections have ended.
    pub(crate) endings: Endings,
    /// Batches that were refused because they decompress to too much.
    pub(crate) bombs: Counter,
    /// Answers that ended early because a log could not be read.
    pub(crate) read_failures: Counter,
    /// Takes wishes that the listeners be looked at.
    pub(crate) wish: mpsc::UnboundedSender<Wish>,
    /// The number of this broker's registration.
    pub(crate) broker_epoch: i64,
    /// What the operator wrote, without dynamic configs.
    pub(crate) static_settings: Arc<BrokerSettings>,
    pub(crate) settings: RwLock<Arc<BrokerSettings>>,
    /// Who may do what; `None` lets everybody do everything.
    pub(crate) access: Option<Access>,
    /// How delegation tokens are made, if they are.
    pub(crate) tokens: Option<TokenSettings>,
    /// Internal topics of streams applications that are being created.
    pub(crate) streams_topics: StreamsTopics,
    pub(crate) producer_ids: Arc<ProducerIdBlock>,
    pub(crate) quotas: Quotas,
    pub(crate) compaction: Compaction,
    pub(crate) stopping: AtomicBool,
}

impl Node {
    /// The cluster as of the last change.
    pub(crate) fn image(&self) -> Arc<Image> {
        self.metadata.image()
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<BrokerSettings> {
        Arc::clone(&self.settings.read())
    }

    /// What messages of authentication are judged by.
    pub(crate) fn present<'a>(&'a self, image: &'a Image) -> Present<'a> {
        Present { image, now_ms: self.clock.wall_ms(), tokens: self.tokens.as_ref() }
    }

    /// How long somebody who failed to authenticate waits for the answer.
    pub(crate) fn failed_authentication_delay(&self) -> Duration {
        Duration::from_millis(self.static_settings.network.failed_authentication_delay_ms)
    }

    /// The address that clients of a listener are told.
    pub(crate) fn endpoint(&self, listener: usize) -> Endpoint {
        self.listeners.read()[listener].endpoint.clone()
    }

    /// The listeners of the broker, or of the controller, that are open, with the addresses that
    /// clients are told.
    pub(crate) fn open_listeners(&self, role: Role) -> Vec<(String, Endpoint)> {
        let listeners = self.listeners.read();
        let of_role = listeners.iter().filter(|it| it.role == role);
        let open = of_role.filter(|it| !it.is_closed.load(Ordering::Relaxed));
        open.map(|it| (it.name.clone(), it.endpoint.clone())).collect()
    }

    /// Brings the listeners in line with the settings in force.
    pub(crate) async fn settle_listeners(&self) -> Result<(), String> {
        let (wish, settled) = oneshot::channel();
        let stopping = || "the broker is stopping".to_owned();
        self.wish.send(wish).map_err(|_| stopping())?;
        settled.await.map_err(|_| stopping())?
    }

    /// Reports whether access is controlled at all.
    pub(crate) fn has_authorizer(&self) -> bool {
        self.access.is_some()
    }

    /// Reports whether the broker is on its way down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

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
        let before = node_configs.clone();
        let proposed = decide(self.metadata.begin().await.controller(), false);
        let own_name = self.id.to_string();
        for record in &proposed.records {
            if let Record::Config(config) = record
                && config.resource_type == ResourceKind::Broker.wire_id()
                && *config.resource_name == *own_name
            {
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
        if node_configs != before {
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

    /// Opens the logs of every topic in the image and returns the groups to load.
    pub(crate) fn open_all_topics(&self) -> Vec<Unread> {
        self.show_topics_to_groups();
        let shards =
            self.image().topics().iter().flat_map(|topic| self.open_topic(topic)).collect();
        self.logs.remove_strays();
        shards
    }

    /// Waits until the records that a killed process left in the page cache are durable.
    ///
    /// They may have been acknowledged, so the high watermark must not be below them when the
    /// first consumer asks.
    pub(crate) async fn make_recovered_records_durable(&self) {
        let recovered: Vec<_> = self
            .all_partitions()
            .into_iter()
            .filter(|partition| partition.high_watermark() < partition.log_end_offset())
            .collect();
        let wait = AckWait::new(&self.purgatory, recovered.len());
        for partition in &recovered {
            partition.wait_for(partition.log_end_offset(), &wait);
        }
        wait.done().await;
    }

    /// Loads groups and the states of share groups from their logs; blocks.
    pub(crate) fn load_groups(&self, unread: Vec<Unread>) {
        let (states, groups): (Vec<Unread>, Vec<Unread>) =
            unread.into_iter().partition(|unread| matches!(unread, Unread::ShareStates(_)));
        // Groups may have errands for the states as soon as they are loaded.
        for shard in states.into_iter().chain(groups) {
            let loaded = match &shard {
                Unread::Groups(shard) => self.groups.load(shard),
                Unread::ShareStates(shard) => self.shares.states.load(shard),
            };
            if let Err(error) = loaded {
                tracing::error!(%error, "groups cannot be loaded");
            }
        }
        // After the groups, which markers may be for.
        self.transactions.load_new();
    }

    /// Deletes what no retention keeps; blocks.
    pub(crate) fn enforce_retention(&self) {
        for topic in self.topics.all() {
            for partition in &topic.partitions {
                if let Err(error) = partition.enforce_retention() {
                    tracing::error!(partition = %partition.name(), %error, "retention failed");
                }
            }
        }
    }

    /// Forgets idle producers.
    pub(crate) fn expire_producers(&self) {
        for topic in self.topics.all() {
            topic.partitions.iter().for_each(|partition| partition.expire_producers());
        }
    }

    /// Looks how much room the disks have left, and has flushes tried again that found none; blocks.
    pub(crate) fn look_for_space(&self) {
        self.logs.reserve.look();
        self.metadata.partition().flush_if_unflushed();
        for topic in self.topics.all() {
            topic.partitions.iter().for_each(Partition::flush_if_unflushed);
        }
    }

    /// Flushes what has waited for longer than `flush.ms`.
    pub(crate) fn flush_by_time(&self) {
        let now_ms = self.clock.wall_ms();
        for topic in self.topics.all() {
            topic.partitions.iter().for_each(|partition| partition.flush_if_due(now_ms));
        }
    }

    /// Writes a checkpoint of the metadata when it is time; blocks.
    pub(crate) fn keep_metadata_checkpoints(&self) {
        let settings = &self.static_settings.metadata_log;
        let place = self.logs.metadata_place();
        if let Err(error) = self.metadata.keep_checkpoints(place, settings, &self.voter) {
            tracing::error!(%error, "the metadata has no new checkpoint; its log goes on");
        }
    }

    /// Writes down from where recovery has to look; blocks.
    pub(crate) fn checkpoint_logs(&self) {
        if let Err(error) = self.logs.checkpoint(self.metadata.partition(), &self.all_partitions())
        {
            tracing::error!(%error, "checkpoints are not written");
        }
    }

    /// Writes down up to where logs have been compacted; blocks.
    pub(crate) fn store_cleaner_offsets(&self) {
        if let Err(error) = self.logs.store_cleaner_offsets(&self.all_partitions()) {
            tracing::error!(%error, "offsets of compaction are not written; some is done again");
        }
    }

    /// Removes files whose deletion delay is over; blocks.
    pub(crate) fn remove_deleted_files(&self) {
        if let Err(error) = self.logs.remove_deleted_files() {
            tracing::error!(%error, "deleted files are not removed");
        }
    }

    /// Makes everything durable and closes all logs; blocks.
    pub(crate) fn close_logs(&self) {
        if let Err(error) = self.logs.close(self.metadata.partition(), self.all_partitions()) {
            tracing::error!(%error, "logs are not closed; the next start will check them");
        }
    }

    fn all_partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.all().iter().flat_map(|topic| topic.partitions.iter().cloned()).collect()
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

    /// Does what changes of the image ask of this broker; blocks.
    fn follow(&self, changes: Vec<Change>) {
        let image = self.image();
        let mut grown: BTreeSet<Uuid> = BTreeSet::new();
        let mut reconfigured: BTreeSet<Resource> = BTreeSet::new();
        if changes.iter().any(|change| matches!(change, Change::QuotaChanged(_))) {
            self.quotas.take(image.quotas());
            self.gate.take_quotas(image.quotas());
        }
        let concerns_groups = |change: &Change| {
            matches!(
                change,
                Change::TopicCreated(_)
                    | Change::PartitionCreated(..)
                    | Change::PartitionChanged(..)
                    | Change::TopicRemoved(_)
                    | Change::BrokerChanged(_)
            )
        };
        let concerns_access =
            |change: &Change| matches!(change, Change::AclAdded(_) | Change::AclRemoved(_));
        if let Some(access) = &self.access
            && changes.iter().any(concerns_access)
        {
            access.show(&image);
        }
        if changes.iter().any(concerns_groups) {
            self.show_topics_to_groups();
        }
        for change in changes {
            match change {
                Change::TopicCreated(id) | Change::PartitionCreated(id, _) => {
                    grown.insert(id);
                }
                Change::PartitionChanged(id, index) => self.follow_leadership(&image, id, index),
                Change::TopicRemoved(topic) => self.remove_topic(&topic),
                Change::ConfigChanged(resource) => {
                    reconfigured.insert(resource);
                }
                Change::FeatureChanged(_) => self.take_transaction_settings(&image),
                Change::BrokerChanged(_)
                | Change::QuotaChanged(_)
                | Change::CredentialChanged(_)
                | Change::AclAdded(_)
                | Change::AclRemoved(_)
                | Change::TokenChanged(_)
                | Change::Nothing => {}
            }
        }
        for id in grown {
            if let Some(topic) = image.topics().by_id(id) {
                let shards = self.open_topic(topic);
                self.load_groups(shards);
            }
        }
        if reconfigured.iter().any(|resource| resource.kind == ResourceKind::Group) {
            self.take_group_settings(&image);
        }
        if reconfigured.iter().any(|resource| resource.kind == ResourceKind::Broker) {
            self.take_dynamic_settings(&image);
            for topic in image.topics().iter() {
                self.reconfigure(&image, &topic.name);
            }
        } else {
            for resource in reconfigured.iter().filter(|r| r.kind == ResourceKind::Topic) {
                self.reconfigure(&image, &resource.name);
            }
        }
    }

    /// Lets consumer groups see the topics as they are now.
    fn show_topics_to_groups(&self) {
        self.groups.show_topics(|version| Arc::new(ImageTopics::new(self.image(), version)));
    }

    fn follow_leadership(&self, image: &Image, id: Uuid, index: i32) {
        let changed = image.topics().by_id(id).and_then(|topic| topic.partition(index));
        let held = self.topics.by_id(&id);
        let held = held.as_ref().and_then(|topic| topic.partition(index));
        if let (Some(changed), Some(held)) = (changed, held) {
            held.set_leader_epoch(changed.leader_epoch.0);
        }
    }

    /// Puts the dynamic configs of the image in force.
    pub(crate) fn take_dynamic_settings(&self, image: &Image) {
        let node_configs = image.broker_configs(NodeId(self.id));
        let cluster_configs = image.cluster_configs();
        match self.static_settings.with_dynamic(&node_configs, &cluster_configs) {
            Ok(settings) => {
                self.logs.cordon(&settings, &node_configs, &cluster_configs);
                *self.settings.write() = Arc::new(settings);
            }
            Err(error) => tracing::error!(%error, "dynamic configs are not in force"),
        }
        self.take_group_settings(image);
        self.take_transaction_settings(image);
    }

    /// Shows transaction coordinators the settings in force and the protocol of the cluster.
    fn take_transaction_settings(&self, image: &Image) {
        self.transactions.set_settings(transaction_settings(&self.settings(), image));
    }

    /// Shows group coordinators the settings in force and what is set on single groups.
    fn take_group_settings(&self, image: &Image) {
        let configs = group_configs(&self.static_settings, image, self.id);
        self.groups.set_rules(group_settings(&self.settings()), configs);
    }

    fn log_config(&self, image: &Image, topic: &str) -> Arc<LogConfig> {
        log_config_of(&self.static_settings, image, topic)
    }

    fn reconfigure(&self, image: &Image, name: &str) {
        if let Some(topic) = self.topics.by_name(name) {
            let config = self.log_config(image, name);
            for partition in &topic.partitions {
                partition.set_config(Arc::clone(&config));
            }
        }
    }

    /// Opens the logs of a topic's partitions that are not open yet, and returns the groups in
    /// them, which have to be loaded.
    fn open_topic(&self, image_topic: &TopicImage) -> Vec<Unread> {
        let image = self.image();
        let known = self.topics.by_id(&image_topic.id);
        let config = self.log_config(&image, &image_topic.name);
        let mut partitions = known.as_ref().map_or(Vec::new(), |topic| topic.partitions.clone());
        let topic_name: Arc<str> = match partitions.first() {
            Some(first) => Arc::clone(&first.name().topic),
            None => Arc::from(image_topic.name.as_str()),
        };
        let missing = &image_topic.partitions()[partitions.len()..];
        let opened = in_parallel(missing, |partition| {
            let name = TopicPartition::new(Arc::clone(&topic_name), partition.index);
            let position = partition.replicas.iter().position(|replica| replica.0 == self.id);
            let assigned = position.and_then(|position| partition.directories.get(position));
            let wanted = WantedLog {
                name: &name,
                topic_id: image_topic.id,
                assigned: assigned.copied().unwrap_or(directory::UNASSIGNED),
                config: Arc::clone(&config),
            };
            let log = self.logs.open_log(wanted);
            (partition, name, log)
        });
        for (partition, name, log) in opened {
            let leader_epoch = partition.leader_epoch.0;
            let log = match log {
                Ok(log) => log,
                Err(error) => {
                    tracing::error!(partition = %name, %error, "a partition cannot be opened");
                    let offline = Partition::offline(name, leader_epoch, &self.surroundings);
                    partitions.push(Arc::new(offline));
                    continue;
                }
            };
            let needs_flush = log.needs_flush();
            let opened = Arc::new(Partition::new(log, leader_epoch, &self.surroundings));
            if let Some(future) = self.logs.take_future(&name) {
                opened.resume_move(future);
                self.logs.moves_asked.notify_one();
            }
            if needs_flush {
                // What a killed process left in the page cache is not durable yet.
                opened.request_flush();
            }
            partitions.push(opened);
        }
        let topic = self.topics.insert(Topic {
            name: image_topic.name.clone(),
            id: image_topic.id,
            internal: is_internal(&image_topic.name),
            partitions,
            counters: known.map_or_else(Arc::default, |topic| Arc::clone(&topic.counters)),
        });
        if *topic.name == *OFFSETS_TOPIC {
            let shards = self.groups.adopt(&topic.partitions);
            return shards.into_iter().map(Unread::Groups).collect();
        }
        if *topic.name == *STATE_TOPIC {
            let shards = self.shares.states.adopt(&topic.partitions);
            return shards.into_iter().map(Unread::ShareStates).collect();
        }
        if *topic.name == *TRANSACTION_TOPIC {
            self.transactions.adopt(&topic.partitions);
        }
        Vec::new()
    }

    fn remove_topic(&self, removed: &TopicImage) {
        let Some(topic) = self.topics.remove(&removed.id) else { return };
        for partition in &topic.partitions {
            if let Err(error) = self.logs.remove_log(partition) {
                tracing::error!(partition = %partition.name(), %error, "a log cannot be removed");
            }
        }
        if *topic.name == *OFFSETS_TOPIC {
            self.groups.abandon();
        } else if *topic.name == *TRANSACTION_TOPIC {
            self.transactions.abandon();
        } else if *topic.name == *STATE_TOPIC {
            self.shares.states.abandon();
            self.shares.retire_all();
        } else {
            self.shares.retire_topic(topic.id);
            self.shares.states.forget_topic(topic.id);
            let name = topic.name.clone();
            self.groups.forget_topics(&[ForgottenTopic { name, topic_id: topic.id }]);
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

/// Threads that open the logs of one topic. Making a log waits for the disk several times, and
/// the file system serves several waiting threads with one commit.
const OPENING_THREADS: usize = 8;

/// Does `work` on each item, on several threads if there are many, and keeps the order.
fn in_parallel<'a, I: Sync, O: Send>(items: &'a [I], work: impl Fn(&'a I) -> O + Sync) -> Vec<O> {
    let share = items.len().div_ceil(OPENING_THREADS).max(1);
    if items.len() <= 1 {
        return items.iter().map(work).collect();
    }
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Vec<O>>()))
            .collect();
        let done = threads.into_iter().flat_map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.collect()
    })
}

//! What the metadata has a broker do: open and remove logs, load groups, and live by settings.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleuve_coordinator::offsets::DeletedTopic as ForgottenTopic;
use fleuve_metadata::image::{
    Change, Image, Resource, ResourceKind, Topic as TopicImage, directory,
};
use fleuve_storage::LogConfig;
use fleuve_types::{NodeId, TopicPartition, Uuid};

use super::{Node, Unread};
use crate::group_settings::{group_configs, group_settings};
use crate::group_topics::ImageTopics;
use crate::groups::OFFSETS_TOPIC;
use crate::log_config::log_config_of;
use crate::logs::WantedLog;
use crate::partition::Partition;
use crate::share::STATE_TOPIC;
use crate::topics::{Topic, is_internal};
use crate::transaction_settings::transaction_settings;
use crate::transactions::TRANSACTION_TOPIC;

impl Node {
    /// Opens the logs of every topic in the image and returns the groups to load.
    pub(crate) fn open_all_topics(&self) -> Vec<Unread> {
        self.show_topics_to_groups();
        let image = self.image();
        let shards = image.topics().iter().flat_map(|topic| self.open_topic(topic)).collect();
        self.logs.set_strays_aside(&image);
        shards
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

    /// Does what changes of the image ask of this broker; blocks.
    pub(super) fn follow(&self, changes: Vec<Change>) {
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
        let removes_topics = changes.iter().any(|it| matches!(it, Change::TopicRemoved(_)));
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
        if removes_topics && let Err(error) = self.logs.manager().sync() {
            // After a power failure the next start would set aside logs that belong to nobody.
            tracing::warn!(%error, "the deletion of topics may not be durable");
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
            if let Some(future) = self.logs.take_future(&name, image_topic.id) {
                // Before anybody writes to the log, who might write what the copy had from before.
                if let Err(error) = opened.resume_move(self.logs.manager(), future) {
                    tracing::warn!(partition = %name, %error, "cannot go on with its copy");
                }
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

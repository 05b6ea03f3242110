//! Records that rebuild an image: what a checkpoint of the metadata log holds.

use fleuve_protocol::Str;
use fleuve_protocol::messages::config_record::ConfigRecord;
use fleuve_protocol::messages::feature_level_record::FeatureLevelRecord;
use fleuve_protocol::messages::producer_ids_record::ProducerIdsRecord;
use fleuve_protocol::messages::topic_record::TopicRecord;

use super::apply::{Image, METADATA_VERSION};
use crate::record::Record;

impl Image {
    /// Lists the records that make this image out of an empty one, in Kafka's order.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> {
        self.feature_records()
            .chain(self.cluster_records())
            .chain(self.topic_records())
            .chain(self.config_records())
            .chain(self.quota_records())
            .chain(self.producer_id_record())
            .chain(self.acls().iter().map(|(id, acl)| acl.to_record(id).into()))
            .chain(self.scram().records().map(Record::from))
            .chain(self.tokens().iter().map(|token| token.to_record().into()))
    }

    /// The metadata version comes first, because it decides how the rest is read.
    fn feature_records(&self) -> impl Iterator<Item = Record> {
        let is_metadata_version = |name: &Str| name.as_str() == METADATA_VERSION;
        let first = self.features().iter().filter(move |(name, _)| is_metadata_version(name));
        let others = self.features().iter().filter(move |(name, _)| !is_metadata_version(name));
        first.chain(others).map(|(name, level)| {
            FeatureLevelRecord { name: name.clone(), feature_level: *level }.into()
        })
    }

    fn cluster_records(&self) -> impl Iterator<Item = Record> {
        let brokers = self.brokers().values().map(|broker| broker.to_record().into());
        let controllers = self.controllers().values().map(|controller| controller.clone().into());
        brokers.chain(controllers)
    }

    fn topic_records(&self) -> impl Iterator<Item = Record> {
        self.topics().iter().flat_map(|topic| {
            let record = TopicRecord { name: topic.name.clone(), topic_id: topic.id };
            let partitions =
                topic.partitions().iter().map(|partition| partition.to_record(topic.id).into());
            std::iter::once(record.into()).chain(partitions)
        })
    }

    fn config_records(&self) -> impl Iterator<Item = Record> {
        self.configs().iter().flat_map(|(resource, map)| {
            map.iter().map(|(name, value)| {
                ConfigRecord {
                    resource_type: resource.kind.wire_id(),
                    resource_name: Str::copy_from(&resource.name),
                    name: Str::copy_from(name),
                    value: Some(Str::copy_from(value)),
                }
                .into()
            })
        })
    }

    fn quota_records(&self) -> impl Iterator<Item = Record> {
        self.quotas().iter().flat_map(|(entity, map)| {
            map.iter().map(|(key, value)| entity.to_record(key, Some(*value)).into())
        })
    }

    /// Kafka names no broker here, since the blocks given out are not in the image.
    fn producer_id_record(&self) -> impl Iterator<Item = Record> {
        let next_producer_id = self.next_producer_id().0;
        let record = ProducerIdsRecord { broker_id: -1, broker_epoch: -1, next_producer_id };
        (next_producer_id > 0).then(|| record.into()).into_iter()
    }
}

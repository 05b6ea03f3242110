//! Brokers as they registered.

use std::collections::BTreeMap;

use fleuve_protocol::Str;
use fleuve_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use fleuve_protocol::messages::register_broker_record::{
    BrokerEndpoint, BrokerFeature, RegisterBrokerRecord,
};
use fleuve_types::{NodeId, Uuid};

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: NodeId,
    /// The number of its registration.
    pub epoch: i64,
    /// The id of its process; another start has another.
    pub incarnation: Uuid,
    /// Where it is reached, listener by listener.
    pub endpoints: Vec<Endpoint>,
    /// The features it supports, by name.
    pub features: BTreeMap<Str, FeatureRange>,
    /// Its rack or zone.
    pub rack: Option<Str>,
    /// Whether it must not lead for now.
    pub is_fenced: bool,
    /// Whether it is about to stop.
    pub is_shutting_down: bool,
    /// The ids of its data directories.
    pub directories: Vec<Uuid>,
    /// Those of them that take no new partitions.
    pub cordoned_directories: Vec<Uuid>,
}

/// Where a broker is reached by one of its listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name.
    pub listener: Str,
    /// The host to connect to.
    pub host: Str,
    /// The port to connect to.
    pub port: u16,
    /// The number of its security protocol.
    pub security_protocol: i16,
}

/// The levels of a feature that a broker supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRange {
    /// The lowest level.
    pub min: i16,
    /// The highest level.
    pub max: i16,
}

impl Broker {
    pub(super) fn from_record(record: &RegisterBrokerRecord) -> Self {
        let endpoint = |endpoint: &BrokerEndpoint| Endpoint {
            listener: endpoint.name.detach(),
            host: endpoint.host.detach(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        };
        let feature = |feature: &BrokerFeature| {
            let range = FeatureRange {
                min: feature.min_supported_version,
                max: feature.max_supported_version,
            };
            (feature.name.detach(), range)
        };
        Self {
            id: NodeId(record.broker_id),
            epoch: record.broker_epoch,
            incarnation: record.incarnation_id,
            endpoints: record.end_points.iter().map(endpoint).collect(),
            features: record.features.iter().map(feature).collect(),
            rack: record.rack.as_ref().map(Str::detach),
            is_fenced: record.fenced,
            is_shutting_down: record.in_controlled_shutdown,
            directories: record.log_dirs.clone(),
            cordoned_directories: record.cordoned_log_dirs.clone().unwrap_or_default(),
        }
    }

    /// Makes the record that registers this broker.
    pub fn to_record(&self) -> RegisterBrokerRecord {
        let endpoint = |endpoint: &Endpoint| BrokerEndpoint {
            name: endpoint.listener.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        };
        let feature = |(name, range): (&Str, &FeatureRange)| BrokerFeature {
            name: name.clone(),
            min_supported_version: range.min,
            max_supported_version: range.max,
        };
        let cordoned = &self.cordoned_directories;
        RegisterBrokerRecord {
            broker_id: self.id.0,
            is_migrating_zk_broker: false,
            incarnation_id: self.incarnation,
            broker_epoch: self.epoch,
            end_points: self.endpoints.iter().map(endpoint).collect(),
            features: self.features.iter().map(feature).collect(),
            rack: self.rack.clone(),
            fenced: self.is_fenced,
            in_controlled_shutdown: self.is_shutting_down,
            log_dirs: self.directories.clone(),
            cordoned_log_dirs: (!cordoned.is_empty()).then(|| cordoned.clone()),
        }
    }

    /// Reports whether partitions may be placed on this broker and led by it.
    pub fn is_active(&self) -> bool {
        !self.is_fenced && !self.is_shutting_down
    }

    /// Reports whether this broker has a data directory that takes new partitions.
    pub fn has_room(&self) -> bool {
        let open = |directory: &Uuid| !self.cordoned_directories.contains(directory);
        self.directories.is_empty() || self.directories.iter().any(open)
    }

    /// Merges a change; Kafka writes 1 and -1 for true and false, and 0 for "as before".
    pub(super) fn merge(&mut self, change: &BrokerRegistrationChangeRecord) {
        let set = |field: &mut bool, new: i8| {
            if new != 0 {
                *field = new > 0;
            }
        };
        set(&mut self.is_fenced, change.fenced);
        set(&mut self.is_shutting_down, change.in_controlled_shutdown);
        if !change.log_dirs.is_empty() {
            self.directories = change.log_dirs.clone();
        }
        if let Some(cordoned) = &change.cordoned_log_dirs {
            self.cordoned_directories = cordoned.clone();
        }
    }
}

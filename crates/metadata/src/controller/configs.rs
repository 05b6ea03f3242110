//! Changing configs of topics, brokers, groups and client metrics subscriptions.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleuve_protocol::Str;
use fleuve_protocol::messages::config_record::ConfigRecord;
use fleuve_types::NodeId;

use super::machine::{Controller, Decision};
use super::name::{self, InvalidName};
use crate::config::{
    AlterError, AlterOperation, ConfigMap, Layers, Scope, TopicSettings, apply_operation,
    check_overrides,
};
use crate::image::{ELIGIBLE_LEADERS, Resource, ResourceKind};
use crate::record::Record;

const MIN_ISR: &str = "min.insync.replicas";

/// The longest string that a record can hold.
const VALUE_BYTES_MAX: usize = i16::MAX as usize;

/// Operations on the configs of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigUpdate {
    /// The resource.
    pub resource: Resource,
    /// What to do, key by key.
    pub operations: Vec<ConfigOperation>,
}

/// An operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOperation {
    /// The key.
    pub name: Str,
    /// What to do.
    pub operation: AlterOperation,
    /// The value, or the items.
    pub value: Option<Str>,
}

/// All configs that one resource is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigReplacement {
    /// The resource.
    pub resource: Resource,
    /// Its keys and values.
    pub configs: Vec<(Str, Option<Str>)>,
}

/// Reports that the configs of a resource cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterConfigsError {
    /// The request names the resource more than once.
    #[error("Each resource must appear at most once.")]
    DuplicateResource,
    /// The request names a key more than once.
    #[error("Error due to duplicate config keys: {0}")]
    DuplicateKey(Str),
    /// A value is missing.
    #[error("Null value not supported for: {0}")]
    MissingValue(Str),
    /// There is no such topic.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// No topic may have this name.
    #[error(transparent)]
    InvalidTopic(#[from] InvalidName),
    /// A broker's name is not the number of a registered broker.
    #[error("{0}")]
    UnknownBroker(String),
    /// A topic, group or subscription has no name.
    #[error("Default {0} resources are not allowed.")]
    EmptyName(&'static str),
    /// The value is longer than any can be.
    #[error(
        "The configuration value cannot be added because it exceeds the maximum value size of {VALUE_BYTES_MAX} bytes."
    )]
    TooLarge,
    /// The value is wrong.
    #[error("{0}")]
    InvalidConfig(String),
    /// The key cannot be changed like this.
    #[error("{0}")]
    NotAllowed(String),
}

impl From<AlterError> for AlterConfigsError {
    fn from(error: AlterError) -> Self {
        match error {
            AlterError::Invalid(message) => Self::InvalidConfig(message),
            AlterError::NotAllowed(message) => Self::NotAllowed(message),
        }
    }
}

impl Controller {
    /// Decides about operations on single keys; what is not named stays.
    pub fn incremental_alter_configs(
        &self,
        updates: &[ConfigUpdate],
        validate_only: bool,
    ) -> Decision<Vec<Result<(), AlterConfigsError>>> {
        let duplicates = duplicates(updates.iter().map(|update| &update.resource));
        self.decide_configs(updates, validate_only, |controller, update, layers| {
            if duplicates.contains(&update.resource) {
                return Err(AlterConfigsError::DuplicateResource);
            }
            let scope = controller.check_resource(&update.resource)?;
            let names = update.operations.iter().map(|operation| &operation.name);
            let before = controller.image.configs().of(&update.resource);
            check_distinct(names)?;
            let mut after = ConfigMap::clone(&before);
            for ConfigOperation { name, operation, value } in &update.operations {
                let operand = match (operation, value) {
                    (AlterOperation::Delete, _) => "",
                    (_, Some(value)) => value,
                    (_, None) => return Err(AlterConfigsError::MissingValue(name.detach())),
                };
                let current = before.get(name.as_str()).map(|value| &**value);
                match apply_operation(scope, name, *operation, operand, current, layers)? {
                    Some(value) => after.insert(Arc::from(name.as_str()), Arc::from(value)),
                    None => after.remove(name.as_str()),
                };
            }
            let touched: Vec<&str> =
                update.operations.iter().map(|operation| operation.name.as_str()).collect();
            check_sizes(&after, &touched)?;
            check_overrides(scope, &after, &touched, layers)?;
            controller.check_min_isr(scope, &before, &after)?;
            Ok(difference(&update.resource, &before, &after, &touched))
        })
    }

    /// Decides about whole sets of configs, as the older AlterConfigs sends them: what is not named
    /// is deleted.
    pub fn alter_configs(
        &self,
        replacements: &[ConfigReplacement],
        validate_only: bool,
    ) -> Decision<Vec<Result<(), AlterConfigsError>>> {
        let duplicates = duplicates(replacements.iter().map(|update| &update.resource));
        self.decide_configs(replacements, validate_only, |controller, replacement, layers| {
            if duplicates.contains(&replacement.resource) {
                return Err(AlterConfigsError::DuplicateResource);
            }
            let scope = controller.check_resource(&replacement.resource)?;
            check_distinct(replacement.configs.iter().map(|(name, _)| name))?;
            let before = controller.image.configs().of(&replacement.resource);
            let mut after = ConfigMap::new();
            for (name, value) in &replacement.configs {
                let value =
                    value.as_ref().ok_or_else(|| AlterConfigsError::MissingValue(name.detach()))?;
                after.insert(Arc::from(name.as_str()), Arc::from(value.as_str()));
            }
            let touched: Vec<&str> = after.keys().map(|name| &**name).collect();
            check_sizes(&after, &touched)?;
            check_overrides(scope, &after, &touched, layers)?;
            controller.check_min_isr(scope, &before, &after)?;
            Ok(difference(&replacement.resource, &before, &after, &touched))
        })
    }

    fn decide_configs<U>(
        &self,
        updates: &[U],
        validate_only: bool,
        decide: impl Fn(&Self, &U, &Layers<'_>) -> Result<Vec<Record>, AlterConfigsError>,
    ) -> Decision<Vec<Result<(), AlterConfigsError>>> {
        let mut records = Vec::new();
        let reply = self.with_layers(|layers| {
            let decide = |update| decide(self, update, layers).map(|more| records.extend(more));
            updates.iter().map(decide).collect()
        });
        if validate_only {
            records.clear();
        }
        Decision { records, reply }
    }

    /// Who may lead depends on `min.insync.replicas`, which with eligible leaders the whole cluster
    /// therefore agrees on (KIP-966).
    fn check_min_isr(
        &self,
        scope: Scope,
        before: &ConfigMap,
        after: &ConfigMap,
    ) -> Result<(), AlterConfigsError> {
        if !self.has_eligible_leaders() {
            return Ok(());
        }
        let (was, is) = (before.get(MIN_ISR), after.get(MIN_ISR));
        let why = match scope {
            Scope::Broker if was != is => {
                "Broker-level min.insync.replicas cannot be altered while ELR is enabled."
            }
            Scope::Cluster if was.is_some() && is.is_none() => {
                "Cluster-level min.insync.replicas cannot be removed while ELR is enabled."
            }
            _ => return Ok(()),
        };
        Err(AlterConfigsError::InvalidConfig(why.to_owned()))
    }

    /// Reports whether the feature is on.
    pub(super) fn has_eligible_leaders(&self) -> bool {
        self.image.features().get(ELIGIBLE_LEADERS).is_some_and(|level| *level > 0)
    }

    /// What the configs lack for eligible leaders: a value of the cluster, and none of brokers.
    pub(super) fn min_isr_of_cluster(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let record = |resource_name: &str, value: Option<String>| {
            let record = ConfigRecord {
                resource_type: ResourceKind::Broker.wire_id(),
                resource_name: Str::copy_from(resource_name),
                name: Str::from(MIN_ISR),
                value: value.map(Str::from),
            };
            Record::from(record)
        };
        if !self.image.cluster_configs().contains_key(MIN_ISR) {
            let empty = ConfigMap::new();
            let written = TopicSettings::from_broker(&self.settings.layers(&empty, &empty));
            records.push(record("", Some(written.min_insync_replicas.to_string())));
        }
        for id in self.image.brokers().keys() {
            if self.image.broker_configs(*id).contains_key(MIN_ISR) {
                records.push(record(&id.to_string(), None));
            }
        }
        records
    }

    fn check_resource(&self, resource: &Resource) -> Result<Scope, AlterConfigsError> {
        let name = &*resource.name;
        match resource.kind {
            ResourceKind::Topic if name.is_empty() => Err(AlterConfigsError::EmptyName("topic")),
            ResourceKind::Topic if self.image.topics().by_name(name).is_some() => Ok(Scope::Topic),
            ResourceKind::Topic => {
                name::check(name)?;
                Err(AlterConfigsError::UnknownTopic)
            }
            ResourceKind::Broker if name.is_empty() => Ok(Scope::Cluster),
            ResourceKind::Broker => match name.parse().map(NodeId) {
                // `+1` and `01` would parse too, and be stored beside `1`.
                Ok(id) if id.to_string() != name => Err(AlterConfigsError::UnknownBroker(format!(
                    "Broker id must be a plain integer, but it is: {name}"
                ))),
                Ok(id) if self.image.brokers().contains_key(&id) => Ok(Scope::Broker),
                Ok(id) => {
                    Err(AlterConfigsError::UnknownBroker(format!("No broker with id {id} found.")))
                }
                Err(_) => Err(AlterConfigsError::UnknownBroker(format!(
                    "Broker id must be an integer, but it is: {name}"
                ))),
            },
            ResourceKind::Group if name.is_empty() => Err(AlterConfigsError::EmptyName("group")),
            ResourceKind::Group => Ok(Scope::Group),
            ResourceKind::ClientMetrics if name.is_empty() => {
                Err(AlterConfigsError::EmptyName("client metrics"))
            }
            ResourceKind::ClientMetrics => Ok(Scope::ClientMetrics),
        }
    }
}

fn duplicates<'a>(resources: impl Iterator<Item = &'a Resource>) -> BTreeSet<&'a Resource> {
    let mut seen = BTreeSet::new();
    resources.filter(|resource| !seen.insert(*resource)).collect()
}

fn check_distinct<'a>(names: impl Iterator<Item = &'a Str>) -> Result<(), AlterConfigsError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.as_str()) {
            return Err(AlterConfigsError::DuplicateKey(name.detach()));
        }
    }
    Ok(())
}

/// Appending can make of values that each fit into a request one that does not fit into a record.
fn check_sizes(configs: &ConfigMap, touched: &[&str]) -> Result<(), AlterConfigsError> {
    let mut values = touched.iter().filter_map(|name| configs.get(*name));
    match values.any(|value| value.len() > VALUE_BYTES_MAX) {
        true => Err(AlterConfigsError::TooLarge),
        false => Ok(()),
    }
}

/// Makes the records that turn one map into the other.
///
/// Of brokers everything that the request has `touched` is written, changed or not: what follows from
/// the records is that files are read again which the values name (KAFKA-14136).
fn difference(
    resource: &Resource,
    before: &ConfigMap,
    after: &ConfigMap,
    touched: &[&str],
) -> Vec<Record> {
    let is_brokers = resource.kind == ResourceKind::Broker;
    let touched: BTreeSet<&str> = touched.iter().copied().filter(|_| is_brokers).collect();
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).map(|name| &**name).collect();
    let record = |name: &str| {
        ConfigRecord {
            resource_type: resource.kind.wire_id(),
            resource_name: Str::copy_from(&resource.name),
            name: Str::copy_from(name),
            value: after.get(name).map(|value| Str::copy_from(value)),
        }
        .into()
    };
    let is_written =
        |name: &&&str| before.get(**name) != after.get(**name) || touched.contains(**name);
    names.union(&touched).filter(is_written).map(|name| record(name)).collect()
}

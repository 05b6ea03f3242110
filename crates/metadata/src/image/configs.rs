//! Dynamic configs of all resources.

use std::fmt;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::config::ConfigMap;

/// What kind of thing a config belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A topic, named by its name.
    Topic,
    /// A broker, named by its number; the empty name stands for all.
    Broker,
    /// A client metrics subscription.
    ClientMetrics,
    /// A group.
    Group,
}

impl ResourceKind {
    /// Returns the number that stands for this kind on the wire and in records.
    pub const fn wire_id(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }

    /// Finds the kind that a number stands for.
    pub const fn from_wire_id(id: i8) -> Option<Self> {
        Some(match id {
            2 => Self::Topic,
            4 => Self::Broker,
            16 => Self::ClientMetrics,
            32 => Self::Group,
            _ => return None,
        })
    }
}

/// Something that has configs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Its name.
    pub name: Arc<str>,
}

impl Resource {
    /// Names a resource.
    pub fn new(kind: ResourceKind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }

    /// Names a topic.
    pub fn topic(name: &str) -> Self {
        Self::new(ResourceKind::Topic, name)
    }

    /// Names what is set for all brokers.
    pub fn all_brokers() -> Self {
        Self::new(ResourceKind::Broker, "")
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ResourceKind::Topic => write!(f, "topic {}", self.name),
            ResourceKind::Broker if self.name.is_empty() => f.write_str("all brokers"),
            ResourceKind::Broker => write!(f, "broker {}", self.name),
            ResourceKind::ClientMetrics => write!(f, "client metrics {}", self.name),
            ResourceKind::Group => write!(f, "group {}", self.name),
        }
    }
}

/// Dynamic configs by resource; resources without any are absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configs {
    by_resource: RedBlackTreeMapSync<Resource, Arc<ConfigMap>>,
}

impl Configs {
    /// Returns the configs of a resource, empty when none are set.
    pub fn of(&self, resource: &Resource) -> Arc<ConfigMap> {
        self.by_resource.get(resource).cloned().unwrap_or_default()
    }

    /// Lists the resources that have configs, with them.
    pub fn iter(&self) -> impl Iterator<Item = (&Resource, &Arc<ConfigMap>)> {
        self.by_resource.iter()
    }

    pub(super) fn set(&mut self, resource: Resource, name: Arc<str>, value: Option<Arc<str>>) {
        match (self.by_resource.get_mut(&resource), value) {
            (Some(map), Some(value)) => {
                Arc::make_mut(map).insert(name, value);
            }
            (Some(map), None) => {
                Arc::make_mut(map).remove(&name);
                if map.is_empty() {
                    self.by_resource.remove_mut(&resource);
                }
            }
            (None, Some(value)) => {
                let map = ConfigMap::from([(name, value)]);
                self.by_resource.insert_mut(resource, Arc::new(map));
            }
            (None, None) => {}
        }
    }

    pub(super) fn forget(&mut self, resource: &Resource) {
        self.by_resource.remove_mut(resource);
    }
}

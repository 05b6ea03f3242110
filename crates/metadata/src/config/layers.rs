//! The layers a broker key's value comes from, and looking a value up through them.
//!
//! From the top: dynamic value of this broker, dynamic default of the cluster, what the operator
//! wrote (file and flags), the default of the table. Dynamic layers are what the metadata log says;
//! the static one is what [`super::load`] read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::key::Key;
use super::keys::{BROKER_KEYS, find};
use super::problem::Origin;
use super::protection::Secret;
use super::value::Value;

/// Names and values of one resource's dynamic configs, as they stand in the metadata log.
pub type ConfigMap = BTreeMap<Arc<str>, Arc<str>>;

/// One value that the operator wrote.
#[derive(Clone, PartialEq)]
pub struct Setting {
    /// The checked value.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
    /// Whether a reference stands there in its place.
    pub is_secret: bool,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden: &dyn fmt::Debug = &"[hidden]";
        let value: &dyn fmt::Debug = if self.is_secret { hidden } else { &self.value };
        f.debug_struct("Setting").field("value", value).field("origin", &self.origin).finish()
    }
}

/// Everything that the operator wrote about broker keys we know, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StaticConfig {
    pub(super) settings: BTreeMap<&'static str, Setting>,
    /// What was written for single listeners, by the whole key in lower case.
    pub(super) of_listeners: BTreeMap<String, (Secret, Origin)>,
}

impl StaticConfig {
    /// Returns what was written for a key, if anything.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name)
    }

    /// Returns what was written for a key of one listener.
    pub(super) fn of_listener(&self, name: &str) -> Option<&str> {
        self.of_listeners.get(name).map(|(text, _)| text.expose())
    }

    /// Returns where a key of one listener was written.
    pub(super) fn origin_of_listener(&self, name: &str) -> Option<&Origin> {
        self.of_listeners.get(name).map(|(_, origin)| origin)
    }
}

/// A view through all layers.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// What the operator wrote.
    pub statics: &'a StaticConfig,
    /// Dynamic values of this broker.
    pub node: &'a ConfigMap,
    /// Dynamic defaults of the cluster.
    pub cluster: &'a ConfigMap,
}

/// A map without entries, for layers that do not exist.
pub(super) static NO_CONFIGS: ConfigMap = ConfigMap::new();

impl<'a> Layers<'a> {
    /// Looks at what the operator wrote only.
    pub fn of_statics(statics: &'a StaticConfig) -> Self {
        Self { statics, node: &NO_CONFIGS, cluster: &NO_CONFIGS }
    }

    /// Returns the value in force, or `None` where that is null or the key unknown.
    ///
    /// A dynamic value that does not fit (written by a later release) counts as absent, so that a
    /// broker can always start on the metadata it has.
    pub fn value(&self, name: &str) -> Option<Value> {
        let key = find(BROKER_KEYS, name)?;
        let dynamic = |map: &ConfigMap| map.get(name).and_then(|text| Value::parse(key, text).ok());
        dynamic(self.node)
            .or_else(|| dynamic(self.cluster))
            .or_else(|| self.statics.get(name).map(|setting| setting.value.clone()))
            .or_else(|| default_value(key))
    }

    /// Reports whether anybody set the key, in any layer.
    pub fn is_set(&self, name: &str) -> bool {
        self.node.contains_key(name)
            || self.cluster.contains_key(name)
            || self.statics.get(name).is_some()
    }

    /// Returns what holds for a key of one listener, by its whole name in lower case.
    pub(super) fn of_listener(&self, name: &str) -> Option<&str> {
        self.node.get(name).map(|text| &**text).or_else(|| self.statics.of_listener(name))
    }

    /// Returns where the operator wrote the key.
    pub(super) fn origin(&self, name: &str) -> Option<&'a Origin> {
        self.statics.get(name).map(|setting| &setting.origin)
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Boolean(true)))
    }

    /// Returns a number, for keys that have a default.
    pub(super) fn integer(&self, name: &str) -> i64 {
        self.optional_integer(name).expect("the table gives this key a number as its default")
    }

    pub(super) fn optional_integer(&self, name: &str) -> Option<i64> {
        self.value(name).and_then(|value| value.as_integer())
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }
}

/// Returns the table's default as a value.
pub(super) fn default_value(key: &Key) -> Option<Value> {
    let text = key.default?;
    Some(Value::parse(key, text).expect("a test checks every default against its rule"))
}

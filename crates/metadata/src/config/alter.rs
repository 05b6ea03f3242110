//! Changing dynamic configs: what an operation makes of a value, and whether the result may stand.

use super::client_match::{ClientMatch, MATCH};
use super::groups::group_limit;
use super::judge::served_listener_key;
use super::key::{Key, Rule, Status, UpdateMode, ValueType};
use super::keys::{
    BROKER_KEYS, CLIENT_METRICS_KEYS, GROUP_KEYS, REMOVED_BROKER_KEYS, TOPIC_KEYS, find,
    remedy_for_removed,
};
use super::layers::{ConfigMap, Layers, default_value};
use super::suggest::nearest;
use super::topic::effective;
use super::value::{Value, parse_list};

/// What to do with the value of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlterOperation {
    /// Give it this value.
    Set,
    /// Take its value away.
    Delete,
    /// Add these items to its list.
    Append,
    /// Take these items off its list.
    Subtract,
}

impl AlterOperation {
    /// Finds the operation that a number stands for on the wire.
    pub const fn from_wire_id(id: i8) -> Option<Self> {
        Some(match id {
            0 => Self::Set,
            1 => Self::Delete,
            2 => Self::Append,
            3 => Self::Subtract,
            _ => return None,
        })
    }
}

/// Which keys a resource may have, and by whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A topic's.
    Topic,
    /// One broker's.
    Broker,
    /// Those of all brokers.
    Cluster,
    /// A group's.
    Group,
    /// A client metrics subscription's.
    ClientMetrics,
}

impl Scope {
    /// Returns the table of keys.
    pub fn keys(self) -> &'static [Key] {
        match self {
            Self::Topic => TOPIC_KEYS,
            Self::Broker | Self::Cluster => BROKER_KEYS,
            Self::Group => GROUP_KEYS,
            Self::ClientMetrics => CLIENT_METRICS_KEYS,
        }
    }
}

/// Reports that a config cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    /// The value is not one that the key may have.
    #[error("{0}")]
    Invalid(String),
    /// The key cannot be changed in this way, whatever the value.
    #[error("{0}")]
    NotAllowed(String),
}

/// Computes the value that `operation` makes of `current`; `None` takes it away.
pub fn apply_operation(
    scope: Scope,
    name: &str,
    operation: AlterOperation,
    operand: &str,
    current: Option<&str>,
    layers: &Layers<'_>,
) -> Result<Option<String>, AlterError> {
    let adds = match operation {
        AlterOperation::Set => return Ok(Some(operand.to_owned())),
        AlterOperation::Delete => return Ok(None),
        AlterOperation::Append => true,
        AlterOperation::Subtract => false,
    };
    let key = find(scope.keys(), name).filter(|key| key.value_type == ValueType::List).ok_or_else(
        || {
            AlterError::Invalid(format!(
                "`{name}` is not a list, so nothing can be added to it or taken off; set it instead"
            ))
        },
    )?;
    // What is not set begins as what holds now, so that appending extends the default.
    let mut items = match current {
        Some(current) => parse_list(current.trim()),
        None => match in_force(scope, key, layers) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        },
    };
    items.retain(|item| !item.is_empty());
    for item in parse_list(operand.trim()) {
        let position = items.iter().position(|known| *known == item);
        match (adds, position) {
            (true, None) => items.push(item),
            (false, Some(position)) => {
                items.remove(position);
            }
            _ => {}
        }
    }
    Ok(Some(items.join(",")))
}

fn in_force(scope: Scope, key: &Key, layers: &Layers<'_>) -> Option<Value> {
    match scope {
        Scope::Topic => effective(key, &ConfigMap::new(), layers),
        Scope::Broker | Scope::Cluster => layers.value(key.name),
        Scope::Group | Scope::ClientMetrics => default_value(key),
    }
}

/// Checks that these keys may be set on, or deleted from, a resource of this scope.
///
/// `all` is what the resource would have afterwards, `touched` what the request speaks of.
pub fn check_overrides(
    scope: Scope,
    all: &ConfigMap,
    touched: &[&str],
    layers: &Layers<'_>,
) -> Result<(), AlterError> {
    match scope {
        Scope::Topic => super::check_topic_overrides(all, layers)
            .map_err(|error| AlterError::Invalid(error.to_string())),
        Scope::Broker | Scope::Cluster => {
            touched.iter().try_for_each(|name| check_broker_key(scope, name, all))
        }
        Scope::Group => check_group(all, layers),
        Scope::ClientMetrics => check_client_metrics(all),
    }
}

/// Reports whether a key of TLS is set for one listener while the broker runs, and for all of them
/// only in the broker's file.
fn is_of_one_listener(name: &str) -> bool {
    let stores = ["ssl.keystore.", "ssl.truststore."];
    name == "ssl.key.password" || stores.iter().any(|store| name.starts_with(store))
}

fn check_broker_key(scope: Scope, name: &str, all: &ConfigMap) -> Result<(), AlterError> {
    if let (Some((own_name, key)), Some(text)) = (served_listener_key(name), all.get(name)) {
        if scope == Scope::Cluster || *own_name != *name {
            return Err(AlterError::NotAllowed(format!(
                "`{name}` is for one broker, and its listener's name in lower case"
            )));
        }
        return key.map_or(Ok(()), |key| checked(key, text).map_err(AlterError::forbid).map(drop));
    }
    let Some(key) = find(BROKER_KEYS, name) else {
        // Whatever is there may be deleted, lest a mistake of the past stays for ever.
        if !all.contains_key(name) {
            return Ok(());
        }
        return Err(AlterError::Invalid(unknown(name, scope)));
    };
    if !all.contains_key(name) {
        return Ok(());
    }
    match (key.update, scope) {
        (UpdateMode::ReadOnly, _) => {
            return Err(AlterError::NotAllowed(format!(
                "Cannot update these configs dynamically: [{name}]"
            )));
        }
        _ if is_of_one_listener(name) => {
            return Err(AlterError::NotAllowed(format!(
                "These security configs can be dynamically updated only per-listener using the \
                 listener prefix: [{name}]"
            )));
        }
        (UpdateMode::PerBroker, Scope::Cluster) => {
            return Err(AlterError::NotAllowed(format!(
                "Cannot update these configs at default cluster level, broker id must be specified: \
                 [{name}]"
            )));
        }
        _ => {}
    }
    // Kafka's code for it differs from that of topics.
    let value = checked(key, &all[name]).map_err(AlterError::forbid)?;
    if key.status == Status::NotYetAndDangerous && Some(value) != default_value(key) {
        return Err(AlterError::NotAllowed(format!(
            "`{name}` is known, but not served yet; setting it would promise what is not kept"
        )));
    }
    Ok(())
}

fn check_group(all: &ConfigMap, layers: &Layers<'_>) -> Result<(), AlterError> {
    for (name, text) in all {
        let Some(key) = find(GROUP_KEYS, name) else {
            return Err(AlterError::Invalid(unknown(name, Scope::Group)));
        };
        let value = checked(key, text)?.as_integer();
        for (bound, is_lowest) in [("min", true), ("max", false)] {
            let limit = group_limit(name, bound, layers);
            let (Some(value), Some((limit_name, limit))) = (value, limit) else { continue };
            if (is_lowest && value < limit) || (!is_lowest && value > limit) {
                let side = if is_lowest { "at least" } else { "at most" };
                return Err(AlterError::Invalid(format!(
                    "invalid value `{text}` for `{name}`: must be {side} {limit}, which the \
                     broker's `{limit_name}` says"
                )));
            }
        }
    }
    for protocol in ["consumer", "share", "streams"] {
        let in_force = |rest: &str| {
            let key = find(GROUP_KEYS, &format!("{protocol}.{rest}"))?;
            effective(key, all, layers)?.as_integer()
        };
        let session = in_force("session.timeout.ms");
        let heartbeat = in_force("heartbeat.interval.ms");
        if let (Some(session), Some(heartbeat)) = (session, heartbeat)
            && heartbeat >= session
        {
            return Err(AlterError::Invalid(format!(
                "`{protocol}.session.timeout.ms` ({session}) must be greater than \
                 `{protocol}.heartbeat.interval.ms` ({heartbeat})"
            )));
        }
    }
    Ok(())
}

fn check_client_metrics(all: &ConfigMap) -> Result<(), AlterError> {
    for (name, text) in all {
        let Some(key) = find(CLIENT_METRICS_KEYS, name) else {
            return Err(AlterError::NotAllowed(format!(
                "Unknown client metrics configuration: {name}"
            )));
        };
        let value = checked(key, text).map_err(|error| match key.rule {
            // Kafka looks at the range by itself, and has another code for it than for what is no
            // number of this size at all.
            Rule::Between(..) if text.trim().parse::<i32>().is_ok() => error.forbid(),
            _ => error,
        })?;
        if let (MATCH, Value::List(patterns)) = (key.name, value) {
            ClientMatch::parse(&patterns)
                .map_err(|error| AlterError::Invalid(error.to_string()))?;
        }
    }
    Ok(())
}

impl AlterError {
    /// Says the same, as something that must not be asked.
    fn forbid(self) -> Self {
        match self {
            Self::Invalid(message) | Self::NotAllowed(message) => Self::NotAllowed(message),
        }
    }
}

fn checked(key: &Key, text: &str) -> Result<Value, AlterError> {
    Value::parse(key, text).map_err(|error| AlterError::Invalid(error.to_string()))
}

fn unknown(name: &str, scope: Scope) -> String {
    let removed = match scope {
        Scope::Broker | Scope::Cluster => remedy_for_removed(REMOVED_BROKER_KEYS, name),
        _ => None,
    };
    let remedy = match removed {
        Some(remedy) => remedy.to_owned(),
        None => match nearest(name, scope.keys().iter().map(|key| key.name)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "docs/configuration.md lists all of them".to_owned(),
        },
    };
    format!("Unknown config name: {name} ({remedy})")
}

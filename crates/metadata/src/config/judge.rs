//! What to say about keys that are not simply served.
//!
//! A key we know but do not serve yet is accepted in silence when its value changes nothing, is
//! worth a warning when leaving it out is harmless, and is an error when the operator relies on
//! what it promises.

use super::key::{Key, Status};
use super::keys::{BROKER_KEYS, REMOVED_BROKER_KEYS, find, remedy_for_removed};
use super::layers::{StaticConfig, default_value};
use super::problem::{Origin, Problems};
use super::protection::LISTENER_KEYS;
use super::suggest::nearest;
use super::value::Value;

/// Names that begin with one of these belong to plugins, whose own switches are judged instead.
const PLUGIN_PREFIXES: [&str; 3] = ["rsm.config.", "rlmm.config.", "config.providers."];

const LISTENER_PREFIX: &str = "listener.name.";

/// Speaks about a name that is in no table: removed, of a plugin, of one listener, or misspelt.
pub(super) fn judge_unknown(name: &str, origin: &Origin, problems: &mut Problems) {
    if let Some(remedy) = remedy_for_removed(REMOVED_BROKER_KEYS, name) {
        problems.error(Some(origin), format!("`{name}` is no longer a key of Kafka: {remedy}"));
        return;
    }
    if PLUGIN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        problems
            .warning(Some(origin), format!("`{name}` is known, not served yet: it has no effect"));
        return;
    }
    if let Some((listener, key)) = split_listener_key(name) {
        let message = match key.status {
            Status::NotYetAndDangerous => format!(
                "`{name}` is known, but not served yet, and listener {listener} would run without \
                 it; remove the key if that is acceptable"
            ),
            Status::NoEffect(reason) => format!("`{name}` has no effect: {reason}"),
            Status::Served | Status::NotYet => {
                format!("`{name}` is known, not served for single listeners yet: it has no effect")
            }
        };
        if key.status == Status::NotYetAndDangerous {
            problems.error(Some(origin), message);
        } else {
            problems.warning(Some(origin), message);
        }
        return;
    }
    let remedy = match nearest(name, BROKER_KEYS.iter().map(|key| key.name)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "remove it, or see docs/configuration.md for all keys".to_owned(),
    };
    problems.error(Some(origin), format!("unknown key `{name}`: {remedy}"));
}

/// Finds the key that a name narrows to one listener, if that is served: the whole name in the form
/// in which it is kept, and the row of the table unless a mechanism comes between.
pub(super) fn served_listener_key(name: &str) -> Option<(String, Option<&'static Key>)> {
    let (listener, rest) = name.strip_prefix(LISTENER_PREFIX)?.split_once('.')?;
    let rest = LISTENER_KEYS.iter().find(|known| **known == rest)?;
    let own_name = format!("{LISTENER_PREFIX}{}.{rest}", listener.to_lowercase());
    Some((own_name, find(BROKER_KEYS, rest)))
}

/// Splits `listener.name.NAME.[MECHANISM.]KEY` into the listener and the key that it narrows.
fn split_listener_key(name: &str) -> Option<(&str, &'static Key)> {
    let (listener, mut rest) = name.strip_prefix(LISTENER_PREFIX)?.split_once('.')?;
    loop {
        if let Some(key) = find(BROKER_KEYS, rest) {
            return Some((listener, key));
        }
        // SASL mechanisms such as `scram-sha-256` come between the listener and the key.
        rest = rest.split_once('.')?.1;
    }
}

/// Says why setting a broker key does nothing here, if it does nothing.
pub fn why_without_effect(name: &str, value: &str) -> Option<&'static str> {
    let key = find(BROKER_KEYS, name)?;
    // The default that is set asks for nothing.
    if key.default == Some(value) {
        return None;
    }
    match key.status {
        Status::Served => None,
        Status::NoEffect(reason) => Some(reason),
        Status::NotYet | Status::NotYetAndDangerous => Some("it is known, and not served yet"),
    }
}

/// Speaks about keys we do not serve, once for the value that won.
pub(super) fn judge_status(statics: &StaticConfig, problems: &mut Problems) {
    for (name, setting) in &statics.settings {
        let key = find(BROKER_KEYS, name).expect("only known keys are kept");
        let default = default_value(key);
        let changes_nothing = match (&default, &setting.value) {
            (None, Value::Text(text)) => text.is_empty(),
            (None, _) => false,
            (Some(default), value) => default == value,
        };
        if changes_nothing {
            continue;
        }
        let origin = Some(&setting.origin);
        let shown =
            if key.is_sensitive() { "********".to_owned() } else { setting.value.to_string() };
        match key.status {
            Status::Served => {}
            Status::NotYet => problems.warning(
                origin,
                format!("`{name}` is known, not served yet: `{shown}` has no effect"),
            ),
            Status::NoEffect(reason) => {
                problems.warning(origin, format!("`{name}` has no effect: {reason}"));
            }
            Status::NotYetAndDangerous => problems.error(
                origin,
                format!(
                    "`{name}` is known, but not served yet, and starting without what `{shown}` \
                     promises could do harm; remove the key if that is acceptable"
                ),
            ),
        }
    }
}

//! The tables of configuration keys, one for each kind of resource.
//!
//! `broker` and `topic` are the ones operators meet daily; `removed` remembers what older files may
//! still contain.

mod broker;
mod client_metrics;
mod group;
mod removed;
mod topic;
mod words;

pub use broker::BROKER_KEYS;
pub use client_metrics::CLIENT_METRICS_KEYS;
pub use group::GROUP_KEYS;
pub(super) use removed::remedy_for_removed;
pub use removed::{REMOVED_BROKER_KEYS, REMOVED_TOPIC_KEYS, RemovedKey};
pub use topic::TOPIC_KEYS;

use super::key::Key;

/// Finds a key of a table by its name; tables are sorted by name.
pub fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.binary_search_by(|key| key.name.cmp(name)).ok().map(|index| &keys[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value;

    const TABLES: [(&str, &[Key]); 4] = [
        ("broker", BROKER_KEYS),
        ("topic", TOPIC_KEYS),
        ("group", GROUP_KEYS),
        ("client metrics", CLIENT_METRICS_KEYS),
    ];

    #[test]
    fn tables_are_sorted_so_that_they_can_be_searched() {
        for (table, keys) in TABLES {
            for pair in keys.windows(2) {
                assert!(pair[0].name < pair[1].name, "{table}: {}", pair[1].name);
            }
        }
    }

    #[test]
    fn every_default_obeys_its_own_rule() {
        for (table, keys) in TABLES {
            for key in keys {
                if let Some(default) = key.default {
                    let value = Value::parse(key, default);
                    assert!(value.is_ok(), "{table}: {}: {value:?}", key.name);
                }
            }
        }
    }

    #[test]
    fn served_keys_have_a_sentence() {
        for key in BROKER_KEYS.iter().chain(TOPIC_KEYS) {
            if key.status == crate::config::Status::Served {
                assert!(key.doc.ends_with('.'), "{}", key.name);
            }
        }
    }

    #[test]
    fn synonyms_of_topic_and_group_keys_are_broker_keys() {
        for key in TOPIC_KEYS.iter().chain(GROUP_KEYS) {
            for (synonym, _) in key.broker_synonyms {
                assert!(find(BROKER_KEYS, synonym).is_some(), "{}: {synonym}", key.name);
            }
        }
    }

    #[test]
    fn no_removed_key_is_still_in_a_table() {
        for removed in REMOVED_BROKER_KEYS {
            assert!(!BROKER_KEYS.iter().any(|key| match removed.name.ends_with('.') {
                true => key.name.starts_with(removed.name),
                false => key.name == removed.name,
            }));
        }
        for removed in REMOVED_TOPIC_KEYS {
            assert!(find(TOPIC_KEYS, removed.name).is_none(), "{}", removed.name);
        }
    }
}

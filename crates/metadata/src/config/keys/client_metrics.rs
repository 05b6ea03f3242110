//! Every key of a client metrics subscription (KIP-714).
//!
//! One line a key, sorted by name: name, type, default, allowed values, how it may be changed, and
//! what we do with it. A key becomes served by giving it its sentence here.

use crate::config::key::Rule::{Between, Distinct};
use crate::config::key::ValueType::{Int, List};
use crate::config::key::{Key, key};

/// The keys of client metrics subscriptions.
#[rustfmt::skip] // One line a key is easier to scan, compare and sort.
pub static CLIENT_METRICS_KEYS: &[Key] = &[
    key("interval.ms", Int, Some("300000"), Between(100, 3600000)).served("How often clients push their metrics."),
    key("match", List, Some(""), Distinct { of: &[], may_be_empty: true }).served("Which clients: patterns for client_id, client_instance_id, client_software_name, client_software_version, client_source_address, client_source_port."),
    key("metrics", List, Some(""), Distinct { of: &[], may_be_empty: true }).served("Which metrics, by the beginning of their names; * for all."),
];

//! From configuration to what transaction coordinators work with.

use fleuve_coordinator::transaction::{TransactionSettings, TransactionVersion};
use fleuve_metadata::config::BrokerSettings;
use fleuve_metadata::image::{Image, TRANSACTION_VERSION};

/// What holds for transactions, under the feature levels of `image`.
pub(crate) fn transaction_settings(
    settings: &BrokerSettings,
    image: &Image,
) -> TransactionSettings {
    let settings = &settings.transactions;
    let level = image.features().iter().find(|(name, _)| **name == *TRANSACTION_VERSION);
    let level = level.map_or(0, |(_, level)| *level);
    TransactionSettings {
        max_timeout_ms: settings.timeout_max_ms,
        id_expiration_ms: settings.id_expiration_ms,
        abort_timed_out_interval_ms: settings.abort_timed_out_interval_ms,
        remove_expired_interval_ms: settings.remove_expired_interval_ms,
        add_partitions_wait_ms: settings.add_partitions_wait_ms,
        // Levels from the future do not get here: the controller refuses them.
        cluster_version: TransactionVersion::from_level(level).unwrap_or_default(),
    }
}

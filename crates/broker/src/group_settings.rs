//! From configuration to what group coordinators work with: the broker's settings, and what is set
//! on single groups.

use fleuve_coordinator::consumer::Assignor;
use fleuve_coordinator::{
    ConsumerSettings, GroupConfig, GroupConfigs, GroupSettings, MigrationPolicy, ShareSettings,
    StreamsConfig, StreamsSettings, Timing,
};
use fleuve_metadata::config::{BrokerSettings, GroupOverrides, ProtocolSettings};
use fleuve_metadata::image::{Image, ResourceKind};
use fleuve_protocol::Str;
use fleuve_types::NodeId;

/// What holds for groups unless they have configs of their own.
pub(crate) fn group_settings(settings: &BrokerSettings) -> GroupSettings {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (consumer, share) = (&settings.consumer_groups, &settings.share_groups);
    let streams = &settings.streams_groups;
    let assignors = consumer.assignors.iter().filter_map(|name| Assignor::from_name(name));
    GroupSettings {
        min_session_timeout_ms: settings.groups.session_timeout_min_ms,
        max_session_timeout_ms: settings.groups.session_timeout_max_ms,
        initial_rebalance_delay_ms: settings.groups.initial_rebalance_delay_ms,
        max_size: settings.groups.members_max,
        offset_metadata_max_bytes: settings.offsets.metadata_bytes_max,
        offsets_retention_ms: signed(settings.offsets.retention_ms),
        offsets_retention_check_interval_ms: signed(settings.offsets.retention_check_interval_ms),
        consumer: ConsumerSettings {
            timing: timing(&consumer.protocol),
            max_size: consumer.protocol.members_max,
            assignors: assignors.collect(),
            // The configuration knows no other names.
            migration: MigrationPolicy::from_name(&consumer.migration_policy).unwrap_or_default(),
            regex_refresh_interval_ms: consumer.regex_refresh_interval_ms,
        },
        share: ShareSettings {
            timing: timing(&share.protocol),
            max_size: share.protocol.members_max,
            initialize_retry_interval_ms: share.initialize_retry_interval_ms,
        },
        streams: StreamsSettings {
            timing: timing(&streams.protocol),
            max_size: streams.protocol.members_max,
            standby_replicas: streams.standby_replicas,
            initial_rebalance_delay_ms: streams.initial_rebalance_delay_ms,
        },
    }
}

/// What is set on single groups.
pub(crate) fn group_configs(
    static_settings: &BrokerSettings,
    image: &Image,
    node: i32,
) -> GroupConfigs {
    let node_configs = image.broker_configs(NodeId(node));
    let cluster_configs = image.cluster_configs();
    let layers = static_settings.layers(&node_configs, &cluster_configs);
    let groups =
        image.configs().iter().filter(|(resource, _)| resource.kind == ResourceKind::Group);
    groups
        .map(|(resource, configs)| {
            let overrides = GroupOverrides { configs, layers: &layers };
            (Str::copy_from(&resource.name), group_config(&overrides))
        })
        .collect()
}

fn group_config(overrides: &GroupOverrides<'_>) -> GroupConfig {
    let timing = |protocol: &str| Timing {
        session_timeout_ms: overrides.integer(&format!("{protocol}.session.timeout.ms")),
        heartbeat_interval_ms: overrides.integer(&format!("{protocol}.heartbeat.interval.ms")),
        assignment_interval_ms: overrides.integer(&format!("{protocol}.assignment.interval.ms")),
    };
    GroupConfig {
        consumer: timing("consumer"),
        share: timing("share"),
        streams: StreamsConfig {
            timing: timing("streams"),
            standby_replicas: overrides.integer("streams.num.standby.replicas"),
            initial_rebalance_delay_ms: overrides.integer("streams.initial.rebalance.delay.ms"),
        },
    }
}

fn timing(protocol: &ProtocolSettings) -> Timing<i32> {
    Timing {
        session_timeout_ms: protocol.session_timeout_ms,
        heartbeat_interval_ms: protocol.heartbeat_interval_ms,
        assignment_interval_ms: protocol.assignment_interval_ms,
    }
}

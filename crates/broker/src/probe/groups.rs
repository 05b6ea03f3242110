//! Families about groups: Kafka's coordinator, kafka_exporter's, Burrow's.

use std::collections::BTreeMap;

use fleuve_coordinator::Overview;
use fleuve_http::{Exposition, Kind};

use crate::node::Node;

/// Partitions of groups that get a label of their own; the rest is in the sums only.
const LABELLED_OFFSETS_MAX: usize = 5000;
/// Groups that get a label of their own.
const LABELLED_GROUPS_MAX: usize = 2000;
/// States that have a family of their own in Kafka, also when no group is in them.
const STATES: [&str; 9] = [
    "PreparingRebalance",
    "CompletingRebalance",
    "Stable",
    "Empty",
    "Dead",
    "Assigning",
    "Reconciling",
    "NotReady",
    "Initializing",
];

/// Adds everything about groups.
pub(super) fn write(page: &mut Exposition, node: &Node) {
    let mut groups: Vec<Overview> = Vec::new();
    let (mut commits, mut rebalances, mut expired) = (0, 0, 0);
    let (mut deletions, mut expirations, mut offsets) = (0, 0, 0);
    for shard in node.groups.shards() {
        shard.read(|machine| {
            // A shard that is loading has nothing to say yet.
            groups.extend(machine.overviews().unwrap_or_default());
            offsets += machine.ledger().offset_count();
            let counters = machine.counters();
            commits += counters.offset_commits;
            rebalances += counters.rebalances_completed;
            expired += counters.members_expired;
            deletions += counters.offset_deletions;
            expirations += counters.offsets_expired;
        });
    }
    groups.sort_unstable_by(|left, right| left.group_id.cmp(&right.group_id));
    write_states(page, &groups, offsets);
    let counters = [
        ("offset_commit_count", "Offsets committed.", commits),
        ("offset_expiration_count", "Offsets whose retention ended.", expirations),
        ("offset_deletion_count", "Offsets deleted on request or with their group.", deletions),
        ("group_completed_rebalance_count", "Rebalances completed.", rebalances),
        ("group_expired_member_count", "Members that went silent.", expired),
    ];
    for (name, help, value) in counters {
        let name = format!("kafka_server_group_coordinator_metrics_{name}");
        page.family(&name, Kind::Counter, help).sample(&[], value as f64);
    }
    write_lag(page, node, &groups);
    write_burrow(page, node, &groups);
}

fn write_states(page: &mut Exposition, groups: &[Overview], offsets: usize) {
    const PREFIX: &str = "kafka_coordinator_group_groupmetadatamanager";
    let mut states: BTreeMap<&str, usize> = STATES.iter().map(|state| (*state, 0)).collect();
    let mut kinds: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for group in groups {
        *states.entry(group.state.name()).or_default() += 1;
        *kinds.entry((group.group_type, group.state.name())).or_default() += 1;
    }
    let mut gauge = |name: &str, help: &str, value: usize| {
        page.family(&format!("{PREFIX}_{name}"), Kind::Gauge, help).sample(&[], value as f64);
    };
    gauge("numgroups", "Groups.", groups.len());
    gauge("numoffsets", "Committed offsets.", offsets);
    for (state, count) in states {
        let name = format!("numgroups{}", state.to_ascii_lowercase());
        gauge(&name, &format!("Groups in state {state}."), count);
    }
    page.family(
        "kafka_server_group_coordinator_metrics_group_count",
        Kind::Gauge,
        "Groups by protocol and state.",
    );
    for ((protocol, state), count) in kinds {
        page.sample(&[("protocol", protocol), ("state", state)], count as f64);
    }
}

/// One partition of a group.
struct Row<'a> {
    group: &'a str,
    topic: &'a str,
    partition: String,
    offset: i64,
    lag: i64,
}

fn write_lag(page: &mut Exposition, node: &Node, groups: &[Overview]) {
    let mut rows = Vec::new();
    let mut sums: Vec<(&str, &str, i64, i64)> = Vec::new();
    for group in groups.iter().take(LABELLED_GROUPS_MAX) {
        for (name, partition, offset) in &group.offsets {
            let topic = node.topics.by_name(name);
            let held = topic.as_ref().and_then(|topic| topic.partition(*partition));
            // As kafka_exporter does for partitions whose end it does not know.
            let lag = held.map_or(-1, |held| (held.high_watermark() - offset).max(0));
            match sums.last_mut() {
                Some((id, topic, offsets, lags))
                    if **id == *group.group_id && **topic == **name =>
                {
                    *offsets += offset;
                    *lags += lag.max(0);
                }
                _ => sums.push((&group.group_id, name, *offset, lag.max(0))),
            }
            if rows.len() < LABELLED_OFFSETS_MAX {
                let partition = partition.to_string();
                rows.push(Row {
                    group: &group.group_id,
                    topic: name,
                    partition,
                    offset: *offset,
                    lag,
                });
            }
        }
    }
    type Read = fn(&Row<'_>) -> i64;
    let families: [(&str, &str, Read); 2] = [
        ("current_offset", "Offset that a group has committed.", |row| row.offset),
        ("lag", "Records that a group has not read yet.", |row| row.lag),
    ];
    for (name, help, read) in families {
        page.family(&format!("kafka_consumergroup_{name}"), Kind::Gauge, help);
        for row in &rows {
            let labels =
                [("consumergroup", row.group), ("topic", row.topic), ("partition", &row.partition)];
            page.sample(&labels, read(row) as f64);
        }
    }
    type ReadSum = fn(&(&str, &str, i64, i64)) -> i64;
    let families: [(&str, &str, ReadSum); 2] = [
        ("current_offset_sum", "Offsets that a group has committed, summed up.", |sum| sum.2),
        ("lag_sum", "Records of a topic that a group has not read yet.", |sum| sum.3),
    ];
    for (name, help, read) in families {
        page.family(&format!("kafka_consumergroup_{name}"), Kind::Gauge, help);
        for sum in &sums {
            page.sample(&[("consumergroup", sum.0), ("topic", sum.1)], read(sum) as f64);
        }
    }
    page.family("kafka_consumergroup_members", Kind::Gauge, "Members of a group.");
    for group in groups.iter().take(LABELLED_GROUPS_MAX) {
        page.sample(&[("consumergroup", &group.group_id)], group.members as f64);
    }
}

fn write_burrow(page: &mut Exposition, node: &Node, groups: &[Overview]) {
    let cluster = node.image().cluster_id().clone();
    let judged: Vec<_> = groups
        .iter()
        .take(LABELLED_GROUPS_MAX)
        .filter_map(|group| Some((&group.group_id, node.lags.evaluate(&group.group_id)?)))
        .collect();
    page.family("burrow_kafka_consumer_status", Kind::Gauge, "1 is OK, 2 WARN, 3 ERR.");
    for (group, lag) in &judged {
        let labels = [("cluster", &*cluster), ("consumer_group", &**group)];
        page.sample(&labels, f64::from(lag.state.code()));
    }
    page.family("burrow_kafka_consumer_lag_total", Kind::Gauge, "Lag of all partitions.");
    for (group, lag) in &judged {
        let labels = [("cluster", &*cluster), ("consumer_group", &**group)];
        page.sample(&labels, lag.total_lag() as f64);
    }
    type Read = fn(&fleuve_coordinator::lag::PartitionLag) -> f64;
    let families: [(&str, &str, Read); 3] = [
        ("consumer_current_offset", "The last offset that a group has committed.", |partition| {
            partition.samples.last().map_or(f64::NAN, |sample| sample.offset as f64)
        }),
        ("consumer_partition_lag", "Records that a group has not read yet.", |partition| {
            partition.current_lag as f64
        }),
        ("topic_partition_status", "1 is OK, 2 WARN, 4 STOP, 5 STALL, 6 REWIND.", |partition| {
            f64::from(partition.state.code())
        }),
    ];
    for (name, help, read) in families {
        page.family(&format!("burrow_kafka_{name}"), Kind::Gauge, help);
        let rows = judged.iter().flat_map(|(group, lag)| {
            lag.partitions.iter().map(move |partition| (group, partition))
        });
        for (group, partition) in rows.take(LABELLED_OFFSETS_MAX) {
            let index = partition.partition.to_string();
            let labels = [
                ("cluster", &*cluster),
                ("consumer_group", &**group),
                ("topic", &*partition.topic),
                ("partition", index.as_str()),
            ];
            page.sample(&labels, read(partition));
        }
    }
}

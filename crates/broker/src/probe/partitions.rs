//! Families about partitions: Kafka's logs and replicas, kafka_exporter's topics.

use std::sync::Arc;

use fleuve_http::{Exposition, Kind};

use crate::node::Node;
use crate::partition::Partition;
use crate::topics::Topic;

/// Partitions that get labels of their own; the rest is in the totals only.
const LABELLED_PARTITIONS_MAX: usize = 2000;

/// Adds everything about partitions.
pub(super) fn write(page: &mut Exposition, node: &Node, topics: &[Arc<Topic>]) {
    write_totals(page, topics);
    let labelled = topics.iter().flat_map(|topic| &topic.partitions).take(LABELLED_PARTITIONS_MAX);
    let labelled: Vec<_> = labelled.map(|it| (it, it.name().partition.to_string())).collect();
    // With one copy of each partition there is nothing to be behind.
    let one: Read = |_| 1.0;
    let zero: Read = |_| 0.0;
    let leader = f64::from(node.id);
    let families: [(&str, &str, Read); 15] = [
        ("kafka_log_log_size", "Bytes of a partition's segments.", |it| {
            it.size().map_or(f64::NAN, |bytes| bytes as f64)
        }),
        ("kafka_log_log_numlogsegments", "Segments of a partition.", |it| {
            it.segment_count() as f64
        }),
        ("kafka_log_log_logstartoffset", "First offset of a partition.", |it| {
            it.log_start_offset() as f64
        }),
        ("kafka_log_log_logendoffset", "Next offset of a partition.", |it| {
            it.log_end_offset() as f64
        }),
        ("kafka_cluster_partition_replicascount", "Copies of a partition.", one),
        ("kafka_cluster_partition_insyncreplicascount", "Copies that are in sync.", one),
        ("kafka_cluster_partition_underreplicated", "1 if copies are behind.", zero),
        ("kafka_cluster_partition_underminisr", "1 if below min.insync.replicas.", zero),
        // Kafka asks for no more copies in sync than there are.
        ("kafka_cluster_partition_atminisr", "1 if exactly at min.insync.replicas.", one),
        (
            "kafka_topic_partition_current_offset",
            "The offset that consumers can read up to.",
            |it| it.high_watermark() as f64,
        ),
        ("kafka_topic_partition_oldest_offset", "First offset of a partition.", |it| {
            it.log_start_offset() as f64
        }),
        ("kafka_topic_partition_replicas", "Copies of a partition.", one),
        ("kafka_topic_partition_in_sync_replica", "Copies that are in sync.", one),
        ("kafka_topic_partition_leader_is_preferred", "1 if the first replica leads.", one),
        ("kafka_topic_partition_under_replicated_partition", "1 if copies are behind.", zero),
    ];
    for (name, help, read) in families {
        page.family(name, Kind::Gauge, help);
        for (partition, index) in &labelled {
            let labels = [("topic", &*partition.name().topic), ("partition", index.as_str())];
            page.sample(&labels, read(partition));
        }
    }
    page.family("kafka_topic_partition_leader", Kind::Gauge, "The broker that leads.");
    for (partition, index) in &labelled {
        let labels = [("topic", &*partition.name().topic), ("partition", index.as_str())];
        page.sample(&labels, leader);
    }
    let cluster = node.image().cluster_id().clone();
    page.family("burrow_kafka_topic_partition_offset", Kind::Gauge, "End of a partition.");
    for (partition, index) in &labelled {
        let labels = [
            ("cluster", &*cluster),
            ("topic", &*partition.name().topic),
            ("partition", index.as_str()),
        ];
        page.sample(&labels, partition.high_watermark() as f64);
    }
    page.family("kafka_topic_partitions", Kind::Gauge, "Partitions of a topic.");
    for topic in topics.iter().take(LABELLED_PARTITIONS_MAX) {
        page.sample(&[("topic", &*topic.name)], topic.partitions.len() as f64);
    }
}

type Read = fn(&Partition) -> f64;

fn write_totals(page: &mut Exposition, topics: &[Arc<Topic>]) {
    let (mut count, mut offline, mut producers) = (0, 0, 0);
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        count += 1;
        offline += usize::from(partition.has_failed());
        producers += partition.producer_count();
    }
    let gauges = [
        ("partitioncount", "Partitions on this broker.", count),
        ("leadercount", "Partitions that this broker leads.", count - offline),
        ("offlinereplicacount", "Partitions whose log has failed.", offline),
        ("underreplicatedpartitions", "Partitions short of replicas.", 0),
        ("underminisrpartitioncount", "Partitions below min.insync.replicas.", 0),
        ("atminisrpartitioncount", "Partitions exactly at min.insync.replicas.", count),
        ("reassigningpartitions", "Partitions that are being moved.", 0),
        ("produceridcount", "Producers whose sequences are remembered.", producers),
    ];
    for (name, help, value) in gauges {
        let name = format!("kafka_server_replicamanager_{name}");
        page.family(&name, Kind::Gauge, help).sample(&[], value as f64);
    }
    let counters = [
        ("isrexpands", "Replicas that came into sync."),
        ("isrshrinks", "Replicas that fell out of sync."),
        ("failedisrupdates", "Changes of in-sync replicas that failed."),
    ];
    for (name, help) in counters {
        let name = format!("kafka_server_replicamanager_{name}_total");
        page.family(&name, Kind::Counter, help).sample(&[], 0.0);
    }
}

//! What a broker tells the HTTP door: metrics and readiness.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleuve_http::{Exposition, Kind, Probe};

use crate::connection::ConnectionGate;
use crate::dispatch::APIS;
use crate::metrics::{write_requests, write_topics};
use crate::node::Node;
use crate::topics::Topic;

/// Partitions whose size is reported one by one; the rest is in the totals only.
const LABELLED_PARTITIONS_MAX: usize = 2000;

/// Looks at a broker when somebody asks.
#[derive(Debug)]
pub(crate) struct NodeProbe {
    node: Arc<Node>,
    gate: Arc<ConnectionGate>,
}

impl NodeProbe {
    /// Looks at `node`, and at `gate` for its connections.
    pub(crate) fn new(node: Arc<Node>, gate: Arc<ConnectionGate>) -> Self {
        Self { node, gate }
    }

    fn write_partitions(&self, page: &mut Exposition, topics: &[Arc<Topic>]) {
        let partitions: Vec<_> = topics.iter().flat_map(|topic| &topic.partitions).collect();
        let count = partitions.len() as f64;
        let offline = partitions.iter().filter(|partition| partition.has_failed()).count() as f64;
        let gauges = [
            ("replicamanager_partitioncount", "Partitions on this broker.", count),
            ("replicamanager_leadercount", "Partitions that this broker leads.", count),
            ("replicamanager_underreplicatedpartitions", "Partitions short of replicas.", 0.0),
            ("replicamanager_underminisrpartitioncount", "Partitions below min.insync.", 0.0),
            ("replicamanager_offlinereplicacount", "Partitions whose log has failed.", offline),
        ];
        for (name, help, value) in gauges {
            let name = format!("kafka_server_{name}");
            page.family(&name, Kind::Gauge, help).sample(&[], value);
        }
        type Read = fn(&crate::partition::Partition) -> f64;
        let families: [(&str, &str, Read); 3] = [
            ("kafka_log_log_size", "Bytes of a partition's segments.", |partition| {
                partition.size().map_or(f64::NAN, |bytes| bytes as f64)
            }),
            ("kafka_log_log_logstartoffset", "First offset of a partition.", |partition| {
                partition.log_start_offset() as f64
            }),
            ("kafka_log_log_logendoffset", "Next offset of a partition.", |partition| {
                partition.log_end_offset() as f64
            }),
        ];
        for (name, help, read) in families {
            page.family(name, Kind::Gauge, help);
            for partition in partitions.iter().take(LABELLED_PARTITIONS_MAX) {
                let index = partition.name().partition.to_string();
                let labels = [("topic", &*partition.name().topic), ("partition", index.as_str())];
                page.sample(&labels, read(partition));
            }
        }
    }

    fn write_groups(&self, page: &mut Exposition) {
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut commits, mut rebalances, mut expired) = (0, 0, 0);
        for shard in self.node.groups.shards() {
            shard.read(|machine| {
                for (state, count) in machine.groups_by_state() {
                    *states.entry(state.name()).or_default() += count;
                }
                let counters = machine.counters();
                commits += counters.offset_commits;
                rebalances += counters.rebalances_completed;
                expired += counters.members_expired;
            });
        }
        let total: usize = states.values().sum();
        let prefix = "kafka_coordinator_group_groupmetadatamanager";
        page.family(&format!("{prefix}_numgroups"), Kind::Gauge, "Groups.")
            .sample(&[], total as f64);
        page.family(&format!("{prefix}_groups"), Kind::Gauge, "Groups by state.");
        for (state, count) in states {
            page.sample(&[("state", state)], count as f64);
        }
        let counters = [
            ("offset_commits_total", "Offsets committed.", commits),
            ("group_completed_rebalances_total", "Rebalances completed.", rebalances),
            ("group_expired_members_total", "Members that went silent.", expired),
        ];
        for (name, help, value) in counters {
            let name = format!("kafka_server_group_coordinator_metrics_{name}");
            page.family(&name, Kind::Counter, help).sample(&[], value as f64);
        }
    }
}

impl Probe for NodeProbe {
    fn write_metrics(&self, page: &mut Exposition) {
        let node = &self.node;
        let topics = node.topics.all();
        let counters: Vec<_> = topics
            .iter()
            .map(|topic| (Arc::from(topic.name.as_str()), Arc::clone(&topic.counters)))
            .collect();
        write_topics(page, &node.counters, &counters);
        let requests = APIS.iter().map(|api| api.key.name()).zip(&node.request_counters);
        write_requests(page, requests);
        self.write_partitions(page, &topics);
        self.write_groups(page);
        node.compaction.write(page, &*node.clock);

        let (produce, fetch) = node.purgatory.sizes();
        page.family(
            "kafka_server_delayedoperationpurgatory_purgatorysize",
            Kind::Gauge,
            "Requests that wait.",
        )
        .sample(&[("delayedoperation", "Produce")], produce as f64)
        .sample(&[("delayedoperation", "Fetch")], fetch as f64);
        let (sessions, cached, evictions) = node.sessions.usage();
        let gauges = [
            ("kafka_server_fetchsessioncache_numincrementalfetchsessions", "Sessions.", sessions),
            (
                "kafka_server_fetchsessioncache_numincrementalfetchpartitionscached",
                "Partitions in sessions.",
                cached,
            ),
            (
                "kafka_server_socket_server_metrics_connection_count",
                "Connections.",
                self.gate.open(),
            ),
            ("kafka_controller_kafkacontroller_activecontrollercount", "Active controllers.", 1),
            ("kafka_controller_kafkacontroller_offlinepartitionscount", "Leaderless.", 0),
            ("kafka_controller_kafkacontroller_globaltopiccount", "Topics.", topics.len()),
        ];
        for (name, help, value) in gauges {
            page.family(name, Kind::Gauge, help).sample(&[], value as f64);
        }
        if let Some(flusher) = node.flusher.upgrade() {
            let flushes = flusher.flushes() as f64;
            page.family("kafka_log_logflushstats_logflush_total", Kind::Counter, "Flushes.")
                .sample(&[], flushes);
        }
        page.family(
            "kafka_server_fetchsessioncache_incrementalfetchsessionevictions_total",
            Kind::Counter,
            "Sessions that made room for others.",
        )
        .sample(&[], evictions as f64);
    }

    fn readiness(&self) -> Result<(), String> {
        if self.node.is_stopping() {
            return Err("the broker is stopping".to_owned());
        }
        let topics = self.node.topics.all();
        let failed = topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .find(|partition| partition.has_failed());
        match failed {
            Some(partition) => Err(format!("the log of {} has failed", partition.name())),
            None => Ok(()),
        }
    }
}

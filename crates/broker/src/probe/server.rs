//! Families about the broker itself: connections, threads, waiting requests, flushes, metadata.

use std::sync::Arc;

use fleuve_http::{Exposition, Kind};
use fleuve_metadata::image::Topic as TopicImage;

use super::NodeProbe;
use crate::node::Node;

/// Kafka's number for a broker that runs, and for one that is on its way down.
const RUNNING: f64 = 3.0;
const SHUTTING_DOWN: f64 = 6.0;

/// Adds everything about the broker itself.
pub(super) fn write(page: &mut Exposition, probe: &NodeProbe) {
    let node = &probe.node;
    write_connections(page, node);
    write_authentications(page, node);
    write_threads(page, probe);
    write_waiting(page, node);
    write_sessions(page, node);
    write_logs(page, node);
    write_controller(page, node);
    write_raft(page, probe);
    let state = if node.is_stopping() { SHUTTING_DOWN } else { RUNNING };
    page.family("kafka_server_kafkaserver_brokerstate", Kind::Gauge, "3 is running, 6 stopping.")
        .sample(&[], state);
    if let Some((read, written)) = disk_bytes() {
        for (name, help, bytes) in [
            ("read", "Bytes that this process has had read from disks.", read),
            ("write", "Bytes that this process has had written to disks.", written),
        ] {
            let name = format!("kafka_server_kafkaserver_linux_disk_{name}_bytes");
            page.family(&name, Kind::Gauge, help).sample(&[], bytes as f64);
        }
    }
    page.family("kafka_brokers", Kind::Gauge, "Brokers of the cluster.")
        .sample(&[], node.image().brokers().len() as f64);
    page.family("kafka_broker_info", Kind::Gauge, "Brokers with their addresses.");
    for broker in node.image().brokers().values() {
        if let Some(endpoint) = broker.endpoints.first() {
            let (id, address) =
                (broker.id.0.to_string(), format!("{}:{}", endpoint.host, endpoint.port));
            page.sample(&[("id", &id), ("address", &address)], 1.0);
        }
    }
    page.family("fleuve_build_info", Kind::Gauge, "The version that runs.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
}

fn write_connections(page: &mut Exposition, node: &Node) {
    type Read = fn(&crate::node::ListenerState) -> f64;
    let families: [(&str, Kind, &str, Read); 3] = [
        ("count", Kind::Gauge, "Connections that are open.", |it| {
            (it.opened.get() - it.closed.get()) as f64
        }),
        ("creation_total", Kind::Counter, "Connections accepted.", |it| it.opened.get() as f64),
        ("close_total", Kind::Counter, "Connections ended.", |it| it.closed.get() as f64),
    ];
    for (name, kind, help, read) in families {
        page.family(&format!("kafka_server_socket_server_metrics_connection_{name}"), kind, help);
        for listener in node.listeners.read().iter() {
            // Kafka counts by network thread; ours are not bound to connections.
            page.sample(&[("listener", &listener.name), ("networkProcessor", "0")], read(listener));
        }
    }
}

/// How clients have fared that had to say who they are.
fn write_authentications(page: &mut Exposition, node: &Node) {
    let listeners = node.listeners.read();
    let totals: Vec<_> = listeners.iter().map(|it| it.authentications.totals()).collect();
    let Some(families) = totals.first() else { return };
    for (index, (name, help, _)) in families.iter().enumerate() {
        page.family(&format!("kafka_server_socket_server_metrics_{name}"), Kind::Counter, help);
        for (listener, totals) in listeners.iter().zip(&totals) {
            let labels = [("listener", listener.name.as_str()), ("networkProcessor", "0")];
            page.sample(&labels, totals[index].2 as f64);
        }
    }
}

fn write_threads(page: &mut Exposition, probe: &NodeProbe) {
    // The same threads do both.
    let idle = probe.idle();
    for name in [
        "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent",
        "kafka_network_socketserver_networkprocessoravgidle_percent",
    ] {
        page.family(name, Kind::Gauge, "Share of time in which threads were idle, 0 to 1.")
            .sample(&[], idle);
    }
    // Requests are handled on the thread that read them, so none waits in a queue between threads.
    for name in ["requestqueuesize", "responsequeuesize"] {
        let name = format!("kafka_network_requestchannel_{name}");
        page.family(&name, Kind::Gauge, "Requests between threads: always 0.").sample(&[], 0.0);
    }
}

fn write_waiting(page: &mut Exposition, node: &Node) {
    let (produce, fetch) = node.purgatory.sizes();
    for name in ["purgatorysize", "numdelayedoperations"] {
        let name = format!("kafka_server_delayedoperationpurgatory_{name}");
        page.family(&name, Kind::Gauge, "Requests that wait.")
            .sample(&[("delayedOperation", "Produce")], produce as f64)
            .sample(&[("delayedOperation", "Fetch")], fetch as f64);
    }
    let (produce, fetch) = node.purgatory.expired();
    page.family(
        "kafka_server_delayedproducemetrics_expires_total",
        Kind::Counter,
        "Produce requests that waited for their full timeout.",
    )
    .sample(&[], produce as f64);
    page.family(
        "kafka_server_delayedfetchmetrics_expires_total",
        Kind::Counter,
        "Fetches that waited for their full timeout.",
    )
    .sample(&[("fetcherType", "consumer")], fetch as f64);
}

fn write_sessions(page: &mut Exposition, node: &Node) {
    let (sessions, cached, evictions) = node.sessions.usage();
    page.family(
        "kafka_server_sharesessioncache_sharesessionscount",
        Kind::Gauge,
        "Share sessions.",
    )
    .sample(&[], node.shares.sessions.count() as f64);
    let prefix = "kafka_server_fetchsessioncache";
    page.family(&format!("{prefix}_numincrementalfetchsessions"), Kind::Gauge, "Sessions.")
        .sample(&[], sessions as f64);
    page.family(
        &format!("{prefix}_numincrementalfetchpartitionscached"),
        Kind::Gauge,
        "Partitions in sessions.",
    )
    .sample(&[], cached as f64);
    page.family(
        &format!("{prefix}_incrementalfetchsessionevictions_total"),
        Kind::Counter,
        "Sessions that made room for others.",
    )
    .sample(&[], evictions as f64);
}

fn write_logs(page: &mut Exposition, node: &Node) {
    page.family(
        "kafka_log_logflushstats_logflushrateandtimems",
        Kind::Summary,
        "Milliseconds that flushes took.",
    );
    node.flush_times.write(page, &[]);
    if let Some(flusher) = node.surroundings.flusher.upgrade() {
        page.family("fleuve_flush_failures_total", Kind::Counter, "Flushes that failed.")
            .sample(&[], flusher.failures() as f64);
    }
    let directories: Vec<_> = node.logs.manager().directories().collect();
    let offline = directories.iter().filter(|directory| directory.failure.is_some()).count();
    page.family(
        "kafka_log_logmanager_offlinelogdirectorycount",
        Kind::Gauge,
        "Data directories that are out of use.",
    )
    .sample(&[], offline as f64);
    page.family(
        "kafka_log_logmanager_logdirectoryoffline",
        Kind::Gauge,
        "1 if this data directory is out of use.",
    );
    for directory in &directories {
        let shown = directory.path.display().to_string();
        page.sample(&[("logDirectory", &shown)], f64::from(directory.failure.is_some()));
    }
    page.family("fleuve_log_directory_free_bytes", Kind::Gauge, "Room left for data.");
    for directory in &directories {
        if let Some(free) = node.logs.space(&directory.path).free {
            page.sample(&[("log_directory", &directory.path.display().to_string())], free as f64);
        }
    }
    write_reserves(page, node);
}

fn write_reserves(page: &mut Exposition, node: &Node) {
    page.family(
        "fleuve_log_directory_full",
        Kind::Gauge,
        "1 while the disk is full and records from clients are refused.",
    );
    for directory in node.logs.manager().directories() {
        let is_short = node.logs.reserve.is_short(&directory.path);
        let shown = directory.path.display().to_string();
        page.sample(&[("log_directory", &shown)], f64::from(is_short));
    }
}

fn write_controller(page: &mut Exposition, node: &Node) {
    let image = node.image();
    let partitions: usize = image.topics().iter().map(|topic| topic.partitions().len()).sum();
    let leaderless = |topic: &Arc<TopicImage>| {
        topic.partitions().iter().filter(|partition| partition.leader.is_none()).count()
    };
    let offline: usize = image.topics().iter().map(leaderless).sum();
    let active = image.brokers().values().filter(|broker| broker.is_active()).count();
    let fenced = image.brokers().values().filter(|broker| broker.is_fenced).count();
    let gauges = [
        ("activecontrollercount", "1 on the broker that leads the metadata.", 1),
        ("activebrokercount", "Brokers that take part.", active),
        ("fencedbrokercount", "Brokers that do not take part.", fenced),
        ("globaltopiccount", "Topics.", image.topics().len()),
        ("globalpartitioncount", "Partitions.", partitions),
        ("offlinepartitionscount", "Partitions without a leader.", offline),
        ("preferredreplicaimbalancecount", "Partitions led by another than the first replica.", 0),
        ("metadataerrorcount", "Errors while reading metadata.", 0),
        ("lastappliedrecordoffset", "Last metadata record in force.", applied(node)),
        ("lastcommittedrecordoffset", "Last metadata record that is durable.", committed(node)),
    ];
    for (name, help, value) in gauges {
        let name = format!("kafka_controller_kafkacontroller_{name}");
        page.family(&name, Kind::Gauge, help).sample(&[], value as f64);
    }
    page.family(
        "kafka_controller_controllerstats_uncleanleaderelections_total",
        Kind::Counter,
        "Leaders chosen among replicas that were behind.",
    )
    .sample(&[], 0.0);
    let prefix = "kafka_server_brokermetadatametrics";
    let gauges = [
        ("last_applied_record_offset", "Last metadata record in force.", applied(node)),
        ("metadata_load_error_count", "Metadata that could not be read.", 0),
        ("metadata_apply_error_count", "Metadata that did not fit.", 0),
    ];
    for (name, help, value) in gauges {
        page.family(&format!("{prefix}_{name}"), Kind::Gauge, help).sample(&[], value as f64);
    }
}

fn applied(node: &Node) -> usize {
    usize::try_from(node.metadata.end_offset() - 1).unwrap_or(0)
}

fn committed(node: &Node) -> usize {
    usize::try_from(node.metadata.partition().high_watermark() - 1).unwrap_or(0)
}

fn write_raft(page: &mut Exposition, probe: &NodeProbe) {
    let node = &probe.node;
    let log = node.metadata.partition();
    let id = f64::from(node.id);
    let prefix = "kafka_server_raftmetrics";
    let gauges = [
        ("current_leader", "The node that leads the metadata log.", id),
        ("current_vote", "The node that was voted for.", id),
        ("current_epoch", "The epoch of its leadership.", f64::from(log.leader_epoch())),
        (
            "high_watermark",
            "End of what is durable in the metadata log.",
            log.high_watermark() as f64,
        ),
        ("log_end_offset", "End of the metadata log.", log.log_end_offset() as f64),
        ("number_of_voters", "Nodes that vote.", 1.0),
        ("append_records_rate", "Metadata records written per second.", probe.metadata_rate()),
        ("fetch_records_rate", "Metadata records fetched per second.", 0.0),
    ];
    for (name, help, value) in gauges {
        page.family(&format!("{prefix}_{name}"), Kind::Gauge, help).sample(&[], value);
    }
    page.family(&format!("{prefix}_current_state"), Kind::Gauge, "1 for the state it is in.")
        .sample(&[("current_state", "leader")], 1.0);
    let (count, sum_ms) = node.metadata.commit_times.totals();
    let average = if count == 0 { 0.0 } else { sum_ms / count as f64 };
    page.family(
        &format!("{prefix}_commit_latency_avg"),
        Kind::Gauge,
        "Milliseconds until a change of metadata was durable, on average.",
    )
    .sample(&[], average);
    for (name, help) in [
        ("incoming_byte_total", "Bytes from other nodes of the quorum."),
        ("outgoing_byte_total", "Bytes to other nodes of the quorum."),
        ("request_total", "Requests to other nodes of the quorum."),
        ("response_total", "Answers from other nodes of the quorum."),
    ] {
        let name = format!("kafka_server_raftchannelmetrics_{name}");
        page.family(&name, Kind::Counter, help).sample(&[], 0.0);
    }
}

/// Bytes that the kernel read and wrote for this process.
fn disk_bytes() -> Option<(u64, u64)> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    let value = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().parse::<u64>().ok()
    };
    Some((value("read_bytes")?, value("write_bytes")?))
}

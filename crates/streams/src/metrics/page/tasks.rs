//! Tasks, their nodes, and the topics that they read and write.

use std::collections::BTreeMap;

use fleuve_http::Kind;

use super::{AVERAGE, GREATEST, LEAST, Labels, SERIES_MAX, Writer, labels};
use crate::metrics::{Emission, NodeMetrics, Summary, TaskMetrics};

/// Something that is measured of a task.
type Measured = (&'static str, &'static str, fn(&TaskMetrics) -> Summary);

/// Something that is counted of a task.
type Total = (&'static str, &'static str, fn(&TaskMetrics) -> u64);

const TOTALS: [Total; 4] = [
    ("process", "records processed", |task| task.processed()),
    ("dropped_records", "records dropped", |task| task.dropped.values().sum()),
    ("punctuate", "calls of processors by time", |task| task.punctuations),
    ("enforced_processing", "records processed though an input had none", |task| task.enforced),
];

const MEASURED: [Measured; 3] = [
    ("process_latency", "Nanoseconds that a record takes", |task| task.process_time),
    ("punctuate_latency", "Nanoseconds that a call by time takes", |task| task.punctuate_time),
    ("record_lateness", "Milliseconds that a record is behind event time", |task| task.lateness),
];

impl Writer<'_> {
    pub(super) fn tasks(&mut self, tasks: &[TaskMetrics]) {
        let name = |suffix: &str| format!("kafka_streams_stream_task_metrics_{suffix}");
        for (what, help, total) in TOTALS {
            self.counted(&name(what), help, tasks, |task| (labels(task), total(task)));
        }
        for (what, help, spread) in MEASURED {
            self.measured((&name(what), help, 1.0), &[AVERAGE, GREATEST], tasks, |task| {
                (labels(task), spread(task))
            });
        }
        let mut spent: BTreeMap<usize, i64> = BTreeMap::new();
        for task in tasks {
            *spent.entry(task.thread).or_default() += task.process_time.sum;
        }
        self.gauges(
            &name("active_process_ratio"),
            "Share of the time that the thread's tasks took lately.",
            tasks.iter().map(|task| {
                let all = spent.get(&task.thread).copied().unwrap_or(0).max(1);
                (labels(task), task.process_time.sum as f64 / all as f64)
            }),
        );
        self.gauges(
            &name("active_buffer_count"),
            "Records that wait in memory.",
            tasks.iter().map(|task| {
                let buffered = task.inputs.iter().map(|input| input.buffered as f64).sum();
                (labels(task), buffered)
            }),
        );
        self.gauges(
            &name("cache_size_bytes_total"),
            "Bytes in caches.",
            tasks.iter().map(|task| {
                let bytes = task.stores.iter().map(|store| store.cached_bytes as f64).sum();
                (labels(task), bytes)
            }),
        );
        self.page.family(
            "fleuve_streams_dropped_records_total",
            Kind::Counter,
            "Records dropped, by reason.",
        );
        for task in tasks {
            for (reason, count) in &task.dropped {
                let labels = [("task_id", task.task.as_str()), ("reason", reason)];
                self.page.sample(&labels, *count as f64);
            }
        }
    }

    pub(super) fn nodes(&mut self, tasks: &[TaskMetrics]) {
        let name = |suffix: &str| format!("kafka_streams_stream_processor_node_metrics_{suffix}");
        let nodes: Vec<(Labels, &NodeMetrics)> = tasks
            .iter()
            .flat_map(|task| task.nodes.iter().map(move |node| (task, node)))
            .take(SERIES_MAX)
            .map(|(task, node)| (of_node(task, &node.node), node))
            .collect();
        let taken_in = "records that a node has taken in";
        self.counted(&name("process"), taken_in, &nodes, |(labels, node)| {
            (labels.clone(), node.processed)
        });
        let ends: Vec<(&Labels, Summary)> =
            nodes.iter().filter_map(|(labels, node)| Some((labels, node.e2e_latency?))).collect();
        let measured = "Milliseconds from a record's timestamp to its arrival at the node";
        self.measured(
            (&name("record_e2e_latency"), measured, 1.0),
            &[AVERAGE, LEAST, GREATEST],
            &ends,
            |(labels, summary)| ((*labels).clone(), *summary),
        );
        for (what, help, kind) in [
            ("suppression_emit", "changes sent by a suppression", Emission::Suppressed),
            (
                "window_aggregate_final_emit",
                "windows sent because they had closed",
                Emission::Closed,
            ),
        ] {
            let senders: Vec<(&Labels, u64)> = nodes
                .iter()
                .filter_map(|(labels, node)| Some((labels, node.emitted?)))
                .filter(|(_, (emission, _))| *emission == kind)
                .map(|(labels, (_, count))| (labels, count))
                .collect();
            self.counted(&name(what), help, &senders, |(labels, count)| {
                ((*labels).clone(), *count)
            });
        }
    }

    pub(super) fn topics(&mut self, tasks: &[TaskMetrics]) {
        let of_topic = |task: &TaskMetrics, node: &str, topic: &str| {
            let mut labels = of_node(task, node);
            labels.push(("topic", topic.to_owned()));
            labels
        };
        let read: Vec<(Labels, u64, u64)> = tasks
            .iter()
            .flat_map(|task| task.inputs.iter().map(move |input| (task, input)))
            .take(SERIES_MAX)
            .map(|(task, input)| {
                let labels = of_topic(task, &input.node, &input.topic);
                (labels, input.processed, input.processed_bytes)
            })
            .collect();
        let written: Vec<(Labels, u64, u64)> = tasks
            .iter()
            .flat_map(|task| task.outputs.iter().map(move |output| (task, output)))
            .take(SERIES_MAX)
            .map(|(task, output)| {
                (of_topic(task, &output.node, &output.topic), output.records, output.bytes)
            })
            .collect();
        for (what, help, of) in [
            ("consumed", "of a topic that a source has taken in", &read),
            ("produced", "that a sink has sent to a topic", &written),
        ] {
            let name = |kind: &str| format!("kafka_streams_stream_topic_metrics_{kind}_{what}");
            self.totals(
                &name("records"),
                &format!("records {help}"),
                of,
                |(labels, records, _)| (labels.clone(), *records),
            );
            self.totals(&name("bytes"), &format!("bytes {help}"), of, |(labels, _, bytes)| {
                (labels.clone(), *bytes)
            });
        }
    }

    pub(super) fn inputs(&mut self, tasks: &[TaskMetrics]) {
        let lags = tasks.iter().flat_map(|task| {
            task.inputs.iter().filter_map(move |input| {
                let mut labels = vec![("task_id", task.task.clone())];
                labels.push(("topic", input.topic.to_string()));
                labels.push(("partition", input.partition.to_string()));
                Some((labels, input.lag? as f64))
            })
        });
        self.gauges(
            "fleuve_streams_input_lag",
            "Records of a partition that are not processed yet.",
            lags.take(SERIES_MAX),
        );
    }
}

fn of_node(task: &TaskMetrics, node: &str) -> Labels {
    let mut labels = labels(task);
    labels.push(("processor_node_id", node.to_owned()));
    labels
}

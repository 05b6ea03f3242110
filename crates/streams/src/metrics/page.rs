//! The numbers in Prometheus' text format, under the names that charts of Kafka Streams know.

use std::time::Instant;

use fleuve_http::{Exposition, Kind};

use super::{Rates, StandbyMetrics, StreamsMetrics, Summary, TaskMetrics, ThreadMetrics};

/// Writes all families.
pub(crate) fn write(
    page: &mut Exposition,
    application: &str,
    metrics: &StreamsMetrics,
    rates: &mut Rates,
) {
    let mut writer = Writer { page, application, rates, now: Instant::now() };
    writer.client(metrics);
    writer.threads(&metrics.threads);
    writer.tasks(&metrics.tasks);
    writer.state(metrics);
    writer.nodes(&metrics.tasks);
    writer.stores(&metrics.tasks);
    writer.inputs(&metrics.tasks);
    writer.rates.forget(writer.now);
}

struct Writer<'a> {
    page: &'a mut Exposition,
    application: &'a str,
    rates: &'a mut Rates,
    now: Instant,
}

/// The three things that a thread does.
type Part = (&'static str, fn(&ThreadMetrics) -> u64, fn(&ThreadMetrics) -> Summary);

/// A total of a thread's, with its name and what it counts.
type Total = (&'static str, fn(&ThreadMetrics) -> u64, &'static str);

/// One figure of a summary.
type Figure = (&'static str, fn(&Summary) -> f64);

const PARTS: [Part; 3] = [
    ("process", |thread| thread.processed, |thread| thread.process_time),
    ("poll", |thread| thread.polls, |thread| thread.poll_time),
    ("commit", |thread| thread.commits, |thread| thread.commit_time),
];

impl Writer<'_> {
    fn client(&mut self, metrics: &StreamsMetrics) {
        let state = if metrics.restoring > 0 { REBALANCING } else { RUNNING };
        self.page
            .family(
                "kafka_streams_stream_metrics_client_state",
                Kind::Gauge,
                "1 while tasks are restored, otherwise 2.",
            )
            .sample(&[("application_id", self.application)], state);
        self.page
            .family(
                "kafka_streams_stream_metrics_alive_stream_threads",
                Kind::Gauge,
                "Threads that run.",
            )
            .sample(&[("application_id", self.application)], metrics.threads.len() as f64);
        self.page
            .family("fleuve_streams_tasks", Kind::Gauge, "Tasks of this instance.")
            .sample(&[("state", "running")], metrics.tasks.len() as f64)
            .sample(&[("state", "restoring")], metrics.restoring as f64)
            .sample(&[("state", "standby")], metrics.standbys.len() as f64);
    }

    /// State that is on its way here: of tasks that are to run, and of standbys.
    fn state(&mut self, metrics: &StreamsMetrics) {
        let prefix = "kafka_streams_stream_state_updater_metrics";
        let updater = || vec![("thread_id", STATE_UPDATER.to_owned())];
        let counts: [(&str, usize, &str); 2] = [
            ("active_restoring_tasks", metrics.restoring, "Tasks that are restored."),
            ("standby_updating_tasks", metrics.standbys.len(), "Standbys that follow."),
        ];
        for (what, count, help) in counts {
            let sample = std::iter::once((updater(), count as f64));
            self.gauges(&format!("{prefix}_{what}"), help, sample);
        }
        let prefix = "kafka_streams_stream_task_metrics";
        self.counted(
            &format!("{prefix}_restore_total"),
            &format!("{prefix}_restore_rate"),
            "changelog records restored",
            &metrics.restorations,
            |it| {
                (
                    vec![("thread_id", thread_id(it.thread)), ("task_id", it.task.clone())],
                    it.records,
                )
            },
        );
        self.gauges(
            &format!("{prefix}_restore_remaining_records_total"),
            "Changelog records that are to be restored.",
            metrics.restorations.iter().map(|it| {
                let labels =
                    vec![("thread_id", thread_id(it.thread)), ("task_id", it.task.clone())];
                (labels, it.remaining as f64)
            }),
        );
        let of_standby = |it: &StandbyMetrics| {
            vec![("thread_id", STATE_UPDATER.to_owned()), ("task_id", it.task.clone())]
        };
        self.counted(
            &format!("{prefix}_update_total"),
            &format!("{prefix}_update_rate"),
            "changelog records that a standby has applied",
            &metrics.standbys,
            |it| (of_standby(it), it.records),
        );
        self.gauges(
            "fleuve_streams_standby_lag",
            "Changelog records that a standby lacks.",
            metrics.standbys.iter().filter_map(|it| Some((of_standby(it), it.lag? as f64))),
        );
    }

    fn threads(&mut self, threads: &[ThreadMetrics]) {
        for (what, total, spread) in PARTS {
            let name =
                |suffix: &str| format!("kafka_streams_stream_thread_metrics_{what}_{suffix}");
            self.counted(&name("total"), &name("rate"), what, threads, |thread| {
                (vec![("thread_id", thread_id(thread.thread))], total(thread))
            });
            let mut gauge = |suffix: &str, help: String, value: &dyn Fn(Summary) -> f64| {
                self.page.family(&name(suffix), Kind::Gauge, &help);
                for thread in threads {
                    let id = thread_id(thread.thread);
                    let id = format!("{}-{id}", self.application);
                    self.page.sample(&[("thread_id", &id)], value(spread(thread)));
                }
            };
            gauge("latency_avg", format!("Milliseconds in {what}, on average."), &|spread| {
                spread.average() / NS_PER_MS
            });
            gauge("latency_max", format!("Milliseconds in {what}, at most."), &|spread| {
                spread.max as f64 / NS_PER_MS
            });
            gauge("ratio", format!("Share of the thread's time in {what}."), &|spread| {
                if spread.span_ms == 0 {
                    return 0.0;
                }
                (spread.sum as f64 / NS_PER_MS / spread.span_ms as f64).min(1.0)
            });
        }
        let totals: [Total; 3] = [
            ("poll_records", |thread| thread.polled, "records from polls"),
            ("task_created", |thread| thread.tasks_created, "tasks that began"),
            ("task_closed", |thread| thread.tasks_closed, "tasks that ended"),
        ];
        for (what, total, help) in totals {
            let name =
                |suffix: &str| format!("kafka_streams_stream_thread_metrics_{what}_{suffix}");
            self.counted(&name("total"), &name("rate"), help, threads, |thread| {
                (vec![("thread_id", thread_id(thread.thread))], total(thread))
            });
        }
    }

    fn tasks(&mut self, tasks: &[TaskMetrics]) {
        let prefix = "kafka_streams_stream_task_metrics";
        self.counted(
            &format!("{prefix}_process_total"),
            &format!("{prefix}_process_rate"),
            "records processed",
            tasks,
            |task| (labels(task), task.processed()),
        );
        self.counted(
            &format!("{prefix}_dropped_records_total"),
            &format!("{prefix}_dropped_records_rate"),
            "records dropped",
            tasks,
            |task| (labels(task), task.dropped.values().sum()),
        );
        self.gauges(&format!("{prefix}_active_buffer_count"), "Records that wait in memory.", {
            tasks.iter().map(|task| {
                let buffered = task.inputs.iter().map(|input| input.buffered as f64).sum();
                (labels(task), buffered)
            })
        });
        self.gauges(&format!("{prefix}_cache_size_bytes_total"), "Bytes in caches.", {
            tasks.iter().map(|task| {
                let bytes = task.stores.iter().map(|store| store.cached_bytes as f64).sum();
                (labels(task), bytes)
            })
        });
        let latencies: [Figure; 3] = [
            ("avg", |latency| latency.average()),
            ("min", |latency| latency.min as f64),
            ("max", |latency| latency.max as f64),
        ];
        for (suffix, value) in latencies {
            self.gauges(
                &format!("{prefix}_record_e2e_latency_{suffix}"),
                "Milliseconds from a record's timestamp to its processing.",
                tasks.iter().map(|task| (labels(task), value(&task.e2e_latency))),
            );
        }
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

    fn nodes(&mut self, tasks: &[TaskMetrics]) {
        let prefix = "kafka_streams_stream_processor_node_metrics";
        let nodes: Vec<_> = tasks
            .iter()
            .flat_map(|task| task.nodes.iter().map(move |node| (task, node)))
            .take(SERIES_MAX)
            .collect();
        self.counted(
            &format!("{prefix}_process_total"),
            &format!("{prefix}_process_rate"),
            "records that a node has taken in",
            &nodes,
            |(task, node)| {
                let mut labels = labels(task);
                labels.push(("processor_node_id", node.node.to_string()));
                (labels, node.processed)
            },
        );
    }

    fn stores(&mut self, tasks: &[TaskMetrics]) {
        let stores = || {
            let all = tasks.iter().flat_map(|task| {
                task.stores.iter().map(move |store| {
                    let mut labels = labels(task);
                    labels.push(("state_id", store.store.clone()));
                    (labels, store)
                })
            });
            all.take(SERIES_MAX)
        };
        self.gauges(
            "kafka_streams_stream_state_metrics_num_keys",
            "Keys, windows or sessions.",
            stores().filter_map(|(labels, store)| Some((labels, store.entries? as f64))),
        );
        self.gauges(
            "kafka_streams_stream_record_cache_metrics_hit_ratio_avg",
            "Share of reads that the cache answered.",
            stores().filter_map(|(labels, store)| {
                let reads = store.cache_hits + store.cache_misses;
                (reads > 0).then(|| (labels, store.cache_hits as f64 / reads as f64))
            }),
        );
    }

    fn inputs(&mut self, tasks: &[TaskMetrics]) {
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

    /// A total, and its rate.
    fn counted<T>(
        &mut self,
        total: &str,
        rate: &str,
        what: &str,
        of: &[T],
        read: impl Fn(&T) -> (Labels, u64),
    ) {
        self.page.family(total, Kind::Counter, &format!("How many: {what}."));
        for one in of {
            let (labels, count) = read(one);
            self.sample(&labels, count as f64);
        }
        self.page.family(rate, Kind::Gauge, &format!("How many per second: {what}."));
        for one in of {
            let (labels, count) = read(one);
            let name = format!("{rate} {labels:?}");
            let rate = self.rates.rate(&name, count, self.now);
            self.sample(&labels, rate);
        }
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl Iterator<Item = (Labels, f64)>) {
        self.page.family(name, Kind::Gauge, help);
        for (labels, value) in values {
            self.sample(&labels, value);
        }
    }

    fn sample(&mut self, labels: &Labels, value: f64) {
        let thread;
        let mut shown: Vec<(&str, &str)> =
            labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if let Some(label) = shown.iter_mut().find(|(name, _)| *name == "thread_id") {
            thread = format!("{}-{}", self.application, label.1);
            label.1 = &thread;
        }
        self.page.sample(&shown, value);
    }
}

type Labels = Vec<(&'static str, String)>;

fn labels(task: &TaskMetrics) -> Labels {
    vec![("thread_id", thread_id(task.thread)), ("task_id", task.task.clone())]
}

/// A thread as Kafka Streams names it, behind the application.
fn thread_id(thread: usize) -> String {
    format!("StreamThread-{}", thread + 1)
}

/// Whoever follows changelogs, as Kafka Streams names it.
const STATE_UPDATER: &str = "StateUpdater-1";
const NS_PER_MS: f64 = 1e6;
/// Series of one family at most.
const SERIES_MAX: usize = 10_000;
/// Kafka Streams' numbers of the states.
const REBALANCING: f64 = 1.0;
const RUNNING: f64 = 2.0;

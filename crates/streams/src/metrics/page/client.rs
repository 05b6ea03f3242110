//! The instance, its threads, and state that is on its way.

use fleuve_http::Kind;

use super::{AVERAGE, GREATEST, Labels, NS_PER_MS, THREAD_ID, Writer, thread_id};
use crate::metrics::{RestorationMetrics, StandbyMetrics, StreamsMetrics, Summary, ThreadMetrics};

/// The four things that a thread does.
type Part = (&'static str, fn(&ThreadMetrics) -> u64, fn(&ThreadMetrics) -> Summary);

/// A total of a thread's, with its name and what it counts.
type Total = (&'static str, fn(&ThreadMetrics) -> u64, &'static str);

/// What is measured of a thread, with its name and in which unit.
type Measured = (&'static str, &'static str, f64, fn(&ThreadMetrics) -> Summary);

const PARTS: [Part; 4] = [
    ("process", |thread| thread.processed, |thread| thread.process_time),
    ("poll", |thread| thread.polls, |thread| thread.poll_time),
    ("punctuate", |thread| thread.punctuations, |thread| thread.punctuate_time),
    ("commit", |thread| thread.commits, |thread| thread.commit_time),
];

const MEASURED: [Measured; 5] = [
    ("poll_records", "Records of a poll", 1.0, |thread| thread.poll_records),
    ("process_records", "Records between two polls", 1.0, |thread| thread.process_records),
    ("tasks_assigned_latency", "Milliseconds to take tasks in", NS_PER_MS, |it| it.assigned_time),
    ("tasks_revoked_latency", "Milliseconds to give tasks up", NS_PER_MS, |it| it.revoked_time),
    ("tasks_lost_latency", "Milliseconds to give up lost tasks", NS_PER_MS, |it| it.lost_time),
];

impl Writer<'_> {
    pub(super) fn client(&mut self, metrics: &StreamsMetrics) {
        let (application, state) = (self.about.application, metrics.state());
        let prefix = "kafka_streams_stream_metrics";
        let client = || vec![("client_id", application.to_owned())];
        // Texts become labels: in families of their own, as Strimzi's reporter writes them, and in one family as
        // Confluent's rules for the JMX exporter do.
        let (alive, failed) = (metrics.threads.len(), metrics.failed_threads);
        let texts = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("application_id", application.to_owned()),
            ("state", state.name().to_owned()),
            ("topology_description", self.about.topology.to_owned()),
        ];
        let counts = [
            ("alive_stream_threads", alive.to_string()),
            ("failed_stream_threads", failed.to_string()),
        ];
        for (name, text) in &texts {
            let labels = [client(), vec![(*name, text.clone())]].concat();
            let help = "1, with the text as a label.";
            self.gauges(&format!("{prefix}_{name}"), help, std::iter::once((labels, 1.0)));
        }
        self.gauges(
            prefix,
            "1, with one text or number of the instance as a label.",
            texts
                .iter()
                .filter(|(name, _)| *name != "topology_description")
                .chain(&counts)
                .map(|(name, text)| ([client(), vec![(*name, text.clone())]].concat(), 1.0)),
        );
        let of_process = || {
            vec![
                ("process_id", self.about.process.to_owned()),
                ("application_id", application.to_owned()),
            ]
        };
        let numbers: [(&str, &str, Labels, f64); 4] = [
            (
                "client_state",
                "1 while tasks come and go, 2 when all run, 3 at the end, 6 when all threads have failed.",
                of_process(),
                f64::from(state as u8),
            ),
            ("alive_stream_threads", "Threads that run.", Labels::new(), alive as f64),
            ("failed_stream_threads", "Threads that have failed.", Labels::new(), failed as f64),
            (
                "recording_level",
                "1: what Kafka Streams counts at DEBUG is always counted.",
                of_process(),
                DEBUG,
            ),
        ];
        for (name, help, more, value) in numbers {
            let labels = [client(), more].concat();
            self.gauges(&format!("{prefix}_{name}"), help, std::iter::once((labels, value)));
        }
        self.page
            .family("fleuve_streams_tasks", Kind::Gauge, "Tasks of this instance.")
            .sample(&[("state", "running")], metrics.tasks.len() as f64)
            .sample(&[("state", "restoring")], metrics.restoring as f64)
            .sample(&[("state", "standby")], metrics.standbys.len() as f64);
    }

    pub(super) fn threads(&mut self, threads: &[ThreadMetrics]) {
        let id = |thread: &ThreadMetrics| vec![(THREAD_ID, thread_id(thread.thread))];
        let name = |suffix: &str| format!("kafka_streams_stream_thread_metrics_{suffix}");
        for (what, total, spread) in PARTS {
            self.counted(&name(what), what, threads, |thread| (id(thread), total(thread)));
            let latency = (&*name(&format!("{what}_latency")), "Milliseconds", NS_PER_MS);
            self.measured(latency, &[AVERAGE, GREATEST], threads, |it| (id(it), spread(it)));
            self.gauges(
                &name(&format!("{what}_ratio")),
                "Share of the thread's time, lately.",
                threads.iter().map(|thread| (id(thread), ratio(spread(thread)))),
            );
        }
        let totals: [Total; 2] = [
            ("task_created", |thread| thread.tasks_created, "tasks that began"),
            ("task_closed", |thread| thread.tasks_closed, "tasks that ended"),
        ];
        for (what, total, help) in totals {
            self.counted(&name(what), help, threads, |thread| (id(thread), total(thread)));
        }
        for (what, help, unit, spread) in MEASURED {
            let measured = (&*name(what), help, unit);
            self.measured(measured, &[AVERAGE, GREATEST], threads, |it| (id(it), spread(it)));
        }
        let blocked = "nanoseconds that the thread has waited in polls and commits";
        self.totals(&name("blocked_time_ns"), blocked, threads, |it| (id(it), it.blocked_ns));
        self.gauges(
            &name("thread_start_time"),
            "When the thread was started, in milliseconds since the epoch.",
            threads.iter().map(|thread| (id(thread), thread.started_ms as f64)),
        );
        self.gauges(
            &name("thread_state"),
            "What the thread does: 4 is running.",
            threads.iter().map(|thread| {
                let process = vec![("process_id", self.about.process.to_owned())];
                ([id(thread), process].concat(), f64::from(thread.state as u8))
            }),
        );
        self.gauges(
            &name("state"),
            "1, with what the thread does as a label.",
            threads.iter().map(|thread| {
                let state = vec![("state", thread.state.name().to_owned())];
                ([id(thread), state].concat(), 1.0)
            }),
        );
    }

    /// State that is on its way here: of tasks that are to run, and of standbys.
    pub(super) fn state(&mut self, metrics: &StreamsMetrics) {
        let prefix = "kafka_streams_stream_state_updater_metrics";
        let updater = || vec![(THREAD_ID, STATE_UPDATER.to_owned())];
        let counts: [(&str, usize, &str); 2] = [
            ("active_restoring_tasks", metrics.restoring, "Tasks that are restored."),
            ("standby_updating_tasks", metrics.standbys.len(), "Standbys that follow."),
        ];
        for (what, count, help) in counts {
            let sample = std::iter::once((updater(), count as f64));
            self.gauges(&format!("{prefix}_{what}"), help, sample);
        }
        let restored = "changelog records that tasks and standbys apply";
        self.rated(&format!("{prefix}_restore_records"), restored, &[metrics.restored], |count| {
            (updater(), *count)
        });
        let prefix = "kafka_streams_stream_task_metrics";
        let of_task = |it: &RestorationMetrics| {
            vec![(THREAD_ID, thread_id(it.thread)), ("task_id", it.task.clone())]
        };
        let of_standby = |it: &StandbyMetrics| {
            vec![(THREAD_ID, STATE_UPDATER.to_owned()), ("task_id", it.task.clone())]
        };
        let restored = "changelog records restored";
        self.counted(&format!("{prefix}_restore"), restored, &metrics.restorations, |it| {
            (of_task(it), it.records)
        });
        self.gauges(
            &format!("{prefix}_restore_remaining_records_total"),
            "Changelog records that are to be restored.",
            metrics.restorations.iter().map(|it| (of_task(it), it.remaining as f64)),
        );
        let applied = "changelog records that a standby has applied";
        self.counted(&format!("{prefix}_update"), applied, &metrics.standbys, |it| {
            (of_standby(it), it.records)
        });
        self.gauges(
            "fleuve_streams_standby_lag",
            "Changelog records that a standby lacks.",
            metrics.standbys.iter().filter_map(|it| Some((of_standby(it), it.lag? as f64))),
        );
    }
}

/// The share of time that was spent on something, in nanoseconds each.
fn ratio(spread: Summary) -> f64 {
    if spread.span_ms == 0 {
        return 0.0;
    }
    (spread.sum as f64 / NS_PER_MS / spread.span_ms as f64).min(1.0)
}

/// Whoever follows changelogs, as Kafka Streams names it.
const STATE_UPDATER: &str = "StateUpdater-1";
/// Kafka's number of the recording level.
const DEBUG: f64 = 1.0;

//! The numbers in Prometheus' text format, under the names that charts of Kafka Streams know: `kafka_streams_`, the
//! group, and the metric, with `_` for every `-`.

mod client;
mod clients;
mod stores;
mod tasks;

use std::time::Instant;

use fleuve_http::{Exposition, Kind};

use super::{Rates, StreamsMetrics, Summary, TaskMetrics};

/// Which application, and which of its instances.
pub(crate) struct About<'a> {
    pub(crate) application: &'a str,
    pub(crate) process: &'a str,
    /// What `describe()` says.
    pub(crate) topology: &'a str,
}

/// Writes all families.
pub(crate) fn write(
    page: &mut Exposition,
    about: &About<'_>,
    metrics: &StreamsMetrics,
    rates: &mut Rates,
) {
    let mut writer = Writer { page, about, rates, now: Instant::now() };
    writer.client(metrics);
    writer.threads(&metrics.threads);
    writer.tasks(&metrics.tasks);
    writer.state(metrics);
    writer.nodes(&metrics.tasks);
    writer.topics(&metrics.tasks);
    writer.stores(metrics);
    writer.inputs(&metrics.tasks);
    writer.clients(&metrics.threads);
    writer.rates.forget(writer.now);
}

struct Writer<'a> {
    page: &'a mut Exposition,
    about: &'a About<'a>,
    rates: &'a mut Rates,
    now: Instant,
}

/// Labels of a sample. The thread's begins with the application when it is written.
type Labels = Vec<(&'static str, String)>;

/// One figure of a summary.
type Figure = (&'static str, fn(&Summary) -> f64);

const AVERAGE: Figure = ("avg", |summary| summary.average());
const LEAST: Figure = ("min", |summary| summary.min as f64);
const GREATEST: Figure = ("max", |summary| summary.max as f64);

impl Writer<'_> {
    /// A total, and its rate.
    fn counted<T>(&mut self, name: &str, what: &str, of: &[T], read: impl Fn(&T) -> (Labels, u64)) {
        self.page.family(&format!("{name}_total"), Kind::Counter, &format!("How many: {what}."));
        for one in of {
            let (labels, count) = read(one);
            self.sample(&labels, count as f64);
        }
        self.rated(name, what, of, read);
    }

    /// The rate of a total alone.
    fn rated<T>(&mut self, name: &str, what: &str, of: &[T], read: impl Fn(&T) -> (Labels, u64)) {
        let name = format!("{name}_rate");
        self.page.family(&name, Kind::Gauge, &format!("How many per second: {what}."));
        for one in of {
            let (labels, count) = read(one);
            let rate = self.rates.rate(&format!("{name} {labels:?}"), count, self.now);
            self.sample(&labels, rate);
        }
    }

    /// A total without a rate.
    fn totals<T>(&mut self, name: &str, what: &str, of: &[T], read: impl Fn(&T) -> (Labels, u64)) {
        self.page.family(&format!("{name}_total"), Kind::Counter, &format!("How many: {what}."));
        for one in of {
            let (labels, count) = read(one);
            self.sample(&labels, count as f64);
        }
    }

    /// Figures of what was measured lately, in units of so many.
    fn measured<T>(
        &mut self,
        (name, what, unit): (&str, &str, f64),
        figures: &[Figure],
        of: &[T],
        read: impl Fn(&T) -> (Labels, Summary),
    ) {
        for (suffix, figure) in figures {
            let help = format!("{what}, {suffix} of the last half to full minute.");
            self.page.family(&format!("{name}_{suffix}"), Kind::Gauge, &help);
            for one in of {
                let (labels, summary) = read(one);
                self.sample(&labels, figure(&summary) / unit);
            }
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
        if let Some(label) = shown.iter_mut().find(|(name, _)| *name == THREAD_ID) {
            thread = format!("{}-{}", self.about.application, label.1);
            label.1 = &thread;
        }
        self.page.sample(&shown, value);
    }
}

fn labels(task: &TaskMetrics) -> Labels {
    vec![(THREAD_ID, thread_id(task.thread)), ("task_id", task.task.clone())]
}

/// A thread as Kafka Streams names it, behind the application.
fn thread_id(thread: usize) -> String {
    format!("StreamThread-{}", thread + 1)
}

const THREAD_ID: &str = "thread_id";
const NS_PER_MS: f64 = 1e6;
/// Series of one family at most.
const SERIES_MAX: usize = 10_000;

//! Stores and their caches.

use super::{AVERAGE, GREATEST, LEAST, Labels, SERIES_MAX, Writer, labels};
use crate::metrics::{MILLION, StoreKind, StoreMetrics, StreamsMetrics, Summary};

/// A count of a store's, if it keeps it.
type Count = fn(&StoreMetrics) -> Option<u64>;

/// What was measured of a store.
type Read = fn(&StoreMetrics) -> Summary;

impl Writer<'_> {
    pub(super) fn stores(&mut self, metrics: &StreamsMetrics) {
        let tasks = &metrics.tasks;
        let all = || {
            let stores =
                tasks.iter().flat_map(|task| task.stores.iter().map(move |store| (task, store)));
            stores.take(SERIES_MAX)
        };
        let stores: Vec<(Labels, &StoreMetrics)> = all()
            .map(|(task, store)| {
                let mut labels = labels(task);
                labels.push((label(store), store.store.clone()));
                (labels, store)
            })
            .collect();
        let name = |suffix: &str| format!("kafka_streams_stream_state_metrics_{suffix}");
        self.gauges(
            &name("num_keys"),
            "Keys, windows or sessions.",
            stores
                .iter()
                .filter_map(|(labels, store)| Some((labels.clone(), store.entries? as f64))),
        );
        // Tasks share a store's files.
        let on_disk = || {
            metrics.disk.iter().map(|disk| {
                let known = stores.iter().find(|(_, store)| store.store == disk.store);
                let label = known.map_or(LABEL_ON_DISK, |(_, store)| label(store));
                (vec![(label, disk.store.clone())], disk)
            })
        };
        self.gauges(
            &name("total_sst_files_size"),
            "Bytes of a store's files, of all tasks of the instance.",
            on_disk().map(|(labels, disk)| (labels, disk.bytes as f64)),
        );
        self.gauges(
            &name("estimate_num_keys"),
            "Rows in a store's files, approximately, of all tasks of the instance.",
            on_disk().map(|(labels, disk)| (labels, disk.rows as f64)),
        );
        let called = |count: Count| -> Vec<(&Labels, u64)> {
            stores.iter().filter_map(|(labels, store)| Some((labels, count(store)?))).collect()
        };
        let calls: [(&str, &str, Count); 3] = [
            ("put", "writes", |store| store.writes),
            ("get", "reads of a key", |store| {
                store.reads.filter(|_| store.kind == StoreKind::KeyValue)
            }),
            ("fetch", "reads of windows or sessions", |store| {
                store.reads.filter(|_| store.kind != StoreKind::KeyValue)
            }),
        ];
        for (what, help, count) in calls {
            self.rated(&name(what), help, &called(count), |(labels, count)| {
                ((*labels).clone(), *count)
            });
        }
        let buffers: Vec<&(Labels, &StoreMetrics)> =
            stores.iter().filter(|(_, store)| store.buffered.is_some()).collect();
        let measured: [(&str, &str, Read); 2] = [
            ("suppression_buffer_count", "Changes that wait", |store| store.buffered_count),
            ("suppression_buffer_size", "Bytes of changes that wait", |store| store.buffered_bytes),
        ];
        for (what, help, read) in measured {
            let figures = [AVERAGE, GREATEST];
            self.measured((&name(what), help, 1.0), &figures, &buffers, |(labels, store)| {
                (labels.clone(), read(store))
            });
        }
        let caches: Vec<(Labels, Summary)> = all()
            .filter(|(_, store)| store.hit_ratio.count > 0)
            .map(|(task, store)| {
                let mut labels = labels(task);
                labels.push(("record_cache_id", store.store.clone()));
                (labels, store.hit_ratio)
            })
            .collect();
        self.measured(
            (
                "kafka_streams_stream_record_cache_metrics_hit_ratio",
                "Share of reads that the cache answered",
                MILLION as f64,
            ),
            &[AVERAGE, LEAST, GREATEST],
            &caches,
            |(labels, ratio)| (labels.clone(), *ratio),
        );
    }
}

/// The label that names a store, in which Kafka Streams says what kind of store it is and where.
fn label(store: &StoreMetrics) -> &'static str {
    match (store.kind, store.on_disk) {
        (StoreKind::KeyValue, false) => "in_memory_state_id",
        (StoreKind::KeyValue, true) => LABEL_ON_DISK,
        (StoreKind::Window, false) => "in_memory_window_state_id",
        (StoreKind::Window, true) => "rocksdb_window_state_id",
        (StoreKind::Session, false) => "in_memory_session_state_id",
        (StoreKind::Session, true) => "rocksdb_session_state_id",
        (StoreKind::Suppression, _) => "in_memory_suppression_state_id",
    }
}

/// The label of a store by key on disk.
const LABEL_ON_DISK: &str = "rocksdb_state_id";

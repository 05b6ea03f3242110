//! Families about transactions: Kafka's coordinator and verification, and a few of ours.

use std::collections::BTreeMap;

use fleuve_coordinator::transaction::{Counters, State};
use fleuve_http::{Exposition, Kind};

use crate::node::Node;

/// States that an id can be seen in.
const STATES: [State; 6] = [
    State::Empty,
    State::Ongoing,
    State::PrepareCommit,
    State::PrepareAbort,
    State::CompleteCommit,
    State::CompleteAbort,
];

/// Adds everything about transactions.
pub(super) fn write(page: &mut Exposition, node: &Node) {
    let mut states: BTreeMap<State, usize> = STATES.iter().map(|state| (*state, 0)).collect();
    let mut sum = Counters::default();
    let (mut oldest, mut markers, mut ends) = (None, 0, 0);
    for shard in node.transactions.shards() {
        let (overview, counters) = shard.read(|machine| (machine.overview(), machine.counters()));
        for (state, count) in overview.states {
            *states.entry(state).or_default() += count;
        }
        oldest = [oldest, overview.oldest_open].into_iter().flatten().min();
        markers += overview.markers_awaited;
        ends += overview.ends_awaited;
        sum.begun += counters.begun;
        sum.committed += counters.committed;
        sum.aborted += counters.aborted;
        sum.timed_out += counters.timed_out;
        sum.ids_expired += counters.ids_expired;
    }
    write_kafkas(page, node, ends);
    page.family("fleuve_transactional_ids", Kind::Gauge, "Transactional ids by state.");
    for (state, count) in states {
        page.sample(&[("state", state.name())], count as f64);
    }
    let age_s = oldest.map_or(0.0, |began| (node.clock.wall_ms() - began.0).max(0) as f64 / 1e3);
    let gauges = [
        ("oldest_open_seconds", "Age of the oldest open transaction.", age_s),
        ("markers_awaited", "Partitions whose markers are on their way.", markers as f64),
    ];
    for (name, help, value) in gauges {
        page.family(&format!("fleuve_transaction_{name}"), Kind::Gauge, help).sample(&[], value);
    }
    let counters = [
        ("transactions_begun", "Transactions that began.", sum.begun),
        ("transactions_committed", "Transactions that were committed.", sum.committed),
        ("transactions_aborted", "Transactions that were aborted.", sum.aborted),
        ("transactions_timed_out", "Transactions that were open for too long.", sum.timed_out),
        ("transactional_ids_expired", "Transactional ids that nobody used.", sum.ids_expired),
    ];
    for (name, help, value) in counters {
        let name = format!("fleuve_{name}_total");
        page.family(&name, Kind::Counter, help).sample(&[], value as f64);
    }
}

fn write_kafkas(page: &mut Exposition, node: &Node, ends: usize) {
    const CHANNELS: &str = "kafka_coordinator_transaction_transactionmarkerchannelmanager";
    const VERIFICATION: &str = "kafka_server_addpartitionstotxnmanager";
    const COORDINATOR: &str = "kafka_server_transaction_coordinator_metrics";
    let transactions = &node.transactions;
    let help = "Markers for partitions whose leader is not known: always 0.";
    page.family(&format!("{CHANNELS}_unknowndestinationqueuesize"), Kind::Gauge, help)
        .sample(&[], 0.0);
    let help = "Transactions with all their markers whose end is yet to be stored.";
    page.family(&format!("{CHANNELS}_logappendretryqueuesize"), Kind::Gauge, help)
        .sample(&[], ends as f64);
    let help = "Milliseconds until it was known whether a partition is part of a transaction.";
    page.family(&format!("{VERIFICATION}_verificationtimems"), Kind::Summary, help);
    transactions.verification_times.write(page, &[]);
    let help = "Partitions that are no part of their transaction, or of which that is not known.";
    page.family(&format!("{VERIFICATION}_verificationfailurerate_count"), Kind::Counter, help)
        .sample(&[], transactions.verification_failures.get() as f64);
    let times = &transactions.load_times;
    let average = times.sum_ms.get() as f64 / times.count.get().max(1) as f64;
    let gauges = [
        ("avg", "Milliseconds that reading a partition took, on average.", average),
        ("max", "Milliseconds that reading a partition took at most.", times.max_ms() as f64),
    ];
    for (name, help, value) in gauges {
        page.family(&format!("{COORDINATOR}_partition_load_time_{name}"), Kind::Gauge, help)
            .sample(&[], value);
    }
}

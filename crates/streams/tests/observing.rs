//! What is seen of a topology while it runs: numbers of nodes, inputs and stores, and traces of records.

use fleuve_streams::metrics::{Emission, NodeMetrics, StoreKind, TaskMetrics};
use fleuve_streams::processor::{Processor, ProcessorContext, ProcessorError};
use fleuve_streams::{
    Clock, ErrorPolicy, Record, Schedule, SuppressBuffer, Suppressed, TestDriver, TimeWindows,
    Topology,
};

fn topology() -> Topology {
    let app = Topology::new("app");
    app.on_error(ErrorPolicy::Skip);
    let words = app
        .stream::<String, String>("in")
        .filter(|_, line| !line.is_empty())
        .flat_map_values(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    words.to("words");
    words.group_by_key().count("counts");
    app
}

#[test]
fn every_node_counts_what_it_takes_in() {
    let mut driver = TestDriver::new(&topology()).expect("a valid topology");
    driver.input("in").at(5).send("k", "a b c").send("l", "").send("l", "d").send("m", &());
    let metrics = driver.metrics();
    let [task] = metrics.as_slice() else {
        panic!("one task: {metrics:?}");
    };
    let counted: Vec<(&str, u64)> =
        task.nodes.iter().map(|node| (&*node.node, node.processed)).collect();
    assert_eq!(
        counted,
        [
            ("KSTREAM-SOURCE-0000000000", 4),
            ("KSTREAM-FILTER-0000000001", 3),
            ("KSTREAM-FLATMAPVALUES-0000000002", 2),
            ("KSTREAM-SINK-0000000003", 4),
            ("KSTREAM-AGGREGATE-0000000004", 4),
        ]
    );
    assert_eq!((task.task.as_str(), task.processed(), task.stream_time_ms), ("0_0", 4, 5));
    assert_eq!(task.dropped.values().sum::<u64>(), 1, "{:?}", task.dropped);
    let [store] = task.stores.as_slice() else {
        panic!("one store: {:?}", task.stores);
    };
    assert_eq!((store.store.as_str(), store.entries), ("counts", Some(2)));
    assert!(store.cache_hits > 0 && store.cache_misses == 2, "{store:?}");
    assert_eq!((task.inputs[0].buffered, task.inputs[0].lag), (0, Some(0)));
}

#[test]
fn a_trace_shows_the_way_of_a_record_and_of_what_became_of_it() {
    let app = topology();
    let mut driver = TestDriver::of(&app).trace_every(2).start().expect("a valid topology");
    driver.input("in").at(7).send("k", "a b").send("k", "c").send("k", "");
    let traces = driver.traces();
    let [newest, oldest] = traces.as_slice() else {
        panic!("two of three records: {traces:?}");
    };
    assert_eq!((oldest.offset, oldest.timestamp, newest.offset), (0, 7, 2));
    let steps: Vec<(&str, u32)> =
        oldest.steps.iter().map(|step| (&*step.node, step.depth)).collect();
    assert_eq!(
        steps,
        [
            ("KSTREAM-FILTER-0000000001", 0),
            ("KSTREAM-FLATMAPVALUES-0000000002", 1),
            ("KSTREAM-SINK-0000000003", 2),
            ("KSTREAM-AGGREGATE-0000000004", 2),
            ("KSTREAM-SINK-0000000003", 2),
            ("KSTREAM-AGGREGATE-0000000004", 2),
        ]
    );
    let whole = &oldest.steps[0];
    assert!(oldest.steps.iter().all(|step| step.took_ns <= whole.took_ns), "{oldest:?}");
    assert!(whole.took_ns <= oldest.took_ns);
    assert_eq!(newest.steps.len(), 1, "an empty line goes no further than the filter");
}

#[test]
fn without_asking_nothing_is_traced_in_tests() {
    let mut driver = TestDriver::new(&topology()).expect("a valid topology");
    driver.input("in").send("k", "a");
    assert!(driver.traces().is_empty());
}

/// The numbers of the only task.
fn only(driver: &mut TestDriver) -> TaskMetrics {
    let mut tasks = driver.metrics();
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    tasks.remove(0)
}

fn node<'a>(task: &'a TaskMetrics, prefix: &str) -> &'a NodeMetrics {
    let found = task.nodes.iter().find(|node| node.node.starts_with(prefix));
    found.unwrap_or_else(|| panic!("no {prefix} in {:?}", task.nodes))
}

#[test]
fn topics_are_counted_by_records_and_bytes_where_they_come_in_and_go_out() {
    let mut driver = TestDriver::new(&topology()).expect("a valid topology");
    driver.input("in").at(5).header("h", "x").send("k", "a b");
    driver.input("in").at(6).send("k", &());
    let task = only(&mut driver);
    let [input] = task.inputs.as_slice() else {
        panic!("one topic: {:?}", task.inputs);
    };
    // Name, key, value, header and 20 bytes each.
    assert_eq!((&*input.topic, &*input.node), ("in", "KSTREAM-SOURCE-0000000000"));
    assert_eq!((input.processed, input.processed_bytes), (2, (2 + 1 + 3 + 2 + 20) + (2 + 1 + 20)));
    let [output] = task.outputs.as_slice() else {
        panic!("one topic, changelogs apart: {:?}", task.outputs);
    };
    assert_eq!((&*output.topic, &*output.node), ("words", "KSTREAM-SINK-0000000003"));
    assert_eq!((output.records, output.bytes), (2, 2 * (5 + 1 + 1 + 2 + 20)));
    let [store] = task.stores.as_slice() else {
        panic!("one store: {:?}", task.stores);
    };
    assert_eq!((store.kind, store.on_disk), (StoreKind::KeyValue, false));
    assert_eq!((store.reads, store.writes), (Some(2), Some(2)));
}

#[test]
fn latency_is_that_of_the_first_and_last_nodes_and_lateness_that_of_the_task() {
    let mut driver = TestDriver::new(&topology()).expect("a valid topology");
    driver.advance_ms(1_000);
    driver.input("in").at(1_000).send("k", "a").at(940).send("k", "b").at(990).send("l", "");
    let task = only(&mut driver);
    let source = node(&task, "KSTREAM-SOURCE").e2e_latency.expect("it is a first node");
    assert_eq!((source.count, source.min, source.max, source.sum), (3, 0, 60, 70));
    let sink = node(&task, "KSTREAM-SINK").e2e_latency.expect("it is a last node");
    assert_eq!((sink.count, sink.min, sink.max), (2, 0, 60));
    let aggregate = node(&task, "KSTREAM-AGGREGATE").e2e_latency.expect("it is one, too");
    assert_eq!(aggregate.count, 2);
    assert_eq!(node(&task, "KSTREAM-FLATMAPVALUES").e2e_latency, None);
    let late = task.lateness;
    assert_eq!((late.count, late.min, late.max, late.sum), (3, 0, 60, 70));
    // Looks do not count anything twice.
    let sink = node(&only(&mut driver), "KSTREAM-SINK").e2e_latency.expect("it is a last node");
    assert_eq!((sink.count, sink.min, sink.max), (2, 0, 60));
}

#[test]
fn what_is_sent_because_time_has_come_is_counted_and_what_waits_is_seen() {
    let app = Topology::new("app");
    let grouped = app.stream::<String, String>("in").group_by_key();
    grouped.clone().windowed_by(TimeWindows::of_ms(10, 0)).emit_final().count("finals");
    let buffer = Suppressed::until_time_limit_ms(10, SuppressBuffer::unbounded());
    grouped.count("counts").suppress(buffer).to_stream().to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(0).send("a", "x").send("b", "x").send("b", "x");
    let task = only(&mut driver);
    let buffer = task.stores.iter().find(|store| store.kind == StoreKind::Suppression);
    let buffer = buffer.expect("a suppression keeps changes in a store");
    let (count, bytes) = buffer.buffered.expect("it knows what waits");
    assert!(count == 2 && bytes > 0, "{buffer:?}");
    assert_eq!((buffer.buffered_count.max, buffer.buffered_bytes.max), (2, bytes as i64));
    assert_eq!(node(&task, "KTABLE-SUPPRESS").emitted, Some((Emission::Suppressed, 0)));
    driver.input("in").at(12).send("c", "x");
    let task = only(&mut driver);
    assert_eq!(node(&task, "KTABLE-SUPPRESS").emitted, Some((Emission::Suppressed, 2)));
    assert_eq!(node(&task, "KSTREAM-AGGREGATE").emitted, Some((Emission::Closed, 2)));
    assert_eq!(node(&task, "KTABLE-TOSTREAM").emitted, None);
}

/// Is called every ten milliseconds of the clock, and of event time.
#[derive(Clone)]
struct Ticking;

impl Processor for Ticking {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn init(
        &mut self,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        cx.schedule(10, Clock::WallClock);
        cx.schedule(10, Clock::StreamTime);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        Ok(cx.forward(record)?)
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        _: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }
}

#[test]
fn calls_by_either_clock_are_counted() {
    let app = Topology::new("app");
    app.stream("in").process(Ticking).to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(0).send("k", "v");
    let first = only(&mut driver).punctuations;
    driver.advance_ms(10);
    assert_eq!(only(&mut driver).punctuations, first + 1);
    driver.input("in").at(25).send("k", "v");
    let task = only(&mut driver);
    assert_eq!((task.punctuations, task.punctuate_time.count), (first + 2, first + 2));
}

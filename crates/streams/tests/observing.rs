//! What is seen of a topology while it runs: numbers of nodes, inputs and stores, and traces of records.

use fleuve_streams::{ErrorPolicy, TestDriver, Topology};

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

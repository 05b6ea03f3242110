//! What Fleuve has beyond Kafka Streams: operators learned from other engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleuve_streams::processor::{KvState, ProcessorContext, ProcessorError, State};
use fleuve_streams::{
    AsyncOrder, ErrorPolicy, Partitioning, Produced, Record, Repartitioned, StreamTask, TestDriver,
    Topology,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

fn send(driver: &mut TestDriver, at: i64, key: &str, value: &str) {
    driver.input("in").at(at).send(&key.to_owned(), &value.to_owned());
}

/// The partitions that ten records of two keys go to.
fn spread(partitioning: Partitioning<String, String>) -> Vec<i32> {
    let app = Topology::new("app");
    app.stream::<String, String>("in")
        .to_with("out", Produced::default().partitioning(partitioning));
    let mut driver = TestDriver::with_partitions(&app, 4).expect("a valid topology");
    for number in 0..10 {
        let key = if number % 2 == 0 { "even" } else { "odd" };
        let input = driver.input("in").at(number).partition(0);
        input.send(&key.to_owned(), &format!("{}", number % 5));
    }
    let mut records = driver.output::<String, String>("out").records();
    records.sort_by_key(|test| test.record.timestamp);
    records.into_iter().map(|test| test.partition).collect()
}

#[test]
fn records_are_spread_as_storm_groups_them() {
    assert_eq!(spread(Partitioning::round_robin()), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]);
    assert_eq!(spread(Partitioning::global()), [0; 10]);
    assert_eq!(spread(Partitioning::none()), [0; 10], "one partition for a while");
    assert_eq!(spread(Partitioning::all()), [0, 1, 2, 3].repeat(10));
    let direct = Partitioning::to_partition(|_, value: &String, count| {
        value.parse::<i32>().unwrap_or(0) + count
    });
    assert_eq!(spread(direct), [0, 1, 2, 3, 0, 0, 1, 2, 3, 0]);

    let by_key = spread(Partitioning::by_key());
    assert!(by_key.iter().zip(&by_key[2..]).all(|(one, same_key)| one == same_key));
    let by_value = spread(Partitioning::by_fields(|_, value: &String| value.clone()));
    assert!(by_value.iter().zip(&by_value[5..]).all(|(one, same_value)| one == same_value));
    assert!(by_value.iter().any(|place| *place != by_value[0]));

    // Each key has two partitions, and uses both evenly.
    let two = spread(Partitioning::two_choices());
    for first in 0..2 {
        let mut places: Vec<i32> = two.iter().skip(first).step_by(2).copied().collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 2, "{two:?}");
    }
}

#[test]
fn a_partitioning_that_counts_needs_a_topic_that_is_known() {
    let app = Topology::new("app");
    app.stream::<String, String>("in").to_chosen(
        |record| record.key.clone(),
        Produced::default().partitioning(Partitioning::round_robin()),
    );
    assert!(app.build().is_err_and(|error| error.to_string().contains("chosen per record")));
}

#[test]
fn a_stream_that_was_not_spread_by_key_is_repartitioned_before_it_is_grouped() {
    let app = Topology::new("app");
    app.stream::<String, String>("in")
        .repartition_with(Repartitioned::by(Partitioning::round_robin()).partitions(3))
        .group_by_key()
        .count("counts");
    let repartitions: usize = app
        .build()
        .expect("valid")
        .subtopologies()
        .iter()
        .map(|part| part.repartition_topics.len())
        .sum();
    assert_eq!(repartitions, 2);
}

#[test]
fn a_broadcast_reaches_every_task() {
    let app = Topology::new("app");
    app.stream::<String, String>("in").broadcast().to("out");
    let mut driver = TestDriver::with_partitions(&app, 3).expect("a valid topology");
    send(&mut driver, 1, "k", "v");
    assert_eq!(driver.output::<String, String>("out").pairs().len(), 3);
}

/// Calls under way, by the value they are for; sending ends one.
type Calls = Arc<Mutex<BTreeMap<String, oneshot::Sender<()>>>>;

/// A program whose calls end when the test says so.
fn calling(limit: usize, order: AsyncOrder) -> (Topology, Calls) {
    let (app, calls) = (Topology::new("app"), Calls::default());
    let begun = calls.clone();
    app.stream::<String, String>("in")
        .map_async(limit, order, move |_, value: String| {
            let (end, ended) = oneshot::channel();
            begun.lock().insert(value.clone(), end);
            async move { ended.await.map(|()| value + "!") }
        })
        .to("out");
    (app, calls)
}

/// Ends a call, and gives what comes out then.
fn end(driver: &mut TestDriver, calls: &Calls, value: &str) -> Vec<String> {
    let call = calls.lock().remove(value).unwrap_or_else(|| panic!("{value} was not called"));
    call.send(()).expect("the call waits");
    driver.advance_ms(0);
    let pairs = driver.output::<String, String>("out").pairs();
    pairs.into_iter().map(|(_, value)| value).collect()
}

#[test]
fn asynchronous_results_go_on_in_the_order_that_was_asked_for() {
    let none: [&str; 0] = [];
    for (order, begun, at_b1, at_a1) in [
        (AsyncOrder::Overall, 3, &none[..], &["a1!", "b1!"][..]),
        (AsyncOrder::ByKey, 2, &["b1!"][..], &["a1!"][..]),
        (AsyncOrder::None, 3, &["b1!"][..], &["a1!"][..]),
    ] {
        let (app, calls) = calling(10, order);
        let mut driver = TestDriver::of(&app).commit_on_command().start().expect("valid");
        for (at, (key, value)) in [("a", "a1"), ("b", "b1"), ("a", "a2")].iter().enumerate() {
            send(&mut driver, at as i64, key, value);
        }
        assert_eq!(calls.lock().len(), begun, "{order:?}");
        assert_eq!(end(&mut driver, &calls, "b1"), at_b1, "{order:?}");
        assert_eq!(end(&mut driver, &calls, "a1"), at_a1, "{order:?}");
        assert_eq!(end(&mut driver, &calls, "a2"), ["a2!"], "{order:?}");
    }
}

#[test]
fn no_more_calls_are_under_way_than_allowed_and_none_is_lost_by_a_crash() {
    let (app, calls) = calling(1, AsyncOrder::None);
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 1, "a", "a1");
    send(&mut driver, 2, "b", "b1");
    assert_eq!(calls.lock().len(), 1);
    calls.lock().clear();
    driver.crash();
    // Nothing was committed: the first record is called for again.
    assert_eq!(end(&mut driver, &calls, "a1"), ["a1!"]);
    assert_eq!(end(&mut driver, &calls, "b1"), ["b1!"]);
    driver.crash();
    assert!(calls.lock().is_empty(), "what was committed is not called for again");
}

#[test]
fn batches_are_full_or_end_with_a_commit_and_are_tried_again() {
    let app = Topology::new("app");
    app.on_error(ErrorPolicy::retry(3, Duration::from_millis(10)));
    /// Values, and the offsets of the first and the last.
    type Given = (Vec<String>, i64, i64);
    let given: Arc<Mutex<Vec<Given>>> = Arc::default();
    let (taken, mut fails) = (given.clone(), true);
    app.stream::<String, String>("in").for_each_batch(2, move |batch| {
        if batch.records.len() == 1 && std::mem::take(&mut fails) {
            return Err("not now");
        }
        let values = batch.records.iter().map(|record| record.value.clone()).collect();
        taken.lock().push((values, batch.first.offset, batch.last.offset));
        Ok(())
    });
    let mut driver = TestDriver::of(&app).commit_on_command().start().expect("a valid topology");
    for (at, value) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        send(&mut driver, at as i64, "k", value);
    }
    let batch = |values: &[&str], first, last| {
        (values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>(), first, last)
    };
    let mut expected = vec![batch(&["a", "b"], 0, 1), batch(&["c", "d"], 2, 3)];
    assert_eq!(*given.lock(), expected);
    driver.commit();
    assert_eq!(*given.lock(), expected);
    driver.advance_ms(10);
    expected.push(batch(&["e"], 4, 4));
    assert_eq!(*given.lock(), expected);
    driver.commit().crash();
    assert_eq!(*given.lock(), expected);
}

/// Counts words, and tells the counts at intervals.
#[derive(Clone)]
struct Counting(KvState<String, i64>);

impl StreamTask for Counting {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = i64;

    fn states(&self) -> Vec<&str> {
        vec![self.0.name()]
    }

    fn window_ms(&self) -> Option<i64> {
        Some(1000)
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessorError> {
        cx.counter("words").add(1);
        cx.distribution("length").record(record.value.len() as i64);
        let mut counts = cx.state(&self.0);
        let count = counts.get(&record.value)?.unwrap_or(0);
        Ok(counts.put(&record.value, count + 1)?)
    }

    fn window(&mut self, cx: &mut ProcessorContext<'_, String, i64>) -> Result<(), ProcessorError> {
        for (word, count) in cx.state(&self.0).all()? {
            cx.forward(Record::new(word, count, 0))?;
        }
        Ok(())
    }
}

#[test]
fn a_samza_task_processes_and_is_called_at_intervals() {
    let app = Topology::new("app");
    let counts = app.kv_store("counts");
    app.stream("in").run_task(Counting(counts)).to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    for word in ["be", "or", "be", "question"] {
        send(&mut driver, 0, "k", word);
    }
    assert!(driver.output::<String, i64>("out").pairs().is_empty());
    driver.advance_ms(1000);
    let told = driver.output::<String, i64>("out").pairs();
    assert_eq!(told, [("be", 2), ("or", 1), ("question", 1)].map(|(w, n)| (w.to_owned(), n)));
    assert_eq!(driver.counter("words"), 4);
    let lengths = driver.distribution("length");
    assert_eq!((lengths.count, lengths.sum, lengths.min, lengths.max), (4, 14, 2, 8));
}

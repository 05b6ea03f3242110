//! What Fleuve has beyond Kafka Streams: operators learned from other engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleuve_streams::processor::{
    KvState, Processor, ProcessorContext, ProcessorError, SessionState, State,
};
use fleuve_streams::{
    AsyncOrder, Consumed, ErrorPolicy, Guarantee, JoinWindows, KStream, LocalRun, Materialized,
    Partitioning, Produced, Record, Repartitioned, SessionWindows, SlidingWindows, StreamTask,
    SuppressBuffer, Suppressed, TestDriver, TimeWindows, Topology, Window,
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

#[test]
fn late_records_go_where_the_program_wants_them() {
    let app = Topology::new("app");
    let grouped = app.stream::<String, String>("in").group_by_key();
    let hopping = grouped.windowed_by(TimeWindows::of_ms(10, 0).advance_by_ms(5)).count("hopping");
    hopping.late::<String>().to("late-hopping");
    hopping.late::<String>().filter(|_, value| value == "e").to("late-again");
    let sliding = grouped.windowed_by(SlidingWindows::of_ms(10, 0)).count("sliding");
    sliding.late::<String>().to("late-sliding");
    let sessions = grouped.windowed_by(SessionWindows::of_ms(5, 0)).emit_final().count("sessions");
    sessions.late::<String>().to("late-sessions");

    let mut driver = TestDriver::new(&app).expect("a valid topology");
    // 26 is in a hopping window that is open still, and within the gap of the session at 30.
    for (at, value) in [(30, "a"), (21, "b"), (24, "c"), (26, "d"), (19, "e")] {
        send(&mut driver, at, "k", value);
    }
    let late = [("k", "b", 21), ("k", "c", 24), ("k", "e", 19)];
    driver.output::<String, String>("late-hopping").expect(late);
    driver.output::<String, String>("late-again").expect([("k", "e", 19)]);
    driver.output::<String, String>("late-sliding").expect([("k", "e", 19)]);
    driver.output::<String, String>("late-sessions").expect(late);
}

#[test]
fn late_records_that_a_table_does_not_have_are_refused() {
    let refused = |app: &Topology| app.describe().expect_err("refused").to_string();
    let app = Topology::new("app");
    let grouped = app.stream::<String, String>("in").group_by_key();
    grouped.windowed_by(TimeWindows::of_ms(10, 0)).count("counts").late::<i64>().to("late");
    assert!(refused(&app).contains("of another type"), "{}", refused(&app));

    let app = Topology::new("app");
    let grouped = app.stream::<String, String>("in").group_by_key();
    let both = grouped.cogroup(|_, value, all: String| all + &value);
    let both = both.windowed_by(TimeWindows::of_ms(10, 0)).aggregate("both", String::new);
    both.late::<String>().to("late");
    assert!(refused(&app).contains("not what one stream"), "{}", refused(&app));
}

#[test]
fn a_composite_has_names_of_its_own_and_leaves_others_alone() {
    let counting = |with_composite: bool| {
        let app = Topology::new("app");
        let mut words = app.stream::<String, String>("in");
        if with_composite {
            words = words.apply("clean", |words: KStream<String, String>| {
                let kept = words.filter(|_, word| !word.is_empty());
                kept.apply("inner", |kept: KStream<String, String>| {
                    kept.map_values(|word| word.to_lowercase())
                })
                .peek(|_, _| {})
            });
        }
        let counts = words.group_by(|_, word| word.clone()).count_with(Materialized::unnamed());
        counts.to_stream().to("out");
        app.describe().expect("a valid topology")
    };
    let (with, without) = (counting(true), counting(false));
    for name in [
        "clean-KSTREAM-FILTER-0000000000",
        "clean-inner-KSTREAM-MAPVALUES-0000000000",
        "clean-KSTREAM-PEEK-0000000001",
    ] {
        assert!(with.contains(name), "{name} in {with}");
    }
    let counted =
        |described: &str| described.split_once("Sub-topology: 1").map(|parts| parts.1.to_owned());
    assert_eq!(counted(&with), counted(&without));
}

#[test]
fn a_composite_may_be_used_twice() {
    let app = Topology::new("app");
    let paired = |streams: KStream<String, String>| {
        let late = streams.filter(|_, value| value.len() > 1);
        streams.outer_join_within(&late, JoinWindows::of_ms(5, 0), |x, y| format!("{x:?}{y:?}"))
    };
    let stream = app.stream::<String, String>("in");
    stream.apply("one", paired).to("out");
    app.scope("two", |_| paired(stream.clone())).to("out");
    app.build().expect("names that differ");

    let app = Topology::new("app");
    let stream = app.stream::<String, String>("in");
    stream.apply("one", paired);
    stream.apply("one", paired);
    let refused = app.describe().expect_err("the name is taken").to_string();
    assert!(refused.contains("`one-"), "{refused}");
}

#[test]
fn a_table_with_versions_is_not_suppressed() {
    let app = Topology::new("app");
    let versions = Materialized::named("versions").versioned_ms(100);
    app.table_with::<String, String>("in", Consumed::default(), versions)
        .filter(|_, value| !value.is_empty())
        .suppress(Suppressed::until_time_limit_ms(10, SuppressBuffer::unbounded()))
        .to_stream()
        .to("out");
    let refused = app.describe().expect_err("refused").to_string();
    assert!(refused.contains("suppress is only for tables that keep no versions"), "{refused}");
}

/// What a local run writes to `out`, as text.
fn written(run: &mut LocalRun) -> Arc<Mutex<Vec<String>>> {
    let written = Arc::new(Mutex::new(Vec::new()));
    let seen = written.clone();
    run.write("out", move |record: Record<String, String>| {
        seen.lock().push(format!("{}={}", record.key, record.value));
        Ok(())
    });
    written
}

#[test]
fn a_local_run_takes_records_of_all_sources_in_the_order_of_time() {
    let app = Topology::new("app");
    let rows = app.table::<String, i64>("rows");
    app.stream::<String, i64>("events")
        .join(&rows, |event, row| format!("{row}<{event}"))
        .to("out");
    let at = |times: std::ops::Range<i64>, first: i64| {
        times.map(move |n| Record::new("k".to_owned(), 2 * n + first, 2 * n + first))
    };
    let mut run = LocalRun::new(&app).expect("a valid topology");
    let written = written(&mut run);
    run.read("events", at(0..3_000, 1)).expect("a topic of the topology");
    run.read("rows", at(0..3_000, 0)).expect("a topic of the topology");
    run.run_until_end().expect("no error");
    let expected: Vec<String> = (0..3_000).map(|n| format!("k={}<{}", 2 * n, 2 * n + 1)).collect();
    assert_eq!(*written.lock(), expected);

    // It goes on where it was.
    run.read("events", [Record::new("k".to_owned(), 9_000_i64, 9_000)]).expect("a topic");
    run.run_until_end().expect("no error");
    assert_eq!(written.lock().last().map(String::as_str), Some("k=5998<9000"));

    let unknown = run.read("elsewhere", [Record::new(1_i64, 1_i64, 1)]).err();
    assert!(unknown.is_some_and(|error| error.to_string().contains("elsewhere")));
}

#[test]
fn a_local_run_reads_lines_and_flushes_caches_through_repartitions() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("text");
    std::fs::write(&file, "to be\r\nor not\nto be").expect("written");
    let app = Topology::new("app");
    let counts = app
        .stream::<(), String>("lines")
        .flat_map(|(), line| line.split(' ').map(|w| (w.to_owned(), 1_i64)).collect::<Vec<_>>())
        .group_by_key()
        .count("counts");
    counts
        .group_by(|_, count| (count.to_string(), 1_i64))
        .count("counts-of-counts")
        .to_stream()
        .map_values(|count| count.unwrap_or_default().to_string())
        .to("out");
    let mut run = LocalRun::new(&app).expect("a valid topology");
    let written = written(&mut run);
    run.read_lines("lines", &file).expect("a file");
    run.run_until_end().expect("no error");
    let mut last = BTreeMap::new();
    for pair in written.lock().iter() {
        let (count, words) = pair.split_once('=').expect("a pair");
        last.insert(count.to_owned(), words.to_owned());
    }
    // `to` and `be` twice, `or` and `not` once.
    assert_eq!((last["1"].as_str(), last["2"].as_str()), ("2", "2"));
}

#[test]
fn a_local_run_waits_for_answers_and_not_for_retries() {
    let app = Topology::new("app");
    app.on_error(ErrorPolicy::retry(3, Duration::from_secs(3_600)).or(ErrorPolicy::Fail));
    let failures = Arc::new(Mutex::new(2));
    app.stream::<String, String>("in")
        .map_async(2, AsyncOrder::Overall, |_, value: String| {
            let (answer, answered) = oneshot::channel();
            std::thread::spawn(move || answer.send(value + "!"));
            answered
        })
        .try_map_values(move |value| {
            let mut left = failures.lock();
            if *left > 0 {
                *left -= 1;
                return Err("not yet");
            }
            Ok(value)
        })
        .to("out");
    let mut run = LocalRun::new(&app).expect("a valid topology");
    let written = written(&mut run);
    let values = (0..20).map(|n| Record::new("k".to_owned(), n.to_string(), n));
    run.read("in", values).expect("a topic of the topology");
    run.run_until_end().expect("no error");
    let expected: Vec<String> = (0..20).map(|n| format!("k={n}!")).collect();
    assert_eq!(*written.lock(), expected);
}

/// Events looked up in a table that is read first.
fn looked_up() -> Topology {
    let app = Topology::new("app");
    let first = Consumed::default().bootstrap();
    let rows = app.table_with::<String, String>("rows", first, Materialized::named("rows"));
    app.stream::<String, String>("in").join(&rows, |event, row| format!("{event}{row}")).to("out");
    app
}

#[test]
fn a_bootstrap_stream_is_read_to_its_end_before_others() {
    let app = looked_up();
    let mut driver = TestDriver::of(&app).commit_on_command().start().expect("a valid topology");
    send(&mut driver, 1, "k", "a");
    driver.input("rows").at(5).send("k", "x").at(6).send("k", "y");
    send(&mut driver, 7, "k", "b");
    driver.output::<String, String>("out").expect([("k", "by")]);
    // Nothing was committed: the rows come again before the events now.
    driver.crash();
    driver.output::<String, String>("out").expect([("k", "ay"), ("k", "by")]);
}

#[test]
fn a_local_run_reads_bootstrap_streams_first() {
    let mut run = LocalRun::new(&looked_up()).expect("a valid topology");
    let written = written(&mut run);
    let records = |count: i64, first: i64| {
        (0..count).map(move |n| Record::new("k".to_owned(), n.to_string(), first + n))
    };
    run.read("in", records(2, 0)).expect("a topic of the topology");
    run.read("rows", records(1_000, 50)).expect("a topic of the topology");
    run.run_until_end().expect("no error");
    assert_eq!(*written.lock(), ["k=0999", "k=1999"]);
}

#[test]
fn a_frequent_key_is_the_work_of_two_tasks_and_counted_exactly() {
    const RECORDS: usize = 2_000;
    let app = Topology::new("app");
    app.stream::<String, String>("in")
        .group_by_key()
        .count_balanced("counts")
        .to_stream()
        .to("out");
    let mut driver = TestDriver::of(&app)
        .partitions(4)
        .instances(2)
        .guarantee(Guarantee::ExactlyOnce)
        .commit_on_command()
        .start()
        .expect("a valid topology");
    // Nine of ten records have one key; the others have twenty.
    let mut expected = BTreeMap::new();
    for number in 0..RECORDS {
        let key =
            if number % 10 > 0 { "hot".to_owned() } else { format!("cold-{}", number / 10 % 20) };
        *expected.entry(key.clone()).or_insert(0_i64) += 1;
        driver.input("in").partition((number % 4) as i32).at(0).send(&key, &String::new());
        if number == RECORDS / 2 {
            driver.commit().kill_instance(1);
        }
    }
    for _ in 0..3 {
        driver.commit();
    }
    let counts: BTreeMap<String, i64> = driver.store("counts").into_iter().collect();
    assert_eq!(counts, expected);
    let mut loads = [0_usize; 4];
    for record in driver.raw_output("app-counts-partial-repartition") {
        loads[record.partition as usize] += 1;
    }
    // By key alone one partition would have nine tenths of them.
    assert!(loads.iter().max().is_some_and(|most| *most < RECORDS * 6 / 10), "{loads:?}");
    // Caches send a part once per commit.
    assert!(driver.raw_output("app-counts-merge-repartition").len() < RECORDS / 10);
}

/// Counts by sessions, as `windowed_by(SessionWindows)` does.
#[derive(Clone)]
struct Sessions {
    kept: SessionState<String, i64>,
    gap_ms: i64,
}

impl Processor for Sessions {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = i64;

    fn states(&self) -> Vec<&str> {
        vec![self.kept.name()]
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessorError> {
        let at = record.timestamp;
        let (mut session, mut count) = (Window { start: at, end: at }, 1);
        let mut sessions = cx.state(&self.kept);
        for (other, counted) in sessions.find(&record.key, at - self.gap_ms, at + self.gap_ms)? {
            assert_eq!(sessions.get(&record.key, other)?, Some(counted));
            sessions.remove(&record.key, other)?;
            session.start = session.start.min(other.start);
            session.end = session.end.max(other.end);
            count += counted;
        }
        sessions.put(&record.key, session, count)?;
        Ok(cx.forward(record.with_value(count))?)
    }
}

#[test]
fn a_processor_keeps_sessions_as_the_operator_does() {
    let app = Topology::new("app");
    let input = app.stream::<String, String>("in");
    let kept = app.session_store("by-hand", 1_000);
    input.process(Sessions { kept, gap_ms: 10 }).to("by-hand");
    input
        .group_by_key()
        .windowed_by(SessionWindows::of_ms(10, 990))
        .count("by-operator")
        .to_stream_by(|session, _| session.key.clone())
        .filter(|_, count| count.is_some())
        .map_values(Option::unwrap_or_default)
        .to("by-operator");
    let directory = tempfile::tempdir().expect("a directory");
    for on_disk in [false, true] {
        let mut setup = TestDriver::of(&app);
        if on_disk {
            setup = setup.state_dir(directory.path());
        }
        let mut driver = setup.start().expect("a valid topology");
        for (at, key) in [(5, "a"), (30, "a"), (41, "a"), (14, "a"), (22, "a"), (22, "b")] {
            send(&mut driver, at, key, "");
        }
        driver.crash();
        // Between two sessions, which it joins.
        send(&mut driver, 35, "a", "");
        let by_hand = driver.output::<String, i64>("by-hand").pairs();
        assert_eq!(by_hand.last(), Some(&("a".to_owned(), 6)));
        assert_eq!(by_hand, driver.output::<String, i64>("by-operator").pairs());
        let changelog = |driver: &mut TestDriver, store: &str| -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
            let records = driver.raw_output(&format!("app-{store}-changelog")).into_iter();
            let bytes = |bytes: bytes::Bytes| bytes.to_vec();
            records
                .map(|record| (record.key.map(bytes).unwrap_or_default(), record.value.map(bytes)))
                .collect()
        };
        let logged: BTreeMap<_, _> = changelog(&mut driver, "by-hand").into_iter().collect();
        assert_eq!(logged, changelog(&mut driver, "by-operator").into_iter().collect());
    }
}

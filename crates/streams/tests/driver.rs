//! What the comparison with Kafka Streams does not show: crashes, and what is only ours.

use fleuve_streams::processor::{
    FixedKeyProcessor, KvState, Output, Processor, ProcessorContext, ProcessorError, SessionState,
    State, TimerState, TransformContext, ValueTransformer, WindowState,
};
use fleuve_streams::{
    Clock, Consumed, ErrorPolicy, JoinWindows, KStream, KTable, Materialized, Record, Schedule,
    SessionWindows, StreamJoined, SuppressBuffer, Suppressed, TestDriver, Topology,
    UnlimitedWindows, Window, Windowed,
};

fn send(driver: &mut TestDriver, at: i64, key: &str, value: &str) {
    driver.input("in").at(at).send(&key.to_owned(), &value.to_owned());
}

fn session(key: &str, start: i64, end: i64) -> Windowed<String> {
    Windowed { key: key.to_owned(), window: Window { start, end } }
}

#[test]
fn sessions_survive_a_crash_and_go_on() {
    let app = Topology::new("app");
    app.stream::<String, String>("in")
        .group_by_key()
        .windowed_by(SessionWindows::of_ms(5, 0))
        .reduce("joined", |one, two| one + &two)
        .to_stream()
        .to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 10, "k", "a");
    send(&mut driver, 12, "k", "b");
    driver.crash();
    send(&mut driver, 14, "k", "c");
    assert_eq!(
        driver.output::<Windowed<String>, Option<String>>("out").pairs(),
        [
            (session("k", 10, 10), Some("a".to_owned())),
            (session("k", 10, 10), None),
            (session("k", 10, 12), Some("ab".to_owned())),
            (session("k", 10, 12), None),
            (session("k", 10, 14), Some("abc".to_owned())),
        ]
    );
}

#[test]
fn what_a_suppression_holds_back_survives_a_crash() {
    let app = Topology::new("app");
    app.table::<String, String>("in")
        .suppress(Suppressed::until_time_limit_ms(10, SuppressBuffer::unbounded()))
        .to_stream()
        .to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(10).header("h", "x").send(&"k".to_owned(), &"a".to_owned());
    send(&mut driver, 11, "l", "b");
    driver.crash();
    send(&mut driver, 20, "m", "c");
    let sent = driver.output::<String, String>("out").records();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].record.key.as_str(), sent[0].record.timestamp), ("k", 10));
    assert_eq!(sent[0].record.headers.last("h").map(|value| &value[..]), Some(&b"x"[..]));
}

#[test]
fn a_full_buffer_that_may_not_send_early_fails_the_task() {
    let app = Topology::new("app");
    let buffer = SuppressBuffer::max_records(1).shut_down_when_full();
    app.table::<String, String>("in")
        .suppress(Suppressed::until_time_limit_ms(10, buffer))
        .to_stream()
        .to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 10, "k", "a");
    assert!(driver.failure().is_none());
    send(&mut driver, 10, "l", "b");
    assert!(driver.failure().is_some_and(|failure| failure.to_string().contains("is full")));
}

#[test]
fn windows_cannot_close_where_there_are_none() {
    let app = Topology::new("app");
    app.table::<Windowed<String>, String>("in")
        .suppress(Suppressed::until_window_closes(SuppressBuffer::unbounded()))
        .to_stream()
        .to("out");
    assert!(app.build().is_err_and(|error| error.to_string().contains("windows to close")));
}

#[test]
fn a_global_table_is_filled_by_every_partition_and_read_again_after_a_crash() {
    let app = Topology::new("app");
    let table = app.global_table::<String, String>("table");
    app.stream::<String, String>("in")
        .join_global(&table, |_, value| value.clone(), |value, found| format!("{value}={found}"))
        .to("out");
    let mut driver = TestDriver::with_partitions(&app, 3).expect("a valid topology");
    for (partition, key) in ["x", "y", "z"].iter().enumerate() {
        let value = format!("{partition}");
        driver.input("table").at(0).partition(partition as i32).send(&(*key).to_owned(), &value);
    }
    send(&mut driver, 1, "k", "x");
    send(&mut driver, 2, "l", "z");
    driver.crash();
    send(&mut driver, 3, "m", "y");
    send(&mut driver, 4, "m", "w");
    let mut joined = driver.output::<String, String>("out").stamped();
    joined.sort_by_key(|(_, _, timestamp)| *timestamp);
    let values: Vec<String> = joined.into_iter().map(|(_, value, _)| value).collect();
    assert_eq!(values, ["x=0", "z=2", "y=1"]);
}

#[test]
fn a_foreign_key_join_finds_its_rows_in_other_partitions_and_survives_a_crash() {
    let app = Topology::new("app");
    let orders = app.table::<String, String>("orders");
    let users = app.table::<String, String>("users");
    orders
        .join_foreign(&users, |_, user| Some(user.clone()), |user, name| format!("{user}:{name}"))
        .to_stream()
        .to("out");
    let mut driver = TestDriver::with_partitions(&app, 4).expect("a valid topology");
    let put = |driver: &mut TestDriver, topic: &str, at: i64, key: &str, value: &str| {
        driver.input(topic).at(at).send(&key.to_owned(), &value.to_owned());
    };
    for order in 0..20 {
        put(&mut driver, "orders", order, &format!("o{order}"), &format!("u{}", order % 3));
    }
    put(&mut driver, "users", 30, "u0", "Ann");
    driver.crash();
    put(&mut driver, "users", 31, "u1", "Bob");
    put(&mut driver, "orders", 32, "o0", "u1");
    let mut rows: Vec<_> = driver.output::<String, Option<String>>("out").pairs();
    rows.sort();
    let expected = (0..20).filter(|order| order % 3 != 2).map(|order| {
        let name = if order % 3 == 0 { "u0:Ann" } else { "u1:Bob" };
        (format!("o{order}"), Some(name.to_owned()))
    });
    let mut expected: Vec<_> =
        expected.chain([("o0".to_owned(), Some("u1:Bob".to_owned()))]).collect();
    expected.sort();
    assert_eq!(rows, expected);
}

/// Sends what was late to an output of its own, and tells each key by a timer how often it came.
#[derive(Clone)]
struct Watch {
    counts: KvState<String, i64>,
    timers: TimerState<String>,
    late: Output<String, i64>,
}

impl Processor for Watch {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = i64;

    fn states(&self) -> Vec<&str> {
        vec![self.counts.name()]
    }

    fn timers(&self) -> Option<&TimerState<String>> {
        Some(&self.timers)
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessorError> {
        if record.value == "broken" {
            return Err("broken".into());
        }
        if record.timestamp < cx.stream_time_ms() {
            let lateness = cx.stream_time_ms() - record.timestamp;
            return Ok(cx.forward_to(&self.late.clone(), record.with_value(lateness))?);
        }
        let mut counts = cx.state(&self.counts);
        let count = counts.get(&record.key)?.unwrap_or(0);
        counts.put(&record.key, count + 1)?;
        if count == 0 {
            cx.set_timer(&self.timers, &record.key, record.timestamp + 10)?;
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        key: String,
        at_ms: i64,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessorError> {
        assert!(cx.origin().is_none(), "no record is processed when a timer fires");
        let count = cx.state(&self.counts).delete(&key)?.unwrap_or(0);
        Ok(cx.forward(Record::new(key, count, at_ms))?)
    }
}

fn watch(policy: ErrorPolicy) -> Topology {
    let app = Topology::new("app");
    app.on_error(policy);
    let late = Output::new("late");
    let watch =
        Watch { counts: app.kv_store("counts"), timers: app.timers("timers"), late: late.clone() };
    let watched = app.stream("in").process(watch);
    watched.to("out");
    watched.output(&late).to("late");
    app
}

#[test]
fn timers_fire_once_by_event_time_and_survive_a_crash() {
    let mut driver = TestDriver::new(&watch(ErrorPolicy::Fail)).expect("a valid topology");
    send(&mut driver, 0, "a", "x");
    send(&mut driver, 5, "b", "x");
    send(&mut driver, 6, "a", "x");
    driver.crash();
    send(&mut driver, 12, "c", "x");
    assert_eq!(driver.output::<String, i64>("out").stamped(), [("a".to_owned(), 2, 10)]);
    send(&mut driver, 40, "d", "x");
    let fired = driver.output::<String, i64>("out").stamped();
    assert_eq!(fired, [("b".to_owned(), 1, 15), ("c".to_owned(), 1, 22)]);
}

#[test]
fn a_processor_has_outputs_of_other_types() {
    let mut driver = TestDriver::new(&watch(ErrorPolicy::Fail)).expect("a valid topology");
    send(&mut driver, 20, "a", "x");
    send(&mut driver, 15, "b", "x");
    assert_eq!(driver.output::<String, i64>("late").stamped(), [("b".to_owned(), 5, 15)]);
    assert!(driver.output::<String, i64>("out").pairs().is_empty());
}

#[test]
fn a_processors_error_is_a_matter_of_the_policy() {
    let mut driver = TestDriver::new(&watch(ErrorPolicy::Fail)).expect("a valid topology");
    send(&mut driver, 0, "a", "broken");
    assert!(driver.failure().is_some_and(|failure| failure.to_string().contains("broken")));
    let policy = ErrorPolicy::DeadLetter("dead".to_owned());
    let mut driver = TestDriver::new(&watch(policy)).expect("a valid topology");
    send(&mut driver, 0, "a", "broken");
    send(&mut driver, 1, "a", "x");
    assert!(driver.failure().is_none());
    assert_eq!(driver.output::<String, String>("dead").pairs(), [("a".into(), "broken".into())]);
    assert_eq!(driver.store::<String, i64>("counts"), [("a".to_owned(), 1)]);
}

/// Keeps the highest number of each key, and refuses negative ones.
#[derive(Clone)]
struct Highest(KvState<String, i64>);

impl Processor for Highest {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = ();
    type ValueOut = ();

    fn states(&self) -> Vec<&str> {
        vec![self.0.name()]
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        cx: &mut ProcessorContext<'_, (), ()>,
    ) -> Result<(), ProcessorError> {
        if record.value < 0 {
            return Err("a negative number".into());
        }
        let mut highest = cx.state(&self.0);
        let known = highest.get(&record.key)?.unwrap_or(0);
        Ok(highest.put(&record.key, known.max(record.value))?)
    }
}

#[test]
fn a_global_store_is_what_its_processor_makes_of_all_partitions_after_a_crash_too() {
    let app = Topology::new("app");
    app.on_error(ErrorPolicy::DeadLetter("dead".to_owned()));
    let highest = app.kv_store("highest");
    let table =
        app.add_global_store(&highest, "numbers", Consumed::default(), Highest(highest.clone()));
    app.stream::<String, String>("in")
        .join_global(&table, |key, _| key.clone(), |_, n| *n)
        .to("out");
    let mut driver =
        TestDriver::of(&app).partitions(3).instances(2).start().expect("a valid topology");
    for (partition, number) in [5_i64, 9, 2, -1].into_iter().enumerate() {
        let input = driver.input("numbers").partition(partition as i32 % 3);
        input.send("k", &number);
    }
    assert_eq!(driver.failure().map(ToString::to_string), None);
    let dead = driver.output::<String, i64>("dead").records();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].record.value, -1);
    send(&mut driver, 1, "k", "v");
    driver.crash();
    send(&mut driver, 2, "k", "v");
    driver.output::<String, i64>("out").expect([("k", 9), ("k", 9)]);
    assert_eq!(driver.store::<String, i64>("highest"), [("k".to_owned(), 9)]);
    assert_eq!(driver.get("/stores/highest/key/k").json["value"], 9);
}

#[test]
fn only_its_own_processor_opens_a_global_store() {
    let app = Topology::new("app");
    let highest = app.kv_store("highest");
    app.add_global_store(&highest, "numbers", Consumed::default(), Highest(highest.clone()));
    app.stream::<String, i64>("in").process(Highest(highest));
    assert!(app.build().is_err_and(|error| error.to_string().contains("is a global store")));
}

/// Sends for each record what the state holds for its key.
#[derive(Clone)]
struct Reads(KvState<String, i64>);

impl Processor for Reads {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = i64;

    fn states(&self) -> Vec<&str> {
        vec![self.0.name()]
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessorError> {
        let found = cx.state(&self.0).get(&record.key)?.unwrap_or(0);
        Ok(cx.forward(Record::new(record.key, found, record.timestamp))?)
    }
}

#[test]
fn a_read_only_store_is_restored_from_its_topic_as_far_as_it_was_read() {
    let app = Topology::new("app");
    let rows = app.kv_store("rows");
    let keep = Highest(rows.clone());
    app.add_read_only_state_store(&rows, "rows-topic", Consumed::default(), keep);
    app.stream::<String, String>("in").process(Reads(rows)).to("out");
    let plan = app.build().expect("a valid topology");
    assert_eq!(plan.subtopologies().len(), 1);
    assert!(plan.subtopologies()[0].changelog_topics.is_empty());
    let mut driver = TestDriver::with_partitions(&app, 3).expect("a valid topology");
    for (key, number) in [("a", 1_i64), ("b", 2), ("c", 3)] {
        driver.input("rows-topic").send(key, &number);
    }
    driver.crash();
    assert_eq!(driver.restored(), 3);
    for key in ["a", "b", "c"] {
        send(&mut driver, 1, key, "v");
    }
    driver.output::<String, i64>("out").expect_in_any_order([("a", 1), ("b", 2), ("c", 3)]);
}

/// Puts in front of values what a state has for their keys, refuses some, and counts how often it was called by time.
#[derive(Clone)]
struct Prefixed {
    prefixes: KvState<String, String>,
    ticks: i32,
}

impl ValueTransformer for Prefixed {
    type Key = String;
    type ValueIn = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        vec![self.prefixes.name()]
    }

    fn init(&mut self, cx: &mut TransformContext<'_>) -> Result<(), ProcessorError> {
        cx.schedule(10, Clock::StreamTime);
        Ok(())
    }

    fn transform(
        &mut self,
        row: &Record<String, Option<String>>,
        cx: &mut TransformContext<'_>,
    ) -> Result<Option<String>, ProcessorError> {
        let Some(value) = &row.value else {
            return Ok(None);
        };
        if value == "bad" {
            return Err("a bad value".into());
        }
        let prefix = cx.state(&self.prefixes).get(&row.key)?.unwrap_or_default();
        Ok(Some(format!("{prefix}{value}{}", self.ticks)))
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        _: &mut TransformContext<'_>,
    ) -> Result<(), ProcessorError> {
        self.ticks += 1;
        Ok(())
    }
}

/// A table whose rows a transformer makes with the rows of another.
fn prefixed(app: &Topology) -> KTable<String, String> {
    app.table_with::<String, String>(
        "prefixes",
        Consumed::default(),
        Materialized::named("prefixes"),
    );
    let prefixes = KvState::of("prefixes");
    app.table::<String, String>("in").transform_values(Prefixed { prefixes, ticks: 0 })
}

#[test]
fn a_transformer_of_a_table_sees_states_and_is_called_by_time() {
    let app = Topology::new("app");
    prefixed(&app).to_stream().to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("prefixes").at(0).send("k", ">");
    send(&mut driver, 1, "k", "a");
    send(&mut driver, 20, "k", "b");
    driver.input("in").at(21).send(&"k".to_owned(), &None::<String>);
    driver.output::<String, Option<String>>("out").expect([
        ("k".to_owned(), Some(">a1".to_owned())),
        ("k".to_owned(), Some(">b1".to_owned())),
        ("k".to_owned(), None),
    ]);
}

#[test]
fn a_join_asks_a_transformer_that_has_states_for_rows() {
    let app = Topology::new("app");
    let rows = prefixed(&app);
    app.stream::<String, String>("events")
        .join(&rows, |event, row| format!("{event}={row}"))
        .to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 1, "k", "a");
    driver.input("events").at(2).send("k", "x");
    // What the transformer looks up may have changed since the row did.
    driver.input("prefixes").at(3).send("k", ">");
    driver.input("events").at(4).send("k", "y").send("l", "z");
    driver.output::<String, String>("out").expect([("k", "x=a1"), ("k", "y=>a1")]);
    assert!(driver.failure().is_none());
}

#[test]
fn an_error_of_a_transformer_is_a_matter_of_the_policy_unless_a_row_is_looked_up() {
    let run = |policy: ErrorPolicy, events: &[&str]| {
        let app = Topology::new("app");
        app.on_error(policy);
        let rows = prefixed(&app);
        rows.to_stream().to("out");
        app.stream::<String, String>("events").join(&rows, |event, _| event.clone()).to("joined");
        let mut driver = TestDriver::new(&app).expect("a valid topology");
        send(&mut driver, 1, "k", "bad");
        send(&mut driver, 2, "l", "good");
        for key in events {
            driver.input("events").at(3).send(&(*key).to_owned(), &"x".to_owned());
        }
        let failed = driver.failure().map(|failure| failure.cause.to_string());
        (driver.output::<String, String>("out").pairs().len(), failed)
    };
    assert_eq!(run(ErrorPolicy::Skip, &["l"]), (1, None));
    assert_eq!(run(ErrorPolicy::Fail, &[]), (0, Some("a bad value".to_owned())));
    // The row that cannot be made is not the event's fault.
    assert_eq!(run(ErrorPolicy::Skip, &["k"]), (1, Some("a bad value".to_owned())));
}

#[test]
fn a_window_that_never_closes_has_nothing_to_send_then() {
    let app = Topology::new("app");
    app.stream::<String, String>("in")
        .group_by_key()
        .windowed_by(UnlimitedWindows::of())
        .emit_final()
        .count("counts");
    assert!(app.build().is_err_and(|error| error.to_string().contains("never closes")));
}

#[test]
fn a_window_that_never_closes_is_kept_for_good_and_survives_a_crash() {
    let app = Topology::new("app");
    let late = app
        .stream::<String, String>("in")
        .group_by_key()
        .windowed_by(UnlimitedWindows::of().start_on_ms(5))
        .count("counts");
    late.to_stream_by(|key, _| format!("{} {}", key.key, key.window.start)).to("out");
    late.late::<String>().to("late");
    let plan = app.build().expect("valid");
    let topics = plan.subtopologies().iter().flat_map(|part| &part.changelog_topics);
    let kept: Vec<&str> = topics.map(|topic| topic.config["retention.ms"].as_str()).collect();
    assert_eq!(kept, [i64::MAX.to_string()]);
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 7, "k", "a");
    send(&mut driver, 4, "k", "before the beginning");
    send(&mut driver, i64::MAX / 4, "l", "far ahead");
    driver.crash();
    send(&mut driver, 6, "k", "b");
    driver.output::<String, i64>("out").expect([("k 5", 1), ("l 5", 1), ("k 5", 2)]);
    // What is in no window is not late.
    assert!(driver.output::<String, String>("late").pairs().is_empty());
}

/// Takes the number of records of each key, in a store of two.
#[derive(Clone)]
struct Seen(KvState<String, i64>);

impl Processor for Seen {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = i64;

    fn states(&self) -> Vec<&str> {
        vec![self.0.name()]
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessorError> {
        let mut seen = cx.state(&self.0);
        let count = seen.put_if_absent(&record.key, 1)?.map_or(1, |before| before + 1);
        seen.put(&record.key, count)?;
        assert!(seen.range(record.key.clone()..)?.first() == Some(&(record.key.clone(), count)));
        Ok(cx.forward(record.with_value(count))?)
    }
}

#[test]
fn a_store_of_the_keys_used_last_forgets_the_same_ones_after_a_crash() {
    let app = Topology::new("app");
    let seen = app.kv_store_with(Materialized::named("seen").lru(2));
    app.stream::<String, String>("in").process(Seen(seen)).to("out");
    let run = |crash_after: usize| {
        let mut driver = TestDriver::new(&app).expect("a valid topology");
        for (number, key) in "abacabbca".chars().enumerate() {
            send(&mut driver, 0, &key.to_string(), "x");
            if number == crash_after {
                driver.crash();
            }
        }
        driver.output::<String, i64>("out").pairs()
    };
    let counts: Vec<i64> = run(usize::MAX).into_iter().map(|(_, count)| count).collect();
    // `b` makes room for `c`, and later `c` and `a` for others.
    assert_eq!(counts, [1, 1, 2, 1, 3, 1, 2, 1, 1]);
    for crash_after in 0..9 {
        assert_eq!(run(crash_after).len(), 9, "after {crash_after}");
        assert_eq!(run(crash_after), run(usize::MAX), "after {crash_after}");
    }
}

/// Keeps each value in a window and in a session, and tells what both have.
#[derive(Clone)]
struct Both {
    windows: WindowState<String, String>,
    sessions: SessionState<String, String>,
}

impl Processor for Both {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        vec![self.windows.name(), self.sessions.name()]
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        let Record { key, value, timestamp, .. } = record.clone();
        cx.state(&self.windows).put(&key, timestamp, value.clone())?;
        let session = Window { start: timestamp, end: timestamp };
        cx.state(&self.sessions).put(&key, session, value)?;
        Ok(cx.forward(record)?)
    }
}

#[test]
fn a_processors_store_is_kept_as_its_options_say() {
    let app = Topology::new("app");
    let kept = Materialized::named("seen").without_logging();
    let seen: KvState<String, i64> = app.kv_store_with(kept);
    app.stream::<String, String>("in").process(Seen(seen)).to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 0, "a", "x");
    driver.crash();
    send(&mut driver, 0, "a", "x");
    driver.output::<String, i64>("out").expect([("a", 1), ("a", 1)]);

    let app = Topology::new("app");
    let quick = |name: &str| Materialized::named(name).changelog_config("segment.ms", "1000");
    let both = Both {
        windows: app.window_store_with(10, quick("windows")),
        sessions: app.session_store_with(20, quick("sessions")),
    };
    app.stream::<String, String>("in").process(both).to("out");
    let plan = app.build().expect("valid");
    let topics = plan.subtopologies().iter().flat_map(|part| &part.changelog_topics);
    let topics: Vec<_> = topics
        .map(|topic| {
            (&topic.name[..], &topic.config["retention.ms"][..], &topic.config["segment.ms"][..])
        })
        .collect();
    assert_eq!(
        topics,
        [
            ("app-sessions-changelog", "86400020", "1000"),
            ("app-windows-changelog", "86400010", "1000"),
        ]
    );

    let app = Topology::new("app");
    let _: KvState<String, i64> = app.kv_store_with(Materialized::unnamed());
    app.stream::<String, String>("in").to("out");
    assert!(app.build().is_err_and(|error| error.to_string().contains("needs a name")));
}

#[test]
fn a_join_of_streams_keeps_its_events_as_its_options_say() {
    let join = |joined: StreamJoined| {
        let app = Topology::new("app");
        let stream = |topic: &str| -> KStream<String, String> { app.stream(topic) };
        stream("in")
            .left_join_within_with(
                &stream("other"),
                JoinWindows::of_ms(5, 0),
                joined,
                |key, left, right| format!("{key}:{left}{}", right.map_or("", |right| right)),
            )
            .to("out");
        app
    };
    let changelogs = |app: &Topology| -> Vec<String> {
        let plan = app.build().expect("valid");
        let topics = plan.subtopologies().iter().flat_map(|part| &part.changelog_topics);
        topics.map(|topic| format!("{} {:?}", topic.name, topic.config.get("segment.ms"))).collect()
    };
    assert!(changelogs(&join(StreamJoined::default().without_logging())).is_empty());
    let named = StreamJoined::default().this_store("mine").other_store("theirs");
    let app = join(named.changelog_config("segment.ms", "1000"));
    assert_eq!(
        changelogs(&app),
        [
            "app-mine-changelog Some(\"1000\")",
            "app-mine-left-shared-join-store-changelog Some(\"1000\")",
            "app-theirs-changelog Some(\"1000\")",
        ]
    );
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 1, "k", "a");
    driver.input("other").at(2).send("k", "b");
    driver.output::<String, String>("out").expect([("k", "k:ab")]);
}

#[test]
fn mappers_and_joiners_that_look_at_the_key() {
    let app = Topology::new("app");
    let stream = app.stream::<String, String>("in");
    let table = app.table::<String, String>("rows");
    let everywhere = app.global_table::<String, String>("everywhere");
    stream.flat_map_values_with_key(|key, value| [format!("{key}{value}")]).to("out");
    stream
        .join_with(&table, Default::default(), |key, one, two| format!("{key}{one}{two}"))
        .to("out");
    stream
        .left_join_with(&table, Default::default(), |key, one, two| format!("{key}{one}{two:?}"))
        .to("out");
    let select = |key: &String, _: &String| key.clone();
    stream
        .join_global_with_key(&everywhere, select, |key, one, two| format!("{key}{one}{two}"))
        .to("out");
    stream
        .left_join_global_with_key(&everywhere, select, |key, one, two| {
            format!("{key}{one}{two:?}")
        })
        .to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("rows").at(0).send("k", "r");
    driver.input("everywhere").at(0).send("k", "g");
    send(&mut driver, 1, "k", "v");
    driver.output::<String, String>("out").expect([
        ("k", "kv"),
        ("k", "kvr"),
        ("k", "kvSome(\"r\")"),
        ("k", "kvg"),
        ("k", "kvSome(\"g\")"),
    ]);
}

/// Passes values on, and tells of each key how many there were whenever it is called by time.
#[derive(Clone)]
struct Told(KvState<String, i64>);

impl FixedKeyProcessor for Told {
    type Key = String;
    type ValueIn = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        vec![self.0.name()]
    }

    fn init(
        &mut self,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        cx.schedule(10, Clock::WallClock);
        Ok(())
    }

    fn process(
        &mut self,
        record: &Record<String, String>,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<Vec<String>, ProcessorError> {
        let mut counts = cx.state(&self.0);
        let count = counts.get(&record.key)?.unwrap_or(0);
        counts.put(&record.key, count + 1)?;
        Ok(vec![record.value.clone()])
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        time: i64,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        for (key, count) in cx.state(&self.0).all()? {
            cx.forward(Record::new(key, format!("{count} values"), time))?;
        }
        Ok(())
    }
}

#[test]
fn a_processor_of_values_is_called_by_time() {
    let app = Topology::new("app");
    let counts = app.kv_store("counts");
    app.stream::<String, String>("in").process_values(Told(counts)).to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    send(&mut driver, 1, "k", "a");
    send(&mut driver, 2, "k", "b");
    driver.advance_ms(10);
    driver.output::<String, String>("out").expect([("k", "a"), ("k", "b"), ("k", "2 values")]);
}

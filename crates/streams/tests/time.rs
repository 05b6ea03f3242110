//! Event time: where it comes from, and how it moves without records, on idle input and at the end of the input.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleuve_streams::processor::{Processor, ProcessorContext, ProcessorError, State, TimerState};
use fleuve_streams::{
    AsyncOrder, Consumed, Guarantee, JoinWindows, LocalRun, Record, SessionWindows, SlidingWindows,
    SuppressBuffer, Suppressed, TestDriver, TimeWindows, Topology, Windowed,
};

/// A window's key in these outputs.
fn name<V>(window: &Windowed<String>, _: Option<&V>) -> String {
    format!("{}@{}", window.key, window.window.start)
}

/// Counts of windows by key and start.
fn windows(driver: &mut TestDriver, topic: &str) -> Vec<(String, i64)> {
    driver.output(topic).pairs()
}

fn counted(key: &str, start: i64, count: i64) -> (String, i64) {
    (format!("{key}@{start}"), count)
}

/// Counts per ten milliseconds, sent once.
fn closing(app: &Topology) {
    app.stream::<String, String>("in")
        .group_by_key()
        .windowed_by(TimeWindows::of_ms(10, 5))
        .emit_final()
        .count("counts")
        .to_stream_by(name)
        .to("out");
}

#[test]
fn the_program_says_what_the_time_of_a_record_is() {
    let app = Topology::new("app");
    let by_value = Consumed::<String, i64>::default().event_time(|_, time_ms| *time_ms);
    app.stream_with(&["values"], by_value).to("of-values");
    let by_headers = Consumed::<String, String>::default().timestamp_extractor(|record, newest| {
        if record.headers.is_empty() { newest } else { record.offset * 100 }
    });
    app.stream_with(&["bytes"], by_headers).to("of-bytes");
    let mut driver = TestDriver::new(&app).expect("a valid topology");

    // A record in negative time is left out, and what cannot be read is a matter of the policy for reading.
    driver.input("values").at(7).send("k", &40_i64).send("k", &-1_i64).send("k", &30_i64);
    let times = |driver: &mut TestDriver, topic: &str| -> Vec<i64> {
        let records = driver.output::<String, String>(topic).records();
        records.into_iter().map(|sent| sent.record.timestamp).collect()
    };
    assert_eq!(
        driver.output::<String, i64>("of-values").stamped(),
        [("k".to_owned(), 40, 40), ("k".to_owned(), 30, 30),]
    );
    let task = driver.metrics().into_iter().find(|task| task.task == "0_0").expect("a task");
    assert_eq!(task.dropped.get("negative timestamp"), Some(&1), "{task:?}");
    assert_eq!(task.lateness.max, 10);

    // The partition has no time before its first record; afterwards its newest is known.
    driver.input("bytes").at(7).send("k", "v").header("h", "x").send("k", "v");
    driver.input("bytes").at(7).send("k", "v");
    assert_eq!(times(&mut driver, "of-bytes"), [100, 100]);
    driver.input("values").at(7).send("k", "text");
    assert!(driver.failure().is_some_and(|failure| failure.to_string().contains("values")));
}

#[test]
fn time_stands_still_without_input_unless_the_program_says_otherwise() {
    let app = Topology::new("app");
    closing(&app);
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(3).send("k", "v");
    driver.advance_ms(1_000_000).end_input();
    driver.output::<String, i64>("out").expect_none();
}

#[test]
fn windows_close_when_the_input_has_been_idle_for_long_enough() {
    let app = Topology::new("app");
    app.advance_when_idle(Duration::from_millis(6));
    closing(&app);
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(3).send("k", "v");
    driver.advance_ms(5);
    // A record shows that the input is not idle: time is 4 now, and the window closes at 15.
    driver.input("in").at(4).send("k", "v");
    driver.advance_ms(5);
    driver.advance_ms(5);
    assert_eq!(windows(&mut driver, "out"), []);
    driver.advance_ms(1);
    assert_eq!(windows(&mut driver, "out"), [counted("k", 0, 2)]);
    // Time has passed: what is older is late, and the next window is counted on.
    driver.input("in").at(5).send("k", "v").at(12).send("k", "v");
    assert_eq!(driver.dropped("window closed"), 1);
    driver.advance_ms(100);
    assert_eq!(windows(&mut driver, "out"), [counted("k", 10, 1)]);
}

#[test]
fn every_task_is_idle_for_itself() {
    let app = Topology::new("app");
    app.advance_when_idle(Duration::from_millis(10));
    closing(&app);
    let mut driver = TestDriver::with_partitions(&app, 2).expect("a valid topology");
    driver.input("in").partition(0).at(0).send("idle", "v");
    driver.input("in").partition(1).at(0).send("busy", "v");
    for _ in 0..10 {
        driver.advance_ms(9);
        driver.input("in").partition(1).at(1).send("busy", "v");
    }
    assert_eq!(windows(&mut driver, "out"), [counted("idle", 0, 1)]);
}

#[test]
fn suppressed_changes_events_without_a_partner_and_sessions_are_sent_on_idle_input() {
    let app = Topology::new("app");
    app.advance_when_idle(Duration::from_millis(1));
    let left = app.stream::<String, String>("in");
    left.group_by_key()
        .windowed_by(TimeWindows::of_ms(10, 0))
        .count("counts")
        .suppress(Suppressed::until_window_closes(SuppressBuffer::unbounded()))
        .to_stream_by(name)
        .to("suppressed");
    left.group_by_key()
        .windowed_by(SessionWindows::of_ms(5, 0))
        .emit_final()
        .count("sessions")
        .to_stream_by(name)
        .to("sessions");
    left.group_by_key()
        .windowed_by(SlidingWindows::of_ms(5, 0))
        .emit_final()
        .count("sliding")
        .to_stream_by(name)
        .to("sliding");
    let right = app.stream::<String, String>("other");
    left.left_join_within(&right, JoinWindows::of_ms(7, 0), |left, right| {
        format!("{left}{right:?}")
    })
    .to("joined");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(10).send("k", "v");
    driver.advance_ms(5);
    assert_eq!(windows(&mut driver, "sessions"), []);
    driver.advance_ms(1);
    assert_eq!(windows(&mut driver, "sessions"), [counted("k", 10, 1)]);
    assert_eq!(windows(&mut driver, "sliding"), [counted("k", 5, 1)]);
    driver.output::<String, String>("joined").expect_none();
    driver.advance_ms(2);
    driver.output::<String, String>("joined").expect([("k", "vNone")]);
    driver.advance_ms(1);
    assert_eq!(windows(&mut driver, "suppressed"), []);
    driver.advance_ms(1);
    assert_eq!(windows(&mut driver, "suppressed"), [counted("k", 10, 1)]);
}

#[test]
fn what_was_sent_on_idle_input_is_not_sent_again_after_a_crash() {
    let app = Topology::new("app");
    app.advance_when_idle(Duration::from_millis(1));
    closing(&app);
    let mut driver = TestDriver::of(&app)
        .guarantee(Guarantee::ExactlyOnce)
        .commit_on_command()
        .start()
        .expect("a valid topology");
    driver.input("in").at(3).send("k", "v");
    driver.commit().crash();
    // The next task knows from the commit what time it was.
    driver.advance_ms(20);
    driver.output::<String, i64>("out").expect_none();
    driver.commit();
    assert_eq!(windows(&mut driver, "out"), [counted("k", 0, 1)]);
    driver.crash().advance_ms(100).commit();
    driver.output::<String, i64>("out").expect_none();
}

/// Sets a timer for each record, and sends its key when that fires; the timer sets itself again.
#[derive(Clone)]
struct Reminder {
    timers: TimerState<String>,
}

impl Processor for Reminder {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        vec![self.timers.name()]
    }

    fn timers(&self) -> Option<&TimerState<String>> {
        Some(&self.timers)
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        cx.set_timer(&self.timers, &record.key, record.timestamp + 10)
    }

    fn on_timer(
        &mut self,
        key: String,
        at_ms: i64,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        cx.set_timer(&self.timers, &key, at_ms + 10)?;
        Ok(cx.forward(Record::new(key, at_ms.to_string(), at_ms))?)
    }
}

#[test]
fn timers_fire_on_idle_input_and_once_at_the_end() {
    let app = Topology::new("app");
    app.advance_when_idle(Duration::from_millis(1)).close_at_end();
    let timers = app.timers("timers");
    app.stream::<String, String>("in").process(Reminder { timers }).to("out");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(0).send("k", "v");
    driver.advance_ms(25);
    driver.output::<String, String>("out").expect([("k", "10"), ("k", "20")]);
    driver.end_input();
    driver.output::<String, String>("out").expect([("k", "30")]);
}

/// Ten-millisecond counts per key, and behind a repartition the number of keys per ten milliseconds that have had some.
fn two_stages() -> Topology {
    let app = Topology::new("app");
    app.close_at_end();
    app.stream::<String, String>("in")
        .group_by_key()
        .windowed_by(TimeWindows::of_ms(10, 100))
        .emit_final()
        .count("per-key")
        .to_stream()
        .group_by(|_, _| "keys".to_owned())
        .windowed_by(TimeWindows::of_ms(10, 100))
        .count("keys")
        .suppress(Suppressed::until_window_closes(SuppressBuffer::unbounded()))
        .to_stream_by(name)
        .to("out");
    app
}

#[test]
fn at_the_end_windows_close_stage_by_stage() {
    for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
        let mut driver = TestDriver::of(&two_stages())
            .partitions(3)
            .guarantee(guarantee)
            .commit_on_command()
            .start()
            .expect("a valid topology");
        for key in ["a", "b", "c", "d", "e"] {
            driver.input("in").at(1).send(key, "v").at(15).send(key, "v");
        }
        driver.commit().commit();
        assert_eq!(windows(&mut driver, "out"), []);
        driver.end_input();
        assert_eq!(windows(&mut driver, "out"), [counted("keys", 0, 5), counted("keys", 10, 5)]);
        // What has closed stays closed.
        driver.crash().end_input();
        assert_eq!(windows(&mut driver, "out"), []);
    }
}

#[test]
fn a_local_run_closes_windows_behind_answers_from_outside() {
    let app = Topology::new("app");
    app.close_at_end();
    app.stream::<String, String>("in")
        .group_by_key()
        .windowed_by(TimeWindows::of_ms(10, 0))
        .emit_final()
        .count("per-key")
        .to_stream()
        .map_async(4, AsyncOrder::Overall, |_, count: Option<i64>| async move {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(count.unwrap_or(0) * 2)
        })
        .group_by(|key, _| key.key.clone())
        .windowed_by(TimeWindows::of_ms(1000, 0))
        .emit_final()
        .aggregate("doubled", || 0_i64, |_, doubled: i64, sum: i64| sum + doubled)
        .to_stream_by(name)
        .to("out");
    let mut run = LocalRun::new(&app).expect("a valid topology");
    let records = [0, 5, 12, 900].map(|at| Record::new("k".to_owned(), "v".to_owned(), at));
    run.read("in", records).expect("a source");
    let sums = Arc::new(Mutex::new(Vec::new()));
    let seen = sums.clone();
    run.write("out", move |record: Record<String, i64>| {
        seen.lock().expect("one thread").push((record.key, record.value));
        Ok(())
    });
    run.run_until_end().expect("no error");
    assert_eq!(*sums.lock().expect("one thread"), [counted("k", 0, 8)]);
}

/// Counts by value and ten milliseconds, behind a repartition.
fn by_value(app: &Topology) {
    app.stream::<String, String>("in")
        .group_by(|_, value| value.clone())
        .windowed_by(TimeWindows::of_ms(10, 0))
        .emit_final()
        .count("by-value")
        .to_stream_by(name)
        .to("out");
}

/// Two partitions of the input, one after the other.
fn send_both(driver: &mut TestDriver) {
    driver.input("in").partition(0).at(1).send("k", "v").at(11).send("k", "v");
    driver.input("in").partition(0).at(1000).send("k", "v");
    driver.input("in").partition(1).at(2).send("k", "v").at(12).send("k", "v");
}

#[test]
fn without_watermarks_a_slow_partition_is_late_behind_a_repartition() {
    let app = Topology::new("app");
    by_value(&app);
    let mut driver = TestDriver::with_partitions(&app, 2).expect("a valid topology");
    send_both(&mut driver);
    assert_eq!(driver.dropped("window closed"), 2);
    assert_eq!(windows(&mut driver, "out"), [counted("v", 0, 1), counted("v", 10, 1)]);
}

#[test]
fn with_watermarks_time_is_that_of_the_slowest_partition() {
    for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
        let app = Topology::new("app");
        app.watermarks(Duration::from_secs(60));
        by_value(&app);
        let mut driver = TestDriver::of(&app)
            .partitions(2)
            .guarantee(guarantee)
            .start()
            .expect("a valid topology");
        send_both(&mut driver);
        // The slower one is at 12.
        assert_eq!(windows(&mut driver, "out"), [counted("v", 0, 2)]);
        driver.input("in").partition(1).at(19).send("k", "v");
        assert_eq!(windows(&mut driver, "out"), []);
        driver.input("in").partition(1).at(500).send("k", "v");
        assert_eq!(windows(&mut driver, "out"), [counted("v", 10, 3)]);
        // Whoever goes on there waits until it has heard of both again.
        driver.crash();
        driver.input("in").partition(0).at(1100).send("k", "v");
        assert_eq!(windows(&mut driver, "out"), []);
        driver.input("in").partition(1).at(1100).send("k", "v");
        assert_eq!(windows(&mut driver, "out"), [counted("v", 500, 1), counted("v", 1000, 1)]);
        assert_eq!(driver.dropped("window closed"), 0);
    }
}

#[test]
fn who_is_silent_no_longer_holds_up_time() {
    let app = Topology::new("app");
    app.watermarks(Duration::from_millis(50));
    by_value(&app);
    let mut driver = TestDriver::with_partitions(&app, 2).expect("a valid topology");
    driver.input("in").partition(0).at(1).send("k", "v");
    driver.advance_ms(30);
    driver.input("in").partition(0).at(1000).send("k", "v");
    driver.advance_ms(19);
    assert_eq!(windows(&mut driver, "out"), []);
    driver.advance_ms(1);
    assert_eq!(windows(&mut driver, "out"), [counted("v", 0, 1)]);
    // Whoever comes back counts again, but takes nothing back.
    driver.input("in").partition(1).at(5).send("k", "v").at(1005).send("k", "v");
    assert_eq!(driver.dropped("window closed"), 1);
    driver.input("in").partition(0).at(2000).send("k", "v");
    assert_eq!(windows(&mut driver, "out"), []);
    // If all are silent, nobody is waited for.
    driver.advance_ms(50);
    assert_eq!(windows(&mut driver, "out"), [counted("v", 1000, 2)]);
}

#[test]
fn what_windows_send_late_is_not_late_behind_the_next_repartition() {
    let app = Topology::new("app");
    app.watermarks(Duration::from_secs(60));
    app.stream::<String, String>("in")
        .group_by(|_, value| value.clone())
        .windowed_by(TimeWindows::of_ms(10, 100))
        .emit_final()
        .count("by-value")
        .to_stream()
        .group_by(|_, _| "values".to_owned())
        .windowed_by(TimeWindows::of_ms(10, 0))
        .count("values")
        .suppress(Suppressed::until_window_closes(SuppressBuffer::unbounded()))
        .to_stream_by(name)
        .to("out");
    let mut driver = TestDriver::with_partitions(&app, 3).expect("a valid topology");
    for at in [1, 105, 109, 250, 400] {
        for (partition, value) in ["x", "y", "z"].iter().enumerate() {
            let input = driver.input("in").partition(partition as i32);
            input.at(at).send(&"k".to_owned(), &(*value).to_owned());
        }
    }
    assert_eq!(driver.dropped("window closed"), 0);
    let expected = [0, 100, 250].map(|start| counted("values", start, 3));
    assert_eq!(windows(&mut driver, "out"), expected);
}

#[test]
fn a_time_that_nobody_can_have_told_is_no_harm() {
    let app = Topology::new("app");
    app.watermarks(Duration::from_secs(60));
    by_value(&app);
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    let topic = "app-by-value-repartition";
    let mut told = vec![1, 0, 0, 0, 9, 0, 0, 0, 0];
    told.extend(i64::MAX.to_be_bytes());
    for header in [Vec::new(), vec![7; 17], told] {
        driver.input(topic).at(5).header("fleuve.watermark", header).send_bytes(None, None);
    }
    driver.input("in").at(1).send("k", "v").at(20).send("k", "v");
    assert_eq!(driver.failure().map(ToString::to_string), None);
    assert_eq!(windows(&mut driver, "out"), [counted("v", 0, 1)]);
}

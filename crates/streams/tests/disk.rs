//! Stores on disk: what a crash leaves of them, and what is restored after it.

use fleuve_streams::{
    Consumed, JoinWindows, KStream, Materialized, SessionWindows, SlidingWindows, StoreType,
    SuppressBuffer, Suppressed, TestDriver, TimeWindows, Topology,
};

fn send(driver: &mut TestDriver, at: i64, key: &str, value: &str) {
    driver.input("in").at(at).send(&key.to_owned(), &value.to_owned());
}

fn counts() -> Topology {
    let app = Topology::new("app");
    app.stream::<String, String>("in").group_by_key().count("counts").to_stream().to("out");
    app
}

fn on_disk(app: &Topology, directory: &tempfile::TempDir) -> TestDriver {
    TestDriver::of(app).state_dir(directory.path()).start().expect("a valid topology")
}

fn pairs(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
    pairs.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

#[test]
fn after_a_crash_nothing_is_restored_that_the_disk_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut driver = on_disk(&counts(), &directory);
    for (at, key) in ["a", "b", "a", "c", "a"].iter().enumerate() {
        send(&mut driver, at as i64, key, "x");
    }
    driver.crash();
    assert_eq!(driver.restored(), 0);
    assert_eq!(driver.store::<String, i64>("counts"), pairs(&[("a", 3), ("b", 1), ("c", 1)]));
    send(&mut driver, 9, "b", "x");
    assert_eq!(driver.store::<String, i64>("counts"), pairs(&[("a", 3), ("b", 2), ("c", 1)]));
}

#[test]
fn a_crash_between_commit_and_stores_restores_just_that_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut driver = on_disk(&counts(), &directory);
    for at in 0..10 {
        send(&mut driver, at, "a", "x");
    }
    driver.keep_store_commits(false);
    send(&mut driver, 10, "a", "x");
    send(&mut driver, 11, "b", "x");
    driver.crash();
    assert_eq!(driver.restored(), 2);
    assert_eq!(driver.store::<String, i64>("counts"), pairs(&[("a", 11), ("b", 1)]));
    // What was restored went to disk with its position.
    driver.crash();
    assert_eq!(driver.restored(), 0);
    assert_eq!(driver.store::<String, i64>("counts"), pairs(&[("a", 11), ("b", 1)]));
}

#[test]
fn state_that_belongs_to_other_topics_is_not_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut driver = on_disk(&counts(), &directory);
    send(&mut driver, 0, "a", "x");
    drop(driver);
    let mut driver = on_disk(&counts(), &directory);
    assert!(driver.store::<String, i64>("counts").is_empty());
    send(&mut driver, 0, "a", "x");
    assert_eq!(driver.store::<String, i64>("counts"), pairs(&[("a", 1)]));
}

#[test]
#[should_panic(expected = "is used by another instance")]
fn two_instances_do_not_share_a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = on_disk(&counts(), &directory);
    on_disk(&counts(), &directory);
}

#[test]
fn what_was_not_committed_never_reaches_the_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut driver = on_disk(&counts(), &directory);
    send(&mut driver, 0, "a", "x");
    driver.commit_each_record(false);
    for at in 1..100 {
        send(&mut driver, at, "a", "x");
    }
    // The records are processed once more, on the state of the one commit there was: no more and no less.
    driver.crash();
    driver.commit();
    assert_eq!(driver.store::<String, i64>("counts"), pairs(&[("a", 100)]));
}

/// Runs the same input with stores in memory and on disk, with a crash after every so many records, and compares.
fn compare(app: &Topology, inputs: &[&str], output: &str, crash_every: usize) {
    for cached in [true, false] {
        compare_paced(app, inputs, output, crash_every, 1, cached);
    }
}

/// The same, with so many milliseconds in place of each, and with or without caches.
fn compare_paced(
    app: &Topology,
    inputs: &[&str],
    output: &str,
    crash_every: usize,
    pace: i64,
    cached: bool,
) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut memory = TestDriver::new(app).expect("a valid topology").caching(cached);
    let mut disk = on_disk(app, &directory).caching(cached);
    let mut state = 7_u64;
    for number in 0..300_usize {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 33) as usize;
        let at = (number as i64 * 2 + (random % 9) as i64) * pace;
        let (key, value) = (format!("k{}", random % 5), format!("v{number}"));
        let input = inputs[random % inputs.len()];
        for driver in [&mut memory, &mut disk] {
            driver.input(input).at(at).send(&key, &value);
        }
        if number % crash_every == crash_every - 1 {
            memory.crash();
            disk.crash();
            assert_eq!(disk.restored(), 0, "after record {number}");
        }
    }
    let (memory, disk) = (memory.raw_output(output), disk.raw_output(output));
    assert!(!memory.is_empty());
    for (memory, disk) in memory.iter().zip(&disk) {
        assert_eq!(memory, disk);
    }
    assert_eq!(memory.len(), disk.len());
}

#[test]
fn windows_continue_from_disk_as_from_their_changelogs() {
    let app = Topology::new("app");
    app.stream::<String, String>("in")
        .group_by_key()
        .windowed_by(TimeWindows::of_ms(20, 10))
        .aggregate_with(
            Materialized::named("windows").retention_ms(60),
            fleuve_streams::SerdeOf::<String>::usual(),
            String::new,
            |_, value, all| all + &value,
        )
        .to_stream()
        .to("out");
    compare(&app, &["in"], "out", 7);
}

#[test]
fn windows_of_every_kind_continue_from_disk_across_segments() {
    // So slow that the run is many segments long: old ones are dropped under way.
    const PACE: i64 = 20_000;
    let tables: [fn(Topology) -> Topology; 5] = [
        |app| {
            let windows = TimeWindows::of_ms(12 * PACE, 8 * PACE).advance_by_ms(4 * PACE);
            let grouped = app.stream::<String, String>("in").group_by_key();
            grouped.windowed_by(windows).count("windows").to_stream().to("out");
            app
        },
        |app| {
            let windows = TimeWindows::of_ms(12 * PACE, 8 * PACE).advance_by_ms(4 * PACE);
            let grouped = app.stream::<String, String>("in").group_by_key();
            grouped.windowed_by(windows).emit_final().count("windows").to_stream().to("out");
            app
        },
        |app| {
            let windows = SlidingWindows::of_ms(6 * PACE, 8 * PACE);
            let grouped = app.stream::<String, String>("in").group_by_key();
            grouped.windowed_by(windows).count("windows").to_stream().to("out");
            app
        },
        |app| {
            let windows = SlidingWindows::of_ms(6 * PACE, 8 * PACE);
            let grouped = app.stream::<String, String>("in").group_by_key();
            grouped.windowed_by(windows).emit_final().count("windows").to_stream().to("out");
            app
        },
        |app| {
            let windows = SessionWindows::of_ms(4 * PACE, 8 * PACE);
            let grouped = app.stream::<String, String>("in").group_by_key();
            grouped.windowed_by(windows).emit_final().count("sessions").to_stream().to("out");
            app
        },
    ];
    for table in tables {
        let app = table(Topology::new("app"));
        for cached in [true, false] {
            compare_paced(&app, &["in"], "out", 17, PACE, cached);
        }
    }
}

#[test]
fn sessions_and_suppressed_changes_continue_from_disk() {
    let app = Topology::new("app");
    app.stream::<String, String>("in")
        .group_by_key()
        .windowed_by(SessionWindows::of_ms(6, 4))
        .reduce("sessions", |one, two| one + &two)
        .to_stream()
        .to("out");
    compare(&app, &["in"], "out", 5);
    let app = Topology::new("app");
    app.table::<String, String>("in")
        .suppress(Suppressed::until_time_limit_ms(10, SuppressBuffer::unbounded()))
        .to_stream()
        .to("out");
    compare(&app, &["in"], "out", 5);
}

#[test]
fn joins_of_streams_continue_from_disk() {
    let windows = JoinWindows::of_ms(10, 5);
    type Texts = KStream<String, String>;
    let joins: [fn(&Texts, &Texts, JoinWindows); 3] = [
        |left, right, windows| {
            left.join_within(right, windows, |one, two| format!("{one},{two}")).to("out");
        },
        |left, right, windows| {
            left.left_join_within(right, windows, |one, two| format!("{one},{two:?}")).to("out");
        },
        |left, right, windows| {
            left.outer_join_within(right, windows, |one, two| format!("{one:?},{two:?}")).to("out");
        },
    ];
    for join in joins {
        let app = Topology::new("app");
        join(&app.stream("left"), &app.stream("right"), windows);
        compare(&app, &["left", "right"], "out", 11);
    }
}

#[test]
fn events_that_wait_for_a_versioned_table_continue_from_disk() {
    let app = Topology::new("app");
    let kept = Materialized::named("kept").versioned_ms(1_000);
    let table = app.table_with::<String, String>("table", Consumed::default(), kept);
    app.stream::<String, String>("in")
        .left_join_with_grace(&table, 7, |event: &String, row: Option<&String>| {
            format!("{event},{row:?}")
        })
        .to("out");
    compare(&app, &["in", "table"], "out", 13);
}

#[test]
fn a_store_may_stay_in_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = Topology::new("app");
    let kept = Materialized::named("counts").store_type(StoreType::Memory);
    app.stream::<String, String>("in").group_by_key().count_with(kept).to_stream().to("out");
    let mut driver = on_disk(&app, &directory);
    for at in 0..4 {
        send(&mut driver, at, "a", "x");
    }
    driver.crash();
    assert_eq!(driver.restored(), 4);
    assert_eq!(driver.store::<String, i64>("counts"), pairs(&[("a", 4)]));
}

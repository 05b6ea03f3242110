//! The test driver's own promises: commits, caches, crashes and rebalances on command, under both guarantees.

use fleuve_streams::{Guarantee, TestDriver, TestSetup, Topology};

/// Counts words behind a repartition topic: two subtopologies, `0` and `1`.
fn word_count() -> Topology {
    let app = Topology::new("app");
    app.stream::<(), String>("lines")
        .flat_map_values(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .group_by(|_, word| word.clone())
        .count("word-counts")
        .to_stream()
        .to("counts");
    app
}

/// Counts keys in one subtopology.
fn counts() -> Topology {
    let app = Topology::new("app");
    app.stream::<String, String>("in").group_by_key().count("counted").to_stream().to("out");
    app
}

fn started(setup: TestSetup<'_>) -> TestDriver {
    setup.start().expect("a valid topology")
}

#[test]
fn every_partition_has_a_task_and_keys_stay_with_theirs() {
    let mut driver = TestDriver::with_partitions(&word_count(), 3).expect("a valid topology");
    assert_eq!(driver.tasks_of(0), ["0_0", "0_1", "0_2", "1_0", "1_1", "1_2"]);
    driver.input("lines").partition(0).send(&(), "a b").partition(2).send(&(), "b c a");
    driver.output::<String, i64>("counts").expect_in_any_order([
        ("a", 1),
        ("b", 1),
        ("b", 2),
        ("c", 1),
        ("a", 2),
    ]);
    let mut stored = driver.store::<String, i64>("word-counts");
    stored.sort();
    assert_eq!(stored, [("a".into(), 2), ("b".into(), 2), ("c".into(), 1)]);
}

#[test]
fn a_cache_holds_updates_back_until_the_commit_and_no_cache_does_not() {
    let app = counts();
    let mut driver = started(TestDriver::of(&app).commit_on_command());
    driver.input("in").send("k", "x").send("k", "y");
    driver.output::<String, i64>("out").expect_none();
    driver.commit();
    driver.output::<String, i64>("out").expect([("k", 2)]);

    let mut driver = started(TestDriver::of(&app).commit_on_command().cache_bytes(0));
    driver.input("in").send("k", "x").send("k", "y");
    driver.output::<String, i64>("out").expect([("k", 1), ("k", 2)]);
}

#[test]
fn an_instance_whose_caches_are_full_commits() {
    let app = counts();
    let mut driver = started(TestDriver::of(&app).commit_on_command().cache_bytes(1_000));
    let mut sent = 0;
    while driver.raw_output("out").is_empty() {
        sent += 1;
        assert!(sent < 1_000, "a thousand bytes hold fewer than a thousand keys");
        driver.input("in").send(&format!("k{sent}"), "x");
    }
    assert!(sent > 1, "one key fits");
}

#[test]
fn at_least_once_a_crash_repeats_what_was_not_committed() {
    let app = counts();
    let setup = TestDriver::of(&app).commit_on_command().cache_bytes(0);
    let mut driver = started(setup.guarantee(Guarantee::AtLeastOnce));
    driver.input("in").send("k", "x");
    driver.commit();
    driver.input("in").send("k", "y");
    driver.output::<String, i64>("out").expect([("k", 1), ("k", 2)]);
    driver.crash();
    // The changelog knew of the second record already, whose offset was not committed.
    driver.output::<String, i64>("out").expect([("k", 3)]);
}

#[test]
fn exactly_once_a_crash_leaves_nothing_of_what_was_not_committed() {
    let app = counts();
    let setup = TestDriver::of(&app).commit_on_command().cache_bytes(0);
    let mut driver = started(setup.guarantee(Guarantee::ExactlyOnce));
    driver.input("in").send("k", "x");
    driver.commit();
    driver.input("in").send("k", "y");
    driver.output::<String, i64>("out").expect([("k", 1)]);
    driver.crash();
    driver.output::<String, i64>("out").expect_none();
    driver.commit();
    driver.output::<String, i64>("out").expect([("k", 2)]);
}

#[test]
fn a_task_moves_with_its_state_and_the_others_stay() {
    let app = counts();
    let setup = TestDriver::of(&app).partitions(4).commit_on_command();
    let mut driver = started(setup.guarantee(Guarantee::ExactlyOnce));
    for partition in 0..4 {
        driver.input("in").partition(partition).send("k", "x");
    }
    let joined = driver.add_instance();
    assert_eq!(driver.tasks_of(0), ["0_0", "0_1"]);
    assert_eq!(driver.tasks_of(joined), ["0_2", "0_3"]);
    driver.move_task("0_1", joined);
    assert_eq!(driver.tasks_of(joined), ["0_1", "0_2", "0_3"]);
    for partition in 0..4 {
        driver.input("in").partition(partition).send("k", "y");
    }
    driver.commit();
    // Each task counts its own; what moved was committed first, and what stayed only now, once.
    driver.output::<String, i64>("out").expect_in_any_order([
        ("k", 1),
        ("k", 1),
        ("k", 1),
        ("k", 1),
        ("k", 2),
        ("k", 2),
        ("k", 2),
        ("k", 2),
    ]);
}

#[test]
fn what_a_killed_instance_did_since_its_commit_is_done_by_another() {
    let app = counts();
    let setup = TestDriver::of(&app).partitions(2).instances(2).commit_on_command();
    let mut driver = started(setup.guarantee(Guarantee::ExactlyOnce));
    driver.input("in").partition(1).send("k", "x");
    driver.commit();
    driver.input("in").partition(1).send("k", "y");
    driver.kill_instance(1);
    assert_eq!(driver.tasks_of(0), ["0_0", "0_1"]);
    driver.commit();
    driver.output::<String, i64>("out").expect([("k", 1), ("k", 2)]);
}

#[test]
fn a_standby_takes_over_with_the_state_it_has() {
    let app = counts();
    for (guarantee, tail) in [(Guarantee::AtLeastOnce, 2), (Guarantee::ExactlyOnce, 0)] {
        for on_disk in [false, true] {
            let directory = tempfile::tempdir().expect("a directory");
            let setup = TestDriver::of(&app).partitions(2).instances(3).standby_replicas(1);
            let setup = setup.commit_on_command().cache_bytes(0).guarantee(guarantee);
            let setup = if on_disk { setup.state_dir(directory.path()) } else { setup };
            let mut driver = started(setup);
            assert_eq!(
                (driver.tasks_of(0), driver.tasks_of(1)),
                (vec!["0_0".into()], vec!["0_1".into()])
            );
            assert_eq!(driver.standbys_of(0), ["0_1"]);
            for key in ["a", "b", "c", "d", "e"] {
                driver.input("in").partition(1).send(key, "x");
            }
            driver.commit();
            driver.input("in").partition(1).send("a", "y").send("b", "y");
            driver.raw_output("out");
            driver.kill_instance(1);
            assert_eq!(driver.tasks_of(0), ["0_0", "0_1"]);
            // What was written since the last commit, of which exactly once nothing is left.
            assert_eq!(driver.restored(), tail, "{guarantee:?}, on disk: {on_disk}");
            // Another instance keeps what this one runs now, and takes over in turn.
            assert_eq!(driver.standbys_of(2), ["0_0", "0_1"]);
            driver.commit();
            driver.kill_instance(0);
            assert_eq!(driver.restored(), tail);
            driver.input("in").partition(1).send("c", "y");
            driver.commit();
            let repeated = if guarantee == Guarantee::AtLeastOnce { 3 } else { 2 };
            let counted = [("a", repeated), ("b", repeated), ("c", 2)];
            driver.output::<String, i64>("out").expect(counted);
        }
    }
}

#[test]
fn a_task_that_moves_to_its_standby_restores_nothing() {
    let app = counts();
    let mut driver = started(TestDriver::of(&app).partitions(2).instances(2).standby_replicas(1));
    driver.input("in").partition(1).send("k", "x").send("k", "y");
    assert_eq!(driver.standbys_of(0), ["0_1"]);
    driver.move_task("0_1", 0);
    assert_eq!(driver.restored(), 0);
    assert_eq!(
        (driver.standbys_of(0).len(), driver.standbys_of(1)),
        (0, vec!["0_0".into(), "0_1".into()])
    );
    driver.input("in").partition(1).send("k", "z");
    driver.output::<String, i64>("out").expect([("k", 1), ("k", 2), ("k", 3)]);
}

#[test]
fn without_an_instance_records_wait_for_one() {
    let app = counts();
    let mut driver = started(TestDriver::of(&app).commit_on_command());
    driver.input("in").send("k", "x");
    driver.stop_instance(0);
    driver.output::<String, i64>("out").expect([("k", 1)]);
    driver.input("in").send("k", "y");
    driver.add_instance();
    driver.commit();
    driver.output::<String, i64>("out").expect([("k", 2)]);
}

#[test]
#[should_panic(expected = "found:\n  (\"k\", 1, 5) in 0")]
fn an_expectation_that_is_not_met_says_what_came() {
    let mut driver = TestDriver::new(&counts()).expect("a valid topology");
    driver.input("in").at(5).send("k", "x");
    driver.output::<String, i64>("out").expect([("k", 2)]);
}

//! What waits for event time, on disk and in memory: events of joins, and timers.

use fleuve_streams::processor::{Processor, ProcessorContext, ProcessorError, State, TimerState};
use fleuve_streams::{Guarantee, JoinWindows, Record, TestDriver, Topology};
use proptest::prelude::*;

/// How a join treats events without a partner.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Inner,
    Left,
    Outer,
}

const KINDS: [Kind; 3] = [Kind::Inner, Kind::Left, Kind::Outer];

fn join(kind: Kind, windows: JoinWindows) -> Topology {
    let app = Topology::new("app");
    let left = app.stream::<String, String>("left");
    let right = app.stream::<String, String>("right");
    let joined = match kind {
        Kind::Inner => left.join_within(&right, windows, |one, two| format!("{one},{two}")),
        Kind::Left => left.left_join_within(&right, windows, |one, two| format!("{one},{two:?}")),
        Kind::Outer => {
            left.outer_join_within(&right, windows, |one, two| format!("{one:?},{two:?}"))
        }
    };
    joined.to("out");
    app
}

#[derive(Clone, Debug)]
struct Event {
    is_left: bool,
    key: u8,
    /// How much later than the one before the newest it would be in order.
    step: i64,
    late: i64,
}

fn event() -> impl Strategy<Value = Event> {
    (any::<bool>(), 0..4_u8, 0..6_i64, prop_oneof![3 => Just(0_i64), 1 => 0..40_i64])
        .prop_map(|(is_left, key, step, late)| Event { is_left, key, step, late })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn random_joins_on_disk_are_those_in_memory(
        kind in prop::sample::select(&KINDS[..]),
        (before, after, grace) in (0..30_i64, 0..30_i64, 0..20_i64),
        // Some runs are many segments of the disk long.
        pace in prop_oneof![Just(1_i64), Just(7_000)],
        events in prop::collection::vec(event(), 1..150),
        crash_every in 5..80_usize,
    ) {
        let windows = JoinWindows::of_ms(before.max(after) * pace, grace * pace)
            .before_ms(before * pace)
            .after_ms(after * pace);
        let app = join(kind, windows);
        let directory = tempfile::tempdir().expect("a directory");
        let mut memory = TestDriver::new(&app).expect("a valid topology");
        let mut disk =
            TestDriver::of(&app).state_dir(directory.path()).start().expect("a valid topology");
        let mut newest = 0;
        for (number, event) in events.iter().enumerate() {
            newest += event.step;
            let at = (newest - event.late).max(0) * pace;
            let topic = if event.is_left { "left" } else { "right" };
            let (key, value) = (format!("k{}", event.key), format!("v{number}"));
            for driver in [&mut memory, &mut disk] {
                driver.input(topic).at(at).send(&key, &value);
            }
            if number % crash_every == crash_every - 1 {
                memory.crash();
                disk.crash();
                prop_assert_eq!(disk.restored(), 0);
            }
        }
        prop_assert_eq!(memory.raw_output("out"), disk.raw_output("out"));
    }
}

/// Every result, in the order of its text: when events without a partner are sent is another matter.
fn results(driver: &mut TestDriver) -> Vec<(String, String, i64)> {
    let mut results = driver.output::<String, String>("out").stamped();
    results.sort();
    results
}

#[test]
fn a_crash_in_the_middle_of_a_window_loses_and_doubles_nothing() {
    for kind in KINDS {
        let app = join(kind, JoinWindows::of_ms(100, 10));
        let directory = tempfile::tempdir().expect("a directory");
        let mut undisturbed = TestDriver::new(&app).expect("a valid topology");
        let mut disk = TestDriver::of(&app)
            .guarantee(Guarantee::ExactlyOnce)
            .commit_on_command()
            .state_dir(directory.path())
            .start()
            .expect("a valid topology");
        let mut crashes_behind = 0;
        let mut send = |at: i64, topic: &str, key: &str, value: &str| {
            for driver in [&mut undisturbed, &mut disk] {
                driver.input(topic).at(at).send(key, value);
            }
            if at % 37 == 36 {
                // The cluster has some commits that the disk has not.
                disk.keep_store_commits(at % 2 == 0);
                disk.commit();
            }
            if at % 53 == 52 {
                disk.crash();
                crashes_behind += u64::from(disk.restored() > 0);
            }
        };
        for at in 0..1_000_i64 {
            let topic = if at * 7 % 11 < 5 { "left" } else { "right" };
            send(at, topic, &format!("k{}", at * 11 % 90), &format!("v{at}"));
        }
        for at in [2_000, 3_000, 4_000] {
            send(at, "left", "end", "end");
            send(at, "right", "end", "end");
        }
        disk.commit();
        let expected = results(&mut undisturbed);
        assert!(expected.len() > 300, "{} results, {kind:?}", expected.len());
        assert_eq!(results(&mut disk), expected, "{kind:?}");
        assert!(crashes_behind > 3, "{crashes_behind} crashes had something to restore");
    }
}

/// Sets a timer for each record and cancels that of the value, if there is one; tells when timers fire.
#[derive(Clone)]
struct Alarms {
    timers: TimerState<String>,
}

impl Processor for Alarms {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn states(&self) -> Vec<&str> {
        vec![self.timers.name()]
    }

    fn timers(&self) -> Option<&TimerState<String>> {
        Some(&self.timers)
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        context: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessorError> {
        let mut timers = context.state(&self.timers);
        timers.cancel(&record.key, record.value)?;
        timers.set(&record.key, record.timestamp + 50)?;
        Ok(timers.set(&record.key, record.timestamp / 100 * 100 + 300)?)
    }

    fn on_timer(
        &mut self,
        key: String,
        at_ms: i64,
        context: &mut ProcessorContext<'_, String, i64>,
    ) -> Result<(), ProcessorError> {
        Ok(context.forward(Record::new(key, at_ms, at_ms))?)
    }
}

#[test]
fn timers_on_disk_fire_as_those_in_memory() {
    let app = Topology::new("app");
    let timers = app.timers("timers");
    app.stream::<String, i64>("in").process(Alarms { timers }).to("out");
    let directory = tempfile::tempdir().expect("a directory");
    let mut memory = TestDriver::new(&app).expect("a valid topology");
    let mut disk =
        TestDriver::of(&app).state_dir(directory.path()).start().expect("a valid topology");
    for number in 0..400_i64 {
        let at = number * 3 + number * 7 % 11;
        let (key, cancels) = (format!("k{}", number % 7), (number * 13 % 40) * 30 + 50);
        for driver in [&mut memory, &mut disk] {
            driver.input("in").at(at).send(&key, &cancels);
        }
        if number % 31 == 30 {
            memory.crash();
            disk.crash();
            assert_eq!(disk.restored(), 0, "after record {number}");
        }
    }
    let changelog = "app-timers-changelog";
    assert_eq!(memory.raw_output(changelog), disk.raw_output(changelog));
    let fired = memory.raw_output("out");
    assert!(fired.len() > 400, "{} timers", fired.len());
    assert_eq!(fired, disk.raw_output("out"));
}

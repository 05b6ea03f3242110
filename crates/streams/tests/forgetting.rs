//! Stores that remember more, or less, than the newest value: versions, and rows with a time to live.

use fleuve_streams::processor::{
    Processor, ProcessorContext, ProcessorError, State, VersionedState,
};
use fleuve_streams::{Consumed, KTable, Materialized, Record, TestDriver, Topology};

fn send(driver: &mut TestDriver, at: i64, key: &str, value: Option<&str>) {
    driver.input("in").at(at).send(&key.to_owned(), &value.map(str::to_owned));
}

fn table(app: &Topology, materialized: Materialized<String, String>) -> KTable<String, String> {
    app.table_with("in", Consumed::default(), materialized)
}

fn rows(driver: &mut TestDriver) -> Vec<(String, Option<String>)> {
    driver.output::<String, Option<String>>("out").pairs()
}

fn row(key: &str, value: Option<&str>) -> (String, Option<String>) {
    (key.to_owned(), value.map(str::to_owned))
}

fn short_lived() -> Topology {
    let app = Topology::new("app");
    let kept = table(&app, Materialized::named("kept").time_to_live_ms(10));
    kept.to_stream().to("out");
    kept.group_by(|_, value| (value.clone(), 1_i64)).count("counts").to_stream().to("counts-out");
    app
}

#[test]
fn rows_die_when_stream_time_passes_their_time_to_live() {
    let mut driver = TestDriver::new(&short_lived()).expect("a valid topology");
    send(&mut driver, 0, "a", Some("x"));
    send(&mut driver, 5, "b", Some("x"));
    send(&mut driver, 9, "a", Some("y"));
    assert_eq!(rows(&mut driver).len(), 3);
    // The last update counts: `b` dies at 15, `a` at 19.
    send(&mut driver, 14, "c", Some("z"));
    assert_eq!(rows(&mut driver), [row("c", Some("z"))]);
    send(&mut driver, 15, "c", Some("x"));
    assert_eq!(rows(&mut driver), [row("c", Some("x")), row("b", None)]);
    send(&mut driver, 19, "d", Some("x"));
    assert_eq!(rows(&mut driver), [row("d", Some("x")), row("a", None)]);
    // What is dead when it arrives never was.
    send(&mut driver, 9, "e", Some("x"));
    assert_eq!(rows(&mut driver), []);
    assert_eq!(driver.dropped("older than the store keeps"), 1);
    let kept = driver.store::<String, String>("kept");
    assert_eq!(kept, [("c".to_owned(), "x".to_owned()), ("d".to_owned(), "x".to_owned())]);
    // Tables made of this one hear of it.
    let counts = driver.store::<String, i64>("counts");
    assert_eq!(
        counts.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>(),
        [("x".to_owned(), 2)]
    );
}

#[test]
fn what_died_stays_dead_after_a_crash_in_memory_and_on_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = TestDriver::new(&short_lived()).expect("a valid topology");
    let disk = TestDriver::of(&short_lived())
        .state_dir(directory.path())
        .start()
        .expect("a valid topology");
    for mut driver in [memory, disk] {
        for at in 0..60 {
            send(&mut driver, at, &format!("k{}", at % 7), Some("x"));
            if at % 13 == 12 {
                let before = driver.store::<String, String>("kept");
                driver.crash();
                assert_eq!(driver.store::<String, String>("kept"), before, "at {at}");
            }
        }
        send(&mut driver, 100, "end", Some("x"));
        assert_eq!(driver.store::<String, String>("kept"), [("end".to_owned(), "x".to_owned())]);
    }
}

/// Asks for what a key was, at the time that the value names.
#[derive(Clone)]
struct AsOf {
    prices: VersionedState<String, String>,
}

impl Processor for AsOf {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        vec![self.prices.name()]
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        context: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        let mut prices = context.state(&self.prices);
        if let Some(at) = record.value.strip_prefix('?') {
            let at = at.parse()?;
            let found = prices.get_as_of(&record.key, at)?;
            let text = found.map_or("nothing".to_owned(), |version| {
                format!("{} from {} to {:?}", version.value, version.valid_from, version.valid_to)
            });
            context.forward(record.with_value(text))?;
        } else if record.value == "delete" {
            prices.delete(&record.key, record.timestamp)?;
        } else {
            prices.put(&record.key, record.value.clone(), record.timestamp)?;
        }
        Ok(())
    }
}

#[test]
fn a_versioned_store_knows_what_a_key_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = Topology::new("app");
    let prices = app.versioned_store::<String, String>("prices", 100);
    app.stream::<String, String>("in").process(AsOf { prices }).to("out");
    let memory = TestDriver::new(&app).expect("a valid topology");
    let disk = TestDriver::of(&app).state_dir(directory.path()).start().expect("a valid topology");
    for mut driver in [memory, disk] {
        let write = |driver: &mut TestDriver, at, value: &str| {
            driver.input("in").at(at).send(&"k".to_owned(), &value.to_owned());
        };
        write(&mut driver, 10, "ten");
        write(&mut driver, 30, "thirty");
        write(&mut driver, 20, "twenty");
        write(&mut driver, 40, "delete");
        write(&mut driver, 50, "fifty");
        driver.crash();
        for at in [5, 10, 25, 39, 40, 49, 50, 1000] {
            write(&mut driver, 50, &format!("?{at}"));
        }
        // Stream time 125 begins the history at 25.
        driver.input("in").at(125).send(&"other".to_owned(), &"x".to_owned());
        driver.crash();
        for at in [24, 25, 60] {
            write(&mut driver, 125, &format!("?{at}"));
        }
        write(&mut driver, 24, "too old");
        write(&mut driver, 125, "?24");
        let answers: Vec<String> = driver
            .output::<String, String>("out")
            .pairs()
            .into_iter()
            .map(|(_, answer)| answer)
            .collect();
        assert_eq!(
            answers,
            [
                "nothing",
                "ten from 10 to Some(20)",
                "twenty from 20 to Some(30)",
                "thirty from 30 to Some(40)",
                "nothing",
                "nothing",
                "fifty from 50 to None",
                "fifty from 50 to None",
                "nothing",
                "twenty from 20 to Some(30)",
                "fifty from 50 to None",
                "nothing",
            ]
        );
    }
}

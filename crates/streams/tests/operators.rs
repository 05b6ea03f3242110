//! What Fleuve has beyond Kafka Streams: operators learned from other engines.

use fleuve_streams::{Partitioning, Produced, Repartitioned, TestDriver, Topology};

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

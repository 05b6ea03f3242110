//! The same topologies as in `tests/streams/Oracle.java` must do the same, byte for byte: outputs, changelogs,
//! repartition topics and `describe()`. The vectors are what Kafka Streams 4.3.1 did in its own test driver.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use fleuve_streams::{
    JoinWindows, KStream, KTable, Materialized, TestDriver, TimeWindows, Topology,
};
use serde_json::Value;

fn program(name: &str) -> Topology {
    let app = Topology::new("app");
    let stream = |topic: &str| -> KStream<String, String> { app.stream(topic) };
    let table = |topic: &str| -> KTable<String, String> { app.table(topic) };
    let or_null = |value: Option<&String>| value.map_or("null".to_owned(), Clone::clone);
    match name {
        "word_count" => stream("a")
            .flat_map_values(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .group_by(|_, word| word.clone())
            .count("counts")
            .to_stream()
            .to("out"),
        "stateless" => {
            let branches = stream("a")
                .filter(|_, value| value.len() > 1)
                .split()
                .branch(|_, value| value.starts_with('x'))
                .branch(|_, value| value.starts_with('y'))
                .default_branch();
            let [x, y, other] = branches.try_into().ok().expect("three branches");
            x.map_values(|value| value + "!").merge(&y.map(|key, value| (value, key))).to("xy");
            other
                .select_key(|_, value| value.clone())
                .repartition(None)
                .peek(|_, _| {})
                .filter_not(|_, value| value.ends_with('z'))
                .to("rest");
        }
        "reduce_and_table" => {
            let a = stream("a");
            a.group_by_key()
                .reduce("joined", |x, y| x + &y)
                .filter(|_, value| value.len() % 3 != 0)
                .map_values(|value| value.len().to_string())
                .to_stream()
                .to("out");
            a.select_key(|_, value| value.clone())
                .to_table_with(Materialized::named("latest"))
                .to_stream()
                .to("latest-out");
        }
        "table_aggregate" => {
            let t = table("t");
            t.group_by(|_, value| (value[..1].to_owned(), value.clone()))
                .aggregate(
                    Materialized::named("agg"),
                    String::new,
                    |_, value, agg| format!("{agg}+{value}"),
                    |_, value, agg| format!("{agg}-{value}"),
                )
                .to_stream()
                .to("out");
            t.group_by(|key, value| (value.clone(), key.clone()))
                .count("n")
                .to_stream()
                .to("n-out");
        }
        "table_join_inner" => {
            table("l").join(&table("r"), |x, y| format!("{x},{y}")).to_stream().to("out")
        }
        "table_join_left" => table("l")
            .left_join(&table("r"), move |x, y| format!("{x},{}", or_null(y)))
            .to_stream()
            .to("out"),
        "table_join_outer" => table("l")
            .outer_join(&table("r"), move |x, y| format!("{},{}", or_null(x), or_null(y)))
            .to_stream()
            .to("out"),
        "table_join_chain" => {
            let (l, r, z) = (table("l"), table("r"), table("z"));
            let filtered = l.filter(|_, value| value.len() != 2);
            let mapped = r.map_values(|value| format!("{value}'"));
            let kept =
                filtered.left_join_with(&mapped, Materialized::named("kept"), move |x, y| {
                    format!("{x},{}", or_null(y))
                });
            kept.outer_join(&z, move |x, y| format!("{};{}", or_null(x), or_null(y)))
                .group_by(|_, value| (value.len().to_string(), value.clone()))
                .reduce(
                    Materialized::unnamed(),
                    |x, y| format!("{x}+{y}"),
                    |x, y| format!("{x}-{y}"),
                )
                .to_stream()
                .to("out");
        }
        "stream_table" => {
            let s = stream("s");
            let t = table("t");
            s.join(&t, |x, y| format!("{x},{y}")).to("inner");
            s.left_join(&t, move |x, y| format!("{x},{}", or_null(y))).to("left");
            let rekeyed = s.select_key(|_, value| value.clone());
            let mapped = t.map_values(|value| format!("{value}'"));
            rekeyed.join(&mapped, |x, y| format!("{x},{y}")).to("rekeyed");
        }
        "windows" => {
            let grouped = stream("a").group_by_key();
            grouped
                .windowed_by(TimeWindows::of_ms(10, 5))
                .count("tumbling")
                .to_stream()
                .to("tumbling-out");
            grouped
                .windowed_by(TimeWindows::of_ms(10, 0).advance_by_ms(4))
                .reduce("hopping", |x, y| x + &y)
                .to_stream()
                .to("hopping-out");
        }
        "windows_final" => stream("a")
            .group_by_key()
            .windowed_by(TimeWindows::of_ms(10, 5))
            .emit_final()
            .count("closed")
            .to_stream()
            .to("out"),
        "stream_join_inner" | "stream_join_left" | "stream_join_outer" => {
            let (l, r) = (stream("l"), stream("r"));
            let windows = JoinWindows::of_ms(6, 4).after_ms(3);
            let joined = match name {
                "stream_join_inner" => l.join_within(&r, windows, |x, y| format!("{x},{y}")),
                "stream_join_left" => {
                    l.left_join_within(&r, windows, move |x, y| format!("{x},{}", or_null(y)))
                }
                _ => l.outer_join_within(&r, windows, move |x, y| {
                    format!("{},{}", or_null(x), or_null(y))
                }),
            };
            joined.to("out");
        }
        other => panic!("no topology {other}"),
    }
    app
}

/// A vector, or the one of the same name in `STREAMS_VECTORS`, for a live comparison with other seeds.
fn vector(name: &str) -> Value {
    let folder = std::env::var_os("STREAMS_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"),
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check(name: &str) {
    let vector = vector(name);
    let described = program(name).describe().expect("a valid topology");
    let expected = vector["describe"].as_str().expect("text");
    assert!(
        described.trim_end() == expected.trim_end(),
        "{name}: describe() is\n{described}\nbut should be\n{expected}"
    );
    for (number, run) in vector["runs"].as_array().expect("runs").iter().enumerate() {
        let mut driver = TestDriver::new(&program(name)).expect("a valid topology");
        for input in run["inputs"].as_array().expect("inputs") {
            let bytes =
                |value: &Value| value.as_str().map(|text| Bytes::copy_from_slice(text.as_bytes()));
            driver
                .input(input[0].as_str().expect("a topic"))
                .at(input[3].as_i64().expect("a time"))
                .send_bytes(bytes(&input[1]), bytes(&input[2]));
            assert!(driver.failure().is_none(), "{name}: {:?}", driver.failure());
        }
        let outputs = run["outputs"].as_object().expect("outputs");
        for (topic, expected) in outputs {
            let expected: Vec<String> = expected
                .as_array()
                .expect("records")
                .iter()
                .map(|record| show(record[0].as_str(), record[1].as_str(), record[2].as_i64()))
                .collect();
            let actual: Vec<String> = driver
                .raw_output(topic)
                .into_iter()
                .map(|record| {
                    let (key, value) = (hex(record.key), hex(record.value));
                    show(key.as_deref(), value.as_deref(), Some(record.timestamp))
                })
                .collect();
            assert_eq!(actual, expected, "{name}, run {number}, topic {topic}");
        }
    }
}

fn show(key: Option<&str>, value: Option<&str>, timestamp: Option<i64>) -> String {
    format!(
        "{} -> {} @ {}",
        key.unwrap_or("null"),
        value.unwrap_or("null"),
        timestamp.unwrap_or(-1)
    )
}

fn hex(bytes: Option<Bytes>) -> Option<String> {
    bytes.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

macro_rules! topologies {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*
        #[test]
        fn every_vector_has_a_topology() {
            let named = [$(stringify!($name)),*];
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
            let vectors: BTreeMap<String, ()> = std::fs::read_dir(folder)
                .expect("the folder of vectors")
                .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
                .map(|name| (name, ()))
                .collect();
            assert_eq!(vectors.into_keys().collect::<Vec<_>>(), {
                let mut named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
                named.sort();
                named
            });
        }
    };
}

topologies!(
    word_count,
    stateless,
    reduce_and_table,
    table_aggregate,
    table_join_inner,
    table_join_left,
    table_join_outer,
    table_join_chain,
    stream_table,
    windows,
    windows_final,
    stream_join_inner,
    stream_join_left,
    stream_join_outer,
);

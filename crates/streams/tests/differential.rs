//! The same topologies as in `tests/streams/Oracle.java` must do the same, byte for byte: outputs, changelogs,
//! repartition topics and `describe()`. The vectors are what Kafka Streams 4.3.1 did in its own test driver.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use fleuve_streams::processor::{
    FixedKeyProcessor, KvState, Processor, ProcessorContext, ProcessorError, State,
    TransformContext, ValueTransformer,
};
use fleuve_streams::{
    Clock, Consumed, GlobalKTable, JoinWindows, Joined, KStream, KTable, Materialized, Produced,
    Record, Schedule, SerdeOf, SessionWindows, SlidingWindows, StreamJoined, SuppressBuffer,
    Suppressed, TestDriver, TimeWindows, Topology, TopologyOptimization, UnlimitedWindows,
};
use serde_json::Value;

/// Keeps the end of a text, so that values do not grow without end.
fn shorten(text: String) -> String {
    match text.len() {
        0..=12 => text,
        length => text[length - 12..].to_owned(),
    }
}

/// A program of the steps that the oracle chose at random. They name earlier results by number.
fn random(steps: &Value) -> Topology {
    let app = Topology::new("app");
    let or_null = |value: Option<&String>| value.map_or("null".to_owned(), Clone::clone);
    let mut streams: Vec<KStream<String, String>> = vec![app.stream("s"), app.stream("r")];
    let mut tables: Vec<KTable<String, String>> = vec![app.table("t"), app.table("u")];
    let rows = |stream: KStream<String, Option<String>>| {
        stream.filter(|_, value| value.is_some()).map_values(Option::unwrap_or_default)
    };
    for (place, step) in steps.as_array().expect("steps").iter().enumerate() {
        let number = |place: usize| step[place].as_u64().expect("a number") as usize;
        let (x, y) = (streams[number(1)].clone(), streams[number(2)].clone());
        let (t, u) = (tables[number(3)].clone(), tables[number(4)].clone());
        let kind = number(5);
        let windows = JoinWindows::of_ms(5, 3);
        match number(0) {
            0 => streams.push(x.filter(|_, value| value.len() % 3 != 1)),
            1 => streams.push(x.map_values(move |value| shorten(value + "m"))),
            2 => streams.push(x.select_key(|_, value| value[..1].to_owned())),
            3 => streams.push(x.flat_map_values(move |value| {
                let second = shorten(format!("f{value}"));
                [value, second]
            })),
            4 => streams.push(x.merge(&y)),
            5 => streams.push(x.repartition(None)),
            6 => tables.push(
                x.group_by_key().reduce_with(Materialized::unnamed(), move |p, q| shorten(p + &q)),
            ),
            7 => tables.push(x.to_table()),
            8 => tables.push(t.filter(|_, value| value.len() % 3 != 2)),
            9 => tables.push(t.map_values(move |value| shorten(format!("{value}n")))),
            10 => tables.push(match kind {
                0 => t.join(&u, move |p, q| shorten(format!("{p},{q}"))),
                1 => t.left_join(&u, move |p, q| shorten(format!("{p},{}", or_null(q)))),
                _ => {
                    t.outer_join(&u, move |p, q| shorten(format!("{},{}", or_null(p), or_null(q))))
                }
            }),
            11 => {
                let groups = t.group_by(|_, value| (value[..1].to_owned(), value.clone()));
                tables.push(groups.reduce(
                    Materialized::unnamed(),
                    move |p, q| shorten(format!("{p}+{q}")),
                    move |p, q| shorten(format!("{p}-{q}")),
                ));
            }
            12 => streams.push(rows(t.to_stream())),
            13 => streams.push(match kind {
                0 => x.join(&t, move |p, q| shorten(format!("{p};{q}"))),
                _ => x.left_join(&t, move |p, q| shorten(format!("{p};{}", or_null(q)))),
            }),
            14 => streams.push(match kind {
                0 => x.join_within(&y, windows, move |p, q| shorten(format!("{p}&{q}"))),
                1 => x.left_join_within(&y, windows, move |p, q| {
                    shorten(format!("{p}&{}", or_null(q)))
                }),
                _ => x.outer_join_within(&y, windows, move |p, q| {
                    shorten(format!("{}&{}", or_null(p), or_null(q)))
                }),
            }),
            15 => tables.push(match kind {
                0 => t.join_foreign(
                    &u,
                    |_, value| foreign_key(value),
                    move |p, q| shorten(format!("{p}={q}")),
                ),
                _ => t.left_join_foreign(
                    &u,
                    |_, value| foreign_key(value),
                    move |p, q| shorten(format!("{p}={}", or_null(q))),
                ),
            }),
            16 => tables.push(
                t.suppress(Suppressed::until_time_limit_ms(7, SuppressBuffer::max_records(3))),
            ),
            17 => streams.push(rows(
                x.group_by_key()
                    .windowed_by(TimeWindows::of_ms(10, 4))
                    .reduce_with(Materialized::unnamed(), move |p, q| shorten(p + &q))
                    .to_stream_by(|window, _| format!("{}{}", window.key, window.window.start % 3)),
            )),
            18 => streams.push(rows(
                x.group_by_key()
                    .windowed_by(SessionWindows::of_ms(4, 5))
                    .reduce_with(Materialized::unnamed(), move |p, q| shorten(p + &q))
                    .to_stream_by(|session, _| session.key.clone()),
            )),
            19 => {
                let branches = x.split().branch(|_, value| value.len() > 2).default_branch();
                streams.push(branches[0].clone());
            }
            20 => tables.push(t.transform_values(Marked { seen: None })),
            _ => tables.push(
                x.group_by_key()
                    .repartitioned_as(&format!("p{place}"))
                    .cogroup(move |_, value, agg: String| shorten(agg + &value))
                    .cogroup(
                        &y.group_by_key().repartitioned_as(&format!("q{place}")),
                        move |_, value, agg| shorten(value + &agg),
                    )
                    .aggregate_with(Materialized::unnamed(), || "i".to_owned()),
            ),
        }
    }
    for (number, stream) in streams.iter().enumerate() {
        stream.to(&format!("stream-{number}"));
    }
    for (number, table) in tables.iter().enumerate() {
        table.to_stream().to(&format!("table-{number}"));
    }
    app
}

fn program(name: &str) -> Topology {
    let app = Topology::new("app");
    let stream = |topic: &str| -> KStream<String, String> { app.stream(topic) };
    let table = |topic: &str| -> KTable<String, String> { app.table(topic) };
    let versioned = |topic: &str, store: &str, history_ms: i64| -> KTable<String, String> {
        let kept = Materialized::named(store).versioned_ms(history_ms);
        app.table_with(topic, Consumed::default(), kept)
    };
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
            .count_with(Materialized::named("closed").retention_ms(10_000))
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
        "sessions" => {
            let grouped = stream("a").group_by_key();
            grouped
                .windowed_by(SessionWindows::of_ms(4, 6))
                .count("counts")
                .to_stream()
                .to("counts-out");
            grouped
                .windowed_by(SessionWindows::of_ms(5, 0))
                .reduce("joined", |x, y| x + &y)
                .to_stream()
                .to("joined-out");
            grouped
                .windowed_by(SessionWindows::of_ms(3, 9))
                .aggregate(
                    "folded",
                    || "|".to_owned(),
                    |_, value, agg| agg + &value,
                    |_, x, y| format!("{x}&{y}"),
                )
                .group_by(|session, value| {
                    (format!("{}{}", session.key, value.len() % 2), value.clone())
                })
                .count("lengths")
                .to_stream()
                .to("lengths-out");
        }
        "sessions_final" => stream("a")
            .group_by_key()
            .windowed_by(SessionWindows::of_ms(4, 6))
            .emit_final()
            .count_with(Materialized::named("closed").retention_ms(10_000))
            .to_stream()
            .to("out"),
        "sliding" => {
            let grouped = stream("a").group_by_key();
            grouped
                .windowed_by(SlidingWindows::of_ms(5, 4))
                .reduce("short", |x, y| x + &y)
                .to_stream()
                .to("short-out");
            grouped
                .windowed_by(SlidingWindows::of_ms(25, 50))
                .count("long")
                .to_stream()
                .to("long-out");
        }
        "sliding_final" => stream("a")
            .group_by_key()
            .windowed_by(SlidingWindows::of_ms(7, 3))
            .emit_final()
            .aggregate_with(
                Materialized::named("closed").retention_ms(10_000),
                SerdeOf::usual(),
                String::new,
                |_, value, agg| agg + &value,
            )
            .to_stream()
            .to("out"),
        "suppress_time" => {
            let t = table("t");
            t.suppress(Suppressed::until_time_limit_ms(6, SuppressBuffer::unbounded()))
                .to_stream()
                .to("out");
            let few = Suppressed::until_time_limit_ms(20, SuppressBuffer::max_records(2));
            let u = t.map_values(|value| format!("{value}!")).suppress(few.named("few"));
            u.filter(|_, value| value.len() > 2).to_stream().to("few-out");
            u.join(&table("r"), |x, y| format!("{x},{y}")).to_stream().to("joined-out");
            t.group_by(|key, value| (value.clone(), key.clone()))
                .count("n")
                .suppress(Suppressed::until_time_limit_ms(50, SuppressBuffer::max_bytes(200)))
                .to_stream()
                .to("n-out");
        }
        "suppress_windows" => {
            let grouped = stream("a").group_by_key();
            grouped
                .windowed_by(TimeWindows::of_ms(10, 5))
                .count("tumbling")
                .filter(|_, count| *count != 3)
                .suppress(Suppressed::until_window_closes(SuppressBuffer::unbounded()))
                .to_stream()
                .to("tumbling-out");
            grouped
                .windowed_by(SessionWindows::of_ms(4, 6))
                .reduce("sessions", |x, y| x + &y)
                .suppress(Suppressed::until_window_closes(SuppressBuffer::unbounded()))
                .to_stream()
                .to("sessions-out");
        }
        "cogroup" => {
            let x = stream("a").group_by_key();
            let y = stream("b").group_by(|_, value| value[..1].to_owned());
            let z = stream("c").filter(|_, value| value.len() > 1).group_by_key();
            x.cogroup(|_, value, agg: String| agg + &value)
                .cogroup(&y, |_, value, agg| agg + "-" + &value)
                .cogroup(&z, |_, value, agg| format!("{}{value}", agg.len()))
                .aggregate("all", || "0".to_owned())
                .to_stream()
                .to("out");
            x.cogroup(|_, value, agg: String| agg + "!" + &value)
                .cogroup(&z, |_, value, agg| agg + "?" + &value)
                .aggregate_with(Materialized::unnamed(), String::new)
                .filter(|_, value| value.len() % 2 == 0)
                .to_stream()
                .to("even-out");
        }
        "cogroup_windows" => {
            let x = stream("a").group_by_key();
            let y = stream("b").group_by(|_, value| value[..1].to_owned());
            let all = x
                .cogroup(|_, value, agg: String| agg + &value)
                .cogroup(&y, |_, value, agg| agg + "-" + &value);
            all.windowed_by(TimeWindows::of_ms(12, 8).advance_by_ms(5))
                .aggregate("time", || "t".to_owned())
                .to_stream()
                .to("time-out");
            all.windowed_by(SlidingWindows::of_ms(6, 30))
                .aggregate_with(Materialized::named("sliding").retention_ms(10_000), || {
                    "s".to_owned()
                })
                .to_stream()
                .to("sliding-out");
            all.windowed_by(SessionWindows::of_ms(5, 6))
                .aggregate("sessions", || "w".to_owned(), |_, one, two| format!("{one}&{two}"))
                .to_stream()
                .to("sessions-out");
        }
        "foreign_inner" => table("l")
            .join_foreign(&table("r"), |_, value| foreign_key(value), |x, y| format!("{x},{y}"))
            .to_stream()
            .to("out"),
        "foreign_left" => table("l")
            .left_join_foreign(
                &table("r"),
                |_, value| foreign_key(value),
                move |x, y| format!("{x},{}", or_null(y)),
            )
            .to_stream()
            .to("out"),
        "foreign_chain" => {
            let l = table("l").map_values(|value| format!("{value}'"));
            let r = table("r").filter(|_, value| value.len() != 3);
            let joined = l.named("named").join_foreign_with(
                &r,
                |_, value| foreign_key(value),
                |x, y| format!("{x},{y}"),
                Materialized::named("kept"),
            );
            joined
                .filter(|_, value| value.len() > 4)
                .group_by(|_, value| (value[..1].to_owned(), value.clone()))
                .count("n")
                .to_stream()
                .to("n-out");
            joined
                .left_join_foreign(
                    &r,
                    |_, value| Some(value[value.len() - 1..].to_owned()),
                    move |x, y| format!("{x};{}", or_null(y)),
                )
                .to_stream()
                .to("out");
        }
        "global_table" => {
            let s = stream("s");
            let g = app.global_table::<String, String>("g");
            let h = app.global_table_with::<String, String>(
                "h",
                Consumed::default(),
                Materialized::named("kept"),
            );
            s.join_global(&g, |key, _| key.clone(), |x, y| format!("{x},{y}")).to("inner");
            let joiner = move |x: &String, y: Option<&String>| format!("{x},{}", or_null(y));
            s.left_join_global(&g, |_, value| foreign_key(value), joiner).to("left");
            s.select_key(|_, value| value.clone())
                .left_join_global(&h, |_, value| foreign_key(value), joiner)
                .group_by_key()
                .count("n")
                .to_stream()
                .to("n-out");
        }
        "self_join" => {
            let s = stream("s");
            s.join_within(&s, JoinWindows::of_ms(5, 3), |x, y| format!("{x},{y}")).to("out");
            let m = s.map_values(|value| value + "'");
            m.outer_join_within(
                &m.filter(|_, value| value.len() > 2),
                JoinWindows::of_ms(2, 6),
                move |x, y| format!("{};{}", or_null(x), or_null(y)),
            )
            .to("outer-out");
        }
        "table_kept" => {
            let t = app.table_with::<String, String>(
                "t",
                Consumed::default(),
                Materialized::named("source"),
            );
            let f = t.filter_with(Materialized::named("filtered"), |_, value| value.len() != 2);
            let m = f.map_values_with(Materialized::named("mapped"), |key, value| {
                format!("{key}{value}")
            });
            m.to_stream().to("out");
            f.filter_not(|_, value| value.starts_with('x')).to_stream().to("not-out");
            t.map_values_with(Materialized::unnamed(), |_, value| value.len().to_string())
                .group_by(|key, value| (value.clone(), key.clone()))
                .reduce(
                    Materialized::named("reduced"),
                    |x, y| format!("{x}+{y}"),
                    |x, y| format!("{x}-{y}"),
                )
                .to_stream()
                .to("reduced-out");
            m.outer_join(&f, move |x, y| format!("{},{}", or_null(x), or_null(y)))
                .to_stream()
                .to("joined-out");
        }
        "transformed" => {
            let (t, r) = (table("t"), table("r"));
            let (seen, again) = (app.kv_store("seen"), app.kv_store("again"));
            let m = t.transform_values(Marked { seen: None });
            m.to_stream().to("out");
            m.join(&r, |x, y| format!("{x},{y}")).to_stream().to("inner-out");
            r.left_join(&m, move |x, y| format!("{x};{}", or_null(y)))
                .group_by(|_, value| (value[..1].to_owned(), value.clone()))
                .reduce(
                    Materialized::named("reduced"),
                    |x, y| shorten(format!("{x}+{y}")),
                    |x, y| shorten(format!("{x}-{y}")),
                )
                .to_stream()
                .to("left-out");
            stream("s").left_join(&m, move |x, y| format!("{x},{}", or_null(y))).to("stream-out");
            m.join_foreign(&r, |_, value| foreign_key(value), |x, y| format!("{x}={y}"))
                .to_stream()
                .to("foreign-out");
            r.left_join_foreign(
                &m,
                |_, value| foreign_key(value),
                move |x, y| format!("{x}={}", or_null(y)),
            )
            .to_stream()
            .to("foreign-back");
            let k = t
                .named("marked")
                .transform_values_with(Materialized::named("kept"), Marked { seen: Some(seen) });
            k.to_stream().to("kept-out");
            k.filter(|_, value| value.len() % 2 == 0)
                .group_by(|_, value| (value[..1].to_owned(), value.clone()))
                .aggregate(
                    Materialized::named("agg"),
                    String::new,
                    |_, value, agg| format!("{agg}+{value}"),
                    |_, value, agg| format!("{agg}-{value}"),
                )
                .to_stream()
                .to("agg-out");
            t.left_join(&r, move |x, y| format!("{x}{}", or_null(y)))
                .transform_values_with(Materialized::unnamed(), Marked { seen: Some(again) })
                .group_by(|key, value| (value.clone(), key.clone()))
                .count("n")
                .to_stream()
                .to("n-out");
        }
        "transformed_versions" => {
            let (t, u) = (versioned("t", "long", 30), versioned("u", "short", 9));
            let marked = Marked { seen: None };
            let m = t.transform_values(marked.clone());
            m.to_stream().to("out");
            m.join(&u, |x, y| format!("{x},{y}")).to_stream().to("inner-out");
            stream("s").join(&m, |x, y| format!("{x},{y}")).to("stream-out");
            t.transform_values_with(Materialized::unnamed(), marked.clone())
                .left_join(&u, move |x, y| format!("{x};{}", or_null(y)))
                .to_stream()
                .to("plain-out");
            t.map_values_with(Materialized::unnamed(), |_, value| format!("{value}'"))
                .left_join(&u, move |x, y| format!("{x}&{}", or_null(y)))
                .to_stream()
                .to("mapped-out");
            t.filter_with(Materialized::unnamed(), |_, value| value.len() != 3)
                .outer_join(&u, move |x, y| format!("{}&{}", or_null(x), or_null(y)))
                .to_stream()
                .to("filtered-out");
            t.transform_values_with(Materialized::named("mapped").versioned_ms(4), marked)
                .group_by(|_, value| (value[..1].to_owned(), value.clone()))
                .aggregate(
                    Materialized::named("agg"),
                    String::new,
                    |_, value, agg| format!("{agg}+{value}"),
                    |_, value, agg| format!("{agg}-{value}"),
                )
                .to_stream()
                .to("agg-out");
        }
        "versioned_tables" => {
            let t = versioned("t", "long", 30);
            let u = versioned("u", "short", 9);
            t.to_stream().to("out");
            let f = t.filter(|_, value| value.len() % 3 != 2);
            f.to_stream().to("filtered-out");
            t.join(&u, |x, y| format!("{x},{y}")).to_stream().to("inner-out");
            f.left_join(&u, move |x, y| format!("{x};{}", or_null(y))).to_stream().to("left-out");
            t.map_values(|value| format!("{value}'"))
                .outer_join(&table("r"), move |x, y| format!("{}&{}", or_null(x), or_null(y)))
                .to_stream()
                .to("outer-out");
        }
        "versioned_groups" => {
            let t = versioned("t", "long", 30);
            let u = versioned("u", "short", 9);
            t.map_values_with(Materialized::named("mapped").versioned_ms(4), |_, value| {
                format!("{value}.")
            })
            .group_by(|_, value| (value[..1].to_owned(), value.clone()))
            .aggregate(
                Materialized::named("agg").versioned_ms(6),
                String::new,
                |_, value, agg| format!("{agg}+{value}"),
                |_, value, agg| format!("{agg}-{value}"),
            )
            .to_stream()
            .to("agg-out");
            u.filter_with(Materialized::named("plain"), |_, value| value.len() != 1)
                .group_by(|key, value| (value.clone(), key.clone()))
                .count("n")
                .to_stream()
                .to("n-out");
        }
        "versioned_streams" => {
            let t = versioned("t", "rows", 15);
            let s = stream("s");
            s.join(&t, |x, y| format!("{x},{y}")).to("inner-out");
            s.left_join(&t.map_values(|value| format!("{value}'")), move |x, y| {
                format!("{x},{}", or_null(y))
            })
            .to("left-out");
            s.join(&t.filter(|_, value| value.len() > 1), |x, y| format!("{x},{y}"))
                .to("filtered-out");
            s.group_by_key()
                .reduce_with(Materialized::named("joined").versioned_ms(5), |x, y| x + &y)
                .to_stream()
                .to("joined-out");
            s.select_key(|_, value| value.clone())
                .to_table_with(Materialized::named("values").versioned_ms(8))
                .join(&t, |x, y| format!("{x},{y}"))
                .to_stream()
                .to("values-out");
        }
        "versioned_foreign" => {
            let l = versioned("l", "left", 20);
            let r = versioned("r", "right", 20);
            l.join_foreign(&r, |_, value| foreign_key(value), |x, y| format!("{x},{y}"))
                .to_stream()
                .to("inner-out");
            l.filter(|_, value| value.len() != 3)
                .left_join_foreign(
                    &r,
                    |_, value| foreign_key(value),
                    move |x, y| format!("{x};{}", or_null(y)),
                )
                .to_stream()
                .to("left-out");
        }
        "versioned_grace" => {
            let t = versioned("t", "rows", 40);
            let s = stream("s");
            s.named("lookup").join_with_grace(&t, 10, |x, y| format!("{x},{y}")).to("inner-out");
            s.map_values(|value| format!("{value}'"))
                .named("left")
                .left_join_with_grace(&t, 4, move |x, y| format!("{x},{}", or_null(y)))
                .to("left-out");
        }
        "optimized_tables" => {
            let t = app.table_with("t", Consumed::default(), Materialized::named("t-store"));
            let u = table("u");
            t.group_by(|_, value: &String| (value[..1].to_owned(), value.clone()))
                .reduce(
                    Materialized::named("groups"),
                    |x, y| shorten(format!("{x}+{y}")),
                    |x, y| shorten(format!("{x}-{y}")),
                )
                .to_stream()
                .to("groups-out");
            t.join(&u, |x, y| format!("{x},{y}")).to_stream().to("joined-out");
            stream("s").left_join(&u, move |x, y| format!("{x};{}", or_null(y))).to("looked-up");
            table("unused").to_stream().to("unused-out");
        }
        "optimized_repartitions" => {
            let a = stream("a");
            let add = |x: String, y: String| shorten(x + &y);
            let keyed = a.select_key(|_, value| value[..1].to_owned());
            keyed.group_by_key().count("n").to_stream().to("n-out");
            keyed
                .filter(|_, value| value.len() > 1)
                .group_by_key()
                .reduce("sum", add)
                .to_stream()
                .to("sum-out");
            keyed
                .peek(|_, _| {})
                .to_table_with(Materialized::named("latest"))
                .to_stream()
                .to("latest-out");
            keyed
                .map_values(|value| value + "'")
                .group_by_key()
                .reduce("mapped", add)
                .to_stream()
                .to("mapped-out");
            keyed.join(&table("t"), |x, y| format!("{x};{y}")).to("looked-up");
            let merged = a
                .map(|key, value| (value, key))
                .merge(&stream("c").select_key(|_, value| value.clone()));
            merged.group_by_key().count("merged").to_stream().to("merged-out");
            merged
                .filter(|key, _| key.len() > 1)
                .group_by_key()
                .repartitioned_as("chosen")
                .reduce("chosen-store", add)
                .to_stream()
                .to("chosen-out");
            a.flat_map(|key, value| [(value, key)])
                .group_by_key()
                .cogroup(|_, value, agg: String| shorten(agg + &value))
                .aggregate("alone", String::new)
                .to_stream()
                .to("alone-out");
            a.select_key(|_, value| value.clone())
                .repartition(None)
                .group_by_key()
                .count("asked")
                .to_stream()
                .to("asked-out");
            let unnamed = a.select_key(|_, value| value.clone());
            unnamed
                .filter(|_, value| value.len() > 1)
                .group_by_key()
                .reduce_with(Materialized::unnamed(), add)
                .to_stream()
                .to("unnamed-out");
            unnamed
                .left_join(&table("u"), move |x, y| format!("{x};{}", or_null(y)))
                .to("unnamed-looked-up");
        }
        "optimized_self_joins" => {
            let s = stream("s");
            let windows = JoinWindows::of_ms(5, 3);
            s.join_within(&s, windows, |x, y| format!("{x},{y}")).to("out");
            s.left_join_within(&s, windows.after_ms(1), move |x, y| format!("{x};{}", or_null(y)))
                .to("left-out");
            let keyed = s.select_key(|_, value| value[..1].to_owned());
            keyed
                .outer_join_within(&keyed, windows.before_ms(2), move |x, y| {
                    format!("{}&{}", or_null(x), or_null(y))
                })
                .to("keyed-out");
            s.join_within(&s.filter(|_, value| value.len() > 1), windows, |x, y| {
                format!("{x}.{y}")
            })
            .to("two-out");
        }
        "optimized_all" => {
            let (s, t) = (stream("s"), table("t"));
            let keyed = s.select_key(|_, value| value[..1].to_owned());
            keyed
                .named("pairs")
                .join_within(&keyed, JoinWindows::of_ms(5, 3), |x, y| format!("{x},{y}"))
                .to("pairs-out");
            keyed
                .group_by_key()
                .windowed_by(TimeWindows::of_ms(10, 4))
                .count("per-window")
                .to_stream_by(|windowed, _| windowed.key.clone())
                .to("windows-out");
            keyed.left_join(&t, move |x, y| format!("{x};{}", or_null(y))).to("looked-up");
            t.group_by(|key, value| (value.clone(), key.clone()))
                .count("by-value")
                .to_stream()
                .to("by-value-out");
        }
        "branches" => {
            let a: KStream<String, String> = app.stream_with(&["a", "b"], Consumed::default());
            let parts = a
                .flat_map(|key, value| [(value.clone(), key.clone()), (key, value)])
                .named("part-")
                .split()
                .branch_named("one", |_, value: &String| value.len() == 1)
                .branch_named("two", |_, value| value.len() == 2)
                .no_default_branch();
            parts[0].flat_map_values(|value| [value.clone(), value.repeat(2)]).to_chosen(
                |record| if record.key.len() > 1 { "long" } else { "short" }.to_owned(),
                Produced::default(),
            );
            parts[1]
                .named("moved")
                .repartition(None)
                .merge(&a.map_values(|value| value + "."))
                .to_table()
                .to_stream_by(|key, value| value.cloned().unwrap_or_else(|| key.clone()))
                .to("table-out");
        }
        "named" => {
            let s: KStream<String, String> =
                app.stream_with(&["s"], Consumed::default().named("stream"));
            let t: KTable<String, String> = app.table_with(
                "t",
                Consumed::default().named("table"),
                Materialized::named("table-store"),
            );
            let f = s.named("filter").filter(|_, value| value.len() > 1);
            let f = f.named("map").map_values(|value| value + ".");
            f.named("key")
                .select_key(|_, value| value.clone())
                .group_by_key()
                .repartitioned_as("group")
                .named("count")
                .count("counts")
                .named("to-stream")
                .to_stream()
                .named("sink")
                .to("counts-out");
            f.named("lookup").join(&t, |x, y| format!("{x},{y}")).to("lookup-out");
            s.named("pairs")
                .left_join_within(&f, JoinWindows::of_ms(4, 3), move |x, y| {
                    format!("{x};{}", or_null(y))
                })
                .to("pairs-out");
            let u = t.named("table-map").map_values(|value| format!("{value}'"));
            t.named("table-join")
                .left_join(&u, move |x, y| format!("{x}&{}", or_null(y)))
                .named("regroup")
                .group_by(|key, value| (value.clone(), key.clone()))
                .repartitioned_as("regroup")
                .named("reduce")
                .reduce(
                    Materialized::named("reduced"),
                    |x, y| format!("{x}+{y}"),
                    |x, y| format!("{x}-{y}"),
                )
                .to_stream()
                .to("reduced-out");
            s.group_by_key()
                .cogroup(|_, value, agg: String| agg + &value)
                .cogroup(&f.group_by_key(), |_, value, agg| agg + "-" + &value)
                .named("both")
                .aggregate("both-store", String::new)
                .to_stream()
                .to("both-out");
        }
        "processors" => {
            let a = stream("a");
            let tally = Tally { tally: app.kv_store("tally"), seen: 0, by_wall: None };
            a.process(tally).filter(|_, _| true).to("out");
            let changes = Changes { last: app.kv_store("last") };
            a.process_values(changes).group_by_key().count("n").to_stream().to("n-out");
        }
        "processors_behind" => {
            let l = stream("l");
            let changes = Changes { last: app.kv_store("joined") };
            l.join_within(&stream("r"), JoinWindows::of_ms(6, 4), |x, y| format!("{x},{y}"))
                .process_values(changes)
                .to("joined-out");
            let kept = Materialized::named("reduced").without_logging();
            let changes = Changes { last: app.kv_store_with(kept) };
            l.group_by_key()
                .reduce("rows", |x, y| shorten(x + &y))
                .to_stream()
                .map_values(Option::unwrap_or_default)
                .process_values(changes)
                .to("reduced-out");
        }
        "join_options" => {
            let (l, r) = (stream("l"), stream("r"));
            let windows = JoinWindows::of_ms(6, 4);
            let kept = StreamJoined::default().store_name("kept");
            l.left_join_within_with(&r, windows, kept, move |_, x, y| {
                format!("{x},{}", or_null(y))
            })
            .to("left-out");
            let both = StreamJoined::default().store_name("both").without_logging();
            l.named("pairs")
                .outer_join_within_with(&r, windows, both, move |key, x, y| {
                    format!("{key}{},{}", or_null(x), or_null(y))
                })
                .to("outer-out");
            let supplied = StreamJoined::default().this_store("mine").other_store("theirs");
            l.left_join_within_with(&r, windows, supplied, move |_, x, y| {
                format!("{x};{}", or_null(y))
            })
            .to("supplied-out");
            l.flat_map_values_with_key(|key, value| [format!("{key}{value}"), value])
                .join_with(&table("t"), Joined::default(), |key, x, y| format!("{key}{x}{y}"))
                .to("table-out");
        }
        "last_used" => {
            let kept = Materialized::named("rows").lru(2);
            let t: KTable<String, String> = app.table_with("t", Consumed::default(), kept);
            let kept = Materialized::named("filtered").lru(1);
            let f = t.filter_with(kept, |_, value| value.len() != 2);
            f.to_stream().to("out");
            f.group_by(|_, value| (value[..1].to_owned(), value.clone()))
                .aggregate(
                    Materialized::named("agg"),
                    String::new,
                    |_, value, agg| shorten(format!("{agg}+{value}")),
                    |_, value, agg| shorten(format!("{agg}-{value}")),
                )
                .to_stream()
                .to("agg-out");
            let s = stream("s");
            s.left_join(&t, move |x, y| format!("{x},{}", or_null(y))).to("joined-out");
            s.group_by_key()
                .count_with(Materialized::named("counts").lru(2))
                .to_stream()
                .to("counts-out");
            let last = app.kv_store_with(Materialized::named("last").lru(2));
            s.process_values(Changes { last }).to("changes-out");
        }
        "unlimited" => {
            let x = stream("a").group_by_key();
            let y = stream("b").group_by(|_, value| value[..1].to_owned());
            x.windowed_by(UnlimitedWindows::of()).count("all").to_stream().to("all-out");
            let since = x
                .windowed_by(UnlimitedWindows::of().start_on_ms(40))
                .reduce("since", |x, y| shorten(x + &y));
            since.to_stream().to("since-out");
            since
                .group_by(|key, value| {
                    let endless = key.window.end == i64::MAX;
                    (format!("{}{endless}{}", key.key, value.len() % 2), value.clone())
                })
                .count("lengths")
                .to_stream()
                .to("lengths-out");
            x.cogroup(|_, value, agg: String| shorten(agg + &value))
                .cogroup(&y, |_, value, agg| shorten(format!("{agg}-{value}")))
                .windowed_by(UnlimitedWindows::of().start_on_ms(30))
                .aggregate("both", || "u".to_owned())
                .to_stream()
                .to("both-out");
        }
        "patterns" => {
            let matched = || -> KStream<String, String> { app.stream_pattern("m-[a-z]+") };
            let (matched, same) = (matched(), matched());
            let named = stream("a");
            let t = app.table_with::<String, String>(
                "t",
                Consumed::default(),
                Materialized::named("rows"),
            );
            matched
                .merge(&named)
                .group_by_key()
                .reduce("joined", |x, y| shorten(x + &y))
                .to_stream()
                .to("joined-out");
            same.select_key(|_, value| value[..1].to_owned())
                .group_by_key()
                .count("n")
                .to_stream()
                .to("n-out");
            app.stream_pattern_with::<String, String>(
                "(p|q)[0-9]*",
                Consumed::default().named("numbered"),
            )
            .left_join(&t, move |x, y| format!("{x},{}", or_null(y)))
            .to("m-back");
        }
        "stores_of_topics" => {
            let kept = app.kv_store("kept");
            let keep = Keep { store: kept.clone(), mark: "!" };
            let global = app.add_global_store(&kept, "g", Consumed::default(), keep);
            let rows = app.kv_store("rows");
            stream("s").process_values(LookUp { global, rows: rows.clone() }).to("out");
            let keep = Keep { store: rows.clone(), mark: "" };
            app.add_read_only_state_store(&rows, "r", Consumed::default().named("rows"), keep);
        }
        other => panic!("no topology {other}"),
    }
    app
}

/// Keeps a topic's records in a store.
#[derive(Clone)]
struct Keep {
    store: KvState<String, String>,
    mark: &'static str,
}

impl Processor for Keep {
    type KeyIn = String;
    type ValueIn = Option<String>;
    type KeyOut = ();
    type ValueOut = ();

    fn states(&self) -> Vec<&str> {
        vec![self.store.name()]
    }

    fn process(
        &mut self,
        record: Record<String, Option<String>>,
        cx: &mut ProcessorContext<'_, (), ()>,
    ) -> Result<(), ProcessorError> {
        let mut store = cx.state(&self.store);
        match record.value {
            Some(value) => store.put(&record.key, value + self.mark)?,
            None => drop(store.delete(&record.key)?),
        }
        Ok(())
    }
}

/// Looks each key up in both kinds of stores that are kept from topics.
#[derive(Clone)]
struct LookUp {
    global: GlobalKTable<String, String>,
    rows: KvState<String, String>,
}

impl FixedKeyProcessor for LookUp {
    type Key = String;
    type ValueIn = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        vec![self.rows.name()]
    }

    fn process(
        &mut self,
        record: &Record<String, String>,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<Vec<String>, ProcessorError> {
        let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
        let global = or_null(cx.look_up(&self.global, &record.key)?);
        let row = or_null(cx.state(&self.rows).get(&record.key)?);
        Ok(vec![format!("{},{global};{row}", record.value)])
    }
}

/// Collects values, tells them by event time, and something by the clock on the wall.
#[derive(Clone)]
struct Tally {
    tally: KvState<String, String>,
    seen: i32,
    by_wall: Option<Schedule>,
}

impl Processor for Tally {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        vec![self.tally.name()]
    }

    fn init(
        &mut self,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        cx.schedule(10, Clock::StreamTime);
        self.by_wall = Some(cx.schedule(7, Clock::WallClock));
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        self.seen += 1;
        let mut tally = cx.state(&self.tally);
        let before = tally.get(&record.key)?.unwrap_or_default();
        let now = before + &record.value;
        if now.len() <= 6 {
            return Ok(tally.put(&record.key, now)?);
        }
        tally.delete(&record.key)?;
        let mut record = record.with_value(now);
        let offset = cx.origin().ok_or("no origin")?.offset;
        record.headers.add("offset", offset.to_string());
        record.timestamp += 1;
        Ok(cx.forward(record)?)
    }

    fn punctuate(
        &mut self,
        schedule: Schedule,
        time: i64,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<(), ProcessorError> {
        let mut tally = cx.state(&self.tally);
        if Some(schedule) == self.by_wall {
            tally.put(&"wall".to_owned(), self.seen.to_string())?;
            return Ok(cx.forward(Record::new("wall".to_owned(), self.seen.to_string(), time))?);
        }
        for (key, value) in tally.all()? {
            cx.forward(Record::new(key, value, time))?;
        }
        Ok(())
    }
}

/// Marks values with the times of their rows, and counts in a store, if it has one. Makes something of nothing for one
/// key, and nothing of something.
#[derive(Clone)]
struct Marked {
    seen: Option<KvState<String, String>>,
}

impl ValueTransformer for Marked {
    type Key = String;
    type ValueIn = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        self.seen.iter().map(State::name).collect()
    }

    fn transform(
        &mut self,
        row: &Record<String, Option<String>>,
        cx: &mut TransformContext<'_>,
    ) -> Result<Option<String>, ProcessorError> {
        let value = match row.value.as_deref() {
            None if row.key != "b" => return Ok(None),
            Some(value) if value.starts_with('q') => return Ok(None),
            value => value.unwrap_or("none"),
        };
        let made = format!("{}@{}", shorten(value.to_owned()), row.timestamp);
        let Some(seen) = &self.seen else {
            return Ok(Some(shorten(made)));
        };
        let mut seen = cx.state(seen);
        let before: i32 = seen.get(&row.key)?.map_or(Ok(0), |before| before.parse())?;
        let now = (before + 1).to_string();
        seen.put(&row.key, now.clone())?;
        Ok(Some(format!("{made}#{now}")))
    }
}

/// Values that differ from the one before, with that.
#[derive(Clone)]
struct Changes {
    last: KvState<String, String>,
}

impl FixedKeyProcessor for Changes {
    type Key = String;
    type ValueIn = String;
    type ValueOut = String;

    fn states(&self) -> Vec<&str> {
        vec![self.last.name()]
    }

    fn process(
        &mut self,
        record: &Record<String, String>,
        cx: &mut ProcessorContext<'_, String, String>,
    ) -> Result<Vec<String>, ProcessorError> {
        let mut last = cx.state(&self.last);
        let before = last.get(&record.key)?;
        last.put(&record.key, record.value.clone())?;
        if before.as_ref() == Some(&record.value) {
            return Ok(Vec::new());
        }
        Ok(vec![format!("{}>{}", before.as_deref().unwrap_or("null"), record.value)])
    }
}

/// A key of the tables' keys, or none.
fn foreign_key(value: &str) -> Option<String> {
    (!value.starts_with('w')).then(|| ["a", "b", "c"][value.len() % 3].to_owned())
}

fn folder() -> PathBuf {
    std::env::var_os("STREAMS_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"),
        PathBuf::from,
    )
}

/// A vector, or the one of the same name in `STREAMS_VECTORS`, for a live comparison with other seeds.
fn vector(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check(name: &str) {
    compare(name, &vector(name), || program(name));
}

fn compare(name: &str, vector: &Value, program: impl Fn() -> Topology) {
    let rules = vector["optimization"].as_str().unwrap_or("none");
    let rules = TopologyOptimization::parse(rules).expect("rules");
    let program = || program().optimize(rules.iter().copied());
    let described = program().describe().expect("a valid topology");
    // A closure has no class: these lines say something else here.
    let expected = vector["describe"].as_str().expect("text");
    let expected: Vec<String> = expected
        .lines()
        .map(|line| match line.split_once("(extractor class: ") {
            Some((sink, _)) => format!("{sink}(topic chosen per record)"),
            None => line.to_owned(),
        })
        .collect();
    let expected = expected.join("\n");
    // Kafka Streams' hash sets put the names of these in another order, too.
    let in_any_order = name.starts_with("random_") || name == "join_options";
    let (described, expected) = match in_any_order {
        true => (neighbours_sorted(&described), neighbours_sorted(&expected)),
        false => (described, expected),
    };
    assert!(
        described.trim_end() == expected.trim_end(),
        "{name}: describe() is\n{described}\nbut should be\n{expected}"
    );
    let runs = vector["runs"].as_array().expect("runs").iter().enumerate();
    for ((number, run), on_disk) in runs.flat_map(|run| [(run, false), (run, true)]) {
        let cached = run["cached"].as_bool().expect("whether there are caches");
        let (program, directory) = (program(), tempfile::tempdir().expect("a directory"));
        let mut setup = TestDriver::of(&program);
        if on_disk {
            setup = setup.state_dir(directory.path());
        }
        let mut driver = setup.start().expect("a valid topology").caching(cached);
        for input in run["inputs"].as_array().expect("inputs") {
            let bytes =
                |value: &Value| value.as_str().map(|text| Bytes::copy_from_slice(text.as_bytes()));
            if text(&input[0]) == "+" {
                driver.advance_ms(input[3].as_i64().expect("milliseconds"));
                continue;
            }
            let mut topic = driver
                .input(input[0].as_str().expect("a topic"))
                .at(input[3].as_i64().expect("a time"));
            for header in input[4].as_array().into_iter().flatten() {
                topic = topic.header(header[0].as_str().expect("a key"), unhex(&header[1]));
            }
            topic.send_bytes(bytes(&input[1]), bytes(&input[2]));
            assert!(driver.failure().is_none(), "{name}: {:?}", driver.failure());
        }
        let outputs = run["outputs"].as_object().expect("outputs");
        for (topic, expected) in outputs {
            let expected: Vec<String> = expected
                .as_array()
                .expect("records")
                .iter()
                .map(|record| {
                    let headers = record[3]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|header| format!("{}={}", text(&header[0]), text(&header[1])))
                        .collect();
                    show(record[0].as_str(), record[1].as_str(), record[2].as_i64(), headers)
                })
                .collect();
            let actual: Vec<String> = driver
                .raw_output(topic)
                .into_iter()
                .map(|record| {
                    let (key, value) = (hex(record.key), hex(record.value));
                    let headers = record
                        .headers
                        .iter()
                        .map(|header| {
                            let value = hex(header.value.clone());
                            format!("{}={}", header.key, value.as_deref().unwrap_or("null"))
                        })
                        .collect();
                    show(key.as_deref(), value.as_deref(), Some(record.timestamp), headers)
                })
                .collect();
            let caches = if cached { "with caches" } else { "without caches" };
            let place = if on_disk { "on disk" } else { "in memory" };
            let differ =
                actual.iter().zip(&expected).position(|(actual, expected)| actual != expected);
            assert!(
                actual == expected,
                "{name}, run {number} {caches} {place}, topic {topic}: {} records instead of {}, the first to differ is {differ:?}: \n{:?}\n{:?}",
                actual.len(),
                expected.len(),
                differ.map(|place| &actual[place.saturating_sub(2)..=place]),
                differ.map(|place| &expected[place.saturating_sub(2)..=place]),
            );
        }
    }
}

/// A description with the names of neighbours and stores sorted. In large graphs, Kafka Streams' order of them depends on how its
/// hash sets and trees happen to be built.
fn neighbours_sorted(described: &str) -> String {
    let lines = described.trim_end().lines().map(|line| {
        for mark in ["--> ", "<-- ", "(stores: ["] {
            if let Some((indent, names)) = line.split_once(mark) {
                let mut names: Vec<&str> = names.trim_end_matches("])").split(", ").collect();
                names.sort_unstable();
                return format!("{indent}{mark}{}", names.join(", "));
            }
        }
        line.to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn show(
    key: Option<&str>,
    value: Option<&str>,
    timestamp: Option<i64>,
    headers: Vec<String>,
) -> String {
    format!(
        "{} -> {} @ {} {}",
        key.unwrap_or("null"),
        value.unwrap_or("null"),
        timestamp.unwrap_or(-1),
        headers.join(" ")
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("null")
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits = text(value).as_bytes();
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| std::str::from_utf8(pair).expect("digits"))
        .map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits"))
        .collect()
}

fn hex(bytes: Option<Bytes>) -> Option<String> {
    bytes.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Programs of random steps: the recorded ones, or those of a live comparison.
#[test]
fn random_programs() {
    let text = |path: &std::path::Path| {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder of vectors") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if name.starts_with("random_") && path.extension().is_some_and(|end| end == "json") {
            let vector: Value = serde_json::from_str(&text(&path)).expect("JSON");
            compare(&name, &vector, || random(&vector["steps"]));
            count += 1;
        }
    }
    assert!(count > 0, "there is no random program in {}", folder().display());
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
                .filter(|name| !name.starts_with("random_"))
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
    sessions,
    sessions_final,
    sliding,
    sliding_final,
    suppress_time,
    suppress_windows,
    cogroup,
    cogroup_windows,
    foreign_inner,
    foreign_left,
    foreign_chain,
    global_table,
    self_join,
    table_kept,
    transformed,
    transformed_versions,
    versioned_tables,
    versioned_groups,
    versioned_streams,
    versioned_foreign,
    versioned_grace,
    optimized_tables,
    optimized_repartitions,
    optimized_self_joins,
    optimized_all,
    branches,
    named,
    patterns,
    processors,
    processors_behind,
    join_options,
    last_used,
    unlimited,
    stores_of_topics,
);

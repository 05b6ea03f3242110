//! Queries of stores, in the driver: what is found, how old it may be, and what is said where there is no answer.

use fleuve_streams::{
    Consumed, Json, Materialized, Position, QueryError, SessionWindows, TestDriver, TimeWindows,
    Topology, Window, in_store,
};
use serde_json::json;

fn text(text: &str) -> String {
    text.to_owned()
}

fn counts() -> Topology {
    let app = Topology::new("app");
    app.stream::<String, String>("in").group_by_key().count("counts").to_stream().to("out");
    app
}

#[test]
fn a_key_is_found_in_its_partition_with_the_time_of_its_last_update() {
    let mut driver = TestDriver::with_partitions(&counts(), 4).expect("a valid topology");
    driver.input("in").at(3).send("a", "x").at(7).send("a", "y").send("b", "z");
    let found = driver.query(in_store("counts").key::<String, i64>(text("a"))).expect("an answer");
    let stamped = found.value.expect("a count");
    assert_eq!((stamped.value, stamped.timestamp), (2, 7));
    let positions: Vec<i64> = found.position.iter().map(|(_, _, offset)| offset).collect();
    assert_eq!(positions.len(), 1, "one task answered: {:?}", found.position);
    let missing = driver.query(in_store("counts").key::<String, i64>(text("c")));
    assert!(missing.expect("an answer").value.is_none());
}

#[test]
fn a_range_has_both_bounds_as_told_and_both_directions() {
    let mut driver = TestDriver::new(&counts()).expect("a valid topology");
    for key in ["d", "a", "c", "b"] {
        driver.input("in").at(0).send(key, "x");
    }
    let mut keys = |query: fleuve_streams::Query<Vec<(String, _)>>| -> String {
        let found: Vec<(String, fleuve_streams::state::Stamped<i64>)> =
            driver.query(query).expect("an answer").value;
        found.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys(in_store("counts").all()), "abcd");
    assert_eq!(keys(in_store("counts").range(text("b")..text("d"))), "bc");
    assert_eq!(keys(in_store("counts").range(text("b")..=text("d"))), "bcd");
    assert_eq!(keys(in_store("counts").range(..text("c")).reversed()), "ba");
    assert_eq!(keys(in_store("counts").range(text("x")..)), "");
}

#[test]
fn what_a_cache_holds_back_is_found() {
    let app = counts();
    let mut driver = TestDriver::of(&app).commit_on_command().start().expect("a valid topology");
    driver.input("in").at(0).send("a", "x").send("b", "x");
    driver.output::<String, i64>("out").expect_none();
    let found = driver.query(in_store("counts").range::<String, i64>(text("b")..)).expect("rows");
    assert_eq!(found.value.len(), 1);
}

#[test]
fn windows_are_found_by_key_and_time() {
    let app = Topology::new("app");
    let windows = TimeWindows::of_ms(10, 0);
    app.stream::<String, String>("in").group_by_key().windowed_by(windows).count("counts");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(1).send("a", "x").at(2).send("b", "x").at(12).send("a", "x");
    let of_a = in_store("counts").windows_of::<String, i64>(text("a"), ..);
    let found: Vec<(Window, i64)> = driver
        .query(of_a)
        .expect("an answer")
        .value
        .into_iter()
        .map(|(window, stamped)| (window, stamped.value))
        .collect();
    let window = |start| Window { start, end: start + 10 };
    assert_eq!(found, [(window(0), 1), (window(10), 1)]);
    let later = in_store("counts").windows_of::<String, i64>(text("a"), 5..);
    assert_eq!(driver.query(later).expect("an answer").value.len(), 1);
    let mut keys = |query| -> Vec<String> {
        let found: Vec<(fleuve_streams::Windowed<String>, fleuve_streams::state::Stamped<i64>)> =
            driver.query(query).expect("an answer").value;
        found.into_iter().map(|(windowed, _)| windowed.key).collect()
    };
    assert_eq!(keys(in_store("counts").windows::<String, i64>(.., ..)), ["a", "b", "a"]);
    assert_eq!(keys(in_store("counts").windows::<String, i64>(text("b").., ..10)), ["b"]);
}

#[test]
fn sessions_are_found_by_what_they_have_in_common_with_a_span() {
    let app = Topology::new("app");
    let sessions = SessionWindows::of_ms(5, 100);
    app.stream::<String, String>("in").group_by_key().windowed_by(sessions).count("counts");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(1).send("a", "x").at(4).send("a", "x").at(20).send("a", "x");
    let mut found = |span: std::ops::RangeInclusive<i64>| {
        let of_a = in_store("counts").sessions_of::<String, i64>(text("a"), span);
        driver.query(of_a).expect("an answer").value
    };
    assert_eq!(
        found(0..=100),
        [(Window { start: 1, end: 4 }, 2), (Window { start: 20, end: 20 }, 1)]
    );
    assert_eq!(found(4..=19).len(), 1);
    assert_eq!(found(5..=19).len(), 0);
}

#[test]
fn a_global_table_answers_for_all_partitions() {
    let app = Topology::new("app");
    let table = app.global_table_with::<String, String>(
        "users",
        Default::default(),
        Materialized::named("users-store"),
    );
    app.stream::<String, String>("in")
        .join_global(&table, |key, _| key.clone(), |one, two| format!("{one}{two}"))
        .to("out");
    let mut driver = TestDriver::with_partitions(&app, 3).expect("a valid topology");
    driver.input("users").at(0).partition(0).send("a", "Ann").partition(2).send("b", "Bob");
    let found = driver.query(in_store("users-store").all::<String, String>()).expect("an answer");
    assert_eq!(found.value.len(), 2);
}

#[test]
fn a_bound_wants_what_was_written_and_is_met_after_it_was_read_even_by_a_restored_store() {
    let app = counts();
    let mut driver = TestDriver::of(&app).partitions(2).start().expect("a valid topology");
    driver.input("in").at(0).partition(1).send("a", "x").send("a", "y");
    let one =
        |bound| in_store("counts").key::<String, i64>(text("a")).in_partition(1).at_least(bound);
    let read = Position::new().with("in", 1, 1).with("in", 0, 99);
    assert!(driver.query(one(read.clone())).is_ok(), "partition 0 is no matter of this task");
    let behind = driver.query(one(Position::new().with("in", 1, 2)));
    let error = behind.err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("task 0_1 has not come to offset 2 of in: it is at 1"));
    driver.crash();
    assert_eq!(driver.query(one(read)).expect("an answer").position.get("in", 1), Some(1));
}

#[test]
fn a_store_that_is_not_there_is_not_found_among_those_that_are() {
    let mut driver = TestDriver::new(&counts()).expect("a valid topology");
    let error = driver.query(in_store("cuonts").all::<String, i64>()).err();
    assert_eq!(
        error.map(|error| error.to_string()).as_deref(),
        Some("there is no store `cuonts`; there are: counts")
    );
    driver.input("in").send("a", "x");
    let other = driver.query(in_store("counts").all::<String, String>());
    assert!(matches!(other, Err(QueryError::OtherTypes { .. })));
    let other = driver.query(in_store("counts").key::<i64, i64>(1));
    assert!(matches!(other, Err(QueryError::OtherTypes { .. })));
    let other = driver.query(in_store("counts").all::<String, i64>().in_partition(1));
    assert!(matches!(other, Err(QueryError::UnknownPartition { count: 1, .. })));
}

#[test]
fn a_task_that_waits_for_an_instance_does_not_answer() {
    let app = counts();
    let mut driver = TestDriver::of(&app).start().expect("a valid topology");
    driver.input("in").send("a", "x");
    driver.stop_instance(0);
    let error = driver.query(in_store("counts").key::<String, i64>(text("a"))).err();
    assert!(matches!(error, Some(QueryError::NotHere { task, .. }) if task == "0_0"));
}

#[test]
fn over_http_keys_are_text_and_values_json() {
    let app = Topology::new("app");
    app.table_with::<i64, Json<Vec<i64>>>(
        "lists",
        Consumed::default(),
        Materialized::named("lists-store"),
    );
    let mut driver = TestDriver::with_partitions(&app, 2).expect("a valid topology");
    for number in 1..=3_i64 {
        driver.input("lists").at(number).send(&number, &Json((0..number).collect::<Vec<_>>()));
    }
    let found = driver.get("/stores/lists-store/key/2");
    assert_eq!((found.status, &found.json["key"]), (200, &json!(2)), "{}", found.json);
    assert_eq!((&found.json["value"], &found.json["timestamp"]), (&json!([0, 1]), &json!(2)));
    let rows = driver.get("/stores/lists-store/range?from=2");
    let mut keys: Vec<i64> = rows.json["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["key"].as_i64())
        .collect();
    keys.sort();
    assert_eq!(keys, [2, 3]);
    let cut = driver.get("/stores/lists-store/range?limit=1");
    assert_eq!(
        (cut.json["rows"].as_array().map(Vec::len), &cut.json["more"]),
        (Some(1), &json!(true))
    );
    let missing = driver.get("/stores/lists-store/key/9");
    assert_eq!((missing.status, &missing.json["error"]), (404, &json!("not_found")));
    let wrong = driver.get("/stores/lists-store/key/two");
    assert_eq!((wrong.status, &wrong.json["error"]), (400, &json!("bad_key")), "{}", wrong.json);
    let window = driver.get("/stores/lists-store/windows/2");
    assert_eq!((window.status, &window.json["error"]), (400, &json!("other_types")));
    let unknown = driver.get("/stores/list/key/2");
    assert_eq!((unknown.status, &unknown.json["stores"]), (404, &json!(["lists-store"])));
    let stores = driver.get("/stores").json;
    assert_eq!(stores, json!([{ "name": "lists-store", "kind": "keyValue", "subtopology": 0 }]));
}

#[test]
fn over_http_windows_and_sessions_have_their_spans() {
    let app = Topology::new("app");
    let clicks = app.stream::<String, String>("in").group_by_key();
    clicks.windowed_by(TimeWindows::of_ms(10, 0)).count("counts");
    clicks.windowed_by(SessionWindows::of_ms(5, 0)).count("sessions");
    let mut driver = TestDriver::new(&app).expect("a valid topology");
    driver.input("in").at(3).send("a b", "x").at(5).send("a b", "x");
    let found = driver.get("/stores/counts/windows/a%20b?from=0").json;
    let row = json!({ "key": "a b", "window": { "start": 0, "end": 10 }, "value": 2 });
    assert_eq!(found["rows"], json!([row]));
    assert_eq!(found["position"], json!({ "in": { "0": 1 } }));
    let found = driver.get("/stores/sessions/windows").json;
    let row = json!({ "key": "a b", "window": { "start": 3, "end": 5 }, "value": 2 });
    assert_eq!(found["rows"], json!([row]));
    let behind = driver.get("/stores/counts/windows?at_least=in:0:2");
    assert_eq!((behind.status, &behind.json["error"]), (503, &json!("behind")));
}

#[test]
fn what_a_row_was_is_told_by_stores_that_keep_versions_and_refused_by_others() {
    let app = Topology::new("app");
    let versions = Materialized::named("prices").versioned_ms(100);
    app.table_with::<String, i64>("prices", Consumed::default(), versions);
    app.table_with::<String, i64>("stock", Consumed::default(), Materialized::named("stock"));
    let mut driver = TestDriver::with_partitions(&app, 3).expect("a valid topology");
    driver.input("prices").at(10).send("tea", &3_i64).at(20).send("tea", &4_i64);
    driver.input("prices").at(30).delete("tea").at(40).send("tea", &5_i64);
    driver.input("stock").at(10).send("tea", &7_i64);
    let mut at = |store: &str, time| {
        driver.query(in_store(store).key_as_of::<String, i64>(text("tea"), time))
    };
    let found: Vec<Option<(i64, Option<i64>)>> = [9, 10, 19, 20, 30, 40, 99]
        .into_iter()
        .map(|time| at("prices", time).expect("an answer").value)
        .map(|found| found.map(|version| (version.value, version.valid_to)))
        .collect();
    let (three, four, five) = (Some((3, Some(20))), Some((4, Some(30))), Some((5, None)));
    assert_eq!(found, [None, three, three, four, None, five, five]);
    let refused = at("stock", 10).expect_err("no versions");
    assert!(refused.to_string().contains("no versioned key-value store"), "{refused}");

    let span = in_store("prices").versions_of::<String, i64>(text("tea"), 15..40);
    let values = driver.query(span).expect("an answer").value.into_iter();
    assert_eq!(values.map(|version| version.value).collect::<Vec<_>>(), [3, 4]);

    let reply = driver.get("/stores/prices/versions/tea?as_of=25");
    assert_eq!(
        reply.json["rows"],
        json!([{ "key": "tea", "value": 4, "validFrom": 20, "validTo": 30 }])
    );
    let all = driver.get("/stores/prices/versions/tea?from=0&to=99&reverse=true");
    assert_eq!(all.json["rows"].as_array().map(Vec::len), Some(3));
    let refused = driver.get("/stores/stock/versions/tea?as_of=10");
    assert_eq!((refused.status, &refused.json["error"]), (400, &json!("other_types")));
}

//! What the comparison with Kafka Streams does not show: crashes, and what is only ours.

use fleuve_streams::{
    SessionWindows, SuppressBuffer, Suppressed, TestDriver, Topology, Window, Windowed,
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

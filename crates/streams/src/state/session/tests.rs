//! Session stores on disk beside those in memory.

use std::sync::Arc;

use super::*;
use crate::serde::SerdeOf;
use crate::state::testing::{Place, random};

fn store(retention_ms: i64, cached: bool, on_close: bool) -> SessionStore<String, i64> {
    SessionStore::new(SessionStoreSettings {
        name: "store".to_owned(),
        topic: "store-changelog".to_owned(),
        key: SerdeOf::usual(),
        value: SerdeOf::usual(),
        retention_ms,
        logged: true,
        cached,
        on_close,
    })
}

fn put(store: &mut SessionStore<String, i64>, key: &str, window: Window, value: Option<i64>) {
    let (topic, headers) = (Arc::from("in"), Headers::default());
    let origin = Origin { topic, partition: 0, offset: 0, timestamp: 0, headers };
    store
        .put(&key.to_owned(), window, value, window.end, &Headers::default(), &origin)
        .expect("a working store");
}

fn ended(store: &mut SessionStore<String, i64>, from: i64, to: i64) -> Vec<(String, Window, i64)> {
    let found = store.find_ended(from, to).expect("a working store");
    found.into_iter().map(|(key, value)| (key.key, key.window, value)).collect()
}

/// Sessions that begin, grow and are removed, in memory and on disk, where memory is let go now and then and the store is
/// opened anew now and then: both answer the same.
fn compare(retention_ms: i64, cached: bool, on_close: bool) {
    let mut place = Place::new();
    let mut memory = store(retention_ms, cached, on_close);
    let mut disk = place.keep(store(retention_ms, cached, on_close));
    let mut state = 5;
    for number in 0..500 {
        let at = number * 300 + random(&mut state, 60_000);
        let key = ["a", "ab", "b"][random(&mut state, 3) as usize].to_owned();
        // A record's session takes in those that it touches.
        let find = |store: &mut SessionStore<String, i64>| {
            store.find(&key, at - 2_000, at + 2_000).expect("a working store")
        };
        let touched = find(&mut memory);
        assert_eq!(touched, find(&mut disk), "before write {number}");
        let mut merged = Window { start: at, end: at };
        for (window, _) in &touched {
            merged.start = merged.start.min(window.start);
            merged.end = merged.end.max(window.end);
            put(&mut memory, &key, *window, None);
            put(&mut disk, &key, *window, None);
        }
        put(&mut memory, &key, merged, Some(number));
        put(&mut disk, &key, merged, Some(number));
        if number % 5 == 4 {
            let logged = |store: &mut SessionStore<String, i64>| {
                let flushed = store.flush().expect("a working store");
                let told = flushed.into_iter().map(|change| (change.old, change.new));
                (told.collect::<Vec<_>>(), store.take_changelog())
            };
            assert_eq!(logged(&mut memory), logged(&mut disk), "after write {number}");
        }
        match number % 50 {
            24 => {
                place.commit(&mut disk);
                disk.shrink_cache();
            }
            49 => {
                place.commit(&mut disk);
                drop(disk);
                place.reopen();
                disk = place.keep(store(retention_ms, cached, on_close));
            }
            _ => {}
        }
        let (from, to) = (at - random(&mut state, 90_000), at + random(&mut state, 90_000));
        assert_eq!(ended(&mut memory, from, to), ended(&mut disk, from, to), "after {number}");
        let get = |store: &mut SessionStore<String, i64>| {
            store.get(&key, merged).expect("a working store")
        };
        assert_eq!(get(&mut memory), get(&mut disk), "after write {number}");
    }
}

#[test]
fn sessions_on_disk_are_those_in_memory() {
    const NEVER: i64 = i64::MAX / 4;
    compare(90_000, false, false);
    compare(90_000, false, true);
    compare(NEVER, true, false);
}

#[test]
fn memory_is_bounded_while_sessions_on_disk_grow() {
    const BUDGET: usize = 64 << 10;
    let place = Place::new();
    let mut disk = place.keep(store(i64::MAX / 4, true, false));
    for number in 0..20_000_i64 {
        let window = Window { start: number * 10, end: number * 10 + 5 };
        put(&mut disk, &format!("key-{}", number % 50), window, Some(number));
        if number % 50 == 49 {
            disk.flush().expect("a working store");
            disk.take_changelog();
            place.commit(&mut disk);
            if disk.cached_bytes() > BUDGET {
                disk.shrink_cache();
            }
            assert!(disk.cached_bytes() <= BUDGET, "{} bytes", disk.cached_bytes());
        }
    }
    assert!(disk.sessions.len() < 1_000, "{} sessions in memory", disk.sessions.len());
    let found = disk.find(&"key-7".to_owned(), i64::MIN, i64::MAX).expect("a working store");
    assert_eq!(found.len(), 400);
    assert_eq!(found[1], (Window { start: 570, end: 575 }, 57));
}

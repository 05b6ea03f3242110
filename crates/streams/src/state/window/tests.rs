//! Window stores on disk beside those in memory.

use std::ops::Bound;
use std::sync::Arc;

use super::*;
use crate::serde::SerdeOf;
use crate::state::testing::{Place, random};

const NEVER: i64 = i64::MAX / 4;

fn store(retention_ms: i64, change: impl FnOnce(&mut Settings)) -> WindowStore<String, i64> {
    let mut settings = WindowStoreSettings {
        name: "store".to_owned(),
        topic: "store-changelog".to_owned(),
        key: SerdeOf::usual(),
        value: SerdeOf::usual(),
        size_ms: 1_000,
        retention_ms,
        duplicates: false,
        by_key: false,
        logged: true,
        cached: false,
        on_close: false,
    };
    change(&mut settings);
    WindowStore::new(settings)
}

type Settings = WindowStoreSettings<String, i64>;

fn origin() -> Origin {
    let headers = Headers::default();
    Origin { topic: Arc::from("in"), partition: 0, offset: 0, timestamp: 0, headers }
}

fn put(store: &mut WindowStore<String, i64>, key: &str, start: i64, value: i64) -> bool {
    let stamped = Stamped { value, timestamp: start };
    let put = store.put(&key.to_owned(), start, stamped, &Headers::default(), &origin());
    put.expect("a working store")
}

fn flush(store: &mut WindowStore<String, i64>) -> Vec<FlushedWindow<String, i64>> {
    store.begin_flush();
    std::iter::from_fn(|| store.flush_next().expect("a working store")).collect()
}

fn all(store: &mut WindowStore<String, i64>, from: i64, to: i64) -> Vec<(String, i64, i64)> {
    let found = store.fetch_all(from, to).expect("a working store");
    let plain =
        |(key, value): (Windowed<String>, Stamped<i64>)| (key.key, key.window.start, value.value);
    found.into_iter().map(plain).collect()
}

/// Random writes into a store in memory and into one on disk, which lets go of its memory now and then and is opened
/// anew now and then: both answer the same.
fn compare(retention_ms: i64, change: impl Fn(&mut Settings)) {
    let mut place = Place::new();
    let mut memory = store(retention_ms, &change);
    let mut disk = place.keep(store(retention_ms, &change));
    let mut state = 11;
    for number in 0..500 {
        let start = (number * 300 + random(&mut state, 60_000)) / 1_000 * 1_000;
        // One key begins like another.
        let key = ["a", "ab", "b", "b\0\0\0\0\0\0\0\0"][random(&mut state, 4) as usize].to_owned();
        assert_eq!(put(&mut memory, &key, start, number), put(&mut disk, &key, start, number));
        let logged = |store: &mut WindowStore<String, i64>| {
            let flushed = flush(store);
            let told = flushed.into_iter().map(|change| (change.old, change.new.value));
            (told.collect::<Vec<_>>(), store.take_changelog())
        };
        if number % 5 == 4 {
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
                disk = place.keep(store(retention_ms, &change));
            }
            _ => {}
        }
        let (from, to) = (start - random(&mut state, 90_000), start + random(&mut state, 90_000));
        let of_key = |store: &mut WindowStore<String, i64>| {
            let found = store.fetch(&key, from, to).expect("a working store");
            (found, store.get(&key, start).expect("a working store"))
        };
        assert_eq!(of_key(&mut memory), of_key(&mut disk), "after write {number}");
        if number % 10 != 9 {
            continue;
        }
        assert_eq!(all(&mut memory, from, to), all(&mut disk, from, to), "after write {number}");
        let between = |store: &mut WindowStore<String, i64>| {
            let (first, last) = ("a".to_owned(), "b".to_owned());
            let keys = (Bound::Excluded(&first), Bound::Included(&last));
            store.fetch_between(keys, i64::MIN, i64::MAX).expect("a working store").len()
        };
        assert_eq!(between(&mut memory), between(&mut disk), "after write {number}");
    }
}

#[test]
fn windows_on_disk_are_those_in_memory() {
    for by_key in [false, true] {
        compare(90_000, |settings| settings.by_key = by_key);
        compare(400_000, |settings| (settings.by_key, settings.logged) = (by_key, false));
        compare(NEVER, |settings| (settings.by_key, settings.cached) = (by_key, true));
    }
}

#[test]
fn duplicates_on_disk_are_those_in_memory() {
    compare(150_000, |settings| settings.duplicates = true);
}

#[test]
fn what_was_restored_is_found_by_key() {
    let of_joins = |settings: &mut Settings| settings.duplicates = true;
    let (place, mut memory) = (Place::new(), store(150_000, of_joins));
    let mut disk = place.keep(store(150_000, of_joins));
    for number in 0..1_000 {
        put(&mut memory, &format!("key-{}", number % 300), number * 200, number);
    }
    for record in memory.take_changelog() {
        disk.restore(record).expect("a working store");
    }
    place.commit(&mut disk);
    for number in 0..301 {
        let key = format!("key-{number}");
        let found = disk.fetch(&key, 0, NEVER).expect("a working store");
        assert_eq!(found, memory.fetch(&key, 0, NEVER).expect("a working store"), "{key}");
    }
}

/// Random writes into a store by key and one by start, with caches that are shrunk and a task that begins anew now and
/// then: both answer the same, in the same order.
fn compare_orders(change: impl Fn(&mut Settings)) {
    let mut stores = [false, true].map(|by_key| {
        store(90_000, |settings| {
            change(settings);
            settings.by_key = by_key;
        })
    });
    let (mut state, mut logged) = (7, Vec::new());
    for number in 0..800 {
        let start = number * 100 + random(&mut state, 60_000);
        let key = ["a", "ab", "b", "b\0\0\0\0\0\0\0\0"][random(&mut state, 4) as usize];
        let (from, to) = (start - random(&mut state, 90_000), start + random(&mut state, 90_000));
        let mut told = stores.each_mut().map(|store| {
            let kept = put(store, key, start, number);
            let flushed = if number % 5 == 4 { flush(store) } else { Vec::new() };
            let flushed: Vec<_> =
                flushed.into_iter().map(|change| (change.old, change.new.value)).collect();
            let log = store.take_changelog();
            if number % 50 == 49 {
                store.shrink_cache();
            }
            let of_key = store.fetch(&key.to_owned(), from, to).expect("a working store");
            let sizes = (store.figures().entries, store.cached_bytes());
            (kept, flushed, log, of_key, all(store, from, to), sizes)
        });
        assert_eq!(told[0], told[1], "after write {number}");
        logged.append(&mut told[0].2);
        if number % 200 == 199 {
            for store in &mut stores {
                store.reset();
                for record in &logged {
                    store.restore(record.clone()).expect("a working store");
                }
            }
        }
    }
}

#[test]
fn windows_by_key_are_those_by_start() {
    compare_orders(|_| {});
    compare_orders(|settings| settings.cached = true);
    compare_orders(|settings| settings.on_close = true);
}

#[test]
fn an_event_meets_those_of_its_key_without_a_look_at_all_others() {
    // If each fetch stepped over all starts, this would take billions of steps.
    let mut events = store(NEVER, |settings| settings.duplicates = true);
    for number in 0..60_000 {
        let key = format!("key-{}", number / 2);
        put(&mut events, &key, number, number);
        events.take_changelog();
        let found = events.fetch(&key, 0, number).expect("a working store");
        assert_eq!(found.len() as i64, number % 2 + 1);
    }
}

#[test]
fn memory_is_bounded_while_windows_on_disk_grow() {
    const BUDGET: usize = 64 << 10;
    let place = Place::new();
    let mut disk = place.keep(store(NEVER, |settings| settings.cached = true));
    let mut memory = store(NEVER, |settings| settings.cached = true);
    let (mut most, mut in_memory) = (0, 0);
    for start in (0..400_000).step_by(1_000) {
        for key in 0..50 {
            for store in [&mut disk, &mut memory] {
                put(store, &format!("key-{key}"), start, start + key);
            }
            in_memory += 1;
        }
        for store in [&mut disk, &mut memory] {
            flush(store);
            store.take_changelog();
        }
        let uncommitted = disk.backend().expect("a backend").uncommitted_bytes();
        most = most.max(disk.held.len() * size_of::<Slot<i64>>() + uncommitted);
        place.commit(&mut disk);
        if disk.cached_bytes() > BUDGET {
            disk.shrink_cache();
        }
        assert!(disk.cached_bytes() <= BUDGET, "{} bytes", disk.cached_bytes());
    }
    assert_eq!((memory.held.len(), in_memory), (20_000, 20_000));
    assert!(most < memory.held.len() * size_of::<Slot<i64>>() / 10, "{most} bytes");
    // All of it is there, and can be changed.
    let key = "key-7".to_owned();
    let found = disk.fetch(&key, i64::MIN, i64::MAX).expect("a working store");
    assert_eq!(found, memory.fetch(&key, i64::MIN, i64::MAX).expect("a working store"));
    assert_eq!(found.len(), 400);
    put(&mut disk, "key-7", 3_000, -1);
    let flushed = flush(&mut disk);
    let told: Vec<_> = flushed.iter().map(|change| (change.old, change.new.value)).collect();
    assert_eq!(told, [(Some(3_007), -1)]);
}

#[test]
fn dead_segments_leave_the_disk_and_nothing_else_does() {
    for on_close in [false, true] {
        let place = Place::new();
        let mut disk = place.keep(store(200_000, |settings| settings.on_close = on_close));
        // One of the keys sorts behind all numbers.
        for start in (0..3_000_000).step_by(1_000) {
            put(&mut disk, "a", start, start);
            put(&mut disk, "\u{10ffff}", start, start);
            disk.take_changelog();
            if start % 50_000 == 0 {
                place.commit(&mut disk);
            }
        }
        place.commit(&mut disk);
        place.backend().merge();
        let entries = disk.backend().expect("a backend").entries().expect("a working disk");
        // Two keys, 200 windows that live and at most a segment of 100 that do not, an index where there is one.
        let of_window = if on_close { 4 } else { 2 };
        assert!(entries > 200 * of_window, "{entries} entries");
        assert!(entries <= 301 * of_window + 1, "{entries} entries");
        let found = all(&mut disk, i64::MIN, i64::MAX);
        assert_eq!(found.len(), 400);
        assert_eq!(found[0], ("a".to_owned(), 2_800_000, 2_800_000));
    }
}

#[test]
fn a_flush_in_parts_gives_each_window_once_in_the_order_of_last_writes() {
    let mut windows = store(NEVER, |settings| settings.cached = true);
    for (key, start, value) in
        [("a", 0, 1), ("b", 0, 2), ("a", 1_000, 3), ("b", 1_000, 4), ("a", 0, 5)]
    {
        put(&mut windows, key, start, value);
    }
    let next = |windows: &mut WindowStore<String, i64>| {
        let flushed = windows.flush_next().expect("a working store")?;
        Some((flushed.key.key, flushed.key.window.start, flushed.old, flushed.new.value))
    };
    let window = |key: &str, start, old, new| Some((key.to_owned(), start, old, new));
    windows.begin_flush();
    assert_eq!(next(&mut windows), window("b", 0, None, 2));
    assert_eq!(next(&mut windows), window("a", 1_000, None, 3));
    // What has its turn yet is flushed as it is then, what has had it waits for the next flush.
    put(&mut windows, "b", 1_000, 6);
    put(&mut windows, "a", 1_000, 7);
    // Until then nothing is let go.
    windows.shrink_cache();
    assert!(windows.is_flushing());
    assert_eq!(next(&mut windows), window("b", 1_000, None, 6));
    assert_eq!(next(&mut windows), window("a", 0, None, 5));
    assert_eq!(next(&mut windows), None);
    windows.begin_flush();
    assert_eq!(next(&mut windows), window("a", 1_000, Some(3), 7));
    assert_eq!(next(&mut windows), None);
    let logged = windows.take_changelog().into_iter().map(|record| record.timestamp);
    assert_eq!(logged.collect::<Vec<_>>(), [0, 1_000, 1_000, 0, 1_000]);
}

//! Events without a partner on disk beside those in memory.

use super::*;
use crate::state::testing::{Place as Directory, random};

type Store = OuterStore<String, String, i64>;

fn store() -> Store {
    OuterStore::new(Arc::new(OuterStoreSettings {
        name: "store".to_owned(),
        topic: "store-changelog".to_owned(),
        key: SerdeOf::usual(),
        left: SerdeOf::usual(),
        right: SerdeOf::usual(),
    }))
}

fn take(store: &mut Store, mut search: Search) -> Closed<String, String, i64> {
    let mut taken = Vec::new();
    loop {
        let next = store.take_next(&mut search).expect("a working store");
        if next.is_empty() {
            return taken;
        }
        taken.extend(next);
    }
}

fn event(number: i64, is_left: bool, length: usize) -> Either<String, i64> {
    if is_left { Either::Left(format!("{number:0length$}")) } else { Either::Right(number) }
}

/// Random events, partners and searches in both, of sides that wait for different times; the one on disk lets go of its
/// memory and is opened anew now and then.
#[test]
fn events_on_disk_are_those_in_memory() {
    let windows = JoinWindows::of_ms(300, 20).after_ms(700);
    let mut directory = Directory::new();
    let mut memory = store();
    let mut disk = directory.keep(store());
    let mut state = 5;
    let mut sent = 0;
    for number in 0..4_000_i64 {
        let time = number / 3 + random(&mut state, 40);
        let (is_left, key) = (random(&mut state, 2) == 0, format!("k{}", random(&mut state, 3)));
        let kind = random(&mut state, 8);
        for store in [&mut memory, &mut disk] {
            let tracker = store.tracker().expect("a working store");
            tracker.stream_time = tracker.stream_time.max(time);
            match kind {
                0 => store.remove(&key, time, is_left, number).expect("a working store"),
                _ => {
                    let event = event(number, is_left, 1_000);
                    store.add(&key, time, is_left, event).expect("a working store");
                }
            }
        }
        let first = |store: &mut Store| store.tracker().expect("a working store").min_time;
        assert_eq!(first(&mut memory), first(&mut disk), "after event {number}");
        if number % 7 == 6 {
            let taken = take(&mut memory, Search::for_closed(windows));
            assert_eq!(taken, take(&mut disk, Search::for_closed(windows)), "event {number}");
            assert_eq!(first(&mut memory), first(&mut disk), "after event {number}");
            sent += taken.len();
        }
        assert_eq!(memory.take_changelog(), disk.take_changelog(), "after event {number}");
        match number % 200 {
            99 => {
                directory.commit(&mut disk);
                disk.shrink_cache();
            }
            199 => {
                directory.commit(&mut disk);
                drop(disk);
                directory.reopen();
                disk = directory.keep(store());
                let stream_time = memory.tracker.stream_time;
                disk.tracker.stream_time = stream_time;
                // As after a restart, too.
                memory.knows_first = false;
            }
            _ => {}
        }
    }
    assert!(sent > 1_000, "{sent} events were sent");
    let rest = take(&mut memory, Search::for_all());
    assert!(rest.len() > 1_000, "{} events are left", rest.len());
    assert_eq!(rest, take(&mut disk, Search::for_all()));
    assert_eq!(memory.take_changelog(), disk.take_changelog());
}

#[test]
fn a_store_on_disk_is_restored_from_the_changelog_of_one_in_memory() {
    let directory = Directory::new();
    let (mut memory, mut disk) = (store(), directory.keep(store()));
    for number in 0..500 {
        let (key, is_left) = (format!("k{}", number % 5), number % 2 == 0);
        memory.add(&key, number / 20, is_left, event(number, is_left, 1)).expect("memory");
        if number % 3 == 0 {
            memory.remove(&key, number / 30, !is_left, number).expect("memory");
        }
    }
    for record in memory.take_changelog() {
        disk.restore(record).expect("what a store logged");
    }
    directory.commit(&mut disk);
    assert_eq!(disk.tracker().expect("a working store").min_time, 0);
    assert_eq!(take(&mut disk, Search::for_all()), take(&mut memory, Search::for_all()));
    directory.commit(&mut disk);
    directory.backend().merge();
    assert_eq!(disk.backend().expect("on disk").entries().expect("a working disk"), 0);
}

#[test]
fn damaged_rows_are_told() {
    let directory = Directory::new();
    let mut disk = directory.keep(store());
    let key = Bytes::from_static(b"\0\0\0\0\0\0\0\x05\x01key");
    for damage in [&b""[..], b"\x01", b"\x02\0\0\0\x01", b"\x01\0\0\0\x01\0\0\0\x09\x01"] {
        let value = Some(Bytes::copy_from_slice(damage));
        let record = Logged { key: key.clone(), value, timestamp: 5, headers: Headers::default() };
        disk.restore(record).expect("it is read later");
        let error = disk.take_next(&mut Search::for_all()).expect_err("damaged");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}

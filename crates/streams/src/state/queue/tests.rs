//! Rows on disk by time, beside a map in memory.

use super::*;
use crate::state::disk::Keeping;
use crate::state::testing::{Place, random};

fn commit(queue: &mut TimeQueue) {
    let mut keeping = Keeping::default();
    keeping.add(queue.backend().disk().expect("on disk"), None, true);
    keeping.write().expect("a working disk");
}

fn all(queue: &mut TimeQueue) -> Vec<(Bytes, Bytes)> {
    let mut walk = Walk::default();
    std::iter::from_fn(|| queue.next(&mut walk).expect("a working disk")).collect()
}

#[test]
fn keys_sort_as_their_times_do_and_give_them_back() {
    let times = [i64::MIN, -1, 0, 1, 255, 256, i64::MAX];
    let keys = times.map(|time| key_of(time, &[b"left", b"right"]));
    assert!(keys.is_sorted());
    for (time, key) in times.into_iter().zip(&keys) {
        assert_eq!(parts_of(key), (time, Bytes::from_static(b"leftright")));
    }
}

/// Random writes near the end, and removals near the front, of more rows than the front has room for; the queue lets go
/// of memory, is committed and opened anew now and then.
#[test]
fn rows_on_disk_are_those_of_an_ordered_map() {
    let mut place = Place::new();
    let mut queue = TimeQueue::new(place.backend());
    let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut state = 3;
    let mut most = 0;
    for step in 0..3_000_i64 {
        let time = step * 10 + random(&mut state, 2_000) - random(&mut state, 40) * 500;
        let key = key_of(time, &[&[random(&mut state, 3) as u8]]);
        // Fewer removals at first, so that rows come together, and more of them towards the end.
        match random(&mut state, 10) {
            kind if kind < (step / 300).min(6) => {
                let first = queue.first().expect("a working disk");
                let expected = model.pop_first();
                assert_eq!(first, expected, "step {step}");
                if let Some((key, _)) = first {
                    queue.put(key, None);
                }
            }
            9 => {
                queue.put(key.clone(), None);
                model.remove(&key);
            }
            _ => {
                let value = Bytes::from(vec![step as u8; random(&mut state, 3_000) as usize]);
                queue.put(key.clone(), Some(value.clone()));
                model.insert(key.clone(), value);
            }
        }
        assert!(queue.front_bytes <= FRONT_BYTES, "{} bytes", queue.front_bytes);
        most = most.max(model.values().map(Bytes::len).sum());
        assert_eq!(queue.get(&key).expect("a working disk"), model.get(&key).cloned());
        match step % 100 {
            24 => commit(&mut queue),
            49 => queue.shrink(),
            74 => {
                let expected: Vec<_> =
                    model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                assert_eq!(all(&mut queue), expected, "step {step}");
                let last = queue.last_key().expect("a working disk");
                assert_eq!(last.as_ref(), model.last_key_value().map(|(key, _)| key));
            }
            99 if step % 400 == 399 => {
                commit(&mut queue);
                drop(queue);
                place.reopen();
                queue = TimeQueue::new(place.backend());
            }
            _ => {}
        }
    }
    assert!(most > 2 * FRONT_BYTES, "{most} bytes at most: the front was hardly ever cut");
}

#[test]
fn rows_are_removed_along_the_way_and_nothing_stays_on_disk() {
    let place = Place::new();
    let mut queue = TimeQueue::new(place.backend());
    for time in 0..3_000 {
        queue.put(key_of(time, &[b"key"]), Some(Bytes::from(vec![7; 1_000])));
    }
    commit(&mut queue);
    let mut walk = Walk::default();
    let mut times = Vec::new();
    while let Some((key, _)) = queue.next(&mut walk).expect("a working disk") {
        let (time, _) = parts_of(&key);
        times.push(time);
        if time % 3 > 0 {
            queue.put(key, None);
        }
        assert!(queue.front_bytes <= FRONT_BYTES, "{} bytes", queue.front_bytes);
        // Pages in the walk hold less than two of their size.
        assert!(walk.page.len() <= 2 * PAGE_BYTES / 1_000);
    }
    assert!(times.into_iter().eq(0..3_000));
    let left: Vec<i64> = all(&mut queue).iter().map(|(key, _)| parts_of(key).0).collect();
    assert!(left.into_iter().eq((0..3_000).step_by(3)));
    while let Some((key, _)) = queue.first().expect("a working disk") {
        queue.put(key, None);
    }
    commit(&mut queue);
    place.backend().merge();
    assert_eq!(queue.backend().entries().expect("a working disk"), 0);
}

#[test]
fn a_cache_that_is_always_too_large_leaves_a_queue_its_first_rows() {
    let place = Place::new();
    let mut queue = TimeQueue::new(place.backend());
    for time in 0..20_000 {
        queue.put(key_of(time, &[b"key"]), Some(Bytes::new()));
    }
    commit(&mut queue);
    let (mut shrunk, mut taken) = (0, 0);
    while let Some((key, _)) = queue.first().expect("a working disk") {
        queue.put(key, None);
        taken += 1;
        if queue.cached_bytes() > 0 {
            queue.shrink();
            shrunk += 1;
        }
    }
    assert_eq!(taken, 20_000);
    assert!((1..100).contains(&shrunk), "shrunk {shrunk} times");
}

#[test]
fn what_is_noted_is_there_with_the_rows_that_it_was_committed_with() {
    let mut place = Place::new();
    let mut queue = TimeQueue::new(place.backend());
    assert_eq!(queue.noted().expect("a working disk"), None);
    queue.note(Bytes::from_static(b"one"));
    queue.put(key_of(1, &[]), Some(Bytes::new()));
    commit(&mut queue);
    queue.note(Bytes::from_static(b"two"));
    queue.put(key_of(2, &[]), Some(Bytes::new()));
    // As after a crash.
    drop(queue);
    place.reopen();
    let mut queue = TimeQueue::new(place.backend());
    assert_eq!(queue.noted().expect("a working disk"), Some(Bytes::from_static(b"one")));
    assert_eq!(all(&mut queue), [(key_of(1, &[]), Bytes::new())]);
}

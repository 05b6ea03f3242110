//! Tests of the fetch session machine.

use super::*;

fn topic(name: &'static str) -> TopicRef {
    TopicRef::Name(Str::from(name))
}

fn wanted(name: &'static str, fetch_offset: i64) -> Wanted {
    Wanted {
        topic: topic(name),
        partition: 0,
        fetch_offset,
        bytes_max: 100,
        leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

fn request(session_id: i32, epoch: i32, wanted: Vec<Wanted>) -> Request {
    Request {
        session_id,
        epoch,
        by_topic_id: false,
        from_follower: false,
        wanted,
        forgotten: Vec::new(),
    }
}

const QUIET: Seen = Seen {
    has_records: false,
    failed: false,
    diverging: false,
    high_watermark: 5,
    log_start_offset: 0,
};

fn open(cache: &SessionCache, names: &[&'static str], now_ms: i64) -> i32 {
    let names = names.iter().map(|name| wanted(name, 0)).collect();
    let fetch = cache.begin(request(0, INITIAL_EPOCH, names), now_ms).expect("full");
    let seen = vec![QUIET; fetch.wanted().len()];
    let mut next = now_ms as u64;
    cache
        .finish(&fetch, &seen, now_ms, || {
            next += 1;
            next
        })
        .expect("full")
        .session_id
}

fn names(fetch: &Fetch) -> Vec<String> {
    fetch
        .wanted()
        .iter()
        .map(|wanted| match &wanted.topic {
            TopicRef::Name(name) => name.to_string(),
            TopicRef::Id(id) => id.to_string(),
        })
        .collect()
}

fn select(cache: &SessionCache, fetch: &Fetch, seen: &[Seen]) -> Vec<bool> {
    cache.finish(fetch, seen, 0, || 7).expect("in step").include
}

#[test]
fn an_incremental_request_repeats_what_the_session_remembers() {
    let cache = SessionCache::new(10);
    let id = open(&cache, &["a", "b"], 0);
    assert_ne!(id, NO_SESSION);
    let mut second = request(id, 1, vec![wanted("a", 7), wanted("c", 0)]);
    second.forgotten.push((topic("b"), 0));
    let fetch = cache.begin(second, 0).expect("in step");
    assert_eq!(names(&fetch), ["a", "c"]);
    assert_eq!(fetch.wanted()[0].fetch_offset, 7);
    // The newcomer was never answered, so it is new to the client even without records.
    assert_eq!(select(&cache, &fetch, &[QUIET, QUIET]), [false, true]);
    let fetch = cache.begin(request(id, 2, vec![]), 0).expect("in step");
    assert_eq!(select(&cache, &fetch, &[QUIET, QUIET]), [false, false]);
    assert_eq!(cache.usage(), (1, 2, 0));
}

#[test]
fn only_changes_are_answered_and_an_error_is_followed_by_its_end() {
    let cache = SessionCache::new(10);
    let id = open(&cache, &["a", "b", "c", "d"], 0);
    let fetch = cache.begin(request(id, 1, vec![]), 0).expect("in step");
    let seen = [
        Seen { high_watermark: 6, ..QUIET },
        Seen { failed: true, ..QUIET },
        Seen { log_start_offset: 1, ..QUIET },
        QUIET,
    ];
    assert_eq!(select(&cache, &fetch, &seen), [true, true, true, false]);
    let fetch = cache.begin(request(id, 2, vec![]), 0).expect("in step");
    let seen = [seen[0], QUIET, seen[2], Seen { diverging: true, ..QUIET }];
    assert_eq!(select(&cache, &fetch, &seen), [false, true, false, true]);
}

#[test]
fn a_partition_with_records_goes_to_the_end_of_the_order() {
    let cache = SessionCache::new(10);
    let id = open(&cache, &["a", "b", "c"], 0);
    let fetch = cache.begin(request(id, 1, vec![]), 0).expect("in step");
    select(&cache, &fetch, &[Seen { has_records: true, ..QUIET }, QUIET, QUIET]);
    let fetch = cache.begin(request(id, 2, vec![]), 0).expect("in step");
    assert_eq!(names(&fetch), ["b", "c", "a"]);
}

#[test]
fn a_request_out_of_step_is_refused() {
    let cache = SessionCache::new(10);
    let id = open(&cache, &["a"], 0);
    let refusal = |session_id, epoch| {
        cache.begin(request(session_id, epoch, vec![]), 0).expect_err("out of step")
    };
    assert_eq!(refusal(id, 2), SessionError::WrongEpoch);
    assert_eq!(refusal(id + 1, 1), SessionError::NotFound);
    let by_id = Request { by_topic_id: true, ..request(id, 1, vec![]) };
    assert_eq!(cache.begin(by_id, 0).expect_err("other naming"), SessionError::TopicIdMismatch);

    let slow = cache.begin(request(id, 1, vec![]), 0).expect("in step");
    let fast = cache.begin(request(id, 2, vec![]), 0).expect("in step");
    assert_eq!(cache.finish(&slow, &[QUIET], 0, || 7), Err((SessionError::WrongEpoch, id)));
    assert!(cache.finish(&fast, &[QUIET], 0, || 7).is_ok());
}

#[test]
fn a_session_ends_when_told_or_when_nothing_is_left_in_it() {
    let cache = SessionCache::new(10);
    let id = open(&cache, &["a"], 0);
    cache.begin(request(id, FINAL_EPOCH, vec![]), 0).expect("sessionless");
    assert_eq!(cache.usage().0, 0);
    let id = open(&cache, &["a"], 0);
    cache.begin(request(id, INITIAL_EPOCH, vec![wanted("b", 0)]), 0).expect("full");
    assert_eq!(cache.usage().0, 0, "the new one begins with its response");
    let id = open(&cache, &["a"], 0);
    let emptied = Request { forgotten: vec![(topic("a"), 0)], ..request(id, 1, vec![]) };
    let fetch = cache.begin(emptied, 0).expect("in step");
    assert!(fetch.wanted().is_empty());
    assert_eq!(cache.usage(), (0, 0, 0));
}

#[test]
fn epochs_wrap_to_one() {
    assert_eq!(following_epoch(0), 1);
    assert_eq!(following_epoch(i32::MAX), 1);
    assert_eq!(following_epoch(FINAL_EPOCH), FINAL_EPOCH);
}

#[test]
fn a_full_cache_keeps_young_sessions_and_evicts_unused_then_cheap_ones() {
    let cache = SessionCache::new(2);
    let small = open(&cache, &["a"], 0);
    let large = open(&cache, &["a", "b", "c"], 10);
    assert_eq!(open(&cache, &["a", "b"], 20), NO_SESSION, "both are young");

    // Both are in use and old: the one with fewer partitions gives way, but not to a smaller one.
    cache.begin(request(small, 1, vec![]), EVICTION_MS + 100).expect("in step");
    cache.begin(request(large, 1, vec![]), EVICTION_MS + 100).expect("in step");
    let newcomer = open(&cache, &["a", "b"], EVICTION_MS + 200);
    assert_ne!(newcomer, NO_SESSION);
    let refusal = cache.begin(request(small, 2, vec![]), EVICTION_MS + 200);
    assert_eq!(refusal.expect_err("evicted"), SessionError::NotFound);
    assert_eq!(open(&cache, &["a", "b"], EVICTION_MS + 300), NO_SESSION, "worth less than both");

    // Whoever was silent for the eviction time gives way to anyone.
    assert_ne!(open(&cache, &["a"], 3 * EVICTION_MS), NO_SESSION);
    assert_eq!(cache.usage().2, 2);
}

#[test]
fn followers_push_out_consumers_but_not_the_reverse() {
    let cache = SessionCache::new(1);
    open(&cache, &["a", "b", "c"], 0);
    let follower =
        Request { from_follower: true, ..request(0, INITIAL_EPOCH, vec![wanted("a", 0)]) };
    let fetch = cache.begin(follower, 10).expect("full");
    let id = cache.finish(&fetch, &[QUIET], 10, || 99).expect("full").session_id;
    assert_eq!(id, 99);
    assert_eq!(open(&cache, &["a", "b"], 20), NO_SESSION);
}

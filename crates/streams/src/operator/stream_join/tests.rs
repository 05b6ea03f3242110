//! Joins whose events do not fit into memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::Headers;
use crate::runtime::{Globals, Place, RawRecord, Task, TaskId};
use crate::state::disk::{Keeping, StateDirectory};
use crate::state::{Backend, StoreType};
use crate::topology::Plan;
use crate::{JoinWindows, Topology};

/// What a thread gives its stores for what waits for a commit.
const UNCOMMITTED_MAX: usize = 256 << 10;
/// Besides that the first events of those that wait, and what one record adds to what waits for a commit.
const MEMORY_MAX: usize = UNCOMMITTED_MAX + (512 << 10) + (16 << 10);
const WINDOW_MS: i64 = 600_000;

fn plan() -> Arc<Plan> {
    let app = Topology::new("app");
    let left = app.stream::<String, String>("left");
    let right = app.stream::<String, String>("right");
    left.outer_join_within(&right, JoinWindows::of_ms(WINDOW_MS, 0), |left, right| {
        format!("{}{}", left.map_or("", |left| &left[..6]), right.map_or("", |right| &right[..6]))
    })
    .to("out");
    app.build().expect("a valid topology")
}

/// A task, with what its driver counts.
struct Driven {
    task: Task,
    offset: i64,
    results: Vec<Bytes>,
    most: usize,
    written: usize,
}

impl Driven {
    fn new(plan: &Plan, state: Option<&StateDirectory>) -> Self {
        let id = TaskId { subtopology: 0, partition: 0 };
        let globals = Globals::new(plan);
        let claim = state.map(|state| state.try_claim(id).expect("nobody else has it"));
        let place = Place { claim, default: StoreType::Disk, globals: &globals };
        let task = Task::open(plan, id, place).expect("a working disk");
        Self { task, offset: 0, results: Vec::new(), most: 0, written: 0 }
    }

    fn process(&mut self, topic: &str, timestamp: i64, key: &str, value: &str) {
        self.offset += 1;
        self.task.add(RawRecord {
            topic: Arc::from(topic),
            partition: 0,
            offset: self.offset,
            timestamp,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Headers::default(),
        });
        assert!(self.task.process(timestamp).expect("a working task"));
        for outgoing in self.task.take_outgoing() {
            match &*outgoing.topic.name {
                "out" => self.results.extend(outgoing.value),
                _ => self.written += outgoing.value.map_or(0, |value| value.len()),
            }
        }
        let uncommitted = self.task.uncommitted_bytes();
        self.most = self.most.max(self.task.cached_bytes() + uncommitted);
        // As threads do.
        if uncommitted > UNCOMMITTED_MAX {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.task.commit().expect("a working task");
        self.task.committed();
        let mut keeping = Keeping::default();
        self.task.keep_in(&mut keeping, 0);
        keeping.write().expect("a working disk");
        self.task.kept().expect("a working disk");
    }

    /// The rows that stores have on disk once everything is merged.
    fn entries(&mut self, stores: &BTreeSet<String>) -> Vec<usize> {
        let entries = stores.iter().map(|name| {
            let store = self.task.store(name).expect("a store of the task");
            let backend = store.backend().and_then(Backend::disk).expect("on disk");
            backend.merge();
            backend.entries().expect("a working disk")
        });
        entries.collect()
    }
}

#[test]
fn memory_is_bounded_while_events_of_a_join_wait_and_the_disk_when_they_have_expired() {
    const EVENTS: i64 = 3_000;
    let directory = tempfile::tempdir().expect("a directory");
    let plan = plan();
    let state = StateDirectory::open(directory.path(), &plan, 4 << 20).expect("a directory");
    let (mut disk, mut memory) = (Driven::new(&plan, Some(&state)), Driven::new(&plan, None));
    let value = |number: i64| format!("{number:06}{}", "x".repeat(640));
    let mut both = |topic: &str, at: i64, key: &str, value: &str| {
        memory.process(topic, at, key, value);
        disk.process(topic, at, key, value);
    };
    // A window full of events that come alone, then partners for some of them from both sides.
    for number in 0..EVENTS {
        let topic = if number % 2 == 0 { "left" } else { "right" };
        both(topic, number * 100, &format!("key-{number}"), &value(number));
    }
    for number in (0..EVENTS).step_by(5) {
        let topic = if number % 2 == 0 { "right" } else { "left" };
        both(topic, EVENTS * 100 + number, &format!("key-{number}"), &value(EVENTS + number));
    }
    assert_eq!(memory.results.len(), EVENTS as usize / 5);
    assert_eq!(memory.results, disk.results);
    assert!(disk.written > 4 * MEMORY_MAX, "{} bytes were written", disk.written);
    assert!(disk.most < MEMORY_MAX, "{} bytes in memory", disk.most);
    disk.commit();
    let stores = &plan.subtopologies()[0].stores;
    let entries = disk.entries(stores);
    let waiting = EVENTS as usize * 4 / 5;
    assert!(entries.iter().all(|entries| *entries >= waiting / 2), "{entries:?}");
    assert!(entries.contains(&waiting), "{entries:?}");

    // Nobody comes for the others. They are sent, all of them, and everything leaves the disk but the newest.
    for number in 1..=8 {
        for topic in ["left", "right"] {
            memory.process(topic, number * WINDOW_MS, "end", &value(number));
            disk.process(topic, number * WINDOW_MS, "end", &value(number));
        }
        disk.commit();
    }
    assert_eq!(memory.results, disk.results);
    let ends = disk.results.iter().filter(|result| result.len() == 12).count();
    assert_eq!(disk.results.len() - ends, waiting);
    let entries = disk.entries(stores);
    assert!(entries.iter().all(|entries| *entries < 10), "{entries:?}");
}

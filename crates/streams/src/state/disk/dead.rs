//! What is dead in the database: rows of windows and sessions whose time is over, which nobody is shown any more.
//!
//! They leave when the tables that they are in are merged, or with a table in which there is nothing else: that takes
//! neither reading nor writing, where removing them one by one costs as much as writing them did. Nothing of this is
//! kept: a store that is opened says anew what is dead.

use std::collections::{BTreeMap, HashMap};
use std::panic::RefUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use parking_lot::Mutex;

/// Dead spans of keys, as they stand in the database, by keyspace.
#[derive(Default)]
pub(super) struct Dead {
    spans: Mutex<HashMap<String, Spans>>,
}

/// Where spans end, by partition and where they begin.
type Spans = BTreeMap<u32, BTreeMap<Bytes, Bytes>>;

impl Dead {
    /// Lets everything be dead within `from..to`, in place of a span that begins there, too.
    pub(super) fn add(&self, keyspace: &str, partition: u32, from: Bytes, to: Bytes) {
        let mut spans = self.spans.lock();
        let of_keyspace = spans.entry(keyspace.to_owned()).or_default();
        of_keyspace.entry(partition).or_default().insert(from, to);
    }

    /// Forgets what is dead of a partition, which begins anew.
    pub(super) fn forget(&self, keyspace: &str, partition: u32) {
        if let Some(of_keyspace) = self.spans.lock().get_mut(keyspace) {
            of_keyspace.remove(&partition);
        }
    }

    /// Has tables of a keyspace merged without what is dead.
    pub(super) fn filters_of(self: &Arc<Self>, keyspace: &str) -> Arc<dyn Factory> {
        Arc::new(Filters { dead: self.clone(), keyspace: keyspace.to_owned() })
    }
}

/// The filters of a keyspace's merges.
struct Filters {
    dead: Arc<Dead>,
    keyspace: String,
}

// Of a lock that a panic leaves nothing behind in.
impl RefUnwindSafe for Filters {}

impl Factory for Filters {
    fn name(&self) -> &str {
        "dead rows"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let spans = self.dead.spans.lock();
        let of_keyspace = spans.get(&self.keyspace).into_iter().flat_map(BTreeMap::values);
        // A partition's spans come in order, and partitions too.
        let each = of_keyspace.flatten().map(|(from, to)| (from.clone(), to.clone()));
        Box::new(Filter { spans: each.collect(), next: 0 })
    }
}

/// The filter of one merge, whose rows come in the order of their keys.
struct Filter {
    spans: Vec<(Bytes, Bytes)>,
    /// The first span that does not end before the row at hand.
    next: usize,
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let key = item.key();
        while self.spans.get(self.next).is_some_and(|(_, to)| to[..] <= key[..]) {
            self.next += 1;
        }
        let is_dead = self.spans.get(self.next).is_some_and(|(from, _)| from[..] <= key[..]);
        // Older versions that lie deeper are as dead.
        Ok(if is_dead { Verdict::Destroy } else { Verdict::Keep })
    }
}

//! How a join of two streams keeps the events that may still find a partner.

use std::collections::BTreeMap;

use crate::state::StoreType;

/// The stores of a join of two streams: their names, their changelogs, where they are. How long events are kept follows
/// from the window.
///
/// ```
/// use fleuve_streams::{JoinWindows, StreamJoined, Topology};
///
/// let app = Topology::new("shop").explicit_names();
/// let orders = app.stream::<String, String>("orders");
/// let payments = app.stream::<String, i64>("payments");
/// let (windows, kept) = (JoinWindows::of_ms(60_000, 0), StreamJoined::default().store_name("paid"));
/// orders
///     .left_join_within_with(&payments, windows, kept, |id, order, paid| format!("{id} {order} {paid:?}"))
///     .to("paid");
/// assert!(app.describe().unwrap().contains("paid-left-shared-join-store"));
/// ```
#[derive(Clone, Debug)]
pub struct StreamJoined {
    store: Option<String>,
    this_store: Option<String>,
    other_store: Option<String>,
    pub(super) logged: bool,
    pub(super) changelog_config: BTreeMap<String, String>,
    pub(super) store_type: Option<StoreType>,
}

impl Default for StreamJoined {
    fn default() -> Self {
        Self {
            store: None,
            this_store: None,
            other_store: None,
            logged: true,
            changelog_config: BTreeMap::new(),
            store_type: None,
        }
    }
}

impl StreamJoined {
    /// Lets the names of all stores, and so of their changelogs, begin with this. Generated names change when operators
    /// are added before the join.
    pub fn store_name(mut self, name: &str) -> Self {
        self.store = Some(name.to_owned());
        self
    }

    /// Names the store of this stream's events just so, as a store supplier of Kafka Streams does.
    pub fn this_store(mut self, name: &str) -> Self {
        self.this_store = Some(name.to_owned());
        self
    }

    /// Names the store of the other stream's events just so.
    pub fn other_store(mut self, name: &str) -> Self {
        self.other_store = Some(name.to_owned());
        self
    }

    /// Writes no changelogs: events that wait for a partner are lost with the task.
    pub fn without_logging(mut self) -> Self {
        self.logged = false;
        self
    }

    /// Sets a topic setting of the changelogs.
    pub fn changelog_config(mut self, key: &str, value: &str) -> Self {
        self.changelog_config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Keeps the events in memory or on disk, whatever the application's settings say.
    pub fn store_type(mut self, store_type: StoreType) -> Self {
        self.store_type = Some(store_type);
        self
    }

    /// The name of this stream's store, unless it is generated.
    pub(super) fn left(&self, suffix: &str) -> Option<String> {
        self.this_store.clone().or_else(|| self.suffixed(suffix))
    }

    /// The name of the other stream's store, unless it is generated.
    pub(super) fn right(&self, suffix: &str) -> Option<String> {
        self.other_store.clone().or_else(|| self.suffixed(suffix))
    }

    /// The name of the store of events without a partner, unless it is generated.
    pub(super) fn unmatched(&self, suffix: &str) -> Option<String> {
        let base = self.this_store.as_ref().or(self.store.as_ref())?;
        Some(format!("{base}{suffix}-store"))
    }

    fn suffixed(&self, suffix: &str) -> Option<String> {
        self.store.as_ref().map(|store| format!("{store}{suffix}-store"))
    }
}

//! Joins of two streams within a window of event time.

use std::any::{Any, TypeId};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::windowed::{WindowSpec, add_window_store};
use super::{JoinWindows, KStream, StreamJoined, node, timed_node};
use crate::operator::self_join::SelfJoin;
use crate::operator::stateless::PassThrough;
use crate::operator::stream_join::{Reach, StreamJoin, WindowWrite};
use crate::record::Data;
use crate::serde::{SerdeOf, StreamType};
use crate::state::{AnyStore, Either, OuterStore, OuterStoreSettings};
use crate::topology::{
    ChangelogKind, Graph, Kind, NodeBuilder, NodeId, StoreSpec, StreamJoinNodes,
};

/// Puts two events together. At least one of them is there.
type Joiner<K, V, W, R> = Arc<dyn Fn(&K, Option<&V>, Option<&W>) -> R + Send + Sync>;

/// Which streams' events have a result without a partner.
#[derive(Clone, Copy)]
struct Outer {
    left: bool,
    right: bool,
}

impl<K: StreamType, V: StreamType> KStream<K, V> {
    /// Pairs of events with the same key, at most a window apart. The pair has the later event's time.
    pub fn join_within<W: StreamType, R: Data>(
        &self,
        other: &KStream<K, W>,
        windows: JoinWindows,
        joiner: impl Fn(&V, &W) -> R + Send + Sync + 'static,
    ) -> KStream<K, R> {
        let joiner = move |_: &K, left: &V, right: &W| joiner(left, right);
        self.join_within_with(other, windows, StreamJoined::default(), joiner)
    }

    /// [`Self::join_within`] with stores of your own, and a look at the key.
    pub fn join_within_with<W: StreamType, R: Data>(
        &self,
        other: &KStream<K, W>,
        windows: JoinWindows,
        joined: StreamJoined,
        joiner: impl Fn(&K, &V, &W) -> R + Send + Sync + 'static,
    ) -> KStream<K, R> {
        let joiner: Joiner<K, V, W, R> = Arc::new(move |key, left, right| match (left, right) {
            (Some(left), Some(right)) => joiner(key, left, right),
            _ => unreachable!("an inner join joins two values"),
        });
        let outer = Outer { left: false, right: false };
        self.join_streams(other, windows, joined, outer, joiner)
    }

    /// [`Self::join_within`], and events of this stream that found no partner, once their window has closed.
    pub fn left_join_within<W: StreamType, R: Data>(
        &self,
        other: &KStream<K, W>,
        windows: JoinWindows,
        joiner: impl Fn(&V, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KStream<K, R> {
        let joiner = move |_: &K, left: &V, right: Option<&W>| joiner(left, right);
        self.left_join_within_with(other, windows, StreamJoined::default(), joiner)
    }

    /// [`Self::left_join_within`] with stores of your own, and a look at the key.
    pub fn left_join_within_with<W: StreamType, R: Data>(
        &self,
        other: &KStream<K, W>,
        windows: JoinWindows,
        joined: StreamJoined,
        joiner: impl Fn(&K, &V, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KStream<K, R> {
        let joiner: Joiner<K, V, W, R> = Arc::new(move |key, left, right| match left {
            Some(left) => joiner(key, left, right),
            None => unreachable!("a left join has a left value"),
        });
        let outer = Outer { left: true, right: false };
        self.join_streams(other, windows, joined, outer, joiner)
    }

    /// [`Self::join_within`], and events of either stream that found no partner, once their window has closed.
    pub fn outer_join_within<W: StreamType, R: Data>(
        &self,
        other: &KStream<K, W>,
        windows: JoinWindows,
        joiner: impl Fn(Option<&V>, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KStream<K, R> {
        let joiner = move |_: &K, left: Option<&V>, right: Option<&W>| joiner(left, right);
        self.outer_join_within_with(other, windows, StreamJoined::default(), joiner)
    }

    /// [`Self::outer_join_within`] with stores of your own, and a look at the key.
    pub fn outer_join_within_with<W: StreamType, R: Data>(
        &self,
        other: &KStream<K, W>,
        windows: JoinWindows,
        joined: StreamJoined,
        joiner: impl Fn(&K, Option<&V>, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KStream<K, R> {
        let outer = Outer { left: true, right: true };
        self.join_streams(other, windows, joined, outer, Arc::new(joiner))
    }

    fn join_streams<W: StreamType, R: Data>(
        &self,
        other: &KStream<K, W>,
        windows: JoinWindows,
        joined: StreamJoined,
        outer: Outer,
        joiner: Joiner<K, V, W, R>,
    ) -> KStream<K, R> {
        let named = self.next_name.clone();
        let this = self.for_join(named.as_deref(), "left");
        let other = other.for_join(named.as_deref(), "right");
        let sources: BTreeSet<_> = this.sources.union(&other.sources).copied().collect();
        let key = this.key.clone().or_else(|| other.key.clone()).unwrap_or_else(SerdeOf::usual);
        let left_value = this.value.clone().unwrap_or_else(SerdeOf::usual);
        let right_value = other.value.clone().unwrap_or_else(SerdeOf::usual);

        let mut graph = self.graph.lock();
        graph.copartition(sources.clone());
        let names = Names::new(&mut graph, named.as_deref(), &joined, outer);
        let written_left = graph.add_node(
            names.windowed_left.clone(),
            Kind::Processor,
            &[this.node],
            window_write::<K, V>(&names.left_store),
        );
        let written_right = graph.add_node(
            names.windowed_right.clone(),
            Kind::Processor,
            &[other.node],
            window_write::<K, W>(&names.right_store),
        );
        let unmatched = outer.left.then(|| names.unmatched_store.clone());
        let with_itself = self_join::<K, V, W, R>(&names.left_store, windows, &joiner);
        let alone = {
            let joiner = joiner.clone();
            move |key: &K, event: &Either<V, W>| match event {
                Either::Left(left) => joiner(key, Some(left), None),
                Either::Right(right) => joiner(key, None, Some(right)),
            }
        };

        let (join, both, opposite, store) =
            (joiner.clone(), alone.clone(), names.right_store.clone(), unmatched.clone());
        let left = graph.add_node(
            names.join_left.clone(),
            Kind::Processor,
            &[written_left],
            timed_node::<K, V, _>(move |assembly, id| {
                let (join, both) = (join.clone(), both.clone());
                StreamJoin::<K, V, W, V, W, R> {
                    node: assembly.name(id),
                    reach: Reach { before_ms: windows.before_ms, after_ms: windows.after_ms },
                    windows,
                    outer: outer.left,
                    is_left: true,
                    opposite: assembly.store(&opposite),
                    unmatched: store.as_deref().map(|store| assembly.store(store)),
                    wrap: Either::Left,
                    join: Box::new(move |key, this, that| join(key, Some(this), that)),
                    alone: Box::new(both),
                    children: assembly.children(id),
                }
            }),
        );
        let (opposite, store) = (names.left_store.clone(), unmatched.clone());
        let right = graph.add_node(
            names.join_right.clone(),
            Kind::Processor,
            &[written_right],
            timed_node::<K, W, _>(move |assembly, id| {
                let (join, both) = (joiner.clone(), alone.clone());
                StreamJoin::<K, W, V, V, W, R> {
                    node: assembly.name(id),
                    reach: Reach { before_ms: windows.after_ms, after_ms: windows.before_ms },
                    windows,
                    outer: outer.right,
                    is_left: false,
                    opposite: assembly.store(&opposite),
                    unmatched: store.as_deref().map(|store| assembly.store(store)),
                    wrap: Either::Right,
                    join: Box::new(move |key, this, that| join(key, that, Some(this))),
                    alone: Box::new(both),
                    children: assembly.children(id),
                }
            }),
        );
        let merge = graph.add_node(
            names.merge.clone(),
            Kind::Processor,
            &[left, right],
            node::<K, R, _>(|assembly, id| PassThrough { children: assembly.children(id) }),
        );
        add_window_store(
            &mut graph,
            &[written_left, right],
            join_store(&names.left_store, windows, &joined, key.clone(), left_value.clone()),
        );
        add_window_store(
            &mut graph,
            &[written_right, left],
            join_store(&names.right_store, windows, &joined, key.clone(), right_value.clone()),
        );
        if let Some(store) = unmatched {
            let settings = OuterStoreSettings {
                name: store.clone(),
                topic: format!("{}-{store}-changelog", graph.application),
                key: key.clone(),
                left: left_value,
                right: right_value,
            };
            add_outer_store(&mut graph, store.clone(), &joined, settings);
            graph.connect(left, &store);
            graph.connect(right, &store);
        }
        if let Some(build) = with_itself {
            let mut other_stores = vec![names.right_store.clone()];
            other_stores.extend(outer.left.then(|| names.unmatched_store.clone()));
            graph.stream_joins.push(StreamJoinNodes {
                written: [written_left, written_right],
                joined: [left, right],
                merge,
                left_store: names.left_store.clone(),
                other_stores,
                build,
            });
        }
        drop(graph);
        KStream {
            graph: self.graph.clone(),
            node: merge,
            name: names.merge,
            key: Some(key),
            value: None,
            sources,
            repartition: false,
            next_name: None,
        }
    }

    /// The stream with its records where their keys belong.
    fn for_join(&self, named: Option<&str>, side: &str) -> Self {
        if !self.repartition {
            return self.clone();
        }
        let prefix = named.map_or_else(|| self.name.clone(), |name| format!("{name}-{side}"));
        self.repartitioned_for_join(&prefix)
    }
}

/// Names of a join's nodes and stores.
struct Names {
    windowed_left: String,
    windowed_right: String,
    join_left: String,
    join_right: String,
    merge: String,
    left_store: String,
    right_store: String,
    unmatched_store: String,
}

impl Names {
    fn new(graph: &mut Graph, named: Option<&str>, joined: &StreamJoined, outer: Outer) -> Self {
        let mut or = |suffix: &str, prefix: &str| graph.suffixed(named, suffix, prefix);
        let windowed_left = or("-this-windowed", "KSTREAM-WINDOWED-");
        let windowed_right = or("-other-windowed", "KSTREAM-WINDOWED-");
        // These two numbers are used up in any case: they name the stores.
        let left =
            graph.next_name(if outer.right { "KSTREAM-OUTERTHIS-" } else { "KSTREAM-JOINTHIS-" });
        let right =
            graph.next_name(if outer.left { "KSTREAM-OUTEROTHER-" } else { "KSTREAM-JOINOTHER-" });
        let this_suffix = if outer.right { "-outer-this-join" } else { "-this-join" };
        let other_suffix = if outer.left { "-outer-other-join" } else { "-other-join" };
        let unmatched_suffix = if outer.right { "-outer-shared-join" } else { "-left-shared-join" };
        let unmatched_store = joined.unmatched(unmatched_suffix).unwrap_or_else(|| {
            let number = left.rsplit_once('-').map_or("", |(_, number)| number);
            format!("{}KSTREAM-OUTERSHARED-{number}-store", graph.path())
        });
        Self {
            windowed_left,
            windowed_right,
            join_left: named.map_or_else(|| left.clone(), |name| format!("{name}{this_suffix}")),
            join_right: named.map_or_else(|| right.clone(), |name| format!("{name}{other_suffix}")),
            merge: graph.suffixed(named, "-merge", "KSTREAM-MERGE-"),
            left_store: joined.left(this_suffix).unwrap_or_else(|| format!("{left}-store")),
            right_store: joined.right(other_suffix).unwrap_or_else(|| format!("{right}-store")),
            unmatched_store,
        }
    }
}

fn window_write<K: StreamType, V: StreamType>(store: &str) -> NodeBuilder {
    let store = store.to_owned();
    node::<K, V, _>(move |assembly, id| WindowWrite::<K, V>::new(assembly, id, &store))
}

/// The nodes of the join if both streams are one, which only streams of the same type can be.
fn self_join<K: StreamType, V: StreamType, W: StreamType, R: Data>(
    store: &str,
    windows: JoinWindows,
    joiner: &Joiner<K, V, W, R>,
) -> Option<[NodeBuilder; 2]> {
    if TypeId::of::<V>() != TypeId::of::<W>() {
        return None;
    }
    let write = store.to_owned();
    let write = node::<K, V, _>(move |assembly, id| {
        WindowWrite::<K, V>::new(assembly, id, &write).forwarding_first()
    });
    let (store, joiner) = (store.to_owned(), joiner.clone());
    let join = node::<K, V, _>(move |assembly, id: NodeId| {
        let joiner = joiner.clone();
        SelfJoin::<K, V, R> {
            node: assembly.name(id),
            reach: Reach { before_ms: windows.before_ms, after_ms: windows.after_ms },
            retention_ms: windows.size_ms() + windows.grace_ms,
            slot: assembly.store(&store),
            observed_ms: -1,
            join: Box::new(move |key, left, right| {
                let right: &dyn Any = right;
                joiner(key, Some(left), right.downcast_ref::<W>())
            }),
            children: assembly.children(id),
        }
    });
    Some([write, join])
}

fn join_store<K, V>(
    name: &str,
    windows: JoinWindows,
    joined: &StreamJoined,
    key: SerdeOf<K>,
    value: SerdeOf<V>,
) -> WindowSpec<K, V> {
    WindowSpec {
        store: name.to_owned(),
        key,
        value,
        size_ms: windows.size_ms(),
        retention_ms: windows.size_ms() + windows.grace_ms,
        duplicates: true,
        by_key: true,
        logged: joined.logged,
        cached: false,
        on_close: false,
        changelog_config: joined.changelog_config.clone(),
        store_type: joined.store_type,
    }
}

fn add_outer_store<K: Data, V: Data, W: Data>(
    graph: &mut Graph,
    name: String,
    joined: &StreamJoined,
    settings: OuterStoreSettings<K, V, W>,
) {
    let settings = Arc::new(settings);
    graph.add_store(StoreSpec {
        name,
        build: Arc::new(move |_, _| {
            let store: Box<dyn AnyStore> = Box::new(OuterStore::new(settings.clone()));
            store
        }),
        logged: joined.logged,
        cached: false,
        changelog: ChangelogKind::KeyValue,
        changelog_config: joined.changelog_config.clone(),
        source_topic: None,
        store_type: joined.store_type,
        global: false,
    });
}

//! Joins of two tables by key.

use std::sync::Arc;

use super::ktable::{KTable, TableView};
use super::{Closure, Materialized, node};
use crate::operator::table::Getter;
use crate::operator::table_join::{JoinGetter, JoinMerge, JoinSide, Keeps, Other};
use crate::record::{Change, Data};
use crate::runtime::Assembly;
use crate::serde::{SerdeOf, StreamType};
use crate::topology::{Graph, Kind, NodeId};

/// Puts the two sides together. At least one of them is there.
type Joiner<V, W, R> = Arc<dyn Fn(Option<&V>, Option<&W>) -> R + Send + Sync>;

impl<K: StreamType, V: Data> KTable<K, V> {
    /// Rows for keys that both tables have.
    pub fn join<W: Data, R: Data>(
        &self,
        other: &KTable<K, W>,
        joiner: impl Fn(&V, &W) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        let joiner = both(joiner);
        self.joined(other, joiner, (false, false), None)
    }

    /// [`Self::join`] kept in a store.
    pub fn join_with<W: Data, R: StreamType>(
        &self,
        other: &KTable<K, W>,
        materialized: Materialized<K, R>,
        joiner: impl Fn(&V, &W) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        let joiner = both(joiner);
        self.joined(other, joiner, (false, false), Some(self.kept(materialized)))
    }

    /// Rows for every key of this table.
    pub fn left_join<W: Data, R: Data>(
        &self,
        other: &KTable<K, W>,
        joiner: impl Fn(&V, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        let joiner = left(joiner);
        self.joined(other, joiner, (true, false), None)
    }

    /// [`Self::left_join`] kept in a store.
    pub fn left_join_with<W: Data, R: StreamType>(
        &self,
        other: &KTable<K, W>,
        materialized: Materialized<K, R>,
        joiner: impl Fn(&V, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        let joiner = left(joiner);
        self.joined(other, joiner, (true, false), Some(self.kept(materialized)))
    }

    /// Rows for every key that one of the tables has.
    pub fn outer_join<W: Data, R: Data>(
        &self,
        other: &KTable<K, W>,
        joiner: impl Fn(Option<&V>, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        self.joined(other, Arc::new(joiner), (true, true), None)
    }

    /// [`Self::outer_join`] kept in a store.
    pub fn outer_join_with<W: Data, R: StreamType>(
        &self,
        other: &KTable<K, W>,
        materialized: Materialized<K, R>,
        joiner: impl Fn(Option<&V>, Option<&W>) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        let kept = Some(self.kept(materialized));
        self.joined(other, Arc::new(joiner), (true, true), kept)
    }

    fn kept<R: StreamType>(&self, materialized: Materialized<K, R>) -> Kept<K, R> {
        let store = match &materialized.name {
            Some(name) => name.clone(),
            None => self.graph.lock().next_store_name("KTABLE-MERGE-"),
        };
        Kept {
            store,
            key: materialized
                .key
                .clone()
                .or_else(|| self.key.clone())
                .unwrap_or_else(SerdeOf::usual),
            value: materialized.value.clone().unwrap_or_else(SerdeOf::usual),
            materialized,
        }
    }

    fn joined<W: Data, R: Data>(
        &self,
        other: &KTable<K, W>,
        joiner: Joiner<V, W, R>,
        (left_outer, right_outer): (bool, bool),
        kept: Option<Kept<K, R>>,
    ) -> KTable<K, R> {
        let mut graph = self.graph.lock();
        let named = self.next_name.as_deref();
        let merge_name = graph.name_or(named, "KTABLE-MERGE-");
        let sources = self.sources.union(&other.sources).copied().collect();
        graph.copartition(std::collections::BTreeSet::clone(&sources));
        if left_outer {
            self.view.enable_old(&mut graph, true);
        }
        if right_outer {
            other.view.enable_old(&mut graph, true);
        }
        let this_name = graph.suffixed(named, "-join-this", "KTABLE-JOINTHIS-");
        let other_name = graph.suffixed(named, "-join-other", "KTABLE-JOINOTHER-");
        let (left_view, right_view) = (self.view.clone(), other.view.clone());
        let right_stores = right_view.stores(&mut graph);
        let left_stores = left_view.stores(&mut graph);

        let join = joiner.clone();
        let getter = right_view.clone();
        let this = graph.add_node(
            this_name,
            Kind::Processor,
            &[self.node],
            node::<K, Change<V>, _>(move |assembly, id| JoinSide::<K, V, W, R> {
                node: assembly.name(id),
                other: Other(getter.getter(assembly)),
                keeps: Keeps { this: left_outer, other: right_outer },
                join: {
                    let join = join.clone();
                    Box::new(move |this, other| join(this, other))
                },
                sends_old: assembly.node(id).sends_old,
                children: assembly.children(id),
            }),
        );
        let join = joiner.clone();
        let getter = left_view.clone();
        let that = graph.add_node(
            other_name,
            Kind::Processor,
            &[other.node],
            node::<K, Change<W>, _>(move |assembly, id| JoinSide::<K, W, V, R> {
                node: assembly.name(id),
                other: Other(getter.getter(assembly)),
                keeps: Keeps { this: right_outer, other: left_outer },
                join: {
                    let join = join.clone();
                    Box::new(move |this, other| join(other, this))
                },
                sends_old: assembly.node(id).sends_old,
                children: assembly.children(id),
            }),
        );
        let merge = graph.add_node(
            merge_name,
            Kind::Processor,
            &[this, that],
            node::<K, Change<R>, _>(|assembly, id| JoinMerge::new(assembly, id)),
        );
        for store in right_stores {
            graph.connect(this, &store);
        }
        for store in left_stores {
            graph.connect(that, &store);
        }
        let (key, value) = match &kept {
            Some(kept) => {
                kept.materialized.add_to(
                    &mut graph,
                    merge,
                    kept.store.clone(),
                    kept.key.clone(),
                    kept.value.clone(),
                );
                (Some(kept.key.clone()), Some(kept.value.clone()))
            }
            None => (self.key.clone(), None),
        };
        let view: Arc<dyn TableView<K, R>> = Arc::new(JoinedTable {
            sides: [this, that],
            merge,
            left: left_view,
            right: right_view,
            left_outer,
            right_outer,
            join: Closure::new(joiner),
        });
        drop(graph);
        KTable {
            graph: self.graph.clone(),
            node: merge,
            key,
            value,
            sources,
            view,
            next_name: None,
        }
    }
}

/// The store of a join's result.
struct Kept<K, R> {
    store: String,
    key: SerdeOf<K>,
    value: SerdeOf<R>,
    materialized: Materialized<K, R>,
}

/// The result of a join, looked up in its store, or computed from both sides.
struct JoinedTable<K, V, W, R> {
    sides: [NodeId; 2],
    merge: NodeId,
    left: Arc<dyn TableView<K, V>>,
    right: Arc<dyn TableView<K, W>>,
    left_outer: bool,
    right_outer: bool,
    join: Closure<Joiner<V, W, R>>,
}

impl<K: Data, V: Data, W: Data, R: Data> TableView<K, R> for JoinedTable<K, V, W, R> {
    fn enable_old(&self, graph: &mut Graph, _: bool) -> bool {
        self.left.enable_old(graph, true);
        self.right.enable_old(graph, true);
        for node in self.sides.into_iter().chain([self.merge]) {
            graph.nodes[node].sends_old = true;
        }
        true
    }

    fn stores(&self, graph: &mut Graph) -> Vec<String> {
        if let Some(store) = &graph.nodes[self.merge].table_store {
            return vec![store.clone()];
        }
        let mut stores = self.left.stores(graph);
        stores.extend(self.right.stores(graph));
        stores
    }

    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<K, R>> {
        if let Some(store) = assembly.node(self.merge).table_store.clone() {
            return Box::new(crate::operator::table::StoreGetter { slot: assembly.store(&store) });
        }
        Box::new(JoinGetter {
            left: self.left.getter(assembly),
            right: self.right.getter(assembly),
            left_outer: self.left_outer,
            right_outer: self.right_outer,
            join: self.join.get(),
        })
    }
}

fn both<V: 'static, W: 'static, R: 'static>(
    joiner: impl Fn(&V, &W) -> R + Send + Sync + 'static,
) -> Joiner<V, W, R> {
    Arc::new(move |left, right| match (left, right) {
        (Some(left), Some(right)) => joiner(left, right),
        _ => unreachable!("an inner join joins two values"),
    })
}

fn left<V: 'static, W: 'static, R: 'static>(
    joiner: impl Fn(&V, Option<&W>) -> R + Send + Sync + 'static,
) -> Joiner<V, W, R> {
    Arc::new(move |left, right| match left {
        Some(left) => joiner(left, right),
        None => unreachable!("a left join has a left value"),
    })
}

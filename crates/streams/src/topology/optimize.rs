//! Rewrites a finished graph into a cheaper one, by the rules of Kafka Streams' `topology.optimization`.
//!
//! - `reuse.ktable.source.topics`: a table read from a topic is restored from that topic, and has no changelog.
//! - `merge.repartition.topics`: what follows one change of keys shares one repartition, right behind that change.
//! - `single.store.self.join`: a stream joined with itself is kept once.
//!
//! Names and numbers are those that Kafka Streams gives: a program of its that was optimized can be taken over. A
//! repartition moves up only where nothing between it and the change of keys alters types, and no other stream comes in
//! on the way. Node ids stay what they were, because running nodes know each other by them; nodes that are no longer
//! needed are left out of [`Rewritten::order`].

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};

use super::{Copartition, Graph, Node, NodeBuilder, NodeId, StoreSpec};
use crate::error::TopologyError;

/// A rule of Kafka Streams' `topology.optimization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopologyOptimization {
    /// `reuse.ktable.source.topics`: tables read from topics are restored from those, and need no changelogs. The
    /// topics must be compacted, and their records readable: nothing is left out or given another time on the way back.
    ReuseKTableSourceTopics,
    /// `merge.repartition.topics`: one repartition for all that needs one behind the same change of keys.
    MergeRepartitionTopics,
    /// `single.store.self.join`: one store, instead of two, for a stream that is joined with itself.
    SingleStoreSelfJoin,
}

impl TopologyOptimization {
    /// All rules: Kafka Streams' `all`.
    pub const ALL: [Self; 3] =
        [Self::ReuseKTableSourceTopics, Self::MergeRepartitionTopics, Self::SingleStoreSelfJoin];

    /// The rules that a value of `topology.optimization` names: `all`, `none`, or names with commas between them.
    pub fn parse(text: &str) -> Result<Vec<Self>, TopologyError> {
        match text.trim() {
            "all" => return Ok(Self::ALL.to_vec()),
            "none" => return Ok(Vec::new()),
            _ => {}
        }
        let rules = text.split(',').map(|name| match name.trim() {
            "reuse.ktable.source.topics" => Ok(Self::ReuseKTableSourceTopics),
            "merge.repartition.topics" => Ok(Self::MergeRepartitionTopics),
            "single.store.self.join" => Ok(Self::SingleStoreSelfJoin),
            other => Err(TopologyError::Invalid(format!(
                "topology.optimization: `{other}` is no rule; there are all, none, reuse.ktable.source.topics, \
                 merge.repartition.topics and single.store.self.join"
            ))),
        });
        rules.collect()
    }
}

/// What the optimizer may assume of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it may change values.
    Opaque,
    /// What it sends on is what it got.
    Keeps,
    /// It gives records other keys, and sends this type of pair.
    ChangesKey(TypeId),
    /// It puts streams of this type of pair together.
    Merges(TypeId),
}

/// A repartition that an operator needed, and that may be merged with others.
#[derive(Clone, Debug)]
pub(crate) struct RepartitionNodes {
    pub(crate) filter: NodeId,
    pub(crate) sink: NodeId,
    pub(crate) source: NodeId,
    /// Its topic, undecorated.
    pub(crate) topic: String,
    /// The type of the pairs that go through it.
    pub(crate) types: TypeId,
}

/// A join of two streams that may turn out to be one.
#[derive(Clone)]
pub(crate) struct StreamJoinNodes {
    /// The nodes that write the left and the right store.
    pub(crate) written: [NodeId; 2],
    /// The nodes that look into the other store.
    pub(crate) joined: [NodeId; 2],
    pub(crate) merge: NodeId,
    pub(crate) left_store: String,
    /// The other stores, which a join with itself does not need.
    pub(crate) other_stores: Vec<String>,
    /// The running form of a join with itself: the node that writes, and the one that joins.
    pub(crate) build: [NodeBuilder; 2],
}

/// The parts of a graph after the rules were applied to them.
pub(super) struct Rewritten {
    pub(super) nodes: Vec<Node>,
    pub(super) stores: BTreeMap<String, StoreSpec>,
    pub(super) repartitions: BTreeMap<String, Option<i32>>,
    pub(super) copartitions: Vec<Copartition>,
    /// The nodes that run, parents before their children; it decides the numbers of subtopologies.
    pub(super) order: Vec<NodeId>,
    /// The filters of repartitions, by source.
    filters: BTreeMap<NodeId, NodeId>,
}

/// A repartition that moves, and the node on its way that follows the change of keys: its own filter, if none does.
type Moving = (RepartitionNodes, NodeId);

impl Rewritten {
    /// Applies the program's rules, in Kafka Streams' order.
    pub(super) fn of(graph: &Graph) -> Self {
        let repartitions = &graph.repartition_nodes;
        let mut rewritten = Self {
            nodes: graph.nodes.clone(),
            stores: graph.stores.clone(),
            repartitions: graph.repartitions.clone(),
            copartitions: graph.copartitions.clone(),
            order: (0..graph.nodes.len()).collect(),
            filters: repartitions.iter().map(|nodes| (nodes.source, nodes.filter)).collect(),
        };
        let rules = &graph.optimizations;
        if rules.contains(&TopologyOptimization::ReuseKTableSourceTopics) {
            rewritten.reuse_source_topics();
        }
        if rules.contains(&TopologyOptimization::MergeRepartitionTopics) {
            rewritten.merge_repartitions(repartitions);
        }
        if rules.contains(&TopologyOptimization::SingleStoreSelfJoin) {
            rewritten.join_selves(&graph.stream_joins);
        }
        if !rules.is_empty() {
            rewritten.attach_children();
        }
        rewritten
    }

    fn reuse_source_topics(&mut self) {
        for node in &self.nodes {
            let (Some(topic), Some(store)) = (&node.table_topic, &node.table_store) else {
                continue;
            };
            if let Some(store) = self.stores.get_mut(store) {
                store.logged = false;
                store.source_topic = Some(topic.clone());
            }
        }
    }

    fn merge_repartitions(&mut self, repartitions: &[RepartitionNodes]) {
        let mut moved: BTreeSet<usize> = BTreeSet::new();
        for (changing, behind) in self.changes_of_keys(repartitions) {
            let mut moving: Vec<Moving> = Vec::new();
            for number in behind {
                let repartition = &repartitions[number];
                if moved.contains(&number) {
                    continue;
                }
                if let Some(first) = self.way_up(repartition, changing) {
                    moved.insert(number);
                    moving.push((repartition.clone(), first));
                }
            }
            if !moving.is_empty() {
                self.merge_behind(changing, &moving);
            }
        }
    }

    /// The nodes that change keys, each with the repartitions behind it. Where streams are merged first, it is the
    /// merge that stands for the changes above it.
    fn changes_of_keys(&self, repartitions: &[RepartitionNodes]) -> Vec<(NodeId, Vec<usize>)> {
        let changes_key = |id: NodeId| matches!(self.nodes[id].effect, Effect::ChangesKey(_));
        let mut found: Vec<(NodeId, Vec<usize>)> = (0..self.nodes.len())
            .filter(|id| changes_key(*id))
            .map(|id| (id, Vec::new()))
            .collect();
        for (number, repartition) in repartitions.iter().enumerate() {
            let changes = |id: NodeId| changes_key(id) || self.nodes[id].effect == Effect::Opaque;
            let nearest = self.find_up(repartition.source, &changes);
            let changing = self.find_up(repartition.source, &changes_key);
            if nearest.is_none() || nearest != changing {
                continue;
            }
            if let Some((_, behind)) = found.iter_mut().find(|(id, _)| Some(*id) == changing) {
                behind.push(number);
            }
        }
        let merges =
            (0..self.nodes.len()).filter(|id| matches!(self.nodes[*id].effect, Effect::Merges(_)));
        let mut stand_in: Vec<(NodeId, Vec<usize>)> = Vec::new();
        let mut replaced: BTreeSet<NodeId> = BTreeSet::new();
        for merge in merges {
            let mut all = Vec::new();
            for (changing, behind) in &found {
                let below = behind.iter().all(|number| {
                    let source = repartitions[*number].source;
                    self.find_up(source, &|id| self.above(id).contains(&merge)).is_some()
                });
                let is_above = || self.find_up(merge, &|id| self.above(id).contains(changing));
                if below && is_above().is_some() {
                    all.extend(behind);
                    replaced.insert(*changing);
                }
            }
            stand_in.push((merge, all));
        }
        found.retain(|(changing, _)| !replaced.contains(changing));
        found.extend(stand_in);
        found
    }

    /// The parents of a node, a repartition being one node.
    fn above(&self, id: NodeId) -> &[NodeId] {
        &self.nodes[self.filters.get(&id).copied().unwrap_or(id)].parents
    }

    /// The first node upwards that passes a test, itself included. Of several ways the last one decides, as there.
    fn find_up(&self, id: NodeId, test: &dyn Fn(NodeId) -> bool) -> Option<NodeId> {
        self.find_up_once(id, test, &mut BTreeMap::new())
    }

    fn find_up_once(
        &self,
        id: NodeId,
        test: &dyn Fn(NodeId) -> bool,
        known: &mut BTreeMap<NodeId, Option<NodeId>>,
    ) -> Option<NodeId> {
        if let Some(known) = known.get(&id) {
            return *known;
        }
        let mut found = test(id).then_some(id);
        if found.is_none() {
            for parent in self.above(id) {
                if test(*parent) {
                    found = Some(*parent);
                    break;
                }
                found = self.find_up_once(*parent, test, known);
            }
        }
        known.insert(id, found);
        found
    }

    /// The node on the way from a change of keys to a repartition that follows the change, if the repartition may move
    /// up all the way.
    fn way_up(&self, repartition: &RepartitionNodes, changing: NodeId) -> Option<NodeId> {
        match self.nodes[changing].effect {
            Effect::ChangesKey(types) | Effect::Merges(types) if types == repartition.types => {}
            _ => return None,
        }
        let mut id = repartition.filter;
        loop {
            let [parent] = self.nodes[id].parents[..] else {
                return None;
            };
            if parent == changing {
                return Some(id);
            }
            if self.nodes[parent].effect != Effect::Keeps || self.filters.contains_key(&parent) {
                return None;
            }
            id = parent;
        }
    }

    /// Puts the first repartition right behind the change of keys; what was between follows it, and
    /// what followed the others follows what was before them.
    fn merge_behind(&mut self, changing: NodeId, moving: &[Moving]) {
        let Some((kept, _)) = moving.first() else {
            return;
        };
        // Named after the topic even where that is numbered, as there.
        for (id, role) in [(kept.sink, "sink"), (kept.filter, "filter"), (kept.source, "source")] {
            self.nodes[id].name = format!("{}-{role}", kept.topic);
        }
        let mut gone = BTreeSet::new();
        for (repartition, first) in moving {
            let before = match self.nodes[repartition.filter].parents[..] {
                [parent] if parent != changing => parent,
                _ => kept.source,
            };
            self.replace_parent(repartition.source, before, None);
            if *first != repartition.filter {
                self.replace_parent(changing, kept.source, Some(*first));
            }
            if repartition.source != kept.source {
                gone.extend([repartition.filter, repartition.sink, repartition.source]);
                self.repartitions.remove(&repartition.topic);
                for group in &mut self.copartitions {
                    if group.sources.remove(&repartition.source) {
                        group.sources.insert(kept.source);
                    }
                }
            }
        }
        self.nodes[kept.filter].parents = vec![changing];
        let kept = [kept.filter, kept.sink, kept.source];
        self.order.retain(|id| !gone.contains(id) && !kept.contains(id));
        let place = self.order.iter().position(|id| *id == changing).map_or(0, |place| place + 1);
        self.order.splice(place..place, kept);
    }

    /// Has children of one node follow another one: all, or only the given one.
    fn replace_parent(&mut self, from: NodeId, to: NodeId, only: Option<NodeId>) {
        for (id, node) in self.nodes.iter_mut().enumerate() {
            if only.is_some_and(|only| only != id) {
                continue;
            }
            for parent in node.parents.iter_mut().filter(|parent| **parent == from) {
                *parent = to;
            }
        }
    }

    fn join_selves(&mut self, joins: &[StreamJoinNodes]) {
        for join in joins {
            let [left, right] = join.written;
            if self.nodes[left].parents != self.nodes[right].parents {
                continue;
            }
            let gone = [right, join.joined[0], join.joined[1]];
            self.order.retain(|id| !gone.contains(id));
            for store in &join.other_stores {
                self.stores.remove(store);
            }
            let [write, meet] = join.build.clone();
            self.nodes[left].build = write;
            let merge = &mut self.nodes[join.merge];
            merge.parents = vec![left];
            merge.build = meet;
            merge.stores.insert(join.left_store.clone());
        }
    }

    /// Has every parent know its children, in the order of the nodes.
    fn attach_children(&mut self) {
        for node in &mut self.nodes {
            node.children.clear();
        }
        for id in &self.order {
            for parent in self.nodes[*id].parents.clone() {
                self.nodes[parent].children.push(*id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_all_none_or_names() {
        assert_eq!(TopologyOptimization::parse("all"), Ok(TopologyOptimization::ALL.to_vec()));
        assert_eq!(TopologyOptimization::parse("none"), Ok(Vec::new()));
        assert_eq!(
            TopologyOptimization::parse("single.store.self.join, merge.repartition.topics"),
            Ok(vec![
                TopologyOptimization::SingleStoreSelfJoin,
                TopologyOptimization::MergeRepartitionTopics
            ])
        );
        let refused = TopologyOptimization::parse("fast").expect_err("no rule");
        assert!(refused.to_string().contains("`fast` is no rule"), "{refused}");
    }
}

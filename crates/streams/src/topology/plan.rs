//! The finished graph, cut into subtopologies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::optimize::Rewritten;
use super::{ChangelogKind, Copartition, GlobalSpec, Graph, Kind, Node, NodeId, StoreSpec};
use crate::dsl::{Policies, TimePolicy};
use crate::error::TopologyError;
use crate::query::face::Face;

/// A finished topology: what tasks are made from.
#[derive(Clone)]
pub struct Plan {
    pub(crate) application: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) stores: BTreeMap<String, StoreSpec>,
    pub(crate) repartitions: BTreeMap<String, Option<i32>>,
    pub(crate) copartitions: Vec<Copartition>,
    pub(crate) globals: BTreeMap<String, GlobalSpec>,
    pub(crate) faces: BTreeMap<String, Arc<dyn Face>>,
    pub(crate) policies: Policies,
    pub(crate) time: TimePolicy,
    pub(super) subtopologies: Vec<Subtopology>,
}

/// A connected part of the graph; one task runs it for one partition number of its source topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtopology {
    /// Its number, the first half of a task's id.
    pub id: u32,
    /// Whether it only fills a global store, which every instance does for itself.
    pub global: bool,
    /// Full names of the topics it reads, internal ones included.
    pub source_topics: BTreeSet<String>,
    /// Full names of the topics it is known to write; topics chosen per record are not among them.
    pub sink_topics: BTreeSet<String>,
    /// Repartition topics that it reads.
    pub repartition_topics: Vec<InternalTopic>,
    /// Changelog topics of its stores.
    pub changelog_topics: Vec<InternalTopic>,
    /// Its stores.
    pub stores: BTreeSet<String>,
    pub(crate) nodes: Vec<NodeId>,
}

/// A topic that belongs to the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopic {
    /// Its full name.
    pub name: String,
    /// The number of partitions, where the program set one.
    pub partitions: Option<i32>,
    /// How it is cleaned.
    pub cleanup: TopicCleanup,
    /// Further topic settings.
    pub config: BTreeMap<String, String>,
}

/// The cleaning of an internal topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCleanup {
    /// Repartition topics: deleted by the program once processed.
    Purged,
    /// Changelogs of key-value stores.
    Compact,
    /// Changelogs of window stores.
    CompactDelete,
    /// Changelogs of stream-join stores.
    Delete,
}

impl Plan {
    /// Freezes a graph.
    pub(crate) fn of(graph: &Graph) -> Result<Arc<Self>, TopologyError> {
        if let Some(error) = graph.errors.first() {
            return Err(error.clone());
        }
        if graph.nodes.is_empty() {
            return Err(TopologyError::Empty);
        }
        let Rewritten { nodes, stores, repartitions, copartitions, order, .. } =
            Rewritten::of(graph);
        let mut faces = graph.faces.clone();
        faces.retain(|store, _| stores.contains_key(store));
        let mut plan = Self {
            application: graph.application.clone(),
            nodes,
            stores,
            repartitions,
            copartitions,
            globals: graph.globals.clone(),
            faces,
            policies: graph.policies.clone(),
            time: graph.time,
            subtopologies: Vec::new(),
        };
        for id in &order {
            let node = &plan.nodes[*id];
            // What fills it is described with it.
            let fills = node.parents.iter().any(|parent| {
                matches!(plan.nodes[*parent].kind, Kind::Source { global: true, .. })
            });
            let global = node.stores.iter().find(|store| plan.stores[*store].global);
            if let (false, Some(store)) = (fills, global) {
                return Err(TopologyError::Invalid(format!(
                    "{}: {store} is a global store, which only the processor that fills it opens; look its keys up",
                    node.name
                )));
            }
            if node.refuses_versions && node.parents.iter().any(|table| plan.is_versioned(*table)) {
                return Err(TopologyError::Invalid(format!(
                    "{}: suppress is only for tables that keep no versions (which a table has from those above it)",
                    node.name
                )));
            }
        }
        if graph.explicit_names {
            plan.check_names(|name| graph.is_generated(name))?;
        }
        plan.subtopologies = plan
            .groups(&order)
            .into_iter()
            .enumerate()
            .map(|(id, nodes)| plan.subtopology(id as u32, nodes))
            .collect();
        Ok(Arc::new(plan))
    }

    /// Refuses stores and internal topics that the program has given no names.
    fn check_names(&self, is_generated: impl Fn(&str) -> bool) -> Result<(), TopologyError> {
        let stores: Vec<&StoreSpec> =
            self.stores.values().filter(|store| is_generated(&store.name)).collect();
        let logged = stores.iter().filter(|store| store.logged && store.source_topic.is_none());
        let repartitions = self.repartitions.keys().filter(|topic| is_generated(topic));
        let error = TopologyError::Unnamed {
            changelogs: logged.map(|store| format!("{}-changelog", store.name)).collect(),
            stores: stores.iter().map(|store| store.name.clone()).collect(),
            repartitions: repartitions.cloned().collect(),
        };
        match &error {
            TopologyError::Unnamed { stores, repartitions, .. }
                if stores.is_empty() && repartitions.is_empty() =>
            {
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// The same topology, in which no store has a cache.
    pub(crate) fn without_caching(&self) -> Arc<Self> {
        let mut plan = self.clone();
        for store in plan.stores.values_mut() {
            store.cached = false;
        }
        Arc::new(plan)
    }

    /// The same topology, of which somebody else decides what becomes of failures and what moves time.
    pub(crate) fn undecided(&self) -> Self {
        let mut plan = self.clone();
        (plan.policies, plan.time) = (Policies::default(), TimePolicy::default());
        plan
    }

    /// The program's application id.
    pub fn application_id(&self) -> &str {
        &self.application
    }

    /// All subtopologies, by number.
    pub fn subtopologies(&self) -> &[Subtopology] {
        &self.subtopologies
    }

    /// The full name of a topic that the program reads or writes.
    pub(crate) fn decorated(&self, topic: &str) -> String {
        if self.repartitions.contains_key(topic) {
            format!("{}-{topic}", self.application)
        } else {
            topic.to_owned()
        }
    }

    /// Whether a table's node tells updates out of order from the newest ones (KIP-914).
    pub(crate) fn is_versioned(&self, node: NodeId) -> bool {
        let node = &self.nodes[node];
        match &node.table_store {
            Some(store) => {
                matches!(self.stores[store].changelog, ChangelogKind::Versions { .. })
            }
            None => {
                node.passes_versions && node.parents.iter().any(|parent| self.is_versioned(*parent))
            }
        }
    }

    /// The changelog topic of a store, if it has one.
    pub fn changelog_of(&self, store: &str) -> Option<String> {
        let spec = self.stores.get(store)?;
        if let Some(topic) = &spec.source_topic {
            return Some(self.decorated(topic));
        }
        spec.logged.then(|| format!("{}-{store}-changelog", self.application))
    }

    /// Nodes connected by edges or by a store, in the given order and numbered by their first node. Global stores connect nothing: every
    /// task sees them.
    fn groups(&self, order: &[NodeId]) -> Vec<Vec<NodeId>> {
        // By place in the order, because the first node names the group.
        let mut root: Vec<usize> = (0..order.len()).collect();
        let mut place_of = vec![usize::MAX; self.nodes.len()];
        for (place, id) in order.iter().enumerate() {
            place_of[*id] = place;
        }
        fn find(root: &mut [usize], mut node: usize) -> usize {
            while root[node] != node {
                root[node] = root[root[node]];
                node = root[node];
            }
            node
        }
        let mut first_of_store: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, id) in order.iter().enumerate() {
            let node = &self.nodes[*id];
            let mut joined: Vec<usize> = node.parents.iter().map(|id| place_of[*id]).collect();
            for store in &node.stores {
                if self.stores.get(store).is_some_and(|spec| spec.global) {
                    continue;
                }
                joined.push(*first_of_store.entry(store).or_insert(place));
            }
            for other in joined {
                let (a, b) = (find(&mut root, place), find(&mut root, other));
                root[a.max(b)] = a.min(b);
            }
        }
        let mut groups: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
        for (place, id) in order.iter().enumerate() {
            let group = find(&mut root, place);
            groups.entry(group).or_default().push(*id);
        }
        groups.into_values().collect()
    }

    fn subtopology(&self, id: u32, nodes: Vec<NodeId>) -> Subtopology {
        let mut part = Subtopology {
            id,
            global: false,
            source_topics: BTreeSet::new(),
            sink_topics: BTreeSet::new(),
            repartition_topics: Vec::new(),
            changelog_topics: Vec::new(),
            stores: BTreeSet::new(),
            nodes,
        };
        for node in part.nodes.iter().map(|id| &self.nodes[*id]) {
            match &node.kind {
                Kind::Source { topics, global } => {
                    part.global |= global;
                    for topic in topics {
                        part.source_topics.insert(self.decorated(topic));
                        if let Some(partitions) = self.repartitions.get(topic) {
                            part.repartition_topics.push(InternalTopic {
                                name: self.decorated(topic),
                                partitions: *partitions,
                                cleanup: TopicCleanup::Purged,
                                config: repartition_config(),
                            });
                        }
                    }
                }
                Kind::Sink(super::SinkTopic::Fixed(topic)) => {
                    part.sink_topics.insert(self.decorated(topic));
                }
                Kind::Sink(super::SinkTopic::Chosen) | Kind::Processor => {}
            }
            part.stores.extend(
                node.stores
                    .iter()
                    .filter(|store| part.global || !self.stores[*store].global)
                    .cloned(),
            );
        }
        part.changelog_topics = part
            .stores
            .iter()
            .filter_map(|store| self.changelog_topic(&self.stores[store]))
            .collect();
        part
    }

    fn changelog_topic(&self, spec: &StoreSpec) -> Option<InternalTopic> {
        if !spec.logged || spec.source_topic.is_some() {
            return None;
        }
        let mut config = BTreeMap::new();
        let mut set = |key: &str, value: String| config.insert(key.to_owned(), value);
        let cleanup = match spec.changelog {
            ChangelogKind::KeyValue => TopicCleanup::Compact,
            ChangelogKind::Versions { history_ms } => {
                set("min.compaction.lag.ms", history_ms.saturating_add(DAY_MS).to_string());
                TopicCleanup::Compact
            }
            ChangelogKind::Window { retention_ms, duplicates } => {
                set("retention.ms", retention_ms.saturating_add(DAY_MS).to_string());
                if duplicates { TopicCleanup::Delete } else { TopicCleanup::CompactDelete }
            }
        };
        set("cleanup.policy", cleanup.policy().to_owned());
        set("message.timestamp.type", "CreateTime".to_owned());
        config.extend(spec.changelog_config.clone());
        Some(InternalTopic {
            name: format!("{}-{}-changelog", self.application, spec.name),
            partitions: None,
            cleanup,
            config,
        })
    }
}

impl TopicCleanup {
    /// The topic setting `cleanup.policy`.
    pub fn policy(self) -> &'static str {
        match self {
            Self::Purged | Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact,delete",
        }
    }
}

/// Kept until the program deletes what it has processed; small segments, so that deleting frees space soon.
fn repartition_config() -> BTreeMap<String, String> {
    [
        ("cleanup.policy", "delete"),
        ("segment.bytes", "52428800"),
        ("retention.ms", "-1"),
        ("message.timestamp.type", "CreateTime"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Added to a window store's retention and to a history, so that the broker's clock and event time may differ.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

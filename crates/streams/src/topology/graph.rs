//! Nodes and stores while the program is being written.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleuve_client::config::OffsetReset;
use parking_lot::Mutex;

use super::optimize::{Effect, RepartitionNodes, StreamJoinNodes};
use super::{Plan, TopicPattern, TopologyOptimization};
use crate::dsl::{Policies, TimePolicy};
use crate::error::TopologyError;
use crate::query::face::{Face, Shape, TypedFace};
use crate::record::Data;
use crate::runtime::{Assembly, GlobalStore, Globals};
use crate::serde::SerdeOf;
use crate::state::{AnyStore, StoreType};

/// Position of a node in [`Graph::nodes`].
pub(crate) type NodeId = usize;

/// The graph that all handles of one program share.
pub(crate) type SharedGraph = Arc<Mutex<Graph>>;

/// Makes the running form of a node for one task, its children being made already.
pub(crate) type NodeBuilder =
    Arc<dyn Fn(&mut Assembly<'_>, NodeId) -> Box<dyn Any + Send> + Send + Sync>;

/// Makes a store for one task.
pub(crate) type StoreBuilder = Arc<dyn Fn(&StoreSpec, &str) -> Box<dyn AnyStore> + Send + Sync>;

/// Everything a program declared so far.
pub(crate) struct Graph {
    pub(crate) application: String,
    /// In the order in which they were added, which decides the numbers of subtopologies.
    pub(crate) nodes: Vec<Node>,
    pub(crate) stores: BTreeMap<String, StoreSpec>,
    /// Repartition topics by undecorated name, with the number of partitions if the program set one.
    pub(crate) repartitions: BTreeMap<String, Option<i32>>,
    pub(crate) copartitions: Vec<Copartition>,
    /// Sources behind repartitions that further uses share: of a node for its joins, or under a given name.
    pub(crate) shared_repartitions: BTreeMap<(NodeId, Option<String>), NodeId>,
    /// Global tables by store.
    pub(crate) globals: BTreeMap<String, GlobalSpec>,
    /// How stores are asked without their types, by store.
    pub(crate) faces: BTreeMap<String, Arc<dyn Face>>,
    /// Errors found while the program was written; the first is reported when it is built.
    pub(crate) errors: Vec<TopologyError>,
    pub(crate) policies: Policies,
    pub(crate) time: TimePolicy,
    /// The rules by which the finished graph is rewritten.
    pub(crate) optimizations: BTreeSet<TopologyOptimization>,
    /// Repartitions that may be merged.
    pub(crate) repartition_nodes: Vec<RepartitionNodes>,
    /// Joins of streams that may be one stream.
    pub(crate) stream_joins: Vec<StreamJoinNodes>,
    /// Whether topics and stores need names of the program's.
    pub(crate) explicit_names: bool,
    /// Names that a number made.
    generated: BTreeSet<String>,
    index: u32,
    /// The scopes that are being written, the innermost last.
    scopes: Vec<Scope>,
}

/// A part of the program with names of its own.
struct Scope {
    /// What generated names begin with.
    path: String,
    index: u32,
}

/// Source nodes that must have the same number of partitions.
#[derive(Clone, Debug)]
pub(crate) struct Copartition {
    pub(crate) sources: BTreeSet<NodeId>,
}

/// One node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) parents: Vec<NodeId>,
    pub(crate) children: Vec<NodeId>,
    pub(crate) stores: BTreeSet<String>,
    pub(crate) build: NodeBuilder,
    /// Whether children of a table's node see the value before a change.
    pub(crate) sends_old: bool,
    /// Set for what takes one of a processor's other outputs.
    pub(crate) output: Option<SideOutput>,
    /// How long after its end a window of the node's table may still change.
    pub(crate) grace_ms: Option<i64>,
    /// Whether a sink has to know how many partitions its topic has.
    pub(crate) counts_partitions: bool,
    /// The store that holds a table's node, if it has one.
    pub(crate) table_store: Option<String>,
    /// Whether the node sends changes of a versioned table as such, though it has no store.
    pub(crate) passes_versions: bool,
    /// The topic that a table's node takes its rows from, if it could be restored from there.
    pub(crate) table_topic: Option<String>,
    pub(crate) effect: Effect,
    /// Set for aggregations that can tell late records: the type of these pairs.
    pub(crate) late: Option<TypeId>,
    /// Whether the node's table may not keep versions.
    pub(crate) refuses_versions: bool,
    /// Whether a source is read to its end before others of its task.
    pub(crate) bootstraps: bool,
    /// Set for sources of all topics that match; their topics are those matched so far.
    pub(crate) pattern: Option<TopicPattern>,
    /// Where a source begins if nothing is committed, unless that is for the settings to say.
    pub(crate) offset_reset: Option<OffsetReset>,
}

/// Which output of its parent a node takes, and how the parent sends to it.
#[derive(Clone)]
pub(crate) struct SideOutput {
    pub(crate) name: String,
    /// Makes the `Fan` of the output's own type.
    pub(crate) receiver: NodeBuilder,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Source { topics: Vec<String>, global: bool },
    Processor,
    Sink(SinkTopic),
}

/// Where a sink writes.
#[derive(Clone, Debug)]
pub(crate) enum SinkTopic {
    Fixed(String),
    Chosen,
}

/// One store.
#[derive(Clone)]
pub(crate) struct StoreSpec {
    pub(crate) name: String,
    pub(crate) build: StoreBuilder,
    pub(crate) logged: bool,
    pub(crate) cached: bool,
    pub(crate) changelog: ChangelogKind,
    /// Topic settings that the program set for the changelog.
    pub(crate) changelog_config: BTreeMap<String, String>,
    /// A source topic that serves as changelog, undecorated.
    pub(crate) source_topic: Option<String>,
    /// Where it keeps its data; `None` as the program's settings say.
    pub(crate) store_type: Option<StoreType>,
    pub(crate) global: bool,
}

/// One global table.
#[derive(Clone)]
pub(crate) struct GlobalSpec {
    pub(crate) topic: String,
    pub(crate) build: GlobalBuilder,
}

/// Makes a global table for one instance.
pub(crate) type GlobalBuilder = Arc<dyn Fn(&Plan, &Globals) -> Box<dyn GlobalStore> + Send + Sync>;

/// How a changelog is cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangelogKind {
    KeyValue,
    /// A store that keeps versions: none may be compacted away while it is history.
    Versions {
        history_ms: i64,
    },
    Window {
        retention_ms: i64,
        /// Stream-join stores keep duplicates and are never compacted.
        duplicates: bool,
    },
}

impl Graph {
    pub(crate) fn new(application: &str) -> Self {
        Self {
            application: application.to_owned(),
            nodes: Vec::new(),
            stores: BTreeMap::new(),
            repartitions: BTreeMap::new(),
            copartitions: Vec::new(),
            shared_repartitions: BTreeMap::new(),
            globals: BTreeMap::new(),
            faces: BTreeMap::new(),
            errors: Vec::new(),
            policies: Policies::default(),
            time: TimePolicy::default(),
            optimizations: BTreeSet::new(),
            repartition_nodes: Vec::new(),
            stream_joins: Vec::new(),
            explicit_names: false,
            generated: BTreeSet::new(),
            index: 0,
            scopes: Vec::new(),
        }
    }

    /// How long a table's node keeps versions of its rows, if it does.
    pub(crate) fn history_of(&self, node: NodeId) -> Option<i64> {
        let node = &self.nodes[node];
        match &node.table_store {
            Some(store) => match self.stores.get(store)?.changelog {
                ChangelogKind::Versions { history_ms } => Some(history_ms),
                _ => None,
            },
            None if node.passes_versions => {
                node.parents.iter().find_map(|parent| self.history_of(*parent))
            }
            None => None,
        }
    }

    /// The next generated name, for example `KSTREAM-FILTER-0000000003`.
    pub(crate) fn next_name(&mut self, prefix: &str) -> String {
        let (path, index) = match self.scopes.last_mut() {
            Some(scope) => (scope.path.as_str(), &mut scope.index),
            None => ("", &mut self.index),
        };
        let name = format!("{path}{prefix}{index:010}");
        *index += 1;
        self.generated.insert(name.clone());
        name
    }

    /// Whether a store or a topic has its name from a number, and gets another if operators are added before it.
    pub(crate) fn is_generated(&self, name: &str) -> bool {
        // What several stores of an operator have in common is followed by what each of them is.
        let ends = name.match_indices('-').map(|(at, _)| &name[..at]).chain([name]);
        ends.into_iter().any(|beginning| self.generated.contains(beginning))
    }

    /// Begins a scope, within the one that is being written.
    pub(crate) fn enter(&mut self, name: &str) {
        let name = self.checked(name);
        let path = format!("{}{name}-", self.path());
        self.scopes.push(Scope { path, index: 0 });
    }

    /// Ends the innermost scope.
    pub(crate) fn leave(&mut self) {
        self.scopes.pop();
    }

    /// What generated names begin with.
    pub(crate) fn path(&self) -> &str {
        self.scopes.last().map_or("", |scope| &scope.path)
    }

    /// The next generated store name, for example `KSTREAM-AGGREGATE-STATE-STORE-0000000003`.
    pub(crate) fn next_store_name(&mut self, prefix: &str) -> String {
        self.next_name(&format!("{prefix}STATE-STORE-"))
    }

    /// The given name, or the next generated one. The number is used up either way, as there.
    pub(crate) fn name_or(&mut self, given: Option<&str>, prefix: &str) -> String {
        let generated = self.next_name(prefix);
        match given {
            Some(name) => self.checked(name),
            None => generated,
        }
    }

    /// The given name with a suffix, or the next generated one. The number is used up either way.
    pub(crate) fn suffixed(&mut self, given: Option<&str>, suffix: &str, prefix: &str) -> String {
        let generated = self.next_name(prefix);
        given.map_or(generated, |name| format!("{name}{suffix}"))
    }

    fn checked(&mut self, name: &str) -> String {
        if !is_valid_name(name) {
            self.errors.push(TopologyError::InvalidName(name.to_owned()));
        }
        name.to_owned()
    }

    /// The source node that already reads exactly these topics. A topic that another set of topics contains cannot be
    /// read once more.
    pub(crate) fn source_of(&self, topics: &[String]) -> Result<Option<NodeId>, TopologyError> {
        for (id, node) in self.nodes.iter().enumerate() {
            let Kind::Source { topics: known, .. } = &node.kind else {
                continue;
            };
            if node.pattern.is_some() {
                continue;
            }
            if known == topics {
                return Ok(Some(id));
            }
            if let Some(topic) = topics.iter().find(|topic| known.contains(topic)) {
                return Err(TopologyError::ReadTwice(topic.clone()));
            }
        }
        Ok(None)
    }

    /// The source node of a pattern, if there is one. Another pattern may be there, as long as no topic matches both.
    pub(crate) fn source_matching(&self, pattern: &TopicPattern) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.pattern.as_ref() == Some(pattern))
    }

    /// Makes a source node one of all topics that match.
    pub(crate) fn set_pattern(&mut self, source: NodeId, pattern: TopicPattern) {
        let taken = self.nodes.iter().any(|node| match &node.kind {
            Kind::Source { topics, global: false } => {
                topics.iter().any(|topic| pattern.matches(topic))
            }
            _ => false,
        });
        if taken {
            self.errors.push(TopologyError::PatternMatchesTopic(pattern.text().to_owned()));
        }
        self.nodes[source].pattern = Some(pattern);
    }

    /// Says where a source begins if nothing is committed. All that read it have to agree.
    pub(crate) fn set_offset_reset(&mut self, source: NodeId, reset: Option<OffsetReset>) {
        if let Some(source) = self.nodes.get_mut(source) {
            source.offset_reset = reset;
        }
    }

    /// Checks that a source which is read once more begins where it begins for those that read it already.
    pub(crate) fn check_offset_reset(&mut self, source: NodeId, reset: Option<OffsetReset>) {
        if self.nodes.get(source).is_some_and(|source| source.offset_reset != reset) {
            self.errors.push(TopologyError::OffsetResets);
        }
    }

    pub(crate) fn add_node(
        &mut self,
        name: String,
        kind: Kind,
        parents: &[NodeId],
        build: NodeBuilder,
    ) -> NodeId {
        if self.nodes.iter().any(|node| node.name == name) {
            self.errors.push(TopologyError::NameTaken(name.clone()));
        }
        if let Kind::Source { topics, .. } = &kind {
            let patterns = || self.nodes.iter().filter_map(|node| node.pattern.as_ref());
            let matched = |topic: &&String| patterns().any(|pattern| pattern.matches(topic));
            if let Some(topic) = topics.iter().find(matched) {
                self.errors.push(TopologyError::TopicMatchesPattern(topic.clone()));
            }
        }
        let effect = match kind {
            Kind::Source { .. } => Effect::Keeps,
            Kind::Processor | Kind::Sink(_) => Effect::Opaque,
        };
        let id = self.nodes.len();
        // A node merged with itself is one parent, as there.
        let mut distinct: Vec<NodeId> = Vec::with_capacity(parents.len());
        for parent in parents {
            if !distinct.contains(parent) {
                self.nodes[*parent].children.push(id);
                distinct.push(*parent);
            }
        }
        self.nodes.push(Node {
            name,
            kind,
            parents: distinct,
            children: Vec::new(),
            stores: BTreeSet::new(),
            build,
            sends_old: false,
            grace_ms: None,
            output: None,
            counts_partitions: false,
            table_store: None,
            passes_versions: false,
            table_topic: None,
            effect,
            late: None,
            refuses_versions: false,
            bootstraps: false,
            pattern: None,
            offset_reset: None,
        });
        id
    }

    pub(crate) fn add_store(&mut self, spec: StoreSpec) {
        let name = self.checked(&spec.name);
        if self.stores.insert(name.clone(), spec).is_some() {
            self.errors.push(TopologyError::NameTaken(name));
        }
    }

    /// Lets a store be queried.
    pub(crate) fn show<K: Data, V: Data>(
        &mut self,
        store: &str,
        shape: Shape,
        (key, value): (&SerdeOf<K>, &SerdeOf<V>),
    ) {
        let face = TypedFace { shape, key: key.clone(), value: value.clone() };
        self.faces.insert(store.to_owned(), Arc::new(face));
    }

    pub(crate) fn connect(&mut self, node: NodeId, store: &str) {
        if !self.stores.contains_key(store) {
            self.errors.push(TopologyError::UnknownStore(store.to_owned()));
        }
        self.nodes[node].stores.insert(store.to_owned());
    }

    /// How long after its end a window may still change, by the aggregations above a node; the longest, where there are
    /// several.
    pub(crate) fn window_grace(&self, node: NodeId) -> Option<i64> {
        let found = &self.nodes[node];
        if found.grace_ms.is_some() {
            return found.grace_ms;
        }
        let above: Option<Vec<i64>> =
            found.parents.iter().map(|parent| self.window_grace(*parent)).collect();
        above.and_then(|graces| graces.into_iter().max())
    }

    /// Requires that the sources of a join have the same number of partitions.
    pub(crate) fn copartition(&mut self, sources: BTreeSet<NodeId>) {
        if sources.len() > 1 {
            self.copartitions.push(Copartition { sources });
        }
    }

    /// The full name of an internal topic, and any other name unchanged.
    pub(crate) fn decorated(&self, topic: &str) -> String {
        if self.repartitions.contains_key(topic) {
            format!("{}-{topic}", self.application)
        } else {
            topic.to_owned()
        }
    }
}

/// Whether something can be part of a topic's name.
fn is_valid_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

//! From a plan to the running nodes of one task: children first, then their parents.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;

use super::node::Shared;
use super::{Down, Edge, Fan, Flusher, Globals, Punctuated, SharedDeferring, SourceEntry, Station};
use crate::metrics::{Counted, Emission, Tally, Written};
use crate::record::Data;
use crate::state::AnyStore;
use crate::topology::{Kind, Node, NodeId, Plan};

/// Where a store of type `S` stands in a task.
pub(crate) struct StoreSlot<S> {
    index: usize,
    store: PhantomData<fn() -> S>,
}

impl<S> Clone for StoreSlot<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for StoreSlot<S> {}

impl<S> StoreSlot<S> {
    /// The slot of the store with this index; its type is checked when it is used.
    pub(crate) fn at(index: usize) -> Self {
        Self { index, store: PhantomData }
    }

    pub(crate) fn index(self) -> usize {
        self.index
    }
}

/// A task while it is put together.
pub(crate) struct Assembly<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) globals: &'a Globals,
    /// Built nodes that wait for their parents: a `Box<dyn Down<K, V>>`, or a `Shared` of it.
    built: BTreeMap<NodeId, Box<dyn Any + Send>>,
    stores: BTreeMap<String, usize>,
    flushers: Vec<(String, Box<dyn Flusher>)>,
    processors: Vec<Box<dyn Punctuated>>,
    deferring: Vec<SharedDeferring>,
    stations: Vec<Station>,
    tallies: BTreeMap<NodeId, Arc<Tally>>,
    written: Vec<(Arc<str>, Written)>,
}

/// The parts of a finished task.
pub(crate) struct Assembled {
    pub(crate) sources: BTreeMap<NodeId, Box<dyn SourceEntry>>,
    pub(crate) stores: Vec<(String, Box<dyn AnyStore>)>,
    /// In the order in which caches must be flushed: a store before those that its changes reach.
    pub(crate) flushers: Vec<Box<dyn Flusher>>,
    /// The program's processors, as they are numbered.
    pub(crate) processors: Vec<Box<dyn Punctuated>>,
    /// Operators that may hold records, those before others first.
    pub(crate) deferring: Vec<SharedDeferring>,
    /// What time is told to where it moves by itself, those before others first.
    pub(crate) stations: Vec<Station>,
    /// What the nodes have taken in. Sources count by their queues.
    pub(crate) tallies: Vec<(NodeId, Arc<Tally>)>,
    /// What the sinks have written, by their names.
    pub(crate) written: Vec<(Arc<str>, Written)>,
}

impl<'a> Assembly<'a> {
    /// Builds the nodes and stores of one subtopology. `globals` are stores that every task sees.
    pub(crate) fn build(
        plan: &'a Plan,
        globals: &'a Globals,
        nodes: &[NodeId],
        stores: &[&str],
    ) -> Assembled {
        let built_stores: Vec<(String, Box<dyn AnyStore>)> = stores
            .iter()
            .map(|name| {
                let spec = &plan.stores[*name];
                let topic = plan.changelog_of(name).unwrap_or_else(|| (*name).to_owned());
                ((*name).to_owned(), (spec.build)(spec, &topic))
            })
            .collect();
        let mut assembly = Assembly {
            plan,
            globals,
            built: BTreeMap::new(),
            stores: stores
                .iter()
                .enumerate()
                .map(|(index, name)| ((*name).to_owned(), index))
                .collect(),
            flushers: Vec::new(),
            processors: Vec::new(),
            deferring: Vec::new(),
            stations: Vec::new(),
            tallies: nodes
                .iter()
                .map(|id| {
                    let node = &plan.nodes[*id];
                    let tally = Tally::new(Arc::from(node.name.as_str()), node.children.is_empty());
                    (*id, Arc::new(tally))
                })
                .collect(),
            written: Vec::new(),
        };
        let mut sources = BTreeMap::new();
        // Nodes are numbered in the order of their creation, parents before children.
        for id in nodes.iter().rev() {
            let node = &plan.nodes[*id];
            let built = (node.build)(&mut assembly, *id);
            if matches!(node.kind, Kind::Source { .. }) {
                let source = built
                    .downcast::<Box<dyn SourceEntry>>()
                    .expect("source nodes build source entries");
                sources.insert(*id, *source);
            } else {
                assembly.built.insert(*id, built);
            }
        }
        // Children were assembled before their parents.
        let mut flushers = assembly.flushers;
        flushers.reverse();
        assembly.deferring.reverse();
        assembly.stations.reverse();
        Assembled {
            sources,
            stores: built_stores,
            flushers: flushers.into_iter().map(|(_, flusher)| flusher).collect(),
            processors: assembly.processors,
            deferring: assembly.deferring,
            stations: assembly.stations,
            tallies: assembly.tallies.into_iter().collect(),
            written: assembly.written,
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.plan.nodes[id]
    }

    pub(crate) fn name(&self, id: NodeId) -> Arc<str> {
        Arc::from(self.plan.nodes[id].name.as_str())
    }

    /// The children of a node, as receivers of what it sends.
    pub(crate) fn children<K: Data, V: Data>(&mut self, id: NodeId) -> Fan<K, V> {
        let plan = self.plan;
        let children = plan.nodes[id].children.iter().copied();
        let main = children.filter(|child| plan.nodes[*child].output.is_none());
        Fan::of(main.map(|child| self.receiver(child)).collect())
    }

    /// The children of a processor's other outputs, by output.
    pub(crate) fn side_outputs(&mut self, id: NodeId) -> Vec<(String, Box<dyn Any + Send>)> {
        let plan = self.plan;
        let children = plan.nodes[id].children.iter().copied();
        children
            .filter_map(|child| {
                let output = plan.nodes[child].output.as_ref()?;
                Some((output.name.clone(), (output.receiver)(self, child)))
            })
            .collect()
    }

    /// The number that the next processor gets.
    pub(crate) fn next_processor(&self) -> usize {
        self.processors.len()
    }

    /// The tally of a node that sends something because time has come.
    pub(crate) fn emitter(&self, id: NodeId, what: Emission) -> Arc<Tally> {
        let tally = self.tallies[&id].clone();
        tally.emits(what);
        tally
    }

    /// What a sink counts by, what it writes.
    pub(crate) fn counted(&mut self, id: NodeId) -> Counted {
        let written = Written::default();
        let counted = written.counted();
        self.written.push((self.tallies[&id].node.clone(), written));
        counted
    }

    /// Registers a processor of the program's.
    pub(crate) fn add_processor(&mut self, processor: Box<dyn Punctuated>) {
        self.stations.push(Station::Processor(self.processors.len()));
        self.processors.push(processor);
    }

    /// Registers what time is told to.
    pub(crate) fn add_station(&mut self, station: Station) {
        self.stations.push(station);
    }

    /// Registers an operator that may hold records.
    pub(crate) fn add_deferring(&mut self, operator: SharedDeferring) {
        self.deferring.push(operator);
    }

    /// The way to a node.
    pub(crate) fn receiver<K: Data, V: Data>(&mut self, id: NodeId) -> Edge<K, V> {
        Edge { child: self.child(id), tally: self.tallies[&id].clone() }
    }

    fn child<K: Data, V: Data>(&mut self, id: NodeId) -> Box<dyn Down<K, V>> {
        let built = self.built.remove(&id).expect("children are built before their parents");
        let shared = match built.downcast::<Box<dyn Down<K, V>>>() {
            Ok(own) if self.plan.nodes[id].parents.len() <= 1 => return *own,
            Ok(own) => Arc::new(Mutex::new(*own)),
            Err(shared) => {
                shared
                    .downcast::<Shared<K, V>>()
                    .expect("a node's parents send what it takes: the DSL is typed")
                    .0
            }
        };
        self.built.insert(id, Box::new(Shared(shared.clone())) as Box<dyn Any + Send>);
        Box::new(Shared(shared))
    }

    /// The slot of a store that the node is connected to.
    pub(crate) fn store<S: 'static>(&self, name: &str) -> StoreSlot<S> {
        StoreSlot {
            index: *self
                .stores
                .get(name)
                .expect("a store belongs to the subtopology of the nodes that use it"),
            store: PhantomData,
        }
    }

    /// Registers what sends a cached store's changes on.
    pub(crate) fn add_flusher(&mut self, store: &str, flusher: Box<dyn Flusher>) {
        self.flushers.push((store.to_owned(), flusher));
    }
}

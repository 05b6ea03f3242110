//! Stores that a processor of the program's keeps from a topic: one that every instance holds in full, or one per task.

use std::sync::Arc;

use super::GlobalKTable;
use super::app::{Consumed, Topology, source_builder};
use super::processor::{KvState, Processor, State, builder};
use crate::error::{ProcessingError, TopologyError};
use crate::record::Data;
use crate::runtime::{GlobalStore, Globals, RawRecord, Task, TaskId};
use crate::state::StoreType;
use crate::topology::{GlobalSpec, Graph, Kind, NodeId, Plan};

impl Topology {
    /// Has a processor keep a store from a topic, in full at every instance: Kafka Streams' `addGlobalStore`. All
    /// partitions are read to their ends before the program starts, and through the processor too then, so that the store
    /// is whatever it makes of them. The store belongs to the processor; others look things up in what this returns, by
    /// [`super::processor::ProcessorContext::look_up`] or [`crate::KStream::join_global`].
    ///
    /// The processor sends nothing on, and is not called by time.
    ///
    /// ```
    /// use fleuve_streams::processor::{KvState, Processor, ProcessorContext, ProcessorError, State};
    /// use fleuve_streams::{Consumed, Record, TestDriver, Topology};
    ///
    /// /// Keeps the highest bid.
    /// #[derive(Clone)]
    /// struct Highest(KvState<String, i64>);
    ///
    /// impl Processor for Highest {
    ///     type KeyIn = String;
    ///     type ValueIn = i64;
    ///     type KeyOut = ();
    ///     type ValueOut = ();
    ///
    ///     fn states(&self) -> Vec<&str> {
    ///         vec![self.0.name()]
    ///     }
    ///
    ///     fn process(
    ///         &mut self,
    ///         bid: Record<String, i64>,
    ///         cx: &mut ProcessorContext<'_, (), ()>,
    ///     ) -> Result<(), ProcessorError> {
    ///         let mut highest = cx.state(&self.0);
    ///         let known = highest.get(&bid.key)?.unwrap_or(0);
    ///         Ok(highest.put(&bid.key, known.max(bid.value))?)
    ///     }
    /// }
    ///
    /// let app = Topology::new("auction");
    /// let highest = app.kv_store("highest");
    /// let bids = app.add_global_store(&highest, "bids", Consumed::default(), Highest(highest.clone()));
    /// app.stream::<String, String>("questions")
    ///     .join_global(&bids, |_, item| item.clone(), |_, bid| *bid)
    ///     .to("answers");
    ///
    /// let mut driver = TestDriver::new(&app).unwrap();
    /// driver.input("bids").send("vase", &7_i64).send("vase", &5_i64);
    /// driver.input("questions").send("somebody", "vase");
    /// driver.output::<String, i64>("answers").expect([("somebody", 7)]);
    /// ```
    pub fn add_global_store<K: Data, V: Data, P: Processor<KeyOut = (), ValueOut = ()>>(
        &self,
        state: &KvState<K, V>,
        topic: &str,
        consumed: Consumed<P::KeyIn, P::ValueIn>,
        processor: P,
    ) -> GlobalKTable<K, V> {
        let mut graph = self.graph.lock();
        if processor.states() != [state.name()] {
            graph.errors.push(TopologyError::Invalid(format!(
                "the processor of the global store {} needs that store, and no other",
                state.name()
            )));
        }
        add_nodes(&mut graph, state.name(), (topic, true), consumed, processor);
        if let Some(spec) = graph.stores.get_mut(state.name()) {
            spec.logged = false;
            spec.global = true;
            spec.store_type = Some(StoreType::Memory);
        }
        let store = state.name().to_owned();
        graph.globals.insert(
            store.clone(),
            GlobalSpec {
                topic: topic.to_owned(),
                build: Arc::new(move |plan, globals| {
                    Box::new(Kept { task: task(plan, &store, globals), store: store.clone() })
                }),
            },
        );
        drop(graph);
        GlobalKTable::of(state.name())
    }

    /// Has a processor keep a store from a topic that serves as its changelog: Kafka Streams' `addReadOnlyStateStore`
    /// (KIP-813). Each task has what its partition of the topic says; processors that name the state share the task, and
    /// read it. Nobody else may write it: when a task begins, the store is what the records of the topic are, without the
    /// processor, so that it must keep just that, and the topic must be compacted and of the store's own serdes.
    pub fn add_read_only_state_store<K: Data, V: Data, P: Processor<KeyOut = (), ValueOut = ()>>(
        &self,
        state: &KvState<K, V>,
        topic: &str,
        consumed: Consumed<P::KeyIn, P::ValueIn>,
        processor: P,
    ) {
        let mut graph = self.graph.lock();
        if !processor.states().contains(&state.name()) {
            graph.errors.push(TopologyError::Invalid(format!(
                "the processor of the read-only store {} does not name it",
                state.name()
            )));
        }
        add_nodes(&mut graph, state.name(), (topic, false), consumed, processor);
        if let Some(spec) = graph.stores.get_mut(state.name()) {
            spec.logged = false;
            spec.source_topic = Some(topic.to_owned());
        }
    }
}

/// Adds the source and the processor of a store.
fn add_nodes<P: Processor<KeyOut = (), ValueOut = ()>>(
    graph: &mut Graph,
    store: &str,
    (topic, global): (&str, bool),
    consumed: Consumed<P::KeyIn, P::ValueIn>,
    processor: P,
) -> NodeId {
    let given = consumed.name.clone();
    let source_name = graph.suffixed(given.as_deref(), "-source", "KSTREAM-SOURCE-");
    let name = graph.name_or(given.as_deref(), "KTABLE-SOURCE-");
    if let Ok(Some(_)) | Err(_) = graph.source_of(&[topic.to_owned()]) {
        graph.errors.push(TopologyError::ReadTwice(topic.to_owned()));
    }
    let kind = Kind::Source { topics: vec![topic.to_owned()], global };
    let reset = consumed.offset_reset;
    let source = graph.add_node(source_name, kind, &[], source_builder(consumed));
    graph.set_offset_reset(source, reset);
    let states: Vec<String> = processor.states().into_iter().map(str::to_owned).collect();
    let build = builder(processor, states.clone(), None);
    let id = graph.add_node(name, Kind::Processor, &[source], build);
    graph.connect(id, store);
    for state in states {
        graph.connect(id, &state);
    }
    id
}

/// A global store, in the one task that keeps it.
struct Kept {
    task: Task,
    store: String,
}

/// The task of a global store. What fails in it is a matter for whoever reads the topic.
fn task(plan: &Plan, store: &str, globals: &Globals) -> Task {
    let plan = plan.undecided();
    let part = plan.subtopologies().iter().find(|part| part.global && part.stores.contains(store));
    let subtopology = part.expect("a global store has nodes that are described").id;
    Task::new(&plan, TaskId { subtopology, partition: 0 }, globals)
}

impl GlobalStore for Kept {
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self.task.store(&self.store).expect("it is the store of the task").as_any()
    }

    fn apply(&mut self, record: RawRecord, now_ms: i64) -> Result<(), ProcessingError> {
        self.task.add(record);
        self.task.process(now_ms)?;
        // There is nobody to send anything to.
        self.task.take_outgoing();
        Ok(())
    }
}

//! The Processor API: operators of your own, with state, time and several outputs.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{KStream, Materialized, Stage, Topology};
use crate::operator::guarded::guarded;
use crate::operator::process::{FixedKey, Process, Running};
use crate::operator::stateless::PassThrough;
use crate::record::{Data, Record};
use crate::runtime::{Assembly, Fan, Schedule};
use crate::topology::{Kind, NodeBuilder, NodeId};

pub use super::states::{
    KvState, KvView, SessionState, SessionView, State, TimerState, TimerView, VersionedState,
    VersionedView, WindowState, WindowView,
};
pub use super::transform_values::{TransformContext, ValueTransformer};
pub use crate::operator::process::{FailedDownstream, ProcessorContext};
pub use crate::state::{Placed, Stamped, Version};

/// What a processor's methods may return.
pub type ProcessorError = Box<dyn Error + Send + Sync>;

/// An operator of your own. Each task gets a clone of it.
///
/// ```
/// use fleuve_streams::processor::{KvState, Processor, ProcessorContext, ProcessorError, State};
/// use fleuve_streams::{Record, TestDriver, Topology};
///
/// /// Lets the first record of each key pass.
/// #[derive(Clone)]
/// struct First {
///     seen: KvState<String, i64>,
/// }
///
/// impl Processor for First {
///     type KeyIn = String;
///     type ValueIn = String;
///     type KeyOut = String;
///     type ValueOut = String;
///
///     fn states(&self) -> Vec<&str> {
///         vec![self.seen.name()]
///     }
///
///     fn process(
///         &mut self,
///         record: Record<String, String>,
///         cx: &mut ProcessorContext<'_, String, String>,
///     ) -> Result<(), ProcessorError> {
///         let mut seen = cx.state(&self.seen);
///         if seen.get(&record.key)?.is_none() {
///             seen.put(&record.key, record.timestamp)?;
///             cx.forward(record)?;
///         }
///         Ok(())
///     }
/// }
///
/// let app = Topology::new("firsts");
/// let seen = app.kv_store("seen");
/// app.stream("in").process(First { seen }).to("out");
///
/// let mut driver = TestDriver::new(&app).unwrap();
/// for value in ["one", "two"] {
///     driver.input("in").at(0).send(&"key".to_owned(), &value.to_owned());
/// }
/// assert_eq!(driver.output::<String, String>("out").pairs(), [("key".into(), "one".into())]);
/// ```
pub trait Processor: Clone + Send + 'static {
    /// The key of what comes in.
    type KeyIn: Data;
    /// The value of what comes in.
    type ValueIn: Data;
    /// The key of what goes out.
    type KeyOut: Data;
    /// The value of what goes out.
    type ValueOut: Data;

    /// The names of the states that the processor opens.
    fn states(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The timers whose firing [`Self::on_timer`] is told.
    fn timers(&self) -> Option<&TimerState<Self::KeyIn>> {
        None
    }

    /// Called once, when the task's state is there and before its first record.
    fn init(
        &mut self,
        _: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Processes a record.
    fn process(
        &mut self,
        record: Record<Self::KeyIn, Self::ValueIn>,
        cx: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), ProcessorError>;

    /// Called by a schedule that [`ProcessorContext::schedule`] made, with the time of its clock.
    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        _: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Called once for a timer that [`ProcessorContext::set_timer`] set, with its key and time.
    fn on_timer(
        &mut self,
        _: Self::KeyIn,
        _: i64,
        _: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Called when the task ends in order.
    fn close(&mut self) {}
}

/// A processor that leaves keys alone, so that its records need not be repartitioned.
pub trait FixedKeyProcessor: Clone + Send + 'static {
    /// The key.
    type Key: Data;
    /// The value of what comes in.
    type ValueIn: Data;
    /// The value of what goes out.
    type ValueOut: Data;

    /// The names of the states that the processor opens.
    fn states(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Called once, when the task's state is there and before its first record.
    fn init(
        &mut self,
        _: &mut ProcessorContext<'_, Self::Key, Self::ValueOut>,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Processes a record: each value that is returned goes on under the record's key, time and headers.
    fn process(
        &mut self,
        record: &Record<Self::Key, Self::ValueIn>,
        cx: &mut ProcessorContext<'_, Self::Key, Self::ValueOut>,
    ) -> Result<Vec<Self::ValueOut>, ProcessorError>;

    /// Called by a schedule that [`ProcessorContext::schedule`] made, with the time of its clock. What it sends on has to
    /// have a key of the task's own.
    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        _: &mut ProcessorContext<'_, Self::Key, Self::ValueOut>,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Called when the task ends in order.
    fn close(&mut self) {}
}

impl<P: FixedKeyProcessor> Processor for FixedKey<P> {
    type KeyIn = P::Key;
    type ValueIn = P::ValueIn;
    type KeyOut = P::Key;
    type ValueOut = P::ValueOut;

    fn states(&self) -> Vec<&str> {
        self.0.states()
    }

    fn init(
        &mut self,
        cx: &mut ProcessorContext<'_, P::Key, P::ValueOut>,
    ) -> Result<(), ProcessorError> {
        self.0.init(cx)
    }

    fn punctuate(
        &mut self,
        schedule: Schedule,
        time: i64,
        cx: &mut ProcessorContext<'_, P::Key, P::ValueOut>,
    ) -> Result<(), ProcessorError> {
        self.0.punctuate(schedule, time, cx)
    }

    fn close(&mut self) {
        self.0.close();
    }

    fn process(
        &mut self,
        record: Record<P::Key, P::ValueIn>,
        cx: &mut ProcessorContext<'_, P::Key, P::ValueOut>,
    ) -> Result<(), ProcessorError> {
        for value in self.0.process(&record, cx)? {
            cx.forward(Record {
                key: record.key.clone(),
                value,
                timestamp: record.timestamp,
                headers: record.headers.clone(),
            })?;
        }
        Ok(())
    }
}

/// Another output of a processor, of its own type: for what is late, invalid, or of another kind.
#[derive(Debug)]
pub struct Output<K, V> {
    name: String,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for Output<K, V> {
    fn clone(&self) -> Self {
        Self::new(&self.name)
    }
}

impl<K, V> Output<K, V> {
    /// An output with a name that is unique in its processor.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), types: PhantomData }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Runs a processor on each record. Its records may have other keys: what groups or joins them afterwards goes
    /// through a repartition topic.
    pub fn process<P: Processor<KeyIn = K, ValueIn = V>>(
        &self,
        processor: P,
    ) -> KStream<P::KeyOut, P::ValueOut> {
        let mut stream = self.processed("KSTREAM-PROCESSOR-", processor);
        stream.repartition = true;
        stream
    }

    /// Runs a processor on each record that leaves its key alone.
    pub fn process_values<P: FixedKeyProcessor<Key = K, ValueIn = V>>(
        &self,
        processor: P,
    ) -> KStream<K, P::ValueOut> {
        let mut stream = self.processed("KSTREAM-PROCESSVALUES-", FixedKey(processor, PhantomData));
        stream.key = self.key.clone();
        stream
    }

    /// The records that the processor behind this stream sends to another output. Only for what [`Self::process`] and
    /// [`Self::process_values`] return.
    pub fn output<L: Data, W: Data>(&self, output: &Output<L, W>) -> KStream<L, W> {
        let mut graph = self.graph.lock();
        let name = format!("{}-{}", self.name, output.name);
        let build =
            super::node::<L, W, _>(|assembly, id| PassThrough { children: assembly.children(id) });
        let id = graph.add_node(name.clone(), Kind::Processor, &[self.node], build);
        graph.nodes[id].output = Some(crate::topology::SideOutput {
            name: output.name.clone(),
            receiver: Arc::new(|assembly, id| {
                Box::new(Fan::<L, W>::of(vec![assembly.receiver(id)])) as Box<dyn Any + Send>
            }),
        });
        drop(graph);
        KStream {
            graph: self.graph.clone(),
            node: id,
            name,
            key: None,
            value: None,
            sources: self.sources.clone(),
            repartition: true,
            next_name: None,
        }
    }

    fn processed<P: Processor<KeyIn = K, ValueIn = V>>(
        &self,
        prefix: &str,
        processor: P,
    ) -> KStream<P::KeyOut, P::ValueOut> {
        let mut states: Vec<String> = processor.states().into_iter().map(str::to_owned).collect();
        let timers = processor.timers().map(|timers| timers.name().to_owned());
        states.extend(
            timers.iter().filter(|timers| !states.contains(timers)).cloned().collect::<Vec<_>>(),
        );
        let mut graph = self.graph.lock();
        // Here a given name uses up no number.
        let name = match &self.next_name {
            Some(name) => name.clone(),
            None => graph.next_name(prefix),
        };
        let build = builder(processor, states.clone(), timers);
        let id = graph.add_node(name.clone(), Kind::Processor, &[self.node], build);
        for state in states {
            graph.connect(id, &state);
        }
        drop(graph);
        KStream {
            graph: self.graph.clone(),
            node: id,
            name,
            key: None,
            value: None,
            sources: self.sources.clone(),
            repartition: self.repartition,
            next_name: None,
        }
    }
}

/// The node that runs a processor.
pub(crate) fn builder<P: Processor>(
    processor: P,
    states: Vec<String>,
    timers: Option<String>,
) -> NodeBuilder {
    let processor = Mutex::new(processor);
    Arc::new(move |assembly: &mut Assembly<'_>, id: NodeId| {
        let mut outputs = BTreeMap::new();
        for (name, fan) in assembly.side_outputs(id) {
            outputs.insert(name, fan);
        }
        let running = Arc::new(Mutex::new(Running {
            node: assembly.name(id),
            processor: processor.lock().clone(),
            place: assembly.next_processor(),
            stores: states
                .iter()
                .map(|name| (name.clone(), assembly.store::<()>(name).index()))
                .collect(),
            timers: timers.as_deref().map(|name| assembly.store(name)),
            children: assembly.children(id),
            outputs,
        }));
        assembly.add_processor(Box::new(Process(running.clone())));
        let node =
            guarded::<P::KeyIn, P::ValueIn>(assembly, id, Stage::Processing, Process(running));
        Box::new(node) as Box<dyn Any + Send>
    })
}

impl Topology {
    /// Adds a key-value store for processors, logged to a changelog.
    pub fn kv_store<K: crate::StreamType, V: crate::StreamType>(
        &self,
        name: &str,
    ) -> KvState<K, V> {
        self.kv_store_with(Materialized::named(name))
    }

    /// [`Self::kv_store`] with serdes, a changelog and a place of your own, or for so many keys or so long. It needs a
    /// name, and has no cache: what a processor writes is logged at once.
    ///
    /// ```
    /// use fleuve_streams::processor::KvState;
    /// use fleuve_streams::{Materialized, Topology};
    ///
    /// let app = Topology::new("app");
    /// let recent: KvState<String, i64> = app.kv_store_with(Materialized::named("recent").lru(1_000));
    /// ```
    pub fn kv_store_with<K: crate::StreamType, V: crate::StreamType>(
        &self,
        materialized: Materialized<K, V>,
    ) -> KvState<K, V> {
        KvState::add(self, materialized)
    }

    /// Adds a key-value store for processors that keeps what each key was during the last `history_ms` of event time,
    /// logged to a changelog (KIP-889).
    pub fn versioned_store<K: crate::StreamType, V: crate::StreamType>(
        &self,
        name: &str,
        history_ms: i64,
    ) -> VersionedState<K, V> {
        VersionedState::add(self, name, history_ms)
    }

    /// Adds timers by key for a processor, logged to a changelog.
    pub fn timers<K: crate::StreamType>(&self, name: &str) -> TimerState<K> {
        TimerState::add(self, name, crate::SerdeOf::usual())
    }

    /// Adds a window store for processors, logged to a changelog, for windows of `size_ms` that are kept for
    /// `retention_ms`.
    pub fn window_store<K: crate::StreamType, V: crate::StreamType>(
        &self,
        name: &str,
        size_ms: i64,
        retention_ms: i64,
    ) -> WindowState<K, V> {
        self.window_store_with(size_ms, Materialized::named(name).retention_ms(retention_ms))
    }

    /// [`Self::window_store`] with serdes, a changelog and a place of your own. It needs a name, keeps windows as long as
    /// they are unless a retention is said, and has no cache.
    pub fn window_store_with<K: crate::StreamType, V: crate::StreamType>(
        &self,
        size_ms: i64,
        materialized: Materialized<K, V>,
    ) -> WindowState<K, V> {
        WindowState::add(self, size_ms, materialized)
    }

    /// Adds a session store for processors, logged to a changelog, of sessions that are kept for `retention_ms` after
    /// their end.
    pub fn session_store<K: crate::StreamType, V: crate::StreamType>(
        &self,
        name: &str,
        retention_ms: i64,
    ) -> SessionState<K, V> {
        self.session_store_with(retention_ms, Materialized::named(name))
    }

    /// [`Self::session_store`] with serdes, a changelog and a place of your own. It needs a name, and has no cache.
    pub fn session_store_with<K: crate::StreamType, V: crate::StreamType>(
        &self,
        retention_ms: i64,
        materialized: Materialized<K, V>,
    ) -> SessionState<K, V> {
        SessionState::add(self, retention_ms, materialized)
    }
}

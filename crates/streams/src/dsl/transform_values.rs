//! Tables whose values a transformer of the program's makes: it sees its task, and may have state.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use super::ktable::{KTable, TableView};
use super::processor::{ProcessorContext, ProcessorError};
use super::{Closure, Materialized, Stage};
use crate::operator::guarded::guarded;
use crate::operator::source::TableEmit;
use crate::operator::table::Getter;
use crate::operator::transform_values::{TableTransform, TransformGetter, Transforming};
use crate::record::{Data, Record};
use crate::runtime::{Assembly, Schedule};
use crate::serde::StreamType;
use crate::topology::{Graph, NodeBuilder, NodeId};

/// What a [`ValueTransformer`] sees of its task: everything, but it sends nothing, since there are no records of these types.
pub type TransformContext<'a> = ProcessorContext<'a, Infallible, Infallible>;

/// Makes the rows of a table from those of another. Each task gets a clone of it, and so does each operator that looks
/// rows of the result up.
///
/// ```
/// use fleuve_streams::processor::{KvState, ProcessorError, State, TransformContext, ValueTransformer};
/// use fleuve_streams::{Record, TestDriver, Topology};
///
/// /// Prices in the currency that the row's shop had when the row changed.
/// #[derive(Clone)]
/// struct Converted {
///     rates: KvState<String, i64>,
/// }
///
/// impl ValueTransformer for Converted {
///     type Key = String;
///     type ValueIn = i64;
///     type ValueOut = i64;
///
///     fn states(&self) -> Vec<&str> {
///         vec![self.rates.name()]
///     }
///
///     fn transform(
///         &mut self,
///         row: &Record<String, Option<i64>>,
///         cx: &mut TransformContext<'_>,
///     ) -> Result<Option<i64>, ProcessorError> {
///         let rate = cx.state(&self.rates).get(&row.key)?;
///         Ok(row.value.zip(rate).map(|(price, rate)| price * rate))
///     }
/// }
///
/// let app = Topology::new("shop");
/// app.table_with::<String, i64>("rates", Default::default(), fleuve_streams::Materialized::named("rates"));
/// let prices = app.table::<String, i64>("prices");
/// prices.transform_values(Converted { rates: KvState::of("rates") }).to_stream().to("out");
///
/// let mut driver = TestDriver::new(&app).unwrap();
/// driver.input("rates").send("tea", &3_i64);
/// driver.input("prices").send("tea", &4_i64);
/// driver.output::<String, i64>("out").expect([("tea", 12)]);
/// ```
pub trait ValueTransformer: Clone + Send + 'static {
    /// The key, which stays.
    type Key: Data;
    /// The value of a row that comes in.
    type ValueIn: Data;
    /// The value of a row that goes out.
    type ValueOut: Data;

    /// The names of the states that the transformer opens.
    fn states(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Called once, when the task's state is there and before its first record.
    fn init(&mut self, _: &mut TransformContext<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// What a row becomes. A row without a value is gone, or was never there; `None` takes the result's row away.
    ///
    /// A table that has no store of its own is asked again: for old values where an operator behind it wants to know
    /// them, right after the new value and with its time; and for current ones by joins, with the time at which the row
    /// changed, or -1 where there is none.
    fn transform(
        &mut self,
        row: &Record<Self::Key, Option<Self::ValueIn>>,
        cx: &mut TransformContext<'_>,
    ) -> Result<Option<Self::ValueOut>, ProcessorError>;

    /// Called by a schedule that [`ProcessorContext::schedule`] made, with the time of its clock.
    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        _: &mut TransformContext<'_>,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Called when the task ends in order.
    fn close(&mut self) {}
}

impl<K: Data, V: Data> KTable<K, V> {
    /// Has a transformer make each value: [`Self::map_values_with_key`] with a look at states, times and headers.
    pub fn transform_values<T: ValueTransformer<Key = K, ValueIn = V>>(
        &self,
        transformer: T,
    ) -> KTable<K, T::ValueOut> {
        let states = states_of(&transformer);
        let transformer = Arc::new(Closure::new(transformer));
        let node = self.add_transformer(&transformer, &states);
        let view = Transformed { node, parent: self.view.clone(), transformer, states };
        self.graph.lock().nodes[node].passes_versions = true;
        self.at(node, self.key.clone(), None, Arc::new(view))
    }

    /// [`Self::transform_values`] kept in a store, if that has a name: then the transformer is asked once for each update.
    pub fn transform_values_with<T: ValueTransformer<Key = K, ValueIn = V>>(
        &self,
        materialized: Materialized<K, T::ValueOut>,
        transformer: T,
    ) -> KTable<K, T::ValueOut>
    where
        K: StreamType,
        T::ValueOut: StreamType,
    {
        let Some(store) = materialized.name.clone() else {
            // Here a store without a name uses up no number.
            let mut table = self.transform_values(transformer).without_versions();
            table.key = materialized.key.or(table.key);
            table.value = materialized.value;
            return table;
        };
        let states = states_of(&transformer);
        let node = self.add_transformer(&Arc::new(Closure::new(transformer)), &states);
        self.kept_at(node, store, materialized)
    }

    fn add_transformer<T: ValueTransformer<Key = K, ValueIn = V>>(
        &self,
        transformer: &Arc<Closure<T>>,
        states: &[String],
    ) -> NodeId {
        let node = self.add("KTABLE-TRANSFORMVALUES-", builder(transformer.clone(), states));
        let mut graph = self.graph.lock();
        for state in states {
            graph.connect(node, state);
        }
        node
    }
}

fn states_of<T: ValueTransformer>(transformer: &T) -> Vec<String> {
    transformer.states().into_iter().map(str::to_owned).collect()
}

/// The node that runs a transformer.
fn builder<T: ValueTransformer>(transformer: Arc<Closure<T>>, states: &[String]) -> NodeBuilder {
    let states = states.to_vec();
    Arc::new(move |assembly: &mut Assembly<'_>, id: NodeId| {
        let operator = TableTransform {
            node: assembly.name(id),
            transforming: Transforming::begin(id, transformer.get(), &states, assembly),
            emit: TableEmit::new(assembly, id),
        };
        let node = guarded(assembly, id, Stage::Processing, operator);
        Box::new(node) as Box<dyn Any + Send>
    })
}

/// A table that a transformer makes and that has no store of its own.
struct Transformed<T: ValueTransformer> {
    node: NodeId,
    parent: Arc<dyn TableView<T::Key, T::ValueIn>>,
    transformer: Arc<Closure<T>>,
    states: Vec<String>,
}

impl<T: ValueTransformer> TableView<T::Key, T::ValueOut> for Transformed<T> {
    fn enable_old(&self, graph: &mut Graph, force: bool) -> bool {
        let enabled = self.parent.enable_old(graph, force);
        if enabled {
            graph.nodes[self.node].sends_old = true;
        }
        enabled
    }

    fn stores(&self, graph: &mut Graph) -> Vec<String> {
        let mut stores = self.parent.stores(graph);
        stores.extend(self.states.iter().cloned());
        stores
    }

    fn getter(&self, assembly: &mut Assembly<'_>) -> Box<dyn Getter<T::Key, T::ValueOut>> {
        Box::new(TransformGetter {
            parent: self.parent.getter(assembly),
            transforming: Transforming::begin(
                self.node,
                self.transformer.get(),
                &self.states,
                assembly,
            ),
        })
    }
}

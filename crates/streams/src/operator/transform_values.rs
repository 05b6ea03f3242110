//! Tables that a transformer of the program's makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::guarded::{Attempt, Failure};
use super::process::{ProcessorContext, sent_as};
use super::source::TableEmit;
use super::table::{Getter, stored};
use crate::dsl::ProcessorError;
use crate::dsl::processor::{TransformContext, ValueTransformer};
use crate::error::Cause;
use crate::record::{Change, Headers, Record};
use crate::runtime::{Assembly, Cx, Fan, Problem, Punctuated, Schedule};
use crate::state::{Stamped, StoreError};
use crate::topology::NodeId;

/// A transformer with everything it may reach.
pub(crate) struct Transforming<T> {
    transformer: T,
    /// Its place among the processors of the task.
    place: usize,
    stores: Vec<(String, usize)>,
}

/// A transformer as its task and its operator share it.
type Shared<T> = Arc<Mutex<Transforming<T>>>;

impl<T: ValueTransformer> Transforming<T> {
    /// A transformer whose task calls it by time.
    pub(crate) fn begin(
        node: NodeId,
        transformer: T,
        states: &[String],
        assembly: &mut Assembly<'_>,
    ) -> Shared<T> {
        let stores = states.iter().map(|name| (name.clone(), assembly.store::<()>(name).index()));
        let transforming = Arc::new(Mutex::new(Self {
            transformer,
            place: assembly.next_processor(),
            stores: stores.collect(),
        }));
        let node = assembly.name(node);
        assembly.add_processor(Box::new(ByTime { node, transforming: transforming.clone() }));
        transforming
    }

    fn call<R>(
        &mut self,
        cx: &mut Cx,
        punctuating: bool,
        call: impl FnOnce(&mut T, &mut TransformContext<'_>) -> Result<R, ProcessorError>,
    ) -> Result<R, ProcessorError> {
        let (mut children, mut outputs, mut failed) = (Fan::None, BTreeMap::new(), None);
        let mut context = ProcessorContext {
            cx,
            place: self.place,
            stores: &self.stores,
            children: &mut children,
            outputs: &mut outputs,
            failed: &mut failed,
            punctuating,
        };
        call(&mut self.transformer, &mut context)
    }
}

/// The operator: rows come in, and what the transformer makes of them goes out.
pub(crate) struct TableTransform<T: ValueTransformer> {
    pub(crate) node: Arc<str>,
    pub(crate) transforming: Shared<T>,
    pub(crate) emit: TableEmit<T::Key, T::ValueOut>,
}

impl<T: ValueTransformer> Attempt<T::Key, Change<T::ValueIn>> for TableTransform<T> {
    fn attempt(
        &mut self,
        record: Record<T::Key, Change<T::ValueIn>>,
        cx: &mut Cx,
    ) -> Result<(), Failure> {
        let Record { key, value: Change { old, new, is_latest }, timestamp, headers } = record;
        let mut row = Record { key, value: new, timestamp, headers };
        let new = self.transformed(&row, cx)?;
        let old = match self.emit.slot {
            _ if !self.emit.sends_old() => None,
            Some(slot) => stored(&self.node, slot, &row.key, cx)?,
            // Also for what was not there: a transformer may make something of that, too.
            None => {
                row.value = old;
                self.transformed(&row, cx)?
            }
        };
        let change = Change { old, new, is_latest };
        let Record { key, timestamp, headers, .. } = row;
        Ok(self.emit.send(Record { key, value: change, timestamp, headers }, cx)?)
    }
}

impl<T: ValueTransformer> TableTransform<T> {
    fn transformed(
        &mut self,
        row: &Record<T::Key, Option<T::ValueIn>>,
        cx: &mut Cx,
    ) -> Result<Option<T::ValueOut>, Failure> {
        let mut transforming = self.transforming.lock();
        // A join before may have given the row another time than its input record has.
        let made = sent_as(cx, &row.headers, row.timestamp, |cx| {
            transforming.call(cx, false, |transformer, context| transformer.transform(row, context))
        });
        made.map_err(|error| Failure::Here(Cause::User(Arc::from(error))))
    }
}

/// Looks into the parent and transforms.
pub(crate) struct TransformGetter<T: ValueTransformer> {
    pub(crate) parent: Box<dyn Getter<T::Key, T::ValueIn>>,
    pub(crate) transforming: Shared<T>,
}

/// The time of a row that is not there.
const NEVER: i64 = -1;

impl<T: ValueTransformer> TransformGetter<T> {
    fn transformed(
        &mut self,
        key: &T::Key,
        row: Option<Stamped<T::ValueIn>>,
        cx: &mut Cx,
    ) -> Result<Option<Stamped<T::ValueOut>>, StoreError> {
        let timestamp = row.as_ref().map_or(NEVER, |row| row.timestamp);
        let row = Record {
            key: key.clone(),
            value: row.map(|row| row.value),
            timestamp,
            headers: Headers::default(),
        };
        // The record that is being processed is another operator's.
        let made = self
            .transforming
            .lock()
            .call(cx, true, |transformer, context| transformer.transform(&row, context));
        let made = made.map_err(|error| StoreError::Transformer(Arc::from(error)))?;
        Ok(made.map(|value| Stamped { value, timestamp }))
    }
}

impl<T: ValueTransformer> Getter<T::Key, T::ValueOut> for TransformGetter<T> {
    fn get(
        &mut self,
        key: &T::Key,
        cx: &mut Cx,
    ) -> Result<Option<Stamped<T::ValueOut>>, StoreError> {
        let row = self.parent.get(key, cx)?;
        self.transformed(key, row, cx)
    }

    fn get_as_of(
        &mut self,
        key: &T::Key,
        timestamp: i64,
        cx: &mut Cx,
    ) -> Result<Option<Stamped<T::ValueOut>>, StoreError> {
        let row = self.parent.get_as_of(key, timestamp, cx)?;
        self.transformed(key, row, cx)
    }
}

/// A transformer among the processors of its task.
struct ByTime<T> {
    node: Arc<str>,
    transforming: Shared<T>,
}

impl<T: ValueTransformer> ByTime<T> {
    fn call(
        &mut self,
        cx: &mut Cx,
        call: impl FnOnce(&mut T, &mut TransformContext<'_>) -> Result<(), ProcessorError>,
    ) -> Result<(), Problem> {
        let called = self.transforming.lock().call(cx, true, call);
        called.or_else(|error| cx.absorb(Problem::new(&self.node, Cause::User(Arc::from(error)))))
    }
}

impl<T: ValueTransformer> Punctuated for ByTime<T> {
    fn init(&mut self, cx: &mut Cx) -> Result<(), Problem> {
        self.call(cx, T::init)
    }

    fn punctuate(
        &mut self,
        schedule: Schedule,
        timestamp: i64,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        self.call(cx, |transformer, context| transformer.punctuate(schedule, timestamp, context))
    }

    fn fire_timers(&mut self, _: i64, _: &mut Cx) -> Result<(), Problem> {
        Ok(())
    }

    fn close(&mut self) {
        self.transforming.lock().transformer.close();
    }
}

//! Nodes that run a program's own processors.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;

use super::guarded::{Attempt, Failure};
use crate::dsl::{GlobalKTable, Output, Processor, ProcessorError, State, TimerState};
use crate::error::Cause;
use crate::record::{Data, Headers, Record};
use crate::runtime::{
    Clock, Counter, Cx, Distribution, END_OF_TIME, Fan, Origin, Problem, Punctuated, Schedule,
    StoreSlot,
};
use crate::state::TimerStore;

/// A processor's node: in the tree of its parent, and among the processors of its task, which call it by time.
pub(crate) struct Process<P: Processor>(pub(crate) Arc<Mutex<Running<P>>>);

/// A processor with everything it may reach.
pub(crate) struct Running<P: Processor> {
    pub(crate) node: Arc<str>,
    pub(crate) processor: P,
    /// Its place among the processors of the task.
    pub(crate) place: usize,
    pub(crate) stores: Vec<(String, usize)>,
    pub(crate) timers: Option<StoreSlot<TimerStore<P::KeyIn>>>,
    pub(crate) children: Fan<P::KeyOut, P::ValueOut>,
    pub(crate) outputs: BTreeMap<String, Box<dyn Any + Send>>,
}

/// What a processor sees of its task, and how it sends records on.
pub struct ProcessorContext<'a, K, V> {
    pub(crate) cx: &'a mut Cx,
    pub(super) place: usize,
    pub(super) stores: &'a [(String, usize)],
    pub(super) children: &'a mut Fan<K, V>,
    pub(super) outputs: &'a mut BTreeMap<String, Box<dyn Any + Send>>,
    /// A failure downstream, kept while the processor passes an error of ours up.
    pub(super) failed: &'a mut Option<Problem>,
    pub(super) punctuating: bool,
}

/// Tells a processor that a record it sent has failed downstream. To be passed up.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a record failed downstream")]
pub struct FailedDownstream;

impl<K: Data, V: Data> ProcessorContext<'_, K, V> {
    /// Sends a record to the processor's children.
    pub fn forward(&mut self, record: Record<K, V>) -> Result<(), FailedDownstream> {
        let sent = sent_as(self.cx, &record.headers, record.timestamp, |cx| {
            self.children.push(record.clone(), cx)
        });
        sent.map_err(|problem| self.fail(problem))
    }

    /// Sends a record to another output of the processor. Nobody may be listening there.
    pub fn forward_to<L: Data, W: Data>(
        &mut self,
        output: &Output<L, W>,
        record: Record<L, W>,
    ) -> Result<(), FailedDownstream> {
        let Some(children) = self.outputs.get_mut(output.name()) else {
            return Ok(());
        };
        let children: &mut Fan<L, W> =
            children.downcast_mut().expect("one output has one type: its handle's");
        let sent = sent_as(self.cx, &record.headers, record.timestamp, |cx| {
            children.push(record.clone(), cx)
        });
        sent.map_err(|problem| self.fail(problem))
    }

    fn fail(&mut self, problem: Problem) -> FailedDownstream {
        *self.failed = Some(problem);
        FailedDownstream
    }
}

impl<K, V> ProcessorContext<'_, K, V> {
    /// The input record that is being processed; `None` when called by time.
    pub fn origin(&self) -> Option<&Origin> {
        (!self.punctuating).then_some(&self.cx.origin)
    }

    /// Wall-clock time in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.cx.now_ms
    }

    /// The highest event time the task has seen, or -1.
    pub fn stream_time_ms(&self) -> i64 {
        self.cx.stream_time_ms
    }

    /// The partition number of the task.
    pub fn partition(&self) -> i32 {
        self.cx.partition
    }

    /// Asks to be called every `interval_ms` through [`Processor::punctuate`].
    pub fn schedule(&mut self, interval_ms: i64, clock: Clock) -> Schedule {
        let first_ms = match clock {
            Clock::StreamTime => 0,
            Clock::WallClock => self.cx.now_ms + interval_ms,
        };
        self.cx.schedules.add(self.place, clock, first_ms, interval_ms)
    }

    /// Ends a schedule.
    pub fn cancel(&mut self, schedule: Schedule) {
        self.cx.schedules.cancel(schedule);
    }

    /// A counter of the program's own, shared by all tasks of the instance. [`crate::TestDriver::counter`] and
    /// [`crate::Streams::counters`] read it. What is counted twice because a record is processed again counts twice.
    pub fn counter(&self, name: &str) -> Counter {
        self.cx.globals.tallies().counter(name)
    }

    /// A distribution of the program's own: number, sum, lowest and highest of the values it is given.
    pub fn distribution(&self, name: &str) -> Distribution {
        self.cx.globals.tallies().distribution(name)
    }

    /// Looks up a key in a global table: a side input.
    pub fn look_up<L: Data, W: Data>(
        &self,
        table: &GlobalKTable<L, W>,
        key: &L,
    ) -> Result<Option<W>, ProcessorError> {
        let found = self.cx.globals.reader::<L, W>(&table.store).get(key)?;
        Ok(found.map(|stamped| stamped.value))
    }

    /// Asks for a commit soon.
    pub fn commit(&mut self) {
        self.cx.commit_requested = true;
    }

    /// Opens a state that the processor named in [`Processor::states`].
    ///
    /// # Panics
    /// If it did not.
    pub fn state<'a, S: State>(&'a mut self, state: &S) -> S::View<'a> {
        let index = self
            .stores
            .iter()
            .find(|(name, _)| name == state.name())
            .unwrap_or_else(|| panic!("the processor does not name the state {}", state.name()))
            .1;
        state.view(self.cx, index)
    }

    /// Calls [`Processor::on_timer`] for the key once the task's event time has reached `at_ms`.
    ///
    /// # Panics
    /// If the processor does not give these timers in [`Processor::timers`].
    pub fn set_timer<T: Data>(
        &mut self,
        timers: &TimerState<T>,
        key: &T,
        at_ms: i64,
    ) -> Result<(), ProcessorError> {
        Ok(self.state(timers).set(key, at_ms)?)
    }
}

/// Runs something as if the input record had these headers and this time: what stores downstream note is theirs.
pub(super) fn sent_as<R>(
    cx: &mut Cx,
    headers: &Headers,
    timestamp: i64,
    send: impl FnOnce(&mut Cx) -> R,
) -> R {
    let before = (cx.origin.timestamp, std::mem::replace(&mut cx.origin.headers, headers.clone()));
    cx.origin.timestamp = timestamp;
    let result = send(cx);
    (cx.origin.timestamp, cx.origin.headers) = before;
    result
}

impl<P: Processor> Running<P> {
    fn call(
        &mut self,
        cx: &mut Cx,
        punctuating: bool,
        call: impl FnOnce(
            &mut P,
            &mut ProcessorContext<'_, P::KeyOut, P::ValueOut>,
        ) -> Result<(), ProcessorError>,
    ) -> Result<(), Failure> {
        let mut failed = None;
        let mut context = ProcessorContext {
            cx: &mut *cx,
            place: self.place,
            stores: &self.stores,
            children: &mut self.children,
            outputs: &mut self.outputs,
            failed: &mut failed,
            punctuating,
        };
        let result = call(&mut self.processor, &mut context);
        match (failed, result) {
            (Some(problem), _) => Err(Failure::Below(problem)),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => Err(Failure::Here(Cause::User(Arc::from(error)))),
        }
    }

    /// Calls the processor where there is no record to try again.
    fn call_by_time(
        &mut self,
        cx: &mut Cx,
        call: impl FnOnce(
            &mut P,
            &mut ProcessorContext<'_, P::KeyOut, P::ValueOut>,
        ) -> Result<(), ProcessorError>,
    ) -> Result<(), Problem> {
        match self.call(cx, true, call) {
            Ok(()) => Ok(()),
            Err(Failure::Below(problem)) => Err(problem),
            Err(Failure::Here(cause)) => cx.absorb(Problem::new(&self.node, cause)),
        }
    }
}

impl<P: Processor> Attempt<P::KeyIn, P::ValueIn> for Process<P> {
    fn attempt(
        &mut self,
        record: Record<P::KeyIn, P::ValueIn>,
        cx: &mut Cx,
    ) -> Result<(), Failure> {
        let (headers, timestamp) = (record.headers.clone(), record.timestamp);
        // A join before may have given the record another time than its input record has.
        sent_as(cx, &headers, timestamp, |cx| {
            self.0.lock().call(cx, false, |processor, context| processor.process(record, context))
        })
    }
}

impl<P: Processor> Punctuated for Process<P> {
    fn init(&mut self, cx: &mut Cx) -> Result<(), Problem> {
        self.0.lock().call_by_time(cx, |processor, context| processor.init(context))
    }

    fn punctuate(
        &mut self,
        schedule: Schedule,
        timestamp: i64,
        cx: &mut Cx,
    ) -> Result<(), Problem> {
        self.0.lock().call_by_time(cx, |processor, context| {
            processor.punctuate(schedule, timestamp, context)
        })
    }

    fn fire_timers(&mut self, until_ms: i64, cx: &mut Cx) -> Result<(), Problem> {
        let mut running = self.0.lock();
        let Some(timers) = running.timers else {
            return Ok(());
        };
        // At the end only those that are set by now: one that sets itself again would go on for ever.
        let until_ms = match until_ms {
            END_OF_TIME => {
                let latest = cx.store(timers).0.latest();
                let latest = latest.map_err(|error| Problem::store(&running.node, error))?;
                latest.unwrap_or(i64::MIN)
            }
            until_ms => until_ms,
        };
        loop {
            let now_ms = cx.stream_time_ms;
            let due = cx.store(timers).0.take_due(until_ms, now_ms);
            let Some((at_ms, key)) = due.map_err(|error| Problem::store(&running.node, error))?
            else {
                return Ok(());
            };
            cx.punctuating(at_ms);
            running
                .call_by_time(cx, |processor, context| processor.on_timer(key, at_ms, context))?;
        }
    }

    fn close(&mut self) {
        self.0.lock().processor.close();
    }
}

/// A processor of values as a processor.
#[derive(Clone)]
pub(crate) struct FixedKey<P>(pub(crate) P, pub(crate) PhantomData<fn()>);

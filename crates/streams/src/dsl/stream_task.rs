//! Samza's task interface, as a thin layer over processors.

use super::KStream;
use super::processor::{Processor, ProcessorContext, ProcessorError};
use crate::record::{Data, Record};
use crate::runtime::{Clock, Schedule};

/// A task that processes records and is called at intervals, as in Samza. Its context is collector and coordinator: it
/// sends records, opens states and asks for commits.
pub trait StreamTask: Clone + Send + 'static {
    /// The key of what comes in.
    type KeyIn: Data;
    /// The value of what comes in.
    type ValueIn: Data;
    /// The key of what goes out.
    type KeyOut: Data;
    /// The value of what goes out.
    type ValueOut: Data;

    /// The names of the states that the task opens.
    fn states(&self) -> Vec<&str> {
        Vec::new()
    }

    /// How often [`Self::window`] is called, by the time of day in milliseconds (`task.window.ms`).
    fn window_ms(&self) -> Option<i64> {
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

    /// Called at intervals.
    fn window(
        &mut self,
        _: &mut ProcessorContext<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// A stream task as a processor.
#[derive(Clone)]
struct AsProcessor<T>(T);

impl<T: StreamTask> Processor for AsProcessor<T> {
    type KeyIn = T::KeyIn;
    type ValueIn = T::ValueIn;
    type KeyOut = T::KeyOut;
    type ValueOut = T::ValueOut;

    fn states(&self) -> Vec<&str> {
        self.0.states()
    }

    fn init(
        &mut self,
        cx: &mut ProcessorContext<'_, T::KeyOut, T::ValueOut>,
    ) -> Result<(), ProcessorError> {
        if let Some(window_ms) = self.0.window_ms() {
            cx.schedule(window_ms, Clock::WallClock);
        }
        self.0.init(cx)
    }

    fn process(
        &mut self,
        record: Record<T::KeyIn, T::ValueIn>,
        cx: &mut ProcessorContext<'_, T::KeyOut, T::ValueOut>,
    ) -> Result<(), ProcessorError> {
        self.0.process(record, cx)
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        _: i64,
        cx: &mut ProcessorContext<'_, T::KeyOut, T::ValueOut>,
    ) -> Result<(), ProcessorError> {
        self.0.window(cx)
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Runs a Samza task on each record.
    pub fn run_task<T: StreamTask<KeyIn = K, ValueIn = V>>(
        &self,
        task: T,
    ) -> KStream<T::KeyOut, T::ValueOut> {
        self.process(AsProcessor(task))
    }
}

//! Streams that call the world outside: record by record without waiting for each (Flink's asynchronous I/O), and in
//! batches (Spark's `foreachBatch`).

use std::any::Any;
use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Closure, KStream};
use crate::operator::async_map::{Answer, AsyncMap};
use crate::operator::batch::BatchSink;
use crate::operator::stateless::UserError;
use crate::record::{Data, Record};
use crate::runtime::{Assembly, Cx, Deferring, Down, Origin, Problem};
use crate::topology::NodeBuilder;

/// In which order the results of asynchronous calls go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AsyncOrder {
    /// As the records came: a slow call holds up those behind it.
    Overall,
    /// As the records of each key came; a key's calls follow one another.
    #[default]
    ByKey,
    /// As they come.
    None,
}

/// Records given to the program at once.
pub struct Batch<'a, K, V> {
    /// The records, in order.
    pub records: &'a [Record<K, V>],
    /// The input record of the first: with [`Self::last`] it tells two batches apart, and a repeated one.
    pub first: &'a Origin,
    /// The input record of the last.
    pub last: &'a Origin,
    /// The partition number of the task.
    pub partition: i32,
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Turns each value into what an asynchronous call says, with up to `limit` records of a task under way at once.
    ///
    /// The calls run on the task's thread, as part of it: they must not block. Offsets are committed only once
    /// everything behind them has gone on. Errors are a matter of the program's policy; a retry calls again.
    ///
    /// ```
    /// use fleuve_streams::{AsyncOrder, TestDriver, Topology};
    ///
    /// let app = Topology::new("prices");
    /// app.stream::<String, i64>("orders")
    ///     .map_async(100, AsyncOrder::ByKey, |_item, count| async move { Ok::<_, String>(count * 2) })
    ///     .to("priced");
    ///
    /// let mut driver = TestDriver::new(&app).unwrap();
    /// driver.input("orders").at(0).send(&"tea".to_owned(), &3_i64);
    /// assert_eq!(driver.output::<String, i64>("priced").pairs(), [("tea".to_owned(), 6)]);
    /// ```
    pub fn map_async<W: Data, E: Into<UserError>, A>(
        &self,
        limit: usize,
        order: AsyncOrder,
        call: impl FnMut(K, V) -> A + Clone + Send + 'static,
    ) -> KStream<K, W>
    where
        K: Eq + Hash,
        A: Future<Output = Result<W, E>> + Send + 'static,
    {
        let call = Closure::new(call);
        let build: NodeBuilder = Arc::new(move |assembly, id| {
            let mut call = call.get();
            let operator = AsyncMap {
                node: assembly.name(id),
                call: Box::new(move |key, value| {
                    let answer = call(key, value);
                    let answer: Answer<W> =
                        Box::pin(async move { answer.await.map_err(Into::into) });
                    answer
                }),
                limit: limit.max(1),
                order,
                retry: assembly.plan.policies.processing.attempts().cloned(),
                entries: VecDeque::new(),
                busy: HashSet::new(),
                children: assembly.children(id),
            };
            deferring::<K, V>(assembly, operator)
        });
        let mut stream = self.derive("KSTREAM-MAPASYNC-", build);
        stream.key = self.key.clone();
        stream
    }

    /// Ends the stream by giving it to the program in batches: of `size` records, and of what there is before each
    /// commit. A batch that succeeded is committed with the next commit; one that failed is a matter of the program's
    /// policy, and is given again after a crash.
    pub fn for_each_batch<E: Into<UserError>>(
        &self,
        size: usize,
        mut action: impl FnMut(Batch<'_, K, V>) -> Result<(), E> + Clone + Send + 'static,
    ) {
        let action = Closure::new(move |batch: Batch<'_, K, V>| {
            action(batch).map_err(Into::<UserError>::into)
        });
        let build: NodeBuilder = Arc::new(move |assembly, id| {
            let operator = BatchSink {
                node: assembly.name(id),
                action: action.get(),
                size: size.max(1),
                retry: assembly.plan.policies.processing.attempts().cloned(),
                records: Vec::new(),
                inputs: Vec::new(),
                failed: None,
            };
            deferring::<K, V>(assembly, operator)
        });
        self.derive::<K, V>("KSTREAM-FOREACHBATCH-", build);
    }
}

/// The node of an operator that its task has to call too.
fn deferring<K: Data, V: Data>(
    assembly: &mut Assembly<'_>,
    operator: impl Down<K, V> + Deferring + 'static,
) -> Box<dyn Any + Send> {
    let operator = Arc::new(Mutex::new(operator));
    assembly.add_deferring(operator.clone());
    let node: Box<dyn Down<K, V>> = Box::new(InTree(operator));
    Box::new(node)
}

/// An operator in the tree of its parent; the task has another hold of it.
struct InTree<T>(Arc<Mutex<T>>);

impl<K: Data, V: Data, T: Down<K, V>> Down<K, V> for InTree<T> {
    fn push(&mut self, record: Record<K, V>, cx: &mut Cx) -> Result<(), Problem> {
        self.0.lock().push(record, cx)
    }
}

//! Joins of a stream with a table: each event looks up its key.

use std::marker::PhantomData;
use std::sync::Arc;

use super::ktable::KTable;
use super::{Closure, KStream, node};
use crate::operator::stream_table_join::StreamTableJoin;
use crate::record::Data;
use crate::serde::StreamType;

impl<K: StreamType, V: StreamType> KStream<K, V> {
    /// Events whose key the table has, with its value. Updates of the table send nothing by themselves.
    pub fn join<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        mut joiner: impl FnMut(&V, &W) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup(table, false, move |_, value, row| match row {
            Some(row) => joiner(value, row),
            None => unreachable!("an inner join joins two values"),
        })
    }

    /// All events, with the table's value where it has one.
    pub fn left_join<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        mut joiner: impl FnMut(&V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        self.lookup(table, true, move |_, value, row| joiner(value, row))
    }

    fn lookup<W: Data, R: Data>(
        &self,
        table: &KTable<K, W>,
        left: bool,
        joiner: impl FnMut(&K, &V, Option<&W>) -> R + Clone + Send + 'static,
    ) -> KStream<K, R> {
        let stream = if self.repartition {
            let prefix = self.next_name.as_deref().unwrap_or(&self.name);
            let mut stream = self.repartitioned_for_join(prefix);
            stream.next_name = self.next_name.clone();
            stream
        } else {
            self.clone()
        };
        let joiner = Closure::new(joiner);
        let view: Arc<dyn super::ktable::TableView<K, W>> = table.view.clone();
        let getter = view.clone();
        let prefix = if left { "KSTREAM-LEFTJOIN-" } else { "KSTREAM-JOIN-" };
        let mut joined = stream.derive(
            prefix,
            node::<K, V, _>(move |assembly, id| StreamTableJoin {
                node: assembly.name(id),
                left,
                joiner: joiner.get(),
                table: getter.getter(assembly),
                children: assembly.children(id),
                result: PhantomData,
            }),
        );
        joined.key = stream.key.clone();
        joined.repartition = false;
        joined.sources = stream.sources.union(&table.sources).copied().collect();
        let mut graph = self.graph.lock();
        graph.copartition(joined.sources.clone());
        for store in view.stores(&mut graph) {
            graph.connect(joined.node, &store);
        }
        drop(graph);
        joined
    }
}

//! Streams taken as tables.

use std::sync::Arc;

use super::ktable::{KTable, SourceTable, TableView};
use super::{KStream, Materialized, node};
use crate::operator::source::TableEmit;
use crate::operator::table::ToTable;
use crate::record::Data;
use crate::serde::{SerdeOf, StreamType};
use crate::topology::Kind;

impl<K: Data, V: Data> KStream<K, V> {
    /// Takes the stream as a table: each record sets its key's value.
    pub fn to_table(&self) -> KTable<K, V>
    where
        K: StreamType,
        V: StreamType,
    {
        self.to_table_with(Materialized::unnamed())
    }

    /// [`Self::to_table`] in the given store.
    pub fn to_table_with(&self, materialized: Materialized<K, V>) -> KTable<K, V>
    where
        K: StreamType,
        V: StreamType,
    {
        let key =
            materialized.key.clone().or_else(|| self.key.clone()).unwrap_or_else(SerdeOf::usual);
        let value = materialized
            .value
            .clone()
            .or_else(|| self.value.clone())
            .unwrap_or_else(SerdeOf::usual);
        let (name, store) = {
            let mut graph = self.graph.lock();
            let name = graph.name_or(self.next_name.as_deref(), "KSTREAM-TOTABLE-");
            let store = match &materialized.name {
                Some(store) => store.clone(),
                None => graph.next_store_name("KSTREAM-TOTABLE-"),
            };
            (name, store)
        };
        let parent = if self.repartition {
            self.repartitioned(&name, None, key.clone(), value.clone())
        } else {
            self.clone()
        };
        let mut graph = self.graph.lock();
        let id = graph.add_node(
            name,
            Kind::Processor,
            &[parent.node],
            node::<K, V, _>(|assembly, id| ToTable::<K, V> {
                node: assembly.name(id),
                emit: TableEmit::new(assembly, id),
            }),
        );
        let named = materialized.name.is_some();
        let view = Arc::new(SourceTable {
            node: id,
            store,
            key: key.clone(),
            value: value.clone(),
            materialized,
        });
        if named {
            view.stores(&mut graph);
        }
        drop(graph);
        KTable {
            graph: self.graph.clone(),
            node: id,
            key: Some(key),
            value: Some(value),
            sources: parent.sources,
            view,
            next_name: None,
        }
    }
}

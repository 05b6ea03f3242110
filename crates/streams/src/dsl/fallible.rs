//! Operators whose closures may fail; the program's [`super::ErrorPolicy`] says what happens then.

use std::any::Any;
use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{Closure, KGroupedStream, KStream, Stage};
use crate::operator::guarded::guarded;
use crate::operator::stateless::{TryMap, UserError};
use crate::record::Data;
use crate::serde::StreamType;
use crate::topology::NodeBuilder;

impl<K: Data, V: Data> KStream<K, V> {
    /// [`Self::filter`] that may fail.
    pub fn try_filter<E: Into<UserError>>(
        &self,
        mut predicate: impl FnMut(&K, &V) -> Result<bool, E> + Clone + Send + 'static,
    ) -> Self {
        let mapper = Closure::new(move |key: K, value: V| {
            let kept = predicate(&key, &value).map_err(Into::into)?;
            Ok(kept.then_some((key, value)))
        });
        self.same("KSTREAM-FILTER-", builder(mapper))
    }

    /// [`Self::map`] that may fail.
    pub fn try_map<L: Data, W: Data, E: Into<UserError>>(
        &self,
        mut mapper: impl FnMut(K, V) -> Result<(L, W), E> + Clone + Send + 'static,
    ) -> KStream<L, W> {
        let mapper =
            Closure::new(move |key, value| mapper(key, value).map(Some).map_err(Into::into));
        self.rekeyed("KSTREAM-MAP-", builder(mapper))
    }

    /// [`Self::map_values`] that may fail.
    pub fn try_map_values<W: Data, E: Into<UserError>>(
        &self,
        mut mapper: impl FnMut(V) -> Result<W, E> + Clone + Send + 'static,
    ) -> KStream<K, W> {
        self.try_map_values_with_key(move |_, value| mapper(value))
    }

    /// [`Self::map_values_with_key`] that may fail.
    pub fn try_map_values_with_key<W: Data, E: Into<UserError>>(
        &self,
        mut mapper: impl FnMut(&K, V) -> Result<W, E> + Clone + Send + 'static,
    ) -> KStream<K, W> {
        let mapper = Closure::new(move |key: K, value: V| {
            let value = mapper(&key, value).map_err(Into::into)?;
            Ok(Some((key, value)))
        });
        self.keyed("KSTREAM-MAPVALUES-", builder(mapper))
    }

    /// [`Self::select_key`] that may fail.
    pub fn try_select_key<L: Data, E: Into<UserError>>(
        &self,
        mut selector: impl FnMut(&K, &V) -> Result<L, E> + Clone + Send + 'static,
    ) -> KStream<L, V> {
        let mapper = Closure::new(move |key: K, value: V| {
            let key = selector(&key, &value).map_err(Into::into)?;
            Ok(Some((key, value)))
        });
        let mut stream = self.rekeyed("KSTREAM-KEY-SELECT-", builder(mapper));
        stream.value = self.value.clone();
        stream
    }

    /// [`Self::group_by`] that may fail.
    pub fn try_group_by<L: StreamType, E: Into<UserError>>(
        &self,
        selector: impl FnMut(&K, &V) -> Result<L, E> + Clone + Send + 'static,
    ) -> KGroupedStream<L, V>
    where
        V: StreamType,
    {
        self.try_select_key(selector).group_by_key()
    }

    /// [`Self::flat_map`] that may fail: then none of the records is sent.
    pub fn try_flat_map<L: Data, W: Data, I, E: Into<UserError>>(
        &self,
        mut mapper: impl FnMut(K, V) -> Result<I, E> + Clone + Send + 'static,
    ) -> KStream<L, W>
    where
        I: IntoIterator<Item = (L, W)> + 'static,
    {
        let mapper = Closure::new(move |key, value| mapper(key, value).map_err(Into::into));
        self.rekeyed("KSTREAM-FLATMAP-", builder(mapper))
    }

    /// [`Self::flat_map_values`] that may fail: then none of the values is sent.
    pub fn try_flat_map_values<W: Data, I, E: Into<UserError>>(
        &self,
        mut mapper: impl FnMut(V) -> Result<I, E> + Clone + Send + 'static,
    ) -> KStream<K, W>
    where
        I: IntoIterator<Item = W> + 'static,
    {
        let mapper = Closure::new(move |key: K, value: V| {
            let values = mapper(value).map_err(Into::into)?;
            Ok(values.into_iter().map(move |value| (key.clone(), value)))
        });
        self.keyed("KSTREAM-FLATMAPVALUES-", builder(mapper))
    }

    /// [`Self::peek`] that may fail.
    pub fn try_peek<E: Into<UserError>>(
        &self,
        mut action: impl FnMut(&K, &V) -> Result<(), E> + Clone + Send + 'static,
    ) -> Self {
        let mapper = Closure::new(move |key: K, value: V| {
            action(&key, &value).map_err(Into::into)?;
            Ok(Some((key, value)))
        });
        self.same("KSTREAM-PEEK-", builder(mapper))
    }

    /// [`Self::for_each`] that may fail.
    pub fn try_for_each<E: Into<UserError>>(
        &self,
        mut action: impl FnMut(&K, &V) -> Result<(), E> + Clone + Send + 'static,
    ) {
        let mapper = Closure::new(move |key: K, value: V| {
            action(&key, &value).map_err(Into::into)?;
            Ok(None::<(K, V)>)
        });
        self.derive::<K, V>("KSTREAM-FOREACH-", builder(mapper));
    }

    /// A child with the same key.
    fn keyed<W>(&self, prefix: &str, build: NodeBuilder) -> KStream<K, W> {
        let mut stream = self.derive(prefix, build);
        stream.key = self.key.clone();
        stream
    }
}

fn builder<K: Data, V: Data, L: Data, W: Data, F, I>(mapper: Closure<F>) -> NodeBuilder
where
    F: FnMut(K, V) -> Result<I, Box<dyn Error + Send + Sync>> + Clone + Send + 'static,
    I: IntoIterator<Item = (L, W)> + 'static,
{
    Arc::new(move |assembly, id| {
        let operator =
            TryMap { mapper: mapper.get(), children: assembly.children(id), input: PhantomData };
        let node = guarded::<K, V>(assembly, id, Stage::Processing, operator);
        Box::new(node) as Box<dyn Any + Send>
    })
}

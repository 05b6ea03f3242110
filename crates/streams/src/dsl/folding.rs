//! What an aggregation does with its records, as boxed closures that each task gets clones of.

use std::sync::Arc;

use super::Closure;
use crate::operator::aggregate::Initial;
use crate::operator::session_aggregate::Merger;

/// Begins an aggregate, adds a value to it, and merges two.
pub(crate) struct Folding<K, V, A> {
    initial: Arc<dyn Fn() -> Initial<A> + Send + Sync>,
    add: Arc<dyn Fn() -> Add<K, V, A> + Send + Sync>,
}

/// Adds a value to an aggregate, or begins one.
pub(crate) type Add<K, V, A> = Box<dyn FnMut(&K, V, Option<A>) -> A + Send>;

/// Makes the merger of each task.
pub(crate) type Merging<K, A> = Arc<dyn Fn() -> Merger<K, A> + Send + Sync>;

impl<K, V, A> Clone for Folding<K, V, A> {
    fn clone(&self) -> Self {
        Self { initial: self.initial.clone(), add: self.add.clone() }
    }
}

impl<K: 'static, V: 'static, A: 'static> Folding<K, V, A> {
    /// Begins with `initial`.
    pub(crate) fn aggregate(
        initial: impl FnMut() -> A + Clone + Send + 'static,
        add: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
    ) -> Self {
        let (initial, add) = (Arc::new(Closure::new(initial)), Closure::new(add));
        let begin = initial.clone();
        Self {
            initial: Arc::new(move || {
                let mut initial = begin.get();
                Box::new(move || Some(initial()))
            }),
            add: Arc::new(move || {
                let (mut initial, mut add) = (initial.get(), add.get());
                Box::new(move |key, value, aggregate| {
                    let aggregate = aggregate.unwrap_or_else(&mut initial);
                    add(key, value, aggregate)
                })
            }),
        }
    }

    pub(crate) fn initial(&self) -> Initial<A> {
        (self.initial)()
    }

    pub(crate) fn add(&self) -> Add<K, V, A> {
        (self.add)()
    }
}

impl<K: 'static, V: 'static> Folding<K, V, V> {
    /// Begins with the first value.
    pub(crate) fn reduce(reducer: impl FnMut(V, V) -> V + Clone + Send + 'static) -> Self {
        let reducer = Closure::new(reducer);
        Self {
            initial: Arc::new(|| Box::new(|| None)),
            add: Arc::new(move || {
                let mut reducer = reducer.get();
                Box::new(move |_, value, aggregate| match aggregate {
                    Some(aggregate) => reducer(aggregate, value),
                    None => value,
                })
            }),
        }
    }
}

/// Merges sessions; the first of a record's session may be nothing yet.
pub(crate) fn merging<K: 'static, A: 'static>(
    merger: impl FnMut(&K, A, A) -> A + Clone + Send + 'static,
) -> Merging<K, A> {
    let merger = Closure::new(merger);
    Arc::new(move || {
        let mut merger = merger.get();
        Box::new(move |key, one, two| match one {
            Some(one) => merger(key, one, two),
            None => two,
        })
    })
}

//! Splits: each record goes to the first branch that accepts it.

use std::sync::Arc;

use super::{Closure, KStream, node};
use crate::operator::stateless::{PassThrough, Predicate, Split};
use crate::record::Data;

/// A split being written: conditions in order, then what is done with each branch.
pub struct Branches<K, V> {
    stream: KStream<K, V>,
    predicates: Vec<Closure<Accepts<K, V>>>,
    /// What the branches' names end with, where that is not their number.
    names: Vec<Option<String>>,
}

type Accepts<K, V> = Arc<dyn Fn(&K, &V) -> bool + Send + Sync>;

impl<K: Data, V: Data> KStream<K, V> {
    /// Sends each record to the first branch that accepts it.
    pub fn split(&self) -> Branches<K, V> {
        Branches { stream: self.clone(), predicates: Vec::new(), names: Vec::new() }
    }
}

impl<K: Data, V: Data> Branches<K, V> {
    /// Adds a branch for records that the predicate accepts and no earlier branch took.
    pub fn branch(mut self, accepts: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.predicates.push(Closure::new(Arc::new(accepts)));
        self.names.push(None);
        self
    }

    /// [`Self::branch`], its node named after the split's followed by this.
    pub fn branch_named(
        mut self,
        name: &str,
        accepts: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
    ) -> Self {
        self = self.branch(accepts);
        if let Some(last) = self.names.last_mut() {
            *last = Some(name.to_owned());
        }
        self
    }

    /// Ends the split; the last stream gets what no branch took.
    pub fn default_branch(self) -> Vec<KStream<K, V>> {
        self.finish(true)
    }

    /// Ends the split; what no branch took is dropped.
    pub fn no_default_branch(self) -> Vec<KStream<K, V>> {
        self.finish(false)
    }

    fn finish(self, has_default: bool) -> Vec<KStream<K, V>> {
        let count = self.predicates.len();
        let (predicates, names) = (self.predicates, self.names);
        let build = node::<K, V, _>(move |assembly, id| Split {
            predicates: predicates
                .iter()
                .map(|predicate| {
                    let accepts = predicate.get();
                    let accepts: Predicate<K, V> = Box::new(move |key, value| accepts(key, value));
                    accepts
                })
                .collect(),
            has_default,
            children: assembly.children(id),
        });
        let split: KStream<K, V> = self.stream.same("KSTREAM-BRANCH-", build);
        // The default branch is number 0, the others count from 1, as there.
        let mut branches: Vec<KStream<K, V>> = Vec::with_capacity(count + 1);
        let numbers = (1..=count).chain(has_default.then_some(0));
        for number in numbers {
            let given = number.checked_sub(1).and_then(|place| names.get(place)?.as_deref());
            let name = match given {
                Some(given) => format!("{}{given}", split.name),
                None => format!("{}{number}", split.name),
            };
            let branch = split.named(&name).same(
                "",
                node::<K, V, _>(|assembly, id| PassThrough { children: assembly.children(id) }),
            );
            branches.push(branch);
        }
        branches
    }
}

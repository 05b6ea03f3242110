//! Aggregation in two steps, for input in which a few keys are frequent: Storm's partial key grouping with the merge
//! behind it.
//!
//! ```text
//! records -> STORE-partial-repartition, each key to the less loaded of two partitions -> a part of its aggregate there
//!         -> STORE-merge-repartition, by key -> the newest part of each origin, put together
//! ```
//!
//! A part replaces the one before it from the same task, so that the result is that of an aggregation in one step as
//! soon as all parts have arrived, however often they are sent.

use std::marker::PhantomData;

use super::processor::{FixedKeyProcessor, ProcessorContext, ProcessorError};
use super::{KGroupedStream, KTable, Materialized, Partitioning};
use crate::record::{Data, Record};
use crate::serde::{Parts, SerdeOf, StreamType};

impl<K: StreamType, V: StreamType> KGroupedStream<K, V> {
    /// Counts the records of each key in the named store, in two steps: see [`Self::aggregate_balanced`].
    pub fn count_balanced(&self, store: &str) -> KTable<K, i64> {
        self.aggregate_balanced(
            store,
            || 0,
            |_: &K, _: V, count: i64| count + 1,
            |_: &K, one: i64, other: i64| one + other,
        )
    }

    /// Folds the records of each key in two steps, so that a frequent key is the work of two tasks instead of one: each
    /// record goes to the less loaded of two partitions of its key ([`Partitioning::two_choices`]), where `aggregator`
    /// folds it into a part of the aggregate, and `merger` puts the parts together, by key. A cache in between sends a
    /// part once per commit, not once per record. The result is in the named store.
    ///
    /// The order of a key's records is lost where it is split: `aggregator` and `merger` must not depend on it.
    ///
    /// ```
    /// use fleuve_streams::{TestDriver, Topology};
    ///
    /// let app = Topology::new("pages");
    /// let visits = app.stream::<String, String>("visits");
    /// visits.group_by_key().count_balanced("visits").to_stream().to("counts");
    ///
    /// let mut driver = TestDriver::with_partitions(&app, 4).unwrap();
    /// for _ in 0..10 {
    ///     driver.input("visits").send("front page", "a visit");
    /// }
    /// assert_eq!(driver.store::<String, i64>("visits"), [("front page".to_owned(), 10)]);
    /// ```
    pub fn aggregate_balanced<A: StreamType>(
        &self,
        store: &str,
        initial: impl FnMut() -> A + Clone + Send + 'static,
        aggregator: impl FnMut(&K, V, A) -> A + Clone + Send + 'static,
        mut merger: impl FnMut(&K, A, A) -> A + Clone + Send + 'static,
    ) -> KTable<K, A> {
        let (partial, merge) = (format!("{store}-partial"), format!("{store}-merge"));
        let (key, value) = (self.key.clone(), self.value.clone());
        let by = Some(Partitioning::two_choices());
        let stream = self.stream.repartitioned_by(&partial, None, key.clone(), value.clone(), by);
        let spread = KGroupedStream { stream, key: key.clone(), value, repartition_name: None };
        let tagged = spread
            .aggregate(&partial, initial, aggregator)
            .to_stream()
            .process_values(Tag { types: PhantomData });
        let stream = tagged.repartitioned_by(&merge, None, key.clone(), SerdeOf::usual(), None);
        let gathered = KGroupedStream {
            stream,
            key: key.clone(),
            value: SerdeOf::usual(),
            repartition_name: None,
        };
        gathered.reduce(&merge, |parts: Parts<A>, newer| parts.replaced(newer)).map_values_with(
            Materialized::named(store),
            move |key, parts| {
                let mut values = parts.0.iter().map(|(_, value)| value.clone());
                let first = values
                    .next()
                    .expect("a key has the part that it came with: none without is read");
                values.fold(first, |one, other| merger(key, one, other))
            },
        )
    }
}

/// Says which task a part comes from.
struct Tag<K, A> {
    types: PhantomData<fn() -> (K, A)>,
}

impl<K, A> Clone for Tag<K, A> {
    fn clone(&self) -> Self {
        Self { types: PhantomData }
    }
}

impl<K: Data, A: Data> FixedKeyProcessor for Tag<K, A> {
    type Key = K;
    type ValueIn = Option<A>;
    type ValueOut = Parts<A>;

    fn process(
        &mut self,
        record: &Record<K, Option<A>>,
        cx: &mut ProcessorContext<'_, K, Parts<A>>,
    ) -> Result<Vec<Parts<A>>, ProcessorError> {
        let part = record.value.clone().map(|value| Parts(vec![(cx.partition(), value)]));
        Ok(part.into_iter().collect())
    }
}

//! What a test takes out, and says it expects.

use std::fmt::Debug;

use crate::record::Record;

/// Records that a test takes out of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TestRecords<K, V>(pub(super) Vec<TestRecord<K, V>>);

/// A record with its partition.
#[derive(Clone, Debug, PartialEq)]
pub struct TestRecord<K, V> {
    /// Its partition.
    pub partition: i32,
    /// The record.
    pub record: Record<K, V>,
}

/// What a test expects of a record: `(key, value)`, or `(key, value, timestamp)`.
pub trait Expected<K, V> {
    /// Whether the record is as expected.
    fn is_met_by(&self, record: &Record<K, V>) -> bool;
}

impl<K: PartialEq<A>, V: PartialEq<B>, A, B> Expected<K, V> for (A, B) {
    fn is_met_by(&self, record: &Record<K, V>) -> bool {
        record.key == self.0 && record.value == self.1
    }
}

impl<K: PartialEq<A>, V: PartialEq<B>, A, B> Expected<K, V> for (A, B, i64) {
    fn is_met_by(&self, record: &Record<K, V>) -> bool {
        record.key == self.0 && record.value == self.1 && record.timestamp == self.2
    }
}

impl<K, V> TestRecords<K, V> {
    /// Keys and values.
    pub fn pairs(self) -> Vec<(K, V)> {
        self.0.into_iter().map(|test| (test.record.key, test.record.value)).collect()
    }

    /// Keys, values and timestamps.
    pub fn stamped(self) -> Vec<(K, V, i64)> {
        self.0
            .into_iter()
            .map(|test| (test.record.key, test.record.value, test.record.timestamp))
            .collect()
    }

    /// The records themselves.
    pub fn records(self) -> Vec<TestRecord<K, V>> {
        self.0
    }
}

impl<K: Debug, V: Debug> TestRecords<K, V> {
    /// Checks that these records came, and no others, in this order.
    ///
    /// # Panics
    /// If others came.
    #[track_caller]
    pub fn expect<E: Expected<K, V> + Debug>(self, expected: impl IntoIterator<Item = E>) {
        let expected: Vec<E> = expected.into_iter().collect();
        let met = expected.len() == self.0.len()
            && expected.iter().zip(&self.0).all(|(one, found)| one.is_met_by(&found.record));
        assert!(met, "{}", self.difference(&expected));
    }

    /// Checks that these records came, and no others, in any order: keys of several partitions have none in common.
    ///
    /// # Panics
    /// If others came.
    #[track_caller]
    pub fn expect_in_any_order<E: Expected<K, V> + Debug>(
        self,
        expected: impl IntoIterator<Item = E>,
    ) {
        let expected: Vec<E> = expected.into_iter().collect();
        let mut left: Vec<&TestRecord<K, V>> = self.0.iter().collect();
        let all_came = expected.iter().all(|one| {
            let place = left.iter().position(|found| one.is_met_by(&found.record));
            place.map(|place| left.swap_remove(place)).is_some()
        });
        assert!(all_came && left.is_empty(), "{}", self.difference(&expected));
    }

    /// Checks that nothing came.
    ///
    /// # Panics
    /// If something did.
    #[track_caller]
    pub fn expect_none(self) {
        assert!(self.0.is_empty(), "{}", self.difference::<()>(&[]));
    }

    fn difference<E: Debug>(&self, expected: &[E]) -> String {
        let mut text = String::from("expected:\n");
        for one in expected {
            text += &format!("  {one:?}\n");
        }
        text += "found:\n";
        for found in &self.0 {
            let Record { key, value, timestamp, .. } = &found.record;
            text += &format!("  ({key:?}, {value:?}, {timestamp}) in {}\n", found.partition);
        }
        text
    }
}

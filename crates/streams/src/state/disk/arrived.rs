//! Rows that are restored, in the order in which they came: one piece of memory for all of them.
//!
//! A restoration writes millions of rows that nobody asks for before it is done. So they are put in order once, when
//! they go into a table, and none of them has memory of its own.

use bytes::Bytes;

use super::backend::put_data_key;

/// Rows with their keys as they stand in the database.
#[derive(Default)]
pub(super) struct Arrived {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// Whether some row does not stand behind the one before it.
    is_mixed: bool,
}

/// Where a row is.
#[derive(Clone, Copy)]
struct Row {
    start: usize,
    key: u32,
    /// The length of the value, or [`DELETES`].
    value: u32,
}

impl Arrived {
    /// Adds a row: the parts of its value, one behind the other, or its deletion.
    pub(super) fn push(&mut self, partition: u32, key: &[u8], value: Option<[&[u8]; 2]>) {
        let start = self.bytes.len();
        put_data_key(&mut self.bytes, partition, key);
        let end = self.bytes.len();
        for part in value.into_iter().flatten() {
            self.bytes.extend_from_slice(part);
        }
        let value = value.map_or(DELETES, |_| (self.bytes.len() - end) as u32);
        let row = Row { start, key: (end - start) as u32, value };
        if let Some(last) = self.rows.last() {
            self.is_mixed |= key_of(&self.bytes, last) >= key_of(&self.bytes, &row);
        }
        self.rows.push(row);
    }

    /// Takes all rows out. As much may come again: room for that is asked for at once, and costs nothing if it stays empty.
    pub(super) fn take(&mut self) -> Self {
        let room = |length: usize| length + length / 4;
        let next = Self {
            bytes: Vec::with_capacity(room(self.bytes.len())),
            rows: Vec::with_capacity(room(self.rows.len())),
            is_mixed: false,
        };
        std::mem::replace(self, next)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + self.rows.len() * size_of::<Row>()
    }

    /// The newest row of each key, in the order of the database. All share one piece of memory.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        let Self { bytes, mut rows, is_mixed } = self;
        if is_mixed {
            // Stable, so that the newest row of a key is its last one.
            rows.sort_by(|one, other| key_of(&bytes, one).cmp(key_of(&bytes, other)));
            rows.dedup_by(|newer, older| {
                let same = key_of(&bytes, newer) == key_of(&bytes, older);
                if same {
                    *older = *newer;
                }
                same
            });
        }
        let bytes = Bytes::from(bytes);
        rows.into_iter().map(move |Row { start, key, value }| {
            let end = start + key as usize;
            let value = (value != DELETES).then(|| bytes.slice(end..end + value as usize));
            (bytes.slice(start..end), value)
        })
    }
}

fn key_of<'a>(bytes: &'a [u8], row: &Row) -> &'a [u8] {
    &bytes[row.start..row.start + row.key as usize]
}

/// In place of a value's length: there is none. No record is that long.
const DELETES: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of these rows, as text.
    fn sorted(rows: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        let mut arrived = Arrived::default();
        for (key, value) in rows {
            let parts = value.map(|value| value.split_at(value.len() / 2));
            let parts = parts.map(|(one, two)| [one.as_bytes(), two.as_bytes()]);
            arrived.push(3, key.as_bytes(), parts);
        }
        assert_eq!(arrived.is_empty(), rows.is_empty());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let pairs = arrived.into_sorted().map(|(key, value)| {
            assert_eq!(key[..5], [0, 0, 0, 3, 1]);
            (text(&key[5..]), value.map(|value| text(&value)))
        });
        pairs.collect()
    }

    fn owned(rows: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        let owned =
            |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
        rows.iter().map(owned).collect()
    }

    #[test]
    fn rows_come_out_in_order_each_key_with_its_newest_value() {
        let ascending = [("a", Some("1")), ("ab", None), ("b", Some(""))];
        assert_eq!(sorted(&ascending), owned(&ascending));
        let mixed =
            [("b", Some("1")), ("a", Some("2")), ("b", None), ("c", None), ("c", Some("3"))];
        assert_eq!(sorted(&mixed), owned(&[("a", Some("2")), ("b", None), ("c", Some("3"))]));
        let again = [("a", Some("1")), ("a", Some("2"))];
        assert_eq!(sorted(&again), owned(&[("a", Some("2"))]));
        assert!(sorted(&[]).is_empty());
    }
}

//! Rows that are restored, in the order in which they came, in large pieces of memory.
//!
//! A restoration writes millions of rows that nobody asks for before it is done. So they are put in order once, when
//! they go into a table, and none of them has memory of its own.

use bytes::Bytes;

use super::backend::{PREFIX, put_data_key};

/// Rows with their keys as they stand in the database.
#[derive(Default)]
pub(super) struct Arrived {
    pieces: Vec<Vec<u8>>,
    /// The bytes in all pieces.
    length: usize,
    rows: Vec<Row>,
    /// Whether some row does not stand behind the one before it.
    is_mixed: bool,
}

/// Where a row is.
#[derive(Clone, Copy)]
struct Row {
    piece: u32,
    start: u32,
    key: u32,
    /// The length of the value, or [`DELETES`].
    value: u32,
}

impl Arrived {
    /// Adds a row: the parts of its value, one behind the other, or its deletion.
    pub(super) fn push(&mut self, partition: u32, key: &[u8], value: Option<[&[u8]; 2]>) {
        let key_length = PREFIX + key.len();
        let value_length = value.map_or(0, |parts| parts.iter().map(|part| part.len()).sum());
        let length = key_length + value_length;
        let has_room = |piece: &Vec<u8>| piece.capacity() - piece.len() >= length;
        if !self.pieces.last().is_some_and(has_room) {
            self.pieces.push(Vec::with_capacity(length.max(PIECE_BYTES)));
        }
        let place = self.pieces.len() - 1;
        let piece = &mut self.pieces[place];
        let start = piece.len();
        put_data_key(piece, partition, key);
        for part in value.into_iter().flatten() {
            piece.extend_from_slice(part);
        }
        self.length += length;
        let row = Row {
            piece: place as u32,
            start: start as u32,
            key: key_length as u32,
            value: value.map_or(DELETES, |_| value_length as u32),
        };
        if let Some(last) = self.rows.last() {
            self.is_mixed |= key_of(&self.pieces, last) >= key_of(&self.pieces, &row);
        }
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.length + self.rows.len() * size_of::<Row>()
    }

    /// The newest row of each key, in the order of the database, as parts of the pieces.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        let Self { pieces, mut rows, is_mixed, .. } = self;
        if is_mixed {
            // Stable, so that the newest row of a key is its last one.
            rows.sort_by(|one, other| key_of(&pieces, one).cmp(key_of(&pieces, other)));
            rows.dedup_by(|newer, older| {
                let same = key_of(&pieces, newer) == key_of(&pieces, older);
                if same {
                    *older = *newer;
                }
                same
            });
        }
        let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
        rows.into_iter().map(move |row| {
            let piece = &pieces[row.piece as usize];
            let (start, end) = (row.start as usize, (row.start + row.key) as usize);
            let value = (row.value != DELETES).then(|| piece.slice(end..end + row.value as usize));
            (piece.slice(start..end), value)
        })
    }
}

fn key_of<'a>(pieces: &'a [Vec<u8>], row: &Row) -> &'a [u8] {
    &pieces[row.piece as usize][row.start as usize..(row.start + row.key) as usize]
}

/// The size of a piece, unless a row is larger.
const PIECE_BYTES: usize = 256 << 10;
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
        let large = "x".repeat(PIECE_BYTES * 2 / 3);
        let spread =
            [("a", Some(&large[..])), ("b", Some("1")), ("a", Some(&large[1..])), ("c", None)];
        assert_eq!(sorted(&spread), owned(&[spread[2], spread[1], spread[3]]));
    }
}

//! What keys there may be: a Bloom filter that grows.
//!
//! A range of a table in a database costs a search in each of its files, also where there is nothing to be found. Most
//! events of a join find no partner in most segments, and this tells without asking the disk.
//!
//! A key sets some bits of one word. Layers, each twice as large as the one before, take so many keys that about one
//! of fifty strange keys is taken for one of theirs; the last one takes all that come behind, and becomes less sharp.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

/// Keys of which only hashes are kept.
pub(super) struct KeyFilter {
    layers: Vec<Layer>,
    hasher: DefaultHashBuilder,
}

struct Layer {
    words: Box<[u64]>,
    /// So many more keys are taken before the next layer begins.
    room: usize,
}

impl KeyFilter {
    pub(super) fn new() -> Self {
        Self { layers: vec![Layer::new(WORDS_MIN)], hasher: DefaultHashBuilder::default() }
    }

    pub(super) fn insert(&mut self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        if self.has(hash) {
            return;
        }
        let last = self.layers.last().expect("there is always one");
        let size = last.words.len();
        if last.room == 0 && size < WORDS_MAX {
            self.layers.push(Layer::new(2 * size));
        }
        let last = self.layers.last_mut().expect("there is always one");
        last.room = last.room.saturating_sub(1);
        let word = last.word(hash);
        last.words[word] |= bits(hash);
    }

    /// Whether a key may be among those that were inserted. It is not if this says so.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        self.has(self.hasher.hash_one(key))
    }

    fn has(&self, hash: u64) -> bool {
        let bits = bits(hash);
        // Newer layers are larger, and have what is asked for more often.
        self.layers.iter().rev().any(|layer| layer.words[layer.word(hash)] & bits == bits)
    }
}

impl Layer {
    fn new(words: usize) -> Self {
        Self { words: vec![0; words].into(), room: words * KEYS_OF_WORD }
    }

    /// The word of a key, by the upper half of its hash.
    fn word(&self, hash: u64) -> usize {
        (((hash >> 32) * self.words.len() as u64) >> 32) as usize
    }
}

/// The bits of a key within its word, by the lower half of its hash.
fn bits(hash: u64) -> u64 {
    (0..BITS).fold(0, |bits, number| bits | 1 << ((hash >> (6 * number)) & 63))
}

const BITS: u32 = 5;
/// Ten bits for each key.
const KEYS_OF_WORD: usize = 6;
/// 4 KiB.
const WORDS_MIN: usize = 512;
/// 8 MiB, and as much in all layers before: twelve million keys.
const WORDS_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> [u8; 8] {
        (u64::from(number) << 7).to_be_bytes()
    }

    #[test]
    fn what_was_inserted_is_never_denied_and_strangers_mostly_are() {
        let mut filter = KeyFilter::new();
        assert!(!filter.may_have(b""));
        let keys = 100_000;
        for number in 0..keys {
            filter.insert(&key(number));
        }
        assert!((0..keys).all(|number| filter.may_have(&key(number))));
        let taken = (keys..2 * keys).filter(|number| filter.may_have(&key(*number))).count();
        assert!(taken < 12_000, "{taken} of {keys} strangers");
        assert!(filter.layers.len() > 3, "{} layers", filter.layers.len());
    }

    #[test]
    fn keys_that_come_again_take_no_room() {
        let mut filter = KeyFilter::new();
        for number in 0..1_000_000 {
            filter.insert(&key(number % 1_000));
        }
        assert_eq!(filter.layers.len(), 1);
    }
}

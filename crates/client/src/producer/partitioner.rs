//! Which partition a record goes to when it does not say.

use crate::timing::random_u64;

/// Hashes a key the way Kafka's clients do, so that all of them agree on a key's partition.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MIX: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        word ^= word >> SHIFT;
        hash = hash.wrapping_mul(MIX) ^ word.wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        for (index, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

/// Returns the partition of `key` among `count`, as Kafka's default partitioner does.
pub fn partition_for_key(key: &[u8], count: usize) -> usize {
    // Java clears the sign bit before it takes the remainder.
    (murmur2(key) & 0x7fff_ffff) as usize % count.max(1)
}

/// Keeps records without a key on one partition until that has taken a batch (KIP-794).
///
/// Full batches to one partition after another cost less than thin ones to all at once, and bytes
/// spread evenly all the same.
#[derive(Debug)]
pub(super) struct Sticky {
    partition: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Sticky {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { partition: random_u64() as usize, bytes: 0, bytes_max }
    }

    /// Returns the partition for a record of `size` bytes among `count`.
    pub(super) fn next(&mut self, size: usize, count: usize) -> usize {
        if self.bytes >= self.bytes_max {
            self.bytes = 0;
            // Any other partition, all equally likely.
            let others = count.saturating_sub(1).max(1) as u64;
            self.partition = self.partition % count.max(1) + 1 + (random_u64() % others) as usize;
        }
        self.bytes += size;
        self.partition %= count.max(1);
        self.partition
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_ones_javas_client_computes() {
        // From `org.apache.kafka.common.utils.Utils.murmur2`.
        for (key, hash) in [
            (&b"21"[..], -973_932_308i32),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_sticky_partition_changes_after_a_batch_and_never_to_itself() {
        let mut sticky = Sticky::new(100);
        for count in [2, 3, 12] {
            let mut last = sticky.next(100, count);
            for _ in 0..100 {
                let next = sticky.next(60, count);
                assert!(next < count && next != last);
                assert_eq!(sticky.next(60, count), next, "the batch is not full yet");
                last = next;
            }
        }
        let mut single = Sticky::new(1);
        assert_eq!((0..5).map(|_| single.next(9, 1)).max(), Some(0));
    }
}

//! Which partition a record goes to when it does not say.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::record::Record;
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

/// Chooses partitions in a program's own way.
///
/// ```
/// use fleuve_client::producer::{Partitioner, Record};
///
/// /// Keeps the first partition for what must not wait.
/// #[derive(Debug)]
/// struct Urgent;
///
/// impl Partitioner for Urgent {
///     fn partition(&self, record: &Record<'_>, partitions: usize) -> Option<i32> {
///         let urgent = record.headers.iter().any(|header| header.key == b"urgent");
///         (urgent && partitions > 1).then_some(0)
///     }
/// }
///
/// let config = fleuve_client::ProducerConfig {
///     partitioner: Some(std::sync::Arc::new(Urgent)),
///     ..Default::default()
/// };
/// ```
pub trait Partitioner: std::fmt::Debug + Send + Sync + 'static {
    /// Returns the partition of a record that names none: a number below `partitions`, or sending
    /// it is an error. `None` leaves it to the record's key, or to the producer.
    ///
    /// It is called while the producer's batches are locked: it must not wait, nor send.
    fn partition(&self, record: &Record<'_>, partitions: usize) -> Option<i32>;
}

/// Gives the partitions of each topic one record after another, whatever their keys: Kafka's
/// `RoundRobinPartitioner`.
///
/// Batches are as many as partitions, and thin; without keys the producer's own choice costs less.
#[derive(Debug, Default)]
pub struct RoundRobinPartitioner {
    next: Mutex<HashMap<String, usize>>,
}

impl Partitioner for RoundRobinPartitioner {
    fn partition(&self, record: &Record<'_>, partitions: usize) -> Option<i32> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match next.get_mut(record.topic) {
            Some(next) => next,
            None => next.entry(record.topic.to_owned()).or_insert(random_u64() as usize),
        };
        *next = next.wrapping_add(1);
        i32::try_from(*next % partitions.max(1)).ok()
    }
}

/// Keeps records without a key on one partition until that has taken a batch (KIP-794).
///
/// Full batches to one partition after another cost less than thin ones to all at once, and bytes
/// spread evenly all the same. Where batches wait because a broker is slower than others, its
/// partitions get less.
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

    /// Returns the partition for a record of `size` bytes among `count`; `load` says how many
    /// batches of a partition wait, and nothing if its leader takes none.
    pub(super) fn next(
        &mut self,
        size: usize,
        count: usize,
        load: impl Fn(usize) -> Option<usize>,
    ) -> usize {
        if self.bytes >= self.bytes_max {
            self.bytes = 0;
            self.partition = self.another(count, load);
        }
        self.bytes += size;
        self.partition %= count.max(1);
        self.partition
    }

    fn another(&self, count: usize, load: impl Fn(usize) -> Option<usize>) -> usize {
        let loads = || (0..count).filter_map(|partition| Some((partition, load(partition)?)));
        let least = loads().map(|(_, load)| load).min();
        let most = loads().map(|(_, load)| load).max();
        if least == most && (least.is_none() || loads().count() == count) {
            // Any other partition, all equally likely.
            let others = count.saturating_sub(1).max(1) as u64;
            return self.partition % count.max(1) + 1 + (random_u64() % others) as usize;
        }
        // The one with the most that waits counts once, and others once more for each batch less.
        let weight = |load: usize| (most.unwrap_or(0) - load + 1) as u64;
        let total: u64 = loads().map(|(_, load)| weight(load)).sum();
        let mut drawn = random_u64() % total.max(1);
        for (partition, load) in loads() {
            match drawn.checked_sub(weight(load)) {
                Some(rest) => drawn = rest,
                None => return partition,
            }
        }
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
            let even = |_| Some(3);
            let mut last = sticky.next(100, count, even);
            for _ in 0..100 {
                let next = sticky.next(60, count, even);
                assert!(next < count && next != last);
                assert_eq!(sticky.next(60, count, even), next, "the batch is not full yet");
                last = next;
            }
        }
        let mut single = Sticky::new(1);
        assert_eq!((0..5).map(|_| single.next(9, 1, |_| Some(0))).max(), Some(0));
    }

    #[test]
    fn a_partition_where_batches_wait_gets_less_and_one_without_a_leader_nothing() {
        let mut sticky = Sticky::new(1);
        let load = |partition| [Some(0), Some(9), None, Some(9)][partition];
        let mut counts = [0; 4];
        for _ in 0..6000 {
            counts[sticky.next(1, 4, load)] += 1;
        }
        // The first is where it began, wherever that was; then ten, one and one of twelve.
        assert!((4500..5500).contains(&counts[0]), "{counts:?}");
        assert!(counts[2] <= 1, "{counts:?}");
        for waiting in [1, 3] {
            assert!((350..650).contains(&counts[waiting]), "{counts:?}");
        }
        let mut sticky = Sticky::new(1);
        let nobody = (0..100).map(|_| sticky.next(1, 3, |_| None));
        assert!(nobody.max() == Some(2), "with no leader at all, all are as good");
        let mut sticky = Sticky::new(1);
        sticky.next(1, 3, |_| None);
        let one = |partition| (partition == 1).then_some(0);
        assert!((0..100).all(|_| sticky.next(1, 3, one) == 1));
    }

    #[test]
    fn round_robin_goes_through_each_topics_partitions_in_turn() {
        let round_robin = RoundRobinPartitioner::default();
        let next = |topic, count| {
            let record = Record::new(topic).key("the same");
            round_robin.partition(&record, count).expect("always one")
        };
        let first = next("a", 3);
        assert_eq!([next("a", 3), next("a", 3)], [(first + 1) % 3, (first + 2) % 3]);
        next("b", 3);
        assert_eq!(next("a", 3), first, "topics count by themselves");
        assert_eq!(next("a", 1), 0);
    }
}

//! How records are spread over the partitions of a topic: Storm's groupings.

use std::sync::Arc;

use fleuve_client::producer::{murmur2, partition_for_key};

use super::Closure;
use crate::record::Headers;
use crate::serde::{SerdeOf, StreamType};

/// How records are spread over the partitions of a topic.
///
/// | Storm's grouping | here |
/// |---|---|
/// | fields | [`Self::by_key`], the default, and [`Self::by_fields`] |
/// | shuffle | [`Self::round_robin`] |
/// | partial key | [`Self::two_choices`] |
/// | all | [`Self::all`] |
/// | global | [`Self::global`] |
/// | direct | [`Self::to_partition`] |
/// | none | [`Self::none`] |
/// | local-or-shuffle | no topic at all: operators that follow one another run in one task |
pub struct Partitioning<K, V> {
    route: Arc<dyn Fn() -> Router<K, V> + Send + Sync>,
    /// Whether it has to know how many partitions there are.
    pub(crate) counts: bool,
    /// Whether records of one key stay together where Kafka's own partitioner would have them.
    pub(crate) by_key: bool,
}

impl<K, V> Clone for Partitioning<K, V> {
    fn clone(&self) -> Self {
        Self { route: self.route.clone(), counts: self.counts, by_key: self.by_key }
    }
}

/// Chooses for one task.
pub(crate) type Router<K, V> = Box<dyn FnMut(&Route<'_, K, V>) -> Choice + Send>;

/// What a choice rests on.
pub(crate) struct Route<'a, K, V> {
    pub(crate) key: &'a K,
    pub(crate) value: &'a V,
    pub(crate) key_bytes: Option<&'a [u8]>,
    /// How many partitions there are; at least one where it is asked for.
    pub(crate) partitions: i32,
    /// The partition of the task that sends.
    pub(crate) task: i32,
}

/// Where a record goes.
pub(crate) enum Choice {
    /// Where Kafka's default partitioner sends the key.
    Usual,
    One(i32),
    Several(Vec<i32>),
    All,
}

impl<K: 'static, V: 'static> Partitioning<K, V> {
    fn new(route: impl Fn() -> Router<K, V> + Send + Sync + 'static) -> Self {
        Self { route: Arc::new(route), counts: true, by_key: false }
    }

    /// Records of one key to one partition, the one that Kafka's default partitioner (murmur2) gives the key.
    pub fn by_key() -> Self {
        let mut usual = Self::new(|| Box::new(|_| Choice::Usual));
        (usual.counts, usual.by_key) = (false, true);
        usual
    }

    /// Records of which the closure says the same to one partition: the one of that as a key.
    pub fn by_fields<L: StreamType>(
        fields: impl FnMut(&K, &V) -> L + Clone + Send + 'static,
    ) -> Self {
        let fields = Closure::new(fields);
        Self::new(move || {
            let (mut fields, serde) = (fields.get(), SerdeOf::<L>::usual());
            Box::new(move |route| {
                let fields = fields(route.key, route.value);
                match serde.to_bytes("", &mut Headers::default(), &fields) {
                    Ok(Some(bytes)) => Choice::One(partition_of(&bytes, route.partitions)),
                    // Nothing to tell them apart by.
                    Ok(None) | Err(_) => Choice::One(0),
                }
            })
        })
    }

    /// Each record to the next partition, whatever its key.
    pub fn round_robin() -> Self {
        Self::new(|| {
            let mut next: Option<i32> = None;
            Box::new(move |route| {
                // Tasks begin at different places, so that short inputs are spread too.
                let place = next.unwrap_or(route.task).rem_euclid(route.partitions);
                next = Some(place + 1);
                Choice::One(place)
            })
        })
    }

    /// Each key to one of two partitions, the one to which this task has sent less: a frequent key no longer overloads
    /// one task. Grouping the stream afterwards brings what belongs together to one place again.
    pub fn two_choices() -> Self {
        Self::new(|| {
            let mut sent: Vec<u64> = Vec::new();
            Box::new(move |route| {
                sent.resize(route.partitions as usize, 0);
                let bytes = route.key_bytes.unwrap_or_default();
                let first = partition_of(bytes, route.partitions) as usize;
                let mut second = (mixed(murmur2(bytes)) % route.partitions as u32) as usize;
                if second == first {
                    second = (first + 1) % sent.len();
                }
                let place = if sent[second] < sent[first] { second } else { first };
                sent[place] += 1;
                Choice::One(place as i32)
            })
        })
    }

    /// A copy of each record to every partition: every task of those that read the topic sees everything.
    pub fn all() -> Self {
        Self::new(|| Box::new(|_| Choice::All))
    }

    /// Every record to partition 0, so that one task sees everything.
    pub fn global() -> Self {
        let mut global = Self::new(|| Box::new(|_| Choice::One(0)));
        global.counts = false;
        global
    }

    /// Each record to the partition that the closure names, from its key, its value and the number of partitions. A
    /// number beyond that is taken modulo it.
    pub fn to_partition(choose: impl FnMut(&K, &V, i32) -> i32 + Clone + Send + 'static) -> Self {
        let choose = Closure::new(choose);
        Self::new(move || {
            let mut choose = choose.get();
            Box::new(move |route| {
                let place = choose(route.key, route.value, route.partitions);
                Choice::One(place.rem_euclid(route.partitions))
            })
        })
    }

    /// Wherever it costs least: one partition for a while, then the next, so that batches fill.
    pub fn none() -> Self {
        Self::new(|| {
            let (mut sent, mut place) = (0_u32, None);
            Box::new(move |route| {
                let mut here: i32 = place.unwrap_or(route.task).rem_euclid(route.partitions);
                if sent >= STICKY_RECORDS {
                    here = (here + 1) % route.partitions;
                    sent = 0;
                }
                sent += 1;
                place = Some(here);
                Choice::One(here)
            })
        })
    }

    /// What a closure of the program chose: `None` for the usual partition.
    pub(crate) fn chosen(
        choose: impl Fn(&K, &V) -> Option<Vec<i32>> + Send + Sync + 'static,
    ) -> Self {
        let choose = Arc::new(choose);
        let mut chosen = Self::new(move || {
            let choose = choose.clone();
            Box::new(move |route| match choose(route.key, route.value) {
                Some(places) => Choice::Several(places),
                None => Choice::Usual,
            })
        });
        chosen.counts = false;
        chosen
    }

    pub(crate) fn router(&self) -> Router<K, V> {
        (self.route)()
    }
}

fn partition_of(key: &[u8], partitions: i32) -> i32 {
    partition_for_key(key, partitions as usize) as i32
}

/// Another hash out of one, independent enough for a second choice (the finalizer of murmur3).
fn mixed(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// How many records [`Partitioning::none`] sends to one partition before it takes the next.
const STICKY_RECORDS: u32 = 1000;

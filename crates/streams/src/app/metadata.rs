//! What is committed beside an offset, as Kafka Streams writes it, so that either goes on where the other stopped.
//!
//! ```text
//! base64 of: version i8 = 2, partition time i64, then unless empty
//!            count i32, count × (length i32, store name, i64 up to where its closed windows were sent)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::runtime::Progress;

const VERSION: u8 = 2;
/// The version without the part on stores.
const VERSION_TIME_ONLY: u8 = 1;
/// In the place of a store's name: the offset at which the input has ended, in a run that ends. Kafka Streams takes it for
/// a store that it does not have.
const END_OF_INPUT: &str = "fleuve.end.of.input";
/// Event time before any record.
const UNKNOWN_TIME: i64 = -1;

/// The text to commit for a topic's partition, /// beside the next offset to read.
pub(super) fn encode(progress: &Progress, topic: &str, offset: i64) -> String {
    let time = progress.partition_times.get(topic).copied().unwrap_or(UNKNOWN_TIME);
    let mut bytes = vec![VERSION];
    bytes.extend(time.to_be_bytes());
    let end = progress.finished.then_some((END_OF_INPUT, offset));
    let stores = progress.emitted_until.iter().map(|(store, until)| (store.as_str(), *until));
    let entries: Vec<(&str, i64)> = stores.chain(end).collect();
    if !entries.is_empty() {
        bytes.extend((entries.len() as i32).to_be_bytes());
        for (name, value) in entries {
            bytes.extend((name.len() as i32).to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(value.to_be_bytes());
        }
    }
    STANDARD.encode(bytes)
}

/// Adds to `progress` what was committed for a topic's partition. A text of somebody else's says nothing.
pub(super) fn decode(text: &str, topic: &Arc<str>, progress: &mut Progress) {
    if text.is_empty() {
        return;
    }
    let read = STANDARD.decode(text).ok().and_then(|bytes| read(&bytes));
    let Some((time, stores)) = read else {
        tracing::warn!(
            topic = &**topic,
            "the text beside a committed offset is not of a stream application"
        );
        return;
    };
    progress.partition_times.insert(topic.clone(), time);
    for (store, until) in stores.into_iter().filter(|(store, _)| store != END_OF_INPUT) {
        let known = progress.emitted_until.entry(store).or_insert(until);
        *known = until.max(*known);
    }
}

/// Whether the text says that the input ended at this offset, and that everything was sent that waited for event time.
pub(super) fn is_end(text: &str, offset: i64) -> bool {
    let read = STANDARD.decode(text).ok().and_then(|bytes| read(&bytes));
    read.is_some_and(|(_, entries)| entries.get(END_OF_INPUT) == Some(&offset))
}

fn read(bytes: &[u8]) -> Option<(i64, BTreeMap<String, i64>)> {
    let (version, mut rest) = bytes.split_first()?;
    if ![VERSION_TIME_ONLY, VERSION].contains(version) {
        return None;
    }
    let time = take_i64(&mut rest)?;
    let mut stores = BTreeMap::new();
    if *version == VERSION && !rest.is_empty() {
        // The count is not trusted: what follows has to be there.
        for _ in 0..take_i32(&mut rest)? {
            let length = usize::try_from(take_i32(&mut rest)?).ok()?;
            let name = rest.split_off(..length)?;
            let name = std::str::from_utf8(name).ok()?.to_owned();
            stores.insert(name, take_i64(&mut rest)?);
        }
    }
    Some((time, stores))
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    bytes.split_off(..4)?.try_into().ok().map(i32::from_be_bytes)
}

fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    bytes.split_off(..8)?.try_into().ok().map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(stores: &[(&str, i64)]) -> Progress {
        Progress {
            partition_times: BTreeMap::from([(Arc::from("in"), 1_700_000_000_000)]),
            emitted_until: stores
                .iter()
                .map(|(name, until)| ((*name).to_owned(), *until))
                .collect(),
            finished: false,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for stores in [&[][..], &[("counts", 17), ("sessions", -3)]] {
            let written = progress(stores);
            let mut found = Progress::default();
            decode(&encode(&written, "in", 5), &Arc::from("in"), &mut found);
            assert_eq!(found, written);
        }
    }

    #[test]
    fn an_end_is_that_of_its_offset_only() {
        let open = progress(&[("counts", 17)]);
        let ended = Progress { finished: true, ..open.clone() };
        let text = encode(&ended, "in", 5);
        assert!(is_end(&text, 5) && !is_end(&text, 6) && !is_end(&encode(&open, "in", 5), 5));
        // It is no store, and says nothing to the next task.
        let mut found = Progress::default();
        decode(&text, &Arc::from("in"), &mut found);
        assert_eq!(found, open);
    }

    #[test]
    fn the_bytes_are_those_of_kafka_streams() {
        // new TopicPartitionMetadata(1700000000000L, new ProcessorMetadata(Map.of("counts", 17L))).encode()
        assert_eq!(encode(&progress(&[]), "in", 5), "AgAAAYvP5WgA");
        assert_eq!(
            encode(&progress(&[("counts", 17)]), "in", 5),
            "AgAAAYvP5WgAAAAAAQAAAAZjb3VudHMAAAAAAAAAEQ=="
        );
    }

    #[test]
    fn other_texts_say_nothing() {
        let empty = Progress::default();
        for text in ["", "checkpoint 5", "AwAAAYvP5WgA", "AgAA", "AgAAAYvP5WgAf////w=="] {
            let mut found = Progress::default();
            decode(text, &Arc::from("in"), &mut found);
            assert_eq!(found, empty, "{text}");
        }
    }
}

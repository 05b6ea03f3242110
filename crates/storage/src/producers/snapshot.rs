//! The `.snapshot` file: all producers of a log at the offset in its name.
//!
//! ```text
//! 2 B  version, 1            then per producer:
//! 4 B  CRC-32C of all that   8 B  producer id      4 B  offsets in the last batch − 1
//!      follows               2 B  epoch            8 B  last timestamp
//! 4 B  number of producers   4 B  last sequence    4 B  coordinator epoch
//!                            8 B  last offset      8 B  first offset of its transaction, or −1
//! ```
//!
//! Only the last batch of a producer is kept, so after a restart from a snapshot only that one is
//! recognised as a duplicate; replayed batches are all remembered. That is Kafka's format.

use std::collections::HashMap;

use bytes::{Buf, BufMut};

use super::entry::{ProducerEntry, RecordedBatch};

const VERSION: i16 = 1;
const HEADER_SIZE: usize = 2 + 4;
const ENTRY_SIZE: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;

/// Encodes a snapshot of `producers`, sorted by id so that equal state gives equal files.
pub(crate) fn encode(producers: &HashMap<i64, ProducerEntry>) -> Vec<u8> {
    let mut sorted: Vec<_> = producers.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| **id);
    let mut body = Vec::with_capacity(4 + sorted.len() * ENTRY_SIZE);
    body.put_i32(sorted.len() as i32);
    for (id, entry) in sorted {
        let last = entry.batches.back();
        body.put_i64(*id);
        body.put_i16(entry.epoch);
        body.put_i32(entry.last_sequence());
        body.put_i64(last.map_or(-1, |batch| batch.last_offset));
        body.put_i32(last.map_or(0, |batch| batch.offset_delta));
        body.put_i64(entry.last_timestamp);
        body.put_i32(entry.coordinator_epoch);
        body.put_i64(entry.transaction_begin.unwrap_or(-1));
    }
    let mut file = Vec::with_capacity(HEADER_SIZE + body.len());
    file.put_i16(VERSION);
    file.put_u32(crc_fast::crc32_iscsi(&body));
    file.extend(body);
    file
}

/// Decodes a snapshot, or says what is wrong with it.
pub(crate) fn decode(file: &[u8]) -> Result<HashMap<i64, ProducerEntry>, &'static str> {
    if file.len() < HEADER_SIZE + 4 {
        return Err("it is too short");
    }
    let (mut header, mut body) = file.split_at(HEADER_SIZE);
    if header.get_i16() != VERSION {
        return Err("its version is not 1");
    }
    if header.get_u32() != crc_fast::crc32_iscsi(body) {
        return Err("its checksum does not match");
    }
    let count = body.get_i32();
    if usize::try_from(count).ok().and_then(|count| count.checked_mul(ENTRY_SIZE))
        != Some(body.len())
    {
        return Err("its length does not fit the number of producers");
    }
    let mut producers = HashMap::with_capacity(count as usize);
    for mut bytes in body.chunks_exact(ENTRY_SIZE) {
        let id = bytes.get_i64();
        let epoch = bytes.get_i16();
        let last_sequence = bytes.get_i32();
        let last_offset = bytes.get_i64();
        let offset_delta = bytes.get_i32();
        let last_timestamp = bytes.get_i64();
        let coordinator_epoch = bytes.get_i32();
        let transaction_begin = Some(bytes.get_i64()).filter(|offset| *offset >= 0);
        let batch =
            RecordedBatch { last_sequence, last_offset, offset_delta, timestamp: last_timestamp };
        let batches = (last_offset >= 0).then_some(batch).into_iter().collect();
        let entry =
            ProducerEntry { epoch, coordinator_epoch, last_timestamp, transaction_begin, batches };
        producers.insert(id, entry);
    }
    Ok(producers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producers() -> HashMap<i64, ProducerEntry> {
        let batch =
            RecordedBatch { last_sequence: 9, last_offset: 99, offset_delta: 4, timestamp: 5 };
        let busy = ProducerEntry {
            epoch: 2,
            coordinator_epoch: 3,
            last_timestamp: 5,
            transaction_begin: Some(95),
            batches: [batch].into(),
        };
        HashMap::from([(1000, busy), (1, ProducerEntry::default())])
    }

    #[test]
    fn snapshots_survive_their_file() {
        let file = encode(&producers());
        assert_eq!(file.len(), 6 + 4 + 2 * 46);
        assert_eq!(decode(&file), Ok(producers()));
        assert_eq!(decode(&encode(&HashMap::new())), Ok(HashMap::new()));
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let file = encode(&producers());
        for index in 0..file.len() {
            let mut damaged = file.clone();
            damaged[index] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {index}");
            assert!(decode(&file[..index]).is_err(), "cut at {index}");
        }
    }
}

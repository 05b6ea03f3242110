//! Reading a partition of ours from its first record to its last.

use std::ops::Range;

use bytes::Bytes;
use fleuve_protocol::records::{
    BatchError, Batches, Decompressor, EndTransactionMarker, RecordIter, layout,
};
use fleuve_storage::LogError;
use fleuve_types::{Offset, ProducerId};

use crate::partition::Partition;

/// How much is read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// What a single batch may decompress to.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Why a partition could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("a batch of {partition} cannot be read: {error}")]
    Batch { partition: String, error: BatchError },
}

/// What a replay comes across.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A record, and the producer in whose transaction it was written, if any.
    Record { key: Option<Bytes>, value: Option<Bytes>, producer: Option<ProducerId> },
    /// The marker that ends a producer's transaction.
    Marker { producer: ProducerId, committed: bool },
}

/// Calls `visit` with every record and every marker of a transaction.
///
/// The bytes are copies: what is kept of a record must not keep a whole chunk.
pub(crate) fn for_each_entry(
    partition: &Partition,
    visit: impl FnMut(Offset, Entry),
) -> Result<(), ReplayError> {
    let range = partition.log_start_offset()..partition.log_end_offset();
    let read = |offset, limit, bytes_max| partition.read(offset, bytes_max, limit, true);
    for_each_entry_in(&partition.name().to_string(), range, read, visit)
}

/// Calls `visit` with offset, key and value of every record of anything that can be read: `read` gets
/// an offset, a limit, and how many bytes are wanted.
pub(crate) fn for_each_record_in(
    name: &str,
    range: Range<i64>,
    read: impl FnMut(i64, i64, usize) -> Result<Vec<Bytes>, LogError>,
    mut visit: impl FnMut(Offset, Option<Bytes>, Option<Bytes>),
) -> Result<(), ReplayError> {
    for_each_entry_in(name, range, read, |offset, entry| {
        if let Entry::Record { key, value, .. } = entry {
            visit(offset, key, value);
        }
    })
}

fn for_each_entry_in(
    name: &str,
    range: Range<i64>,
    mut read: impl FnMut(i64, i64, usize) -> Result<Vec<Bytes>, LogError>,
    mut visit: impl FnMut(Offset, Entry),
) -> Result<(), ReplayError> {
    let damaged = |error| ReplayError::Batch { partition: name.to_owned(), error };
    let mut next = range.start;
    let mut decompressor = Decompressor::new(BATCH_BYTES_MAX);
    while next < range.end {
        let parts = read(next, range.end, CHUNK_BYTES)?;
        let before = next;
        for batch in Batches::new(Bytes::from(parts.concat())) {
            let batch = batch.map_err(damaged)?;
            next = batch.header.next_offset().0;
            let producer = batch.header.producer_id;
            if batch.header.attributes.is_control() {
                let mut records =
                    RecordIter::new(&batch.header, &batch.bytes[layout::HEADER_SIZE..]);
                // Of a compacted transaction the marker may be left without its record.
                let record = records.next().and_then(Result::ok);
                let marker = record.and_then(|r| EndTransactionMarker::of(&r).ok().flatten());
                if let Some(EndTransactionMarker { committed, .. }) = marker {
                    visit(batch.header.base_offset, Entry::Marker { producer, committed });
                }
                continue;
            }
            let producer = batch.header.attributes.is_transactional().then_some(producer);
            let records = batch.records(&mut decompressor).map_err(damaged)?;
            for record in RecordIter::new(&batch.header, &records) {
                let record = record.map_err(damaged)?;
                let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
                let (key, value) = (copy(record.key), copy(record.value));
                visit(record.offset, Entry::Record { key, value, producer });
            }
        }
        if next == before {
            // Compaction may have left no batch up to the end.
            break;
        }
    }
    Ok(())
}

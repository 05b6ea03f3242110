//! Reading a partition of ours from its first record to its last.

use std::ops::Range;

use bytes::Bytes;
use fleuve_protocol::records::{BatchError, Batches, Decompressor, RecordIter};
use fleuve_storage::LogError;
use fleuve_types::Offset;

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

/// Calls `visit` with offset, key and value of every record, control records left out.
///
/// The bytes are copies: what is kept of a record must not keep a whole chunk.
pub(crate) fn for_each_record(
    partition: &Partition,
    visit: impl FnMut(Offset, Option<Bytes>, Option<Bytes>),
) -> Result<(), ReplayError> {
    let range = partition.log_start_offset()..partition.log_end_offset();
    let read = |offset, limit, bytes_max| partition.read(offset, bytes_max, limit, true);
    for_each_record_in(&partition.name().to_string(), range, read, visit)
}

/// Does the same over anything that can be read: `read` gets an offset, a limit, and how many
/// bytes are wanted.
pub(crate) fn for_each_record_in(
    name: &str,
    range: Range<i64>,
    mut read: impl FnMut(i64, i64, usize) -> Result<Vec<Bytes>, LogError>,
    mut visit: impl FnMut(Offset, Option<Bytes>, Option<Bytes>),
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
            if batch.header.attributes.is_control() {
                continue;
            }
            let records = batch.records(&mut decompressor).map_err(damaged)?;
            for record in RecordIter::new(&batch.header, &records) {
                let record = record.map_err(damaged)?;
                let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
                visit(record.offset, copy(record.key), copy(record.value));
            }
        }
        if next == before {
            // Compaction may have left no batch up to the end.
            break;
        }
    }
    Ok(())
}

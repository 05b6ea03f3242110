//! Reads a run of record batches, as a broker, a consumer and recovery do.
#![no_main]

#[path = "../../crates/protocol/tests/counting/mod.rs"]
mod counting;

use bytes::Bytes;
use counting::{Counting, usage_of};
use fleuve_protocol::records::{
    Batch, BatchBuilder, BatchOptions, Batches, Codec, Compression, ControlRecordType,
    Decompressor, EndTransactionMarker, Record, RecordIter, validate_records,
};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMIT: usize = 1 << 20;
/// What a codec may need for itself, whatever it reads.
const WORKING_MEMORY: usize = 256 << 10;

fuzz_target!(|input: &[u8]| {
    let mut batches = Batches::new(Bytes::copy_from_slice(input));
    for batch in &mut batches {
        // The checksum would keep a fuzzer out, and recovery does meet batches without a good one.
        let Ok(batch) = batch else { break };
        let _ = batch.verify_crc();
        read(&batch);
    }
    assert!(batches.position() <= input.len());
});

fn read(batch: &Batch) {
    let (payload, usage) = usage_of(|| batch.records(&mut Decompressor::new(LIMIT)));
    assert!(usage.peak <= 2 * LIMIT + WORKING_MEMORY, "{} bytes of memory", usage.peak);
    let Ok(payload) = payload else { return };

    let (summary, usage) = usage_of(|| validate_records(&batch.header, &payload));
    assert_eq!(usage.allocations, 0);
    let records: Result<Vec<Record<'_>>, _> = RecordIter::new(&batch.header, &payload).collect();
    match (&records, summary) {
        (Ok(_), Ok(_)) => {}
        (Err(error), Err(same)) => assert_eq!(*error, same),
        (records, summary) => panic!("{records:?}, but {summary:?}"),
    }
    if let Ok(records) = records {
        write_again(batch, &records);
    }
}

/// Writes the records into a new batch, which must give them back.
fn write_again(batch: &Batch, records: &[Record<'_>]) {
    let Ok(options) = BatchOptions::of(&batch.header) else { return };
    let mut builder = BatchBuilder::new(BatchOptions { codec: Codec::default(), ..options });
    for record in records {
        let _ = ControlRecordType::of(record);
        let _ = EndTransactionMarker::of(record);
        record.headers.for_each(|header| assert!(header.key.len() < usize::MAX));
        // Foreign offsets may go back, ours may not.
        if builder.append_kept(record).is_err() {
            return;
        }
    }
    builder.keep_last_offset(batch.header.last_offset());
    let again = Batch::parse(builder.finish()).expect("we wrote it");
    again.verify_crc().expect("we wrote it");
    let payload = again.payload();
    let read: Result<Vec<Record<'_>>, _> = RecordIter::new(&again.header, &payload).collect();
    assert_eq!(read.expect("we wrote it"), records);

    for codec in Compression::ALL {
        let mut decompressor = Decompressor::new(usize::MAX);
        let other = again.recompress(Codec::new(codec), &mut decompressor).expect("we wrote it");
        other.verify_crc().expect("we wrote it");
        assert_eq!(other.records(&mut decompressor).expect("we wrote it"), payload);
    }
}

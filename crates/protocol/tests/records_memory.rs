//! How much memory foreign batches can make us reserve.

mod counting;

use std::io::Write;

use bytes::Bytes;
use counting::{Counting, usage_of};
use fleuve_protocol::records::{
    Batch, BatchBuilder, BatchError, BatchOptions, Codec, Compression, Decompressor, NewRecord,
    RecordIter, layout,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What a codec may need for itself, whatever it reads.
const WORKING_MEMORY: usize = 256 * KIB;

#[test]
fn bombs_are_stopped_at_the_limit() {
    let limit = 4 * MIB;
    let content = vec![0; 64 * MIB];
    // Streaming leaves the content size out of the header, so it must be found out.
    let mut stream = zstd::Encoder::new(Vec::new(), 3).unwrap();
    stream.write_all(&content).unwrap();
    let bombs = [
        (Compression::Gzip, compressed(Compression::Gzip, &content)),
        (Compression::Snappy, compressed(Compression::Snappy, &content)),
        (Compression::Lz4, compressed(Compression::Lz4, &content)),
        (Compression::Zstd, compressed(Compression::Zstd, &content)),
        (Compression::Zstd, stream.finish().unwrap().into()),
    ];
    for (codec, bomb) in bombs {
        assert!(bomb.len() <= content.len() / 20, "{codec}: {} bytes are no bomb", bomb.len());
        let (result, usage) =
            usage_of(|| Decompressor::new(limit).decompress(codec, &bomb).map(|bytes| bytes.len()));
        assert_eq!(result, Err(BatchError::DecompressedTooLarge { limit }), "{codec}");
        assert!(usage.peak <= 2 * limit + WORKING_MEMORY, "{codec} took {}", usage.peak);
    }
}

#[test]
fn exactly_the_limit_is_not_too_large() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        for size in [1, 100, 4096, 65_536, 300_000] {
            let content = vec![7; size];
            let payload = compressed(codec, &content);
            let records = Decompressor::new(size).decompress(codec, &payload);
            assert_eq!(records.as_deref(), Ok(&content[..]), "{codec} {size}");
            let limit = size - 1;
            let records = Decompressor::new(limit).decompress(codec, &payload);
            assert_eq!(records, Err(BatchError::DecompressedTooLarge { limit }), "{codec} {size}");
        }
    }
}

#[test]
fn memory_follows_the_content_and_not_the_limit() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let payload = compressed(codec, &vec![0; MIB]);
        let (records, usage) =
            usage_of(|| Decompressor::new(usize::MAX).decompress(codec, &payload).unwrap());
        assert_eq!(records, vec![0; MIB]);
        assert!(usage.peak <= 5 * MIB + WORKING_MEMORY, "{codec} took {}", usage.peak);
    }
}

#[test]
fn declared_sizes_reserve_nothing() {
    let huge_block = [
        &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73][..], // 4 MiB blocks
        &[2, 0, 0, 0, 0x10, b'x'],
        &[0; 4],
    ]
    .concat();
    // Streaming does not know the size beforehand and declares the level's whole window.
    let mut encoder = zstd::Encoder::new(Vec::new(), 22).unwrap();
    encoder.write_all(b"x").unwrap();
    let huge_window = encoder.finish().unwrap();
    // Magic, a descriptor for an 8-byte content size in a single segment, that size, an empty block.
    let huge_content =
        [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(1_u64 << 33).to_le_bytes(), &[1, 0, 0]].concat();
    let huge_snappy = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, b'x'];
    let mut huge_chunk = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    huge_chunk.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff, 1, 0, b'x']);

    for (codec, payload, valid) in [
        (Compression::Lz4, huge_block, true),
        (Compression::Zstd, huge_window, true),
        (Compression::Zstd, huge_content, false),
        (Compression::Snappy, huge_snappy, false),
        (Compression::Snappy, huge_chunk, false),
    ] {
        let payload = Bytes::from(payload);
        let (records, usage) = usage_of(|| Decompressor::new(1 << 40).decompress(codec, &payload));
        match records {
            Ok(records) => assert!(valid && records[..] == b"x"[..], "{codec}: {records:?}"),
            Err(error) => assert!(!valid, "{codec}: {error}"),
        }
        assert!(usage.peak <= WORKING_MEMORY, "{codec} took {}", usage.peak);
    }
}

#[test]
fn reading_records_allocates_nothing() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..1000 {
        builder.append(&NewRecord { value: Some(b"value"), ..NewRecord::default() }).unwrap();
    }
    let batch = Batch::parse(builder.finish()).unwrap();
    let payload = &batch.bytes[layout::HEADER_SIZE..];
    let (count, usage) = usage_of(|| RecordIter::new(&batch.header, payload).flatten().count());
    assert_eq!((count, usage.allocations), (1000, 0));

    // A foreign count must not become a reservation in `collect` either.
    let mut header = batch.header;
    header.count = i32::MAX;
    let (records, usage) = usage_of(|| RecordIter::new(&header, payload).collect::<Vec<_>>().len());
    assert_eq!(records, 1001);
    assert!(usage.peak < 1001 * 256, "{}", usage.peak);
}

fn compressed(codec: Compression, content: &[u8]) -> Bytes {
    // A batch around the content, whose one record is not looked at.
    let mut header = Batch::parse(BatchBuilder::new(BatchOptions::default()).finish()).unwrap();
    header.header.length += content.len() as i32;
    header.bytes = [&header.bytes[..], content].concat().into();
    header
        .recompress(Codec::new(codec), &mut Decompressor::new(0))
        .expect("records that are not compressed need no limit")
        .payload()
}

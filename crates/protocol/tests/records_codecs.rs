//! Compressed payloads in the shapes that clients other than ours produce.

use std::io::Write;

use bytes::Bytes;
use fleuve_protocol::records::{BatchError, Compression, Decompressor};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

const LIMIT: usize = 1 << 20;

#[test]
fn gzip_of_several_members() {
    let payload = [gzip(b"first "), gzip(b""), gzip(b"second")].concat();
    assert_eq!(decompress(Compression::Gzip, &payload).unwrap(), "first second");
}

#[test]
fn many_tiny_gzip_members() {
    let long = gzip(&vec![b'x'; LIMIT / 2]);
    let payload = [long, gzip(b"y").repeat(20_000)].concat();
    let records = decompress(Compression::Gzip, &payload).unwrap();
    assert_eq!(records.len(), LIMIT / 2 + 20_000);
    assert!(records[LIMIT / 2..].iter().all(|byte| *byte == b'y'));
}

#[test]
fn gzip_followed_by_padding_reads_as_in_java() {
    let payload = [&gzip(b"content")[..], &[0; 10]].concat();
    assert_eq!(decompress(Compression::Gzip, &payload).unwrap(), "content");
}

#[test]
fn snappy_without_framing() {
    let payload = snap::raw::Encoder::new().compress_vec(&content()).unwrap();
    assert_eq!(decompress(Compression::Snappy, &payload).unwrap(), content());
}

#[test]
fn snappy_streams_one_after_another() {
    let stream = |part: &[u8]| {
        let block = snap::raw::Encoder::new().compress_vec(part).unwrap();
        let size = (block.len() as u32).to_be_bytes();
        [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", &size[..], &block].concat()
    };
    let payload = [stream(b"first "), stream(b"second")].concat();
    assert_eq!(decompress(Compression::Snappy, &payload).unwrap(), "first second");
}

#[test]
fn lz4_frames_of_every_kind() {
    for block_mode in [BlockMode::Independent, BlockMode::Linked] {
        for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
            for checksums in [false, true] {
                for content_size in [None, Some(content().len() as u64)] {
                    let info = FrameInfo::new()
                        .block_mode(block_mode)
                        .block_size(block_size)
                        .block_checksums(checksums)
                        .content_checksum(checksums)
                        .content_size(content_size);
                    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                    encoder.write_all(&content()).unwrap();
                    let payload = encoder.finish().unwrap();
                    assert_eq!(decompress(Compression::Lz4, &payload).unwrap(), content());
                }
            }
        }
    }
}

#[test]
fn lz4_blocks_stored_uncompressed() {
    let header = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
    let stored = [&header[..], &[4, 0, 0, 0x80], b"abcd", &[0; 4]].concat();
    assert_eq!(decompress(Compression::Lz4, &stored).unwrap(), "abcd");
}

#[test]
fn lz4_frames_with_a_dictionary_are_refused() {
    let frame = [0x04, 0x22, 0x4d, 0x18, 0x61, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(decompress(Compression::Lz4, &frame), undecodable(Compression::Lz4));
}

#[test]
fn zstd_of_several_frames() {
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"xyz"].concat();
    let frame = |part: &[u8]| zstd::encode_all(part, 3).unwrap();
    let payload = [frame(b"first "), skippable, frame(&content())].concat();
    let expected = [b"first ", &content()[..]].concat();
    assert_eq!(decompress(Compression::Zstd, &payload).unwrap(), expected);
}

#[test]
fn cut_payloads_are_refused() {
    let lz4 = {
        let mut encoder = FrameEncoder::new(Vec::new());
        encoder.write_all(b"some content").unwrap();
        encoder.finish().unwrap()
    };
    let snappy = snap::raw::Encoder::new().compress_vec(b"some content").unwrap();
    for (codec, payload) in [
        (Compression::Gzip, gzip(b"some content")),
        (Compression::Snappy, snappy),
        (Compression::Lz4, lz4),
        (Compression::Zstd, zstd::encode_all(&b"some content"[..], 3).unwrap()),
    ] {
        assert_eq!(decompress(codec, &payload).unwrap(), "some content");
        for end in 1..payload.len() {
            let cut = decompress(codec, &payload[..end]);
            assert_eq!(cut, undecodable(codec), "{codec} at {end}");
        }
    }
}

#[test]
fn the_wrong_codec_is_refused() {
    let payload = gzip(b"some content");
    for codec in [Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        assert_eq!(decompress(codec, &payload), undecodable(codec));
    }
}

/// Text that spans several blocks of every codec, with matches across their borders.
fn content() -> Vec<u8> {
    (0..20_000).flat_map(|number: u32| format!("{} ", number % 777).into_bytes()).collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn decompress(codec: Compression, payload: &[u8]) -> Result<Bytes, BatchError> {
    Decompressor::new(LIMIT).decompress(codec, &Bytes::copy_from_slice(payload))
}

fn undecodable(codec: Compression) -> Result<Bytes, BatchError> {
    Err(BatchError::Undecodable { codec })
}

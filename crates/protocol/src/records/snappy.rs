//! Snappy, in the framing of the xerial Java library or as one raw block.
//!
//! ```text
//! stream  magic       8  82 'S' 'N' 'A' 'P' 'P' 'Y' 00
//!         version     4  big-endian, 1
//!         compatible  4  big-endian, 1: the oldest version that can read it
//!         chunks
//! chunk   size        4  big-endian
//!         block          one raw Snappy block
//! ```
//!
//! Streams may follow each other. Java, and with it most clients, writes this framing, which has
//! nothing to do with Snappy's own framing format. Some clients send a raw block; Java reads both.

use snap::raw;

use super::decompress::{Fault, Output};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER_SIZE: usize = 16;
/// Version 1, compatible with version 1.
const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Uncompressed size of the chunks Java writes.
const CHUNK_SIZE: usize = 32 * 1024;
/// The best a Snappy element does is 64 bytes for 3, so a block that declares more is lying.
const EXPANSION_MAX: usize = 22;

/// Appends the decompressed content of `input`.
pub(super) fn decompress(mut input: &[u8], output: &mut Output) -> Result<(), Fault> {
    if !input.starts_with(&MAGIC) {
        return decompress_block(input, output);
    }
    while !input.is_empty() {
        if input.starts_with(&MAGIC) {
            input = input.get(HEADER_SIZE..).ok_or(Fault::Invalid)?;
            continue;
        }
        let (size, rest) = input.split_first_chunk::<4>().ok_or(Fault::Invalid)?;
        let size = u32::from_be_bytes(*size) as usize;
        let (block, rest) = rest.split_at_checked(size).ok_or(Fault::Invalid)?;
        decompress_block(block, output)?;
        input = rest;
    }
    Ok(())
}

/// Appends `input` to `output` as one stream.
pub(super) fn compress(encoder: &mut raw::Encoder, input: &[u8], output: &mut Vec<u8>) {
    output.extend_from_slice(&MAGIC);
    output.extend_from_slice(&VERSIONS);
    for chunk in input.chunks(CHUNK_SIZE) {
        let start = output.len();
        output.resize(start + 4 + raw::max_compress_len(chunk.len()), 0);
        let (size_field, space) = output[start..].split_at_mut(4);
        let size = encoder.compress(chunk, space).expect("space is what the codec asks for");
        size_field.copy_from_slice(&(size as u32).to_be_bytes());
        output.truncate(start + 4 + size);
    }
}

fn decompress_block(block: &[u8], output: &mut Output) -> Result<(), Fault> {
    let size = raw::decompress_len(block).map_err(|_| Fault::Invalid)?;
    if size > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(Fault::Invalid);
    }
    if size > output.room() {
        return Err(Fault::TooLarge);
    }
    output.append(size, |_, space| raw::Decoder::new().decompress(block, space).ok())
}

//! The LZ4 frame format, as far as Kafka's clients use it.
//!
//! ```text
//! frame   magic          4  04 22 4D 18
//!         flags          1  bits 6–7 version 1, 5 independent blocks, 4 block checksums,
//!                           3 content size, 2 content checksum, 0 dictionary id
//!         block size     1  bits 4–6: 4 is 64 KiB, 5 256 KiB, 6 1 MiB, 7 4 MiB
//!         content size   8  if flagged
//!         checksum       1  of flags, block size and content size
//!         blocks
//!         end mark       4  zero
//!         checksum       4  if flagged
//! block   size           4  little-endian; the highest bit marks bytes that are not compressed
//!         bytes
//!         checksum       4  if flagged
//! ```
//!
//! We do this ourselves because the general-purpose decoder reserves two blocks of the *declared*
//! size, up to 8 MiB for a frame of twenty bytes, and copies the output once more. The checksums
//! of the frame are not verified: the CRC-32C of the batch covers the same bytes.

use lz4_flex::block;

use super::decompress::{Fault, Output};

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Magic, version 1, independent 64 KiB blocks, no checksums: the header Java writes.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const END_MARK: [u8; 4] = [0; 4];

const FLAG_VERSION: u8 = 0b1100_0000;
const FLAG_VERSION_1: u8 = 0b0100_0000;
const FLAG_INDEPENDENT: u8 = 0b0010_0000;
const FLAG_BLOCK_CHECKSUM: u8 = 0b0001_0000;
const FLAG_CONTENT_SIZE: u8 = 0b0000_1000;
const FLAG_CONTENT_CHECKSUM: u8 = 0b0000_0100;
const FLAG_DICTIONARY: u8 = 0b0000_0001;

const BLOCK_SIZE: usize = 64 * 1024;
/// Set in a block's size when the block is stored as it is.
const STORED: u32 = 1 << 31;
/// How far back a match can reach, also into earlier blocks.
const WINDOW_SIZE: usize = 64 * 1024;
/// No LZ4 block yields more bytes than this for each of its own.
const EXPANSION_MAX: usize = 255;

/// Appends the decompressed content of the frame in `input`.
///
/// What follows the frame is ignored, as Java does.
pub(super) fn decompress(mut input: &[u8], output: &mut Output) -> Result<(), Fault> {
    let input = &mut input;
    let [m0, m1, m2, m3, flags, block_size] = *take::<6>(input)?;
    if [m0, m1, m2, m3] != MAGIC
        || flags & FLAG_VERSION != FLAG_VERSION_1
        || flags & FLAG_DICTIONARY != 0
    {
        return Err(Fault::Invalid);
    }
    let block_size_max = match block_size >> 4 & 0b111 {
        code @ 4..=7 => BLOCK_SIZE << (2 * (code - 4)),
        _ => return Err(Fault::Invalid),
    };
    if flags & FLAG_CONTENT_SIZE != 0 {
        take::<8>(input)?;
    }
    take::<1>(input)?;

    loop {
        let size = u32::from_le_bytes(*take::<4>(input)?);
        if size == 0 {
            break;
        }
        let stored = size & STORED != 0;
        let size = (size & !STORED) as usize;
        if size > block_size_max {
            return Err(Fault::Invalid);
        }
        let (bytes, rest) = input.split_at_checked(size).ok_or(Fault::Invalid)?;
        *input = rest;
        if stored {
            output.extend_from_slice(bytes)?;
        } else {
            let size_max = block_size_max.min(size * EXPANSION_MAX);
            output.append(size_max, |before, space| {
                if flags & FLAG_INDEPENDENT != 0 {
                    return block::decompress_into(bytes, space).ok();
                }
                let window = &before[before.len().saturating_sub(WINDOW_SIZE)..];
                block::decompress_into_with_dict(bytes, space, window).ok()
            })?;
        }
        if flags & FLAG_BLOCK_CHECKSUM != 0 {
            take::<4>(input)?;
        }
    }
    if flags & FLAG_CONTENT_CHECKSUM != 0 {
        take::<4>(input)?;
    }
    Ok(())
}

/// Appends `input` to `output` as one frame.
pub(super) fn compress(input: &[u8], output: &mut Vec<u8>) {
    output.extend_from_slice(&HEADER);
    for chunk in input.chunks(BLOCK_SIZE) {
        let start = output.len();
        output.resize(start + 4 + block::get_maximum_output_size(chunk.len()), 0);
        let (size_field, space) = output[start..].split_at_mut(4);
        let size = block::compress_into(chunk, space).expect("space is what the codec asks for");
        if size < chunk.len() {
            size_field.copy_from_slice(&(size as u32).to_le_bytes());
            output.truncate(start + 4 + size);
        } else {
            size_field.copy_from_slice(&(chunk.len() as u32 | STORED).to_le_bytes());
            output.truncate(start + 4);
            output.extend_from_slice(chunk);
        }
    }
    output.extend_from_slice(&END_MARK);
}

fn take<'a, const SIZE: usize>(input: &mut &'a [u8]) -> Result<&'a [u8; SIZE], Fault> {
    let (bytes, rest) = input.split_first_chunk::<SIZE>().ok_or(Fault::Invalid)?;
    *input = rest;
    Ok(bytes)
}

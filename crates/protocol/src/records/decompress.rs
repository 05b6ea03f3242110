//! Decompressing records with a limit on what comes out.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use zstd::zstd_safe;

use super::{BatchError, Compression, lz4, snappy};

/// Decompresses the records of one batch after another.
///
/// No declared size is believed: memory grows with what really comes out, and never beyond the
/// limit. It keeps the state of codecs that are costly to set up, so a reader of many batches
/// keeps one of these.
///
/// ```
/// use fleuve_protocol::records::{Compression, Decompressor};
///
/// let mut decompressor = Decompressor::new(1024);
/// let hello = bytes::Bytes::from_static(b"\x05\x10hello");
/// let records = decompressor.decompress(Compression::Snappy, &hello)?;
/// assert_eq!(&records[..], b"hello");
/// # Ok::<(), fleuve_protocol::records::BatchError>(())
/// ```
pub struct Decompressor {
    limit: usize,
    zstd: Option<zstd_safe::DCtx<'static>>,
}

impl Decompressor {
    /// Makes one that gives at most `limit` bytes for a batch.
    pub fn new(limit: usize) -> Self {
        Self { limit, zstd: None }
    }

    /// The uncompressed records of a batch whose records stand as `payload` under `codec`.
    ///
    /// Records that are not compressed are returned as they are, whatever their size.
    pub fn decompress(&mut self, codec: Compression, payload: &Bytes) -> Result<Bytes, BatchError> {
        if codec == Compression::None || payload.is_empty() {
            return Ok(payload.clone());
        }
        let mut output = Output::new(self.limit);
        match codec {
            Compression::None => output.extend_from_slice(payload),
            Compression::Gzip => gunzip(payload, &mut output),
            Compression::Snappy => snappy::decompress(payload, &mut output),
            Compression::Lz4 => lz4::decompress(payload, &mut output),
            Compression::Zstd => self.unzstd(payload, &mut output),
        }
        .map_err(|fault| match fault {
            Fault::Invalid => BatchError::Undecodable { codec },
            Fault::TooLarge => BatchError::DecompressedTooLarge { limit: self.limit },
        })?;
        Ok(output.into_bytes())
    }

    fn unzstd(&mut self, payload: &[u8], output: &mut Output) -> Result<(), Fault> {
        let declared = match zstd_safe::get_frame_content_size(payload) {
            Ok(declared) => declared,
            Err(_) => return Err(Fault::Invalid),
        };
        if declared.is_some_and(|size| size > output.limit as u64) {
            return Err(Fault::TooLarge);
        }
        // Streaming would reserve the declared window, up to 128 MiB for a few bytes. In one shot
        // the output is the window; if it proves too small we begin again with more.
        let plausible_max = payload.len().saturating_mul(ZSTD_PLAUSIBLE_RATIO);
        let guess = match declared {
            Some(size) => (size as usize).min(plausible_max),
            None => payload.len().saturating_mul(ZSTD_USUAL_RATIO),
        };
        let context = self.zstd.get_or_insert_with(zstd_safe::DCtx::create);
        let mut capacity = guess.max(CHUNK_SIZE_MIN).min(output.limit);
        loop {
            let mut bytes = Vec::with_capacity(capacity);
            match context.decompress(&mut bytes, payload) {
                Ok(size) => {
                    output.bytes = bytes;
                    output.filled = size;
                    return Ok(());
                }
                Err(code) if code != ZSTD_OUTPUT_TOO_SMALL => return Err(Fault::Invalid),
                Err(_) if capacity == output.limit => return Err(Fault::TooLarge),
                Err(_) => capacity = capacity.saturating_mul(ZSTD_GROWTH).min(output.limit),
            }
        }
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Least and most bytes to make room for at once when nothing tells how many will come.
const CHUNK_SIZE_MIN: usize = 4 * 1024;
const CHUNK_SIZE_MAX: usize = 1024 * 1024;

/// Output per input that we make room for without a declared size.
const ZSTD_USUAL_RATIO: usize = 4;
/// Output per input up to which we make room for a declared size at once.
const ZSTD_PLAUSIBLE_RATIO: usize = 32;
const ZSTD_GROWTH: usize = 4;
/// What zstd returns for `ZSTD_error_dstSize_tooSmall`: the error number, negated.
const ZSTD_OUTPUT_TOO_SMALL: usize = 0_usize.wrapping_sub(70);

/// Why a codec stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes are not of this codec.
    Invalid,
    /// There is more than fits below the limit.
    TooLarge,
}

/// The decompressed bytes so far.
pub(super) struct Output {
    /// Zeros beyond `filled`: they are reused, so that many small pieces do not each pay for the
    /// room they might have needed.
    bytes: Vec<u8>,
    filled: usize,
    limit: usize,
}

impl Output {
    fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), filled: 0, limit }
    }

    /// How many bytes may still come.
    pub(super) fn room(&self) -> usize {
        self.limit - self.filled
    }

    /// Appends bytes that were not compressed.
    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() > self.room() {
            return Err(Fault::TooLarge);
        }
        self.append(bytes.len(), |_, space| {
            space.copy_from_slice(bytes);
            Some(bytes.len())
        })
    }

    /// Lets `fill` write at most `size_max` bytes after the bytes before, and say how many.
    pub(super) fn append(
        &mut self,
        size_max: usize,
        fill: impl FnOnce(&[u8], &mut [u8]) -> Option<usize>,
    ) -> Result<(), Fault> {
        let size_given = size_max.min(self.room());
        let end = self.filled + size_given;
        if end > self.bytes.len() {
            self.grow(end);
        }
        let (before, space) = self.bytes[..end].split_at_mut(self.filled);
        match fill(before, space) {
            Some(size) => {
                self.filled += size;
                Ok(())
            }
            // With all the space it could need, the fault is its own.
            None if size_given == size_max => Err(Fault::Invalid),
            None => Err(Fault::TooLarge),
        }
    }

    fn into_bytes(mut self) -> Bytes {
        self.bytes.truncate(self.filled);
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
        Bytes::from(self.bytes)
    }

    /// Doubles like a vector, but not beyond the limit.
    fn grow(&mut self, needed: usize) {
        if needed > self.bytes.capacity() {
            let target = needed.max(self.bytes.capacity().saturating_mul(2)).min(self.limit);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.bytes.resize(needed, 0);
    }
}

/// Appends the content of all gzip members; like Java, ignores what follows the last.
fn gunzip(input: &[u8], output: &mut Output) -> Result<(), Fault> {
    let mut reader = GzDecoder::new(input);
    loop {
        loop {
            if output.room() == 0 {
                match reader.read(&mut [0]) {
                    Ok(0) => break,
                    Ok(_) => return Err(Fault::TooLarge),
                    Err(_) => return Err(Fault::Invalid),
                }
            }
            let start = output.filled;
            let size = start.clamp(CHUNK_SIZE_MIN, CHUNK_SIZE_MAX).min(output.room());
            output.append(size, |_, space| reader.read(space).ok())?;
            if output.filled == start {
                break;
            }
        }
        let rest = *reader.get_ref();
        if !rest.starts_with(&GZIP_MAGIC) {
            return Ok(());
        }
        reader.reset(rest);
    }
}

/// How a gzip member begins.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

//! Compressing records.

use std::io::Write;

use flate2::write::GzEncoder;
use zstd::zstd_safe::{self, CParameter};

use super::{Compression, lz4, snappy};

/// A codec and how hard it should try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codec {
    compression: Compression,
    level: Option<i32>,
}

impl Codec {
    /// The codec at its usual level.
    pub fn new(compression: Compression) -> Self {
        Self { compression, level: None }
    }

    /// The same codec at another level, brought into the codec's range.
    ///
    /// Gzip has 1 to 9 and zstd up to 22. Snappy has no levels; LZ4's are accepted without effect,
    /// because our LZ4 has only the fast variant, which is also what Kafka's default level means.
    pub fn with_level(self, level: i32) -> Self {
        Self { level: Some(level), ..self }
    }

    /// Which codec it is.
    pub fn compression(self) -> Compression {
        self.compression
    }
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        Self::new(compression)
    }
}

/// Compresses the records of one batch after another, keeping the codecs' working memory.
#[derive(Default)]
pub(super) struct Compressor {
    zstd: Option<zstd_safe::CCtx<'static>>,
    snappy: Option<snap::raw::Encoder>,
}

impl Compressor {
    /// Appends `records` to `output` as `codec` writes them.
    pub(super) fn compress(&mut self, codec: Codec, records: &[u8], output: &mut Vec<u8>) {
        match codec.compression {
            Compression::None => output.extend_from_slice(records),
            Compression::Gzip => gzip(codec.level, records, output),
            Compression::Snappy => {
                snappy::compress(
                    self.snappy.get_or_insert_with(snap::raw::Encoder::new),
                    records,
                    output,
                );
            }
            Compression::Lz4 => lz4::compress(records, output),
            Compression::Zstd => self.zstd(codec.level, records, output),
        }
    }

    fn zstd(&mut self, level: Option<i32>, records: &[u8], output: &mut Vec<u8>) {
        let level = level
            .unwrap_or(zstd_safe::CLEVEL_DEFAULT)
            .clamp(zstd_safe::min_c_level(), zstd_safe::max_c_level());
        let context = self.zstd.get_or_insert_with(zstd_safe::CCtx::create);
        context
            .set_parameter(CParameter::CompressionLevel(level))
            .expect("the level is within zstd's range");
        let start = output.len();
        output.resize(start + zstd_safe::compress_bound(records.len()), 0);
        let size = context
            .compress2(&mut output[start..], records)
            .expect("the space is zstd's own upper bound");
        output.truncate(start + size);
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

fn gzip(level: Option<i32>, records: &[u8], output: &mut Vec<u8>) {
    let level = match level {
        // Kafka's −1 stands for the default.
        None | Some(-1) => flate2::Compression::default(),
        Some(level) => flate2::Compression::new(level.clamp(1, 9) as u32),
    };
    let mut encoder = GzEncoder::new(output, level);
    encoder
        .write_all(records)
        .and_then(|()| encoder.try_finish())
        .expect("writing to a vector does not fail");
}

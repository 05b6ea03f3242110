//! The codecs a batch can be compressed with.

use std::fmt;
use std::str::FromStr;

use super::BatchError;

/// The codec of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Compression {
    /// The records stand as they are.
    #[default]
    None = 0,
    /// RFC 1952, one member or several.
    Gzip = 1,
    /// Snappy blocks in the framing of the xerial Java library, or one raw block.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Compression {
    /// Every codec, in the order of ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this id in the batch attributes.
    pub fn from_id(id: u8) -> Result<Self, BatchError> {
        Self::ALL.get(usize::from(id)).copied().ok_or(BatchError::UnknownCompression { id })
    }

    /// The id in the batch attributes.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The name in configurations: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that belongs to no codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression codec `{0}`: use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompressionName(String);

impl FromStr for Compression {
    type Err = UnknownCompressionName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| UnknownCompressionName(name.to_owned()))
    }
}

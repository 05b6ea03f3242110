//! Cutting a run of bytes into batches.

use bytes::Bytes;

use super::{BatchError, BatchHeader, layout};

/// One whole batch: its parsed header beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The parsed header.
    pub header: BatchHeader,
    /// The batch with its header, a slice of what it was cut from.
    pub bytes: Bytes,
}

impl Batch {
    /// Takes `bytes` as exactly one batch.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if bytes.len() < header.size() {
            return Err(BatchError::Incomplete { needed: header.size(), available: bytes.len() });
        }
        if bytes.len() > header.size() {
            return Err(BatchError::SizeMismatch { expected: header.size(), actual: bytes.len() });
        }
        Ok(Self { header, bytes })
    }

    /// Checks the checksum.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        self.header.verify_crc(&self.bytes)
    }

    /// The records as they stand in the batch, compressed if it is.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(layout::HEADER_SIZE..)
    }
}

/// Iterator over the whole batches in a run of bytes, copying nothing.
///
/// It ends after the first error. Bytes that stop in the middle of a batch give
/// [`BatchError::Incomplete`]; a caller that expects a cut tail, such as a consumer, ignores it.
/// [`Batches::position`] tells where the good part ends.
#[derive(Debug, Clone)]
pub struct Batches {
    bytes: Bytes,
    position: usize,
    failed: bool,
}

impl Batches {
    /// Iterates over `bytes`, which begin with a batch.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, position: 0, failed: false }
    }

    /// Size of the batches yielded so far: where the next one begins.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if rest.is_empty() || self.failed {
            return None;
        }
        let header = BatchHeader::parse(rest).and_then(|header| {
            if header.size() > rest.len() {
                return Err(BatchError::Incomplete {
                    needed: header.size(),
                    available: rest.len(),
                });
            }
            Ok(header)
        });
        Some(match header {
            Ok(header) => {
                let end = self.position + header.size();
                let bytes = self.bytes.slice(self.position..end);
                self.position = end;
                Ok(Batch { header, bytes })
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        })
    }
}

impl std::iter::FusedIterator for Batches {}

//! Walking over the batches of a file by their headers.
//!
//! A walk reads the 61 bytes of each header and skips the records; neighbours are read ahead
//! together, so that many small batches cost few reads. What stands where a header should stand is
//! not believed: a header whose batch would reach beyond the end of the file ends the walk.

use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use fleuve_os::{DiskError, File};
use fleuve_protocol::records::{BatchError, BatchHeader, layout};

use crate::error::LogError;

/// Read ahead when looking for one offset: about one index interval.
pub(crate) const LOOKUP_WINDOW: usize = 4096;
/// Read ahead when walking over a whole segment by headers.
pub(crate) const WALK_WINDOW: usize = 64 << 10;
/// Read ahead when every byte is checked.
pub(crate) const VERIFY_WINDOW: usize = 1 << 20;

/// A batch found in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl Found {
    /// Where the next batch begins.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.size() as u64
    }
}

/// Why a walk stopped before the end.
#[derive(Debug)]
pub(crate) enum ScanError {
    Disk(DiskError),
    /// No whole batch stands at this position.
    NoBatch {
        position: u64,
        reason: BatchError,
    },
}

impl From<DiskError> for ScanError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl ScanError {
    /// Blames the file, for a caller who has no use for what stands before the damage.
    pub(crate) fn in_file(self, file: &Arc<dyn File>) -> LogError {
        match self {
            Self::Disk(error) => LogError::Disk(error),
            Self::NoBatch { position, reason } => LogError::Damaged {
                path: file.path().to_owned(),
                position,
                reason: reason.to_string(),
            },
        }
    }
}

/// A walk over the batches between two positions of a file.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    file: &'a Arc<dyn File>,
    position: u64,
    end: u64,
    window_bytes: usize,
    window: Bytes,
    window_begin: u64,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(file: &'a Arc<dyn File>, begin: u64, end: u64, window_bytes: usize) -> Self {
        Self { file, position: begin, end, window_bytes, window: Bytes::new(), window_begin: begin }
    }

    /// Where the walk stands: behind the last batch it returned.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the next batch, `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, ScanError> {
        let remaining = self.end.saturating_sub(self.position);
        if remaining == 0 {
            return Ok(None);
        }
        let position = self.position;
        let bytes = self.bytes_at(position, layout::HEADER_SIZE)?;
        let no_batch = |reason| ScanError::NoBatch { position, reason };
        let header = BatchHeader::parse(&bytes).map_err(no_batch)?;
        if header.size() as u64 > remaining {
            let (needed, available) = (header.size(), remaining as usize);
            return Err(no_batch(BatchError::Incomplete { needed, available }));
        }
        self.position += header.size() as u64;
        Ok(Some(Found { position, header }))
    }

    /// Checks the bytes of a batch that [`Scan::next`] has just returned.
    pub(crate) fn verify_crc(&mut self, found: &Found) -> Result<(), ScanError> {
        // In pieces, so that a damaged length cannot make us allocate.
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut position = found.position + layout::ATTRIBUTES as u64;
        while position < found.end() {
            let wanted = (found.end() - position).min(VERIFY_WINDOW as u64) as usize;
            let bytes = self.bytes_at(position, wanted)?;
            if bytes.is_empty() {
                let (needed, available) = (wanted, 0);
                let reason = BatchError::Incomplete { needed, available };
                return Err(ScanError::NoBatch { position: found.position, reason });
            }
            digest.update(&bytes);
            position += bytes.len() as u64;
        }
        let computed = digest.finalize() as u32;
        if computed == found.header.crc {
            return Ok(());
        }
        let reason = BatchError::ChecksumMismatch { stored: found.header.crc, computed };
        Err(ScanError::NoBatch { position: found.position, reason })
    }

    /// Reads the whole of a batch.
    pub(crate) fn read(&mut self, found: &Found) -> Result<Bytes, DiskError> {
        self.file.read_exact_at(found.position, found.header.size())
    }

    /// Returns up to `wanted` bytes from `position` on; fewer only at the end.
    fn bytes_at(&mut self, position: u64, wanted: usize) -> Result<Bytes, DiskError> {
        let available = self.end.saturating_sub(position).min(wanted as u64) as usize;
        let window_end = self.window_begin + self.window.len() as u64;
        if position < self.window_begin || position + available as u64 > window_end {
            let ahead = self.end.saturating_sub(position).min(self.window_bytes.max(wanted) as u64);
            self.window = self.file.read_bytes_at(position, ahead as usize)?;
            self.window_begin = position;
        }
        let begin = (position - self.window_begin) as usize;
        let end = (begin + available).min(self.window.len());
        Ok(self.window.slice(begin.min(end)..end))
    }
}

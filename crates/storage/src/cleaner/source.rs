//! Reading the segments that are compacted, outside the partition's lock.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fleuve_os::{Disk, File, OpenMode};
use fleuve_protocol::records::{Batch, BatchError, BatchHeader};

use super::error::CleanError;
use crate::error::LogError;

/// A sealed segment as it was when the compaction was planned.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) base_offset: i64,
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// Reads a segment batch by batch, in large steps, and checks every checksum: a damaged batch that
/// was written anew would pass for a whole one from then on.
#[derive(Debug)]
pub(super) struct BatchReader {
    file: Arc<dyn File>,
    position: u64,
    end: u64,
    step_bytes: usize,
    window: Bytes,
}

impl BatchReader {
    pub(super) fn open(
        disk: &dyn Disk,
        source: &Source,
        step_bytes: usize,
    ) -> Result<Self, CleanError> {
        let file = disk.open(&source.path, OpenMode::Read)?;
        Ok(Self { file, position: 0, end: source.size, step_bytes, window: Bytes::new() })
    }

    /// Returns the next batch, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, CleanError> {
        if self.position == self.end {
            return Ok(None);
        }
        let header = loop {
            let needed = match BatchHeader::parse(&self.window) {
                Ok(header) if header.size() <= self.window.len() => break header,
                Ok(header) => header.size(),
                Err(BatchError::Incomplete { needed, .. }) => needed,
                Err(error) => return Err(self.damaged(&error)),
            };
            self.read_at_least(needed)?;
        };
        let bytes = self.window.split_to(header.size());
        header.verify_crc(&bytes).map_err(|error| self.damaged(&error))?;
        self.position += bytes.len() as u64;
        Ok(Some(Batch { header, bytes }))
    }

    /// Reports whether the batch returned last was the last there is.
    pub(super) fn is_at_end(&self) -> bool {
        self.position == self.end
    }

    /// Blames the batch returned last.
    pub(super) fn blame(&self, batch: &Batch, error: &BatchError) -> CleanError {
        let position = self.position - batch.bytes.len() as u64;
        let path = self.file.path().to_owned();
        let reason = match error {
            // It may have been taken when nobody had to look into it.
            BatchError::DecompressedTooLarge { .. } => {
                format!("{error}: set fleuve.decompressed.bytes.max to more and start again")
            }
            error => error.to_string(),
        };
        LogError::Damaged { path, position, reason }.into()
    }

    fn read_at_least(&mut self, needed: usize) -> Result<(), CleanError> {
        let available = self.end - self.position;
        if needed as u64 > available {
            // A length that points beyond the file is not believed.
            let available = available as usize;
            return Err(self.damaged(&BatchError::Incomplete { needed, available }));
        }
        let step = (needed.max(self.step_bytes) as u64).min(available) as usize;
        self.window = self.file.read_exact_at(self.position, step)?;
        Ok(())
    }

    fn damaged(&self, error: &BatchError) -> CleanError {
        LogError::Damaged {
            path: self.file.path().to_owned(),
            position: self.position,
            reason: error.to_string(),
        }
        .into()
    }
}

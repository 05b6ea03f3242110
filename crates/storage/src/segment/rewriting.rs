//! Writing again what stands in a segment's files, after a sync that may have dropped it.
//!
//! Pages that a failed sync has marked clean may be dropped from memory at any moment, and then the
//! file holds what the disk does. So what is checked is what is written: each batch, or page of
//! entries, is read once into memory of ours.

use fleuve_protocol::records::{BatchError, BatchHeader};

use super::batch_file::Segment;
use crate::environment::Environment;
use crate::error::LogError;
use crate::scan::{Scan, ScanError, WALK_WINDOW};

impl Segment {
    /// Checks and writes again the batches from the one that holds `offset` on; returns the offset
    /// behind the last, `None` if there is none.
    pub(crate) fn write_again(
        &mut self,
        environment: &Environment,
        offset: i64,
    ) -> Result<Option<i64>, LogError> {
        let Some(first) = self.find(environment, offset)? else { return Ok(None) };
        let file = self.file(environment)?;
        let end = self.size(environment)?;
        let mut next_offset = first.header.base_offset.0;
        let mut scan = Scan::new(&file, first.position, end, WALK_WINDOW);
        while let Some(found) = scan.next().map_err(|error| error.in_file(&file))? {
            let bytes = scan.read(&found)?;
            let damaged = |reason: BatchError| {
                ScanError::NoBatch { position: found.position, reason }.in_file(&file)
            };
            let header = BatchHeader::parse(&bytes).map_err(damaged)?;
            header.verify_crc(&bytes).map_err(damaged)?;
            if header.base_offset.0 < next_offset {
                return Err(LogError::Damaged {
                    path: file.path().to_owned(),
                    position: found.position,
                    reason: format!("offset {} after {next_offset}", header.base_offset),
                });
            }
            next_offset = header.next_offset().0;
            file.write_at(&bytes, found.position)?;
        }
        // A cut may be among what was dropped.
        file.set_len(end)?;
        Ok(Some(next_offset))
    }
}

//! Transactions in a log that is compacted: what was aborted goes, and markers go last.
//!
//! Which transactions were aborted is found in the log itself, by a walk over the batch headers of
//! the uncompacted part. Kafka looks into `.txnindex` instead; the walk finds the same, because a
//! marker outlives the records of its transaction, it does not depend on an index that a crash may
//! have cut, and it also counts the records, which sizes the map of keys. Aborted records in the
//! part compacted earlier were dropped then. A transaction whose marker is found nowhere counts as
//! committed: its records stay.
//!
//! An aborted record is invisible to every consumer that reads committed records, so it neither
//! replaces an older record of its key nor stays.
//!
//! A marker may go once none of its transaction's batches is left, and then only after
//! `delete.retention.ms`, so that a consumer on its way through the transaction still meets it.
//! So do the entries of `.txnindex`, see `segment/transaction_index.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_os::{Disk, File, OpenMode};
use fleuve_protocol::records::{
    Batch, BatchHeader, Compression, ControlRecordType, RecordIter, layout,
};

use super::error::CleanError;
use super::job::Pace;
use super::source::Source;
use crate::error::LogError;
use crate::names::{self, FileKind};
use crate::scan::{Scan, WALK_WINDOW};

const INDEX_ENTRY_BYTES: usize = crate::segment::TRANSACTION_ENTRY_BYTES;
const LAST_OFFSET_AT: usize = 18;

/// What the walk over the uncompacted part found.
#[derive(Debug, Default)]
pub(super) struct DirtySurvey {
    /// Aborted transactions by producer: offsets of the first batch and of the marker, ascending.
    aborted: HashMap<i64, Vec<(i64, i64)>>,
    /// Records, those of aborted transactions included.
    pub(super) records: u64,
}

impl DirtySurvey {
    /// Walks over `sources` from `first_dirty` on, and over `followers` until all transactions that
    /// began in the sources have ended.
    pub(super) fn take(
        disk: &dyn Disk,
        sources: &[Source],
        followers: &[Source],
        first_dirty: i64,
        pace: &mut dyn Pace,
    ) -> Result<Self, CleanError> {
        let mut survey = Self::default();
        // First offsets of open transactions.
        let mut open: HashMap<i64, i64> = HashMap::new();
        for source in sources {
            survey.walk(disk, source, &mut open, first_dirty, true)?;
            pace.spend(0)?;
        }
        for source in followers {
            if open.is_empty() {
                break;
            }
            survey.walk(disk, source, &mut open, first_dirty, false)?;
            pace.spend(0)?;
        }
        Ok(survey)
    }

    fn walk(
        &mut self,
        disk: &dyn Disk,
        source: &Source,
        open: &mut HashMap<i64, i64>,
        first_dirty: i64,
        counts: bool,
    ) -> Result<(), CleanError> {
        let file = disk.open(&source.path, OpenMode::Read)?;
        let mut scan = Scan::new(&file, 0, source.size, WALK_WINDOW);
        while let Some(found) = scan.next().map_err(|error| error.in_file(&file))? {
            let header = &found.header;
            if header.last_offset().0 < first_dirty {
                continue;
            }
            let producer_id = header.producer_id.0;
            if !header.attributes.is_control() {
                if counts {
                    self.records += u64::from(header.count.unsigned_abs());
                    if header.attributes.is_transactional() {
                        open.entry(producer_id).or_insert(header.base_offset.0);
                    }
                } else if open.is_empty() {
                    return Ok(());
                }
                continue;
            }
            if !open.contains_key(&producer_id) {
                continue;
            }
            let bytes = scan.read(&found)?;
            let end = end_of_transaction(&Batch { header: *header, bytes }, &file)?;
            if let (Some(committed), Some(first)) = (end, open.get(&producer_id).copied()) {
                open.remove(&producer_id);
                if !committed {
                    let marker = header.last_offset().0;
                    self.aborted.entry(producer_id).or_default().push((first, marker));
                }
            }
        }
        Ok(())
    }

    /// Reports whether the records of a batch belong to an aborted transaction.
    pub(super) fn is_aborted(&self, header: &BatchHeader) -> bool {
        if self.aborted.is_empty() || !header.attributes.is_transactional() {
            return false;
        }
        let Some(ranges) = self.aborted.get(&header.producer_id.0) else { return false };
        let offset = header.last_offset().0;
        let index = ranges.partition_point(|(_, marker)| *marker < offset);
        ranges.get(index).is_some_and(|(first, _)| *first <= offset)
    }
}

/// Tells of each marker, while the batches are rewritten in their order, whether batches of its
/// transaction are left.
#[derive(Debug, Default)]
pub(super) struct MarkerKeeper {
    /// Producers of whose open transaction a batch was met.
    met: HashSet<i64>,
    /// Entries of `.txnindex` of the segment at hand, by the offset of the marker.
    indexed: HashMap<i64, Bytes>,
    /// Entries to keep for the group at hand.
    kept: Vec<Bytes>,
}

impl MarkerKeeper {
    /// Reads the index of aborted transactions of the segment that comes next, if it has one.
    pub(super) fn enter_segment(
        &mut self,
        disk: &dyn Disk,
        source: &Source,
    ) -> Result<(), CleanError> {
        self.indexed.clear();
        let directory = source.path.parent().unwrap_or(&source.path);
        let path = names::file_path(directory, source.base_offset, FileKind::TransactionIndex);
        let bytes = match disk.read_file(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let whole = bytes.len() - bytes.len() % INDEX_ENTRY_BYTES;
        for position in (0..whole).step_by(INDEX_ENTRY_BYTES) {
            let entry = bytes.slice(position..position + INDEX_ENTRY_BYTES);
            if let Some(marker) = entry[LAST_OFFSET_AT..].first_chunk::<8>() {
                self.indexed.insert(i64::from_be_bytes(*marker), entry);
            }
        }
        Ok(())
    }

    /// Takes note of a batch of records.
    pub(super) fn meet_records(&mut self, header: &BatchHeader) {
        if header.attributes.is_transactional() {
            self.met.insert(header.producer_id.0);
        }
    }

    /// Takes note of a control batch, and reports whether nothing needs it any more.
    pub(super) fn meet_control(&mut self, batch: &Batch) -> Result<bool, ControlFault> {
        match control_type(batch)? {
            // Its record has been dropped before.
            None => Ok(true),
            Some(ControlRecordType::Commit) => Ok(!self.met.remove(&batch.header.producer_id.0)),
            Some(ControlRecordType::Abort) => {
                let is_needed = self.met.remove(&batch.header.producer_id.0);
                if is_needed && let Some(entry) = self.indexed.get(&batch.header.last_offset().0) {
                    self.kept.push(entry.clone());
                }
                Ok(!is_needed)
            }
            Some(_) => Ok(false),
        }
    }

    /// Returns the content of the index for the segment just written.
    pub(super) fn take_index(&mut self) -> Vec<u8> {
        self.kept.drain(..).flatten().collect()
    }
}

/// A control batch that cannot be understood.
pub(super) type ControlFault = String;

fn control_type(batch: &Batch) -> Result<Option<ControlRecordType>, ControlFault> {
    // Brokers never compress them.
    if batch.header.compression() != Ok(Compression::None) {
        return Err("a control batch is compressed".to_owned());
    }
    let mut records = RecordIter::new(&batch.header, &batch.bytes[layout::HEADER_SIZE..]);
    let Some(record) = records.next() else { return Ok(None) };
    let record = record.map_err(|error| error.to_string())?;
    ControlRecordType::of(&record).map(Some).map_err(|error| error.to_string())
}

/// Returns whether a control batch commits or aborts; `None` when it does neither.
fn end_of_transaction(batch: &Batch, file: &Arc<dyn File>) -> Result<Option<bool>, CleanError> {
    match control_type(batch) {
        Ok(Some(ControlRecordType::Commit)) => Ok(Some(true)),
        Ok(Some(ControlRecordType::Abort)) => Ok(Some(false)),
        Ok(_) => Ok(None),
        Err(reason) => Err(LogError::Malformed {
            path: file.path().to_owned(),
            reason: format!("at offset {}: {reason}", batch.header.base_offset),
        }
        .into()),
    }
}

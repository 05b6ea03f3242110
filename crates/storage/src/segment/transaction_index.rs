//! The index of aborted transactions beside a segment, for consumers that read committed records.
//!
//! ```text
//! .txnindex, per aborted transaction:   2 B  version, 0
//!                                       8 B  producer id
//!                                       8 B  offset of its first record
//!                                       8 B  offset of its marker, which lies in this segment
//!                                       8 B  last stable offset once it had ended
//! ```
//!
//! Entries ascend by the offset of the marker; the file is made with the first of them. As with the
//! other indexes there is no checksum, new entries wait in memory, and what a crash takes with it
//! recovery finds again: it cuts the index where it begins to look, and replaying the producers
//! enters the markers anew. Other than there no entry may ever be missing: without it a consumer
//! would take aborted records for committed ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use fleuve_os::{DiskResult, File};
use fleuve_types::{Offset, ProducerId};

use crate::environment::{Environment, FileHandle};

const VERSION: i16 = 0;
/// The size of an entry.
pub(crate) const ENTRY_BYTES: usize = 34;
/// Entries are written when this many have come together, and read so many at a time: a page.
const ENTRIES_PER_PAGE: usize = 4096 / ENTRY_BYTES;

/// A transaction that was aborted in this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose transaction it was.
    pub producer_id: ProducerId,
    /// Where its records begin.
    pub first_offset: Offset,
    /// Where its marker stands.
    pub last_offset: Offset,
    /// Where the oldest of the other open transactions began at that moment; the offset behind the
    /// marker if there was none. Later entries cannot concern records before it.
    pub last_stable_offset: Offset,
}

/// The aborted transactions whose markers lie in one segment.
#[derive(Debug)]
pub(crate) struct TransactionIndex {
    file: FileHandle,
    /// Entries in the file; `None` until it was looked at.
    stored: Option<u64>,
    /// Offset of the last marker that is entered, as far as known.
    last_marker: Option<i64>,
    /// Entries that follow those in the file.
    unwritten: Vec<AbortedTransaction>,
}

impl TransactionIndex {
    /// Names an index whose file is opened, or made, at its first use.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { file: FileHandle::new(path), stored: None, last_marker: None, unwritten: Vec::new() }
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Enters a transaction, unless its marker is entered already.
    ///
    /// Should the file refuse the entries that have come together, they wait in memory.
    pub(crate) fn push(
        &mut self,
        environment: &Environment,
        entry: AbortedTransaction,
    ) -> DiskResult<()> {
        self.load(environment)?;
        if self.last_marker.is_some_and(|known| known >= entry.last_offset.0) {
            return Ok(());
        }
        self.last_marker = Some(entry.last_offset.0);
        self.unwritten.push(entry);
        if self.unwritten.len() >= ENTRIES_PER_PAGE
            && let Err(error) = self.write(environment)
        {
            tracing::debug!(%error, "entries of aborted transactions wait in memory");
        }
        Ok(())
    }

    /// Writes the entries that wait in memory; the file then waits for a sync.
    pub(crate) fn write(&mut self, environment: &Environment) -> DiskResult<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let stored = self.load(environment)?;
        let file = self.file.create(environment)?;
        let mut bytes = Vec::with_capacity(self.unwritten.len() * ENTRY_BYTES);
        self.unwritten.iter().for_each(|entry| entry.encode(&mut bytes));
        file.write_at(&bytes, stored * ENTRY_BYTES as u64)?;
        self.stored = Some(stored + self.unwritten.len() as u64);
        self.unwritten.clear();
        Ok(())
    }

    /// Drops the entries whose markers stand at `offset` or behind it, and whatever a crash may
    /// have left in their place; reports whether there was anything of that.
    pub(crate) fn truncate(&mut self, environment: &Environment, offset: i64) -> DiskResult<bool> {
        let waiting = self.unwritten.len();
        self.unwritten.retain(|entry| entry.last_offset.0 < offset);
        self.stored = None;
        let stored = self.load(environment)?;
        let (mut kept, mut last_marker) = (0, -1);
        let mut is_cut = self.unwritten.len() < waiting;
        if stored > 0 {
            let file = self.file.open(environment)?;
            'pages: while kept < stored {
                for entry in read_page(&file, kept, stored)? {
                    let Some(entry) = entry else { break 'pages };
                    if entry.last_offset.0 <= last_marker || entry.last_offset.0 >= offset {
                        break 'pages;
                    }
                    last_marker = entry.last_offset.0;
                    kept += 1;
                }
            }
            let sound_bytes = kept * ENTRY_BYTES as u64;
            if file.len()? != sound_bytes {
                file.set_len(sound_bytes)?;
                // Otherwise a crash could bring back the old entries, of a segment that recovery
                // has no reason to look at.
                file.sync_all()?;
                is_cut = true;
            }
        }
        self.stored = Some(kept);
        let last_marker = self.unwritten.last().map_or(last_marker, |entry| entry.last_offset.0);
        self.last_marker = Some(last_marker).filter(|marker| *marker >= 0);
        Ok(is_cut)
    }

    /// Adds the transactions to `found` that reach into the records from `offset` to before
    /// `end`; reports whether no later entry of the log can.
    pub(crate) fn collect(
        &mut self,
        environment: &Environment,
        offset: i64,
        end: i64,
        found: &mut Vec<AbortedTransaction>,
    ) -> DiskResult<bool> {
        let stored = self.load(environment)?;
        if stored > 0 {
            let file = self.file.open(environment)?;
            let mut index = first_reaching(&file, stored, offset)?;
            while index < stored {
                for entry in read_page(&file, index, stored)? {
                    // Nothing that follows damage can be told from it.
                    let Some(entry) = entry else { return Ok(false) };
                    index += 1;
                    if entry.add_if_between(offset, end, found) {
                        return Ok(true);
                    }
                }
            }
        }
        for entry in &self.unwritten {
            if entry.add_if_between(offset, end, found) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks the entries in the file and writes them again; reports whether they are those that
    /// were written.
    pub(crate) fn write_again(&mut self, environment: &Environment) -> DiskResult<bool> {
        let stored = self.load(environment)?;
        if stored == 0 {
            return Ok(true);
        }
        let file = self.file.open(environment)?;
        let mut last_marker = -1;
        let mut index = 0;
        while index < stored {
            let count = (stored - index).min(ENTRIES_PER_PAGE as u64) as usize;
            let position = index * ENTRY_BYTES as u64;
            let bytes = file.read_exact_at(position, count * ENTRY_BYTES)?;
            for entry in bytes.chunks_exact(ENTRY_BYTES).map(AbortedTransaction::decode) {
                // Bytes that are all zero are not an entry: a marker has records before it.
                let entry = entry.filter(|entry| entry.first_offset < entry.last_offset);
                match entry {
                    Some(entry) if entry.last_offset.0 > last_marker => {
                        last_marker = entry.last_offset.0;
                    }
                    _ => return Ok(false),
                }
            }
            file.write_at(&bytes, position)?;
            index += count as u64;
        }
        Ok(!self.unwritten.is_empty() || self.last_marker == Some(last_marker))
    }

    pub(crate) fn close(&mut self, environment: &Environment) {
        self.file.close(environment);
    }

    /// Looks at the file, unless that was done. A partial entry at its end does not count.
    fn load(&mut self, environment: &Environment) -> DiskResult<u64> {
        if let Some(stored) = self.stored {
            return Ok(stored);
        }
        let stored = match self.file.open(environment) {
            Ok(file) => {
                let stored = file.len()? / ENTRY_BYTES as u64;
                if stored > 0 {
                    let last = read_entries(&file, stored - 1, 1)?;
                    self.last_marker = last.first().copied().flatten().map(|e| e.last_offset.0);
                }
                stored
            }
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error),
        };
        self.stored = Some(stored);
        Ok(stored)
    }
}

impl AbortedTransaction {
    /// Adds itself to `found` if it reaches into the records from `offset` to before `end`; reports
    /// whether no later entry can.
    fn add_if_between(&self, offset: i64, end: i64, found: &mut Vec<Self>) -> bool {
        if self.last_offset.0 >= offset && self.first_offset.0 < end {
            found.push(*self);
        }
        self.last_stable_offset.0 >= end
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_i16(VERSION);
        bytes.put_i64(self.producer_id.0);
        bytes.put_i64(self.first_offset.0);
        bytes.put_i64(self.last_offset.0);
        bytes.put_i64(self.last_stable_offset.0);
    }

    /// Decodes exactly [`ENTRY_BYTES`]; `None` when they are no entry.
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let version = bytes.get_i16();
        let entry = Self {
            producer_id: ProducerId(bytes.get_i64()),
            first_offset: Offset(bytes.get_i64()),
            last_offset: Offset(bytes.get_i64()),
            last_stable_offset: Offset(bytes.get_i64()),
        };
        let is_plausible = version == VERSION
            && entry.first_offset.0 >= 0
            && entry.first_offset <= entry.last_offset;
        is_plausible.then_some(entry)
    }
}

/// Returns the index of the first entry whose marker does not stand before `offset`.
fn first_reaching(file: &Arc<dyn File>, stored: u64, offset: i64) -> DiskResult<u64> {
    let (mut low, mut high) = (0, stored);
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = read_entries(file, middle, 1)?.first().copied().flatten();
        if entry.is_some_and(|entry| entry.last_offset.0 < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn read_page(
    file: &Arc<dyn File>,
    index: u64,
    stored: u64,
) -> DiskResult<Vec<Option<AbortedTransaction>>> {
    read_entries(file, index, (stored - index).min(ENTRIES_PER_PAGE as u64) as usize)
}

/// Reads `count` entries from the one at `index` on.
fn read_entries(
    file: &Arc<dyn File>,
    index: u64,
    count: usize,
) -> DiskResult<Vec<Option<AbortedTransaction>>> {
    let bytes: Bytes = file.read_exact_at(index * ENTRY_BYTES as u64, count * ENTRY_BYTES)?;
    Ok(bytes.chunks_exact(ENTRY_BYTES).map(AbortedTransaction::decode).collect())
}

#[cfg(test)]
mod tests {
    use fleuve_os::Disk;

    use super::*;
    use crate::testing;

    fn entry(first: i64, last: i64, stable: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: ProducerId(first),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(stable),
        }
    }

    fn found(
        index: &mut TransactionIndex,
        environment: &Environment,
        offset: i64,
        end: i64,
    ) -> (Vec<i64>, bool) {
        let mut found = Vec::new();
        let complete = index.collect(environment, offset, end, &mut found).unwrap();
        (found.iter().map(|entry| entry.first_offset.0).collect(), complete)
    }

    #[test]
    fn entries_are_found_in_memory_and_in_the_file_and_stop_where_none_can_follow() {
        let (environment, disk) = testing::environment();
        let path = PathBuf::from("/x.txnindex");
        let mut index = TransactionIndex::at(path.clone());
        assert_eq!(found(&mut index, &environment, 0, 100), (vec![], false));
        for number in 0..1000 {
            let first = number * 10;
            index.push(&environment, entry(first, first + 5, first + 6)).unwrap();
        }
        for round in 0..2 {
            assert_eq!(found(&mut index, &environment, 25, 47), (vec![20, 30, 40], true));
            assert_eq!(found(&mut index, &environment, 25, 46), (vec![20, 30, 40], true));
            assert_eq!(found(&mut index, &environment, 26, 31), (vec![30], true));
            assert_eq!(found(&mut index, &environment, 9_996, 20_000), (vec![], false));
            assert_eq!(found(&mut index, &environment, 9_990, 20_000), (vec![9_990], false));
            if round == 0 {
                index.write(&environment).unwrap();
                let bytes = disk.read_file(&path).unwrap();
                assert_eq!(bytes.len(), 1000 * ENTRY_BYTES);
                assert_eq!(&bytes[34..44], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
                index = TransactionIndex::at(path.clone());
            }
        }
        index.push(&environment, entry(9_990, 9_995, 9_996)).unwrap();
        index.write(&environment).unwrap();
        let length = disk.read_file(&path).unwrap().len();
        assert_eq!(length, 1000 * ENTRY_BYTES, "it is entered already");
    }

    #[test]
    fn truncation_keeps_what_is_sound_and_lies_before_the_offset() {
        let (environment, disk) = testing::environment();
        let path = PathBuf::from("/x.txnindex");
        let mut index = TransactionIndex::at(path.clone());
        for number in 0..300 {
            index.push(&environment, entry(number, number, number + 1)).unwrap();
        }
        index.truncate(&environment, 299).unwrap();
        assert_eq!(found(&mut index, &environment, 298, 400), (vec![298], false));
        index.write(&environment).unwrap();
        disk.damage(&path, |bytes| {
            bytes[100 * ENTRY_BYTES..].fill(0);
            bytes.truncate(200 * ENTRY_BYTES + 7);
        });
        let mut index = TransactionIndex::at(path.clone());
        index.truncate(&environment, 250).unwrap();
        assert_eq!(disk.read_file(&path).unwrap().len(), 100 * ENTRY_BYTES);
        index.push(&environment, entry(100, 100, 101)).unwrap();
        assert_eq!(found(&mut index, &environment, 99, 400), (vec![99, 100], false));
        index.truncate(&environment, 50).unwrap();
        index.push(&environment, entry(60, 60, 61)).unwrap();
        assert_eq!(found(&mut index, &environment, 49, 400), (vec![49, 60], false));
    }
}

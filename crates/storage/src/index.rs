//! The sparse indexes beside a segment.
//!
//! ```text
//! .index      per entry   4 B  offset − base offset of the segment: the last of a batch
//!                         4 B  byte position where that batch begins
//! .timeindex  per entry   8 B  the largest timestamp so far, in milliseconds
//!                         4 B  offset − base offset: the last of the batch that has it
//! ```
//!
//! All integers are big-endian, entries ascend in both fields, and there is no checksum. Therefore
//! nothing is believed: whoever looks an entry up compares it with the batch it points at, and
//! rebuilds the index from the log when they disagree ([`crate::segment`]).
//!
//! Kafka maps index files into memory and preallocates them, which ties two mappings and two
//! descriptors to every segment. Here an index is read with ordinary reads when it is needed, and
//! new entries wait in memory until a page of them is worth a write. What a crash takes with it is
//! found again by recovery, which scans the log from the recovery point anyway.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use fleuve_os::{DiskError, DiskResult, File};

use crate::environment::{Environment, FileHandle};

/// An entry of fixed size.
pub(crate) trait Entry: Copy + std::fmt::Debug {
    /// Bytes in the file.
    const SIZE: usize;

    fn encode(&self, bytes: &mut Vec<u8>);
    /// Decodes exactly [`Entry::SIZE`] bytes.
    fn decode(bytes: &[u8]) -> Self;
}

/// Where a batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// Last offset of the batch, counted from the segment's base.
    pub(crate) relative_offset: u32,
    /// Where the batch begins.
    pub(crate) position: u32,
}

impl Entry for OffsetEntry {
    const SIZE: usize = 8;

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.relative_offset.to_be_bytes());
        bytes.extend(self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let number = u64::from_be_bytes(bytes.try_into().expect("an offset entry has 8 bytes"));
        Self { relative_offset: (number >> 32) as u32, position: number as u32 }
    }
}

/// Up to where no record is newer than a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    /// Last offset of the batch with that timestamp, counted from the segment's base.
    pub(crate) relative_offset: u32,
}

impl Entry for TimeEntry {
    const SIZE: usize = 12;

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let (timestamp, relative_offset) = bytes.split_at(8);
        Self {
            timestamp: i64::from_be_bytes(timestamp.try_into().expect("split at 8")),
            relative_offset: u32::from_be_bytes(
                relative_offset.try_into().expect("a time entry has 12 bytes"),
            ),
        }
    }
}

/// Entries are written when this many have come together: a page of the larger kind.
const UNWRITTEN_ENTRIES_MAX: usize = 4096 / 12;

/// One index file.
#[derive(Debug)]
pub(crate) struct Index<E> {
    file: FileHandle,
    /// Entries in the file; `None` until the file was looked at.
    stored: Option<u64>,
    /// Entries that follow those in the file.
    unwritten: Vec<E>,
    last: Option<E>,
    entry: PhantomData<E>,
}

impl<E: Entry> Index<E> {
    /// Names an index whose file is opened at its first use.
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            file: FileHandle::new(path.to_owned()),
            stored: None,
            unwritten: Vec::new(),
            last: None,
            entry: PhantomData,
        }
    }

    /// Looks at the file; fails when it is missing. A partial entry at its end does not count.
    fn load(&mut self, environment: &Environment) -> DiskResult<u64> {
        if let Some(stored) = self.stored {
            return Ok(stored);
        }
        let file = self.file.open(environment)?;
        let stored = file.len()? / E::SIZE as u64;
        self.last = match stored {
            0 => None,
            _ => Some(read_entry(&file, stored - 1)?),
        };
        self.stored = Some(stored);
        Ok(stored)
    }

    /// Returns how many entries there are.
    pub(crate) fn len(&mut self, environment: &Environment) -> DiskResult<u64> {
        Ok(self.load(environment)? + self.unwritten.len() as u64)
    }

    pub(crate) fn last(&mut self, environment: &Environment) -> DiskResult<Option<E>> {
        self.load(environment)?;
        Ok(self.last)
    }

    /// Returns the last entry for which `is_before` holds, given that it holds for a prefix.
    pub(crate) fn find_last(
        &mut self,
        environment: &Environment,
        is_before: impl Fn(&E) -> bool,
    ) -> DiskResult<Option<E>> {
        Ok(self.search(environment, is_before)?.1)
    }

    /// Returns how many entries `is_before` holds for, and the last of them.
    fn search(
        &mut self,
        environment: &Environment,
        is_before: impl Fn(&E) -> bool,
    ) -> DiskResult<(u64, Option<E>)> {
        let stored = self.load(environment)?;
        // Most lookups are near the end.
        if let Some(last) = self.last.filter(&is_before) {
            return Ok((stored + self.unwritten.len() as u64, Some(last)));
        }
        let in_memory = self.unwritten.partition_point(&is_before);
        if in_memory > 0 {
            return Ok((stored + in_memory as u64, Some(self.unwritten[in_memory - 1])));
        }
        if stored == 0 {
            return Ok((0, None));
        }
        let file = self.file.open(environment)?;
        let (mut low, mut high, mut found) = (0, stored, None);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = read_entry(&file, middle)?;
            if is_before(&entry) {
                (low, found) = (middle + 1, Some(entry));
            } else {
                high = middle;
            }
        }
        Ok((low, found))
    }

    /// Adds an entry behind all others.
    ///
    /// Never fails: should the file refuse the collected entries, they wait in memory for the next
    /// occasion, and beyond a bound the index just becomes sparser.
    pub(crate) fn push(&mut self, environment: &Environment, entry: E) {
        const KEPT_MAX: usize = 16 * UNWRITTEN_ENTRIES_MAX;
        if self.unwritten.len() >= KEPT_MAX {
            return;
        }
        self.unwritten.push(entry);
        self.last = Some(entry);
        if self.unwritten.len() >= UNWRITTEN_ENTRIES_MAX
            && let Err(error) = self.write(environment)
        {
            tracing::debug!(%error, "index entries wait in memory");
        }
    }

    /// Writes the entries that wait in memory and returns the file.
    pub(crate) fn write(&mut self, environment: &Environment) -> DiskResult<Arc<dyn File>> {
        let stored = self.load(environment)?;
        let file = self.file.open(environment)?;
        if !self.unwritten.is_empty() {
            let mut bytes = Vec::with_capacity(self.unwritten.len() * E::SIZE);
            self.unwritten.iter().for_each(|entry| entry.encode(&mut bytes));
            file.write_at(&bytes, stored * E::SIZE as u64)?;
            self.stored = Some(stored + self.unwritten.len() as u64);
            self.unwritten = Vec::new();
        }
        Ok(file)
    }

    /// Drops all entries but those for which `is_kept` holds, a prefix; makes the file if missing.
    pub(crate) fn truncate(
        &mut self,
        environment: &Environment,
        is_kept: impl Fn(&E) -> bool,
    ) -> DiskResult<()> {
        let (kept, last) = match self.search(environment, is_kept) {
            Err(error) if error.is_not_found() => return self.reset(environment),
            found => found?,
        };
        let stored = self.load(environment)?;
        self.unwritten.truncate(kept.saturating_sub(stored) as usize);
        self.last = last;
        // Also cuts a partial entry, so that the next write stands where it belongs.
        self.file.open(environment)?.set_len(kept.min(stored) * E::SIZE as u64)?;
        self.stored = Some(kept.min(stored));
        Ok(())
    }

    /// Drops all entries; makes the file if missing.
    pub(crate) fn reset(&mut self, environment: &Environment) -> DiskResult<()> {
        let file = self.file.create(environment)?;
        file.set_len(0)?;
        self.stored = Some(0);
        self.unwritten = Vec::new();
        self.last = None;
        Ok(())
    }

    pub(crate) fn close(&mut self, environment: &Environment) {
        self.file.close(environment);
    }
}

fn read_entry<E: Entry>(file: &Arc<dyn File>, index: u64) -> DiskResult<E> {
    let mut bytes = [0; 16];
    let bytes = &mut bytes[..E::SIZE];
    let read = file.read_at(bytes, index * E::SIZE as u64)?;
    if read < E::SIZE {
        let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(DiskError::new("read an index entry of", file.path(), source));
    }
    Ok(E::decode(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fleuve_os::Disk;

    use super::*;
    use crate::testing;

    fn offsets(index: &mut Index<OffsetEntry>, environment: &Environment) -> Vec<Option<u32>> {
        [0, 9, 10, 4999, 5000, 99_990, 1 << 30]
            .map(|target| {
                index
                    .find_last(environment, |entry| entry.relative_offset <= target)
                    .unwrap()
                    .map(|entry| entry.relative_offset)
            })
            .to_vec()
    }

    #[test]
    fn entries_are_found_in_memory_and_in_the_file() {
        let (environment, disk) = testing::environment();
        let mut index = Index::at(Path::new("/x.index"));
        index.reset(&environment).unwrap();
        assert_eq!(index.find_last(&environment, |_: &OffsetEntry| true).unwrap(), None);
        for number in 1..10_000 {
            index
                .push(&environment, OffsetEntry { relative_offset: number * 10, position: number });
        }
        let expected =
            vec![None, None, Some(10), Some(4990), Some(5000), Some(99_990), Some(99_990)];
        assert_eq!(offsets(&mut index, &environment), expected);
        assert!(disk.read_file(Path::new("/x.index")).unwrap().len() < 9_999 * 8);
        index.write(&environment).unwrap();
        let bytes = disk.read_file(Path::new("/x.index")).unwrap();
        assert_eq!(bytes.len(), 9_999 * 8);
        assert_eq!(&bytes[..8], b"\0\0\0\x0a\0\0\0\x01");

        let mut reopened = Index::at(Path::new("/x.index"));
        assert_eq!(offsets(&mut reopened, &environment), expected);
        assert_eq!(reopened.len(&environment).unwrap(), 9_999);
    }

    #[test]
    fn truncation_keeps_a_prefix_and_drops_partial_entries() {
        let (environment, disk) = testing::environment();
        let path = Path::new("/x.timeindex");
        let mut index = Index::at(path);
        index.reset(&environment).unwrap();
        for number in 0..1000 {
            let timestamp = i64::from(number) * 5;
            index.push(&environment, TimeEntry { timestamp, relative_offset: number });
        }
        index.truncate(&environment, |entry| entry.relative_offset < 999).unwrap();
        assert_eq!(index.len(&environment).unwrap(), 999);
        index.truncate(&environment, |entry| entry.relative_offset < 7).unwrap();
        let last = Some(TimeEntry { timestamp: 30, relative_offset: 6 });
        assert_eq!(index.last(&environment).unwrap(), last);
        index.write(&environment).unwrap();
        disk.damage(path, |bytes| bytes.truncate(7 * 12 - 1));

        let mut reopened: Index<TimeEntry> = Index::at(path);
        assert_eq!(reopened.len(&environment).unwrap(), 6);
        reopened.push(&environment, TimeEntry { timestamp: 99, relative_offset: 50 });
        reopened.write(&environment).unwrap();
        assert_eq!(disk.read_file(path).unwrap().len(), 7 * 12);
    }
}

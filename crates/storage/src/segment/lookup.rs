//! Finding batches in a segment by offset and by time.
//!
//! Index entries are hints. Every lookup compares the entry it uses with the batch the entry points
//! at; if they disagree, both indexes are rebuilt from the log. So a damaged index costs time, never
//! a wrong answer.

use std::sync::Arc;

use fleuve_os::File;
use fleuve_protocol::records::layout;

use super::batch_file::{Newest, Segment, facts};
use crate::environment::Environment;
use crate::error::LogError;
use crate::index::{OffsetEntry, TimeEntry};
use crate::scan::{Found, LOOKUP_WINDOW, Scan, ScanError, WALK_WINDOW};

/// Index interval of rebuilt indexes: Kafka's default, whatever the log is set to.
const INTERVAL_OF_REBUILD: u32 = 4096;

impl Segment {
    /// Finds the first batch whose last offset is not below `offset`.
    pub(crate) fn find(
        &mut self,
        environment: &Environment,
        offset: i64,
    ) -> Result<Option<Found>, LogError> {
        let file = self.log.open(environment)?;
        let end = self.size(environment)?;
        if let Some(found) = self.step_on(&file, end, offset)? {
            return Ok(Some(found));
        }
        let begin = self.position_before(environment, offset)?;
        let mut scan = Scan::new(&file, begin, end, LOOKUP_WINDOW);
        while let Some(found) = scan.next().map_err(|error| error.in_file(&file))? {
            if found.header.last_offset().0 >= offset {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Finds the batch that begins at `offset` where a reader has noted it.
    fn step_on(
        &self,
        file: &Arc<dyn File>,
        end: u64,
        offset: i64,
    ) -> Result<Option<Found>, LogError> {
        let noted = self.steps.as_ref().and_then(|steps| steps.position(offset));
        let Some(position) = noted else { return Ok(None) };
        match Scan::new(file, position, end, layout::HEADER_SIZE).next() {
            Ok(found) => Ok(found.filter(|found| found.header.base_offset.0 == offset)),
            Err(ScanError::NoBatch { .. }) => Ok(None),
            Err(error) => Err(error.in_file(file)),
        }
    }

    /// Finds the first batch from `offset` on that has a record of `timestamp` or later, as far as
    /// its header tells.
    pub(crate) fn find_timestamp(
        &mut self,
        environment: &Environment,
        timestamp: i64,
        offset: i64,
    ) -> Result<Option<Found>, LogError> {
        let before = self.time_entry_before(environment, timestamp)?;
        let from_offset = before.map_or(offset, |entry| offset.max(self.absolute(&entry)));
        let Some(first) = self.find(environment, from_offset)? else { return Ok(None) };
        let file = self.log.open(environment)?;
        let mut scan = Scan::new(&file, first.position, self.size(environment)?, LOOKUP_WINDOW);
        while let Some(found) = scan.next().map_err(|error| error.in_file(&file))? {
            if found.header.max_timestamp.0 >= timestamp {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns the largest timestamp and the batch it belongs to.
    pub(crate) fn newest(&mut self, environment: &Environment) -> Result<Newest, LogError> {
        if let Some(newest) = self.newest {
            return Ok(newest);
        }
        let newest = self.find_newest(environment)?;
        self.newest = Some(newest);
        Ok(newest)
    }

    /// Returns from when on the segment's age counts: its largest timestamp, or when its file was
    /// written last if no record has one.
    pub(crate) fn newest_ms(&mut self, environment: &Environment) -> Result<i64, LogError> {
        let timestamp = self.newest(environment)?.timestamp;
        if timestamp >= 0 {
            return Ok(timestamp);
        }
        Ok(self.log.open(environment)?.modified_ms()?)
    }

    /// Returns the offset that follows the last batch.
    pub(crate) fn next_offset(&mut self, environment: &Environment) -> Result<i64, LogError> {
        let begin = self.position_before(environment, i64::MAX)?;
        let file = self.log.open(environment)?;
        let mut scan = Scan::new(&file, begin, self.size(environment)?, WALK_WINDOW);
        let mut next_offset = self.base_offset;
        while let Some(found) = scan.next().map_err(|error| error.in_file(&file))? {
            next_offset = found.header.next_offset().0;
        }
        self.bytes_since_index_entry = scan.position() - begin;
        Ok(next_offset)
    }

    /// Walks over the batches from `offset` on.
    pub(crate) fn for_each_batch(
        &mut self,
        environment: &Environment,
        offset: i64,
        mut visit: impl FnMut(&mut Scan<'_>, Found) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let begin = self.position_before(environment, offset)?;
        let file = self.log.open(environment)?;
        let mut scan = Scan::new(&file, begin, self.size(environment)?, WALK_WINDOW);
        while let Some(found) = scan.next().map_err(|error| error.in_file(&file))? {
            if found.header.last_offset().0 >= offset {
                visit(&mut scan, found)?;
            }
        }
        Ok(())
    }

    /// Rebuilds both indexes from the headers of all batches.
    pub(crate) fn rebuild_indexes(&mut self, environment: &Environment) -> Result<(), LogError> {
        tracing::warn!(segment = %self.log.path().display(), "rebuilding missing or damaged indexes");
        self.offset_index.reset(environment)?;
        self.time_index.reset(environment)?;
        let file = self.log.open(environment)?;
        let end = self.size(environment)?;
        self.size = Some(0);
        self.newest = Some(self.no_newest());
        self.bytes_since_index_entry = 0;
        let mut scan = Scan::new(&file, 0, end, WALK_WINDOW);
        let outcome = loop {
            match scan.next() {
                Ok(Some(found)) => self.enter(environment, facts(&found), INTERVAL_OF_REBUILD),
                Ok(None) => break Ok(()),
                // Lookups beyond the damage meet it themselves; those before it still work.
                Err(ScanError::NoBatch { .. }) => break Ok(()),
                Err(error) => break Err(error.in_file(&file)),
            }
        };
        self.size = Some(end);
        outcome
    }

    /// Returns a position from which a walk meets the batch with `offset`.
    pub(super) fn position_before(
        &mut self,
        environment: &Environment,
        offset: i64,
    ) -> Result<u64, LogError> {
        if offset <= self.base_offset {
            return Ok(0);
        }
        let relative = u32::try_from(offset - self.base_offset).unwrap_or(u32::MAX);
        let mut rebuilt = false;
        loop {
            let lookup =
                self.offset_index.find_last(environment, |entry| entry.relative_offset <= relative);
            let trusted = match lookup {
                Ok(None) => return Ok(0),
                Ok(Some(entry)) => self.agrees(environment, entry)?.then_some(entry.position),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            };
            match trusted {
                Some(position) => return Ok(u64::from(position)),
                None if rebuilt => return Ok(0),
                None => self.rebuild_indexes(environment)?,
            }
            rebuilt = true;
        }
    }

    /// Reports whether a batch that ends no later than `entry` says stands where it says. Kafka
    /// before 4.0 entered the last offset of a whole append, of which this is the first batch.
    fn agrees(&mut self, environment: &Environment, entry: OffsetEntry) -> Result<bool, LogError> {
        let file = self.log.open(environment)?;
        let end = self.size(environment)?;
        match Scan::new(&file, u64::from(entry.position), end, LOOKUP_WINDOW).next() {
            Ok(Some(found)) => {
                let limit = self.base_offset.saturating_add(i64::from(entry.relative_offset));
                Ok(found.header.base_offset.0 >= self.base_offset
                    && found.header.last_offset().0 <= limit)
            }
            Ok(None) | Err(ScanError::NoBatch { .. }) => Ok(false),
            Err(error) => Err(error.in_file(&file)),
        }
    }

    /// Returns the last time entry not newer than `timestamp`.
    fn time_entry_before(
        &mut self,
        environment: &Environment,
        timestamp: i64,
    ) -> Result<Option<TimeEntry>, LogError> {
        let mut rebuilt = false;
        loop {
            let lookup =
                self.time_index.find_last(environment, |entry| entry.timestamp <= timestamp);
            match lookup {
                Ok(None) => return Ok(None),
                Ok(Some(entry)) if self.agrees_in_time(environment, entry)? => {
                    return Ok(Some(entry));
                }
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ if rebuilt => return Ok(None),
                _ => self.rebuild_indexes(environment)?,
            }
            rebuilt = true;
        }
    }

    fn agrees_in_time(
        &mut self,
        environment: &Environment,
        entry: TimeEntry,
    ) -> Result<bool, LogError> {
        let found = self.find(environment, self.absolute(&entry))?;
        Ok(found.is_some_and(|found| found.header.max_timestamp.0 == entry.timestamp))
    }

    /// Returns the newest timestamp according to the last time entry, if that holds.
    pub(super) fn time_entry_if_valid(
        &mut self,
        environment: &Environment,
    ) -> Result<Option<Newest>, LogError> {
        let Some(entry) = self.time_index.last(environment)? else { return Ok(None) };
        Ok(self
            .agrees_in_time(environment, entry)?
            .then(|| Newest { timestamp: entry.timestamp, offset: self.absolute(&entry) }))
    }

    /// Finds the newest timestamp: the last time entry, or a batch behind it. Segments are closed
    /// with an entry for the newest, so there is little to walk over, unless entries were lost.
    pub(super) fn find_newest(&mut self, environment: &Environment) -> Result<Newest, LogError> {
        let last = self.time_entry_before(environment, i64::MAX)?;
        let mut newest = match last {
            Some(entry) => Newest { timestamp: entry.timestamp, offset: self.absolute(&entry) },
            None => self.no_newest(),
        };
        let from = last.map_or(self.base_offset, |entry| self.absolute(&entry));
        self.for_each_batch(environment, from, |_, found| {
            let facts = facts(&found);
            if facts.max_timestamp > newest.timestamp {
                newest = Newest { timestamp: facts.max_timestamp, offset: facts.last_offset };
            }
            Ok(())
        })?;
        Ok(newest)
    }
}

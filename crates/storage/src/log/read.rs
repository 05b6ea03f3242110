//! Reading: a plan under the lock, the bytes outside it.

use std::sync::Arc;

use bytes::Bytes;
use fleuve_os::{File, FileRange, Piece};
use fleuve_protocol::records::layout::HEADER_SIZE;
use fleuve_protocol::records::{Batch, BatchError, BatchHeader, Decompressor, RecordIter};
use fleuve_types::{LeaderEpoch, Offset, TimestampMs};

use super::partition_log::Log;
use crate::error::LogError;
use crate::scan::Found;
use crate::segment::Steps;
use crate::tail_cache::TailRead;

/// Less than this is read and not left in the file: sending from a file has a price of its own.
const LOCATED_BYTES_MIN: usize = 64 << 10;
/// Where batches are smaller than this, reading all bytes costs less than looking at each header.
const LOCATED_BATCH_BYTES_MIN: usize = 8 << 10;
/// Headers that are looked at before batches are judged to be small.
const LOCATED_BATCHES_MIN: usize = 8;

/// When a timestamp is looked up, a batch may decompress to this much.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// What a reader wants.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The offset to begin at; the batch that holds it comes whole.
    pub offset: Offset,
    /// Only records before this: the high watermark or the last stable offset.
    pub limit_offset: Offset,
    /// How much is wanted.
    pub max_bytes: usize,
    /// Whether the first batch comes even if it is larger than that.
    pub min_one_batch: bool,
}

/// Whole batches, in pieces that follow one another.
#[derive(Clone, Debug, Default)]
pub struct Records {
    parts: Vec<Bytes>,
    size: usize,
}

impl Records {
    fn new(parts: Vec<Bytes>) -> Self {
        let size = parts.iter().map(Bytes::len).sum();
        Self { parts, size }
    }

    /// Returns the size of all pieces together.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Reports whether there is no batch.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Returns the pieces, for vectored output. A piece may end within a batch.
    pub fn into_parts(self) -> Vec<Bytes> {
        self.parts
    }

    /// Returns one run of bytes, which costs a copy when there are several pieces.
    pub fn into_bytes(mut self) -> Bytes {
        match self.parts.len() {
            0 => Bytes::new(),
            1 => self.parts.remove(0),
            _ => {
                let mut joined = Vec::with_capacity(self.size);
                self.parts.iter().for_each(|part| joined.extend_from_slice(part));
                Bytes::from(joined)
            }
        }
    }
}

/// Whole batches that need not have been read yet.
#[derive(Clone, Debug, Default)]
pub struct LocatedRecords {
    /// The pieces, which follow one another. A piece may end within a batch.
    pub pieces: Vec<Piece>,
    /// The offset behind the last record, where it was come across.
    pub next_offset: Option<Offset>,
}

/// The slow part of a read.
#[derive(Debug)]
pub struct ReadPlan {
    source: Source,
    limit_offset: i64,
}

#[derive(Debug)]
enum Source {
    Memory(Records),
    File(Stretch),
}

/// Batches in a file.
#[derive(Debug)]
struct Stretch {
    file: Arc<dyn File>,
    position: u64,
    length: usize,
    /// The first of them.
    first: BatchHeader,
    /// The offset that was asked for.
    offset: i64,
    /// Takes note of where the next read begins.
    steps: Arc<Steps>,
}

impl Stretch {
    fn damaged(&self, error: &BatchError) -> LogError {
        LogError::Damaged {
            path: self.file.path().to_owned(),
            position: self.position,
            reason: error.to_string(),
        }
    }

    fn note(&self, walk: &Walk) {
        if let Some(next) = walk.next_offset {
            self.steps.note(self.offset, next.0, self.position + walk.end as u64);
        }
    }
}

impl ReadPlan {
    fn empty() -> Self {
        Self { source: Source::Memory(Records::default()), limit_offset: 0 }
    }

    /// Reports whether there is nothing to read for sure.
    pub fn is_empty(&self) -> bool {
        self.max_len() == 0
    }

    /// Returns how many bytes there can be at most.
    pub fn max_len(&self) -> usize {
        match &self.source {
            Source::Memory(records) => records.len(),
            Source::File(stretch) => stretch.length,
        }
    }

    /// Reports whether the records are in memory already, so that running the plan costs nothing.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }

    /// Guesses whether the plan can be run without waiting for the disk.
    pub fn is_cached(&self) -> bool {
        match &self.source {
            Source::Memory(_) => true,
            Source::File(Stretch { file, position, length, .. }) => {
                file.is_cached(*position, *length)
            }
        }
    }

    /// Fetches the bytes and cuts them behind the last whole batch before the limit.
    pub fn run(self) -> Result<Records, LogError> {
        let stretch = match self.source {
            Source::Memory(records) => return Ok(records),
            Source::File(stretch) => stretch,
        };
        let bytes = stretch.file.read_bytes_at(stretch.position, stretch.length)?;
        let mut walk = Walk::new(bytes.len(), self.limit_offset);
        while walk.room() > 0 {
            match BatchHeader::parse(&bytes[walk.end..]) {
                Ok(header) if walk.passes(&header) => {}
                Ok(_) | Err(BatchError::Incomplete { .. }) => break,
                // A truncation overtook us: what stands before it is still right.
                Err(_) if walk.end > 0 => break,
                Err(error) => return Err(stretch.damaged(&error)),
            }
        }
        stretch.note(&walk);
        let parts = if walk.end == 0 { Vec::new() } else { vec![bytes.slice(..walk.end)] };
        Ok(Records::new(parts))
    }

    /// Like [`Self::run`], but leaves large batches in their file, of which it looks at the headers
    /// only.
    pub fn locate(self) -> Result<LocatedRecords, LogError> {
        let in_file = match &self.source {
            Source::File(stretch) if stretch.length >= LOCATED_BYTES_MIN => {
                walk_headers(stretch, self.limit_offset)?
            }
            _ => None,
        };
        if let Some(located) = in_file {
            return Ok(located);
        }
        let pieces = self.run()?.into_parts().into_iter().map(Piece::Memory).collect();
        Ok(LocatedRecords { pieces, next_offset: None })
    }
}

/// Finds the end of the last whole batch before a limit.
#[derive(Debug)]
struct Walk {
    available: usize,
    limit_offset: i64,
    end: usize,
    batches: usize,
    next_offset: Option<Offset>,
}

impl Walk {
    fn new(available: usize, limit_offset: i64) -> Self {
        Self { available, limit_offset, end: 0, batches: 0, next_offset: None }
    }

    fn room(&self) -> usize {
        self.available - self.end
    }

    /// Steps over the batch that `header` begins, if it is whole and before the limit.
    fn passes(&mut self, header: &BatchHeader) -> bool {
        let beyond_limit = header.last_offset().0 >= self.limit_offset;
        if beyond_limit || header.size() > self.room() {
            return false;
        }
        self.end += header.size();
        self.batches += 1;
        self.next_offset = Some(header.next_offset());
        true
    }

    fn has_small_batches(&self) -> bool {
        self.batches >= LOCATED_BATCHES_MIN && self.end / self.batches < LOCATED_BATCH_BYTES_MIN
    }
}

/// Reads header after header; `None` if batches are so small that reading them is cheaper.
fn walk_headers(stretch: &Stretch, limit_offset: i64) -> Result<Option<LocatedRecords>, LogError> {
    let Stretch { file, position, .. } = stretch;
    let mut walk = Walk::new(stretch.length, limit_offset);
    if !walk.passes(&stretch.first) {
        return Ok(None);
    }
    let mut buffer = [0; HEADER_SIZE];
    while walk.room() >= HEADER_SIZE {
        if walk.has_small_batches() {
            return Ok(None);
        }
        let read = file.read_at(&mut buffer, position + walk.end as u64)?;
        match BatchHeader::parse(&buffer[..read]) {
            Ok(header) if walk.passes(&header) => {}
            // A truncation may have overtaken us: what stands before it is still right.
            Ok(_) | Err(_) => break,
        }
    }
    // What the headers promise need not be there any more then.
    let is_whole = file.len()? >= position + walk.end as u64;
    if !is_whole {
        return Ok(None);
    }
    stretch.note(&walk);
    let range = FileRange::new(Arc::clone(file), *position, walk.end);
    Ok(Some(LocatedRecords { pieces: vec![Piece::File(range)], next_offset: walk.next_offset }))
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// The record's offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: TimestampMs,
    /// The epoch it was written in.
    pub leader_epoch: LeaderEpoch,
}

impl Log {
    /// Finds out where the records are; reads at most a few headers.
    pub fn plan_read(&mut self, request: ReadRequest) -> Result<ReadPlan, LogError> {
        let offset = request.offset.0;
        if offset < self.log_start || offset > self.next_offset {
            return Err(LogError::OffsetOutOfRange {
                offset: request.offset,
                log_start: Offset(self.log_start),
                log_end: Offset(self.next_offset),
            });
        }
        let limit_offset = request.limit_offset.0.min(self.next_offset);
        if offset >= limit_offset {
            return Ok(ReadPlan::empty());
        }
        let tail_read = TailRead {
            offset,
            limit_offset,
            max_bytes: request.max_bytes,
            min_one_batch: request.min_one_batch,
        };
        if let Some(parts) = self.environment.tail_cache.read(&mut self.tail, tail_read) {
            return Ok(ReadPlan { source: Source::Memory(Records::new(parts)), limit_offset });
        }
        let environment = &self.environment;
        let first_index = self.segment_index(offset);
        for segment in &mut self.segments[first_index..] {
            // Behind the last batch of a segment, the next one goes on.
            let Some(first) = segment.find(environment, offset)? else { continue };
            let available = segment.size(environment)? - first.position;
            let wanted = if request.min_one_batch {
                request.max_bytes.max(first.header.size())
            } else {
                request.max_bytes
            };
            let length = available.min(wanted as u64) as usize;
            let fits = length >= first.header.size() && first.header.last_offset().0 < limit_offset;
            if !fits {
                return Ok(ReadPlan::empty());
            }
            let stretch = Stretch {
                file: segment.file(environment)?,
                position: first.position,
                length,
                first: first.header,
                offset,
                steps: segment.steps(),
            };
            return Ok(ReadPlan { source: Source::File(stretch), limit_offset });
        }
        Ok(ReadPlan::empty())
    }

    /// Returns the offset at which the batch begins that holds `offset`, or the first one behind it;
    /// the end of the log when there is none. A copy of the log has to begin there.
    pub fn batch_offset(&mut self, offset: Offset) -> Result<Offset, LogError> {
        let environment = self.environment.clone();
        let first_index = self.segment_index(offset.0);
        for segment in &mut self.segments[first_index..] {
            if let Some(found) = segment.find(&environment, offset.0)? {
                return Ok(found.header.base_offset);
            }
        }
        Ok(Offset(self.next_offset))
    }

    /// Reads in one go, under the caller's lock.
    pub fn read(&mut self, request: ReadRequest) -> Result<Records, LogError> {
        self.plan_read(request)?.run()
    }

    /// Finds the first record whose timestamp is `timestamp` or later.
    pub fn offset_for_timestamp(
        &mut self,
        timestamp: TimestampMs,
    ) -> Result<Option<TimestampedOffset>, LogError> {
        let environment = self.environment.clone();
        for index in self.segment_index(self.log_start)..self.segments.len() {
            let segment = &mut self.segments[index];
            if segment.newest(&environment)?.timestamp < timestamp.0 {
                continue;
            }
            let mut from_offset = self.log_start;
            while let Some(found) =
                segment.find_timestamp(&environment, timestamp.0, from_offset)?
            {
                let file = segment.file(&environment)?;
                let records = RecordsOf::read(&file, &found)?;
                let first = records.find(|record_offset, record_time| {
                    record_offset >= self.log_start && record_time >= timestamp.0
                })?;
                if let Some((offset, timestamp)) = first {
                    return Ok(Some(TimestampedOffset {
                        offset: Offset(offset),
                        timestamp: TimestampMs(timestamp),
                        leader_epoch: found.header.leader_epoch,
                    }));
                }
                // The header promised more than the records hold, or they lie before the start.
                from_offset = found.header.next_offset().0;
            }
        }
        Ok(None)
    }

    /// Finds the record with the largest timestamp, the first of them if there are several; `None`
    /// when no record has one.
    pub fn offset_of_max_timestamp(&mut self) -> Result<Option<TimestampedOffset>, LogError> {
        let environment = self.environment.clone();
        let mut newest = None;
        for index in self.segment_index(self.log_start)..self.segments.len() {
            let candidate = self.segments[index].newest(&environment)?;
            if candidate.timestamp >= 0
                && newest.is_none_or(|(_, timestamp)| candidate.timestamp > timestamp)
            {
                newest = Some((index, candidate.timestamp));
            }
        }
        match newest {
            None => Ok(None),
            Some((_, timestamp)) => self.offset_for_timestamp(TimestampMs(timestamp)),
        }
    }
}

/// A batch read for the timestamps of its records.
struct RecordsOf {
    header: BatchHeader,
    records: Bytes,
}

impl RecordsOf {
    fn read(file: &Arc<dyn File>, found: &Found) -> Result<Self, LogError> {
        let bytes = file.read_exact_at(found.position, found.header.size())?;
        let damaged = |error: BatchError| LogError::Damaged {
            path: file.path().to_owned(),
            position: found.position,
            reason: error.to_string(),
        };
        let batch = Batch::parse(bytes).map_err(damaged)?;
        batch.verify_crc().map_err(damaged)?;
        let records =
            batch.records(&mut Decompressor::new(DECOMPRESSED_BYTES_MAX)).map_err(damaged)?;
        Ok(Self { header: batch.header, records })
    }

    /// Returns offset and timestamp of the first record that `is_wanted`.
    fn find(&self, is_wanted: impl Fn(i64, i64) -> bool) -> Result<Option<(i64, i64)>, LogError> {
        for record in RecordIter::new(&self.header, &self.records) {
            // A malformed record was accepted in a closed batch; what follows it is unreadable for
            // every consumer, so there is nothing to find.
            let Ok(record) = record else { return Ok(None) };
            if is_wanted(record.offset.0, record.timestamp.0) {
                return Ok(Some((record.offset.0, record.timestamp.0)));
            }
        }
        Ok(None)
    }
}

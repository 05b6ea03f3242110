//! The heavy part of a compaction, which needs no lock: reading the log twice, and writing what is
//! left of it beside it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_os::OpenMode;
use fleuve_protocol::records::{Batch, Decompressor, RecordIter, layout};
use fleuve_types::{Offset, TopicPartition};

use super::error::CleanError;
use super::filter::{Filter, LastRecord, Rules, Verdict};
use super::offset_map::{MapLimits, OffsetMap};
use super::source::{BatchReader, Source};
use super::transactions::DirtySurvey;
use crate::config::LogConfig;
use crate::environment::Environment;
use crate::names::{self, CLEANED_SUFFIX, FileKind};
use crate::segment::{BatchFacts, Segment};
use crate::tail_cache::PlacedBatch;

/// The limits of compaction.
#[derive(Clone, Copy, Debug)]
pub struct CleanerOptions {
    /// `log.cleaner.dedupe.buffer.size`: the most memory for the map of keys.
    pub dedupe_buffer_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`: how full that map may become.
    pub load_factor: f64,
    /// `log.cleaner.io.buffer.size`: how much is read and written at once.
    pub io_buffer_bytes: usize,
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self { dedupe_buffer_bytes: 128 << 20, load_factor: 0.9, io_buffer_bytes: 512 << 10 }
    }
}

/// Slows a compaction down or ends it.
pub trait Pace {
    /// Is told of bytes that were read or written; takes as long as they should have taken. Fails
    /// with [`CleanError::Stopped`] when the compaction should end.
    fn spend(&mut self, bytes: usize) -> Result<(), CleanError>;
}

impl<F: FnMut(usize) -> Result<(), CleanError>> Pace for F {
    fn spend(&mut self, bytes: usize) -> Result<(), CleanError> {
        self(bytes)
    }
}

/// What is to be compacted, as planned by [`crate::Log::begin_clean`].
#[derive(Debug)]
pub struct CleanJob {
    pub(super) partition: TopicPartition,
    pub(super) directory: PathBuf,
    pub(super) config: Arc<LogConfig>,
    /// All segments before `end`, oldest first, those compacted before included.
    pub(super) sources: Vec<Source>,
    /// The segments from `end` on, where transactions that began before it may end.
    pub(super) followers: Vec<Source>,
    pub(super) first_dirty: i64,
    /// Where the segments begin that must stay as they are.
    pub(super) end: i64,
    pub(super) last_records: HashMap<i64, LastRecord>,
    pub(super) now_ms: i64,
    /// How often the log had been truncated.
    pub(super) truncations: u64,
}

/// Segments written anew as one, ready to be put in place by [`crate::Log::swap_in`].
#[derive(Debug)]
pub struct CleanedGroup {
    pub(super) base_offset: i64,
    pub(super) sources: Vec<Source>,
    /// Whether an index of aborted transactions belongs to it.
    pub(super) has_aborted: bool,
}

/// What a compaction came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanOutcome {
    /// Where the next one begins.
    pub first_dirty: Offset,
    /// What was done.
    pub stats: CleanStats,
}

/// Figures of a compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CleanStats {
    /// Bytes read to find the last record of each key.
    pub bytes_mapped: u64,
    /// Bytes of the segments rewritten.
    pub bytes_read: u64,
    /// Bytes left of them.
    pub bytes_written: u64,
    /// Records in the segments rewritten.
    pub records_read: u64,
    /// Records left of them.
    pub records_kept: u64,
    /// Records dropped because they had no key.
    pub keyless_records: u64,
    /// Different keys found.
    pub keys: u64,
    /// Share of the map of keys that was used.
    pub buffer_utilization: f64,
}

impl CleanJob {
    /// Returns which partition the job belongs to.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Puts segments together that fit into one. The size of what they become is not known yet, so
    /// their present sizes count, as in Kafka.
    fn groups(&self, environment: &Environment, end: i64) -> Result<Vec<Vec<Source>>, CleanError> {
        let mut groups: Vec<Vec<Source>> = Vec::new();
        let mut sum = Sizes::default();
        for (index, source) in self.sources.iter().enumerate() {
            if source.base_offset >= end {
                break;
            }
            let sizes = Sizes::of(environment, &self.directory, source)?;
            let next_base = self.sources.get(index + 1).map_or(self.end, |next| next.base_offset);
            let fits = groups.last().is_some_and(|group| {
                let reach = next_base - 1 - group[0].base_offset;
                sum.plus(sizes).fit(&self.config)
                    && (source.size == 0 || i32::try_from(reach).is_ok())
            });
            match groups.last_mut() {
                Some(group) if fits => {
                    group.push(source.clone());
                    sum = sum.plus(sizes);
                }
                _ => {
                    groups.push(vec![source.clone()]);
                    sum = sizes;
                }
            }
        }
        Ok(groups)
    }
}

/// Sizes of a segment's files, or of several segments together.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    log: u64,
    offset_index: u64,
    time_index: u64,
}

impl Sizes {
    fn of(
        environment: &Environment,
        directory: &Path,
        source: &Source,
    ) -> Result<Self, CleanError> {
        let length = |kind| {
            let path = names::file_path(directory, source.base_offset, kind);
            match environment.disk.open(&path, OpenMode::Read) {
                Ok(file) => Ok(file.len()?),
                Err(error) if error.is_not_found() => Ok(0),
                Err(error) => Err(CleanError::from(error)),
            }
        };
        Ok(Self {
            log: source.size,
            offset_index: length(FileKind::OffsetIndex)?,
            time_index: length(FileKind::TimeIndex)?,
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            log: self.log + other.log,
            offset_index: self.offset_index + other.offset_index,
            time_index: self.time_index + other.time_index,
        }
    }

    fn fit(self, config: &LogConfig) -> bool {
        self.log <= u64::from(config.segment_bytes)
            && self.offset_index <= u64::from(config.segment_index_bytes)
            && self.time_index <= u64::from(config.segment_index_bytes)
    }
}

/// Compacts one log at a time.
#[derive(Debug)]
pub struct Cleaner {
    environment: Environment,
    options: CleanerOptions,
}

impl Cleaner {
    /// Makes a cleaner with its limits; memory is taken only during a compaction.
    pub fn new(environment: &Environment, options: CleanerOptions) -> Self {
        Self { environment: environment.clone(), options }
    }

    /// Compacts what `job` plans, and hands each group of segments to `swap` as soon as it is
    /// written; `swap` locks the log and calls [`crate::Log::swap_in`]. Whatever comes of it, it is
    /// to be told to [`crate::Log::finish_clean`].
    pub fn run(
        &self,
        job: &CleanJob,
        pace: &mut dyn Pace,
        swap: &mut dyn FnMut(&CleanJob, CleanedGroup) -> Result<(), CleanError>,
    ) -> Result<CleanOutcome, CleanError> {
        let disk = &*self.environment.disk;
        let first = job.sources.partition_point(|source| source.base_offset <= job.first_dirty);
        let dirty = &job.sources[first.saturating_sub(1)..];
        let survey = DirtySurvey::take(disk, dirty, &job.followers, job.first_dirty, pace)?;
        // A limit that was lowered is for what is still to come.
        let usual_bytes = job.config.usual_decompressed_bytes();
        let limit_bytes = job.config.decompressed_bytes_max.unwrap_or(0).max(usual_bytes);
        let mut mapping = Mapping {
            map: OffsetMap::new(
                survey.records,
                MapLimits {
                    bytes: self.options.dedupe_buffer_bytes,
                    load_factor: self.options.load_factor,
                },
                &*self.environment.random,
            ),
            mapped_to: job.first_dirty - 1,
            decompressor: Decompressor::new(limit_bytes),
            bytes: 0,
        };
        for (index, source) in dirty.iter().enumerate() {
            let next_base = dirty.get(index + 1).map_or(job.end, |next| next.base_offset);
            let whole = self.map_segment(job, source, &survey, &mut mapping, pace)?;
            if !whole {
                break;
            }
            mapping.mapped_to = next_base - 1;
        }
        let end = mapping.mapped_to + 1;
        if end <= job.first_dirty {
            return Err(CleanError::BufferTooSmall { bytes: self.options.dedupe_buffer_bytes });
        }
        let mut filter = Filter::new(mapping.decompressor);
        let rules = Rules {
            map: &mapping.map,
            mapped_to: mapping.mapped_to,
            survey: &survey,
            end: job.end,
            last_records: &job.last_records,
            now_ms: job.now_ms,
            delete_retention_ms: job.config.delete_retention_ms,
        };
        for group in job.groups(&self.environment, end)? {
            let group = self.rewrite_group(job, group, &rules, &mut filter, pace)?;
            swap(job, group)?;
        }
        let map = &mapping.map;
        Ok(CleanOutcome {
            first_dirty: Offset(end),
            stats: CleanStats {
                bytes_mapped: mapping.bytes,
                keys: map.len() as u64,
                buffer_utilization: map.len() as f64
                    / (self.options.dedupe_buffer_bytes.max(map.bytes()) as f64
                        / super::offset_map::ENTRY_BYTES as f64),
                ..filter.stats
            },
        })
    }

    /// Enters the keys of a segment; reports whether the map had room for all of them.
    fn map_segment(
        &self,
        job: &CleanJob,
        source: &Source,
        survey: &DirtySurvey,
        mapping: &mut Mapping,
        pace: &mut dyn Pace,
    ) -> Result<bool, CleanError> {
        let disk = &*self.environment.disk;
        let mut reader = BatchReader::open(disk, source, self.options.io_buffer_bytes)?;
        while let Some(batch) = reader.next()? {
            pace.spend(batch.bytes.len())?;
            mapping.bytes += batch.bytes.len() as u64;
            let header = &batch.header;
            let last_offset = header.last_offset().0;
            if last_offset < job.first_dirty {
                continue;
            }
            if !header.attributes.is_control() && !survey.is_aborted(header) {
                let records = batch
                    .records(&mut mapping.decompressor)
                    .map_err(|error| reader.blame(&batch, &error))?;
                for record in RecordIter::new(header, &records) {
                    let record = record.map_err(|error| reader.blame(&batch, &error))?;
                    let Some(key) = record.key else { continue };
                    let offset = record.offset.0;
                    if offset < job.first_dirty {
                        continue;
                    }
                    // As in Kafka a round may end in the middle of a batch, so that one with more
                    // keys than the map has room for is no obstacle.
                    if !mapping.map.put(key, offset) {
                        return Ok(false);
                    }
                    mapping.mapped_to = offset;
                }
            }
            mapping.mapped_to = last_offset;
        }
        Ok(true)
    }

    /// Writes what is left of `sources` into one segment, durably, under names that say it is not
    /// in place yet.
    fn rewrite_group(
        &self,
        job: &CleanJob,
        sources: Vec<Source>,
        rules: &Rules<'_>,
        filter: &mut Filter,
        pace: &mut dyn Pace,
    ) -> Result<CleanedGroup, CleanError> {
        let environment = &self.environment;
        let base_offset = sources[0].base_offset;
        // The swap before this one must be through: recovery takes a file of ours beside one that
        // is about to be put in place for a sign that the latter's group was never complete.
        environment.disk.sync_dir(&job.directory)?;
        let mut target = Target::create(environment, job, base_offset)?;
        let written = self.filter_into(&mut target, &sources, rules, filter, pace).and_then(|()| {
            let index = filter.markers.take_index();
            let has_aborted = !index.is_empty();
            target.finish(index).map(|()| has_aborted)
        });
        target.segment.close(environment);
        filter.stats.bytes_written += target.bytes;
        match written {
            Ok(has_aborted) => Ok(CleanedGroup { base_offset, sources, has_aborted }),
            Err(error) => {
                remove_files(environment, &job.directory, base_offset);
                Err(error)
            }
        }
    }

    fn filter_into(
        &self,
        target: &mut Target<'_>,
        sources: &[Source],
        rules: &Rules<'_>,
        filter: &mut Filter,
        pace: &mut dyn Pace,
    ) -> Result<(), CleanError> {
        let disk = &*self.environment.disk;
        let step_bytes = self.options.io_buffer_bytes;
        let mut unwritten_span = 0;
        let last_filled = sources.iter().rposition(|source| source.size > 0);
        for (index, source) in sources.iter().enumerate() {
            filter.markers.enter_segment(disk, source)?;
            let mut reader = BatchReader::open(disk, source, step_bytes)?;
            while let Some(batch) = reader.next()? {
                pace.spend(batch.bytes.len())?;
                filter.stats.bytes_read += batch.bytes.len() as u64;
                unwritten_span += batch.bytes.len();
                let is_last = Some(index) == last_filled && reader.is_at_end();
                let verdict = filter.judge(rules, &batch, is_last);
                match verdict.map_err(|reason| unwritable(source, &batch, &reason))? {
                    Verdict::Drop => {}
                    Verdict::Keep => target.push(batch),
                    Verdict::Replace(bytes) => {
                        let batch = Batch::parse(bytes);
                        target.push(batch.map_err(|error| target.unwritable(error.to_string()))?);
                    }
                }
                // What is kept pins what was read around it, so that counts as well.
                if unwritten_span >= step_bytes {
                    pace.spend(target.write()?)?;
                    unwritten_span = 0;
                }
            }
        }
        pace.spend(target.write()?)
    }
}

/// The map of keys while it is made.
#[derive(Debug)]
struct Mapping {
    map: OffsetMap,
    /// The last offset up to which all keys are in the map.
    mapped_to: i64,
    decompressor: Decompressor,
    bytes: u64,
}

/// The segment that is written.
#[derive(Debug)]
struct Target<'a> {
    environment: &'a Environment,
    segment: Segment,
    base_offset: i64,
    job: &'a CleanJob,
    unwritten: Vec<PlacedBatch>,
    facts: Vec<BatchFacts>,
    bytes: u64,
}

impl<'a> Target<'a> {
    fn create(
        environment: &'a Environment,
        job: &'a CleanJob,
        base_offset: i64,
    ) -> Result<Self, CleanError> {
        let segment =
            Segment::create_beside(environment, &job.directory, base_offset, CLEANED_SUFFIX)
                .inspect_err(|_| remove_files(environment, &job.directory, base_offset))?;
        let (unwritten, facts) = (Vec::new(), Vec::new());
        Ok(Self { environment, segment, base_offset, job, unwritten, facts, bytes: 0 })
    }

    fn push(&mut self, batch: Batch) {
        let header = &batch.header;
        self.facts.push(BatchFacts {
            size: batch.bytes.len(),
            last_offset: header.last_offset().0,
            max_timestamp: header.max_timestamp.0,
        });
        self.unwritten.push(PlacedBatch {
            header: header.to_bytes(),
            body: batch.bytes.slice(layout::HEADER_SIZE..),
            base_offset: header.base_offset.0,
            next_offset: header.next_offset().0,
        });
    }

    /// Writes the batches that wait and returns how many bytes they were.
    fn write(&mut self) -> Result<usize, CleanError> {
        let size: usize = self.facts.iter().map(|facts| facts.size).sum();
        if size == 0 {
            return Ok(0);
        }
        // Positions in the index have 31 bits. Only a new base timestamp can let batches grow.
        if i32::try_from(self.bytes + size as u64).is_err() {
            return Err(self.unwritable("it would outgrow 2 GiB".to_owned()));
        }
        self.segment.append(self.environment, &self.unwritten)?;
        for facts in self.facts.drain(..) {
            self.segment.enter(self.environment, facts, self.job.config.index_interval_bytes);
        }
        self.unwritten.clear();
        self.bytes += size as u64;
        Ok(size)
    }

    /// Makes the segment durable, with its indexes.
    fn finish(&mut self, aborted_index: Vec<u8>) -> Result<(), CleanError> {
        for index in self.segment.finish_indexes(self.environment)? {
            index.sync_data()?;
        }
        if !aborted_index.is_empty() {
            let path =
                cleaned_path(&self.job.directory, self.base_offset, FileKind::TransactionIndex);
            let file = self.environment.disk.open(&path, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(&Bytes::from(aborted_index), 0)?;
            file.sync_data()?;
        }
        self.segment.give_back_space(self.environment)?;
        self.segment.file(self.environment)?.sync_data()?;
        Ok(())
    }

    fn unwritable(&self, reason: String) -> CleanError {
        CleanError::Unwritable { base_offset: self.base_offset, reason }
    }
}

fn unwritable(source: &Source, batch: &Batch, reason: &str) -> CleanError {
    let reason = format!("the batch at offset {}: {reason}", batch.header.base_offset);
    CleanError::Unwritable { base_offset: source.base_offset, reason }
}

pub(super) fn cleaned_path(directory: &Path, base_offset: i64, kind: FileKind) -> PathBuf {
    names::with_suffix(&names::file_path(directory, base_offset, kind), CLEANED_SUFFIX)
}

/// Removes what was written of a group. What stays nevertheless is removed when the log is opened.
pub(super) fn remove_files(environment: &Environment, directory: &Path, base_offset: i64) {
    for kind in FileKind::OF_SEGMENT {
        let path = cleaned_path(directory, base_offset, kind);
        match environment.disk.remove_file(&path) {
            Err(error) if !error.is_not_found() => {
                tracing::debug!(%error, "a file of an unfinished compaction stays");
            }
            _ => {}
        }
    }
}

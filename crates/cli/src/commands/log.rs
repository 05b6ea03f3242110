//! `fleuve log`: what stands in the files of a partition, without a broker.
//!
//! The lines are those of Apache Kafka's `DumpLogSegments`, so that scripts written for it work.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use fleuve_protocol::records::{
    Batch, BatchHeader, ControlRecordType, Decompressor, Record, RecordIter, TimestampType, layout,
    sequence_plus,
};
use serde_json::json;

use crate::args::{Common, Format};
use crate::decode::Decoder;
use crate::failure::Failure;
use crate::output::line;

/// Look into log files, without a broker.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Show batches, records and index entries.
    Dump(Dump),
    /// Hold index files against the log beside them.
    VerifyIndex(VerifyIndex),
}

/// Show batches, records and index entries.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    fleuve log dump fleuve-data/greetings-0                       all files of a partition\n  \
    fleuve log dump --records fleuve-data/greetings-0/*.log       records too\n  \
    fleuve log dump --data fleuve-data/__consumer_offsets-7       groups and offsets, decoded\n  \
    fleuve log dump -o json fleuve-data/greetings-0/00000000000000000000.log")]
pub(crate) struct Dump {
    /// Files (.log, .index, .timeindex, .txnindex, .snapshot, checkpoints) or partition directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Also the records of each batch.
    #[arg(long)]
    pub(crate) records: bool,
    /// Also keys and values; implies --records. Those of the system's topics are read.
    #[arg(long)]
    pub(crate) data: bool,
    /// Show keys and values as they are, also those of the system's topics.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Which topic's records are read, whatever the directory's name says.
    #[arg(skip)]
    pub(crate) decoder: Option<Decoder>,
    /// Leave out what stands beside key and value.
    #[arg(skip)]
    pub(crate) skip_metadata: bool,
    /// Stop after so many bytes of batches.
    #[arg(skip)]
    pub(crate) bytes_max: Option<u64>,
}

/// Hold index files against the log beside them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fleuve log verify-index fleuve-data/greetings-0")]
pub(crate) struct VerifyIndex {
    /// .index and .timeindex files or partition directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

/// No batch may grow larger than this when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

pub(crate) async fn run(command: Log, common: &Common) -> Result<(), Failure> {
    match command {
        Log::Dump(dump) => run_dump(&dump, common.output != Format::Table),
        Log::VerifyIndex(verify) => verify_indexes(&verify.paths),
    }
}

/// Looks whether every entry of the indexes points at a batch that holds its offset.
pub(crate) fn verify_indexes(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut wrong = 0;
    for path in files(paths)? {
        let kind = Kind::of(&path);
        if !matches!(kind, Some(Kind::OffsetIndex | Kind::TimeIndex)) {
            continue;
        }
        let shown = path.display();
        line(format!("Dumping {shown}"))?;
        let problems = verify_index(&path, kind == Some(Kind::TimeIndex))?;
        if problems.is_empty() {
            line(format!("{shown} passed the check."))?;
        }
        for problem in &problems {
            line(format!("  {problem}"))?;
        }
        wrong += usize::from(!problems.is_empty());
    }
    match wrong {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{count} indexes do not fit their logs: remove them while the broker is stopped, and it \
             makes them anew"
        ))),
    }
}

fn verify_index(path: &Path, is_time_index: bool) -> Result<Vec<String>, Failure> {
    let unreadable = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let log_path = path.with_extension("log");
    let log = File::open(&log_path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", log_path.display())))?;
    let size = log.metadata().map_err(unreadable)?.len();
    // First and last offset and highest time of every batch, by position.
    let mut batches = std::collections::BTreeMap::new();
    let mut position = 0;
    while position < size {
        let Ok(batch) = read_batch(&log, position, size) else { break };
        let header = batch.header;
        let range = (header.base_offset.0, header.last_offset().0, header.max_timestamp.0);
        batches.insert(position, range);
        position += header.size() as u64;
    }
    let base_offset = base_offset(path);
    let mut problems = Vec::new();
    if is_time_index {
        let entries = bytes.as_chunks::<12>().0.iter().map(|entry| {
            let relative = i32::from_be_bytes(first(entry, 8));
            (i64::from_be_bytes(first(entry, 0)), base_offset + i64::from(relative))
        });
        for (timestamp, offset) in rising(entries, |entry| entry.0) {
            let highest = batches
                .values()
                .filter(|(first, _, _)| *first <= offset)
                .map(|(_, _, highest)| *highest)
                .max();
            if highest != Some(timestamp) {
                problems.push(format!(
                    "timestamp {timestamp} at offset {offset}: the log has {}",
                    highest.map_or_else(|| "none".to_owned(), |highest| highest.to_string())
                ));
            }
        }
    } else {
        let entries = bytes.as_chunks::<8>().0.iter().map(|entry| {
            let [relative, position] = fields(entry);
            (base_offset + i64::from(relative), position)
        });
        for (offset, position) in rising(entries, |entry| i64::from(entry.1)) {
            let batch = u64::try_from(position).ok().and_then(|position| batches.get(&position));
            if !batch.is_some_and(|(first, last, _)| (*first..=*last).contains(&offset)) {
                problems.push(format!(
                    "offset {offset} at position {position}: no batch there holds it"
                ));
            }
        }
    }
    Ok(problems)
}

/// Dumps files; fails at the end if one of them was damaged.
pub(crate) fn run_dump(dump: &Dump, as_json: bool) -> Result<(), Failure> {
    let mut printer = Printer {
        out: BufWriter::new(io::stdout().lock()),
        as_json,
        records: dump.records || dump.data || dump.decoder.is_some(),
        data: dump.data || dump.decoder.is_some(),
        raw: dump.raw,
        wanted_decoder: dump.decoder,
        decoder: None,
        skip_metadata: dump.skip_metadata,
        bytes_max: dump.bytes_max.unwrap_or(u64::MAX),
    };
    let mut damaged = 0;
    for path in files(&dump.paths)? {
        damaged += usize::from(!printer.dump(&path)?);
    }
    printer.out.flush()?;
    match damaged {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} files are damaged, as shown above"))),
    }
}

/// Replaces directories by the files in them that we can read.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let unreadable = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
        if !path.metadata().map_err(unreadable)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in path.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.path().is_file() && Kind::of(&entry.path()).is_some() {
                inside.push(entry.path());
            }
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    Snapshot,
    Text,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let is_text = name.ends_with("checkpoint")
            || matches!(name, "partition.metadata" | "meta.properties" | ".kafka_cleanshutdown");
        if is_text {
            return Some(Self::Text);
        }
        match path.extension()?.to_str()? {
            "log" => Some(Self::Log),
            "index" => Some(Self::OffsetIndex),
            "timeindex" => Some(Self::TimeIndex),
            "txnindex" => Some(Self::TransactionIndex),
            "snapshot" => Some(Self::Snapshot),
            _ => None,
        }
    }
}

struct Printer {
    out: BufWriter<io::StdoutLock<'static>>,
    as_json: bool,
    records: bool,
    data: bool,
    raw: bool,
    wanted_decoder: Option<Decoder>,
    /// How the records of the present file are read.
    decoder: Option<Decoder>,
    skip_metadata: bool,
    bytes_max: u64,
}

/// How the records of a topic are read, told by the name of the directory that its log lies in.
fn decoder_of(path: &Path) -> Option<Decoder> {
    let absolute = std::fs::canonicalize(path).ok()?;
    let directory = absolute.parent()?.file_name()?.to_str()?;
    match directory.rsplit_once('-')?.0 {
        "__consumer_offsets" => Some(Decoder::Coordinator),
        "__transaction_state" => Some(Decoder::Transactions),
        "__share_group_state" => Some(Decoder::Shares),
        "__cluster_metadata" => Some(Decoder::Metadata),
        _ => None,
    }
}

impl Printer {
    /// Dumps one file and reports whether it is whole.
    fn dump(&mut self, path: &Path) -> Result<bool, Failure> {
        let shown = path.display();
        let kind = Kind::of(path).ok_or_else(|| {
            Failure::new(format!(
                "{shown}: expected a .log, .index, .timeindex, .txnindex, .snapshot or checkpoint \
                 file"
            ))
        })?;
        if !self.as_json {
            writeln!(self.out, "Dumping {shown}")?;
        }
        if kind == Kind::Log {
            let named = if self.raw { None } else { decoder_of(path) };
            self.decoder = self.wanted_decoder.or(named);
            return self.dump_log(path);
        }
        let bytes = std::fs::read(path)
            .map_err(|error| Failure::new(format!("cannot read {shown}: {error}")))?;
        let base_offset = base_offset(path);
        match kind {
            Kind::Log => unreachable!("logs are read batch by batch"),
            Kind::OffsetIndex => {
                let entries = bytes.as_chunks::<8>().0.iter().map(|entry| {
                    let [relative, position] = fields(entry);
                    (base_offset + i64::from(relative), position)
                });
                for (offset, position) in rising(entries, |entry| i64::from(entry.1)) {
                    self.line(
                        || format!("offset: {offset} position: {position}"),
                        || json!({ "offset": offset, "position": position }),
                    )?;
                }
                Ok(bytes.len() % 8 == 0)
            }
            Kind::TimeIndex => {
                let entries = bytes.as_chunks::<12>().0.iter().map(|entry| {
                    let timestamp = i64::from_be_bytes(first(entry, 0));
                    let relative = i32::from_be_bytes(first(entry, 8));
                    (timestamp, base_offset + i64::from(relative))
                });
                for (timestamp, offset) in rising(entries, |entry| entry.0) {
                    self.line(
                        || format!("timestamp: {timestamp} offset: {offset}"),
                        || json!({ "timestamp": timestamp, "offset": offset }),
                    )?;
                }
                Ok(bytes.len() % 12 == 0)
            }
            Kind::TransactionIndex => {
                for entry in bytes.as_chunks::<34>().0 {
                    let version = i16::from_be_bytes(first(entry, 0));
                    let [producer, start, end, stable] =
                        [2, 10, 18, 26].map(|at| i64::from_be_bytes(first(entry, at)));
                    self.line(
                        || {
                            format!(
                                "version: {version} producerId: {producer} firstOffset: {start} \
                                 lastOffset: {end} lastStableOffset: {stable}"
                            )
                        },
                        || {
                            json!({
                                "version": version, "producerId": producer, "firstOffset": start,
                                "lastOffset": end, "lastStableOffset": stable,
                            })
                        },
                    )?;
                }
                Ok(bytes.len() % 34 == 0)
            }
            Kind::Snapshot => self.dump_snapshot(&bytes),
            Kind::Text => {
                let text = String::from_utf8_lossy(&bytes);
                for line in text.lines() {
                    self.line(|| line.to_owned(), || json!({ "line": line }))?;
                }
                Ok(true)
            }
        }
    }

    fn dump_log(&mut self, path: &Path) -> Result<bool, Failure> {
        let shown = path.display();
        let unreadable = |error: io::Error| Failure::new(format!("cannot read {shown}: {error}"));
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        if !self.as_json {
            writeln!(self.out, "Log starting offset: {}", base_offset(path))?;
        }
        let mut decompressor = Decompressor::new(DECOMPRESSED_BYTES_MAX);
        let mut position = 0;
        let mut whole = true;
        while position < size.min(self.bytes_max) {
            let batch = match read_batch(&file, position, size) {
                Ok(batch) => batch,
                Err(reason) => {
                    // What follows cannot be found without the size of this one.
                    let rest = size - position;
                    self.line(
                        || format!("{rest} bytes at position {position} are no batch: {reason}"),
                        || json!({ "position": position, "bytes": rest, "problem": reason }),
                    )?;
                    return Ok(false);
                }
            };
            let valid = batch.verify_crc().is_ok();
            whole &= valid;
            self.batch_line(&batch.header, position, valid)?;
            if self.records {
                whole &= self.dump_records(&batch, &mut decompressor)?;
            }
            position += batch.header.size() as u64;
        }
        Ok(whole)
    }

    fn batch_line(&mut self, header: &BatchHeader, position: u64, valid: bool) -> io::Result<()> {
        let attributes = header.attributes;
        let codec = header.compression().map_or("unknown", |codec| codec.name());
        let horizon = match header.delete_horizon() {
            Some(time) => format!("OptionalLong[{time}]"),
            None => "OptionalLong.empty".to_owned(),
        };
        self.line(
            || {
                format!(
                    "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} \
                     producerId: {} producerEpoch: {} partitionLeaderEpoch: {} \
                     isTransactional: {} isControl: {} deleteHorizonMs: {horizon} \
                     position: {position} {}: {} size: {} magic: {} compresscodec: {codec} \
                     crc: {} isvalid: {valid}",
                    header.base_offset,
                    header.last_offset(),
                    header.count,
                    header.base_sequence,
                    header.last_sequence(),
                    header.producer_id,
                    header.producer_epoch,
                    header.leader_epoch,
                    attributes.is_transactional(),
                    attributes.is_control(),
                    time_name(header),
                    header.max_timestamp,
                    header.size(),
                    layout::CURRENT_MAGIC,
                    header.crc,
                )
            },
            || {
                json!({
                    "baseOffset": header.base_offset.0, "lastOffset": header.last_offset().0,
                    "count": header.count, "baseSequence": header.base_sequence,
                    "producerId": header.producer_id.0, "producerEpoch": header.producer_epoch.0,
                    "partitionLeaderEpoch": header.leader_epoch.0,
                    "isTransactional": attributes.is_transactional(),
                    "isControl": attributes.is_control(), "position": position,
                    "timestampType": time_name(header), "timestamp": header.max_timestamp.0,
                    "size": header.size(), "compression": codec, "crc": header.crc,
                    "valid": valid,
                })
            },
        )
    }

    /// Shows the records of a batch and reports whether they could be read.
    fn dump_records(
        &mut self,
        batch: &Batch,
        decompressor: &mut Decompressor,
    ) -> Result<bool, Failure> {
        let header = &batch.header;
        let codec = header.compression();
        let records = codec.and_then(|codec| decompressor.decompress(codec, &batch.payload()));
        let problem = match &records {
            Ok(records) => {
                let mut problem = None;
                for (index, record) in RecordIter::new(header, records).enumerate() {
                    match record {
                        Ok(record) => self.record_line(header, index as i32, &record)?,
                        Err(error) => problem = Some(error.to_string()),
                    }
                }
                problem
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = &problem {
            self.line(|| format!("| {problem}"), || json!({ "problem": problem }))?;
        }
        Ok(problem.is_none())
    }

    fn record_line(
        &mut self,
        header: &BatchHeader,
        index: i32,
        record: &Record<'_>,
    ) -> io::Result<()> {
        let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        let text =
            |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let sequence = match header.base_sequence {
            -1 => -1,
            base => sequence_plus(base, index),
        };
        let names: Vec<_> = record.headers.map(|header| header.key_text().into_owned()).collect();
        let is_control = header.attributes.is_control();
        let control = is_control.then(|| match ControlRecordType::of(record) {
            Ok(kind) => format!("{kind:?}").to_uppercase(),
            Err(error) => error.to_string(),
        });
        if is_control && self.skip_metadata {
            return Ok(());
        }
        let data = self.data && !is_control;
        let decoder = self.decoder.filter(|_| data);
        let decoded = decoder.and_then(|decoder| decoder.parts(record.key, record.value));
        let skip_metadata = self.skip_metadata;
        let payload_of = |value: &serde_json::Value| match value {
            serde_json::Value::Null => "<DELETE>".to_owned(),
            value => value.to_string(),
        };
        self.line(
            || {
                let mut line = if skip_metadata {
                    "|".to_owned()
                } else {
                    format!(
                        "| offset: {} {}: {} keySize: {} valueSize: {} sequence: {sequence} \
                     headerKeys: [{}]",
                        record.offset,
                        time_name(header),
                        record.timestamp,
                        size(record.key),
                        size(record.value),
                        names.join(","),
                    )
                };
                if let Some((key, value)) = &decoded {
                    if !key.is_null() {
                        line.push_str(&format!(" key: {key}"));
                    }
                    line.push_str(&format!(" payload: {}", payload_of(value)));
                    return line;
                }
                if let Some(kind) = &control {
                    line.push_str(&format!(" endTxnMarker: {kind}"));
                }
                if data && let Some(key) = text(record.key) {
                    line.push_str(&format!(" key: {key}"));
                }
                if data && let Some(value) = text(record.value) {
                    line.push_str(&format!(" payload: {value}"));
                }
                line
            },
            || {
                let mut value = json!({
                    "offset": record.offset.0, "timestamp": record.timestamp.0,
                    "keySize": size(record.key), "valueSize": size(record.value),
                    "sequence": sequence, "headerKeys": names,
                });
                if let Some(kind) = &control {
                    value["control"] = kind.as_str().into();
                }
                if let Some((key, decoded)) = &decoded {
                    value["key"] = key.clone();
                    value["value"] = decoded.clone();
                } else if data {
                    value["key"] = text(record.key).into();
                    value["value"] = text(record.value).into();
                }
                value
            },
        )
    }

    /// Shows the state of the producers:
    ///
    /// ```text
    /// version i16 | crc u32 | count i32 | entries of 46 bytes:
    ///   producer id i64, epoch i16, last sequence i32, last offset i64, offset delta i32,
    ///   timestamp i64, coordinator epoch i32, first offset of the open transaction i64
    /// ```
    fn dump_snapshot(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        const HEADER: usize = 10;
        const ENTRY: usize = 46;
        let Some(count) = bytes.get(6..HEADER).and_then(|count| count.first_chunk()) else {
            return Ok(false);
        };
        let count = i32::from_be_bytes(*count);
        let entries = bytes[HEADER..].as_chunks::<ENTRY>().0;
        for entry in entries {
            let producer = i64::from_be_bytes(first(entry, 0));
            let epoch = i16::from_be_bytes(first(entry, 8));
            let sequence = i32::from_be_bytes(first(entry, 10));
            let offset = i64::from_be_bytes(first(entry, 14));
            let delta = i32::from_be_bytes(first(entry, 22));
            let timestamp = i64::from_be_bytes(first(entry, 26));
            let coordinator = i32::from_be_bytes(first(entry, 34));
            let transaction = i64::from_be_bytes(first(entry, 38));
            self.line(
                || {
                    let open = match transaction {
                        -1 => "None".to_owned(),
                        offset => format!("Some({offset})"),
                    };
                    format!(
                        "producerId: {producer} producerEpoch: {epoch} \
                         coordinatorEpoch: {coordinator} currentTxnFirstOffset: {open} \
                         lastTimestamp: {timestamp} lastSequence: {sequence} \
                         lastOffset: {offset} offsetDelta: {delta}"
                    )
                },
                || {
                    json!({
                        "producerId": producer, "producerEpoch": epoch,
                        "coordinatorEpoch": coordinator, "currentTxnFirstOffset": transaction,
                        "lastTimestamp": timestamp, "lastSequence": sequence,
                        "lastOffset": offset, "offsetDelta": delta,
                    })
                },
            )?;
        }
        Ok(count as usize == entries.len())
    }

    fn line(
        &mut self,
        text: impl FnOnce() -> String,
        value: impl FnOnce() -> serde_json::Value,
    ) -> io::Result<()> {
        if self.as_json {
            writeln!(self.out, "{}", value())
        } else {
            writeln!(self.out, "{}", text())
        }
    }
}

/// Reads the batch at `position` of a file that is `size` bytes long.
fn read_batch(file: &File, position: u64, size: u64) -> Result<Batch, String> {
    let available = (size - position).min(layout::HEADER_SIZE as u64) as usize;
    let mut header = vec![0; available];
    file.read_exact_at(&mut header, position).map_err(|error| error.to_string())?;
    let parsed = BatchHeader::parse(&header).map_err(|error| error.to_string())?;
    if parsed.size() as u64 > size - position {
        return Err(format!("a batch of {} bytes is cut off", parsed.size()));
    }
    let mut bytes = vec![0; parsed.size()];
    file.read_exact_at(&mut bytes, position).map_err(|error| error.to_string())?;
    Batch::parse(Bytes::from(bytes)).map_err(|error| error.to_string())
}

fn time_name(header: &BatchHeader) -> &'static str {
    match header.attributes.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// The offset in a file's name.
fn base_offset(path: &Path) -> i64 {
    path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).unwrap_or(0)
}

/// Takes entries while their key rises: a preallocated index ends in zeros.
fn rising<T>(entries: impl Iterator<Item = T>, key: impl Fn(&T) -> i64) -> impl Iterator<Item = T> {
    let mut last = None;
    entries.take_while(move |entry| {
        let key = key(entry);
        let rises = last.is_none_or(|last| key > last);
        last = Some(key);
        rises
    })
}

fn fields(entry: &[u8; 8]) -> [i32; 2] {
    [i32::from_be_bytes(first(entry, 0)), i32::from_be_bytes(first(entry, 4))]
}

fn first<const SIZE: usize>(entry: &[u8], at: usize) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes.copy_from_slice(&entry[at..at + SIZE]);
    bytes
}

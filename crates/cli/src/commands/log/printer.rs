//! Prints the files of a partition line by line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use fleuve_metadata::checkpoint::{BOOTSTRAP_FILE, CheckpointId};
use fleuve_protocol::records::{
    Batch, BatchHeader, Decompressor, Record, RecordIter, TimestampType, layout, sequence_plus,
};
use serde_json::json;

use super::Dump;
use super::files::{Kind, base_offset, decoder_of, fields, first, read_batch, rising};
use crate::args::Format;
use crate::decode::{Decoder, control};
use crate::failure::Failure;
use crate::output::yaml;

const HEADER_BYTES: u64 = layout::HEADER_SIZE as u64;

/// No batch may grow larger than this when decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// Writes what the options of a dump ask for.
pub(super) struct Printer {
    out: BufWriter<io::StdoutLock<'static>>,
    format: Format,
    records: bool,
    data: bool,
    raw: bool,
    wanted_decoder: Option<Decoder>,
    /// How the records of the present file are read.
    decoder: Option<Decoder>,
    skip_metadata: bool,
    bytes_max: u64,
}

impl Printer {
    pub(super) fn new(dump: &Dump, format: Format) -> Self {
        Self {
            out: BufWriter::new(io::stdout().lock()),
            format,
            records: dump.records || dump.data || dump.decoder.is_some(),
            data: dump.data || dump.decoder.is_some(),
            raw: dump.raw,
            wanted_decoder: dump.decoder,
            decoder: None,
            skip_metadata: dump.skip_metadata,
            bytes_max: dump.bytes_max.unwrap_or(u64::MAX),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Dumps one file and reports whether it is whole.
    pub(super) fn dump(&mut self, path: &Path) -> Result<bool, Failure> {
        let shown = path.display();
        let kind = Kind::of(path).ok_or_else(|| {
            Failure::new(format!(
                "{shown}: expected a .log, .index, .timeindex, .txnindex, .snapshot or checkpoint \
                 file"
            ))
        })?;
        if self.format == Format::Table {
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
        if self.format == Format::Table {
            writeln!(self.out, "{}", beginning(path))?;
        }
        let mut decompressor = Decompressor::new(DECOMPRESSED_BYTES_MAX);
        let mut position = 0;
        let mut whole = true;
        while position < size && self.bytes_max.saturating_sub(position) >= HEADER_BYTES {
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
            // A batch that the limit cuts is not shown, no more than by Apache's tool.
            if position + batch.header.size() as u64 > self.bytes_max {
                break;
            }
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
        let control = is_control.then(|| control(record));
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
                match &control {
                    Some(Ok(control)) => line.push_str(&format!(" {}", control.text)),
                    Some(Err(problem)) => line.push_str(&format!(" {problem}")),
                    None => {}
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
                match &control {
                    Some(Ok(control)) => {
                        value["control"] = control.name.into();
                        value["value"] = control.data.clone();
                    }
                    Some(Err(problem)) => value["control"] = problem.as_str().into(),
                    None => {}
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
        match self.format {
            Format::Table => writeln!(self.out, "{}", text()),
            Format::Json => writeln!(self.out, "{}", value()),
            // Of any number of documents the first can be read before the last is there.
            Format::Yaml => write!(self.out, "---\n{}", yaml(&value())),
        }
    }
}

/// What a file of batches says by its name.
fn beginning(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match CheckpointId::from_file_name(name) {
        _ if name == BOOTSTRAP_FILE => "KRaft bootstrap snapshot".to_owned(),
        Some(id) => format!("Snapshot end offset: {}, epoch: {}", id.end_offset.0, id.epoch.0),
        None => format!("Log starting offset: {}", base_offset(path)),
    }
}

fn time_name(header: &BatchHeader) -> &'static str {
    match header.attributes.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_a_file_begins() {
        for (name, said) in [
            ("00000000000000000042.log", "Log starting offset: 42"),
            ("00000000000000001234-0000000003.checkpoint", "Snapshot end offset: 1234, epoch: 3"),
            ("bootstrap.checkpoint", "KRaft bootstrap snapshot"),
        ] {
            assert_eq!(beginning(&Path::new("d").join(name)), said);
        }
    }
}

//! Checkpoints of the metadata log in KRaft's format: the bytes of a `*.checkpoint` file.
//!
//! A checkpoint holds the image as records, so that the log before it is not needed any more. Its
//! name says where the log goes on: the offset of the first record that is not in it, and the
//! leader epoch of the last one that is.
//!
//! ```text
//! 00000000000000001234-0000000001.checkpoint
//!   control batch   SnapshotHeader, and with kraft.version 1 KRaftVersion and KRaftVoters
//!   batches         the records of the image; offsets count from the beginning of the file
//!   control batch   SnapshotFooter: without it the file is not whole
//! ```
//!
//! Writing files, and doing it so that a crash leaves none that is half written, is the driver's
//! business.

use std::fmt;

use bytes::Bytes;
use fleuve_protocol::messages::kraft_version_record::KRaftVersionRecord;
use fleuve_protocol::messages::snapshot_footer_record::SnapshotFooterRecord;
use fleuve_protocol::messages::snapshot_header_record::SnapshotHeaderRecord;
use fleuve_protocol::messages::voters_record::{
    Endpoint, KRaftVersionFeature, Voter as WireVoter, VotersRecord,
};
use fleuve_protocol::records::{
    BatchBuilder, BatchError, BatchOptions, Batches, Decompressor, NewRecord, RecordIter,
};
use fleuve_protocol::{EncodeError, Message, Str, Writer};
use fleuve_types::{LeaderEpoch, NodeId, Offset, TimestampMs, Uuid};

use crate::record::{DecodeRecordError, Record};

/// How much a batch of the checkpoint holds.
const BATCH_BYTES: usize = 1 << 20;
/// What a batch may decompress to.
const BATCH_BYTES_MAX: usize = 256 << 20;
/// In the directory of the metadata, what a new cluster begins with.
pub const BOOTSTRAP_FILE: &str = "bootstrap.checkpoint";
/// What the names of checkpoints end with.
const SUFFIX: &str = ".checkpoint";

/// Types of control records, which are the second number of their keys.
const HEADER: i16 = 3;
const FOOTER: i16 = 4;
const KRAFT_VERSION: i16 = 5;
const VOTERS: i16 = 6;

/// Where in the metadata log a checkpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointId {
    /// The offset of the first record that it does not hold.
    pub end_offset: Offset,
    /// The leader epoch of the last record that it holds.
    pub epoch: LeaderEpoch,
}

impl CheckpointId {
    /// Reads the name of a file; `None` if it is not that of a checkpoint.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let (offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let is_number = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(offset, 20) || !is_number(epoch, 10) {
            return None;
        }
        let (end_offset, epoch) = (Offset(offset.parse().ok()?), LeaderEpoch(epoch.parse().ok()?));
        Some(Self { end_offset, epoch })
    }
}

impl fmt::Display for CheckpointId {
    /// Writes the name of its file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:010}{SUFFIX}", self.end_offset.0, self.epoch.0)
    }
}

/// The only voter of the quorum, as a checkpoint records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// The node.
    pub id: NodeId,
    /// The directory that holds the metadata log.
    pub directory: Uuid,
    /// The name of the controller's listener.
    pub listener: Str,
    /// Its host.
    pub host: Str,
    /// Its port.
    pub port: u16,
}

/// Reports bytes that are not a checkpoint we can read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A batch cannot be read.
    #[error("a batch cannot be read: {0}")]
    Batch(#[from] BatchError),
    /// A record cannot be read.
    #[error("a record cannot be read: {0}")]
    Record(#[from] DecodeRecordError),
    /// It does not begin as checkpoints do.
    #[error("it has no header")]
    NoHeader,
    /// It ends before its end.
    #[error("it has no footer")]
    NoFooter,
}

/// Writes the records of an image as a checkpoint, batch by batch.
pub fn encode(
    id: CheckpointId,
    records: impl Iterator<Item = Record>,
    voter: &Voter,
    now: TimestampMs,
) -> Result<Vec<Bytes>, EncodeError> {
    let version = KRaftVersionRecord { version: 0, kraft_version: 1 };
    let voters = VotersRecord { version: 0, voters: vec![voter.to_wire()] };
    let quorum = vec![control(KRAFT_VERSION, &version)?, control(VOTERS, &voters)?];
    write(id.epoch, quorum, records, now)
}

/// Writes what a new cluster begins with, as `kafka-storage.sh format` leaves it in
/// [`BOOTSTRAP_FILE`]: records that no log holds yet.
pub fn encode_bootstrap(
    records: impl Iterator<Item = Record>,
    now: TimestampMs,
) -> Result<Vec<Bytes>, EncodeError> {
    write(LeaderEpoch(0), Vec::new(), records, now)
}

fn write(
    epoch: LeaderEpoch,
    quorum: Vec<(Option<Bytes>, Bytes)>,
    records: impl Iterator<Item = Record>,
    now: TimestampMs,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut writer = BatchWriter { epoch, now, next_offset: 0, batches: Vec::new() };
    let header = SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: now.0 };
    let mut begin = vec![control(HEADER, &header)?];
    begin.extend(quorum);
    writer.write(true, begin);
    let mut batch: Vec<(Option<Bytes>, Bytes)> = Vec::new();
    let mut size = 0;
    for record in records {
        let value = record.encode()?;
        size += value.len();
        batch.push((None, value));
        if size >= BATCH_BYTES {
            writer.write(false, std::mem::take(&mut batch));
            size = 0;
        }
    }
    if !batch.is_empty() {
        writer.write(false, batch);
    }
    writer.write(true, vec![control(FOOTER, &SnapshotFooterRecord { version: 0 })?]);
    Ok(writer.batches)
}

impl Voter {
    fn to_wire(&self) -> WireVoter {
        WireVoter {
            voter_id: self.id.0,
            voter_directory_id: self.directory,
            endpoints: vec![Endpoint {
                name: self.listener.clone(),
                host: self.host.clone(),
                port: self.port,
            }],
            kraft_version_feature: KRaftVersionFeature {
                min_supported_version: 0,
                max_supported_version: 1,
            },
        }
    }
}

/// Reads a checkpoint, whole or not at all.
pub fn decode(file: Bytes) -> Result<Vec<Record>, CheckpointError> {
    let mut records = Vec::new();
    let mut decompressor = Decompressor::new(BATCH_BYTES_MAX);
    let mut has_header = false;
    let mut has_footer = false;
    for batch in Batches::new(file) {
        let batch = batch?;
        batch.verify_crc()?;
        let is_control = batch.header.attributes.is_control();
        let bytes = batch.records(&mut decompressor)?;
        for record in RecordIter::new(&batch.header, &bytes) {
            let record = record?;
            if is_control {
                match record.key.and_then(control_type) {
                    Some(HEADER) => has_header = true,
                    Some(FOOTER) => has_footer = true,
                    _ => {}
                }
            } else {
                let value = record.value.map(Bytes::copy_from_slice).unwrap_or_default();
                records.push(Record::decode(value)?);
            }
        }
        if !has_header {
            return Err(CheckpointError::NoHeader);
        }
    }
    match (has_header, has_footer) {
        (false, _) => Err(CheckpointError::NoHeader),
        (_, false) => Err(CheckpointError::NoFooter),
        _ => Ok(records),
    }
}

/// Reads the type out of a control record's key: version and type, 16 bits each.
fn control_type(key: &[u8]) -> Option<i16> {
    let number = key.get(2..4)?.try_into().ok()?;
    Some(i16::from_be_bytes(number))
}

fn control<M: Message>(kind: i16, message: &M) -> Result<(Option<Bytes>, Bytes), EncodeError> {
    let mut key = vec![0, 0];
    key.extend(kind.to_be_bytes());
    let mut writer = Writer::new();
    message.encode(&mut writer, 0)?;
    Ok((Some(Bytes::from(key)), writer.into_bytes()))
}

struct BatchWriter {
    epoch: LeaderEpoch,
    now: TimestampMs,
    next_offset: i64,
    batches: Vec<Bytes>,
}

impl BatchWriter {
    fn write(&mut self, control: bool, records: Vec<(Option<Bytes>, Bytes)>) {
        let options = BatchOptions {
            base_offset: Offset(self.next_offset),
            leader_epoch: self.epoch,
            control,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        for (key, value) in &records {
            let record = NewRecord {
                timestamp: self.now,
                key: key.as_deref(),
                value: Some(value),
                headers: &[],
            };
            // A record is a decision's, which is far smaller than what a batch can hold.
            builder.append(&record).expect("a batch is begun after every mebibyte");
        }
        self.next_offset += records.len() as i64;
        self.batches.push(builder.finish());
    }
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::messages::topic_record::TopicRecord;

    use super::*;

    fn id(end_offset: i64) -> CheckpointId {
        CheckpointId { end_offset: Offset(end_offset), epoch: LeaderEpoch(3) }
    }

    fn voter() -> Voter {
        Voter {
            id: NodeId(1),
            directory: Uuid([7; 16]),
            listener: "CONTROLLER".into(),
            host: "localhost".into(),
            port: 9093,
        }
    }

    fn topics(count: u16) -> Vec<Record> {
        let topic = |index: u16| {
            let mut topic_id = [1; 16];
            topic_id[..2].copy_from_slice(&index.to_be_bytes());
            let name = Str::copy_from(&format!("topic-{index}-{}", "x".repeat(100)));
            TopicRecord { name, topic_id: Uuid(topic_id) }.into()
        };
        (0..count).map(topic).collect()
    }

    fn file(records: &[Record]) -> Vec<u8> {
        let batches = encode(id(9), records.iter().cloned(), &voter(), TimestampMs(5));
        batches.expect("it fits").concat()
    }

    #[test]
    fn names_are_those_of_kafka() {
        assert_eq!(id(1234).to_string(), "00000000000000001234-0000000003.checkpoint");
        assert_eq!(CheckpointId::from_file_name(&id(1234).to_string()), Some(id(1234)));
        for name in [
            "bootstrap.checkpoint",
            "00000000000000001234-0000000003.checkpoint.part",
            "1234-3.checkpoint",
            "+0000000000000001234-0000000003.checkpoint",
            "99999999999999999999-0000000003.checkpoint",
        ] {
            assert_eq!(CheckpointId::from_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn what_was_written_is_read_in_as_many_batches_as_it_takes() {
        for count in [0, 1, 20_000] {
            let records = topics(count);
            let file = Bytes::from(file(&records));
            assert_eq!(decode(file).expect("whole"), records);
        }
    }

    #[test]
    fn what_a_cluster_begins_with_is_read_without_a_quorum() {
        let records = topics(3);
        let batches = encode_bootstrap(records.iter().cloned(), TimestampMs(5)).expect("it fits");
        assert_eq!(decode(Bytes::from(batches.concat())).expect("whole"), records);
    }

    #[test]
    fn half_a_file_is_none() {
        let whole = file(&topics(3));
        for length in 0..whole.len() {
            assert!(decode(Bytes::copy_from_slice(&whole[..length])).is_err(), "{length}");
        }
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x40;
            let read = decode(Bytes::from(damaged));
            // Offsets and epochs of batches stand outside the checksum and mean nothing here.
            assert!(read.is_err() || read.is_ok_and(|records| records == topics(3)), "{position}");
        }
    }

    #[test]
    fn kafkas_first_checkpoint_holds_no_records() {
        let file = include_bytes!("../testdata/kafka-4.3.1-first.checkpoint");
        assert_eq!(decode(Bytes::from_static(file)).expect("whole"), []);
    }
}

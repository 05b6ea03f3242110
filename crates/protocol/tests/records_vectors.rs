//! Record batches against those that Apache Kafka's own classes write and read.
//!
//! See `vectors/README.md` for how they came about.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fleuve_protocol::records::{
    Batch, BatchBuilder, BatchError, BatchHeader, BatchOptions, BatchProducer, Batches, Codec,
    Compression, ControlRecordType, Decompressor, EndTransactionMarker, Header, NewRecord, Record,
    RecordIter, TimestampType, emptied_batch, layout, validate_records,
};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// More than any vector decompresses to.
const LIMIT: usize = 1 << 20;
const TIME: i64 = 1_700_000_000_000;

#[test]
fn apache_and_we_read_the_same() {
    for path in vectors() {
        let bytes = Bytes::from(fs::read(&path).unwrap());
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        assert_eq!(describe(bytes), expected, "{}", path.display());
    }
}

#[test]
fn old_formats_are_recognised() {
    for (name, magic) in [("magic-0", 0), ("magic-1", 1)] {
        let mut batches = Batches::new(vector(name));
        assert_eq!(batches.next(), Some(Err(BatchError::OldFormat { magic })));
        assert_eq!(batches.next(), None);
    }
}

#[test]
fn we_write_what_apache_writes() {
    let producer =
        Some(BatchProducer { id: ProducerId(4242), epoch: ProducerEpoch(7), base_sequence: 99 });
    let two = [record(TIME, b"a", b"1"), record(TIME + 5, b"b", b"2")];

    let idempotent = BatchOptions { producer, ..BatchOptions::default() };
    assert_eq!(build(idempotent, &two), vector("idempotent"));

    let transactional = BatchOptions {
        base_offset: Offset(1000),
        leader_epoch: LeaderEpoch(3),
        producer: producer.map(|producer| BatchProducer { base_sequence: i32::MAX, ..producer }),
        transactional: true,
        ..BatchOptions::default()
    };
    assert_eq!(build(transactional, &two), vector("transactional"));

    let append_time = BatchOptions {
        base_offset: Offset(20),
        log_append_time: Some(TimestampMs(TIME + 77)),
        ..BatchOptions::default()
    };
    assert_eq!(build(append_time, &two), vector("log-append-time"));

    assert_eq!(build(BatchOptions::default(), &MIXED), vector("mixed-none"));
}

#[test]
fn we_write_transaction_markers_as_apache_does() {
    for (name, committed, coordinator_epoch) in [("commit", true, 12), ("abort", false, 13)] {
        let marker = EndTransactionMarker { committed, coordinator_epoch };
        let bytes = marker.to_batch(ProducerId(4242), ProducerEpoch(7), TimestampMs(TIME));
        assert_eq!(bytes, vector(name));

        let batch = Batch::parse(bytes).unwrap();
        let payload = batch.payload();
        let record = RecordIter::new(&batch.header, &payload).next().unwrap().unwrap();
        assert_eq!(EndTransactionMarker::of(&record), Ok(Some(marker)));
    }
}

#[test]
fn compaction_leaves_what_apache_leaves() {
    let source = Batch::parse(vector("compacted")).unwrap();
    let payload = source.payload();
    let mut builder = BatchBuilder::new(BatchOptions::of(&source.header).unwrap());
    for record in RecordIter::new(&source.header, &payload) {
        builder.append_kept(&record.unwrap()).unwrap();
    }
    builder.keep_last_offset(source.header.last_offset());
    assert_eq!(builder.finish(), source.bytes);

    let empty = vector("empty");
    let header = BatchHeader { leader_epoch: LeaderEpoch(4), ..source.header };
    assert_eq!(emptied_batch(&header), empty);

    let horizon = Batch::parse(vector("delete-horizon")).unwrap();
    let payload = horizon.payload();
    let mut builder = BatchBuilder::new(BatchOptions::of(&horizon.header).unwrap());
    for record in RecordIter::new(&horizon.header, &payload) {
        builder.append_kept(&record.unwrap()).unwrap();
    }
    assert_eq!(builder.finish(), horizon.bytes);
}

#[test]
fn recompressing_gives_apaches_records_back() {
    let plain = Batch::parse(vector("mixed-gzip")).unwrap();
    let mut decompressor = Decompressor::new(LIMIT);
    let records = plain.records(&mut decompressor).unwrap();
    for codec in Compression::ALL {
        let batch = plain.recompress(Codec::new(codec), &mut decompressor).unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.header.compression(), Ok(codec));
        assert_eq!(Batch::parse(batch.bytes.clone()), Ok(batch.clone()));
        assert_eq!(batch.records(&mut decompressor).unwrap(), records);
    }
}

#[test]
fn append_time_changes_only_the_header() {
    let batch = Batch::parse(vector("mixed-lz4")).unwrap();
    let unchanged =
        batch.header_with_timestamps(TimestampType::CreateTime, batch.header.max_timestamp);
    assert_eq!(unchanged, batch.header);

    let header =
        batch.header_with_timestamps(TimestampType::LogAppendTime, TimestampMs(TIME + 999));
    let bytes = Bytes::from([&header.to_bytes()[..], &batch.payload()].concat());
    let changed = Batch::parse(bytes).unwrap();
    changed.verify_crc().unwrap();
    let records = changed.records(&mut Decompressor::new(LIMIT)).unwrap();
    for record in RecordIter::new(&changed.header, &records) {
        assert_eq!(record.unwrap().timestamp, TimestampMs(TIME + 999));
    }
}

#[test]
fn placing_a_batch_keeps_its_checksum() {
    let batch = Batch::parse(vector("idempotent")).unwrap();
    let prefix = batch.header.placed_prefix(Offset(1 << 40), LeaderEpoch(5));
    let bytes = Bytes::from([&prefix[..], &batch.bytes[prefix.len()..]].concat());
    let placed = Batch::parse(bytes).unwrap();
    placed.verify_crc().unwrap();
    assert_eq!(placed.header.base_offset, Offset(1 << 40));
    assert_eq!(placed.header.next_offset(), Offset((1 << 40) + 2));
    assert_eq!(placed.header.leader_epoch, LeaderEpoch(5));
}

#[test]
fn validation_sums_up_what_iteration_finds() {
    for name in ["mixed-zstd", "log-append-time", "compacted", "delete-horizon", "empty"] {
        let batch = Batch::parse(vector(name)).unwrap();
        let bytes = batch.records(&mut Decompressor::new(LIMIT)).unwrap();
        let records: Vec<Record<'_>> =
            RecordIter::new(&batch.header, &bytes).collect::<Result<_, _>>().unwrap();
        let summary = validate_records(&batch.header, &bytes).unwrap();

        let times = || records.iter().map(|record| record.timestamp);
        assert_eq!(summary.min_timestamp, times().min(), "{name}");
        assert_eq!(summary.max_timestamp, times().max(), "{name}");
        if batch.header.attributes.timestamp_type() == TimestampType::CreateTime {
            let first_latest =
                records.iter().find(|record| Some(record.timestamp) == summary.max_timestamp);
            let offset = first_latest.map_or(batch.header.base_offset, |record| record.offset);
            assert_eq!(summary.offset_of_max_timestamp, offset, "{name}");
        }
        let keyless = records.iter().filter(|record| record.key.is_none()).count();
        assert_eq!(summary.keyless as usize, keyless, "{name}");
        let dense = records
            .iter()
            .zip(batch.header.base_offset.0..)
            .all(|(record, offset)| record.offset.0 == offset);
        assert_eq!(summary.offsets_are_dense, dense, "{name}");
    }
}

#[test]
fn a_cut_anywhere_is_an_incomplete_batch() {
    for path in vectors().into_iter().filter(|path| is_current(path)) {
        let first = Bytes::from(fs::read(&path).unwrap());
        let two = Bytes::from([&first[..], &first[..]].concat());
        for end in 1..first.len() {
            let mut batches = Batches::new(first.slice(..end));
            let error = batches.next().unwrap().unwrap_err();
            assert!(error.is_incomplete(), "{} at {end}: {error}", path.display());
            assert_eq!((batches.next(), batches.position()), (None, 0));

            let mut batches = Batches::new(two.slice(..first.len() + end));
            assert_eq!(batches.next().unwrap().unwrap().bytes, first);
            assert!(batches.next().unwrap().unwrap_err().is_incomplete());
            assert_eq!(batches.position(), first.len());
        }
    }
}

#[test]
fn a_flipped_bit_is_detected_and_never_panics() {
    for path in vectors() {
        let original = fs::read(&path).unwrap();
        for position in 0..original.len() {
            let mut bytes = original.clone();
            bytes[position] ^= 1 << (position % 8);
            let bytes = Bytes::from(bytes);
            let Ok(batch) = Batch::parse(bytes) else { continue };
            // Offset and epoch are not covered by the checksum, magic and length by parsing.
            if position >= layout::CRC {
                let error = batch.verify_crc().unwrap_err();
                assert!(matches!(error, BatchError::ChecksumMismatch { .. }));
            }
            // Readers that skip the checksum may get errors or other records, nothing worse.
            if let Ok(records) = batch.records(&mut Decompressor::new(LIMIT)) {
                let all: Result<Vec<_>, _> = RecordIter::new(&batch.header, &records).collect();
                let valid = validate_records(&batch.header, &records);
                assert_eq!(all.is_ok(), valid.is_ok(), "{} at {position}", path.display());
            }
        }
    }
}

/// The records of the vector `mixed-none`.
const MIXED: [NewRecord<'static>; 6] = [
    record(TIME, b"key", b"value"),
    NewRecord { key: None, ..record(TIME + 1, b"", b"no key") },
    NewRecord { value: None, ..record(TIME + 2, b"tombstone", b"") },
    NewRecord { timestamp: TimestampMs(TIME - 100_000), key: None, value: None, headers: &[] },
    NewRecord { headers: &HEADERS, ..record(TIME + 3, b"", b"") },
    record(0, b"epoch", &[b'x'; 300]),
];

const HEADERS: [Header<'static>; 5] = [
    Header { key: b"twice", value: Some(b"first") },
    Header { key: b"other", value: None },
    Header { key: b"twice", value: Some(b"second") },
    Header { key: b"", value: Some(b"") },
    Header { key: "schlüssel-鍵".as_bytes(), value: Some("wert-値".as_bytes()) },
];

const fn record<'a>(timestamp: i64, key: &'a [u8], value: &'a [u8]) -> NewRecord<'a> {
    NewRecord {
        timestamp: TimestampMs(timestamp),
        key: Some(key),
        value: Some(value),
        headers: &[],
    }
}

fn build(options: BatchOptions, records: &[NewRecord<'_>]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for record in records {
        builder.append(record).unwrap();
    }
    builder.finish()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/records")
}

fn vector(name: &str) -> Bytes {
    Bytes::from(fs::read(directory().join(name).with_extension("bin")).unwrap())
}

fn vectors() -> Vec<PathBuf> {
    let paths: Vec<PathBuf> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .collect();
    assert!(paths.len() >= 16, "vectors are missing");
    paths
}

fn is_current(path: &Path) -> bool {
    !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("magic"))
}

/// Describes batches in the words of `RecordVectors.java`.
fn describe(bytes: Bytes) -> String {
    let mut out = String::new();
    let mut decompressor = Decompressor::new(LIMIT);
    let mut rest = bytes.clone();
    for batch in Batches::new(bytes) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(BatchError::OldFormat { magic }) => {
                // Batches stop here, Java goes on; each old batch is one message.
                while !rest.is_empty() {
                    writeln!(out, "old magic={magic}").unwrap();
                    let length = i32::from_be_bytes(rest[8..12].try_into().unwrap());
                    rest = rest.slice(12 + length as usize..);
                }
                break;
            }
            Err(error) => panic!("{error}"),
        };
        batch.verify_crc().unwrap();
        describe_batch(&batch, &mut decompressor, &mut out);
    }
    out
}

fn describe_batch(batch: &Batch, decompressor: &mut Decompressor, out: &mut String) {
    let header = &batch.header;
    writeln!(
        out,
        "batch offsets={}..{} size={} epoch={} crc={:08x} codec={} time={} max={} \
         producer={}/{} sequence={}..{} count={} transactional={} control={} horizon={}",
        header.base_offset,
        header.last_offset(),
        header.size(),
        header.leader_epoch,
        header.crc,
        header.compression().unwrap(),
        match header.attributes.timestamp_type() {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        },
        header.max_timestamp,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.last_sequence(),
        header.count,
        header.attributes.is_transactional(),
        header.attributes.is_control(),
        header.delete_horizon().map_or("none".to_owned(), |time| time.to_string()),
    )
    .unwrap();
    let records = batch.records(decompressor).unwrap();
    for record in RecordIter::new(header, &records) {
        let record = record.unwrap();
        write!(
            out,
            "record offset={} timestamp={} key={} value={}",
            record.offset,
            record.timestamp,
            digest(record.key),
            digest(record.value)
        )
        .unwrap();
        for header in record.headers {
            write!(out, " {}={}", header.key_text(), digest(header.value)).unwrap();
        }
        if header.attributes.is_control() {
            let name = match ControlRecordType::of(&record).unwrap() {
                ControlRecordType::Abort => "ABORT",
                ControlRecordType::Commit => "COMMIT",
                ControlRecordType::LeaderChange => "LEADER_CHANGE",
                other => panic!("no vector has {other:?}"),
            };
            write!(out, " type={name}").unwrap();
        }
        out.push('\n');
    }
}

fn digest(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() <= 32 => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x{hex}")
        }
        Some(bytes) => format!("{}:{:08x}", bytes.len(), crc_fast::crc32_iscsi(bytes)),
    }
}

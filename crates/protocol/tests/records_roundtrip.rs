//! Random records through builder, codecs and reader, and through the `kafka-protocol` crate.
//!
//! That crate keeps headers in a map, so batches compared with it have no duplicate header keys.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use fleuve_protocol::records::{
    AppendError, Batch, BatchBuilder, BatchOptions, BatchProducer, Codec, Compression,
    Decompressor, Header, Headers, NewRecord, Record, RecordIter, validate_records,
};
use fleuve_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const LIMIT: usize = 1 << 24;

/// A record that owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

proptest! {
    #[test]
    fn records_read_back(
        records in vec(owned(any::<i64>()), 0..20),
        options in options(),
        level in option::of(-30..30),
    ) {
        let options = BatchOptions { codec: with_level(options.codec, level), ..options };
        let bytes = build(options, &records);
        let batch = Batch::parse(bytes).unwrap();
        batch.verify_crc().unwrap();
        prop_assert_eq!(batch.header.count as usize, records.len());
        prop_assert!(batch.header.is_dense() || records.is_empty());
        let codec = options.codec.compression();
        prop_assert_eq!(BatchOptions::of(&batch.header).unwrap(), BatchOptions {
            codec: Codec::new(codec),
            ..options
        });

        let payload = batch.records(&mut Decompressor::new(LIMIT)).unwrap();
        let read = read(&batch, &payload);
        let written: Vec<Owned> = records
            .into_iter()
            .map(|record| match options.log_append_time {
                None => record,
                Some(time) => Owned { timestamp: time.0, ..record },
            })
            .collect();
        prop_assert_eq!(read, written);
        let summary = validate_records(&batch.header, &payload).unwrap();
        prop_assert!(summary.offsets_are_dense);
    }

    #[test]
    fn kafka_protocol_reads_ours(
        records in vec(owned(0..1_i64 << 42), 1..20),
        options in options(),
    ) {
        let options = BatchOptions { delete_horizon: None, log_append_time: None, ..options };
        let records = without_duplicate_headers(records);
        let bytes = build(options, &records);
        let set = theirs::RecordBatchDecoder::decode(&mut bytes.clone()).unwrap();
        prop_assert_eq!(set.compression as u8, options.codec.compression().id());
        for (index, record) in set.records.iter().enumerate() {
            prop_assert_eq!(record.offset, options.base_offset.0 + index as i64);
            prop_assert_eq!(record.partition_leader_epoch, options.leader_epoch.0);
            prop_assert_eq!(record.transactional, options.transactional);
            prop_assert_eq!(record.control, options.control);
        }
        let read: Vec<Owned> = set.records.iter().map(from_theirs).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn we_read_kafka_protocols(
        records in vec(owned(0..1_i64 << 42), 1..20),
        options in options(),
    ) {
        let records = without_duplicate_headers(records);
        let batch = Batch::parse(theirs(&options, &records)).unwrap();
        batch.verify_crc().unwrap();
        prop_assert_eq!(batch.header.base_offset, options.base_offset);
        prop_assert_eq!(batch.header.attributes.is_control(), options.control);
        let payload = batch.records(&mut Decompressor::new(LIMIT)).unwrap();
        prop_assert_eq!(read(&batch, &payload), records);
    }

    /// `kafka-protocol` counts timestamps from the lowest, Java and we from the first.
    #[test]
    fn both_write_the_same_bytes(
        mut records in vec(owned(0..1_i64 << 42), 1..20),
        options in options(),
    ) {
        let options = BatchOptions {
            delete_horizon: None,
            log_append_time: None,
            codec: Codec::default(),
            ..options
        };
        records.sort_by_key(|record| record.timestamp);
        let records = without_duplicate_headers(records);
        prop_assert_eq!(build(options, &records), theirs(&options, &records));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        header in options(),
        payload in vec(any::<u8>(), 0..300),
        codec in codec(),
        count in 0..20_i32,
    ) {
        let mut header = Batch::parse(build(header, &[])).unwrap().header;
        header.count = count;
        let payload = Bytes::from(payload);
        if let Ok(records) = Decompressor::new(LIMIT).decompress(codec, &payload) {
            let all: Result<Vec<_>, _> = RecordIter::new(&header, &records).collect();
            prop_assert_eq!(all.err(), validate_records(&header, &records).err());
        }
    }
}

#[test]
fn a_builder_begins_anew_after_each_batch() {
    for codec in Compression::ALL {
        let options = BatchOptions { codec: Codec::new(codec), ..BatchOptions::default() };
        let record = NewRecord { value: Some(&[7; 500]), ..NewRecord::default() };
        let mut builder = BatchBuilder::new(options);
        builder.append(&record).unwrap();
        let first = builder.finish();
        assert!(builder.is_empty());
        assert!(builder.append(&record).is_ok());
        assert!(builder.size() > 500);
        assert!(builder.estimated_size() <= builder.size());
        assert_eq!(builder.finish(), first, "{codec}");
    }
}

#[test]
fn the_size_bound_covers_every_record() {
    let headers = [Header::new("key", Some(&[1; 200])), Header::new("", None)];
    for record in [
        NewRecord::default(),
        NewRecord { timestamp: TimestampMs(i64::MIN), headers: &headers, ..NewRecord::default() },
        NewRecord { key: Some(&[0; 70_000]), value: Some(&[0; 64]), ..NewRecord::default() },
    ] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(&NewRecord { timestamp: TimestampMs(i64::MAX), ..record }).unwrap();
        let before = builder.size();
        builder.append(&record).unwrap();
        assert!(builder.size() - before <= BatchBuilder::size_bound(&record));
    }
}

#[test]
fn offsets_do_not_go_back() {
    let source = build(
        BatchOptions { base_offset: Offset(5), ..BatchOptions::default() },
        &[Owned { timestamp: 0, key: None, value: None, headers: Vec::new() }],
    );
    let batch = Batch::parse(source).unwrap();
    let payload = batch.payload();
    let record = RecordIter::new(&batch.header, &payload).next().unwrap().unwrap();

    let mut builder =
        BatchBuilder::new(BatchOptions { base_offset: Offset(5), ..BatchOptions::default() });
    builder.append_kept(&record).unwrap();
    let refused = AppendError::BadOffset { offset: Offset(5), next: Offset(6), base: Offset(5) };
    assert_eq!(builder.append_kept(&record), Err(refused));
    assert_eq!(builder.finish(), batch.bytes);
}

#[test]
fn offsets_stay_within_reach_of_the_base() {
    let record = |offset| Record {
        offset: Offset(offset),
        timestamp: TimestampMs(0),
        key: None,
        value: None,
        headers: Headers::default(),
    };
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let last = i64::from(i32::MAX) - 1;
    assert!(builder.append_kept(&record(last + 1)).is_err());
    builder.append_kept(&record(last)).unwrap();
    assert!(builder.append_kept(&record(last + 1)).is_err());
    assert!(builder.append(&NewRecord::default()).is_err());
    let batch = Batch::parse(builder.finish()).unwrap();
    assert_eq!(batch.header.last_offset(), Offset(last));
}

fn build(options: BatchOptions, records: &[Owned]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for record in records {
        let headers: Vec<Header<'_>> =
            record.headers.iter().map(|(key, value)| Header::new(key, value.as_deref())).collect();
        builder
            .append(&NewRecord {
                timestamp: TimestampMs(record.timestamp),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })
            .unwrap();
    }
    builder.finish()
}

fn read(batch: &Batch, payload: &[u8]) -> Vec<Owned> {
    RecordIter::new(&batch.header, payload)
        .enumerate()
        .map(|(index, record)| {
            let record = record.unwrap();
            assert_eq!(record.offset.0, batch.header.base_offset.0 + index as i64);
            Owned {
                timestamp: record.timestamp.0,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .map(|header| {
                        (header.key_text().into_owned(), header.value.map(<[u8]>::to_vec))
                    })
                    .collect(),
            }
        })
        .collect()
}

fn theirs(options: &BatchOptions, records: &[Owned]) -> Bytes {
    let records: Vec<theirs::Record> = records
        .iter()
        .enumerate()
        .map(|(index, record)| theirs::Record {
            transactional: options.transactional,
            control: options.control,
            delete_horizon: false,
            partition_leader_epoch: options.leader_epoch.0,
            producer_id: options.producer.map_or(-1, |producer| producer.id.0),
            producer_epoch: options.producer.map_or(-1, |producer| producer.epoch.0),
            timestamp_type: theirs::TimestampType::Creation,
            offset: options.base_offset.0 + index as i64,
            // Their batches end where offset and sequence part, so "none" counts up as well.
            sequence: options
                .producer
                .map_or(-1, |producer| producer.base_sequence)
                .wrapping_add(index as i32),
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: record
                .headers
                .iter()
                .map(|(key, value)| {
                    (StrBytes::from_string(key.clone()), value.clone().map(Bytes::from))
                })
                .collect(),
        })
        .collect();
    let compression = match options.codec.compression() {
        Compression::None => theirs::Compression::None,
        Compression::Gzip => theirs::Compression::Gzip,
        Compression::Snappy => theirs::Compression::Snappy,
        Compression::Lz4 => theirs::Compression::Lz4,
        Compression::Zstd => theirs::Compression::Zstd,
    };
    let mut bytes = BytesMut::new();
    let encode_options = theirs::RecordEncodeOptions { version: 2, compression };
    theirs::RecordBatchEncoder::encode(&mut bytes, &records, &encode_options).unwrap();
    bytes.freeze()
}

fn from_theirs(record: &theirs::Record) -> Owned {
    Owned {
        timestamp: record.timestamp,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: record.value.as_ref().map(|value| value.to_vec()),
        headers: record
            .headers
            .iter()
            .map(|(key, value)| (key.to_string(), value.as_ref().map(|value| value.to_vec())))
            .collect(),
    }
}

fn without_duplicate_headers(mut records: Vec<Owned>) -> Vec<Owned> {
    for record in &mut records {
        let mut seen = HashSet::new();
        record.headers.retain(|(key, _)| seen.insert(key.clone()));
    }
    records
}

fn with_level(codec: Codec, level: Option<i32>) -> Codec {
    level.map_or(codec, |level| codec.with_level(level))
}

fn owned(timestamp: impl Strategy<Value = i64>) -> impl Strategy<Value = Owned> {
    let header = ("[a-cé]{0,2}", option::of(vec(any::<u8>(), 0..20)));
    (timestamp, option::of(blob()), option::of(blob()), vec(header, 0..5))
        .prop_map(|(timestamp, key, value, headers)| Owned { timestamp, key, value, headers })
}

/// Noise, and repetition long enough to span several blocks of each codec.
fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..200),
        1 => (vec(any::<u8>(), 1..50), 1..2_000_usize)
            .prop_map(|(pattern, times)| pattern.repeat(times)),
    ]
}

fn codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.to_vec())
}

prop_compose! {
    fn options()(
        base_offset in 0..1_i64 << 40,
        leader_epoch in -1..100_i32,
        codec in codec(),
        log_append_time in option::of(0..1_i64 << 42),
        producer in option::of((0..i64::MAX, 0..i16::MAX, 0..i32::MAX)),
        transactional: bool,
        control: bool,
        delete_horizon in option::of(0..1_i64 << 42),
    ) -> BatchOptions {
        BatchOptions {
            base_offset: Offset(base_offset),
            leader_epoch: LeaderEpoch(leader_epoch),
            codec: Codec::new(codec),
            log_append_time: log_append_time.map(TimestampMs),
            producer: producer.map(|(id, epoch, base_sequence)| BatchProducer {
                id: ProducerId(id),
                epoch: ProducerEpoch(epoch),
                base_sequence,
            }),
            transactional,
            control,
            delete_horizon: delete_horizon.map(TimestampMs),
        }
    }
}

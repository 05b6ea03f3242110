//! Appending and reading in the absence of trouble.

mod common;

use common::{Machine, Spec, append, batches_from, put, records_from, request};
use fleuve_os::Disk;
use fleuve_os::Piece;
use fleuve_protocol::records::{Batch, Batches, Codec, Compression, TimestampType, layout};
use fleuve_sim::{Effect, Fault, Operation};
use fleuve_storage::{Append, AppendError, CleanupPolicy, Log, LogConfig, LogError, ReadRequest};
use fleuve_types::{LeaderEpoch, Offset, TimestampMs};

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 100, ..LogConfig::default() }
}

#[test]
fn records_come_back_with_offsets_and_epoch() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    assert_eq!(put(&mut log, &Spec::values(&["a", "b"])), 0);
    assert_eq!(put(&mut log, &Spec::values(&["c"])), 2);
    let expected = vec![(0, b"a".to_vec()), (1, b"b".to_vec()), (2, b"c".to_vec())];
    assert_eq!(records_from(&mut log, 0), expected);
    assert_eq!(records_from(&mut log, 1), expected[1..]);
    assert_eq!(records_from(&mut log, 2), expected[2..]);
    assert!(records_from(&mut log, 3).is_empty());
    let batches = batches_from(&mut log, 0);
    assert!(batches.iter().all(|batch| batch.header.leader_epoch == LeaderEpoch(1)));
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(1)));
    assert_eq!(log.end_offset_for(LeaderEpoch(1), LeaderEpoch(1)).unwrap().end_offset, Offset(3));
}

#[test]
fn the_body_is_stored_as_it_came() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &Spec::values(&["first"]));
    for codec in Compression::ALL {
        let spec = Spec { codec, ..Spec::sized(50, 100) };
        let sent = spec.build();
        let first = put(&mut log, &spec);
        let stored = log.read(request(first, i64::MAX)).unwrap().into_bytes();
        assert_eq!(stored[..8], first.to_be_bytes());
        assert_eq!(stored[8..12], sent[8..12]);
        assert_eq!(stored[12..16], 1i32.to_be_bytes());
        assert_eq!(stored[16..], sent[16..], "{codec}");
    }
}

#[test]
fn several_batches_of_one_append_follow_each_other() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    let one = Spec::values(&["a", "b"]).build();
    let records = [&one[..], &one[..], &one[..]].concat();
    let appended = log.append(Append::from_client(records.into(), LeaderEpoch(0))).unwrap();
    assert_eq!((appended.first_offset.0, appended.last_offset.0), (0, 5));
    assert_eq!(appended.record_count, 6);
    assert_eq!(records_from(&mut log, 0).len(), 6);
}

#[test]
fn reads_obey_their_limits() {
    let machine = Machine::new(small_segments());
    let mut log = machine.open();
    let size = Spec::sized(2, 20).build().len();
    for _ in 0..5 {
        put(&mut log, &Spec::sized(2, 20));
    }
    let mut count = |offset, limit_offset, max_bytes, min_one_batch| {
        let (offset, limit_offset) = (Offset(offset), Offset(limit_offset));
        let request = ReadRequest { offset, limit_offset, max_bytes, min_one_batch };
        Batches::new(log.read(request).unwrap().into_bytes()).count()
    };
    assert_eq!(count(0, 10, 1 << 20, false), 5);
    assert_eq!(count(3, 10, 1 << 20, false), 4);
    assert_eq!(count(0, 9, 1 << 20, false), 4, "a batch beyond the limit stays out");
    assert_eq!(count(0, 0, 1 << 20, true), 0);
    assert_eq!(count(0, 1, 1 << 20, true), 0);
    assert_eq!(count(0, 10, 2 * size + 5, false), 2, "only whole batches");
    assert_eq!(count(0, 10, size - 1, false), 0);
    assert_eq!(count(0, 10, size - 1, true), 1);
    assert_eq!(count(10, 10, 1 << 20, true), 0);
    assert_eq!(count(10, i64::MAX, 1 << 20, true), 0);

    log.delete_records_to(Offset(4)).unwrap();
    for offset in [3, 11, -1] {
        let error = log.plan_read(request(offset, 10)).unwrap_err();
        let LogError::OffsetOutOfRange { log_start, log_end, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((log_start, log_end), (Offset(4), Offset(10)));
    }
    assert!(log.delete_records_to(Offset(11)).is_err());
}

#[test]
fn a_plan_outlives_later_appends_and_deletions() {
    let machine = Machine::new(small_segments());
    let mut log = machine.open();
    put(&mut log, &Spec::sized(2, 20));
    let plan = log.plan_read(request(0, 2)).unwrap();
    put(&mut log, &Spec::sized(2, 20));
    log.roll().unwrap();
    log.delete_records_to(Offset(4)).unwrap();
    assert_eq!(log.enforce_retention(Offset(4)).unwrap(), 1);
    machine.clock.advance(std::time::Duration::from_secs(61));
    machine.environment.remove_deleted_files().unwrap();
    assert_eq!(machine.files(".deleted").len(), 0);
    assert_eq!(Batches::new(plan.run().unwrap().into_bytes()).count(), 1);
}

#[test]
fn large_batches_stay_in_their_file_and_small_ones_are_read() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    let sizes = [40_000, 30_000, 30_000, 20_000, 100, 50_000];
    for size in sizes {
        put(&mut log, &Spec::sized(1, size));
    }
    for _ in 0..1000 {
        put(&mut log, &Spec::sized(1, 200));
    }
    let end = log.log_end_offset();
    let cases = [
        (0, 6, 1 << 20, true),
        (0, 3, 1 << 20, true),
        (1, 6, 100_000, true),
        (2, 6, 70_000, true),
        (0, 1, 1 << 20, true),
        (0, 6, 50_000, false),
        (0, end.0, 1 << 20, false),
        (6, end.0, 1 << 20, false),
    ];
    for (offset, limit, max_bytes, stays) in cases {
        let request = ReadRequest { max_bytes, ..request(offset, limit) };
        let read = log.plan_read(request).unwrap().run().unwrap().into_bytes();
        let located = log.plan_read(request).unwrap().locate().unwrap();
        let in_file = located.pieces.iter().any(|piece| matches!(piece, Piece::File(_)));
        let next_offset =
            Batches::new(read.clone()).last().map(|batch| batch.unwrap().header.next_offset());
        let bytes: Vec<u8> = located
            .pieces
            .into_iter()
            .flat_map(|piece| piece.into_bytes().expect("it is there"))
            .collect();
        assert_eq!(bytes, read, "from {offset} to {limit}");
        assert_eq!(in_file, stays, "from {offset} to {limit}");
        if in_file {
            assert_eq!(located.next_offset, next_offset);
        }
    }
}

#[test]
fn segments_roll_by_size_time_and_full_index() {
    let machine = Machine::new(small_segments());
    let mut log = machine.open();
    for _ in 0..20 {
        put(&mut log, &Spec::sized(1, 200));
    }
    let offsets: Vec<i64> = log.segment_offsets().iter().map(|offset| offset.0).collect();
    assert_eq!(offsets, [0, 3, 6, 9, 12, 15, 18]);
    assert_eq!(records_from(&mut log, 0).len(), 20);
    assert_eq!(records_from(&mut log, 13).len(), 7);

    let machine = Machine::new(LogConfig { segment_ms: 1000, ..LogConfig::default() });
    let mut log = machine.open();
    put(&mut log, &Spec::values(&["a"]).at(common::NOW_MS - 5000));
    put(&mut log, &Spec::values(&["b"]).at(common::NOW_MS - 4000));
    assert_eq!(log.segment_offsets().len(), 1, "1000 ms are not more than 1000 ms");
    put(&mut log, &Spec::values(&["c"]).at(common::NOW_MS - 3999));
    assert_eq!(log.segment_offsets().len(), 2);

    let config =
        LogConfig { segment_index_bytes: 80, index_interval_bytes: 1, ..LogConfig::default() };
    let machine = Machine::new(config);
    let mut log = machine.open();
    for _ in 0..20 {
        put(&mut log, &Spec::values(&["x"]));
    }
    // Ten entries, and the batch at the beginning needs none.
    assert_eq!(log.segment_offsets(), [Offset(0), Offset(11)]);
    assert_eq!(records_from(&mut log, 0).len(), 20);
}

#[test]
fn the_tail_is_served_from_memory() {
    let machine = Machine::new(small_segments()).with_tail_cache(2500);
    let mut log = machine.open();
    for _ in 0..20 {
        put(&mut log, &Spec::sized(1, 200));
    }
    let plan = log.plan_read(request(19, 20)).unwrap();
    assert!(plan.is_in_memory());
    let from_memory = plan.run().unwrap().into_bytes();
    assert!(!log.plan_read(request(0, 20)).unwrap().is_in_memory());
    let from_disk = batches_from(&mut log, 0).pop().unwrap().bytes;
    assert_eq!(from_memory, from_disk);
    assert_eq!(records_from(&mut log, 0).len(), 20);

    let cold = machine.open();
    let mut cold = cold;
    assert_eq!(batches_from(&mut cold, 0).pop().unwrap().bytes, from_memory);
    log.truncate_to(Offset(19)).unwrap();
    put(&mut log, &Spec::values(&["other"]));
    assert_eq!(records_from(&mut log, 19), [(19, b"other".to_vec())]);
}

#[test]
fn batches_that_break_a_rule_are_refused() {
    let machine = Machine::new(LogConfig { max_message_bytes: 500, ..LogConfig::default() });
    let mut log = machine.open();
    let mut refuse = |records: Vec<u8>| {
        let error = log
            .append(Append::from_client(records.into(), LeaderEpoch(0)))
            .expect_err("the append is refused");
        assert_eq!(log.log_end_offset(), Offset(0));
        error
    };
    let good = Spec::values(&["a", "b", "c"]).build().to_vec();
    let with = |position: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[position..position + bytes.len()].copy_from_slice(bytes);
        let crc = crc_fast::crc32_iscsi(&changed[21..]);
        changed[17..21].copy_from_slice(&crc.to_be_bytes());
        changed
    };
    assert!(matches!(refuse(Vec::new()), AppendError::Empty));
    assert!(matches!(refuse(good[..good.len() - 1].to_vec()), AppendError::Batch(_)));
    assert!(matches!(refuse([&good[..], b"x"].concat()), AppendError::Batch(_)));
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(refuse(damaged), AppendError::Batch(_)));
    assert!(matches!(refuse(with(16, &[1])), AppendError::Batch(_)), "an old format");
    assert!(matches!(refuse(with(22, &[7])), AppendError::Batch(_)), "an unknown codec");
    let large = Spec::sized(1, 500).build().to_vec();
    assert!(matches!(refuse(large), AppendError::BatchTooLarge { max: 500, .. }));
    let invalid = [
        with(0, &5i64.to_be_bytes()),
        with(23, &3i32.to_be_bytes()),
        with(57, &2i32.to_be_bytes()),
        with(22, &[0x20]),
        with(22, &[0x10]),
        with(43, &7i64.to_be_bytes()),
    ];
    for records in invalid {
        let error = refuse(records.clone());
        let refused = matches!(
            error,
            AppendError::InvalidBatch { .. }
                | AppendError::Batch(fleuve_protocol::records::BatchError::ImpossibleCount { .. })
                | AppendError::Batch(fleuve_protocol::records::BatchError::TrailingBytes { .. })
        );
        assert!(refused, "{error}");
    }
    let malformed = with(61, &[2]);
    assert!(matches!(refuse(malformed), AppendError::Batch(_)));
}

#[test]
fn an_append_larger_than_a_segment_is_refused() {
    let machine = Machine::new(small_segments());
    let mut log = machine.open();
    let one = Spec::sized(1, 500).build();
    let records = [&one[..], &one[..]].concat();
    let error = log.append(Append::from_client(records.into(), LeaderEpoch(0))).unwrap_err();
    assert!(matches!(error, AppendError::AppendTooLarge { max: 1000, .. }));
}

#[test]
fn timestamps_keep_to_their_window() {
    let config = LogConfig {
        message_timestamp_before_max_ms: 10_000,
        message_timestamp_after_max_ms: 5_000,
        ..LogConfig::default()
    };
    let machine = Machine::new(config);
    let mut log = machine.open();
    for codec in [Compression::None, Compression::Lz4] {
        for (offset_ms, accepted) in
            [(-10_001, false), (-10_000, true), (5_000, true), (5_001, false)]
        {
            let spec = Spec { codec, ..Spec::values(&["x"]).at(common::NOW_MS + offset_ms) };
            assert_eq!(append(&mut log, &spec).is_ok(), accepted, "{offset_ms} {codec}");
        }
    }
}

#[test]
fn log_append_time_is_set_and_checksummed() {
    let config =
        LogConfig { message_timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() };
    let machine = Machine::new(config);
    let mut log = machine.open();
    let appended = append(&mut log, &Spec::values(&["a", "b"]).at(5)).unwrap();
    assert_eq!(appended.log_append_time, Some(TimestampMs(common::NOW_MS)));
    let batch = batches_from(&mut log, 0).remove(0);
    assert_eq!(batch.header.max_timestamp, TimestampMs(common::NOW_MS));
    assert_eq!(batch.header.attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(records_from(&mut log, 0).len(), 2);
}

#[test]
fn topics_choose_the_codec_of_their_batches() {
    let config =
        LogConfig { compression: Some(Codec::new(Compression::Zstd)), ..LogConfig::default() };
    let machine = Machine::new(config);
    let mut log = machine.open();
    for codec in Compression::ALL {
        put(&mut log, &Spec { codec, ..Spec::sized(10, 100) });
    }
    for batch in batches_from(&mut log, 0) {
        assert_eq!(batch.header.compression().unwrap(), Compression::Zstd);
    }
    assert_eq!(records_from(&mut log, 0).len(), 50);
}

#[test]
fn compacted_topics_want_keys() {
    let cleanup = CleanupPolicy { delete: false, compact: true };
    let machine = Machine::new(LogConfig { cleanup, ..LogConfig::default() });
    let mut log = machine.open();
    for codec in Compression::ALL {
        let spec = Spec { codec, ..Spec::values(&["v"]) };
        put(&mut log, &spec);
        let keyless = append(&mut log, &Spec { keyed: false, ..Spec::values(&["a", "b"]) });
        let Err(AppendError::InvalidRecords(found)) = keyless else { panic!("{keyless:?}") };
        assert!(!found.concerns_time, "{codec}");
        let positions: Vec<i32> = found.faults.iter().map(|(index, _)| *index).collect();
        assert_eq!((positions, found.total), (vec![0, 1], 2), "{codec}");
    }
}

#[test]
fn records_to_blame_are_named_and_their_number_is_bounded() {
    let config = LogConfig { message_timestamp_after_max_ms: 1, ..LogConfig::default() };
    let machine = Machine::new(config);
    let mut log = machine.open();
    for codec in Compression::ALL {
        // Each record is a millisecond later than the one before: the third is too late.
        let refused = append(&mut log, &Spec { codec, ..Spec::values(&["a", "b", "c"]) });
        let Err(AppendError::InvalidRecords(found)) = refused else { panic!("{refused:?}") };
        assert!(found.concerns_time);
        assert_eq!((found.faults[0].0, found.total), (2, 1), "{codec}");
        let refused = append(&mut log, &Spec { codec, ..Spec::sized(5000, 1) });
        let Err(AppendError::InvalidRecords(found)) = refused else { panic!("{refused:?}") };
        assert_eq!((found.faults.len(), found.total), (1000, 4998), "{codec}");
    }
    assert_eq!(log.log_end_offset(), Offset(0));
}

#[test]
fn producers_may_not_claim_the_brokers_time() {
    // Only a topic whose time is the producers' takes their word for it, as Kafka does.
    for (timestamp_type, accepted) in
        [(TimestampType::LogAppendTime, false), (TimestampType::CreateTime, true)]
    {
        let machine = Machine::new(LogConfig {
            message_timestamp_type: timestamp_type,
            ..LogConfig::default()
        });
        let mut log = machine.open();
        let batch = Batch::parse(Spec::values(&["a", "b"]).build()).unwrap();
        let time = TimestampMs(common::NOW_MS - 7);
        let header = batch.header_with_timestamps(TimestampType::LogAppendTime, time);
        let bytes = [&header.to_bytes()[..], &batch.bytes[layout::HEADER_SIZE..]].concat();
        let outcome = log.append(Append::from_client(bytes.into(), LeaderEpoch(0)));
        assert_eq!(outcome.is_ok(), accepted, "{outcome:?}");
        if accepted {
            let stored = batches_from(&mut log, 0).remove(0).header;
            assert_eq!(stored.attributes.timestamp_type(), TimestampType::CreateTime);
        }
    }
}

#[test]
fn followers_keep_offsets_and_epochs() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    let batch =
        |base_offset, leader_epoch| Spec { base_offset, leader_epoch, ..Spec::values(&["a", "b"]) };
    log.append(Append::from_leader(batch(10, 3).build())).unwrap();
    log.append(Append::from_leader(batch(20, 5).build())).expect("gaps are fine");
    let behind = log.append(Append::from_leader(batch(21, 5).build())).unwrap_err();
    assert!(matches!(behind, AppendError::OffsetsOutOfOrder { .. }));
    assert_eq!(log.log_end_offset(), Offset(22));
    assert_eq!(log.end_offset_for(LeaderEpoch(3), LeaderEpoch(5)).unwrap().end_offset, Offset(20));
    let offsets: Vec<i64> = records_from(&mut log, 0).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [10, 11, 20, 21]);
    assert_eq!(records_from(&mut log, 12).len(), 2, "a read in a gap goes on behind it");
}

#[test]
fn offsets_are_found_by_time() {
    let machine = Machine::new(small_segments());
    let mut log = machine.open();
    // Every record has its own time: a batch of two spans two milliseconds.
    for number in 0..50 {
        put(&mut log, &Spec::sized(2, 50).at(1000 + number * 10));
    }
    assert!(log.segment_offsets().len() > 5);
    let mut find = |timestamp| {
        let found = log.offset_for_timestamp(TimestampMs(timestamp)).unwrap();
        found.map(|found| (found.offset.0, found.timestamp.0))
    };
    assert_eq!(find(0), Some((0, 1000)));
    assert_eq!(find(1001), Some((1, 1001)));
    assert_eq!(find(1002), Some((2, 1010)));
    for number in 0..50 {
        assert_eq!(find(1000 + number * 10), Some((number * 2, 1000 + number * 10)));
    }
    assert_eq!(find(1491), Some((99, 1491)));
    assert_eq!(find(1492), None);
    log.delete_records_to(Offset(3)).unwrap();
    let found = log.offset_for_timestamp(TimestampMs(0)).unwrap().unwrap();
    assert_eq!((found.offset.0, found.leader_epoch), (3, LeaderEpoch(1)));
    let newest = log.offset_of_max_timestamp().unwrap().unwrap();
    assert_eq!((newest.offset.0, newest.timestamp.0), (99, 1491));

    put(&mut log, &Spec::values(&["late"]).at(77));
    assert_eq!(log.offset_of_max_timestamp().unwrap().unwrap().offset, Offset(99));
    assert_eq!(log.offset_for_timestamp(TimestampMs(1492)).unwrap(), None);
}

#[test]
fn an_empty_log_has_no_times() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    assert_eq!(log.offset_for_timestamp(TimestampMs(0)).unwrap(), None);
    assert_eq!(log.offset_of_max_timestamp().unwrap(), None);
    assert!(log.plan_read(request(0, 0)).unwrap().is_empty());
    assert_eq!(log.size().unwrap(), 0);
    assert!(machine.disk.exists(&machine.path("00000000000000000000.timeindex")).unwrap());
}

#[test]
fn a_segment_that_grows_has_space_ahead_and_gives_back_what_it_did_not_need() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    let path = machine.path("00000000000000000000.log");
    let ahead = || machine.disk.allocated_ahead(&path);
    let half_megabyte = Spec::sized(1, 1 << 19);
    for _ in 0..16 {
        put(&mut log, &half_megabyte);
        assert_eq!(ahead(), 0, "small logs take what they hold");
    }
    let mut most = 0;
    for _ in 0..16 {
        put(&mut log, &half_megabyte);
        most = most.max(ahead());
    }
    assert!((1 << 20..=2 << 20).contains(&most), "an eighth of what it holds: {most}");
    log.close().unwrap();
    assert_eq!(ahead(), 0);
}

#[test]
fn a_disk_without_space_ahead_still_takes_records() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    let half_megabyte = Spec::sized(1, 1 << 19);
    for _ in 0..16 {
        put(&mut log, &half_megabyte);
    }
    machine.disk.set_capacity(9 << 20);
    put(&mut log, &half_megabyte);
    assert_eq!(machine.disk.allocated_ahead(&machine.path("00000000000000000000.log")), 0);
    assert_eq!(records_from(&mut log, 0).len(), 17);
}

#[test]
fn a_reader_goes_on_without_a_search_in_the_index() {
    let mut machine = Machine::new(LogConfig { index_interval_bytes: 100, ..LogConfig::default() });
    let mut log = machine.open();
    for _ in 0..20 {
        put(&mut log, &Spec::sized(4, 50));
    }
    log.close().unwrap();
    drop(log);
    machine.restart();
    let mut log = machine.open_clean();
    let batch_bytes = batches_from(&mut log, 0)[0].header.size();
    let next = |log: &mut Log, offset| {
        let wanted = ReadRequest { max_bytes: 2 * batch_bytes, ..request(offset, i64::MAX) };
        log.read(wanted).map(|records| records.len() / batch_bytes)
    };
    // Each of two readers has asked the index once.
    assert_eq!((next(&mut log, 8).unwrap(), next(&mut log, 40).unwrap()), (2, 2));
    let gone = Fault::on(Operation::Read, Effect::InputOutputError).path(".index");
    machine.disk.inject(gone.times(u64::MAX));
    assert!(next(&mut log, 4).is_err(), "a third one would have to ask it");
    for round in 1..5 {
        assert_eq!(next(&mut log, 8 + 8 * round).unwrap(), 2);
        assert_eq!(next(&mut log, 40 + 8 * round).unwrap(), 2);
    }
}

#[test]
fn a_reader_that_was_overtaken_by_a_truncation_gets_what_is_there_now() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    for _ in 0..3 {
        put(&mut log, &Spec::values(&["old", "old"]));
    }
    let sizes: Vec<usize> = batches_from(&mut log, 0).iter().map(|it| it.header.size()).collect();
    let overtaken = ReadRequest { max_bytes: sizes[0] + sizes[1], ..request(0, i64::MAX) };
    let late = log.plan_read(overtaken).unwrap();
    log.read(overtaken).unwrap();
    log.truncate_to(Offset(2)).unwrap();
    // A batch reaches over where the reader would go on, and another begins at the old place.
    let long = Spec::values(&["new"; 5]);
    put(&mut log, &long);
    put(&mut log, &Spec::values(&["last"]));
    assert_eq!(late.run().unwrap().len(), sizes[0], "what has been replaced is not whole");
    let found = records_from(&mut log, 4);
    assert_eq!(found.first(), Some(&(4, b"new".to_vec())));
    assert_eq!(found.last(), Some(&(7, b"last".to_vec())));
}

//! What survives when the machine or the disk fails.

mod common;

use std::path::Path;

use common::{Machine, NOW_MS, Spec, append, batches_from, put, records_from};
use fleuve_os::{Disk, OpenMode, Random};
use fleuve_sim::{Crash, Effect, Fault, Operation, SimDisk, SimRandom};
use fleuve_storage::{AppendError, Log, LogConfig, LogError, OpenOptions};
use fleuve_types::{LeaderEpoch, Offset, TimestampMs};

const LOG: &str = "/data/orders-0/00000000000000000000.log";

fn config() -> LogConfig {
    LogConfig { segment_bytes: 4096, index_interval_bytes: 200, ..LogConfig::default() }
}

/// One life of a log: appends and now and then a flush or a checkpoint, until the power fails.
/// Returns the values offered so far, and how many of them were acknowledged as flushed.
fn live_until_power_fails(
    log: &mut Log,
    random: &SimRandom,
    values: &mut Vec<Vec<u8>>,
    checkpointed: &mut i64,
) -> i64 {
    let mut acknowledged = log.flushed_offset().0;
    loop {
        values.truncate(log.log_end_offset().0 as usize);
        let count = 1 + random.below(4) as usize;
        let batch: Vec<Vec<u8>> =
            (0..count).map(|_| vec![random.next_u64() as u8; random.below(300) as usize]).collect();
        values.extend(batch.iter().cloned());
        if append(log, &Spec::bytes(batch)).is_err() {
            return acknowledged;
        }
        if random.once_in(3) {
            match log.flush() {
                Ok(flushed) => acknowledged = flushed.0,
                Err(_) => return acknowledged,
            }
        }
        if random.once_in(12) {
            match log.checkpoint() {
                Ok(point) => (*checkpointed, acknowledged) = (point.0, log.flushed_offset().0),
                Err(_) => return acknowledged,
            }
        }
    }
}

fn assert_is_prefix(log: &mut Log, values: &[Vec<u8>], context: &str) {
    let found = records_from(log, 0);
    assert!(found.len() <= values.len(), "{context}");
    for (index, (offset, value)) in found.iter().enumerate() {
        assert_eq!(*offset, index as i64, "{context}");
        assert_eq!(value, &values[index], "{context}");
    }
}

#[test]
fn nothing_flushed_is_lost_and_what_remains_is_a_prefix() {
    for seed in 0..300 {
        let random = SimRandom::seeded(seed);
        let mut machine = Machine::new(config());
        let mut values = Vec::new();
        let (mut checkpointed, mut acknowledged) = (0, 0);
        for life in 0..4 {
            machine.restart();
            let context = format!("seed {seed}, life {life}");
            // Sometimes the power fails before recovery is through.
            machine.disk.fail_power_after(random.below(if random.once_in(2) { 15 } else { 150 }));
            let flushed = match machine.try_open(false, checkpointed) {
                Ok((mut log, recovery)) => {
                    assert!(!recovery.lost_synced_records, "{context}");
                    live_until_power_fails(&mut log, &random, &mut values, &mut checkpointed)
                }
                Err(_) => 0,
            };
            acknowledged = flushed.max(acknowledged);
            let crash = match random.below(4) {
                0 => Crash::LoseUnsynced,
                1 => Crash::KeepAll,
                _ => Crash::KeepRandom { seed: random.next_u64() },
            };
            machine.disk.crash(crash);

            machine.restart();
            let (mut log, recovery) = machine.try_open(false, checkpointed).unwrap();
            let end = log.log_end_offset().0;
            assert!(end >= acknowledged, "{context}: {acknowledged} acknowledged, {end} there");
            assert!(!recovery.lost_synced_records, "{context}");
            assert_is_prefix(&mut log, &values, &context);
            values.truncate(end as usize);
        }
    }
}

#[test]
fn without_flushes_a_clean_prefix_remains() {
    for seed in 0..200 {
        let random = SimRandom::seeded(seed);
        let mut machine = Machine::new(config());
        let mut log = machine.open();
        let mut values = Vec::new();
        for _ in 0..60 {
            let value = vec![random.next_u64() as u8; random.below(400) as usize];
            put(&mut log, &Spec::bytes(vec![value.clone()]));
            values.push(value);
        }
        machine.disk.crash(Crash::KeepRandom { seed });
        machine.restart();
        let mut log = machine.open();
        assert_is_prefix(&mut log, &values, &format!("seed {seed}"));
    }
}

#[test]
fn a_tail_cut_anywhere_leaves_the_last_whole_batch() {
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    let mut ends = Vec::new();
    for number in 0..4 {
        put(&mut log, &Spec::sized(1 + number % 2, 30 + number));
        ends.push((log.size().unwrap() as usize, log.log_end_offset().0));
    }
    log.flush().unwrap();
    let whole = machine.disk.fork();
    for cut in 0..=ends[3].0 {
        machine.disk = whole.fork();
        machine.disk.damage(Path::new(LOG), |bytes| bytes.truncate(cut));
        machine.restart();
        let mut log = machine.open();
        let expected = ends.iter().rev().find(|(end, _)| *end <= cut);
        assert_eq!(log.log_end_offset().0, expected.map_or(0, |(_, offset)| *offset), "{cut}");
        assert_eq!(log.size().unwrap() as usize, expected.map_or(0, |(end, _)| *end), "{cut}");
        // And the log goes on from there.
        let next = put(&mut log, &Spec::values(&["next"]));
        assert_eq!(records_from(&mut log, next), [(next, b"next".to_vec())]);
    }
}

#[test]
fn garbage_behind_the_last_batch_is_cut() {
    let random = SimRandom::seeded(7);
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &Spec::sized(3, 30));
    put(&mut log, &Spec::sized(3, 30));
    log.flush().unwrap();
    let whole = machine.disk.fork();
    let good = whole.read_file(Path::new(LOG)).unwrap();
    let batch = &good[..good.len() / 2];
    let mut tails: Vec<Vec<u8>> = vec![vec![0; 1], vec![0; 200], vec![0xff; 61], vec![0xff; 500]];
    tails.push(batch.to_vec()); // A whole batch, with an offset that comes too early.
    let mut bad_checksum = batch.to_vec();
    bad_checksum[..8].copy_from_slice(&6i64.to_be_bytes());
    bad_checksum[100] ^= 1;
    tails.push(bad_checksum);
    let mut huge = batch.to_vec();
    huge[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    tails.push(huge);
    tails.extend((0..50).map(|_| {
        let mut tail = vec![0; 1 + random.below(300) as usize];
        random.fill(&mut tail);
        tail
    }));
    for (number, tail) in tails.iter().enumerate() {
        machine.disk = whole.fork();
        machine.disk.damage(Path::new(LOG), |bytes| bytes.extend(tail));
        machine.restart();
        let (mut log, recovery) = machine.try_open(false, 6).unwrap();
        assert_eq!(log.log_end_offset(), Offset(6), "tail {number}");
        assert_eq!(recovery.cut_bytes, tail.len() as u64, "tail {number}");
        assert!(!recovery.lost_synced_records);
        assert_eq!(records_from(&mut log, 0).len(), 6);
    }
}

#[test]
fn damage_to_synced_records_is_reported() {
    let mut machine = Machine::new(LogConfig { index_interval_bytes: 1, ..config() });
    let mut log = machine.open();
    for _ in 0..10 {
        put(&mut log, &Spec::sized(1, 100));
    }
    let point = log.checkpoint().unwrap();
    let size = log.size().unwrap();
    assert_eq!(point, Offset(10));
    machine.disk.damage(Path::new(LOG), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let damaged = machine.disk.fork();
    machine.restart();
    let (mut log, recovery) = machine.try_open(false, 10).unwrap();
    assert!(recovery.lost_synced_records);
    assert_eq!(log.log_end_offset(), Offset(9));
    assert_eq!(put(&mut log, &Spec::values(&["x"])), 9);

    // Nothing long before the recovery point is looked at, let alone cut.
    machine.disk = damaged;
    machine.disk.damage(Path::new(LOG), |bytes| {
        *bytes.last_mut().unwrap() ^= 1;
        bytes[100] ^= 1;
    });
    machine.restart();
    let (log, recovery) = machine.try_open(false, 10).unwrap();
    assert!(!recovery.lost_synced_records);
    assert!(recovery.verified_bytes < size);
    assert_eq!(log.log_end_offset(), Offset(10));
}

#[test]
fn damaged_indexes_cost_time_and_no_answers() {
    let mut machine = Machine::new(LogConfig { index_interval_bytes: 300, ..config() });
    let mut log = machine.open();
    for number in 0..60 {
        put(&mut log, &Spec::sized(2, 40).at(NOW_MS + number * 10));
    }
    let expected = batches_from(&mut log, 0);
    log.close().unwrap();
    let whole = machine.disk.fork();
    let ask = |machine: &Machine, context: &str| {
        let mut log = machine.open_clean();
        assert_eq!(log.log_end_offset(), Offset(120), "{context}");
        for number in [0i64, 1, 7, 23, 41, 58, 59] {
            let timestamp = TimestampMs(NOW_MS + number * 10);
            let found = log.offset_for_timestamp(timestamp).unwrap().unwrap();
            assert_eq!((found.offset.0, found.timestamp), (number * 2, timestamp), "{context}");
            let batches = batches_from(&mut log, number * 2 + 1);
            assert_eq!(batches[..], expected[number as usize..], "{context}");
        }
        let newest = log.offset_of_max_timestamp().unwrap().unwrap();
        assert_eq!(newest.offset, Offset(119), "{context}");
    };
    let mut asked = 0;
    for suffix in [".index", ".timeindex"] {
        for name in machine.files(suffix) {
            let path = machine.path(&name);
            let length = whole.read_file(&path).unwrap().len();
            for position in 0..length {
                for bit in [0x01, 0x80] {
                    machine.disk = whole.fork();
                    machine.disk.damage(&path, |bytes| bytes[position] ^= bit);
                    machine.restart();
                    ask(&machine, &format!("{name} byte {position} bit {bit}"));
                    asked += 1;
                }
            }
            for damage in 0..4 {
                machine.disk = whole.fork();
                machine.disk.damage(&path, |bytes| match damage {
                    0 => bytes.clear(),
                    1 => bytes.truncate(bytes.len() - 1),
                    2 => bytes.extend([0xff; 100]),
                    _ => bytes.fill(0),
                });
                machine.restart();
                ask(&machine, &format!("{name} damage {damage}"));
            }
            machine.disk = whole.fork();
            machine.disk.remove_file(&path).unwrap();
            machine.restart();
            ask(&machine, &format!("{name} removed"));
        }
    }
    assert!(asked > 500, "{asked}");
}

#[test]
fn a_failed_flush_stops_the_log_until_it_is_reopened() {
    let mut machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &Spec::values(&["kept"]));
    log.flush().unwrap();
    put(&mut log, &Spec::values(&["doomed"]));
    machine.disk.inject(Fault::on(Operation::Sync, Effect::InputOutputError).path(".log"));
    assert!(log.flush().is_err());
    assert_eq!(log.flushed_offset(), Offset(1));
    assert!(log.failure().is_some());
    for _ in 0..2 {
        let refused = append(&mut log, &Spec::values(&["refused"])).unwrap_err();
        assert!(matches!(refused, AppendError::Log(LogError::Failed { .. })));
        assert!(refused.to_string().contains("/data/orders-0"), "{refused}");
        assert!(log.flush().is_err(), "never retried and trusted");
        assert!(log.close().is_err());
        assert!(log.begin_flush().is_none());
    }
    assert_eq!(records_from(&mut log, 0).len(), 2, "what is there can be read");
    machine.disk.crash(Crash::LoseUnsynced);
    machine.restart();
    let mut log = machine.open();
    assert_eq!(records_from(&mut log, 0), [(0, b"kept".to_vec())]);
    put(&mut log, &Spec::values(&["again"]));
    assert_eq!(log.flush().unwrap(), Offset(2));
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else() {
    for kept in [0, 1, 20, 61, 100, 161, 300] {
        let mut machine = Machine::new(LogConfig::default());
        let mut log = machine.open();
        put(&mut log, &Spec::sized(1, 100).from(5, 0, 0));
        let size = log.size().unwrap();
        let fault = Fault::on(Operation::Write, Effect::OutOfSpaceAfter(kept)).path(".log");
        machine.disk.inject(fault.times(2));
        // The write fails half way, and so does cutting off what it wrote.
        machine.disk.inject(Fault::on(Operation::SetLen, Effect::InputOutputError).path(".log"));
        for _ in 0..2 {
            let full = append(&mut log, &Spec::sized(1, 400).from(5, 0, 1)).unwrap_err();
            assert!(matches!(full, AppendError::Log(error) if error.is_out_of_space()));
        }
        assert_eq!((log.size().unwrap(), log.log_end_offset()), (size, Offset(1)));
        assert_eq!(records_from(&mut log, 0).len(), 1);
        assert!(log.failure().is_none());
        // There is space again: the producer's next try is not out of sequence.
        put(&mut log, &Spec::sized(1, 100).from(5, 0, 1));
        assert_eq!(records_from(&mut log, 0).len(), 2);
        log.close().unwrap();
        machine.restart();
        assert_eq!(records_from(&mut machine.open_clean(), 0).len(), 2, "kept {kept}");
    }
}

#[test]
fn too_many_open_files_end_nothing() {
    let mut machine = Machine::new(LogConfig { segment_bytes: 400, ..config() });
    let mut log = machine.open();
    put(&mut log, &Spec::sized(1, 100));
    log.close().unwrap();
    machine.restart();
    let mut log = machine.open_clean();
    let full = || Fault::on(Operation::Open, Effect::OutOfDescriptors).path(".log");
    // Once: the descriptor of an idle file serves.
    machine.disk.inject(full());
    put(&mut log, &Spec::sized(1, 100));
    // Twice: there is none. What needs a new segment is refused, as long as that is so.
    let filled = std::iter::repeat_with(|| {
        machine.disk.inject(full().times(2));
        let appended = append(&mut log, &Spec::sized(1, 100));
        machine.disk.clear_faults();
        appended
    });
    let refusal = filled.take(4).find_map(Result::err).expect("a segment holds fewer");
    assert!(matches!(refusal, AppendError::Log(error) if error.is_passing()));
    assert!(log.failure().is_none());
    let end = put(&mut log, &Spec::sized(1, 100)) + 1;
    // A flush that has to open files gets one, too.
    machine.disk.inject(full());
    assert_eq!(log.flush().unwrap(), Offset(end));
    machine.disk.crash(Crash::LoseUnsynced);
    machine.restart();
    let mut log = machine.open();
    assert_eq!(records_from(&mut log, 0).len(), end as usize);
}

#[test]
fn a_full_disk_at_a_checkpoint_costs_the_checkpoint_alone() {
    let machine = Machine::new(LogConfig::default());
    let mut log = machine.open();
    put(&mut log, &Spec::sized(1, 100));
    let fault = Fault::on(Operation::Write, Effect::OutOfSpace).path("leader-epoch-checkpoint");
    machine.disk.inject(fault);
    log.checkpoint().unwrap();
    assert_eq!((log.flushed_offset(), log.recovery_point()), (Offset(1), Offset(0)));
    assert!(log.failure().is_none());
    put(&mut log, &Spec::sized(1, 100));
    assert_eq!(log.checkpoint().unwrap(), Offset(2));
    assert_eq!(log.recovery_point(), Offset(2));
    machine.disk.crash(Crash::LoseUnsynced);
    let (log, _) = machine.try_open(false, 2).unwrap();
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(1)));
}

#[test]
fn a_disk_that_fills_up_anywhere_leaves_a_usable_log() {
    for free in (0..6000).step_by(97) {
        let mut machine = Machine::new(config());
        let mut log = machine.open();
        put(&mut log, &Spec::values(&["first"]));
        machine.disk.set_capacity(free);
        let mut refused = 0;
        let mut values = vec![b"first".to_vec()];
        for number in 0..30u8 {
            let value = vec![number; 300];
            match append(&mut log, &Spec::bytes(vec![value.clone()])) {
                Ok(_) => values.push(value),
                Err(AppendError::Log(error)) if error.is_out_of_space() => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused > 0, "{free} bytes free");
        machine.disk.set_capacity(1 << 30);
        let last = b"there is space again".to_vec();
        put(&mut log, &Spec::bytes(vec![last.clone()]));
        values.push(last);
        assert_is_prefix(&mut log, &values, &format!("{free} bytes free"));
        assert_eq!(log.log_end_offset().0, values.len() as i64);
        log.close().unwrap();
        machine.restart();
        assert_is_prefix(&mut machine.open_clean(), &values, &format!("{free} bytes free"));
    }
}

#[test]
fn duplicates_are_recognised_after_a_restart() {
    for had_clean_shutdown in [true, false] {
        let mut machine = Machine::new(config());
        let mut log = machine.open();
        for number in 0..7 {
            let spec = Spec::values(&["a", "b"]).from(9, 2, number * 2);
            assert_eq!(put(&mut log, &spec), i64::from(number) * 2);
            if number == 3 {
                log.roll().unwrap();
            }
        }
        if had_clean_shutdown {
            log.close().unwrap();
        }
        machine.disk.crash(Crash::KeepAll);
        machine.restart();
        let (mut log, _) = machine.try_open(had_clean_shutdown, 0).unwrap();
        let again = append(&mut log, &Spec::values(&["a", "b"]).from(9, 2, 12)).unwrap();
        assert!(again.is_duplicate);
        assert_eq!((again.first_offset, again.last_offset), (Offset(12), Offset(13)));
        assert_eq!(log.log_end_offset(), Offset(14));
        let gap = append(&mut log, &Spec::values(&["x"]).from(9, 2, 15)).unwrap_err();
        assert!(matches!(gap, AppendError::OutOfOrderSequence { last_sequence: 13, .. }));
        let old = append(&mut log, &Spec::values(&["x"]).from(9, 1, 14)).unwrap_err();
        assert!(matches!(old, AppendError::InvalidProducerEpoch { .. }));
        put(&mut log, &Spec::values(&["x"]).from(9, 2, 14));
    }
}

#[test]
fn damaged_snapshots_are_replaced_by_older_ones_and_replay() {
    let mut machine = Machine::new(config());
    let mut log = machine.open();
    for number in 0..40 {
        put(&mut log, &Spec::sized(1, 400).from(9, 0, number));
    }
    log.close().unwrap();
    let snapshots = machine.files(".snapshot");
    assert!(snapshots.len() > 2);
    let whole = machine.disk.fork();
    for damaged in 1..=snapshots.len() {
        machine.disk = whole.fork();
        for name in snapshots.iter().rev().take(damaged) {
            machine.disk.damage(&machine.path(name), |bytes| bytes[10] ^= 1);
        }
        machine.restart();
        let mut log = machine.open_clean();
        let again = append(&mut log, &Spec::sized(1, 400).from(9, 0, 39)).unwrap();
        assert!(again.is_duplicate, "{damaged} damaged");
        put(&mut log, &Spec::sized(1, 400).from(9, 0, 40));
    }
}

#[test]
fn restarts_leave_no_litter() {
    let mut machine = Machine::new(config());
    for number in 0..10 {
        machine.restart();
        let mut log = if number == 0 { machine.open() } else { machine.open_clean() };
        put(&mut log, &Spec::values(&["x"]).from(9, 0, number));
        log.close().unwrap();
    }
    for name in ["00000000000000000099.index", "00000000000000000000.log.deleted", "x.tmp"] {
        machine.disk.open(&machine.path(name), OpenMode::Create).unwrap();
    }
    machine.restart();
    let log = machine.open_clean();
    assert_eq!(log.log_end_offset(), Offset(10));
    let names = machine.files("");
    let expected = [
        "00000000000000000000.index",
        "00000000000000000000.log",
        "00000000000000000000.timeindex",
        "00000000000000000010.snapshot",
        "leader-epoch-checkpoint",
    ];
    assert_eq!(names, expected);
}

#[test]
fn leader_epochs_survive_crashes_and_damage() {
    let mut machine = Machine::new(config());
    let mut log = machine.open();
    let epochs = |log: &Log| {
        let end = |epoch| log.end_offset_for(LeaderEpoch(epoch), LeaderEpoch(6));
        [1, 4, 6].map(|epoch| end(epoch).map(|end| end.end_offset.0))
    };
    for epoch in [1, 4, 6] {
        for _ in 0..10 {
            let records = Spec::sized(1, 200).build();
            let append = fleuve_storage::Append::from_client(records, LeaderEpoch(epoch));
            log.append(append).unwrap();
        }
        if epoch == 4 {
            log.checkpoint().unwrap();
        }
    }
    let expected = [Some(10), Some(20), Some(30)];
    assert_eq!(epochs(&log), expected);
    log.flush().unwrap();
    machine.disk.crash(Crash::LoseUnsynced);
    machine.restart();
    let (mut log, _) = machine.try_open(false, 20).unwrap();
    assert_eq!(epochs(&log), expected);
    log.close().unwrap();
    let path = machine.path("leader-epoch-checkpoint");
    assert_eq!(&machine.disk.read_file(&path).unwrap()[..], b"0\n3\n1 0\n4 10\n6 20\n");
    machine.disk.damage(&path, |bytes| bytes.clear());
    machine.restart();
    assert_eq!(epochs(&machine.open_clean()), expected);
}

#[test]
fn damage_after_a_clean_shutdown_is_recovered_from() {
    let mut machine = Machine::new(config());
    let mut log = machine.open();
    put(&mut log, &Spec::sized(1, 100));
    put(&mut log, &Spec::sized(1, 100));
    log.close().unwrap();
    machine.disk.damage(Path::new(LOG), |bytes| bytes.truncate(bytes.len() - 1));
    machine.restart();
    let (log, recovery) = machine.try_open(true, 2).unwrap();
    assert_eq!(log.log_end_offset(), Offset(1));
    assert!(recovery.lost_synced_records);
}

#[test]
fn a_lost_end_of_a_segment_takes_the_later_segments_along() {
    let mut machine = Machine::on(SimDisk::new(), config());
    let mut log = machine.open();
    for _ in 0..30 {
        put(&mut log, &Spec::sized(1, 500));
    }
    let segments = log.segment_offsets();
    let second = batches_from(&mut log, segments[1].0)[0].bytes.len();
    let path = machine.path(&format!("{:020}.log", segments[1].0));
    machine.disk.damage(&path, |bytes| bytes.truncate(bytes.len() - second));
    machine.restart();
    let mut log = machine.open();
    assert_eq!(log.log_end_offset(), Offset(segments[2].0 - 1), "cut where the hole begins");
    assert_eq!(log.segment_offsets(), segments[..2]);
    assert_eq!(put(&mut log, &Spec::values(&["x"])), segments[2].0 - 1);
}

/// Kafka's cleaner drops the ends of segments, and the topic need not be compacted any more.
#[test]
fn a_log_that_was_compacted_once_may_have_gaps_between_segments() {
    let mut machine = Machine::on(SimDisk::new(), config());
    let mut log = machine.open();
    for _ in 0..30 {
        put(&mut log, &Spec::sized(1, 500));
    }
    let (segments, end) = (log.segment_offsets(), log.log_end_offset());
    for segment in [1, 3] {
        let last = batches_from(&mut log, segments[segment].0)[0].bytes.len();
        let path = machine.path(&format!("{:020}.log", segments[segment].0));
        machine.disk.damage(&path, |bytes| bytes.truncate(bytes.len() - last));
    }
    machine.restart();
    let options = OpenOptions { first_dirty: Some(segments[2]), ..machine.options() };
    let (log, _) = Log::open(&machine.environment, options).unwrap();
    assert_eq!(log.segment_offsets(), segments[..4], "only where nothing was compacted is a hole");
    assert_eq!(log.log_end_offset(), Offset(segments[4].0 - 1));

    let mut machine = Machine::on(SimDisk::new(), config());
    let mut log = machine.open();
    for _ in 0..30 {
        put(&mut log, &Spec::sized(1, 500));
    }
    let last = batches_from(&mut log, segments[1].0)[0].bytes.len();
    let path = machine.path(&format!("{:020}.log", segments[1].0));
    machine.disk.damage(&path, |bytes| bytes.truncate(bytes.len() - last));
    machine.restart();
    let options = OpenOptions { first_dirty: Some(end), ..machine.options() };
    let (log, recovery) = Log::open(&machine.environment, options).unwrap();
    assert_eq!((log.log_end_offset(), recovery.cut_bytes), (end, 0));
}

#[test]
fn arbitrary_damage_never_panics_and_is_never_served() {
    let mut machine = Machine::new(LogConfig { index_interval_bytes: 300, ..config() });
    let mut log = machine.open();
    for number in 0..40 {
        let spec = Spec::sized(2, 150).from(7, 0, number * 2);
        put(&mut log, &spec.at(NOW_MS + i64::from(number) * 10));
    }
    log.close().unwrap();
    let expected = batches_from(&mut log, 0);
    let whole = machine.disk.fork();
    let names = machine.files("");
    for seed in 0..1500 {
        let random = SimRandom::seeded(seed);
        machine.disk = whole.fork();
        for _ in 0..=random.below(2) {
            let name = &names[random.below(names.len() as u64) as usize];
            machine.disk.damage(&machine.path(name), |bytes| {
                let position = random.below(bytes.len() as u64) as usize;
                let length = random.below(20) as usize;
                match random.below(5) {
                    0 => bytes.truncate(position),
                    1 => bytes.extend(vec![random.next_u64() as u8; length]),
                    2 => drop(bytes.splice(position..position, vec![0xff; length])),
                    3 => bytes[position..].fill(random.next_u64() as u8),
                    _ => random.fill(&mut bytes[position..]),
                }
            });
        }
        machine.restart();
        let recovery_point = random.below(81) as i64 - i64::from(random.once_in(2));
        let Ok((mut log, _)) = machine.try_open(random.once_in(2), recovery_point) else {
            continue;
        };
        let context = format!("seed {seed}");
        for offset in [0, 1, 7, 33, 79] {
            let _ = log.offset_for_timestamp(TimestampMs(NOW_MS + offset * 5));
            let request = common::request(offset, i64::MAX);
            let Ok(records) = log.read(request) else { continue };
            for batch in fleuve_protocol::records::Batches::new(records.into_bytes()) {
                let batch = batch.expect("reads return whole batches");
                // Damaged records pass the broker with a checksum that tells; what has the right
                // checksum must be what was written, at its place.
                if batch.verify_crc().is_ok() {
                    let place = batch.header.base_offset;
                    let original = expected.iter().find(|known| known.header.base_offset == place);
                    assert_eq!(Some(&batch), original, "{context}");
                }
            }
        }
        let _ = log.offset_of_max_timestamp();
        let _ = append(&mut log, &Spec::values(&["x"]));
        let _ = log.truncate_to(Offset(20));
        let _ = log.enforce_retention(Offset(20));
        let _ = log.close();
    }
}

#[test]
fn a_second_crash_before_the_first_flush_is_survived() {
    // What the first recovery wrote and cut must not come back as damage where nobody looks.
    for seed in 0..300 {
        let config =
            LogConfig { segment_bytes: 1500, index_interval_bytes: 150, ..LogConfig::default() };
        let mut machine = Machine::new(config);
        let mut log = machine.open();
        for number in 0..5 {
            put(&mut log, &Spec::values(&["value"]).from(0, 0, number));
        }
        log.checkpoint().unwrap();
        for number in 5..7 {
            put(&mut log, &Spec::values(&["value"]).from(0, 0, number));
        }
        machine.disk.crash(Crash::KeepRandom { seed });
        machine.restart();
        let (mut log, _) = machine.try_open(false, 5).expect("the log opens");
        log.roll().unwrap();
        machine.disk.crash(Crash::KeepRandom { seed: seed + 1000 });
        machine.restart();
        let (mut log, recovery) =
            machine.try_open(false, 5).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(!recovery.lost_synced_records, "seed {seed}");
        assert!(records_from(&mut log, 0).len() >= 5, "seed {seed}");
    }
}

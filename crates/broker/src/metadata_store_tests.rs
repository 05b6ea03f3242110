//! Checkpoints while the power fails: at every single step, in every way.

use std::path::Path;
use std::sync::Arc;

use fleuve_metadata::checkpoint::Voter;
use fleuve_metadata::config::BrokerSettings;
use fleuve_metadata::image::Image;
use fleuve_protocol::Str;
use fleuve_protocol::messages::topic_record::TopicRecord;
use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
use fleuve_sim::{Crash, SimClock, SimDisk, SimRandom};
use fleuve_storage::{Append, Limits};
use fleuve_types::{LeaderEpoch, NodeId, TimestampMs, Uuid};

use super::*;

const DIRECTORY: &str = "/data/__cluster_metadata-0";
const NOW_MS: i64 = 1_700_000_000_000;

fn environment(disk: &SimDisk) -> Environment {
    Environment::new(
        Arc::new(disk.clone()),
        Arc::new(SimClock::at(NOW_MS)),
        Arc::new(SimRandom::seeded(1)),
        Limits { tail_cache_bytes: 0, idle_open_files: 8 },
    )
}

/// Small segments, and nothing that is not needed is kept.
fn settings() -> MetadataLogSettings {
    let settings = BrokerSettings::default().metadata_log;
    MetadataLogSettings { segment_bytes: 400, retention_bytes: Some(0), ..settings }
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn reopen(disk: &SimDisk) -> Result<FoundMetadata, MetadataStoreError> {
    open(&environment(disk), disk, DIRECTORY.into(), &settings())
}

fn image(found: &FoundMetadata) -> Image {
    let mut image = Image::new(Str::EMPTY);
    for (_, record) in &found.records {
        image.apply(record).expect("it fits");
    }
    image
}

fn topic(index: u8) -> Record {
    let name = Str::copy_from(&format!("a-topic-with-a-long-name-{index}"));
    TopicRecord { name, topic_id: Uuid([index; 16]) }.into()
}

/// Appends the record of a topic, durably.
fn create(log: &mut Log, index: u8) -> Result<(), LogError> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value = topic(index).encode().expect("it fits");
    let record =
        NewRecord { timestamp: TimestampMs(NOW_MS), value: Some(&value), ..Default::default() };
    builder.append(&record).expect("it fits");
    match log.append(Append::from_coordinator(builder.finish(), LeaderEpoch(1))) {
        Ok(_) => log.flush().map(drop),
        Err(fleuve_storage::AppendError::Log(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

/// After a crash every partition gets another leader epoch, all in one batch.
#[test]
fn a_decision_may_be_as_large_as_it_has_to_be() {
    const RECORDS: usize = 40_000;
    let disk = new_disk();
    let settings = BrokerSettings::default().metadata_log;
    let reopen = || open(&environment(&disk), &disk, DIRECTORY.into(), &settings).expect("a log");
    let value = topic(1).encode().expect("it fits");
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..RECORDS {
        let record =
            NewRecord { timestamp: TimestampMs(NOW_MS), value: Some(&value), ..Default::default() };
        builder.append(&record).expect("it fits");
    }
    let batch = builder.finish();
    assert!(batch.len() > 2 << 20);
    let mut found = reopen();
    found
        .log
        .append(Append::from_coordinator(batch, LeaderEpoch(1)))
        .expect("no size is too large");
    found.log.flush().expect("there is room");
    drop(found);
    assert_eq!(reopen().records.len(), RECORDS);
}

/// Writes a checkpoint of everything and gives up what it replaces.
fn take_checkpoint(disk: &SimDisk, found: &mut FoundMetadata) -> Result<(), MetadataStoreError> {
    let voter = Voter {
        id: NodeId(1),
        directory: Uuid([9; 16]),
        listener: "CONTROLLER".into(),
        host: "localhost".into(),
        port: 9093,
    };
    let end_offset = found.log.log_end_offset();
    let id = CheckpointId { end_offset, epoch: LeaderEpoch(1) };
    let records = image(found);
    let batches = checkpoint::encode(id, records.snapshot(), &voter, TimestampMs(NOW_MS));
    let directory = Path::new(DIRECTORY);
    write(disk, directory, id, &batches.expect("it fits"))?;
    let size = found.log.size()?;
    let (expired, begin) = find_expired(disk, directory, size, &settings(), NOW_MS)?;
    remove(disk, directory, &expired)?;
    if let Some(begin) = begin {
        found.log.delete_records_to(begin)?;
        found.log.enforce_retention(end_offset)?;
    }
    Ok(())
}

/// Two rounds of topics, each with a checkpoint; `acknowledged` counts the topics.
fn work(disk: &SimDisk, acknowledged: &mut u8) -> Result<(), MetadataStoreError> {
    for _ in 0..2 {
        let mut found = reopen(disk)?;
        for _ in 0..6 {
            create(&mut found.log, *acknowledged + 1)?;
            *acknowledged += 1;
            found.records.push((Offset(0), topic(*acknowledged)));
        }
        take_checkpoint(disk, &mut found)?;
    }
    Ok(())
}

#[test]
fn every_topic_survives_a_power_failure_at_every_step() {
    let disk = new_disk();
    let begin = disk.changes();
    work(&disk, &mut 0).expect("nothing fails");
    let steps = disk.changes() - begin;
    assert!(steps > 80, "{steps} steps");
    for step in 0..steps {
        for crash in [Crash::LoseUnsynced, Crash::KeepAll, Crash::KeepRandom { seed: step }] {
            let disk = new_disk();
            disk.fail_power_after(step);
            let mut acknowledged = 0;
            work(&disk, &mut acknowledged).expect_err("the power fails");
            disk.crash(crash);
            let found = reopen(&disk).unwrap_or_else(|error| panic!("{step} {crash:?}: {error}"));
            let image = image(&found);
            let count = image.topics().len();
            // One more may have become durable without anybody being told.
            assert!(
                count == usize::from(acknowledged) || count == usize::from(acknowledged) + 1,
                "{step} {crash:?}: {count} of {acknowledged}"
            );
            for index in 1..=acknowledged {
                assert!(image.topics().by_id(Uuid([index; 16])).is_some(), "{step}: {index}");
            }
            // And it goes on from there.
            let mut found = found;
            create(&mut found.log, 200).expect("the log takes records");
            found.records.push((Offset(0), topic(200)));
            take_checkpoint(&disk, &mut found).expect("and checkpoints");
            drop(found);
            assert_eq!(reopen(&disk).expect("whole").records.len(), count + 1);
            let left = disk.list(Path::new(DIRECTORY)).expect("there");
            assert!(left.iter().all(|entry| !entry.name.ends_with(PART)), "{left:?}");
        }
    }
}

#[test]
fn the_beginning_goes_and_the_newest_checkpoint_replaces_it() {
    let disk = new_disk();
    let mut acknowledged = 0;
    work(&disk, &mut acknowledged).expect("nothing fails");
    let found = reopen(&disk).expect("whole");
    assert_eq!(image(&found).topics().len(), 12);
    assert!(found.log.log_start_offset().0 > 0, "segments are gone");
    assert_eq!(found.checkpoint.map(|id| id.end_offset), Some(Offset(12)));
    assert_eq!(list(&disk, Path::new(DIRECTORY)).expect("readable").len(), 1);
    assert_eq!(found.bytes_behind, 0);
}

#[test]
fn damage_is_only_forgiven_where_the_log_still_knows() {
    let disk = new_disk();
    let mut found = reopen(&disk).expect("new");
    for index in 1..=3 {
        create(&mut found.log, index).expect("written");
        found.records.push((Offset(0), topic(index)));
    }
    take_checkpoint(&disk, &mut found).expect("written");
    drop(found);
    let newest = |disk: &SimDisk| {
        let ids = list(disk, Path::new(DIRECTORY)).expect("readable");
        Path::new(DIRECTORY).join(ids.last().expect("there").to_string())
    };
    disk.damage(&newest(&disk), |bytes| bytes.truncate(bytes.len() - 1));
    let found = reopen(&disk).expect("the log goes back to its first record");
    assert_eq!((found.checkpoint, image(&found).topics().len()), (None, 3));
    drop(found);

    let disk = new_disk();
    work(&disk, &mut 0).expect("nothing fails");
    disk.damage(&newest(&disk), |bytes| bytes[100] ^= 1);
    let error = reopen(&disk).expect_err("nothing replaces it").to_string();
    assert!(error.contains("cannot be read"), "{error}");
    disk.remove_file(&newest(&disk)).expect("there");
    let error = reopen(&disk).expect_err("nothing replaces it").to_string();
    assert!(error.contains("no checkpoint in"), "{error}");
}

#[test]
fn a_log_that_ends_before_the_checkpoint_begins_anew_behind_it() {
    let disk = new_disk();
    let mut found = reopen(&disk).expect("new");
    create(&mut found.log, 1).expect("written");
    found.records.push((Offset(0), topic(1)));
    drop(found.log);
    let id = CheckpointId { end_offset: Offset(50), epoch: LeaderEpoch(1) };
    let voter = Voter {
        id: NodeId(1),
        directory: Uuid::ZERO,
        listener: Str::EMPTY,
        host: Str::EMPTY,
        port: 0,
    };
    let batches =
        checkpoint::encode(id, [topic(1), topic(2)].into_iter(), &voter, TimestampMs(NOW_MS));
    write(&disk, Path::new(DIRECTORY), id, &batches.expect("it fits")).expect("written");
    let found = reopen(&disk).expect("readable");
    assert_eq!(found.log.log_end_offset(), Offset(50));
    assert_eq!(image(&found).topics().len(), 2);
}

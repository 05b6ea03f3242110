//! What only the simulated disk does: losing, tearing, failing.

use std::path::Path;

use fleuve_os::{Disk, OpenMode};
use fleuve_sim::{Crash, Effect, Fault, Operation, SimDisk};

const PATH: &str = "/dir/file";

fn disk_with_synced_file() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/dir")).unwrap();
    disk.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("/dir")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn content(disk: &SimDisk) -> Vec<u8> {
    disk.read_file(Path::new(PATH)).unwrap().to_vec()
}

#[test]
fn a_crash_takes_unsynced_bytes_and_names() {
    let disk = disk_with_synced_file();
    let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
    file.write_at(&[1; 2000], 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(&[2; 2000], 1000).unwrap();
    file.set_len(10).unwrap();
    disk.open(Path::new("/dir/unsynced"), OpenMode::CreateNew).unwrap();
    disk.rename(Path::new(PATH), Path::new("/dir/renamed")).unwrap();
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(content(&disk), [1; 2000]);
    assert_eq!(disk.list(Path::new("/dir")).unwrap().len(), 1);
    assert!(file.read_at(&mut [0], 0).is_err(), "handles die with the machine");
}

#[test]
fn a_killed_process_loses_nothing() {
    let disk = disk_with_synced_file();
    let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
    file.write_at(b"cached", 0).unwrap();
    disk.rename(Path::new(PATH), Path::new("/dir/renamed")).unwrap();
    disk.crash(Crash::KeepAll);
    assert_eq!(&disk.read_file(Path::new("/dir/renamed")).unwrap()[..], b"cached");
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(content(&disk), b"", "but nothing became durable by it");
}

#[test]
fn torn_writes_break_at_sectors_and_repeat_from_their_seed() {
    let crashed = |seed| {
        let disk = disk_with_synced_file();
        let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
        file.write_at(&[1; 5120], 0).unwrap();
        file.sync_data().unwrap();
        file.write_at(&[2; 5120 - 100], 100).unwrap();
        disk.crash(Crash::KeepRandom { seed });
        content(&disk)
    };
    let mut torn = 0;
    for seed in 0..50 {
        let bytes = crashed(seed);
        assert_eq!(bytes, crashed(seed), "seed {seed}");
        assert_eq!(bytes[..100], [1; 100], "synced bytes stay, seed {seed}");
        let sectors: Vec<&[u8]> =
            std::iter::once(&bytes[100..512]).chain(bytes[512..].chunks(512)).collect();
        assert!(sectors.iter().all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        torn += usize::from(sectors.iter().any(|sector| sector[0] != sectors[0][0]));
    }
    assert!((5..=45).contains(&torn), "{torn} of 50 crashes tore the write");
}

#[test]
fn a_failed_sync_leaves_pages_clean_and_lost() {
    let disk = disk_with_synced_file();
    let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
    file.write_at(b"doomed", 0).unwrap();
    disk.inject(Fault::on(Operation::Sync, Effect::InputOutputError).path("file"));
    assert_eq!(file.sync_data().unwrap_err().source.raw_os_error(), Some(5));
    assert_eq!(content(&disk), b"doomed", "the page cache still shows it");
    file.sync_data().expect("the second sync claims success");
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(content(&disk), b"");
}

#[test]
fn faults_strike_where_and_when_told() {
    let disk = disk_with_synced_file();
    let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
    disk.inject(Fault::on(Operation::Write, Effect::OutOfSpaceAfter(2)).path("file").skip(1));
    disk.inject(Fault::on(Operation::Write, Effect::OutOfSpace).path("elsewhere").always());
    file.write_at(b"first", 0).unwrap();
    assert!(file.write_at(b"second", 5).unwrap_err().is_out_of_space());
    assert_eq!(content(&disk), b"firstse");
    file.write_at(b"third", 5).unwrap();
    assert_eq!(content(&disk), b"firstthird");
}

#[test]
fn a_full_disk_takes_what_fits_and_overwrites_freely() {
    let disk = disk_with_synced_file();
    disk.set_capacity(8);
    let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
    file.write_at(b"12345", 0).unwrap();
    assert!(file.write_at(b"6789", 5).unwrap_err().is_out_of_space());
    assert_eq!(content(&disk), b"12345678");
    file.write_at(b"abcdefgh", 0).unwrap();
    assert_eq!(disk.free_space(Path::new("/")).unwrap(), 0);
    disk.remove_file(Path::new(PATH)).unwrap();
    assert_eq!(disk.free_space(Path::new("/")).unwrap(), 8);
}

#[test]
fn a_planned_power_failure_stops_everything() {
    let disk = disk_with_synced_file();
    let file = disk.open(Path::new(PATH), OpenMode::Write).unwrap();
    disk.fail_power_after(2);
    file.write_at(b"1", 0).unwrap();
    file.sync_data().unwrap();
    assert!(file.write_at(b"2", 1).is_err());
    assert!(disk.open(Path::new(PATH), OpenMode::Read).is_err());
    disk.crash(Crash::KeepAll);
    assert_eq!(content(&disk), b"1");
}

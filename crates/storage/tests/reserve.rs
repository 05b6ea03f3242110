//! Space kept back for the broker itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleuve_os::{Disk, OpenMode};
use fleuve_sim::{Effect, Fault, Operation, SimDisk};
use fleuve_storage::{LogError, SpaceReserve};

const LOG: &str = "/data/words-0";
const MIB: u64 = 1 << 20;

fn disk_of(capacity: u64) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.set_capacity(capacity);
    disk
}

fn reserve_on(disk: &SimDisk, bytes: u64) -> SpaceReserve {
    SpaceReserve::new(Arc::new(disk.clone()), &[PathBuf::from("/data")], bytes)
}

fn fill(disk: &SimDisk, leaving: u64) {
    let file = disk.open(Path::new("/filler"), OpenMode::Create).unwrap();
    file.set_len(0).unwrap();
    let free = disk.free_space(Path::new("/")).unwrap();
    file.write_at(&vec![7; (free - leaving) as usize], 0).unwrap();
}

fn free(disk: &SimDisk) -> u64 {
    disk.free_space(Path::new("/")).unwrap()
}

#[test]
fn a_reserve_is_kept_given_up_and_kept_again() {
    let disk = disk_of(32 * MIB);
    let reserve = reserve_on(&disk, MIB);
    reserve.look();
    assert_eq!(free(&disk), 31 * MIB);
    fill(&disk, 0);
    assert!(reserve.check(Path::new(LOG)).is_ok(), "nobody has noticed yet");
    assert!(reserve.yield_to(Path::new(LOG)), "space was found");
    assert!(!reserve.yield_to(Path::new(LOG)), "but only once");
    assert_eq!(free(&disk), MIB);
    let refused = reserve.check(Path::new(LOG)).unwrap_err();
    assert!(matches!(&refused, LogError::NoSpace { .. }) && refused.is_out_of_space());
    // Enough for the reserve, and none to spare: the next record would fill the disk again.
    fill(&disk, MIB);
    reserve.look();
    assert!(reserve.is_short_anywhere() && reserve.is_short(Path::new("/data")));
    fill(&disk, 2 * MIB);
    reserve.look();
    assert!(reserve.check(Path::new(LOG)).is_ok() && !reserve.is_short_anywhere());
    assert_eq!(free(&disk), MIB);
}

#[test]
fn a_disk_that_others_fill_is_noticed_before_a_write_fails() {
    let disk = disk_of(32 * MIB);
    let reserve = reserve_on(&disk, MIB);
    reserve.look();
    fill(&disk, MIB / 10);
    reserve.look();
    assert!(reserve.check(Path::new(LOG)).is_err());
    assert_eq!(free(&disk), MIB + MIB / 10);
}

#[test]
fn small_volumes_have_small_reserves_and_none_is_kept_unasked() {
    let disk = disk_of(4 * MIB);
    reserve_on(&disk, MIB).look();
    assert_eq!(free(&disk), 4 * MIB - MIB / 4);
    let none = reserve_on(&disk, 0);
    none.look();
    assert_eq!(free(&disk), 4 * MIB, "what an earlier process kept is given back");
    assert!(!none.yield_to(Path::new(LOG)) && none.check(Path::new(LOG)).is_ok());
}

#[test]
fn a_start_on_a_full_disk_has_the_reserve_for_recovery() {
    let disk = disk_of(32 * MIB);
    reserve_on(&disk, MIB).look();
    fill(&disk, 0);
    let reserve = reserve_on(&disk, MIB);
    assert_eq!(free(&disk), MIB);
    reserve.look();
    assert!(reserve.check(Path::new(LOG)).is_err());
}

#[test]
fn other_trouble_is_not_taken_for_a_full_disk() {
    let disk = disk_of(32 * MIB);
    let reserve = reserve_on(&disk, MIB);
    disk.inject(Fault::on(Operation::Open, Effect::InputOutputError).always());
    reserve.look();
    assert!(!reserve.is_short_anywhere());
    disk.clear_faults();
    reserve.look();
    assert_eq!(free(&disk), 31 * MIB);
}

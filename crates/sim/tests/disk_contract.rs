//! One suite for every implementation of the disk traits.

use std::io::IoSlice;
use std::path::Path;

use fleuve_os::{Disk, EntryKind, OpenMode, OsDisk};
use fleuve_sim::SimDisk;

fn on_every_disk(check: impl Fn(&dyn Disk, &Path)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    check(&OsDisk::new(), directory.path());
    let disk = SimDisk::new();
    let root = Path::new("/data/root");
    disk.create_dir_all(root).expect("an empty disk takes directories");
    check(&disk, root);
}

fn content(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    disk.read_file(path).expect("the file is readable").to_vec()
}

#[test]
fn bytes_come_back_where_they_were_put() {
    on_every_disk(|disk, root| {
        let path = root.join("file");
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_vectored_at(&[IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b"two")], 2)
            .unwrap();
        file.write_at(b"N", 3).unwrap();
        assert_eq!(content(disk, &path), b"\0\0oNetwo");
        assert_eq!(file.len().unwrap(), 8);

        let mut buffer = [9; 4];
        assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 2);
        assert_eq!(&buffer, b"wo\x09\x09");
        assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
        assert_eq!(&file.read_bytes_at(5, 100).unwrap()[..], b"two");
        assert_eq!(&file.read_exact_at(2, 3).unwrap()[..], b"oNe");
        let error = file.read_exact_at(5, 4).expect_err("three bytes are there");
        assert!(error.to_string().contains("file"), "{error}");
    });
}

#[test]
fn many_slices_are_written_in_order() {
    on_every_disk(|disk, root| {
        let path = root.join("slices");
        let file = disk.open(&path, OpenMode::Create).unwrap();
        let pieces: Vec<[u8; 2]> = (0..3000u16).map(u16::to_be_bytes).collect();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_vectored_at(&slices, 0).unwrap();
        assert_eq!(content(disk, &path), pieces.concat());
    });
}

#[test]
fn open_modes_say_what_they_mean() {
    on_every_disk(|disk, root| {
        let path = root.join("modes");
        assert!(disk.open(&path, OpenMode::Read).unwrap_err().is_not_found());
        assert!(disk.open(&path, OpenMode::Write).unwrap_err().is_not_found());
        disk.open(&path, OpenMode::Create).unwrap().write_at(b"x", 0).unwrap();
        assert!(disk.open(&path, OpenMode::CreateNew).is_err());
        assert_eq!(disk.open(&path, OpenMode::Create).unwrap().len().unwrap(), 1);
        assert!(disk.open(&path, OpenMode::Read).unwrap().write_at(b"y", 0).is_err());
        disk.open(&path, OpenMode::Write).unwrap().write_at(b"z", 0).unwrap();
        assert_eq!(content(disk, &path), b"z");
        assert!(disk.open(&root.join("no/such"), OpenMode::Create).unwrap_err().is_not_found());
    });
}

#[test]
fn lengths_can_be_set_both_ways() {
    on_every_disk(|disk, root| {
        let path = root.join("length");
        let file = disk.open(&path, OpenMode::Create).unwrap();
        file.write_at(b"abcdef", 0).unwrap();
        file.set_len(2).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(content(disk, &path), b"ab\0\0");
        file.allocate(4, 1 << 16).unwrap();
        assert_eq!(file.len().unwrap(), 4, "a hint does not change the length");
        file.sync_data().unwrap();
        file.sync_all().unwrap();
    });
}

#[test]
fn names_are_listed_renamed_and_removed() {
    on_every_disk(|disk, root| {
        for name in ["b", "a", "c"] {
            disk.open(&root.join(name), OpenMode::Create)
                .unwrap()
                .write_at(name.as_bytes(), 0)
                .unwrap();
        }
        disk.create_dir_all(&root.join("d/e/f")).unwrap();
        disk.create_dir_all(&root.join("d/e")).unwrap();
        disk.rename(&root.join("a"), &root.join("b")).unwrap();
        disk.remove_file(&root.join("c")).unwrap();
        disk.sync_dir(root).unwrap();

        let listed: Vec<(String, EntryKind)> =
            disk.list(root).unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
        let expected = [("b".to_owned(), EntryKind::File), ("d".to_owned(), EntryKind::Directory)];
        assert_eq!(listed, expected);
        assert_eq!(content(disk, &root.join("b")), b"a", "a rename replaces");
        assert!(disk.exists(&root.join("d/e/f")).unwrap());
        assert!(!disk.exists(&root.join("c")).unwrap());

        disk.remove_dir_all(&root.join("d")).unwrap();
        assert!(!disk.exists(&root.join("d/e")).unwrap());
        assert!(disk.remove_file(&root.join("c")).unwrap_err().is_not_found());
        assert!(disk.rename(&root.join("c"), &root.join("x")).unwrap_err().is_not_found());
        assert!(disk.list(&root.join("d")).unwrap_err().is_not_found());
        assert!(disk.remove_dir_all(&root.join("d")).unwrap_err().is_not_found());
    });
}

#[test]
fn open_files_outlive_their_names() {
    on_every_disk(|disk, root| {
        let path = root.join("fleeting");
        let file = disk.open(&path, OpenMode::Create).unwrap();
        file.write_at(b"still here", 0).unwrap();
        disk.rename(&path, &root.join("renamed")).unwrap();
        disk.remove_file(&root.join("renamed")).unwrap();
        assert_eq!(&file.read_exact_at(0, 10).unwrap()[..], b"still here");
    });
}

#[test]
fn whole_files_are_replaced() {
    on_every_disk(|disk, root| {
        let path = root.join("checkpoint");
        disk.replace_file(&path, b"a long first version").unwrap();
        disk.replace_file(&path, b"second").unwrap();
        assert_eq!(content(disk, &path), b"second");
        assert_eq!(disk.list(root).unwrap().len(), 1, "the temporary file is gone");
    });
}

#[test]
fn a_lock_has_one_holder() {
    on_every_disk(|disk, root| {
        let path = root.join(".lock");
        let held = disk.try_lock(&path).unwrap().expect("nobody holds it");
        assert!(disk.try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(disk.try_lock(&path).unwrap().is_some());
    });
}

#[test]
fn free_space_is_known() {
    on_every_disk(|disk, root| {
        let free = disk.free_space(root).unwrap();
        assert!(free > 0 && free <= disk.total_space(root).unwrap());
    });
}

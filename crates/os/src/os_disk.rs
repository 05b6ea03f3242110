//! The operating system's file system behind the [`Disk`] trait.
//!
//! Positional calls go through `rustix`, which offers `pwritev` and reading into uninitialised
//! memory without unsafe code of our own; the standard library has neither.

use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, FlockOperation};

use crate::disk::{Disk, DiskError, DiskLock, DiskResult, Entry, EntryKind, File, OpenMode};

/// Linux takes at most this many slices in one `pwritev`.
const SLICES_PER_WRITE_MAX: usize = 1024;

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl OsDisk {
    /// Makes a door to the file system of the machine.
    pub fn new() -> Self {
        Self
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::Create => options.write(true).create(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        let file = options.open(path).map_err(|error| DiskError::new("open", path, error))?;
        Ok(Arc::new(OsFile { file, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::rename(from, to).map_err(|error| DiskError::new("rename", from, error))
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        fs::remove_file(path).map_err(|error| DiskError::new("remove", path, error))
    }

    fn list(&self, directory: &Path) -> DiskResult<Vec<Entry>> {
        let failed = |error| DiskError::new("list", directory, error);
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let mut file_type = entry.file_type().map_err(failed)?;
            if file_type.is_symlink() {
                // Operators move directories to other disks and leave links behind.
                match fs::metadata(entry.path()) {
                    Ok(metadata) => file_type = metadata.file_type(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(DiskError::new("inspect", entry.path(), error)),
                }
            }
            let kind = match (file_type.is_file(), file_type.is_dir()) {
                (true, _) => EntryKind::File,
                (_, true) => EntryKind::Directory,
                _ => EntryKind::Other,
            };
            entries.push(Entry { name, kind });
        }
        entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn create_dir_all(&self, directory: &Path) -> DiskResult<()> {
        fs::create_dir_all(directory)
            .map_err(|error| DiskError::new("create directory", directory, error))
    }

    fn remove_dir_all(&self, directory: &Path) -> DiskResult<()> {
        fs::remove_dir_all(directory)
            .map_err(|error| DiskError::new("remove directory", directory, error))
    }

    fn sync_dir(&self, directory: &Path) -> DiskResult<()> {
        // An empty path is what `Path::parent` returns for a bare file name.
        let opened = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        fs::File::open(opened)
            .and_then(|handle| handle.sync_all())
            .map_err(|error| DiskError::new("sync directory", directory, error))
    }

    fn exists(&self, path: &Path) -> DiskResult<bool> {
        path.try_exists().map_err(|error| DiskError::new("inspect", path, error))
    }

    fn free_space(&self, path: &Path) -> DiskResult<u64> {
        let numbers = rustix::fs::statvfs(path)
            .map_err(|error| DiskError::new("measure free space at", path, error.into()))?;
        Ok(numbers.f_bavail.saturating_mul(numbers.f_frsize))
    }

    fn total_space(&self, path: &Path) -> DiskResult<u64> {
        let numbers = rustix::fs::statvfs(path)
            .map_err(|error| DiskError::new("measure the size of", path, error.into()))?;
        Ok(numbers.f_blocks.saturating_mul(numbers.f_frsize))
    }

    fn open_files_max(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }

    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn DiskLock>>> {
        let failed = |error| DiskError::new("lock", path, error);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        // Two locks that do not see each other: `flock` keeps a second Fleuve out, also one in the
        // same process; the record lock is the one that the Java virtual machine takes, and keeps
        // Apache Kafka out.
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(OsLock { _file: file }))),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[derive(Debug)]
struct OsLock {
    _file: fs::File,
}

impl DiskLock for OsLock {}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    path: PathBuf,
}

impl OsFile {
    fn named<T>(&self, operation: &'static str, result: io::Result<T>) -> DiskResult<T> {
        result.map_err(|error| DiskError::new(operation, &self.path, error))
    }
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> DiskResult<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DiskError::new("read", &self.path, error)),
            }
        }
        Ok(filled)
    }

    fn read_bytes_at(&self, position: u64, length: usize) -> DiskResult<Bytes> {
        // Reading into spare capacity saves zeroing what the kernel overwrites anyway.
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(length).map_err(|error| {
            DiskError::new("read", &self.path, io::Error::new(io::ErrorKind::OutOfMemory, error))
        })?;
        while buffer.len() < length {
            let next = position + buffer.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut buffer), next) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(DiskError::new("read", &self.path, error.into())),
            }
        }
        // The allocator may have given more capacity than asked for.
        buffer.truncate(length);
        Ok(Bytes::from(buffer))
    }

    fn write_vectored_at(&self, slices: &[IoSlice<'_>], position: u64) -> DiskResult<()> {
        let failed = |error| DiskError::new("write", &self.path, error);
        let mut slices: Vec<IoSlice<'_>> =
            slices.iter().filter(|slice| !slice.is_empty()).copied().collect();
        let mut remaining = slices.as_mut_slice();
        let mut position = position;
        while !remaining.is_empty() {
            let count = remaining.len().min(SLICES_PER_WRITE_MAX);
            match rustix::io::pwritev(&self.file, &remaining[..count], position) {
                Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut remaining, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> DiskResult<()> {
        self.named("write", self.file.write_all_at(bytes, position))
    }

    fn sync_data(&self) -> DiskResult<()> {
        self.named("sync the data of", self.file.sync_data())
    }

    fn sync_all(&self) -> DiskResult<()> {
        self.named("sync", self.file.sync_all())
    }

    fn set_len(&self, length: u64) -> DiskResult<()> {
        self.named("set the length of", self.file.set_len(length))
    }

    fn len(&self) -> DiskResult<u64> {
        self.named("measure", self.file.metadata().map(|metadata| metadata.len()))
    }

    fn modified_ms(&self) -> DiskResult<i64> {
        let modified = self.file.metadata().and_then(|metadata| metadata.modified());
        let since_1970 = self.named("look up the time of", modified)?.duration_since(UNIX_EPOCH);
        // Before 1970 is as good as then.
        Ok(since_1970.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
    }

    fn allocate(&self, position: u64, length: u64) -> DiskResult<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, position, length) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(DiskError::new("allocate space for", &self.path, error.into())),
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(target_os = "linux")]
    fn is_cached(&self, position: u64, length: usize) -> bool {
        use rustix::io::{ReadWriteFlags, preadv2};

        let is_here = |position| {
            let mut byte = [0];
            let mut buffers = [io::IoSliceMut::new(&mut byte)];
            preadv2(&self.file, &mut buffers, position, ReadWriteFlags::NOWAIT) == Ok(1)
        };
        is_here(position) && is_here(position + length.saturating_sub(1) as u64)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

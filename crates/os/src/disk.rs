//! Files and directories as traits, small enough to simulate.
//!
//! What we assume of a disk, and what the simulated one takes away where we assume nothing:
//!
//! - Written bytes are readable at once but durable only after [`File::sync_data`]. Until then a
//!   crash keeps any subset of them, sector by sector.
//! - A created, renamed or removed name is durable only after [`Disk::sync_dir`] on its directory.
//! - After a failed sync nothing is known about the bytes concerned: the operating system marks the
//!   pages clean, and a second sync would report success without having written them. Callers
//!   must not retry and trust.
//!
//! Interrupted and short transfers are the implementation's business: a call either transfers
//! everything (a read stops early only at the end of the file) or fails.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

/// What a disk operation returns.
pub type DiskResult<T> = Result<T, DiskError>;

/// Reports which operation on which path failed, and how.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`: {source}", path.display())]
pub struct DiskError {
    /// What was attempted, as a verb phrase: "open", "sync the data of".
    pub operation: &'static str,
    /// The file or directory concerned.
    pub path: PathBuf,
    /// The operating system's answer.
    pub source: io::Error,
}

impl DiskError {
    /// Names the operation and the path that an I/O error belongs to.
    pub fn new(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { operation, path: path.into(), source }
    }

    /// Reports whether the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Reports whether the disk, or the user's quota on it, is full.
    pub fn is_out_of_space(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }
}

impl DiskError {
    /// Reports whether the process, or the whole system, has as many files open as it may.
    pub fn is_out_of_descriptors(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(EMFILE | ENFILE))
    }

    /// Reports whether the disk is in order and only something has run out, space or descriptors,
    /// that may be there again at any moment.
    pub fn is_passing(&self) -> bool {
        self.is_out_of_space() || self.is_out_of_descriptors()
    }
}

/// Too many files are open in the system.
const ENFILE: i32 = 23;
/// Too many files are open in the process.
const EMFILE: i32 = 24;

/// How [`Disk::open`] treats a file that exists or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// The file, created empty when it does not exist, for reading and writing.
    Create,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a socket, a device, a dangling link.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name without its directory.
    pub name: String,
    /// What the name stands for.
    pub kind: EntryKind,
}

/// An open file, read and written at positions that the caller keeps.
pub trait File: Send + Sync + fmt::Debug {
    /// Fills `buffer` from `position` on and returns how much was read; less only at the end of the
    /// file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> DiskResult<usize>;

    /// Reads up to `length` bytes from `position` on; fewer only at the end of the file.
    fn read_bytes_at(&self, position: u64, length: usize) -> DiskResult<Bytes> {
        let mut buffer = vec![0; length];
        let read = self.read_at(&mut buffer, position)?;
        buffer.truncate(read);
        Ok(Bytes::from(buffer))
    }

    /// Reads exactly `length` bytes from `position` on; a shorter file is an error.
    fn read_exact_at(&self, position: u64, length: usize) -> DiskResult<Bytes> {
        let bytes = self.read_bytes_at(position, length)?;
        if bytes.len() < length {
            let source = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{length} bytes wanted at {position}, {} there", bytes.len()),
            );
            return Err(DiskError::new("read", self.path(), source));
        }
        Ok(bytes)
    }

    /// Writes all of `slices`, one after the other, from `position` on.
    ///
    /// On an error any part of them may have been written.
    fn write_vectored_at(&self, slices: &[IoSlice<'_>], position: u64) -> DiskResult<()>;

    /// Writes all of `bytes` from `position` on.
    fn write_at(&self, bytes: &[u8], position: u64) -> DiskResult<()> {
        self.write_vectored_at(&[IoSlice::new(bytes)], position)
    }

    /// Makes the written bytes, and the length needed to read them, durable.
    fn sync_data(&self) -> DiskResult<()>;

    /// Makes the written bytes and all metadata durable.
    fn sync_all(&self) -> DiskResult<()>;

    /// Cuts or extends (with zeros) the file to `length`.
    fn set_len(&self, length: u64) -> DiskResult<()>;

    /// Returns the length of the file.
    fn len(&self) -> DiskResult<u64>;

    /// Reports whether the file is empty.
    fn is_empty(&self) -> DiskResult<bool> {
        Ok(self.len()? == 0)
    }

    /// Returns when the file was last written or its length changed, in milliseconds since 1970.
    fn modified_ms(&self) -> DiskResult<i64>;

    /// Asks for disk space from `position` on without changing the length; a hint that file
    /// systems without the ability ignore.
    fn allocate(&self, position: u64, length: u64) -> DiskResult<()>;

    /// Returns the path the file was opened under.
    fn path(&self) -> &Path;

    /// Guesses whether `length` bytes from `position` on can be read without waiting for the disk,
    /// from where the first and the last of them are.
    fn is_cached(&self, _position: u64, _length: usize) -> bool {
        false
    }

    /// Returns the system's descriptor of the file, for the system to send from; `None` if the file
    /// is not one of the system's.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A held advisory lock; dropping it lets go.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// A file system.
///
/// ```
/// use std::path::Path;
/// use fleuve_os::{Disk, OpenMode, OsDisk};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("greeting");
/// let disk = OsDisk::new();
/// let file = disk.open(&path, OpenMode::CreateNew)?;
/// file.write_at(b"hello", 0)?;
/// file.sync_data()?;
/// disk.sync_dir(path.parent().expect("a file has a directory"))?;
/// assert_eq!(&disk.read_file(&path)?[..], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn File>>;

    /// Gives `from` the name `to`, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> DiskResult<()>;

    /// Lists a directory, sorted by name; names that are not UTF-8 are left out, because we never
    /// make one.
    fn list(&self, directory: &Path) -> DiskResult<Vec<Entry>>;

    /// Makes a directory and its missing ancestors.
    fn create_dir_all(&self, directory: &Path) -> DiskResult<()>;

    /// Removes a directory with all it holds.
    fn remove_dir_all(&self, directory: &Path) -> DiskResult<()>;

    /// Makes the names in `directory` durable.
    fn sync_dir(&self, directory: &Path) -> DiskResult<()>;

    /// Reports whether a file or directory of that name exists.
    fn exists(&self, path: &Path) -> DiskResult<bool>;

    /// Returns the bytes still free for us on the file system that holds `path`.
    fn free_space(&self, path: &Path) -> DiskResult<u64>;

    /// Returns the bytes of the file system that holds `path`, free or not.
    fn total_space(&self, path: &Path) -> DiskResult<u64>;

    /// Returns how many files, sockets included, the process may have open at a time; `None` when
    /// nothing limits it.
    fn open_files_max(&self) -> Option<u64> {
        None
    }

    /// Takes an exclusive advisory lock on the file `path`, creating it when missing; `None` when
    /// somebody else holds it.
    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn DiskLock>>>;

    /// Reads a whole file.
    fn read_file(&self, path: &Path) -> DiskResult<Bytes> {
        let file = self.open(path, OpenMode::Read)?;
        let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        file.read_bytes_at(0, length)
    }

    /// Replaces the whole file `path` so that a crash leaves either the old or the new content.
    ///
    /// The content goes to `<path>.tmp`, which is synced, renamed, and made durable by syncing the
    /// directory: Kafka's checkpoints use the same steps and the same suffix.
    fn replace_file(&self, path: &Path, content: &[u8]) -> DiskResult<()> {
        self.replace_file_unsynced_dir(path, content)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Does what [`Disk::replace_file`] does but leaves syncing the directory to the caller, who
    /// replaces several files of one directory.
    fn replace_file_unsynced_dir(&self, path: &Path, content: &[u8]) -> DiskResult<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = self.open(&temporary, OpenMode::Create)?;
        file.set_len(0)?;
        file.write_at(content, 0)?;
        file.sync_all()?;
        self.rename(&temporary, path)
    }
}

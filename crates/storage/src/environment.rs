//! What all logs of a process share: the world, and the caches with their limits.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use fleuve_os::{Clock, Disk, DiskError, DiskResult, File, OpenMode, Random};
use parking_lot::Mutex;

use crate::tail_cache::TailCache;

/// What all logs of a process share.
#[derive(Clone, Debug)]
pub struct Environment {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) tail_cache: Arc<TailCache>,
    pub(crate) open_files: Arc<OpenFiles>,
    pub(crate) deletions: Arc<Deletions>,
}

/// How much memory and how many file handles all logs together may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of recently appended records kept in memory for consumers at the tail.
    pub tail_cache_bytes: usize,
    /// Files kept open although nothing is written to them at the moment. As many more are kept
    /// open while their last writes wait for a flush.
    pub idle_open_files: usize,
}

impl Limits {
    /// Leaves most of the files that the process may have open to others, its connections above
    /// all.
    pub fn within(open_files_max: Option<u64>) -> Self {
        /// Logs take this part for idle files, and as much again for unflushed ones.
        const PART: u64 = 8;
        const IDLE_MIN: u64 = 16;
        let usual = Self::default();
        let part = open_files_max.map_or(u64::MAX, |max| (max / PART).max(IDLE_MIN));
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        Self { idle_open_files: usual.idle_open_files.min(part), ..usual }
    }

    /// Returns how many files all logs together keep open, those not counted that are in use for
    /// the length of a single call.
    pub fn open_files(&self) -> usize {
        self.idle_open_files.saturating_mul(2)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { tail_cache_bytes: 16 << 20, idle_open_files: 1024 }
    }
}

impl Environment {
    /// Joins the world with fresh caches.
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        limits: Limits,
    ) -> Self {
        Self {
            disk,
            clock,
            random,
            tail_cache: Arc::new(TailCache::new(limits.tail_cache_bytes)),
            open_files: Arc::new(OpenFiles::new(limits.idle_open_files)),
            deletions: Arc::new(Deletions::default()),
        }
    }

    /// Removes the files and directories whose deletion delay is over.
    ///
    /// A deletion that fails is tried again later; the first error is returned.
    ///
    /// Logs only rename what they delete: readers may still be at work in it, and removing a large
    /// file takes a while that nobody should spend under a partition's lock.
    pub fn remove_deleted_files(&self) -> Result<(), DiskError> {
        let now_ms = self.clock.wall_ms();
        let mut first_error = None;
        for doomed in self.deletions.take_due(now_ms) {
            let removed = match &doomed {
                Doomed::File(path) => self.disk.remove_file(path),
                Doomed::Directory(path) => self.disk.remove_dir_all(path),
            };
            match removed {
                Ok(()) => {}
                // Gone with its directory, when the whole topic was deleted meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    self.deletions.add(now_ms.saturating_add(DELETION_RETRY_MS), doomed);
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// After this a deletion that failed is tried again.
const DELETION_RETRY_MS: i64 = 60_000;

/// Keeps files open between uses, up to a limit.
///
/// Whoever uses a file holds a [`FileHandle`], which only remembers it weakly: when the cache drops
/// the file, the next use opens it again. With thousands of partitions that is what keeps the
/// number of descriptors bounded; a log with unflushed writes holds its file strongly besides, if
/// it gets a [`Holding`].
#[derive(Debug)]
pub(crate) struct OpenFiles {
    limit: usize,
    held: Mutex<VecDeque<Arc<dyn File>>>,
    /// Logs that hold files besides, because of unflushed writes.
    holders: AtomicUsize,
}

/// The right of a log to keep the file open that it writes to, until that is flushed.
#[derive(Debug)]
pub(crate) struct Holding {
    open_files: Arc<OpenFiles>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.open_files.holders.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OpenFiles {
    fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), held: Mutex::default(), holders: AtomicUsize::new(0) }
    }

    /// Gives a log the right to hold a file, unless enough others do.
    pub(crate) fn holding(self: &Arc<Self>) -> Option<Holding> {
        let holding = Holding { open_files: Arc::clone(self) };
        (self.holders.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(holding)
    }

    /// Opens a file, if need be with the descriptor of one that is idle.
    pub(crate) fn open(
        &self,
        disk: &dyn Disk,
        path: &Path,
        mode: OpenMode,
    ) -> DiskResult<Arc<dyn File>> {
        match disk.open(path, mode) {
            Err(error) if error.is_out_of_descriptors() => {
                let idle = std::mem::take(&mut *self.held.lock());
                drop(idle);
                disk.open(path, mode)
            }
            opened => opened,
        }
    }

    fn hold(&self, file: Arc<dyn File>) {
        let mut held = self.held.lock();
        held.push_back(file);
        let surplus = if held.len() > self.limit { held.pop_front() } else { None };
        drop(held);
        // Closing may be slow and happens outside the lock.
        drop(surplus);
    }

    fn forget(&self, file: &Arc<dyn File>) {
        self.held.lock().retain(|held| !Arc::ptr_eq(held, file));
    }
}

/// A file that is opened when needed.
#[derive(Debug)]
pub(crate) struct FileHandle {
    path: PathBuf,
    file: Option<Weak<dyn File>>,
}

impl FileHandle {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the existing file, opening it if need be.
    pub(crate) fn open(&mut self, environment: &Environment) -> DiskResult<Arc<dyn File>> {
        self.open_with(environment, OpenMode::Write)
    }

    /// Returns the file, making it if need be.
    pub(crate) fn create(&mut self, environment: &Environment) -> DiskResult<Arc<dyn File>> {
        self.open_with(environment, OpenMode::Create)
    }

    fn open_with(
        &mut self,
        environment: &Environment,
        mode: OpenMode,
    ) -> DiskResult<Arc<dyn File>> {
        if let Some(file) = self.file.as_ref().and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = environment.open_files.open(&*environment.disk, &self.path, mode)?;
        self.file = Some(Arc::downgrade(&file));
        environment.open_files.hold(file.clone());
        Ok(file)
    }

    /// Closes the file, as far as we hold it: a deleted file takes space until it is closed.
    pub(crate) fn close(&mut self, environment: &Environment) {
        if let Some(file) = self.file.take().and_then(|file| file.upgrade()) {
            environment.open_files.forget(&file);
        }
    }
}

#[derive(Debug)]
pub(crate) enum Doomed {
    File(PathBuf),
    Directory(PathBuf),
}

/// Renamed files and directories, each with the time when it may go.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    waiting: Mutex<Vec<(i64, Doomed)>>,
}

impl Deletions {
    pub(crate) fn add(&self, due_ms: i64, doomed: Doomed) {
        self.waiting.lock().push((due_ms, doomed));
    }

    fn take_due(&self, now_ms: i64) -> Vec<Doomed> {
        let mut waiting = self.waiting.lock();
        waiting.extract_if(.., |(due_ms, _)| *due_ms <= now_ms).map(|(_, doomed)| doomed).collect()
    }
}

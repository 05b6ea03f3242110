//! A little space kept back in each data directory, for what a broker must still write when the
//! disk is full: committed offsets, ends of transactions, metadata, checkpoints.
//!
//! ```text
//! .fleuve-reserve     as long as the reserve, its blocks allocated
//!
//!            disk full, or nearly                  room again for the reserve and some more
//!   kept ───────────────────────────► given up ──────────────────────────────────────────► kept
//!                                     clients' records are refused
//! ```
//!
//! The file is removed when a write finds no space, so that what it held is there for those who
//! write next; and because clients' records are refused from then on, these are the broker's own.
//! Several directories on one volume each keep a reserve. When the first gives up its own, clients
//! of the others may use that, but not what the others keep.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fleuve_os::{Disk, DiskResult, OpenMode};
use parking_lot::Mutex;

use crate::error::LogError;

/// The file that takes up the space.
const RESERVE: &str = ".fleuve-reserve";
/// A reserve takes at most this part of a volume.
const VOLUME_PART: u64 = 16;
/// With less than this part of the reserve free, the disk counts as full: programs beside us fill
/// it without asking.
const SHORT_PART: u64 = 8;
/// The reserve is kept again once there is room for it and this part of it besides. More than what
/// counts as full, so that the first record that is taken again does not fill the disk.
const SPARE_PART: u64 = 4;

/// The reserves of all data directories.
#[derive(Debug)]
pub struct SpaceReserve {
    disk: Arc<dyn Disk>,
    bytes_max: u64,
    reserves: Vec<Reserve>,
    /// How many are given up: appends look at this one number.
    given_up: AtomicUsize,
}

#[derive(Debug)]
struct Reserve {
    directory: PathBuf,
    is_given_up: AtomicBool,
    /// Held while the file is made or removed.
    change: Mutex<()>,
}

impl SpaceReserve {
    /// Names the reserves of `directories`, each of `bytes_max` or less on small volumes; zero
    /// keeps nothing back. What an earlier process kept back is given up where it is needed now,
    /// so that logs can be recovered on a full disk.
    pub fn new(disk: Arc<dyn Disk>, directories: &[PathBuf], bytes_max: u64) -> Self {
        let reserves = directories.iter().map(|directory| Reserve {
            directory: directory.clone(),
            is_given_up: AtomicBool::new(false),
            change: Mutex::default(),
        });
        let reserve =
            Self { disk, bytes_max, reserves: reserves.collect(), given_up: AtomicUsize::new(0) };
        for kept in &reserve.reserves {
            let is_short = reserve.free(kept).is_ok_and(|(free, bytes)| free < bytes / SHORT_PART);
            if is_short && bytes_max > 0 {
                reserve.give_up(kept);
            } else if bytes_max == 0 {
                // The directory may not even be there; who claims it says so.
                let _ = reserve.disk.remove_file(&kept.file());
            }
        }
        reserve
    }

    /// Looks at the space of all directories and keeps or gives up their reserves accordingly. To be
    /// called every now and then, and once the directories are claimed.
    pub fn look(&self) {
        if self.bytes_max == 0 {
            return;
        }
        for reserve in &self.reserves {
            // A directory that cannot be measured is in other trouble.
            let Ok((free, bytes)) = self.free(reserve) else { continue };
            if reserve.is_given_up.load(Ordering::Acquire) {
                self.keep_again(reserve, free, bytes);
            } else {
                let kept = self.keep(reserve, free, bytes);
                // What else may go wrong is not about space.
                let is_full = kept.is_err_and(|error| error.is_out_of_space());
                if is_full || free < bytes / SHORT_PART {
                    self.give_up(reserve);
                }
            }
        }
    }

    /// Gives up the reserve of the directory that holds `log`, because a write found no space;
    /// reports whether that has freed any, so that trying again makes sense.
    pub fn yield_to(&self, log: &Path) -> bool {
        self.of(log).is_some_and(|reserve| self.bytes_max > 0 && self.give_up(reserve))
    }

    /// Refuses clients' records for `log` while its directory has given up its reserve.
    pub fn check(&self, log: &Path) -> Result<(), LogError> {
        let is_short = |reserve: &Reserve| reserve.is_given_up.load(Ordering::Acquire);
        match self.is_short_anywhere() && self.of(log).is_some_and(is_short) {
            false => Ok(()),
            true => Err(LogError::NoSpace { directory: log.parent().unwrap_or(log).to_owned() }),
        }
    }

    /// Reports whether any directory has given up its reserve.
    pub fn is_short_anywhere(&self) -> bool {
        self.given_up.load(Ordering::Acquire) > 0
    }

    /// Reports whether the data directory `path` has given up its reserve.
    pub fn is_short(&self, path: &Path) -> bool {
        let known = self.reserves.iter().find(|reserve| reserve.directory == path);
        known.is_some_and(|reserve| reserve.is_given_up.load(Ordering::Acquire))
    }

    fn of(&self, log: &Path) -> Option<&Reserve> {
        let parent = log.parent()?;
        self.reserves.iter().find(|reserve| reserve.directory == parent)
    }

    /// What is free, and what the reserve should be.
    fn free(&self, reserve: &Reserve) -> DiskResult<(u64, u64)> {
        let free = self.disk.free_space(&reserve.directory)?;
        let total = self.disk.total_space(&reserve.directory)?;
        Ok((free, self.bytes_max.min(total / VOLUME_PART)))
    }

    fn keep_again(&self, reserve: &Reserve, free: u64, bytes: u64) {
        if free < bytes + bytes / SPARE_PART || self.keep(reserve, free, bytes).is_err() {
            return;
        }
        if reserve.is_given_up.swap(false, Ordering::AcqRel) {
            self.given_up.fetch_sub(1, Ordering::AcqRel);
            tracing::info!(
                directory = %reserve.directory.display(),
                "there is room again: clients' records are taken"
            );
        }
    }

    /// Sees to it that the file is there and has its blocks.
    fn keep(&self, reserve: &Reserve, free: u64, bytes: u64) -> DiskResult<()> {
        let _change = reserve.change.lock();
        let path = reserve.file();
        let held = match self.disk.open(&path, OpenMode::Read) {
            Ok(file) => file.len()?,
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error),
        };
        if held == bytes {
            return Ok(());
        }
        if free.saturating_add(held) < bytes {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(fleuve_os::DiskError::new("reserve space with", path, full));
        }
        let kept = self.disk.open(&path, OpenMode::Create).and_then(|file| {
            file.set_len(bytes)?;
            file.allocate(0, bytes)
        });
        if kept.is_err() {
            let _ = self.disk.remove_file(&path);
        }
        kept
    }

    /// Removes the file and refuses clients' records; reports whether there was a file.
    fn give_up(&self, reserve: &Reserve) -> bool {
        let _change = reserve.change.lock();
        if !reserve.is_given_up.swap(true, Ordering::AcqRel) {
            self.given_up.fetch_add(1, Ordering::AcqRel);
            tracing::warn!(
                directory = %reserve.directory.display(),
                "the disk is full: clients' records are refused until there is room; the reserve \
                 goes to what the broker itself must write"
            );
        }
        match self.disk.remove_file(&reserve.file()) {
            Ok(()) => true,
            Err(error) => {
                if !error.is_not_found() {
                    tracing::warn!(%error, "the reserve cannot be given up");
                }
                false
            }
        }
    }
}

impl Reserve {
    fn file(&self) -> PathBuf {
        self.directory.join(RESERVE)
    }
}

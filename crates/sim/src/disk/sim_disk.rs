//! The simulated disk behind the [`Disk`] and [`File`] traits.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleuve_os::{Disk, DiskError, DiskLock, DiskResult, Entry, EntryKind, File, OpenMode};
use parking_lot::{Condvar, Mutex};

use super::fault::{Effect, Fault, Operation, strike};
use super::tree::{Crash, DirChange, FileChange, FileNode, Node, NodeId, Tree};

const CAPACITY_DEFAULT: u64 = 1 << 40;

/// A disk in memory; clones share it.
///
/// ```
/// use std::path::Path;
/// use fleuve_os::{Disk, OpenMode};
/// use fleuve_sim::{Crash, SimDisk};
///
/// let disk = SimDisk::new();
/// let path = Path::new("/journal");
/// let file = disk.open(path, OpenMode::CreateNew)?;
/// disk.sync_dir(Path::new("/"))?;
/// file.write_at(b"kept", 0)?;
/// file.sync_data()?;
/// file.write_at(b"lost", 4)?;
/// disk.crash(Crash::LoseUnsynced);
/// assert_eq!(&disk.read_file(path)?[..], b"kept");
/// # Ok::<(), fleuve_os::DiskError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    faults: Vec<Fault>,
    holds: Vec<Arc<Hold>>,
    capacity: u64,
    locked: HashSet<PathBuf>,
    /// Counts crashes: handles from before one are dead.
    boot: u64,
    /// Changes left before the power fails, when a failure is planned.
    changes_until_power_failure: Option<u64>,
    changes: u64,
    syncs: u64,
    /// The time at which files are changed.
    now_ms: i64,
}

/// Syncs that do not end; see [`SimDisk::hold_syncs`].
#[derive(Debug)]
pub struct HeldSyncs {
    disk: SimDisk,
    hold: Arc<Hold>,
}

#[derive(Debug, Default)]
struct Hold {
    part: String,
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    waiting: usize,
    is_over: bool,
}

impl HeldSyncs {
    /// Waits until so many syncs have begun.
    pub fn wait_for(&self, count: usize) {
        let mut held = self.hold.held.lock();
        while held.waiting < count {
            self.hold.changed.wait(&mut held);
        }
    }
}

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        self.disk.state.lock().holds.retain(|hold| !Arc::ptr_eq(hold, &self.hold));
        self.hold.held.lock().is_over = true;
        self.hold.changed.notify_all();
    }
}

impl SimDisk {
    /// Makes an empty disk.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                tree: Tree::new(),
                faults: Vec::new(),
                holds: Vec::new(),
                capacity: CAPACITY_DEFAULT,
                locked: HashSet::new(),
                boot: 0,
                changes_until_power_failure: None,
                changes: 0,
                syncs: 0,
                now_ms: i64::MAX,
            })),
        }
    }

    /// Fails the power and boots again: unsynced state is lost as `crash` says, open files and
    /// locks are gone, planned faults and power failures are forgotten.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state.lock();
        state.tree.crash(crash);
        state.boot += 1;
        state.locked.clear();
        state.faults.clear();
        state.changes_until_power_failure = None;
    }

    /// Plans a power failure: `changes` more writes, syncs and changes of names succeed, then
    /// every operation fails until [`SimDisk::crash`].
    pub fn fail_power_after(&self, changes: u64) {
        self.state.lock().changes_until_power_failure = Some(changes);
    }

    /// Injects an error.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Lets syncs of files whose path contains `part` begin and not end until the returned hold is
    /// dropped; everything else goes on.
    pub fn hold_syncs(&self, part: impl Into<String>) -> HeldSyncs {
        let hold = Arc::new(Hold { part: part.into(), ..Hold::default() });
        self.state.lock().holds.push(Arc::clone(&hold));
        HeldSyncs { disk: self.clone(), hold }
    }

    /// Waits while somebody holds syncs of `path`.
    fn wait_for_holds(&self, path: &Path) {
        let path = path.to_string_lossy();
        let hold = {
            let state = self.state.lock();
            state.holds.iter().find(|hold| path.contains(&hold.part)).cloned()
        };
        // Outside the lock: the disk serves others meanwhile.
        if let Some(hold) = hold {
            let mut held = hold.held.lock();
            held.waiting += 1;
            hold.changed.notify_all();
            while !held.is_over {
                hold.changed.wait(&mut held);
            }
        }
    }

    /// Forgets the injected errors that have not struck.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Limits the sum of all file lengths.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = bytes;
    }

    /// Makes an independent copy of the disk as it is now, unsynced state included.
    pub fn fork(&self) -> Self {
        let state = self.state.lock();
        Self {
            state: Arc::new(Mutex::new(State {
                tree: state.tree.clone(),
                faults: Vec::new(),
                holds: Vec::new(),
                capacity: state.capacity,
                locked: HashSet::new(),
                boot: 0,
                changes_until_power_failure: None,
                changes: 0,
                syncs: 0,
                now_ms: state.now_ms,
            })),
        }
    }

    /// Says what time it is for files that change from now on; until it is told, each is as young as
    /// can be.
    pub fn set_time_ms(&self, now_ms: i64) {
        self.state.lock().now_ms = now_ms;
    }

    /// Damages a file behind everybody's back, in the cache and on the medium.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn damage(&self, path: &Path, damage: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let node = state.tree.find(path).expect("the file to damage exists");
        let file = state.tree.file(node).expect("the thing to damage is a file");
        file.sync();
        damage(&mut file.content);
        file.durable.clone_from(&file.content);
    }

    /// Returns how many bytes a file was given behind its end.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn allocated_ahead(&self, path: &Path) -> u64 {
        let mut state = self.state.lock();
        let node = state.tree.find(path).expect("the file exists");
        let file = state.tree.file(node).expect("it is a file");
        file.allocated.saturating_sub(file.content.len() as u64)
    }

    /// Returns how many writes, syncs and changes of names there were.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Returns how many syncs of files there were.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    fn with<T>(
        &self,
        doing: &'static str,
        path: &Path,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> DiskResult<T> {
        act(&mut self.state.lock()).map_err(|error| DiskError::new(doing, path, error))
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Lets a read pass, unless the power is off or a fault strikes.
    fn permit(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.changes_until_power_failure == Some(0) {
            return Err(io::Error::other("the power has failed"));
        }
        match strike(&mut self.faults, operation, path) {
            None => Ok(()),
            Some(effect) => Err(effect.error()),
        }
    }

    /// Counts a change, and fails it when the power is off.
    fn count_change(&mut self) -> io::Result<()> {
        match &mut self.changes_until_power_failure {
            Some(0) => return Err(io::Error::other("the power has failed")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.changes += 1;
        Ok(())
    }

    fn permit_change(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        self.count_change()?;
        match strike(&mut self.faults, operation, path) {
            None => Ok(()),
            Some(effect) => Err(effect.error()),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn File>> {
        let (node, boot) = self.with("open", path, |state| {
            state.permit(Operation::Open, path)?;
            let (parent, name) = state.tree.find_parent(path)?;
            let existing = state.tree.dir(parent)?.entries.get(&name).copied();
            let node = match (existing, mode) {
                (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
                (Some(node), _) => {
                    state.tree.file(node)?;
                    node
                }
                (None, OpenMode::Read | OpenMode::Write) => {
                    return Err(io::ErrorKind::NotFound.into());
                }
                (None, OpenMode::Create | OpenMode::CreateNew) => {
                    state.count_change()?;
                    let file = FileNode { modified_ms: state.now_ms, ..FileNode::default() };
                    let node = state.tree.add(Node::File(file));
                    state.tree.dir(parent)?.change(DirChange::Link { name, node });
                    node
                }
            };
            Ok((node, state.boot))
        })?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { disk: self.clone(), path: path.to_owned(), node, boot, writable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.with("rename", from, |state| {
            state.permit_change(Operation::Rename, from)?;
            let (from_dir, from) = state.tree.find_parent(from)?;
            let (to_dir, to) = state.tree.find_parent(to)?;
            let node =
                *state.tree.dir(from_dir)?.entries.get(&from).ok_or(io::ErrorKind::NotFound)?;
            if from_dir == to_dir {
                state.tree.dir(from_dir)?.change(DirChange::Rename { from, to });
            } else {
                state.tree.dir(to_dir)?.change(DirChange::Link { name: to, node });
                state.tree.dir(from_dir)?.change(DirChange::Unlink { name: from });
            }
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.with("remove", path, |state| {
            state.permit_change(Operation::Remove, path)?;
            let node = state.tree.find(path)?;
            state.tree.file(node)?;
            let (parent, name) = state.tree.find_parent(path)?;
            state.tree.dir(parent)?.change(DirChange::Unlink { name });
            Ok(())
        })
    }

    fn list(&self, directory: &Path) -> DiskResult<Vec<Entry>> {
        self.with("list", directory, |state| {
            state.permit(Operation::Read, directory)?;
            let node = state.tree.find(directory)?;
            let entries = state.tree.dir(node)?.entries.clone();
            Ok(entries
                .into_iter()
                .map(|(name, node)| {
                    let kind = if state.tree.is_dir(node) {
                        EntryKind::Directory
                    } else {
                        EntryKind::File
                    };
                    Entry { name, kind }
                })
                .collect())
        })
    }

    fn create_dir_all(&self, directory: &Path) -> DiskResult<()> {
        self.with("create directory", directory, |state| {
            state.count_change()?;
            state.tree.create_dir_all(directory)
        })
    }

    fn remove_dir_all(&self, directory: &Path) -> DiskResult<()> {
        self.with("remove directory", directory, |state| {
            state.permit_change(Operation::Remove, directory)?;
            let node = state.tree.find(directory)?;
            state.tree.dir(node)?;
            let (parent, name) = state.tree.find_parent(directory)?;
            state.tree.dir(parent)?.change(DirChange::Unlink { name });
            Ok(())
        })
    }

    fn sync_dir(&self, directory: &Path) -> DiskResult<()> {
        self.with("sync directory", directory, |state| {
            state.permit_change(Operation::SyncDir, directory)?;
            let node = state.tree.find(directory)?;
            state.tree.dir(node)?.sync();
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> DiskResult<bool> {
        self.with("inspect", path, |state| match state.tree.find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
    }

    fn free_space(&self, path: &Path) -> DiskResult<u64> {
        self.with("measure free space at", path, |state| {
            Ok(state.capacity.saturating_sub(state.tree.used()))
        })
    }

    fn total_space(&self, path: &Path) -> DiskResult<u64> {
        self.with("measure the size of", path, |state| Ok(state.capacity))
    }

    fn try_lock(&self, path: &Path) -> DiskResult<Option<Box<dyn DiskLock>>> {
        let file = self.open(path, OpenMode::Create)?;
        let mut state = self.state.lock();
        let (path, boot) = (file.path().to_owned(), state.boot);
        if !state.locked.insert(path.clone()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { disk: self.clone(), path, boot })))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    boot: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        // A lock from before a crash must not take away its successor's.
        if state.boot == self.boot {
            state.locked.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    node: NodeId,
    boot: u64,
    writable: bool,
}

impl SimFile {
    fn with<T>(
        &self,
        doing: &'static str,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> DiskResult<T> {
        self.disk.with(doing, &self.path, |state| {
            if state.boot != self.boot {
                return Err(io::Error::other("the file was opened before a crash"));
            }
            act(state)
        })
    }

    fn with_writable<T>(
        &self,
        doing: &'static str,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> DiskResult<T> {
        self.with(doing, |state| {
            if !self.writable {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            act(state)
        })
    }

    fn sync(&self, doing: &'static str) -> DiskResult<()> {
        self.disk.wait_for_holds(&self.path);
        self.with(doing, |state| {
            state.count_change()?;
            state.syncs += 1;
            let struck = strike(&mut state.faults, Operation::Sync, &self.path);
            let file = state.tree.file(self.node)?;
            match struck {
                None => {
                    file.sync();
                    Ok(())
                }
                Some(effect) => {
                    file.pending.clear();
                    Err(effect.error())
                }
            }
        })
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> DiskResult<usize> {
        self.with("read", |state| {
            state.permit(Operation::Read, &self.path)?;
            let content = &state.tree.file(self.node)?.content;
            let begin = usize::try_from(position).unwrap_or(usize::MAX).min(content.len());
            let length = buffer.len().min(content.len() - begin);
            buffer[..length].copy_from_slice(&content[begin..begin + length]);
            Ok(length)
        })
    }

    fn write_vectored_at(&self, slices: &[IoSlice<'_>], position: u64) -> DiskResult<()> {
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.with_writable("write", |state| {
            state.count_change()?;
            let used = state.tree.used();
            let length = state.tree.file(self.node)?.content.len() as u64;
            let room = state.capacity.saturating_sub(used) + length.saturating_sub(position);
            let mut outcome = match strike(&mut state.faults, Operation::Write, &self.path) {
                None => Ok(()),
                Some(effect) => {
                    let kept = match effect {
                        Effect::OutOfSpaceAfter(kept) => kept,
                        Effect::InputOutputError
                        | Effect::OutOfSpace
                        | Effect::OutOfDescriptors => 0,
                    };
                    bytes.truncate(kept);
                    Err(effect.error())
                }
            };
            if bytes.len() as u64 > room {
                bytes.truncate(room as usize);
                outcome = Err(Effect::OutOfSpace.error());
            }
            if !bytes.is_empty() {
                let position = position as usize;
                let change = FileChange::Write { position, bytes };
                let now_ms = state.now_ms;
                state.tree.file(self.node)?.change(change, now_ms);
            }
            outcome
        })
    }

    fn sync_data(&self) -> DiskResult<()> {
        self.sync("sync the data of")
    }

    fn sync_all(&self) -> DiskResult<()> {
        self.sync("sync")
    }

    fn set_len(&self, length: u64) -> DiskResult<()> {
        self.with_writable("set the length of", |state| {
            state.permit_change(Operation::SetLen, &self.path)?;
            let now_ms = state.now_ms;
            let file = state.tree.file(self.node)?;
            file.change(FileChange::SetLen(length as usize), now_ms);
            file.allocated = 0;
            Ok(())
        })
    }

    fn len(&self) -> DiskResult<u64> {
        self.with("measure", |state| Ok(state.tree.file(self.node)?.content.len() as u64))
    }

    fn modified_ms(&self) -> DiskResult<i64> {
        self.with("look up the time of", |state| Ok(state.tree.file(self.node)?.modified_ms))
    }

    fn allocate(&self, position: u64, length: u64) -> DiskResult<()> {
        self.with_writable("allocate space for", |state| {
            if position + length > state.capacity {
                return Err(Effect::OutOfSpace.error());
            }
            let file = state.tree.file(self.node)?;
            file.allocated = file.allocated.max(position + length);
            Ok(())
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

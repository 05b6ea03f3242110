//! Files and directories, each beside what a crash would leave of it.
//!
//! Invariants:
//!
//! - A file's `content` is what reads see. `durable` plus the `pending` changes, applied in order,
//!   gives `content`, unless a failed sync dropped pending changes: then `content` shows bytes that
//!   no crash will leave.
//! - A directory's `entries` are what lookups see; `durable` plus the `pending` changes gives them.
//! - A directory's changes survive a crash in order, that is a prefix of them: journaling file
//!   systems commit names in order. A file's data has no order at all.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Component, Path};

use fleuve_os::Random;

use crate::SimRandom;

/// The unit in which a disk writes: a crash tears a write at multiples of this.
const SECTOR: usize = 512;

pub(super) type NodeId = u64;
pub(super) const ROOT: NodeId = 0;

/// How much of what was not synced a power failure keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing: neither bytes nor names.
    LoseUnsynced,
    /// A random subset of the sectors written, and in each directory a random number of the changes
    /// made first.
    KeepRandom {
        /// Chooses the subset.
        seed: u64,
    },
    /// Everything, as when the process is killed and the machine lives on. What was not synced
    /// still is not, and the next crash may take it.
    KeepAll,
}

#[derive(Clone, Debug)]
pub(super) enum FileChange {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    pub(super) content: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<FileChange>,
    /// Up to where space has been asked for.
    pub(super) allocated: u64,
    /// When it was changed last.
    pub(super) modified_ms: i64,
}

#[derive(Clone, Debug)]
pub(super) enum DirChange {
    Link { name: String, node: NodeId },
    Unlink { name: String },
    Rename { from: String, to: String },
}

#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) entries: BTreeMap<String, NodeId>,
    pub(super) durable: BTreeMap<String, NodeId>,
    pub(super) pending: Vec<DirChange>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// The whole file system.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: HashMap<NodeId, Node>,
    next_node: NodeId,
}

impl FileNode {
    pub(super) fn change(&mut self, change: FileChange, now_ms: i64) {
        self.modified_ms = now_ms;
        apply_file_change(&mut self.content, &change);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        // Not a copy of `content`: that may show bytes an earlier failed sync gave up.
        for change in self.pending.drain(..) {
            apply_file_change(&mut self.durable, &change);
        }
    }

    fn crash(&mut self, random: Option<&SimRandom>) {
        let pending = std::mem::take(&mut self.pending);
        if let Some(random) = random {
            for change in &pending {
                keep_some_sectors(&mut self.durable, change, random);
            }
        }
        self.content = self.durable.clone();
    }
}

impl DirNode {
    pub(super) fn change(&mut self, change: DirChange) {
        apply_dir_change(&mut self.entries, &change);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        self.durable.clone_from(&self.entries);
        self.pending.clear();
    }

    fn crash(&mut self, random: Option<&SimRandom>) {
        let pending = std::mem::take(&mut self.pending);
        let kept = random.map_or(0, |random| random.below(pending.len() as u64 + 1) as usize);
        for change in &pending[..kept] {
            apply_dir_change(&mut self.durable, change);
        }
        self.entries = self.durable.clone();
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: HashMap::from([(ROOT, Node::Dir(DirNode::default()))]), next_node: ROOT + 1 }
    }

    pub(super) fn add(&mut self, node: Node) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        id
    }

    pub(super) fn file(&mut self, id: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn dir(&mut self, id: NodeId) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn is_dir(&self, id: NodeId) -> bool {
        matches!(self.nodes.get(&id), Some(Node::Dir(_)))
    }

    /// Finds the node that `path` names.
    pub(super) fn find(&mut self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for name in names(path)? {
            node = *self.dir(node)?.entries.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    /// Finds the directory of `path`, and the last name in it.
    pub(super) fn find_parent(&mut self, path: &Path) -> io::Result<(NodeId, String)> {
        let mut names = names(path)?;
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut node = ROOT;
        for name in names {
            node = *self.dir(node)?.entries.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        self.dir(node)?;
        Ok((node, last))
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut node = ROOT;
        for name in names(path)? {
            node = match self.dir(node)?.entries.get(&name) {
                Some(&existing) => existing,
                None => {
                    let made = self.add(Node::Dir(DirNode::default()));
                    self.dir(node)?.change(DirChange::Link { name, node: made });
                    made
                }
            };
        }
        self.dir(node).map(|_| ())
    }

    /// The bytes that all files named in the tree hold.
    pub(super) fn used(&self) -> u64 {
        let mut used = 0;
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            match &self.nodes[&id] {
                Node::Dir(dir) => open.extend(dir.entries.values()),
                Node::File(file) => used += file.content.len() as u64,
            }
        }
        used
    }

    pub(super) fn crash(&mut self, crash: Crash) {
        let random = match crash {
            Crash::KeepAll => return,
            Crash::LoseUnsynced => None,
            Crash::KeepRandom { seed } => Some(SimRandom::seeded(seed)),
        };
        // In the order of ids, so that the same seed gives the same crash.
        let mut ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            match self.nodes.get_mut(&id) {
                Some(Node::File(file)) => file.crash(random.as_ref()),
                Some(Node::Dir(dir)) => dir.crash(random.as_ref()),
                None => {}
            }
        }
    }
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?.to_owned());
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}

fn apply_file_change(content: &mut Vec<u8>, change: &FileChange) {
    match change {
        FileChange::SetLen(length) => content.resize(*length, 0),
        FileChange::Write { position, bytes } => write_over(content, *position, bytes),
    }
}

fn write_over(content: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[position..end].copy_from_slice(bytes);
}

fn keep_some_sectors(durable: &mut Vec<u8>, change: &FileChange, random: &SimRandom) {
    match change {
        FileChange::SetLen(length) => {
            if random.once_in(2) {
                durable.resize(*length, 0);
            }
        }
        FileChange::Write { position, bytes } => {
            // One write in three survives whole, one not at all, one in pieces: with independent
            // sectors only, a large write would practically never survive or vanish.
            let fate = random.below(3);
            let mut begin = 0;
            while begin < bytes.len() {
                let sector_end = ((position + begin) / SECTOR + 1) * SECTOR - position;
                let end = sector_end.min(bytes.len());
                if fate == 0 || (fate == 1 && random.once_in(2)) {
                    write_over(durable, position + begin, &bytes[begin..end]);
                }
                begin = end;
            }
        }
    }
}

fn apply_dir_change(entries: &mut BTreeMap<String, NodeId>, change: &DirChange) {
    match change {
        DirChange::Link { name, node } => {
            entries.insert(name.clone(), *node);
        }
        DirChange::Unlink { name } => {
            entries.remove(name);
        }
        DirChange::Rename { from, to } => {
            if let Some(node) = entries.remove(from) {
                entries.insert(to.clone(), node);
            }
        }
    }
}

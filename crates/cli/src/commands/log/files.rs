//! The files of a partition: what kind they are, and how batches and entries are taken from them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fleuve_metadata::checkpoint::BOOTSTRAP_FILE;
use fleuve_protocol::records::{Batch, BatchHeader, layout};

use crate::decode::Decoder;
use crate::failure::Failure;

/// Replaces directories by the files in them that we can read.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let unreadable = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
        if !path.metadata().map_err(unreadable)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in path.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.path().is_file() && Kind::of(&entry.path()).is_some() {
                inside.push(entry.path());
            }
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    Snapshot,
    Text,
}

impl Kind {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        // Those of the metadata log, in contrast, hold batches: NAME.checkpoint.
        let is_text = name.ends_with("-checkpoint")
            || matches!(name, "partition.metadata" | "meta.properties" | ".kafka_cleanshutdown");
        if is_text {
            return Some(Self::Text);
        }
        match path.extension()?.to_str()? {
            "log" | "checkpoint" => Some(Self::Log),
            "index" => Some(Self::OffsetIndex),
            "timeindex" => Some(Self::TimeIndex),
            "txnindex" => Some(Self::TransactionIndex),
            "snapshot" => Some(Self::Snapshot),
            _ => None,
        }
    }
}

/// How the records of a topic are read, told by the name of the directory that its log lies in.
pub(super) fn decoder_of(path: &Path) -> Option<Decoder> {
    // That of a new cluster lies beside the directories of partitions.
    if path.file_name()? == BOOTSTRAP_FILE {
        return Some(Decoder::Metadata);
    }
    let absolute = std::fs::canonicalize(path).ok()?;
    let directory = absolute.parent()?.file_name()?.to_str()?;
    match directory.rsplit_once('-')?.0 {
        "__consumer_offsets" => Some(Decoder::Coordinator),
        "__transaction_state" => Some(Decoder::Transactions),
        "__share_group_state" => Some(Decoder::Shares),
        "__cluster_metadata" => Some(Decoder::Metadata),
        _ => None,
    }
}

/// Reads the batch at `position` of a file that is `size` bytes long.
pub(super) fn read_batch(file: &File, position: u64, size: u64) -> Result<Batch, String> {
    let available = (size - position).min(layout::HEADER_SIZE as u64) as usize;
    let mut header = vec![0; available];
    file.read_exact_at(&mut header, position).map_err(|error| error.to_string())?;
    let parsed = BatchHeader::parse(&header).map_err(|error| error.to_string())?;
    if parsed.size() as u64 > size - position {
        return Err(format!("a batch of {} bytes is cut off", parsed.size()));
    }
    let mut bytes = vec![0; parsed.size()];
    file.read_exact_at(&mut bytes, position).map_err(|error| error.to_string())?;
    Batch::parse(Bytes::from(bytes)).map_err(|error| error.to_string())
}

/// The offset in a file's name.
pub(super) fn base_offset(path: &Path) -> i64 {
    path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).unwrap_or(0)
}

/// Takes entries while their key rises: a preallocated index ends in zeros.
pub(super) fn rising<T>(
    entries: impl Iterator<Item = T>,
    key: impl Fn(&T) -> i64,
) -> impl Iterator<Item = T> {
    let mut last = None;
    entries.take_while(move |entry| {
        let key = key(entry);
        let rises = last.is_none_or(|last| key > last);
        last = Some(key);
        rises
    })
}

pub(super) fn fields(entry: &[u8; 8]) -> [i32; 2] {
    [i32::from_be_bytes(first(entry, 0)), i32::from_be_bytes(first(entry, 4))]
}

pub(super) fn first<const SIZE: usize>(entry: &[u8], at: usize) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes.copy_from_slice(&entry[at..at + SIZE]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_of_metadata_are_logs_and_others_text() {
        let is = |name: &str, kind| Kind::of(Path::new(name)) == Some(kind);
        assert!(is("00000000000000001234-0000000003.checkpoint", Kind::Log));
        assert!(is("bootstrap.checkpoint", Kind::Log));
        assert!(is("replication-offset-checkpoint", Kind::Text));
        assert!(is("leader-epoch-checkpoint", Kind::Text));
    }
}

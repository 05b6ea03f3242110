//! Kafka's small text files: checkpoints, `partition.metadata`, `meta.properties`.
//!
//! ```text
//! recovery-point-offset-checkpoint,        leader-epoch-checkpoint    partition.metadata
//! log-start-offset-checkpoint
//! cleaner-offset-checkpoint
//! 0                     version            0        version           version: 0
//! 2                     entries            2        entries           topic_id: <22 characters>
//! orders 0 4711         topic partition    0 0      epoch, first
//! orders 1 12             offset           3 815      offset
//! ```
//!
//! Each is replaced as a whole ([`fleuve_os::Disk::replace_file`]), so a crash leaves the old or
//! the new one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;

use fleuve_os::Disk;
use fleuve_types::{TopicPartition, Uuid};

use crate::error::LogError;

/// The name of the file with the offset up to which each log needs no recovery.
pub(crate) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// The name of the file with the first offset of each log that does not begin at a segment.
pub(crate) const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// The name of the file with the offset up to which each log has been compacted.
pub(crate) const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
/// The name of the file with the epochs of a log.
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
/// The name of the file with the id of the topic a log belongs to.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
/// The name of the file that says whose a data directory is.
pub(crate) const META_PROPERTIES: &str = "meta.properties";

const VERSION: &str = "0";

/// Reads an offset checkpoint; a missing file is an empty one.
pub(crate) fn read_offsets(
    disk: &dyn Disk,
    path: &Path,
) -> Result<HashMap<TopicPartition, i64>, LogError> {
    if disk.exists(path)? && disk.read_file(path)?.is_empty() {
        // Kafka makes the files when it starts, and writes into them when there is something.
        return Ok(HashMap::new());
    }
    read_entries(disk, path, |fields| {
        let [topic, partition, offset] = fields else { return None };
        Some((TopicPartition::new(*topic, partition.parse().ok()?), offset.parse().ok()?))
    })
}

/// Formats an offset checkpoint, sorted, so that equal content gives equal files.
pub(crate) fn format_offsets(offsets: &HashMap<TopicPartition, i64>) -> String {
    let mut sorted: Vec<_> = offsets.iter().collect();
    sorted.sort_unstable();
    format_entries(sorted.len(), |text| {
        for (partition, offset) in &sorted {
            let TopicPartition { topic, partition } = partition;
            writeln!(text, "{topic} {partition} {offset}").expect("strings take everything");
        }
    })
}

/// Reads the epochs of a log, each with its first offset; a missing file is an empty one.
pub(crate) fn read_epochs(disk: &dyn Disk, path: &Path) -> Result<Vec<(i32, i64)>, LogError> {
    read_entries(disk, path, |fields| {
        let [epoch, offset] = fields else { return None };
        Some((epoch.parse().ok()?, offset.parse().ok()?))
    })
}

/// Formats the epochs of a log.
pub(crate) fn format_epochs(epochs: &[(i32, i64)]) -> String {
    format_entries(epochs.len(), |text| {
        for (epoch, offset) in epochs {
            writeln!(text, "{epoch} {offset}").expect("strings take everything");
        }
    })
}

/// Reads the topic id of a log; `None` when there is no such file.
pub(crate) fn read_topic_id(disk: &dyn Disk, path: &Path) -> Result<Option<Uuid>, LogError> {
    let Some(text) = read_text(disk, path)? else { return Ok(None) };
    let malformed = |reason: &str| malformed(path, reason);
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim())
    };
    if value("version") != Some(VERSION) {
        return Err(malformed("the version is not 0"));
    }
    let id = value("topic_id").ok_or_else(|| malformed("there is no topic_id"))?;
    Uuid::from_str(id).map(Some).map_err(|error| malformed(&error.to_string()))
}

/// Formats the topic id of a log.
pub(crate) fn format_topic_id(topic_id: Uuid) -> String {
    format!("version: {VERSION}\ntopic_id: {topic_id}")
}

/// Reads a file of `key=value` lines; `None` when there is no such file.
pub(crate) fn read_properties(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Option<HashMap<String, String>>, LogError> {
    let Some(text) = read_text(disk, path)? else { return Ok(None) };
    let mut properties = HashMap::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| malformed(path, &format!("`{line}` is not key=value")))?;
        properties.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(Some(properties))
}

fn read_entries<T, C: FromIterator<T>>(
    disk: &dyn Disk,
    path: &Path,
    parse: impl Fn(&[&str]) -> Option<T>,
) -> Result<C, LogError> {
    let Some(text) = read_text(disk, path)? else { return Ok(C::from_iter([])) };
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some(VERSION) {
        return Err(malformed(path, "the version is not 0"));
    }
    let count = lines.next().and_then(|line| line.trim().parse::<usize>().ok());
    let entries: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    if count != Some(entries.len()) {
        return Err(malformed(path, "the number of lines is not the one given"));
    }
    entries
        .into_iter()
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            parse(&fields).ok_or_else(|| malformed(path, &format!("`{line}` is no entry")))
        })
        .collect()
}

fn format_entries(count: usize, write: impl FnOnce(&mut String)) -> String {
    let mut text = format!("{VERSION}\n{count}\n");
    write(&mut text);
    text
}

fn read_text(disk: &dyn Disk, path: &Path) -> Result<Option<String>, LogError> {
    match disk.read_file(path) {
        Ok(bytes) => String::from_utf8(bytes.into())
            .map(Some)
            .map_err(|_| malformed(path, "it is not UTF-8 text")),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn malformed(path: &Path, reason: &str) -> LogError {
    LogError::Malformed { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use fleuve_sim::SimDisk;

    use super::*;

    fn disk_with(text: &str) -> (SimDisk, PathBuf) {
        let (disk, path) = (SimDisk::new(), PathBuf::from("/checkpoint"));
        disk.replace_file(&path, text.as_bytes()).unwrap();
        (disk, path)
    }

    #[test]
    fn checkpoints_are_kafkas() {
        let text = "0\n2\na-b 1 5\norders 12 4711\n";
        let (disk, path) = disk_with(text);
        let offsets = read_offsets(&disk, &path).unwrap();
        assert_eq!(offsets[&TopicPartition::new("a-b", 1)], 5);
        assert_eq!(format_offsets(&offsets), text);
        assert_eq!(format_epochs(&[(0, 0), (3, 815)]), "0\n2\n0 0\n3 815\n");
        assert_eq!(read_epochs(&disk, Path::new("/missing")).unwrap(), []);
    }

    #[test]
    fn foreign_checkpoints_are_refused_by_name() {
        let (disk, path) = disk_with("");
        assert!(read_offsets(&disk, &path).unwrap().is_empty(), "a file that Kafka has just made");
        for text in ["1\n0\n", "0\n2\na 1 5\n", "0\n1\na 1\n", "0\n1\na b 5\n", "0\nx\n"] {
            let (disk, path) = disk_with(text);
            let error = read_offsets(&disk, &path).expect_err(text);
            assert!(error.to_string().contains("/checkpoint"), "{error}");
        }
    }

    #[test]
    fn topic_ids_and_properties_are_read() {
        let id = Uuid([7; 16]);
        let (disk, path) = disk_with(&format_topic_id(id));
        assert_eq!(read_topic_id(&disk, &path).unwrap(), Some(id));
        assert_eq!(read_topic_id(&disk, Path::new("/missing")).unwrap(), None);
        for text in ["version: 1\ntopic_id: x", "version: 0\n", "version: 0\ntopic_id: short"] {
            let (disk, path) = disk_with(text);
            assert!(matches!(read_topic_id(&disk, &path), Err(LogError::Malformed { .. })));
        }
        let (disk, path) = disk_with("#\n#Sat Nov 21\nversion=1\ncluster.id = abc=d\n\n");
        let properties = read_properties(&disk, &path).unwrap().unwrap();
        assert_eq!(properties["cluster.id"], "abc=d");
        assert_eq!(properties.len(), 2);
    }
}

//! The names of files and directories, as Kafka forms them.
//!
//! ```text
//! <topic>-<partition>/                     one log
//! <topic>-<partition>.<32 hex>-delete/     a log on its way out
//! <topic>-<partition>.<32 hex>-future/     a log that will take the place of another
//! <topic>-<partition>.<32 hex>-stray/      a log that no topic claims, left to the operator
//! <20-digit offset>.log .index .timeindex .txnindex .snapshot
//! <20-digit offset>.<kind>.deleted         a file on its way out
//! <20-digit offset>.<kind>.cleaned         a file that compaction writes
//! <20-digit offset>.<kind>.swap            the same, finished, about to replace others
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use fleuve_types::TopicPartition;

/// The kinds of files named by the offset they begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    ProducerSnapshot,
}

impl FileKind {
    /// What one segment consists of. The log comes first: without it the others mean nothing.
    pub(crate) const OF_SEGMENT: [Self; 4] =
        [Self::Log, Self::OffsetIndex, Self::TimeIndex, Self::TransactionIndex];

    const ALL: [Self; 5] = [
        Self::Log,
        Self::OffsetIndex,
        Self::TimeIndex,
        Self::TransactionIndex,
        Self::ProducerSnapshot,
    ];

    fn suffix(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::OffsetIndex => "index",
            Self::TimeIndex => "timeindex",
            Self::TransactionIndex => "txnindex",
            Self::ProducerSnapshot => "snapshot",
        }
    }
}

/// The suffix of files that wait for their deletion.
pub(crate) const DELETED_SUFFIX: &str = ".deleted";
/// The suffixes of files that an interrupted compaction leaves behind, half written.
pub(crate) const CLEANED_SUFFIX: &str = ".cleaned";
/// The suffix of what a finished compaction is about to put in place of older segments.
pub(crate) const SWAP_SUFFIX: &str = ".swap";
/// The suffix of a file that was being replaced when the process ended.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";
/// The suffix of directories that wait for their deletion.
pub(crate) const DELETE_DIRECTORY_SUFFIX: &str = "-delete";
/// The suffix of directories of replicas that move between data directories.
pub(crate) const FUTURE_DIRECTORY_SUFFIX: &str = "-future";
/// The suffix of directories of partitions that nobody claims.
pub(crate) const STRAY_DIRECTORY_SUFFIX: &str = "-stray";

const OFFSET_DIGITS: usize = 20;

/// Returns the path of the file of `kind` that begins at `offset`.
pub(crate) fn file_path(directory: &Path, offset: i64, kind: FileKind) -> PathBuf {
    directory.join(format!("{offset:0OFFSET_DIGITS$}.{}", kind.suffix()))
}

/// Takes a file name apart; `None` when it is not one of ours.
pub(crate) fn parse_file_name(name: &str) -> Option<(i64, FileKind)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != OFFSET_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let offset = digits.parse().ok()?;
    let kind = FileKind::ALL.into_iter().find(|kind| kind.suffix() == suffix)?;
    Some((offset, kind))
}

/// Appends `suffix` to the last name in `path`.
pub(crate) fn with_suffix(path: &Path, suffix: impl fmt::Display) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix.to_string());
    PathBuf::from(name)
}

/// Returns the name of the directory of a partition.
pub(crate) fn log_directory_name(partition: &TopicPartition) -> String {
    partition.to_string()
}

/// Takes a directory name apart; `None` when it does not end in a partition number.
pub(crate) fn parse_log_directory_name(name: &str) -> Option<TopicPartition> {
    // Topic names may contain dashes: the last one counts.
    let (topic, partition) = name.rsplit_once('-')?;
    let digits = !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    let partition = partition.parse().ok().filter(|_| digits && !topic.is_empty())?;
    Some(TopicPartition::new(topic, partition))
}

/// Returns the name under which the directory of a partition waits for its deletion.
///
/// `id` makes it unique: a topic can be deleted, created and deleted again within the delay.
pub(crate) fn deleted_directory_name(partition: &TopicPartition, id: u128) -> String {
    cut_directory_name(partition, id, DELETE_DIRECTORY_SUFFIX)
}

/// Returns the name under which the directory of a partition is kept that no topic claims.
pub(crate) fn stray_directory_name(partition: &TopicPartition, id: u128) -> String {
    cut_directory_name(partition, id, STRAY_DIRECTORY_SUFFIX)
}

/// Kafka cuts the topic so that the name stays within the 255 bytes a file name may have.
fn cut_directory_name(partition: &TopicPartition, id: u128, suffix: &str) -> String {
    let suffix = format!("-{}.{id:032x}{suffix}", partition.partition);
    // Topic names are ASCII, so every byte is a boundary; `get` guards against one that is not.
    let kept = partition.topic.len().min(NAME_MAX - suffix.len());
    format!("{}{suffix}", partition.topic.get(..kept).unwrap_or_default())
}

/// Returns the name of the directory of a log that will take another's place once it holds the same;
/// `None` when the topic's name leaves no room for what must follow it.
pub(crate) fn future_directory_name(partition: &TopicPartition, id: u128) -> Option<String> {
    let name = format!("{partition}.{id:032x}{FUTURE_DIRECTORY_SUFFIX}");
    (name.len() <= NAME_MAX).then_some(name)
}

/// Reports whether `directory` bears the name of such a log.
pub(crate) fn is_future_directory(directory: &Path) -> bool {
    let name = directory.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(FUTURE_DIRECTORY_SUFFIX))
}

/// Takes the name of the directory of such a log apart.
pub(crate) fn parse_future_directory_name(name: &str) -> Option<TopicPartition> {
    let (name, _id) = name.strip_suffix(FUTURE_DIRECTORY_SUFFIX)?.rsplit_once('.')?;
    parse_log_directory_name(name)
}

/// What Linux allows for a name.
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        let path = file_path(Path::new("/d"), 4711, FileKind::TimeIndex);
        assert_eq!(path, Path::new("/d/00000000000000004711.timeindex"));
        assert_eq!(
            parse_file_name("00000000000000004711.timeindex"),
            Some((4711, FileKind::TimeIndex))
        );
        for foreign in [
            "4711.log",
            "0000000000000000471x.log",
            "00000000000000004711.log.deleted",
            "00000000000000004711",
            "99999999999999999999.log",
            "leader-epoch-checkpoint",
        ] {
            assert_eq!(parse_file_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn directories_are_taken_apart_at_the_last_dash() {
        let parse = parse_log_directory_name;
        assert_eq!(parse("a-b-12"), Some(TopicPartition::new("a-b", 12)));
        for foreign in ["lost+found", "-1", "a-", "a-b", "a-+1", "a-99999999999", "x-1.ab-delete"] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
        let name = future_directory_name(&TopicPartition::new("a.b", 1), 0xab).unwrap();
        assert_eq!(name, "a.b-1.000000000000000000000000000000ab-future");
        assert_eq!(parse_future_directory_name(&name), Some(TopicPartition::new("a.b", 1)));
        assert_eq!(parse_future_directory_name("a-1-future"), None);
        let long = TopicPartition::new("t".repeat(249), 7);
        assert_eq!(future_directory_name(&long, 1), None);
        let name = deleted_directory_name(&long, 0xab);
        assert_eq!(name.len(), 255);
        assert!(name.ends_with("-7.000000000000000000000000000000ab-delete"), "{name}");
    }
}

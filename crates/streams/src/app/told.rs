//! What the instances of an application tell each other through their group, with the classic protocol.
//!
//! ```text
//! of a member, to the one that divides      {"applicationServer": "host:8080", "process": "5f3c...", "asked": 0,
//!                                            "tags": {"zone": "a"}, "running": ["0_1"], "positions": {"0_2": 1700}}
//! of the one that divides, to a member      {"standby": ["0_3"], "warmup": ["1_0"], "probing": true,
//!                                            "partitions": {"lines": 4}}
//! ```
//!
//! Everything may be missing: earlier releases say less, and with the streams protocol the broker knows it all.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::topics::Counts;
use crate::runtime::TaskId;

/// What a member tells about its process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Told {
    /// Where the instance answers queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) application_server: Option<String>,
    /// The process that the member is a thread of; empty if it does not say.
    pub(super) process: String,
    /// How often the member has asked for another division: groups divide anew when a member says something new.
    pub(super) asked: u64,
    /// `client.tag.*`.
    pub(super) tags: BTreeMap<String, String>,
    /// The tasks that run in the process.
    pub(super) running: BTreeSet<String>,
    /// The tasks whose state the process has, with the sum of the offsets that their stores have come to.
    pub(super) positions: BTreeMap<String, i64>,
}

/// What a member is told beside its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Given {
    standby: BTreeSet<String>,
    warmup: BTreeSet<String>,
    /// Whether this member has the group divide anew after a while.
    pub(super) probing: bool,
    /// The topics that tasks read, with their numbers of partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partitions: Option<Counts>,
}

impl Told {
    /// Adds the process's tasks.
    pub(super) fn with_tasks(
        mut self,
        running: impl Iterator<Item = TaskId>,
        positions: impl Iterator<Item = (TaskId, i64)>,
    ) -> Self {
        self.running = running.map(|id| id.to_string()).collect();
        self.positions = positions.map(|(id, offset)| (id.to_string(), offset)).collect();
        self
    }

    pub(super) fn running(&self) -> impl Iterator<Item = TaskId> {
        self.running.iter().filter_map(|text| task(text))
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = (TaskId, i64)> {
        self.positions.iter().filter_map(|(text, offset)| Some((task(text)?, *offset)))
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        to_bytes(self)
    }

    /// Reads what a member told. What is not of our kind says nothing.
    pub(super) fn of_bytes(bytes: Option<&Bytes>) -> Self {
        of_bytes(bytes)
    }
}

impl Given {
    pub(super) fn new(
        standby: &BTreeSet<TaskId>,
        warmup: &BTreeSet<TaskId>,
        probing: bool,
    ) -> Self {
        let texts = |ids: &BTreeSet<TaskId>| ids.iter().map(TaskId::to_string).collect();
        Self { standby: texts(standby), warmup: texts(warmup), probing, partitions: None }
    }

    /// Tasks to keep the state of.
    pub(super) fn standby(&self) -> BTreeSet<TaskId> {
        self.standby.iter().filter_map(|text| task(text)).collect()
    }

    /// Tasks to bring the state of here, to run them once that is done.
    pub(super) fn warmup(&self) -> BTreeSet<TaskId> {
        self.warmup.iter().filter_map(|text| task(text)).collect()
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        to_bytes(self)
    }

    pub(super) fn of_bytes(bytes: Option<&Bytes>) -> Self {
        of_bytes(bytes)
    }
}

fn to_bytes(told: &impl Serialize) -> Bytes {
    // Maps of text cannot fail to be written.
    serde_json::to_vec(told).map(Into::into).unwrap_or_default()
}

fn of_bytes<T: for<'a> Deserialize<'a> + Default>(bytes: Option<&Bytes>) -> T {
    bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
}

fn task(text: &str) -> Option<TaskId> {
    let (subtopology, partition) = text.split_once('_')?;
    Some(TaskId { subtopology: subtopology.parse().ok()?, partition: partition.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TaskId = TaskId { subtopology: 1, partition: 12 };

    #[test]
    fn what_was_told_is_read() {
        let told = Told { process: "p".to_owned(), asked: 2, ..Told::default() };
        let told = told.with_tasks([ID].into_iter(), [(ID, 17)].into_iter());
        let read = Told::of_bytes(Some(&told.to_bytes()));
        assert_eq!(read, told);
        assert_eq!(read.running().collect::<Vec<_>>(), [ID]);
        assert_eq!(read.positions().collect::<Vec<_>>(), [(ID, 17)]);

        let given = Given::new(&BTreeSet::from([ID]), &BTreeSet::new(), true);
        let read = Given::of_bytes(Some(&given.to_bytes()));
        assert_eq!((read.standby(), read.warmup()), (BTreeSet::from([ID]), BTreeSet::new()));
        assert!(read.probing);
    }

    #[test]
    fn what_others_tell_counts_as_far_as_it_can_be_understood() {
        let text = br#"{"applicationServer":"a:1","running":["x","0_","0_1"],"later":[]}"#;
        let told = Told::of_bytes(Some(&Bytes::from_static(text)));
        assert_eq!(told.application_server.as_deref(), Some("a:1"));
        assert_eq!(told.running().collect::<Vec<_>>(), [TaskId { subtopology: 0, partition: 1 }]);
        for text in [&b""[..], b"\x00\x01", b"[]", br#"{"running":7}"#] {
            assert_eq!(Told::of_bytes(Some(&Bytes::copy_from_slice(text))), Told::default());
        }
        assert_eq!(Given::of_bytes(None), Given::default());
    }
}

//! Tables as the tools about groups print them.

use std::collections::BTreeMap;

use fleuve_client::Admin;
use fleuve_types::TopicPartition;

use crate::failure::Failure;
use crate::output::line;

/// Pads cells as Kafka's tools do: to the least width of their column, or to its widest cell.
pub(super) struct Grid {
    pub(super) rows: Vec<Vec<String>>,
    /// Least width of each column; the last column is not padded.
    least: Vec<usize>,
    /// Whether a column grows with its cells.
    grows: Vec<bool>,
}

impl Grid {
    pub(super) fn new(columns: &[(&str, usize, bool)]) -> Self {
        Self {
            rows: vec![columns.iter().map(|(name, ..)| (*name).to_owned()).collect()],
            least: columns.iter().map(|(_, least, _)| *least).collect(),
            grows: columns.iter().map(|(.., grows)| *grows).collect(),
        }
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].len());
            let widest = if self.grows[column] { cells.max().unwrap_or(0) } else { 0 };
            widest.max(self.least[column])
        };
        let widths: Vec<_> = (0..self.least.len()).map(width).collect();
        line("")?;
        for row in &self.rows {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            line(cells.join(" "))?;
        }
        Ok(())
    }
}

/// Names the broker that coordinates a group, `gap` before its number.
pub(super) fn coordinator(admin: &Admin, id: i32, gap: &str) -> String {
    let cluster = admin.client().cluster();
    cluster.broker(id).map_or_else(
        || format!("({id})"),
        |broker| format!("{}:{}{gap}({id})", broker.host, broker.port),
    )
}

/// Writes partitions as `topic:0,1;other:2`.
pub(super) fn assignment(partitions: &[TopicPartition]) -> String {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    if topics.is_empty() {
        return "-".to_owned();
    }
    let texts = topics.into_iter().map(|(topic, mut indexes)| {
        indexes.sort_unstable();
        let indexes: Vec<_> = indexes.iter().map(ToString::to_string).collect();
        format!("{topic}:{}", indexes.join(","))
    });
    texts.collect::<Vec<_>>().join(";")
}

/// A number where there is one.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_written_topic_by_topic() {
        let partitions = [("b", 1), ("a", 2), ("a", 0)];
        let partitions: Vec<_> =
            partitions.iter().map(|(topic, index)| TopicPartition::new(*topic, *index)).collect();
        assert_eq!(assignment(&partitions), "a:0,2;b:1");
        assert_eq!(assignment(&[]), "-");
    }
}

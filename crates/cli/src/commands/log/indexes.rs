//! Index files held against the log beside them.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::files::{Kind, base_offset, fields, files, first, read_batch, rising};
use crate::args::Format;
use crate::failure::Failure;
use crate::output::{line, print_value};

/// Looks whether every entry of the indexes points at a batch that holds its offset.
pub(crate) fn verify_indexes(paths: &[PathBuf], format: Format) -> Result<(), Failure> {
    let mut wrong = 0;
    let mut found = Vec::new();
    for path in files(paths)? {
        let kind = Kind::of(&path);
        if !matches!(kind, Some(Kind::OffsetIndex | Kind::TimeIndex)) {
            continue;
        }
        let shown = path.display();
        let is_for_people = format == Format::Table;
        if is_for_people {
            line(format!("Dumping {shown}"))?;
        }
        let problems = verify_index(&path, kind == Some(Kind::TimeIndex))?;
        if is_for_people && problems.is_empty() {
            line(format!("{shown} passed the check."))?;
        }
        for problem in problems.iter().filter(|_| is_for_people) {
            line(format!("  {problem}"))?;
        }
        wrong += usize::from(!problems.is_empty());
        found.push(json!({ "file": shown.to_string(), "problems": problems }));
    }
    if format != Format::Table {
        print_value(format, &Value::Array(found))?;
    }
    match wrong {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{count} indexes do not fit their logs: remove them while the broker is stopped, and it \
             makes them anew"
        ))),
    }
}

fn verify_index(path: &Path, is_time_index: bool) -> Result<Vec<String>, Failure> {
    let unreadable = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let log_path = path.with_extension("log");
    let log = File::open(&log_path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", log_path.display())))?;
    let size = log.metadata().map_err(unreadable)?.len();
    // First and last offset and highest time of every batch, by position.
    let mut batches = std::collections::BTreeMap::new();
    let mut position = 0;
    while position < size {
        let Ok(batch) = read_batch(&log, position, size) else { break };
        let header = batch.header;
        let range = (header.base_offset.0, header.last_offset().0, header.max_timestamp.0);
        batches.insert(position, range);
        position += header.size() as u64;
    }
    let base_offset = base_offset(path);
    let mut problems = Vec::new();
    if is_time_index {
        let entries = bytes.as_chunks::<12>().0.iter().map(|entry| {
            let relative = i32::from_be_bytes(first(entry, 8));
            (i64::from_be_bytes(first(entry, 0)), base_offset + i64::from(relative))
        });
        for (timestamp, offset) in rising(entries, |entry| entry.0) {
            let highest = batches
                .values()
                .filter(|(first, _, _)| *first <= offset)
                .map(|(_, _, highest)| *highest)
                .max();
            if highest != Some(timestamp) {
                problems.push(format!(
                    "timestamp {timestamp} at offset {offset}: the log has {}",
                    highest.map_or_else(|| "none".to_owned(), |highest| highest.to_string())
                ));
            }
        }
    } else {
        let entries = bytes.as_chunks::<8>().0.iter().map(|entry| {
            let [relative, position] = fields(entry);
            (base_offset + i64::from(relative), position)
        });
        for (offset, position) in rising(entries, |entry| i64::from(entry.1)) {
            let batch = u64::try_from(position).ok().and_then(|position| batches.get(&position));
            if !batch.is_some_and(|(first, last, _)| (*first..=*last).contains(&offset)) {
                problems.push(format!(
                    "offset {offset} at position {position}: no batch there holds it"
                ));
            }
        }
    }
    Ok(problems)
}
